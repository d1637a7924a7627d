//! What a callback was shown, in a recording, in both directions.

use plugin_api::Callback;
use plugin_api::abi::{
    RawAuth, RawConnect, RawConnected, RawDeliver, RawDisconnect, RawInfo, RawMessageNotice, RawPublish, RawRetained,
    RawState, RawSubscription,
};
use serde_json::{Value, json};

use super::super::owned::{Own, OwnedMessageForInfo, Request, with_subscribe, with_unsubscribe};
use super::super::request::NO_EXTENSION;
use super::super::transport::Transport;
use super::json::{
    self, Fields, Unreadable, array, bytes, flag, has_bytes, number, properties, put_bytes, put_properties, redacted,
    required, text,
};
use super::peer::{Peer, put_peer};

/// Makes, of the fields of a view, how it is written and read. Numbers that are 0, texts that are empty and flags that are
/// not set are left out.
macro_rules! views {
    ($($name:ident: $raw:ident {
        texts: $($text:ident)*; bytes: $($bytes:ident)*; properties: $($properties:ident)?;
        numbers: $($number:ident)*; flags: $($flag:literal $bit:expr),*;
    })*) => {$(
        mod $name {
            #[allow(clippy::wildcard_imports, unused_imports)]
            use super::*;

            pub(super) fn put(raw: &$raw<'_>, #[allow(unused)] secrets: bool) -> Fields {
                let mut fields = Fields::new();
                $(if !raw.$text.is_empty() {
                    fields.insert(stringify!($text).to_owned(), raw.$text.as_str().into());
                })*
                $(if !raw.$bytes.is_empty() {
                    put_bytes(&mut fields, stringify!($bytes), &raw.$bytes);
                })*
                $(put_properties(&mut fields, &raw.$properties, secrets);)?
                $(if raw.$number != 0 {
                    fields.insert(stringify!($number).to_owned(), raw.$number.into());
                })*
                $(if raw.flags & $bit != 0 {
                    fields.insert($flag.to_owned(), true.into());
                })*
                fields
            }

            pub(super) fn with<T>(fields: &Fields, see: impl FnOnce(&$raw<'_>) -> T) -> Result<T, Unreadable> {
                $(let $text = text(fields, stringify!($text))?;)*
                $(let $bytes = bytes(fields, stringify!($bytes))?;)*
                $(let $properties = properties(fields)?;)?
                Ok(see(&views!(@raw $raw fields {
                    $($text: $text.into(),)*
                    $($bytes: $bytes.as_slice().into(),)*
                    $($properties: $properties.as_slice().into(),)?
                    $($number: number(fields, stringify!($number))?,)*
                } [$($flag $bit),*])))
            }
        }
    )*};
    (@raw $raw:ident $fields:ident { $($field:ident: $value:expr,)* } []) => {
        $raw { $($field: $value,)* extension: NO_EXTENSION }
    };
    (@raw $raw:ident $fields:ident { $($field:ident: $value:expr,)* } [$($flag:literal $bit:expr),+]) => {
        $raw {
            $($field: $value,)*
            flags: 0 $(| if flag($fields, $flag)? { $bit } else { 0 })+,
            extension: NO_EXTENSION,
        }
    };
}

views! {
    publish: RawPublish {
        texts: topic; bytes: payload; properties: properties; numbers: packet_id qos;
        flags: "retain" RawPublish::RETAIN, "dup" RawPublish::DUP, "will" RawPublish::WILL, "again" RawPublish::AGAIN;
    }
    subscription: RawSubscription {
        texts: filter share_name; bytes: ; properties: ; numbers: qos retain_handling reason_code;
        flags: "shared" RawSubscription::SHARED, "no_local" RawSubscription::NO_LOCAL,
            "retain_as_published" RawSubscription::RETAIN_AS_PUBLISHED, "again" RawSubscription::AGAIN;
    }
    info: RawInfo { texts: kind; bytes: data; properties: ; numbers: connection timer sender; flags: ; }
    disconnect: RawDisconnect { texts: text; bytes: ; properties: ; numbers: kind reason_code; flags: ; }
    connected: RawConnected {
        texts: client_id; bytes: ; properties: ; numbers: connection session_expiry keep_alive;
        flags: "session_present" RawConnected::SESSION_PRESENT, "took_over" RawConnected::TOOK_OVER;
    }
    notice: RawMessageNotice {
        texts: client_id topic; bytes: payload; properties: properties;
        numbers: token packet_id qos reason reason_code; flags: "retain" RawDeliver::RETAIN;
    }
    retained: RawRetained {
        texts: topic; bytes: payload; properties: properties; numbers: qos change; flags: ;
    }
}

impl Request {
    /// As it is recorded; passwords, Authentication Data, what is exported of a state, configurations, the query of a
    /// WebSocket's URL, and headers that may let somebody in only with `secrets`.
    pub(in crate::plugin) fn to_json(&self, secrets: bool) -> Value {
        let fields = match self {
            Self::Connect(connect) => connect.with(|raw| connect_json(raw, secrets)),
            Self::Auth(auth) => auth_json(&auth.raw(), secrets),
            Self::Publish(publish) => publish::put(&publish.raw(), secrets),
            Self::Subscribe(items, properties) => with_subscribe(items, properties, |raw| {
                let items = raw.subscriptions.iter().map(|item| Value::Object(subscription::put(item, secrets)));
                with_list("subscriptions", items.collect(), &raw.properties, secrets)
            }),
            Self::Unsubscribe(filters, properties) => with_unsubscribe(filters, properties, |raw| {
                let filters = raw.filters.iter().map(|filter| filter.as_str().into());
                with_list("filters", filters.collect(), &raw.properties, secrets)
            }),
            &Self::Puback { packet_id, kind, reason_code, token } => {
                return json!({"packet_id": packet_id, "kind": kind, "reason_code": reason_code, "token": token});
            }
            Self::Info(info) | Self::Event(info) => info::put(&info.raw(), secrets),
            Self::Disconnect(reason) => disconnect::put(&reason.raw(), secrets),
            Self::Connected(connected) => connected::put(&connected.raw(), secrets),
            Self::Swapped(_) => Fields::new(),
            Self::SessionExpired { client_id, state } => {
                let mut fields = Fields::new();
                fields.insert("client_id".to_owned(), (**client_id).into());
                if let Some((version, bytes)) = state {
                    fields.insert("state_version".to_owned(), (*version).into());
                    put_secret(&mut fields, "state", bytes, secrets);
                }
                fields
            }
            Self::Message(_, notice) => notice::put(&notice.raw(), secrets),
            Self::Retained(retained) => retained::put(&retained.raw(), secrets),
            Self::Deliver(deliver) => deliver_json(&deliver.raw(), secrets),
            Self::Config(config) => config_json(config, secrets),
        };
        Value::Object(fields)
    }

    /// Reads what was recorded.
    pub(super) fn read(callback: Callback, connection: u64, input: &Fields) -> Result<Self, Unreadable> {
        match callback {
            Callback::Connect => read_connect(connection, input),
            Callback::Auth => read_auth(input),
            Callback::Publish => publish::with(input, |raw| raw.copy()),
            Callback::Subscribe => {
                let items = array(input, "subscriptions")?.iter().map(|item| {
                    let fields = item.as_object().ok_or("a subscription is no object")?;
                    subscription::with(fields, |raw| raw.into())
                });
                Ok(Self::Subscribe(items.collect::<Result<_, _>>()?, properties(input)?.into()))
            }
            Callback::Unsubscribe => {
                let filters = array(input, "filters")?.iter().map(|filter| Some(filter.as_str()?.into()));
                let filters = filters.collect::<Option<_>>().ok_or("a filter is no text")?;
                Ok(Self::Unsubscribe(filters, properties(input)?.into()))
            }
            Callback::Puback => Ok(Self::Puback {
                packet_id: number(input, "packet_id")?,
                kind: number(input, "kind")?,
                reason_code: number(input, "reason_code")?,
                token: number(input, "token")?,
            }),
            Callback::Info => info::with(input, |raw| raw.copy()),
            Callback::Event => info::with(input, |raw| Self::Event(OwnedMessageForInfo::from(raw))),
            Callback::Disconnect => disconnect::with(input, |raw| raw.copy()),
            Callback::Connected => connected::with(input, |raw| raw.copy()),
            Callback::SessionExpired => {
                let state = bytes(input, "state")?;
                let is_whole =
                    has_bytes(input, "state") && !json::has_redacted(required(input, "state").unwrap_or(&Value::Null));
                let version = number(input, "state_version")?;
                let raw = RawState { bytes: state.as_slice().into(), version, extension: NO_EXTENSION };
                Ok(Self::session_expired(text(input, "client_id")?, is_whole.then_some(&raw)))
            }
            Callback::Dropped | Callback::Acknowledged | Callback::Expired => {
                notice::with(input, |raw| Self::Message(callback, Box::new(raw.into())))
            }
            Callback::Retained => retained::with(input, |raw| Self::Retained(raw.into())),
            Callback::Deliver => read_deliver(input),
            Callback::Config => Ok(Self::Config(String::from_utf8_lossy(&bytes(input, "config")?).into())),
            _ => Err(format!("{} is not recorded", callback.name())),
        }
    }

    /// What it is about, for people: a topic, a filter, a name.
    pub(super) fn subject(input: &Value) -> String {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let list = |key: &str, of: fn(&Value) -> &Value| {
            let items = input[key].as_array()?;
            Some(items.iter().filter_map(|item| of(item).as_str()).collect::<Vec<_>>().join(", "))
        };
        let filter: fn(&Value) -> &Value = |item| &item["filter"];
        text(&input["topic"])
            .or_else(|| list("subscriptions", filter))
            .or_else(|| list("filters", |item| item))
            .or_else(|| text(&input["method"]))
            .or_else(|| text(&input["username"]))
            .or_else(|| text(&input["kind"]))
            .unwrap_or_default()
    }
}

fn put_secret(fields: &mut Fields, key: &str, bytes: &[u8], secrets: bool) {
    if secrets {
        put_bytes(fields, key, bytes);
    } else {
        fields.insert(key.to_owned(), redacted(bytes.len()));
    }
}

/// A configuration, as its key in an object: there may be passwords in it, and keys.
pub(super) fn config_json(config: &str, secrets: bool) -> Fields {
    let mut fields = Fields::new();
    put_secret(&mut fields, "config", config.as_bytes(), secrets || config == "{}");
    fields
}

fn with_list(key: &str, list: Vec<Value>, properties: &[u8], secrets: bool) -> Fields {
    let mut fields = Fields::new();
    fields.insert(key.to_owned(), list.into());
    put_properties(&mut fields, properties, secrets);
    fields
}

fn connect_json(raw: &RawConnect<'_>, secrets: bool) -> Fields {
    let mut fields = Fields::new();
    let is = |bit| raw.flags & bit != 0;
    let mut put = |key: &str, value: Value| _ = fields.insert(key.to_owned(), value);
    put("client_id", raw.client_id.as_str().into());
    put("version", raw.protocol_version.into());
    put("keep_alive", raw.keep_alive.into());
    put("clean_start", is(RawConnect::CLEAN_START).into());
    put("assigned", is(RawConnect::CLIENT_ID_ASSIGNED).into());
    if is(RawConnect::HAS_USERNAME) {
        put("username", raw.username.as_str().into());
    }
    if is(RawConnect::HAS_PASSWORD) {
        put_secret(&mut fields, "password", &raw.password, secrets);
    }
    if let Some(will) = raw.will {
        fields.insert("will".to_owned(), publish::put(will, secrets).into());
    }
    put_peer(&mut fields, raw.peer.into(), raw.listener.as_str(), Transport::of(raw), secrets);
    put_properties(&mut fields, &raw.properties, secrets);
    fields
}

fn read_connect(connection: u64, input: &Fields) -> Result<Request, Unreadable> {
    let (peer, password, properties) = (Peer::read(input)?, bytes(input, "password")?, properties(input)?);
    let flags = [
        (input.contains_key("username"), RawConnect::HAS_USERNAME),
        (has_bytes(input, "password"), RawConnect::HAS_PASSWORD),
        (flag(input, "clean_start")?, RawConnect::CLEAN_START),
        (flag(input, "assigned")?, RawConnect::CLIENT_ID_ASSIGNED),
    ];
    let flags = flags.iter().filter(|(is, _)| *is).fold(0, |flags, (_, bit)| flags | bit);
    let (client_id, username) = (text(input, "client_id")?, text(input, "username")?);
    let (keep_alive, protocol_version) = (number(input, "keep_alive")?, number(input, "version")?);
    let copy = |will: Option<&RawPublish<'_>>| {
        peer.with(connection, |info| {
            RawConnect {
                client_id: client_id.into(),
                username: username.into(),
                password: password.as_slice().into(),
                properties: properties.as_slice().into(),
                will,
                listener: info.listener.into(),
                connection,
                peer: info.peer.into(),
                keep_alive,
                protocol_version,
                flags,
                extension: info.transport.extension(),
            }
            .copy()
        })
    };
    match json::object(input, "will")? {
        Some(will) => publish::with(will, |will| copy(Some(will))),
        None => Ok(copy(None)),
    }
}

