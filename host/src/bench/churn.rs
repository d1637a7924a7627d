//! Clients that come and go.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::dial::{self, Manner};
use super::error::Error;
use super::link;
use super::plan::{Options, Target};
use super::shared::Totals;
use super::stage::Moment;
use super::steps_report::Step;
use super::usage::this_thread;

/// Lets them, so many of each thread at once.
pub(super) fn run(target: &Target, options: &Options, at_once: usize, time: Duration) -> Result<Step, Error> {
    let threads = options.threads;
    dial::check_open_files(at_once * threads)?;
    let (stop, done) = (AtomicBool::new(false), Done::default());
    let ids: Vec<AtomicU32> = (0..threads).map(|_| AtomicU32::new(0)).collect();
    let before = Moment::take(Totals::default(), &[], options)?;
    let (end, latency) = std::thread::scope(|scope| {
        let churn = |thread: usize| {
            let (stop, done, id) = (&stop, &done, &ids[thread]);
            scope.spawn(move || {
                id.store(this_thread(), Ordering::Release);
                churn(target, Manner::of(options), thread * at_once..(thread + 1) * at_once, stop, done)
            })
        };
        let churning: Vec<_> = (0..threads).map(churn).collect();
        let until = Instant::now() + time;
        while Instant::now() < until && !churning.iter().any(|thread| thread.is_finished()) {
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
        }
        let (received, idle_ns) = (done.connections.load(Ordering::Relaxed), done.idle_ns.load(Ordering::Relaxed));
        let totals = Totals { received, idle_ns, ..Totals::default() };
        let ids: Vec<u32> = ids.iter().map(|id| id.load(Ordering::Acquire)).collect();
        let end = Moment::take(totals, &ids, options);
        stop.store(true, Ordering::Relaxed);
        let mut all = super::latencies();
        for thread in churning {
            let latency = thread.join().expect("a thread of the load does not panic")?;
            all.add(latency).expect("their bounds are the same");
        }
        Ok::<_, Error>((end?, all))
    })?;
    let window = end.since(&before);
    Ok(Step::new("connect", "connection", window.delivered, window, threads).with_latency(&latency))
}

/// What all threads have done.
#[derive(Default)]
struct Done {
    connections: AtomicU64,
    idle_ns: AtomicU64,
}

/// Clients with these numbers come and go together, until they are to stop. Returns how long CONNACK took.
fn churn(
    target: &Target,
    manner: Manner,
    numbers: std::ops::Range<usize>,
    stop: &AtomicBool,
    done: &Done,
) -> Result<Histogram<u64>, Error> {
    let (mut latency, mut idle_ns) = (super::latencies(), link::idle_ns());
    while !stop.load(Ordering::Relaxed) {
        let mut opened = dial::open_all(target, numbers.clone(), numbers.len(), manner)?;
        for (began, link) in &mut opened {
            dial::read_connack(target, link)?;
            latency.saturating_record(began.elapsed().as_nanos() as u64);
        }
        done.connections.fetch_add(numbers.len() as u64, Ordering::Relaxed);
        dial::disconnect_all(opened.into_iter().map(|(_, link)| link));
        done.idle_ns.fetch_add(link::idle_ns() - std::mem::replace(&mut idle_ns, link::idle_ns()), Ordering::Relaxed);
    }
    Ok(latency)
}
