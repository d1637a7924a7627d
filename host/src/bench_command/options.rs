//! The options of `host bench`, as they are typed.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use host::bench::{Address, Course, Disturbance, Pace, Shape, Traffic};
use host::codec::ProtocolVersion;

use super::What;
use super::plain_url;
use super::values::{
    at_once, connections, messages, name, payload_bytes, positive_time, rate, secs, secs_or_none, version,
};

/// The benchmarks.
#[derive(Debug, Args)]
pub(crate) struct LowBench {
    #[command(subcommand)]
    pub(super) which: LowWhich,
}

#[derive(Debug, Subcommand)]
pub(super) enum LowWhich {
    /// Few publish, many subscribe: each message goes to all subscribers.
    #[command(name = "fan-out")]
    FanOut(LowFanOut),
    /// Many publish, few subscribe.
    #[command(name = "fan-in")]
    FanIn(LowFanIn),
    /// Each publisher has a subscriber of its own.
    Pairs(LowPairs),
    /// Many filters with wildcards, and a topic for each.
    Wildcard(LowWildcard),
    /// Shared subscriptions: each message goes to one member of each group.
    Shared(LowShared),
    /// Times from sending to receiving at a fixed rate, between few pairs.
    Latency(LowLatency),
    /// Pairs at a fixed rate, alone and then while others subscribe and unsubscribe without a pause.
    Storm(LowStorm),
    /// Pairs at a fixed rate, alone and then beside messages that go to very many.
    Beside(LowBeside),
    /// TLS handshakes that come all at once, beside a canary: pairs at a fixed rate over plain TCP.
    Handshakes(LowHandshakes),
    /// Clients that come and go.
    Connect(LowConnect),
    /// Clients that come and stay, and do nothing: memory for each.
    Idle(LowIdle),
    /// PINGREQ and PINGRESP.
    Ping(LowPing),
    /// SUBSCRIBE to many filters: time and memory for each.
    Subscribe(LowSubscribe),
    /// Messages for clients that are away: what keeping them takes, and then sending them.
    Offline(LowOffline),
    /// Retained messages: what storing them takes, and then sending them to new subscribers.
    Retained(LowRetained),
}

/// The broker.
#[derive(Debug, Args)]
pub(super) struct LowTarget {
    /// The broker: mqtt://HOST or mqtt://HOST:PORT (or tcp://), mqtts:// (or tls://), ws:// or wss:// with or without a path
    /// (/mqtt), or unix:PATH.
    #[arg(long, alias = "broker", value_name = "URL", conflicts_with_all = ["host", "port"])]
    pub(super) url: Option<String>,
    /// The machine of the broker, by name or address. [default: 127.0.0.1]
    #[arg(long, value_name = "HOST")]
    pub(super) host: Option<String>,
    /// Its port. [default: 1883]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: Option<u16>,
    #[command(flatten)]
    pub(super) tls: LowTls,
    /// The version of the protocol that is spoken: 3.1, 3.1.1 or 5.
    #[arg(long, value_name = "VERSION", default_value = "3.1.1", value_parser = version)]
    pub(super) mqtt: ProtocolVersion,
    /// The user name of all clients.
    #[arg(long, value_name = "NAME")]
    pub(super) username: Option<String>,
    /// Their password.
    #[arg(long, value_name = "PASSWORD", requires = "username")]
    pub(super) password: Option<String>,
    /// The address that connections come from, 10,000 of them from each; may be given several times. Towards a broker at
    /// 127.0.0.1, more connections than that come from 127.0.0.2, 127.0.0.3 and so on by themselves.
    #[arg(long, value_name = "ADDR")]
    pub(super) source: Vec<IpAddr>,
    /// What topics and client identifiers contain, so that two loads do not get in each other's way.
    /// [default: from the number of the process]
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(super) name: Option<String>,
    /// How long connecting may take, and an answer; and for how long nothing may come before what is missing is given up.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = positive_time)]
    pub(super) patience: Duration,
    /// The number of the broker's process on this machine: its CPU time and memory are measured.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) pid: Option<u32>,
    /// Threads that make the load.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) threads: u16,
    /// Ask for packets without a pause instead of sleeping until some come. Takes a whole core for each thread; the broker then
    /// need not wake anybody up, and latency is without the time that this takes.
    #[arg(long)]
    pub(super) spin: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(super) json: bool,
    /// Do not print progress.
    #[arg(long)]
    pub(super) quiet: bool,
}

