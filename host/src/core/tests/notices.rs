//! What handlers hear of without being asked.

use plugin_api::{ConnectionId, HostError, InfoTarget, Message, Property, QoS};

use super::deliver::judged;
use super::net::connect_packet;
use super::*;
use crate::limits::QueueFull;

/// With one plugin that hears of everything, and other bounds.
fn with_limits(change: impl Fn(&mut crate::limits::Limits)) -> Setup {
    let mut setup = judged(1);
    change(&mut setup.limits);
    setup
}

fn reconnect(net: &mut Net, version: ProtocolVersion, client_id: &str) -> usize {
    let client = net.open(version);
    net.send(client, &connect_packet(version, "00", 0, "11 00000E10", client_id));
    client
}

#[test]
fn connected_says_how() {
    scenario_with(&judged(2), |net| {
        let first = net.durable(V5, "c", CONNACK);
        assert_eq!(
            net.judge(0).take("connected"),
            ["connected c present=false took_over=false expiry=3600 keep_alive=0"]
        );
        let second = net.durable(V5, "c", CONNACK_RESUMED);
        net.expect_closed(first, "E0: 8E");
        assert_eq!(
            net.judge(1).lines,
            [
                "connected c present=false took_over=false expiry=3600 keep_alive=0",
                "connected c present=true took_over=true expiry=3600 keep_alive=0",
            ]
        );
        net.lose(second);
        let third = net.join(V5, &connect_packet(V5, "00", 10, "", "c"), CONNACK_RESUMED);
        assert_eq!(
            net.judge(1).take("connected").last().unwrap(),
            "connected c present=true took_over=false expiry=0 keep_alive=10"
        );
        // Clean Start: another one, though it took the place of the connection before.
        net.join(V5, &connect_packet(V5, "02", 0, "", "c"), CONNACK);
        net.expect_closed(third, "E0: 8E");
        assert_eq!(net.judge(1).take("connected"), ["connected c present=false took_over=true expiry=0 keep_alive=0"]);
    });
}

/// It has got its CONNACK, and nothing of what waits for it.
#[test]
fn a_panic_in_connected_ends_the_connection() {
    for version in VERSIONS {
        scenario_with(&judged(2), |net| {
            let from = net.client(version, "from");
            let to = net.durable(version, "to", CONNACK);
            net.subscribe(to, "#", 1);
            net.lose(to);
            net.send(from, "32: <t> 0001 [{}] 'x'");
            net.judge(0).connected = Some(Box::new(|()| panic!("as asked")));
            let to = reconnect(net, version, "to");
            let resumed = super::net::resumed(version);
            net.expect_closed(to, &if version == V5 { format!("{resumed} | E0: 83") } else { resumed.to_owned() });
            net.judge(0).connected = None;
            let to = reconnect(net, version, "to");
            net.expect(to, &format!("{resumed} | 32: <t> 0001 [{{}}] 'x'"));
        });
    }
}

#[test]
fn acknowledgements_have_their_message() {
    for version in VERSIONS {
        scenario_with(&judged(1), |net| {
            let from = net.client(version, "from");
            let to = net.durable(version, "to", CONNACK);
            net.subscribe(to, "#", 2);
            net.send(from, "32: <a> 0001 [{}] 'x' | 34: <b> 0002 [{}] 'y' | 62: 0002");
            net.take(to);
            net.send(to, "40: 0001 | 50: 0002");
            assert_eq!(net.judge(0).take("acknowledged"), ["acknowledged to a 'x' q1 id=1 token=0 00"]);
            // The message is kept until the end, but is not sent again.
            net.lose(to);
            let to = reconnect(net, version, "to");
            net.expect(to, &format!("{} | 62: 0002", super::net::resumed(version)));
            net.send(to, "70: 0002");
            assert_eq!(net.judge(0).take("acknowledged"), ["acknowledged to b 'y' q2 id=2 token=0 00"]);
            if version == V5 {
                net.send(from, "34: <c> 0003 {} 'z' | 62: 0003 | 32: <d> 0004 {} 'z'");
                net.send(to, "50: 0003 87 | 40: 0004 10");
                assert_eq!(
                    net.judge(0).take("acknowledged"),
                    ["acknowledged to c 'z' q2 id=3 token=0 87", "acknowledged to d 'z' q1 id=4 token=0 10",]
                );
            }
        });
    }
}

