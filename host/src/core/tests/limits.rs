//! Bounds on what a peer may use, and what happens to one that does not keep up.

use std::sync::Arc;

use super::net::{connect_packet, split};
use super::*;
use crate::core::ListenerProfile;
use crate::core::mail::Mail;

/// QoS 0 is dropped and counted for a client that does not read; QoS 1 and 2 wait in its session.
#[test]
fn slow_consumer() {
    let setup = Setup::limits(|limits| limits.outbound_bytes_max = 1000);
    scenario_with(&setup, |net| {
        let (from, fast) = (net.v5("from"), net.v5("fast"));
        let slow = net.v5("slow");
        for client in [slow, fast] {
            net.send(client, "82: 0001 {} <zero> 00 <one> 02");
            net.expect(client, "90: 0001 {} 00 02");
        }
        net.stall(slow, true);
        let payload = "x".repeat(100);
        for _ in 0..20 {
            net.send(from, &format!("30: <zero> {{}} '{payload}'"));
        }
        for number in 0..20 {
            net.send(from, &format!("32: <one> 0001 {{}} '{payload}{number}'"));
        }
        net.take(from);
        let zero = net.take(fast).windows(4).filter(|part| part == b"zero").count();
        assert_eq!(zero, 20, "others are served as ever");
        assert_eq!(net.count(|counters| counters.dropped_slow.get()), 11);
        let session = net.session("slow").expect("connected");
        assert_eq!((session.in_flight.len(), session.queue.len()), (1, 19));
        net.stall(slow, false);
        let got = net.take(slow);
        let (zero, one): (Vec<&[u8]>, Vec<&[u8]>) = split(&got).into_iter().partition(|packet| packet[0] == 0x30);
        assert_eq!(zero.len(), 9);
        assert_eq!(one.len(), 20);
        for (number, packet) in one.iter().enumerate() {
            assert!(packet.ends_with(format!("x{number}").as_bytes()), "in order");
        }
        assert_eq!(net.session("slow").expect("connected").queue.len(), 0);
    });
}

/// [MQTT-4.6.0-6] A client that reads slowly: what comes when there is room again does not overtake what waits.
#[test]
fn slow_consumer_gets_its_messages_in_order() {
    scenario_with(&Setup::limits(|limits| limits.outbound_bytes_max = 100), |net| {
        let (from, slow) = (net.v5("from"), net.v5("slow"));
        net.subscribe(slow, "t", 1);
        net.stall(slow, true);
        for number in 0..30_u8 {
            net.send(from, &format!("32: <t> 0001 {{}} '{}' {number:02X}", "x".repeat(40)));
            if number % 2 == 1 {
                net.read(slow, 30);
            }
        }
        net.stall(slow, false);
        let got = net.take(slow);
        let numbers: Vec<u8> = split(&got).iter().map(|packet| packet[packet.len() - 1]).collect();
        assert_eq!(numbers, (0..30).collect::<Vec<u8>>());
    });
}

/// However large a message is, a connection that has nothing to send takes it.
#[test]
fn large_message() {
    scenario_with(&Setup::limits(|limits| limits.outbound_bytes_max = 1000), |net| {
        let client = net.v5("c");
        net.send(client, "82: 0001 {} <t> 00 <u> 01");
        net.expect(client, "90: 0001 {} 00 01");
        let payload = "x".repeat(50_000);
        net.send(client, &format!("30: <t> {{}} '{payload}'"));
        net.expect(client, &format!("30: <t> {{}} '{payload}'"));
        net.send(client, &format!("32: <u> 0001 {{}} '{payload}'"));
        net.expect(client, &format!("32: <u> 0001 {{}} '{payload}' | 40: 0001"));
    });
}

/// A peer that goes on asking and never reads is closed.
#[test]
fn peer_that_asks_and_does_not_read() {
    scenario_in(MODES[0], &Setup::limits(|limits| limits.outbound_bytes_max = 1000), |net| {
        let client = net.durable(V5, "c", CONNACK);
        net.stall(client, true);
        let pings = [0xC0, 0].repeat(100_000);
        for _ in 0..10 {
            net.send_bytes(client, &pings);
        }
        assert_eq!(net.script().take("disconnect"), ["disconnect c LimitExceeded 97"]);
        net.stall(client, false);
        net.expect_closed(client, "");
        net.durable(V5, "c", CONNACK_RESUMED);
    });
}

