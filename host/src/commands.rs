//! The commands for a host that runs: what was typed, and what is valid and complete ([`CommandConfig`]).

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use host::SwapRequest;
use host::control::protocol::{ERROR_BUDGET_MAX, Refusal, Request, Swap, TIME_MAX, answer_json};
use host::control::{Interrupt, Place, ask_until};
use host::limits::parse_time;
use host::plugin::DryRun;
use host::upgrade::UpgradeRequest;

use crate::cli::{Variables, config_text, usage, variable};
use crate::{EXIT_INTERRUPTED, Signals, show};

/// What an answer may take beside what a plugin takes to get ready, unless it is said otherwise.
const BESIDES: Duration = Duration::from_secs(30);

/// For how long a candidate is tried, unless it is said otherwise.
const DRY_RUN: Duration = Duration::from_secs(30);

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum LowCommand {
    /// Put another library in the place of a plugin of a running host, while it serves.
    ///
    /// The library's own name says which plugin it replaces. It is loaded, checked and initialised beside the running one;
    /// if anything is wrong, that one goes on, and the exit code is 1. Then it decides, and every connection's state moves
    /// to it at the next packet, or soon. For a while, its errors are counted: with too many of them, the old one is put
    /// back.
    #[command(
        override_usage = "host swap [OPTIONS] --plugin <FILE>\n       host swap --dry-run [OPTIONS] --plugin <FILE>\n       host swap [OPTIONS] --promote [<NAME>]\n       \
                                host swap [OPTIONS] --rollback [<NAME>]"
    )]
    Swap(LowSwap),
    /// Show the plugins of a running host: versions, connections, calls, times.
    ///
    /// FAILED are answers that could not be used, panics, and answers that came too late. SLOW are calls that took longer
    /// than --callback-budget on a thread that serves clients. One call in 256 is timed: half of those were below the one
    /// time, 99 % below the other.
    Plugins(LowPlain),
    /// Give a plugin of a running host another configuration, without loading it again.
    ///
    /// Needs a plugin with handle_config. One that refuses goes on with the configuration that it has; the exit code is 1.
    Configure(LowConfigure),
    /// Ask the plugins of a running host how they are. Exits with 1 if one of them is not well.
    ///
    /// A plugin in quarantine is not well, whatever it says.
    Health(LowHealth),
    /// Ask a plugin of a running host again that is in quarantine.
    ///
    /// It is there because it has panicked too often: see --quarantine of the host.
    Resume(LowResume),
    /// Have a running host read its configuration anew.
    ///
    /// That is its file, with what its command line and environment said. All of it is validated first: if anything is wrong, or a plugin refuses, nothing changes and the exit code is 1. Then
    /// what can change is changed: bounds, listeners, what is logged, plugins' configurations, and plugins whose files have
    /// changed. What has to wait for a restart is told. SIGHUP does the same.
    Reload(LowPlain),
    /// Have another process take the place of a running host, with its connections.
    ///
    /// A new version of it, or of its plugins, for example. The new process is started with the same arguments, reads the configuration anew, and loads the plugins. Then it gets
    /// the listening sockets, the connections and all that is known of them; clients over TCP and Unix sockets notice
    /// nothing. Those with TLS, WebSocket or QUIC have to connect again, and find their sessions. If anything is wrong, the
    /// running process goes on, and the exit code is 1. SIGUSR2 does the same.
    Upgrade(LowUpgrade),
    /// Show what the plugins of a running host count and measure.
    Metrics(LowPlain),
}

/// Where the host is, and how its answer is shown.
#[derive(Debug, Args)]
struct LowReach {
    /// The control socket of the host, if it was started with --control. [default: HOST_CONTROL, or where a host of this user
    /// has it]
    #[arg(long, value_name = "PATH")]
    control: Option<Place>,
    /// Print the answer as one JSON object: {"ok":true,"result":…}, or {"ok":false,"error":{"step":…,"plugin":…,"reason":…}}.
    ///
    /// The second one is printed without --json too, where the output is not a terminal. The sentence is on stderr always.
    #[arg(long)]
    json: bool,
    /// How long to wait for the answer. [default: 60s; for a swap 30s more than it may take]
    #[arg(long, value_name = "TIME", value_parser = positive_time)]
    timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct LowPlain {
    #[command(flatten)]
    reach: LowReach,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["plugin", "promote", "rollback"]))]
