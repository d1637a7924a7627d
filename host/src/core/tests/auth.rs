//! Enhanced authentication, at CONNECT and again.

use plugin_api::{AuthVerdict, ConnectVerdict, Disconnect, Property, ReasonCode, Reject};

use super::*;

/// Asks for a password in two steps: "who?" until the data are "me".
fn challenge(net: &Net) {
    net.script().auth = Some(Box::new(|asked| match asked.data.as_deref() {
        _ if !asked.line.contains(" SCRAM ") => Ok(AuthVerdict::error(ReasonCode::BAD_AUTHENTICATION_METHOD)),
        Some(b"me") => Ok(AuthVerdict::OkWith(b"hi".to_vec())),
        Some(b"friend") => Ok(AuthVerdict::Ok),
        Some(b"wrong") => Ok(AuthVerdict::Error(Reject::new(ReasonCode::NOT_AUTHORIZED).reason_string("who are you?"))),
        Some(b"error") => Err("no idea".into()),
        Some(b"panic") => panic!("as scripted"),
        _ => Ok(AuthVerdict::Continue(b"who?".to_vec())),
    }));
}

const CONNECT: &str = "10: <MQTT> 05 02 0000 {15 <SCRAM>} <c>";
const WHO: &str = "F0: 18 {15 <SCRAM> 16 <who?>}";

fn connack(data: &str) -> String {
    format!("20: 00 00 {{21 0400 27 01000000 22 0040 15 <SCRAM>{data}}}")
}

/// [MQTT-4.12.0-2] [MQTT-4.12.0-3] [MQTT-4.12.0-5]
/// [MQTT-3.2.0-1] [MQTT-3.15.2-1]
#[test]
fn exchange_before_connack() {
    scenario(|net| {
        challenge(net);
        // Without a further step.
        net.join(V5, "10: <MQTT> 05 02 0000 {15 <SCRAM> 16 <me>} <a>", &connack(" 16 <hi>"));
        net.join(V5, "10: <MQTT> 05 02 0000 {15 <SCRAM> 16 <friend>} <b>", &connack(""));
        let client = net.join(V5, CONNECT, WHO);
        net.send(client, "F0: 18 {15 <SCRAM> 16 <?>}");
        net.expect(client, WHO);
        // Handlers hear of nothing else before the client is let in.
        net.script().host().send_info(plugin_api::InfoTarget::All, "hello", &[], None).expect("there is room");
        net.settle();
        assert!(!net.script().calls.iter().any(|line| line.starts_with("info c")));
        net.send(client, "F0: 18 {15 <SCRAM> 16 <me>} | C0:");
        net.expect(client, &format!("{} | D0:", connack(" 16 <hi>")));
        let calls = net.script().take("auth");
        assert_eq!(calls[2..], ["auth c SCRAM Start", "auth c SCRAM Continue", "auth c SCRAM Continue"]);
    });
}

/// Who leaves amid the exchange has no session yet, and no will with a delay.
#[test]
fn client_that_leaves_during_the_exchange() {
    scenario(|net| {
        challenge(net);
        let client = net.join(V5, "10: <MQTT> 05 06 0000 {15 <SCRAM>} <c> {18 0000000A} <w> <x>", WHO);
        net.send(client, "E0:");
        net.expect_closed(client, "");
        net.join(V5, "10: <MQTT> 05 02 0000 {15 <SCRAM> 16 <friend>} <c>", &connack(""));
    });
}

/// [MQTT-4.12.0-1] [MQTT-4.12.0-4]
#[test]
fn refused() {
    scenario(|net| {
        challenge(net);
        let rows = [
            ("10: <MQTT> 05 02 0000 {15 <OTHER>} <c>", "20: 00 8C {}"),
            ("10: <MQTT> 05 02 0000 {15 <SCRAM> 16 <wrong>} <c>", "20: 00 87 {1F <who are you?>}"),
            ("10: <MQTT> 05 02 0000 {15 <SCRAM> 16 <error>} <c>", "20: 00 80 {}"),
            ("10: <MQTT> 05 02 0000 {15 <SCRAM> 16 <panic>} <c>", "20: 00 80 {}"),
        ];
        for (connect, answer) in rows {
            let client = net.open(V5);
            net.send(client, connect);
            net.expect_closed(client, answer);
        }
        let client = net.join(V5, CONNECT, WHO);
        net.send(client, "F0: 18 {15 <SCRAM> 16 <wrong>} | C0:");
        net.expect_closed(client, "20: 00 87 {1F <who are you?>}");
    });
}

