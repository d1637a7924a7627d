//! Handlers that are linked in: what they answer is in their configuration.

use std::cell::RefCell;
use std::collections::HashMap;

use super::*;
thread_local! {
    /// What the handlers of this test were asked, in order.
    pub(super) static ASKED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

thread_local! {
    /// What a handler with `init:keep-host` got, for use outside of a callback.
    pub(super) static HOST: RefCell<Option<Host>> = const { RefCell::new(None) };
}

pub(super) fn asked() -> Vec<String> {
    ASKED.take()
}

/// A handler that answers what its configuration says, such as `{"name": "a", "publish": "reject 87"}`.
pub(super) struct Scripted {
    host: Host,
    script: HashMap<String, String>,
}

pub(super) struct State<'a>(&'a str);

impl Drop for State<'_> {
    fn drop(&mut self) {
        if self.0 == "drop panics" {
            panic!("dropped");
        }
    }
}

impl Scripted {
    /// Notes the question; returns the words of the answer.
    fn answer(&self, callback: &str, what: impl std::fmt::Display) -> Vec<&str> {
        let name = self.script.get("name").map_or("", String::as_str);
        ASKED.with_borrow_mut(|asked| asked.push(format!("{name} {what}")));
        let words: Vec<&str> = self.script.get(callback).map_or("", String::as_str).split(' ').collect();
        match words[0] {
            "panic" => panic!("as asked"),
            "caught" => drop(std::panic::catch_unwind(|| panic!("caught"))),
            _ => {}
        }
        words
    }
}

pub(super) fn code(word: &str) -> ReasonCode {
    ReasonCode(u8::from_str_radix(word, 16).expect("a reason code"))
}

#[handler]
impl Handler for Scripted {
    type Connection = State<'static>;

    fn init(host: Host, config: &str) -> Result<Self, Error> {
        let script: HashMap<String, String> = serde_json::from_str::<serde_json::Value>(config)?
            .as_object()
            .ok_or("expected an object")?
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect();
        match script.get("init").map(String::as_str) {
            Some("panic") => panic!("no start"),
            Some("refuse") => Err("not today".into()),
            Some("keep-host") => {
                HOST.set(Some(host.clone()));
                Ok(Self { host, script })
            }
            _ => Ok(Self { host, script }),
        }
    }

    fn new_connection(&self, _: &plugin_api::ConnectionInfo<'_>) -> State<'static> {
        if self.answer("new", "new")[0] == "drop" { State("drop panics") } else { State("") }
    }

    fn handle_connect(&self, _: &mut State<'_>, connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        later::answer(
            &self.host,
            || {
                Ok(match self.answer("connect", connect.client_id())[..] {
                    ["accept", id] => ConnectVerdict::Accept(
                        Accept::new().client_id(id).user_property("by", id).property(Property::ReasonString(id)),
                    ),
                    ["alias"] => ConnectVerdict::Accept(Accept::new().property(Property::TopicAliasMaximum(1))),
                    ["keep", secs] => ConnectVerdict::Accept(Accept::new().keep_alive_secs(secs.parse()?)),
                    ["reject", number] => ConnectVerdict::reject(code(number)),
                    ["error"] => return Err("some error".into()),
                    _ => ConnectVerdict::accept(),
                })
            },
            ConnectVerdict::Later,
        )
    }

    fn handle_auth(&self, _: &mut State<'_>, auth: &Auth<'_>) -> Result<AuthVerdict, Error> {
        later::answer(
            &self.host,
            || {
                Ok(match self.answer("auth", format_args!("{:?}", auth.step()))[..] {
                    ["continue"] => AuthVerdict::Continue(b"more".to_vec()),
                    ["ok"] => AuthVerdict::OkWith(b"done".to_vec()),
                    ["reject", number] => AuthVerdict::error(code(number)),
                    ["error"] => return Err("some error".into()),
                    _ => AuthVerdict::error(ReasonCode::BAD_AUTHENTICATION_METHOD),
                })
            },
            AuthVerdict::Later,
        )
    }

    fn handle_publish(&self, _: &mut State<'_>, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        let again = if publish.again() { " again" } else { "" };
        later::answer(
            &self.host,
            || {
                Ok(match self.answer("publish", format_args!("{}{again}", publish.topic()))[..] {
                    ["topic", topic] => PublishVerdict::ForwardChanged(Message::from(publish).topic(topic)),
                    ["large"] => PublishVerdict::ForwardChanged(Message::from(publish).payload(vec![0; 1000])),
                    ["payload", text] => PublishVerdict::ForwardChanged(Message::from(publish).payload(text)),
                    ["alias"] => {
                        PublishVerdict::ForwardChanged(Message::from(publish).property(Property::TopicAlias(1)))
                    }
                    ["handled"] => PublishVerdict::Handled,
                    ["reject-again", number] if publish.again() => PublishVerdict::reject(code(number)),
                    ["reject", number] => PublishVerdict::reject(code(number)),
                    ["why", text] => PublishVerdict::Reject(Reject::new(code("97")).reason_string(text)),
                    ["disconnect", number] => PublishVerdict::disconnect(code(number)),
                    ["error"] => return Err("some error".into()),
                    ["ask-host"] => {
                        self.host.publish(&Message::new("from/plugin", "x"))?;
                        self.host.send_info(InfoTarget::Connection(ConnectionId(7)), "k", b"d", None)?;
                        // DISCONNECT cannot have it.
                        self.host
                            .disconnect(ConnectionId(7), Disconnect::new(ReasonCode::BAD_USER_NAME_OR_PASSWORD))?;
                        PublishVerdict::Forward
                    }
                    _ => PublishVerdict::Forward,
                })
            },
            PublishVerdict::Later,
        )
    }

