//! With a store: what promises something waits until it is safe, what does not goes out at once.

use plugin_api::{InfoTarget, Message, QoS};

use super::net::connect_packet;
use super::*;
use crate::durable::store::Store;

/// Runs a scenario in all modes and versions, with a store that says that something is safe when the test does.
fn stored(run: impl Fn(&mut Net, ProtocolVersion)) {
    for version in VERSIONS {
        eprintln!("{version:?}");
        scenario_with(&Setup { store: true, ..Setup::default() }, |net| run(net, version));
    }
}

/// A client of whose session an hour is kept.
fn kept(net: &mut Net, version: ProtocolVersion, client_id: &str) -> usize {
    let client = net.open(version);
    net.send(client, &connect_packet(version, "00", 0, "11 00000E10", client_id));
    net.expect(client, "");
    net.make_safe();
    net.expect(client, CONNACK);
    client
}

fn subscribed(net: &mut Net, version: ProtocolVersion, client_id: &str, options: u8) -> usize {
    let client = kept(net, version, client_id);
    net.send(client, &format!("82: 0001 [{{}}] <t> {options:02X}"));
    net.expect(client, "");
    net.make_safe();
    net.expect(client, &format!("90: 0001 [{{}}] {options:02X}"));
    client
}

/// [MQTT-3.3.4-1] is given when the message cannot be lost, and what is delivered does not wait for that.
#[test]
fn puback_waits_and_the_delivery_does_not() {
    stored(|net, version| {
        let to = subscribed(net, version, "to", 1);
        let from = net.client(version, "from");
        net.send(from, "32: <t> 0007 [{}] '1'");
        net.expect(to, "32: <t> 0001 [{}] '1'");
        net.expect(from, "");
        net.make_safe();
        net.expect(from, "40: 0007");
        net.send(to, "40: 0001");
        net.make_safe();
    });
}

#[test]
fn what_is_not_kept_does_not_wait() {
    stored(|net, version| {
        let (from, to) = (net.client(version, "from"), net.client(version, "to"));
        net.subscribe(to, "t", 2);
        net.send(from, "32: <t> 0007 [{}] '1' | 34: <t> 0008 [{}] '2' | 62: 0008 | C0:");
        net.expect(from, "40: 0007 | 50: 0008 | 70: 0008 | D0:");
        net.expect(to, "32: <t> 0001 [{}] '1' | 34: <t> 0002 [{}] '2'");
        net.send(to, "A2: 0009 [{}] <t>");
        net.expect(to, "B0: 0009 [{} 00]");
        assert_eq!(net.store().last(), 0, "journals");
    });
}

/// Behind what waits, another acknowledgement does not get ahead; the answer to PINGREQ does.
#[test]
fn acknowledgements_stay_in_order() {
    stored(|net, version| {
        let to = subscribed(net, version, "to", 1);
        let from = net.client(version, "from");
        net.send(from, "32: <t> 0007 [{}] '1'");
        net.send(from, "32: <nobody> 0008 [{}] '2' | C0:");
        net.send(from, "32: <t> 0009 [{}] '3'");
        net.expect(from, "D0:");
        let first = net.store().safe_up_to() + 1;
        net.store().make_safe(first);
        net.settle();
        let got = net.take(from);
        assert_eq!(got.first(), Some(&0x40), "the first has come, and maybe the one behind it");
        net.make_safe();
        let rest = [got, net.take(from)].concat();
        let nobody = if version == V5 { "40: 0008 10" } else { "40: 0008" };
        assert_eq!(rest, super::net::bytes(version, &format!("40: 0007 | {nobody} | 40: 0009")));
        net.take(to);
    });
}

