//! A socket that is read and written without waiting.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::mqtt::complete;

pub(super) struct Link {
    socket: TcpStream,
    read: Vec<u8>,
    unsent: Vec<u8>,
    has_ended: bool,
}

impl Link {
    pub(super) fn open(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).expect("the server listens");
        socket.set_nodelay(true).expect("an open socket");
        socket.set_nonblocking(true).expect("an open socket");
        Self { socket, read: Vec::new(), unsent: Vec::new(), has_ended: false }
    }

    pub(super) fn write(&mut self, packet: &[u8]) {
        self.unsent.extend_from_slice(packet);
    }

    /// Sends what there is, as far as the server takes it.
    pub(super) fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Whether it has ended is seen when it is read.
                Err(_) => return,
            }
        }
    }

    /// The packets that have come.
    pub(super) fn packets(&mut self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 1 << 14];
        while !self.has_ended {
            match self.socket.read(&mut buffer) {
                Ok(0) => self.has_ended = true,
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.has_ended = true,
            }
        }
        let mut packets = Vec::new();
        while let Some(length) = complete(&self.read) {
            packets.push(self.read.drain(..length).collect());
        }
        packets
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }
}
