//! Valid packets: each is decoded, and encoded again to the very same bytes.

use plugin_api::{Properties, PropertiesBuf, Property, QoS, ReasonCode};

use super::*;

/// Decodes, compares the debug output with what is expected to be in it, and encodes again.
fn check(sender: Sender, version: ProtocolVersion, text: &str, expected: &[&str]) {
    let bytes = packet(text);
    let decoded = match decode_one(sender, version, &bytes) {
        Ok(decoded) => decoded,
        Err(error) => panic!("{version} {text}: {error}"),
    };
    let shown = format!("{decoded:?}");
    for part in expected {
        assert!(shown.contains(part), "{version} {text}: {shown} without {part}");
    }
    let mut again = Vec::new();
    decoded.encode(version, &mut again);
    assert_eq!(again, bytes, "{version} {text}: {shown}");
}

#[test]
fn connect() {
    for (version, text, expected) in [
        (V3_1, "10: <MQIsdp> 03 02 003C <me>", &["version: V3_1,", "client_id: \"me\"", "keep_alive: 60"][..]),
        (V3_1_1, "10: <MQTT> 04 02 0000 <>", &["version: V3_1_1", "client_id: \"\"", "clean_start: true"]),
        (V3_1_1, "10: <MQTT> 04 00 FFFF <me>", &["clean_start: false", "keep_alive: 65535", "will: None"]),
        // An absent User Name is not an empty one [MQTT-3.1.2-16] [MQTT-3.1.2-17].
        (V3_1_1, "10: <MQTT> 04 02 0000 <me>", &["username: None", "password: None"]),
        (V3_1_1, "10: <MQTT> 04 82 0000 <me> <>", &["username: Some(\"\")", "password: None"]),
        (V3_1_1, "10: <MQTT> 04 C2 0000 <me> <u> <p>", &["username: Some(\"u\")", "password: Some([112])"]),
        // All fields in their order [MQTT-3.1.3-1] [MQTT-3.1.2-9].
        (
            V3_1_1,
            "10: <MQTT> 04 F6 0000 <me> <w/t> <bye> <u> <p>",
            &["topic: \"w/t\"", "payload: [98, 121, 101]", "qos: ExactlyOnce", "retain: true"],
        ),
        (V5, "10: <MQTT> 05 00 0000 {} <>", &["version: V5", "clean_start: false", "properties: []"]),
        // Only 5.0 allows a Password without a User Name.
        (V5, "10: <MQTT> 05 42 0000 {} <me> <p>", &["username: None", "password: Some([112])"]),
        (
            V5,
            "10: <MQTT> 05 0E 000A { 11 0000000A 15 <M> 16 <d> 17 00 19 01 21 0001 22 000A 26 <k> <v> 27 00000100 26 <k> <w> } \
             <me> { 01 01 02 00000005 03 <t> 08 <r> 09 <c> 18 00000003 26 <a> <b> } <w> <>",
            &[
                "SessionExpiryInterval(10)",
                "ReceiveMaximum(1)",
                "UserProperty(\"k\", \"w\")",
                "WillDelayInterval(3)",
                "payload: []",
            ],
        ),
        // A byte order mark is part of the string [MQTT-1.5.4-3].
        (V5, "10: <MQTT> 05 02 0000 {} <\u{FEFF}me>", &["client_id: \"\\u{feff}me\""]),
    ] {
        check(Sender::Client, version, text, expected);
    }
}

#[test]
fn connect_of_3_1_is_read_leniently() {
    for (text, expected) in [
        // The packet's length takes precedence over the flags of User Name and Password.
        ("10: <MQIsdp> 03 C2 0000 <me>", "username: None, password: None"),
        ("10: <MQIsdp> 03 C2 0000 <me> <u>", "username: Some(\"u\"), password: None"),
        // Bits that were "not used".
        ("1F: <MQIsdp> 03 3B 0000 <me>", "will: None"),
    ] {
        let bytes = packet(text);
        let shown = format!("{:?}", decode_one(Sender::Client, V3_1, &bytes).unwrap());
        assert!(shown.contains(expected), "{text}: {shown}");
    }
}

