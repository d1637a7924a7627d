//! Whatever is kept, frozen, loaded and thrown away in whatever order: what comes back is what a model says that is too simple
//! to be wrong.

use std::collections::BTreeMap;

use super::memory::{Disk, Journal};
use super::*;
use crate::clock::WallMillis;
use crate::codec::SubscribeOptions;
use crate::durable::change::{Delivery, Due, Identifiers, Packets, StoredMessage, Terms};
use crate::durable::image::{give_all, values};
use crate::durable::store::{Piece, Progress};
use crate::message::Source as Publisher;
use plugin_api::QoS;

/// Everything, as it is.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Plain {
    sessions: BTreeMap<u64, PlainSession>,
    retained: BTreeMap<String, String>,
    values: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    transit: BTreeMap<(u16, u16), Vec<String>>,
    bodies: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlainSession {
    client: String,
    terms: Terms,
    subscriptions: BTreeMap<String, String>,
    queue: Vec<String>,
    in_flight: Vec<(u16, Option<String>)>,
    incoming: BTreeMap<u16, Option<String>>,
    will: Option<String>,
    states: Option<Vec<u8>>,
}

impl Plain {
    fn messages(&self, messages: &Messages<'_>) -> Vec<Option<String>> {
        match messages {
            Messages::Gone { count } => vec![None; *count as usize],
            Messages::Packets(packets) => {
                let kind = format!("{:?} {} {:?}", packets.qos, packets.is_v5, packets.group);
                let each = packets.each().map(|packet| packet.expect("whole"));
                each.map(|packet| Some(format!("{kind} {} {:?}", packet.topic, packet.payload))).collect()
            }
            Messages::Bodies { first, count, delivery } => (*first..first + count)
                .map(|number| {
                    let published = match delivery.origin {
                        Origin::Instead { published, .. } => &self.bodies[published as usize],
                        _ => "",
                    };
                    let origin = match delivery.origin {
                        Origin::Subscriptions(identifiers) => format!("{:?}", identifiers.iter().collect::<Vec<_>>()),
                        Origin::Instead { group, identifier, .. } => format!("{group} {identifier}"),
                        origin => format!("{origin:?}"),
                    };
                    let body = &self.bodies[number as usize];
                    Some(format!("{body} {:?} {} {origin} {published}", delivery.qos, delivery.retain))
                })
                .collect(),
        }
    }

    fn apply(&mut self, bytes: &[u8]) {
        for change in Changes::new(bytes) {
            self.apply_one(&change.expect("a change").1);
        }
    }

