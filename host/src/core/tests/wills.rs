//! Will Messages.

use plugin_api::{Disconnect, Message, PublishVerdict, QoS, ReasonCode};

use super::*;

/// A client with a will on the topic `w`. `flags` of CONNECT without Will Flag; properties of CONNECT and of the will.
fn with_will(net: &mut Net, version: ProtocolVersion, flags: u8, properties: &str, will: &str) -> usize {
    let name = if version == V3_1 { "MQIsdp" } else { "MQTT" };
    let level = version as u8;
    let connect =
        format!("10: <{name}> {level:02X} {:02X} 000A [{{{properties}}}] <c> [{{{will}}}] <w> <gone>", flags | 4);
    net.join(version, &connect, CONNACK)
}

/// A client that sees wills.
fn watcher(net: &mut Net) -> usize {
    let watcher = net.v5("watcher");
    net.send(watcher, "82: 0001 {} <w> 0A | 82: 0001 {} <changed> 0A");
    net.expect(watcher, "90: 0001 {} 02 | 90: 0001 {} 02");
    watcher
}

/// [MQTT-3.1.2-10] [MQTT-3.14.4-3] How a connection ends, and whether the will is published.
/// [MQTT-3.1.2-8] [MQTT-3.1.2-22]
#[test]
fn published_unless_the_client_says_goodbye() {
    let ends: [(&str, Option<&str>); 5] = [
        ("E0:", None),
        ("E0: 00 {}", None),
        ("E0: 04", Some("30: <w> {} 'gone'")),
        ("E0: 80", Some("30: <w> {} 'gone'")),
        ("36: <t> {}", Some("30: <w> {} 'gone'")),
    ];
    scenario(|net| {
        let watcher = watcher(net);
        for (end, will) in ends {
            let client = with_will(net, V5, 0x02, "", "");
            net.send(client, end);
            net.take(client);
            net.expect_closed(client, "");
            net.expect(watcher, will.unwrap_or(""));
        }
        for version in VERSIONS {
            let client = with_will(net, version, 0x02, "", "");
            net.send(client, "E0:");
            net.expect_closed(client, "");
            net.expect(watcher, "");
            let client = with_will(net, version, 0x02, "", "");
            net.lose(client);
            net.expect(watcher, "30: <w> {} 'gone'");
            let client = with_will(net, version, 0x02, "", "");
            net.advance(15_000);
            assert!(!net.is_connected(client));
            net.expect(watcher, "30: <w> {} 'gone'");
        }
    });
}

/// [MQTT-3.1.2-14] [MQTT-3.1.2-15] QoS, RETAIN and, in their order, the properties [MQTT-3.1.3-10].
/// [MQTT-3.1.2-9] [MQTT-3.1.2-12]
#[test]
fn published_as_it_was_given() {
    scenario(|net| {
        let watcher = watcher(net);
        for (flags, packet) in
            [(0x0A, "32: <w> 0001"), (0x12, "34: <w> 0002"), (0x2A, "33: <w> 0003"), (0x22, "31: <w>")]
        {
            let properties = "26 <z> <1> 01 01 03 <c> 08 <r> 09 <d> 26 <a> <2>";
            let client = with_will(net, V5, flags, "", &format!("{properties} 18 00000000"));
            net.lose(client);
            net.expect(watcher, &format!("{packet} {{{properties}}} 'gone'"));
            assert_eq!(net.shared.retained.len(), usize::from(flags & 0x20 != 0));
            net.send(watcher, "31: <w> {}");
            net.take(watcher);
        }
    });
}

