//! How a connection comes to the server, and what is known of the peer besides its address.

use std::fmt;
use std::net::SocketAddr;

use crate::abi::{RawCertificate, RawHttp, RawTls, RawTransport};

/// How the bytes of a connection come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
#[non_exhaustive]
pub enum TransportKind {
    /// A way that this version of `plugin-api` does not know.
    Other = 0,
    /// Plain TCP.
    #[default]
    Tcp = 1,
    /// TLS over TCP.
    Tls = 2,
    /// WebSocket over TCP.
    Ws = 3,
    /// WebSocket over TLS.
    Wss = 4,
    /// A Unix domain socket.
    Unix = 5,
    /// QUIC.
    Quic = 6,
}

impl TransportKind {
    const fn from_number(number: u64) -> Self {
        match number {
            1 => Self::Tcp,
            2 => Self::Tls,
            3 => Self::Ws,
            4 => Self::Wss,
            5 => Self::Unix,
            6 => Self::Quic,
            _ => Self::Other,
        }
    }
}

/// What a subject alternative name of a certificate names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum NameKind {
    /// Something that this version of `plugin-api` does not know.
    Other = 0,
    /// A host.
    Dns = 1,
    /// A mailbox.
    Email = 2,
    /// A URI.
    Uri = 3,
    /// An IP address.
    Ip = 4,
}

impl NameKind {
    const fn from_number(number: u64) -> Self {
        match number {
            1 => Self::Dns,
            2 => Self::Email,
            3 => Self::Uri,
            4 => Self::Ip,
            _ => Self::Other,
        }
    }
}

/// How a connection comes to the server: see [`Connect::transport`](crate::Connect::transport).
#[derive(Clone, Copy)]
pub struct Transport<'a> {
    raw: Option<&'a RawTransport<'a>>,
}

impl<'a> Transport<'a> {
    pub(crate) const fn new(raw: Option<&'a RawTransport<'a>>) -> Self {
        Self { raw }
    }

    /// How its bytes come.
    #[must_use]
    pub fn kind(&self) -> TransportKind {
        self.raw.map_or(TransportKind::Tcp, |raw| TransportKind::from_number(raw.kind))
    }

    /// What TLS has agreed on, if it is TLS: to this server, or to a proxy in front of it that says so.
    #[must_use]
    pub fn tls(&self) -> Option<Tls<'a>> {
        self.raw?.tls.map(|raw| Tls { raw })
    }

    /// The client's certificate, if it has shown one: short for [`Tls::certificate`].
    #[must_use]
    pub fn certificate(&self) -> Option<Certificate<'a>> {
        self.tls()?.certificate()
    }

    /// The request that a WebSocket began with. It is there until CONNECT has been answered: whoever needs it later keeps
    /// what it needs in the connection's state.
    #[must_use]
    pub fn http(&self) -> Option<HttpRequest<'a>> {
        self.raw?.http.map(|raw| HttpRequest { raw })
    }

    /// Who is behind a Unix domain socket, as the kernel says.
    #[must_use]
    pub fn unix(&self) -> Option<UnixPeer> {
        self.raw?.unix_peer.map(|raw| UnixPeer { uid: raw.uid, gid: raw.gid, pid: raw.pid })
    }

    /// Where the connection really comes from, if a proxy has told the address of the peer.
    #[must_use]
    pub fn proxy(&self) -> Option<SocketAddr> {
        self.raw?.proxy.map(|peer| (*peer).into())
    }
}

/// What stands before the query, which may be a secret: tokens are where browsers can put them.
pub(crate) fn path_only(path: &str) -> &str {
    path.split('?').next().unwrap_or_default()
}

/// Leaves headers and the query out, as they may be secrets.
impl fmt::Debug for Transport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("kind", &self.kind())
            .field("tls", &self.tls())
            .field("path", &self.http().map(|http| path_only(http.path())))
            .field("unix", &self.unix())
            .field("proxy", &self.proxy())
            .finish()
    }
}

/// What TLS has agreed on.
#[derive(Clone, Copy)]
pub struct Tls<'a> {
    raw: &'a RawTls<'a>,
}

