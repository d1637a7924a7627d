//! Asking a plugin about a connection, with the state that it has of it.
#![allow(unsafe_code)] // Foreign functions are called here.

use std::sync::Arc;

use plugin_api::abi::{
    Opaque, PluginVtRef, RawAck, RawAuth, RawConnect, RawConnected, RawDeliver, RawDisconnect, RawInfo, RawPublish,
    RawSubscribe, RawSubscription, RawUnsubscribe, Verdict,
};
use plugin_api::{Callback, ReasonCode};

use super::handlers::{Handlers, Kept, State, States};
use super::offload::Question;
use super::outcome::Failed;
use super::owned::Own;
use super::request::ConnectionInfo;
use super::services::{self, Left};
use super::stats::{Detour, Entry};
use super::tickets::NO_TICKET;
use super::transport::Transport;
use plugin_api::reading::Answer;

impl Handlers {
    /// Asks one plugin with its instance and its state.
    #[inline]
    pub(super) fn ask<Q: Ask>(
        &mut self,
        index: usize,
        who: &str,
        answer: &mut Answer,
        view: &Q,
    ) -> Result<Verdict, Failed> {
        match self.agrees(index, who, answer, view) {
            Ok(()) => Ok(Verdict::OK),
            Err(asked) => asked,
        }
    }

    /// The same, for whom one thing is usual: a plugin that agrees and has nothing to add. What else it says, and whatever
    /// comes of it, is the error.
    ///
    /// This is on the way of each message: what is usual goes straight on, and what is not is out of line, so that it costs
    /// neither registers nor room on the stack.
    #[inline]
    pub(super) fn agrees<Q: Ask>(
        &mut self,
        index: usize,
        who: &str,
        answer: &mut Answer,
        view: &Q,
    ) -> Result<(), Result<Verdict, Failed>> {
        let (entry, plugin) = (Entry::of(Q::CALLBACK), &*self.plugins.list[index]);
        let Some(raw) = self.raw_state(index).filter(|_| !plugin.has_detour(entry)) else {
            return Err(self.ask_anyhow(index, who, answer, view));
        };
        let Some(counted) = plugin.count_plain_call(entry) else {
            return Err(self.ask_anyhow(index, who, answer, view));
        };
        let (verdict, touched) = plugin.run_counted(counted, entry, self.connection, who, || {
            // SAFETY: the instance made the state, both are alive, and `&mut self` keeps other threads from the state.
            unsafe { view.call(plugin.table, plugin.instance, raw, answer) }
        });
        if verdict == Verdict::OK && !touched && answer.is_untouched() {
            return Ok(());
        }
        Err(self.look_at_words(index, who, answer, view, verdict, touched))
    }

    /// The state that a plugin has made, if it is here.
    #[inline]
    fn raw_state(&self, index: usize) -> Option<Opaque> {
        let state = match &self.states {
            States::One(state) => state,
            States::Any(states) => states.get(index)?,
        };
        if let State::Here(raw) = state { Some(*raw) } else { None }
    }

    /// Asks one plugin that cannot simply be called; if it panics, the one that decided before.
    #[cold]
    #[inline(never)]
    fn ask_anyhow<Q: Ask>(
        &mut self,
        index: usize,
        who: &str,
        answer: &mut Answer,
        view: &Q,
    ) -> Result<Verdict, Failed> {
        self.ask_once(index, who, answer, view).or_else(|Failed| self.ask_other(index, who, answer, view))
    }

    /// Sees to what a plugin has said, and asks the one that decided before if it has panicked.
    #[cold]
    #[inline(never)]
    fn look_at_words<Q: Ask>(
        &mut self,
        index: usize,
        who: &str,
        answer: &mut Answer,
        view: &Q,
        verdict: Verdict,
        touched: bool,
    ) -> Result<Verdict, Failed> {
        let left = if touched { services::settle() } else { None };
        let looked = self.look_at_answer(index, Entry::of(Q::CALLBACK), who, answer, verdict, left);
        looked.or_else(|Failed| self.ask_other(index, who, answer, view))
    }

    /// Asks the instance that decided before, if there is one to go back to.
    #[cold]
    fn ask_other<Q: Ask>(&mut self, index: usize, who: &str, answer: &mut Answer, view: &Q) -> Result<Verdict, Failed> {
        if !self.fall_back(index) {
            return Err(Failed);
        }
        *answer = Answer::default();
        if self.plugins.list[index].callbacks.contains(Q::CALLBACK) {
            self.ask_once(index, who, answer, view)
        } else if matches!(Q::CALLBACK, Callback::Auth | Callback::Connect) {
            Err(Failed) // It has no opinion on who may connect: nobody has let the client in.
        } else {
            Ok(Verdict::OK)
        }
    }

