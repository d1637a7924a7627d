//! rumqttc: its client for 3.1.1 and its client for 5.0, which share no types. Here is what both do.

mod v3;
mod v5;

use std::collections::VecDeque;
use std::sync::Arc;

use rumqttc::v5::mqttbytes::v5::PublishProperties;
use rumqttc::{TlsConfiguration, Transport};
use rustls::ClientConfig;

use super::{Way, cases, with_hosts};

/// [MQTT-7.0.0-2@3.1.1]. Its WebSocket is a feature that is not built here.
#[test]
fn rumqttc_does_everything_at_every_version() {
    with_hosts(|host| {
        let tls = Arc::new(host.authority.client());
        for way in [Way::Tcp, Way::Tls] {
            let server = Server { port: host.addr(way).port(), tls: way.has_tls().then_some(&tls) };
            for version in [4, 5] {
                for case in cases(version) {
                    println!("rumqttc {way:?} {version} {case}");
                    if version == 5 { run::<v5::Wire>(server, case) } else { run::<v3::Wire>(server, case) }
                }
            }
        }
    });
}

/// Where clients connect to on this machine, and how.
#[derive(Debug, Clone, Copy)]
struct Server<'a> {
    port: u16,
    tls: Option<&'a Arc<ClientConfig>>,
}

impl Server<'_> {
    /// The name that its certificate is for.
    const NAME: &'static str = "localhost";

    fn transport(self) -> Transport {
        let tls = |config: &Arc<_>| Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(config)));
        self.tls.map_or_else(Transport::tcp, tls)
    }
}

/// How a client connects.
#[derive(Debug, Clone, Copy, Default)]
struct Options<'a> {
    persistent: bool,
    /// Topic, payload and QoS.
    will: Option<(&'a str, &'a str, u8)>,
}

/// A message, sent or received.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Message {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
    /// Only in 5.0.
    properties: Option<PublishProperties>,
}

enum Request<'a> {
    Subscribe(&'a str, u8),
    Unsubscribe(&'a str),
    Publish(&'a Message),
    Disconnect,
}

/// What a client reports.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Connected {
        session_present: bool,
    },
    Subscribed {
        qos: u8,
    },
    Unsubscribed,
    /// A PUBLISH with QoS 0 has been written.
    Sent,
    /// The whole exchange of QoS 1 or 2 is over.
    Acknowledged,
    Message(Message),
    /// DISCONNECT has been written.
    Disconnected,
}

/// One of the two clients.
trait Wire {
    fn open(server: Server<'_>, client_id: String, options: Options<'_>) -> Self;
    fn request(&mut self, request: Request<'_>);
    /// Works until something happens.
    fn event(&mut self) -> Option<Event>;
}

/// A client with what it has received. It works while something is waited for; dropping it closes the socket without
/// DISCONNECT.
struct Client<W> {
    wire: W,
    messages: VecDeque<Message>,
    session_present: bool,
}

impl<W: Wire> Client<W> {
    fn connect(server: Server<'_>, name: &str) -> Self {
        Self::connect_with(server, name, Options::default())
    }

    fn connect_with(server: Server<'_>, name: &str, options: Options<'_>) -> Self {
        let wire = W::open(server, format!("rumqttc-{name}"), options);
        let mut client = Self { wire, messages: VecDeque::new(), session_present: false };
        let Event::Connected { session_present } = client.event() else { panic!("CONNACK comes first") };
        client.session_present = session_present;
        client
    }

    /// The next event that is not a message.
    fn event(&mut self) -> Event {
        loop {
            match self.wire.event() {
                Some(Event::Message(message)) => self.messages.push_back(message),
                Some(event) => return event,
                None => {}
            }
        }
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        self.wire.request(Request::Subscribe(filter, qos));
        assert_eq!(self.event(), Event::Subscribed { qos });
    }

    fn unsubscribe(&mut self, filter: &str) {
        self.wire.request(Request::Unsubscribe(filter));
        assert_eq!(self.event(), Event::Unsubscribed);
    }

    fn publish(&mut self, topic: &str, payload: impl AsRef<[u8]>, qos: u8) {
        let payload = payload.as_ref().to_vec();
        self.publish_message(&Message { topic: topic.to_owned(), payload, qos, ..Message::default() });
    }

    fn publish_message(&mut self, message: &Message) {
        self.wire.request(Request::Publish(message));
        assert_eq!(self.event(), if message.qos == 0 { Event::Sent } else { Event::Acknowledged });
    }

