//! What the workers of a server have in common.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::admission::Admission;
use super::counters::Counters;
use super::journal::Keeping;
use super::mail::Mail;
use super::mailbox::Mailboxes;
use super::profile::ListenerProfile;
use crate::clock::{Millis, WallMillis};
use crate::limits::Limits;
use crate::message::Places;
use crate::packed::{Reader, Unreadable, Write};
use crate::plugin::Chain;
use crate::router::{Interest, Retained};

/// What all workers of a server share. Immutable, or with its own documented rule for threads.
pub struct Shared {
    /// Bounds.
    pub limits: Limits,
    /// The plugins, in order.
    pub chain: Chain,
    /// Filter → workers; behind one lock, touched on a cache miss and on (un)subscribe.
    pub interest: Arc<Interest>,
    /// Retained messages; behind one lock, touched by retained publishes and SUBSCRIBE.
    pub retained: Arc<Retained>,
    /// How workers and plugins reach a worker.
    pub mailboxes: Mailboxes,
    /// What each worker has counted; then what a process has counted whose place this one took; and from the end on, each thread
    /// that takes in connections for the workers: there are at most as many.
    pub counters: Arc<[Counters]>,
    /// Workers that hold as much as they may: one bit for each. Written when one becomes full or ceases to be.
    pub(super) full_workers: Arc<AtomicU64>,
    /// Network Connections open in all workers.
    pub(super) admission: Arc<Admission>,
    /// What makes the Client Identifiers that the server assigns unguessable, even for who was assigned one: otherwise a
    /// session could be waiting under the next one [MQTT-3.2.2-16].
    pub(super) assigned_keys: std::hash::RandomState,
    /// There is a store: see [`core::journal`](super::journal).
    pub(super) keeping: Option<Arc<Keeping>>,
    /// What the places in the chain of the process are, whose place this one takes.
    pub(crate) places_before: Places,
}

impl Shared {
    /// Shared state for as many workers as there are mailboxes.
    #[must_use]
    pub fn new(limits: Limits, chain: Chain, mailboxes: Mailboxes) -> Self {
        let workers = mailboxes.workers();
        let woken = mailboxes.clone();
        chain.on_change(move || {
            for worker in 0..workers {
                // It is to wake the worker. What is in a mailbox that is full has done that.
                let _ = woken.post(worker, Mail::Plan);
            }
        });
        Self {
            interest: Arc::new(Interest::new(workers)),
            retained: Arc::new(Retained::new(limits.retained_messages_max, limits.retained_bytes_max)),
            counters: (0..=2 * workers + 1).map(|_| Counters::default()).collect(),
            full_workers: Arc::default(),
            admission: Arc::default(),
            // The standard library's hasher takes its keys from the operating system's random numbers.
            assigned_keys: std::hash::RandomState::new(),
            keeping: None,
            places_before: Places::default(),
            limits,
            chain,
            mailboxes,
        }
    }

    /// The same where there is a store: workers write journals, and so do retained messages. `values` grows whenever a plugin has
    /// put something by a key, or has removed it, and that was handed over.
    #[must_use]
    pub fn with_store(self, zero: WallMillis, values: Arc<AtomicU64>) -> Self {
        self.retained.note_changes();
        let keeping = Keeping::new(self.mailboxes.workers(), zero, values);
        Self { keeping: Some(Arc::new(keeping)), ..self }
    }

    /// The same where the store knows plugins by their places among these names.
    pub(crate) fn with_plugins_kept_as(mut self, kept: &[String]) -> Self {
        let chain = self.chain.names();
        if let Some(keeping) = self.keeping.as_mut().and_then(Arc::get_mut) {
            keeping.set_places(Places::between(&chain, kept), Places::between(kept, &chain));
        }
        self
    }

    /// The same in the place of a process with these plugins.
    pub(crate) fn behind(self, plugins: &[String]) -> Self {
        let places_before = Places::between(plugins, &self.chain.names());
        Self { places_before, ..self }
    }

