//! The `host` program: a thin shell over the library.

mod activation;
mod bench_command;
mod check;
mod cli;
mod commands;
mod dev_command;
mod log;
mod new_command;
mod notify;
mod reload;
mod replay_command;
mod show;
mod store_command;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use cli::{Config, RunConfig};
use host::control::Control;
use host::durable::store::Progress;
use host::plugin::Recording;
use host::privileges::{gain_nothing, is_root};
use host::upgrade::Successor;
use host::{Builder, Door, Error, Server, ServerHandle};
use reload::Reloading;

/// How long whoever has asked for an upgrade may take to read that it was done.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// Exit code after a second signal: the way shells report a program that a signal has ended.
pub(crate) const EXIT_INTERRUPTED: i32 = 128 + 2;

fn main() -> ExitCode {
    let variables = || std::env::vars_os().collect();
    let outcome = match cli::parse(std::env::args_os(), variables).unwrap_or_else(|usage| usage.exit()) {
        Config::Run(config) => run(*config),
        Config::Check(config) => check::check(&config),
        Config::Store(command) => return store_command::run(&command),
        Config::CheckAll(config, log) => check::check_all(&config, &log),
        Config::PrintDefault => {
            show::print(&host::config::reference::default_file());
            return ExitCode::SUCCESS;
        }
        Config::Command(config) => return commands::run(&config),
        Config::New(config) => return new_command::run(&config),
        Config::Dev(config) => return dev_command::run(&config),
        Config::Bench(config) => return bench_command::run(&config),
        Config::Replay(config) => return replay_command::run(&config),
    };
    log::finish();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done where it cannot be written; the exit code says it too.
            let _ = writeln!(std::io::stderr(), "host: {error}");
            ExitCode::from(if error.is_not_started() { 2 } else { 1 })
        }
    }
}

/// Serves until a signal comes, or the server fails.
fn run(RunConfig { config, file, doubts }: RunConfig) -> Result<(), Error> {
    dev_command::end_with_parent();
    let system = |what| move |source| Error::System { what, source };
    let passed = activation::take()?;
    log::start(&config.log).map_err(system("start a thread for the log"))?;
    let mut successor = Successor::of_this_process()?;
    for doubt in doubts {
        tracing::warn!("{doubt}");
    }
    if config.server.user.is_none() && is_root() {
        tracing::warn!(
            "host runs as root, and so do its plugins: with --user NAME it goes on as another user once it listens"
        );
    }
    let mut builder = builder(&config);
    for socket in passed {
        tracing::info!("a listening socket was passed: {socket}");
        builder = builder.socket(socket);
    }
    if config.server.user.is_some() {
        // What becomes that user has a thread of its own.
        gain_nothing()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(system("start a runtime for signals"))?;
    let outcome = runtime.block_on(async {
        // Before anything starts, so that no signal is missed.
        let mut signals = Signals::catch().map_err(system("wait for signals"))?;
        let hang_up = signal(SignalKind::hangup()).map_err(system("wait for signals"))?;
        let upgrade = signal(SignalKind::user_defined2()).map_err(system("wait for signals"))?;
        let inherited = successor.as_mut().and_then(Successor::control);
        let control = Control::inherit(&config.server.control, inherited)?;
        if let Some(user) = &config.server.user {
            control.give_to(user)?;
        }
        if let Some(successor) = successor {
            builder = builder.succeed(successor);
        }
        let door = Door::default();
        let builder = builder.door(&door);
        let mut starting = tokio::task::spawn_blocking(move || builder.start());
        let (asked, started) = tokio::select! {
            biased;
            name = signals.next() => {
                if door.lock() {
                    // What was kept is as it was, and nobody has been let in: there is nothing to put away.
                    tracing::info!("{name}: leaving before it has started");
                    return Ok(());
                }
                (Some(name), starting.await)
            }
            started = &mut starting => (None, started),
        };
        let server = Arc::new(started.unwrap_or(Err(Error::WorkerFailed))?);
        let reloading = Arc::new(Reloading::new(&server, config, file));
        let served = control.serve_with(&server, Arc::clone(&reloading))?;
        notify::tell(notify::READY);
        tokio::spawn(reload_at(hang_up, Arc::clone(&reloading)));
        tokio::spawn(upgrade_at(upgrade, reloading));
        let stopping = async {
            match asked {
                Some(name) => name,
                None => signals.next().await,
            }
        };
        tokio::select! {
            name = stopping => tracing::info!("{name}: stopping; once more to leave at once"),
            ended = on_thread(&server, ServerHandle::wait) => {
                // Whoever has asked for an upgrade hears that it was done.
                served.finish(ANSWERED_WITHIN);
                return ended;
            }
        }
        notify::tell(notify::STOPPING);
        tokio::select! {
            biased;
            name = signals.next() => {
                tracing::warn!("{name} once more: leaving at once");
                log::finish();
                std::process::exit(EXIT_INTERRUPTED)
            }
            stopped = on_thread(&server, ServerHandle::stop) => stopped,
        }
    });
    // A plugin that does not return from a callback must not keep the program from ending.
    runtime.shutdown_background();
    outcome
}

/// A server as it is asked for.
fn builder(config: &host::config::Config) -> Builder {
    let mut builder = Server::builder().allow_anonymous(config.server.allow_anonymous).limits(config.limits.clone());
    for listener in &config.listeners {
        builder = builder.listener(listener.clone());
    }
    for plugin in &config.plugins {
        builder = builder.plugin(&plugin.path, &plugin.config);
    }
    if let Some(user) = &config.server.user {
        builder = builder.user(user);
    }
    if let Some(path) = &config.server.data_dir {
        // Who has started it is not to give it up for that.
        let tell =
            |progress: &Progress| notify::tell(&format!("EXTEND_TIMEOUT_USEC=30000000\nSTATUS=Loading: {progress}"));
        builder = builder.data_dir(path).durability(config.server.durability).on_progress(tell);
    }
    if let Some(path) = &config.server.record {
        let (secrets, bytes_max) = (config.server.record_secrets, config.server.record_bytes_max);
        builder = builder.record(Recording { path: path.clone(), secrets, bytes_max });
    }
    if let Some(workers) = config.server.workers {
        builder = builder.workers(workers);
    }
    builder
}

/// Waits on another thread, so that signals are still noticed.
async fn on_thread(server: &Arc<ServerHandle>, wait: fn(&ServerHandle) -> Result<(), Error>) -> Result<(), Error> {
    let server = Arc::clone(server);
    tokio::task::spawn_blocking(move || wait(&server)).await.unwrap_or(Err(Error::WorkerFailed))
}

/// Reads the configuration anew whenever the signal comes. What comes meanwhile counts once.
async fn reload_at(mut hang_up: Signal, reloading: Arc<Reloading>) {
    while hang_up.recv().await.is_some() {
        tracing::info!("SIGHUP: reading the configuration anew");
        let reloading = Arc::clone(&reloading);
        // On another thread, as it is the plugins' code that runs. What came of it is in the log, a panic has been printed.
        let _ = tokio::task::spawn_blocking(move || reloading.reload()).await;
    }
}

/// Has another process take the place of this one whenever the signal comes.
async fn upgrade_at(mut signal: Signal, reloading: Arc<Reloading>) {
    while signal.recv().await.is_some() {
        tracing::info!("SIGUSR2: another process is to take the place of this one");
        let reloading = Arc::clone(&reloading);
        let _ = tokio::task::spawn_blocking(move || reloading.upgrade(None)).await;
    }
}

/// SIGINT and SIGTERM.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn catch() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
