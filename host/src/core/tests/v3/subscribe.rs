//! SUBSCRIBE and UNSUBSCRIBE, and which messages match.

use plugin_api::{QoS, ReasonCode, SubscribeVerdict};

use super::*;

/// [MQTT-3.8.4-1@3.1.1] [MQTT-3.8.4-2@3.1.1] [MQTT-2.3.1-7@3.1.1] [MQTT-3.8.4-5@3.1.1] [MQTT-3.9.3-1@3.1.1] SUBACK has the
/// identifier of its SUBSCRIBE, and in the order of the filters what was granted for each.
#[test]
fn each_filter_has_its_return_code() {
    for version in OLD {
        scenario(|net| {
            let client = net.client(version, "c");
            for id in ["0001", "1234", "FFFF"] {
                net.send(client, &format!("82: {id} <a> 02 <b/#> 00 <c/+/d> 01 <a> 00 </> 01"));
                net.expect(client, &format!("90: {id} 02 00 01 00 01"));
            }
        });
    }
}

/// [MQTT-3.9.3-2@3.1.1] [MQTT-3.8.4-5@3.1.1] Whatever the reason is, a failure is 0x80; the other filters of the packet are
/// granted.
#[test]
fn failure_is_one_code() {
    let setup = Setup::limits(|limits| {
        limits.subscriptions_max = 2;
        limits.maximum_qos = QoS::AtLeastOnce;
    });
    scenario_with(&setup, |net| {
        let client = net.client(V3_1_1, "c");
        net.send(client, "82: 0001 <a> 02 <b#> 00 <> 00 <b> 00 <c> 00");
        net.expect(client, "90: 0001 01 80 80 00 80");
        for reason_code in [0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2].map(ReasonCode) {
            let codes = move || Ok(SubscribeVerdict::Codes(vec![ReasonCode::GRANTED_QOS_0, reason_code]));
            net.script().subscribe = Some(Box::new(move |_| codes()));
            net.send(client, "82: 0002 <a> 01 <b> 01");
            net.expect(client, "90: 0002 00 80");
        }
        net.script().subscribe = None;
        net.send(client, "32: <a> 0001 'x' | 30: <c> 'x'");
        net.expect(client, "30: <a> 'x' | 40: 0001");
    });
}

/// [MQTT-3.8.4-4@3.1.1] Many filters in one packet are as many packets with one: each is there for itself, a later one
/// that is the same replaces, and for each the retained messages come.
#[test]
fn many_filters_in_one_packet() {
    scenario(|net| {
        let from = net.client(V3_1_1, "from");
        net.send(from, "31: <a> '1' | 31: <b> '2'");
        let (one, many) = (net.client(V3_1_1, "one"), net.client(V3_1_1, "many"));
        for (packet, answer) in [
            ("82: 0001 <a> 00", "90: 0001 00 | 31: <a> '1'"),
            ("82: 0002 <b> 01", "90: 0002 01 | 31: <b> '2'"),
            ("82: 0003 <c> 02", "90: 0003 02"),
            ("82: 0004 <c> 00", "90: 0004 00"),
        ] {
            net.send(one, packet);
            net.expect(one, answer);
        }
        net.send(many, "82: 0001 <a> 00 <b> 01 <c> 02 <c> 00");
        net.expect(many, "90: 0001 00 01 02 00 | 31: <a> '1' | 31: <b> '2'");
        net.send(from, "34: <a> 0001 'x' | 62: 0001 | 34: <b> 0001 'y' | 62: 0001 | 34: <c> 0001 'z' | 62: 0001");
        for client in [one, many] {
            net.expect(client, "30: <a> 'x' | 32: <b> 0001 'y' | 30: <c> 'z'");
        }
        // So it is with UNSUBSCRIBE: [MQTT-3.10.4-6@3.1.1].
        net.send(one, "A2: 0001 <a> | A2: 0002 <c> | A2: 0003 <c>");
        net.send(many, "A2: 0001 <a> <c> <c>");
        net.expect(one, "B0: 0001 | B0: 0002 | B0: 0003");
        net.expect(many, "B0: 0001");
        net.send(from, "30: <a> 'x' | 30: <b> 'y' | 30: <c> 'z'");
        for client in [one, many] {
            net.expect(client, "30: <b> 'y'");
        }
    });
}