#[test]
fn drops_say_why_where_a_queue_is_full() {
    for full in [QueueFull::DropNewest, QueueFull::DropOldest] {
        let setup = with_limits(|limits| {
            limits.queue_messages_max = 2;
            limits.queue_full = full;
        });
        scenario_with(&setup, |net| {
            let from = net.v5("from");
            let to = net.durable(V5, "to", CONNACK);
            net.subscribe(to, "#", 1);
            net.lose(to);
            net.send(from, "32: <t> 0001 {} '1' | 32: <t> 0002 {} '2' | 32: <t> 0003 {} '3'");
            net.take(from);
            let which = if full == QueueFull::DropOldest { '1' } else { '3' };
            assert_eq!(net.judge(0).take("dropped"), [format!("dropped to t '{which}' q1 id=0 token=0 QueueFull")]);
        });
    }
}

#[test]
fn drops_say_why_where_a_client_is_slow() {
    let setup = with_limits(|limits| limits.outbound_bytes_max = 1000);
    scenario_with(&setup, |net| {
        let (from, to) = (net.v5("from"), net.v5("to"));
        net.subscribe(to, "#", 0);
        net.stall(to, true);
        let payload = "x".repeat(600);
        for _ in 0..2 {
            net.send(from, &format!("30: <t> {{}} '{payload}'"));
        }
        assert_eq!(net.judge(0).take("dropped"), [format!("dropped to t '{payload}' q0 id=0 token=0 Slow")]);
        // Nobody was asked about what is dropped anyway.
        net.stall(to, false);
        net.take(to);
        net.send(from, "30: <t> {} 'y'");
        net.expect(to, "30: <t> {} 'y'");
        assert_eq!(net.judge(0).take("deliver").len(), 1);
    });
}

/// What a session has when it ends is lost: what waits, and what was sent and may not have come.
#[test]
fn drops_say_why_where_a_session_ends() {
    scenario_with(&judged(1), |net| {
        let from = net.v5("from");
        let to = net.durable(V5, "to", CONNACK);
        net.subscribe(to, "#", 2);
        net.send(from, "34: <t> 0001 {} '1' | 62: 0001 | 34: <t> 0002 {} '2' | 62: 0002");
        net.send(to, "50: 0001");
        net.lose(to);
        net.send(from, "32: <t> 0003 {} '3'");
        net.take(from);
        net.judge(0).lines.clear();
        net.join(V5, &connect_packet(V5, "02", 0, "", "to"), CONNACK);
        // The first one has been received.
        assert_eq!(
            net.judge(0).take("dropped"),
            ["dropped to t '2' q2 id=2 token=0 SessionEnded", "dropped to t '3' q1 id=0 token=0 SessionEnded",]
        );
    });
}

/// [MQTT-3.3.2-5]
#[test]
fn expiry_is_told() {
    scenario_with(&judged(1), |net| {
        let from = net.v5("from");
        let to = net.durable(V5, "to", CONNACK);
        net.subscribe(to, "#", 1);
        net.lose(to);
        net.send(from, "32: <t> 0001 {02 00000001} 'x'");
        net.take(from);
        net.advance(1000);
        let to = reconnect(net, V5, "to");
        net.expect(to, CONNACK_RESUMED);
        assert_eq!(net.judge(0).take("expired"), ["expired to t 'x' q1 id=0 token=0"]);
    });
}

#[test]
fn retained_messages_are_told_of() {
    scenario_with(&judged(1), |net| {
        let from = net.v5("from");
        net.send(from, "31: <a> {} '1' | 31: <a> {} '2' | 31: <a> {} '' | 31: <a> {} '' | 31: <b> {02 00000002} '3'");
        net.advance(2000);
        assert_eq!(
            net.judge(0).take("retained"),
            [
                "retained a '1' Set",
                "retained a '2' Set",
                "retained a '' Cleared",
                "retained b '3' Set",
                "retained b '3' Expired",
            ]
        );
        // A plugin that answers each of them with another one comes to an end.
        net.judge(0).retained = Some(Box::new(|host| {
            let _ = host.publish(&Message::new("c", "again").retain(true));
        }));
        net.send(from, "31: <c> {} 'first'");
        assert_eq!(net.judge(0).take("retained").len(), 1 + 8);
    });
}

#[test]
fn an_expired_session_comes_with_its_last_state() {
    scenario_with(&judged(2), |net| {
        let (from, to) = (net.v5("from"), net.durable(V5, "to", CONNACK));
        net.subscribe(to, "#", 0);
        net.send(from, "30: <t> {} 'x' | 30: <t> {} 'y'");
        net.take(to);
        net.lose(to);
        let held = |net: &Net| net.cores.iter().map(crate::core::Core::held_bytes).sum::<usize>();
        let before = held(net);
        // Back before it expires: what was exported is forgotten.
        let to = reconnect(net, V5, "to");
        net.expect(to, CONNACK_RESUMED);
        assert!(held(net) < before + 100, "the state is not counted any more");
        net.send(from, "30: <t> {} 'z'");
        net.take(to);
        net.lose(to);
        net.judge(0).lines.clear();
        net.advance(3_600_000);
        assert_eq!(net.judge(0).take("session_expired"), ["session_expired to v7 '1'"]);
        assert_eq!(net.judge(1).take("session_expired"), ["session_expired to v7 '1'"]);
        // A plugin that cannot say it is told all the same.
        let to = net.durable(V5, "to", CONNACK);
        net.judge(0).export_panics = true;
        net.lose(to);
        net.advance(3_600_000);
        assert_eq!(net.judge(0).take("session_expired"), ["session_expired to"]);
        assert_eq!(net.judge(1).take("session_expired"), ["session_expired to v7 '0'"]);
    });
}