/// Section 3.1.3.2.2: after its delay, or when the session ends, whichever comes first.
/// [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-10]
#[test]
fn delayed() {
    scenario(|net| {
        let watcher = watcher(net);
        let client = with_will(net, V5, 0x02, "11 00000064", "18 0000000A");
        net.lose(client);
        net.advance(9_999);
        net.expect(watcher, "");
        net.advance(1);
        net.expect(watcher, "30: <w> {} 'gone'");
        net.advance(90_000);
        net.expect(watcher, "");
        assert_eq!(net.script().take("expired"), ["expired c"]);

        let client = with_will(net, V5, 0x02, "11 00000005", "18 0000000A");
        net.lose(client);
        net.advance(4_999);
        net.expect(watcher, "");
        net.advance(1);
        net.expect(watcher, "30: <w> {} 'gone'");
        net.advance(60_000);
        net.expect(watcher, "");

        // The session ends at once.
        let client = with_will(net, V5, 0x02, "", "18 0000000A");
        net.lose(client);
        net.expect(watcher, "30: <w> {} 'gone'");
        // Its lifetime begins when it is published, however early that is [MQTT-3.3.2-6].
        let client = with_will(net, V5, 0x02, "", "18 0000000A 02 00000014");
        net.lose(client);
        net.expect(watcher, "30: <w> {02 00000014} 'gone'");
        // By the client's last word.
        let client = with_will(net, V5, 0x02, "11 00000064", "18 0000000A");
        net.send(client, "E0: 04 {11 00000000}");
        net.expect_closed(client, "");
        net.expect(watcher, "30: <w> {} 'gone'");
    });
}

/// [MQTT-3.1.3-9] Not if the client is back in time; but if it wants a clean start, its old session ends.
/// [MQTT-3.1.2-8]
#[test]
fn delayed_and_the_client_comes_back() {
    scenario(|net| {
        let watcher = watcher(net);
        let client = with_will(net, V5, 0x02, "11 00000064", "18 0000000A");
        net.lose(client);
        net.advance(9_999);
        let client = net.durable(V5, "c", CONNACK_RESUMED);
        net.advance(20_000);
        net.expect(watcher, "");
        net.lose(client);
        net.advance(4_000_000);
        net.expect(watcher, "");

        let client = with_will(net, V5, 0x02, "11 00000064", "18 0000000A");
        net.lose(client);
        net.advance(5_000);
        net.v5("c");
        net.expect(watcher, "30: <w> {} 'gone'");
    });
}

/// The client comes back when the delay has passed, and before anybody has looked: it is too late [MQTT-3.1.3-9].
#[test]
fn delayed_and_the_client_comes_back_too_late() {
    scenario_in(MODES[0], &Setup::default(), |net| {
        let watcher = watcher(net);
        let client = with_will(net, V5, 0x02, "11 00000064", "18 0000000A");
        net.lose(client);
        net.now = net.now + 10_000;
        let client = net.durable(V5, "c", CONNACK_RESUMED);
        net.expect(watcher, "30: <w> {} 'gone'");
        net.lose(client);
        net.advance(4_000_000);
        net.expect(watcher, "");
    });
}

/// A takeover is a loss of the older connection: with a delay the new one cancels its will.
#[test]
fn taken_over() {
    scenario(|net| {
        let watcher = watcher(net);
        let first = with_will(net, V5, 0x02, "11 00000064", "");
        let second = net.durable(V5, "c", CONNACK_RESUMED);
        net.expect_closed(first, "E0: 8E");
        net.expect(watcher, "30: <w> {} 'gone'");
        net.send(second, "E0:");
        net.expect_closed(second, "");

        let first = with_will(net, V5, 0x02, "11 00000064", "18 0000000A");
        net.durable(V5, "c", CONNACK_RESUMED);
        net.expect_closed(first, "E0: 8E");
        net.advance(20_000);
        net.expect(watcher, "");
    });
}

/// Its lifetime begins when it is published.
/// [MQTT-3.3.2-6]
#[test]
fn message_expiry() {
    scenario(|net| {
        let watcher = watcher(net);
        let client = with_will(net, V5, 0x2A, "11 00000064", "02 00000005 18 0000000A");
        net.lose(client);
        net.advance(10_000);
        net.expect(watcher, "33: <w> 0001 {02 00000005} 'gone'");
        assert_eq!(net.shared.retained.len(), 1);
        net.advance(5_000);
        assert_eq!(net.shared.retained.len(), 0);
    });
}

