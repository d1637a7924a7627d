//! PUBLISH, SUBSCRIBE, UNSUBSCRIBE and messages for `handle_info`.

use plugin_api::{
    Disconnect, InfoAction, InfoTarget, Message, PublishVerdict, ReasonCode, SubscribeVerdict, UnsubscribeVerdict,
};

use super::*;

/// Packets behind an open question wait; what goes to the client does not.
#[test]
fn packets_wait_for_an_answer_in_their_order() {
    for version in VERSIONS {
        scenario(|net| {
            let (from, to) = (net.client(version, "from"), net.client(version, "to"));
            net.subscribe(to, "#", 0);
            net.subscribe(from, "news", 0);
            let tickets = defer_publish(net);
            net.send(from, "32: <t> 0001 [{}] 'x' | C0: | 34: <t> 0002 [{}] 'y' | 62: 0002 | 30: <t> [{}] 'z'");
            net.expect(from, "");
            net.script().publish = None;
            net.send(to, "30: <news> [{}] 'n'");
            net.expect(from, "30: <news> [{}] 'n'");
            net.expect(to, "30: <news> [{}] 'n'");
            net.script().take("publish");
            assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
            net.expect(from, "40: 0001 | D0: | 50: 0002 | 70: 0002");
            net.expect(to, "30: <t> [{}] 'x' | 30: <t> [{}] 'y' | 30: <t> [{}] 'z'");
            // Nobody was asked twice.
            assert_eq!(net.script().take("publish").len(), 2);
        });
    }
}

/// Of messages that come together for one receiver, those before an open question have gone, and those behind it wait.
#[test]
fn one_of_several_messages_waits() {
    for (version, qos) in VERSIONS.into_iter().flat_map(|version| [(version, 0_u8), (version, 1), (version, 2)]) {
        scenario(|net| {
            let (from, to) = (net.client(version, "from"), net.client(version, "to"));
            net.subscribe(to, "t", qos);
            net.send(from, "30: <t> [{}] '0'");
            net.expect(to, "30: <t> [{}] '0'");
            let (tickets, host) = (Held::<PublishVerdict>::new(), net.script().host());
            let into = tickets.clone();
            net.script().publish = Some(Box::new(move |asked| {
                if asked.message.as_ref().is_none_or(|message| message.payload != [3]) {
                    return Ok(PublishVerdict::Forward);
                }
                let (ticket, later) = host.ticket()?;
                into.push(ticket);
                Ok(PublishVerdict::Later(later))
            }));
            let message = |id: u16| match qos {
                0 => format!("30: <t> [{{}}] {id:02X}"),
                _ => format!("{:02X}: <t> {id:04X} [{{}}] {id:02X}", 0x30 | qos << 1),
            };
            let messages = |ids: std::ops::RangeInclusive<u16>| ids.map(message).collect::<Vec<_>>().join(" | ");
            let answers = |first: &str, ids: std::ops::RangeInclusive<u16>| {
                ids.map(|id| format!("{first}: {id:04X}")).collect::<Vec<_>>().join(" | ")
            };
            let acknowledged =
                |ids| if qos == 0 { String::new() } else { answers(if qos == 1 { "40" } else { "50" }, ids) };
            net.send(from, &messages(1..=5));
            net.expect(from, &acknowledged(1..=2));
            net.expect(to, &if qos == 2 { String::new() } else { messages(1..=2) });
            assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
            net.expect(from, &acknowledged(3..=5));
            if qos == 2 {
                net.send(from, &answers("62", 1..=5));
                net.expect(from, &answers("70", 1..=5));
            }
            net.expect(to, &messages(if qos == 2 { 1..=5 } else { 3..=5 }));
            assert_eq!((tickets.len(), net.script().take("publish").len()), (0, 6));
        });
    }
}

/// Every answer does what it does at once; those of many connections come in any order.
#[test]
fn answers_do_what_they_do_at_once() {
    type Row = (fn() -> PublishVerdict, &'static str, &'static str);
    let rows: [Row; 5] = [
        (|| PublishVerdict::Forward, "40: 0001", "30: <t> {} 'x'"),
        (|| PublishVerdict::Handled, "40: 0001", ""),
        (|| PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED), "40: 0001 87", ""),
        (|| PublishVerdict::ForwardChanged(Message::new("u", "y")), "40: 0001", "30: <u> {} 'y'"),
        // What cannot be published is refused.
        (|| PublishVerdict::ForwardChanged(Message::new("u/#", "y")), "40: 0001 80", ""),
    ];
    scenario(|net| {
        let to = net.v5("to");
        net.subscribe(to, "#", 0);
        let tickets = defer_publish(net);
        let clients: Vec<usize> = (0..rows.len()).map(|number| net.v5(&format!("c{number}"))).collect();
        for client in &clients {
            net.send(*client, "32: <t> 0001 {} 'x'");
        }
        assert_eq!(tickets.len(), rows.len());
        let mut all: Vec<_> = (0..rows.len()).map(|_| tickets.take()).collect();
        for (at, (answer, ack, message)) in rows.iter().enumerate().rev() {
            assert_eq!(all.remove(at).answer(answer()), Ok(()));
            net.settle();
            net.expect(clients[at], ack);
            net.expect(to, message);
        }
        let end = clients[0];
        net.send(end, "30: <t> {} 'x' | C0:");
        let disconnect = PublishVerdict::Disconnect(Disconnect::new(ReasonCode::NOT_AUTHORIZED));
        assert_eq!(tickets.answer(net, disconnect), Ok(()));
        net.expect_closed(end, "E0: 87");
        assert_eq!(net.script().take("disconnect"), ["disconnect c0 ServerDisconnect 87"]);
    });
}

