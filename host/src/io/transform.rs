//! What stands between the bytes of a socket and those of MQTT, where they are not the same: TLS, WebSocket, or the second
//! in the first.
//!
//! A transform touches no socket. Its owner reads into a buffer behind [`Transform::restore`], has it [`Transform::open`]ed,
//! and hands on what that gives; it has outbound bytes [`Transform::seal`]ed and sends them, and gives back what the socket
//! does not take ([`Transform::keep_unsent`]), which goes first the next time. An idle connection holds no buffer here: what
//! is kept is part of something that is incomplete, or that was not sent.

use std::fmt;

use super::tls::Records;
use crate::ws::{End, WebSocket};

/// Outbound bytes that are sealed at once. The rest waits where it is, so that a peer that does not read makes us keep
/// little more than this.
const SEAL_BYTES_MAX: usize = 64 << 10;

/// Bytes of something incomplete that are kept until the rest comes: the largest record of TLS, and some.
const UNREAD_BYTES_MAX: usize = 24 << 10;

/// Bytes that are read at once of who may send a thousand times as many, compressed.
const DEFLATED_BYTES_MAX: usize = 8 << 10;

/// Bytes of a shared buffer that are kept for the next use: what is read or sent at once is hardly ever more.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

/// What nobody can go on with: the connection is to be closed, once [`Transform::unsent`] was sent.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a peer may send more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Open,
    /// The peer has said that it sends nothing more.
    Ended,
}

/// How what comes from a peer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerEnd {
    /// It has said so.
    Said,
    /// Nobody can go on with it: see [`Broken`].
    Broken,
}

/// Buffers that all connections of a thread share. Their content means nothing between two calls.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// What was opened.
    pub(crate) plain: Vec<u8>,
    /// What was sealed.
    pub(crate) wire: Vec<u8>,
}

impl Buffers {
    /// Gives back the memory that something unusual has taken: compressed bytes may have become a thousand times as many.
    pub(crate) fn give_back(&mut self) {
        for buffer in [&mut self.plain, &mut self.wire] {
            if buffer.capacity() > BUFFER_BYTES_KEPT {
                buffer.clear();
                buffer.shrink_to(BUFFER_BYTES_KEPT);
            }
        }
    }
}

/// The layers of one connection, with what they keep.
#[derive(Debug, Default)]
pub(crate) struct Transform {
    /// In a place of its own: it is much larger than all else, and a WebSocket without TLS goes without.
    tls: Option<Box<Records>>,
    /// Within TLS, if there is that.
    websocket: Option<Box<WebSocket>>,
    /// Of what was read, what is incomplete.
    unread: Vec<u8>,
    /// Sealed bytes that the socket has not taken.
    unsent: Vec<u8>,
    /// How many of them were sent.
    sent: usize,
    /// That nothing more comes from us has been sealed.
    is_closed: bool,
    /// That nothing more comes from the peer has been opened.
    end: Option<PeerEnd>,
    /// What the account of its worker knows of, in bytes.
    pub(super) counted_bytes: usize,
}

impl Transform {
    /// With TLS, whose handshake is over but for `unsent`, which the peer is still to be sent.
    pub(crate) fn tls(records: Box<Records>, unsent: Vec<u8>) -> Self {
        Self { tls: Some(records), unsent, ..Self::default() }
    }

    /// Adds WebSocket, behind `response`. What follows has come with the request.
    pub(crate) fn upgrade(
        &mut self,
        response: &[u8],
        deflate: bool,
        following: &mut [u8],
        buffers: &mut Buffers,
    ) -> Result<Flow, Broken> {
        self.reply(response)?;
        // Who has not seen the response cannot know that frames may be compressed: what has come with the request does not
        // become a thousand times as much in an anteroom that is full.
        let websocket = self.websocket.insert(Box::new(WebSocket::new(false)));
        buffers.plain.clear();
        let end = websocket.open(following, |bytes| buffers.plain.extend_from_slice(bytes));
        websocket.set_deflate(deflate);
        let opened = self.conclude(end);
        self.note_end(&opened);
        opened
    }

    /// Bytes that are kept here.
    pub(crate) fn held_bytes(&self) -> usize {
        let frames = self.websocket.as_ref().map_or(0, |websocket| size_of_val(&**websocket) + websocket.held_bytes());
        self.unread.capacity() + self.unsent.capacity() + frames
    }

    /// Puts what is incomplete at the beginning of `wire`, where what is read next comes behind it. Returns its length, 24 KiB
    /// at most.
    pub(crate) fn restore(&mut self, wire: &mut [u8]) -> usize {
        let unread = std::mem::take(&mut self.unread);
        wire[..unread.len()].copy_from_slice(&unread);
        unread.len()
    }

