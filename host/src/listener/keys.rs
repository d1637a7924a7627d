//! The keys of a `[[listener]]` in the configuration file. Each field of [`ListenerConfig`] has a row here, from which come
//! its key, its row in `host/CONFIG.md` and its line in what `host config default` prints.

use std::path::Path;
use std::time::Duration;

use super::{
    CertificateFiles, ClientCertificates, ListenerConfig, ListenerUrl, TcpKeepAlive, TlsVersion, WebSocketConfig,
};
use crate::core::peer::NameKind;
use crate::core::{Mount, UsernameFrom};
use crate::limits::value::Field;
use crate::limits::{Kind, Reload, Setting, Value, Word};
use crate::proxy::{Network, Networks};

/// How a field is read and written: it stands for itself, or two functions do it.
macro_rules! access {
    (get ($get:expr, $set:expr)) => { $get };
    (set ($get:expr, $set:expr)) => { $set };
    (get $($field:ident).+) => { |listener| listener.$($field).+.get() };
    (set $($field:ident).+) => { |listener, value| listener.$($field).+.set(value) };
}

/// Makes the table. A row is what the key is for, its name and its field, its unit and what it may be (see
/// [`Setting::range`]), what it means where it is not given (for fields that can be `None` or empty), and when another value
/// counts.
macro_rules! keys {
    ($($heading:literal { $(
        $(#[doc = $about:literal])+
        $name:ident: $field:tt $(. $part:ident)*, $kind:expr, $range:expr, $unset:literal, $reload:ident;
    )+ })+) => {
        /// Every key of a listener, in the order of the reference.
        pub static LISTENER_KEYS: &[Setting<ListenerConfig>] = &[$($(
            Setting {
                name: stringify!($name),
                heading: $heading,
                about: concat!($($about),+),
                beyond: "",
                kind: $kind,
                range: $range,
                unset: $unset,
                reload: Reload::$reload,
                get: access!(get $field $(. $part)*),
                set: access!(set $field $(. $part)*),
            },
        )+)+];
    };
}

keys! {
    "Every listener" {
        /// Where it listens, and what its clients speak there: `tcp://`, `tls://`, `ws://`, `wss://` or `quic://` (of a host
        /// that is built with the feature `quic`) with an address and a port (0 takes a free one), or `unix:` with a path. It has to be given. Another URL is another listener.
        url: url, Kind::Word(&URL), 0..=0, "none: it has to be given", AtOnce;
        /// What the log and handlers call it.
        name: name, Kind::Text, 0..=0, "the address of a `tcp://` listener, the URL of any other", NewConnections;
    }
    "Its clients" {
        /// The names of the plugins that decide about its clients, in whatever order: they are asked in that of the chain.
        plugins: rules.plugins, Kind::Texts, 0..=0, "all", NewConnections;
        /// Whether its clients from other machines get in where none of these plugins decides on connections.
        allow_anonymous: rules.allow_anonymous, Kind::Flag, 0..=1, "as `allow_anonymous` of the server says", NewConnections;
        /// The part of the topics that its clients see, as whole levels: a client of a listener with `sites/7` that publishes to
        /// `t` publishes to `sites/7/t`, and is sent what is below `sites/7`, without that. Handlers and all others know the
        /// real names; Response Topics stay as they are.
        mount: rules.mount, Kind::Word(&MOUNT), 0..=0, "all topics, by their names", NewConnections;
        /// What of a client's certificate takes the place of its User Name: the common name, the subject as text, or the first
        /// alternative name of a kind. Who has shown no certificate, or one without such a name, is refused.
        username_from: rules.username_from, Kind::Choice(&USERNAME_FROM), 0..=5, "none: its User Name is its own", NewConnections;
    }
    "Unix sockets" {
        /// Permissions of the socket's file, for `unix:`. Who may write to it may connect.
        unix_mode: unix_mode, Kind::Mode, 0..=0o777, "", AtOnce;
    }
    "TCP" {
        /// Connections that the kernel keeps until they are accepted, unless the system allows fewer (`net.core.somaxconn`).
        backlog: tcp.backlog, Kind::Count, 1..=65_535, "", NewConnections;
        /// Silence after which the kernel asks the peer whether it is still there, in whole seconds. MQTT has a Keep Alive of
        /// its own, and this one wakes devices that sleep.
        tcp_keep_alive: tcp.keep_alive, Kind::Time, 1000..=32_767_000, "it is not asked", NewConnections;
        /// Time until the kernel asks once more, in whole seconds. Only with tcp_keep_alive.
        tcp_keep_alive_interval: (
            |listener| listener.tcp.keep_alive.as_ref().map_or(Value::Unset, |alive| alive.interval.get()),
            |listener, value| if let Some(alive) = &mut listener.tcp.keep_alive { alive.interval.set(value) }
        ), Kind::Time, 1000..=32_767_000, "15s", NewConnections;
        /// Questions without an answer after which the connection is lost. Only with tcp_keep_alive.
        tcp_keep_alive_probes: (
            |listener| listener.tcp.keep_alive.as_ref().map_or(Value::Unset, |alive| alive.probes.get()),
            |listener, value| if let Some(alive) = &mut listener.tcp.keep_alive { alive.probes.set(value) }
        ), Kind::Count, 1..=127, "4", NewConnections;
        /// Whether other processes of the same user may listen at the same address (`SO_REUSEPORT`): connections are shared
        /// out between them, so that a new version can be started before the old one is stopped.
        reuse_port: tcp.reuse_port, Kind::Flag, 0..=1, "", Restart;
        /// Whether a listener at `[::]` takes IPv4 connections as well; nobody else can listen at `0.0.0.0` with the same port
        /// then.
        dual_stack: tcp.dual_stack, Kind::Flag, 0..=1, "", Restart;
    }
    "Proxies" {
        /// Whose PROXY protocol headers (version 1 or 2) are believed: addresses or networks, or `unix` for who comes by a Unix
        /// socket. With it each connection has to begin with such a header, which says who the client is, and whoever comes from
        /// elsewhere is closed at once. Even at a loopback address, such a listener is one that other machines reach.
        proxy_from: proxy_from, Kind::Words(&NETWORK), 0..=0, "none: nobody says more than its own address", NewConnections;
    }
    "TLS" {
        /// The server's certificate, followed by those between it and the authority, as PEM.
        certificate: tls.certificate, Kind::Path, 0..=0, "none: `tls://`, `wss://` and `quic://` need it", NewConnections;
        /// Its private key, as PEM.
        private_key: tls.private_key, Kind::Path, 0..=0, "the one in the file of the certificate", NewConnections;
        /// Further certificates, for other names or with other kinds of keys, as PEM. Which one a client is shown depends on the
        /// name that it asks for (SNI) and on the signatures that it knows; who asks for none of the names is shown the first.
        more_certificates: (
            |listener| Value::Texts(listener.tls.more_certificates.iter().map(|files| path_text(&files.certificate)).collect()),
            set_more_certificates
        ), Kind::Paths, 0..=0, "none", NewConnections;
        /// Their private keys, in the same order. Only with more_certificates.
        more_private_keys: (
            |listener| {
                let keys = listener.tls.more_certificates.iter().filter_map(|files| files.private_key.as_deref());
                Value::Texts(keys.map(path_text).collect())
            },
            set_more_private_keys
        ), Kind::Paths, 0..=0, "those in the files of the certificates", NewConnections;
        /// Whether clients have to show a certificate: they are not asked for one, may go without, or are refused without.
        client_certificates: tls.client_certificates, Kind::Choice(&["none", "optional", "required"]), 0..=2, "", NewConnections;
        /// Certificates of the authorities that clients' certificates come from, as PEM.
        client_authorities: tls.client_authorities, Kind::Paths, 0..=0, "none: client_certificates needs one", NewConnections;
        /// Their lists of certificates that have been revoked, as PEM. Where there is one, there has to be one of each
        /// authority, and none may be out of date: otherwise nobody is let in whose certificate it is about.
        revocation_lists: tls.revocation_lists, Kind::Paths, 0..=0, "none: nobody is revoked", NewConnections;
        /// The oldest version of TLS that is spoken.
        tls_version_min: tls.version_min, Kind::Choice(&["1.2", "1.3"]), 0..=1, "", NewConnections;
    }
    "WebSocket" {
        /// Pages that may connect, by the header `Origin` that their browser sends: others could connect in the name of whoever
        /// looks at them. Most programs that are no browsers send none, and get in; some (paho for
        /// Python) send the URL that they connect to, which has to be named then. Where none is named, pages of other machines than
        /// this one need a plugin that accepts them, or `allow_anonymous`.
        origins: websocket.origins, Kind::Words(&ORIGIN), 0..=0, "all", NewConnections;
        /// Largest HTTP request with all its headers.
        request_bytes_max: websocket.request_bytes_max, Kind::Bytes, 64..=65_536, "", NewConnections;
        /// Whether messages are compressed (permessage-deflate) where the client offers it. It costs more than all else that is
        /// done for a message: 300 KiB for each worker, and 44 KiB for each message that is being received.
        deflate: websocket.deflate, Kind::Flag, 0..=1, "", NewConnections;
    }
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}

fn set_more_certificates(listener: &mut ListenerConfig, value: &Value) {
    let keys: Vec<_> = listener.tls.more_certificates.drain(..).map(|files| files.private_key).collect();
    let keys = keys.into_iter().chain(std::iter::repeat(None));
    let files = value.texts().iter().zip(keys).map(|(certificate, key)| CertificateFiles::new(certificate, key));
    listener.tls.more_certificates = files.collect();
}

/// After the certificates. A key that is too many stands for a certificate that is not there, which is told when it is read.
fn set_more_private_keys(listener: &mut ListenerConfig, value: &Value) {
    let all = &mut listener.tls.more_certificates;
    for (place, key) in value.texts().iter().enumerate() {
        match all.get_mut(place) {
            Some(files) => files.private_key = Some(key.into()),
            None => all.push(CertificateFiles::new(key, None)),
        }
    }
}

impl Field for ClientCertificates {
    fn get(&self) -> Value {
        Value::Number(*self as u64)
    }
    fn set(&mut self, value: &Value) {
        if let Value::Number(place) = value {
            *self = Self::NAMES[*place as usize].1;
        }
    }
}

impl Field for TlsVersion {
    fn get(&self) -> Value {
        Value::Number(*self as u64)
    }
    fn set(&mut self, value: &Value) {
        if let Value::Number(place) = value {
            *self = Self::NAMES[*place as usize].1;
        }
    }
}

static ORIGIN: Word = Word {
    unit: "origin",
    placeholder: "ORIGIN",
    expected: "a scheme and a host, such as https://example.com, or null",
    example: "https://example.com",
    check: WebSocketConfig::check_origin,
};

static URL: Word = Word {
    unit: "URL",
    placeholder: "URL",
    expected: "an address and a port, such as 127.0.0.1:1883, tls://0.0.0.0:8883, ws://[::1]:8083/mqtt, or \
               unix:/run/host/mqtt.sock",
    example: "tcp://127.0.0.1:1883",
    check: |text| text.parse::<ListenerUrl>().map(drop).map_err(|error| error.to_string()),
};

static MOUNT: Word = Word {
    unit: "topic",
    placeholder: "TOPIC",
    expected: "levels of a topic, without + and #, such as sites/7",
    example: "sites/7",
    check: |text| text.parse::<Mount>().map(drop).map_err(|error| error.to_string()),
};

static NETWORK: Word = Word {
    unit: "networks",
    placeholder: "NETWORK",
    expected: "an address or a network, such as 192.0.2.7, 10.0.0.0/8 or fd00::/8, or unix",
    example: "10.0.0.0/8",
    check: |text| text.parse::<Network>().map(drop),
};

/// The words for what a User Name is taken from, in the order of [`username_sources`].
const USERNAME_FROM: [&str; 6] = ["common-name", "subject", "dns", "email", "uri", "ip"];

fn username_sources() -> [UsernameFrom; USERNAME_FROM.len()] {
    use UsernameFrom::{AlternativeName, CommonName, Subject};
    let [dns, email, uri, ip] = [NameKind::Dns, NameKind::Email, NameKind::Uri, NameKind::Ip].map(AlternativeName);
    [CommonName, Subject, dns, email, uri, ip]
}

impl Field for Option<UsernameFrom> {
    fn get(&self) -> Value {
        let place = username_sources().iter().position(|one| Some(*one) == *self);
        place.map_or(Value::Unset, |place| Value::Number(place as u64))
    }
    fn set(&mut self, value: &Value) {
        *self = match value {
            Value::Number(place) => username_sources().get(*place as usize).copied(),
            _ => None,
        };
    }
}

impl Field for Option<Mount> {
    fn get(&self) -> Value {
        self.as_ref().map_or(Value::Unset, |mount| Value::Text(mount.prefix().to_owned()))
    }
    fn set(&mut self, value: &Value) {
        *self = match value {
            Value::Text(text) => text.parse().ok(),
            _ => None,
        };
    }
}

impl Field for Option<TcpKeepAlive> {
    fn get(&self) -> Value {
        self.as_ref().map_or(Value::Unset, |alive| alive.idle.get())
    }
    fn set(&mut self, value: &Value) {
        let mut idle = Duration::ZERO;
        idle.set(value);
        *self = (*value != Value::Unset).then(|| TcpKeepAlive::after(idle));
    }
}

impl Field for Networks {
    fn get(&self) -> Value {
        Value::Texts(self.0.iter().map(ToString::to_string).collect())
    }
    fn set(&mut self, value: &Value) {
        // They have been looked at.
        self.0 = value.texts().iter().filter_map(|text| text.parse().ok()).collect();
    }
}

impl Field for ListenerUrl {
    fn get(&self) -> Value {
        Value::Text(self.to_string())
    }
    fn set(&mut self, value: &Value) {
        if let Value::Text(text) = value
            && let Ok(url) = text.parse()
        {
            *self = url;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is set is what is shown, and each key has a field of its own.
    #[test]
    fn keys_reach_their_fields() {
        let mut unset = ListenerConfig::new("tcp://127.0.0.1:1883".parse().unwrap());
        for setting in LISTENER_KEYS {
            let (before, name) = (setting.get(&unset), setting.name);
            // The two behind it are parts of it.
            if name == "tcp_keep_alive_interval" {
                unset.tcp.keep_alive = Some(TcpKeepAlive::after(Duration::from_secs(7)));
            }
            if name == "more_private_keys" {
                unset.tls.more_certificates = ["/a", "/b"].map(|file| CertificateFiles::new(file, None)).to_vec();
            }
            let other = match setting.kind {
                Kind::Text | Kind::Path => Value::Text("/x".to_owned()),
                Kind::Paths | Kind::Texts => Value::Texts(vec!["/x".to_owned(), "/y".to_owned()]),
                // A word has a form that is not known here.
                Kind::Word(_) | Kind::Words(_) | Kind::Table => continue,
                _ if before == Value::Number(*setting.range.end()) => Value::Number(*setting.range.start()),
                _ => Value::Number(*setting.range.end()),
            };
            let mut listener = unset.clone();
            setting.apply(&mut listener, &other);
            assert_eq!(setting.get(&listener), other, "{name}");
            if name == "tcp_keep_alive" {
                continue;
            }
            let changed = LISTENER_KEYS.iter().filter(|key| key.get(&listener) != key.get(&unset));
            assert_eq!(changed.map(|key| key.name).collect::<Vec<_>>(), [name]);
        }
    }
}
