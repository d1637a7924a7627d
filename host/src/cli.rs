//! The command line: what was typed ([`LowArgs`]), and what is valid and complete ([`Config`]).

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use host::ListenerConfig;
use host::config::{self, FROM_FILE, Given, LOG_KEYS, Layer, LogFilter, PluginConfig, SERVER_KEYS, option_of};
use host::limits::{Kind, SETTINGS, Setting, Value};
use host::listener::ListenerUrl;

use crate::bench_command::{BenchConfig, LowBench};
use crate::commands::{self, CommandConfig, Usage};
use crate::dev_command::{DevConfig, LowDev};
use crate::new_command::NewConfig;
use crate::replay_command::{LowReplay, ReplayConfig};
use crate::store_command::StoreCommand;

const LONG_ABOUT: &str = "\
An MQTT broker (3.1, 3.1.1 and 5.0) whose logic is in handlers: shared libraries that decide who may connect, publish \
and subscribe, and what becomes of a message. They are ordinary Rust against the `plugin-api` crate; the broker is not \
rebuilt for them.

Several plugins form a chain in the order of the command line. Each sees what the one before it let through, and the \
first refusal counts. Connections from other machines need a plugin that decides on connections, or --allow-anonymous. \
Where plugins decide who may connect and on one of publishing and subscribing, the other one is refused at listeners that \
other machines reach (--undecided). All else that no plugin has an opinion about is allowed.";

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
  host --config host.toml --connections-max 5000
      All from a file (`host config default` prints one), but for a bound from the command line, which wins.
  host check ./libacl.so --plugin-config @acl.json --config host.toml
      Load and validate, print what it is and what it decides, and leave.
  host swap --plugin ./libacl.so --canary 10%
      Let the new version decide for a tenth of the connections of the host that runs; then
      host swap --promote, or host swap --rollback.
  host new my-handler && host dev my-handler
      Begin a handler, serve with it, and swap it at each save.
  host bench fan-out --subscribers 1000 --qos 1 --pid $(pidof host)
      Put a load on a broker, check what comes, and say what it took.

Signals:
  SIGINT, SIGTERM   Stop: accept nobody, tell the clients, send what is to be sent (3 s at most),
                    let the plugins end (3 s at most). Once more: leave at once.
  SIGHUP            Read the configuration anew, and swap each plugin whose file has changed, as
                    `host reload` does.
  SIGUSR2           Have a new process take over, with all connections, as `host upgrade` does.

Environment:
  HOST_…            Each option can be given as a variable: HOST_WORKERS=2 is --workers 2. What is on the
                    command line counts before the environment, and that before the file.

