//! The fixed header: which packet it is, and where it ends.

use std::fmt;

use super::wire;
use super::{DecodeError, ProtocolVersion};

/// The largest packet that the protocol can express, fixed header included.
pub const PACKET_BYTES_MAX: usize = 1 + 4 + wire::VARIABLE_BYTE_INTEGER_MAX;

/// What the bytes received so far hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Not a whole packet yet.
    Incomplete {
        /// How many bytes the packet will have, if its fixed header is complete.
        total_bytes: Option<usize>,
    },
    /// The first `total_bytes` bytes are one packet.
    Complete {
        /// The size of its fixed header.
        header_bytes: usize,
        /// The size of the packet, fixed header included.
        total_bytes: usize,
    },
}

/// Finds the end of the packet that `bytes` start with.
///
/// # Errors
/// A packet that declares more than `packet_bytes_max` bytes is refused as soon as its fixed header
/// is there, so that nobody buffers it. A Remaining Length of more than four bytes, or the reserved
/// packet type 0, is a Malformed Packet.
#[inline]
pub fn frame(bytes: &[u8], packet_bytes_max: usize) -> Result<Frame, DecodeError> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(Frame::Incomplete { total_bytes: None });
    };
    if first >> 4 == 0 {
        return Err(TYPE_0);
    }
    let Some((remaining_length, length_bytes)) = wire::variable_byte_integer(rest)
        .map_err(|wire::TooLong| DecodeError::Malformed("the Remaining Length has more than 4 bytes"))?
    else {
        return Ok(Frame::Incomplete { total_bytes: None });
    };
    let header_bytes = 1 + length_bytes;
    let total_bytes = header_bytes + remaining_length;
    if total_bytes > packet_bytes_max {
        return Err(DecodeError::TooLarge { declared: total_bytes, max: packet_bytes_max });
    }
    Ok(if bytes.len() < total_bytes {
        Frame::Incomplete { total_bytes: Some(total_bytes) }
    } else {
        Frame::Complete { header_bytes, total_bytes }
    })
}

/// The size of the fixed header that `bytes` start with; `None` if it is cut off, or its length has no end.
pub fn header_bytes(bytes: &[u8]) -> Option<usize> {
    let (_, length_bytes) = wire::variable_byte_integer(bytes.get(1..)?).ok()??;
    Some(1 + length_bytes)
}

const TYPE_0: DecodeError = DecodeError::Malformed("packet type 0 is reserved, expected 1 (CONNECT) to 15 (AUTH)");

/// The packet type, the flags, and what follows the fixed header.
#[inline]
pub(super) fn split(packet: &[u8], header_bytes: usize) -> Result<(PacketType, u8, &[u8]), DecodeError> {
    let (Some(&first), Some(body)) = (packet.first(), packet.get(header_bytes..)) else {
        return Err(DecodeError::Malformed("the packet ends inside its fixed header"));
    };
    let packet_type = PacketType::from_u8(first >> 4).ok_or(TYPE_0)?;
    Ok((packet_type, first & 0x0F, body))
}

/// Checks that the Remaining Length was sent in its shortest form [MQTT-1.5.5-1]. The older versions
/// do not demand it, and there are clients that always use two bytes.
#[inline]
pub(super) fn check_remaining_length(
    version: ProtocolVersion,
    header_bytes: usize,
    remaining_length: usize,
) -> Result<(), DecodeError> {
    if version.is_v5() && header_bytes != 1 + wire::variable_byte_integer_bytes(remaining_length) {
        return Err(DecodeError::Malformed("the Remaining Length has more bytes than it needs"));
    }
    Ok(())
}

/// Checks the flags that are reserved [MQTT-2.1.3-1]. Those of PUBLISH mean something: it checks them
/// itself.
#[inline]
pub(super) fn check_flags(version: ProtocolVersion, packet: PacketType, got: u8) -> Result<(), DecodeError> {
    let expected = packet.reserved_flags();
    // In MQTT 3.1 these bits were DUP, QoS and RETAIN for every packet: DUP may be set when one of
    // the packets with QoS 1 is sent again, and all other bits were "not used".
    let ignored = match version {
        _ if packet == PacketType::Publish => 0b1111,
        ProtocolVersion::V3_1 if expected == 0 => 0b1111,
        ProtocolVersion::V3_1 => 0b1001,
        ProtocolVersion::V3_1_1 | ProtocolVersion::V5 => 0,
    };
    if (got ^ expected) & !ignored != 0 {
        return Err(DecodeError::Flags { packet, got, expected });
    }
    Ok(())
}