#[test]
fn publish() {
    for (sender, version, text, expected) in [
        (Sender::Client, V3_1, "30: <a> 'hi'", &["topic: \"a\"", "payload: [104, 105]", "packet_id: None"][..]),
        (Sender::Client, V3_1_1, "31: <a/b>", &["retain: true", "payload: []"]),
        (Sender::Client, V3_1_1, "3A: <a> 0001 'x'", &["dup: true", "qos: AtLeastOnce", "packet_id: Some(1)"]),
        (Sender::Client, V3_1_1, "34: <ü/$x> FFFF", &["qos: ExactlyOnce", "packet_id: Some(65535)", "topic: \"ü/$x\""]),
        (Sender::Client, V5, "30: <a> {} 'x'", &["properties: []", "payload: [120]"]),
        (
            Sender::Client,
            V5,
            "32: <a> 0007 { 01 01 02 0000000A 03 <t> 08 <r/s> 09 <c> 26 <k> <1> 26 <k> <2> 23 0005 } 'x'",
            &["MessageExpiryInterval(10)", "ResponseTopic(\"r/s\")", "TopicAlias(5)", "UserProperty(\"k\", \"2\")"],
        ),
        // An empty Topic Name stands for a Topic Alias.
        (Sender::Client, V5, "30: <> { 23 0001 } 'x'", &["topic: \"\"", "TopicAlias(1)"]),
        // One Subscription Identifier for each matching subscription [MQTT-3.3.4-4].
        (Sender::Server, V5, "30: <a> { 0B 01 0B FFFFFF7F } 'x'", &["SubscriptionIdentifier(268435455)"]),
    ] {
        check(sender, version, text, expected);
    }
}

#[test]
fn acknowledgements() {
    for (packet, name) in [("40", "Puback"), ("50", "Pubrec"), ("62", "Pubrel"), ("70", "Pubcomp")] {
        for version in [V3_1, V3_1_1, V5] {
            let text = format!("{packet}: 0102");
            check(Sender::Client, version, &text, &[name, "packet_id: 258", "0x00 (Success)"]);
        }
        let code = if matches!(packet, "40" | "50") { "10" } else { "92" };
        let code_shown = format!("reason_code: 0x{code}");
        check(Sender::Client, V5, &format!("{packet}: 0001 {code}"), &[&code_shown, "properties: []"]);
        check(
            Sender::Client,
            V5,
            &format!("{packet}: 0001 {code} {{ 1F <why> 26 <k> <v> 26 <k> <v> }}"),
            &[&code_shown, "ReasonString(\"why\")"],
        );
        check(Sender::Client, V5, &format!("{packet}: 0001 00 {{ 1F <why> }}"), &["ReasonString"]);
    }
}

#[test]
fn longer_forms_of_short_packets() {
    for (text, shortest) in [
        ("40: 0001 00", "40: 0001"),
        ("40: 0001 00 00", "40: 0001"),
        ("62: 0001 92 00", "62: 0001 92"),
        ("E0: 00", "E0:"),
        ("E0: 00 00", "E0:"),
        ("E0: 04 00", "E0: 04"),
    ] {
        let bytes = packet(text);
        let mut again = Vec::new();
        decode_one(Sender::Client, V5, &bytes).unwrap().encode(V5, &mut again);
        assert_eq!(again, packet(shortest), "{text}");
    }
}

