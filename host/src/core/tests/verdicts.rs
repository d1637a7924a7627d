//! What each answer of a handler does, and what the peer sees of it.

use plugin_api::{
    Accept, ConnectVerdict, Disconnect, Message, Property, PublishVerdict, QoS, ReasonCode, Reject, SubscribeVerdict,
    UnsubscribeVerdict,
};

use super::net::connect_packet;
use super::*;
use crate::limits::RejectedPublish;

const QOS_0_1_2: &str = "30: <t> [{}] 'x' | 32: <t> 0001 [{}] 'x' | 34: <t> 0002 [{}] 'x' | 62: 0002";

/// A publisher and a subscriber of everything.
fn two(net: &mut Net, version: ProtocolVersion) -> (usize, usize) {
    let (from, to) = (net.client(version, "from"), net.client(version, "to"));
    net.subscribe(to, "#", 0);
    (from, to)
}

#[test]
fn publish_rejected() {
    let reject = || Ok(PublishVerdict::Reject(Reject::new(ReasonCode::NOT_AUTHORIZED).reason_string("no")));
    for version in VERSIONS {
        scenario(|net| {
            let (from, to) = two(net, version);
            net.script().publish = Some(Box::new(move |_| reject()));
            net.send(from, QOS_0_1_2);
            // 3.x has no negative acknowledgement. A refused QoS 2 message is not known at PUBREL any more.
            let v5 = "40: 0001 87 {1F <no>} | 50: 0002 87 {1F <no>} | 70: 0002 92";
            net.expect(from, if version == V5 { v5 } else { "40: 0001 | 50: 0002 | 70: 0002" });
            net.expect(to, "");
            // [MQTT-4.3.3-9] Its identifier is free.
            net.script().publish = None;
            net.send(from, "34: <t> 0002 [{}] 'y' | 62: 0002");
            net.expect(from, "50: 0002 | 70: 0002");
            net.expect(to, "30: <t> [{}] 'y'");
        });
    }
}

/// [MQTT-3.1.2-29] [MQTT-3.4.2-2] [MQTT-3.4.2-3] Properties that explain are left out for who does not want them or has
/// no room for them.
/// [MQTT-3.5.2-2] [MQTT-3.5.2-3]
#[test]
fn publish_rejected_without_an_explanation() {
    scenario(|net| {
        net.script().publish = Some(Box::new(|_| {
            Ok(PublishVerdict::Reject(
                Reject::new(ReasonCode::QUOTA_EXCEEDED)
                    .reason_string("a long text")
                    .property(Property::UserProperty("a", "b")),
            ))
        }));
        for properties in ["17 00", "27 00000014", "17 01 27 00000014"] {
            let client = net.join(V5, &connect_packet(V5, "02", 0, properties, "c"), CONNACK);
            net.send(client, "32: <t> 0001 {} 'x' | 34: <t> 0002 {} 'x'");
            net.expect(client, "40: 0001 97 | 50: 0002 97");
        }
        let client = net.join(V5, &connect_packet(V5, "02", 0, "17 01 27 00000100", "c"), CONNACK);
        net.send(client, "32: <t> 0001 {} 'x'");
        net.expect(client, "40: 0001 97 {1F <a long text> 26 <a> <b>}");
    });
}

#[test]
fn publish_rejected_and_closed() {
    scenario_with(&Setup::limits(|limits| limits.rejected_publish = RejectedPublish::Close), |net| {
        net.script().publish = Some(Box::new(|_| Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED))));
        for packet in ["32: <t> 0001 [{}] 'x'", "34: <t> 0001 [{}] 'x'"] {
            let old = net.client(V3_1_1, "c");
            net.send(old, packet);
            net.expect_closed(old, "");
            assert_eq!(net.script().take("disconnect"), ["disconnect c ServerDisconnect 87"]);
        }
        let old = net.client(V3_1_1, "c");
        net.send(old, "30: <t> 'x'");
        net.expect(old, "");
        let v5 = net.v5("d");
        net.send(v5, "32: <t> 0001 {} 'x'");
        net.expect(v5, "40: 0001 87");
    });
}

