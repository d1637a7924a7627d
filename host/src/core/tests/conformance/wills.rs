//! Sections 3.1.2.5 and 3.1.3.2: what becomes of a Will Message.

use super::*;

const WITH_WILL: &str = "10: <MQTT> 05 04 0000 {11 00000064} <c> {18 0000000A} <w> <gone>";

/// [MQTT-3.1.2-10] [MQTT-3.1.2-8] [MQTT-3.1.2-7] Once it is published it is forgotten, with the session that it belonged to
/// still there; the next connection has its own, or none.
#[test]
fn published_once() {
    scenario(|net| {
        let watcher = net.v5("watcher");
        net.subscribe(watcher, "#", 0);
        let client = net.join(V5, WITH_WILL, CONNACK);
        net.lose(client);
        net.advance(10_000);
        net.expect(watcher, "30: <w> {} 'gone'");
        // Back, and gone again without one.
        let client = net.durable(V5, "c", CONNACK_RESUMED);
        net.lose(client);
        net.advance(10_000_000);
        net.expect(watcher, "");
        // DISCONNECT 0x00 forgets it, so that the session's end does not publish it.
        let client = net.join(V5, WITH_WILL, CONNACK);
        net.send(client, "E0: 00");
        net.expect_closed(client, "");
        net.advance(200_000);
        net.expect(watcher, "");
        // Back in time with another will: only that one is left.
        let client = net.join(V5, WITH_WILL, CONNACK);
        net.lose(client);
        let other = WITH_WILL.replace("<gone>", "<gone again>");
        let client = net.join(V5, &other, CONNACK_RESUMED);
        net.lose(client);
        net.advance(200_000);
        net.expect(watcher, "30: <w> {} 'gone again'");
    });
}

/// [MQTT-3.1.2-8] [MQTT-3.1.3-9] Taken over while its delay has not begun, by a connection that resumes the session: not
/// published; by one that starts anew: published, as the session has ended.
#[test]
fn taken_over_with_a_delay() {
    scenario(|net| {
        let watcher = net.v5("watcher");
        net.subscribe(watcher, "w", 0);
        for (flags, connack, will) in [("00", CONNACK_RESUMED, ""), ("02", CONNACK, "30: <w> {} 'gone'")] {
            let first = net.join(V5, WITH_WILL, CONNACK);
            let second = net.join(V5, &connect_packet(V5, flags, 0, "11 00000064", "c"), connack);
            net.expect_closed(first, "E0: 8E");
            net.expect(watcher, will);
            net.lose(second);
            net.advance(200_000);
            net.expect(watcher, "");
        }
    });
}

/// [MQTT-3.1.2-14] [MQTT-3.1.2-15] [MQTT-3.3.1-5] Whether a will is retained, to who subscribes later; a retained one takes
/// the place of what was there.
#[test]
fn retained_or_not() {
    for version in VERSIONS {
        scenario(|net| {
            let name = if version == V3_1 { "MQIsdp" } else { "MQTT" };
            let from = net.client(version, "from");
            net.send(from, "31: <w> [{}] 'before'");
            for (number, (flags, later)) in [("06", "before"), ("26", "gone"), ("2E", "gone")].into_iter().enumerate() {
                let connect = format!("10: <{name}> {:02X} {flags} 0000 [{{}}] <c> [{{}}] <w> <gone>", version as u8);
                let client = net.join(version, &connect, CONNACK);
                net.lose(client);
                let to = net.client(version, &format!("late{number}"));
                net.send(to, "82: 0001 [{}] <w> 00");
                net.expect(to, &format!("90: 0001 [{{}}] 00 | 31: <w> [{{}}] '{later}'"));
                net.lose(to);
            }
            net.send(from, "31: <w> [{}]");
        });
    }
}
