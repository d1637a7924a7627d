//! CONNECT and CONNACK, and what comes before.

use plugin_api::{ConnectVerdict, ReasonCode};

use super::net::connect_packet;
use super::*;

/// [MQTT-3.1.4-5] [MQTT-3.2.0-1] The answer tells what differs from the specification's defaults.
#[test]
fn client_is_let_in_and_told_the_bounds() {
    scenario(|net| {
        net.join(V3_1, "10: <MQIsdp> 03 02 003C <a>", "20: 00 00");
        net.join(V3_1_1, "10: <MQTT> 04 02 003C <b>", "20: 00 00");
        net.join(V5, "10: <MQTT> 05 02 003C {} <c>", "20: 00 00 {21 0400 27 01000000 22 0040}");
        assert_eq!(
            net.script().take("connect"),
            [
                "connect a v3 keep_alive=60 clean=true user=None password=None will=",
                "connect b v4 keep_alive=60 clean=true user=None password=None will=",
                "connect c v5 keep_alive=60 clean=true user=None password=None will=",
            ]
        );
    });
}

#[test]
fn bounds_that_are_the_defaults_of_the_specification_are_not_told() {
    let setup = Setup::limits(|limits| {
        limits.receive_maximum = u16::MAX;
        limits.topic_alias_max = 0;
        limits.packet_bytes_max = 0x0FFF_FFFF;
    });
    scenario_with(&setup, |net| {
        net.join(V5, "10: <MQTT> 05 02 0000 {} <c>", "20: 00 00 {27 0FFFFFFF}");
    });
}

#[test]
fn bounds_below_what_the_client_asks_for_are_told() {
    let setup = Setup::limits(|limits| {
        limits.session_expiry_secs_max = 60;
        limits.keep_alive_secs_max = 30;
        limits.maximum_qos = plugin_api::QoS::AtLeastOnce;
    });
    scenario_with(&setup, |net| {
        // [MQTT-3.1.2-21] Server Keep Alive, for a longer one and for none.
        let told = "20: 00 00 {11 0000003C 21 0400 24 01 27 01000000 22 0040 13 001E}";
        net.join(V5, "10: <MQTT> 05 02 003C {11 FFFFFFFF} <a>", told);
        net.join(V5, "10: <MQTT> 05 02 0000 {11 0000003D} <b>", told);
        net.join(V5, "10: <MQTT> 05 02 001E {11 0000003C} <c>", "20: 00 00 {21 0400 24 01 27 01000000 22 0040}");
    });
}

#[test]
fn handlers_see_an_absent_password_and_an_empty_one_apart() {
    scenario(|net| {
        net.join(V3_1_1, "10: <MQTT> 04 C2 0000 <a> <u> <>", "20: 00 00");
        net.join(V3_1_1, "10: <MQTT> 04 82 0000 <b> <>", "20: 00 00");
        net.join(V5, "10: <MQTT> 05 42 0000 {} <c> <p>", CONNACK);
        assert_eq!(
            net.script().take("connect"),
            [
                "connect a v4 keep_alive=0 clean=true user=Some(\"u\") password=Some(\"\") will=",
                "connect b v4 keep_alive=0 clean=true user=Some(\"\") password=None will=",
                "connect c v5 keep_alive=0 clean=true user=None password=Some(\"p\") will=",
            ]
        );
    });
}

/// [MQTT-3.1.3-6] [MQTT-3.1.3-7] and, where no identifier can be assigned, [MQTT-3.1.3-8].
/// [MQTT-3.2.2-16]
#[test]
fn empty_client_identifier() {
    scenario(|net| {
        let refused = net.open(V3_1);
        net.send(refused, "10: <MQIsdp> 03 02 0000 <>");
        net.expect_closed(refused, "20: 00 02");
        let refused = net.open(V3_1_1);
        net.send(refused, "10: <MQTT> 04 00 0000 <>");
        net.expect_closed(refused, "20: 00 02");
        net.join(V3_1_1, "10: <MQTT> 04 02 0000 <>", "20: 00 00");
        let mut assigned = Vec::new();
        for flags in ["02", "00"] {
            let client = net.open(V5);
            net.send(client, &connect_packet(V5, flags, 0, "", ""));
            let connack = net.take(client);
            assert!(net.is_connected(client));
            let name = connack.windows(5).position(|part| part == b"host-").expect("an assigned identifier");
            let length = usize::from(connack[name - 1]);
            assert_eq!(connack[name - 3], 0x12, "Assigned Client Identifier");
            assigned.push(String::from_utf8(connack[name..name + length].to_vec()).expect("UTF-8"));
        }
        assert_ne!(assigned[0], assigned[1]);
        assert!(assigned.iter().all(|client_id| net.session(client_id).is_some()));
    });
}

