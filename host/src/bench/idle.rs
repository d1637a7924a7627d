//! Clients that come and stay, and do nothing but keep their connection alive.

use std::time::{Duration, Instant};

use serde_json::json;

use super::dial::{self, Accepted, Manner};
use super::error::Error;
use super::link::Link;
use super::packets::PINGREQ;
use super::plan::{Options, Target};
use super::report::Progress;
use super::stage::Moment;
use super::steps_report::{Step, StepsReport};
use super::traffic::resident;

/// Lets `connections` come, and stay for `time`.
pub(super) fn run(
    target: &Target,
    options: &Options,
    connections: usize,
    manner: Manner,
    time: Duration,
    progress: &mut dyn FnMut(&Progress),
) -> Result<StepsReport, Error> {
    let settings = json!({
        "connections": connections, "at_once": manner.at_once, "keep_alive_secs": manner.keep_alive_secs,
    });
    let mut report = StepsReport::new("idle", target, options, settings);
    let now = || Moment::of_this_thread(options);
    let (start, resident_start) = (now()?, resident(options)?);
    let mut ready = dial::connect_all(target, 0..connections, manner, progress, |_| None)?;
    let (connected, resident_connected) = (now()?, resident(options)?);
    let asked = ready.iter().map(|(_, accepted)| accepted.keep_alive_secs);
    let ping_every = ping_every(asked, manner.keep_alive_secs);
    let pinged = stay(&mut ready, ping_every, time);
    let end = now()?;
    let step = |name, window| Step::new(name, "connection", connections as u64, window, 1);
    report.steps.push(step("connect", connected.since(&start)).with_memory(resident_start, resident_connected));
    report.steps.push(step("stay", end.since(&connected)));
    let mut open = Vec::with_capacity(connections);
    for (number, (mut link, _)) in ready.into_iter().enumerate() {
        let asked = pinged / connections + usize::from(number < pinged % connections);
        let answered = (0..asked).take_while(|_| dial::read_pingresp(&mut link).is_ok()).count();
        report.count_answers(asked as u64, answered as u64);
        if link.is_open() {
            open.push(link);
        } else {
            report.connections_closed += 1;
        }
    }
    dial::disconnect_all(open);
    Ok(report)
}

/// How often each of them sends something: after half of its Keep Alive, or of the broker's own, where it asked for one.
fn ping_every(asked: impl Iterator<Item = u16>, keep_alive_secs: u16) -> Option<Duration> {
    let secs = asked.filter(|secs| *secs > 0).min().unwrap_or(keep_alive_secs);
    (secs > 0).then(|| Duration::from_secs(secs.into()) / 2)
}

/// Waits. Meanwhile one after the other sends PINGREQ, and each so often. Returns how many that were.
fn stay(ready: &mut [(Link, Accepted)], ping_every: Option<Duration>, time: Duration) -> usize {
    let began = Instant::now();
    let sleep_until = |at: Duration| std::thread::sleep(at.saturating_sub(began.elapsed()));
    let Some(every) = ping_every else {
        sleep_until(time);
        return 0;
    };
    let (mut pinged, count) = (0, ready.len());
    loop {
        let due = every.mul_f64((pinged + 1) as f64 / count as f64);
        sleep_until(due.min(time));
        if due > time {
            return pinged;
        }
        // Whoever is gone is found when the answers are counted.
        let _ = ready[pinged % count].0.write(&PINGREQ);
        pinged += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alive_is_the_brokers_where_it_has_one() {
        let every = |asked: [u16; 2], own| ping_every(asked.into_iter(), own);
        assert_eq!(every([0, 0], 0), None);
        assert_eq!(every([0, 0], 60), Some(Duration::from_secs(30)));
        assert_eq!(every([0, 5], 60), Some(Duration::from_millis(2500)));
    }
}
