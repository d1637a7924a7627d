//! PUBLISH from a client: the three QoS, Topic Aliases, what handlers are asked, and what goes on to a subscriber.

use plugin_api::QoS;

use super::net::{connect_packet, resumed};
use super::*;

/// [MQTT-4.3.1-1] [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11]
/// [MQTT-2.2.1-2] [MQTT-2.2.1-5] [MQTT-2.2.2-1] [MQTT-3.3.1-2] [MQTT-3.3.4-1]
#[test]
fn each_qos_is_acknowledged_and_delivered() {
    for version in VERSIONS {
        scenario(|net| {
            let (from, to) = (net.client(version, "from"), net.client(version, "to"));
            net.subscribe(to, "t", 2);
            net.send(from, "30: <t> [{}] 'zero'");
            net.expect(from, "");
            net.expect(to, "30: <t> [{}] 'zero'");
            net.send(from, "32: <t> 1234 [{}] 'one'");
            net.expect(from, "40: 1234");
            net.expect(to, "32: <t> 0001 [{}] 'one'");
            net.send(from, "34: <t> FFFF [{}] 'two'");
            net.expect(from, "50: FFFF");
            net.expect(to, "");
            net.send(from, "62: FFFF");
            net.expect(from, "70: FFFF");
            net.expect(to, "34: <t> 0002 [{}] 'two'");
        });
    }
}

/// A packet read in one piece with others is handled in its place.
#[test]
fn packets_in_one_piece_are_handled_in_order() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "#", 0);
        net.send(from, "32: <a> 0001 {} 'x' | C0: | 34: <b> 0002 {} 'y' | 62: 0002 | 30: <c> {} 'z' | E0:");
        net.expect_closed(from, "40: 0001 | D0: | 50: 0002 | 70: 0002");
        net.expect(to, "30: <a> {} 'x' | 30: <b> {} 'y' | 30: <c> {} 'z'");
    });
}

/// A 5.0 client learns that nobody has subscribed; others get the same bytes as ever.
#[test]
fn no_matching_subscribers() {
    scenario(|net| {
        let (v5, old) = (net.v5("a"), net.client(V3_1_1, "b"));
        net.send(v5, "32: <t> 0001 {} 'x' | 34: <t> 0002 {} 'x' | 62: 0002");
        // A QoS 2 message is routed when it is released, and PUBCOMP cannot say it.
        net.expect(v5, "40: 0001 10 | 50: 0002 | 70: 0002");
        net.send(old, "32: <t> 0001 'x' | 34: <t> 0002 'x' | 62: 0002");
        net.expect(old, "40: 0001 | 50: 0002 | 70: 0002");
        net.send(v5, "33: <t> 0003 {} 'retained'");
        net.expect(v5, "40: 0003 10");
    });
}

/// [MQTT-4.3.3-10] [MQTT-4.3.3-12] Delivered once and asked about once, however often it is sent before PUBREL.
/// [MQTT-3.7.2-1] [MQTT-3.7.2-2] [MQTT-3.7.2-3]
#[test]
fn qos_2_duplicates() {
    for version in VERSIONS {
        scenario(|net| {
            let (from, to) = (net.client(version, "from"), net.client(version, "to"));
            net.subscribe(to, "t", 0);
            net.send(from, "34: <t> 0007 [{}] 'x' | 3C: <t> 0007 [{}] 'x' | 3C: <t> 0007 [{}] 'x'");
            net.expect(from, "50: 0007 | 50: 0007 | 50: 0007");
            assert_eq!(
                net.script().take("publish"),
                ["publish from t q2 retain=false dup=false id=Some(7) will=false"]
            );
            net.send(from, "62: 0007");
            net.expect(from, "70: 0007");
            net.expect(to, "30: <t> [{}] 'x'");
            net.send(from, "34: <t> 0007 [{}] 'y' | 62: 0007");
            net.expect(from, "50: 0007 | 70: 0007");
            net.expect(to, "30: <t> [{}] 'y'");
            net.send(from, "62: 0007");
            net.expect(from, if version == V5 { "70: 0007 92" } else { "70: 0007" });
            net.expect(to, "");
        });
    }
}

/// A QoS 2 message that was received before the connection was lost is not delivered again [MQTT-4.3.3-10].
#[test]
fn qos_2_duplicate_after_the_connection_was_lost() {
    for version in VERSIONS {
        scenario(|net| {
            let to = net.client(version, "to");
            net.subscribe(to, "t", 0);
            let from = net.durable(version, "from", CONNACK);
            net.send(from, "34: <t> 0007 [{}] 'x'");
            net.expect(from, "50: 0007");
            net.lose(from);
            let from = net.durable(version, "from", resumed(version));
            net.send(from, "3C: <t> 0007 [{}] 'x' | 62: 0007");
            net.expect(from, "50: 0007 | 70: 0007");
            net.expect(to, "30: <t> [{}] 'x'");
        });
    }
}

