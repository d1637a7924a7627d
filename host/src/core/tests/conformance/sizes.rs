//! Maximum Packet Size and Request Problem Information, for each packet that the server sends.

use plugin_api::{AuthVerdict, ConnectVerdict, Disconnect, Property, PublishVerdict, ReasonCode, Reject};

use super::*;

/// With these, CONNACK has ten bytes, so that a client may have no room for more.
fn short_connack() -> Setup {
    Setup::limits(|limits| {
        limits.receive_maximum = u16::MAX;
        limits.topic_alias_max = 0;
    })
}

const SHORT_CONNACK: &str = "20: 00 00 {27 01000000}";

/// A client that takes packets of so many bytes.
fn client_with_room(net: &mut Net, bytes_max: u32, more: &str) -> usize {
    net.join(V5, &connect_packet(V5, "02", 0, &format!("27 {bytes_max:08X} {more}"), "c"), SHORT_CONNACK)
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25] PUBLISH of each kind: one that fits to the byte is sent, one with a byte more is dropped
/// as if it had been sent, and what comes behind it is not held up.
#[test]
fn publish() {
    scenario_with(&short_connack(), |net| {
        let from = net.join(V5, &connect_packet(V5, "02", 0, "", "from"), SHORT_CONNACK);
        let to = client_with_room(net, 12, "21 0002");
        net.send(to, "82: 0001 {} <t> 02");
        net.expect(to, "90: 0001 {} 02");
        net.send(from, "30: <t> {} '123456' | 30: <t> {} '1234567'");
        net.expect(to, "30: <t> {} '123456'");
        for (first, release) in [("32", ""), ("34", "62: 0001")] {
            net.send(from, &format!("{first}: <t> 0001 {{}} '12345' | {release}"));
            net.expect(to, "");
        }
        net.send(from, "32: <t> 0001 {} '1234' | 34: <t> 0002 {} '1234' | 62: 0002");
        net.expect(to, "32: <t> 0003 {} '1234' | 34: <t> 0004 {} '1234'");
        // Its quota is used up, so these wait. Those that do not fit take no part of it when their turn comes.
        net.send(from, "32: <t> 0001 {} '12345' | 32: <t> 0001 {} '5' | 32: <t> 0001 {} '12345' | 32: <t> 0001 {} '6'");
        net.expect(to, "");
        net.send(to, "40: 0003 | 50: 0004 | 70: 0004");
        net.expect(to, "32: <t> 0006 {} '5' | 62: 0004 | 32: <t> 0008 {} '6'");
        assert_eq!(net.count(|counters| counters.dropped_too_large.get()), 5);
        net.send(to, "40: 0006 | 40: 0008");
        // Retained messages and wills.
        net.send(from, "31: <r/a> {} '123456' | 31: <r/b> {} '1'");
        net.send(to, "82: 0002 {} <r/+> 00");
        net.expect(to, "90: 0002 {} 00 | 31: <r/b> {} '1'");
        for (will, sent) in [("<123456>", "30: <t> {} '123456'"), ("<1234567>", "")] {
            let leaves = net.join(V5, &format!("10: <MQTT> 05 06 0000 {{}} <w> {{}} <t> {will}"), SHORT_CONNACK);
            net.lose(leaves);
            net.expect(to, sent);
        }
        net.send(from, "31: <r/a> {} | 31: <r/b> {}");
    });
}

/// [MQTT-3.1.2-24] Answers that do not fit: they are dropped, and what was asked for is done.
#[test]
fn answers() {
    scenario_with(&short_connack(), |net| {
        let client = client_with_room(net, 10, "");
        net.send(client, "82: 0001 {} <a> 00 <b> 00 <c> 00 <d> 00 <e> 00");
        net.expect(client, "90: 0001 {} 00 00 00 00 00");
        net.send(client, "82: 0002 {} <a> 00 <b> 00 <c> 00 <d> 00 <e> 00 <f> 00");
        net.expect(client, "");
        net.send(client, "30: <f> {} 'x'");
        net.expect(client, "30: <f> {} 'x'");
        net.send(client, "A2: 0003 {} <a> <b> <c> <d> <e> <f>");
        net.expect(client, "");
        net.send(client, "30: <f> {} 'x' | A2: 0004 {} <a> <b> <c> <d> <e> | C0:");
        net.expect(client, "B0: 0004 {} 11 11 11 11 11 | D0:");
    });
}