#[test]
fn client_identifier_beyond_the_bound_is_refused() {
    scenario_with(&Setup::limits(|limits| limits.client_id_bytes_max = 4), |net| {
        // [MQTT-3.1.3-8]
        for (version, connack) in [(V3_1, "20: 00 02"), (V3_1_1, "20: 00 02"), (V5, "20: 00 85 {}")] {
            let client = net.open(version);
            net.send(client, &connect_packet(version, "02", 0, "", "12345"));
            net.expect_closed(client, connack);
            net.client(version, "1234");
        }
    });
}

/// What is answered, and the connection closed, whatever follows.
#[test]
fn first_packet_that_is_no_valid_connect() {
    let rows = [
        // [MQTT-3.1.0-1] The first packet is not CONNECT.
        ("C0:", ""),
        ("30: <t> 'hi'", ""),
        ("E0:", ""),
        ("F0: 18 {15 <m>}", ""),
        ("82: 0001 <t> 00", ""),
        // [MQTT-3.1.2-2]
        ("10: <MQTT> 06 02 0000 {} <c>", "20: 00 84 {}"),
        ("10: <MQTT> 03 02 0000 <c>", "20: 00 01"),
        ("10: <MQIsdp> 04 02 0000 <c>", "20: 00 01"),
        // [MQTT-3.1.2-1]
        ("10: <HTTP> 05 02 0000 {} <c>", ""),
        // [MQTT-3.1.2-3] [MQTT-3.1.4-1] The reserved flag.
        ("10: <MQTT> 04 03 0000 <c>", ""),
        ("10: <MQTT> 05 03 0000 {} <c>", "20: 00 81 {}"),
        // [MQTT-3.1.4-6] Nothing behind a refused CONNECT is looked at.
        ("10: <MQTT> 05 02 0000 {} <c> 00 | 82: 0001 {} <t> 00", "20: 00 81 {}"),
        ("10: <MQTT> 05 02 0000 {21 0000} <c>", "20: 00 82 {}"),
    ];
    scenario(|net| {
        for (packets, answer) in rows {
            let client = net.open(V5);
            net.send(client, packets);
            net.expect_closed(client, answer);
        }
        assert_eq!(net.script().live, 0);
        assert!(net.script().calls.is_empty(), "handlers hear of no broken CONNECT");
    });
}

#[test]
fn connect_beyond_the_maximum_packet_size() {
    scenario_with(&Setup::limits(|limits| limits.packet_bytes_max = 40), |net| {
        let client = net.open(V5);
        net.send_bytes(client, &[0x10, 39]);
        net.expect_closed(client, "");
    });
}

/// [MQTT-3.1.0-2] [MQTT-4.13.1-1]
/// [MQTT-3.2.0-2]
#[test]
fn second_connect_is_a_protocol_error() {
    scenario(|net| {
        for version in VERSIONS {
            let client = net.client(version, "c");
            net.send(client, &connect_packet(version, "02", 0, "", "c"));
            net.expect_closed(client, if version == V5 { "E0: 82" } else { "" });
            assert_eq!(net.script().take("disconnect"), ["disconnect c ProtocolError 82"]);
        }
        // Not with 0x84 and 0x85, which DISCONNECT cannot have [MQTT-3.14.2-1].
        for connect in ["10: <MQTT> 06 02 0000 {} <c>", "10: <MQTT> 04 00 0000 <>", "1F: <MQTT>"] {
            let client = net.v5("c");
            net.send(client, connect);
            net.expect_closed(client, "E0: 82");
        }
    });
}

