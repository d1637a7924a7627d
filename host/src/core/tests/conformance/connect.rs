//! Sections 3.1, 3.2 and 4.12: Client Identifiers, what CONNACK says, and what comes before it.

use plugin_api::{Accept, AuthVerdict, ConnectVerdict, Property, ReasonCode};

use super::*;

/// [MQTT-3.1.3-5] One to 23 letters and digits, all of them.
#[test]
fn client_identifiers_of_letters_and_digits() {
    const CHARACTERS: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    scenario(|net| {
        for version in VERSIONS {
            for start in 0..CHARACTERS.len() {
                let length = (start % 23 + 1).min(CHARACTERS.len() - start);
                let client = net.client(version, &CHARACTERS[start..start + length]);
                net.lose(client);
            }
            for length in 1..=23 {
                net.client(version, &"z".repeat(length));
            }
        }
    });
}

/// [MQTT-3.1.3-2] [MQTT-1.5.4-3] Compared as they are: nothing is taken for another one, or taken out.
#[test]
fn client_identifiers_tell_sessions_apart() {
    scenario(|net| {
        let names = ["c", "C", " c", "c ", "cc", "\u{FEFF}c", "c\u{FEFF}", "é", "e\u{301}"];
        for name in names {
            let client = net.durable(V5, name, CONNACK);
            net.subscribe(client, &format!("t/{name}"), 1);
        }
        let from = net.v5("from");
        for name in names {
            net.send(from, &format!("32: <t/{name}> 0001 {{}} '{name}'"));
            net.expect(from, "40: 0001");
            net.durable(V5, name, &format!("{CONNACK_RESUMED} | 3A: <t/{name}> 0001 {{}} '{name}'"));
        }
    });
}

/// The Client Identifier that CONNACK assigns to a client without one.
fn assigned(net: &mut Net, flags: &str) -> String {
    let client = net.open(V5);
    net.send(client, &connect_packet(V5, flags, 0, "11 00000E10", ""));
    let got = net.take(client);
    let length = usize::from(got[15]);
    let name = String::from_utf8(got[16..16 + length].to_vec()).expect("UTF-8");
    let connack = format!("20: 00 00 {{21 0400 27 01000000 12 <{name}> 22 0040}}");
    assert_eq!(got, net::bytes(V5, &connack));
    net.lose(client);
    name
}

/// [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16] Assigned is what nobody else has, can have had, or can foresee.
#[test]
fn assigned_client_identifiers_are_new() {
    scenario(|net| {
        let first = assigned(net, "00");
        // It is the client's from now on.
        let client = net.durable(V5, &first, CONNACK_RESUMED);
        net.lose(client);
        // Who knows one does not know the next ones: sessions that are made with what looks like them are not met.
        let (start, number) = first.rsplit_once('-').expect("a number at the end");
        let number = u64::from_str_radix(number, 16).expect("hexadecimal");
        let mut taken = vec![first.clone()];
        for next in 1..10 {
            let guess = format!("{start}-{:x}", number + next);
            net.durable(V5, &guess, CONNACK);
            taken.push(guess);
        }
        for flags in ["00", "02", "00", "02", "00", "02"] {
            let name = assigned(net, flags);
            assert!(!taken.contains(&name), "{name}");
            taken.push(name);
        }
    });
}

/// [MQTT-3.1.2-28] Only who asks for it gets Response Information.
#[test]
fn response_information() {
    scenario(|net| {
        net.script().connect = Some(Box::new(|_| {
            Ok(ConnectVerdict::Accept(Accept::new().property(Property::ResponseInformation("r/c"))))
        }));
        for (asks, told) in [("", ""), ("19 00", ""), ("19 01", " 1A <r/c>")] {
            let connack = format!("20: 00 00 {{21 0400 27 01000000 22 0040{told}}}");
            net.join(V5, &connect_packet(V5, "02", 0, asks, "c"), &connack);
        }
    });
}

