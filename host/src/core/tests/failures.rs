//! Who fails to get in, again and again, is turned away for a time; what is a failure, and what is none.

use std::time::Duration;

use plugin_api::{AuthVerdict, ConnectVerdict, ConnectionId, Disconnect, PublishVerdict, ReasonCode};

use super::deferred::defer;
use super::net::connect_packet;
use super::*;

const MAX: u32 = 3;

fn setup() -> Setup {
    let limits = Setup::limits(|limits| {
        limits.failures_per_address_max = MAX;
        limits.failures_period = Duration::from_secs(60);
        limits.failures_ban = Duration::from_secs(300);
    });
    Setup { peer: "192.0.2.1:1", ..limits }
}

/// What clients do that fail.
type Attempt = fn(&mut Net);

fn connect(net: &mut Net) {
    let client = net.open(V5);
    net.send(client, &connect_packet(V5, "02", 0, "", "c"));
    net.take(client);
}

fn refusing(reason_code: ReasonCode) -> impl Fn(&mut Net) {
    move |net| {
        net.script().connect = Some(Box::new(move |_| Ok(ConnectVerdict::reject(reason_code))));
        connect(net);
    }
}

/// Whether it counts as a failure: whether the next one from there is turned away after `MAX` of them.
fn turns_away(attempt: impl Fn(&mut Net)) -> bool {
    let turned_away = std::cell::Cell::new(None);
    scenario_in(MODES[0], &setup(), |net| {
        for _ in 0..MAX {
            attempt(net);
        }
        turned_away.set(Some(net.try_open(V5).is_none()));
    });
    turned_away.get().expect("it has run")
}

#[test]
fn an_address_is_turned_away_for_a_time_and_nobody_else() {
    scenario_with(&setup(), |net| {
        let inside = net.v5("inside");
        net.script().connect = Some(Box::new(|_| Ok(ConnectVerdict::reject(ReasonCode::NOT_AUTHORIZED))));
        for version in [V3_1, V3_1_1, V5] {
            let client = net.open(version);
            net.send(client, &connect_packet(version, "02", 0, "", "c"));
            net.expect_closed(client, if version == V5 { "20: 00 87 {}" } else { "20: 00 05" });
        }
        net.script().connect = None;
        net.script().calls.clear();
        for _ in 0..4 {
            assert!(net.try_open(V5).is_none(), "whichever worker it comes to");
        }
        assert!(net.script().calls.is_empty(), "no handler is asked");
        assert_eq!(net.count(|counters| counters.connections_turned_away.get()), 4);
        // Who is in stays in, and others come in.
        net.send(inside, "C0:");
        net.expect(inside, "D0:");
        net.peer = "192.0.2.2:1";
        net.v5("other");
        net.peer = "192.0.2.1:2";
        net.advance(299_999);
        assert!(net.try_open(V5).is_none(), "the time is not over");
        net.advance(1);
        net.v5("c");
    });
}

