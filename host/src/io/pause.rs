//! All workers stop their turns, do what one other thread asks of them, and go on; or let go of what they have.
//!
//! That thread gives an order, and waits until each worker has carried it out. Between two orders a worker does nothing, so
//! that what it has stays as it is, but for [`Order::Settle`], with which it goes on until the next one. It looks for orders
//! between two turns: a relaxed load in each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::fd::BorrowedFd;

/// Takes what a worker tells of some of its clients, with their sockets. Called by several workers at a time.
pub(crate) type Outlet = dyn Fn(Told<'_>) -> std::io::Result<()> + Send + Sync;

/// What a worker tells.
pub(crate) enum Told<'a> {
    /// Messages that images of its clients refer to, which come behind. By the worker's number.
    Bodies(u32, &'a [u8]),
    /// Some of its clients, by the worker's number: of each its Client Identifier, whether a socket comes with it, and its image.
    Clients(u32, &'a [u8], &'a [BorrowedFd<'a>]),
    /// Messages that wait for their moment.
    Timers(&'a [u8]),
}

/// What workers are asked for.
#[derive(Clone)]
pub(crate) enum Order {
    /// To accept and read nothing more, and to do what is left to do, until there is another order. `finally`: what cannot go over
    /// for something that is waited for ends.
    Settle {
        /// Nothing is waited for any more.
        finally: bool,
    },
    /// To do nothing at all until there is another order, and to say once more how far it is.
    Stand,
    /// To tell all that they know.
    Tell(Arc<Outlet>),
    /// To go on as before.
    GoOn,
    /// To forget what they have told, and to go on with the rest.
    LetGo,
}

/// How an order was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// How far it is. There are several of them for an order.
    Settled {
        /// Nothing is left to do, unless somebody sends something.
        is_done: bool,
        /// Something was promised that is not safe yet, or a will that nobody has decided about.
        owes: bool,
        /// How many connections have ended since the first order that could not go over.
        closed: usize,
    },
    /// How many connections were told of, and the number of the next one.
    Told {
        connections: usize,
        next_connection: u64,
    },
    /// Why it could not be carried out.
    Failed(String),
    Done,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Pause {
    is_on: AtomicBool,
    /// Nobody is let in: those who come are another process's, or will be.
    is_shut: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Counts the orders.
    number: u64,
    order: Option<Order>,
    reports: Vec<Option<Report>>,
}

impl std::fmt::Debug for Pause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pause").field("is_on", &self.is_on).finish_non_exhaustive()
    }
}

impl Pause {
    /// Whether there are orders.
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Whether nobody is to be let in, with the order to settle and those behind it until the one to go on.
    pub(super) fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::Relaxed)
    }

    /// Gives an order to so many workers, `wake`s them, and waits for their reports, at the latest until `deadline`. `None`: a
    /// worker has not reported.
    pub(crate) fn ask(
        &self,
        order: Order,
        workers: usize,
        wake: impl FnOnce(),
        deadline: Instant,
    ) -> Option<Vec<Report>> {
        self.ask_until(order, workers, wake, deadline, |_| true).ok()
    }

    /// The same, until the last reports of all workers are as `is_met` wants them.
    ///
    /// # Errors
    /// They are not: what has been reported by then.
    pub(crate) fn ask_until(
        &self,
        order: Order,
        workers: usize,
        wake: impl FnOnce(),
        deadline: Instant,
        mut is_met: impl FnMut(&[Report]) -> bool,
    ) -> Result<Vec<Report>, Vec<Option<Report>>> {
        let is_last = matches!(order, Order::GoOn | Order::LetGo);
        self.is_shut.store(!matches!(order, Order::GoOn), Ordering::Relaxed);
        let mut state = self.state();
        state.number += 1;
        state.order = Some(order);
        state.reports = vec![None; workers];
        self.is_on.store(!is_last, Ordering::Relaxed);
        drop(state);
        self.changed.notify_all();
        wake();
        let mut state = self.state();
        loop {
            // Under the lock: who has said that nothing is left to do says otherwise before it does something.
            if let Some(reports) = state.reports.iter().cloned().collect::<Option<Vec<_>>>().filter(|all| is_met(all)) {
                return Ok(reports);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(state.reports.clone());
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether there is a later order than the one with this number.
    pub(super) fn has_behind(&self, number: u64) -> bool {
        self.state().number > number
    }

    /// Waits for the next order behind the one with this number.
    pub(super) fn next(&self, number: &mut u64) -> Order {
        let mut state = self.state();
        loop {
            if state.number > *number
                && let Some(order) = &state.order
            {
                *number = state.number;
                return order.clone();
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A worker has carried out the order with this number. Nobody waits for that of one that has come too late.
    pub(super) fn report(&self, number: u64, worker: usize, report: Report) {
        let mut state = self.state();
        if state.number == number {
            state.reports[worker] = Some(report);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// What is locked is whole after each statement.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn orders_are_carried_out_by_all_and_one_that_is_late_gets_the_last_one() {
        let pause = Pause::default();
        let settled = |is_done| Report::Settled { is_done, owes: false, closed: 0 };
        let soon = || Instant::now() + Duration::from_secs(20);
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let pause = &pause;
                scope.spawn(move || {
                    let mut number = 0;
                    loop {
                        let order = pause.next(&mut number);
                        let report = match order {
                            Order::Settle { finally } => settled(finally || worker == 0),
                            _ => Report::Done,
                        };
                        pause.report(number, worker, report);
                        if matches!(order, Order::GoOn) {
                            return;
                        }
                    }
                });
            }
            let reports = pause.ask(Order::Settle { finally: false }, 2, || {}, soon());
            assert_eq!(reports, Some(vec![settled(true), settled(false)]));
            assert!(pause.is_on());
            let all_done = |reports: &[Report]| reports.iter().all(|report| *report == settled(true));
            let reports = pause.ask_until(Order::Settle { finally: true }, 2, || {}, soon(), all_done);
            assert_eq!(reports, Ok(vec![settled(true); 2]));
            let soon = Instant::now() + Duration::from_millis(20);
            let reports = pause.ask_until(Order::Settle { finally: true }, 2, || {}, soon, |_| false);
            assert_eq!(reports, Err(vec![Some(settled(true)); 2]));
            assert_eq!(pause.ask(Order::GoOn, 3, || {}, Instant::now() + Duration::from_millis(50)), None);
            assert!(!pause.is_on());
        });
    }
}
