//! Listening sockets, and what connections go through behind them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use rustix::net::{self, SocketFlags, sockopt};

use super::bind;
use super::passed::{Origin, PassedSocket};
use super::tls::Acceptor;
use crate::clock::Millis;
use crate::core::ListenerProfile;
use crate::error::Error;
use crate::listener::{ListenerConfig, ListenerUrl, Place, Scheme, TcpConfig, WebSocketConfig};
use crate::privileges::Owner;
use crate::proxy::Networks;
use crate::unix_socket::{BindError, UnixSocket};
use crate::ws;

/// Such a shortage is logged once in this time, in milliseconds, by all workers together.
const COMPLAIN_EVERY_MS: u64 = 10_000;

/// The largest bound for the request of a WebSocket, in bytes: so much is held for each who has not been let in.
const MAX_REQUEST_BYTES: usize = 64 << 10;

/// The peer of a Unix socket, which has no address: somebody on this machine.
const LOCAL_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The protocol that TLS clients may name (ALPN).
const MQTT: &str = "mqtt";

/// The same where they speak WebSocket, which begins with a request of HTTP.
const HTTP: &str = "http/1.1";

/// A socket that was accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) fd: OwnedFd,
    pub(super) peer: SocketAddr,
    pub(super) listener: Listener,
}

impl Accepted {
    /// Whether it comes from where a header of the PROXY protocol is believed, if it has to begin with one.
    pub(super) fn may_say_who_it_is(&self) -> bool {
        let proxies = &self.listener.doors().proxies;
        let peer = (self.listener.url().scheme != Scheme::Unix).then(|| self.peer.ip());
        proxies.is_empty() || proxies.contains(peer)
    }
}

/// A listening socket. Its clones accept from the same queue, so that each thread has one; with the last one it is closed.
#[derive(Debug, Clone)]
pub(crate) struct Listener(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bound: Bound,
    /// What holds for all that come through it.
    profile: Arc<ListenerProfile>,
    /// When a shortage was logged last, in milliseconds of the server's clock plus one; 0 if never.
    complained_at_ms: AtomicU64,
}

/// A listener, if somebody has it still.
#[derive(Debug)]
pub(crate) struct WeakListener(Weak<Inner>);

impl WeakListener {
    pub(crate) fn upgrade(&self) -> Option<Listener> {
        self.0.upgrade().map(Listener)
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(OwnedFd),
    Unix(UnixSocket),
    /// A Unix socket whose file is somebody else's.
    PassedUnix(OwnedFd),
    /// Of datagrams, which only [`quic`](super::quic) reads.
    #[cfg(feature = "quic")]
    Udp(OwnedFd),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(fd) | Self::PassedUnix(fd) => fd.as_fd(),
            #[cfg(feature = "quic")]
            Self::Udp(fd) => fd.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// What a connection goes through before there is MQTT.
#[derive(Debug, Default)]
pub(super) struct Doors {
    /// Where proxies are, if connections come through one.
    pub(super) proxies: Networks,
    pub(super) tls: Option<Acceptor>,
    /// What is asked of the request that a WebSocket begins with.
    pub(super) websocket: Option<ws::Settings>,
}

/// A socket that listens, and of which nobody accepts yet.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: Arc<Socket>,
    /// How it is called where it was passed by somebody who goes on having it.
    passed_as: Option<String>,
    /// Where it is bound, with the port that it really has.
    url: ListenerUrl,
    doors: Doors,
    /// What held for who came by the socket before.
    before: Option<Arc<ListenerProfile>>,
}

/// Reads the files that a listener's settings name, and leaves it at that.
///
/// # Errors
/// The settings do not fit together, or a file that they name is of no use.
pub(crate) fn check(config: &ListenerConfig) -> Result<(), Error> {
    let wrong = |what| Error::Listener { name: config.name(), what };
    Doors::of(config).map(drop).map_err(wrong)
}

impl Bound {
    /// Binds and listens; port 0 takes a free one. Where a socket was passed, it takes the place of one that would be bound.
    ///
    /// # Errors
    /// The settings do not fit together, a file that they name is of no use, or the operating system refuses the place.
    pub(crate) fn open(config: &ListenerConfig, passed: Option<PassedSocket>) -> Result<Self, Error> {
        let wrong = |what| Error::Listener { name: config.name(), what };
        // Before the port is taken: whoever connects finds somebody who can answer.
        let doors = Doors::of(config).map_err(wrong)?;
        let passed_as =
            passed.as_ref().filter(|socket| socket.origin == Origin::Elsewhere).map(PassedSocket::to_string);
        let (socket, place) = match (passed, &config.url.place) {
            (Some(PassedSocket { fd, place, origin, .. }), _) => match place {
                #[cfg(feature = "quic")]
                Place::Address(_) if config.url.scheme == Scheme::Quic => (Socket::Udp(fd), place),
                Place::Address(addr) => {
                    bind::prepare(&fd, &config.tcp).map_err(|source| Error::Listen { addr, source })?;
                    (Socket::Tcp(fd), place)
                }
                Place::Path(path) => match origin {
                    Origin::Predecessor { owns_name: true, .. } => {
                        (Socket::Unix(UnixSocket::inherited(fd, &path)), Place::Path(path))
                    }
                    _ => (Socket::PassedUnix(fd), Place::Path(path)),
                },
            },
            #[cfg(feature = "quic")]
            (None, &Place::Address(addr)) if config.url.scheme == Scheme::Quic => {
                let (fd, addr) = bind_udp(addr, &config.tcp).map_err(|source| Error::Listen { addr, source })?;
                (Socket::Udp(fd), Place::Address(addr))
            }
            (None, &Place::Address(addr)) => {
                let (fd, addr) = bind_tcp(addr, &config.tcp).map_err(|source| Error::Listen { addr, source })?;
                (Socket::Tcp(fd), Place::Address(addr))
            }
            (None, Place::Path(path)) => (
                Socket::Unix(bind_unix(path, config.unix_mode, &config.tcp).map_err(wrong)?),
                Place::Path(path.clone()),
            ),
        };
        let url = ListenerUrl { place, ..config.url.clone() };
        Ok(Self { socket: Arc::new(socket), passed_as, url, doors, before: None })
    }