    /// How many bytes may be read at once.
    pub(crate) fn read_bytes_max(&self) -> usize {
        let may_inflate = self.websocket.as_ref().is_some_and(|websocket| websocket.may_inflate());
        if may_inflate { DEFLATED_BYTES_MAX } else { usize::MAX }
    }

    /// What was restored is incomplete still.
    pub(crate) fn put_back(&mut self, wire: &[u8]) {
        self.unread.extend_from_slice(wire);
    }

    /// Opens what was read, behind what was restored, into `buffers.plain`. That is also there where the rest of it makes no
    /// sense.
    pub(crate) fn open(&mut self, wire: &mut [u8], buffers: &mut Buffers) -> Result<Flow, Broken> {
        let opened = self.open_layers(wire, buffers);
        self.note_end(&opened);
        opened
    }

    fn note_end(&mut self, opened: &Result<Flow, Broken>) {
        self.end = match opened {
            Ok(Flow::Open) => self.end,
            Ok(Flow::Ended) => Some(PeerEnd::Said),
            Err(_) => Some(PeerEnd::Broken),
        };
    }

    /// Whether, and how, what comes from the peer has ended: it stays with a connection that goes to another worker.
    pub(crate) fn end(&self) -> Option<PeerEnd> {
        self.end
    }

    fn open_layers(&mut self, wire: &mut [u8], buffers: &mut Buffers) -> Result<Flow, Broken> {
        let Buffers { plain, wire: between } = buffers;
        plain.clear();
        // At once, so that there are no copies in memory that was given back: there may be a password among it.
        plain.reserve(wire.len());
        match (self.tls.is_some(), self.websocket.is_some()) {
            (_, false) => self.open_records(wire, plain),
            (false, true) => self.open_frames(wire, plain),
            (true, true) => {
                between.clear();
                between.reserve(wire.len());
                let records = self.open_records(wire, between);
                let frames = self.open_frames(between, plain)?;
                records.map(|flow| if frames == Flow::Ended { frames } else { flow })
            }
        }
    }

    /// Opens what was read, behind what is incomplete, where it was not restored.
    pub(crate) fn open_again(&mut self, wire: &mut [u8], buffers: &mut Buffers) -> Result<Flow, Broken> {
        let mut unread = std::mem::take(&mut self.unread);
        if unread.is_empty() {
            return self.open(wire, buffers);
        }
        unread.extend_from_slice(wire);
        self.open(&mut unread, buffers)
    }

    /// Opens TLS, if there is that.
    fn open_records(&mut self, wire: &mut [u8], plain: &mut Vec<u8>) -> Result<Flow, Broken> {
        let Some(tls) = &mut self.tls else {
            plain.extend_from_slice(wire);
            return Ok(Flow::Open);
        };
        let mut at = 0;
        let opened = tls.open(wire, &mut at, plain, &mut self.unsent);
        let unread = &wire[at..];
        if unread.len() > UNREAD_BYTES_MAX {
            return Err(Broken(format!("a message of TLS has more than {UNREAD_BYTES_MAX} bytes")));
        }
        self.unread.extend_from_slice(unread);
        opened
    }

    /// Opens WebSocket, which there is.
    fn open_frames(&mut self, frames: &mut [u8], plain: &mut Vec<u8>) -> Result<Flow, Broken> {
        let Some(websocket) = &mut self.websocket else { return Ok(Flow::Open) };
        let end = websocket.open(frames, |bytes| plain.extend_from_slice(bytes));
        self.conclude(end)
    }

    /// Answers what was opened of WebSocket, and says what it has come to.
    fn conclude(&mut self, end: Option<End>) -> Result<Flow, Broken> {
        self.answer()?;
        match end {
            None => Ok(Flow::Open),
            // The answer to it goes behind those to the packets that came before: see `close`.
            Some(End::Closed(_)) => Ok(Flow::Ended),
            Some(End::Failed(fault)) => Err(Broken(fault.to_string())),
        }
    }

    /// Adds the answer to a Ping to [`Transform::unsent`]; where something is left there, the one to the last Ping is added when
    /// that has been sent, so that a peer that does not read makes us keep one.
    fn answer(&mut self) -> Result<(), Broken> {
        let Some(websocket) = self.websocket.as_mut().filter(|websocket| websocket.has_reply()) else { return Ok(()) };
        if !self.unsent.is_empty() {
            return Ok(());
        }
        let mut pong = Vec::new();
        websocket.reply(&mut pong);
        self.reply(&pong)
    }

    /// Adds something that is not MQTT to [`Transform::unsent`].
    pub(crate) fn reply(&mut self, reply: &[u8]) -> Result<(), Broken> {
        match &mut self.tls {
            Some(tls) => tls.seal(reply, &mut self.unread, &mut self.unsent),
            None => {
                self.unsent.extend_from_slice(reply);
                Ok(())
            }
        }
    }

