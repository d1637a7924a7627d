//! What crosses the boundary between the host and a plugin: a table of functions on each side, borrowed views, numbers.
//!
//! Authors of handlers never need this module; it is public for the host. It is the only module that uses `abi_stable`,
//! together with what [`export!`](crate::export!) needs of it.
//!
//! Rules, which every type here follows:
//! - **Nothing allocated on one side is freed on the other.** Views borrow for the length of one call, state is an opaque
//!   pointer, and an answer with contents is written, piece by piece, into the host's [`Sink`].
//! - **Enumerations are open**: a transparent `u8` whose unknown values stay representable. The host refuses what it
//!   cannot read.
//! - **Tables are prefix types**, which later versions extend at the end. Views are closed structs that end in an
//!   `extension` pointer: filling a prefix type for each call took 4.7 ns where a closed struct takes 2.8. The pointer is
//!   null in 1.x so far; a later version may let it point to a prefix type, and older plugins never look at it.
//! - Text from the host is an `RStr`. Text from a plugin is bytes, and the host checks it.
//! - No function may unwind: the plugin's shims catch panics and answer [`Verdict::PANICKED`].
#![allow(unsafe_code)] // Foreign functions are called here, behind safe methods.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RSlice, RStr};

/// A pointer that only its owner looks behind: a plugin's instance, a connection's state, the host's context.
pub type Opaque = *mut c_void;

/// How a callback ended; the contents of the answer, if it has any, are in the [`Sink`].
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict(pub u8);

impl Verdict {
    /// Go on: accepted, authenticated, forwarded unchanged, granted as asked, or simply done.
    pub const OK: Self = Self(0);
    /// Forward the message in the sink instead (publish).
    pub const CHANGED: Self = Self(1);
    /// Acknowledge and do not route (publish).
    pub const HANDLED: Self = Self(2);
    /// Refuse with the Reason Code and properties in the sink (connect, auth, publish).
    pub const REJECT: Self = Self(3);
    /// Disconnect with the Reason Code and properties in the sink (publish, subscribe, unsubscribe).
    pub const DISCONNECT: Self = Self(4);
    /// Continue the exchange with the data in the sink (auth).
    pub const CONTINUE: Self = Self(5);
    /// One Reason Code per Topic Filter is in the sink (subscribe, unsubscribe).
    pub const CODES: Self = Self(6);
    /// The state panicked in an earlier call and is not entered again.
    pub const POISONED: Self = Self(253);
    /// The callback returned an error; its text is in the sink.
    pub const ERROR: Self = Self(254);
    /// The callback panicked; where no panic hook of ours runs, the text is in the sink.
    pub const PANICKED: Self = Self(255);
}

/// What a piece of an answer is; see [`Sink`].
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnswerKey(pub u8);

impl AnswerKey {
    /// Bytes: UTF-8 text of an error or a panic, or why a connection is stopped.
    pub const TEXT: Self = Self(0);
    /// Number: a Reason Code.
    pub const REASON_CODE: Self = Self(1);
    /// Bytes: an encoded property list without its length.
    pub const PROPERTIES: Self = Self(2);
    /// Bytes: a Client Identifier.
    pub const CLIENT_ID: Self = Self(3);
    /// Number: a Keep Alive in seconds.
    pub const KEEP_ALIVE: Self = Self(4);
    /// Number: a Session Expiry Interval in seconds.
    pub const SESSION_EXPIRY: Self = Self(5);
    /// Bytes: Authentication Data.
    pub const AUTH_DATA: Self = Self(6);
    /// Bytes: one Reason Code per Topic Filter.
    pub const CODES: Self = Self(7);
    /// Bytes: a Topic Name.
    pub const TOPIC: Self = Self(8);
    /// Bytes: an application payload.
    pub const PAYLOAD: Self = Self(9);
    /// Number: a QoS.
    pub const QOS: Self = Self(10);
    /// Number: RETAIN, 0 or 1.
    pub const RETAIN: Self = Self(11);
    /// Number: begins an action of `handle_info`, of the kind [`ACTION_PUBLISH`], [`ACTION_DISCONNECT`] or
    /// [`ACTION_STOP`]; the pieces up to the next one belong to it.
    pub const ACTION: Self = Self(12);
}

