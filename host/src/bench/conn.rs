//! A connection of a load, as its thread has it.

use std::cell::RefCell;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{self, SendFlags};

use super::link::{Layers, Link};

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
    /// What is between the socket and MQTT.
    pub(super) layers: Option<Box<Layers>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// The number of its state on this thread.
    Publisher(usize),
    Subscriber(usize),
}

thread_local! {
    /// What is sent through layers, so that no connection needs room for it.
    static WIRE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Conn {
    pub(super) fn new(link: Link, role: Role) -> Self {
        let (fd, layers, part) = link.into_parts();
        Self { fd, role, is_closed: false, part, out: Vec::new(), layers }
    }

    /// Sends whole packets, or keeps what the socket does not take.
    pub(super) fn send(&mut self, packets: &[u8]) {
        if self.is_closed {
            return;
        }
        if self.layers.is_none() {
            return self.send_wire(packets);
        }
        WIRE.with_borrow_mut(|wire| {
            wire.clear();
            // The read that follows finds out why there is no session any more.
            if self.layers.as_mut().is_some_and(|layers| layers.seal(packets, wire).is_ok()) {
                self.send_wire(wire);
            }
        });
    }

    /// Sends bytes as they are, or keeps what the socket does not take.
    pub(super) fn send_wire(&mut self, bytes: &[u8]) {
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
