//! `handle_deliver`: every delivery is asked about, once, and what comes of each answer.

use std::sync::{Condvar, Mutex, PoisonError};

use plugin_api::{
    ConnectionInfo, Deliver, DeliverVerdict, DisconnectReason, Error, Handler, Host, InfoAction, Message, Property,
    QoS, handler,
};

use super::judge::Seen;
use super::net::connect_packet;
use super::*;
use crate::plugin::{Plugin, Services};

pub(super) fn judged(judges: usize) -> Setup {
    Setup { judges, ..Setup::default() }
}

/// The answers of a judge from now on.
fn answers(net: &Net, judge: usize, answer: impl FnMut(&Seen) -> Result<DeliverVerdict, Error> + Send + 'static) {
    net.judge(judge).deliver = Some(Box::new(answer));
}

fn upper(message: &Message) -> DeliverVerdict {
    DeliverVerdict::SendChanged(message.clone().payload(message.payload.to_ascii_uppercase()))
}

#[test]
fn every_way_to_a_client_is_asked_about() {
    for version in VERSIONS {
        scenario_with(&judged(1), |net| {
            let from = net.client(version, "from");
            net.send(from, "31: <r> [{}] 'kept'");
            let to = net.durable(version, "to", CONNACK);
            net.send(to, "82: 0001 [{0B 07}] <#> 01");
            let id = if version == V5 { "0B 07" } else { "" };
            net.expect(to, &format!("90: 0001 [{{}}] 01 | 31: <r> [{{{id}}}] 'kept'"));
            let ids = if version == V5 { "[7]" } else { "[]" };
            assert_eq!(
                net.judge(0).take("deliver"),
                [format!("deliver to r 'kept' q0 retain=1 shared=0 ids={ids} Client Retained")]
            );
            net.send(from, "30: <a> [{}] 'x' | 32: <b> 0001 [{}] 'y'");
            net.take(from);
            net.expect(to, &format!("30: <a> [{{{id}}}] 'x' | 32: <b> 0001 [{{{id}}}] 'y'"));
            assert_eq!(
                net.judge(0).take("deliver"),
                [
                    format!("deliver to a 'x' q0 retain=0 shared=0 ids={ids} Client Published"),
                    format!("deliver to b 'y' q1 retain=0 shared=0 ids={ids} Client Published"),
                ]
            );
            // What is sent again is not asked about again; what waits is asked about when its turn comes.
            net.lose(to);
            net.send(from, "32: <c> 0002 [{}] 'z'");
            net.take(from);
            assert_eq!(net.judge(0).take("deliver"), [""; 0]);
            let to = net.open(version);
            net.send(to, &connect_packet(version, "00", 0, "11 00000E10", "to"));
            let resumed = super::net::resumed(version);
            net.expect(to, &format!("{resumed} | 3A: <b> 0001 [{{{id}}}] 'y' | 32: <c> 0002 [{{{id}}}] 'z'"));
            assert_eq!(
                net.judge(0).take("deliver"),
                [format!("deliver to c 'z' q1 retain=0 shared=0 ids={ids} Client Queued")]
            );
        });
    }
}

#[test]
fn who_published_a_message_is_known() {
    scenario_with(&judged(1), |net| {
        let to = net.v5("to");
        net.subscribe(to, "#", 1);
        let lost = net.join(V5, "10: <MQTT> 05 06 0000 {} <lost> {} <will> <w>", CONNACK);
        net.lose(lost);
        let host = net.script().host();
        host.publish(&Message::new("plugin", "p").qos(QoS::AtLeastOnce)).unwrap();
        net.settle();
        host.send(plugin_api::InfoTarget::Client("to"), &Message::new("sent", "s").qos(QoS::AtLeastOnce).token(9))
            .unwrap();
        net.settle();
        net.expect(to, "30: <will> {} 'w' | 32: <plugin> 0001 {} 'p' | 32: <sent> 0002 {} 's'");
        assert_eq!(
            net.judge(0).take("deliver"),
            [
                "deliver to will 'w' q0 retain=0 shared=0 ids=[] Will Published",
                "deliver to plugin 'p' q1 retain=0 shared=0 ids=[] Plugin(\"puppet\") Published",
                "deliver to sent 's' q1 retain=0 shared=0 ids=[] Plugin(\"puppet\") Sent token=9",
            ]
        );
    });
}

