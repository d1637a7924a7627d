//! What outlives a packet: wills, takeover, sessions, Keep Alive.

use std::time::{Duration, Instant};

use host::ServerHandle;

use crate::harness::with_server;
use crate::mqtt::{Client, Connect, Publish, V3_1, V3_1_1, V5, VERSIONS, Will, field};

fn observer(server: &ServerHandle, filter: &str) -> Client {
    let mut client = Client::connect(server.local_addr(), V5, "observer");
    client.subscribe(filter, 2);
    client
}

fn with_will(version: u8, client_id: &str) -> Connect {
    let will = Will { topic: "will", payload: "gone", qos: 1, ..Will::default() };
    Connect { will: Some(will), ..Connect::new(version, client_id) }
}

#[test]
fn will_is_published_when_the_connection_is_lost() {
    with_server(|server| {
        let mut observer = observer(server, "will");
        for version in VERSIONS {
            let (client, _) = Client::connect_with(server.local_addr(), &with_will(version, "mortal"));
            drop(client);
            let message = observer.receive();
            assert_eq!((message.text(), message.qos, message.retain), ("gone", 1, false));
        }
    });
}

#[test]
fn will_is_not_published_after_disconnect_unless_it_asks_for_it() {
    // [MQTT-3.14.4-3]
    with_server(|server| {
        let mut observer = observer(server, "will");
        for version in VERSIONS {
            Client::connect_with(server.local_addr(), &with_will(version, "polite")).0.disconnect();
        }
        let (mut client, _) = Client::connect_with(server.local_addr(), &with_will(V5, "will anyway"));
        client.send([0xe0, 1, 0x04]);
        client.expect_closed();
        assert_eq!(observer.receive().text(), "gone");
        Client::connect(server.local_addr(), V5, "p").publish("will", "that was all", 1);
        assert_eq!(observer.receive().text(), "that was all");
    });
}

#[test]
fn will_is_retained_and_carries_its_properties() {
    with_server(|server| {
        let mut observer = observer(server, "will");
        let user_property = [&[0x26][..], &field("k"), &field("v")].concat();
        let will = Will { topic: "will", payload: "gone", qos: 2, retain: true, properties: user_property.clone() };
        let connect = Connect { will: Some(will), ..Connect::new(V5, "mortal") };
        drop(Client::connect_with(server.local_addr(), &connect));
        let message = observer.receive();
        assert_eq!((message.properties, message.qos), (user_property, 2));
        let mut late = Client::connect(server.local_addr(), V5, "late");
        late.subscribe("will", 0);
        assert!(late.receive().retain);
    });
}

#[test]
fn will_delay_ends_when_the_client_is_back() {
    with_server(|server| {
        let mut observer = observer(server, "will/#");
        let delayed = |topic, client_id: &str, delay| {
            let will = Will { topic, payload: "gone", properties: vec![0x18, 0, 0, 0, delay], ..Will::default() };
            let connect = Connect { will: Some(will), ..Connect::new(V5, client_id) }.persistent();
            Client::connect_with(server.local_addr(), &connect)
        };
        drop(delayed("will/never", "back in time", 60));
        drop(delayed("will/late", "does not come back", 1));
        let (_back, connack) = delayed("will/other", "back in time", 0);
        assert!(connack.session_present);
        assert_eq!(observer.receive().topic, "will/late");
    });
}

#[test]
fn client_that_connects_again_takes_over() {
    // [MQTT-3.1.4-3]
    with_server(|server| {
        for version in VERSIONS {
            for name in ["a", "b", "c", "d"] {
                let mut first = Client::connect(server.local_addr(), version, name);
                let mut second = Client::connect(server.local_addr(), version, name);
                first.expect_disconnect(0x8e);
                second.ping();
            }
        }
    });
}

#[test]
fn takeover_publishes_the_will_of_the_earlier_connection() {
    with_server(|server| {
        let mut observer = observer(server, "will");
        let (mut first, _) = Client::connect_with(server.local_addr(), &with_will(V5, "twice"));
        let _second = Client::connect(server.local_addr(), V5, "twice");
        first.expect_disconnect(0x8e);
        assert_eq!(observer.receive().text(), "gone");
    });
}

