//! There is a store; and the server dies, and starts again with what was safe and perhaps some more.
//!
//! All workers lose their memory at once. Of the journals that were handed over, those that were said to be safe are there,
//! and a random number of those behind them. What clients have read they know; what was on its way to them is lost.

use super::super::kept;
use super::super::net::ZERO;
use super::model::*;
use super::world::World;
use crate::core::{Core, NONE};
use crate::durable::image;
use crate::durable::model::memory::Journal;
use crate::durable::store::fake::FakeStore;
use crate::durable::store::{Piece, Store};

impl World {
    /// Hands over what a worker has for the store, which goes before what it has for other workers. It is safe at once where
    /// nothing can be lost.
    pub(super) fn hand_over(&mut self, worker: usize) -> bool {
        kept::hand_over(&mut self.cores[worker..=worker], self.store.as_ref());
        if let Some(store) = self.store.as_ref().filter(|_| !self.config.crashes) {
            store.make_all_safe();
            self.learn_what_is_safe(worker);
        }
        self.store.is_some() && self.cores[worker].has_dirty()
    }

    /// Some of what was handed over becomes safe; workers do not know yet.
    pub(super) fn store_works(&mut self) {
        let Some(store) = &self.store else { return };
        let (safe, last) = (store.safe_up_to(), store.last());
        let more = match self.rng.below(3) {
            0 => last - safe,
            _ => self.rng.below((last - safe + 1) as usize) as u64,
        };
        store.make_safe(safe + more);
        self.note(|| format!("safe are {} of {last} journals", safe + more));
    }

    /// A worker learns what is safe.
    pub(super) fn learn_what_is_safe(&mut self, worker: usize) -> bool {
        let Some(store) = &self.store else { return false };
        let (safe, core) = (store.safe_up_to(), &mut self.cores[worker]);
        let waited = core.waits_for().is_some_and(|number| number <= safe);
        core.journals_are_safe(safe);
        waited
    }

    /// Everything that was handed over is safe, and all workers know.
    pub(super) fn make_all_safe(&mut self) -> bool {
        let Some(store) = &self.store else { return false };
        store.make_all_safe();
        let mut moved = false;
        for worker in 0..self.cores.len() {
            moved |= self.learn_what_is_safe(worker);
        }
        moved
    }

    /// What was handed over is what there is.
    pub(super) fn check_kept(&self) {
        if let Some(store) = &self.store {
            kept::check(&self.cores, &self.shared, store, ZERO, self.now);
        }
    }

    /// The server dies, and another one takes its place.
    pub(super) fn crash(&mut self) {
        let Some(store) = self.store.take() else { return };
        self.step += 1;
        self.crashes += 1;
        let (safe, journals) = (store.safe_up_to(), store.journals());
        let kept = safe as usize + self.rng.below(journals.len() + 1 - safe as usize);
        self.note(|| format!("the server dies: {safe} of {} journals were safe, {kept} are there", journals.len()));
        self.count(if kept > safe as usize { "crash, and more was kept" } else { "crash" });
        let doubtful = self.sessions.iter().map(|session| session.number).collect();
        self.lose_connections();
        self.lose_memory();
        let again = FakeStore::default();
        for (worker, mut journal) in journals.into_iter().take(kept) {
            again.hand_over(worker, &mut journal);
        }
        self.restore(&again);
        again.make_all_safe();
        self.store = Some(again);
        self.find_sessions(doubtful);
        self.forget_what_was_not_promised();
    }

    /// Clients find that their connections have ended.
    fn lose_connections(&mut self) {
        // When a session ends depends on what may have been done and lost, but for what was at rest since.
        let rested = self.rested;
        for session in &mut self.sessions {
            session.unsure |= session.offline_since.is_some_and(|since| since >= rested.1);
        }
        for conn in self.conns.iter().filter(|conn| conn.attached_at > rested.0) {
            if let Some(session) = conn.session.filter(|_| conn.said_bye || !conn.connack) {
                self.sessions[session].unsure = true;
            }
        }
        for conn in 0..self.conns.len() {
            if self.conns[conn].place == Place::Gone {
                continue;
            }
            self.conns[conn].cut = true;
            self.forsake(conn);
            (self.conns[conn].place, self.conns[conn].ended) = (Place::Gone, true);
        }
        // QoS 1 is not remembered by Packet Identifier, and what was not safe gets another one.
        for client in &mut self.clients {
            let received = &client.received;
            client.unanswered.retain(|packet_id, _| received.contains_key(packet_id));
        }
    }

