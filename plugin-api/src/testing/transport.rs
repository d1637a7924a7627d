//! How the clients of a test come, and what handlers are shown of it.

use std::ffi::c_void;
use std::net::SocketAddr;

use crate::abi::{RawAlternativeName, RawCertificate, RawHeader, RawHttp, RawPeer, RawTls, RawTransport, RawUnixPeer};
use crate::{NameKind, TransportKind};

/// How a client comes, for [`Connecting::transport`](super::Connecting::transport): what
/// [`Connect::transport`](crate::Connect::transport) and [`ConnectionInfo::transport`](crate::ConnectionInfo::transport) show.
///
/// ```no_run
/// # use plugin_api::NameKind;
/// # use plugin_api::testing::{TestCertificate, TestHost, TestTransport};
/// # fn test(host: &TestHost) -> Result<(), plugin_api::testing::Refused> {
/// let certificate = TestCertificate::new("CN=sensor-7,O=Example").alternative_name(NameKind::Dns, "sensor-7.example");
/// let sensor = host.client("sensor-7").transport(TestTransport::tls().certificate(certificate)).connect()?;
///
/// let browser = TestTransport::websocket("/mqtt?tenant=a").header("Authorization", "Bearer abc");
/// let browser = host.client("browser").transport(browser).connect()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct TestTransport {
    kind: TransportKind,
    tls: Option<Tls>,
    http: Option<Http>,
    unix: Option<(u64, u64, u64)>,
    proxy: Option<SocketAddr>,
}

#[derive(Debug, Clone, Default)]
struct Tls {
    server_name: String,
    alpn: Vec<u8>,
    certificate: Option<TestCertificate>,
}

#[derive(Debug, Clone)]
struct Http {
    path: String,
    headers: Vec<(String, Vec<u8>)>,
}

impl TestTransport {
    /// Plain TCP, as if nothing had been said.
    #[must_use]
    pub fn tcp() -> Self {
        Self { kind: TransportKind::Tcp, ..Self::default() }
    }

    /// TLS 1.3. The client has shown no certificate, unless [`certificate`](Self::certificate) says which.
    #[must_use]
    pub fn tls() -> Self {
        Self { kind: TransportKind::Tls, tls: Some(Tls::default()), ..Self::default() }
    }

    /// A WebSocket, by a request for this path, with its query if there is one.
    #[must_use]
    pub fn websocket(path: impl Into<String>) -> Self {
        let http = Http { path: path.into(), headers: Vec::new() };
        Self { kind: TransportKind::Ws, http: Some(http), ..Self::default() }
    }

    /// The same within TLS.
    #[must_use]
    pub fn secure_websocket(path: impl Into<String>) -> Self {
        Self { kind: TransportKind::Wss, tls: Some(Tls::default()), ..Self::websocket(path) }
    }

    /// A Unix domain socket, with the user, group and process behind it.
    #[must_use]
    pub fn unix(uid: u64, gid: u64, pid: u64) -> Self {
        Self { kind: TransportKind::Unix, unix: Some((uid, gid, pid)), ..Self::default() }
    }

    /// The client's certificate, which has been verified. For what has TLS.
    #[must_use]
    pub fn certificate(self, certificate: TestCertificate) -> Self {
        self.with_tls(|tls| tls.certificate = Some(certificate))
    }

    /// The server's name that the client has asked for (SNI). For what has TLS.
    #[must_use]
    pub fn server_name(self, name: impl Into<String>) -> Self {
        self.with_tls(|tls| tls.server_name = name.into())
    }

    /// The protocol that was agreed on (ALPN). For what has TLS.
    #[must_use]
    pub fn alpn(self, protocol: impl Into<Vec<u8>>) -> Self {
        self.with_tls(|tls| tls.alpn = protocol.into())
    }