/// The 15 Control Packets (section 2.1.2).
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PacketType {
    /// Connection request.
    Connect = 1,
    /// Answer to CONNECT.
    Connack = 2,
    /// An Application Message.
    Publish = 3,
    /// QoS 1: answer to PUBLISH.
    Puback = 4,
    /// QoS 2: answer to PUBLISH.
    Pubrec = 5,
    /// QoS 2: answer to PUBREC.
    Pubrel = 6,
    /// QoS 2: answer to PUBREL.
    Pubcomp = 7,
    /// Subscribe request.
    Subscribe = 8,
    /// Answer to SUBSCRIBE.
    Suback = 9,
    /// Unsubscribe request.
    Unsubscribe = 10,
    /// Answer to UNSUBSCRIBE.
    Unsuback = 11,
    /// Ping request.
    Pingreq = 12,
    /// Answer to PINGREQ.
    Pingresp = 13,
    /// The sender is about to close the Network Connection.
    Disconnect = 14,
    /// A step of enhanced authentication.
    Auth = 15,
}

impl PacketType {
    /// The packet type with this number; `None` for 0 and above 15.
    pub const fn from_u8(value: u8) -> Option<PacketType> {
        Some(match value {
            1 => PacketType::Connect,
            2 => PacketType::Connack,
            3 => PacketType::Publish,
            4 => PacketType::Puback,
            5 => PacketType::Pubrec,
            6 => PacketType::Pubrel,
            7 => PacketType::Pubcomp,
            8 => PacketType::Subscribe,
            9 => PacketType::Suback,
            10 => PacketType::Unsubscribe,
            11 => PacketType::Unsuback,
            12 => PacketType::Pingreq,
            13 => PacketType::Pingresp,
            14 => PacketType::Disconnect,
            15 => PacketType::Auth,
            _ => return None,
        })
    }

    /// The name that the specification gives this packet.
    pub const fn name(self) -> &'static str {
        match self {
            PacketType::Connect => "CONNECT",
            PacketType::Connack => "CONNACK",
            PacketType::Publish => "PUBLISH",
            PacketType::Puback => "PUBACK",
            PacketType::Pubrec => "PUBREC",
            PacketType::Pubrel => "PUBREL",
            PacketType::Pubcomp => "PUBCOMP",
            PacketType::Subscribe => "SUBSCRIBE",
            PacketType::Suback => "SUBACK",
            PacketType::Unsubscribe => "UNSUBSCRIBE",
            PacketType::Unsuback => "UNSUBACK",
            PacketType::Pingreq => "PINGREQ",
            PacketType::Pingresp => "PINGRESP",
            PacketType::Disconnect => "DISCONNECT",
            PacketType::Auth => "AUTH",
        }
    }

    /// The flags that every packet of this type has.
    pub(super) const fn reserved_flags(self) -> u8 {
        match self {
            // [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
            PacketType::Pubrel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
            // Among others [MQTT-3.14.1-1] [MQTT-3.15.1-1].
            _ => 0,
        }
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let complete = |header_bytes, total_bytes| Ok(Frame::Complete { header_bytes, total_bytes });
        let incomplete = |total_bytes| Ok(Frame::Incomplete { total_bytes });
        for (bytes, expected) in [
            (&b""[..], incomplete(None)),
            (b"\xC0", incomplete(None)),
            (b"\xC0\x00", complete(2, 2)),
            (b"\xC0\x00\xC0", complete(2, 2)),
            (b"\x30\x02\x00", incomplete(Some(4))),
            (b"\x30\x80", incomplete(None)),
            (b"\x30\x80\x80\x80", incomplete(None)),
            (b"\x30\x80\x01", incomplete(Some(131))),
            (b"\x40\x82\x00\x00\x01", complete(3, 5)),
            (b"\x30\xE5\x07", incomplete(Some(1000))),
            (b"\x30\xE6\x07", Err(DecodeError::TooLarge { declared: 1001, max: 1000 })),
            (b"\x30\xFF\xFF\xFF\x7F", Err(DecodeError::TooLarge { declared: PACKET_BYTES_MAX, max: 1000 })),
            (b"\x30\xFF\xFF\xFF\x80", Err(DecodeError::Malformed("the Remaining Length has more than 4 bytes"))),
            (b"\x0F", Err(TYPE_0)),
        ] {
            assert_eq!(frame(bytes, 1000), expected, "{bytes:02X?}");
        }
    }

    #[test]
    fn packet_types_are_numbered_from_1_to_15() {
        for value in 0..=255 {
            assert_eq!(
                PacketType::from_u8(value).map(|packet| packet as u8),
                (1..=15).contains(&value).then_some(value)
            );
        }
    }
}
