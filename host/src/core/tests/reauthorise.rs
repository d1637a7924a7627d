//! Subscriptions that are asked about again.

use plugin_api::{HostError, InfoTarget, Message, NewSubscription, QoS, ReasonCode, Reauthorised, SubscribeVerdict};

use super::services::ask;
use super::*;

/// The handler refuses these filters from now on, and grants QoS 0 to those that begin with `low`.
fn refuse(net: &Net, filters: &'static [&'static str]) {
    net.script().subscribe = Some(Box::new(move |asked| {
        let codes = asked.line.split(' ').skip(2).map(|one| {
            let (filter, code) = one.split_once('=').unwrap().1.rsplit_once(':').unwrap();
            if filters.contains(&filter) {
                ReasonCode::NOT_AUTHORIZED
            } else if filter.starts_with("low") {
                ReasonCode(0)
            } else {
                ReasonCode(u8::from_str_radix(code.trim_end_matches('!'), 16).unwrap())
            }
        });
        Ok(SubscribeVerdict::Codes(codes.collect()))
    }));
}

fn reauthorise(net: &mut Net, target: InfoTarget<'static>) -> (u64, u64, u64) {
    let Reauthorised { sessions, removed, dropped, .. } =
        ask(net, |host| host.reauthorise(target)).expect("there is somebody");
    (sessions, removed, dropped)
}

/// What is refused is removed, what is granted less is lowered, and the rest stays. Everybody else's too.
#[test]
fn live_clients() {
    for version in VERSIONS {
        scenario(|net| {
            let (a, b, publisher) = (net.client(version, "a"), net.client(version, "b"), net.v5("p"));
            for filter in ["keep", "lower", "no/#", "yes/+"] {
                net.subscribe(a, filter, 2);
            }
            net.subscribe(b, "no/#", 1);
            net.script().calls.clear();
            refuse(net, &["no/#"]);
            assert_eq!(reauthorise(net, InfoTarget::Client("a")), (1, 1, 0));
            let asked = net.script().take("subscribe");
            assert_eq!(asked, ["subscribe a =keep:02! =lower:02!", "subscribe a =no/#:02! =yes/+:02!"]);
            for (id, topic) in ["no/1", "lower", "yes/1"].into_iter().enumerate() {
                net.send(publisher, &format!("32: <{topic}> {:04X} {{}} 'x'", id + 1));
            }
            net.expect(a, "30: <lower> [{}] 'x' | 32: <yes/1> 0001 [{}] 'x'");
            net.expect(b, "32: <no/1> 0001 [{}] 'x'");
            assert_eq!(reauthorise(net, InfoTarget::All), (3, 1, 0));
            net.take(publisher);
            net.send(publisher, "30: <no/1> {} 'x'");
            net.expect(b, "");
            let nobody = ask(net, |host| host.reauthorise(InfoTarget::Client("nobody")));
            assert_eq!(nobody, Err(HostError::NotFound));
            assert_eq!(ask(net, |host| host.reauthorise(InfoTarget::Plugin)), Err(HostError::Invalid));
        });
    }
}

/// What waits because of a subscription that is gone is dropped; what another one matches stays, what is in flight is
/// completed, and what was sent to this very client reaches it.
#[test]
fn queued_messages() {
    scenario(|net| {
        let a = net.join(V5, &super::net::connect_packet(V5, "02", 0, "21 0001", "a"), CONNACK);
        let publisher = net.v5("p");
        net.subscribe(a, "no/#", 1);
        net.subscribe(a, "+/both", 1);
        for (id, topic) in ["no/0", "no/1", "no/both", "x/both", "no/1"].into_iter().enumerate() {
            net.send(publisher, &format!("32: <{topic}> {:04X} {{}} 'x'", id + 1));
        }
        let message = plugin_api::InfoAction::Publish(Message::new("no/sent", "x").qos(QoS::AtLeastOnce));
        net.script().info = Some(Box::new(move |_| Ok(vec![message.clone()])));
        let host = net.script().host();
        host.send_info(InfoTarget::Client("a"), "send", b"", None).unwrap();
        net.settle();
        refuse(net, &["no/#"]);
        assert_eq!(reauthorise(net, InfoTarget::All), (2, 1, 2));
        assert_eq!(net.count(|counters| counters.dropped_unauthorised.get()), 2);
        net.expect(a, "32: <no/0> 0001 {} 'x'");
        net.send(a, "40: 0001");
        net.expect(a, "32: <no/both> 0002 {} 'x'");
        net.send(a, "40: 0002");
        net.expect(a, "32: <x/both> 0003 {} 'x'");
        net.send(a, "40: 0003");
        net.expect(a, "32: <no/sent> 0004 {} 'x'");
        net.send(a, "40: 0004");
        net.expect(a, "");
        assert_eq!(net.session("a").expect("connected").queue.bytes(), 0);
    });
}

