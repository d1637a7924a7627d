//! Workers, and peers at the other end of connections that are no sockets.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use host::clock::Millis;
use host::core::mail::Batch;
use host::core::mailbox::Mailboxes;
use host::core::{Arrival, Core, Handover, ListenerProfile, Shared};
use host::plugin::Chain;

use crate::client::Client;
use crate::input::Input;
use crate::packets;
use crate::setup::Setup;

const PEERS: usize = 8;

/// Turns after which something is wrong if they still have not led to rest.
const TURNS_MAX: usize = 100_000;

/// Time steps, in milliseconds.
const STEPS_MS: [u64; 8] = [1, 100, 1_001, 5_000, 15_000, 61_000, 3_600_000, 8 * 24 * 3_600_000];

const MINUTES_MS: u64 = 120_000;

/// Longer than anything can last that is said to end at all: intervals are 32 bits of seconds.
const END_MS: u64 = (1 << 33) * 1000;

/// Where the server's end of a peer's connection is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    At {
        worker: usize,
        slot: u32,
    },
    /// On its way from one worker to another.
    Travelling,
}

struct Peer {
    place: Place,
    client: Client,
    /// Sent, and not read by the server.
    unread: Vec<u8>,
    /// It does not read.
    stalled: bool,
    /// It has not read at some time: what it has received may have been cut off.
    has_stalled: bool,
    /// Bytes that reach the server at once; 0 for all.
    step: usize,
    /// What is done to the next packet: a place, and the bits to change.
    damage: Option<(usize, u8)>,
}

pub(crate) struct Net {
    cores: Vec<Core>,
    shared: Arc<Shared>,
    world: Rc<World>,
    now: Millis,
    eager: bool,
    connect_bytes_max: usize,
    address: &'static str,
    profile: Arc<ListenerProfile>,
    peers: Vec<Peer>,
    by_place: HashMap<(usize, u32), usize>,
    /// Connections on their way to each worker, with their peers.
    arriving: Vec<Vec<(usize, Box<Handover>)>>,
}

/// What lasts from input to input, for each number of workers: a plugin is never freed.
struct World {
    mailboxes: Mailboxes,
    /// Workers whose mailbox has woken them.
    rung: Vec<Arc<AtomicBool>>,
    chain: Chain,
}

impl World {
    fn new(workers: usize) -> Self {
        let rung: Vec<Arc<AtomicBool>> = (0..workers).map(|_| Arc::default()).collect();
        let wake = |bell: &Arc<AtomicBool>| {
            let bell = Arc::clone(bell);
            Box::new(move || bell.store(true, Ordering::Relaxed)) as _
        };
        let mailboxes = Mailboxes::new(rung.iter().map(wake).collect());
        let chain = crate::handler::chain(&mailboxes);
        Self { mailboxes, rung, chain }
    }

    fn of(workers: usize) -> Rc<Self> {
        thread_local! {
            static WORLDS: RefCell<HashMap<usize, Rc<World>>> = RefCell::default();
        }
        WORLDS.with_borrow_mut(|worlds| Rc::clone(worlds.entry(workers).or_insert_with(|| Rc::new(Self::new(workers)))))
    }
}

impl Net {
    pub(crate) fn new(setup: &Setup) -> Self {
        let world = World::of(setup.workers);
        let chain = if setup.plugin { world.chain.clone() } else { Chain::default() };
        let shared = Shared::new(setup.limits.clone(), chain, world.mailboxes.clone());
        let mut profile = ListenerProfile::new("here", setup.limits.clone());
        profile.allow_anonymous = setup.allow_anonymous;
        let (shared, now) = (Arc::new(shared), Millis(0));
        let connect_bytes_max = setup.connect_bytes_max();
        let nobody = || Peer {
            place: Place::Nowhere,
            client: Client::new(connect_bytes_max),
            unread: Vec::new(),
            stalled: false,
            has_stalled: false,
            step: 0,
            damage: None,
        };
        Self {
            cores: (0..setup.workers).map(|worker| Core::new(worker, Arc::clone(&shared), now)).collect(),
            shared,
            world,
            now,
            eager: setup.eager,
            connect_bytes_max,
            address: setup.peer,
            profile: Arc::new(profile),
            peers: (0..PEERS).map(|_| nobody()).collect(),
            by_place: HashMap::new(),
            arriving: (0..setup.workers).map(|_| Vec::new()).collect(),
        }
    }

    /// Does what an input says.
    pub(crate) fn run(&mut self, input: &mut Input<'_>) {
        while !input.is_empty() {
            let byte = input.byte();
            self.step(usize::from(byte >> 5), byte & 31, input);
            self.cores.iter().for_each(Core::assert_sound);
            self.shared.assert_sound();
        }
    }

