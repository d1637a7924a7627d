//! What a handler keeps in the server, by key.

use crate::abi::{Piece, Status, gather};
use crate::host::result;
use crate::{Host, HostError};

/// Values by key that the server keeps in memory for the plugin: they belong to its name, so the next version of the plugin
/// finds them after a swap. They end with the server, unless that has a data directory (`--data-dir`): then they are there after
/// the next start, and what is put in a callback about a packet is safe before its client gets an acknowledgement. Each call
/// takes effect at once, also inside a callback.
///
/// Keys have up to 1,024 bytes, values up to 1 MiB, and all together what the host's `plugin_store_bytes_max` says.
///
/// ```no_run
/// # use plugin_api::{Host, HostError};
/// fn count_start(host: &Host) -> Result<u64, HostError> {
///     let before = host.store().get("starts")?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
///     host.store().put("starts", (before + 1).to_le_bytes())?;
///     Ok(before + 1)
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Store<'a> {
    host: &'a Host,
}

impl Host {
    /// What the plugin keeps in the server.
    #[must_use]
    pub const fn store(&self) -> Store<'_> {
        Store { host: self }
    }
}

impl Store<'_> {
    /// The value of a key.
    ///
    /// # Errors
    /// The plugin has been stopped.
    pub fn get(self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, HostError> {
        match gather(|sink| self.host.raw.kv_get(key.as_ref(), sink)) {
            (Status::NOT_FOUND, _) => Ok(None),
            (status, pieces) => {
                result(status)?;
                Ok(pieces.into_iter().next().map(|piece| piece.bytes))
            }
        }
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// The key is empty, the key or the value is too large, or there is no room for it.
    pub fn put(self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), HostError> {
        result(self.host.raw.kv_put(key.as_ref(), value.as_ref()))
    }

    /// Removes a key. `false` if there was none.
    ///
    /// # Errors
    /// The plugin has been stopped.
    pub fn delete(self, key: impl AsRef<[u8]>) -> Result<bool, HostError> {
        match self.host.raw.kv_delete(key.as_ref()) {
            Status::NOT_FOUND => Ok(false),
            status => result(status).map(|()| true),
        }
    }

    /// Keys that begin with `prefix`, in order: at most `limit` of them (and at most 1,000), from the first one behind `after`
    /// on, which is empty for the first page.
    ///
    /// # Errors
    /// The plugin has been stopped.
    pub fn keys(
        self,
        prefix: impl AsRef<[u8]>,
        after: impl AsRef<[u8]>,
        limit: u32,
    ) -> Result<Vec<Vec<u8>>, HostError> {
        let (status, pieces) = gather(|sink| self.host.raw.kv_list(prefix.as_ref(), after.as_ref(), limit, sink));
        result(status)?;
        Ok(pieces.into_iter().map(|Piece { bytes, .. }| bytes).collect())
    }
}