#[test]
fn packets_that_only_a_server_sends_are_errors() {
    scenario(|net| {
        for packet in ["20: 00 00 {}", "90: 0001 {} 00", "B0: 0001 {} 00", "D0:"] {
            let client = net.v5("c");
            net.send(client, packet);
            let code = net.take(client);
            assert!(matches!(code[..], [0xE0, 1, 0x81 | 0x82]), "{packet}: {code:02X?}");
            assert!(!net.is_connected(client));
        }
    });
}

#[test]
fn connection_without_connect_is_closed_after_the_timeout() {
    scenario(|net| {
        let silent = net.open(V5);
        let slow = net.open(V5);
        net.send_bytes(slow, &[0x10]);
        net.advance(9_999);
        net.send_bytes(slow, &[0x20]);
        net.expect(silent, "");
        net.expect(slow, "");
        net.advance(1);
        net.expect_closed(silent, "");
        // Bytes that come one after the other do not make the time longer.
        net.expect_closed(slow, "");
    });
}

/// [MQTT-3.1.2-22] One and a half times the Keep Alive; a 5.0 client is told.
/// [MQTT-3.2.2-22]
#[test]
fn keep_alive_passes_without_a_packet() {
    scenario(|net| {
        for version in VERSIONS {
            let client = net.join(version, &connect_packet(version, "02", 10, "", "c"), CONNACK);
            net.advance(14_999);
            net.send(client, "C0:");
            net.expect(client, "D0:"); // [MQTT-3.12.4-1]
            net.advance(14_999);
            net.expect(client, "");
            // The start of a packet is no packet.
            net.send_bytes(client, &[0x30]);
            net.advance(1);
            net.expect_closed(client, if version == V5 { "E0: 8D" } else { "" });
            assert_eq!(net.script().take("disconnect"), ["disconnect c KeepAliveTimeout 8D"]);
        }
    });
}

#[test]
fn keep_alive_beyond_a_minute_and_without_one() {
    scenario(|net| {
        let long = net.join(V5, &connect_packet(V5, "02", 3600, "", "long"), CONNACK);
        let never = net.v5("never");
        net.advance(5_399_999);
        net.expect(long, "");
        net.advance(1);
        net.expect_closed(long, "E0: 8D");
        net.advance(7 * 24 * 3600 * 1000);
        net.expect(never, "");
    });
}

/// [MQTT-3.1.2-21]
#[test]
fn handler_changes_what_the_client_gets() {
    scenario(|net| {
        net.script().connect = Some(Box::new(|_| {
            let accept = plugin_api::Accept::new().client_id("other").keep_alive_secs(20).session_expiry_secs(100);
            Ok(ConnectVerdict::Accept(accept.user_property("a", "b")))
        }));
        let connack = "20: 00 00 {11 00000064 21 0400 27 01000000 12 <other> 22 0040 13 0014 26 <a> <b>}";
        let client = net.join(V5, "10: <MQTT> 05 02 0000 {} <c>", connack);
        assert!(net.session("other").is_some() && net.session("c").is_none());
        net.advance(29_999);
        net.expect(client, "");
        net.advance(1);
        net.expect_closed(client, "E0: 8D");
        net.script().connect = None;
        let same = net.join(V5, "10: <MQTT> 05 00 0000 {} <other>", CONNACK_RESUMED);
        net.lose(same);
        let old = net.join(V3_1_1, "10: <MQTT> 04 02 0000 <other>", "20: 00 00");
        net.expect(old, "");
        // A 3.x client cannot be told of another Keep Alive, and keeps its own.
        net.script().connect =
            Some(Box::new(|_| Ok(ConnectVerdict::Accept(plugin_api::Accept::new().keep_alive_secs(20)))));
        let old = net.join(V3_1_1, "10: <MQTT> 04 02 0064 <old>", "20: 00 00");
        net.advance(149_999);
        net.expect(old, "");
        net.advance(1);
        net.expect_closed(old, "");
    });
}

