//! Packets that are refused, with the Reason Code to answer and a part of what the log says.

use super::*;

fn check(sender: Sender, version: ProtocolVersion, text: &str, code: u8, says: &str) {
    let bytes = packet(text);
    match decode_one(sender, version, &bytes) {
        Ok(decoded) => panic!("{version} {text}: {decoded:?}"),
        Err(error) => {
            let shown = error.to_string();
            assert_eq!(error.reason_code().0, code, "{version} {text}: {shown}");
            assert!(shown.contains(says), "{version} {text}: \"{shown}\" without \"{says}\"");
        }
    }
}

/// [MQTT-3.1.4-1]
#[test]
fn connect() {
    for (version, text, code, says) in [
        // [MQTT-3.1.2-1]
        (V5, "10: <HTTP> 05 02 0000 {} <me>", 0x84, "neither"),
        (V5, "10: <mqtt> 05 02 0000 {} <me>", 0x84, "neither"),
        (V5, "10: <> 05", 0x84, "neither"),
        // [MQTT-3.1.2-2]
        (V5, "10: <MQTT> 06 02 0000 {} <me>", 0x84, "protocol level 6"),
        (V5, "10: <MQTT> 03 02 0000 <me>", 0x84, "protocol level 3"),
        (V5, "10: <MQIsdp> 04 02 0000 <me>", 0x84, "protocol level 4"),
        (V5, "10: <MQTT> 84 02 0000 <me>", 0x84, "protocol level 132"),
        // [MQTT-2.1.3-1]
        (V5, "11: <MQTT> 05 02 0000 {} <me>", 0x81, "flags of CONNECT are 0001, expected 0000"),
        (V3_1_1, "12: <MQTT> 04 02 0000 <me>", 0x81, "flags of CONNECT"),
        // [MQTT-3.1.2-3]
        (V5, "10: <MQTT> 05 03 0000 {} <me>", 0x81, "reserved bit"),
        (V3_1_1, "10: <MQTT> 04 01 0000 <me>", 0x81, "reserved bit"),
        // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
        (V5, "10: <MQTT> 05 0A 0000 {} <me>", 0x81, "without the Will Flag"),
        (V3_1_1, "10: <MQTT> 04 22 0000 <me>", 0x81, "without the Will Flag"),
        (V5, "10: <MQTT> 05 1E 0000 {} <me> {} <w> <p>", 0x81, "Will QoS is 3"), // [MQTT-3.1.2-12]
        // [MQTT-3.1.2-9]
        (V5, "10: <MQTT> 05 06 0000 {} <me>", 0x81, "ends before the end of its Properties"),
        (V3_1_1, "10: <MQTT> 04 06 0000 <me>", 0x81, "Will Topic"),
        (V3_1_1, "10: <MQTT> 04 06 0000 <me> <w>", 0x81, "Will Payload"),
        // [MQTT-3.1.2-17] [MQTT-3.1.2-19]
        (V3_1_1, "10: <MQTT> 04 82 0000 <me>", 0x81, "User Name"),
        (V3_1_1, "10: <MQTT> 04 C2 0000 <me> <u>", 0x81, "Password"),
        (V3_1_1, "10: <MQTT> 04 42 0000 <me> <p>", 0x81, "Password without a User Name"),
        (V3_1, "10: <MQIsdp> 03 42 0000 <me> <p>", 0x81, "Password without a User Name"),
        // [MQTT-3.1.2-16] [MQTT-3.1.2-18]
        (V3_1_1, "10: <MQTT> 04 02 0000 <me> <u>", 0x81, "3 bytes after its last field"),
        // [MQTT-3.1.3-11] [MQTT-3.1.3-12]
        (V5, "10: <MQTT> 05 06 0000 {} <me> {} 0001 FF <p>", 0x81, "Will Topic of CONNECT is not"),
        (V5, "10: <MQTT> 05 82 0000 {} <me> 0001 FF", 0x81, "User Name of CONNECT is not"),
        (V5, "10: <MQTT> 05 06 0000 {} <me> {} <w/#> <p>", 0x90, "wildcard"),
        (V5, "10: <MQTT> 05 06 0000 {} <me> {} <> <p>", 0x90, "Will Topic is empty"),
        // Empty Client Identifiers.
        (V3_1, "10: <MQIsdp> 03 02 0000 <>", 0x85, "empty Client Identifier"),
        (V3_1_1, "10: <MQTT> 04 00 0000 <>", 0x85, "empty Client Identifier"),
        // [MQTT-1.5.4-2]
        (V5, "10: <MQTT> 05 02 0000 {} 0001 00", 0x81, "U+0000"),
        // Properties.
        (V5, "10: <MQTT> 05 02 0000 { 21 0000 } <me>", 0x82, "Receive Maximum is 0"),
        (V5, "10: <MQTT> 05 02 0000 { 27 00000000 } <me>", 0x82, "Maximum Packet Size is 0"),
        (V5, "10: <MQTT> 05 02 0000 { 17 02 } <me>", 0x82, "expected 0 or 1"),
        (V5, "10: <MQTT> 05 02 0000 { 21 0001 21 0001 } <me>", 0x82, "twice"),
        // Not 0x94, which CONNACK cannot have [MQTT-3.2.2-8].
        (V5, "10: <MQTT> 05 02 0000 { 23 0000 } <me>", 0x81, "must not have the property Topic Alias"),
        (V5, "10: <MQTT> 05 02 0000 { 23 0001 } <me>", 0x81, "must not have the property Topic Alias"),
        (V5, "10: <MQTT> 05 02 0000 { 16 <d> } <me>", 0x82, "without an Authentication Method"),
        (V5, "10: <MQTT> 05 06 0000 {} <me> { 11 00000001 } <w> <p>", 0x81, "Session Expiry Interval"),
        (V5, "10: <MQTT> 05 06 0000 {} <me> { 08 <+> } <w> <p>", 0x82, "Response Topic"),
        (V5, "10: <MQTT> 05 02 0000 05 11 00", 0x81, "Properties"),
    ] {
        check(Sender::Client, version, text, code, says);
    }
}

