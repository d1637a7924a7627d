//! MQTT over WebSocket (RFC 6455): from the HTTP request of a client to its stream of Control Packets, and back.
//!
//! There is no socket and no clock here: bytes go in, bytes come out. A connection begins with an [`Upgrade`], which takes
//! what comes until the request is whole, and says what to answer. Then it is a [`WebSocket`]: [`WebSocket::open`] takes
//! what comes from the wire and gives the bytes of the packets, [`WebSocket::seal`] takes bytes of packets and gives what
//! goes to the wire.
//!
//! Packets and frames have nothing to do with each other, in either direction [MQTT-6.0.0-2]: a frame may have several
//! packets, and a packet may be in several frames.

mod deflate;
mod fault;
mod header;
mod request;
mod upgrade;
mod websocket;

pub use fault::{End, Fault};
pub use request::{HEADERS_MAX, Request};
pub use upgrade::{Accepted, Refused, Step, Upgrade};
pub use websocket::WebSocket;

#[cfg(test)]
mod tests;

/// What a WebSocket listener asks of a request, and offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The path that clients have to ask for, without a query. Default: `/mqtt`.
    pub path: String,
    /// The values of `Origin` that are let in, such as `https://example.com`; where there are none, all are. A request
    /// without that header is not from a page in a browser, and is let in. Default: none.
    pub origins: Vec<String>,
    /// Largest request with all its headers, in bytes. Default: 16 KiB.
    pub request_bytes_max: usize,
    /// Whether frames may be compressed (permessage-deflate, RFC 7692), where the client offers it. Default: no.
    pub deflate: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { path: "/mqtt".to_owned(), origins: Vec::new(), request_bytes_max: 16 << 10, deflate: false }
    }
}
