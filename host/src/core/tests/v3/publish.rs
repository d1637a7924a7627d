//! PUBLISH from a client: its answers, who owns the message, what is refused.

use plugin_api::{PublishVerdict, ReasonCode};

use super::*;
use crate::limits::RejectedPublish;

/// [MQTT-3.3.4-1@3.1.1] [MQTT-2.3.1-6@3.1.1] [MQTT-2.2.2-1@3.1.1] The answer that the QoS asks for, with the identifier of
/// the PUBLISH and with the flags that are laid down.
#[test]
fn answers() {
    for version in OLD {
        scenario(|net| {
            let client = net.client(version, "c");
            for id in ["0001", "00FF", "1234", "FFFF"] {
                net.send(client, "30: <t> 'zero'");
                net.expect(client, "");
                net.send(client, &format!("32: <t> {id} 'one'"));
                net.expect(client, &format!("40: {id}"));
                net.send(client, &format!("34: <t> {id} 'two'"));
                net.expect(client, &format!("50: {id}"));
                net.send(client, &format!("62: {id}"));
                net.expect(client, &format!("70: {id}"));
            }
            // Whether we know the identifier or not: the client has to come to an end.
            net.send(client, "62: 0007");
            net.expect(client, "70: 0007");
        });
    }
}

/// [MQTT-4.6.0-2@3.1.1] [MQTT-4.6.0-3@3.1.1] [MQTT-4.6.0-6@3.1.1] Answers come in the order of what they answer.
#[test]
fn answers_come_in_order() {
    scenario(|net| {
        let client = net.client(V3_1_1, "c");
        net.send(
            client,
            "34: <a> 0005 'x' | 32: <a> 0009 'x' | 34: <b> 0002 'x' | 32: <a> 0003 'x' | 34: <a> 0001 'x'",
        );
        net.expect(client, "50: 0005 | 40: 0009 | 50: 0002 | 40: 0003 | 50: 0001");
        net.send(client, "62: 0002 | 62: 0001 | 62: 0005");
        net.expect(client, "70: 0002 | 70: 0001 | 70: 0005");
    });
}

/// [MQTT-4.3.2-2@3.1.1] [MQTT-3.3.1-3@3.1.1] Once it was answered, the same identifier is a new QoS 1 message, with DUP or
/// without; DUP is not passed on.
#[test]
fn qos_1_is_a_new_message_each_time() {
    for version in OLD {
        scenario(|net| {
            let (from, to) = (net.client(version, "from"), net.client(version, "to"));
            net.subscribe(to, "t", 2);
            net.send(from, "32: <t> 0007 'x' | 3A: <t> 0007 'x' | 3A: <t> 0008 'y'");
            net.expect(from, "40: 0007 | 40: 0007 | 40: 0008");
            net.expect(to, "32: <t> 0001 'x' | 32: <t> 0002 'x' | 32: <t> 0003 'y'");
        });
    }
}

/// A packet goes on just so where its receiver gets it in the same form. Not its Remaining Length if it has more bytes than it
/// needs, nor DUP and RETAIN, and not to who gets it with less QoS or in another version.
#[test]
fn packets_go_on_as_they_came() {
    for version in OLD {
        scenario(|net| {
            let (from, other) = (net.client(version, "from"), net.v5("other"));
            let to = [0, 1, 2].map(|qos| {
                let to = net.client(version, &format!("to{qos}"));
                net.subscribe(to, &format!("t/{qos}"), qos);
                net.subscribe(to, "all", qos);
                to
            });
            net.send_bytes(from, b"\x32\x88\x00\x00\x03t/1\x00\x07x\x3B\x08\x00\x03t/1\x00\x07x");
            net.expect(from, "40: 0007 | 40: 0007");
            net.expect(to[1], "32: <t/1> 0001 'x' | 32: <t/1> 0002 'x'");
            net.send(from, "30: <t/0> 'x' | 32: <t/0> 0007 'x' | 33: <t/2> 0007 'x' | 31: <t/2> ''");
            net.expect(from, "40: 0007 | 40: 0007");
            net.expect(to[0], "30: <t/0> 'x' | 30: <t/0> 'x'");
            net.expect(to[2], "32: <t/2> 0001 'x' | 30: <t/2> ''");
            net.subscribe(other, "t/2", 1);
            net.send(from, "32: <t/2> 0008 'y'");
            net.expect(from, "40: 0008");
            net.expect(to[2], "32: <t/2> 0002 'y'");
            net.expect(other, "32: <t/2> 0001 00 'y'");
            net.send(from, "32: <all> 0009 'z'");
            net.expect(from, "40: 0009");
            net.expect(to[0], "30: <all> 'z'");
            net.expect(to[1], "32: <all> 0003 'z'");
            net.expect(to[2], "32: <all> 0003 'z'");
        });
    }
}

