//! What a listener is asked to be: where it listens, what its clients speak there, and what holds for them alone.
//!
//! These are plain settings, as the command line or a configuration file gives them. What becomes of them is the business of
//! `io` (sockets, TLS, WebSocket) and of the core (what holds for the clients of one listener). Each field has a row in
//! `listener/keys.rs`, which is its key in the file and its documentation.

mod fits;
mod keys;
mod rules;
mod tcp;
mod url;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

pub use self::keys::LISTENER_KEYS;
pub use self::rules::ClientRules;
pub(crate) use self::rules::Common;
pub use self::tcp::{TcpConfig, TcpKeepAlive};
pub use self::url::{ListenerUrl, Place, Scheme, UrlError};
pub use crate::core::{Mount, MountError, UsernameFrom};
use crate::proxy::Networks;

/// The settings of one listener.
///
/// ```
/// let url = "tcp://127.0.0.1:0".parse().expect("an address and a port");
/// let builder = host::Server::builder().listener(host::ListenerConfig::new(url));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerConfig {
    /// Where it listens, and what its clients speak there.
    pub url: ListenerUrl,
    /// What the log and handlers call it. Default: the address of a `tcp://` listener, the URL of any other.
    pub name: Option<String>,
    /// What `tls://` and `wss://` need.
    pub tls: TlsConfig,
    /// What `ws://` and `wss://` ask of a request, and offer.
    pub websocket: WebSocketConfig,
    /// How its sockets behave.
    pub tcp: TcpConfig,
    /// Whose PROXY protocol headers are believed. Not empty: each connection has to begin with such a header, and whoever is
    /// not in these networks is closed at once. Default: none, and nobody says more than its own address.
    pub proxy_from: Networks,
    /// Permissions of the socket's file, for `unix:`. Who may write to it may connect. Default: 0660, the user and the group.
    pub unix_mode: u32,
    /// What holds for its clients alone.
    pub rules: ClientRules,
}

impl ListenerConfig {
    /// A listener of which nothing is said but its URL.
    #[must_use]
    pub fn new(url: ListenerUrl) -> Self {
        let (tls, websocket, tcp) = (TlsConfig::default(), WebSocketConfig::default(), TcpConfig::default());
        let (proxy_from, rules) = (Networks::default(), ClientRules::default());
        Self { url, name: None, tls, websocket, tcp, proxy_from, unix_mode: 0o660, rules }
    }

    /// Its name, as the log and handlers have it.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| match (&self.url.scheme, &self.url.place) {
            (Scheme::Tcp, Place::Address(addr)) => addr.to_string(),
            _ => self.url.to_string(),
        })
    }

    /// Whether both cannot be had at once: one takes connections to where the other is, unless they want to share the port.
    pub(crate) fn is_in_the_way_of(&self, other: &Self) -> bool {
        match (&self.url.place, &other.url.place) {
            (Place::Address(one), Place::Address(two)) => {
                // QUIC has ports of its own, and port 0 is another one for each.
                let is_quic = |config: &Self| config.url.scheme == Scheme::Quic;
                let is_one_port = one.port() == two.port() && one.port() != 0 && is_quic(self) == is_quic(other);
                let is_shared = self.tcp.reuse_port && other.tcp.reuse_port && one != two;
                is_one_port && !is_shared && (self.takes(two.ip()) || other.takes(one.ip()))
            }
            (Place::Path(one), Place::Path(two)) => one == two || real(one).is_some_and(|one| Some(one) == real(two)),
            _ => false,
        }
    }

    /// Whether connections to an address are its own.
    fn takes(&self, ip: IpAddr) -> bool {
        match self.url.addr().map(|addr| addr.ip()) {
            Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => ip.to_canonical().is_ipv4(),
            Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => ip.is_ipv6() || self.tcp.dual_stack,
            own => own.is_some_and(|own| own.to_canonical() == ip.to_canonical()),
        }
    }
}

/// The path without links, `.` and `..` in front of the name, if its directory is there.
fn real(path: &Path) -> Option<PathBuf> {
    Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?))
}

/// The settings of WebSocket. The path that clients ask for is that of the URL.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebSocketConfig {
    /// The values of the header `Origin` that are let in, such as `https://example.com`: those of pages in a browser, which
    /// could otherwise connect in the name of whoever looks at them. A request without that header is from another program,
    /// and is let in. Default: none, which lets in all; but pages of other machines than this one then need a plugin that
    /// accepts them, or [`ListenerProfile::allow_anonymous`](crate::core::ListenerProfile::allow_anonymous).
    pub origins: Vec<String>,
    /// Largest HTTP request with all its headers, in bytes: 64 B to 64 KiB. Default: 16 KiB.
    pub request_bytes_max: usize,
    /// Whether frames are compressed (permessage-deflate) where the client offers it. It takes some 44 KiB for each message
    /// that is being received, 300 KiB for each worker, and much more time than all else. Default: no.
    pub deflate: bool,
}

