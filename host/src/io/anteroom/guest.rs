//! One connection on its way through the doors of its listener.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, Shutdown};
use zeroize::Zeroize;

use super::{Arrived, Place, proxied};
use crate::core::peer::{PeerDetails, TransportKind};
use crate::io::listener::{Accepted, Listener};
use crate::io::tls::{Handshake, Records};
use crate::io::transform::{Buffers, Flow, Transform};
use crate::listener::Scheme;
use crate::unix_socket;
use crate::ws::{self, Upgrade};

/// Bytes of a handshake that are kept until the rest has come: the largest message that TLS lets us expect, in records.
const UNREAD_BYTES_MAX: usize = 80 << 10;

/// What is to be done with a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// An event will say when it can go on.
    Waits,
    /// There may be more to read.
    Again,
    /// It has gone through all doors.
    Through,
    /// It has done something wrong. It gets the time to read what it was told, as closing at once could destroy that on its way.
    Leaves,
    /// It is to be closed.
    Gone,
}

/// The door that a guest stands at.
#[derive(Debug)]
enum Door {
    /// A proxy says first whose connection it is.
    Proxy,
    Tls(Box<Records>),
    /// The request of a WebSocket is awaited; within TLS, if there is that.
    Http(Upgrade, Box<Transform>),
    /// It is told why it is not let in, and is to leave.
    Refused(Box<Transform>),
    /// None any more.
    Through(Option<Box<Transform>>),
    /// The way out: what it sends is discarded until it closes its side.
    Out,
}

#[derive(Debug)]
pub(super) struct Guest {
    pub(super) fd: OwnedFd,
    /// Tells this guest from an earlier one with the same key.
    pub(super) serial: u32,
    /// Whether it is on the list of those to be served.
    pub(super) is_listed: bool,
    pub(super) peer: SocketAddr,
    /// Whether that is not its proxy.
    pub(super) knows_peer: bool,
    /// It has done something wrong, which has not been counted.
    pub(super) was_refused: bool,
    /// Whether anything was read of it.
    has_spoken: bool,
    listener: Listener,
    door: Door,
    /// Of what was read, what has not been dealt with. Past the last door it is MQTT.
    unread: Vec<u8>,
    /// What the socket has not taken yet.
    unsent: Vec<u8>,
    flow: Flow,
    /// What has been found out.
    details: PeerDetails,
    place: Place,
}

impl Door {
    /// The first one that is not for proxies.
    fn behind_proxy(listener: &Listener) -> Result<Self, rustls::Error> {
        let doors = listener.doors();
        Ok(match &doors.tls {
            Some(acceptor) => Self::Tls(Box::new(acceptor.accept()?)),
            None if doors.websocket.is_some() => Self::Http(Upgrade::default(), Box::default()),
            None => Self::Through(None),
        })
    }
}

impl Guest {
    pub(super) fn new(accepted: Accepted, place: Place) -> Result<Self, rustls::Error> {
        let Accepted { fd, peer, listener } = accepted;
        let knows_peer = listener.doors().proxies.is_empty();
        let door = if knows_peer { Door::behind_proxy(&listener)? } else { Door::Proxy };
        let details = PeerDetails { transport: kind(listener.url().scheme), ..PeerDetails::default() };
        Ok(Self {
            fd,
            serial: 0,
            is_listed: false,
            peer,
            knows_peer,
            was_refused: false,
            has_spoken: false,
            listener,
            door,
            unread: Vec::new(),
            unsent: Vec::new(),
            flow: Flow::Open,
            details,
            place,
        })
    }

    /// Whether there is no door any more.
    pub(super) fn is_through(&self) -> bool {
        matches!(self.door, Door::Through(_))
    }

