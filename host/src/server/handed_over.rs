//! What a server does for [an upgrade](crate::upgrade): the process that hands over stops, tells, and lets go; the one that takes
//! over takes in.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use super::kept::Kept;
use super::{Claim, ServerHandle, lock};
use crate::clock::Millis;
use crate::control;
use crate::core::ListenerProfile;
use crate::core::mail::Mail;
use crate::durable::store::Store;
use crate::io::listener::Listener;
use crate::io::pause::{Order, Outlet, Report};
use crate::io::worker::{self, Inheritance, Inherited};
use crate::listener::ListenerConfig;
use crate::message::Message;
use crate::packed::{Reader, Unreadable, Write};
use crate::plugin::{Chain, GateState, Services};
use crate::router::Numbered;
use crate::store::{Baton, Brake, Learn};

/// How long is waited for what plugins owe an answer about, before it ends.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Why workers do not settle.
const NEVER_RETURNS: &str = "a worker has not come to the end of its turn: does a plugin not return?";
const NEVER_ENDS: &str = "there is always something to do for the workers: does a plugin publish without end?";

/// How long workers may take to go on.
const GO_ON_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of retained messages that are told at once, or a few more.
const RETAINED_BYTES: usize = 256 << 10;

/// What waits for one worker until it has taken it in.
const INHERITED_MAX: usize = 256;

impl ServerHandle {
    /// That nothing else changes it meanwhile. `None`: something does.
    pub(crate) fn begin_upgrade(&self) -> Option<MutexGuard<'_, ()>> {
        match self.reloading.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The lock of the directory where what it has is kept as well, if there is one.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub(crate) fn data_dir_lock(&self) -> io::Result<Option<OwnedFd>> {
        lock(&self.threads).kept.as_ref().map(Kept::lock).transpose()
    }

    /// Whether there is a store that cannot write.
    pub(crate) fn cannot_keep(&self) -> bool {
        lock(&self.threads).kept.as_ref().is_some_and(|kept| kept.store().is_failing())
    }

    /// Has everything written that is to be kept, and nothing more from then on. `None`: nothing is kept.
    ///
    /// # Errors
    /// It cannot be written in time.
    pub(crate) fn stop_keeping(&self, deadline: Instant) -> Result<Option<(Baton, Brake)>, String> {
        let Some(brake) = lock(&self.threads).kept.as_ref().map(Kept::brake) else { return Ok(None) };
        match brake.stop(deadline) {
            Some(baton) => Ok(Some((baton, brake))),
            None => Err("what is to be kept cannot be written; the log says why".to_owned()),
        }
    }

