//! Whether a server that starts lets clients in, or is left before it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const SHUT: u8 = 0;
const OPEN: u8 = 1;
const LOCKED: u8 = 2;

/// What clients go through when a server has started. Whoever waits for that holds a clone of it, and may have it left instead.
#[derive(Debug, Clone, Default)]
pub struct Door(Arc<AtomicU8>);

impl Door {
    /// Nobody will be let in: the start ends with an error, as soon as it comes to that. `false` if it has come to that before:
    /// then the server is to be stopped.
    #[must_use]
    pub fn lock(&self) -> bool {
        self.turn(LOCKED)
    }

    /// Lets clients in, from now on. `false` if nobody is to be.
    pub(super) fn open(&self) -> bool {
        self.turn(OPEN)
    }

    /// The first one counts.
    fn turn(&self, to: u8) -> bool {
        self.0.compare_exchange(SHUT, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