fn auth_json(raw: &RawAuth<'_>, secrets: bool) -> Fields {
    let mut fields = Fields::new();
    fields.insert("method".to_owned(), raw.method.as_str().into());
    fields.insert("step".to_owned(), raw.step.into());
    if raw.flags & RawAuth::HAS_DATA != 0 {
        put_secret(&mut fields, "data", &raw.data, secrets);
    }
    put_properties(&mut fields, &raw.properties, secrets);
    fields
}

fn read_auth(input: &Fields) -> Result<Request, Unreadable> {
    let (data, properties) = (bytes(input, "data")?, properties(input)?);
    let raw = RawAuth {
        method: text(input, "method")?.into(),
        data: data.as_slice().into(),
        properties: properties.as_slice().into(),
        step: number(input, "step")?,
        flags: if has_bytes(input, "data") { RawAuth::HAS_DATA } else { 0 },
        extension: NO_EXTENSION,
    };
    Ok(raw.copy())
}

fn deliver_json(raw: &RawDeliver<'_>, secrets: bool) -> Fields {
    let mut fields = Fields::new();
    let mut put = |key: &str, value: Value| _ = fields.insert(key.to_owned(), value);
    put("topic", raw.topic.as_str().into());
    put("client_id", raw.client_id.as_str().into());
    put("qos", raw.qos.into());
    put("origin", raw.origin.into());
    put("cause", raw.cause.into());
    put("retain", (raw.flags & RawDeliver::RETAIN != 0).into());
    put("shared", (raw.flags & RawDeliver::SHARED != 0).into());
    put("token", raw.token.into());
    put("publisher", raw.plugin.as_str().into());
    put("identifiers", raw.identifiers.iter().copied().collect());
    put_bytes(&mut fields, "payload", &raw.payload);
    put_properties(&mut fields, &raw.properties, secrets);
    fields
}

