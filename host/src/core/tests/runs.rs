//! Acknowledgements that come in runs: many of one type in one read, with consecutive Packet Identifiers. What is done with
//! all of them at once is what would be done with each, with and without handlers that hear of each.

use super::net::{connect_packet, resumed};
use super::*;

/// With a plugin that hears of acknowledgements, and with one that does not.
fn scenario_with_and_without_notices(change: fn(&mut crate::limits::Limits), run: impl Fn(&mut Net)) {
    for hears_acknowledgements in [true, false] {
        scenario_with(&Setup { hears_acknowledgements, ..Setup::limits(change) }, &run);
    }
}

/// `40: 0001 | 40: 0002 | …`
fn packets(first_byte: &str, packet_ids: impl IntoIterator<Item = u16>) -> String {
    let packets: Vec<String> = packet_ids.into_iter().map(|id| format!("{first_byte}: {id:04X}")).collect();
    packets.join(" | ")
}

fn publishes(first_byte: &str, packet_ids: impl IntoIterator<Item = u16>) -> String {
    let packet = |id: u16| format!("{first_byte}: <t> {id:04X} [{{}}] {:02X}", id as u8);
    packet_ids.into_iter().map(packet).collect::<Vec<_>>().join(" | ")
}

fn in_flight(net: &Net) -> (usize, u32) {
    let session = net.session("to").expect("a session");
    (session.in_flight.len(), session.in_flight_bytes)
}

/// [MQTT-4.3.2-4] [MQTT-3.3.4-9] Each makes room for one more, whatever else the run has.
#[test]
fn pubacks() {
    for version in VERSIONS {
        scenario_with_and_without_notices(
            |limits| limits.in_flight_max = 6,
            |net| {
                let (from, to) = (net.client(version, "from"), net.client(version, "to"));
                net.subscribe(to, "t", 1);
                net.send(from, &publishes("32", 1..=20));
                net.expect(from, &packets("40", 1..=20));
                net.expect(to, &publishes("32", 1..=6));
                assert_eq!(in_flight(net), (6, 12));
                net.send(to, &packets("40", 1..=4));
                net.expect(to, &publishes("32", 7..=10));
                // Not the oldest; then those before, and some that are not in flight any more or not yet.
                net.send(to, &packets("40", [7, 8, 5]));
                net.expect(to, &publishes("32", 11..=13));
                net.send(to, &packets("40", 1..=12));
                net.expect(to, &publishes("32", 14..=18));
                assert_eq!(in_flight(net), (6, 12));
                // One from behind again, with a PINGREQ between, and one that has been acknowledged.
                net.send(to, "40: 0012 | C0: | 40: 000D | 40: 000E | 40: 000D");
                net.expect(to, &format!("{} | D0: | {}", publishes("32", [19]), publishes("32", [20])));
                net.send(to, &packets("40", 13..=20));
                net.expect(to, "");
                assert_eq!(in_flight(net), (0, 0));
            },
        );
    }
}

/// [MQTT-4.3.3-5] [MQTT-4.3.3-6] Each is answered with PUBREL, again if it comes again; PUBCOMP makes room.
#[test]
fn pubrecs_and_pubcomps() {
    for version in VERSIONS {
        scenario_with_and_without_notices(
            |limits| limits.in_flight_max = 6,
            |net| {
                let (from, to) = (net.client(version, "from"), net.client(version, "to"));
                net.subscribe(to, "t", 2);
                net.send(from, &publishes("34", 1..=10));
                net.send(from, &packets("62", 1..=10));
                net.expect(from, &format!("{} | {}", packets("50", 1..=10), packets("70", 1..=10)));
                net.expect(to, &publishes("34", 1..=6));
                net.send(to, &packets("50", 2..=4));
                net.expect(to, &packets("62", 2..=4));
                // Some again, and some for the first time.
                net.send(to, &packets("50", 1..=6));
                net.expect(to, &packets("62", 1..=6));
                net.send(to, &packets("70", [2, 3, 1]));
                net.expect(to, &publishes("34", 7..=9));
                net.send(to, &packets("70", 1..=6));
                net.expect(to, &publishes("34", [10]));
                let unknown = if version == V5 { "62: 000B 92" } else { "62: 000B" };
                net.send(to, &packets("50", 7..=11));
                net.expect(to, &format!("{} | {unknown}", packets("62", 7..=10)));
                net.send(to, &packets("70", 7..=12));
                net.expect(to, "");
                assert_eq!(in_flight(net), (0, 0));
            },
        );
    }
}

