//! Calls of a plugin's code for the operator: on a thread of their own, with a deadline, one at a time for each instance.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::protocol::Refusal;
use crate::plugin::{Callback, Plugin};

/// The calls that have not returned.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    running: Mutex<Vec<Running>>,
    returned: Condvar,
}

/// A call of an instance.
#[derive(Debug)]
struct Running {
    instance: Instance,
    callback: Callback,
    since: Instant,
    /// When it is reported; from then on nobody waits for it.
    deadline: Instant,
}

/// Name and generation.
type Instance = (String, u64);

/// A call that has begun.
#[derive(Debug)]
pub(super) struct Call<T> {
    answer: Receiver<T>,
    plugin: Arc<Plugin>,
    callback: Callback,
}

impl Calls {
    /// Begins a call. Where another one of the same instance has not returned, it is waited for until the `deadline` of
    /// either.
    pub(super) fn begin<T: Send + 'static>(
        self: &Arc<Self>,
        plugin: &Arc<Plugin>,
        callback: Callback,
        deadline: Instant,
        run: impl FnOnce(&Plugin) -> T + Send + 'static,
    ) -> Result<Call<T>, Refusal> {
        let instance = instance_of(plugin);
        self.enter(&instance, callback, deadline)?;
        let (sender, answer) = mpsc::channel();
        let entered = Entered { calls: Arc::clone(self), instance: instance.clone() };
        let called = Arc::clone(plugin);
        let thread = std::thread::Builder::new().name("plugin-call".to_owned()).spawn(move || {
            let answer = run(&called);
            // An instance that has been replaced may be dropped with this.
            drop(called);
            drop(entered);
            // Nobody waits any more if it has come too late.
            let _ = sender.send(answer);
        });
        match thread {
            Ok(_) => Ok(Call { answer, plugin: Arc::clone(plugin), callback }),
            Err(error) => Err(refusal(&instance, "host", format!("{} gets no thread: {error}", callback.name()))),
        }
    }

    fn enter(&self, instance: &Instance, callback: Callback, deadline: Instant) -> Result<(), Refusal> {
        let mut running = self.running();
        while let Some(other) = running.iter().find(|other| other.instance == *instance) {
            let left = deadline.min(other.deadline).saturating_duration_since(Instant::now());
            if left.is_zero() {
                let secs = other.since.elapsed().as_secs();
                let reason = format!(
                    "{} was not called, as {} of generation {} was called {secs} s ago and has not returned. A swap puts \
                     another instance in its place",
                    callback.name(),
                    other.callback.name(),
                    instance.1
                );
                return Err(refusal(instance, "deadline", reason));
            }
            running = self.returned.wait_timeout(running, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        running.push(Running { instance: instance.clone(), callback, since: Instant::now(), deadline });
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        // It is whole after each statement.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An instance's only call; over when this is dropped.
struct Entered {
    calls: Arc<Calls>,
    instance: Instance,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.calls.running().retain(|running| running.instance != self.instance);
        self.calls.returned.notify_all();
    }
}

impl<T> Call<T> {
    /// Waits until it has returned, at the latest at `deadline`. Later it is left to itself.
    pub(super) fn wait(self, deadline: Instant, timeout: Duration) -> Result<T, Refusal> {
        let Self { answer, plugin, callback } = self;
        let (instance, callback_name) = (instance_of(&plugin), callback.name());
        answer.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                let (name, generation) = &instance;
                tracing::error!(plugin = name, generation, callback = callback_name, "a plugin does not return");
                plugin.count_late(callback);
                let secs = timeout.as_secs_f32();
                let reason = format!(
                    "{callback_name} of generation {generation} has not returned within {secs} s. It is left to itself: what \
                     it was asked for may happen yet"
                );
                refusal(&instance, "deadline", reason)
            }
            RecvTimeoutError::Disconnected => {
                refusal(&instance, "host", format!("{callback_name} has ended without an answer"))
            }
        })
    }
}

fn instance_of(plugin: &Plugin) -> Instance {
    (plugin.name().to_owned(), plugin.generation())
}

fn refusal((name, _): &Instance, step: &str, reason: String) -> Refusal {
    Refusal { plugin: Some(name.clone()), ..Refusal::new(step, reason) }
}
