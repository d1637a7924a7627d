//! Asking a plugin about a connection, with the state that it has of it.
#![allow(unsafe_code)] // Foreign functions are called here.

use std::ops::ControlFlow;
use std::sync::Arc;

use plugin_api::abi::{
    Opaque, PluginVtRef, RawAck, RawAuth, RawConnect, RawConnected, RawDeliver, RawDisconnect, RawInfo, RawPublish,
    RawSubscribe, RawUnsubscribe, Verdict,
};
use plugin_api::{Callback, ReasonCode};

use super::answer::Answer;
use super::handlers::{Handlers, Kept, State, States};
use super::offload::Question;
use super::outcome::Failed;
use super::owned::Own;
use super::request::ConnectionInfo;
use super::services::Left;
use super::stats::{Detour, Entry};

impl Handlers {
    /// Calls one plugin with its instance and its state. `instead` answers in its place if it is not to be called.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "as above")]
    fn enter(
        &mut self,
        index: usize,
        callback: Callback,
        who: &str,
        answer: &mut Answer,
        view: &impl Own,
        call: impl FnOnce(PluginVtRef, Opaque, Opaque, &mut Answer) -> Verdict + Copy,
        instead: impl FnOnce(Detour, &mut Answer) -> Verdict + Copy,
    ) -> Result<Verdict, Failed> {
        match self.enter_once(index, callback, who, answer, view, call, instead) {
            Err(Failed) => self.enter_other(index, callback, who, answer, view, call, instead),
            outcome => outcome,
        }
    }

    /// Asks the instance that decided before, if there is one to go back to.
    #[cold]
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "as above")]
    fn enter_other(
        &mut self,
        index: usize,
        callback: Callback,
        who: &str,
        answer: &mut Answer,
        view: &impl Own,
        call: impl FnOnce(PluginVtRef, Opaque, Opaque, &mut Answer) -> Verdict,
        instead: impl FnOnce(Detour, &mut Answer) -> Verdict,
    ) -> Result<Verdict, Failed> {
        if !self.fall_back(index) {
            return Err(Failed);
        }
        *answer = Answer::default();
        if self.plugins.list[index].callbacks.contains(callback) {
            self.enter_once(index, callback, who, answer, view, call, instead)
        } else if matches!(callback, Callback::Auth | Callback::Connect) {
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

    #[inline]
    #[expect(clippy::too_many_arguments, reason = "a question, and all that can become of it")]
    fn enter_once(
        &mut self,
        index: usize,
        callback: Callback,
        who: &str,
        answer: &mut Answer,
        view: &impl Own,
        call: impl FnOnce(PluginVtRef, Opaque, Opaque, &mut Answer) -> Verdict,
        instead: impl FnOnce(Detour, &mut Answer) -> Verdict,
    ) -> Result<Verdict, Failed> {
        let (plugin, connection, entry) = (&self.plugins.list[index], self.connection, Entry::of(callback));
        let detour = plugin.detour(entry);
        let state = match &mut self.states {
            States::One(state) => state,
            States::Any(states) => &mut states[index],
        };
        let raw = match (&*state, detour) {
            (State::Here(raw), None) => *raw,
            _ => match self.go_aside(index, detour, entry, who, answer, view, instead) {
                ControlFlow::Continue(raw) => raw,
                ControlFlow::Break(end) => return end,
            },
        };
        let plugin = &self.plugins.list[index];
        let run = || call(plugin.table, plugin.instance, raw, answer);
        match plugin.run(entry, connection, who, run) {
            (Verdict::OK, None) => Ok(Verdict::OK),
            (verdict, left) => self.look_at_answer(index, entry, who, answer, verdict, left),
        }
    }

    /// What there is instead of a simple call, or the state that has turned up for it.
    #[cold]
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "as above")]
    fn go_aside(
        &mut self,
        index: usize,
        detour: Option<Detour>,
        entry: Entry,
        who: &str,
        answer: &mut Answer,
        view: &impl Own,
        instead: impl FnOnce(Detour, &mut Answer) -> Verdict,
    ) -> ControlFlow<Result<Verdict, Failed>, Opaque> {
        ControlFlow::Break(match self.look_aside(index, detour) {
            Aside::Here(raw) => return ControlFlow::Continue(raw),
            Aside::Instead(detour) => Ok(instead(detour, answer)),
            Aside::Pool => match view.own() {
                Some(request) => {
                    let question = Question { entry, who, request };
                    self.offload(index, question, answer, |answer| instead(Detour::Pool, answer))
                }
                None => Ok(Verdict::AWAY), // A delivery waits until the state is back.
            },
            Aside::Failed => Err(Failed), // It was logged when it panicked.
        })
    }

    /// Sees to what is not simple consent.
    #[cold]
    #[inline(never)]
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

