//! What is measured, as numbers: times, counts, how busy the load was; and how numbers are written.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::usage::Used;

/// Above this part of a core, who makes the load has no time left, and what is measured is the load.
const BUSY: f64 = 0.9;
/// Above this part of the time, waiting for a core changes what is measured.
const WAITED: f64 = 0.1;

/// What happened while it was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Window {
    pub(super) time: Duration,
    pub(super) published: u64,
    pub(super) delivered: u64,
    pub(super) idle: Duration,
    pub(super) broker: Option<Used>,
    pub(super) load: Used,
}

impl Window {
    pub(super) fn secs(&self) -> f64 {
        self.time.as_secs_f64().max(1e-9)
    }

    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            time: self.time + other.time,
            published: self.published + other.published,
            delivered: self.delivered + other.delivered,
            idle: self.idle + other.idle,
            broker: self.broker.or(other.broker).map(|one| match (self.broker, other.broker) {
                (Some(one), Some(other)) => one.and(other),
                _ => one,
            }),
            load: self.load.and(other.load),
        }
    }
}

/// How busy those were who made the load.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Load {
    /// Of one thread, the busiest: the part of the time in which it had something to do.
    pub(super) busy: f64,
    /// The part of the time in which a thread could have run, but had no core.
    pub(super) waited: f64,
}

impl Load {
    pub(super) fn new(window: &Window, threads: usize) -> Self {
        let (secs, threads) = (window.secs(), threads.max(1) as f64);
        // Asking in vain is not work. Threads do about the same, so that each has its part of it.
        let idle = window.idle.as_secs_f64() / threads;
        let waited = window.load.waited_ns as f64 / 1e9 / threads;
        // Who waits for a core has something to do, too.
        let busy = (window.load.busiest_ns as f64 / 1e9 + waited - idle).max(0.0);
        Self { busy: (busy / secs).min(1.0), waited: (waited / secs).min(1.0) }
    }
}

impl Load {
    /// What has to be known of the load, where the broker's busiest thread was so busy.
    pub(super) fn notes(&self, broker_busiest: Option<f64>) -> Vec<String> {
        let mut notes = Vec::new();
        let percent = |part: f64| format!("{:.0} %", part * 100.0);
        if is_bottleneck(self, broker_busiest) {
            let broker = match broker_busiest {
                Some(busy) => format!("the broker's busiest thread {}", percent(busy)),
                None => "how busy the broker was is not known (--pid)".to_owned(),
            };
            notes.push(format!(
                "I am the bottleneck: this load generator was busy for {} of the time, {broker}. The rate is mine, not \
                 the broker's; CPU time per message is the broker's all the same. Try --threads, or another machine.",
                percent(self.busy)
            ));
        }
        if self.waited > WAITED {
            notes.push(format!(
                "for {} of the time this load generator was kept from running by other programs: rate and latency are \
                 not the broker's alone",
                percent(self.waited)
            ));
        }
        notes
    }
}

/// Whether the load was what limited the rate: it had no time left while the broker had.
pub(super) fn is_bottleneck(load: &Load, broker_busiest: Option<f64>) -> bool {
    load.busy > BUSY && broker_busiest.is_none_or(|busy| busy < BUSY)
}

/// Times from a message's stamp to its arrival, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Latency {
    pub(super) min: f64,
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p99_9: f64,
    pub(super) p99_99: f64,
    pub(super) max: f64,
}

impl Latency {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            min: histogram.min() as f64 / 1000.0,
            mean: histogram.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: histogram.max() as f64 / 1000.0,
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "min": round(self.min), "mean": round(self.mean), "p50": round(self.p50), "p90": round(self.p90),
            "p99": round(self.p99), "p99_9": round(self.p99_9), "p99_99": round(self.p99_99), "max": round(self.max),
        })
    }
}

/// A number of events in a second, in three digits or so.
pub(super) fn rate(per_sec: f64) -> String {
    match per_sec {
        million if million >= 1e6 => format!("{:.2} M", million / 1e6),
        thousand if thousand >= 1e4 => format!("{:.1} k", thousand / 1e3),
        few => format!("{few:.0}"),
    }
}

pub(super) fn time(us: f64) -> String {
    match us {
        secs if secs >= 1e6 => format!("{:.2} s", secs / 1e6),
        millis if millis >= 1e3 => format!("{:.2} ms", millis / 1e3),
        micros => format!("{micros:.0} µs"),
    }
}

/// Four digits behind the point: more says nothing.
pub(super) fn round(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(busiest_ms: u64, waited_ms: u64, idle_ms: u64) -> Window {
        let load = Used { busiest_ns: busiest_ms * 1_000_000, waited_ns: waited_ms * 1_000_000, ..Used::default() };
        Window { time: Duration::from_secs(1), idle: Duration::from_millis(idle_ms), load, ..Window::default() }
    }

    #[test]
    fn load_that_has_no_time_left_says_that_it_is_the_bottleneck() {
        let table = [
            (window(950, 0, 0), Some(0.5), true),
            (window(950, 0, 0), None, true),
            (window(950, 0, 0), Some(0.99), false),
            (window(500, 0, 0), Some(0.1), false),
            // It would have run if it had had a core.
            (window(500, 450, 0), Some(0.5), true),
            // It asked in vain for most of the time.
            (window(1000, 0, 700), Some(0.5), false),
        ];
        for (window, broker, expected) in table {
            let load = Load::new(&window, 1);
            let notes = load.notes(broker);
            assert_eq!(is_bottleneck(&load, broker), expected, "{window:?}, broker {broker:?}");
            assert_eq!(notes.iter().any(|note| note.starts_with("I am the bottleneck")), expected, "{notes:?}");
            let waited = notes.iter().any(|note| note.contains("kept from running"));
            assert_eq!(waited, window.load.waited_ns > 100_000_000, "{notes:?}");
        }
    }

    #[test]
    fn latencies_are_in_microseconds() {
        let mut histogram = super::super::latencies();
        (1..=1000).for_each(|number| histogram.record(number * 1_000_000).unwrap());
        let latency = Latency::of(&histogram);
        let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.002;
        assert!(near(latency.min, 1_000.0) && near(latency.max, 1_000_000.0), "{latency:?}");
        assert!(near(latency.p50, 500_000.0) && near(latency.p99, 990_000.0), "{latency:?}");
        assert_eq!(Latency::of(&super::super::latencies()), Latency::default());
    }

    #[test]
    fn numbers_are_short() {
        let found = [rate(12.3), rate(9_999.0), rate(12_345.0), rate(12_345_678.0)];
        assert_eq!(found, ["12", "9999", "12.3 k", "12.35 M"]);
        assert_eq!([time(12.3), time(1_234.0), time(1_234_567.0)], ["12 µs", "1.23 ms", "1.23 s"]);
    }
}
