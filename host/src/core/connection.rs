//! The protocol state of one Network Connection: what does not outlive its socket.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::rc::Rc;

use plugin_api::{PropertiesBuf, QoS, ReasonCode};

use super::aliases::OutboundAliases;
use super::deferred::Waiting;
use super::kept::KeptBytes;
use super::lanes::Place;
use super::mount::MOUNTED;
use super::peer::PeerDetails;
use super::profile::Listener;
use super::rates::ClientRates;
use super::replay::Replays;
use super::timers::Armed;
use crate::clock::Millis;
use crate::codec::ProtocolVersion;
use crate::message::{MessageParts, Source};
use crate::plugin::Handlers;

/// No slot of a slab.
pub(super) const NONE: u32 = u32::MAX;

/// Where a Network Connection is in its life. It only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing but CONNECT is allowed [MQTT-3.1.0-1].
    AwaitingConnect,
    /// CONNECT named an Authentication Method; nothing but AUTH and DISCONNECT is allowed [MQTT-3.1.2-30].
    Authenticating,
    /// Another worker owns its session: it goes there at the end of the turn.
    Leaving,
    /// CONNACK was sent.
    Connected,
    /// Nothing is read any more; what is left to send is sent, then the socket is closed.
    Closing,
}

/// One Network Connection.
pub(super) struct Connection {
    /// Encoded packets that wait for the socket. Taken from the worker's pool when needed, so that an idle connection
    /// holds none.
    pub(super) out: Vec<u8>,
    /// Bytes at the start of `out` that were sent.
    pub(super) out_sent: usize,
    /// Bytes of the largest PUBLISH packet in `out`: a large message is no sign of a peer that does not read.
    pub(super) out_largest: usize,
    /// Packets that it shares with others, behind those in `out`.
    pub(super) lane: Place,
    pub(super) session: u32,
    pub(super) phase: Phase,
    pub(super) version: ProtocolVersion,
    /// On the list of connections that the driver has to look at.
    pub(super) dirty: bool,
    /// There are packets in `partial` that wait for the next turn.
    pub(super) is_held: bool,
    /// A plugin has a question that it has not answered: what is in `partial` waits for that.
    pub(super) is_waiting: bool,
    /// It has something to send that waits until it is safe what that promises; see [`held_acks`](super::held_acks).
    pub(super) is_owed: bool,
    /// So does all that is in `out`, which begins with CONNACK.
    pub(super) is_shut: bool,
    /// DISCONNECT has come: the peer sends nothing more.
    pub(super) has_left: bool,
    /// CONNECT asked for a session that ends with the connection.
    pub(super) asked_no_expiry: bool,
    /// Request Problem Information of the CONNECT packet.
    pub(super) problem_information: bool,
    /// Topic Aliases that may be sent to the client, 0 for none [MQTT-3.1.2-26] [MQTT-3.1.2-27]; or [`MOUNTED`]. Whatever is
    /// not 0 says that its packets are not those of others.
    pub(super) aliases_max: u8,
    /// Maximum Packet Size of the client, in bytes.
    pub(super) packet_bytes_max: u32,
    /// Receive Maximum of the client, or our own bound if that is less.
    pub(super) in_flight_max: u16,
    /// QoS 2 messages that were accepted on earlier connections and not released when this one began.
    pub(super) received_before: u16,
    /// Where the router had the Topic Name of its last PUBLISH packet.
    pub(super) topic_place: u32,
    /// Keep Alive in force, in seconds; 0 if none.
    pub(super) keep_alive_secs: u16,
    /// When the last packet came, or when the connection was accepted, or began to close.
    pub(super) heard_at: Millis,
    /// Its entry among the timers.
    pub(super) armed: Armed,
    /// Start of a packet that has not come completely, or packets that wait; not empty.
    pub(super) partial: Option<Box<KeptBytes>>,
    /// The states that the plugins keep for this connection; `None` before CONNECT and after `handle_disconnect`.
    pub(super) handlers: Option<Handlers>,
    /// Unique in the server's life, over all workers.
    pub(super) id: u64,
    pub(super) peer: Peer,
    /// Shared by all connections of the listener.
    pub(super) listener: Rc<Listener>,
    /// What few connections have.
    pub(super) extra: Option<Box<Extra>>,
}

/// The address of a peer in half the room of a [`SocketAddr`], as most are of IPv4.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
}

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(addr) => Self::V4(addr),
            SocketAddr::V6(addr) => Self::V6(Box::new(addr)),
        }
    }
}