    /// Goes on with what another process has kept. Nothing is written before that is all this one's.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub(crate) fn keep_behind(&self, claim: Claim, baton: Baton) -> Result<Learn, String> {
        let (kept, learn) = claim.take_over(baton)?;
        lock(&self.threads).kept = Some(kept);
        Ok(learn)
    }

    /// All of it is this process's. Returns where workers hand over what is to be kept.
    pub(crate) fn begin_keeping(&self) -> Option<Arc<dyn Store>> {
        let mut threads = lock(&self.threads);
        let kept = threads.kept.as_mut()?;
        kept.begin();
        Some(kept.store())
    }

    /// The number of the next session that is kept.
    pub(crate) fn next_session(&self) -> u64 {
        lock(&self.threads).shared.as_ref().map_or(0, |shared| shared.next_session())
    }

    /// Numbers its sessions from there on.
    pub(crate) fn skip_sessions(&self, next: u64) {
        lock(&self.threads).shared.iter().for_each(|shared| shared.skip_sessions(next));
    }

    /// Where commands are taken.
    pub(crate) fn set_control(&self, control: control::Shared) {
        *lock(&self.control) = control;
    }

    pub(crate) fn control(&self) -> control::Shared {
        lock(&self.control).clone()
    }

    pub(crate) fn now(&self) -> Millis {
        self.clock.now()
    }

    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    /// The listeners, with the settings that they have.
    pub(crate) fn opened(&self) -> Vec<(ListenerConfig, Listener)> {
        self.listeners.opened().into_iter().map(|open| (open.config, open.listener)).collect()
    }

    pub(crate) fn chain(&self) -> Chain {
        lock(&self.threads).chain.clone().unwrap_or_default()
    }

    /// The plugins' names, in the order of the chain.
    pub(crate) fn plugin_names(&self) -> Vec<String> {
        self.chain().names()
    }

    /// What the plugins know as a whole, of those that say so.
    ///
    /// # Errors
    /// One of them failed.
    pub(crate) fn plugin_images(&self) -> Result<Vec<Vec<u8>>, String> {
        self.chain().plugins().iter().filter_map(|plugin| plugin.image()).collect()
    }

    /// Has the workers accept and read nothing more, and do what is left to do. Connections that cannot go over end. Returns how
    /// many.
    ///
    /// # Errors
    /// A worker does not get there in time.
    pub(crate) fn settle(&self, deadline: Instant) -> Result<usize, String> {
        self.services.set_gate(GateState::Shut);
        self.workers.set_listeners(Vec::new());
        let answers_until = Instant::now() + ANSWERS_WITHIN;
        loop {
            let is_met = self.settle_in_stages(answers_until, deadline)?;
            // Timers run until all stand still: what they have done since is done first.
            let stand = self.ask(Order::Stand, deadline).ok_or(NEVER_RETURNS)?;
            if stand.iter().all(is_met) && self.nothing_moves() {
                let closed = |report: &Report| if let Report::Settled { closed, .. } = report { *closed } else { 0 };
                return Ok(stand.iter().map(closed).sum());
            }
            if Instant::now() >= deadline {
                return Err(NEVER_ENDS.to_owned());
            }
        }
    }

    /// Has the workers do what is left to do, and go on with that. Returns what holds of all of them then: that all is done, or
    /// at least that nothing is owed.
    fn settle_in_stages(&self, answers_until: Instant, deadline: Instant) -> Result<fn(&Report) -> bool, String> {
        let is_done: fn(&Report) -> bool =
            |report| matches!(report, Report::Settled { is_done: true, owes: false, .. });
        let owes_nothing: fn(&Report) -> bool = |report| matches!(report, Report::Settled { owes: false, .. });
        // What is not done in the last stage is not waited for: a farewell that a plugin owes, unless it comes with a will.
        let stages = [
            (false, answers_until, is_done),
            (true, answers_until + ANSWERS_WITHIN, is_done),
            (true, deadline, owes_nothing),
        ];
        let mut reports = Vec::new();
        for (finally, until, is_met) in stages {
            match self.settle_until(finally, until.min(deadline), |all| all.iter().all(is_met) && self.nothing_moves())
            {
                Ok(_) => return Ok(is_met),
                Err(last) => reports = last,
            }
        }
        let why = match reports.iter().any(Option::is_none) {
            true => NEVER_RETURNS,
            false if !reports.iter().flatten().all(owes_nothing) => {
                "what was promised could not be written in time, or a plugin has not decided about a will; the log says why"
            }
            false => NEVER_ENDS,
        };
        Err(why.to_owned())
    }

    /// Nothing is on its way to a worker.
    fn nothing_moves(&self) -> bool {
        let nothing_comes = |worker| self.mailboxes.of(worker).is_empty() && self.workers.nothing_arrives(worker);
        (0..self.mailboxes.workers()).all(nothing_comes)
    }

    fn settle_until(
        &self,
        finally: bool,
        deadline: Instant,
        is_met: impl FnMut(&[Report]) -> bool,
    ) -> Result<Vec<Report>, Vec<Option<Report>>> {
        let (order, workers) = (Order::Settle { finally }, self.mailboxes.workers());
        self.workers.pause().ask_until(order, workers, || self.workers.ring_all(), deadline, is_met)
    }

    fn ask(&self, order: Order, deadline: Instant) -> Option<Vec<Report>> {
        self.workers.pause().ask(order, self.mailboxes.workers(), || self.workers.ring_all(), deadline)
    }

    /// Has the workers tell all that they know. Returns how many connections that were, and the number of the next one.
    ///
    /// # Errors
    /// One of them could not, or not in time.
    pub(crate) fn tell(&self, outlet: Arc<Outlet>, deadline: Instant) -> Result<(usize, u64), String> {
        let reports = self.ask(Order::Tell(outlet), deadline).ok_or("a worker has not told everything in time")?;
        let mut all = (0, 0);
        for report in reports {
            match report {
                Report::Told { connections, next_connection } => {
                    all = (all.0 + connections, all.1.max(next_connection));
                }
                Report::Failed(reason) => return Err(reason),
                Report::Settled { .. } | Report::Done => return Err("a worker has told nothing".to_owned()),
            }
        }
        Ok(all)
    }

    /// Tells the retained messages, some at a time.
    pub(crate) fn retained_images<E>(&self, mut tell: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let Some(shared) = lock(&self.threads).shared.clone() else { return Ok(()) };
        let mut from = Some(0);
        while let Some(place) = from {
            let (some, next) = shared.retained.numbered(place, RETAINED_BYTES);
            from = next;
            let mut image = Vec::new();
            image.put_u64(shared.retained.mark());
            image.put_count(some.len());
            for Numbered { message, number, since } in some {
                image.put_u64(number);
                image.put_u64(since);
                crate::core::write_message(&message, &mut image);
            }
            tell(&image)?;
        }
        Ok(())
    }

    /// What has been counted, and who is let in and who is not.
    pub(crate) fn gates_image(&self) -> Vec<u8> {
        let shared = lock(&self.threads).shared.clone();
        shared.map_or_else(Vec::new, |shared| shared.gates_image(&self.profiles(), self.now()))
    }

    /// Takes that in.
    pub(crate) fn inherit_gates(&self, image: &[u8]) -> Result<(), Unreadable> {
        let Some(shared) = lock(&self.threads).shared.clone() else { return Ok(()) };
        shared.inherit_gates(image, &self.profiles())
    }

    fn profiles(&self) -> Vec<Arc<ListenerProfile>> {
        self.listeners.listeners().iter().map(|listener| Arc::clone(listener.profile())).collect()
    }

    /// The workers go on as before, and so does everything else.
    pub(crate) fn go_on(&self) {
        if let Some(kept) = &lock(&self.threads).kept {
            kept.brake().release();
        }
        self.ask(Order::GoOn, Instant::now() + GO_ON_WITHIN);
        self.services.set_gate(GateState::Open);
        self.workers.set_listeners(self.listeners.listeners());
    }

    /// Names in the file system are the other process's.
    pub(crate) fn give_up_names(&self) {
        self.listeners.listeners().iter().for_each(|listener| listener.set_ours(false));
        self.control().set_ours(false);
    }

    /// They are not, after all; or they are this one's for the first time.
    pub(crate) fn take_names_back(&self) {
        self.listeners.listeners().iter().for_each(|listener| listener.set_ours(true));
        self.control().set_ours(true);
    }

    /// Forgets what has gone over, and stops. `closed` is called when nothing of what is kept is open here any more.
    pub(crate) fn let_go(&self, closed: impl FnOnce() + Send + 'static) {
        self.services.set_gate(GateState::Closed);
        // Not here: a checkpoint may be under way.
        let kept = lock(&self.threads).kept.take();
        let retire = move || {
            // It writes nothing, so that nothing can go wrong with that.
            let _ = kept.map(Kept::close);
            closed();
        };
        match std::thread::Builder::new().name("retire".to_owned()).spawn(retire) {
            Ok(thread) => lock(&self.threads).retiring = Some(thread),
            Err(error) => tracing::warn!(%error, "what was kept is closed only by the end of this process"),
        }
        // The connections go on elsewhere: that they end here is not to be recorded, and who goes on waits for the file.
        let recorder = lock(&self.threads).recorder.take();
        if let Some(recorder) = recorder {
            recorder.finish();
        }
        // A worker that does not report is let go of as well, with the process.
        self.ask(Order::LetGo, Instant::now() + GO_ON_WITHIN);
        worker::stop_all(&self.mailboxes);
        self.close_listeners();
    }

    /// Takes in some retained messages.
    pub(crate) fn inherit_retained(&self, image: &[u8]) -> Result<(), Unreadable> {
        let Some(shared) = lock(&self.threads).shared.clone() else { return Ok(()) };
        let mut reader = Reader::new(image);
        let mark = reader.u64()?;
        for _ in 0..reader.count()? {
            let (number, since) = (reader.u64()?, reader.u64()?);
            let (parts, token) = crate::core::read_message(&mut reader, &shared.places_before)?;
            let message: Message = parts.to_message_with_token(token);
            shared.retained.inherit(Numbered { message: Arc::new(message), number, since }, mark);
        }
        reader.end()
    }

    /// Has a plugin take in what it knew as a whole.
    ///
    /// # Errors
    /// It cannot, or what was told cannot be read.
    pub(crate) fn inherit_plugin(&self, image: &[u8]) -> Result<(), String> {
        let mut reader = Reader::new(image);
        let name = reader.text().map_err(|error| error.to_string())?;
        match self.chain().plugins().iter().find(|plugin| plugin.name() == name) {
            Some(plugin) => plugin.inherit(&mut reader),
            None => Ok(()),
        }
    }

    /// Messages that plugins post from now on come to workers that have taken everything in.
    pub(crate) fn wake_workers(&self) {
        for worker in 0..self.mailboxes.workers() {
            let _ = self.mailboxes.post(worker, Mail::Plan);
        }
    }
}