/// [MQTT-3.2.0-1]: nothing is sent before CONNACK, which says that the session is there.
#[test]
fn connack_waits_and_nothing_is_sent_before_it() {
    stored(|net, version| {
        let to = subscribed(net, version, "to", 1);
        net.lose(to);
        let from = net.client(version, "from");
        net.send(from, "32: <t> 0007 [{}] '1'");
        net.make_safe();
        net.expect(from, "40: 0007");
        let to = net.open(version);
        net.send(to, &connect_packet(version, "00", 0, "11 00000E10", "to"));
        net.send(to, "C0:");
        net.send(from, "30: <t> [{}] '0'");
        net.expect(to, "");
        net.make_safe();
        net.expect(
            to,
            &format!("{} | 32: <t> 0001 [{{}}] '1' | D0: | 30: <t> [{{}}] '0'", super::net::resumed(version)),
        );
    });
}

/// [MQTT-3.2.2-4]: the client takes it for what it has said that there is no session, so that none may come back; whoever's ends
/// otherwise is not waited for.
#[test]
fn connack_waits_until_the_session_before_has_ended_for_good() {
    stored(|net, version| {
        for client_id in ["c", "other"] {
            let client = kept(net, version, client_id);
            net.lose(client);
        }
        net.make_safe();
        // Its end is this CONNECT's doing, or was that of a packet in an earlier turn.
        let client = net.open(version);
        net.send(client, &connect_packet(version, "02", 0, "", "c"));
        net.expect(client, "");
        net.lose(client);
        let other = net.client(version, "another");
        let client = net.open(version);
        net.send(client, &connect_packet(version, "02", 0, "", "c"));
        net.send(other, "C0:");
        net.expect(other, "D0:");
        net.expect(client, "");
        net.make_safe();
        net.expect(client, CONNACK);
        net.lose(client);
        net.client(version, "c");
    });
}

/// A message with QoS 2 is sent once it is safe under which Packet Identifier; so is PUBREL, behind which the client has forgotten
/// it [MQTT-4.3.3-8] [MQTT-4.3.3-11].
#[test]
fn each_step_of_qos_2_waits() {
    stored(|net, version| {
        let to = subscribed(net, version, "to", 2);
        let from = kept(net, version, "from");
        let steps = [
            (from, "34: <t> 0007 [{}] '1'", from, "50: 0007"),
            (from, "62: 0007", to, "34: <t> 0001 [{}] '1'"),
            (to, "50: 0001", to, "62: 0001"),
        ];
        for (who, sent, whom, got) in steps {
            net.send(who, sent);
            net.expect(whom, "");
            net.make_safe();
            net.expect(whom, got);
        }
        net.expect(from, "70: 0007");
        net.send(to, "70: 0001");
        net.make_safe();
    });
}

/// What was promised before goes out before DISCONNECT, and the socket is not closed before that.
#[test]
fn who_is_disconnected_is_told_what_it_was_promised() {
    stored(|net, version| {
        subscribed(net, version, "to", 1);
        let from = net.client(version, "from");
        net.send(from, "32: <t> 0007 [{}] '1'");
        let again = net.open(version);
        net.send(again, &connect_packet(version, "02", 0, "", "from"));
        net.expect(again, CONNACK);
        net.expect(from, "");
        net.make_safe();
        net.expect_closed(from, if version == V5 { "40: 0007 | E0: 8E" } else { "40: 0007" });
    });
}

/// Nobody gets what was promised to who had the slot before.
#[test]
fn who_has_gone_is_owed_nothing() {
    stored(|net, version| {
        subscribed(net, version, "to", 1);
        for _ in 0..3 {
            let from = net.client(version, "from");
            net.send(from, "32: <t> 0007 [{}] '1'");
            net.lose(from);
        }
        let from = net.client(version, "from");
        net.make_safe();
        net.expect(from, "");
    });
}

