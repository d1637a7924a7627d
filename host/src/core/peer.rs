//! What is known of a peer besides its address, once transport and handshakes have told it. Data only: who fills it in is
//! the transport, and who looks at it are the handlers.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

pub use plugin_api::{NameKind, TransportKind};

/// What is known of one peer. The default is plain TCP, of which there is nothing to tell: connections of that kind go
/// without.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerDetails {
    /// How its bytes come.
    pub transport: TransportKind,
    /// What TLS has agreed on, here or at the proxy that says so.
    pub tls: Option<Box<TlsDetails>>,
    /// The request that a WebSocket began with.
    pub http: Option<Box<HttpDetails>>,
    /// Who is behind a Unix domain socket, as the kernel says.
    pub unix: Option<UnixCredentials>,
    /// Where the connection really comes from, if a proxy has told another address of the peer.
    pub proxy: Option<SocketAddr>,
}

/// What TLS has agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsDetails {
    /// Such as `TLSv1.3`; empty if that is not known, as when a proxy has ended TLS.
    pub version: Box<str>,
    /// The name of the cipher suite in IANA's registry, such as `TLS13_AES_128_GCM_SHA256`; empty if it is not known.
    pub cipher_suite: Box<str>,
    /// The server's name that the client has asked for (SNI).
    pub server_name: Option<Box<str>>,
    /// The protocol that was agreed on (ALPN).
    pub alpn: Option<Box<[u8]>>,
    /// The client's certificate. It has been verified: one that has not never gets here.
    pub certificate: Option<Box<ClientCertificate>>,
}

/// A client's certificate that has been verified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientCertificate {
    /// Its subject, as text by RFC 4514: `CN=sensor-7,O=Example`.
    pub subject: Box<str>,
    /// The first common name of the subject.
    pub common_name: Option<Box<str>>,
    /// Subject alternative names, in their order.
    pub alternative_names: Box<[AlternativeName]>,
    /// SHA-256 of its encoding.
    pub sha256: [u8; 32],
    /// Its serial number, as bytes, the most significant one first.
    pub serial: Box<[u8]>,
    /// When it expires, in seconds since 1970, UTC.
    pub not_after_secs: u64,
}

/// A subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlternativeName {
    /// What it names.
    pub kind: NameKind,
    /// The name; an IP address as text.
    pub name: Box<str>,
}

/// The request that a WebSocket began with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpDetails {
    /// What stood between method and version: path and query.
    pub path: Box<str>,
    /// Headers in their order.
    pub headers: Box<[HttpHeader]>,
}

/// A header of an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpHeader {
    /// Its name as it was sent: that of the same header may be written in capital letters elsewhere.
    pub name: Box<str>,
    /// Its value, which need not be UTF-8.
    pub value: Box<[u8]>,
}

/// Who is behind a Unix domain socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnixCredentials {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process, or 0 for one in another namespace, which cannot be seen from here.
    pub pid: u32,
}

impl PeerDetails {
    /// The client's certificate, if it has shown one.
    #[must_use]
    pub fn certificate(&self) -> Option<&ClientCertificate> {
        self.tls.as_ref()?.certificate.as_deref()
    }

    /// Memory that the peer decides on, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let tls = self.tls.as_ref().map_or(0, |tls| {
            let texts = tls.version.len() + tls.cipher_suite.len();
            let alpn = tls.alpn.as_ref().map_or(0, |alpn| alpn.len());
            let certificate = tls.certificate.as_ref().map_or(0, |certificate| certificate.bytes());
            size_of::<TlsDetails>() + texts + tls.server_name.as_ref().map_or(0, |name| name.len()) + alpn + certificate
        });
        let http = self.http.as_ref().map_or(0, |http| {
            let headers = http.headers.iter().map(|header| header.name.len() + header.value.len()).sum::<usize>();
            size_of::<HttpDetails>() + http.path.len() + size_of_val(&*http.headers) + headers
        });
        size_of::<Self>() + tls + http
    }
}

impl HttpDetails {
    /// Whether a browser has sent it for a page that is not of its own machine, as the header `Origin` says, which pages cannot
    /// choose: any page may have its browser connect to that machine.
    #[must_use]
    pub fn is_of_foreign_page(&self) -> bool {
        let mut origins = self.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("Origin"));
        origins.any(|header| !std::str::from_utf8(&header.value).is_ok_and(is_of_this_machine))
    }
}

/// Whether an origin, such as `http://localhost:8000`, is one of this machine.
fn is_of_this_machine(origin: &str) -> bool {
    let Some((_, host)) = origin.split_once("://") else { return false };
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().is_some_and(|ip| ip.parse().is_ok_and(|ip: Ipv6Addr| ip.is_loopback()));
    }
    let name = host.split(':').next().unwrap_or_default();
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback())
}

impl ClientCertificate {
    fn bytes(&self) -> usize {
        let names = self.alternative_names.iter().map(|name| name.name.len()).sum::<usize>();
        let common_name = self.common_name.as_ref().map_or(0, |name| name.len());
        let texts = self.subject.len() + common_name + names + self.serial.len();
        size_of::<Self>() + size_of_val(&*self.alternative_names) + texts
    }
}
