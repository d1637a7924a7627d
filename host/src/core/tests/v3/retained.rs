//! Retained messages (section 3.3.1.3).

use crate::core::tests::net::{bytes, split};

use super::*;

/// A subscription of a client that has just come, and the retained messages that it gets.
#[track_caller]
fn newcomer_gets(net: &mut Net, version: ProtocolVersion, filter: &str, qos: u8, expected: &str) {
    let client = net.client(version, "newcomer");
    net.send(client, &format!("82: 0001 <{filter}> {qos:02X}"));
    net.expect(client, &format!("90: 0001 {qos:02X} | {expected}"));
    net.lose(client);
}

/// [MQTT-3.3.1-5@3.1.1] [MQTT-3.3.1-6@3.1.1] [MQTT-3.3.1-8@3.1.1] The last one of each topic that matches is sent, with
/// RETAIN and with its own QoS or that of the subscription, whichever is less.
#[test]
fn last_message_is_kept_for_later_subscribers() {
    for version in OLD {
        scenario(|net| {
            let from = net.client(version, "from");
            net.send(from, "31: <a> 'old' | 33: <a> 0001 'one' | 31: <b> 'old' | 35: <b> 0002 'two' | 62: 0002");
            net.send(from, "35: <c/d> 0003 'old' | 62: 0003 | 31: <c/d> 'zero'");
            net.expect(from, "40: 0001 | 50: 0002 | 70: 0002 | 50: 0003 | 70: 0003");
            for qos in 0..=2_u8 {
                let one = ["31: <a> 'one'", "33: <a> 0001 'one'"][usize::from(qos.min(1))];
                let two = ["31: <b> 'two'", "33: <b> 0001 'two'", "35: <b> 0001 'two'"][usize::from(qos)];
                newcomer_gets(net, version, "a", qos, one);
                newcomer_gets(net, version, "b", qos, two);
                newcomer_gets(net, version, "c/#", qos, "31: <c/d> 'zero'");
                newcomer_gets(net, version, "d", qos, "");
            }
            // Also once their publisher has gone.
            net.lose(from);
            newcomer_gets(net, version, "+/d", 0, "31: <c/d> 'zero'");
        });
    }
}

/// [MQTT-3.3.1-9@3.1.1] Who has subscribed before gets it as any other, without RETAIN.
#[test]
fn established_subscription_gets_it_without_retain() {
    for version in OLD {
        scenario(|net| {
            let (from, to) = (net.client(version, "from"), net.client(version, "to"));
            let away = net.durable(version, "away", "20: 00 00");
            net.subscribe(to, "t", 2);
            net.subscribe(away, "t", 2);
            net.lose(away);
            net.send(from, "31: <t> '0' | 33: <t> 0001 '1' | 35: <t> 0002 '2' | 62: 0002");
            net.expect(to, "30: <t> '0' | 32: <t> 0001 '1' | 34: <t> 0002 '2'");
            net.durable(version, "away", &format!("{} | 32: <t> 0001 '1' | 34: <t> 0002 '2'", resumed(version)));
        });
    }
}

/// [MQTT-3.3.1-7@3.1.1] One with QoS 0 takes the place of any other, even if there is no room to keep it: then there is
/// none. It is delivered all the same.
#[test]
fn qos_0_takes_the_place_of_any_other() {
    scenario_with(&Setup::limits(|limits| limits.retained_bytes_max = 10), |net| {
        let (from, to) = (net.client(V3_1_1, "from"), net.client(V3_1_1, "to"));
        net.subscribe(to, "t", 0);
        net.send(from, "35: <t> 0001 'two' | 62: 0001 | 31: <t> 'zero'");
        net.expect(to, "30: <t> 'two' | 30: <t> 'zero'");
        newcomer_gets(net, V3_1_1, "t", 2, "31: <t> 'zero'");
        net.send(from, "33: <t> 0001 'one' | 31: <t> 'too much to be kept'");
        net.expect(to, "30: <t> 'one' | 30: <t> 'too much to be kept'");
        newcomer_gets(net, V3_1_1, "t", 2, "");
        assert!(net.shared.retained.is_empty());
        assert_eq!(net.count(|counters| counters.dropped_not_retained.get()), 1);
    });
}

/// A QoS 2 message that was accepted and is released when there is no room any more is delivered, and the one before is
/// not left in its place.
#[test]
fn released_message_is_delivered_even_if_it_cannot_be_kept() {
    scenario_with(&Setup::limits(|limits| limits.retained_bytes_max = 10), |net| {
        let (from, to) = (net.client(V3_1_1, "from"), net.client(V3_1_1, "to"));
        net.subscribe(to, "+", 0);
        net.send(from, "31: <a> '1' | 35: <a> 0001 '123456'");
        net.expect(from, "50: 0001");
        net.send(from, "31: <b> '12345' | 62: 0001");
        net.expect(from, "70: 0001");
        net.expect(to, "30: <a> '1' | 30: <b> '12345' | 30: <a> '123456'");
        newcomer_gets(net, V3_1_1, "+", 0, "31: <b> '12345'");
    });
}

/// [MQTT-3.3.1-10@3.1.1] [MQTT-3.3.1-11@3.1.1] One without a payload is delivered as any other, removes what was retained,
/// and is not kept itself.
#[test]
fn empty_one_clears_the_topic() {
    for version in OLD {
        scenario(|net| {
            let (from, to) = (net.client(version, "from"), net.client(version, "to"));
            net.subscribe(to, "#", 2);
            net.send(from, "31: <a> 'x' | 31: <b> 'x' | 31: <c> 'x'");
            net.expect(to, "30: <a> 'x' | 30: <b> 'x' | 30: <c> 'x'");
            net.send(from, "31: <a> | 33: <b> 0001 | 35: <c> 0002");
            net.expect(to, "30: <a> | 32: <b> 0001");
            newcomer_gets(net, version, "#", 0, "31: <c> 'x'");
            // The exchange is that of any QoS 2 message: what it does, it does when it is released.
            net.send(from, "62: 0002 | 31: <never>");
            net.expect(to, "34: <c> 0002 | 30: <never>");
            newcomer_gets(net, version, "#", 0, "");
            assert!(net.shared.retained.is_empty());
        });
    }
}

