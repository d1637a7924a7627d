//! PUBLISH to a client: Packet Identifiers, acknowledgements, resending, order, Receive Maximum.

use super::net::{connect_packet, resumed};
use super::*;
use crate::codec::PacketId;

/// [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-4.3.3-4] and what handlers hear of it.
/// [MQTT-2.2.1-5] [MQTT-4.3.2-2] [MQTT-4.3.3-2]
#[test]
fn acknowledgements_end_a_delivery() {
    for version in VERSIONS {
        scenario(|net| {
            let (from, to) = (net.client(version, "from"), net.client(version, "to"));
            net.subscribe(to, "t", 2);
            net.send(from, "32: <t> 0001 [{}] '1' | 34: <t> 0002 [{}] '2' | 62: 0002");
            net.expect(to, "32: <t> 0001 [{}] '1' | 34: <t> 0002 [{}] '2'");
            net.send(to, "40: 0001");
            net.expect(to, "");
            net.send(to, "50: 0002");
            net.expect(to, "62: 0002");
            // PUBREC again: PUBREL again [MQTT-4.3.3-5].
            net.send(to, "50: 0002");
            net.expect(to, "62: 0002");
            net.send(to, "70: 0002");
            net.expect(to, "");
            assert_eq!(net.script().take("puback"), ["puback to Puback 1 00", "puback to Pubcomp 2 00"]);
            assert!(net.session("to").expect("connected").in_flight.is_empty());
        });
    }
}

/// [MQTT-4.4.0-2] A refusal by the client ends a delivery, too.
#[test]
fn client_refuses_a_message() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "t", 2);
        net.send(from, "32: <t> 0001 {} '1' | 34: <t> 0002 {} '2' | 62: 0002");
        net.take(to);
        net.send(to, "40: 0001 97 | 50: 0002 97");
        net.expect(to, "");
        assert_eq!(net.script().take("puback"), ["puback to Puback 1 97", "puback to Pubrec 2 97"]);
        assert!(net.session("to").expect("connected").in_flight.is_empty());
    });
}

/// What acknowledges nothing changes nothing.
/// [MQTT-3.6.2-1] [MQTT-3.6.2-2] [MQTT-3.6.2-3]
#[test]
fn acknowledgements_of_nothing() {
    for (version, unknown) in [(V3_1_1, "62: 0009"), (V5, "62: 0009 92")] {
        scenario(|net| {
            let (from, to) = (net.client(version, "from"), net.client(version, "to"));
            net.subscribe(to, "t", 2);
            net.send(from, "32: <t> 0001 [{}] '1' | 34: <t> 0002 [{}] '2' | 62: 0002");
            net.take(to);
            net.send(to, "40: 0009 | 70: 0009");
            net.expect(to, "");
            net.send(to, "50: 0009");
            net.expect(to, unknown);
            assert_eq!(net.session("to").expect("connected").in_flight.len(), 2);
            assert_eq!(net.script().take("puback"), [""; 0]);
            net.send(to, "40: 0001 | 50: 0002 | 70: 0002");
            net.expect(to, "62: 0002");
            assert!(net.session("to").expect("connected").in_flight.is_empty());
        });
    }
}

/// [MQTT-4.13.1-1] What acknowledges a message of another QoS, or skips a step, does not fit the state of the session.
#[test]
fn acknowledgements_of_another_kind() {
    for version in VERSIONS {
        for wrong in ["40: 0002", "50: 0001", "70: 0001", "70: 0002", "50: 0002 | 40: 0002"] {
            scenario(|net| {
                let (from, to) = (net.client(version, "from"), net.client(version, "to"));
                net.subscribe(to, "t", 2);
                net.send(from, "32: <t> 0001 [{}] '1' | 34: <t> 0002 [{}] '2' | 62: 0002");
                net.take(to);
                net.send(to, wrong);
                let pubrel = if wrong.contains('|') { "62: 0002 | " } else { "" };
                let disconnect = if version == V5 { "E0: 82" } else { "" };
                net.expect_closed(to, &format!("{pubrel}{disconnect}"));
            });
        }
    }
}

