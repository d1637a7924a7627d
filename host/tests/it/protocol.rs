//! Connecting, publishing and subscribing, as bytes on real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{eventually, start, with_configured, with_server};
use crate::mqtt::{Body, Client, Connect, Publish, V3_1, V3_1_1, V5, VERSIONS, field, packet, properties};

/// Names spread over workers: the owner of a session is chosen by its Client Identifier.
fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

#[test]
fn connect_is_acknowledged_in_each_version() {
    // [MQTT-3.1.4-5] [MQTT-3.2.2-2]
    with_server(|server| {
        for version in VERSIONS {
            for name in names("c", 5) {
                let mut client = Client::open(server.local_addr(), version);
                client.send(Connect::new(version, name).bytes());
                // The bounds: Receive Maximum, Maximum Packet Size, Topic Alias Maximum.
                let bounds = [0x21, 4, 0, 0x27, 1, 0, 0, 0, 0x22, 0, 64];
                client.expect(&packet(0x20, &[&[0, 0][..], &properties(version, &bounds)].concat()));
                client.disconnect();
            }
        }
    });
}

#[test]
fn unknown_versions_and_names_are_refused() {
    with_server(|server| {
        let attempt = |name: &str, level: u8| {
            let mut client = Client::open(server.local_addr(), V3_1_1);
            let body = [field(name), vec![level, 2, 0, 0], field("x")].concat();
            client.send(packet(0x10, &body));
            client.try_read()
        };
        // Return code 1 says so to clients of the old versions, 0x84 to those of the new ones [MQTT-3.1.2-2].
        assert_eq!(attempt("MQTT", 3), Some(vec![0x20, 2, 0, 1]));
        assert_eq!(attempt("MQTT", 6), Some(vec![0x20, 3, 0, 0x84, 0]));
        assert_eq!(attempt("HTTP", 4), None); // [MQTT-3.1.2-1]
        let mut client = Client::open(server.local_addr(), V5);
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.expect_closed(); // [MQTT-3.1.0-1]
    });
}

#[test]
fn second_connect_ends_the_connection() {
    // [MQTT-3.1.0-2]
    with_server(|server| {
        for version in VERSIONS {
            let mut client = Client::connect(server.local_addr(), version, "twice");
            client.send(Connect::new(version, "twice").bytes());
            client.expect_disconnect(0x82);
        }
    });
}

#[test]
fn empty_client_identifier_is_replaced() {
    // [MQTT-3.1.3-6] [MQTT-3.1.3-7]
    with_server(|server| {
        let (_client, connack) = Client::connect_with(server.local_addr(), &Connect::new(V5, ""));
        assert_eq!(connack.code, 0);
        assert!(connack.properties.contains(&0x12), "Assigned Client Identifier in {:02x?}", connack.properties);
        Client::connect(server.local_addr(), V3_1_1, "").ping();
        let without_clean_session = Connect { clean: false, ..Connect::new(V3_1_1, "") };
        let (mut client, connack) = Client::connect_with(server.local_addr(), &without_clean_session);
        assert_eq!(connack.code, 2);
        client.expect_closed();
    });
}

#[test]
fn messages_reach_subscribers_at_every_qos_and_between_all_versions() {
    // [MQTT-3.8.4-8] [MQTT-4.3.1-1] [MQTT-4.3.2-4] [MQTT-4.3.3-8]
    with_server(|server| {
        for (number, from) in VERSIONS.into_iter().enumerate() {
            for to in VERSIONS {
                for granted in 0..3 {
                    let mut subscriber =
                        Client::connect(server.local_addr(), to, format!("to-{number}-{to}-{granted}"));
                    subscriber.subscribe("a/+/c", granted);
                    let mut publisher = Client::connect(server.local_addr(), from, format!("from-{from}-{granted}"));
                    for published in 0..3 {
                        let payload = format!("{from} {to} {granted} {published}");
                        assert_eq!(publisher.publish("a/b/c", &payload, published), 0);
                        let message = subscriber.receive();
                        assert_eq!((message.topic.as_str(), message.text()), ("a/b/c", payload.as_str()));
                        assert_eq!((message.qos, message.retain, message.dup), (granted.min(published), false, false));
                    }
                    subscriber.expect_nothing();
                }
            }
        }
    });
}