/// [MQTT-3.1.4-6] [MQTT-3.1.4-2] [MQTT-3.2.2-7] Whoever refuses it, what comes behind CONNECT is not processed.
#[test]
fn nothing_is_processed_behind_a_refused_connect() {
    const BEHIND: &str = "31: <t> {} 'x' | 82: 0001 {} <t> 00 | 32: <t> 0001 {} 'x' | C0:";
    scenario(|net| {
        let watcher = net.v5("watcher");
        net.subscribe(watcher, "#", 0);
        let refused = [
            ("10: <MQTT> 05 02 0000 {} <handler>", "20: 00 87 {}"),
            ("10: <MQTT> 05 03 0000 {} <c>", "20: 00 81 {}"),
            ("10: <MQTT> 06 02 0000 {} <c>", "20: 00 84 {}"),
            ("10: <MQTT> 05 02 0000 {15 <m>} <c>", "20: 00 8C {}"),
            ("10: <MQTT> 05 06 0000 {} <c> {} <t/#> <x>", "20: 00 90 {}"),
        ];
        net.script().connect = Some(Box::new(|asked| {
            let is_refused = asked.line.starts_with("connect handler");
            Ok(if is_refused { ConnectVerdict::reject(ReasonCode::NOT_AUTHORIZED) } else { ConnectVerdict::accept() })
        }));
        for (connect, connack) in refused {
            let client = net.open(V5);
            net.send(client, &format!("{connect} | {BEHIND}"));
            net.expect_closed(client, connack);
        }
        net.expect(watcher, "");
        assert!(net.shared.retained.is_empty());
        let calls = &net.script().calls;
        let about_it = |line: &&String| ["publish", "subscribe"].iter().any(|name| line.starts_with(name));
        assert_eq!(calls.iter().filter(about_it).count(), 1, "the watcher's own subscription: {calls:?}");
    });
}

/// [MQTT-3.2.0-1] A session that has messages waiting gets none of them before CONNACK, however long that takes.
#[test]
fn connack_comes_first() {
    const CONNECT: &str = "10: <MQTT> 05 00 0000 {11 00000E10 15 <m>} <c>";
    scenario(|net| {
        net.script().auth = Some(Box::new(|asked| {
            let is_done = asked.data.as_deref() == Some(b"done");
            Ok(if is_done { AuthVerdict::Ok } else { AuthVerdict::Continue(b"?".to_vec()) })
        }));
        let first = net.durable(V5, "c", CONNACK);
        net.subscribe(first, "t", 1);
        net.lose(first);
        let from = net.v5("from");
        net.send(from, "32: <t> 0001 {} '1'");
        let client = net.open(V5);
        net.send(client, CONNECT);
        net.expect(client, "F0: 18 {15 <m> 16 <?>}");
        net.send(from, "32: <t> 0001 {} '2' | 30: <t> {} 'lost'");
        net.expect(client, "");
        net.send(client, "F0: 18 {15 <m> 16 <done>}");
        net.expect(
            client,
            "20: 01 00 {21 0400 27 01000000 22 0040 15 <m>} | 32: <t> 0001 {} '1' | 32: <t> 0002 {} '2'",
        );
        // Who does not get through it leaves the older connection, and its session, in peace.
        let refused = net.open(V5);
        net.send(refused, CONNECT);
        net.expect(refused, "F0: 18 {15 <m> 16 <?>}");
        net.send(refused, "C0:");
        net.expect_closed(refused, "20: 00 82 {}");
        net.send(from, "32: <t> 0001 {} '3'");
        net.expect(client, "32: <t> 0003 {} '3'");
    });
}

/// [MQTT-4.12.0-6] Where CONNECT names no method there is no exchange, and CONNACK names none.
#[test]
fn no_method_no_exchange() {
    scenario(|net| {
        net.script().auth = Some(Box::new(|_| Ok(AuthVerdict::Continue(b"?".to_vec()))));
        let client = net.v5("a");
        assert_eq!(net.script().take("auth"), [""; 0]);
        net.send(client, "C0:");
        net.expect(client, "D0:");
        // A handler cannot put one into CONNACK either: what it answers cannot be sent, so nobody gets in.
        for property in [Property::AuthenticationMethod("m"), Property::AuthenticationData(b"d")] {
            let accept = Accept::new().property(property);
            net.script().connect = Some(Box::new(move |_| Ok(ConnectVerdict::Accept(accept.clone()))));
            let client = net.open(V5);
            net.send(client, &connect_packet(V5, "02", 0, "", "b"));
            net.expect_closed(client, "20: 00 80 {}");
        }
    });
}

/// [MQTT-3.1.2-23] A Session Expiry Interval of 0xFFFFFFFF does not end.
#[test]
fn session_that_never_expires() {
    scenario_with(&Setup::limits(|limits| limits.session_expiry_secs_max = u32::MAX), |net| {
        let connect = connect_packet(V5, "00", 0, "11 FFFFFFFF", "c");
        let client = net.join(V5, &connect, CONNACK);
        net.subscribe(client, "t", 1);
        net.lose(client);
        net.advance(10 * 365 * 24 * 3600 * 1000);
        let from = net.v5("from");
        net.send(from, "32: <t> 0001 {} 'x'");
        let client = net.join(V5, &connect, &format!("{CONNACK_RESUMED} | 32: <t> 0001 {{}} 'x'"));
        net.send(client, "E0: 00 {11 00000000}");
        net.expect_closed(client, "");
        net.join(V5, &connect_packet(V5, "00", 0, "", "c"), CONNACK);
    });
}

