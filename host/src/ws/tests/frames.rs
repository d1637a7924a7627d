use super::*;

const BINARY: u8 = 2;
const TEXT: u8 = 1;
const MORE: u8 = 0;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Sent in one piece, byte by byte, and in between.
#[track_caller]
fn check(sent: &[u8], plain: &[u8], end: Option<End>, replies: &[u8]) {
    for piece_bytes in [usize::MAX, 7, 1] {
        let mut websocket = WebSocket::new(false);
        let (got, ended, replied) = opened(&mut websocket, sent, piece_bytes.min(sent.len()));
        assert_eq!(got, plain, "in pieces of {piece_bytes}");
        assert_eq!(ended, end, "in pieces of {piece_bytes}");
        if piece_bytes == usize::MAX {
            assert_eq!(replied, replies);
        }
        assert_eq!(websocket.held_bytes(), 0, "in pieces of {piece_bytes}");
    }
}

#[track_caller]
fn fails(sent: &[u8], fault: Fault) {
    check(sent, b"", Some(End::Failed(fault)), b"");
    // What came before is given, what comes after is not.
    let between = [&frame(BINARY, true, b"before"), sent, &frame(BINARY, true, b"after")].concat();
    check(&between, b"before", Some(End::Failed(fault)), b"");
}

#[test]
fn packets_and_frames_are_not_aligned() {
    // [MQTT-6.0.0-2] [MQTT-6.0.0-2@3.1.1]
    check(&frame(BINARY, true, b""), b"", None, b"");
    check(&frame(BINARY, true, b"one"), b"one", None, b"");
    let many: Vec<u8> = (0..9u8).flat_map(|n| frame(BINARY, true, &[n; 5])).collect();
    check(&many, &(0..9u8).flat_map(|n| [n; 5]).collect::<Vec<_>>(), None, b"");
    for length in [125, 126, 127, 65_535, 65_536, 70_001] {
        let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
        check(&frame(BINARY, true, &payload), &payload, None, b"");
    }
}

#[test]
fn message_may_come_in_fragments_with_control_frames_between_them() {
    let sent = [
        frame(BINARY, false, b"a"),
        frame(PING, true, b"hi"),
        frame(MORE, false, b""),
        frame(PONG, true, b"unasked"),
        frame(MORE, true, b"b"),
        frame(BINARY, true, b"c"),
    ];
    check(&sent.concat(), b"abc", None, b"\x8a\x02hi");
}

#[test]
fn last_of_several_pings_is_answered() {
    let (first, last) = (frame(PING, true, &[7; 125]), frame(PING, true, b""));
    check(&[first.clone(), last].concat(), b"", None, b"\x8a\x00");
    check(&first, b"", None, &[&b"\x8a\x7d"[..], &[7; 125]].concat());
}

#[test]
fn text_is_refused() {
    // [MQTT-6.0.0-1] [MQTT-6.0.0-1@3.1.1], also where it would go on in other frames, and before any of it has come.
    fails(&frame(TEXT, true, b"text"), Fault::NotBinary);
    fails(&frame(TEXT, false, b"te"), Fault::NotBinary);
    fails(&frame(TEXT, true, b"")[..6], Fault::NotBinary);
    assert_eq!(Fault::NotBinary.code(), 1003);
}

#[test]
fn frame_that_breaks_the_rules_is_refused() {
    let mut unmasked = frame(BINARY, true, b"");
    unmasked[1] &= 0x7f;
    fails(&unmasked[..2], Fault::NotMasked);
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        fails(&[0x80 | opcode, 0x80, 0, 0, 0, 0], Fault::Opcode(opcode));
    }
    for bit in [0x40, 0x20, 0x10] {
        let mut reserved = frame(BINARY, true, b"x");
        reserved[0] |= bit;
        fails(&reserved, Fault::ReservedBits);
    }
    fails(b"\x82\xfe\0\x7d\0\0\0\0", Fault::Length);
    fails(b"\x82\xff\0\0\0\0\0\0\xff\xff\0\0\0\0", Fault::Length);
    fails(b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0", Fault::Length);
    fails(&frame(PING, false, b""), Fault::ControlFrame);
    fails(&frame(PING, true, &[0; 126])[..8], Fault::ControlFrame);
    fails(&frame(MORE, true, b"x"), Fault::NothingToContinue);
    let begun_twice = [frame(BINARY, false, b"a"), frame(BINARY, true, b"b")].concat();
    check(&begun_twice, b"a", Some(End::Failed(Fault::NotContinued)), b"");
    fails(&frame(CLOSE, true, b"\x03"), Fault::CloseFrame);
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        fails(&frame(CLOSE, true, &code.to_be_bytes()), Fault::CloseFrame);
    }
    fails(&frame(CLOSE, true, b"\x03\xe8\xff"), Fault::CloseReason);
}

#[test]
fn close_is_the_end() {
    check(&frame(CLOSE, true, b""), b"", Some(End::Closed(None)), b"");
    for code in [1000u16, 1001, 1003, 1011, 3000, 4999] {
        let sent = [
            frame(BINARY, true, b"last"),
            frame(CLOSE, true, &[&code.to_be_bytes()[..], b"why"].concat()),
            frame(BINARY, true, b"more"),
            frame(CLOSE, true, b""),
        ];
        check(&sent.concat(), b"last", Some(End::Closed(Some(code))), b"");
    }
}