Exit codes:
  0   Stopped as asked, or everything checked is in order.
  1   The server failed while it ran; or a command for a running host was refused or failed;
      or a benchmark lost messages.
  2   Not started: the command line, a file, a plugin, its configuration or a listener is at
      fault. One paragraph says which. Or no running host was found for a command.";

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "host",
    version,
    about = "An MQTT broker whose logic is in handlers: shared libraries, loaded without rebuilding it",
    long_about = LONG_ABOUT,
    after_long_help = EXAMPLES,
    after_help = "`host --help` says more, with examples, and has an option for each bound.",
    args_conflicts_with_subcommands = true,
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
    /// Load and validate plugins and a configuration file, and print what they are and say.
    ///
    /// Exits with 0 if each plugin loads, fits this host and accepts its configuration, and with 2 otherwise. With --config all
    /// is looked at as by `host config check`: the file, the environment, certificates and keys, the plugins of the file where
    /// none is named here, and whether somebody decides who may connect. A plugin's `init` and `stop` run, so that its
    /// configuration is really checked, but no listener is opened.
    #[command(override_usage = "host check [OPTIONS] <PLUGIN>...\n       host check [OPTIONS] --config <FILE>")]
    Check(LowCheck),
    /// Look for mistakes in a configuration file, or print one with everything that it may say.
    #[command(subcommand, arg_required_else_help = true)]
    Config(LowConfig),
    /// Put a load on an MQTT broker, this one or any other, and measure it.
    ///
    /// Everything that comes is checked: its number, its order, and that it came once. With --pid, the broker's CPU time and
    /// memory are measured as well. Progress is on stderr, the result on stdout.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Bench(LowBench),
    /// Make a crate for a handler to start from.
    ///
    /// It compiles, and has a test, a CI file and a README.
    New(NewConfig),
    /// Build a handler, serve with it, and swap it whenever one of its sources is saved.
    ///
    /// The crate is built by `cargo build`, and its errors are shown. The host that serves is a process of its own, in which what
    /// was built takes the place of what was there, as by `host swap`: clients stay connected. If it does not compile, or refuses
    /// to start, what serves goes on. A file named with --plugin-config @FILE counts as a source. Handlers that have crashed the
    /// host are tried again at the next save.
    #[command(override_usage = "host dev [--release] [--features <FEATURES>] [DIR] [OPTIONS of the host]...")]
    Dev(LowDev),
    /// Look after what --data-dir has, while no host uses it.
    #[command(subcommand, arg_required_else_help = true)]
    Store(StoreCommand),
    /// Ask a plugin what was recorded with --record, and print where it answers otherwise.
    ///
    /// No broker runs: what the plugin asks of the host is compared, too, and not done. Exits with 0 if all answers are the
    /// same, with 1 if some are not, and with 2 if nothing could be compared.
    Replay(LowReplay),
    #[command(flatten)]
    Running(commands::LowCommand),
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
    /// Where to listen: tcp://, tls://, ws://, wss:// or quic:// with an address and a port, or unix: with a path. May be
    /// given several times.
    ///
    /// An address and a port alone are tcp://. Port 0 takes a free one, which the log shows. 127.0.0.1 and [::1] are reached
    /// from this machine only; 0.0.0.0 and [::] from everywhere.
    ///
    /// [default: tcp://127.0.0.1:1883]
    #[arg(long, value_name = "URL")]
    listen: Vec<ListenerUrl>,
    /// Configuration as TOML: `host config default` prints one with all that it may say.
    ///
    /// What is on the command line counts before the environment (HOST_WORKERS=2), and that before the file. Where one of
    /// them names plugins or listeners, those of what counts less do not count at all.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct LowCheck {
    /// The plugins, in the order of the chain.
    #[arg(value_name = "PLUGIN", required_unless_present_any = ["config", "as_served"])]
    plugin: Vec<PathBuf>,
    /// The same, written as for the server, each with its --plugin-config behind it.
    #[arg(long = "plugin", id = "as_served", value_name = "FILE", conflicts_with = "plugin")]
    as_served: Vec<PathBuf>,
    /// Configuration of the PLUGIN before it, as JSON or as @ and the name of a file that contains JSON.
    #[arg(long, value_name = "JSON|@FILE")]
    plugin_config: Vec<String>,
    /// A configuration file, as for the server.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print what the configuration of the PLUGIN may have, as JSON Schema, and nothing else. It is not started.
    #[arg(long, conflicts_with_all = ["plugin_config", "config"])]
    schema: bool,
    /// What to log, to stderr, of what the plugins say: off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: LogFilter,
}

#[derive(Debug, Subcommand)]
enum LowConfig {
    /// Look for mistakes: in the file, the environment and the files that they name. Prints what differs from the defaults.
    ///
    /// Plugins are loaded with their configurations, and certificates and keys are read, but no listener is opened. Exits with
    /// 0 if all is in order, and with 2 otherwise.
    Check {
        /// The file. [default: HOST_CONFIG, or none]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// What to log, to stderr, of what the plugins say: off, error, warn, info, debug or trace.
        #[arg(long, value_name = "LEVEL", default_value = "warn")]
        log: LogFilter,
    },
    /// Print a configuration file with every key, its meaning, its unit and its default, all as comments.
    Default,
}

