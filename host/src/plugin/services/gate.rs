//! Whether requests from threads of plugins' own are taken. While everything goes over to another process they wait, and who is
//! told that a request was taken can rely on it. Callbacks do not come here: workers stop when these have returned.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use plugin_api::abi::Status;

/// How long a request waits. Its thread may hold something that a callback waits for.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 1_000 });

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

/// Whether requests are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Open,
    /// Not for now.
    Shut,
    /// Another process has taken this one's place.
    Closed,
}

impl Gate {
    /// Has a request made. `FULL`: not now; `NOT_RUNNING`: never again.
    pub(super) fn pass<R>(&self, request: impl FnOnce() -> Result<R, Status>) -> Result<R, Status> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match *state {
                // Under the lock: who shuts the gate finds all that was taken.
                State::Open => return request(),
                State::Closed => return Err(Status::NOT_RUNNING),
                State::Shut => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(Status::FULL);
                    }
                    state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    pub(super) fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_wait_while_it_is_shut_and_are_refused_if_that_lasts() {
        let gate = Gate::default();
        let pass = || gate.pass(|| Ok(7));
        assert_eq!(pass(), Ok(7));
        gate.set(State::Shut);
        assert_eq!(pass(), Err(Status::FULL));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                loop {
                    match pass() {
                        Err(Status::FULL) => {}
                        other => break other,
                    }
                }
            });
            gate.set(State::Open);
            assert_eq!(waiting.join().unwrap(), Ok(7));
        });
        gate.set(State::Closed);
        assert_eq!(pass(), Err(Status::NOT_RUNNING));
    }
}
