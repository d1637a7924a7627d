//! Listeners for QUIC: the one bidirectional stream of a connection is its Network Connection (ALPN `mqtt`).
//!
//! QUIC needs a clock and packets of its own, so all of it is on one thread, with a runtime that nobody else has. What a
//! client's stream brings goes through a pair of sockets: the worker sees an ordinary descriptor, as of any other connection,
//! and knows nothing of QUIC. Workers are not held up by handshakes; of these there are at most
//! [`handshakes_max`](crate::Limits::handshakes_max), each within [`handshake_timeout`](crate::Limits::handshake_timeout).
//!
//! All clients of a listener come by one socket, so that it stays open until the last of them has gone, also where the
//! listener is not there any more. While another process is to have the sockets, nothing is taken from them ([`gate`]).

mod door;
mod gate;
mod pump;
mod tls;

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quinn::VarInt;
use tokio::sync::oneshot;
use tokio::task;

use self::door::Door;
use super::anteroom::{LEAST_STAY_MS, Place, Places};
use super::listener::Listener;
use super::worker::{Workers, stop_all};
use crate::clock::Clock;
use crate::core::{Counters, Shared};

/// Time that connections have to end after the workers have begun to stop.
const STOP_TIME: Duration = Duration::from_secs(4);

/// Time until it is tried again to take clients by a socket, where that has failed.
const AGAIN_TIME: Duration = Duration::from_secs(1);

/// The codes with which connections are closed: nothing is wrong, or it is not used as MQTT uses it.
const NO_ERROR: VarInt = VarInt::from_u32(0);
const NO_STREAM: VarInt = VarInt::from_u32(1);

/// What the thread is made of.
pub(crate) struct Seed {
    /// Its name.
    pub(crate) name: String,
    pub(crate) workers: Arc<Workers>,
    /// For those who come by QUIC only, so that they take nobody else's.
    pub(crate) places: Arc<Places>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Clock,
    /// Called on the thread when it has ended.
    pub(crate) on_end: Box<dyn Fn() + Send>,
}

/// Starts the thread. The result says whether it ended with the workers (`true`) or failed.
pub(crate) fn start(seed: Seed) -> io::Result<JoinHandle<bool>> {
    // What can fail is made here, so that it fails before anything has started.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Seed { name, workers, places, shared, clock, on_end } = seed;
    let hall = Arc::new(Hall { workers, places, shared, clock, by_arrival: Mutex::default() });
    std::thread::Builder::new().name(name).spawn(move || {
        let run = || runtime.block_on(run(&hall));
        let outcome = catch_unwind(AssertUnwindSafe(run));
        if outcome.is_err() {
            // The panic itself was printed by the panic hook.
            tracing::error!("the thread for QUIC has panicked, which is a bug of the server; the server stops");
            stop_all(&hall.shared.mailboxes);
        }
        on_end();
        outcome.is_ok()
    })
}

/// Takes connections by the listeners that there are, until the workers stop; and then waits for those that are left to end.
async fn run(hall: &Arc<Hall>) {
    let mut standing = Vec::new();
    let (mut listeners, mut epoch) = (Vec::new(), 0);
    while !hall.workers.is_stopping() {
        if let Some(others) = hall.workers.new_listeners(&mut epoch, Listener::is_quic) {
            listeners = others;
        }
        let are_open = exchange(&mut standing, &listeners, hall);
        if hall.workers.pause().is_shut() {
            hall.turn_out_all();
        }
        standing.iter().for_each(|one| one.door.look_again());
        // It rings for each of these: also when a door has ended.
        let rung = hall.workers.quic_bell().notified();
        let _ = tokio::time::timeout(if are_open { Duration::MAX } else { AGAIN_TIME }, rung).await;
    }
    standing.iter().for_each(|one| one.door.close());
    let ended = async {
        for one in standing {
            let _ = one.task.await;
        }
    };
    // Workers close what they have; what is left then has not got as far as to one of them.
    let _ = tokio::time::timeout(STOP_TIME, ended).await;
}

/// A door, and what lets clients in by it.
struct Standing {
    door: Arc<Door>,
    task: task::JoinHandle<()>,
}

/// Has doors for these listeners, and for no other. `false`: one of them cannot be had now.
fn exchange(standing: &mut Vec<Standing>, listeners: &[Listener], hall: &Arc<Hall>) -> bool {
    // It has ended as nobody was left there, or as its socket has failed.
    standing.retain(|one| !one.task.is_finished());
    for one in standing.iter().filter(|one| !listeners.iter().any(|listener| one.door.is_of(listener))) {
        one.door.close();
    }
    let mut are_open = true;
    for listener in listeners {
        let opened = match standing.iter().find(|one| one.door.is_of(listener)) {
            Some(one) => one.door.go_on_with(listener),
            None => Door::new(listener.clone(), Arc::clone(hall)).map(|door| {
                let task = task::spawn(Arc::clone(&door).take_all());
                standing.push(Standing { door, task });
            }),
        };
        if let Err(error) = opened {
            listener.complain(&error, hall.clock.now());
            are_open = false;
        }
    }
    are_open
}

/// What all doors have in common.
struct Hall {
    workers: Arc<Workers>,
    places: Arc<Places>,
    shared: Arc<Shared>,
    clock: Clock,
    /// When each of those has come who had not got through its handshake then, and how it is told to leave; oldest first.
    by_arrival: Mutex<VecDeque<(Instant, oneshot::Sender<()>)>>,
}

impl Hall {
    /// A place for one more, and how it learns that it has to leave.
    fn take_place(&self) -> (Place, oneshot::Receiver<()>) {
        let (leave, left) = oneshot::channel();
        let mut by_arrival = self.by_arrival();
        while by_arrival.front().is_some_and(|(_, leave)| leave.is_closed()) {
            by_arrival.pop_front();
        }
        by_arrival.push_back((Instant::now(), leave));
        (self.places.take(), left)
    }

    /// Tells the one to leave who has been at its handshake for longest, if that is long enough.
    fn turn_out_one(&self) {
        let mut by_arrival = self.by_arrival();
        while let Some((came, leave)) = by_arrival.front() {
            let is_there = !leave.is_closed();
            if is_there && came.elapsed() < Duration::from_millis(LEAST_STAY_MS) {
                return;
            }
            let leave = by_arrival.pop_front().map(|(_, leave)| leave);
            // If it fails, that one has got through at this moment.
            if leave.is_some_and(|leave| leave.send(()).is_ok()) {
                return;
            }
        }
    }

    /// Tells all to leave who have not got through their handshake.
    fn turn_out_all(&self) {
        for (_, leave) in self.by_arrival().drain(..) {
            // If it fails, that one is through.
            let _ = leave.send(());
        }
    }

    fn counters(&self) -> &Counters {
        self.shared.counters_of_quic()
    }

    fn by_arrival(&self) -> MutexGuard<'_, VecDeque<(Instant, oneshot::Sender<()>)>> {
        // It is whole after each statement.
        self.by_arrival.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