/// The Topic Name that an alias stands for stays what it was, and the alias is there afterwards.
#[test]
fn topic_aliases() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "#", 0);
        let tickets = defer_publish(net);
        net.send(from, "30: <t> {23 0001} 'a' | 30: <> {23 0001} 'b' | 30: <u> {23 0001} 'c' | 30: <> {23 0001} 'd'");
        for expected in ["30: <t> {} 'a'", "30: <t> {} 'b'", "30: <u> {} 'c'", "30: <u> {} 'd'"] {
            net.expect(to, "");
            assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
            net.expect(to, expected);
        }
        assert_eq!(tickets.len(), 0);
    });
}

/// [MQTT-4.3.3-10] A QoS 2 message is asked about once, even if it comes again while its answer is awaited.
#[test]
fn qos_2_is_asked_about_once() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "#", 2);
        let tickets = defer_publish(net);
        net.send(from, "34: <t> 0001 {} 'x' | 3C: <t> 0001 {} 'x' | 62: 0001");
        assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
        assert_eq!(tickets.len(), 0);
        net.expect(from, "50: 0001 | 50: 0001 | 70: 0001");
        net.expect(to, "34: <t> 0001 {} 'x'");
    });
}

#[test]
fn retained_messages_are_stored_when_they_are_let_pass() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        let tickets = defer_publish(net);
        net.send(from, "33: <t> 0001 {} 'x'");
        assert!(net.shared.retained.is_empty());
        net.subscribe(to, "t", 0);
        assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
        net.expect(to, "30: <t> {} 'x'");
        net.expect(from, "40: 0001");
        assert_eq!(net.shared.retained.len(), 1);
    });
}

/// An answer that comes before its callback has returned.
#[test]
fn answered_inside_the_callback() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "#", 0);
        let host = net.script().host();
        net.script().publish = Some(Box::new(move |_| {
            let (ticket, later) = host.ticket()?;
            ticket.answer(PublishVerdict::Forward)?;
            Ok(PublishVerdict::Later(later))
        }));
        net.send(from, "32: <t> 0001 {} 'x' | 32: <t> 0002 {} 'y' | C0:");
        net.expect(from, "40: 0001 | 40: 0002 | D0:");
        net.expect(to, "30: <t> {} 'x' | 30: <t> {} 'y'");
    });
}

#[test]
fn answered_from_another_thread() {
    scenario(|net| {
        let from = net.v5("from");
        let tickets = defer_publish(net);
        net.send(from, "32: <t> 0001 {} 'x'");
        let ticket = tickets.take();
        let answered = std::thread::spawn(move || ticket.answer(PublishVerdict::Handled)).join();
        assert_eq!(answered.expect("it does not panic"), Ok(()));
        net.settle();
        net.expect(from, "40: 0001");
    });
}

/// A ticket that is dropped refuses, as does a callback that has taken one and fails.
#[test]
fn a_ticket_that_is_dropped_refuses() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "#", 0);
        let tickets = defer_publish(net);
        net.send(from, "32: <t> 0001 {} 'x'");
        drop(tickets.take());
        net.settle();
        net.expect(from, "40: 0001 80");
        let host = net.script().host();
        net.script().publish = Some(Box::new(move |_| {
            let _ticket = host.ticket::<PublishVerdict>()?;
            Err("no idea".into())
        }));
        net.send(from, "32: <t> 0002 {} 'x'");
        net.expect(from, "40: 0002 80");
        let host = net.script().host();
        net.script().publish = Some(Box::new(move |_| {
            let _ticket = host.ticket::<PublishVerdict>()?;
            panic!("as scripted");
        }));
        net.send(from, "32: <t> 0003 {} 'x'");
        net.expect_closed(from, "E0: 83");
        net.expect(to, "");
    });
}

