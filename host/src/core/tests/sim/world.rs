//! Workers whose steps come in any order, and connections that are cut, slow, and full of fragments.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::handler::Scripted;
use super::super::net::ZERO;
use super::model::*;
use super::plugin::Owed;
use super::rng::Rng;
use super::wire;
use super::{Config, plugin};
use crate::clock::Millis;
use crate::core::connection::{NONE, Phase};
use crate::core::mailbox::Mailboxes;
use crate::core::{Arrival, Core, Handover, ListenerProfile, Shared, owner_of};
use crate::durable::model::memory::Disk;
use crate::durable::store::fake::FakeStore;

/// Everything there is in one run.
pub(super) struct World {
    pub(super) config: Config,
    pub(super) rng: Rng,
    pub(super) now: Millis,
    pub(super) step: Step,
    pub(super) cores: Vec<Core>,
    pub(super) shared: Arc<Shared>,
    profile: Arc<ListenerProfile>,
    pub(super) scripted: Scripted,
    rung: Vec<Arc<AtomicBool>>,
    arriving: Vec<VecDeque<(usize, Box<Handover>)>>,
    /// Connections that the core has put on its list, and that have something to send or are to be closed.
    listed: BTreeSet<usize>,
    pub(super) conns: Vec<Conn>,
    by_slot: HashMap<(usize, u32), usize>,
    /// Network Connections that are open.
    open: usize,
    pub(super) clients: Vec<Client>,
    pub(super) sessions: Vec<Session>,
    pub(super) msgs: Vec<Msg>,
    /// Wills that wait for their delay: message, session, when they are due.
    pub(super) wills: Vec<(usize, usize, Millis)>,
    pub(super) group_owed: Vec<GroupOwed>,
    /// Groups with a member that is not known.
    pub(super) unfollowed: BTreeSet<(String, String)>,
    /// When each worker last handed its batches over; and for each pair, what had been handed over when the other one
    /// last emptied its mailbox.
    pub(super) flushed: Vec<Step>,
    pub(super) done: Vec<Vec<Step>>,
    /// What should have been delivered and was not: no more than was counted as dropped.
    pub(super) unmet: Vec<String>,
    /// PUBLISH packets that the server certainly has handled, and those of which it is not known.
    pub(super) published: [u64; 2],
    /// PUBLISH packets that clients have read, and those that were lost with their connection.
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) cover: Coverage,
    pub(super) trace: Option<Vec<String>>,
    /// Whether the plugin answers later at all, and the answers that it owes.
    answers_later: bool,
    pub(super) owed: Owed,
    /// Wills of connections whose plugin owes an answer.
    pub(super) partings: Vec<Parting>,
    /// Those that were published at some time of the present call.
    just_parted: Vec<usize>,
    /// When the present call of a worker began.
    call_began: Step,
    /// Where journals go, if there is a store; how often the server has died, and what had been dropped by then.
    pub(super) store: Option<FakeStore>,
    pub(super) crashes: u32,
    pub(super) dropped_before: u64,
    /// PUBLISH packets that another process has received, and sent, before it handed over.
    pub(super) counted_before: [u64; 2],
    /// When everything was at rest and safe last.
    pub(super) rested: (Step, Millis),
    /// What became of the journals when the server died last, and how many of them that were.
    pub(super) disk: Disk,
    pub(super) on_disk: usize,
}

/// The will of a connection that has ended and whose plugin has not been asked about it yet.
pub(super) struct Parting {
    worker: usize,
    /// The connection, as the core knows it.
    id: u64,
    will: usize,
    /// It is published as soon as the plugin has been asked.
    is_due: bool,
}

impl World {
    pub(super) fn new(seed: u64, tracing: bool) -> Self {
        let mut rng = Rng::new(seed);
        let config = Config::new(seed, &mut rng);
        let workers = config.workers;
        let scripted = Scripted::default();
        // With one seed in four nobody hears of acknowledgements, which are then handled in runs.
        scripted.script().hears_no_acknowledgements = seed.is_multiple_of(4);
        // With every third seed the plugin answers later now and then.
        let answers_later = seed % 3 == 2 && !config.crashes;
        let owed = plugin::script(&scripted, seed, if answers_later { 30 } else { 0 });
        let (shared, rung) = server(&config, &scripted);
        let now = Millis(1_000_000);
        let clients = (0..config.clients).map(|number| config.client(number, &mut rng)).collect();
        Self {
            rng,
            now,
            step: 0,
            cores: (0..workers).map(|worker| Core::new(worker, Arc::clone(&shared), now)).collect(),
            shared,
            profile: Arc::new(ListenerProfile::new("here", config.limits.clone())),
            scripted,
            answers_later,
            owed,
            partings: Vec::new(),
            just_parted: Vec::new(),
            call_began: 0,
            rung,
            arriving: (0..workers).map(|_| VecDeque::new()).collect(),
            listed: BTreeSet::new(),
            conns: Vec::new(),
            by_slot: HashMap::new(),
            open: 0,
            clients,
            sessions: Vec::new(),
            msgs: Vec::new(),
            wills: Vec::new(),
            group_owed: Vec::new(),
            unfollowed: BTreeSet::new(),
            flushed: vec![0; workers],
            done: vec![vec![0; workers]; workers],
            unmet: Vec::new(),
            published: [0; 2],
            delivered: 0,
            lost: 0,
            cover: Coverage::new(),
            trace: tracing.then(Vec::new),
            store: config.store.then(FakeStore::default),
            crashes: 0,
            dropped_before: 0,
            counted_before: [0; 2],
            rested: (0, now),
            disk: Disk::default(),
            on_disk: 0,
            config,
        }
    }

