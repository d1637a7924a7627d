//! What the steps of a [`Course`](super::Course) took, for people and for programs.

use std::fmt;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::figures::{Latency, Load, Window, is_bottleneck, rate, round, time};
use super::plan::{Options, Target};
use super::report::{FOREIGN, fault_notes};
use super::stage::Played;
use super::usage::resident_bytes;

/// What one step took.
#[derive(Debug, Clone)]
pub(super) struct Step {
    name: &'static str,
    /// What was done.
    operation: &'static str,
    /// How often.
    operations: u64,
    window: Window,
    load: Load,
    latency: Option<Latency>,
    /// What the broker has more in memory than before.
    grown_bytes: Option<i64>,
}

impl Step {
    /// `threads`: how many made the load.
    pub(super) fn new(
        name: &'static str,
        operation: &'static str,
        operations: u64,
        window: Window,
        threads: usize,
    ) -> Self {
        let load = Load::new(&window, threads);
        Self { name, operation, operations, window, load, latency: None, grown_bytes: None }
    }

    /// The memory of the broker before and after it, if it is known.
    pub(super) fn with_memory(self, before: u64, after: u64) -> Self {
        let grown_bytes = (before > 0).then(|| after as i64 - before as i64);
        Self { grown_bytes, ..self }
    }

    pub(super) fn with_latency(self, latency: &Histogram<u64>) -> Self {
        Self { latency: Some(Latency::of(latency)), ..self }
    }

    /// The same with another name for what was done, and how often that was.
    pub(super) fn named(self, name: &'static str, operation: &'static str, operations: u64) -> Self {
        Self { name, operation, operations, ..self }
    }

    fn per_operation(&self, number: f64) -> f64 {
        if self.operations == 0 { 0.0 } else { number / self.operations as f64 }
    }

    fn broker_busiest(&self) -> Option<f64> {
        self.window.broker.map(|used| used.busiest_ns as f64 / 1e9 / self.window.secs())
    }

    fn json(&self) -> Value {
        let secs = self.window.secs();
        let broker = self.window.broker.map(|used| {
            json!({
                "cpu_us_per_operation": round(self.per_operation(used.cpu_ns as f64 / 1e3)),
                "user_share": round(used.user_share),
                "cores": round(used.cpu_ns as f64 / 1e9 / secs),
                "busiest_thread": round(used.busiest_ns as f64 / 1e9 / secs),
                "rss_bytes_per_operation": self.grown_bytes.map(|bytes| round(self.per_operation(bytes as f64))),
            })
        });
        json!({
            "step": self.name,
            "operation": self.operation,
            "operations": self.operations,
            "secs": round(secs),
            "per_sec": round(self.operations as f64 / secs),
            "latency_us": self.latency.map(|latency| latency.json()),
            "broker": broker,
            "load": {
                "cpu_us_per_operation": round(self.per_operation(self.window.load.cpu_ns as f64 / 1e3)),
                "busy": round(self.load.busy),
                "waited": round(self.load.waited),
                "is_bottleneck": is_bottleneck(&self.load, self.broker_busiest()),
            },
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.window.secs();
        let per_sec = rate(self.operations as f64 / secs);
        write!(f, "  {:<12}{} × {}, {secs:.2} s, {per_sec}/s", self.name, self.operations, self.operation)?;
        if let Some(used) = self.window.broker {
            let (per, cores) = (self.per_operation(used.cpu_ns as f64 / 1e3), used.cpu_ns as f64 / 1e9 / secs);
            write!(f, "; broker: {per:.3} µs CPU each, {cores:.2} cores")?;
            if let Some(bytes) = self.grown_bytes {
                write!(f, ", {:.0} bytes each", self.per_operation(bytes as f64))?;
            }
        }
        if let Some(Latency { p50, p99, p99_9, max, .. }) = self.latency {
            let [p50, p99, p99_9, max] = [p50, p99, p99_9, max].map(time);
            write!(f, "; latency 50 % {p50}  99 % {p99}  99.9 % {p99_9}  max {max}")?;
        }
        writeln!(f)
    }
}

/// What a benchmark in steps found.
#[derive(Debug, Clone)]
pub struct StepsReport {
    bench: &'static str,
    target: Target,
    options: Options,
    /// An object.
    settings: Value,
    pub(super) steps: Vec<Step>,
    expected: u64,
    delivered: u64,
    duplicated: u64,
    out_of_order: u64,
    foreign: u64,
    unacknowledged: u64,
    pub(super) connections_closed: u64,
    ends: Vec<String>,
    resident_bytes: Option<u64>,
}

impl StepsReport {
    pub(super) fn new(bench: &'static str, target: &Target, options: &Options, settings: Value) -> Self {
        Self {
            bench,
            target: target.clone(),
            options: options.clone(),
            settings,
            steps: Vec::new(),
            expected: 0,
            delivered: 0,
            duplicated: 0,
            out_of_order: 0,
            foreign: 0,
            unacknowledged: 0,
            connections_closed: 0,
            ends: Vec::new(),
            resident_bytes: options.pid.map(resident_bytes),
        }
    }

    /// Takes what has come, where so much had to.
    pub(super) fn count(&mut self, expected: u64, played: &Played) {
        self.expected += expected;
        self.delivered += played.totals.received;
        self.duplicated += played.faults.duplicated;
        self.out_of_order += played.faults.out_of_order;
        self.foreign += played.faults.foreign;
        self.unacknowledged += played.totals.in_flight;
        self.connections_closed += played.totals.closed;
        self.ends.extend(played.ends.iter().cloned());
        self.resident_bytes = self.options.pid.map(resident_bytes);
    }

    /// Says something more of the whole, under a name of its own.
    pub(super) fn say(&mut self, name: &str, value: Value) {
        self.settings[name] = value;
    }

    /// The same of answers that were waited for.
    pub(super) fn count_answers(&mut self, expected: u64, came: u64) {
        self.expected += expected;
        self.delivered += came;
    }

    /// How many messages, or answers, are missing.
    pub fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.delivered)
    }

