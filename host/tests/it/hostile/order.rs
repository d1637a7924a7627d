//! Packets where they may not stand, and what is not MQTT at all.

use super::{Row, check, with_properties};
use crate::mqtt::{Connect, Publish, V5, VERSIONS, field, packet};

#[test]
fn first_packets_that_are_not_connect() {
    // [MQTT-3.1.0-1] [MQTT-3.14.0-1]
    check(&before_connect());
}

#[test]
fn packets_that_a_client_does_not_send() {
    // [MQTT-3.1.0-2] [MQTT-4.12.0-7] [MQTT-4.13.1-1]
    check(&not_from_clients());
}

#[test]
fn packets_behind_disconnect() {
    // [MQTT-3.14.4-1] [MQTT-3.14.4-2]
    check(&after_disconnect());
}

#[test]
fn other_protocols() {
    // [MQTT-3.1.0-1]
    check(&strangers());
}

pub(super) fn rows() -> Vec<Row> {
    [before_connect(), not_from_clients(), after_disconnect(), strangers()].concat()
}

/// A packet of each type but CONNECT, well-formed.
fn each_type(version: u8) -> Vec<(&'static str, Vec<u8>)> {
    let filter = field("t");
    let auth = [&[0x15][..], &field("m")].concat();
    let mut packets = vec![
        ("CONNACK", with_properties(version, 0x20, &[0, 0], &[], &[])),
        ("PUBLISH", Publish::new("t", "x").qos(1, 1).bytes(version)),
        ("PUBACK", vec![0x40, 2, 0, 1]),
        ("PUBREC", vec![0x50, 2, 0, 1]),
        ("PUBREL", vec![0x62, 2, 0, 1]),
        ("PUBCOMP", vec![0x70, 2, 0, 1]),
        ("SUBSCRIBE", with_properties(version, 0x82, &[0, 1], &[], &[&filter[..], &[0]].concat())),
        ("SUBACK", with_properties(version, 0x90, &[0, 1], &[], &[0])),
        ("UNSUBSCRIBE", with_properties(version, 0xa2, &[0, 1], &[], &filter)),
        ("UNSUBACK", with_properties(version, 0xb0, &[0, 1], &[], if version == V5 { &[0] } else { &[] })),
        ("PINGREQ", vec![0xc0, 0]),
        ("PINGRESP", vec![0xd0, 0]),
        ("DISCONNECT", vec![0xe0, 0]),
    ];
    if version == V5 {
        packets.push(("AUTH", with_properties(version, 0xf0, &[0x18], &auth, &[])));
    }
    packets
}

fn before_connect() -> Vec<Row> {
    let mut rows = Vec::new();
    for version in VERSIONS {
        for (name, bytes) in each_type(version) {
            let connect = Connect::new(version, "late").bytes();
            rows.push(Row::refused(format!("before CONNECT/{name}"), version, bytes.clone(), &[]));
            // CONNECT behind it does not help.
            let bytes = [bytes, connect].concat();
            rows.push(Row::refused(format!("before CONNECT/{name}, then CONNECT"), version, bytes, &[]));
        }
        // The first byte is enough.
        for kind in 2..16_u8 {
            rows.push(Row::refused(format!("before CONNECT/half of type {kind}"), version, vec![kind << 4, 100], &[]));
        }
    }
    rows
}

fn not_from_clients() -> Vec<Row> {
    let mut rows = Vec::new();
    for version in VERSIONS {
        for (name, bytes) in each_type(version) {
            if matches!(name, "CONNACK" | "SUBACK" | "UNSUBACK" | "PINGRESP") {
                rows.push(Row::disconnected(format!("server's packet/{name}"), version, bytes, 0x82));
            }
        }
        let second = Connect::new(version, "second").bytes();
        rows.push(Row::disconnected("second CONNECT", version, second, 0x82));
        let broken = packet(0x10, &[0, 0]);
        rows.push(match version {
            V5 => Row::disconnected("second CONNECT, broken", version, broken, 0x82),
            _ => Row::hung_up("second CONNECT, broken", version, broken),
        });
        let code = if version == V5 { 0x82 } else { 0x81 };
        let auth = with_properties(V5, 0xf0, &[0x18], &[&[0x15][..], &field("m")].concat(), &[]);
        rows.push(Row::disconnected("AUTH without a method in CONNECT", version, auth, code));
    }
    rows
}

fn after_disconnect() -> Vec<Row> {
    let mut rows = Vec::new();
    for version in VERSIONS {
        let connect = ("CONNECT", Connect::new(version, "again").bytes());
        for (name, bytes) in each_type(version).into_iter().chain([connect]) {
            let bytes = [vec![0xe0, 0], bytes].concat();
            rows.push(Row::hung_up(format!("after DISCONNECT/{name}"), version, bytes));
        }
        rows.push(Row::hung_up("after DISCONNECT/nonsense", version, [vec![0xe0, 0], vec![0xff; 5000]].concat()));
    }
    rows
}

fn strangers() -> Vec<Row> {
    let hello = [
        // A handshake record of TLS with a ClientHello.
        &[0x16, 0x03, 0x01, 0x00, 0x2f, 0x01, 0x00, 0x00, 0x2b, 0x03, 0x03][..],
        &[0x5a; 32],
        &[0x00, 0x00, 0x02, 0x13, 0x01, 0x01, 0x00, 0x00, 0x00],
    ]
    .concat();
    let get = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let table: [(&str, &[u8]); 7] = [
        ("TLS", &hello),
        ("HTTP GET", get),
        ("HTTP POST", b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n"),
        ("PROXY", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"),
        ("zeros", &[0; 4096]),
        ("ones", &[0xff; 4096]),
    ];
    table.map(|(name, bytes)| Row::refused(format!("stranger/{name}"), V5, bytes.to_vec(), &[])).to_vec()
}