/// [MQTT-3.3.1-6] Who clears what another one has just cleared is told so, and it may not come back.
#[test]
fn that_nothing_is_retained_is_safe_before_it_is_acknowledged() {
    stored(|net, version| {
        let (from, other) = (net.client(version, "from"), net.client(version, "other"));
        net.send(from, "31: <t> [{}] '1'");
        net.make_safe();
        net.send(from, "31: <t> [{}] ''");
        net.send(other, "33: <t> 0008 [{}] '' | 35: <t> 0009 [{}] '' | 62: 0009");
        net.expect(other, "");
        net.make_safe();
        assert!(!net.take(other).is_empty());
        net.send(other, "31: <t> [{}] '' | C0:");
        net.expect(other, "D0:");
    });
}

/// [MQTT-3.10.4-5] A plugin may have ended a subscription just before its client does.
#[test]
fn that_there_is_no_subscription_is_safe_before_it_is_acknowledged() {
    stored(|net, version| {
        let client = subscribed(net, version, "client", 1);
        net.send(client, "A2: 0007 [{}] <t>");
        net.make_safe();
        net.expect(client, "B0: 0007 [{} 00]");
        net.send(client, "A2: 0008 [{}] <t>");
        net.expect(client, "");
        net.make_safe();
        net.expect(client, "B0: 0008 [{} 11]");
    });
}

/// What a handler puts by a key has a journal of its own: the client whose message it was asked about is told behind that.
#[test]
fn what_handlers_put_is_safe_before_the_message_is_acknowledged() {
    stored(|net, version| {
        let values = net.shared.keeping.as_ref().expect("there is a store").values();
        net.script().publish = Some(Box::new(move |_| {
            values.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(plugin_api::PublishVerdict::Handled)
        }));
        let from = net.client(version, "from");
        for (packets, answers) in [("32: <t> 0007 [{}] '1'", "40: 0007"), ("34: <t> 0008 [{}] '1'", "50: 0008")] {
            net.send(from, packets);
            net.expect(from, "");
            net.make_safe();
            net.expect(from, answers);
        }
        net.send(from, "62: 0008 | C0:");
        net.expect(from, "70: 0008 | D0:");
    });
}

/// 0x97 for 5.0, for what would have to be kept. Others are not told, and are closed when they may send it again.
#[test]
fn what_cannot_be_kept_is_refused() {
    stored(|net, version| {
        let to = subscribed(net, version, "to", 1);
        let from = net.client(version, "from");
        net.store().set_failing(true);
        net.settle();
        net.send(from, "32: <t> 0007 [{}] '1' | 33: <r> 0008 [{}] '2'");
        if version == V5 {
            net.expect(from, "40: 0007 97 | 40: 0008 97");
            net.send(to, "82: 0002 {} <u> 01");
            net.expect(to, "90: 0002 {} 97");
        } else {
            net.expect(from, "");
        }
        net.expect(to, "");
        let more = net.open(version);
        net.send(more, &connect_packet(version, "00", 0, "11 00000E10", "more"));
        net.expect_closed(more, if version == V5 { "20: 00 97 {}" } else { "20: 00 03" });
        // Who keeps nothing is served as ever.
        let plain = net.client(version, "plain");
        net.subscribe(plain, "p", 1);
        net.send(plain, "C0:");
        net.expect(plain, "D0:");
        net.store().set_failing(false);
        net.settle();
        if version == V5 {
            net.send(from, "32: <t> 0007 {} '1'");
            net.expect(to, "32: <t> 0001 {} '1'");
            net.make_safe();
            net.expect(from, "40: 0007");
        } else {
            net.expect_closed(from, "");
        }
    });
}