impl WebSocketConfig {
    /// Checks a value for [`WebSocketConfig::origins`].
    ///
    /// # Errors
    /// It is not what a browser writes.
    pub fn check_origin(origin: &str) -> Result<(), String> {
        let is_host = |host: &str| !host.is_empty() && !host.contains('/');
        if origin == "null" || origin.split_once("://").is_some_and(|(_, host)| is_host(host)) {
            return Ok(());
        }
        Err(format!("{origin:?} is no origin: expected one such as https://example.com, or null"))
    }
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self { origins: Vec::new(), request_bytes_max: 16 << 10, deflate: false }
    }
}

/// The settings of TLS. Files are PEM. They are read when the server starts, when it is told to, and when they change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsConfig {
    /// The server's certificate, followed by those between it and the authority.
    pub certificate: Option<PathBuf>,
    /// Its private key; without it, that in the file of the certificate.
    pub private_key: Option<PathBuf>,
    /// Further certificates, for other names or with other kinds of keys. Which one a client is shown depends on the name that it
    /// asks for (SNI), and on the signatures that it knows; who asks for none of the names is shown the first one.
    pub more_certificates: Vec<CertificateFiles>,
    /// Whether clients have to show a certificate. Default: they are not asked for one.
    pub client_certificates: ClientCertificates,
    /// Certificates of the authorities that clients' certificates come from.
    pub client_authorities: Vec<PathBuf>,
    /// Their lists of certificates that have been revoked. Where there is one, there has to be one of each authority, and none
    /// may be out of date: otherwise nobody is let in whose certificate it is about.
    pub revocation_lists: Vec<PathBuf>,
    /// The oldest version that is spoken. Default: 1.2.
    pub version_min: TlsVersion,
}

/// The files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateFiles {
    /// The certificate, followed by those between it and the authority.
    pub certificate: PathBuf,
    /// Its private key; without it, that in the same file.
    pub private_key: Option<PathBuf>,
}

impl CertificateFiles {
    /// A certificate with its private key in a file of its own, or in the same one.
    #[must_use]
    pub fn new(certificate: impl Into<PathBuf>, private_key: Option<PathBuf>) -> Self {
        Self { certificate: certificate.into(), private_key }
    }
}

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked for one.
    #[default]
    None,
    /// Who shows none is let in without; one that is shown has to be good.
    Optional,
    /// Who shows none is not let in.
    Required,
}

impl ClientCertificates {
    /// As they are called in settings.
    pub const NAMES: [(&str, Self); 3] =
        [("none", Self::None), ("optional", Self::Optional), ("required", Self::Required)];
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2, and newer ones.
    #[default]
    V1_2,
    /// TLS 1.3.
    V1_3,
}

impl TlsVersion {
    /// As they are called in settings.
    pub const NAMES: [(&str, Self); 2] = [("1.2", Self::V1_2), ("1.3", Self::V1_3)];
}

impl fmt::Display for ListenerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_cannot_be_had_at_once_are_known() {
        let table = [
            ("127.0.0.1:1883", "tls://127.0.0.1:1883", true),
            ("127.0.0.1:1883", "127.0.0.1:1884", false),
            ("127.0.0.1:1883", "127.0.0.2:1883", false),
            ("127.0.0.1:1883", "quic://127.0.0.1:1883", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("127.0.0.1:1883", "0.0.0.0:1883", true),
            ("127.0.0.1:1883", "[::ffff:127.0.0.1]:1883", true),
            ("0.0.0.0:1883", "[::ffff:127.0.0.1]:1883", true),
            ("[::1]:1883", "[::]:1883", true),
            ("[::1]:1883", "0.0.0.0:1883", false),
            ("0.0.0.0:1883", "[::]:1883", false),
            ("unix:/tmp/x", "unix:/tmp/./../tmp/x", true),
            ("unix:/tmp/x", "unix:/tmp/y", false),
            ("unix:/tmp/x", "127.0.0.1:1883", false),
        ];
        let config = |url: &str| ListenerConfig::new(url.parse().expect(url));
        for (one, two, expected) in table {
            let (one, two) = (config(one), config(two));
            assert_eq!((one.is_in_the_way_of(&two), two.is_in_the_way_of(&one)), (expected, expected), "{one} {two}");
        }
        let mut dual_stack = config("[::]:1883");
        dual_stack.tcp.dual_stack = true;
        assert!(
            config("127.0.0.1:1883").is_in_the_way_of(&dual_stack)
                && dual_stack.is_in_the_way_of(&config("0.0.0.0:1883"))
        );
        let shared = |url: &str| {
            let mut config = config(url);
            config.tcp.reuse_port = true;
            config
        };
        assert!(
            !shared("127.0.0.1:1883").is_in_the_way_of(&shared("0.0.0.0:1883")),
            "both are willing to share the port"
        );
        assert!(shared("0.0.0.0:1883").is_in_the_way_of(&shared("0.0.0.0:1883")), "one listener would be enough");
    }
}
