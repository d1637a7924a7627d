//! Sockets, threads and time: everything that the core does not know about.
//!
//! One [`worker`] is one plain thread, which sleeps nowhere but in its own epoll ([`poller`]): its sockets are there, the
//! [`listener`]s of the server, and a doorbell that other threads ring. The [`driver`] moves bytes between sockets and core.
//! Where they are not the same on both sides, a [`transform`] stands between, and the connection comes through the
//! [`anteroom`], which has threads of its own.

pub(crate) mod anteroom;
mod bind;
mod driver;
mod entrance;
pub(crate) mod listener;
pub(crate) mod passed;
pub(crate) mod pause;
mod poller;
#[cfg(feature = "quic")]
pub(crate) mod quic;
mod sockets;
mod tls;
mod transform;
pub(crate) mod worker;
