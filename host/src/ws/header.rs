//! The header of a frame from a client, and of one to it.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::Fault;

/// Bytes of a frame's header at most.
pub(super) const HEADER_BYTES_MAX: usize = 14;

/// Bytes of a control frame's payload at most.
pub(super) const CONTROL_BYTES_MAX: usize = 125;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes of Control Packets: a binary message begins.
    Binary,
    /// More of it.
    Continuation,
    Close,
    Ping,
    Pong,
}

impl Kind {
    pub(super) fn is_control(self) -> bool {
        matches!(self, Kind::Close | Kind::Ping | Kind::Pong)
    }
}

/// The header of a frame from a client, as far as it can be judged by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Whether it is the last frame of its message.
    pub(super) is_final: bool,
    /// Whether the message that begins is compressed.
    pub(super) is_compressed: bool,
    /// Bytes that follow.
    pub(super) payload_bytes: u64,
    pub(super) mask: [u8; 4],
}

impl Header {
    /// Reads the header that `bytes` begin with, and says how many bytes it has. `None` if it is not whole.
    #[inline]
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Fault> {
        // What nearly all frames are: a short binary message, whole. It is worth almost half of what such a frame costs.
        if let &[0x82, length @ 0x80..=0xfd, a, b, c, d, ..] = bytes {
            let header = Self {
                kind: Kind::Binary,
                is_final: true,
                is_compressed: false,
                payload_bytes: u64::from(length & 0x7f),
                mask: [a, b, c, d],
            };
            return Ok(Some((header, 6)));
        }
        Self::parse_any(bytes)
    }

    fn parse_any(bytes: &[u8]) -> Result<Option<(Self, usize)>, Fault> {
        let mut cursor = Cursor::new(bytes);
        let (header, payload_bytes) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Ok(None),
            // Nothing else can be wrong with a header that is read from memory.
            Err(_) => return Err(Fault::Opcode(bytes[0] & 0x0F)),
        };
        // No header has more than 14 bytes.
        let header_bytes = cursor.position() as usize;
        if header.rsv2 || header.rsv3 {
            return Err(Fault::ReservedBits);
        }
        let kind = match header.opcode {
            OpCode::Data(Data::Binary) => Kind::Binary,
            OpCode::Data(Data::Continue) => Kind::Continuation,
            OpCode::Data(Data::Text) => return Err(Fault::NotBinary), // [MQTT-6.0.0-1]
            OpCode::Control(Control::Close) => Kind::Close,
            OpCode::Control(Control::Ping) => Kind::Ping,
            OpCode::Control(Control::Pong) => Kind::Pong,
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                return Err(Fault::Opcode(bytes[0] & 0x0F));
            }
        };
        let Some(mask) = header.mask else { return Err(Fault::NotMasked) };
        if header_bytes != header.len(payload_bytes) || payload_bytes > i64::MAX as u64 {
            return Err(Fault::Length);
        }
        if kind.is_control() && !(header.is_final && payload_bytes <= CONTROL_BYTES_MAX as u64) {
            return Err(Fault::ControlFrame);
        }
        // Compressed is a whole message, which its first frame says.
        if header.rsv1 && kind != Kind::Binary {
            return Err(Fault::ReservedBits);
        }
        Ok(Some((
            Self { kind, is_final: header.is_final, is_compressed: header.rsv1, payload_bytes, mask },
            header_bytes,
        )))
    }
}

/// Appends the header of a frame to a client.
pub(super) fn put(opcode: OpCode, is_compressed: bool, payload_bytes: usize, wire: &mut Vec<u8>) {
    let header = FrameHeader { rsv1: is_compressed, opcode, ..FrameHeader::default() };
    let written = header.format(payload_bytes as u64, wire);
    debug_assert!(written.is_ok(), "memory takes it");
}

/// Takes the mask away. Returns it for the byte that follows.
pub(super) fn unmask(bytes: &mut [u8], mask: [u8; 4]) -> [u8; 4] {
    let narrow = u32::from_ne_bytes(mask);
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let (eights, rest) = bytes.as_chunks_mut::<8>();
    for eight in eights {
        *eight = (u64::from_ne_bytes(*eight) ^ wide).to_ne_bytes();
    }
    let (fours, rest) = rest.as_chunks_mut::<4>();
    for four in fours {
        *four = (u32::from_ne_bytes(*four) ^ narrow).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
    let [a, b, c, d] = mask;
    match rest.len() {
        0 => mask,
        1 => [b, c, d, a],
        2 => [c, d, a, b],
        _ => [d, a, b, c],
    }
}