/// The origin stays with retained messages, queued ones, and wills that are delayed.
#[test]
fn who_published_a_message_is_known_later() {
    scenario_with(&judged(1), |net| {
        let host = net.script().host();
        host.publish(&Message::new("plugin", "p").retain(true)).unwrap();
        let to = net.durable(V5, "to", CONNACK);
        net.subscribe(to, "will", 1);
        net.lose(to);
        let will = "10: <MQTT> 05 0E 0000 {11 00000E10} <lost> {18 00000005} <will> <w>";
        let lost = net.join(V5, will, CONNACK);
        net.lose(lost);
        net.advance(5000);
        let to = net.open(V5);
        net.send(to, &connect_packet(V5, "00", 0, "11 00000E10", "to"));
        net.send(to, "82: 0001 {} <plugin> 00");
        net.expect(
            to,
            &format!("{CONNACK_RESUMED} | 32: <will> 0001 {{}} 'w' | 90: 0001 {{}} 00 | 31: <plugin> {{}} 'p'"),
        );
        assert_eq!(
            net.judge(0).take("deliver"),
            [
                "deliver to will 'w' q1 retain=0 shared=0 ids=[] Will Queued",
                "deliver to plugin 'p' q0 retain=1 shared=0 ids=[] Plugin(\"puppet\") Retained",
            ]
        );
    });
}

#[test]
fn members_of_groups_are_asked_about_as_such() {
    scenario_with(&judged(1), |net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.send(to, "82: 0001 {0B 05} <$share/g/t> 01");
        net.expect(to, "90: 0001 {} 01");
        answers(net, 0, |seen| {
            Ok(if seen.message.payload == b"no" { DeliverVerdict::Drop } else { upper(&seen.message) })
        });
        net.send(from, "32: <t> 0001 {} 'a' | 30: <t> {} 'b' | 32: <t> 0002 {} 'no'");
        net.take(from);
        net.expect(to, "32: <t> 0001 {0B 05} 'A' | 30: <t> {0B 05} 'B'");
        let mut seen = net.judge(0).take("deliver");
        seen.truncate(2);
        assert_eq!(
            seen,
            [
                "deliver to t 'a' q1 retain=0 shared=1 ids=[5] Client Published",
                "deliver to t 'b' q0 retain=0 shared=1 ids=[5] Client Published",
            ]
        );
    });
}

/// What one client gets instead is nobody else's, and is what it is sent again.
#[test]
fn a_changed_message_is_the_one_that_is_sent_again() {
    for version in VERSIONS {
        scenario_with(&judged(1), |net| {
            let from = net.client(version, "from");
            let (first, to) = (net.client(version, "first"), net.durable(version, "to", CONNACK));
            let last = net.client(version, "last");
            for client in [first, to, last] {
                net.subscribe(client, "#", 2);
            }
            answers(net, 0, |seen| {
                let other = || Message::new("other/topic", "new").qos(QoS::ExactlyOnce).retain(true);
                let other = || other().property(Property::UserProperty("a", "b"));
                Ok(if seen.client == "to" { DeliverVerdict::SendChanged(other()) } else { DeliverVerdict::Send })
            });
            net.send(from, "34: <t> 0001 [{}] 'old' | 62: 0001 | 32: <t> 0002 [{}] 'old' | 30: <t> [{}] 'old'");
            net.take(from);
            let same = "34: <t> 0001 [{}] 'old' | 32: <t> 0002 [{}] 'old' | 30: <t> [{}] 'old'";
            net.expect(first, same);
            net.expect(last, same);
            // No QoS is raised.
            let sent = |first: &str, id: &str| format!("{first}: <other/topic> {id} [{{26 <a> <b>}}] 'new'");
            net.expect(to, &[sent("35", "0001"), sent("33", "0002"), sent("31", "")].join(" | "));
            net.lose(to);
            net.judge(0).lines.clear();
            let to = net.open(version);
            net.send(to, &connect_packet(version, "00", 0, "11 00000E10", "to"));
            let resumed = super::net::resumed(version);
            net.expect(to, &format!("{resumed} | {} | {}", sent("3D", "0001"), sent("3B", "0002")));
            assert_eq!(net.judge(0).take("deliver"), [""; 0]);
        });
    }
}

