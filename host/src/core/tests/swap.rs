//! Another instance of the plugin takes the place of the one that is there.

use std::sync::Arc;
use std::time::Duration;

use plugin_api::{AuthVerdict, ConnectVerdict, PublishVerdict, ReasonCode};

use super::handler::Script;
use super::net::connect_packet;
use super::*;
use crate::core::Core;
use crate::plugin::Flip;

/// All connections at once, with a budget of so many errors for an hour.
const fn on_probation(budget: u32) -> Flip {
    Flip { per_mille: None, probation: Duration::from_secs(3600), budget }
}

/// All connections at once, for good.
const FOR_GOOD: Flip = Flip { per_mille: None, probation: Duration::ZERO, budget: 0 };

fn nothing(_: &mut Script) {}

/// A version that says no to every message, so that one can tell who was asked.
fn refusing(script: &mut Script) {
    script.publish = Some(Box::new(|_| Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED))));
}

fn panicking(script: &mut Script) {
    script.publish = Some(Box::new(|_| panic!("as asked")));
}

/// PUBLISH with QoS 1 to `t`, which nobody has subscribed to, and the answer of a version that forwards it.
const PUBLISH: &str = "32: <t> 0001 [{}] 'x'";
const FORWARDED: &str = "40: 0001 10";
const REFUSED: &str = "40: 0001 87";

fn live(net: &Net) -> (Vec<usize>, usize) {
    let former = (0..).take_while(|number| net.has_former(*number)).map(|number| net.former(number).live).collect();
    (former, net.script().live)
}

#[test]
fn next_packet_is_the_new_versions_and_the_state_goes_over() {
    scenario(|net| {
        let client = net.v5("c");
        net.send(client, PUBLISH);
        net.expect(client, FORWARDED);
        net.flip("2.0.0", &FOR_GOOD, refusing);
        // No turn has been taken since.
        net.send(client, PUBLISH);
        net.expect(client, REFUSED);
        assert_eq!(net.script().take("import"), ["import c 1 from 1.0.0"]);
        assert_eq!(live(net), (vec![0], 1), "the old state is dropped");
        assert_eq!(net.former(0).take("disconnect"), [""; 0], "without a word");
        net.flip("3.0.0", &FOR_GOOD, nothing);
        net.send(client, PUBLISH);
        net.expect(client, FORWARDED);
        assert_eq!(net.script().take("import"), ["import c 2 from 2.0.0"]);
        net.send(client, "E0:");
        net.expect_closed(client, "");
        assert_eq!(net.script().take("disconnect").len(), 1);
    });
}

#[test]
fn who_says_nothing_goes_over_in_the_sweep() {
    scenario(|net| {
        for number in 0..30 {
            net.v5(&format!("c{number}"));
        }
        net.flip("2.0.0", &FOR_GOOD, nothing);
        net.settle();
        assert_eq!(live(net), (vec![0], 30));
        assert_eq!(net.script().take("import").len(), 30);
        assert!(!net.shared.chain.retire(), "nobody has the old one any more");
        let epoch = net.shared.chain.epoch();
        assert_eq!(net.shared.chain.wait_conformed(net.workers(), epoch, Duration::ZERO), Some(0));
    });
}

#[test]
fn worker_that_begins_after_a_swap_is_not_waited_for() {
    scenario(|net| {
        net.flip("2.0.0", &FOR_GOOD, nothing);
        let (chain, workers) = (&net.shared.chain, net.workers());
        let left = || chain.wait_conformed(workers, chain.epoch(), Duration::ZERO);
        assert_eq!(left(), None, "those that are there have not taken a turn since");
        for worker in 0..workers {
            let _ = Core::new(worker, Arc::clone(&net.shared), net.now);
        }
        assert_eq!(left(), Some(0));
    });
}

#[test]
fn during_probation_the_old_state_is_kept_and_a_rollback_takes_the_new_one_back() {
    scenario(|net| {
        let client = net.v5("c");
        net.flip("2.0.0", &on_probation(0), refusing);
        net.settle();
        assert_eq!(live(net), (vec![1], 1));
        net.send(client, PUBLISH);
        net.expect(client, REFUSED);
        net.shared.chain.roll_back(None).expect("it is on probation");
        net.send(client, PUBLISH);
        net.expect(client, FORWARDED);
        assert_eq!(net.former(0).take("import"), ["import c 1 from 2.0.0 back"]);
        assert_eq!(live(net), (vec![1], 0));
        assert!(!net.shared.chain.retire(), "nobody has the new one any more");
    });
}