/// What has come by subscriptions that the client has ended itself goes the same way: nobody can be asked about it any more. What
/// is in flight is completed [MQTT-3.10.4-3], and what another subscription matches stays.
#[test]
fn messages_of_subscriptions_that_have_ended() {
    for version in VERSIONS {
        for is_back in [false, true] {
            let setup = Setup::limits(|limits| limits.in_flight_max = 1);
            scenario_with(&setup, |net| {
                let (a, publisher) = (net.durable(version, "a", CONNACK), net.v5("p"));
                net.subscribe(a, "no/#", 1);
                net.subscribe(a, "no/both", 1);
                for (id, topic) in ["no/0", "no/1", "no/both"].into_iter().enumerate() {
                    net.send(publisher, &format!("32: <{topic}> {:04X} {{}} 'x'", id + 1));
                }
                net.expect(a, "32: <no/0> 0001 [{}] 'x'");
                net.send(a, "A2: 0009 [{}] <no/#>");
                net.take(a);
                let a = if is_back {
                    net.lose(a);
                    let connack = super::net::resumed(version);
                    net.durable(version, "a", &format!("{connack} | 3A: <no/0> 0001 [{{}}] 'x'"))
                } else {
                    assert_eq!(reauthorise(net, InfoTarget::Client("a")), (1, 0, 1));
                    a
                };
                assert_eq!(net.count(|counters| counters.dropped_unauthorised.get()), 1);
                net.send(a, "40: 0001");
                net.expect(a, "32: <no/both> 0002 [{}] 'x'");
            });
        }
    }
}

/// Nor does a failure in the middle keep them.
#[test]
fn messages_of_subscriptions_that_were_removed_before_a_failure() {
    scenario(|net| {
        let (a, publisher) = (net.durable(V5, "a", CONNACK), net.v5("p"));
        for filter in ["no/1", "no/2", "yes"] {
            net.subscribe(a, filter, 1);
        }
        net.lose(a);
        net.send(publisher, "32: <no/1> 0001 {} 'x' | 32: <yes> 0002 {} 'x'");
        // Two are asked about at once.
        net.script().subscribe = Some(Box::new(|asked| {
            assert!(asked.line.contains("no/"), "as scripted");
            Ok(SubscribeVerdict::Codes(vec![ReasonCode::NOT_AUTHORIZED; 2]))
        }));
        let a = net.open(V5);
        net.send(a, &super::net::connect_packet(V5, "00", 0, "11 00000E10", "a"));
        net.expect_closed(a, &format!("{CONNACK_RESUMED} | E0: 83"));
        net.script().subscribe = None;
        net.durable(V5, "a", &format!("{CONNACK_RESUMED} | 32: <yes> 0001 {{}} 'x'"));
    });
}

