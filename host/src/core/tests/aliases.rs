//! Topic Aliases towards clients (section 3.3.2.3.4). Those of clients are in `inbound`.

use super::net::connect_packet;
use super::*;

/// A client with a Topic Alias Maximum, in hexadecimal digits; `more` are further properties of its CONNECT.
fn taking(net: &mut Net, client_id: &str, aliases: &str, more: &str) -> usize {
    net.join(V5, &connect_packet(V5, "02", 0, &format!("22 {aliases} {more}"), client_id), CONNACK)
}

/// The first packet sets the alias, the next ones have no topic; at every QoS, with all other properties.
#[test]
fn topic_is_sent_once() {
    scenario(|net| {
        let from = net.v5("from");
        let to = taking(net, "to", "0005", "");
        net.send(to, "82: 0001 {0B 07} <some/topic> 02");
        net.expect(to, "90: 0001 {} 02");
        net.send(from, "30: <some/topic> {} '1' | 32: <some/topic> 0001 {26 <k> <v> 02 0000000A} '2'");
        net.send(from, "34: <some/topic> 0002 {} '3' | 62: 0002 | 30: <some/topic> {} ''");
        net.expect(
            to,
            "30: <some/topic> {23 0001 0B 07} '1' | 32: <> 0001 {26 <k> <v> 02 0000000A 23 0001 0B 07} '2'
            | 34: <> 0002 {23 0001 0B 07} '3' | 30: <> {23 0001 0B 07} ''",
        );
    });
}

/// [MQTT-3.1.2-26] [MQTT-3.3.2-11] [MQTT-3.3.2-10] [MQTT-3.3.2-8] Never more than the client takes, nor than we have; numbers begin with 1.
#[test]
fn maximum_is_the_lesser_of_both() {
    for (theirs, ours, expected) in [("0002", 16, 2), ("FFFF", 3, 3), ("0001", 1, 1), ("FFFF", 255, 5), ("0009", 0, 0)]
    {
        scenario_with(&Setup::limits(move |limits| limits.outbound_topic_aliases_max = ours), |net| {
            let from = net.v5("from");
            let to = taking(net, "to", theirs, "");
            net.subscribe(to, "#", 0);
            for round in 0..2 {
                for number in 1..=5 {
                    net.send(from, &format!("30: <topic/{number}> {{}} 'x'"));
                    net.expect(
                        to,
                        &match (number <= expected, round) {
                            (true, 0) => format!("30: <topic/{number}> {{23 {number:04X}}} 'x'"),
                            (true, _) => format!("30: <> {{23 {number:04X}}} 'x'"),
                            (false, _) => format!("30: <topic/{number}> {{}} 'x'"),
                        },
                    );
                }
            }
        });
    }
}

/// [MQTT-3.1.2-27] Who takes no aliases gets none, whether it says so or not; nor does a short topic.
#[test]
fn none_where_none_are_taken() {
    scenario(|net| {
        let from = net.v5("from");
        let clients = [net.v5("silent"), taking(net, "none", "0000", ""), net.client(V3_1_1, "old")];
        for (number, client) in clients.into_iter().enumerate() {
            net.subscribe(client, &format!("some/topic/{number}"), 0);
            for _ in 0..3 {
                net.send(from, &format!("30: <some/topic/{number}> {{}} 'x'"));
                net.expect(client, &format!("30: <some/topic/{number}> [{{}}] 'x'"));
            }
        }
        let to = taking(net, "to", "0005", "");
        net.subscribe(to, "short", 0);
        for _ in 0..3 {
            net.send(from, "30: <short> {} 'x'");
            net.expect(to, "30: <short> {} 'x'");
        }
    });
}

/// Who takes aliases gets them however many others get the message, too.
#[test]
fn aliases_beside_others_who_take_none() {
    scenario(|net| {
        let (from, other) = (net.v5("from"), net.v5("other"));
        let to = taking(net, "to", "0005", "");
        for client in [to, other] {
            net.subscribe(client, "some/topic", 1);
        }
        net.send(from, "32: <some/topic> 0001 {} '1' | 30: <some/topic> {} '2'");
        net.expect(to, "32: <some/topic> 0001 {23 0001} '1' | 30: <> {23 0001} '2'");
        net.expect(other, "32: <some/topic> 0001 {} '1' | 30: <some/topic> {} '2'");
    });
}

