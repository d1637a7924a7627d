//! What is shown for the length of one call: closed structs that borrow.

use std::ffi::c_void;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use abi_stable::StableAbi;
use abi_stable::std_types::{RSlice, RStr};

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
    /// Null, or a [`RawTransport`](super::RawTransport).
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
    /// Null, or a [`RawTransport`](super::RawTransport).
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
    /// The number of an [`AuthStep`](crate::AuthStep).
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
    /// Asked once more: a later plugin changed the topic, or a Will Message has waited.
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
    /// The subscription is there already, and is asked about again.
    pub const AGAIN: u8 = 8;
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
    /// The number of an [`AckKind`](crate::AckKind).
    pub kind: u8,
    /// Reason Code.
    pub reason_code: u8,
    /// The token that the message was sent with, 0 for none.
    pub token: u64,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

/// A message for `handle_info` or `handle_event`.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawInfo<'a> {
    /// What it is, in the plugin's own words.
    pub kind: RStr<'a>,
    /// Its bytes.
    pub data: RSlice<'a, u8>,
    /// The connection that sent it, if `sender` is [`RawInfo::SENDER_CONNECTION`].
    pub connection: u64,
    /// The timer, if `sender` is [`RawInfo::SENDER_TIMER`].
    pub timer: u64,
    /// Who sent it: one of `SENDER_…` below.
    pub sender: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

impl RawInfo<'_> {
    /// `sender`: the plugin, outside of a connection's callback.
    pub const SENDER_PLUGIN: u8 = 0;
    /// `sender`: a connection's callback.
    pub const SENDER_CONNECTION: u8 = 1;
    /// `sender`: a timer.
    pub const SENDER_TIMER: u8 = 2;
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
    /// A number that comes back in `handle_puback`, 0 for none.
    pub token: u64,
    /// QoS.
    pub qos: u8,
    /// [`RawPublish::RETAIN`].
    pub flags: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

/// A client that has got its CONNACK.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawConnected<'a> {
    /// Client Identifier.
    pub client_id: RStr<'a>,
    /// Number of the connection.
    pub connection: u64,
    /// Session Expiry Interval in force, in seconds.
    pub session_expiry: u32,
    /// Keep Alive in force, in seconds.
    pub keep_alive: u16,
    /// The bits below.
    pub flags: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

impl RawConnected<'_> {
    /// The session was there already, and is resumed.
    pub const SESSION_PRESENT: u8 = 1;
    /// Another connection of this client was ended for it.
    pub const TOOK_OVER: u8 = 2;
}

/// A message on its way to one client.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawDeliver<'a> {
    /// Topic Name.
    pub topic: RStr<'a>,
    /// Application payload.
    pub payload: RSlice<'a, u8>,
    /// Encoded properties, without Subscription Identifiers and Topic Alias.
    pub properties: RSlice<'a, u8>,
    /// Client Identifier of the receiver.
    pub client_id: RStr<'a>,
    /// Name of the plugin that published it, if `origin` is [`RawDeliver::ORIGIN_PLUGIN`].
    pub plugin: RStr<'a>,
    /// Subscription Identifiers of the subscriptions that it matches.
    pub identifiers: RSlice<'a, u32>,
    /// The token that it was sent with, 0 for none.
    pub token: u64,
    /// QoS of this delivery.
    pub qos: u8,
    /// The bits below.
    pub flags: u8,
    /// Who published it: one of `ORIGIN_…` below.
    pub origin: u8,
    /// Why it is delivered now: one of `CAUSE_…` below.
    pub cause: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

impl RawDeliver<'_> {
    /// RETAIN of the packet.
    pub const RETAIN: u8 = 1;
    /// By a Shared Subscription.
    pub const SHARED: u8 = 2;
    /// `origin`: a client published it.
    pub const ORIGIN_CLIENT: u8 = 0;
    /// `origin`: a plugin.
    pub const ORIGIN_PLUGIN: u8 = 1;
    /// `origin`: a Will Message.
    pub const ORIGIN_WILL: u8 = 2;
    /// `origin`: the server.
    pub const ORIGIN_SERVER: u8 = 3;
    /// `cause`: it has just been published.
    pub const CAUSE_PUBLISHED: u8 = 0;
    /// `cause`: it was retained.
    pub const CAUSE_RETAINED: u8 = 1;
    /// `cause`: it waited in the session's queue.
    pub const CAUSE_QUEUED: u8 = 2;
    /// `cause`: it was sent to this client.
    pub const CAUSE_SENT: u8 = 3;
}

/// What has become of a message that was meant for one client.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawMessageNotice<'a> {
    /// Client Identifier of the receiver.
    pub client_id: RStr<'a>,
    /// Topic Name.
    pub topic: RStr<'a>,
    /// Application payload.
    pub payload: RSlice<'a, u8>,
    /// Encoded properties.
    pub properties: RSlice<'a, u8>,
    /// The token that it was sent with, 0 for none.
    pub token: u64,
    /// Packet Identifier, 0 for none.
    pub packet_id: u16,
    /// QoS of the delivery.
    pub qos: u8,
    /// [`RawDeliver::RETAIN`].
    pub flags: u8,
    /// The number of a [`DropReason`](crate::DropReason), if it was dropped.
    pub reason: u8,
    /// Reason Code of the acknowledgement, if it was acknowledged.
    pub reason_code: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

