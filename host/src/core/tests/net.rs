//! Some workers, their mailboxes, and clients at the other end of connections that are no sockets.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use super::handler::{Script, Scripted};
use super::judge::{Docket, Judges};
use super::{Mode, ProtocolVersion, V3_1, V5, kept};
use crate::clock::{Millis, WallMillis};
use crate::codec::tests::packet;
use crate::codec::{self, Frame};
use crate::core::mailbox::Mailboxes;
use crate::core::peer::PeerDetails;
use crate::core::{Arrival, Core, InheritedTimer, ListenerProfile, Shared, owner_of};
use crate::durable::store::Store;
use crate::durable::store::fake::FakeStore;
use crate::limits::Limits;
use crate::plugin::{Chain, Flip};

/// CONNACK of a new session, and of one that was resumed, with the default bounds.
pub(in crate::core) const CONNACK: &str = "20: 00 00 [{21 0400 27 01000000 22 0040}]";
pub(in crate::core) const CONNACK_RESUMED: &str = "20: 01 00 [{21 0400 27 01000000 22 0040}]";

/// The same for any version: 3.1 has no Session Present flag.
pub(in crate::core) fn resumed(version: ProtocolVersion) -> &'static str {
    if version == V3_1 { CONNACK } else { CONNACK_RESUMED }
}

/// What the wall clock showed when the server's clock showed zero.
pub(in crate::core) const ZERO: WallMillis = WallMillis(1_700_000_000_000);

/// Turns after which something is wrong if they still have not led to rest.
const TURNS_MAX: usize = 100_000;

/// What is not the same in all scenarios.
pub(in crate::core) struct Setup {
    pub(in crate::core) limits: Limits,
    /// Whether there is a plugin.
    pub(in crate::core) plugin: bool,
    /// Whether it implements `handle_puback`. Where nobody does, acknowledgements are not looked at one by one.
    pub(in crate::core) hears_acknowledgements: bool,
    /// How many plugins there are behind it that decide on deliveries; at most two.
    pub(in crate::core) judges: usize,
    /// Whether there is one behind these whose states are made on the pool; see `deliver::slow`.
    pub(in crate::core) slow: bool,
    pub(in crate::core) allow_anonymous: bool,
    /// Where clients come from.
    pub(in crate::core) peer: &'static str,
    /// Whether there is a store. What it has been given is safe when the test says so.
    pub(in crate::core) store: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            plugin: true,
            hears_acknowledgements: true,
            judges: 0,
            slow: false,
            allow_anonymous: false,
            peer: "127.0.0.1:50000",
            store: false,
        }
    }
}

impl Setup {
    /// The default with other bounds.
    pub(in crate::core) fn limits(change: impl Fn(&mut Limits)) -> Self {
        let mut setup = Self::default();
        change(&mut setup.limits);
        setup
    }
}

/// A client: the other end of one Network Connection.
struct Client {
    version: ProtocolVersion,
    /// Worker and slot of its connection; `None` once it is closed.
    at: Option<(usize, u32)>,
    received: Vec<u8>,
    /// It does not read.
    stalled: bool,
}

/// The whole of it.
pub(in crate::core) struct Net {
    pub(in crate::core) cores: Vec<Core>,
    pub(in crate::core) shared: Arc<Shared>,
    pub(in crate::core) now: Millis,
    scripted: Option<Scripted>,
    /// The plugins that were there before, oldest first.
    former: Vec<Scripted>,
    judges: Judges,
    clients: Vec<Client>,
    by_slot: HashMap<(usize, u32), usize>,
    /// Workers whose mailbox has woken them.
    rung: Vec<Arc<AtomicBool>>,
    mode: Mode,
    /// Where the clients come from that connect from now on.
    pub(in crate::core) peer: &'static str,
    /// The listener that they come through, and what else is known of them.
    pub(in crate::core) profile: Arc<ListenerProfile>,
    pub(in crate::core) details: Option<PeerDetails>,
    pub(super) store: Option<FakeStore>,
    /// What the wall clock would have shown when the server's showed zero, as it is set now.
    pub(super) zero: WallMillis,
    /// What it has been given is safe at once, rather than when the test says so.
    pub(in crate::core) is_safe_at_once: bool,
}