/// [MQTT-3.3.2-7] Aliases end with the Network Connection: what is sent again on the next one has its topic again.
#[test]
fn aliases_end_with_the_connection() {
    scenario(|net| {
        let from = net.v5("from");
        let connect = |aliases: &str| connect_packet(V5, "00", 0, &format!("11 00000E10 {aliases}"), "to");
        let to = net.join(V5, &connect("22 0005"), CONNACK);
        net.subscribe(to, "some/topic", 1);
        net.send(from, "32: <some/topic> 0001 {} '1' | 32: <some/topic> 0001 {} '2'");
        net.expect(to, "32: <some/topic> 0001 {23 0001} '1' | 32: <> 0002 {23 0001} '2'");
        net.lose(to);
        net.send(from, "32: <some/topic> 0001 {} '3'");
        let again = "3A: <some/topic> 0001 {23 0001} '1' | 3A: <> 0002 {23 0001} '2' | 32: <> 0003 {23 0001} '3'";
        let to = net.join(V5, &connect("22 0005"), &format!("{CONNACK_RESUMED} | {again}"));
        net.lose(to);
        let again = "3A: <some/topic> 0001 {} '1' | 3A: <some/topic> 0002 {} '2' | 3A: <some/topic> 0003 {} '3'";
        net.join(V5, &connect(""), &format!("{CONNACK_RESUMED} | {again}"));
    });
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25] A packet that was too large to be sent sets no alias, and one that is so only with its
/// alias is sent without.
#[test]
fn alias_of_a_packet_that_is_not_sent() {
    scenario(|net| {
        let from = net.v5("from");
        let connack = "20: 00 00 [{21 0400 27 01000000 22 0040}]";
        // 20 bytes: 2 + 2 + 10 for the topic + 1 for the properties leave 5 for alias and payload.
        let to = net.join(V5, &connect_packet(V5, "02", 0, "22 0001 27 00000014", "to"), connack);
        net.subscribe(to, "some/topic", 1);
        net.send(from, "30: <some/topic> {} '123456'");
        net.expect(to, "");
        assert_eq!(net.count(|counters| counters.dropped_too_large.get()), 1);
        net.send(from, "30: <some/topic> {} '12345'");
        net.expect(to, "30: <some/topic> {} '12345'");
        net.send(from, "30: <some/topic> {} '12'");
        net.expect(to, "30: <some/topic> {23 0001} '12'");
        // What would be too large with its topic fits now.
        net.send(from, "30: <some/topic> {} '123456789012'");
        net.expect(to, "30: <> {23 0001} '123456789012'");
        net.send(from, "30: <some/topic> {} '1234567890123' | 30: <some/topic> {} '1'");
        net.expect(to, "30: <> {23 0001} '1'");
        assert_eq!(net.count(|counters| counters.dropped_too_large.get()), 2);
    });
}

/// Retained messages, what has waited in the queue, and Shared Subscriptions.
#[test]
fn every_way_to_one_client() {
    scenario(|net| {
        let from = net.v5("from");
        net.send(from, "31: <some/topic> {} 'kept'");
        let to = taking(net, "to", "0005", "21 0001");
        net.send(to, "82: 0001 {} <some/topic> 01");
        net.expect(to, "90: 0001 {} 01 | 31: <some/topic> {23 0001} 'kept'");
        net.send(from, "32: <some/topic> 0001 {} '1' | 32: <some/topic> 0001 {} '2'");
        net.send(to, "40: 0001 | 82: 0001 {} <$share/g/some/#> 01");
        net.expect(to, "32: <> 0001 {23 0001} '1' | 32: <> 0002 {23 0001} '2' | 90: 0001 {} 01");
        net.send(from, "30: <some/other> {} '3'");
        net.expect(to, "30: <some/other> {23 0002} '3'");
    });
}

/// An alias that is not used any more goes to another topic.
#[test]
fn alias_is_set_to_another_topic() {
    scenario(|net| {
        let from = net.v5("from");
        let to = taking(net, "to", "0001", "");
        net.subscribe(to, "#", 0);
        net.send(from, "30: <topic/a> {} 'x'");
        net.expect(to, "30: <topic/a> {23 0001} 'x'");
        for _ in 0..16 {
            net.send(from, "30: <topic/b> {} 'x'");
            net.expect(to, "30: <topic/b> {} 'x'");
        }
        net.send(from, "30: <topic/b> {} 'x' | 30: <topic/b> {} 'x' | 30: <topic/a> {} 'x'");
        net.expect(to, "30: <topic/b> {23 0001} 'x' | 30: <> {23 0001} 'x' | 30: <topic/a> {} 'x'");
    });
}

/// Who takes aliases pays for them when the first is sent.
#[test]
fn idle_connections_have_nothing() {
    scenario(|net| {
        let from = net.v5("from");
        let to = taking(net, "to", "FFFF", "");
        net.subscribe(to, "#", 0);
        net.send(from, "30: <short> {} 'x'");
        net.take(to);
        let (worker, slot) = net.place(to);
        assert!(net.cores[worker].connections[slot as usize].extra.is_none());
    });
}
