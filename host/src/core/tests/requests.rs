//! What plugins ask for: publishing, messages for `handle_info`, disconnecting; and the end of the server.

use std::time::Duration;

use plugin_api::{ConnectionId, Disconnect, InfoAction, InfoTarget, Message, Property, QoS, ReasonCode};

use super::net::connect_packet;
use super::*;
use crate::core::mail::Mail;

#[test]
fn publish() {
    for version in VERSIONS {
        scenario(|net| {
            let (a, b) = (net.client(version, "a"), net.client(version, "b"));
            net.subscribe(a, "t", 1);
            net.subscribe(b, "+", 2);
            let host = net.script().host();
            let message =
                Message::new("t", "x").qos(QoS::ExactlyOnce).retain(true).property(Property::UserProperty("a", "b"));
            host.publish(&message).expect("there is room");
            net.settle();
            net.expect(a, "32: <t> 0001 [{26 <a> <b>}] 'x'");
            net.expect(b, "34: <t> 0001 [{26 <a> <b>}] 'x'");
            let late = net.client(version, "late");
            net.send(late, "82: 0001 [{}] <t> 00");
            net.expect(late, "90: 0001 [{}] 00 | 31: <t> [{26 <a> <b>}] 'x'");
            // It does not come by the plugin's own handle_publish.
            assert_eq!(net.script().take("publish"), [""; 0]);
        });
    }
}

/// A handler that publishes from within a callback.
#[test]
fn publish_inside_a_callback() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "#", 1);
        let host = net.script().host();
        net.script().publish = Some(Box::new(move |asked| {
            let topic = format!("echo/{}", asked.message.as_ref().expect("a message").topic);
            host.publish(&Message::new(topic, "x")).expect("there is room");
            Ok(plugin_api::PublishVerdict::Forward)
        }));
        net.send(from, "32: <t> 0001 {} 'x'");
        net.expect(from, "40: 0001");
        net.expect(to, "32: <t> 0001 {} 'x' | 30: <echo/t> {} 'x'");
    });
}

fn send_info(net: &mut Net, target: InfoTarget<'_>, kind: &str, delay_ms: u64) {
    let host = net.script().host();
    host.send_info(target, kind, b"data", Some(Duration::from_millis(delay_ms))).expect("there is room");
    net.settle();
}

#[test]
fn info_reaches_its_target() {
    scenario(|net| {
        let clients = ["a", "b", "c", "d"].map(|name| net.v5(name));
        let gone = net.durable(V5, "gone", CONNACK);
        let gone_id = ConnectionId(net.connection_id(gone));
        net.lose(gone);
        let _not_yet = net.open(V5);
        net.script().calls.clear();
        let id = ConnectionId(net.connection_id(clients[1]));
        send_info(net, InfoTarget::Connection(id), "one", 0);
        assert_eq!(net.script().take("info"), ["info b one Plugin"]);
        send_info(net, InfoTarget::Client("c"), "two", 0);
        assert_eq!(net.script().take("info"), ["info c two Plugin"]);
        send_info(net, InfoTarget::Client("gone"), "three", 0);
        send_info(net, InfoTarget::Client("nobody"), "three", 0);
        send_info(net, InfoTarget::Connection(gone_id), "three", 0);
        assert_eq!(net.script().take("info"), [""; 0]);
        send_info(net, InfoTarget::All, "four", 0);
        let mut told = net.script().take("info");
        told.sort_unstable();
        assert_eq!(told, ["a", "b", "c", "d"].map(|name| format!("info {name} four Plugin")));
    });
}

#[test]
fn info_after_a_delay() {
    scenario(|net| {
        let client = net.v5("c");
        send_info(net, InfoTarget::Client("c"), "later", 100_000);
        send_info(net, InfoTarget::All, "soon", 10);
        net.advance(9);
        assert_eq!(net.script().take("info"), [""; 0]);
        net.advance(1);
        assert_eq!(net.script().take("info"), ["info c soon Timer"]);
        net.advance(99_989);
        assert_eq!(net.script().take("info"), [""; 0]);
        net.advance(1);
        assert_eq!(net.script().take("info"), ["info c later Timer"]);
        // Who has left by then hears nothing; who has come does.
        send_info(net, InfoTarget::Client("c"), "back", 1_000);
        send_info(net, InfoTarget::Connection(ConnectionId(net.connection_id(client))), "dropped", 1_000);
        net.lose(client);
        net.v5("c");
        net.advance(1_000);
        assert_eq!(net.script().take("info"), ["info c back Timer"]);
    });
}

