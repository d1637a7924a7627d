//! Sockets, threads and time: everything that the core does not know about.
//!
//! One [`worker`] is one plain thread, which sleeps nowhere but in its own epoll ([`poller`]): its sockets are there, the
//! [`listener`]s of the server, and a doorbell that other threads ring. The [`driver`] moves bytes between sockets and core.

mod bind;
mod driver;
pub(crate) mod listener;
mod poller;
mod sockets;
pub(crate) mod worker;