/// [MQTT-3.8.4-6@3.1.1] The lesser of the message's QoS and of what was granted, which may be less than was asked for.
#[test]
fn qos_is_the_lesser_of_both() {
    for maximum in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        scenario_with(&Setup::limits(|limits| limits.maximum_qos = maximum), |net| {
            let from = net.client(V3_1_1, "from");
            for asked in 0..=2_u8 {
                let granted = asked.min(maximum as u8);
                let to = net.client(V3_1_1, "to");
                net.send(to, &format!("82: 0001 <t> {asked:02X}"));
                net.expect(to, &format!("90: 0001 {granted:02X}"));
                for qos in 0..=maximum as u8 {
                    let id = if qos == 0 { "" } else { "0001" };
                    net.send(from, &format!("{:02X}: <t> {id} 'x'", 0x30 | qos << 1));
                    net.send(from, if qos == 2 { "62: 0001" } else { "" });
                    let delivered = qos.min(granted);
                    let id = if delivered == 0 { String::new() } else { format!("{qos:04X}") };
                    net.expect(to, &format!("{:02X}: <t> {id} 'x'", 0x30 | delivered << 1));
                }
                net.lose(to);
            }
        });
    }
}

/// [MQTT-3.3.5-1@3.1.1] A message that several subscriptions of a client match comes once, with the highest QoS of them.
#[test]
fn overlapping_subscriptions() {
    for version in OLD {
        scenario(|net| {
            let (from, to) = (net.client(version, "from"), net.client(version, "to"));
            net.send(to, "82: 0001 <a/#> 00 <a/+> 02 <+/b> 01 <#> 00");
            net.expect(to, "90: 0001 00 02 01 00");
            net.send(from, "34: <a/b> 0001 'x' | 62: 0001 | 32: <a/b> 0001 'y' | 30: <a/b> 'z' | 34: <c/b> 0001 'u'");
            net.send(from, "62: 0001 | 32: <a/b/c> 0001 'v'");
            net.expect(
                to,
                "34: <a/b> 0001 'x' | 32: <a/b> 0002 'y' | 30: <a/b> 'z' | 32: <c/b> 0003 'u' | 30: <a/b/c> 'v'",
            );
        });
    }
}

/// [MQTT-3.10.4-4@3.1.1] [MQTT-3.10.4-5@3.1.1] [MQTT-2.3.1-7@3.1.1] Every UNSUBSCRIBE has its UNSUBACK, whether anything was
/// deleted or not, or could have been.
#[test]
fn unsubscribe_is_acknowledged() {
    for version in OLD {
        scenario(|net| {
            let client = net.client(version, "c");
            net.subscribe(client, "a", 0);
            net.send(client, "A2: 1234 <a> | A2: 0001 <a> | A2: FFFF <never> <a#> <> <$share/g>");
            net.expect(client, "B0: 1234 | B0: 0001 | B0: FFFF");
        });
    }
}

/// [MQTT-3.10.4-1@3.1.1] A filter is deleted by the same characters, not by what it matches or is matched by.
#[test]
fn unsubscribe_compares_characters() {
    scenario(|net| {
        let client = net.client(V3_1_1, "c");
        net.send(client, "82: 0001 <a/b> 00 <\u{E9}> 00");
        net.expect(client, "90: 0001 00 00");
        net.send(client, "A2: 0001 <a/+> <a/#> <#> <A/b> <a/b/> </a/b> <a//b> <a/b > <e\u{301}>");
        net.expect(client, "B0: 0001");
        net.send(client, "30: <a/b> 'x' | 30: <\u{E9}> 'y'");
        net.expect(client, "30: <a/b> 'x' | 30: <\u{E9}> 'y'");
        net.send(client, "A2: 0001 <a/b> <\u{E9}> | 30: <a/b> 'x' | 30: <\u{E9}> 'y'");
        net.expect(client, "B0: 0001");
    });
}

/// [MQTT-3.10.4-2@3.1.1] [MQTT-3.10.4-3@3.1.1] Nothing new comes, but what has been begun is brought to its end, on a later
/// connection if need be.
#[test]
fn unsubscribing_completes_what_is_under_way() {
    for version in OLD {
        scenario(|net| {
            let from = net.client(version, "from");
            let to = net.durable(version, "to", "20: 00 00");
            net.subscribe(to, "t", 2);
            net.send(from, "32: <t> 0001 '1' | 34: <t> 0002 '2' | 62: 0002 | 34: <t> 0003 '3' | 62: 0003");
            net.expect(to, "32: <t> 0001 '1' | 34: <t> 0002 '2' | 34: <t> 0003 '3'");
            net.send(to, "50: 0003 | A2: 0005 <t>");
            net.expect(to, "62: 0003 | B0: 0005");
            net.send(from, "30: <t> '-' | 32: <t> 0001 '-'");
            net.expect(to, "");
            net.lose(to);
            let again = "3A: <t> 0001 '1' | 3C: <t> 0002 '2' | 62: 0003";
            let to = net.durable(version, "to", &format!("{} | {again}", resumed(version)));
            net.send(to, "40: 0001 | 50: 0002 | 70: 0003 | 70: 0002");
            net.expect(to, "62: 0002");
        });
    }
}