    /// Seals some of the outbound bytes, into `buffers.wire`. Returns how many of them. Only while nothing is unsent.
    pub(crate) fn seal(&mut self, plain: &[u8], buffers: &mut Buffers) -> Result<usize, Broken> {
        debug_assert!(self.unsent().is_empty(), "what was sealed before goes first");
        let some = &plain[..plain.len().min(SEAL_BYTES_MAX)];
        let Buffers { plain: between, wire } = buffers;
        wire.clear();
        match (&mut self.tls, &mut self.websocket) {
            (None, None) => wire.extend_from_slice(some),
            (None, Some(websocket)) => websocket.seal(some, wire),
            (Some(tls), None) => tls.seal(some, &mut self.unread, wire)?,
            (Some(tls), Some(websocket)) => {
                between.clear();
                websocket.seal(some, between);
                tls.seal(between, &mut self.unread, wire)?;
            }
        }
        Ok(some.len())
    }

    /// What was sealed and not sent.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.unsent[self.sent..]
    }

    /// So many bytes of [`Transform::unsent`] have been sent.
    pub(crate) fn note_sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= self.unsent.len() {
            (self.unsent, self.sent) = (Vec::new(), 0);
            // If TLS does not go on, neither does anything else, and that is noticed there.
            let _ = self.answer();
        }
    }

    /// Keeps sealed bytes until the socket takes them.
    pub(crate) fn keep_unsent(&mut self, wire: &[u8]) {
        self.unsent.extend_from_slice(wire);
    }

    /// Adds to [`Transform::unsent`] that nothing more comes from us, and why: what the peer has done, or that the server is
    /// `stopping`. Once.
    pub(crate) fn close(&mut self, stopping: bool) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        if let Some(websocket) = &mut self.websocket {
            let mut frame = Vec::new();
            websocket.close(stopping, &mut frame);
            // Where it cannot be said, TLS has failed, and the peer was told so.
            let _ = self.reply(&frame);
        }
        if let Some(tls) = &mut self.tls {
            tls.close(&mut self.unread, &mut self.unsent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes with the request of a WebSocket, masked with zeros.
    fn upgraded(deflate: bool, following: &[u8]) -> (Transform, Buffers, Result<Flow, Broken>) {
        let (mut transform, mut buffers) = (Transform::default(), Buffers::default());
        let flow = transform.upgrade(b"", deflate, &mut following.to_vec(), &mut buffers);
        (transform, buffers, flow)
    }

    /// Each idle connection has one; TLS alone takes more than a thousand bytes.
    #[test]
    fn websocket_does_not_pay_for_tls() {
        assert!(size_of::<Transform>() <= 96, "{}", size_of::<Transform>());
    }

    #[test]
    fn memory_for_something_unusual_is_given_back() {
        let (_, mut buffers, _) = upgraded(false, b"");
        for (bytes, expected) in [(100, 100), (BUFFER_BYTES_KEPT, BUFFER_BYTES_KEPT), (8 << 20, BUFFER_BYTES_KEPT)] {
            buffers.plain = Vec::with_capacity(bytes);
            buffers.plain.resize(bytes, 0);
            buffers.give_back();
            assert_eq!(buffers.plain.capacity(), expected);
        }
    }

    /// A connection may go from one worker to another with a CONNECT that came with its request, and a Close behind it.
    #[test]
    fn end_that_comes_with_the_request_stays_with_the_connection() {
        let (transform, buffers, flow) = upgraded(false, b"\x82\x81\0\0\0\0x\x88\x80\0\0\0\0");
        assert_eq!((flow.ok(), &buffers.plain[..]), (Some(Flow::Ended), &b"x"[..]));
        assert_eq!(transform.end(), Some(PeerEnd::Said));
        assert_eq!(upgraded(false, b"").0.end(), None);
    }

    #[test]
    fn nothing_is_inflated_that_comes_with_the_request() {
        let (transform, _, flow) = upgraded(true, b"\xc2\x80\0\0\0\0");
        assert!(flow.is_err() && transform.read_bytes_max() == DEFLATED_BYTES_MAX);
        assert_eq!(transform.end(), Some(PeerEnd::Broken));
        let (mut transform, mut buffers, flow) = upgraded(true, b"\x82\x80\0\0\0\0");
        assert_eq!(flow.ok(), Some(Flow::Open));
        let later = transform.open(&mut b"\xc2\x80\0\0\0\0".to_vec(), &mut buffers);
        assert_eq!(later.ok(), Some(Flow::Open));
    }
}
