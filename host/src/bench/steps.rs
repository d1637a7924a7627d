//! Benchmarks that go from step to step: connecting, subscribing, what is kept for those who are away.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::codec::ProtocolVersion;

use super::check::{Check, InOrder};
use super::churn;
use super::dial::{self, Accepted, Manner};
use super::disturbed;
use super::error::Error;
use super::handshakes;
use super::idle;
use super::link::Link;
use super::packets::{Template, clear_retained};
use super::plan::{Address, Disturbance, Options, Pace, Target, Traffic, wildcard_filter};
use super::publisher::{Publisher, Schedule};
use super::report::Progress;
use super::shared::{Phase, Totals};
use super::stage::{Cast, Moment, Played, Seconds, play};
use super::steps_report::{Step, StepsReport};
use super::traffic::{check_qos, resident};

/// Messages of the one publisher that fills queues and topics which are not acknowledged yet.
const FILL_WINDOW: u32 = 200;
/// Bytes that are written at once where no answer is waited for.
const WRITE_BYTES: usize = 64 * 1024;

/// A benchmark in steps.
#[derive(Debug, Clone, PartialEq)]
pub enum Course {
    /// Clients come and go: connection, CONNECT, CONNACK, DISCONNECT.
    Connect {
        /// Connections that each thread opens before it waits for the first CONNACK.
        at_once: usize,
        /// For how long.
        time: Duration,
    },
    /// Clients come and stay, and do nothing.
    Idle {
        /// How many.
        connections: usize,
        /// Connections that are opened before the first CONNACK is waited for.
        at_once: usize,
        /// Their Keep Alive, in seconds: half as long after the last one, each sends a PINGREQ. 0: none.
        keep_alive_secs: u16,
        /// How long they stay.
        time: Duration,
    },
    /// PINGREQ and PINGRESP.
    Ping {
        /// How many clients.
        connections: u32,
        /// PINGREQ of each that are not answered yet.
        window: u32,
        /// How long the load runs before it is measured.
        warm_up: Duration,
        /// For how long it is measured.
        time: Duration,
    },
    /// SUBSCRIBE to different filters, half of them with `+`, half with `#`.
    Subscribe {
        /// How many clients.
        connections: usize,
        /// How many filters all of them have together.
        filters: u32,
        /// Filters in one SUBSCRIBE.
        per_packet: usize,
        /// The QoS that is asked for.
        qos: u8,
    },
    /// Messages of QoS 1 for sessions whose clients are away, and then come back.
    Offline {
        /// How many sessions.
        sessions: u32,
        /// Messages for each.
        messages: u32,
        /// The size of a payload.
        payload_bytes: usize,
        /// All sessions have subscribed to one topic, and get the same messages; else each to its own.
        one_topic: bool,
    },
    /// Retained messages, each of its own topic, and clients that subscribe to all of them.
    Retained {
        /// How many.
        messages: u32,
        /// How many clients get all of them.
        subscribers: u32,
        /// The size of a payload.
        payload_bytes: usize,
        /// The QoS of the subscriptions; the messages are published with QoS 1.
        qos: u8,
    },
    /// A canary, which is pairs at a fixed rate over plain TCP, beside very many TLS handshakes; and beside a thread that spins
    /// for as long.
    Handshakes {
        /// The pairs, with [`Pace::Rate`]; its time is that of the canary alone.
        canary: Traffic,
        /// Where the canary's clients connect to, the same broker.
        canary_addr: Address,
        /// How many handshakes come at once.
        handshakes: usize,
        /// How often.
        rounds: u32,
    },
    /// Pairs at a fixed rate, first alone and then beside something.
    Disturbed {
        /// The pairs, with [`Pace::Rate`].
        pairs: Traffic,
        /// What is beside them.
        by: Disturbance,
    },
}

