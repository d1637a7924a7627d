//! PUBLISH to a client: QoS, Packet Identifiers, order.

use super::*;

/// [MQTT-4.3.1-1@3.1.1] [MQTT-2.3.1-5@3.1.1] [MQTT-3.3.1-2@3.1.1] QoS 0: no identifier, no DUP, and nothing of it left.
#[test]
fn qos_0() {
    for version in OLD {
        scenario(|net| {
            let from = net.client(version, "from");
            let to = net.durable(version, "to", "20: 00 00");
            net.subscribe(to, "t", 0);
            net.send(from, "30: <t> '0' | 3A: <t> 0001 '1' | 3C: <t> 0002 '2' | 62: 0002");
            net.expect(to, "30: <t> '0' | 30: <t> '1' | 30: <t> '2'");
            net.lose(to);
            net.durable(version, "to", resumed(version));
        });
    }
}

/// [MQTT-4.3.2-1@3.1.1] QoS 1: an identifier of its own, DUP 0, and unacknowledged until PUBACK comes.
#[test]
fn qos_1() {
    for version in OLD {
        scenario(|net| {
            let from = net.client(version, "from");
            let to = net.durable(version, "to", "20: 00 00");
            net.subscribe(to, "t", 1);
            net.send(from, "3A: <t> 0009 '1' | 34: <t> 0009 '2' | 62: 0009 | 32: <t> 000A '3'");
            net.expect(to, "32: <t> 0001 '1' | 32: <t> 0002 '2' | 32: <t> 0003 '3'");
            net.send(to, "40: 0002");
            net.lose(to);
            let to = net.durable(version, "to", &format!("{} | 3A: <t> 0001 '1' | 3A: <t> 0003 '3'", resumed(version)));
            net.send(to, "40: 0001 | 40: 0003");
            net.lose(to);
            net.durable(version, "to", resumed(version));
        });
    }
}

/// [MQTT-4.3.3-1@3.1.1] [MQTT-2.3.1-6@3.1.1] QoS 2: PUBREL with the same identifier answers PUBREC, each time; both are
/// unacknowledged until the other side has answered, and after PUBREC there is no PUBLISH any more.
#[test]
fn qos_2() {
    for version in OLD {
        scenario(|net| {
            let from = net.client(version, "from");
            let to = net.durable(version, "to", "20: 00 00");
            net.subscribe(to, "t", 2);
            net.send(from, "3C: <t> 0009 'x' | 62: 0009");
            net.expect(to, "34: <t> 0001 'x'");
            net.lose(to);
            let to = net.durable(version, "to", &format!("{} | 3C: <t> 0001 'x'", resumed(version)));
            net.send(to, "50: 0001 | 50: 0001");
            net.expect(to, "62: 0001 | 62: 0001");
            net.lose(to);
            let to = net.durable(version, "to", &format!("{} | 62: 0001", resumed(version)));
            net.send(to, "50: 0001");
            net.expect(to, "62: 0001");
            net.send(to, "70: 0001");
            net.expect(to, "");
            net.lose(to);
            net.durable(version, "to", resumed(version));
        });
    }
}

/// [MQTT-2.3.1-4@3.1.1] [MQTT-2.3.1-1@3.1.1] An identifier is free again once its message is acknowledged, and not
/// before; 0 is none.
#[test]
fn packet_identifiers_are_used_again() {
    scenario_in(MODES[0], &Setup::default(), |net| {
        let from = net.client(V3_1_1, "from");
        let to = net.client(V3_1_1, "to");
        net.subscribe(to, "t", 1);
        for id in 1..=u16::MAX {
            net.send(from, "32: <t> 0001 'x'");
            net.expect(to, &format!("32: <t> {id:04X} 'x'"));
            if id != 3 {
                net.send(to, &format!("40: {id:04X}"));
            }
        }
        net.send(from, "32: <t> 0001 'x' | 32: <t> 0001 'x' | 32: <t> 0001 'x'");
        net.expect(to, "32: <t> 0001 'x' | 32: <t> 0002 'x'");
        net.send(to, "40: 0001 | 40: 0002");
        net.expect(to, "");
        net.send(to, "40: 0003");
        net.expect(to, "32: <t> 0003 'x'");
    });
}

/// [MQTT-4.6.0-5@3.1.1] [MQTT-4.6.0-6@3.1.1] What one client has published arrives in that order, for each QoS, at
/// subscribers of every QoS, whether they are connected, away or slow.
#[test]
fn order_is_that_of_the_publisher() {
    const COUNT: usize = 30;
    for qos in 0..=2_u8 {
        scenario(|net| {
            let from = net.client(V3_1_1, "from");
            let there = net.client(V3_1_1, "there");
            let slow = net.client(V3_1_1, "slow");
            let away = net.durable(V3_1_1, "away", "20: 00 00");
            for client in [there, slow, away] {
                net.subscribe(client, "t", qos);
            }
            net.lose(away);
            net.stall(slow, true);
            for number in 0..COUNT {
                net.send(from, &format!("34: <t> 0001 {number:02X} | 62: 0001"));
            }
            net.stall(slow, false);
            let in_order: Vec<String> = (0..COUNT)
                .map(|number| match qos {
                    0 => format!("30: <t> {number:02X}"),
                    _ => format!("{:02X}: <t> {:04X} {number:02X}", 0x30 | qos << 1, number + 1),
                })
                .collect();
            let in_order = in_order.join(" | ");
            net.expect(there, &in_order);
            net.expect(slow, &in_order);
            let kept = if qos == 0 { "" } else { &in_order };
            net.durable(V3_1_1, "away", &format!("20: 01 00 | {kept}"));
        });
    }
}

/// [MQTT-4.6.0-4@3.1.1] [MQTT-4.6.0-6@3.1.1] PUBREL comes in the order of the PUBREC packets.
#[test]
fn pubrel_comes_in_the_order_of_pubrec() {
    scenario(|net| {
        let client = net.client(V3_1_1, "c");
        net.subscribe(client, "t", 2);
        for _ in 0..4 {
            net.send(client, "34: <t> 0001 'x' | 62: 0001");
        }
        net.take(client);
        net.send(client, "50: 0003 | 50: 0001 | 50: 0004 | 50: 0002");
        net.expect(client, "62: 0003 | 62: 0001 | 62: 0004 | 62: 0002");
    });
}

/// An acknowledgement of nothing is passed over, as it may be one that was sent twice; PUBREC of nothing is answered, so
/// that the client comes to an end (section 4.3.3).
#[test]
fn acknowledgements_of_nothing() {
    for version in OLD {
        scenario(|net| {
            let client = net.client(version, "c");
            net.send(client, "40: 0007 | 70: 0007 | 50: 0007");
            net.expect(client, "62: 0007");
            net.send(client, "70: 0007 | C0:");
            net.expect(client, "D0:");
        });
    }
}