    /// A server that knows nothing takes the place of the one that there is.
    pub(super) fn begin_server(&mut self) {
        let (shared, rung) = server(&self.config, &self.scripted);
        let now = self.now;
        let workers = self.config.workers;
        self.arriving = (0..workers).map(|_| VecDeque::new()).collect();
        self.cores = (0..workers).map(|worker| Core::new(worker, Arc::clone(&shared), now)).collect();
        (self.shared, self.rung, self.open) = (shared, rung, 0);
        self.profile = Arc::new(ListenerProfile::new("here", self.config.limits.clone()));
        self.listed.clear();
        self.by_slot.clear();
        self.partings.clear();
        self.just_parted.clear();
    }

    /// Its connections are on their way to another one: which they are, by where they were.
    pub(super) fn forget_server(&mut self) -> HashMap<(usize, u32), usize> {
        std::mem::take(&mut self.by_slot)
    }

    /// A connection has come over from another server. It may have come with something that was not sent.
    pub(super) fn take_over(&mut self, conn: usize, worker: usize, slot: u32) {
        self.enter(conn, worker, slot);
        self.listed.insert(conn);
        self.open += 1;
    }

    pub(super) fn profile(&self) -> Arc<ListenerProfile> {
        Arc::clone(&self.profile)
    }

