//! Handlers from real libraries: each callback is seen to be called, and each answer to have its effect.
//!
//! The library `recorder` writes a line for each callback, and does what clients tell it to; its source says what.

use host::{Builder, ServerHandle};
use plugin_api::{ConnectionId, PropertiesBuf, ReasonCode};

use crate::harness::{TempDir, eventually, library, start};
use crate::mqtt::{Body, Client, Connect, Publish, V3_1, V3_1_1, V5, VERSIONS, Will, field, packet, properties};

/// What the recorder has written.
pub(crate) struct Record(TempDir);

impl Record {
    fn new(name: &str) -> Self {
        Self(TempDir::new(name))
    }

    fn config(&self) -> String {
        format!("{{\"file\": \"{}\"}}", self.0.path().join("record").display())
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.0.path().join("record")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for a line that contains all the parts.
    #[track_caller]
    pub(crate) fn wait(&self, parts: &[&str]) -> String {
        let mut found = None;
        eventually(&format!("{parts:?} in the record"), || {
            found = self.lines().into_iter().find(|line| parts.iter().all(|part| line.contains(part)));
            found.is_some()
        });
        found.expect("it was found")
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(part)).count()
    }
}

/// Runs a test with the recorder loaded, with one worker and with three.
#[track_caller]
pub(crate) fn with_recorder(name: &str, test: impl Fn(&ServerHandle, &Record)) {
    for workers in [1, 3] {
        println!("with {workers} workers");
        let record = Record::new(&format!("{name}-{workers}"));
        let server = start(workers, |builder| builder.plugin(library("recorder"), record.config()));
        test(&server, &record);
        server.stop().expect("the server stops");
    }
}

fn user_property(key: &str, value: &str) -> Vec<u8> {
    [vec![0x26], field(key), field(value)].concat()
}

fn reason_string(text: &str) -> Vec<u8> {
    [vec![0x1f], field(text)].concat()
}

#[test]
fn every_callback_is_called_with_what_the_client_sent() {
    for workers in [1, 3] {
        let record = Record::new(&format!("every-callback-{workers}"));
        let server = start(workers, |builder| builder.plugin(library("recorder"), record.config()));
        let connect = Connect {
            keep_alive: 60,
            username: Some("user"),
            password: Some("secret"),
            will: Some(Will { topic: "will", payload: "gone", ..Will::default() }),
            properties: [&[0x11, 0, 0, 0, 1][..], &[0x15], &field("direct")].concat(),
            ..Connect::new(V5, "c")
        };
        let (mut client, connack) = Client::connect_with(server.local_addr(), &connect);
        assert_eq!(connack.code, 0);
        client.subscribe("t/+", 2);
        for qos in 0..3 {
            client.send(
                Publish { properties: user_property("k", "v"), ..Publish::new("t/x", "hello").qos(qos, 9) }.bytes(V5),
            );
            if qos == 1 {
                assert_eq!(client.expect_ack(4, 9), 0);
            } else if qos == 2 {
                assert_eq!(client.expect_ack(5, 9), 0);
                client.send_ack(0x62, 9);
                assert_eq!(client.expect_ack(7, 9), 0);
            }
            assert_eq!(client.receive().qos, qos);
        }
        client.unsubscribe("t/+");
        client.publish("cmd/info/me", "0 note data", 1);
        record.wait(&["handle_info"]);
        drop(client);
        record.wait(&["handle_session_expired client=\"c\""]);
        server.stop().unwrap();
        drop(server);
        let expected: &[&[&str]] = &[
            &["init"],
            &["new_connection connection=", "peer=127.0.0.1"],
            &[
                "handle_connect client=\"c\" assigned=false username=Some(\"user\") password=Some(\"secret\") version=5",
                "keep_alive=60 clean_start=true",
                "will=Some(\"will\")",
            ],
            &["handle_auth client=\"c\" method=\"direct\"", "step=Start"],
            &["handle_connected client=\"c\" session_present=false took_over=false"],
            &["handle_subscribe client=\"c\" filter=\"t/+\" share_name=None qos=2"],
            &[
                "handle_publish",
                "topic=\"t/x\" payload=\"hello\" qos=0 retain=false dup=false packet_id=None will=false",
                "\"k\", \"v\"",
            ],
            &["handle_deliver client=\"c\" topic=\"t/x\" payload=\"hello\" qos=0", "origin=Client cause=Published"],
            &["handle_publish", "topic=\"t/x\"", "qos=1", "packet_id=Some(9)"],
            &["handle_deliver client=\"c\"", "qos=1"],
            &["handle_message_acknowledged client=\"c\" topic=\"t/x\" payload=\"hello\" qos=1", "reason_code=00"],
            &["handle_puback client=\"c\" kind=Puback", "reason_code=00"],
            &["handle_publish", "topic=\"t/x\"", "qos=2", "packet_id=Some(9)"],
            &["handle_deliver client=\"c\"", "qos=2"],
            &["handle_message_acknowledged client=\"c\"", "qos=2", "reason_code=00"],
            &["handle_puback client=\"c\" kind=Pubcomp", "reason_code=00"],
            &["handle_unsubscribe client=\"c\" filter=\"t/+\""],
            &["handle_publish", "topic=\"cmd/info/me\""],
            &["handle_info client=\"c\" kind=\"note\" data=\"data\""],
            &["handle_publish", "topic=\"will\" payload=\"gone\"", "packet_id=None will=true"],
            &["handle_disconnect client=\"c\" kind=Closed"],
            &["handle_session_expired client=\"c\" state=Some((1, \"c\"))"],
            &["stop"],
            &["drop"],
        ];
        let lines = record.lines();
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (line, parts) in lines.iter().zip(expected) {
            assert!(parts.iter().all(|part| line.contains(part)), "{parts:?} in {line}");
        }
    }
}