pub(crate) struct LowSwap {
    /// The new library. One at a time; candidates of several plugins can be tried at the same time, by a --dry-run for each.
    #[arg(long, value_name = "FILE")]
    plugin: Vec<PathBuf>,
    /// The plugin that it replaces. [default: the one that has the library's own name]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["promote", "rollback"])]
    name: Option<String>,
    /// Its configuration, as JSON or as @ and the name of a file. [default: that of the plugin that it replaces]
    #[arg(long, value_name = "JSON|@FILE", conflicts_with_all = ["promote", "rollback"])]
    plugin_config: Option<String>,
    /// The share of connections that get it at first, such as 10%, until --promote or --rollback. [default: all]
    #[arg(long, value_name = "SHARE", conflicts_with_all = ["promote", "rollback"], value_parser = share)]
    canary: Option<u64>,
    /// How long it may take to load it, and for its `init`. [default: 30s]
    #[arg(long, value_name = "TIME", conflicts_with_all = ["promote", "rollback"], value_parser = positive_time)]
    ready_within: Option<Duration>,
    /// How long its errors are counted once it has all connections. [default: 10s]
    #[arg(long, value_name = "TIME", conflicts_with_all = ["promote", "rollback"], value_parser = time)]
    probation: Option<Duration>,
    /// How many errors (panics, errors returned, deadlines missed) it may make in that time; with one more, the old one is
    /// put back. [default: 10]
    #[arg(long, value_name = "N", conflicts_with_all = ["promote", "rollback"], value_parser = clap::value_parser!(u64).range(..=ERROR_BUDGET_MAX))]
    error_budget: Option<u64>,
    /// Only try it: for a time it is asked what the running one is asked, and where it answers otherwise is printed. No
    /// client sees anything of it. Exits with 1 if there is a difference. Ctrl-C ends it, and prints what there is.
    #[arg(long, requires = "plugin", conflicts_with_all = ["canary", "probation", "error_budget", "promote", "rollback"])]
    dry_run: bool,
    /// For how long it is tried. [default: 30s]
    #[arg(long = "for", value_name = "TIME", requires = "dry_run", value_parser = positive_time)]
    dry_run_for: Option<Duration>,
    /// For how many calls it is tried. [default: all of that time]
    #[arg(long, value_name = "N", requires = "dry_run", value_parser = clap::value_parser!(u64).range(1..))]
    calls: Option<u64>,
    /// Give all connections to the library that got a share of them. NAME: of this plugin, if there are several such.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    promote: Option<String>,
    /// Put the old one back: instead of the library that got a share, or that is still on probation.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    rollback: Option<String>,
    #[command(flatten)]
    reach: LowReach,
}

#[derive(Debug, Args)]
pub(crate) struct LowConfigure {
    /// The plugin's name, as `host plugins` shows it.
    #[arg(value_name = "NAME")]
    plugin: String,
    /// The configuration, as JSON or as @ and the name of a file that contains JSON.
    #[arg(value_name = "JSON|@FILE")]
    config: String,
    #[command(flatten)]
    reach: LowReach,
}

#[derive(Debug, Args)]
pub(crate) struct LowHealth {
    /// The plugin's name. [default: all]
    #[arg(value_name = "NAME")]
    plugin: Option<String>,
    #[command(flatten)]
    reach: LowReach,
}

#[derive(Debug, Args)]
pub(crate) struct LowResume {
    /// The plugin's name.
    #[arg(value_name = "NAME")]
    plugin: String,
    #[command(flatten)]
    reach: LowReach,
}

#[derive(Debug, Args)]
pub(crate) struct LowUpgrade {
    /// The program to start. [default: the file that the host was started from, as it is now]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    #[command(flatten)]
    reach: LowReach,
}

/// What a running host is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandConfig {
    pub(crate) request: Request,
    pub(crate) place: Place,
    json: bool,
    timeout: Duration,
}

impl LowCommand {
    /// What was typed, with files read.
    pub(crate) fn into_config(self, variables: &Variables) -> Result<CommandConfig, Usage> {
        let (Self::Plugins(LowPlain { reach })
        | Self::Metrics(LowPlain { reach })
        | Self::Reload(LowPlain { reach })
        | Self::Health(LowHealth { reach, .. })
        | Self::Resume(LowResume { reach, .. })
        | Self::Upgrade(LowUpgrade { reach, .. })
        | Self::Configure(LowConfigure { reach, .. })
        | Self::Swap(LowSwap { reach, .. })) = &self;
        let is_object = prints_object(reach.json);
        self.complete(variables).map_err(|error| Usage { error, is_object })
    }