/// [MQTT-2.2.2-1]
#[test]
fn publish() {
    for (version, text, code, says) in [
        (V5, "36: <a> 0001 {}", 0x81, "QoS is 3"), // [MQTT-3.3.1-4]
        (V3_1, "36: <a> 0001", 0x81, "QoS is 3"),
        (V5, "38: <a> {}", 0x81, "DUP"),                         // [MQTT-3.3.1-2]
        (V5, "32: <a> 0000 {}", 0x82, "Packet Identifier is 0"), // [MQTT-2.2.1-3]
        (V3_1_1, "34: <a> 0000", 0x82, "Packet Identifier is 0"),
        (V5, "32: <a> 00", 0x81, "ends before the end of its Packet Identifier"),
        (V5, "30: <a>", 0x81, "ends before the end of its Properties"),
        (V5, "30: 0005 'a'", 0x81, "ends before the end of its Topic Name"), // [MQTT-3.3.2-1]
        (V5, "30:", 0x81, "Topic Name"),
        (V5, "30: 0002 C328 {}", 0x81, "not well-formed UTF-8"), // [MQTT-1.5.4-1]
        (V5, "30: 0003 EDA080 {}", 0x81, "not well-formed UTF-8"), // [MQTT-1.5.4-1]
        (V5, "30: 0002 'a' 00 {}", 0x81, "U+0000"),              // [MQTT-1.5.4-2] [MQTT-4.7.3-2]
        (V5, "30: <a/+> {}", 0x90, "wildcard"),                  // [MQTT-3.3.2-2] [MQTT-4.7.0-1]
        (V3_1_1, "30: <#>", 0x90, "wildcard"),                   // [MQTT-3.3.2-2] [MQTT-4.7.0-1]
        (V3_1_1, "30: <>", 0x90, "empty"),                       // [MQTT-4.7.3-1]
        (V5, "30: <> {}", 0x82, "no Topic Alias"),               // [MQTT-4.7.3-1]
        (V5, "30: <> { 23 0000 }", 0x94, "Topic Alias is 0"),    // [MQTT-3.3.2-8]
        (V5, "30: <a> { 23 0001 23 0002 }", 0x82, "twice"),
        (V5, "30: <a> { 0B 01 }", 0x82, "client sent a PUBLISH"), // [MQTT-3.3.4-6]
        (V5, "30: <a> { 08 <a/#> }", 0x82, "Response Topic"),     // [MQTT-3.3.2-14]
        (V5, "30: <a> { 08 <> }", 0x82, "Response Topic"),        // [MQTT-4.7.3-1]
        (V5, "30: <a> { 08 0001 FF }", 0x81, "Response Topic is not"), // [MQTT-3.3.2-13]
        (V5, "30: <a> { 03 0001 FF }", 0x81, "Content Type is not"), // [MQTT-3.3.2-19]
        (V5, "30: <a> { 01 02 }", 0x82, "Payload Format Indicator is 2"),
        (V5, "30: <a> { 11 00000001 }", 0x81, "must not have"),
        (V5, "30: <a> { 05 }", 0x81, "0x05 is not"),
        (V5, "30: <a> { 02 0000 }", 0x81, "cut off"),
        (V5, "30: <a> 8000", 0x81, "Property Length has more bytes"), // [MQTT-1.5.5-1]
        (V5, "30: <a> 8080808001", 0x81, "Property Length has more than 4 bytes"), // [MQTT-1.5.5-1]
        (V5, "30: <a> 80", 0x81, "Properties"),
    ] {
        check(Sender::Client, version, text, code, says);
    }
    check(Sender::Server, V5, "30: <a> { 0B 00 }", 0x82, "Subscription Identifier is 0");
}

