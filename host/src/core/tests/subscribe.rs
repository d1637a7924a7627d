//! SUBSCRIBE and UNSUBSCRIBE, and which subscriptions get what.

use super::net::connect_packet;
use super::*;
use crate::codec::tests::packet;

fn bytes_of(text: &str) -> usize {
    packet(text).len()
}

/// [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.9.3-1]
/// [MQTT-2.2.1-6] [MQTT-3.8.4-7] [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1]
#[test]
fn each_filter_has_its_answer() {
    for (version, invalid) in [(V3_1_1, "80"), (V5, "8F")] {
        scenario(|net| {
            let client = net.client(version, "c");
            net.send(client, "82: 1234 [{}] <a> 00 <a/#> 01 <+/b/+> 02 <> 00 <a#> 00 <#/a> 01 <a+> 02 <a/b/> 02");
            net.expect(client, &format!("90: 1234 [{{}}] 00 01 02 {invalid} {invalid} {invalid} {invalid} 02"));
            // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
            net.send(
                client,
                "82: 0001 [{}] <$share/g> 00 <$share//t> 00 <$share/g+/t> 00 <$share/g/> 00 <$share/g/t> 01",
            );
            net.expect(client, &format!("90: 0001 [{{}}] {invalid} {invalid} {invalid} {invalid} 01"));
        });
    }
}

/// [MQTT-3.10.4-1] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1]
/// [MQTT-2.2.1-6] [MQTT-3.10.4-2]
#[test]
fn unsubscribe() {
    for version in VERSIONS {
        scenario(|net| {
            let client = net.client(version, "c");
            net.send(client, "82: 0001 [{}] <a> 00 <b/#> 00 <$share/g/s> 00");
            net.send(client, "A2: 1234 [{}] <a> <a> <b/+> <#a> <$share/g/s> <$share/g>");
            net.expect(client, "90: 0001 [{}] 00 00 00 | B0: 1234 [{} 00 11 11 8F 00 8F]");
            net.send(client, "30: <a> [{}] 'x' | 30: <b/+> [{}] 'x' | 30: <s> [{}] 'x'".replace("b/+", "b/c").as_str());
            net.expect(client, "30: <b/c> [{}] 'x'");
        });
    }
}

/// [MQTT-3.10.4-3] What is in flight is still completed after UNSUBSCRIBE.
#[test]
fn unsubscribing_does_not_break_off_a_delivery() {
    scenario(|net| {
        let client = net.durable(V5, "c", CONNACK);
        net.subscribe(client, "t", 2);
        net.send(client, "34: <t> 0001 {} 'x' | 62: 0001 | A2: 0002 {} <t>");
        net.expect(client, "50: 0001 | 34: <t> 0001 {} 'x' | 70: 0001 | B0: 0002 {} 00");
        net.lose(client);
        let client = net.durable(V5, "c", &format!("{CONNACK_RESUMED} | 3C: <t> 0001 {{}} 'x'"));
        net.send(client, "50: 0001");
        net.expect(client, "62: 0001");
    });
}

/// [MQTT-3.8.4-8] The lesser of the message's QoS and the subscription's.
/// [MQTT-3.8.4-7]
#[test]
fn qos_is_the_lesser_of_both() {
    for version in VERSIONS {
        scenario(|net| {
            for granted in 0..=2_u8 {
                let (from, to) = (net.client(version, "from"), net.client(version, "to"));
                net.subscribe(to, "t", granted);
                net.send(from, "30: <t> [{}] 'x' | 32: <t> 0001 [{}] 'x' | 34: <t> 0002 [{}] 'x' | 62: 0002");
                net.expect(
                    to,
                    [
                        "30: <t> [{}] 'x' | 30: <t> [{}] 'x' | 30: <t> [{}] 'x'",
                        "30: <t> [{}] 'x' | 32: <t> 0001 [{}] 'x' | 32: <t> 0002 [{}] 'x'",
                        "30: <t> [{}] 'x' | 32: <t> 0001 [{}] 'x' | 34: <t> 0002 [{}] 'x'",
                    ][usize::from(granted)],
                );
            }
        });
    }
}

