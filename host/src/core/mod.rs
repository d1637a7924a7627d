//! The protocol core of one worker: connections, sessions and routing, without a socket, a clock or a runtime.
//!
//! A driver owns a [`Core`] and calls it on one thread. In each turn it hands in what has happened: [`Core::accept`],
//! [`Core::feed`] with bytes that were read, [`Core::lost`], [`Core::on_mail`] after the mailbox has woken it, and
//! [`Core::on_tick`] when the moment of [`Core::next_tick`] has come. Then it does what the core asks for: for each
//! connection of [`Core::take_dirty`] it sends [`Core::outbound`] and reports with [`Core::sent`], and closes those that
//! are [`Core::is_closing`] and have nothing left to send; it ends the turn with [`Core::flush_mail`]. It passes on
//! [`Core::take_handovers`] at once after each call that can lead to one: [`Core::feed`] and [`Core::take_dirty`].
//!
//! Time is an argument and never goes back. Nothing here blocks, and no peer can make a call fail: errors of peers end
//! their Network Connection.

mod acks;
mod admission;
mod aliases;
mod attach;
mod auth;
mod backlog;
mod budget;
#[cfg(any(test, fuzzing))]
mod check;
mod close;
mod commons;
mod congestion;
mod connect;
mod connection;
mod counters;
mod deferred;
mod delayed;
mod delayed_wills;
mod deliver;
mod failures;
mod farewell;
mod forward;
mod handover;
mod held_acks;
mod image;
mod in_flight;
mod inbound;
mod index;
mod journal;
mod kept;
mod lanes;
pub mod mail;
pub mod mailbox;
mod members;
mod migrate;
mod mount;
mod notices;
mod on_behalf;
mod outbound;
mod packets;
mod patience;
pub mod peer;
mod poll;
mod profile;
mod publish;
mod query;
mod rates;
mod reauthorise;
mod received;
mod release;
mod replay;
mod requests;
mod restore;
mod route;
mod session;
mod shared;
mod subscribe;
mod templates;
#[cfg(test)]
mod tests;
mod timers;
mod train;
mod turn;
mod wall;
mod work;

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::fast::{FixedState, RandomState};
use plugin_api::{PropertiesBuf, Property, ReasonCode};
use slab::Slab;

use self::budget::Account;
pub use self::commons::Shared;
use self::congestion::Congestion;
use self::connection::{Closing, Connection, NONE, Phase};
pub use self::counters::Counters;
use self::deferred::Came;
use self::delayed::DelayedInfos;
use self::farewell::Farewell;
pub use self::handover::Handover;
use self::held_acks::HeldAcks;
pub(crate) use self::image::message::{read_message, write_message};
pub(crate) use self::image::{Heirloom, InheritedTimer, ProfileOf};
use self::index::SlotIndex;
use self::journal::Journal;
use self::lanes::Lanes;
use self::mail::Batch;
use self::migrate::Sweep;
pub use self::mount::{Mount, MountError};
use self::peer::PeerDetails;
pub use self::poll::Poll;
use self::profile::Listeners;
pub use self::profile::{ListenerProfile, OF_LISTENERS, UsernameFrom};
pub use self::query::{Cursor, Query, Wanted};
use self::reauthorise::Pass;
use self::requests::EarlyMail;
pub use self::restore::RestoreError;
use self::restore::Restoring;
use self::session::Session;
use self::shared::HandedOn;
use self::templates::Templates;
use self::timers::{Armed, Timers};
use self::work::{Remains, UNITS_A_TURN};
use crate::clock::Millis;
use crate::limits::Limits;
use crate::message::Message;
use crate::plugin::{Callbacks, ChangedMessage, Plan};
use crate::router::{Chooser, Router, SessionKey};

/// The property that names the server that clients should use instead, if there is one.
fn server_reference(limits: &Limits) -> Option<PropertiesBuf> {
    let name = limits.server_reference.as_deref()?;
    Some(PropertiesBuf::default().with(Property::ServerReference(name)))
}

