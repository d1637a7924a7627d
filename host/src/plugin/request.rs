//! What the core asks, and how it looks to a plugin.

use std::net::SocketAddr;

use abi_stable::std_types::{RSlice, RStr};
use plugin_api::abi::{
    RawAuth, RawConnect, RawConnectionInfo, RawDisconnect, RawInfo, RawPublish, RawSubscription, RawSwapped,
};
use plugin_api::{AuthStep, DisconnectKind, InfoSender, QoS, ReasonCode};

use super::outcome::OwnedMessage;
use super::transport::Transport;
use crate::codec::SubscribeOptions;

/// No extension: see `plugin_api::abi`.
pub(super) const NO_EXTENSION: *const std::ffi::c_void = std::ptr::null();

/// A Network Connection that has just been accepted.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionInfo<'a> {
    /// Its number, unique while the server runs.
    pub connection: u64,
    /// Who connected.
    pub peer: SocketAddr,
    /// Name of the listener.
    pub listener: &'a str,
    /// What else is known of the peer; see [`show`](super::show).
    pub transport: Transport<'a>,
}

impl ConnectionInfo<'_> {
    pub(super) fn raw(&self) -> RawConnectionInfo<'_> {
        RawConnectionInfo {
            listener: self.listener.into(),
            connection: self.connection,
            peer: self.peer.into(),
            extension: self.transport.extension(),
        }
    }
}

/// A connection that goes over to another instance of a plugin.
#[derive(Debug, Clone, Copy)]
pub struct SwapRequest<'a> {
    /// As when it was accepted.
    pub info: ConnectionInfo<'a>,
    /// Client Identifier.
    pub client_id: &'a str,
    /// Keep Alive in force, in seconds; 0 for none.
    pub keep_alive: u16,
    /// 3, 4 or 5.
    pub version: u8,
}

impl SwapRequest<'_> {
    pub(super) fn raw<'r>(&'r self, from_version: &'r str, is_rollback: bool) -> RawSwapped<'r> {
        RawSwapped {
            info: self.info.raw(),
            client_id: self.client_id.into(),
            from_version: from_version.into(),
            keep_alive: self.keep_alive,
            protocol_version: self.version,
            flags: bits(&[(is_rollback, RawSwapped::ROLLBACK)]),
            extension: NO_EXTENSION,
        }
    }
}

/// A CONNECT packet.
#[derive(Debug, Clone, Copy)]
pub struct ConnectRequest<'a> {
    /// Number of the connection.
    pub connection: u64,
    /// Client Identifier: the one in the packet, or the one that the server chose.
    pub client_id: &'a str,
    /// Whether the server chose it.
    pub assigned: bool,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// 3, 4 or 5.
    pub version: u8,
    /// Keep Alive in seconds.
    pub keep_alive: u16,
    /// Clean Start.
    pub clean_start: bool,
    /// Who connected.
    pub peer: SocketAddr,
    /// Name of the listener.
    pub listener: &'a str,
    /// What else is known of the peer; see [`show`](super::show).
    pub transport: Transport<'a>,
    /// Will Message.
    pub will: Option<WillRequest<'a>>,
    /// Encoded properties.
    pub properties: &'a [u8],
}

impl<'a> ConnectRequest<'a> {
    pub(super) fn raw<'r>(&'r self, client_id: &'r str, will: Option<&'r RawPublish<'r>>) -> RawConnect<'r>
    where
        'a: 'r,
    {
        let flags = [
            (self.username.is_some(), RawConnect::HAS_USERNAME),
            (self.password.is_some(), RawConnect::HAS_PASSWORD),
            (self.clean_start, RawConnect::CLEAN_START),
            (self.assigned, RawConnect::CLIENT_ID_ASSIGNED),
        ];
        RawConnect {
            client_id: client_id.into(),
            username: self.username.unwrap_or_default().into(),
            password: self.password.unwrap_or_default().into(),
            properties: self.properties.into(),
            will,
            listener: self.listener.into(),
            connection: self.connection,
            peer: self.peer.into(),
            keep_alive: self.keep_alive,
            protocol_version: self.version,
            flags: bits(&flags),
            extension: self.transport.extension(),
        }
    }
}

