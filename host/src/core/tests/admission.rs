//! Who is let in at all: numbers of connections and sessions, addresses, rates, Keep Alive and idle time, and where those
//! are sent for whom there is no room.

use std::time::Duration;

use plugin_api::{Accept, ConnectVerdict, PropertiesBuf, Property, ReasonCode, Reject};

use super::net::connect_packet;
use super::*;
use crate::core::mail::Mail;

/// One address has its share, others are let in as ever; an IPv4 address in IPv6 form is the same address.
#[test]
fn connections_of_one_address_are_bounded() {
    let setup = Setup::limits(|limits| {
        limits.connections_per_address_max = 2;
        limits.connections_max = 4;
    });
    scenario_with(&setup, |net| {
        net.peer = "192.0.2.1:1";
        let first = net.open(V5);
        net.peer = "[::ffff:192.0.2.1]:2";
        net.client(V5, "second");
        for peer in ["192.0.2.1:3", "[::ffff:192.0.2.1]:4"] {
            net.peer = peer;
            assert!(net.try_open(V5).is_none(), "{peer}");
        }
        for peer in ["192.0.2.2:1", "[2001:db8::1]:1"] {
            net.peer = peer;
            net.client(V5, peer);
        }
        net.peer = "192.0.2.3:1";
        assert!(net.try_open(V5).is_none(), "all together are bounded too");
        assert_eq!(net.count(|counters| counters.connections_refused.get()), 3);
        net.lose(first);
        net.peer = "192.0.2.1:5";
        net.client(V5, "third");
    });
}

/// Who has one IPv6 address has all of its /64.
#[test]
fn an_ipv6_network_has_the_connections_of_one_address() {
    scenario_with(&Setup::limits(|limits| limits.connections_per_address_max = 2), |net| {
        net.peer = "[2001:db8::1]:1";
        let first = net.open(V5);
        net.peer = "[2001:db8::ffff:0:0:2]:1";
        net.client(V5, "second");
        net.peer = "[2001:db8::3]:1";
        assert!(net.try_open(V5).is_none(), "the /64 has as many as it may have");
        net.peer = "[2001:db8:0:1::1]:1";
        net.client(V5, "another network");
        net.lose(first);
        net.peer = "[2001:db8::4]:1";
        net.client(V5, "third");
    });
}

/// A second's worth of CONNECT packets is looked at, whichever worker they come to; the others do not reach a handler.
#[test]
fn connect_rate_is_bounded() {
    scenario_with(&Setup::limits(|limits| limits.connect_rate_max = 3), |net| {
        for name in ["a", "b", "c"] {
            net.client(V3_1_1, name);
        }
        net.script().calls.clear();
        for (version, connack) in [(V3_1, "20: 00 03"), (V3_1_1, "20: 00 03"), (V5, "20: 00 9F {}")] {
            let client = net.open(version);
            net.send(client, &connect_packet(version, "02", 0, "", "d"));
            net.expect_closed(client, connack);
        }
        assert!(net.script().calls.is_empty());
        assert_eq!(net.count(|counters| counters.connects_refused.get()), 3);
        net.advance(333);
        net.client(V5, "d");
        let early = net.open(V5);
        net.send(early, &connect_packet(V5, "02", 0, "", "e"));
        net.expect_closed(early, "20: 00 9F {}");
        net.advance(60_000);
        for name in ["a", "b", "c"] {
            net.client(V5, name);
        }
        // What has been let in is not bounded by it.
        let last = net.open(V5);
        net.send(last, &connect_packet(V5, "02", 0, "", "d"));
        net.expect_closed(last, "20: 00 9F {}");
    });
}