/// Section 4.8.2: nor does another member of a group get it when the session ends: that one is asked about anew.
#[test]
fn a_changed_message_is_handed_on_as_it_was_published() {
    scenario_with(&judged(1), |net| {
        let from = net.v5("from");
        let connect = connect_packet(V5, "00", 0, "11 00000E10 21 0003", "first");
        let first = net.join(V5, &connect, CONNACK);
        net.send(first, "82: 0001 {0B 05} <$share/g/t> 01");
        net.expect(first, "90: 0001 {} 01");
        answers(net, 0, |seen| {
            let changed = Message::new(format!("for/{}", seen.client), "changed").qos(seen.message.qos);
            Ok(DeliverVerdict::SendChanged(changed))
        });
        net.send(from, "35: <t> 0001 {} 'a' | 62: 0001 | 33: <t> 0001 {26 <k> <v>} 'b'");
        net.take(from);
        net.expect(first, "32: <for/first> 0001 {0B 05} 'changed' | 32: <for/first> 0002 {0B 05} 'changed'");
        let second = net.v5("second");
        net.send(second, "82: 0001 {0B 07} <$share/g/t> 0A");
        net.expect(second, "90: 0001 {} 02");
        net.judge(0).lines.clear();
        net.send(first, "E0: 00 {11 00000000}");
        net.expect(second, "34: <for/second> 0001 {0B 07} 'changed' | 32: <for/second> 0002 {0B 07} 'changed'");
        assert_eq!(
            net.judge(0).take("deliver"),
            [
                "deliver second t 'a' q2 retain=1 shared=1 ids=[7] Client Published",
                "deliver second t 'b' q1 retain=1 shared=1 ids=[7] Client Published",
            ]
        );
    });
}

#[test]
fn a_changed_message_may_have_a_lower_qos() {
    scenario_with(&judged(1), |net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "#", 2);
        answers(net, 0, |seen| Ok(DeliverVerdict::SendChanged(seen.message.clone().qos(QoS::AtMostOnce))));
        net.send(from, "32: <t> 0001 {} 'x' | 34: <t> 0002 {} 'y' | 62: 0002");
        net.take(from);
        net.expect(to, "30: <t> {} 'x' | 30: <t> {} 'y'");
        answers(net, 0, |_| Ok(DeliverVerdict::Send));
        net.send(from, "32: <t> 0001 {} 'z'");
        net.take(from);
        net.expect(to, "32: <t> 0001 {} 'z'"); // No Packet Identifier was lost.
    });
}

