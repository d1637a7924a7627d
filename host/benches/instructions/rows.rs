//! What is counted. Each row repeats one thing, after some rounds in which tables and pools come to their size.

use std::hint::black_box;
use std::sync::Arc;

use host::codec::ProtocolVersion::{V3_1_1, V5};
use host::codec::{self, Ack, Frame, Packet, PacketId, ProtocolVersion, PublishHead};
use host::plugin::{
    ChangedMessage, ConnectionInfo, PublishFields, PublishOutcome, PublishRequest, Recorder, Recording, Transport,
};
use host::router::{Interest, Router, SessionKey, SubscribeOptions};
use plugin_api::QoS::{self, AtLeastOnce, AtMostOnce, ExactlyOnce};

use crate::broker::{self, Broker, Meter, OFF};

/// One line of the file.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// What is counted, in words: instructions per this.
    pub(crate) unit: &'static str,
    /// Does it, and returns how many times it was measured.
    pub(crate) run: fn(&mut Meter) -> usize,
}

const fn row(name: &'static str, unit: &'static str, run: fn(&mut Meter) -> usize) -> Row {
    Row { name, unit, run }
}

/// All of them, in the order of the file.
pub(crate) const ROWS: &[Row] = &[
    row("decode_publish_qos0", "packet", |meter| decode(meter, &publish_packet(V3_1_1, AtMostOnce))),
    row("decode_publish_qos1_v5", "packet", |meter| decode(meter, &publish_packet(V5, AtLeastOnce))),
    row("decode_connect_v5", "packet", |meter| decode(meter, &broker::connect(V5, "a-client", false))),
    row("decode_subscribe", "packet", |meter| decode(meter, &broker::subscribe(V3_1_1, &["a/+/c"], AtLeastOnce))),
    row("encode_publish_qos0", "packet", |meter| encode_publish(meter, V3_1_1, AtMostOnce)),
    row("encode_publish_qos1_v5", "packet", |meter| encode_publish(meter, V5, AtLeastOnce)),
    row("encode_puback", "packet", encode_puback),
    row("match_cached", "topic", match_cached),
    row("match_in_10k_filters", "topic", match_in_10k_filters),
    row("callback", "call", |meter| callback(meter, None)),
    row("callback_recorded", "call", |meter| callback(meter, Some(recorder()))),
    row("connect", "client", connect),
    row("connection_lost", "client", connection_lost),
    row("subscribe", "filter", subscribe),
    row("unsubscribe", "filter", unsubscribe),
    row("pingreq", "packet", pingreq),
    row("pairs_qos0", "message", |meter| pairs(meter, V3_1_1, AtMostOnce, BATCH, 16)),
    row("pairs_qos0_1k", "message", |meter| pairs(meter, V3_1_1, AtMostOnce, BATCH, 1024)),
    row("pairs_qos0_alone", "message", |meter| pairs(meter, V3_1_1, AtMostOnce, 1, 16)),
    row("pairs_qos1", "message", |meter| pairs(meter, V3_1_1, AtLeastOnce, BATCH, 16)),
    row("pairs_qos1_v5", "message", |meter| pairs(meter, V5, AtLeastOnce, BATCH, 16)),
    row("pairs_qos1_alone", "message", |meter| pairs(meter, V3_1_1, AtLeastOnce, 1, 16)),
    row("pairs_qos2", "message", |meter| pairs(meter, V3_1_1, ExactlyOnce, BATCH, 16)),
    row("fan_out_100_qos0", "delivery", |meter| fan_out(meter, AtMostOnce, BATCH)),
    row("fan_out_100_qos0_alone", "delivery", |meter| fan_out(meter, AtMostOnce, 1)),
    row("fan_out_100_qos1", "delivery", |meter| fan_out(meter, AtLeastOnce, BATCH)),
    row("fan_in_100_qos1", "message", fan_in),
    row("shared_4_members_qos1", "message", shared),
    row("retained_replay", "message", retained_replay),
    row("offline_enqueue", "message", |meter| offline(meter, Half::Enqueue)),
    row("offline_drain", "message", |meter| offline(meter, Half::Drain)),
];