#[test]
fn absent_credentials_are_not_empty_ones() {
    with_recorder("credentials", |server, record| {
        for version in VERSIONS {
            Client::connect(server.local_addr(), version, "none");
            let empty = Connect { username: Some(""), password: Some(""), ..Connect::new(version, "empty") };
            Client::connect_with(server.local_addr(), &empty);
            let version = format!("version={version}");
            record.wait(&["handle_connect client=\"none\"", "username=None password=None", &version]);
            record.wait(&["handle_connect client=\"empty\"", "username=Some(\"\") password=Some(\"\")", &version]);
        }
    });
}

#[test]
fn connect_is_accepted_changed_or_rejected() {
    with_recorder("connect", |server, record| {
        let attempt = |version, username| {
            let connect = Connect { username: Some(username), ..Connect::new(version, "c") };
            Client::connect_with(server.local_addr(), &connect)
        };
        let (mut client, connack) = attempt(V5, "reject");
        assert_eq!((connack.code, connack.session_present), (0x86, false));
        assert_eq!(connack.properties, reason_string("bad user"));
        client.expect_closed();
        assert_eq!(attempt(V3_1_1, "reject").1.code, 4);
        assert_eq!(attempt(V3_1, "reject").1.code, 4);
        assert_eq!(attempt(V5, "error").1.code, 0x80);
        let (mut client, connack) = attempt(V5, "rename");
        assert_eq!(connack.code, 0);
        for part in [
            [vec![0x12], field("renamed-c")].concat(),
            vec![0x13, 0, 7],
            vec![0x11, 0, 0, 0, 100],
            user_property("recorder", "renamed"),
        ] {
            assert!(
                connack.properties.windows(part.len()).any(|window| window == part),
                "{part:02x?} in {connack:02x?}"
            );
        }
        let mut again = Client::connect(server.local_addr(), V5, "c");
        again.ping();
        client.ping();
        // It has the session of its new name.
        let (_taken_over_by, connack) =
            Client::connect_with(server.local_addr(), &Connect { clean: false, ..Connect::new(V5, "renamed-c") });
        assert!(connack.session_present);
        client.expect_disconnect(0x8e);
        record.wait(&["handle_disconnect client=\"c\" kind=Refused"]);
    });
}

#[test]
fn rejected_client_does_not_take_over() {
    with_recorder("no-takeover", |server, _| {
        let mut victim = Client::connect(server.local_addr(), V5, "victim");
        let intruder = Connect { username: Some("reject"), ..Connect::new(V5, "victim") };
        let (_, connack) = Client::connect_with(server.local_addr(), &intruder);
        assert_eq!(connack.code, 0x86);
        victim.ping();
    });
}

