//! Listening sockets, and how a worker accepts from them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::net::{self, SocketFlags};

use super::bind;
use super::passed::PassedSocket;
use super::poller::Poller;
use super::tls::Acceptor;
use crate::clock::Millis;
use crate::core::ListenerProfile;
use crate::error::Error;
use crate::listener::{ListenerConfig, ListenerUrl, Place, Scheme, TcpConfig, WebSocketConfig};
use crate::proxy::Networks;
use crate::unix_socket::{BindError, UnixSocket};
use crate::ws;

/// First and longest pause after the process or the system has run out of something, in milliseconds.
const BACK_OFF_MS: (u64, u64) = (20, 1_000);

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
        let (socket, place) = match (passed, &config.url.place) {
            (Some(PassedSocket { fd, place, .. }), _) => match place {
                Place::Address(addr) => {
                    bind::prepare(&fd, &config.tcp).map_err(|source| Error::Listen { addr, source })?;
                    (Socket::Tcp(fd), place)
                }
                Place::Path(_) => (Socket::PassedUnix(fd), place),
            },
            #[cfg(feature = "quic")]
            (None, &Place::Address(addr)) if config.url.scheme == Scheme::Quic => {
                config.tcp.check(addr).map_err(wrong)?;
                let (fd, addr) = bind_udp(addr, &config.tcp).map_err(|source| Error::Listen { addr, source })?;
                (Socket::Udp(fd), Place::Address(addr))
            }
            (None, &Place::Address(addr)) => {
                config.tcp.check(addr).map_err(wrong)?;
                let (fd, addr) = bind_tcp(addr, &config.tcp).map_err(|source| Error::Listen { addr, source })?;
                (Socket::Tcp(fd), Place::Address(addr))
            }
            (None, Place::Path(path)) => (
                Socket::Unix(bind_unix(path, config.unix_mode, &config.tcp).map_err(wrong)?),
                Place::Path(path.clone()),
            ),
        };
        Ok(Self { socket: Arc::new(socket), url: ListenerUrl { place, ..config.url.clone() }, doors, before: None })
    }

    /// The socket of a listener that is there already, with other settings for what is behind it.
    ///
    /// # Errors
    /// As for [`Bound::open`].
    pub(crate) fn again(listener: &Listener, config: &ListenerConfig) -> Result<Self, Error> {
        let wrong = |what| Error::Listener { name: config.name(), what };
        let doors = Doors::of(config).map_err(wrong)?;
        let Self { socket, url, .. } = &listener.0.bound;
        let url = ListenerUrl { place: url.place.clone(), ..config.url.clone() };
        Ok(Self { socket: Arc::clone(socket), url, doors, before: Some(Arc::clone(&listener.0.profile)) })
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> &ListenerUrl {
        &self.url
    }

    /// From now on there is something that holds for who comes.
    pub(crate) fn with(mut self, mut profile: ListenerProfile) -> Listener {
        if let Some(before) = self.before.take() {
            profile.count_on(&before);
        }
        Listener(Arc::new(Inner { bound: self, profile: Arc::new(profile), complained_at_ms: AtomicU64::default() }))
    }
}

impl Listener {
    /// Where it listens.
    pub(crate) fn url(&self) -> &ListenerUrl {
        self.0.bound.url()
    }

    /// What handlers and the log call it.
    pub(crate) fn name(&self) -> &str {
        &self.0.profile.name
    }

    /// What holds for all that come through it.
    pub(super) fn profile(&self) -> &Arc<ListenerProfile> {
        &self.0.profile
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

    /// Takes the first connection that waits.
    fn accept(&self) -> io::Result<Accepted> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (fd, peer) = match &*self.0.bound.socket {
            Socket::Tcp(socket) => {
                let (fd, peer) = net::acceptfrom_with(socket, flags)?;
                let peer = peer.ok_or_else(|| io::Error::other("its peer has no address"))?;
                (fd, bind::canonical(SocketAddr::try_from(peer)?))
            }
            #[cfg(feature = "quic")]
            Socket::Udp(_) => return Err(Errno::OPNOTSUPP.into()),
            Socket::Unix(_) | Socket::PassedUnix(_) => (net::accept_with(&self.0.bound.socket, flags)?, LOCAL_PEER),
        };
        Ok(Accepted { fd, peer, listener: self.clone() })
    }