#[test]
fn close_frame_says_why() {
    let text = b"got a text frame, expected MQTT Control Packets in binary frames";
    let cases: [(Vec<u8>, bool, Vec<u8>); 6] = [
        (Vec::new(), false, b"\x88\x02\x03\xe8".to_vec()),
        (Vec::new(), true, b"\x88\x02\x03\xe9".to_vec()),
        (frame(CLOSE, true, b""), false, b"\x88\x00".to_vec()),
        (frame(CLOSE, true, b"\x10\xe1why"), true, b"\x88\x02\x10\xe1".to_vec()),
        (
            frame(CLOSE, true, b"?"),
            false,
            [&b"\x88\x45\x03\xea"[..], Fault::CloseFrame.to_string().as_bytes()].concat(),
        ),
        (frame(TEXT, true, b"text"), true, [&b"\x88\x42\x03\xeb"[..], text].concat()),
    ];
    for (sent, stopping, expected) in cases {
        let (mut websocket, mut wire) = (WebSocket::new(false), Vec::new());
        websocket.open(&mut [frame(PING, true, b"?"), sent].concat(), |_| ());
        websocket.close(stopping, &mut wire);
        assert_eq!(wire, expected, "{}", String::from_utf8_lossy(&wire));
        // Nothing follows.
        websocket.reply(&mut wire);
        websocket.seal(b"more", &mut wire);
        websocket.close(false, &mut wire);
        assert_eq!(wire, expected);
    }
    let faults = [
        Fault::NotBinary,
        Fault::NotMasked,
        Fault::Opcode(15),
        Fault::ReservedBits,
        Fault::Length,
        Fault::ControlFrame,
        Fault::NothingToContinue,
        Fault::NotContinued,
        Fault::CloseFrame,
        Fault::CloseReason,
        Fault::Compressed,
        Fault::TooLarge(u32::MAX),
    ];
    for fault in faults {
        assert!(fault.to_string().len() <= 123, "{fault}: it goes into a Close frame");
    }
}

#[test]
fn what_is_sent_is_one_frame() {
    for (length, header) in [
        (1usize, &b"\x82\x01"[..]),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\0\x7e"),
        (65_535, b"\x82\x7e\xff\xff"),
        (65_536, b"\x82\x7f\0\0\0\0\0\x01\0\0"),
    ] {
        let (mut websocket, mut wire) = (WebSocket::new(false), b"before".to_vec());
        websocket.seal(&vec![7; length], &mut wire);
        assert_eq!(wire, [&b"before"[..], header, &vec![7; length]].concat());
    }
    let mut wire = Vec::new();
    WebSocket::new(false).seal(b"", &mut wire);
    assert!(wire.is_empty(), "there is nothing to be sent");
}

/// A client that offers it to a server that has it: small and large messages, whole and in fragments.
#[test]
fn compressed_messages_mean_the_same() {
    let plain: Vec<u8> = b"{\"temperature\": 21.5, \"unit\": \"C\"}".repeat(3_000);
    let mut wire = Vec::new();
    WebSocket::new(true).seal(&plain, &mut wire);
    assert_eq!(wire[0], 0xc2, "compressed");
    assert!(wire.len() < plain.len() / 20, "{} bytes", wire.len());
    let message = &wire[4..];
    let parts = [&message[..100], &message[100..101], &message[101..]];
    let in_fragments = [
        masked(OpCode::from(BINARY), false, true, MASK, parts[0]),
        frame(PING, true, b"!"),
        masked(OpCode::from(MORE), false, false, MASK, parts[1]),
        masked(OpCode::from(MORE), true, false, MASK, parts[2]),
        frame(BINARY, true, b"not compressed"),
        masked(OpCode::from(BINARY), true, true, MASK, message),
    ];
    let expected = [&plain[..], b"not compressed", &plain].concat();
    for piece_bytes in [1, 7, 1_000, 1 << 20] {
        let mut websocket = WebSocket::new(true);
        let (got, end, replies) = opened(&mut websocket, &in_fragments.concat(), piece_bytes);
        assert!(got == expected && end.is_none(), "{} bytes, {end:?}", got.len());
        assert_eq!(replies, b"\x8a\x01!");
        assert_eq!(websocket.held_bytes(), 0);
    }
}

/// What does not become smaller is sent as it is.
#[test]
fn only_what_becomes_smaller_is_compressed() {
    let mut noise = vec![0u8; 5_000];
    let mut state = 1u32;
    for byte in &mut noise {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    for plain in [&b"a".repeat(127), &noise] {
        let mut wire = Vec::new();
        WebSocket::new(true).seal(plain, &mut wire);
        assert!(wire[0] == 0x82 && wire.ends_with(plain));
    }
}

#[test]
fn message_that_cannot_be_inflated_is_refused() {
    // RFC 7692, section 7.2.3.4: a last block, and the padding behind it.
    let hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    let compressed = |payload: &[u8]| masked(OpCode::from(BINARY), true, true, MASK, payload);
    let mut websocket = WebSocket::new(true);
    assert_eq!(opened(&mut websocket, &compressed(&hello), 3), (b"Hello".to_vec(), None, Vec::new()));
    // A message that does not end; something behind the last block; a block type that does not exist.
    let unfinished = [masked(OpCode::from(BINARY), false, true, MASK, &hello[..3]), frame(CLOSE, true, b"")].concat();
    let mut websocket = WebSocket::new(true);
    assert_eq!(opened(&mut websocket, &unfinished, 1 << 20).1, Some(End::Closed(None)));
    assert_eq!(websocket.held_bytes(), 0);
    for payload in [&[&hello[..], b"more"].concat()[..], b"\x07", b"\xff\xff\xff"] {
        let mut websocket = WebSocket::new(true);
        let (_, end, _) = opened(&mut websocket, &compressed(payload), 1 << 20);
        assert_eq!(end, Some(End::Failed(Fault::Compressed)), "{payload:02x?}");
        assert_eq!(websocket.held_bytes(), 0);
    }
}

#[test]
fn idle_connection_is_small() {
    assert!(size_of::<WebSocket>() <= 80, "{}", size_of::<WebSocket>());
}