    /// The workers are others, and as many as they are now. What was routed before has been handled.
    pub(super) fn have_other_workers(&mut self) {
        let (step, workers) = (self.step, self.config.workers);
        self.flushed = vec![step; workers];
        self.done = vec![vec![step; workers]; workers];
        let among = |done: &Vec<Step>| vec![done.iter().copied().min().unwrap_or_default(); workers];
        for session in &mut self.sessions {
            session.worker = owner_of(&self.clients[session.client].name, workers);
            for sub in &mut session.subs {
                sub.done_from = among(&sub.done_from);
                sub.definite_to = sub.definite_to.as_ref().map(among);
            }
        }
        for msg in &mut self.msgs {
            let owner = self.clients.get(msg.publisher).map_or(&*msg.topic, |client| &*client.name);
            msg.worker = owner_of(owner, workers);
        }
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>5} {:>8} {}", self.step, self.now.0 - 1_000_000, line()));
        }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.cover.entry(what).or_default() += 1;
    }

    /// What was routed at each worker until then has been handled at `worker` now.
    pub(super) fn done_at(&self, worker: usize) -> Vec<Step> {
        (0..self.cores.len()).map(|from| if from == worker { self.step } else { self.done[from][worker] }).collect()
    }

    fn begin_call(&mut self) {
        self.step += 1;
        self.call_began = self.step;
    }

    // Connections.

    pub(super) fn accept(&mut self) -> Option<(usize, u32)> {
        let worker = self.rng.below(self.cores.len());
        let (peer, profile) = (([127, 0, 0, 1], 50_000).into(), &self.profile);
        let slot = self.cores[worker].accept(Arrival { peer, profile, details: None }, self.now);
        let room = self.open < self.config.limits.connections_max;
        assert_eq!(slot.is_some(), room, "{} connections are open", self.open);
        self.open += usize::from(room);
        Some((worker, slot?))
    }

    pub(super) fn enter(&mut self, conn: usize, worker: usize, slot: u32) {
        self.conns[conn].place = Place::At(worker, slot);
        self.by_slot.insert((worker, slot), conn);
    }

    /// The client writes a packet.
    pub(super) fn write(&mut self, conn: usize, packet: &[u8], mark: Mark) {
        let conn = &mut self.conns[conn];
        conn.to_server.extend_from_slice(packet);
        conn.marks.push_back((conn.to_server.len(), mark));
    }

    /// The server reads at most so many bytes. `false` if there are none.
    pub(super) fn feed(&mut self, conn: usize, count: usize) -> bool {
        let (Place::At(worker, slot), cut) = (self.conns[conn].place, self.conns[conn].cut) else { return false };
        let count = count.min(self.conns[conn].to_server.len() - self.conns[conn].fed);
        if count == 0 || cut {
            return false;
        }
        self.begin_call();
        let fed = self.conns[conn].fed;
        let shown = format!("{:02X?}", &self.conns[conn].to_server[fed..fed + count.min(20)]);
        self.note(|| format!("worker {worker} reads {count} bytes of connection {conn}: {shown}"));
        let bytes = self.conns[conn].to_server[fed..fed + count].to_vec();
        self.conns[conn].fed += count;
        self.cores[worker].feed(slot, &bytes, self.now);
        self.after_input(conn);
        self.look(worker);
        true
    }

    /// Notes what the server now has of a client.
    fn after_input(&mut self, conn: usize) {
        let Place::At(worker, slot) = self.conns[conn].place else { return };
        if self.conns[conn].ended {
            return; // Nobody looks at what comes now.
        }
        if let Some((end, Mark::Connect)) = self.conns[conn].marks.front()
            && *end <= self.conns[conn].fed
        {
            self.conns[conn].marks.pop_front();
            self.conns[conn].connect_fed = true;
            let client = self.conns[conn].client;
            for other in self.conns[..conn].iter_mut().filter(|other| other.client == client) {
                other.overtaken = true;
            }
        }
        let connection = &self.cores[worker].connections[slot as usize];
        let asked_about = connection.extra.as_ref().and_then(|extra| extra.waiting.as_ref());
        let asked_about = asked_about.map_or(0, |waiting| waiting.packet_bytes());
        let (phase, session, waits) = (
            connection.phase,
            connection.session,
            connection.partial.as_ref().map_or(0, |partial| partial.len()) + asked_about,
        );
        if asked_about > 0 {
            self.count("a packet waits for the plugin");
        }
        let connection = &self.cores[worker].connections[slot as usize];
        if phase != Phase::Leaving && self.conns[conn].connect_fed && connection.is_held {
            self.count("packets wait for the next turn");
        }
        let connection = &self.cores[worker].connections[slot as usize];
        if session != NONE && self.conns[conn].session.is_none() {
            let serial = self.cores[worker].sessions[session as usize].serial;
            // CONNACK tells it, and may not have been read yet.
            self.conns[conn].keep_alive_secs = connection.keep_alive_secs;
            self.attach(conn, worker, serial);
        }
        if phase == Phase::Leaving {
            return;
        }
        // What is no whole packet, or waits for the next turn, has not been handled.
        let handled = self.conns[conn].fed - waits;
        if phase == Phase::Closing && self.conns[conn].connect_fed && self.conns[conn].session.is_none() {
            // It has come and gone in one go, and has left a session or not.
            let client = self.conns[conn].client;
            self.clients[client].must_clean = true;
            self.overtake(client);
            let core = &self.cores[worker];
            let kept = core.slot_of_client(&self.clients[client].name).map(|slot| &core.sessions[slot as usize]);
            // If another connection has it, or has had it as shortly, nobody knows what this one did.
            let alike = |(number, other): (usize, &Conn)| {
                let here = matches!(other.place, Place::At(at, _) if at == worker);
                number != conn
                    && other.client == client
                    && here
                    && other.connect_fed
                    && !other.ended
                    && other.session.is_none()
            };
            let others = self.conns.iter().enumerate().any(alike);
            let taken = others || kept.is_some_and(|kept| kept.connection != NONE);
            if let Some(serial) = kept.filter(|_| !taken).map(|kept| kept.serial) {
                self.attach(conn, worker, serial);
            } else {
                self.conns[conn].overtaken |= taken;
                self.forsake(conn);
                let joined: Vec<bool> = self.conns.iter().map(|other| other.session.is_some()).collect();
                let concerns = |of: usize, number: Option<usize>| {
                    of == client && number.is_none_or(|other| other != conn && joined[other])
                };
                // The will of the one that it took over waits as well [MQTT-3.1.3-9].
                self.scan_ended(worker, concerns);
                self.leave_wills_open(client);
                self.scan_for(worker, concerns);
            }
        }
        self.note_handled(conn, handled, phase == Phase::Connected);
    }

    /// Whether the wills of a client that wait were published or cancelled is not known.
    fn leave_wills_open(&mut self, client: usize) {
        let (open, kept) =
            std::mem::take(&mut self.wills).into_iter().partition(|will| self.sessions[will.1].client == client);
        self.wills = kept;
        let open: Vec<(usize, usize, Millis)> = open;
        for (msg, ..) in open {
            self.perhaps_routed(msg);
        }
    }

    /// The packets up to there have been handled; those of a connection that has ended only perhaps.
    fn note_handled(&mut self, conn: usize, handled: usize, certain: bool) {
        while let Some((end, _)) = self.conns[conn].marks.front()
            && *end <= handled
        {
            let (_, mark) = self.conns[conn].marks.pop_front().expect("looked at before");
            self.processed(conn, mark, certain);
        }
    }

    /// The client has gone, at whatever byte.
    pub(super) fn cut(&mut self, conn: usize) {
        self.begin_call();
        self.note(|| format!("connection {conn} is cut"));
        self.conns[conn].cut = true;
        self.forsake(conn);
        self.lose_if_cut(conn);
    }

    fn lose_if_cut(&mut self, conn: usize) {
        let Place::At(worker, slot) = self.conns[conn].place else { return };
        let core = &mut self.cores[worker];
        if !self.conns[conn].cut || core.connections[slot as usize].phase == Phase::Leaving {
            return;
        }
        let unread = [&self.conns[conn].unread[..], &core.unsent(slot), core.held_acks.unpaid(slot)].concat();
        let is_in_lane = !core.connections[slot as usize].lane.is_nowhere();
        core.lost(slot, self.now);
        assert!(core.outbound(slot).is_empty(), "there is nobody to send to");
        self.lost += publishes_in(&unread);
        if is_in_lane {
            self.count("lane: cut");
        }
        self.scan(worker);
        self.release(conn);
    }

    fn release(&mut self, conn: usize) {
        let Place::At(worker, slot) = self.conns[conn].place else { return };
        self.cores[worker].release(slot);
        self.by_slot.remove(&(worker, slot));
        self.listed.remove(&conn);
        self.conns[conn].place = Place::Gone;
        self.open -= 1;
        self.scan(worker);
    }

    /// Notes that what many get is about to be read.
    fn note_lane(&mut self, worker: usize, slot: u32, count: usize) {
        let core = &self.cores[worker];
        let connection = &core.connections[slot as usize];
        if !core.lanes.comes_first(connection) {
            return;
        }
        let is_in_part = count < core.lanes.waiting_bytes(connection.lane);
        let in_ranges = core.sessions.get(connection.session as usize).is_some_and(|one| one.in_flight.has_ranges());
        self.count("lane: read");
        if is_in_part {
            self.count("lane: read in part");
        }
        if in_ranges {
            self.count("lane: in flight");
        }
    }

    /// The client reads at most so many bytes of what waits for it. `false` if nothing has happened.
    pub(super) fn read(&mut self, conn: usize, count: usize) -> bool {
        let Place::At(worker, slot) = self.conns[conn].place else { return false };
        if !self.listed.contains(&conn) {
            return false;
        }
        self.begin_call();
        self.note_lane(worker, slot, count);
        let core = &mut self.cores[worker];
        let outbound = core.outbound(slot);
        let count = count.min(outbound.len());
        if count > 0 {
            self.conns[conn].unread.extend_from_slice(&outbound[..count]);
            core.sent(slot, count, self.now);
            self.scan(worker);
        }
        let core = &mut self.cores[worker];
        let (empty, closing, is_owed) = (core.outbound(slot).is_empty(), core.is_closing(slot), core.is_owed(slot));
        if empty {
            self.listed.remove(&conn);
        }
        let mut unread = std::mem::take(&mut self.conns[conn].unread);
        while let Some(length) = wire::first_packet(&unread) {
            let packet: Vec<u8> = unread.drain(..length).collect();
            self.receive(conn, &packet);
        }
        self.conns[conn].unread = unread;
        if self.conns[conn].gives_up {
            self.cut(conn);
            return true;
        }
        if empty && closing && !is_owed {
            assert!(self.conns[conn].unread.is_empty(), "connection {conn} was closed within a packet");
            self.note(|| format!("connection {conn} is closed by the server"));
            self.forsake(conn);
            self.release(conn);
            return true;
        }
        count > 0
    }

    pub(super) fn listed(&self) -> Vec<usize> {
        self.listed.iter().copied().collect()
    }

    // Workers.

    pub(super) fn take_handovers(&mut self, worker: usize) -> bool {
        let mut handovers = Vec::new();
        self.cores[worker].take_handovers(&mut handovers);
        let moved = !handovers.is_empty();
        for (slot, to, handover) in handovers {
            let conn = self.by_slot.remove(&(worker, slot)).expect("handed over once");
            self.listed.remove(&conn);
            self.conns[conn].place = Place::Travelling;
            self.arriving[to].push_back((conn, handover));
            self.count("handover");
        }
        moved
    }

    pub(super) fn adopt(&mut self, worker: usize) -> bool {
        let Some((conn, handover)) = self.arriving[worker].pop_front() else { return false };
        self.begin_call();
        self.note(|| format!("worker {worker} adopts connection {conn}"));
        let slot = self.cores[worker].adopt(*handover, self.now);
        self.enter(conn, worker, slot);
        self.after_input(conn);
        self.look(worker);
        self.lose_if_cut(conn);
        true
    }

    pub(super) fn on_mail(&mut self, worker: usize, spurious: bool) -> bool {
        if !self.rung[worker].swap(false, Ordering::Relaxed) && !spurious {
            return false;
        }
        self.begin_call();
        self.note(|| format!("worker {worker} opens its mailbox"));
        self.cores[worker].on_mail(self.now);
        self.after_mail(worker);
        true
    }

    /// Notes what has happened at a worker.
    pub(super) fn look(&mut self, worker: usize) {
        for conn in 0..self.conns.len() {
            if matches!(self.conns[conn].place, Place::At(at, _) if at == worker) {
                self.after_input(conn);
            }
        }
        self.scan(worker);
        self.cores[worker].assert_sound();
    }

    fn after_mail(&mut self, worker: usize) {
        if !self.cores[worker].has_mail_left() {
            for from in 0..self.cores.len() {
                self.done[from][worker] = self.flushed[from];
            }
        }
        self.scan(worker);
    }

    pub(super) fn on_tick(&mut self, worker: usize) -> bool {
        if self.cores[worker].next_tick().is_none_or(|at| at > self.now) {
            return false;
        }
        // As the driver does: requests about connections that arrive are forgotten after a time.
        while self.adopt(worker) {}
        self.begin_call();
        self.note(|| format!("worker {worker} does what is due"));
        self.cores[worker].on_tick(self.now);
        self.look(worker);
        true
    }

    pub(super) fn take_dirty(&mut self, worker: usize) -> bool {
        self.begin_call();
        let mut dirty = Vec::new();
        let core = &self.cores[worker];
        let is_there =
            |slot: u32, id| core.connections.get(slot as usize).is_some_and(|connection| connection.id == id);
        let held: Vec<u32> =
            core.held.iter().filter(|(slot, id)| is_there(*slot, *id)).map(|(slot, _)| *slot).collect();
        self.cores[worker].take_dirty(&mut dirty);
        // In the order in which they are handled.
        for conn in held.iter().filter_map(|slot| self.by_slot.get(&(worker, *slot)).copied()).collect::<Vec<_>>() {
            self.after_input(conn);
        }
        let moved = !dirty.is_empty();
        for slot in dirty {
            if let Some(conn) = self.by_slot.get(&(worker, slot)) {
                self.listed.insert(*conn);
            }
        }
        self.look(worker);
        moved
    }

    pub(super) fn flush_mail(&mut self, worker: usize) -> bool {
        self.step += 1;
        let handed_over = self.hand_over(worker);
        let moved = handed_over || self.cores[worker].outbox.iter().any(|batch| !batch.is_empty());
        self.cores[worker].flush_mail();
        self.flushed[worker] = self.step;
        moved
    }

    /// Time passes. Nobody is on its way meanwhile: a turn takes less than the second that requests wait for it.
    pub(super) fn jump(&mut self, ms: u64) {
        for worker in 0..self.cores.len() {
            self.take_handovers(worker);
        }
        for worker in 0..self.cores.len() {
            while self.adopt(worker) {}
        }
        self.settle_owed();
        self.note(|| format!("{ms} ms pass"));
        self.now = self.now + ms;
    }

    /// The plugin gives the answers that it owes, until nothing waits for one: time does not pass meanwhile.
    pub(super) fn settle_owed(&mut self) {
        // What is held is handled at the time that the worker was told last, after which nobody answers in time.
        let later = self.answers_later;
        let asks = |core: &Core| core.connections.iter().any(|(_, one)| one.is_waiting) || !core.held.is_empty();
        let waits = |core: &Core| later && (core.farewells() > 0 || asks(core));
        while self.cores.iter().any(waits) {
            self.give_owed();
            for worker in 0..self.cores.len() {
                self.on_mail(worker, false);
                self.take_dirty(worker);
                self.take_handovers(worker);
                self.flush_mail(worker);
            }
            for worker in 0..self.cores.len() {
                while self.adopt(worker) {}
            }
        }
    }

    /// The plugin gives all answers that it owes. `false` if it owes none.
    pub(super) fn give_owed(&mut self) -> bool {
        let mut moved = false;
        while self.owed.len() > 0 {
            let place = self.rng.below(self.owed.len());
            self.give_one(place);
            moved = true;
        }
        moved
    }

    pub(super) fn give_one(&mut self, place: usize) {
        self.step += 1;
        self.count("the plugin answers later");
        self.note(|| "the plugin answers".to_owned());
        self.owed.give(place);
    }

    /// Every connection of a client that has its session ends, as another one gets it.
    fn overtake(&mut self, client: usize) {
        for other in self.conns.iter_mut().filter(|other| other.client == client && other.session.is_some()) {
            other.overtaken = true;
        }
    }

    // What happens inside of the server, as far as the oracle has to know it.

    fn attach(&mut self, conn: usize, worker: usize, serial: u32) {
        self.step += 1;
        let now = self.cores[worker].now;
        let client = self.conns[conn].client;
        let known = self.sessions.iter().position(|session| session.client == client && session.serial == serial);
        let latest = self.sessions.iter().rposition(|session| session.client == client);
        if let Some(latest) = latest.filter(|_| !self.conns[conn].clean) {
            let session = &self.sessions[latest];
            let (expiry_secs, offline) = (session.expiry_secs, session.offline_since.is_some());
            let lasts = expiry_secs == u32::MAX || now < session.online_at.plus_secs(expiry_secs);
            let unknown = session.gone || session.unsure || self.clients[client].must_clean;
            let alive = expiry_secs > 0 && !unknown && (!offline || lasts);
            assert!(!alive || known == Some(latest), "the session of client {client} was not resumed");
            let over = session
                .offline_since
                .is_some_and(|since| expiry_secs != u32::MAX && since.plus_secs(expiry_secs) <= now && !session.unsure);
            assert!(!over || known.is_none(), "the session of client {client} was resumed after its time");
            assert!(
                expiry_secs > 0 || known.is_none() || session.unsure,
                "the session of client {client} outlived its connection"
            );
        }
        assert!(known.is_none() || !self.conns[conn].clean, "a clean start resumed the session of {client}");
        assert!(known.is_none() || known == latest, "a session of {client} came back from the dead");
        let session = known.unwrap_or_else(|| {
            self.sessions.push(Session::new(client, serial, worker, now));
            self.sessions.len() - 1
        });
        self.overtake(client);
        let has_ended = |other: &Conn| match other.place {
            Place::At(worker, slot) => self.cores[worker].is_closing(slot),
            _ => other.ended,
        };
        let unfollowed =
            |other: &Conn| other.client == client && other.connect_fed && other.session.is_none() && has_ended(other);
        let perhaps = known.is_none() && !self.conns[conn].clean && self.conns.iter().any(unfollowed);
        if self.conns[conn].zombie && known.is_none() {
            self.clients[client].must_clean = true;
        }
        self.conns[conn].session = Some(session);
        self.conns[conn].resumed = known.is_some() || perhaps;
        self.conns[conn].perhaps_resumed = perhaps;
        self.conns[conn].attached_at = self.step;
        (self.conns[conn].heard, self.conns[conn].attached) = (now, now);
        let core = &self.cores[worker];
        let slot = core.slot_of_client(&self.clients[client].name).expect("it has just been joined");
        let number = core.sessions[slot as usize].number;
        if number != 0 {
            // That it is not kept any more may not be safe.
            self.sessions[session].number = number;
        }
        self.sessions[session].expiry_secs = self.conns[conn].expiry_secs;
        self.sessions[session].offline_since = None;
        self.sessions[session].online_at = now;
        self.count(if known.is_some() { "session resumed" } else { "session new" });
        self.note(|| format!("connection {conn} of client {client} has session {session}"));
        // What was taken over ended before anything else.
        let joined: Vec<bool> = self.conns.iter().map(|other| other.session.is_some()).collect();
        self.scan_for(worker, |of, number| of == client && number.is_none_or(|other| other != conn && joined[other]));
        self.step += 1;
        self.conns[conn].attached_at = self.step;
    }

    /// Looks which connections of a worker have ended, and which wills were published.
    fn scan(&mut self, worker: usize) {
        self.scan_for(worker, |_, _| true);
        // A will may have been published at any time of the call that has ended now: its plugin may have answered late.
        for will in std::mem::take(&mut self.just_parted) {
            self.msgs[will].last = self.msgs[will].last.max(Some(self.step));
        }
    }

    /// The same where a client, and a connection of it if it is about one, is of interest.
    fn scan_for(&mut self, worker: usize, concerns: impl Fn(usize, Option<usize>) -> bool) {
        // What ends in one call ends after what was handled in it, and nobody knows in which order.
        self.step += 1;
        self.scan_ended(worker, &concerns);
        for session in 0..self.sessions.len() {
            let model = &self.sessions[session];
            if model.worker == worker && !model.gone && concerns(model.client, None) {
                self.note_if_gone(session);
            }
        }
        for parting in std::mem::take(&mut self.partings) {
            if self.cores[parting.worker].farewells.contains_key(&parting.id) {
                self.partings.push(parting);
            } else if parting.is_due {
                self.count("will after an answer");
                self.will_routed(parting.will);
            }
        }
        let wills = std::mem::take(&mut self.wills);
        for (msg, session, due) in wills {
            let model = &self.sessions[session];
            if model.worker != worker || !concerns(model.client, None) {
                self.wills.push((msg, session, due));
                continue;
            }
            let name = &*self.clients[model.client].name;
            let core = &self.cores[worker];
            let kept = core.slot_of_client(name).map(|slot| &core.sessions[slot as usize]);
            let back = self.came_back(msg, session);
            match kept.filter(|kept| kept.serial == model.serial) {
                // Its client has come back, and may have gone again; in time, or not.
                Some(_) if back.is_some_and(|at| at < due) => self.count("will cancelled"),
                Some(kept) if back.is_none() && kept.will_at().is_some() => self.wills.push((msg, session, due)),
                Some(_) => {
                    assert!(self.now >= due, "the will {msg} was published too early");
                    self.count("will delayed");
                    self.will_routed(msg);
                }
                None => {
                    self.count("will at session end");
                    match self.partings.iter_mut().find(|parting| parting.will == msg) {
                        Some(parting) => parting.is_due = true,
                        None => self.will_routed(msg),
                    }
                }
            }
        }
    }

    fn scan_ended(&mut self, worker: usize, concerns: impl Fn(usize, Option<usize>) -> bool) {
        for conn in 0..self.conns.len() {
            if let Place::At(at, slot) = self.conns[conn].place
                && at == worker
                && concerns(self.conns[conn].client, Some(conn))
                && !self.conns[conn].ended
                && self.cores[worker].is_closing(slot)
            {
                self.note_handled(conn, self.conns[conn].fed, false);
                self.ended(conn);
            }
        }
    }

    /// When the client of a will was back first.
    fn came_back(&self, will: usize, session: usize) -> Option<Millis> {
        let of_will = self.conns.iter().find(|conn| conn.will.is_some_and(|(msg, _)| msg == will));
        let since = of_will.expect("some connection has it").attached_at;
        let later = self.conns.iter().filter(|conn| conn.session == Some(session) && conn.attached_at > since);
        later.min_by_key(|conn| conn.attached_at).map(|conn| conn.attached)
    }

    /// A session ends when its time has come, or when a client begins anew, and not otherwise.
    fn note_if_gone(&mut self, session: usize) {
        let model = &self.sessions[session];
        let client = &self.clients[model.client];
        let core = &self.cores[model.worker];
        let kept = core.slot_of_client(&client.name).map(|slot| core.sessions[slot as usize].serial);
        if kept == Some(model.serial) {
            return;
        }
        let replaced = self.sessions[session + 1..].iter().any(|later| later.client == model.client);
        let over = model.offline_since.is_some_and(|since| {
            model.expiry_secs == 0 || model.expiry_secs != u32::MAX && since.plus_secs(model.expiry_secs) <= self.now
        });
        assert!(over || replaced || client.must_clean || model.unsure, "session {session} has ended too early");
        self.sessions[session].gone = true;
        self.count(match (replaced, model_expires(&self.sessions[session])) {
            (true, _) => "session replaced",
            (false, true) => "session expired",
            (false, false) => "session ended with its connection",
        });
    }

    /// Whether a DISCONNECT packet that has come may have waited for a turn, or for an answer, until its connection ended
    /// otherwise.
    pub(super) fn may_have_missed_bye(&self, conn: usize) -> bool {
        let one = &self.conns[conn];
        let start = format!("disconnect {} ", self.clients[one.client].name);
        let script = self.scripted.script();
        let told = script.calls.iter().rfind(|line| line.starts_with(&start));
        one.overtaken
            || one.kicked
            || self.is_parting(conn)
            || !told.is_some_and(|line| line.contains(" Normal") || line.contains(" WithWill"))
    }

    /// The connection has ended, and its plugin owes an answer.
    fn is_parting(&self, conn: usize) -> bool {
        let Place::At(worker, slot) = self.conns[conn].place else { return false };
        let core = &self.cores[worker];
        core.farewells.contains_key(&core.connections[slot as usize].id)
    }

    /// The server has ended a connection.
    fn ended(&mut self, conn: usize) {
        let Place::At(worker, slot) = self.conns[conn].place else { return };
        let now = self.cores[worker].now;
        let one = &mut self.conns[conn];
        one.ended = true;
        let silent_ms = now.since(one.heard);
        let timed_out = one.keep_alive_secs > 0 && silent_ms >= u64::from(one.keep_alive_secs) * 1500;
        let late = one.session.is_none() && silent_ms >= 10_000;
        let why = [
            (one.said_bye, "end: DISCONNECT"),
            (one.overtaken, "end: taken over"),
            (one.kicked, "end: plugin"),
            (one.cut, "end: cut"),
            (timed_out, "end: keep alive"),
            (late, "end: connect timeout"),
            (self.config.tight_outbound, "end: not reading"),
        ];
        let why = why.iter().find(|(holds, _)| *holds);
        let Some((_, why)) = why else {
            let calls = &self.scripted.script().calls;
            let told = calls.iter().rfind(|line| line.starts_with("disconnect")).cloned();
            panic!("the server has closed connection {conn} for no reason: {told:?}");
        };
        self.count(why);
        self.note(|| format!("the server ends connection {conn}: {why}"));
        if let Some(session) = self.conns[conn].session
            && self.conns.iter().all(|other| other.ended || other.session != Some(session))
        {
            self.sessions[session].offline_since = Some(now);
            self.sessions[session].online_at = now;
        }
        self.end_of_will(conn, worker, slot);
    }

    /// A connection has ended: its will is published, or waits for its time or for the plugin.
    fn end_of_will(&mut self, conn: usize, worker: usize, slot: u32) {
        let one = &self.conns[conn];
        let Some((msg, delay)) = one.will.filter(|_| one.connect_fed) else { return };
        let missed = one.said_bye && self.may_have_missed_bye(conn);
        if one.no_will && !missed {
            return;
        }
        self.msgs[msg].worker = worker;
        let (Some(session), false) = (one.session, missed) else { return self.perhaps_routed(msg) };
        let (core, is_due) = (&self.cores[worker], delay == 0 || one.expiry_secs == 0);
        let due = core.now.plus_secs(delay.min(one.expiry_secs));
        let id = core.connections[slot as usize].id;
        let waits = core.farewells.contains_key(&id);
        if waits {
            self.partings.push(Parting { worker, id, will: msg, is_due });
        }
        if is_due && waits {
            self.count("will waits for an answer");
        } else if is_due {
            self.count("will at once");
            self.will_routed(msg);
        } else {
            self.wills.push((msg, session, due));
        }
    }

    /// A will may be published now, or later, or not at all.
    pub(super) fn perhaps_routed(&mut self, msg: usize) {
        self.routed(msg, false);
        let msg = &mut self.msgs[msg];
        msg.last = Some(Step::MAX);
        msg.since = msg.since.map(|(first, _)| (first, Millis::NEVER));
    }

    /// A will was published at some time of the present call, before what others have published in it or behind that.
    fn will_routed(&mut self, msg: usize) {
        self.routed(msg, true);
        let (began, one) = (self.call_began, &mut self.msgs[msg]);
        one.first = one.first.min(Some(began));
        self.just_parted.push(msg);
    }

    /// A message has been routed.
    pub(super) fn routed(&mut self, msg: usize, definite: bool) {
        self.note(|| format!("message {msg} is routed"));
        let (step, now) = (self.step, self.cores[self.msgs[msg].worker].now);
        let msg = &mut self.msgs[msg];
        msg.first.get_or_insert(step);
        msg.last = Some(step);
        msg.since.get_or_insert((now, now));
        msg.definite |= definite;
        msg.times += 1;
    }
}

