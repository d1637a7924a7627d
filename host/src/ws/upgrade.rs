//! The handshake: which request is answered how.

use tungstenite::error::ProtocolError;
use tungstenite::handshake::server::create_response;
use tungstenite::http::{self, HeaderValue};
use zeroize::Zeroize;

use super::Settings;
use super::deflate;
use super::request::{HEADERS_MAX, Request, Unreadable};

/// What clients offer and the server selects [MQTT-6.0.0-4].
const SUBPROTOCOL: &str = "mqtt";

/// What clients of MQTT 3.1 offer, as that version is older than the name above. Only selected where the other one is not
/// offered, which a client of 3.1.1 or 5.0 has to [MQTT-6.0.0-3].
const SUBPROTOCOL_3_1: &str = "mqttv3.1";

/// Bytes of a method's name, and then some: a longer word is no HTTP.
const METHOD_BYTES_MAX: usize = 32;

/// Takes what comes on a new connection until the request is whole.
#[derive(Debug, Default)]
pub struct Upgrade {
    head: Vec<u8>,
}

/// What has become of a request.
#[derive(Debug)]
pub enum Step {
    /// It has not come as a whole.
    More,
    /// Frames follow, once the answer has been sent.
    Accepted(Box<Accepted>),
    /// The connection is to be closed behind the answer.
    Refused(Refused),
}

/// A request that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// What was asked for.
    pub request: Request,
    /// What to send before everything else.
    pub response: Vec<u8>,
    /// How many of the bytes that were taken last belong to the request. Those behind are frames.
    pub taken: usize,
    /// Whether frames may be compressed.
    pub deflate: bool,
}

/// A request that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The status code of the answer.
    pub status: u16,
    /// What was got, what was expected. Nothing of the request but its method or version: it may have secrets.
    pub reason: String,
    /// A header of the answer that says what would have been right, if there is one.
    header: &'static str,
}

impl Upgrade {
    /// Takes what has come.
    pub fn feed(&mut self, bytes: &[u8], settings: &Settings) -> Step {
        let before = self.head.len();
        // The end may have begun in what came earlier.
        let from = before.saturating_sub(3);
        let room = settings.request_bytes_max.saturating_sub(before);
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if !may_be_http(&self.head) {
            let what = if self.head[0] == 0x10 { ": it looks like a CONNECT packet without WebSocket" } else { "" };
            return Step::Refused(Refused::new(400, format!("expected an HTTP request, got something else{what}")));
        }
        let Some(at) = self.head[from..].windows(4).position(|four| four == b"\r\n\r\n") else {
            if self.head.len() < settings.request_bytes_max {
                return Step::More;
            }
            let max = settings.request_bytes_max;
            return Step::Refused(Refused::new(431, format!("the request has more than {max} bytes")));
        };
        let mut head = std::mem::take(&mut self.head);
        let bytes = from + at + 4;
        let answered = answer(&head[..bytes], settings);
        // It may have credentials in it, and what has come behind it a password.
        head.zeroize();
        match answered {
            Ok((request, response, deflate)) => {
                Step::Accepted(Box::new(Accepted { request, response, taken: bytes - before, deflate }))
            }
            Err(refused) => Step::Refused(refused),
        }
    }

    /// Bytes that are held.
    pub fn held_bytes(&self) -> usize {
        self.head.capacity()
    }
}

/// Whether a request begins like this: with a method, which is a word.
fn may_be_http(head: &[u8]) -> bool {
    let word = head.iter().take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'-').count();
    word <= METHOD_BYTES_MAX && head.get(word).is_none_or(|byte| *byte == b' ' && word > 0)
}