/// [MQTT-3.3.2-6] The Message Expiry Interval is shown, and goes on counting where it is left as it is.
#[test]
fn expiry_of_changed_messages() {
    scenario_with(&judged(1), |net| {
        let (from, to) = (net.v5("from"), net.durable(V5, "to", CONNACK));
        net.subscribe(to, "#", 1);
        net.lose(to);
        net.send(
            from,
            "32: <t> 0001 {02 0000000A} 'kept' | 32: <t> 0002 {02 0000000A} 'gone' | 32: <t> 0003 {02 0000000A} 'set'",
        );
        net.take(from);
        net.advance(3500);
        answers(net, 0, |seen| {
            assert_eq!(seen.message.properties.as_properties().message_expiry_interval(), Some(7));
            let bare =
                |message: &Message| Message::new(message.topic.clone(), message.payload.clone()).qos(QoS::AtLeastOnce);
            Ok(DeliverVerdict::SendChanged(match &seen.message.payload[..] {
                b"kept" => seen.message.clone(),
                b"gone" => bare(&seen.message),
                _ => bare(&seen.message).property(Property::MessageExpiryInterval(100)),
            }))
        });
        let to = net.open(V5);
        net.send(to, &connect_packet(V5, "00", 0, "11 00000E10", "to"));
        let sent = "32: <t> 0001 {02 00000007} 'kept' | 32: <t> 0002 {} 'gone' | 32: <t> 0003 {02 00000064} 'set'";
        net.expect(to, &format!("{CONNACK_RESUMED} | {sent}"));
        net.lose(to);
        net.advance(3000);
        let to = net.open(V5);
        net.send(to, &connect_packet(V5, "00", 0, "11 00000E10", "to"));
        // 6.5 s since it was published: the half second was not added again.
        let again = "3A: <t> 0001 {02 00000004} 'kept' | 3A: <t> 0002 {} 'gone' | 3A: <t> 0003 {02 00000061} 'set'";
        net.expect(to, &format!("{CONNACK_RESUMED} | {again}"));
    });
}

#[test]
fn each_plugin_sees_the_previous_ones_message_and_the_first_drop_wins() {
    scenario_with(&judged(2), |net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "#", 1);
        answers(net, 0, |seen| {
            Ok(match &seen.message.payload[..] {
                b"drop" => DeliverVerdict::Drop,
                b"same" => DeliverVerdict::Send,
                _ => DeliverVerdict::SendChanged(seen.message.clone().payload("one")),
            })
        });
        answers(net, 1, |seen| {
            let two = [&seen.message.payload[..], b" two"].concat();
            Ok(DeliverVerdict::SendChanged(seen.message.clone().payload(two)))
        });
        net.send(from, "30: <t> {} 'drop' | 32: <t> 0001 {} 'drop' | 30: <t> {} 'same' | 32: <t> 0002 {} 'x'");
        net.take(from);
        net.expect(to, "30: <t> {} 'same two' | 32: <t> 0001 {} 'one two'");
        let seen: Vec<String> = net.judge(1).take("deliver").iter().map(|line| line[..19].to_owned()).collect();
        assert_eq!(seen, ["deliver to t 'same'", "deliver to t 'one' "]);
        assert_eq!(net.count(|counters| counters.dropped_by_handler.get()), 2);
    });
}