/// How TLS is spoken, with tls:// and wss://.
#[derive(Debug, Args)]
pub(super) struct LowTls {
    /// Certificates of the authorities that are trusted (PEM), for tls:// and wss://.
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Believe whoever answers; the load then spends no time on their signatures.
    #[arg(long, conflicts_with = "ca")]
    pub(super) insecure: bool,
    /// The name that the broker's certificate has to have, and that is asked for. [default: the URL's]
    #[arg(long, value_name = "NAME")]
    pub(super) server_name: Option<String>,
    /// The certificate of all clients (PEM).
    #[arg(long, value_name = "FILE", requires = "private_key")]
    pub(super) certificate: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub(super) private_key: Option<PathBuf>,
    /// The version of TLS: 1.3, or 1.2 where the broker has no other; or 1.2 only.
    #[arg(long, value_name = "VERSION", default_value = "1.3")]
    pub(super) tls: LowTlsVersion,
    /// Go on with the session of an earlier connection, if the broker lets it.
    #[arg(long)]
    pub(super) resume: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LowTlsVersion {
    #[value(name = "1.2")]
    V1_2,
    #[value(name = "1.3")]
    V1_3,
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
    /// Subscribers ask the broker to keep their sessions when they leave (Clean Session 0, a Session Expiry Interval of an hour),
    /// so that it keeps their messages on disk if it does that. The window is then one of acknowledgements too. The sessions are
    /// ended at the end.
    #[arg(long)]
    keep_sessions: bool,
    #[command(flatten)]
    times: LowTimes,
}

#[derive(Debug, Args)]
struct LowPace {
    /// How many messages of each publisher may be on their way: sent, and not yet received by all who get them.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    window: u32,
    /// Send so many messages a second in all, at fixed times, whatever the broker does. Latency is counted from the time at
    /// which a message was due.
    #[arg(long, value_name = "N", conflicts_with = "window", value_parser = rate)]
    rate: Option<f64>,
}

#[derive(Debug, Args)]
struct LowTimes {
    /// For how many seconds it is measured.
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = secs)]
    secs: Duration,
    /// For how many seconds the load runs before that.
    #[arg(long, value_name = "SECS", default_value = "1", value_parser = secs_or_none)]
    warm_up: Duration,
}

#[derive(Debug, Args)]
pub(super) struct LowFanOut {
    /// Connections that publish.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = connections())]
    publishers: u32,
    /// Connections that subscribe.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = connections())]
    subscribers: u32,
    #[command(flatten)]
    messages: LowMessages,
    #[command(flatten)]
    pace: LowPace,
    #[command(flatten)]
    target: LowTarget,
}

#[derive(Debug, Args)]
pub(super) struct LowFanIn {
    /// Connections that publish.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = connections())]
    publishers: u32,
    /// Connections that subscribe.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = connections())]
    subscribers: u32,
    #[command(flatten)]
    messages: LowMessages,
    #[command(flatten)]
    pace: LowPace,
    #[command(flatten)]
    target: LowTarget,
}

#[derive(Debug, Args)]
pub(super) struct LowPairs {
    /// Pairs of a publisher and a subscriber.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = connections())]
    pairs: u32,
    #[command(flatten)]
    messages: LowMessages,
    #[command(flatten)]
    pace: LowPace,
    #[command(flatten)]
    target: LowTarget,
}

#[derive(Debug, Args)]
pub(super) struct LowWildcard {
    /// Filters with wildcards, of all subscribers together; as many topics are published to, in turn.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = connections())]
    filters: u32,
    /// Connections that publish.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = connections())]
    publishers: u32,
    /// Connections that subscribe, each to its part of the filters.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = connections())]
    subscribers: u32,
    #[command(flatten)]
    messages: LowMessages,
    #[command(flatten)]
    pace: LowPace,
    #[command(flatten)]
    target: LowTarget,
}

#[derive(Debug, Args)]
pub(super) struct LowShared {
    /// Members of each group.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = connections())]
    members: u32,
    /// Groups; each of them gets each message once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    groups: u32,
    /// Connections that publish.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = connections())]
    publishers: u32,
    #[command(flatten)]
    messages: LowMessages,
    #[command(flatten)]
    pace: LowPace,
    #[command(flatten)]
    target: LowTarget,
}

#[derive(Debug, Args)]
pub(super) struct LowLatency {
    /// Messages a second, of all pairs together.
    #[arg(long, value_name = "N", default_value = "5000", value_parser = rate)]
    rate: f64,
    /// Pairs of a publisher and a subscriber.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = connections())]
    pairs: u32,
    #[command(flatten)]
    messages: LowMessages,
    #[command(flatten)]
    target: LowTarget,
}