/// A Will Message in a CONNECT packet.
#[derive(Debug, Clone, Copy)]
pub struct WillRequest<'a> {
    /// Topic Name.
    pub topic: &'a str,
    /// Application payload.
    pub payload: &'a [u8],
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Encoded properties.
    pub properties: &'a [u8],
}

impl<'a> From<WillRequest<'a>> for PublishRequest<'a> {
    fn from(will: WillRequest<'a>) -> Self {
        let WillRequest { topic, payload, qos, retain, properties } = will;
        Self::new(PublishFields { topic, payload, properties, qos, retain, dup: false, packet_id: None, will: true })
    }
}

/// One step of an authentication exchange.
#[derive(Debug, Clone, Copy)]
pub struct AuthRequest<'a> {
    /// Authentication Method.
    pub method: &'a str,
    /// Authentication Data.
    pub data: Option<&'a [u8]>,
    /// Where in the exchange we are.
    pub step: AuthStep,
    /// Encoded properties of the packet.
    pub properties: &'a [u8],
    /// Whether the client has been let in already: a refusal is told with DISCONNECT then, not with CONNACK.
    pub connected: bool,
}

impl AuthRequest<'_> {
    pub(super) fn raw(&self) -> RawAuth<'_> {
        RawAuth {
            method: self.method.into(),
            data: self.data.unwrap_or_default().into(),
            properties: self.properties.into(),
            step: self.step as u8,
            flags: bits(&[(self.data.is_some(), RawAuth::HAS_DATA)]),
            extension: NO_EXTENSION,
        }
    }
}

/// A PUBLISH packet, or a Will Message: as plugins are shown it, so that it is put together once.
#[derive(Clone, Copy)]
pub struct PublishRequest<'a>(RawPublish<'a>);

/// What a [`PublishRequest`] is made of.
#[derive(Debug, Clone, Copy)]
pub struct PublishFields<'a> {
    /// Topic Name.
    pub topic: &'a str,
    /// Application payload.
    pub payload: &'a [u8],
    /// Encoded properties.
    pub properties: &'a [u8],
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// DUP.
    pub dup: bool,
    /// Packet Identifier.
    pub packet_id: Option<u16>,
    /// Whether it is a Will Message.
    pub will: bool,
}

impl<'a> PublishRequest<'a> {
    /// Puts it together.
    #[must_use]
    #[inline]
    pub const fn new(fields: PublishFields<'a>) -> Self {
        let PublishFields { topic, payload, properties, qos, retain, dup, packet_id, will } = fields;
        let (retain, dup) = (retain as u8 * RawPublish::RETAIN, dup as u8 * RawPublish::DUP);
        let flags = retain | dup | (will as u8 * RawPublish::WILL);
        Self(RawPublish {
            topic: RStr::from_str(topic),
            payload: RSlice::from_slice(payload),
            properties: RSlice::from_slice(properties),
            packet_id: match packet_id {
                Some(packet_id) => packet_id,
                None => 0,
            },
            qos: qos as u8,
            flags,
            extension: NO_EXTENSION,
        })
    }

    /// Its Topic Name.
    pub(super) fn topic(&self) -> &'a str {
        self.0.topic.as_str()
    }

    /// Copies what is published.
    pub(super) fn copy_to(&self, copy: &mut OwnedMessage) {
        let RawPublish { topic, payload, properties, qos, flags, .. } = self.0;
        topic.as_str().clone_into(&mut copy.topic);
        payload.as_slice().clone_into(&mut copy.payload);
        properties.as_slice().clone_into(&mut copy.properties);
        copy.qos = QoS::from_u8(qos).expect("it was made of one");
        (copy.retain, copy.token) = (flags & RawPublish::RETAIN != 0, 0);
    }

    #[inline]
    pub(super) fn raw(&self) -> &RawPublish<'a> {
        &self.0
    }

    /// The same for what plugins have made of the message. `again`: they are asked once more.
    pub(super) fn raw_changed(&self, changed: &'a OwnedMessage, again: bool) -> RawPublish<'a> {
        let retain = if changed.retain { RawPublish::RETAIN } else { 0 };
        let again = if again { RawPublish::AGAIN } else { 0 };
        RawPublish {
            topic: text(&changed.topic),
            payload: slice(&changed.payload),
            properties: slice(&changed.properties),
            qos: changed.qos as u8,
            flags: self.0.flags & !RawPublish::RETAIN | retain | again,
            ..self.0
        }
    }
}

