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
