//! What a worker holds for its peers is bounded: what it counts, what it refuses when it is full, and that it recovers.

use super::net::{bytes, connect_packet};
use super::*;
use crate::clock::Millis;
use crate::core::budget::{Account, FREE_BYTES, Kept};
use crate::message::{MessageParts, Source};

const ONE: Mode = MODES[0];

/// A worker with room for so many bytes.
fn room(bytes: usize) -> Setup {
    Setup::limits(|limits| limits.worker_bytes_max = bytes)
}

/// Has a session that nobody fetches anything from hold so many bytes in messages to `q`, and a little.
fn fill(net: &mut Net, bytes: usize) {
    let (from, absent) = (net.v5("from"), net.durable(V5, "absent", CONNACK));
    net.subscribe(absent, "q", 1);
    net.lose(absent);
    let publish = format!("32: <q> 0001 {{}} '{}'", "x".repeat(9_000));
    for _ in 0..bytes / 9_000 + 1 {
        net.send(from, &publish);
        net.take(from);
    }
    net.send(from, "E0:");
}

/// A message counts once, however many sessions wait for it, and each of them for little.
#[test]
fn message_for_many_counts_once() {
    scenario_in(ONE, &Setup::default(), |net| {
        let from = net.v5("from");
        for number in 0..50 {
            let absent = net.durable(V5, &format!("s{number}"), CONNACK);
            net.subscribe(absent, "t", 1);
            net.lose(absent);
        }
        let before = net.cores[0].held_bytes();
        net.send(from, &format!("32: <t> 0001 {{}} '{}'", "x".repeat(100_000)));
        let held = net.cores[0].held_bytes() - before;
        assert!((100_000..110_000).contains(&held), "{held} bytes");
        for number in 0..50 {
            let back = net.join(V5, &connect_packet(V5, "02", 0, "", &format!("s{number}")), CONNACK);
            net.send(back, "E0:");
        }
        assert!(net.cores[0].held_bytes() < before);
    });
}

/// A full worker refuses what it would have to keep, in the words of each packet, and does everything else.
#[test]
fn full_worker() {
    scenario_in(ONE, &room(1 << 20), |net| {
        let (from, to) = (net.v5("publisher"), net.v5("to"));
        let old = net.client(V3_1_1, "old");
        let (large, alias, silent) = (net.v5("large"), net.v5("alias"), net.v5("silent"));
        for client in [to, silent] {
            net.subscribe(client, "t", 2);
            net.subscribe(client, "zero", 0);
        }
        fill(net, 1 << 20);
        assert!(net.cores[0].held_bytes() >= 1 << 20);
        net.send(from, "32: <t> 0001 {} 'x' | 34: <t> 0002 {} 'x' | 32: <nobody> 0003 {} 'x'");
        net.expect(from, "40: 0001 97 | 50: 0002 97 | 40: 0003 97");
        assert!(net.count(|counters| counters.publishes_refused.get()) >= 3);
        // Nothing is acknowledged that is not kept: a 3.x client still has its message.
        net.send(old, "32: <t> 0001 'x'");
        net.expect_closed(old, "");
        net.send(from, "82: 0004 {} <new> 01 <$share/g/new> 01");
        net.expect(from, "90: 0004 {} 97 97");
        net.send(to, "82: 0004 {} <t> 01");
        net.expect(to, "90: 0004 {} 01"); // It has this one.
        let new = net.open(V5);
        net.send(new, &connect_packet(V5, "02", 0, "", "new"));
        net.expect_closed(new, "20: 00 97 {}");
        net.send(alias, "30: <zero> {23 0001} 'x'");
        net.expect_closed(alias, "E0: 97");
        // The start of a large packet.
        net.send_bytes(large, &[&[0x30, 0x80, 0x80, 0x40][..], &vec![b'x'; FREE_BYTES]].concat());
        net.expect_closed(large, "E0: 97");
        // Who sends and reads little is served.
        net.send(from, "30: <zero> {} 'x' | C0: | A2: 0005 {} <zero>");
        net.expect(from, "D0: | B0: 0005 {} 11");
        net.expect(to, "30: <zero> {} 'x'");
        // Who does not read gets little, and what is dropped is counted.
        net.take(silent);
        net.stall(silent, true);
        let dropped = net.count(|counters| counters.dropped_slow.get());
        let zero = format!("30: <zero> {{}} '{}'", "x".repeat(FREE_BYTES / 2));
        for _ in 0..4 {
            net.send(from, &zero);
        }
        assert_eq!(net.count(|counters| counters.dropped_slow.get()) - dropped, 3);
        net.stall(silent, false);
        // It recovers with what is released.
        let absent = net.open(V5);
        net.send(absent, &connect_packet(V5, "02", 0, "", "absent"));
        net.expect(absent, CONNACK);
        net.take(to);
        net.send(from, "32: <t> 0006 {} 'x' | 82: 0007 {} <new> 01");
        net.expect(from, "40: 0006 | 90: 0007 {} 01");
        net.expect(to, "32: <t> 0001 {} 'x'");
    });
}

