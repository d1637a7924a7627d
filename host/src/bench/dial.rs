//! Connections that are ready: connected, accepted by CONNACK, subscribed.

use std::io::ErrorKind;
use std::ops::Range;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};

use super::error::Error;
use super::link::Link;
use super::packets::{self, Connect, Frame, PINGREQ, kind, variable_byte_integer};
use super::plan::{Options, Target};
use super::report::Progress;

/// How many connections are opened before the first of their CONNACKs is waited for. Less than what listeners let wait.
const AT_ONCE: usize = 64;
/// The same of those that have TLS or a WebSocket. Mosquitto 2.0.11 closes some of 64 whose handshakes do not go on at once.
const AT_ONCE_LAYERED: usize = 8;

/// What CONNACK says that a load has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) session_present: bool,
    /// How many messages of QoS 1 and 2 may be without an acknowledgement.
    pub(super) receive_maximum: u16,
    /// The largest QoS that the broker takes.
    pub(super) maximum_qos: u8,
    /// The broker's own Keep Alive, in seconds; 0 if it did not ask for one.
    pub(super) keep_alive_secs: u16,
}

/// Lets this process have as many open files as it may. Returns how many that is.
pub(super) fn raise_open_files() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// One error for a load that needs more connections than this process can have.
pub(super) fn check_open_files(connections: usize) -> Result<(), Error> {
    let (most, needed) = (raise_open_files(), connections as u64 + 64);
    if needed > most {
        return Err(Error::NotStarted(format!(
            "{connections} connections need {needed} open files, but this process may have {most}: raise the limit \
             (ulimit -n), or use fewer connections"
        )));
    }
    Ok(())
}

/// The CONNECT of a connection.
pub(super) fn connect_packet(target: &Target, connection: usize, manner: Manner) -> Vec<u8> {
    Connect {
        version: target.version,
        client_id: &target.client_id(connection),
        username: target.username.as_deref(),
        password: target.password.as_deref(),
        clean: manner.clean,
        keep_alive_secs: manner.keep_alive_secs,
    }
    .packet()
}

/// Reads exactly one packet and not a byte more: its first byte, and what follows the length.
pub(super) fn read_packet(link: &mut Link, what: &str) -> Result<(u8, Vec<u8>), Error> {
    let failed = |error: std::io::Error| {
        Error::Lost(match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("no {what} from the broker in time"),
            ErrorKind::UnexpectedEof => format!("the broker closed the connection instead of sending {what}"),
            _ => format!("no {what} from the broker: {error}"),
        })
    };
    let mut head = [0; 5];
    link.read_exact(&mut head[..2]).map_err(failed)?;
    let mut at = 2;
    while head[at - 1] & 0x80 != 0 && at < 5 {
        link.read_exact(&mut head[at..=at]).map_err(failed)?;
        at += 1;
    }
    let length = variable_byte_integer(&head[1..at]).map_err(Error::Lost)?;
    let (length, _) = length.ok_or_else(|| Error::Lost(format!("the broker sent a malformed length: {head:02x?}")))?;
    let mut body = vec![0; length];
    link.read_exact(&mut body).map_err(failed)?;
    Ok((head[0], body))
}

/// Reads CONNACK, which has to accept.
pub(super) fn read_connack(target: &Target, link: &mut Link) -> Result<Accepted, Error> {
    let (first, body) = read_packet(link, "CONNACK")?;
    if first >> 4 != kind::CONNACK || body.len() < 2 {
        return Err(Error::Lost(format!("the broker answered CONNECT with {first:#04x} {body:02x?}: is it MQTT?")));
    }
    if body[1] != 0 {
        return Err(Error::Refused(format!(
            "the broker at {} refused CONNECT with {:#04x}{}",
            target.addr,
            body[1],
            if matches!(body[1], 4 | 5 | 0x86 | 0x87) { ": does it want --username and --password?" } else { "" }
        )));
    }
    accepted(&body, target.version.is_v5())
        .ok_or_else(|| Error::Lost(format!("the broker sent a malformed CONNACK: {body:02x?}")))
}

/// What stands in a CONNACK. `None` if it is malformed.
fn accepted(body: &[u8], is_v5: bool) -> Option<Accepted> {
    let mut accepted =
        Accepted { session_present: body[0] & 1 != 0, receive_maximum: u16::MAX, maximum_qos: 2, keep_alive_secs: 0 };
    if !is_v5 {
        return Some(accepted);
    }
    let (length, length_bytes) = variable_byte_integer(&body[2..]).ok()??;
    let mut rest = body.get(2 + length_bytes..2 + length_bytes + length)?;
    while let Some((&identifier, value)) = rest.split_first() {
        let u16_at = |at: usize| Some(u16::from_be_bytes(*value.get(at..)?.first_chunk()?));
        let text_bytes = |at: usize| u16_at(at).map(|length| at + 2 + usize::from(length));
        let bytes = match identifier {
            0x24 | 0x25 | 0x28 | 0x29 | 0x2a => 1,
            0x13 | 0x21 | 0x22 => 2,
            0x11 | 0x27 => 4,
            0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => text_bytes(0)?,
            0x26 => text_bytes(text_bytes(0)?)?,
            _ => return None,
        };
        match identifier {
            0x13 => accepted.keep_alive_secs = u16_at(0)?,
            0x21 => accepted.receive_maximum = u16_at(0)?,
            0x24 => accepted.maximum_qos = *value.first()?,
            _ => {}
        }
        rest = value.get(bytes..)?;
    }
    Some(accepted)
}

