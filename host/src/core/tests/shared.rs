//! Shared Subscriptions (section 4.8.2): which member gets a message, and what becomes of it when that member goes.

use super::net::{bytes, connect_packet};
use super::*;
use crate::core::owner_of;
use crate::limits::SharedStrategy;

const TWO: Mode = Mode { workers: 2, bytewise: false };

/// A Client Identifier that a worker of two owns.
fn name_for(worker: usize, index: usize) -> String {
    let mut names = (0..).map(|number| format!("c{number}")).filter(|name| owner_of(name, 2) == worker);
    names.nth(index).expect("there is always one more")
}

pub(super) fn strategy(strategy: SharedStrategy) -> Setup {
    Setup::limits(move |limits| limits.shared_strategy = strategy)
}

/// [MQTT-4.8.2-1] Name and filter together make the group.
#[test]
fn groups_are_told_apart_by_name_and_filter() {
    for version in VERSIONS {
        scenario(|net| {
            let from = net.client(version, "from");
            let filters = ["$share/a/x", "$share/b/x", "$share/a/+", "$share/a/y"];
            let members = filters.map(|filter| {
                let member = net.client(version, filter);
                net.subscribe(member, filter, 1);
                member
            });
            net.send(from, "32: <x> 0001 [{}] '1'");
            for (member, expected) in members.into_iter().zip([true, true, true, false]) {
                net.expect(member, if expected { "32: <x> 0001 [{}] '1'" } else { "" });
            }
            // The written filter ends the part in one group, and in no other.
            net.send(members[0], "A2: 0001 [{}] <$share/a/x> | A2: 0002 [{}] <$share/b/x>");
            net.expect(members[0], "B0: 0001 [{} 00] | B0: 0002 [{} 11]");
            net.send(from, "30: <x> [{}] '2'");
            net.expect(members[0], "");
            net.expect(members[1], "30: <x> [{}] '2'");
            net.expect(members[2], "30: <x> [{}] '2'");
        });
    }
}

/// [MQTT-4.8.2-1] [MQTT-4.8.2-2] [MQTT-3.9.3-2]
#[test]
fn malformed_ones_are_refused() {
    // 3.1 has no code for a failure.
    for (version, code) in [(V3_1, "01"), (V3_1_1, "80"), (V5, "8F")] {
        scenario(|net| {
            let client = net.client(version, "c");
            for filter in [
                "$share",
                "$share/",
                "$share//",
                "$share/a",
                "$share/a/",
                "$share//t",
                "$share/+/t",
                "$share/#/t",
                "$share/a+/t",
                "$share/a#/t",
                "$share/a/t#",
                "$share/a/#/t",
                "$share/a/t+",
            ] {
                net.send(client, &format!("82: 0001 [{{}}] <{filter}> 01 | A2: 0002 [{{}}] <{filter}>"));
                net.expect(client, &format!("90: 0001 [{{}}] {code} | B0: 0002 [{{}} 8F]"));
            }
            // Ordinary ones that look alike.
            net.send(client, "82: 0001 [{}] <$shared/a/t> 00 <$SHARE/a/t> 00 <share/a/t> 00 <$share/a//> 00");
            net.expect(client, "90: 0001 [{}] 00 00 00 00");
        });
    }
}

/// [MQTT-3.8.3-4]
#[test]
fn no_local_is_a_protocol_error() {
    for (version, answer) in [(V3_1_1, ""), (V5, "E0: 82")] {
        scenario(|net| {
            let client = net.client(version, "c");
            net.send(client, "82: 0001 [{}] <t> 00 <$share/g/t> 04");
            net.expect_closed(client, answer);
        });
    }
}

/// Section 4.8.2: a Shared Subscription is not sent retained messages when it is made, whatever Retain Handling says.
#[test]
fn retained_messages_are_not_sent_at_subscribe() {
    scenario(|net| {
        let client = net.v5("c");
        net.send(client, "31: <t> {} 'kept'");
        for options in ["01", "11", "21"] {
            net.send(client, &format!("82: 0001 {{0B 05}} <$share/g{options}/t> {options}"));
            net.expect(client, "90: 0001 {} 01");
        }
        net.advance(1_000);
        net.send(client, "82: 0001 {0B 05} <t> 01");
        net.expect(client, "90: 0001 {} 01 | 31: <t> {0B 05} 'kept'");
    });
}

