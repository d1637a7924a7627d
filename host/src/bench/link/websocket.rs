//! WebSocket at the client's side, without a socket: the request, the answer to it, and frames.
//!
//! Nothing of the broker's own code is used, as with packets.

use super::super::packets::first_frame;

/// The key of every request, and what has to be answered to it: the example of RFC 6455. It keeps nothing secret, and is there
/// so that only a server that means it answers.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// An answer to the request that is longer is none.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The longest header of a frame.
const HEADER_BYTES_MAX: usize = 14;
/// The longest control frame.
const CONTROL_BYTES_MAX: u64 = 125;

mod opcode {
    pub(super) const CONTINUATION: u8 = 0;
    pub(super) const BINARY: u8 = 2;
    pub(super) const CLOSE: u8 = 8;
    pub(super) const PING: u8 = 9;
    pub(super) const PONG: u8 = 10;
}

/// Where clients ask for a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocket {
    /// The broker's name, and its port where that is not the scheme's.
    pub host: String,
    /// Such as `/mqtt`.
    pub path: String,
}

/// One connection.
#[derive(Debug)]
pub(super) struct WebSocketLayer {
    state: State,
    /// The start of a header or a control frame that has not come in full.
    part: Vec<u8>,
    /// What masks are made from.
    chance: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The request has been, or is to be, sent.
    Asked,
    /// So many bytes of a frame's payload are still to come; 0: a header is.
    Open { left: u64 },
}

impl WebSocketLayer {
    pub(super) fn new(chance: u64) -> Self {
        Self { state: State::Asked, part: Vec::new(), chance: chance.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state != State::Asked
    }

    /// The request.
    pub(super) fn request(at: &WebSocket, protocol: &str) -> Vec<u8> {
        let WebSocket { host, path } = at;
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
        )
        .into_bytes()
    }

    /// Takes all that came: appends what frames carry to `plain`, and what is to be answered to `answer`.
    pub(super) fn open(&mut self, came: &[u8], plain: &mut Vec<u8>, answer: &mut Vec<u8>) -> Result<(), String> {
        let mut joined;
        let mut rest = came;
        if !self.part.is_empty() {
            joined = std::mem::take(&mut self.part);
            joined.extend_from_slice(came);
            rest = &joined[..];
        }
        loop {
            match self.state {
                State::Asked => match end_of_head(rest)? {
                    None => break,
                    Some(end) => {
                        check_answer(&rest[..end])?;
                        (self.state, rest) = (State::Open { left: 0 }, &rest[end..]);
                    }
                },
                State::Open { left: 0 } => match self.take_header(rest, answer)? {
                    0 => break,
                    bytes => rest = &rest[bytes..],
                },
                State::Open { left } => {
                    let here = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    plain.extend_from_slice(&rest[..here]);
                    rest = &rest[here..];
                    self.state = State::Open { left: left - here as u64 };
                    if rest.is_empty() {
                        break;
                    }
                }
            }
        }
        self.part.extend_from_slice(rest);
        Ok(())
    }

