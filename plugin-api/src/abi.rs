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
//!   null, or points to a prefix type; older plugins never look at it. So far [`RawConnectionInfo`] and [`RawConnect`] have
//!   one, [`RawTransport`].
//! - Text from the host is an `RStr`. Text from a plugin is bytes, and the host checks it.
//! - No function may unwind: the plugin's shims catch panics and answer [`Verdict::PANICKED`].
#![allow(unsafe_code)] // Foreign functions are called here, behind safe methods.

mod host;
mod plugin;
mod reply;
mod transport;
mod views;

use std::ffi::c_void;
use std::marker::PhantomData;

use abi_stable::StableAbi;
use abi_stable::std_types::RSlice;

pub use self::host::{HostVt, HostVtRef, RawHost, RawMetric};
pub use self::plugin::{FLAG_SWAP_DISCONNECTS, FLAG_UNWINDS, PluginVt, PluginVtRef};
pub use self::reply::{Piece, ask, gather};
pub use self::transport::{RawAlternativeName, RawCertificate, RawHeader, RawHttp, RawTls, RawTransport, RawUnixPeer};
pub use self::views::{
    RawAck, RawAuth, RawConnect, RawConnected, RawConnectionInfo, RawDeliver, RawDisconnect, RawField, RawInfo,
    RawInfoRequest, RawMessage, RawMessageNotice, RawPeer, RawPublish, RawQuery, RawRetained, RawState, RawSubscribe,
    RawSubscribeRequest, RawSubscription, RawSwapped, RawTarget, RawUnsubscribe,
};

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
    /// Do not deliver the message to this client (deliver).
    pub const DROP: Self = Self(7);
    /// The answer comes later, through the ticket that was taken in this call (connect, auth, publish, subscribe,
    /// unsubscribe, info).
    pub const DEFERRED: Self = Self(8);
    /// The state is still with an asynchronous callback that was cancelled; it cannot be entered.
    pub const AWAY: Self = Self(252);
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
    /// Number and bytes: a schema version and a state that was exported in it.
    pub const STATE: Self = Self(13);
    /// Number: the token of a message, which comes back in `handle_puback`.
    pub const TOKEN: Self = Self(14);
    /// Number: begins a row of an answer of the host's, of the kind that was asked for; the pieces up to the next one
    /// belong to it.
    pub const ROW: Self = Self(15);
    /// Number: a connection.
    pub const CONNECTION: Self = Self(16);
    /// Bytes: a Topic Filter as the client wrote it.
    pub const FILTER: Self = Self(17);
    /// Number: flags, as the row's documentation says.
    pub const FLAGS: Self = Self(18);
    /// Bytes: address and port of a peer, as text.
    pub const PEER: Self = Self(19);
    /// Bytes: the name of a listener.
    pub const LISTENER: Self = Self(20);
    /// Number: the protocol version, 3, 4 or 5.
    pub const PROTOCOL_VERSION: Self = Self(21);
    /// Number: a Subscription Identifier.
    pub const IDENTIFIER: Self = Self(22);
    /// Number: Topic Filters that a session has subscribed to.
    pub const SUBSCRIPTIONS: Self = Self(23);
    /// Number: messages that wait in a session's queue.
    pub const QUEUED: Self = Self(24);
    /// Number: messages that were sent and not acknowledged completely.
    pub const IN_FLIGHT: Self = Self(25);
    /// Number: milliseconds from now.
    pub const MILLISECONDS: Self = Self(26);
    /// Number and bytes: where the next page begins; absent on the last one.
    pub const CURSOR: Self = Self(27);
    /// Bytes: the key of a value.
    pub const KEY: Self = Self(28);
    /// Bytes: a value.
    pub const VALUE: Self = Self(29);
    /// Bytes: the ShareName of a Shared Subscription.
    pub const SHARE_NAME: Self = Self(30);
    /// Number: how many there are of what was counted.
    pub const COUNT: Self = Self(31);
}

/// A piece of an answer that is handed over as a whole: by [`HostVt::complete`], and to a [`Reply`].
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawPiece<'a> {
    /// Its bytes, if the key has some.
    pub bytes: RSlice<'a, u8>,
    /// Its number, if the key has one.
    pub number: u64,
    /// What it is.
    pub key: AnswerKey,
}

/// Where the host's answer to a request goes. A request that was taken ([`Status::OK`]) is answered exactly once, on any
/// thread, even if the server stops; one that was not is not answered at all. It must not unwind, and must not block.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Reply {
    /// The first argument of `done`.
    pub context: Opaque,
    /// Context, how it ended, and the answer.
    pub done: unsafe extern "C" fn(Opaque, Status, RSlice<'_, RawPiece<'_>>),
    /// [`Reply::WAITS`], or nothing.
    pub flags: u64,
}

impl Reply {
    /// The thread that asks will wait for the answer. Where it would wait for itself, as it is inside a callback, the
    /// request is refused with [`Status::NOT_HERE`].
    pub const WAITS: u64 = 1;
}

// SAFETY: whoever makes one promises that `done` may be called with the context on any thread.
unsafe impl Send for Reply {}

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
    /// There is no such client, connection, ticket, timer, key or subscription (any more).
    pub const NOT_FOUND: Self = Self(5);
    /// The ticket was there, and does not wait any more: its deadline has passed, or its connection has ended.
    pub const GONE: Self = Self(6);
    /// This cannot be asked for here: a ticket outside of a callback that may answer later, for example.
    pub const NOT_HERE: Self = Self(7);
    /// This host does not have the service.
    pub const NOT_SUPPORTED: Self = Self(8);
}
