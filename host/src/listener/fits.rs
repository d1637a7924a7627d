//! Whether the settings of a listener fit to its URL. What a URL has no use for is refused, as whoever has written it counts on
//! it: a `tcp://` listener with a certificate would speak plain text.

use super::{ClientCertificates, LISTENER_KEYS, ListenerConfig, ListenerUrl, Place, Scheme};
use crate::limits::Setting;

impl ListenerConfig {
    /// The settings that say something, and that nothing comes of at this URL: their keys, and what is wrong. What is as by
    /// default says nothing.
    pub(crate) fn misplaced(&self) -> Vec<(&'static str, String)> {
        let plain = Self::new(self.url.clone());
        let given = LISTENER_KEYS.iter().filter(|key| key.get(self) != key.get(&plain));
        let idle = given.filter(|key| !is_for(key, self.url.scheme));
        let mut all: Vec<_> = idle.map(|key| (key.name, what_it_is_for(key, &self.url))).collect();
        let asks = self.url.scheme.has_tls() && self.tls.client_certificates != ClientCertificates::None;
        if self.rules.username_from.is_some() && !asks && self.proxy_from.0.is_empty() {
            let what = "username_from is about certificates of clients, and they are not asked for one: say \
                        `client_certificates`, required or optional, at a listener with TLS; or `proxy_from`, for a proxy \
                        that has verified them";
            all.push(("username_from", what.to_owned()));
        }
        all
    }
}

/// Whether listeners of a scheme heed a setting.
fn is_for(key: &Setting<ListenerConfig>, scheme: Scheme) -> bool {
    match (key.heading, key.name) {
        ("TLS", _) => scheme.has_tls(),
        ("WebSocket", _) => scheme.has_websocket(),
        ("Unix sockets", _) => scheme == Scheme::Unix,
        ("TCP", "dual_stack") => scheme != Scheme::Unix,
        ("TCP", "backlog") | ("Proxies", _) => scheme != Scheme::Quic,
        ("TCP", _) => !matches!(scheme, Scheme::Unix | Scheme::Quic),
        _ => true,
    }
}

