//! What goes to many at once: the same as if each were sent everything by itself, in every way in which a lane ends.

use super::net::{connect_packet, resumed};
use super::*;

/// So many clients with a subscription to `t` each.
fn subscribers<const N: usize>(net: &mut Net, version: ProtocolVersion, options: u8) -> [usize; N] {
    std::array::from_fn(|number| {
        let client = net.client(version, &format!("to-{number}"));
        net.subscribe(client, "t", options);
        client
    })
}

/// PUBLISH packets with QoS 0 to a topic, with numbers as payloads.
fn packets(topic: &str, numbers: std::ops::RangeInclusive<u32>) -> String {
    numbers.map(|number| format!("| 30: <{topic}> [{{}}] '{number}'")).collect()
}

#[test]
fn all_get_what_their_subscriptions_ask_for() {
    scenario(|net| {
        let plain: [usize; 3] = subscribers(net, V3_1_1, 0);
        let more: Vec<usize> = [(V5, 0x00), (V5, 0x01), (V5, 0x08), (V5, 0x0A), (V3_1, 0x02)]
            .into_iter()
            .enumerate()
            .map(|(number, (version, options))| {
                let client = net.client(version, &format!("more-{number}"));
                net.subscribe(client, "t", options);
                client
            })
            .collect();
        let from = net.v5("from");
        net.send(from, "31: <t> {02 00000005} 'kept' | 30: <t> {03 0001 'x'} 'x' | 31: <t> {} ''");
        for client in plain {
            net.expect(client, "30: <t> 'kept' | 30: <t> 'x' | 30: <t> ''");
        }
        for (number, client) in more.into_iter().enumerate() {
            let (kept, cleared) = if (2..4).contains(&number) { ("31", "31") } else { ("30", "30") };
            let expiry = "[{02 00000005}]";
            net.expect(
                client,
                &format!("{kept}: <t> {expiry} 'kept' | 30: <t> [{{03 0001 'x'}}] 'x' | {cleared}: <t> [{{}}] ''"),
            );
        }
    });
}

/// Another topic, another set of subscribers, a Subscription Identifier, No Local, a group, a message of a plugin: whatever
/// comes between two messages comes between them.
#[test]
fn what_comes_between() {
    for version in VERSIONS {
        scenario(|net| {
            let all: [usize; 3] = subscribers(net, version, 0);
            net.subscribe(all[0], "u", 0);
            net.subscribe(all[1], "v", 0);
            net.subscribe(all[2], "v", 1);
            let from = net.client(version, "from");
            net.send(from, &format!("30: <t> [{{}}] '1' | 30: <u> [{{}}] 'u' {}", packets("t", 2..=3)));
            net.send(
                from,
                &format!("30: <v> [{{}}] 'v' {} | 30: <u> [{{}}] 'u' | 30: <v> [{{}}] 'w'", packets("t", 4..=5)),
            );
            let (u, v, w) = ("| 30: <u> [{}] 'u'", "| 30: <v> [{}] 'v'", "| 30: <v> [{}] 'w'");
            let t = |numbers| packets("t", numbers);
            net.expect(all[0], &format!("{} {u} {} {} {u}", t(1..=1), t(2..=3), t(4..=5)));
            net.expect(all[1], &format!("{} {v} {} {w}", t(1..=3), t(4..=5)));
            net.expect(all[2], &format!("{} {v} {} {w}", t(1..=3), t(4..=5)));
        });
    }
}

#[test]
fn who_needs_packets_of_its_own() {
    scenario(|net| {
        let all: [usize; 3] = subscribers(net, V5, 0);
        let own = net.v5("own");
        net.send(own, "82: 0001 {0B 07} <t> 04");
        net.expect(own, "90: 0001 {} 00");
        let short = net.join(V5, &connect_packet(V5, "02", 0, "27 00000020", "short"), CONNACK);
        net.subscribe(short, "t", 0);
        let long = "x".repeat(40);
        net.send(own, &packets("t", 1..=2));
        let from = net.v5("from");
        net.send(from, &format!("{} | 30: <t> {{}} '{long}' {}", packets("t", 3..=4), packets("t", 5..=5)));
        for client in all {
            net.expect(client, &format!("{} | 30: <t> {{}} '{long}' {}", packets("t", 1..=4), packets("t", 5..=5)));
        }
        let identified = |what: &str| format!("| 30: <t> {{0B 07}} '{what}'");
        net.expect(own, &["3", "4", &long, "5"].map(identified).concat());
        net.expect(short, &format!("{} {}", packets("t", 1..=4), packets("t", 5..=5)));
        assert_eq!(net.count(|counters| counters.dropped_too_large.get()), 1);
    });
}