/// Acknowledged, not delivered, not retained.
#[test]
fn publish_handled() {
    for version in VERSIONS {
        scenario(|net| {
            let (from, to) = two(net, version);
            net.script().publish = Some(Box::new(|_| Ok(PublishVerdict::Handled)));
            net.send(from, &QOS_0_1_2.replace("30:", "31:"));
            net.send(from, "34: <t> 0003 [{}] 'x' | 3C: <t> 0003 [{}] 'x' | 62: 0003");
            net.expect(from, "40: 0001 | 50: 0002 | 70: 0002 | 50: 0003 | 50: 0003 | 70: 0003");
            net.expect(to, "");
            assert!(net.shared.retained.is_empty());
            assert_eq!(net.script().take("publish").len(), 4);
        });
    }
}

#[test]
fn publish_changed() {
    for version in VERSIONS {
        scenario(|net| {
            let (from, to) = two(net, version);
            net.send(to, "82: 0002 [{}] <new/#> 02");
            net.take(to);
            net.script().publish = Some(Box::new(|asked| {
                let old = asked.message.clone().expect("a message");
                let new = Message::new(format!("new/{}", old.topic), "other").qos(QoS::ExactlyOnce).retain(true);
                Ok(PublishVerdict::ForwardChanged(new.property(Property::UserProperty("a", "b"))))
            }));
            net.send(from, QOS_0_1_2);
            // The publisher's exchange is that of the QoS it has used.
            net.expect(from, "40: 0001 | 50: 0002 | 70: 0002");
            let sent = |id| format!("34: <new/t> {id:04X} [{{26 <a> <b>}}] 'other'");
            net.expect(to, &[sent(1), sent(2), sent(3)].join(" | "));
            assert_eq!(net.shared.retained.len(), 1);
        });
    }
}

/// A copy that the handler changes keeps what it does not touch; a Topic Alias does not stick to it.
#[test]
fn publish_changed_keeps_the_rest() {
    scenario(|net| {
        let (from, to) = two(net, V5);
        net.script().publish = Some(Box::new(|asked| {
            Ok(PublishVerdict::ForwardChanged(asked.message.clone().expect("a message").payload("other")))
        }));
        net.send(from, "30: <t> {23 0001 02 00000005 26 <a> <b>} 'x' | 30: <> {23 0001} 'x'");
        net.expect(to, "30: <t> {26 <a> <b> 02 00000005} 'other' | 30: <t> {} 'other'");
    });
}

/// What cannot be published is refused, and logged.
#[test]
fn publish_changed_into_something_invalid() {
    scenario(|net| {
        let (from, to) = two(net, V5);
        for topic in ["", "a/#", "+", "\0"] {
            net.script().publish =
                Some(Box::new(move |_| Ok(PublishVerdict::ForwardChanged(Message::new(topic, "x")))));
            net.send(from, "32: <t> 0001 {} 'x' | 30: <t> {} 'x'");
            net.expect(from, "40: 0001 80");
            net.expect(to, "");
        }
    });
}

/// [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-4.13.2-1]
#[test]
fn publish_disconnects() {
    for version in VERSIONS {
        for qos in 0..3 {
            scenario(|net| {
                let (from, to) = two(net, version);
                net.script().publish = Some(Box::new(|_| {
                    Ok(PublishVerdict::Disconnect(
                        Disconnect::new(ReasonCode::NOT_AUTHORIZED)
                            .reason_string("out")
                            .property(Property::UserProperty("a", "b")),
                    ))
                }));
                let packet = ["30: <t> [{}] 'x'", "32: <t> 0001 [{}] 'x'", "34: <t> 0001 [{}] 'x'"][qos];
                net.send(from, &format!("{packet} | C0:"));
                net.expect_closed(from, if version == V5 { "E0: 87 {1F <out> 26 <a> <b>}" } else { "" });
                net.expect(to, "");
                assert_eq!(net.script().take("disconnect"), ["disconnect from ServerDisconnect 87 out"]);
            });
        }
    }
}

/// The message came by a Topic Alias, which ends with the connection.
#[test]
fn publish_disconnects_after_a_topic_alias() {
    scenario(|net| {
        let (from, _) = two(net, V5);
        net.send(from, "30: <t> {23 0001} 'x'");
        net.script().publish = Some(Box::new(|_| Ok(PublishVerdict::disconnect(ReasonCode::NOT_AUTHORIZED))));
        net.send(from, "30: <> {23 0001} 'x'");
        net.expect_closed(from, "E0: 87");
    });
}

/// [MQTT-3.14.2-3] [MQTT-3.14.2-4]
#[test]
fn disconnect_without_room_for_its_properties() {
    scenario(|net| {
        net.script().publish = Some(Box::new(|_| {
            Ok(PublishVerdict::Disconnect(
                Disconnect::new(ReasonCode::NOT_AUTHORIZED).reason_string("a very long farewell"),
            ))
        }));
        let client = net.join(V5, &connect_packet(V5, "02", 0, "27 00000014", "c"), CONNACK);
        net.send(client, "30: <t> {} 'x'");
        net.expect_closed(client, "E0: 87");
    });
}

