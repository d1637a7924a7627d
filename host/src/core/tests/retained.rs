//! Retained messages: stored, replaced, cleared, sent for subscriptions, expired.

use super::net::{connect_packet, split};
use super::*;

/// [MQTT-3.3.1-5] [MQTT-3.3.1-9] The last one is sent, with RETAIN set, after SUBACK.
#[test]
fn stored_and_replaced() {
    for version in VERSIONS {
        scenario(|net| {
            let (from, to) = (net.client(version, "from"), net.client(version, "to"));
            net.send(from, "31: <a> [{}] '1' | 33: <a> 0001 [{}] '2' | 35: <b> 0002 [{}] '3' | 62: 0002");
            net.send(to, "82: 0001 [{}] <a> 02 <b> 01");
            net.expect(to, "90: 0001 [{}] 02 01 | 33: <a> 0001 [{}] '2' | 33: <b> 0002 [{}] '3'");
            // Not retained: for those who are there, and nobody else [MQTT-3.3.1-8].
            net.send(from, "30: <a> [{}] 'live'");
            net.expect(to, "30: <a> [{}] 'live'");
            let late = net.client(version, "late");
            net.send(late, "82: 0001 [{}] <a> 00");
            net.expect(late, "90: 0001 [{}] 00 | 31: <a> [{}] '2'");
        });
    }
}

/// [MQTT-3.3.1-6] [MQTT-3.3.1-7] An empty one clears the topic, and is delivered as any other.
#[test]
fn cleared() {
    scenario(|net| {
        for version in VERSIONS {
            let (from, there) = (net.client(version, "from"), net.client(version, "there"));
            net.subscribe(there, "a", 0);
            net.send(from, "31: <a> [{}] '1' | 31: <a> [{}] | 31: <never> [{}]");
            net.expect(there, "30: <a> [{}] '1' | 30: <a> [{}]");
            let to = net.client(version, "to");
            net.subscribe(to, "#", 0);
            assert!(net.shared.retained.is_empty());
        }
    });
}

/// [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-4]
#[test]
fn retain_handling() {
    scenario(|net| {
        let from = net.v5("from");
        net.send(from, "31: <t> {} 'x'");
        let sent = "31: <t> {} 'x'";
        for (options, first, again) in [("00", sent, sent), ("10", sent, ""), ("20", "", "")] {
            let client = net.durable(V5, "c", CONNACK);
            for expected in [first, again] {
                net.send(client, &format!("82: 0001 {{}} <t> {options}"));
                net.expect(client, &format!("90: 0001 {{}} 00 | {expected}"));
            }
            // A subscription of the session counts, whichever connection made it.
            net.lose(client);
            let client = net.durable(V5, "c", CONNACK_RESUMED);
            net.send(client, &format!("82: 0001 {{}} <t> {options}"));
            net.expect(client, &format!("90: 0001 {{}} 00 | {again}"));
            net.send(client, &format!("A2: 0002 {{}} <t> | 82: 0001 {{}} <t> {options}"));
            net.expect(client, &format!("B0: 0002 {{}} 00 | 90: 0001 {{}} 00 | {first}"));
            net.send(client, "E0: 00 {11 00000000}");
            net.expect_closed(client, "");
        }
    });
}

/// [MQTT-3.3.1-12] [MQTT-3.3.1-13]
#[test]
fn retain_as_published() {
    scenario(|net| {
        let (from, plain, kept, old) = (net.v5("from"), net.v5("plain"), net.v5("kept"), net.client(V3_1_1, "old"));
        net.subscribe(plain, "t", 0);
        net.send(kept, "82: 0001 {} <t> 08");
        net.expect(kept, "90: 0001 {} 00");
        net.subscribe(old, "t", 0);
        net.send(from, "31: <t> {} '1' | 30: <t> {} '2'");
        net.expect(plain, "30: <t> {} '1' | 30: <t> {} '2'");
        net.expect(kept, "31: <t> {} '1' | 30: <t> {} '2'");
        net.expect(old, "30: <t> '1' | 30: <t> '2'");
    });
}

/// A message in a queue keeps its RETAIN, whether it got there live or as a retained one.
#[test]
fn retain_while_waiting() {
    scenario(|net| {
        let from = net.v5("from");
        net.send(from, "33: <t> 0001 {} '1'");
        let to = net.durable(V5, "to", CONNACK);
        net.send(to, "82: 0001 {} <t> 09");
        net.expect(to, "90: 0001 {} 01 | 33: <t> 0001 {} '1'");
        net.lose(to);
        net.send(from, "33: <t> 0001 {} '2'");
        net.durable(V5, "to", &format!("{CONNACK_RESUMED} | 3B: <t> 0001 {{}} '1' | 33: <t> 0002 {{}} '2'"));
    });
}