#[test]
fn enhanced_authentication_takes_its_steps() {
    // [MQTT-4.12.0-2] [MQTT-4.12.0-3]
    with_recorder("auth", |server, record| {
        let method = |name: &str| [vec![0x15], field(name)].concat();
        let auth = |code: u8, name: &str, data: &str| {
            let with = [method(name), vec![0x16], field(data)].concat();
            packet(0xf0, &[vec![code], properties(V5, &with)].concat())
        };
        let begin = |name: &str| {
            let mut client = Client::open(server.local_addr(), V5);
            client.send(Connect { properties: method(name), ..Connect::new(V5, "c") }.bytes());
            client
        };
        let challenged = |client: &mut Client| {
            let got = client.expect_type(15);
            let text = String::from_utf8_lossy(&got);
            assert!(got[2] == 0x18 && text.contains("challenge"), "{got:02x?}");
        };
        let mut client = begin("steps");
        challenged(&mut client);
        client.send(auth(0x18, "steps", "response"));
        let connack = client.connack();
        assert_eq!(connack.code, 0);
        assert!(String::from_utf8_lossy(&connack.properties).contains("welcome"), "{connack:02x?}");
        // And once more, while it is connected.
        client.send(auth(0x19, "steps", ""));
        challenged(&mut client);
        client.send(auth(0x18, "steps", "response"));
        let done = client.expect_type(15);
        assert!(done.len() == 2 || done[2] == 0, "{done:02x?}");
        client.ping();
        record.wait(&["handle_auth", "step=ReAuthenticate"]);

        let mut client = begin("steps");
        challenged(&mut client);
        client.send(auth(0x18, "steps", "wrong"));
        assert_eq!(client.connack().code, 0x87);
        client.expect_closed();
        assert_eq!(begin("unknown").connack().code, 0x8c);
    });
}

#[test]
fn published_messages_are_forwarded_changed_or_handled() {
    with_recorder("publish", |server, _| {
        for version in VERSIONS {
            let mut observer = Client::connect(server.local_addr(), V5, "observer");
            observer.subscribe("#", 2);
            let mut client = Client::connect(server.local_addr(), version, "c");
            for qos in 0..3 {
                assert_eq!(client.publish("cmd/change", "text", qos), 0);
                let message = observer.receive();
                assert_eq!((message.topic.as_str(), message.text(), message.qos), ("changed", "TEXT", qos));
                assert_eq!(message.properties, user_property("recorder", "changed"));
                assert_eq!(client.publish("cmd/handled", "text", qos), 0);
                assert_eq!(client.publish("plain", "text", qos), 0);
                let message = observer.receive();
                assert_eq!((message.topic.as_str(), message.text(), message.qos), ("plain", "text", qos));
            }
        }
    });
}

#[test]
fn rejected_messages_are_not_delivered_and_the_client_is_told() {
    // [MQTT-4.3.3-9]
    with_recorder("reject", |server, record| {
        let mut observer = Client::connect(server.local_addr(), V5, "observer");
        observer.subscribe("#", 2);
        let mut client = Client::connect(server.local_addr(), V5, "c");
        for qos in [1, 2] {
            let kind = if qos == 1 { 4 } else { 5 };
            for (topic, code) in [("cmd/reject/97", 0x97), ("cmd/reject/87", 0x87), ("cmd/error", 0x80)] {
                // The identifier is free again at once: a second message may have it, and is asked about.
                for _ in 0..2 {
                    client.send(Publish::new(topic, "x").qos(qos, 77).bytes(V5));
                    let ack = client.expect_type(kind);
                    assert_eq!(ack[4], code, "{ack:02x?}");
                    if topic != "cmd/error" {
                        let mut body = Body(&ack[5..]);
                        assert_eq!(body.properties(), reason_string("rejected"));
                    }
                }
            }
        }
        assert_eq!(record.count("topic=\"cmd/reject/97\""), 4);
        client.publish("cmd/reject/87", "x", 0);
        // Clients of the older versions cannot be told.
        for version in [V3_1, V3_1_1] {
            let mut old = Client::connect(server.local_addr(), version, "old");
            for qos in 0..3 {
                assert_eq!(old.publish("cmd/reject/87", "x", qos), 0);
            }
        }
        client.publish("end", "end", 2);
        assert_eq!(observer.receive().topic, "end");
    });
}

