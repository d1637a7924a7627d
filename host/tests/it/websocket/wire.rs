//! WebSocket from a client's side, in bytes: it shares no code with the server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::harness::PATIENCE;
use crate::mqtt::{Client, Wire};

/// The mask of all frames; its bytes differ from each other.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub(super) const MORE: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// A request as clients send it, with these headers besides.
pub(crate) fn request(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// The header that a client of MQTT sends.
pub(crate) const SUBPROTOCOL: &str = "Sec-WebSocket-Protocol: mqtt\r\n";

/// What the key above has to be answered with (RFC 6455, section 1.3).
pub(super) const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

/// A frame as a client sends it; the first byte has the flags and the operation code.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ ..126 => frame.push(0x80 | short as u8),
        medium @ ..65_536 => {
            frame.push(0xfe);
            frame.extend((medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0xff);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A connection behind its handshake, which carries the bytes that are written in binary frames.
pub(crate) struct WebSocketWire<W> {
    pub(super) wire: W,
    /// What has come and is not a whole frame.
    came: Vec<u8>,
    /// What binary frames had, as far as it was not read.
    plain: Vec<u8>,
    /// Other frames, in their order: first byte, payload.
    pub(super) others: Vec<(u8, Vec<u8>)>,
    /// Bytes of packets in a frame, at most.
    pub(super) frame_bytes_max: usize,
}

impl<W: Wire> WebSocketWire<W> {
    /// Sends the request and reads the answer, which has to be that it was accepted.
    #[track_caller]
    pub(crate) fn upgraded(mut wire: W, headers: &str) -> Self {
        wire.set_patience(PATIENCE);
        wire.write_all(request("/mqtt", headers).as_bytes()).unwrap();
        let response = head(&mut wire);
        assert!(response.starts_with("HTTP/1.1 101 ") && response.contains(ACCEPT), "{response}");
        Self { wire, came: Vec::new(), plain: Vec::new(), others: Vec::new(), frame_bytes_max: 1 << 20 }
    }

    /// Reads one frame: its first byte and its payload. `None` at the end of the connection.
    pub(super) fn frame(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some((first, payload, bytes)) = whole_frame(&self.came) {
                let payload = payload.to_vec();
                self.came.drain(..bytes);
                return Ok(Some((first, payload)));
            }
            let mut some = [0; 1 << 16];
            match self.wire.read(&mut some) {
                Ok(0) => return Ok(None),
                Ok(bytes) => self.came.extend_from_slice(&some[..bytes]),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads until the server closes: what it says in its Close frame, behind which nothing comes.
    #[track_caller]
    pub(super) fn closed(&mut self) -> Vec<u8> {
        self.wire.set_patience(PATIENCE);
        while let Some((first, payload)) = self.frame().expect("frames, and the end") {
            if first == 0x80 | CLOSE {
                assert!(matches!(self.frame(), Ok(None)), "something behind its Close frame");
                return payload;
            }
        }
        panic!("the end without a Close frame")
    }
}

/// The frame that `bytes` begin with, and its length with its header. A server does not mask, and has no need of fragments.
fn whole_frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&first, &length) = (bytes.first()?, bytes.get(1)?);
    assert!(length & 0x80 == 0 && first & 0x80 != 0, "{first:02x} {length:02x}");
    let (header, length) = match length {
        126 => (4, u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()).into()),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap())),
        short => (2, short.into()),
    };
    let end = header + usize::try_from(length).unwrap();
    Some((first, bytes.get(header..end)?, end))
}

/// Reads an HTTP head, and nothing behind it.
pub(crate) fn head(wire: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(wire.read(&mut byte).expect("an answer"), 1, "the end after {:?}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("ASCII")
}

impl<W: Wire> Read for WebSocketWire<W> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.plain.is_empty() {
            match self.frame()? {
                Some((0x82, payload)) => self.plain = payload,
                Some(other) => self.others.push(other),
                None => return Ok(0),
            }
        }
        let bytes = self.plain.len().min(into.len());
        into[..bytes].copy_from_slice(&self.plain[..bytes]);
        self.plain.drain(..bytes);
        Ok(bytes)
    }
}

impl<W: Wire> Write for WebSocketWire<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = &bytes[..bytes.len().min(self.frame_bytes_max)];
        self.wire.write_all(&frame(0x80 | BINARY, some))?;
        Ok(some.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.flush()
    }
}

impl<W: Wire> Wire for WebSocketWire<W> {
    fn set_patience(&self, patience: Duration) {
        self.wire.set_patience(patience);
    }

    fn finish(&mut self) {
        self.wire.write_all(&frame(0x80 | CLOSE, &1000u16.to_be_bytes())).unwrap();
    }
}

/// A client over WebSocket over plain TCP.
#[track_caller]
pub(crate) fn ws_open(addr: SocketAddr, version: u8) -> Client<WebSocketWire<TcpStream>> {
    let socket = TcpStream::connect(addr).expect("the server accepts");
    socket.set_nodelay(true).unwrap();
    Client::over(WebSocketWire::upgraded(socket, SUBPROTOCOL), version)
}
