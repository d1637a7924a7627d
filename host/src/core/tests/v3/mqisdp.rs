//! What is different in MQTT 3.1, whose protocol name is `MQIsdp`.

use plugin_api::{PublishVerdict, ReasonCode, SubscribeVerdict};

use super::*;

/// Name and level belong together; what asks for another level of this name is told return code 1.
#[test]
fn protocol_name_and_level() {
    scenario(|net| {
        net.join(V3_1, "10: <MQIsdp> 03 02 003C <c>", "20: 00 00");
        for packet in ["10: <MQIsdp> 04 02 0000 <c>", "10: <MQTT> 03 02 0000 <c>", "10: <MQIsdp> 83 02 0000 <c>"] {
            let client = net.open(V3_1);
            net.send(client, packet);
            net.expect_closed(client, "20: 00 01");
        }
    });
}

/// From 1 character on, and not empty; more than 23 are let in, where 3.1 has them refused: clients with longer ones were
/// common even then.
#[test]
fn client_identifiers() {
    scenario(|net| {
        for client_id in ["c", "0123456789abcdefghijklm", "0123456789abcdefghijklmn"] {
            net.client(V3_1, client_id);
            assert!(net.session(client_id).is_some());
        }
        for flags in ["00", "02"] {
            let client = net.open(V3_1);
            net.send(client, &connect_packet(V3_1, flags, 0, "", ""));
            net.expect_closed(client, "20: 00 02");
        }
    });
}

/// The first byte of CONNACK's variable header is reserved: no Session Present.
#[test]
fn connack_has_no_flags() {
    scenario(|net| {
        for _ in 0..2 {
            let client = net.durable(V3_1, "c", "20: 00 00");
            net.lose(client);
        }
    });
}

/// The packet's length takes precedence over the flags of User Name and Password; a Password alone is not valid.
#[test]
fn user_name_and_password_may_be_missing() {
    scenario(|net| {
        for (packet, seen) in [
            ("10: <MQIsdp> 03 C2 0000 <c>", "user=None password=None will="),
            ("10: <MQIsdp> 03 C2 0000 <c> <u>", "user=Some(\"u\") password=None will="),
            ("10: <MQIsdp> 03 C6 0000 <c> <w> <gone>", "user=None password=None will=w"),
            ("10: <MQIsdp> 03 C2 0000 <c> <u> <p>", "user=Some(\"u\") password=Some(\"p\") will="),
        ] {
            let client = net.join(V3_1, packet, "20: 00 00");
            assert_eq!(net.script().take("connect"), [format!("connect c v3 keep_alive=0 clean=true {seen}")]);
            net.send(client, "E0:");
            net.expect_closed(client, "");
        }
        for packet in ["10: <MQIsdp> 03 42 0000 <c> <p>", "10: <MQIsdp> 03 42 0000 <c>"] {
            let client = net.open(V3_1);
            net.send(client, packet);
            net.expect_closed(client, "");
        }
    });
}

/// Bits of CONNECT that 3.1 does not use are not looked at.
#[test]
fn unused_bits_of_connect() {
    scenario(|net| {
        for packet in ["1F: <MQIsdp> 03 03 0000 <c>", "10: <MQIsdp> 03 3A 0000 <c>", "10: <MQIsdp> 03 22 0000 <c>"] {
            let client = net.join(V3_1, packet, "20: 00 00");
            assert!(net.script().take("connect")[0].ends_with("will="));
            net.send(client, "E0:");
            net.expect_closed(client, "");
        }
        // What there is has to be right all the same.
        let client = net.open(V3_1);
        net.send(client, "10: <MQIsdp> 03 1E 0000 <c> <w> <gone>");
        net.expect_closed(client, "");
    });
}

/// PUBREL, SUBSCRIBE and UNSUBSCRIBE are QoS 1 packets, which a client sends again with DUP; each is answered.
#[test]
fn packets_that_are_sent_again_with_dup() {
    scenario(|net| {
        let client = net.client(V3_1, "c");
        net.send(client, "82: 0001 <t> 01 | 8A: 0001 <t> 01");
        net.expect(client, "90: 0001 01 | 90: 0001 01");
        net.send(client, "34: <t> 0002 'x' | 3C: <t> 0002 'x' | 62: 0002 | 6A: 0002");
        net.expect(client, "50: 0002 | 50: 0002 | 32: <t> 0001 'x' | 70: 0002 | 70: 0002");
        net.send(client, "A2: 0003 <t> | AA: 0003 <t> | 32: <t> 0004 'y'");
        net.expect(client, "B0: 0003 | B0: 0003 | 40: 0004");
    });
}