/// An action of `handle_info`: publish the message that follows to this client.
pub const ACTION_PUBLISH: u64 = 1;
/// An action of `handle_info`: disconnect with the Reason Code and properties that follow.
pub const ACTION_DISCONNECT: u64 = 2;
/// An action of `handle_info`: close without DISCONNECT; the text that follows says why.
pub const ACTION_STOP: u64 = 3;

/// The host's buffer for one answer: the plugin writes pieces into it, the host owns and reads them.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Sink<'a> {
    context: Opaque,
    put: unsafe extern "C" fn(Opaque, AnswerKey, u64, RSlice<'_, u8>),
    _call: PhantomData<&'a ()>,
}

impl<'a> Sink<'a> {
    /// A sink whose pieces go to `put`.
    ///
    /// # Safety
    /// `put` may be called with `context` any number of times while `'a` lasts, on the thread that made the sink.
    #[must_use]
    pub const unsafe fn new(
        context: Opaque,
        put: unsafe extern "C" fn(Opaque, AnswerKey, u64, RSlice<'_, u8>),
    ) -> Self {
        Self { context, put, _call: PhantomData }
    }

    /// Writes one piece. A key uses the number or the bytes, as its documentation says.
    pub fn put(self, key: AnswerKey, number: u64, bytes: &[u8]) {
        // SAFETY: whoever made the sink promised this for as long as the value can exist.
        unsafe { (self.put)(self.context, key, number, bytes.into()) }
    }
}

/// The address of a peer, without padding or text.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawPeer {
    /// The address: 4 or 16 bytes of it, the rest zero.
    pub ip: [u8; 16],
    /// Scope of an IPv6 address, otherwise 0.
    pub scope_id: u32,
    /// TCP port.
    pub port: u16,
    /// 4 or 6.
    pub family: u8,
}

impl From<SocketAddr> for RawPeer {
    fn from(address: SocketAddr) -> Self {
        let mut peer = Self { ip: [0; 16], scope_id: 0, port: address.port(), family: 4 };
        match address {
            SocketAddr::V4(v4) => peer.ip[..4].copy_from_slice(&v4.ip().octets()),
            SocketAddr::V6(v6) => {
                peer.ip = v6.ip().octets();
                peer.scope_id = v6.scope_id();
                peer.family = 6;
            }
        }
        peer
    }
}

impl From<RawPeer> for SocketAddr {
    fn from(peer: RawPeer) -> Self {
        let [a, b, c, d, ..] = peer.ip;
        if peer.family == 6 {
            SocketAddrV6::new(Ipv6Addr::from(peer.ip), peer.port, 0, peer.scope_id).into()
        } else {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), peer.port)
        }
    }
}

/// A Network Connection that has just been accepted.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawConnectionInfo<'a> {
    /// Name of the listener that accepted it.
    pub listener: RStr<'a>,
    /// Number of the connection, unique while the server runs.
    pub connection: u64,
    /// Who connected.
    pub peer: RawPeer,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

/// A CONNECT packet.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawConnect<'a> {
    /// Client Identifier.
    pub client_id: RStr<'a>,
    /// User Name, if [`RawConnect::HAS_USERNAME`].
    pub username: RStr<'a>,
    /// Password, if [`RawConnect::HAS_PASSWORD`].
    pub password: RSlice<'a, u8>,
    /// Encoded properties.
    pub properties: RSlice<'a, u8>,
    /// Will Message.
    pub will: Option<&'a RawPublish<'a>>,
    /// Name of the listener.
    pub listener: RStr<'a>,
    /// Number of the connection.
    pub connection: u64,
    /// Who connected.
    pub peer: RawPeer,
    /// Keep Alive in seconds.
    pub keep_alive: u16,
    /// 3, 4 or 5.
    pub protocol_version: u8,
    /// The bits below.
    pub flags: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

impl RawConnect<'_> {
    /// There is a User Name (it may be empty).
    pub const HAS_USERNAME: u8 = 1;
    /// There is a Password (it may be empty).
    pub const HAS_PASSWORD: u8 = 2;
    /// Clean Start.
    pub const CLEAN_START: u8 = 4;
    /// The server chose the Client Identifier.
    pub const CLIENT_ID_ASSIGNED: u8 = 8;
}