/// What was accepted before, or by another worker, finds room beyond the bound, but not without an end.
#[test]
fn overfull_worker() {
    scenario_in(ONE, &room(1 << 20), |net| {
        let from = net.v5("publisher");
        let payload = "x".repeat(10_000);
        for id in 1..=60 {
            net.send(from, &format!("34: <q> {id:04X} {{}} '{payload}'"));
        }
        fill(net, 1 << 20);
        net.take(from);
        // Released, they are kept for the session: they are in memory already.
        for id in 1..=60 {
            net.send(from, &format!("62: {id:04X}"));
            net.expect(from, &format!("70: {id:04X}"));
            let held = net.cores[0].held_bytes();
            assert!(held <= (1 << 20) + (1 << 18), "{held} bytes");
        }
    });
}

/// A large message that is kept once is not copied for each of its receivers where there is no room for it: they get it
/// one after the other.
#[test]
fn large_message_for_many() {
    scenario_in(ONE, &room(1 << 20), |net| {
        let from = net.v5("from");
        let all: Vec<usize> = (0..20).map(|number| net.durable(V5, &format!("s{number}"), CONNACK)).collect();
        for client in &all {
            net.subscribe(*client, "t", 1);
            net.stall(*client, true);
        }
        net.send(from, &format!("32: <t> 0001 {{}} '{}'", "x".repeat(300_000)));
        let most = (1 << 20) + (1 << 17) + 320_000;
        assert!(net.cores[0].held_bytes() < most, "{} bytes", net.cores[0].held_bytes());
        net.expect(from, "40: 0001");
        for client in &all {
            net.stall(*client, false);
            assert!(net.cores[0].held_bytes() < most, "{} bytes", net.cores[0].held_bytes());
        }
        for client in &all {
            assert_eq!(net.take(*client).len(), 300_010);
            net.send(*client, "40: 0001");
        }
        // The same when it is sent again, or for the first time on another connection.
        net.send(from, &format!("32: <t> 0001 {{}} '{}'", "x".repeat(300_000)));
        for (number, client) in all.iter().enumerate() {
            net.lose(*client);
            let back = net.open(V5);
            net.stall(back, true);
            net.send(back, &connect_packet(V5, "00", 0, "11 00000E10", &format!("s{number}")));
        }
        assert!(net.cores[0].held_bytes() < most, "{} bytes", net.cores[0].held_bytes());
    });
}

/// What one session may have unacknowledged or waiting.
fn thousand_bytes() -> Setup {
    Setup::limits(|limits| (limits.queue_bytes_max, limits.outbound_bytes_max) = (1000, 1000))
}

/// QoS 2 messages that a client does not release are bounded in bytes, too.
#[test]
fn received_messages_are_bounded_in_bytes() {
    for version in [V3_1_1, V5] {
        scenario_with(&thousand_bytes(), |net| {
            let from = net.client(version, "from");
            let payload = "x".repeat(400);
            net.send(from, &format!("34: <t> 0001 [{{}}] '{payload}' | 34: <t> 0002 [{{}}] '{payload}'"));
            net.expect(from, "50: 0001 | 50: 0002");
            net.send(from, &format!("34: <t> 0003 [{{}}] '{payload}'"));
            if version == V5 {
                net.expect(from, "50: 0003 97");
                net.send(from, &format!("62: 0001 | 34: <t> 0003 {{}} '{payload}'"));
                net.expect(from, "70: 0001 | 50: 0003");
            } else {
                net.expect_closed(from, "");
            }
        });
    }
}