#[test]
fn what_is_a_failure() {
    use ReasonCode as Code;
    for code in [Code::BAD_USER_NAME_OR_PASSWORD, Code::NOT_AUTHORIZED, Code::BANNED, Code::BAD_AUTHENTICATION_METHOD] {
        assert!(turns_away(refusing(code)), "{code:?}");
    }
    let attempts: [(&str, Attempt); 8] = [
        ("HTTP", |net| {
            let client = net.open(V5);
            net.send(client, "47: 45 54");
            net.take(client);
        }),
        ("a Malformed Packet", |net| {
            let client = net.open(V5);
            net.send(client, "10: <MQTT> 05 03 0000 {} <c>");
            net.take(client);
        }),
        ("a packet that is too large", |net| {
            let client = net.open(V5);
            net.send_bytes(client, &[0x10, 0xFF, 0xFF, 0xFF, 0x7F]);
            net.take(client);
        }),
        ("no CONNECT in time", |net| {
            net.open(V5);
            net.advance(10_000);
        }),
        ("another packet in the middle of an exchange", |net| {
            net.script().auth = Some(Box::new(|_| Ok(AuthVerdict::Continue(b"?".to_vec()))));
            let client = net.open(V5);
            net.send(client, "10: <MQTT> 05 02 0000 {15 <SCRAM>} <c>");
            net.send(client, "C0:");
            net.take(client);
        }),
        ("a re-authentication that is refused", |net| {
            net.script().auth = Some(Box::new(|asked| match asked.data.as_deref() {
                Some(b"wrong") => Ok(AuthVerdict::error(ReasonCode::NOT_AUTHORIZED)),
                _ => Ok(AuthVerdict::Ok),
            }));
            let client = net.open(V5);
            net.send(client, "10: <MQTT> 05 02 0000 {15 <SCRAM>} <c>");
            net.send(client, "F0: 19 {15 <SCRAM> 16 <wrong>}");
            net.take(client);
        }),
        ("hanging up before CONNECT is answered", |net| {
            let tickets = defer!(net, connect, ConnectVerdict);
            let client = net.open(V5);
            net.send(client, &connect_packet(V5, "02", 0, "", "c"));
            net.lose(client);
            assert_eq!(tickets.answer(net, ConnectVerdict::accept()), Ok(()));
        }),
        ("hanging up before AUTH is answered", |net| {
            let tickets = defer!(net, auth, AuthVerdict);
            let client = net.open(V5);
            net.send(client, "10: <MQTT> 05 02 0000 {15 <SCRAM>} <c>");
            net.lose(client);
            assert_eq!(tickets.answer(net, AuthVerdict::Ok), Ok(()));
        }),
    ];
    for (what, attempt) in attempts {
        assert!(turns_away(attempt), "{what}");
    }
}

#[test]
fn what_is_none() {
    use ReasonCode as Code;
    for code in [
        Code::UNSPECIFIED_ERROR,
        Code::CLIENT_IDENTIFIER_NOT_VALID,
        Code::SERVER_UNAVAILABLE,
        Code::SERVER_BUSY,
        Code::QUOTA_EXCEEDED,
        Code::USE_ANOTHER_SERVER,
        Code::CONNECTION_RATE_EXCEEDED,
    ] {
        assert!(!turns_away(refusing(code)), "{code:?}");
    }
    let attempts: [(&str, Attempt); 9] = [
        ("coming in", |net| {
            let client = net.v5("c");
            net.send(client, "E0:");
            net.take(client);
        }),
        ("a look whether the server is there", |net| {
            let client = net.open(V5);
            net.lose(client);
        }),
        ("a handler that cannot answer", |net| {
            net.script().connect = Some(Box::new(|_| panic!("as scripted")));
            connect(net);
        }),
        ("a handler with an error", |net| {
            net.script().connect = Some(Box::new(|_| Err("the directory does not answer".into())));
            connect(net);
        }),
        ("a Protocol Error of who is in", |net| {
            let client = net.v5("c");
            net.send(client, "10: <MQTT> 05 02 0000 {} <c>");
            net.take(client);
        }),
        ("silence of who is in", |net| {
            let client = net.join(V5, &connect_packet(V5, "02", 1, "", "c"), CONNACK);
            net.advance(1500);
            net.take(client);
        }),
        ("being closed before CONNECT is answered", |net| {
            let tickets = defer!(net, connect, ConnectVerdict);
            let client = net.open(V5);
            net.send(client, &connect_packet(V5, "02", 0, "", "c"));
            let id = ConnectionId(net.connection_id(client));
            net.script().host().disconnect(id, Disconnect::new(ReasonCode::NOT_AUTHORIZED)).expect("there is room");
            net.settle();
            net.take(client);
            assert_eq!(tickets.answer(net, ConnectVerdict::accept()), Ok(()));
        }),
        ("a handler that does not answer in time", |net| {
            let _tickets = defer!(net, connect, ConnectVerdict);
            let client = net.open(V5);
            net.send(client, &connect_packet(V5, "02", 0, "", "c"));
            net.advance(10_000);
            net.take(client);
        }),
        ("the end of who is in, while a handler has a question", |net| {
            let tickets = defer!(net, publish, PublishVerdict);
            let client = net.v5("c");
            net.send(client, "30: <t> {} 'x'");
            net.lose(client);
            assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
        }),
    ];
    for (what, attempt) in attempts {
        assert!(!turns_away(attempt), "{what}");
    }
}
