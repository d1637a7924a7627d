//! A data directory with as much in it as one likes, written by the store's own threads, as if clients had brought it.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use host::clock::WallMillis;
use host::codec::SubscribeOptions;
use host::durable::change::{Change, Delivery, Identifiers, Messages, Origin, Packets, StoredMessage, Terms};
use host::durable::queue::{Queue, Wake};
use host::durable::store::Store;
use host::message::Source;
use host::store::{Opened, Settings};
use plugin_api::QoS;

/// What there is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) sessions: u64,
    /// Messages that wait for each of them.
    pub(crate) queued: u64,
    pub(crate) retained: u64,
    pub(crate) payload_bytes: usize,
}

/// Changes in a journal.
const CHANGES: u64 = 50;

/// Journals that wait to be written at most.
const WAITING: u64 = 1000;

/// The Client Identifier of a session.
#[must_use]
pub(crate) fn client_id(session: u64) -> String {
    format!("client-{session:08}")
}

/// The topic of a retained message.
#[must_use]
pub(crate) fn topic(retained: u64) -> String {
    format!("building/{}/room/{}/state", retained / 1000, retained % 1000)
}

/// What the server that writes ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// All is in the checkpoint.
    Stopped,
    /// All is in the journal.
    Killed,
}

/// Fills a directory, in which there is nothing.
pub(crate) fn fill(directory: &Path, size: &Size, end: End) {
    let opened = Opened::open(directory).expect("an empty directory");
    let bell = Arc::new((Mutex::new(()), Condvar::new()));
    let rung = Arc::clone(&bell);
    let wake: Wake = Box::new(move || {
        let _held = rung.0.lock().expect("nobody panics");
        rung.1.notify_all();
    });
    let settings = Settings { fsync: false, workers: 1, segment_bytes: Settings::SEGMENT_BYTES };
    let (threads, load) = opened.start("fill", settings, vec![wake]).expect("threads");
    if end == End::Stopped {
        load.load(1, &mut |_| {}, &mut |_| {}).expect("nothing");
    } else {
        // Nobody makes a checkpoint of what was not loaded.
        drop(load);
    }
    let mut writing = Writing { queue: threads.queue(), bell: &bell, journal: Vec::new(), changes: 0 };
    let payload = vec![b'x'; size.payload_bytes];
    (0..size.retained).for_each(|number| writing.retained(number, &payload));
    (1..=size.sessions).for_each(|session| writing.session(session, size.queued, &payload));
    writing.hand_over();
    threads.stop().expect("room on the disk");
}

struct Writing<'a> {
    queue: &'a Queue,
    bell: &'a (Mutex<()>, Condvar),
    journal: Vec<u8>,
    changes: u64,
}

impl Writing<'_> {
    fn put(&mut self, change: &Change<'_>) {
        if self.journal.is_empty() {
            Change::Turn { worker: 0, workers: 1 }.encode(&mut self.journal);
        }
        change.encode(&mut self.journal);
        self.changes += 1;
    }

    fn hand_over(&mut self) {
        if self.journal.is_empty() {
            return;
        }
        self.changes = 0;
        let number = self.queue.hand_over(0, &mut self.journal);
        self.journal.clear();
        let mut held = self.bell.0.lock().expect("nobody panics");
        while !self.queue.wake_when_safe(0, number.saturating_sub(WAITING)) {
            held = self.bell.1.wait(held).expect("nobody panics");
        }
    }

    fn retained(&mut self, number: u64, payload: &[u8]) {
        self.put(&Change::Retained { message: message(&topic(number), payload, true) });
        if self.changes >= CHANGES {
            self.hand_over();
        }
    }

    /// Every other session gets its messages as they came from one publisher; the others one by one.
    fn session(&mut self, session: u64, queued: u64, payload: &[u8]) {
        let terms = Terms { expiry_secs: u32::MAX, expiry_secs_max: u32::MAX, ends_at: None, next_packet_id: 1 };
        self.put(&Change::Began { session, client_id: &client_id(session), terms });
        let options = SubscribeOptions::new(QoS::AtLeastOnce);
        self.put(&Change::Subscribed { session, filter: &format!("to/{session}/#"), options, identifier: 0 });
        let topic = format!("to/{session}/command");
        if session.is_multiple_of(2) {
            let bytes = packet(&topic, payload).repeat(usize::try_from(queued).expect("few"));
            let count = u32::try_from(queued).expect("few");
            let packets = Packets { qos: QoS::AtLeastOnce, is_v5: false, group: None, count, bytes: &bytes };
            self.put(&Change::Queued { session, messages: Messages::Packets(packets) });
        } else {
            let origin = Origin::Subscriptions(Identifiers::List(&[]));
            let delivery = Delivery { qos: QoS::AtLeastOnce, retain: false, origin };
            for number in 0..u32::try_from(queued).expect("few") {
                self.put(&Change::Body { number, message: message(&topic, payload, false) });
                let messages = Messages::Bodies { first: number, count: 1, delivery };
                self.put(&Change::Queued { session, messages });
            }
        }
        // Numbers of bodies begin anew with each journal.
        self.hand_over();
    }
}

fn message<'a>(topic: &'a str, payload: &'a [u8], retain: bool) -> StoredMessage<'a> {
    StoredMessage {
        topic,
        payload,
        properties: b"",
        qos: QoS::AtLeastOnce,
        retain,
        expires_at: WallMillis::NEVER,
        source: Source::Client,
        token: 0,
    }
}

/// A PUBLISH packet of 3.1.1 with QoS 1.
fn packet(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut remaining = 2 + topic.len() + 2 + payload.len();
    let mut packet = vec![0x32];
    while remaining >= 128 {
        packet.push((remaining % 128) as u8 | 0x80);
        remaining /= 128;
    }
    packet.push(remaining as u8);
    packet.extend_from_slice(&u16::try_from(topic.len()).expect("short").to_be_bytes());
    packet.extend_from_slice(topic.as_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet.extend_from_slice(payload);
    packet
}
