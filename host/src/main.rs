//! The `host` program: a thin shell over the library.

mod activation;
mod bench_command;
mod check;
mod cli;
mod commands;
mod log;
mod notify;
mod reload;
mod show;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use cli::{Config, RunConfig};
use host::control::Control;
use host::privileges::is_root;
use host::{Builder, Error, Server, ServerHandle};
use reload::Reloading;

/// Exit code after a second signal: the way shells report a program that a signal has ended.
const EXIT_INTERRUPTED: i32 = 128 + 2;

fn main() -> ExitCode {
    let variables = || std::env::vars_os().collect();
    let outcome = match cli::parse(std::env::args_os(), variables).unwrap_or_else(|usage| usage.exit()) {
        Config::Run(config) => run(*config),
        Config::Check(config) => check::check(&config),
        Config::CheckAll(config, log) => check::check_all(&config, &log),
        Config::PrintDefault => {
            show::print(&host::config::reference::default_file());
            return ExitCode::SUCCESS;
        }
        Config::Command(config) => return commands::run(&config),
        Config::Bench(config) => return bench_command::run(&config),
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
fn run(RunConfig { config, doubts, .. }: RunConfig) -> Result<(), Error> {
    let system = |what| move |source| Error::System { what, source };
    let passed = activation::take()?;
    log::start(&config.log).map_err(system("start a thread for the log"))?;
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(system("start a runtime for signals"))?;
    let outcome = runtime.block_on(async {
        // Before anything starts, so that no signal is missed.
        let mut signals = Signals::catch().map_err(system("wait for signals"))?;
        let hang_up = signal(SignalKind::hangup()).map_err(system("wait for signals"))?;
        let control = Control::bind(&config.server.control)?;
        let server = Arc::new(builder.start()?);
        let reloading = Arc::new(Reloading::new(&server, config));
        let asked = Arc::clone(&reloading);
        let _served = control.serve_with(&server, move || asked.reload())?;
        notify::tell(notify::READY);
        tokio::spawn(reload_at(hang_up, reloading));
        tokio::select! {
            name = signals.next() => tracing::info!("{name}: stopping; once more to leave at once"),
            failed = on_thread(&server, ServerHandle::wait) => return failed,
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

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
