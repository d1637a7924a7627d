//! The core of one worker with clients that are no sockets: what the driver does, without the kernel.
//!
//! What the broker does goes through a [`Meter`]; what clients and the kernel do does not.
#![allow(dead_code)] // Each bench uses a part of it.

use std::hint::black_box;
use std::sync::Arc;

use host::Limits;
use host::clock::Millis;
use host::codec::{self, Frame, Packet, PacketId, ProtocolVersion, PublishHead, Subscribe, SubscribeFilters};
use host::codec::{SubscribeOptions, Unsubscribe, UnsubscribeFilters};
use host::core::mailbox::Mailboxes;
use host::core::{Arrival, Core, ListenerProfile, Shared};
use host::plugin::{Chain, Plugin, Recorder, Services, Watch};
use plugin_api::{Error, Handler, Host, Properties, Publish, PublishVerdict, QoS, handler};

/// Lets every message pass.
pub(crate) struct Forward;

#[handler]
impl Handler for Forward {
    type Connection = u64;

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, _: &plugin_api::ConnectionInfo<'_>) -> u64 {
        0
    }

    fn handle_publish(&self, bytes: &mut u64, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        *bytes += publish.payload().len() as u64;
        Ok(PublishVerdict::Forward)
    }
}

/// A chain with one plugin that has an opinion on each message, as on a worker's thread.
pub(crate) fn chain(recorder: Option<Arc<Recorder>>) -> Chain {
    let limits = Limits::default();
    let watch = Watch::new(1, &limits);
    watch.sit(0);
    let services = Services::detached().watched_by(watch, &limits);
    let services = match recorder {
        Some(recorder) => services.recorded_by(recorder),
        None => services,
    };
    let plugin = Plugin::from_static::<Forward>("forward", "1.0.0", "{}", &services).expect("it loads");
    Chain::new(vec![plugin]).expect("a chain")
}

/// Tells what the broker does from what stands for its clients.
#[derive(Clone)]
pub(crate) struct Meter {
    /// Whether it is measured at the moment.
    pub(crate) on: bool,
}

impl Meter {
    /// Does some of what is measured.
    #[inline]
    pub(crate) fn measure<R>(&self, work: impl FnOnce() -> R) -> R {
        if self.on { measured(work) } else { work() }
    }
}

/// For what is not measured.
pub(crate) const OFF: Meter = Meter { on: false };

/// What is done in here is counted by the bench `instructions`, which knows it by its name.
#[inline(never)]
fn measured<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// One worker.
pub(crate) struct Broker {
    core: Core,
    now: Millis,
    profile: Arc<ListenerProfile>,
    dirty: Vec<u32>,
    /// What clients have received since [`Broker::take_received`], by slot, one item for each `send`.
    received: Vec<(u32, Vec<u8>)>,
}

impl Broker {
    /// A broker with one plugin, and room for what the benches do.
    pub(crate) fn new() -> Self {
        let mut limits = Limits::default();
        limits.queue_messages_max = 10_000;
        let mailboxes = Mailboxes::new(vec![Box::new(|| ())]);
        let shared = Arc::new(Shared::new(limits.clone(), chain(None), mailboxes));
        let now = Millis(1_000_000);
        let core = Core::new(0, shared, now);
        let profile = Arc::new(ListenerProfile::new("bench", limits));
        Self { core, now, profile, dirty: Vec::new(), received: Vec::new() }
    }

    /// A Network Connection on which nothing has come yet.
    pub(crate) fn accept(&mut self, meter: &Meter) -> u32 {
        let peer = "127.0.0.1:50000".parse().expect("an address");
        let (core, profile, now) = (&mut self.core, &self.profile, self.now);
        meter.measure(|| core.accept(Arrival { peer, profile, details: None }, now)).expect("within the bounds")
    }

    /// A client with a new session that ends with its connection.
    pub(crate) fn client(&mut self, version: ProtocolVersion, client_id: &str) -> u32 {
        self.join(&connect(version, client_id, true))
    }

    /// A client that sends this CONNECT, and is let in.
    pub(crate) fn join(&mut self, connect: &[u8]) -> u32 {
        let slot = self.accept(&OFF);
        self.feed(&OFF, slot, connect);
        self.flush(&OFF);
        let received = self.take_received();
        assert!(received.iter().any(|(to, bytes)| *to == slot && bytes[0] == 0x20 && bytes[3] == 0), "{received:?}");
        slot
    }

    /// A client that has subscribed to one filter.
    pub(crate) fn subscriber(&mut self, version: ProtocolVersion, client_id: &str, filter: &str, qos: QoS) -> u32 {
        let slot = self.client(version, client_id);
        self.subscribe(slot, version, &[filter], qos);
        slot
    }

    /// Subscribes to filters, which are granted.
    pub(crate) fn subscribe(&mut self, slot: u32, version: ProtocolVersion, filters: &[&str], qos: QoS) {
        self.feed(&OFF, slot, &subscribe(version, filters, qos));
        self.flush(&OFF);
        let received = self.take_received();
        assert!(received[0].1[0] == 0x90 && received[0].1.ends_with(&[qos as u8]), "{received:?}");
    }

    /// Bytes have come.
    pub(crate) fn feed(&mut self, meter: &Meter, slot: u32, bytes: &[u8]) {
        let (core, now) = (&mut self.core, self.now);
        meter.measure(|| core.feed(slot, black_box(bytes), now));
    }

