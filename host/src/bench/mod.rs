//! A load generator for any MQTT broker: `host bench`.
//!
//! [`run_traffic`] connects publishers and subscribers, sends for a while as [`Traffic`] says, and checks everything that
//! comes: its number, its order, and that it came once. The [`Report`] has rates, latencies, and where the broker runs on
//! this machine, its CPU time per message and its memory.
//!
//! It uses nothing of the broker in this crate but its types.

mod check;
mod dial;
mod engine;
mod error;
mod packets;
mod plan;
mod publisher;
mod report;
mod traffic;
mod usage;

pub use error::Error;
pub use plan::{Options, Pace, Shape, Target, Traffic};
pub use report::{Progress, Report};

/// Runs a load of messages. `progress` is told about each second.
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
