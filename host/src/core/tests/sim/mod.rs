//! Random clients, workers and networks from a seed, under virtual time, against a model of what MQTT promises.
//!
//! A run draws what it is like (workers, bounds, clients) and then one operation after the other from its seed: clients
//! connect, take over, subscribe, publish, acknowledge late, read slowly, leave in every way and are cut at any byte;
//! workers take the steps of their turns in any order; time jumps; the plugin is swapped, and answers later; another process
//! takes over (`upgrade`). Clients are
//! honest and keep their own half of the protocol's state. The oracle knows from the outside when a subscription may and
//! when it must get a message, and checks each packet that a client reads, what is owed when everything is at rest, and
//! that in the end nothing is left. With half of the seeds there is a store, and
//! with some of those the server dies now and then (`crash`).
//!
//! `SIM_SEED=1234 cargo test -p host --lib sim -- --nocapture` replays one seed, with a trace; `SIM_SEEDS=10000` runs that
//! many, `SIM_FROM=5000` from this one on; `SIM_OPERATIONS` changes how many operations a seed has. A seed that fails is
//! run again with fewer operations, until it would pass, and its trace is printed.

mod client;
mod crash;
mod model;
mod ops;
mod oracle;
mod plugin;
mod rest;
pub(super) mod rng;
mod upgrade;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::model::{Client, Coverage};
use self::rng::Rng;
use self::world::World;
use super::ProtocolVersion::{V3_1, V3_1_1, V5};
use crate::limits::Limits;

/// Seeds of an ordinary test run, and operations of each.
const SEEDS: u64 = 300;
const OPERATIONS: usize = 400;

/// What one run is like.
struct Config {
    workers: usize,
    clients: usize,
    limits: Limits,
    /// Where clients publish: so many topics, from this one on.
    topics: usize,
    /// Most of it goes to groups.
    sharing: bool,
    /// Most clients get the same packets as others.
    alike: bool,
    first_topic: usize,
    /// Peers that do not read are closed sooner than the model can follow.
    tight_outbound: bool,
    /// There is one more plugin, which decides on deliveries and lets them pass.
    judged: bool,
    /// There is a store; and the server dies now and then.
    store: bool,
    crashes: bool,
}

impl Config {
    fn new(seed: u64, rng: &mut Rng) -> Self {
        let mut limits = Limits {
            receive_maximum: rng.pick(&[1, 2, 5, 1024]),
            in_flight_max: rng.pick(&[1, 3, 1024, 1024]),
            topic_alias_max: rng.pick(&[0, 2, 64]),
            session_expiry_secs_max: rng.pick(&[100, 7 * 24 * 3600, 7 * 24 * 3600]),
            persistent_expiry_3x_secs: rng.pick(&[50, 7 * 24 * 3600]),
            keep_alive_secs_max: rng.pick(&[0, 0, 0, 20]),
            queue_messages_max: rng.pick(&[3, 10_000, 10_000, 10_000, 10_000]),
            connections_max: rng.pick(&[4, 1000, 1000, 1000, 1000, 1000, 1000, 1000]),
            outbound_bytes_max: rng.pick(&[500, 8 << 20, 8 << 20, 8 << 20]),
            ..Limits::default()
        };
        let mut config = Self {
            workers: 1 + rng.below(4),
            clients: 3 + rng.below(6),
            limits: Limits::default(),
            sharing: rng.percent(25),
            alike: seed % 4 == 2,
            topics: rng.pick(&[1, 2, 3, 10, 10]),
            first_topic: rng.below(10),
            tight_outbound: false,
            judged: seed % 2 == 1,
            store: seed / 2 % 2 == 1,
            crashes: seed % 8 == 3 || seed % 16 == 2,
        };
        if config.alike {
            limits.in_flight_max = rng.pick(&[3, 10, 1024, 1024]);
            limits.connections_max = 1000;
            config.workers = rng.pick(&[1, 1, 1, 2]);
            config.clients += 2;
            config.topics = rng.pick(&[1, 1, 2, 3]);
        }
        config.limits = limits;
        config
    }

    fn client(&self, number: usize, rng: &mut Rng) -> Client {
        let version = rng.pick(&[V3_1, V3_1_1, V3_1_1, V5, V5, V5, V5]);
        let mut client = Client::new(format!("c{number}"), version);
        client.eager = rng.percent(50);
        client.disorderly = rng.percent(20);
        client.next_packet_id = rng.pick(&[1, 1, 65_530]);
        if version == V5 {
            client.receive_maximum = rng.pick(&[None, None, Some(1), Some(2), Some(5)]);
            client.packet_bytes_max = rng.pick(&[None, None, None, None, Some(120)]);
            client.alias_max = rng.pick(&[0, 0, 1, 3]);
        }
        if self.alike && rng.percent(80) {
            (client.receive_maximum, client.packet_bytes_max, client.alias_max) = (None, None, 0);
        }
        client
    }

