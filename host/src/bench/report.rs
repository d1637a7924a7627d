//! What was measured, for people and for programs.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::figures::{Latency, Load, Window, is_bottleneck, rate, round, time};
use super::plan::{Options, Pace, Shape, Target, Traffic};
use super::stage::Played;
use super::usage::Used;

/// How far a benchmark has come.
#[derive(Debug, Clone, Copy)]
pub enum Progress {
    /// Connections are being made.
    Connecting {
        /// How many there are.
        connected: usize,
        /// How many there will be.
        connections: usize,
    },
    /// Messages, or other packets, flow.
    Second(Second),
}

/// What happened in one second.
#[derive(Debug, Clone, Copy)]
pub struct Second {
    /// Since the load began.
    pub elapsed: Duration,
    /// It is not measured yet.
    pub is_warm_up: bool,
    /// Messages that publishers sent, in one second.
    pub published_per_sec: f64,
    /// Messages that subscribers got, in one second.
    pub delivered_per_sec: f64,
    /// CPU time of the broker: 1 is one core.
    pub broker_busy: Option<f64>,
}

impl Second {
    pub(super) fn new(elapsed: Duration, is_warm_up: bool, window: &Window) -> Self {
        Self {
            elapsed,
            is_warm_up,
            published_per_sec: window.published as f64 / window.secs(),
            delivered_per_sec: window.delivered as f64 / window.secs(),
            broker_busy: window.broker.map(|used| used.cpu_ns as f64 / 1e9 / window.secs()),
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting { connected, connections } => write!(f, "connected {connected} of {connections}"),
            Self::Second(second) => second.fmt(f),
        }
    }
}

impl fmt::Display for Second {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let published = rate(self.published_per_sec);
        let delivered = rate(self.delivered_per_sec);
        write!(f, "{:>5.1} s  sent {published:>9}/s  delivered {delivered:>9}/s", self.elapsed.as_secs_f64())?;
        if let Some(busy) = self.broker_busy {
            write!(f, "  broker {:>3.0} %", busy * 100.0)?;
        }
        if self.is_warm_up { f.write_str("  (warm-up)") } else { Ok(()) }
    }
}

/// What the broker used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Broker {
    pub(super) pid: u32,
    pub(super) used: Used,
    /// At the end.
    pub(super) resident_bytes: u64,
    pub(super) resident_per_connection: f64,
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct Report {
    pub(super) bench: &'static str,
    pub(super) target: Target,
    pub(super) traffic: Traffic,
    pub(super) options: Options,
    pub(super) window: Window,
    /// Published and delivered, while it was measured.
    pub(super) messages: u64,
    /// All that follow are of the whole load, warm-up and end included.
    pub(super) published: u64,
    pub(super) expected: u64,
    pub(super) delivered: u64,
    pub(super) duplicated: u64,
    pub(super) out_of_order: u64,
    pub(super) foreign: u64,
    pub(super) refused: u64,
    pub(super) unacknowledged: u64,
    pub(super) connections_closed: u64,
    pub(super) ends: Vec<String>,
    pub(super) stalls: u64,
    pub(super) latency: Latency,
    pub(super) broker: Option<Broker>,
    pub(super) load: Load,
}

impl Report {
    pub(super) fn new(
        target: &Target,
        traffic: &Traffic,
        options: &Options,
        window: Window,
        played: Played,
        broker: Option<Broker>,
    ) -> Self {
        let Played { totals, faults, stalls, ends, latency } = played;
        Self {
            bench: traffic.name,
            target: target.clone(),
            traffic: traffic.clone(),
            options: options.clone(),
            load: Load::new(&window, options.threads),
            window,
            messages: window.published + window.delivered,
            published: totals.published,
            expected: (totals.published - totals.refused) * traffic.receivers(),
            delivered: totals.received,
            duplicated: faults.duplicated,
            out_of_order: faults.out_of_order,
            foreign: faults.foreign,
            refused: totals.refused,
            unacknowledged: totals.in_flight,
            connections_closed: totals.closed,
            ends,
            stalls,
            latency: Latency::of(&latency),
            broker,
        }
    }