/// Reads SUBACK, whose Reason Codes have to grant `qos`.
pub(super) fn read_suback(link: &mut Link, qos: u8, filters: usize) -> Result<(), Error> {
    let (first, body) = read_packet(link, "SUBACK")?;
    let bytes = body.len();
    let frame = Frame { first, body: &body, bytes };
    if frame.kind() != kind::SUBACK || bytes < 2 + filters {
        return Err(Error::Lost(format!("the broker answered SUBSCRIBE with {first:#04x} {body:02x?}")));
    }
    match body[bytes - filters..].iter().find(|code| **code != qos) {
        None => Ok(()),
        Some(code) if *code >= 0x80 => {
            Err(Error::Refused(format!("the broker refused a subscription with {code:#04x}")))
        }
        Some(code) => Err(Error::Refused(format!("the broker granted QoS {code} where QoS {qos} was asked for"))),
    }
}

/// Reads UNSUBACK, which has to take all of so many filters away.
pub(super) fn read_unsuback(link: &mut Link, filters: usize) -> Result<(), Error> {
    let (first, body) = read_packet(link, "UNSUBACK")?;
    // MQTT 3.x has no Reason Codes there; 5.0 has properties before them.
    let codes = match body.len() {
        2 => Some(&[][..]),
        bytes => bytes.checked_sub(filters).filter(|at| *at > 2).map(|at| &body[at..]),
    };
    match codes {
        Some(codes) if first >> 4 == kind::UNSUBACK && codes.iter().all(|code| *code < 0x80) => Ok(()),
        _ => Err(Error::Lost(format!("the broker answered UNSUBSCRIBE with {first:#04x} {body:02x?}"))),
    }
}

/// A session is present where there was to be none.
pub(super) fn has_sessions() -> Error {
    Error::NotStarted("the broker has sessions of an earlier run: choose another --name".into())
}

/// How connections are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Connections that are opened before the first of their CONNACKs is waited for; `None`: as many as brokers can bear.
    pub(super) at_once: Option<usize>,
    /// Sessions end with their connection, and there was none before.
    pub(super) clean: bool,
    /// 0: whoever only listens need not send anything.
    pub(super) keep_alive_secs: u16,
    /// Answers are asked for without a pause.
    pub(super) spin: bool,
}

impl Manner {
    /// As the options want it, where it is these connections that are measured.
    pub(super) fn of(options: &Options) -> Self {
        Self { spin: options.spin, ..Self::default() }
    }
}

impl Default for Manner {
    fn default() -> Self {
        Self { at_once: None, clean: true, keep_alive_secs: 0, spin: false }
    }
}

/// Makes connections, each with its own number, and subscribes to what `subscription` says. `progress` is called once a second.
pub(super) fn connect_all(
    target: &Target,
    numbers: Range<usize>,
    manner: Manner,
    progress: &mut dyn FnMut(&Progress),
    subscription: impl Fn(usize) -> Option<(Vec<String>, u8)>,
) -> Result<Vec<(Link, Accepted)>, Error> {
    let count = numbers.len();
    check_open_files(count)?;
    let at_once = manner.at_once.unwrap_or(if target.has_layers() { AT_ONCE_LAYERED } else { AT_ONCE });
    let (mut ready, mut told) = (Vec::with_capacity(count), Instant::now());
    for start in numbers.clone().step_by(at_once) {
        let numbers = start..numbers.end.min(start + at_once);
        let links = open_all(target, numbers.clone(), count, manner)?;
        let mut subscribing = Vec::with_capacity(at_once);
        for (number, (_, mut link)) in numbers.zip(links) {
            let accepted = read_connack(target, &mut link)?;
            let subscription = subscription(number);
            if let Some((filters, qos)) = &subscription {
                link.write(&subscribe_packet(target, &filters[..filters.len().min(FILTERS_AT_ONCE)], *qos))?;
            }
            subscribing.push((link, accepted, subscription));
        }
        for (mut link, accepted, subscription) in subscribing {
            if let Some((filters, qos)) = &subscription {
                for (number, filters) in filters.chunks(FILTERS_AT_ONCE).enumerate() {
                    if number > 0 {
                        link.write(&subscribe_packet(target, filters, *qos))?;
                    }
                    read_suback(&mut link, *qos, filters.len())?;
                }
            }
            ready.push((link, accepted));
        }
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            progress(&Progress::Connecting { connected: ready.len(), connections: count });
        }
    }
    Ok(ready)
}

