//! A connection to the broker while one after the other is waited for: its socket, and what is between that and MQTT.

mod layers;
mod tls;
mod websocket;

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt::{Timeout, set_socket_timeout, set_tcp_nodelay, socket_error};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::error::Error;
use super::packets::DISCONNECT;
use super::plan::{Address, Target};

pub(super) use layers::{Came, Layers, Room};
pub use tls::{Tls, TlsOptions};
pub use websocket::WebSocket;

/// Bytes read at once, where there are layers.
const READ_BYTES: usize = 32 * 1024;

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    fd: OwnedFd,
    layers: Option<Box<Layers>>,
    /// MQTT that has come and was not asked for yet; only where there are layers.
    inbox: Vec<u8>,
    patience: Duration,
    spin: bool,
}

thread_local! {
    /// What this thread has spent on asking in vain.
    static IDLE_NS: Cell<u64> = const { Cell::new(0) };
    static ROOM: RefCell<Room> = RefCell::new(Room::new(READ_BYTES));
}

/// Nanoseconds in which this thread has asked sockets again that had nothing. That is not work.
pub(super) fn idle_ns() -> u64 {
    IDLE_NS.get()
}

impl Link {
    /// Opens a socket to the broker. It blocks until there is a connection, and each read waits for the target's patience at
    /// most; with `spin` it waits without sleeping. Of a layer, it sends what comes first, and does not wait for the answer.
    pub(super) fn open(target: &Target, connection: usize, connections: usize, spin: bool) -> Result<Self, Error> {
        let mut link = Self::open_socket(target, connection, connections, spin)?;
        link.begin()?;
        Ok(link)
    }

    /// Opens a socket, and sends nothing yet.
    pub(super) fn open_socket(
        target: &Target,
        connection: usize,
        connections: usize,
        spin: bool,
    ) -> Result<Self, Error> {
        let failed = |errno: Errno| {
            let hint = match io::Error::from(errno).kind() {
                ErrorKind::ConnectionRefused => ": nobody listens there. Is the broker running?",
                ErrorKind::NotFound => ": there is no such socket. Is the broker running?",
                ErrorKind::AddrNotAvailable => ": no port is left for another connection from that address (--source)",
                _ => "",
            };
            let error = io::Error::from(errno);
            Error::NotStarted(format!("cannot connect to {} (connection {connection}): {error}{hint}", target.addr))
        };
        let fd = connect(target, connection, connections).map_err(failed)?;
        set_timeouts(&fd, target.patience).and_then(|()| ioctl_fionbio(&fd, spin)).map_err(failed)?;
        let layers = Layers::new(target, connection).map_err(Error::NotStarted)?;
        Ok(Self { fd, layers, inbox: Vec::new(), patience: target.patience, spin })
    }