/// [MQTT-3.1.2-24] [MQTT-4.13.2-1] [MQTT-3.2.2-7] CONNACK with an error, and AUTH: not even sent if the client has no room
/// for five bytes, and closed all the same.
#[test]
fn refusals() {
    scenario(|net| {
        net.script().auth = Some(Box::new(|_| Ok(AuthVerdict::Continue(b"who?".to_vec()))));
        net.script().connect = Some(Box::new(|asked| {
            let is_refused = asked.line.starts_with("connect no ");
            Ok(if is_refused { ConnectVerdict::reject(ReasonCode::BANNED) } else { ConnectVerdict::accept() })
        }));
        for (bytes_max, connack) in [(4, ""), (5, "20: 00 8A {}")] {
            let client = net.open(V5);
            net.send(client, &connect_packet(V5, "02", 0, &format!("27 {bytes_max:08X}"), "no"));
            net.expect_closed(client, connack);
        }
        for (bytes_max, connack) in [(4, ""), (5, "20: 00 95 {}"), (15, "20: 00 95 {}")] {
            let client = net.open(V5);
            net.send(client, &connect_packet(V5, "02", 0, &format!("27 {bytes_max:08X}"), "c"));
            net.expect_closed(client, connack);
        }
        // AUTH has 15 bytes.
        for (bytes_max, auth, connack) in
            [(4, "", ""), (14, "", "20: 00 82 {}"), (15, "F0: 18 {15 <m> 16 <who?>}", "20: 00 82 {}")]
        {
            let client = net.open(V5);
            net.send(client, &connect_packet(V5, "02", 0, &format!("27 {bytes_max:08X} 15 <m>"), "c"));
            net.expect(client, auth);
            net.send(client, "C0:");
            net.expect_closed(client, connack);
        }
    });
}

/// Answers with Reason Strings and User Properties wherever a handler can give them.
fn explain_everything(net: &Net) {
    let mut script = net.script();
    script.publish = Some(Box::new(|asked| {
        let user = Property::UserProperty("name", "value");
        Ok(match asked.message.as_ref().expect("a message").topic.as_str() {
            "end" => PublishVerdict::Disconnect(
                Disconnect::new(ReasonCode::NOT_AUTHORIZED).reason_string("a reason").property(user),
            ),
            "no" => {
                PublishVerdict::Reject(Reject::new(ReasonCode::NOT_AUTHORIZED).reason_string("a reason").property(user))
            }
            _ => PublishVerdict::Forward,
        })
    }));
}

/// What a client sends, and what it gets of each packet that may explain something.
const EXPLAINED: [(&str, &str); 8] = [
    ("32: <no> 0001 {} 'x'", "40: 0001 87"),
    ("34: <no> 0002 {} 'x'", "50: 0002 87"),
    ("50: 0009", "62: 0009 92"),
    ("62: 0009", "70: 0009 92"),
    ("82: 0003 {} <a#> 00", "90: 0003 {} 8F"),
    ("A2: 0004 {} <a>", "B0: 0004 {} 11"),
    ("32: <t> 0005 {} 'x'", "40: 0005 10"),
    ("C0:", "D0:"),
];

const EXPLANATION: &str = "{1F <a reason> 26 <name> <value>}";