#[test]
fn a_message_to_one_client_waits_for_it() {
    for version in VERSIONS {
        scenario_with(&judged(1), |net| {
            let host = net.judge(0).host();
            let other = net.client(version, "other");
            let to = net.durable(version, "to", CONNACK);
            let send = |qos, payload: &str, token| {
                let message =
                    Message::new("t", payload).qos(qos).token(token).property(Property::UserProperty("k", "v"));
                host.send(InfoTarget::Client("to"), &message)
            };
            send(QoS::AtMostOnce, "0", 0).unwrap();
            send(QoS::AtLeastOnce, "1", 11).unwrap();
            net.settle();
            net.expect(to, "30: <t> [{26 <k> <v>}] '0' | 32: <t> 0001 [{26 <k> <v>}] '1'");
            net.lose(to);
            send(QoS::AtMostOnce, "lost", 0).unwrap();
            send(QoS::ExactlyOnce, "2", u64::MAX).unwrap();
            net.settle();
            assert_eq!(net.judge(0).take("dropped"), ["dropped to t 'lost' q0 id=0 token=0 SessionEnded"]);
            let to = reconnect(net, version, "to");
            let resumed = super::net::resumed(version);
            net.expect(
                to,
                &format!("{resumed} | 3A: <t> 0001 [{{26 <k> <v>}}] '1' | 34: <t> 0002 [{{26 <k> <v>}}] '2'"),
            );
            net.send(to, "40: 0001 | 50: 0002");
            net.expect(to, "62: 0002");
            net.send(to, "70: 0002");
            let lines = std::mem::take(&mut net.judge(0).lines);
            let told: Vec<&String> = lines.iter().filter(|line| line.starts_with(['p', 'a'])).collect();
            assert_eq!(
                told,
                [
                    "acknowledged to t '1' q1 id=1 token=11 00",
                    "puback Puback 1 00 token=11",
                    &format!("acknowledged to t '2' q2 id=2 token={} 00", u64::MAX),
                    &format!("puback Pubcomp 2 00 token={}", u64::MAX),
                ]
            );
            net.expect(other, "");
        });
    }
}

#[test]
fn a_message_to_one_connection_goes_nowhere_else() {
    scenario_with(&judged(1), |net| {
        let host = net.judge(0).host();
        let (one, other) = (net.v5("one"), net.v5("other"));
        let connection = ConnectionId(net.connection_id(one));
        let message = Message::new("t", "x").qos(QoS::AtLeastOnce);
        host.send(InfoTarget::Connection(connection), &message).unwrap();
        net.settle();
        net.expect(one, "32: <t> 0001 {} 'x'");
        net.expect(other, "");
        net.send(one, "40: 0001");
        // One that has ended.
        net.lose(one);
        host.send(InfoTarget::Connection(connection), &message).unwrap();
        net.advance(5000);
        // Those that cannot exist are known, clients that do not are told of.
        let send = |target| host.send(target, &message);
        assert_eq!(send(InfoTarget::Connection(ConnectionId(0))), Err(HostError::NotFound));
        assert_eq!(send(InfoTarget::Connection(ConnectionId(1 << 60))), Err(HostError::NotFound));
        assert_eq!(send(InfoTarget::All), Err(HostError::Invalid));
        assert_eq!(send(InfoTarget::Plugin), Err(HostError::Invalid));
        assert_eq!(send(InfoTarget::Client("nobody")), Ok(()));
        net.settle();
        assert_eq!(net.judge(0).take("dropped"), ["dropped nobody t 'x' q1 id=0 token=0 SessionEnded"]);
        assert_eq!(host.send(InfoTarget::Client("one"), &Message::new("t/#", "x")), Err(HostError::Invalid));
    });
}

/// What a message takes grows by a token only where there is one.
#[test]
fn a_queued_message_is_small() {
    use crate::core::session::{InFlight, Queued};
    assert_eq!((size_of::<Queued>(), size_of::<InFlight>()), (32, 40));
}
