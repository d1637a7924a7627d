//! The library's own small runtime, for handlers that have none.

use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::runtime::{Builder, Handle, Runtime};

use super::futures::Futures;
use crate::{Host, Level};

/// Threads that run futures, at most: those that wait need none.
const THREADS_MAX: usize = 2;

/// A runtime that is made when it is first needed. `None` if that failed.
#[derive(Default)]
pub(super) struct OwnRuntime(OnceLock<Option<Started>>);

struct Started {
    handle: Handle,
    runtime: Mutex<Option<Runtime>>,
}

impl OwnRuntime {
    pub(super) fn handle(&self, host: &Host) -> Option<&Handle> {
        let started = self.0.get_or_init(|| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
            let runtime =
                Builder::new_multi_thread().worker_threads(threads).thread_name("plugin-async").enable_all().build();
            match runtime {
                Ok(runtime) => Some(Started { handle: runtime.handle().clone(), runtime: Mutex::new(Some(runtime)) }),
                Err(error) => {
                    host.log(Level::Error, format_args!("there is no runtime for asynchronous callbacks: {error}"));
                    None
                }
            }
        });
        started.as_ref().map(|started| &started.handle)
    }

    /// Drops what still runs on it, without waiting for it: this may be called on any thread, on one of its own too.
    pub(super) fn stop(&self) {
        let runtime = self.0.get().and_then(Option::as_ref);
        let runtime = runtime.and_then(|started| started.runtime.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

/// The first poll of an asynchronous callback, on the host's thread; see [`Handler::first_poll`](crate::Handler::first_poll).
pub struct FirstPoll<'a> {
    futures: &'a Futures,
    poll: &'a mut dyn FnMut(),
}

impl<'a> FirstPoll<'a> {
    pub(super) fn new(futures: &'a Futures, poll: &'a mut dyn FnMut()) -> Self {
        Self { futures, poll }
    }

    /// Polls, in whatever context this is called in.
    pub fn run(self) {
        (self.poll)();
    }

    /// Polls in the context of the library's own runtime, so that what belongs to tokio finds its timers and sockets.
    pub fn run_in_own_runtime(self) {
        let _context = self.futures.runtime().map(Handle::enter);
        (self.poll)();
    }
}

impl fmt::Debug for FirstPoll<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FirstPoll")
    }
}