impl Net {
    pub(super) fn new(mode: Mode, setup: &Setup) -> Self {
        let scripted = setup.plugin.then(Scripted::default);
        if let Some(scripted) = &scripted {
            scripted.script().hears_no_acknowledgements = !setup.hears_acknowledgements;
        }
        let chain = |mailboxes: &Mailboxes| {
            Scripted::chain(scripted.as_ref(), (setup.judges, setup.slow), mailboxes, &setup.limits)
        };
        let net = Self::with_chain(mode, setup, chain);
        Self { scripted, ..net }
    }

    /// One with plugins that a test has chosen.
    pub(super) fn with_chain(mode: Mode, setup: &Setup, chain: impl FnOnce(&Mailboxes) -> (Chain, Judges)) -> Self {
        let rung: Vec<Arc<AtomicBool>> = (0..mode.workers).map(|_| Arc::default()).collect();
        let mailboxes = Mailboxes::new(
            rung.iter()
                .map(|bell| {
                    let bell = Arc::clone(bell);
                    Box::new(move || bell.store(true, Ordering::Relaxed)) as _
                })
                .collect(),
        );
        let (chain, judges) = chain(&mailboxes);
        let shared = Shared::new(setup.limits.clone(), chain, mailboxes);
        let shared = Arc::new(if setup.store { shared.with_store(ZERO, Arc::default()) } else { shared });
        let mut profile = ListenerProfile::new("here", setup.limits.clone());
        profile.allow_anonymous = setup.allow_anonymous;
        let now = Millis(1_000_000);
        let cores: Vec<_> = (0..mode.workers).map(|worker| Core::new(worker, Arc::clone(&shared), now)).collect();
        let store = setup.store.then(FakeStore::default);
        Self {
            cores,
            shared,
            now,
            scripted: None,
            former: Vec::new(),
            judges,
            clients: Vec::new(),
            by_slot: HashMap::new(),
            rung,
            mode,
            peer: setup.peer,
            profile: Arc::new(profile),
            details: None,
            store,
            zero: ZERO,
            is_safe_at_once: false,
        }
    }

    /// The store, which says that something is safe when the test does.
    pub(in crate::core) fn store(&self) -> &FakeStore {
        self.store.as_ref().expect("there is a store")
    }

    /// All that has been given to the store is safe.
    pub(in crate::core) fn make_safe(&mut self) {
        self.store().make_all_safe();
        self.settle();
    }

