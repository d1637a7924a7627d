//! One WebSocket connection, behind its handshake.

use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::deflate::{self, Inflate};
use super::header::{self, HEADER_BYTES_MAX, Header, Kind};
use super::{End, Fault};

/// Bytes of a Close frame's reason at most: the status code is in front of it.
const REASON_BYTES_MAX: usize = header::CONTROL_BYTES_MAX - 2;

/// The frames of one connection, in both directions.
///
/// Call [`WebSocket::open`] with what has come from the wire, in order. Where it says that there is an end, nothing that
/// comes afterwards counts. Call [`WebSocket::reply`] after each call of it, as the client may have asked for an answer;
/// [`WebSocket::seal`] with what is to be sent; and [`WebSocket::close`] when nothing more is.
///
/// It holds buffers only while a header, a control frame or a compressed message is incomplete, and for one answer.
#[derive(Debug, Default)]
pub struct WebSocket {
    /// Bytes of the present frame's payload that have not come.
    left: u64,
    /// The mask, turned so that its first byte is for the byte of the payload that comes next.
    mask: [u8; 4],
    /// The frame whose payload comes; `None` if its header does.
    kind: Option<Kind>,
    /// Whether the message that has begun ends with its frame.
    is_last: bool,
    /// Whether a message has begun whose last frame has not ended.
    in_message: bool,
    /// Whether frames may be compressed.
    deflate: bool,
    /// Whether a Close frame was sent.
    is_closed: bool,
    /// How it ended, where nothing that comes counts any more.
    end: Option<End>,
    /// A header or a control frame's payload, as far as it has come.
    held: Vec<u8>,
    /// What the last Ping said that was not answered.
    ping: Option<Box<[u8]>>,
    /// A compressed message, as far as it has come.
    inflate: Option<Box<Inflate>>,
}

impl WebSocket {
    /// A connection whose handshake is done, in which was agreed whether frames may be compressed.
    pub fn new(deflate: bool) -> Self {
        Self { deflate, ..Self::default() }
    }

    /// Takes what has come, gives the bytes of packets to `into`, in as few pieces as there can be, and says whether this
    /// was the end. What came before the end was given.
    ///
    /// What is in `wire` afterwards means nothing: the bytes are unmasked and put together where they are.
    pub fn open(&mut self, wire: &mut [u8], mut into: impl FnMut(&mut [u8])) -> Option<End> {
        // What is to be given, and where what has not been looked at begins.
        let (mut start, mut end, mut at) = (0, 0, 0);
        let outcome = loop {
            if self.end.is_some() {
                break None;
            }
            let Some(kind) = self.kind else {
                match self.take_header(&wire[at..]) {
                    Ok(taken) => at += taken,
                    Err(fault) => break Some(self.fail(fault)),
                }
                if self.kind.is_none() {
                    break None;
                }
                continue;
            };
            let taken = usize::try_from(self.left).map_or(wire.len() - at, |left| left.min(wire.len() - at));
            let payload = at..at + taken;
            self.mask = header::unmask(&mut wire[payload.clone()], self.mask);
            self.left -= taken as u64;
            if kind.is_control() {
                self.held.extend_from_slice(&wire[payload]);
            } else if let Some(inflate) = &mut self.inflate {
                // In the order in which they came.
                give(&mut wire[start..end], &mut into);
                (start, end) = (0, 0);
                if let Err(fault) = inflate.take(&wire[payload], &mut into) {
                    break Some(self.fail(fault));
                }
            } else if start == end {
                (start, end) = (payload.start, payload.end);
            } else {
                wire.copy_within(payload, end);
                end += taken;
            }
            at += taken;
            if self.left > 0 {
                break None;
            }
            self.kind = None;
            match self.end_frame(kind, &mut into) {
                Ok(None) => {}
                Ok(Some(end)) => break Some(end),
                Err(fault) => break Some(self.fail(fault)),
            }
        };
        give(&mut wire[start..end], &mut into);
        outcome
    }

    /// Takes the header that `wire` begins with, as far as it is there. Returns how many bytes were its own.
    fn take_header(&mut self, wire: &[u8]) -> Result<usize, Fault> {
        let before = self.held.len();
        let parsed = if before == 0 {
            Header::parse(wire)?
        } else {
            self.held.extend_from_slice(&wire[..wire.len().min(HEADER_BYTES_MAX - before)]);
            Header::parse(&self.held)?
        };
        let Some((header, header_bytes)) = parsed else {
            if before == 0 && !wire.is_empty() {
                self.held = wire.to_vec();
            }
            return Ok(wire.len());
        };
        self.held = Vec::new();
        self.begin_frame(header)?;
        Ok(header_bytes - before)
    }

