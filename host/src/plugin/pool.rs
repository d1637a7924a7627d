//! Callbacks that may block: they run on the threads of a pool, so that no worker waits for them.
//!
//! A connection's state that such a callback needs lives in a [`Cell`]: what is to be done with it waits there, in order,
//! and one thread at a time does it. So a connection is served in order, whatever its callbacks take, and an answer that
//! comes too late takes nothing with it but itself. A question has a ticket, as if the plugin had taken one, and its answer
//! goes the way of all that come later.
//!
//! Threads come when there is work and go when there is none. Each plugin has a lane of its own and a bound of threads in
//! it, so that one that blocks them all leaves some to the others.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::handlers::State;
use super::instance::Plugin;
use super::owned::{OwnedInfo, Request};
use super::services;
use super::watch::Watch;
use crate::limits::Limits;

/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(5);

/// What is to be done with a connection's state.
pub(super) enum Job {
    /// Make it.
    New(OwnedInfo),
    /// Ask, and answer by the ticket.
    Ask(u64, Call),
    /// Tell: there is no answer.
    Tell(Call),
    /// Drop it.
    Drop { who: Box<str> },
}

impl Job {
    /// The memory behind it, about.
    fn bytes(&self) -> usize {
        match self {
            Self::Ask(_, call) | Self::Tell(call) => call.request.bytes(),
            Self::New(_) | Self::Drop { .. } => 0,
        }
    }

    /// Whether it has to be done, however much else is to do: whatever has begun has to end.
    fn is_last(&self) -> bool {
        match self {
            Self::Drop { .. } => true,
            Self::Tell(call) => matches!(call.request, Request::Disconnect(_)),
            Self::New(_) | Self::Ask(..) => false,
        }
    }
}

/// A call that is to be made.
pub(super) struct Call {
    pub(super) who: Box<str>,
    pub(super) request: Request,
    /// How far what it publishes is from its origin.
    pub(super) hops: u8,
}

impl Call {
    /// One that belongs to what this thread is doing.
    pub(super) fn new(who: &str, request: Request) -> Self {
        Self { who: who.into(), request, hops: services::hops() }
    }
}

/// A connection's state with a plugin that may block, and what is to be done with it.
pub(super) struct Cell {
    pub(super) plugin: Arc<Plugin>,
    pub(super) connection: u64,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Not a [`State::Pooled`]. None while a thread has it, before it is made, and once it has panicked.
    state: State,
    /// In order. As long as there are any, or a thread has the state, the cell is in its plugin's lane.
    jobs: VecDeque<Job>,
    is_running: bool,
}

/// A thread of the pool has the state, or will have it.
pub(super) struct Busy;