    /// Who looks what is retained in the end.
    fn observer(&self, number: usize) -> Client {
        let mut client = Client::new(format!("observer-{number}"), V5);
        client.eager = true;
        client
    }
}

/// One run. It panics if something is wrong.
fn run(world: &mut World, operations: usize) {
    for _ in 0..operations {
        world.operate();
    }
    world.end();
}

/// Runs a seed. `Err` with the panic's text.
fn try_run(seed: u64, operations: usize, tracing: bool) -> (Result<(), String>, World) {
    let mut world = World::new(seed, tracing);
    let outcome = catch_unwind(AssertUnwindSafe(|| run(&mut world, operations)));
    let text = outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    });
    (text, world)
}

/// Finds a small number of operations with which a seed fails, and shows how.
fn report(seed: u64, operations: usize, error: &str) -> ! {
    let (mut passes, mut fails) = (0, operations);
    while fails - passes > 1 {
        let middle = usize::midpoint(passes, fails);
        *if try_run(seed, middle, false).0.is_err() { &mut fails } else { &mut passes } = middle;
    }
    let (outcome, world) = try_run(seed, fails, true);
    let trace = world.trace.unwrap_or_default();
    let limits = &world.config.limits;
    eprintln!("{} workers, {limits:?}", world.config.workers);
    for line in &trace {
        eprintln!("{line}");
    }
    let again = outcome
        .err()
        .unwrap_or_else(|| "it passes when it is run again: the order of a hash map has a part in it".into());
    panic!(
        "seed {seed} fails: {error}\nwith {fails} operations: {again}\nreplay it: SIM_SEED={seed} SIM_OPERATIONS={fails} \
         cargo test -p host --lib sim -- --nocapture"
    );
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// How often at least each of these has to have happened in an ordinary run: what never happens proves nothing.
const COVERED: &[&str] = &[
    "DISCONNECT",
    "DISCONNECT with will",
    "DUP",
    "PUBLISH again",
    "PUBREL again",
    "QoS 1 accepted",
    "QoS 2 accepted",
    "QoS 2 received again",
    "Topic Alias to a client",
    "Topic Alias to the server",
    "a packet waits for the plugin",
    "at rest",
    "crash",
    "crash, and more was kept",
    "cut",
    "delivered direct",
    "delivered live",
    "delivered retained",
    "delivered shared",
    "end: connect timeout",
    "end: keep alive",
    "end: plugin",
    "end: taken over",
    "group owed and got",
    "group owed and got, by one",
    "handover",
    "lane: cut",
    "lane: in flight",
    "lane: read",
    "lane: read in part",
    "message expired",
    "message too large",
    "nobody has subscribed",
    "order checked",
    "order of retained messages checked",
    "owed and got",
    "packets behind CONNECT",
    "packets wait for the next turn",
    "queue full",
    "refused: too many connections",
    "retained at the end",
    "retained owed and got",
    "session ended with its connection",
    "session expired",
    "session kept",
    "session replaced",
    "session resumed",
    "state handed over",
    "swap",
    "swap promoted",
    "swap rolled back",
    "takeover",
    "the plugin answers later",
    "unsubscribe",
    "upgrade",
    "will after an answer",
    "will at once",
    "will at session end",
    "will cancelled",
    "will delayed",
    "will waits for an answer",
];

#[test]
fn sim() {
    let operations = number("SIM_OPERATIONS").map_or(OPERATIONS, |count| count as usize);
    let (from, count) = match number("SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (number("SIM_FROM").unwrap_or(0), number("SIM_SEEDS").unwrap_or(SEEDS)),
    };
    let (mut cover, mut messages, mut steps) = (Coverage::new(), 0, 0);
    for seed in from..from + count {
        let (outcome, world) = try_run(seed, operations, false);
        if let Err(error) = outcome {
            report(seed, operations, &error);
        }
        messages += world.msgs.len();
        steps += world.step;
        for counters in world.shared.counters.iter() {
            *cover.entry("message expired").or_default() += counters.dropped_expired.get();
            *cover.entry("message too large").or_default() += counters.dropped_too_large.get();
            *cover.entry("queue full").or_default() += counters.dropped_queue_full.get();
            *cover.entry("QoS 0 for who does not read").or_default() += counters.dropped_slow.get();
        }
        for (what, count) in world.cover {
            *cover.entry(what).or_default() += count;
        }
    }
    eprintln!("{count} seeds, {operations} operations each, {steps} steps, {messages} messages");
    for (what, count) in &cover {
        eprintln!("{count:>9} {what}");
    }
    if count >= SEEDS {
        for what in COVERED {
            assert!(cover.get(what).is_some_and(|count| *count >= 10), "{what} has hardly happened");
        }
    }
}
