//! CONNECT that is accepted: Client Identifiers, Session Present, Keep Alive, takeover.

use super::*;
use crate::core::tests::net::{bytes, split};

/// [MQTT-3.1.4-4@3.1.1] [MQTT-3.2.0-1@3.1.1] CONNACK comes before all else, even if more was sent behind CONNECT.
#[test]
fn connack_comes_first() {
    scenario(|net| {
        for version in OLD {
            let client = net.open(version);
            let connect = connect_packet(version, "02", 60, "", "c");
            net.send(client, &format!("{connect} | C0: | 82: 0001 <t> 01 | 32: <t> 0002 'x'"));
            net.expect(client, "20: 00 00 | D0: | 90: 0001 01 | 32: <t> 0001 'x' | 40: 0002");
        }
    });
}

/// [MQTT-3.1.3-1@3.1.1] [MQTT-3.1.3-3@3.1.1] The fields of the payload in their order; [MQTT-3.1.2-9@3.1.1]
/// [MQTT-3.1.2-19@3.1.1] [MQTT-3.1.2-21@3.1.1] those whose flags are set are there.
#[test]
fn payload_has_the_fields_that_flags_announce() {
    scenario(|net| {
        for (packet, seen) in [
            ("10: <MQTT> 04 02 000A <a>", "a v4 keep_alive=10 clean=true user=None password=None will="),
            ("10: <MQTT> 04 26 000A <b> <w> <m>", "b v4 keep_alive=10 clean=true user=None password=None will=w"),
            ("10: <MQTT> 04 82 000A <c> <u>", "c v4 keep_alive=10 clean=true user=Some(\"u\") password=None will="),
            (
                "10: <MQTT> 04 C0 FFFF <d> <u> 0000",
                "d v4 keep_alive=65535 clean=false user=Some(\"u\") password=Some(\"\") will=",
            ),
            (
                "10: <MQTT> 04 F6 0000 <e> <w> <m> <u> <p>",
                "e v4 keep_alive=0 clean=true user=Some(\"u\") password=Some(\"p\") will=w",
            ),
        ] {
            net.join(V3_1_1, packet, "20: 00 00");
            assert_eq!(net.script().take("connect"), [format!("connect {seen}")]);
        }
    });
}

/// [MQTT-3.1.3-5@3.1.1] From 1 to 23 bytes of digits and letters; beyond that we are lenient, as the specification allows.
#[test]
fn client_identifiers_that_are_accepted() {
    scenario(|net| {
        for client_id in [
            "a",
            "0123456789abcdefghijklm",
            "nopqrstuvwxyzABCDEFGHIJ",
            "KLMNOPQRSTUVWXYZ",
            "0123456789abcdefghijklmn",
            "with/other #+$ characters, and more than twenty-three of them",
            "\u{FEFF}\u{FC}\u{1F600}",
        ] {
            for version in OLD {
                let client = net.client(version, client_id);
                assert!(net.session(client_id).is_some());
                net.lose(client);
            }
        }
    });
}

/// [MQTT-3.1.3-2@3.1.1] A session belongs to exactly this Client Identifier, byte by byte.
#[test]
fn client_identifier_finds_its_own_session() {
    scenario(|net| {
        let from = net.client(V3_1_1, "from");
        let names = ["client", "Client", "client ", "clien", "\u{FEFF}client"];
        for (number, name) in names.into_iter().enumerate() {
            let client = net.durable(V3_1_1, name, "20: 00 00");
            net.subscribe(client, &format!("t/{number}"), 1);
            net.lose(client);
        }
        for number in 0..names.len() {
            net.send(from, &format!("32: <t/{number}> 0001 {number:02X}"));
        }
        for (number, name) in names.into_iter().enumerate() {
            net.durable(V3_1_1, name, &format!("20: 01 00 | 32: <t/{number}> 0001 {number:02X}"));
        }
    });
}