#[test]
fn handler_disconnects_a_publisher_with_reason_and_properties() {
    with_recorder("kick", |server, record| {
        let mut client = Client::connect(server.local_addr(), V5, "new");
        client.send(Publish::new("cmd/kick/97", "").bytes(V5));
        let packet = client.expect_type(14);
        assert_eq!(packet[2], 0x97);
        assert_eq!(Body(&packet[3..]).properties(), reason_string("kicked"));
        client.expect_closed();
        let mut client = Client::connect(server.local_addr(), V3_1_1, "old");
        client.send(Publish::new("cmd/kick/97", "").qos(1, 1).bytes(V3_1_1));
        client.expect_closed();
        record.wait(&["handle_disconnect client=\"new\" kind=ServerDisconnect reason_code=97"]);
        record.wait(&["handle_disconnect client=\"old\" kind=ServerDisconnect reason_code=97"]);
    });
}

#[test]
fn subscriptions_are_granted_capped_or_refused() {
    with_recorder("subscribe", |server, record| {
        for version in VERSIONS {
            // 3.1 has no code for a failure: the client is told of what it has asked for.
            let failure = match version {
                V5 => 0x87,
                V3_1 => 2,
                _ => 0x80,
            };
            let mut client = Client::connect(server.local_addr(), version, "c");
            let codes = client.subscribe_all(&[("free/#", 1), ("deny/x", 2), ("cap/x", 2)]);
            assert_eq!(codes, [1, failure, 0]);
            client.publish("deny/x", "no", 1);
            client.publish("cap/x", "capped", 2);
            let message = client.receive();
            assert_eq!((message.text(), message.qos), ("capped", 0));
            client.send(packet(0x82, &[vec![0, 9], properties(version, &[]), field("kick"), vec![0]].concat()));
            client.expect_disconnect(0x97);
            let mut client = Client::connect(server.local_addr(), version, "c");
            let codes = client.subscribe_all(&[("error", 0), ("a", 0)]);
            assert_eq!(codes, [if version == V3_1 { 0 } else { 0x80 }; 2]);
        }
        let mut client = Client::connect(server.local_addr(), V5, "shared");
        client.subscribe("$share/name/s/+", 1);
        record.wait(&["handle_subscribe client=\"shared\" filter=\"s/+\" share_name=Some(\"name\") qos=1"]);
    });
}

#[test]
fn unsubscribing_is_allowed_or_refused() {
    with_recorder("unsubscribe", |server, _| {
        let mut client = Client::connect(server.local_addr(), V5, "c");
        client.subscribe_all(&[("keep/x", 1), ("free", 1)]);
        let body = [vec![0, 9], properties(V5, &[]), field("keep/x"), field("free"), field("never")].concat();
        client.send(packet(0xa2, &body));
        let unsuback = client.expect_type(11);
        assert_eq!(unsuback[5..], [0x87, 0x00, 0x11]);
        client.publish("free", "gone", 1);
        client.publish("keep/x", "kept", 1);
        assert_eq!(client.receive().text(), "kept");
        client.send(packet(0xa2, &[vec![0, 9], properties(V5, &[]), field("kick")].concat()));
        client.expect_disconnect(0x97);
    });
}

#[test]
fn services_publish_and_send_to_other_connections() {
    with_recorder("services", |server, record| {
        let mut clients: Vec<_> =
            ["a", "b", "c", "d"].into_iter().map(|name| Client::connect(server.local_addr(), V5, name)).collect();
        clients[3].subscribe("from/plugin", 2);
        assert_eq!(clients[0].publish("cmd/publish/from/plugin", "payload", 1), 0);
        let message = clients[3].receive();
        assert_eq!((message.text(), message.qos), ("payload", 1));
        // What a plugin publishes does not come back to it. That it was acknowledged does.
        let published =
            record.lines().into_iter().filter(|line| line.starts_with("handle_publish")).collect::<Vec<_>>();
        assert!(!published.iter().any(|line| line.contains("topic=\"from/plugin\"")), "{published:?}");

        clients[0].publish("cmd/info/all", "0 publish all/x hello", 1);
        for client in &mut clients {
            let message = client.receive();
            assert_eq!((message.topic.as_str(), message.text(), message.qos), ("all/x", "hello", 1));
        }
        clients[0].publish("cmd/info/client/c", "50 retain one/x later", 1);
        let message = clients[2].receive();
        assert_eq!((message.topic.as_str(), message.text(), message.retain), ("one/x", "later", true));
        record.wait(&["handle_info client=\"c\" kind=\"retain\""]);
        assert_eq!(record.count("kind=\"retain\""), 1);
    });
}

