//! How a connection comes, in a recording: its address, and what there is of TLS, a WebSocket, a Unix socket or a proxy.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::super::request::ConnectionInfo;
use super::super::transport::{Transport, show};
use super::json::{Fields, Unreadable, array, bytes, is_redacted, number, object, put_bytes, redacted, required, text};
use crate::core::peer::{
    AlternativeName, ClientCertificate, HttpDetails, HttpHeader, NameKind, PeerDetails, TlsDetails, TransportKind,
    UnixCredentials,
};

/// Headers whose values are no secrets. Which others let somebody in, whatever is in front of the host decides.
const PLAIN_HEADERS: [&str; 15] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "connection",
    "host",
    "origin",
    "pragma",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-version",
    "upgrade",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-proto",
];

const TRANSPORTS: [(TransportKind, &str); 7] = [
    (TransportKind::Other, "other"),
    (TransportKind::Tcp, "tcp"),
    (TransportKind::Tls, "tls"),
    (TransportKind::Ws, "ws"),
    (TransportKind::Wss, "wss"),
    (TransportKind::Unix, "unix"),
    (TransportKind::Quic, "quic"),
];

/// Writes where a connection comes from, and by which listener.
pub(super) fn put_peer(fields: &mut Fields, peer: SocketAddr, listener: &str, transport: Transport<'_>, secrets: bool) {
    fields.insert("peer".to_owned(), peer.to_string().into());
    fields.insert("listener".to_owned(), listener.into());
    if let Some(details) = transport.to_details() {
        fields.insert("transport".to_owned(), details_json(&details, secrets));
    }
}

fn is_plain(HttpHeader { name, value }: &HttpHeader) -> bool {
    // Browsers have their tokens stand among the subprotocols.
    let of_mqtt = |subprotocol: &[u8]| subprotocol.trim_ascii().starts_with(b"mqtt");
    let is_protocol = name.eq_ignore_ascii_case("sec-websocket-protocol");
    PLAIN_HEADERS.iter().any(|plain| name.eq_ignore_ascii_case(plain))
        || is_protocol && value.split(|byte| *byte == b',').all(of_mqtt)
}

fn details_json(details: &PeerDetails, secrets: bool) -> Value {
    let kind = TRANSPORTS.iter().find(|(kind, _)| *kind == details.transport).map_or("other", |(_, name)| *name);
    let mut json = json!({ "kind": kind });
    if let Some(tls) = &details.tls {
        json["tls"] = tls_json(tls);
    }
    if let Some(HttpDetails { path, headers }) = details.http.as_deref() {
        // Browsers cannot choose headers of a WebSocket: their tokens stand in the query.
        let (before, query) = path.split_once('?').map_or((&**path, None), |(before, query)| (before, Some(query)));
        json["path"] = json!(before);
        if let Some(query) = query {
            json["query"] = if secrets { json!(query) } else { redacted(query.len()) };
        }
        let header = |header: &HttpHeader| {
            let mut fields = Fields::new();
            fields.insert("name".to_owned(), json!(header.name));
            if !secrets && !is_plain(header) {
                fields.insert("value".to_owned(), redacted(header.value.len()));
            } else {
                put_bytes(&mut fields, "value", &header.value);
            }
            Value::Object(fields)
        };
        json["headers"] = headers.iter().map(header).collect();
    }
    if let Some(UnixCredentials { uid, gid, pid }) = details.unix {
        json["unix"] = json!({"uid": uid, "gid": gid, "pid": pid});
    }
    if let Some(proxy) = details.proxy {
        json["proxy"] = json!(proxy.to_string());
    }
    json
}

fn tls_json(tls: &TlsDetails) -> Value {
    let mut fields = Fields::new();
    fields.insert("version".to_owned(), json!(tls.version));
    fields.insert("cipher_suite".to_owned(), json!(tls.cipher_suite));
    tls.server_name.as_ref().map(|name| fields.insert("server_name".to_owned(), json!(name)));
    tls.alpn.as_ref().inspect(|alpn| put_bytes(&mut fields, "alpn", alpn));
    if let Some(certificate) = &tls.certificate {
        let names = certificate.alternative_names.iter();
        let names: Vec<_> = names.map(|name| json!({"kind": name.kind as u64, "name": name.name})).collect();
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        fields.insert(
            "certificate".to_owned(),
            json!({
                "subject": certificate.subject,
                "common_name": certificate.common_name,
                "alternative_names": names,
                "sha256": hex(&certificate.sha256),
                "serial": hex(&certificate.serial),
                "not_after": certificate.not_after_secs,
            }),
        );
    }
    fields.into()
}

