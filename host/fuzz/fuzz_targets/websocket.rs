//! Any bytes, as the request or the frames of a WebSocket client, in pieces of any size: it means the same however it comes,
//! and little is held.
//!
//! The first byte of an input chooses what it is, the second one is the size of the pieces, the rest is what is sent.

#![no_main]

use host::ws::{End, HEADERS_MAX, Refused, Request, Settings, Step, Upgrade, WebSocket};
use libfuzzer_sys::fuzz_target;

/// Bytes of a header, of a control frame's payload, or of the window of a compressed message, and some for each buffer.
const HELD_BYTES_MAX: usize = 48 << 10;

fuzz_target!(|input: &[u8]| {
    let [what, size, sent @ ..] = input else { return };
    let size = usize::from(*size) + 1;
    match what % 4 {
        0 => check_request(sent, size, &Settings { request_bytes_max: 400, ..Settings::default() }),
        1 => {
            let origins = vec!["https://example.com".to_owned()];
            let path = "/".to_owned();
            check_request(sent, size, &Settings { path, origins, request_bytes_max: 16 << 10, deflate: true });
        }
        deflate => check_frames(sent, size, deflate == 3),
    }
});

fn check_request(sent: &[u8], size: usize, settings: &Settings) {
    let outcome = |step| match step {
        Step::More => None,
        Step::Accepted(accepted) => Some(Ok((accepted.request, accepted.response, accepted.taken))),
        Step::Refused(refused) => Some(Err(refused)),
    };
    let whole = outcome(Upgrade::default().feed(sent, settings));
    let mut upgrade = Upgrade::default();
    let mut came = 0;
    let in_pieces = sent.chunks(size).find_map(|piece| {
        let outcome = outcome(upgrade.feed(piece, settings));
        assert!(upgrade.held_bytes() <= 2 * settings.request_bytes_max);
        came += piece.len();
        outcome
            .map(|accepted| accepted.map(|(request, response, taken)| (request, response, came - piece.len() + taken)))
    });
    assert_eq!(whole, in_pieces);
    match whole {
        Some(Ok((request, response, taken))) => check_accepted(&request, &response, taken, settings),
        Some(Err(refused)) => check_refused(&refused),
        None => assert!(sent.len() < settings.request_bytes_max),
    }
}

fn check_accepted(request: &Request, response: &[u8], taken: usize, settings: &Settings) {
    assert_eq!(request.path(), settings.path);
    assert!(request.0.headers.len() <= HEADERS_MAX && taken <= settings.request_bytes_max);
    let response = std::str::from_utf8(response).expect("ASCII");
    assert!(response.starts_with("HTTP/1.1 101 ") && response.ends_with("\r\n\r\n"));
    assert_eq!(response.matches("\r\n\r\n").count(), 1, "nothing of the request ends the answer");
    assert_eq!(response.matches("Sec-WebSocket-Protocol: mqtt").count(), 1);
}

fn check_refused(refused: &Refused) {
    assert!((400..600).contains(&refused.status) && !refused.reason.is_empty());
    let response = String::from_utf8(refused.response()).expect("text");
    let (_, body) = response.split_once("\r\n\r\n").expect("an end of the headers");
    assert!(response.contains(&format!("Content-Length: {}\r\n", body.len())));
}

fn check_frames(sent: &[u8], size: usize, deflate: bool) {
    let whole = opened(sent, sent.len().max(1), deflate);
    let in_pieces = opened(sent, size, deflate);
    assert_eq!(whole.1, in_pieces.1);
    // What could be inflated before something was wrong depends on how it came.
    let is_inexact = deflate && matches!(whole.1, Some(End::Failed(_)));
    assert!(is_inexact || whole.0 == in_pieces.0);
    assert!(deflate || whole.0.len() <= sent.len());
}

/// The bytes of packets, and the end.
fn opened(sent: &[u8], size: usize, deflate: bool) -> (Vec<u8>, Option<End>) {
    let mut websocket = WebSocket::new(deflate);
    let (mut plain, mut end, mut replies) = (Vec::new(), None, Vec::new());
    for piece in sent.chunks(size) {
        let came = websocket.open(&mut piece.to_vec(), |bytes| plain.extend_from_slice(bytes));
        assert!(end.is_none() || came.is_none());
        end = end.or(came);
        assert!(websocket.held_bytes() <= HELD_BYTES_MAX);
        websocket.reply(&mut replies);
        // A Pong has no more than its Ping, and no mask.
        assert!(replies.len() <= sent.len());
    }
    let mut wire = Vec::new();
    websocket.close(false, &mut wire);
    assert!((2..=127).contains(&wire.len()) && usize::from(wire[1]) == wire.len() - 2);
    assert!(end.is_none() || websocket.held_bytes() == 0);
    (plain, end)
}
