//! What the server keeps for plugins, by their names: whichever instance of a plugin asks gets the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use plugin_api::abi::Status;

use super::metrics::{MetricSample, Metrics};
use super::store::Store;
use crate::durable::change::{Change, ChangeError, Changes};
use crate::durable::store::Store as DurableStore;
use crate::limits::Limits;
use crate::message::Source;
use crate::packed::{Reader, Unreadable, Write};

/// Under this name, which no plugin can have, the host keeps by a key of its own the names of all plugins that it has had, a line
/// for each: so a message that is kept says by a number who has published it, whatever the chain is later.
const HOST: &str = "";
const PLUGINS: &[u8] = b"plugins";

/// Keys that another process has said to be there, by plugin.
pub(crate) type KnownKeys = BTreeMap<String, BTreeSet<Box<[u8]>>>;

/// Keys that have changed, with their plugins.
type ChangedKeys = BTreeSet<(String, Box<[u8]>)>;

/// What one plugin has.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    store: Mutex<Store>,
    metrics: Mutex<Metrics>,
    timer_bytes: AtomicUsize,
}

/// What a timer takes in memory besides its data, about.
const TIMER_BYTES: usize = 512;

/// The room that a plugin's timer takes, wherever in the server it waits: free again when nobody has it any more.
#[derive(Debug)]
pub struct TimerRoom {
    holdings: Arc<Holdings>,
    bytes: usize,
}

impl TimerRoom {
    /// For a timer with so many bytes of data, whatever the bound is.
    fn beyond_bounds(holdings: Arc<Holdings>, data_bytes: usize) -> (Arc<Self>, usize) {
        let bytes = TIMER_BYTES + data_bytes;
        let before = holdings.timer_bytes.fetch_add(bytes, Ordering::Relaxed);
        (Arc::new(Self { holdings, bytes }), before + bytes)
    }
}

