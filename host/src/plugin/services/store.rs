//! What plugins keep in the server, by key: it survives a swap, as it belongs to the plugin's name and not to an instance.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use plugin_api::abi::Status;

use crate::packed::{Reader, Unreadable, Write};

/// Bytes of one key.
pub(super) const KEY_BYTES_MAX: usize = 1024;

/// Bytes of one value.
pub(super) const VALUE_BYTES_MAX: usize = 1 << 20;

/// What an entry takes beyond its key and its value.
const ENTRY_BYTES: usize = 128;

/// Keys that are listed at once.
const PAGE_MAX: usize = 1000;

/// The entries of one plugin.
#[derive(Debug, Default, Clone)]
pub(super) struct Store {
    entries: BTreeMap<Box<[u8]>, Arc<[u8]>>,
    bytes: usize,
}

impl Store {
    pub(super) fn get(&self, key: &[u8]) -> Option<Arc<[u8]>> {
        self.entries.get(key).cloned()
    }

    /// Sets the value of a key.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8], bytes_max: usize) -> Result<(), Status> {
        if key.is_empty() {
            return Err(Status::INVALID);
        }
        if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return Err(Status::TOO_LARGE);
        }
        let before = self.entries.get(key).map_or(0, |value| entry_bytes(key, value));
        let bytes = self.bytes - before + entry_bytes(key, value);
        if bytes > bytes_max {
            return Err(Status::FULL);
        }
        self.bytes = bytes;
        self.entries.insert(key.into(), value.into());
        Ok(())
    }

    /// Removes a key. `false` if there was none.
    pub(super) fn delete(&mut self, key: &[u8]) -> bool {
        let removed = self.entries.remove(key);
        self.bytes -= removed.as_ref().map_or(0, |value| entry_bytes(key, value));
        removed.is_some()
    }

    /// Writes all entries.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_count(self.entries.len());
        for (key, value) in &self.entries {
            out.put_bytes(key);
            out.put_bytes(value);
        }
    }

    /// Takes entries in, and removes those of `known` that are not among them; their keys are known then. `false`: there was
    /// no room for some.
    pub(super) fn inherit(
        &mut self,
        reader: &mut Reader<'_>,
        known: &mut BTreeSet<Box<[u8]>>,
        bytes_max: usize,
    ) -> Result<bool, Unreadable> {
        let entries = reader.list(|reader| Ok((reader.bytes()?, reader.bytes()?)))?;
        for key in std::mem::take(known) {
            self.delete(&key);
        }
        let mut is_whole = true;
        for (key, value) in entries {
            known.insert(key.into());
            is_whole &= self.put(key, value, bytes_max).is_ok();
        }
        Ok(is_whole)
    }

    /// Keys that begin with `prefix`, in order, from the first one behind `after` on.
    pub(super) fn list(&self, prefix: &[u8], after: &[u8], limit: usize) -> Vec<Box<[u8]>> {
        let from = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        let keys = self.entries.range::<[u8], _>((from, Bound::Unbounded)).map(|(key, _)| key);
        keys.take_while(|key| key.starts_with(prefix)).take(limit.min(PAGE_MAX)).cloned().collect()
    }
}

fn entry_bytes(key: &[u8], value: &[u8]) -> usize {
    ENTRY_BYTES + key.len() + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_kept_within_the_bound_and_listed_in_pages() {
        let mut store = Store::default();
        let max = 5 * (ENTRY_BYTES + 4);
        for key in ["b/2", "a/1", "b/1", "b/3", "c/1"] {
            store.put(key.as_bytes(), b"v", max).expect(key);
        }
        assert_eq!(store.put(b"d", b"", max), Err(Status::FULL));
        assert_eq!(store.put(b"a/1", b"vv", max), Err(Status::FULL));
        assert_eq!(store.get(b"a/1").as_deref(), Some(&b"v"[..]));
        let list = |prefix: &str, after: &str, limit| -> Vec<String> {
            let keys = store.list(prefix.as_bytes(), after.as_bytes(), limit);
            keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
        };
        assert_eq!(list("b/", "", 2), ["b/1", "b/2"]);
        assert_eq!(list("b/", "b/2", 2), ["b/3"]);
        assert_eq!(list("b/", "c", 9), [""; 0]);
        assert_eq!(list("", "", 9), ["a/1", "b/1", "b/2", "b/3", "c/1"]);
        assert_eq!(list("", "b/3", 9), ["c/1"]);
        assert!(store.delete(b"a/1") && !store.delete(b"a/1"));
        store.put(b"d", b"vv", max).expect("there is room again");
        assert_eq!(store.put(b"", b"", max), Err(Status::INVALID));
        assert_eq!(store.put(&[0; KEY_BYTES_MAX + 1], b"", usize::MAX), Err(Status::TOO_LARGE));
        assert_eq!(store.put(b"k", &[0; VALUE_BYTES_MAX + 1], usize::MAX), Err(Status::TOO_LARGE));
        for key in [&b"b/1"[..], b"b/2", b"b/3", b"c/1", b"d"] {
            assert!(store.delete(key));
        }
        assert_eq!(store.bytes, 0);
    }
}
