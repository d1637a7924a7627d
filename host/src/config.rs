//! The configuration of a server: what the file, the environment and the command line say, put together.
//!
//! Each of the three is a [`Layer`]: [`Layer::read`] makes one of a file, [`Layer::of_environment`] one of variables, and the
//! program makes one of its command line. [`Config::of`] puts them together; what comes later counts before what comes
//! earlier. Which keys there are is said in tables: [`SERVER_KEYS`], [`LOG_KEYS`], [`SETTINGS`], [`LISTENER_KEYS`] and
//! [`PLUGIN_KEYS`]. From them come the reference (`host/CONFIG.md`) and what `host config default` prints:
//! [`mod@reference`].

mod environment;
mod file;
mod keys;
mod log_filter;
pub mod reference;
mod toml_value;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::limits::{Limits, SETTINGS, Setting, Value};
use crate::listener::ListenerConfig;

pub use self::environment::is_set;
pub use self::keys::{LOG_KEYS, LogFormat, LogKeys, PLUGIN_KEYS, SERVER_KEYS, ServerKeys};
pub use self::log_filter::LogFilter;
pub use crate::listener::LISTENER_KEYS;

/// What one source says: a file, the environment or the command line.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// Keys that stand at the top of the file.
    pub server: Vec<Given<ServerKeys>>,
    /// Keys of `[log]`.
    pub log: Vec<Given<LogKeys>>,
    /// Keys of `[limits]`.
    pub limits: Vec<Given<Limits>>,
    /// The listeners, if it names some: then they are all that there are.
    pub listeners: Option<Vec<ListenerConfig>>,
    /// The plugins, if it names some: then they are the chain.
    pub plugins: Option<Vec<PluginConfig>>,
}

/// A value, and where it was given.
pub struct Given<T: 'static> {
    /// Of what it is a value.
    pub setting: &'static Setting<T>,
    /// The value.
    pub value: Value,
    /// Where it was given: `host.toml:3`, `HOST_WORKERS` or `--workers`.
    pub place: String,
}

/// What [`PluginConfig::source`] begins with where the configuration comes from a file that was named.
pub const FROM_FILE: &str = "from the file ";

/// A plugin and the text of its configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct PluginConfig {
    /// The library.
    pub path: PathBuf,
    /// Its configuration: JSON. It may contain secrets, and is never shown.
    pub config: String,
    /// Where the configuration comes from, in words.
    pub source: String,
}

/// All that a server is told, valid and complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The server as a whole.
    pub server: ServerKeys,
    /// The log.
    pub log: LogKeys,
    /// The bounds.
    pub limits: Limits,
    /// Where it listens; empty for the default.
    pub listeners: Vec<ListenerConfig>,
    /// The chain.
    pub plugins: Vec<PluginConfig>,
    /// What differs from the defaults, in the order of the reference.
    pub said: Vec<Said>,
}

/// A value that is not the default, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The key, with its table: `limits.packet_bytes_max`.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The default; what it means that there is none, in words, where there is none.
    pub default: String,
    /// Where it was given.
    pub place: String,
}

impl Config {
    /// Puts layers together, the least important first.
    ///
    /// # Errors
    /// What does not fit together, with its place.
    pub fn of(layers: &[Layer]) -> Result<Self, String> {
        let mut config = Self::default();
        for layer in layers {
            apply(&layer.server, &mut config.server);
            apply(&layer.log, &mut config.log);
            apply(&layer.limits, &mut config.limits);
            if let Some(listeners) = &layer.listeners {
                config.listeners.clone_from(listeners);
            }
            if let Some(plugins) = &layer.plugins {
                config.plugins.clone_from(plugins);
            }
        }
        config.limits.check().map_err(|error| {
            let limits = layers.iter().flat_map(|layer| &layer.limits);
            at_place(limits, error.name, &error.to_string())
        })?;
        let is_empty_user = |given: &&Given<ServerKeys>| {
            given.setting.name == "user" && given.value.texts().iter().all(String::is_empty)
        };
        if let Some(given) = layers.iter().flat_map(|layer| &layer.server).find(is_empty_user) {
            return Err(format!(
                "{}: user is empty: expected the name of the user to go on as. To go on as the one that host is started as, leave \
                 it out",
                given.place
            ));
        }
        config.server.check().map_err(|(name, what)| {
            let server = layers.iter().flat_map(|layer| &layer.server);
            at_place(server, name, &what)
        })?;
        check_listeners(&config.listeners)?;
        config.said = config.differences(layers);
        Ok(config)
    }

    fn differences(&self, layers: &[Layer]) -> Vec<Said> {
        let mut all = Vec::new();
        differing("", SERVER_KEYS, &self.server, layers.iter().flat_map(|layer| &layer.server), &mut all);
        differing("log.", LOG_KEYS, &self.log, layers.iter().flat_map(|layer| &layer.log), &mut all);
        differing("limits.", SETTINGS, &self.limits, layers.iter().flat_map(|layer| &layer.limits), &mut all);
        all
    }
}