/// Runs it.
pub(super) fn run(
    target: &Target,
    course: &Course,
    options: &Options,
    progress: &mut dyn FnMut(&Progress),
) -> Result<StepsReport, Error> {
    let run = Run { target, options };
    match course.clone() {
        Course::Connect { at_once, time } => {
            let mut report = run.report("connect", json!({ "at_once": at_once }));
            report.steps.push(churn::run(target, options, at_once, time)?);
            Ok(report)
        }
        Course::Idle { connections, at_once, keep_alive_secs, time } => {
            let manner = Manner { at_once: Some(at_once), keep_alive_secs, ..Manner::of(options) };
            idle::run(target, options, connections, manner, time, progress)
        }
        Course::Ping { connections, window, warm_up, time } => run.ping(connections, window, warm_up, time, progress),
        Course::Subscribe { connections, filters, per_packet, qos } => {
            run.subscribe(connections, filters, per_packet, qos, progress)
        }
        Course::Offline { sessions, messages, payload_bytes, one_topic } => {
            run.offline(sessions, messages, payload_bytes, one_topic, progress)
        }
        Course::Retained { messages, subscribers, payload_bytes, qos } => {
            run.retained(messages, subscribers, payload_bytes, qos, progress)
        }
        Course::Handshakes { canary, canary_addr, handshakes, rounds } => {
            handshakes::run(target, options, &canary, &canary_addr, handshakes, rounds, progress)
        }
        Course::Disturbed { pairs, by } => disturbed::run(target, &pairs, by, options, progress),
    }
}

struct Run<'a> {
    target: &'a Target,
    options: &'a Options,
}