    /// Writes what has been counted, and who is let in and who is not, for another process.
    pub(crate) fn gates_image(&self, profiles: &[Arc<ListenerProfile>], now: Millis) -> Vec<u8> {
        let mut out = Vec::new();
        let sums: Vec<_> = Counters::default().named().iter().map(|(name, _)| (*name, self.counted(name))).collect();
        out.put_count(sums.len());
        for (name, sum) in sums {
            out.put_text(name);
            out.put_u64(sum);
        }
        self.admission.write(now, &mut out);
        out.put_count(profiles.len());
        for profile in profiles {
            out.put_text(&profile.name);
            out.put_u64(profile.gate.full_at_ns());
        }
        out
    }

    /// Takes that in. Nobody counts yet.
    pub(crate) fn inherit_gates(&self, image: &[u8], profiles: &[Arc<ListenerProfile>]) -> Result<(), Unreadable> {
        let mut reader = Reader::new(image);
        let inherited = self.inherited();
        for _ in 0..reader.count()? {
            let (name, sum) = (reader.text()?, reader.u64()?);
            // One that another version counts is not told here.
            let counter = inherited.named().into_iter().find(|(known, _)| *known == name);
            counter.iter().for_each(|(_, counter)| counter.add(sum));
        }
        self.admission.inherit(&mut reader)?;
        for _ in 0..reader.count()? {
            let (name, full_at_ns) = (reader.text()?, reader.u64()?);
            let profile = profiles.iter().find(|profile| *profile.name == *name);
            profile.iter().for_each(|profile| profile.gate.inherit(full_at_ns));
        }
        reader.end()
    }

    /// What a process has counted whose place this one took.
    pub(crate) fn inherited(&self) -> &Counters {
        &self.counters[self.mailboxes.workers()]
    }

    /// Those of the thread for QUIC.
    #[cfg(feature = "quic")]
    pub(crate) fn counters_of_quic(&self) -> &Counters {
        &self.counters[self.mailboxes.workers() + 1]
    }

    fn counted(&self, name: &str) -> u64 {
        let of = |counters: &Counters| {
            counters.named().iter().find(|(known, _)| *known == name).map_or(0, |one| one.1.get())
        };
        self.counters.iter().map(of).sum()
    }

    /// The number of the next session that is kept; 0 where there is no store.
    pub(crate) fn next_session(&self) -> u64 {
        self.keeping.as_ref().map_or(0, |keeping| keeping.next())
    }

    /// Numbers sessions from there on, if they would have smaller numbers.
    pub(crate) fn skip_sessions(&self, next: u64) {
        if let Some(keeping) = self.keeping.as_ref().filter(|_| next > 0) {
            keeping.note_number(next - 1);
        }
    }

    /// The same state with other bounds.
    pub(super) fn with_limits(&self, limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            chain: self.chain.clone(),
            interest: Arc::clone(&self.interest),
            retained: Arc::clone(&self.retained),
            mailboxes: self.mailboxes.clone(),
            counters: Arc::clone(&self.counters),
            full_workers: Arc::clone(&self.full_workers),
            admission: Arc::clone(&self.admission),
            assigned_keys: self.assigned_keys.clone(),
            keeping: self.keeping.clone(),
            places_before: self.places_before.clone(),
        }
    }

    /// Whether connections from an address are turned away, because nobody from there gets in.
    #[must_use]
    pub fn turns_away(&self, ip: IpAddr, now: Millis) -> bool {
        self.admission.failures.turns_away(ip, &self.limits, now)
    }

    /// Somebody from an address has failed to get in: see `core::failures`.
    pub fn note_failure(&self, ip: IpAddr, now: Millis) {
        if self.admission.failures.note(ip, &self.limits, now) {
            tracing::info!(address = %ip, "turned away for {:?}: too many failures to get in", self.limits.failures_ban);
        }
    }
}
