//! Who may connect, when several plugins have a say: `handle_connect` and `handle_auth`.

use plugin_api::abi::Verdict;
use plugin_api::reading::{self, Answer, fold_connect, is_later};
use plugin_api::{Callback, PropertiesBuf, ReasonCode};

use super::chain::{Chain, implementing_from};
use super::cursor::{Cursor, SoFar};
use super::handlers::Handlers;
use super::instance::Plugin;
use super::outcome::{AuthOutcome, ConnackOverrides, ConnectOutcome};
use super::request::{AuthRequest, ConnectRequest, ConnectionInfo, PublishRequest};
use super::tickets::Answered;

impl Chain {
    /// May this client connect? Among overrides, the later plugin's win; the later plugin sees the Client Identifier that
    /// an earlier one gave.
    pub fn connect(&self, handlers: &mut Handlers, request: &ConnectRequest<'_>) -> ConnectOutcome {
        connect_from(handlers, 0, request, None)
    }

    /// Goes on after [`ConnectOutcome::Deferred`], with the same request.
    pub fn resume_connect(
        &self,
        handlers: &mut Handlers,
        request: &ConnectRequest<'_>,
        cursor: Cursor,
        answered: Answered,
    ) -> ConnectOutcome {
        let taken = handlers.take_back(&cursor, Callback::Connect, request.client_id, answered);
        let ConnectRequest { connection, peer, listener, transport, .. } = *request;
        let info = ConnectionInfo { connection, peer, listener, transport };
        let may_ask_again = taken.is_err() && handlers.may_ask_again(&cursor, Callback::Connect, Some(&info));
        let Cursor { index, asked, so_far: SoFar::Connect(mut overrides), .. } = cursor else {
            return ConnectOutcome::Failed;
        };
        let Ok((verdict, answer)) = taken else {
            if may_ask_again {
                return connect_from(handlers, index, request, Some(overrides));
            }
            return ConnectOutcome::Failed;
        };
        let end = fold_connect(&*asked, request.client_id, verdict, &answer, &mut overrides);
        end.unwrap_or_else(|| connect_from(handlers, index + 1, request, Some(overrides)))
    }

    /// One step of an authentication exchange. `owner` is kept by the caller, `None` before the first step: it is the
    /// plugin that has accepted the method. If none does, the outcome is a refusal with 0x8C.
    pub fn auth(
        &self,
        handlers: &mut Handlers,
        who: &str,
        owner: &mut Option<usize>,
        request: &AuthRequest<'_>,
    ) -> AuthOutcome {
        auth_from(handlers, 0, who, owner, request)
    }

    /// Goes on after [`AuthOutcome::Deferred`], with the same request.
    pub fn resume_auth(
        &self,
        handlers: &mut Handlers,
        who: &str,
        owner: &mut Option<usize>,
        request: &AuthRequest<'_>,
        cursor: &Cursor,
        answered: Answered,
    ) -> AuthOutcome {
        let index = cursor.index;
        let Ok((verdict, answer)) = handlers.take_back(cursor, Callback::Auth, who, answered) else {
            if handlers.may_ask_again(cursor, Callback::Auth, None) {
                return auth_from(handlers, index, who, owner, request);
            }
            return AuthOutcome::Failed;
        };
        let end = fold_auth((&cursor.asked, index), who, owner, request, verdict, &answer);
        end.unwrap_or_else(|| auth_from(handlers, index + 1, who, owner, request))
    }
}

/// Asks the plugins from a place in the chain on.
fn connect_from(
    handlers: &mut Handlers,
    from: usize,
    request: &ConnectRequest<'_>,
    mut all: Option<ConnackOverrides>,
) -> ConnectOutcome {
    let will = request.will.map(PublishRequest::from);
    let will = will.as_ref().map(PublishRequest::raw);
    for index in implementing_from(handlers, Callback::Connect, from) {
        if handlers.is_skipped(index) {
            continue; // Nobody's opinion is not a consent.
        }
        let overrides = all.get_or_insert_default();
        let client_id = overrides.client_id.as_deref().unwrap_or(request.client_id);
        let raw = request.raw(client_id, will);
        let mut answer = Answer::default();
        let Ok(verdict) = handlers.connect(index, request.client_id, &mut answer, &raw) else {
            return ConnectOutcome::Failed;
        };
        if is_later(verdict, &answer) {
            let so_far = SoFar::Connect(std::mem::take(overrides));
            return ConnectOutcome::Deferred(Cursor::new(handlers, index, answer.ticket, so_far));
        }
        let plugin = &*handlers.plugins().list[index];
        if let Some(end) = fold_connect(plugin, request.client_id, verdict, &answer, overrides) {
            return end;
        }
    }
    all.map_or(ConnectOutcome::NoOpinion, ConnectOutcome::Accept)
}

fn auth_from(
    handlers: &mut Handlers,
    from: usize,
    who: &str,
    owner: &mut Option<usize>,
    request: &AuthRequest<'_>,
) -> AuthOutcome {
    let raw = request.raw();
    for index in implementing_from(handlers, Callback::Auth, from) {
        if owner.is_some_and(|owner| owner != index) {
            continue;
        }
        let mut answer = Answer::default();
        let Ok(verdict) = handlers.ask(index, who, &mut answer, &raw) else {
            return AuthOutcome::Failed;
        };
        if is_later(verdict, &answer) {
            return AuthOutcome::Deferred(Cursor::new(handlers, index, answer.ticket, SoFar::Nothing));
        }
        let plugin = &handlers.plugins().list[index];
        if let Some(end) = fold_auth((plugin, index), who, owner, request, verdict, &answer) {
            return end;
        }
    }
    AuthOutcome::Reject { reason_code: ReasonCode::BAD_AUTHENTICATION_METHOD, properties: PropertiesBuf::new() }
}

/// See [`reading::fold_auth`]: the plugin owns the exchange from now on, unless the method is not its own.
fn fold_auth(
    (plugin, index): (&Plugin, usize),
    who: &str,
    owner: &mut Option<usize>,
    request: &AuthRequest<'_>,
    verdict: Verdict,
    answer: &Answer,
) -> Option<AuthOutcome> {
    let outcome = reading::fold_auth(plugin, who, (owner.is_some(), request.connected), verdict, answer)?;
    if outcome != AuthOutcome::Failed {
        *owner = Some(index);
    }
    Some(outcome)
}