#[test]
fn subscribe_and_unsubscribe() {
    for (version, text, expected) in [
        (V3_1, "82: 0001 <a/#> 01", &["packet_id: 1", "filter: \"a/#\"", "qos: AtLeastOnce"][..]),
        (V3_1_1, "82: 0001 <a> 00 <+> 02", &["filter: \"+\"", "qos: ExactlyOnce"]),
        // Misplaced wildcards, and nothing at all: for the core to answer.
        (V3_1_1, "82: 0001 <a#> 00 <> 00", &["filter: \"a#\"", "filter: \"\""]),
        (
            V5,
            "82: 0001 { 0B 8001 26 <k> <v> } <a> 2D",
            &[
                "SubscriptionIdentifier(128)",
                "qos: AtLeastOnce, no_local: true, retain_as_published: true, retain_handling: DoNotSend",
            ],
        ),
        (
            V5,
            "82: 0001 {} <$share/g/a> 1A",
            &["no_local: false, retain_as_published: true, retain_handling: SendIfNew"],
        ),
        // Not a Shared Subscription: a share name is missing. No Local is no Protocol Error then.
        (V5, "82: 0001 {} <$share//a> 04", &["no_local: true"]),
        (V3_1, "A2: 0001 <a>", &["filters: [\"a\"]"]),
        (V3_1_1, "A2: 0001 <a> <b/+>", &["filters: [\"a\", \"b/+\"]"]),
        (V5, "A2: 0001 { 26 <k> <v> } <a> <>", &["UserProperty(\"k\", \"v\")", "filters: [\"a\", \"\"]"]),
    ] {
        check(Sender::Client, version, text, expected);
    }
}

#[test]
fn flags_and_options_that_3_1_does_not_use() {
    for (text, expected) in [
        // DUP of the packets with QoS 1.
        ("8A: 0001 <a> 01", "Subscribe"),
        ("AA: 0001 <a>", "Unsubscribe"),
        ("6A: 0001", "Pubrel"),
        ("C9:", "Pingreq"),
        // All other bits of the options are ignored.
        ("82: 0001 <$share/g/a> FD", "qos: AtLeastOnce, no_local: false, retain_as_published: false"),
    ] {
        let bytes = packet(text);
        let shown = format!("{:?}", decode_one(Sender::Client, V3_1, &bytes).unwrap());
        assert!(shown.contains(expected), "{text}: {shown}");
    }
}

#[test]
fn from_the_server() {
    for (version, text, expected) in [
        (V3_1, "20: 00 00", &["session_present: false", "0x00 (Success)"][..]),
        (V3_1_1, "20: 01 00", &["session_present: true"]),
        (V3_1_1, "20: 00 01", &["0x84 (Unsupported Protocol Version)"]),
        (V3_1_1, "20: 00 02", &["0x85"]),
        (V3_1_1, "20: 00 03", &["0x88"]),
        (V3_1_1, "20: 00 04", &["0x86"]),
        (V3_1_1, "20: 00 05", &["0x87"]),
        (V5, "20: 00 87 {}", &["session_present: false", "0x87 (Not authorized)"]),
        (
            V5,
            "20: 01 00 { 11 00000001 12 <id> 13 000A 15 <M> 16 <d> 1A <i> 1C <s> 1F <r> 21 000A 22 0001 24 01 25 00 26 <k> <v> 27 00001000 28 01 29 01 2A 01 }",
            &[
                "AssignedClientIdentifier(\"id\")",
                "ServerKeepAlive(10)",
                "MaximumQos(1)",
                "SharedSubscriptionAvailable(1)",
            ],
        ),
        (V3_1, "90: 0001 00 02", &["reason_codes: [0, 2]"]),
        (V3_1_1, "90: 0001 00 80", &["reason_codes: [0, 128]"]),
        (V5, "90: 0001 { 1F <why> } 01 87 8F", &["reason_codes: [1, 135, 143]", "ReasonString(\"why\")"]),
        (V3_1, "B0: 0001", &["Unsuback", "reason_codes: []"]),
        (V3_1_1, "B0: 0001", &["Unsuback", "reason_codes: []"]),
        (V5, "B0: 0001 {} 00 11", &["reason_codes: [0, 17]"]),
        (V5, "E0: 8E { 1F <moved> 1C <there> 26 <k> <v> }", &["0x8E", "ServerReference(\"there\")"]),
        (V5, "F0: 18 { 15 <SCRAM> 16 <data> }", &["0x18 (Continue authentication)", "AuthenticationMethod(\"SCRAM\")"]),
        (V5, "F0:", &["Auth", "0x00", "properties: []"]),
        (V3_1, "D0:", &["Pingresp"]),
        (V3_1_1, "D0:", &["Pingresp"]),
        (V5, "D0:", &["Pingresp"]),
    ] {
        check(Sender::Server, version, text, expected);
    }
}

