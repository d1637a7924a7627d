//! What the configuration file may say besides the bounds of [`Limits`](crate::Limits) and the settings of a listener: each
//! key in a table from which come its field, its place in the file, its option, its variable and its row in
//! `host/CONFIG.md`.

use std::path::PathBuf;

use super::log_filter::LogFilter;
use crate::control::Place;
use crate::durable::store::Durability;
use crate::limits::value::Field;
use crate::limits::{Kind, Reload, Setting, Value, Word};

/// Makes a struct, its default and its table of settings. A row is what the key is for, its name, type, default, unit, what
/// it may be, what it means where it is not given, and when another value counts.
macro_rules! keys {
    ($(#[doc = $of:literal])+ $struct:ident, $table:ident, $heading:literal {
        $(
            $(#[doc = $about:literal])+
            $name:ident: $type:ty = $default:expr, $kind:expr, $range:expr, $unset:literal, $reload:ident;
        )+
    }) => {
        $(#[doc = $of])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $struct {
            $($(#[doc = $about])+ pub $name: $type,)+
        }

        impl Default for $struct {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        /// Its keys, in the order of the reference.
        pub static $table: &[Setting<$struct>] = &[$(
            Setting {
                name: stringify!($name),
                heading: $heading,
                about: concat!($($about),+),
                beyond: "",
                kind: $kind,
                range: $range,
                unset: $unset,
                reload: Reload::$reload,
                get: |all| all.$name.get(),
                set: |all, value| all.$name.set(value),
            },
        )+];
    };
}
keys! {
    /// What concerns the server as a whole.
    ServerKeys, SERVER_KEYS, "The server" {
        /// Threads that serve clients.
        workers: Option<usize> = None, Kind::Count, 1..=64, "one per core", Restart;
        /// Where commands (`host reload`, `host swap` and others) reach this host: the path of a socket, or none. Only this
        /// user and root may use it.
        control: Place = Place::Default, Kind::Word(&CONTROL), 0..=0,
            "$XDG_RUNTIME_DIR/host.sock, or /tmp/host-UID/control.sock where there is no such directory", Restart;
        /// The directory where sessions, their messages and retained messages are kept, so that they outlive the server. It is
        /// made if it is not there, and has one server at a time.
        data_dir: Option<PathBuf> = None, Kind::Path, 0..=0, "none: nothing is written, and all ends with the server",
            Restart;
        /// When something is safe, so that a client is told so: buffered: when the operating system has it, and the end
        /// of the server cannot lose it; fsync: when the disk has it, and a power failure cannot; none: at once, as nothing
        /// is written.
        durability: Durability = Durability::Buffered, Kind::Choice(&["none", "buffered", "fsync"]), 0..=2, "", Restart;
        /// Whether everybody may connect, from everywhere, where no plugin decides on connections.
        allow_anonymous: bool = false, Kind::Flag, 0..=1, "", NewConnections;
        /// The user that host goes on as once it listens and has read certificates and keys; for a host that is started as
        /// root. Plugins are loaded as that user, and what is read anew later (certificates, keys, this configuration) has to
        /// be readable for it. Ports below 1024 cannot be opened any more. Sockets at paths are given to it, and to the
        /// first of its groups; their names go at the end where their directory is that user's as well.
        user: Option<String> = None, Kind::Text, 0..=0, "the one that it is started as", Restart;
        /// A file into which all that plugins are asked, and what they answer, is written, for `host replay`. A recording that
        /// is there already is gone on with; another file is refused.
        record: Option<PathBuf> = None, Kind::Path, 0..=0, "none: nothing is recorded", Restart;
        /// Whether passwords, authentication data, exported states, configurations and headers such as
        /// Authorization are recorded as well.
        record_secrets: bool = false, Kind::Flag, 0..=1, "", Restart;
        /// Bytes that the file of a recording may have: then recording ends, and the log says so.
        record_bytes_max: u64 = 1 << 30, Kind::Bytes, 1024..=1 << 50, "", Restart;
    }
}

impl ServerKeys {
    /// What says nothing without another key: the key, and what is wrong.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.durability == Durability::Fsync && self.data_dir.is_none() {
            let what = "durability is fsync, and there is no data_dir: nothing is written, and nothing outlives this host. \
                        Name a directory (data_dir, --data-dir), or leave it out";
            return Err(("durability", what.to_owned()));
        }
        if self.record_secrets && self.record.is_none() {
            let what =
                "record_secrets is true, and nothing is recorded: name a file (record, --record), or leave it out";
            return Err(("record_secrets", what.to_owned()));
        }
        Ok(())
    }
}

keys! {
    /// What is logged, and how. The log goes to stderr.
    LogKeys, LOG_KEYS, "The log" {
        /// What is logged: off, error, warn, info, debug or trace; or a list of targets with their levels, such as
        /// `info,host::plugin=debug`, in which what stands alone is for all others.
        level: LogFilter = LogFilter::default(), Kind::Word(&LOG_LEVEL), 0..=0, "", AtOnce;
        /// One line for people, or one JSON object a line for programs.
        format: LogFormat = LogFormat::Human, Kind::Choice(&["human", "json"]), 0..=1, "", Restart;
    }
}

keys! {
    /// A plugin of the chain.
    PluginKeys, PLUGIN_KEYS, "Plugins" {
        /// The handler: a shared library made with the `plugin-api` crate, or one in C.
        path: Option<PathBuf> = None, Kind::Path, 0..=0, "none: it has to be given", Restart;
        /// Its configuration, which it gets as JSON. At once: by its handle_config, or, where it has none, by a swap.
        config: Option<Json> = None, Kind::Table, 0..=0, "{}", AtOnce;
        /// A file with its configuration as JSON, in the place of `config`.
        config_file: Option<PathBuf> = None, Kind::Path, 0..=0, "none", AtOnce;
        /// Whether it is in the chain.
        enabled: bool = true, Kind::Flag, 0..=1, "", Restart;
    }
}

/// The forms that texts may have.
static CONTROL: Word = Word {
    unit: "path, none",
    placeholder: "PATH|none",
    expected: "a path, or none",
    example: "none",
    check: |text| text.parse::<Place>().map(drop),
};
static LOG_LEVEL: Word = Word {
    unit: "level",
    placeholder: "LEVEL",
    expected: "off, error, warn, info, debug or trace, or a list of targets with their levels, such as \
               info,host::plugin=debug",
    example: "info",
    check: |text| text.parse::<LogFilter>().map(drop),
};

/// JSON, as text. It may contain secrets, and is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(pub String);

impl std::fmt::Debug for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes of JSON", self.0.len())
    }
}

