//! Rules of the specification that hold for many packets, as tables: every flag, every string, every Reason Code, every
//! property, every Connect Flag.

use plugin_api::ReasonCode;

use super::*;

/// The Reason Code with which a packet is refused; `None` if it is accepted.
fn refusal(sender: Sender, version: ProtocolVersion, text: &str) -> Option<u8> {
    decode_one(sender, version, &packet(text)).err().map(|error| error.reason_code().0)
}

/// [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]
#[test]
fn reserved_flags() {
    let rows = [
        (Sender::Client, 0x10, "<MQTT> 05 02 0000 {} <me>", 0),
        (Sender::Client, 0x40, "0001", 0),
        (Sender::Client, 0x50, "0001", 0),
        (Sender::Client, 0x60, "0001", 2),
        (Sender::Client, 0x70, "0001", 0),
        (Sender::Client, 0x80, "0001 {} <a> 00", 2),
        (Sender::Client, 0xA0, "0001 {} <a>", 2),
        (Sender::Client, 0xC0, "", 0),
        (Sender::Client, 0xE0, "00", 0),
        (Sender::Client, 0xF0, "18 {15 <m>}", 0),
        (Sender::Server, 0x20, "00 00 {}", 0),
        (Sender::Server, 0x40, "0001", 0),
        (Sender::Server, 0x50, "0001", 0),
        (Sender::Server, 0x60, "0001", 2),
        (Sender::Server, 0x70, "0001", 0),
        (Sender::Server, 0x90, "0001 {} 00", 0),
        (Sender::Server, 0xB0, "0001 {} 00", 0),
        (Sender::Server, 0xD0, "", 0),
        (Sender::Server, 0xE0, "00", 0),
        (Sender::Server, 0xF0, "18 {15 <m>}", 0),
    ];
    for (sender, first, body, expected) in rows {
        for flags in 0..16 {
            let text = format!("{:02X}: {body}", first | flags);
            let code = if flags == expected { None } else { Some(0x81) };
            assert_eq!(refusal(sender, V5, &text), code, "{text}");
        }
    }
}

/// Strings as bytes behind their length: not well-formed, surrogates, too long a form, beyond Unicode, and U+0000.
const BAD_STRINGS: [&str; 9] = [
    "0001 FF",
    "0002 C328",
    "0003 EDA080",
    "0003 EDBFBF",
    "0002 C080",
    "0004 F4908080",
    "0002 61C3",
    "0001 00",
    "0003 610061",
];

/// Strings that are unusual and good, a byte order mark among them.
const GOOD_STRINGS: [&str; 4] = ["0003 EFBBBF", "0004 F09F9880", "0003 EFBFBF", "0001 01"];

/// [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.4-3] [MQTT-1.5.7-1] [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12]
/// [MQTT-3.3.2-1] [MQTT-3.3.2-13] [MQTT-3.3.2-19] [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.7.3-2] Each string of each packet,
/// where `@` stands.
#[test]
fn strings() {
    let mut rows: Vec<(ProtocolVersion, String)> = Vec::new();
    for text in [
        "10: <MQTT> 05 02 0000 {} @",
        "10: <MQTT> 05 82 0000 {} <me> @",
        "10: <MQTT> 05 06 0000 {} <me> {} @ <p>",
        "10: <MQTT> 05 02 0000 {15 @} <me>",
        "10: <MQTT> 05 06 0000 {} <me> {03 @} <w> <p>",
        "10: <MQTT> 05 06 0000 {} <me> {08 @} <w> <p>",
        "30: @ {}",
        "30: <a> {03 @}",
        "30: <a> {08 @}",
        "40: 0001 00 {1F @}",
        "50: 0001 00 {1F @}",
        "62: 0001 00 {1F @}",
        "70: 0001 00 {1F @}",
        "82: 0001 {} @ 00",
        "82: 0001 {} <a> 00 @ 00",
        "A2: 0001 {} @",
        "A2: 0001 {} <a> @",
        "E0: 00 {1F @}",
        "E0: 00 {1C @}",
        "F0: 18 {15 @}",
        "F0: 18 {15 <m> 1F @}",
    ] {
        rows.push((V5, text.into()));
    }
    for (before, after) in [
        ("10: <MQTT> 05 02 0000 {", "} <me>"),
        ("10: <MQTT> 05 06 0000 {} <me> {", "} <w> <p>"),
        ("30: <a> {", "}"),
        ("40: 0001 00 {", "}"),
        ("50: 0001 00 {", "}"),
        ("62: 0001 00 {", "}"),
        ("70: 0001 00 {", "}"),
        ("82: 0001 {", "} <a> 00"),
        ("A2: 0001 {", "} <a>"),
        ("E0: 00 {", "}"),
        ("F0: 18 {15 <m> ", "}"),
    ] {
        rows.push((V5, format!("{before}26 @ <v>{after}")));
        rows.push((V5, format!("{before}26 <k> @{after}")));
    }
    for (version, name) in [(V3_1, "MQIsdp"), (V3_1_1, "MQTT")] {
        for rest in ["02 0000 @", "82 0000 <me> @", "06 0000 <me> @ <p>"] {
            rows.push((version, format!("10: <{name}> {:02X} {rest}", version as u8)));
        }
        for text in ["30: @", "32: @ 0001", "82: 0001 @ 00", "A2: 0001 @"] {
            rows.push((version, text.into()));
        }
    }
    for (version, text) in rows {
        for bad in BAD_STRINGS {
            let text = text.replace('@', bad);
            assert_eq!(refusal(Sender::Client, version, &text), Some(0x81), "{version} {text}");
        }
        for good in GOOD_STRINGS {
            let text = text.replace('@', good);
            assert_eq!(refusal(Sender::Client, version, &text), None, "{version} {text}");
        }
        // The packet ends inside it.
        let cut = text.split('@').next().expect("what stands before it").replace(['{', '}'], "");
        if version != V5 {
            assert_eq!(refusal(Sender::Client, version, &format!("{cut}0002 61")), Some(0x81), "{version} {cut}");
        }
    }
}

