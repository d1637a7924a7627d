//! Counters, gauges and histograms of plugins: found or made by name, recorded with relaxed atomics, never freed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use plugin_api::abi::HostVt;

/// Bytes of a name; it has to be one that Prometheus takes.
const NAME_BYTES_MAX: usize = 200;

/// Bytes of the text that says what is measured; the rest is cut off.
const HELP_BYTES_MAX: usize = 1024;

/// Buckets of a histogram: one for each power of two, from [`LEAST_EXPONENT`] on. What is smaller goes into the first, what
/// is larger into the last.
const BUCKETS: usize = 64;
const LEAST_EXPONENT: i32 = -20;

/// A metric of a plugin, as it is at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricSample {
    /// Name of the plugin.
    pub plugin: String,
    /// Its name, which fits into Prometheus.
    pub name: String,
    /// What is measured, in the author's words.
    pub help: String,
    /// Its value.
    pub value: MetricValue,
}

/// The value of a metric.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum MetricValue {
    /// What has been added up since the server started.
    Counter(f64),
    /// What it was set to last; 0 before.
    Gauge(f64),
    /// Values, sorted into buckets.
    Histogram {
        /// How many there were.
        count: u64,
        /// Their sum.
        sum: f64,
        /// The buckets with values in them, in order: the upper bound, a power of two that belongs to the bucket, and how
        /// many values lie between the bound of the bucket before, exclusive, and this one. The last bound may be infinite.
        buckets: Vec<(f64, u64)>,
    },
}

/// Why there is no such metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoMetric {
    /// The name is none that a metric may have.
    Name,
    /// The kind is unknown, or there is a metric of another kind with this name.
    Kind,
    /// The plugin has as many as it may have.
    TooMany,
}

/// One metric.
#[derive(Debug)]
pub(super) struct Metric {
    name: String,
    help: String,
    recorded: Recorded,
}

#[derive(Debug)]
enum Recorded {
    /// Whole numbers and the rest apart: to add a whole one takes a single instruction.
    Counter {
        whole: AtomicU64,
        rest: AtomicU64,
    },
    Gauge(AtomicU64),
    Histogram {
        buckets: Box<[AtomicU64; BUCKETS]>,
        sum: AtomicU64,
    },
}

impl Recorded {
    fn new(kind: u8) -> Option<Self> {
        Some(match kind {
            HostVt::COUNTER => Self::Counter { whole: AtomicU64::new(0), rest: AtomicU64::new(0) },
            HostVt::GAUGE => Self::Gauge(AtomicU64::new(0)),
            HostVt::HISTOGRAM => {
                Self::Histogram { buckets: Box::new([const { AtomicU64::new(0) }; BUCKETS]), sum: AtomicU64::new(0) }
            }
            _ => return None,
        })
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Counter { .. } => HostVt::COUNTER,
            Self::Gauge(_) => HostVt::GAUGE,
            Self::Histogram { .. } => HostVt::HISTOGRAM,
        }
    }
}

impl Metric {
    /// Adds to a counter, sets a gauge, or puts a value into a histogram. What is no number, and what would make a counter
    /// smaller, is left out.
    #[inline]
    pub(super) fn record(&self, value: f64) {
        match &self.recorded {
            Recorded::Counter { whole, rest } => {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "compared below")]
                let number = value as u64;
                #[expect(clippy::cast_precision_loss, reason = "a number that is not the same is added as it is")]
                let is_whole = number as f64 == value && number < u64::MAX;
                if is_whole {
                    whole.fetch_add(number, Relaxed);
                } else if value > 0.0 && value.is_finite() {
                    add(rest, value);
                }
            }
            Recorded::Gauge(gauge) if !value.is_nan() => gauge.store(value.to_bits(), Relaxed),
            Recorded::Histogram { buckets, sum } if !value.is_nan() => {
                buckets[bucket_of(value)].fetch_add(1, Relaxed);
                add(sum, value);
            }
            Recorded::Gauge(_) | Recorded::Histogram { .. } => {}
        }
    }

    fn sample(&self, plugin: &str) -> MetricSample {
        #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 the last digits do not matter")]
        let value = match &self.recorded {
            Recorded::Counter { whole, rest } => {
                MetricValue::Counter(whole.load(Relaxed) as f64 + f64::from_bits(rest.load(Relaxed)))
            }
            Recorded::Gauge(gauge) => MetricValue::Gauge(f64::from_bits(gauge.load(Relaxed))),
            Recorded::Histogram { buckets, sum } => {
                let counts = buckets.iter().enumerate().map(|(at, count)| (upper_bound(at), count.load(Relaxed)));
                let buckets: Vec<(f64, u64)> = counts.filter(|(_, count)| *count != 0).collect();
                let count = buckets.iter().map(|(_, count)| count).sum();
                MetricValue::Histogram { count, sum: f64::from_bits(sum.load(Relaxed)), buckets }
            }
        };
        MetricSample { plugin: plugin.to_owned(), name: self.name.clone(), help: self.help.clone(), value }
    }
}

fn add(sum: &AtomicU64, value: f64) {
    // It never fails: the closure always has an answer.
    let _ = sum.fetch_update(Relaxed, Relaxed, |bits| Some((f64::from_bits(bits) + value).to_bits()));
}