/// What the workers of a server have in common, and whether each has been rung for.
fn server(config: &Config, scripted: &Scripted) -> (Arc<Shared>, Vec<Arc<AtomicBool>>) {
    let rung: Vec<Arc<AtomicBool>> = (0..config.workers).map(|_| Arc::default()).collect();
    let ring = |bell: &Arc<AtomicBool>| {
        let bell = Arc::clone(bell);
        Box::new(move || bell.store(true, Ordering::Relaxed)) as _
    };
    let mailboxes = Mailboxes::new(rung.iter().map(ring).collect());
    let (chain, judges) =
        Scripted::chain(Some(scripted), (usize::from(config.judged), false), &mailboxes, &config.limits);
    if config.judged {
        plugin::judge(&judges);
    }
    let shared = Shared::new(config.limits.clone(), chain, mailboxes);
    (Arc::new(if config.store { shared.with_store(ZERO, Arc::default()) } else { shared }), rung)
}

fn model_expires(session: &Session) -> bool {
    session.expiry_secs > 0
}

/// How many PUBLISH packets begin in these bytes.
fn publishes_in(mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while let Some(first) = bytes.first() {
        count += u64::from(first >> 4 == 3);
        bytes = &bytes[wire::first_packet(bytes).unwrap_or(bytes.len())..];
    }
    count
}
