//! Messages that come together and go to one receiver: the same as if each had come by itself, in every way in which a train
//! begins, ends, or does not come about. `alike.rs` compares what nobody has thought of.

use plugin_api::{Disconnect, Message, PublishVerdict, QoS, ReasonCode, Reject};

use super::net::{bytes, connect_packet, resumed};
use super::*;

/// PUBLISH packets with these payloads to `t`, with Packet Identifiers from 1 on where there are any.
fn packets(qos: u8, payloads: &[&str]) -> String {
    from_id(qos, 1, payloads)
}

fn from_id(qos: u8, first: usize, payloads: &[&str]) -> String {
    let packet = |(nth, payload): (usize, &&str)| match qos {
        0 => format!("| 30: <t> [{{}}] '{payload}'"),
        _ => format!("| {:02X}: <t> {:04X} [{{}}] '{payload}'", 0x30 | qos << 1, first + nth),
    };
    payloads.iter().enumerate().map(packet).collect()
}

/// Acknowledgements of QoS 1 with these Packet Identifiers.
fn pubacks(packet_ids: std::ops::RangeInclusive<u16>) -> String {
    packet_ids.map(|packet_id| format!("| 40: {packet_id:04X}")).collect()
}

/// A publisher, and a subscriber of `t`. The topic has been published to.
fn two(net: &mut Net, version: ProtocolVersion, qos: u8) -> (usize, usize) {
    let (from, to) = (net.client(version, "from"), net.client(version, "to"));
    net.subscribe(to, "t", qos);
    net.send(from, "30: <t> [{}] 'first'");
    net.expect(to, "30: <t> [{}] 'first'");
    net.script().calls.clear();
    (from, to)
}

/// Each is asked about, with its own view; order, counters and identifiers are those of messages that come one by one.
#[test]
fn each_message_is_asked_about_and_counted() {
    for version in VERSIONS {
        for qos in [0, 1] {
            scenario(|net| {
                let (from, to) = two(net, version, qos);
                let before = net.count(|counters| counters.publishes_received.get());
                let payloads = ["a", "", "ccc", "d"];
                let (shown, seen) = std::sync::mpsc::channel();
                net.script().publish = Some(Box::new(move |asked| {
                    let message = asked.message.as_ref().expect("it is asked about one");
                    shown.send(message.payload.clone()).expect("somebody looks");
                    Ok(PublishVerdict::Forward)
                }));
                net.send(from, &from_id(qos, 7, &payloads));
                net.expect(to, &packets(qos, &payloads));
                net.expect(from, if qos == 0 { "" } else { "40: 0007 | 40: 0008 | 40: 0009 | 40: 000A" });
                let calls = net.script().take("publish");
                assert_eq!(calls.len(), 4, "{calls:?}");
                assert!(seen.try_iter().eq(payloads.map(str::as_bytes)), "each with its payload");
                for (call, packet_id) in calls.iter().zip(7..) {
                    let packet_id = (qos == 1).then_some(packet_id);
                    let line = format!("publish from t q{qos} retain=false dup=false id={packet_id:?} will=false");
                    assert_eq!(*call, line);
                }
                assert_eq!(net.count(|counters| counters.publishes_received.get()) - before, 4);
                assert_eq!(net.count(|counters| counters.publishes_sent.get()), 5);
                if qos == 1 {
                    assert_eq!(net.session("to").expect("it is there").in_flight.len(), 4);
                    net.send(to, &pubacks(1..=4));
                    assert!(net.session("to").expect("it is there").in_flight.is_empty());
                }
            });
        }
    }
}