/// A retained message that was stored or removed.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawRetained<'a> {
    /// Topic Name.
    pub topic: RStr<'a>,
    /// Application payload; empty if a message without one removed it.
    pub payload: RSlice<'a, u8>,
    /// Encoded properties.
    pub properties: RSlice<'a, u8>,
    /// QoS.
    pub qos: u8,
    /// What has happened: one of the numbers below.
    pub change: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

impl RawRetained<'_> {
    /// `change`: it was stored.
    pub const SET: u8 = 0;
    /// `change`: it was removed by a message without payload.
    pub const CLEARED: u8 = 1;
    /// `change`: its Message Expiry Interval has passed.
    pub const EXPIRED: u8 = 2;
}

/// A state that was exported.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawState<'a> {
    /// Its bytes.
    pub bytes: RSlice<'a, u8>,
    /// Version of its schema, in the plugin's own counting.
    pub version: u32,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

/// A connection that goes over to another instance of a plugin.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawSwapped<'a> {
    /// The connection, as `connection_new` was shown it.
    pub info: RawConnectionInfo<'a>,
    /// Client Identifier.
    pub client_id: RStr<'a>,
    /// Version of the plugin that the connection comes from.
    pub from_version: RStr<'a>,
    /// Keep Alive in force, in seconds.
    pub keep_alive: u16,
    /// 3, 4 or 5; 0 before CONNECT.
    pub protocol_version: u8,
    /// The bits below.
    pub flags: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

impl RawSwapped<'_> {
    /// Back to an earlier instance, after a swap that was not kept.
    pub const ROLLBACK: u8 = 1;
}

/// Whom a request of a plugin is about.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawTarget<'a> {
    /// Client Identifier, if `kind` is [`RawTarget::CLIENT`]. The host checks it.
    pub client_id: RSlice<'a, u8>,
    /// Number of a connection, if `kind` is [`RawTarget::CONNECTION`].
    pub connection: u64,
    /// One of the numbers below.
    pub kind: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

impl RawTarget<'_> {
    /// `kind`: one Network Connection.
    pub const CONNECTION: u8 = 0;
    /// `kind`: one client.
    pub const CLIENT: u8 = 1;
    /// `kind`: all.
    pub const ALL: u8 = 2;
    /// `kind`: the plugin as a whole.
    pub const PLUGIN: u8 = 3;
}

/// A message for `handle_info` or `handle_event`, now or later.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawInfoRequest<'a> {
    /// Who gets it.
    pub target: RawTarget<'a>,
    /// What it is, in the plugin's own words: UTF-8.
    pub kind: RSlice<'a, u8>,
    /// Its bytes.
    pub data: RSlice<'a, u8>,
    /// When, in milliseconds from now; 0 is at once.
    pub delay_ms: u64,
    /// Again and again, in this distance in milliseconds; 0 is once.
    pub interval_ms: u64,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

/// A question about what the server holds.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawQuery<'a> {
    /// Whose: a connection, a client, or all.
    pub target: RawTarget<'a>,
    /// Only topics that match this Topic Filter (retained), or this very filter (subscriptions); empty for all.
    pub filter: RSlice<'a, u8>,
    /// Where the page begins: what [`AnswerKey::CURSOR`](super::AnswerKey::CURSOR) of the page before carried; empty for the first.
    pub cursor: RSlice<'a, u8>,
    /// Number of [`AnswerKey::CURSOR`](super::AnswerKey::CURSOR) of the page before; 0 for the first.
    pub cursor_number: u64,
    /// Rows of this page at most.
    pub limit: u32,
    /// What is asked for: one of the numbers below.
    pub kind: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

impl RawQuery<'_> {
    /// `kind`: connections.
    pub const CONNECTIONS: u8 = 0;
    /// `kind`: sessions.
    pub const SESSIONS: u8 = 1;
    /// `kind`: subscriptions.
    pub const SUBSCRIPTIONS: u8 = 2;
    /// `kind`: retained messages.
    pub const RETAINED: u8 = 3;
}

/// A subscription that a plugin makes or ends for a client.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawSubscribeRequest<'a> {
    /// Whose.
    pub target: RawTarget<'a>,
    /// Topic Filter as a client would write it, `$share/…` included.
    pub filter: RSlice<'a, u8>,
    /// Subscription Identifier, 0 for none.
    pub identifier: u32,
    /// Maximum QoS.
    pub qos: u8,
    /// Retain Handling.
    pub retain_handling: u8,
    /// [`RawSubscription::NO_LOCAL`] and [`RawSubscription::RETAIN_AS_PUBLISHED`].
    pub flags: u8,
    /// Null; see the module documentation.
    pub extension: *const c_void,
}

/// A field of a log line.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawField<'a> {
    /// Its name.
    pub name: RSlice<'a, u8>,
    /// Its value, as text.
    pub value: RSlice<'a, u8>,
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
