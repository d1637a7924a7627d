//! A load of messages, from connecting to the report.

use std::sync::Arc;

use super::check::{Check, InOrder};
use super::dial::{self, Accepted, Manner};

use super::error::Error;
use super::figures::Window;
use super::packets::Template;
use super::plan::{Options, Pace, Shape, Target, Traffic};
use super::publisher::{Publisher, Schedule};
use super::report::{Broker, Progress, Report};
use super::shared::{Phase, Shared};
use super::stage::{Cast, Moment, Seconds, play};
use super::usage::{Usage, resident_bytes};

/// Runs the load. `progress` is called once a second.
pub(super) fn run(
    target: &Target,
    traffic: &Traffic,
    options: &Options,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Report, Error> {
    traffic.check().map_err(Error::NotStarted)?;
    let before = resident(options)?;
    let cast = cast(target, traffic, 0, options, progress)?;
    let connected = resident(options)?;
    let played = play(target, options, cast, |shared| watch(shared, target, traffic, options, progress));
    end_sessions(target, traffic, 0, progress)?;
    let (window, played) = played?;
    let broker = options.pid.zip(window.broker).map(|(pid, used)| Broker {
        pid,
        used,
        resident_bytes: resident_bytes(pid),
        resident_per_connection: connected.saturating_sub(before) as f64 / traffic.connections() as f64,
    });
    Ok(Report::new(target, traffic, options, window, played, broker))
}

/// What the broker has in memory; 0 if it is not known which process it is.
pub(super) fn resident(options: &Options) -> Result<u64, Error> {
    let Some(pid) = options.pid else { return Ok(0) };
    Usage::of(pid).map_err(Error::NotStarted)?;
    Ok(resident_bytes(pid))
}

/// Connects everybody; the connections are numbered from `first` on.
pub(super) fn cast(
    target: &Target,
    traffic: &Traffic,
    first: usize,
    options: &Options,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Cast, Error> {
    let Traffic { publishers, subscribers, qos, .. } = *traffic;
    let numbers = first..first + traffic.connections();
    let listening = first + subscribers as usize;
    let manner = Manner { clean: !traffic.keep_sessions, ..Manner::default() };
    let mut ready = dial::connect_all(target, first..listening, manner, progress, |number| {
        Some((traffic.filters(target, (number - first) as u32), qos))
    })?;
    if ready.iter().any(|(_, accepted)| accepted.session_present) {
        return Err(dial::has_sessions());
    }
    ready.extend(dial::connect_all(target, listening..numbers.end, Manner::default(), progress, |_| None)?);
    check_qos(ready.iter().map(|(_, accepted)| accepted), qos)?;
    let keep_alive_secs = ready.iter().map(|(_, accepted)| accepted.keep_alive_secs).filter(|secs| *secs > 0).min();
    let mut ready = ready.into_iter();
    let subscribers = (0..subscribers).zip(ready.by_ref()).map(|(number, (link, _))| {
        let (check, thread) = part(traffic, number, options.threads);
        Ok((link.nonblocking()?, check, thread))
    });
    let subscribers = subscribers.collect::<Result<_, Error>>()?;
    let templates = |publisher| -> Arc<[Template]> {
        let topics = traffic.topics(target, publisher);
        topics.iter().map(|topic| Template::new(target.version, topic, qos, false, traffic.payload_bytes)).collect()
    };
    // Where all publishers send to the same topics, they share what is encoded.
    let (of_all, is_own) = (templates(0), traffic.shape == Shape::Pairs);
    let publishers = (0..publishers).zip(ready).map(|(id, (link, accepted))| {
        let templates = if is_own { templates(id) } else { Arc::clone(&of_all) };
        // A broker may deliver before it has kept what it delivers, and it is what is acknowledged that counts then.
        let unacknowledged_max = match traffic.pace {
            Pace::Window(window) if traffic.keep_sessions => u16::try_from(window).unwrap_or(u16::MAX),
            _ => u16::MAX,
        };
        let receive_maximum = accepted.receive_maximum.min(unacknowledged_max);
        let publisher = Publisher::new(id, templates, qos, receive_maximum, traffic.receivers());
        Ok((link.nonblocking()?, publisher))
    });
    let publishers = publishers.collect::<Result<_, Error>>()?;
    let schedule = Schedule::new(traffic.pace, traffic.publishers);
    Ok(Cast { subscribers, publishers, sources: 0, schedule, keep_alive_secs })
}

/// Nothing is left behind: a clean start ends the session before.
pub(super) fn end_sessions(
    target: &Target,
    traffic: &Traffic,
    first: usize,
    progress: &mut dyn FnMut(&Progress),
) -> Result<(), Error> {
    if traffic.keep_sessions {
        let numbers = first..first + traffic.subscribers as usize;
        let ready = dial::connect_all(target, numbers, Manner::default(), progress, |_| None)?;
        dial::disconnect_all(ready.into_iter().map(|(link, _)| link));
    }
    Ok(())
}

pub(super) fn check_qos<'a>(accepted: impl IntoIterator<Item = &'a Accepted>, qos: u8) -> Result<(), Error> {
    match accepted.into_iter().find(|accepted| accepted.maximum_qos < qos) {
        None => Ok(()),
        Some(Accepted { maximum_qos, .. }) => {
            Err(Error::Refused(format!("the broker takes QoS {maximum_qos} at most (CONNACK), not QoS {qos}")))
        }
    }
}

/// What a subscriber has to get, and the thread that it is on: a pair stays together, so that its threads need not talk, and
/// a group because its members are checked together.
fn part(traffic: &Traffic, subscriber: u32, threads: usize) -> (Check, usize) {
    let thread = subscriber as usize % threads;
    match traffic.shape {
        Shape::All => (Check::InOrder(InOrder::new(0..traffic.publishers, 0, 1)), thread),
        Shape::Pairs => (Check::InOrder(InOrder::new(subscriber..subscriber + 1, 0, 1)), thread),
        // It has the filters of each so many topics, and a publisher goes through them in order.
        Shape::Wildcard(_) => {
            (Check::InOrder(InOrder::new(0..traffic.publishers, subscriber, traffic.subscribers)), thread)
        }
        Shape::Shared(_) => {
            let group = traffic.group(subscriber).unwrap_or(0) as usize;
            (Check::Group(group / threads), group % threads)
        }
    }
}

/// Takes the load through its phases, and measures.
pub(super) fn watch(
    shared: &Shared,
    target: &Target,
    traffic: &Traffic,
    options: &Options,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Window, Error> {
    let connections = traffic.connections() as u64;
    let mut seconds = Seconds::new(shared, target, options, progress)?;
    seconds.wait(traffic.warm_up, true, connections)?;
    let start = Moment::of(shared, options)?;
    shared.set_phase(Phase::Measure);
    seconds.wait(traffic.warm_up + traffic.time, false, connections)?;
    let end = Moment::of(shared, options)?;
    shared.set_phase(Phase::Drain);
    let receivers = traffic.receivers();
    seconds.wait_complete(Phase::Drain, |now| now.received >= (now.published - now.refused) * receivers)?;
    Ok(end.since(&start))
}
