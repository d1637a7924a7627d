//! Bounds on what one client publishes in a second.

use super::*;

/// A second's worth of messages goes through at once, then QoS 0 is dropped and counted until there is room again.
#[test]
fn qos_0_beyond_the_rate_is_dropped() {
    scenario_with(&Setup::limits(|limits| limits.message_rate_max = 3), |net| {
        let (to, other) = (net.v5("to"), net.v5("other"));
        net.subscribe(to, "t", 0);
        for version in VERSIONS {
            let from = net.client(version, "from");
            for number in 1..=5 {
                net.send(from, &format!("30: <t> [{{}}] '{number}'"));
            }
            net.expect(to, "30: <t> {} '1' | 30: <t> {} '2' | 30: <t> {} '3'");
            // It is this client's, and it is told nothing.
            net.send(other, "30: <t> {} 'x'");
            net.expect(to, "30: <t> {} 'x'");
            net.advance(333);
            net.send(from, "30: <t> [{}] '6' | 30: <t> [{}] '7' | C0:");
            net.expect(to, "30: <t> {} '6'");
            net.expect(from, "D0:");
            net.advance(60_000);
            for number in 1..=4 {
                net.send(from, &format!("30: <t> [{{}}] '{number}'"));
            }
            net.expect(to, "30: <t> {} '1' | 30: <t> {} '2' | 30: <t> {} '3'");
            net.advance(60_000);
        }
        assert_eq!(net.count(|counters| counters.dropped_rate.get()), 3 * 4);
        let asked = net.script().take("publish").len();
        assert_eq!(asked, 3 * (3 + 1 + 1 + 3), "handlers are not asked about what is dropped");
    });
}

/// No acknowledgement may say 0x96, but DISCONNECT may: the client still has the message.
#[test]
fn qos_1_and_2_beyond_the_rate_end_the_connection() {
    scenario_with(&Setup::limits(|limits| limits.message_rate_max = 2), |net| {
        for version in VERSIONS {
            for (publish, acks) in [
                ("32: <t> 0001 [{}] 'x' | 32: <t> 0002 [{}] 'x'", "40: 0001 [10] | 40: 0002 [10]"),
                ("34: <t> 0001 [{}] 'x' | 34: <t> 0002 [{}] 'x'", "50: 0001 | 50: 0002"),
            ] {
                let from = net.client(version, "from");
                net.send(from, publish);
                net.expect(from, acks);
                let third = if publish.starts_with("32") { "32: <t> 0003 [{}] 'x'" } else { "34: <t> 0003 [{}] 'x'" };
                net.send(from, third);
                net.expect_closed(from, if version == V5 { "E0: 96" } else { "" });
                assert_eq!(net.script().take("disconnect"), ["disconnect from LimitExceeded 96"]);
            }
        }
        assert_eq!(net.count(|counters| counters.dropped_rate.get()), 0);
    });
}

/// A QoS 2 message that is sent again is not a new one.
#[test]
fn repeated_messages_do_not_count() {
    scenario_with(&Setup::limits(|limits| limits.message_rate_max = 1), |net| {
        let from = net.v5("from");
        net.send(from, "34: <t> 0001 {} 'x' | 3C: <t> 0001 {} 'x' | 3C: <t> 0001 {} 'x' | 62: 0001");
        net.expect(from, "50: 0001 | 50: 0001 | 50: 0001 | 70: 0001");
    });
}

/// Topic, properties and payload count. What a packet has too much is taken from the time after it.
#[test]
fn byte_rate_is_bounded() {
    scenario_with(&Setup::limits(|limits| limits.byte_rate_max = 100), |net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "t", 0);
        let message = |bytes: usize| format!("30: <t> {{01 01}} '{}'", "x".repeat(bytes - 3));
        // 99 bytes leave one, so that another 200 may come; then 200 have to run off.
        net.send(from, &format!("{} | {} | {}", message(99), message(201), message(10)));
        net.expect(to, &format!("{} | {}", message(99), message(201)));
        net.advance(1999);
        net.send(from, &message(10));
        net.expect(to, "");
        net.advance(2);
        net.send(from, &message(10));
        net.expect(to, &message(10));
        net.send(from, "32: <t> 0001 {} 'x'");
        net.expect_closed(from, "E0: 96");
        assert_eq!(net.count(|counters| counters.dropped_rate.get()), 2);
    });
}

/// A Topic Alias holds, even if the message that set it was dropped: the client cannot know.
#[test]
fn dropped_message_sets_its_topic_alias() {
    scenario_with(&Setup::limits(|limits| limits.message_rate_max = 1), |net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "t", 0);
        net.send(from, "30: <u> {} 'x' | 30: <t> {23 0001} 'dropped'");
        net.advance(1000);
        net.send(from, "30: <> {23 0001} 'x'");
        net.expect(to, "30: <t> {} 'x'");
    });
}

/// Nobody pays for a bound that is not there, and who is silent does not pay for one that is.
#[test]
fn idle_connections_hold_no_state_for_rates() {
    for rate in [0, 10] {
        scenario_in(MODES[0], &Setup::limits(|limits| limits.message_rate_max = rate), |net| {
            let (silent, from) = (net.v5("silent"), net.v5("from"));
            net.send(from, "30: <t> {} 'x'");
            let has_state = |net: &Net, client| net.cores[0].connections[net.place(client).1 as usize].extra.is_some();
            assert!(!has_state(net, silent));
            assert_eq!(has_state(net, from), rate != 0);
        });
    }
}

/// What a client has used up is not forgotten with other state of its connection.
#[test]
fn rate_outlives_other_state() {
    scenario_with(&Setup::limits(|limits| limits.message_rate_max = 1), |net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "t", 0);
        for _ in 0..3 {
            net.send(from, "30: <t> {} 'x'");
            net.subscribe(from, "nothing/retained", 0);
        }
        net.expect(to, "30: <t> {} 'x'");
        assert_eq!(net.count(|counters| counters.dropped_rate.get()), 2);
    });
}
