//! Where a listener is, written as a URL.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// What the clients of a listener speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// MQTT over TCP.
    Tcp,
    /// MQTT over TLS.
    Tls,
    /// MQTT over WebSocket.
    Ws,
    /// MQTT over WebSocket over TLS.
    Wss,
    /// MQTT over a Unix socket.
    Unix,
    /// MQTT over a stream of QUIC; of a host that is built with the feature `quic`.
    Quic,
}

impl Scheme {
    /// All of them, in the order in which they are documented.
    pub const ALL: [Self; 6] = [Self::Tcp, Self::Tls, Self::Ws, Self::Wss, Self::Unix, Self::Quic];

    /// As it is written in a URL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Unix => "unix",
            Self::Quic => "quic",
        }
    }

    /// Whether its listeners need a certificate.
    #[must_use]
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss | Self::Quic)
    }

    /// Whether its clients speak WebSocket.
    #[must_use]
    pub fn has_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// Where a listener is bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// An address and a port; port 0 takes a free one.
    Address(SocketAddr),
    /// The path of a Unix socket.
    Path(PathBuf),
}

/// Where a listener is, and what its clients speak there: `tcp://127.0.0.1:1883`, `tls://[::]:8883`,
/// `ws://0.0.0.0:8083/mqtt`, `wss://0.0.0.0:8084`, `unix:/run/host/mqtt.sock`. An address and a port alone are `tcp://`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenerUrl {
    /// What clients speak.
    pub scheme: Scheme,
    /// Where it is bound.
    pub place: Place,
    /// The path of WebSocket's opening handshake; `/mqtt` where the URL has none, empty for other schemes.
    pub path: String,
}

/// The path that WebSocket clients ask for, if nothing else was said.
const WEBSOCKET_PATH: &str = "/mqtt";

/// Why a text is no URL of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlError {
    what: String,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for UrlError {}

impl ListenerUrl {
    /// MQTT over TCP at an address.
    #[must_use]
    pub fn tcp(addr: SocketAddr) -> Self {
        Self { scheme: Scheme::Tcp, place: Place::Address(addr), path: String::new() }
    }

    /// MQTT and nothing else, at an address or a path.
    pub(crate) fn plain(place: Place) -> Self {
        let scheme = if matches!(place, Place::Path(_)) { Scheme::Unix } else { Scheme::Tcp };
        Self { scheme, place, path: String::new() }
    }

    /// The address, unless it is a Unix socket.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        match self.place {
            Place::Address(addr) => Some(addr),
            Place::Path(_) => None,
        }
    }

    /// Whether both cannot be had at once: QUIC has ports of its own, and port 0 is another one for each.
    pub(crate) fn is_at_place_of(&self, other: &Self) -> bool {
        let is_port_known = self.addr().is_none_or(|addr| addr.port() != 0);
        is_port_known && self.place == other.place && (self.scheme == Scheme::Quic) == (other.scheme == Scheme::Quic)
    }

    /// Whether nobody but this machine reaches it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.addr().is_none_or(|addr| addr.ip().to_canonical().is_loopback())
    }
}

impl fmt::Display for ListenerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Address(addr) => write!(f, "{}://{addr}{}", self.scheme.name(), self.path),
            Place::Path(path) => write!(f, "{}:{}", self.scheme.name(), path.display()),
        }
    }
}

impl FromStr for ListenerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if let Some(rest) = text.strip_prefix("unix:") {
            // `unix:///run/x` is `unix:/run/x` with an empty host.
            let path = PathBuf::from(rest.strip_prefix("//").unwrap_or(rest));
            if !path.is_absolute() {
                return Err(UrlError {
                    what: format!("`{text}` has no absolute path: expected unix:/run/host/mqtt.sock"),
                });
            }
            return Ok(Self { scheme: Scheme::Unix, place: Place::Path(path), path: String::new() });
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((name, rest)) => (known_scheme(text, name)?, rest),
            None => (Scheme::Tcp, text),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let addr = authority.parse().map_err(|_| no_address(text, authority))?;
        let path = match (scheme.has_websocket(), path) {
            (true, "") => WEBSOCKET_PATH,
            (true, path) if path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte)) => path,
            (false, "" | "/") => "",
            (true, _) => {
                let what = format!("`{text}`: the path {path} has a character that a path cannot have, or `?` or `#`");
                return Err(UrlError { what });
            }
            (false, _) => {
                let what = format!("`{text}` has a path, {path}: only ws:// and wss:// have one");
                return Err(UrlError { what });
            }
        };
        Ok(Self { scheme, place: Place::Address(addr), path: path.to_owned() })
    }
}

