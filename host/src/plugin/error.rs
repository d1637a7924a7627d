//! Why a plugin cannot be used, in words for whoever starts the host.

use std::fmt;
use std::path::PathBuf;

/// Why a plugin was not loaded. Each is one short paragraph: which file, what was found, what was expected, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// There is no such file.
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read, or is not a file.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The system's loader does not take it.
    NotALibrary {
        /// The file.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// It is a library, and not a plugin.
    NoEntrySymbol {
        /// The file.
        path: PathBuf,
    },
    /// It is a plugin for another major version of `plugin-api`, or its header cannot be read.
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// The version that it was built with.
        found: String,
        /// The version of this host.
        expected: String,
    },
    /// A type that crosses the boundary is not what the host expects.
    OtherLayout {
        /// The file.
        path: PathBuf,
        /// Where: type and field.
        place: String,
        /// What the host expects there.
        expected: String,
        /// What the plugin has there.
        found: String,
    },
    /// Its name or version cannot be used.
    BadName {
        /// The file, or the name if it is linked in.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It was built with `panic = "abort"`.
    PanicAbort {
        /// The plugin.
        plugin: String,
    },
    /// It implements `handle_deliver`, and says that another callback may block that can run at the same time.
    BlocksDeliveries {
        /// The plugin.
        plugin: String,
        /// The name of that callback.
        callback: &'static str,
    },
    /// Its configuration is not JSON.
    BadConfig {
        /// The plugin.
        plugin: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// Its configuration does not fit its schema.
    ConfigRefused {
        /// The plugin.
        plugin: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// It was asked for the schema of its configuration, and has none.
    NoSchema {
        /// The plugin.
        plugin: String,
    },
    /// Its `init` returned an error.
    InitRefused {
        /// The plugin.
        plugin: String,
        /// The error's text.
        reason: String,
    },
    /// Its `init` panicked.
    InitPanicked {
        /// The plugin.
        plugin: String,
        /// The panic's text.
        text: String,
        /// Where in the plugin's source; empty if that is not known.
        location: String,
    },
    /// Two plugins of a chain have the same name.
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A chain has too many plugins.
    TooManyPlugins {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { path } => write!(
                f,
                "plugin {}: there is no such file. Give the path of a shared library, for example \
                 target/release/libhello_handler.so after `cargo build --release`.",
                path.display()
            ),
            Self::Unreadable { path, reason } => write!(
                f,
                "plugin {}: it cannot be read: {reason}. Give the path of a shared library that the host may read.",
                path.display()
            ),
            Self::NotALibrary { path, reason } => write!(
                f,
                "plugin {}: it is not a shared library that this system can load: {reason}. Build the plugin with \
                 crate-type = [\"cdylib\"], for this machine's architecture, and make sure that the libraries it needs \
                 are installed.",
                path.display()
            ),
            Self::NoEntrySymbol { path } => write!(
                f,
                "plugin {}: it is a shared library, but not a plugin: it has no entry symbol. Does its source end in \
                 plugin_api::export!(YourHandler); (or, in C, define MQTT_PLUGIN_SYMBOL)?",
                path.display()
            ),
            Self::OtherVersion { path, found, expected } => write!(
                f,
                "plugin {}: it was built with plugin-api {found}, and this host has plugin-api {expected}; the first \
                 number has to be the same. Build the plugin with plugin-api {expected}.",
                path.display()
            ),
            Self::OtherLayout { path, place, expected, found } => write!(
                f,
                "plugin {}: its interface is not this host's: {place}: expected {expected}, found {found}. The plugin \
                 was built with a plugin-api that differs from this host's ({}): build it with that one.",
                path.display(),
                super::loader::api_version()
            ),
            Self::BadName { path, reason } => write!(
                f,
                "plugin {}: {reason}. Logs and commands address a plugin by its name: give it one that people can read.",
                path.display()
            ),
            Self::PanicAbort { plugin } => write!(
                f,
                "plugin {plugin}: it was built with panic = \"abort\", so that one panic in it would end the whole \
                 broker. Remove `panic = \"abort\"` from its Cargo profile (or `-C panic=abort` from RUSTFLAGS) and build \
                 it again."
            ),
            Self::BlocksDeliveries { plugin, callback } => write!(
                f,
                "plugin {plugin}: handle_deliver answers at once, and could not while {callback}, which says that it may \
                 block, has the state of the connection on another thread. Remove #[blocking] from {callback} (it may \
                 answer later with a ticket, or be an async fn), or make two plugins of it."
            ),
            Self::BadConfig { plugin, reason } => write!(
                f,
                "plugin {plugin}: its configuration is not JSON: {reason}. Check the --plugin-config that follows it \
                 (text needs double quotes, and the whole of it quotes of the shell's)."
            ),
            Self::ConfigRefused { plugin, reason } => write!(
                f,
                "plugin {plugin}: {reason}. `host check --schema` with the plugin's file prints what its configuration may have."
            ),
            Self::NoSchema { plugin } => write!(
                f,
                "plugin {plugin}: there is no schema of its configuration. One that is written in Rust has one if its `init` \
                 takes a type (`#[plugin_api::config]`, plugin-api 1.2)."
            ),
            Self::InitRefused { plugin, reason } => {
                write!(f, "plugin {plugin}: it refuses to start: {reason}")
            }
            Self::InitPanicked { plugin, text, location } => {
                write!(f, "plugin {plugin}: it panicked while it was starting: {text}")?;
                if !location.is_empty() {
                    write!(f, " (at {location})")?;
                }
                f.write_str(". This is a fault in the plugin.")
            }
            Self::DuplicateName { name } => write!(
                f,
                "two plugins have the name {name:?}. Commands and the log address a plugin by its name: leave one out, or \
                 give it another name with plugin_api::export!(YourHandler, \"other-name\");."
            ),
            Self::TooManyPlugins { count, max } => {
                write!(f, "there are {count} plugins; one host takes at most {max}. Leave some out.")
            }
        }
    }
}

impl std::error::Error for LoadError {}