impl Peer {
    pub(super) fn addr(&self) -> SocketAddr {
        match self {
            Self::V4(addr) => SocketAddr::V4(*addr),
            Self::V6(addr) => SocketAddr::V6(**addr),
        }
    }
}

/// State that few connections have, so that the others do not pay for it.
#[derive(Default)]
pub(super) struct Extra {
    /// What is known of the peer besides its address.
    pub(super) details: Option<Box<PeerDetails>>,
    pub(super) will: Option<Will>,
    pub(super) auth: Option<Auth>,
    /// What is left of the rates of a client that has published, where there is a bound on them.
    pub(super) rates: ClientRates,
    /// Topic Names by alias minus one [MQTT-3.3.2-7].
    pub(super) aliases: Vec<Option<Box<str>>>,
    /// Bytes of their Topic Names.
    pub(super) alias_bytes: usize,
    /// What the worker has counted for all of this.
    pub(super) counted_bytes: usize,
    /// Those that were sent to the client; `None` before the first.
    pub(super) outbound_aliases: Option<Box<OutboundAliases>>,
    /// Retained messages for new subscriptions.
    pub(super) replays: Replays,
    /// What a plugin was asked and has not answered.
    pub(super) waiting: Option<Box<Waiting>>,
    /// CONNECT while an authentication exchange decides about it.
    pub(super) pending: Option<Box<PendingConnect>>,
}

/// A Will Message as CONNECT gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Will {
    pub(super) topic: Box<str>,
    pub(super) payload: Box<[u8]>,
    /// Properties of its PUBLISH packet: without Will Delay Interval.
    pub(super) properties: Box<[u8]>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) delay_secs: u32,
}

impl Will {
    /// The message, with what goes on of its properties; without its lifetime, which begins when it is published.
    pub(super) fn parts<'a>(&'a self, properties: &'a [u8]) -> MessageParts<'a> {
        let (topic, payload, expires_at, source) = (&*self.topic, &*self.payload, Millis::NEVER, Source::Will);
        let (qos, retain) = (self.qos, self.retain);
        MessageParts { topic, payload, properties, qos, retain, expires_at, source, as_it_came: None }
    }
}

/// Enhanced authentication of one connection.
#[derive(Debug)]
pub(super) struct Auth {
    pub(super) method: Box<str>,
    /// Index in the chain of the plugin that accepted the method.
    pub(super) owner: Option<usize>,
    /// A re-authentication is under way, and has to have ended then.
    pub(super) again_until: Option<Millis>,
}

/// What CONNECT asked for and handlers decided, on its way to CONNACK.
#[derive(Debug)]
pub(super) struct PendingConnect {
    pub(super) client_id: String,
    /// The server chose the Client Identifier.
    pub(super) assigned: bool,
    pub(super) version: ProtocolVersion,
    pub(super) clean_start: bool,
    /// Keep Alive as the client asked for it, in seconds.
    pub(super) keep_alive_asked: u16,
    pub(super) keep_alive_secs: u16,
    /// Session Expiry Interval as the client asked for it, in seconds.
    pub(super) expiry_asked: u32,
    pub(super) expiry_secs: u32,
    /// The longest Session Expiry Interval that it may ask for when it disconnects.
    pub(super) expiry_secs_max: u32,
    /// Request Response Information of the CONNECT packet.
    pub(super) response_information: bool,
    /// Further properties of CONNACK that handlers asked for.
    pub(super) connack: PropertiesBuf,
    /// Authentication Data of CONNACK.
    pub(super) auth_data: Option<Vec<u8>>,
    /// Some plugin has accepted the client, rather than nobody having an opinion.
    pub(super) accepted: bool,
}

impl Connection {
    pub(super) fn new(id: u64, peer: SocketAddr, listener: Rc<Listener>, now: Millis) -> Self {
        Self {
            out: Vec::new(),
            out_sent: 0,
            out_largest: 0,
            lane: Place::NOWHERE,
            session: NONE,
            phase: Phase::AwaitingConnect,
            version: ProtocolVersion::V3_1_1,
            dirty: false,
            is_held: false,
            is_waiting: false,
            is_owed: false,
            is_shut: false,
            has_left: false,
            asked_no_expiry: true,
            problem_information: true,
            aliases_max: if listener.profile.mount.is_some() { MOUNTED } else { 0 },
            packet_bytes_max: u32::MAX,
            in_flight_max: listener.limits.in_flight_max,
            received_before: 0,
            topic_place: NONE,
            keep_alive_secs: 0,
            heard_at: now,
            armed: Millis::NEVER,
            partial: None,
            handlers: None,
            id,
            peer: peer.into(),
            listener,
            extra: None,
        }
    }