#[test]
fn subscribe_and_unsubscribe() {
    for version in VERSIONS {
        let (error, unsuback) = (if version == V3_1 { "01" } else { "80" }, "[{} 00]");
        scenario(|net| {
            let client = net.client(version, "c");
            net.send(client, "31: <b> [{}] 'x'");
            let subscribe = defer!(net, subscribe, SubscribeVerdict);
            net.send(client, "82: 0001 [{}] <a> 01 <b> 02");
            net.expect(client, "");
            let codes = vec![ReasonCode::UNSPECIFIED_ERROR, ReasonCode::GRANTED_QOS_0];
            assert_eq!(subscribe.answer(net, SubscribeVerdict::Codes(codes)), Ok(()));
            net.expect(client, &format!("90: 0001 [{{}}] {error} 00 | 31: <b> [{{}}] 'x'"));
            net.script().subscribe = None;
            let unsubscribe = defer!(net, unsubscribe, UnsubscribeVerdict);
            net.send(client, "A2: 0002 [{}] <b> | 30: <b> [{}] 'z'");
            net.send(client, "C0:");
            net.expect(client, "");
            assert_eq!(unsubscribe.answer(net, UnsubscribeVerdict::Allow), Ok(()));
            net.expect(client, &format!("B0: 0002 {unsuback} | D0:"));
            // An answer that makes no sense ends the connection.
            let subscribe = defer!(net, subscribe, SubscribeVerdict);
            net.send(client, "82: 0003 [{}] <a> 01");
            assert_eq!(subscribe.answer(net, SubscribeVerdict::Codes(Vec::new())), Ok(()));
            net.expect_closed(client, if version == V5 { "E0: 83" } else { "" });
            assert_eq!(net.script().take("disconnect").len(), 1);
        });
    }
}

/// What was published before the plugin answered comes before the acknowledgement, though it is kept once for many.
#[test]
fn acknowledgements_come_behind_what_goes_to_many() {
    for version in VERSIONS {
        scenario(|net| {
            let all = ["a", "b", "c"].map(|name| {
                let client = net.client(version, name);
                net.subscribe(client, "t", 1);
                client
            });
            let from = net.client(version, "from");
            for client in all {
                net.stall(client, true);
            }
            let subscribe = defer!(net, subscribe, SubscribeVerdict);
            let unsubscribe = defer!(net, unsubscribe, UnsubscribeVerdict);
            net.send(all[0], "82: 0001 [{}] <u> 00");
            net.send(all[1], "A2: 0002 [{}] <t>");
            net.send(from, "30: <t> [{}] '1' | 32: <t> 0001 [{}] '2'");
            assert_eq!(subscribe.answer(net, SubscribeVerdict::Codes(vec![ReasonCode::GRANTED_QOS_0])), Ok(()));
            assert_eq!(unsubscribe.answer(net, UnsubscribeVerdict::Allow), Ok(()));
            net.send(from, "30: <t> [{}] '3'");
            let before = "30: <t> [{}] '1' | 32: <t> 0001 [{}] '2'";
            let expected = ["| 90: 0001 [{}] 00 | 30: <t> [{}] '3'", "| B0: 0002 [{} 00]", "| 30: <t> [{}] '3'"];
            for (client, behind) in all.into_iter().zip(expected) {
                net.stall(client, false);
                net.expect(client, &format!("{before} {behind}"));
            }
        });
    }
}

/// Messages for `handle_info` wait behind a question, are one themselves, and are done with before the next packet.
#[test]
fn info_waits_and_is_waited_for() {
    scenario(|net| {
        let client = net.v5("c");
        let host = net.script().host();
        let tickets = defer_publish(net);
        net.send(client, "32: <t> 0001 {} 'x' | C0:");
        for kind in ["a", "b"] {
            host.send_info(InfoTarget::Client("c"), kind, &[], None).expect("there is room");
        }
        net.settle();
        assert_eq!(net.script().take("info"), [""; 0]);
        let infos = Held::<Vec<InfoAction>>::new();
        let (into, ticket_host) = (infos.clone(), host.clone());
        net.script().info = Some(Box::new(move |_| {
            let (ticket, later) = ticket_host.ticket()?;
            into.push(ticket);
            Ok(vec![InfoAction::Later(later)])
        }));
        assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
        net.expect(client, "40: 0001 10");
        assert_eq!(net.script().take("info"), ["info c a Plugin"]);
        assert_eq!(infos.answer(net, vec![InfoAction::Publish(Message::new("to/you", "hi"))]), Ok(()));
        net.expect(client, "30: <to/you> {} 'hi'");
        assert_eq!(net.script().take("info"), ["info c b Plugin"]);
        assert_eq!(infos.answer(net, Vec::new()), Ok(()));
        net.expect(client, "D0:");
    });
}

