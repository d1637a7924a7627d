//! Properties that a packet cannot have, has twice, or has wrong.

use super::{Row, check, with_properties};
use crate::mqtt::{Connect, Publish, V5, Will, field, packet};

#[test]
fn properties_of_other_packets() {
    // [MQTT-3.3.4-6] [MQTT-4.13.1-1]
    check(&foreign());
}

#[test]
fn properties_that_stand_there_twice() {
    // [MQTT-4.13.1-1]
    check(&duplicates());
}

#[test]
fn lists_of_properties_that_cannot_be_read() {
    // [MQTT-1.5.5-1] [MQTT-2.2.2-1] [MQTT-4.13.1-1]
    check(&broken());
}

#[test]
fn values_of_properties_that_are_not_allowed() {
    // [MQTT-3.3.2-7] [MQTT-3.3.2-8] [MQTT-3.3.2-14]
    check(&values());
}

pub(super) fn rows() -> Vec<Row> {
    [foreign(), duplicates(), broken(), values()].concat()
}

/// Every property of the specification: its identifier, an example of its value, and which packets from a client may
/// have it (section 2.2.2.2; `W` is the will in CONNECT).
#[rustfmt::skip]
const PROPERTIES: [(u8, &str, &[u8], &str); 27] = [
    (0x01, "Payload Format Indicator", &[0], "PUBLISH W"),
    (0x02, "Message Expiry Interval", &[0, 0, 0, 9], "PUBLISH W"),
    (0x03, "Content Type", &[0, 1, b'x'], "PUBLISH W"),
    (0x08, "Response Topic", &[0, 1, b'x'], "PUBLISH W"),
    (0x09, "Correlation Data", &[0, 1, b'x'], "PUBLISH W"),
    (0x0b, "Subscription Identifier", &[9], "SUBSCRIBE"),
    (0x11, "Session Expiry Interval", &[0, 0, 0, 9], "CONNECT DISCONNECT"),
    (0x12, "Assigned Client Identifier", &[0, 1, b'x'], ""),
    (0x13, "Server Keep Alive", &[0, 9], ""),
    (0x15, "Authentication Method", &[0, 1, b'm'], "CONNECT AUTH"),
    (0x16, "Authentication Data", &[0, 1, b'x'], "CONNECT AUTH"),
    (0x17, "Request Problem Information", &[0], "CONNECT"),
    (0x18, "Will Delay Interval", &[0, 0, 0, 9], "W"),
    (0x19, "Request Response Information", &[0], "CONNECT"),
    (0x1a, "Response Information", &[0, 1, b'x'], ""),
    (0x1c, "Server Reference", &[0, 1, b'x'], "DISCONNECT"),
    (0x1f, "Reason String", &[0, 1, b'x'], "PUBACK PUBREC PUBREL PUBCOMP DISCONNECT AUTH"),
    (0x21, "Receive Maximum", &[0, 9], "CONNECT"),
    (0x22, "Topic Alias Maximum", &[0, 9], "CONNECT"),
    (0x23, "Topic Alias", &[0, 1], "PUBLISH"),
    (0x24, "Maximum QoS", &[0], ""),
    (0x25, "Retain Available", &[0], ""),
    (0x26, "User Property", &[0, 1, b'x', 0, 1, b'y'],
        "CONNECT W PUBLISH PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE UNSUBSCRIBE DISCONNECT AUTH"),
    (0x27, "Maximum Packet Size", &[0, 0, 9, 9], "CONNECT"),
    (0x28, "Wildcard Subscription Available", &[0], ""),
    (0x29, "Subscription Identifier Available", &[0], ""),
    (0x2a, "Shared Subscription Available", &[0], ""),
];

/// The packets from a client that have properties.
const PACKETS: [&str; 11] = [
    "CONNECT",
    "W",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "DISCONNECT",
    "AUTH",
];

