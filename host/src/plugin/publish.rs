//! What becomes of a message, when several plugins have a say.

use plugin_api::abi::{RawPublish, Verdict};
use plugin_api::reading::{self, Answer, Faults as _, read_publish, refused};
use plugin_api::{Callback, PropertiesBuf, ReasonCode};

use super::chain::{Chain, implementing_from};
use super::cursor::{Cursor, SoFar};
use super::handlers::Handlers;
use super::instance::Plugin;
use super::outcome::{ChangedMessage, Failed, PublishOutcome};
use super::request::PublishRequest;
use super::tickets::Answered;

/// One plugin's answer about a message.
type Asked<'a> = reading::PublishAnswer<'a, Box<Cursor>>;

impl Chain {
    /// What becomes of a message? Each plugin sees the previous one's. If one changes the topic, those before it are asked
    /// once more about the new one, and may only agree or refuse.
    ///
    /// `changed` is filled if the outcome is [`PublishOutcome::Changed`]; otherwise its contents mean nothing.
    #[inline]
    pub fn publish(
        &self,
        handlers: &mut Handlers,
        who: &str,
        request: &PublishRequest<'_>,
        changed: &mut ChangedMessage,
    ) -> PublishOutcome {
        let mut set = handlers.plugins().implementing(Callback::Publish);
        if set == 0 {
            return undecided(handlers);
        }
        // As long as every plugin agrees, one answer, which stays empty, does for all.
        let mut answer = Answer::default();
        while set != 0 {
            let index = set.trailing_zeros() as usize;
            if let Err(asked) = handlers.agrees(index, who, &mut answer, request.raw()) {
                return go_on(handlers, index, who, request, changed, asked, answer);
            }
            set &= set - 1;
        }
        PublishOutcome::Forward
    }

    /// May a message that they have let pass still be published? Each plugin is asked once more, as it is about a topic that a
    /// later one has given a message: it may only agree or refuse.
    pub fn publish_again(
        &self,
        handlers: &mut Handlers,
        who: &str,
        request: &PublishRequest<'_>,
        changed: &mut ChangedMessage,
    ) -> PublishOutcome {
        if !handlers.implements(Callback::Publish) {
            return undecided(handlers);
        }
        request.copy_to(changed);
        let all = handlers.plugins().list.len();
        ask_again(handlers, 0, all, who, request, changed).unwrap_or(PublishOutcome::Changed)
    }

    /// Goes on after [`PublishOutcome::Deferred`], with the same request.
    pub fn resume_publish(
        &self,
        handlers: &mut Handlers,
        who: &str,
        request: &PublishRequest<'_>,
        changed: &mut ChangedMessage,
        cursor: Cursor,
        answered: Answered,
    ) -> PublishOutcome {
        let taken = handlers.take_back(&cursor, Callback::Publish, who, answered);
        let may_ask_again = taken.is_err() && handlers.may_ask_again(&cursor, Callback::Publish, None);
        let Cursor { index, asked: plugin, so_far, .. } = cursor;
        let (mut is_changed, changer) = match so_far {
            SoFar::Publish(message) => (message.map(|message| *changed = message).is_some(), None),
            SoFar::Again { changed: message, changer } => {
                *changed = message;
                (true, Some(changer))
            }
            _ => return PublishOutcome::Failed,
        };
        let Ok((verdict, answer)) = taken else {
            if !may_ask_again {
                return PublishOutcome::Failed;
            }
            let objection = changer.and_then(|changer| ask_again(handlers, index, changer, who, request, changed));
            let from = changer.map_or(index, |changer| changer + 1);
            return objection.unwrap_or_else(|| ask_from(handlers, from, who, request, changed, is_changed));
        };
        let asked = read_publish(&*plugin, who, verdict, &answer);
        let (end, from) = match changer {
            None => (fold(handlers, index, who, request, changed, &mut is_changed, asked), index + 1),
            Some(changer) => {
                let objection = fold_again(&plugin, who, changed, asked);
                (objection.or_else(|| ask_again(handlers, index + 1, changer, who, request, changed)), changer + 1)
            }
        };
        end.unwrap_or_else(|| ask_from(handlers, from, who, request, changed, is_changed))
    }
}

/// What becomes of a message about which no plugin decides.
fn undecided(handlers: &Handlers) -> PublishOutcome {
    if handlers.plugins().refuses_undecided(Callback::Publish) {
        return PublishOutcome::Reject { reason_code: ReasonCode::NOT_AUTHORIZED, properties: PropertiesBuf::new() };
    }
    PublishOutcome::Forward
}

