//! Who may connect, when several plugins have a say: `handle_connect` and `handle_auth`.

use plugin_api::abi::Verdict;
use plugin_api::{Callback, PropertiesBuf, ReasonCode};

use super::answer::{Answer, unknown};
use super::chain::{Chain, ERROR, implementing_from, is_later};
use super::cursor::{Cursor, SoFar};
use super::handlers::Handlers;
use super::instance::Plugin;
use super::outcome::{AuthOutcome, ConnackOverrides, ConnectOutcome};
use super::request::{AuthRequest, ConnectRequest, ConnectionInfo, PublishRequest};
use super::rules::{self, Place};
use super::tickets::Answered;
use crate::codec::PacketType;

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
        let end = fold_connect(&asked, request.client_id, verdict, &answer, &mut overrides);
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
        let plugin = &handlers.plugins().list[index];
        if let Some(end) = fold_connect(plugin, request.client_id, verdict, &answer, overrides) {
            return end;
        }
    }
    all.map_or(ConnectOutcome::NoOpinion, ConnectOutcome::Accept)
}

/// Takes one plugin's answer in. `Some`: asking ends here.
fn fold_connect(
    plugin: &Plugin,
    who: &str,
    verdict: Verdict,
    answer: &Answer,
    overrides: &mut ConnackOverrides,
) -> Option<ConnectOutcome> {
    let read = match verdict {
        Verdict::OK => answer.overrides().map(|new| *overrides = merged(overrides, new)),
        Verdict::REJECT => match answer.refusal(Place::Farewell) {
            Ok((code, properties)) => {
                let reason_code = plugin.fitting(Callback::Connect, who, PacketType::Connack, code);
                return Some(ConnectOutcome::Reject { reason_code, properties });
            }
            Err(why) => Err(why),
        },
        Verdict::ERROR => {
            plugin.log_error(Callback::Connect, who, answer);
            return Some(ConnectOutcome::Reject { reason_code: ERROR, properties: PropertiesBuf::new() });
        }
        other => Err(unknown(other)),
    };
    read.err().map(|why| {
        plugin.log_unreadable(Callback::Connect, who, &why);
        ConnectOutcome::Failed
    })
}

fn merged(earlier: &ConnackOverrides, later: ConnackOverrides) -> ConnackOverrides {
    ConnackOverrides {
        client_id: later.client_id.or_else(|| earlier.client_id.clone()),
        keep_alive: later.keep_alive.or(earlier.keep_alive),
        session_expiry: later.session_expiry.or(earlier.session_expiry),
        properties: rules::merge(&earlier.properties, &later.properties),
    }
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

/// `None`: it is not this plugin's method, and the next one is asked.
fn fold_auth(
    (plugin, index): (&Plugin, usize),
    who: &str,
    owner: &mut Option<usize>,
    request: &AuthRequest<'_>,
    verdict: Verdict,
    answer: &Answer,
) -> Option<AuthOutcome> {
    let outcome = match verdict {
        Verdict::OK => answer.auth_data().map(|data| AuthOutcome::Ok { data }),
        Verdict::CONTINUE => answer.auth_data().map(|data| AuthOutcome::Continue { data: data.unwrap_or_default() }),
        Verdict::REJECT => answer
            .refusal(Place::Farewell)
            .map(|(reason_code, properties)| AuthOutcome::Reject { reason_code, properties }),
        Verdict::ERROR => {
            plugin.log_error(Callback::Auth, who, answer);
            Ok(AuthOutcome::Reject { reason_code: ERROR, properties: PropertiesBuf::new() })
        }
        other => Err(unknown(other)),
    };
    match outcome {
        Ok(AuthOutcome::Reject { reason_code: ReasonCode::BAD_AUTHENTICATION_METHOD, .. }) if owner.is_none() => None,
        Ok(mut outcome) => {
            *owner = Some(index);
            if let AuthOutcome::Reject { reason_code, .. } = &mut outcome {
                let packet = if request.connected { PacketType::Disconnect } else { PacketType::Connack };
                *reason_code = plugin.fitting(Callback::Auth, who, packet, *reason_code);
            }
            Some(outcome)
        }
        Err(why) => {
            plugin.log_unreadable(Callback::Auth, who, &why);
            Some(AuthOutcome::Failed)
        }
    }
}