    fn handle_subscribe(&self, _: &mut State<'_>, subscribe: &Subscribe<'_>) -> Result<SubscribeVerdict, Error> {
        let seen: Vec<String> =
            subscribe.subscriptions().map(|item| format!("{}={:02x}", item.filter(), item.reason_code().0)).collect();
        later::answer(
            &self.host,
            || {
                Ok(match self.answer("subscribe", seen.join(","))[..] {
                    ["codes", codes] => SubscribeVerdict::Codes(codes.split(',').map(code).collect()),
                    ["disconnect", number] => SubscribeVerdict::Disconnect(Disconnect::new(code(number))),
                    ["error"] => return Err("some error".into()),
                    _ => SubscribeVerdict::Grant,
                })
            },
            SubscribeVerdict::Later,
        )
    }

    fn handle_unsubscribe(
        &self,
        _: &mut State<'_>,
        unsubscribe: &Unsubscribe<'_>,
    ) -> Result<UnsubscribeVerdict, Error> {
        let filters: Vec<&str> = unsubscribe.filters().collect();
        later::answer(
            &self.host,
            || {
                Ok(match self.answer("unsubscribe", filters.join(","))[..] {
                    ["codes", codes] => UnsubscribeVerdict::Codes(codes.split(',').map(code).collect()),
                    ["disconnect", number] => UnsubscribeVerdict::Disconnect(Disconnect::new(code(number))),
                    ["error"] => return Err("some error".into()),
                    _ => UnsubscribeVerdict::Allow,
                })
            },
            UnsubscribeVerdict::Later,
        )
    }

    fn handle_puback(&self, _: &mut State<'_>, ack: &Ack<'_>) {
        self.answer("puback", ack.packet_id());
    }

    fn handle_info(&self, _: &mut State<'_>, info: &Info<'_>) -> Result<Vec<plugin_api::InfoAction>, Error> {
        use plugin_api::InfoAction as Action;
        later::answer(
            &self.host,
            || {
                Ok(match self.answer("info", info.kind())[..] {
                    ["all"] => vec![
                        Action::Publish(Message::new("to/you", "hi").qos(QoS::AtLeastOnce)),
                        Action::Disconnect(Disconnect::new(ReasonCode::ADMINISTRATIVE_ACTION)),
                        Action::Stop("enough".into()),
                    ],
                    ["bad"] => vec![Action::Publish(Message::new("to/+", "hi"))],
                    ["large"] => vec![Action::Publish(Message::new("to/you", vec![0; 1000]))],
                    ["disconnect", number] => vec![Action::Disconnect(Disconnect::new(code(number)))],
                    ["error"] => return Err("some error".into()),
                    _ => vec![],
                })
            },
            |later| vec![Action::Later(later)],
        )
    }

    fn handle_disconnect(&self, _: &mut State<'_>, reason: &plugin_api::DisconnectReason<'_>) {
        self.answer("disconnect", format_args!("{:?} {}", reason.kind(), reason.text()));
    }

    fn handle_deliver(&self, _: &mut State<'_>, deliver: &Deliver<'_>) -> Result<DeliverVerdict, Error> {
        let payload = String::from_utf8_lossy(deliver.payload());
        Ok(match self.answer("deliver", format_args!("{} {payload}", deliver.topic()))[..] {
            ["payload", text] => DeliverVerdict::SendChanged(Message::from(deliver).payload(text)),
            ["qos"] => DeliverVerdict::SendChanged(Message::from(deliver).qos(QoS::ExactlyOnce)),
            ["topic", topic] => DeliverVerdict::SendChanged(Message::from(deliver).topic(topic)),
            ["drop"] => DeliverVerdict::Drop,
            ["error"] => return Err("some error".into()),
            _ => DeliverVerdict::Send,
        })
    }

    fn handle_connected(&self, _: &mut State<'_>, connected: &plugin_api::Connected<'_>) {
        self.answer("connected", connected.client_id());
    }

    fn handle_message_dropped(&self, message: &plugin_api::MessageNotice<'_>) {
        self.answer("dropped", format_args!("{} {:?}", message.topic(), message.token()));
    }

    fn handle_message_acknowledged(&self, message: &plugin_api::MessageNotice<'_>) {
        self.answer("acknowledged", format_args!("{} {}", message.topic(), message.reason_code().0));
    }

    fn handle_message_expired(&self, message: &plugin_api::MessageNotice<'_>) {
        self.answer("expired", message.topic());
    }

    fn handle_retained(&self, retained: &plugin_api::Retained<'_>) {
        self.answer("retained", format_args!("{} {:?}", retained.topic(), retained.change()));
    }

    fn handle_session_expired(&self, client_id: &str, _: Option<plugin_api::StateView<'_>>) {
        self.answer("session_expired", client_id);
    }

    fn stop(&self) {
        self.answer("stop", "stop");
    }
}

/// A handler without an opinion on anything.
pub(super) struct Silent;

#[handler]
impl Handler for Silent {
    type Connection = ();

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, _: &plugin_api::ConnectionInfo<'_>) {}
}
