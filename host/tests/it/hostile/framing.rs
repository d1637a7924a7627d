//! Fixed headers that no packet has, and packets that end too early or too late.

use super::{Row, check, with_properties};
use crate::mqtt::{Connect, Publish, V3_1, V3_1_1, V5, VERSIONS, Will, field, packet, properties};

#[test]
fn fixed_headers() {
    // [MQTT-2.1.3-1] [MQTT-1.5.5-1] [MQTT-3.1.2-1] [MQTT-3.3.1-2] [MQTT-3.3.1-4] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
    // [MQTT-3.14.1-1] [MQTT-3.15.1-1] [MQTT-4.13.1-1]
    check(&headers());
}

#[test]
fn packets_that_are_cut_off_or_go_on() {
    // [MQTT-4.13.1-1]
    check(&lengths());
}

pub(super) fn rows() -> Vec<Row> {
    [headers(), lengths()].concat()
}

fn headers() -> Vec<Row> {
    let mut rows = Vec::new();
    for version in VERSIONS {
        rows.push(Row::disconnected("header/type 0", version, vec![0x00, 0], 0x81));
        rows.push(Row::disconnected("header/type 0, nothing behind", version, vec![0x0f], 0x81));
        for first in [0x10, 0x30, 0x82, 0xc0, 0xe0] {
            let name = format!("header/length of 5 bytes/{first:02x}");
            rows.push(Row::disconnected(name, version, vec![first, 0xff, 0xff, 0xff, 0xff, 0x01], 0x81));
        }
        let name = "header/length that goes on for ever";
        rows.push(Row::disconnected(name, version, [vec![0x30], vec![0x80; 4096]].concat(), 0x81));
        // Before 5.0 nobody demands the shortest form.
        let name = "header/length in more bytes than needed";
        let (long, answer) = (vec![0xc0, 0x80, 0x80, 0x00], [0xd0, 0]);
        rows.push(match version {
            V5 => Row::disconnected(name, version, long, 0x81),
            _ => Row::answered(name, version, long, &answer),
        });
        let too_large =
            Row::disconnected("header/larger than allowed", version, vec![0x30, 0xff, 0xff, 0xff, 0x7f], 0x95);
        rows.push(too_large);
        for flags in [0x06, 0x07, 0x0e, 0x0f] {
            let bytes = Publish::new("t", "x").qos(1, 1).bytes(version);
            let bytes = [vec![0x30 | flags], bytes[1..].to_vec()].concat();
            rows.push(Row::disconnected(format!("header/QoS 3/{flags:x}"), version, bytes, 0x81));
        }
        for flags in [0x08, 0x09] {
            let bytes = Publish::new("t", "x").bytes(version);
            let bytes = [vec![0x30 | flags], bytes[1..].to_vec()].concat();
            rows.push(Row::disconnected(format!("header/DUP with QoS 0/{flags:x}"), version, bytes, 0x81));
        }
    }
    for version in [V3_1_1, V5] {
        for (name, bytes) in samples(version) {
            let right = bytes[0] & 0x0f;
            if bytes[0] >> 4 == 3 {
                continue;
            }
            for flags in (0..16).filter(|flags| *flags != right) {
                let bytes = [vec![bytes[0] & 0xf0 | flags], bytes[1..].to_vec()].concat();
                let name = format!("header/flags {flags:04b} of {name}");
                rows.push(match bytes[0] >> 4 {
                    1 => Row::not_accepted(name, version, bytes, 0x81),
                    _ => Row::disconnected(name, version, bytes, 0x81),
                });
            }
        }
    }
    rows
}

/// One of each packet that a client sends, with everything in it that it can have.
fn samples(version: u8) -> Vec<(&'static str, Vec<u8>)> {
    let will = Will { topic: "will/t", payload: "gone", qos: 1, retain: false, properties: vec![0x01, 1] };
    let connect = Connect {
        username: Some("user"),
        password: Some("secret"),
        will: Some(will),
        properties: [vec![0x21, 0, 9, 0x26], field("k"), field("v")].concat(),
        ..Connect::new(version, "cut")
    };
    let reason = [vec![0x1f], field("why")].concat();
    let user = [vec![0x26], field("k"), field("v")].concat();
    let ack = |first: u8| match version {
        V5 => with_properties(version, first, &[0, 7, 0x00], &reason, &[]),
        _ => packet(first, &[0, 7]),
    };
    let one = [&field("a/b")[..], &[1]].concat();
    let two = [&one[..], &field("c"), &[2]].concat();
    let mut samples = vec![
        ("CONNECT", connect.bytes()),
        ("PUBLISH", Publish { properties: user.clone(), ..Publish::new("t/u", "xyz").qos(1, 7) }.bytes(version)),
        ("PUBACK", ack(0x40)),
        ("PUBREC", ack(0x50)),
        ("PUBREL", ack(0x62)),
        ("PUBCOMP", ack(0x70)),
        ("SUBSCRIBE", with_properties(version, 0x82, &[0, 7], &[vec![0x0b, 5], user.clone()].concat(), &two)),
        ("UNSUBSCRIBE", with_properties(version, 0xa2, &[0, 7], &user, &[field("a/b"), field("c")].concat())),
        ("PINGREQ", vec![0xc0, 0]),
        (
            "DISCONNECT",
            match version {
                V5 => with_properties(version, 0xe0, &[0x00], &reason, &[]),
                _ => vec![0xe0, 0],
            },
        ),
    ];
    if version == V5 {
        let method = [&[0x15][..], &field("m"), &[0x16], &field("data")].concat();
        samples.push(("AUTH", with_properties(version, 0xf0, &[0x18], &method, &[])));
    }
    samples
}

