//! What goes to many at once: the same as if each were sent everything by itself, in every way in which a lane ends.

use super::net::connect_packet;
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
