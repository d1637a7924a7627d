//! Sessions: Clean Start, resumption, expiry, takeover, and what waits for the absent.

use super::net::{connect_packet, resumed};
use plugin_api::ConnectVerdict;

use super::*;

/// [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
/// [MQTT-3.1.2-6] [MQTT-3.1.4-4] [MQTT-3.2.2-1]
#[test]
fn clean_start_and_session_present() {
    for version in VERSIONS {
        scenario(|net| {
            let from = net.client(version, "from");
            let client = net.durable(version, "c", CONNACK);
            net.subscribe(client, "t", 0);
            net.send(client, "E0:");
            net.expect_closed(client, "");
            let client = net.durable(version, "c", resumed(version));
            net.send(from, "30: <t> [{}] '1'");
            net.expect(client, "30: <t> [{}] '1'");
            net.lose(client);
            // A clean start ends the old session, and this one is not kept either.
            let client = net.client(version, "c");
            net.send(from, "30: <t> [{}] '2'");
            net.expect(client, "");
            net.lose(client);
            assert!(net.session("c").is_none());
            net.durable(version, "c", CONNACK);
        });
    }
}

/// [MQTT-3.1.2-23] [MQTT-4.1.0-2] and what handlers hear when a session has expired.
#[test]
fn session_expires_after_its_interval() {
    scenario(|net| {
        let five = net.durable(V5, "five", CONNACK);
        let old = net.durable(V3_1_1, "old", CONNACK);
        net.subscribe(five, "t", 1);
        net.subscribe(old, "t", 1);
        net.lose(five);
        net.lose(old);
        net.advance(3_599_999);
        assert!(net.session("five").is_some());
        net.advance(1);
        assert!(net.session("five").is_none());
        assert_eq!(net.script().take("expired"), ["expired five"]);
        // 3.x names no interval: it is the server's longest.
        net.advance((7 * 24 * 3600 - 3600) * 1000 - 1);
        assert!(net.session("old").is_some());
        net.advance(1);
        assert_eq!(net.script().take("expired"), ["expired old"]);
    });
}

/// [MQTT-4.1.0-2] Its time is over when it is over, and not at the next tick, which a busy worker puts off.
#[test]
fn who_comes_too_late_has_no_session_though_nobody_has_looked_yet() {
    scenario_in(MODES[0], &Setup::default(), |net| {
        let client = net.durable(V5, "c", CONNACK);
        net.subscribe(client, "t", 1);
        net.lose(client);
        net.now = net.now + 3_600_000;
        let client = net.durable(V5, "c", CONNACK);
        assert_eq!(net.script().take("expired"), ["expired c"]);
        net.send(client, "32: <t> 0001 {} ''");
        net.expect(client, "40: 0001 10");
        net.lose(client);
        net.now = net.now + 3_599_999;
        net.durable(V5, "c", CONNACK_RESUMED);
        assert_eq!(net.script().take("expired"), [""; 0]);
    });
}

#[test]
fn session_that_ends_with_its_connection_does_not_expire() {
    scenario(|net| {
        let client = net.join(V5, &connect_packet(V5, "00", 0, "", "c"), CONNACK);
        net.lose(client);
        assert!(net.session("c").is_none());
        net.join(V5, &connect_packet(V5, "00", 0, "", "c"), CONNACK);
        assert_eq!(net.script().take("expired"), [""; 0]);
    });
}

/// A session does not age while its client is connected [MQTT-4.1.0-1].
#[test]
fn expiry_counts_from_the_last_connection() {
    scenario(|net| {
        for _ in 0..3 {
            let connack = if net.session("c").is_some() { CONNACK_RESUMED } else { CONNACK };
            let client = net.durable(V5, "c", connack);
            net.advance(10_000_000);
            net.lose(client);
            net.advance(3_500_000);
        }
        assert_eq!(net.script().take("expired"), [""; 0]);
        assert!(net.cores.iter().map(|core| core.timers.len()).sum::<usize>() <= 2, "one timer for a session");
    });
}

/// However often a client comes and goes, its session has one entry among the timers once a minute has passed.
#[test]
fn coming_and_going_leaves_no_timers() {
    scenario(|net| {
        for round in 0..100 {
            let client = net.durable(V5, "c", if round == 0 { CONNACK } else { CONNACK_RESUMED });
            net.lose(client);
            net.advance(100);
        }
        net.advance(120_000);
        assert_eq!(net.cores.iter().map(|core| core.timers.len()).sum::<usize>(), 1);
    });
}