    fn complete(self, variables: &Variables) -> Result<CommandConfig, clap::Error> {
        let (request, reach) = match self {
            Self::Plugins(LowPlain { reach }) => (Request::Plugins, reach),
            Self::Metrics(LowPlain { reach }) => (Request::Metrics, reach),
            Self::Reload(LowPlain { reach }) => (Request::Reload, reach),
            Self::Health(LowHealth { plugin, reach }) => (Request::Health(plugin), reach),
            Self::Resume(LowResume { plugin, reach }) => (Request::Resume(plugin), reach),
            Self::Configure(LowConfigure { plugin, config, reach }) => {
                (Request::Configure { plugin, config: config_text(config)? }, reach)
            }
            Self::Upgrade(LowUpgrade { binary, reach }) => {
                let binary = binary.map(|binary| absolute("--binary", &binary)).transpose().map_err(usage)?;
                (Request::Upgrade { binary }, reach)
            }
            Self::Swap(swap) => {
                let named = |name: String| Some(name).filter(|name| !name.is_empty());
                if swap.plugin.len() > 1 {
                    return Err(usage(
                        "--plugin: one library at a time. Swap them one after the other; or try them at the same time, with a \
                         `host swap --dry-run` for each: it is compared with the plugin that it would replace, in its place \
                         in the chain"
                            .to_owned(),
                    ));
                }
                let plugin = swap.plugin.into_iter().next();
                let request = match (plugin, swap.promote, swap.rollback) {
                    (None, Some(name), _) => Request::Promote(named(name)),
                    (None, None, name) => Request::Rollback(named(name.unwrap_or_default())),
                    (Some(plugin), ..) => Request::Swap(Swap {
                        plugin: absolute("--plugin", &plugin).map_err(usage)?,
                        name: swap.name,
                        config: swap.plugin_config.map(config_text).transpose()?,
                        canary_per_mille: swap.canary,
                        ready_within: swap.ready_within,
                        probation: swap.probation,
                        error_budget: swap.error_budget,
                        dry_run: swap
                            .dry_run
                            .then(|| DryRun { time: swap.dry_run_for.unwrap_or(DRY_RUN), calls: swap.calls }),
                    }),
                };
                (request, swap.reach)
            }
        };
        let (place, from) = match (reach.control, variable(variables, "HOST_CONTROL")) {
            (Some(place), _) => (place, "--control none"),
            (None, Some(path)) if path == "none" => (Place::None, "HOST_CONTROL=none"),
            (None, Some(path)) => (Place::Path(path.into()), ""),
            (None, None) => (Place::Default, ""),
        };
        if place == Place::None {
            return Err(usage(format!("{from}: a host without a control socket takes no commands")));
        }
        let takes = match &request {
            Request::Swap(swap) => {
                let tried = swap.dry_run.map_or(Duration::ZERO, |dry_run| dry_run.time);
                swap.ready_within.unwrap_or(SwapRequest::READY_WITHIN) + tried
            }
            Request::Upgrade { .. } => UpgradeRequest::READY_WITHIN + UpgradeRequest::PAUSED_AT_MOST,
            _ => SwapRequest::READY_WITHIN,
        };
        let timeout = reach.timeout.unwrap_or(takes + BESIDES);
        Ok(CommandConfig { request, place, json: reach.json, timeout })
    }
}

/// Asks, prints the answer, and says how it went: 0 if it was done, 1 if it was refused, 2 if no host was reached.
pub(crate) fn run(CommandConfig { request, place, json, timeout }: &CommandConfig) -> ExitCode {
    let is_dry_run = matches!(request, Request::Swap(swap) if swap.dry_run.is_some());
    let asking = |interrupt| {
        if is_dry_run {
            interrupt_on_signal(interrupt);
        }
    };
    let (answer, code) = match ask_until(place, request, *timeout, asking) {
        Ok(Ok(result)) => {
            let is_well = show::is_well(request, &result);
            (Ok(result), if is_well { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Ok(Err(refusal)) => (Err(refusal), ExitCode::from(1)),
        Err(error) => {
            let (step, code) = if error.is_sent() { ("answer", 1) } else { ("reach", 2) };
            let refusal = Refusal { step: step.to_owned(), plugin: None, reason: error.to_string() };
            (Err(refusal), ExitCode::from(code))
        }
    };
    if *json || (answer.is_err() && prints_object(*json)) {
        show::print(&format!("{}\n", answer_json(&answer)));
    } else if let Ok(result) = &answer {
        show::print(&show::text(request, result));
    }
    if let Err(Refusal { plugin, reason, .. }) = &answer {
        // Reasons that come from loading begin with the plugin themselves.
        let whose = plugin.as_ref().filter(|plugin| !reason.contains(plugin.as_str()));
        show::complain(&format!("host: {}{reason}\n", whose.map(|plugin| format!("{plugin}: ")).unwrap_or_default()));
    }
    code
}

/// Has a signal end what was asked for, whose answer is waited for all the same; a second one ends the program. Where there is
/// no thread for it, signals do what they do otherwise.
fn interrupt_on_signal(interrupt: Interrupt) {
    let (ready, is_ready) = mpsc::channel();
    let wait = move || -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let mut signals = Signals::catch()?;
            drop(ready);
            let name = signals.next().await;
            show::complain(&format!("host: {name}: ending the dry run; once more to leave at once\n"));
            interrupt.now();
            signals.next().await;
            std::process::exit(EXIT_INTERRUPTED)
        })
    };
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(wait);
    // Once they are caught, or cannot be.
    let _: Result<(), _> = is_ready.recv();
}

