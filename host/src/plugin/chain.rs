//! Several plugins, one decision.
//!
//! - A plugin that does not implement a callback has no opinion, and is not called.
//! - The plugins are asked in order. The first refusal wins, and those behind it are not asked.
//! - A plugin that cannot answer (a panic, a state that panicked before, an answer that cannot be read) refuses: `Failed`.
//! - Where there is nothing to refuse (`handle_puback`, `handle_disconnect`), one plugin's failure does not keep the others
//!   from hearing of it.
//! - An error that a callback returned is a refusal with 0x80, and is logged.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use plugin_api::abi::{RawAck, RawSubscribe, RawSubscription, RawUnsubscribe, Verdict};
use plugin_api::{AckKind, Callback, DisconnectKind, PropertiesBuf, QoS, ReasonCode};

use super::answer::{Answer, Unreadable, unknown};
use super::call::{Handlers, Plugin};
use super::cursor::{Cursor, SoFar};
use super::error::LoadError;
use super::generation::{Cell, Plan};
use super::outcome::{
    AuthOutcome, ConnackOverrides, ConnectOutcome, Failed, InfoAction, InfoOutcome, SubscribeOutcome,
};
use super::request::{
    AuthRequest, ConnectRequest, ConnectionInfo, DisconnectReason, InfoRequest, NO_EXTENSION, PublishRequest,
    SubscribeItem, slice,
};
use super::rules::{self, Place};
use super::tickets::{Answered, NO_TICKET};
use crate::codec::PacketType;
use crate::message::Source;

/// Plugins that one chain may have.
const PLUGINS_MAX: usize = 64;

/// The plugins of a server, in their order, and the instances of each that follow one another while it runs. Cloning it
/// is cheap; the plugins are dropped with the last clone and the last connection's [`Handlers`].
///
/// For each connection: [`Chain::new_connection`] first; then the callbacks, with what it returned; then
/// [`Chain::disconnect`], after which no callback does anything but fail. `who` in each call is the Client Identifier,
/// for the log. The instances that are asked are those of the handlers: see [`Handlers::conform`].
///
/// A chain without plugins is the embedded default handler: it has no opinion on anything.
#[derive(Clone, Default)]
pub struct Chain(pub(super) Arc<Cell>);

impl Chain {
    /// A chain of these plugins.
    ///
    /// # Errors
    /// Two plugins with one name: commands and logs address them by it. More than 64 plugins.
    pub fn new(plugins: Vec<Plugin>) -> Result<Self, LoadError> {
        if plugins.len() > PLUGINS_MAX {
            return Err(LoadError::TooManyPlugins { count: plugins.len(), max: PLUGINS_MAX });
        }
        let mut names = HashSet::new();
        if let Some(twice) = plugins.iter().find(|plugin| !names.insert(plugin.name())) {
            return Err(LoadError::DuplicateName { name: twice.name().to_owned() });
        }
        Ok(Self(Cell::new(plugins)))
    }

    /// The plugins that decide about most connections, in order: those that new instances are on trial against.
    #[must_use]
    pub fn plugins(&self) -> Vec<Arc<Plugin>> {
        self.plan().plugins().to_vec()
    }

    /// Whether at least one plugin implements a callback.
    #[must_use]
    pub fn implements(&self, callback: Callback) -> bool {
        self.plan().implements(callback)
    }

    /// Whether at least one plugin decides who may connect.
    #[must_use]
    pub fn decides_on_connections(&self) -> bool {
        self.implements(Callback::Connect) || self.implements(Callback::Auth)
    }