    /// Goes back to the instance that decided before, with the state that it had, as the new one has panicked while it is
    /// on probation. `false` if there is no such state.
    #[cold]
    pub(super) fn fall_back(&mut self, index: usize) -> bool {
        let Some(Kept { plugin, state, .. }) = self.take_kept(index) else { return false };
        tracing::warn!(
            plugin = plugin.name,
            version = plugin.version,
            connection = self.connection,
            "a connection goes back to the version that decided before"
        );
        self.put(index, &plugin, state);
        true
    }

    /// What is to be done where a plugin is not simply called.
    #[cold]
    fn look_aside(&mut self, index: usize, detour: Option<Detour>) -> Aside {
        match detour {
            Some(Detour::Pool) => return Aside::Pool,
            Some(detour) => return Aside::Instead(detour),
            None => {}
        }
        // What is under way there comes first.
        if !self.settle(index) {
            return Aside::Pool;
        }
        match self.states()[index] {
            State::Here(raw) => Aside::Here(raw),
            State::None | State::Pooled(_) => Aside::Failed,
        }
    }

    /// Asks one plugin, whatever there is instead of a simple call.
    fn ask_once<Q: Ask>(&mut self, index: usize, who: &str, answer: &mut Answer, view: &Q) -> Result<Verdict, Failed> {
        let (entry, connection) = (Entry::of(Q::CALLBACK), self.connection);
        let detour = self.plugins.list[index].detour(entry);
        let raw = match self.look_aside(index, detour) {
            Aside::Here(raw) => raw,
            Aside::Instead(detour) => return Ok(view.instead(detour, answer)),
            Aside::Pool => {
                return match view.own() {
                    Some(request) => {
                        let question = Question { entry, who, request };
                        self.offload(index, question, answer, |answer| view.instead(Detour::Pool, answer))
                    }
                    None => Ok(Verdict::AWAY), // A delivery waits until the state is back.
                };
            }
            Aside::Failed => return Err(Failed), // It was logged when it panicked.
        };
        let plugin = &self.plugins.list[index];
        let listening = plugin.listen();
        let (verdict, left) = plugin.run(entry, connection, who, || {
            // SAFETY: as in `agrees`.
            unsafe { view.call(plugin.table, plugin.instance, raw, answer) }
        });
        if let Some(listening) = listening {
            listening.note(connection, who, view.copy(), verdict, answer, ticket_of(&left));
        }
        self.look_at_answer(index, entry, who, answer, verdict, left)
    }

    /// Sees to what is not simple consent.
    #[cold]
    fn look_at_answer(
        &mut self,
        index: usize,
        entry: Entry,
        who: &str,
        answer: &mut Answer,
        verdict: Verdict,
        left: Left,
    ) -> Result<Verdict, Failed> {
        let plugin = &self.plugins.list[index];
        if let Some(left) = &left {
            plugin.note_ticket(verdict, left, answer);
        }
        if matches!(verdict, Verdict::PANICKED | Verdict::POISONED) {
            plugin.log_panic(entry, who, left, answer);
            plugin.count_connection(false);
            let plugin = Arc::clone(plugin);
            plugin.drop_state(&mut self.states()[index], who);
            return Err(Failed);
        }
        if verdict != Verdict::OK {
            plugin.count_answer(entry, verdict, answer);
        }
        plugin.log_caught(entry, who, left);
        Ok(verdict)
    }
}

/// What is done where a plugin is not simply called.
enum Aside {
    /// It is, with this state.
    Here(Opaque),
    /// The host answers in its place.
    Instead(Detour),
    /// It is called on the pool.
    Pool,
    /// It has failed on this connection before.
    Failed,
}

/// A question about a connection: what a plugin is shown, and how it is asked.
pub(super) trait Ask: Own {
    const CALLBACK: Callback;

    /// Calls the plugin.
    ///
    /// # Safety
    /// `table` and `instance` are one plugin's, `instance` has made `state`, both are alive, and no other thread uses the
    /// state meanwhile.
    unsafe fn call(&self, table: PluginVtRef, instance: Opaque, state: Opaque, answer: &mut Answer) -> Verdict;

    /// Answers in its place if it is not to be called.
    fn instead(&self, detour: Detour, answer: &mut Answer) -> Verdict;
}

