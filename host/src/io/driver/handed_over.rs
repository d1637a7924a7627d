//! Another process takes the place of this one: what a worker does before, and what the other process's does first.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use zeroize::Zeroize;

use super::Driver;
use super::journal::Desk;
use crate::clock::Millis;
use crate::core::{Heirloom, InheritedTimer, ProfileOf};
use crate::durable::store::Store;
use crate::io::listener::Listener;
use crate::io::pause::{Order, Outlet, Report, Told};
use crate::io::sockets::Stage;
use crate::packed::Write;

/// What is told at once: so many bytes, or a few more, and the sockets of so many connections.
const TOLD_BYTES: usize = 64 << 10;
const TOLD_SOCKETS: usize = 128;

/// How long a worker waits at most until it looks again, in milliseconds: with something left to do, and with nothing.
const UNSETTLED_MS: u64 = 2;
const SETTLED_MS: u64 = 100;

/// What a worker inherits from another process.
pub(crate) enum Inherited {
    /// Messages that images of that worker of the other process refer to.
    Bodies { teller: u32, bytes: Arc<[u8]> },
    /// A session, a connection, or both, that this worker of the other process has had.
    Client { teller: u32, image: Vec<u8>, fd: Option<OwnedFd> },
    /// A message that waits for its moment.
    Timer(InheritedTimer),
    /// Its connections have numbers from there on.
    NextConnection(u64),
    /// Says that all before it has been taken in, or why not.
    Confirm(SyncSender<Result<(), String>>),
    /// It is the worker's now, which hands over there what is to be kept.
    Begin(Option<Arc<dyn Store>>),
}

/// Where it comes from. If it ends before [`Inherited::Begin`], it stays with the other process.
pub(crate) struct Inheritance {
    pub(crate) source: Receiver<Inherited>,
    pub(crate) listeners: Vec<Listener>,
}

impl Driver {
    /// Carries out orders until it is to go on.
    pub(super) fn pause(&mut self) -> std::io::Result<()> {
        let (mut number, mut closed) = (self.last_order, 0);
        self.core.set_deaf(true);
        loop {
            let order = self.workers.pause().next(&mut number);
            self.last_order = number;
            let (report, is_last) = match order {
                Order::Settle { finally } => {
                    self.settle(finally, number, &mut closed)?;
                    continue;
                }
                Order::Stand => (self.settled(closed), false),
                Order::Tell(outlet) => (self.tell(&*outlet), false),
                Order::GoOn => {
                    self.core.forget_told();
                    (Report::Done, true)
                }
                Order::LetGo => {
                    self.let_go();
                    (Report::Done, true)
                }
            };
            self.workers.pause().report(number, self.worker, report);
            if is_last {
                self.core.set_deaf(false);
                return Ok(());
            }
        }
    }

    /// Takes turns that accept and read nothing, until there is another order than that with this number.
    pub(super) fn settle(&mut self, finally: bool, number: u64, closed: &mut usize) -> std::io::Result<()> {
        let mut patience_ms = 0;
        loop {
            self.poller.wait(Some(patience_ms))?;
            // Whatever comes next: it is said once, and whoever goes on after all does so with it.
            self.note_events();
            if self.workers.pause().has_behind(number) {
                return Ok(());
            }
            // Before anything is taken from where it can be seen.
            let report = Report::Settled { is_done: false, owes: self.owes(), closed: *closed };
            self.workers.pause().report(number, self.worker, report);
            *closed += self.settle_once(finally);
            let report = self.settled(*closed);
            self.workers.pause().report(number, self.worker, report);
            self.ask_to_be_woken();
            patience_ms = match (self.is_busy(), self.core.is_settled()) {
                (true, _) => 0,
                // Not everybody who is waited for rings, and timers run on.
                (false, false) => UNSETTLED_MS,
                (false, true) => SETTLED_MS,
            };
        }
    }

    /// How far it is.
    fn settled(&mut self, closed: usize) -> Report {
        let is_done = self.core.is_settled() && !self.is_busy();
        Report::Settled { is_done, owes: self.owes(), closed }
    }

    /// There is something to be done at once.
    fn is_busy(&self) -> bool {
        self.core.has_dirty() || !self.to_flush.is_empty()
    }

    fn owes(&self) -> bool {
        self.core.waits_for().is_some() || self.core.has_undecided_wills()
    }

    /// A turn that accepts and reads nothing. Returns how many connections have ended that cannot go over.
    fn settle_once(&mut self, finally: bool) -> usize {
        self.exchange_listeners();
        let now = self.clock.now();
        self.learn_what_is_safe(now);
        self.welcome(now);
        self.adopt_arriving(now);
        self.core.on_mail(now);
        self.core.on_tick(now);
        let closed = self.core.close_immovable(finally, now);
        self.end_of_work();
        self.flush(now);
        self.close_overdue(now);
        self.end_of_work();
        closed
    }