#[test]
fn session_keeps_subscriptions_and_messages_until_its_client_is_back() {
    // [MQTT-3.1.2-5] [MQTT-3.1.2-23] [MQTT-3.2.2-3]
    with_server(|server| {
        for version in VERSIONS {
            let connect = Connect::new(version, format!("keeper-{version}")).persistent();
            let (mut client, connack) = Client::connect_with(server.local_addr(), &connect);
            assert!(!connack.session_present);
            client.subscribe("keep", 2);
            client.disconnect();
            let mut publisher = Client::connect(server.local_addr(), V3_1_1, "p");
            for number in 0..100 {
                publisher.publish("keep", number.to_string(), number % 3);
            }
            let (mut client, connack) = Client::connect_with(server.local_addr(), &connect);
            // 3.1 has no such flag.
            assert_eq!(connack.session_present, version != V3_1, "version {version}");
            // Whether QoS 0 messages are kept is up to the server; those of QoS 1 and 2 are, in their order.
            for number in (0..100).filter(|number| number % 3 != 0) {
                // One of QoS 0 may have been on its way between workers when the client came back.
                let message = std::iter::repeat_with(|| client.receive()).find(|message| message.qos > 0).unwrap();
                assert_eq!((message.text(), message.qos), (number.to_string().as_str(), number % 3));
            }
            client.disconnect();
        }
    });
}

#[test]
fn clean_start_discards_the_session() {
    // [MQTT-3.1.2-4] [MQTT-3.2.2-2]
    with_server(|server| {
        for version in VERSIONS {
            let kept = Connect::new(version, "cleaned").persistent();
            let (mut client, _) = Client::connect_with(server.local_addr(), &kept);
            client.subscribe("clean", 1);
            client.disconnect();
            Client::connect(server.local_addr(), version, "cleaned").disconnect();
            Client::connect(server.local_addr(), version, "p").publish("clean", "x", 1);
            let (mut client, connack) = Client::connect_with(server.local_addr(), &kept);
            assert!(!connack.session_present);
            client.expect_nothing();
            // The next round begins without a session.
            client.disconnect();
            Client::connect(server.local_addr(), version, "cleaned").disconnect();
        }
    });
}

#[test]
fn session_expires() {
    with_server(|server| {
        let expiring = Connect { clean: false, properties: vec![0x11, 0, 0, 0, 1], ..Connect::new(V5, "short") };
        let (mut client, _) = Client::connect_with(server.local_addr(), &expiring);
        client.subscribe("t", 1);
        client.disconnect();
        let kept = Connect { properties: vec![0x11, 0, 0, 0, 1], ..expiring.clone() };
        let deadline = Instant::now() + crate::harness::PATIENCE;
        loop {
            // Each visit lets it live for another second, so the time between two has to be longer.
            std::thread::sleep(Duration::from_millis(1300));
            let (client, connack) = Client::connect_with(server.local_addr(), &kept);
            client.disconnect();
            if !connack.session_present {
                return;
            }
            assert!(Instant::now() < deadline, "the session does not expire");
        }
    });
}

#[test]
fn unacknowledged_messages_are_sent_again_in_order() {
    // [MQTT-3.3.1-1] [MQTT-4.4.0-1] [MQTT-4.3.3-5]
    with_server(|server| {
        for version in VERSIONS {
            let connect = Connect::new(version, format!("again-{version}")).persistent();
            let (mut client, _) = Client::connect_with(server.local_addr(), &connect);
            client.subscribe("again", 2);
            let mut publisher = Client::connect(server.local_addr(), version, "p");
            for (text, qos) in [("1", 1), ("2", 2), ("3", 1), ("4", 2)] {
                publisher.publish("again", text, qos);
            }
            let first: Vec<Publish> = (0..4).map(|_| client.read_publish()).collect();
            assert!(first.iter().all(|message| !message.dup));
            // The second one is known to be received; its release is not acknowledged.
            client.acknowledge_first(&first[1]);
            assert_eq!(client.expect_ack(6, first[1].packet_id), 0);
            drop(client);
            let (mut client, connack) = Client::connect_with(server.local_addr(), &connect);
            assert_eq!(connack.session_present, version != V3_1);
            for (number, expected) in first.iter().enumerate() {
                if number == 1 {
                    assert_eq!(client.expect_ack(6, expected.packet_id), 0);
                    client.send_ack(0x70, expected.packet_id);
                    continue;
                }
                assert_eq!(client.read_publish(), Publish { dup: true, ..expected.clone() });
            }
            client.expect_nothing();
        }
    });
}

