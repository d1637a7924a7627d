//! Strings that are none, in every field that is a string, and names that are none.

use super::{Row, check, with_properties};
use crate::mqtt::{V3_1, V5, VERSIONS, field, packet, properties};

#[test]
fn strings_that_are_not_utf_8() {
    // [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.7-1] [MQTT-3.1.3-11] [MQTT-3.1.3-4] [MQTT-3.3.2-1] [MQTT-3.3.2-13]
    // [MQTT-3.3.2-19] [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.7.3-2]
    check(&not_utf8());
}

#[test]
fn any_bytes_where_any_are_allowed() {
    // [MQTT-1.5.4-3]
    check(&binary());
}

pub(super) fn rows() -> Vec<Row> {
    [not_utf8(), binary()].concat()
}

const BAD: [(&str, &[u8]); 12] = [
    ("low surrogate", &[0xed, 0xa0, 0x80]),
    ("high surrogate", &[0xed, 0xbf, 0xbf]),
    ("pair of surrogates", &[0xed, 0xa0, 0xbd, 0xed, 0xb8, 0x80]),
    ("overlong of 2 bytes", &[b'a', 0xc0, 0xaf]),
    ("overlong of 3 bytes", &[0xe0, 0x80, 0xaf]),
    ("overlong of 4 bytes", &[0xf0, 0x80, 0x80, 0xaf]),
    ("overlong U+0000", &[0xc0, 0x80]),
    ("above U+10FFFF", &[0xf4, 0x90, 0x80, 0x80]),
    ("cut off", &[b'a', 0xe2, 0x82]),
    ("continuation alone", &[0x80, b'a']),
    ("no such byte", &[b'a', 0xff, b'b']),
    ("U+0000", b"a\0b"),
];

/// A packet with these bytes in one of its string fields. `None`: this version has no such field.
fn with(what: &str, version: u8, bytes: &[u8]) -> Option<Vec<u8>> {
    let name = if version == V3_1 { "MQIsdp" } else { "MQTT" };
    let none = properties(version, &[]);
    let connect = |flags: u8, payload: &[Vec<u8>]| {
        let head = [field(name), vec![version, flags, 0, 60], none.clone()].concat();
        packet(0x10, &[head, payload.concat()].concat())
    };
    let bad = field(bytes);
    let property = |id: u8| (version == V5).then(|| [&[id], &bad[..]].concat());
    let publish = |list: &[u8]| with_properties(version, 0x32, &[&field("t")[..], &[0, 1]].concat(), list, b"x");
    Some(match what {
        "Client Identifier" => connect(0b0000_0010, &[bad]),
        "Will Topic" => connect(0b0000_0110, &[field("c"), none.clone(), bad, field("x")]),
        "User Name" => connect(0b1000_0010, &[field("c"), bad]),
        "Topic Name" => with_properties(version, 0x32, &[&bad[..], &[0, 1]].concat(), &[], b"x"),
        "Topic Filter" => with_properties(version, 0x82, &[0, 1], &[], &[&bad[..], &[0]].concat()),
        "second Topic Filter" => {
            let filters = [&field("good")[..], &[0], &bad, &[0]].concat();
            with_properties(version, 0x82, &[0, 1], &[], &filters)
        }
        "Topic Filter of UNSUBSCRIBE" => with_properties(version, 0xa2, &[0, 1], &[], &bad),
        "Authentication Method" => {
            let list = property(0x15)?;
            let head = [field(name), vec![version, 2, 0, 60], properties(version, &list)].concat();
            packet(0x10, &[head, field("c")].concat())
        }
        "Content Type" => publish(&property(0x03)?),
        "Response Topic" => publish(&property(0x08)?),
        "Content Type of the will" => {
            let list = properties(version, &property(0x03)?);
            connect(0b0000_0110, &[field("c"), list, field("w"), field("x")])
        }
        "name of a User Property" => publish(&[property(0x26)?, field("v")].concat()),
        "value of a User Property" => publish(&[(version == V5).then_some(vec![0x26])?, field("k"), bad].concat()),
        "Reason String" => with_properties(version, 0x40, &[0, 1, 0], &property(0x1f)?, &[]),
        "Reason String of DISCONNECT" => with_properties(version, 0xe0, &[0], &property(0x1f)?, &[]),
        "Authentication Method of AUTH" => with_properties(version, 0xf0, &[0x18], &property(0x15)?, &[]),
        _ => panic!("{what}"),
    })
}

const FIELDS: [&str; 16] = [
    "Client Identifier",
    "Will Topic",
    "User Name",
    "Topic Name",
    "Topic Filter",
    "second Topic Filter",
    "Topic Filter of UNSUBSCRIBE",
    "Authentication Method",
    "Content Type",
    "Response Topic",
    "Content Type of the will",
    "name of a User Property",
    "value of a User Property",
    "Reason String",
    "Reason String of DISCONNECT",
    "Authentication Method of AUTH",
];

fn not_utf8() -> Vec<Row> {
    let mut rows = Vec::new();
    for version in VERSIONS {
        for what in FIELDS {
            for (bad, bytes) in BAD {
                let Some(bytes) = with(what, version, bytes) else { continue };
                let name = format!("string/{bad} in {what}");
                rows.push(match bytes[0] {
                    0x10 => Row::not_accepted(name, version, bytes, 0x81),
                    _ => Row::disconnected(name, version, bytes, 0x81),
                });
            }
        }
    }
    rows
}

fn binary() -> Vec<Row> {
    let mut rows = Vec::new();
    for version in VERSIONS {
        let puback: &[u8] = if version == V5 { &[0x40, 3, 0, 1, 0x10] } else { &[0x40, 2, 0, 1] };
        for (bad, bytes) in BAD {
            let message = with_properties(version, 0x32, &[&field("t")[..], &[0, 1]].concat(), &[], bytes);
            rows.push(Row::answered(format!("payload/{bad}"), version, message, puback));
            if version == V5 {
                let list = [&[0x09][..], &field(bytes)].concat();
                let message = with_properties(version, 0x32, &[&field("t")[..], &[0, 1]].concat(), &list, b"x");
                rows.push(Row::answered(format!("Correlation Data/{bad}"), version, message, puback));
            }
        }
        // Control characters, non-characters and a byte order mark are allowed.
        for (what, text) in [("BOM", "\u{feff}t"), ("control", "\u{1}\u{7f}"), ("non-character", "\u{ffff}\u{fdd0}")] {
            let message = with("Topic Name", version, text.as_bytes()).expect("each version has it");
            rows.push(Row::answered(format!("unusual Topic Name/{what}"), version, message, puback));
        }
    }
    rows
}
