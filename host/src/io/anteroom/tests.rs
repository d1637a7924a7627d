//! The anteroom without its thread: the test takes each turn, and says what time it is.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::*;
use crate::core::mailbox::Mailboxes;
use crate::core::{ListenerProfile, Shared};
use crate::io::listener::Bound;
use crate::io::pause::Order;
use crate::limits::Limits;
use crate::listener::ListenerConfig;
use crate::plugin::Chain;

struct Room {
    anteroom: Anteroom,
    listener: Listener,
    places: Arc<Places>,
    _dir: crate::control::tests::TempDir,
}

impl Room {
    /// With a TLS listener, and so many places.
    fn new(handshakes_max: usize) -> Self {
        Self::with(Limits { handshakes_max, handshake_timeout: Duration::from_secs(10), ..Limits::default() })
    }

    fn with(limits: Limits) -> Self {
        let dir = crate::control::tests::TempDir::new("anteroom");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let file = dir.path().join("both.pem");
        std::fs::write(&file, made.cert.pem() + &made.signing_key.serialize_pem()).unwrap();
        let mut config = ListenerConfig::new("tls://127.0.0.1:0".parse().unwrap());
        config.tls.certificate = Some(file);
        let listener = Bound::open(&config, None).unwrap().with(ListenerProfile::new("test", limits.clone()));
        let workers = Workers::new(1).unwrap();
        workers.set_listeners(vec![listener.clone()]);
        let places = Places::new(&limits);
        let shared = Arc::new(Shared::new(limits, Chain::new(Vec::new()).unwrap(), Mailboxes::new(workers.wake())));
        let seed = Seed {
            number: 0,
            name: String::new(),
            workers: Arc::clone(&workers),
            places: Arc::clone(&places),
            shared,
            clock: Clock::start(),
            on_end: Box::new(|| {}),
        };
        let epoll = workers.anteroom_epoll(0).unwrap();
        let mut anteroom = Anteroom::new(&seed, epoll);
        anteroom.exchange_listeners();
        Self { anteroom, listener, places, _dir: dir }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.listener.url().addr().unwrap()).unwrap()
    }

    /// Turns until there are so many guests.
    fn until_guests(&mut self, count: usize) {
        while self.anteroom.guests.len() != count || !self.anteroom.to_serve.is_empty() {
            self.anteroom.turn().unwrap();
        }
    }

    fn taken(&self) -> usize {
        self.places.taken.load(Ordering::Relaxed)
    }
}

#[test]
fn who_finds_no_place_waits_until_there_is_one() {
    let mut room = Room::new(2);
    let first: Vec<_> = (0..2).map(|_| room.connect()).collect();
    room.until_guests(2);
    let _third = room.connect();
    for _ in 0..5 {
        room.anteroom.turn().unwrap();
        assert_eq!((room.anteroom.guests.len(), room.taken()), (2, 2));
    }
    drop(first);
    room.until_guests(1);
    assert_eq!(room.taken(), 1);
}

#[test]
fn nobody_is_let_in_who_is_another_processes() {
    let mut room = Room::new(2);
    let order = |room: &Room, order| {
        let reports = room.anteroom.workers.pause().ask(order, 0, || {}, Instant::now() + Duration::from_secs(20));
        assert_eq!(reports, Some(Vec::new()));
    };
    let mut clients = Vec::new();
    for last in [Order::Settle { finally: true }, Order::LetGo] {
        order(&room, last);
        clients.push(room.connect());
        for _ in 0..5 {
            room.anteroom.turn().unwrap();
            assert_eq!(room.taken(), 0);
        }
    }
    order(&room, Order::GoOn);
    // They have waited in the kernel's queue.
    room.until_guests(clients.len());
}