/// [MQTT-3.3.4-3] [MQTT-3.3.4-4] A shared and a plain subscription of one client that match the same message: one
/// delivery each, with the identifier and the options of its own.
#[test]
fn shared_and_plain_subscriptions_overlap() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.send(to, "82: 0001 {0B 01} <t> 01 | 82: 0002 {0B 02} <+> 00 | 82: 0003 {0B 03} <$share/g/#> 0A");
        net.take(to);
        net.send(from, "35: <t> 0001 {} 'x' | 62: 0001");
        net.expect(to, "32: <t> 0001 {0B 01 0B 02} 'x' | 35: <t> 0002 {0B 03} 'x'");
        // No Local of the plain ones says nothing about the shared one.
        net.send(to, "82: 0001 {0B 01} <t> 25 | 82: 0002 {} <+> 24 | 30: <t> {} 'own'");
        net.expect(to, "90: 0001 {} 01 | 90: 0002 {} 00 | 30: <t> {0B 03} 'own'");
    });
}

/// What a member has when its session ends, each with its QoS: acknowledged 1, 2 with QoS 1; sent 3, 4; released 5;
/// waiting 6, 7 for the group and 8 not for it. In the end there is a second member.
fn fill(net: &mut Net, from: usize, member: &str, other: &str) -> (usize, usize) {
    let connect = connect_packet(V5, "00", 0, "11 00000E10 21 0003", member);
    let first = net.join(V5, &connect, CONNACK);
    net.subscribe(first, "$share/g/t", 2);
    net.subscribe(first, "own", 2);
    net.send(from, "32: <t> 0001 {} '1' | 32: <t> 0002 {} '2'");
    net.send(first, "40: 0001 | 40: 0002");
    net.send(from, "32: <t> 0001 {} '3' | 34: <t> 0002 {} '4' | 62: 0002 | 34: <t> 0003 {} '5' | 62: 0003");
    net.send(first, "50: 0005");
    net.send(from, "32: <t> 0001 {} '6' | 34: <t> 0002 {} '7' | 62: 0002 | 32: <own> 0003 {} '8'");
    net.take(from);
    let second = net.v5(other);
    net.subscribe(second, "$share/g/t", 2);
    net.expect(second, "");
    net.take(first);
    (first, second)
}

/// Section 4.8.2: what the client of an ended session has not acknowledged goes on to another member, once and in order;
/// [MQTT-4.8.2-5] but not a QoS 2 message that has been sent.
#[test]
fn unacknowledged_messages_go_on_when_the_session_ends() {
    for how in ["disconnect", "expiry", "clean start"] {
        scenario(|net| {
            let (from, plain) = (net.v5("from"), net.v5("plain"));
            net.subscribe(plain, "t", 0);
            let (first, second) = fill(net, from, "first", "second");
            net.take(plain);
            match how {
                "disconnect" => net.send(first, "E0: 00 {11 00000000}"),
                "expiry" => {
                    net.lose(first);
                    net.advance(3_599_999);
                    net.expect(second, "");
                    net.advance(1);
                }
                _ => {
                    net.client(V5, "first");
                    net.expect_closed(first, "E0: 8E");
                }
            }
            net.expect(second, "32: <t> 0001 {} '3' | 32: <t> 0002 {} '6' | 34: <t> 0003 {} '7'");
            assert_eq!(net.count(|counters| counters.dropped_no_member.get()), 1, "the QoS 2 message that was sent");
            // Nobody else gets them, and nobody twice.
            net.expect(plain, "");
            net.send(second, "40: 0001 | 40: 0002 | 50: 0003 | 70: 0003");
            net.expect(second, "62: 0003");
            net.advance(10_000);
            net.expect(second, "");
        });
    }
}

/// [MQTT-4.8.2-4] As long as the session lives, what was sent is completed with its client.
#[test]
fn messages_in_flight_stay_while_the_session_lives() {
    scenario(|net| {
        let from = net.v5("from");
        let (first, second) = fill(net, from, "first", "second");
        net.lose(first);
        net.advance(1_000_000);
        net.expect(second, "");
        let connect = connect_packet(V5, "00", 0, "11 00000E10", "first");
        let resent = "3A: <t> 0003 {} '3' | 3C: <t> 0004 {} '4' | 62: 0005";
        let queued = "32: <t> 0006 {} '6' | 34: <t> 0007 {} '7' | 32: <own> 0008 {} '8'";
        let first = net.join(V5, &connect, &format!("{CONNACK_RESUMED} | {resent} | {queued}"));
        net.send(first, "40: 0003 | 50: 0004 | 70: 0004 | 70: 0005");
        net.expect(first, "62: 0004");
        // A takeover does not end the session either.
        let third = net.join(
            V5,
            &connect,
            &format!("{CONNACK_RESUMED} | 3A: <t> 0006 {{}} '6' | 3C: <t> 0007 {{}} '7' | 3A: <own> 0008 {{}} '8'"),
        );
        net.expect_closed(first, "E0: 8E");
        net.send(third, "40: 0006 | 50: 0007 | 70: 0007 | 40: 0008");
        net.expect(second, "");
    });
}

