//! Connections that are ready: connected, accepted by CONNACK, subscribed.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::error::Error;
use super::packets::{self, Connect, DISCONNECT, Frame, PINGREQ, kind, variable_byte_integer};
use super::plan::{Options, Target};
use super::report::Progress;

/// How many connections are opened before the first of their CONNACKs is waited for. Less than what listeners let wait.
pub(super) const AT_ONCE: usize = 64;

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

/// Opens a socket to the broker. It blocks until there is a connection, and each read waits for `patience` at most; with
/// `spin` it waits without sleeping.
pub(super) fn open(target: &Target, connection: usize, connections: usize, spin: bool) -> Result<TcpStream, Error> {
    let failed = |error: std::io::Error| {
        let hint = match error.kind() {
            ErrorKind::ConnectionRefused => ": nobody listens there. Is the broker running?",
            ErrorKind::AddrNotAvailable => ": no port is left for another connection from that address (--source)",
            _ => "",
        };
        Error::NotStarted(format!("cannot connect to {} (connection {connection}): {error}{hint}", target.addr))
    };
    let stream = match target.source(connection, connections) {
        None => TcpStream::connect_timeout(&target.addr, target.patience).map_err(failed)?,
        Some(source) => {
            let family = if target.addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None);
            let socket = socket.map_err(|errno| failed(errno.into()))?;
            net::bind(&socket, &SocketAddr::new(source, 0)).map_err(|errno| failed(errno.into()))?;
            net::connect(&socket, &target.addr).map_err(|errno| failed(errno.into()))?;
            TcpStream::from(socket)
        }
    };
    stream.set_nodelay(true).map_err(failed)?;
    stream.set_read_timeout(Some(target.patience)).map_err(failed)?;
    stream.set_write_timeout(Some(target.patience)).map_err(failed)?;
    stream.set_nonblocking(spin).map_err(failed)?;
    Ok(stream)
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