impl Cell {
    /// A cell for a state, which may have to be made first.
    pub(super) fn new(plugin: &Arc<Plugin>, connection: u64, state: State) -> Arc<Self> {
        let inner = Mutex::new(Inner { state, jobs: VecDeque::new(), is_running: false });
        Arc::new(Self { plugin: Arc::clone(plugin), connection, inner })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Takes the state out if nothing is being done with it. `Err`: something is. An empty one has panicked.
    pub(super) fn take_idle(&self) -> Result<State, Busy> {
        let mut inner = self.lock();
        if inner.is_running || !inner.jobs.is_empty() { Err(Busy) } else { Ok(inner.state.take()) }
    }

    /// Whether there is a state, or will be one.
    pub(super) fn is_sound(&self) -> bool {
        let inner = self.lock();
        inner.is_running || !inner.jobs.is_empty() || !inner.state.is_none()
    }

    /// Does what comes next. `true` if there is more.
    fn turn(&self) -> bool {
        let mut inner = self.lock();
        let Some(job) = inner.jobs.pop_front() else {
            return false;
        };
        inner.is_running = true;
        let mut state = inner.state.take();
        drop(inner);
        // A panic of the author's never gets here, and one of ours must not cost the thread.
        let done = catch_unwind(AssertUnwindSafe(|| self.plugin.work(self.connection, &mut state, job)));
        if done.is_err() {
            tracing::error!(plugin = self.plugin.name(), "a thread of the pool panicked, which is a bug of the server");
        }
        let mut inner = self.lock();
        inner.is_running = false;
        inner.state = state;
        let is_more = !inner.jobs.is_empty();
        drop(inner);
        // The state is home before the answer is: who gets the answer may need the state at once.
        if let Ok(Some((ticket, answered))) = done {
            self.plugin.complete(ticket, answered);
        }
        is_more
    }

    /// The bytes of what comes next.
    fn next_bytes(&self) -> usize {
        self.lock().jobs.front().map_or(0, Job::bytes)
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        // Usually the last job has done it; not if the last one who knew it has been dropped without.
        let mut state = self.lock().state.take();
        self.plugin.drop_state(&mut state, "");
    }
}

/// What waits in a lane.
enum Work {
    /// The next job of this connection.
    Turn(Arc<Cell>),
    /// Something to tell that is about no connection's state.
    Notice(Arc<Plugin>, Call),
}

/// One plugin's share of the pool.
#[derive(Default)]
struct Lane {
    queue: VecDeque<Work>,
    /// Jobs of its connections, and notices, that have not begun.
    jobs: usize,
    /// The bytes of what they are about.
    bytes: usize,
    /// Threads that work for it.
    running: usize,
    is_listed: bool,
}

#[derive(Default)]
struct Lanes {
    by_plugin: HashMap<u32, Lane>,
    /// Plugins whose lanes have work and a thread to spare, each once.
    ready: VecDeque<u32>,
    threads: usize,
    /// Those of them that have not got to their first work.
    starting: usize,
    idle: usize,
}

/// The threads for callbacks that may block.
pub(super) struct Pool {
    lanes: Mutex<Lanes>,
    /// There is work, or one piece of it is done.
    work: Condvar,
    done: Condvar,
    threads_max: usize,
    threads_a_plugin_max: usize,
    jobs_max: usize,
    bytes_max: usize,
    watch: Arc<Watch>,
}

/// There is so much to do for a plugin already that no more is taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl Lane {
    /// Takes on one more thing to do, if there is room for it, or has to be. Larger ones than all may have together wait
    /// alone.
    fn take_on(&mut self, bytes: usize, is_last: bool, pool: &Pool) -> Result<(), Full> {
        let is_too_much = bytes != 0 && self.bytes != 0 && self.bytes + bytes > pool.bytes_max;
        let is_full = self.jobs >= pool.jobs_max || is_too_much;
        if is_full && !is_last {
            return Err(Full);
        }
        self.jobs += 1;
        self.bytes += bytes;
        Ok(())
    }
}

impl Pool {
    /// A pool without threads so far. `watch` sees what they do.
    pub(super) fn new(limits: &Limits, watch: Arc<Watch>) -> Arc<Self> {
        Arc::new(Self {
            lanes: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            threads_max: limits.pool_threads_max,
            threads_a_plugin_max: limits.pool_threads_a_plugin_max,
            jobs_max: limits.pool_jobs_max,
            bytes_max: limits.pool_bytes_max,
            watch,
        })
    }

    /// Has something done with a connection's state, after what is to be done with it already.
    pub(super) fn push(self: &Arc<Self>, cell: &Arc<Cell>, job: Job) -> Result<(), Full> {
        let number = cell.plugin.number();
        let mut lanes = lock(&self.lanes);
        let lane = lanes.by_plugin.entry(number).or_default();
        lane.take_on(job.bytes(), job.is_last(), self)?;
        // Both locks, in this order only: the cell is in the lane exactly while it has something to do.
        let mut inner = cell.lock();
        let is_new = inner.jobs.is_empty() && !inner.is_running;
        inner.jobs.push_back(job);
        drop(inner);
        if is_new {
            lane.queue.push_back(Work::Turn(Arc::clone(cell)));
            self.list(lanes, number);
        }
        Ok(())
    }