/// Each of two kinds ends the run of the other, and what is in flight of both ends in any order.
#[test]
fn of_messages_with_qos_1_and_2() {
    for version in VERSIONS {
        scenario_with_and_without_notices(
            |_| (),
            |net| {
                let (from, to) = (net.client(version, "from"), net.client(version, "to"));
                net.subscribe(to, "t", 2);
                net.send(from, "32: <t> 0001 [{}] 01 | 34: <t> 0002 [{}] 02 | 62: 0002 | 32: <t> 0003 [{}] 03");
                net.send(from, "34: <t> 0004 [{}] 04 | 34: <t> 0005 [{}] 05 | 62: 0004 | 62: 0005");
                net.take(to);
                net.send(to, "40: 0003 | 50: 0004 | 50: 0005 | 40: 0001 | 50: 0002");
                net.expect(to, "62: 0004 | 62: 0005 | 62: 0002");
                net.send(to, "70: 0004 | 70: 0005 | 70: 0002");
                assert_eq!(in_flight(net), (0, 0));
            },
        );
    }
}

/// [MQTT-4.13.1-1] What does not fit the state of its message closes the connection, but for what was before it in the run.
#[test]
fn with_one_that_does_not_fit() {
    for version in VERSIONS {
        for (wrong, answered) in [("40", ""), ("50", ""), ("70", "")] {
            scenario_with_and_without_notices(
                |_| (),
                |net| {
                    let from = net.client(version, "from");
                    let to = net.durable(version, "to", CONNACK);
                    net.subscribe(to, "t", 2);
                    // 1 waits for what is sent, 2 for another step.
                    let (one, two, fits) = match wrong {
                        "40" => ("32", "34", ""),
                        "50" => ("34", "32", "62: 0001"),
                        _ => ("34", "34", ""),
                    };
                    let release =
                        |id: u16, first: &str| if first == "34" { format!("62: {id:04X}") } else { String::new() };
                    net.send(from, &format!("{one}: <t> 0001 [{{}}] 01"));
                    net.send(from, &release(1, one));
                    net.send(from, &format!("{two}: <t> 0002 [{{}}] 02"));
                    net.send(from, &release(2, two));
                    net.take(to);
                    if wrong == "70" {
                        net.send(to, "50: 0001");
                        net.expect(to, "62: 0001");
                    }
                    net.send(to, &packets(wrong, 1..=3));
                    let disconnect = if version == V5 { "E0: 82" } else { "" };
                    let both = [answered, fits, disconnect].into_iter().filter(|text| !text.is_empty());
                    net.expect_closed(to, &both.collect::<Vec<_>>().join(" | "));
                    // What was before it has been done, and nothing behind it.
                    let again = match wrong {
                        "40" => "3C: <t> 0002 [{}] 02",
                        "50" => "62: 0001 | 3A: <t> 0002 [{}] 02",
                        _ => "3C: <t> 0002 [{}] 02",
                    };
                    net.durable(version, "to", &format!("{} | {again}", resumed(version)));
                },
            );
        }
    }
}

/// A run that is cut anywhere, also within a packet.
#[test]
fn in_pieces() {
    scenario_with_and_without_notices(
        |limits| limits.in_flight_max = 8,
        |net| {
            let (from, to) = (net.v5("from"), net.v5("to"));
            net.subscribe(to, "t", 1);
            let acknowledgements: Vec<u8> = (1..=8).flat_map(|id| [0x40, 2, 0, id]).collect();
            for cut in 1..32 {
                net.send(from, &publishes("32", 1..=8));
                let sent = net.take(to);
                assert_eq!(sent.len(), 8 * 9, "cut at {cut}");
                // Their identifiers go on from one time to the next.
                let first = u16::from_be_bytes([sent[5], sent[6]]);
                let of_this_time = acknowledgements.chunks_exact(4).zip(first..);
                let bytes: Vec<u8> =
                    of_this_time.flat_map(|(packet, id)| [packet[0], 2, (id >> 8) as u8, id as u8]).collect();
                let whole = bytes[..cut].len() / 4;
                net.send_bytes(to, &bytes[..cut]);
                assert_eq!(in_flight(net).0, 8 - whole, "cut at {cut}");
                net.send_bytes(to, &bytes[cut..]);
                assert_eq!(in_flight(net), (0, 0), "cut at {cut}");
            }
        },
    );
}

