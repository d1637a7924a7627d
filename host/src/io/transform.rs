//! What stands between the bytes of a socket and those of MQTT, where they are not the same: TLS.
//!
//! A transform touches no socket. Its owner reads into a buffer behind [`Transform::restore`], has it [`Transform::open`]ed,
//! and hands on what that gives; it has outbound bytes [`Transform::seal`]ed and sends them, and gives back what the socket
//! does not take ([`Transform::keep_unsent`]), which goes first the next time. An idle connection holds no buffer here: what
//! is kept is part of something that is incomplete, or that was not sent.

use std::fmt;

use super::tls::Records;

/// Outbound bytes that are sealed at once. The rest waits where it is, so that a peer that does not read makes us keep
/// little more than this.
const SEAL_BYTES_MAX: usize = 64 << 10;

/// Bytes of something incomplete that are kept until the rest comes: the largest record of TLS, and some.
const UNREAD_BYTES_MAX: usize = 24 << 10;

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

/// Buffers that all connections of a thread share. Their content means nothing between two calls.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// What was opened.
    pub(crate) plain: Vec<u8>,
    /// What was sealed.
    pub(crate) wire: Vec<u8>,
}

/// The layers of one connection, with what they keep.
#[derive(Debug)]
pub(crate) struct Transform {
    tls: Records,
    /// Of what was read, what is incomplete.
    unread: Vec<u8>,
    /// Sealed bytes that the socket has not taken.
    unsent: Vec<u8>,
    /// How many of them were sent.
    sent: usize,
    /// That nothing more comes from us has been sealed.
    is_closed: bool,
    /// What the account of its worker knows of, in bytes.
    pub(super) counted_bytes: usize,
}

impl Transform {
    /// With TLS, whose handshake is over but for `unsent`, which the peer is still to be sent.
    pub(crate) fn tls(records: Records, unsent: Vec<u8>) -> Self {
        Self { tls: records, unread: Vec::new(), unsent, sent: 0, is_closed: false, counted_bytes: 0 }
    }

    /// Bytes that are kept here.
    pub(crate) fn held_bytes(&self) -> usize {
        self.unread.capacity() + self.unsent.capacity()
    }

    /// Puts what is incomplete at the beginning of `wire`, where what is read next comes behind it. Returns its length, 24 KiB
    /// at most.
    pub(crate) fn restore(&mut self, wire: &mut [u8]) -> usize {
        let unread = std::mem::take(&mut self.unread);
        wire[..unread.len()].copy_from_slice(&unread);
        unread.len()
    }

    /// What was restored is incomplete still.
    pub(crate) fn put_back(&mut self, wire: &[u8]) {
        self.unread.extend_from_slice(wire);
    }

    /// Opens what was read, behind what was restored, into `buffers.plain`. That is also there where the rest of it makes no
    /// sense.
    pub(crate) fn open(&mut self, wire: &mut [u8], buffers: &mut Buffers) -> Result<Flow, Broken> {
        buffers.plain.clear();
        let mut at = 0;
        let opened = self.tls.open(wire, &mut at, &mut buffers.plain, &mut self.unsent);
        let unread = &wire[at..];
        if unread.len() > UNREAD_BYTES_MAX {
            return Err(Broken(format!("a message of TLS has more than {UNREAD_BYTES_MAX} bytes")));
        }
        self.unread.extend_from_slice(unread);
        opened
    }

    /// Seals some of the outbound bytes, into `buffers.wire`. Returns how many of them. Only while nothing is unsent.
    pub(crate) fn seal(&mut self, plain: &[u8], buffers: &mut Buffers) -> Result<usize, Broken> {
        debug_assert!(self.unsent().is_empty(), "what was sealed before goes first");
        let some = &plain[..plain.len().min(SEAL_BYTES_MAX)];
        buffers.wire.clear();
        self.tls.seal(some, &mut self.unread, &mut buffers.wire)?;
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
        }
    }

    /// Keeps sealed bytes until the socket takes them.
    pub(crate) fn keep_unsent(&mut self, wire: &[u8]) {
        self.unsent.extend_from_slice(wire);
    }

    /// Adds to [`Transform::unsent`] that nothing more comes from us; once.
    pub(crate) fn close(&mut self) {
        if !std::mem::replace(&mut self.is_closed, true) {
            self.tls.close(&mut self.unread, &mut self.unsent);
        }
    }
}