#[test]
fn version_that_panics_at_once_costs_nobody_the_connection_and_lets_nothing_through() {
    scenario(|net| {
        let clients: Vec<usize> = (0..8).map(|number| net.v5(&format!("c{number}"))).collect();
        net.script().publish = Some(Box::new(|asked| {
            let denied = asked.line.starts_with("publish c1 ");
            Ok(if denied { PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED) } else { PublishVerdict::Forward })
        }));
        net.flip("2.0.0", &on_probation(3), panicking);
        for (number, client) in clients.iter().enumerate() {
            net.send(*client, PUBLISH);
            net.expect(*client, if number == 1 { REFUSED } else { FORWARDED });
        }
        assert!(net.shared.chain.trials().is_empty(), "its budget is used up");
        assert_eq!(net.script().take("publish").len(), 4, "and then it is asked no more");
        assert_eq!(net.former(0).take("publish").len(), 8);
        assert_eq!(live(net), (vec![8], 0));
        assert!(!net.shared.chain.retire());
        net.v5("new");
    });
}

#[test]
fn who_connects_to_a_version_that_panics_is_let_in_or_not_by_the_one_before() {
    scenario(|net| {
        net.script().connect = Some(Box::new(|asked| {
            let denied = asked.line.starts_with("connect denied ");
            Ok(if denied { ConnectVerdict::reject(ReasonCode::BANNED) } else { ConnectVerdict::accept() })
        }));
        net.flip("2.0.0", &on_probation(100), |script| script.connect = Some(Box::new(|_| panic!("as asked"))));
        net.v5("c");
        let denied = net.open(V5);
        net.send(denied, &connect_packet(V5, "02", 0, "", "denied"));
        net.expect_closed(denied, "20: 00 8A [{}]");
        // The same if it cannot even make a state.
        net.script().new_connection = Some(Box::new(|_| panic!("as asked")));
        net.v5("d");
        assert_eq!(live(net), (vec![2], 0));
    });
}

/// Neither is the connection lost that the version is rolled back for.
#[test]
fn who_connects_when_the_budget_is_used_up_is_let_in_by_the_one_before() {
    for panics in [
        |script: &mut Script| script.connect = Some(Box::new(|_| panic!("as asked"))),
        |script: &mut Script| script.new_connection = Some(Box::new(|_| panic!("as asked"))),
    ] {
        scenario(|net| {
            net.flip("2.0.0", &on_probation(0), panics);
            net.v5("c");
            assert!(net.shared.chain.trials().is_empty(), "its budget is used up");
            net.v5("d");
            assert_eq!(live(net), (vec![2], 0));
            assert!(!net.shared.chain.retire());
        });
    }
}

#[test]
fn panics_after_the_probation_end_the_connection() {
    scenario(|net| {
        let client = net.v5("c");
        net.flip("2.0.0", &on_probation(0), panicking);
        net.shared.chain.settle_all();
        net.settle();
        assert_eq!(live(net), (vec![0], 1), "nothing is kept any more");
        net.send(client, PUBLISH);
        net.expect_closed(client, "E0: 83");
    });
}

#[test]
fn errors_and_unreadable_answers_use_up_the_budget() {
    scenario(|net| {
        let client = net.v5("c");
        let answers = |script: &mut Script| {
            let mut calls = 0;
            script.publish = Some(Box::new(move |_| {
                calls += 1;
                if calls == 1 { Err("some error".into()) } else { Ok(PublishVerdict::reject(ReasonCode::SUCCESS)) }
            }));
        };
        net.flip("2.0.0", &on_probation(1), answers);
        net.send(client, PUBLISH);
        net.expect(client, "40: 0001 80");
        assert_eq!(net.shared.chain.trials().len(), 1);
        net.send(client, PUBLISH);
        assert!(net.shared.chain.trials().is_empty());
        // An answer that cannot be read ends the connection, as ever.
        net.expect_closed(client, "E0: 83");
    });
}

