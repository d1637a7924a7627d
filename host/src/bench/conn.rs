//! A connection of a load, as its thread has it.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{self, SendFlags};

/// A connection of a load.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) fd: OwnedFd,
    pub(super) role: Role,
    pub(super) is_closed: bool,
    /// The start of a packet that has not come in full.
    pub(super) part: Vec<u8>,
    /// What the socket did not take. While there is something, an event will come when there is room.
    pub(super) out: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// The number of its state on this thread.
    Publisher(usize),
    Subscriber(usize),
}

impl Conn {
    pub(super) fn new(fd: OwnedFd, role: Role) -> Self {
        Self { fd, role, is_closed: false, part: Vec::new(), out: Vec::new() }
    }

    /// Sends, or keeps what the socket does not take.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        if self.is_closed {
            return;
        }
        let mut sent = 0;
        while self.out.is_empty() && sent < bytes.len() {
            match net::send(&self.fd, &bytes[sent..], SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // The read that follows finds out why.
                Err(_) => return,
            }
        }
        self.out.extend_from_slice(&bytes[sent..]);
    }
}
