//! What one peer sets off is done in bounded pieces, and others are served in between. Counts, not times: here a turn has
//! few units of work.

use super::net::{bytes, connect_packet, split};
use super::*;
use crate::core::work::{UNITS_A_TURN, UNITS_FOR_REMAINS};

const ONE: Mode = MODES[0];

/// Has the core end this turn and take the next one, in which nothing is read.
fn turn(net: &mut Net) {
    let mut dirty = Vec::new();
    net.cores[0].flush_mail();
    net.cores[0].take_dirty(&mut dirty);
    dirty.into_iter().for_each(|slot| net.flush(0, slot));
    net.cores[0].flush_mail();
}

/// The subscriptions of a session that ends go in pieces. Nothing is delivered by those that are left, and a new session
/// of the client, in the same place, has none of them.
#[test]
fn subscriptions_of_an_ended_session() {
    scenario_in(ONE, &Setup::default(), |net| {
        let other = net.v5("other");
        let many = net.v5("many");
        let filters: String = (0..500).map(|number| format!(" <t/{number}> 01")).collect();
        net.send(many, &format!("82: 0001 {{}}{filters}"));
        net.take(many);
        let (_, slot) = net.place(many);
        let now = net.now;
        net.cores[0].flush_mail();
        net.cores[0].feed(slot, &bytes(V5, "E0:"), now);
        assert!(net.session("many").is_none());
        let nodes = |net: &Net| net.cores[0].router.nodes();
        let mut before = nodes(net);
        assert!(before > 400, "at once no more than a turn has work for");
        // In the place of the one that has ended.
        let again = net.open(V5);
        let (_, slot) = net.place(again);
        net.cores[0].feed(slot, &bytes(V5, &connect_packet(V5, "02", 0, "", "many")), now);
        net.cores[0].feed(slot, &bytes(V5, "82: 0001 {} <t/499> 01"), now);
        let (_, slot) = net.place(other);
        net.cores[0].feed(slot, &bytes(V5, "32: <t/499> 0001 {} 'x' | 32: <t/498> 0002 {} 'x'"), now);
        while before > 2 {
            assert!(net.cores[0].next_tick() <= Some(now), "it goes on at once");
            turn(net);
            let after = nodes(net);
            assert!(before > after && before - after <= UNITS_FOR_REMAINS, "{} nodes in a turn", before - after);
            before = after;
        }
        assert_eq!(before, 2, "what the new session has subscribed to");
        net.settle();
        assert_eq!(net.session("many").expect("connected").subscriptions.len(), 1);
        let got = net.take(again);
        assert!(got.ends_with(&bytes(V5, "90: 0001 {} 01 | 32: <t/499> 0001 {} 'x'")));
    });
}

/// Who comes and goes with many subscriptions, faster than they are removed between, clears away itself.
#[test]
fn subscriptions_of_ended_sessions_do_not_pile_up() {
    scenario_in(ONE, &Setup::default(), |net| {
        let filters: String = (0..200).map(|number| format!(" <t/{number}> 00")).collect();
        let subscribe = bytes(V5, &format!("82: 0001 {{}}{filters} | E0:"));
        let connect = bytes(V5, &connect_packet(V5, "02", 0, "", "c"));
        let now = net.now;
        for _ in 0..20 {
            let client = net.open(V5);
            let (_, slot) = net.place(client);
            for packets in [&connect, &subscribe] {
                net.cores[0].flush_mail(); // Another turn, whose output nobody has looked at.
                net.cores[0].feed(slot, packets, now);
            }
            assert!(net.cores[0].remains.len() <= 2, "{} sessions", net.cores[0].remains.len());
            turn(net);
            net.expect_closed(client, &format!("{CONNACK} | 90: 0001 {{}}{}", " 00".repeat(200)));
        }
    });
}