/// An error is a refusal with 0x80; a panic ends the connection and lets nothing through.
#[test]
fn publish_fails() {
    for version in VERSIONS {
        scenario(|net| {
            let (from, to) = two(net, version);
            net.script().publish = Some(Box::new(|_| Err("no idea".into())));
            net.send(from, QOS_0_1_2);
            net.expect(
                from,
                if version == V5 {
                    "40: 0001 80 | 50: 0002 80 | 70: 0002 92"
                } else {
                    "40: 0001 | 50: 0002 | 70: 0002"
                },
            );
            net.script().publish = Some(Box::new(|_| panic!("as scripted")));
            net.send(from, "32: <t> 0001 [{}] 'x'");
            net.expect_closed(from, if version == V5 { "E0: 83" } else { "" });
            net.expect(to, "");
            net.script().publish = None;
            net.send(to, "30: <t> [{}] 'alive'");
            net.expect(to, "30: <t> [{}] 'alive'");
        });
    }
}

#[test]
fn subscribe_codes() {
    // 3.1 has no code for a failure.
    for (version, error) in [(V3_1, "01"), (V3_1_1, "80"), (V5, "87")] {
        scenario(|net| {
            let client = net.client(version, "c");
            net.send(client, "33: <no> 0001 [{}] 'x' | 33: <yes> 0001 [{}] 'x'");
            net.take(client);
            net.script().subscribe = Some(Box::new(|_| {
                let codes = [
                    ReasonCode::GRANTED_QOS_0,
                    ReasonCode::NOT_AUTHORIZED,
                    ReasonCode::GRANTED_QOS_2,
                    ReasonCode::GRANTED_QOS_1,
                ];
                Ok(SubscribeVerdict::Codes(codes.to_vec()))
            }));
            net.send(client, "82: 0001 [{}] <yes> 02 <no> 01 <low> 01 <$share/g/s> 02");
            // Never more than was asked for; only what was granted has retained messages and live ones.
            net.expect(client, &format!("90: 0001 [{{}}] 00 {error} 01 01 | 31: <yes> [{{}}] 'x'"));
            assert_eq!(net.script().take("subscribe"), ["subscribe c =yes:02 =no:01 =low:01 g=s:02"]);
            net.send(
                client,
                "32: <no> 0001 [{}] 'x' | 34: <low> 0002 [{}] 'x' | 62: 0002 | 34: <s> 0003 [{}] 'x' | 62: 0003",
            );
            let answer = if version == V5 { "40: 0001 10" } else { "40: 0001" };
            net.expect(
                client,
                &format!("{answer} | 50: 0002 | 32: <low> 0001 [{{}}] 'x' | 70: 0002 | 50: 0003 | 32: <s> 0002 [{{}}] 'x' | 70: 0003"),
            );
        });
    }
}

/// An invalid filter is shown to handlers with its failure, and stays one whatever they say.
#[test]
fn subscribe_grants_no_invalid_filter() {
    scenario(|net| {
        let client = net.v5("c");
        net.script().subscribe = Some(Box::new(|_| Ok(SubscribeVerdict::Codes(vec![ReasonCode::GRANTED_QOS_0; 2]))));
        net.send(client, "82: 0001 {} <a#> 01 <b> 01");
        net.expect(client, "90: 0001 {} 8F 00");
        assert_eq!(net.script().take("subscribe"), ["subscribe c =a#:8F =b:01"]);
    });
}