/// [MQTT-4.2-1] [MQTT-7.1.1-1@3.1.1]
#[test]
fn packets_may_come_in_any_pieces() {
    with_server(|server| {
        let mut client = Client::open(server.local_addr(), V3_1_1);
        let mut bytes = Connect::new(V3_1_1, "pieces").bytes();
        bytes.extend(packet(0x82, &[&[0, 1][..], &field("t"), &[0]].concat()));
        for number in 0..50 {
            bytes.extend(Publish::new("t", format!("{number}")).bytes(V3_1_1));
        }
        for byte in bytes {
            client.send([byte]);
        }
        assert_eq!(client.connack().code, 0);
        client.expect(&[0x90, 3, 0, 1, 0]);
        for number in 0..50 {
            assert_eq!(client.receive().text(), format!("{number}"));
        }
        // And everything at once, behind CONNECT: it goes with the connection to the worker that owns the client.
        let mut client = Client::open(server.local_addr(), V5);
        let mut bytes = Connect::new(V5, "at once").bytes();
        bytes.extend(packet(0x82, &[&[0, 1, 0][..], &field("u"), &[1]].concat()));
        bytes.extend(Publish::new("u", "x").qos(1, 2).bytes(V5));
        client.send(bytes);
        assert_eq!(client.connack().code, 0);
        client.expect(&[0x90, 4, 0, 1, 0, 1]);
        client.expect(&[0x32, 7, 0, 1, b'u', 0, 1, 0, b'x']);
        client.expect(&[0x40, 2, 0, 2]);
    });
}

#[test]
fn order_of_a_publisher_is_kept_for_every_subscriber() {
    // [MQTT-4.6.0-5] [MQTT-4.6.0-6]
    const MESSAGES: u16 = 2000;
    with_server(|server| {
        for qos in 0..3 {
            let subscribers = names(&format!("order-{qos}"), 4).into_iter().map(|name| {
                let mut client = Client::connect(server.local_addr(), V5, name);
                client.subscribe("order", qos);
                client
            });
            let readers: Vec<_> = subscribers
                .map(|mut client| {
                    std::thread::spawn(move || {
                        let mut releases = 0;
                        let mut next = 0;
                        while next < MESSAGES || releases < MESSAGES && qos == 2 {
                            let packet = client.read();
                            if packet[0] >> 4 == 6 {
                                client.send_ack(0x70, u16::from_be_bytes([packet[2], packet[3]]));
                                releases += 1;
                                continue;
                            }
                            let mut body = Body::of(&packet);
                            assert_eq!(body.field(), b"order");
                            if qos > 0 {
                                let id = body.u16();
                                client.send_ack(if qos == 1 { 0x40 } else { 0x50 }, id);
                            }
                            body.properties();
                            assert_eq!(std::str::from_utf8(body.0).unwrap(), next.to_string());
                            next += 1;
                        }
                    })
                })
                .collect();
            let mut publisher = Client::connect(server.local_addr(), V3_1_1, format!("publisher-{qos}"));
            for number in 0..MESSAGES {
                publisher.publish("order", number.to_string(), qos);
            }
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        }
    });
}

#[test]
fn unsubscribed_topics_are_not_delivered_any_more() {
    // [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5]
    with_server(|server| {
        for version in VERSIONS {
            let mut client = Client::connect(server.local_addr(), version, "unsubscriber");
            let mut publisher = Client::connect(server.local_addr(), version, "publisher");
            client.subscribe("gone", 1);
            client.subscribe("kept", 1);
            publisher.publish("gone", "1", 1);
            assert_eq!(client.receive().text(), "1");
            client.unsubscribe("gone");
            client.unsubscribe("never/there");
            publisher.publish("gone", "2", 1);
            publisher.publish("kept", "3", 1);
            assert_eq!(client.receive().text(), "3");
        }
    });
}