/// Makes a method of [`Handlers`] for each callback that has a connection's state.
macro_rules! callbacks {
    ($($(#[$inline:meta])? $name:ident($view:ty): $callback:ident, $instead:expr;)*) => {
        impl Handlers {
            $(
                $(#[$inline])?
                pub(super) fn $name(
                    &mut self,
                    index: usize,
                    who: &str,
                    answer: &mut Answer,
                    view: &$view,
                ) -> Result<Verdict, Failed> {
                    let call = |table: PluginVtRef, instance, state, answer: &mut Answer| {
                        // SAFETY: `enter` passes an instance and a state that it made, both alive; `&mut self` keeps
                        // other threads from the state.
                        unsafe { table.$name()(instance, state, view, answer.sink()) }
                    };
                    let instead: fn(&$view, Detour, &mut Answer) -> Verdict = $instead;
                    self.enter(index, Callback::$callback, who, answer, view, call, |detour, answer| {
                        instead(view, detour, answer)
                    })
                }
            )*
        }
    };
}

callbacks! {
    auth(RawAuth<'_>): Auth, |_, detour, answer| match detour {
        // Not its method: the next plugin is asked, and if it was this one's, nobody lets the client in.
        Detour::Skip => answer.refuse(ReasonCode::BAD_AUTHENTICATION_METHOD),
        Detour::Refuse | Detour::Pool => answer.refuse(REFUSED_IN_PLACE),
    };
    #[inline] publish(RawPublish<'_>): Publish, |_, detour, answer| refuse_in_place(detour, REFUSED_IN_PLACE, answer);
    subscribe(RawSubscribe<'_>): Subscribe, |view, detour, answer| match detour {
        Detour::Skip => Verdict::OK,
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
    #[inline] deliver(RawDeliver<'_>): Deliver, |_, detour, _| match detour {
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
        let ask = |table: PluginVtRef, instance, state, answer: &mut Answer| {
            // SAFETY: as for the callbacks above.
            unsafe { table.connect()(instance, state, view, answer.sink()) }
        };
        let instead = |detour, answer: &mut Answer| refuse_in_place(detour, ReasonCode::SERVER_UNAVAILABLE, answer);
        let outcome = self.enter(index, Callback::Connect, who, answer, view, ask, instead);
        let (peer, listener) = (view.peer.into(), view.listener.as_str());
        let info = ConnectionInfo { connection: view.connection, peer, listener };
        if outcome.is_ok() || !self.begin_again(index, &info) {
            return outcome;
        }
        *answer = Answer::default();
        if !self.plugins.list[index].callbacks.contains(Callback::Connect) {
            return Err(Failed); // It has no opinion: nobody has let the client in.
        }
        self.enter_once(index, Callback::Connect, who, answer, view, ask, instead)
    }
}

/// What clients are told where the host refuses in a plugin's place, and a client is in already.
const REFUSED_IN_PLACE: ReasonCode = ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR;

#[cold]
fn refuse_in_place(detour: Detour, reason_code: ReasonCode, answer: &mut Answer) -> Verdict {
    match detour {
        Detour::Skip => Verdict::OK,
        Detour::Refuse | Detour::Pool => answer.refuse(reason_code),
    }
}