/// The answer to an acknowledgement, with identifier 7, of something that was never sent.
fn unknown_ack(first: u8, version: u8) -> &'static [u8] {
    match (first, version) {
        (0x50, V5) => &[0x62, 3, 0, 7, 0x92],
        (0x50, _) => &[0x62, 2, 0, 7],
        (0x62, V5) => &[0x70, 3, 0, 7, 0x92],
        (0x62, _) => &[0x70, 2, 0, 7],
        _ => &[],
    }
}

fn lengths() -> Vec<Row> {
    let mut rows = Vec::new();
    for version in VERSIONS {
        for (name, bytes) in samples(version) {
            // The peer leaves inside the packet: there is nothing to say to it, and nothing happens.
            for cut in 1..bytes.len() {
                let name = format!("end of stream/{name} after {cut}");
                let bytes = bytes[..cut].to_vec();
                let row = match bytes[0] {
                    0x10 => Row::refused(name, version, bytes, &[]),
                    _ => Row::hung_up(name, version, bytes),
                };
                rows.push(Row { finishes: true, ..row });
            }
            // The packet says itself that it is so short.
            for cut in 0..bytes.len() - 2 {
                let body = &bytes[2..2 + cut];
                rows.push(cut_row(name, version, cut, packet(bytes[0], body), bytes.len() - 2));
            }
            if !matches!(name, "PUBLISH") {
                let body = [&bytes[2..], &[0]].concat();
                rows.push(longer_row(name, version, packet(bytes[0], &body)));
            }
        }
    }
    rows
}

fn longer_row(packet: &str, version: u8, bytes: Vec<u8>) -> Row {
    let name = format!("longer/{packet}");
    match packet {
        "CONNECT" => Row::not_accepted(name, version, bytes, 0x81),
        _ => Row::disconnected(name, version, bytes, 0x81),
    }
}

fn cut_row(packet: &str, version: u8, cut: usize, bytes: Vec<u8>, whole: usize) -> Row {
    let name = format!("shorter/{packet} of {cut}");
    let first = bytes[0];
    let has_properties = version == V5;
    match (packet, cut) {
        // What is not even a name and a version gets no answer.
        ("CONNECT", 0..7) => Row::refused(name, version, bytes, &[]),
        ("CONNECT", _) if version == V3_1 && [whole - 14, whole - 8].contains(&cut) => {
            // In MQTT 3.1 User Name and Password may be missing although they are announced.
            Row { end: super::End::Serves, ..Row::refused(name, version, bytes, &[0x20, 2, 0, 0]) }
        }
        ("CONNECT", _) => Row::not_accepted(name, version, bytes, 0x81),
        // Only the payload is shorter.
        ("PUBLISH", _) if cut >= whole - 3 => {
            let answer: &[u8] = if has_properties { &[0x40, 3, 0, 7, 0x10] } else { &[0x40, 2, 0, 7] };
            Row::answered(name, version, bytes, answer)
        }
        ("PUBACK" | "PUBREC" | "PUBREL" | "PUBCOMP", 2..4) => {
            Row::answered(name, version, bytes, unknown_ack(first, version))
        }
        ("SUBSCRIBE" | "UNSUBSCRIBE", _) if cut == 2 + after_id_of(packet, has_properties) => {
            Row::disconnected(name, version, bytes, 0x82)
        }
        ("SUBSCRIBE", _) if cut == whole - 4 => {
            let answer: &[u8] = if has_properties { &[0x90, 4, 0, 7, 0, 1] } else { &[0x90, 3, 0, 7, 1] };
            Row::answered(name, version, bytes, answer)
        }
        ("UNSUBSCRIBE", _) if cut == whole - 3 => {
            let answer: &[u8] = if has_properties { &[0xb0, 4, 0, 7, 0, 0x11] } else { &[0xb0, 2, 0, 7] };
            Row::answered(name, version, bytes, answer)
        }
        ("DISCONNECT", 0..2) => Row::hung_up(name, version, bytes),
        // AUTH without an Authentication Method, from a client that named none in CONNECT.
        ("AUTH", 0) => Row::disconnected(name, version, bytes, 0x82),
        _ => Row::disconnected(name, version, bytes, 0x81),
    }
}

/// The bytes of the properties behind a Packet Identifier, with their length.
fn after_id_of(packet: &str, has_properties: bool) -> usize {
    match packet {
        _ if !has_properties => 0,
        "SUBSCRIBE" => properties(V5, &[0; 9]).len(),
        _ => properties(V5, &[0; 7]).len(),
    }
}
