//! A plugin that is tried: it is asked what another one was asked, and what it asks of the host is taken, and not done.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plugin_api::Callback;
use plugin_api::abi::Verdict;
use serde_json::{Value, json};

use super::super::handlers::State;
use super::super::handover::Exported;
use super::super::instance::Plugin;
use super::super::owned::{OwnedSwapped, Request};
use super::super::request::ConnectionInfo;
use super::super::services::NO_CONNECTION;
use super::super::tickets::{Answered, NO_TICKET};
use super::answer::{Asked, answer_json, no_opinion};
use super::effects;

/// How long an answer is waited for that comes later.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What a candidate has asked for, and answered later.
#[derive(Default)]
pub(crate) struct Captured {
    answers: Mutex<HashMap<u64, Box<Answered>>>,
    changed: Condvar,
    /// The numbers that the other plugin's timers got in the same call.
    timers: Mutex<VecDeque<u64>>,
    /// What it has asked for outside of callbacks.
    outside: AtomicU64,
}

impl Captured {
    /// Where the numbers of timers begin that the other plugin has not set.
    pub(in crate::plugin) const FIRST_TIMER: u64 = 1 << 60;

    /// An answer that has come later.
    pub(in crate::plugin) fn answer(&self, ticket: u64, answered: Box<Answered>) {
        lock(&self.answers).insert(ticket, answered);
        self.changed.notify_all();
    }

    fn wait(&self, ticket: u64) -> Option<Box<Answered>> {
        let deadline = Instant::now() + PATIENCE;
        let mut answers = lock(&self.answers);
        loop {
            if let Some(answered) = answers.remove(&ticket) {
                return Some(answered);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            answers = self.changed.wait_timeout(answers, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The number that the next timer is to have, if the other plugin has set one as well.
    pub(in crate::plugin) fn next_timer(&self) -> Option<u64> {
        lock(&self.timers).pop_front()
    }

    /// Counts what was asked for outside of callbacks.
    pub(in crate::plugin) fn count_outside(&self) {
        self.outside.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn outside(&self) -> u64 {
        self.outside.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Captured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Captured").field("outside", &self.outside).finish_non_exhaustive()
    }
}

/// Nothing of an author's runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What it has answered, and asked for meanwhile.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) answer: Value,
    pub(super) effects: Vec<Value>,
    /// The answer comes later, by this ticket: see [`Candidate::wait`].
    open: Option<(u64, Asked)>,
}

impl Given {
    fn at_once(answer: Value, effects: Vec<Value>) -> Self {
        Self { answer, effects, open: None }
    }
}

/// The plugin, and its states of connections.
pub(super) struct Candidate {
    plugin: Arc<Plugin>,
    captured: Arc<Captured>,
    states: HashMap<u64, State>,
}

impl Candidate {
    /// A plugin that has been initialised with services that [`Captured`] has captured.
    pub(super) fn new(plugin: Arc<Plugin>, captured: Arc<Captured>) -> Self {
        Self { plugin, captured, states: HashMap::new() }
    }

    pub(super) fn captured(&self) -> &Captured {
        &self.captured
    }

    pub(super) fn knows(&self, connection: u64) -> bool {
        self.states.contains_key(&connection)
    }

    /// A connection has begun.
    pub(super) fn begin(&mut self, info: &ConnectionInfo<'_>) {
        if !self.knows(info.connection) {
            let state = self.plugin.new_state(info).unwrap_or(State::NONE);
            self.states.insert(info.connection, state);
        }
    }

    /// A connection goes over to it, as by a swap.
    ///
    /// # Errors
    /// It does not take the state that it is handed; says what would become of the connection.
    pub(super) fn resume(
        &mut self,
        connection: u64,
        swapped: &OwnedSwapped,
        exported: Option<&Exported>,
    ) -> Result<(), &'static str> {
        if self.knows(connection) {
            return Ok(());
        }
        let imports = self.plugin.callbacks().contains(plugin_api::Callback::ImportState);
        let (state, result) = swapped.with(|info, raw| {
            if let Some(exported) = exported.filter(|_| imports) {
                if let Some(state) = self.plugin.import(raw, exported) {
                    return (state, Ok(()));
                }
                if self.plugin.disconnects_on_swap() {
                    return (State::NONE, Err("refused, and the connection ends"));
                }
                return (self.fresh(info, raw), Err("refused, and the connection begins afresh"));
            }
            if self.plugin.disconnects_on_swap() {
                return (State::NONE, Err("the connection ends"));
            }
            (self.fresh(info, raw), Ok(()))
        });
        self.states.insert(connection, state);
        result
    }

    /// A state for a connection that was there before, and is new to it.
    fn fresh(&self, info: &ConnectionInfo<'_>, raw: &plugin_api::abi::RawSwapped<'_>) -> State {
        let Some(mut state) = self.plugin.new_state(info) else { return State::NONE };
        if !self.plugin.swapped(raw, &state) {
            self.plugin.let_state_go(&mut state, raw.client_id.as_str());
        }
        state
    }

    /// Asks or tells it something; the answer may come later. `timers` are the numbers that the other plugin's timers got in
    /// this call.
    pub(super) fn call(&mut self, connection: u64, who: &str, request: &Request, timers: Vec<u64>) -> Given {
        let asked = Asked::from(request);
        if !self.plugin.callbacks().contains(asked.callback) {
            if asked.callback == Callback::Config {
                return Given::at_once(json!({"error": "it has no handle_config"}), Vec::new());
            }
            return Given::at_once(no_opinion(&asked), Vec::new());
        }
        *lock(&self.captured.timers) = timers.into();
        let mut none = State::NONE;
        let state = self.states.get_mut(&connection).unwrap_or(&mut none);
        effects::begin();
        let (verdict, answer) = self.plugin.try_out(connection, who, state, request);
        let effects = effects::end();
        let later = verdict == Verdict::DEFERRED && answer.ticket != NO_TICKET;
        let mut given = Given::at_once(answer_json(&asked, verdict, &answer, true), effects);
        given.open = later.then_some((answer.ticket, asked));
        given
    }

    /// Waits for an answer that comes later.
    pub(super) fn wait(&mut self, connection: u64, who: &str, given: &mut Given) {
        let Some((ticket, asked)) = given.open.take() else { return };
        let come = self.plugin.tickets().wait(ticket, 0, NO_CONNECTION).or_else(|| self.captured.wait(ticket));
        let Some(Answered { verdict, answer }) = come.map(|come| *come) else {
            self.plugin.expire(asked.callback, who, ticket);
            given.answer = json!({ "late": PATIENCE.as_secs() });
            return;
        };
        if matches!(verdict, Verdict::PANICKED | Verdict::POISONED)
            && let Some(state) = self.states.get_mut(&connection)
        {
            self.plugin.let_state_go(state, who);
        }
        given.answer = answer_json(&asked, verdict, &answer, true);
    }

    /// A connection has ended.
    pub(super) fn end(&mut self, connection: u64, who: &str) {
        if let Some(mut state) = self.states.remove(&connection) {
            self.plugin.let_state_go(&mut state, who);
        }
    }

    /// Lets it go, with its threads.
    pub(super) fn stop(mut self) {
        for (_, mut state) in self.states.drain() {
            self.plugin.let_state_go(&mut state, "");
        }
        self.plugin.let_go();
    }
}