#[test]
fn acknowledgements() {
    for (version, text, code, says) in [
        (V5, "40: 0000", 0x82, "Packet Identifier is 0"),
        (V5, "40: 00", 0x81, "Packet Identifier"),
        (V5, "40: 0001 92", 0x82, "not a code for PUBACK"), // [MQTT-3.4.2-1]
        (V5, "50: 0001 01", 0x82, "not a code for PUBREC"), // [MQTT-3.5.2-1]
        (V5, "62: 0001 10", 0x82, "not a code for PUBREL"), // [MQTT-3.6.2-1]
        (V5, "70: 0001 80", 0x82, "not a code for PUBCOMP"), // [MQTT-3.7.2-1]
        (V5, "60: 0001", 0x81, "flags of PUBREL are 0000, expected 0010"), // [MQTT-3.6.1-1]
        (V3_1_1, "6A: 0001", 0x81, "flags of PUBREL"),      // [MQTT-3.6.1-1]
        (V3_1, "60: 0001", 0x81, "flags of PUBREL"),
        (V5, "41: 0001", 0x81, "flags of PUBACK"), // [MQTT-2.1.3-1]
        (V3_1_1, "40: 0001 00", 0x81, "1 bytes after"),
        (V5, "40: 0001 00 {} 00", 0x81, "1 bytes after"),
        (V5, "40: 0001 00 { 1F <a> 1F <b> }", 0x82, "twice"),
        (V5, "40: 0001 00 { 03 <a> }", 0x81, "must not have"),
    ] {
        check(Sender::Client, version, text, code, says);
    }
}