/// Acknowledgements go between packets, wherever the socket has stopped.
#[test]
fn slow_readers() {
    scenario(|net| {
        let all: [usize; 3] = subscribers(net, V5, 0);
        let from = net.v5("from");
        for step in [1, 3, 7, 50, 90] {
            net.stall(all[1], true);
            let mut expected = String::new();
            for round in 0..6 {
                net.send(from, &packets("t", round * 10..=round * 10 + 9));
                expected += &packets("t", round * 10..=round * 10 + 9);
                net.read(all[1], step * 2 - 1);
                net.read(all[1], step);
            }
            net.send(from, "30: <alone> {} ''");
            net.stall(all[1], false);
            for client in all {
                net.expect(client, &expected);
            }
            // The same with something in between.
            net.stall(all[1], true);
            net.send(from, &packets("t", 1..=10));
            net.read(all[1], step);
            net.send(all[1], "C0:");
            net.send(all[1], "82: 0001 {} <alone> 00");
            net.send(from, &format!("30: <alone> {{}} 'a' {}", packets("t", 11..=20)));
            net.read(all[1], step);
            net.send(all[1], "C0: | A2: 0002 {} <alone>");
            net.send(from, &packets("t", 21..=30));
            net.stall(all[1], false);
            let got = net.take(all[1]);
            let got = super::net::split(&got);
            let published: Vec<_> =
                got.iter().filter(|packet| packet[0] == 0x30).map(|packet| packet.to_vec()).collect();
            let expected = format!("{} | 30: <alone> {{}} 'a' {}", packets("t", 1..=10), packets("t", 11..=30));
            assert_eq!(published.concat(), super::net::bytes(V5, &expected));
            let others: Vec<u8> = got.iter().map(|packet| packet[0]).filter(|first| *first != 0x30).collect();
            assert_eq!(others.len(), 4, "{others:02X?}");
            for client in [all[0], all[2]] {
                net.expect(client, &packets("t", 1..=30));
            }
        }
    });
}

/// Who does not read loses what is beyond the bound, and nobody else does. When it reads again it gets what comes then.
#[test]
fn who_does_not_read_is_counted_by_itself() {
    let setup = Setup::limits(|limits| limits.outbound_bytes_max = 2000);
    scenario_with(&setup, |net| {
        let all: [usize; 3] = subscribers(net, V3_1_1, 0);
        let from = net.v5("from");
        net.stall(all[0], true);
        let payload = "x".repeat(50);
        for _ in 0..100 {
            net.send(from, &format!("30: <t> {{}} '{payload}'"));
        }
        for client in [all[1], all[2]] {
            assert_eq!(net.take(client).len(), 100 * 55);
        }
        let dropped = net.count(|counters| counters.dropped_slow.get()) as usize;
        assert!((63..=70).contains(&dropped), "{dropped} of 100 were dropped");
        net.stall(all[0], false);
        assert_eq!(net.take(all[0]).len(), (100 - dropped) * 55);
        net.send(from, &packets("t", 1..=3));
        for client in all {
            net.expect(client, &packets("t", 1..=3));
        }
    });
}

#[test]
fn subscribers_come_and_go() {
    for version in VERSIONS {
        scenario(|net| {
            let all: [usize; 4] = subscribers(net, version, 0);
            let from = net.client(version, "from");
            net.stall(all[0], true);
            net.stall(all[1], true);
            net.stall(all[2], true);
            net.send(from, &packets("t", 1..=3));
            net.send(all[0], "A2: 0002 [{}] <t>");
            net.lose(all[1]);
            let new = net.client(version, "new");
            net.subscribe(new, "t", 0);
            net.send(all[2], "82: 0003 [{}] <t> 00");
            net.send(from, &packets("t", 4..=5));
            net.stall(all[0], false);
            let answer = if version == V5 { "B0: 0002 {} 00" } else { "B0: 0002" };
            net.expect(all[0], &format!("{} | {answer}", packets("t", 1..=3)));
            net.stall(all[2], false);
            net.expect(all[2], &format!("{} | 90: 0003 [{{}}] 00 {}", packets("t", 1..=3), packets("t", 4..=5)));
            net.expect(all[3], &packets("t", 1..=5));
            net.expect(new, &packets("t", 4..=5));
        });
    }
}

