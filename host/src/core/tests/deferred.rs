//! Answers that come later: what waits for them, and what does not.

use plugin_api::PublishVerdict;
use plugin_api::abi::{AnswerKey, Status, Verdict};

use super::*;
use crate::plugin::tickets::double;

/// The plugin answers `handle_publish` later.
fn defer_publish(net: &Net) {
    double::given();
    net.script().publish = Some(Box::new(|_| {
        double::later();
        Ok(PublishVerdict::Handled)
    }));
}

/// The plugin answers by a ticket.
fn answer(net: &mut Net, ticket: u64, verdict: Verdict, pieces: &[(AnswerKey, u64, &[u8])]) -> Status {
    let status = net.shared.chain.plugins()[0].answer(ticket, verdict, pieces);
    net.settle();
    status
}

/// The one ticket that was given.
#[track_caller]
fn ticket() -> u64 {
    let given = double::given();
    assert_eq!(given.len(), 1, "tickets");
    given[0]
}

/// Packets behind an open question wait; what goes to the client does not.
#[test]
fn packets_wait_for_an_answer_in_their_order() {
    for version in VERSIONS {
        scenario(|net| {
            let (from, to) = (net.client(version, "from"), net.client(version, "to"));
            net.subscribe(to, "#", 0);
            net.subscribe(from, "news", 0);
            defer_publish(net);
            net.send(from, "32: <t> 0001 [{}] 'x' | C0: | 34: <t> 0002 [{}] 'y' | 62: 0002");
            net.expect(from, "");
            net.script().publish = None;
            net.send(to, "30: <news> [{}] 'n'");
            net.expect(from, "30: <news> [{}] 'n'");
            net.expect(to, "30: <news> [{}] 'n'");
            net.script().take("publish");
            assert_eq!(answer(net, ticket(), Verdict::OK, &[]), Status::OK);
            net.expect(from, "40: 0001 | D0: | 50: 0002 | 70: 0002");
            net.expect(to, "30: <t> [{}] 'x' | 30: <t> [{}] 'y'");
            // Nobody was asked twice.
            assert_eq!(net.script().take("publish").len(), 1);
        });
    }
}