/// [MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-4.3.3-6] With DUP, in the original order, with the original identifiers; a
/// released message as PUBREL; then what came while the client was away.
/// [MQTT-3.1.2-5] [MQTT-3.2.0-1] [MQTT-3.3.1-3] [MQTT-4.3.2-3] [MQTT-4.3.3-3] [MQTT-4.3.3-5]
#[test]
fn resumed_session_is_sent_again_what_was_in_flight() {
    for version in VERSIONS {
        scenario(|net| {
            let from = net.client(version, "from");
            let to = net.durable(version, "to", CONNACK);
            net.subscribe(to, "t", 2);
            for number in 1..=5 {
                let qos2 = format!("34: <t> 0002 [{{}}] '{number}' | 62: 0002");
                let qos1 = format!("32: <t> 0001 [{{}}] '{number}'");
                net.send(from, if number % 2 == 0 { &qos2 } else { &qos1 });
            }
            net.take(to);
            net.send(to, "40: 0003 | 50: 0002");
            net.expect(to, "62: 0002");
            net.lose(to);
            net.send(from, "32: <t> 0001 [{}] '6' | 30: <t> [{}] 'zero' | 34: <t> 0001 [{}] '7' | 62: 0001");
            let again = "3A: <t> 0001 [{}] '1' | 62: 0002 | 3C: <t> 0004 [{}] '4' | 3A: <t> 0005 [{}] '5'";
            let connack = format!("{} | {again} | 32: <t> 0006 [{{}}] '6' | 34: <t> 0007 [{{}}] '7'", resumed(version));
            let to = net.durable(version, "to", &connack);
            net.send(to, "40: 0001 | 70: 0002 | 50: 0004 | 40: 0005 | 40: 0006 | 50: 0007 | 70: 0004 | 70: 0007");
            net.expect(to, "62: 0004 | 62: 0007");
            net.lose(to);
            // Nothing is sent at another time than this one.
            let to = net.durable(version, "to", resumed(version));
            net.advance(3_000_000);
            net.expect(to, "");
        });
    }
}

/// [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.9.0-3] [MQTT-3.3.4-9]
/// [MQTT-3.3.4-10]
#[test]
fn receive_maximum_of_the_client() {
    scenario(|net| {
        let from = net.v5("from");
        let to = net.join(V5, &connect_packet(V5, "02", 0, "21 0002", "to"), CONNACK);
        net.subscribe(to, "t", 2);
        for number in 1..=4 {
            net.send(from, &format!("32: <t> 0001 {{}} '{number}'"));
        }
        net.send(from, "34: <t> 0002 {} '5' | 62: 0002");
        net.expect(to, "32: <t> 0001 {} '1' | 32: <t> 0002 {} '2'");
        net.send(from, "30: <t> {} 'zero'");
        net.send(to, "C0:");
        net.expect(to, "30: <t> {} 'zero' | D0:");
        net.send(to, "40: 0002"); // not in order
        net.expect(to, "32: <t> 0003 {} '3'");
        net.send(to, "40: 0001 | 40: 0003");
        net.expect(to, "32: <t> 0004 {} '4' | 34: <t> 0005 {} '5'");
        net.send(from, "32: <t> 0001 {} '6'");
        // PUBREC without an error does not make room; PUBCOMP does.
        net.send(to, "50: 0005");
        net.expect(to, "62: 0005");
        net.send(to, "70: 0005");
        net.expect(to, "32: <t> 0006 {} '6'");
        net.send(from, "34: <t> 0002 {} '7' | 62: 0002 | 32: <t> 0001 {} '8'");
        net.send(to, "40: 0006");
        net.expect(to, "34: <t> 0007 {} '7'");
        net.send(to, "50: 0007 80"); // PUBREC with an error does.
        net.expect(to, "32: <t> 0008 {} '8'");
    });
}

/// A resumed session that comes back with a smaller Receive Maximum: it holds for what is sent again, too.
/// [MQTT-3.3.4-9]
#[test]
fn resending_respects_the_receive_maximum() {
    scenario(|net| {
        let from = net.v5("from");
        let to = net.durable(V5, "to", CONNACK);
        net.subscribe(to, "t", 1);
        for number in 1..=4 {
            net.send(from, &format!("32: <t> 0001 {{}} '{number}'"));
        }
        net.take(to);
        net.lose(to);
        net.send(from, "32: <t> 0001 {} '5'");
        let connack = format!("{CONNACK_RESUMED} | 3A: <t> 0001 {{}} '1' | 3A: <t> 0002 {{}} '2'");
        let to = net.join(V5, &connect_packet(V5, "00", 0, "11 00000E10 21 0002", "to"), &connack);
        net.send(to, "40: 0002");
        net.expect(to, "3A: <t> 0003 {} '3'");
        net.send(to, "40: 0004"); // It has that one from before.
        net.expect(to, "");
        net.send(to, "40: 0001");
        net.expect(to, "32: <t> 0005 {} '5'");
        net.send(to, "40: 0003 | 40: 0005");
        net.expect(to, "");
        assert!(net.session("to").expect("connected").in_flight.is_empty());
    });
}