fn read_deliver(input: &Fields) -> Result<Request, Unreadable> {
    let (payload, properties) = (bytes(input, "payload")?, properties(input)?);
    let identifier = |number: &Value| number.as_u64().and_then(|number| u32::try_from(number).ok());
    let identifiers: Option<Vec<u32>> = array(input, "identifiers")?.iter().map(identifier).collect();
    let identifiers = identifiers.ok_or("\"identifiers\" are not numbers")?;
    let flags = [(flag(input, "retain")?, RawDeliver::RETAIN), (flag(input, "shared")?, RawDeliver::SHARED)];
    let raw = RawDeliver {
        topic: text(input, "topic")?.into(),
        payload: payload.as_slice().into(),
        properties: properties.as_slice().into(),
        client_id: text(input, "client_id")?.into(),
        plugin: text(input, "publisher")?.into(),
        identifiers: identifiers.as_slice().into(),
        token: number(input, "token")?,
        qos: number(input, "qos")?,
        flags: flags.iter().filter(|(is, _)| *is).fold(0, |flags, (_, bit)| flags | bit),
        origin: number(input, "origin")?,
        cause: number(input, "cause")?,
        extension: NO_EXTENSION,
    };
    Ok(raw.copy())
}

#[cfg(test)]
mod tests {
    use plugin_api::{PropertiesBuf, Property};