/// [MQTT-4.4.0-1] A client may acknowledge what it was sent on an earlier connection before it is sent again: that is not sent.
#[test]
fn of_what_is_to_be_sent_again() {
    for version in VERSIONS {
        scenario_with_and_without_notices(
            |limits| limits.in_flight_max = 4,
            |net| {
                let from = net.client(version, "from");
                let to = net.durable(version, "to", CONNACK);
                net.subscribe(to, "t", 1);
                net.send(from, &publishes("32", 1..=4));
                net.take(to);
                net.lose(to);
                net.send(from, &publishes("32", 5..=7));
                let to = net.open(version);
                net.stall(to, true);
                net.send(to, &connect_packet(version, "00", 0, "11 00000E10", "to"));
                net.send(to, &packets("40", 1..=3));
                net.stall(to, false);
                let got = net.take(to);
                let connack = usize::from(got[1]) + 2;
                let again: Vec<u16> = net::split(&got[connack..])
                    .iter()
                    .map(|packet| u16::from_be_bytes([packet[5], packet[6]]))
                    .collect();
                // All that was in flight was on its way before the first was acknowledged.
                assert_eq!(again, [1, 2, 3, 4, 5, 6, 7]);
                net.send(to, &packets("40", 4..=7));
                assert_eq!(in_flight(net), (0, 0));
            },
        );
    }
}

/// The same where the Receive Maximum lets only some of it be sent again.
#[test]
fn of_what_is_not_sent_again_yet() {
    scenario_with_and_without_notices(
        |_| (),
        |net| {
            let from = net.v5("from");
            let to = net.durable(V5, "to", CONNACK);
            net.subscribe(to, "t", 2);
            net.send(from, &publishes("34", 1..=4));
            net.send(from, &packets("62", 1..=4));
            net.send(from, &publishes("32", 5..=8));
            net.take(to);
            net.lose(to);
            let again = "3C: <t> 0001 {} 01 | 3C: <t> 0002 {} 02";
            let connect = connect_packet(V5, "00", 0, "11 00000E10 21 0002", "to");
            let to = net.join(V5, &connect, &format!("{CONNACK_RESUMED} | {again}"));
            net.send(to, &packets("50", 1..=3));
            net.expect(to, &packets("62", 1..=3));
            // 3 has not been sent on this connection, and its PUBREL comes again in its turn.
            net.send(to, &packets("70", 1..=2));
            net.expect(to, "62: 0003 | 3C: <t> 0004 {} 04");
            net.send(to, "70: 0003 | 50: 0004 | 70: 0004");
            net.expect(to, "3A: <t> 0005 {} 05 | 62: 0004 | 3A: <t> 0006 {} 06");
            net.send(to, &packets("40", 5..=8));
            net.expect(to, "3A: <t> 0007 {} 07 | 3A: <t> 0008 {} 08");
            assert_eq!(in_flight(net), (0, 0));
        },
    );
}

/// [MQTT-2.2.1-3] [MQTT-2.2.1-4] 1 follows 65,535, in what is in flight and in what is received.
#[test]
fn over_the_last_packet_identifier() {
    for hears_acknowledgements in [true, false] {
        let setup = Setup { hears_acknowledgements, ..Setup::default() };
        scenario_in(MODES[0], &setup, |net| {
            let (from, to) = (net.client(V3_1_1, "from"), net.client(V3_1_1, "to"));
            net.subscribe(to, "t", 2);
            let (worker, slot) = net.place(to);
            let session = net.cores[worker].connections[slot as usize].session;
            net.cores[worker].sessions[session as usize].next_packet_id = 65_534;
            let round = [65_534, 65_535, 1, 2, 3];
            net.send(from, &publishes("34", round));
            net.send(from, &packets("62", round));
            net.expect(from, &format!("{} | {}", packets("50", round), packets("70", round)));
            net.expect(to, &publishes("34", round));
            net.send(to, &packets("50", round));
            net.expect(to, &packets("62", round));
            net.send(to, &packets("50", [1, 2]));
            net.expect(to, &packets("62", [1, 2]));
            net.send(to, &packets("70", [2, 3]));
            net.send(to, &packets("70", [65_534, 65_535, 1]));
            assert_eq!(in_flight(net), (0, 0));
            net.cores[worker].sessions[session as usize].next_packet_id = 65_533;
            net.send(from, &publishes("32", [65_533, 65_534, 65_535, 1, 2]));
            net.take(to);
            net.send(to, &packets("40", [65_535, 1]));
            assert_eq!(in_flight(net), (3, 6));
            net.send(to, &packets("40", [65_533, 65_534, 65_535, 1, 2]));
            assert_eq!(in_flight(net), (0, 0));
        });
    }
}