/// Messages with QoS 2 are kept until they are released, and asked about once, as each by itself.
#[test]
fn messages_with_qos_2() {
    for version in VERSIONS {
        let setup = Setup::limits(|limits| limits.receive_maximum = 3);
        scenario_with(&setup, |net| {
            let from = net.join(version, &connect_packet(version, "02", 0, "", "from"), &connack(3));
            let to = net.join(version, &connect_packet(version, "02", 0, "", "to"), &connack(3));
            net.subscribe(to, "t", 2);
            for _ in 0..2 {
                net.send(from, &from_id(2, 7, &["a", "b", "c"]));
                net.expect(from, "50: 0007 | 50: 0008 | 50: 0009");
                net.expect(to, "");
                assert_eq!(net.script().take("publish").len(), 3);
                net.send(from, "62: 0008 | 62: 0007 | 62: 0009");
                net.expect(from, "70: 0008 | 70: 0007 | 70: 0009");
                let got =
                    super::net::split(&net.take(to)).iter().map(|packet| packet[packet.len() - 1]).collect::<Vec<_>>();
                assert_eq!(got, b"bac");
            }
            // One that is there already, and one that is another with the same Packet Identifier.
            net.send(
                from,
                "34: <t> 0001 [{}] 'a' | 34: <t> 0001 [{}] 'a' | 34: <t> 0001 [{}] 'A' | 34: <t> 0002 [{}] 'b'",
            );
            net.expect(from, "50: 0001 | 50: 0001 | 50: 0001 | 50: 0002");
            assert_eq!(net.script().take("publish").len(), 3);
            net.expect(to, "34: <t> 0007 [{}] 'a'");
            net.script().publish = Some(Box::new(|asked| {
                let is_it = asked.message.as_ref().is_some_and(|message| message.payload == b"no");
                let reject = PublishVerdict::Reject(Reject::new(ReasonCode::NOT_AUTHORIZED));
                Ok(if is_it { reject } else { PublishVerdict::Forward })
            }));
            net.send(from, "34: <t> 0003 [{}] 'no' | 34: <t> 0004 [{}] 'c' | 62: 0001 | 62: 0002 | 62: 0004");
            let refused = if version == V5 { "50: 0003 87" } else { "50: 0003" };
            net.expect(from, &format!("{refused} | 50: 0004 | 70: 0001 | 70: 0002 | 70: 0004"));
            net.expect(to, "34: <t> 0008 [{}] 'A' | 34: <t> 0009 [{}] 'b' | 34: <t> 000A [{}] 'c'");
            // [MQTT-3.3.4-7] More than the Receive Maximum.
            net.send(from, &packets(2, &["a", "b", "c", "d", "e"]));
            if version == V5 {
                net.expect_closed(from, "50: 0001 | 50: 0002 | 50: 0003 | E0: 93");
            } else {
                net.expect(from, "50: 0001 | 50: 0002 | 50: 0003 | 50: 0004 | 50: 0005");
            }
        });
    }
}

/// Messages that are released in one read: also where they are of several topics and kinds, or too many for their receiver.
#[test]
fn messages_that_are_released_together() {
    let pubrels =
        |packet_ids: std::ops::RangeInclusive<u16>| packet_ids.map(|id| format!("| 62: {id:04X}")).collect::<String>();
    for version in VERSIONS {
        scenario(|net| {
            let (from, to) = two(net, version, 2);
            let other = net.client(version, "other");
            net.subscribe(other, "u", 2);
            net.script().publish = Some(Box::new(|asked| {
                let is_it = asked.message.as_ref().is_some_and(|message| message.payload == b"less");
                let less = || Message::new("t", b"less".to_vec()).qos(QoS::AtMostOnce);
                Ok(if is_it { PublishVerdict::ForwardChanged(less()) } else { PublishVerdict::Forward })
            }));
            net.send(
                from,
                "34: <t> 0001 [{}] 'a' | 34: <t> 0002 [{}] 'b' | 35: <t> 0003 [{}] 'c' | 34: <t> 0004 [{}] 'd'",
            );
            net.send(
                from,
                "34: <u> 0005 [{}] 'e' | 34: <t> 0006 [{}] 'f' | 34: <t> 0007 [{}] 'less' | 34: <t> 0008 [{}] 'g'",
            );
            net.take(from);
            net.send(from, &pubrels(1..=8));
            net.expect(from, &(1..=8).map(|id| format!("| 70: {id:04X}")).collect::<String>());
            net.expect(other, "34: <u> 0001 [{}] 'e'");
            let less = "| 30: <t> [{}] 'less'";
            net.expect(to, &format!("{} {less} {}", packets(2, &["a", "b", "c", "d", "f"]), from_id(2, 6, &["g"])));
            assert_eq!(net.session("to").expect("it is there").in_flight.len(), 6);
            net.send(from, "31: <t> [{}] ''");
            net.take(to);
        });
    }
    scenario(|net| {
        let from = net.v5("from");
        let to = net.join(V5, &connect_packet(V5, "02", 0, "21 0003", "to"), CONNACK);
        net.subscribe(to, "t", 2);
        net.send(from, "30: <t> {} 'first'");
        net.expect(to, "30: <t> {} 'first'");
        net.send(from, &packets(2, &["a", "b", "c", "d", "e"]));
        net.send(from, &pubrels(1..=5));
        net.expect(to, &packets(2, &["a", "b", "c"]));
        assert_eq!(net.session("to").expect("it is there").queue.len(), 2);
        net.send(to, "50: 0001 | 50: 0002 | 70: 0001 | 70: 0002");
        net.expect(to, &format!("62: 0001 | 62: 0002 {}", from_id(2, 4, &["d", "e"])));
    });
}

