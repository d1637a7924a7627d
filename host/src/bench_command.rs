//! `host bench`: what was typed, what is valid and complete ([`BenchConfig`]), and how it is shown.

use std::net::{IpAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use host::bench::{Error, Options, Pace, Progress, Report, Shape, Target, Traffic, run_traffic};
use host::codec::ProtocolVersion;
use host::limits::parse_time;

use crate::cli::usage;
use crate::show;

/// More of each would be a mistake.
const CONNECTIONS_MAX: u32 = 1_000_000;
const PAYLOAD_BYTES_MAX: usize = 16 << 20;
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const PORT: u16 = 1883;

/// The benchmarks.
#[derive(Debug, Args)]
pub(crate) struct LowBench {
    #[command(subcommand)]
    which: LowWhich,
}

#[derive(Debug, Subcommand)]
enum LowWhich {
    /// Few publish, many subscribe: each message goes to all subscribers.
    #[command(name = "fan-out")]
    FanOut(LowFanOut),
    /// Many publish, few subscribe.
    #[command(name = "fan-in")]
    FanIn(LowFanIn),
    /// Each publisher has a subscriber of its own.
    Pairs(LowPairs),
}

/// The broker.
#[derive(Debug, Args)]
struct LowTarget {
    /// The broker, as mqtt://HOST or mqtt://HOST:PORT.
    #[arg(long, value_name = "URL", conflicts_with_all = ["host", "port"])]
    url: Option<String>,
    /// The machine of the broker, by name or address. [default: 127.0.0.1]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Its port. [default: 1883]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The version of the protocol that is spoken: 3.1.1 or 5.
    #[arg(long, value_name = "VERSION", default_value = "3.1.1", value_parser = version)]
    mqtt: ProtocolVersion,
    /// The user name of all clients.
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Their password.
    #[arg(long, value_name = "PASSWORD", requires = "username")]
    password: Option<String>,
    /// The address that connections come from, 10,000 of them from each; may be given several times. Towards a broker at
    /// 127.0.0.1, more connections than that come from 127.0.0.2, 127.0.0.3 and so on by themselves.
    #[arg(long, value_name = "ADDR")]
    source: Vec<IpAddr>,
    /// What topics and client identifiers contain, so that two loads do not get in each other's way.
    /// [default: from the number of the process]
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<String>,
    /// How long connecting may take, and an answer of the broker before the load begins.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = positive_time)]
    patience: Duration,
    /// The number of the broker's process on this machine: its CPU time and memory are measured.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
    /// Do not print progress.
    #[arg(long)]
    quiet: bool,
}

/// Messages.
#[derive(Debug, Args)]
struct LowMessages {
    /// The QoS of publishers and subscriptions.
    #[arg(long, value_name = "QOS", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=2))]
    qos: u8,
    /// The size of a payload in bytes; at least 16, as it begins with the time, the publisher and a number.
    #[arg(long, value_name = "BYTES", default_value_t = 16, value_parser = payload_bytes)]
    payload: usize,
    /// How many messages of each publisher may be on their way: sent, and not yet received by all who get them.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    window: u32,
    /// Send so many messages a second in all, at fixed times, whatever the broker does. Latency is counted from the time at
    /// which a message was due.
    #[arg(long, value_name = "N", conflicts_with = "window", value_parser = rate)]
    rate: Option<f64>,
    /// For how many seconds it is measured.
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = secs)]
    secs: Duration,
    /// For how many seconds the load runs before that.
    #[arg(long, value_name = "SECS", default_value = "1", value_parser = secs_or_none)]
    warm_up: Duration,
    /// Threads that make the load.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Ask for packets without a pause instead of sleeping until some come. Takes a whole core for each thread; the broker then
    /// need not wake anybody up, and latency is without the time that this takes.
    #[arg(long)]
    spin: bool,
}

#[derive(Debug, Args)]
struct LowFanOut {
    /// Connections that publish.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = connections())]
    publishers: u32,
    /// Connections that subscribe.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = connections())]
    subscribers: u32,
    #[command(flatten)]
    messages: LowMessages,
    #[command(flatten)]
    target: LowTarget,
}