/// [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-12] Each is routed once, in the order of the PUBREL packets, and answered.
#[test]
fn pubrels() {
    for version in VERSIONS {
        scenario_with_and_without_notices(
            |_| (),
            |net| {
                let unknown =
                    |id: u16| if version == V5 { format!("70: {id:04X} 92") } else { format!("70: {id:04X}") };
                let received = |net: &Net| {
                    let session = net.session("from").expect("a session");
                    (session.received.len(), session.received.bytes())
                };
                let (from, to) = (net.client(version, "from"), net.client(version, "to"));
                net.subscribe(to, "t", 0);
                net.send(from, &publishes("34", 1..=8));
                net.expect(from, &packets("50", 1..=8));
                assert_eq!(received(net), (8, 16));
                net.send(from, &packets("62", 1..=2));
                net.expect(from, &packets("70", 1..=2));
                net.expect(to, "30: <t> [{}] 01 | 30: <t> [{}] 02");
                // Again, and one that has not been released.
                net.send(from, &packets("62", 1..=3));
                net.expect(from, &format!("{} | {} | 70: 0003", unknown(1), unknown(2)));
                // Not the next one; then there are identifiers on both sides of it, of which one is used again.
                net.send(from, &packets("62", [6, 7]));
                net.expect(from, &packets("70", [6, 7]));
                assert_eq!(received(net), (3, 6));
                net.send(from, &publishes("34", 9..=10));
                net.send(from, "3C: <t> 0005 [{}] 05 | 34: <t> 0006 [{}] 16");
                net.expect(from, &packets("50", [9, 10, 5, 6]));
                net.expect(to, "30: <t> [{}] 03 | 30: <t> [{}] 06 | 30: <t> [{}] 07");
                net.send(from, &packets("62", 4..=11));
                net.expect(
                    from,
                    &format!("{} | {} | {} | {}", packets("70", 4..=6), unknown(7), packets("70", 8..=10), unknown(11)),
                );
                let order = [4, 5, 0x16, 8, 9, 10].map(|number| format!("30: <t> [{{}}] {number:02X}"));
                net.expect(to, &order.join(" | "));
                assert_eq!(received(net), (0, 0));
            },
        );
    }
}

/// A message that a handler has taken is not routed, and its PUBREL is one of the run.
#[test]
fn pubrel_for_a_message_that_a_handler_has_taken() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "t", 0);
        net.script().publish = Some(Box::new(|asked| {
            let taken = asked.message.as_ref().is_some_and(|message| message.payload == [2]);
            Ok(if taken { plugin_api::PublishVerdict::Handled } else { plugin_api::PublishVerdict::Forward })
        }));
        net.send(from, &publishes("34", 1..=3));
        net.send(from, &packets("62", 1..=3));
        net.expect(from, &format!("{} | {}", packets("50", 1..=3), packets("70", 1..=3)));
        net.expect(to, "30: <t> {} 01 | 30: <t> {} 03");
    });
}

/// A handler may have given a message another QoS, topic or RETAIN: it goes on with these, beside others of its run.
#[test]
fn pubrels_for_messages_that_a_handler_has_changed() {
    for version in VERSIONS {
        scenario_with_and_without_notices(
            |_| (),
            |net| {
                let (from, to) = (net.client(version, "from"), net.client(version, "to"));
                net.subscribe(to, "#", 2);
                net.script().publish = Some(Box::new(|asked| {
                    let payload = asked.message.as_ref().expect("it is asked about one").payload.clone();
                    let message = plugin_api::Message::new("t", payload.clone());
                    Ok(match payload[0] {
                        2 => plugin_api::PublishVerdict::ForwardChanged(message.qos(plugin_api::QoS::AtMostOnce)),
                        3 => plugin_api::PublishVerdict::ForwardChanged(message.qos(plugin_api::QoS::AtLeastOnce)),
                        5 => plugin_api::PublishVerdict::ForwardChanged(
                            plugin_api::Message::new("u", payload).qos(plugin_api::QoS::ExactlyOnce),
                        ),
                        _ => plugin_api::PublishVerdict::Forward,
                    })
                }));
                net.send(from, &publishes("34", 1..=6));
                net.send(from, &packets("62", 1..=6));
                net.expect(from, &format!("{} | {}", packets("50", 1..=6), packets("70", 1..=6)));
                net.expect(
                    to,
                    "34: <t> 0001 [{}] 01 | 30: <t> [{}] 02 | 32: <t> 0002 [{}] 03 | 34: <t> 0003 [{}] 04
                    | 34: <u> 0004 [{}] 05 | 34: <t> 0005 [{}] 06",
                );
            },
        );
    }
}

