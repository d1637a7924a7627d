//! PUBLISH, SUBSCRIBE, UNSUBSCRIBE and acknowledgements that are well-formed, and nevertheless not allowed.

use super::{Row, check, with_properties};
use crate::mqtt::{Publish, V3_1, V5, VERSIONS, field, packet};

#[test]
fn publishes_that_are_not_allowed() {
    // [MQTT-2.2.1-3] [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-3.3.2-9] [MQTT-3.3.4-8]
    check(&publishes());
}

#[test]
fn subscribes_that_are_not_allowed() {
    // [MQTT-3.8.3-2] [MQTT-3.8.3-3] [MQTT-3.8.3-4] [MQTT-3.8.3-5] [MQTT-3.8.4-6] [MQTT-3.10.3-2] [MQTT-4.7.1-1]
    // [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    check(&subscribes());
}

#[test]
fn acknowledgements_of_nothing() {
    // [MQTT-2.2.1-5] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1] [MQTT-3.14.2-1]
    check(&acknowledgements());
}

#[test]
fn packets_as_large_as_they_may_be_and_larger() {
    // [MQTT-3.8.4-6] [MQTT-3.10.4-6]
    check(&large());
}

pub(super) fn rows() -> Vec<Row> {
    [publishes(), subscribes(), acknowledgements(), large()].concat()
}

/// The answer to a QoS 1 PUBLISH with identifier 1 that nobody has subscribed to.
fn puback(version: u8) -> &'static [u8] {
    if version == V5 { &[0x40, 3, 0, 1, 0x10] } else { &[0x40, 2, 0, 1] }
}

fn publishes() -> Vec<Row> {
    let mut rows = Vec::new();
    for version in VERSIONS {
        for qos in [1, 2] {
            let bytes = Publish::new("t", "x").qos(qos, 0).bytes(version);
            rows.push(Row::disconnected(format!("PUBLISH/identifier 0 with QoS {qos}"), version, bytes, 0x82));
        }
        for topic in ["#", "+", "a/#", "a/+/b", "a+", "#a", "$SYS/#", "$share/g/#"] {
            for qos in [0, 1, 2] {
                let bytes = Publish::new(topic, "x").qos(qos, 1).bytes(version);
                rows.push(Row::disconnected(format!("PUBLISH/to {topic} with QoS {qos}"), version, bytes, 0x90));
            }
        }
        let code = if version == V5 { 0x82 } else { 0x90 };
        rows.push(Row::disconnected("PUBLISH/no topic", version, Publish::new("", "x").bytes(version), code));
        let levels = "/".repeat(65_534);
        // No way to say so before 5.0: it is dropped.
        let answer: &[u8] = if version == V5 { &[0x40, 3, 0, 1, 0x90] } else { &[0x40, 2, 0, 1] };
        let bytes = Publish::new(&levels, "x").qos(1, 1).bytes(version);
        rows.push(Row::answered("PUBLISH/65,535 levels", version, bytes, answer));
        let bytes = Publish::new(&levels, "x").bytes(version);
        rows.push(Row::answered("PUBLISH/65,535 levels with QoS 0", version, bytes, &[]));
        let bytes = Publish::new("x".repeat(65_535), "x").qos(1, 1).bytes(version);
        rows.push(Row::answered("PUBLISH/topic of 65,535 bytes", version, bytes, puback(version)));
    }
    let alias = |topic: &str, alias: u16| {
        let [high, low] = alias.to_be_bytes();
        Publish { properties: vec![0x23, high, low], ..Publish::new(topic, "x") }.bytes(V5)
    };
    for (what, bytes, code) in [
        ("Topic Alias 0", alias("t", 0), 0x94),
        ("Topic Alias above the maximum", alias("t", 9), 0x94),
        ("Topic Alias 65535", alias("", 65_535), 0x94),
        ("Topic Alias that stands for nothing", alias("", 8), 0x82),
        ("Topic Alias of another", [alias("t", 1), alias("", 2)].concat(), 0x82),
    ] {
        rows.push(Row::disconnected(format!("PUBLISH/{what}"), V5, bytes, code));
    }
    let rec = |id: u16| [&[0x50, 2], &id.to_be_bytes()[..]].concat();
    let publish = |id: u16| Publish::new("t", "x").qos(2, id).bytes(V5);
    let sixteen: Vec<u8> = (1..=16).flat_map(publish).collect();
    let answered: Vec<u8> = (1..=16).flat_map(rec).collect();
    rows.push(Row::answered("PUBLISH/as many as Receive Maximum", V5, sixteen.clone(), &answered));
    let too_many = Row::disconnected("PUBLISH/more than Receive Maximum", V5, [sixteen, publish(17)].concat(), 0x93);
    rows.push(Row { answer: [answered, too_many.answer.clone()].concat(), ..too_many });
    rows
}