/// Without another member there is nobody who could get them.
#[test]
fn messages_of_the_last_member_are_dropped_and_counted() {
    scenario(|net| {
        let from = net.v5("from");
        let (first, second) = fill(net, from, "first", "second");
        net.send(second, "A2: 0001 {} <$share/g/t>");
        net.expect(second, "B0: 0001 {} 00");
        net.send(first, "E0: 00 {11 00000000}");
        net.expect(second, "");
        assert_eq!(net.count(|counters| counters.dropped_no_member.get()), 4);
        // A group of the same name and filter that is made later is another one.
        net.subscribe(second, "$share/g/t", 2);
        net.expect(second, "");
    });
}

/// The other members are asked by the strategy, and each has its own QoS, RETAIN and identifier; who is away keeps them in
/// its queue.
#[test]
fn messages_go_on_as_the_other_member_wants_them() {
    scenario(|net| {
        let from = net.v5("from");
        let connect = connect_packet(V5, "00", 0, "11 00000E10 21 0001", "first");
        let first = net.join(V5, &connect, CONNACK);
        net.subscribe(first, "$share/g/t", 2);
        net.send(from, "32: <t> 0001 {26 <k> <v>} '1' | 33: <t> 0001 {02 00000064} '2' | 34: <t> 0001 {02 00000001} '3' | 62: 0001");
        net.take(from);
        let second = net.durable(V5, "second", CONNACK);
        net.send(second, "82: 0001 {0B 07} <$share/g/t> 09");
        net.expect(second, "90: 0001 {} 01");
        net.lose(second);
        net.advance(1_000);
        net.send(first, "E0: 00 {11 00000000}");
        assert_eq!(net.count(|counters| counters.dropped_expired.get()), 1);
        let again = "32: <t> 0001 {26 <k> <v> 0B 07} '1' | 33: <t> 0002 {02 00000063 0B 07} '2'";
        net.durable(V5, "second", &format!("{CONNACK_RESUMED} | {again}"));
    });
}

/// What waits for a member that unsubscribes goes on; [MQTT-3.10.4-3] what is in flight is completed.
#[test]
fn queued_messages_go_on_at_unsubscribe() {
    for written in ["<$share/g/t>", "<t> <$share/g/t> <own>"] {
        scenario(|net| {
            let from = net.v5("from");
            let (first, second) = fill(net, from, "first", "second");
            net.send(from, "32: <own> 0001 {} '9'");
            net.send(first, &format!("A2: 0009 {{}} {written}"));
            net.take(first);
            net.expect(second, "32: <t> 0001 {} '6' | 34: <t> 0002 {} '7'");
            net.send(first, "40: 0003 | 50: 0004 | 70: 0004 | 70: 0005");
            net.expect(first, "32: <own> 0006 {} '8' | 62: 0004 | 32: <own> 0007 {} '9'");
            assert_eq!(net.session("first").expect("connected").queue.bytes(), 0);
            assert_eq!(net.count(|counters| counters.dropped_no_member.get()), 0);
        });
    }
    // With nobody else there, they stay.
    scenario(|net| {
        let from = net.v5("from");
        let (first, second) = fill(net, from, "first", "second");
        net.send(second, "A2: 0001 {} <$share/g/t>");
        net.send(first, "A2: 0009 {} <$share/g/t> | 40: 0003");
        net.expect(first, "B0: 0009 {} 00 | 32: <t> 0006 {} '6'");
    });
}

/// [MQTT-4.8.2-6] Who refuses a message has it discarded for the whole group.
#[test]
fn refused_messages_go_to_nobody_else() {
    scenario(|net| {
        let from = net.v5("from");
        let first = net.v5("first");
        net.subscribe(first, "$share/g/t", 2);
        net.send(from, "32: <t> 0001 {} '1' | 34: <t> 0002 {} '2' | 62: 0002");
        net.expect(first, "32: <t> 0001 {} '1' | 34: <t> 0002 {} '2'");
        let second = net.v5("second");
        net.subscribe(second, "$share/g/t", 2);
        net.send(first, "40: 0001 97 | 50: 0002 80");
        net.lose(first);
        net.advance(1_000);
        net.expect(second, "");
    });
}