/// The ways to workers that begin with what another process had.
pub(crate) struct Heirs(Vec<SyncSender<Inherited>>);

impl Heirs {
    /// One for each worker, with what that one begins with.
    pub(super) fn new(workers: usize, listeners: &[Listener]) -> (Self, Vec<Inheritance>) {
        let one = |_| {
            let (sender, source) = mpsc::sync_channel(INHERITED_MAX);
            (sender, Inheritance { source, listeners: listeners.to_vec() })
        };
        let (senders, inheritances) = (0..workers).map(one).unzip();
        (Self(senders), inheritances)
    }

    pub(crate) fn workers(&self) -> usize {
        self.0.len()
    }

    /// Gives something to a worker.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn give(&self, worker: usize, inherited: Inherited) -> Result<(), String> {
        self.0[worker].send(inherited).map_err(|_| format!("worker {worker} has ended; the log says why"))
    }

    /// Waits until all have taken in what was given to them.
    ///
    /// # Errors
    /// One of them could not.
    pub(crate) fn confirm(&self) -> Result<(), String> {
        let ask = |worker| {
            let (sender, answer) = mpsc::sync_channel(1);
            self.give(worker, Inherited::Confirm(sender)).map(|()| (worker, answer))
        };
        let asked = (0..self.workers()).map(ask).collect::<Result<Vec<_>, _>>()?;
        for (worker, answer) in asked {
            answer.recv().map_err(|_| format!("worker {worker} has ended; the log says why"))??;
        }
        Ok(())
    }
}
