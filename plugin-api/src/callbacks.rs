//! Which callbacks a handler implements.

use std::fmt;

/// A callback that has a default, so that a handler may leave it out.
///
/// One that a handler leaves out is *no opinion*: the host does not call the plugin for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Callback {
    /// [`handle_connect`](crate::Handler::handle_connect)
    Connect = 0,
    /// [`handle_auth`](crate::Handler::handle_auth)
    Auth = 1,
    /// [`handle_publish`](crate::Handler::handle_publish)
    Publish = 2,
    /// [`handle_subscribe`](crate::Handler::handle_subscribe)
    Subscribe = 3,
    /// [`handle_unsubscribe`](crate::Handler::handle_unsubscribe)
    Unsubscribe = 4,
    /// [`handle_puback`](crate::Handler::handle_puback)
    Puback = 5,
    /// [`handle_info`](crate::Handler::handle_info)
    Info = 6,
    /// [`handle_disconnect`](crate::Handler::handle_disconnect)
    Disconnect = 7,
    /// [`handle_session_expired`](crate::Handler::handle_session_expired)
    SessionExpired = 8,
    /// [`stop`](crate::Handler::stop)
    Stop = 9,
    /// [`handle_connected`](crate::Handler::handle_connected)
    Connected = 10,
    /// [`handle_deliver`](crate::Handler::handle_deliver)
    Deliver = 11,
    /// [`handle_message_dropped`](crate::Handler::handle_message_dropped)
    Dropped = 12,
    /// [`handle_message_acknowledged`](crate::Handler::handle_message_acknowledged)
    Acknowledged = 13,
    /// [`handle_message_expired`](crate::Handler::handle_message_expired)
    Expired = 14,
    /// [`handle_retained`](crate::Handler::handle_retained)
    Retained = 15,
    /// [`handle_event`](crate::Handler::handle_event)
    Event = 16,
    /// [`handle_config`](crate::Handler::handle_config)
    Config = 17,
    /// [`health`](crate::Handler::health)
    Health = 18,
    /// [`handle_swapped`](crate::Handler::handle_swapped)
    Swapped = 19,
    /// [`export_state`](crate::Handler::export_state)
    ExportState = 20,
    /// [`import_state`](crate::Handler::import_state)
    ImportState = 21,
    /// [`export_plugin_state`](crate::Handler::export_plugin_state)
    ExportPlugin = 22,
    /// [`import_plugin_state`](crate::Handler::import_plugin_state)
    ImportPlugin = 23,
}

impl Callback {
    /// All of them, by their number.
    pub const ALL: [Self; 24] = [
        Self::Connect,
        Self::Auth,
        Self::Publish,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Puback,
        Self::Info,
        Self::Disconnect,
        Self::SessionExpired,
        Self::Stop,
        Self::Connected,
        Self::Deliver,
        Self::Dropped,
        Self::Acknowledged,
        Self::Expired,
        Self::Retained,
        Self::Event,
        Self::Config,
        Self::Health,
        Self::Swapped,
        Self::ExportState,
        Self::ImportState,
        Self::ExportPlugin,
        Self::ImportPlugin,
    ];

    /// The name of the method.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "handle_connect",
            Self::Auth => "handle_auth",
            Self::Publish => "handle_publish",
            Self::Subscribe => "handle_subscribe",
            Self::Unsubscribe => "handle_unsubscribe",
            Self::Puback => "handle_puback",
            Self::Info => "handle_info",
            Self::Disconnect => "handle_disconnect",
            Self::SessionExpired => "handle_session_expired",
            Self::Stop => "stop",
            Self::Connected => "handle_connected",
            Self::Deliver => "handle_deliver",
            Self::Dropped => "handle_message_dropped",
            Self::Acknowledged => "handle_message_acknowledged",
            Self::Expired => "handle_message_expired",
            Self::Retained => "handle_retained",
            Self::Event => "handle_event",
            Self::Config => "handle_config",
            Self::Health => "health",
            Self::Swapped => "handle_swapped",
            Self::ExportState => "export_state",
            Self::ImportState => "import_state",
            Self::ExportPlugin => "export_plugin_state",
            Self::ImportPlugin => "import_plugin_state",
        }
    }
}

/// A set of [`Callback`]s.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Callbacks(u64);

impl Callbacks {
    /// No callback.
    pub const NONE: Self = Self(0);

    /// The set with one more.
    #[must_use]
    pub const fn with(self, callback: Callback) -> Self {
        Self(self.0 | 1 << callback as u8)
    }

    /// Those that are in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a callback is in the set.
    #[must_use]
    #[inline]
    pub const fn contains(self, callback: Callback) -> bool {
        self.0 & 1 << callback as u8 != 0
    }

    /// The set as it crosses the boundary: one bit for each.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The set from its bits. Bits of a later version are kept, and are not iterated over.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Those that are in the set.
    pub fn iter(self) -> impl Iterator<Item = Callback> {
        Callback::ALL.into_iter().filter(move |callback| self.contains(*callback))
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Callback::name)).finish()
    }
}
