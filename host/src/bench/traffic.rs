//! A load of messages, from connecting to the report.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::check::{Faults, InOrder};
use super::dial::{self, Accepted};
use super::engine::{Engine, Outcome, Phase, Shared, Totals};
use super::error::Error;
use super::packets::Template;
use super::plan::{Options, Shape, Target, Traffic};
use super::publisher::{Publisher, Schedule};
use super::report::{Broker, Latency, Load, Progress, Report, Window};
use super::usage::{Usage, resident_bytes};

/// How long the last messages are waited for, after nothing has come.
const DRAIN_QUIET: Duration = Duration::from_secs(3);
/// How often it is looked whether they have come.
const DRAIN_LOOK: Duration = Duration::from_millis(2);

/// Runs the load. `progress` is called once a second.
pub(super) fn run(
    target: &Target,
    traffic: &Traffic,
    options: &Options,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Report, Error> {
    let resident_before = options.pid.map(|pid| Usage::of(pid).map(|_| resident_bytes(pid))).transpose();
    let resident_before = resident_before.map_err(Error::NotStarted)?;
    let ready = connect(target, traffic)?;
    let resident_connected = options.pid.map(resident_bytes);
    let accepted: Vec<Accepted> = ready.iter().map(|(_, accepted)| *accepted).collect();
    check_qos(&accepted, traffic.qos)?;
    let shared = Shared::new(
        options.threads,
        traffic.publishers,
        Schedule::new(traffic.pace, traffic.publishers),
        target.version,
        options.spin,
        accepted.iter().map(|accepted| accepted.keep_alive_secs).filter(|secs| *secs > 0).min().map(ping_every),
    )
    .map_err(system)?;
    let engines = engines(&shared, target, traffic, options, ready)?;
    let (window, outcomes) = std::thread::scope(|scope| {
        let threads: Vec<_> = engines.into_iter().map(|engine| scope.spawn(|| engine.run())).collect();
        let ends = EndsThreads(&shared);
        let window = watch(&shared, traffic, options, progress);
        drop(ends);
        let outcomes = threads.into_iter().map(|thread| thread.join().expect("a thread of the load does not panic"));
        (window, outcomes.collect::<Vec<_>>())
    });
    let window = window?;
    let faults = outcomes.iter().fold(Faults::default(), |mut all, outcome| {
        all.add(outcome.faults);
        all
    });
    let resident = resident_before.zip(resident_connected);
    Ok(report(target, traffic, options, window, outcomes, faults, shared.totals(), resident))
}

fn connect(target: &Target, traffic: &Traffic) -> Result<Vec<(OwnedFd, Accepted)>, Error> {
    let subscribers = traffic.subscribers as usize;
    dial::connect_all(target, traffic.connections(), true, |number| {
        (number < subscribers).then(|| (vec![traffic.topic(target, number as u32)], traffic.qos))
    })
}

fn check_qos(accepted: &[Accepted], qos: u8) -> Result<(), Error> {
    match accepted.iter().find(|accepted| accepted.maximum_qos < qos) {
        None => Ok(()),
        Some(Accepted { maximum_qos, .. }) => {
            Err(Error::Refused(format!("the broker takes QoS {maximum_qos} at most (CONNACK), not QoS {qos}")))
        }
    }
}

/// Twice in the time in which the broker wants to hear something.
fn ping_every(keep_alive_secs: u16) -> Duration {
    Duration::from_secs(u64::from(keep_alive_secs)) / 2
}

fn system(error: std::io::Error) -> Error {
    Error::NotStarted(format!("the system has no room for this load: {error}"))
}

/// Deals the connections out to threads: a pair stays together, so that its threads need not talk.
fn engines<'a>(
    shared: &'a Shared,
    target: &Target,
    traffic: &Traffic,
    options: &Options,
    ready: Vec<(OwnedFd, Accepted)>,
) -> Result<Vec<Engine<'a>>, Error> {
    let template = |publisher| {
        Template::new(target.version, &traffic.topic(target, publisher), traffic.qos, false, traffic.payload_bytes)
    };
    let packet_bytes = template(traffic.publishers.saturating_sub(1)).len();
    let engine = |thread| Engine::new(shared, thread, packet_bytes).map_err(system);
    let mut engines = (0..options.threads).map(engine).collect::<Result<Vec<_>, _>>()?;
    for (number, (fd, accepted)) in ready.into_iter().enumerate() {
        let number = number as u32;
        match number.checked_sub(traffic.subscribers) {
            None => {
                let engine = &mut engines[number as usize % options.threads];
                engine.add_subscriber(fd, InOrder::new(publishers_of(traffic, number), 0, 1)).map_err(system)?;
            }
            Some(id) => {
                let engine = &mut engines[id as usize % options.threads];
                let receivers = traffic.receivers();
                let publisher =
                    |conn| Publisher::new(conn, id, template(id), traffic.qos, accepted.receive_maximum, receivers);
                engine.add_publisher(fd, publisher).map_err(system)?;
            }
        }
    }
    Ok(engines)
}