fn what_it_is_for(key: &Setting<ListenerConfig>, url: &ListenerUrl) -> String {
    let written = |scheme: &Scheme| match scheme {
        Scheme::Unix => "unix:".to_owned(),
        scheme => format!("{}://", scheme.name()),
    };
    let schemes: Vec<_> = Scheme::ALL.iter().filter(|scheme| is_for(key, **scheme)).map(written).collect();
    let schemes = match &schemes[..] {
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        all => all.concat(),
    };
    let meant = match (key.heading, url.scheme, &url.place) {
        (_, Scheme::Unix, _) | (_, _, Place::Path(_)) => None,
        ("TLS", Scheme::Tcp, _) => Some(Scheme::Tls),
        ("TLS", Scheme::Ws, _) | ("WebSocket", Scheme::Tls, _) => Some(Scheme::Wss),
        ("WebSocket", Scheme::Tcp, _) => Some(Scheme::Ws),
        _ => None,
    };
    let hint = match (meant, &url.place) {
        (Some(scheme), Place::Address(addr)) => {
            format!("did you mean {}://{addr}{}? Otherwise leave it out", scheme.name(), url.path)
        }
        _ => "leave it out".to_owned(),
    };
    format!("{} is for {schemes}, and says nothing at {url}: {hint}", key.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::UsernameFrom;
    use crate::limits::{Kind, Value};

    /// Each key at each scheme: by what the listeners of that scheme do with it.
    #[test]
    fn keys_that_say_nothing_at_a_url_are_told() {
        const TLS: &[Scheme] = &[Scheme::Tls, Scheme::Wss, Scheme::Quic];
        const WEBSOCKET: &[Scheme] = &[Scheme::Ws, Scheme::Wss];
        const STREAMS: &[Scheme] = &[Scheme::Tcp, Scheme::Tls, Scheme::Ws, Scheme::Wss];
        let all_but = |other| Scheme::ALL.into_iter().filter(|scheme| *scheme != other).collect::<Vec<_>>();
        let (not_quic, not_unix) = (all_but(Scheme::Quic), all_but(Scheme::Unix));
        let bounds = |key: &Setting<ListenerConfig>| match key.name {
            "unix_mode" => &[Scheme::Unix][..],
            "backlog" | "proxy_from" => &not_quic[..],
            "dual_stack" => &not_unix[..],
            "tcp_keep_alive" | "reuse_port" => STREAMS,
            "origins" | "request_bytes_max" | "deflate" => WEBSOCKET,
            "certificate" | "private_key" | "more_certificates" | "client_certificates" | "client_authorities" => TLS,
            "revocation_lists" | "tls_version_min" => TLS,
            "name" | "plugins" | "allow_anonymous" | "mount" => &Scheme::ALL[..],
            other => panic!("{other}: which listeners heed it?"),
        };
        // The URL is what it is about; the parts of others go with those, and what username_from needs is below.
        let apart = ["url", "tcp_keep_alive_interval", "tcp_keep_alive_probes", "more_private_keys", "username_from"];
        for key in LISTENER_KEYS.iter().filter(|key| !apart.contains(&key.name)) {
            for scheme in Scheme::ALL {
                let url =
                    if scheme == Scheme::Unix { "unix:/x".to_owned() } else { format!("{}://[::]:1", scheme.name()) };
                let mut listener = ListenerConfig::new(url.parse().unwrap());
                assert_eq!(listener.misplaced(), []);
                let value = match (key.kind, key.get(&listener)) {
                    (Kind::Word(word), _) => Value::Text(word.example.to_owned()),
                    (Kind::Words(word), _) => Value::Texts(vec![word.example.to_owned()]),
                    (Kind::Paths | Kind::Texts, _) => Value::Texts(vec!["/x".to_owned()]),
                    (Kind::Path | Kind::Text, _) => Value::Text("/x".to_owned()),
                    (_, before) if before == Value::Number(*key.range.end()) => Value::Number(*key.range.start()),
                    _ => Value::Number(*key.range.end()),
                };
                key.apply(&mut listener, &value);
                let told: Vec<_> = listener.misplaced().into_iter().map(|(name, _)| name).collect();
                let expected: &[&str] = if bounds(key).contains(&scheme) { &[] } else { &[key.name] };
                let told_of_it: Vec<_> = told.into_iter().filter(|name| !apart.contains(name)).collect();
                assert_eq!(told_of_it, expected, "{} at {url}", key.name);
            }
        }
    }

    #[test]
    fn what_was_meant_is_named() {
        type Change = fn(&mut ListenerConfig);
        let table: [(&str, Change, &str); 5] = [
            (
                "tcp://0.0.0.0:1883",
                |config| config.tls.certificate = Some("/x".into()),
                "certificate is for tls://, wss:// and quic://, and says nothing at tcp://0.0.0.0:1883: did you mean \
                 tls://0.0.0.0:1883? Otherwise leave it out",
            ),
            ("ws://[::1]:1/a", |config| config.tls.certificate = Some("/x".into()), "did you mean wss://[::1]:1/a?"),
            (
                "tls://[::1]:1",
                |config| config.websocket.deflate = true,
                "deflate is for ws:// and wss://, and says nothing at tls://[::1]:1: did you mean wss://[::1]:1?",
            ),
            ("unix:/x", |config| config.tls.certificate = Some("/x".into()), "says nothing at unix:/x: leave it out"),
            ("ws://[::1]:1", |config| config.unix_mode = 0o600, "unix_mode is for unix:, and says nothing at ws://"),
        ];
        for (url, change, expected) in table {
            let mut config = ListenerConfig::new(url.parse().unwrap());
            change(&mut config);
            let [(_, what)] = &config.misplaced()[..] else { panic!("{url}: {:?}", config.misplaced()) };
            assert!(what.contains(expected), "{what}");
        }
    }

    #[test]
    fn names_from_certificates_need_certificates() {
        let mut config = ListenerConfig::new("tls://127.0.0.1:1".parse().unwrap());
        config.rules.username_from = Some(UsernameFrom::CommonName);
        let [("username_from", what)] = &config.misplaced()[..] else { panic!("{:?}", config.misplaced()) };
        assert!(what.contains("say `client_certificates`, required or optional"), "{what}");
        config.tls.client_certificates = ClientCertificates::Optional;
        assert_eq!(config.misplaced(), []);
        // A proxy says what it has verified, also where it comes in plain text.
        let mut config = ListenerConfig::new("tcp://127.0.0.1:1".parse().unwrap());
        config.rules.username_from = Some(UsernameFrom::CommonName);
        assert_eq!(config.misplaced().len(), 1);
        config.proxy_from.0.push("127.0.0.1".parse().unwrap());
        assert_eq!(config.misplaced(), []);
    }
}
