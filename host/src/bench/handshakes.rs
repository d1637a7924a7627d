//! Very many TLS handshakes at once: does anybody else have to wait for them?
//!
//! Beside them runs a canary, pairs at a fixed rate over plain TCP. It runs alone, too, and beside a thread that spins on the
//! broker's cores for as long as the handshakes took: what anything that takes as much time would do to it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::process::Pid;
use rustix::thread::{sched_getaffinity, sched_setaffinity};
use serde_json::json;

use super::dial::{self, Manner};
use super::disturbed::{ALONE, NICE, run_pairs};
use super::error::Error;
use super::figures::{Window, round};
use super::link::Link;
use super::plan::{Address, Options, Pace, Target, Traffic};
use super::report::Progress;
use super::shared::{Phase, Totals};
use super::stage::{Moment, Played, Seconds, play};
use super::steps_report::{Step, StepsReport};
use super::traffic;
use super::usage::this_thread;

/// The numbers of the canary's connections; those of the handshakes begin with 0, as they come from several addresses.
const CANARY: usize = 4_000_000;
/// How often it is looked whether the handshakes are done.
const LOOK: Duration = Duration::from_millis(1);
/// The canary runs for so long before something comes beside it.
const WARM_UP: Duration = Duration::from_millis(300);

/// Runs the canary alone, then in turns beside handshakes and beside a thread that spins.
pub(super) fn run(
    target: &Target,
    options: &Options,
    canary: &Traffic,
    canary_addr: &Address,
    handshakes: usize,
    rounds: u32,
    progress: &mut dyn FnMut(&Progress),
) -> Result<StepsReport, Error> {
    canary.check().map_err(Error::NotStarted)?;
    dial::check_open_files(handshakes + canary.connections())?;
    let plain = Target { addr: canary_addr.clone(), tls: None, websocket: None, ..target.clone() };
    let Pace::Rate(rate) = canary.pace else { unreachable!("a canary has a rate") };
    let settings = json!({
        "handshakes": handshakes, "rounds": rounds, "canary": plain.addr.to_string(),
        "pairs": canary.publishers, "rate": rate, "qos": canary.qos, "payload_bytes": canary.payload_bytes,
    });
    let mut report = StepsReport::new("handshakes", target, options, settings);
    run_pairs("alone", ALONE, &plain, canary, options, &mut report, progress)?;
    let (mut shaking, mut spinning, mut shaken) = (Beside::new(), Beside::new(), Beside::new());
    for _ in 0..rounds {
        let links = opened(target, handshakes)?;
        let shake = || shake_hands(target, options, links);
        let (window, played, Shaken { window: own, latency, links }) =
            beside(&plain, options, canary, progress, shake)?;
        dial::disconnect_all(links);
        report.count(expected(&played), &played);
        report.count_answers(handshakes as u64, latency.len());
        shaking.add(window, &played.latency);
        shaken.add(own, &latency);
        let (window, played, ()) = beside(&plain, options, canary, progress, || spin(options, window.time))?;
        report.count(expected(&played), &played);
        spinning.add(window, &played.latency);
    }
    let p99 = |beside: &Beside| beside.latency.value_at_quantile(0.99).max(1) as f64;
    report.say("p99_ratio", round(p99(&shaking) / p99(&spinning)).into());
    let step = |name, operation, beside: &Beside, count, threads| {
        Step::new(name, operation, count, beside.window, threads).with_latency(&beside.latency)
    };
    let canaries = |name, beside: &Beside| step(name, "message", beside, beside.window.delivered, options.threads);
    report.steps.push(canaries("spinning", &spinning));
    report.steps.push(canaries("shaking", &shaking));
    report.steps.push(step("handshakes", "handshake and CONNECT", &shaken, shaken.latency.len(), 1));
    Ok(report)
}

/// What all rounds have found.
struct Beside {
    window: Window,
    latency: Histogram<u64>,
}

impl Beside {
    fn new() -> Self {
        Self { window: Window::default(), latency: super::latencies() }
    }

    fn add(&mut self, window: Window, latency: &Histogram<u64>) {
        self.window = self.window.and(window);
        self.latency.add(latency).expect("their bounds are the same");
    }
}

fn expected(played: &Played) -> u64 {
    played.totals.published - played.totals.refused
}

/// Runs the canary for as long as something else takes, on a thread of its own, and measures it.
fn beside<T: Send>(
    plain: &Target,
    options: &Options,
    canary: &Traffic,
    progress: &mut dyn FnMut(&Progress),
    something: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<(Window, Played, T), Error> {
    let cast = traffic::cast(plain, canary, CANARY, options, progress)?;
    let played = play(plain, options, cast, |shared| {
        let mut seconds = Seconds::new(shared, plain, options, progress)?;
        seconds.wait(WARM_UP, true, canary.connections() as u64)?;
        let start = Moment::of(shared, options)?;
        shared.set_phase(Phase::Measure);
        let done = std::thread::scope(|scope| {
            let thread = scope.spawn(something);
            while !thread.is_finished() {
                std::thread::sleep(LOOK);
            }
            thread.join().expect("a thread of the load does not panic")
        })?;
        let end = Moment::of(shared, options)?;
        shared.set_phase(Phase::Drain);
        seconds.wait_complete(Phase::Drain, |now| now.received >= now.published - now.refused)?;
        Ok((end.since(&start), done))
    });
    traffic::end_sessions(plain, canary, CANARY, progress)?;
    let ((window, done), played) = played?;
    Ok((window, played, done))
}

/// Connections of which nobody has said anything yet; what they will say first is made.
fn opened(target: &Target, handshakes: usize) -> Result<Vec<Link>, Error> {
    (0..handshakes).map(|number| Link::open_socket(target, number, handshakes, false)).collect()
}

/// What became of handshakes.
struct Shaken {
    window: Window,
    latency: Histogram<u64>,
    /// Those that were let in.
    links: Vec<Link>,
}

/// All of them begin, and each goes on to its CONNACK; whoever does not get there is left behind.
fn shake_hands(target: &Target, options: &Options, mut links: Vec<Link>) -> Result<Shaken, Error> {
    // It gives way to the canary, where they have to share a core. Where it may not, it does not.
    let _ = rustix::process::setpriority_process(None, NICE);
    let now = || Moment::take(Totals::default(), &[this_thread()], options);
    let (start, began, mut latency) = (now()?, Instant::now(), super::latencies());
    links.retain_mut(|link| link.begin().is_ok());
    let mut number = 0;
    links.retain_mut(|link| {
        number += 1;
        link.write(&dial::connect_packet(target, number, Manner::default())).is_ok()
    });
    links.retain_mut(|link| {
        let is_in = dial::read_connack(target, link).is_ok();
        if is_in {
            latency.saturating_record(began.elapsed().as_nanos() as u64);
        }
        is_in
    });
    Ok(Shaken { window: now()?.since(&start), latency, links })
}

/// Spins on the broker's cores, if it is known which these are.
fn spin(options: &Options, time: Duration) -> Result<(), Error> {
    let pid = options.pid.and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    if let Some(cores) = pid.and_then(|pid| sched_getaffinity(Some(pid)).ok()) {
        // Where it may not be there, it is somewhere else.
        let _ = sched_setaffinity(None, &cores);
    }
    let (began, mut number) = (Instant::now(), 0_u64);
    while began.elapsed() < time {
        number = std::hint::black_box(number.wrapping_mul(3).wrapping_add(1));
    }
    Ok(())
}