/// [MQTT-4.6.0-5] [MQTT-4.6.0-6] Live messages do not overtake those that wait.
#[test]
fn order_is_kept_while_messages_wait() {
    scenario(|net| {
        let from = net.v5("from");
        let to = net.join(V5, &connect_packet(V5, "02", 0, "21 0001", "to"), CONNACK);
        net.subscribe(to, "t", 1);
        for number in 0..20 {
            net.send(from, &format!("32: <t> 0001 {{}} {number:02X}"));
            if number % 3 == 0 {
                net.send(to, &format!("40: {:04X}", number / 3 + 1));
            }
        }
        for id in 8..=20 {
            net.send(to, &format!("40: {id:04X}"));
        }
        let expected: Vec<String> =
            (0..20).map(|number| format!("32: <t> {:04X} {{}} {number:02X}", number + 1)).collect();
        net.expect(to, &expected.join(" | "));
    });
}

/// [MQTT-2.2.1-4] Identifiers wrap at 65,535, skip 0, and one that is still in use is waited for.
/// [MQTT-4.3.2-1]
#[test]
fn packet_identifiers_wrap_and_are_waited_for() {
    let setup = Setup::limits(|limits| limits.in_flight_max = u16::MAX);
    scenario_in(MODES[0], &setup, |net| {
        let from = net.v5("from");
        let to = net.v5("to");
        net.subscribe(to, "t", 1);
        let acknowledge = |net: &mut Net, ids: std::ops::RangeInclusive<u16>| {
            let acks: Vec<u8> = ids.flat_map(|id| [0x40, 2, (id >> 8) as u8, id as u8]).collect();
            net.send_bytes(to, &acks);
        };
        for _ in 0..u16::MAX / 255 {
            net.send(from, &vec!["32: <t> 0001 {} 'x'"; 255].join(" | "));
        }
        net.take(from);
        let in_flight = |net: &Net| net.session("to").expect("connected").in_flight.len();
        assert_eq!(in_flight(net), 65_535);
        let last = net.take(to);
        assert!(last.ends_with(&[0x32, 7, 0, 1, b't', 0xFF, 0xFF, 0, b'x']));
        // All are in use.
        net.send(from, "32: <t> 0001 {} 'y'");
        net.expect(to, "");
        // The next one, which is 1, still is.
        acknowledge(net, 2..=10);
        net.expect(to, "");
        acknowledge(net, 1..=1);
        net.expect(to, "32: <t> 0001 {} 'y'");
        acknowledge(net, 11..=u16::MAX);
        acknowledge(net, 1..=1);
        assert_eq!(in_flight(net), 0);
        net.send(from, "32: <t> 0001 {} 'z'");
        net.expect(to, "32: <t> 0002 {} 'z'");
        let oldest = net.session("to").expect("connected").in_flight.oldest();
        assert_eq!(oldest, PacketId::new(2));
    });
}

/// [MQTT-3.3.2-6] What is left of the Message Expiry Interval, and [MQTT-3.3.2-5] nothing of what has expired.
#[test]
fn message_expiry_interval() {
    scenario(|net| {
        let from = net.v5("from");
        let to = net.durable(V5, "to", CONNACK);
        net.subscribe(to, "t", 1);
        net.send(from, "32: <t> 0001 {26 <a> <b> 02 0000000A} '1'");
        net.expect(to, "32: <t> 0001 {26 <a> <b> 02 0000000A} '1'");
        net.lose(to);
        net.send(from, "32: <t> 0001 {02 0000000A} '2' | 32: <t> 0001 {02 00000014} '3' | 32: <t> 0001 {} '4'");
        net.advance(9_001);
        let to = net.durable(
            V5,
            "to",
            &format!(
                "{CONNACK_RESUMED} | 3A: <t> 0001 {{26 <a> <b> 02 00000001}} '1' | 32: <t> 0002 {{02 00000001}} '2'
                | 32: <t> 0003 {{02 0000000B}} '3' | 32: <t> 0004 {{}} '4'"
            ),
        );
        net.send(to, "40: 0001 | 40: 0002 | 40: 0003 | 40: 0004");
        net.lose(to);
        net.send(from, "32: <t> 0001 {02 0000000A} '5' | 32: <t> 0001 {02 00000014} '6'");
        net.advance(10_000);
        net.durable(V5, "to", &format!("{CONNACK_RESUMED} | 32: <t> 0005 {{02 0000000A}} '6'"));
        assert_eq!(net.count(|counters| counters.dropped_expired.get()), 1);
    });
}