#[test]
fn subscribe_and_unsubscribe() {
    for (version, text, code, says) in [
        (V5, "80: 0001 {} <a> 00", 0x81, "expected 0010"),  // [MQTT-3.8.1-1]
        (V3_1_1, "8A: 0001 <a> 00", 0x81, "expected 0010"), // [MQTT-3.8.1-1]
        (V5, "82: 0000 {} <a> 00", 0x82, "Packet Identifier is 0"), // [MQTT-2.2.1-3]
        (V5, "82: 0001 {}", 0x82, "without a Topic Filter"), // [MQTT-3.8.3-2]
        (V3_1, "82: 0001", 0x82, "without a Topic Filter"),
        (V5, "82: 0001 {} 0001 FF 00", 0x81, "not well-formed UTF-8"), // [MQTT-3.8.3-1]
        (V5, "82: 0001 {} 0001 00 00", 0x81, "U+0000"),                // [MQTT-4.7.3-2]
        (V5, "82: 0001 {} <a>", 0x81, "Subscription Options"),
        (V5, "82: 0001 {} <a> 40", 0x81, "reserved bit"), // [MQTT-3.8.3-5]
        (V5, "82: 0001 {} <a> 80", 0x81, "reserved bit"), // [MQTT-3.8.3-5]
        (V3_1_1, "82: 0001 <a> 04", 0x81, "reserved bit"),
        (V5, "82: 0001 {} <a> 03", 0x82, "QoS is 3"),
        (V3_1_1, "82: 0001 <a> 03", 0x82, "QoS is 3"),
        (V3_1, "82: 0001 <a> 03", 0x82, "QoS is 3"),
        (V5, "82: 0001 {} <a> 30", 0x82, "Retain Handling is 3"),
        (V5, "82: 0001 {} <$share/g/a> 04", 0x82, "No Local"), // [MQTT-3.8.3-4]
        (V5, "82: 0001 {} <a> 00 <$share/g/a> 05", 0x82, "No Local"), // [MQTT-3.8.3-4]
        (V5, "82: 0001 { 0B 00 } <a> 00", 0x82, "expected 1 to 268,435,455"),
        (V5, "82: 0001 { 0B 01 0B 02 } <a> 00", 0x82, "twice"),
        (V5, "A0: 0001 {} <a>", 0x81, "expected 0010"), // [MQTT-3.10.1-1]
        (V5, "A2: 0001 {}", 0x82, "without a Topic Filter"), // [MQTT-3.10.3-2]
        (V3_1_1, "A2: 0001", 0x82, "without a Topic Filter"), // [MQTT-3.10.3-2]
        (V5, "A2: 0001 {} 0001 FF", 0x81, "not well-formed UTF-8"), // [MQTT-3.10.3-1]
        (V5, "A2: 0001 {} <a> 00", 0x81, "Topic Filter"),
        (V5, "A2: 0001 { 0B 01 } <a>", 0x81, "must not have"),
        (V5, "A2: 0000 {} <a>", 0x82, "Packet Identifier is 0"),
    ] {
        check(Sender::Client, version, text, code, says);
    }
}

#[test]
fn ping_disconnect_auth() {
    for (version, text, code, says) in [
        (V5, "C0: 00", 0x81, "PINGREQ has 1 bytes"),
        (V3_1_1, "C0: 00", 0x81, "PINGREQ has 1 bytes"),
        (V3_1_1, "C1:", 0x81, "flags of PINGREQ"), // [MQTT-2.1.3-1]
        (V5, "E1:", 0x81, "flags of DISCONNECT"),  // [MQTT-3.14.1-1]
        (V3_1_1, "E0: 00", 0x81, "DISCONNECT has 1 bytes"),
        (V5, "E0: 01", 0x82, "not a code for DISCONNECT"), // [MQTT-3.14.2-1]
        (V5, "E0: 00 { 21 0001 }", 0x81, "must not have"),
        (V5, "E0: 00 {} 00", 0x81, "1 bytes after"),
        (V5, "F1: 18 { 15 <M> }", 0x81, "flags of AUTH"), // [MQTT-3.15.1-1]
        (V5, "F0: 87 { 15 <M> }", 0x82, "not a code for AUTH"), // [MQTT-3.15.2-1]
        (V5, "F0: 18 {}", 0x82, "without an Authentication Method"),
        (V5, "F0: 18 { 1F <x> }", 0x82, "without an Authentication Method"),
        (V5, "F0: 18", 0x81, "Properties"),
        (V3_1_1, "F0:", 0x81, "does not exist before MQTT 5.0"),
        (V3_1, "F0:", 0x81, "does not exist before MQTT 5.0"),
    ] {
        check(Sender::Client, version, text, code, says);
    }
}