/// A publisher whose messages go to many: what it has sent waits while others are served, and nothing is lost or
/// changes places.
#[test]
fn packets_that_set_off_much() {
    for version in VERSIONS {
        scenario_in(ONE, &Setup::default(), |net| {
            let (from, other) = (net.client(version, "from"), net.client(version, "other"));
            let subscribers: Vec<usize> = (0..64).map(|number| net.client(version, &format!("s{number}"))).collect();
            for subscriber in &subscribers {
                net.subscribe(*subscriber, "t", 0);
            }
            let publishes: String = (0..40).map(|id| format!("32: <t> {:04X} [{{}}] '{id:02}' |", id + 1)).collect();
            let publishes = bytes(version, &publishes);
            let (_, slot) = net.place(from);
            let (_, other_slot) = net.place(other);
            let now = net.now;
            let core = &mut net.cores[0];
            core.feed(slot, &publishes, now);
            let sent = |net: &Net| net.count(|counters| counters.publishes_sent.get());
            let (mut before, mut turns) = (0, 0);
            while net.cores[0].is_held(slot) {
                assert!(net.cores[0].next_tick() <= Some(now), "it goes on at once");
                let after = sent(net);
                // A lane does four for the work of one.
                assert!(after - before <= 4 * (UNITS_A_TURN + 64) as u64, "{} messages in a turn", after - before);
                before = after;
                turns += 1;
                turn(net);
                // The others have their turn, whatever waits.
                net.cores[0].feed(other_slot, &[0xC0, 0], now);
            }
            assert!(turns >= 40 * 64 / 4 / (UNITS_A_TURN + 64), "{turns} turns");
            net.settle();
            for subscriber in subscribers {
                let got = net.take(subscriber);
                let payloads: Vec<u8> = split(&got).iter().map(|packet| packet[packet.len() - 1]).collect();
                assert_eq!(payloads.len(), 40);
                assert!(split(&got).windows(2).all(|pair| pair[0] < pair[1]), "in order");
            }
            assert_eq!(split(&net.take(from)).len(), 40, "acknowledged");
            assert_eq!(net.take(other).len(), 2 * turns, "pings are answered");
        });
    }
}

/// Bytes that come for a connection whose packets wait are put behind them, down to the part of a packet.
#[test]
fn bytes_behind_packets_that_wait() {
    scenario_in(ONE, &Setup::default(), |net| {
        let from = net.v5("from");
        net.subscribe(from, "t", 0);
        let (_, slot) = net.place(from);
        let now = net.now;
        let publish = bytes(V5, "30: <t> {} 'x'");
        let all = [publish.repeat(2 * UNITS_A_TURN), bytes(V5, "C0:")].concat();
        let (first, rest) = all.split_at(all.len() - 3);
        net.cores[0].feed(slot, first, now);
        assert!(net.cores[0].is_held(slot));
        for byte in rest {
            net.cores[0].feed(slot, &[*byte], now);
        }
        net.settle();
        assert!(!net.cores[0].is_held(slot));
        let expected = [publish.repeat(2 * UNITS_A_TURN), vec![0xD0, 0]].concat();
        assert!(net.take(from) == expected);
    });
}

/// A connection that is lost or closed while its packets wait takes them with it.
#[test]
fn connection_ends_while_its_packets_wait() {
    scenario_in(ONE, &Setup::default(), |net| {
        let publishes = bytes(V5, "30: <t> {} 'x'").repeat(2 * UNITS_A_TURN);
        let (lost, taken_over) = (net.v5("a"), net.v5("b"));
        let now = net.now;
        for client in [lost, taken_over] {
            let (_, slot) = net.place(client);
            net.cores[0].flush_mail();
            net.cores[0].feed(slot, &publishes, now);
            assert!(net.cores[0].is_held(slot));
        }
        net.lose(lost);
        net.client(V5, "b");
        net.expect_closed(taken_over, "E0: 8E");
    });
}

