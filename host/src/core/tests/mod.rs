//! Tests of the core from both ends: raw bytes of clients on one side, scripted handlers on the other, under virtual time.
//!
//! Packets are written in the notation of the codec's tests, several of them separated by `|`. What stands in square
//! brackets is only there for 5.0: `30: <t> [{}] 'hi'`. Each scenario runs several times: on one worker and on more, with
//! all bytes of a packet at once and byte by byte. It has to come out the same, and to leave nothing behind.

mod handler;
mod judge;
mod kept;
mod net;

mod admission;
mod aliases;
mod alike;
mod auth;
mod budget;
mod conformance;
mod connect;
mod deferred;
mod delayed_wills;
mod deliver;
mod durable;
mod failures;
mod fresh;
mod handed_over;
mod held_acks;
mod identity;
mod inbound;
#[cfg(feature = "loom")]
mod interleavings;
mod lanes;
mod limits;
mod listeners;
mod members;
mod mount;
mod notices;
mod offered;
mod outbound;
mod queues;
mod rates;
mod reauthorise;
mod requests;
mod retained;
mod runs;
#[cfg(not(feature = "loom"))]
mod scaling;
mod services;
mod session;
mod shared;
mod shared_train;
mod sim;
mod subscribe;
mod swap;
mod timers;
mod train;
mod v3;
mod verdicts;
mod wary;
mod wills;
mod work;
mod workers;

pub(super) use self::net::{CONNACK, CONNACK_RESUMED, Net, Setup};
pub(super) use crate::codec::ProtocolVersion::{self, V3_1, V3_1_1, V5};

/// All versions, for what they have in common.
const VERSIONS: [ProtocolVersion; 3] = [V3_1, V3_1_1, V5];

/// How often a scenario runs, and how.
const MODES: [Mode; 4] = [
    Mode { workers: 1, bytewise: false },
    Mode { workers: 1, bytewise: true },
    Mode { workers: 2, bytewise: false },
    Mode { workers: 3, bytewise: true },
];

#[derive(Debug, Clone, Copy)]
struct Mode {
    workers: usize,
    /// Bytes are handed over and taken one by one, with a turn after each.
    bytewise: bool,
}

/// Runs a scenario in all modes.
fn scenario(run: impl Fn(&mut Net)) {
    scenario_with(&Setup::default(), run);
}

/// The same with other bounds, or without a plugin.
fn scenario_with(setup: &Setup, run: impl Fn(&mut Net)) {
    for mode in MODES {
        scenario_in(mode, setup, &run);
    }
}

/// Runs a scenario in one mode, which is printed if it fails.
fn scenario_in(mode: Mode, setup: &Setup, run: impl Fn(&mut Net)) {
    eprintln!("{mode:?}");
    let mut net = Net::new(mode, setup);
    run(&mut net);
    net.end();
}
