//! What holds for the clients of one listener: here which plugins decide about them.

use std::sync::Arc;
use std::time::Duration;

use plugin_api::{PublishVerdict, ReasonCode, SubscribeVerdict};

use super::net::connect_packet;
use super::*;
use crate::core::ListenerProfile;
use crate::limits::Limits;
use crate::plugin::Flip;

/// Another listener, with the same plugins but for the first one: the judges are left.
fn without_the_first(net: &Net) -> Arc<ListenerProfile> {
    let plugins = net.shared.chain.plugins();
    let names: Vec<String> = plugins.iter().skip(1).map(|plugin| plugin.name().to_owned()).collect();
    let mut profile = ListenerProfile::new("there", Limits::default());
    profile.plugins = net.shared.chain.named(&names).expect("they are loaded");
    Arc::new(profile)
}

/// Clients of each listener have their plugins asked, and no others: about what they send, about what they get, and when they
/// leave; a message from one to the other is put to the plugins of both.
#[test]
fn each_listener_has_its_plugins() {
    scenario_with(&Setup { judges: 1, ..Setup::default() }, |net| {
        net.script().publish = Some(Box::new(|_| Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED))));
        let here = net.v5("here");
        net.profile = without_the_first(net);
        let there = net.v5("there");
        assert_eq!(net.script().live, 1, "of the first plugin");
        net.subscribe(here, "#", 1);
        net.send(here, "32: <t> 0001 {} 'x'");
        net.expect(here, "40: 0001 87");
        net.send(there, "32: <t> 0001 {} 'y'");
        net.expect(there, "40: 0001");
        net.expect(here, "32: <t> 0001 {} 'y'");
        net.send(here, "40: 0001");
        let asked = std::mem::take(&mut net.script().calls);
        assert!(asked.iter().any(|line| line.starts_with("publish here")), "{asked:?}");
        assert!(!asked.iter().any(|line| line.contains("there")), "{asked:?}");
        net.send(there, "E0:");
        net.expect_closed(there, "");
        assert_eq!(net.script().take("disconnect"), [""; 0]);
    });
}

/// A session has at another listener what that one's plugins allow, whoever has allowed it before: a name that is free there
/// lets nobody have what belongs to another listener's client.
#[test]
fn a_session_at_another_listener_has_what_its_plugins_allow() {
    scenario_with(&Setup { judges: 1, ..Setup::default() }, |net| {
        let (here, there) = (Arc::clone(&net.profile), without_the_first(net));
        let from = net.v5("from");
        net.profile = Arc::clone(&there);
        let client = net.durable(V5, "c", CONNACK);
        net.subscribe(client, "t", 1);
        net.send(client, "E0:");
        let connect = connect_packet(V5, "00", 0, "11 00000E10", "c");
        let client = net.join(V5, &connect, CONNACK_RESUMED);
        net.send(client, "E0:");
        net.send(from, "32: <t> 0001 {} 'x'");
        net.take(from);
        let refuse = |_: &_| Ok(SubscribeVerdict::Codes(vec![ReasonCode::NOT_AUTHORIZED]));
        net.script().subscribe = Some(Box::new(refuse));
        net.profile = here;
        net.script().calls.clear();
        let client = net.join(V5, &connect, CONNACK_RESUMED);
        assert_eq!(net.script().take("subscribe"), ["subscribe c =t:01!"]);
        net.send(from, "32: <t> 0002 {} 'y'");
        net.expect(from, "40: 0002 10");
        net.expect(client, "");
    });
}

/// Another version of a plugin has nothing to do with connections that the plugin does not decide about.
#[test]
fn a_swap_leaves_those_alone_that_a_plugin_does_not_decide_about() {
    scenario_with(&Setup { judges: 1, ..Setup::default() }, |net| {
        net.profile = without_the_first(net);
        let there = net.v5("there");
        for how in [(Duration::ZERO, 0), (Duration::from_secs(3600), 1)] {
            let how = Flip { per_mille: None, probation: how.0, budget: how.1 };
            net.flip("2.0.0", &how, |script| script.publish = Some(Box::new(|_| panic!("it is not asked"))));
            net.settle();
            net.send(there, "32: <t> 0001 {} 'x'");
            net.expect(there, "40: 0001 10");
            assert_eq!(net.script().calls, [""; 0]);
            assert_eq!(net.script().live, 0);
        }
    });
}