/// From one connection's callback to another's.
#[test]
fn info_between_connections() {
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        let (host, id) = (net.script().host(), net.connection_id(from));
        net.script().publish = Some(Box::new(move |_| {
            host.send_info(InfoTarget::Client("to"), "hello", &[], None).expect("there is room");
            Ok(plugin_api::PublishVerdict::Handled)
        }));
        net.send(from, "30: <t> {} 'x'");
        assert_eq!(net.script().take("info"), [format!("info to hello Connection(ConnectionId({id}))")]);
        net.expect(to, "");
    });
}

/// A handler that sends to itself for ever does not keep anybody else from being served.
#[test]
fn info_for_ever() {
    scenario(|net| {
        let client = net.v5("c");
        let host = net.script().host();
        let mut left = 1000;
        net.script().info = Some(Box::new(move |_| {
            left -= 1;
            if left > 0 {
                host.send_info(InfoTarget::Client("c"), "again", &[], None)?;
            }
            Ok(Vec::new())
        }));
        let (worker, now) = (crate::core::owner_of("c", net.workers()), net.now);
        net.script().host().send_info(InfoTarget::Client("c"), "again", &[], None).expect("there is room");
        net.cores[worker].on_mail(now);
        assert_eq!(net.script().take("info").len(), 1, "one turn, one message");
        net.settle();
        assert_eq!(net.script().take("info").len(), 999);
        net.send(client, "C0:");
        net.expect(client, "D0:");
    });
}

/// The actions of `handle_info`, in order, until the connection ends.
#[test]
fn info_acts() {
    for version in VERSIONS {
        scenario(|net| {
            let client = net.client(version, "c");
            net.script().info = Some(Box::new(|asked| {
                let message = Message::new("t", asked.data.clone().unwrap_or_default())
                    .property(Property::UserProperty("a", "b"));
                let end = Disconnect::new(ReasonCode::ADMINISTRATIVE_ACTION).reason_string("bye");
                Ok(match asked.line.split(' ').nth(2) {
                    Some("publish") => (0..=2)
                        .filter_map(QoS::from_u8)
                        .map(|qos| InfoAction::Publish(message.clone().qos(qos).retain(qos == QoS::AtLeastOnce)))
                        .collect(),
                    Some("disconnect") => vec![
                        InfoAction::Publish(message.clone()),
                        InfoAction::Disconnect(end),
                        InfoAction::Publish(message),
                    ],
                    Some("stop") => vec![InfoAction::Stop("enough".into()), InfoAction::Publish(message)],
                    Some("error") => return Err("no idea".into()),
                    Some("panic") => panic!("as scripted"),
                    _ => Vec::new(),
                })
            }));
            send_info(net, InfoTarget::Client("c"), "nothing", 0);
            net.expect(client, "");
            send_info(net, InfoTarget::Client("c"), "error", 0);
            net.expect(client, "");
            // Whatever it has subscribed to.
            send_info(net, InfoTarget::Client("c"), "publish", 0);
            let properties = "[{26 <a> <b>}]";
            net.expect(
                client,
                &format!(
                    "30: <t> {properties} 'data' | 33: <t> 0001 {properties} 'data' | 34: <t> 0002 {properties} 'data'"
                ),
            );
            assert!(net.shared.retained.is_empty(), "it is for this client only");
            send_info(net, InfoTarget::Client("c"), "disconnect", 0);
            let told = if version == V5 { "E0: 98 {1F <bye>}" } else { "" };
            net.expect_closed(client, &format!("30: <t> {properties} 'data' | {told}"));
            assert_eq!(net.script().take("disconnect"), ["disconnect c ServerDisconnect 98 bye"]);

            let client = net.client(version, "c");
            send_info(net, InfoTarget::All, "stop", 0);
            net.expect_closed(client, "");
            assert_eq!(net.script().take("disconnect"), ["disconnect c Stopped 98 enough"]);

            let client = net.client(version, "c");
            send_info(net, InfoTarget::All, "panic", 0);
            net.expect_closed(client, if version == V5 { "E0: 83" } else { "" });
        });
    }
}