/// A message beyond the bound is no reason to close who gets it and goes on asking, nor to drop it behind an answer.
#[test]
fn message_beyond_the_bound_of_what_waits() {
    scenario_in(MODES[0], &Setup::limits(|limits| limits.outbound_bytes_max = 1000), |net| {
        let client = net.v5("c");
        net.send(client, "82: 0001 {} <t> 01");
        net.expect(client, "90: 0001 {} 01");
        net.stall(client, true);
        let publish = [&[0x32, 0x86, 0x80, 0x80, 0x01, 0, 1, b't', 0, 9, 0][..], &vec![b'x'; 2 << 20]].concat();
        net.send_bytes(client, &publish);
        net.send_bytes(client, &[0xC0, 0]);
        assert!(net.is_connected(client));
        net.stall(client, false);
        assert_eq!(net.take(client).len(), publish.len() + 4 + 2);
    });
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25] What is larger than the client's Maximum Packet Size is dropped as if it had been sent.
#[test]
fn maximum_packet_size_of_the_client() {
    scenario(|net| {
        let (from, other) = (net.v5("from"), net.v5("other"));
        let to = net.join(V5, &connect_packet(V5, "02", 0, "27 00000014", "to"), CONNACK);
        for client in [to, other] {
            net.send(client, "82: 0001 {} <t> 02");
            net.expect(client, "90: 0001 {} 02");
        }
        let fits = "32: <t> 0001 {} '123456789012'"; // 20 bytes
        net.send(from, "32: <t> 0001 {} '1234567890123' | 34: <t> 0002 {} '1234567890123' | 62: 0002");
        net.send(from, "30: <t> {} '123456789012345'");
        net.send(from, fits);
        net.expect(to, "32: <t> 0003 {} '123456789012'");
        assert_eq!(net.count(|counters| counters.dropped_too_large.get()), 3);
        assert_eq!(net.session("to").expect("connected").in_flight.len(), 1);
        assert_eq!(net.session("other").expect("connected").in_flight.len(), 3);
        // Answers as well.
        net.send(to, "82: 0001 {} <a> 00 <a> 00 <a> 00 <a> 00 <a> 00 <a> 00 <a> 00 <a> 00 <a> 00 <a> 00 <a> 00 <a> 00 <a> 00 <a> 00 <a> 00 <a> 00");
        net.expect(to, "");
    });
}

/// What was in flight may be too large for the connection that it is to be sent again on.
/// [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[test]
fn resending_respects_the_maximum_packet_size() {
    scenario(|net| {
        let from = net.v5("from");
        let to = net.durable(V5, "to", CONNACK);
        net.subscribe(to, "t", 1);
        net.send(from, "32: <t> 0001 {} '1' | 32: <t> 0001 {} 'too long for it now' | 32: <t> 0001 {} '3'");
        net.take(to);
        net.lose(to);
        net.send(from, "32: <t> 0001 {} 'too long for it now' | 32: <t> 0001 {} '5'");
        let connack =
            format!("{CONNACK_RESUMED} | 3A: <t> 0001 {{}} '1' | 3A: <t> 0003 {{}} '3' | 32: <t> 0005 {{}} '5'");
        let to = net.join(V5, &connect_packet(V5, "00", 0, "11 00000E10 27 00000014", "to"), &connack);
        net.send(to, "40: 0001 | 40: 0003 | 40: 0005");
        assert!(net.session("to").expect("connected").in_flight.is_empty());
    });
}

#[test]
fn connections_are_bounded() {
    scenario_with(&Setup::limits(|limits| limits.connections_max = 2), |net| {
        let first = net.v5("a");
        let second = net.open(V5);
        assert!(net.try_open(V5).is_none());
        assert_eq!(net.count(|counters| counters.connections_refused.get()), 1);
        net.lose(first);
        net.v5("a");
        assert!(net.try_open(V5).is_none());
        net.send(second, "10: <HTTP> 05 02 0000 {} <c>");
        net.expect_closed(second, "");
        net.v5("b");
    });
}

