//! A load generator for any MQTT broker: `host bench`.
//!
//! [`run_traffic`] connects publishers and subscribers, sends for a while as [`Traffic`] says, and checks everything that
//! comes: its number, its order, and that it came once. The [`Report`] has rates, latencies, and where the broker runs on
//! this machine, its CPU time per message and its memory.
//!
//! [`run_course`] is for what is no stream of messages: connecting, subscribing, what is kept for clients that are away.
//!
//! It uses nothing of the broker in this crate but its types.

mod check;
mod churn;
mod conn;
mod dial;
mod disturbed;
mod engine;
mod error;
mod figures;
mod handshakes;
mod idle;
mod inbound;
mod link;
mod packets;
mod plan;
mod publisher;
mod report;
mod shared;
mod stage;
mod steps;
mod steps_report;
mod traffic;
mod usage;

use hdrhistogram::Histogram;

pub use error::Error;
pub use link::{Tls, TlsOptions, WebSocket};
pub use plan::{Address, Disturbance, Options, Pace, Shape, Target, Traffic};
pub use report::{Progress, Report, Second};
pub use steps::Course;
pub use steps_report::StepsReport;

/// Runs a load of messages. `progress` is called once a second.
///
/// # Errors
/// Nothing was measured: the broker was not reached, refused what the load needs, or closed a connection before the load
/// began. What goes wrong later is in the report.
pub fn run_traffic(
    target: &Target,
    traffic: &Traffic,
    options: &Options,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Report, Error> {
    traffic::run(target, traffic, options, progress)
}

/// Runs a benchmark that goes from step to step. `progress` is told about each second of those that take long.
///
/// # Errors
/// As of [`run_traffic`]; and when a connection ends before its part is done.
pub fn run_course(
    target: &Target,
    course: &Course,
    options: &Options,
    progress: &mut dyn FnMut(&Progress),
) -> Result<StepsReport, Error> {
    steps::run(target, course, options, progress)
}

/// Nanoseconds up to an hour, with three digits.
fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("these are valid bounds")
}