    fn complain(&self, error: &io::Error, now: Millis) {
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
        if scheme == Scheme::Quic {
            check_quic(config)?;
        }
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

/// What a listener for QUIC cannot have.
fn check_quic(config: &ListenerConfig) -> Result<(), String> {
    if !cfg!(feature = "quic") {
        return Err("this host is built without QUIC: build it with `cargo build --release --features quic`".to_owned());
    }
    if !config.proxy_from.is_empty() {
        return Err("proxy_from is for connections over TCP and Unix sockets: leave it out for quic://".to_owned());
    }
    if config.tcp.reuse_port {
        // The packets of one connection would come to several processes.
        return Err("reuse_port is for connections over TCP: leave it out for quic://".to_owned());
    }
    Ok(())
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
            format!("nobody listens at the socket that is there, but it cannot be removed: {error}")
        }
        BindError::System(error) => {
            format!("{error}. Expected a path of at most 107 bytes in a directory that is there and that this user may write to")
        }
    })
}

/// Where one thread lets connections in: its listeners, watched by its epoll.
///
/// While the process or the system has run out of something they are not watched, so that nobody is woken up in vain; who
/// comes meanwhile waits in the kernel's queue.
pub(super) struct Entrance {
    listeners: Vec<Listener>,
    /// Numbers of those where somebody waits.
    knocking: Vec<usize>,
    /// When they are to be watched, if they are not yet, or not after a shortage.
    opens_at: Option<Millis>,
    /// How long the next shortage is taken to last, in milliseconds.
    pause_ms: u64,
}

impl Entrance {
    /// One that is to be opened at once.
    pub(super) fn new(listeners: Vec<Listener>) -> Self {
        Self { listeners, knocking: Vec::new(), opens_at: Some(Millis(0)), pause_ms: BACK_OFF_MS.0 }
    }

    /// Goes on with other listeners, from the next time on that it is opened.
    pub(super) fn exchange(&mut self, listeners: Vec<Listener>, poller: &Poller) {
        self.close_until(poller, Millis(0));
        self.listeners = listeners;
    }

    /// When the entrance is to be opened, if it is to be.
    pub(super) fn opens_at(&self) -> Option<Millis> {
        self.opens_at
    }

    /// Opens the entrance if it is time to.
    pub(super) fn open(&mut self, poller: &Poller, now: Millis) {
        if self.opens_at.is_none_or(|at| at > now) {
            return;
        }
        self.opens_at = None;
        for number in 0..self.listeners.len() {
            if let Err(error) = poller.add_listener(&self.listeners[number], number) {
                return self.close_for_a_time(&error, number, poller, now);
            }
        }
    }

    /// Closes the entrance for good.
    pub(super) fn close(&mut self, poller: &Poller) {
        self.knocking.clear();
        self.opens_at = None;
        for listener in &self.listeners {
            // It fails where it is not watched, which is what is wanted.
            let _ = poller.remove(listener);
        }
    }

    /// Somebody waits at the listener of this number.
    pub(super) fn knock(&mut self, number: usize) {
        if !self.knocking.contains(&number) {
            self.knocking.push(number);
        }
    }

    /// Accepts one of those who wait. `None` if there is nobody, or nobody can be let in for a time.
    pub(super) fn accept(&mut self, poller: &Poller, now: Millis) -> Option<Accepted> {
        while let Some(&number) = self.knocking.last() {
            match self.listeners[number].accept() {
                Ok(accepted) => {
                    self.pause_ms = BACK_OFF_MS.0;
                    // One by one, so that a listener where very many knock does not keep the others from their turn.
                    self.knocking.rotate_right(1);
                    return Some(accepted);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => drop(self.knocking.pop()),
                Err(error) if is_shortage(&error) => self.close_for_a_time(&error, number, poller, now),
                Err(error) => {
                    // The connection failed before we came to it; there is nobody to tell. Who is behind it is announced again.
                    tracing::debug!(listener = %self.listeners[number].name(), %error, "a connection was not accepted");
                    self.knocking.pop();
                }
            }
        }
        None
    }

    /// Closes the entrance until then.
    pub(super) fn close_until(&mut self, poller: &Poller, at: Millis) {
        self.close(poller);
        self.opens_at = Some(at);
    }

    fn close_for_a_time(&mut self, error: &io::Error, number: usize, poller: &Poller, now: Millis) {
        self.listeners[number].complain(error, now);
        self.close_until(poller, now + self.pause_ms);
        self.pause_ms = (self.pause_ms * 2).min(BACK_OFF_MS.1);
    }
}

/// Whether the process or the system has run out of something: trying again at once would only burn time.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    shortages.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use rustix::net::sockopt;