/// [MQTT-4.3.3-2@3.1.1] A QoS 2 message goes on once, however often it comes before PUBREL, with DUP or without; behind
/// PUBCOMP its identifier is that of a new one.
#[test]
fn qos_2_goes_on_once() {
    for version in OLD {
        scenario(|net| {
            let to = net.client(version, "to");
            net.subscribe(to, "t", 2);
            let from = net.durable(version, "from", "20: 00 00");
            net.send(from, "34: <t> 0007 'x' | 3C: <t> 0007 'x' | 34: <t> 0007 'x'");
            net.expect(from, "50: 0007 | 50: 0007 | 50: 0007");
            net.lose(from);
            let from = net.durable(version, "from", resumed(version));
            net.send(from, "3C: <t> 0007 'x' | 62: 0007 | 62: 0007");
            net.expect(from, "50: 0007 | 70: 0007 | 70: 0007");
            net.expect(to, "34: <t> 0001 'x'");
            net.send(from, "3C: <t> 0007 'x' | 62: 0007");
            net.expect(from, "50: 0007 | 70: 0007");
            net.expect(to, "34: <t> 0002 'x'");
        });
    }
}

/// [MQTT-4.5.0-1@3.1.1] What was acknowledged is delivered, also if the client has lost its state and uses the identifier
/// for another message, on the same connection or a later one.
#[test]
fn acknowledged_message_is_never_lost() {
    for version in OLD {
        scenario(|net| {
            let to = net.client(version, "to");
            net.subscribe(to, "t", 1);
            let from = net.durable(version, "from", "20: 00 00");
            net.send(from, "34: <t> 0007 'a' | 34: <t> 0007 'b'");
            net.expect(from, "50: 0007 | 50: 0007");
            net.expect(to, "32: <t> 0001 'a'");
            net.lose(from);
            let from = net.durable(version, "from", resumed(version));
            net.send(from, "34: <t> 0007 'c' | 62: 0007 | 62: 0007");
            net.expect(from, "50: 0007 | 70: 0007 | 70: 0007");
            net.expect(to, "32: <t> 0002 'b' | 32: <t> 0003 'c'");
        });
    }
}

/// [MQTT-3.3.5-2@3.1.1] Who may not publish is not told: the message is acknowledged as any other, or the connection is
/// closed, as the operator has it.
#[test]
fn publish_that_is_not_authorized() {
    for version in OLD {
        scenario(|net| {
            let (from, to) = (net.client(version, "from"), net.client(version, "to"));
            net.subscribe(to, "#", 2);
            net.script().publish = Some(Box::new(|_| Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED))));
            net.send(from, "31: <t> 'x' | 33: <t> 0001 'x' | 35: <t> 0002 'x' | 3D: <t> 0002 'x' | 62: 0002");
            net.expect(from, "40: 0001 | 50: 0002 | 50: 0002 | 70: 0002");
            net.expect(to, "");
            assert!(net.shared.retained.is_empty());
        });
        let close = Setup::limits(|limits| limits.rejected_publish = RejectedPublish::Close);
        scenario_with(&close, |net| {
            net.script().publish = Some(Box::new(|_| Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED))));
            for packet in ["33: <t> 0001 'x' | C0:", "35: <t> 0001 'x' | C0:"] {
                let from = net.client(version, "from");
                net.send(from, packet);
                net.expect_closed(from, "");
            }
        });
    }
}

