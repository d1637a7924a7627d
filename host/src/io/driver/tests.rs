//! Drivers without their threads: the test takes each turn, so that it knows what has happened in which.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use plugin_api::{
    Auth, AuthVerdict, Connect, ConnectVerdict, ConnectionInfo, Disconnect, DisconnectReason, Error, Handler, Host,
    Publish, PublishVerdict, ReasonCode, handler,
};

use super::journal::zero_on_the_wall;
use super::*;
use crate::clock::WallMillis;
use crate::core::mail::Mail;
use crate::core::mailbox::Mailboxes;
use crate::core::{ListenerProfile, Shared, owner_of};
use crate::durable::change::{Change, Changes};
use crate::durable::store::fake::FakeStore;
use crate::io::listener::Bound;
use crate::io::pause::Order;
use crate::limits::Limits;
use crate::listener::ListenerConfig;
use crate::plugin::{Chain, Plugin, Services};

thread_local! {
    /// What a handler does when a message to `hook` comes, or when a connection has ended.
    static HOOK: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

fn set_hook(hook: impl Fn() + 'static) {
    HOOK.set(Some(Box::new(hook)));
}

fn run_hook() {
    if let Some(hook) = HOOK.take() {
        hook();
    }
}

/// A handler that runs the hook, and throws out who is called `unwelcome…`.
struct Hooked(Host);

#[handler]
impl Handler for Hooked {
    type Connection = ();

    fn init(host: Host, _: &str) -> Result<Self, Error> {
        Ok(Self(host))
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    fn handle_connect(&self, (): &mut (), connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        if connect.client_id().starts_with("unwelcome") {
            self.0.disconnect(connect.connection(), Disconnect::new(ReasonCode::ADMINISTRATIVE_ACTION))?;
        }
        Ok(ConnectVerdict::accept())
    }

    /// Asks for more until it gets what is the last.
    fn handle_auth(&self, (): &mut (), auth: &Auth<'_>) -> Result<AuthVerdict, Error> {
        Ok(if auth.data() == Some(b"last") { AuthVerdict::Ok } else { AuthVerdict::Continue(Vec::new()) })
    }

    fn handle_publish(&self, (): &mut (), publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        if publish.topic() == "hook" {
            run_hook();
        }
        Ok(PublishVerdict::Forward)
    }

    fn handle_disconnect(&self, (): &mut (), _: &DisconnectReason<'_>) {
        run_hook();
    }
}

impl Driver {
    /// A turn with what has happened by now.
    fn turn_at_once(&mut self) -> bool {
        self.turn(Some(0)).unwrap()
    }
}

struct Net {
    drivers: Vec<Driver>,
    workers: Arc<Workers>,
    mailboxes: Mailboxes,
    /// Where its clients are said to come from.
    listener: Listener,
}

impl Net {
    fn new(count: usize) -> Self {
        Self::with(count, None)
    }

    /// The same, with a store.
    fn with(count: usize, store: Option<&Arc<FakeStore>>) -> Self {
        let workers = Workers::new(count).unwrap();
        let mailboxes = Mailboxes::new(workers.wake());
        let clock = Clock::start();
        let services = Services::new(mailboxes.clone(), clock, 1 << 20);
        let plugin = Plugin::from_static::<Hooked>("hooked", "1.0.0", "{}", &services).unwrap();
        let chain = Chain::new(vec![plugin]).unwrap();
        let shared = Shared::new(Limits::default(), chain, mailboxes.clone());
        let shared = Arc::new(match store {
            Some(_) => shared.with_store(zero_on_the_wall(clock), Arc::default()),
            None => shared,
        });
        let driver = |worker| {
            let core = Core::new(worker, Arc::clone(&shared), clock.now());
            let poller = Poller::new(workers.epoll(worker).unwrap());
            let store = store.map(|store| Arc::clone(store) as _);
            Driver::new(worker, core, poller, Arc::clone(&workers), clock, store)
        };
        let bound = Bound::open(&ListenerConfig::new("127.0.0.1:0".parse().unwrap()), None).unwrap();
        let listener = bound.with(ListenerProfile::new("test", Limits::default()));
        Self { drivers: (0..count).map(driver).collect(), workers: Arc::clone(&workers), mailboxes, listener }
    }

    /// Turns of all workers until nothing is left to do, by them or by the one that they give it to.
    fn settle(&mut self) {
        let mut idle = 0;
        for _ in 0..1000 {
            let busy = self.drivers.iter_mut().filter_map(|driver| driver.turn_at_once().then_some(())).count();
            idle = if busy > 0 { 0 } else { idle + 1 };
            if idle == 3 {
                return;
            }
        }
        panic!("there is no end to it");
    }

    /// A socket that a worker has accepted.
    fn open(&mut self, worker: usize) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let listener = self.listener.clone();
        let accepted = Accepted { fd: ours.into(), peer: ([127, 0, 0, 1], 9).into(), listener };
        let now = self.drivers[worker].clock.now();
        self.drivers[worker].admit(accepted, now);
        theirs
    }

    /// A client that is connected.
    fn connect(&mut self, worker: usize, client_id: &str, keep_alive_secs: u8) -> UnixStream {
        let mut client = self.open(worker);
        client.write_all(&connect(client_id, keep_alive_secs)).unwrap();
        self.settle();
        assert_eq!(received(&mut client).first(), Some(&0x20));
        // That there is room again is an event as well, and would make this the first socket of the next turn.
        self.settle();
        client
    }
}

fn connect(client_id: &str, keep_alive_secs: u8) -> Vec<u8> {
    let id_bytes = u8::try_from(client_id.len()).unwrap();
    let mut packet = vec![0x10, 13 + id_bytes];
    packet.extend(*b"\0\x04MQTT\x05\x02\0");
    packet.extend([keep_alive_secs, 0, 0, id_bytes]);
    packet.extend(client_id.as_bytes());
    packet
}

/// A client id whose session belongs to this one of two workers.
fn id_of(worker: usize, prefix: &str) -> String {
    (0..).map(|number| format!("{prefix}{number}")).find(|id| owner_of(id, 2) == worker).unwrap()
}

/// All that has come.
fn received(client: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // It ends with the end of the stream, or because there is nothing more for now.
    let _ = client.read_to_end(&mut bytes);
    bytes
}

const PINGREQ: [u8; 2] = [0xc0, 0];
const PINGRESP: [u8; 2] = [0xd0, 0];
const HOOK_PUBLISH: &[u8] = b"\x30\x07\0\x04hook\0";
const KEEP_ALIVE_TIMEOUT: [u8; 3] = [0xe0, 1, 0x8d];

/// As many bytes of messages as the test's turn reads from all sockets.
fn flood() -> Vec<u8> {
    b"\x30\x04\0\x01f\0".repeat(READ_BYTES_PER_TURN / 6 + 1)
}

#[test]
fn who_is_alone_is_read_on_and_who_is_not_waits_for_the_others() {
    let mut net = Net::new(1);
    let mut alone = net.connect(0, "alone", 0);
    let message = [&b"\x30\x83\x08\0\x01f"[..], &[0; 1024]].concat();
    alone.write_all(&message.repeat(SCRATCH_BYTES / message.len() + 9)).unwrap();
    net.drivers[0].turn_at_once();
    assert!(net.drivers[0].to_read.is_empty(), "one turn reads all of it");
    let mut floods = [net.connect(0, "a", 0), net.connect(0, "b", 0)];
    for client in &mut floods {
        client.write_all(&flood()).unwrap();
    }
    net.drivers[0].turn_at_once();
    assert_eq!(net.drivers[0].to_read.len(), 2, "the other one, and what is left of the first");
}

#[test]
fn connection_is_given_away_before_another_socket_is_read() {
    let mut net = Net::new(2);
    let mut slow = net.connect(0, &id_of(0, "slow"), 0);
    let mut unwelcome = net.open(0);
    let workers = Arc::clone(&net.workers);
    let has_left = Rc::new(Cell::new(false));
    let seen = Rc::clone(&has_left);
    set_hook(move || seen.set(!workers.nothing_arrives(1)));
    unwelcome.write_all(&connect(&id_of(1, "unwelcome"), 0)).unwrap();
    slow.write_all(HOOK_PUBLISH).unwrap();
    net.drivers[0].turn_at_once();
    assert!(has_left.get(), "it waits for a callback of somebody else");
    net.settle();
    let bytes = received(&mut unwelcome);
    assert!(bytes[0] == 0x20 && bytes.ends_with(&[0xe0, 1, 0x98]), "{bytes:02x?}");
}

/// What it sends in one piece is more than a turn's work, and lets it in only in a later turn, in which no socket is read.
#[test]
fn connection_that_had_to_wait_is_given_away() {
    let mut net = Net::new(2);
    let mut client = net.open(0);
    let auth = |data: &[u8; 4]| [b"\xf0\x0d\x18\x0b\x15\0\x01M\x16\0\x04", &data[..]].concat();
    let id = id_of(1, "c");
    let mut sent = connect(&id, 0);
    sent[1] += 4;
    sent[12] = 4;
    sent.splice(13..13, *b"\x15\0\x01M");
    sent.extend(auth(b"more").repeat(600));
    sent.extend(auth(b"last"));
    client.write_all(&sent).unwrap();
    net.settle();
    let bytes = received(&mut client);
    let asked = b"\xf0\x09\x18\x07\x15\0\x01M\x16\0\0".repeat(601);
    assert!(bytes.starts_with(&asked), "{} bytes", bytes.len());
    assert_eq!(bytes.get(asked.len()), Some(&0x20), "no CONNACK");
}

#[test]
fn silence_is_not_judged_while_bytes_are_unread() {
    // [MQTT-3.1.2-22]
    let mut net = Net::new(1);
    let mut floods = [net.connect(0, "a", 0), net.connect(0, "b", 0)];
    let mut punctual = net.connect(0, "punctual", 1);
    let mut silent = net.connect(0, "silent", 1);
    std::thread::sleep(Duration::from_millis(1_600));
    for client in &mut floods {
        client.write_all(&flood()).unwrap();
    }
    punctual.write_all(&PINGREQ).unwrap();
    net.drivers[0].turn_at_once();
    assert!(!net.drivers[0].to_read.is_empty(), "the turn's budget is used up");
    assert_eq!(received(&mut silent), [0; 0]);
    net.settle();
    assert_eq!(received(&mut punctual), PINGRESP);
    assert_eq!(received(&mut silent), KEEP_ALIVE_TIMEOUT);
}

#[test]
fn silence_is_judged_in_the_end_however_much_there_is_to_read() {
    let mut net = Net::new(1);
    let mut floods = [net.connect(0, "a", 0), net.connect(0, "b", 0)];
    let mut silent = net.connect(0, "silent", 1);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut bytes = Vec::new();
    while bytes.is_empty() {
        assert!(Instant::now() < deadline);
        for client in &mut floods {
            let _ = client.write(&flood());
        }
        net.drivers[0].turn_at_once();
        bytes = received(&mut silent);
    }
    assert_eq!(bytes, KEEP_ALIVE_TIMEOUT);
}

#[test]
fn time_that_a_handler_takes_is_nobodys_silence() {
    // The client has been heard before, and is heard again; or it comes while the handler works, and is read only then.
    for pings_before in [true, false] {
        let mut net = Net::new(1);
        let mut slow = net.connect(0, "slow", 0);
        let mut punctual = net.connect(0, "punctual", 1);
        let later = punctual.try_clone().unwrap();
        set_hook(move || {
            std::thread::sleep(Duration::from_millis(1_700));
            (&later).write_all(&PINGREQ).unwrap();
        });
        slow.write_all(HOOK_PUBLISH).unwrap();
        if pings_before {
            punctual.write_all(&PINGREQ).unwrap();
        }
        net.settle();
        net.settle();
        let pongs = if pings_before { 2 } else { 1 };
        assert_eq!(received(&mut punctual), PINGRESP.repeat(pongs), "pings before: {pings_before}");
    }
}

#[test]
fn clients_are_told_of_the_end_though_handlers_took_long_for_it() {
    let mut net = Net::new(1);
    let mut client = net.connect(0, "c", 0);
    client.write_all(b"\x82\x07\0\x01\0\0\x01f\0").unwrap();
    let mut publisher = net.connect(0, "p", 0);
    // Until the socket's buffer is full.
    while !net.drivers[0].sockets.get(0).unwrap().is_blocked() {
        publisher.write_all(&flood()).unwrap();
        net.settle();
    }
    set_hook(|| std::thread::sleep(Duration::from_millis(STOP_MS_MAX + 50)));
    assert!(net.mailboxes.post(0, Mail::Stop));
    net.drivers[0].turn_at_once();
    assert!(!net.drivers[0].has_stopped(), "nobody was given the time to read");
    let mut bytes = Vec::new();
    for _ in 0..100 {
        bytes.extend(received(&mut client));
        net.drivers[0].turn_at_once();
    }
    assert!(bytes.ends_with(&[0xe0, 1, 0x8b]), "{:02x?}", &bytes[bytes.len().saturating_sub(20)..]);
    std::thread::sleep(Duration::from_millis(STOP_MS_MAX + 50));
    assert!(net.drivers[0].has_stopped());
}

/// The bell has rung for what was in the mailbox before, and was heard in a turn that did not come to the end of it.
#[test]
fn stop_is_noticed_though_the_bell_rang_in_an_earlier_turn() {
    let mut net = Net::new(1);
    assert!(net.mailboxes.post(0, Mail::Stop));
    let driver = &mut net.drivers[0];
    driver.poller.wait(None).unwrap();
    let now = driver.clock.now();
    driver.core.on_mail(now);
    driver.turn_at_once();
    assert!(driver.has_stopped());
}

/// The next order may be there when a worker that settles hears what clients have done: if there is no upgrade after all, it
/// goes on with that.
#[test]
fn what_clients_do_while_orders_come_is_not_lost() {
    let mut net = Net::new(1);
    let mut sends = net.connect(0, "sends", 0);
    let mut reads = net.connect(0, "reads", 0);
    reads.write_all(b"\x82\x07\0\x01\0\0\x01f\0").unwrap();
    net.settle();
    // Until the socket's buffer is full.
    while !net.drivers[0].sockets.get(1).unwrap().is_blocked() {
        sends.write_all(&flood()).unwrap();
        net.settle();
    }
    assert!(!received(&mut reads).is_empty(), "there is room now");
    sends.write_all(&PINGREQ).unwrap();
    let reports = net.workers.pause().ask(Order::Stand, 1, || {}, Instant::now());
    assert_eq!(reports, None, "nobody has carried it out");
    net.drivers[0].settle(false, 0, &mut 0).unwrap();
    net.settle();
    assert_eq!(received(&mut sends), PINGRESP);
    assert!(!received(&mut reads).is_empty(), "what had no room before");
}

/// What follows from it that a connection is lost while its turn sends does not wait for something else to happen.
#[test]
fn will_of_who_is_lost_while_it_is_sent_to_is_sent_at_once() {
    let mut net = Net::new(1);
    let mut heir = net.connect(0, "heir", 0);
    heir.write_all(b"\x82\x07\0\x01\0\0\x01w\0").unwrap();
    let mut lost = net.open(0);
    lost.write_all(b"\x10\x19\0\x04MQTT\x05\x06\0\0\0\0\x04lost\0\0\x01w\0\x02it").unwrap();
    lost.write_all(b"\x82\x0a\0\x01\0\0\x04hook\0").unwrap();
    let mut from = net.connect(0, "from", 0);
    assert_eq!(received(&mut lost).first(), Some(&0x20));
    received(&mut heir);
    net.settle();
    let lost = Cell::new(Some(lost));
    set_hook(move || drop(lost.take()));
    from.write_all(HOOK_PUBLISH).unwrap();
    while net.drivers[0].turn_at_once() {}
    assert_eq!(received(&mut heir), b"\x30\x06\0\x01w\0it");
}

#[test]
fn client_that_has_left_is_done_with_in_the_turn_that_reads_it() {
    // [MQTT-3.14.4-2]: it has closed, or it waits for us.
    for closes in [true, false] {
        let mut net = Net::new(1);
        let mut client = net.connect(0, "c", 0);
        client.write_all(&[&PINGREQ[..], &[0xe0, 0]].concat()).unwrap();
        let shut = closes.then(|| client.shutdown(std::net::Shutdown::Write).unwrap());
        net.drivers[0].turn_at_once();
        assert_eq!(net.drivers[0].sockets.len(), 0, "{shut:?}");
        assert_eq!(client.read(&mut [0; 9]).unwrap(), PINGRESP.len());
        assert_eq!(client.read(&mut [0; 9]).unwrap(), 0);
    }
}

/// What it sends behind its DISCONNECT is not what we read, and would destroy the answer if we closed at once.
#[test]
fn client_that_goes_on_behind_its_disconnect_is_heard_out() {
    let mut net = Net::new(1);
    let mut client = net.connect(0, "c", 0);
    let mut sent = PINGREQ.repeat(3);
    sent.extend([0xe0, 0]);
    sent.resize(2 * SCRATCH_BYTES + 9, 0);
    client.write_all(&sent).unwrap();
    net.drivers[0].turn_at_once();
    assert_eq!(net.drivers[0].sockets.len(), 1);
    assert_eq!(received(&mut client), PINGRESP.repeat(3));
    drop(client);
    net.settle();
    assert_eq!(net.drivers[0].sockets.len(), 0);
}

#[test]
fn what_was_sent_before_the_end_is_handled_and_answered() {
    for length in [2, SCRATCH_BYTES, SCRATCH_BYTES + 2] {
        let mut net = Net::new(1);
        let mut client = net.connect(0, "c", 0);
        client.write_all(&PINGREQ.repeat(length / 2)).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answers = Vec::new();
        while net.drivers[0].sockets.len() > 0 {
            net.drivers[0].turn_at_once();
            answers.extend(received(&mut client));
        }
        answers.extend(received(&mut client));
        assert_eq!(answers, PINGRESP.repeat(length / 2), "{length} bytes");
    }
}

/// Who gets one message does not wait until many have got theirs, and these get theirs too.
#[test]
fn few_do_not_wait_for_the_many_that_an_earlier_message_goes_to() {
    const SUBSCRIBE_TO_ALL: &[u8] = b"\x82\x07\0\x01\0\0\x01a\0";
    const SUBSCRIBE_TO_ONE: &[u8] = b"\x82\x07\0\x01\0\0\x01o\0";
    const TO_ALL: &[u8] = b"\x30\x05\0\x01a\0x";
    const TO_ONE: &[u8] = b"\x30\x05\0\x01o\0y";
    let mut net = Net::new(1);
    let mut many: Vec<_> = (0..100).map(|number| net.connect(0, &format!("many{number}"), 0)).collect();
    let (mut one, mut publisher) = (net.connect(0, "one", 0), net.connect(0, "publisher", 0));
    many.iter_mut().for_each(|client| client.write_all(SUBSCRIBE_TO_ALL).unwrap());
    one.write_all(SUBSCRIBE_TO_ONE).unwrap();
    net.settle();
    many.iter_mut().chain([&mut one]).for_each(|client| assert_eq!(received(client)[0], 0x90));
    publisher.write_all(TO_ALL).unwrap();
    net.drivers[0].turn_at_once();
    let mut has_it: Vec<bool> = many.iter_mut().map(|client| received(client) == TO_ALL).collect();
    let so_far = has_it.iter().filter(|has_it| **has_it).count();
    assert!((1..50).contains(&so_far), "a turn has its bounds: {so_far}");
    // Messages for one that come again and again do not keep the others from theirs.
    let mut turns = 0;
    while !has_it.iter().all(|has_it| *has_it) {
        publisher.write_all(TO_ONE).unwrap();
        net.drivers[0].turn_at_once();
        assert_eq!(received(&mut one), TO_ONE, "turn {turns}");
        for (client, has_it) in many.iter_mut().zip(&mut has_it) {
            *has_it |= received(client) == TO_ALL;
        }
        turns += 1;
        assert!(turns < 100, "some never get theirs");
    }
    assert!(turns > 1, "there was something to wait for");
}

/// Many who are filled anew in each turn, with more than there is time for, are not listed once for each.
#[test]
fn the_list_of_those_to_send_to_does_not_grow_without_end() {
    const MESSAGES: usize = 60;
    let mut net = Net::new(1);
    let mut many: Vec<_> = (0..40).map(|number| net.connect(0, &format!("many{number}"), 0)).collect();
    let mut publisher = net.connect(0, "publisher", 0);
    // Each has a topic of its own.
    let topics = b'A'..b'A' + many.len() as u8;
    for (client, topic) in many.iter_mut().zip(topics.clone()) {
        client.write_all(&[&b"\x82\x07\0\x01\0\0\x01"[..], &[topic, 0]].concat()).unwrap();
    }
    net.settle();
    many.iter_mut().for_each(|client| assert_eq!(received(client)[0], 0x90));
    let to_each: Vec<u8> = topics.flat_map(|topic| [0x30, 5, 0, 1, topic, 0, b'x']).collect();
    let mut got = vec![0; many.len()];
    let mut longest = 0;
    for _ in 0..MESSAGES {
        publisher.write_all(&to_each).unwrap();
        net.drivers[0].turn_at_once();
        longest = longest.max(net.drivers[0].to_flush.len());
        many.iter_mut().zip(&mut got).for_each(|(client, got)| *got += received(client).len());
    }
    assert!((many.len()..=2 * net.drivers[0].sockets.len()).contains(&longest), "{longest} of {}", many.len());
    net.settle();
    many.iter_mut().zip(&mut got).for_each(|(client, got)| *got += received(client).len());
    assert_eq!(got, vec![7 * MESSAGES; many.len()], "each gets all of them");
}

/// The wall clock is looked at, and not the server's alone: here that is set on by a day, and the wall clock is not.
#[test]
fn what_is_kept_ends_when_the_wall_clock_says_so() {
    const DAY_MS: u64 = 86_400_000;
    let store = Arc::new(FakeStore::default());
    let mut net = Net::with(1, Some(&store));
    let mut client = net.open(0);
    client.write_all(b"\x10\x13\0\x04MQTT\x05\x02\0\0\x05\x11\xf0\0\0\0\0\x01c").unwrap();
    net.settle();
    drop(client);
    net.settle();
    let ends_at = |store: &FakeStore| {
        let (_, journal) = store.journals().pop().expect("its end is kept");
        let last = Changes::new(&journal).last().expect("a change").expect("one that can be read").1;
        let Change::Changed { terms, .. } = last else { panic!("{last:?}") };
        terms.ends_at.expect("its client has gone")
    };
    let (before, journals) = (ends_at(&store), store.last());
    net.drivers[0].clock = Clock::showing(net.drivers[0].clock.now() + DAY_MS);
    net.settle();
    assert_eq!(store.last(), journals + 1);
    let WallMillis(moved_ms) = WallMillis(before.0 - ends_at(&store).0);
    assert!(moved_ms.abs_diff(DAY_MS) < 60_000, "{moved_ms}");
}

/// A frame of a WebSocket, whose mask changes nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let header = match length {
        ..126 => vec![first, 0x80 | length as u8],
        _ => [&[first, 0xfe][..], &length.to_be_bytes()].concat(),
    };
    [&header[..], &[0; 4], payload].concat()
}