#[test]
fn qos_2_message_that_is_sent_twice_is_delivered_once() {
    // [MQTT-4.3.3-10] [MQTT-4.3.3-12]
    with_server(|server| {
        for version in VERSIONS {
            let mut observer = observer(server, "once");
            let mut client = Client::connect(server.local_addr(), version, "sender");
            let message = Publish::new("once", "x").qos(2, 9);
            client.send(message.bytes(version));
            assert_eq!(client.expect_ack(5, 9), 0);
            client.send(Publish { dup: true, ..message.clone() }.bytes(version));
            assert_eq!(client.expect_ack(5, 9), 0);
            client.send_ack(0x62, 9);
            assert_eq!(client.expect_ack(7, 9), 0);
            assert_eq!(observer.receive().text(), "x");
            client.publish("once", "next", 1);
            assert_eq!(observer.receive().text(), "next");
        }
    });
}

#[test]
fn silent_client_is_closed_after_one_and_a_half_times_its_keep_alive() {
    // [MQTT-3.1.2-22]
    with_server(|server| {
        for version in [V3_1_1, V5] {
            let start = Instant::now();
            let connect = Connect { keep_alive: 1, ..Connect::new(version, "silent") };
            let (mut client, _) = Client::connect_with(server.local_addr(), &connect);
            client.expect_disconnect(0x8d);
            // The server counts whole milliseconds.
            let taken = start.elapsed() + Duration::from_millis(1);
            assert!(taken >= Duration::from_millis(1500), "{taken:?}");
        }
    });
}

#[test]
fn receive_maximum_of_the_client_is_respected() {
    // [MQTT-3.3.4-9]
    with_server(|server| {
        let connect = Connect { properties: vec![0x21, 0, 2], ..Connect::new(V5, "two at a time") };
        let (mut client, _) = Client::connect_with(server.local_addr(), &connect);
        client.subscribe("flow", 1);
        let mut publisher = Client::connect(server.local_addr(), V5, "p");
        for number in 0..6 {
            publisher.publish("flow", number.to_string(), 1);
        }
        let mut waiting = vec![client.read_publish(), client.read_publish()];
        for number in 2..6 {
            client.expect_nothing();
            let first = waiting.remove(0);
            client.send_ack(0x40, first.packet_id);
            waiting.push(client.read_publish());
            assert_eq!(waiting[1].text(), number.to_string());
        }
    });
}

#[test]
fn messages_expire_in_the_queue() {
    // [MQTT-3.3.2-5] [MQTT-3.3.2-6]
    with_server(|server| {
        let connect = Connect::new(V5, "late").persistent();
        let (mut client, _) = Client::connect_with(server.local_addr(), &connect);
        client.subscribe("e", 1);
        client.disconnect();
        let mut publisher = Client::connect(server.local_addr(), V5, "p");
        let expiring = |text, secs| Publish { properties: vec![2, 0, 0, 0, secs], ..Publish::new("e", text).qos(1, 0) };
        publisher.publish_message(expiring("short", 1));
        publisher.publish_message(expiring("long", 250));
        let published = Instant::now();
        while published.elapsed() < Duration::from_millis(1100) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let (mut client, _) = Client::connect_with(server.local_addr(), &connect);
        let message = client.receive();
        assert_eq!(message.text(), "long");
        assert!(
            matches!(message.properties[..], [2, 0, 0, 0, left] if (100..250).contains(&left)),
            "{:?}",
            message.properties
        );
    });
}
