//! Sections 3.3, 4.3 and 4.9: what goes on to subscribers, Topic Aliases, quotas, and what has been sent.

use plugin_api::{Message, Property, PublishVerdict};

use super::*;

/// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20] [MQTT-3.1.3-10] On every
/// way that a message may take; and [MQTT-3.1.2-29] they are no explanation, and sent to who wants none.
#[test]
fn properties_are_unaltered_on_every_way() {
    let lists = [
        "26 <z> <1> 01 01 26 <a> <2> 03 <text/plain> 08 <r/t> 09 <id> 26 <z> <1>",
        "09 0003 00FF80 26 <> <> 08 <$r/\u{FEFF}> 03 <> 01 00 26 <> <> 26 <k> <>",
    ];
    for list in lists {
        scenario(|net| {
            let from = net.v5("from");
            let message = format!("33: <t> 0001 {{{list}}} 'x'");
            let absent = net.durable(V5, "absent", CONNACK);
            net.subscribe(absent, "t", 1);
            net.lose(absent);
            // Live: to one alone, to several at once, as a member of a group, with QoS 0 and RETAIN as published.
            let live = net.join(V5, &connect_packet(V5, "02", 0, "17 00", "live"), CONNACK);
            net.subscribe(live, "t", 1);
            let (zero, member) = (net.v5("zero"), net.v5("member"));
            net.send(zero, "82: 0001 {} <+> 08");
            net.expect(zero, "90: 0001 {} 00");
            net.subscribe(member, "$share/g/t", 1);
            net.send(from, &message);
            net.expect(from, "40: 0001");
            let sent = format!("32: <t> 0001 {{{list}}} 'x'");
            net.expect(live, &sent);
            net.expect(zero, &format!("31: <t> {{{list}}} 'x'"));
            net.expect(member, &sent);
            // Retained, queued, and sent again.
            let late = net.v5("late");
            net.send(late, "82: 0001 {} <t> 01");
            net.expect(late, &format!("90: 0001 {{}} 01 | 33: <t> 0001 {{{list}}} 'x'"));
            let absent = net.durable(V5, "absent", &format!("{CONNACK_RESUMED} | {sent}"));
            net.lose(absent);
            let absent = net.durable(V5, "absent", &format!("{CONNACK_RESUMED} | 3A: <t> 0001 {{{list}}} 'x'"));
            net.lose(absent);
            // As a will.
            let will =
                net.join(V5, &format!("10: <MQTT> 05 0E 0000 {{}} <w> {{18 00000000 {list}}} <t> <will>"), CONNACK);
            net.lose(will);
            net.expect(live, &format!("32: <t> 0002 {{{list}}} 'will'"));
            net.send(from, "31: <t> {}");
        });
    }
}

/// [MQTT-1.5.4-3] [MQTT-3.3.2-3] [MQTT-4.7.3-4] A byte order mark, and characters that look alike, in topics and filters.
#[test]
fn topics_are_compared_and_sent_as_they_are() {
    scenario(|net| {
        let from = net.v5("from");
        for (topic, other) in
            [("\u{FEFF}t", "t"), ("t/\u{FEFF}", "t/"), ("\u{E9}", "e\u{301}"), ("t ", "t"), ("T", "t")]
        {
            let (same, different) = (net.v5("same"), net.v5("different"));
            net.subscribe(same, topic, 0);
            net.subscribe(different, other, 0);
            let publish = format!("30: <{topic}> {{}} 'x'");
            net.send(from, &publish);
            net.expect(same, &publish);
            net.expect(different, "");
        }
    });
}

/// [MQTT-4.7.3-3] [MQTT-4.7.3-1] As long as a Topic Name can be, and as short.
#[test]
fn longest_and_shortest_topic() {
    scenario_in(MODES[0], &Setup::default(), |net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "#", 0);
        for topic in ["t".repeat(65_535), "t".into(), "/".into()] {
            let publish = format!("30: <{topic}> {{}} 'x'");
            net.send(from, &publish);
            net.expect(to, &publish);
        }
        let filter = "t".repeat(65_535);
        net.subscribe(from, &filter, 0);
    });
}