/// CONNACK where the server has this Receive Maximum.
fn connack(receive_maximum: u16) -> String {
    format!("20: 00 00 [{{21 {receive_maximum:04X} 27 01000000 22 0040}}]")
}

/// What handlers say about one of them is done with that one, in its place.
#[test]
fn a_handler_says_more_than_that_it_may_pass() {
    let payloads = ["a", "b", "stop", "c", "d"];
    for version in [V3_1_1, V5] {
        for qos in [0, 1] {
            let run = |verdict: fn() -> PublishVerdict, to_subscriber: &str, to_publisher: &str, is_closed: bool| {
                scenario(|net| {
                    let (from, to) = two(net, version, qos);
                    net.script().publish = Some(Box::new(move |asked| {
                        let is_it = asked.message.as_ref().is_some_and(|message| message.payload == b"stop");
                        Ok(if is_it { verdict() } else { PublishVerdict::Forward })
                    }));
                    net.send(from, &packets(qos, &payloads));
                    net.expect(to, to_subscriber);
                    if is_closed {
                        net.expect_closed(from, to_publisher);
                    } else {
                        net.expect(from, to_publisher);
                    }
                    let asked = net.script().take("publish").len();
                    assert_eq!(asked, if is_closed { 3 } else { 5 });
                });
            };
            let answers = |third: &str, is_closed: bool| match (qos, is_closed) {
                (0, false) => String::new(),
                (0, true) => third.to_owned(),
                (_, true) => format!("{} {third}", pubacks(1..=2)),
                (_, false) => format!("{} {third} {}", pubacks(1..=2), pubacks(4..=5)),
            };
            let without = packets(qos, &["a", "b", "c", "d"]);
            run(|| PublishVerdict::Handled, &without, &answers("| 40: 0003", false), false);
            let refused = if version == V5 { "| 40: 0003 87" } else { "| 40: 0003" };
            let reject = || PublishVerdict::Reject(Reject::new(ReasonCode::NOT_AUTHORIZED));
            run(reject, &without, &answers(refused, false), false);
            let changed = || PublishVerdict::ForwardChanged(Message::new("t", b"new".to_vec()).qos(QoS::AtMostOnce));
            let mixed = match qos {
                0 => packets(0, &["a", "b", "new", "c", "d"]),
                _ => format!("{} | 30: <t> [{{}}] 'new' {}", packets(1, &["a", "b"]), from_id(1, 3, &["c", "d"])),
            };
            run(changed, &mixed, &answers("| 40: 0003", false), false);
            let told = if version == V5 { "| E0: 98" } else { "" };
            let end = || PublishVerdict::Disconnect(Disconnect::new(ReasonCode::ADMINISTRATIVE_ACTION));
            run(end, &packets(qos, &["a", "b"]), &answers(told, true), true);
            let told = if version == V5 { "| E0: 83" } else { "" };
            run(|| panic!("scripted"), &packets(qos, &["a", "b"]), &answers(told, true), true);
        }
    }
}