    fn apply_one(&mut self, change: &Change<'_>) {
        let ids = |first: u16, count: u32| (0..count).map(move |number| behind(first, number));
        if let Change::Queued { messages, .. } | Change::SentNow { messages, .. } | Change::Incoming { messages, .. } =
            change
        {
            let messages = self.messages(messages);
            match *change {
                Change::Queued { session, .. } => self.at(session).queue.extend(messages.into_iter().flatten()),
                Change::SentNow { session, first, .. } => {
                    let session = self.at(session);
                    session.terms.next_packet_id = behind(first, messages.len() as u32);
                    session.in_flight.extend(ids(first, messages.len() as u32).zip(messages));
                }
                Change::Incoming { session, first, .. } => {
                    self.at(session).incoming.extend(ids(first, messages.len() as u32).zip(messages));
                }
                _ => unreachable!(),
            }
            return;
        }
        match *change {
            Change::Turn { .. } => self.bodies.clear(),
            Change::Body { message, .. } => self.bodies.push(plain(&message)),
            Change::Began { session, client_id, terms } => {
                let new = PlainSession {
                    client: client_id.into(),
                    terms,
                    subscriptions: BTreeMap::new(),
                    queue: Vec::new(),
                    in_flight: Vec::new(),
                    incoming: BTreeMap::new(),
                    will: None,
                    states: None,
                };
                assert!(self.sessions.insert(session, new).is_none());
            }
            Change::Changed { session, terms } => self.at(session).terms = terms,
            Change::Ended { session } => drop(self.sessions.remove(&session)),
            Change::Subscribed { session, filter, options, identifier } => {
                self.at(session).subscriptions.insert(filter.into(), format!("{options:?} {identifier}"));
            }
            Change::Unsubscribed { session, filter } => drop(self.at(session).subscriptions.remove(filter)),
            Change::Sent { session, first, count } => {
                let session = self.at(session);
                let sent = session.queue.drain(..count as usize).map(Some);
                session.in_flight.extend(ids(first, count).zip(sent));
                session.terms.next_packet_id = behind(first, count);
            }
            Change::Received { session, first, count } => {
                for id in ids(first, count) {
                    let sent = self.at(session).in_flight.iter_mut().find(|sent| sent.0 == id);
                    sent.expect("in flight").1 = None;
                }
            }
            Change::Acknowledged { session, first, count } => {
                ids(first, count).for_each(|id| self.at(session).in_flight.retain(|sent| sent.0 != id));
            }
            Change::Dropped { session, place, count } => {
                self.at(session).queue.drain(place as usize..(place + count) as usize);
            }
            Change::Released { session, first, count } => {
                ids(first, count).for_each(|id| drop(self.at(session).incoming.remove(&id)));
            }
            Change::Will { session, due, expiry_secs, message } => {
                self.at(session).will = Some(format!("{due:?} {expiry_secs:?} {}", plain(&message)));
            }
            Change::WillGone { session } => self.at(session).will = None,
            Change::LastStates { session, states } => {
                self.at(session).states = Some(states.to_vec()).filter(|states| !states.is_empty());
            }
            Change::Retained { message } => drop(self.retained.insert(message.topic.into(), plain(&message))),
            Change::RetainedGone { topic } => drop(self.retained.remove(topic)),
            Change::KeyValue { plugin, key, value } => {
                let key = (plugin.to_owned(), key.to_vec());
                match value {
                    Some(value) => drop(self.values.insert(key, value.to_vec())),
                    None => drop(self.values.remove(&key)),
                }
            }
            Change::Transit { from, to, group, body } => {
                let message = format!("{group:?} {}", self.bodies[body as usize]);
                self.transit.entry((from, to)).or_default().push(message);
            }
            Change::Taken { from, to, count } => {
                let way = self.transit.get_mut(&(from, to)).expect("a way");
                way.drain(..count as usize);
                if way.is_empty() {
                    self.transit.remove(&(from, to));
                }
            }
            Change::Queued { .. } | Change::SentNow { .. } | Change::Incoming { .. } => unreachable!(),
        }
    }

    /// The same of a piece. What is on its way comes for each worker.
    pub(crate) fn apply_piece(&mut self, piece: &Piece) {
        let is_transit = |change: &Change<'_>| matches!(change, Change::Transit { .. });
        if piece.worker == 0 || !Changes::new(&piece.changes).flatten().any(|(_, change)| is_transit(&change)) {
            self.apply(&piece.changes);
        }
    }

    /// The first difference is enough to read.
    pub(crate) fn compare(&self, expected: &Self, seed: u64) {
        for (session, plain) in &expected.sessions {
            assert_eq!(self.sessions.get(session), Some(plain), "seed {seed}: session {session}");
        }
        assert_eq!(self.sessions.len(), expected.sessions.len(), "seed {seed}");
        assert_eq!((&self.retained, &self.values), (&expected.retained, &expected.values), "seed {seed}");
        assert_eq!(self.transit, expected.transit, "seed {seed}");
    }

    fn at(&mut self, session: u64) -> &mut PlainSession {
        self.sessions.get_mut(&session).expect("a session")
    }
}

fn plain(message: &StoredMessage<'_>) -> String {
    format!("{} {} {:?}", message.topic, String::from_utf8_lossy(message.payload), message.qos)
}

