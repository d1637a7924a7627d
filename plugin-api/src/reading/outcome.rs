//! What there is to do after a plugin was asked, or several. Everything in an outcome is checked: it can be acted on as it is.
//!
//! `L` is what whoever asks remembers of an answer that comes later.

use crate::{PropertiesBuf, QoS, ReasonCode};

/// At least one plugin could not answer. It has been logged why; the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed;

/// May a client connect?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectOutcome<L> {
    /// No plugin implements `handle_connect`.
    NoOpinion,
    /// All that do let it in.
    Accept(ConnackOverrides),
    /// One of them does not.
    Reject {
        /// An error.
        reason_code: ReasonCode,
        /// Properties of CONNACK.
        properties: PropertiesBuf,
    },
    /// See [`Failed`].
    Failed,
    /// A plugin answers later.
    Deferred(L),
}

/// What the plugins change of what the client asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnackOverrides {
    /// Another Client Identifier: not empty, at most 65,535 bytes, without U+0000.
    pub client_id: Option<String>,
    /// Another Keep Alive, in seconds.
    pub keep_alive: Option<u16>,
    /// Another Session Expiry Interval, in seconds.
    pub session_expiry: Option<u32>,
    /// Further properties of CONNACK: Reason String, User Properties, Response Information.
    pub properties: PropertiesBuf,
}

/// How a step of an authentication exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthOutcome<L> {
    /// The client is who it says.
    Ok {
        /// Authentication Data for its last packet.
        data: Option<Vec<u8>>,
    },
    /// The client has to answer.
    Continue {
        /// Authentication Data for it.
        data: Vec<u8>,
    },
    /// It is not.
    Reject {
        /// An error.
        reason_code: ReasonCode,
        /// Properties of CONNACK or DISCONNECT.
        properties: PropertiesBuf,
    },
    /// See [`Failed`].
    Failed,
    /// A plugin answers later.
    Deferred(L),
}

/// What becomes of a message?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishOutcome<L> {
    /// Deliver it.
    Forward,
    /// Deliver the [`ChangedMessage`] instead.
    Changed,
    /// Acknowledge it, and do not deliver it.
    Handled,
    /// Refuse it.
    Reject {
        /// An error.
        reason_code: ReasonCode,
        /// Properties of PUBACK or PUBREC.
        properties: PropertiesBuf,
    },
    /// End the connection.
    Disconnect {
        /// Success or an error.
        reason_code: ReasonCode,
        /// Properties of DISCONNECT.
        properties: PropertiesBuf,
    },
    /// See [`Failed`].
    Failed,
    /// A plugin answers later.
    Deferred(L),
}

/// May a client get a message?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliverOutcome {
    /// Send it.
    Send,
    /// Send the [`ChangedMessage`] instead.
    Changed,
    /// It does not get it.
    Drop,
    /// A plugin cannot say now: the state of the connection is with an answer that has not come.
    Later,
    /// See [`Failed`]. It does not get it.
    Failed,
}

/// A message from a plugin. Topic Name and properties are valid for PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedMessage {
    /// Topic Name.
    pub topic: String,
    /// Application payload.
    pub payload: Vec<u8>,
    /// Encoded properties, without Topic Alias and Subscription Identifier.
    pub properties: Vec<u8>,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// A number of the plugin's own, 0 for none. It counts for a message to one client only.
    pub token: u64,
}

/// What [`PublishOutcome::Changed`] and [`DeliverOutcome::Changed`] speak of: filled by the chain, kept by the caller, so that
/// its buffers are reused.
pub type ChangedMessage = OwnedMessage;

impl Default for OwnedMessage {
    fn default() -> Self {
        Self {
            topic: String::new(),
            payload: Vec::new(),
            properties: Vec::new(),
            qos: QoS::AtMostOnce,
            retain: false,
            token: 0,
        }
    }
}

/// How asking about SUBSCRIBE or UNSUBSCRIBE ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscribeOutcome<L> {
    /// The Reason Codes are decided.
    Done,
    /// End the connection.
    Disconnect {
        /// Success or an error.
        reason_code: ReasonCode,
        /// Properties of DISCONNECT.
        properties: PropertiesBuf,
    },
    /// See [`Failed`].
    Failed,
    /// A plugin answers later.
    Deferred(L),
}

/// How `handle_info` ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InfoOutcome<L> {
    /// What is to be done, in order.
    Actions(Vec<InfoAction>),
    /// See [`Failed`].
    Failed,
    /// A plugin answers later.
    Deferred(L),
}

/// One thing to be done to the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InfoAction {
    /// Send this message to the client.
    Publish(OwnedMessage),
    /// End the connection.
    Disconnect {
        /// Success or an error.
        reason_code: ReasonCode,
        /// Properties of DISCONNECT.
        properties: PropertiesBuf,
    },
    /// Close the connection without DISCONNECT.
    Stop {
        /// Why; for `handle_disconnect`.
        reason: String,
    },
}