/// The pairs that others disturb.
#[derive(Debug, Args)]
struct LowPairsBeside {
    /// Messages a second, of all pairs together.
    #[arg(long, value_name = "N", default_value = "5000", value_parser = rate)]
    rate: f64,
    /// Pairs of a publisher and a subscriber.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = connections())]
    pairs: u32,
    #[command(flatten)]
    messages: LowMessages,
}

#[derive(Debug, Args)]
pub(super) struct LowStorm {
    #[command(flatten)]
    pairs: LowPairsBeside,
    /// Clients that subscribe and unsubscribe.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = connections())]
    connections: u32,
    /// Filters with wildcards of each of these clients, in one SUBSCRIBE and one UNSUBSCRIBE; no two are the same.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    filters: u32,
    #[command(flatten)]
    target: LowTarget,
}

#[derive(Debug, Args)]
pub(super) struct LowBeside {
    #[command(flatten)]
    pairs: LowPairsBeside,
    /// Clients that get each message of another publisher.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = connections())]
    subscribers: u32,
    /// Messages a second of that publisher, with QoS 0.
    #[arg(long, value_name = "N", default_value = "5", value_parser = rate)]
    fan_out_rate: f64,
    /// The size of their payloads in bytes; at least 16.
    #[arg(long, value_name = "BYTES", default_value_t = 16, value_parser = payload_bytes)]
    fan_out_payload: usize,
    #[command(flatten)]
    target: LowTarget,
}

#[derive(Debug, Args)]
pub(super) struct LowHandshakes {
    /// Where the canary's clients connect to, the same broker: mqtt://HOST:PORT or unix:PATH.
    #[arg(long, value_name = "URL", value_parser = plain_url)]
    canary: Address,
    /// Handshakes that come at once, each followed by CONNECT.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = at_once)]
    handshakes: usize,
    /// How often; after each time, a thread spins for as long.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    #[command(flatten)]
    pairs: LowPairsBeside,
    #[command(flatten)]
    target: LowTarget,
}

#[derive(Debug, Args)]
pub(super) struct LowConnect {
    /// Connections that each thread opens before it waits for the first of their answers.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_once)]
    at_once: usize,
    /// For how many seconds it is measured.
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = secs)]
    secs: Duration,
    #[command(flatten)]
    target: LowTarget,
}

#[derive(Debug, Args)]
pub(super) struct LowIdle {
    /// How many clients.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = connections())]
    connections: u32,
    /// Connections that are opened before the first of their answers is waited for.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_once)]
    at_once: usize,
    /// The Keep Alive of each, in seconds: after half of it, each sends a PINGREQ. 0: they send nothing.
    #[arg(long, value_name = "SECS", default_value_t = 0)]
    keep_alive: u16,
    /// For how many seconds they stay.
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = secs)]
    secs: Duration,
    #[command(flatten)]
    target: LowTarget,
}

#[derive(Debug, Args)]
pub(super) struct LowPing {
    /// How many clients.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = connections())]
    connections: u32,
    /// PINGREQ of each client that are not answered yet.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    window: u32,
    #[command(flatten)]
    times: LowTimes,
    #[command(flatten)]
    target: LowTarget,
}

#[derive(Debug, Args)]
pub(super) struct LowSubscribe {
    /// How many clients.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = connections())]
    connections: u32,
    /// Filters with wildcards, of all clients together; no two are the same.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = messages())]
    filters: u32,
    /// Filters in one SUBSCRIBE.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_once)]
    per_packet: usize,
    /// The QoS that is asked for.
    #[arg(long, value_name = "QOS", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=2))]
    qos: u8,
    #[command(flatten)]
    target: LowTarget,
}

#[derive(Debug, Args)]
pub(super) struct LowOffline {
    /// How many sessions.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = connections())]
    sessions: u32,
    /// Messages of QoS 1 for each.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = messages())]
    messages: u32,
    /// The size of a payload in bytes; at least 16.
    #[arg(long, value_name = "BYTES", default_value_t = 16, value_parser = payload_bytes)]
    payload: usize,
    /// All sessions subscribe to one topic and get the same messages, instead of each to its own.
    #[arg(long)]
    one_topic: bool,
    #[command(flatten)]
    target: LowTarget,
}

#[derive(Debug, Args)]
pub(super) struct LowRetained {
    /// Retained messages, each of its own topic.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = messages())]
    messages: u32,
    /// Clients that subscribe to all of them.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = connections())]
    subscribers: u32,
    /// The size of a payload in bytes; at least 16.
    #[arg(long, value_name = "BYTES", default_value_t = 16, value_parser = payload_bytes)]
    payload: usize,
    /// The QoS of the subscriptions; the messages are published with QoS 1.
    #[arg(long, value_name = "QOS", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=2))]
    qos: u8,
    #[command(flatten)]
    target: LowTarget,
}