    fn step(&mut self, peer: usize, what: u8, input: &mut Input<'_>) {
        let mut packet = Vec::new();
        let version = self.peers[peer].client.version();
        match what {
            0..=2 => {
                self.lose(peer);
                packets::connect(input, &mut packet);
            }
            3..=8 => packets::publish(input, version, &mut packet),
            9..=11 => packets::subscribe(input, version, &mut packet),
            12 => packets::unsubscribe(input, version, &mut packet),
            13..=15 => packet = self.peers[peer].client.take_acknowledgements(),
            16 => packets::ack(input, version, &mut packet),
            17 => packet.extend_from_slice(&[0xC0, 0]),
            18 => packets::disconnect(input, version, &mut packet),
            19 => packets::auth(input, version, &mut packet),
            20 | 21 => packet.extend_from_slice(input.bytes()),
            22 => self.lose(peer),
            23 => {
                self.peers[peer].stalled = true;
                self.peers[peer].has_stalled = true;
            }
            24 => self.unstall(peer),
            25 => self.read(peer, usize::from(input.byte())),
            26 => self.peers[peer].step = usize::from(input.byte()),
            27 => self.peers[peer].damage = Some((input.byte().into(), input.byte())),
            28 => self.advance(STEPS_MS[peer]),
            29 => drop(self.turn(peer % self.cores.len())),
            30 => self.settle(),
            _ => self.rare(peer, input),
        }
        if !packet.is_empty() {
            self.send(peer, packet);
        }
        if self.eager {
            self.settle();
        }
    }

    /// What would end most inputs too soon.
    fn rare(&mut self, peer: usize, input: &mut Input<'_>) {
        match input.byte() {
            // The driver does not wait for ever for a peer to read its last packets.
            0..=99 => self.give_up(peer),
            // A second CONNECT, or the first one of a connection that has been sent something else.
            100..=149 => {
                let mut packet = Vec::new();
                packets::connect(input, &mut packet);
                self.send(peer, packet);
            }
            250.. => {
                let worker = peer % self.cores.len();
                self.cores[worker].shutdown(self.now);
            }
            _ => {}
        }
    }

    // Peers.

    /// A peer sends a packet, or what is left of it when it has been damaged. One without a connection opens one.
    fn send(&mut self, peer: usize, mut packet: Vec<u8>) {
        if let Some((place, bits)) = self.peers[peer].damage.take()
            && let Some(byte) = packet.get_mut(place)
        {
            *byte ^= bits;
        }
        if self.peers[peer].place == Place::Nowhere && !self.open(peer) {
            return;
        }
        self.peers[peer].client.send(&packet);
        self.peers[peer].unread.extend_from_slice(&packet);
        self.feed(peer);
        if let Place::At { worker, .. } = self.peers[peer].place {
            self.turn(worker);
        }
    }

    fn open(&mut self, peer: usize) -> bool {
        let worker = peer % self.cores.len();
        let address = self.address.parse().expect("an address");
        let arrival = Arrival { peer: address, profile: &self.profile, details: None };
        let Some(slot) = self.cores[worker].accept(arrival, self.now) else { return false };
        let place = Place::At { worker, slot };
        let connect_bytes_max = self.connect_bytes_max;
        let before = &self.peers[peer];
        self.peers[peer] = Peer {
            place,
            client: Client::new(connect_bytes_max),
            unread: Vec::new(),
            stalled: before.stalled,
            has_stalled: before.stalled,
            step: before.step,
            damage: before.damage,
        };
        self.by_place.insert((worker, slot), peer);
        true
    }

    /// The server reads what a peer has sent, unless it has to let another worker catch up, or has not come to what it
    /// has read before.
    fn feed(&mut self, peer: usize) {
        let step = match self.peers[peer].step {
            0 => usize::MAX,
            step => step,
        };
        while let Place::At { worker, slot } = self.peers[peer].place
            && !self.peers[peer].unread.is_empty()
            && !self.cores[worker].is_congested(self.now)
            && !self.cores[worker].is_held(slot)
        {
            let unread = &mut self.peers[peer].unread;
            let part: Vec<u8> = unread.drain(..step.min(unread.len())).collect();
            self.cores[worker].feed(slot, &part, self.now);
            self.give_away(worker);
        }
    }

    /// The peer's network fails, or it closes its side.
    fn lose(&mut self, peer: usize) {
        match self.peers[peer].place {
            Place::Nowhere => {}
            // The worker that it arrives at notices.
            Place::Travelling => self.settle(),
            Place::At { .. } => {}
        }
        if let Place::At { worker, slot } = self.peers[peer].place {
            self.cores[worker].lost(slot, self.now);
            self.forget(peer, worker, slot);
        }
    }

    /// The server closes a connection that has ended, though its peer has not read everything.
    fn give_up(&mut self, peer: usize) {
        if let Place::At { worker, slot } = self.peers[peer].place
            && self.cores[worker].is_closing(slot)
        {
            self.forget(peer, worker, slot);
        }
    }

    fn forget(&mut self, peer: usize, worker: usize, slot: u32) {
        self.cores[worker].release(slot);
        self.by_place.remove(&(worker, slot));
        self.peers[peer].place = Place::Nowhere;
    }