/// One step of an authentication exchange.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawAuth<'a> {
    /// Authentication Method.
    pub method: RStr<'a>,
    /// Authentication Data, if [`RawAuth::HAS_DATA`].
    pub data: RSlice<'a, u8>,
    /// Encoded properties of the packet.
    pub properties: RSlice<'a, u8>,
    /// 0 start (CONNECT), 1 continue, 2 start of a re-authentication.
    pub step: u8,
    /// The bit below.
    pub flags: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

impl RawAuth<'_> {
    /// There is Authentication Data (it may be empty).
    pub const HAS_DATA: u8 = 1;
}

/// A PUBLISH packet, or a Will Message.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawPublish<'a> {
    /// Topic Name.
    pub topic: RStr<'a>,
    /// Application payload.
    pub payload: RSlice<'a, u8>,
    /// Encoded properties.
    pub properties: RSlice<'a, u8>,
    /// Packet Identifier, 0 for none.
    pub packet_id: u16,
    /// QoS.
    pub qos: u8,
    /// The bits below.
    pub flags: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

impl RawPublish<'_> {
    /// RETAIN.
    pub const RETAIN: u8 = 1;
    /// DUP.
    pub const DUP: u8 = 2;
    /// A Will Message.
    pub const WILL: u8 = 4;
    /// Asked once more, because a later plugin changed the topic.
    pub const AGAIN: u8 = 8;
}

/// One entry of a SUBSCRIBE packet.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawSubscription<'a> {
    /// Topic Filter, without `$share/<name>/`.
    pub filter: RStr<'a>,
    /// ShareName, if [`RawSubscription::SHARED`].
    pub share_name: RStr<'a>,
    /// Requested QoS.
    pub qos: u8,
    /// Retain Handling.
    pub retain_handling: u8,
    /// The bits below.
    pub flags: u8,
    /// The Reason Code as it stands before this plugin has answered.
    pub reason_code: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

impl RawSubscription<'_> {
    /// A Shared Subscription.
    pub const SHARED: u8 = 1;
    /// No Local.
    pub const NO_LOCAL: u8 = 2;
    /// Retain As Published.
    pub const RETAIN_AS_PUBLISHED: u8 = 4;
}

/// A SUBSCRIBE packet.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawSubscribe<'a> {
    /// Its entries, in order.
    pub subscriptions: RSlice<'a, RawSubscription<'a>>,
    /// Encoded properties.
    pub properties: RSlice<'a, u8>,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

/// An UNSUBSCRIBE packet.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawUnsubscribe<'a> {
    /// Its Topic Filters as sent, in order.
    pub filters: RSlice<'a, RStr<'a>>,
    /// Encoded properties.
    pub properties: RSlice<'a, u8>,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

/// An acknowledgement from the client.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawAck {
    /// Packet Identifier.
    pub packet_id: u16,
    /// 0 PUBACK, 1 PUBREC (with an error), 2 PUBCOMP.
    pub kind: u8,
    /// Reason Code.
    pub reason_code: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

/// A message for `handle_info`.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawInfo<'a> {
    /// What it is, in the plugin's own words.
    pub kind: RStr<'a>,
    /// Its bytes.
    pub data: RSlice<'a, u8>,
    /// The connection that sent it, if `sender` is 1.
    pub connection: u64,
    /// 0 the plugin, 1 a connection, 2 a timer.
    pub sender: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

/// Why a connection ended.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawDisconnect<'a> {
    /// What there is to say beyond the numbers; may be empty.
    pub text: RStr<'a>,
    /// The number of a [`DisconnectKind`](crate::DisconnectKind).
    pub kind: u8,
    /// Reason Code of the DISCONNECT packet, or the one that describes the end best.
    pub reason_code: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

/// An Application Message from a plugin. The host checks all of it.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawMessage<'a> {
    /// Topic Name.
    pub topic: RSlice<'a, u8>,
    /// Application payload.
    pub payload: RSlice<'a, u8>,
    /// Encoded properties.
    pub properties: RSlice<'a, u8>,
    /// QoS.
    pub qos: u8,
    /// [`RawPublish::RETAIN`].
    pub flags: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

/// How a host service ended.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status(pub u8);

