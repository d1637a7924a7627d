//! `host check` and `host config check`: all as for a server, but nobody is served.

use host::config::{Config, LISTENER_KEYS, LogFilter, PluginConfig};
use host::limits::Setting;
use host::plugin::{Callback, Chain, LoadError, Plugin, PluginSet, Prepared, Services};
use host::privileges::check_user;
use host::{Error, ListenerConfig};

use crate::cli::{CheckConfig, RunConfig};
use crate::{log, show};

/// Prints a line. Who has closed the other end has read enough.
macro_rules! say {
    ($($text:tt)*) => { show::print(&(format!($($text)*) + "\n")) };
}

/// Loads the plugins as a server would, and prints what they are. With a configuration file, looks at all that a server with it
/// and with these plugins would be told.
pub(crate) fn check(CheckConfig { plugins: configs, schema, run, log }: &CheckConfig) -> Result<(), Error> {
    start_log(log)?;
    if *schema {
        return configs.iter().try_for_each(print_schema);
    }
    let Some(run) = run else {
        check_plugins(configs)?.stop();
        return Ok(());
    };
    print_origin(run);
    check_served(&run.config)
}

/// Looks at all that a server would be told, and prints what is not as by default.
pub(crate) fn check_all(run: &RunConfig, log: &LogFilter) -> Result<(), Error> {
    start_log(log)?;
    print_origin(run);
    let config = &run.config;
    for listener in &config.listeners {
        say!("listener {}", listener.name());
        let plain = ListenerConfig::new(listener.url.clone());
        for setting in LISTENER_KEYS.iter().filter(|key| key.name == "url" || key.get(listener) != key.get(&plain)) {
            say!("  {} = {}", setting.name, setting.show(listener));
        }
        for (name, value) in &listener.rules.limits {
            let text = Setting::find(name).map(|setting| setting.kind.print(value)).unwrap_or_default();
            say!("  limits.{name} = {text}");
        }
    }
    check_served(config)?;
    say!("in order");
    Ok(())
}

/// Looks at what a server would need, and prints what its plugins are.
fn check_served(config: &Config) -> Result<(), Error> {
    if let Some(user) = &config.server.user {
        check_user(user)?;
    }
    if let Some(dir) = config.server.data_dir.as_deref().filter(|dir| dir.exists() && !dir.is_dir()) {
        let what =
            format!("the data_dir {} is no directory: name one that is, or that is not there yet", dir.display());
        return Err(Error::Store { what });
    }
    let chain = check_plugins(&config.plugins)?;
    let check = |one: &ListenerConfig| one.check(&config.limits, config.server.allow_anonymous, &chain);
    let checked = config.listeners.iter().try_for_each(check);
    chain.stop();
    checked
}

fn start_log(level: &LogFilter) -> Result<(), Error> {
    let keys = log::keys_with(level);
    log::start(&keys).map_err(|source| Error::System { what: "start a thread for the log", source })
}

/// Prints what the configuration of a plugin may have.
fn print_schema(config: &PluginConfig) -> Result<(), Error> {
    let plugin = Prepared::read(&config.path)?;
    let no_schema = || LoadError::NoSchema { plugin: plugin.name().to_owned() };
    say!("{}", plugin.config_schema().ok_or_else(no_schema)?);
    Ok(())
}

/// Loads plugins, and prints what they are.
fn check_plugins(configs: &[PluginConfig]) -> Result<Chain, Error> {
    if configs.is_empty() {
        return Ok(Chain::default());
    }
    let services = Services::detached();
    let load = |config: &PluginConfig| Plugin::load(&config.path, &config.config, &services);
    let plugins = configs.iter().map(load).collect::<Result<Vec<_>, _>>()?;
    let chain = Chain::new(plugins)?;
    let join = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    for (plugin, config) in chain.plugins().iter().zip(configs) {
        say!("{} {}", plugin.name(), plugin.version());
        say!("  file        {}", config.path.display());
        say!("  config      {}", config.source);
        say!("  plugin-api  {}", plugin.api_version());
        say!("  callbacks   {}", join(plugin.callbacks().iter().map(Callback::name).collect()));
        let pooled: Vec<_> = plugin.callbacks().iter().filter(|callback| plugin.is_pooled(*callback)).collect();
        if !pooled.is_empty() {
            say!("  may block   {}", join(pooled.into_iter().map(Callback::name).collect()));
        }
    }
    say!("chain: {}", chain.plugins().iter().map(|plugin| plugin.name()).collect::<Vec<_>>().join(" -> "));
    say!("decides on connections: {}", if chain.decides_on_connections(PluginSet::ALL) { "yes" } else { "no" });
    for (what, callback) in [("publishing", Callback::Publish), ("subscriptions", Callback::Subscribe)] {
        let decides = if chain.implements(callback) {
            "yes"
        } else if chain.refuses_undecided(callback, PluginSet::ALL.refusing_undecided(true)) {
            "no: allowed to clients of this machine, refused to others (--undecided)"
        } else {
            "no, and everything is allowed"
        };
        say!("decides on {what}: {decides}");
    }
    Ok(chain)
}

/// Prints where a configuration comes from, and what it changes, with its places.
fn print_origin(RunConfig { config, file, doubts }: &RunConfig) {
    for doubt in doubts {
        show::complain(&format!("host: {doubt}\n"));
    }
    match file {
        Some(file) => say!("{}", file.display()),
        None => say!("no file"),
    }
    if config.said.is_empty() {
        say!("  changes nothing");
    }
    for said in &config.said {
        say!("  {} = {} (default {}; {})", said.key, said.value, said.default, said.place);
    }
}