fn subscribe(version: u8, filters: &[(&[u8], u8)]) -> Vec<u8> {
    let tail: Vec<u8> = filters.iter().flat_map(|(filter, options)| [field(filter), vec![*options]].concat()).collect();
    with_properties(version, 0x82, &[0, 1], &[], &tail)
}

/// SUBACK with identifier 1.
fn suback(version: u8, code: u8) -> Vec<u8> {
    if version == V5 { vec![0x90, 4, 0, 1, 0, code] } else { vec![0x90, 3, 0, 1, code] }
}

fn subscribes() -> Vec<Row> {
    let mut rows = Vec::new();
    for version in VERSIONS {
        let none = |first| with_properties(version, first, &[0, 1], &[], &[]);
        rows.push(Row::disconnected("SUBSCRIBE/to nothing", version, none(0x82), 0x82));
        rows.push(Row::disconnected("UNSUBSCRIBE/from nothing", version, none(0xa2), 0x82));
        let zero = |first, tail: &[u8]| with_properties(version, first, &[0, 0], &[], tail);
        let bytes = zero(0x82, &[&field("t")[..], &[0]].concat());
        rows.push(Row::disconnected("SUBSCRIBE/identifier 0", version, bytes, 0x82));
        rows.push(Row::disconnected("UNSUBSCRIBE/identifier 0", version, zero(0xa2, &field("t")), 0x82));
        rows.push(Row::disconnected("SUBSCRIBE/QoS 3", version, subscribe(version, &[(b"t", 3)]), 0x82));
        // MQTT 3.1 cannot say so: it is told of a QoS, and gets nothing.
        let failure = match version {
            V5 => 0x8f,
            V3_1 => 0x00,
            _ => 0x80,
        };
        let deep = b"/".repeat(65_534);
        for (what, filter) in [
            ("# not at the end", &b"a/#/b"[..]),
            ("# behind text", b"a#"),
            ("+ behind text", b"a/b+"),
            ("+ before text", b"+a"),
            ("empty", b""),
            ("share without a name", b"$share//t"),
            ("share without a filter", b"$share/g/"),
            ("share without anything", b"$share/g"),
            ("share with a wildcard in its name", b"$share/g+/t"),
            ("share with # as its name", b"$share/#/t"),
            ("65,535 levels", &deep),
        ] {
            let bytes = subscribe(version, &[(filter, 0)]);
            rows.push(Row::answered(format!("SUBSCRIBE/{what}"), version, bytes, &suback(version, failure)));
        }
    }
    for options in [0x40, 0x80, 0xc0, 0x41] {
        let name = format!("SUBSCRIBE/reserved options {options:02x}");
        rows.push(Row::disconnected(name, V5, subscribe(V5, &[(b"t", options)]), 0x81));
    }
    for options in [0x04, 0x08, 0x10, 0x80, 0xfc] {
        let name = format!("SUBSCRIBE/reserved options {options:02x}");
        rows.push(Row::disconnected(name, 4, subscribe(4, &[(b"t", options)]), 0x81));
    }
    for options in [0x30, 0x31, 0x3c] {
        let name = format!("SUBSCRIBE/Retain Handling 3 in {options:02x}");
        rows.push(Row::disconnected(name, V5, subscribe(V5, &[(b"t", options)]), 0x82));
    }
    let no_local = subscribe(V5, &[(b"a", 0), (b"$share/g/t", 4)]);
    rows.push(Row::disconnected("SUBSCRIBE/No Local for a share", V5, no_local, 0x82));
    // What stands before it has not been subscribed to: there is no SUBACK.
    let bytes = subscribe(V5, &[(b"a", 0), (b"t", 0xc0)]);
    rows.push(Row::disconnected("SUBSCRIBE/reserved options in the second", V5, bytes, 0x81));
    rows
}

