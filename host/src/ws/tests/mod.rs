//! Requests and frames as they are on the wire.

mod frames;
mod generated;
mod upgrades;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::OpCode;

use super::*;

/// A mask whose bytes differ from each other.
const MASK: [u8; 4] = [0x11, 0x22, 0x44, 0x88];

/// A frame as a client sends it.
fn frame(opcode: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
    masked(OpCode::from(opcode), is_final, false, MASK, payload)
}

fn masked(opcode: OpCode, is_final: bool, rsv1: bool, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = FrameHeader { is_final, rsv1, rsv2: false, rsv3: false, opcode, mask: Some(mask) };
    header.format(payload.len() as u64, &mut bytes).unwrap();
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// What a connection makes of `sent`, which comes in pieces of so many bytes: the bytes of packets, the end, and what the
/// client gets.
fn opened(websocket: &mut WebSocket, sent: &[u8], piece_bytes: usize) -> (Vec<u8>, Option<End>, Vec<u8>) {
    let (mut plain, mut end, mut replies) = (Vec::new(), None, Vec::new());
    for piece in sent.chunks(piece_bytes) {
        let came = websocket.open(&mut piece.to_vec(), |bytes| plain.extend_from_slice(bytes));
        assert!(end.is_none() || came.is_none(), "there is one end");
        end = end.or(came);
        websocket.reply(&mut replies);
    }
    (plain, end, replies)
}
