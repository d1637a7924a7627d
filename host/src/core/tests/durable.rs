//! What a server has promised holds after it was killed: each scenario is cut in two by a crash, and its clients notice nothing
//! but that they have to connect again.

use super::*;
use crate::core::owner_of;

fn setup() -> Setup {
    Setup { plugin: false, store: true, ..Setup::default() }
}

/// Runs a scenario whose server has a store, for each version and in all modes.
fn kept(run: impl Fn(&mut Net, ProtocolVersion)) {
    for version in VERSIONS {
        kept_with(&setup(), |net| run(net, version));
    }
}

fn kept_with(setup: &Setup, run: impl Fn(&mut Net)) {
    scenario_with(setup, |net| {
        net.is_safe_at_once = true;
        run(net);
    });
}

/// CONNACK of a session that is resumed, and what comes behind it.
fn resumed(version: ProtocolVersion, packets: &str) -> String {
    format!("{} | {packets}", net::resumed(version))
}

/// [MQTT-4.4.0-1] What was sent and not acknowledged is sent again with its Packet Identifier, in its order, and what waited
/// behind it.
#[test]
fn messages_for_a_session_are_there() {
    kept(|net, version| {
        let to = net.durable(version, "to", CONNACK);
        net.subscribe(to, "q/#", 2);
        let from = net.client(version, "from");
        net.send(
            from,
            "32: <q/1> 0001 [{}] 'a' | 34: <q/2> 0002 [{}] 'b' | 34: <q/2> 0003 [{}] 'c' | 30: <q/0> [{}] 'x'",
        );
        net.expect(from, "40: 0001 | 50: 0002 | 50: 0003");
        net.expect(to, "32: <q/1> 0001 [{}] 'a' | 30: <q/0> [{}] 'x'");
        net.send(from, "62: 0002 | 62: 0003");
        net.expect(from, "70: 0002 | 70: 0003");
        net.expect(to, "34: <q/2> 0002 [{}] 'b' | 34: <q/2> 0003 [{}] 'c'");
        net.send(to, "50: 0002");
        net.expect(to, "62: 0002");
        net.lose(to);
        net.send(from, "32: <q/1> 0004 [{}] 'd'");
        net.expect(from, "40: 0004");
        net.crash(&setup());
        let again = "3A: <q/1> 0001 [{}] 'a' | 62: 0002 | 3C: <q/2> 0003 [{}] 'c' | 32: <q/1> 0004 [{}] 'd'";
        let to = net.durable(version, "to", &resumed(version, again));
        net.send(to, "40: 0001 | 70: 0002 | 50: 0003 | 40: 0004");
        net.expect(to, "62: 0003");
        net.crash(&setup());
        let to = net.durable(version, "to", &resumed(version, "62: 0003"));
        net.send(to, "70: 0003");
        net.crash(&setup());
        net.durable(version, "to", &resumed(version, ""));
    });
}

/// Trains: packets that have come together are kept as they came, in the queue, in flight and until they are released.
#[test]
fn messages_that_came_together_are_there() {
    kept(|net, version| {
        let to = net.durable(version, "to", CONNACK);
        net.subscribe(to, "t", 2);
        let from = net.durable(version, "from", CONNACK);
        let many = |first: u8, packet_ids: std::ops::RangeInclusive<u32>| -> String {
            packet_ids.map(|id| format!("{first:02X}: <t> {id:04X} [{{}}] 'message {id}' | ")).collect()
        };
        let acks = |first: u8, packet_ids: std::ops::RangeInclusive<u32>| -> String {
            packet_ids.map(|id| format!("{first:02X}: {id:04X} | ")).collect()
        };
        net.send(from, &many(0x32, 1..=20));
        net.expect(from, &acks(0x40, 1..=20));
        net.expect(to, &many(0x32, 1..=20));
        net.send(to, &acks(0x40, 1..=7));
        net.send(from, &many(0x34, 21..=40));
        net.expect(from, &acks(0x50, 21..=40));
        net.crash(&setup());
        let from = net.durable(version, "from", &resumed(version, ""));
        net.send(from, &acks(0x62, 21..=30));
        net.expect(from, &acks(0x70, 21..=30));
        let to = net.durable(version, "to", &resumed(version, &(many(0x3A, 8..=20) + &many(0x34, 21..=30))));
        net.send(to, &acks(0x40, 8..=20));
        net.send(to, &acks(0x50, 21..=25));
        net.expect(to, &acks(0x62, 21..=25));
        net.lose(to);
        net.send(from, &acks(0x62, 31..=40));
        net.expect(from, &acks(0x70, 31..=40));
        net.crash(&setup());
        let waiting = acks(0x62, 21..=25) + &many(0x3C, 26..=30) + &many(0x34, 31..=40);
        net.durable(version, "to", &resumed(version, &waiting));
    });
}