/// What a session had leaves with it: queues, what is in flight, what was received, in memory as well.
#[test]
fn queues_give_their_memory_back() {
    scenario_in(MODES[0], &Setup::default(), |net| {
        let from = net.v5("from");
        let to = net.durable(V5, "to", CONNACK);
        net.subscribe(to, "t", 1);
        net.lose(to);
        for _ in 0..2000 {
            net.send(from, "32: <t> 0001 {} 'x'");
        }
        let to = net.open(V5);
        net.send(to, &connect_packet(V5, "00", 0, "11 00000E10", "to"));
        for id in 1..=2000_u16 {
            net.send_bytes(to, &[0x40, 2, (id >> 8) as u8, id as u8]);
        }
        let session = net.session("to").expect("connected");
        assert!(session.in_flight.is_empty() && session.queue.is_empty() && session.queue.bytes() == 0);
        assert!(session.in_flight.capacity() <= 64 && session.queue.capacity() <= 64);
        let worker = &net.cores[0];
        assert!(
            worker
                .connections
                .iter()
                .all(|(_, connection)| connection.out.capacity() == 0 && connection.partial.is_none())
        );
    });
}

/// Our own bound on what is in flight holds for who names a larger one, or cannot name any.
#[test]
fn messages_in_flight_are_bounded() {
    scenario_with(&Setup::limits(|limits| limits.in_flight_max = 2), |net| {
        for (version, properties) in [(V3_1_1, ""), (V5, ""), (V5, "21 FFFF")] {
            let client = net.join(version, &connect_packet(version, "02", 0, properties, "c"), CONNACK);
            net.subscribe(client, "t", 1);
            for _ in 0..3 {
                net.send(client, "30: <u> [{}] | 32: <t> 0001 [{}] 'x'");
            }
            net.take(client);
            let session = net.session("c").expect("connected");
            assert_eq!((session.in_flight.len(), session.queue.len()), (2, 1));
            net.send(client, "40: 0001");
            net.expect(client, "32: <t> 0003 [{}] 'x'");
        }
    });
}

/// The connection is lost in the middle of a packet that is being sent.
#[test]
fn connection_lost_within_a_packet() {
    scenario(|net| {
        let client = net.durable(V5, "c", CONNACK);
        net.subscribe(client, "t", 1);
        net.stall(client, true);
        net.send(client, "32: <t> 0001 {} 'x'");
        net.read(client, 3);
        net.lose(client);
        net.durable(V5, "c", &format!("{CONNACK_RESUMED} | 3A: <t> 0001 {{}} 'x'"));
    });
}

/// Another set of bounds comes by mail. The server's hold for who is there; those that a listener may have come with who comes.
#[test]
fn bounds_change_while_clients_are_connected() {
    scenario_with(&Setup::limits(|limits| limits.subscriptions_max = 2), |net| {
        let (from, client) = (net.v5("from"), net.v5("c"));
        net.send(client, "82: 0001 {} <a> 00 <b> 00 <c> 00");
        net.expect(client, "90: 0001 {} 00 00 97");
        let mut limits = net.shared.limits.clone();
        limits.subscriptions_max = 1;
        limits.check_payload_format = true;
        limits.topic_levels_max = 2;
        let limits = Arc::new(limits);
        for worker in 0..net.workers() {
            assert!(net.shared.mailboxes.post(worker, Mail::Limits(Arc::clone(&limits))));
        }
        net.settle();
        net.send(from, "32: <a/b/c> 0001 {} 'x'");
        net.expect(from, "40: 0001 90");
        // What was granted to who is there is so still.
        net.send(client, "A2: 0003 {} <b>");
        net.expect(client, "B0: 0003 {} 00");
        net.send(client, "82: 0004 {} <d> 00 <e> 00");
        net.expect(client, "90: 0004 {} 00 97");
        net.send(from, "32: <a> 0002 {01 01} FF");
        net.expect(from, "40: 0002");
        net.expect(client, "30: <a> {01 01} FF");
        net.profile = Arc::new(ListenerProfile::new("another", (*limits).clone()));
        let (from, client) = (net.v5("another"), net.v5("one more"));
        net.send(client, "82: 0001 {} <f> 00 <g> 00");
        net.expect(client, "90: 0001 {} 00 97");
        net.send(from, "32: <a> 0003 {01 01} FF");
        net.expect(from, "40: 0003 99");
    });
}