/// Messages that come in one read.
const BATCH: u16 = 32;

const TOPIC: &str = "devices/7/temperature";

/// Does it some times before it is measured, and so many times while it is.
fn repeat(meter: &mut Meter, times: usize, mut step: impl FnMut(&Meter)) -> usize {
    for round in 0..times / 4 + times {
        meter.on = round >= times / 4;
        step(meter);
    }
    meter.on = false;
    times
}

// Codec.

fn publish_packet(version: ProtocolVersion, qos: QoS) -> Vec<u8> {
    broker::publishes(version, TOPIC, qos, &[b'x'; 16], 1..=1)
}

fn decode(meter: &mut Meter, packet: &[u8]) -> usize {
    let version = if packet[0] == 0x32 { V5 } else { V3_1_1 };
    repeat(meter, 100, |meter| {
        meter.measure(|| {
            let packet = black_box(packet);
            let Ok(Frame::Complete { header_bytes, .. }) = codec::frame(packet, 1 << 20) else { panic!("a packet") };
            black_box(codec::decode(version, packet, header_bytes)).expect("a valid packet");
        });
    })
}

fn encode_publish(meter: &mut Meter, version: ProtocolVersion, qos: QoS) -> usize {
    let head = PublishHead { dup: false, qos, retain: false, packet_id: PacketId::new(7) };
    let mut out = Vec::with_capacity(1024);
    repeat(meter, 100, |meter| {
        out.clear();
        meter.measure(|| codec::encode_publish(version, &mut out, head, black_box(TOPIC), &[], black_box(&[b'x'; 16])));
    })
}

fn encode_puback(meter: &mut Meter) -> usize {
    let mut out = Vec::with_capacity(1024);
    repeat(meter, 100, |meter| {
        out.clear();
        meter.measure(|| Packet::Puback(Ack::success(black_box(PacketId::MIN))).encode(V3_1_1, &mut out));
    })
}

// Router.

fn router(filters: u32) -> Router {
    let mut router = Router::new(0, Arc::new(Interest::new(1)));
    for number in 0..filters {
        let filter = match number % 4 {
            0 => format!("site/{}/+/temperature", number / 4),
            1 => format!("site/{}/room/#", number / 4),
            2 => format!("+/{}/room/temperature", number / 4),
            _ => format!("site/{}/room/temperature", number / 4),
        };
        router.subscribe(SessionKey { slot: number, serial: 1 }, &filter, SubscribeOptions::new(AtMostOnce), None);
    }
    router
}

fn match_cached(meter: &mut Meter) -> usize {
    let mut router = router(1000);
    repeat(meter, 1000, |meter| {
        meter.measure(|| router.targets(black_box("site/77/room/temperature")));
    })
}

fn match_in_10k_filters(meter: &mut Meter) -> usize {
    let mut router = router(10_000);
    let topics: Vec<String> = (0..2500).map(|number| format!("site/{number}/room/temperature")).collect();
    let mut topics = topics.iter();
    repeat(meter, 2000, |meter| {
        let topic = topics.next().expect("as many as there are rounds");
        let targets = meter.measure(|| router.targets(black_box(topic)));
        assert_eq!(targets.local.len(), 4, "{topic}");
    })
}

// Plugins.

/// Writes nowhere, on a thread of its own, which is not counted.
fn recorder() -> Arc<Recorder> {
    let recording = Recording { path: "/dev/null".into(), secrets: false, bytes_max: u64::MAX };
    Recorder::start(&recording, false).expect("a thread")
}

