//! As many workers as there may be: what they write that others write as well, which is what keeps them from scaling.
//!
//! Each worker's part of the work runs alone here, and which cache lines it writes is noted (`sync::written`). A line that two
//! of them write goes from core to core; so do locks. What is not noted is what one worker owns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plugin_api::{ConnectionInfo, Error, Handler, Host, Publish, PublishVerdict, handler};

use super::judge::Judges;
use super::net::bytes;
use super::*;
use crate::clock::Clock;
use crate::core::owner_of;
use crate::plugin::{Chain, Plugin, Services, Watch};
use crate::router::WORKERS_MAX;
use crate::sync::written::{Lines, lines_of};

/// A plugin that is asked about each message, and lets it through.
struct Plain;

#[handler]
impl Handler for Plain {
    /// How many bytes of payload there were.
    type Connection = u64;

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) -> u64 {
        0
    }

    fn handle_publish(&self, bytes: &mut u64, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        *bytes += publish.payload().len() as u64;
        Ok(PublishVerdict::Forward)
    }
}

/// A server with as many workers as there may be, and that plugin.
struct Server {
    net: Net,
    watch: Arc<Watch>,
}

impl Server {
    fn new() -> Self {
        let setup = Setup { allow_anonymous: true, ..Setup::default() };
        let watch = Watch::new(WORKERS_MAX, &setup.limits);
        let net = Net::with_chain(Mode { workers: WORKERS_MAX, bytewise: false }, &setup, |mailboxes| {
            let services = Services::new(mailboxes.clone(), Clock::start(), 1 << 20);
            let services = services.watched_by(Arc::clone(&watch), &setup.limits);
            let plugin = Plugin::from_static::<Plain>("plain", "1.0.0", "{}", &services).expect("it loads");
            (Chain::new(vec![plugin]).expect("one plugin"), Judges::default())
        });
        Self { net, watch }
    }

    /// A client whose session a worker owns.
    fn client(&mut self, worker: usize, index: usize) -> usize {
        let names = (0..).map(|number| format!("c{number}"));
        let mut names = names.filter(|name| owner_of(name, WORKERS_MAX) == worker);
        self.net.v5(&names.nth(index).expect("there is always one more"))
    }

    /// A client sends this, and its worker and then all others do what there is to do, each once. Which lines each of them
    /// has written.
    fn watched(&mut self, client: usize, packets: &str) -> Vec<Lines> {
        let (first, slot) = self.net.place(client);
        let (bytes, now) = (bytes(V5, packets), self.net.now);
        let mut lines = vec![Lines::new(); WORKERS_MAX];
        for worker in std::iter::once(first).chain((0..WORKERS_MAX).filter(|worker| *worker != first)) {
            self.watch.sit(worker);
            lines[worker] = lines_of(|| {
                if worker == first {
                    self.net.cores[worker].feed(slot, &bytes, now);
                }
                self.net.turn(worker);
            });
        }
        lines
    }
}

/// Those of all these lines that several workers have written: the places in the source, how often in all.
fn shared(lines: &[Lines]) -> BTreeMap<String, u64> {
    let mut writers: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (worker, lines) in lines.iter().enumerate() {
        lines.keys().for_each(|line| _ = writers.entry(*line).or_default().insert(worker));
    }
    let mut places = BTreeMap::new();
    for (line, (count, place)) in lines.iter().flatten() {
        if writers[line].len() > 1 {
            *places.entry(format!("{}:{}", place.file(), place.line())).or_default() += count;
        }
    }
    places
}

/// All together.
fn add(all: &mut [Lines], more: Vec<Lines>) {
    for (all, more) in all.iter_mut().zip(more) {
        for (line, (count, place)) in more {
            all.entry(line).or_insert((0, place)).0 += count;
        }
    }
}

/// So many messages to a topic, with all that QoS wants of who sends them.
fn messages(qos: u8, topic: &str, count: u16) -> String {
    let packet = |id: u16| match qos {
        0 => format!("30: <{topic}> {{}} 'x'"),
        1 => format!("32: <{topic}> {id:04X} {{}} 'x'"),
        _ => format!("34: <{topic}> {id:04X} {{}} 'x' | 62: {id:04X}"),
    };
    (1..=count).map(packet).collect::<Vec<_>>().join(" | ")
}

/// What who receives so many messages of QoS 1 or 2 answers.
fn acknowledgements(qos: u8, first: u16, count: u16) -> String {
    let packet = |id: u16| if qos == 1 { format!("40: {id:04X}") } else { format!("50: {id:04X} | 70: {id:04X}") };
    (first..first + count).map(packet).collect::<Vec<_>>().join(" | ")
}