/// A packet that is not like the others: it goes its own way, between them.
#[test]
fn a_packet_that_is_another() {
    for version in VERSIONS {
        scenario(|net| {
            let (from, to) = two(net, version, 2);
            net.send(
                from,
                "30: <t> [{}] 'a' | 30: <tt> [{}] 'b' | 30: <t> [{}] 'c' | 31: <t> [{}] 'd' | 32: <t> 0001 [{}] 'e'
                | 3A: <t> 0002 [{}] 'f' | 34: <t> 0003 [{}] 'g' | 62: 0003 | 32: <t> 0004 [{}] 'h' | C0: | 30: <t> [{}] 'i'",
            );
            net.expect(from, "40: 0001 | 40: 0002 | 50: 0003 | 70: 0003 | 40: 0004 | D0:");
            net.expect(
                to,
                "30: <t> [{}] 'a' | 30: <t> [{}] 'c' | 30: <t> [{}] 'd' | 32: <t> 0001 [{}] 'e' | 32: <t> 0002 [{}] 'f'
                | 34: <t> 0003 [{}] 'g' | 32: <t> 0004 [{}] 'h' | 30: <t> [{}] 'i'",
            );
            net.send(from, "31: <t> [{}] ''");
            net.take(to);
        });
    }
    scenario(|net| {
        let (from, to) = two(net, V5, 1);
        net.send(
            from,
            "30: <t> {} 'a' | 30: <t> {01 01} 'b' | 30: <t> {23 0001} 'c' | 30: <> {23 0001} 'd' | 30: <t> {} 'e'",
        );
        net.expect(to, "30: <t> {} 'a' | 30: <t> {01 01} 'b' | 30: <t> {} 'c' | 30: <t> {} 'd' | 30: <t> {} 'e'");
        // Its Remaining Length has a byte too many.
        let mut long = bytes(V5, "30: <t> {} 'a' | 30: <t> {} 'b'");
        long.splice(8..9, [0x85, 0x00]);
        net.send_bytes(from, &long);
        net.expect(to, "30: <t> {} 'a'");
        net.expect_closed(from, "E0: 81");
    });
    scenario(|net| {
        let (from, to) = two(net, V3_1_1, 1);
        let mut long = bytes(V3_1_1, "30: <t> 'a' | 30: <t> 'b' | 30: <t> 'c'");
        long.splice(7..8, [0x84, 0x00]);
        net.send_bytes(from, &long);
        net.expect(to, "30: <t> 'a' | 30: <t> 'b' | 30: <t> 'c'");
        // [MQTT-2.2.1-3] A Packet Identifier of 0, behind one that is taken.
        net.send(from, "32: <t> 0001 'd' | 32: <t> 0000 'e'");
        net.expect(to, "32: <t> 0001 'd'");
        net.expect_closed(from, "40: 0001");
    });
}

/// Who gets it, and how, is as it is for each of them.
#[test]
fn receivers_that_are_not_plain() {
    scenario(|net| {
        let from = net.v5("from");
        let payloads = ["a", "b", "c"];
        // A Subscription Identifier, and Topic Aliases.
        let identified = net.v5("identified");
        net.send(identified, "82: 0001 {0B 07} <t> 01");
        net.expect(identified, "90: 0001 {} 01");
        net.send(from, &packets(0, &payloads));
        net.expect(identified, "30: <t> {0B 07} 'a' | 30: <t> {0B 07} 'b' | 30: <t> {0B 07} 'c'");
        net.lose(identified);
        let aliased = net.join(V5, &connect_packet(V5, "02", 0, "22 0005", "aliased"), CONNACK);
        net.subscribe(aliased, "some/topic", 1);
        net.send(from, "30: <some/topic> {} 'a' | 30: <some/topic> {} 'b' | 30: <some/topic> {} 'c'");
        net.expect(aliased, "30: <some/topic> {23 0001} 'a' | 30: <> {23 0001} 'b' | 30: <> {23 0001} 'c'");
        // Another version, less QoS, the publisher itself, and a member of a group.
        let old = net.client(V3_1_1, "old");
        net.subscribe(old, "t", 0);
        net.send(from, &packets(1, &payloads));
        net.expect(old, "30: <t> 'a' | 30: <t> 'b' | 30: <t> 'c'");
        net.expect(from, &pubacks(1..=3));
        net.lose(old);
        net.subscribe(from, "t", 1);
        net.send(from, &packets(1, &["a", "b"]));
        net.expect(from, "32: <t> 0001 {} 'a' | 40: 0001 | 32: <t> 0002 {} 'b' | 40: 0002");
        net.send(from, "A2: 0002 {} <t>");
        net.expect(from, "B0: 0002 {} 00");
        let member = net.v5("member");
        net.subscribe(member, "$share/g/t", 1);
        net.send(from, &packets(1, &["a", "b"]));
        net.expect(member, &packets(1, &["a", "b"]));
        net.expect(from, &pubacks(1..=2));
        // Nobody.
        net.lose(member);
        net.send(from, &packets(1, &["a", "b"]));
        net.expect(from, "40: 0001 10 | 40: 0002 10");
    });
}