#[test]
fn ping_disconnect_auth() {
    for (version, text, expected) in [
        (V3_1, "C0:", "Pingreq"),
        (V3_1_1, "C0:", "Pingreq"),
        (V5, "C0:", "Pingreq"),
        (V3_1, "E0:", "Disconnect"),
        (V3_1_1, "E0:", "Disconnect"),
        (V5, "E0:", "0x00 (Success)"),
        (V5, "E0: 04", "0x04 (Disconnect with Will Message)"),
        (V5, "E0: 00 { 11 00000009 1F <x> }", "SessionExpiryInterval(9)"),
        (V5, "F0: 19 { 15 <M> }", "0x19 (Re-authenticate)"),
    ] {
        check(Sender::Client, version, text, &[expected]);
    }
}

#[test]
fn what_3_x_cannot_say_is_translated_or_left_out() {
    let properties = PropertiesBuf::new().reason_string("why").with(Property::TopicAlias(3));
    let properties = properties.as_properties();
    let packet_id = PacketId::MIN;
    let reason_code = ReasonCode::NOT_AUTHORIZED;
    let mut filters = Vec::new();
    let mut options = SubscribeOptions::new(QoS::AtLeastOnce);
    options.no_local = true;
    options.retain_handling = RetainHandling::DoNotSend;
    SubscribeFilters::put(&mut filters, "a", options);
    let filters = SubscribeFilters::from_trusted(&filters);
    for (value, text) in [
        (Packet::Connack(Connack { session_present: true, reason_code, properties }), "20: 00 05"),
        (Packet::Puback(Ack { packet_id, reason_code, properties }), "40: 0001"),
        (Packet::Subscribe(Subscribe { packet_id, properties, filters }), "82: 0001 <a> 01"),
        (Packet::Suback(Suback { packet_id, properties, reason_codes: &[0, 1, 0x87, 0xA2] }), "90: 0001 00 01 80 80"),
        (Packet::Unsuback(Unsuback { packet_id, properties, reason_codes: &[0, 17] }), "B0: 0001"),
        (Packet::Disconnect(Disconnect { reason_code, properties }), "E0:"),
    ] {
        for version in [V3_1, V3_1_1] {
            let mut out = Vec::new();
            value.encode(version, &mut out);
            assert_eq!(out, packet(text), "{version} {value:?}");
        }
    }
}

#[test]
fn session_present_only_where_it_is_known_and_the_connection_accepted() {
    let mut connack =
        Connack { session_present: true, reason_code: ReasonCode::SUCCESS, properties: Properties::EMPTY };
    let encoded = |connack: Connack<'_>, version| {
        let mut out = Vec::new();
        Packet::Connack(connack).encode(version, &mut out);
        out
    };
    assert_eq!(encoded(connack, V3_1), packet("20: 00 00"));
    assert_eq!(encoded(connack, V3_1_1), packet("20: 01 00"));
    connack.reason_code = ReasonCode::BANNED;
    assert_eq!(encoded(connack, V5), packet("20: 00 8A {}")); // [MQTT-3.2.2-6]
}

/// [MQTT-1.5.5-1]
#[test]
fn bodies_of_every_length_get_the_right_remaining_length() {
    for bytes in [0_usize, 1, 100, 116, 117, 118, 130, 16_360, 16_380, 40_000] {
        let reason = "r".repeat(bytes);
        let properties = PropertiesBuf::new().reason_string(&reason);
        let value = Packet::Disconnect(Disconnect {
            reason_code: ReasonCode::SERVER_BUSY,
            properties: properties.as_properties(),
        });
        let mut out = Vec::new();
        value.encode(V5, &mut out);
        assert_eq!(decode_one(Sender::Server, V5, &out), Ok(value));
    }
}
