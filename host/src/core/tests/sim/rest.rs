//! At rest, and at the end: nothing is on its way, and in the end nothing is left.

use std::collections::BTreeMap;

use super::super::ProtocolVersion::V5;
use super::client::Connecting;
use super::model::*;
use super::world::World;

/// Rounds after which something is wrong if they have not led to rest.
const ROUNDS_MAX: usize = 20_000;

impl World {
    /// Lets everything that has begun come to its end, while time stands still, and looks whether all is as it should be.
    pub(super) fn rest(&mut self) {
        self.drain();
        self.check_owed();
        self.check_rest();
        self.rested = (self.step, self.now);
    }

    fn drain(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut moved = self.give_owed();
            moved |= self.turn_everywhere();
            for conn in 0..self.conns.len() {
                moved |= self.feed(conn, usize::MAX);
                moved |= self.read(conn, usize::MAX);
            }
            for client in 0..self.clients.len() {
                while self.clients[client].conn.is_some() && self.answer(client) {
                    moved = true;
                }
            }
            // What nobody is at the other end of any more is closed in the end.
            let zombie = |one: &Conn| one.zombie && !one.ended && matches!(one.place, Place::At(..));
            match self.conns.iter().position(zombie) {
                _ if moved => {}
                Some(conn) => self.cut(conn),
                None => return,
            }
        }
        panic!("no rest after {ROUNDS_MAX} rounds");
    }

    /// A turn of every worker, without what clients have sent; then all of it is safe. Whether there was something to do.
    pub(super) fn turn_everywhere(&mut self) -> bool {
        let mut moved = false;
        for worker in 0..self.cores.len() {
            moved |= self.take_handovers(worker);
            while self.adopt(worker) {
                moved = true;
            }
            moved |= self.on_mail(worker, false);
            moved |= self.on_tick(worker);
            moved |= self.take_dirty(worker);
            moved |= self.flush_mail(worker);
        }
        moved | self.make_all_safe()
    }

    fn check_rest(&mut self) {
        let mut online = BTreeMap::new();
        for (number, one) in self.conns.iter().enumerate() {
            assert_ne!(one.place, Place::Travelling, "connection {number} has got lost");
            assert!(one.place == Place::Gone || !one.ended, "connection {number} has ended and stays");
            let silent_ms = self.now.since(one.heard);
            let late = one.keep_alive_secs > 0 && silent_ms >= u64::from(one.keep_alive_secs) * 1500;
            assert!(one.place == Place::Gone || !late, "connection {number} has been silent for {silent_ms} ms");
            if let (Place::At(..), Some(session)) = (one.place, one.session) {
                assert!(online.insert(session, number).is_none(), "two connections have session {session}");
            }
        }
        for core in &self.cores {
            assert!(core.dirty.is_empty(), "dirty connections");
            assert!(core.outbox.iter().all(crate::core::mail::Batch::is_empty), "messages for other workers");
            assert_eq!((core.handovers.len(), core.held.len()), (0, 0), "handovers, packets that wait for a turn");
            assert_eq!((core.remains.len(), core.handed_on.len()), (0, 0), "what ended sessions have left");
            for (slot, connection) in &core.connections {
                let replays = connection.extra.as_ref().is_some_and(|extra| !extra.replays.is_empty());
                assert!(
                    !replays,
                    "retained messages for the connection {} at {slot}: {}",
                    connection.id, connection.in_flight_max
                );
                assert_eq!(connection.waiting_bytes(), 0, "bytes for the connection at {slot}");
                assert_eq!(connection.out.capacity(), 0, "a buffer of the connection at {slot}");
                assert!(connection.partial.is_none(), "half a packet of the connection at {slot}");
            }
        }
        self.check_sessions();
        self.check_kept();
        for (msg, _, due) in &self.wills {
            assert!(*due > self.now, "the will {msg} was not published");
        }
        for one in &self.conns {
            if let (Some((msg, delay)), true) = (one.will, one.ended && one.session.is_some() && !one.no_will) {
                let due = delay == 0 || one.expiry_secs == 0;
                assert!(!due || self.msgs[msg].first.is_some(), "the will {msg} was not published");
            }
        }
        self.check_counters();
    }

    fn check_sessions(&mut self) {
        for number in 0..self.sessions.len() {
            let model = &self.sessions[number];
            let (name, core) = (self.clients[model.client].name.as_str(), &self.cores[model.worker]);
            let kept = core.slot_of_client(name).map(|slot| &core.sessions[slot as usize]);
            let kept = kept.filter(|kept| kept.serial == model.serial);
            let over = model.offline_since.is_some_and(|since| {
                model.expiry_secs == 0
                    || model.expiry_secs != u32::MAX && since.plus_secs(model.expiry_secs) <= self.now
            });
            assert!(!over || kept.is_none() || model.unsure, "session {number} has outlived its expiry");
            assert_eq!(kept.is_none(), model.gone, "the end of session {number}");
            let Some(kept) = kept else { continue };
            if self.online(number).is_some() {
                assert_eq!(kept.in_flight.len(), 0, "in flight of session {number}");
                assert_eq!((kept.queue.len(), kept.queue.bytes()), (0, 0), "the queue of session {number}");
                assert_eq!(kept.received.len(), 0, "QoS 2 messages of session {number} that were not released");
                assert_eq!(kept.to_resend, 0, "messages of session {number} to send again");
                let client = &self.clients[model.client];
                assert!(client.out.is_empty() && client.unanswered.is_empty() && client.received.is_empty());
            }
        }
    }

    /// Deliveries that were dropped because a receiver did not keep up.
    pub(super) fn dropped(&self) -> u64 {
        let counters = self.shared.counters.iter();
        counters
            .map(|counters| {
                counters.dropped_slow.get() + counters.dropped_queue_full.get() + counters.dropped_no_member.get()
            })
            .sum::<u64>()
            + self.dropped_before
    }

    /// PUBLISH packets that were received, and sent.
    pub(super) fn counted(&self) -> [u64; 2] {
        let sum = |of: fn(&crate::core::Counters) -> u64| self.shared.counters.iter().map(of).sum::<u64>();
        let [received, sent] = self.counted_before;
        [
            received + sum(|counters| counters.publishes_received.get()),
            sent + sum(|counters| counters.publishes_sent.get()),
        ]
    }

    fn check_counters(&self) {
        let [received, sent] = self.counted();
        let [certain, perhaps] = self.published;
        assert!(
            (certain..=certain + perhaps).contains(&received),
            "{received} PUBLISH packets received: {certain}, {perhaps}"
        );
        let read = self.delivered + self.lost;
        // Who has left is not given what it was still owed.
        let may_be_forgotten = self.config.tight_outbound || self.store.is_some();
        assert!(sent == read || may_be_forgotten && sent > read, "{sent} PUBLISH packets sent, {read} read or lost");
        let dropped = self.dropped();
        assert!(self.unmet.len() as u64 <= dropped, "{dropped} were dropped, but: {:#?}", self.unmet);
    }

    /// Everybody comes back, gets what it has to get, and leaves for good. Nothing may be left.
    pub(super) fn end(&mut self) {
        self.rest();
        for client in 0..self.clients.len() {
            while self.ready(client).is_none() {
                self.jump(1);
                let connecting = Connecting { clean: false, expiry_secs: 0, keep_alive_secs: 0, will: None };
                if self.connect(client, connecting).is_none() {
                    self.make_room(client);
                }
                self.drain();
            }
        }
        self.rest();
        self.check_retained();
        for conn in 0..self.conns.len() {
            if matches!(self.conns[conn].place, Place::At(..)) {
                self.cut(conn);
            }
        }
        self.drain();
        for _ in 0..32 {
            self.jump(24 * 3600 * 1000);
            self.drain();
        }
        self.check_empty();
    }

    /// There are too many connections for one more: somebody leaves who has been here before.
    fn make_room(&mut self, _for_client: usize) {
        let other = (0..self.conns.len()).find(|conn| matches!(self.conns[*conn].place, Place::At(..)));
        self.cut(other.expect("a connection that takes up the room"));
    }

    /// A client that has not been here before subscribes to everything: it gets what was retained last, of each topic.
    fn check_retained(&mut self) {
        if self.config.limits.connections_max < 1000 {
            return;
        }
        let client = self.clients.len();
        self.clients.push(self.config.observer(client));
        let connecting = Connecting { clean: true, expiry_secs: 0, keep_alive_secs: 0, will: None };
        let conn = self.connect(client, connecting).expect("there is room");
        self.drain();
        let asked = ["#", "$x/#"].map(|filter| Asked {
            written: filter.into(),
            share: None,
            filter: filter.into(),
            qos: 2,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
            identifier: 0,
        });
        self.subscribe(client, conn, asked.to_vec());
        self.drain();
        let session = self.conns[conn].session.expect("it is connected");
        let got: Vec<usize> = self.sessions[session].got.keys().copied().collect();
        let mut topics = 0;
        let retained: Vec<(String, Vec<usize>)> =
            self.retained().into_iter().map(|(topic, candidates)| (topic.to_owned(), candidates)).collect();
        let missing = self.unmet.len();
        for (topic, candidates) in retained {
            let mut of_topic = got.iter().filter(|msg| self.msgs[**msg].topic == *topic);
            let (found, more) = (of_topic.next(), of_topic.next());
            assert!(more.is_none(), "two retained messages of {topic}");
            let lives = |msg: usize| {
                let one = &self.msgs[msg];
                let expires = one.expiry_secs.zip(one.since).map(|(secs, (_, since))| since.plus_secs(secs));
                expires.is_none_or(|at| at > self.now)
            };
            match found {
                Some(msg) => assert!(candidates.contains(msg), "{msg} is retained for {topic}, and not {candidates:?}"),
                None => {
                    let none =
                        |msg: &usize| self.msgs[*msg].payload.is_empty() || !lives(*msg) || !self.msgs[*msg].definite;
                    if !candidates.iter().any(none) {
                        // It may have been too much at once for a small bound.
                        self.unmet.push(format!("nothing is retained for {topic}, and not {candidates:?}"));
                    }
                }
            }
            topics += usize::from(found.is_some());
        }
        assert_eq!(topics, got.len(), "retained messages");
        let kept = self.shared.retained.len();
        assert!(
            topics <= kept && kept <= topics + self.unmet.len() - missing,
            "{topics} retained messages, and not {kept}; {}",
            self.dropped()
        );
        *self.cover.entry("retained at the end").or_default() += topics as u64;
        let topics: Vec<String> = self.retained().into_keys().map(str::to_owned).collect();
        for topic in topics {
            let msg = self.msgs.len();
            self.msgs.push(Msg::clearing(topic, client));
            self.publish(client, conn, msg);
        }
        self.drain();
        assert!(self.shared.retained.is_empty() && self.shared.retained.bytes() == 0, "retained messages are left");
    }

    fn check_empty(&mut self) {
        self.cores.iter().for_each(crate::core::Core::assert_nothing_left);
        self.shared.assert_nothing_left();
        let script = self.scripted.script();
        assert_eq!(script.live, 0, "states of connections");
        let calls = |name: &str| script.calls.iter().filter(|line| line.starts_with(name)).count();
        let handed_over = calls("import ") as u64;
        // Nobody is told when the server dies.
        let told = self.crashes > 0 || calls("connect ") == calls("disconnect ");
        assert!(told, "handle_disconnect once for each connection");
        assert!(self.conns.iter().all(|conn| conn.version < V5 || conn.place == Place::Gone));
        drop(script);
        *self.cover.entry("state handed over").or_default() += handed_over;
    }
}

impl Msg {
    /// Clears what is retained for a topic.
    fn clearing(topic: String, publisher: usize) -> Self {
        Self {
            topic,
            payload: Vec::new(),
            properties: Vec::new(),
            qos: 1,
            retain: true,
            expiry_secs: None,
            publisher,
            session: None,
            kind: Kind::Plain,
            conn: 0,
            worker: 0,
            first: None,
            last: None,
            times: 0,
            since: None,
            definite: false,
            doubtful: false,
            checked: false,
        }
    }
}
