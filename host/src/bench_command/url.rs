//! The broker's URL: what clients speak, and where.

use std::path::PathBuf;

/// The ports of MQTT, plain and over TLS, and those of HTTP.
pub(super) const PORT: u16 = 1883;
const TLS_PORT: u16 = 8883;
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
/// Where a broker has its WebSocket, if the URL does not say it.
const WEBSOCKET_PATH: &str = "/mqtt";

/// What a URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BrokerUrl {
    Net {
        tls: bool,
        /// The path, where it is a WebSocket.
        websocket: Option<String>,
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

impl BrokerUrl {
    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Net { tls: true, .. })
    }

    /// Plain TCP.
    pub(super) fn tcp(host: String, port: u16) -> Self {
        Self::Net { tls: false, websocket: None, host, port }
    }

    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let expected = |what: &str| format!("{url}: expected {what}");
        if let Some(path) = url.strip_prefix("unix:") {
            // unix:///run/x is the same place as unix:/run/x.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(expected("unix:PATH")) } else { Ok(Self::Unix(path.into())) };
        }
        let (tls, is_websocket, port, rest) = match url.split_once("://") {
            None | Some(("mqtt" | "tcp", _)) => (false, false, PORT, url.rsplit("://").next().unwrap_or(url)),
            Some(("mqtts" | "tls" | "ssl", rest)) => (true, false, TLS_PORT, rest),
            Some(("ws", rest)) => (false, true, HTTP_PORT, rest),
            Some(("wss", rest)) => (true, true, HTTPS_PORT, rest),
            Some((scheme, _)) => {
                return Err(format!("{url}: {scheme} is not spoken, but tcp (mqtt), tls (mqtts), ws, wss and unix"));
            }
        };
        let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !is_websocket && !matches!(path, "" | "/") {
            return Err(expected("no path, as there is no WebSocket: HOST or HOST:PORT"));
        }
        if path.contains(|character: char| character.is_ascii_control() || character == ' ' || character == '#') {
            return Err(expected("a path without spaces, such as /mqtt"));
        }
        let what = "HOST or HOST:PORT after the scheme, such as mqtt://192.0.2.1:1883";
        // A colon in an IPv6 address stands in brackets.
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| expected(what))?),
            _ => (place, port),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || port == 0 || host.contains(['@', ' ']) {
            return Err(expected(what));
        }
        let websocket = is_websocket.then(|| if path.is_empty() { WEBSOCKET_PATH.to_owned() } else { path.to_owned() });
        Ok(Self::Net { tls, websocket, host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split() {
        let net = |tls, path: Option<&str>, host: &str, port| {
            Some(BrokerUrl::Net { tls, websocket: path.map(str::to_owned), host: host.to_owned(), port })
        };
        let table = [
            ("mqtt://example.org", net(false, None, "example.org", 1883)),
            ("tcp://example.org:1884/", net(false, None, "example.org", 1884)),
            ("mqtt://[::1]", net(false, None, "::1", 1883)),
            ("mqtt://[::1]:1884", net(false, None, "::1", 1884)),
            ("127.0.0.1:1", net(false, None, "127.0.0.1", 1)),
            ("mqtts://example.org", net(true, None, "example.org", 8883)),
            ("tls://[::1]:1", net(true, None, "::1", 1)),
            ("ws://example.org", net(false, Some("/mqtt"), "example.org", 80)),
            ("ws://example.org:8080/", net(false, Some("/"), "example.org", 8080)),
            ("wss://[::1]/a/b?c=d", net(true, Some("/a/b?c=d"), "::1", 443)),
            ("unix:/run/host.sock", Some(BrokerUrl::Unix("/run/host.sock".into()))),
            ("unix:///run/host.sock", Some(BrokerUrl::Unix("/run/host.sock".into()))),
            ("unix:", None),
            ("mqtt://a/b", None),
            ("ws://a/b c", None),
            ("ws://a/b\r\nX: y", None),
            ("http://example.org", None),
            ("mqtt://:1883", None),
            ("mqtt://a:b", None),
            ("mqtt://a:0", None),
            ("mqtt://user@a", None),
        ];
        for (url, expected) in table {
            assert_eq!(BrokerUrl::parse(url).ok(), expected, "{url}");
        }
    }
}
