//! Sections 4.13, 3.14 and 2.1.3: what ends a connection, and what the client is told.

use plugin_api::{AuthVerdict, Disconnect, Property, PublishVerdict, ReasonCode};

use super::*;

/// Packets that are in order, and the flags that they have to have.
const PACKETS: [(u8, &str, u8); 9] = [
    (0x40, "0001", 0),
    (0x50, "0001", 0),
    (0x60, "0001", 2),
    (0x70, "0001", 0),
    (0x80, "0001 {} <t> 00", 2),
    (0xA0, "0001 {} <t>", 2),
    (0xC0, "", 0),
    (0xE0, "", 0),
    (0xF0, "19 {15 <m>}", 0),
];

/// [MQTT-3.14.1-1] [MQTT-3.15.1-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-2.1.3-1] [MQTT-4.13.1-1] With any other
/// flags: DISCONNECT with 0x81, and closed.
#[test]
fn reserved_flags_close_the_connection() {
    scenario_in(MODES[0], &Setup::default(), |net| {
        for (first, body, expected) in PACKETS {
            for flags in (0..16).filter(|flags| *flags != expected) {
                let client = net.v5("c");
                net.send(client, &format!("{:02X}: {body} | C0:", first | flags));
                net.expect_closed(client, "E0: 81");
            }
        }
    });
}

/// [MQTT-3.1.2-3] [MQTT-2.1.3-1] [MQTT-3.1.4-1] The flags of CONNECT: CONNACK with 0x81, and closed.
#[test]
fn reserved_flags_of_connect() {
    scenario(|net| {
        for flags in 1..16 {
            let client = net.open(V5);
            net.send(client, &format!("1{flags:X}: <MQTT> 05 02 0000 {{}} <c> | C0:"));
            net.expect_closed(client, "20: 00 81 {}");
        }
    });
    scenario_in(MODES[0], &Setup::default(), |net| {
        for flags in (1..=u8::MAX).step_by(2) {
            let client = net.open(V5);
            net.send(client, &format!("10: <MQTT> 05 {flags:02X} 0000 {{}} <c> {{}} <w> <x> <u> <p>"));
            net.expect_closed(client, "20: 00 81 {}");
        }
    });
}

/// [MQTT-3.1.0-2] [MQTT-3.14.2-1] A second CONNECT is a Protocol Error whatever is in it: the Reason Codes of CONNACK have no
/// place in DISCONNECT.
#[test]
fn second_connect_of_any_kind() {
    scenario(|net| {
        for second in [
            "10: <MQTT> 05 02 0000 {} <c>",
            "10: <MQTT> 06 02 0000 {} <c>",
            "10: <HTTP> 05 02 0000 {} <c>",
            "10: <MQTT> 04 00 0000 <>",
            "10: <MQTT> 05 03 0000 {} <c>",
            "10:",
        ] {
            for version in VERSIONS {
                let client = net.client(version, "c");
                net.send(client, second);
                net.expect_closed(client, if version == V5 { "E0: 82" } else { "" });
            }
        }
    });
}

/// [MQTT-3.2.2-8] [MQTT-3.1.2-30] What is wrong with another packet during an authentication exchange does not matter: it is
/// the wrong packet, and CONNACK has no Reason Code for most of it.
#[test]
fn any_other_packet_during_an_authentication_exchange() {
    scenario(|net| {
        net.script().auth = Some(Box::new(|_| Ok(AuthVerdict::Continue(b"?".to_vec()))));
        for packet in
            ["30: <a> {23 0000} 'x'", "36: <a> {}", "30: <a/#> {}", "10: <MQTT> 06 02 0000 {} <c>", "82: 0001 {}"]
        {
            let client = net.join(V5, "10: <MQTT> 05 02 0000 {15 <m>} <c>", "F0: 18 {15 <m> 16 <?>}");
            net.send(client, packet);
            net.expect_closed(client, "20: 00 82 {}");
        }
    });
}

/// [MQTT-3.14.2-2] A handler cannot make DISCONNECT say a Session Expiry Interval: that its answer cannot be sent is its
/// failure.
#[test]
fn disconnect_has_no_session_expiry_interval() {
    scenario(|net| {
        net.script().publish = Some(Box::new(|_| {
            Ok(PublishVerdict::Disconnect(
                Disconnect::new(ReasonCode::NOT_AUTHORIZED).property(Property::SessionExpiryInterval(5)),
            ))
        }));
        let client = net.durable(V5, "c", CONNACK);
        net.send(client, "30: <t> {} 'x'");
        net.expect_closed(client, "E0: 83");
        net.durable(V5, "c", CONNACK_RESUMED);
    });
}