#[test]
fn wildcards_match_levels_and_not_dollar_topics() {
    // [MQTT-4.7.2-1]
    with_server(|server| {
        let mut client = Client::connect(server.local_addr(), V3_1_1, "wild");
        client.subscribe("#", 0);
        let mut publisher = Client::connect(server.local_addr(), V3_1_1, "p");
        publisher.publish("$internal/x", "no", 1);
        publisher.publish("a", "1", 1);
        publisher.publish("a//b", "2", 1);
        assert_eq!((client.receive().text(), client.receive().text()), ("1", "2"));
        let codes = client.subscribe_all(&[("a/#/b", 0), ("a+", 0), ("ok/+", 2)]);
        assert_eq!(codes, [0x80, 0x80, 2]);
    });
}

#[test]
fn overlapping_subscriptions_are_one_message_with_the_highest_qos_and_all_identifiers() {
    // [MQTT-3.3.4-2] [MQTT-3.3.4-4]
    with_server(|server| {
        let mut client = Client::connect(server.local_addr(), V5, "overlap");
        assert_eq!(client.subscribe_with(&[("o/#", 0)], &[0x0b, 1]), [0]);
        assert_eq!(client.subscribe_with(&[("o/+", 2)], &[0x0b, 2]), [2]);
        let mut publisher = Client::connect(server.local_addr(), V5, "p");
        publisher.publish("o/x", "m", 2);
        let message = client.receive();
        assert_eq!(message.qos, 2);
        let mut identifiers: Vec<&[u8]> = message.properties.chunks(2).collect();
        identifiers.sort_unstable();
        assert_eq!(identifiers, [[0x0b, 1], [0x0b, 2]]);
        client.expect_nothing();
    });
}

#[test]
fn no_local_messages_do_not_come_back() {
    with_server(|server| {
        let mut client = Client::connect(server.local_addr(), V5, "local");
        let mut other = Client::connect(server.local_addr(), V5, "other");
        assert_eq!(client.subscribe_all(&[("n", 0x04)]), [0]);
        client.publish("n", "mine", 1);
        other.publish("n", "theirs", 1);
        assert_eq!(client.receive().text(), "theirs");
    });
}

#[test]
fn retained_messages_are_kept_replaced_and_cleared() {
    // [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-8] [MQTT-3.3.1-12]
    with_server(|server| {
        for version in VERSIONS {
            let mut publisher = Client::connect(server.local_addr(), version, "p");
            let mut live = Client::connect(server.local_addr(), version, "live");
            live.subscribe("r/#", 1);
            for text in ["old", "new"] {
                publisher.publish_message(Publish::new("r/1", text).qos(1, 0).retained());
                let message = live.receive();
                assert_eq!((message.text(), message.retain), (text, false));
            }
            publisher.publish("r/1", "not retained", 1);
            assert_eq!(live.receive().text(), "not retained");
            let mut late = Client::connect(server.local_addr(), version, "late");
            late.subscribe("r/+", 1);
            let message = late.receive();
            assert_eq!((message.text(), message.retain, message.qos), ("new", true, 1));
            publisher.publish_message(Publish::new("r/1", "").qos(1, 0).retained());
            assert_eq!(late.receive().text(), "");
            let mut last = Client::connect(server.local_addr(), version, "last");
            last.subscribe("r/+", 1);
            last.expect_nothing();
        }
    });
}