    /// What the handlers answer, and what they were asked.
    pub(in crate::core) fn script(&self) -> MutexGuard<'_, Script> {
        self.scripted.as_ref().expect("there is a plugin").script()
    }

    /// The same of a plugin that was there before: 0 is the first one.
    pub(in crate::core) fn former(&self, number: usize) -> MutexGuard<'_, Script> {
        self.former[number].script()
    }

    pub(in crate::core) fn has_former(&self, number: usize) -> bool {
        number < self.former.len()
    }

    /// Puts another plugin into the place of the one that is there, without looking what comes of it.
    pub(in crate::core) fn flip(&mut self, version: &'static str, how: &Flip, script: impl FnOnce(&mut Script)) {
        let new = Scripted::default();
        script(&mut new.script());
        let plugin = new.plugin(version, &self.shared.mailboxes, &self.shared.limits);
        self.shared.chain.flip(0, &Arc::new(plugin), how).expect("nothing is in the way");
        self.former.extend(self.scripted.replace(new));
    }

    /// Other workers take everything over, as in another process, with other plugins if there are some: what they have been told
    /// is all that they know. Those before have to be left with nothing.
    pub(in crate::core) fn hand_over(&mut self, workers: usize, chain: Option<Chain>) {
        self.settle();
        let closed = self.cores.iter_mut().map(|core| core.close_immovable(false, self.now)).sum::<usize>();
        assert_eq!(closed, 0, "connections that cannot go over");
        self.settle();
        assert!(self.cores.iter_mut().all(Core::is_settled), "nothing is under way");
        let rung: Vec<Arc<AtomicBool>> = (0..workers).map(|_| Arc::default()).collect();
        let wake = |bell: &Arc<AtomicBool>| {
            let bell = Arc::clone(bell);
            Box::new(move || bell.store(true, Ordering::Relaxed)) as _
        };
        let mailboxes = Mailboxes::new(rung.iter().map(wake).collect());
        let chain = chain.unwrap_or_else(|| self.shared.chain.clone());
        let shared = Shared::new(self.shared.limits.clone(), chain, mailboxes);
        let shared = Arc::new(shared.behind(&self.shared.chain.names()));
        let (retained, _) = self.shared.retained.numbered(0, usize::MAX);
        retained.into_iter().for_each(|one| shared.retained.inherit(one, self.shared.retained.mark()));
        let mut cores: Vec<_> = (0..workers).map(|worker| Core::new(worker, Arc::clone(&shared), self.now)).collect();
        let (profile, mut moved, mut timers) = (Arc::clone(&self.profile), HashMap::new(), BTreeMap::new());
        for (before, core) in self.cores.iter_mut().enumerate() {
            for heirloom in core.heirlooms() {
                let mut image = Vec::new();
                core.image(heirloom, &mut image);
                let (teller, untold) = (u32::try_from(before).unwrap(), Arc::from(core.take_untold()));
                for heir in &mut cores {
                    heir.inherit_bodies(teller, &untold).expect("it is whole");
                }
                for end in [0, image.len() / 3, image.len() - 1] {
                    // Nothing that is cut off is taken for something else.
                    let mut other = Core::new(0, Arc::clone(&self.shared), self.now);
                    assert!(other.inherit(teller, &image[..end], &|_| Some(Arc::clone(&profile)), self.now).is_err());
                }
                let to = owner_of(core.client_id(heirloom), workers);
                let slot = cores[to].inherit(teller, &image, &|_| Some(Arc::clone(&profile)), self.now);
                let slot = slot.unwrap_or_else(|error| panic!("an image cannot be read: {error}"));
                assert_eq!(slot.is_some(), heirloom.connection.is_some());
                if let (Some(slot), Some(old)) = (slot, heirloom.connection) {
                    let client = self.by_slot.remove(&(before, old)).expect("it has a client");
                    self.clients[client].at = Some((to, slot));
                    moved.insert((to, slot), client);
                }
            }
            let mut image = Vec::new();
            core.timers_image(&mut image);
            let image = InheritedTimer::read_all(&image, Some).expect("it is whole");
            timers.extend(image.into_iter().map(|timer| (timer.info.timer, timer)));
            core.let_go();
            core.assert_sound();
        }
        for (timer, heir) in timers.values().flat_map(|timer| (0..workers).map(move |heir| (timer, heir))) {
            cores[heir].inherit_timer(timer.clone(), self.now);
        }
        assert!(self.by_slot.is_empty(), "connections that have been left behind");
        self.by_slot = moved;
        let next = self.cores.iter().map(Core::next_connection).max().unwrap_or(1);
        cores.iter_mut().for_each(|core| core.skip_connections(next));
        (self.cores, self.shared, self.rung, self.mode.workers) = (cores, shared, rung, workers);
        self.cores.iter_mut().for_each(|core| core.begin_inherited(self.now));
        self.cores.iter().for_each(Core::assert_sound);
        self.settle();
    }

    /// The same of a plugin that decides on deliveries.
    pub(in crate::core) fn judge(&self, place: usize) -> MutexGuard<'_, Docket> {
        self.judges.of(place)
    }

    pub(in crate::core) fn workers(&self) -> usize {
        self.mode.workers
    }

    // Clients.

    /// A connection on which nothing has been sent yet. `None` if it was not taken on.
    pub(in crate::core) fn try_open(&mut self, version: ProtocolVersion) -> Option<usize> {
        let worker = self.clients.len() % self.cores.len();
        let peer = self.peer.parse().expect("an address");
        let details = self.details.clone().map(Box::new);
        let slot = self.cores[worker].accept(Arrival { peer, profile: &self.profile, details }, self.now)?;
        let client = self.clients.len();
        self.clients.push(Client { version, at: Some((worker, slot)), received: Vec::new(), stalled: false });
        self.by_slot.insert((worker, slot), client);
        Some(client)
    }

    pub(in crate::core) fn open(&mut self, version: ProtocolVersion) -> usize {
        self.try_open(version).expect("within the bounds")
    }

    /// A client that has sent its first packet and gets this answer.
    pub(in crate::core) fn join(&mut self, version: ProtocolVersion, connect: &str, connack: &str) -> usize {
        let client = self.open(version);
        self.send(client, connect);
        self.expect(client, connack);
        client
    }

    /// A client with a new session that ends with its connection.
    pub(in crate::core) fn client(&mut self, version: ProtocolVersion, client_id: &str) -> usize {
        let connect = connect_packet(version, "02", 0, "", client_id);
        self.join(version, &connect, CONNACK)
    }

    pub(in crate::core) fn v5(&mut self, client_id: &str) -> usize {
        self.client(V5, client_id)
    }

    /// A client of whose session an hour is kept, or a day for 3.x, whether it is new or resumed.
    pub(in crate::core) fn durable(&mut self, version: ProtocolVersion, client_id: &str, connack: &str) -> usize {
        let connect = connect_packet(version, "00", 0, "11 00000E10", client_id);
        self.join(version, &connect, connack)
    }

    /// Sends SUBSCRIBE with Packet Identifier 0x0F01 for one filter, and gets what it asks for.
    pub(in crate::core) fn subscribe(&mut self, client: usize, filter: &str, options: u8) {
        self.send(client, &format!("82: 0F01 [{{}}] <{filter}> {options:02X}"));
        self.expect(client, &format!("90: 0F01 [{{}}] {:02X}", options & 3));
    }

    /// The client sends packets.
    pub(in crate::core) fn send(&mut self, client: usize, packets: &str) {
        let bytes = bytes(self.clients[client].version, packets);
        self.send_bytes(client, &bytes);
    }

    pub(in crate::core) fn send_bytes(&mut self, client: usize, bytes: &[u8]) {
        let step = if self.mode.bytewise && bytes.len() < 10_000 { 1 } else { bytes.len().max(1) };
        for part in bytes.chunks(step) {
            // A peer may send what nobody reads any more.
            let Some((worker, slot)) = self.clients[client].at else { return };
            self.cores[worker].feed(slot, part, self.now);
            self.settle();
        }
    }

    /// The client closes its side, or its network fails.
    pub(in crate::core) fn lose(&mut self, client: usize) {
        let (worker, slot) = self.clients[client].at.take().expect("it is connected");
        self.by_slot.remove(&(worker, slot));
        self.cores[worker].lost(slot, self.now);
        assert!(self.cores[worker].outbound(slot).is_empty(), "there is nobody to send to");
        self.cores[worker].release(slot);
        self.settle();
    }

    /// The client ceases to read, or reads again.
    pub(in crate::core) fn stall(&mut self, client: usize, stalled: bool) {
        self.clients[client].stalled = stalled;
        let (worker, slot) = self.clients[client].at.expect("it is connected");
        if !stalled {
            self.flush(worker, slot);
        }
        self.settle();
    }

    /// A stalled client reads at most so many bytes, and then no more.
    pub(in crate::core) fn read(&mut self, client: usize, count: usize) {
        let (worker, slot) = self.place(client);
        let core = &mut self.cores[worker];
        let count = count.min(core.outbound(slot).len());
        self.clients[client].received.extend_from_slice(&core.outbound(slot)[..count]);
        core.sent(slot, count, self.now);
        self.settle();
    }

    /// The client has received exactly these packets, and is still connected.
    #[track_caller]
    pub(in crate::core) fn expect(&mut self, client: usize, packets: &str) {
        self.check_received(client, packets);
        assert!(self.clients[client].at.is_some(), "client {client} was disconnected");
    }

    /// The client has received exactly these packets, and then its connection was closed.
    #[track_caller]
    pub(in crate::core) fn expect_closed(&mut self, client: usize, packets: &str) {
        self.check_received(client, packets);
        assert!(self.clients[client].at.is_none(), "client {client} is still connected");
    }

    #[track_caller]
    fn check_received(&mut self, client: usize, packets: &str) {
        let version = self.clients[client].version;
        let got = self.take(client);
        let expected = bytes(version, packets);
        assert!(got == expected, "client {client} got{}\nand not{}", shown(&got), shown(&expected));
    }

    /// What the client has received since this was asked last.
    pub(in crate::core) fn take(&mut self, client: usize) -> Vec<u8> {
        std::mem::take(&mut self.clients[client].received)
    }

    pub(in crate::core) fn is_connected(&self, client: usize) -> bool {
        self.clients[client].at.is_some()
    }

    /// Connections that plugins have a state for.
    pub(in crate::core) fn clients_with_state(&self) -> usize {
        let connections = self.cores.iter().flat_map(|core| &core.connections);
        connections.filter(|(_, connection)| connection.handlers.is_some()).count()
    }

    /// The number by which handlers know the client's connection.
    pub(in crate::core) fn connection_id(&self, client: usize) -> u64 {
        let (worker, slot) = self.clients[client].at.expect("it is connected");
        self.cores[worker].connections[slot as usize].id
    }

    /// Worker and slot of the client's connection.
    pub(in crate::core) fn place(&self, client: usize) -> (usize, u32) {
        self.clients[client].at.expect("it is connected")
    }

    /// A counter, all workers together.
    pub(in crate::core) fn count(&self, of: impl Fn(&crate::core::Counters) -> u64) -> u64 {
        self.shared.counters.iter().map(of).sum()
    }

    /// The session of a Client Identifier, wherever it is.
    pub(in crate::core) fn session(&self, client_id: &str) -> Option<&crate::core::session::Session> {
        self.cores.iter().find_map(|core| Some(&core.sessions[core.slot_of_client(client_id)? as usize]))
    }

    // Time.

    /// Lets time pass, in milliseconds; everything happens at its moment.
    pub(in crate::core) fn advance(&mut self, ms: u64) {
        let until = self.now + ms;
        while let Some(next) = self.cores.iter().filter_map(Core::next_tick).min().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            self.settle();
        }
        self.now = until;
        self.settle();
    }

    /// Lets workers take turns until nothing moves any more.
    pub(in crate::core) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let mut moved = false;
            for worker in 0..self.cores.len() {
                moved |= self.turn(worker);
            }
            // Mail of the last one for the first ones.
            moved |= self.rung.iter().any(|bell| bell.load(Ordering::Relaxed));
            if !moved {
                return;
            }
        }
        panic!("no rest after {TURNS_MAX} turns");
    }

    /// One turn of one worker. `true` if something has happened.
    pub(super) fn turn(&mut self, worker: usize) -> bool {
        let now = self.now;
        let core = &mut self.cores[worker];
        if let Some(store) = &self.store {
            core.refuse_what_is_kept(store.is_failing());
            core.journals_are_safe(store.safe_up_to());
        }
        let mut handovers = Vec::new();
        core.take_handovers(&mut handovers);
        let rung = self.rung[worker].swap(false, Ordering::Relaxed);
        if rung {
            core.on_mail(now);
        }
        let due = core.next_tick().is_some_and(|at| at <= now);
        if due {
            core.on_tick(now);
        }
        let mut dirty = Vec::new();
        core.take_dirty(&mut dirty);
        let moved = rung || due || !dirty.is_empty() || !handovers.is_empty();
        for slot in dirty {
            self.flush(worker, slot);
        }
        for (slot, to, handover) in handovers {
            let client = self.by_slot.remove(&(worker, slot)).expect("handed over once");
            let slot = self.cores[to].adopt(*handover, now);
            self.by_slot.insert((to, slot), client);
            self.clients[client].at = Some((to, slot));
        }
        kept::hand_over(&mut self.cores[worker..=worker], self.store.as_ref());
        self.cores[worker].flush_mail();
        let is_paid = self.is_safe_at_once && self.cores[worker].waits_for().is_some();
        if is_paid {
            self.store().make_all_safe();
        }
        moved || is_paid
    }

    /// The same, and the other one has so many workers.
    pub(in crate::core) fn crash_to(&mut self, setup: &Setup, workers: usize) {
        self.mode.workers = workers;
        self.crash(setup);
    }

    /// The wall clock is set, which the workers see.
    pub(in crate::core) fn set_zero_on_the_wall(&mut self, zero: WallMillis) {
        self.zero = zero;
        self.cores.iter_mut().for_each(|core| core.note_zero_on_the_wall(zero));
        self.settle();
    }

    /// The server is killed, and another one begins with what the store has.
    pub(in crate::core) fn crash(&mut self, setup: &Setup) {
        let chain = self.shared.chain.clone();
        let other = Self::with_chain(self.mode, setup, |_| (chain, Judges::default()));
        (self.cores, self.shared, self.rung) = (other.cores, other.shared, other.rung);
        self.by_slot.clear();
        self.clients.iter_mut().for_each(|client| client.at = None);
        let pieces = kept::pieces(&self.shared, self.store(), self.now);
        for (worker, piece) in pieces {
            self.cores[worker].restore(&piece, ZERO, self.now).expect("a piece of what was kept");
        }
        self.cores.iter_mut().for_each(|core| core.end_restoring(self.now));
        self.settle();
        self.check_journals();
    }

    /// Moves what is outbound to the client, and closes what is done with.
    pub(super) fn flush(&mut self, worker: usize, slot: u32) {
        let Some(&client) = self.by_slot.get(&(worker, slot)) else { return };
        let (core, client) = (&mut self.cores[worker], &mut self.clients[client]);
        if client.stalled {
            return;
        }
        loop {
            let outbound = core.outbound(slot);
            if outbound.is_empty() {
                break;
            }
            let count = if self.mode.bytewise && outbound.len() < 1000 { 1 } else { outbound.len() };
            client.received.extend_from_slice(&outbound[..count]);
            core.sent(slot, count, self.now);
        }
        if core.is_closing(slot) && !core.is_owed(slot) {
            client.at = None;
            self.by_slot.remove(&(worker, slot));
            core.release(slot);
        }
    }

    /// Everybody leaves, and a month passes: nothing may be left.
    pub(super) fn end(mut self) {
        self.check_journals();
        self.cores.iter().for_each(Core::assert_sound);
        self.shared.assert_sound();
        for client in 0..self.clients.len() {
            self.clients[client].stalled = false;
            if self.is_connected(client) {
                self.lose(client);
            }
        }
        self.shared.chain.settle_all();
        if self.store.is_some() {
            self.make_safe();
        }
        self.advance(31 * 24 * 3600 * 1000);
        assert!(!self.shared.chain.retire(), "a plugin that was replaced is still used");
        self.cores.iter().for_each(Core::assert_nothing_left);
        self.shared.assert_nothing_left();
        if let Some(scripted) = &self.scripted {
            assert_eq!(scripted.script().live, 0, "states of connections");
            self.former.iter().for_each(|former| assert_eq!(former.script().live, 0, "states of connections"));
        }
    }
}