    /// The same where listeners of this process are in the way that are to be closed: until this one is there as well, they share
    /// the port. That takes sockets of one user, so it is of no use for those that were opened before the process became another.
    ///
    /// # Errors
    /// As for [`Bound::open`].
    pub(crate) fn open_instead_of(leaving: &[&Listener], config: &ListenerConfig) -> Result<Self, Error> {
        let shared: Vec<_> = leaving.iter().filter_map(|listener| SharedPort::of(listener)).collect();
        let mut sharing = config.clone();
        sharing.tcp.reuse_port |= !shared.is_empty();
        let bound = Self::open(&sharing, None)?;
        if let (Socket::Tcp(fd), Some(addr)) = (&*bound.socket, bound.url.addr()) {
            let alone = sockopt::set_socket_reuseport(fd, config.tcp.reuse_port);
            alone.map_err(|errno| Error::Listen { addr, source: errno.into() })?;
        }
        Ok(bound)
    }

    /// The socket of a listener that is there already, with other settings for what is behind it.
    ///
    /// # Errors
    /// As for [`Bound::open`].
    pub(crate) fn again(listener: &Listener, config: &ListenerConfig) -> Result<Self, Error> {
        let wrong = |what| Error::Listener { name: config.name(), what };
        let doors = Doors::of(config).map_err(wrong)?;
        let Self { socket, passed_as, url, .. } = &listener.0.bound;
        let (socket, before) = (Arc::clone(socket), Some(Arc::clone(&listener.0.profile)));
        let url = ListenerUrl { place: url.place.clone(), ..config.url.clone() };
        Ok(Self { socket, passed_as: passed_as.clone(), url, doors, before })
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> &ListenerUrl {
        &self.url
    }

    /// Makes its name in the file system, if it has one, another user's.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub(crate) fn give_to(&self, owner: Owner) -> Result<(), Error> {
        let Socket::Unix(socket) = &*self.socket else { return Ok(()) };
        socket.give_to(owner).map_err(|error| {
            let what = format!("its socket cannot be made that of the user with uid {}: {error}", owner.uid);
            Error::Listener { name: self.url.to_string(), what }
        })
    }

    /// The keys of the settings whose files contain something else than those that a listener with the same settings goes by.
    pub(crate) fn differs_in(&self, listener: &Listener) -> Vec<&'static str> {
        let both = self.doors.tls.as_ref().zip(listener.doors().tls.as_ref());
        both.map(|(now, before)| now.differs_in(before)).unwrap_or_default()
    }

    /// From now on there is something that holds for who comes.
    pub(crate) fn with(mut self, mut profile: ListenerProfile) -> Listener {
        if let Some(before) = self.before.take() {
            profile.count_on(&before);
        }
        Listener(Arc::new(Inner { bound: self, profile: Arc::new(profile), complained_at_ms: AtomicU64::default() }))
    }
}