/// [MQTT-3.1.2-4] [MQTT-3.1.4-4] [MQTT-3.2.2-2] Nothing of the old session is left: no subscription, nothing in flight or
/// waiting, no message that was received and not released, no will.
#[test]
fn clean_start_discards_all_of_the_session() {
    scenario(|net| {
        let (from, watcher) = (net.v5("from"), net.v5("watcher"));
        net.subscribe(watcher, "x", 0);
        let connect = "10: <MQTT> 05 04 0000 {11 00000E10 21 0001} <c> {18 00000E10} <t> <will>";
        let client = net.join(V5, connect, CONNACK);
        net.subscribe(client, "t", 1);
        net.send(from, "32: <t> 0001 {} '1' | 32: <t> 0001 {} '2'");
        net.send(client, "34: <x> 0007 {} 'x'");
        net.expect(client, "32: <t> 0001 {} '1' | 50: 0007");
        net.lose(client);
        let clean = connect_packet(V5, "02", 0, "11 00000E10", "c");
        let client = net.join(V5, &clean, CONNACK);
        net.send(from, "32: <t> 0001 {} '3'");
        net.send(client, "62: 0007");
        net.expect(client, "70: 0007 92");
        net.send(client, "40: 0001 | 50: 0001");
        net.expect(client, "62: 0001 92");
        net.lose(client);
        // What comes next resumes the new one.
        let client = net.durable(V5, "c", CONNACK_RESUMED);
        net.subscribe(client, "t", 1);
        net.send(from, "32: <t> 0001 {} '4'");
        net.expect(client, "32: <t> 0001 {} '4'");
        net.expect(watcher, "");
    });
}

/// [MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-11] [MQTT-3.2.2-12] [MQTT-3.8.4-8] Each Maximum QoS: announced unless it is 2;
/// subscriptions are granted with at most that, and get no more; what a client sends above it ends its connection.
#[test]
fn every_maximum_qos() {
    for (max, told) in [(0_u8, "24 00 "), (1, "24 01 "), (2, "")] {
        let setup = Setup::limits(|limits| limits.maximum_qos = plugin_api::QoS::from_u8(max).expect("a QoS"));
        scenario_with(&setup, |net| {
            let connack = format!("20: 00 00 {{21 0400 {told}27 01000000 22 0040}}");
            let to = net.join(V5, &connect_packet(V5, "02", 0, "", "to"), &connack);
            net.send(to, "82: 0001 {} <t> 00 <t/1> 01 <t/2> 02");
            let granted = [0, max.min(1), max].map(|qos| format!("{qos:02X}")).join(" ");
            net.expect(to, &format!("90: 0001 {{}} {granted}"));
            for qos in 0..=2 {
                let (first, id) = (0x30 | qos << 1, if qos == 0 { "" } else { "0001" });
                let from = net.join(V5, &connect_packet(V5, "02", 0, "", "from"), &connack);
                net.send(
                    from,
                    &format!("{first:02X}: <t/2> {id} {{}} 'x' {}", if qos == 2 { "| 62: 0001" } else { "" }),
                );
                let will = format!("10: <MQTT> 05 {:02X} 0000 {{}} <w> {{}} <t> <x>", 0x06 | qos << 3);
                if qos > max {
                    net.expect_closed(from, "E0: 9B");
                    net.expect(to, "");
                    let refused = net.open(V5);
                    net.send(refused, &will);
                    net.expect_closed(refused, "20: 00 9B {}");
                } else {
                    net.expect(from, ["", "40: 0001", "50: 0001 | 70: 0001"][usize::from(qos)]);
                    let id = if qos == 0 { String::new() } else { format!("{qos:04X}") };
                    net.expect(to, &format!("{first:02X}: <t/2> {id} {{}} 'x'"));
                    let client = net.join(V5, &will, &connack);
                    net.send(client, "E0:");
                }
            }
        });
    }
}

/// [MQTT-3.2.2-3] [MQTT-3.2.2-2] [MQTT-3.1.3-2] Session Present, and the session itself, go by the Client Identifier that a
/// handler gives, which CONNACK names.
#[test]
fn session_of_the_client_identifier_that_a_handler_gives() {
    scenario(|net| {
        let from = net.v5("from");
        let other = net.durable(V5, "other", CONNACK);
        net.subscribe(other, "t", 1);
        net.script().connect = Some(Box::new(|_| Ok(ConnectVerdict::Accept(Accept::new().client_id("other")))));
        for (flags, present, message) in [("00", "01", "32: <t> 0001 {} 'x'"), ("02", "00", "")] {
            let connack = format!("20: {present} 00 {{21 0400 27 01000000 12 <other> 22 0040}}");
            let client = net.join(V5, &connect_packet(V5, flags, 0, "11 00000E10", "c"), &connack);
            net.send(from, "32: <t> 0001 {} 'x'");
            net.expect(client, message);
        }
        assert!(net.session("c").is_none());
    });
}
