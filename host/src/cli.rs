//! The command line: what was typed ([`LowArgs`]), and what is valid and complete ([`Config`]).

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::log::{LogFilter, LogFormat};

const LONG_ABOUT: &str = "\
An MQTT broker (3.1, 3.1.1 and 5.0) whose logic is in handlers: shared libraries that decide who may connect, publish \
and subscribe, and what becomes of a message. They are ordinary Rust against the `plugin-api` crate; the broker is not \
rebuilt for them.

Several plugins form a chain in the order of the command line. Each sees what the one before it let through, and the \
first refusal counts. What no plugin has an opinion about is allowed, but for connections from other machines: they need \
a plugin that decides on connections, or --allow-anonymous.";

const EXAMPLES: &str = "\
Examples:
  host
      Serve everybody on this machine, at 127.0.0.1:1883.
  host --plugin target/release/libhello_handler.so
      Ask one handler.
  host --plugin ./libacl.so --plugin-config @acl.json --plugin ./libaudit.so --listen 0.0.0.0:1883
      Two handlers, the first with its configuration from a file; serve other machines.
  host --listen 127.0.0.1:1883 --listen '[::1]:1883' --workers 2 --log debug
      Two listeners, two threads, more to read.
  host check ./libacl.so --plugin-config @acl.json
      Load and validate, print what it is and what it decides, and leave.

Signals:
  SIGINT, SIGTERM   Stop: accept nobody, tell the clients, send what is to be sent (3 s at most), let the plugins
                    end (3 s at most). Once more: leave at once.

Exit codes:
  0   Stopped as asked, or everything checked is in order.
  1   The server failed while it ran.
  2   Not started: the command line, a plugin, its configuration or a listener is at fault. One paragraph says which.";

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "host",
    version,
    about = "An MQTT broker whose logic is in handlers: shared libraries, loaded without rebuilding it",
    long_about = LONG_ABOUT,
    after_long_help = EXAMPLES,
    after_help = "`host --help` says more, with examples.",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    max_term_width = 110
)]
struct LowArgs {
    #[command(subcommand)]
    command: Option<LowCommand>,
    #[command(flatten)]
    run: LowRun,
}

#[derive(Debug, Subcommand)]
enum LowCommand {
    /// Load and validate plugins, print what they are and the order of the chain, and leave.
    ///
    /// Exits with 0 if each of them loads, fits this host and accepts its configuration; with 2 otherwise. A plugin's
    /// `init` and `stop` run, so that its configuration is really checked, but no listener is opened.
    Check(LowCheck),
}

#[derive(Debug, Args)]
struct LowRun {
    /// A handler: a shared library made with the `plugin-api` crate. May be given several times; the order counts.
    #[arg(long, value_name = "PATH")]
    plugin: Vec<PathBuf>,
    /// Configuration of the --plugin before it, as JSON or as @ and the name of a file that contains JSON.
    ///
    /// Without it a plugin gets an empty object, {}.
    #[arg(long, value_name = "JSON|@FILE")]
    plugin_config: Vec<String>,
    /// Address and port to listen on. May be given several times. Port 0 takes a free one, which the log shows.
    ///
    /// 127.0.0.1 and [::1] are reached from this machine only; 0.0.0.0 and [::] from everywhere.
    ///
    /// [default: 127.0.0.1:1883]
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen_address)]
    listen: Vec<SocketAddr>,
    /// Threads that serve clients, from 1 to 64. [default: one per core]
    #[arg(long, value_name = "N", value_parser = worker_count)]
    workers: Option<usize>,
    /// What to log, to stderr: off, error, warn, info, debug or trace.
    ///
    /// Or a list of targets with their levels, such as `info,host::plugin=debug`; what stands alone is for all others.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: LogFilter,
    /// One line for people, or one JSON object a line for programs.
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "human")]
    log_format: LogFormat,
    /// Let everybody connect, from everywhere, where no plugin decides on connections.
    #[arg(long)]
    allow_anonymous: bool,
}