/// [MQTT-3.1.2-30] [MQTT-3.14.0-1] [MQTT-4.12.0-5] Errors during the exchange are answered with CONNACK.
/// [MQTT-3.2.0-2] [MQTT-3.15.1-1] [MQTT-4.12.0-3]
#[test]
fn wrong_packets_during_the_exchange() {
    scenario(|net| {
        challenge(net);
        for (packet, answer) in [
            ("C0:", "20: 00 82 {}"),
            ("30: <t> {} 'x'", "20: 00 82 {}"),
            // 0x94, which is wrong with it, is not for CONNACK [MQTT-3.2.2-8].
            ("30: <t> {23 0000} 'x'", "20: 00 82 {}"),
            (CONNECT, "20: 00 82 {}"),
            ("F0: 18 {15 <OTHER> 16 <me>}", "20: 00 82 {}"),
            ("F0: 19 {15 <SCRAM> 16 <me>}", "20: 00 82 {}"),
            ("F0: 18 {16 <me>}", "20: 00 82 {}"),
            ("F1: 18 {15 <SCRAM>}", "20: 00 81 {}"),
            ("E0:", ""),
        ] {
            let client = net.join(V5, CONNECT, WHO);
            net.send(client, packet);
            net.expect_closed(client, answer);
            let told = net.script().take("disconnect");
            assert!(told.len() == 1 && net.session("c").is_none(), "{packet}: {told:?}");
        }
    });
}

/// [MQTT-3.1.2-24] Nor is CONNACK sent to who has no room for it.
#[test]
fn error_during_the_exchange_with_a_small_maximum_packet_size() {
    scenario(|net| {
        challenge(net);
        for (bytes_max, answer) in [(4, ""), (5, "20: 00 82 {}")] {
            let client = net.open(V5);
            net.send(client, &format!("10: <MQTT> 05 02 0000 {{15 <SCRAM> 27 {bytes_max:08X}}} <c> | C0:"));
            net.expect_closed(client, answer);
        }
    });
}

/// The whole exchange has the time that CONNECT has.
#[test]
fn exchange_that_takes_too_long() {
    scenario(|net| {
        challenge(net);
        let client = net.join(V5, CONNECT, WHO);
        net.advance(9_000);
        net.send(client, "F0: 18 {15 <SCRAM> 16 <?>}");
        net.expect(client, WHO);
        net.advance(999);
        net.expect(client, "");
        net.advance(1);
        net.expect_closed(client, "");
        assert_eq!(net.script().take("disconnect"), ["disconnect c Refused 8D"]);
    });
}

#[test]
fn client_gives_up_during_the_exchange() {
    scenario(|net| {
        challenge(net);
        let client = net.join(V5, CONNECT, WHO);
        net.lose(client);
        assert_eq!(net.script().take("disconnect"), ["disconnect c Refused 80"]);
    });
}

/// `handle_connect` is asked first; what it refuses never gets to `handle_auth`, and what it accepts still has to.
#[test]
fn handle_connect_comes_first() {
    scenario(|net| {
        challenge(net);
        net.script().connect = Some(Box::new(|_| Ok(ConnectVerdict::reject(ReasonCode::BANNED))));
        let client = net.open(V5);
        net.send(client, CONNECT);
        net.expect_closed(client, "20: 00 8A {}");
        assert_eq!(net.script().take("auth"), [""; 0]);
        net.script().connect = Some(Box::new(|_| Ok(ConnectVerdict::accept())));
        net.join(V5, CONNECT, WHO);
    });
}

/// Section 4.12.1.
#[test]
fn authenticating_again() {
    scenario(|net| {
        challenge(net);
        let client = net.join(V5, "10: <MQTT> 05 02 0000 {15 <SCRAM> 16 <me>} <c>", &connack(" 16 <hi>"));
        net.subscribe(client, "t", 0);
        net.send(client, "F0: 19 {15 <SCRAM> 16 <me>}");
        net.expect(client, "F0: 00 {15 <SCRAM> 16 <hi>}");
        // Everything else goes on while an exchange does.
        net.send(client, "F0: 19 {15 <SCRAM>} | 30: <t> {} 'x' | C0:");
        net.expect(client, &format!("{WHO} | 30: <t> {{}} 'x' | D0:"));
        net.send(client, "F0: 18 {15 <SCRAM> 16 <friend>}");
        net.expect(client, "F0: 00 {15 <SCRAM>}");
        let calls = net.script().take("auth");
        assert_eq!(calls[1..], ["auth c SCRAM ReAuthenticate", "auth c SCRAM ReAuthenticate", "auth c SCRAM Continue"]);
    });
}