impl Disk {
    fn image(&self, model: &Model, workers: usize) -> Plain {
        let (mut image, mut told) = (Plain::default(), Progress::default());
        image.apply(&values(model, self, &mut Journal(&self.journal)).expect("all is there"));
        let mut give = |piece: Piece| {
            assert!(piece.worker < workers);
            image.apply_piece(&piece);
        };
        give_all(model, self, &mut Journal(&self.journal), workers, &mut give, &mut |progress| told = progress)
            .expect("all is there");
        image.bodies.clear();
        assert_eq!((told.sessions, told.retained), (image.sessions.len() as u64, image.retained.len() as u64));
        let messages = |session: &PlainSession| session.queue.len() + session.in_flight.len() + session.incoming.len();
        assert_eq!(told.messages, image.sessions.values().map(messages).sum::<usize>() as u64);
        image
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).expect("below a usize")
    }

    fn text(&mut self) -> String {
        "payload ".repeat(if self.below(4) == 0 { 60 } else { 1 }) + &self.below(1000).to_string()
    }
}

fn stored<'a>(topic: &'a str, payload: &'a str) -> StoredMessage<'a> {
    StoredMessage {
        topic,
        payload: payload.as_bytes(),
        properties: b"",
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at: WallMillis::NEVER,
        source: Publisher::Client,
        token: 0,
    }
}

fn packets(random: &mut Random, count: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        let payload = random.below(10_000).to_string();
        let length = u8::try_from(5 + payload.len()).expect("short");
        bytes.extend_from_slice(&[0x32, length, 0, 1, b't', 0, 9]);
        bytes.extend_from_slice(payload.as_bytes());
    }
    bytes
}

/// Random journals, each of which fits what is there.
pub(crate) struct Writing {
    random: Random,
    pub(crate) plain: Plain,
    next_session: u64,
    out: Vec<u8>,
}

impl Writing {
    pub(crate) fn new(seed: u64) -> Self {
        let random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        Self { random, plain: Plain::default(), next_session: 1, out: Vec::new() }
    }