/// What is to be done, valid and complete.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Config {
    /// Serve.
    Run(Box<RunConfig>),
    /// Load, print and leave.
    Check(Box<CheckConfig>),
    /// Look at all that a server would be told.
    CheckAll(Box<RunConfig>, LogFilter),
    /// Print a configuration file.
    PrintDefault,
    /// Ask a host that runs.
    Command(CommandConfig),
    /// Put a load on a broker.
    Bench(Box<BenchConfig>),
    /// Look after what is kept.
    Store(StoreCommand),
    /// Make a crate.
    New(NewConfig),
    /// Build, serve and swap.
    Dev(Box<DevConfig>),
    /// Put a recording to a plugin.
    Replay(ReplayConfig),
}

/// Plugins and a configuration file to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckConfig {
    pub(crate) plugins: Vec<PluginConfig>,
    /// Only the JSON Schemas of their configurations are wanted.
    pub(crate) schema: bool,
    /// A server with these plugins, if there is a file to be looked at.
    pub(crate) run: Option<RunConfig>,
    pub(crate) log: LogFilter,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunConfig {
    pub(crate) config: config::Config,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    /// Sentences about what looks like a mistake in the environment.
    pub(crate) doubts: Vec<String>,
}

/// The variables of a process.
pub(crate) type Variables = Vec<(OsString, OsString)>;

/// Reads the command line. `--help`, `--version` and errors are printed by [`clap::Error::exit`], which ends the process
/// with 0 or 2.
pub(crate) fn parse(
    typed: impl IntoIterator<Item = OsString>,
    variables: impl FnOnce() -> Variables,
) -> Result<Config, Usage> {
    let matches = command().try_get_matches_from(typed)?;
    let LowArgs { command, run } = LowArgs::from_arg_matches(&matches)?;
    match command {
        Some(LowCommand::Check(check)) => {
            let matches = matches.subcommand_matches("check").expect("it was parsed as this subcommand");
            let (id, what, paths) = match check.as_served.is_empty() {
                true => ("plugin", "PLUGIN", check.plugin),
                false => ("as_served", "--plugin", check.as_served),
            };
            let plugins = join_plugins(matches, id, what, paths, check.plugin_config)?;
            let typed = Layer { plugins: Some(plugins.clone()).filter(|all| !all.is_empty()), ..Layer::default() };
            let run = check.config.map(|file| complete(Some(file), variables(), typed)).transpose().map_err(usage)?;
            Ok(Config::Check(Box::new(CheckConfig { plugins, schema: check.schema, run, log: check.log })))
        }
        Some(LowCommand::Config(LowConfig::Check { file, log })) => {
            let run = complete(file, variables(), Layer::default()).map_err(usage)?;
            Ok(Config::CheckAll(Box::new(run), log))
        }
        Some(LowCommand::Config(LowConfig::Default)) => Ok(Config::PrintDefault),
        Some(LowCommand::Bench(bench)) => Ok(Config::Bench(Box::new(bench.into_config()?))),
        Some(LowCommand::Store(command)) => Ok(Config::Store(command)),
        Some(LowCommand::New(config)) => Ok(Config::New(config)),
        Some(LowCommand::Dev(dev)) => dev.into_config(variables()).map(|config| Config::Dev(Box::new(config))),
        Some(LowCommand::Replay(replay)) => Ok(Config::Replay(replay.into_config()?)),
        Some(LowCommand::Running(command)) => command.into_config(&variables()).map(Config::Command),
        None => {
            let plugins = join_plugins(&matches, "plugin", "--plugin", run.plugin, run.plugin_config)?;
            let listeners: Vec<_> = run.listen.into_iter().map(ListenerConfig::new).collect();
            let typed = Layer {
                server: given(&matches, "", SERVER_KEYS),
                log: given(&matches, "log", LOG_KEYS),
                limits: given(&matches, "limits", SETTINGS),
                listeners: Some(listeners).filter(|all| !all.is_empty()),
                plugins: Some(plugins).filter(|all| !all.is_empty()),
            };
            Ok(Config::Run(Box::new(complete(run.config, variables(), typed).map_err(usage)?)))
        }
    }
}