/// Whose messages a subscriber gets.
fn publishers_of(traffic: &Traffic, subscriber: u32) -> Range<u32> {
    match traffic.shape {
        Shape::All => 0..traffic.publishers,
        Shape::Pairs => subscriber..subscriber + 1,
    }
}

/// Ends the threads, whatever becomes of the one that watches them.
struct EndsThreads<'a>(&'a Shared);

impl Drop for EndsThreads<'_> {
    fn drop(&mut self) {
        self.0.set_phase(Phase::End);
    }
}

/// One moment of the load.
struct Moment {
    at: Instant,
    totals: Totals,
    broker: Option<Usage>,
    load: Usage,
}

impl Moment {
    fn take(shared: &Shared, options: &Options) -> Result<Self, Error> {
        let broker = options.pid.map(Usage::of).transpose();
        let broker = broker.map_err(|why| Error::Lost(format!("the broker has ended: {why}")))?;
        let load = Usage::of_threads(&shared.thread_ids());
        Ok(Self { at: Instant::now(), totals: shared.totals(), broker, load })
    }

    fn since(&self, before: &Self) -> Window {
        let broker = self.broker.as_ref().zip(before.broker.as_ref());
        Window {
            time: self.at - before.at,
            published: self.totals.published - before.totals.published,
            delivered: self.totals.received - before.totals.received,
            idle: Duration::from_nanos(self.totals.idle_ns - before.totals.idle_ns),
            broker: broker.map(|(now, before)| now.since(before)),
            load: self.load.since(&before.load),
        }
    }
}

/// Takes the load through its phases, and measures.
fn watch(
    shared: &Shared,
    traffic: &Traffic,
    options: &Options,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Window, Error> {
    let connections = traffic.connections() as u64;
    let began = Instant::now();
    let mut wait = |until: Duration, is_warm_up| {
        let mut last = Moment::take(shared, options)?;
        loop {
            let left = until.saturating_sub(began.elapsed());
            if left.is_zero() || shared.totals().closed == connections {
                return Ok::<_, Error>(());
            }
            // A rest that is shorter than half a second belongs to the second before.
            let second = Duration::from_secs(1);
            std::thread::sleep(if left < second + second / 2 { left } else { second });
            let now = Moment::take(shared, options)?;
            progress(&Progress::new(began.elapsed(), is_warm_up, &now.since(&last), now.totals.received));
            last = now;
        }
    };
    wait(traffic.warm_up, true)?;
    let start = Moment::take(shared, options)?;
    shared.set_phase(Phase::Measure);
    wait(traffic.warm_up + traffic.time, false)?;
    let end = Moment::take(shared, options)?;
    shared.set_phase(Phase::Drain);
    drain(shared, traffic);
    Ok(end.since(&start))
}

/// Waits until everything has come, or nothing more comes.
fn drain(shared: &Shared, traffic: &Traffic) {
    let (mut last, mut since) = (shared.totals(), Instant::now());
    // The threads have to have heard of the phase: then they sent the last message, and their numbers are up to date.
    std::thread::sleep(DRAIN_LOOK * 5);
    loop {
        let now = shared.totals();
        let is_complete = now.received >= (now.published - now.refused) * traffic.receivers() && now.in_flight == 0;
        if is_complete || since.elapsed() > DRAIN_QUIET {
            return;
        }
        if (Totals { idle_ns: 0, ..now }) != (Totals { idle_ns: 0, ..last }) {
            since = Instant::now();
        }
        last = now;
        std::thread::sleep(DRAIN_LOOK);
    }
}

#[allow(clippy::too_many_arguments)]
fn report(
    target: &Target,
    traffic: &Traffic,
    options: &Options,
    window: Window,
    outcomes: Vec<Outcome>,
    faults: Faults,
    totals: Totals,
    resident: Option<(u64, u64)>,
) -> Report {
    let mut latency: Option<Histogram<u64>> = None;
    let (mut stalls, mut ends) = (0, Vec::new());
    for outcome in outcomes {
        stalls += outcome.stalls;
        ends.extend(outcome.ends);
        match &mut latency {
            None => latency = Some(outcome.latency),
            Some(all) => all.add(outcome.latency).expect("their bounds are the same"),
        }
    }
    let expected = (totals.published - totals.refused) * traffic.receivers();
    let messages = window.published + window.delivered;
    let broker = options.pid.zip(window.broker).zip(resident).map(|((pid, used), (before, connected))| Broker {
        pid,
        used,
        resident_bytes: resident_bytes(pid),
        resident_per_connection: connected.saturating_sub(before) as f64 / traffic.connections() as f64,
    });
    Report {
        bench: traffic.name,
        target: target.clone(),
        traffic: traffic.clone(),
        options: options.clone(),
        load: Load::new(&window, options.threads),
        window,
        messages,
        published: totals.published,
        expected,
        delivered: totals.received,
        duplicated: faults.duplicated,
        out_of_order: faults.out_of_order,
        foreign: faults.foreign,
        refused: totals.refused,
        unacknowledged: totals.in_flight,
        connections_closed: totals.closed,
        ends,
        stalls,
        latency: latency.map(|latency| Latency::of(&latency)).unwrap_or_default(),
        broker,
    }
}