/// [MQTT-3.1.2-21] [MQTT-3.2.2-22] 5.0 clients are told the Keep Alive that counts; 3.x clients keep theirs.
#[test]
fn keep_alive_is_kept_between_its_bounds() {
    let setup = Setup::limits(|limits| (limits.keep_alive_secs_min, limits.keep_alive_secs_max) = (10, 60));
    scenario_with(&setup, |net| {
        let rows =
            [(0, Some(60)), (1, Some(10)), (9, Some(10)), (10, None), (60, None), (61, Some(60)), (65_535, Some(60))];
        for (asked, told) in rows {
            let told_bytes = told.map_or_else(String::new, |secs: u16| format!("13 {secs:04X}"));
            let connack = format!("20: 00 00 {{21 0400 27 01000000 22 0040 {told_bytes}}}");
            let client = net.join(V5, &connect_packet(V5, "02", asked, "", "c"), &connack);
            let patience = u64::from(told.unwrap_or(asked)) * 1500;
            net.advance(patience - 1);
            net.expect(client, "");
            net.advance(1);
            net.expect_closed(client, "E0: 8D");
        }
        let old = net.join(V3_1_1, &connect_packet(V3_1_1, "02", 1, "", "c"), "20: 00 00");
        net.advance(1499);
        net.expect(old, "");
        net.advance(1);
        net.expect_closed(old, "");
        net.join(V3_1_1, &connect_packet(V3_1_1, "02", 0, "", "c"), "20: 00 00");
        net.advance(1_000_000);
    });
}

#[test]
fn least_keep_alive_leaves_alone_who_has_none() {
    scenario_with(&Setup::limits(|limits| limits.keep_alive_secs_min = 10), |net| {
        net.join(V5, &connect_packet(V5, "02", 0, "", "a"), CONNACK);
        net.join(V5, &connect_packet(V5, "02", 9, "", "b"), "20: 00 00 {21 0400 27 01000000 22 0040 13 000A}");
    });
}

/// Who says nothing for too long is closed, whatever its Keep Alive; what the server sends does not count.
#[test]
fn idle_clients_are_closed() {
    scenario_with(&Setup::limits(|limits| limits.idle_max = Duration::from_secs(10)), |net| {
        for version in VERSIONS {
            for keep_alive in [0, 60] {
                let client = net.join(version, &connect_packet(version, "02", keep_alive, "", "c"), CONNACK);
                net.subscribe(client, "t", 0);
                let other = net.client(version, "other");
                net.advance(9999);
                net.send(client, "C0:");
                net.expect(client, "D0:");
                net.send(other, "30: <t> [{}] 'x'");
                net.expect(client, "30: <t> [{}] 'x'");
                net.advance(9999);
                net.expect(client, "");
                net.advance(1);
                net.expect_closed(client, if version == V5 { "E0: 8D" } else { "" });
                net.advance(10_000);
                net.take(other);
                net.expect_closed(other, "");
            }
        }
        // A shorter Keep Alive comes first.
        let client = net.join(V5, &connect_packet(V5, "02", 2, "", "c"), CONNACK);
        net.advance(3000);
        net.expect_closed(client, "E0: 8D");
        assert_eq!(net.script().take("disconnect").pop().unwrap(), "disconnect c KeepAliveTimeout 8D");
    });
}

/// 3.x sessions have their own expiry, however short that of 5.0 clients has to be.
#[test]
fn expiry_of_3x_sessions() {
    let setup = Setup::limits(|limits| {
        limits.session_expiry_secs_max = 5;
        limits.persistent_expiry_3x_secs = 100;
    });
    scenario_with(&setup, |net| {
        for version in [V3_1, V3_1_1] {
            let first = net.durable(version, "c", CONNACK);
            net.lose(first);
            net.advance(99_999);
            let again = net.durable(version, "c", net::resumed(version));
            net.send(again, "E0:");
            net.advance(100_000);
            assert!(net.session("c").is_none());
        }
    });
    scenario_in(MODES[0], &Setup::limits(|limits| limits.persistent_expiry_3x_secs = 0), |net| {
        let client = net.durable(V3_1_1, "c", CONNACK);
        net.lose(client);
        assert!(net.session("c").is_none());
    });
}