/// [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4] One delivery, with the highest QoS and all identifiers.
#[test]
fn overlapping_subscriptions() {
    scenario(|net| {
        let (from, to, old) = (net.v5("from"), net.v5("to"), net.client(V3_1_1, "old"));
        for packet in [
            "82: 0001 {0B 01} <a/#> 00",
            "82: 0002 {0B FF7F} <a/+> 01",
            "82: 0003 {} <a/b> 00",
            "82: 0004 {0B 01} <#> 00",
        ] {
            net.send(to, packet);
        }
        net.take(to);
        net.send(old, "82: 0001 <a/#> 00 <a/+> 01 <a/b> 00");
        net.take(old);
        net.send(from, "34: <a/b> 0001 {} 'x' | 62: 0001");
        net.expect(old, "32: <a/b> 0001 'x'");
        let got = net.take(to);
        // The identifiers stand in no order that anybody could rely on.
        assert_eq!(got[..9], [0x32, 16, 0, 3, b'a', b'/', b'b', 0, 1], "{got:02X?}");
        let mut identifiers: Vec<&[u8]> = got[10..17].split(|byte| *byte == 0x0B).skip(1).collect();
        identifiers.sort_unstable();
        assert_eq!(identifiers, [&[1][..], &[1], &[0xFF, 0x7F]], "{got:02X?}");
        assert_eq!(got[9], 7);
        assert!(got.ends_with(b"x"));
    });
}

/// [MQTT-3.8.4-3] The same filter again takes the place of the old subscription, identifier and options included.
#[test]
fn subscription_is_replaced() {
    scenario(|net| {
        let client = net.v5("c");
        net.send(client, "82: 0001 {0B 05} <t> 02 | 82: 0002 {} <t> 01");
        net.expect(client, "90: 0001 {} 02 | 90: 0002 {} 01");
        net.send(client, "34: <t> 0001 {} 'x' | 62: 0001");
        net.expect(client, "50: 0001 | 32: <t> 0001 {} 'x' | 70: 0001");
        net.send(client, "82: 0003 {0B 06} <t> 00 | 30: <t> {} 'y' | A2: 0004 {} <t> | 30: <t> {} 'z'");
        net.expect(client, "90: 0003 {} 00 | 30: <t> {0B 06} 'y' | B0: 0004 {} 00");
    });
}

/// A delivery keeps its Subscription Identifiers while it waits and when it is sent again.
#[test]
fn identifiers_wait_with_their_message() {
    scenario(|net| {
        let from = net.v5("from");
        let to = net.durable(V5, "to", CONNACK);
        net.send(to, "82: 0001 {0B 05} <t> 01");
        net.expect(to, "90: 0001 {} 01");
        net.lose(to);
        net.send(from, "32: <t> 0001 {} 'x'");
        let to = net.durable(V5, "to", &format!("{CONNACK_RESUMED} | 32: <t> 0001 {{0B 05}} 'x'"));
        net.lose(to);
        net.durable(V5, "to", &format!("{CONNACK_RESUMED} | 3A: <t> 0001 {{0B 05}} 'x'"));
    });
}

/// The same with several of them; and retained messages come with the identifier that the subscription has now.
#[test]
fn several_identifiers_wait_with_their_message() {
    scenario(|net| {
        let from = net.v5("from");
        let to = net.durable(V5, "to", CONNACK);
        net.send(to, "82: 0001 {0B 05} <t> 01 | 82: 0002 {0B 8001} <+> 02 | 82: 0003 {} <#> 01");
        net.expect(to, "90: 0001 {} 01 | 90: 0002 {} 02 | 90: 0003 {} 01");
        net.lose(to);
        net.send(from, "33: <t> 0001 {} 'x'");
        let to = net.durable(V5, "to", &format!("{CONNACK_RESUMED} | 32: <t> 0001 {{0B 05 0B 8001}} 'x'"));
        net.lose(to);
        let to = net.durable(V5, "to", &format!("{CONNACK_RESUMED} | 3A: <t> 0001 {{0B 05 0B 8001}} 'x'"));
        net.send(to, "40: 0001 | 82: 0001 {0B 06} <t> 01");
        net.expect(to, "90: 0001 {} 01 | 33: <t> 0002 {0B 06} 'x'");
        net.send(to, "40: 0002 | 82: 0001 {} <t> 01");
        net.expect(to, "90: 0001 {} 01 | 33: <t> 0003 {} 'x'");
        net.send(from, "30: <t> {} 'y'");
        net.expect(to, "30: <t> {0B 8001} 'y'");
    });
}