/// [MQTT-4.3.3-10] What was accepted with QoS 2 is not accepted again, and goes on once.
#[test]
fn messages_of_a_client_with_qos_2_go_on_once() {
    kept(|net, version| {
        let watcher = net.durable(version, "watcher", CONNACK);
        net.subscribe(watcher, "#", 0);
        let from = net.durable(version, "from", CONNACK);
        net.send(from, "34: <t> 0007 [{}] 'a' | 34: <t> 0009 [{}] 'b'");
        net.expect(from, "50: 0007 | 50: 0009");
        net.crash(&setup());
        let watcher = net.durable(version, "watcher", &resumed(version, ""));
        let from = net.durable(version, "from", &resumed(version, ""));
        net.send(from, "3C: <t> 0007 [{}] 'a' | 62: 0009");
        net.expect(from, "50: 0007 | 70: 0009");
        net.expect(watcher, "30: <t> [{}] 'b'");
        net.crash(&setup());
        let watcher = net.durable(version, "watcher", &resumed(version, ""));
        let from = net.durable(version, "from", &resumed(version, ""));
        net.send(from, "62: 0009 | 62: 0007");
        net.expect(from, if version == V5 { "70: 0009 92 | 70: 0007" } else { "70: 0009 | 70: 0007" });
        net.expect(watcher, "30: <t> [{}] 'a'");
    });
}

#[test]
fn subscriptions_are_there_as_they_were_made() {
    kept_with(&setup(), |net| {
        let to = net.durable(V5, "to", CONNACK);
        net.send(to, "82: 0001 {0B 07} <a/+> 09 | 82: 0002 {} <b> 06 | 82: 0003 {} <c> 01 | A2: 0004 {} <c>");
        net.expect(to, "90: 0001 {} 01 | 90: 0002 {} 02 | 90: 0003 {} 01 | B0: 0004 {} 00");
        net.crash(&setup());
        let from = net.v5("from");
        net.send(from, "32: <c> 0001 {} 'no'");
        net.expect(from, "40: 0001 10");
        net.send(from, "33: <a/1> 0002 {} 'kept'");
        net.expect(from, "40: 0002");
        let to = net.durable(V5, "to", &resumed(V5, "33: <a/1> 0001 {0B 07} 'kept'"));
        // No Local, and QoS 2.
        net.send(to, "40: 0001 | 30: <b> {} 'own'");
        net.send(from, "34: <b> 0003 {} 'other'");
        net.expect(from, "50: 0003");
        net.send(from, "62: 0003");
        net.expect(from, "70: 0003");
        net.expect(to, "34: <b> 0002 {} 'other'");
        net.lose(from);
    });
}

/// [MQTT-3.10.4-3] What waits for a client that has unsubscribed meanwhile comes all the same, as it would have without a crash.
#[test]
fn messages_of_subscriptions_that_have_ended_are_there() {
    let setup = Setup { plugin: false, store: true, ..Setup::limits(|limits| limits.in_flight_max = 1) };
    kept_with(&setup, |net| {
        let to = net.durable(V5, "to", CONNACK);
        net.subscribe(to, "t", 1);
        let from = net.v5("from");
        net.send(from, "32: <t> 0001 {} 'a' | 32: <t> 0002 {} 'b'");
        net.expect(from, "40: 0001 | 40: 0002");
        net.expect(to, "32: <t> 0001 {} 'a'");
        net.send(to, "A2: 0003 {} <t>");
        net.expect(to, "B0: 0003 {} 00");
        net.crash(&setup);
        let to = net.durable(V5, "to", &resumed(V5, "3A: <t> 0001 {} 'a'"));
        net.send(to, "40: 0001");
        net.expect(to, "32: <t> 0002 {} 'b'");
    });
}

/// [MQTT-3.1.2-23] A session whose client was away ends when it would have; who was connected has all of the interval.
#[test]
fn sessions_end_in_their_time() {
    kept_with(&setup(), |net| {
        let (away, _here) = (net.durable(V5, "away", CONNACK), net.durable(V5, "here", CONNACK));
        let ended = net.durable(V5, "ended", CONNACK);
        net.v5("gone");
        net.lose(away);
        net.send(ended, "E0: 00 {11 00000000}");
        net.expect_closed(ended, "");
        net.advance(3_000_000);
        net.crash(&setup());
        assert!(net.session("gone").is_none() && net.session("ended").is_none());
        net.advance(600_001);
        assert!(net.session("away").is_none() && net.session("here").is_some());
        net.advance(3_000_000);
        net.crash(&setup());
        assert!(net.session("here").is_none());
        // [MQTT-3.1.2-4] One that began anew has nothing of the one before.
        let client = net.durable(V5, "client", CONNACK);
        net.subscribe(client, "t", 1);
        let connect = net::connect_packet(V5, "02", 0, "11 00000E10", "client");
        net.join(V5, &connect, CONNACK);
        net.crash(&setup());
        assert!(net.session("client").is_some_and(|session| session.subscriptions.is_empty()));
    });
}