/// The first bucket whose upper bound is not less than the value.
fn bucket_of(value: f64) -> usize {
    if value <= upper_bound(0) {
        return 0;
    }
    let last = BUCKETS - 1;
    if value > upper_bound(last - 1) {
        return last;
    }
    // It lies between two of the bounds, so it has an ordinary exponent; a power of two belongs to the bucket below.
    let bits = value.to_bits();
    let exponent = i32::try_from(bits >> 52 & 0x7FF).unwrap_or(0) - 1023;
    let is_power = bits & ((1 << 52) - 1) == 0;
    usize::try_from(exponent - LEAST_EXPONENT + i32::from(!is_power)).unwrap_or(last).min(last)
}

fn upper_bound(bucket: usize) -> f64 {
    match i32::try_from(bucket) {
        Ok(number) if bucket < BUCKETS - 1 => 2_f64.powi(LEAST_EXPONENT + number),
        _ => f64::INFINITY,
    }
}

/// The metrics of one plugin, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Metrics(Vec<&'static Metric>);

impl Metrics {
    /// Finds or makes one.
    pub(super) fn get(&mut self, kind: u8, name: &[u8], help: &[u8], max: usize) -> Result<&'static Metric, NoMetric> {
        let name = std::str::from_utf8(name).ok().filter(|name| is_name(name)).ok_or(NoMetric::Name)?;
        if let Some(metric) = self.0.iter().find(|metric| metric.name == name) {
            return if metric.recorded.kind() == kind { Ok(metric) } else { Err(NoMetric::Kind) };
        }
        let recorded = Recorded::new(kind).ok_or(NoMetric::Kind)?;
        if self.0.len() >= max {
            return Err(NoMetric::TooMany);
        }
        let help = String::from_utf8_lossy(&help[..help.len().min(HELP_BYTES_MAX)]).into_owned();
        // A thread of the plugin may use it after the instance, and after the server: it is never freed.
        let metric: &'static Metric = Box::leak(Box::new(Metric { name: name.to_owned(), help, recorded }));
        self.0.push(metric);
        Ok(metric)
    }

    pub(super) fn samples(&self, plugin: &str) -> Vec<MetricSample> {
        self.0.iter().map(|metric| metric.sample(plugin)).collect()
    }
}

/// Letters, digits, `_` and `:`, and no digit in the first place.
fn is_name(name: &str) -> bool {
    let fits = |char: char| char.is_ascii_alphanumeric() || char == '_' || char == ':';
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.chars().all(fits)
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_name_and_add_up() {
        let mut metrics = Metrics::default();
        let counter = metrics.get(HostVt::COUNTER, b"seen_total", b"What was seen.", 3).unwrap();
        for value in [1.0, 2.0, 0.25, -5.0, f64::NAN, f64::INFINITY] {
            counter.record(value);
        }
        metrics.get(HostVt::COUNTER, b"seen_total", b"", 3).unwrap().record(0.5);
        let gauge = metrics.get(HostVt::GAUGE, b"depth", b"", 3).unwrap();
        gauge.record(-7.5);
        gauge.record(f64::NAN);
        assert_eq!(metrics.get(HostVt::GAUGE, b"seen_total", b"", 3).unwrap_err(), NoMetric::Kind);
        for name in [&b""[..], b"a b", b"1st", b"\xFF"] {
            assert_eq!(metrics.get(HostVt::GAUGE, name, b"", 3).unwrap_err(), NoMetric::Name, "{name:?}");
        }
        let histogram = metrics.get(HostVt::HISTOGRAM, b"secs", b"", 3).unwrap();
        assert_eq!(metrics.get(HostVt::GAUGE, b"one_more", b"", 3).unwrap_err(), NoMetric::TooMany);
        for value in [0.0, 0.5, 0.75, 1.0, 1.5, 1e300, f64::INFINITY] {
            histogram.record(value);
        }
        let samples = metrics.samples("p");
        assert_eq!(samples[0].value, MetricValue::Counter(3.75));
        assert_eq!((&*samples[0].plugin, &*samples[0].help), ("p", "What was seen."));
        assert_eq!(samples[1].value, MetricValue::Gauge(-7.5));
        let MetricValue::Histogram { count: 7, buckets, .. } = &samples[2].value else { panic!("{samples:?}") };
        let least = 2_f64.powi(LEAST_EXPONENT);
        assert_eq!(*buckets, [(least, 1), (0.5, 1), (1.0, 2), (2.0, 1), (f64::INFINITY, 2)]);
    }

    #[test]
    fn a_value_is_in_the_first_bucket_that_holds_it() {
        for exponent in -1080..1024 {
            let power = 2_f64.powi(exponent);
            for value in [power, power * 1.000_001, power * 1.999_999] {
                let bucket = bucket_of(value);
                assert!(value <= upper_bound(bucket), "{value:e}");
                assert!(bucket == 0 || value > upper_bound(bucket - 1), "{value:e}");
            }
        }
        assert_eq!((bucket_of(-1.0), bucket_of(f64::INFINITY)), (0, BUCKETS - 1));
    }
}
