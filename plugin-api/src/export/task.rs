//! A future that waits, and what polls, cancels and drops it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::futures::Futures;
use super::guard::{discard, payload_text};
use super::states::Connection;
use crate::{Deferrable, Error, Ticket};

/// A future in memory that is used again if it was ready at once.
pub(super) type Slot<F> = Pin<Box<Option<F>>>;

/// What is left to do of an asynchronous callback that was not ready at once: a future without output that
/// [`Handler::spawn`](crate::Handler::spawn) gives to a runtime.
///
/// It answers the callback when it has ended, and never panics. Dropping it before refuses at once.
#[must_use = "a task that is dropped refuses"]
pub struct Task {
    job: Arc<dyn Wait>,
    ticket: u64,
    futures: Arc<Futures>,
}

impl Task {
    pub(super) fn new(job: Arc<dyn Wait>, ticket: u64, futures: Arc<Futures>) -> Self {
        Self { job, ticket, futures }
    }

    /// Gives it to the library's own runtime: two threads at most, with timers and whatever else of tokio the plugin is
    /// built with.
    pub fn spawn_on_own_runtime(self) {
        let futures = Arc::clone(&self.futures);
        // Without a runtime it is dropped, and refuses.
        if let Some(runtime) = futures.runtime() {
            drop(runtime.spawn(self));
        }
    }
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let polled = self.job.poll(context);
        if polled.is_ready() {
            self.futures.forget(self.ticket);
        }
        polled
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.futures.forget(self.ticket);
        self.job.abandon();
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

/// A job, whatever its types are.
pub(super) trait Wait: Send + Sync {
    /// Polls the future, and answers if it is ready. Does not panic.
    fn poll(&self, context: &mut Context<'_>) -> Poll<()>;

    /// The host does not wait any more.
    fn cancel(&self);

    /// The runtime has dropped the task: refuses if there is no answer yet.
    fn abandon(&self);
}

/// A future with the ticket that it answers by.
pub(super) struct Job<T, A: Deferrable, F> {
    /// Who may touch the future; every change is one atomic step, so that it is dropped exactly once.
    phase: AtomicU8,
    /// Locked only by whoever `phase` lets, so that nobody ever waits for it.
    parts: Mutex<Parts<A, F>>,
    connection: Arc<Connection<T>>,
}

struct Parts<A: Deferrable, F> {
    future: Option<Slot<F>>,
    ticket: Option<Ticket<A>>,
    waker: Option<Waker>,
}

/// Nobody touches the future: it may be polled or cancelled.
const IDLE: u8 = 0;
/// It is being polled.
const POLLED: u8 = 1;
/// It has ended, or is to be dropped: by whoever polled it, if somebody did.
const ENDED: u8 = 2;

impl<T, A: Deferrable, F> Job<T, A, F> {
    pub(super) fn new(future: Slot<F>, ticket: Ticket<A>, connection: Arc<Connection<T>>) -> Self {
        let parts = Parts { future: Some(future), ticket: Some(ticket), waker: None };
        Self { phase: AtomicU8::new(IDLE), parts: Mutex::new(parts), connection }
    }

    fn parts(&self) -> MutexGuard<'_, Parts<A, F>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes everything out. The lock is released before anything of the author's is dropped.
    fn take(&self) -> Parts<A, F> {
        let mut parts = self.parts();
        Parts { future: parts.future.take(), ticket: parts.ticket.take(), waker: parts.waker.take() }
    }

    /// From `phase` to another one; false if it was not that.
    fn step(&self, from: u8, to: u8) -> bool {
        self.phase.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl<T, A, F> Job<T, A, F>
where
    A: Deferrable,
    F: Future<Output = Result<A, Error>>,
{
    fn poll_future(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut parts = self.parts();
        let Some(future) = parts.future.as_mut().and_then(|future| future.as_mut().as_pin_mut()) else {
            return Poll::Ready(());
        };
        match future.poll(context) {
            Poll::Pending => {
                let before = parts.waker.replace(context.waker().clone());
                drop(parts);
                drop(before);
                Poll::Pending
            }
            Poll::Ready(answer) => {
                drop(parts);
                let Parts { future, ticket, .. } = self.take();
                drop(future); // The state goes home before the answer does.
                if let Some(ticket) = ticket {
                    // If nobody waits any more, the host has refused, and logged it.
                    let _ = ticket.put(answer);
                }
                Poll::Ready(())
            }
        }
    }

    /// The future, or something that it had, has panicked.
    #[cold]
    fn panicked(&self, text: &str) {
        self.connection.poison();
        let Parts { future, ticket, .. } = self.take();
        discard(future);
        if let Some(ticket) = ticket {
            ticket.panicked(text);
        }
    }
}

impl<T, A, F> Wait for Job<T, A, F>
where
    T: Send,
    A: Deferrable,
    F: Future<Output = Result<A, Error>> + Send,
{
    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if !self.step(IDLE, POLLED) {
            return Poll::Ready(());
        }
        match catch_unwind(AssertUnwindSafe(|| self.poll_future(context))) {
            Ok(Poll::Pending) if self.step(POLLED, IDLE) => return Poll::Pending,
            // It was cancelled meanwhile.
            Ok(Poll::Pending) => {
                let Parts { future, ticket, .. } = self.take();
                forget(ticket);
                discard(future);
            }
            Ok(Poll::Ready(())) => self.phase.store(ENDED, Ordering::Release),
            Err(payload) => {
                self.phase.store(ENDED, Ordering::Release);
                self.panicked(payload_text(&*payload));
                discard(payload);
            }
        }
        Poll::Ready(())
    }

    fn cancel(&self) {
        if self.phase.swap(ENDED, Ordering::AcqRel) == IDLE {
            let Parts { future, ticket, waker } = self.take();
            forget(ticket);
            discard(future);
            // So that the runtime drops the task: nothing else would wake it.
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn abandon(&self) {
        if self.phase.swap(ENDED, Ordering::AcqRel) == IDLE {
            let Parts { future, ticket, .. } = self.take();
            discard(future);
            drop(ticket);
        }
    }
}

fn forget<A: Deferrable>(ticket: Option<Ticket<A>>) {
    if let Some(ticket) = ticket {
        ticket.forget();
    }
}