/// [MQTT-3.1.3-6@3.1.1] An empty one is replaced with one of its own for each client, and serves as any other.
#[test]
fn empty_client_identifier_is_assigned() {
    scenario(|net| {
        let clients = [(); 3].map(|()| net.join(V3_1_1, "10: <MQTT> 04 02 0000 <>", "20: 00 00"));
        assert_eq!(net.cores.iter().map(|core| core.by_client.len()).sum::<usize>(), 3);
        assert!(net.session("").is_none());
        for client in clients {
            net.subscribe(client, "t", 1);
        }
        net.send(clients[0], "32: <t> 0007 'x'");
        // An acknowledgement may overtake what goes to many.
        let got = net.take(clients[0]);
        let mut packets = split(&got);
        packets.sort_unstable();
        assert_eq!(packets.concat(), bytes(V3_1_1, "32: <t> 0001 'x' | 40: 0007"));
        net.expect(clients[1], "32: <t> 0001 'x'");
        net.expect(clients[2], "32: <t> 0001 'x'");
    });
}

/// [MQTT-3.2.2-1@3.1.1] [MQTT-3.2.2-2@3.1.1] [MQTT-3.2.2-3@3.1.1] [MQTT-3.1.4-3@3.1.1] With a clean session it is 0
/// whatever there was; otherwise it says whether there was one.
#[test]
fn session_present() {
    scenario(|net| {
        for (clean, connack) in [
            (false, "20: 00 00"),
            (false, "20: 01 00"),
            (false, "20: 01 00"),
            (true, "20: 00 00"),
            (true, "20: 00 00"),
            (false, "20: 00 00"),
            (false, "20: 01 00"),
        ] {
            let connect = connect_packet(V3_1_1, if clean { "02" } else { "00" }, 0, "", "c");
            let client = net.join(V3_1_1, &connect, connack);
            net.lose(client);
        }
    });
}

/// [MQTT-3.1.4-2@3.1.1] The older connection is closed, without a word as 3.1.1 has none, and the new one goes on.
#[test]
fn client_that_is_connected_already_is_disconnected() {
    for version in OLD {
        scenario(|net| {
            let first = net.durable(version, "c", "20: 00 00");
            net.subscribe(first, "t", 1);
            let second = net.durable(version, "c", resumed(version));
            net.expect_closed(first, "");
            net.send(second, "32: <t> 0001 'x'");
            net.expect(second, "32: <t> 0001 'x' | 40: 0001");
            // With a clean session nothing is left of what the older one had.
            let third = net.client(version, "c");
            net.expect_closed(second, "");
            net.send(third, "32: <t> 0001 'x'");
            net.expect(third, "40: 0001");
        });
    }
}

/// [MQTT-3.1.2-24@3.1.1] One and a half times the Keep Alive, to the millisecond, from the last whole packet on; what
/// the client has left is treated as after a failure of the network.
#[test]
fn keep_alive() {
    for version in OLD {
        scenario(|net| {
            let watcher = net.client(version, "watcher");
            net.subscribe(watcher, "w", 0);
            let name = if version == V3_1 { "MQIsdp" } else { "MQTT" };
            let connect = format!("10: <{name}> {:02X} 04 000A <c> <w> <gone>", version as u8);
            let client = net.join(version, &connect, "20: 00 00");
            net.subscribe(client, "t", 1);
            for packet in ["C0:", "30: <x> 'y'", "62: 0001", "82: 0F02 <u> 00", "A2: 0F03 <u>"] {
                net.advance(14_999);
                net.send(client, packet);
                net.take(client);
                assert!(net.is_connected(client), "{packet}");
            }
            // What is sent to the client does not count, nor does half a packet from it.
            net.advance(14_000);
            net.send(watcher, "30: <t> 'to the client'");
            net.send_bytes(client, &[0xC0]);
            net.advance(999);
            net.expect(client, "30: <t> 'to the client'");
            net.advance(1);
            net.expect_closed(client, "");
            net.expect(watcher, "30: <w> 'gone'");
            // Its session is kept.
            net.durable(version, "c", resumed(version));
        });
    }
}

/// A Keep Alive of 0 turns the mechanism off (section 3.1.2.10).
#[test]
fn without_keep_alive_a_client_may_be_silent() {
    scenario(|net| {
        let clients = OLD.map(|version| net.client(version, &format!("v{}", version as u8)));
        net.advance(30 * 24 * 3600 * 1000);
        for client in clients {
            net.send(client, "C0:");
            net.expect(client, "D0:");
        }
    });
}

/// [MQTT-3.12.4-1@3.1.1]
#[test]
fn ping_is_answered() {
    scenario(|net| {
        for version in OLD {
            let client = net.client(version, "c");
            net.send(client, "C0: | C0:");
            net.expect(client, "D0: | D0:");
        }
    });
}
