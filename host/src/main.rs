//! The `host` program: a thin shell over the library.

mod activation;
mod bench_command;
mod cli;
mod commands;
mod config;
mod log;
mod notify;
mod show;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use cli::{CheckConfig, Config, PluginConfig, RunConfig};
use host::control::Control;
use host::limits::{Limits, SETTINGS};
use host::plugin::{Callback, Chain, Plugin, PluginSet, Services};
use host::privileges::is_root;
use host::{Error, ListenerConfig, Server, ServerHandle};

/// Exit code after a second signal: the way shells report a program that a signal has ended.
const EXIT_INTERRUPTED: i32 = 128 + 2;

fn main() -> ExitCode {
    let outcome = match cli::parse(std::env::args_os()).unwrap_or_else(|usage| usage.exit()) {
        Config::Run(config) => run(config),
        Config::Check(config) => check(&config),
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
fn run(config: RunConfig) -> Result<(), Error> {
    let system = |what| move |source| Error::System { what, source };
    let passed = activation::take()?;
    log::start(&config.log, config.log_format).map_err(system("start a thread for the log"))?;
    let mut builder = Server::builder().allow_anonymous(config.allow_anonymous).limits(config.limits);
    for url in config.listen {
        builder = builder.listener(ListenerConfig::new(url));
    }
    for socket in passed {
        tracing::info!("a listening socket was passed: {socket}");
        builder = builder.socket(socket);
    }
    for plugin in config.plugins {
        builder = builder.plugin(plugin.path, plugin.config);
    }
    if let Some(user) = &config.user {
        builder = builder.user(user);
    } else if is_root() {
        tracing::warn!(
            "host runs as root, and so do its plugins: with --user NAME it goes on as another user once it listens"
        );
    }
    if let Some(workers) = config.workers {
        builder = builder.workers(workers);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(system("start a runtime for signals"))?;
    let outcome = runtime.block_on(async {
        // Before anything starts, so that no signal is missed.
        let mut signals = Signals::catch().map_err(system("wait for signals"))?;
        let hang_up = signal(SignalKind::hangup()).map_err(system("wait for signals"))?;
        let control = Control::bind(&config.control)?;
        let server = Arc::new(builder.start()?);
        let _served = control.serve(&server)?;
        notify::tell(notify::READY);
        tokio::spawn(swap_at(hang_up, Arc::clone(&server)));
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

/// Waits on another thread, so that signals are still noticed.
async fn on_thread(server: &Arc<ServerHandle>, wait: fn(&ServerHandle) -> Result<(), Error>) -> Result<(), Error> {
    let server = Arc::clone(server);
    tokio::task::spawn_blocking(move || wait(&server)).await.unwrap_or(Err(Error::WorkerFailed))
}

/// Swaps the plugins whose files have changed, whenever the signal comes. What comes meanwhile counts once.
async fn swap_at(mut hang_up: Signal, server: Arc<ServerHandle>) {
    while hang_up.recv().await.is_some() {
        let server = Arc::clone(&server);
        // On another thread, as it is the plugins' code that runs. A panic there has been printed.
        let _ = tokio::task::spawn_blocking(move || swap_changed(&server)).await;
    }
}

fn swap_changed(server: &ServerHandle) {
    let swapped = server.swap_changed();
    if swapped.is_empty() {
        tracing::info!("SIGHUP: no plugin's file has changed");
    }
    // What has been swapped is in the log already.
    for error in swapped.into_iter().filter_map(Result::err) {
        tracing::error!(plugin = error.plugin, step = error.step.name(), "SIGHUP: {error}");
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

/// Loads the plugins as a server would, and prints what they are, and what the configuration file says.
fn check(CheckConfig { plugins: configs, file, log }: &CheckConfig) -> Result<(), Error> {
    let no_thread = |source| Error::System { what: "start a thread for the log", source };
    log::start(log, log::LogFormat::Human).map_err(no_thread)?;
    if let Some((file, limits)) = file {
        print_limits(file, limits);
    }
    if configs.is_empty() {
        return Ok(());
    }
    let services = Services::detached();
    let load = |config: &PluginConfig| Plugin::load(&config.path, &config.config, &services);
    let plugins = configs.iter().map(load).collect::<Result<Vec<_>, _>>()?;
    let chain = Chain::new(plugins)?;
    let join = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    for (plugin, config) in chain.plugins().iter().zip(configs) {
        println!("{} {}", plugin.name(), plugin.version());
        println!("  file        {}", config.path.display());
        println!("  config      {}", config.source);
        println!("  plugin-api  {}", plugin.api_version());
        println!("  callbacks   {}", join(plugin.callbacks().iter().map(Callback::name).collect()));
        let pooled: Vec<_> = plugin.callbacks().iter().filter(|callback| plugin.is_pooled(*callback)).collect();
        if !pooled.is_empty() {
            println!("  may block   {}", join(pooled.into_iter().map(Callback::name).collect()));
        }
    }
    println!("chain: {}", chain.plugins().iter().map(|plugin| plugin.name()).collect::<Vec<_>>().join(" -> "));
    println!("decides on connections: {}", if chain.decides_on_connections(PluginSet::ALL) { "yes" } else { "no" });
    chain.stop();
    Ok(())
}

/// Prints the bounds that a configuration file changes.
fn print_limits(file: &Path, limits: &Limits) {
    println!("{}", file.display());
    if *limits == Limits::default() {
        println!("  changes nothing");
    }
    for setting in SETTINGS {
        let (value, default) = (setting.show(limits), setting.show(&Limits::default()));
        if value != default {
            println!("  {} = {value} (default {})", setting.name, if default.is_empty() { "none" } else { &default });
        }
    }
}