/// A listener that has other bounds than the server.
fn with_limits(change: impl Fn(&mut Limits)) -> Arc<ListenerProfile> {
    let mut limits = Limits::default();
    change(&mut limits);
    Arc::new(ListenerProfile::new("bounded", limits))
}

/// Bounds of a listener hold for those who have come through it, and for nobody else.
#[test]
fn each_listener_has_its_bounds() {
    let bounded = || {
        with_limits(|limits| {
            limits.packet_bytes_max = 64;
            limits.receive_maximum = 1;
            limits.topic_alias_max = 0;
            limits.maximum_qos = plugin_api::QoS::AtLeastOnce;
            limits.retain_available = false;
            limits.subscriptions_max = 1;
            limits.filters_a_packet_max = 2;
            limits.wildcard_subscriptions_available = false;
            limits.keep_alive_secs_max = 10;
        })
    };
    let connack = "20: 00 00 {21 0001 24 01 25 00 27 00000040 28 00 13 000A}";
    scenario(|net| {
        let free = net.v5("free");
        net.subscribe(free, "#", 2);
        net.profile = bounded();
        let join = |net: &mut Net, name: &str| {
            let client = net.open(V5);
            net.send(client, &connect_packet(V5, "02", 0, "", name));
            net.expect(client, connack);
            client
        };
        let bound = join(net, "bound");
        net.send(bound, "82: 0001 {} <a> 02 <b> 00");
        net.expect(bound, "90: 0001 {} 01 97");
        for (packet, end) in [
            ("30: <t> {} '0123456789012345678901234567890123456789012345678901234567890123456789'", "E0: 95"),
            ("34: <t> 0001 {} 'x'", "E0: 9B"),
            ("31: <t> {} 'x'", "E0: 9A"),
            ("30: <t> {23 0001} 'x'", "E0: 94"),
            ("82: 0001 {} <#> 00", "E0: A2"),
            ("82: 0001 {} <a> 00 <b> 00 <c> 00", "E0: 97"),
        ] {
            let client = join(net, "ends");
            net.send(client, packet);
            net.expect_closed(client, end);
        }
        net.send(
            free,
            "35: <t> 0001 {23 0001} '0123456789012345678901234567890123456789012345678901234567890123' | 62: 0001",
        );
        assert!(net.take(free).len() > 64);
        net.expect(bound, "");
    });
}

/// Connections and CONNECT packets are counted for the listener, beside the server's own bounds.
#[test]
fn listeners_count_what_comes_through_them() {
    scenario_with(&Setup::limits(|limits| limits.connections_max = 3), |net| {
        let free = Arc::clone(&net.profile);
        net.profile = with_limits(|limits| {
            limits.connections_max = 1;
            limits.connections_per_address_max = 1;
        });
        let first = net.v5("first");
        assert_eq!(net.try_open(V5), None, "the listener has one");
        let bounded = std::mem::replace(&mut net.profile, free);
        let second = net.v5("second");
        net.v5("third");
        assert_eq!(net.try_open(V5), None, "the server has three");
        net.lose(first);
        net.profile = bounded;
        let again = net.v5("again");
        net.lose(second);
        assert_eq!(net.try_open(V5), None, "the listener has one");
        net.lose(again);
        net.v5("at last");
        assert_eq!(net.count(|counters| counters.connections_refused.get()), 3);
    });
    scenario(|net| {
        let free = Arc::clone(&net.profile);
        net.profile = with_limits(|limits| limits.connect_rate_max = 1);
        net.v5("first");
        let client = net.open(V5);
        net.send(client, &connect_packet(V5, "02", 0, "", "second"));
        net.expect_closed(client, "20: 00 9F {}");
        net.profile = free;
        net.v5("third");
    });
}

/// [MQTT-3.1.4-2] Where none of a listener's plugins has an opinion about who may connect, others are of no use.
#[test]
fn a_plugin_of_another_listener_lets_nobody_in() {
    scenario_with(&Setup { peer: "192.0.2.1:1", ..Setup::default() }, |net| {
        net.v5("c");
        net.profile = without_the_first(net);
        let client = net.open(V5);
        net.send(client, &connect_packet(V5, "02", 0, "", "d"));
        net.expect_closed(client, "20: 00 87 {}");
        assert!(!net.shared.chain.decides_on_connections(net.profile.plugins));
    });
}