macro_rules! questions {
    ($($name:ident($view:ty): $callback:ident, $instead:expr;)*) => {
        $(
            impl Ask for $view {
                const CALLBACK: Callback = Callback::$callback;

                #[inline]
                unsafe fn call(
                    &self,
                    table: PluginVtRef,
                    instance: Opaque,
                    state: Opaque,
                    answer: &mut Answer,
                ) -> Verdict {
                    // SAFETY: the caller's promise.
                    unsafe { table.$name()(instance, state, self, answer.sink()) }
                }

                #[cold]
                fn instead(&self, detour: Detour, answer: &mut Answer) -> Verdict {
                    let instead: fn(&Self, Detour, &mut Answer) -> Verdict = $instead;
                    instead(self, detour, answer)
                }
            }
        )*
    };
}

questions! {
    connect(RawConnect<'_>): Connect, |_, detour, answer| {
        refuse_in_place(detour, ReasonCode::SERVER_UNAVAILABLE, answer)
    };
    auth(RawAuth<'_>): Auth, |_, detour, answer| match detour {
        // Not its method: the next plugin is asked, and if it was this one's, nobody lets the client in.
        Detour::Skip => answer.refuse(ReasonCode::BAD_AUTHENTICATION_METHOD),
        Detour::Refuse | Detour::Pool => answer.refuse(REFUSED_IN_PLACE),
    };
    publish(RawPublish<'_>): Publish, |_, detour, answer| refuse_in_place(detour, REFUSED_IN_PLACE, answer);
    subscribe(RawSubscribe<'_>): Subscribe, |view, detour, answer| match detour {
        Detour::Skip => Verdict::OK,
        _ if is_again(view) => NOT_ASKED,
        Detour::Refuse | Detour::Pool => answer.refuse_each(view.subscriptions.len(), REFUSED_IN_PLACE),
    };
    unsubscribe(RawUnsubscribe<'_>): Unsubscribe, |view, detour, answer| match detour {
        Detour::Skip => Verdict::OK,
        Detour::Refuse | Detour::Pool => answer.refuse_each(view.filters.len(), REFUSED_IN_PLACE),
    };
    puback(RawAck): Puback, |_, _, _| Verdict::OK;
    info(RawInfo<'_>): Info, |_, _, _| Verdict::OK;
    disconnect(RawDisconnect<'_>): Disconnect, |_, _, _| Verdict::OK;
    connected(RawConnected<'_>): Connected, |_, _, _| Verdict::OK;
    deliver(RawDeliver<'_>): Deliver, |_, detour, _| match detour {
        Detour::Skip => Verdict::OK,
        Detour::Refuse | Detour::Pool => Verdict::DROP,
    };
}

impl Handlers {
    /// `handle_connect`: the first thing that a plugin is asked about a connection, so that another instance can be asked
    /// from the beginning.
    pub(super) fn connect(
        &mut self,
        index: usize,
        who: &str,
        answer: &mut Answer,
        view: &RawConnect<'_>,
    ) -> Result<Verdict, Failed> {
        let outcome = self.ask(index, who, answer, view);
        let (peer, listener) = (view.peer.into(), view.listener.as_str());
        let transport = Transport::of(view);
        let info = ConnectionInfo { connection: view.connection, peer, listener, transport };
        if outcome.is_ok() || !self.begin_again(index, &info) {
            return outcome;
        }
        *answer = Answer::default();
        if !self.plugins.list[index].callbacks.contains(Callback::Connect) {
            return Err(Failed); // It has no opinion: nobody has let the client in.
        }
        self.ask_once(index, who, answer, view)
    }
}

/// The ticket that a call has taken.
pub(super) fn ticket_of(left: &Left) -> u64 {
    left.as_ref().map_or(NO_TICKET, |left| left.ticket)
}

/// What clients are told where the host refuses in a plugin's place, and a client is in already.
const REFUSED_IN_PLACE: ReasonCode = ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR;

/// Nobody has said anything about subscriptions that are there already, so that they are neither kept nor taken away: as if the
/// state could not be entered. No plugin's answer comes as far as this.
pub(super) const NOT_ASKED: Verdict = Verdict::POISONED;

/// Whether it is about subscriptions that are there already.
fn is_again(view: &RawSubscribe<'_>) -> bool {
    view.subscriptions.iter().any(|one| one.flags & RawSubscription::AGAIN != 0)
}

#[cold]
fn refuse_in_place(detour: Detour, reason_code: ReasonCode, answer: &mut Answer) -> Verdict {
    match detour {
        Detour::Skip => Verdict::OK,
        Detour::Refuse | Detour::Pool => answer.refuse(reason_code),
    }
}
