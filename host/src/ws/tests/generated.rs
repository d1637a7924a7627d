//! By chance, against tungstenite's own idea of frames.

use std::io::Cursor;

use proptest::collection::vec;
use proptest::prelude::*;
use tungstenite::protocol::frame::coding::{Control, Data};
use tungstenite::protocol::{Message, Role, WebSocket as Client};

use super::*;

/// Bytes of which neighbours differ.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|number| ((number * 31) >> 3) as u8).collect()
}

/// A frame that a client may send at this place.
#[derive(Debug, Clone)]
enum Sent {
    /// Bytes of packets, in so many fragments and one.
    Message(Vec<u8>, Vec<u16>),
    Control(bool, Vec<u8>),
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        4 => (vec(any::<u8>(), 0..300), vec(any::<u16>(), 0..4)).prop_map(|(bytes, cuts)| Sent::Message(bytes, cuts)),
        1 => (65_500usize..66_000).prop_map(|length| Sent::Message(pattern(length), Vec::new())),
        1 => (any::<bool>(), vec(any::<u8>(), 0..=125)).prop_map(|(ping, bytes)| Sent::Control(ping, bytes)),
    ]
}

/// What a client sends, the bytes of packets in it, and what its last Ping says.
fn on_the_wire(frames: &[Sent], mask: [u8; 4]) -> (Vec<u8>, Vec<u8>, Option<Vec<u8>>) {
    let (mut wire, mut plain, mut ping) = (Vec::new(), Vec::new(), None);
    for sent in frames {
        match sent {
            Sent::Control(is_ping, payload) => {
                let control = if *is_ping { Control::Ping } else { Control::Pong };
                wire.extend(masked(OpCode::Control(control), true, false, mask, payload));
                ping = is_ping.then(|| payload.clone()).or(ping);
            }
            Sent::Message(bytes, cuts) => {
                plain.extend_from_slice(bytes);
                let mut cuts: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) % (bytes.len() + 1)).collect();
                cuts.extend([0, bytes.len()]);
                cuts.sort_unstable();
                for (at, ends) in cuts.windows(2).enumerate() {
                    let data = if at == 0 { Data::Binary } else { Data::Continue };
                    let is_final = at + 2 == cuts.len();
                    wire.extend(masked(OpCode::Data(data), is_final, false, mask, &bytes[ends[0]..ends[1]]));
                }
            }
        }
    }
    (wire, plain, ping)
}

/// Bytes in pieces, of these sizes in turn.
fn in_pieces<'a>(mut bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let (piece, rest) = bytes.split_at(bytes.len().min(*sizes.next()?));
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_that_a_client_may_send_is_understood_however_it_comes(
        frames in vec(sent(), 0..12), mask: [u8; 4], sizes in vec(1usize..5_000, 1..5),
    ) {
        let (wire, plain, ping) = on_the_wire(&frames, mask);
        let (mut websocket, mut got) = (WebSocket::new(false), Vec::new());
        for piece in in_pieces(&wire, &sizes) {
            let end = websocket.open(&mut piece.to_vec(), |bytes| got.extend_from_slice(bytes));
            prop_assert_eq!(end, None);
        }
        prop_assert!(got == plain, "{} of {} bytes", got.len(), plain.len());
        let mut reply = Vec::new();
        websocket.reply(&mut reply);
        let expected = ping.map_or(Vec::new(), |ping| [&[0x8a, ping.len() as u8][..], &ping].concat());
        prop_assert_eq!(reply, expected);
        prop_assert_eq!(websocket.held_bytes(), 0);
    }

    #[test]
    fn what_is_sent_is_what_a_client_reads(lengths in vec(prop_oneof![1usize..300, 1usize..70_000], 0..4), pings in vec(any::<bool>(), 4)) {
        let (mut websocket, mut wire) = (WebSocket::new(false), Vec::new());
        let mut expected = Vec::new();
        for (part, ping) in lengths.into_iter().map(pattern).zip(pings) {
            if ping {
                websocket.open(&mut frame(9, true, b"?"), |_| ());
                websocket.reply(&mut wire);
                expected.push(Message::Pong("?".into()));
            }
            websocket.seal(&part, &mut wire);
            expected.push(Message::Binary(part.into()));
        }
        websocket.close(true, &mut wire);
        let mut client = Client::from_raw_socket(Cursor::new(wire), Role::Client, None);
        for message in expected {
            prop_assert!(client.read().unwrap() == message);
        }
        let Message::Close(Some(close)) = client.read().unwrap() else { panic!("no Close") };
        prop_assert_eq!(u16::from(close.code), 1001);
    }

    #[test]
    fn nonsense_is_the_same_however_it_comes(
        wire in vec(prop_oneof![Just(0x82u8), Just(0x80), Just(0xc2), any::<u8>()], 0..200), deflate: bool, size in 1usize..40,
    ) {
        let whole = opened(&mut WebSocket::new(deflate), &wire, 1 << 20);
        let in_pieces = opened(&mut WebSocket::new(deflate), &wire, size);
        // What was inflated before the fault depends on how it came.
        if !deflate {
            prop_assert_eq!((whole.0, whole.1), (in_pieces.0, in_pieces.1));
        }
    }

    #[test]
    fn request_is_the_same_however_it_comes(
        request in vec(prop_oneof![
            Just("GET "), Just("/mqtt"), Just(" HTTP/1.1"), Just("\r\n"), Just("Host: h\r\n"), Just("Upgrade: websocket\r\n"),
            Just("Connection: Upgrade\r\n"), Just("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), Just("\n"), Just(": "),
            Just("Sec-WebSocket-Protocol: mqtt\r\n"), Just("Sec-WebSocket-Version: 13\r\n"), Just("\u{fc}"), Just("\0"),
        ], 0..20),
        size in 1usize..40,
    ) {
        let settings = Settings { request_bytes_max: 300, ..Settings::default() };
        let request = request.concat();
        let outcome = |step: Step| match step {
            Step::More => None,
            Step::Accepted(accepted) => Some(Ok((accepted.request, accepted.response))),
            Step::Refused(refused) => Some(Err(refused)),
        };
        let whole = outcome(Upgrade::default().feed(request.as_bytes(), &settings));
        let mut upgrade = Upgrade::default();
        let mut steps = request.as_bytes().chunks(size).map(|piece| upgrade.feed(piece, &settings));
        prop_assert_eq!(whole, steps.find_map(outcome));
    }
}