#[derive(Debug, Args)]
struct LowFanIn {
    /// Connections that publish.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = connections())]
    publishers: u32,
    /// Connections that subscribe.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = connections())]
    subscribers: u32,
    #[command(flatten)]
    messages: LowMessages,
    #[command(flatten)]
    target: LowTarget,
}

#[derive(Debug, Args)]
struct LowPairs {
    /// Pairs of a publisher and a subscriber.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = connections())]
    pairs: u32,
    #[command(flatten)]
    messages: LowMessages,
    #[command(flatten)]
    target: LowTarget,
}

/// A benchmark.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BenchConfig {
    target: Target,
    traffic: Traffic,
    options: Options,
    json: bool,
    quiet: bool,
}

impl LowBench {
    /// What was typed, with the broker's name resolved.
    pub(crate) fn into_config(self) -> Result<BenchConfig, clap::Error> {
        let (name, shape, publishers, subscribers, messages, target) = match self.which {
            LowWhich::FanOut(LowFanOut { publishers, subscribers, messages, target }) => {
                ("fan-out", Shape::All, publishers, subscribers, messages, target)
            }
            LowWhich::FanIn(LowFanIn { publishers, subscribers, messages, target }) => {
                ("fan-in", Shape::All, publishers, subscribers, messages, target)
            }
            LowWhich::Pairs(LowPairs { pairs, messages, target }) => {
                ("pairs", Shape::Pairs, pairs, pairs, messages, target)
            }
        };
        let traffic = Traffic {
            name,
            shape,
            publishers,
            subscribers,
            qos: messages.qos,
            payload_bytes: messages.payload,
            pace: messages.rate.map_or(Pace::Window(messages.window), Pace::Rate),
            warm_up: messages.warm_up,
            time: messages.secs,
        };
        let options = Options { threads: messages.threads.into(), spin: messages.spin, pid: target.pid };
        let (json, quiet) = (target.json, target.quiet);
        Ok(BenchConfig { target: target.into_target()?, traffic, options, json, quiet })
    }
}

impl LowTarget {
    fn into_target(self) -> Result<Target, clap::Error> {
        let (host, port) = match &self.url {
            Some(url) => split_url(url).map_err(usage)?,
            None => (self.host.unwrap_or_else(|| "127.0.0.1".to_owned()), self.port.unwrap_or(PORT)),
        };
        let found = (host.as_str(), port).to_socket_addrs();
        let addr = found.map_err(|error| error.to_string()).and_then(|mut addrs| addrs.next().ok_or_else(String::new));
        let addr = addr.map_err(|error| usage(format!("cannot find the broker's machine `{host}`: {error}")))?;
        if let Some(source) = self.source.iter().find(|source| source.is_ipv4() != addr.is_ipv4()) {
            return Err(usage(format!("--source {source}: a connection from there cannot go to {addr}")));
        }
        Ok(Target {
            addr,
            version: self.mqtt,
            username: self.username,
            password: self.password,
            sources: self.source,
            name: self.name.unwrap_or_else(|| format!("{:04x}", std::process::id() & 0xffff)),
            patience: self.patience,
        })
    }
}

/// Runs it and prints what came of it: 0 if everything went well, 1 if something was lost, came twice or out of order, or the
/// broker refused something or closed a connection, 2 if nothing could be measured.
pub(crate) fn run(config: &BenchConfig) -> ExitCode {
    let mut progress = |progress: &Progress| {
        if !config.quiet {
            show::complain(&format!("{progress}\n"));
        }
    };
    match run_traffic(&config.target, &config.traffic, &config.options, &mut progress) {
        Ok(report) => {
            print(&report, config.json);
            if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            show::complain(&format!("host bench: {error}\n"));
            ExitCode::from(if matches!(error, Error::Lost(_)) { 1 } else { 2 })
        }
    }
}

