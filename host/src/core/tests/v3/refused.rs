//! CONNECT that is not accepted: with a return code where there is one, and without a word otherwise.

use plugin_api::{ConnectVerdict, ReasonCode};

use super::*;

/// Sends packets on a connection of its own. The answer is this, and then the connection is closed; handlers have heard
/// nothing of it.
#[track_caller]
fn refused(net: &mut Net, packets: &str, answer: &str) {
    let client = net.open(V3_1_1);
    net.send(client, packets);
    net.expect_closed(client, answer);
    assert!(net.script().calls.is_empty(), "{packets}: {:?}", net.script().calls);
}

/// [MQTT-3.1.0-1@3.1.1] Nothing but CONNECT is understood at first.
#[test]
fn first_packet_is_not_connect() {
    scenario(|net| {
        for packet in ["20: 00 00", "30: <t> 'x'", "32: <t> 0001 'x'", "40: 0001", "62: 0001", "82: 0001 <t> 00"] {
            refused(net, packet, "");
        }
        for packet in ["A2: 0001 <t>", "C0:", "D0:", "E0:", "F0:", "00:"] {
            refused(net, packet, "");
        }
    });
}

/// [MQTT-3.1.0-2@3.1.1] It is not answered, not even with a refusal, and ends the connection.
#[test]
fn second_connect() {
    scenario(|net| {
        for version in OLD {
            let client = net.client(version, "c");
            let connect = connect_packet(version, "02", 0, "", "c");
            net.send(client, &format!("{connect} | C0:"));
            net.expect_closed(client, "");
            // One behind the first, in the same piece.
            let client = net.open(version);
            net.send(client, &format!("{connect} | {connect} | C0:"));
            net.expect_closed(client, "20: 00 00");
        }
    });
}

/// [MQTT-3.1.2-1@3.1.1] Something else than MQTT is not answered.
#[test]
fn protocol_name() {
    scenario(|net| {
        for name in ["<HTTP>", "<mqtt>", "<MQTT2>", "<MQT>", "<>", "0005 'MQTT'", "<MQTT >", "<MQISDP>"] {
            refused(net, &format!("10: {name} 04 02 0000 <c>"), "");
        }
    });
}

/// [MQTT-3.1.2-2@3.1.1] [MQTT-3.2.2-5@3.1.1] Return code 1, and then the connection is closed. (A level above 5 is of a
/// successor of 5.0, whose own form of the answer it gets.)
#[test]
fn protocol_level() {
    scenario(|net| {
        for level in [0, 1, 2, 3, 0x83, 0x84, 0xFF] {
            refused(net, &format!("10: <MQTT> {level:02X} 02 0000 <c> | C0:"), "20: 00 01");
        }
        for level in [0, 1, 2, 4, 5, 6, 0x83] {
            refused(net, &format!("10: <MQIsdp> {level:02X} 02 0000 <c> | C0:"), "20: 00 01");
        }
        refused(net, "10: <MQTT> 06 02 0000 <c> | C0:", "20: 00 84 {}");
    });
}

/// [MQTT-3.1.4-1@3.1.1] What is not well-formed is not answered.
#[test]
fn connect_that_is_not_well_formed() {
    let rows = [
        // [MQTT-2.2.2-2@3.1.1] Flags of the fixed header.
        "11: <MQTT> 04 02 0000 <c>",
        "18: <MQTT> 04 02 0000 <c>",
        // [MQTT-3.1.2-3@3.1.1] The reserved bit of the Connect Flags.
        "10: <MQTT> 04 03 0000 <c>",
        // [MQTT-3.1.2-9@3.1.1] The Will Flag without Will Topic, or without Will Message.
        "10: <MQTT> 04 06 0000 <c>",
        "10: <MQTT> 04 06 0000 <c> <w>",
        // [MQTT-3.1.2-11@3.1.1] [MQTT-3.1.2-13@3.1.1] Without it, a Will QoS,
        "10: <MQTT> 04 0A 0000 <c>",
        "10: <MQTT> 04 12 0000 <c>",
        "10: <MQTT> 04 1A 0000 <c>",
        // [MQTT-3.1.2-15@3.1.1] a Will Retain,
        "10: <MQTT> 04 22 0000 <c>",
        // or the fields of a will.
        "10: <MQTT> 04 02 0000 <c> <w> <gone>",
        // [MQTT-3.1.2-14@3.1.1] Will QoS 3.
        "10: <MQTT> 04 1E 0000 <c> <w> <gone>",
        // [MQTT-3.1.2-18@3.1.1] [MQTT-3.1.2-19@3.1.1] User Name and its flag.
        "10: <MQTT> 04 02 0000 <c> <u>",
        "10: <MQTT> 04 82 0000 <c>",
        // [MQTT-3.1.2-20@3.1.1] [MQTT-3.1.2-21@3.1.1] Password and its flag.
        "10: <MQTT> 04 82 0000 <c> <u> <p>",
        "10: <MQTT> 04 C2 0000 <c> <u>",
        // [MQTT-3.1.2-22@3.1.1] A Password without User Name.
        "10: <MQTT> 04 42 0000 <c> <p>",
        "10: <MQTT> 04 42 0000 <c> <u> <p>",
        // [MQTT-3.1.3-3@3.1.1] No Client Identifier.
        "10: <MQTT> 04 02 0000",
        "10: <MQTT> 04 02 0000 0002 'c'",
        // [MQTT-3.1.3-4@3.1.1] [MQTT-1.5.3-1@3.1.1] [MQTT-1.5.3-2@3.1.1] Strings that are not UTF-8 or have U+0000:
        "10: <MQTT> 04 02 0000 0001 FF",
        "10: <MQTT> 04 02 0000 0003 EDA080",
        "10: <MQTT> 04 02 0000 0001 00",
        // [MQTT-3.1.3-10@3.1.1] the Will Topic,
        "10: <MQTT> 04 06 0000 <c> 0002 C328 <gone>",
        "10: <MQTT> 04 06 0000 <c> 0002 'w' 00 <gone>",
        // [MQTT-3.1.3-11@3.1.1] the User Name.
        "10: <MQTT> 04 82 0000 <c> 0001 80",
        "10: <MQTT> 04 82 0000 <c> 0001 00",
        // [MQTT-4.7.3-1@3.1.1] [MQTT-4.7.1-1@3.1.1] An empty Will Topic, or one with wildcards.
        "10: <MQTT> 04 06 0000 <c> <> <gone>",
        "10: <MQTT> 04 06 0000 <c> <w/+> <gone>",
        "10: <MQTT> 04 06 0000 <c> <#> <gone>",
        // Cut off.
        "10: <MQTT> 04 02 00",
        "10: <MQTT> 04",
        "10: <MQTT>",
        "10:",
    ];
    scenario(|net| {
        for packet in rows {
            refused(net, &format!("{packet} | C0:"), "");
        }
    });
}

