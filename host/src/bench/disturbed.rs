//! Pairs at a fixed rate, first alone and then beside something that takes the broker's time: does anybody have to wait?

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::dial::{self, Manner};
use super::error::Error;
use super::plan::{Disturbance, Options, Pace, Shape, Target, Traffic, wildcard_filter};
use super::report::Progress;
use super::shared::Phase;
use super::stage::{Cast, Moment, Seconds, play};
use super::steps_report::{Step, StepsReport};
use super::traffic;

/// The numbers of the connections, so that no two have the same: the fan-out has the first ones, as many of them come from
/// several addresses.
pub(super) const ALONE: usize = 2_000_000;
const BESIDE: usize = 4_000_000;
const STORM: usize = 6_000_000;
/// A load that disturbs gives way to the one that is measured, where they have to share a core.
pub(super) const NICE: i32 = 10;
/// How often it is looked whether the pairs are done.
const LOOK: Duration = Duration::from_millis(5);

/// Runs the pairs twice.
pub(super) fn run(
    target: &Target,
    pairs: &Traffic,
    disturbance: Disturbance,
    options: &Options,
    progress: &mut dyn FnMut(&Progress),
) -> Result<StepsReport, Error> {
    pairs.check().map_err(Error::NotStarted)?;
    let mut report = StepsReport::new(pairs.name, target, options, settings(pairs, disturbance));
    run_pairs("alone", ALONE, target, pairs, options, &mut report, progress)?;
    let stop = Stop::default();
    match disturbance {
        Disturbance::Storm { connections, filters } => {
            let storm = || storm(target, options, connections, filters, &stop);
            let storm =
                beside(storm, &stop, || run_pairs("in storm", BESIDE, target, pairs, options, &mut report, progress))?;
            report.steps.push(storm);
        }
        Disturbance::FanOut { subscribers, rate, payload_bytes } => {
            let traffic = fan_out(pairs, subscribers, rate, payload_bytes);
            let options_beside = Options { threads: 1, spin: false, ..options.clone() };
            let cast = traffic::cast(target, &traffic, 0, &options_beside, progress)?;
            let all = || deliver_to_all(target, &traffic, &options_beside, cast, &stop);
            let (fan_out, expected, played) =
                beside(all, &stop, || run_pairs("beside", BESIDE, target, pairs, options, &mut report, progress))?;
            report.steps.push(fan_out);
            report.count(expected, &played);
        }
    }
    Ok(report)
}

fn settings(pairs: &Traffic, disturbance: Disturbance) -> serde_json::Value {
    let Pace::Rate(rate) = pairs.pace else { unreachable!("pairs beside something have a rate") };
    let (count, qos, payload_bytes) = (pairs.publishers, pairs.qos, pairs.payload_bytes);
    match disturbance {
        Disturbance::Storm { connections, filters } => json!({
            "pairs": count, "rate": rate, "qos": qos, "payload_bytes": payload_bytes,
            "connections": connections, "filters": filters,
        }),
        Disturbance::FanOut { subscribers, rate: fan_out_rate, payload_bytes: fan_out_payload_bytes } => json!({
            "pairs": count, "rate": rate, "qos": qos, "payload_bytes": payload_bytes, "subscribers": subscribers,
            "fan_out_rate": fan_out_rate, "fan_out_payload_bytes": fan_out_payload_bytes,
        }),
    }
}

/// The pairs once, as a step.
pub(super) fn run_pairs(
    name: &'static str,
    first: usize,
    target: &Target,
    pairs: &Traffic,
    options: &Options,
    report: &mut StepsReport,
    progress: &mut dyn FnMut(&Progress),
) -> Result<(), Error> {
    let cast = traffic::cast(target, pairs, first, options, progress)?;
    let played = play(target, options, cast, |shared| traffic::watch(shared, target, pairs, options, progress));
    traffic::end_sessions(target, pairs, first, progress)?;
    let (window, played) = played?;
    let step = Step::new(name, "message", window.delivered, window, options.threads);
    report.steps.push(step.with_latency(&played.latency));
    report.count(played.totals.published - played.totals.refused, &played);
    Ok(())
}

