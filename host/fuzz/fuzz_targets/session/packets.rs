//! Well-formed packets with fields that an input chooses, from few enough values that they often meet.

use host::codec::{
    Ack, Auth, Connect, Disconnect, Packet, PacketId, ProtocolVersion, Publish, RetainHandling, Subscribe,
    SubscribeFilters, SubscribeOptions, Unsubscribe, UnsubscribeFilters, Will,
};
use plugin_api::{Properties, PropertiesBuf, Property, QoS, ReasonCode};

use crate::input::Input;

const VERSIONS: [ProtocolVersion; 4] =
    [ProtocolVersion::V5, ProtocolVersion::V3_1_1, ProtocolVersion::V3_1, ProtocolVersion::V5];

const CLIENT_IDS: [&str; 7] = ["a", "b", "c", "d", "", "e", "a Client Identifier that is long"];

/// The first word of some is an instruction for the handler.
const TOPICS: [&str; 22] = [
    "a",
    "a/b",
    "b",
    "",
    "a/b/c/d/e",
    "$x/a",
    "/",
    "a//b",
    "ü/b",
    "reject/a",
    "handled/a",
    "change/a",
    "disconnect/a",
    "publish/a",
    "info/a",
    "kick/a",
    "error/a",
    "later/a",
    "retain/a",
    "a topic that is rather long/and has another level",
    "b/a",
    "c",
];

const FILTERS: [&str; 20] = [
    "a",
    "#",
    "+",
    "a/b",
    "a/#",
    "+/+",
    "$share/g/a",
    "$share/g/#",
    "$share/h/a/+",
    "$share/g/+/b",
    "$x/#",
    "b/#/c",
    "$share/g",
    "",
    "/",
    "+/a",
    "deny/a",
    "quit/a",
    "lower/#",
    "a/b/c/d/e/#",
];

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

const REASON_CODES: [u8; 8] = [0x00, 0x10, 0x04, 0x80, 0x87, 0x92, 0x97, 0x19];

/// CONNECT, in the version that it says.
pub(crate) fn connect(input: &mut Input<'_>, out: &mut Vec<u8>) {
    let version = input.pick(&VERSIONS);
    let flags = input.byte();
    let set = |bit: u8| flags & 1 << bit != 0;
    let client_id = input.pick(&CLIENT_IDS);
    let mut properties = PropertiesBuf::new();
    let mut will_properties = PropertiesBuf::new();
    if set(0) {
        properties = connect_properties(input);
    }
    let will_topic = if set(1) { input.pick(&TOPICS) } else { "" };
    if set(1) && set(2) {
        will_properties = message_properties(input);
        will_properties = will_properties.with(Property::WillDelayInterval(input.pick(&[1, 10, 1000, u32::MAX])));
    }
    let will = (!will_topic.is_empty()).then(|| Will {
        topic: will_topic,
        payload: b"bye",
        qos: input.pick(&QOS),
        retain: set(3),
        properties: will_properties.as_properties(),
    });
    let keep_alive = if set(4) { input.pick(&[1, 10, 60, 65_535]) } else { 0 };
    let username = set(5).then(|| input.pick(&["user", "no", "rename", "props", "", "expire"]));
    let connect = Connect {
        version,
        client_id,
        clean_start: !set(6),
        keep_alive,
        username,
        password: if version.is_v5() { set(7) } else { set(7) && username.is_some() }.then_some(b"secret"),
        will,
        properties: properties.as_properties(),
    };
    Packet::Connect(connect).encode(version, out);
}

fn connect_properties(input: &mut Input<'_>) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    let chosen = input.byte();
    let mut add = |bit: u8, property: Property<'_>| {
        if chosen & 1 << bit != 0 {
            properties = std::mem::take(&mut properties).with(property);
        }
    };
    add(0, Property::SessionExpiryInterval(input.pick(&[100, 1, 1_000_000, u32::MAX])));
    add(1, Property::ReceiveMaximum(input.pick(&[1, 2, 3, 65_535])));
    add(2, Property::MaximumPacketSize(input.pick(&[20, 1, 5, 10, 40, 100])));
    add(3, Property::TopicAliasMaximum(input.pick(&[1, 2, 65_535])));
    add(4, Property::RequestProblemInformation(0));
    add(5, Property::RequestResponseInformation(1));
    add(6, Property::AuthenticationMethod(input.pick(&["M", "X", "M"])));
    if chosen & 1 << 6 != 0 {
        add(7, Property::AuthenticationData(b"data"));
    }
    properties
}

fn message_properties(input: &mut Input<'_>) -> PropertiesBuf {
    let chosen = input.byte();
    let all = [
        Property::PayloadFormatIndicator(1),
        Property::MessageExpiryInterval(input.pick(&[1, 0, 100, u32::MAX])),
        Property::ContentType("t"),
        Property::ResponseTopic("answer"),
        Property::CorrelationData(&[0, 255]),
        Property::UserProperty("k", "v"),
        Property::UserProperty("k", "another value, which is a bit longer"),
    ];
    let chosen = all.into_iter().enumerate().filter(|(bit, _)| chosen & 1 << bit != 0);
    chosen.fold(PropertiesBuf::new(), |list, (_, property)| list.with(property))
}