#[test]
fn retain_handling_and_retain_as_published_are_respected() {
    // [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.3.1-13]
    with_server(|server| {
        let mut publisher = Client::connect(server.local_addr(), V5, "p");
        publisher.publish_message(Publish::new("h", "kept").qos(1, 0).retained());
        let mut client = Client::connect(server.local_addr(), V5, "s");
        let (only_if_new, never, as_published) = (0x10, 0x20, 0x08);
        assert_eq!(client.subscribe_all(&[("h", never)]), [0]);
        client.expect_nothing();
        assert_eq!(client.subscribe_all(&[("h", only_if_new)]), [0]);
        client.expect_nothing();
        client.unsubscribe("h");
        assert_eq!(client.subscribe_all(&[("h", only_if_new | as_published)]), [0]);
        assert_eq!(client.receive().text(), "kept");
        publisher.publish_message(Publish::new("h", "live").qos(1, 0).retained());
        let message = client.receive();
        assert_eq!((message.text(), message.retain), ("live", true));
    });
}

#[test]
fn shared_subscriptions_give_each_message_to_one_member() {
    // [MQTT-4.8.2-1]
    with_server(|server| {
        let mut members: Vec<_> = names("member", 3)
            .into_iter()
            .map(|name| {
                let mut client = Client::connect(server.local_addr(), V5, name);
                client.subscribe("$share/group/s/+", 0);
                client.subscribe("end", 0);
                client
            })
            .collect();
        let mut publisher = Client::connect(server.local_addr(), V5, "p");
        for number in 0..60 {
            publisher.publish(&format!("s/{number}"), "x", 1);
        }
        publisher.publish("end", "end", 1);
        let counts: Vec<usize> = members
            .iter_mut()
            .map(|member| std::iter::from_fn(|| Some(member.receive())).take_while(|m| m.topic != "end").count())
            .collect();
        assert_eq!(counts.iter().sum::<usize>(), 60, "{counts:?}");
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    });
}

#[test]
fn properties_of_a_message_are_delivered_unaltered() {
    // [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18]
    with_server(|server| {
        let sent = [
            &[0x01, 1][..],
            &[0x03],
            &field("text/plain"),
            &[0x08],
            &field("reply/to"),
            &[0x09],
            &field([0, 255]),
            &[0x26],
            &field("k"),
            &field("1"),
            &[0x26],
            &field("k"),
            &field("2"),
        ]
        .concat();
        let mut client = Client::connect(server.local_addr(), V5, "s");
        client.subscribe("p", 1);
        let mut publisher = Client::connect(server.local_addr(), V5, "p");
        let message = Publish { properties: sent.clone(), ..Publish::new("p", "x").qos(1, 0) };
        publisher.publish_message(message);
        assert_eq!(client.receive().properties, sent);
    });
}

#[test]
fn topic_aliases_of_a_client_stand_for_its_topics() {
    with_server(|server| {
        let mut client = Client::connect(server.local_addr(), V5, "s");
        client.subscribe("long/topic", 1);
        let mut publisher = Client::connect(server.local_addr(), V5, "p");
        let alias = vec![0x23, 0, 1];
        for topic in ["long/topic", ""] {
            let message = Publish { properties: alias.clone(), ..Publish::new(topic, "x").qos(1, 0) };
            assert_eq!(publisher.publish_message(message), 0);
            let message = client.receive();
            assert_eq!((message.topic.as_str(), message.properties.as_slice()), ("long/topic", &[][..]));
        }
        let unknown = Publish { properties: vec![0x23, 0, 2], ..Publish::new("", "x") };
        publisher.send(unknown.bytes(V5));
        publisher.expect_disconnect(0x82);
    });
}