/// The worker that owns a name: a session by its Client Identifier, a plugin's publishes by their topic.
#[must_use]
pub fn owner_of(name: &str, workers: usize) -> usize {
    if workers <= 1 {
        return 0;
    }
    let hash = FixedState::with_seed(0x6d71_7474).hash_one(name);
    usize::try_from(hash % workers as u64).expect("less than the number of workers")
}

/// Whether a connection may have this id, where there are so many workers.
#[must_use]
pub fn may_exist(connection: u64, workers: usize) -> bool {
    let (worker, number) =
        (connection >> CONNECTION_ID_WORKER_SHIFT, connection & ((1 << CONNECTION_ID_WORKER_SHIFT) - 1));
    number != 0 && worker < workers as u64
}

/// A Network Connection that has been accepted, handshakes of its transport included.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// Who connected: the address that handlers are told, and that bounds for one address count.
    pub peer: SocketAddr,
    /// The listener that it has come through.
    pub profile: &'a Arc<ListenerProfile>,
    /// What else is known of the peer; `None` for plain TCP, of which there is nothing more to tell.
    pub details: Option<Box<PeerDetails>>,
}

/// The broker of one worker. See the module for the order of calls.
pub struct Core {
    worker: usize,
    shared: Arc<Shared>,
    now: Millis,
    connections: Slab<Connection>,
    sessions: Slab<Session>,
    /// Sessions by Client Identifier, and connections by id; see [`Core::slot_of_client`].
    by_client: SlotIndex,
    by_connection: SlotIndex,
    listeners: Listeners,
    router: Router,
    timers: Timers,
    /// Connections that the driver has to look at.
    dirty: Vec<u32>,
    /// Messages for the other workers, by worker.
    outbox: Vec<Batch>,
    /// What was in the mailbox, and how far it has been worked off; 0 when it has been completely.
    inbox: Batch,
    inbox_at: usize,
    /// Workers that cannot follow.
    congestion: Congestion,
    handovers: Vec<(u32, usize, Box<Handover>)>,
    /// Connections, by slot and id, whose replays of retained messages may get ahead.
    listed_replays: VecDeque<(u32, u64)>,
    /// For the messages of one that are sent next. Empty between two of them.
    replayed: Vec<Option<Arc<Message>>>,
    /// Chooses the members of Shared Subscriptions that get messages.
    chooser: Chooser,
    /// Messages of members that have left, oldest first, and their bytes.
    handed_on: VecDeque<HandedOn>,
    handed_on_bytes: usize,
    /// Bytes held for peers; see [`budget`].
    account: Account,
    /// See [`outbound::free_bytes`].
    free_bytes: usize,
    /// Sessions that large messages wait for until there is memory for copies of them.
    waiting_for_memory: VecDeque<SessionKey>,
    /// What the other workers know: whether it is full.
    said_full: bool,
    /// When this may be logged again.
    full_warning_at: Millis,
    /// What is left of this turn's work; see [`work`].
    work_left: usize,
    /// Connections, by slot and id, with packets that wait for the next turn.
    held: VecDeque<(u32, u64)>,
    /// Sessions that have ended and whose subscriptions have not been removed yet, oldest first.
    remains: VecDeque<Remains>,
    /// Connections that have ended and whose plugins have not all been told, by their ids; and those that can go on.
    farewells: HashMap<u64, Box<Farewell>, RandomState>,
    partings: VecDeque<(u64, Came)>,
    /// Counts the calls of [`Core::take_dirty`].
    turn: u32,
    delayed_infos: DelayedInfos,
    /// Questions of plugins that have not been answered, and passes through the subscriptions, oldest first.
    queries: VecDeque<Query>,
    passes: VecDeque<Pass>,
    /// Requests about connections that may be on their way here, oldest first.
    early: VecDeque<EarlyMail>,
    /// The timers' entry for retained messages that expire.
    retained_armed: Armed,
    /// Buffers for outbound bytes, so that idle connections need none.
    pool: Vec<Vec<u8>>,
    /// Their capacities together.
    pool_bytes: usize,
    templates: Templates,
    lanes: Lanes,
    /// Which plugins decide, as far as this worker knows.
    plan: Plan,
    sweep: Sweep,
    /// The callbacks that at least one plugin of the plan implements.
    callbacks: Callbacks,
    changed: ChangedMessage,
    /// What handlers have made of a message for one client.
    delivered: ChangedMessage,
    /// Connections, by slot and id, to be closed at the end of the turn.
    closing_soon: Vec<(u32, u64, Closing)>,
    /// Messages that several sessions have, while these go over to another process.
    bodies: image::bodies::Bodies,
    /// Reused for the properties of a message that is routed.
    properties: Vec<u8>,
    /// Reused for the acknowledgements of a [train](train).
    answers: Vec<u8>,
    /// Memory for trains: where their packets end, and the members that they are for.
    ends: Vec<packets::End>,
    known_members: Vec<members::Known>,
    next_connection: u64,
    next_serial: u32,
    stopping: bool,
    /// See [`Core::set_deaf`].
    is_deaf: bool,
    /// See [`Core::take_has_read_secrets`].
    has_read_secrets: bool,
    /// What this turn changes of what is kept; `None` where nothing is.
    journal: Option<Box<Journal>>,
    /// Sessions are coming back; see [`Core::restore`].
    restoring: Option<Box<Restoring>>,
    /// The place of the session that is written next because the wall clock was set; see [`wall`].
    rewritten: Option<usize>,
    /// What is held until the journals of its turns are safe.
    held_acks: HeldAcks,
}