/// A packet that is in order but for these encoded properties, and their length.
fn packet_with(name: &str, raw: &[u8]) -> Vec<u8> {
    // A list without its length, where the length is put before it by others.
    let body = |first: u8, head: &[u8], tail: &[u8]| packet(first, &[head, raw, tail].concat());
    match name {
        "CONNECT" => body(0x10, &[&field("MQTT")[..], &[5, 2, 0, 60]].concat(), &field("c")),
        "W" => {
            let head = [&field("MQTT")[..], &[5, 0b110, 0, 60, 0], &field("c")].concat();
            body(0x10, &head, &[field("w"), field("x")].concat())
        }
        "PUBLISH" => body(0x32, &[&field("t")[..], &[0, 1]].concat(), b"x"),
        "PUBACK" => body(0x40, &[0, 1, 0], &[]),
        "PUBREC" => body(0x50, &[0, 1, 0], &[]),
        "PUBREL" => body(0x62, &[0, 1, 0], &[]),
        "PUBCOMP" => body(0x70, &[0, 1, 0], &[]),
        "SUBSCRIBE" => body(0x82, &[0, 1], &[&field("t")[..], &[0]].concat()),
        "UNSUBSCRIBE" => body(0xa2, &[0, 1], &field("t")),
        "DISCONNECT" => body(0xe0, &[0], &[]),
        "AUTH" => body(0xf0, &[0x18], &[]),
        _ => panic!("{name}"),
    }
}

/// The refusal of a packet.
fn refused(name: String, packet: &str, bytes: Vec<u8>, code: u8) -> Row {
    match packet {
        "CONNECT" | "W" => Row::not_accepted(name, V5, bytes, code),
        _ => Row::disconnected(name, V5, bytes, code),
    }
}

fn list(properties: &[u8]) -> Vec<u8> {
    crate::mqtt::properties(V5, properties)
}

fn foreign() -> Vec<Row> {
    let mut rows = Vec::new();
    for packet in PACKETS {
        for (id, name, value, allowed) in PROPERTIES {
            if allowed.split(' ').any(|other| other == packet) {
                continue;
            }
            let bytes = packet_with(packet, &list(&[&[id], value].concat()));
            // Only a server may send it, and the specification has a code for who does it nevertheless.
            let code = if (packet, id) == ("PUBLISH", 0x0b) { 0x82 } else { 0x81 };
            rows.push(refused(format!("foreign property/{name} in {packet}"), packet, bytes, code));
        }
    }
    rows
}

fn duplicates() -> Vec<Row> {
    let mut rows = Vec::new();
    for packet in PACKETS {
        for (id, name, value, allowed) in PROPERTIES {
            if id == 0x26 || !allowed.split(' ').any(|other| other == packet) {
                continue;
            }
            let one = [&[id], value].concat();
            let bytes = packet_with(packet, &list(&[&one[..], &one].concat()));
            rows.push(refused(format!("duplicate property/{name} in {packet}"), packet, bytes, 0x82));
        }
    }
    rows
}

fn broken() -> Vec<Row> {
    let mut rows = Vec::new();
    for packet in PACKETS {
        for (what, raw) in [
            ("length past the packet", &[0x7f][..]),
            ("length far past the packet", &[0xff, 0xff, 0xff, 0x7f]),
            ("length of 5 bytes", &[0xff, 0xff, 0xff, 0xff, 0x01]),
            ("length in more bytes than needed", &[0x80, 0x00]),
            ("identifier 0", &[2, 0x00, 0x00]),
            ("identifier that is not given", &[2, 0x04, 0x00]),
            ("identifier 127", &[2, 0x7f, 0x00]),
            ("identifier of two bytes", &[3, 0x80, 0x01, 0x00]),
            ("identifier in more bytes than needed", &[7, 0xa6, 0x00, 0, 1, b'x', 0, 0]),
            ("pair that is cut off", &[4, 0x26, 0, 1, b'x']),
            ("pair past the list", &[5, 0x26, 0, 0, 0xff, 0xff]),
            ("only an identifier", &[1, 0x26]),
        ] {
            let bytes = packet_with(packet, raw);
            rows.push(refused(format!("broken properties/{what} in {packet}"), packet, bytes, 0x81));
        }
        // Each property whose value ends too early.
        for (id, name, value, allowed) in PROPERTIES {
            if allowed.split(' ').any(|other| other == packet) {
                let bytes = packet_with(packet, &list(&[&[id], &value[..value.len() - 1]].concat()));
                let what = format!("broken properties/{name} in {packet} is cut off");
                rows.push(refused(what, packet, bytes, 0x81));
            }
        }
    }
    rows
}