#[derive(Debug, Args)]
struct LowCheck {
    /// The plugins, in the order of the chain.
    #[arg(value_name = "PLUGIN", required = true)]
    plugin: Vec<PathBuf>,
    /// Configuration of the PLUGIN before it, as JSON or as @ and the name of a file that contains JSON.
    #[arg(long, value_name = "JSON|@FILE")]
    plugin_config: Vec<String>,
    /// What to log, to stderr, of what the plugins say: off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: LogFilter,
}

/// What is to be done, valid and complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Config {
    /// Serve.
    Run(RunConfig),
    /// Load, print and leave.
    Check(CheckConfig),
}

/// Plugins to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckConfig {
    pub(crate) plugins: Vec<PluginConfig>,
    pub(crate) log: LogFilter,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunConfig {
    pub(crate) plugins: Vec<PluginConfig>,
    /// Where to listen; empty for the default.
    pub(crate) listen: Vec<SocketAddr>,
    /// Number of workers; `None` for the default.
    pub(crate) workers: Option<usize>,
    pub(crate) log: LogFilter,
    pub(crate) log_format: LogFormat,
    pub(crate) allow_anonymous: bool,
}

/// A plugin and the text of its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PluginConfig {
    pub(crate) path: PathBuf,
    pub(crate) config: String,
}

/// Reads the command line. `--help`, `--version` and errors are printed by [`clap::Error::exit`], which ends the process
/// with 0 or 2.
pub(crate) fn parse(typed: impl IntoIterator<Item = OsString>) -> Result<Config, clap::Error> {
    let matches = LowArgs::command().try_get_matches_from(typed)?;
    let LowArgs { command, run } = LowArgs::from_arg_matches(&matches)?;
    if let Some(LowCommand::Check(check)) = command {
        let matches = matches.subcommand_matches("check").expect("it was parsed as this subcommand");
        let plugins = join_plugins(matches, "PLUGIN", check.plugin, check.plugin_config)?;
        return Ok(Config::Check(CheckConfig { plugins, log: check.log }));
    }
    Ok(Config::Run(RunConfig {
        plugins: join_plugins(&matches, "--plugin", run.plugin, run.plugin_config)?,
        listen: run.listen,
        workers: run.workers,
        log: run.log,
        log_format: run.log_format,
        allow_anonymous: run.allow_anonymous,
    }))
}

/// Gives each configuration to the plugin that stands before it.
fn join_plugins(
    matches: &ArgMatches,
    what: &str,
    paths: Vec<PathBuf>,
    configs: Vec<String>,
) -> Result<Vec<PluginConfig>, clap::Error> {
    let places = |id| matches.indices_of(id).into_iter().flatten();
    let path_places: Vec<usize> = places("plugin").collect();
    let mut texts: Vec<Option<String>> = vec![None; paths.len()];
    for (place, typed) in places("plugin_config").zip(configs) {
        let before = path_places.iter().filter(|path_place| **path_place < place).count();
        let Some(at) = before.checked_sub(1) else {
            return Err(usage(format!(
                "--plugin-config {typed} stands before any plugin, but belongs to the {what} before it: \
                 put it behind its {what}"
            )));
        };
        if texts[at].is_some() {
            return Err(usage(format!(
                "two --plugin-config for {}, but a plugin has one: put both into one JSON object, or the second behind \
                 the {what} that it is for",
                paths[at].display()
            )));
        }
        texts[at] = Some(config_text(typed)?);
    }
    let text = |text: Option<String>| text.unwrap_or_else(|| "{}".to_owned());
    Ok(paths.into_iter().zip(texts).map(|(path, config)| PluginConfig { path, config: text(config) }).collect())
}

