//! Several workers: connections that go to the worker that owns their session, and messages between workers.

use plugin_api::{ConnectionId, InfoTarget};

use super::net::{bytes, connect_packet};
use super::*;
use crate::core::mail::Mail;
use crate::core::owner_of;

const TWO: Mode = Mode { workers: 2, bytewise: false };

/// A Client Identifier that a worker of two owns.
fn name_for(worker: usize, index: usize) -> String {
    (0..)
        .map(|number| format!("c{number}"))
        .filter(|name| owner_of(name, 2) == worker)
        .nth(index)
        .expect("there is always one more")
}

/// Whoever accepted a connection, its session is at the worker that owns it, and nothing behind CONNECT is lost.
#[test]
fn connection_goes_to_the_owner_of_its_session() {
    for workers in 1..=8 {
        scenario_in(Mode { workers, bytewise: false }, &Setup::default(), |net| {
            for number in 0..32 {
                let name = format!("client-{number}");
                let client = net.open(V5);
                let connect = connect_packet(V5, "02", 0, "", &name);
                net.send(client, &format!("{connect} | 82: 0001 {{}} <{name}> 00 | 30: <{name}> {{}} 'x' | C0:"));
                net.expect(client, &format!("{CONNACK} | 90: 0001 {{}} 00 | 30: <{name}> {{}} 'x' | D0:"));
                let owner = &net.cores[owner_of(&name, workers)];
                assert!(owner.slot_of_client(&name).is_some());
            }
        });
    }
}

/// A client that sends everything and leaves at once, as a sensor does: its message arrives.
#[test]
fn client_leaves_on_its_way() {
    scenario_in(TWO, &Setup::default(), |net| {
        let to = net.v5(&name_for(0, 0));
        net.subscribe(to, "t", 0);
        for worker in 0..2 {
            let from = net.open(V5);
            let name = name_for(worker, 1);
            net.send(from, &format!("{} | 30: <t> {{}} '{worker}' | E0:", connect_packet(V5, "02", 0, "", &name)));
            net.expect_closed(from, CONNACK);
            net.expect(to, &format!("30: <t> {{}} '{worker}'"));
        }
    });
}

/// Takeover where the two connections were accepted by different workers.
#[test]
fn takeover_across_workers() {
    scenario_in(TWO, &Setup::default(), |net| {
        for worker in 0..2 {
            let name = name_for(worker, 0);
            let mut before = net.durable(V5, &name, CONNACK);
            for _ in 0..4 {
                let next = net.durable(V5, &name, CONNACK_RESUMED);
                net.expect_closed(before, "E0: 8E");
                before = next;
            }
            assert_eq!(net.script().take("disconnect").len(), 4);
        }
    });
}

/// One delivery for each subscriber at each worker, in order, with everything that belongs to a message.
#[test]
fn messages_cross_workers() {
    for version in VERSIONS {
        scenario_in(TWO, &Setup::default(), |net| {
            let [from, near, far, other] =
                [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(worker, index)| net.client(version, &name_for(worker, index)));
            for client in [near, far, other] {
                net.subscribe(client, "t/#", 2);
            }
            for number in 1..=3 {
                net.send(from, &format!("34: <t/x> 0001 [{{26 <a> <b> 02 0000000A}}] '{number}' | 62: 0001"));
                let packet = format!("34: <t/x> {number:04X} [{{26 <a> <b> 02 0000000A}}] '{number}'");
                for client in [near, far, other] {
                    net.expect(client, &packet);
                }
            }
            net.send(from, "31: <t/x> [{}] 'kept'");
            for client in [near, far, other] {
                net.expect(client, "30: <t/x> [{}] 'kept'");
            }
            let late = net.client(version, &name_for(1, 2));
            net.send(late, "82: 0001 [{}] <t/x> 00");
            net.expect(late, "90: 0001 [{}] 00 | 31: <t/x> [{}] 'kept'");
        });
    }
}

/// Retain As Published, Subscription Identifiers and QoS are the receiver's, wherever it is.
#[test]
fn options_hold_across_workers() {
    scenario_in(TWO, &Setup::default(), |net| {
        let from = net.v5(&name_for(0, 0));
        let to = net.v5(&name_for(1, 0));
        net.send(to, "82: 0001 {0B 05} <t> 09 | 82: 0002 {0B 06} <$share/g/s> 09");
        net.expect(to, "90: 0001 {} 01 | 90: 0002 {} 01");
        net.send(from, "35: <t> 0001 {} 'x' | 62: 0001 | 35: <s> 0001 {} 'y' | 62: 0001");
        net.expect(to, "33: <t> 0001 {0B 05} 'x' | 33: <s> 0002 {0B 06} 'y'");
        net.send(from, "30: <s> {02 0000000A 26 <a> <b>} 'z'");
        net.expect(to, "30: <s> {26 <a> <b> 02 0000000A 0B 06} 'z'");
    });
}