/// A member whose window is full is passed over while another can take the message; QoS 0 needs no window.
#[test]
fn members_that_can_take_a_message_come_first() {
    for which in [SharedStrategy::RoundRobin, SharedStrategy::Random, SharedStrategy::LeastInFlight] {
        scenario_with(&strategy(which), |net| {
            let from = net.v5("from");
            let first = net.join(V5, &connect_packet(V5, "02", 0, "21 0001", "first"), CONNACK);
            net.subscribe(first, "$share/g/t", 1);
            net.send(from, "32: <t> 0001 {} '1'");
            net.expect(first, "32: <t> 0001 {} '1'");
            let second = net.v5("second");
            net.subscribe(second, "$share/g/t", 1);
            for id in 1..=3 {
                net.send(from, "32: <t> 0001 {} 'x'");
                net.expect(second, &format!("32: <t> {id:04X} {{}} 'x'"));
                net.send(second, &format!("40: {id:04X}"));
            }
            net.send(first, "40: 0001");
            net.lose(second);
            net.send(from, "32: <t> 0001 {} 'y'");
            net.expect(first, "32: <t> 0002 {} 'y'");
        });
    }
}

#[test]
fn sticky_group_stays_with_a_member() {
    scenario_with(&strategy(SharedStrategy::Sticky), |net| {
        let from = net.v5("from");
        let [a, b] = ["a", "b"].map(|name| {
            let member = net.v5(name);
            net.subscribe(member, "$share/g/t", 0);
            member
        });
        let got = |net: &mut Net| {
            for _ in 0..5 {
                net.send(from, "30: <t> {} 'x'");
            }
            [a, b].map(|member| net.take(member).len() / 7)
        };
        let first = got(net);
        assert!(first == [5, 0] || first == [0, 5], "{first:?}");
        assert_eq!(got(net), first);
        let (one, other) = if first[0] == 5 { (a, b) } else { (b, a) };
        net.send(one, "A2: 0001 {} <$share/g/t>");
        net.expect(one, "B0: 0001 {} 00");
        net.send(from, "30: <t> {} 'x'");
        net.expect(other, "30: <t> {} 'x'");
    });
}

/// In one turn, so that the members' own worker has told nothing yet.
#[test]
fn least_in_flight_spreads_a_burst() {
    scenario_in(TWO, &strategy(SharedStrategy::LeastInFlight), |net| {
        let from = net.v5(&name_for(0, 0));
        let members = [(0, 1), (1, 0), (1, 1)].map(|(worker, index)| {
            let member = net.v5(&name_for(worker, index));
            net.subscribe(member, "$share/g/t", 1);
            member
        });
        let burst = "32: <t> 0001 {} 'x' |".repeat(30);
        let (worker, slot) = net.place(from);
        net.cores[worker].feed(slot, &bytes(V5, &burst), net.now);
        net.settle();
        for (member, count) in members.into_iter().zip([10, 10, 10]) {
            assert_eq!(net.take(member).len(), count * 9);
        }
        // Who acknowledges gets more.
        for id in 1..=10 {
            net.send(members[2], &format!("40: {id:04X}"));
        }
        net.send(from, &"32: <t> 0001 {} 'x' |".repeat(10));
        assert_eq!(members.map(|member| net.take(member).len() / 9), [0, 0, 10]);
    });
}

/// What expires on its way to a member is not on its way any more.
#[test]
fn least_in_flight_forgets_what_expires() {
    scenario_in(TWO, &strategy(SharedStrategy::LeastInFlight), |net| {
        let from = net.v5(&name_for(0, 0));
        let [near, far] = [(0, 1), (1, 0)].map(|(worker, index)| {
            let member = net.v5(&name_for(worker, index));
            net.subscribe(member, "$share/g/t", 1);
            member
        });
        net.send(from, &"32: <t> 0001 {02 00000000} 'x' |".repeat(10));
        assert_ne!(net.count(|counters| counters.dropped_expired.get()), 0);
        net.take(near);
        for id in 1..=10 {
            net.send(near, &format!("40: {id:04X}"));
        }
        net.send(from, &"32: <t> 0001 {} 'x' |".repeat(10));
        assert_eq!([near, far].map(|member| net.take(member).len() / 9), [5, 5]);
    });
}