/// [MQTT-3.3.2-5] [MQTT-3.3.2-6] Expired ones are not sent, and do not stay in memory until somebody asks.
#[test]
fn expiry() {
    scenario(|net| {
        let from = net.v5("from");
        net.send(from, "31: <a> {02 0000000A} '1' | 31: <b> {02 00000064} '2' | 31: <c> {} '3'");
        net.advance(4_000);
        let to = net.v5("to");
        net.send(to, "82: 0001 {} <a> 00");
        net.expect(to, "90: 0001 {} 00 | 31: <a> {02 00000006} '1'");
        net.advance(5_999);
        assert_eq!(net.shared.retained.len(), 3);
        net.advance(1);
        assert_eq!(net.shared.retained.len(), 2);
        net.send(to, "82: 0001 {} <a> 00");
        net.expect(to, "90: 0001 {} 00");
        // A newer one with a longer life is not taken by the old one's timer.
        net.send(from, "31: <b> {02 000000C8} '4'");
        net.advance(100_000);
        assert_eq!(net.shared.retained.len(), 2);
        net.advance(100_000);
        assert_eq!(net.shared.retained.len(), 1);
    });
}

/// [MQTT-3.3.4-5]
#[test]
fn subscription_identifier_and_properties() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.send(from, "31: <t> {26 <a> <b> 03 <c>} 'x'");
        net.send(to, "82: 0001 {0B 09} <t> 00");
        net.expect(to, "90: 0001 {} 00 | 31: <t> {26 <a> <b> 03 <c> 0B 09} 'x'");
        // For each of two overlapping subscriptions it is sent once.
        net.send(to, "82: 0002 {0B 0A} <+> 00 <#> 00");
        let sent = "31: <t> {26 <a> <b> 03 <c> 0B 0A} 'x'";
        net.expect(to, &format!("90: 0002 {{}} 00 00 | {sent} | {sent}"));
    });
}

#[test]
fn topics_of_the_server_are_left_out_of_wildcards() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.send(from, "31: <$a/b> {} '1' | 31: <a/b> {} '2'");
        net.send(to, "82: 0001 {} <#> 00");
        net.expect(to, "90: 0001 {} 00 | 31: <a/b> {} '2'"); // [MQTT-4.7.2-1]
        net.send(to, "82: 0001 {} <$a/#> 00");
        net.expect(to, "90: 0001 {} 00 | 31: <$a/b> {} '1'");
    });
}

/// [MQTT-3.10.4-2]
#[test]
fn unsubscribed_while_others_are_sent() {
    scenario_in(MODES[0], &Setup::default(), |net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        for number in 0..100 {
            net.send(from, &format!("31: <t/{number}> {{}} 'x'"));
        }
        net.send(to, "82: 0001 {} <t/#> 00 | A2: 0002 {} <t/#>");
        net.expect(to, "90: 0001 {} 00 | B0: 0002 {} 00");
        assert_eq!(net.cores.iter().map(|core| core.replaying()).sum::<usize>(), 0);
    });
}

/// A filter that stands in a packet again and again is replayed once.
#[test]
fn one_filter_many_times() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.send(from, "31: <t> {} 'x'");
        net.send(to, "82: 0001 {} <#> 00 <#> 00 <#> 00");
        net.expect(to, "90: 0001 {} 00 00 00 | 31: <t> {} 'x'");
    });
}

#[test]
fn bounded() {
    let setup = Setup::limits(|limits| {
        limits.retained_messages_max = 2;
        limits.retained_bytes_max = 20;
    });
    scenario_with(&setup, |net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "#", 0);
        net.send(from, "33: <a> 0001 {} '1' | 33: <b> 0002 {} '2' | 33: <c> 0003 {} '3'");
        net.expect(from, "40: 0001 | 40: 0002 | 40: 0003 97");
        net.expect(to, "30: <a> {} '1' | 30: <b> {} '2'");
        net.send(from, "33: <a> 0001 {} | 33: <c> 0003 {} '01234567890123456789' | 33: <c> 0003 {} '3'");
        net.expect(from, "40: 0001 | 40: 0003 97 | 40: 0003");
        net.send(from, "35: <d> 0004 {} '4' | 62: 0004");
        net.expect(from, "50: 0004 97 | 70: 0004 92");
        // QoS 0 has no answer, and a 3.x client none that says no: it is closed and keeps its message.
        net.send(from, "31: <d> {} '4'");
        net.expect(from, "");
        for packet in ["33: <d> 0005 '5'", "35: <d> 0005 '5'"] {
            let old = net.client(V3_1_1, "old");
            net.send(old, packet);
            net.expect_closed(old, "");
        }
        assert_eq!(net.shared.retained.len(), 2);
    });
}

