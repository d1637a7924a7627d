//! All clients, and the process that they speak to.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::load::{KEYS, TOPICS};
use super::model::*;
use crate::disks::Disk;
use crate::harness::{Process, TempDir, host_command, library, target_root};
use crate::mqtt::{Client as Observer, Publish, V3_1, V3_1_1, V5};
use crate::random::Random;

/// What happens to a server, and how often.
#[derive(Debug, Clone)]
pub(super) struct Campaign {
    pub(super) seed: u64,
    pub(super) rounds: usize,
    /// With each start one of these.
    pub(super) workers: &'static [usize],
    /// `None` for a server that keeps nothing.
    pub(super) durability: Option<&'static str>,
    /// It has a plugin, with which clients keep values by keys.
    pub(super) plugin: bool,
    /// With each end of the server the power goes, where a disk can be had that loses it.
    pub(super) loses_power: bool,
    /// How long anything that has to come may take.
    pub(super) patience: Duration,
}

pub(super) struct World {
    pub(super) campaign: Campaign,
    pub(super) random: Random,
    pub(super) tick: Tick,
    /// Packets that clients have read.
    pub(super) events: u64,
    pub(super) addr: SocketAddr,
    process: Option<Process>,
    /// It was told to end.
    pub(super) is_stopping: bool,
    dir: TempDir,
    disk: Option<Disk>,
    pub(super) clients: Vec<Client>,
    pub(super) sessions: Vec<Session>,
    pub(super) msgs: Vec<Msg>,
    /// Messages before this one have come to all who have to get them, and have been acknowledged.
    pub(super) retired: usize,
    pub(super) cover: BTreeMap<&'static str, u64>,
    trace: Vec<String>,
    observers: usize,
}

impl World {
    pub(super) fn new(campaign: Campaign) -> Self {
        let mut world = Self {
            random: Random(campaign.seed),
            tick: 0,
            events: 0,
            addr: ([127, 0, 0, 1], 0).into(),
            process: None,
            is_stopping: false,
            dir: TempDir::new("crash"),
            disk: if campaign.loses_power { Disk::with_power() } else { None },
            clients: Vec::new(),
            sessions: Vec::new(),
            msgs: Vec::new(),
            retired: 0,
            cover: BTreeMap::new(),
            trace: Vec::new(),
            observers: 0,
            campaign,
        };
        for _ in 0..2 {
            world.add_client(Nature::Steady);
        }
        for _ in 0..6 {
            world.add_client(Nature::Persistent);
        }
        world.add_client(Nature::Transient);
        world
    }

    pub(super) fn add_client(&mut self, nature: Nature) -> usize {
        let number = self.clients.len();
        let version = match nature {
            Nature::Steady | Nature::Mortal => V5,
            _ => self.random.pick(&[V3_1, V3_1_1, V5, V5]),
        };
        let mut client = Client::new(format!("c{number}"), nature, version);
        client.receive_maximum = self.random.pick(&[None, None, Some(1), Some(3), Some(20)]);
        client.laziness = self.random.pick(&[0, 0, 50]);
        client.session = self.sessions.len();
        self.sessions.push(Session::default());
        self.clients.push(client);
        number
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.cover.entry(what).or_default() += 1;
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        self.trace.push(format!("{:>7} {}", self.tick, line()));
    }

    /// Something is wrong: ends the test, and says where its trace is.
    pub(super) fn fault(&self, what: &str) -> ! {
        let Campaign { seed, workers, durability, .. } = &self.campaign;
        let name = format!("crash-{seed}-{}-{}.trace", workers.len(), durability.unwrap_or("none"));
        let path: PathBuf = target_root().join(name);
        let log = self.process.as_ref().map(Process::log).unwrap_or_default();
        let text = [&self.trace[..], &log].concat().join("\n");
        let written = std::fs::write(&path, text);
        panic!("{:?}: {what}\nall that has happened: {} {written:?}", self.campaign, path.display());
    }

    // The process.

    fn spawn(&mut self) -> Process {
        let workers = self.random.pick(self.campaign.workers).to_string();
        self.note(|| format!("the server starts, {workers} workers"));
        let mut command = host_command();
        command.args(["--listen", "127.0.0.1:0", "--workers", &workers]);
        if self.campaign.plugin {
            command.arg("--plugin").arg(library("steward"));
        }
        if let Some(durability) = self.campaign.durability {
            let dir = self.disk.as_ref().map_or(self.dir.path(), Disk::path);
            command.arg("--data-dir").arg(dir.join("data")).args(["--durability", durability]);
            // So that checkpoints are made meanwhile, and amid them it is killed as well.
            command.args(["--store-segment-bytes", "128KiB"]);
        }
        Process::spawn(&mut command)
    }

