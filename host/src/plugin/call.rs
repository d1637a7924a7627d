//! Calling a plugin's functions that have no connection's state, and what surrounds each call.
#![allow(unsafe_code)] // Foreign functions are called here.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use plugin_api::Callback;
use plugin_api::abi::{Opaque, PluginVtRef, RawInfo, RawMessageNotice, RawRetained, RawState, Verdict};

use super::handlers::State;
use super::instance::Plugin;
use super::loader::check_config;
use super::owned::Request;
use super::request::{ConnectionInfo, text};
use super::services::{self, Left, NO_CONNECTION};
use super::stats::Entry;
use super::tickets::NO_TICKET;
use super::watch::{Seat, Watch};
use plugin_api::reading::{Answer, unknown};

/// Why a plugin has not done what the operator has asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unable {
    /// It does not want to, and says why.
    Refused(String),
    /// The callback panicked; with the text.
    Panicked(Callback, String),
    /// Its answer makes no sense.
    Unreadable(Callback, String),
}

impl fmt::Display for Unable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) if text.is_empty() => f.write_str("it refuses, and does not say why"),
            Self::Refused(text) => f.write_str(text),
            Self::Panicked(callback, text) => {
                write!(f, "{} panicked: {text}. This is a fault in the plugin; the log says where", callback.name())
            }
            Self::Unreadable(callback, why) => {
                write!(f, "the answer of {} cannot be used: {why}. This is a fault in the plugin", callback.name())
            }
        }
    }
}

impl Plugin {
    /// Calls `handle_session_expired`.
    pub(super) fn session_expired(self: &Arc<Self>, client_id: &str, state: Option<&RawState<'_>>) {
        let callback = Callback::SessionExpired;
        let later = || Request::session_expired(client_id, state);
        self.notify(client_id, callback, later, || {
            self.call(Entry::of(callback), client_id, |table, instance, answer| {
                // SAFETY: the instance lives as long as this plugin.
                unsafe { table.session_expired()(instance, text(client_id), state, answer.sink()) }
            })
        });
    }

    /// Calls `handle_message_dropped`, `handle_message_acknowledged` or `handle_message_expired`.
    pub(super) fn message_notice(self: &Arc<Self>, callback: Callback, notice: &RawMessageNotice<'_>) {
        let client_id = notice.client_id.as_str();
        let later = || Request::Message(callback, Box::new(notice.into()));
        self.notify(client_id, callback, later, || {
            self.call(Entry::of(callback), client_id, |table, instance, answer| {
                let tell = match callback {
                    Callback::Acknowledged => table.message_acknowledged(),
                    Callback::Expired => table.message_expired(),
                    _ => table.message_dropped(),
                };
                // SAFETY: the instance lives as long as this plugin.
                unsafe { tell(instance, notice, answer.sink()) }
            })
        });
    }

    /// Calls `handle_retained`.
    pub(super) fn retained(self: &Arc<Self>, notice: &RawRetained<'_>) {
        let callback = Callback::Retained;
        let later = || Request::Retained(notice.into());
        self.notify("", callback, later, || {
            self.call(Entry::of(callback), "", |table, instance, answer| {
                // SAFETY: the instance lives as long as this plugin.
                unsafe { table.retained()(instance, notice, answer.sink()) }
            })
        });
    }

    /// Tells it that it is about to be dropped. To be called once.
    pub fn let_go(&self) {
        if self.callbacks.contains(Callback::Stop) {
            self.stop();
        }
    }

    /// Calls `handle_event`.
    pub(super) fn event(self: &Arc<Self>, info: &RawInfo<'_>) {
        let callback = Callback::Event;
        let later = || Request::Event(info.into());
        self.notify("", callback, later, || {
            self.call(Entry::of(callback), "", |table, instance, answer| {
                // SAFETY: the instance lives as long as this plugin.
                unsafe { table.event()(instance, info, answer.sink()) }
            })
        });
    }

    /// Calls `stop`, even in quarantine: there may be threads to end.
    fn stop(&self) {
        self.call(Entry::of(Callback::Stop), "", |table, instance, answer| {
            // SAFETY: the instance lives as long as this plugin.
            unsafe { table.instance_stop()(instance, answer.sink()) }
        });
    }

    /// Calls `handle_config`. Where the plugin takes the configuration, the instance that replaces it gets it as well. Not
    /// for a worker's thread. Who listens hears of it where it is the instance that decides: others get the same.
    pub(crate) fn configure(&self, config: &str, decides: bool) -> Result<(), Unable> {
        check_config(self.table, config).map_err(Unable::Refused)?;
        let listening = if decides { self.listen() } else { None };
        let call = |table: PluginVtRef, instance, answer: &mut Answer| {
            // SAFETY: the instance lives as long as this plugin.
            unsafe { table.config()(instance, text(config), answer.sink()) }
        };
        self.ask(Callback::Config, call, |verdict, answer| {
            if let Some(listening) = listening {
                listening.note(NO_CONNECTION, "", Request::Config(config.into()), verdict, answer, NO_TICKET);
            }
        })?;
        self.set_config(config);
        Ok(())
    }

