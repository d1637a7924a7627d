//! A client that speaks bytes: it shares no code with the server, so that both are not wrong in the same way.

mod packets;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

pub(crate) use self::packets::*;
use crate::harness::PATIENCE;

/// What a client speaks through.
pub(crate) trait Wire: Read + Write {
    /// How long a read waits.
    fn set_patience(&self, patience: Duration);

    /// Says that nothing more comes.
    fn finish(&mut self);
}

impl Wire for TcpStream {
    fn set_patience(&self, patience: Duration) {
        self.set_read_timeout(Some(patience)).unwrap();
    }

    fn finish(&mut self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Wire for UnixStream {
    fn set_patience(&self, patience: Duration) {
        self.set_read_timeout(Some(patience)).unwrap();
    }

    fn finish(&mut self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

/// One connection.
pub(crate) struct Client<W = TcpStream> {
    socket: W,
    read: Vec<u8>,
    /// PUBLISH packets that came while another packet was waited for.
    publishes: VecDeque<Vec<u8>>,
    pub(crate) version: u8,
    next_id: u16,
}

impl Client {
    /// A socket, and nothing sent.
    #[track_caller]
    pub(crate) fn open(addr: SocketAddr, version: u8) -> Self {
        let socket = TcpStream::connect(addr).expect("the server accepts");
        socket.set_nodelay(true).unwrap();
        Self::over(socket, version)
    }

    /// Connects with a clean session.
    #[track_caller]
    pub(crate) fn connect(addr: SocketAddr, version: u8, client_id: impl Into<String>) -> Self {
        let (client, connack) = Self::connect_with(addr, &Connect::new(version, client_id));
        assert_eq!((connack.session_present, connack.code), (false, 0));
        client
    }

    /// Sends CONNECT and reads CONNACK.
    #[track_caller]
    pub(crate) fn connect_with(addr: SocketAddr, connect: &Connect) -> (Self, Connack) {
        Self::open(addr, connect.version).connecting(connect)
    }
}

impl<W: Wire> Client<W> {
    /// Its socket; nothing that was sent may be unread.
    #[track_caller]
    pub(crate) fn into_socket(self) -> W {
        assert!(self.read.is_empty() && self.publishes.is_empty());
        self.socket
    }

    /// One that speaks through this, and has sent nothing.
    pub(crate) fn over(socket: W, version: u8) -> Self {
        Self { socket, read: Vec::new(), publishes: VecDeque::new(), version, next_id: 0 }
    }

    /// What it speaks through.
    pub(crate) fn socket_mut(&mut self) -> &mut W {
        &mut self.socket
    }

    /// Sends CONNECT and reads CONNACK.
    #[track_caller]
    pub(crate) fn connecting(mut self, connect: &Connect) -> (Self, Connack) {
        self.send(connect.bytes());
        let connack = self.connack();
        (self, connack)
    }

    /// The same with a clean session, and is let in.
    #[track_caller]
    pub(crate) fn connected(self, client_id: &str) -> Self {
        let connect = Connect::new(self.version, client_id);
        let (client, connack) = self.connecting(&connect);
        assert_eq!((connack.session_present, connack.code), (false, 0));
        client
    }

    /// What it speaks through.
    pub(crate) fn wire(&mut self) -> &mut W {
        &mut self.socket
    }

    #[track_caller]
    pub(crate) fn connack(&mut self) -> Connack {
        let packet = self.expect_type(2);
        let mut body = Body::of(&packet);
        let session_present = match body.u8() {
            0 => false,
            1 => true,
            flags => panic!("flags {flags} of CONNACK"),
        };
        let code = body.u8();
        let properties = if self.version == V5 { body.properties() } else { Vec::new() };
        assert!(body.0.is_empty());
        Connack { session_present, code, properties }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).expect("the server reads");
    }

    /// Sends to a server that may have closed already.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.socket.write_all(bytes.as_ref()).is_ok()
    }

    /// A packet identifier that was not used before.
    pub(crate) fn new_id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }

    /// Reads one packet. `None` if the server has closed the connection.
    #[track_caller]
    pub(crate) fn try_read(&mut self) -> Option<Vec<u8>> {
        self.try_read_within(PATIENCE).expect("a packet or the end of the connection")
    }

    /// The same with a patience of its own; `Err` if nothing came.
    fn try_read_within(&mut self, patience: Duration) -> Result<Option<Vec<u8>>, ErrorKind> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(length) = complete(&self.read) {
                let rest = self.read.split_off(length);
                return Ok(Some(std::mem::replace(&mut self.read, rest)));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut);
            }
            self.socket.set_patience(left);
            let mut buffer = [0; 1 << 16];
            match self.socket.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut),
                // With a timeout, it is for every signal, also for those that stop this process and let it go on.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("reading: {error}"),
            }
        }
    }

    #[track_caller]
    pub(crate) fn read(&mut self) -> Vec<u8> {
        self.try_read().expect("a packet, but the server has closed the connection")
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        assert_eq!(self.read(), bytes);
    }

    /// Reads a packet of this type. PUBLISH packets that come before it are kept for [`Client::read_publish`].
    #[track_caller]
    pub(crate) fn expect_type(&mut self, kind: u8) -> Vec<u8> {
        if kind == 3
            && let Some(packet) = self.publishes.pop_front()
        {
            return packet;
        }
        loop {
            let packet = self.read();
            match packet[0] >> 4 {
                got if got == kind => return packet,
                3 => self.publishes.push_back(packet),
                _ => panic!("type {kind} was expected: {packet:02x?}"),
            }
        }
    }

    #[track_caller]
    pub(crate) fn expect_closed(&mut self) {
        assert_eq!(self.try_read(), None);
    }

    /// DISCONNECT with this reason code in 5.0, and then the end; just the end before.
    #[track_caller]
    pub(crate) fn expect_disconnect(&mut self, reason_code: u8) {
        if self.version == V5 {
            let packet = self.expect_type(14);
            assert_eq!(packet.get(2).copied().unwrap_or(0), reason_code, "{packet:02x?}");
        }
        self.expect_closed();
    }

    /// Asserts that nothing has been sent to this client: what the server does before it answers PINGREQ comes first.
    #[track_caller]
    pub(crate) fn expect_nothing(&mut self) {
        assert!(self.publishes.is_empty(), "{:02x?}", self.publishes);
        self.send([0xc0, 0]);
        self.expect(&[0xd0, 0]);
    }

    /// Whatever else comes, PINGREQ is answered [MQTT-3.12.4-1].
    #[track_caller]
    pub(crate) fn ping(&mut self) {
        self.send([0xc0, 0]);
        self.expect_type(13);
    }

    /// Subscribes and returns the codes of SUBACK. In 5.0, `options` may have more than a QoS.
    #[track_caller]
    pub(crate) fn subscribe_all(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        self.subscribe_with(filters, &[])
    }

    #[track_caller]
    pub(crate) fn subscribe_with(&mut self, filters: &[(&str, u8)], with: &[u8]) -> Vec<u8> {
        let id = self.new_id();
        let mut body = id.to_be_bytes().to_vec();
        body.extend(properties(self.version, with));
        for (filter, options) in filters {
            body.extend(field(filter));
            body.push(*options);
        }
        self.send(packet(0x82, &body));
        let suback = self.expect_type(9);
        let mut body = Body::of(&suback);
        assert_eq!(body.u16(), id);
        if self.version == V5 {
            body.properties();
        }
        body.0.to_vec()
    }

    /// Subscribes to one filter, and is granted the QoS.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) {
        assert_eq!(self.subscribe_all(&[(filter, qos)]), [qos]);
    }

    #[track_caller]
    pub(crate) fn unsubscribe(&mut self, filter: &str) {
        let id = self.new_id();
        let mut body = id.to_be_bytes().to_vec();
        body.extend(properties(self.version, &[]));
        body.extend(field(filter));
        self.send(packet(0xa2, &body));
        let unsuback = self.expect_type(11);
        assert_eq!(Body::of(&unsuback).u16(), id);
    }

    /// Publishes, goes through the whole exchange of its QoS, and returns the first reason code.
    #[track_caller]
    pub(crate) fn publish(&mut self, topic: &str, payload: impl AsRef<[u8]>, qos: u8) -> u8 {
        self.publish_message(Publish::new(topic, payload).qos(qos, 0))
    }

    #[track_caller]
    pub(crate) fn publish_message(&mut self, mut message: Publish) -> u8 {
        if message.qos > 0 {
            message.packet_id = self.new_id();
        }
        self.send(message.bytes(self.version));
        let id = message.packet_id;
        match message.qos {
            0 => 0,
            1 => self.expect_ack(4, id),
            _ => {
                let code = self.expect_ack(5, id);
                if code < 0x80 {
                    self.send_ack(0x62, id);
                    assert_eq!(self.expect_ack(7, id), 0);
                }
                code
            }
        }
    }

    /// Reads an acknowledgement and returns its reason code.
    #[track_caller]
    pub(crate) fn expect_ack(&mut self, kind: u8, packet_id: u16) -> u8 {
        let ack = self.expect_type(kind);
        let mut body = Body::of(&ack);
        assert_eq!(body.u16(), packet_id);
        if body.0.is_empty() { 0 } else { body.u8() }
    }

    pub(crate) fn send_ack(&mut self, first: u8, packet_id: u16) {
        let [high, low] = packet_id.to_be_bytes();
        self.send([first, 2, high, low]);
    }

    /// Reads a PUBLISH and acknowledges nothing.
    #[track_caller]
    pub(crate) fn read_publish(&mut self) -> Publish {
        let packet = self.expect_type(3);
        Publish::parse(self.version, &packet)
    }

    /// A PUBLISH that has come while another packet was waited for.
    pub(crate) fn take_publish(&mut self) -> Option<Publish> {
        let packet = self.publishes.pop_front()?;
        Some(Publish::parse(self.version, &packet))
    }

    /// Reads a PUBLISH and goes through the whole exchange of its QoS.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> Publish {
        let message = self.read_publish();
        self.acknowledge(&message);
        message
    }

    #[track_caller]
    pub(crate) fn acknowledge(&mut self, message: &Publish) {
        match message.qos {
            0 => {}
            1 => self.send_ack(0x40, message.packet_id),
            _ => {
                self.send_ack(0x50, message.packet_id);
                assert_eq!(self.expect_ack(6, message.packet_id), 0);
                self.send_ack(0x70, message.packet_id);
            }
        }
    }

    /// The first half of what [`Client::acknowledge`] does: PUBACK or PUBREC. Reads nothing.
    pub(crate) fn acknowledge_first(&mut self, message: &Publish) {
        self.send_ack(if message.qos == 1 { 0x40 } else { 0x50 }, message.packet_id);
    }

    /// DISCONNECT, and the end.
    #[track_caller]
    pub(crate) fn disconnect(mut self) {
        self.send([0xe0, 0]);
        self.expect_closed();
    }

    /// Says that nothing more comes, and reads on.
    pub(crate) fn finish_sending(&mut self) {
        self.socket.finish();
    }
}

/// The length of the packet at the front, if it is complete.
pub(crate) fn complete(bytes: &[u8]) -> Option<usize> {
    let (mut length, mut shift) = (0, 0);
    for (at, byte) in bytes.iter().enumerate().skip(1) {
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return (bytes.len() > at + length).then_some(at + 1 + length);
        }
    }
    None
}
