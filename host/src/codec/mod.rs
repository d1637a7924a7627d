//! MQTT Control Packets: bytes to [`Packet`] and back, for MQTT 3.1, 3.1.1 and 5.0.
//!
//! Pure functions: no socket, no clock, no state. Bytes go through two steps:
//!
//! 1. [`frame`] finds where the first packet ends, and refuses one that declares too much before
//!    any of it is kept;
//! 2. [`decode`] checks that packet completely and returns views into it. Nothing is copied.
//!
//! Any bytes give a packet or a [`DecodeError`], which knows the Reason Code to answer with. What
//! depends on the state of a connection (is this packet expected now, is this Topic Alias known) is
//! left to the core. A Topic Filter with misplaced wildcards is no error here either: the core
//! answers it with a Reason Code of its own.

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod error;
mod frame;
mod property_rules;
mod publish;
mod reason_codes;
mod suback;
mod subscribe;
#[cfg(test)]
pub(crate) mod tests;
mod unsubscribe;
mod wire;

use std::fmt;
use std::num::NonZeroU16;

pub use ack::{Ack, short_ack};
pub use auth::Auth;
pub use connack::{Connack, connack_return_code};
pub use connect::{Connect, Will, connect_refusal, decode_connect};
pub use disconnect::Disconnect;
pub use error::DecodeError;
pub use frame::{Frame, PACKET_BYTES_MAX, PacketType, frame, header_bytes};
pub use publish::{
    Alike, OneAlike, Publish, PublishHead, copy_publish, decode_publish, encode_plain_publish, encode_publish,
    fixed_header_bytes, patch_packet_id, publish_packet_bytes, publish_qos, topic_bytes,
};
pub use reason_codes::reason_codes_from_server;
pub use suback::{Suback, Unsuback};
pub use subscribe::{RetainHandling, Subscribe, SubscribeFilter, SubscribeFilters, SubscribeOptions};
pub use unsubscribe::{Unsubscribe, UnsubscribeFilters};

pub(crate) use wire::put_variable_byte_integer;

use wire::Reader;

/// A Packet Identifier: never zero.
pub type PacketId = NonZeroU16;

/// The versions of the protocol, in their order; the number is the one that CONNECT carries.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ProtocolVersion {
    /// MQTT 3.1, with the protocol name `MQIsdp`.
    V3_1 = 3,
    /// MQTT 3.1.1.
    V3_1_1 = 4,
    /// MQTT 5.0.
    V5 = 5,
}

impl ProtocolVersion {
    /// True if packets of this version have properties and Reason Codes.
    #[inline]
    pub const fn is_v5(self) -> bool {
        matches!(self, ProtocolVersion::V5)
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProtocolVersion::V3_1 => "3.1",
            ProtocolVersion::V3_1_1 => "3.1.1",
            ProtocolVersion::V5 => "5.0",
        })
    }
}