/// A member that may not have them any more leaves its messages to the others of its group.
#[test]
fn shared_subscriptions() {
    scenario(|net| {
        let join = |net: &mut Net, name: &str| {
            net.join(V5, &super::net::connect_packet(V5, "02", 0, "21 0001", name), CONNACK)
        };
        let (a, publisher) = (join(net, "a"), net.v5("p"));
        net.subscribe(a, "$share/g/t", 1);
        for id in 1..=3 {
            net.send(publisher, &format!("32: <t> {id:04X} {{}} '{id}'"));
        }
        net.expect(a, "32: <t> 0001 {} '1'");
        let b = net.v5("b");
        net.subscribe(b, "$share/g/t", 1);
        net.script().subscribe = Some(Box::new(|asked| {
            let refused = asked.line.starts_with("subscribe a ");
            let code = if refused { ReasonCode::NOT_AUTHORIZED } else { ReasonCode(1) };
            Ok(SubscribeVerdict::Codes(vec![code]))
        }));
        assert_eq!(reauthorise(net, InfoTarget::All), (3, 1, 0));
        net.expect(b, "32: <t> 0001 {} '2' | 32: <t> 0002 {} '3'");
        net.send(a, "40: 0001");
        net.expect(a, "");
        // The last one has nobody to leave them to.
        net.script().subscribe = None;
        net.subscribe(a, "$share/alone/u", 1);
        net.take(publisher);
        for id in 1..=3 {
            net.send(publisher, &format!("32: <u> {id:04X} {{}} '{id}'"));
        }
        net.expect(a, "32: <u> 0002 {} '1'");
        refuse(net, &["u"]);
        assert_eq!(reauthorise(net, InfoTarget::Client("a")), (1, 1, 2));
        net.send(a, "40: 0002");
        net.expect(a, "");
    });
}

/// A session without a connection is asked about when its client is back, before anything is sent to it.
#[test]
fn absent_clients() {
    for version in VERSIONS {
        scenario(|net| {
            let (a, publisher) = (net.durable(version, "a", CONNACK), net.v5("p"));
            net.subscribe(a, "no/#", 1);
            net.subscribe(a, "yes/#", 1);
            net.lose(a);
            net.send(publisher, "32: <no/1> 0001 {} 'x' | 32: <yes/1> 0002 {} 'x'");
            net.script().calls.clear();
            refuse(net, &["no/#"]);
            assert_eq!(reauthorise(net, InfoTarget::All), (2, 0, 0));
            assert_eq!(net.script().take("subscribe"), [""; 0], "there is no connection to ask about");
            let connack = super::net::resumed(version);
            let a = net.durable(version, "a", &format!("{connack} | 32: <yes/1> 0001 [{{}}] 'x'"));
            assert_eq!(net.script().take("subscribe"), ["subscribe a =no/#:01! =yes/#:01!"]);
            assert_eq!(net.session("a").expect("connected").subscriptions.len(), 1);
            net.send(a, "40: 0001");
            net.expect(a, "");
        });
    }
}

/// Who is back may be allowed less than before: its subscriptions are asked about before anything that waits is sent, without
/// anybody asking for it. What has been sent and not acknowledged is sent again [MQTT-4.4.0-1].
#[test]
fn clients_that_are_back() {
    for version in VERSIONS {
        scenario(|net| {
            let (a, publisher) = (net.durable(version, "a", CONNACK), net.v5("p"));
            net.subscribe(a, "no/#", 2);
            net.subscribe(a, "yes/#", 2);
            net.send(publisher, "34: <no/released> 0001 {} 'x' | 62: 0001");
            net.expect(a, "34: <no/released> 0001 [{}] 'x'");
            net.send(a, "50: 0001");
            net.expect(a, "62: 0001");
            net.send(publisher, "32: <no/sent> 0002 {} 'x'");
            net.expect(a, "32: <no/sent> 0002 [{}] 'x'");
            net.lose(a);
            net.send(publisher, "32: <no/1> 0003 {} 'x' | 32: <yes/1> 0004 {} 'x'");
            net.script().calls.clear();
            refuse(net, &["no/#"]);
            let again = "62: 0001 | 3A: <no/sent> 0002 [{}] 'x'";
            let connack = super::net::resumed(version);
            let a = net.durable(version, "a", &format!("{connack} | {again} | 32: <yes/1> 0003 [{{}}] 'x'"));
            assert_eq!(net.script().take("subscribe"), ["subscribe a =no/#:02! =yes/#:02!"]);
            assert_eq!(net.count(|counters| counters.dropped_unauthorised.get()), 1);
            net.take(publisher);
            net.send(publisher, "32: <no/2> 0005 {} 'x'");
            net.expect(a, "");
        });
    }
}