impl Run<'_> {
    /// A moment of a step that this thread makes.
    fn now(&self) -> Result<Moment, Error> {
        Moment::of_this_thread(self.options)
    }

    /// A moment before the threads of a step begin.
    fn before_threads(&self) -> Result<Moment, Error> {
        Moment::take(Totals::default(), &[], self.options)
    }

    fn report(&self, bench: &'static str, settings: serde_json::Value) -> StepsReport {
        StepsReport::new(bench, self.target, self.options, settings)
    }

    fn ping(
        &self,
        connections: u32,
        window: u32,
        warm_up: Duration,
        time: Duration,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<StepsReport, Error> {
        let mut report = self.report("ping", json!({ "connections": connections, "window": window }));
        let ready = dial::connect_all(self.target, 0..connections as usize, Manner::default(), progress, |_| None)?;
        let publishers = (0..connections)
            .zip(ready)
            .map(|(id, (link, _))| Ok((link.nonblocking()?, Publisher::pings(id))))
            .collect::<Result<_, Error>>()?;
        let schedule = Schedule::new(Pace::Window(window), connections);
        let cast = Cast { subscribers: Vec::new(), publishers, sources: 0, schedule, keep_alive_secs: None };
        let (window, played) = play(self.target, self.options, cast, |shared| {
            let mut seconds = Seconds::new(shared, self.target, self.options, progress)?;
            seconds.wait(warm_up, true, connections.into())?;
            let start = Moment::of(shared, self.options)?;
            shared.set_phase(Phase::Measure);
            seconds.wait(warm_up + time, false, connections.into())?;
            let end = Moment::of(shared, self.options)?;
            shared.set_phase(Phase::Drain);
            seconds.wait_complete(Phase::Drain, |now| now.received >= now.published)?;
            Ok(end.since(&start))
        })?;
        let step = Step::new("ping", "PINGREQ", window.delivered, window, self.options.threads);
        report.steps.push(step.with_latency(&played.latency));
        report.count(played.totals.published, &played);
        Ok(report)
    }

    fn subscribe(
        &self,
        connections: usize,
        filters: u32,
        per_packet: usize,
        qos: u8,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<StepsReport, Error> {
        let settings = json!({ "connections": connections, "filters": filters, "per_packet": per_packet, "qos": qos });
        let mut report = self.report("subscribe", settings);
        let mut ready = dial::connect_all(self.target, 0..connections, Manner::of(self.options), progress, |_| None)?;
        let packet = |first: u32| {
            let numbers = first..filters.min(first.saturating_add(per_packet as u32));
            let texts: Vec<String> = numbers.map(|number| wildcard_filter(self.target, number)).collect();
            (texts.len(), dial::subscribe_packet(self.target, &texts, qos))
        };
        let packets: Vec<_> = (0..filters).step_by(per_packet).map(packet).collect();
        let (start, resident_start) = (self.now()?, resident(self.options)?);
        for round in packets.chunks(connections) {
            for ((link, _), (_, packet)) in ready.iter_mut().zip(round) {
                link.write(packet)?;
            }
            for ((link, _), (filters, _)) in ready.iter_mut().zip(round) {
                dial::read_suback(link, qos, *filters)?;
            }
        }
        let (end, resident_end) = (self.now()?, resident(self.options)?);
        let step = Step::new("subscribe", "filter", filters.into(), end.since(&start), 1);
        report.steps.push(step.with_memory(resident_start, resident_end));
        dial::disconnect_all(ready.into_iter().map(|(link, _)| link));
        Ok(report)
    }

    fn offline(
        &self,
        sessions: u32,
        messages: u32,
        payload_bytes: usize,
        one_topic: bool,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<StepsReport, Error> {
        let settings = json!({
            "sessions": sessions, "messages": messages, "payload_bytes": payload_bytes, "one_topic": one_topic, "qos": 1,
        });
        let mut report = self.report("offline", settings);
        let topic = |session: u32| {
            let name = &self.target.name;
            if one_topic { format!("bench/{name}/all") } else { format!("bench/{name}/{session}") }
        };
        let numbers = 0..sessions as usize;
        let kept = Manner { clean: false, ..Manner::default() };
        let ready = dial::connect_all(self.target, numbers.clone(), kept, progress, |number| {
            Some((vec![topic(number as u32)], 1))
        })?;
        if ready.iter().any(|(_, accepted)| accepted.session_present) {
            return Err(dial::has_sessions());
        }
        dial::disconnect_all(ready.into_iter().map(|(link, _)| link));
        let topics = if one_topic { 1 } else { sessions };
        let outcome = self.fill((0..topics).map(topic), false, payload_bytes, topics * messages, progress);
        let outcome = outcome.and_then(|enqueue| {
            let queued = u64::from(sessions) * u64::from(messages);
            report.steps.push(enqueue.named("enqueue", "queued message", queued));
            let (drain, played) = self.drain(sessions, messages, one_topic, kept, progress)?;
            report.steps.push(drain);
            report.count(queued, &played);
            Ok(())
        });
        // Whatever has become of it, nothing is left behind: a clean start ends the session before.
        let ready = dial::connect_all(self.target, numbers, Manner::default(), progress, |_| None);
        outcome?;
        dial::disconnect_all(ready?.into_iter().map(|(link, _)| link));
        Ok(report)
    }

    /// One publisher sends so many messages to these topics in turn, with QoS 1.
    fn fill(
        &self,
        topics: impl Iterator<Item = String>,
        retain: bool,
        payload_bytes: usize,
        count: u32,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Step, Error> {
        let version = self.target.version;
        let templates: Arc<[Template]> =
            topics.map(|topic| Template::new(version, &topic, 1, retain, payload_bytes)).collect();
        let (link, accepted) = self.one_more()?;
        check_qos([&accepted], 1)?;
        let publisher = Publisher::new(0, templates, 1, accepted.receive_maximum, 0).limited(count.into());
        let cast = Cast {
            subscribers: Vec::new(),
            publishers: vec![(link.nonblocking()?, publisher)],
            sources: 0,
            schedule: Schedule::new(Pace::Window(FILL_WINDOW), 1),
            keep_alive_secs: None,
        };
        let (start, resident_start) = (self.before_threads()?, resident(self.options)?);
        let options = Options { threads: 1, ..self.options.clone() };
        let (end, played) = play(self.target, &options, cast, |shared| {
            let mut seconds = Seconds::new(shared, self.target, self.options, progress)?;
            seconds.wait_complete(Phase::WarmUp, |now| now.published == u64::from(count))?;
            Moment::of(shared, self.options)
        })?;
        let acknowledged = played.totals.published - played.totals.in_flight - played.totals.refused;
        if acknowledged < u64::from(count) {
            let why = played.ends.first().map(|why| format!(": {why}")).unwrap_or_default();
            return Err(Error::Lost(format!("the broker acknowledged {acknowledged} of {count} messages{why}")));
        }
        let step = Step::new("publish", "message", acknowledged, end.since(&start), 1);
        Ok(step.with_memory(resident_start, resident(self.options)?))
    }

    /// The clients of sessions come back, and get what was kept for them.
    fn drain(
        &self,
        sessions: u32,
        messages: u32,
        one_topic: bool,
        kept: Manner,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(Step, Played), Error> {
        let (start, threads) = (self.before_threads()?, self.options.threads);
        let ready = dial::connect_all(self.target, 0..sessions as usize, kept, progress, |_| None)?;
        // CONNACK of MQTT 3.1 does not say it.
        let says_it = self.target.version != ProtocolVersion::V3_1;
        let missing = ready.iter().position(|(_, accepted)| !accepted.session_present);
        if let Some(missing) = missing.filter(|_| says_it) {
            return Err(Error::Lost(format!("the broker has not kept the session of client {missing}")));
        }
        let check = |session| if one_topic { InOrder::new(0..1, 0, 1) } else { InOrder::new(0..1, session, sessions) };
        let subscribers = (0..sessions).zip(ready).map(|(session, (link, _))| {
            Ok((link.nonblocking()?, Check::InOrder(check(session)), session as usize % threads))
        });
        let expected = u64::from(sessions) * u64::from(messages);
        self.receive("drain", subscribers.collect::<Result<_, Error>>()?, expected, start, progress)
    }

    /// Waits until subscribers have got so many messages of one publisher, which need not be there.
    fn receive(
        &self,
        name: &'static str,
        subscribers: Vec<(Link, Check, usize)>,
        expected: u64,
        start: Moment,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(Step, Played), Error> {
        let schedule = Schedule::new(Pace::Window(1), 1);
        let cast = Cast { subscribers, publishers: Vec::new(), sources: 1, schedule, keep_alive_secs: None };
        let (end, played) = play(self.target, self.options, cast, |shared| {
            let mut seconds = Seconds::new(shared, self.target, self.options, progress)?;
            seconds.wait_complete(Phase::WarmUp, |now| now.received >= expected)?;
            Moment::of(shared, self.options)
        })?;
        let window = end.since(&start);
        Ok((Step::new(name, "message", played.totals.received, window, self.options.threads), played))
    }

    fn retained(
        &self,
        messages: u32,
        subscribers: u32,
        payload_bytes: usize,
        qos: u8,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<StepsReport, Error> {
        let settings = json!({
            "messages": messages, "subscribers": subscribers, "payload_bytes": payload_bytes, "qos": qos,
        });
        let mut report = self.report("retained", settings);
        let topic = |number: u32| format!("bench/{}/{number}/state", self.target.name);
        let outcome = self.fill((0..messages).map(topic), true, payload_bytes, messages, progress);
        let outcome = outcome.and_then(|store| {
            report.steps.push(store.named("store", "retained message", messages.into()));
            let (replay, played) = self.replay(messages, subscribers, qos, progress)?;
            report.steps.push(replay);
            report.count(u64::from(messages) * u64::from(subscribers), &played);
            Ok(())
        });
        // Whatever has become of it, nothing is left behind.
        let cleared = self.clear((0..messages).map(topic));
        outcome?;
        cleared?;
        Ok(report)
    }

    /// Clients subscribe to all retained messages of this run.
    fn replay(
        &self,
        messages: u32,
        subscribers: u32,
        qos: u8,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(Step, Played), Error> {
        let threads = self.options.threads;
        let ready = dial::connect_all(self.target, 0..subscribers as usize, Manner::default(), progress, |_| None)?;
        let start = self.before_threads()?;
        let filter = [format!("bench/{}/#", self.target.name)];
        let mut waiting = Vec::with_capacity(ready.len());
        for (number, (mut link, _)) in ready.into_iter().enumerate() {
            link.write(&dial::subscribe_packet(self.target, &filter, qos))?;
            // They come in whatever order: each client is a group of its own.
            waiting.push((link.nonblocking()?, Check::Group(number / threads), number % threads));
        }
        let expected = u64::from(messages) * u64::from(subscribers);
        self.receive("replay", waiting, expected, start, progress)
    }

    /// Deletes retained messages.
    fn clear(&self, topics: impl Iterator<Item = String>) -> Result<(), Error> {
        let (mut link, _) = self.one_more()?;
        let mut bytes = Vec::new();
        for topic in topics {
            bytes.extend(clear_retained(self.target.version, &topic));
            if bytes.len() > WRITE_BYTES {
                link.write(&bytes)?;
                bytes.clear();
            }
        }
        link.write(&bytes)?;
        dial::wait_done(&mut link)?;
        dial::disconnect_all([link]);
        Ok(())
    }

    /// A connection whose number no other one has.
    fn one_more(&self) -> Result<(Link, Accepted), Error> {
        const NUMBER: usize = 9_999_999;
        let mut ready = dial::connect_all(self.target, NUMBER..NUMBER + 1, Manner::default(), &mut |_| {}, |_| None)?;
        Ok(ready.pop().expect("one was asked for"))
    }
}