/// No Local (section 3.8.3.1), alone and where it overlaps with a subscription that is not.
/// [MQTT-3.8.3-3]
#[test]
fn no_local() {
    scenario(|net| {
        let (own, other) = (net.v5("own"), net.v5("other"));
        net.send(own, "82: 0001 {0B 01} <a/#> 06");
        net.send(other, "82: 0001 {} <a/#> 04");
        net.take(own);
        net.take(other);
        net.send(own, "30: <a/b> {} '1'");
        net.expect(own, "");
        net.expect(other, "30: <a/b> {} '1'");
        net.send(other, "30: <a/b> {} '2'");
        net.expect(own, "30: <a/b> {0B 01} '2'");
        net.expect(other, "");
        net.send(own, "82: 0002 {0B 02} <a/b> 00");
        net.expect(own, "90: 0002 {} 00");
        net.send(own, "32: <a/b> 0001 {} '3'");
        // Only the subscription that wants it counts, with its own QoS and identifier.
        net.expect(own, "30: <a/b> {0B 02} '3' | 40: 0001");
    });
}

/// It holds for the Client Identifier's session, on whatever connection.
/// [MQTT-3.8.3-3]
#[test]
fn no_local_holds_for_a_message_released_on_a_later_connection() {
    scenario(|net| {
        let own = net.durable(V5, "own", CONNACK);
        net.send(own, "82: 0001 {} <t> 06 | 34: <t> 0001 {} 'x'");
        net.expect(own, "90: 0001 {} 02 | 50: 0001");
        net.lose(own);
        let own = net.durable(V5, "own", CONNACK_RESUMED);
        net.send(own, "62: 0001");
        net.expect(own, "70: 0001");
    });
}

/// [MQTT-4.7.2-1] [MQTT-4.7.3-4] and the corners of Topic Filters.
/// [MQTT-3.3.2-3]
#[test]
fn filters_match_what_they_should() {
    let rows = [
        ("#", "a", true),
        ("#", "/a", true),
        ("#", "$a", false),
        ("+/a", "$b/a", false),
        ("$b/#", "$b/a", true),
        ("$b/+", "$b/a", true),
        ("a/#", "a", true),
        ("a/#", "a/", true),
        ("a/+", "a", false),
        ("a/+", "a/", true),
        ("+", "/a", false),
        ("+/+", "/a", true),
        ("/+", "/a", true),
        ("A", "a", false),
        ("a", "a/", false),
        ("a//b", "a/b", false),
        ("a/+/b", "a//b", true),
    ];
    scenario(|net| {
        for (filter, topic, matches) in rows {
            let (from, to) = (net.v5("from"), net.v5("to"));
            net.subscribe(to, filter, 0);
            net.send(from, &format!("30: <{topic}> {{}} 'x'"));
            let expected = format!("30: <{topic}> {{}} 'x'");
            net.expect(to, if matches { &expected } else { "" });
        }
    });
}

#[test]
fn subscriptions_are_bounded() {
    scenario_with(&Setup::limits(|limits| limits.subscriptions_max = 2), |net| {
        let (client, old) = (net.v5("c"), net.client(V3_1_1, "old"));
        net.send(client, "82: 0001 {} <a> 00 <b> 00 <c> 00 <a> 01 <$share/g/d> 00");
        net.expect(client, "90: 0001 {} 00 00 97 01 97");
        net.send(client, "A2: 0002 {} <a> | 82: 0003 {} <c> 00 <a> 00");
        net.expect(client, "B0: 0002 {} 00 | 90: 0003 {} 00 97");
        net.send(client, "82: 0004 {} <b> 01 <d> 00");
        net.expect(client, "90: 0004 {} 01 97");
        net.send(old, "82: 0001 <a> 00 <b> 00 <c> 00");
        net.expect(old, "90: 0001 00 00 80");
    });
}

