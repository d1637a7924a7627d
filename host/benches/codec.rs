//! What it takes to read packets and to write them: `cargo bench -p host --bench codec`.

use divan::{Bencher, black_box};
use host::codec::ProtocolVersion::{self, V3_1_1, V5};
use host::codec::{self, Ack, Frame, Packet, PacketId, PublishHead};
use plugin_api::QoS::{self, AtLeastOnce, AtMostOnce};

mod broker;

const TOPIC: &str = "devices/7/temperature";

fn publish(version: ProtocolVersion, qos: QoS, payload_bytes: usize) -> Vec<u8> {
    broker::publishes(version, TOPIC, qos, &vec![b'x'; payload_bytes], 1..=1)
}

/// Packets as clients send them, by what the report calls them.
fn packets() -> [(&'static str, ProtocolVersion, Vec<u8>); 6] {
    [
        ("CONNECT, 5.0", V5, broker::connect(V5, "a-client", false)),
        ("PUBLISH, QoS 0", V3_1_1, publish(V3_1_1, AtMostOnce, 16)),
        ("PUBLISH, QoS 1, 5.0", V5, publish(V5, AtLeastOnce, 16)),
        ("PUBLISH, QoS 0, 1 KiB", V3_1_1, publish(V3_1_1, AtMostOnce, 1024)),
        ("PUBACK", V3_1_1, vec![0x40, 2, 0, 7]),
        ("SUBSCRIBE, 10 filters", V3_1_1, broker::subscribe(V3_1_1, &["devices/+/temperature"; 10], AtLeastOnce)),
    ]
}

#[divan::bench(args = ["CONNECT, 5.0", "PUBLISH, QoS 0", "PUBLISH, QoS 1, 5.0", "PUBLISH, QoS 0, 1 KiB", "PUBACK", "SUBSCRIBE, 10 filters"])]
fn decode(bencher: Bencher<'_, '_>, name: &str) {
    let (_, version, packet) = packets().into_iter().find(|(known, ..)| *known == name).expect("it is one of them");
    bencher.bench_local(|| {
        let packet = black_box(&packet[..]);
        let Ok(Frame::Complete { header_bytes, .. }) = codec::frame(packet, 1 << 20) else { panic!("it is a packet") };
        // It borrows from the packet, and cannot be returned.
        let _ = black_box(codec::decode(version, packet, header_bytes));
    });
}

#[divan::bench(args = [16, 1024])]
fn encode_publish_qos0(bencher: Bencher<'_, '_>, payload_bytes: usize) {
    encode(bencher, V3_1_1, AtMostOnce, payload_bytes);
}

#[divan::bench(args = [16, 1024])]
fn encode_publish_qos1_v5(bencher: Bencher<'_, '_>, payload_bytes: usize) {
    encode(bencher, V5, AtLeastOnce, payload_bytes);
}

fn encode(bencher: Bencher<'_, '_>, version: ProtocolVersion, qos: QoS, payload_bytes: usize) {
    let head = PublishHead { dup: false, qos, retain: false, packet_id: PacketId::new(7) };
    let payload = vec![b'x'; payload_bytes];
    let mut out = Vec::with_capacity(4096);
    bencher.bench_local(|| {
        out.clear();
        codec::encode_publish(version, &mut out, black_box(head), black_box(TOPIC), &[], black_box(&payload))
    });
}

#[divan::bench]
fn encode_puback(bencher: Bencher<'_, '_>) {
    let mut out = Vec::with_capacity(64);
    bencher.bench_local(|| {
        out.clear();
        Packet::Puback(Ack::success(black_box(PacketId::MIN))).encode(V3_1_1, &mut out);
    });
}

fn main() {
    divan::main();
}
