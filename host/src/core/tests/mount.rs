//! Mount points: clients that see the topics below a prefix, beside others that see all of them.

use std::sync::Arc;

use plugin_api::{DeliverVerdict, PublishVerdict, SubscribeVerdict};

use super::deferred::defer;
use super::net::connect_packet;
use super::*;
use crate::core::ListenerProfile;

/// The listener with a mount point, and the one without.
fn listeners(net: &Net) -> (Arc<ListenerProfile>, Arc<ListenerProfile>) {
    let mut below = net.profile.clone();
    Arc::make_mut(&mut below).mount = Some("site/7".parse().expect("two levels"));
    (below, Arc::clone(&net.profile))
}

/// A client that sees the topics below `site/7`, and one that sees all.
fn two(net: &mut Net, version: ProtocolVersion) -> (usize, usize) {
    let (below, all) = listeners(net);
    net.profile = below;
    let inside = net.client(version, "inside");
    net.profile = all;
    (inside, net.client(version, "outside"))
}

/// Everything but the client itself goes by the real names: other clients, and handlers.
#[test]
fn topics_have_the_prefix_everywhere_but_at_the_client() {
    for version in VERSIONS {
        scenario(|net| {
            let (inside, outside) = two(net, version);
            net.profile = listeners(net).0;
            let from = net.client(version, "from");
            net.subscribe(inside, "a/+", 1);
            assert_eq!(net.script().take("subscribe"), ["subscribe inside =site/7/a/+:01"]);
            net.subscribe(outside, "site/#", 0);
            let rows = [
                ("30: <a/b> [{}] 'x'", "", "30: <a/b> [{}] 'x'"),
                ("32: <a/b> 0001 [{}] 'x'", "40: 0001", "32: <a/b> 0001 [{}] 'x'"),
                ("34: <a/b> 0001 [{}] 'x' | 62: 0001", "50: 0001 | 70: 0001", "32: <a/b> 0002 [{}] 'x'"),
            ];
            for (sent, answered, got) in rows {
                net.send(from, sent);
                net.expect(from, answered);
                net.expect(inside, got);
                net.expect(outside, "30: <site/7/a/b> [{}] 'x'");
                let asked = net.script().take("publish");
                assert!(asked[0].starts_with("publish from site/7/a/b q"), "{asked:?}");
            }
            net.send(outside, "30: <site/7/a/c> [{}] 'y' | 30: <a/c> [{}] 'n' | 30: <site/7> [{}] 'n'");
            net.expect(inside, "30: <a/c> [{}] 'y'");
            net.send(inside, "A2: 0002 [{}] <a/+> <a/c>");
            net.expect(inside, "B0: 0002 [{} 00 11]");
            assert_eq!(net.script().take("unsubscribe"), ["unsubscribe inside site/7/a/+ site/7/a/c"]);
            net.send(outside, "30: <site/7/a/c> [{}] 'z'");
            net.expect(inside, "");
        });
    }
}

/// Of each kind of filter, those below are matched, and no others; the server's own topics are not below.
#[test]
fn filters_match_what_is_below() {
    let rows = [
        ("#", "site/7/x", Some("x")),
        ("#", "site/7", None),
        ("#", "site/77/x", None),
        ("#", "x", None),
        ("+/x", "site/7/a/x", Some("a/x")),
        ("$SYS/#", "site/7/$SYS/x", Some("$SYS/x")),
        ("$share/g/x", "site/7/x", Some("x")),
        ("/", "site/7//", Some("/")),
    ];
    for (filter, topic, seen) in rows {
        scenario(|net| {
            let (inside, outside) = two(net, V5);
            net.subscribe(inside, filter, 0);
            net.send(outside, &format!("30: <{topic}> {{}} 'm'"));
            net.expect(inside, &seen.map_or_else(String::new, |seen| format!("30: <{seen}> {{}} 'm'")));
        });
    }
    scenario(|net| {
        let (inside, _) = two(net, V5);
        // One that is none is still told so.
        net.send(inside, "82: 0001 {} <$share/g> 00 <a#> 00 <x> 00");
        net.expect(inside, "90: 0001 {} 8F 8F 00");
        // Nobody else is kept from a name that others may not use.
        net.send(inside, "32: <$SYS/x> 0001 {} 'x'");
        net.expect(inside, "40: 0001 10");
    });
}

/// A ShareName is one for all: members inside and outside are one group.
#[test]
fn groups_have_members_inside_and_outside() {
    scenario(|net| {
        let (inside, outside) = two(net, V5);
        net.subscribe(inside, "$share/g/t", 0);
        net.subscribe(outside, "$share/g/site/7/t", 0);
        let from = net.v5("from");
        net.send(from, "30: <site/7/t> {} '1' | 30: <site/7/t> {} '2'");
        let got = [net.take(inside).len(), net.take(outside).len()];
        assert_eq!(got, [7, 14], "one each");
    });
}

/// What is retained, wills, and Topic Aliases of the client.
#[test]
fn retained_messages_wills_and_aliases_are_below() {
    scenario(|net| {
        let (inside, outside) = two(net, V5);
        net.subscribe(outside, "#", 0);
        net.send(inside, "31: <r> {} 'kept' | 30: <long/topic> {23 0001} '1' | 30: <> {23 0001} '2'");
        net.expect(
            outside,
            "30: <site/7/r> {} 'kept' | 30: <site/7/long/topic> {} '1' | 30: <site/7/long/topic> {} '2'",
        );
        net.send(outside, "31: <elsewhere> {} 'no'");
        net.take(outside);
        net.send(inside, "82: 0001 {} <#> 00");
        net.expect(inside, "90: 0001 {} 00 | 31: <r> {} 'kept'");
        let (below, all) = listeners(net);
        net.profile = below;
        let leaving = net.join(V5, "10: <MQTT> 05 06 0000 {} <leaving> {} <w> <gone>", CONNACK);
        net.profile = all;
        let asked = net.script().take("connect");
        assert!(asked.iter().any(|line| line.ends_with("will=site/7/w")), "{asked:?}");
        net.lose(leaving);
        net.expect(outside, "30: <site/7/w> {} 'gone'");
        net.expect(inside, "30: <w> {} 'gone'");
    });
}

