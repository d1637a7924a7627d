//! What a plugin sends itself before it decides: in `init`, or on a thread that begins there.

use std::sync::{Mutex, MutexGuard, PoisonError};

use plugin_api::abi::Status;

use super::REQUESTS_MAX;
use crate::core::mail::InfoMail;

/// See the module.
#[derive(Default)]
pub(super) struct Early(Mutex<Kept>);

enum Kept {
    Waiting(Vec<InfoMail>),
    /// It decides, and nothing waits here any more.
    Over,
}

impl Default for Kept {
    fn default() -> Self {
        Self::Waiting(Vec::new())
    }
}

impl Early {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a message, or gives it back where the plugin decides already.
    pub(super) fn keep(&self, info: InfoMail) -> Result<Option<InfoMail>, Status> {
        match &mut *self.kept() {
            Kept::Waiting(waiting) if waiting.len() >= REQUESTS_MAX => Err(Status::FULL),
            Kept::Waiting(waiting) => {
                waiting.push(info);
                Ok(None)
            }
            Kept::Over => Ok(Some(info)),
        }
    }

    /// Forgets the one with this timer, if it waits here.
    pub(super) fn cancel(&self, timer: u64) -> bool {
        match &mut *self.kept() {
            Kept::Waiting(waiting) => waiting.extract_if(.., |info| info.timer == timer).count() != 0,
            Kept::Over => false,
        }
    }

    /// The plugin decides from now on. Returns what has come until then.
    pub(super) fn end(&self) -> Vec<InfoMail> {
        match std::mem::replace(&mut *self.kept(), Kept::Over) {
            Kept::Waiting(waiting) => waiting,
            Kept::Over => Vec::new(),
        }
    }
}