    /// A header of the request that a WebSocket began with, behind those that were named before.
    ///
    /// # Panics
    /// It is no WebSocket.
    #[must_use]
    #[track_caller]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        let http = self.http.as_mut().expect("only a WebSocket begins with a request that has headers");
        http.headers.push((name.into(), value.into()));
        self
    }

    /// The address of a proxy, which has told the one that [`Connecting::peer`](super::Connecting::peer) says.
    #[must_use]
    pub fn proxy(self, proxy: SocketAddr) -> Self {
        Self { proxy: Some(proxy), ..self }
    }

    /// A proxy may have ended TLS, and say so, so that any kind may have it.
    fn with_tls(mut self, change: impl FnOnce(&mut Tls)) -> Self {
        change(self.tls.get_or_insert_default());
        self
    }

    /// Has it shown, as the extension of a view. The request of a WebSocket is there until CONNECT has been answered.
    pub(super) fn show<T>(&self, with_http: bool, see: impl FnOnce(*const c_void) -> T) -> T {
        let certificate = self.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
        let names: Vec<RawAlternativeName<'_>> = certificate.map(TestCertificate::raw_names).unwrap_or_default();
        let certificate = certificate.map(|certificate| certificate.raw(&names));
        let tls = self.tls.as_ref().map(|tls| RawTls {
            size: size_of::<RawTls<'_>>(),
            version: "TLSv1.3".into(),
            cipher_suite: "TLS13_AES_128_GCM_SHA256".into(),
            server_name: tls.server_name.as_str().into(),
            alpn: tls.alpn.as_slice().into(),
            certificate: certificate.as_ref(),
        });
        let http = self.http.as_ref().filter(|_| with_http);
        let headers = http.map(|http| http.headers.as_slice()).unwrap_or_default().iter();
        let headers: Vec<RawHeader<'_>> = headers
            .map(|(name, value)| RawHeader {
                name: name.as_str().into(),
                value: value.as_slice().into(),
                extension: std::ptr::null(),
            })
            .collect();
        let http = http.map(|http| RawHttp {
            size: size_of::<RawHttp<'_>>(),
            path: http.path.as_str().into(),
            headers: headers.as_slice().into(),
        });
        let unix = self.unix.map(|(uid, gid, pid)| RawUnixPeer { size: size_of::<RawUnixPeer>(), uid, gid, pid });
        let proxy = self.proxy.map(RawPeer::from);
        let raw = RawTransport {
            size: size_of::<RawTransport<'_>>(),
            kind: self.kind as u64,
            tls: tls.as_ref(),
            http: http.as_ref(),
            unix_peer: unix.as_ref(),
            proxy: proxy.as_ref(),
        };
        see(std::ptr::from_ref(&raw).cast())
    }
}

/// A client's certificate that has been verified, for [`TestTransport::certificate`].
#[derive(Debug, Clone)]
pub struct TestCertificate {
    subject: String,
    alternative_names: Vec<(NameKind, String)>,
    sha256: [u8; 32],
    serial: Vec<u8>,
    not_after_secs: u64,
}

impl TestCertificate {
    /// One with this subject, as text by RFC 4514: `CN=sensor-7,O=Example`. What stands behind the first `CN=` is its common
    /// name. It is valid as long as there are dates for it, and its other numbers are 0.
    #[must_use]
    pub fn new(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            alternative_names: Vec::new(),
            sha256: [0; 32],
            serial: Vec::new(),
            not_after_secs: u64::MAX,
        }
    }

    /// A subject alternative name, behind those that were named before.
    #[must_use]
    pub fn alternative_name(mut self, kind: NameKind, name: impl Into<String>) -> Self {
        self.alternative_names.push((kind, name.into()));
        self
    }

    /// SHA-256 of its encoding.
    #[must_use]
    pub fn sha256(self, sha256: [u8; 32]) -> Self {
        Self { sha256, ..self }
    }

    /// Its serial number, the most significant byte first.
    #[must_use]
    pub fn serial(self, serial: impl Into<Vec<u8>>) -> Self {
        Self { serial: serial.into(), ..self }
    }

    /// When it expires, in seconds since 1970, UTC.
    #[must_use]
    pub fn not_after_secs(self, secs: u64) -> Self {
        Self { not_after_secs: secs, ..self }
    }

    fn raw_names(&self) -> Vec<RawAlternativeName<'_>> {
        let names = self.alternative_names.iter();
        names
            .map(|(kind, name)| RawAlternativeName {
                name: name.as_str().into(),
                kind: *kind as u64,
                extension: std::ptr::null(),
            })
            .collect()
    }

    fn raw<'a>(&'a self, names: &'a [RawAlternativeName<'a>]) -> RawCertificate<'a> {
        let common_name = self.subject.split(',').find_map(|part| part.trim().strip_prefix("CN="));
        RawCertificate {
            size: size_of::<RawCertificate<'_>>(),
            subject: self.subject.as_str().into(),
            common_name: common_name.unwrap_or_default().into(),
            alternative_names: names.into(),
            sha256: self.sha256,
            serial: self.serial.as_slice().into(),
            not_after: self.not_after_secs,
        }
    }
}