/// [MQTT-4.8.0-1@3.1.1] A violation of the protocol ends the connection, without a word; nothing behind it is looked at.
#[test]
fn violations_end_the_connection() {
    let rows = [
        // [MQTT-3.3.1-4@3.1.1] QoS 3.
        "36: <t> 0001 'x'",
        "3F: <t> 0001 'x'",
        // [MQTT-3.3.1-2@3.1.1] DUP with QoS 0.
        "38: <t> 'x'",
        // [MQTT-2.3.1-1@3.1.1] Packet Identifier 0, or none.
        "32: <t> 0000 'x'",
        "34: <t> 0000 'x'",
        "32: <t>",
        "82: 0000 <t> 00",
        "A2: 0000 <t>",
        "40: 0000",
        "62: 0000",
        // [MQTT-3.3.2-1@3.1.1] [MQTT-1.5.3-1@3.1.1] No Topic Name, or one that is not UTF-8.
        "30:",
        "30: 0005 't'",
        "30: 0001 FF 'x'",
        "30: 0003 EDA080 'x'",
        "30: 0003 EDBFBF 'x'",
        "30: 0002 C080 'x'",
        "30: 0004 F4908080 'x'",
        // [MQTT-1.5.3-2@3.1.1] [MQTT-4.7.3-2@3.1.1] U+0000.
        "30: 0003 't' 00 't' 'x'",
        // [MQTT-3.3.2-2@3.1.1] [MQTT-4.7.1-1@3.1.1] Wildcards.
        "30: <t/+> 'x'",
        "30: <#> 'x'",
        "30: <a+b> 'x'",
        // [MQTT-4.7.3-1@3.1.1] An empty Topic Name.
        "30: <> 'x'",
        // [MQTT-2.2.2-2@3.1.1] Flags that are reserved: of PUBACK, PUBREC, PUBCOMP, PINGREQ;
        "41: 0001",
        "42: 0001",
        "54: 0001",
        "78: 0001",
        "C1:",
        // [MQTT-3.6.1-1@3.1.1] of PUBREL,
        "60: 0001",
        "63: 0001",
        "66: 0001",
        "6A: 0001",
        // [MQTT-3.8.1-1@3.1.1] SUBSCRIBE,
        "80: 0001 <t> 00",
        "83: 0001 <t> 00",
        "8A: 0001 <t> 00",
        // [MQTT-3.10.1-1@3.1.1] UNSUBSCRIBE,
        "A0: 0001 <t>",
        "A3: 0001 <t>",
        "AA: 0001 <t>",
        // [MQTT-3.14.1-1@3.1.1] and DISCONNECT.
        "E1:",
        "E8:",
        // [MQTT-3.8.3-1@3.1.1] [MQTT-3.10.3-1@3.1.1] Topic Filters that are not UTF-8 or have U+0000.
        "82: 0001 <t> 00 0001 FF 00",
        "82: 0001 0001 00 00",
        "A2: 0001 <t> 0001 FF",
        "A2: 0001 0001 00",
        // [MQTT-3.8.3-3@3.1.1] [MQTT-3.10.3-2@3.1.1] No Topic Filter.
        "82: 0001",
        "A2: 0001",
        // [MQTT-3.8.3-4@3.1.1] Reserved bits of the requested QoS, and QoS 3.
        "82: 0001 <t> 03",
        "82: 0001 <t> 04",
        "82: 0001 <t> 40",
        "82: 0001 <t> 80",
        "82: 0001 <t> 00 <u> 10",
        "82: 0001 <t>",
        // What only servers send, what 3.1.1 does not have, and what is too short or too long.
        "20: 00 00",
        "90: 0001 00",
        "B0: 0001",
        "D0:",
        "F0:",
        "00:",
        "40: 00",
        "40: 0001 00",
        "C0: 00",
        "E0: 00",
    ];
    scenario(|net| {
        let watcher = net.client(V3_1_1, "watcher");
        net.subscribe(watcher, "#", 0);
        for packet in rows {
            let client = net.durable(V3_1_1, "c", "20: 00 00");
            net.send(client, &format!("{packet} | 30: <behind> 'x' | C0:"));
            net.expect_closed(client, "");
            net.expect(watcher, "");
            // The session is kept, unharmed.
            let client = net.durable(V3_1_1, "c", "20: 01 00");
            net.send(client, "C0: | E0:");
            net.expect_closed(client, "D0:");
            let client = net.client(V3_1_1, "c");
            net.lose(client);
        }
    });
}

/// A Remaining Length of more than four bytes (section 2.2.3).
#[test]
fn remaining_length_that_does_not_end() {
    scenario(|net| {
        let client = net.client(V3_1_1, "c");
        net.send_bytes(client, &[0x30, 0xFF, 0xFF, 0xFF, 0xFF]);
        net.expect_closed(client, "");
    });
}

/// [MQTT-4.8.0-2@3.1.1] What cannot be taken in now is not acknowledged: the connection is closed, and the client still
/// has its message. The others notice nothing.
#[test]
fn transient_errors_end_the_connection() {
    scenario_with(&Setup::limits(|limits| limits.retained_messages_max = 1), |net| {
        let other = net.client(V3_1_1, "other");
        net.subscribe(other, "#", 0);
        net.send(other, "33: <a> 0001 '1'");
        net.expect(other, "30: <a> '1' | 40: 0001");
        for packet in ["33: <b> 0001 '2' | C0:", "35: <b> 0001 '2' | 62: 0001"] {
            let client = net.client(V3_1_1, "c");
            net.send(client, packet);
            net.expect_closed(client, "");
            net.expect(other, "");
        }
        let client = net.client(V3_1_1, "c");
        net.script().publish = Some(Box::new(|_| panic!("as scripted")));
        net.send(client, "32: <b> 0001 '3' | C0:");
        net.expect_closed(client, "");
        net.expect(other, "");
    });
}
