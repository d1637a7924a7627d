//! Listening sockets, as their settings want them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::listener::TcpConfig;

/// Binds and listens; port 0 takes a free one.
///
/// What is set here Linux hands down to the sockets that are accepted, so that it costs no call for each of them.
pub(super) fn tcp(addr: SocketAddr, config: &TcpConfig) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    // A restart does not have to wait until the connections of its predecessor are forgotten.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if config.reuse_port {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !config.dual_stack)?;
    }
    prepare(&socket, config)?;
    net::bind(&socket, &addr)?;
    net::listen(&socket, config.backlog.try_into().unwrap_or(i32::MAX))?;
    Ok(socket)
}

/// Binds a socket for datagrams; port 0 takes a free one.
#[cfg(feature = "quic")]
pub(super) fn udp(addr: SocketAddr, config: &TcpConfig) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::DGRAM, flags, None)?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !config.dual_stack)?;
    }
    net::bind(&socket, &addr)?;
    Ok(socket)
}

/// What holds for the connections of a listening socket, whoever has bound it.
pub(super) fn prepare(socket: &OwnedFd, config: &TcpConfig) -> io::Result<()> {
    // We decide what goes into a segment.
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, config.keep_alive.is_some())?;
    if let Some(keep_alive) = &config.keep_alive {
        sockopt::set_tcp_keepidle(socket, keep_alive.idle)?;
        sockopt::set_tcp_keepintvl(socket, keep_alive.interval)?;
        sockopt::set_tcp_keepcnt(socket, keep_alive.probes)?;
    }
    Ok(())
}

/// The address of a peer: where a listener takes both, those of IPv4 come in IPv6 form, which is nobody else's business.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped().map_or(peer, |ip| SocketAddr::from((ip, v6.port()))),
        SocketAddr::V4(_) => peer,
    }
}
