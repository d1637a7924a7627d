//! Answers that come later are folded as those are that come at once: the same tests once more, with tickets.

use std::cell::Cell;

use plugin_api::{Deferrable, Later};

use super::*;

thread_local! {
    /// Whether the scripted handlers take a ticket for each answer.
    static LATER: Cell<bool> = const { Cell::new(false) };
    /// Answers that the chain has waited for.
    static WAITED: Cell<usize> = const { Cell::new(0) };
}

/// An answer of a scripted handler: at once, or by a ticket.
pub(super) fn answer<A: Deferrable>(
    host: &Host,
    run: impl FnOnce() -> Result<A, Error>,
    later: impl FnOnce(Later<A>) -> A,
) -> Result<A, Error> {
    let answer = run();
    if !LATER.get() {
        return answer;
    }
    let (ticket, proof) = host.ticket()?;
    match answer {
        Ok(answer) => ticket.answer(answer)?,
        Err(error) => ticket.fail(error)?,
    }
    Ok(later(proof))
}

/// The answer that a chain waits for.
fn wait(chain: &Chain, handlers: &Handlers, cursor: &Cursor) -> Answered {
    WAITED.set(WAITED.get() + 1);
    *chain.wait(handlers, cursor, 0).expect("it was given before the callback has returned")
}

pub(super) fn connect(chain: &Chain, handlers: &mut Handlers, request: &ConnectRequest<'_>) -> ConnectOutcome {
    let mut outcome = chain.connect(handlers, request);
    while let ConnectOutcome::Deferred(cursor) = outcome {
        let answered = wait(chain, handlers, &cursor);
        outcome = chain.resume_connect(handlers, request, *cursor, answered);
    }
    outcome
}

pub(super) fn auth(
    chain: &Chain,
    handlers: &mut Handlers,
    owner: &mut Option<usize>,
    request: &AuthRequest<'_>,
) -> AuthOutcome {
    let mut outcome = chain.auth(handlers, "me", owner, request);
    while let AuthOutcome::Deferred(cursor) = outcome {
        let answered = wait(chain, handlers, &cursor);
        outcome = chain.resume_auth(handlers, "me", owner, request, &cursor, answered);
    }
    outcome
}

pub(super) fn publish(
    chain: &Chain,
    handlers: &mut Handlers,
    request: &PublishRequest<'_>,
    changed: &mut ChangedMessage,
) -> PublishOutcome {
    let mut outcome = chain.publish(handlers, "me", request, changed);
    while let PublishOutcome::Deferred(cursor) = outcome {
        let answered = wait(chain, handlers, &cursor);
        // What it has changed so far is not the caller's to keep.
        *changed = ChangedMessage::default();
        outcome = chain.resume_publish(handlers, "me", request, changed, *cursor, answered);
    }
    outcome
}

pub(super) fn subscribe(
    chain: &Chain,
    handlers: &mut Handlers,
    items: &[SubscribeItem<'_>],
    codes: &mut [ReasonCode],
) -> SubscribeOutcome {
    let mut outcome = chain.subscribe(handlers, "me", items, &[], codes);
    while let SubscribeOutcome::Deferred(cursor) = outcome {
        let answered = wait(chain, handlers, &cursor);
        outcome = chain.resume_subscribe(handlers, "me", items, &[], codes, &cursor, answered);
    }
    outcome
}

pub(super) fn unsubscribe(
    chain: &Chain,
    handlers: &mut Handlers,
    filters: &[&str],
    codes: &mut [ReasonCode],
) -> SubscribeOutcome {
    let mut outcome = chain.unsubscribe(handlers, "me", filters, &[], codes);
    while let SubscribeOutcome::Deferred(cursor) = outcome {
        let answered = wait(chain, handlers, &cursor);
        outcome = chain.resume_unsubscribe(handlers, "me", filters, &[], codes, &cursor, answered);
    }
    outcome
}

pub(super) fn info(
    chain: &Chain,
    handlers: &mut Handlers,
    plugin: Option<usize>,
    request: &InfoRequest<'_>,
) -> InfoOutcome {
    let mut outcome = chain.info(handlers, "me", plugin, request);
    while let InfoOutcome::Deferred(cursor) = outcome {
        let answered = wait(chain, handlers, &cursor);
        outcome = chain.resume_info(handlers, "me", plugin, request, *cursor, answered);
    }
    outcome
}

#[test]
fn later_answers_are_folded_as_others_are() {
    let tests: [fn(); 11] = [
        connecting_is_folded,
        overrides_of_later_plugins_win,
        publishing_is_folded,
        authentication_belongs_to_the_plugin_that_accepts_the_method,
        refused_authentication_has_a_reason_code_of_the_packet_that_tells,
        codes_are_only_lowered,
        unsubscribing_can_only_be_refused,
        info_goes_to_its_plugin_and_every_action_comes_back,
        info_disconnects_with_a_reason_code_of_disconnect,
        folding::every_kind_of_answer_is_folded_in_either_place,
        folding::the_rules_of_a_chain,
    ];
    LATER.set(true);
    for (number, test) in tests.into_iter().enumerate() {
        WAITED.set(0);
        test();
        assert_ne!(WAITED.get(), 0, "test {number} has not waited for any answer");
    }
}