/// What is wrong with a setting, behind where it was given last.
fn at_place<'a, T: 'static>(given: impl Iterator<Item = &'a Given<T>>, name: &str, what: &str) -> String {
    match given.filter(|given| given.setting.name == name).last() {
        Some(given) => format!("{}: {what}", given.place),
        None => what.to_owned(),
    }
}

fn apply<T>(given: &[Given<T>], all: &mut T) {
    for Given { setting, value, .. } in given {
        setting.apply(all, value);
    }
}

fn differing<'a, T: Default>(
    table: &str,
    settings: &'static [Setting<T>],
    all: &T,
    given: impl Iterator<Item = &'a Given<T>> + Clone,
    said: &mut Vec<Said>,
) {
    for setting in settings.iter().filter(|setting| setting.get(all) != setting.get(&T::default())) {
        let place = given.clone().filter(|given| given.setting.name == setting.name).last();
        said.push(Said {
            key: format!("{table}{}", setting.name),
            value: setting.show(all),
            default: default_text(setting, &T::default()),
            place: place.map(|given| given.place.clone()).unwrap_or_default(),
        });
    }
}

/// The default, as text; where there is none, what that means.
fn default_text<T>(setting: &Setting<T>, defaults: &T) -> String {
    let shown = setting.show(defaults);
    if shown.is_empty() { setting.unset.to_owned() } else { shown }
}

/// Two listeners at one place cannot both be had, and of two with one name nobody would know which is meant.
fn check_listeners(listeners: &[ListenerConfig]) -> Result<(), String> {
    for (number, listener) in listeners.iter().enumerate() {
        let before = &listeners[..number];
        if let Some(other) = before.iter().find(|other| other.is_in_the_way_of(listener)) {
            if other.url.place == listener.url.place {
                return Err(format!("two listeners are at {}: give each a place of its own", listener.url));
            }
            return Err(format!(
                "two listeners cannot be at {} and {} at once: one has the place of the other. Give each a place of its own, or \
                 leave one out",
                other.url, listener.url
            ));
        }
        // Two whose port is not known yet may both go without a name.
        let has_name = |other: &&ListenerConfig| listener.name.is_some() || other.name.is_some();
        if before.iter().filter(has_name).any(|other| other.name() == listener.name()) {
            return Err(format!("two listeners are called {:?}: give each a name of its own", listener.name()));
        }
    }
    Ok(())
}

impl<T> Clone for Given<T> {
    fn clone(&self) -> Self {
        Self { setting: self.setting, value: self.value.clone(), place: self.place.clone() }
    }
}

impl<T> fmt::Debug for Given<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value may be the configuration of a plugin, with secrets in it.
        write!(f, "{} ({})", self.setting.name, self.place)
    }
}

impl PluginConfig {
    /// The file that its configuration was read from, if it was typed or stood in a variable as `@` and the name of one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.source.strip_prefix(FROM_FILE).map(Path::new)
    }
}

impl fmt::Debug for PluginConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginConfig").field("path", &self.path).field("source", &self.source).finish_non_exhaustive()
    }
}

/// The name that was most probably meant, if one is alike.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>, alike: f64) -> Option<&'a str> {
    let known = known.into_iter().map(|other| (strsim::jaro_winkler(name, other), other));
    known.filter(|(found, _)| *found >= alike).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, other)| other)
}

/// The name of the option of a key, without the two hyphens before it, if it has one. The variable of the environment is
/// `HOST_`, and the same in capitals with `_`.
#[must_use]
pub fn option_of(heading: &str, name: &str) -> Option<String> {
    match heading {
        "listener" | "plugin" => None,
        "log" if name == "level" => Some("log".to_owned()),
        "log" => Some(format!("log-{name}")),
        _ => Some(name.replace('_', "-")),
    }
}

/// The variable of an option.
fn variable_of(option: &str) -> String {
    format!("HOST_{}", option.replace('-', "_").to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listeners: &[ListenerConfig]) -> Result<(), String> {
        let both_ways =
            [listeners.to_vec(), listeners.iter().rev().cloned().collect()].map(|all| check_listeners(&all));
        assert_eq!(both_ways[0].is_ok(), both_ways[1].is_ok(), "their order does not count: {both_ways:?}");
        let [one, _] = both_ways;
        one
    }

    fn at(url: &str) -> ListenerConfig {
        ListenerConfig::new(url.parse().unwrap())
    }

    #[test]
    fn name_is_that_of_one_listener() {
        let named = |url, name: &str| ListenerConfig { name: Some(name.to_owned()), ..at(url) };
        for both in [
            [named("127.0.0.1:1", "a"), named("127.0.0.1:2", "a")],
            [named("127.0.0.1:1", "127.0.0.1:2"), at("127.0.0.1:2")],
            [named("127.0.0.1:1", "tls://127.0.0.1:2"), at("tls://127.0.0.1:2")],
        ] {
            let error = check(&both).unwrap_err();
            assert!(error.contains("two listeners are called"), "{error}");
        }
        assert_eq!(check(&[named("127.0.0.1:1", "a"), named("127.0.0.1:2", "b")]), Ok(()));
    }
}