#[test]
fn info_disconnects_and_stops() {
    with_recorder("info", |server, record| {
        let mut sender = Client::connect(server.local_addr(), V5, "sender");
        let mut kicked = Client::connect(server.local_addr(), V5, "kicked");
        let mut stopped = Client::connect(server.local_addr(), V5, "stopped");
        sender.publish("cmd/info/client/kicked", "0 disconnect 97", 1);
        let packet = kicked.expect_type(14);
        assert_eq!((packet[2], Body(&packet[3..]).properties()), (0x97, reason_string("info")));
        kicked.expect_closed();
        sender.publish("cmd/info/client/stopped", "0 stop enough", 1);
        // Without DISCONNECT, in 5.0 as well.
        stopped.expect_closed();
        record.wait(&["handle_disconnect client=\"kicked\" kind=ServerDisconnect reason_code=97"]);
        record.wait(&["handle_disconnect client=\"stopped\" kind=Stopped", "text=\"enough\""]);
        sender.ping();
    });
}

#[test]
fn connections_are_disconnected_by_their_number() {
    with_recorder("by-number", |server, record| {
        let number = |client: &mut Client| {
            client.subscribe("connection", 0);
            client.publish("cmd/connection", "", 1);
            let number = client.receive().text().to_owned();
            client.unsubscribe("connection");
            number
        };
        let mut operator = Client::connect(server.local_addr(), V5, "operator");
        for name in ["a", "b", "c", "d"] {
            let mut client = Client::connect(server.local_addr(), V5, name);
            let by_plugin = number(&mut client);
            operator.publish("cmd/disconnect/98", &by_plugin, 1);
            client.expect_disconnect(0x98);
            let mut client = Client::connect(server.local_addr(), V5, name);
            let by_operator = ConnectionId(number(&mut client).parse().unwrap());
            let properties = PropertiesBuf::new().with(plugin_api::Property::ReasonString("maintenance"));
            assert!(server.disconnect(by_operator, ReasonCode::SERVER_BUSY, &properties));
            let packet = client.expect_type(14);
            assert_eq!((packet[2], Body(&packet[3..]).properties()), (0x89, reason_string("maintenance")));
            client.expect_closed();
            // The number of a connection that has ended means nobody, not the client's next connection.
            let mut client = Client::connect(server.local_addr(), V5, name);
            assert!(server.disconnect(by_operator, ReasonCode::SERVER_BUSY, &properties));
            operator.publish("cmd/disconnect/98", by_plugin, 1);
            client.ping();
        }
        record.wait(&["handle_disconnect client=\"d\" kind=ServerDisconnect reason_code=89"]);
    });
}

#[test]
fn disconnect_is_called_once_with_the_reason() {
    for workers in [1, 3] {
        let record = Record::new(&format!("reasons-{workers}"));
        let server = start(workers, |builder| builder.plugin(library("recorder"), record.config()));
        let addr = server.local_addr();
        Client::connect(addr, V5, "normal").disconnect();
        let mut with_will = Client::connect(addr, V5, "with-will");
        with_will.send([0xe0, 1, 4]);
        with_will.expect_closed();
        drop(Client::connect(addr, V3_1_1, "closed"));
        let mut malformed = Client::connect(addr, V5, "malformed");
        malformed.send([0x36, 0]);
        malformed.expect_disconnect(0x81);
        let silent = Connect { keep_alive: 1, ..Connect::new(V5, "silent") };
        let (mut silent, _) = Client::connect_with(addr, &silent);
        let _taken = Client::connect(addr, V5, "taken");
        let stays = Client::connect(addr, V5, "taken");
        silent.expect_disconnect(0x8d);
        let expected = [
            ("normal", "kind=Normal reason_code=00"),
            ("with-will", "kind=WithWill reason_code=04"),
            ("closed", "kind=Closed"),
            ("malformed", "kind=ProtocolError reason_code=81"),
            ("silent", "kind=KeepAliveTimeout reason_code=8d"),
            ("taken", "kind=TakenOver reason_code=8e"),
            ("taken", "kind=ServerShutdown reason_code=8b"),
        ];
        for (client, reason) in &expected[..6] {
            record.wait(&[&format!("handle_disconnect client=\"{client}\""), reason]);
        }
        server.stop().unwrap();
        drop(stays);
        for (client, reason) in expected {
            record.wait(&[&format!("handle_disconnect client=\"{client}\""), reason]);
        }
        assert_eq!(record.count("handle_disconnect"), expected.len(), "{:#?}", record.lines());
        assert_eq!(record.count("stop"), 1);
    }
}