#[test]
fn connection_whose_state_is_not_taken_stays_until_the_probation_is_over() {
    scenario(|net| {
        let (odd, even) = (net.v5("odd"), net.v5("even"));
        let choosy =
            |script: &mut Script| {
                script.import = Some(Box::new(|asked| {
                    if asked.line.starts_with("import odd") { Err("not this one".into()) } else { Ok(()) }
                }));
                refusing(script);
            };
        net.flip("2.0.0", &on_probation(5), choosy);
        net.send(odd, PUBLISH);
        net.expect(odd, FORWARDED);
        net.send(even, PUBLISH);
        net.expect(even, REFUSED);
        assert_eq!(net.shared.chain.trials()[0].plugin.errors_left(), Some(4));
        // Then it gets a fresh state, as there is nobody else to ask.
        net.shared.chain.settle_all();
        net.send(odd, PUBLISH);
        net.expect(odd, REFUSED);
        assert_eq!(live(net), (vec![0], 2));
        assert!(!net.shared.chain.retire());
    });
}

#[test]
fn state_that_panics_when_it_is_exported_is_replaced_by_a_fresh_one() {
    scenario(|net| {
        let client = net.v5("c");
        net.script().export = Some(Box::new(|_| panic!("as asked")));
        net.flip("2.0.0", &FOR_GOOD, refusing);
        net.send(client, PUBLISH);
        net.expect(client, REFUSED);
        assert_eq!(net.script().take("import").len(), 0);
        assert_eq!(live(net), (vec![0], 1));
    });
}

#[test]
fn exchange_of_authentication_ends_where_it_began() {
    scenario(|net| {
        let steps = |script: &mut Script, name: &'static str| {
            let mut step = 0;
            script.auth = Some(Box::new(move |_| {
                step += 1;
                Ok(if step % 2 == 1 { AuthVerdict::Continue(name.into()) } else { AuthVerdict::OkWith(name.into()) })
            }));
        };
        steps(&mut net.script(), "v1");
        let client = net.open(V5);
        net.send(client, &connect_packet(V5, "02", 0, "15 0001 6D", "c"));
        net.expect(client, "F0: 18 [{15 0001 6D 16 0002 7631}]");
        net.flip("2.0.0", &on_probation(0), |script| steps(script, "v2"));
        net.settle();
        assert_eq!(live(net), (vec![1], 0));
        net.send(client, "F0: 18 [{15 0001 6D 16 0001 78}]");
        net.expect(client, "20: 00 00 [{21 0400 27 01000000 22 0040 15 0001 6D 16 0002 7631}]");
        // Now it may go.
        net.advance(200);
        assert_eq!(live(net), (vec![1], 1));
        assert_eq!(net.script().take("import").len(), 1);
        // The same for a re-authentication, and back.
        net.send(client, "F0: 19 [{15 0001 6D 16 0001 78}]");
        net.expect(client, "F0: 18 [{15 0001 6D 16 0002 7632}]");
        net.shared.chain.roll_back(None).expect("it is on probation");
        net.advance(200);
        net.send(client, "F0: 18 [{15 0001 6D 16 0001 78}]");
        net.expect(client, "F0: 00 [{15 0001 6D 16 0002 7632}]");
        net.advance(200);
        assert_eq!(live(net), (vec![1], 0));
    });
}

#[test]
fn share_of_the_connections_goes_first_and_then_all_or_none() {
    for promote in [true, false] {
        scenario(|net| {
            let clients: Vec<usize> = (0..40).map(|number| net.v5(&format!("c{number}"))).collect();
            let how = Flip { per_mille: Some(300), ..on_probation(5) };
            net.flip("2.0.0", &how, refusing);
            net.settle();
            let count = |net: &mut Net| {
                let refused = clients.iter().filter(|client| {
                    net.send(**client, PUBLISH);
                    net.take(**client)[4..] == [0x87]
                });
                refused.count()
            };
            let share = count(net);
            assert!((1..30).contains(&share), "{share} of 40");
            assert_eq!(count(net), share, "they stay the same");
            if promote {
                let (trial, _) = net.shared.chain.promote(None).expect("a canary");
                assert_eq!((trial.per_mille, count(net)), (None, 40));
                assert_eq!(live(net), (vec![40], 40));
            } else {
                net.shared.chain.roll_back(Some("puppet")).expect("a canary");
                assert_eq!(count(net), 0);
                assert_eq!(live(net), (vec![40], 0));
            }
        });
    }
}