/// Connection ids are unique over workers: the worker's number stands in the upper bits.
const CONNECTION_ID_WORKER_SHIFT: u32 = 48;

impl Core {
    /// The core of one worker.
    ///
    /// # Panics
    ///
    /// If `worker` has no mailbox in `shared`.
    #[must_use]
    pub fn new(worker: usize, shared: Arc<Shared>, now: Millis) -> Self {
        let workers = shared.mailboxes.workers();
        let free_bytes = outbound::free_bytes(shared.limits.outbound_bytes_max);
        assert!(worker < workers, "worker {worker} of {workers}");
        let plan = shared.chain.plan();
        // A swap that came before this worker began has nothing to wait for here.
        shared.chain.report_conformed(worker, plan.epoch(), 0);
        let journal = shared.keeping.as_ref().map(|keeping| Box::new(Journal::new(worker, Arc::clone(keeping))));
        Self {
            worker,
            router: Router::new(worker, Arc::clone(&shared.interest)),
            chooser: Chooser::new(shared.limits.shared_strategy, worker),
            callbacks: plan.callbacks(),
            plan,
            sweep: Sweep::default(),
            shared,
            now,
            connections: Slab::new(),
            sessions: Slab::new(),
            by_client: SlotIndex::default(),
            by_connection: SlotIndex::default(),
            listeners: Listeners::default(),
            timers: Timers::default(),
            dirty: Vec::new(),
            outbox: (0..workers).map(|_| Batch::default()).collect(),
            inbox: Batch::default(),
            inbox_at: 0,
            congestion: Congestion::new(workers),
            handovers: Vec::new(),
            listed_replays: VecDeque::new(),
            replayed: Vec::new(),
            handed_on: VecDeque::new(),
            handed_on_bytes: 0,
            account: Account::default(),
            free_bytes,
            waiting_for_memory: VecDeque::new(),
            said_full: false,
            full_warning_at: now,
            work_left: UNITS_A_TURN,
            held: VecDeque::new(),
            remains: VecDeque::new(),
            farewells: HashMap::default(),
            partings: VecDeque::new(),
            turn: 1,
            delayed_infos: DelayedInfos::default(),
            queries: VecDeque::new(),
            passes: VecDeque::new(),
            early: VecDeque::new(),
            retained_armed: Millis::NEVER,
            pool: Vec::new(),
            pool_bytes: 0,
            templates: Templates::default(),
            lanes: Lanes::default(),
            changed: ChangedMessage::default(),
            delivered: ChangedMessage::default(),
            closing_soon: Vec::new(),
            bodies: image::bodies::Bodies::default(),
            properties: Vec::new(),
            answers: Vec::new(),
            ends: Vec::new(),
            known_members: Vec::new(),
            next_connection: (worker as u64) << CONNECTION_ID_WORKER_SHIFT | 1,
            next_serial: 1,
            stopping: false,
            is_deaf: false,
            has_read_secrets: false,
            journal,
            restoring: None,
            rewritten: None,
            held_acks: HeldAcks::default(),
        }
    }