/// [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-3.2.2-8] What a handler's Reason Code is for older clients.
/// [MQTT-3.1.4-2] [MQTT-4.13.2-1]
#[test]
fn handler_refuses() {
    let rows = [
        (ReasonCode::NOT_AUTHORIZED, 5),
        (ReasonCode::BAD_USER_NAME_OR_PASSWORD, 4),
        (ReasonCode::SERVER_UNAVAILABLE, 3),
        (ReasonCode::SERVER_BUSY, 3),
        (ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, 2),
        (ReasonCode::BANNED, 5),
    ];
    scenario(|net| {
        for (reason_code, return_code) in rows {
            net.script().connect = Some(Box::new(move |_| Ok(ConnectVerdict::reject(reason_code))));
            for version in VERSIONS {
                let client = net.open(version);
                net.send(client, &connect_packet(version, "02", 0, "", "c"));
                let v5 = format!("20: 00 {:02X} {{}}", reason_code.0);
                net.expect_closed(client, &if version == V5 { v5 } else { format!("20: 00 {return_code:02X}") });
                let told = format!("disconnect c Refused {:02X}", reason_code.0);
                assert_eq!(net.script().take("disconnect"), [told]);
            }
        }
    });
}

/// [MQTT-3.1.4-2]
#[test]
fn without_an_opinion_only_this_machine_is_let_in() {
    for (peer, allow_anonymous, let_in) in [
        ("127.0.0.1:1", false, true),
        ("[::1]:1", false, true),
        ("[::ffff:127.0.0.1]:1", false, true),
        ("192.0.2.1:1", false, false),
        ("192.0.2.1:1", true, true),
    ] {
        let setup = Setup { plugin: false, allow_anonymous, peer, ..Setup::default() };
        scenario_with(&setup, |net| {
            for (version, refusal) in [(V3_1_1, "20: 00 05"), (V5, "20: 00 87 {}")] {
                let client = net.open(version);
                net.send(client, &connect_packet(version, "02", 0, "", "c"));
                if let_in {
                    net.expect(client, CONNACK);
                } else {
                    net.expect_closed(client, refusal);
                }
            }
        });
    }
}

/// A plugin that accepts has an opinion: with it, clients of other machines are let in.
#[test]
fn with_an_opinion_others_are_let_in() {
    scenario_with(&Setup { peer: "192.0.2.1:1", ..Setup::default() }, |net| {
        for version in VERSIONS {
            net.client(version, "c");
        }
        net.script().auth = Some(Box::new(|_| Ok(plugin_api::AuthVerdict::Ok)));
        net.join(V5, "10: <MQTT> 05 02 0000 {15 <m>} <d>", "20: 00 00 {21 0400 27 01000000 22 0040 15 <m>}");
    });
}

/// How a connection has ended, as `handle_disconnect` hears it, exactly once.
#[test]
fn handlers_hear_how_it_ended() {
    let rows = [
        (V5, "E0:", "Normal 00"),
        (V5, "E0: 04", "WithWill 04"),
        (V5, "E0: 80", "WithWill 80"),
        (V5, "E0: 00 {1F <bye>}", "Normal 00"),
        (V3_1_1, "E0:", "Normal 00"),
        (V3_1, "E0:", "Normal 00"),
        (V5, "F0: 18 {15 <m>}", "ProtocolError 82"),
        (V3_1_1, "36: <t> 0001", "ProtocolError 81"),
        (V3_1_1, "F0:", "ProtocolError 81"),
    ];
    scenario(|net| {
        for (version, packet, told) in rows {
            let client = net.client(version, "c");
            net.send(client, packet);
            net.take(client);
            net.expect_closed(client, "");
            assert_eq!(net.script().take("disconnect"), [format!("disconnect c {told}")], "{packet}");
        }
        let client = net.v5("c");
        net.lose(client);
        assert_eq!(net.script().take("disconnect"), ["disconnect c Closed 80"]);
        // Who has not sent CONNECT has no state, and nobody hears of it.
        let client = net.open(V5);
        net.lose(client);
        assert_eq!(net.script().take("disconnect"), [""; 0]);
    });
}