impl Field for Option<Json> {
    fn get(&self) -> Value {
        self.as_ref().map_or(Value::Unset, |json| Value::Text(json.0.clone()))
    }
    fn set(&mut self, value: &Value) {
        *self = match value {
            Value::Text(text) => Some(Json(text.clone())),
            _ => None,
        };
    }
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Field for LogFormat {
    fn get(&self) -> Value {
        Value::Number(u64::from(*self == Self::Json))
    }
    fn set(&mut self, value: &Value) {
        *self = if *value == Value::Number(1) { Self::Json } else { Self::Human };
    }
}

impl Field for Durability {
    fn get(&self) -> Value {
        Value::Number(*self as u64)
    }
    fn set(&mut self, value: &Value) {
        *self = match value {
            Value::Number(0) => Self::None,
            Value::Number(2) => Self::Fsync,
            _ => Self::Buffered,
        };
    }
}

impl Field for LogFilter {
    fn get(&self) -> Value {
        Value::Text(self.as_str().to_owned())
    }
    fn set(&mut self, value: &Value) {
        if let Value::Text(text) = value
            && let Ok(filter) = text.parse()
        {
            *self = filter;
        }
    }
}

impl Field for Place {
    fn get(&self) -> Value {
        match self {
            Self::Default => Value::Unset,
            Self::None => Value::Text("none".to_owned()),
            Self::Path(path) => Value::Text(path.to_string_lossy().into_owned()),
        }
    }
    fn set(&mut self, value: &Value) {
        *self = match value {
            Value::Text(text) => text.parse().unwrap_or_default(),
            _ => Self::Default,
        };
    }
}