/// Flags that a packet does not use are not looked at, as long as its QoS is 1 where it has one.
#[test]
fn unused_flags() {
    scenario(|net| {
        let client = net.client(V3_1, "c");
        net.send(client, "8B: 0001 <t> 00 | C9: | 32: <t> 0002 'x'");
        net.expect(client, "90: 0001 00 | D0: | 30: <t> 'x' | 40: 0002");
        net.send(client, "AB: 0003 <t> | CF: | EF:");
        net.expect_closed(client, "B0: 0003 | D0:");
        for packet in ["80: 0001 <t> 00", "84: 0001 <t> 00", "60: 0001", "A0: 0001 <t>"] {
            let client = net.client(V3_1, "c");
            net.send(client, packet);
            net.expect_closed(client, "");
        }
    });
}

/// The upper six bits of a requested QoS are not used; QoS 3 is none.
#[test]
fn requested_qos() {
    scenario(|net| {
        let client = net.client(V3_1, "c");
        net.send(client, "82: 0001 <a> FC <b> 05 <c> 82");
        net.expect(client, "90: 0001 00 01 02");
        net.send(client, "82: 0001 <a> 03");
        net.expect_closed(client, "");
    });
}

/// SUBACK has the granted QoS and no code for a failure: who may not subscribe is told of a subscription, and gets nothing.
#[test]
fn subscription_that_fails() {
    scenario(|net| {
        let (from, to) = (net.client(V3_1, "from"), net.client(V3_1, "to"));
        net.script().subscribe = Some(Box::new(|_| {
            Ok(SubscribeVerdict::Codes(vec![ReasonCode::GRANTED_QOS_1, ReasonCode::NOT_AUTHORIZED]))
        }));
        net.send(to, "82: 0001 <a> 02 <b> 02");
        net.expect(to, "90: 0001 01 02");
        net.script().subscribe = None;
        net.send(to, "82: 0002 <c#> 01 <> 00 <d> 00");
        net.expect(to, "90: 0002 01 00 00");
        net.send(from, "30: <a> 'x' | 30: <b> 'x' | 30: <c> 'x' | 30: <d> 'x'");
        net.expect(to, "30: <a> 'x' | 30: <d> 'x'");
    });
}

/// Nor is who may not publish told of it.
#[test]
fn publish_that_is_not_authorized() {
    scenario(|net| {
        let (from, to) = (net.client(V3_1, "from"), net.client(V3_1, "to"));
        net.subscribe(to, "#", 0);
        net.script().publish = Some(Box::new(|_| Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED))));
        net.send(from, "31: <t> 'x' | 33: <t> 0001 'x' | 35: <t> 0002 'x' | 6A: 0002");
        net.expect(from, "40: 0001 | 50: 0002 | 70: 0002");
        net.expect(to, "");
    });
}

/// Resending, of which 3.1 leaves open whether a server does it on a connection as well: here only on the next one, with
/// DUP for PUBLISH, and PUBREL as 3.1.1 has it.
#[test]
fn redelivery() {
    scenario(|net| {
        let from = net.client(V3_1, "from");
        let to = net.durable(V3_1, "to", "20: 00 00");
        net.subscribe(to, "t", 2);
        net.send(from, "32: <t> 0001 '1' | 34: <t> 0002 '2' | 62: 0002 | 34: <t> 0003 '3' | 62: 0003");
        net.expect(to, "32: <t> 0001 '1' | 34: <t> 0002 '2' | 34: <t> 0003 '3'");
        net.send(to, "50: 0003");
        net.expect(to, "62: 0003");
        net.advance(24 * 3600 * 1000);
        net.expect(to, "");
        net.lose(to);
        let to = net.durable(V3_1, "to", "20: 00 00 | 3A: <t> 0001 '1' | 3C: <t> 0002 '2' | 62: 0003");
        net.send(to, "40: 0001 | 50: 0002 | 70: 0003 | 70: 0002");
        net.expect(to, "62: 0002");
    });
}

/// Strings are UTF-8; 3.1 says no more of it, and we ask of it what 3.1.1 does.
#[test]
fn strings_that_are_not_utf_8() {
    scenario(|net| {
        for packet in ["30: 0001 FF 'x'", "30: 0001 00 'x'", "82: 0001 0003 EDA080 00", "30: <> 'x'", "30: <a/+> 'x'"] {
            let client = net.client(V3_1, "c");
            net.send(client, packet);
            net.expect_closed(client, "");
        }
        let client = net.open(V3_1);
        net.send(client, "10: <MQIsdp> 03 02 0000 0001 FF");
        net.expect_closed(client, "");
    });
}

/// A session does not know by which version it was made: a client that has been upgraded finds what it had.
#[test]
fn session_is_found_by_a_later_version() {
    scenario(|net| {
        let from = net.client(V3_1, "from");
        let old = net.durable(V3_1, "c", "20: 00 00");
        net.subscribe(old, "t", 1);
        net.lose(old);
        net.send(from, "32: <t> 0001 'x'");
        let new = net.durable(V3_1_1, "c", "20: 01 00 | 32: <t> 0001 'x'");
        net.lose(new);
        net.durable(V3_1, "c", "20: 00 00 | 3A: <t> 0001 'x'");
    });
}