/// A will with a Will Delay Interval: from when the client was lost, or from the start of the server that was not there then.
#[test]
fn wills_that_wait_are_published() {
    kept_with(&setup(), |net| {
        let with_will = |net: &mut Net, name: &str, connack: &str| {
            let connect =
                format!("10: <MQTT> 05 04 0000 {{11 00000E10}} <{name}> {{18 0000003C 02 00000E10}} <w> <{name}>");
            net.join(V5, &connect, connack)
        };
        let lost = with_will(net, "lost", CONNACK);
        with_will(net, "connected", CONNACK);
        with_will(net, "back", CONNACK);
        let left = with_will(net, "left", CONNACK);
        net.send(left, "E0:");
        net.expect_closed(left, "");
        net.lose(lost);
        net.advance(20_000);
        net.crash(&setup());
        let watcher = net.v5("watcher");
        net.subscribe(watcher, "w", 0);
        let back = net.durable(V5, "back", CONNACK_RESUMED);
        net.advance(39_999);
        net.expect(watcher, "");
        net.advance(1);
        net.expect(watcher, "30: <w> {02 00000E10} 'lost'");
        net.advance(20_000);
        net.expect(watcher, "30: <w> {02 00000E10} 'connected'");
        net.lose(back);
        net.crash(&setup());
        let watcher = net.v5("watcher");
        net.subscribe(watcher, "w", 0);
        net.advance(3_000_000);
        net.expect(watcher, "");
    });
}

/// [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.2-5]
#[test]
fn retained_messages_are_there() {
    kept_with(&setup(), |net| {
        let from = net.v5("from");
        net.send(from, "31: <r/1> {} 'old' | 31: <r/2> {} 'x' | 33: <r/3> 0001 {02 0000003C} 'short'");
        net.expect(from, "40: 0001 10");
        net.send(from, "31: <r/1> {03 <type>} 'new' | 31: <r/2> {} '' | 33: <r/4> 0002 {02 00000E10} 'long'");
        net.expect(from, "40: 0002 10");
        net.advance(30_000);
        net.crash(&setup());
        net.advance(30_000);
        let to = net.v5("to");
        net.send(to, "82: 0001 {} <r/1> 01");
        net.expect(to, "90: 0001 {} 01 | 31: <r/1> {03 <type>} 'new'");
        net.send(to, "82: 0002 {} <r/2> 01 | 82: 0003 {} <r/3> 01 | 82: 0004 {} <r/4> 01");
        net.expect(to, "90: 0002 {} 01 | 90: 0003 {} 01 | 90: 0004 {} 01 | 33: <r/4> 0001 {02 00000DD4} 'long'");
        net.crash(&setup());
        assert_eq!(net.shared.retained.len(), 2);
    });
}

/// [MQTT-4.8.2-4] [MQTT-4.8.2-5] What a member has not acknowledged is another one's when its session ends, before or after the
/// crash; and what looked for another member when the server was killed finds one.
#[test]
fn messages_of_shared_subscriptions_are_handed_on() {
    kept_with(&setup(), |net| {
        let first = net.durable(V5, "first", CONNACK);
        net.subscribe(first, "$share/g/t", 1);
        let from = net.v5("from");
        for number in 1..=4 {
            net.send(from, &format!("32: <t> 000{number} {{}} '{number}'"));
            net.expect(from, &format!("40: 000{number}"));
        }
        net.expect(first, "32: <t> 0001 {} '1' | 32: <t> 0002 {} '2' | 32: <t> 0003 {} '3' | 32: <t> 0004 {} '4'");
        net.send(first, "40: 0001");
        net.lose(first);
        net.crash(&setup());
        let second = net.durable(V5, "second", CONNACK);
        net.subscribe(second, "$share/g/t", 1);
        let first =
            net.durable(V5, "first", &resumed(V5, "3A: <t> 0002 {} '2' | 3A: <t> 0003 {} '3' | 3A: <t> 0004 {} '4'"));
        net.send(first, "40: 0002 | E0: 00 {11 00000000}");
        net.expect_closed(first, "");
        net.expect(second, "32: <t> 0001 {} '3' | 32: <t> 0002 {} '4'");
        net.crash(&setup());
        let second = net.durable(V5, "second", &resumed(V5, "3A: <t> 0001 {} '3' | 3A: <t> 0002 {} '4'"));
        // Killed when it has left, before its messages have found another member: one that subscribes when the next server runs.
        let (worker, slot) = net.place(second);
        net.cores[worker].feed(slot, &net::bytes(V5, "E0: 00 {11 00000000}"), net.now);
        kept::hand_over(&mut net.cores[worker..=worker], net.store.as_ref());
        let third = net.durable(V5, "third", CONNACK);
        net.subscribe(third, "$share/g/t", 1);
    });
}