/// [MQTT-3.10.4-2] A message that is on its way to a member when it unsubscribes goes to another one; options that change
/// on its way are those that count.
#[test]
fn member_changes_while_a_message_is_on_its_way() {
    scenario_in(TWO, &Setup::default(), |net| {
        let from = net.v5(&name_for(0, 0));
        let to = net.v5(&name_for(1, 0));
        net.subscribe(to, "$share/g/t", 1);
        let on_its_way = |net: &mut Net| {
            let (worker, slot) = net.place(from);
            net.cores[worker].feed(slot, &bytes(V5, "32: <t> 0001 {} 'x'"), net.now);
            net.cores[worker].flush_mail();
        };
        on_its_way(net);
        let (worker, slot) = net.place(to);
        net.cores[worker].feed(slot, &bytes(V5, "82: 0001 {0B 05} <$share/g/t> 00"), net.now);
        net.settle();
        net.expect(to, "90: 0001 {} 00 | 30: <t> {0B 05} 'x'");
        for other in [name_for(0, 1), name_for(1, 1)] {
            let late = net.v5(&other);
            on_its_way(net);
            net.cores[worker].feed(slot, &bytes(V5, "A2: 0001 {} <$share/g/t>"), net.now);
            let (at, late_slot) = net.place(late);
            net.cores[at].feed(late_slot, &bytes(V5, "82: 0002 {} <$share/g/t> 01"), net.now);
            net.settle();
            // The group had ended before the late one joined.
            net.expect(to, "B0: 0001 {} 00");
            net.expect(late, "90: 0002 {} 01");
            net.subscribe(to, "$share/g/t", 0);
            net.subscribe(late, "$share/g/t", 1);
            for _ in 0..2 {
                on_its_way(net);
            }
            net.cores[worker].feed(slot, &bytes(V5, "A2: 0003 {} <$share/g/t>"), net.now);
            net.settle();
            net.expect(to, "B0: 0003 {} 00");
            net.expect(late, "32: <t> 0001 {} 'x' | 32: <t> 0002 {} 'x'");
            net.send(late, "E0:");
            net.subscribe(to, "$share/g/t", 0);
        }
    });
}

/// A long queue is given on over many turns, and others are served meanwhile; while its new worker is behind it waits.
#[test]
fn long_queues_go_on_in_pieces() {
    scenario_in(TWO, &Setup::limits(|limits| limits.mailbox_bytes_max = 1_000), |net| {
        let from = net.v5(&name_for(0, 0));
        let connect = connect_packet(V5, "00", 0, "11 00000E10 21 0001", &name_for(0, 1));
        let first = net.join(V5, &connect, CONNACK);
        net.subscribe(first, "$share/g/t", 1);
        for number in 0..2_000 {
            net.send(from, &format!("32: <t> 0001 {{}} {number:04X}"));
        }
        let second = net.v5(&name_for(1, 0));
        net.subscribe(second, "$share/g/t", 1);
        let (worker, slot) = net.place(first);
        assert_eq!(worker, 0);
        net.cores[0].feed(slot, &bytes(V5, "E0: 00 {11 00000000}"), net.now);
        assert_eq!(net.cores[0].handed_on.len(), 2_000);
        // The worker of the second one takes no turns: no more is sent towards it than it takes to fall behind.
        for _ in 0..10 {
            net.cores[0].take_dirty(&mut Vec::new());
            net.cores[0].flush_mail();
        }
        assert_eq!(net.cores[0].handed_on.len(), 2_000 - 256);
        let retry = net.cores[0].next_tick().expect("it goes on");
        assert!(net.now < retry && retry <= net.now + 10);
        net.advance(1_000);
        let mut got = Vec::new();
        for _ in 0..10 {
            let packets = net.take(second);
            let ids = packets.chunks(10).map(|packet| [packet[5], packet[6]]);
            got.extend(packets.chunks(10).map(|packet| u16::from_be_bytes([packet[8], packet[9]])));
            let acks: Vec<u8> = ids.flat_map(|id| [0x40, 2, id[0], id[1]]).collect();
            net.send_bytes(second, &acks);
        }
        assert_eq!(got, (0..2_000).collect::<Vec<u16>>());
    });
}

/// A session may hold a thousand of one and ten thousand of the other.
#[test]
fn what_waits_is_small() {
    assert_eq!((size_of::<crate::core::session::Queued>(), size_of::<crate::core::session::InFlight>()), (32, 40));
}
