//! A candidate beside what another plugin was asked and has answered: a recording, or a plugin that decides meanwhile.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plugin_api::Callback;
use serde_json::Value;

use super::super::handover::Exported;
use super::super::owned::{OwnedSwapped, Request};
use super::super::request::ConnectionInfo;
use super::answer::{is_challenge, is_same};
use super::candidate::{Candidate, Given};
use super::effects;
use super::json::has_redacted;
use super::report::{Found, Report, Where};

/// Questions whose answers have not come yet. More than tickets that a plugin may have open by default.
const PENDING_MAX: usize = 65_536;

/// What the candidate gets when the other plugin got another configuration.
#[derive(Debug, Clone)]
pub(crate) enum Configs {
    /// The same.
    Same,
    /// These, in order. When there is none any more it keeps the one that it has.
    Own(VecDeque<String>),
}

/// A call of the other plugin.
pub(super) struct Recorded<'a> {
    pub(super) place: Where<'a>,
    pub(super) request: &'a Request,
    /// What the request is in a recording; what is missing there cannot be compared.
    pub(super) input: &'a Value,
    pub(super) answer: &'a Value,
    pub(super) effects: &'a [Value],
    /// How long ago it was.
    pub(super) age: Duration,
}

/// A question whose answer the other plugin gives later.
struct Pending {
    callback: Callback,
    place: Where<'static>,
    is_whole: bool,
    effects: Vec<Value>,
    age: Duration,
    given: Given,
}

/// What has been found is shared, so that it is known even if the candidate does not return.
pub(super) struct Trial {
    candidate: Candidate,
    report: Arc<Mutex<Report>>,
    pending: HashMap<u64, Pending>,
    /// Connections whose calls say nothing any more, as the candidate has not let them in, or could not be asked.
    left_out: HashSet<u64>,
    configs: Configs,
    /// The candidate has the configuration that it is to have, as far as that is known.
    is_configured: bool,
}

impl Trial {
    /// `is_configured`: it has the configuration that the other plugin had, or one that was chosen for it.
    pub(super) fn new(candidate: Candidate, report: Arc<Mutex<Report>>, configs: Configs, is_configured: bool) -> Self {
        let (pending, left_out) = (HashMap::new(), HashSet::new());
        Self { candidate, report, pending, left_out, configs, is_configured }
    }

    pub(super) fn report(&self) -> MutexGuard<'_, Report> {
        // It is whole after each statement.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&mut self, info: &ConnectionInfo<'_>) {
        self.candidate.begin(info);
    }

    /// See [`Candidate::resume`].
    pub(super) fn resume(&mut self, place: &Where<'_>, swapped: &OwnedSwapped, exported: Option<&Exported>) {
        if self.candidate.knows(place.connection) {
            return; // Each change of the plan has connections looked at anew.
        }
        let taken = self.candidate.resume(place.connection, swapped, exported);
        if exported.is_some() || taken.is_err() {
            self.report().import(place, taken);
        }
    }

    /// Asks the candidate the same, and compares.
    pub(super) fn call(&mut self, recorded: &Recorded<'_>) {
        if recorded.request.callback() != Callback::Config {
            return self.ask(recorded);
        }
        let chosen = match &mut self.configs {
            Configs::Own(list) => list.pop_front().map(|config| Request::Config(config.into())),
            Configs::Same if has_redacted(recorded.input) => {
                self.is_configured = false;
                None
            }
            Configs::Same => return self.ask(recorded),
        };
        match chosen {
            // What it was is not compared: it is another one.
            Some(request) => {
                let place = recorded.place.clone();
                self.ask(&Recorded { place, request: &request, input: &Value::Null, ..*recorded });
            }
            None => self.report().keeps_config(),
        }
    }

    fn ask(&mut self, recorded: &Recorded<'_>) {
        let Recorded { place, request, input, answer, effects, age } = recorded;
        let (connection, callback) = (place.connection, request.callback());
        if request.has_state() && !self.candidate.knows(connection) {
            // It was there before, and is not known yet.
            return self.report().count_unknown();
        }
        let timers = effects.iter().filter_map(|effect| effect["send_info"]["timer"].as_u64()).collect();
        self.report().enters(callback, place);
        let mut given = self.candidate.call(connection, place.client, request, timers);
        let later = answer["later"].as_u64();
        // An answer of both that comes later may be waiting for something that the other plugin was asked meanwhile.
        if later.is_none() {
            self.candidate.wait(connection, place.client, &mut given);
        }
        self.report().leaves();
        let is_whole = !has_redacted(input) && !self.left_out.contains(&connection);
        let pending = Pending { callback, place: place.owned(), is_whole, effects: effects.to_vec(), age: *age, given };
        match later {
            Some(ticket) if self.pending.len() < PENDING_MAX => _ = self.pending.insert(ticket, pending),
            Some(_) => self.report().left_out(callback),
            None => self.compare(&pending, answer),
        }
    }

    /// The other plugin's answer that has come later.
    pub(super) fn later(&mut self, ticket: u64, answer: &Value) {
        if let Some(mut pending) = self.pending.remove(&ticket) {
            let Pending { callback, place, given, .. } = &mut pending;
            self.report().enters(*callback, place);
            self.candidate.wait(place.connection, place.client(), given);
            self.report().leaves();
            self.compare(&pending, answer);
        }
    }

    fn compare(&mut self, Pending { callback, place, is_whole, effects, age, given }: &Pending, answer: &Value) {
        let (callback, connection) = (*callback, place.connection);
        let is_known =
            !self.left_out.contains(&connection) && answer.get("away").is_none() && answer.get("late").is_none();
        let same_effects = effects::are_same(effects, &given.effects, *age);
        if is_known && is_same(answer, &given.answer) && same_effects {
            return self.report().same(callback);
        }
        // What the client has answered to the one is no answer to the other.
        let is_other_challenge = is_challenge(answer) && is_challenge(&given.answer);
        if !is_known || !is_whole || !self.is_configured || is_other_challenge {
            self.report().left_out(callback);
        } else {
            self.report().different(Found { callback, place, answer, effects, given });
        }
        if is_known && matches!(callback, Callback::Connect | Callback::Auth) {
            // What follows was asked about a client that the candidate knows nothing of.
            self.left_out.insert(connection);
            self.report().left_out_connection();
        }
    }

    pub(super) fn end(&mut self, connection: u64, who: &str) {
        self.left_out.remove(&connection);
        self.candidate.end(connection, who);
    }

    /// Ends, and lets the candidate go.
    pub(super) fn finish(self) {
        for pending in self.pending.values() {
            self.report().left_out(pending.callback);
        }
        let outside = self.candidate.captured().outside();
        self.report().outside(outside);
        self.candidate.stop();
    }
}