/// Bounds of the receiver: what is beyond them is dropped or waits, and is counted, message by message.
#[test]
fn bounds_of_the_receiver() {
    let setup = Setup::limits(|limits| limits.outbound_bytes_max = 200);
    scenario_with(&setup, |net| {
        let (from, to) = two(net, V5, 0);
        net.stall(to, true);
        let long = "x".repeat(56);
        net.send(from, &packets(0, &["a", &long, &long, &long, &long, "b"]));
        net.stall(to, false);
        // 8 bytes, and 63 each: as long as they and the next payload are within 200.
        net.expect(to, &packets(0, &["a", &long, &long, &long, "b"]));
        assert_eq!(net.count(|counters| counters.dropped_slow.get()), 1);
    });
    // Maximum Packet Size, and Receive Maximum.
    for properties in ["27 00000014", "21 0002"] {
        scenario(|net| {
            let from = net.v5("from");
            let to = net.join(V5, &connect_packet(V5, "02", 0, properties, "to"), CONNACK);
            net.subscribe(to, "t", 1);
            let long = "x".repeat(20);
            net.send(from, &packets(1, &["a", "b", &long, "c", "d"]));
            net.expect(from, &pubacks(1..=5));
            if properties.starts_with("27") {
                // The one that is too long has had its Packet Identifier.
                net.expect(to, &format!("{} {}", packets(1, &["a", "b"]), from_id(1, 4, &["c", "d"])));
                assert_eq!(net.count(|counters| counters.dropped_too_large.get()), 1);
                return;
            }
            net.expect(to, &packets(1, &["a", "b"]));
            assert_eq!(net.session("to").expect("it is there").queue.len(), 3);
            net.send(to, &pubacks(1..=2));
            net.expect(to, &from_id(1, 3, &[&long, "c"]));
            net.send(to, &pubacks(3..=4));
            net.expect(to, &from_id(1, 5, &["d"]));
        });
    }
}

/// What goes to a queue, as its receiver is away, or has something there already, or comes to its Receive Maximum in the midst.
#[test]
fn messages_for_a_queue() {
    let setup = Setup::limits(|limits| limits.queue_messages_max = 4);
    for version in VERSIONS {
        scenario_with(&setup, |net| {
            let from = net.client(version, "from");
            let to = net.durable(version, "to", CONNACK);
            net.subscribe(to, "t", 1);
            net.lose(to);
            let payloads = ["a", "b", "c", "d", "e", "f"];
            let sent = net.count(|counters| counters.publishes_sent.get());
            net.send(from, &packets(1, &payloads));
            net.expect(from, &pubacks(1..=6));
            assert_eq!(net.count(|counters| counters.dropped_queue_full.get()), 2);
            assert_eq!(net.session("to").expect("it is there").queue.len(), 4);
            assert_eq!(net.count(|counters| counters.publishes_sent.get()), sent);
            assert_eq!(net.script().take("publish").len(), 6);
            let to = net.open(version);
            net.send(to, &connect_packet(version, "00", 0, "11 00000E10", "to"));
            let got = net.take(to);
            let got: Vec<u8> = super::net::split(&got)[1..].iter().map(|packet| packet[packet.len() - 1]).collect();
            assert_eq!(got.len(), 4);
            assert!(got.is_sorted(), "{got:?}");
            net.send(to, &pubacks(1..=4));
            assert!(net.session("to").expect("it is there").in_flight.is_empty());
        });
    }
    let setup = Setup::limits(|limits| limits.in_flight_max = 3);
    scenario_with(&setup, |net| {
        let (from, to) = two(net, V5, 1);
        net.send(from, &packets(1, &["a", "b", "c", "d", "e"]));
        net.expect(to, &packets(1, &["a", "b", "c"]));
        net.send(from, &packets(1, &["f", "g"]));
        net.expect(from, &format!("{} {}", pubacks(1..=5), pubacks(1..=2)));
        net.expect(to, "");
        assert_eq!(net.session("to").expect("it is there").queue.len(), 4);
        net.send(to, &pubacks(1..=3));
        net.expect(to, &from_id(1, 4, &["d", "e", "f"]));
        net.send(to, &pubacks(4..=6));
        net.expect(to, &from_id(1, 7, &["g"]));
        assert_eq!(net.count(|counters| counters.publishes_sent.get()), 8);
    });
}