/// [MQTT-3.1.3-8@3.1.1] [MQTT-3.2.2-5@3.1.1] Nobody could find the session of an empty Client Identifier again.
#[test]
fn empty_client_identifier_without_clean_session() {
    scenario(|net| {
        refused(net, "10: <MQTT> 04 00 0000 <> | C0:", "20: 00 02");
        assert_eq!(net.cores.iter().map(|core| core.sessions.len()).sum::<usize>(), 0);
    });
}

/// [MQTT-3.1.3-9@3.1.1] One that is beyond the bound, or that a handler does not want.
#[test]
fn client_identifier_is_rejected() {
    scenario_with(&Setup::limits(|limits| limits.client_id_bytes_max = 23), |net| {
        refused(net, "10: <MQTT> 04 02 0000 <0123456789abcdefghijklmn> | C0:", "20: 00 02");
        net.client(V3_1_1, "0123456789abcdefghijklm");
        net.script().connect = Some(Box::new(|_| Ok(ConnectVerdict::reject(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID))));
        let client = net.open(V3_1_1);
        net.send(client, "10: <MQTT> 04 02 0000 <c> | C0:");
        net.expect_closed(client, "20: 00 02");
    });
}

/// [MQTT-3.1.4-5@3.1.1] [MQTT-3.2.2-4@3.1.1] [MQTT-3.2.2-5@3.1.1] What stands behind a refused CONNECT is not looked at,
/// and Session Present is 0 even though there is a session, which is left as it was.
#[test]
fn refused_client_gets_a_return_code() {
    let rows = [
        (ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, 1),
        (ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, 2),
        (ReasonCode::SERVER_UNAVAILABLE, 3),
        (ReasonCode::BAD_USER_NAME_OR_PASSWORD, 4),
        (ReasonCode::NOT_AUTHORIZED, 5),
    ];
    for version in OLD {
        scenario(|net| {
            let watcher = net.client(version, "watcher");
            net.subscribe(watcher, "#", 0);
            let client = net.durable(version, "c", "20: 00 00");
            net.subscribe(client, "t", 1);
            net.lose(client);
            for (reason_code, return_code) in rows {
                net.script().calls.clear();
                net.script().connect = Some(Box::new(move |_| Ok(ConnectVerdict::reject(reason_code))));
                let client = net.open(version);
                for flags in ["00", "02"] {
                    let connect = connect_packet(version, flags, 0, "", "c");
                    net.send(client, &format!("{connect} | 30: <t> 'x' | 82: 0001 <t> 00 | C0:"));
                }
                net.expect_closed(client, &format!("20: 00 {return_code:02X}"));
                let calls = std::mem::take(&mut net.script().calls);
                assert!(calls.iter().all(|call| call.starts_with("connect") || call.starts_with("disconnect")));
            }
            net.script().connect = None;
            net.expect(watcher, "");
            let client = net.durable(version, "c", resumed(version));
            net.send(watcher, "30: <t> 'y'");
            net.expect(client, "30: <t> 'y'");
            net.expect(watcher, "30: <t> 'y'");
        });
    }
}

/// [MQTT-3.2.2-6@3.1.1] No return code says what is wrong with a will that the server does not take.
#[test]
fn refused_without_a_return_code_that_would_fit() {
    let setup = Setup::limits(|limits| {
        limits.maximum_qos = plugin_api::QoS::AtLeastOnce;
        limits.topic_levels_max = 3;
    });
    scenario_with(&setup, |net| {
        for (flags, topic) in [("16", "w"), ("06", "a/b/c/d")] {
            let client = net.open(V3_1_1);
            net.send(client, &format!("10: <MQTT> 04 {flags} 0000 <c> <{topic}> <gone> | C0:"));
            net.expect_closed(client, "");
        }
        for reason_code in
            [ReasonCode::QOS_NOT_SUPPORTED, ReasonCode::PAYLOAD_FORMAT_INVALID, ReasonCode::PACKET_TOO_LARGE]
        {
            net.script().connect = Some(Box::new(move |_| Ok(ConnectVerdict::reject(reason_code))));
            let client = net.open(V3_1_1);
            net.send(client, "10: <MQTT> 04 02 0000 <c> | C0:");
            net.expect_closed(client, "");
        }
    });
}
