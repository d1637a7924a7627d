//! `host check` and `host config check`: all as for a server, but nobody is served.

use std::io::Write as _;

use host::config::{Config, LISTENER_KEYS, LogFilter, PluginConfig};
use host::limits::Setting;
use host::plugin::{Callback, Chain, LoadError, Plugin, PluginSet, Prepared, Services};
use host::{Error, ListenerConfig};

use crate::cli::{CheckConfig, RunConfig};
use crate::log;

/// Loads the plugins as a server would, and prints what they are, and what the configuration file says.
pub(crate) fn check(CheckConfig { plugins: configs, schema, file, log }: &CheckConfig) -> Result<(), Error> {
    start_log(log)?;
    if *schema {
        return configs.iter().try_for_each(print_schema);
    }
    if let Some((file, config)) = file {
        println!("{}", file.display());
        print_differences(config);
    }
    check_plugins(configs)?.stop();
    Ok(())
}

/// Looks at all that a server would be told, and prints what is not as by default.
pub(crate) fn check_all(RunConfig { config, file, doubts }: &RunConfig, log: &LogFilter) -> Result<(), Error> {
    start_log(log)?;
    for doubt in doubts {
        // Nothing can be done where it cannot be written.
        let _ = writeln!(std::io::stderr(), "host: {doubt}");
    }
    match file {
        Some(file) => println!("{}", file.display()),
        None => println!("no file"),
    }
    print_differences(config);
    for listener in &config.listeners {
        println!("listener {}", listener.name());
        let plain = ListenerConfig::new(listener.url.clone());
        for setting in LISTENER_KEYS.iter().filter(|key| key.name == "url" || key.get(listener) != key.get(&plain)) {
            println!("  {} = {}", setting.name, setting.show(listener));
        }
        for (name, value) in &listener.rules.limits {
            let text = Setting::find(name).map(|setting| setting.kind.print(value)).unwrap_or_default();
            println!("  limits.{name} = {text}");
        }
    }
    let chain = check_plugins(&config.plugins)?;
    let check = |one: &ListenerConfig| one.check(&config.limits, config.server.allow_anonymous, &chain);
    let checked = config.listeners.iter().try_for_each(check);
    chain.stop();
    checked?;
    println!("in order");
    Ok(())
}

fn start_log(level: &LogFilter) -> Result<(), Error> {
    let keys = log::keys_with(level);
    log::start(&keys).map_err(|source| Error::System { what: "start a thread for the log", source })
}

/// Prints what the configuration of a plugin may have.
fn print_schema(config: &PluginConfig) -> Result<(), Error> {
    let plugin = Prepared::read(&config.path)?;
    let no_schema = || LoadError::NoSchema { plugin: plugin.name().to_owned() };
    println!("{}", plugin.config_schema().ok_or_else(no_schema)?);
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
    for (what, callback) in [("publishing", Callback::Publish), ("subscriptions", Callback::Subscribe)] {
        let decides = if chain.implements(callback) {
            "yes"
        } else if chain.refuses_undecided(callback, PluginSet::ALL.refusing_undecided(true)) {
            "no: allowed to clients of this machine, refused to others (--undecided)"
        } else {
            "no, and everything is allowed"
        };
        println!("decides on {what}: {decides}");
    }
    Ok(chain)
}

/// Prints what a configuration changes, with its place.
fn print_differences(config: &Config) {
    if config.said.is_empty() {
        println!("  changes nothing");
    }
    for said in &config.said {
        println!("  {} = {} (default {}; {})", said.key, said.value, said.default, said.place);
    }
}
