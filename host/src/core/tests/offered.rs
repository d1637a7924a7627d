//! What a server may choose not to offer: CONNACK announces it, and who asks for it all the same is refused.

use plugin_api::QoS;

use super::net::connect_packet;
use super::*;

#[test]
fn what_is_not_offered_is_announced() {
    let setup = Setup::limits(|limits| {
        limits.maximum_qos = QoS::AtMostOnce;
        limits.retain_available = false;
        limits.wildcard_subscriptions_available = false;
        limits.subscription_identifiers_available = false;
        limits.shared_subscriptions_available = false;
    });
    scenario_with(&setup, |net| {
        let connack = "20: 00 00 {21 0400 24 00 25 00 27 01000000 22 0040 28 00 29 00 2A 00}";
        net.join(V5, &connect_packet(V5, "02", 0, "", "c"), connack);
        net.client(V3_1_1, "d");
    });
}

/// [MQTT-3.2.2-13] [MQTT-3.2.2-14] Section 3.2.2.3.5: DISCONNECT 0x9A. 3.x clients are closed, as Mosquitto does it.
#[test]
fn retained_messages_are_not_available() {
    scenario_with(&Setup::limits(|limits| limits.retain_available = false), |net| {
        let connack = "20: 00 00 [{21 0400 25 00 27 01000000 22 0040}]";
        for version in VERSIONS {
            for publish in ["31: <t> [{}] 'x'", "31: <t> [{}]", "33: <t> 0001 [{}] 'x'", "35: <t> 0001 [{}] 'x'"] {
                let client = net.join(version, &connect_packet(version, "02", 0, "", "c"), connack);
                net.send(client, publish);
                net.expect_closed(client, if version == V5 { "E0: 9A" } else { "" });
                assert!(net.script().take("publish").is_empty());
            }
            // A will: QoS 0, RETAIN, clean.
            net.script().calls.clear();
            let client = net.open(version);
            let name = if version == V3_1 { "MQIsdp" } else { "MQTT" };
            let will = format!("10: <{name}> {:02X} 26 0000 [{{}}] <c> [{{}}] <w> <x>", version as u8);
            net.send(client, &will);
            net.expect_closed(client, if version == V5 { "20: 00 9A {}" } else { "" });
            assert!(net.script().calls.is_empty(), "handlers are not asked about such wills");
        }
    });
}

/// What handlers and plugins retain is delivered, and not retained.
#[test]
fn handlers_cannot_retain_either() {
    scenario_with(&Setup::limits(|limits| limits.retain_available = false), |net| {
        let connect = |name| connect_packet(V5, "02", 0, "", name);
        let connack = "20: 00 00 {21 0400 25 00 27 01000000 22 0040}";
        let (from, to) = (net.join(V5, &connect("from"), connack), net.join(V5, &connect("to"), connack));
        net.subscribe(to, "t", 0);
        net.script().publish = Some(Box::new(|asked| {
            let mut message = asked.message.clone().expect("a message");
            message.retain = true;
            Ok(plugin_api::PublishVerdict::ForwardChanged(message))
        }));
        net.send(from, "30: <t> {} 'x'");
        net.expect(to, "30: <t> {} 'x'");
        let late = net.join(V5, &connect("late"), connack);
        net.subscribe(late, "t", 0);
        net.expect(late, "");
    });
}