#[test]
fn subscribe_and_unsubscribe_end_the_connection() {
    type Set = fn(&Net);
    let rows: [(Set, &str, &str); 6] = [
        (
            |net| {
                net.script().subscribe =
                    Some(Box::new(|_| Ok(SubscribeVerdict::Disconnect(ReasonCode::NOT_AUTHORIZED.into()))))
            },
            "82: 0001 [{}] <t> 00",
            "87",
        ),
        (|net| net.script().subscribe = Some(Box::new(|_| panic!("as scripted"))), "82: 0001 [{}] <t> 00", "83"),
        (
            |net| net.script().subscribe = Some(Box::new(|_| Ok(SubscribeVerdict::Codes(Vec::new())))),
            "82: 0001 [{}] <t> 00",
            "83",
        ),
        (
            |net| {
                net.script().unsubscribe =
                    Some(Box::new(|_| Ok(UnsubscribeVerdict::Disconnect(ReasonCode::NOT_AUTHORIZED.into()))))
            },
            "A2: 0001 [{}] <t>",
            "87",
        ),
        (|net| net.script().unsubscribe = Some(Box::new(|_| panic!("as scripted"))), "A2: 0001 [{}] <t>", "83"),
        (
            |net| net.script().puback = Some(Box::new(|_| panic!("as scripted"))),
            "82: 0001 [{}] <t> 01 | 32: <t> 0001 [{}] 'x' | 40: 0001",
            "83",
        ),
    ];
    for version in VERSIONS {
        scenario(|net| {
            for (set, packets, code) in &rows {
                set(net);
                let client = net.client(version, "c");
                net.send(client, packets);
                let got = net.take(client);
                assert!(got.ends_with(&if version == V5 {
                    crate::codec::tests::packet(&format!("E0: {code}"))
                } else {
                    Vec::new()
                }));
                net.expect_closed(client, "");
                assert!(net.session("c").is_none());
                net.script().answer_nothing();
            }
        });
    }
}

#[test]
fn unsubscribe_codes() {
    for version in VERSIONS {
        scenario(|net| {
            let client = net.client(version, "c");
            net.send(client, "82: 0001 [{}] <a> 00 <b> 00");
            net.take(client);
            net.script().unsubscribe = Some(Box::new(|_| {
                Ok(UnsubscribeVerdict::Codes(vec![
                    ReasonCode::NOT_AUTHORIZED,
                    ReasonCode::SUCCESS,
                    ReasonCode::SUCCESS,
                ]))
            }));
            net.send(client, "A2: 0002 [{}] <a> <b> <c>");
            net.expect(client, "B0: 0002 [{} 87 00 11]");
            assert_eq!(net.script().take("unsubscribe"), ["unsubscribe c a b c"]);
            net.send(client, "30: <a> [{}] 'x' | 30: <b> [{}] 'x'");
            net.expect(client, "30: <a> [{}] 'x'");
        });
    }
}

/// A plugin that panics, or has no answer, when a client comes: it is not let in.
#[test]
fn connect_fails() {
    scenario(|net| {
        for version in VERSIONS {
            let refused = if version == V5 { "20: 00 80 {}" } else { "20: 00 05" };
            net.script().connect = Some(Box::new(|_| panic!("as scripted")));
            let client = net.open(version);
            net.send(client, &connect_packet(version, "02", 0, "", "c"));
            let got = net.take(client);
            assert_eq!(got[..3], [0x20, if version == V5 { 3 } else { 2 }, 0], "{refused}");
            assert!(!net.is_connected(client) && got[3] != 0);
            net.script().connect = None;
            net.script().new_connection = Some(Box::new(|_| panic!("as scripted")));
            let client = net.open(version);
            net.send(client, &connect_packet(version, "02", 0, "", "c"));
            assert_ne!(net.take(client)[3], 0);
            assert!(!net.is_connected(client));
            net.script().new_connection = None;
        }
    });
}

/// [MQTT-3.2.2-19] [MQTT-3.2.2-20] [MQTT-3.1.2-24] A handler's properties are left out of a CONNACK that they would make
/// too large.
#[test]
fn connack_without_room_for_the_handlers_properties() {
    scenario(|net| {
        net.script().connect =
            Some(Box::new(|_| Ok(ConnectVerdict::Accept(Accept::new().user_property("name", "value")))));
        net.join(V5, &connect_packet(V5, "02", 0, "27 00000014", "c"), CONNACK);
        net.join(
            V5,
            &connect_packet(V5, "02", 0, "27 00000100", "d"),
            "20: 00 00 {21 0400 27 01000000 22 0040 26 <name> <value>}",
        );
        // Not even our own fit: the client cannot be told that it is connected, so it is not.
        let client = net.open(V5);
        net.send(client, &connect_packet(V5, "02", 0, "27 0000000A", "e"));
        net.expect_closed(client, "20: 00 95 {}");
        assert!(net.session("e").is_none());
        net.script().connect = Some(Box::new(|_| {
            Ok(ConnectVerdict::Reject(Reject::new(ReasonCode::BANNED).reason_string("a long reason")))
        }));
        let client = net.open(V5);
        net.send(client, &connect_packet(V5, "02", 0, "27 0000000A", "e"));
        net.expect_closed(client, "20: 00 8A {}");
    });
}