/// What a client is sent and does not acknowledge is bounded in bytes, and so is what waits behind it.
#[test]
fn messages_in_flight_are_bounded_in_bytes() {
    scenario_with(&thousand_bytes(), |net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "t", 1);
        for _ in 0..10 {
            net.send(from, &format!("32: <t> 0001 {{}} '{}'", "x".repeat(299)));
        }
        let session = net.session("to").expect("connected");
        assert_eq!((session.in_flight.len(), session.in_flight_bytes, session.queue.len()), (4, 1200, 3));
        assert_eq!(net.count(|counters| counters.dropped_queue_full.get()), 3);
        net.take(to);
        net.send(to, "40: 0001 | 40: 0002");
        let session = net.session("to").expect("connected");
        assert_eq!((session.in_flight.len(), session.in_flight_bytes, session.queue.len()), (4, 1200, 1));
    });
}

/// A worker that is full is known to the others: they refuse what would have to be kept there, and nothing else.
#[test]
fn full_worker_among_others() {
    let setup = room(1 << 20);
    scenario_in(Mode { workers: 2, bytewise: false }, &setup, |net| {
        let name = |worker| (0..).map(|n| format!("c{n}")).find(|name| crate::core::owner_of(name, 2) == worker);
        let (near, far) = (name(0).expect("one"), name(1).expect("one"));
        let from = net.v5(&near);
        let absent = net.durable(V5, &far, CONNACK);
        net.subscribe(absent, "far", 1);
        net.subscribe(from, "near", 1);
        net.lose(absent);
        let publish = bytes(V5, &format!("32: <far> 0001 {{}} '{}'", "x".repeat(9_000)));
        let mut sent = 0;
        while net.take(from) != [0x40, 3, 0, 1, 0x97] {
            assert!(sent < 130, "{sent} messages");
            net.send_bytes(from, &publish);
            sent += 1;
        }
        assert!(net.cores[0].held_bytes() < 20_000 && net.cores[1].held_bytes() >= 1 << 20);
        assert_eq!(net.session(&far).expect("kept").queue.len(), sent - 1, "what was acknowledged is kept");
        net.send(from, "32: <near> 0002 {} 'x'");
        net.expect(from, "32: <near> 0001 {} 'x' | 40: 0002");
    });
}

/// Subscription Identifiers of overlapping subscriptions count with each message that waits.
#[test]
fn identifiers_count() {
    scenario_in(ONE, &Setup::default(), |net| {
        let (from, absent) = (net.v5("from"), net.durable(V5, "absent", CONNACK));
        for number in 0..64_u8 {
            let filter = [1, 2, 4, 8, 16, 32].map(|bit| if number & bit == 0 { "+" } else { "a" }).join("/");
            net.send(absent, &format!("82: 0001 {{0B {:02X}}} <{filter}> 01", number + 1));
            net.expect(absent, "90: 0001 {} 01");
        }
        net.lose(absent);
        let before = net.cores[0].held_bytes();
        for _ in 0..10 {
            net.send(from, "32: <a/a/a/a/a/a> 0001 {} 'x'");
        }
        net.take(from);
        let held = net.cores[0].held_bytes() - before;
        assert!((10 * 64 * 4..10 * 64 * 4 + 10 * 300).contains(&held), "{held} bytes");
        net.join(V5, &connect_packet(V5, "02", 0, "", "absent"), CONNACK);
    });
}

/// Retained messages of a session that loses its connection wait in its queue as far as there is room for them.
#[test]
fn parked_replays_are_bounded() {
    scenario_in(ONE, &room(1 << 20), |net| {
        let from = net.v5("publisher");
        for number in 0..40 {
            net.send(from, &format!("33: <r/{number}> 0001 {{}} '{}'", "x".repeat(30_000)));
            net.expect(from, "40: 0001 10");
        }
        let slow = net.durable(V5, "slow", CONNACK);
        net.stall(slow, true);
        net.send(slow, "82: 0001 {} <r/#> 01");
        fill(net, 1 << 20);
        net.lose(slow);
        let held = net.cores[0].held_bytes();
        assert!(held <= (1 << 20) + (1 << 18) + 30_000, "{held} bytes");
        assert!(net.count(|counters| counters.dropped_queue_full.get()) > 0);
    });
}