/// Writes everything.
pub(super) fn write(mut stream: &TcpStream, mut bytes: &[u8]) -> Result<(), Error> {
    let failed = |error| Error::Lost(format!("the broker takes no more bytes: {error}"));
    let mut patience = Patience::new(stream);
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if patience.goes_on(&error) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// Fills `bytes`.
fn read_exact(mut stream: &TcpStream, mut bytes: &mut [u8]) -> io::Result<()> {
    let mut patience = Patience::new(stream);
    while !bytes.is_empty() {
        match stream.read(bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = &mut bytes[count..],
            Err(error) if patience.goes_on(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

thread_local! {
    /// What this thread has spent on asking in vain.
    static IDLE_NS: Cell<u64> = const { Cell::new(0) };
}

/// Nanoseconds in which this thread has asked sockets again that had nothing. That is not work.
pub(super) fn idle_ns() -> u64 {
    IDLE_NS.get()
}

/// How long a socket is asked again that has nothing yet, or takes nothing: one that blocks has waited by itself, and is not.
struct Patience<'a> {
    stream: &'a TcpStream,
    /// Since when it has been asked again, and for how long it may be.
    asked: Option<(Instant, Duration)>,
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        if let Some((since, _)) = self.asked {
            IDLE_NS.set(IDLE_NS.get() + since.elapsed().as_nanos() as u64);
        }
    }
}

impl<'a> Patience<'a> {
    fn new(stream: &'a TcpStream) -> Self {
        Self { stream, asked: None }
    }

    fn goes_on(&mut self, error: &io::Error) -> bool {
        match error.kind() {
            ErrorKind::Interrupted => true,
            ErrorKind::WouldBlock => {
                let (stream, blocks) = (self.stream, |flags: OFlags| !flags.contains(OFlags::NONBLOCK));
                if self.asked.is_none() && fcntl_getfl(stream).is_ok_and(blocks) {
                    return false;
                }
                let patience = || stream.read_timeout().ok().flatten().unwrap_or_default();
                let (since, patience) = *self.asked.get_or_insert_with(|| (Instant::now(), patience()));
                since.elapsed() < patience
            }
            _ => false,
        }
    }
}

/// Reads exactly one packet and not a byte more: its first byte, and what follows the length.
pub(super) fn read_packet(stream: &TcpStream, what: &str) -> Result<(u8, Vec<u8>), Error> {
    let failed = |error: std::io::Error| {
        Error::Lost(match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("no {what} from the broker in time"),
            ErrorKind::UnexpectedEof => format!("the broker closed the connection instead of sending {what}"),
            _ => format!("no {what} from the broker: {error}"),
        })
    };
    let mut head = [0; 5];
    read_exact(stream, &mut head[..2]).map_err(failed)?;
    let mut at = 2;
    while head[at - 1] & 0x80 != 0 && at < 5 {
        read_exact(stream, &mut head[at..=at]).map_err(failed)?;
        at += 1;
    }
    let length = variable_byte_integer(&head[1..at]).map_err(Error::Lost)?;
    let (length, _) = length.ok_or_else(|| Error::Lost(format!("the broker sent a malformed length: {head:02x?}")))?;
    let mut body = vec![0; length];
    read_exact(stream, &mut body).map_err(failed)?;
    Ok((head[0], body))
}

/// Reads CONNACK, which has to accept.
pub(super) fn read_connack(target: &Target, stream: &TcpStream) -> Result<Accepted, Error> {
    let (first, body) = read_packet(stream, "CONNACK")?;
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
pub(super) fn read_suback(stream: &TcpStream, qos: u8, filters: usize) -> Result<(), Error> {
    let (first, body) = read_packet(stream, "SUBACK")?;
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
pub(super) fn read_unsuback(stream: &TcpStream, filters: usize) -> Result<(), Error> {
    let (first, body) = read_packet(stream, "UNSUBACK")?;
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

/// How connections are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Connections that are opened before the first of their CONNACKs is waited for.
    pub(super) at_once: usize,
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
        Self { at_once: AT_ONCE, clean: true, keep_alive_secs: 0, spin: false }
    }
}

/// Makes connections, each with its own number, and subscribes to what `subscription` says. `progress` is called once a second.
pub(super) fn connect_all(
    target: &Target,
    numbers: Range<usize>,
    manner: Manner,
    progress: &mut dyn FnMut(&Progress),
    subscription: impl Fn(usize) -> Option<(Vec<String>, u8)>,
) -> Result<Vec<(TcpStream, Accepted)>, Error> {
    let count = numbers.len();
    check_open_files(count)?;
    let (mut ready, mut told) = (Vec::with_capacity(count), Instant::now());
    for start in numbers.clone().step_by(manner.at_once) {
        let numbers = start..numbers.end.min(start + manner.at_once);
        let mut streams = Vec::with_capacity(manner.at_once);
        for number in numbers.clone() {
            let stream = open(target, number, count, manner.spin)?;
            write(&stream, &connect_packet(target, number, manner))?;
            streams.push(stream);
        }
        let mut subscribing = Vec::with_capacity(manner.at_once);
        for (number, stream) in numbers.zip(streams) {
            let accepted = read_connack(target, &stream)?;
            let subscription = subscription(number);
            if let Some((filters, qos)) = &subscription {
                write(&stream, &subscribe_packet(target, &filters[..filters.len().min(FILTERS_AT_ONCE)], *qos))?;
            }
            subscribing.push((stream, accepted, subscription));
        }
        for (stream, accepted, subscription) in subscribing {
            if let Some((filters, qos)) = &subscription {
                for (number, filters) in filters.chunks(FILTERS_AT_ONCE).enumerate() {
                    if number > 0 {
                        write(&stream, &subscribe_packet(target, filters, *qos))?;
                    }
                    read_suback(&stream, *qos, filters.len())?;
                }
            }
            ready.push((stream, accepted));
        }
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            progress(&Progress::Connecting { connected: ready.len(), connections: count });
        }
    }
    Ok(ready)
}

/// How many filters one SUBSCRIBE has, at most.
const FILTERS_AT_ONCE: usize = 200;

pub(super) fn subscribe_packet(target: &Target, filters: &[String], qos: u8) -> Vec<u8> {
    packets::subscribe(target.version, 1, filters.iter().map(String::as_str), qos)
}

pub(super) fn unsubscribe_packet(target: &Target, filters: &[String]) -> Vec<u8> {
    packets::unsubscribe(target.version, 2, filters.iter().map(String::as_str))
}

/// For an epoll.
pub(super) fn nonblocking(stream: TcpStream) -> Result<OwnedFd, Error> {
    stream.set_nonblocking(true).map_err(|error| Error::NotStarted(error.to_string()))?;
    Ok(stream.into())
}

/// Says goodbye, and waits until the broker has closed too: then it has done with these connections.
pub(super) fn disconnect_all(streams: impl IntoIterator<Item = TcpStream>) {
    let streams: Vec<_> = streams.into_iter().collect();
    for stream in &streams {
        // A broker that has gone is what was wanted.
        let _ = write(stream, &DISCONNECT);
    }
    for mut stream in &streams {
        let mut patience = Patience::new(stream);
        loop {
            match stream.read(&mut [0; 1024]) {
                Ok(1..) => {}
                Err(error) if patience.goes_on(&error) => {}
                _ => break,
            }
        }
    }
}

/// Waits until the broker has done everything that was sent before.
pub(super) fn wait_done(stream: &TcpStream) -> Result<(), Error> {
    write(stream, &PINGREQ)?;
    while read_packet(stream, "PINGRESP")?.0 >> 4 != kind::PINGRESP {}
    Ok(())
}

/// Reads PINGRESP, and nothing else may come.
pub(super) fn read_pingresp(stream: &TcpStream) -> Result<(), Error> {
    match read_packet(stream, "PINGRESP")? {
        (first, _) if first >> 4 == kind::PINGRESP => Ok(()),
        (first, body) => Err(Error::Lost(format!("the broker answered PINGREQ with {first:#04x} {body:02x?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends of a connection.
    fn connected() -> (TcpStream, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn unsuback_takes_everything_away_or_is_an_error() {
        let (client, mut broker) = connected();
        let table: &[(&[u8], bool)] = &[
            (&[0xb0, 2, 0, 2], true),
            (&[0xb0, 5, 0, 2, 0, 0, 0x11], true),
            (&[0xb0, 5, 0, 2, 0, 0, 0x87], false),
            (&[0xb0, 4, 0, 2, 0, 0], false),
            (&[0x90, 2, 0, 2], false),
        ];
        for (bytes, is_taken) in table {
            broker.write_all(bytes).unwrap();
            assert_eq!(read_unsuback(&client, 2).is_ok(), *is_taken, "{bytes:02x?}");
        }
    }

    #[test]
    fn who_asks_without_a_pause_gives_up_like_who_sleeps() {
        for spin in [false, true] {
            let (client, mut broker) = connected();
            client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            client.set_nonblocking(spin).unwrap();
            broker.write_all(&[0xd0]).unwrap();
            assert!(
                matches!(read_pingresp(&client), Err(Error::Lost(why)) if why == "no PINGRESP from the broker in time")
            );
            broker.write_all(&[0xd0, 0]).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            read_pingresp(&client).expect("it has come");
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
