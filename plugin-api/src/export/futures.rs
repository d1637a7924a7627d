//! Asynchronous callbacks: polled once inside the call. What is not ready then gets a ticket, goes to the handler's
//! runtime as a [`Task`], and answers from there.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;

use super::guard::{panicked, put_text};
use super::runtime::{FirstPoll, OwnRuntime};
use super::states::{Connection, Instance, Lent};
use super::task::{Job, Slot, Task, Wait};
use crate::abi::{RawHost, Sink, Verdict};
use crate::answer::Answer;
use crate::{Callback, Deferrable, Error, Handler, Host, ticket};

/// Bytes of a future whose memory is kept for the next one.
const SPARE_BYTES_MAX: usize = 4096;

/// What the futures of one instance have in common.
pub(super) struct Futures {
    host: RawHost,
    runtime: OwnRuntime,
    /// Those that wait, by their tickets.
    waiting: Mutex<HashMap<u64, Arc<dyn Wait>>>,
}

impl Futures {
    pub(super) fn new(host: RawHost) -> Self {
        Self { host, runtime: OwnRuntime::default(), waiting: Mutex::default() }
    }

    pub(super) fn runtime(&self) -> Option<&Handle> {
        self.runtime.handle(&Host::new(self.host))
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Arc<dyn Wait>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody waits for the answer of this ticket any more: its future is dropped, here, or, if it is being polled, there
    /// when that ends.
    pub(super) fn cancel(&self, ticket: u64) {
        let job = self.waiting().remove(&ticket);
        if let Some(job) = job {
            job.cancel();
        }
    }

    /// The future has ended.
    pub(super) fn forget(&self, ticket: u64) {
        let job = self.waiting().remove(&ticket);
        drop(job); // Not while the lock is held: it may be the last one, with the author's values in it.
    }

    /// The instance ends.
    pub(super) fn end(&self) {
        let jobs = std::mem::take(&mut *self.waiting());
        for job in jobs.into_values() {
            job.cancel();
        }
        self.runtime.stop();
    }
}

/// Starts an asynchronous callback.
pub(super) fn start<H, A, F>(
    instance: &Instance<H>,
    connection: Arc<Connection<H::Connection>>,
    sink: Sink<'_>,
    callback: Callback,
    start: impl FnOnce(Arc<H>, Lent<H::Connection>) -> F,
) -> Verdict
where
    H: Handler,
    A: Deferrable,
    F: Future<Output = Result<A, Error>> + Send + 'static,
{
    let lent = match Lent::new(Arc::clone(&connection)) {
        Ok(lent) => lent,
        Err(verdict) => return verdict,
    };
    let first = || {
        let mut slot = Spare::take(callback);
        slot.set(Some(start(Arc::clone(&instance.handler), lent)));
        match poll_inline(instance, &mut slot) {
            Some(answer) => {
                slot.set(None); // The state goes home before the answer does.
                Spare::keep(callback, slot);
                answer.put(&mut { sink })
            }
            None => defer::<H, A, F>(instance, Arc::clone(&connection), *slot, sink),
        }
    };
    catch_unwind(AssertUnwindSafe(first)).unwrap_or_else(|payload| {
        connection.poison();
        panicked(payload, sink)
    })
}

/// Polls on the host's thread. Nobody is woken: the runtime polls again first thing.
fn poll_inline<H: Handler, F: Future>(instance: &Instance<H>, slot: &mut Slot<F>) -> Option<F::Output> {
    let mut answer = None;
    let mut poll = || {
        let mut context = Context::from_waker(Waker::noop());
        if let Some(Poll::Ready(ready)) = slot.as_mut().as_pin_mut().map(|future| future.poll(&mut context)) {
            answer = Some(ready);
        }
    };
    instance.handler.first_poll(FirstPoll::new(&instance.futures, &mut poll));
    answer
}

/// Takes a ticket and hands the future to the handler's runtime.
fn defer<H, A, F>(
    instance: &Instance<H>,
    connection: Arc<Connection<H::Connection>>,
    future: Slot<F>,
    sink: Sink<'_>,
) -> Verdict
where
    H: Handler,
    A: Deferrable,
    F: Future<Output = Result<A, Error>> + Send + 'static,
{
    let futures = &instance.futures;
    let (ticket, _) = match ticket::take::<A>(futures.host) {
        Ok(taken) => taken,
        Err(error) => {
            drop(future);
            put_text(sink, Verdict::ERROR, &format!("an asynchronous callback cannot wait: {error}"));
            return Verdict::ERROR;
        }
    };
    let number = ticket.number();
    let job = Arc::new(Job::new(future, ticket, connection));
    futures.waiting().insert(number, job.clone());
    instance.handler.spawn(Task::new(job, number, Arc::clone(futures)));
    Verdict::DEFERRED
}

thread_local! {
    /// Memory of futures that were ready at once, for the next call of the same callback.
    static SPARES: RefCell<[Option<Box<dyn Any>>; CALLBACKS]> = const { RefCell::new([const { None }; CALLBACKS]) };
}

/// The callbacks that may be asynchronous have the first numbers.
const CALLBACKS: usize = Callback::Unsubscribe as usize + 1;

struct Spare;

impl Spare {
    fn take<F: 'static>(callback: Callback) -> Box<Slot<F>> {
        let kept = SPARES.try_with(|spares| spares.borrow_mut()[callback as usize].take());
        let slot = kept.ok().flatten().and_then(|kept| kept.downcast::<Slot<F>>().ok());
        slot.unwrap_or_else(|| Box::new(Box::pin(None)))
    }

    /// Keeps the memory of an empty slot.
    fn keep<F: 'static>(callback: Callback, slot: Box<Slot<F>>) {
        if size_of::<F>() <= SPARE_BYTES_MAX {
            // On a thread that ends there is nothing to keep it for.
            let before = SPARES.try_with(|spares| spares.borrow_mut()[callback as usize].replace(slot));
            drop(before);
        }
    }
}