/// A shared subscription's turns go over all workers.
#[test]
fn shared_subscription_over_workers() {
    scenario_in(TWO, &Setup::default(), |net| {
        let from = net.v5(&name_for(0, 9));
        let members: Vec<usize> =
            [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(worker, index)| net.v5(&name_for(worker, index))).to_vec();
        for member in &members {
            net.subscribe(*member, "$share/g/t", 0);
        }
        for _ in 0..12 {
            net.send(from, "30: <t> {} 'x'");
        }
        for member in members {
            net.expect(member, "30: <t> {} 'x' | 30: <t> {} 'x' | 30: <t> {} 'x'");
        }
        // The member that was chosen has left before the message reaches its worker.
        let last = net.v5(&name_for(1, 5));
        net.subscribe(last, "$share/h/u", 1);
        let (worker, slot) = net.place(from);
        let now = net.now;
        net.cores[worker].feed(slot, &bytes(V5, "32: <u> 0001 {} 'x'"), now);
        net.lose(last);
        // Nor does the message reach who has its place now.
        let next = net.v5(&name_for(1, 6));
        net.expect(next, "");
        net.expect(from, "40: 0001");
        // If there is another member it gets what was on its way, wherever it is.
        for worker in [0, 1] {
            let (gone, other) = (net.v5(&name_for(1, 7)), net.v5(&name_for(worker, 8)));
            for member in [gone, other] {
                net.subscribe(member, "$share/k/v", 1);
            }
            let (at, slot) = net.place(from);
            let now = net.now;
            net.cores[at].feed(slot, &bytes(V5, "32: <v> 0001 {} 'x' | 32: <v> 0002 {} 'x'"), now);
            net.lose(gone);
            net.expect(from, "40: 0001 | 40: 0002");
            net.expect(other, "32: <v> 0001 {} 'x' | 32: <v> 0002 {} 'x'");
            net.send(other, "E0:");
        }
    });
}

/// A plugin's requests about a connection that is on its way from one worker to another.
#[test]
fn requests_reach_a_connection_on_its_way() {
    scenario(|net| {
        for name in ["a", "b", "c", "d"] {
            let host = net.script().host();
            net.script().connect = Some(Box::new(move |asked| {
                let id = asked.connection.expect("a connection");
                host.send_info(InfoTarget::Connection(ConnectionId(id)), "welcome", &[], None)?;
                Ok(plugin_api::ConnectVerdict::accept())
            }));
            net.v5(name);
            assert_eq!(net.script().take("info").len(), 1, "{name} is greeted");
        }
        net.advance(1_000);
        assert!(net.cores.iter().all(|core| core.early.is_empty()));
    });
}

/// A worker that another one cannot follow: QoS 0 is dropped after a second, and QoS 1 refused; until then nobody is read.
#[test]
fn congestion() {
    scenario_in(TWO, &Setup::limits(|limits| limits.mailbox_bytes_max = 100), |net| {
        let from = net.v5(&name_for(0, 0));
        let to = net.v5(&name_for(1, 0));
        net.subscribe(to, "t", 1);
        let (worker, slot) = net.place(from);
        assert_eq!(worker, 0);
        let publish = bytes(V5, &format!("30: <t> {{}} '{}'", "x".repeat(100)));
        // Worker 1 takes no turns.
        let core = &mut net.cores[0];
        core.feed(slot, &publish, net.now);
        assert!(!core.is_congested(net.now));
        core.flush_mail();
        assert!(core.is_congested(net.now));
        assert!(!core.is_congested(net.now + 1000));
        core.feed(slot, &publish, net.now + 999);
        core.flush_mail();
        core.feed(slot, &publish, net.now + 1000);
        core.flush_mail();
        assert_eq!(net.shared.counters[0].dropped_slow.get(), 1);
        net.now = net.now + 1000;
        net.settle();
        assert_eq!(net.take(to).iter().filter(|byte| **byte == b't').count(), 2);
        let core = &mut net.cores[0];
        assert!(!core.is_congested(net.now));
        core.feed(slot, &publish, net.now);
        core.flush_mail();
        let one = bytes(V5, "32: <t> 0001 {} 'x'");
        core.feed(slot, &one, net.now + 1000);
        net.now = net.now + 1000;
        net.settle();
        net.expect(from, "40: 0001 97");
        assert_eq!(net.count(|counters| counters.publishes_refused.get()), 1);
    });
}