    fn message(&mut self) -> Message {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return message;
            }
            match self.wire.event() {
                Some(Event::Message(message)) => return message,
                Some(event) => panic!("a message was expected: {event:?}"),
                None => {}
            }
        }
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.message().payload).expect("it was sent as text")
    }

    fn disconnect(mut self) {
        self.wire.request(Request::Disconnect);
        assert_eq!(self.event(), Event::Disconnected);
    }
}

fn run<W: Wire>(server: Server<'_>, case: &str) {
    match case {
        "qos_0" => qos::<W>(server, 0),
        "qos_1" => qos::<W>(server, 1),
        "qos_2" => qos::<W>(server, 2),
        "retain" => retain::<W>(server),
        "will" => will::<W>(server),
        "resume" => resume::<W>(server),
        "shared" => shared::<W>(server),
        "request_response" => request_response::<W>(server),
        "large" => large::<W>(server),
        "user_properties" => user_properties::<W>(server),
        "topic_alias" => topic_alias::<W>(server),
        _ => panic!("{case}"),
    }
}

fn qos<W: Wire>(server: Server<'_>, published: u8) {
    let (mut subscriber, mut publisher) = (Client::<W>::connect(server, "s"), Client::<W>::connect(server, "p"));
    for granted in 0..3 {
        subscriber.subscribe("rust/+", granted);
        for number in 0..20 {
            publisher.publish("rust/x", format!("{granted} {number}"), published);
        }
        for number in 0..20 {
            let message = subscriber.message();
            assert_eq!(message.payload, format!("{granted} {number}").as_bytes());
            assert_eq!((message.qos, message.retain), (granted.min(published), false));
        }
    }
    subscriber.unsubscribe("rust/+");
    subscriber.disconnect();
    publisher.disconnect();
}

fn retain<W: Wire>(server: Server<'_>) {
    let (mut subscriber, mut publisher) = (Client::<W>::connect(server, "s"), Client::<W>::connect(server, "p"));
    let mut retained = |qos, payload: &str| {
        let (topic, payload) = ("retain/x".to_owned(), payload.as_bytes().to_vec());
        publisher.publish_message(&Message { topic, payload, qos, retain: true, properties: None });
    };
    for qos in 0..3 {
        retained(qos, "old");
        retained(1, "new");
        subscriber.subscribe("retain/#", 2);
        let message = subscriber.message();
        assert_eq!((message.payload.as_slice(), message.retain), (&b"new"[..], true));
        subscriber.unsubscribe("retain/#");
    }
    retained(1, "");
    subscriber.subscribe("retain/#", 2);
    publisher.publish("retain/y", "live", 1);
    assert_eq!(subscriber.text(), "live");
}

fn will<W: Wire>(server: Server<'_>) {
    let mut observer = Client::<W>::connect(server, "observer");
    observer.subscribe("will/+", 2);
    for qos in 0..3 {
        let options = Options { will: Some(("will/x", "gone", qos)), ..Options::default() };
        drop(Client::<W>::connect_with(server, "mortal", options));
        let message = observer.message();
        assert_eq!((message.payload.as_slice(), message.qos), (&b"gone"[..], qos));
    }
    let options = Options { will: Some(("will/x", "not to be seen", 1)), ..Options::default() };
    Client::<W>::connect_with(server, "mortal", options).disconnect();
    observer.publish("will/end", "end", 1);
    assert_eq!(observer.text(), "end");
}

fn resume<W: Wire>(server: Server<'_>) {
    let options = Options { persistent: true, ..Options::default() };
    let mut keeper = Client::<W>::connect_with(server, "keeper", options);
    assert!(!keeper.session_present);
    keeper.subscribe("kept/+", 2);
    keeper.disconnect();
    let mut publisher = Client::<W>::connect(server, "p");
    for number in 0..200_u8 {
        publisher.publish("kept/x", [number], 1 + number % 2);
    }
    let mut keeper = Client::<W>::connect_with(server, "keeper", options);
    assert!(keeper.session_present);
    let got: Vec<u8> = (0..200).map(|_| keeper.message().payload[0]).collect();
    // Order is kept for each QoS.
    for parity in 0..2 {
        let half = |numbers: Vec<u8>| -> Vec<u8> { numbers.into_iter().filter(|n| n % 2 == parity).collect() };
        assert_eq!(half(got.clone()), half((0..200).collect()));
    }
    drop(keeper);
    Client::<W>::connect(server, "keeper").disconnect();
}