    pub(super) fn is_v5(&self) -> bool {
        self.version == ProtocolVersion::V5
    }

    /// Whether it is sent PUBLISH packets as they came, but for the Packet Identifier, if these are of its version.
    pub(super) fn takes_packets(&self, is_v5: bool) -> bool {
        self.phase == Phase::Connected && self.is_v5() == is_v5 && self.aliases_max == 0
    }

    /// Bytes of its own that wait for the socket; see [`Core::waiting_bytes`](super::Core::waiting_bytes).
    pub(super) fn waiting_bytes(&self) -> usize {
        self.out.len() - self.out_sent
    }

    pub(super) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Frees the extra state if nothing is in it.
    pub(super) fn drop_empty_extra(&mut self) {
        let empty = self.extra.as_ref().is_some_and(|extra| {
            extra.details.is_none()
                && extra.will.is_none()
                && extra.auth.is_none()
                && extra.pending.is_none()
                && extra.waiting.is_none()
                && extra.rates == ClientRates::default()
                && extra.aliases.is_empty()
                && extra.outbound_aliases.is_none()
                && extra.replays.is_empty()
        });
        if empty {
            self.extra = None;
        }
    }

    /// What is known of the peer besides its address.
    pub(super) fn details(&self) -> Option<&PeerDetails> {
        self.extra.as_ref()?.details.as_deref()
    }

    /// Drops what nobody can ask for any more once CONNECT has been answered. The rest is for the instance that takes the
    /// connection over in a swap.
    pub(super) fn forget_details(&mut self, can_be_asked_for: bool) {
        if let Some(extra) = &mut self.extra {
            extra.details = extra.details.take().filter(|_| can_be_asked_for);
            if let Some(details) = &mut extra.details {
                details.http = None;
            }
        }
    }

    pub(super) fn auth(&self) -> Option<&Auth> {
        self.extra.as_ref()?.auth.as_ref()
    }

    pub(super) fn pending(&self) -> Option<&PendingConnect> {
        self.extra.as_ref()?.pending.as_deref()
    }

    /// One and a half times the Keep Alive in milliseconds [MQTT-3.1.2-22]; `None` if there is none.
    pub(super) fn keep_alive_ms(&self) -> Option<u64> {
        (self.keep_alive_secs != 0).then(|| u64::from(self.keep_alive_secs) * 1500)
    }
}

/// Why a Network Connection ends, and what is said to the peer about it.
#[derive(Debug, Clone)]
pub(super) struct Closing {
    pub(super) kind: plugin_api::DisconnectKind,
    /// Reason Code that was sent or received.
    pub(super) reason_code: ReasonCode,
    /// Properties of our DISCONNECT packet.
    pub(super) properties: PropertiesBuf,
    /// Whether a 5.0 client is sent a DISCONNECT packet.
    pub(super) tell: bool,
}

impl Closing {
    /// The server ends it and says so.
    pub(super) fn telling(kind: plugin_api::DisconnectKind, reason_code: ReasonCode) -> Self {
        Self { kind, reason_code, properties: PropertiesBuf::default(), tell: true }
    }

    /// A plugin could not answer. The chain has logged why.
    pub(super) fn failed() -> Self {
        Self::telling(plugin_api::DisconnectKind::HandlerFailed, ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR)
    }

    /// The peer has ended it, or there is nothing to say.
    pub(super) fn silent(kind: plugin_api::DisconnectKind, reason_code: ReasonCode) -> Self {
        Self { tell: false, ..Self::telling(kind, reason_code) }
    }

    pub(super) fn with_properties(mut self, properties: PropertiesBuf) -> Self {
        self.properties = properties;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::session::Session;

    /// With its socket, its entries in the indexes and among the timers, its Client Identifier and the state of a handler,
    /// some 130 bytes, an idle connection is to stay below 500.
    #[test]
    fn idle_connection_takes_few_bytes() {
        let bytes = (size_of::<Connection>(), size_of::<Session>());
        assert!(bytes.0 + bytes.1 <= 348, "{bytes:?}");
    }
}
