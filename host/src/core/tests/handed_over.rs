//! Another process takes over: what clients see is what they would have seen without.

use super::net::{connect_packet, resumed};
use super::*;

/// Runs a scenario with one worker taking over from two, two from one, and three from one, byte by byte.
fn handed_over(setup: &Setup, run: impl Fn(&mut Net, usize)) {
    for (before, after, bytewise) in [(2, 1, false), (1, 2, false), (1, 3, true)] {
        scenario_in(Mode { workers: before, bytewise }, setup, |net| run(net, after));
    }
}

fn without_plugin() -> Setup {
    Setup { plugin: false, ..Setup::default() }
}

#[test]
fn packets_that_have_not_come_or_gone_completely_go_on() {
    for version in VERSIONS {
        handed_over(&without_plugin(), |net, workers| {
            let to = net.client(version, "to");
            net.subscribe(to, "t", 1);
            let from = net.client(version, "from");
            net.stall(to, true);
            net.send(from, "32: <t> 0001 [{}] 'some payload'");
            net.expect(from, "40: 0001");
            net.read(to, 3);
            let packet = super::net::bytes(version, "32: <t> 0002 [{}] 'another'");
            net.send_bytes(from, &packet[..4]);
            let opened = net.open(version);
            let connect = super::net::bytes(version, &connect_packet(version, "02", 0, "", "late"));
            net.send_bytes(opened, &connect[..9]);
            net.hand_over(workers, None);
            net.send_bytes(from, &packet[4..]);
            net.expect(from, "40: 0002");
            net.stall(to, false);
            net.expect(to, "32: <t> 0001 [{}] 'some payload' | 32: <t> 0002 [{}] 'another'");
            net.send(to, "40: 0001 | 40: 0002");
            net.send_bytes(opened, &connect[9..]);
            net.expect(opened, CONNACK);
        });
    }
}

/// [MQTT-4.4.0-1] Nothing is sent again on a connection that goes on.
#[test]
fn messages_in_flight_go_on_where_they_were() {
    handed_over(&without_plugin(), |net, workers| {
        let to = net.durable(V5, "to", CONNACK);
        net.send(to, "82: 0001 {0B 07} <t> 02");
        net.expect(to, "90: 0001 {} 02");
        let from = net.durable(V5, "from", CONNACK);
        net.send(from, "34: <t> 0001 {} 'a' | 34: <t> 0002 {} 'b' | 62: 0001 | 62: 0002 | 32: <t> 0003 {03 <x>} 'c'");
        net.expect(from, "50: 0001 | 50: 0002 | 70: 0001 | 70: 0002 | 40: 0003");
        net.expect(to, "34: <t> 0001 {0B 07} 'a' | 34: <t> 0002 {0B 07} 'b' | 32: <t> 0003 {03 <x> 0B 07} 'c'");
        net.send(to, "50: 0001");
        net.expect(to, "62: 0001");
        // Received, and not released.
        net.send(from, "34: <t> 0004 {} 'd' | 34: <t> 0005 {} 'e'");
        net.expect(from, "50: 0004 | 50: 0005");
        net.hand_over(workers, None);
        net.expect(to, "");
        net.send(to, "70: 0001 | 50: 0002 | 40: 0003");
        net.expect(to, "62: 0002");
        net.send(from, "3C: <t> 0005 {} 'e' | 62: 0004 | 62: 0005");
        net.expect(from, "50: 0005 | 70: 0004 | 70: 0005");
        net.expect(to, "34: <t> 0004 {0B 07} 'd' | 34: <t> 0005 {0B 07} 'e'");
        // What it has not acknowledged it gets again, and once.
        net.lose(to);
        net.hand_over(1, None);
        let again = "62: 0002 | 3C: <t> 0004 {0B 07} 'd' | 3C: <t> 0005 {0B 07} 'e'";
        net.durable(V5, "to", &format!("{CONNACK_RESUMED} | {again}"));
    });
}

#[test]
fn who_is_away_finds_everything() {
    for version in VERSIONS {
        handed_over(&without_plugin(), |net, workers| {
            let away = net.durable(version, "away", CONNACK);
            net.subscribe(away, "a/#", 2);
            net.lose(away);
            let from = net.client(version, "from");
            net.send(from, "31: <kept> [{}] 'retained' | 32: <a/b> 0001 [{}] '1'");
            net.send(from, "34: <a/c> 0002 [{}] '2' | 62: 0002 | 32: <a/b> 0003 [{}] '3'");
            net.take(from);
            net.hand_over(workers, None);
            net.hand_over(2, None);
            net.advance(1000);
            let kept = "32: <a/b> 0001 [{}] '1' | 34: <a/c> 0002 [{}] '2' | 32: <a/b> 0003 [{}] '3'";
            let away = net.durable(version, "away", &format!("{} | {kept}", resumed(version)));
            net.send(away, "82: 0004 [{}] <kept> 00");
            net.expect(away, "90: 0004 [{}] 00 | 31: <kept> [{}] 'retained'");
        });
    }
}