    /// Makes the states of a connection.
    ///
    /// # Errors
    /// A plugin could not. Those before it have been told with `handle_disconnect` that the connection has ended.
    pub fn new_connection(&self, info: &ConnectionInfo<'_>) -> Result<Handlers, Failed> {
        self.plan().new_connection(info)
    }

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
        let (peer, listener) = (request.peer, request.listener);
        let info = ConnectionInfo { connection: request.connection, peer, listener };
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
        let Ok((verdict, answer)) = handlers.take_back(cursor, Callback::Subscribe, who, answered) else {
            if handlers.may_ask_again(cursor, Callback::Subscribe, None) {
                return subscribe_from(handlers, cursor.index, who, items, properties, codes);
            }
            return SubscribeOutcome::Failed;
        };
        let end = fold_codes(&cursor.asked, Callback::Subscribe, who, verdict, &answer, codes);
        end.unwrap_or_else(|| subscribe_from(handlers, cursor.index + 1, who, items, properties, codes))
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
        let Ok((verdict, answer)) = handlers.take_back(cursor, Callback::Unsubscribe, who, answered) else {
            if handlers.may_ask_again(cursor, Callback::Unsubscribe, None) {
                return unsubscribe_from(handlers, cursor.index, who, filters, properties, codes);
            }
            return SubscribeOutcome::Failed;
        };
        let end = fold_codes(&cursor.asked, Callback::Unsubscribe, who, verdict, &answer, codes);
        end.unwrap_or_else(|| unsubscribe_from(handlers, cursor.index + 1, who, filters, properties, codes))
    }

    /// From now on `worker` waits for the answer that a cursor is about, unless it is there already.
    pub fn wait(&self, handlers: &Handlers, cursor: &Cursor, worker: usize) -> Option<Box<Answered>> {
        cursor.asked.tickets().wait(cursor.ticket, worker, handlers.connection())
    }

    /// That answer has not come in time, and nobody waits for it any more: the plugin is told.
    pub fn expire(&self, callback: Callback, who: &str, cursor: &Cursor) {
        cursor.asked.expire(callback, who, cursor.ticket);
    }

    /// Takes in an answer that nobody waits for any more.
    pub fn abandon(&self, handlers: &mut Handlers, callback: Callback, who: &str, cursor: &Cursor, answered: Answered) {
        // What it says does not matter, but a state may come back with it.
        let _ = handlers.take_back(cursor, callback, who, answered);
    }

    /// Tells the plugins of an acknowledgement. The token is for the plugin that sent the message with it.
    ///
    /// # Errors
    /// A plugin panicked; the others have been told all the same.
    pub fn puback(
        &self,
        handlers: &mut Handlers,
        who: &str,
        packet_id: u16,
        kind: AckKind,
        reason_code: ReasonCode,
        (source, token): (Source, u64),
    ) -> Result<(), Failed> {
        let (kind, reason_code) = (kind as u8, reason_code.0);
        let mut result = Ok(());
        for index in implementing(handlers, Callback::Puback) {
            let mut answer = Answer::default();
            let token = if source.is_plugin(index) { token } else { 0 };
            let raw = RawAck { packet_id, kind, reason_code, token, extension: NO_EXTENSION };
            result = handlers.puback(index, who, &mut answer, &raw).map(|_| ()).and(result);
        }
        result
    }

    /// Hands a message to one plugin, or to all that implement `handle_info`.
    pub fn info(
        &self,
        handlers: &mut Handlers,
        who: &str,
        plugin: Option<usize>,
        request: &InfoRequest<'_>,
    ) -> InfoOutcome {
        info_from(handlers, 0, who, plugin, request, Vec::new())
    }

    /// Goes on after [`InfoOutcome::Deferred`], with the same request.
    pub fn resume_info(
        &self,
        handlers: &mut Handlers,
        who: &str,
        plugin: Option<usize>,
        request: &InfoRequest<'_>,
        cursor: Cursor,
        answered: Answered,
    ) -> InfoOutcome {
        let taken = handlers.take_back(&cursor, Callback::Info, who, answered);
        let may_ask_again = taken.is_err() && handlers.may_ask_again(&cursor, Callback::Info, None);
        let Cursor { index, asked, so_far: SoFar::Info(mut actions), .. } = cursor else {
            return InfoOutcome::Failed;
        };
        let Ok((verdict, answer)) = taken else {
            if may_ask_again {
                return info_from(handlers, index, who, plugin, request, actions);
            }
            return InfoOutcome::Failed;
        };
        let end = fold_info(&asked, who, verdict, &answer, &mut actions);
        end.unwrap_or_else(|| info_from(handlers, index + 1, who, plugin, request, actions))
    }

    /// Tells the plugins that the connection has ended, and drops its states: a second call does nothing. Plugins that
    /// have panicked on it are left out.
    pub fn disconnect(&self, handlers: &mut Handlers, who: &str, reason: &DisconnectReason<'_>) {
        tell_end(handlers, who, reason);
    }
}

