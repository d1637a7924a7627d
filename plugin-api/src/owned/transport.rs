//! How a connection came, as a copy.

use std::fmt;
use std::net::SocketAddr;

use crate::{NameKind, TransportKind, UnixPeer};

/// How a connection came to the server; see [`Transport`](crate::Transport).
#[derive(Clone)]
pub struct Transport {
    kind: TransportKind,
    tls: Option<Box<Tls>>,
    http: Option<Box<HttpRequest>>,
    unix: Option<UnixPeer>,
    proxy: Option<SocketAddr>,
}

impl From<&crate::Transport<'_>> for Transport {
    fn from(transport: &crate::Transport<'_>) -> Self {
        Self {
            kind: transport.kind(),
            tls: transport.tls().map(|tls| Box::new((&tls).into())),
            http: transport.http().map(|http| Box::new((&http).into())),
            unix: transport.unix(),
            proxy: transport.proxy(),
        }
    }
}

impl Transport {
    /// How its bytes come.
    #[must_use]
    pub const fn kind(&self) -> TransportKind {
        self.kind
    }

    /// What TLS has agreed on, if it is TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_deref()
    }

    /// The client's certificate, if it has shown one: short for [`Tls::certificate`].
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        self.tls()?.certificate()
    }

    /// The request that a WebSocket began with.
    #[must_use]
    pub fn http(&self) -> Option<&HttpRequest> {
        self.http.as_deref()
    }

    /// Who is behind a Unix domain socket, as the kernel says.
    #[must_use]
    pub const fn unix(&self) -> Option<UnixPeer> {
        self.unix
    }

    /// Where the connection really comes from, if a proxy has told the address of the peer.
    #[must_use]
    pub const fn proxy(&self) -> Option<SocketAddr> {
        self.proxy
    }
}

/// Leaves headers out, as they may be secrets.
impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("kind", &self.kind)
            .field("tls", &self.tls)
            .field("path", &self.http().map(|http| crate::view::path_only(http.path())))
            .field("unix", &self.unix)
            .field("proxy", &self.proxy)
            .finish()
    }
}

/// What TLS has agreed on; see [`Tls`](crate::Tls).
#[derive(Debug, Clone)]
pub struct Tls {
    version: String,
    cipher_suite: String,
    server_name: Option<String>,
    alpn: Option<Vec<u8>>,
    certificate: Option<Certificate>,
}

impl From<&crate::Tls<'_>> for Tls {
    fn from(tls: &crate::Tls<'_>) -> Self {
        Self {
            version: tls.version().to_owned(),
            cipher_suite: tls.cipher_suite().to_owned(),
            server_name: tls.server_name().map(str::to_owned),
            alpn: tls.alpn().map(<[u8]>::to_vec),
            certificate: tls.certificate().map(|certificate| (&certificate).into()),
        }
    }
}

impl Tls {
    /// See [`Tls::version`](crate::Tls::version).
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// See [`Tls::cipher_suite`](crate::Tls::cipher_suite).
    #[must_use]
    pub fn cipher_suite(&self) -> &str {
        &self.cipher_suite
    }

    /// The server's name that the client has asked for (SNI).
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The protocol that was agreed on (ALPN).
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// The client's certificate, if it has shown one. It has been verified.
    #[must_use]
    pub const fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }
}

/// A client's certificate that has been verified; see [`Certificate`](crate::Certificate).
#[derive(Clone)]
pub struct Certificate {
    subject: String,
    common_name: Option<String>,
    alternative_names: Vec<(NameKind, String)>,
    sha256: [u8; 32],
    serial: Vec<u8>,
    not_after_secs: u64,
}

impl From<&crate::Certificate<'_>> for Certificate {
    fn from(certificate: &crate::Certificate<'_>) -> Self {
        Self {
            subject: certificate.subject().to_owned(),
            common_name: certificate.common_name().map(str::to_owned),
            alternative_names: certificate.alternative_names().map(|(kind, name)| (kind, name.to_owned())).collect(),
            sha256: *certificate.sha256(),
            serial: certificate.serial().to_vec(),
            not_after_secs: certificate.not_after_secs(),
        }
    }
}

impl Certificate {
    /// Its subject, as text by RFC 4514: `CN=sensor-7,O=Example`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The first common name of the subject.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// Subject alternative names, in their order.
    pub fn alternative_names(&self) -> impl Iterator<Item = (NameKind, &str)> {
        self.alternative_names.iter().map(|(kind, name)| (*kind, &**name))
    }

    /// SHA-256 of its encoding.
    #[must_use]
    pub const fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// Its serial number, the most significant byte first.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// When it expires, in seconds since 1970, UTC.
    #[must_use]
    pub const fn not_after_secs(&self) -> u64 {
        self.not_after_secs
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// The request that a WebSocket began with; see [`HttpRequest`](crate::HttpRequest).
#[derive(Clone)]
pub struct HttpRequest {
    path: String,
    headers: Vec<(String, Vec<u8>)>,
}

impl From<&crate::HttpRequest<'_>> for HttpRequest {
    fn from(http: &crate::HttpRequest<'_>) -> Self {
        let headers = http.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
        Self { path: http.path().to_owned(), headers }
    }
}

impl HttpRequest {
    /// What stood between method and version: path and query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Names and values of the headers in their order, names as they were sent.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of the first header with this name, in capital letters or not.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(sent, _)| sent.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Leaves values out, as they may be secrets.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers().map(|(name, _)| name).collect();
        f.debug_struct("HttpRequest")
            .field("path", &crate::view::path_only(&self.path))
            .field("headers", &names)
            .finish()
    }
}