    /// Calls `health`. Not for a worker's thread.
    pub(crate) fn health(&self) -> Result<String, Unable> {
        let call = |table: PluginVtRef, instance, answer: &mut Answer| {
            // SAFETY: the instance lives as long as this plugin.
            unsafe { table.health()(instance, answer.sink()) }
        };
        self.ask(Callback::Health, call, |_, _| {})
    }

    /// Runs a call that answers with a text or an error, and has no connection's state. `note` sees the answer first.
    fn ask(
        &self,
        callback: Callback,
        call: impl FnOnce(PluginVtRef, Opaque, &mut Answer) -> Verdict,
        note: impl FnOnce(Verdict, &Answer),
    ) -> Result<String, Unable> {
        let (entry, mut answer) = (Entry::of(callback), Answer::default());
        let run = || call(self.table, self.instance, &mut answer);
        let (verdict, panics) = self.run(entry, NO_CONNECTION, "", run);
        note(verdict, &answer);
        let text = answer.text().unwrap_or_default().1;
        match verdict {
            Verdict::OK => {
                self.log_caught(entry, "", panics);
                Ok(text)
            }
            Verdict::ERROR => {
                self.log_caught(entry, "", panics);
                self.count_answer(entry, verdict, &answer);
                Err(Unable::Refused(text))
            }
            Verdict::PANICKED => {
                self.log_panic(entry, "", panics, &answer);
                Err(Unable::Panicked(callback, text))
            }
            other => {
                let why = unknown(other);
                self.log_unreadable(callback, "", &why);
                Err(Unable::Unreadable(callback, why))
            }
        }
    }
    /// It has not answered in time: nobody waits any more.
    pub(super) fn expire(&self, callback: Callback, who: &str, ticket: u64) {
        self.log_late(callback, who);
        self.note_later(NO_CONNECTION, who, ticket, None);
        if self.tickets().cancel(ticket) {
            self.cancelled(ticket);
        }
    }

    /// Tells it that nobody waits for an answer any more.
    pub(super) fn cancelled(&self, ticket: u64) {
        self.call(Entry::CANCELLED, "", |table, instance, answer| {
            // SAFETY: the instance lives as long as this plugin.
            unsafe { table.cancelled()(instance, ticket, answer.sink()) }
        });
    }

    /// Runs a call that has nothing to answer and no connection's state.
    pub(super) fn call(
        &self,
        entry: Entry,
        who: &str,
        call: impl FnOnce(PluginVtRef, Opaque, &mut Answer) -> Verdict,
    ) -> Verdict {
        let mut answer = Answer::default();
        let run = || call(self.table, self.instance, &mut answer);
        let (verdict, panics) = self.run(entry, NO_CONNECTION, who, run);
        if verdict == Verdict::PANICKED {
            self.log_panic(entry, who, panics, &answer);
        } else {
            self.log_caught(entry, who, panics);
        }
        verdict
    }

    /// Makes a call: it is counted, seen by the watchdog, and timed now and then.
    pub(super) fn run<T>(&self, entry: Entry, connection: u64, who: &str, call: impl FnOnce() -> T) -> (T, Left) {
        let seat = Watch::seat();
        let (nth, is_timed) = self.monitor.count_call(seat, entry);
        let begun = is_timed.then(Instant::now);
        let (outcome, touched) = match seat {
            Some(seat) => self.run_counted((seat, nth), entry, connection, who, call),
            None => services::plainly_inside(entry, connection, who, call),
        };
        begun.inspect(|begun| self.monitor.time(entry, begun.elapsed()));
        (outcome, if touched { services::settle() } else { None })
    }

    /// Counts a call that is to be made with `run_counted`. `None`: it is not counted, and has to be made with `run`.
    #[inline]
    pub(super) fn count_plain_call(&self, entry: Entry) -> Option<(&'static Seat, u64)> {
        let seat = Watch::seat()?;
        Some((seat, self.monitor.count_plain_call(seat, entry)?))
    }

    /// Makes a call that is counted already. `true`: it has left something behind, see [`services::settle`].
    #[inline(always)] // See `services::plainly_inside`.
    pub(super) fn run_counted<T>(
        &self,
        (seat, nth): (&Seat, u64),
        entry: Entry,
        connection: u64,
        who: &str,
        call: impl FnOnce() -> T,
    ) -> (T, bool) {
        // Until a client has been let in, it has no Client Identifier, or another one.
        let is_early = entry == Entry::of(Callback::Connect) || connection == NO_CONNECTION;
        let anew = is_early || entry == Entry::NEW_CONNECTION;
        seat.enter(&self.monitor, entry, nth, connection, who, anew);
        let outcome = services::plainly_inside(entry, connection, who, call);
        seat.leave();
        outcome
    }

    /// Makes the state of a connection. `None`: it panicked, which is logged.
    pub(super) fn new_state(&self, info: &ConnectionInfo<'_>) -> Option<State> {
        let (mut answer, raw) = (Answer::default(), info.raw());
        let entry = Entry::NEW_CONNECTION;
        let (new, panics) = self.run(entry, info.connection, "", || {
            // SAFETY: the instance lives as long as the plugin.
            unsafe { self.table.connection_new()(self.instance, &raw, answer.sink()) }
        });
        if new.is_null() {
            self.log_panic(entry, &info.peer.to_string(), panics, &answer);
            return None;
        }
        self.log_caught(entry, "", panics);
        self.note_begin(info);
        Some(State::Here(new))
    }
}