/// Errors and messages that cannot be sent are dropped, and the connection goes on.
#[test]
fn who_fails_to_answer_drops() {
    scenario_with(&judged(1), |net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "#", 1);
        answers(net, 0, |seen| {
            let message = seen.message.clone();
            Ok(DeliverVerdict::SendChanged(match &message.payload[..] {
                b"error" => return Err("as asked".into()),
                b"topic" => message.topic("a/+"),
                b"alias" => message.property(Property::TopicAlias(1)),
                b"large" => message.payload(vec![0; 2 << 20]),
                _ => return Ok(DeliverVerdict::Send),
            }))
        });
        for payload in ["error", "topic", "alias", "large"] {
            net.send(from, &format!("30: <t> {{}} '{payload}' | 32: <t> 0001 {{}} '{payload}'"));
        }
        net.take(from);
        net.expect(to, "");
        net.send(from, "32: <t> 0001 {} 'good'");
        net.take(from);
        net.expect(to, "32: <t> 0001 {} 'good'");
        assert_eq!(net.count(|counters| counters.dropped_by_handler.get()), 8);
    });
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25] What plugins make of a message has the bound of the client's Maximum Packet Size.
#[test]
fn a_changed_message_may_be_too_large_for_its_client() {
    scenario_with(&judged(1), |net| {
        let (from, to) = (net.v5("from"), net.join(V5, &connect_packet(V5, "02", 0, "27 00000028", "to"), CONNACK));
        net.subscribe(to, "#", 1);
        answers(net, 0, |seen| {
            let times = if seen.message.payload == b"x" { 100 } else { 3 };
            Ok(DeliverVerdict::SendChanged(seen.message.clone().payload(seen.message.payload.repeat(times))))
        });
        net.send(from, "30: <t> {} 'x' | 32: <t> 0001 {} 'x' | 30: <t> {} 'y' | 32: <t> 0002 {} 'y'");
        net.take(from);
        net.expect(to, "30: <t> {} 'yyy' | 32: <t> 0002 {} 'yyy'");
        assert_eq!(net.count(|counters| counters.dropped_too_large.get()), 2);
        assert_eq!(
            net.judge(0).take("dropped"),
            [
                format!("dropped to t '{}' q0 id=0 token=0 TooLarge", "x".repeat(100)),
                format!("dropped to t '{}' q1 id=0 token=0 TooLarge", "x".repeat(100)),
            ]
        );
    });
}

/// A panic ends the receiver's connection, whoever was delivering; the message is dropped, and what waits behind it stays.
#[test]
fn a_panic_ends_the_receivers_connection() {
    for version in VERSIONS {
        scenario_with(&judged(1), |net| {
            let (from, other) = (net.client(version, "from"), net.client(version, "other"));
            net.subscribe(other, "#", 1);
            let to = net.durable(version, "to", CONNACK);
            net.subscribe(to, "#", 1);
            answers(net, 0, |seen| {
                assert!(seen.client != "to" || seen.message.payload != b"boom", "as asked");
                Ok(DeliverVerdict::Send)
            });
            net.send(from, "32: <t> 0001 [{}] 'a' | 32: <t> 0002 [{}] 'boom'");
            net.send(from, "32: <t> 0003 [{}] 'b'");
            net.take(from);
            let v5 = "32: <t> 0001 {} 'a' | E0: 83";
            net.expect_closed(to, if version == V5 { v5 } else { "32: <t> 0001 'a'" });
            net.expect(other, "32: <t> 0001 [{}] 'a' | 32: <t> 0002 [{}] 'boom' | 32: <t> 0003 [{}] 'b'");
            assert!(net.script().take("disconnect").contains(&"disconnect to HandlerFailed 83".to_owned()));
            let to = net.open(version);
            net.send(to, &connect_packet(version, "00", 0, "11 00000E10", "to"));
            let resumed = super::net::resumed(version);
            net.expect(to, &format!("{resumed} | 3A: <t> 0001 [{{}}] 'a' | 32: <t> 0002 [{{}}] 'b'"));
        });
    }
}

/// Where everybody's handler fails on everybody's will, connections end one after the other.
#[test]
fn panics_that_wills_set_off_end_one_after_the_other() {
    scenario_with(&judged(1), |net| {
        let mut clients = Vec::new();
        for number in 0..20 {
            let client = net.join(V5, &format!("10: <MQTT> 05 06 0000 {{}} <c{number}> {{}} <will> <w>"), CONNACK);
            net.subscribe(client, "#", 0);
            clients.push(client);
        }
        answers(net, 0, |_| panic!("as asked"));
        let from = net.v5("from");
        net.send(from, "30: <t> {} 'x'");
        for client in clients {
            net.expect_closed(client, "E0: 83");
        }
        assert!(net.is_connected(from));
    });
}