    /// Another server takes the place of this one, which is lost with all that it knew. It may have more workers, or fewer.
    fn lose_memory(&mut self) {
        self.dropped_before = self.dropped();
        (self.published, self.delivered, self.lost, self.counted_before) = ([0; 2], 0, 0, [0; 2]);
        if self.rng.percent(50) {
            self.config.workers = 1 + self.rng.below(4);
        }
        self.begin_server();
        self.have_other_workers();
    }

    /// The new one gets what was kept: by way of the model of it, and of checkpoints, of which there is one now and then.
    fn restore(&mut self, store: &FakeStore) {
        let (now, workers) = (self.now, self.cores.len());
        for (_, journal) in store.journals().iter().skip(self.on_disk) {
            self.disk.journal.extend_from_slice(journal);
            if self.rng.percent(10) {
                let delta = self.disk.load().freeze([self.disk.journal.len() as u64, 0, 0]);
                self.disk.commit(&delta);
                *self.cover.entry("checkpoint").or_default() += 1;
            }
        }
        self.on_disk = store.journals().len();
        let cores = &mut self.cores;
        let mut give = |Piece { worker, changes }| {
            let restored = cores[worker].restore(&changes, ZERO, now);
            restored.unwrap_or_else(|error| panic!("{error} in what the store gives"));
        };
        let mut journal = Journal(&self.disk.journal);
        image::give_all(&self.disk.load(), &self.disk, &mut journal, workers, &mut give, &mut |_| {})
            .expect("it is in memory");
        // All of it together is one journal: what was on its way has come, or has not.
        let mut came = Vec::new();
        for core in &mut self.cores {
            core.end_restoring(now);
            core.hand_over_journal(|journal| {
                came.append(journal);
                0
            });
        }
        if !came.is_empty() {
            store.hand_over(0, &mut came);
        }
        self.cores.iter().for_each(Core::assert_sound);
    }

    /// Looks which sessions are there again: those that were promised, and perhaps others.
    fn find_sessions(&mut self, numbers: Vec<u64>) {
        let now = self.now;
        for (number, known) in numbers.into_iter().enumerate() {
            let client = self.sessions[number].client;
            let (name, core) = (&*self.clients[client].name, &self.cores[self.sessions[number].worker]);
            let there = core.slot_of_client(name).map(|slot| &core.sessions[slot as usize]);
            let found = there.filter(|there| there.number != 0 && there.number == known);
            let found = found.map(|there| (there.serial, there.connection == NONE));
            let is_latest = self.sessions[number + 1..].iter().all(|later| later.client != client);
            let of_it = |conn: &&Conn| conn.session == Some(number);
            let was_told = self.conns.iter().filter(of_it).any(|conn| conn.connack && conn.expiry_secs > 0);
            self.note(|| format!("session {number} of client {client}: {found:?}"));
            let session = &mut self.sessions[number];
            let is_promised = was_told && is_latest && !session.gone && !session.unsure;
            match found {
                Some((serial, is_away)) => {
                    assert!(is_away, "session {number} has a connection");
                    // Its end was perhaps not safe.
                    session.unsure |= session.gone || !is_latest;
                    (session.serial, session.gone) = (serial, false);
                    if session.offline_since.is_none() {
                        (session.offline_since, session.online_at) = (Some(now), now);
                    }
                    self.count("session kept");
                }
                None => {
                    let over = session.offline_since.is_some_and(|since| {
                        session.expiry_secs != u32::MAX && since.plus_secs(session.expiry_secs) <= now
                    });
                    assert!(!is_promised || session.expiry_secs == 0 || over, "session {number} was promised");
                    // Another one may get the number, as nobody knows of this one.
                    (session.serial, session.number, session.gone) = (u32::MAX, 0, true);
                }
            }
        }
    }

    /// What nobody was told since everything was at rest last may have been lost.
    fn forget_what_was_not_promised(&mut self) {
        for msg in &mut self.msgs {
            let nobody_was_told = msg.qos == 0 || msg.publisher == PLUGIN || msg.kind == Kind::Will;
            if !msg.checked && nobody_was_told {
                msg.definite = false;
            }
        }
        // A will that waits may have been published, or wait longer; and one of a connection that has ended with the
        // server is kept or not, as its delay and its session have it.
        let waiting = std::mem::take(&mut self.wills).into_iter().map(|(msg, ..)| msg);
        let of_conns = self.conns.iter().filter_map(|conn| conn.will).map(|(msg, _)| msg);
        let wills: Vec<usize> = waiting.chain(of_conns).collect();
        for msg in wills {
            if !self.msgs[msg].checked {
                self.perhaps_routed(msg);
            }
        }
    }
}