/// Handlers are asked when the connection is lost, before they hear of its end.
#[test]
fn handlers_are_asked_first() {
    scenario(|net| {
        let watcher = watcher(net);
        let client = with_will(net, V5, 0x0A, "", "");
        assert_eq!(
            net.script().calls.last().map(String::as_str),
            Some("connect c v5 keep_alive=10 clean=true user=None password=None will=w")
        );
        net.script().calls.clear();
        net.lose(client);
        let expected = ["publish c w q1 retain=false dup=false id=None will=true", "disconnect c Closed 80"];
        assert_eq!(net.script().calls, expected);
        net.expect(watcher, "32: <w> 0001 {} 'gone'");
    });
}

#[test]
fn handlers_change_it() {
    scenario(|net| {
        let watcher = watcher(net);
        net.script().publish = Some(Box::new(|asked| {
            let message = asked.message.clone().expect("a message");
            let expiry = plugin_api::Property::MessageExpiryInterval(7);
            Ok(PublishVerdict::ForwardChanged(
                Message::new("changed", message.payload).qos(QoS::AtLeastOnce).property(expiry),
            ))
        }));
        for delay in [0, 10] {
            let client = with_will(net, V5, 0x22, "11 00000064", &format!("26 <a> <b> 18 {delay:08X}"));
            net.lose(client);
            net.advance(delay * 1000);
            net.expect(watcher, &format!("32: <changed> {:04X} {{02 00000007}} 'gone'", delay / 10 + 1));
            net.advance(100_000);
        }
    });
}

#[test]
fn handlers_refuse_it() {
    let verdicts: [fn() -> Result<PublishVerdict, plugin_api::Error>; 5] = [
        || Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED)),
        || Ok(PublishVerdict::Handled),
        || Ok(PublishVerdict::Disconnect(Disconnect::new(ReasonCode::NOT_AUTHORIZED))),
        || Err("no".into()),
        || panic!("as scripted"),
    ];
    scenario(|net| {
        let watcher = watcher(net);
        for (index, verdict) in verdicts.into_iter().enumerate() {
            net.script().publish = Some(Box::new(move |_| verdict()));
            let client = with_will(net, V5, 0x02, "11 00000064", if index % 2 == 0 { "" } else { "18 00000005" });
            net.script().calls.clear();
            net.lose(client);
            net.advance(200_000);
            net.expect(watcher, "");
            let told = net.script().calls.iter().filter(|line| line.starts_with("disconnect c Closed")).count();
            // Whose handler has panicked hears nothing more.
            assert_eq!(told, usize::from(index != 4));
        }
    });
}

/// A client that is refused leaves no will behind.
#[test]
fn refused_client_leaves_none() {
    scenario(|net| {
        let watcher = watcher(net);
        net.script().connect = Some(Box::new(|_| Ok(plugin_api::ConnectVerdict::reject(ReasonCode::BANNED))));
        let client = net.open(V5);
        net.send(client, "10: <MQTT> 05 06 0000 {} <c> {} <w> <gone>");
        net.expect_closed(client, "20: 00 8A {}");
        net.expect(watcher, "");
    });
}

#[test]
fn waits_for_a_subscriber_who_is_away() {
    scenario(|net| {
        let to = net.durable(V5, "to", CONNACK);
        net.subscribe(to, "w", 1);
        net.lose(to);
        let client = with_will(net, V5, 0x0A, "", "");
        net.lose(client);
        net.durable(V5, "to", &format!("{CONNACK_RESUMED} | 32: <w> 0001 {{}} 'gone'"));
    });
}

/// One's own will, on a session that stays.
#[test]
fn own_will_waits_in_the_session() {
    scenario(|net| {
        let client = with_will(net, V5, 0x0A, "11 00000064", "");
        net.subscribe(client, "w", 1);
        net.lose(client);
        net.durable(V5, "c", &format!("{CONNACK_RESUMED} | 32: <w> 0001 {{}} 'gone'"));
    });
}