#[test]
fn from_the_server() {
    for (version, text, code, says) in [
        (V5, "20: 02 00 {}", 0x81, "reserved bit"),           // [MQTT-3.2.2-1]
        (V5, "20: 01 87 {}", 0x82, "Session Present"),        // [MQTT-3.2.2-6]
        (V5, "20: 00 01 {}", 0x82, "not a code for CONNACK"), // [MQTT-3.2.2-8]
        (V3_1_1, "20: 00 06", 0x82, "not a code for CONNACK"),
        (V3_1_1, "20: 00 00 00", 0x81, "1 bytes after"),
        (V5, "90: 0001 {}", 0x81, "Reason Codes"),             // [MQTT-3.9.3-1]
        (V5, "90: 0001 {} 03", 0x82, "not a code for SUBACK"), // [MQTT-3.9.3-2]
        (V3_1_1, "90: 0001 87", 0x82, "not a code for SUBACK"),
        (V5, "B0: 0001 {}", 0x81, "Reason Codes"), // [MQTT-3.11.3-1]
        (V5, "B0: 0001 {} 01", 0x82, "not a code for UNSUBACK"), // [MQTT-3.11.3-2]
        (V3_1_1, "B0: 0001 00", 0x81, "1 bytes after"),
        (V5, "E0: 00 { 11 00000001 }", 0x82, "server sent a DISCONNECT"), // [MQTT-3.14.2-2]
    ] {
        check(Sender::Server, version, text, code, says);
    }
}

#[test]
fn remaining_length_in_more_bytes_than_needed() {
    // [MQTT-1.5.5-1] is a rule of 5.0.
    let puback = [0x40, 0x82, 0x00, 0x00, 0x01];
    assert!(decode_one(Sender::Client, V3_1, &puback).is_ok());
    assert!(decode_one(Sender::Client, V3_1_1, &puback).is_ok());
    let error = decode_one(Sender::Client, V5, &puback).unwrap_err();
    assert!(error.to_string().contains("Remaining Length has more bytes"));
    let publish = [0x30, 0x84, 0x00, 0x00, 0x01, b'a', 0x00];
    assert_eq!(decode_publish(V5, &publish, 3, None), Err(error));
    // CONNECT goes by its own version.
    let mut connect = packet("10: <MQTT> 05 02 0000 {} <>");
    connect[1] |= 0x80;
    connect.insert(2, 0);
    assert_eq!(decode_one(Sender::Client, V3_1_1, &connect), Err(error));
}

#[test]
fn answers_to_a_refused_connect() {
    for (text, expected) in [
        ("10: <MQTT> 06 02 0000 {} <me>", Some((V5, 0x84))), // [MQTT-3.1.2-2]
        ("10: <MQTT> 03 02 0000 <me>", Some((V3_1_1, 0x84))),
        // A bridge of Mosquitto begins like this, and falls back to 3.1.1 on return code 1.
        ("10: <MQTT> 84 02 0000 <me>", Some((V3_1_1, 0x84))),
        ("10: <MQIsdp> 02 02 0000 <me>", Some((V3_1_1, 0x84))),
        ("10: <HTTP> 05", None),
        ("10: 0004 'MQ'", None),
        ("10:", None),
        ("C0:", None), // [MQTT-3.1.0-1]
        ("10: <MQTT> 05 03 0000 {} <me>", Some((V5, 0x81))),
        ("10: <MQTT> 05 02 0000 { 21 0000 } <me>", Some((V5, 0x82))),
        ("10: <MQTT> 04 03 0000 <me>", None),
        ("10: <MQTT> 04 00 0000 <>", Some((V3_1_1, 0x85))),
        ("10: <MQIsdp> 03 00 0000 <>", Some((V3_1, 0x85))),
    ] {
        let bytes = packet(text);
        let error = decode_connect(&bytes, 2).unwrap_err();
        let answer = connect_refusal(&bytes, 2, &error).map(|(version, code)| (version, code.0));
        assert_eq!(answer, expected, "{text}");
    }
}