/// Puts the file, the environment and what was typed together.
fn complete(file: Option<PathBuf>, variables: Variables, typed: Layer) -> Result<RunConfig, String> {
    let file = file.or_else(|| variable(&variables, "HOST_CONFIG").map(PathBuf::from));
    let (environment, doubts) = Layer::of_environment(variables)?;
    let read = file.as_deref().map(Layer::read).transpose()?.unwrap_or_default();
    Ok(RunConfig { config: config::Config::of(&[read, environment, typed])?, file, doubts })
}

/// The value of a variable, if it is set.
pub(crate) fn variable<'a>(variables: &'a Variables, name: &str) -> Option<&'a OsString> {
    variables.iter().find(|(found, value)| found == name && config::is_set(value)).map(|(_, value)| value)
}

/// The command line: what [`LowArgs`] says, and an option for each key of the server and the log and for each bound; these
/// the short help leaves out.
fn command() -> Command {
    LowArgs::command()
        .args(SERVER_KEYS.iter().filter_map(|setting| option("", setting, &Default::default())))
        .args(LOG_KEYS.iter().filter_map(|setting| option("log", setting, &Default::default())))
        .args(SETTINGS.iter().filter_map(|setting| option("limits", setting, &Default::default())))
}

fn option<T>(table: &str, setting: &'static Setting<T>, defaults: &T) -> Option<Arg> {
    let option = option_of(table, setting.name)?;
    let about = setting.about.trim();
    let default = Some(setting.show(defaults)).filter(|text| !text.is_empty());
    let default = default.unwrap_or_else(|| setting.unset.to_owned());
    let past = if setting.beyond.starts_with("if ") { "" } else { "past it: " };
    let arg = Arg::new(option.clone())
        .long(option)
        .value_name(if setting.name.ends_with("_dir") { "DIR" } else { setting.kind.placeholder() })
        .value_parser(move |text: &str| setting.parse(text));
    if table == "limits" {
        let arg = arg.help_heading(format!("Limits: {}", setting.heading.to_lowercase())).hide_short_help(true);
        return Some(arg.help(format!("{about} [default: {default}] [{past}{}]", setting.beyond)));
    }
    let first = about.split_once([';', '.', ':']).map_or(about, |(first, _)| first).to_owned();
    // What is to be switched on needs no value.
    let arg = match setting.kind {
        Kind::Flag => {
            let arg = arg.num_args(0..=1).default_missing_value("true");
            arg.help(first).long_help(about)
        }
        _ => arg.help(first).long_help(format!("{about} [default: {default}]")),
    };
    // What is for authors rather than operators is for the long help.
    Some(arg.hide_short_help(setting.name.starts_with("record")))
}

/// What was typed of the keys of a table.
fn given<T>(matches: &ArgMatches, table: &str, settings: &'static [Setting<T>]) -> Vec<Given<T>> {
    let given = |setting: &'static Setting<T>| {
        let option = option_of(table, setting.name)?;
        let value = matches.get_one::<Value>(&option)?.clone();
        Some(Given { setting, value, place: format!("--{option}") })
    };
    settings.iter().filter_map(given).collect()
}

/// Gives each configuration to the plugin that stands before it.
fn join_plugins(
    matches: &ArgMatches,
    id: &str,
    what: &str,
    paths: Vec<PathBuf>,
    configs: Vec<String>,
) -> Result<Vec<PluginConfig>, clap::Error> {
    let places = |id: &str| matches.indices_of(id).into_iter().flatten();
    let path_places: Vec<usize> = places(id).collect();
    let mut texts: Vec<Option<(String, String)>> = vec![None; paths.len()];
    for (place, typed) in places("plugin_config").zip(configs) {
        let before = path_places.iter().filter(|path_place| **path_place < place).count();
        let Some(at) = before.checked_sub(1) else {
            return Err(usage(format!(
                "a --plugin-config stands before any plugin, but belongs to the {what} before it: put it behind its {what}"
            )));
        };
        if texts[at].is_some() {
            return Err(usage(format!(
                "two --plugin-config for {}, but a plugin has one: put both into one JSON object, or the second behind \
                 the {what} that it is for",
                paths[at].display()
            )));
        }
        let source = match typed.strip_prefix('@') {
            Some(file) => format!("{FROM_FILE}{file}"),
            None => "from the command line".to_owned(),
        };
        texts[at] = Some((config_text(typed)?, source));
    }
    let none = || ("{}".to_owned(), "none given: {}".to_owned());
    let joined = paths.into_iter().zip(texts).map(|(path, text)| {
        let (config, source) = text.unwrap_or_else(none);
        PluginConfig { path, config, source }
    });
    Ok(joined.collect())
}