/// Shared Subscriptions (section 4.8.2): one member of each group gets a message, in turn, and everybody else as ever.
#[test]
fn shared_subscriptions_take_turns() {
    scenario(|net| {
        let from = net.v5("from");
        let members: Vec<usize> = ["a", "b", "c", "d"].iter().map(|name| net.v5(name)).collect();
        let alone = net.v5("alone");
        for member in &members {
            net.subscribe(*member, "$share/g/t/#", 1);
        }
        net.subscribe(alone, "$share/other/t/+", 1);
        net.subscribe(alone, "t/x", 0);
        for number in 0..8 {
            net.send(from, &format!("32: <t/x> 0001 {{}} {number:02X}"));
        }
        for member in members {
            assert_eq!(net.take(member).len(), 2 * bytes_of("32: <t/x> 0001 {} 00"), "each has two of eight");
        }
        // The group that is its own, and the subscription of its own.
        assert_eq!(net.take(alone).len(), 8 * (bytes_of("32: <t/x> 0001 {} 00") + bytes_of("30: <t/x> {} 00")));
    });
}

/// [MQTT-4.8.2-3] Options and identifier are the member's own; [MQTT-3.8.4-3] the same filter again replaces.
#[test]
fn shared_subscription_has_its_own_options() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.send(to, "82: 0001 {0B 07} <$share/g/t> 09");
        net.expect(to, "90: 0001 {} 01");
        net.send(from, "35: <t> 0001 {} 'x' | 62: 0001");
        net.expect(to, "33: <t> 0001 {0B 07} 'x'");
        net.send(to, "82: 0002 {} <$share/g/t> 00");
        net.expect(to, "90: 0002 {} 00"); // No retained messages for a Shared Subscription.
        net.send(from, "30: <t> {} 'y'");
        net.expect(to, "30: <t> {} 'y'");
    });
}

/// Members who are away are passed over while another is there; if none is, the message waits in a session.
#[test]
fn shared_subscription_of_absent_members() {
    for version in [V3_1_1, V5] {
        scenario(|net| {
            let from = net.client(version, "from");
            let (a, b) = (net.durable(version, "a", CONNACK), net.durable(version, "b", CONNACK));
            net.subscribe(a, "$share/g/t", 1);
            net.subscribe(b, "$share/g/t", 1);
            net.lose(a);
            net.send(from, "32: <t> 0001 [{}] '1' | 32: <t> 0001 [{}] '2'");
            net.expect(b, "32: <t> 0001 [{}] '1' | 32: <t> 0002 [{}] '2'");
            net.send(b, "40: 0001 | 40: 0002");
            net.lose(b);
            net.send(from, "32: <t> 0001 [{}] '3' | 32: <t> 0001 [{}] '4'");
            let waiting = ["a", "b"].map(|name| net.session(name).expect("it is kept").queue.len());
            assert_eq!(waiting[0] + waiting[1], 2);
            let b = net.open(version);
            net.send(b, &connect_packet(version, "00", 0, "11 00000E10", "b"));
            assert!(net.take(b).starts_with(&[0x20]));
            net.send(from, "32: <t> 0001 [{}] '5'");
            assert!(net.take(b).ends_with(b"5"), "who is back gets the next one");
        });
    }
}

/// [MQTT-4.8.2-5] [MQTT-4.8.2-4] What was given to one member stays with it.
#[test]
fn shared_message_stays_with_its_member() {
    scenario(|net| {
        let from = net.v5("from");
        let a = net.durable(V5, "a", CONNACK);
        net.subscribe(a, "$share/g/t", 2);
        net.send(from, "34: <t> 0001 {} '1' | 62: 0001");
        net.expect(a, "34: <t> 0001 {} '1'");
        net.lose(a);
        let b = net.v5("b");
        net.subscribe(b, "$share/g/t", 2);
        net.expect(b, "");
        let a = net.durable(V5, "a", &format!("{CONNACK_RESUMED} | 3C: <t> 0001 {{}} '1'"));
        net.send(a, "50: 0001 | A2: 0001 {} <$share/g/t>");
        net.expect(a, "62: 0001 | B0: 0001 {} 00");
        net.send(from, "32: <t> 0001 {} '2' | 32: <t> 0001 {} '3'");
        net.expect(b, "32: <t> 0001 {} '2' | 32: <t> 0002 {} '3'");
    });
}