/// Whether a failure is printed as an object: a script that did not ask for JSON gets its step and its reason all the same;
/// a person has the sentence.
fn prints_object(json: bool) -> bool {
    json || !std::io::stdout().is_terminal()
}

/// What was wrong with a command line, before any host was asked.
#[derive(Debug)]
pub(crate) struct Usage {
    error: clap::Error,
    /// Whether the object is printed as well.
    is_object: bool,
}

impl Usage {
    /// Says so, and ends the program; with 2, unless it was help that was asked for.
    pub(crate) fn exit(&self) -> ! {
        if self.is_object {
            let reason = self.error.to_string().trim_end().trim_start_matches("error: ").to_owned();
            let refusal = Refusal { step: "usage".to_owned(), plugin: None, reason };
            show::print(&format!("{}\n", answer_json(&Err(refusal))));
        }
        self.error.exit()
    }
}

impl From<clap::Error> for Usage {
    fn from(error: clap::Error) -> Self {
        Self { error, is_object: false }
    }
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

/// The path from the root, as the host has a working directory of its own. A link is left as it is: it may lead to another
/// file when the host looks again.
fn absolute(option: &str, path: &Path) -> Result<String, String> {
    let mut full = std::path::absolute(path).map_err(|error| format!("{option} {}: {error}", path.display()))?;
    if let (Some(folder), Some(name)) = (full.parent(), full.file_name())
        && let Ok(folder) = folder.canonicalize()
    {
        full = folder.join(name);
    }
    full.into_os_string().into_string().map_err(|path| {
        format!("{option} {}: its path is not UTF-8, and cannot be told to the host: rename it", path.display())
    })
}

fn share(typed: &str) -> Result<u64, String> {
    per_mille(typed)
        .filter(|share| (1..=1000).contains(share))
        .ok_or_else(|| "expected a share of the connections from 0.1% to 100%, such as 10% or 0.5%".to_owned())
}

/// `10%` or `0.5%` in thousandths.
fn per_mille(typed: &str) -> Option<u64> {
    let percent = typed.strip_suffix('%')?;
    let (whole, tenths) = percent.split_once('.').unwrap_or((percent, "0"));
    let digits = |text: &str, count| text.len() <= count && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole, 3) || !digits(tenths, 1) {
        return None;
    }
    Some(whole.parse::<u64>().ok()? * 10 + tenths.parse::<u64>().ok()?)
}

fn time(typed: &str) -> Result<Duration, String> {
    let time = parse_time(typed).filter(|time| *time <= TIME_MAX);
    time.ok_or_else(|| "expected a time up to 1d, such as 10s or 5min".to_owned())
}

fn positive_time(typed: &str) -> Result<Duration, String> {
    let time = parse_time(typed).filter(|time| !time.is_zero() && *time <= TIME_MAX);
    time.ok_or_else(|| "expected a time from 1ms to 1d, such as 500ms, 10s or 5min".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages() {
        let table = [
            ("10%", Some(100)),
            ("0.5%", Some(5)),
            ("100%", Some(1000)),
            ("100.0%", Some(1000)),
            ("0.1%", Some(1)),
            ("0%", None),
            ("0.0%", None),
            ("100.1%", None),
            ("0.05%", None),
            ("10", None),
            ("%", None),
            (".5%", None),
            ("-1%", None),
            ("+1%", None),
            ("1.%", None),
            ("99999999999999999999%", None),
        ];
        for (typed, expected) in table {
            assert_eq!(share(typed).ok(), expected, "{typed}");
        }
    }
}
