//! What a client may subscribe to, when several plugins have a say: `handle_subscribe` and `handle_unsubscribe`.

use plugin_api::abi::{RawSubscribe, RawSubscription, RawUnsubscribe, Verdict};
use plugin_api::reading::{Answer, fold_codes, is_later};
use plugin_api::{Callback, ReasonCode};

use super::chain::{Chain, implementing_from};
use super::cursor::{Cursor, SoFar};
use super::enter::NOT_ASKED;
use super::handlers::Handlers;
use super::outcome::{Failed, SubscribeOutcome};
use super::request::{NO_EXTENSION, SubscribeItem, slice, text};
use super::tickets::Answered;

impl Chain {
    /// What may a client subscribe to? `codes` come in as what the server would grant, one for each entry, and go out
    /// lowered or failed, never raised. Entries that have failed are still shown, with their code.
    pub fn subscribe(
        &self,
        handlers: &mut Handlers,
        who: &str,
        items: &[SubscribeItem<'_>],
        properties: &[u8],
        codes: &mut [ReasonCode],
    ) -> SubscribeOutcome {
        if handlers.plugins().refuses_undecided(Callback::Subscribe) {
            codes.iter_mut().filter(|code| !code.is_error()).for_each(|code| *code = ReasonCode::NOT_AUTHORIZED);
            return SubscribeOutcome::Done;
        }
        subscribe_from(handlers, 0, who, items, properties, codes)
    }

    /// Goes on after [`SubscribeOutcome::Deferred`], with the same request and the codes as they were left.
    #[expect(clippy::too_many_arguments, reason = "the request, and where it stands")]
    pub fn resume_subscribe(
        &self,
        handlers: &mut Handlers,
        who: &str,
        items: &[SubscribeItem<'_>],
        properties: &[u8],
        codes: &mut [ReasonCode],
        cursor: &Cursor,
        answered: Answered,
    ) -> SubscribeOutcome {
        let ask = |handlers: &mut Handlers, from, codes: &mut [ReasonCode]| {
            subscribe_from(handlers, from, who, items, properties, codes)
        };
        go_on(handlers, (Callback::Subscribe, who), cursor, answered, codes, ask)
    }

    /// May a client unsubscribe? `filters` as they were sent; `codes` as in [`Chain::subscribe`].
    pub fn unsubscribe(
        &self,
        handlers: &mut Handlers,
        who: &str,
        filters: &[&str],
        properties: &[u8],
        codes: &mut [ReasonCode],
    ) -> SubscribeOutcome {
        unsubscribe_from(handlers, 0, who, filters, properties, codes)
    }

    /// Goes on after [`SubscribeOutcome::Deferred`], with the same request and the codes as they were left.
    #[expect(clippy::too_many_arguments, reason = "the request, and where it stands")]
    pub fn resume_unsubscribe(
        &self,
        handlers: &mut Handlers,
        who: &str,
        filters: &[&str],
        properties: &[u8],
        codes: &mut [ReasonCode],
        cursor: &Cursor,
        answered: Answered,
    ) -> SubscribeOutcome {
        let ask = |handlers: &mut Handlers, from, codes: &mut [ReasonCode]| {
            unsubscribe_from(handlers, from, who, filters, properties, codes)
        };
        go_on(handlers, (Callback::Unsubscribe, who), cursor, answered, codes, ask)
    }
}

/// Takes in what has been answered late, and asks the plugins behind it; or the same place again, where another version
/// decides now.
fn go_on(
    handlers: &mut Handlers,
    (callback, who): (Callback, &str),
    cursor: &Cursor,
    answered: Answered,
    codes: &mut [ReasonCode],
    ask: impl FnOnce(&mut Handlers, usize, &mut [ReasonCode]) -> SubscribeOutcome,
) -> SubscribeOutcome {
    let Ok((verdict, answer)) = handlers.take_back(cursor, callback, who, answered) else {
        if handlers.may_ask_again(cursor, callback, None) {
            return ask(handlers, cursor.index, codes);
        }
        return SubscribeOutcome::Failed;
    };
    match fold_codes(&*cursor.asked, callback, who, verdict, &answer, codes) {
        Some(end) => end,
        None => ask(handlers, cursor.index + 1, codes),
    }
}

fn subscribe_from(
    handlers: &mut Handlers,
    from: usize,
    who: &str,
    items: &[SubscribeItem<'_>],
    properties: &[u8],
    codes: &mut [ReasonCode],
) -> SubscribeOutcome {
    debug_assert_eq!(items.len(), codes.len());
    for index in implementing_from(handlers, Callback::Subscribe, from) {
        let subscriptions: Vec<RawSubscription<'_>> =
            items.iter().zip(&*codes).map(|(item, code)| item.raw(*code)).collect();
        let raw = RawSubscribe {
            subscriptions: slice(&subscriptions),
            properties: slice(properties),
            extension: NO_EXTENSION,
        };
        let mut answer = Answer::default();
        let verdict = match handlers.ask(index, who, &mut answer, &raw) {
            Ok(verdict) if verdict != NOT_ASKED => verdict,
            Ok(_) | Err(Failed) => return SubscribeOutcome::Failed,
        };
        let plugin = (index, Callback::Subscribe, who);
        if let Some(end) = fold_asked(handlers, plugin, verdict, &answer, codes) {
            return end;
        }
    }
    SubscribeOutcome::Done
}

fn unsubscribe_from(
    handlers: &mut Handlers,
    from: usize,
    who: &str,
    filters: &[&str],
    properties: &[u8],
    codes: &mut [ReasonCode],
) -> SubscribeOutcome {
    debug_assert_eq!(filters.len(), codes.len());
    let filters: Vec<_> = filters.iter().map(|filter| text(filter)).collect();
    let raw = RawUnsubscribe { filters: slice(&filters), properties: slice(properties), extension: NO_EXTENSION };
    for index in implementing_from(handlers, Callback::Unsubscribe, from) {
        let mut answer = Answer::default();
        let Ok(verdict) = handlers.ask(index, who, &mut answer, &raw) else {
            return SubscribeOutcome::Failed;
        };
        let plugin = (index, Callback::Unsubscribe, who);
        if let Some(end) = fold_asked(handlers, plugin, verdict, &answer, codes) {
            return end;
        }
    }
    SubscribeOutcome::Done
}

/// Takes in what a plugin has just said about the filters of a packet. `Some`: asking ends here, or it answers later.
fn fold_asked(
    handlers: &Handlers,
    (index, callback, who): (usize, Callback, &str),
    verdict: Verdict,
    answer: &Answer,
    codes: &mut [ReasonCode],
) -> Option<SubscribeOutcome> {
    if is_later(verdict, answer) {
        return Some(SubscribeOutcome::Deferred(Cursor::new(handlers, index, answer.ticket, SoFar::Nothing)));
    }
    fold_codes(&*handlers.plugins().list[index], callback, who, verdict, answer, codes)
}