/// [MQTT-4.3.2-5] [MQTT-3.3.1-3] DUP of a QoS 1 message means nothing to us, and is not passed on.
#[test]
fn qos_1_duplicate_is_a_new_message() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "t", 1);
        net.send(from, "32: <t> 0007 {} 'x' | 3A: <t> 0007 {} 'x'");
        net.expect(from, "40: 0007 | 40: 0007");
        net.expect(to, "32: <t> 0001 {} 'x' | 32: <t> 0002 {} 'x'");
    });
}

/// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
#[test]
fn properties_go_on_unaltered_and_in_order() {
    scenario(|net| {
        let (from, to, old) = (net.v5("from"), net.v5("to"), net.client(V3_1_1, "old"));
        net.subscribe(to, "t", 0);
        net.subscribe(old, "t", 0);
        let kept = "26 <z> <1> 01 01 26 <a> <2> 03 <text/plain> 08 <r/t> 09 <id> 26 <z> <1>";
        net.send(from, &format!("30: <t> {{23 0001 {kept}}} 'x'"));
        net.expect(to, &format!("30: <t> {{{kept}}} 'x'"));
        net.expect(old, "30: <t> 'x'");
    });
}

/// [MQTT-3.3.2-12] and the other ways to use a Topic Alias.
#[test]
fn topic_aliases() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "#", 0);
        net.send(from, "30: <a> {23 0001} '1' | 30: <b> {23 0040} '2' | 30: <> {23 0001} '3' | 30: <> {23 0040} '4'");
        net.send(from, "30: <c> {23 0001} '5' | 30: <> {23 0001} '6' | 32: <> 0001 {23 0001} '7'");
        net.expect(from, "40: 0001");
        net.expect(
            to,
            "30: <a> {} '1' | 30: <b> {} '2' | 30: <a> {} '3' | 30: <b> {} '4'
            | 30: <c> {} '5' | 30: <c> {} '6' | 30: <c> {} '7'",
        );
    });
}

/// [MQTT-3.3.2-7] [MQTT-3.3.2-8] [MQTT-3.3.2-9]
/// [MQTT-3.2.2-17]
#[test]
fn topic_alias_errors() {
    scenario(|net| {
        for (packet, code) in [
            ("30: <a> {23 0000} 'x'", "94"),
            ("30: <a> {23 0041} 'x'", "94"),
            ("30: <a> {23 FFFF} 'x'", "94"),
            ("30: <> {23 0001} 'x'", "82"),
            ("30: <> {} 'x'", "82"),
        ] {
            let client = net.durable(V5, "c", CONNACK);
            net.send(client, "30: <a> {23 0002} 'x'");
            net.send(client, packet);
            net.expect_closed(client, &format!("E0: {code}"));
            // The aliases have ended with the connection.
            let client = net.durable(V5, "c", CONNACK_RESUMED);
            net.send(client, "30: <> {23 0002} 'x'");
            net.expect_closed(client, "E0: 82");
            net.join(V5, "10: <MQTT> 05 02 0000 {} <c>", CONNACK);
        }
    });
}

#[test]
fn topic_alias_of_a_qos_2_message() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "#", 0);
        net.send(from, "34: <a> 0001 {23 0001} 'x' | 3C: <> 0001 {23 0001} 'x' | 34: <> 0002 {23 0001} 'y'");
        net.send(from, "62: 0001 | 62: 0002");
        net.expect(from, "50: 0001 | 50: 0001 | 50: 0002 | 70: 0001 | 70: 0002");
        net.expect(to, "30: <a> {} 'x' | 30: <a> {} 'y'");
    });
}

/// [MQTT-3.2.2-11] [MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-12]
#[test]
fn maximum_qos() {
    scenario_with(&Setup::limits(|limits| limits.maximum_qos = QoS::AtLeastOnce), |net| {
        const CONNACK: &str = "20: 00 00 [{21 0400 24 01 27 01000000 22 0040}]";
        for (version, answer) in [(V5, "E0: 9B"), (V3_1_1, "")] {
            let connect = connect_packet(version, "02", 0, "", "c");
            let client = net.join(version, &connect, CONNACK);
            net.send(client, "82: 0001 [{}] <t> 02");
            net.expect(client, "90: 0001 [{}] 01");
            net.send(client, "32: <t> 0001 [{}] 'x'");
            net.expect(client, "32: <t> 0001 [{}] 'x' | 40: 0001");
            net.send(client, "34: <t> 0002 [{}] 'x'");
            net.expect_closed(client, answer);
        }
        let client = net.open(V5);
        net.send(client, "10: <MQTT> 05 16 0000 {} <c> {} <t> <x>");
        net.expect_closed(client, "20: 00 9B {}");
    });
}