/// [MQTT-4.12.1-2] The whole exchange has the time that CONNECT has, whatever else the client sends, and however long it may
/// say nothing. What plugins take does not count.
#[test]
fn authenticating_again_takes_too_long() {
    scenario(|net| {
        challenge(net);
        let connect = "10: <MQTT> 05 02 0000 {15 <SCRAM> 16 <me>} <c>";
        let client = net.join(V5, connect, &connack(" 16 <hi>"));
        net.advance(60_000);
        net.send(client, "F0: 19 {15 <SCRAM>}");
        net.expect(client, WHO);
        net.advance(9_000);
        net.send(client, "F0: 18 {15 <SCRAM> 16 <?>} | C0:");
        net.expect(client, &format!("{WHO} | D0:"));
        let (host, held) = (net.script().host(), std::sync::Arc::new(std::sync::Mutex::new(None)));
        let keep = std::sync::Arc::clone(&held);
        net.script().publish = Some(Box::new(move |_| {
            let (ticket, later) = host.ticket()?;
            *keep.lock().expect("whole") = Some(ticket);
            Ok(plugin_api::PublishVerdict::Later(later))
        }));
        net.send(client, "32: <t> 0001 {} 'x'");
        net.advance(4_000);
        let ticket = held.lock().expect("whole").take().expect("it was asked");
        ticket.answer(plugin_api::PublishVerdict::Handled).expect("it is awaited");
        net.settle();
        net.expect(client, "40: 0001");
        net.advance(999);
        net.expect(client, "");
        net.advance(1);
        net.expect_closed(client, "E0: 87");
        assert_eq!(net.script().take("disconnect"), ["disconnect c ServerDisconnect 87"]);
        // One that ends in time has no effect on what comes later.
        let client = net.join(V5, connect, &connack(" 16 <hi>"));
        net.send(client, "F0: 19 {15 <SCRAM>} | F0: 18 {15 <SCRAM> 16 <friend>}");
        net.expect(client, &format!("{WHO} | F0: 00 {{15 <SCRAM>}}"));
        net.advance(3_600_000);
        net.expect(client, "");
    });
}

/// [MQTT-4.12.1-1] [MQTT-4.12.1-2] [MQTT-4.12.0-7]
#[test]
fn authenticating_again_fails() {
    scenario(|net| {
        challenge(net);
        for (packet, answer, told) in [
            ("F0: 19 {15 <SCRAM> 16 <wrong>}", "E0: 87 {1F <who are you?>}", "ServerDisconnect 87 who are you?"),
            ("F0: 19 {15 <SCRAM> 16 <error>}", "E0: 80", "ServerDisconnect 80"),
            ("F0: 19 {15 <OTHER> 16 <me>}", "E0: 82", "ProtocolError 82"),
            ("F0: 18 {15 <SCRAM> 16 <me>}", "E0: 82", "ProtocolError 82"),
            ("F0: 19 {15 <SCRAM>} | F0: 19 {15 <SCRAM>}", "F0: 18 {15 <SCRAM> 16 <who?>} | E0: 82", "ProtocolError 82"),
        ] {
            let client = net.join(V5, "10: <MQTT> 05 02 0000 {15 <SCRAM> 16 <friend>} <c>", &connack(""));
            net.send(client, packet);
            net.expect_closed(client, answer);
            assert_eq!(net.script().take("disconnect"), [format!("disconnect c {told}")]);
        }
        let client = net.join(V5, "10: <MQTT> 05 02 0000 {15 <SCRAM> 16 <friend>} <c>", &connack(""));
        net.send(client, "F0: 19 {15 <SCRAM> 16 <panic>}");
        net.expect_closed(client, "E0: 83");
        let client = net.v5("c");
        net.send(client, "F0: 19 {15 <SCRAM> 16 <me>}");
        net.expect_closed(client, "E0: 82");
    });
}

/// Nobody has an opinion about the method [MQTT-4.12.0-1].
#[test]
fn without_a_plugin() {
    scenario_with(&Setup { plugin: false, ..Setup::default() }, |net| {
        let client = net.open(V5);
        net.send(client, CONNECT);
        net.expect_closed(client, "20: 00 8C {}");
    });
}

/// What is done to a connection during the exchange is done.
#[test]
fn disconnected_by_a_handler_during_the_exchange() {
    scenario(|net| {
        challenge(net);
        let client = net.join(V5, CONNECT, WHO);
        let (host, id) = (net.script().host(), plugin_api::ConnectionId(net.connection_id(client)));
        let end = Disconnect::new(ReasonCode::NOT_AUTHORIZED).property(Property::UserProperty("a", "b"));
        host.disconnect(id, end).expect("the mailbox has room");
        net.settle();
        net.expect_closed(client, ""); // [MQTT-3.14.0-1]
        assert_eq!(net.script().take("disconnect"), ["disconnect c ServerDisconnect 87"]);
    });
}