fn callback(meter: &mut Meter, recorder: Option<Arc<Recorder>>) -> usize {
    let chain = broker::chain(recorder);
    let peer = "192.0.2.7:1883".parse().expect("an address");
    let info = ConnectionInfo { connection: 1, peer, listener: "l", transport: Transport::PLAIN };
    let mut handlers = chain.new_connection(&info).expect("states");
    let mut changed = ChangedMessage::default();
    let request = PublishRequest::new(PublishFields {
        topic: TOPIC,
        payload: &[b'x'; 16],
        properties: &[],
        qos: AtMostOnce,
        retain: false,
        dup: false,
        packet_id: None,
        will: false,
    });
    repeat(meter, 1000, |meter| {
        let outcome = meter.measure(|| chain.publish(&mut handlers, "a-client", black_box(&request), &mut changed));
        assert_eq!(outcome, PublishOutcome::Forward);
    })
}

// Clients that come and go.

fn connect(meter: &mut Meter) -> usize {
    let mut broker = Broker::new();
    let mut number = 0;
    repeat(meter, 200, |meter| {
        number += 1;
        let connect = broker::connect(V3_1_1, &format!("client-{number}"), true);
        let slot = broker.accept(meter);
        broker.feed(meter, slot, &connect);
        broker.flush(meter);
    })
}

fn connection_lost(meter: &mut Meter) -> usize {
    let mut broker = Broker::new();
    let mut slots: Vec<u32> = (0..250).map(|number| broker.client(V3_1_1, &format!("client-{number}"))).collect();
    repeat(meter, 200, |meter| broker.lose(meter, slots.pop().expect("as many as there are rounds")))
}

/// Filters of a client that subscribes to them one after the other.
fn filters() -> Vec<String> {
    (0..1250).map(|number| format!("site/{number}/room/temperature")).collect()
}

fn subscribe(meter: &mut Meter) -> usize {
    let mut broker = Broker::new();
    let slot = broker.client(V3_1_1, "subscriber");
    let filters = filters();
    let mut filters = filters.iter();
    repeat(meter, 1000, |meter| {
        let filter = filters.next().expect("as many as there are rounds");
        broker.feed(meter, slot, &broker::subscribe(V3_1_1, &[filter], AtMostOnce));
        broker.flush(meter);
    })
}

fn unsubscribe(meter: &mut Meter) -> usize {
    let mut broker = Broker::new();
    let slot = broker.client(V3_1_1, "subscriber");
    let filters = filters();
    for filter in &filters {
        broker.subscribe(slot, V3_1_1, &[filter], AtMostOnce);
    }
    let mut filters = filters.iter();
    repeat(meter, 1000, |meter| {
        let filter = filters.next().expect("as many as there are rounds");
        broker.feed(meter, slot, &broker::unsubscribe(V3_1_1, &[filter]));
        broker.flush(meter);
    })
}

fn pingreq(meter: &mut Meter) -> usize {
    let mut broker = Broker::new();
    let slot = broker.client(V3_1_1, "client");
    repeat(meter, 200, |meter| {
        broker.feed(meter, slot, &[0xC0, 0]);
        broker.flush(meter);
    })
}

// Messages. Each of them is acknowledged by everybody before the next round.

fn pairs(meter: &mut Meter, version: ProtocolVersion, qos: QoS, batch: u16, payload_bytes: usize) -> usize {
    let mut broker = Broker::new();
    let publisher = broker.client(version, "publisher");
    broker.subscriber(version, "subscriber", TOPIC, qos);
    let packets = broker::publishes(version, TOPIC, qos, &vec![b'x'; payload_bytes], 1..=batch);
    let rounds = repeat(meter, 100, |meter| {
        broker.feed(meter, publisher, &packets);
        assert_eq!(broker.settle(meter), usize::from(batch));
    });
    rounds * usize::from(batch)
}