#[test]
fn topics_with_too_many_levels() {
    scenario_with(&Setup::limits(|limits| limits.topic_levels_max = 2), |net| {
        let client = net.v5("c");
        net.send(client, "32: <a/b> 0001 {} 'x' | 32: <a/b/c> 0002 {} 'x' | 34: <//> 0003 {} 'x' | 30: <a/b/c> {} 'x'");
        net.expect(client, "40: 0001 10 | 40: 0002 90 | 50: 0003 90");
        net.send(client, "82: 0001 {} <a/b> 00 <a/b/c> 00 <+/+/#> 00");
        net.expect(client, "90: 0001 {} 00 8F 8F");
        let client = net.open(V5);
        net.send(client, "10: <MQTT> 05 06 0000 {} <d> {} <a/b/c> <x>");
        net.expect_closed(client, "20: 00 90 {}");
    });
}

/// Section 4.7.2: what the server says under `$SYS` can be trusted; other names that begin with `$` are the clients' own.
#[test]
fn topics_of_the_server() {
    scenario(|net| {
        let (client, old) = (net.v5("c"), net.client(V3_1_1, "old"));
        net.subscribe(client, "$SYS/#", 0);
        net.send(client, "32: <$SYS/x> 0001 {} 'x' | 34: <$SYS> 0002 {} 'x' | 32: <$share/g/x> 0003 {} 'x'");
        net.expect(client, "40: 0001 87 | 50: 0002 87 | 40: 0003 90");
        net.send(client, "30: <$SYS/x> {} 'x' | 32: <$SYSTEM/x> 0004 {} 'x' | 32: <x/$SYS> 0005 {} 'x'");
        net.expect(client, "40: 0004 10 | 40: 0005 10");
        net.send(old, "30: <$SYS/x> 'x' | 32: <$SYS/x> 0001 'x'");
        net.expect(old, "40: 0001");
        net.expect(client, "");
        assert_eq!(net.script().take("publish").len(), 2);
        let client = net.open(V5);
        net.send(client, "10: <MQTT> 05 06 0000 {} <d> {} <$SYS/x> <x>");
        net.expect_closed(client, "20: 00 87 {}");
    });
}

/// [MQTT-3.3.4-7] More unacknowledged messages than our Receive Maximum, of which only 5.0 knows.
#[test]
fn receive_maximum_of_the_server() {
    scenario_with(&Setup::limits(|limits| limits.receive_maximum = 2), |net| {
        const CONNACK: &str = "20: 00 00 [{21 0002 27 01000000 22 0040}]";
        for version in VERSIONS {
            let client = net.durable(version, "c", CONNACK);
            net.subscribe(client, "other", 0);
            net.send(client, "35: <t> 0001 [{}] 'x' | 35: <t> 0002 [{}] 'x' | 3D: <t> 0001 [{}] 'x'");
            net.expect(client, "50: 0001 | 50: 0002 | 50: 0001");
            net.send(client, "62: 0001 | 33: <t> 0003 [{}] 'x' | 35: <t> 0004 [{}] 'x'");
            let nobody = if version == V5 { " 10" } else { "" };
            net.expect(client, &format!("70: 0001 | 40: 0003{nobody} | 50: 0004"));
            net.send(client, "35: <t> 0005 [{}] 'x'");
            if version == V5 {
                net.expect_closed(client, "E0: 93");
            } else {
                net.expect(client, "50: 0005");
                net.send(client, "E0:");
            }
            net.join(version, &connect_packet(version, "02", 0, "", "c"), CONNACK);
        }
    });
}

/// What an earlier connection left unreleased does not count against the Receive Maximum of this one.
/// [MQTT-3.3.4-7]
#[test]
fn receive_maximum_begins_anew_with_the_connection() {
    scenario_with(&Setup::limits(|limits| limits.receive_maximum = 1), |net| {
        let connack = |present| format!("20: {present} 00 {{21 0001 27 01000000 22 0040}}");
        let client = net.durable(V5, "c", &connack("00"));
        net.send(client, "34: <t> 0001 {} 'x'");
        net.expect(client, "50: 0001");
        net.lose(client);
        let client = net.durable(V5, "c", &connack("01"));
        net.send(client, "34: <t> 0002 {} 'x'");
        net.expect(client, "50: 0002");
        net.send(client, "34: <t> 0003 {} 'x'");
        net.expect_closed(client, "E0: 93");
    });
}

