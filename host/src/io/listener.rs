//! Listening sockets, and how a worker accepts from them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::net::{self, SocketFlags};

use super::bind;
use super::poller::Poller;
use crate::clock::Millis;
use crate::core::ListenerProfile;
use crate::listener::TcpConfig;

/// First and longest pause after the process or the system has run out of something, in milliseconds.
const BACK_OFF_MS: (u64, u64) = (20, 1_000);

/// Such a shortage is logged once in this time, in milliseconds, by all workers together.
const COMPLAIN_EVERY_MS: u64 = 10_000;

/// A socket that was accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) fd: OwnedFd,
    pub(super) peer: SocketAddr,
    /// What holds for all that come through its listener.
    pub(super) profile: Arc<ListenerProfile>,
}

/// A listening socket. Its clones accept from the same queue, so that each worker has one.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    socket: Arc<OwnedFd>,
    profile: Arc<ListenerProfile>,
    /// When a shortage was logged last, in milliseconds of the server's clock plus one; 0 if never.
    complained_at_ms: Arc<AtomicU64>,
}

/// A socket that listens, and of which nobody accepts yet.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: OwnedFd,
    addr: SocketAddr,
}

impl Bound {
    /// Binds and listens; port 0 takes a free one.
    pub(crate) fn bind(addr: SocketAddr, config: &TcpConfig) -> io::Result<Self> {
        let socket = bind::tcp(addr, config)?;
        let addr = SocketAddr::try_from(net::getsockname(&socket)?)?;
        Ok(Self { socket, addr })
    }

    /// The address that it is bound to.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on there is something that holds for who comes.
    pub(crate) fn with(self, profile: ListenerProfile) -> Listener {
        let (socket, profile) = (Arc::new(self.socket), Arc::new(profile));
        Listener { socket, profile, complained_at_ms: Arc::default() }
    }
}

impl Listener {
    /// Takes the first connection that waits.
    fn accept(&self) -> io::Result<Accepted> {
        let (fd, peer) = net::acceptfrom_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
        let peer = peer.ok_or_else(|| io::Error::other("its peer has no address"))?;
        let peer = bind::canonical(SocketAddr::try_from(peer)?);
        Ok(Accepted { fd, peer, profile: Arc::clone(&self.profile) })
    }

    fn complain(&self, error: &io::Error, now: Millis) {
        let now = now.0 + 1;
        let last = self.complained_at_ms.load(Ordering::Relaxed);
        let due = last == 0 || now >= last + COMPLAIN_EVERY_MS;
        let exchange = |last| self.complained_at_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed);
        if due && exchange(last).is_ok() {
            tracing::warn!(
                listener = %self.profile.name, %error,
                "new connections have to wait; those that are open are served. \
                 If files have run out: raise the limit (`ulimit -n`, or LimitNOFILE of the service)"
            );
        }
    }
}

/// Where one worker lets connections in: all listeners, watched by its epoll.
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
            if let Err(error) = poller.add_listener(&self.listeners[number].socket, number) {
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
            let _ = poller.remove(&listener.socket);
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
                    tracing::debug!(listener = %self.listeners[number].profile.name, %error, "a connection was not accepted");
                    self.knocking.pop();
                }
            }
        }
        None
    }

    fn close_for_a_time(&mut self, error: &io::Error, number: usize, poller: &Poller, now: Millis) {
        self.listeners[number].complain(error, now);
        self.close(poller);
        self.opens_at = Some(now + self.pause_ms);
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

    /// A listener at a free port, and its address.
    fn listener() -> (Listener, SocketAddr) {
        listener_with("127.0.0.1:0", &TcpConfig::default())
    }

    fn listener_with(addr: &str, config: &TcpConfig) -> (Listener, SocketAddr) {
        let bound = Bound::bind(addr.parse().unwrap(), config).unwrap();
        let addr = bound.addr();
        (bound.with(ListenerProfile::new(addr.to_string(), Limits::default())), addr)
    }

    fn poller() -> Poller {
        Poller::new(Poller::create(&Doorbell::new().unwrap()).unwrap())
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
        let (listener, addr) = listener();
        let client = TcpStream::connect(addr).unwrap();
        let accepted = listener.accept().unwrap();
        assert_eq!(accepted.peer, client.local_addr().unwrap());
        assert_eq!(*accepted.profile.name, *addr.to_string());
        assert!(sockopt::tcp_nodelay(&accepted.fd).unwrap());
        let error = net::recv(&accepted.fd, &mut [0_u8; 1], net::RecvFlags::empty()).unwrap_err();
        assert_eq!(error, Errno::AGAIN);
    }

    #[test]
    fn accepted_sockets_have_the_keep_alive_of_their_listener() {
        let keep_alive = TcpKeepAlive { probes: 3, ..TcpKeepAlive::after(Duration::from_secs(70)) };
        let config = TcpConfig { keep_alive: Some(keep_alive), ..TcpConfig::default() };
        for (config, expected) in [(TcpConfig::default(), false), (config, true)] {
            let (listener, addr) = listener_with("127.0.0.1:0", &config);
            let _client = TcpStream::connect(addr).unwrap();
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
            let first = Bound::bind("127.0.0.1:0".parse().unwrap(), first).unwrap();
            let second = Bound::bind(first.addr(), second);
            assert_eq!(second.err().map(|error| error.kind()), expected);
        }
    }

    #[test]
    fn peers_of_both_families_keep_their_addresses() {
        let dual_stack = TcpConfig { dual_stack: true, ..TcpConfig::default() };
        let (listener, addr) = listener_with("[::]:0", &dual_stack);
        for ip in ["127.0.0.1", "::1"] {
            let client = TcpStream::connect((ip, addr.port())).unwrap();
            let peer = listener.accept().unwrap().peer;
            assert_eq!(peer, client.local_addr().unwrap(), "not in IPv6 form");
        }
        let (_one, addr) = listener_with("[::]:0", &TcpConfig::default());
        let refused = TcpStream::connect(("127.0.0.1", addr.port()));
        assert!(refused.is_err(), "[::] without dual_stack is IPv6 only");
    }

    #[test]
    fn who_was_not_accepted_is_announced_again() {
        let (listeners, addrs): (Vec<_>, Vec<_>) = (0..2).map(|_| listener()).unzip();
        let clients = [1, 1, 0].map(|number: usize| TcpStream::connect(addrs[number]).unwrap());
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
        let (listeners, addrs): (Vec<_>, Vec<_>) = (0..2).map(|_| listener()).unzip();
        let _clients = [0, 1, 1, 1, 1].map(|number: usize| TcpStream::connect(addrs[number]).unwrap());
        let (mut entrance, mut poller) = (Entrance::new(listeners), poller());
        entrance.open(&poller, Millis(0));
        while reported(&mut poller, None).len() < 2 {}
        [0, 1].into_iter().for_each(|number| entrance.knock(number));
        for addr in [addrs[1], addrs[0]] {
            let accepted = entrance.accept(&poller, Millis(0)).expect("somebody waits at each of them");
            assert_eq!(*accepted.profile.name, *addr.to_string());
        }
    }

    #[test]
    fn nobody_is_announced_while_something_has_run_out() {
        let (listener, addr) = listener();
        let _client = TcpStream::connect(addr).unwrap();
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
