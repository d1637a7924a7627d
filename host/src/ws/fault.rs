//! How a WebSocket connection ends.

use std::fmt;

/// Why no more bytes come from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It has sent a Close frame, with this status code, if it gave one.
    Closed(Option<u16>),
    /// It has sent what it may not send.
    Failed(Fault),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Closed(Some(code)) => write!(f, "the client has sent a Close frame with status code {code}"),
            End::Closed(None) => f.write_str("the client has sent a Close frame"),
            End::Failed(fault) => fault.fmt(f),
        }
    }
}

/// What a peer has done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It has sent text; Control Packets are in binary frames [MQTT-6.0.0-1].
    NotBinary,
    /// A frame of a client has to be masked.
    NotMasked,
    /// This operation code means nothing.
    Opcode(u8),
    /// Bits of the header are set that belong to no extension in use.
    ReservedBits,
    /// The length of a frame is not in its shortest form, or larger than 2^63 - 1.
    Length,
    /// A control frame is in fragments, or has more than 125 bytes.
    ControlFrame,
    /// A continuation frame, and there is nothing to continue.
    NothingToContinue,
    /// A new message begins, and the one before has not ended.
    NotContinued,
    /// A Close frame with one byte, or with a status code that may not be sent.
    CloseFrame,
    /// The reason in a Close frame is not UTF-8.
    CloseReason,
    /// Compressed bytes that nothing can be made of.
    Compressed,
    /// A compressed message that becomes larger than this, in bytes.
    TooLarge(u32),
}

impl Fault {
    /// The status code for the Close frame that says so (RFC 6455, section 7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Fault::NotBinary => 1003,
            Fault::CloseReason | Fault::Compressed => 1007,
            Fault::TooLarge(_) => 1009,
            _ => 1002,
        }
    }
}

/// At most 123 bytes: it goes into a Close frame.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotBinary => f.write_str("got a text frame, expected MQTT Control Packets in binary frames"),
            Fault::NotMasked => f.write_str("got a frame without a mask, expected one from a client"),
            Fault::Opcode(opcode) => write!(f, "got operation code {opcode:#x}, expected 0, 2, 8, 9 or 10"),
            Fault::ReservedBits => f.write_str("reserved bits are set, and no extension in use has them"),
            Fault::Length => f.write_str("the frame's length is not in its shortest form, or more than 2^63 - 1"),
            Fault::ControlFrame => f.write_str("a control frame is in fragments, or has more than 125 bytes"),
            Fault::NothingToContinue => f.write_str("got a continuation frame, and there is nothing to continue"),
            Fault::NotContinued => f.write_str("a message begins before the last fragment of the one before"),
            Fault::CloseFrame => f.write_str("the Close frame has one byte, or a status code that may not be sent"),
            Fault::CloseReason => f.write_str("the reason in the Close frame is not UTF-8"),
            Fault::Compressed => f.write_str("the compressed message cannot be inflated"),
            Fault::TooLarge(max) => write!(f, "the compressed message becomes more than {max} bytes"),
        }
    }
}