/// CONNECT without a will. Properties are written as hexadecimal bytes.
pub(in crate::core) fn connect_packet(
    version: ProtocolVersion,
    flags: &str,
    keep_alive: u16,
    properties: &str,
    client_id: &str,
) -> String {
    let name = if version == V3_1 { "MQIsdp" } else { "MQTT" };
    format!("10: <{name}> {:02X} {flags} {keep_alive:04X} [{{{properties}}}] <{client_id}>", version as u8)
}

/// The bytes of packets that are separated by `|`.
pub(in crate::core) fn bytes(version: ProtocolVersion, packets: &str) -> Vec<u8> {
    let text = packets.split('|').map(str::trim).filter(|text| !text.is_empty());
    text.flat_map(|text| packet(&for_version(version, text))).collect()
}

/// Takes out the square brackets, with what is in them unless it is for 5.0.
fn for_version(version: ProtocolVersion, text: &str) -> String {
    let mut inside = false;
    text.chars()
        .filter(|char| {
            let bracket = matches!(char, '[' | ']');
            if bracket {
                inside = *char == '[';
            }
            !bracket && (!inside || version == V5)
        })
        .collect()
}

/// Packets, one on a line, as bytes and as text.
fn shown(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return " nothing".into();
    }
    let mut text = String::new();
    for packet in split(bytes) {
        let start = &packet[..packet.len().min(100)];
        let _ = write!(text, "\n  {start:02X?} {}", start.escape_ascii());
    }
    text
}

/// The packets in some bytes; what is no whole packet is the last one.
pub(in crate::core) fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut packets, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let length = match codec::frame(rest, usize::MAX) {
            Ok(Frame::Complete { total_bytes, .. }) => total_bytes,
            _ => rest.len(),
        };
        let (packet, behind) = rest.split_at(length);
        packets.push(packet);
        rest = behind;
    }
    packets
}

/// What a mutex guards, whether a test has failed with it or not.
pub(super) fn lock<T>(mutex: &std::sync::Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