/// Of a will that may have to be kept the client is told before it is let in: there is nobody to be told afterwards. Those of clients
/// that were there before are kept, as they were promised.
#[test]
fn who_has_a_will_that_cannot_be_kept_is_not_let_in() {
    stored(|net, version| {
        let to = subscribed(net, version, "to", 1);
        let connect = |flags: &str, client_id: &str| {
            format!("{} [{{}}] <t> <gone>", connect_packet(version, flags, 0, "", client_id))
        };
        let before = net.join(version, &connect("0E", "before"), CONNACK);
        net.store().set_failing(true);
        net.settle();
        let (written, refused) = (net.store().last(), if version == V5 { "20: 00 97 {}" } else { "20: 00 03" });
        // With QoS 1, with QoS 2, and with RETAIN.
        for flags in ["0E", "16", "26"] {
            for number in 0..3 {
                let client = net.open(version);
                net.send(client, &connect(flags, &format!("new{number}")));
                net.expect_closed(client, refused);
            }
        }
        let plain = net.join(version, &connect("06", "plain"), CONNACK);
        net.lose(plain);
        net.expect(to, "30: <t> [{}] 'gone'");
        assert_eq!(net.store().last(), written, "journals");
        net.lose(before);
        net.expect(to, "32: <t> 0001 [{}] 'gone'");
        net.store().set_failing(false);
        net.settle();
        net.make_safe();
        net.join(version, &connect("0E", "new0"), CONNACK);
    });
}

/// A plugin cannot be told either, and may go on for ever.
#[test]
fn what_plugins_send_to_kept_sessions_is_dropped_while_nothing_can_be_kept() {
    stored(|net, version| {
        let to = subscribed(net, version, "to", 1);
        let away = subscribed(net, version, "away", 1);
        net.lose(away);
        let plain = net.client(version, "plain");
        net.subscribe(plain, "t", 1);
        net.make_safe();
        net.store().set_failing(true);
        net.settle();
        let (written, host) = (net.store().last(), net.script().host());
        for number in 1..=3 {
            let text = number.to_string();
            host.publish(&Message::new("t", text.as_str()).qos(QoS::AtLeastOnce)).unwrap();
            for client_id in ["to", "away"] {
                let message = Message::new("s", text.as_str()).qos(QoS::ExactlyOnce);
                host.send(InfoTarget::Client(client_id), &message).unwrap();
            }
            net.settle();
        }
        assert_eq!(net.store().last(), written, "journals");
        net.expect(to, "");
        net.expect(plain, "32: <t> 0001 [{}] '1' | 32: <t> 0002 [{}] '2' | 32: <t> 0003 [{}] '3'");
        net.store().set_failing(false);
        net.settle();
        host.publish(&Message::new("t", "4").qos(QoS::AtLeastOnce)).unwrap();
        net.settle();
        net.expect(to, "32: <t> 0001 [{}] '4'");
        net.expect(plain, "32: <t> 0004 [{}] '4'");
        net.make_safe();
        let away = net.open(version);
        net.send(away, &connect_packet(version, "00", 0, "11 00000E10", "away"));
        net.make_safe();
        net.expect(away, &format!("{} | 32: <t> 0001 [{{}}] '4'", super::net::resumed(version)));
    });
}

/// What nobody can be told to send again is not retained, so that what waits to be written has a bound while that lasts; and what
/// was retained before does not outlive it [MQTT-3.3.1-7@3.1.1].
#[test]
fn nothing_piles_up_while_nothing_can_be_kept() {
    stored(|net, version| {
        let from = net.client(version, "from");
        let other = net.client(version, "other");
        net.send(from, "31: <r> [{}] 'old'");
        net.make_safe();
        net.store().set_failing(true);
        net.settle();
        let written = net.store().last();
        net.send(from, "31: <r> [{}] 'new' | 31: <s> [{}] 'new' | 31: <s> [{}] 'newer'");
        assert!(net.store().last() <= written + 1, "only that one is there no more");
        for who in [from, other, from, other] {
            net.send(who, "33: <r> 0008 [{}] '2'");
            net.expect(who, if version == V5 { "40: 0008 97" } else { "" });
        }
        let plain = net.client(version, "plain");
        net.send(plain, "82: 0001 [{}] <#> 00");
        net.expect(plain, "90: 0001 [{}] 00");
        net.store().set_failing(false);
        net.settle();
        if version != V5 {
            net.expect_closed(from, "");
            net.expect_closed(other, "");
        }
    });
}
