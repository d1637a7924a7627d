//! Answers that do not come in time: nothing is let through.

use std::time::Duration;

use plugin_api::{
    AuthVerdict, ConnectVerdict, InfoAction, InfoTarget, PublishVerdict, ReasonCode, SubscribeVerdict,
    UnsubscribeVerdict,
};

use super::super::net::connect_packet;
use super::*;
use crate::limits::Deadline;

/// The deadline refuses, and what comes behind goes on; an answer that comes after it does nothing.
#[test]
fn a_publish_is_refused() {
    for version in VERSIONS {
        scenario(|net| {
            let (from, to) = (net.client(version, "from"), net.client(version, "to"));
            net.subscribe(to, "#", 0);
            let tickets = defer_publish(net);
            net.send(from, "32: <t> 0001 [{}] 'x' | C0:");
            net.advance(4_999);
            net.expect(from, "");
            net.advance(1);
            net.expect(from, if version == V5 { "40: 0001 83 | D0:" } else { "40: 0001 | D0:" });
            assert_eq!(tickets.answer(net, PublishVerdict::Forward), Err(HostError::Gone));
            net.send(from, "34: <t> 0002 [{}] 'y' | 62: 0002 | 30: <t> [{}] 'z'");
            net.advance(10_000);
            net.expect(from, if version == V5 { "50: 0002 83 | 70: 0002 92" } else { "50: 0002 | 70: 0002" });
            net.expect(to, "");
            assert_eq!(net.count(|counters| counters.answers_late.get()), 3);
        });
    }
}

/// It was on its way when the deadline came, and the next question is open when it arrives.
#[test]
fn a_late_answer_is_none_to_the_next_question() {
    scenario(|net| {
        let from = net.v5("from");
        let tickets = defer_publish(net);
        net.send(from, "32: <t> 0001 [{}] 'x' | 32: <t> 0002 [{}] 'y'");
        // It lies in the mailbox, and the worker looks at its timers first.
        assert_eq!(tickets.take().answer(PublishVerdict::Forward), Ok(()));
        let (worker, slot) = net.place(from);
        net.now = net.now + 5_000;
        net.cores[worker].on_tick(net.now);
        net.cores[worker].take_dirty(&mut Vec::new());
        net.flush(worker, slot);
        net.settle();
        net.expect(from, "40: 0001 83");
        assert_eq!(tickets.answer(net, PublishVerdict::reject(ReasonCode::QUOTA_EXCEEDED)), Ok(()));
        net.expect(from, "40: 0002 97");
    });
}

#[test]
fn a_client_is_not_let_in() {
    for version in VERSIONS {
        scenario(|net| {
            let tickets = defer!(net, connect, ConnectVerdict);
            let client = net.open(version);
            net.send(client, &connect_packet(version, "02", 0, "", "c"));
            net.advance(5_000);
            net.expect_closed(client, if version == V5 { "20: 00 88 {}" } else { "20: 00 03" });
            assert_eq!(tickets.answer(net, ConnectVerdict::accept()), Err(HostError::Gone));
            assert!(net.session("c").is_none());
            assert_eq!(net.script().take("disconnect"), ["disconnect c Refused 88"]);
        });
    }
    scenario(|net| {
        let tickets = defer!(net, auth, AuthVerdict);
        let client = net.open(V5);
        net.send(client, "10: <MQTT> 05 02 0000 {15 <SCRAM>} <c>");
        net.advance(5_000);
        net.expect_closed(client, "20: 00 88 {}");
        // Again, when it has been let in.
        let client = net.open(V5);
        net.send(client, "10: <MQTT> 05 02 0000 {15 <SCRAM>} <c>");
        drop(tickets.take());
        assert_eq!(tickets.answer(net, AuthVerdict::Ok), Ok(()));
        net.take(client);
        net.send(client, "F0: 19 {15 <SCRAM>}");
        net.advance(5_000);
        net.expect_closed(client, "E0: 83");
        assert_eq!(tickets.answer(net, AuthVerdict::Ok), Err(HostError::Gone));
    });
}

#[test]
fn nothing_is_subscribed_to() {
    for (version, refused) in [(V3_1, "01 01"), (V3_1_1, "80 80"), (V5, "80 80")] {
        scenario(|net| {
            let client = net.client(version, "c");
            let subscribe = defer!(net, subscribe, SubscribeVerdict);
            let unsubscribe = defer!(net, unsubscribe, UnsubscribeVerdict);
            net.send(client, "82: 0001 [{}] <a> 01 <b> 01 | A2: 0002 [{}] <a>");
            net.advance(5_000);
            net.expect(client, &format!("90: 0001 [{{}}] {refused}"));
            net.advance(5_000);
            net.expect(client, "B0: 0002 [{} 80]");
            assert!(net.session("c").is_some_and(|session| session.subscriptions.is_empty()));
            assert_eq!(subscribe.answer(net, SubscribeVerdict::Grant), Err(HostError::Gone));
            assert_eq!(unsubscribe.answer(net, UnsubscribeVerdict::Allow), Err(HostError::Gone));
        });
    }
}

/// There is nothing to refuse: what comes behind goes on.
#[test]
fn a_message_for_the_handler() {
    scenario(|net| {
        let client = net.v5("c");
        let (infos, host) = (Held::<Vec<InfoAction>>::new(), net.script().host());
        let into = infos.clone();
        net.script().info = Some(Box::new(move |_| {
            let (ticket, later) = host.ticket()?;
            into.push(ticket);
            Ok(vec![InfoAction::Later(later)])
        }));
        net.script().host().send_info(InfoTarget::Client("c"), "k", &[], None).expect("there is room");
        net.settle();
        net.send(client, "C0:");
        net.advance(4_999);
        net.expect(client, "");
        net.advance(1);
        net.expect(client, "D0:");
        assert_eq!(infos.answer(net, vec![InfoAction::Stop("late".into())]), Err(HostError::Gone));
        net.expect(client, "");
    });
}

/// By policy, who waits in vain is disconnected.
#[test]
fn disconnected_at_the_deadline() {
    let setup = Setup::limits(|limits| {
        limits.deadline = Deadline::Disconnect;
        limits.publish_answer_max = Duration::from_secs(1);
    });
    for version in VERSIONS {
        scenario_with(&setup, |net| {
            let client = net.client(version, "c");
            let tickets = defer_publish(net);
            net.send(client, "32: <t> 0001 [{}] 'x' | C0:");
            net.advance(1_000);
            net.expect_closed(client, if version == V5 { "E0: 83" } else { "" });
            assert_eq!(net.script().take("disconnect"), ["disconnect c HandlerFailed 83"]);
            assert_eq!(tickets.answer(net, PublishVerdict::Forward), Err(HostError::Gone));
        });
    }
}

/// [MQTT-3.1.2-22] Keep Alive does not run while a plugin is waited for, and does again afterwards.
#[test]
fn keep_alive_waits() {
    let setup = Setup::limits(|limits| limits.publish_answer_max = Duration::from_secs(60));
    scenario_with(&setup, |net| {
        let client = net.join(V5, &connect_packet(V5, "02", 2, "", "c"), CONNACK);
        let tickets = defer_publish(net);
        net.send(client, "32: <t> 0001 {} 'x'");
        net.advance(30_000);
        net.expect(client, "");
        assert_eq!(tickets.answer(net, PublishVerdict::Handled), Ok(()));
        net.expect(client, "40: 0001");
        net.advance(2_999);
        net.expect(client, "");
        net.advance(1);
        net.expect_closed(client, "E0: 8D");
    });
}