/// A listening socket that shares its port with others of the same user, until this is dropped.
struct SharedPort<'a> {
    socket: &'a OwnedFd,
    /// Whether it does so anyway.
    before: bool,
}

impl<'a> SharedPort<'a> {
    /// `None` if it cannot.
    fn of(listener: &'a Listener) -> Option<Self> {
        let Socket::Tcp(socket) = &*listener.0.bound.socket else { return None };
        let before = sockopt::socket_reuseport(socket).ok()?;
        sockopt::set_socket_reuseport(socket, true).ok()?;
        Some(Self { socket, before })
    }
}

impl Drop for SharedPort<'_> {
    fn drop(&mut self) {
        // It is a socket that takes this option.
        let _ = sockopt::set_socket_reuseport(self.socket, self.before);
    }
}

impl Listener {
    /// Whether its socket was opened by another user than the process has now.
    pub(crate) fn is_of_another_user(&self) -> bool {
        rustix::fs::fstat(self).is_ok_and(|found| found.st_uid != rustix::process::geteuid().as_raw())
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> &ListenerUrl {
        self.0.bound.url()
    }

    /// What handlers and the log call it.
    pub(crate) fn name(&self) -> &str {
        &self.0.profile.name
    }

    /// What holds for all that come through it.
    pub(crate) fn profile(&self) -> &Arc<ListenerProfile> {
        &self.0.profile
    }

    /// Its address, and its name if it has one, where it was passed by somebody who goes on having it.
    pub(crate) fn passed_as(&self) -> Option<&str> {
        self.0.bound.passed_as.as_deref()
    }

    /// Whether it has a name in the file system that goes with it.
    pub(crate) fn owns_name(&self) -> bool {
        matches!(&*self.0.bound.socket, Socket::Unix(_))
    }

    /// Says whether its name goes with it, where it has one: another process may have the socket as well.
    pub(crate) fn set_ours(&self, is_ours: bool) {
        if let Socket::Unix(socket) = &*self.0.bound.socket {
            socket.set_ours(is_ours);
        }
    }

    /// Whether its connections speak MQTT from the first byte on, with nothing to be found out before: workers accept them.
    /// Those of others come through the [anteroom](super::anteroom), but for those of QUIC.
    pub(crate) fn is_direct(&self) -> bool {
        self.url().scheme == Scheme::Tcp && self.doors().are_open()
    }

    /// Whether its connections are streams of QUIC.
    pub(crate) fn is_quic(&self) -> bool {
        self.url().scheme == Scheme::Quic
    }

    /// Whether it is a clone of that one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether it has the same socket as that one.
    pub(crate) fn has_socket_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.bound.socket, &other.0.bound.socket)
    }

    /// For who wants to know whether it is in use still.
    pub(crate) fn downgrade(&self) -> WeakListener {
        WeakListener(Arc::downgrade(&self.0))
    }

    /// Whether they come through the anteroom.
    pub(crate) fn has_guests(&self) -> bool {
        !self.is_direct() && !self.is_quic()
    }

    pub(super) fn doors(&self) -> &Doors {
        &self.0.bound.doors
    }

    /// Reads the certificates anew that it shows, and what it verifies those of clients with. `None` if it has none; in an error,
    /// all stays as it is. `if_changed`: only if the files have changed, and have settled.
    pub(crate) fn reload(&self, if_changed: bool) -> Option<Result<(), Error>> {
        let tls = self.doors().tls.as_ref()?;
        let reloaded = if if_changed { tls.reload_changed()? } else { tls.reload() };
        Some(reloaded.map_err(|what| Error::Listener { name: self.name().to_owned(), what }))
    }

    /// Has the socket be as other settings want it, as far as that can change: for who connects from now on.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub(crate) fn adjust(&self, config: &ListenerConfig) -> io::Result<()> {
        let backlog = config.tcp.backlog.try_into().unwrap_or(i32::MAX);
        match &*self.0.bound.socket {
            Socket::Tcp(fd) => {
                bind::prepare(fd, &config.tcp)?;
                // The backlog of a socket that was passed is its owner's business.
                if self.passed_as().is_none() {
                    net::listen(fd, backlog)?;
                }
            }
            Socket::Unix(socket) => {
                net::listen(socket, backlog)?;
                socket.set_mode(config.unix_mode)?;
            }
            Socket::PassedUnix(_) => {}
            #[cfg(feature = "quic")]
            Socket::Udp(_) => {}
        }
        Ok(())
    }

    /// Takes the first connection that waits.
    pub(super) fn accept(&self) -> io::Result<Accepted> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (fd, peer) = match &*self.0.bound.socket {
            Socket::Tcp(socket) => {
                let (fd, peer) = net::acceptfrom_with(socket, flags)?;
                let peer = peer.ok_or_else(|| io::Error::other("its peer has no address"))?;
                (fd, bind::canonical(SocketAddr::try_from(peer)?))
            }
            #[cfg(feature = "quic")]
            Socket::Udp(_) => return Err(rustix::io::Errno::OPNOTSUPP.into()),
            Socket::Unix(_) | Socket::PassedUnix(_) => (net::accept_with(&self.0.bound.socket, flags)?, LOCAL_PEER),
        };
        Ok(Accepted { fd, peer, listener: self.clone() })
    }

    /// Says in the log, now and then, that something has run out.
    pub(super) fn complain(&self, error: &io::Error, now: Millis) {
        let now = now.0 + 1;
        let complained = &self.0.complained_at_ms;
        let last = complained.load(Ordering::Relaxed);
        let due = last == 0 || now >= last + COMPLAIN_EVERY_MS;
        let exchange = |last| complained.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed);
        if due && exchange(last).is_ok() {
            tracing::warn!(
                listener = %self.name(), %error,
                "new connections have to wait; those that are open are served. \
                 If files have run out: raise the limit (`ulimit -n`, or LimitNOFILE of the service)"
            );
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.bound.socket.as_fd()
    }
}

