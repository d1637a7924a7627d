//! The client for 5.0.

use std::collections::HashMap;

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, LastWill, Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::mqttbytes::{self, QoS};
use rumqttc::v5::{self, Client, Connection, MqttOptions};

use super::{Event, Message, Options, Request, Server};
use crate::clients::PATIENCE;

/// The client, and the topics of the aliases that the server has sent: rumqttc passes packets on as they came.
pub(super) struct Wire(Client, Connection, HashMap<u16, String>);

impl Wire {
    fn topic(&mut self, publish: &Publish) -> String {
        let written = String::from_utf8(publish.topic.to_vec()).expect("topics are UTF-8");
        match publish.properties.as_ref().and_then(|properties| properties.topic_alias) {
            Some(alias) if written.is_empty() => self.2[&alias].clone(),
            Some(alias) => {
                self.2.insert(alias, written.clone());
                written
            }
            None => written,
        }
    }
}

fn qos(number: u8) -> QoS {
    mqttbytes::qos(number).expect("0, 1 or 2")
}

impl super::Wire for Wire {
    fn open(server: Server<'_>, client_id: String, options: Options<'_>) -> Self {
        let mut mqtt = MqttOptions::new(client_id, Server::NAME, server.port);
        mqtt.set_transport(server.transport());
        mqtt.set_clean_start(!options.persistent).set_connect_properties(ConnectProperties {
            session_expiry_interval: options.persistent.then_some(100),
            max_packet_size: Some(2 << 20),
            topic_alias_max: Some(4),
            ..ConnectProperties::new()
        });
        if let Some((topic, payload, number)) = options.will {
            mqtt.set_last_will(LastWill::new(topic, payload, qos(number), false, None));
        }
        let (client, connection) = Client::new(mqtt, 10);
        Self(client, connection, HashMap::new())
    }

    fn request(&mut self, request: Request<'_>) {
        let Self(client, ..) = self;
        let done = match request {
            Request::Subscribe(filter, number) => client.subscribe(filter, qos(number)),
            Request::Unsubscribe(filter) => client.unsubscribe(filter),
            Request::Publish(Message { topic, payload, qos: number, retain, properties }) => {
                let (number, payload) = (qos(*number), payload.clone());
                match properties {
                    Some(properties) => {
                        client.publish_with_properties(topic, number, *retain, payload, properties.clone())
                    }
                    None => client.publish(topic, number, *retain, payload),
                }
            }
            Request::Disconnect => client.disconnect(),
        };
        done.expect("the client takes it");
    }

    fn event(&mut self) -> Option<Event> {
        let event = self.1.recv_timeout(PATIENCE).expect("an event in time").expect("the connection lasts");
        Some(match event {
            v5::Event::Incoming(Packet::ConnAck(connack)) => {
                Event::Connected { session_present: connack.session_present }
            }
            v5::Event::Incoming(Packet::SubAck(suback)) => match suback.return_codes[..] {
                [SubscribeReasonCode::Success(granted)] => Event::Subscribed { qos: granted as u8 },
                ref other => panic!("{other:?}"),
            },
            v5::Event::Incoming(Packet::UnsubAck(_)) => Event::Unsubscribed,
            v5::Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => Event::Acknowledged,
            v5::Event::Incoming(Packet::Publish(publish)) => Event::Message(Message {
                topic: self.topic(&publish),
                payload: publish.payload.to_vec(),
                qos: publish.qos as u8,
                retain: publish.retain,
                properties: publish.properties,
            }),
            v5::Event::Outgoing(Outgoing::Publish(0)) => Event::Sent,
            v5::Event::Outgoing(Outgoing::Disconnect) => Event::Disconnected,
            _ => return None,
        })
    }
}