/// [MQTT-3.2.2-8] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1] [MQTT-3.9.3-2] [MQTT-3.11.3-2]
/// [MQTT-3.14.2-1] [MQTT-3.15.2-1] Tables 3-1 and those of the other packets: what is read, and what handlers may have sent.
#[test]
fn reason_codes() {
    const PUBLISH: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    let rows: [(PacketType, &str, &[u8], &[u8]); 9] = [
        (
            PacketType::Connack,
            "20: 00 @ {}",
            &[
                0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
                0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
            ],
            &[],
        ),
        (PacketType::Puback, "40: 0001 @", PUBLISH, &[]),
        (PacketType::Pubrec, "50: 0001 @", PUBLISH, &[]),
        (PacketType::Pubrel, "62: 0001 @", &[0x00, 0x92], &[]),
        (PacketType::Pubcomp, "70: 0001 @", &[0x00, 0x92], &[]),
        (
            PacketType::Suback,
            "90: 0001 {} @",
            &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
            &[],
        ),
        (PacketType::Unsuback, "B0: 0001 {} @", &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91], &[]),
        (
            // 0x8C is from section 2.4.
            PacketType::Disconnect,
            "E0: @",
            &[
                0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95,
                0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
            ],
            &[0x04],
        ),
        (PacketType::Auth, "F0: @ {15 <m>}", &[0x00, 0x18, 0x19], &[0x19]),
    ];
    for (packet_type, text, codes, only_from_clients) in rows {
        for code in 0..=u8::MAX {
            let text = text.replace('@', &format!("{code:02X}"));
            let expected = if codes.contains(&code) { None } else { Some(0x82) };
            assert_eq!(refusal(Sender::Server, V5, &text), expected, "{text}");
            let may_send = reason_codes_from_server(packet_type).any(|allowed| allowed == ReasonCode(code));
            assert_eq!(may_send, expected.is_none() && !only_from_clients.contains(&code), "{text}");
        }
    }
}

/// All properties but User Property, each with its identifier and a value.
const PROPERTIES: [(u8, &str); 26] = [
    (0x01, "01 01"),
    (0x02, "02 00000001"),
    (0x03, "03 <c>"),
    (0x08, "08 <r>"),
    (0x09, "09 <d>"),
    (0x0B, "0B 01"),
    (0x11, "11 00000001"),
    (0x12, "12 <id>"),
    (0x13, "13 000A"),
    (0x15, "15 <m>"),
    (0x16, "16 <d>"),
    (0x17, "17 01"),
    (0x18, "18 00000001"),
    (0x19, "19 01"),
    (0x1A, "1A <i>"),
    (0x1C, "1C <s>"),
    (0x1F, "1F <r>"),
    (0x21, "21 0001"),
    (0x22, "22 0001"),
    (0x23, "23 0001"),
    (0x24, "24 01"),
    (0x25, "25 01"),
    (0x27, "27 00000064"),
    (0x28, "28 01"),
    (0x29, "29 01"),
    (0x2A, "2A 01"),
];