    /// Tells all that it knows of its clients. Nothing changes by that.
    fn tell(&mut self, outlet: &Outlet) -> Report {
        let (mut told, mut sockets, mut connections) = (Vec::new(), Vec::new(), 0);
        let mut image = Vec::new();
        for heirloom in self.core.heirlooms() {
            let Heirloom { connection, .. } = heirloom;
            // One whose socket is being closed has no connection in the core that could go over.
            let is_plain =
                |conn| self.sockets.get(conn).is_some_and(|one| one.stage == Stage::Open && !one.is_transformed());
            let has_socket = connection.is_some_and(is_plain);
            if connection.is_some() && !has_socket {
                return Report::Failed("a connection has no plain socket, which is a bug of the server".to_owned());
            }
            image.clear();
            self.core.image(heirloom, &mut image);
            told.put_text(self.core.client_id(heirloom));
            told.put_flag(has_socket);
            told.put_bytes(&image);
            sockets.extend(connection);
            connections += usize::from(has_socket);
            if (told.len() + self.core.untold_bytes() >= TOLD_BYTES || sockets.len() >= TOLD_SOCKETS)
                && let Err(error) = self.tell_some(outlet, &mut told, &mut sockets)
            {
                return Report::Failed(error.to_string());
            }
        }
        // There may be the beginning of a CONNECT in it.
        image.zeroize();
        let mut timers = Vec::new();
        self.core.timers_image(&mut timers);
        if self.core.has_journal() {
            return Report::Failed("telling has changed something, which is a bug of the server".to_owned());
        }
        let rest = self.tell_some(outlet, &mut told, &mut sockets).and_then(|()| outlet(Told::Timers(&timers)));
        match rest {
            Ok(()) => Report::Told { connections, next_connection: self.core.next_connection() },
            Err(error) => Report::Failed(error.to_string()),
        }
    }

    fn tell_some(&mut self, outlet: &Outlet, told: &mut Vec<u8>, sockets: &mut Vec<u32>) -> std::io::Result<()> {
        let (teller, untold) = (self.teller(), self.core.take_untold());
        if !untold.is_empty() {
            outlet(Told::Bodies(teller, &untold))?;
        }
        let fds: Vec<BorrowedFd<'_>> =
            sockets.iter().filter_map(|conn| self.sockets.fd(*conn)).map(AsFd::as_fd).collect();
        let sent = outlet(Told::Clients(teller, told, &fds));
        told.zeroize();
        sockets.clear();
        sent
    }

    fn teller(&self) -> u32 {
        u32::try_from(self.worker).expect("a server has few workers")
    }

    /// What was told is another process's now. Its sockets stay open there.
    fn let_go(&mut self) {
        for conn in self.core.let_go() {
            if let Some((socket, _)) = self.sockets.remove(conn) {
                // Without this the epoll would go on reporting a socket that is open elsewhere.
                let _ = self.poller.remove(&socket.fd);
            }
        }
        self.to_read.clear();
        // Who comes now is the other process's.
        self.entrance.exchange(Vec::new(), &self.poller);
    }

    /// Takes in what comes from another process, and waits until it is this worker's. `false`: it stays the other's.
    pub(in crate::io) fn inherit(&mut self, Inheritance { source, listeners }: Inheritance) -> bool {
        let profile_of: &ProfileOf<'_> =
            &|name| listeners.iter().find(|one| one.name() == name).map(|one| Arc::clone(one.profile()));
        let mut failed = None;
        for inherited in source {
            let now = self.clock.now();
            match inherited {
                Inherited::Bodies { teller, bytes } => {
                    if let Err(error) = self.core.inherit_bodies(teller, &bytes) {
                        failed.get_or_insert(format!("messages of several sessions: {error}"));
                    }
                }
                Inherited::Client { teller, image, fd } => {
                    if let Err(why) = self.inherit_client(teller, image, fd, profile_of, now) {
                        failed.get_or_insert(why);
                    }
                }
                Inherited::Timer(timer) => self.core.inherit_timer(timer, now),
                Inherited::NextConnection(next) => self.core.skip_connections(next),
                Inherited::Confirm(sender) => {
                    // Who does not wait any more has given it up, which is noticed next.
                    let _ = sender.send(failed.clone().map_or(Ok(()), Err));
                }
                Inherited::Begin(store) => {
                    self.store = store.map(Desk::new);
                    self.core.begin_inherited(now);
                    return true;
                }
            }
        }
        false
    }

    fn inherit_client(
        &mut self,
        teller: u32,
        mut image: Vec<u8>,
        fd: Option<OwnedFd>,
        profile_of: &ProfileOf<'_>,
        now: Millis,
    ) -> Result<(), String> {
        let conn = self.core.inherit(teller, &image, profile_of, now);
        image.zeroize();
        match (conn.map_err(|error| format!("an image of a client: {error}"))?, fd) {
            (Some(conn), Some(fd)) => {
                self.add_socket(conn, fd, None, now);
                // It may have come with something that was not sent.
                self.to_flush.push(conn);
                Ok(())
            }
            (None, None) => Ok(()),
            (conn, _) => Err(format!("a client has {} socket", if conn.is_some() { "no" } else { "an unexpected" })),
        }
    }
}