    pub(super) fn start(&mut self) {
        // Some do not even come up.
        while self.random.percent(15) {
            let mut process = self.spawn();
            std::thread::sleep(Duration::from_micros(self.random.below(60_000) as u64));
            process.signal(Signal::KILL);
            process.wait();
            self.count("killed while starting");
        }
        let mut process = self.spawn();
        self.addr = process.wait_listening();
        self.process = Some(process);
        self.is_stopping = false;
    }

    /// The server ends, mostly without a chance to do anything about it.
    pub(super) fn end(&mut self, killed: bool) {
        let mut process = self.process.take().expect("it was started");
        if !process.is_running() {
            self.process = Some(process);
            self.fault("the server has ended by itself");
        }
        self.note(|| format!("the server ends, killed: {killed}"));
        self.is_stopping = true;
        if let Some(disk) = self.disk.as_ref().filter(|_| killed) {
            // As the machine does, it does nothing more, not even notice.
            process.signal(Signal::STOP);
            disk.power_off();
        }
        process.signal(if killed { Signal::KILL } else { Signal::TERM });
        let amid = !killed && self.random.percent(40);
        if amid {
            std::thread::sleep(Duration::from_micros(self.random.below(20_000) as u64));
            process.signal(Signal::KILL);
        }
        let status = process.wait();
        if !killed && !amid && status.code() != Some(0) {
            self.process = Some(process);
            self.fault(&format!("the server has stopped with {status}"));
        }
        self.count(match (killed, amid) {
            (true, _) => "killed",
            (false, true) => "killed while stopping",
            (false, false) => "stopped",
        });
        if let Some(disk) = self.disk.as_ref().filter(|_| killed) {
            disk.power_on();
            self.count("power lost");
        }
        // What it has sent before has come.
        while (0..self.clients.len()).any(|number| self.clients[number].link.is_some()) {
            self.read_all();
        }
        self.tick += 1;
        for msg in self.msgs.iter_mut().filter(|msg| msg.qos == 0 && !msg.is_will) {
            msg.last.get_or_insert(self.tick);
        }
    }

    // The clients.

    /// Reads what has come to anybody.
    pub(super) fn read_all(&mut self) {
        for number in 0..self.clients.len() {
            let Some(link) = &mut self.clients[number].link else { continue };
            link.flush();
            let packets = link.packets();
            let has_ended = link.has_ended();
            for packet in packets {
                self.receive(number, &packet);
            }
            if has_ended {
                if !self.is_stopping {
                    self.fault(&format!("the server has closed the connection of client {number}"));
                }
                self.note(|| format!("the connection of client {number} has ended"));
                self.gone(number);
            }
            self.flush(number);
        }
    }

    /// Clients do what they like until so many packets more have been read.
    pub(super) fn load(&mut self, events: u64) {
        let enough = self.events + events;
        let deadline = Instant::now() + self.campaign.patience;
        while self.events < enough {
            for _ in 0..1 + self.random.below(8) {
                self.operate();
            }
            self.read_all();
            if Instant::now() > deadline {
                self.fault("clients do not get on");
            }
        }
        // Until some moment between what was written last and what comes of it.
        let moment = Instant::now() + Duration::from_micros(self.random.pick(&[0, 50, 200, 1000, 5000]));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
    }

