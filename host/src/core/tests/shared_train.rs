//! Messages for a Shared Subscription that come together: each goes to the member whose turn it is, as if it had come by itself,
//! and what is the same for all is found out once.

use plugin_api::{PublishVerdict, ReasonCode};

use super::*;

/// PUBLISH packets with these payloads to `t`, with Packet Identifiers from one on where there are any.
fn packets(qos: u8, first: u16, payloads: &[&str]) -> String {
    let packet = |(packet_id, payload): (u16, &&str)| match qos {
        0 => format!("| 30: <t> [{{}}] '{payload}'"),
        _ => format!("| {:02X}: <t> {packet_id:04X} [{{}}] '{payload}'", 0x30 | qos << 1),
    };
    (first..).zip(payloads).map(packet).collect()
}

fn pubacks(packet_ids: impl IntoIterator<Item = u16>) -> String {
    packet_ids.into_iter().map(|packet_id| format!("| 40: {packet_id:04X}")).collect()
}

/// A publisher of `t`, to which has been published, and members of a group. The next message is for the first of them.
fn group(net: &mut Net, version: ProtocolVersion, names: &[&str], qos: u8) -> (usize, Vec<usize>) {
    let from = net.client(version, "from");
    let members = names.iter().map(|name| {
        let member = net.client(version, name);
        net.subscribe(member, "$share/g/t", qos);
        member
    });
    let members: Vec<usize> = members.collect();
    for member in &members {
        net.send(from, "30: <t> [{}] 'first'");
        net.expect(*member, "30: <t> [{}] 'first'");
    }
    net.script().calls.clear();
    (from, members)
}

/// Wherever the members are.
#[test]
fn members_take_turns() {
    for version in VERSIONS {
        for qos in [0, 1] {
            scenario(|net| {
                let (from, members) = group(net, version, &["a", "b", "c"], qos);
                let before = net.count(|counters| counters.publishes_sent.get());
                net.send(from, &packets(qos, 7, &["1", "2", "3", "4", "5", "6", "7"]));
                net.expect(from, &if qos == 0 { String::new() } else { pubacks(7..=13) });
                net.expect(members[0], &packets(qos, 1, &["1", "4", "7"]));
                net.expect(members[1], &packets(qos, 1, &["2", "5"]));
                net.expect(members[2], &packets(qos, 1, &["3", "6"]));
                assert_eq!(net.script().take("publish").len(), 7);
                assert_eq!(net.count(|counters| counters.publishes_sent.get()), before + 7);
                for (member, count) in members.iter().zip([3, 2, 2]) {
                    net.send(*member, &if qos == 0 { "C0:".to_owned() } else { pubacks(1..=count) });
                }
                for name in ["a", "b", "c"] {
                    assert!(net.session(name).expect("it is there").in_flight.is_empty());
                }
            });
        }
    }
}

/// A handler says something else about one, and the turns go on behind it.
#[test]
fn one_is_rejected() {
    scenario(|net| {
        let (from, members) = group(net, V5, &["a", "b"], 1);
        net.script().publish = Some(Box::new(|asked| {
            let is_two = asked.message.as_ref().is_some_and(|message| message.payload == b"2");
            Ok(if is_two { PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED) } else { PublishVerdict::Forward })
        }));
        net.send(from, &packets(1, 1, &["1", "2", "3", "4"]));
        net.expect(from, "40: 0001 | 40: 0002 87 | 40: 0003 | 40: 0004");
        net.expect(members[0], &packets(1, 1, &["1", "4"]));
        net.expect(members[1], &packets(1, 1, &["3"]));
    });
}

/// [MQTT-4.8.2-3] What a member takes is its own: as many as it may have in flight, what it granted, its version, its Subscription Identifier,
/// and what it publishes itself.
#[test]
fn each_member_has_its_own_bounds() {
    let setup = Setup::limits(|limits| limits.in_flight_max = 2);
    // Another worker would not know at once that a member has to wait.
    let each_member_waits = |net: &mut Net| {
        let (from, members) = group(net, V5, &["a", "b"], 1);
        net.send(from, &packets(1, 1, &["A", "B", "C", "D", "E", "F", "G"]));
        net.expect(from, &pubacks(1..=7));
        net.expect(members[0], &packets(1, 1, &["A", "C"]));
        net.expect(members[1], &packets(1, 1, &["B", "D"]));
        net.send(members[1], &pubacks(1..=2));
        net.send(members[0], &pubacks(1..=2));
        let got: Vec<u8> =
            members.iter().flat_map(|member| net.take(*member)).filter(|byte| byte.is_ascii_uppercase()).collect();
        assert_eq!(got.len(), 3, "those that have waited: {got:?}");
    };
    MODES[..2].iter().for_each(|mode| scenario_in(*mode, &setup, each_member_waits));
    scenario(|net| {
        let (from, members) = group(net, V5, &["a"], 1);
        let old = net.client(V3_1_1, "old");
        net.subscribe(old, "$share/g/t", 1);
        let numbered = net.client(V5, "numbered");
        net.send(numbered, "82: 0001 [{0B 07}] <$share/g/t> 01");
        let less = net.client(V5, "less");
        net.subscribe(less, "$share/g/t", 0);
        net.take(numbered);
        net.subscribe(from, "$share/g/t", 1);
        net.send(from, &packets(1, 1, &["A", "B", "C", "D", "E", "F", "G", "H", "I", "J"]));
        let all = [members[0], old, numbered, less, from].map(|member| net.take(member));
        let payloads = |got: &Vec<u8>| got.iter().filter(|byte| byte.is_ascii_uppercase()).count();
        assert_eq!(all.each_ref().map(payloads), [2; 5], "{all:02X?}");
        let has = |got: &Vec<u8>, start: &[u8]| got.windows(start.len()).any(|bytes| bytes == start);
        assert!(has(&all[1], b"\x32\x06\0\x01t\0\x01"), "without a list of properties: {:02X?}", all[1]);
        assert!(has(&all[2], b"\x32\x09\0\x01t\0\x01\x02\x0B\x07"), "with its identifier: {:02X?}", all[2]);
        assert!(has(&all[3], b"\x30\x05\0\x01t\0"), "with QoS 0: {:02X?}", all[3]);
    });
}

/// What a member has not acknowledged goes on to another one when its session ends, and is sent again if it comes
/// back.
#[test]
fn what_was_not_acknowledged_goes_on() {
    for version in VERSIONS {
        scenario(|net| {
            let (from, members) = group(net, version, &["a", "b"], 1);
            net.send(from, &packets(1, 1, &["1", "2", "3", "4", "5", "6"]));
            net.expect(members[0], &packets(1, 1, &["1", "3", "5"]));
            net.expect(members[1], &packets(1, 1, &["2", "4", "6"]));
            net.send(members[0], &pubacks(1..=1));
            net.lose(members[0]);
            net.expect(members[1], &packets(1, 4, &["3", "5"]));
            net.send(members[1], &pubacks(1..=5));
            assert!(net.session("b").expect("it is there").in_flight.is_empty());
        });
    }
}