/// Pairs on each of 64 workers: no worker writes a line that another one writes, nor takes a lock.
#[test]
fn pairs_of_different_workers_have_nothing_in_common() {
    let mut server = Server::new();
    for qos in 0..=2 {
        let mut lines = vec![Lines::new(); WORKERS_MAX];
        for worker in 0..WORKERS_MAX {
            let [from, to] = [0, 1].map(|index| server.client(worker, 2 * usize::from(qos) + index));
            let topic = format!("pair/{worker}/{qos}");
            server.net.subscribe(to, &topic, qos);
            // Where it goes is found out once; and of the calls of a callback, one in 256 is timed, beginning with the first.
            let _ = server.watched(from, &messages(qos, &topic, 1));
            add(&mut lines, server.watched(from, &messages(qos, &topic, 20)));
            let sent = server.net.take(to).len();
            assert!(sent > 21 * topic.len(), "QoS {qos}, worker {worker}: all 21 have come, in {sent} bytes");
            if qos > 0 {
                add(&mut lines, server.watched(to, &acknowledgements(qos, 1, 21)));
            }
        }
        assert_eq!(shared(&lines), BTreeMap::new(), "QoS {qos}");
        assert!(lines.iter().all(|lines| !lines.is_empty()), "each worker counts, so something was watched");
    }
    server.net.end();
}

/// What all workers write is how long callbacks take, one call in 256.
#[test]
fn calls_that_are_timed_are_few() {
    let mut server = Server::new();
    let mut lines = vec![Lines::new(); WORKERS_MAX];
    for worker in [0, 1] {
        let [from, to] = [0, 1].map(|index| server.client(worker, index));
        server.net.subscribe(to, &format!("pair/{worker}"), 0);
        server.net.send(from, &messages(0, &format!("pair/{worker}"), 1));
        add(&mut lines, server.watched(from, &messages(0, &format!("pair/{worker}"), 1024)));
    }
    let shared = shared(&lines);
    assert!(shared.keys().all(|place| place.starts_with("host/src/plugin/stats.rs")), "{shared:?}");
    // How long each took decides whether it is the same line.
    assert!(shared.values().sum::<u64>() <= 2 * 1024 / 256, "{shared:?}");
    server.net.end();
}

/// A message for subscribers of all workers: whoever publishes takes the lock of each mailbox once, however many messages
/// there are, and each worker that of its own.
#[test]
fn messages_for_all_workers_cost_one_lock_for_each_worker_and_turn() {
    let mut server = Server::new();
    let from = server.client(0, 0);
    for worker in 0..WORKERS_MAX {
        let to = server.client(worker, 1);
        server.net.subscribe(to, "all", 0);
    }
    server.net.send(from, &messages(0, "all", 1));
    for count in [1, 10, 500] {
        let lines = server.watched(from, &messages(0, "all", count));
        let shared = shared(&lines);
        assert!(shared.keys().all(|place| place.starts_with("host/src/core/mailbox.rs")), "{count}: {shared:?}");
        let others = WORKERS_MAX as u64 - 1;
        assert_eq!(
            shared.values().sum::<u64>(),
            2 * others,
            "{count}: put into each mailbox, and taken out: {shared:?}"
        );
    }
    server.net.end();
}

/// Members of one group on all workers: beside the mailboxes, each message writes whose turn it is, and nothing else.
#[test]
fn group_writes_whose_turn_it_is_and_nothing_else() {
    let mut server = Server::new();
    let publishers = [0, 1].map(|worker| server.client(worker, 0));
    for worker in 0..WORKERS_MAX {
        let to = server.client(worker, 1);
        server.net.subscribe(to, "$share/g/t", 0);
    }
    let mut lines = vec![Lines::new(); WORKERS_MAX];
    for from in publishers {
        let _ = server.watched(from, &messages(0, "t", 1));
        add(&mut lines, server.watched(from, &messages(0, "t", 100)));
    }
    let (mailboxes, group): (BTreeMap<_, _>, BTreeMap<_, _>) =
        shared(&lines).into_iter().partition(|(place, _)| place.starts_with("host/src/core/mailbox.rs"));
    assert!(!mailboxes.is_empty());
    assert!(group.keys().all(|place| place.starts_with("host/src/router/shared.rs")), "{group:?}");
    assert_eq!(group.values().sum::<u64>(), 200, "one for each message: {group:?}");
    server.net.end();
}