impl std::fmt::Debug for PublishRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.0.payload.len();
        f.debug_struct("PublishRequest")
            .field("topic", &self.topic())
            .field("payload_bytes", &bytes)
            .finish_non_exhaustive()
    }
}

/// One entry of a SUBSCRIBE packet.
#[derive(Debug, Clone, Copy)]
pub struct SubscribeItem<'a> {
    /// Topic Filter, without `$share/{ShareName}/`.
    pub filter: &'a str,
    /// ShareName of a Shared Subscription.
    pub share_name: Option<&'a str>,
    /// Subscription Options.
    pub options: SubscribeOptions,
    /// The subscription is there already, and is asked about again.
    pub again: bool,
}

impl SubscribeItem<'_> {
    pub(super) fn raw(&self, reason_code: ReasonCode) -> RawSubscription<'_> {
        let flags = [
            (self.share_name.is_some(), RawSubscription::SHARED),
            (self.options.no_local, RawSubscription::NO_LOCAL),
            (self.options.retain_as_published, RawSubscription::RETAIN_AS_PUBLISHED),
            (self.again, RawSubscription::AGAIN),
        ];
        RawSubscription {
            filter: self.filter.into(),
            share_name: self.share_name.unwrap_or_default().into(),
            qos: self.options.qos as u8,
            retain_handling: self.options.retain_handling as u8,
            flags: bits(&flags),
            reason_code: reason_code.0,
            extension: NO_EXTENSION,
        }
    }
}

/// A message for `handle_info`.
#[derive(Debug, Clone, Copy)]
pub struct InfoRequest<'a> {
    /// What it is, in the plugin's own words.
    pub kind: &'a str,
    /// Its bytes.
    pub data: &'a [u8],
    /// Who sent it.
    pub sender: InfoSender,
    /// The timer that has brought it; 0 for none.
    pub timer: u64,
}

impl InfoRequest<'_> {
    pub(super) fn raw(&self) -> RawInfo<'_> {
        let (sender, connection) = match self.sender {
            InfoSender::Connection(id) => (1, id.0),
            InfoSender::Timer => (2, 0),
            _ => (0, 0),
        };
        RawInfo {
            kind: self.kind.into(),
            data: self.data.into(),
            connection,
            timer: self.timer,
            sender,
            extension: NO_EXTENSION,
        }
    }
}

/// Why a connection has ended.
#[derive(Debug, Clone, Copy)]
pub struct DisconnectReason<'a> {
    /// How it ended.
    pub kind: DisconnectKind,
    /// The Reason Code that was sent or received, or that describes the end best.
    pub reason_code: ReasonCode,
    /// What there is to say beyond that.
    pub text: &'a str,
}

impl DisconnectReason<'_> {
    pub(super) fn raw(&self) -> RawDisconnect<'_> {
        RawDisconnect {
            text: self.text.into(),
            kind: self.kind as u8,
            reason_code: self.reason_code.0,
            extension: NO_EXTENSION,
        }
    }
}

/// Encoded properties, or other bytes, as they cross.
pub(super) fn slice<T>(items: &[T]) -> RSlice<'_, T> {
    items.into()
}

/// Text as it crosses.
pub(super) fn text(text: &str) -> RStr<'_> {
    text.into()
}

#[inline]
fn bits(flags: &[(bool, u8)]) -> u8 {
    flags.iter().filter(|(set, _)| *set).fold(0, |bits, (_, bit)| bits | bit)
}