/// [MQTT-3.3.4-7] What is released leaves room in the client's Receive Maximum, what is not does not.
#[test]
fn receive_maximum_of_the_server() {
    scenario_with_and_without_notices(
        |limits| limits.receive_maximum = 4,
        |net| {
            let from =
                net.join(V5, &connect_packet(V5, "02", 0, "", "from"), "20: 00 00 [{21 0004 27 01000000 22 0040}]");
            net.send(from, &publishes("34", 1..=4));
            net.send(from, &packets("62", 2..=3));
            net.send(from, &publishes("34", 5..=6));
            net.expect(from, &format!("{} | 70: 0002 | 70: 0003 | 50: 0005 | 50: 0006", packets("50", 1..=4)));
            net.send(from, &publishes("34", [7]));
            net.expect_closed(from, "E0: 93");
        },
    );
}

/// A run of PUBREL packets is more work than a turn has: what is left waits for the next one, in its order.
#[test]
fn that_take_several_turns() {
    scenario_with_and_without_notices(
        |_| (),
        |net| {
            let from = net.client(V3_1_1, "from");
            let to: Vec<usize> = (0..3).map(|number| net.client(V3_1_1, &format!("to-{number}"))).collect();
            to.iter().for_each(|to| net.subscribe(*to, "t", 1));
            net.send(from, &publishes("34", 1..=200));
            net.send(from, &packets("62", 1..=200));
            net.expect(from, &format!("{} | {}", packets("50", 1..=200), packets("70", 1..=200)));
            for to in to {
                net.expect(to, &publishes("32", 1..=200));
                net.send(to, &packets("40", 1..=200));
            }
        },
    );
}

/// [MQTT-4.4.0-1] [MQTT-3.3.1-1] What came in one read and went on as it came is sent again with DUP, in its order, as far as it
/// has not been acknowledged: also where it is more than is kept in one piece, and one in the middle has been acknowledged.
#[test]
fn what_was_sent_in_one_go_is_sent_again() {
    for version in VERSIONS {
        for acknowledged in [&[][..], &[1], &[1, 2, 3], &[1, 2, 3, 4, 5, 6, 7, 8, 9], &[7], &[1, 2, 9, 10, 40], &[40]] {
            scenario_with_and_without_notices(
                |_| (),
                |net| {
                    let from = net.client(version, "from");
                    let to = net.durable(version, "to", CONNACK);
                    net.subscribe(to, "t", 1);
                    let message = |first: &str, id: u16| {
                        let payload = "y".repeat(usize::from(id) % 9 * 5);
                        format!("{first}: <t> {id:04X} [{{}}] '{payload}' {:02X}", id as u8)
                    };
                    let all = |first: &str| (1..=40).map(|id| message(first, id)).collect::<Vec<_>>();
                    net.send(from, &all("32").join(" | "));
                    net.expect(to, &all("32").join(" | "));
                    net.send(to, &packets("40", acknowledged.iter().copied()));
                    assert_eq!(in_flight(net).0, 40 - acknowledged.len());
                    net.lose(to);
                    let left = (1..=40).filter(|id| !acknowledged.contains(id));
                    let again: Vec<String> = left.map(|id| message("3A", id)).collect();
                    let to = net.durable(version, "to", &format!("{} | {}", resumed(version), again.join(" | ")));
                    net.send(to, &packets("40", 1..=40));
                    assert_eq!(in_flight(net), (0, 0));
                },
            );
        }
    }
}

/// A plugin that hears of acknowledgements may come while messages are in flight that nobody was to hear of.
#[test]
fn of_messages_that_were_sent_before_anybody_heard_of_them() {
    let setup = Setup { hears_acknowledgements: false, ..Setup::default() };
    scenario_with(&setup, |net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "t", 2);
        net.send(from, &publishes("32", 1..=3));
        net.send(from, &format!("{} | {}", publishes("34", 4..=6), packets("62", 4..=6)));
        net.send(to, &packets("50", [4]));
        net.take(to);
        let for_good = crate::plugin::Flip { per_mille: None, probation: std::time::Duration::ZERO, budget: 0 };
        net.flip("2.0.0", &for_good, |_| ());
        net.send(to, &packets("40", 1..=3));
        net.send(to, &packets("50", 4..=6));
        net.expect(to, &packets("62", 4..=6));
        net.send(to, &packets("70", 4..=6));
        let heard: Vec<String> = (1..=3).map(|id| format!("puback to Puback {id} 00")).collect();
        let heard_later: Vec<String> = (4..=6).map(|id| format!("puback to Pubcomp {id} 00")).collect();
        assert_eq!(net.script().take("puback"), [heard, heard_later].concat());
        assert_eq!(in_flight(net), (0, 0));
    });
}