    use super::*;
    use crate::io::poller::{Doorbell, Readiness};
    use crate::limits::Limits;
    use crate::listener::TcpKeepAlive;

    fn listener() -> Listener {
        listener_with("127.0.0.1:0", &TcpConfig::default())
    }

    fn listener_with(addr: &str, tcp: &TcpConfig) -> Listener {
        let mut config = ListenerConfig::new(addr.parse().unwrap());
        config.tcp = tcp.clone();
        let bound = Bound::open(&config, None).unwrap();
        let name = bound.url().addr().unwrap().to_string();
        bound.with(ListenerProfile::new(name, Limits::default()))
    }

    fn poller() -> Poller {
        Poller::new(Poller::create(&Doorbell::new().unwrap()).unwrap())
    }

    fn connect(listener: &Listener) -> std::io::Result<TcpStream> {
        TcpStream::connect(listener.url().addr().unwrap())
    }

    /// The numbers of the listeners that are reported, once there is something.
    fn reported(poller: &mut Poller, patience_ms: Option<u64>) -> Vec<usize> {
        poller.wait(patience_ms).unwrap();
        let listener = |readiness| match readiness {
            Readiness::Listener(number) => Some(number),
            _ => None,
        };
        poller.readiness().filter_map(listener).collect()
    }

    #[test]
    fn accepted_sockets_do_not_delay_small_segments_and_do_not_block() {
        let listener = listener();
        let addr = listener.url().addr().unwrap();
        let client = TcpStream::connect(addr).unwrap();
        let accepted = listener.accept().unwrap();
        assert_eq!(accepted.peer, client.local_addr().unwrap());
        assert_eq!(accepted.listener.name(), addr.to_string());
        assert!(sockopt::tcp_nodelay(&accepted.fd).unwrap());
        let error = net::recv(&accepted.fd, &mut [0_u8; 1], net::RecvFlags::empty()).unwrap_err();
        assert_eq!(error, Errno::AGAIN);
    }

    #[test]
    fn accepted_sockets_have_the_keep_alive_of_their_listener() {
        let keep_alive = TcpKeepAlive { probes: 3, ..TcpKeepAlive::after(Duration::from_secs(70)) };
        let config = TcpConfig { keep_alive: Some(keep_alive), ..TcpConfig::default() };
        for (config, expected) in [(TcpConfig::default(), false), (config, true)] {
            let listener = listener_with("127.0.0.1:0", &config);
            let _client = connect(&listener).unwrap();
            let fd = listener.accept().unwrap().fd;
            assert_eq!(sockopt::socket_keepalive(&fd).unwrap(), expected);
            if expected {
                assert_eq!(sockopt::tcp_keepidle(&fd).unwrap(), Duration::from_secs(70));
                assert_eq!(sockopt::tcp_keepintvl(&fd).unwrap(), TcpKeepAlive::INTERVAL);
                assert_eq!(sockopt::tcp_keepcnt(&fd).unwrap(), 3);
            }
        }
    }

    #[test]
    fn port_is_shared_only_if_both_want_it() {
        let shared = TcpConfig { reuse_port: true, ..TcpConfig::default() };
        for (first, second, expected) in [
            (&shared, &shared, None),
            (&shared, &TcpConfig::default(), Some(io::ErrorKind::AddrInUse)),
            (&TcpConfig::default(), &shared, Some(io::ErrorKind::AddrInUse)),
        ] {
            let (_first, addr) = bind_tcp("127.0.0.1:0".parse().unwrap(), first).unwrap();
            let second = bind_tcp(addr, second);
            assert_eq!(second.err().map(|error| error.kind()), expected);
        }
    }

    #[test]
    fn peers_of_both_families_keep_their_addresses() {
        let dual_stack = TcpConfig { dual_stack: true, ..TcpConfig::default() };
        let listener = listener_with("[::]:0", &dual_stack);
        let addr = listener.url().addr().unwrap();
        for ip in ["127.0.0.1", "::1"] {
            let client = TcpStream::connect((ip, addr.port())).unwrap();
            let peer = listener.accept().unwrap().peer;
            assert_eq!(peer, client.local_addr().unwrap(), "not in IPv6 form");
        }
        let one = listener_with("[::]:0", &TcpConfig::default());
        let addr = one.url().addr().unwrap();
        let refused = TcpStream::connect(("127.0.0.1", addr.port()));
        assert!(refused.is_err(), "[::] without dual_stack is IPv6 only");
    }

