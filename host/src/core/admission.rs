//! What decides about a Network Connection before anybody knows whose it is: how many there are, from where, and how fast
//! they come. Shared by all workers, and touched when a connection opens, sends CONNECT or closes, not for messages.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::PoisonError;

use foldhash::fast::RandomState;

use super::ListenerProfile;
use super::failures::{Address, Failures};
use super::rates::SharedBucket;
use crate::clock::Millis;
use crate::limits::Limits;
use crate::packed::{Reader, Unreadable, Write};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// The Network Connections of a server, counted.
#[derive(Debug, Default)]
pub(super) struct Admission {
    open: AtomicUsize,
    /// By address; empty where there is no bound on them.
    addresses: Mutex<HashMap<Address, usize, RandomState>>,
    connects: SharedBucket,
    /// Who failed to get in, and who is turned away for it.
    pub(super) failures: Failures,
}

/// What has come through one listener, counted.
#[derive(Debug, Default)]
pub(super) struct Gate {
    open: AtomicUsize,
    connects: SharedBucket,
}

impl Gate {
    /// What is left of the rate of CONNECT packets.
    pub(super) fn full_at_ns(&self) -> u64 {
        self.connects.full_at_ns()
    }

    /// As much is left as another process has left.
    pub(super) fn inherit(&self, full_at_ns: u64) {
        self.connects.inherit(full_at_ns);
    }
}

impl Admission {
    /// Writes what is left of the rate of CONNECT packets, and who is turned away or about to be. Connections are counted by
    /// whoever has them.
    pub(super) fn write(&self, now: Millis, out: &mut Vec<u8>) {
        out.put_u64(self.connects.full_at_ns());
        self.failures.write(now, out);
    }

    /// Takes that in.
    pub(super) fn inherit(&self, reader: &mut Reader<'_>) -> Result<(), Unreadable> {
        self.connects.inherit(reader.u64()?);
        self.failures.inherit(reader)
    }

    /// Counts a new connection. `false`: there are too many, at the listener, in the server (of which the second bounds are) or
    /// from the address.
    pub(super) fn enter(&self, peer: SocketAddr, listener: &ListenerProfile, server: &Limits) -> bool {
        let limits = &listener.limits;
        if listener.gate.open.fetch_add(1, Ordering::Relaxed) < limits.connections_max {
            if self.open.fetch_add(1, Ordering::Relaxed) < server.connections_max && self.enter_address(peer, limits) {
                return true;
            }
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        listener.gate.open.fetch_sub(1, Ordering::Relaxed);
        false
    }

    /// Counts a connection that is there already, whatever the bounds are.
    pub(super) fn enter_over_bounds(&self, peer: SocketAddr, listener: &ListenerProfile) {
        listener.gate.open.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        if listener.limits.connections_per_address_max != 0 {
            *self.addresses().entry(Address::of(peer.ip())).or_default() += 1;
        }
    }

    /// A connection that [`Admission::enter`] has counted is gone.
    pub(super) fn leave(&self, peer: SocketAddr, listener: &ListenerProfile) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        listener.gate.open.fetch_sub(1, Ordering::Relaxed);
        if listener.limits.connections_per_address_max == 0 {
            return;
        }
        if let Entry::Occupied(mut entry) = self.addresses().entry(Address::of(peer.ip())) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    /// Whether a CONNECT packet may be looked at now.
    pub(super) fn may_connect(&self, listener: &ListenerProfile, server: &Limits, now: Millis) -> bool {
        let may = |bucket: &SharedBucket, rate_max: u32| rate_max == 0 || bucket.take_one(rate_max.into(), now);
        may(&listener.gate.connects, listener.limits.connect_rate_max) && may(&self.connects, server.connect_rate_max)
    }

    fn enter_address(&self, peer: SocketAddr, limits: &Limits) -> bool {
        if limits.connections_per_address_max == 0 {
            return true;
        }
        let mut addresses = self.addresses();
        let open = addresses.entry(Address::of(peer.ip())).or_default();
        let is_room = *open < limits.connections_per_address_max;
        *open += usize::from(is_room);
        is_room
    }

    /// Asserts that the numbers of connections are within their bounds.
    #[cfg(any(test, fuzzing))]
    pub(super) fn assert_sound(&self, limits: &Limits) {
        assert!(self.open.load(Ordering::Relaxed) <= limits.connections_max, "connections of all workers");
        for (address, open) in self.addresses().iter() {
            // Each listener has a bound of its own on them.
            assert!(*open > 0, "connections of {address:?}");
        }
    }

    /// Asserts that there is no connection, nor a trace of one.
    #[cfg(any(test, fuzzing))]
    pub(super) fn assert_nothing_left(&self) {
        assert_eq!(self.open.load(Ordering::Relaxed), 0, "connections, counted");
        assert_eq!(self.addresses().len(), 0, "addresses of connections");
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<Address, usize, RandomState>> {
        // It is whole after each statement, so a poisoned lock says nothing.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