/// What was on its way when the server ends a connection is sent before it says so.
#[test]
fn connections_end() {
    scenario(|net| {
        let all: [usize; 3] = subscribers(net, V5, 0);
        let from = net.v5("from");
        for client in all {
            net.stall(client, true);
        }
        net.send(from, &packets("t", 1..=3));
        // It is taken over.
        let successor = net.v5("to-0");
        net.subscribe(successor, "t", 0);
        // It breaks the protocol.
        net.send(all[1], "00:");
        net.send(from, &packets("t", 4..=4));
        for client in all {
            net.stall(client, false);
        }
        net.expect_closed(all[0], &format!("{} | E0: 8E", packets("t", 1..=3)));
        net.expect_closed(all[1], &format!("{} | E0: 81", packets("t", 1..=3)));
        net.expect(all[2], &packets("t", 1..=4));
        net.expect(successor, &packets("t", 4..=4));
    });
}

/// PUBLISH packets with QoS 1, with numbers as Packet Identifiers, from an offset on, and as payloads.
fn acknowledged(topic: &str, dup: bool, offset: u32, numbers: std::ops::RangeInclusive<u32>) -> String {
    let first = if dup { "3A" } else { "32" };
    numbers.map(|number| format!("| {first}: <{topic}> {:04X} [{{}}] '{number}'", number + offset)).collect()
}

/// Each client's Packet Identifiers are its own, wherever its socket has stopped. [MQTT-2.2.1-4] [MQTT-4.3.2-1]
#[test]
fn packet_identifiers_are_written_for_each() {
    for version in VERSIONS {
        scenario(|net| {
            let all: [usize; 4] = subscribers(net, version, 1);
            let from = net.client(version, "from");
            net.subscribe(all[1], "u", 1);
            net.subscribe(all[2], "u", 1);
            net.send(from, &acknowledged("u", false, 0, 1..=7));
            for client in [all[1], all[2]] {
                net.expect(client, &acknowledged("u", false, 0, 1..=7));
            }
            let mut last = 0;
            for step in [1, 2, 3, 7, 50, 90] {
                net.stall(all[1], true);
                net.stall(all[3], true);
                let mut published = 0;
                while published < 30 {
                    let numbers = last + published + 1..=last + published + 10;
                    net.send(from, &acknowledged("t", false, 0, numbers));
                    net.read(all[1], step);
                    net.read(all[3], step * 2);
                    published += 10;
                }
                let numbers = last + 1..=last + published;
                last += published;
                net.stall(all[1], false);
                net.stall(all[3], false);
                for (client, offset) in all.into_iter().zip([0, 7, 7, 0]) {
                    net.expect(client, &acknowledged("t", false, offset, numbers.clone()));
                    let acks: String = numbers.clone().map(|number| format!("40: {:04X} |", number + offset)).collect();
                    net.send(client, &acks);
                }
            }
            let is_empty = |name: &str| net.session(name).expect("connected").in_flight.is_empty();
            assert!(is_empty("to-0") && is_empty("to-3") && !is_empty("to-1"), "what is in flight");
        });
    }
}

/// [MQTT-4.4.0-1] Whatever has been acknowledged of it, and in which order.
#[test]
fn the_rest_is_sent_again() {
    for version in VERSIONS {
        scenario(|net| {
            let names = ["a", "b", "c", "d", "e"];
            let all = names.map(|name| net.durable(version, name, CONNACK));
            for client in all {
                net.subscribe(client, "t", 1);
            }
            let from = net.client(version, "from");
            net.stall(all[4], true);
            net.send(from, &acknowledged("t", false, 0, 1..=3));
            net.send(from, &acknowledged("t", false, 0, 4..=6));
            net.send(all[0], "40: 0001 | 40: 0002 | 40: 0003 | 40: 0004");
            net.send(all[1], "40: 0002 | 40: 0004 | 40: 0006");
            net.send(all[2], "40: 0001 | 40: 0001 | 40: 0009");
            for client in all {
                net.lose(client);
            }
            let rest: [&[u32]; 5] = [&[5, 6], &[1, 3, 5], &[2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6]];
            for (name, rest) in names.into_iter().zip(rest) {
                let rest: String = rest.iter().map(|number| acknowledged("t", true, 0, *number..=*number)).collect();
                net.durable(version, name, &format!("{} {rest}", resumed(version)));
            }
        });
    }
}