fn shared<W: Wire>(server: Server<'_>) {
    let mut members = ["first", "second"].map(|name| {
        let mut member = Client::<W>::connect(server, name);
        member.subscribe("$share/group/shared/+", 1);
        member.subscribe("end", 1);
        member
    });
    let mut publisher = Client::<W>::connect(server, "p");
    for number in 0..40 {
        publisher.publish("shared/x", number.to_string(), 1);
    }
    publisher.publish("end", "end", 1);
    let texts = members
        .iter_mut()
        .flat_map(|member| std::iter::from_fn(|| Some(member.text()).filter(|text| text != "end")).collect::<Vec<_>>());
    let mut numbers: Vec<u8> = texts.map(|text| text.parse().expect("a number")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
}

fn request_response<W: Wire>(server: Server<'_>) {
    let (mut responder, mut requester) = (Client::<W>::connect(server, "a"), Client::<W>::connect(server, "q"));
    responder.subscribe("request/+", 1);
    requester.subscribe("response/+", 1);
    for number in 0..5_u8 {
        let asked = PublishProperties {
            response_topic: Some("response/me".into()),
            correlation_data: Some(vec![0, number].into()),
            ..PublishProperties::default()
        };
        requester.publish_message(&Message {
            topic: "request/double".into(),
            payload: vec![number],
            qos: 1,
            properties: Some(asked.clone()),
            ..Message::default()
        });
        let request = responder.message();
        // A client of 3.1.1 has to know where to answer.
        let told = request.properties.unwrap_or_else(|| asked.clone());
        let correlation = PublishProperties { response_topic: None, ..told.clone() };
        responder.publish_message(&Message {
            topic: told.response_topic.expect("it was sent"),
            payload: vec![2 * request.payload[0]],
            qos: 1,
            properties: Some(correlation),
            ..Message::default()
        });
        let response = requester.message();
        assert_eq!(response.payload, [2 * number]);
        if let Some(properties) = response.properties {
            assert_eq!(properties.correlation_data, asked.correlation_data);
        }
    }
}

fn large<W: Wire>(server: Server<'_>) {
    let mut client = Client::<W>::connect(server, "large");
    client.subscribe("large", 2);
    let payload: Vec<u8> = (0..1 << 20).map(|number: u32| (number % 251) as u8).collect();
    for qos in 0..3 {
        client.publish("large", &payload, qos);
        assert!(client.message().payload == payload, "QoS {qos}");
    }
}

fn user_properties<W: Wire>(server: Server<'_>) {
    let mut client = Client::<W>::connect(server, "properties");
    client.subscribe("properties", 2);
    let pairs = [("b", "1"), ("a", "2"), ("b", "1"), ("", "")];
    let sent = PublishProperties {
        user_properties: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        content_type: Some("text/plain".into()),
        payload_format_indicator: Some(1),
        ..PublishProperties::default()
    };
    for qos in 0..3 {
        let (topic, properties) = ("properties".to_owned(), Some(sent.clone()));
        client.publish_message(&Message { topic, qos, properties: properties.clone(), ..Message::default() });
        let mut received = client.message().properties.expect("properties");
        received.topic_alias = None; // It belongs to the connection, and is the server's choice.
        assert_eq!(Some(received), properties);
    }
}

fn topic_alias<W: Wire>(server: Server<'_>) {
    let (mut subscriber, mut publisher) = (Client::<W>::connect(server, "s"), Client::<W>::connect(server, "p"));
    subscriber.subscribe("alias/#", 1);
    for topic in ["alias/one", "", "alias/two", ""] {
        let alias = PublishProperties { topic_alias: Some(1), ..PublishProperties::default() };
        let (topic, properties) = (topic.to_owned(), Some(alias));
        publisher.publish_message(&Message { topic, qos: 1, properties, ..Message::default() });
    }
    let topics = [(); 4].map(|()| subscriber.message().topic);
    assert_eq!(topics, ["alias/one", "alias/one", "alias/two", "alias/two"]);
    // The server's aliases: the client allows for some.
    for number in 0..40 {
        publisher.publish(&format!("alias/{}", number % 8), "x", 1);
    }
    for number in 0..40 {
        assert_eq!(subscriber.message().topic, format!("alias/{}", number % 8));
    }
}