fn print(report: &Report, json: bool) {
    if !json {
        return show::print(&report.to_string());
    }
    show::print(&format!("{}\n", report.json()));
    // A person looks at stderr, where the notes are worth reading too.
    report.notes().iter().for_each(|note| show::complain(&format!("note: {note}\n")));
}

/// The machine and the port of `mqtt://HOST:PORT`.
fn split_url(url: &str) -> Result<(String, u16), String> {
    let expected = || format!("--url {url}: expected mqtt://HOST or mqtt://HOST:PORT, such as mqtt://192.0.2.1:1883");
    let place = match url.split_once("://") {
        None => url,
        Some(("mqtt" | "tcp", place)) => place,
        Some((scheme, _)) => {
            return Err(format!("--url {url}: {scheme} is not spoken, only plain TCP: mqtt://HOST:PORT"));
        }
    };
    let place = place.strip_suffix('/').unwrap_or(place);
    // A colon in an IPv6 address stands in brackets.
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| expected())?),
        _ => (place, PORT),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || port == 0 || host.contains(['@', '/']) {
        return Err(expected());
    }
    Ok((host.to_owned(), port))
}

fn connections() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX))
}

fn version(typed: &str) -> Result<ProtocolVersion, String> {
    match typed {
        "3.1.1" | "311" | "4" => Ok(ProtocolVersion::V3_1_1),
        "5" | "5.0" => Ok(ProtocolVersion::V5),
        _ => Err("expected 3.1.1 or 5".to_owned()),
    }
}

fn payload_bytes(typed: &str) -> Result<usize, String> {
    let range = Traffic::PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX;
    let bytes = typed.parse().ok().filter(|bytes| range.contains(bytes));
    bytes.ok_or_else(|| format!("expected a number of bytes from {} to {}", range.start(), range.end()))
}

fn rate(typed: &str) -> Result<f64, String> {
    let rate = typed.parse().ok().filter(|rate| (0.001..=1e9).contains(rate));
    rate.ok_or_else(|| "expected a number of messages a second, such as 5000".to_owned())
}

fn name(typed: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if typed.is_empty() || typed.len() > 100 || !typed.bytes().all(is_plain) {
        return Err("expected up to 100 letters, digits, `-`, `_` or `.`".to_owned());
    }
    Ok(typed.to_owned())
}

/// Seconds, with a fraction or without, or with a unit.
fn secs_or_none(typed: &str) -> Result<Duration, String> {
    let secs = typed.parse().ok().and_then(|secs| Duration::try_from_secs_f64(secs).ok());
    let time = secs.or_else(|| parse_time(typed)).filter(|time| *time <= TIME_MAX);
    time.ok_or_else(|| "expected a number of seconds, such as 5 or 0.5, or a time such as 2min".to_owned())
}

fn secs(typed: &str) -> Result<Duration, String> {
    let time = secs_or_none(typed)?;
    if time < Duration::from_millis(10) { Err("expected at least 0.01".to_owned()) } else { Ok(time) }
}

fn positive_time(typed: &str) -> Result<Duration, String> {
    let time = parse_time(typed).filter(|time| !time.is_zero() && *time <= TIME_MAX);
    time.ok_or_else(|| "expected a time from 1ms to 1d, such as 500ms or 10s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split() {
        let table = [
            ("mqtt://example.org", Some(("example.org", 1883))),
            ("mqtt://example.org:1884/", Some(("example.org", 1884))),
            ("mqtt://[::1]", Some(("::1", 1883))),
            ("mqtt://[::1]:1884", Some(("::1", 1884))),
            ("127.0.0.1:1", Some(("127.0.0.1", 1))),
            ("mqtts://example.org", None),
            ("mqtt://:1883", None),
            ("mqtt://a:b", None),
            ("mqtt://a:0", None),
            ("mqtt://user@a", None),
        ];
        for (url, expected) in table {
            let expected = expected.map(|(host, port): (&str, u16)| (host.to_owned(), port));
            assert_eq!(split_url(url).ok(), expected, "{url}");
        }
    }
}