impl Plan {
    /// Hands a message to one plugin as a whole.
    pub fn event(&self, plugin: usize, request: &InfoRequest<'_>) {
        if let Some(plugin) = self.plugins().get(plugin)
            && plugin.callbacks().contains(Callback::Event)
        {
            plugin.event(&request.raw());
        }
    }

    /// See [`Chain::new_connection`].
    ///
    /// # Errors
    /// See there.
    pub fn new_connection(&self, info: &ConnectionInfo<'_>) -> Result<Handlers, Failed> {
        Handlers::new(self, info).map_err(|mut made| {
            let reason = DisconnectReason {
                kind: DisconnectKind::HandlerFailed,
                reason_code: ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
                text: "",
            };
            // Nobody knows the Client Identifier yet.
            tell_end(&mut made, &info.peer.to_string(), &reason);
            Failed
        })
    }
}

/// See [`Chain::disconnect`].
fn tell_end(handlers: &mut Handlers, who: &str, reason: &DisconnectReason<'_>) {
    let raw = reason.raw();
    for index in implementing(handlers, Callback::Disconnect) {
        if handlers.is_sound(index) {
            let mut answer = Answer::default();
            // A panic is logged where it is caught; the connection has ended anyway.
            let _ = handlers.disconnect(index, who, &mut answer, &raw);
        }
    }
    handlers.end(who);
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.plugins().iter().map(|plugin| plugin.name())).finish()
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
    let will = will.as_ref().map(|will| will.raw(false));
    for index in implementing_from(handlers, Callback::Connect, from) {
        if handlers.is_skipped(index) {
            continue; // Nobody's opinion is not a consent.
        }
        let overrides = all.get_or_insert_default();
        let client_id = overrides.client_id.as_deref().unwrap_or(request.client_id);
        let raw = request.raw(client_id, will.as_ref());
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
        let Ok(verdict) = handlers.auth(index, who, &mut answer, &raw) else {
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
        let Ok(verdict) = handlers.subscribe(index, who, &mut answer, &raw) else {
            return SubscribeOutcome::Failed;
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
    let filters: Vec<_> = filters.iter().map(|filter| super::request::text(filter)).collect();
    let raw = RawUnsubscribe { filters: slice(&filters), properties: slice(properties), extension: NO_EXTENSION };
    for index in implementing_from(handlers, Callback::Unsubscribe, from) {
        let mut answer = Answer::default();
        let Ok(verdict) = handlers.unsubscribe(index, who, &mut answer, &raw) else {
            return SubscribeOutcome::Failed;
        };
        let plugin = (index, Callback::Unsubscribe, who);
        if let Some(end) = fold_asked(handlers, plugin, verdict, &answer, codes) {
            return end;
        }
    }
    SubscribeOutcome::Done
}

fn info_from(
    handlers: &mut Handlers,
    from: usize,
    who: &str,
    plugin: Option<usize>,
    request: &InfoRequest<'_>,
    mut actions: Vec<InfoAction>,
) -> InfoOutcome {
    let raw = request.raw();
    for index in implementing_from(handlers, Callback::Info, from) {
        if plugin.is_some_and(|plugin| plugin != index) {
            continue;
        }
        let mut answer = Answer::default();
        let Ok(verdict) = handlers.info(index, who, &mut answer, &raw) else {
            return InfoOutcome::Failed;
        };
        if is_later(verdict, &answer) {
            return InfoOutcome::Deferred(Cursor::new(handlers, index, answer.ticket, SoFar::Info(actions)));
        }
        let plugin = &handlers.plugins().list[index];
        if let Some(end) = fold_info(plugin, who, verdict, &answer, &mut actions) {
            return end;
        }
    }
    InfoOutcome::Actions(actions)
}

/// Adds one plugin's actions. `Some`: asking ends here.
fn fold_info(
    plugin: &Plugin,
    who: &str,
    verdict: Verdict,
    answer: &Answer,
    actions: &mut Vec<InfoAction>,
) -> Option<InfoOutcome> {
    let fitted = |mut action| {
        if let InfoAction::Disconnect { reason_code, .. } = &mut action {
            *reason_code = plugin.fitting(Callback::Info, who, PacketType::Disconnect, *reason_code);
        }
        action
    };
    let read = match verdict {
        Verdict::OK => {
            answer.actions(plugin.packet_bytes_max()).map(|more| actions.extend(more.into_iter().map(fitted)))
        }
        Verdict::ERROR => {
            plugin.log_error(Callback::Info, who, answer);
            Ok(())
        }
        other => Err(unknown(other)),
    };
    read.err().map(|why| {
        plugin.log_unreadable(Callback::Info, who, &why);
        InfoOutcome::Failed
    })
}

/// Whether a plugin answers later.
fn is_later(verdict: Verdict, answer: &Answer) -> bool {
    verdict == Verdict::DEFERRED && answer.ticket != NO_TICKET
}

/// The Reason Code of "any other error".
pub(super) const ERROR: ReasonCode = ReasonCode::UNSPECIFIED_ERROR;

/// The plugins that implement a callback, by their place in the chain.
#[inline]
pub(super) fn implementing(handlers: &Handlers, callback: Callback) -> impl Iterator<Item = usize> + use<> {
    implementing_from(handlers, callback, 0)
}

/// Those of them from a place in the chain on; it may be one behind the last.
#[inline]
pub(super) fn implementing_from(
    handlers: &Handlers,
    callback: Callback,
    from: usize,
) -> impl Iterator<Item = usize> + use<> {
    // A copy of the set, so that the iterator does not borrow the handlers, which each call needs mutably.
    let set = handlers.plugins().implementing(callback);
    let mut set = u32::try_from(from).ok().and_then(|from| u64::MAX.checked_shl(from)).map_or(0, |rest| set & rest);
    std::iter::from_fn(move || {
        let index = set.trailing_zeros();
        (index < 64).then(|| {
            set &= set - 1;
            index as usize
        })
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
    fold_codes(&handlers.plugins().list[index], callback, who, verdict, answer, codes)
}

/// Folds one plugin's Reason Codes into those so far. `Some`: asking ends here.
fn fold_codes(
    plugin: &Plugin,
    callback: Callback,
    who: &str,
    verdict: Verdict,
    answer: &Answer,
    codes: &mut [ReasonCode],
) -> Option<SubscribeOutcome> {
    let (packet, fold): (_, fn(_, _) -> _) = match callback {
        Callback::Subscribe => (PacketType::Suback, lower_grant),
        _ => (PacketType::Unsuback, refuse_only),
    };
    let fitting = |packet, code| plugin.fitting(callback, who, packet, code);
    let read = match verdict {
        Verdict::OK => answer.nothing(),
        Verdict::CODES => answer.codes(codes.len()).and_then(|answers| {
            codes.iter_mut().zip(answers).try_for_each(|(code, answered)| {
                let answered = fold(*code, ReasonCode(*answered))?;
                *code = if answered == *code { answered } else { fitting(packet, answered) };
                Ok(())
            })
        }),
        Verdict::DISCONNECT => match answer.disconnection() {
            Ok((code, properties)) => {
                let reason_code = fitting(PacketType::Disconnect, code);
                return Some(SubscribeOutcome::Disconnect { reason_code, properties });
            }
            Err(why) => Err(why),
        },
        Verdict::ERROR => {
            plugin.log_error(callback, who, answer);
            codes.iter_mut().filter(|code| !code.is_error()).for_each(|code| *code = ERROR);
            Ok(())
        }
        other => Err(unknown(other)),
    };
    read.err().map(|why| {
        plugin.log_unreadable(callback, who, &why);
        SubscribeOutcome::Failed
    })
}

/// SUBSCRIBE: the first error stays; a granted QoS is only ever lowered.
fn lower_grant(so_far: ReasonCode, answered: ReasonCode) -> Result<ReasonCode, Unreadable> {
    if !answered.is_error() && QoS::from_u8(answered.0).is_none() {
        return Err(format!("{answered} is neither a granted QoS nor an error"));
    }
    Ok(match (so_far.is_error(), answered.is_error()) {
        (true, _) => so_far,
        (false, true) => answered,
        (false, false) => ReasonCode(so_far.0.min(answered.0)),
    })
}

/// UNSUBSCRIBE: the first error stays; whether there was a subscription is not a plugin's to say.
fn refuse_only(so_far: ReasonCode, answered: ReasonCode) -> Result<ReasonCode, Unreadable> {
    match answered {
        ReasonCode::SUCCESS | ReasonCode::NO_SUBSCRIPTION_EXISTED => Ok(so_far),
        _ if !answered.is_error() => Err(format!("{answered} is neither success nor an error")),
        _ => Ok(if so_far.is_error() { so_far } else { answered }),
    }
}