/// A worker that cannot follow holds up what goes to it, and nothing else: who publishes to others is served as ever, and
/// of a message that is refused nobody has got anything.
#[test]
fn congestion_concerns_only_what_goes_there() {
    for version in [V3_1_1, V5] {
        scenario_in(TWO, &Setup::limits(|limits| limits.mailbox_bytes_max = 100), |net| {
            let from = net.client(version, &name_for(0, 0));
            let near = net.client(version, &name_for(0, 1));
            let far = net.v5(&name_for(1, 0));
            net.subscribe(near, "#", 2);
            net.subscribe(far, "far", 2);
            net.subscribe(far, "$share/g/shared", 2);
            let (_, slot) = net.place(from);
            // Worker 1 takes no turns for a second.
            let flood = bytes(version, &format!("30: <far> [{{}}] '{}'", "x".repeat(100)));
            let now = net.now;
            net.cores[0].feed(slot, &flood, now);
            net.cores[0].flush_mail();
            net.now = now + 1000;
            let send = |net: &mut Net, packets: &str| {
                let now = net.now;
                net.cores[0].feed(slot, &bytes(version, packets), now);
                let mut dirty = Vec::new();
                net.cores[0].take_dirty(&mut dirty);
                dirty.into_iter().for_each(|slot| net.flush(0, slot));
                net.cores[0].flush_mail();
            };
            send(net, "");
            net.take(near);
            send(net, "32: <near> 0001 [{}] '1' | 34: <near> 0002 [{}] '2' | 62: 0002");
            net.expect(from, "40: 0001 | 50: 0002 | 70: 0002");
            net.expect(near, "32: <near> 0001 [{}] '1' | 34: <near> 0002 [{}] '2'");
            if version == V5 {
                send(net, "32: <far> 0001 {} '1' | 34: <far> 0002 {} '2' | 32: <shared> 0003 {} '3'");
                net.expect(from, "40: 0001 97 | 50: 0002 97 | 40: 0003 97");
            } else {
                send(net, "32: <far> 0001 '1'");
                net.expect_closed(from, "");
            }
            net.expect(near, "");
            net.settle();
            let got = net.take(far);
            assert_eq!(got.windows(3).filter(|part| part == b"far").count(), 1, "what was sent before");
        });
    }
}

/// What nobody can be refused for any more is dropped only where a mailbox has grown past all bounds.
#[test]
fn mailboxes_are_bounded() {
    scenario_in(TWO, &Setup::limits(|limits| limits.mailbox_bytes_max = 100), |net| {
        let far = net.v5(&name_for(1, 0));
        net.subscribe(far, "will", 1);
        let mortals: Vec<usize> = (0..10)
            .map(|index| {
                let name = name_for(0, index);
                let will = format!("{{}} <will> <{}>", "x".repeat(100));
                net.join(V5, &format!("10: <MQTT> 05 0E 0000 {{}} <{name}> {will}"), CONNACK)
            })
            .collect();
        for mortal in mortals {
            let (_, slot) = net.place(mortal);
            let now = net.now;
            // Worker 1 takes no turns.
            net.cores[0].lost(slot, now);
            net.cores[0].flush_mail();
        }
        let waiting = net.shared.mailboxes.of(1).waiting_bytes();
        assert!((400..600).contains(&waiting), "{waiting} bytes");
        assert!(net.count(|counters| counters.dropped_slow.get()) >= 5);
    });
}

/// Connections that are on their way when the server stops: at a worker that has stopped before they arrive, and from one
/// that stops before they have left.
#[test]
fn shutdown_on_the_way() {
    scenario_in(TWO, &Setup::default(), |net| {
        let clients = [0, 1].map(|index| {
            let client = net.open(V5);
            let (worker, slot) = net.place(client);
            let connect = connect_packet(V5, "02", 0, "", &name_for(1 - worker, index));
            net.cores[worker].feed(slot, &bytes(V5, &connect), net.now);
            client
        });
        for worker in 0..2 {
            assert!(net.shared.mailboxes.post(worker, Mail::Stop));
        }
        let now = net.now;
        net.cores[1].on_mail(now);
        net.settle();
        for client in clients {
            net.expect_closed(client, "20: 00 88 {}"); // [MQTT-3.2.2-8]
        }
        assert_eq!(net.script().take("disconnect").len(), 2);
    });
}

/// A message whose time has come before its worker takes it out of the mailbox [MQTT-3.3.2-5].
#[test]
fn message_expires_between_workers() {
    scenario_in(TWO, &Setup::default(), |net| {
        let from = net.v5(&name_for(0, 0));
        let to = net.v5(&name_for(1, 0));
        net.subscribe(to, "t", 1);
        let (worker, slot) = net.place(from);
        let publish = bytes(V5, "32: <t> 0001 {02 00000001} 'x'");
        net.cores[worker].feed(slot, &publish, net.now);
        net.cores[worker].flush_mail();
        net.now = net.now + 1000;
        net.settle();
        net.expect(from, "40: 0001");
        net.expect(to, "");
        assert_eq!(net.count(|counters| counters.dropped_expired.get()), 1);
    });
}