/// A handler that cannot answer, or that disconnects the client, leaves nothing to it: it is asked again when it is back.
#[test]
fn failures_close() {
    scenario(|net| {
        let (a, publisher) = (net.durable(V5, "a", CONNACK), net.v5("p"));
        net.subscribe(a, "t", 1);
        net.script().subscribe = Some(Box::new(|_| panic!("as scripted")));
        assert_eq!(reauthorise(net, InfoTarget::Client("a")), (1, 0, 0));
        net.expect_closed(a, "E0: 83");
        net.send(publisher, "32: <t> 0001 {} 'x'");
        let a = net.open(V5);
        net.send(a, &super::net::connect_packet(V5, "00", 0, "11 00000E10", "a"));
        net.expect_closed(a, &format!("{CONNACK_RESUMED} | E0: 83"));
        net.script().subscribe = Some(Box::new(|_| {
            Ok(SubscribeVerdict::Disconnect(plugin_api::Disconnect::new(ReasonCode::NOT_AUTHORIZED)))
        }));
        let a = net.open(V5);
        net.send(a, &super::net::connect_packet(V5, "00", 0, "11 00000E10", "a"));
        net.expect_closed(a, &format!("{CONNACK_RESUMED} | E0: 87"));
        // An error refuses.
        net.script().subscribe = Some(Box::new(|_| Err("no idea".into())));
        let a = net.durable(V5, "a", CONNACK_RESUMED);
        net.expect(a, "");
        assert_eq!(net.session("a").expect("connected").subscriptions.len(), 0);
    });
}

/// Where the host answers in the place of a plugin, as that is in quarantine, nobody has refused anything: the client is asked
/// about when the plugin is.
#[test]
fn a_plugin_in_quarantine_takes_nothing_away() {
    scenario_with(&Setup::limits(|limits| limits.quarantine_panics = 1), |net| {
        let (a, publisher) = (net.durable(V5, "a", CONNACK), net.v5("p"));
        net.subscribe(a, "t", 1);
        net.script().connect = Some(Box::new(|_| panic!("as scripted")));
        let victim = net.open(V5);
        net.send(victim, &super::net::connect_packet(V5, "02", 0, "", "victim"));
        net.take(victim);
        net.script().connect = None;
        assert!(net.shared.chain.plugins()[0].stats().is_quarantined);
        assert_eq!(ask(net, |host| host.reauthorise(InfoTarget::Client("a"))).map(|done| done.removed), Ok(0));
        net.expect_closed(a, "E0: 83");
        assert_eq!(net.session("a").expect("it is kept").subscriptions.len(), 1);
        assert!(net.shared.chain.plugins()[0].end_quarantine());
        net.take(publisher);
        net.send(publisher, "32: <t> 0001 {} 'x'");
        net.durable(V5, "a", &format!("{CONNACK_RESUMED} | 32: <t> 0001 {{}} 'x'"));
    });
}

/// Subscriptions that were made on behalf of a client are asked about as well.
#[test]
fn on_behalf() {
    scenario(|net| {
        net.v5("a");
        let one = NewSubscription::new("no/#", QoS::AtMostOnce);
        assert_eq!(ask(net, |host| host.subscribe(InfoTarget::Client("a"), one)), Ok(QoS::AtMostOnce));
        refuse(net, &["no/#"]);
        assert_eq!(reauthorise(net, InfoTarget::Client("a")), (1, 1, 0));
    });
}

/// Who asks faster than the sessions can be gone through is told so.
#[test]
fn passes_that_wait_have_a_bound() {
    scenario(|net| {
        net.v5("c");
        let (sender, answers) = std::sync::mpsc::channel();
        for _ in 0..600 {
            let sender = sender.clone();
            let host = net.script().host();
            let asked = host.reauthorise(InfoTarget::All).then(move |answer| {
                let _ = sender.send(answer.map(|answer| answer.sessions));
            });
            assert_eq!(asked, Ok(()));
        }
        net.settle();
        let answers: Vec<_> = answers.try_iter().collect();
        assert_eq!(answers.len(), 600);
        assert!(answers.iter().all(|answer| matches!(answer, Ok(1) | Err(HostError::Full))));
        assert!(answers.contains(&Ok(1)) && answers.contains(&Err(HostError::Full)));
    });
}
