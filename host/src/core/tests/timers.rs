//! Timers for a connection: they go where it goes, and end with it.

use std::time::Duration;

use plugin_api::{ConnectVerdict, ConnectionId, HostError, InfoTarget, TimerId};

use super::deferred::defer;
use super::net::connect_packet;
use super::*;

/// Timers for which a plugin has room here.
const ROOM_FOR: usize = 3;
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

fn with_little_room() -> Setup {
    Setup::limits(|limits| limits.plugin_timer_bytes_max = ROOM_FOR * 520)
}

/// Sets as many as there is room for.
fn fill(net: &Net, target: InfoTarget<'_>) -> Vec<TimerId> {
    let mut set = Vec::new();
    loop {
        match net.script().host().send_info(target, "later", b"", Some(MONTH)) {
            Ok(timer) => set.push(timer),
            Err(error) => {
                assert_eq!(error, HostError::Full);
                return set;
            }
        }
        assert!(set.len() <= ROOM_FOR, "there is no bound");
    }
}

#[test]
fn who_sets_too_many_is_told_and_what_has_ended_takes_no_room() {
    scenario_with(&with_little_room(), |net| {
        let stays = net.v5("stays");
        for round in 0..3 {
            let client = net.v5(&format!("c{round}"));
            let connection = InfoTarget::Connection(ConnectionId(net.connection_id(client)));
            let mut set = fill(net, connection);
            assert_eq!(set.len(), ROOM_FOR, "round {round}");
            net.settle();
            assert_eq!(fill(net, InfoTarget::Plugin).len(), 0);
            // Those that are cancelled make room, and so do those whose connection has ended.
            net.script().host().cancel_timer(set.remove(0)).expect("there is room for that");
            net.advance(1_000);
            assert_eq!(fill(net, connection).len(), 1);
            net.lose(client);
            net.advance(1_000);
        }
        let gone = InfoTarget::Connection(ConnectionId(net.connection_id(stays)));
        net.lose(stays);
        for _ in 0..ROOM_FOR * 2 {
            net.script().host().send_info(gone, "later", b"", Some(MONTH)).expect("there is room");
            net.advance(1_000);
        }
    });
}

/// One that is set in a callback about the connection goes to the worker that has it, and to no other.
#[test]
fn set_by_the_connection_itself() {
    let second = Duration::from_secs(1);
    scenario_with(&with_little_room(), |net| {
        for name in ["a", "b", "c", "d"] {
            let client = net.v5(name);
            let (host, connection) = (net.script().host(), ConnectionId(net.connection_id(client)));
            net.script().publish = Some(Box::new(move |_| {
                host.send_info(InfoTarget::Connection(connection), "set", b"", Some(second))?;
                Ok(plugin_api::PublishVerdict::Handled)
            }));
            net.send(client, "30: <t> {} 'x'");
            let waiting: usize = net.cores.iter().map(|core| core.delayed_infos.values().len()).sum();
            assert_eq!(waiting, 1);
            net.advance(1_000);
            assert_eq!(net.script().take("info"), [format!("info {name} set Timer")]);
            net.lose(client);
        }
    });
}

/// A plugin that takes its time about CONNECT has set timers before the connection goes to the worker that owns its session.
#[test]
fn they_go_with_a_connection_to_another_worker() {
    let setup = Setup::limits(|limits| limits.connect_answer_max = Duration::from_secs(1000));
    scenario_with(&setup, |net| {
        let clients: Vec<_> = (0..4)
            .map(|number| {
                let tickets = defer!(net, connect, ConnectVerdict);
                let client = net.open(V5);
                net.send(client, &connect_packet(V5, "02", 0, "", &format!("c{number}")));
                (client, tickets)
            })
            .collect();
        let (host, mut cancelled) = (net.script().host(), Vec::new());
        for (client, _) in &clients {
            let connection = InfoTarget::Connection(ConnectionId(net.connection_id(*client)));
            let secs = Duration::from_secs;
            host.send_info(connection, "before", b"", Some(secs(3))).expect("there is room");
            host.send_info(connection, "once", b"", Some(secs(10))).expect("there is room");
            host.send_info_every(connection, "every", b"", secs(6)).expect("there is room");
            cancelled.push(host.send_info(connection, "never", b"", Some(secs(9))).expect("there is room"));
        }
        net.settle();
        net.advance(5_000);
        for (client, tickets) in &clients {
            assert_eq!(tickets.answer(net, ConnectVerdict::accept()), Ok(()));
            net.expect(*client, CONNACK);
        }
        for timer in cancelled {
            host.cancel_timer(timer).expect("there is room");
        }
        for (after, kind) in [(0, "before"), (1_000, "every"), (4_000, "once"), (2_000, "every")] {
            net.advance(after);
            let mut told = net.script().take("info");
            told.sort_unstable();
            let expected: Vec<String> = (0..4).map(|number| format!("info c{number} {kind} Timer")).collect();
            assert_eq!(told, expected, "after {after}");
        }
    });
}

#[test]
fn they_go_to_another_process() {
    for (before, after, bytewise) in [(2, 1, false), (1, 3, true)] {
        scenario_in(Mode { workers: before, bytewise }, &Setup::default(), |net| {
            let clients = ["a", "b", "c"].map(|name| net.v5(name));
            let host = net.script().host();
            for client in clients {
                let connection = InfoTarget::Connection(ConnectionId(net.connection_id(client)));
                host.send_info(connection, "later", b"", Some(Duration::from_secs(100))).expect("there is room");
            }
            net.settle();
            net.advance(10_000);
            net.hand_over(after, None);
            net.lose(clients[0]);
            let waiting: usize = net.cores.iter().map(|core| core.delayed_infos.values().len()).sum();
            assert_eq!(waiting, 2, "one for each, where it is");
            net.advance(89_999);
            assert_eq!(net.script().take("info"), [""; 0]);
            net.advance(1);
            let mut told = net.script().take("info");
            told.sort_unstable();
            assert_eq!(told, ["info b later Timer", "info c later Timer"]);
        });
    }
}