impl Drop for TimerRoom {
    fn drop(&mut self) {
        self.holdings.timer_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Holdings {
    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    pub(super) fn metrics(&self) -> MutexGuard<'_, Metrics> {
        lock(&self.metrics)
    }
}

/// What all plugins have, and how much each may have.
#[derive(Debug)]
pub(super) struct AllHoldings {
    by_plugin: Mutex<BTreeMap<String, Arc<Holdings>>>,
    store_bytes_max: usize,
    pub(super) metrics_max: usize,
    timer_bytes_max: usize,
    /// Where values go that are to outlive the server, and how many workers it has.
    kept: OnceLock<(Arc<dyn DurableStore>, u16)>,
    /// Keys that have changed before that, if the values that there were are kept already.
    changed: Mutex<Option<ChangedKeys>>,
    /// What went there.
    values: Arc<AtomicU64>,
    /// Where what a plugin begins with is copied from.
    copied: Option<Arc<Self>>,
}

impl AllHoldings {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            by_plugin: Mutex::default(),
            store_bytes_max: limits.plugin_store_bytes_max,
            metrics_max: limits.plugin_metrics_max,
            timer_bytes_max: limits.plugin_timer_bytes_max,
            kept: OnceLock::new(),
            changed: Mutex::default(),
            values: Arc::default(),
            copied: None,
        }
    }

    /// What was kept is taken in from another process; what is put besides is to be kept as soon as there is [somewhere](Self::keep_on).
    pub(super) fn note_changes(&self) {
        lock(&self.changed).get_or_insert_default();
    }

    /// Keeps what was put since then, and what is put from now on.
    pub(super) fn keep_on(&self, store: Arc<dyn DurableStore>, workers: u16) {
        let _ = self.kept.set((store, workers));
        let changed = lock(&self.changed).take().unwrap_or_default();
        for (plugin, key) in changed {
            let holdings = self.of(&plugin);
            let entries = holdings.store();
            self.note(&plugin, &key, entries.get(&key).as_deref());
        }
    }

    /// Takes back what was kept, and keeps from now on what is put. Before plugins are loaded.
    pub(super) fn keep_in(&self, store: Arc<dyn DurableStore>, workers: u16, values: &[u8]) -> Result<(), ChangeError> {
        for change in Changes::new(values) {
            if let Change::KeyValue { plugin, key, value: Some(value) } = change?.1 {
                // The bound may have been another one. What was accepted stays.
                let _ = self.of(plugin).store().put(key, value, usize::MAX);
            }
        }
        let _ = self.kept.set((store, workers));
        Ok(())
    }

    /// See [`Services::number_plugins`](super::Services::number_plugins).
    pub(super) fn number_plugins(&self, chain: &[String]) -> Vec<String> {
        let holdings = self.of(HOST);
        let mut entries = holdings.store();
        let kept = entries.get(PLUGINS).map(|names| String::from_utf8_lossy(&names).into_owned()).unwrap_or_default();
        let mut names: Vec<String> = kept.lines().map(str::to_owned).collect();
        let before = names.len();
        for name in chain {
            // One for which there is no number is nobody's.
            if !names.contains(name) && names.len() < usize::from(Source::NO_PLACE) {
                names.push(name.clone());
            }
        }
        if names.len() > before {
            let value = names.join("\n");
            // Nothing is too long for it, and nobody else has a part in it.
            let _ = entries.put(PLUGINS, value.as_bytes(), usize::MAX);
            self.note(HOST, PLUGINS, Some(value.as_bytes()));
        }
        names
    }

    /// Sets the value of a key, of which the plugin's entries are given.
    pub(super) fn put(&self, plugin: &str, store: &mut Store, key: &[u8], value: &[u8]) -> Result<(), Status> {
        // Nobody waits for what is put, so that this alone bounds what waits to be written.
        if self.kept.get().is_some_and(|(kept, _)| kept.is_failing() || kept.is_full()) {
            return Err(Status::FULL);
        }
        store.put(key, value, self.store_bytes_max)?;
        self.note(plugin, key, Some(value));
        Ok(())
    }

    /// Removes a key. `false` if there was none.
    pub(super) fn delete(&self, plugin: &str, store: &mut Store, key: &[u8]) -> bool {
        let is_deleted = store.delete(key);
        if is_deleted {
            self.note(plugin, key, None);
        }
        is_deleted
    }

    /// See [`Services::values`](super::Services::values).
    pub(super) fn values(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.values)
    }

    /// Under the lock of the plugin's entries, so that the order is theirs. Here nobody waits until it is safe; but what the client
    /// is answered whose packet the plugin is asked about.
    fn note(&self, plugin: &str, key: &[u8], value: Option<&[u8]>) {
        if self.kept.get().is_none()
            && let Some(changed) = &mut *lock(&self.changed)
        {
            changed.insert((plugin.to_owned(), key.into()));
            return;
        }
        // Where there are no changes any more, there is a store since then.
        let Some((kept, workers)) = self.kept.get() else { return };
        let mut journal = Vec::new();
        Change::Turn { worker: 0, workers: *workers }.encode(&mut journal);
        Change::KeyValue { plugin, key, value }.encode(&mut journal);
        kept.hand_over(0, &mut journal);
        self.values.fetch_add(1, Ordering::Release);
    }

    /// The same bounds, and for each plugin that is asked for, a copy of what it keeps by keys at that time. It is not kept any
    /// further.
    pub(super) fn copy(self: &Arc<Self>) -> Self {
        Self {
            store_bytes_max: self.store_bytes_max,
            metrics_max: self.metrics_max,
            timer_bytes_max: self.timer_bytes_max,
            copied: Some(Arc::clone(self)),
            ..Self::new(&Limits::default())
        }
    }

    fn copy_of(&self, plugin: &str) -> Holdings {
        let there = lock(&self.by_plugin).get(plugin).cloned();
        // Values are shared with the copy.
        let store = there.map_or_else(Store::default, |holdings| holdings.store().clone());
        Holdings { store: Mutex::new(store), ..Holdings::default() }
    }

    /// Room for a timer of a plugin with so many bytes of data, if there is any.
    pub(super) fn timer_room(&self, holdings: &Arc<Holdings>, data_bytes: usize) -> Result<Arc<TimerRoom>, Status> {
        let (room, taken) = TimerRoom::beyond_bounds(Arc::clone(holdings), data_bytes);
        if taken > self.timer_bytes_max { Err(Status::FULL) } else { Ok(room) }
    }

    /// The same for one that another process has accepted.
    pub(super) fn inherited_timer_room(&self, plugin: &str, data_bytes: usize) -> Arc<TimerRoom> {
        TimerRoom::beyond_bounds(self.of(plugin), data_bytes).0
    }

    /// What a plugin has. It comes into being when it is asked for.
    pub(super) fn of(&self, plugin: &str) -> Arc<Holdings> {
        let mut by_plugin = lock(&self.by_plugin);
        if let Some(holdings) = by_plugin.get(plugin) {
            return Arc::clone(holdings);
        }
        let copied = self.copied.as_ref().map(|from| from.copy_of(plugin));
        Arc::clone(by_plugin.entry(plugin.to_owned()).or_insert(Arc::new(copied.unwrap_or_default())))
    }

    pub(super) fn images(&self) -> Vec<Vec<u8>> {
        let by_plugin = lock(&self.by_plugin);
        let image = |(plugin, holdings): (&String, &Arc<Holdings>)| {
            let mut image = Vec::new();
            image.put_text(plugin);
            holdings.store().write(&mut image);
            image
        };
        by_plugin.iter().map(image).collect()
    }

    pub(super) fn inherit(&self, image: &[u8], known: &mut KnownKeys) -> Result<(), Unreadable> {
        let mut reader = Reader::new(image);
        let plugin = reader.text()?;
        let holdings = self.of(plugin);
        if plugin == HOST && holdings.store().get(PLUGINS).is_some() {
            // It has been told before, and has grown here since.
            return Ok(());
        }
        let known = known.entry(plugin.to_owned()).or_default();
        let bytes_max = if plugin == HOST { usize::MAX } else { self.store_bytes_max };
        let is_whole = holdings.store().inherit(&mut reader, known, bytes_max)?;
        if !is_whole {
            tracing::warn!(plugin, "some of the values that the server has kept for a plugin are beyond its bound now");
        }
        reader.end()
    }

    pub(super) fn samples(&self) -> Vec<MetricSample> {
        let by_plugin = lock(&self.by_plugin);
        by_plugin.iter().flat_map(|(plugin, holdings)| holdings.metrics().samples(plugin)).collect()
    }
}