/// [MQTT-3.3.2-7] What an alias stands for, both ways.
#[test]
fn topic_aliases_go_on() {
    handed_over(&without_plugin(), |net, workers| {
        let to = net.join(V5, &connect_packet(V5, "02", 0, "22 0005", "to"), CONNACK);
        net.subscribe(to, "#", 0);
        let from = net.v5("from");
        net.send(from, "30: <some/topic> {23 0003} '1' | 30: <another> {23 0001} '2'");
        net.expect(to, "30: <some/topic> {23 0001} '1' | 30: <another> {23 0002} '2'");
        net.hand_over(workers, None);
        net.send(from, "30: <> {23 0003} '3' | 30: <> {23 0001} '4' | 30: <third/one> {} '5'");
        net.expect(to, "30: <> {23 0001} '3' | 30: <> {23 0002} '4' | 30: <third/one> {23 0003} '5'");
    });
}

/// [MQTT-3.1.2-22] Time goes on: Keep Alive, Session Expiry Interval, Will Delay Interval, Message Expiry Interval.
#[test]
fn time_goes_on() {
    handed_over(&without_plugin(), |net, workers| {
        let watcher = net.v5("watcher");
        net.subscribe(watcher, "will/#", 0);
        let alive = net.join(V5, &connect_packet(V5, "02", 10, "", "alive"), CONNACK);
        let will = |id: &str, delay: &str| {
            format!("10: <MQTT> 05 06 0000 {{11 00000E10}} <{id}> {{18 {delay}}} <will/{id}> <gone>")
        };
        let delayed = net.join(V5, &will("delayed", "0000000A"), CONNACK);
        let here = net.join(V5, &will("here", "00000000"), CONNACK);
        let away = net.durable(V5, "away", CONNACK);
        net.subscribe(away, "t", 1);
        net.lose(away);
        net.lose(delayed);
        let from = net.v5("from");
        net.send(from, "32: <t> 0001 {02 0000003C} 'for a minute'");
        net.take(from);
        net.advance(9_000);
        net.hand_over(workers, None);
        net.expect(watcher, "");
        net.advance(1_000);
        net.expect(watcher, "30: <will/delayed> {} 'gone'");
        net.advance(4_999);
        net.expect(alive, "");
        net.advance(1);
        net.expect_closed(alive, "E0: 8D");
        net.lose(here);
        net.expect(watcher, "30: <will/here> {} 'gone'");
        net.advance(5_000);
        let kept = "32: <t> 0001 {02 00000028} 'for a minute'";
        let away = net.durable(V5, "away", &format!("{CONNACK_RESUMED} | {kept}"));
        net.send(away, "40: 0001");
        net.lose(away);
        net.advance(3_599_000);
        net.hand_over(1, None);
        assert!(net.session("away").is_some());
        net.advance(1_000);
        assert!(net.session("away").is_none());
    });
}

#[test]
fn shared_subscriptions_go_on() {
    handed_over(&without_plugin(), |net, workers| {
        let one = net.durable(V5, "one", CONNACK);
        net.send(one, "82: 0001 {0B 05} <$share/g/t> 01");
        net.expect(one, "90: 0001 {} 01");
        let from = net.v5("from");
        net.send(from, "32: <t> 0001 {} '1' | 32: <t> 0002 {} '2'");
        net.take(from);
        net.expect(one, "32: <t> 0001 {0B 05} '1' | 32: <t> 0002 {0B 05} '2'");
        net.hand_over(workers, None);
        // Nobody else is a member yet: what it does not acknowledge goes to who is when its session ends [MQTT-4.8.2-4].
        let two = net.v5("two");
        net.subscribe(two, "$share/g/t", 1);
        net.send(one, "40: 0001 | E0: 00 {11 00000000}");
        net.expect_closed(one, "");
        net.expect(two, "32: <t> 0001 {} '2'");
    });
}