    /// The next journal.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        self.out.clear();
        self.journal();
        self.out.clone()
    }

    fn put(&mut self, change: &Change<'_>) {
        change.encode(&mut self.out);
        self.plain.apply_one(change);
    }

    fn journal(&mut self) {
        self.put(&Change::Turn { worker: 0, workers: 2 });
        for _ in 0..1 + self.random.below(6) {
            self.step();
        }
    }

    fn any_session(&mut self) -> Option<u64> {
        let sessions: Vec<u64> = self.plain.sessions.keys().copied().collect();
        (!sessions.is_empty()).then(|| sessions[self.random.below(sessions.len())])
    }

    fn body(&mut self) -> u32 {
        let number = self.plain.bodies.len();
        if number > 0 && self.random.below(2) == 0 {
            return self.random.below(number) as u32;
        }
        let (topic, payload) = (self.random.below(9).to_string(), self.random.text());
        self.put(&Change::Body { number: number as u32, message: stored(&topic, &payload) });
        number as u32
    }

    /// Calls `with` with messages, 20 at most.
    fn messages(&mut self, with: impl FnOnce(&mut Self, Messages<'_>)) {
        if self.random.below(2) == 0 {
            let count = 1 + self.random.below(20) as u32;
            let bytes = packets(&mut self.random, count);
            let packets = Packets { qos: QoS::AtLeastOnce, is_v5: false, group: None, count, bytes: &bytes };
            return with(self, Messages::Packets(packets));
        }
        let first = self.body();
        let count = if first + 1 < self.plain.bodies.len() as u32 { 2 } else { 1 };
        let identifiers = [1, 2];
        let origin = match self.random.below(4) {
            0 => Origin::Shared { group: "$share/g/t", identifier: 5 },
            1 => Origin::Instead { group: "$share/g/t", identifier: 5, published: self.body() },
            2 => Origin::Sent,
            _ => Origin::Subscriptions(Identifiers::List(&identifiers)),
        };
        let delivery = Delivery { qos: QoS::ExactlyOnce, retain: false, origin };
        with(self, Messages::Bodies { first, count, delivery });
    }

    fn begin(&mut self) {
        let session = self.next_session;
        self.next_session += 1;
        let near_the_end = [1, 65_530][self.random.below(2)];
        let terms = Terms { expiry_secs: 5, expiry_secs_max: 9, ends_at: None, next_packet_id: near_the_end };
        self.put(&Change::Began { session, client_id: &format!("client {session}"), terms });
    }

    fn step(&mut self) {
        let what = self.random.below(24);
        match what {
            0 => return self.begin(),
            1..=3 => return self.retained(),
            4 => return self.value(),
            5 | 6 => return self.transit(),
            _ => {}
        }
        let Some(session) = self.any_session() else { return self.begin() };
        match what {
            7 if self.random.below(3) == 0 => self.put(&Change::Ended { session }),
            8 => {
                let terms = Terms { ends_at: Some(WallMillis(7)), ..self.plain.at(session).terms };
                self.put(&Change::Changed { session, terms });
            }
            9 | 10 => {
                let filter = self.random.below(4).to_string();
                let options = SubscribeOptions::new(QoS::ExactlyOnce);
                self.put(&Change::Subscribed { session, filter: &filter, options, identifier: 3 });
            }
            11 => {
                let filter = self.random.below(4).to_string();
                self.put(&Change::Unsubscribed { session, filter: &filter });
            }
            12 => {
                let payload = self.random.text();
                let due = Due::AfterSecs(self.random.below(9) as u32);
                self.put(&Change::Will { session, due, expiry_secs: None, message: stored("will", &payload) });
            }
            13 => self.put(&Change::WillGone { session }),
            14 => {
                let states = self.random.text();
                let states = if self.random.below(2) == 0 { "" } else { &states };
                self.put(&Change::LastStates { session, states: states.as_bytes() });
            }
            15..=17 => self.messages(|writing, messages| writing.put(&Change::Queued { session, messages })),
            _ => self.exchange(session, what),
        }
    }

    fn exchange(&mut self, session: u64, what: usize) {
        let plain = self.plain.at(session).clone();
        let first = plain.terms.next_packet_id;
        match what {
            18 if !plain.queue.is_empty() => {
                let count = 1 + self.random.below(plain.queue.len()) as u32;
                self.put(&Change::Sent { session, first, count });
            }
            19 if self.random.below(9) == 0 => {
                self.put(&Change::SentNow { session, first, messages: Messages::Gone { count: 2 } });
            }
            19 => self.messages(|writing, messages| writing.put(&Change::SentNow { session, first, messages })),
            20 | 21 if !plain.in_flight.is_empty() => {
                let at = self.random.below(plain.in_flight.len()) * self.random.below(2);
                let rest = &plain.in_flight[at..];
                let in_row = (0..).zip(rest).take_while(|(n, sent)| sent.0 == behind(rest[0].0, *n)).count();
                let (first, count) = (rest[0].0, 1 + self.random.below(in_row) as u32);
                let received = self.random.below(2) == 0;
                self.put(&if received {
                    Change::Received { session, first, count }
                } else {
                    Change::Acknowledged { session, first, count }
                });
            }
            22 if !plain.queue.is_empty() => {
                let place = self.random.below(plain.queue.len()) as u32;
                let count = 1 + self.random.below(plain.queue.len() - place as usize) as u32;
                self.put(&Change::Dropped { session, place, count });
            }
            23 => {
                // From where the next 20 are free, or all that are there are released.
                let first = [1, 30, 65_525][self.random.below(3)];
                let is_free = (0..20).all(|number| !plain.incoming.contains_key(&behind(first, number)));
                if is_free {
                    return self.messages(|writing, messages| {
                        writing.put(&Change::Incoming { session, first, messages });
                    });
                }
                let ids: Vec<u16> = plain.incoming.keys().copied().collect();
                let first = ids[self.random.below(ids.len())];
                let in_row = (0..).take_while(|number| plain.incoming.contains_key(&behind(first, *number))).count();
                let count = 1 + self.random.below(in_row) as u32;
                self.put(&Change::Released { session, first, count });
            }
            _ => {}
        }
    }

    fn retained(&mut self) {
        let (mut topic, payload) = (self.random.below(9).to_string(), self.random.text());
        if topic.as_str() < "2" {
            topic = topic.repeat(65_535);
        }
        if self.random.below(3) == 0 {
            self.put(&Change::RetainedGone { topic: &topic });
        } else {
            self.put(&Change::Retained { message: stored(&topic, &payload) });
        }
    }

    fn value(&mut self) {
        let (key, value) = (self.random.below(3).to_string(), self.random.text());
        let value = (self.random.below(3) > 0).then_some(value.as_bytes());
        let plugin = ["a", "ab"][self.random.below(2)];
        self.put(&Change::KeyValue { plugin, key: key.as_bytes(), value });
    }

    fn transit(&mut self) {
        let way = (0, 1);
        let waiting = self.plain.transit.get(&way).map_or(0, Vec::len);
        if waiting > 0 && self.random.below(2) == 0 {
            let count = 1 + self.random.below(waiting) as u32;
            return self.put(&Change::Taken { from: way.0, to: way.1, count });
        }
        let body = self.body();
        let group = [None, Some("$share/g/t")][self.random.below(2)];
        self.put(&Change::Transit { from: way.0, to: way.1, group, body });
    }
}