impl LowWhich {
    pub(super) fn into_what(self) -> (What, LowTarget) {
        use Shape::{All, Pairs, Shared, Wildcard};
        let course = |course, target| (What::Course(course), target);
        let traffic = |traffic, target| (What::Traffic(traffic), target);
        match self {
            Self::FanOut(LowFanOut { publishers, subscribers, messages, pace, target }) => {
                traffic(messages.traffic("fan-out", All, publishers, subscribers, pace.pace()), target)
            }
            Self::FanIn(LowFanIn { publishers, subscribers, messages, pace, target }) => {
                traffic(messages.traffic("fan-in", All, publishers, subscribers, pace.pace()), target)
            }
            Self::Pairs(LowPairs { pairs, messages, pace, target }) => {
                traffic(messages.traffic("pairs", Pairs, pairs, pairs, pace.pace()), target)
            }
            Self::Wildcard(LowWildcard { filters, publishers, subscribers, messages, pace, target }) => {
                traffic(messages.traffic("wildcard", Wildcard(filters), publishers, subscribers, pace.pace()), target)
            }
            Self::Shared(LowShared { members, groups, publishers, messages, pace, target }) => {
                let all = members.saturating_mul(groups);
                traffic(messages.traffic("shared", Shared(groups), publishers, all, pace.pace()), target)
            }
            Self::Latency(LowLatency { rate, pairs, messages, target }) => {
                traffic(messages.traffic("latency", Pairs, pairs, pairs, Pace::Rate(rate)), target)
            }
            Self::Storm(LowStorm { pairs, connections, filters, target }) => {
                let by = Disturbance::Storm { connections, filters };
                course(Course::Disturbed { pairs: pairs.traffic("storm"), by }, target)
            }
            Self::Beside(LowBeside { pairs, subscribers, fan_out_rate, fan_out_payload, target }) => {
                let by = Disturbance::FanOut { subscribers, rate: fan_out_rate, payload_bytes: fan_out_payload };
                course(Course::Disturbed { pairs: pairs.traffic("beside"), by }, target)
            }
            Self::Handshakes(LowHandshakes { canary: canary_addr, handshakes, rounds, pairs, target }) => {
                let canary = pairs.traffic("handshakes");
                course(Course::Handshakes { canary, canary_addr, handshakes, rounds }, target)
            }
            Self::Connect(LowConnect { at_once, secs, target }) => {
                course(Course::Connect { at_once, time: secs }, target)
            }
            Self::Idle(LowIdle { connections, at_once, keep_alive, secs, target }) => {
                let (connections, keep_alive_secs) = (connections as usize, keep_alive);
                course(Course::Idle { connections, at_once, keep_alive_secs, time: secs }, target)
            }
            Self::Ping(LowPing { connections, window, times: LowTimes { secs, warm_up }, target }) => {
                course(Course::Ping { connections, window, warm_up, time: secs }, target)
            }
            Self::Subscribe(LowSubscribe { connections, filters, per_packet, qos, target }) => {
                course(Course::Subscribe { connections: connections as usize, filters, per_packet, qos }, target)
            }
            Self::Offline(LowOffline { sessions, messages, payload, one_topic, target }) => {
                course(Course::Offline { sessions, messages, payload_bytes: payload, one_topic }, target)
            }
            Self::Retained(LowRetained { messages, subscribers, payload, qos, target }) => {
                course(Course::Retained { messages, subscribers, payload_bytes: payload, qos }, target)
            }
        }
    }
}

impl LowPace {
    fn pace(&self) -> Pace {
        self.rate.map_or(Pace::Window(self.window), Pace::Rate)
    }
}

impl LowMessages {
    fn traffic(self, name: &'static str, shape: Shape, publishers: u32, subscribers: u32, pace: Pace) -> Traffic {
        Traffic {
            name,
            shape,
            publishers,
            subscribers,
            qos: self.qos,
            payload_bytes: self.payload,
            keep_sessions: self.keep_sessions,
            pace,
            warm_up: self.times.warm_up,
            time: self.times.secs,
        }
    }
}

impl LowPairsBeside {
    fn traffic(self, name: &'static str) -> Traffic {
        self.messages.traffic(name, Shape::Pairs, self.pairs, self.pairs, Pace::Rate(self.rate))
    }
}
