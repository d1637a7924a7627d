//! Connections that end while a plugin owes an answer, and wills that it owes one about.

use plugin_api::{ConnectVerdict, ConnectionId, Disconnect, Message, PublishVerdict, ReasonCode, SubscribeVerdict};

use super::super::net::connect_packet;
use super::*;

/// The line that says that the plugin has heard of the end.
fn told(net: &Net) -> Vec<String> {
    net.script().take("disconnect")
}

/// However a connection ends: its session goes its way at once, the plugin hears of it when its answer has come, once, and
/// what was asked about comes to nothing.
#[test]
fn the_end_is_told_after_the_answer() {
    type End = (fn(&mut Net, usize), &'static str, &'static str);
    let ends: [End; 3] = [
        (|net, client| net.lose(client), "Closed 80", ""),
        (
            |net, client| {
                let id = ConnectionId(net.connection_id(client));
                net.script().host().disconnect(id, Disconnect::new(ReasonCode::NOT_AUTHORIZED)).expect("there is room");
                net.settle();
            },
            "ServerDisconnect 87",
            "E0: 87",
        ),
        (
            |net, _| {
                net.client(V5, "c");
            },
            "TakenOver 8E",
            "E0: 8E",
        ),
    ];
    for (end, kind, farewell) in ends {
        scenario(|net| {
            let to = net.v5("to");
            net.subscribe(to, "#", 0);
            let client = net.v5("c");
            let tickets = defer_publish(net);
            net.send(client, "30: <t> {} 'x' | 30: <t> {} 'y' | E0:");
            end(net, client);
            net.expect_closed(client, farewell);
            assert_eq!(farewells(net), 1);
            assert_eq!((told(net), net.script().live), (Vec::new(), net.clients_with_state() + 1));
            // It is taken, and does nothing.
            assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
            assert_eq!(told(net), [format!("disconnect c {kind}")]);
            assert_eq!((farewells(net), tickets.len()), (0, 0));
            net.expect(to, "");
        });
    }
}

/// Who gives up before the answer has not been let in.
#[test]
fn gone_before_it_was_let_in() {
    scenario(|net| {
        let tickets = defer!(net, connect, ConnectVerdict);
        let client = net.open(V5);
        net.send(client, &connect_packet(V5, "02", 0, "", "c"));
        net.lose(client);
        assert_eq!(tickets.answer(net, ConnectVerdict::accept()), Ok(()));
        assert_eq!(told(net), ["disconnect c Refused 80"]);
        assert!(net.session("c").is_none());
    });
}

/// The deadline of an answer that nobody waits for any more but the farewell.
#[test]
fn the_end_is_told_at_the_deadline() {
    scenario(|net| {
        let client = net.v5("c");
        let tickets = defer!(net, subscribe, SubscribeVerdict);
        net.send(client, "82: 0001 {} <t> 00");
        net.advance(2_000);
        net.lose(client);
        net.advance(2_999);
        assert_eq!(told(net), [""; 0]);
        net.advance(1);
        assert_eq!(told(net), ["disconnect c Closed 80"]);
        assert_eq!(tickets.answer(net, SubscribeVerdict::Grant), Err(HostError::Gone));
        assert_eq!(net.count(|counters| counters.answers_late.get()), 1);
    });
}

/// The server stops: it waits a second for each answer, and tells all plugins.
#[test]
fn the_server_stops() {
    scenario(|net| {
        let clients = [net.v5("a"), net.v5("b")];
        let watcher = net.v5("watcher");
        net.subscribe(watcher, "#", 0);
        let tickets = defer_publish(net);
        for client in clients {
            net.send(client, "32: <t> 0001 {} 'x'");
        }
        for worker in 0..net.workers() {
            assert!(net.shared.mailboxes.post(worker, crate::core::mail::Mail::Stop));
        }
        net.settle();
        assert_eq!((farewells(net), told(net).len()), (2, 1));
        assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
        assert_eq!(told(net).len(), 1);
        net.advance(1_000);
        assert_eq!((farewells(net), told(net).len()), (0, 1));
        assert_eq!(tickets.answer(net, PublishVerdict::Forward), Err(HostError::Gone));
        for client in clients {
            net.expect_closed(client, "E0: 8B");
        }
    });
}

/// A client whose will may be published later: with this Will Delay Interval, its session is kept for 100 seconds.
fn with_will(net: &mut Net, delay_secs: u32) -> usize {
    let connect = format!("10: <MQTT> 05 06 0000 {{11 00000064}} <c> {{18 {delay_secs:08X}}} <w> <gone>");
    net.join(V5, &connect, CONNACK)
}

fn watcher(net: &mut Net) -> usize {
    let watcher = net.v5("watcher");
    net.subscribe(watcher, "#", 0);
    watcher
}

