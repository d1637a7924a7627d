//! What the server keeps for plugins, by their names: whichever instance of a plugin asks gets the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::metrics::{MetricSample, Metrics};
use super::store::Store;
use crate::limits::Limits;

/// What one plugin has.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    store: Mutex<Store>,
    metrics: Mutex<Metrics>,
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
    pub(super) store_bytes_max: usize,
    pub(super) metrics_max: usize,
}

impl AllHoldings {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            by_plugin: Mutex::default(),
            store_bytes_max: limits.plugin_store_bytes_max,
            metrics_max: limits.plugin_metrics_max,
        }
    }

    /// What a plugin has. It comes into being when it is asked for.
    pub(super) fn of(&self, plugin: &str) -> Arc<Holdings> {
        Arc::clone(lock(&self.by_plugin).entry(plugin.to_owned()).or_default())
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