/// Looks at a request that is whole. From what says most about the mistake to what says least: who has asked for another
/// path, say to see whether the server is there, does not want WebSocket at all.
fn answer(head: &[u8], settings: &Settings) -> Result<(Request, Vec<u8>, bool), Refused> {
    let request = Request::parse(head).map_err(Refused::unreadable)?;
    if request.values("Host").count() != 1 {
        return Err(Refused::new(400, "expected one Host header".to_owned()));
    }
    if request.path() != settings.path {
        let expected = &settings.path;
        return Err(Refused::new(404, format!("there is nothing at this path, MQTT over WebSocket is at {expected}")));
    }
    let has_body = request.values("Content-Length").any(|length| length.trim() != "0")
        || request.values("Transfer-Encoding").next().is_some();
    if has_body {
        return Err(Refused::new(400, "expected a request without a body".to_owned()));
    }
    let accept = accept_key(&request)?;
    let is_foreign = |origin: &str| !settings.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin));
    if !settings.origins.is_empty() && request.values("Origin").any(is_foreign) {
        return Err(Refused::new(403, "pages of this origin may not connect".to_owned()));
    }
    let offers = |name: &str| request.elements("Sec-WebSocket-Protocol").any(|offered| offered == name);
    let Some(subprotocol) = [SUBPROTOCOL, SUBPROTOCOL_3_1].into_iter().find(|name| offers(name)) else {
        return Err(Refused::new(400, "expected the subprotocol mqtt among those that are offered".to_owned()));
    };
    let deflate = settings.deflate && deflate::is_offered(&request);
    let mut response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n"
    );
    if deflate {
        response.push_str(deflate::ANSWER);
    }
    response.push_str("\r\n");
    Ok((request, response.into_bytes(), deflate))
}

/// Has tungstenite check what RFC 6455 asks of a request, and compute what proves that it was understood.
fn accept_key(request: &Request) -> Result<String, Refused> {
    let mut asked = http::Request::new(());
    for name in ["Connection", "Upgrade", "Sec-WebSocket-Version", "Sec-WebSocket-Key"] {
        if let Some(value) = request.joined(name).and_then(|value| HeaderValue::from_str(&value).ok()) {
            asked.headers_mut().insert(name, value);
        }
    }
    let response = create_response(&asked).map_err(|error| Refused::handshake(&error))?;
    let accept = response.headers().get("Sec-WebSocket-Accept").and_then(|value| value.to_str().ok());
    accept.map(str::to_owned).ok_or_else(|| Refused::new(500, "no key was computed".to_owned()))
}

impl Refused {
    fn new(status: u16, reason: String) -> Self {
        Self { status, reason, header: "" }
    }

    fn unreadable(error: Unreadable) -> Self {
        match error {
            Unreadable::NotHttp => Self::new(400, "the HTTP request is malformed".to_owned()),
            Unreadable::Version => Self::new(505, "expected HTTP/1.1".to_owned()),
            Unreadable::Method => {
                let refused = Self::new(405, "expected the method GET".to_owned());
                Self { header: "Allow: GET\r\n", ..refused }
            }
            Unreadable::TooManyHeaders => Self::new(431, format!("the request has more than {HEADERS_MAX} headers")),
        }
    }

    fn handshake(error: &tungstenite::Error) -> Self {
        use ProtocolError::{
            InvalidSecWebSocketKey, MissingConnectionUpgradeHeader, MissingSecWebSocketKey,
            MissingSecWebSocketVersionHeader, MissingUpgradeWebSocketHeader,
        };
        let (status, reason, header) = match error {
            tungstenite::Error::Protocol(MissingConnectionUpgradeHeader | MissingUpgradeWebSocketHeader) => {
                (426, "expected the headers `Connection: Upgrade` and `Upgrade: websocket`", "Upgrade: websocket\r\n")
            }
            tungstenite::Error::Protocol(MissingSecWebSocketVersionHeader) => (
                426,
                "expected the header `Sec-WebSocket-Version: 13`",
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            ),
            tungstenite::Error::Protocol(MissingSecWebSocketKey | InvalidSecWebSocketKey) => {
                (400, "expected one header `Sec-WebSocket-Key` with 16 bytes in Base64", "")
            }
            _ => (400, "the handshake of WebSocket is malformed", ""),
        };
        Self { status, reason: reason.to_owned(), header }
    }

    /// What to send before the connection is closed.
    pub fn response(&self) -> Vec<u8> {
        let phrase = http::StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let (status, phrase, header, reason) = (self.status, phrase.unwrap_or_default(), self.header, &self.reason);
        let length = reason.len() + 1;
        // Who names a protocol to upgrade to has to say so in Connection as well (RFC 9110, section 7.8).
        let connection = if status == 426 { "close, Upgrade" } else { "close" };
        format!(
            "HTTP/1.1 {status} {phrase}\r\n{header}Connection: {connection}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {length}\r\n\r\n{reason}\n"
        )
        .into_bytes()
    }
}
