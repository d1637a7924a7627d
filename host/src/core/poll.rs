//! A question to several workers that is answered once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plugin_api::abi::{AnswerKey, Status};

use crate::plugin::{Asker, Pieces};

/// What each worker that was asked has a part of. The answer is given by the worker that knows it, or by the last one; if one
/// of them is lost with the question, its asker is told that.
#[derive(Debug, Clone)]
pub struct Poll(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    asker: Option<Asker>,
    /// Workers that have not said anything yet.
    left: usize,
    /// It is about everybody: none is an answer.
    about_all: bool,
    sum: Reauthorised,
}

/// What became of it that subscriptions were asked about again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reauthorised {
    /// Sessions that it is about.
    pub(super) sessions: u64,
    /// Those of them that are decided later: when their client is back, or a plugin has answered.
    pub(super) later: u64,
    /// Subscriptions that were removed.
    pub(super) removed: u64,
    /// Messages that were taken out of queues.
    pub(super) dropped: u64,
}

impl Poll {
    /// A question to so many workers.
    #[must_use]
    pub fn new(asker: Asker, workers: usize, about_all: bool) -> Self {
        let state = State { asker: Some(asker), left: workers, about_all, sum: Reauthorised::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole after each statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Asker> {
        self.state().asker.take()
    }

    /// The request was not taken: there is no answer.
    pub fn forget(&self) {
        if let Some(mut asker) = self.take() {
            asker.forget();
        }
    }

    /// What the asker is told if the question is lost.
    pub(super) fn unless_answered(&self, why: Status) {
        if let Some(asker) = &mut self.state().asker {
            asker.unless_answered(why);
        }
    }

    /// This worker knows the answer.
    pub(super) fn answer(&self, answer: Result<&Pieces, Status>) {
        // Not under the lock: the plugin's code takes it.
        match (self.take(), answer) {
            (Some(asker), Ok(pieces)) => asker.answer(pieces),
            (Some(asker), Err(why)) => asker.refuse(why),
            (None, _) => {}
        }
    }

    /// What it is about is not at this worker.
    pub(super) fn not_here(&self) {
        self.add(Reauthorised::default());
    }

    /// This worker's part.
    pub(super) fn add(&self, part: Reauthorised) {
        let mut state = self.state();
        state.sum.add(part);
        state.left = state.left.saturating_sub(1);
        let (sum, is_none) = (state.sum, state.sum.sessions == 0 && !state.about_all);
        let asker = if state.left == 0 { state.asker.take() } else { None };
        drop(state);
        match asker {
            Some(asker) if is_none => asker.refuse(Status::NOT_FOUND),
            Some(asker) => {
                let mut pieces = Pieces::default();
                pieces.put(AnswerKey::COUNT, sum.sessions, &[]);
                pieces.put(AnswerKey::IN_FLIGHT, sum.later, &[]);
                pieces.put(AnswerKey::SUBSCRIPTIONS, sum.removed, &[]);
                pieces.put(AnswerKey::QUEUED, sum.dropped, &[]);
                asker.answer(&pieces);
            }
            None => {}
        }
    }
}