/// Does something on another thread for as long as `measure` takes.
fn beside<T: Send>(
    something: impl FnOnce() -> Result<T, Error> + Send,
    stop: &Stop,
    measure: impl FnOnce() -> Result<(), Error>,
) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // The threads that it starts inherit it. Where it may not, it does not give way.
            let _ = rustix::process::setpriority_process(None, NICE);
            something()
        });
        let measured = {
            let _stops = Stops(stop);
            measure()
        };
        let done = thread.join().expect("a thread of the load does not panic");
        measured.and(done)
    })
}

/// Whether it is time to stop.
#[derive(Default)]
struct Stop(AtomicBool);

impl Stop {
    fn is_due(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Stops the other thread, whatever becomes of the one that measures.
struct Stops<'a>(&'a Stop);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Each connection subscribes to its filters and unsubscribes again, without a pause.
fn storm(target: &Target, options: &Options, connections: u32, filters: u32, stop: &Stop) -> Result<Step, Error> {
    let numbers = STORM..STORM + connections as usize;
    let mut ready = dial::connect_all(target, numbers, Manner::default(), &mut |_| {}, |_| None)?;
    let of_one = |number: u32| {
        let own: Vec<String> = (0..filters).map(|at| wildcard_filter(target, number * filters + at)).collect();
        (dial::subscribe_packet(target, &own, 0), dial::unsubscribe_packet(target, &own))
    };
    let packets: Vec<_> = (0..connections).map(of_one).collect();
    let now = || Moment::of_this_thread(options);
    let (start, mut changes, mut latency) = (now()?, 0, super::latencies());
    while !stop.is_due() {
        let began = Instant::now();
        for ((link, _), (subscribe, unsubscribe)) in ready.iter_mut().zip(&packets) {
            link.write(subscribe)?;
            link.write(unsubscribe)?;
        }
        for (link, _) in &mut ready {
            dial::read_suback(link, 0, filters as usize)?;
            dial::read_unsuback(link, filters as usize)?;
        }
        latency.saturating_record(began.elapsed().as_nanos() as u64);
        changes += u64::from(connections) * u64::from(filters) * 2;
    }
    let window = now()?.since(&start);
    dial::disconnect_all(ready.into_iter().map(|(link, _)| link));
    Ok(Step::new("storm", "subscription begun or ended", changes, window, 1).with_latency(&latency))
}

/// The load that goes to many.
fn fan_out(pairs: &Traffic, subscribers: u32, rate: f64, payload_bytes: usize) -> Traffic {
    let (shape, pace) = (Shape::All, Pace::Rate(rate));
    Traffic { shape, publishers: 1, subscribers, qos: 0, payload_bytes, keep_sessions: false, pace, ..pairs.clone() }
}

/// Publishes to all until it is time to stop. Returns how many deliveries there had to be, too.
fn deliver_to_all(
    target: &Target,
    traffic: &Traffic,
    options: &Options,
    cast: Cast,
    stop: &Stop,
) -> Result<(Step, u64, super::stage::Played), Error> {
    let (window, played) = play(target, options, cast, |shared| {
        let mut quiet = |_: &Progress| {};
        let mut seconds = Seconds::new(shared, target, options, &mut quiet)?;
        let start = Moment::of(shared, options)?;
        shared.set_phase(Phase::Measure);
        while !stop.is_due() {
            std::thread::sleep(LOOK);
        }
        shared.set_phase(Phase::Drain);
        let receivers = traffic.receivers();
        seconds.wait_complete(Phase::Drain, |now| now.received >= (now.published - now.refused) * receivers)?;
        Ok(Moment::of(shared, options)?.since(&start))
    })?;
    let expected = (played.totals.published - played.totals.refused) * traffic.receivers();
    let step = Step::new("fan-out", "delivery to many", played.totals.received, window, options.threads);
    Ok((step.with_latency(&played.latency), expected, played))
}
