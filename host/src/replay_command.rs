//! `host replay`: a recording is put to a plugin, and no broker runs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use host::config::LogFilter;
use host::plugin::{Replay, replay};

use crate::cli::config_text;
use crate::{log, show};

/// What was typed.
#[derive(Debug, Args)]
pub(crate) struct LowReplay {
    /// The recording.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The library of the plugin.
    #[arg(long, value_name = "FILE")]
    plugin: PathBuf,
    /// Its configuration, as JSON or as @ and the name of a file that contains JSON. [default: what is recorded, with
    /// --record-secrets; else {}]
    ///
    /// Where the plugin got another one meanwhile (`host configure`), this one stays; or repeat the option, with each of
    /// them in order.
    #[arg(long, value_name = "JSON|@FILE")]
    plugin_config: Vec<String>,
    /// The plugin whose calls it is asked. [default: the one that has the library's own name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
    /// What to log, to stderr, of what the plugin says: off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "off")]
    log: LogFilter,
}

/// What is to be replayed, and how the result is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplayConfig {
    replay: Replay,
    json: bool,
    log: LogFilter,
}

impl LowReplay {
    /// What was typed, with files read.
    pub(crate) fn into_config(self) -> Result<ReplayConfig, clap::Error> {
        let Self { file, plugin, plugin_config, name, json, log } = self;
        let configs = plugin_config.into_iter().map(config_text).collect::<Result<_, _>>()?;
        Ok(ReplayConfig { replay: Replay { file, plugin, configs, name }, json, log })
    }
}

/// Does it, prints the result, and says how it went: 0 if all answers are the same, 1 if not, 2 if there is nothing to compare.
pub(crate) fn run(ReplayConfig { replay: wanted, json, log: level }: &ReplayConfig) -> ExitCode {
    let complain = |error: &dyn std::fmt::Display| {
        show::complain(&format!("host: {error}\n"));
        ExitCode::from(2)
    };
    if let Err(error) = log::start(&log::keys_with(level)) {
        return complain(&format!("cannot start a thread for the log: {error}"));
    }
    let result = replay(wanted);
    log::finish();
    match result {
        Ok(report) if *json => {
            show::print(&format!("{report}\n"));
            ExitCode::from(u8::from(!show::is_same(&report)))
        }
        Ok(report) => {
            show::print(&show::differences(&report));
            ExitCode::from(u8::from(!show::is_same(&report)))
        }
        Err(error) => complain(&error),
    }
}
