//! Another process takes the place of the server, with its sessions and connections: clients notice nothing.

use std::collections::HashMap;
use std::sync::Arc;

use super::model::*;
use super::world::World;
use crate::core::{Core, owner_of};

/// Rounds after which something is wrong if workers have not come to the end of what they do.
const ROUNDS_MAX: usize = 10_000;

impl World {
    /// What the workers know goes over to others, which may be more or fewer.
    pub(super) fn upgrade(&mut self) {
        self.step += 1;
        self.note(|| "another process takes over".to_owned());
        self.settle_workers();
        while self.cores.iter().any(|core| !core.delayed_infos.is_empty()) {
            self.jump(1000);
            self.settle_workers();
        }
        self.count("upgrade");
        let kept: Vec<bool> = (0..self.sessions.len()).map(|session| self.is_there(session)).collect();
        let (cores, shared) = (std::mem::take(&mut self.cores), Arc::clone(&self.shared));
        let (counted, dropped) = (self.counted(), self.dropped());
        let conns = self.forget_server();
        if self.rng.percent(50) {
            self.config.workers = 1 + self.rng.below(4);
        }
        self.begin_server();
        (self.counted_before, self.dropped_before) = (counted, dropped);
        self.have_other_workers();
        let (retained, _) = shared.retained.numbered(0, usize::MAX);
        retained.into_iter().for_each(|one| self.shared.retained.inherit(one, shared.retained.mark()));
        self.inherit_all(cores, conns);
        for (session, is_kept) in kept.into_iter().enumerate() {
            let (name, worker) = (&*self.clients[self.sessions[session].client].name, self.sessions[session].worker);
            let slot = self.cores[worker].slot_of_client(name);
            let shown = |slot: u32| {
                let there = &self.cores[worker].sessions[slot as usize];
                (there.serial, there.number)
            };
            assert!(!is_kept || slot.is_some(), "session {session} has not come over");
            // Others count anew, and one that has ended is none of theirs: another one may get its number.
            let (serial, number) = slot.filter(|_| is_kept).map_or((u32::MAX, 0), shown);
            (self.sessions[session].serial, self.sessions[session].number) = (serial, number);
        }
        for worker in 0..self.cores.len() {
            let now = self.now;
            self.cores[worker].begin_inherited(now);
            self.look(worker);
        }
    }

    /// Nothing is read any more, and what is under way comes to its end. Time stands still meanwhile.
    fn settle_workers(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.settle_owed();
            // What is kept is on disk before another process goes on with it; and nothing of it is told to that one.
            let mut moved = self.turn_everywhere();
            // What is being closed stays behind.
            for conn in self.listed() {
                if let Place::At(worker, slot) = self.conns[conn].place
                    && self.cores[worker].is_closing(slot)
                {
                    moved |= self.read(conn, usize::MAX);
                }
            }
            if !moved && self.cores.iter_mut().all(Core::is_settled) {
                return;
            }
        }
        panic!("workers do not come to the end of what they do");
    }

    /// Whether the server has a session that the model knows.
    fn is_there(&self, session: usize) -> bool {
        let model = &self.sessions[session];
        let core = &self.cores[model.worker];
        let slot = core.slot_of_client(&self.clients[model.client].name);
        slot.is_some_and(|slot| core.sessions[slot as usize].serial == model.serial)
    }

    /// Those before are left with nothing.
    fn inherit_all(&mut self, cores: Vec<Core>, mut conns: HashMap<(usize, u32), usize>) {
        let (now, workers, profile) = (self.now, self.cores.len(), self.profile());
        let next = cores.iter().map(Core::next_connection).max().unwrap_or(1);
        for (before, mut core) in cores.into_iter().enumerate() {
            for heirloom in core.heirlooms() {
                let mut image = Vec::new();
                core.image(heirloom, &mut image);
                let (teller, bodies) = (u32::try_from(before).expect("there are few"), Arc::from(core.take_untold()));
                for heir in &mut self.cores {
                    heir.inherit_bodies(teller, &bodies).expect("they are whole");
                }
                let to = owner_of(core.client_id(heirloom), workers);
                let slot = self.cores[to].inherit(teller, &image, &|_| Some(Arc::clone(&profile)), now);
                let slot = slot.unwrap_or_else(|error| panic!("an image cannot be read: {error}"));
                assert_eq!(slot.is_some(), heirloom.connection.is_some(), "a connection that has not come over");
                if let (Some(slot), Some(old)) = (slot, heirloom.connection) {
                    let conn = conns.remove(&(before, old)).expect("somebody is at its other end");
                    self.take_over(conn, to, slot);
                }
            }
            core.let_go();
            core.assert_sound();
            assert_eq!((core.sessions.len(), core.connections.len()), (0, 0), "what has been left behind");
        }
        assert!(conns.is_empty(), "connections that have been left behind");
        self.cores.iter_mut().for_each(|core| core.skip_connections(next));
    }
}