fn known_scheme(text: &str, name: &str) -> Result<Scheme, UrlError> {
    let meant = match name {
        "mqtt" => Some("tcp"),
        "mqtts" | "ssl" => Some("tls"),
        _ => None,
    };
    let found = Scheme::ALL.into_iter().find(|scheme| scheme.name() == name && *scheme != Scheme::Unix);
    found.ok_or_else(|| {
        let hint = meant.map_or_else(String::new, |meant| format!(" (it is called {meant}:// here)"));
        UrlError {
            what: format!("`{text}`: expected tcp://, tls://, ws://, wss://, quic:// or unix:, not {name}://{hint}"),
        }
    })
}

fn no_address(text: &str, authority: &str) -> UrlError {
    let hint = match authority.strip_prefix("localhost") {
        Some(port) if port.starts_with(':') => format!(" (for localhost: 127.0.0.1{port} or [::1]{port})"),
        _ => String::new(),
    };
    UrlError {
        what: format!(
            "`{text}` is not a place to listen at: expected an address and a port, such as 127.0.0.1:1883, \
             tls://0.0.0.0:8883, ws://[::1]:8083/mqtt, or unix:/run/host/mqtt.sock{hint}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written() {
        let table = [
            ("127.0.0.1:1883", Scheme::Tcp, "tcp://127.0.0.1:1883"),
            ("[::1]:0", Scheme::Tcp, "tcp://[::1]:0"),
            ("tcp://0.0.0.0:1883/", Scheme::Tcp, "tcp://0.0.0.0:1883"),
            ("tls://[::]:8883", Scheme::Tls, "tls://[::]:8883"),
            ("ws://127.0.0.1:8083", Scheme::Ws, "ws://127.0.0.1:8083/mqtt"),
            ("wss://127.0.0.1:8084/a/b", Scheme::Wss, "wss://127.0.0.1:8084/a/b"),
            ("ws://127.0.0.1:8083/", Scheme::Ws, "ws://127.0.0.1:8083/"),
            ("quic://127.0.0.1:14567", Scheme::Quic, "quic://127.0.0.1:14567"),
            ("unix:/run/host.sock", Scheme::Unix, "unix:/run/host.sock"),
            ("unix:///run/host.sock", Scheme::Unix, "unix:/run/host.sock"),
        ];
        for (text, scheme, written) in table {
            let url: ListenerUrl = text.parse().expect(text);
            assert_eq!((url.scheme, url.to_string().as_str()), (scheme, written), "{text}");
            assert_eq!(written.parse().as_ref(), Ok(&url), "{text}");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        let table = [
            ("1883", "expected an address and a port"),
            ("localhost:1883", "for localhost: 127.0.0.1:1883"),
            ("tls://localhost:8883", "for localhost: 127.0.0.1:8883"),
            ("tcp://127.0.0.1", "expected an address and a port"),
            ("mqtts://127.0.0.1:8883", "it is called tls:// here"),
            ("http://127.0.0.1:80", "expected tcp://, tls://, ws://, wss://, quic:// or unix:, not http://"),
            ("unix://run/host.sock", "has no absolute path"),
            ("unix:", "has no absolute path"),
            ("tls://127.0.0.1:8883/mqtt", "only ws:// and wss:// have one"),
            ("ws://127.0.0.1:8083/a?b", "a character that a path cannot have"),
        ];
        for (text, expected) in table {
            let error = text.parse::<ListenerUrl>().expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn loopback_and_unix_sockets_are_local() {
        for (text, is_local) in [
            ("tcp://127.0.0.2:1", true),
            ("tls://[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("unix:/x", true),
            ("0.0.0.0:1", false),
            ("ws://[::]:1", false),
        ] {
            assert_eq!(text.parse::<ListenerUrl>().expect(text).is_local(), is_local, "{text}");
        }
    }
}