/// Topic Aliases towards a client count for it.
#[test]
fn outbound_aliases_count() {
    scenario_in(ONE, &Setup::default(), |net| {
        let from = net.v5("from");
        let to = net.join(V5, &connect_packet(V5, "02", 0, "22 FFFF", "to"), CONNACK);
        net.subscribe(to, "#", 0);
        let before = net.cores[0].held_bytes();
        for number in 10..26 {
            net.send(from, &format!("30: <{number}{}> {{}} 'x'", "x".repeat(1000)));
        }
        net.take(to);
        let held = net.cores[0].held_bytes() - before;
        assert!((16_000..18_000).contains(&held), "{held} bytes");
    });
}

/// Levels of Shared Subscriptions count as those of others do.
#[test]
fn levels_of_shared_subscriptions_count() {
    scenario_in(ONE, &Setup::default(), |net| {
        let client = net.v5("client");
        let before = net.cores[0].held_bytes();
        for number in 0..50 {
            net.subscribe(client, &format!("$share/g/{number}{}", "/a".repeat(150)), 0);
        }
        let (nodes, held) = (net.shared.interest.nodes().0, net.cores[0].held_bytes() - before);
        assert!(held >= nodes * 64, "{held} bytes for {nodes} nodes");
        for number in 0..50 {
            net.send(client, &format!("A2: 0001 {{}} <$share/g/{number}{}>", "/a".repeat(150)));
        }
        net.take(client);
        assert_eq!(net.cores[0].held_bytes(), before);
    });
}

/// References count as the next power of two of them, in whatever order they come and go.
#[test]
fn references_are_counted_in_steps() {
    let account = Account::default();
    let parts = MessageParts {
        topic: "t",
        payload: b"x",
        properties: &[],
        qos: plugin_api::QoS::AtLeastOnce,
        retain: false,
        expires_at: Millis::NEVER,
        source: Source::Client,
        as_it_came: None,
    };
    let first = Kept::new(&parts, &account);
    let one = account.bytes();
    let mut kept = vec![first];
    for count in 2..=100_usize {
        kept.push(kept[count / 2 - 1].clone());
        assert_eq!(account.bytes() - one, (count.next_power_of_two() - 1) * 64, "{count}");
    }
    while kept.len() > 1 {
        kept.swap_remove(kept.len() / 3);
        assert_eq!(account.bytes() - one, (kept.len().next_power_of_two() - 1) * 64);
    }
    drop(kept);
    assert_eq!(account.bytes(), 0);
}

/// What lanes have kept once for many that do not read is not copied for each of them, whatever they ask for and however they
/// end: the bound of the worker holds.
#[test]
fn what_is_kept_once_for_many_is_not_copied_for_all() {
    const BYTES_MAX: usize = 400_000;
    let setup = Setup::limits(|limits| (limits.worker_bytes_max, limits.outbound_bytes_max) = (BYTES_MAX, 1 << 20));
    for (qos, count) in [(0, 400), (1, 130)] {
        scenario_in(MODES[0], &setup, |net| {
            let all: [usize; 20] = std::array::from_fn(|number| {
                let client = net.v5(&format!("to-{number}"));
                net.subscribe(client, "t", qos);
                net.stall(client, true);
                client
            });
            let from = net.v5("from");
            let publish =
                format!("{:02X}: <t> {} {{}} '{}'", 0x30 | qos << 1, ["", "0001"][qos as usize], "x".repeat(150));
            for _ in 0..count {
                net.send(from, &publish);
            }
            let held = |net: &Net| net.cores[0].held_bytes();
            assert!(held(net) < BYTES_MAX, "{} bytes", held(net));
            for (number, client) in all.into_iter().enumerate() {
                net.read(client, number * 7);
                net.send(client, "82: 0001 {} <u> 00");
                assert!(held(net) < BYTES_MAX + 100_000, "{} bytes with the answers to {}", held(net), number + 1);
            }
            for (number, client) in all.into_iter().enumerate() {
                net.send(client, "00:");
                assert!(held(net) < BYTES_MAX + 200_000, "{} bytes with {} that end", held(net), number + 1);
            }
            let mut whole = 0;
            for client in all {
                net.stall(client, false);
                let got = net.take(client);
                let packets = super::net::split(&got);
                let published = packets.iter().filter(|packet| packet[0] >> 4 == 3);
                assert!(published.clone().all(|packet| packet.ends_with(b"xxx")), "half a packet");
                whole += usize::from(published.count() == count);
                assert_eq!(packets.last(), Some(&&[0xE0, 1, 0x81][..]), "what is said last");
            }
            assert!((1..20).contains(&whole), "{whole} got everything");
        });
    }
}