/// Timers that are due at one moment do not take the turn for themselves alone.
#[test]
fn sessions_that_expire_together() {
    scenario_in(ONE, &Setup::default(), |net| {
        for number in 0..200 {
            let connect = connect_packet(V5, "02", 0, "11 0000000A", &format!("c{number}"));
            let client = net.join(V5, &connect, CONNACK);
            net.lose(client);
        }
        net.now = net.now + 10_000;
        let (now, mut before, mut turns) = (net.now, 200, 0);
        loop {
            let has_more = net.cores[0].on_tick(now);
            let left = net.cores[0].sessions.len();
            assert!(before - left <= UNITS_A_TURN, "{} sessions ended in one turn", before - left);
            (before, turns) = (left, turns + 1);
            assert_eq!(has_more, net.cores[0].next_tick().is_some_and(|at| at <= now));
            if !has_more {
                break;
            }
            turn(net);
        }
        assert_eq!((before, turns > 4), (0, true), "{turns} turns");
    });
}

/// A publisher whose messages go to many groups: each of them is a delivery.
#[test]
fn packets_for_many_groups() {
    scenario_in(ONE, &Setup::default(), |net| {
        let (from, member) = (net.v5("from"), net.v5("member"));
        let filters: String = (0..UNITS_A_TURN).map(|number| format!(" <$share/{number}/t> 00")).collect();
        net.send(member, &format!("82: 0001 {{}}{filters}"));
        net.take(member);
        let (_, slot) = net.place(from);
        let now = net.now;
        let publishes = bytes(V5, &"30: <t> {} 'x' |".repeat(10));
        net.cores[0].feed(slot, &publishes, now);
        assert!(net.cores[0].is_held(slot), "the work of a turn is used up");
        assert_eq!(net.count(|counters| counters.publishes_sent.get()), UNITS_A_TURN as u64);
        net.settle();
        assert_eq!(split(&net.take(member)).len(), 10 * UNITS_A_TURN);
    });
}

/// Looking up retained messages is work, even where none of them match.
#[test]
fn retained_messages_that_do_not_match() {
    scenario_in(ONE, &Setup::default(), |net| {
        let from = net.v5("from");
        for number in 0..4 * UNITS_A_TURN {
            net.send(from, &format!("31: <t/{number}> {{}} 'x'"));
        }
        let subscriber = net.v5("subscriber");
        let (_, slot) = net.place(subscriber);
        let now = net.now;
        net.cores[0].feed(slot, &bytes(V5, "82: 0001 {} <+/+/none> 00 | C0:"), now);
        assert!(net.cores[0].is_held(slot), "the work of a turn is used up");
        net.settle();
        net.expect(subscriber, "90: 0001 {} 00 | D0:");
    });
}

/// A worker that is to stop does not let messages of other workers keep it from that.
#[test]
fn stopping_does_not_wait_for_turns() {
    scenario_in(Mode { workers: 2, bytewise: false }, &Setup::default(), |net| {
        let name = |worker| (0..).map(|n| format!("c{n}")).find(|name| crate::core::owner_of(name, 2) == worker);
        let from = net.v5(&name(0).expect("one"));
        let to = net.v5(&name(1).expect("one"));
        net.subscribe(to, "t", 0);
        let (_, slot) = net.place(from);
        let now = net.now;
        let publishes = bytes(V5, "30: <t> {} 'x'").repeat(UNITS_A_TURN);
        for _ in 0..4 {
            net.cores[0].feed(slot, &publishes, now);
            while net.cores[0].is_held(slot) {
                turn(net);
            }
        }
        net.cores[0].flush_mail();
        net.cores[1].on_mail(now);
        assert!(net.cores[1].has_mail_left());
        assert!(net.shared.mailboxes.post(1, crate::core::mail::Mail::Stop));
        net.cores[1].on_mail(now);
        assert!(net.cores[1].is_stopping());
        net.settle();
        let got = net.take(to);
        assert_eq!(split(&got).len(), 4 * UNITS_A_TURN + 1, "what was there before, and DISCONNECT");
    });
}