/// A plugin's own publishes do not come to its own `handle_deliver`, and two that answer each other come to an end.
#[test]
fn plugins_that_publish_in_deliver_come_to_an_end() {
    scenario_with(&judged(2), |net| {
        let to = net.v5("to");
        net.subscribe(to, "#", 0);
        for judge in 0..2 {
            let host = net.judge(judge).host();
            answers(net, judge, move |seen| {
                let number: u32 = String::from_utf8_lossy(&seen.message.payload).parse()?;
                // The last one is refused.
                let _ = host.publish(&Message::new("t", (number + 1).to_string()));
                Ok(DeliverVerdict::Send)
            });
        }
        let from = net.v5("from");
        net.send(from, "30: <t> {} '0'");
        let got = String::from_utf8_lossy(&net.take(to)).matches('t').count();
        // Both answer the client's message, and each of the other's from then on: 1 + 2 for each of 8 hops.
        assert_eq!(got, 1 + 2 * 8);
        let lines = [net.judge(0).take("deliver"), net.judge(1).take("deliver")];
        assert!(lines[0].iter().all(|line| !line.contains("Plugin(\"first\")")), "{:?}", lines[0]);
        assert!(lines[1].iter().all(|line| !line.contains("Plugin(\"second\")")), "{:?}", lines[1]);
        assert_eq!(lines.map(|lines| lines.len()), [9, 9]);
    });
}

#[test]
fn what_a_plugin_sends_in_handle_info_is_its_own() {
    scenario_with(&judged(2), |net| {
        let to = net.v5("to");
        net.judge(0).info = Some(Box::new(|()| {
            let message = |qos| Message::new("t", "x").qos(qos).token(5);
            vec![InfoAction::Publish(message(QoS::AtMostOnce)), InfoAction::Publish(message(QoS::ExactlyOnce))]
        }));
        let host = net.judge(0).host();
        host.send_info(plugin_api::InfoTarget::Client("to"), "k", b"", None).unwrap();
        net.settle();
        net.expect(to, "30: <t> {} 'x' | 34: <t> 0001 {} 'x'");
        assert_eq!(net.judge(0).take("deliver"), [""; 0]);
        assert_eq!(net.judge(1).take("deliver").len(), 2);
        // The token comes back with PUBCOMP, to the plugin that gave it.
        net.send(to, "50: 0001");
        net.expect(to, "62: 0001");
        net.send(to, "70: 0001");
        assert_eq!(net.judge(0).take("puback"), ["puback Pubcomp 1 00 token=5"]);
        assert_eq!(net.judge(1).take("puback"), ["puback Pubcomp 1 00 token=0"]);
    });
}

/// Decides on deliveries, and has the states of connections made on the pool, which takes until the gate is open.
struct Slow;

static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

#[handler]
impl Handler for Slow {
    type Connection = ();

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {
        let mut is_open = super::net::lock(&GATE.0);
        while !*is_open {
            is_open = GATE.1.wait(is_open).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn handle_deliver(&self, _: &mut (), _: &Deliver<'_>) -> Result<DeliverVerdict, Error> {
        Ok(DeliverVerdict::Send)
    }

    #[blocking]
    fn handle_disconnect(&self, _: &mut (), _: &DisconnectReason<'_>) {}
}

pub(super) fn slow(services: &Services) -> Plugin {
    Plugin::from_static::<Slow>("slow", "1.0.0", "{}", services).expect("it blocks only at the end")
}

/// A message waits while the state that decides on it is with the pool, and goes on by itself when it is back.
#[test]
fn a_delivery_waits_for_a_state_that_the_pool_has() {
    scenario_with(&Setup { slow: true, ..Setup::default() }, |net| {
        *super::net::lock(&GATE.0) = false;
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "t", 1);
        net.send(from, "32: <t> 0001 {} 'x'");
        net.take(from);
        net.expect(to, "");
        *super::net::lock(&GATE.0) = true;
        GATE.1.notify_all();
        net.shared.chain.plugins().iter().for_each(|plugin| plugin.drain_pool());
        // Nothing else has the client looked at: the time to connect is longer.
        net.advance(20);
        net.expect(to, "32: <t> 0001 {} 'x'");
    });
}
