//! What waits in a session: what makes room in a full queue, and QoS 0 for the absent.

use super::*;
use crate::limits::{Limits, QueueFull};

/// A client whose session is subscribed to `t` and absent, and one that publishes.
fn absent(net: &mut Net, qos: u8) -> usize {
    let to = net.durable(V5, "to", CONNACK);
    net.subscribe(to, "t", qos);
    net.lose(to);
    net.v5("from")
}

fn full(change: impl Fn(&mut Limits)) -> Setup {
    Setup::limits(|limits| {
        limits.queue_messages_max = 3;
        change(limits);
    })
}

fn publish(net: &mut Net, from: usize, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        net.send(from, &format!("32: <t> 0001 {{}} '{number}'"));
        net.expect(from, "40: 0001");
    }
}

#[test]
fn the_newest_is_dropped() {
    scenario_with(&full(|_| ()), |net| {
        let from = absent(net, 1);
        publish(net, from, 1..=5);
        assert_eq!(net.count(|counters| counters.dropped_queue_full.get()), 2);
        let kept = "32: <t> 0001 {} '1' | 32: <t> 0002 {} '2' | 32: <t> 0003 {} '3'";
        net.durable(V5, "to", &format!("{CONNACK_RESUMED} | {kept}"));
    });
}

#[test]
fn the_oldest_is_dropped() {
    scenario_with(&full(|limits| limits.queue_full = QueueFull::DropOldest), |net| {
        let from = absent(net, 1);
        publish(net, from, 1..=5);
        assert_eq!(net.count(|counters| counters.dropped_queue_full.get()), 2);
        let kept = "32: <t> 0001 {} '3' | 32: <t> 0002 {} '4' | 32: <t> 0003 {} '5'";
        net.durable(V5, "to", &format!("{CONNACK_RESUMED} | {kept}"));
    });
}

/// What is in flight is not in the queue, and is not dropped [MQTT-4.4.0-1].
#[test]
fn the_oldest_that_waits_is_dropped() {
    let setup = full(|limits| (limits.queue_full, limits.in_flight_max) = (QueueFull::DropOldest, 1));
    scenario_with(&setup, |net| {
        let to = net.durable(V5, "to", CONNACK);
        net.subscribe(to, "t", 1);
        let from = net.v5("from");
        publish(net, from, 1..=6);
        net.expect(to, "32: <t> 0001 {} '1'");
        net.send(to, "40: 0001");
        net.expect(to, "32: <t> 0002 {} '4'");
    });
}

/// Several old messages make room for a large one, but not for one that is larger than the queue.
#[test]
fn the_oldest_make_room_for_their_bytes() {
    let setup = Setup::limits(|limits| (limits.queue_full, limits.queue_bytes_max) = (QueueFull::DropOldest, 10));
    scenario_with(&setup, |net| {
        let from = absent(net, 1);
        // Two bytes each, with the topic.
        publish(net, from, 1..=5);
        net.send(from, "32: <t> 0001 {} '123456' | 32: <t> 0001 {} '1234567890'");
        assert_eq!(net.count(|counters| counters.dropped_queue_full.get()), 5);
        let session = net.session("to").expect("it is persistent");
        assert_eq!((session.queue.len(), session.queue.bytes()), (2, 9));
        net.durable(V5, "to", &format!("{CONNACK_RESUMED} | 32: <t> 0001 {{}} '5' | 32: <t> 0002 {{}} '123456'"));
    });
    let nothing = Setup::limits(|limits| (limits.queue_full, limits.queue_messages_max) = (QueueFull::DropOldest, 0));
    scenario_in(MODES[0], &nothing, |net| {
        let from = absent(net, 1);
        publish(net, from, 1..=2);
        assert_eq!(net.count(|counters| counters.dropped_queue_full.get()), 2);
    });
}

/// QoS 0 is dropped for the absent, unless it is to be queued.
#[test]
fn qos_0_for_the_absent() {
    for queue_qos0 in [false, true] {
        scenario_with(&full(|limits| limits.queue_qos0 = queue_qos0), |net| {
            let from = absent(net, 1);
            let clean = net.v5("clean");
            net.subscribe(clean, "t", 0);
            net.send(from, "30: <t> {} '1' | 32: <t> 0001 {} '2' | 30: <t> {} '3' | 30: <t> {} '4'");
            net.expect(clean, "30: <t> {} '1' | 30: <t> {} '2' | 30: <t> {} '3' | 30: <t> {} '4'");
            let kept = if queue_qos0 {
                "30: <t> {} '1' | 32: <t> 0001 {} '2' | 30: <t> {} '3'"
            } else {
                "32: <t> 0001 {} '2'"
            };
            let to = net.durable(V5, "to", &format!("{CONNACK_RESUMED} | {kept}"));
            assert_eq!(net.count(|counters| counters.dropped_queue_full.get()), u64::from(queue_qos0));
            // Only what is acknowledged can be sent again.
            net.lose(to);
            let again = net.durable(V5, "to", &format!("{CONNACK_RESUMED} | 3A: <t> 0001 {{}} '2'"));
            net.send(again, "40: 0001");
            net.send(from, "30: <t> {} '5'");
            net.expect(again, "30: <t> {} '5'");
        });
    }
}

/// [MQTT-4.6.0-6] What comes while QoS 0 messages still wait does not overtake them; expired ones are dropped.
#[test]
fn qos_0_that_waits_is_not_overtaken() {
    let setup = Setup::limits(|limits| (limits.queue_qos0, limits.in_flight_max) = (true, 1));
    scenario_with(&setup, |net| {
        let from = absent(net, 1);
        net.send(from, "32: <t> 0001 {} '1' | 32: <t> 0001 {} '2' | 30: <t> {02 00000001} 'x' | 30: <t> {} '3'");
        net.take(from);
        net.advance(1000);
        let to = net.durable(V5, "to", &format!("{CONNACK_RESUMED} | 32: <t> 0001 {{}} '1'"));
        net.send(from, "30: <t> {} '4'");
        net.expect(to, "");
        net.send(to, "40: 0001");
        net.expect(to, "32: <t> 0002 {} '2'");
        net.send(to, "40: 0002");
        net.expect(to, "30: <t> {} '3' | 30: <t> {} '4'");
        assert_eq!(net.count(|counters| counters.dropped_expired.get()), 1);
        net.send(from, "30: <t> {} '5'");
        net.expect(to, "30: <t> {} '5'");
        assert!(net.session("to").expect("connected").in_flight.is_empty());
    });
}