    use super::*;

    /// One of each, with everything that it may have.
    fn all() -> Vec<(Callback, Value)> {
        let properties = json!({
            "content_type": "text/plain", "message_expiry_interval": 60, "user_properties": [["a", "b"], ["a", "c"]],
            "correlation_data_base64": "/w==", "payload_format_indicator": 1,
        });
        let message = json!({
            "topic": "a/b", "payload_base64": "/wA=", "qos": 2, "packet_id": 7, "retain": true, "dup": true,
            "properties": properties,
        });
        let transport = json!({
            "kind": "wss", "path": "/mqtt", "query": "token=secret?&x", "proxy": "10.0.0.1:9",
            "unix": {"uid": 1, "gid": 2, "pid": 3},
            "headers": [
                {"name": "Cookie", "value": "secret"}, {"name": "User-Agent", "value_base64": "/w=="},
                {"name": "X-Of-The-Proxy", "value": "secret"}, {"name": "Sec-WebSocket-Protocol", "value": "mqtt, secret"},
                {"name": "sec-websocket-protocol", "value": "mqtt, mqttv3.1"},
            ],
            "tls": {
                "version": "TLSv1.3", "cipher_suite": "x", "server_name": "b.example", "alpn": "mqtt",
                "certificate": {
                    "subject": "CN=a", "common_name": "a", "sha256": "00".repeat(32), "serial": "0a", "not_after": 5,
                    "alternative_names": [{"kind": 1, "name": "a.example"}],
                },
            },
        });
        let notice = json!({
            "client_id": "c", "topic": "t", "payload": "p", "token": 9, "packet_id": 1, "qos": 1, "reason": 2,
            "reason_code": 135, "retain": true, "properties": properties,
        });
        vec![
            (
                Callback::Connect,
                json!({
                    "client_id": "c", "version": 5, "keep_alive": 60, "clean_start": true, "assigned": true, "username": "u",
                    "password": "secret", "will": message, "peer": "[::1]:5", "listener": "l", "transport": transport,
                    "properties": {"authentication_method": "M", "authentication_data": "secret", "receive_maximum": 9},
                }),
            ),
            (Callback::Auth, json!({"method": "M", "step": 1, "data": "secret"})),
            (Callback::Publish, message.clone()),
            (
                Callback::Subscribe,
                json!({
                    "subscriptions": [
                        {"filter": "a/#", "qos": 1, "reason_code": 1, "no_local": true},
                        {"filter": "b", "share_name": "s", "shared": true, "retain_handling": 2, "retain_as_published": true},
                    ],
                    "properties": {"subscription_identifiers": [3]},
                }),
            ),
            (Callback::Unsubscribe, json!({"filters": ["a", "$share/s/b"]})),
            (Callback::Puback, json!({"packet_id": 1, "kind": 2, "reason_code": 3, "token": 4})),
            (Callback::Info, json!({"kind": "k", "data": "d", "connection": 4, "timer": 5, "sender": 1})),
            (Callback::Event, json!({"kind": "k"})),
            (Callback::Config, json!({"config": "{\"token\": \"secret\"}"})),
            (Callback::Disconnect, json!({"text": "t", "kind": 2, "reason_code": 4})),
            (
                Callback::Connected,
                json!({
                    "client_id": "c", "connection": 1, "session_expiry": 7, "keep_alive": 8, "session_present": true,
                }),
            ),
            (Callback::SessionExpired, json!({"client_id": "c", "state_version": 2, "state": "secret"})),
            (Callback::Dropped, notice.clone()),
            (Callback::Acknowledged, notice),
            (Callback::Retained, json!({"topic": "t", "payload": "p", "qos": 1, "change": 1})),
            (
                Callback::Deliver,
                json!({
                    "topic": "t", "payload": "p", "client_id": "c", "publisher": "", "identifiers": [1, 2], "token": 0,
                    "qos": 1, "origin": 3, "cause": 2, "retain": true, "shared": true, "properties": properties,
                }),
            ),
        ]
    }