pub(crate) fn publish(input: &mut Input<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    let flags = input.byte();
    let set = |bit: u8| flags & 1 << bit != 0;
    let qos = QOS[usize::from(flags & 3) % 3];
    let topic = input.pick(&TOPICS);
    let mut properties = if set(2) { message_properties(input) } else { PropertiesBuf::new() };
    if set(3) || topic.is_empty() {
        properties = properties.with(Property::TopicAlias(input.pick(&[1, 2, 3, 64, 65_535])));
    }
    let large = vec![b'x'; usize::from(input.byte())];
    let publish = Publish {
        dup: set(4) && qos != QoS::AtMostOnce,
        qos,
        retain: set(5),
        topic,
        packet_id: (qos != QoS::AtMostOnce).then(|| packet_id(input)),
        properties: properties.as_properties(),
        payload: if set(6) { &large } else { input.bytes() },
    };
    Packet::Publish(publish).encode(version, out);
}

fn packet_id(input: &mut Input<'_>) -> PacketId {
    PacketId::new(input.byte().into()).unwrap_or(PacketId::MAX)
}

pub(crate) fn subscribe(input: &mut Input<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    let flags = input.byte();
    let mut properties = PropertiesBuf::new();
    if flags & 1 != 0 {
        properties = properties.with(Property::SubscriptionIdentifier(input.pick(&[1, 127, 128, 268_435_455])));
    }
    let mut filters = Vec::new();
    for _ in 0..1 + usize::from(flags >> 4) % 5 {
        let filter = input.pick(&FILTERS);
        let byte = input.byte();
        let options = SubscribeOptions {
            qos: QOS[usize::from(byte & 3) % 3],
            no_local: byte & 4 != 0 && !filter.starts_with("$share"),
            retain_as_published: byte & 8 != 0,
            retain_handling: [RetainHandling::SendAtSubscribe, RetainHandling::SendIfNew, RetainHandling::DoNotSend]
                [usize::from(byte >> 4) % 3],
        };
        SubscribeFilters::put(&mut filters, filter, options);
    }
    let subscribe = Subscribe {
        packet_id: packet_id(input),
        properties: properties.as_properties(),
        filters: SubscribeFilters::from_trusted(&filters),
    };
    Packet::Subscribe(subscribe).encode(version, out);
}

pub(crate) fn unsubscribe(input: &mut Input<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    let mut filters = Vec::new();
    for _ in 0..1 + usize::from(input.byte()) % 3 {
        UnsubscribeFilters::put(&mut filters, input.pick(&FILTERS));
    }
    let unsubscribe = Unsubscribe {
        packet_id: packet_id(input),
        properties: Properties::EMPTY,
        filters: UnsubscribeFilters::from_trusted(&filters),
    };
    Packet::Unsubscribe(unsubscribe).encode(version, out);
}

/// An acknowledgement, which may be of something that never was.
pub(crate) fn ack(input: &mut Input<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    let flags = input.byte();
    let properties = if flags & 4 != 0 { PropertiesBuf::new().reason_string("why") } else { PropertiesBuf::new() };
    let ack = Ack {
        packet_id: packet_id(input),
        reason_code: ReasonCode(if flags & 8 != 0 { input.pick(&REASON_CODES) } else { 0 }),
        properties: properties.as_properties(),
    };
    let packet = match flags & 3 {
        0 => Packet::Puback(ack),
        1 => Packet::Pubrec(ack),
        2 => Packet::Pubrel(ack),
        _ => Packet::Pubcomp(ack),
    };
    packet.encode(version, out);
}

pub(crate) fn disconnect(input: &mut Input<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    let mut properties = PropertiesBuf::new();
    let reason_code = ReasonCode(input.pick(&REASON_CODES));
    if input.flag() {
        properties = properties.with(Property::SessionExpiryInterval(input.pick(&[0, 1, 1000, u32::MAX])));
    }
    let disconnect = Disconnect { reason_code, properties: properties.as_properties() };
    Packet::Disconnect(disconnect).encode(version, out);
}

pub(crate) fn auth(input: &mut Input<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    if !version.is_v5() {
        return;
    }
    let reason_code = ReasonCode(input.pick(&[0x18, 0x19, 0x00]));
    let method = input.pick(&["M", "X", "M"]);
    let mut properties = PropertiesBuf::new().with(Property::AuthenticationMethod(method));
    if input.flag() {
        properties = properties.with(Property::AuthenticationData(input.pick(&[b"fine", b"more", b"evil"])));
    }
    let auth = Auth { reason_code, properties: properties.as_properties() };
    Packet::Auth(auth).encode(version, out);
}