    #[test]
    fn quic_takes_what_it_can_keep_to() {
        type Change = fn(&mut ListenerConfig);
        let open = |change: Change| {
            let mut config = ListenerConfig::new("quic://127.0.0.1:0".parse().unwrap());
            change(&mut config);
            Bound::open(&config, None).map(|_| ()).unwrap_err().to_string()
        };
        let table: [(Change, &str); 3] = [
            (
                |config| config.proxy_from.0.push("10.0.0.0/8".parse().unwrap()),
                "proxy_from is for connections over TCP",
            ),
            (|config| config.tcp.reuse_port = true, "reuse_port is for connections over TCP"),
            (|_| {}, "needs a certificate"),
        ];
        for (change, expected) in table {
            let error = open(change);
            let expected = if cfg!(feature = "quic") { expected } else { "this host is built without QUIC" };
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn who_was_not_accepted_is_announced_again() {
        let listeners: Vec<_> = (0..2).map(|_| listener()).collect();
        let clients = [1, 1, 0].map(|number: usize| connect(&listeners[number]).unwrap());
        let (mut entrance, mut poller) = (Entrance::new(listeners), poller());
        entrance.open(&poller, Millis(0));
        let mut peers = Vec::new();
        while peers.len() < clients.len() {
            let numbers = reported(&mut poller, None);
            assert!(!numbers.is_empty());
            numbers.into_iter().for_each(|number| entrance.knock(number));
            // One of several, as when a turn has no time for more.
            peers.extend(entrance.accept(&poller, Millis(0)).map(|accepted| accepted.peer));
        }
        peers.sort_unstable();
        let mut expected = clients.map(|client| client.local_addr().unwrap());
        expected.sort_unstable();
        assert_eq!(peers, expected);
        assert_eq!(reported(&mut poller, Some(0)), [0; 0]);
    }

    #[test]
    fn a_listener_where_many_wait_does_not_keep_others_from_their_turn() {
        let listeners: Vec<_> = (0..2).map(|_| listener()).collect();
        let names = [0, 1].map(|number: usize| listeners[number].name().to_owned());
        let _clients = [0, 1, 1, 1, 1].map(|number: usize| connect(&listeners[number]).unwrap());
        let (mut entrance, mut poller) = (Entrance::new(listeners), poller());
        entrance.open(&poller, Millis(0));
        while reported(&mut poller, None).len() < 2 {}
        [0, 1].into_iter().for_each(|number| entrance.knock(number));
        for name in [&names[1], &names[0]] {
            assert_eq!(
                entrance.accept(&poller, Millis(0)).map(|accepted| accepted.listener.name().to_owned()).as_ref(),
                Some(name)
            );
        }
    }

    #[test]
    fn nobody_is_announced_while_something_has_run_out() {
        let listener = listener();
        let _client = connect(&listener).unwrap();
        let (mut entrance, mut poller) = (Entrance::new(vec![listener]), poller());
        entrance.open(&poller, Millis(0));
        let shortage = io::Error::from(Errno::MFILE);
        let mut now = Millis(5);
        for pause_ms in [20, 40, 80, 160, 320, 640, 1_000, 1_000] {
            assert_eq!(reported(&mut poller, None), [0]);
            entrance.knock(0);
            entrance.close_for_a_time(&shortage, 0, &poller, now);
            assert!(entrance.accept(&poller, now).is_none());
            assert_eq!(entrance.opens_at(), Some(now + pause_ms));
            entrance.open(&poller, now + (pause_ms - 1));
            assert_eq!(reported(&mut poller, Some(0)), [0; 0], "pause of {pause_ms} ms");
            now = now + pause_ms;
            entrance.open(&poller, now);
            assert_eq!(entrance.opens_at(), None);
        }
        entrance.knock(0);
        assert!(entrance.accept(&poller, now).is_some());
        entrance.close_for_a_time(&shortage, 0, &poller, now);
        assert_eq!(entrance.opens_at(), Some(now + 20), "the shortage was over");
        entrance.close(&poller);
        assert_eq!(entrance.opens_at(), None, "closed for good");
    }
}