    /// Takes on a new Network Connection and gives it a slot. `None` if there are too many already, or if the server is
    /// stopping: close the socket.
    pub fn accept(&mut self, arrival: Arrival<'_>, now: Millis) -> Option<u32> {
        self.now = now;
        let Arrival { peer, profile, details } = arrival;
        if self.shared.turns_away(peer.ip(), now) {
            self.counters().connections_turned_away.add(1);
            return None;
        }
        if self.stopping || !self.shared.admission.enter(peer, profile, &self.shared.limits) {
            self.counters().connections_refused.add(1);
            return None;
        }
        let id = self.next_connection;
        self.next_connection += 1;
        let listener = self.listeners.of(profile);
        let until = now + listener.limits.connect_timeout;
        let mut connection = Connection::new(id, peer, listener, now);
        if details.is_some() {
            connection.extra().details = details;
        }
        let slot = self.insert_connection(connection);
        self.count_extra(slot);
        self.arm_connection(slot, until);
        self.counters().connections_accepted.add(1);
        Some(slot)
    }

    /// Goes on with other bounds. What is beyond them already stays, and nothing is added to it.
    fn set_limits(&mut self, limits: &Limits) {
        self.shared = Arc::new(self.shared.with_limits(limits));
        self.free_bytes = outbound::free_bytes(limits.outbound_bytes_max);
        self.chooser = Chooser::new(limits.shared_strategy, self.worker);
    }

    fn insert_connection(&mut self, connection: Connection) -> u32 {
        let id = connection.id;
        let slot = u32::try_from(self.connections.insert(connection)).expect("bounded by connections_max");
        let connections = &self.connections;
        self.by_connection.insert(id, slot, |slot| connections[slot as usize].id);
        slot
    }

    /// The slot of the session of a client.
    fn slot_of_client(&self, client_id: &str) -> Option<u32> {
        self.by_client.find(client_id, |slot| *self.sessions[slot as usize].client_id == *client_id)
    }

    /// The slot of the connection with this id.
    fn slot_of_connection(&self, id: u64) -> Option<u32> {
        self.by_connection.find(id, |slot| self.connections[slot as usize].id == id)
    }

    /// The peer has closed its side, or the socket has failed. Call it once; the slot stays until [`Core::release`].
    pub fn lost(&mut self, slot: u32, now: Millis) {
        self.now = now;
        self.forget_lane(slot);
        drop(self.take_out(slot));
        self.forget_owed(slot);
        self.close(
            slot,
            Closing::silent(plugin_api::DisconnectKind::Closed, plugin_api::ReasonCode::UNSPECIFIED_ERROR),
        );
    }

    /// Bytes that wait for the socket of a connection: all, or the first of them. Report with [`Core::sent`] before you ask
    /// for more.
    #[must_use]
    #[inline]
    pub fn outbound(&mut self, slot: u32) -> &[u8] {
        match self.connections.get(slot as usize) {
            Some(connection) if connection.is_shut => &[],
            Some(connection) if self.lanes.comes_first(connection) => self.lanes.next_piece(connection.lane),
            Some(connection) => &connection.out[connection.out_sent..],
            None => &[],
        }
    }

