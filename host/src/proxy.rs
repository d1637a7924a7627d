//! The PROXY protocol: what a proxy (HAProxy, nginx, a cloud's load balancer) says, before the bytes of the connection,
//! about the client whose connection it passes on.
//!
//! [`parse`] reads the header of either version, [`Networks`] says whose header is to be believed: whoever may send one can
//! claim to come from anywhere. No socket and no clock: who reads the bytes, and for how long, is the listener's business.
//!
//! The words are those of the specification (HAProxy's `doc/proxy-protocol.txt`), whose sections are named here.

mod networks;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::fmt;
use std::net::SocketAddr;

pub use networks::{Network, Networks};

/// The longest header that is read, in bytes. The specification allows 65,551, and a header with all that proxies say takes
/// some hundred; a client's certificate in it, which only few proxies send, some thousand.
pub const HEADER_BYTES_MAX: usize = 8 << 10;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Bytes that the header takes; what follows is the client's.
    pub bytes: usize,
    /// The addresses of the client's connection to the proxy. `None` if the proxy speaks for itself, as it does to see
    /// whether we are well, or does not know: then the connection is what it looks like.
    pub route: Option<Route>,
    /// The Application-Layer Protocol that the client and the proxy have agreed on, such as `mqtt`.
    pub alpn: Option<&'a [u8]>,
    /// The host name that the client has asked for, by Server Name Indication in most cases.
    pub authority: Option<&'a str>,
    /// The TLS connection of the client, if it has one, which ends at the proxy.
    pub tls: Option<Tls<'a>>,
}

/// The two ends of the connection between client and proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The client's.
    pub source: SocketAddr,
    /// The one that the client has connected to.
    pub destination: SocketAddr,
}

/// What a proxy says about the TLS connection of a client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tls<'a> {
    /// Such as `TLSv1.3`.
    pub version: Option<&'a str>,
    /// Such as `TLS_AES_256_GCM_SHA384`.
    pub cipher: Option<&'a str>,
    /// Whether the client has shown a certificate that the proxy has verified.
    pub verified: bool,
    /// The common name of the certificate. There is none if the certificate was not verified: it would be anybody's word.
    pub common_name: Option<&'a str>,
    /// The certificate as DER, from proxies that send it; none if it was not verified.
    pub certificate: Option<&'a [u8]>,
}

/// Reads the header at the beginning of a connection. `None`: the bytes are the beginning of one, and there are more to come.
///
/// What was read as a header, or refused, does not change with the bytes that follow.
///
/// # Errors
/// The bytes are no header, or one that says nothing certain: the connection has to be closed (§2).
pub fn parse(bytes: &[u8]) -> Result<Option<Header<'_>>, ProxyError> {
    if begin_alike(bytes, &v2::SIGNATURE) {
        return v2::parse(bytes);
    }
    if begin_alike(bytes, v1::BEGINNING) {
        return v1::parse(bytes);
    }
    let first = bytes.len().min(8);
    Err(ProxyError::NoHeader { got: bytes[..first].to_vec() })
}

/// Whether one is the other's beginning.
fn begin_alike(bytes: &[u8], expected: &[u8]) -> bool {
    let length = bytes.len().min(expected.len());
    bytes[..length] == expected[..length]
}

/// Why a connection does not begin as it has to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyError {
    /// The first bytes are something else.
    NoHeader {
        /// The first of them.
        got: Vec<u8>,
    },
    /// A version 1 header has no end within the 107 bytes that it may have.
    EndlessLine,
    /// A version 1 header is not as it has to be.
    Line {
        /// The line, without its end.
        got: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The version is neither 1 nor 2.
    Version {
        /// What was given, from 0 to 15.
        got: u8,
    },
    /// A version 2 header has a command other than LOCAL (0) and PROXY (1).
    Command {
        /// What was given, from 0 to 15.
        got: u8,
    },
    /// A version 2 header has an address family or a transport protocol that does not exist.
    Family {
        /// The byte that says both.
        got: u8,
    },
    /// A version 2 header declares more than is read.
    TooLong {
        /// Bytes declared, the fixed part included.
        declared: usize,
    },
    /// A version 2 header is shorter than what it says is in it.
    Short {
        /// What was to be read.
        what: &'static str,
    },
    /// One of the TLVs of a version 2 header is not as it has to be.
    Tlv {
        /// Its type.
        kind: u8,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The checksum of a version 2 header is another one.
    Checksum {
        /// What was given.
        got: u32,
        /// What the bytes have.
        expected: u32,
    },
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeader { got } => write!(
                f,
                "the connection begins with {}, expected a PROXY protocol header: let the proxy send one (`send-proxy-v2` of \
                 HAProxy, `proxy_protocol on` of nginx), and let clients without a proxy use a listener without `proxy_from`",
                got.escape_ascii()
            ),
            Self::EndlessLine => {
                write!(f, "a PROXY protocol header of version 1 has no end in its first {} bytes", v1::LINE_BYTES_MAX)
            }
            Self::Line { got, why } => write!(f, "the PROXY protocol header `{}` is wrong: {why}", got.escape_debug()),
            Self::Version { got } => write!(f, "the PROXY protocol has versions 1 and 2, got {got}"),
            Self::Command { got } => {
                write!(f, "a PROXY protocol header has the command {got}, expected LOCAL (0) or PROXY (1)")
            }
            Self::Family { got } => write!(
                f,
                "a PROXY protocol header has the address family and transport 0x{got:02X}, expected a family from 0 to 3 and a \
                 transport from 0 to 2"
            ),
            Self::TooLong { declared } => {
                write!(f, "a PROXY protocol header declares {declared} bytes, expected {HEADER_BYTES_MAX} at most")
            }
            Self::Short { what } => write!(f, "a PROXY protocol header ends before the end of its {what}"),
            Self::Tlv { kind, why } => write!(f, "a PROXY protocol header has a TLV of type 0x{kind:02X} that {why}"),
            Self::Checksum { got, expected } => {
                write!(f, "a PROXY protocol header has the checksum 0x{got:08X}, but its bytes have 0x{expected:08X}")
            }
        }
    }
}

impl std::error::Error for ProxyError {}