#[test]
fn chain_asks_in_order_and_each_sees_what_the_one_before_let_through() {
    let chain = |first: Box<dyn Fn(Builder) -> Builder>, second: Box<dyn Fn(Builder) -> Builder>| {
        let server = start(2, |builder| second(first(builder)));
        let mut client = Client::connect(server.local_addr(), V5, "c");
        client.subscribe("answer", 0);
        client.publish("ask", "?", 1);
        assert_eq!(client.receive().text(), "v1");
        server.stop().unwrap();
    };
    let changes =
        || -> Box<dyn Fn(Builder) -> Builder> { Box::new(|builder: Builder| builder.plugin(library("v1"), "{}")) };
    let records = |record: &Record| -> Box<dyn Fn(Builder) -> Builder> {
        let config = record.config();
        Box::new(move |builder: Builder| builder.plugin(library("recorder"), config.clone()))
    };
    let behind = Record::new("chain-behind");
    chain(changes(), records(&behind));
    assert_eq!(behind.count("topic=\"ask\""), 0);
    behind.wait(&["handle_publish", "topic=\"answer\" payload=\"v1\"", "again=false"]);
    let before = Record::new("chain-before");
    chain(records(&before), changes());
    before.wait(&["handle_publish", "topic=\"ask\" payload=\"?\"", "again=false"]);
    // Asked once more, about the new topic.
    before.wait(&["handle_publish", "topic=\"answer\" payload=\"v1\"", "again=true"]);
}

#[test]
fn refusal_of_any_plugin_counts() {
    let record = Record::new("refusal");
    let server = start(2, |builder| builder.plugin(library("v1"), "{}").plugin(library("recorder"), record.config()));
    let refused = Connect { username: Some("reject"), ..Connect::new(V5, "c") };
    assert_eq!(Client::connect_with(server.local_addr(), &refused).1.code, 0x86);
    let mut client = Client::connect(server.local_addr(), V5, "c");
    assert_eq!(client.publish("cmd/reject/87", "x", 1), 0x87);
    server.stop().unwrap();
}

#[test]
fn second_publish_of_a_qos_2_message_is_not_asked_about() {
    with_recorder("qos2-once", |server, record| {
        let mut client = Client::connect(server.local_addr(), V5, "c");
        let message = Publish::new("once", "x").qos(2, 5);
        client.send(message.bytes(V5));
        assert!(client.expect_ack(5, 5) < 0x80);
        client.send(Publish { dup: true, ..message }.bytes(V5));
        assert!(client.expect_ack(5, 5) < 0x80);
        assert_eq!(record.count("topic=\"once\""), 1);
    });
}

#[test]
fn handler_that_is_linked_in_is_asked_like_any_other() {
    use plugin_api::{ConnectionInfo, Error, Handler, Host, Publish as Request, PublishVerdict, handler};
    struct Guard(String);

    #[handler]
    impl Handler for Guard {
        type Connection = u32;

        fn init(_host: Host, config: &str) -> Result<Self, Error> {
            Ok(Self(config.to_owned()))
        }

        fn new_connection(&self, _info: &ConnectionInfo<'_>) -> u32 {
            0
        }

        fn handle_publish(&self, count: &mut u32, publish: &Request<'_>) -> Result<PublishVerdict, Error> {
            *count += 1;
            if *count > 2 || self.0 != "[1]" || publish.topic() == "closed" {
                return Ok(PublishVerdict::reject(ReasonCode::QUOTA_EXCEEDED));
            }
            Ok(PublishVerdict::Forward)
        }
    }

    let server = start(2, |builder| builder.handler::<Guard>("guard", "[1]"));
    let mut client = Client::connect(server.local_addr(), V5, "c");
    let codes: Vec<u8> = ["open", "closed", "open"].into_iter().map(|topic| client.publish(topic, "x", 1)).collect();
    assert_eq!(codes, [0x10, 0x97, 0x97]);
    let error =
        host::Server::builder().listen("127.0.0.1:0").handler::<Guard>("guard", "{").start().expect_err("no JSON");
    assert!(error.to_string().contains("guard"), "{error}");
}