/// Where there is no room for a session, 5.0 clients are told of another server, if there is one.
#[test]
fn sessions_are_bounded_and_another_server_is_named() {
    for (reference, v5) in [(None, "20: 00 97 {}"), (Some("b.example:1883"), "20: 00 9C {1C <b.example:1883>}")] {
        let setup = Setup::limits(|limits| {
            limits.sessions_max = 1;
            limits.server_reference = reference.map(str::to_owned);
        });
        scenario_in(MODES[1], &setup, |net| {
            let first = net.v5("a");
            for (version, connack) in [(V3_1, "20: 00 03"), (V3_1_1, "20: 00 03"), (V5, v5)] {
                let client = net.open(version);
                net.send(client, &connect_packet(version, "02", 0, "", "b"));
                net.expect_closed(client, connack);
            }
            // Who has no room for the name is told the Reason Code alone.
            let narrow = net.open(V5);
            net.send(narrow, &connect_packet(V5, "02", 0, "27 00000014", "b"));
            let code = if reference.is_some() { "9C" } else { "97" };
            net.expect_closed(narrow, &format!("20: 00 {code} {{}}"));
            // Who has a session is let in, whether it goes on or begins anew.
            net.client(V5, "a");
            net.take(first);
            net.expect_closed(first, "");
        });
    }
}

/// A server that stops sends its clients to the other one, those that are on their way to a worker as well.
#[test]
fn stopping_names_another_server() {
    let setup = Setup::limits(|limits| limits.server_reference = Some("b".into()));
    scenario_with(&setup, |net| {
        let (v5, old) = (net.v5("a"), net.client(V3_1_1, "b"));
        let late = net.open(V5);
        let (worker, slot) = net.place(late);
        let connect = net::bytes(V5, &connect_packet(V5, "02", 0, "", "late"));
        net.cores[worker].feed(slot, &connect, net.now);
        for worker in 0..net.workers() {
            assert!(net.shared.mailboxes.post(worker, Mail::Stop));
        }
        for worker in (0..net.workers()).rev() {
            let now = net.now;
            net.cores[worker].on_mail(now);
        }
        net.settle();
        net.expect_closed(v5, "E0: 9C {1C <b>}");
        net.expect_closed(old, "");
        let told = net.take(late);
        assert!(told.ends_with(&[0x9C, 4, 0x1C, 0, 1, b'b']), "{told:02X?}");
        net.expect_closed(late, "");
        let told = net.script().take("disconnect");
        assert!(told.contains(&"disconnect a ServerShutdown 9C".to_owned()), "{told:?}");
    });
}

/// A handler may send a client elsewhere, for now (0x9C) or for good (0x9D), at CONNECT and later.
#[test]
fn handler_sends_a_client_to_another_server() {
    scenario(|net| {
        for (reason_code, code) in [(ReasonCode::USE_ANOTHER_SERVER, "9C"), (ReasonCode::SERVER_MOVED, "9D")] {
            let reject = move || Reject::new(reason_code).property(Property::ServerReference("c.example"));
            net.script().connect = Some(Box::new(move |_| Ok(ConnectVerdict::Reject(reject()))));
            for version in VERSIONS {
                let client = net.open(version);
                net.send(client, &connect_packet(version, "02", 0, "", "c"));
                let v5 = format!("20: 00 {code} {{1C <c.example>}}");
                net.expect_closed(client, if version == V5 { &v5 } else { "20: 00 03" });
            }
            net.script().connect = Some(Box::new(|_| Ok(ConnectVerdict::Accept(Accept::new()))));
            let client = net.v5("c");
            let connection = net.connection_id(client);
            let properties = PropertiesBuf::default().with(Property::ServerReference("c.example"));
            let properties = properties.as_bytes().into();
            for worker in 0..net.workers() {
                let properties = Box::clone(&properties);
                assert!(net.shared.mailboxes.post(worker, Mail::Disconnect { connection, reason_code, properties }));
            }
            net.settle();
            net.expect_closed(client, &format!("E0: {code} {{1C <c.example>}}"));
            net.advance(10_000);
        }
    });
}
