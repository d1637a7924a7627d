//! Counters, gauges and histograms.

use std::fmt;
use std::time::Duration;

use crate::abi::{HostVt, RawMetric};
use crate::{Host, HostError};

macro_rules! metric {
    ($(#[$about:meta])* $name:ident) => {
        $(#[$about])*
        #[derive(Clone, Copy)]
        pub struct $name(RawMetric);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

metric! {
    /// A number that only grows. Adding takes a few nanoseconds, on any thread.
    Counter
}
metric! {
    /// A number that is set.
    Gauge
}
metric! {
    /// Values, sorted into buckets: one for each power of two.
    Histogram
}

impl Counter {
    /// Adds one.
    #[inline]
    pub fn increment(self) {
        self.0.record(1.0);
    }

    /// Adds. What is negative or no number is left out.
    #[inline]
    pub fn add(self, value: f64) {
        self.0.record(value);
    }
}

impl Gauge {
    /// Sets it.
    #[inline]
    pub fn set(self, value: f64) {
        self.0.record(value);
    }
}

impl Histogram {
    /// Puts a value in.
    #[inline]
    pub fn record(self, value: f64) {
        self.0.record(value);
    }

    /// Puts a time in, in seconds.
    #[inline]
    pub fn record_duration(self, value: Duration) {
        self.0.record(value.as_secs_f64());
    }
}

impl Host {
    /// Finds or makes a counter of this plugin's. Make it once, in `init`, and keep it: it can be copied, and used on any
    /// thread. The next version of the plugin, after a swap, goes on with it.
    ///
    /// `name` is one that Prometheus takes: letters, digits, `_` and `:`, up to 200 bytes. `help` says what is counted.
    ///
    /// ```no_run
    /// # use plugin_api::{Counter, Error, Histogram, Host};
    /// struct Metered {
    ///     refused: Counter,
    ///     lookup_secs: Histogram,
    /// }
    ///
    /// fn init(host: Host) -> Result<Metered, Error> {
    ///     Ok(Metered {
    ///         refused: host.counter("refused_total", "Clients that were refused.")?,
    ///         lookup_secs: host.histogram("lookup_seconds", "Time to look a password up.")?,
    ///     })
    /// }
    /// # fn f(metered: &Metered) {
    /// metered.refused.increment();
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`HostError::Invalid`]: the name is not valid, a metric of another kind has it, or the plugin has as many as it may
    /// have; the host's log says which.
    pub fn counter(&self, name: &str, help: &str) -> Result<Counter, HostError> {
        self.metric(HostVt::COUNTER, name, help).map(Counter)
    }

    /// Finds or makes a gauge; as [`counter`](Host::counter).
    ///
    /// # Errors
    /// As there.
    pub fn gauge(&self, name: &str, help: &str) -> Result<Gauge, HostError> {
        self.metric(HostVt::GAUGE, name, help).map(Gauge)
    }

    /// Finds or makes a histogram; as [`counter`](Host::counter).
    ///
    /// # Errors
    /// As there.
    pub fn histogram(&self, name: &str, help: &str) -> Result<Histogram, HostError> {
        self.metric(HostVt::HISTOGRAM, name, help).map(Histogram)
    }

    fn metric(&self, kind: u8, name: &str, help: &str) -> Result<RawMetric, HostError> {
        self.raw.metric(kind, name, help).ok_or(HostError::Invalid)
    }
}
