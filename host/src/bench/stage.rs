//! Connections on threads, from the start of the threads to what they found; and how far they have come meanwhile.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::check::{Check, Faults};
use super::engine::{Engine, Outcome};
use super::error::Error;
use super::figures::Window;
use super::link::{self, Link};
use super::plan::{Options, Target};
use super::publisher::{Publisher, Schedule};
use super::report::{Progress, Second};
use super::shared::{Phase, Shared, Totals};
use super::usage::{Usage, this_thread};

/// How often it is looked whether they have come.
const LOOK: Duration = Duration::from_millis(1);

/// Who takes part.
pub(super) struct Cast {
    /// Each with the thread that it is on.
    pub(super) subscribers: Vec<(Link, Check, usize)>,
    /// In the order of their numbers.
    pub(super) publishers: Vec<(Link, Publisher)>,
    /// How many publishers there have been whose messages come, if they are not in this cast.
    pub(super) sources: u32,
    pub(super) schedule: Schedule,
    /// The Keep Alive that the broker asked for, the shortest one.
    pub(super) keep_alive_secs: Option<u16>,
}

/// What came of it, all threads together.
pub(super) struct Played {
    pub(super) totals: Totals,
    pub(super) faults: Faults,
    pub(super) stalls: u64,
    pub(super) ends: Vec<String>,
    pub(super) latency: Histogram<u64>,
}

/// Runs the threads for as long as `watch` takes.
pub(super) fn play<T>(
    target: &Target,
    options: &Options,
    cast: Cast,
    watch: impl FnOnce(&Shared) -> Result<T, Error>,
) -> Result<(T, Played), Error> {
    let system = |error| Error::NotStarted(format!("the system has no room for this load: {error}"));
    let Cast { subscribers, publishers, sources, schedule, keep_alive_secs } = cast;
    // Twice in the time in which the broker wants to hear something.
    let ping_every = keep_alive_secs.map(|secs| Duration::from_secs(u64::from(secs)) / 2);
    let count = u32::try_from(publishers.len()).expect("fewer than there may be").max(sources);
    let shared = Shared::new(options.threads, count, schedule, target.version, options.spin, ping_every);
    let shared = shared.map_err(system)?;
    let packet_bytes = publishers.iter().map(|(_, publisher)| publisher.packet_bytes()).max().unwrap_or(0);
    let engine = |thread| Engine::new(&shared, thread, packet_bytes).map_err(system);
    let mut engines = (0..options.threads).map(engine).collect::<Result<Vec<_>, _>>()?;
    for (link, check, thread) in subscribers {
        engines[thread].add_subscriber(link, check).map_err(system)?;
    }
    for (link, publisher) in publishers {
        engines[publisher.id as usize % options.threads].add_publisher(link, publisher).map_err(system)?;
    }
    let (watched, outcomes) = std::thread::scope(|scope| {
        let threads: Vec<_> = engines.into_iter().map(|engine| scope.spawn(|| run(engine))).collect();
        let ends = EndsThreads(&shared);
        let watched = watch(&shared);
        drop(ends);
        let outcomes = threads.into_iter().map(|thread| thread.join().expect("a thread of the load does not panic"));
        (watched, outcomes.collect::<Vec<_>>())
    });
    Ok((watched?, together(outcomes, shared.totals())))
}

fn run(engine: Engine<'_>) -> Outcome {
    engine.run()
}

fn together(outcomes: Vec<Outcome>, totals: Totals) -> Played {
    let latency = super::latencies();
    let mut played = Played { totals, faults: Faults::default(), stalls: 0, ends: Vec::new(), latency };
    for outcome in outcomes {
        played.faults.add(outcome.faults);
        played.stalls += outcome.stalls;
        played.ends.extend(outcome.ends);
        played.latency.add(outcome.latency).expect("their bounds are the same");
    }
    played
}

/// Ends the threads, whatever becomes of the one that watches them.
struct EndsThreads<'a>(&'a Shared);

impl Drop for EndsThreads<'_> {
    fn drop(&mut self) {
        self.0.set_phase(Phase::End);
    }
}

/// One moment of a load.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    at: Instant,
    pub(super) totals: Totals,
    broker: Option<Usage>,
    load: Usage,
}

impl Moment {
    /// `threads`: those that make the load.
    pub(super) fn take(totals: Totals, threads: &[u32], options: &Options) -> Result<Self, Error> {
        let broker = options.pid.map(Usage::of).transpose();
        let broker = broker.map_err(|why| Error::Lost(format!("the broker has ended: {why}")))?;
        Ok(Self { at: Instant::now(), totals, broker, load: Usage::of_threads(threads) })
    }

    /// Of a load that the calling thread makes.
    pub(super) fn of_this_thread(options: &Options) -> Result<Self, Error> {
        Self::take(Totals { idle_ns: link::idle_ns(), ..Totals::default() }, &[this_thread()], options)
    }

    /// Of a load that runs.
    pub(super) fn of(shared: &Shared, options: &Options) -> Result<Self, Error> {
        Self::take(shared.totals(), &shared.thread_ids(), options)
    }

    pub(super) fn since(&self, before: &Self) -> Window {
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

/// Tells about each second of a load.
pub(super) struct Seconds<'a> {
    shared: &'a Shared,
    options: &'a Options,
    /// How long it may be quiet before the last messages are given up.
    patience: Duration,
    began: Instant,
    last: Moment,
    tell: &'a mut dyn FnMut(&Progress),
}

impl<'a> Seconds<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        target: &Target,
        options: &'a Options,
        tell: &'a mut dyn FnMut(&Progress),
    ) -> Result<Self, Error> {
        let last = Moment::of(shared, options)?;
        Ok(Self { shared, options, patience: target.patience, began: Instant::now(), last, tell })
    }

    /// Waits until so much time has passed since the beginning, or all connections have ended.
    pub(super) fn wait(&mut self, until: Duration, is_warm_up: bool, connections: u64) -> Result<(), Error> {
        loop {
            let left = until.saturating_sub(self.began.elapsed());
            if left.is_zero() || self.shared.totals().closed == connections {
                return Ok(());
            }
            // A rest that is shorter than half a second belongs to the second before.
            let second = Duration::from_secs(1);
            std::thread::sleep(if left < second + second / 2 { left } else { second });
            self.tell(is_warm_up)?;
        }
    }

    fn tell(&mut self, is_warm_up: bool) -> Result<(), Error> {
        let now = Moment::of(self.shared, self.options)?;
        let window = now.since(&self.last);
        (self.tell)(&Progress::Second(Second::new(self.began.elapsed(), is_warm_up, &window)));
        self.last = now;
        Ok(())
    }

    /// Waits until everything has come, or nothing more comes for a while. Where threads publish without end, they are told to
    /// [`Phase::Drain`] before.
    pub(super) fn wait_complete(&mut self, phase: Phase, is_complete: impl Fn(&Totals) -> bool) -> Result<(), Error> {
        let without_idle = |totals| Totals { idle_ns: 0, ..totals };
        let (mut last, mut moved, mut told) = (Totals::default(), Instant::now(), Instant::now());
        loop {
            let is_heard = self.shared.have_heard(phase);
            let now = without_idle(self.shared.totals());
            if (is_heard && now.in_flight == 0 && is_complete(&now)) || moved.elapsed() > self.patience {
                return Ok(());
            }
            if now != last {
                (last, moved) = (now, Instant::now());
            }
            if told.elapsed() >= Duration::from_secs(1) {
                told = Instant::now();
                self.tell(false)?;
            }
            std::thread::sleep(LOOK);
        }
    }
}