/// [MQTT-3.3.4-2] What many get at once is written once, and each has what it has not acknowledged.
#[test]
fn messages_for_many_are_there_for_each() {
    kept(|net, version| {
        let names = ["one", "two", "three", "four", "five"];
        let clients: Vec<usize> = names.iter().map(|name| net.durable(version, name, CONNACK)).collect();
        clients.iter().for_each(|client| net.subscribe(*client, "t", 1));
        let other = net.client(version, "other");
        net.subscribe(other, "t", 1);
        let from = net.client(version, "from");
        net.send(from, "32: <t> 0001 [{}] 'a' | 33: <t> 0002 [{}] 'b' | 32: <t> 0003 [{}] 'c'");
        net.expect(from, "40: 0001 | 40: 0002 | 40: 0003");
        for (number, client) in clients.iter().enumerate() {
            net.expect(*client, "32: <t> 0001 [{}] 'a' | 32: <t> 0002 [{}] 'b' | 32: <t> 0003 [{}] 'c'");
            (1..=number.min(3)).for_each(|id| net.send(*client, &format!("40: 000{id}")));
        }
        net.crash(&setup());
        let left = ["3A: <t> 0001 [{}] 'a' | ", "3A: <t> 0002 [{}] 'b' | ", "3A: <t> 0003 [{}] 'c' | "];
        for (number, name) in names.iter().enumerate() {
            net.durable(version, name, &resumed(version, &left[number.min(3)..].concat()));
        }
        assert!(net.session("other").is_none());
    });
}

/// A message that was on its way to another worker comes to who it was for, once, however many workers there are then.
#[test]
fn messages_between_workers_arrive() {
    for workers_then in 1..=4 {
        kept_with(&setup(), |net| {
            let workers = net.workers();
            let name = |worker, kind| {
                let mut names = (0..).map(|number| format!("{kind}{number}"));
                names.find(|name| owner_of(name, workers) == worker).expect("there are enough")
            };
            let (near, far) = (name(0, "near"), name(workers - 1, "far"));
            for (client, filters) in [(&near, "<t> 01"), (&far, "<t> 01 <$share/g/s> 01")] {
                let to = net.durable(V5, client, CONNACK);
                net.send(to, &format!("82: 0001 {{}} {filters}"));
                net.take(to);
                net.lose(to);
            }
            let from = net.v5(&name(0, "from"));
            let (worker, slot) = net.place(from);
            let packets = "32: <t> 0001 {} 'a' | 32: <s> 0002 {} 'b' | 32: <t> 0003 {} 'c'";
            net.cores[worker].feed(slot, &net::bytes(V5, packets), net.now);
            // All that the other workers know of it is lost.
            kept::hand_over(&mut net.cores[worker..=worker], net.store.as_ref());
            net.crash_to(&setup(), workers_then);
            for again in [false, true] {
                for (client, expected) in [(&near, "ac"), (&far, "abc")] {
                    let session = net.session(client).expect("it is kept");
                    let queued = session.queue.iter().map(|queued| queued.message.payload().to_vec());
                    let mut payloads: Vec<Vec<u8>> = queued.collect();
                    if client == &far {
                        payloads.sort_unstable();
                    }
                    assert_eq!(payloads.concat(), expected.as_bytes(), "{client}, {workers_then} workers, {again}");
                }
                net.crash(&setup());
            }
        });
    }
}

/// Nothing is written about who does not ask for it.
#[test]
fn sessions_that_end_with_their_connection_are_in_no_journal() {
    kept_with(&setup(), |net| {
        let (to, from) = (net.v5("to"), net.v5("from"));
        net.subscribe(to, "t", 2);
        net.send(from, "32: <t> 0001 {} 'a' | 34: <t> 0002 {} 'b' | 62: 0002");
        net.expect(from, "40: 0001 | 50: 0002 | 70: 0002");
        net.send(to, "40: 0001 | 50: 0002 | 70: 0002");
        net.lose(to);
        assert_eq!(net.store().last(), 0);
    });
}