/// [MQTT-3.3.2-12] [MQTT-3.3.2-8] Each Topic Alias from 1 to our Topic Alias Maximum, set, used, set anew; and with any
/// Maximum.
#[test]
fn every_topic_alias_is_accepted() {
    for alias_max in [1, 64, 300] {
        scenario_in(MODES[0], &Setup::limits(|limits| limits.topic_alias_max = alias_max), |net| {
            let connack = format!("20: 00 00 {{21 0400 27 01000000 22 {alias_max:04X}}}");
            let from = net.join(V5, &connect_packet(V5, "02", 0, "", "from"), &connack);
            let to = net.join(V5, &connect_packet(V5, "02", 0, "", "to"), &connack);
            net.subscribe(to, "#", 0);
            for round in 0..2 {
                for alias in 1..=alias_max {
                    net.send(from, &format!("30: <t/{round}/{alias}> {{23 {alias:04X}}} 'set'"));
                    net.expect(to, &format!("30: <t/{round}/{alias}> {{}} 'set'"));
                }
                for alias in (1..=alias_max).rev() {
                    net.send(from, &format!("30: <> {{23 {alias:04X}}} 'used'"));
                    net.expect(to, &format!("30: <t/{round}/{alias}> {{}} 'used'"));
                }
            }
            net.send(from, &format!("30: <t> {{23 {:04X}}} 'x'", alias_max + 1));
            net.expect_closed(from, "E0: 94");
        });
    }
}

/// [MQTT-3.2.2-18] [MQTT-3.2.2-17] Without a Topic Alias Maximum of ours, none is accepted.
#[test]
fn no_topic_alias_is_accepted_without_a_maximum() {
    scenario_with(&Setup::limits(|limits| limits.topic_alias_max = 0), |net| {
        for alias in ["0001", "0040", "FFFF"] {
            let client = net.join(V5, &connect_packet(V5, "02", 0, "", "c"), "20: 00 00 {21 0400 27 01000000}");
            net.send(client, &format!("30: <t> {{23 {alias}}} 'x'"));
            net.expect_closed(client, "E0: 94");
        }
    });
}

/// [MQTT-3.3.4-7] [MQTT-3.3.4-8] While a client's quota is used up, all its other packets are answered; one more message
/// with QoS 1 or 2 is too much, and one with QoS 0 is not.
#[test]
fn quota_of_the_client_is_used_up() {
    scenario_with(&Setup::limits(|limits| limits.receive_maximum = 2), |net| {
        for one_more in ["32: <t> 0003 {} 'x'", "34: <t> 0003 {} 'x'", "3A: <t> 0003 {} 'x'"] {
            let client = net.join(V5, &connect_packet(V5, "02", 0, "", "c"), "20: 00 00 {21 0002 27 01000000 22 0040}");
            net.send(client, "34: <t> 0001 {} '1' | 34: <t> 0002 {} '2'");
            net.expect(client, "50: 0001 | 50: 0002");
            net.send(client, "C0: | 82: 0009 {} <zero> 00 | A2: 0009 {} <t> | 3C: <t> 0001 {} '1' | 30: <zero> {} 'x'");
            net.expect(client, "D0: | 90: 0009 {} 00 | B0: 0009 {} 11 | 50: 0001 | 30: <zero> {} 'x'");
            net.send(client, one_more);
            net.expect_closed(client, "E0: 93");
        }
    });
}

/// [MQTT-3.3.4-10] [MQTT-4.9.0-3] [MQTT-3.3.4-9] While our quota is used up, nothing waits but messages with QoS 1 and 2.
#[test]
fn quota_of_the_server_is_used_up() {
    scenario(|net| {
        let from = net.v5("from");
        let to = net.join(V5, &connect_packet(V5, "02", 0, "21 0001", "to"), CONNACK);
        net.send(to, "82: 0001 {} <t> 02 <r> 01");
        net.expect(to, "90: 0001 {} 02 01");
        net.send(from, "34: <t> 0001 {} '1' | 62: 0001 | 32: <t> 0002 {} '2' | 33: <r> 0003 {} '3'");
        net.expect(to, "34: <t> 0001 {} '1'");
        net.send(
            to,
            "C0: | 82: 0002 {} <u> 00 | A2: 0003 {} <u> | 32: <x> 0004 {} 'x' | 34: <x> 0005 {} 'x' | 62: 0005",
        );
        net.expect(to, "D0: | 90: 0002 {} 00 | B0: 0003 {} 00 | 40: 0004 10 | 50: 0005 | 70: 0005");
        net.send(from, "30: <t> {} 'zero'");
        net.expect(to, "30: <t> {} 'zero'");
        net.send(to, "50: 0001");
        net.expect(to, "62: 0001");
        net.send(to, "70: 0001");
        net.expect(to, "32: <t> 0002 {} '2'");
        net.send(to, "40: 0002 80");
        net.expect(to, "32: <r> 0003 {} '3'");
    });
}