    #[test]
    fn what_was_recorded_is_read_as_it_was() {
        for (callback, input) in all() {
            let request = Request::read(callback, 1, input.as_object().expect("an object")).expect("it can be read");
            assert_eq!((request.callback(), request.to_json(true)), (callback, input));
        }
    }

    #[test]
    fn secrets_are_left_out_and_nothing_else() {
        for (callback, input) in all() {
            let request = Request::read(callback, 1, input.as_object().expect("an object")).expect("it can be read");
            let recorded = request.to_json(false);
            assert!(!recorded.to_string().contains("secret"), "{recorded}");
            assert!(json::are_equal(&recorded, &input), "{recorded}");
            assert_eq!(json::has_redacted(&recorded), input.to_string().contains("secret"));
            // What is left out is missing then, and the rest is there.
            let read = Request::read(callback, 1, recorded.as_object().expect("an object")).expect("it can be read");
            assert_eq!(read.callback(), callback);
        }
    }

    #[test]
    fn what_is_no_input_of_a_callback_is_told() {
        for (callback, input, expected) in [
            (Callback::Publish, json!({"topic": 1}), "\"topic\" is 1, expected a text"),
            (Callback::Publish, json!({"qos": 256}), "\"qos\" is 256, expected a number in its range"),
            (Callback::Publish, json!({"payload_base64": "!!!!"}), "\"payload_base64\": invalid symbol"),
            (Callback::Publish, json!({"properties": {"x": 1}}), "there is no property \"x\""),
            (Callback::Publish, json!({"properties": {"content_type": 1}}), "\"content_type\" is 1, expected a text"),
            (Callback::Connect, json!({"peer": "x"}), "\"peer\" is \"x\", expected an address and a port"),
            (Callback::Stop, json!({}), "stop is not recorded"),
        ] {
            let error = Request::read(callback, 1, input.as_object().expect("an object")).err().expect(expected);
            assert!(error.contains(expected), "{error}");
        }
    }

    /// The specification's order of properties does not matter, so that theirs need not be kept.
    #[test]
    fn each_property_is_kept() {
        let properties = [
            Property::SessionExpiryInterval(1),
            Property::ServerKeepAlive(2),
            Property::RequestProblemInformation(1),
            Property::WillDelayInterval(3),
            Property::ResponseTopic("r"),
            Property::ReasonString("why"),
            Property::MaximumPacketSize(9),
            Property::TopicAlias(4),
        ];
        let list = properties.into_iter().fold(PropertiesBuf::new(), PropertiesBuf::with);
        let mut fields = Fields::new();
        put_properties(&mut fields, list.as_bytes(), true);
        let read = super::properties(&fields).expect("they can be read");
        let read = plugin_api::Properties::parse(&read).expect("properties");
        assert_eq!(read.iter().count(), properties.len());
        assert!(properties.iter().all(|property| read.iter().any(|read| read == *property)), "{read:?}");
    }
}