    /// Tells a plugin something that is about no connection's state.
    pub(super) fn notify(self: &Arc<Self>, plugin: &Arc<Plugin>, call: Call) -> Result<(), Full> {
        let number = plugin.number();
        let mut lanes = lock(&self.lanes);
        let lane = lanes.by_plugin.entry(number).or_default();
        lane.take_on(call.request.bytes(), false, self)?;
        lane.queue.push_back(Work::Notice(Arc::clone(plugin), call));
        self.list(lanes, number);
        Ok(())
    }

    /// Waits until all that has been pushed is done. What does not return is waited for.
    pub(super) fn drain(&self) {
        let mut lanes = lock(&self.lanes);
        while lanes.by_plugin.values().any(|lane| lane.running > 0 || !lane.queue.is_empty()) {
            lanes = self.done.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many threads there are.
    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        lock(&self.lanes).threads
    }

    /// Puts a lane that has got work on the list, and sees to it that somebody does it.
    fn list(self: &Arc<Self>, mut lanes: MutexGuard<'_, Lanes>, number: u32) {
        self.enlist(&mut lanes, number);
        if lanes.idle > 0 {
            self.work.notify_one();
        } else if lanes.ready.len() > lanes.starting && lanes.threads < self.threads_max {
            lanes.threads += 1;
            lanes.starting += 1;
            drop(lanes);
            let pool = Arc::clone(self);
            let spawned = std::thread::Builder::new().name("plugin-pool".to_owned()).spawn(move || pool.run());
            if let Err(error) = spawned {
                let mut lanes = lock(&self.lanes);
                lanes.threads -= 1;
                lanes.starting -= 1;
                tracing::error!(%error, "no thread for plugins that may block: what they are asked waits");
            }
        }
    }

    fn enlist(&self, lanes: &mut Lanes, number: u32) {
        if let Some(lane) = lanes.by_plugin.get_mut(&number)
            && !lane.is_listed
            && !lane.queue.is_empty()
            && lane.running < self.threads_a_plugin_max
        {
            lane.is_listed = true;
            lanes.ready.push_back(number);
        }
    }

    /// What a thread does.
    fn run(self: Arc<Self>) {
        let _seat = self.watch.sit_in_pool();
        let mut lanes = lock(&self.lanes);
        lanes.starting -= 1;
        loop {
            let Some(number) = lanes.ready.pop_front() else {
                lanes.idle += 1;
                let (guard, timeout) = self.work.wait_timeout(lanes, IDLE).unwrap_or_else(PoisonError::into_inner);
                lanes = guard;
                lanes.idle -= 1;
                if timeout.timed_out() && lanes.ready.is_empty() {
                    lanes.threads -= 1;
                    return;
                }
                continue;
            };
            let lane = lanes.by_plugin.entry(number).or_default();
            lane.is_listed = false;
            let Some(work) = lane.queue.pop_front() else { continue };
            lane.jobs -= 1;
            lane.bytes -= match &work {
                Work::Turn(cell) => cell.next_bytes(),
                Work::Notice(_, call) => call.request.bytes(),
            };
            lane.running += 1;
            // If there is more, it may be for another thread.
            self.list(lanes, number);
            let again = match work {
                Work::Turn(cell) => cell.turn().then_some(cell),
                Work::Notice(plugin, call) => {
                    plugin.tell(&call);
                    None
                }
            };
            lanes = lock(&self.lanes);
            let lane = lanes.by_plugin.entry(number).or_default();
            lane.running -= 1;
            lane.queue.extend(again.map(Work::Turn));
            if lane.running == 0 && lane.queue.is_empty() {
                lanes.by_plugin.remove(&number);
            }
            self.enlist(&mut lanes, number);
            self.done.notify_all();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads_max", &self.threads_max).finish_non_exhaustive()
    }
}

/// What is locked here is whole after each statement, so a poisoned lock says nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