/// [MQTT-4.3.3-7] [MQTT-4.3.3-3] What has been sent is sent again though it has expired meanwhile; what has not, is not.
#[test]
fn what_has_been_sent_does_not_expire() {
    scenario(|net| {
        let from = net.v5("from");
        let connect = connect_packet(V5, "00", 0, "11 00000E10 21 0002", "to");
        let to = net.join(V5, &connect, CONNACK);
        net.subscribe(to, "t", 2);
        net.send(from, "34: <t> 0001 {02 00000001} '1' | 62: 0001 | 32: <t> 0002 {02 00000001} '2'");
        net.send(from, "34: <t> 0003 {02 00000001} '3' | 62: 0003");
        net.expect(to, "34: <t> 0001 {02 00000001} '1' | 32: <t> 0002 {02 00000001} '2'");
        net.advance(10_000);
        net.lose(to);
        let again = "3C: <t> 0001 {02 00000000} '1' | 3A: <t> 0002 {02 00000000} '2'";
        let to = net.join(V5, &connect, &format!("{CONNACK_RESUMED} | {again}"));
        net.send(to, "50: 0001 | 40: 0002 | 70: 0001");
        net.expect(to, "62: 0001");
        assert!(net.session("to").is_some_and(|session| session.in_flight.is_empty() && session.queue.is_empty()));
    });
}

/// [MQTT-3.3.1-8] [MQTT-3.3.1-7] Neither a message without RETAIN nor an empty one without it touches the retained one.
#[test]
fn without_retain_nothing_is_stored_or_removed() {
    scenario(|net| {
        let from = net.v5("from");
        net.send(
            from,
            "31: <t> {} 'kept' | 30: <t> {} | 32: <t> 0001 {} 'x' | 34: <t> 0002 {} | 62: 0002 | 30: <u> {} 'x'",
        );
        net.expect(from, "40: 0001 10 | 50: 0002 | 70: 0002");
        let to = net.v5("to");
        net.send(to, "82: 0001 {} <#> 00");
        net.expect(to, "90: 0001 {} 00 | 31: <t> {} 'kept'");
    });
}

/// [MQTT-3.3.2-2] [MQTT-3.3.2-8] [MQTT-3.3.2-14] [MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-1.5.4-2] What a server may
/// not send, a handler cannot make it send: such an answer is a refusal, for messages as for wills.
#[test]
fn handlers_cannot_have_sent_what_is_not_allowed() {
    let message = |topic: &str| Message::new(topic, "changed");
    let changes = [
        message(""),
        message("a/#"),
        message("+"),
        message("a\0"),
        message("t").property(Property::ResponseTopic("")),
        message("t").property(Property::ResponseTopic("a/+")),
        message("t").property(Property::TopicAlias(1)),
        message("t").property(Property::SubscriptionIdentifier(1)),
        message("t").property(Property::ReasonString("why")),
        message("t").property(Property::SessionExpiryInterval(1)),
        message("t").property(Property::ContentType("a")).property(Property::ContentType("b")),
    ];
    scenario(|net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "#", 0);
        for change in &changes {
            let change = change.clone();
            net.script().publish = Some(Box::new(move |_| Ok(PublishVerdict::ForwardChanged(change.clone()))));
            net.send(from, "32: <t> 0001 {} 'x' | 34: <t> 0002 {} 'x' | 31: <t> {} 'x'");
            net.expect(from, "40: 0001 80 | 50: 0002 80");
            let leaves = net.join(V5, "10: <MQTT> 05 06 0000 {} <w> {} <t> <x>", CONNACK);
            net.lose(leaves);
            net.expect(to, "");
        }
        assert!(net.shared.retained.is_empty());
    });
}

/// [MQTT-3.1.2-26] [MQTT-3.1.2-27] Without a Topic Alias Maximum, or with 0, each message has its Topic Name.
#[test]
fn no_topic_alias_for_who_takes_none() {
    scenario(|net| {
        let from = net.v5("from");
        for properties in ["", "22 0000"] {
            let to = net.join(V5, &connect_packet(V5, "02", 0, properties, "to"), CONNACK);
            net.subscribe(to, "+/+", 1);
            for _ in 0..3 {
                net.send(from, "30: <a long/topic name> {} 'x'");
            }
            let sent = "30: <a long/topic name> {} 'x'";
            net.expect(to, &[sent; 3].join(" | "));
        }
    });
}