/// The text itself, or that of the file whose name follows an `@`.
fn config_text(typed: String) -> Result<String, clap::Error> {
    let Some(file) = typed.strip_prefix('@') else {
        return Ok(typed);
    };
    std::fs::read_to_string(file).map_err(|error| {
        usage(format!(
            "cannot read the plugin configuration {file}: {error}. Expected a file with JSON in UTF-8 behind the @; \
             a relative name starts from the directory that host was started in"
        ))
    })
}

fn usage(message: String) -> clap::Error {
    LowArgs::command().error(ErrorKind::ValueValidation, message)
}

fn listen_address(typed: &str) -> Result<SocketAddr, String> {
    typed.parse().map_err(|_| {
        let hint = match typed.strip_prefix("localhost") {
            Some(port) if port.starts_with(':') => format!(" (for localhost: 127.0.0.1{port} or [::1]{port})"),
            _ => String::new(),
        };
        format!("expected an address and a port, such as 127.0.0.1:1883, 0.0.0.0:1883 or [::1]:1883{hint}")
    })
}

fn worker_count(typed: &str) -> Result<usize, String> {
    let count = typed.parse().ok().filter(|count| host::Server::WORKERS.contains(count));
    count.ok_or_else(|| {
        format!("expected a number from {} to {}", host::Server::WORKERS.start(), host::Server::WORKERS.end())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Config, String> {
        let typed = std::iter::once("host").chain(line.split_whitespace());
        parse(typed.map(OsString::from)).map_err(|error| error.to_string())
    }

    fn plugins(line: &str) -> Vec<(String, String)> {
        let plugins = match parse_line(line).unwrap() {
            Config::Run(run) => run.plugins,
            Config::Check(check) => check.plugins,
        };
        plugins.into_iter().map(|plugin| (plugin.path.display().to_string(), plugin.config)).collect()
    }

    #[test]
    fn definition_is_consistent() {
        LowArgs::command().debug_assert();
    }

    #[test]
    fn nothing_typed_is_a_server_with_defaults() {
        let Config::Run(run) = parse_line("").unwrap() else { panic!("not a server") };
        assert_eq!((run.plugins.len(), run.listen.len(), run.workers), (0, 0, None));
        assert!(!run.allow_anonymous);
    }

    #[test]
    fn configuration_belongs_to_the_plugin_before_it() {
        let both = [("a.so".into(), "{\"x\":1}".into()), ("b.so".into(), "{}".into())];
        assert_eq!(plugins("--plugin a.so --plugin-config {\"x\":1} --plugin b.so"), both);
        assert_eq!(plugins("check a.so --plugin-config {\"x\":1} b.so"), both);
        let second = [("a.so".into(), "{}".into()), ("b.so".into(), "[]".into())];
        assert_eq!(plugins("--plugin=a.so --workers 2 --plugin=b.so --log off --plugin-config=[]"), second);
        assert_eq!(plugins("check a.so b.so --plugin-config []"), second);
    }

    #[test]
    fn mistakes_are_explained() {
        let table = [
            ("--plugin-config {} --plugin a.so", "stands before any plugin"),
            ("check --plugin-config {} a.so", "stands before any plugin"),
            ("--plugin a.so --plugin-config {} --plugin-config []", "two --plugin-config for a.so"),
            ("--plugin a.so --plugin-config @/no/such.json", "cannot read the plugin configuration /no/such.json"),
            ("--listen 1883", "expected an address and a port"),
            ("--listen localhost:1883", "for localhost: 127.0.0.1:1883"),
            ("--workers 0", "expected a number from 1 to 64"),
            ("--workers many", "expected a number from 1 to 64"),
            ("--log loud", "expected off, error, warn, info, debug or trace"),
            ("--log-format xml", "human, json"),
            ("check", "<PLUGIN>"),
            ("--plugin a.so check a.so", "cannot be used with"),
        ];
        for (line, expected) in table {
            let error = parse_line(line).expect_err(line);
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