fn fan_out(meter: &mut Meter, qos: QoS, batch: u16) -> usize {
    let mut broker = Broker::new();
    let publisher = broker.client(V3_1_1, "publisher");
    for number in 0..100 {
        broker.subscriber(V3_1_1, &format!("subscriber-{number}"), TOPIC, qos);
    }
    let packets = broker::publishes(V3_1_1, TOPIC, qos, &[b'x'; 16], 1..=batch);
    let deliveries = 100 * usize::from(batch);
    let rounds = repeat(meter, 20, |meter| {
        broker.feed(meter, publisher, &packets);
        assert_eq!(broker.settle(meter), deliveries);
    });
    rounds * deliveries
}

fn fan_in(meter: &mut Meter) -> usize {
    let mut broker = Broker::new();
    let publishers: Vec<u32> = (0..100).map(|number| broker.client(V3_1_1, &format!("publisher-{number}"))).collect();
    broker.subscriber(V3_1_1, "subscriber", TOPIC, AtLeastOnce);
    let packets = broker::publishes(V3_1_1, TOPIC, AtLeastOnce, &[b'x'; 16], 1..=8);
    let rounds = repeat(meter, 10, |meter| {
        for &publisher in &publishers {
            broker.feed(meter, publisher, &packets);
        }
        assert_eq!(broker.settle(meter), 800);
    });
    rounds * 800
}

fn shared(meter: &mut Meter) -> usize {
    let mut broker = Broker::new();
    let publisher = broker.client(V3_1_1, "publisher");
    for number in 0..4 {
        broker.subscriber(V3_1_1, &format!("member-{number}"), "$share/group/devices/+/temperature", AtLeastOnce);
    }
    let packets = broker::publishes(V3_1_1, TOPIC, AtLeastOnce, &[b'x'; 16], 1..=BATCH);
    let rounds = repeat(meter, 100, |meter| {
        broker.feed(meter, publisher, &packets);
        assert_eq!(broker.settle(meter), usize::from(BATCH));
    });
    rounds * usize::from(BATCH)
}

fn retained_replay(meter: &mut Meter) -> usize {
    const MESSAGES: usize = 1000;
    let mut broker = Broker::new();
    let publisher = broker.client(V3_1_1, "publisher");
    for number in 0..MESSAGES {
        let mut packet = broker::publishes(V3_1_1, &format!("kept/{number}"), AtMostOnce, &[b'x'; 16], 1..=1);
        packet[0] |= 1; // RETAIN
        broker.feed(&OFF, publisher, &packet);
        broker.settle(&OFF);
    }
    let mut number = 0;
    let rounds = repeat(meter, 4, |meter| {
        number += 1;
        let subscriber = broker.client(V3_1_1, &format!("subscriber-{number}"));
        broker.feed(meter, subscriber, &broker::subscribe(V3_1_1, &["kept/+"], AtMostOnce));
        assert_eq!(broker.settle(meter), MESSAGES);
        broker.lose(&OFF, subscriber);
    });
    rounds * MESSAGES
}

#[derive(PartialEq)]
enum Half {
    Enqueue,
    Drain,
}

/// Messages for a session whose client is away, and what happens when it is back. One of the two is measured.
fn offline(meter: &mut Meter, half: Half) -> usize {
    let mut broker = Broker::new();
    let publisher = broker.client(V3_1_1, "publisher");
    let back = broker::connect(V3_1_1, "subscriber", false);
    let mut subscriber = broker.join(&back);
    broker.subscribe(subscriber, V3_1_1, &[TOPIC], AtLeastOnce);
    let packets = broker::publishes(V3_1_1, TOPIC, AtLeastOnce, &[b'x'; 16], 1..=1000);
    let rounds = repeat(meter, 4, |meter| {
        let (enqueue, drain) = if half == Half::Enqueue { (meter, &OFF) } else { (&OFF, meter) };
        broker.lose(&OFF, subscriber);
        broker.feed(enqueue, publisher, &packets);
        assert_eq!(broker.settle(enqueue), 0);
        subscriber = broker.accept(&OFF);
        broker.feed(drain, subscriber, &back);
        assert_eq!(broker.settle(drain), 1000);
    });
    rounds * 1000
}