/// The Session Expiry Interval of DISCONNECT replaces that of CONNECT (section 3.14.2.2.2).
#[test]
fn disconnect_changes_the_expiry() {
    scenario(|net| {
        let client = net.durable(V5, "c", CONNACK);
        net.send(client, "E0: 00 {11 0000000A}");
        net.expect_closed(client, "");
        net.advance(9_999);
        assert!(net.session("c").is_some());
        net.advance(1);
        assert!(net.session("c").is_none());

        let client = net.durable(V5, "c", CONNACK);
        net.send(client, "E0: 00 {11 00000000}");
        net.expect_closed(client, "");
        assert!(net.session("c").is_none());

        // Not beyond what a handler has set, nor if it has set that it ends.
        for (handlers, asked, kept_ms) in [(5, "000000FF", 5_000), (0, "0000000A", 0)] {
            net.script().connect = Some(Box::new(move |_| {
                Ok(ConnectVerdict::Accept(plugin_api::Accept::new().session_expiry_secs(handlers)))
            }));
            let connack = format!("20: 00 00 {{11 {handlers:08X} 21 0400 27 01000000 22 0040}}");
            let client = net.durable(V5, "c", &connack);
            net.send(client, &format!("E0: 00 {{11 {asked}}}"));
            net.expect_closed(client, "");
            assert_eq!(net.session("c").is_some(), kept_ms > 0);
            net.advance(kept_ms);
            assert!(net.session("c").is_none());
        }
        net.script().connect = None;

        // It cannot be made to stay if CONNECT has said that it does not.
        let client = net.v5("c");
        net.send(client, "E0: 00 {11 0000000A}");
        net.expect_closed(client, "E0: 82");
        assert!(net.session("c").is_none());
    });
}

/// [MQTT-3.1.4-3] The older connection is told, and ends; its session goes on with the new one.
/// [MQTT-3.1.3-2]
#[test]
fn takeover() {
    for version in VERSIONS {
        scenario(|net| {
            let from = net.client(version, "from");
            let first = net.durable(version, "c", CONNACK);
            net.subscribe(first, "t", 1);
            net.send(from, "32: <t> 0001 [{}] '1'");
            net.expect(first, "32: <t> 0001 [{}] '1'");
            let second = net.durable(version, "c", &format!("{} | 3A: <t> 0001 [{{}}] '1'", resumed(version)));
            net.expect_closed(first, if version == V5 { "E0: 8E" } else { "" });
            net.send(second, "40: 0001");
            net.send(from, "32: <t> 0001 [{}] '2'");
            net.expect(second, "32: <t> 0002 [{}] '2'");
            assert_eq!(net.script().take("disconnect"), ["disconnect c TakenOver 8E"]);
            assert_eq!(net.script().live, 2);
            let third = net.client(version, "c");
            net.expect_closed(second, if version == V5 { "E0: 8E" } else { "" });
            net.send(from, "32: <t> 0001 [{}] '3'");
            net.expect(third, "");
        });
    }
}

#[test]
fn takeover_of_a_session_that_ends_with_its_connection() {
    scenario(|net| {
        let first = net.v5("c");
        net.subscribe(first, "t", 0);
        let second = net.durable(V5, "c", CONNACK);
        net.expect_closed(first, "E0: 8E");
        net.send(second, "30: <t> {} 'x'");
        net.expect(second, "");
    });
}

/// A client that fell asleep and does not read what is sent to it loses its session to itself all the same.
#[test]
fn takeover_of_a_stalled_connection() {
    scenario(|net| {
        let first = net.durable(V5, "c", CONNACK);
        net.subscribe(first, "t", 1);
        net.stall(first, true);
        net.send(first, "32: <t> 0001 {} 'x'");
        let second = net.durable(V5, "c", &format!("{CONNACK_RESUMED} | 3A: <t> 0001 {{}} 'x'"));
        net.send(second, "40: 0001");
        net.stall(first, false);
        net.expect_closed(first, "32: <t> 0001 {} 'x' | 40: 0001 | E0: 8E");
        net.expect(second, "");
    });
}