impl<'a> Tls<'a> {
    /// Such as `TLSv1.3`; empty if that is not known, as when a proxy has ended TLS.
    #[must_use]
    pub fn version(&self) -> &'a str {
        self.raw.version.as_str()
    }

    /// The name of the cipher suite in IANA's registry, such as `TLS13_AES_128_GCM_SHA256`; empty if it is not known.
    #[must_use]
    pub fn cipher_suite(&self) -> &'a str {
        self.raw.cipher_suite.as_str()
    }

    /// The server's name that the client has asked for (SNI).
    #[must_use]
    pub fn server_name(&self) -> Option<&'a str> {
        Some(self.raw.server_name.as_str()).filter(|name| !name.is_empty())
    }

    /// The protocol that was agreed on (ALPN).
    #[must_use]
    pub fn alpn(&self) -> Option<&'a [u8]> {
        Some(self.raw.alpn.as_slice()).filter(|name| !name.is_empty())
    }

    /// The client's certificate, if it has shown one. The server has verified it: who shows one that is not trusted, has
    /// expired or was revoked does not get as far as here.
    #[must_use]
    pub fn certificate(&self) -> Option<Certificate<'a>> {
        self.raw.certificate.map(|raw| Certificate { raw })
    }
}

impl fmt::Debug for Tls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("version", &self.version())
            .field("cipher_suite", &self.cipher_suite())
            .field("server_name", &self.server_name())
            .field("certificate", &self.certificate())
            .finish_non_exhaustive()
    }
}

/// A client's certificate that has been verified.
#[derive(Clone, Copy)]
pub struct Certificate<'a> {
    raw: &'a RawCertificate<'a>,
}

impl<'a> Certificate<'a> {
    /// Its subject, as text by RFC 4514: `CN=sensor-7,O=Example`.
    #[must_use]
    pub fn subject(&self) -> &'a str {
        self.raw.subject.as_str()
    }

    /// The first common name of the subject.
    #[must_use]
    pub fn common_name(&self) -> Option<&'a str> {
        Some(self.raw.common_name.as_str()).filter(|name| !name.is_empty())
    }

    /// Subject alternative names, in their order.
    pub fn alternative_names(&self) -> impl Iterator<Item = (NameKind, &'a str)> + use<'a> {
        self.raw.alternative_names.as_slice().iter().map(|name| (NameKind::from_number(name.kind), name.name.as_str()))
    }

    /// SHA-256 of its encoding; zeros only if a proxy has verified it, and has told its common name and nothing more.
    #[must_use]
    pub fn sha256(&self) -> &'a [u8; 32] {
        &self.raw.sha256
    }

    /// Its serial number, the most significant byte first.
    #[must_use]
    pub fn serial(&self) -> &'a [u8] {
        self.raw.serial.as_slice()
    }

    /// When it expires, in seconds since 1970, UTC.
    #[must_use]
    pub const fn not_after_secs(&self) -> u64 {
        self.raw.not_after
    }
}

impl fmt::Debug for Certificate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("subject", &self.subject()).finish_non_exhaustive()
    }
}

/// The request that a WebSocket began with.
#[derive(Clone, Copy)]
pub struct HttpRequest<'a> {
    raw: &'a RawHttp<'a>,
}

impl<'a> HttpRequest<'a> {
    /// What stood between method and version: path and query.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.raw.path.as_str()
    }

    /// Names and values of the headers in their order, names as they were sent. Values need not be UTF-8.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.raw.headers.as_slice().iter().map(|header| (header.name.as_str(), header.value.as_slice()))
    }

    /// The value of the first header with this name, in capital letters or not.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(sent, _)| sent.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Leaves values out, as they may be secrets.
impl fmt::Debug for HttpRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers().map(|(name, _)| name).collect();
        f.debug_struct("HttpRequest").field("path", &path_only(self.path())).field("headers", &names).finish()
    }
}

/// Who is behind a Unix domain socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixPeer {
    /// User.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Process; 0 for one that the host does not see, as it is in another namespace (a container).
    pub pid: u64,
}