/// Opens connections, and sends the CONNECT of each. With each, when it was begun.
pub(super) fn open_all(
    target: &Target,
    numbers: Range<usize>,
    connections: usize,
    manner: Manner,
) -> Result<Vec<(Instant, Link)>, Error> {
    let mut links = Vec::with_capacity(numbers.len());
    for number in numbers.clone() {
        let began = Instant::now();
        let mut link = Link::open(target, number, connections, manner.spin)?;
        // Others get their layers ready together, one waiting for the broker while it answers the other.
        if link.is_ready() {
            link.write(&connect_packet(target, number, manner))?;
        }
        links.push((began, link));
    }
    if target.has_layers() {
        for (number, (_, link)) in numbers.zip(&mut links) {
            link.write(&connect_packet(target, number, manner))?;
        }
    }
    Ok(links)
}

/// How many filters one SUBSCRIBE has, at most.
const FILTERS_AT_ONCE: usize = 200;

pub(super) fn subscribe_packet(target: &Target, filters: &[String], qos: u8) -> Vec<u8> {
    packets::subscribe(target.version, 1, filters.iter().map(String::as_str), qos)
}

pub(super) fn unsubscribe_packet(target: &Target, filters: &[String]) -> Vec<u8> {
    packets::unsubscribe(target.version, 2, filters.iter().map(String::as_str))
}

/// Says goodbye, and waits until the broker has closed too: then it has done with these connections.
pub(super) fn disconnect_all(links: impl IntoIterator<Item = Link>) {
    let mut links: Vec<_> = links.into_iter().collect();
    links.iter_mut().for_each(Link::disconnect);
    links.iter().for_each(Link::wait_closed);
}

/// Waits until the broker has done everything that was sent before.
pub(super) fn wait_done(link: &mut Link) -> Result<(), Error> {
    link.write(&PINGREQ)?;
    while read_packet(link, "PINGRESP")?.0 >> 4 != kind::PINGRESP {}
    Ok(())
}

/// Reads PINGRESP, and nothing else may come.
pub(super) fn read_pingresp(link: &mut Link) -> Result<(), Error> {
    match read_packet(link, "PINGRESP")? {
        (first, _) if first >> 4 == kind::PINGRESP => Ok(()),
        (first, body) => Err(Error::Lost(format!("the broker answered PINGREQ with {first:#04x} {body:02x?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    /// Both ends of a connection.
    fn connected(patience: Duration, spin: bool) -> (Link, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Link::plain(client.into(), patience, spin), listener.accept().unwrap().0)
    }

    #[test]
    fn unsuback_takes_everything_away_or_is_an_error() {
        let (mut client, mut broker) = connected(Duration::from_secs(60), false);
        let table: &[(&[u8], bool)] = &[
            (&[0xb0, 2, 0, 2], true),
            (&[0xb0, 5, 0, 2, 0, 0, 0x11], true),
            (&[0xb0, 5, 0, 2, 0, 0, 0x87], false),
            (&[0xb0, 4, 0, 2, 0, 0], false),
            (&[0x90, 2, 0, 2], false),
        ];
        for (bytes, is_taken) in table {
            broker.write_all(bytes).unwrap();
            assert_eq!(read_unsuback(&mut client, 2).is_ok(), *is_taken, "{bytes:02x?}");
        }
    }

    #[test]
    fn who_asks_without_a_pause_gives_up_like_who_sleeps() {
        for spin in [false, true] {
            let (mut client, mut broker) = connected(Duration::from_millis(50), spin);
            broker.write_all(&[0xd0]).unwrap();
            assert!(
                matches!(read_pingresp(&mut client), Err(Error::Lost(why)) if why == "no PINGRESP from the broker in time")
            );
            let (mut client, mut broker) = connected(Duration::from_secs(60), spin);
            broker.write_all(&[0xd0, 0]).unwrap();
            read_pingresp(&mut client).expect("it has come");
        }
    }

    #[test]
    fn connack_says_what_the_load_has_to_heed() {
        let plain = Accepted { session_present: false, receive_maximum: u16::MAX, maximum_qos: 2, keep_alive_secs: 0 };
        assert_eq!(accepted(&[0, 0], false), Some(plain));
        assert_eq!(accepted(&[1, 0], false), Some(Accepted { session_present: true, ..plain }));
        assert_eq!(accepted(&[0, 0, 0], true), Some(plain));
        let all = [
            0, 0, 26, 0x26, 0, 1, b'a', 0, 1, b'b', 0x12, 0, 2, b'i', b'd', 0x21, 0, 20, 0x24, 1, 0x13, 0, 30, 0x27, 0,
            0, 1, 0,
        ];
        let expected = Accepted { session_present: false, receive_maximum: 20, maximum_qos: 1, keep_alive_secs: 30 };
        let mut whole = all.to_vec();
        whole[2] = (all.len() - 3) as u8;
        assert_eq!(accepted(&whole, true), Some(expected));
        assert_eq!(accepted(&[0, 0], true), None);
        assert_eq!(accepted(&[0, 0, 2, 0x21, 0], true), None);
        assert_eq!(accepted(&[0, 0, 1, 0x7f], true), None);
    }
}