impl Status {
    /// The request is queued.
    pub const OK: Self = Self(0);
    /// Something in the request is not valid: a topic, a property, a Reason Code.
    pub const INVALID: Self = Self(1);
    /// The request is larger than the host takes.
    pub const TOO_LARGE: Self = Self(2);
    /// A queue is full; the request is dropped, at least by the worker whose queue it is.
    pub const FULL: Self = Self(3);
    /// The server does not run: not yet, not any more, or the plugin is only being checked.
    pub const NOT_RUNNING: Self = Self(4);
}

/// What the host does for a plugin. Every function may be called on any thread.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostVtRef, prefix_fields = HostVtPrefix)))]
#[sabi(missing_field(option))]
pub struct HostVt {
    /// Whether a line of this level (1 error … 5 trace) would be written.
    pub log_enabled: unsafe extern "C" fn(Opaque, u8) -> bool,
    /// Writes a line: level, target (empty: the plugin), text.
    pub log: unsafe extern "C" fn(Opaque, u8, RSlice<'_, u8>, RSlice<'_, u8>),
    /// Reports a panic on the calling thread, from the plugin's panic hook: text, location, name of the thread (empty: it
    /// has none; only the copy of `std` that started a thread knows its name).
    pub panicked: unsafe extern "C" fn(Opaque, RSlice<'_, u8>, RSlice<'_, u8>, RSlice<'_, u8>),
    /// Publishes a message.
    pub publish: unsafe extern "C" fn(Opaque, &RawMessage<'_>) -> Status,
    /// Sends a message to `handle_info`: kind of target (0 connection, 1 client, 2 all), connection, client id, kind,
    /// data, delay in milliseconds.
    pub send_info: unsafe extern "C" fn(Opaque, u8, u64, RSlice<'_, u8>, RSlice<'_, u8>, RSlice<'_, u8>, u64) -> Status,
    /// Disconnects a Network Connection: its number, Reason Code, encoded properties.
    #[sabi(last_prefix_field)]
    pub disconnect: unsafe extern "C" fn(Opaque, u64, u8, RSlice<'_, u8>) -> Status,
}

/// The host's services together with the context they need.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawHost {
    context: Opaque,
    services: HostVtRef,
}

// SAFETY: `RawHost::new` demands that the functions may be called with the context on any thread, at any time.
unsafe impl Send for RawHost {}
// SAFETY: as above.
unsafe impl Sync for RawHost {}

impl RawHost {
    /// # Safety
    /// `context` must be what the functions of `services` expect, and both must stay valid, on every thread, until the
    /// process ends: a plugin's thread may outlive its instance.
    #[must_use]
    pub const unsafe fn new(context: Opaque, services: HostVtRef) -> Self {
        Self { context, services }
    }

    pub(crate) fn log_enabled(self, level: u8) -> bool {
        // SAFETY: promised by whoever called `new`; the same holds for the functions below.
        unsafe { (self.services.log_enabled())(self.context, level) }
    }

    pub(crate) fn log(self, level: u8, target: &str, text: &str) {
        // SAFETY: see `log_enabled`.
        unsafe {
            (self.services.log())(self.context, level, target.as_bytes().into(), text.as_bytes().into());
        }
    }

    pub(crate) fn panicked(self, text: &str, location: &str, thread: &str) {
        // SAFETY: see `log_enabled`.
        unsafe {
            let panicked = self.services.panicked();
            panicked(self.context, text.as_bytes().into(), location.as_bytes().into(), thread.as_bytes().into());
        }
    }

    pub(crate) fn publish(self, message: &RawMessage<'_>) -> Status {
        // SAFETY: see `log_enabled`.
        unsafe { (self.services.publish())(self.context, message) }
    }

    pub(crate) fn send_info(
        self,
        (target, connection, client_id): (u8, u64, &str),
        kind: &str,
        data: &[u8],
        delay_ms: u64,
    ) -> Status {
        let (client_id, kind) = (client_id.as_bytes().into(), kind.as_bytes().into());
        // SAFETY: see `log_enabled`.
        unsafe {
            let send = self.services.send_info();
            send(self.context, target, connection, client_id, kind, data.into(), delay_ms)
        }
    }

    pub(crate) fn disconnect(self, connection: u64, reason_code: u8, properties: &[u8]) -> Status {
        // SAFETY: see `log_enabled`.
        unsafe { (self.services.disconnect())(self.context, connection, reason_code, properties.into()) }
    }
}

/// A plugin. Functions that take a connection's state are called by one thread at a time for each state; all others may
/// be called by several threads at once. An instance outlives the states that it made.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginVtRef, prefix_fields = PluginVtPrefix)))]
#[sabi(missing_field(option))]
pub struct PluginVt {
    /// Name by which logs and commands address it.
    pub name: RStr<'static>,
    /// The plugin's own version.
    pub version: RStr<'static>,
    /// [`FLAG_UNWINDS`].
    pub flags: u64,
    /// The callbacks it implements: one bit for each [`Callback`](crate::Callback).
    pub callbacks: u64,
    /// Makes an instance from the host's services and a JSON text. Null: refused, the text in the sink says why; its
    /// piece carries the number of [`Verdict::ERROR`] or [`Verdict::PANICKED`].
    pub instance_new: unsafe extern "C" fn(RawHost, RStr<'_>, Sink<'_>) -> Opaque,
    /// Tells an instance, once, that it is about to be dropped.
    pub instance_stop: unsafe extern "C" fn(Opaque, Sink<'_>) -> Verdict,
    /// Drops an instance.
    pub instance_drop: unsafe extern "C" fn(Opaque, Sink<'_>) -> Verdict,
    /// Makes the state of a connection. Null: it panicked.
    pub connection_new: unsafe extern "C" fn(Opaque, &RawConnectionInfo<'_>, Sink<'_>) -> Opaque,
    /// Drops the state of a connection.
    pub connection_drop: unsafe extern "C" fn(Opaque, Sink<'_>) -> Verdict,
    /// `handle_connect`: instance, state, view, sink; the same order in all that follow.
    pub connect: unsafe extern "C" fn(Opaque, Opaque, &RawConnect<'_>, Sink<'_>) -> Verdict,
    /// `handle_auth`.
    pub auth: unsafe extern "C" fn(Opaque, Opaque, &RawAuth<'_>, Sink<'_>) -> Verdict,
    /// `handle_publish`.
    pub publish: unsafe extern "C" fn(Opaque, Opaque, &RawPublish<'_>, Sink<'_>) -> Verdict,
    /// `handle_subscribe`.
    pub subscribe: unsafe extern "C" fn(Opaque, Opaque, &RawSubscribe<'_>, Sink<'_>) -> Verdict,
    /// `handle_unsubscribe`.
    pub unsubscribe: unsafe extern "C" fn(Opaque, Opaque, &RawUnsubscribe<'_>, Sink<'_>) -> Verdict,
    /// `handle_puback`.
    pub puback: unsafe extern "C" fn(Opaque, Opaque, &RawAck, Sink<'_>) -> Verdict,
    /// `handle_info`.
    pub info: unsafe extern "C" fn(Opaque, Opaque, &RawInfo<'_>, Sink<'_>) -> Verdict,
    /// `handle_disconnect`.
    pub disconnect: unsafe extern "C" fn(Opaque, Opaque, &RawDisconnect<'_>, Sink<'_>) -> Verdict,
    /// `handle_session_expired`: instance, Client Identifier, sink.
    #[sabi(last_prefix_field)]
    pub session_expired: unsafe extern "C" fn(Opaque, RStr<'_>, Sink<'_>) -> Verdict,
}

/// The library was built so that a panic unwinds, and can be caught.
pub const FLAG_UNWINDS: u64 = 1;

impl RootModule for PluginVtRef {
    abi_stable::declare_root_module_statics! {PluginVtRef}
    const BASE_NAME: &'static str = "mqtt_handler";
    const NAME: &'static str = "mqtt_handler";
    const VERSION_STRINGS: VersionStrings = abi_stable::package_version_strings!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_survives_the_crossing() {
        for text in ["192.0.2.7:1883", "[2001:db8::1]:8883", "[fe80::1%3]:1"] {
            let address: SocketAddr = text.parse().expect(text);
            assert_eq!(SocketAddr::from(RawPeer::from(address)), address);
        }
    }
}
