//! Wills that have waited are put to the plugins once more where these may say something else by then.

use std::time::Duration;

use plugin_api::{InfoTarget, Message, PublishVerdict, QoS, ReasonCode};

use super::handler::Script;
use super::services::ask;
use super::*;
use crate::core::peer::{ClientCertificate, PeerDetails, TlsDetails, TransportKind};
use crate::plugin::Flip;

const FOR_GOOD: Flip = Flip { per_mille: None, probation: Duration::ZERO, budget: 0 };
const WILL: &str = "32: <w> 0001 {26 <a> <b> 02 0000003C} 'gone'";

/// A client whose will waits for ten seconds, and one that sees it.
fn waiting(net: &mut Net) -> usize {
    let watcher = net.v5("watcher");
    net.subscribe(watcher, "#", 1);
    let connect = "10: <MQTT> 05 0E 0000 {11 00000064} <c> {18 0000000A 02 0000003C 26 <a> <b>} <w> <gone>";
    let client = net.join(V5, connect, CONNACK);
    net.lose(client);
    net.script().calls.clear();
    watcher
}

fn refuse(script: &mut Script) {
    script.publish = Some(Box::new(|_| Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED))));
}

fn reauthorise(net: &mut Net, target: InfoTarget<'static>) {
    ask(net, |host| host.reauthorise(target)).expect("there is somebody");
}

/// With what its connection's states had exported, and of these nothing is left: they hear of no second end.
const ASKED: [&str; 2] = ["import c 1 from 1.0.0", "publish c w q1 retain=false dup=false id=None will=true"];

fn check(net: &mut Net, watcher: usize, asked: &[&str], expected: &str) {
    net.advance(10_000);
    assert_eq!(net.script().calls, asked);
    net.expect(watcher, expected);
    assert_eq!(net.script().live, net.clients_with_state());
}

#[test]
fn who_asks_to_reauthorise_is_asked() {
    let targets = [InfoTarget::All, InfoTarget::Client("c")];
    for (target, refused) in targets.into_iter().flat_map(|target| [(target, false), (target, true)]) {
        scenario(|net| {
            let watcher = waiting(net);
            if refused {
                refuse(&mut net.script());
            }
            reauthorise(net, target);
            net.script().calls.clear();
            check(net, watcher, &ASKED, if refused { "" } else { WILL });
        });
    }
}

/// What plugins would say of others is of no interest, nor what they would say if nobody has reason to ask.
#[test]
fn nobody_is_asked_where_nothing_has_changed() {
    for somebody_else in [false, true] {
        scenario(|net| {
            let watcher = waiting(net);
            refuse(&mut net.script());
            if somebody_else {
                reauthorise(net, InfoTarget::Client("watcher"));
                net.script().calls.clear();
            }
            check(net, watcher, &[], WILL);
        });
    }
}

/// A session that ends earlier has its will published then.
#[test]
fn at_the_end_of_the_session_too() {
    scenario(|net| {
        let watcher = waiting(net);
        refuse(&mut net.script());
        reauthorise(net, InfoTarget::All);
        net.v5("c"); // With Clean Start.
        let asked = net.script().take("publish");
        assert_eq!(asked, ASKED[1..]);
        net.advance(200_000);
        net.expect(watcher, "");
    });
}

#[test]
fn another_version_decides() {
    for refused in [true, false] {
        scenario(|net| {
            let watcher = waiting(net);
            net.flip("2.0.0", &FOR_GOOD, if refused { refuse } else { |_: &mut Script| {} });
            net.settle();
            net.script().calls.clear();
            check(net, watcher, &ASKED, if refused { "" } else { WILL });
        });
    }
}

/// And the one before it, once it decides again.
#[test]
fn version_that_is_rolled_back_does_not() {
    scenario(|net| {
        net.flip("2.0.0", &Flip { probation: Duration::from_secs(3600), ..FOR_GOOD }, |_| {});
        let watcher = waiting(net);
        refuse(&mut net.former(0));
        net.shared.chain.roll_back(None).expect("it is on probation");
        net.advance(10_000);
        assert_eq!(net.former(0).take("publish"), ASKED[1..]);
        assert_eq!(net.script().take("publish"), [""; 0]);
        net.expect(watcher, "");
    });
}

/// One that is configured is not asked what has changed.
#[test]
fn configuration() {
    scenario(|net| {
        let watcher = waiting(net);
        refuse(&mut net.script());
        net.shared.chain.note_new_permissions();
        check(net, watcher, &ASKED, "");
    });
}

/// Who may only agree or refuse, and does not agree to what it has let pass, has refused.
#[test]
fn what_has_been_changed_is_asked_about_as_it_is() {
    let change = |topic: &'static str| -> Box<dyn FnMut(&super::handler::Asked) -> _ + Send> {
        Box::new(move |_| Ok(PublishVerdict::ForwardChanged(Message::new(topic, "new").qos(QoS::AtLeastOnce))))
    };
    for (later, expected) in [("changed", "32: <changed> 0001 {} 'new'"), ("another", "")] {
        scenario(|net| {
            net.script().publish = Some(change("changed"));
            let watcher = waiting(net);
            net.script().publish = Some(change(later));
            reauthorise(net, InfoTarget::All);
            net.script().calls.clear();
            let asked = ["import c 1 from 1.0.0", "publish c changed q1 retain=false dup=false id=None will=true"];
            check(net, watcher, &asked, expected);
        });
    }
}