/// Where a connection came from.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) listener: String,
    details: Option<Box<PeerDetails>>,
}

impl Peer {
    pub(super) fn read(fields: &Fields) -> Result<Self, Unreadable> {
        let address = text(fields, "peer")?;
        let address =
            address.parse().map_err(|_| format!("\"peer\" is {address:?}, expected an address and a port"))?;
        let details = object(fields, "transport")?.map(read_details).transpose()?.map(Box::new);
        Ok(Self { address, listener: text(fields, "listener")?.to_owned(), details })
    }

    /// Has it shown.
    pub(super) fn with<T>(&self, connection: u64, see: impl FnOnce(&ConnectionInfo<'_>) -> T) -> T {
        show(self.details.as_deref(), |transport| {
            see(&ConnectionInfo { connection, peer: self.address, listener: &self.listener, transport })
        })
    }
}

fn read_details(fields: &Fields) -> Result<PeerDetails, Unreadable> {
    let kind = text(fields, "kind")?;
    let transport = TRANSPORTS.iter().find(|(_, name)| *name == kind).map(|(kind, _)| *kind);
    let transport = transport.ok_or_else(|| format!("there is no transport {kind:?}"))?;
    let http = if fields.contains_key("headers") { Some(Box::new(read_http(fields)?)) } else { None };
    let unix = object(fields, "unix")?.map(|unix| {
        Ok::<_, Unreadable>(UnixCredentials {
            uid: number(unix, "uid")?,
            gid: number(unix, "gid")?,
            pid: number(unix, "pid")?,
        })
    });
    let proxy = text(fields, "proxy")?;
    let proxy = (!proxy.is_empty()).then(|| proxy.parse().map_err(|_| format!("\"proxy\" is {proxy:?}")));
    let tls = object(fields, "tls")?.map(read_tls).transpose()?.map(Box::new);
    Ok(PeerDetails { transport, tls, http, unix: unix.transpose()?, proxy: proxy.transpose()? })
}

fn read_http(fields: &Fields) -> Result<HttpDetails, Unreadable> {
    let header = |header: &Value| {
        let fields = header.as_object().ok_or("a header is no object")?;
        Ok::<_, Unreadable>(HttpHeader { name: text(fields, "name")?.into(), value: bytes(fields, "value")?.into() })
    };
    let headers = array(fields, "headers")?.iter().map(header).collect::<Result<_, _>>()?;
    let mut path = text(fields, "path")?.to_owned();
    if fields.get("query").is_some_and(|query| !is_redacted(query)) {
        path.push('?');
        path.push_str(text(fields, "query")?);
    }
    Ok(HttpDetails { path: path.into(), headers })
}

fn read_tls(fields: &Fields) -> Result<TlsDetails, Unreadable> {
    let server_name = fields.contains_key("server_name").then(|| text(fields, "server_name"));
    let has_alpn = super::json::has_bytes(fields, "alpn");
    Ok(TlsDetails {
        version: text(fields, "version")?.into(),
        cipher_suite: text(fields, "cipher_suite")?.into(),
        server_name: server_name.transpose()?.map(Into::into),
        alpn: if has_alpn { Some(bytes(fields, "alpn")?.into()) } else { None },
        certificate: object(fields, "certificate")?.map(read_certificate).transpose()?.map(Box::new),
    })
}

fn read_certificate(fields: &Fields) -> Result<ClientCertificate, Unreadable> {
    const KINDS: [NameKind; 5] = [NameKind::Other, NameKind::Dns, NameKind::Email, NameKind::Uri, NameKind::Ip];
    let hex = |key: &str| {
        let text = text(fields, key)?;
        data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|error| format!("{key:?}: {error}"))
    };
    let name = |name: &Value| {
        let fields = name.as_object().ok_or("a name is no object")?;
        let number: u64 = number(fields, "kind")?;
        let kind = KINDS.into_iter().find(|kind| *kind as u64 == number);
        let kind = kind.ok_or_else(|| format!("there is no kind {number} of names"))?;
        Ok::<_, Unreadable>(AlternativeName { kind, name: text(fields, "name")?.into() })
    };
    let sha256 = hex("sha256")?;
    Ok(ClientCertificate {
        subject: text(fields, "subject")?.into(),
        common_name: required(fields, "common_name")?.as_str().map(Into::into),
        alternative_names: array(fields, "alternative_names")?.iter().map(name).collect::<Result<_, _>>()?,
        sha256: sha256.try_into().map_err(|_| "\"sha256\" has not 32 bytes")?,
        serial: hex("serial")?.into(),
        not_after_secs: number(fields, "not_after")?,
    })
}