    /// Whether everything came, once and in order, and the broker closed no connection.
    pub fn is_ok(&self) -> bool {
        self.faults().iter().all(|(count, _)| *count == 0) && self.connections_closed == 0
    }

    /// What was wrong with the messages or answers, how often.
    fn faults(&self) -> [(u64, &'static str); 5] {
        [
            (self.lost(), "are missing: does the broker bound what it keeps for a client?"),
            (self.duplicated, "came twice"),
            (self.out_of_order, "came after a later one"),
            (self.foreign, FOREIGN),
            (self.unacknowledged, "were not answered"),
        ]
    }

    /// What has to be known to read the figures.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for step in &self.steps {
            let said = step.load.notes(step.broker_busiest());
            notes.extend(said.into_iter().map(|note| format!("{}: {note}", step.name)));
        }
        if self.connections_closed > 0 {
            let why = self.ends.first().map_or("no reason is known", String::as_str);
            notes.push(format!("{} connections ended before they should have: {why}", self.connections_closed));
        }
        notes.extend(fault_notes(&self.faults()));
        notes
    }

    /// One object; README.md says what its fields are.
    pub fn json(&self) -> Value {
        let mut report = json!({
            "bench": self.bench,
            "broker_addr": self.target.addr.to_string(),
            "transport": self.target.transport(),
            "mqtt": self.target.version.to_string(),
            "threads": self.options.threads,
            "spin": self.options.spin,
            "steps": self.steps.iter().map(Step::json).collect::<Vec<_>>(),
            "broker": self.options.pid.zip(self.resident_bytes).map(|(pid, bytes)| json!({ "pid": pid, "rss_bytes": bytes })),
            "check": {
                "expected": self.expected,
                "delivered": self.delivered,
                "lost": self.lost(),
                "duplicated": self.duplicated,
                "out_of_order": self.out_of_order,
                "foreign": self.foreign,
                "unacknowledged": self.unacknowledged,
                "connections_closed": self.connections_closed,
            },
            "notes": self.notes(),
            "ok": self.is_ok(),
        });
        if let (Value::Object(report), Value::Object(settings)) = (&mut report, &self.settings) {
            report.extend(settings.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        report
    }
}

impl fmt::Display for StepsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self.settings.as_object().into_iter().flatten();
        let settings: Vec<String> = settings.map(|(key, value)| format!("{key} {value}")).collect();
        writeln!(
            f,
            "{}: {}; MQTT {} over {} to {}",
            self.bench,
            settings.join(", ").replace('_', " "),
            self.target.version,
            self.target.transport(),
            self.target.addr
        )?;
        self.steps.iter().try_for_each(|step| step.fmt(f))?;
        if let Some(bytes) = self.resident_bytes {
            writeln!(f, "  {:<12}{:.1} MiB", "broker RSS", bytes as f64 / f64::from(1 << 20))?;
        }
        if self.expected > 0 {
            let verdict = if self.is_ok() { "everything came, once" } else { "NOT everything went well" };
            writeln!(f, "  {:<12}{} of {}: {verdict}", "check", self.delivered, self.expected)?;
        }
        self.notes().iter().try_for_each(|note| writeln!(f, "  {:<12}{note}", "note"))
    }
}