    /// Takes the header of a data frame, or a whole control frame. Returns how long it is; 0 if it is not there in full.
    fn take_header(&mut self, bytes: &[u8], answer: &mut Vec<u8>) -> Result<usize, String> {
        let Some(&[first, second]) = bytes.first_chunk() else { return Ok(0) };
        let (kind, bits) = (first & 0x0f, second & 0x7f);
        if first & 0x70 != 0 || second & 0x80 != 0 {
            return Err(format!("the broker sent a WebSocket frame that no server may send: {first:02x} {second:02x}"));
        }
        let (length, header) = match bits {
            126 => (bytes[2..].first_chunk().map(|length| u64::from(u16::from_be_bytes(*length))), 4),
            127 => (bytes[2..].first_chunk().map(|length| u64::from_be_bytes(*length)), 10),
            bits => (Some(u64::from(bits)), 2),
        };
        let Some(length) = length else { return Ok(0) };
        if kind == opcode::BINARY || kind == opcode::CONTINUATION {
            self.state = State::Open { left: length };
            return Ok(header);
        }
        if length > CONTROL_BYTES_MAX || first & 0x80 == 0 || !(opcode::CLOSE..=opcode::PONG).contains(&kind) {
            return Err(format!("the broker sent a WebSocket frame that is not MQTT's: {first:02x} {second:02x}"));
        }
        let Some(payload) = bytes.get(header..header + length as usize) else { return Ok(0) };
        match kind {
            opcode::PING => self.push_frame(opcode::PONG, payload, answer),
            opcode::CLOSE => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                let why = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                return Err(format!("the broker closed the WebSocket with {code} {why}").trim_end().to_owned());
            }
            _ => {}
        }
        Ok(header + payload.len())
    }

    /// Appends these packets, each in a frame of its own, as clients do.
    pub(super) fn seal(&mut self, packets: &[u8], wire: &mut Vec<u8>) {
        let mut rest = packets;
        while !rest.is_empty() {
            let bytes = match first_frame(rest) {
                Ok(Some(packet)) => packet.bytes,
                // Whatever is no whole packet is sent all the same.
                _ => rest.len(),
            };
            self.push_frame(opcode::BINARY, &rest[..bytes], wire);
            rest = &rest[bytes..];
        }
    }

    /// Appends a Close frame.
    pub(super) fn close(&mut self, wire: &mut Vec<u8>) {
        self.push_frame(opcode::CLOSE, &1000_u16.to_be_bytes(), wire);
    }

    fn push_frame(&mut self, kind: u8, payload: &[u8], wire: &mut Vec<u8>) {
        wire.reserve(HEADER_BYTES_MAX + payload.len());
        wire.push(0x80 | kind);
        match payload.len() {
            length @ ..126 => wire.push(0x80 | length as u8),
            length @ ..0x1_0000 => {
                wire.push(0x80 | 126);
                wire.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                wire.push(0x80 | 127);
                wire.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        let mask = self.mask();
        wire.extend_from_slice(&mask);
        let start = wire.len();
        wire.extend_from_slice(payload);
        apply_mask(mask, &mut wire[start..]);
    }

    /// A mask that is different for each frame. What is sent is no secret, so that any chance will do.
    fn mask(&mut self) -> [u8; 4] {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        ((self.chance >> 32) as u32).to_ne_bytes()
    }
}

fn apply_mask(mask: [u8; 4], payload: &mut [u8]) {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = payload.chunks_exact_mut(8);
    for bytes in &mut words {
        let masked = u64::from_ne_bytes(bytes.try_into().expect("eight")) ^ word;
        bytes.copy_from_slice(&masked.to_ne_bytes());
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Where the answer to the request ends, if it is there in full.
fn end_of_head(bytes: &[u8]) -> Result<Option<usize>, String> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    if end.is_none() && bytes.len() > HEAD_BYTES_MAX {
        return Err(format!("the broker's answer to the WebSocket request has no end after {} bytes", bytes.len()));
    }
    Ok(end)
}

/// It has to be yes.
fn check_answer(head: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        return Err(format!("the broker answered the WebSocket request with `{status}`: is the path right?"));
    }
    let header = |wanted: &str| {
        let mut fields = lines.clone().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim().to_owned())
    };
    if header("Sec-WebSocket-Accept").as_deref() != Some(ACCEPT) {
        return Err(
            "the broker's answer to the WebSocket request does not belong to it (Sec-WebSocket-Accept)".to_owned()
        );
    }
    match header("Sec-WebSocket-Protocol").as_deref() {
        Some("mqtt" | "mqttv3.1") => Ok(()),
        other => Err(format!("the broker's WebSocket speaks {other:?}, not mqtt (Sec-WebSocket-Protocol)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> WebSocketLayer {
        let mut layer = WebSocketLayer::new(7);
        let answer =
            format!("HTTP/1.1 101 Yes\r\nsec-websocket-accept: {ACCEPT}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n");
        layer.open(answer.as_bytes(), &mut Vec::new(), &mut Vec::new()).unwrap();
        assert!(layer.is_ready());
        layer
    }

    /// What a server finds in a client's frame.
    fn unmasked(frame: &[u8]) -> (u8, Vec<u8>, usize) {
        let header = match frame[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let length = match header {
            2 => usize::from(frame[1] & 0x7f),
            4 => usize::from(u16::from_be_bytes([frame[2], frame[3]])),
            _ => u64::from_be_bytes(frame[2..10].try_into().unwrap()) as usize,
        };
        assert_eq!(frame[1] & 0x80, 0x80, "clients mask");
        let (mask, payload) = frame[header..header + 4 + length].split_at(4);
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        (frame[0], payload, header + 4 + length)
    }

    #[test]
    fn each_packet_is_a_masked_frame_of_its_own() {
        let mut layer = open();
        let packet = |length: usize| {
            let mut packet =
                vec![0x30, (length % 128) as u8 | 0x80, (length / 128 % 128) as u8 | 0x80, (length >> 14) as u8];
            packet.resize(4 + length, 7);
            packet
        };
        let packets = [vec![0xc0, 0], packet(200), packet(70_000), vec![0xe0, 0]];
        let mut wire = Vec::new();
        layer.seal(&packets.concat(), &mut wire);
        let mut rest = &wire[..];
        for packet in packets {
            let (first, payload, bytes) = unmasked(rest);
            assert_eq!((first, payload == packet), (0x82, true), "{} bytes", packet.len());
            rest = &rest[bytes..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn frames_come_in_whatever_pieces() {
        let long = [&[0x82, 126, 1, 0][..], &[5; 256]].concat();
        // A continuation, and control frames in between.
        let wire = [&[0x02, 2, 1, 2][..], &[0x89, 1, 9], &[0x80, 1, 3], &[0x8a, 0], &long].concat();
        let expected = [&[1, 2, 3][..], &[5; 256]].concat();
        for piece in [1, 2, 3, 5, 100, wire.len()] {
            let (mut layer, mut plain, mut answer) = (open(), Vec::new(), Vec::new());
            wire.chunks(piece).for_each(|piece| layer.open(piece, &mut plain, &mut answer).unwrap());
            assert_eq!(plain, expected, "in pieces of {piece}");
            assert_eq!(unmasked(&answer), (0x8a, vec![9], 7), "the ping is answered");
        }
    }

    #[test]
    fn what_is_no_answer_and_no_frame_is_an_error() {
        let ask = |bytes: &[u8]| WebSocketLayer::new(1).open(bytes, &mut Vec::new(), &mut Vec::new());
        let yes = "HTTP/1.1 101 x\r\n";
        assert!(ask(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap_err().contains("404 Not Found"));
        assert!(ask(format!("{yes}\r\n").as_bytes()).unwrap_err().contains("Sec-WebSocket-Accept"));
        assert!(
            ask(format!("{yes}Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n").as_bytes()).unwrap_err().contains("not mqtt")
        );
        assert!(ask(&[b'x'; HEAD_BYTES_MAX + 1]).unwrap_err().contains("no end"));
        let table: &[(&[u8], &str)] = &[
            (&[0x88, 2, 3, 0xea], "closed the WebSocket with 1002"),
            (&[0x88, 4, 3, 0xe8, b'o', b'k'], "with 1000 ok"),
            (&[0x81, 1, b'x'], "not MQTT's"),
            (&[0x82, 0x81], "no server may send"),
            (&[0xc2, 0x01], "no server may send"),
            (&[0x89, 126, 0, 200], "not MQTT's"),
        ];
        for (bytes, expected) in table {
            let said = open().open(bytes, &mut Vec::new(), &mut Vec::new()).unwrap_err();
            assert!(said.contains(expected), "{bytes:02x?}: {said}");
        }
    }
}
