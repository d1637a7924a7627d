//! Listening sockets, and the tasks that accept from them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::poller::watch;
use crate::clock::Clock;

/// Connections that the kernel keeps for us until we accept them, unless the system allows fewer.
const BACKLOG: i32 = 4096;

/// First and longest pause after the process or the system has run out of something.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Such a shortage is logged once in this time, in milliseconds, by all workers together.
const COMPLAIN_EVERY_MS: u64 = 10_000;

/// A socket that was accepted, on its way to the driver.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) fd: OwnedFd,
    pub(super) peer: SocketAddr,
    pub(super) listener: Arc<str>,
}

/// A listening socket. Its clones accept from the same queue, so that each worker has one.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    socket: Arc<OwnedFd>,
    addr: SocketAddr,
    /// The address as handlers are told it.
    name: Arc<str>,
    /// When a shortage was logged last, in milliseconds of the server's clock plus one; 0 if never.
    complained_at_ms: Arc<AtomicU64>,
}

impl Listener {
    /// Binds and listens; port 0 takes a free one.
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<Self> {
        let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
        // A restart does not have to wait until the connections of its predecessor are forgotten.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if addr.is_ipv6() {
            // `0.0.0.0` and `[::]` are two listeners: one that also means the other surprises.
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        // We decide what goes into a segment. Linux hands the option down to the accepted sockets: no call for each.
        sockopt::set_tcp_nodelay(&socket, true)?;
        net::bind(&socket, &addr)?;
        net::listen(&socket, BACKLOG)?;
        let addr = SocketAddr::try_from(net::getsockname(&socket)?)?;
        Ok(Self { socket: Arc::new(socket), addr, name: addr.to_string().into(), complained_at_ms: Arc::default() })
    }

    /// The address that it is bound to.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Accepts until `accepted` is closed. A full channel keeps connections in the kernel's queue.
    pub(super) async fn accept(self, accepted: mpsc::Sender<Accepted>, clock: Clock) {
        let socket = match watch(Arc::clone(&self.socket)) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(listener = %self.name, %error, "cannot wait for connections; this worker accepts none");
                return;
            }
        };
        let mut pause = BACK_OFF.0;
        while let Ok(permit) = accepted.reserve().await {
            match accept_one(&socket).await {
                Ok((fd, peer)) => {
                    pause = BACK_OFF.0;
                    permit.send(Accepted { fd, peer, listener: Arc::clone(&self.name) });
                }
                Err(error) if is_shortage(&error) => {
                    self.complain(&error, clock);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACK_OFF.1);
                }
                // The connection failed before we came to it; there is nobody to tell.
                Err(error) => tracing::debug!(listener = %self.name, %error, "a connection was not accepted"),
            }
        }
    }

    fn complain(&self, error: &io::Error, clock: Clock) {
        let now = clock.now().0 + 1;
        let last = self.complained_at_ms.load(Ordering::Relaxed);
        let due = last == 0 || now >= last + COMPLAIN_EVERY_MS;
        let exchange = |last| self.complained_at_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed);
        if due && exchange(last).is_ok() {
            tracing::warn!(
                listener = %self.name, %error,
                "new connections have to wait; those that are open are served. \
                 If files have run out: raise the limit (`ulimit -n`, or LimitNOFILE of the service)"
            );
        }
    }
}

async fn accept_one(socket: &AsyncFd<Arc<OwnedFd>>) -> io::Result<(OwnedFd, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let accept = |socket: &Arc<OwnedFd>| Ok(net::acceptfrom_with(socket, flags)?);
    let (fd, peer) = socket.async_io(Interest::READABLE, accept).await?;
    let peer = peer.ok_or_else(|| io::Error::other("its peer has no address"))?;
    Ok((fd, SocketAddr::try_from(peer)?))
}

/// Whether the process or the system has run out of something: trying again at once would only burn time.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    shortages.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_do_not_delay_small_segments_and_do_not_block() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let addr = listener.addr();
            let (sender, mut receiver) = mpsc::channel(1);
            tokio::spawn(listener.accept(sender, Clock::start()));
            let client = tokio::task::spawn_blocking(move || std::net::TcpStream::connect(addr).unwrap());
            let accepted = receiver.recv().await.unwrap();
            let client = client.await.unwrap();
            assert_eq!(accepted.peer, client.local_addr().unwrap());
            assert_eq!(*accepted.listener, *addr.to_string());
            assert!(sockopt::tcp_nodelay(&accepted.fd).unwrap());
            let error = net::recv(&accepted.fd, &mut [0_u8; 1], net::RecvFlags::empty()).unwrap_err();
            assert_eq!(error, Errno::AGAIN);
        });
    }
}