/// [MQTT-3.14.4-1] [MQTT-3.14.4-2] Whatever made the server say it, DISCONNECT is the last that is sent, and nothing behind
/// it is read. The messages that were in flight come on the next connection.
#[test]
fn disconnect_is_the_last_packet() {
    let ends = [
        ("36: <t> 0009 {} 'x'", "E0: 81"),
        ("30: <> {} 'x'", "E0: 82"),
        ("30: <a> {23 FFFF} 'x'", "E0: 94"),
        ("30: <t/#> {} 'x'", "E0: 90"),
    ];
    for (end, disconnect) in ends {
        scenario(|net| {
            let client = net.durable(V5, "c", CONNACK);
            net.subscribe(client, "t", 1);
            net.send(
                client,
                &format!("32: <t> 0001 {{}} '1' | {end} | 32: <t> 0002 {{}} '2' | C0: | 82: 0003 {{}} <u> 00"),
            );
            net.expect_closed(client, &format!("32: <t> 0001 {{}} '1' | 40: 0001 | {disconnect}"));
            let from = net.v5("from");
            net.send(from, "32: <u> 0001 {} 'x'");
            net.expect(from, "40: 0001 10");
            net.durable(V5, "c", &format!("{CONNACK_RESUMED} | 3A: <t> 0001 {{}} '1'"));
        });
    }
}

/// [MQTT-4.13.2-1] [MQTT-4.13.1-1] An error of one client has no consequence for another's session.
#[test]
fn errors_concern_one_connection() {
    scenario(|net| {
        let other = net.durable(V5, "other", CONNACK);
        net.subscribe(other, "t", 1);
        for end in ["36: <t> 0009 {} 'x'", "C1:", "82: 0001 {}", "20: 00 00 {}"] {
            let client = net.v5("c");
            net.send(client, end);
            net.take(client);
            assert!(!net.is_connected(client));
            let refused = net.open(V5);
            net.send(refused, "10: <MQTT> 05 03 0000 {} <other>");
            net.expect_closed(refused, "20: 00 81 {}");
            net.send(other, "C0:");
            net.expect(other, "D0:");
        }
        net.send(other, "32: <t> 0001 {} 'x'");
        net.expect(other, "32: <t> 0001 {} 'x' | 40: 0001");
    });
}

/// [MQTT-3.15.2-1] [MQTT-4.12.0-3] AUTH with a Reason Code that is the server's to say, or that does not fit, from a client.
#[test]
fn auth_codes_that_do_not_fit() {
    scenario(|net| {
        net.script().auth = Some(Box::new(|asked| {
            Ok(if asked.data.is_some() { AuthVerdict::Ok } else { AuthVerdict::Continue(b"?".to_vec()) })
        }));
        let wrong = ["F0:", "F0: 00 {15 <m> 16 <x>}", "F0: 19 {15 <m> 16 <x>}", "F0: 87 {15 <m>}", "F0: 18 {}"];
        for packet in wrong {
            let client = net.join(V5, "10: <MQTT> 05 02 0000 {15 <m>} <c>", "F0: 18 {15 <m> 16 <?>}");
            net.send(client, packet);
            net.expect_closed(client, "20: 00 82 {}");
        }
        let connack = "20: 00 00 {21 0400 27 01000000 22 0040 15 <m>}";
        for packet in wrong.iter().filter(|packet| !packet.contains("19")) {
            let client = net.join(V5, "10: <MQTT> 05 02 0000 {15 <m> 16 <x>} <c>", connack);
            net.send(client, packet);
            net.expect_closed(client, "E0: 82");
            // In the middle of an exchange as well.
            let client = net.join(V5, "10: <MQTT> 05 02 0000 {15 <m> 16 <x>} <c>", connack);
            net.send(client, &format!("F0: 19 {{15 <m>}} | {packet}"));
            net.expect_closed(client, "F0: 18 {15 <m> 16 <?>} | E0: 82");
        }
        // DISCONNECT ends an exchange without a word.
        let client = net.join(V5, "10: <MQTT> 05 02 0000 {15 <m>} <c>", "F0: 18 {15 <m> 16 <?>}");
        net.send(client, "E0: | C0:");
        net.expect_closed(client, "");
    });
}

/// [MQTT-3.14.4-3] What comes behind a client's DISCONNECT is not looked at, and nothing is answered.
#[test]
fn nothing_is_processed_behind_disconnect() {
    scenario(|net| {
        let watcher = net.v5("watcher");
        net.subscribe(watcher, "#", 0);
        for disconnect in ["E0:", "E0: 00", "E0: 00 {}", "E0: 00 {1F <bye> 26 <a> <b>}"] {
            let client = net.join(V5, "10: <MQTT> 05 06 0000 {} <c> {} <w> <gone>", CONNACK);
            net.send(client, &format!("{disconnect} | 30: <t> {{}} 'x' | C0: | 36: <t> 0001 {{}} | {disconnect}"));
            net.expect_closed(client, "");
            net.expect(watcher, "");
        }
    });
}
