//! CONNECT and AUTH.

use plugin_api::{Accept, AuthVerdict, ConnectVerdict, InfoTarget, ReasonCode};

use super::super::net::connect_packet;
use super::*;

/// The client is let in when the answer comes, by the worker that owns its session; what it has sent meanwhile follows.
#[test]
fn let_in_later() {
    let setup = Setup::limits(|limits| limits.connect_answer_max = std::time::Duration::from_secs(1000));
    for version in VERSIONS {
        scenario_with(&setup, |net| {
            let tickets = defer!(net, connect, ConnectVerdict);
            let clients: Vec<usize> = (0..6)
                .map(|number| {
                    let client = net.open(version);
                    net.send(client, &connect_packet(version, "02", 10, "", &format!("c{number}")));
                    net.send(client, "82: 0001 [{}] <t> 00 | C0:");
                    net.expect(client, "");
                    client
                })
                .collect();
            let host = net.script().host();
            host.send_info(InfoTarget::All, "hello", &[], None).expect("there is room");
            net.settle();
            net.script().take("");
            for (number, client) in clients.into_iter().enumerate() {
                assert_eq!(tickets.answer(net, ConnectVerdict::accept()), Ok(()));
                net.expect(client, &format!("{CONNACK} | 90: 0001 [{{}}] 00 | D0:"));
                let info = net.script().take("info");
                assert_eq!(info, [format!("info c{number} hello Plugin")]);
                // Keep Alive begins now.
                net.advance(14_000);
                net.send(client, "C0:");
                net.expect(client, "D0:");
                net.send(client, "E0:");
                net.expect_closed(client, "");
            }
        });
    }
}

/// The Client Identifier that a handler gives decides which worker the client goes to.
#[test]
fn let_in_under_another_name() {
    scenario(|net| {
        let tickets = defer!(net, connect, ConnectVerdict);
        for number in 0..4 {
            let client = net.open(V5);
            net.send(client, &connect_packet(V5, "02", 0, "", "c"));
            let name = format!("named-{number}");
            assert_eq!(tickets.answer(net, ConnectVerdict::Accept(Accept::new().client_id(&name))), Ok(()));
            net.expect(client, &format!("20: 00 00 {{21 0400 27 01000000 12 <{name}> 22 0040}}"));
            assert!(net.session(&name).is_some());
        }
    });
}

#[test]
fn refused_later() {
    for version in VERSIONS {
        scenario(|net| {
            let tickets = defer!(net, connect, ConnectVerdict);
            let client = net.open(version);
            net.send(client, &connect_packet(version, "02", 0, "", "c"));
            net.send(client, "C0:");
            assert_eq!(tickets.answer(net, ConnectVerdict::reject(ReasonCode::NOT_AUTHORIZED)), Ok(()));
            net.expect_closed(client, if version == V5 { "20: 00 87 {}" } else { "20: 00 05" });
            assert_eq!(net.script().take("disconnect"), ["disconnect c Refused 87"]);
            assert!(net.session("c").is_none());
        });
    }
}

/// An answer that comes after the time that a client has for its CONNECT: it is not the client that was slow.
#[test]
fn the_time_for_an_answer_is_not_the_clients() {
    let setup = Setup::limits(|limits| {
        limits.connect_timeout = std::time::Duration::from_secs(2);
        limits.connect_answer_max = std::time::Duration::from_secs(60);
    });
    scenario_with(&setup, |net| {
        let (connect, auth) = (defer!(net, connect, ConnectVerdict), defer!(net, auth, AuthVerdict));
        let client = net.open(V5);
        net.send(client, "10: <MQTT> 05 02 0000 {15 <SCRAM>} <c>");
        net.advance(10_000);
        assert_eq!(connect.answer(net, ConnectVerdict::accept()), Ok(()));
        net.advance(10_000);
        assert_eq!(auth.answer(net, AuthVerdict::Continue(b"who?".to_vec())), Ok(()));
        net.expect(client, "F0: 18 {15 <SCRAM> 16 <who?>}");
        net.advance(1_000);
        net.send(client, "F0: 18 {15 <SCRAM> 16 <me>}");
        net.advance(10_000);
        assert_eq!(auth.answer(net, AuthVerdict::Continue(b"who?".to_vec())), Ok(()));
        net.expect(client, "F0: 18 {15 <SCRAM> 16 <who?>}");
        // Now it is.
        net.advance(1_500);
        assert!(!net.is_connected(client));
    });
}

/// Every step of an exchange, before CONNACK and again.
#[test]
fn authentication() {
    scenario(|net| {
        let tickets = defer!(net, auth, AuthVerdict);
        let client = net.open(V5);
        net.send(client, "10: <MQTT> 05 02 0000 {15 <SCRAM>} <c>");
        assert_eq!(tickets.answer(net, AuthVerdict::Continue(b"who?".to_vec())), Ok(()));
        net.expect(client, "F0: 18 {15 <SCRAM> 16 <who?>}");
        net.send(client, "F0: 18 {15 <SCRAM> 16 <me>}");
        net.expect(client, "");
        assert_eq!(tickets.answer(net, AuthVerdict::OkWith(b"hi".to_vec())), Ok(()));
        net.expect(client, "20: 00 00 {21 0400 27 01000000 22 0040 15 <SCRAM> 16 <hi>}");
        for (answer, packet) in [
            (AuthVerdict::Continue(b"?".to_vec()), "F0: 18 {15 <SCRAM> 16 <?>}"),
            (AuthVerdict::Ok, "F0: 00 {15 <SCRAM>}"),
        ] {
            let step = if packet.starts_with("F0: 18") { "19" } else { "18" };
            net.send(client, &format!("F0: {step} {{15 <SCRAM>}} | C0:"));
            net.expect(client, "");
            assert_eq!(tickets.answer(net, answer), Ok(()));
            net.expect(client, &format!("{packet} | D0:"));
        }
        net.send(client, "F0: 19 {15 <SCRAM>} | C0:");
        assert_eq!(tickets.answer(net, AuthVerdict::error(ReasonCode::NOT_AUTHORIZED)), Ok(()));
        net.expect_closed(client, "E0: 87");
        let calls = net.script().take("auth");
        assert_eq!(calls.len(), 5, "{calls:?}");
    });
}