/// Only code of ours runs under these locks, and what they guard is whole after each statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_keep_their_numbers_in_every_chain() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let all = AllHoldings::new(&Limits::default());
        assert_eq!(all.number_plugins(&[]), list(&[]));
        assert_eq!(all.number_plugins(&list(&["a", "b"])), list(&["a", "b"]));
        assert_eq!(all.number_plugins(&list(&["c", "b"])), list(&["a", "b", "c"]));
        // Another process is told once, whatever may be kept for plugins there, and its own are behind those.
        let other = AllHoldings::new(&Limits { plugin_store_bytes_max: 0, ..Limits::default() });
        let mut known = KnownKeys::new();
        all.images().iter().for_each(|image| other.inherit(image, &mut known).expect("it is one"));
        assert_eq!(other.number_plugins(&list(&["d", "a"])), list(&["a", "b", "c", "d"]));
        all.images().iter().for_each(|image| other.inherit(image, &mut known).expect("it is one"));
        assert_eq!(other.number_plugins(&[]), list(&["a", "b", "c", "d"]));
        // There are no more numbers.
        let many: Vec<_> = (0..300).map(|number| number.to_string()).collect();
        assert_eq!(other.number_plugins(&many).len(), 255);
    }

    #[test]
    fn copy_has_what_is_asked_for_and_changes_nothing() {
        let all = Arc::new(AllHoldings::new(&Limits::default()));
        for plugin in ["a", "b"] {
            all.of(plugin).store().put(b"k", plugin.as_bytes(), 1 << 20).expect("there is room");
        }
        let copy = all.copy();
        let (a, c) = (copy.of("a"), copy.of("c"));
        assert_eq!(a.store().get(b"k").as_deref(), Some(&b"a"[..]));
        assert_eq!(c.store().get(b"k"), None);
        a.store().put(b"k", b"x", 1 << 20).expect("there is room");
        assert_eq!(all.of("a").store().get(b"k").as_deref(), Some(&b"a"[..]));
        let names = |all: &AllHoldings| lock(&all.by_plugin).keys().cloned().collect::<Vec<_>>();
        assert_eq!(
            (names(&copy), names(&all)),
            (vec!["a".to_owned(), "c".to_owned()], vec!["a".to_owned(), "b".to_owned()])
        );
    }
}