/// What is in flight is the session's, however it was sent: it is sent again, or goes over with a takeover.
#[test]
fn what_was_not_acknowledged_is_sent_again() {
    for version in VERSIONS {
        scenario(|net| {
            let from = net.client(version, "from");
            let to = net.durable(version, "to", CONNACK);
            net.subscribe(to, "t", 1);
            net.send(from, &packets(1, &["a", "b", "c", "d"]));
            net.expect(to, &packets(1, &["a", "b", "c", "d"]));
            net.send(to, &pubacks(1..=2));
            net.lose(to);
            net.send(from, &packets(1, &["e", "f"]));
            let again = "3A: <t> 0003 [{}] 'c' | 3A: <t> 0004 [{}] 'd'";
            let connack = format!("{} | {again} {}", resumed(version), from_id(1, 5, &["e", "f"]));
            let to = net.durable(version, "to", &connack);
            net.send(to, &pubacks(3..=6));
            assert!(net.session("to").expect("it is there").in_flight.is_empty());
        });
    }
}

/// One read does no more than its share of a turn's work, and goes on where it stopped.
#[test]
fn a_long_train_takes_several_turns() {
    scenario_in(MODES[0], &Setup::default(), |net| {
        let (from, to) = two(net, V5, 0);
        let all: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let sent = bytes(V5, &packets(0, &all));
        let (_, slot) = net.place(from);
        let now = net.now;
        net.cores[0].feed(slot, &sent, now);
        assert!(net.cores[0].is_held(slot) && net.cores[0].is_spent());
        // A packet, a message and its delivery are a unit each.
        let asked = net.script().take("publish").len();
        assert_eq!(asked, crate::core::work::UNITS_A_TURN.div_ceil(3));
        net.settle();
        net.expect(to, &packets(0, &all));
    });
}

/// What has come over one version may be released over another, and has the form of neither then but that of its receiver.
#[test]
fn released_by_a_client_that_has_come_back_with_another_version() {
    for (before, after) in [(V5, V3_1_1), (V3_1_1, V5)] {
        for count in [1, 3] {
            scenario_with(&Setup { plugin: false, ..Setup::default() }, |net| {
                let to = net.client(after, "to");
                net.subscribe(to, "t", 2);
                let from = net.durable(before, "from", CONNACK);
                net.send(from, "30: <t> [{}] 'first'");
                net.expect(to, "30: <t> [{}] 'first'");
                for id in 1..=count {
                    net.send(from, &format!("34: <t> {id:04X} [{{}}] 'x'"));
                }
                net.take(from);
                net.lose(from);
                let from = net.durable(after, "from", CONNACK_RESUMED);
                net.send(from, "30: <t> [{}] 'again'");
                net.expect(to, "30: <t> [{}] 'again'");
                let pubrels: Vec<_> = (1..=count).map(|id| format!("62: {id:04X}")).collect();
                net.send(from, &pubrels.join(" | "));
                net.take(from);
                let expected: Vec<_> = (1..=count).map(|id| format!("34: <t> {id:04X} [{{}}] 'x'")).collect();
                net.expect(to, &expected.join(" | "));
            });
        }
    }
}