/// [MQTT-3.8.3-2@3.1.1] [MQTT-4.7.1-2@3.1.1] [MQTT-4.7.1-3@3.1.1] [MQTT-4.7.3-1@3.1.1] Filters with wildcards are taken, at
/// the places where wildcards may stand; otherwise the subscription fails, and nothing matches it.
#[test]
fn wildcards_stand_where_they_may() {
    scenario(|net| {
        for filter in ["#", "+", "a/#", "/#", "+/#", "+/+", "a/+/b", "/+", "+/", "+/b/#", "/", "//", " "] {
            let client = net.client(V3_1_1, "c");
            net.subscribe(client, filter, 1);
            net.lose(client);
        }
        let client = net.client(V3_1_1, "c");
        for filter in
            ["##", "a#", "#a", "#/", "#/a", "a/#/b", "a/b#", "a+", "+a", "a/+b", "a/b+/c", "++", "+#", "#+", ""]
        {
            net.send(client, &format!("82: 0001 <{filter}> 01"));
            net.expect(client, "90: 0001 80");
        }
        net.send(client, "30: <a> '-' | 30: <a/b> '-' | 30: </> '-'");
        net.expect(client, "");
    });
}

/// [MQTT-3.3.2-3@3.1.1] [MQTT-4.7.2-1@3.1.1] [MQTT-4.7.3-4@3.1.1] [MQTT-1.5.3-3@3.1.1] A message goes to those whose filter
/// matches, level by level and character by character: nothing is normalized, and U+FEFF is a character.
#[test]
fn filters_match_level_by_level() {
    const BOM: &str = "\u{FEFF}";
    let rows: [(&str, &[&str], &[&str]); 14] = [
        ("a", &["a"], &["A", "/a", "a/", "a/b", " a", "a "]),
        ("a/#", &["a", "a/", "a/b", "a/b/c", "a//", "a/$b"], &["b", "/a", "ab", "A/b"]),
        ("a/+", &["a/", "a/b", "a/$b"], &["a", "a/b/c", "a//", "/a"]),
        ("#", &["a", "/", "/a", "a/b/c", "a/$SYS", BOM], &["$", "$a", "$a/b"]),
        ("+", &["a", " ", BOM], &["/", "/a", "a/", "$", "$a"]),
        ("+/+", &["/", "/a", "a/", "a/b"], &["a", "a/b/c", "$a/b"]),
        ("/+", &["/", "/a"], &["a", "a/b", "//"]),
        ("+/b/#", &["a/b", "/b/c"], &["b", "$a/b", "$a/b/c"]),
        ("$a/#", &["$a", "$a/b"], &["a", "a/b", "$A", "$ab"]),
        ("$a/+", &["$a/b", "$a/"], &["$a", "$a/b/c"]),
        ("//", &["//"], &["/", "///", ""]),
        ("\u{E9}", &["\u{E9}"], &["e\u{301}", "e", "\u{C9}"]),
        ("\u{FEFF}a", &["\u{FEFF}a"], &["a", "a\u{FEFF}", "\u{FFFE}a"]),
        ("\u{10FFFD}\u{1}", &["\u{10FFFD}\u{1}"], &["\u{10FFFD}", "\u{1}"]),
    ];
    for (filter, matching, others) in rows {
        scenario_in(MODES[2], &Setup::default(), |net| {
            let (from, to) = (net.client(V3_1_1, "from"), net.client(V3_1_1, "to"));
            net.subscribe(to, filter, 0);
            for topic in matching {
                net.send(from, &format!("30: <{topic}> 'x'"));
                net.expect(to, &format!("30: <{topic}> 'x'"));
            }
            for topic in others.iter().filter(|topic| !topic.is_empty()) {
                net.send(from, &format!("30: <{topic}> 'x'"));
                net.expect(to, "");
            }
        });
    }
}

/// [MQTT-4.7.3-3@3.1.1] Up to 65,535 bytes: the length has two bytes, so that there can be no more.
#[test]
fn longest_topic() {
    let setup = Setup::limits(|limits| limits.topic_levels_max = 70_000);
    for topic in ["x".repeat(65_535), "/".repeat(65_535), "\u{1F600}".repeat(16_383)] {
        scenario_in(MODES[2], &setup, |net| {
            let client = net.client(V3_1_1, "c");
            net.subscribe(client, &topic, 1);
            net.send(client, &format!("32: <{topic}> 0001 'x'"));
            net.expect(client, &format!("32: <{topic}> 0001 'x' | 40: 0001"));
        });
    }
}