/// [MQTT-3.3.4-9] A client with a small Receive Maximum waits for itself alone, and gets all in their order.
#[test]
fn receive_maximum() {
    scenario(|net| {
        let all: [usize; 3] = subscribers(net, V5, 1);
        let few = net.join(V5, &connect_packet(V5, "02", 0, "21 0003", "few"), CONNACK);
        net.subscribe(few, "t", 1);
        let from = net.v5("from");
        net.send(from, &acknowledged("t", false, 0, 1..=10));
        for client in all {
            net.expect(client, &acknowledged("t", false, 0, 1..=10));
        }
        for number in 1..=7 {
            let expected = if number == 1 { 1..=3 } else { number + 2..=number + 2 };
            net.expect(few, &acknowledged("t", false, 0, expected));
            net.send(few, &format!("40: {number:04X}"));
        }
        net.expect(few, &acknowledged("t", false, 0, 10..=10));
        net.send(few, "40: 0008 | 40: 0009 | 40: 000A");
        net.send(from, &acknowledged("t", false, 0, 11..=11));
        net.expect(few, &acknowledged("t", false, 0, 11..=11));
    });
}

/// The bound on what is in flight is each client's own, and so is what waits behind it.
#[test]
fn who_does_not_acknowledge() {
    let setup = Setup::limits(|limits| limits.in_flight_max = 5);
    scenario_with(&setup, |net| {
        let all: [usize; 3] = subscribers(net, V3_1_1, 1);
        let from = net.v5("from");
        for number in 1..=20 {
            net.send(from, &acknowledged("t", false, 0, number..=number));
            for client in &all[1..] {
                net.expect(*client, &acknowledged("t", false, 0, number..=number));
                net.send(*client, &format!("40: {number:04X}"));
            }
        }
        net.expect(all[0], &acknowledged("t", false, 0, 1..=5));
        let session = net.session("to-0").expect("connected");
        assert_eq!((session.in_flight.len(), session.queue.len()), (5, 15));
        net.send(all[0], "40: 0001 | 40: 0002 | 40: 0003 | 40: 0004 | 40: 0005");
        net.expect(all[0], &acknowledged("t", false, 0, 6..=10));
        // Nothing overtakes what waits.
        net.send(from, "30: <t> {} 'later'");
        for client in &all[1..] {
            net.expect(*client, "30: <t> 'later'");
        }
    });
}

/// [MQTT-4.6.0-5] With all QoS in turn, and for subscribers with each.
#[test]
fn order_with_each_qos() {
    scenario(|net| {
        let mut all = Vec::new();
        for number in 0..9 {
            let client = net.client(V5, &format!("to-{number}"));
            net.subscribe(client, "t", number % 3);
            all.push(client);
        }
        let from = net.v5("from");
        for round in 0..3 {
            net.send(from, "30: <t> {} '0' | 32: <t> 0001 {} '1' | 30: <t> {} '2'");
            net.send(from, "34: <t> 0002 {} '3' | 62: 0002 | 32: <t> 0003 {} '4'");
            let id = 1 + round * 3;
            let [one, two, three] = [id, id + 1, id + 2].map(|id| format!("{id:04X}"));
            let expected = [
                "30: <t> {} '0' | 30: <t> {} '1' | 30: <t> {} '2' | 30: <t> {} '3' | 30: <t> {} '4'".to_owned(),
                format!(
                    "30: <t> {{}} '0' | 32: <t> {one} {{}} '1' | 30: <t> {{}} '2' | 32: <t> {two} {{}} '3' | 32: <t> {three} {{}} '4'"
                ),
                format!(
                    "30: <t> {{}} '0' | 32: <t> {one} {{}} '1' | 30: <t> {{}} '2' | 34: <t> {two} {{}} '3' | 32: <t> {three} {{}} '4'"
                ),
            ];
            for (number, client) in all.iter().enumerate() {
                net.expect(*client, &expected[number % 3]);
                if round == 1 && number % 3 > 0 {
                    net.send(*client, "40: 0001 | 40: 0004");
                }
            }
        }
    });
}
