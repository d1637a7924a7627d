//! The plugin is swapped while an answer of it is awaited.

use std::time::Duration;

use plugin_api::{PublishVerdict, ReasonCode};

use super::*;
use crate::plugin::Flip;

const FLIP: Flip = Flip { per_mille: None, probation: Duration::from_secs(3600), budget: 0 };

fn refusing(script: &mut super::super::handler::Script) {
    script.publish = Some(Box::new(|_| Ok(PublishVerdict::reject(ReasonCode::QUOTA_EXCEEDED))));
}

#[test]
fn who_was_asked_answers_and_what_waited_is_the_new_versions() {
    scenario(|net| {
        let held = defer_publish(net);
        let client = net.v5("c");
        net.send(client, "32: <t> 0001 [{}] 'x' | 32: <t> 0002 [{}] 'y'");
        assert_eq!(held.len(), 1);
        net.flip("2.0.0", &FLIP, refusing);
        net.advance(500);
        net.expect(client, "");
        assert_eq!((net.former(0).live, net.script().live), (1, 0), "its state stays until it has answered");
        assert!(!net.shared.chain.trials().is_empty());
        held.answer(net, PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED)).expect("it is awaited");
        net.expect(client, "40: 0001 87 | 40: 0002 97");
        assert_eq!(net.script().take("import"), ["import c 1 from 1.0.0"]);
    });
}

#[test]
fn replaced_version_lives_until_its_last_answer_has_come() {
    scenario(|net| {
        let held = defer_publish(net);
        let client = net.v5("c");
        net.send(client, "32: <t> 0001 [{}] 'x'");
        net.flip("2.0.0", &Flip { probation: Duration::ZERO, ..FLIP }, refusing);
        net.settle();
        assert!(net.shared.chain.retire(), "it is still used");
        // The connection ends meanwhile.
        net.lose(client);
        assert!(net.shared.chain.retire(), "it is still used");
        assert!(held.answer(net, PublishVerdict::Forward).is_ok());
        assert!(!net.shared.chain.retire());
        assert_eq!(net.former(0).take("disconnect").len(), 1);
    });
}

#[test]
fn question_that_is_open_at_a_rollback_is_answered_by_who_was_asked() {
    scenario(|net| {
        let client = net.v5("c");
        net.flip("2.0.0", &FLIP, |_| {});
        net.settle();
        let held = defer_publish(net);
        net.send(client, "32: <t> 0001 [{}] 'x' | 32: <t> 0002 [{}] 'y'");
        refusing(&mut net.former(0));
        net.shared.chain.roll_back(None).expect("it is on probation");
        net.advance(500);
        held.answer(net, PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED)).expect("it is awaited");
        net.expect(client, "40: 0001 87 | 40: 0002 97");
        assert_eq!(net.former(0).take("import"), ["import c 1 from 2.0.0 back"]);
    });
}

/// A callback that answers with a ticket of another instance is refused at once: nobody could hear of the answer.
#[test]
fn ticket_of_another_instance_is_void() {
    scenario(|net| {
        let client = net.v5("c");
        net.flip("2.0.0", &Flip { budget: 9, ..FLIP }, |_| {});
        net.settle();
        let (held, host) = (Held::<PublishVerdict>::new(), net.former(0).host());
        let into = held.clone();
        net.script().publish = Some(Box::new(move |_| {
            let (ticket, later) = host.ticket()?;
            into.push(ticket);
            Ok(PublishVerdict::Later(later))
        }));
        net.send(client, "32: <t> 0001 [{}] 'x'");
        net.expect_closed(client, "E0: 83");
        assert_eq!(held.answer(net, PublishVerdict::Forward), Err(HostError::Gone));
        assert_eq!(net.shared.chain.trials()[0].plugin.errors_left(), Some(8));
    });
}
