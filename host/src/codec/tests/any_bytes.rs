//! Whatever arrives, the answer is a packet or an error, and a packet means what it says.

use super::generated::check;
use super::*;

/// A packet of every type with most that it can have, for tests that then damage it.
const RICH: &[(Sender, ProtocolVersion, &str)] = &[
    (Sender::Client, V3_1, "10: <MQIsdp> 03 F6 0000 <me> <w/t> <bye> <user> <secret>"),
    (Sender::Client, V3_1_1, "10: <MQTT> 04 F6 0000 <me> <w/t> <bye> <user> <secret>"),
    (
        Sender::Client,
        V5,
        "10: <MQTT> 05 F6 0000 { 11 00000001 15 <M> 16 <d> 26 <k> <v> } <me> { 18 00000001 08 <r> } <w> <bye> <user> <secret>",
    ),
    (Sender::Server, V3_1_1, "20: 01 00"),
    (Sender::Server, V5, "20: 01 00 { 12 <id> 21 0001 26 <k> <v> }"),
    (Sender::Client, V3_1_1, "3B: <a/b> 0001 'payload'"),
    (Sender::Client, V5, "3B: <a/b> 0001 { 01 01 02 00000001 08 <r> 26 <k> <v> 23 0001 } 'payload'"),
    (Sender::Server, V5, "3D: <ü/b> 0001 { 0B 8001 } 'payload'"),
    (Sender::Client, V5, "40: 0001 10 { 1F <why> }"),
    (Sender::Client, V5, "50: 0001 10 { 1F <why> }"),
    (Sender::Client, V5, "62: 0001 92 { 1F <why> }"),
    (Sender::Client, V5, "70: 0001 92 { 1F <why> }"),
    (Sender::Client, V3_1, "82: 0001 <a/#> 01 <b> 02"),
    (Sender::Client, V5, "82: 0001 { 0B 8001 26 <k> <v> } <a/#> 2D <$share/g/b> 01"),
    (Sender::Server, V5, "90: 0001 { 1F <why> } 00 87"),
    (Sender::Client, V5, "A2: 0001 { 26 <k> <v> } <a/#> <b>"),
    (Sender::Server, V5, "B0: 0001 { 1F <why> } 00 11"),
    (Sender::Client, V5, "E0: 04 { 11 00000001 1F <why> }"),
    (Sender::Client, V5, "F0: 19 { 15 <M> 16 <d> }"),
];

#[test]
fn every_prefix_is_incomplete_and_every_shortened_packet_is_handled() {
    for &(sender, version, text) in RICH {
        let bytes = packet(text);
        for length in 0..bytes.len() {
            let prefix = &bytes[..length];
            assert!(matches!(frame(prefix, PACKET_BYTES_MAX), Ok(Frame::Incomplete { .. })));
            // As if the packet ended there.
            let mut shortened = prefix.to_vec();
            if let Some(remaining_length) = shortened.get_mut(1) {
                *remaining_length = (length - 2) as u8;
                check(sender, version, &shortened);
            }
            // A wrong size of the header must not be a panic either.
            let _ = decode_from(sender, version, prefix, length + 1);
            let _ = decode_from(sender, version, prefix, length);
        }
    }
}

#[test]
fn every_changed_byte_is_handled() {
    for &(sender, version, text) in RICH {
        let bytes = packet(text);
        for index in 0..bytes.len() {
            for value in 0..=255 {
                let mut changed = bytes.clone();
                changed[index] = value;
                check(sender, version, &changed);
            }
        }
    }
}