    /// The end of a turn: everybody gets what is there, and who is done with is closed.
    pub(crate) fn flush(&mut self, meter: &Meter) {
        let (core, dirty, now) = (&mut self.core, &mut self.dirty, self.now);
        meter.measure(|| core.take_dirty(dirty));
        for slot in dirty.drain(..) {
            loop {
                let count = meter.measure(|| core.outbound(slot).len());
                if count == 0 {
                    break;
                }
                self.received.push((slot, core.outbound(slot).to_vec()));
                meter.measure(|| core.sent(slot, count, now));
            }
            meter.measure(|| {
                if core.is_closing(slot) {
                    core.release(slot);
                }
            });
        }
        meter.measure(|| core.flush_mail());
    }

    /// What clients have received since this was asked last.
    pub(crate) fn take_received(&mut self) -> Vec<(u32, Vec<u8>)> {
        std::mem::take(&mut self.received)
    }

    /// Takes turns until all clients have acknowledged all that they got. Returns how many PUBLISH packets these were.
    pub(crate) fn settle(&mut self, meter: &Meter) -> usize {
        let mut deliveries = 0;
        loop {
            self.flush(meter);
            let received = self.take_received();
            if received.is_empty() {
                return deliveries;
            }
            for (slot, bytes) in received {
                let (answers, publishes) = answers(&bytes);
                deliveries += publishes;
                if !answers.is_empty() {
                    self.feed(meter, slot, &answers);
                }
            }
        }
    }

    /// The connection is lost, and its slot is free again.
    pub(crate) fn lose(&mut self, meter: &Meter, slot: u32) {
        let (core, now) = (&mut self.core, self.now);
        meter.measure(|| {
            core.lost(slot, now);
            core.release(slot);
        });
        self.flush(meter);
    }
}

/// What a client sends back for packets that it got, and how many of these were PUBLISH.
pub(crate) fn answers(bytes: &[u8]) -> (Vec<u8>, usize) {
    let (mut answers, mut publishes, mut rest) = (Vec::new(), 0, bytes);
    while !rest.is_empty() {
        let Ok(Frame::Complete { header_bytes, total_bytes }) = codec::frame(rest, usize::MAX) else {
            panic!("the broker has sent what is no packet: {rest:02X?}");
        };
        let (packet, behind) = rest.split_at(total_bytes);
        rest = behind;
        let body = &packet[header_bytes..];
        let (first, packet_id) = match packet[0] & 0xF6 {
            0x32 => (0x40, packet_id_of(body)), // PUBLISH with QoS 1: PUBACK
            0x34 => (0x50, packet_id_of(body)), // PUBLISH with QoS 2: PUBREC
            0x50 => (0x62, [body[0], body[1]]), // PUBREC: PUBREL
            0x62 => (0x70, [body[0], body[1]]), // PUBREL: PUBCOMP
            _ => (0, [0, 0]),
        };
        publishes += usize::from(packet[0] >> 4 == 3);
        if first != 0 {
            answers.extend_from_slice(&[first, 2, packet_id[0], packet_id[1]]);
        }
    }
    (answers, publishes)
}

/// The Packet Identifier of a PUBLISH, behind its Topic Name.
fn packet_id_of(body: &[u8]) -> [u8; 2] {
    let at = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
    [body[at], body[at + 1]]
}

/// CONNECT.
pub(crate) fn connect(version: ProtocolVersion, client_id: &str, clean_start: bool) -> Vec<u8> {
    let flags = if clean_start { 2 } else { 0 };
    let mut body = [&b"\0\x04MQTT"[..], &[version as u8, flags, 0, 0]].concat();
    if version.is_v5() {
        // Session Expiry Interval: an hour if the session is to be kept.
        let kept: &[u8] = if clean_start { &[0] } else { &[5, 0x11, 0, 0, 0x0E, 0x10] };
        body.extend_from_slice(kept);
    }
    body.extend_from_slice(&u16::try_from(client_id.len()).expect("a short name").to_be_bytes());
    body.extend_from_slice(client_id.as_bytes());
    [&[0x10, u8::try_from(body.len()).expect("a short packet")][..], &body].concat()
}

/// SUBSCRIBE with Packet Identifier 1.
pub(crate) fn subscribe(version: ProtocolVersion, filters: &[&str], qos: QoS) -> Vec<u8> {
    let mut payload = Vec::new();
    for filter in filters {
        SubscribeFilters::put(&mut payload, filter, SubscribeOptions::new(qos));
    }
    let filters = SubscribeFilters::from_trusted(&payload);
    encoded(version, &Packet::Subscribe(Subscribe { packet_id: PacketId::MIN, properties: Properties::EMPTY, filters }))
}

/// UNSUBSCRIBE with Packet Identifier 1.
pub(crate) fn unsubscribe(version: ProtocolVersion, filters: &[&str]) -> Vec<u8> {
    let mut payload = Vec::new();
    for filter in filters {
        UnsubscribeFilters::put(&mut payload, filter);
    }
    let filters = UnsubscribeFilters::from_trusted(&payload);
    let properties = Properties::EMPTY;
    encoded(version, &Packet::Unsubscribe(Unsubscribe { packet_id: PacketId::MIN, properties, filters }))
}

fn encoded(version: ProtocolVersion, packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}

/// PUBLISH packets, as many as there are Packet Identifiers; with QoS 0 these are not sent.
pub(crate) fn publishes(
    version: ProtocolVersion,
    topic: &str,
    qos: QoS,
    payload: &[u8],
    packet_ids: std::ops::RangeInclusive<u16>,
) -> Vec<u8> {
    let mut packets = Vec::new();
    for packet_id in packet_ids {
        let head = PublishHead { dup: false, qos, retain: false, packet_id: PacketId::new(packet_id) };
        codec::encode_publish(version, &mut packets, head, topic, &[], payload);
    }
    packets
}