#[test]
fn malformed_packets_end_the_connection_and_nothing_else() {
    // [MQTT-4.13.1-1] [MQTT-3.3.1-4]
    let table: &[(&str, &[u8], u8)] = &[
        ("QoS 3", &[0x36, 5, 0, 1, b't', 0, 1], 0x81),
        ("reserved packet type", &[0x00, 0], 0x81),
        ("flags of SUBSCRIBE", &[0x80, 7, 0, 1, 0, 0, 1, b't', 0], 0x81),
        ("length of five bytes", &[0x30, 0xff, 0xff, 0xff, 0xff, 1], 0x81),
        ("wildcard in a Topic Name", &[0x30, 4, 0, 1, b'#', 0], 0x90),
        ("U+0000 in a Topic Name", &[0x30, 4, 0, 1, 0, 0], 0x81),
        ("no Topic Filter", &[0x82, 3, 0, 1, 0], 0x82),
    ];
    with_server(|server| {
        let mut witness = Client::connect(server.local_addr(), V5, "witness");
        for (what, bytes, reason_code) in table {
            println!("{what}");
            let mut client = Client::connect(server.local_addr(), V5, "malformed");
            client.send(bytes);
            client.expect_disconnect(*reason_code);
            witness.ping();
        }
    });
}

#[test]
fn large_messages_pass_and_too_large_ones_do_not() {
    let mut limits = host::limits::Limits::default();
    limits.packet_bytes_max = 2 << 20;
    with_configured(
        |builder| builder.limits(limits.clone()),
        |server| {
            let mut client = Client::connect(server.local_addr(), V5, "s");
            client.subscribe("large", 1);
            let mut publisher = Client::connect(server.local_addr(), V5, "p");
            let payload: Vec<u8> = (0..(2 << 20) - 100).map(|number: u32| number as u8).collect();
            assert_eq!(publisher.publish("large", &payload, 1), 0);
            assert_eq!(client.receive().payload, payload);
            // The declared length is enough: it need not be sent.
            publisher.send([0x30, 0x80, 0x80, 0x80, 0x01]);
            publisher.expect_disconnect(0x95);
        },
    );
}

#[test]
fn slow_reader_gets_everything_while_others_are_served() {
    const MESSAGES: usize = 3000;
    with_server(|server| {
        let mut slow = Client::connect(server.local_addr(), V3_1_1, "slow");
        slow.subscribe("flood", 1);
        let mut quick = Client::connect(server.local_addr(), V3_1_1, "quick");
        quick.subscribe("flood", 0);
        let addr = server.local_addr();
        let read = Arc::new(AtomicUsize::new(0));
        let has_read = Arc::clone(&read);
        let reader = std::thread::spawn(move || {
            for number in 0..MESSAGES {
                assert_eq!(&quick.receive().payload[..8], number.to_be_bytes());
                has_read.store(number + 1, Ordering::Relaxed);
            }
        });
        let mut publisher = Client::connect(addr, V3_1_1, "p");
        let mut payload = vec![0; 8 << 10];
        for number in 0..MESSAGES {
            payload[..8].copy_from_slice(&number.to_be_bytes());
            publisher.publish("flood", &payload, 1);
            // Messages of QoS 0 may be dropped for who is behind: it is not, though its thread may have no core.
            eventually("the quick one reads", || number < read.load(Ordering::Relaxed) + 50 || reader.is_finished());
        }
        reader.join().unwrap();
        for number in 0..MESSAGES {
            assert_eq!(&slow.receive().payload[..8], number.to_be_bytes());
        }
    });
}