    /// Whether it was refused, and has been told so.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.door, Door::Refused(_) | Door::Out)
    }

    /// Whether nothing has come of it at all, not even what was not looked at.
    pub(super) fn has_said_nothing(&self) -> bool {
        !self.has_spoken && net::recv(&self.fd, &mut [0][..], RecvFlags::PEEK).is_err_and(|error| error == Errno::AGAIN)
    }

    /// What it has become, once it is through.
    pub(super) fn into_arrived(self) -> Arrived {
        let Self { fd, peer, listener, door, unread, flow, mut details, place, .. } = self;
        if details.transport == TransportKind::Unix {
            // Where the kernel does not say, nobody knows.
            details.unix = unix_socket::peer(&fd).ok();
        }
        let transform = match door {
            Door::Through(transform) => transform,
            Door::Proxy | Door::Tls(_) | Door::Http(..) | Door::Refused(_) | Door::Out => None,
        };
        let details = Some(Box::new(details));
        Arrived { fd, peer, listener, details, transform, unread, flow, _place: place }
    }

    /// Reads once, and goes on as far as that leads.
    pub(super) fn step(&mut self, scratch: &mut [u8], buffers: &mut Buffers) -> Step {
        if self.flush().is_err() {
            return Step::Gone;
        }
        let bytes = match net::recv(&self.fd, &mut *scratch, RecvFlags::empty()) {
            Ok((0, _)) => return Step::Gone,
            Ok((bytes, _)) => bytes,
            Err(Errno::AGAIN) => return Step::Waits,
            Err(Errno::INTR) => return Step::Again,
            Err(_) => return Step::Gone,
        };
        self.has_spoken = true;
        if self.is_leaving() {
            return Step::Again;
        }
        self.unread.extend_from_slice(&scratch[..bytes]);
        let mut outcome = self.go_on(buffers);
        if outcome.is_ok() && !self.is_through() && self.unread.len() > UNREAD_BYTES_MAX {
            outcome = Err(format!("more than {UNREAD_BYTES_MAX} bytes are too many for a handshake"));
        }
        let flushed = self.flush();
        if self.is_through() {
            // What came with the end of the handshake may be a CONNECT.
            scratch[..bytes].zeroize();
        }
        self.was_refused |= outcome.is_err();
        match outcome {
            _ if flushed.is_err() => Step::Gone,
            Ok(()) if self.is_through() => Step::Through,
            Ok(()) if self.is_leaving() => Step::Leaves,
            Ok(()) => Step::Again,
            Err(why) => {
                self.log_end(&format!("is refused: {why}"));
                self.unread = Vec::new();
                self.door = Door::Out;
                // If it fails, the peer has gone.
                match net::shutdown(&self.fd, Shutdown::Write) {
                    Ok(()) => Step::Leaves,
                    Err(_) => Step::Gone,
                }
            }
        }
    }

    /// Goes through as many doors as what was read opens. The error says what the peer has done wrong.
    fn go_on(&mut self, buffers: &mut Buffers) -> Result<(), String> {
        if matches!(self.door, Door::Proxy) {
            let tls_ended = self.listener.doors().tls.is_none();
            let read = proxied::read(&mut self.unread, &mut self.peer, &mut self.details, tls_ended);
            if !read? {
                return Ok(());
            }
            self.knows_peer = true;
            self.door = Door::behind_proxy(&self.listener).map_err(|error| error.to_string())?;
        }
        if let Door::Tls(records) = &mut self.door {
            let mut at = 0;
            let state = records.shake_hands(&mut self.unread, &mut at, &mut self.unsent);
            self.unread.drain(..at);
            if state.map_err(|error| error.to_string())? == Handshake::Waits {
                return Ok(());
            }
            self.details.tls = Some(Box::new(records.details()?));
            let Door::Tls(records) = std::mem::replace(&mut self.door, Door::Out) else { return Ok(()) };
            let unsent = std::mem::take(&mut self.unsent);
            let transform = Box::new(Transform::tls(records, unsent));
            if self.listener.doors().websocket.is_some() {
                self.door = Door::Http(Upgrade::default(), transform);
            } else {
                return self.go_through(transform, buffers);
            }
        }
        if matches!(self.door, Door::Http(..))
            && let Door::Http(upgrade, transform) = std::mem::replace(&mut self.door, Door::Out)
        {
            return self.take_request(upgrade, transform, buffers);
        }
        Ok(())
    }

    /// Looks at what has come of the request of a WebSocket.
    fn take_request(
        &mut self,
        mut upgrade: Upgrade,
        mut transform: Box<Transform>,
        buffers: &mut Buffers,
    ) -> Result<(), String> {
        let Some(settings) = &self.listener.doors().websocket else { return Ok(()) };
        let opened = transform.open_again(&mut self.unread, buffers);
        self.unread.clear();
        match upgrade.feed(&buffers.plain, settings) {
            ws::Step::More => {
                if opened.map_err(|broken| broken.to_string())? == Flow::Ended {
                    return Err("has ended before its request".to_owned());
                }
                self.door = Door::Http(upgrade, transform);
            }
            ws::Step::Accepted(accepted) => {
                let ws::Accepted { request, response, taken, deflate } = *accepted;
                self.details.http = Some(Box::new(request.0));
                let mut following = buffers.plain[taken..].to_vec();
                let flow = opened.and_then(|flow| {
                    let frames = transform.upgrade(&response, deflate, &mut following, buffers)?;
                    Ok(if frames == Flow::Ended { frames } else { flow })
                });
                self.unread.extend_from_slice(&buffers.plain);
                following.zeroize();
                buffers.plain.zeroize();
                buffers.wire.zeroize();
                match flow {
                    Ok(flow) => (self.flow, self.door) = (flow, Door::Through(Some(transform))),
                    Err(broken) => self.refuse(transform, &broken.to_string()),
                }
            }
            ws::Step::Refused(refused) => {
                transform.reply(&refused.response()).map_err(|broken| broken.to_string())?;
                self.refuse(transform, &format!("was refused with status {}: {}", refused.status, refused.reason));
            }
        }
        Ok(())
    }

    /// What has been told to the peer is the last that it gets.
    fn refuse(&mut self, mut transform: Box<Transform>, why: &str) {
        self.log_end(why);
        transform.close(false);
        (self.door, self.was_refused) = (Door::Refused(transform), true);
    }

    /// There is no further door behind TLS.
    fn go_through(&mut self, mut transform: Box<Transform>, buffers: &mut Buffers) -> Result<(), String> {
        let opened = transform.open(&mut self.unread, buffers);
        self.unread.clear();
        self.unread.extend_from_slice(&buffers.plain);
        buffers.plain.zeroize();
        self.flow = opened.map_err(|broken| broken.to_string())?;
        self.door = Door::Through(Some(transform));
        Ok(())
    }

    /// Sends what is to be sent, as far as the socket takes it.
    fn flush(&mut self) -> Result<(), Errno> {
        let transform = match &mut self.door {
            Door::Through(Some(transform)) | Door::Http(_, transform) | Door::Refused(transform) => Some(transform),
            Door::Proxy | Door::Tls(_) | Door::Through(None) | Door::Out => None,
        };
        let unsent = transform.as_ref().map_or(&self.unsent[..], |transform| transform.unsent());
        if unsent.is_empty() {
            return Ok(());
        }
        let sent = match net::send(&self.fd, unsent, SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(error) => return Err(error),
        };
        match transform {
            Some(transform) => transform.note_sent(sent),
            None => drop(self.unsent.drain(..sent)),
        }
        if let Door::Refused(transform) = &self.door
            && transform.unsent().is_empty()
        {
            // It sees the end behind the answer, and closes; closing before could destroy the answer.
            net::shutdown(&self.fd, Shutdown::Write)?;
        }
        Ok(())
    }

    /// Says in the log why it was closed. Whoever can connect can have such lines written, so they are for who looks for them.
    pub(super) fn log_end(&self, why: &str) {
        tracing::debug!(listener = %self.listener.name(), peer = %self.peer, "a connection {why}");
    }
}

fn kind(scheme: Scheme) -> TransportKind {
    match scheme {
        Scheme::Tcp => TransportKind::Tcp,
        Scheme::Tls => TransportKind::Tls,
        Scheme::Ws => TransportKind::Ws,
        Scheme::Wss => TransportKind::Wss,
        Scheme::Unix => TransportKind::Unix,
        Scheme::Quic => TransportKind::Quic,
    }
}