/// Some hundred bytes may become a hundred thousand, and it is these that take time.
#[test]
fn what_compressed_frames_become_counts_in_the_share_of_a_turn() {
    const PAYLOAD_BYTES: usize = 100_000;
    let mut net = Net::new(1);
    let (ours, mut client) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let driver = &mut net.drivers[0];
    let now = driver.clock.now();
    let arrival = Arrival { peer: ([127, 0, 0, 1], 9).into(), profile: net.listener.profile(), details: None };
    let conn = driver.core.accept(arrival, now).unwrap();
    let mut transform = Box::<Transform>::default();
    transform.upgrade(b"", true, &mut [], &mut driver.buffers).unwrap();
    driver.add_socket(conn, ours.into(), Some(transform), now);
    let connect = frame(0x82, &connect("c", 0));
    client.write_all(&connect).unwrap();
    assert_eq!(driver.read_transformed(conn, now), connect.len());
    let publish = [&b"\x30\xa3\x8d\x06\0\x01t"[..], &[0; PAYLOAD_BYTES]].concat();
    let mut compressed = Vec::with_capacity(publish.len());
    let mut compress = flate2::Compress::new(flate2::Compression::fast(), false);
    compress.compress_vec(&publish, &mut compressed, flate2::FlushCompress::Sync).unwrap();
    // Without the end that each message has.
    let message = frame(0xc2, &compressed[..compressed.len() - 4]);
    assert!(message.len() < 2000, "{} bytes", message.len());
    client.write_all(&message).unwrap();
    assert_eq!(driver.read_transformed(conn, now), publish.len());
    assert!(driver.buffers.plain.capacity() <= 256 << 10);
}