fn check(seed: u64) {
    let mut writing = Writing::new(seed);
    let (mut disk, mut model) = (Disk::default(), Model::default());
    for _ in 0..60 {
        let journal = writing.next();
        let at = disk.journal.len() as u64;
        disk.journal.extend_from_slice(&journal);
        model.apply(&journal, at).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let end = disk.journal.len() as u64;
        match writing.random.below(8) {
            0 => disk.commit(&model.freeze([end, 0, 0])),
            // The process ends in the middle of a checkpoint.
            1 => {
                drop(model.freeze([end, 0, 0]));
                model = disk.load();
            }
            2 => model = disk.load(),
            _ => {}
        }
    }
    let mut expected = writing.plain.clone();
    expected.bodies.clear();
    disk.image(&model, 3).compare(&expected, seed);
    disk.commit(&model.freeze([disk.journal.len() as u64, 0, 0]));
    disk.image(&disk.load(), 1).compare(&expected, seed);
    // When everything ends, nothing is left over.
    let mut end = Vec::new();
    Change::Turn { worker: 0, workers: 2 }.encode(&mut end);
    expected.sessions.keys().for_each(|session| Change::Ended { session: *session }.encode(&mut end));
    expected.retained.keys().for_each(|topic| Change::RetainedGone { topic }.encode(&mut end));
    for (plugin, key) in expected.values.keys() {
        Change::KeyValue { plugin, key, value: None }.encode(&mut end);
    }
    for ((from, to), way) in &expected.transit {
        Change::Taken { from: *from, to: *to, count: way.len() as u32 }.encode(&mut end);
    }
    model.apply(&end, disk.journal.len() as u64).expect("all of it is there");
    disk.journal.extend_from_slice(&end);
    disk.commit(&model.freeze([disk.journal.len() as u64, 0, 0]));
    let left: Vec<_> = disk.entries.keys().collect();
    assert_eq!(left, [layout::HEAD_KEY], "seed {seed}");
}

#[test]
fn what_comes_back_is_what_was_kept() {
    (0..400).for_each(check);
}