/// Sections 3.2.2.3.11 to 3.2.2.3.13: a Protocol Error of 5.0 clients, who were told; a failure for others.
#[test]
fn subscriptions_that_are_not_available() {
    /// What is not offered, how it is announced, what is refused and granted, and the Reason Code.
    type Row =
        (fn(&mut crate::limits::Limits), &'static str, &'static [&'static str], &'static [&'static str], &'static str);
    let rows: [Row; 3] = [
        (
            |limits| limits.wildcard_subscriptions_available = false,
            "28 00",
            &["{} <a> 00 <#> 00", "{} <+/a> 00", "{} <$share/g/a/#> 00"],
            &["{} <a/b> 00", "{0B 01} <$share/g/a> 00"],
            "A2",
        ),
        (
            |limits| limits.subscription_identifiers_available = false,
            "29 00",
            &["{0B 01} <a> 00"],
            &["{} <#> 00", "{} <$share/g/#> 00"],
            "A1",
        ),
        (
            |limits| limits.shared_subscriptions_available = false,
            "2A 00",
            &["{} <$share/g/a> 00", "{} <a> 00 <$share/g/#> 00"],
            &["{} <#> 00", "{0B 01} <$other/g/a> 00"],
            "9E",
        ),
    ];
    for (change, announced, refused, granted, code) in rows {
        scenario_with(&Setup::limits(change), |net| {
            let connack = format!("20: 00 00 {{21 0400 27 01000000 22 0040 {announced}}}");
            for asked in refused {
                let client = net.join(V5, &connect_packet(V5, "02", 0, "", "c"), &connack);
                net.send(client, &format!("82: 0001 {asked}"));
                net.expect_closed(client, &format!("E0: {code}"));
                assert_eq!(net.script().take("subscribe").len(), 0);
            }
            let client = net.join(V5, &connect_packet(V5, "02", 0, "", "c"), &connack);
            for asked in granted {
                net.send(client, &format!("82: 0001 {asked}"));
                net.expect(client, "90: 0001 {} 00");
            }
            // What is malformed is malformed first.
            net.send(client, "82: 0001 {} <a#> 00 <$share/g> 00");
            net.expect(client, "90: 0001 {} 8F 8F");
        });
    }
}

/// [MQTT-3.8.3-2@3.1.1] 3.x clients were told nothing: the other filters of the packet are granted.
#[test]
fn subscriptions_of_3x_that_are_not_available() {
    let setup = Setup::limits(|limits| {
        limits.wildcard_subscriptions_available = false;
        limits.shared_subscriptions_available = false;
    });
    scenario_with(&setup, |net| {
        for version in [V3_1, V3_1_1] {
            let client = net.client(version, "c");
            net.send(client, "82: 0001 <a> 01 <#> 00 <$share/g/a> 00 <b> 02");
            // 3.1 has no failure code.
            net.expect(client, if version == V3_1 { "90: 0001 01 00 00 02" } else { "90: 0001 01 80 80 02" });
            net.send(client, "30: <a> 'x' | 30: <c> 'x'");
            net.expect(client, "30: <a> 'x'");
        }
    });
}

/// Section 3.3.2.3.2: who says that its payload is UTF-8 is taken at its word, if that is asked for.
#[test]
fn payload_format_is_checked() {
    const NOT_UTF8: &str = "C3 28";
    scenario_with(&Setup::limits(|limits| limits.check_payload_format = true), |net| {
        let to = net.v5("to");
        net.subscribe(to, "t", 0);
        let client = net.v5("c");
        // Not UTF-8, and says so; UTF-8, and says so; says nothing.
        net.send(client, &format!("32: <t> 0001 {{01 00}} {NOT_UTF8} | 32: <t> 0002 {{01 01}} C3A9 | 30: <t> {{}} FF"));
        net.expect(client, "40: 0001 | 40: 0002");
        net.expect(to, &format!("30: <t> {{01 00}} {NOT_UTF8} | 30: <t> {{01 01}} C3A9 | 30: <t> {{}} FF"));
        net.script().calls.clear();
        net.send(client, &format!("32: <t> 0003 {{01 01}} {NOT_UTF8} | 34: <t> 0004 {{01 01}} {NOT_UTF8}"));
        net.expect(client, "40: 0003 99 | 50: 0004 99");
        net.send(client, &format!("30: <t> {{01 01}} {NOT_UTF8}"));
        net.expect_closed(client, "E0: 99");
        let client = net.open(V5);
        net.send(client, "10: <MQTT> 05 06 0000 {} <c> {01 01} <w> 0002 C328");
        net.expect_closed(client, "20: 00 99 {}");
        assert!(net.script().take("publish").is_empty(), "handlers are not asked about such messages");
        net.expect(to, "");
        net.join(V5, "10: <MQTT> 05 06 0000 {} <c> {01 01} <w> 0002 C3A9", CONNACK);
        net.join(V5, "10: <MQTT> 05 06 0000 {} <d> {01 00} <w> 0002 C328", CONNACK);
    });
    scenario_in(MODES[0], &Setup::default(), |net| {
        let client = net.v5("c");
        net.send(client, &format!("32: <t> 0001 {{01 01}} {NOT_UTF8}"));
        net.expect(client, "40: 0001 10");
    });
}

/// Longer topics, and topics of more levels, than are allowed: names, filters and wills.
#[test]
fn topics_are_bounded() {
    let setup = Setup::limits(|limits| (limits.topic_bytes_max, limits.topic_levels_max) = (10, 3));
    scenario_with(&setup, |net| {
        for good in ["1234567890", "a/b/c", "//"] {
            let client = net.join(V5, &format!("10: <MQTT> 05 06 0000 {{}} <c> {{}} <{good}> <x>"), CONNACK);
            net.subscribe(client, good, 0);
            net.send(client, &format!("30: <{good}> {{}} 'x'"));
            net.expect(client, &format!("30: <{good}> {{}} 'x'"));
            net.send(client, "E0:");
        }
        for bad in ["12345678901", "a/b/c/d", "///"] {
            for (version, connack) in [(V3_1_1, ""), (V5, "20: 00 90 {}")] {
                let client = net.open(version);
                net.send(client, &format!("10: <MQTT> {:02X} 06 0000 [{{}}] <c> [{{}}] <{bad}> <x>", version as u8));
                net.expect_closed(client, connack);
                let client = net.client(version, "c");
                net.script().calls.clear();
                net.send(client, &format!("82: 0001 [{{}}] <{bad}> 00 <a> 00 <$share/g/{bad}> 00"));
                net.expect(client, if version == V5 { "90: 0001 {} 8F 00 8F" } else { "90: 0001 80 00 80" });
                net.send(
                    client,
                    &format!("30: <{bad}> [{{}}] 'x' | 32: <{bad}> 0001 [{{}}] | 34: <{bad}> 0002 [{{}}]"),
                );
                net.expect(client, "40: 0001 [90] | 50: 0002 [90]");
                assert!(net.script().take("publish").is_empty());
            }
        }
        // A share name is no way around it.
        let client = net.v5("c");
        net.send(client, "82: 0001 {} <$share/g/a> 00 <$share/gg/a> 00");
        net.expect(client, "90: 0001 {} 00 8F");
    });
}