fn values() -> Vec<Row> {
    let mut rows = Vec::new();
    for (packet, what, property, code) in [
        ("PUBLISH", "Topic Alias 0", &[0x23, 0, 0][..], 0x94),
        ("PUBLISH", "Payload Format Indicator 2", &[0x01, 2], 0x82),
        ("PUBLISH", "Response Topic with a wildcard", &[0x08, 0, 3, b'a', b'/', b'#'], 0x82),
        ("PUBLISH", "empty Response Topic", &[0x08, 0, 0], 0x82),
        ("W", "Payload Format Indicator 2", &[0x01, 2], 0x82),
        ("W", "Response Topic with a wildcard", &[0x08, 0, 1, b'+'], 0x82),
        ("SUBSCRIBE", "Subscription Identifier 0", &[0x0b, 0], 0x82),
        ("SUBSCRIBE", "Subscription Identifier of 5 bytes", &[0x0b, 0xff, 0xff, 0xff, 0xff, 1], 0x81),
        ("SUBSCRIBE", "Subscription Identifier in more bytes than needed", &[0x0b, 0x81, 0x00], 0x81),
        ("AUTH", "no Authentication Method", &[0x16, 0, 1, b'x'], 0x82),
        ("AUTH", "no Authentication Method but a Reason String", &[0x1f, 0, 1, b'x'], 0x82),
        ("DISCONNECT", "Session Expiry Interval after a CONNECT without one", &[0x11, 0, 0, 0, 1], 0x82),
    ] {
        let bytes = packet_with(packet, &list(property));
        rows.push(refused(format!("value of property/{what} in {packet}"), packet, bytes, code));
    }
    // Far more of them than anybody needs is no reason to complain.
    let pairs = [&[0x26][..], &field("k"), &field("v")].concat().repeat(10_000);
    let message = Publish { properties: pairs.clone(), ..Publish::new("t", "x").qos(1, 1) };
    rows.push(Row::answered(
        "value of property/10,000 User Properties in PUBLISH",
        V5,
        message.bytes(V5),
        &[0x40, 3, 0, 1, 0x10],
    ));
    let will = Will { topic: "w", payload: "x", properties: pairs.clone(), ..Will::default() };
    let bytes = Connect { will: Some(will), ..Connect::new(V5, "c") }.bytes();
    let ping = [bytes, vec![0xe0, 0]].concat();
    let row = Row::refused("value of property/10,000 User Properties in W", V5, ping, CONNACK);
    rows.push(row);
    // A topic of its own: others publish to `t` at the same time.
    let subscribe = with_properties(V5, 0x82, &[0, 1], &pairs, &[&field("pairs")[..], &[0]].concat());
    let name = "value of property/10,000 User Properties in SUBSCRIBE";
    rows.push(Row::answered(name, V5, subscribe, &[0x90, 4, 0, 1, 0, 0]));
    rows
}

/// CONNACK with the bounds of [`super::LIMITS`].
const CONNACK: &[u8] = &[0x20, 14, 0, 0, 11, 0x21, 0, 16, 0x27, 0, 0x10, 0, 0, 0x22, 0, 8];