#[test]
fn what_cannot_be_is_said_with_its_place() {
    let (session, first, count) = (7, 3, 2);
    let terms = Terms { expiry_secs: 5, expiry_secs_max: 9, ends_at: None, next_packet_id: 1 };
    let began = Change::Began { session, client_id: "c", terms };
    let turn = Change::Turn { worker: 0, workers: 1 };
    let sent = Change::SentNow { session, first, messages: Messages::Gone { count: 2 } };
    let accepted = Change::Incoming { session, first, messages: Messages::Gone { count: 2 } };
    let body = |number| Change::Body { number, message: stored("t", "x") };
    for (before, change, said) in [
        (vec![], began, "a change stands before the first Turn"),
        (vec![turn], Change::Ended { session }, "there is no session 7"),
        (vec![turn], Change::WillGone { session }, "there is no session 7"),
        (vec![turn, began], began, "session 7 begins, but is there"),
        (vec![turn, body(0)], body(2), "body 2 stands where 1 was expected"),
        (
            vec![turn, body(0), turn],
            Change::Transit { from: 0, to: 1, group: None, body: 0 },
            "there is no body 0 in this journal",
        ),
        (vec![turn], Change::Taken { from: 0, to: 1, count }, "nothing is on its way from worker 0 to worker 1"),
        (vec![turn, began], Change::Sent { session, first, count }, "2 messages more than there are"),
        (
            vec![turn, began, sent],
            Change::Acknowledged { session, first: 4, count },
            "session 7: no message is in flight with 5",
        ),
        (
            vec![turn, began, sent],
            Change::Received { session, first: 2, count },
            "session 7: no message is in flight with 2",
        ),
        (vec![turn, began], Change::Dropped { session, place: 1, count }, "session 7: 1 messages more than there are"),
        (vec![turn, began, accepted], accepted, "a message from the client is there with 3 or behind it"),
        (
            vec![turn, began, accepted],
            Change::Released { session, first: 5, count: 1 },
            "session 7: no message from the client is there with 5",
        ),
    ] {
        let mut journal = Vec::new();
        before.iter().for_each(|change| change.encode(&mut journal));
        let at = journal.len() as u64;
        change.encode(&mut journal);
        let error = Model::default().apply(&journal, 1000).expect_err(said);
        assert_eq!((error.at, error.to_string()), (1000 + at, said.to_owned()));
    }
    let error = Model::default().apply(&[99, 0, 0, 0, 0], 5).expect_err("it is no change");
    assert_eq!((error.at, error.to_string().contains("99")), (5, true));
}

/// A body for many is written once, and goes with the last item that refers to it.
#[test]
fn what_many_get_is_there_once() {
    let (mut disk, mut model) = (Disk::default(), Model::default());
    let terms = Terms { expiry_secs: 5, expiry_secs_max: 9, ends_at: None, next_packet_id: 1 };
    let payload = "x".repeat(10_000);
    let turn = Change::Turn { worker: 0, workers: 1 };
    let mut step = |disk: &mut Disk, changes: &[Change<'_>]| {
        let at = disk.journal.len();
        turn.encode(&mut disk.journal);
        changes.iter().for_each(|change| change.encode(&mut disk.journal));
        model.apply(&disk.journal[at..], at as u64).expect("sound");
        disk.commit(&model.freeze([disk.journal.len() as u64, 0, 0]));
        disk.entries.values().map(Vec::len).sum::<usize>()
    };
    let delivery = Delivery { qos: QoS::AtLeastOnce, retain: false, origin: Origin::Sent };
    let messages = Messages::Bodies { first: 0, count: 1, delivery };
    let clients: Vec<String> = (1..=50).map(|session| format!("client {session}")).collect();
    let mut changes = vec![Change::Body { number: 0, message: stored("t", &payload) }];
    for (session, client_id) in (1..).zip(&clients) {
        changes.push(Change::Began { session, client_id, terms });
        changes.push(Change::Queued { session, messages });
    }
    let bytes = step(&mut disk, &changes);
    assert!(bytes < 20_000, "{bytes}");
    let sent: Vec<_> = (1..=50).map(|session| Change::Sent { session, first: 1, count: 1 }).collect();
    step(&mut disk, &sent);
    let gone = |session| Change::Acknowledged { session, first: 1, count: 1 };
    assert!(step(&mut disk, &(1..=49).map(gone).collect::<Vec<_>>()) > 10_000);
    assert!(step(&mut disk, &[gone(50)]) < 10_000);
}