/// What it publishes to a client keeps to the client's bounds and waits its turn.
#[test]
fn info_publishes_within_the_receive_maximum() {
    scenario(|net| {
        let client = net.join(V5, &connect_packet(V5, "02", 0, "21 0001", "c"), CONNACK);
        net.script().info =
            Some(Box::new(|_| Ok(vec![InfoAction::Publish(Message::new("t", "x").qos(QoS::AtLeastOnce))])));
        send_info(net, InfoTarget::All, "publish", 0);
        send_info(net, InfoTarget::All, "publish", 0);
        net.expect(client, "32: <t> 0001 {} 'x'");
        net.send(client, "40: 0001");
        net.expect(client, "32: <t> 0002 {} 'x'");
    });
}

/// By connection, so that the successor after a takeover is left alone.
#[test]
fn disconnect() {
    for version in VERSIONS {
        scenario(|net| {
            let first = net.client(version, "c");
            let first_id = ConnectionId(net.connection_id(first));
            let second = net.client(version, "c");
            net.take(first);
            let host = net.script().host();
            host.disconnect(first_id, Disconnect::new(ReasonCode::NOT_AUTHORIZED)).expect("there is room");
            net.settle();
            net.expect(second, "");
            let second_id = ConnectionId(net.connection_id(second));
            let end = Disconnect::new(ReasonCode::USE_ANOTHER_SERVER).property(Property::ServerReference("there"));
            host.disconnect(second_id, end).expect("there is room");
            net.settle();
            net.expect_closed(second, if version == V5 { "E0: 9C {1C <there>}" } else { "" });
            assert_eq!(
                net.script().take("disconnect"),
                ["disconnect c TakenOver 8E", "disconnect c ServerDisconnect 9C"]
            );
            // It is not kept for a connection that cannot come any more.
            assert!(net.workers() > 1 || net.cores[0].early.is_empty());
        });
    }
}

/// From within the callback that decides about the client: it is let in first, wherever it belongs, and then ended.
#[test]
fn disconnect_inside_handle_connect() {
    scenario(|net| {
        for name in ["a", "b", "c"] {
            let host = net.script().host();
            let client = net.open(V5);
            let id = ConnectionId(net.connection_id(client));
            net.script().connect = Some(Box::new(move |_| {
                host.disconnect(id, Disconnect::new(ReasonCode::NOT_AUTHORIZED))?;
                Ok(plugin_api::ConnectVerdict::accept())
            }));
            net.send(client, &connect_packet(V5, "02", 0, "", name));
            net.expect_closed(client, &format!("{CONNACK} | E0: 87"));
            assert_eq!(net.script().take("disconnect"), [format!("disconnect {name} ServerDisconnect 87")]);
        }
    });
}

/// 5.0 clients are told, every handler hears of it, nobody else is let in.
#[test]
fn shutdown() {
    scenario(|net| {
        let (v5, old, silent) = (net.v5("a"), net.client(V3_1_1, "b"), net.open(V5));
        net.subscribe(v5, "w", 0);
        let with_will = net.join(V5, "10: <MQTT> 05 06 0000 {} <d> {} <w> <gone>", CONNACK);
        for worker in 0..net.workers() {
            assert!(net.shared.mailboxes.post(worker, Mail::Stop));
        }
        net.settle();
        assert!(net.cores.iter().all(crate::core::Core::is_stopping));
        let got = net.take(v5);
        assert!(got.ends_with(&[0xE0, 1, 0x8B]), "{got:02X?}");
        net.expect_closed(v5, "");
        net.expect_closed(old, "");
        net.expect_closed(silent, "");
        net.expect_closed(with_will, "E0: 8B");
        let mut told = net.script().take("disconnect");
        told.sort_unstable();
        assert_eq!(told, ["a", "b", "d"].map(|name| format!("disconnect {name} ServerShutdown 8B")));
        assert!(net.try_open(V5).is_none());
    });
}