/// A Control Packet. Text and bytes are borrowed from what it was decoded from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// Connection request.
    Connect(Connect<'a>),
    /// Answer to CONNECT.
    Connack(Connack<'a>),
    /// An Application Message.
    Publish(Publish<'a>),
    /// QoS 1: answer to PUBLISH.
    Puback(Ack<'a>),
    /// QoS 2: answer to PUBLISH.
    Pubrec(Ack<'a>),
    /// QoS 2: answer to PUBREC.
    Pubrel(Ack<'a>),
    /// QoS 2: answer to PUBREL.
    Pubcomp(Ack<'a>),
    /// Subscribe request.
    Subscribe(Subscribe<'a>),
    /// Answer to SUBSCRIBE.
    Suback(Suback<'a>),
    /// Unsubscribe request.
    Unsubscribe(Unsubscribe<'a>),
    /// Answer to UNSUBSCRIBE.
    Unsuback(Unsuback<'a>),
    /// Ping request.
    Pingreq,
    /// Answer to PINGREQ.
    Pingresp,
    /// The sender is about to close the Network Connection.
    Disconnect(Disconnect<'a>),
    /// A step of enhanced authentication; MQTT 5.0 only.
    Auth(Auth<'a>),
}

/// Decodes one packet that a client sent.
///
/// `packet` is exactly one packet with its fixed header of `header_bytes`, as [`frame`] found it. A
/// CONNECT says its version itself; for it, `version` is not looked at.
///
/// # Errors
/// Everything that makes the packet a Malformed Packet or a Protocol Error on its own, whatever was
/// sent before it.
pub fn decode<'a>(version: ProtocolVersion, packet: &'a [u8], header_bytes: usize) -> Result<Packet<'a>, DecodeError> {
    decode_from(Sender::Client, version, packet, header_bytes)
}

/// Decodes one packet that a server sent: in its PUBLISH packets there may be Subscription
/// Identifiers. Otherwise as [`decode`].
///
/// # Errors
/// As [`decode`].
pub fn decode_from_server<'a>(
    version: ProtocolVersion,
    packet: &'a [u8],
    header_bytes: usize,
) -> Result<Packet<'a>, DecodeError> {
    decode_from(Sender::Server, version, packet, header_bytes)
}

/// Who sent a packet; some properties may be sent in one direction only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sender {
    Client,
    Server,
}

#[inline]
fn decode_from<'a>(
    sender: Sender,
    version: ProtocolVersion,
    packet: &'a [u8],
    header_bytes: usize,
) -> Result<Packet<'a>, DecodeError> {
    let (packet_type, flags, body) = frame::split(packet, header_bytes)?;
    if packet_type != PacketType::Connect {
        // CONNECT does this itself, once it knows its version.
        frame::check_remaining_length(version, header_bytes, body.len())?;
        frame::check_flags(version, packet_type, flags)?;
    }
    let mut reader = Reader::new(packet_type, body);
    let packet = match packet_type {
        PacketType::Connect => return decode_connect(packet, header_bytes).map(Packet::Connect),
        PacketType::Connack => Packet::Connack(connack::decode(version, &mut reader)?),
        PacketType::Publish => Packet::Publish(publish::decode(sender, version, flags, None, &mut reader)?),
        PacketType::Puback => Packet::Puback(ack::decode(version, &mut reader)?),
        PacketType::Pubrec => Packet::Pubrec(ack::decode(version, &mut reader)?),
        PacketType::Pubrel => Packet::Pubrel(ack::decode(version, &mut reader)?),
        PacketType::Pubcomp => Packet::Pubcomp(ack::decode(version, &mut reader)?),
        PacketType::Subscribe => Packet::Subscribe(subscribe::decode(version, &mut reader)?),
        PacketType::Suback => Packet::Suback(suback::decode_suback(version, &mut reader)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(unsubscribe::decode(version, &mut reader)?),
        PacketType::Unsuback => Packet::Unsuback(suback::decode_unsuback(version, &mut reader)?),
        PacketType::Pingreq => Packet::Pingreq,
        PacketType::Pingresp => Packet::Pingresp,
        PacketType::Disconnect => Packet::Disconnect(disconnect::decode(sender, version, &mut reader)?),
        PacketType::Auth => Packet::Auth(auth::decode(version, &mut reader)?),
    };
    reader.finish()?;
    Ok(packet)
}

impl Packet<'_> {
    /// Appends the encoded packet. Properties and Reason Codes that a 3.x version does not have are
    /// left out, or translated where it has return codes instead.
    ///
    /// A CONNECT is encoded in its own version. An AUTH does not exist before 5.0: nothing is
    /// appended then.
    ///
    /// The caller keeps the packet's parts within the bounds of the protocol: 65,535 bytes for a
    /// string, 268,435,455 for the whole packet. Whatever was decoded is within them.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        match self {
            Packet::Connect(packet) => packet.encode(out),
            Packet::Connack(packet) => packet.encode(version, out),
            Packet::Publish(packet) => packet.encode(version, out),
            Packet::Puback(packet) => packet.encode(PacketType::Puback, version, out),
            Packet::Pubrec(packet) => packet.encode(PacketType::Pubrec, version, out),
            Packet::Pubrel(packet) => packet.encode(PacketType::Pubrel, version, out),
            Packet::Pubcomp(packet) => packet.encode(PacketType::Pubcomp, version, out),
            Packet::Subscribe(packet) => packet.encode(version, out),
            Packet::Suback(packet) => packet.encode(version, out),
            Packet::Unsubscribe(packet) => packet.encode(version, out),
            Packet::Unsuback(packet) => packet.encode(version, out),
            Packet::Pingreq => wire::packet(out, PacketType::Pingreq, |_| {}),
            Packet::Pingresp => wire::packet(out, PacketType::Pingresp, |_| {}),
            Packet::Disconnect(packet) => packet.encode(version, out),
            Packet::Auth(packet) => packet.encode(version, out),
        }
    }

    /// Which of the 15 packets it is.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::Connack(_) => PacketType::Connack,
            Packet::Publish(_) => PacketType::Publish,
            Packet::Puback(_) => PacketType::Puback,
            Packet::Pubrec(_) => PacketType::Pubrec,
            Packet::Pubrel(_) => PacketType::Pubrel,
            Packet::Pubcomp(_) => PacketType::Pubcomp,
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::Suback(_) => PacketType::Suback,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::Unsuback(_) => PacketType::Unsuback,
            Packet::Pingreq => PacketType::Pingreq,
            Packet::Pingresp => PacketType::Pingresp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }
}