/// Among several receivers of one message, in lanes and by themselves, each gets the name that it knows; the client that is
/// sent the packets of a run as well.
#[test]
fn others_share_their_packets_without_it() {
    for (version, qos) in [(V3_1_1, 0), (V5, 0), (V5, 1)] {
        scenario(|net| {
            let (below, all) = listeners(net);
            let receivers: Vec<(usize, &str)> = (0..6)
                .map(|number| {
                    let (profile, filter, topic) =
                        if number % 3 == 0 { (&below, "t", "t") } else { (&all, "#", "site/7/t") };
                    net.profile = Arc::clone(profile);
                    let client = net.client(version, &format!("c{number}"));
                    net.subscribe(client, filter, qos);
                    (client, topic)
                })
                .collect();
            let mut last = 0;
            for (profile, topic) in [(&below, "t"), (&all, "site/7/t")] {
                net.profile = Arc::clone(profile);
                let from = net.client(version, "from");
                for _ in 0..3 {
                    let packets = |topic: &str, first: u8| {
                        let one = |id| match qos {
                            0 => format!("30: <{topic}> [{{}}] 'm'"),
                            _ => format!("32: <{topic}> {id:04X} [{{}}] 'm'"),
                        };
                        (first..first + 3).map(one).collect::<Vec<_>>().join(" | ")
                    };
                    net.send(from, &packets(topic, 1));
                    net.take(from);
                    for (client, topic) in &receivers {
                        net.expect(*client, &packets(topic, last + 1));
                    }
                    last += 3;
                }
                net.send(from, "E0:");
            }
        });
    }
}

/// A session that goes from one listener to another takes its subscriptions along, by their real names; what the client does
/// not see there is dropped, and nothing of it is left in flight.
#[test]
fn a_session_moves_between_listeners() {
    scenario(|net| {
        let (below, all) = listeners(net);
        let from = net.v5("from");
        let client = net.durable(V5, "c", CONNACK);
        net.subscribe(client, "#", 1);
        net.send(client, "E0:");
        net.send(from, "32: <site/7/t> 0001 {} '1' | 32: <t> 0002 {} '2' | 32: <site/7/u> 0003 {} '3'");
        net.take(from);
        net.profile = Arc::clone(&below);
        let connect = connect_packet(V5, "00", 0, "11 00000E10", "c");
        let client =
            net.join(V5, &connect, &format!("{CONNACK_RESUMED} | {}", "32: <t> 0001 {} '1' | 32: <u> 0003 {} '3'"));
        assert_eq!(net.count(|counters| counters.dropped_outside_mount.get()), 1);
        // What was sent and not acknowledged is sent again, by the name that the next listener has.
        net.lose(client);
        net.profile = Arc::clone(&all);
        let client = net.join(
            V5,
            &connect,
            &format!("{CONNACK_RESUMED} | {}", "3A: <site/7/t> 0001 {} '1' | 3A: <site/7/u> 0003 {} '3'"),
        );
        net.send(from, "32: <t> 0004 {} '4'");
        net.take(from);
        net.expect(client, "32: <t> 0004 {} '4'");
        net.lose(client);
        net.profile = below;
        let client =
            net.join(V5, &connect, &format!("{CONNACK_RESUMED} | {}", "3A: <t> 0001 {} '1' | 3A: <u> 0003 {} '3'"));
        net.send(client, "40: 0001 | 40: 0003");
        assert_eq!(net.session("c").expect("it is there").in_flight.len(), 0);
    });
}

/// Answers that come later go on with the real names.
#[test]
fn answers_come_later() {
    scenario(|net| {
        let (inside, outside) = two(net, V5);
        let held = defer!(net, subscribe, SubscribeVerdict);
        net.send(inside, "82: 0001 {} <$share/g/t> 00 <t> 00");
        held.answer(net, SubscribeVerdict::Grant).expect("it waits");
        net.expect(inside, "90: 0001 {} 00 00");
        net.script().subscribe = None;
        net.subscribe(outside, "site/7/t", 1);
        let held = defer!(net, publish, PublishVerdict);
        net.send(inside, "32: <t> 0001 {} 'x'");
        net.expect(outside, "");
        held.answer(net, PublishVerdict::Forward).expect("it waits");
        net.expect(outside, "32: <site/7/t> 0001 {} 'x'");
        net.script().publish = None;
    });
}

/// Handlers of deliveries see the real names too, and what they change is shown without the prefix, or not at all.
#[test]
fn handlers_decide_on_deliveries_by_the_real_names() {
    scenario_with(&Setup { judges: 1, ..Setup::default() }, |net| {
        let (inside, outside) = two(net, V5);
        net.subscribe(inside, "#", 1);
        for (topic, got) in [("site/7/other", "32: <other> 0001 {} 'x'"), ("elsewhere", "")] {
            net.judge(0).deliver =
                Some(Box::new(move |asked| Ok(DeliverVerdict::SendChanged(asked.message.clone().topic(topic)))));
            net.send(outside, "32: <site/7/t> 0001 {} 'x'");
            net.take(outside);
            net.expect(inside, got);
            let asked = net.judge(0).take("deliver");
            assert!(asked[0].contains("site/7/t"), "{asked:?}");
        }
    });
}
