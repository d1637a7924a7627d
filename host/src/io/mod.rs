//! Sockets, threads and time: everything that the core does not know about.
//!
//! One [`worker`] is one thread with a `current_thread` runtime. Its MQTT sockets are in an epoll of its own
//! ([`poller`]), which the runtime sees as one file descriptor; the [`driver`] moves bytes between them and the core.
//! Listening sockets are ordinary tasks of the same runtime ([`listener`]).

mod driver;
pub(crate) mod listener;
mod poller;
mod sockets;
pub(crate) mod worker;