#[test]
fn many_connections_come_and_go() {
    with_server(|server| {
        let addr = server.local_addr();
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                std::thread::spawn(move || {
                    for round in 0..50 {
                        let mut clients: Vec<_> = names(&format!("{thread}-{round}"), 5)
                            .into_iter()
                            .map(|name| Client::connect(addr, V3_1_1, name))
                            .collect();
                        for client in &mut clients {
                            client.subscribe(&format!("many/{thread}"), 0);
                        }
                        clients[0].publish(&format!("many/{thread}"), "x", 0);
                        clients.iter_mut().for_each(|client| assert_eq!(client.receive().text(), "x"));
                        clients.drain(..2).for_each(Client::disconnect);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn what_was_sent_before_the_end_of_the_stream_is_still_answered() {
    with_server(|server| {
        let mut client = Client::connect(server.local_addr(), V3_1, "half");
        client.send(Publish::new("t", "x").qos(1, 7).bytes(V3_1));
        client.finish_sending();
        assert_eq!(client.expect_ack(4, 7), 0);
        client.expect_closed();
    });
}

#[test]
fn reason_reaches_a_client_that_goes_on_sending() {
    with_server(|server| {
        for _ in 0..20 {
            let mut client = Client::connect(server.local_addr(), V5, "talkative");
            client.send([0x36, 5, 0, 1, b't', 0, 1]);
            // If the server closed with this unread, the system would discard what it has sent.
            for _ in 0..5 {
                client.try_send([0; 10_000]);
            }
            client.expect_disconnect(0x81);
        }
    });
}

#[test]
fn connections_beyond_the_bound_are_closed_at_once() {
    let mut limits = host::limits::Limits::default();
    limits.connections_max = 3;
    with_configured(
        |builder| builder.limits(limits.clone()),
        |server| {
            let mut clients: Vec<_> =
                names("c", 3).into_iter().map(|name| Client::connect(server.local_addr(), V5, name)).collect();
            let mut refused = Client::open(server.local_addr(), V5);
            refused.expect_closed();
            clients.pop().unwrap().disconnect();
            eventually("there is room again", || {
                let mut client = Client::open(server.local_addr(), V5);
                client.try_send(Connect::new(V5, "late").bytes()) && client.try_read().is_some()
            });
            clients.iter_mut().for_each(Client::ping);
        },
    );
}

#[test]
fn reason_codes_of_subscribe_are_one_for_each_filter() {
    // [MQTT-3.8.4-6]
    with_server(|server| {
        let mut client = Client::connect(server.local_addr(), V5, "s");
        let codes = client.subscribe_all(&[("a", 0), ("b/#/c", 1), ("c/+", 2), ("$share//x", 0)]);
        assert_eq!(codes, [0, 0x8f, 2, 0x8f]);
    });
}

#[test]
fn stopping_tells_clients_of_5_0_and_closes_the_others() {
    for workers in [1, 3] {
        let server = start(workers, |builder| builder);
        let mut clients: Vec<_> = VERSIONS
            .into_iter()
            .flat_map(|version| names(&format!("v{version}"), 4).into_iter().map(move |name| (version, name)))
            .map(|(version, name)| Client::connect(server.local_addr(), version, name))
            .collect();
        let not_connected = Client::open(server.local_addr(), V5);
        let addr = server.local_addr();
        let stopping = std::thread::spawn(move || server.stop());
        for client in &mut clients {
            client.expect_disconnect(0x8b);
        }
        stopping.join().unwrap().expect("it stops in time");
        // Somebody else on this machine may have taken the port since, but not again and again.
        assert!((0..5).any(|_| std::net::TcpStream::connect(addr).is_err()), "nobody listens any more");
        drop(not_connected);
    }
}

#[test]
fn two_listeners_are_one_server() {
    let server = start(2, |builder| builder.listen("127.0.0.1:0").listen("[::1]:0"));
    let addrs = server.local_addrs().to_vec();
    assert_eq!(addrs.len(), 3);
    let mut first = Client::connect(addrs[0], V5, "first");
    first.subscribe("t", 0);
    for addr in &addrs[1..] {
        Client::connect(*addr, V3_1_1, "second").publish("t", "x", 1);
        assert_eq!(first.receive().text(), "x");
    }
    let taken = host::Server::builder().listen(addrs[1].to_string()).start().expect_err("the address is in use");
    let text = taken.to_string();
    assert!(text.contains(&addrs[1].to_string()) && text.contains("take another port"), "{text}");
}

#[test]
fn packets_with_properties_of_others_are_malformed() {
    with_server(|server| {
        let mut client = Client::connect(server.local_addr(), V5, "c");
        // A Receive Maximum in PUBLISH.
        let body = [field("t"), properties(V5, &[0x21, 0, 1])].concat();
        client.send(packet(0x30, &body));
        client.expect_disconnect(0x81);
    });
}
