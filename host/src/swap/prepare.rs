//! The steps before the flip: copy, load, check, initialise, hand over the state of the plugin as a whole.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, SendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::SwapRequest;
use super::report::{SwapError, SwapStep};
use crate::plugin::{Busy, Chain, Plugin, Prepared, Services};

/// An instance that can take its place, and the one that has it.
pub(super) struct Ready {
    pub(super) index: usize,
    pub(super) running: Arc<Plugin>,
    pub(super) plugin: Arc<Plugin>,
}

/// How far a preparation is: the step, and the plugin once it is known.
type Progress = Mutex<(SwapStep, Option<String>)>;

/// Makes an instance on a thread of its own: what runs there is the authors' code, and who waits for it holds up all
/// swaps, and the end of the server.
pub(super) fn prepare(chain: &Chain, services: &Services, request: &SwapRequest) -> Result<Ready, SwapError> {
    /// How often it is looked whether the server ends meanwhile.
    const LOOK: Duration = Duration::from_millis(50);
    let ending = chain;
    // Who takes it has taken it; otherwise it comes back.
    let (sender, receiver) = mpsc::sync_channel(0);
    let progress = Arc::new(Mutex::new((SwapStep::Copy, request.name.clone())));
    let (chain, services, owned, noted) = (chain.clone(), services.clone(), request.clone(), Arc::clone(&progress));
    let thread = std::thread::Builder::new().name("plugin-load".to_owned()).spawn(move || {
        let ready = load(&chain, &services, &owned, &noted);
        if let Err(SendError(Ok(late))) = sender.send(ready) {
            tracing::warn!(plugin = late.plugin.name(), "a plugin has got ready after its time, and is let go");
            late.plugin.let_go();
        }
    });
    thread.map_err(|error| SwapError::no_thread(request.name.as_deref(), &error))?;
    let deadline = Instant::now() + request.ready_within;
    let ready = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(left.min(LOOK)) {
            Err(RecvTimeoutError::Timeout) if ending.is_closed() => {
                return Err(SwapError::busy(request.name.as_deref(), &Busy::Stopping));
            }
            Err(RecvTimeoutError::Timeout) if left > LOOK => {}
            ready => break ready,
        }
    };
    ready.unwrap_or_else(|error| {
        let (step, plugin) = progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reason = match error {
            RecvTimeoutError::Timeout => format!(
                "{} has not got ready within {} s, and is let go as soon as it returns. What does it wait for in `init`, or \
                 in the functions that hand over its state?",
                plugin.as_deref().map_or("the library".to_owned(), |name| format!("plugin {name}")),
                request.ready_within.as_secs_f32()
            ),
            RecvTimeoutError::Disconnected => "a fault in the host: the log says where it panicked".to_owned(),
        };
        Err(SwapError { step, plugin, reason })
    })
}

/// Loads, checks and initialises, and hands over what the plugin as a whole knows.
fn load(chain: &Chain, services: &Services, request: &SwapRequest, progress: &Progress) -> Result<Ready, SwapError> {
    let note = |step, name: Option<&str>| {
        *progress.lock().unwrap_or_else(PoisonError::into_inner) = (step, name.map(str::to_owned));
    };
    let named = request.name.as_deref();
    let prepared = Prepared::read(&request.path).map_err(|error| SwapError::load(named, &error))?;
    let index = place(chain, named, &prepared, &request.path)?;
    let name = prepared.name().to_owned();
    chain.may_flip(index, &request.flip()).map_err(|busy| SwapError::busy(Some(&name), &busy))?;
    let running = Arc::clone(&chain.plugins()[index]);
    let config = request.config.clone().unwrap_or_else(|| running.config());
    note(SwapStep::Init, Some(&name));
    let plugin = prepared.init(&config, services).map_err(|error| SwapError::load(Some(&name), &error))?;
    note(SwapStep::State, Some(&name));
    let plugin = Arc::new(plugin);
    if let Err(error) = hand_over_state(&running, &plugin) {
        plugin.let_go();
        return Err(error);
    }
    Ok(Ready { index, running, plugin })
}

/// Hands over what the plugin as a whole knows.
fn hand_over_state(from: &Plugin, to: &Plugin) -> Result<(), SwapError> {
    let taken = from.hand_over_all(to);
    taken.map_err(|why| SwapError::new(SwapStep::State, Some(to.name()), format_args!("plugin {}: {why}", to.name())))
}

/// The place in the chain that a library is for.
fn place(chain: &Chain, named: Option<&str>, prepared: &Prepared, path: &Path) -> Result<usize, SwapError> {
    let plugins = chain.plugins();
    let find = |name: &str| plugins.iter().position(|plugin| plugin.name() == name);
    let wanted = named.unwrap_or(prepared.name());
    let error = |reason: String| SwapError::new(SwapStep::Name, Some(wanted), reason);
    let Some(index) = find(wanted) else {
        let names = plugins.iter().map(|plugin| plugin.name()).collect::<Vec<_>>().join(", ");
        if names.is_empty() {
            let reason =
                "this server was started without plugins, and one cannot be added while it runs: start it with one";
            return Err(error(reason.to_owned()));
        }
        return Err(error(format!(
            "no plugin of this server is called {wanted:?} (there are: {names}). The name of the library {} says which \
             plugin it replaces, unless the swap names one (--name)",
            path.display()
        )));
    };
    match find(prepared.name()) {
        Some(other) if other != index => Err(error(format!(
            "the library {} is called {:?}, as another plugin of this server is, and two cannot have one name",
            path.display(),
            prepared.name()
        ))),
        _ => Ok(index),
    }
}