/// [MQTT-4.3.3-13] [MQTT-4.3.3-7] A QoS 2 message that expires before its PUBREL is not delivered, but acknowledged.
#[test]
fn qos_2_message_that_expires_before_it_is_released() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "t", 2);
        net.send(from, "34: <t> 0001 {02 00000001} 'x' | 34: <t> 0002 {02 00000002} 'y'");
        net.advance(1_000);
        net.send(from, "62: 0001 | 62: 0002");
        net.expect(from, "50: 0001 | 50: 0002 | 70: 0001 | 70: 0002");
        net.expect(to, "34: <t> 0001 {02 00000001} 'y'");
    });
}

/// One message to many: what differs between them is each one's own, whoever else gets the same bytes.
#[test]
fn fan_out_to_clients_of_all_kinds() {
    scenario(|net| {
        let from = net.v5("from");
        let mut clients = Vec::new();
        for version in VERSIONS {
            for granted in 0..=2_u8 {
                for number in 0..3 {
                    let client = net.client(version, &format!("v{}-{granted}-{number}", version as u8));
                    // Some have an identifier, or want RETAIN as it was published.
                    let (properties, options) = match (version, number) {
                        (V5, 1) => ("0B 8101", granted),
                        (V5, 2) => ("", granted | 8),
                        _ => ("", granted),
                    };
                    net.send(client, &format!("82: 0001 [{{{properties}}}] <long/topic> {options:02X}"));
                    net.expect(client, &format!("90: 0001 [{{}}] {granted:02X}"));
                    clients.push((client, version, granted, number));
                }
            }
        }
        for round in 1..=3_u8 {
            for (qos, first) in [(0_u8, "31"), (1, "33"), (2, "35")] {
                let id = if qos == 0 { "" } else { "0001" };
                net.send(from, &format!("{first}: <long/topic> {id} {{26 <a> <b> 02 0000000A}} 'payload' {round:02X}"));
                net.send(from, if qos == 2 { "62: 0001" } else { "" });
                for &(client, version, granted, number) in &clients {
                    let delivered = qos.min(granted);
                    // Identifiers are given one after the other, to what has one.
                    let id = match (granted, delivered) {
                        (_, 0) => String::new(),
                        (1 | 2, _) => format!("{:04X}", (u16::from(round) - 1) * 2 + u16::from(qos)),
                        _ => unreachable!("delivered is at most what was granted"),
                    };
                    let retain = u8::from(version == V5 && number == 2);
                    let identifier = if number == 1 { "0B 8101" } else { "" };
                    net.expect(
                        client,
                        &format!(
                            "{:02X}: <long/topic> {id} [{{26 <a> <b> 02 0000000A {identifier}}}] 'payload' {round:02X}",
                            0x30 | delivered << 1 | retain
                        ),
                    );
                }
            }
        }
    });
}

/// A message that is dropped because it is too large leaves no buffer with its receiver, which has nothing to send.
#[test]
fn message_that_is_too_large_takes_no_buffer() {
    scenario(|net| {
        let from = net.v5("from");
        let to = net.join(V5, &connect_packet(V5, "02", 0, "27 00000028", "to"), CONNACK);
        net.subscribe(to, "t", 1);
        for first in ["30: <t>", "32: <t> 0001"] {
            net.send(from, &format!("{first} {{}} '{}'", "x".repeat(50)));
            let (worker, slot) = net.place(to);
            assert_eq!(net.cores[worker].connections[slot as usize].out.capacity(), 0);
        }
        net.expect(to, "");
    });
}