/// Many of them come over several turns, each of them once, and others are served in between.
#[test]
fn many_are_sent_over_several_turns() {
    for (version, qos) in [(V3_1_1, 0_u8), (V5, 0), (V5, 1), (V5, 2)] {
        scenario_in(MODES[0], &Setup::default(), |net| replay_many(net, version, qos));
        scenario_in(MODES[2], &Setup::default(), |net| replay_many(net, version, qos));
    }
}

fn replay_many(net: &mut Net, version: ProtocolVersion, qos: u8) {
    const COUNT: usize = 1000;
    let (from, to) = (net.v5("from"), net.client(version, "to"));
    for number in 0..COUNT {
        net.send(from, &format!("35: <many/{number:04}> 0001 {{}} 'x' | 62: 0001"));
    }
    net.take(from);
    net.stall(to, true);
    net.send(to, &format!("82: 0001 [{{}}] <many/+> {qos:02X}"));
    net.stall(to, false);
    let (mut topics, mut id) = (Vec::new(), 0_u16);
    loop {
        let got = net.take(to);
        if got.is_empty() {
            break;
        }
        for packet in split(&got).into_iter().filter(|packet| packet[0] & 0xF0 == 0x30) {
            assert_eq!(packet[0], 0x31 | qos << 1);
            topics.push(String::from_utf8(packet[4..13].to_vec()).expect("UTF-8"));
        }
        while qos != 0 && usize::from(id) < topics.len() {
            id += 1;
            let acks = if qos == 1 { format!("40: {id:04X}") } else { format!("50: {id:04X} | 70: {id:04X}") };
            net.send(to, &acks);
        }
    }
    topics.sort_unstable();
    let expected: Vec<String> = (0..COUNT).map(|number| format!("many/{number:04}")).collect();
    assert_eq!(topics, expected);
    assert_eq!(net.count(|counters| counters.dropped_slow.get() + counters.dropped_queue_full.get()), 0);
}

/// Those that were replaced or cleared meanwhile are not sent: an older value never follows a newer one.
#[test]
fn superseded_while_others_are_sent() {
    scenario(|net| {
        let from = net.v5("from");
        let to = net.join(V5, &connect_packet(V5, "02", 0, "21 0001", "to"), CONNACK);
        for topic in ["t/a", "t/b", "t/c"] {
            net.send(from, &format!("33: <{topic}> 0001 {{}} 'old'"));
        }
        net.send(to, "82: 0001 {} <t/+> 01");
        let first = net.take(to);
        assert!(first.ends_with(b"old"), "{first:02X?}"); // The others wait for its acknowledgement.
        net.send(from, "33: <t/a> 0001 {} 'new' | 33: <t/b> 0001 {} 'new' | 33: <t/c> 0001 {}");
        let mut seen = Vec::new();
        for id in 1..=5 {
            net.send(to, &format!("40: {id:04X}"));
            seen.extend(net.take(to));
        }
        assert!(!seen.windows(3).any(|part| part == b"old"), "{seen:02X?}");
        assert_eq!(seen.windows(3).filter(|part| part == b"new").count(), 2);
        assert!(net.session("to").expect("connected").in_flight.is_empty());
    });
}

#[test]
fn client_leaves_while_they_are_sent() {
    scenario(|net| {
        let from = net.v5("from");
        for number in 0..200 {
            net.send(from, &format!("33: <t/{number}> 0001 {{}} 'x'"));
        }
        let to = net.join(V5, &connect_packet(V5, "02", 0, "21 0001", "to"), CONNACK);
        net.send(to, "82: 0001 {} <t/+> 01");
        assert_eq!(net.cores.iter().map(|core| core.replaying()).sum::<usize>(), 1);
        net.lose(to);
        net.settle();
        assert_eq!(net.cores.iter().map(|core| core.replaying()).sum::<usize>(), 0);
    });
}

/// Whoever reads gets all retained messages of QoS 0, however little may wait for a socket.
#[test]
fn retained_messages_wait_for_room() {
    scenario_with(&Setup::limits(|limits| limits.outbound_bytes_max = 128), |net| {
        let from = net.v5("from");
        for number in 0..10 {
            net.send(from, &format!("31: <t/{number}> {{}} '{}'", "x".repeat(100)));
        }
        let client = net.v5("c");
        net.send(client, "82: 0001 {} <t/#> 00");
        net.advance(1);
        assert_eq!(super::net::split(&net.take(client)).len(), 11);
        assert_eq!(net.count(|counters| counters.dropped_slow.get()), 0);
    });
}