#[test]
fn connection_on_its_way_to_another_worker_arrives_with_the_new_version() {
    scenario_in(Mode { workers: 3, bytewise: false }, &Setup::default(), |net| {
        for number in 0..6 {
            // The worker that takes it on is not the one that owns it, or it is.
            let client = net.open(V5);
            let (worker, slot) = net.place(client);
            let connect = super::net::bytes(V5, &connect_packet(V5, "02", 0, "", &format!("c{number}")));
            let now = net.now;
            net.cores[worker].feed(slot, &connect, now);
            net.flip("2.0.0", &FOR_GOOD, refusing);
            net.settle();
            net.expect(client, CONNACK);
            net.send(client, PUBLISH);
            net.expect(client, REFUSED);
        }
        let (former, now) = live(net);
        assert_eq!((former, now), (vec![0; 6], 6));
        assert!(!net.shared.chain.retire());
    });
}

/// Who begins to authenticate again and never ends it does not keep the old version for ever.
#[test]
fn re_authentication_that_never_ends_does_not_keep_the_old_version() {
    scenario(|net| {
        let mut steps = 0;
        net.script().auth = Some(Box::new(move |_| {
            steps += 1;
            Ok(if steps == 1 { AuthVerdict::Ok } else { AuthVerdict::Continue(b"?".to_vec()) })
        }));
        let client = net.open(V5);
        net.send(client, &connect_packet(V5, "02", 0, "15 0001 6D", "c"));
        net.expect(client, "20: 00 00 [{21 0400 27 01000000 22 0040 15 0001 6D}]");
        net.send(client, "F0: 19 [{15 0001 6D}]");
        net.expect(client, "F0: 18 [{15 0001 6D 16 0001 3F}]");
        net.flip("2.0.0", &FOR_GOOD, nothing);
        for _ in 0..9 {
            net.advance(1_000);
            net.send(client, "C0: | F0: 18 [{15 0001 6D}]");
            net.expect(client, "D0: | F0: 18 [{15 0001 6D 16 0001 3F}]");
        }
        assert!(net.shared.chain.retire(), "it is still used");
        net.advance(1_000);
        net.expect_closed(client, "E0: 87");
        assert!(!net.shared.chain.retire());
    });
}

/// Nor does who ends one and begins the next at once, so that there is always one under way when packets come.
#[test]
fn re_authentications_in_a_chain_do_not_keep_the_old_version() {
    scenario(|net| {
        let steps = |script: &mut Script, name: &'static str| {
            script.auth = Some(Box::new(move |auth| {
                let ends = auth.line.ends_with(" Continue");
                Ok(if ends { AuthVerdict::OkWith(name.into()) } else { AuthVerdict::Continue(name.into()) })
            }));
        };
        steps(&mut net.script(), "v1");
        let client = net.open(V5);
        net.send(client, &connect_packet(V5, "02", 0, "15 0001 6D", "c"));
        net.expect(client, "F0: 18 [{15 0001 6D 16 0002 7631}]");
        net.send(client, "F0: 18 [{15 0001 6D}] | F0: 19 [{15 0001 6D}]");
        net.expect(
            client,
            "20: 00 00 [{21 0400 27 01000000 22 0040 15 0001 6D 16 0002 7631}] | F0: 18 [{15 0001 6D 16 0002 7631}]",
        );
        net.flip("2.0.0", &FOR_GOOD, |script| steps(script, "v2"));
        // The exchange ends with the version that has begun it; the next one is the new version's.
        net.send(client, "F0: 18 [{15 0001 6D}] | F0: 19 [{15 0001 6D}]");
        net.expect(client, "F0: 00 [{15 0001 6D 16 0002 7631}] | F0: 18 [{15 0001 6D 16 0002 7632}]");
        assert_eq!(live(net), (vec![0], 1));
        assert!(!net.shared.chain.retire(), "it is still used");
    });
}