/// What waits is counted, and bounded.
#[test]
fn what_waits_is_counted() {
    scenario(|net| {
        let client = net.v5("c");
        net.send(client, "30: <t> {} 'x'");
        let before = held_bytes(net);
        let tickets = defer_publish(net);
        let payload = "x".repeat(50_000);
        net.send(client, &format!("32: <t> 0001 {{}} '{payload}'"));
        assert!(held_bytes(net) >= before + payload.len(), "{} bytes", held_bytes(net) - before);
        let host = net.script().host();
        for _ in 0..300 {
            host.send_info(InfoTarget::Client("c"), "k", &[0; 100], None).expect("there is room");
        }
        net.settle();
        assert!(held_bytes(net) >= before + payload.len() + 256 * 100);
        assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
        net.expect(client, "40: 0001 10");
        assert_eq!((held_bytes(net), net.script().take("info").len()), (before, 256));
    });
}

/// As many answers are owed as may be: the next callback is told so.
#[test]
fn no_more_tickets_than_allowed() {
    scenario_with(&Setup::limits(|limits| limits.tickets_max = 2), |net| {
        let clients: Vec<usize> = (0..3).map(|number| net.v5(&format!("c{number}"))).collect();
        let tickets = defer_publish(net);
        for client in &clients {
            net.send(*client, "32: <t> 0001 {} 'x'");
        }
        net.expect(clients[2], "40: 0001 80");
        assert_eq!(tickets.answer(net, PublishVerdict::Handled), Ok(()));
        net.expect(clients[0], "40: 0001");
        net.send(clients[2], "32: <t> 0002 {} 'x'");
        assert_eq!(tickets.len(), 2);
        for client in &clients[1..] {
            assert_eq!(tickets.answer(net, PublishVerdict::Handled), Ok(()));
            assert!(!net.take(*client).is_empty());
        }
    });
}

/// It is good for nothing once the callback has answered at once, and makes room for another one.
#[test]
fn a_ticket_that_is_not_used_is_void() {
    scenario_with(&Setup::limits(|limits| limits.tickets_max = 1), |net| {
        let client = net.v5("c");
        let (held, host) = (Held::<PublishVerdict>::new(), net.script().host());
        let into = held.clone();
        net.script().publish = Some(Box::new(move |_| {
            into.push(host.ticket()?.0);
            Ok(PublishVerdict::Handled)
        }));
        for number in 1..=3 {
            net.send(client, &format!("32: <t> 000{number} {{}} 'x'"));
            net.expect(client, &format!("40: 000{number}"));
            assert_eq!(held.answer(net, PublishVerdict::Forward), Err(HostError::Gone));
        }
    });
}

/// Outside of a callback, or where nothing waits, there is no ticket.
#[test]
fn tickets_are_taken_in_callbacks_that_can_wait() {
    scenario(|net| {
        assert!(matches!(net.script().host().ticket::<PublishVerdict>(), Err(HostError::NotHere)));
        let host = net.script().host();
        let client = net.v5("c");
        let told = Arc::new(Mutex::new(None));
        let tells = Arc::clone(&told);
        net.script().puback = Some(Box::new(move |_| {
            *lock(&tells) = host.ticket::<PublishVerdict>().err();
        }));
        net.send(client, "82: 0001 {} <t> 01 | 32: <t> 0001 {} 'x' | 40: 0001");
        net.take(client);
        assert_eq!(*lock(&told), Some(HostError::NotHere));
    });
}

/// A full worker keeps no large packet that a plugin is to decide about later; whoever was asked hears of the end.
#[test]
fn large_packet_is_not_kept_by_a_full_worker() {
    let setup = Setup::limits(|limits| limits.worker_bytes_max = 1 << 20);
    scenario_in(Mode { workers: 1, bytewise: false }, &setup, |net| {
        let (client, small, from) = (net.v5("c"), net.v5("small"), net.v5("from"));
        let absent = net.durable(V5, "absent", CONNACK);
        net.subscribe(absent, "q", 1);
        net.lose(absent);
        for _ in 0..120 {
            net.send(from, &format!("32: <q> 0001 {{}} '{}'", "x".repeat(9_000)));
            net.take(from);
        }
        let held = defer_publish(net);
        let before = held_bytes(net);
        net.send(client, &format!("30: <t> {{}} '{}'", "x".repeat(100_000)));
        net.expect_closed(client, "E0: 97");
        assert!(held_bytes(net) < before + 10_000, "it is not kept");
        assert_eq!((held.len(), farewells(net)), (1, 1), "it was asked");
        held.answer(net, PublishVerdict::Forward).expect("it is awaited");
        assert_eq!(net.script().take("disconnect").last().expect("it is told"), "disconnect c ProtocolError 97");
        net.send(small, "30: <t> {} 'x' | C0:");
        net.expect(small, "");
        held.answer(net, PublishVerdict::Forward).expect("it is awaited");
        net.expect(small, "D0:");
    });
}