    /// Lets everything come to an end that has begun, and checks that everybody has got what was promised; wills, too, if
    /// this is the end.
    pub(super) fn rest(&mut self, is_last: bool) {
        self.note(|| "everything comes to rest".to_owned());
        for number in 0..self.clients.len() {
            self.clients[number].laziness = 0;
            match (self.clients[number].nature, self.clients[number].link.is_some()) {
                (Nature::Mortal, true) if is_last => self.leave(number, false),
                (Nature::Mortal, _) | (_, true) => {}
                _ => self.connect(number, false),
            }
        }
        self.wait_for_answers();
        let owed = self.owed(is_last);
        self.wait("messages that were promised have not come", |world| {
            let left: Vec<_> = owed.iter().filter(|one| !world.has_got(**one)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("session, message, QoS: {left:?}")) }
        });
        *self.cover.entry("promised and got").or_default() += owed.len() as u64;
        self.wait_quiet();
        self.look_at_what_is_kept();
        self.retire();
    }

    /// Until nobody who is here owes an answer, or waits for one.
    pub(super) fn wait_for_answers(&mut self) {
        self.wait("clients have no answers", |world| {
            let is_quiet = |one: &Client| one.is_connected && one.is_quiet() && one.pings == 0;
            let all = world.clients.iter().all(|one| one.link.is_none() || is_quiet(one));
            all.then_some(()).ok_or_else(String::new)
        });
    }

    /// Answers until a condition holds.
    fn wait(&mut self, what: &str, condition: impl Fn(&Self) -> Result<(), String>) {
        let deadline = Instant::now() + self.campaign.patience;
        while let Err(why) = condition(self) {
            for number in 0..self.clients.len() {
                while self.clients[number].is_connected && self.answer(number) {}
            }
            self.read_all();
            if Instant::now() > deadline {
                let mut waiting = String::new();
                for one in &self.clients {
                    let (out, received) = (one.out.iter().map(|out| out.msg).collect::<Vec<_>>(), &one.received);
                    let _ = writeln!(waiting, "{}: {out:?} {:?} {received:?}", one.name, one.owes);
                }
                self.fault(&format!("{what}: {why}\n{waiting}"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Nothing comes any more: twice in a row nobody has got a message before the answer to PINGREQ. And what clients have
    /// acknowledged is safe, so that it does not come again: see [`World::publish_retained`].
    fn wait_quiet(&mut self) {
        let mut quiet = 0;
        while quiet < 2 {
            let before: u64 = self.clients.iter().map(|one| one.publishes).sum();
            for number in 0..self.clients.len() {
                if self.clients[number].is_connected {
                    self.publish_retained(number, "sync");
                    self.ping(number);
                }
            }
            self.wait_for_answers();
            let after: u64 = self.clients.iter().map(|one| one.publishes).sum();
            quiet = if after == before { quiet + 1 } else { 0 };
        }
    }

    /// What has been done with needs no more looking at; but it must not come again.
    fn retire(&mut self) {
        let (retired, tick) = (self.msgs.len(), self.tick);
        for msg in self.msgs[self.retired..].iter_mut().filter(|msg| !msg.is_will && msg.first.is_some()) {
            msg.last.get_or_insert(tick);
        }
        self.retired = retired;
        for session in &mut self.sessions {
            let msgs = &self.msgs;
            session.got.retain(|msg, _| msgs[*msg].is_will);
            // What may have come of subscriptions that are gone has come.
            session.subs.retain(|sub| sub.to.is_none());
        }
    }

    /// Somebody who has not been here before looks what is retained, and what a plugin has by its keys.
    pub(super) fn look_at_what_is_kept(&mut self) {
        self.observers += 1;
        self.tick += 1;
        let mut observer = Observer::connect(self.addr, V5, format!("observer-{}", self.observers));
        self.look_at_retained(&mut observer);
        if self.campaign.plugin {
            self.look_at_values(&mut observer);
        }
        observer.disconnect();
    }

    fn look_at_values(&mut self, observer: &mut Observer) {
        observer.subscribe("done", 0);
        for key in KEYS {
            let may = self.retained(&format!("keep/{key}"));
            observer.send(Publish::new("do", format!("get {key}")).bytes(V5));
            let answer = observer.receive();
            let number = answer.text().split(':').next().unwrap_or_default().parse();
            let found = if answer.text() == "none" { None } else { number.ok() };
            if !may.contains(&found) {
                self.fault(&format!("the plugin has {found:?} by the key {key}, and not one of {may:?}"));
            }
            self.count(if found.is_some() { "value found" } else { "no value" });
        }
    }

    fn look_at_retained(&mut self, observer: &mut Observer) {
        let topics = &TOPICS[4..];
        let candidates: Vec<_> = topics.iter().map(|topic| self.retained(topic)).collect();
        observer.subscribe("r/+", 0);
        let mut found: Vec<Option<usize>> = vec![None; topics.len()];
        let is_missing = |found: &[Option<usize>]| {
            found.iter().zip(&candidates).any(|(found, may)| found.is_none() && !may.contains(&None))
        };
        let deadline = Instant::now() + self.campaign.patience;
        // What is there comes before PINGREQ is answered, or soon after.
        loop {
            observer.ping();
            while let Some(publish) = observer.take_publish() {
                let place = topics.iter().position(|topic| *topic == publish.topic).expect("it has asked for no other");
                // What clients that are here publish meanwhile comes as well.
                if publish.retain {
                    found[place] = Some(self.identify(usize::MAX, &publish));
                }
            }
            if !is_missing(&found) || Instant::now() > deadline {
                break;
            }
        }
        for ((topic, found), may) in topics.iter().zip(found).zip(candidates) {
            if !may.contains(&found) {
                self.fault(&format!("retained for {topic} is {found:?}, and not one of {may:?}"));
            }
            self.count(if found.is_some() { "retained found" } else { "nothing retained" });
        }
    }
}
