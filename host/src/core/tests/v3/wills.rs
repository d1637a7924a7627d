//! Will Messages (sections 3.1.2.5 to 3.1.2.7).

use super::*;

/// A client with a will on the topic `w`; `flags` without the Will Flag.
fn with_will(net: &mut Net, version: ProtocolVersion, flags: u8, connack: &str) -> usize {
    let name = if version == V3_1 { "MQIsdp" } else { "MQTT" };
    let connect = format!("10: <{name}> {:02X} {:02X} 000A <c> <w> <gone>", version as u8, flags | 4);
    net.join(version, &connect, connack)
}

fn watcher(net: &mut Net, version: ProtocolVersion) -> usize {
    let watcher = net.client(version, "watcher");
    net.subscribe(watcher, "w", 2);
    watcher
}

/// [MQTT-3.1.2-8@3.1.1] [MQTT-3.1.2-10@3.1.1] Published once when the connection is closed, whoever closes it and why,
/// and then forgotten; [MQTT-3.1.2-24@3.1.1] also when the Keep Alive has passed.
#[test]
fn published_when_the_connection_is_closed() {
    for version in OLD {
        scenario(|net| {
            let watcher = watcher(net, version);
            let mut connack = "20: 00 00";
            for how in ["loss", "silence", "violation", "second CONNECT", "takeover"] {
                let client = with_will(net, version, 0, connack);
                connack = resumed(version);
                net.expect(watcher, "");
                match how {
                    "loss" => net.lose(client),
                    "silence" => net.advance(15_000),
                    "violation" => net.send(client, "36: <t> 0001 'x'"),
                    "second CONNECT" => net.send(client, &connect_packet(version, "00", 0, "", "c")),
                    _ => {
                        let client = net.durable(version, "c", connack);
                        net.lose(client);
                    }
                }
                assert!(!net.is_connected(client), "{how}");
                net.expect(watcher, "30: <w> 'gone'");
                // It belonged to that connection: the next one has none.
                let client = net.durable(version, "c", connack);
                net.lose(client);
                net.expect(watcher, "");
            }
        });
    }
}

/// [MQTT-3.14.4-3@3.1.1] [MQTT-3.1.2-10@3.1.1] Discarded at DISCONNECT, behind which nothing is looked at.
#[test]
fn discarded_at_disconnect() {
    for version in OLD {
        scenario(|net| {
            let watcher = watcher(net, version);
            for (flags, connack) in [(0, "20: 00 00"), (0x20, resumed(version)), (2, "20: 00 00")] {
                let client = with_will(net, version, flags, connack);
                net.send(client, "E0: | 30: <w> 'behind' | C0:");
                net.expect_closed(client, "");
                net.advance(1_000_000);
                net.expect(watcher, "");
            }
            assert!(net.shared.retained.is_empty());
        });
    }
}

/// [MQTT-3.1.2-9@3.1.1] [MQTT-3.1.2-14@3.1.1] [MQTT-3.1.2-16@3.1.1] [MQTT-3.1.2-17@3.1.1] With the QoS that CONNECT has
/// given, and retained if it says so.
#[test]
fn published_as_connect_says() {
    for version in OLD {
        scenario(|net| {
            let watcher = watcher(net, version);
            for (flags, live, retained) in [
                (0x02, "30: <w> 'gone'", ""),
                (0x0A, "32: <w> 0001 'gone'", ""),
                (0x12, "34: <w> 0002 'gone'", ""),
                (0x22, "30: <w> 'gone'", "31: <w> 'gone'"),
                (0x2A, "32: <w> 0003 'gone'", "33: <w> 0001 'gone'"),
                (0x32, "34: <w> 0004 'gone'", "35: <w> 0001 'gone'"),
            ] {
                let client = with_will(net, version, flags, "20: 00 00");
                net.lose(client);
                net.expect(watcher, live);
                let late = net.client(version, "late");
                net.send(late, "82: 0001 <w> 02");
                net.expect(late, &format!("90: 0001 02 | {retained}"));
                net.send(late, "A2: 0001 <w> | 31: <w>");
                net.expect(watcher, "30: <w>");
                net.lose(late);
            }
        });
    }
}

/// [MQTT-3.1.2-12@3.1.1] Without the Will Flag there is none.
#[test]
fn none_without_the_will_flag() {
    for version in OLD {
        scenario(|net| {
            let watcher = net.client(version, "watcher");
            net.subscribe(watcher, "#", 0);
            let client = net.client(version, "c");
            net.lose(client);
            let client = net.join(version, &connect_packet(version, "02", 10, "", "c"), "20: 00 00");
            net.advance(15_000);
            net.expect_closed(client, "");
            net.expect(watcher, "");
        });
    }
}

/// [MQTT-3.1.2-8@3.1.1] It is stored if CONNECT is accepted, so a client that is refused leaves none.
#[test]
fn refused_client_leaves_none() {
    scenario(|net| {
        let watcher = watcher(net, V3_1_1);
        net.script().connect =
            Some(Box::new(|_| Ok(plugin_api::ConnectVerdict::reject(plugin_api::ReasonCode::BANNED))));
        let client = net.open(V3_1_1);
        net.send(client, "10: <MQTT> 04 06 0000 <c> <w> <gone>");
        net.expect_closed(client, "20: 00 05");
        net.expect(watcher, "");
    });
}

/// It waits for subscribers who are away, as any message does (section 3.1.2.5 publishes it, and 4.5 does the rest).
#[test]
fn waits_for_who_is_away() {
    for version in OLD {
        scenario(|net| {
            let to = net.durable(version, "to", "20: 00 00");
            net.subscribe(to, "w", 1);
            net.lose(to);
            let client = with_will(net, version, 0x0A, "20: 00 00");
            net.lose(client);
            net.durable(version, "to", &format!("{} | 32: <w> 0001 'gone'", resumed(version)));
        });
    }
}