/// A client that has lost its state and uses an identifier anew gets its new message delivered.
#[test]
fn qos_2_identifier_of_a_client_that_has_lost_its_state() {
    for version in VERSIONS {
        scenario(|net| {
            let to = net.client(version, "to");
            net.subscribe(to, "t", 0);
            let from = net.durable(version, "from", CONNACK);
            net.send(from, "34: <t> 0007 [{}] 'old'");
            net.expect(from, "50: 0007");
            net.lose(from);
            let from = net.durable(version, "from", resumed(version));
            net.send(from, "34: <t> 0007 [{}] 'new' | 62: 0007");
            net.expect(from, "50: 0007 | 70: 0007");
            // The old one has been acknowledged: it is not lost.
            net.expect(to, "30: <t> [{}] 'old' | 30: <t> [{}] 'new'");
        });
    }
}

/// Nobody who has not been let in makes us keep much.
#[test]
fn connect_packet_that_is_too_large() {
    scenario_with(&Setup::limits(|limits| limits.connect_bytes_max = 128), |net| {
        for version in VERSIONS {
            let client = net.open(version);
            net.send_bytes(client, &[0x10, 0x80, 0x01]);
            net.expect_closed(client, "");
        }
    });
}

#[test]
fn too_many_filters_in_a_packet() {
    scenario_with(&Setup::limits(|limits| limits.filters_a_packet_max = 2), |net| {
        for (version, answer) in [(V5, "E0: 97"), (V3_1_1, "")] {
            for packet in ["82: 0001 [{}] <a> 00 <a> 00 <a> 00", "A2: 0001 [{}] <a> <a> <a>"] {
                let client = net.client(version, "c");
                net.send(client, packet);
                net.expect_closed(client, answer);
            }
        }
    });
    scenario_with(&Setup::limits(|limits| limits.filter_levels_a_packet_max = 5), |net| {
        for (version, answer) in [(V5, "E0: 97"), (V3_1_1, "")] {
            for packet in ["82: 0001 [{}] <a/b/c> 00 <a/+/#> 00", "A2: 0001 [{}] <////> <a>"] {
                let client = net.client(version, "c");
                net.send(client, packet);
                net.expect_closed(client, answer);
            }
            let client = net.client(version, "c");
            net.send(client, "82: 0001 [{}] <a/b/c> 00 <a/#> 00");
            net.expect(client, "90: 0001 [{}] 00 00");
        }
    });
}

/// Malformed packets and Protocol Errors end the connection, with a Reason Code for 5.0 [MQTT-4.13.1-1].
#[test]
fn packets_that_are_wrong() {
    let rows = [
        ("36: <t> 0001 {} 'x'", "81"),         // QoS 3 [MQTT-3.3.1-4]
        ("38: <t> {} 'x'", "81"),              // DUP with QoS 0 [MQTT-3.3.1-2]
        ("32: <t> 0000 {} 'x'", "82"),         // [MQTT-2.2.1-3]
        ("30: <a/#> {} 'x'", "90"),            // [MQTT-3.3.2-2]
        ("30: <t> {0B 01} 'x'", "82"),         // [MQTT-3.3.4-6]
        ("80: 0001 {} <t> 00", "81"),          // [MQTT-3.8.1-1]
        ("82: 0001 {}", "82"),                 // [MQTT-3.8.3-2]
        ("82: 0001 {} <t> 40", "81"),          // [MQTT-3.8.3-5]
        ("A2: 0001 {}", "82"),                 // [MQTT-3.10.3-2]
        ("60: 0001", "81"),                    // [MQTT-3.6.1-1]
        ("F0: 19 {15 <m>}", "82"),             // [MQTT-4.12.0-7]
        ("82: 0001 {} <$share/g/t> 04", "82"), // [MQTT-3.8.3-4]
    ];
    scenario(|net| {
        for (packet, code) in rows {
            let client = net.v5("c");
            net.send(client, packet);
            net.expect_closed(client, &format!("E0: {code}"));
            assert_eq!(net.script().take("disconnect"), [format!("disconnect c ProtocolError {code}")]);
            let client = net.client(V3_1_1, "c");
            net.send(client, "36: <t> 0001 'x'");
            net.expect_closed(client, "");
            net.script().calls.clear();
        }
    });
}

#[test]
fn packet_beyond_our_maximum_packet_size() {
    scenario_with(&Setup::limits(|limits| limits.packet_bytes_max = 32), |net| {
        const CONNACK: &str = "20: 00 00 [{21 0400 27 00000020 22 0040}]";
        for (version, answer) in [(V5, "E0: 95"), (V3_1_1, "")] {
            let client = net.join(version, &connect_packet(version, "02", 0, "", "c"), CONNACK);
            // [MQTT-3.2.2-15] It is refused on its declared length.
            net.send_bytes(client, &[0x30, 31]);
            net.expect_closed(client, answer);
        }
    });
}