    fn begin_frame(&mut self, header: Header) -> Result<(), Fault> {
        match header.kind {
            Kind::Binary if self.in_message => return Err(Fault::NotContinued),
            Kind::Continuation if !self.in_message => return Err(Fault::NothingToContinue),
            Kind::Binary if header.is_compressed && !self.deflate => return Err(Fault::ReservedBits),
            Kind::Binary if header.is_compressed => self.inflate = Some(Box::default()),
            _ => {}
        }
        if !header.kind.is_control() {
            self.in_message = true;
            self.is_last = header.is_final;
        }
        self.kind = Some(header.kind);
        self.left = header.payload_bytes;
        self.mask = header.mask;
        Ok(())
    }

    /// The payload of a frame has come.
    fn end_frame(&mut self, kind: Kind, into: &mut impl FnMut(&mut [u8])) -> Result<Option<End>, Fault> {
        match kind {
            Kind::Binary | Kind::Continuation => {
                if self.is_last {
                    self.in_message = false;
                    self.inflate.take().map_or(Ok(()), |mut inflate| inflate.finish(into))?;
                }
            }
            // Of several, the last one may stand for all (RFC 6455, section 5.5.3): who does not read gets no more.
            Kind::Ping => self.ping = Some(std::mem::take(&mut self.held).into_boxed_slice()),
            Kind::Pong => self.held = Vec::new(),
            Kind::Close => {
                let code = close_code(&std::mem::take(&mut self.held))?;
                // What it is part of has no end any more.
                self.inflate = None;
                self.end = Some(End::Closed(code));
                return Ok(self.end);
            }
        }
        Ok(None)
    }

    fn fail(&mut self, fault: Fault) -> End {
        self.held = Vec::new();
        self.inflate = None;
        *self.end.insert(End::Failed(fault))
    }

    /// Appends the answer to a Ping that has come. To be called whenever the wire takes more.
    pub fn reply(&mut self, wire: &mut Vec<u8>) {
        if let Some(said) = self.ping.take().filter(|_| !self.is_closed) {
            header::put(OpCode::Control(Control::Pong), false, said.len(), wire);
            wire.extend_from_slice(&said);
        }
    }

    /// Whether there is a Ping to be answered.
    pub fn has_reply(&self) -> bool {
        self.ping.is_some()
    }

    /// Appends bytes of packets as one frame.
    pub fn seal(&mut self, plain: &[u8], wire: &mut Vec<u8>) {
        if self.is_closed || plain.is_empty() {
            return;
        }
        if self.deflate && deflate::put_compressed(plain, wire) {
            return;
        }
        header::put(OpCode::Data(Data::Binary), false, plain.len(), wire);
        wire.extend_from_slice(plain);
    }

    /// Appends a Close frame, unless there was one. Nothing is sent behind it. It says what the client has done, if there was
    /// an end; otherwise that there is nothing more to say, or that the server is stopping.
    pub fn close(&mut self, stopping: bool, wire: &mut Vec<u8>) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        let (code, reason) = match self.end {
            // What was said is said back, and no more.
            Some(End::Closed(None)) => (None, String::new()),
            Some(End::Closed(Some(code))) => (Some(code), String::new()),
            Some(End::Failed(fault)) => (Some(fault.code()), fault.to_string()),
            None if stopping => (Some(CloseCode::Away.into()), String::new()),
            None => (Some(CloseCode::Normal.into()), String::new()),
        };
        debug_assert!(reason.len() <= REASON_BYTES_MAX);
        let payload_bytes = code.map_or(0, |_| 2 + reason.len());
        header::put(OpCode::Control(Control::Close), false, payload_bytes, wire);
        if let Some(code) = code {
            wire.extend_from_slice(&code.to_be_bytes());
            wire.extend_from_slice(reason.as_bytes());
        }
    }

    /// Whether frames may be compressed from now on.
    pub fn set_deflate(&mut self, deflate: bool) {
        self.deflate = deflate;
    }

    /// Whether what comes may become much more than it is.
    pub fn may_inflate(&self) -> bool {
        self.deflate
    }

    /// Bytes of buffers that are held.
    pub fn held_bytes(&self) -> usize {
        let inflate = if self.inflate.is_some() { deflate::INFLATE_BYTES } else { 0 };
        self.held.capacity() + self.ping.as_ref().map_or(0, |ping| ping.len()) + inflate
    }
}

fn give(plain: &mut [u8], into: &mut impl FnMut(&mut [u8])) {
    if !plain.is_empty() {
        into(plain);
    }
}

/// The status code of a Close frame with this payload.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Fault> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        [_] => return Err(Fault::CloseFrame),
    };
    if !CloseCode::from(code).is_allowed() {
        return Err(Fault::CloseFrame);
    }
    std::str::from_utf8(reason).map_err(|_| Fault::CloseReason)?;
    Ok(Some(code))
}
