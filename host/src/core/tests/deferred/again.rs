//! Subscriptions that are asked about again by a plugin that answers later: nothing is sent by them meanwhile.

use plugin_api::{InfoTarget, ReasonCode, Reauthorised, SubscribeVerdict};

use super::*;
use crate::core::tests::services::ask;

/// The plugin answers `handle_subscribe` later.
fn defer_subscribe(net: &Net) -> Held<SubscribeVerdict> {
    defer!(net, subscribe, SubscribeVerdict)
}

fn reauthorise(net: &mut Net) -> (u64, u64, u64) {
    let Reauthorised { later, removed, dropped, .. } =
        ask(net, |host| host.reauthorise(InfoTarget::Client("c"))).expect("it is there");
    (later, removed, dropped)
}

fn codes(codes: &[u8]) -> SubscribeVerdict {
    SubscribeVerdict::Codes(codes.iter().copied().map(ReasonCode).collect())
}

/// Two are asked about at once, and all in the end.
#[test]
fn live_client() {
    for version in VERSIONS {
        scenario(|net| {
            let (c, publisher) = (net.client(version, "c"), net.v5("p"));
            for filter in ["a", "b", "d"] {
                net.subscribe(c, filter, 1);
            }
            let held = defer_subscribe(net);
            assert_eq!(reauthorise(net), (1, 0, 0));
            net.send(publisher, "32: <a> 0001 {} '1' | 32: <b> 0002 {} '2' | 32: <d> 0003 {} '3' | 30: <b> {} '4'");
            net.send(c, "C0:");
            net.expect(c, "");
            assert_eq!(held.answer(net, codes(&[0x87, 1])), Ok(()));
            net.expect(c, "");
            assert_eq!(held.answer(net, codes(&[1])), Ok(()));
            net.expect(c, "32: <b> 0001 [{}] '2' | 32: <d> 0002 [{}] '3' | 30: <b> [{}] '4' | D0:");
            assert_eq!((held.len(), net.session("c").expect("connected").subscriptions.len()), (0, 2));
        });
    }
}

/// Who is asked again while it is being asked is asked from the beginning once more.
#[test]
fn twice() {
    scenario(|net| {
        let (c, publisher) = (net.v5("c"), net.v5("p"));
        net.subscribe(c, "a", 1);
        let held = defer_subscribe(net);
        assert_eq!(reauthorise(net), (1, 0, 0));
        assert_eq!(reauthorise(net), (1, 0, 0));
        net.send(publisher, "32: <a> 0001 {} '1'");
        assert_eq!(held.answer(net, codes(&[1])), Ok(()));
        net.expect(c, "");
        assert_eq!(held.answer(net, codes(&[0x87])), Ok(()));
        net.expect(c, "");
        assert_eq!((held.len(), net.session("c").expect("connected").subscriptions.len()), (0, 0));
    });
}

/// Nobody answers in time: the client gets nothing, and loses nothing. It is asked about once more when it is back.
#[test]
fn late() {
    scenario(|net| {
        let (c, publisher) = (net.durable(V5, "c", CONNACK), net.v5("p"));
        net.subscribe(c, "a", 1);
        let held = defer_subscribe(net);
        assert_eq!(reauthorise(net), (1, 0, 0));
        net.send(publisher, "32: <a> 0001 {} '1'");
        net.advance(10_000);
        net.expect_closed(c, "E0: 83");
        drop(held.take());
        let c = net.durable(V5, "c", CONNACK_RESUMED);
        net.expect(c, "");
        assert_eq!(held.answer(net, codes(&[1])), Ok(()));
        net.expect(c, "32: <a> 0001 {} '1'");
    });
}

/// What waits for a client that is back waits for the answer as well, and so do retained messages that it still has coming
/// and what is sent again [MQTT-4.4.0-1]. What comes of it is what counts.
#[test]
fn what_waits_for_a_client_waits_for_the_answer() {
    for version in VERSIONS {
        scenario(|net| {
            let (c, publisher) = (net.durable(version, "c", CONNACK), net.v5("p"));
            net.subscribe(c, "a", 1);
            net.subscribe(c, "b", 2);
            net.send(publisher, "34: <b> 0001 {} '1' | 62: 0001");
            net.expect(c, "34: <b> 0001 [{}] '1'");
            net.send(c, "50: 0001");
            net.expect(c, "62: 0001");
            net.lose(c);
            net.send(publisher, "32: <a> 0002 {} '2' | 32: <b> 0003 {} '3' | 32: <a> 0004 {} '4'");
            let held = defer_subscribe(net);
            let c = net.durable(version, "c", crate::core::tests::net::resumed(version));
            net.send(publisher, "32: <a> 0005 {} '5'");
            net.expect(c, "");
            assert_eq!(held.answer(net, codes(&[0x87, 1])), Ok(()));
            net.expect(c, "62: 0001 | 32: <b> 0002 [{}] '3'");
            assert_eq!((held.len(), net.session("c").expect("connected").subscriptions.len()), (0, 1));
        });
    }
}

/// A connection that ends meanwhile: its session is asked about when the client is back, and waits for the answer then.
#[test]
fn client_that_comes_back() {
    for version in VERSIONS {
        scenario(|net| {
            let (c, publisher) = (net.durable(version, "c", CONNACK), net.v5("p"));
            net.subscribe(c, "a", 1);
            net.subscribe(c, "b", 1);
            let held = defer_subscribe(net);
            assert_eq!(reauthorise(net), (1, 0, 0));
            net.send(publisher, "32: <a> 0001 {} '1' | 32: <b> 0002 {} '2'");
            net.lose(c);
            drop(held.take());
            net.settle();
            let c = net.durable(version, "c", crate::core::tests::net::resumed(version));
            net.send(publisher, "32: <b> 0003 {} '3' | 30: <b> {} '4'");
            net.expect(c, "");
            assert_eq!(held.answer(net, codes(&[0x87, 1])), Ok(()));
            net.expect(c, "32: <b> 0001 [{}] '2' | 32: <b> 0002 [{}] '3' | 30: <b> [{}] '4'");
            assert_eq!(held.len(), 0);
        });
    }
}

/// What is asked for while another question is open waits for its end.
#[test]
fn behind_another_question() {
    scenario(|net| {
        let (c, publisher) = (net.v5("c"), net.v5("p"));
        net.subscribe(c, "a", 1);
        let held = defer_publish(net);
        net.send(c, "32: <t> 0001 {} 'x'");
        net.script().subscribe = Some(Box::new(|_| Ok(codes(&[0x87]))));
        assert_eq!(reauthorise(net), (1, 0, 0));
        net.script().publish = None;
        net.send(publisher, "32: <a> 0001 {} '1'");
        net.expect(c, "");
        assert_eq!(held.answer(net, PublishVerdict::Forward), Ok(()));
        net.expect(c, "40: 0001 10");
        assert!(net.session("c").expect("connected").subscriptions.is_empty());
    });
}