/// [MQTT-3.3.1-12@3.1.1] Without RETAIN nothing is stored, replaced or removed.
#[test]
fn others_leave_it_alone() {
    for version in OLD {
        scenario(|net| {
            let from = net.client(version, "from");
            net.send(from, "30: <t> 'x' | 32: <t> 0001 'x'");
            newcomer_gets(net, version, "t", 0, "");
            net.send(from, "31: <t> 'kept' | 30: <t> 'x' | 32: <t> 0001 'x' | 34: <t> 0002 'x' | 62: 0002 | 30: <t>");
            newcomer_gets(net, version, "t", 0, "31: <t> 'kept'");
        });
    }
}

/// [MQTT-3.8.4-3@3.1.1] The same filter again: the new QoS holds, retained messages come again, and what was under way
/// goes on.
#[test]
fn same_filter_again_gets_it_again() {
    for version in OLD {
        scenario(|net| {
            let (from, to) = (net.client(version, "from"), net.client(version, "to"));
            net.send(from, "33: <t/1> 0001 'kept'");
            net.send(to, "82: 0001 <t/+> 02");
            net.expect(to, "90: 0001 02 | 33: <t/1> 0001 'kept'");
            net.send(from, "34: <t/2> 0001 'a' | 62: 0001");
            net.expect(to, "34: <t/2> 0002 'a'");
            net.send(to, "82: 0002 <t/+> 00");
            net.expect(to, "90: 0002 00 | 31: <t/1> 'kept'");
            net.send(from, "34: <t/2> 0001 'b' | 62: 0001");
            net.expect(to, "30: <t/2> 'b'");
            net.send(to, "40: 0001 | 50: 0002 | 82: 0003 <t/+> 01");
            net.expect(to, "62: 0002 | 90: 0003 01 | 33: <t/1> 0003 'kept'");
            net.send(from, "34: <t/2> 0001 'c' | 62: 0001");
            net.expect(to, "32: <t/2> 0004 'c'");
            // It is one subscription all the time.
            net.send(to, "A2: 0004 <t/+>");
            net.expect(to, "B0: 0004");
            net.send(from, "30: <t/2> 'd'");
            net.expect(to, "");
        });
    }
}

/// A subscription that a resumed session still has is no new one: nothing is sent for it (section 3.3.1.3).
#[test]
fn resumed_subscription_is_not_new() {
    for version in OLD {
        scenario(|net| {
            let from = net.client(version, "from");
            net.send(from, "31: <t> 'x'");
            let client = net.durable(version, "c", "20: 00 00");
            net.send(client, "82: 0001 <t> 00");
            net.expect(client, "90: 0001 00 | 31: <t> 'x'");
            net.lose(client);
            net.durable(version, "c", resumed(version));
        });
    }
}

/// [MQTT-3.3.1-6@3.1.1] [MQTT-4.1.0-1@3.1.1] What a new subscription still has coming belongs to its session: it comes on the
/// next connection, if its QoS is kept for the absent at all.
#[test]
fn go_on_with_the_session() {
    for version in OLD {
        scenario_with(&Setup::limits(|limits| limits.in_flight_max = 1), |net| {
            let from = net.client(version, "from");
            let client = net.durable(version, "c", "20: 00 00");
            for topic in ["t/1", "t/2", "t/3", "a", "b", "c"] {
                net.send(from, &format!("35: <{topic}> 0001 '{topic}' | 62: 0001"));
            }
            net.send(client, "82: 0001 <t/+> 01 <a> 02 <b> 00 <c> 01");
            let first = net.take(client);
            let (suback, first) = first.split_at(8);
            assert_eq!((suback, first.len()), (&bytes(version, "90: 0001 01 02 00 01")[..], 12));
            net.lose(client);
            // What has been replaced meanwhile comes as it is now.
            net.send(from, "33: <c> 0001 'new'");
            let again = [&[0x3B], &first[1..]].concat();
            let client = net.open(version);
            net.send(client, &connect_packet(version, "00", 0, "", "c"));
            assert_eq!(net.take(client), [bytes(version, resumed(version)), again].concat());
            // One after the other, as each is acknowledged. QoS 0 is sent when its turn has come.
            let mut seen = Vec::new();
            let mut got = first.to_vec();
            while !got.is_empty() {
                for packet in split(&got) {
                    if packet[0] == 0x62 {
                        net.send_bytes(client, &[0x70, 2, packet[2], packet[3]]);
                        continue;
                    }
                    let (topic, rest) = packet[4..].split_at(usize::from(packet[3]));
                    seen.push((packet[0], String::from_utf8(topic.to_vec()).expect("UTF-8")));
                    match packet[0] & 6 {
                        2 => net.send_bytes(client, &[0x40, 2, rest[0], rest[1]]),
                        4 => net.send_bytes(client, &[0x50, 2, rest[0], rest[1]]),
                        _ => {}
                    }
                }
                got = net.take(client);
            }
            assert!(net.is_connected(client));
            seen.sort();
            // The new value of `c` came live, and comes once.
            let all = [(0x31, "b"), (0x32, "c"), (0x33, "t/1"), (0x33, "t/2"), (0x33, "t/3"), (0x35, "a")];
            assert_eq!(seen, all.map(|(first, topic)| (first, topic.to_owned())));
        });
    }
}