    /// Sends what comes first of a layer.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        let Some(layers) = &mut self.layers else { return Ok(()) };
        let first = layers.begin().map_err(Error::NotStarted)?;
        self.write_wire(&first)
    }

    /// Whether MQTT may be sent without waiting for somebody.
    pub(super) fn is_ready(&self) -> bool {
        self.layers.as_ref().is_none_or(|layers| layers.is_ready())
    }

    /// Waits until layers are ready.
    pub(super) fn wait_ready(&mut self) -> Result<(), Error> {
        while !self.is_ready() {
            self.fill().map_err(|error| {
                Error::Lost(match error.kind() {
                    ErrorKind::WouldBlock => {
                        "the broker does not answer in time: does it speak TLS or WebSocket there?".into()
                    }
                    _ => format!("no connection to the broker: {error}"),
                })
            })?;
        }
        Ok(())
    }

    /// Writes whole packets; where there are layers, they are made ready before.
    pub(super) fn write(&mut self, packets: &[u8]) -> Result<(), Error> {
        self.wait_ready()?;
        match &mut self.layers {
            None => self.write_wire(packets),
            Some(layers) => {
                let mut wire = Vec::new();
                layers.seal(packets, &mut wire).map_err(Error::Lost)?;
                self.write_wire(&wire)
            }
        }
    }

    fn write_wire(&self, mut bytes: &[u8]) -> Result<(), Error> {
        let mut patience = Patience::new(self);
        while !bytes.is_empty() {
            match net::send(&self.fd, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => bytes = &bytes[count..],
                Err(errno) if patience.goes_on(errno) => {}
                Err(errno) => {
                    let error = io::Error::from(errno);
                    return Err(Error::Lost(format!("the broker takes no more bytes: {error}")));
                }
            }
        }
        Ok(())
    }

    /// Fills `bytes` with MQTT. Where there are no layers, it reads not a byte more.
    pub(super) fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        if self.layers.is_some() {
            while self.inbox.len() < bytes.len() {
                self.fill()?;
            }
            bytes.copy_from_slice(&self.inbox[..bytes.len()]);
            self.inbox.drain(..bytes.len());
            return Ok(());
        }
        let mut patience = Patience::new(self);
        let mut filled = 0;
        while filled < bytes.len() {
            match net::recv(&self.fd, &mut bytes[filled..], RecvFlags::empty()) {
                Ok((0, _)) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok((count, _)) => filled += count,
                Err(errno) if patience.goes_on(errno) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Waits for something, of which there may be no MQTT.
    fn fill(&mut self) -> io::Result<()> {
        let mut answer = Vec::new();
        let came = ROOM.with_borrow_mut(|room| {
            let layers = self.layers.as_mut().expect("only where there are layers");
            let mut since = None;
            loop {
                match layers.receive(&self.fd, RecvFlags::empty(), room, &mut self.inbox, &mut answer) {
                    Came::Nothing if self.spin => {
                        let since = *since.get_or_insert_with(Instant::now);
                        if since.elapsed() >= self.patience {
                            break Came::Nothing;
                        }
                    }
                    Came::Interrupted => {}
                    came => {
                        if let Some(since) = since {
                            IDLE_NS.set(IDLE_NS.get() + since.elapsed().as_nanos() as u64);
                        }
                        break came;
                    }
                }
            }
        });
        if !answer.is_empty() {
            self.write_wire(&answer).map_err(|error| io::Error::other(error.to_string()))?;
        }
        match came {
            Came::End(why) => Err(io::Error::other(why)),
            Came::Nothing => Err(ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    }

    /// Whether the broker has not closed it, nor sent any MQTT.
    pub(super) fn is_open(&mut self) -> bool {
        let Some(layers) = &mut self.layers else {
            let nothing = net::recv(&self.fd, &mut [0], RecvFlags::DONTWAIT | RecvFlags::PEEK);
            return nothing.is_err_and(|errno| errno == Errno::AGAIN);
        };
        let nothing = ROOM.with_borrow_mut(|room| {
            loop {
                match layers.receive(&self.fd, RecvFlags::DONTWAIT, room, &mut self.inbox, &mut Vec::new()) {
                    // Tickets of TLS, for example.
                    Came::Bytes { .. } | Came::Interrupted => {}
                    came => break came,
                }
            }
        });
        nothing == Came::Nothing && self.inbox.is_empty()
    }

    /// Says goodbye.
    pub(super) fn disconnect(&mut self) {
        // A broker that has gone is what was wanted.
        let _ = self.write(&DISCONNECT);
        if let Some(layers) = &mut self.layers {
            let mut wire = Vec::new();
            layers.close(&mut wire);
            let _ = self.write_wire(&wire);
        }
    }

    /// Waits until the broker has closed, whatever it sends before.
    pub(super) fn wait_closed(&self) {
        let mut patience = Patience::new(self);
        loop {
            match net::recv(&self.fd, &mut [0; 1024], RecvFlags::empty()) {
                Ok((1.., _)) => {}
                Err(errno) if patience.goes_on(errno) => {}
                _ => break,
            }
        }
    }

    /// For an epoll: the socket, what is above it, and MQTT that has come already.
    pub(super) fn into_parts(self) -> (OwnedFd, Option<Box<Layers>>, Vec<u8>) {
        (self.fd, self.layers, self.inbox)
    }

    /// Does not block any more.
    pub(super) fn nonblocking(self) -> Result<Self, Error> {
        ioctl_fionbio(&self.fd, true).map_err(|errno| Error::NotStarted(io::Error::from(errno).to_string()))?;
        Ok(self)
    }

    /// One without layers, for tests.
    #[cfg(test)]
    pub(super) fn plain(fd: OwnedFd, patience: Duration, spin: bool) -> Self {
        set_timeouts(&fd, patience).unwrap();
        ioctl_fionbio(&fd, spin).unwrap();
        Self { fd, layers: None, inbox: Vec::new(), patience, spin }
    }
}

/// A socket that is connected.
fn connect(target: &Target, connection: usize, connections: usize) -> Result<OwnedFd, Errno> {
    let family = match &target.addr {
        Address::Tcp(addr) if addr.is_ipv4() => AddressFamily::INET,
        Address::Tcp(_) => AddressFamily::INET6,
        Address::Unix(_) => AddressFamily::UNIX,
    };
    let fd = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    match &target.addr {
        Address::Unix(path) => net::connect(&fd, &SocketAddrUnix::new(path)?)?,
        Address::Tcp(addr) => {
            if let Some(source) = target.source(connection, connections) {
                net::bind(&fd, &SocketAddr::new(source, 0))?;
            }
            // For as long as the patience lasts, and no longer.
            ioctl_fionbio(&fd, true)?;
            match net::connect(&fd, addr) {
                Err(Errno::INPROGRESS) => wait_connected(&fd, target.patience)?,
                done => done?,
            }
            set_tcp_nodelay(&fd, true)?;
        }
    }
    Ok(fd)
}

fn wait_connected(fd: &OwnedFd, patience: Duration) -> Result<(), Errno> {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::new(fd, PollFlags::OUT)], Some(&timeout)) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Ok(_) => return socket_error(fd)?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn set_timeouts(fd: &OwnedFd, patience: Duration) -> Result<(), Errno> {
    set_socket_timeout(fd, Timeout::Recv, Some(patience))?;
    set_socket_timeout(fd, Timeout::Send, Some(patience))
}

/// How long a socket is asked again that has nothing yet, or takes nothing: one that blocks has waited by itself, and is not.
struct Patience {
    spin: bool,
    patience: Duration,
    /// Since when it has been asked again.
    asked: Option<Instant>,
}

impl Drop for Patience {
    fn drop(&mut self) {
        if let Some(since) = self.asked {
            IDLE_NS.set(IDLE_NS.get() + since.elapsed().as_nanos() as u64);
        }
    }
}

impl Patience {
    fn new(link: &Link) -> Self {
        Self { spin: link.spin, patience: link.patience, asked: None }
    }

    fn goes_on(&mut self, errno: Errno) -> bool {
        match errno {
            Errno::INTR => true,
            Errno::AGAIN if self.spin => self.asked.get_or_insert_with(Instant::now).elapsed() < self.patience,
            _ => false,
        }
    }
}