#[test]
fn who_stays_for_long_makes_room_for_others_and_nobody_stays_for_ever() {
    let mut room = Room::new(2);
    let mut silent: Vec<_> = (0..2).map(|_| room.connect()).collect();
    room.until_guests(2);
    let oldest = |room: &Room| room.anteroom.by_arrival.front().expect("somebody is there").0;
    let came = oldest(&room);
    assert_eq!(
        room.anteroom.turn_out_oldest(LEAST_STAY_MS, "", came + (LEAST_STAY_MS - 1)).map(|guest| guest.peer),
        None
    );
    room.anteroom.turn_out_one(came + LEAST_STAY_MS);
    assert_eq!((room.anteroom.guests.len(), room.taken()), (1, 1));
    let came = oldest(&room);
    // What has come is looked at before its sender is turned out, but not for ever.
    silent[0].write_all(&[0x16, 3, 1]).unwrap();
    silent[1].write_all(&[0x16, 3, 1]).unwrap();
    while room.anteroom.to_serve.is_empty() {
        room.anteroom.poller.wait(None).unwrap();
        room.anteroom.note_events();
    }
    room.anteroom.turn_out(false, came + 10_500);
    assert_eq!(room.anteroom.guests.len(), 1);
    room.anteroom.turn_out(false, came + 11_500);
    assert_eq!((room.anteroom.guests.len(), room.taken()), (0, 0));
    let counters = room.anteroom.counters();
    assert_eq!((counters.handshakes_late.get(), counters.handshakes_failed.get()), (2, 0));
}

/// Who has to make room for others and has not said a word has failed. Who has said something may only be slow, or we are.
#[test]
fn silent_guests_that_make_room_have_failed() {
    for (read, unread, has_failed) in
        [(&b""[..], &b""[..], true), (&[0x16, 3, 1], b"", false), (b"", &[0x16, 3, 1], false)]
    {
        let limits = Limits { failures_per_address_max: 1, failures_count_loopback: true, ..Limits::default() };
        let mut room = Room::with(limits);
        let mut client = room.connect();
        client.write_all(read).unwrap();
        room.until_guests(1);
        let came = room.anteroom.by_arrival.front().expect("somebody is there").0;
        client.write_all(unread).unwrap();
        room.anteroom.turn_out_one(came + LEAST_STAY_MS);
        assert_eq!((room.anteroom.guests.len(), room.taken()), (0, 0));
        let ip = client.local_addr().unwrap().ip();
        let is_turned_away = room.anteroom.shared.turns_away(ip, came + LEAST_STAY_MS);
        assert_eq!(is_turned_away, has_failed, "{read:?} {unread:?}");
    }
}

#[test]
fn who_was_refused_has_the_time_to_read_why() {
    let mut room = Room::new(2);
    let mut client = room.connect();
    client.write_all(&[0x17, 3, 3, 0, 1, 0]).unwrap();
    while room.anteroom.leaving.is_empty() {
        room.anteroom.turn().unwrap();
    }
    assert_eq!(room.anteroom.counters().handshakes_failed.get(), 1);
    let now = room.anteroom.clock.now();
    assert_eq!(room.taken(), 1);
    room.anteroom.close_those_who_leave(now + LEAVE_MS);
    assert_eq!((room.anteroom.guests.len(), room.taken()), (0, 0));
    assert_eq!(room.anteroom.counters().handshakes_late.get(), 0);
}

/// Where more has happened than one look at the events has shown, somebody may have been heard of: a little more time is all
/// that it makes.
#[test]
fn nobody_stays_for_ever_while_much_happens() {
    let mut room = Room::new(2);
    let _silent = room.connect();
    room.until_guests(1);
    let now = room.anteroom.clock.now();
    room.anteroom.turn_out(true, now + 10_500);
    assert_eq!(room.anteroom.guests.len(), 1);
    room.anteroom.turn_out(true, now + 11_500);
    assert_eq!((room.anteroom.guests.len(), room.taken()), (0, 0));
}

#[test]
fn who_hangs_up_before_it_is_refused_has_failed_too() {
    let mut room = Room::new(2);
    for failures in 1..=2 {
        let mut client = room.connect();
        client.write_all(&[0x17, 3, 3, 0, 1, 0]).unwrap();
        // Closed with a reset: there is nobody to be told anything.
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop(client);
        while room.anteroom.counters().handshakes_failed.get() < failures {
            room.anteroom.turn().unwrap();
        }
        assert_eq!(room.anteroom.guests.len(), 0);
    }
}
