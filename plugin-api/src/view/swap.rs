//! Views of a connection that goes over to another version of the plugin.

use std::fmt;

use super::ConnectionInfo;
use crate::abi::{RawState, RawSwapped};

/// A state that an earlier version of the plugin has exported.
#[derive(Clone, Copy)]
pub struct StateView<'a> {
    raw: &'a RawState<'a>,
}

impl<'a> StateView<'a> {
    pub(crate) const fn new(raw: &'a RawState<'a>) -> Self {
        Self { raw }
    }

    /// The version of its schema, in the plugin's own counting.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.raw.version
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.raw.bytes.as_slice()
    }
}

impl fmt::Debug for StateView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateView").field("version", &self.version()).field("bytes", &self.bytes().len()).finish()
    }
}

/// A connection that goes over to this version of the plugin.
#[derive(Clone, Copy)]
pub struct Swapped<'a> {
    raw: &'a RawSwapped<'a>,
}

impl<'a> Swapped<'a> {
    pub(crate) const fn new(raw: &'a RawSwapped<'a>) -> Self {
        Self { raw }
    }

    /// The connection, as [`new_connection`](crate::Handler::new_connection) was shown it.
    #[must_use]
    pub const fn info(&self) -> ConnectionInfo<'a> {
        ConnectionInfo::new(&self.raw.info)
    }

    /// Client Identifier.
    #[must_use]
    pub fn client_id(&self) -> &'a str {
        self.raw.client_id.as_str()
    }

    /// 3 for MQTT 3.1, 4 for 3.1.1, 5 for 5.0; 0 before CONNECT.
    #[must_use]
    pub const fn protocol_version(&self) -> u8 {
        self.raw.protocol_version
    }

    /// Keep Alive in force, in seconds; 0 for none.
    #[must_use]
    pub const fn keep_alive_secs(&self) -> u16 {
        self.raw.keep_alive
    }

    /// The version of the plugin that the connection comes from.
    #[must_use]
    pub fn from_version(&self) -> &'a str {
        self.raw.from_version.as_str()
    }

    /// Whether the connection comes back to an earlier version, after a swap that was not kept.
    #[must_use]
    pub const fn is_rollback(&self) -> bool {
        self.raw.flags & RawSwapped::ROLLBACK != 0
    }
}

impl fmt::Debug for Swapped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swapped")
            .field("info", &self.info())
            .field("client_id", &self.client_id())
            .field("from_version", &self.from_version())
            .field("is_rollback", &self.is_rollback())
            .finish_non_exhaustive()
    }
}