/// [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3]
/// [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2] [MQTT-3.14.2-3] [MQTT-3.14.2-4] Explanations are left out
/// for who has no room for them, to the byte, and never take the packet with them. Only PUBACK, PUBREC and DISCONNECT have
/// any.
#[test]
fn explanations_that_do_not_fit() {
    // PUBACK or PUBREC with both have 31 bytes, DISCONNECT 29.
    for (bytes_max, acks, disconnect) in
        [(10, "", ""), (28, "", ""), (30, "", EXPLANATION), (31, EXPLANATION, EXPLANATION)]
    {
        scenario_with(&short_connack(), |net| {
            explain_everything(net);
            let client = client_with_room(net, bytes_max, "");
            for (packet, answer) in EXPLAINED {
                net.send(client, packet);
                let explanation = if answer.ends_with("87") { acks } else { "" };
                net.expect(client, &format!("{answer} {explanation}"));
            }
            net.send(client, "30: <end> {} 'x'");
            net.expect_closed(
                client,
                &if disconnect.is_empty() { "E0: 87".into() } else { format!("E0: 87 {disconnect}") },
            );
        });
    }
}

/// [MQTT-3.1.2-29] Who asks for no problem information gets explanations in DISCONNECT and CONNACK at most.
#[test]
fn explanations_that_are_not_wanted() {
    for (wanted, acks) in [("17 00", ""), ("17 01", EXPLANATION), ("", EXPLANATION)] {
        scenario_with(&short_connack(), |net| {
            explain_everything(net);
            let client = net.join(V5, &connect_packet(V5, "02", 0, wanted, "c"), SHORT_CONNACK);
            for (packet, answer) in EXPLAINED {
                net.send(client, packet);
                let explanation = if answer.ends_with("87") { acks } else { "" };
                net.expect(client, &format!("{answer} {explanation}"));
            }
            net.send(client, "30: <end> {} 'x'");
            net.expect_closed(client, &format!("E0: 87 {EXPLANATION}"));
            net.script().connect = Some(Box::new(|_| {
                Ok(ConnectVerdict::Reject(Reject::new(ReasonCode::BANNED).reason_string("a reason")))
            }));
            let client = net.open(V5);
            net.send(client, &connect_packet(V5, "02", 0, wanted, "c"));
            net.expect_closed(client, "20: 00 8A {1F <a reason>}");
        });
    }
}

/// [MQTT-3.15.2-2] [MQTT-3.15.2-3] [MQTT-3.1.2-29] AUTH has method and data, whatever room there is.
#[test]
fn auth_explains_nothing() {
    for wanted in ["", "17 00", "17 01", "27 00000013"] {
        scenario_with(&short_connack(), |net| {
            net.script().auth = Some(Box::new(|asked| {
                Ok(match asked.data.as_deref() {
                    Some(b"ok") => AuthVerdict::OkWith(b"hi".to_vec()),
                    Some(b"no") => {
                        AuthVerdict::Error(Reject::new(ReasonCode::NOT_AUTHORIZED).reason_string("a long reason"))
                    }
                    _ => AuthVerdict::Continue(b"?".to_vec()),
                })
            }));
            let connect = connect_packet(V5, "02", 0, &format!("{wanted} 15 <m>"), "c");
            let client = net.join(V5, &connect, "F0: 18 {15 <m> 16 <?>}");
            net.send(client, "F0: 18 {15 <m> 16 <ok> 1F <because> 26 <a> <b>}");
            net.expect(client, "20: 00 00 {27 01000000 15 <m> 16 <hi>}");
            net.send(client, "F0: 19 {15 <m> 26 <a> <b>}");
            net.expect(client, "F0: 18 {15 <m> 16 <?>}");
            net.send(client, "F0: 18 {15 <m> 16 <ok>}");
            net.expect(client, "F0: 00 {15 <m> 16 <hi>}");
            net.send(client, "F0: 19 {15 <m> 16 <no>}");
            let fits = if wanted.starts_with("27") { "E0: 87" } else { "E0: 87 {1F <a long reason>}" };
            net.expect_closed(client, fits);
        });
    }
}
