//! Clean Session, what a session keeps, and what is sent again when its client comes back.

use super::*;

/// What a test does with a client's connection to end it.
const ENDS: [&str; 3] = ["DISCONNECT", "loss", "protocol violation"];

fn end(net: &mut Net, client: usize, how: &str) {
    match how {
        "DISCONNECT" => net.send(client, "E0:"),
        "protocol violation" => net.send(client, "36: <t> 0001 'x'"),
        _ => return net.lose(client),
    }
    net.expect_closed(client, "");
}

/// [MQTT-3.1.2-4@3.1.1] [MQTT-4.1.0-1@3.1.1] However the connection ended, the session is there when the client comes
/// back: subscriptions, what waits, what is in flight in either direction.
#[test]
fn session_is_resumed() {
    for version in OLD {
        for how in ENDS {
            scenario(|net| {
                let from = net.client(version, "from");
                let client = net.durable(version, "c", "20: 00 00");
                net.subscribe(client, "t/#", 2);
                net.send(from, "32: <t/1> 0001 '1' | 34: <t/2> 0002 '2' | 62: 0002 | 34: <t/3> 0003 '3' | 62: 0003");
                net.expect(client, "32: <t/1> 0001 '1' | 34: <t/2> 0002 '2' | 34: <t/3> 0003 '3'");
                net.send(client, "50: 0003 | 34: <t/own> 0009 'own'");
                net.expect(client, "62: 0003 | 50: 0009");
                end(net, client, how);
                net.send(from, "32: <t/4> 0004 '4'");
                let again = "3A: <t/1> 0001 '1' | 3C: <t/2> 0002 '2' | 62: 0003 | 32: <t/4> 0004 '4'";
                let client = net.durable(version, "c", &format!("{} | {again}", resumed(version)));
                net.send(client, "3C: <t/own> 0009 'own' | 62: 0009");
                net.expect(client, "50: 0009 | 34: <t/own> 0005 'own' | 70: 0009");
            });
        }
    }
}

/// [MQTT-3.1.2-4@3.1.1] Without one there is a new session, which has nothing of anybody's.
#[test]
fn session_is_created() {
    scenario(|net| {
        let other = net.durable(V3_1_1, "other", "20: 00 00");
        net.subscribe(other, "t", 1);
        let client = net.durable(V3_1_1, "c", "20: 00 00");
        net.send(client, "32: <t> 0001 'x'");
        net.expect(client, "40: 0001");
        net.expect(other, "32: <t> 0001 'x'");
    });
}

/// [MQTT-3.1.2-5@3.1.1] [MQTT-4.5.0-1@3.1.1] What matches while the client is away waits for it, with the QoS of the
/// subscription, in order; QoS 0 is not kept (section 4.1 leaves it open), nor is what does not match.
#[test]
fn messages_are_stored_for_a_client_that_is_away() {
    for version in OLD {
        scenario(|net| {
            let from = net.client(version, "from");
            let client = net.durable(version, "c", "20: 00 00");
            net.send(client, "82: 0001 <zero> 00 <one/+> 01 <two/#> 02");
            net.expect(client, "90: 0001 00 01 02");
            net.send(client, "E0:");
            net.expect_closed(client, "");
            net.send(from, "30: <two> '-' | 32: <zero> 0001 '-' | 32: <other> 0002 '-' | 32: <one> 0003 '-'");
            net.send(from, "32: <two> 0004 'a' | 34: <one/1> 0005 'b' | 34: <two/2> 0006 'c' | 62: 0006 | 62: 0005");
            net.send(from, "33: <two/3> 0007 'd'");
            let waiting = "32: <two> 0001 'a' | 34: <two/2> 0002 'c' | 32: <one/1> 0003 'b' | 32: <two/3> 0004 'd'";
            net.durable(version, "c", &format!("{} | {waiting}", resumed(version)));
        });
    }
}

/// [MQTT-3.1.2-6@3.1.1] With a clean session nothing of the session before is left, in neither direction, and nothing of
/// this one is there for the next.
#[test]
fn clean_session_begins_with_nothing() {
    for version in OLD {
        scenario(|net| {
            let from = net.client(version, "from");
            for flags in ["00", "02"] {
                let client = net.join(version, &connect_packet(version, flags, 0, "", "c"), "20: 00 00");
                net.subscribe(client, "t", 2);
                net.send(from, "32: <t> 0001 '1' | 34: <t> 0002 '2' | 62: 0002 | 34: <t> 0003 '3' | 62: 0003");
                net.take(client);
                net.send(client, "50: 0003 | 34: <t> 0009 'unreleased'");
                net.expect(client, "62: 0003 | 50: 0009");
                net.lose(client);
                net.send(from, "32: <t> 0004 '4'");
                let client = net.client(version, "c");
                net.send(from, "32: <t> 0005 '5'");
                net.send(client, "32: <t> 0006 '6'");
                net.expect(client, "40: 0006");
                // The identifier that was not released before is as good as any.
                net.send(client, "82: 0001 <t> 00 | 34: <t> 0009 'new' | 62: 0009");
                net.expect(client, "90: 0001 00 | 50: 0009 | 30: <t> 'new' | 70: 0009");
                net.lose(client);
                assert!(net.session("c").is_none());
            }
        });
    }
}

