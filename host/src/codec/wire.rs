//! The data types of section 1.5: reading them from a packet, and writing them.

pub(super) use plugin_api::reading::variable_byte_integer_bytes;
use plugin_api::{Properties, ReasonCode};

use super::property_rules::{self, Context};
use super::{DecodeError, PacketId, PacketType};

/// The largest Variable Byte Integer.
pub(super) const VARIABLE_BYTE_INTEGER_MAX: usize = 268_435_455;

/// A Variable Byte Integer that goes on after its fourth byte.
pub(super) struct TooLong;

/// Reads a Variable Byte Integer: its value and how many bytes it has; `None` if it is cut off.
#[inline]
pub(super) fn variable_byte_integer(bytes: &[u8]) -> Result<Option<(usize, usize)>, TooLong> {
    // Most packets and nearly all property lists are shorter than 128 bytes.
    if let Some(&first) = bytes.first()
        && first < 0x80
    {
        return Ok(Some((usize::from(first), 1)));
    }
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte < 0x80 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 { Err(TooLong) } else { Ok(None) }
}

/// Appends a Variable Byte Integer in its shortest form [MQTT-1.5.5-1].
#[inline]
pub(crate) fn put_variable_byte_integer(out: &mut Vec<u8>, value: usize) {
    debug_assert!(value <= VARIABLE_BYTE_INTEGER_MAX, "{value} is no Variable Byte Integer");
    let mut rest = value;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends binary data after its length.
#[inline]
pub(super) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    // What is longer cannot have been decoded, nor come out of a validated message. Were it to
    // happen, a packet with a shortened field is better than a stream that is out of step.
    debug_assert!(bytes.len() <= usize::from(u16::MAX), "a field of {} bytes", bytes.len());
    let bytes = &bytes[..bytes.len().min(u16::MAX.into())];
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a string after its length.
#[inline]
pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    put_binary(out, text.as_bytes());
}

/// Appends a list of properties after its length [MQTT-2.2.2-1].
pub(super) fn put_properties(out: &mut Vec<u8>, properties: Properties<'_>) {
    put_variable_byte_integer(out, properties.as_bytes().len());
    out.extend_from_slice(properties.as_bytes());
}

/// Appends a packet other than PUBLISH, whose body is written by `body`.
pub(super) fn packet(out: &mut Vec<u8>, packet: PacketType, body: impl FnOnce(&mut Vec<u8>)) {
    out.push((packet as u8) << 4 | packet.reserved_flags());
    let body_start = out.len();
    body(out);
    // The length is only known now. These packets are short: moving the body up is cheap.
    let remaining_length = out.len() - body_start;
    put_variable_byte_integer(out, remaining_length);
    let length_bytes = out.len() - body_start - remaining_length;
    out[body_start..].rotate_right(length_bytes);
}

/// Reads the fields of one packet, one after the other.
pub(super) struct Reader<'a> {
    packet: PacketType,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn new(packet: PacketType, body: &'a [u8]) -> Reader<'a> {
        Reader { packet, rest: body }
    }

    /// The packet that is being read.
    pub(super) fn packet(&self) -> PacketType {
        self.packet
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left.
    #[inline]
    pub(super) fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Checks that nothing is left.
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        if !self.rest.is_empty() {
            let bytes = self.rest.len();
            return Err(DecodeError::TrailingBytes { packet: self.packet, bytes });
        }
        Ok(())
    }

    #[inline]
    pub(super) fn byte(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.rest.split_first().ok_or(self.cut_off(field))?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub(super) fn two_bytes(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        let (&bytes, rest) = self.rest.split_first_chunk().ok_or(self.cut_off(field))?;
        self.rest = rest;
        Ok(u16::from_be_bytes(bytes))
    }

    /// Packet Identifiers are not zero [MQTT-2.2.1-3] [MQTT-2.2.1-4].
    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.two_bytes("Packet Identifier")?)
            .ok_or(DecodeError::protocol("the Packet Identifier is 0, expected 1 to 65,535"))
    }

    #[inline]
    pub(super) fn binary(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.two_bytes(field)?;
        let (bytes, rest) = self.rest.split_at_checked(length.into()).ok_or(self.cut_off(field))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A string: UTF-8 [MQTT-1.5.4-1] without U+0000 [MQTT-1.5.4-2]; a byte order mark stays in it
    /// [MQTT-1.5.4-3].
    #[inline]
    pub(super) fn string(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.binary(field)?;
        if bytes.contains(&0) {
            return Err(DecodeError::NullCharacter { packet: self.packet, field });
        }
        self.utf8(bytes, field)
    }

    /// A string that is a Topic Name: without wildcard characters [MQTT-4.7.0-1]. It may be empty.
    #[inline]
    pub(super) fn topic_name(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.binary(field)?;
        // One pass without a branch in it, so that it is done many bytes at a time.
        let special = bytes.iter().fold(false, |special, byte| special | matches!(byte, 0 | b'#' | b'+'));
        if special {
            return Err(self.special_in_topic_name(bytes, field));
        }
        self.utf8(bytes, field)
    }

    /// The list of properties, with the rules for its context.
    #[inline]
    pub(super) fn properties(&mut self, context: Context) -> Result<Properties<'a>, DecodeError> {
        // Most packets say that they have none.
        if let Some((0, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Ok(Properties::EMPTY);
        }
        self.some_properties(context)
    }

    fn some_properties(&mut self, context: Context) -> Result<Properties<'a>, DecodeError> {
        const FIELD: &str = "Properties";
        let (length, length_bytes) = variable_byte_integer(self.rest)
            .map_err(|TooLong| DecodeError::Malformed("the Property Length has more than 4 bytes"))?
            .ok_or(self.cut_off(FIELD))?;
        if length_bytes != variable_byte_integer_bytes(length) {
            // [MQTT-1.5.5-1]
            return Err(DecodeError::Malformed("the Property Length has more bytes than it needs"));
        }
        let (bytes, rest) = self.rest[length_bytes..].split_at_checked(length).ok_or(self.cut_off(FIELD))?;
        self.rest = rest;
        property_rules::check(self.packet, context, bytes)
    }

    /// A Reason Code that is one of those `allowed` for this packet.
    pub(super) fn reason_code(&mut self, allowed: &[u8]) -> Result<ReasonCode, DecodeError> {
        let got = self.byte("Reason Code")?;
        if !allowed.contains(&got) {
            return Err(DecodeError::ReasonCodeNotAllowed { packet: self.packet, got });
        }
        Ok(ReasonCode(got))
    }

    #[inline]
    fn utf8(&self, bytes: &'a [u8], field: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8 { packet: self.packet, field })
    }

    #[cold]
    fn special_in_topic_name(&self, bytes: &[u8], field: &'static str) -> DecodeError {
        if bytes.contains(&0) {
            return DecodeError::NullCharacter { packet: self.packet, field };
        }
        DecodeError::Protocol {
            code: ReasonCode::TOPIC_NAME_INVALID,
            what: "a Topic Name has a wildcard character (+ or #); they belong into Topic Filters",
        }
    }

    #[inline]
    fn cut_off(&self, field: &'static str) -> DecodeError {
        DecodeError::CutOff { packet: self.packet, field }
    }
}
