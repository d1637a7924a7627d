//! CONNECT packets that cannot be accepted.

use super::{Row, check};
use crate::mqtt::{Connect, V3_1, V3_1_1, V5, VERSIONS, Will, field, packet, properties};

#[test]
fn connects_that_cannot_be_accepted() {
    // [MQTT-3.1.2-1] [MQTT-3.1.2-2] [MQTT-3.1.2-3] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13] [MQTT-3.1.4-1]
    // [MQTT-3.1.4-2] [MQTT-3.2.2-7] [MQTT-4.12.0-1]
    check(&rows());
}

/// A CONNECT with any name, level and flags, and with a payload of our choice.
fn raw(name: impl AsRef<[u8]>, level: u8, flags: u8, list: Option<&[u8]>, payload: &[Vec<u8>]) -> Vec<u8> {
    let list = list.map_or_else(Vec::new, |list| properties(V5, list));
    packet(0x10, &[field(name), vec![level, flags, 0, 60], list, payload.concat()].concat())
}

pub(super) fn rows() -> Vec<Row> {
    [names_and_levels(), flags(), values()].concat()
}

fn names_and_levels() -> Vec<Row> {
    let mut rows = Vec::new();
    let id = [field("c")];
    for name in ["", "M", "MQTTX", "mqtt", "MQIsd", "MQISDP", "HTTP", "MQ\u{0}T"] {
        for level in [3, 4, 5] {
            let list = (level == 5).then_some(&[][..]);
            rows.push(Row::refused(format!("protocol name/{name:?}"), level, raw(name, level, 2, list, &id), &[]));
        }
    }
    // As if it were UTF-16, or very long.
    rows.push(Row::refused("protocol name/wide", V5, raw("M\0Q\0T\0T\0", 5, 2, Some(&[]), &id), &[]));
    rows.push(Row::refused("protocol name/64 KiB", V5, raw(vec![b'M'; 65_535], 5, 2, Some(&[]), &id), &[]));
    // A later version understands what 5.0 says, an earlier one does not.
    let (later, earlier) = ([0x20, 3, 0, 0x84, 0], [0x20, 2, 0, 1]);
    for (name, level, answer) in [
        ("MQTT", 0, &earlier[..]),
        ("MQTT", 3, &earlier),
        ("MQTT", 6, &later),
        ("MQTT", 127, &later),
        ("MQTT", 0x84, &earlier),
        ("MQTT", 255, &earlier),
        ("MQIsdp", 0, &earlier),
        ("MQIsdp", 4, &earlier),
        ("MQIsdp", 5, &earlier),
    ] {
        let bytes = raw(name, level, 2, None, &id);
        rows.push(Row::refused(format!("protocol level/{name} {level}"), V5, bytes, answer));
    }
    rows
}

fn flags() -> Vec<Row> {
    let mut rows = Vec::new();
    let names = [(V3_1, "MQIsdp"), (V3_1_1, "MQTT"), (V5, "MQTT")];
    for (version, name) in names {
        let list = (version == V5).then_some(&[][..]);
        // Will Properties, Topic and Payload.
        let will = [if version == V5 { vec![0] } else { vec![] }, field("w"), field("x")].concat();
        let with_will = [field("c"), will];
        for (what, flags, payload) in [
            ("Will QoS 3", 0b0001_1110, &with_will[..]),
            ("Will QoS 3 and Will Retain", 0b0011_1110, &with_will),
            ("Will Flag without a will", 0b0000_0110, &with_will[..1]),
            ("User Name flag without a User Name", 0b1000_0010, &with_will[..1]),
        ] {
            // MQTT 3.1: the packet's length says whether there is a User Name.
            if version == V3_1 && what.starts_with("User") {
                continue;
            }
            let bytes = raw(name, version, flags, list, payload);
            rows.push(Row::not_accepted(format!("flags/{what}"), version, bytes, 0x81));
        }
        if version != V3_1 {
            for (what, flags) in [
                ("reserved", 0b0000_0011),
                ("reserved and nothing else", 0b0000_0001),
                ("Will Retain without a will", 0b0010_0010),
                ("Will QoS 1 without a will", 0b0000_1010),
                ("Will QoS 2 without a will", 0b0001_0010),
            ] {
                let bytes = raw(name, version, flags, list, &[field("c")]);
                rows.push(Row::not_accepted(format!("flags/{what}"), version, bytes, 0x81));
            }
        }
        if version != V5 {
            let bytes = raw(name, version, 0b0100_0010, list, &[field("c"), field("secret")]);
            rows.push(Row::refused("flags/Password without a User Name", version, bytes, &[]));
        }
    }
    rows
}

fn values() -> Vec<Row> {
    let mut rows = Vec::new();
    let v5 = |list: &[u8]| Connect { properties: list.to_vec(), ..Connect::new(V5, "c") }.bytes();
    for (name, list, code) in [
        ("Receive Maximum 0", &[0x21, 0, 0][..], 0x82),
        ("Maximum Packet Size 0", &[0x27, 0, 0, 0, 0], 0x82),
        ("Request Problem Information 2", &[0x17, 2], 0x82),
        ("Request Response Information 2", &[0x19, 2], 0x82),
        ("Authentication Data without a method", &[0x16, 0, 1, b'x'], 0x82),
        ("Authentication Method that nobody knows", &[0x15, 0, 1, b'x'], 0x8c),
    ] {
        rows.push(Row::not_accepted(format!("CONNECT/{name}"), V5, v5(list), code));
    }
    let identifier_rejected = [0x20, 2, 0, 2];
    let empty = |version, clean| Connect { clean, ..Connect::new(version, "") }.bytes();
    rows.push(Row::refused("CONNECT/empty Client Identifier", V3_1, empty(V3_1, true), &identifier_rejected));
    let name = "CONNECT/empty Client Identifier, to be kept";
    rows.push(Row::refused(name, V3_1_1, empty(V3_1_1, false), &identifier_rejected));
    for version in VERSIONS {
        let name = "CONNECT/Client Identifier of 64 KiB";
        let bytes = Connect::new(version, "x".repeat(65_535)).bytes();
        rows.push(match version {
            V5 => Row::not_accepted(name, version, bytes, 0x85),
            _ => Row::refused(name, version, bytes, &identifier_rejected),
        });
        // On its declared length: nothing of it has come.
        let too_large = Row::refused("CONNECT/larger than allowed", version, vec![0x10, 0x80, 0x80, 0x40], &[]);
        rows.push(too_large);
        // As soon as it says its version, it can be told.
        let start = &Connect::new(version, "c").bytes()[2..];
        let bytes = [&[0x10, 0x80, 0x80, 0x40][..], start].concat();
        rows.push(Row::not_accepted("CONNECT/larger than allowed, begun", version, bytes, 0x95));
        let will = |topic| Some(Will { topic, payload: "x", ..Will::default() });
        for topic in ["#", "a/+", ""] {
            let name = format!("CONNECT/Will Topic {topic:?}");
            let bytes = Connect { will: will(topic), ..Connect::new(version, "c") }.bytes();
            rows.push(Row::not_accepted(name, version, bytes, 0x90));
        }
    }
    rows
}
