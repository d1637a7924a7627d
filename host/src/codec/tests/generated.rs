//! What holds for all packets and for all bytes, tried with many of them. What fails is made smaller and printed: it
//! becomes a row of the tables, so that it is tried in every run; no file of seeds is kept.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::Config;

use super::packets::{Any, any_packet, binary, text};
use super::*;

fn cases(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// Who sends, and in which version.
fn reading() -> impl Strategy<Value = (Sender, ProtocolVersion)> {
    (select(vec![Sender::Client, Sender::Server]), select(vec![V5, V5, V3_1_1, V3_1]))
}

fn read_packet() -> impl Strategy<Value = (Sender, ProtocolVersion, Any)> {
    reading().prop_flat_map(|(sender, version)| (Just(sender), Just(version), any_packet(sender, version)))
}

fn stream() -> impl Strategy<Value = (Sender, ProtocolVersion, Vec<Any>)> {
    reading().prop_flat_map(|(sender, version)| (Just(sender), Just(version), vec(any_packet(sender, version), 1..6)))
}

fn encoded(version: ProtocolVersion, packet: &Any) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.as_packet().encode(version, &mut bytes);
    bytes
}

/// Decodes bytes that may be anything. What is accepted has to survive encoding and decoding; an error has a Reason Code
/// that its answer may have.
pub(super) fn check(sender: Sender, version: ProtocolVersion, bytes: &[u8]) {
    let Ok(Frame::Complete { header_bytes, total_bytes }) = frame(bytes, PACKET_BYTES_MAX) else {
        return;
    };
    let bytes = &bytes[..total_bytes];
    match decode_from(sender, version, bytes, header_bytes) {
        Ok(decoded) => {
            let mut again = Vec::new();
            decoded.encode(version, &mut again);
            assert!(again.len() <= bytes.len(), "{version} {bytes:02X?}: there is a shorter form");
            assert_eq!(decode_one(sender, version, &again), Ok(decoded), "{version} {bytes:02X?}");
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let answer = match connect_refusal(bytes, header_bytes, &error) {
                Some((_, code)) => (PacketType::Connack, code),
                None if bytes[0] >> 4 == PacketType::Connect as u8 => return,
                None => (PacketType::Disconnect, error.reason_code()),
            };
            assert!(reason_codes_from_server(answer.0).any(|code| code == answer.1 && code.is_error()), "{error}");
        }
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn what_is_encoded_is_decoded((sender, version, packet) in read_packet()) {
        let bytes = encoded(version, &packet);
        prop_assert_eq!(decode_one(sender, version, &bytes), Ok(packet.as_packet()));
    }
}

proptest! {
    #![proptest_config(cases(300))]

    /// However a stream is cut, the same packets come out of it, and before a packet is whole nothing is taken for one.
    #[test]
    fn a_stream_in_pieces((sender, version, packets) in stream(), cuts in vec(any::<Index>(), 0..30)) {
        let bytes: Vec<u8> = packets.iter().flat_map(|packet| encoded(version, packet)).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let mut expected = packets.iter();
        let mut at = 0;
        for end in cuts {
            loop {
                match frame(&bytes[at..end], PACKET_BYTES_MAX) {
                    Ok(Frame::Complete { header_bytes, total_bytes }) => {
                        let packet = &bytes[at..at + total_bytes];
                        let decoded = decode_from(sender, version, packet, header_bytes);
                        prop_assert_eq!(decoded, Ok(expected.next().expect("no more than were sent").as_packet()));
                        at += total_bytes;
                    }
                    Ok(Frame::Incomplete { total_bytes }) => {
                        let whole = frame(&bytes[at..], PACKET_BYTES_MAX);
                        if let (Some(declared), Ok(Frame::Complete { total_bytes, .. })) = (total_bytes, whole) {
                            prop_assert_eq!(declared, total_bytes);
                        }
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        prop_assert!(expected.next().is_none());
    }
}

/// What a faulty network or a hostile peer makes of a packet.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// From here on it is the other packet, from there on.
    Splice(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, 1 << bit)),
        (any::<Index>(), select(vec![0, 1, 0x26, 0x7F, 0x80, 0xFF])).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (any::<Index>(), vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<Index>(), 1..6_usize).prop_map(|(at, count)| Damage::Remove(at, count)),
        (any::<Index>(), any::<Index>()).prop_map(|(at, from)| Damage::Splice(at, from)),
    ]
}

impl Damage {
    fn apply(&self, body: &mut Vec<u8>, other: &[u8]) {
        // Mostly near the start, where the fields are; a payload takes anything.
        let place = |index: &Index, length: usize| index.index((length + 1).min(60));
        match self {
            Damage::Flip(at, bits) => {
                let at = place(at, body.len());
                body.get_mut(at).into_iter().for_each(|byte| *byte ^= bits);
            }
            Damage::Set(at, value) => {
                let at = place(at, body.len());
                body.get_mut(at).into_iter().for_each(|byte| *byte = *value);
            }
            Damage::Insert(at, bytes) => {
                let at = place(at, body.len());
                body.splice(at..at, bytes.iter().copied());
            }
            Damage::Remove(at, count) => {
                let at = place(at, body.len());
                body.drain(at..(at + count).min(body.len()));
            }
            Damage::Splice(at, from) => {
                body.truncate(place(at, body.len()));
                body.extend_from_slice(&other[place(from, other.len())..]);
            }
        }
    }
}

/// A packet with its Remaining Length, whatever is in it.
fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    put_variable_byte_integer(&mut bytes, body.len());
    bytes.extend_from_slice(body);
    bytes
}

fn body_of(bytes: &[u8]) -> &[u8] {
    &bytes[header_bytes(bytes).expect("a whole packet")..]
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn damaged_packets_are_handled(
        (sender, version, packet) in read_packet(),
        (_, _, other) in read_packet(),
        damages in vec(damage(), 1..4),
        keep_length in prop::bool::weighted(0.2),
        first in proptest::option::weighted(0.2, any::<u8>()),
    ) {
        let bytes = encoded(version, &packet);
        let (other, first) = (encoded(V5, &other), first.unwrap_or(bytes[0]));
        // With the length of before, it ends too soon or goes on behind its end; with its own, fields do.
        let (mut whole, mut body) = (bytes.clone(), body_of(&bytes).to_vec());
        for damage in &damages {
            damage.apply(&mut whole, &other);
            damage.apply(&mut body, body_of(&other));
        }
        check(sender, version, if keep_length { &whole } else { &[] });
        let damaged = framed(first, &body);
        for version in [V3_1, V3_1_1, V5] {
            check(Sender::Client, version, &damaged);
            check(Sender::Server, version, &damaged);
        }
    }
}

proptest! {
    #![proptest_config(cases(20_000))]

    #[test]
    fn any_bytes_are_handled(
        first in any::<u8>(),
        body in vec(prop_oneof![0..6_u8, select(vec![0x0B, 0x11, 0x15, 0x16, 0x1F, 0x23, 0x26]), any::<u8>()], 0..40),
    ) {
        let bytes = framed(first, &body);
        for version in [V3_1, V3_1_1, V5] {
            check(Sender::Client, version, &bytes);
            check(Sender::Server, version, &bytes);
        }
        check(Sender::Client, V5, &body);
    }

    /// [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-4.7.0-1] What the standard library takes for UTF-8, but for U+0000 and, in Topic
    /// Names, wildcards.
    #[test]
    fn strings_are_utf_8(bytes in prop_oneof![
        vec(select(vec![b'a', 0, b'+', b'#', 0x7F, 0x80, 0xBF, 0xC2, 0xE0, 0xED, 0xA0, 0xEF, 0xF0, 0xF4, 0x8F]), 1..6),
        (text(), any::<Index>(), any::<u8>()).prop_map(|(text, at, byte)| {
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len() + 1);
            bytes.get_mut(at).into_iter().for_each(|old| *old = byte);
            bytes.truncate(100);
            bytes
        }),
    ]) {
        let string = [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
        let is_string = std::str::from_utf8(&bytes).is_ok() && !bytes.contains(&0);
        let is_name = is_string && !bytes.is_empty() && !bytes.iter().any(|byte| b"+#".contains(byte));
        let accepted = |first: u8, before: &[u8], behind: &[u8]| {
            let bytes = framed(first, &[before, &string, behind].concat());
            decode_one(Sender::Client, V5, &bytes).is_ok()
        };
        prop_assert_eq!(accepted(0x30, &[], &[0]), is_name);
        prop_assert_eq!(accepted(0x82, &[0, 1, 0], &[0]), is_string);
        prop_assert_eq!(accepted(0xA2, &[0, 1, 0], &[]), is_string);
        prop_assert_eq!(accepted(0x10, b"\0\x04MQTT\x05\x02\0\0\0", &[]), is_string);
        let property_bytes = 1 + string.len() as u8;
        prop_assert_eq!(accepted(0xE0, &[0, property_bytes, 0x1F], &[]), is_string);
    }

    /// [MQTT-1.5.5-1]
    #[test]
    fn variable_byte_integers(value in prop_oneof![
        0..268_435_456_usize,
        select(vec![0_usize, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455]),
    ], behind in binary()) {
        let mut bytes = vec![0x30];
        put_variable_byte_integer(&mut bytes, value);
        let header = bytes.len();
        prop_assert_eq!(header, 1 + wire::variable_byte_integer_bytes(value));
        for cut in 0..header {
            prop_assert_eq!(frame(&bytes[..cut], PACKET_BYTES_MAX), Ok(Frame::Incomplete { total_bytes: None }));
        }
        bytes.extend_from_slice(&behind[..behind.len().min(300)]);
        let total_bytes = header + value;
        prop_assert_eq!(frame(&bytes, PACKET_BYTES_MAX), Ok(if bytes.len() < total_bytes {
            Frame::Incomplete { total_bytes: Some(total_bytes) }
        } else {
            Frame::Complete { header_bytes: header, total_bytes }
        }));
    }
}