/// [MQTT-3.3.4-6] [MQTT-3.14.2-2] Section 2.2.2.2, table 2-4: which property may stand in which packet, and that it may
/// stand there once (User Property any number of times).
#[test]
fn properties() {
    const MESSAGE: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09];
    const REASON: &[u8] = &[0x1F];
    let with = |more: &[u8]| [MESSAGE, more].concat();
    let client = [
        ("10: <MQTT> 05 02 0000 {@} <me>", vec![0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x27]),
        ("10: <MQTT> 05 06 0000 {} <me> {@} <w> <p>", with(&[0x18])),
        ("30: <a> {@}", with(&[0x23])),
        ("40: 0001 00 {@}", REASON.into()),
        ("50: 0001 00 {@}", REASON.into()),
        ("62: 0001 00 {@}", REASON.into()),
        ("70: 0001 00 {@}", REASON.into()),
        ("82: 0001 {@} <a> 00", vec![0x0B]),
        ("A2: 0001 {@} <a>", vec![]),
        ("E0: 00 {@}", vec![0x11, 0x1C, 0x1F]),
        ("F0: 18 {@}", vec![0x15, 0x16, 0x1F]),
    ];
    let connack = vec![0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x27, 0x28, 0x29, 0x2A];
    let server = [
        ("20: 00 00 {@}", connack),
        ("30: <a> {@}", with(&[0x0B, 0x23])),
        ("40: 0001 00 {@}", REASON.into()),
        ("90: 0001 {@} 00", REASON.into()),
        ("B0: 0001 {@} 00", REASON.into()),
        ("E0: 00 {@}", vec![0x1C, 0x1F]),
        ("F0: 18 {@}", vec![0x15, 0x16, 0x1F]),
    ];
    let rows = client.map(|row| (Sender::Client, row)).into_iter().chain(server.map(|row| (Sender::Server, row)));
    for (sender, (text, allowed)) in rows {
        let refusal = |list: &str| refusal(sender, V5, &text.replace('@', list));
        // AUTH has a method, and data have one.
        let is_auth = text.starts_with("F0");
        for (id, property) in PROPERTIES {
            let method = if id != 0x15 && (is_auth || id == 0x16 && allowed.contains(&id)) { "15 <m>" } else { "" };
            let once = refusal(&format!("{method} {property}"));
            let twice = refusal(&format!("{method} {property} {property}"));
            if allowed.contains(&id) {
                assert_eq!(once, None, "{sender:?} {text} with {property}");
                let may_repeat = id == 0x0B && sender == Sender::Server;
                assert_eq!(
                    twice,
                    if may_repeat { None } else { Some(0x82) },
                    "{sender:?} {text} with {property} twice"
                );
            } else {
                // Where only the direction is wrong, the specification calls it a Protocol Error.
                let is_of_the_other_side = id == 0x0B && text.starts_with("30") || id == 0x11 && text.starts_with("E0");
                let code = if is_of_the_other_side { 0x82 } else { 0x81 };
                assert_eq!(once, Some(code), "{sender:?} {text} with {property}");
            }
        }
        let method = if is_auth { "15 <m>" } else { "" };
        assert_eq!(refusal(&format!("{method} 26 <a> <b> 26 <a> <b> 26 <> <>")), None, "{sender:?} {text}");
    }
}

/// [MQTT-3.1.2-3] [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13] [MQTT-3.1.2-16] [MQTT-3.1.2-17]
/// [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-3] All 256 of them, with the fields that they announce, one less and one more.
#[test]
fn connect_flags() {
    for version in [V3_1_1, V5] {
        let none = if version == V5 { "{}" } else { "" };
        for flags in 0..=u8::MAX {
            let is_set = |flag: u8| flags & flag != 0;
            let (will, will_qos, will_retain) = (is_set(0x04), flags >> 3 & 3, is_set(0x20));
            let mut fields = vec!["<me>".to_owned()];
            if will {
                fields.extend([format!("{none} <w>"), "<payload>".to_owned()]);
            }
            if is_set(0x80) {
                fields.push("<user>".to_owned());
            }
            if is_set(0x40) {
                fields.push("<password>".to_owned());
            }
            let head = format!("10: <MQTT> {:02X} {flags:02X} 000A {none}", version as u8);
            let is_valid = !is_set(0x01)
                && (will && will_qos < 3 || !will && will_qos == 0 && !will_retain)
                && (version == V5 || !is_set(0x40) || is_set(0x80));
            let refusal = |fields: &[String]| refusal(Sender::Client, version, &format!("{head} {}", fields.join(" ")));
            assert_eq!(refusal(&fields), if is_valid { None } else { Some(0x81) }, "{version} {head} {fields:?}");
            let missing = &fields[..fields.len() - 1];
            assert_eq!(refusal(missing), Some(0x81), "{version} {head} {missing:?}");
            let more = [fields.as_slice(), &["<more>".to_owned()]].concat();
            assert_eq!(refusal(&more), Some(0x81), "{version} {head} {more:?}");
        }
    }
}