    fn unstall(&mut self, peer: usize) {
        self.peers[peer].stalled = false;
        if let Place::At { worker, slot } = self.peers[peer].place {
            self.flush(worker, slot);
        }
    }

    /// A peer that has stalled reads at most so many bytes, and then no more.
    fn read(&mut self, peer: usize, count: usize) {
        let Place::At { worker, slot } = self.peers[peer].place else { return };
        let core = &mut self.cores[worker];
        let count = count.min(core.outbound(slot).len());
        if count > 0 {
            self.peers[peer].client.receive(&core.outbound(slot)[..count]);
            core.sent(slot, count, self.now);
        }
    }

    // Workers.

    /// One turn of one worker, in the order of the driver. `true` if something has happened.
    fn turn(&mut self, worker: usize) -> bool {
        let waiting: Vec<usize> = (0..PEERS)
            .filter(|peer| !self.peers[*peer].unread.is_empty())
            .filter(|peer| matches!(self.peers[*peer].place, Place::At { worker: at, .. } if at == worker))
            .collect();
        let mut moved = false;
        for peer in waiting {
            let before = self.peers[peer].unread.len();
            self.feed(peer);
            moved |= self.peers[peer].unread.len() < before;
        }
        let rung = self.world.rung[worker].swap(false, Ordering::Relaxed);
        moved |= rung || !self.arriving[worker].is_empty();
        for (peer, handover) in std::mem::take(&mut self.arriving[worker]) {
            self.adopt(worker, peer, *handover);
        }
        if rung {
            self.cores[worker].on_mail(self.now);
        }
        if self.cores[worker].next_tick().is_some_and(|at| at <= self.now) {
            moved = true;
            self.cores[worker].on_tick(self.now);
        }
        self.cores[worker].flush_mail();
        let mut dirty = Vec::new();
        self.cores[worker].take_dirty(&mut dirty);
        self.give_away(worker);
        moved |= !dirty.is_empty();
        for slot in dirty {
            self.flush(worker, slot);
        }
        self.cores[worker].flush_mail();
        moved
    }

    fn give_away(&mut self, worker: usize) {
        let mut handovers = Vec::new();
        self.cores[worker].take_handovers(&mut handovers);
        for (slot, to, handover) in handovers {
            let peer = self.by_place.remove(&(worker, slot)).expect("handed over once");
            self.peers[peer].place = Place::Travelling;
            self.arriving[to].push((peer, handover));
        }
    }

    fn adopt(&mut self, worker: usize, peer: usize, handover: Handover) {
        let slot = self.cores[worker].adopt(handover, self.now);
        self.by_place.insert((worker, slot), peer);
        self.peers[peer].place = Place::At { worker, slot };
    }

    /// Moves what is outbound to the peer, and closes what is done with.
    fn flush(&mut self, worker: usize, slot: u32) {
        let Some(&peer) = self.by_place.get(&(worker, slot)) else { return };
        let core = &mut self.cores[worker];
        let one = &mut self.peers[peer];
        if one.stalled {
            return;
        }
        while !core.outbound(slot).is_empty() {
            let count = core.outbound(slot).len();
            let count = if one.step == 0 { count } else { count.min(one.step) };
            one.client.receive(&core.outbound(slot)[..count]);
            core.sent(slot, count, self.now);
        }
        if core.is_closing(slot) {
            assert!(one.has_stalled || !one.client.is_inside_a_packet(), "closed in the middle of a packet");
            self.forget(peer, worker, slot);
        }
    }

    /// Lets workers take turns until nothing moves any more.
    fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let mut moved = false;
            for worker in 0..self.cores.len() {
                moved |= self.turn(worker);
            }
            if !moved {
                return;
            }
        }
        panic!("no rest after {TURNS_MAX} turns");
    }

    /// Lets time pass. Everything happens at its moment; in hours, late: a timer is looked at every minute at least.
    fn advance(&mut self, ms: u64) {
        let until = self.now + ms;
        if ms > MINUTES_MS {
            self.now = until;
            return self.settle();
        }
        for _ in 0..TURNS_MAX {
            let next = self.cores.iter().filter_map(Core::next_tick).min().filter(|next| *next <= until);
            let Some(next) = next else {
                self.now = until;
                return self.settle();
            };
            self.now = self.now.max(next);
            self.settle();
        }
        panic!("time does not get on");
    }

    /// Everybody leaves, and everything expires: nothing may be left.
    pub(crate) fn end(mut self) {
        self.settle();
        for peer in 0..PEERS {
            self.lose(peer);
        }
        self.settle();
        // What ends may have a will, which may be retained for some time.
        (0..3).for_each(|_| self.advance(END_MS));
        self.cores.iter().for_each(Core::assert_nothing_left);
        self.shared.assert_nothing_left();
        for worker in 0..self.cores.len() {
            assert!(!self.world.mailboxes.of(worker).take(&mut Batch::default()), "mail");
        }
    }
}
