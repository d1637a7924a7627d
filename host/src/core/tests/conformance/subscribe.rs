//! Sections 3.8 to 3.11: subscriptions that are replaced, overlap, or stand in a packet several times.

use super::*;

/// [MQTT-3.3.4-5] [MQTT-3.3.4-3] Where a client gets a message more than once, each copy has the identifier of its own
/// subscription: a Shared Subscription does not merge with one that is not shared.
#[test]
fn each_copy_has_its_own_identifier() {
    scenario(|net| {
        let from = net.v5("from");
        let to = net.v5("to");
        for packet in
            ["82: 0001 {0B 01} <t/+> 01", "82: 0002 {0B 02} <$share/g/t/#> 00", "82: 0003 {} <$share/h/t/a> 00"]
        {
            net.send(to, packet);
        }
        net.expect(to, "90: 0001 {} 01 | 90: 0002 {} 00 | 90: 0003 {} 00");
        net.send(from, "32: <t/a> 0001 {} 'x'");
        let mut got: Vec<Vec<u8>> = net::split(&net.take(to)).into_iter().map(<[u8]>::to_vec).collect();
        got.sort_unstable();
        let expected = ["30: <t/a> {} 'x'", "30: <t/a> {0B 02} 'x'", "32: <t/a> 0001 {0B 01} 'x'"];
        assert_eq!(got, expected.map(|packet| net::bytes(V5, packet)));
    });
}

/// [MQTT-3.8.4-4] [MQTT-3.8.4-3] Subscribing again, with messages before and behind it, in flight and waiting: none is lost,
/// none comes twice but the retained one.
#[test]
fn nothing_is_lost_by_replacing_a_subscription() {
    scenario(|net| {
        let from = net.v5("from");
        net.send(from, "31: <t/r> {} 'r'");
        let connect = connect_packet(V5, "00", 0, "11 00000E10 21 0002", "to");
        let to = net.join(V5, &connect, CONNACK);
        net.send(to, "82: 0001 {} <t/+> 01");
        net.expect(to, "90: 0001 {} 01 | 31: <t/r> {} 'r'");
        for number in 1..=3 {
            net.send(from, &format!("32: <t/a> 0001 {{}} '{number}'"));
        }
        net.expect(to, "32: <t/a> 0001 {} '1' | 32: <t/a> 0002 {} '2'");
        net.send(to, "82: 0002 {} <t/+> 02");
        net.send(from, "34: <t/a> 0001 {} '4' | 62: 0001");
        net.send(to, "40: 0001 | 40: 0002");
        let got = net.take(to);
        let (suback, rest) = got.split_at(6);
        assert_eq!(suback, net::bytes(V5, "90: 0002 {} 02"));
        let mut rest = net::split(rest);
        // The retained message comes when there is nothing else to send, or between.
        rest.retain(|packet| *packet != net::bytes(V5, "31: <t/r> {} 'r'"));
        assert_eq!(rest.concat(), net::bytes(V5, "32: <t/a> 0003 {} '3' | 34: <t/a> 0004 {} '4'"));
        net.send(to, "40: 0003 | 50: 0004 | 70: 0004");
        net.lose(to);
        // While nobody is connected, and in one piece with messages of its own.
        net.send(from, "32: <t/a> 0001 {} '5'");
        let to = net.join(V5, &connect, &format!("{CONNACK_RESUMED} | 32: <t/a> 0005 {{}} '5'"));
        net.send(to, "40: 0005 | 30: <t/a> {} '6' | 82: 0003 {} <t/+> 20 | 30: <t/a> {} '7' | 82: 0004 {} <t/+> 21 | 30: <t/a> {} '8'");
        net.take(from);
        let got = net.take(to);
        let mut got = net::split(&got);
        got.retain(|packet| *packet != net::bytes(V5, "62: 0004") && *packet != net::bytes(V5, "31: <t/r> {} 'r'"));
        assert_eq!(
            got.concat(),
            net::bytes(V5, "30: <t/a> {} '6' | 90: 0003 {} 00 | 30: <t/a> {} '7' | 90: 0004 {} 01 | 30: <t/a> {} '8'")
        );
    });
}

/// [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.9.3-1] A filter that stands in a packet again replaces the one before it, as it
/// would in a packet of its own; [MQTT-3.10.4-6] and is removed once.
#[test]
fn one_filter_twice_in_a_packet() {
    for version in [V3_1_1, V5] {
        scenario(|net| {
            let client = net.client(version, "c");
            net.send(client, "82: 0001 [{}] <t> 02 <u> 01 <t> 00 <t#> 01 <u> 02");
            let invalid = if version == V5 { "8F" } else { "80" };
            net.expect(client, &format!("90: 0001 [{{}}] 02 01 00 {invalid} 02"));
            net.send(client, "34: <t> 0001 [{}] 'x' | 62: 0001 | 34: <u> 0002 [{}] 'x' | 62: 0002");
            net.expect(client, "50: 0001 | 30: <t> [{}] 'x' | 70: 0001 | 50: 0002 | 34: <u> 0001 [{}] 'x' | 70: 0002");
            net.send(client, "A2: 0003 [{}] <t> <u> <t>");
            net.expect(client, "B0: 0003 [{} 00 00 11]");
        });
    }
}

/// [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-5] What is not the same, character by character, stays.
#[test]
fn filters_are_removed_character_by_character() {
    scenario(|net| {
        let client = net.v5("c");
        net.send(client, "82: 0001 {} <a/b> 00 <x/+> 00 <y/#> 00 <$share/g/s> 00");
        net.expect(client, "90: 0001 {} 00 00 00 00");
        for other in ["A/b", "a/b/", "/a/b", "a/+", "#", "x/y", "x/#", "y", "y/+", "$share/h/s", "s", "\u{FEFF}a/b"] {
            net.send(client, &format!("A2: 0002 {{}} <{other}>"));
            net.expect(client, "B0: 0002 {} 11");
        }
        let publishes = "30: <a/b> {} '1' | 30: <x/y> {} '2' | 30: <y> {} '3' | 30: <s> {} '4'";
        net.send(client, publishes);
        net.expect(client, publishes);
        net.send(client, "A2: 0003 {} <a/b> <x/+> <y/#> <$share/g/s>");
        net.expect(client, "B0: 0003 {} 00 00 00 00");
        net.send(client, publishes);
        net.expect(client, "");
    });
}

/// [MQTT-3.8.3-3] No Local goes by the Client Identifier, on whatever connection and worker, for retained messages as well as
/// live ones: a retained message is no message that comes back from who publishes.
#[test]
fn no_local_at_every_qos() {
    scenario(|net| {
        let own = net.v5("own");
        net.send(own, "82: 0001 {} <t> 06");
        net.expect(own, "90: 0001 {} 02");
        net.send(own, "30: <t> {} '0' | 32: <t> 0001 {} '1' | 34: <t> 0002 {} '2' | 62: 0002");
        net.expect(own, "40: 0001 | 50: 0002 | 70: 0002");
        for name in ["o", "own2", "OWN"] {
            let other = net.v5(name);
            net.send(other, "30: <t> {} 'x'");
            net.expect(own, "30: <t> {} 'x'");
        }
    });
}