impl Doors {
    fn of(config: &ListenerConfig) -> Result<Self, String> {
        let scheme = config.url.scheme;
        if scheme == Scheme::Quic && !cfg!(feature = "quic") {
            let what = "this host is built without QUIC: build it with `cargo build --release --features quic`";
            return Err(what.to_owned());
        }
        if let Some((_, what)) = config.misplaced().into_iter().next() {
            return Err(what);
        }
        config.tcp.check(config.url.addr())?;
        let protocol = if scheme.has_websocket() { HTTP } else { MQTT };
        let tls = scheme.has_tls().then(|| Acceptor::new(&config.tls, &[protocol])).transpose()?;
        let websocket = scheme.has_websocket().then(|| websocket(&config.url.path, &config.websocket)).transpose()?;
        Ok(Self { proxies: config.proxy_from.clone(), tls, websocket })
    }

    /// Whether there is nothing to go through.
    fn are_open(&self) -> bool {
        self.proxies.is_empty() && self.tls.is_none() && self.websocket.is_none()
    }
}

/// What is asked of a WebSocket, if it makes sense.
fn websocket(path: &str, config: &WebSocketConfig) -> Result<ws::Settings, String> {
    let &WebSocketConfig { ref origins, request_bytes_max, deflate } = config;
    if !(64..=MAX_REQUEST_BYTES).contains(&request_bytes_max) {
        return Err(format!("request_bytes_max is {request_bytes_max}, expected 64 to {MAX_REQUEST_BYTES} bytes"));
    }
    for origin in origins {
        WebSocketConfig::check_origin(origin)?;
    }
    Ok(ws::Settings { path: path.to_owned(), origins: origins.clone(), request_bytes_max, deflate })
}

#[cfg(feature = "quic")]
fn bind_udp(addr: SocketAddr, config: &TcpConfig) -> io::Result<(OwnedFd, SocketAddr)> {
    let socket = bind::udp(addr, config)?;
    let addr = SocketAddr::try_from(net::getsockname(&socket)?)?;
    Ok((socket, addr))
}

/// A socket that listens at an address, and the address that it has.
fn bind_tcp(addr: SocketAddr, config: &TcpConfig) -> io::Result<(OwnedFd, SocketAddr)> {
    let socket = bind::tcp(addr, config)?;
    let addr = SocketAddr::try_from(net::getsockname(&socket)?)?;
    Ok((socket, addr))
}

/// A socket that listens at a path, or why there is none.
fn bind_unix(path: &Path, mode: u32, config: &TcpConfig) -> Result<UnixSocket, String> {
    let backlog = config.backlog.try_into().unwrap_or(i32::MAX);
    UnixSocket::bind(path, mode, SocketFlags::NONBLOCK, backlog).map_err(|error| match error {
        BindError::InUse => "another program (or another host) listens there: stop it, or take another path".to_owned(),
        BindError::NotASocket => {
            "there is something else than a socket, which is left alone: take another path, or remove what is there".to_owned()
        }
        BindError::Stale(error) => {
            format!("there is a socket already, which may be somebody else's and cannot be removed: {error}")
        }
        BindError::System(error) => {
            format!("{error}. Expected a path of at most 107 bytes in a directory that is there and that this user may write to")
        }
    })
}

#[cfg(test)]
pub(super) mod tests;
