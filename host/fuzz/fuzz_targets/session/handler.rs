//! A handler that does what topics, filters and names say: an input makes it answer in every way there is.
//!
//! It has no state, so that one instance for each number of workers serves all inputs.

use std::time::Duration;

use host::clock::Clock;
use host::core::mailbox::Mailboxes;
use host::plugin::{Chain, Plugin, Services};
use plugin_api::{
    Accept, Ack, Auth, AuthStep, AuthVerdict, Connect, ConnectVerdict, ConnectionId, ConnectionInfo, Disconnect,
    DisconnectReason, Error, Handler, Host, Info, InfoAction, InfoSender, InfoTarget, Message, Property, Publish,
    PublishVerdict, QoS, ReasonCode, Subscribe, SubscribeVerdict, Unsubscribe, UnsubscribeVerdict, handler,
};

/// A chain with the one plugin, whose requests go to these mailboxes.
pub(crate) fn chain(mailboxes: &Mailboxes) -> Chain {
    let services = Services::new(mailboxes.clone(), Clock::start(), 1 << 20);
    let plugin =
        Plugin::from_static::<Puppet>("puppet", "1.0.0", "{}", &services).expect("it accepts any configuration");
    Chain::new(vec![plugin]).expect("one plugin")
}

struct Puppet {
    host: Host,
}

#[handler]
impl Handler for Puppet {
    type Connection = ConnectionId;

    fn init(host: Host, _config: &str) -> Result<Self, Error> {
        Ok(Self { host })
    }

    fn new_connection(&self, info: &ConnectionInfo<'_>) -> ConnectionId {
        info.connection()
    }

    fn handle_connect(&self, _: &mut ConnectionId, connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        let accept = Accept::new();
        Ok(ConnectVerdict::Accept(match connect.username() {
            Some("no") => return Ok(ConnectVerdict::reject(ReasonCode::BANNED)),
            Some("") => return Err("an empty name".into()),
            Some("rename") => accept.client_id("b"),
            Some("expire") => accept.session_expiry_secs(5).keep_alive_secs(3),
            Some("props") => accept.user_property("k", "v").property(Property::ResponseInformation("answers/")),
            _ => accept,
        }))
    }

    fn handle_auth(&self, _: &mut ConnectionId, auth: &Auth<'_>) -> Result<AuthVerdict, Error> {
        Ok(match (auth.method(), auth.step(), auth.data()) {
            ("X", ..) => AuthVerdict::error(ReasonCode::BAD_AUTHENTICATION_METHOD),
            (_, _, Some(b"evil")) => AuthVerdict::error(ReasonCode::NOT_AUTHORIZED),
            (_, _, Some(b"fine")) => AuthVerdict::OkWith(b"welcome".to_vec()),
            (_, AuthStep::Continue, None) => AuthVerdict::Ok,
            _ => AuthVerdict::Continue(b"who?".to_vec()),
        })
    }

    fn handle_publish(&self, own: &mut ConnectionId, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        // What is not taken is no more than a request that was refused.
        let _ = match publish.levels().next() {
            Some("reject") => return Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED)),
            Some("handled") => return Ok(PublishVerdict::Handled),
            Some("disconnect") => return Ok(PublishVerdict::disconnect(ReasonCode::QUOTA_EXCEEDED)),
            Some("error") => return Err("an error".into()),
            Some("change") => {
                let changed =
                    Message::from(publish).topic("b/a").qos(QoS::ExactlyOnce).property(Property::TopicAlias(9));
                return Ok(PublishVerdict::ForwardChanged(changed));
            }
            Some("publish") => self.host.publish(&Message::new("a/b", "from a plugin").qos(QoS::AtLeastOnce)),
            Some("retain") => {
                let message = Message::new("a/b", publish.payload()).retain(true).qos(QoS::ExactlyOnce);
                self.host.publish(&message.property(Property::MessageExpiryInterval(20)))
            }
            Some("info") => self.host.send_info(InfoTarget::All, "publish", b"to all", None).map(drop),
            Some("later") => {
                let delay = Some(Duration::from_secs(3));
                let _ = self.host.send_info(InfoTarget::Client("a"), "disconnect", b"", delay);
                self.host.send_info(InfoTarget::Connection(*own), "stop", b"", delay).map(drop)
            }
            Some("kick") => self.host.disconnect(*own, Disconnect::new(ReasonCode::ADMINISTRATIVE_ACTION)),
            _ => Ok(()),
        };
        Ok(PublishVerdict::Forward)
    }

    fn handle_subscribe(&self, _: &mut ConnectionId, subscribe: &Subscribe<'_>) -> Result<SubscribeVerdict, Error> {
        let mut codes = Vec::new();
        for one in subscribe.subscriptions() {
            codes.push(match one.filter() {
                "quit/a" => return Ok(SubscribeVerdict::Disconnect(Disconnect::new(ReasonCode::NOT_AUTHORIZED))),
                "deny/a" => ReasonCode::NOT_AUTHORIZED,
                "lower/#" => ReasonCode(0),
                _ => one.reason_code(),
            });
        }
        Ok(SubscribeVerdict::Codes(codes))
    }

    fn handle_unsubscribe(
        &self,
        _: &mut ConnectionId,
        unsubscribe: &Unsubscribe<'_>,
    ) -> Result<UnsubscribeVerdict, Error> {
        let denied = |filter| if filter == "+/a" { ReasonCode::NOT_AUTHORIZED } else { ReasonCode::SUCCESS };
        Ok(UnsubscribeVerdict::Codes(unsubscribe.filters().map(denied).collect()))
    }

    fn handle_puback(&self, own: &mut ConnectionId, ack: &Ack<'_>) {
        if ack.packet_id() % 8 == 7 {
            let _ = self.host.send_info(InfoTarget::Connection(*own), "publish", b"after an acknowledgement", None);
        }
    }

    fn handle_info(&self, own: &mut ConnectionId, info: &Info<'_>) -> Result<Vec<InfoAction>, Error> {
        let from_itself = matches!(info.sender(), InfoSender::Connection(sender) if sender == *own);
        let message =
            Message::new("for/you", info.data()).qos(if from_itself { QoS::AtMostOnce } else { QoS::AtLeastOnce });
        Ok(vec![match info.kind() {
            "stop" => InfoAction::Stop("it was asked to".into()),
            "disconnect" => {
                InfoAction::Disconnect(Disconnect::new(ReasonCode::SERVER_MOVED).reason_string("elsewhere"))
            }
            _ => InfoAction::Publish(message),
        }])
    }

    fn handle_disconnect(&self, _: &mut ConnectionId, reason: &DisconnectReason<'_>) {
        let _ = reason.text();
    }
}
