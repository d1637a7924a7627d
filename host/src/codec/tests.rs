//! Tables of packets as they are on the wire.
//!
//! A packet is written as hexadecimal bytes: `30: <a/b> 'hi'` is the first byte, then (after the
//! Remaining Length, which is computed) the string `a/b` with its length in front and the bare text
//! `hi`. `{` and `}` enclose a list of properties, and stand for its Property Length.

mod accepted;
mod any_bytes;
mod generated;
mod packets;
mod refused;
mod tables;

use super::ProtocolVersion::{self, V3_1, V3_1_1, V5};
use super::wire::put_variable_byte_integer;
use super::*;

/// The bytes of a packet in the notation above.
pub(crate) fn packet(text: &str) -> Vec<u8> {
    let (first, body) = text.split_once(": ").unwrap_or((text.trim_end_matches(':'), ""));
    let body = parse(&mut body.chars());
    let mut out = hex(first);
    put_variable_byte_integer(&mut out, body.len());
    out.extend(body);
    out
}

fn parse(chars: &mut std::str::Chars<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(char) = chars.next() {
        match char {
            ' ' => {}
            '\'' => out.extend(chars.by_ref().take_while(|&char| char != '\'').collect::<String>().bytes()),
            '<' => {
                let text: String = chars.by_ref().take_while(|&char| char != '>').collect();
                out.extend((text.len() as u16).to_be_bytes());
                out.extend(text.bytes());
            }
            '{' => {
                let list = parse(chars);
                put_variable_byte_integer(&mut out, list.len());
                out.extend(list);
            }
            '}' => break,
            high => out.extend(hex(&String::from_iter([high, chars.next().expect("two digits")]))),
        }
    }
    out
}

fn hex(text: &str) -> Vec<u8> {
    vec![u8::from_str_radix(text, 16).unwrap_or_else(|_| panic!("{text} is not hexadecimal"))]
}

/// Finds the only packet in `bytes` and decodes it.
fn decode_one(sender: Sender, version: ProtocolVersion, bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
    match frame(bytes, PACKET_BYTES_MAX)? {
        Frame::Complete { header_bytes, total_bytes } => {
            assert_eq!(total_bytes, bytes.len(), "bytes after the packet");
            decode_from(sender, version, bytes, header_bytes)
        }
        Frame::Incomplete { .. } => panic!("not a whole packet: {bytes:02X?}"),
    }
}
