//! permessage-deflate (RFC 7692), each message by itself: nothing is kept from one to the next, in either direction, so that
//! an idle connection holds no window.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::header;
use super::{Fault, Request};

/// The header of an answer that accepts it.
pub(super) const ANSWER: &str =
    "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";

/// What each compressed message ends with, and what is left out of it.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// What is smaller hardly becomes smaller, in bytes.
const WORTH_IT_BYTES: usize = 128;

/// Bytes that are given at a time.
const PIECE_BYTES: usize = 16 << 10;

/// What one message may become, in bytes: more than the largest Control Packet that any server takes.
const MESSAGE_BYTES_MAX: u32 = 256 << 20;

/// About what a message takes while it is incomplete: mostly the window, and the tables of codes.
pub(super) const INFLATE_BYTES: usize = 44 << 10;

/// Whether the client offers it in a way that we can accept.
pub(super) fn is_offered(request: &Request) -> bool {
    request.elements("Sec-WebSocket-Extensions").any(is_acceptable)
}

fn is_acceptable(offer: &str) -> bool {
    let mut parts = offer.split(';').map(str::trim);
    let mut seen = Vec::new();
    parts.next() == Some("permessage-deflate")
        && parts.all(|parameter| {
            let (name, value) = parameter
                .split_once('=')
                .map_or((parameter, None), |(name, value)| (name.trim(), Some(value.trim().trim_matches('"'))));
            let is_new = !seen.contains(&name);
            seen.push(name);
            // A smaller window of ours (server_max_window_bits) would have to be kept to, which the compressor cannot do.
            is_new
                && match name {
                    "server_no_context_takeover" | "client_no_context_takeover" => value.is_none(),
                    "client_max_window_bits" => value.is_none_or(|bits| {
                        !bits.starts_with('0') && bits.parse().is_ok_and(|bits| (8..=15).contains(&bits))
                    }),
                    _ => false,
                }
        })
}

thread_local! {
    /// One for all connections of a worker: a message is compressed in one go, and 300 KiB for each would be much.
    static COMPRESS: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
}

/// Appends a compressed frame. `false` if it would not be smaller: nothing was appended then.
pub(super) fn put_compressed(plain: &[u8], wire: &mut Vec<u8>) -> bool {
    if plain.len() < WORTH_IT_BYTES {
        return false;
    }
    // What does not fit is not worth it.
    let mut compressed = Vec::with_capacity(plain.len());
    let done = COMPRESS.with_borrow_mut(|compress| {
        compress.reset();
        let status = compress.compress_vec(plain, &mut compressed, FlushCompress::Sync);
        // Where there is room left, everything was flushed.
        matches!(status, Ok(Status::Ok))
            && compress.total_in() == plain.len() as u64
            && compressed.len() < compressed.capacity()
    });
    let Some(message) = compressed.strip_suffix(&TAIL).filter(|_| done) else { return false };
    header::put(OpCode::Data(Data::Binary), true, message.len(), wire);
    wire.extend_from_slice(message);
    true
}

/// A compressed message that is coming.
#[derive(Debug)]
pub(super) struct Inflate {
    decompress: Decompress,
    /// The last block has ended; only padding may follow.
    is_done: bool,
}

impl Default for Inflate {
    fn default() -> Self {
        Self { decompress: Decompress::new(false), is_done: false }
    }
}

impl Inflate {
    /// Takes more of the message, and gives what becomes of it.
    pub(super) fn take(&mut self, mut compressed: &[u8], into: &mut impl FnMut(&mut [u8])) -> Result<(), Fault> {
        let mut piece = [0; PIECE_BYTES];
        while !self.is_done {
            let (read, written) = (self.decompress.total_in(), self.decompress.total_out());
            let status = self.decompress.decompress(compressed, &mut piece, FlushDecompress::None);
            let status = status.map_err(|_| Fault::Compressed)?;
            // Neither is more than was given.
            let read = (self.decompress.total_in() - read) as usize;
            let written = (self.decompress.total_out() - written) as usize;
            compressed = &compressed[read..];
            if self.decompress.total_out() > MESSAGE_BYTES_MAX.into() {
                return Err(Fault::TooLarge(MESSAGE_BYTES_MAX));
            }
            if written > 0 {
                into(&mut piece[..written]);
            }
            self.is_done = status == Status::StreamEnd;
            // Where there was room left, everything was written.
            if compressed.is_empty() && written < PIECE_BYTES || read == 0 && written == 0 {
                break;
            }
        }
        if self.is_done && compressed.iter().any(|byte| *byte != 0) {
            return Err(Fault::Compressed);
        }
        Ok(())
    }

    /// The message has come.
    pub(super) fn finish(&mut self, into: &mut impl FnMut(&mut [u8])) -> Result<(), Fault> {
        if self.is_done { Ok(()) } else { self.take(&TAIL, into) }
    }
}