/// [MQTT-4.5.0-1] QoS 1 and 2 wait in order, QoS 0 does not.
#[test]
fn messages_wait_for_an_absent_client() {
    for version in VERSIONS {
        scenario(|net| {
            let from = net.client(version, "from");
            let to = net.durable(version, "to", CONNACK);
            net.send(to, "82: 0001 [{}] <one> 01 <two> 02 <zero> 00");
            net.expect(to, "90: 0001 [{}] 01 02 00");
            net.lose(to);
            net.send(from, "32: <one> 0001 [{}] '1' | 34: <two> 0002 [{}] '2' | 62: 0002 | 30: <one> [{}] 'lost'");
            net.send(from, "32: <zero> 0003 [{}] 'lost' | 34: <one> 0002 [{}] '3' | 62: 0002");
            let waiting = "32: <one> 0001 [{}] '1' | 34: <two> 0002 [{}] '2' | 32: <one> 0003 [{}] '3'";
            net.durable(version, "to", &format!("{} | {waiting}", resumed(version)));
        });
    }
}

#[test]
fn queue_of_an_absent_client_is_bounded() {
    let setup = Setup::limits(|limits| {
        limits.queue_messages_max = 3;
        limits.queue_bytes_max = 10;
    });
    scenario_with(&setup, |net| {
        let from = net.v5("from");
        let to = net.durable(V5, "to", CONNACK);
        net.subscribe(to, "t", 1);
        net.lose(to);
        // The newest are dropped: the fourth message, and in the second round what would exceed ten bytes.
        for number in 1..=4 {
            net.send(from, &format!("32: <t> 0001 {{}} '{number}'"));
        }
        let to = net.durable(
            V5,
            "to",
            &format!("{CONNACK_RESUMED} | 32: <t> 0001 {{}} '1' | 32: <t> 0002 {{}} '2' | 32: <t> 0003 {{}} '3'"),
        );
        net.send(to, "40: 0001 | 40: 0002 | 40: 0003");
        net.lose(to);
        net.send(from, "32: <t> 0001 {} '12345678' | 32: <t> 0001 {} '1' | 32: <t> 0001 {} ''");
        net.durable(V5, "to", &format!("{CONNACK_RESUMED} | 32: <t> 0004 {{}} '12345678' | 32: <t> 0005 {{}} ''"));
        assert_eq!(net.count(|counters| counters.dropped_queue_full.get()), 2);
    });
}

#[test]
fn sessions_are_bounded() {
    scenario_in(MODES[0], &Setup::limits(|limits| limits.sessions_max = 2), |net| {
        net.v5("a");
        let b = net.durable(V5, "b", CONNACK);
        net.lose(b);
        let refused = net.open(V5);
        net.send(refused, &connect_packet(V5, "02", 0, "", "c"));
        net.expect_closed(refused, "20: 00 97 {}");
        assert_eq!(net.script().take("disconnect"), ["disconnect b Closed 80", "disconnect c Refused 97"]);
        net.durable(V5, "b", CONNACK_RESUMED);
    });
}

/// Another client's bytes end up nowhere else than in its own session, when slots are used again.
#[test]
fn slots_are_used_again() {
    scenario(|net| {
        let from = net.v5("from");
        for round in 0..10 {
            let (gone, stays) = (net.v5("gone"), net.v5("stays"));
            net.subscribe(gone, "t", 1);
            net.subscribe(stays, "t", 0);
            net.lose(gone);
            let other = net.v5("other");
            net.send(from, &format!("32: <t> 0001 {{}} {round:02X}"));
            net.expect(stays, &format!("30: <t> {{}} {round:02X}"));
            net.expect(other, "");
            net.lose(stays);
            net.lose(other);
        }
    });
}

/// Versions of the protocol may change between connections of one session.
#[test]
fn session_goes_on_with_another_version() {
    scenario(|net| {
        let from = net.v5("from");
        let old = net.durable(V3_1_1, "c", CONNACK);
        net.subscribe(old, "t", 2);
        net.lose(old);
        net.send(from, "34: <t> 0001 {26 <a> <b>} 'x' | 62: 0001");
        let new = net.durable(V5, "c", &format!("{CONNACK_RESUMED} | 34: <t> 0001 {{26 <a> <b>}} 'x'"));
        net.lose(new);
        net.durable(V3_1_1, "c", "20: 01 00 | 3C: <t> 0001 'x'");
    });
}