/// [MQTT-4.1.0-2@3.1.1] A session does not end under a connection, however long that lasts and whatever the bound.
#[test]
fn session_lasts_as_long_as_its_connection() {
    let setup = Setup::limits(|limits| {
        limits.session_expiry_secs_max = 60;
        limits.persistent_expiry_3x_secs = 60;
    });
    scenario_with(&setup, |net| {
        for (flags, connack) in [("02", "20: 00 00"), ("00", "20: 00 00"), ("00", "20: 01 00")] {
            let client = net.join(V3_1_1, &connect_packet(V3_1_1, flags, 0, "", "c"), connack);
            net.send(client, "82: 0001 <t> 01 | 34: <t> 0001 'x'");
            net.expect(client, "90: 0001 01 | 50: 0001");
            net.advance(10 * 24 * 3600 * 1000);
            net.send(client, "A2: 0002 <t> | 82: 0003 <t> 00 | 62: 0001");
            net.expect(client, "B0: 0002 | 90: 0003 00 | 30: <t> 'x' | 70: 0001");
            net.lose(client);
        }
        // Nor before its time is over.
        net.advance(59_999);
        assert!(net.session("c").is_some());
        net.advance(1);
        assert!(net.session("c").is_none());
    });
}

/// [MQTT-3.1.2-7@3.1.1] Retained messages are nobody's: they stay when the session of their publisher or of a subscriber
/// ends.
#[test]
fn retained_messages_outlive_sessions() {
    scenario(|net| {
        for flags in ["00", "02"] {
            let from = net.join(V3_1_1, &connect_packet(V3_1_1, flags, 0, "", "from"), "20: 00 00");
            net.send(from, "82: 0001 <t> 00 | 31: <t> 'x'");
            net.expect(from, "90: 0001 00 | 30: <t> 'x'");
            net.lose(from);
            let from = net.client(V3_1_1, "from");
            net.send(from, "82: 0001 <t> 00");
            net.expect(from, "90: 0001 00 | 31: <t> 'x'");
            net.send(from, "31: <t>");
            net.lose(from);
            assert!(net.session("from").is_none());
        }
    });
}

/// [MQTT-4.4.0-1@3.1.1] [MQTT-3.3.1-1@3.1.1] [MQTT-2.3.1-4@3.1.1] [MQTT-4.6.0-1@3.1.1] What is not acknowledged is sent
/// again with DUP, in the original order and with the original identifiers, at every return until it is acknowledged.
#[test]
fn unacknowledged_packets_are_sent_again() {
    for version in OLD {
        scenario(|net| {
            let from = net.client(version, "from");
            let client = net.durable(version, "c", "20: 00 00");
            net.subscribe(client, "t", 2);
            for number in 1..=6 {
                let qos = if number % 2 == 0 { "34" } else { "32" };
                net.send(from, &format!("{qos}: <t> 0001 '{number}' | 62: 0001"));
            }
            net.take(client);
            // Not in order: 2 is released, 4 not, 5 is done.
            net.send(client, "50: 0006 | 50: 0002 | 40: 0005 | 70: 0006");
            net.expect(client, "62: 0006 | 62: 0002");
            net.lose(client);
            let again = "3A: <t> 0001 '1' | 62: 0002 | 3A: <t> 0003 '3' | 3C: <t> 0004 '4'";
            for _ in 0..3 {
                let client = net.durable(version, "c", &format!("{} | {again}", resumed(version)));
                net.lose(client);
            }
            let client = net.durable(version, "c", &format!("{} | {again}", resumed(version)));
            net.send(client, "40: 0001 | 70: 0002 | 40: 0003 | 50: 0004");
            net.expect(client, "62: 0004");
            net.lose(client);
            // [MQTT-4.3.3-1@3.1.1] Once it is released it is never sent as PUBLISH again.
            let client = net.durable(version, "c", &format!("{} | 62: 0004", resumed(version)));
            net.send(client, "70: 0004");
            net.lose(client);
            // Identifiers go on behind those that were used last.
            net.send(from, "32: <t> 0001 '7'");
            net.durable(version, "c", &format!("{} | 32: <t> 0007 '7'", resumed(version)));
        });
    }
}

/// Section 4.4: that is the only moment. On a connection nothing is sent twice, however long an answer takes.
#[test]
fn nothing_is_sent_again_while_connected() {
    for version in OLD {
        scenario(|net| {
            let client = net.durable(version, "c", "20: 00 00");
            net.subscribe(client, "t", 2);
            net.send(client, "32: <t> 0001 '1' | 34: <t> 0002 '2' | 62: 0002");
            net.expect(client, "32: <t> 0001 '1' | 40: 0001 | 50: 0002 | 34: <t> 0002 '2' | 70: 0002");
            for _ in 0..100 {
                net.advance(3_600_000);
                net.expect(client, "");
            }
            net.send(client, "50: 0002");
            net.expect(client, "62: 0002");
            net.advance(3_600_000);
            net.expect(client, "");
        });
    }
}