/// The will is asked about when the question that was open has come to its end, and published when it is let pass. Then
/// `handle_disconnect` follows.
#[test]
fn a_will_waits_for_its_answer() {
    scenario(|net| {
        let watcher = watcher(net);
        let client = with_will(net, 0);
        let tickets = defer_publish(net);
        net.send(client, "32: <t> 0001 {} 'x'");
        net.lose(client);
        assert_eq!(net.script().take("publish"), ["publish c t q1 retain=false dup=false id=Some(1) will=false"]);
        assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
        assert_eq!(net.script().calls, ["publish c w q0 retain=false dup=false id=None will=true"]);
        net.expect(watcher, "");
        assert_eq!(tickets.answer(net, PublishVerdict::ForwardChanged(Message::new("v", "bye"))), Ok(()));
        net.expect(watcher, "30: <v> {} 'bye'");
        assert_eq!(told(net), ["disconnect c Closed 80"]);
        // Refused, and not answered in time.
        for refuses in [true, false] {
            let client = net.join(V5, "10: <MQTT> 05 06 0000 {} <d> {} <w> <gone>", CONNACK);
            net.lose(client);
            if refuses {
                let reject = PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED);
                assert_eq!(tickets.answer(net, reject), Ok(()));
            } else {
                net.advance(5_000);
                assert_eq!(tickets.answer(net, PublishVerdict::Forward), Err(HostError::Gone));
            }
            assert_eq!(told(net), ["disconnect d Closed 80"]);
            net.expect(watcher, "");
        }
    });
}

/// Before another process takes over plugins have decided about all wills: what they owe is waited for as at a stop.
#[test]
fn a_will_is_decided_before_another_process_takes_over() {
    scenario(|net| {
        let settle = |net: &mut Net, finally: bool| {
            let now = net.now;
            assert_eq!(net.cores.iter_mut().map(|core| core.close_immovable(finally, now)).sum::<usize>(), 0);
            net.advance(1_000);
            net.cores.iter().any(crate::core::Core::has_undecided_wills)
        };
        let watcher = watcher(net);
        let client = with_will(net, 0);
        let tickets = defer_publish(net);
        net.send(client, "32: <t> 0001 {} 'x'");
        net.lose(client);
        net.script().publish = None;
        assert!(settle(net, false), "it waits for an answer about something else");
        net.expect(watcher, "");
        assert!(!settle(net, true));
        net.expect(watcher, "30: <w> {} 'gone'");
        assert_eq!((farewells(net), told(net)), (0, vec!["disconnect c Closed 80".to_owned()]));
        // It is the will that is not answered.
        let client = net.join(V5, "10: <MQTT> 05 06 0000 {} <d> {} <w> <gone>", CONNACK);
        let late = defer_publish(net);
        net.lose(client);
        assert!(settle(net, false));
        assert!(!settle(net, true));
        assert_eq!((farewells(net), told(net)), (0, vec!["disconnect d Closed 80".to_owned()]));
        for tickets in [tickets, late] {
            assert_eq!(tickets.answer(net, PublishVerdict::Forward), Err(HostError::Gone));
        }
        net.expect(watcher, "");
    });
}

/// What becomes of a will that waits for an answer and for its Will Delay Interval.
/// [MQTT-3.1.3-9]
#[test]
fn a_delayed_will_waits_for_its_answer() {
    scenario(|net| {
        let watcher = watcher(net);
        // Decided in time: it is published when its delay is over.
        let client = with_will(net, 10);
        let tickets = defer_publish(net);
        net.lose(client);
        net.advance(2_000);
        assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
        net.advance(7_999);
        net.expect(watcher, "");
        net.advance(1);
        net.expect(watcher, "30: <w> {} 'gone'");
        // Decided after its delay: at once.
        let client = net.join(V5, "10: <MQTT> 05 04 0000 {11 00000064} <c> {18 00000001} <w> <gone>", CONNACK_RESUMED);
        net.lose(client);
        net.advance(4_000);
        net.expect(watcher, "");
        assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
        net.expect(watcher, "30: <w> {} 'gone'");
        // The client is back before it is decided, and before its delay is over: it is discarded.
        let client = net.join(V5, "10: <MQTT> 05 04 0000 {11 00000064} <c> {18 0000000A} <w> <gone>", CONNACK_RESUMED);
        net.lose(client);
        let again = net.join(V5, "10: <MQTT> 05 00 0000 {11 00000064} <c>", CONNACK_RESUMED);
        assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
        net.send(again, "E0:");
        net.advance(60_000);
        net.expect(watcher, "");
        // The session ends: published as soon as it is decided.
        let client = net.join(V5, "10: <MQTT> 05 04 0000 {11 00000064} <c> {18 0000000A} <w> <gone>", CONNACK_RESUMED);
        net.lose(client);
        let again = net.client(V5, "c");
        net.expect(watcher, "");
        assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
        net.expect(watcher, "30: <w> {} 'gone'");
        net.send(again, "E0:");
        // Refused: nothing is left of it.
        let client = with_will(net, 10);
        net.lose(client);
        assert_eq!(tickets.answer(net, PublishVerdict::Handled), Ok(()));
        assert!(net.session("c").is_some_and(|session| session.will_at().is_none()));
        net.advance(11_000);
        net.expect(watcher, "");
        assert_eq!((farewells(net), tickets.len()), (0, 0));
    });
}

/// A client that has come back is served while its earlier connection waits for the plugin.
#[test]
fn a_client_that_is_back_is_not_kept_waiting() {
    scenario(|net| {
        let client = net.durable(V5, "c", CONNACK);
        let tickets = defer_publish(net);
        net.send(client, "32: <t> 0001 {} 'x'");
        let again = net.durable(V5, "c", CONNACK_RESUMED);
        net.expect_closed(client, "E0: 8E");
        net.script().publish = None;
        net.send(again, "3A: <t> 0001 {} 'x' | C0:");
        net.expect(again, "40: 0001 10 | D0:");
        assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
        net.expect(again, "");
        assert_eq!(told(net), ["disconnect c TakenOver 8E"]);
    });
}