    /// How many deliveries are missing.
    pub fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.delivered)
    }

    /// Whether everything came, once and in order, and the broker refused nothing and closed no connection.
    pub fn is_ok(&self) -> bool {
        self.faults().iter().all(|(count, _)| *count == 0) && self.connections_closed == 0
    }

    /// What was wrong with the messages, how often.
    fn faults(&self) -> [(u64, &'static str); 6] {
        [
            (self.lost(), "deliveries are missing"),
            (self.duplicated, "came twice"),
            (self.out_of_order, "came after a later one"),
            (self.foreign, FOREIGN),
            (self.refused, "were refused by the broker"),
            (self.unacknowledged, "were not acknowledged"),
        ]
    }

    fn broker_busiest(&self) -> Option<f64> {
        self.broker.map(|broker| broker.used.busiest_ns as f64 / 1e9 / self.window.secs())
    }

    /// CPU time of the broker in microseconds: for each message that it received or sent, and for each that it sent.
    fn cpu_us(&self, used: &Used) -> (f64, f64) {
        let per = |count: u64| if count == 0 { 0.0 } else { used.cpu_ns as f64 / 1e3 / count as f64 };
        (per(self.messages), per(self.window.delivered))
    }

    /// What has to be known to read the figures.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.load.notes(self.broker_busiest());
        if self.stalls > 0 {
            notes.push(format!(
                "nothing came for a second, {} times: what was on its way was not waited for any more",
                self.stalls
            ));
        }
        if self.connections_closed > 0 {
            let why = self.ends.first().map(String::as_str).unwrap_or("no reason is known");
            notes.push(format!("{} connections ended before the load did: {why}", self.connections_closed));
        }
        notes.extend(fault_notes(&self.faults()));
        notes
    }

    /// One object; README.md says what its fields are.
    pub fn json(&self) -> Value {
        let (window, rate) = match self.traffic.pace {
            Pace::Window(window) => (Some(window), None),
            Pace::Rate(rate) => (None, Some(rate)),
        };
        let secs = self.window.secs();
        let broker = self.broker.map(|broker| {
            let (per_message, per_delivery) = self.cpu_us(&broker.used);
            json!({
                "pid": broker.pid,
                "cpu_us_per_message": round(per_message),
                "cpu_us_per_delivery": round(per_delivery),
                "user_share": round(broker.used.user_share),
                "cores": round(broker.used.cpu_ns as f64 / 1e9 / secs),
                "busiest_thread": round(broker.used.busiest_ns as f64 / 1e9 / secs),
                "rss_bytes": broker.resident_bytes,
                "rss_bytes_per_connection": round(broker.resident_per_connection),
            })
        });
        let (load_per_message, load_per_delivery) = self.cpu_us(&self.window.load);
        let (filters, groups) = match self.traffic.shape {
            Shape::All | Shape::Pairs => (None, None),
            Shape::Wildcard(filters) => (Some(filters), None),
            Shape::Shared(groups) => (None, Some(groups)),
        };
        json!({
            "bench": self.bench,
            "broker_addr": self.target.addr.to_string(),
            "transport": self.target.transport(),
            "mqtt": self.target.version.to_string(),
            "qos": self.traffic.qos,
            "payload_bytes": self.traffic.payload_bytes,
            "keep_sessions": self.traffic.keep_sessions,
            "publishers": self.traffic.publishers,
            "subscribers": self.traffic.subscribers,
            "filters": filters,
            "groups": groups,
            "window": window,
            "rate": rate,
            "threads": self.options.threads,
            "spin": self.options.spin,
            "secs": round(secs),
            "published": self.window.published,
            "delivered": self.window.delivered,
            "published_per_sec": round(self.window.published as f64 / secs),
            "delivered_per_sec": round(self.window.delivered as f64 / secs),
            "latency_us": self.latency.json(),
            "broker": broker,
            "load": {
                "cpu_us_per_message": round(load_per_message),
                "cpu_us_per_delivery": round(load_per_delivery),
                "busy": round(self.load.busy),
                "waited": round(self.load.waited),
                "is_bottleneck": is_bottleneck(&self.load, self.broker_busiest()),
            },
            "check": {
                "published": self.published,
                "expected": self.expected,
                "delivered": self.delivered,
                "lost": self.lost(),
                "duplicated": self.duplicated,
                "out_of_order": self.out_of_order,
                "foreign": self.foreign,
                "refused": self.refused,
                "unacknowledged": self.unacknowledged,
                "connections_closed": self.connections_closed,
                "stalls": self.stalls,
            },
            "notes": self.notes(),
            "ok": self.is_ok(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Traffic { publishers, subscribers, qos, payload_bytes, pace, .. } = &self.traffic;
        let pace = match pace {
            Pace::Window(window) => format!("{window} on their way for each publisher"),
            Pace::Rate(per_sec) => format!("{per_sec} a second"),
        };
        let secs = self.window.secs();
        let kept = if self.traffic.keep_sessions { ", sessions that are kept" } else { "" };
        let shape = match self.traffic.shape {
            Shape::All | Shape::Pairs => String::new(),
            Shape::Wildcard(filters) => format!(" with {filters} filters"),
            Shape::Shared(groups) => format!(" in {groups} groups"),
        };
        writeln!(
            f,
            "{}: {publishers} publishers, {subscribers} subscribers{shape}{kept}, QoS {qos}, {payload_bytes} bytes, {pace}; \
             MQTT {} over {} to {}, {secs:.1} s",
            self.bench,
            self.target.version,
            self.target.transport(),
            self.target.addr
        )?;
        let line = |f: &mut fmt::Formatter<'_>, what: &str, text: String| writeln!(f, "  {what:<12}{text}");
        let count = |count: u64| format!("{count} ({}/s)", rate(count as f64 / secs));
        line(f, "sent", count(self.window.published))?;
        line(f, "delivered", count(self.window.delivered))?;
        let Latency { min, p50, p90, p99, p99_9, p99_99, max, .. } = self.latency;
        line(
            f,
            "latency",
            format!(
                "min {}  50 % {}  90 % {}  99 % {}  99.9 % {}  99.99 % {}  max {}",
                time(min),
                time(p50),
                time(p90),
                time(p99),
                time(p99_9),
                time(p99_99),
                time(max)
            ),
        )?;
        if let Some(Broker { used, resident_bytes, resident_per_connection, .. }) = &self.broker {
            let (per_message, per_delivery) = self.cpu_us(used);
            let cores = used.cpu_ns as f64 / 1e9 / secs;
            line(
                f,
                "broker CPU",
                format!(
                    "{per_message:.3} µs per message (received or delivered), {per_delivery:.3} µs per delivery; \
                     {cores:.2} cores, {:.0} % of it in user mode",
                    used.user_share * 100.0
                ),
            )?;
            let mib = *resident_bytes as f64 / f64::from(1 << 20);
            line(f, "broker RSS", format!("{mib:.1} MiB; {resident_per_connection:.0} bytes per connection"))?;
        }
        line(f, "load", format!("busy for {:.0} % of the time", self.load.busy * 100.0))?;
        let verdict = if self.is_ok() { "everything came, once, in order" } else { "NOT everything went well" };
        line(f, "check", format!("{} of {} deliveries: {verdict}", self.delivered, self.expected))?;
        self.notes().iter().try_for_each(|note| line(f, "note", note.clone()))
    }
}

/// What came, and was sent by somebody else.
pub(super) const FOREIGN: &str = "were not of this load: does another one use the same topics (--name)?";

/// A sentence for each of the faults that there were.
pub(super) fn fault_notes(faults: &[(u64, &str)]) -> impl Iterator<Item = String> {
    faults.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"))
}