/// Retained messages that a new subscription has coming: each of them once, and none that was published since.
#[test]
fn retained_messages_on_their_way_go_on() {
    let setup = Setup { plugin: false, ..Setup::limits(|limits| limits.outbound_bytes_max = 2_000) };
    handed_over(&setup, |net, workers| {
        let from = net.v5("from");
        for number in 0..100 {
            net.send(from, &format!("31: <r/{number:03}> {{}} '{}'", "x".repeat(100)));
        }
        let to = net.v5("to");
        net.stall(to, true);
        net.send(to, "82: 0001 {} <r/#> 00 <other> 00");
        net.read(to, 700);
        net.hand_over(workers, None);
        net.read(to, 700);
        net.hand_over(1, None);
        net.stall(to, false);
        let got = net.take(to);
        let packets = super::net::split(&got);
        let mut topics: Vec<_> = packets[1..].iter().map(|packet| packet[4..9].to_vec()).collect();
        topics.sort();
        topics.dedup();
        assert_eq!((packets.len(), topics.len()), (101, 100), "SUBACK and each message");
    });
}

/// [MQTT-3.3.1-12] Retained messages keep their place in time: a replay that waits does not give what came as a live message.
#[test]
fn sessions_that_wait_for_retained_messages_get_them_when_they_are_back() {
    handed_over(&without_plugin(), |net, workers| {
        let from = net.v5("from");
        net.send(from, "31: <r/1> {} 'old' | 31: <r/2> {02 0000000A} 'short'");
        net.hand_over(workers, None);
        net.send(from, "31: <r/1> {} 'new' | 31: <r/3> {} 'more' | 31: <r/3> {} ''");
        net.advance(9_000);
        let to = net.v5("to");
        net.send(to, "82: 0001 {} <r/1> 00 <r/2> 00 <r/3> 00");
        net.expect(to, "90: 0001 {} 00 00 00 | 31: <r/1> {} 'new' | 31: <r/2> {02 00000001} 'short'");
        net.advance(1_000);
        assert_eq!(net.shared.retained.len(), 1);
        net.send(from, "31: <r/1> {} ''");
    });
}

#[test]
fn clients_go_on_with_lanes_and_trains() {
    handed_over(&without_plugin(), |net, workers| {
        let receivers: Vec<_> = (0..6).map(|number| net.durable(V5, &format!("r{number}"), CONNACK)).collect();
        receivers.iter().for_each(|to| net.subscribe(*to, "t", 1));
        let from = net.v5("from");
        let some = |begin: u16| -> String {
            let one = |number| format!("32: <t> {number:04X} {{}} 'm{number}'");
            (begin..begin + 5).map(one).collect::<Vec<_>>().join(" | ")
        };
        receivers.iter().take(3).for_each(|to| net.stall(*to, true));
        net.send(from, &some(1));
        net.hand_over(workers, None);
        net.send(from, &some(6));
        net.hand_over(1, None);
        receivers.iter().take(3).for_each(|to| net.stall(*to, false));
        for to in receivers {
            net.expect(to, &format!("{} | {}", some(1), some(6)));
            net.send(to, &(1..=10).map(|number| format!("40: {number:04X}")).collect::<Vec<_>>().join(" | "));
        }
        net.take(from);
    });
}

/// However many sessions have a message, it is told and kept once.
#[test]
fn message_for_many_takes_the_room_of_one() {
    const SESSIONS: usize = 50;
    handed_over(&without_plugin(), |net, workers| {
        for number in 0..SESSIONS {
            let away = net.durable(V5, &format!("away{number}"), CONNACK);
            net.subscribe(away, "t", 1);
            net.lose(away);
        }
        let from = net.v5("from");
        let payload = "x".repeat(10_000);
        net.send(from, &format!("32: <t> 0001 {{}} '{payload}'"));
        net.expect(from, "40: 0001");
        let held = |net: &Net| (0..net.workers()).map(|worker| net.cores[worker].held_bytes()).sum::<usize>();
        net.hand_over(workers, None);
        assert!(held(net) < SESSIONS * 5_000, "{}", held(net));
        for number in 0..SESSIONS {
            net.durable(V5, &format!("away{number}"), &format!("{CONNACK_RESUMED} | 32: <t> 0001 {{}} '{payload}'"));
        }
    });
}

/// [MQTT-3.1.2-22] Keep Alive does not run while nothing is read, and does again afterwards.
#[test]
fn who_is_not_read_is_not_silent() {
    scenario(|net| {
        let client = net.join(V5, &connect_packet(V5, "02", 2, "", "c"), CONNACK);
        net.cores.iter_mut().for_each(|core| core.set_deaf(true));
        net.advance(30_000);
        net.cores.iter_mut().for_each(|core| core.set_deaf(false));
        net.advance(2_999);
        net.expect(client, "");
        net.advance(1);
        net.expect_closed(client, "E0: 8D");
    });
}