fn acknowledgements() -> Vec<Row> {
    let mut rows = Vec::new();
    let names = [(0x40, "PUBACK"), (0x50, "PUBREC"), (0x62, "PUBREL"), (0x70, "PUBCOMP")];
    for version in VERSIONS {
        for (first, name) in names {
            let zero = packet(first, &[0, 0]);
            rows.push(Row::disconnected(format!("{name}/identifier 0"), version, zero, 0x82));
            let answer: &[u8] = match (first, version) {
                (0x50, V5) => &[0x62, 3, 0, 9, 0x92],
                (0x50, _) => &[0x62, 2, 0, 9],
                (0x62, V5) => &[0x70, 3, 0, 9, 0x92],
                (0x62, _) => &[0x70, 2, 0, 9],
                _ => &[],
            };
            let unknown = packet(first, &[0, 9]);
            rows.push(Row::answered(format!("{name}/of nothing"), version, unknown, answer));
        }
    }
    // Reason Codes of other packets, and such as are none.
    for (first, name) in names {
        for code in [0x01, 0x04, 0x18, 0x81, 0x8c, 0xff] {
            let name = format!("{name}/Reason Code {code:02x}");
            rows.push(Row::disconnected(name, V5, packet(first, &[0, 1, code]), 0x82));
        }
    }
    for code in [0x01, 0x02, 0x18, 0x84, 0xff] {
        let row = Row::disconnected(format!("DISCONNECT/Reason Code {code:02x}"), V5, vec![0xe0, 1, code], 0x82);
        rows.push(row);
    }
    for code in [0x01, 0x17, 0x80, 0xff] {
        let auth = with_properties(V5, 0xf0, &[code], &[&[0x15][..], &field("m")].concat(), &[]);
        rows.push(Row::disconnected(format!("AUTH/Reason Code {code:02x}"), V5, auth, 0x82));
    }
    rows
}

fn large() -> Vec<Row> {
    let mut rows = Vec::new();
    for version in VERSIONS {
        let names: Vec<String> = (0..10_001).map(|number| format!("f/{number}")).collect();
        let filters: Vec<(&[u8], u8)> = names.iter().map(|name| (name.as_bytes(), 1)).collect();
        let granted = with_properties(version, 0x90, &[0, 1], &[], &[1; 10_000]);
        let bytes = subscribe(version, &filters[..10_000]);
        rows.push(Row::answered("SUBSCRIBE/10,000 filters", version, bytes.clone(), &granted));
        rows.push(Row::disconnected("SUBSCRIBE/10,001 filters", version, subscribe(version, &filters), 0x97));
        let tail: Vec<u8> = names.iter().flat_map(field).collect();
        let too_many = with_properties(version, 0xa2, &[0, 1], &[], &tail);
        rows.push(Row::disconnected("UNSUBSCRIBE/10,001 filters", version, too_many, 0x97));
        let all = with_properties(version, 0xa2, &[0, 1], &[], &tail[..tail.len() - field("f/10000").len()]);
        let gone = if version == V5 {
            with_properties(version, 0xb0, &[0, 1], &[], &[0; 10_000])
        } else {
            vec![0xb0, 2, 0, 1]
        };
        let answer = [granted, gone].concat();
        rows.push(Row::answered("UNSUBSCRIBE/10,000 filters", version, [bytes, all].concat(), &answer));
        let deep: Vec<Vec<u8>> =
            (0..1025).map(|number| format!("d{number}{}", "/+".repeat(127)).into_bytes()).collect();
        let filters: Vec<(&[u8], u8)> = deep.iter().map(|filter| (filter.as_slice(), 1)).collect();
        let granted = with_properties(version, 0x90, &[0, 1], &[], &[1; 1024]);
        rows.push(Row::answered("SUBSCRIBE/131,072 levels", version, subscribe(version, &filters[..1024]), &granted));
        rows.push(Row::disconnected("SUBSCRIBE/131,200 levels", version, subscribe(version, &filters), 0x97));
        // To the byte: 1 MiB, header included.
        let head = Publish::new("t", "").qos(1, 1).bytes(version).len() + 2;
        let fits = Publish::new("t", vec![0; (1 << 20) - head]).qos(1, 1).bytes(version);
        assert_eq!(fits.len(), 1 << 20);
        rows.push(Row::answered("PUBLISH/as large as allowed", version, fits, puback(version)));
        // Nothing but its length has come.
        let declared = vec![0x32, 0xfd, 0xff, 0x3f];
        rows.push(Row::disconnected("PUBLISH/a byte larger than allowed", version, declared, 0x95));
    }
    rows
}