/// Goes on where the first plugin has said something else than that it agrees.
#[cold]
#[inline(never)]
fn go_on(
    handlers: &mut Handlers,
    index: usize,
    who: &str,
    request: &PublishRequest<'_>,
    changed: &mut ChangedMessage,
    asked: Result<Verdict, Failed>,
    answer: Answer,
) -> PublishOutcome {
    let mut is_changed = false;
    let asked = match asked {
        Ok(verdict) => read_publish(&*handlers.plugins().list[index], who, verdict, &answer),
        Err(Failed) => Asked::End(PublishOutcome::Failed),
    };
    let end = fold(handlers, index, who, request, changed, &mut is_changed, asked);
    end.unwrap_or_else(|| ask_from(handlers, index + 1, who, request, changed, is_changed))
}

/// Asks the plugins from a place in the chain on.
fn ask_from(
    handlers: &mut Handlers,
    from: usize,
    who: &str,
    request: &PublishRequest<'_>,
    changed: &mut ChangedMessage,
    mut is_changed: bool,
) -> PublishOutcome {
    for index in implementing_from(handlers, Callback::Publish, from) {
        let mut answer = Answer::default();
        let raw = if is_changed { request.raw_changed(changed, false) } else { *request.raw() };
        match ask_publish(handlers, index, who, &raw, &mut answer) {
            Asked::Forward => {}
            asked => {
                if let Some(end) = fold(handlers, index, who, request, changed, &mut is_changed, asked) {
                    return end;
                }
            }
        }
    }
    if is_changed { PublishOutcome::Changed } else { PublishOutcome::Forward }
}

/// Takes one plugin's answer in. `Some`: asking ends here.
fn fold(
    handlers: &mut Handlers,
    index: usize,
    who: &str,
    request: &PublishRequest<'_>,
    changed: &mut ChangedMessage,
    is_changed: &mut bool,
    asked: Asked<'_>,
) -> Option<PublishOutcome> {
    match asked {
        Asked::Forward => None,
        Asked::Changed(message) => {
            let topic = if *is_changed { &changed.topic } else { request.topic() };
            let topic_changed = topic != message.topic;
            message.copy_to(changed);
            *is_changed = true;
            if topic_changed { ask_again(handlers, 0, index, who, request, changed) } else { None }
        }
        Asked::Later(ticket) => {
            let so_far = SoFar::Publish(is_changed.then(|| std::mem::take(changed)));
            Some(PublishOutcome::Deferred(Cursor::new(handlers, index, ticket, so_far)))
        }
        Asked::End(end) => Some(end),
    }
}

#[inline]
fn ask_publish<'a>(
    handlers: &mut Handlers,
    index: usize,
    who: &str,
    raw: &RawPublish<'_>,
    answer: &'a mut Answer,
) -> Asked<'a> {
    match handlers.ask(index, who, answer, raw) {
        Ok(Verdict::OK) => Asked::Forward,
        Ok(verdict) => read_publish(&*handlers.plugins().list[index], who, verdict, answer),
        Err(Failed) => Asked::End(PublishOutcome::Failed),
    }
}

/// Asks the plugins from a place on and before `changer` about the topic that this one has given a message. `Some`: they
/// object, or one of them answers later.
#[cold]
fn ask_again(
    handlers: &mut Handlers,
    from: usize,
    changer: usize,
    who: &str,
    request: &PublishRequest<'_>,
    changed: &mut ChangedMessage,
) -> Option<PublishOutcome> {
    for index in implementing_from(handlers, Callback::Publish, from).take_while(|index| *index < changer) {
        let mut answer = Answer::default();
        let raw = request.raw_changed(changed, true);
        let asked = ask_publish(handlers, index, who, &raw, &mut answer);
        if let Asked::Later(ticket) = asked {
            let so_far = SoFar::Again { changed: std::mem::take(changed), changer };
            return Some(PublishOutcome::Deferred(Cursor::new(handlers, index, ticket, so_far)));
        }
        if let Some(end) = fold_again(&handlers.plugins().list[index], who, changed, asked) {
            return Some(end);
        }
    }
    None
}

/// What a plugin says that is asked again: it may only agree or refuse.
fn fold_again(plugin: &Plugin, who: &str, changed: &ChangedMessage, asked: Asked<'_>) -> Option<PublishOutcome> {
    match asked {
        Asked::Forward | Asked::Later(_) => None,
        // A plugin that rewrites whatever it sees in the same way has nothing to add.
        Asked::Changed(message) if message.equals(changed) => None,
        Asked::Changed(_) => {
            let why = "it changes a message again that a later plugin has changed";
            plugin.unreadable(Callback::Publish, who, why);
            Some(refused())
        }
        Asked::End(end) => Some(end),
    }
}