/// Whoever panics, fails or can make no state of what was exported has not agreed.
#[test]
fn who_cannot_answer_lets_nothing_pass() {
    let faults: [fn(&mut Script); 3] = [
        |script| script.publish = Some(Box::new(|_| panic!("as scripted"))),
        |script| script.publish = Some(Box::new(|_| Err("no".into()))),
        |script| {
            script.import = Some(Box::new(|_| Err("no state of ours".into())));
            script.new_connection = Some(Box::new(|_| panic!("as scripted")));
        },
    ];
    scenario(|net| {
        for fault in faults {
            let watcher = waiting(net);
            fault(&mut net.script());
            reauthorise(net, InfoTarget::All);
            net.advance(100_000);
            net.expect(watcher, "");
            assert_eq!(net.script().live, net.clients_with_state());
            net.script().answer_nothing();
            net.lose(watcher);
        }
    });
}

/// Where a state cannot be handed over a fresh one is asked.
#[test]
fn fresh_state() {
    scenario(|net| {
        let watcher = waiting(net);
        net.script().import = Some(Box::new(|_| Err("no state of ours".into())));
        reauthorise(net, InfoTarget::All);
        net.script().calls.clear();
        check(net, watcher, &[ASKED[0], "publish  w q1 retain=false dup=false id=None will=true"], WILL);
    });
}

/// The answer may come later, or not at all.
#[test]
fn answer_that_comes_later() {
    for (verdict, expected) in [
        (Some(PublishVerdict::Forward), WILL),
        (Some(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED)), ""),
        (None, ""),
    ] {
        scenario(|net| {
            let watcher = waiting(net);
            reauthorise(net, InfoTarget::All);
            let tickets = super::deferred::defer!(net, publish, PublishVerdict);
            net.advance(10_000);
            assert_eq!(net.cores.iter().map(crate::core::Core::farewells).sum::<usize>(), 1);
            net.expect(watcher, "");
            match &verdict {
                Some(verdict) => assert_eq!(tickets.answer(net, verdict.clone()), Ok(())),
                None => net.advance(60_000),
            }
            net.expect(watcher, expected);
            assert_eq!(net.script().take("disconnect"), [""; 0]);
            assert_eq!(net.script().live, net.clients_with_state());
        });
    }
}

/// The same when it was let pass by an answer that came later: what is known goes with it.
#[test]
fn let_pass_later() {
    scenario(|net| {
        let tickets = super::deferred::defer!(net, publish, PublishVerdict);
        let watcher = waiting(net);
        assert_eq!(tickets.answer(net, PublishVerdict::Forward), Ok(()));
        refuse(&mut net.script());
        reauthorise(net, InfoTarget::All);
        net.script().calls.clear();
        check(net, watcher, &ASKED, "");
    });
}

/// Another process knows nothing of what has changed while there was none: it asks, and so does one that takes over.
#[test]
fn after_a_start() {
    for (crash, refused) in [(true, true), (true, false), (false, true), (false, false)] {
        let setup = Setup { store: crash, ..Setup::default() };
        scenario_with(&setup, |net| {
            net.is_safe_at_once = true;
            let watcher = waiting(net);
            if refused {
                refuse(&mut net.script());
            }
            net.lose(watcher);
            if crash {
                net.crash(&setup);
            } else {
                net.hand_over(2, None);
            }
            let watcher = net.v5("watcher");
            net.subscribe(watcher, "#", 1);
            net.script().calls.clear();
            check(net, watcher, &ASKED, if refused { "" } else { WILL });
        });
    }
}

/// What is known of a peer is shown once more, but for what is forgotten with CONNACK.
#[test]
fn whose_it_was_is_shown() {
    scenario(|net| {
        let certificate = ClientCertificate { subject: "CN=sensor-7".into(), ..ClientCertificate::default() };
        let tls = TlsDetails { certificate: Some(Box::new(certificate)), ..TlsDetails::default() };
        let tls = Some(Box::new(tls));
        net.details = Some(PeerDetails { transport: TransportKind::Wss, tls, ..PeerDetails::default() });
        waiting(net);
        reauthorise(net, InfoTarget::All);
        net.advance(10_000);
        let shown = net.script().take("swapped");
        assert!(shown[0].contains("kind: Wss") && shown[0].contains("subject: \"CN=sensor-7\""), "{shown:?}");
    });
}

/// Where nobody decides on what is published nobody is asked.
#[test]
fn without_a_plugin() {
    scenario_with(&Setup { plugin: false, ..Setup::default() }, |net| {
        let watcher = net.v5("watcher");
        net.subscribe(watcher, "#", 1);
        let connect = "10: <MQTT> 05 06 0000 {11 00000064} <c> {18 0000000A} <w> <gone>";
        let client = net.join(V5, connect, CONNACK);
        net.lose(client);
        net.shared.chain.note_new_permissions();
        net.advance(10_000);
        net.expect(watcher, "30: <w> {} 'gone'");
    });
}