/// The text itself, or that of the file whose name follows an `@`.
pub(crate) fn config_text(typed: String) -> Result<String, clap::Error> {
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

/// A mistake in what was typed, or in a file. How options are written would not help, so that clap's usage is left out.
pub(crate) fn usage(message: String) -> clap::Error {
    clap::Error::raw(ErrorKind::ValueValidation, message + "\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use host::control::protocol::{Request, Swap};

    use super::*;

    fn parse_line(line: &str) -> Result<Config, String> {
        let typed = std::iter::once("host").chain(line.split_whitespace());
        parse(typed.map(OsString::from), Vec::new).map_err(|error| error.to_string())
    }

    fn plugins(line: &str) -> Vec<(String, String)> {
        let plugins = match parse_line(line).unwrap() {
            Config::Run(run) => run.config.plugins,
            Config::Check(check) => check.plugins,
            other => panic!("{other:?} has no plugins"),
        };
        plugins.into_iter().map(|plugin| (plugin.path.display().to_string(), plugin.config)).collect()
    }

    #[test]
    fn definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn nothing_typed_is_a_server_with_defaults() {
        let Config::Run(run) = parse_line("").unwrap() else { panic!("not a server") };
        assert_eq!(run.config, config::Config::default());
    }

    #[test]
    fn bounds_are_options() {
        let line = "--packet-bytes-max 1MiB --connect-timeout 1500ms --session-expiry-secs-max never --receive-maximum=7 \
                    --retain-available false --queue-full drop-oldest --server-reference b.example --maximum-qos 1";
        let Config::Run(run) = parse_line(line).unwrap() else { panic!("not a server") };
        let limits = run.config.limits;
        assert_eq!(limits.packet_bytes_max, 1 << 20);
        assert_eq!(limits.connect_timeout, std::time::Duration::from_millis(1500));
        assert_eq!(limits.session_expiry_secs_max, u32::MAX);
        assert_eq!(limits.receive_maximum, 7);
        assert!(!limits.retain_available);
        assert_eq!(limits.queue_full, host::limits::QueueFull::DropOldest);
        assert_eq!(limits.server_reference.as_deref(), Some("b.example"));
        assert_eq!(limits.maximum_qos as u8, 1);
    }

    #[test]
    fn command_line_counts_before_the_environment_and_that_before_the_file() {
        let file = std::env::temp_dir().join(format!("host-cli-{}.toml", std::process::id()));
        let text = "workers = 2\n[limits]\nreceive_maximum = 1\ntopic_alias_max = 1\nin_flight_max = 1\n\
                    [[listener]]\nurl = \"127.0.0.1:1\"\n[[plugin]]\npath = \"a.so\"\n";
        std::fs::write(&file, text).unwrap();
        let variables = [
            ("HOST_CONFIG", file.to_str().unwrap()),
            ("HOST_TOPIC_ALIAS_MAX", "2"),
            ("HOST_IN_FLIGHT_MAX", "2"),
            ("HOST_PLUGIN", "b.so"),
            ("HOST_PLUGINS", "c.so"),
        ];
        let variables = || variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let typed = ["host", "--in-flight-max", "3", "--allow-anonymous", "--listen", "127.0.0.1:2"];
        let parsed = parse(typed.into_iter().map(OsString::from), variables);
        std::fs::remove_file(&file).unwrap();
        let Config::Run(run) = parsed.unwrap() else { panic!("not a server") };
        let RunConfig { config, doubts, .. } = *run;
        assert_eq!(config.server.workers, Some(2));
        let limits = config.limits;
        assert_eq!((limits.receive_maximum, limits.topic_alias_max, limits.in_flight_max), (1, 2, 3));
        assert!(config.server.allow_anonymous);
        assert_eq!(config.plugins.iter().map(|one| one.path.as_path()).collect::<Vec<_>>(), [Path::new("b.so")]);
        assert_eq!(config.listeners, [ListenerConfig::new("127.0.0.1:2".parse().unwrap())]);
        assert_eq!(doubts.len(), 1, "{doubts:?}");
        let places: Vec<_> = config.said.iter().map(|said| said.place.rsplit('/').next().unwrap()).collect();
        let in_file = |line| format!("{}:{line}", file.file_name().unwrap().to_str().unwrap());
        let expected = [&in_file(1), "--allow-anonymous", &in_file(3), "HOST_TOPIC_ALIAS_MAX", "--in-flight-max"];
        assert_eq!(places, expected);
    }

    #[test]
    fn switches_take_a_value_or_none() {
        for (line, expected) in [
            ("", false),
            ("--allow-anonymous", true),
            ("--allow-anonymous --workers 1", true),
            ("--allow-anonymous=false", false),
            ("--allow-anonymous false", false),
            ("--allow-anonymous true --workers 1", true),
        ] {
            let Config::Run(run) = parse_line(line).unwrap() else { panic!("{line}: not a server") };
            assert_eq!(run.config.server.allow_anonymous, expected, "{line}");
        }
        assert!(command().render_long_help().to_string().contains("--data-dir <DIR>"));
    }

    #[test]
    fn short_help_stays_short() {
        let (short, long) = (command().render_help().to_string(), command().render_long_help().to_string());
        assert!(short.lines().count() < 50, "{short}");
        for setting in SETTINGS {
            let option = option_of("limits", setting.name).expect("it has one");
            let option = format!("--{option} <{}>", setting.kind.placeholder());
            assert!(long.contains(&option) && !short.contains(&option), "{option}");
        }
    }

    #[test]
    fn configuration_belongs_to_the_plugin_before_it() {
        let both = [("a.so".into(), "{\"x\":1}".into()), ("b.so".into(), "{}".into())];
        assert_eq!(plugins("--plugin a.so --plugin-config {\"x\":1} --plugin b.so"), both);
        assert_eq!(plugins("check a.so --plugin-config {\"x\":1} b.so"), both);
        assert_eq!(plugins("check --plugin a.so --plugin-config {\"x\":1} --plugin b.so"), both);
        let second = [("a.so".into(), "{}".into()), ("b.so".into(), "[]".into())];
        assert_eq!(plugins("--plugin=a.so --workers 2 --plugin=b.so --log off --plugin-config=[]"), second);
        assert_eq!(plugins("check a.so b.so --plugin-config []"), second);
    }

    #[test]
    fn commands_become_requests() {
        let request = |line: &str| match parse_line(line).unwrap() {
            Config::Command(command) => command.request,
            other => panic!("{line}: {other:?}"),
        };
        let here = std::env::current_dir().unwrap();
        let swap = |swap: Swap| {
            let plugin = here.join("a.so").display().to_string();
            Request::Swap(Swap { plugin, ..swap })
        };
        let all = "swap --plugin ./a.so --name acl --plugin-config {} --canary 2.5% --ready-within 5s --probation 1min --error-budget 3 --json";
        let table = [
            ("swap --plugin a.so", swap(Swap::default())),
            (
                all,
                swap(Swap {
                    name: Some("acl".to_owned()),
                    config: Some("{}".to_owned()),
                    canary_per_mille: Some(25),
                    ready_within: Some(std::time::Duration::from_secs(5)),
                    probation: Some(std::time::Duration::from_secs(60)),
                    error_budget: Some(3),
                    dry_run: None,
                    ..Swap::default()
                }),
            ),
            ("swap --promote", Request::Promote(None)),
            ("swap --promote acl", Request::Promote(Some("acl".to_owned()))),
            ("swap --promote --json", Request::Promote(None)),
            ("swap --rollback acl --control /run/x", Request::Rollback(Some("acl".to_owned()))),
            ("plugins", Request::Plugins),
            ("resume acl", Request::Resume("acl".to_owned())),
            ("health", Request::Health(None)),
            ("health acl", Request::Health(Some("acl".to_owned()))),
            ("metrics --timeout 5s", Request::Metrics),
            ("configure acl [1]", Request::Configure { plugin: "acl".to_owned(), config: "[1]".to_owned() }),
        ];
        for (line, expected) in table {
            assert_eq!(request(line), expected, "{line}");
        }
    }

    #[test]
    fn commands_go_where_the_environment_says_unless_it_is_typed() {
        let place = |line: &str, value: &str| {
            let typed = std::iter::once("host").chain(line.split_whitespace()).map(OsString::from);
            match parse(typed, || vec![("HOST_CONTROL".into(), value.into())]) {
                Ok(Config::Command(command)) => Ok(command.place),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.to_string()),
            }
        };
        let path = |path: &str| Ok(host::control::Place::Path(path.into()));
        assert_eq!(place("reload", "/run/x"), path("/run/x"));
        assert_eq!(place("reload --control /run/y", "/run/x"), path("/run/y"));
        assert_eq!(place("reload --control /run/y", "none"), path("/run/y"));
        assert_eq!(place("reload", " "), Ok(host::control::Place::Default));
        let refused = place("reload", "none").unwrap_err();
        assert!(refused.contains("HOST_CONTROL=none: a host without a control socket"), "{refused}");
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
            ("--log-format xml", "expected human or json"),
            ("--receive-maximum 0", "'--receive-maximum <N>': expected a number from 1 to 65535"),
            ("--packet-bytes-max 16MB", "expected a size from 20 to 255MiB, such as 65536, 64KiB"),
            ("--allow-anonymous=maybe", "expected true or false"),
            ("--idle-max 10", "expected a time from 0s to 365d, such as 500ms"),
            ("--queue-full oldest", "expected drop-newest or drop-oldest"),
            ("--check-payload-format", "a value is required"),
            (
                "--keep-alive-secs-min 60 --keep-alive-secs-max 30",
                "--keep-alive-secs-min: the limit keep_alive_secs_min is 60s",
            ),
            ("--durability fsync", "--durability: durability is fsync, and there is no data_dir"),
            ("--record-secrets", "--record-secrets: record_secrets is true, and nothing is recorded"),
            ("--user=", "--user: user is empty: expected the name of the user to go on as"),
            ("--config /no/such.toml", "cannot read the configuration /no/such.toml"),
            ("--idle-max 1s check a.so", "cannot be used with"),
            ("config check /no/such.toml", "cannot read the configuration /no/such.toml"),
            ("config", "Usage: host config"),
            ("--workers 1 config default", "cannot be used with"),
            ("check", "<PLUGIN>"),
            ("check --plugin a.so b.so", "cannot be used with"),
            ("check --plugin-config {} --plugin a.so", "belongs to the --plugin before it"),
            ("--plugin a.so check a.so", "cannot be used with"),
            ("--plugin a.so swap --plugin a.so", "cannot be used with"),
            ("swap", "required arguments were not provided"),
            ("swap --plugin a.so --promote", "cannot be used with"),
            ("swap --promote a --rollback b", "cannot be used with"),
            ("swap --promote --canary 10%", "cannot be used with"),
            ("swap --plugin a.so --canary 10", "expected a share of the connections from 0.1% to 100%, such as 10%"),
            ("swap --plugin a.so --probation 10", "expected a time up to 1d, such as 10s"),
            ("swap --plugin a.so --ready-within 0s", "expected a time from 1ms to 1d"),
            ("swap --plugin a.so --error-budget -1", "unexpected argument '-1'"),
            ("swap --plugin a.so --error-budget x", "invalid digit"),
            ("swap --plugin a.so --plugin-config @/no/such.json", "cannot read the plugin configuration /no/such.json"),
            ("plugins acl", "unexpected argument 'acl'"),
            ("plugins --control none", "a host without a control socket takes no commands"),
            ("plugins --timeout 0s", "expected a time from 1ms to 1d"),
            ("configure acl", "<JSON|@FILE>"),
            ("--control", "a value is required"),
        ];
        for (line, expected) in table {
            let error = parse_line(line).expect_err(line);
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