    /// How many bytes wait for the socket of a connection.
    #[must_use]
    pub fn outbound_bytes(&self, slot: u32) -> usize {
        if self.connections.contains(slot as usize) { self.waiting_bytes(slot) } else { 0 }
    }

    /// Whether the socket is to be closed once [`Core::outbound`] is empty.
    #[must_use]
    pub fn is_closing(&self, slot: u32) -> bool {
        self.connections.get(slot as usize).is_some_and(|connection| connection.phase == Phase::Closing)
    }

    /// Whether the peer of a connection that is closing has said so itself, and sends nothing more [MQTT-3.14.4-1].
    #[must_use]
    pub fn has_left(&self, slot: u32) -> bool {
        self.connections.get(slot as usize).is_some_and(|connection| connection.has_left)
    }

    /// The socket is gone: frees the slot. A connection that was not closed before ends as if it had been lost.
    pub fn release(&mut self, slot: u32) {
        if self.connections.get(slot as usize).is_some_and(|connection| connection.phase == Phase::Leaving) {
            return; // `take_handovers` frees it.
        }
        if !self.is_closing(slot) && self.connections.contains(slot as usize) {
            self.lost(slot, self.now);
        }
        if self.connections.contains(slot as usize) {
            let out = self.take_out(slot);
            self.recycle(out);
            self.forget_owed(slot);
            let connection = self.connections.remove(slot as usize);
            self.by_connection.remove(connection.id, slot);
            self.shared.admission.leave(connection.peer.addr(), &connection.listener.profile);
        }
    }

    /// Connections that belong to another worker now: take the socket out of this one and give it, with the handover, to
    /// the other worker's [`Core::adopt`]. Their slots are free afterwards.
    pub fn take_handovers(&mut self, into: &mut Vec<(u32, usize, Box<Handover>)>) {
        for (slot, ..) in &self.handovers {
            let connection = self.connections.remove(*slot as usize);
            self.by_connection.remove(connection.id, *slot);
        }
        into.append(&mut self.handovers);
    }

    /// The driver holds other bytes for a peer than before: they count as if they were held here.
    pub fn count_held(&self, before: usize, after: usize) {
        self.account.change(before, after);
    }

    /// Network Connections in this worker.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Ends everything: 5.0 clients are told 0x8B, or 0x9C with the other server if one is known; each handler gets its
    /// `handle_disconnect`. The driver sends what is left and closes the sockets.
    pub fn shutdown(&mut self, now: Millis) {
        self.now = now;
        self.stopping = true;
        let slots: Vec<u32> = self.connections.iter().map(|(slot, _)| slot_of(slot)).collect();
        let kind = plugin_api::DisconnectKind::ServerShutdown;
        for slot in slots {
            let Some(connection) = self.connections.get(slot as usize) else { continue };
            let closing = match server_reference(&connection.listener.limits) {
                Some(properties) => Closing::telling(kind, ReasonCode::USE_ANOTHER_SERVER).with_properties(properties),
                None => Closing::telling(kind, ReasonCode::SERVER_SHUTTING_DOWN),
            };
            self.close(slot, closing);
        }
        self.hasten_farewells();
    }

    /// Whether [`Core::shutdown`] was called, or asked for by [`mail::Mail::Stop`].
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters[self.worker]
    }

    /// The peer of a connection has failed to get in.
    fn note_failure(&self, slot: u32) {
        self.shared.note_failure(self.connections[slot as usize].peer.addr().ip(), self.now);
    }

    fn mark_dirty(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(slot);
        }
    }

    fn session_of(&self, slot: u32) -> Option<&Session> {
        self.sessions.get(self.connections[slot as usize].session as usize)
    }
}

/// A slab's index as the 32 bits that everything stores.
fn slot_of(index: usize) -> u32 {
    let slot = u32::try_from(index).expect("bounded by connections_max and sessions_max");
    debug_assert_ne!(slot, NONE);
    slot
}
