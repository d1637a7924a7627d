//! The client for 3.1.1.

use rumqttc::{Client, Connection, LastWill, MqttOptions, Outgoing, Packet, QoS, SubscribeReasonCode};

use super::{Event, Message, Options, Request, Server};
use crate::clients::PATIENCE;

pub(super) struct Wire(Client, Connection);

fn qos(number: u8) -> QoS {
    rumqttc::qos(number).expect("0, 1 or 2")
}

impl super::Wire for Wire {
    fn open(server: Server<'_>, client_id: String, options: Options<'_>) -> Self {
        let mut mqtt = MqttOptions::new(client_id, Server::NAME, server.port);
        mqtt.set_transport(server.transport());
        mqtt.set_clean_session(!options.persistent).set_max_packet_size(2 << 20, 2 << 20);
        if let Some((topic, payload, number)) = options.will {
            mqtt.set_last_will(LastWill::new(topic, payload, qos(number), false));
        }
        let (client, connection) = Client::new(mqtt, 10);
        Self(client, connection)
    }

    fn request(&mut self, request: Request<'_>) {
        let Self(client, _) = self;
        let done = match request {
            Request::Subscribe(filter, number) => client.subscribe(filter, qos(number)),
            Request::Unsubscribe(filter) => client.unsubscribe(filter),
            Request::Publish(Message { topic, payload, qos: number, retain, .. }) => {
                client.publish(topic, qos(*number), *retain, payload.as_slice())
            }
            Request::Disconnect => client.disconnect(),
        };
        done.expect("the client takes it");
    }

    fn event(&mut self) -> Option<Event> {
        let event = self.1.recv_timeout(PATIENCE).expect("an event in time").expect("the connection lasts");
        Some(match event {
            rumqttc::Event::Incoming(Packet::ConnAck(connack)) => {
                Event::Connected { session_present: connack.session_present }
            }
            rumqttc::Event::Incoming(Packet::SubAck(suback)) => match suback.return_codes[..] {
                [SubscribeReasonCode::Success(granted)] => Event::Subscribed { qos: granted as u8 },
                ref other => panic!("{other:?}"),
            },
            rumqttc::Event::Incoming(Packet::UnsubAck(_)) => Event::Unsubscribed,
            rumqttc::Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => Event::Acknowledged,
            rumqttc::Event::Incoming(Packet::Publish(publish)) => Event::Message(Message {
                topic: publish.topic,
                payload: publish.payload.to_vec(),
                qos: publish.qos as u8,
                retain: publish.retain,
                properties: None,
            }),
            rumqttc::Event::Outgoing(Outgoing::Publish(0)) => Event::Sent,
            rumqttc::Event::Outgoing(Outgoing::Disconnect) => Event::Disconnected,
            _ => return None,
        })
    }
}
