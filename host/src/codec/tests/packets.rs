//! Any packet: strategies for everything that a peer of some version may send, rare properties and extreme lengths included.

use plugin_api::{Properties, PropertiesBuf, Property, QoS, ReasonCode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::codec::property_rules::Context;
use crate::codec::{ack, auth, connack, disconnect, suback};

/// A packet that owns what a [`Packet`] borrows.
#[derive(Debug, Clone)]
pub(super) enum Any {
    Connect(AnyConnect),
    Connack { session_present: bool, reason_code: ReasonCode, properties: PropertiesBuf },
    Publish(AnyPublish),
    Ack { packet: PacketType, packet_id: PacketId, reason_code: ReasonCode, properties: PropertiesBuf },
    Subscribe { packet_id: PacketId, properties: PropertiesBuf, filters: Vec<u8> },
    Suback { packet_id: PacketId, properties: PropertiesBuf, reason_codes: Vec<u8> },
    Unsubscribe { packet_id: PacketId, properties: PropertiesBuf, filters: Vec<u8> },
    Unsuback { packet_id: PacketId, properties: PropertiesBuf, reason_codes: Vec<u8> },
    Pingreq,
    Pingresp,
    Disconnect { reason_code: ReasonCode, properties: PropertiesBuf },
    Auth { reason_code: ReasonCode, properties: PropertiesBuf },
}

#[derive(Debug, Clone)]
pub(super) struct AnyConnect {
    version: ProtocolVersion,
    client_id: String,
    clean_start: bool,
    keep_alive: u16,
    credentials: (Option<String>, Option<Vec<u8>>),
    will: Option<AnyPublish>,
    properties: PropertiesBuf,
}

#[derive(Debug, Clone)]
pub(super) struct AnyPublish {
    dup: bool,
    qos: QoS,
    retain: bool,
    topic: String,
    packet_id: PacketId,
    properties: PropertiesBuf,
    payload: Vec<u8>,
}

impl Any {
    /// Lends the packet.
    pub(super) fn as_packet(&self) -> Packet<'_> {
        match self {
            Any::Connect(connect) => Packet::Connect(connect.as_connect()),
            Any::Connack { session_present, reason_code, properties } => Packet::Connack(Connack {
                session_present: *session_present,
                reason_code: *reason_code,
                properties: properties.as_properties(),
            }),
            Any::Publish(publish) => Packet::Publish(Publish {
                dup: publish.dup,
                qos: publish.qos,
                retain: publish.retain,
                topic: &publish.topic,
                packet_id: (publish.qos != QoS::AtMostOnce).then_some(publish.packet_id),
                properties: publish.properties.as_properties(),
                payload: &publish.payload,
            }),
            &Any::Ack { packet, packet_id, reason_code, ref properties } => {
                let ack = Ack { packet_id, reason_code, properties: properties.as_properties() };
                match packet {
                    PacketType::Puback => Packet::Puback(ack),
                    PacketType::Pubrec => Packet::Pubrec(ack),
                    PacketType::Pubrel => Packet::Pubrel(ack),
                    _ => Packet::Pubcomp(ack),
                }
            }
            &Any::Subscribe { packet_id, ref properties, ref filters } => Packet::Subscribe(Subscribe {
                packet_id,
                properties: properties.as_properties(),
                filters: SubscribeFilters::from_trusted(filters),
            }),
            &Any::Suback { packet_id, ref properties, ref reason_codes } => {
                Packet::Suback(Suback { packet_id, properties: properties.as_properties(), reason_codes })
            }
            &Any::Unsubscribe { packet_id, ref properties, ref filters } => Packet::Unsubscribe(Unsubscribe {
                packet_id,
                properties: properties.as_properties(),
                filters: UnsubscribeFilters::from_trusted(filters),
            }),
            &Any::Unsuback { packet_id, ref properties, ref reason_codes } => {
                Packet::Unsuback(Unsuback { packet_id, properties: properties.as_properties(), reason_codes })
            }
            Any::Pingreq => Packet::Pingreq,
            Any::Pingresp => Packet::Pingresp,
            &Any::Disconnect { reason_code, ref properties } => {
                Packet::Disconnect(Disconnect { reason_code, properties: properties.as_properties() })
            }
            &Any::Auth { reason_code, ref properties } => {
                Packet::Auth(Auth { reason_code, properties: properties.as_properties() })
            }
        }
    }
}

impl AnyConnect {
    fn as_connect(&self) -> Connect<'_> {
        Connect {
            version: self.version,
            client_id: &self.client_id,
            clean_start: self.clean_start,
            keep_alive: self.keep_alive,
            username: self.credentials.0.as_deref(),
            password: self.credentials.1.as_deref(),
            will: self.will.as_ref().map(|will| Will {
                topic: &will.topic,
                payload: &will.payload,
                qos: will.qos,
                retain: will.retain,
                properties: will.properties.as_properties(),
            }),
            properties: self.properties.as_properties(),
        }
    }
}

// Values.

/// Numbers of bytes that a length of two bytes can say, with those around the bounds of Variable Byte Integers.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        60 => 0..20_usize,
        3 => 100..140_usize,
        1 => 16_370..16_390_usize,
        1 => Just(65_535_usize),
    ]
}

pub(super) fn binary() -> impl Strategy<Value = Vec<u8>> {
    (length(), vec(any::<u8>(), 0..20)).prop_map(|(length, start)| {
        let mut bytes = start;
        bytes.resize(length, 0xFF);
        bytes
    })
}

/// Well-formed UTF-8 of up to 65,535 bytes, without U+0000.
pub(super) fn text() -> impl Strategy<Value = String> {
    let char = prop_oneof![
        4 => select(vec!['a', '/', '$', '+', '#', 'ü', '\u{1}', '\u{FEFF}', '\u{FFFF}', '\u{10FFFF}']),
        1 => any::<char>().prop_filter("U+0000 is not allowed", |char| *char != '\0'),
    ];
    (length(), vec(char, 0..12)).prop_map(|(length, chars)| {
        let mut text: String = chars.into_iter().collect();
        text.push_str(&"x".repeat(length.saturating_sub(text.len())));
        text
    })
}

/// A Topic Name that is not empty.
fn topic_name() -> impl Strategy<Value = String> {
    text().prop_map(|text| {
        let name = text.replace(['+', '#'], "p");
        if name.is_empty() { "t".into() } else { name }
    })
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    prop_oneof![any::<PacketId>(), select(vec![PacketId::MIN, PacketId::MAX])]
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn reason_code(version: ProtocolVersion, codes: &'static [u8]) -> impl Strategy<Value = ReasonCode> {
    let codes = if version.is_v5() { codes } else { &[0] };
    select(codes).prop_map(ReasonCode)
}

// Properties.

/// One property, encoded. Its identifier is one that has a name.
fn property(id: u8) -> BoxedStrategy<PropertiesBuf> {
    fn of<T: std::fmt::Debug>(
        value: impl Strategy<Value = T> + 'static,
        property: impl Fn(&T) -> Property<'_> + 'static,
    ) -> BoxedStrategy<PropertiesBuf> {
        value.prop_map(move |value| PropertiesBuf::new().with(property(&value))).boxed()
    }
    let variable = prop_oneof![
        1..268_435_456_u32,
        select(vec![1_u32, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455])
    ];
    match id {
        0x01 => of(0..2_u8, |value| Property::PayloadFormatIndicator(*value)),
        0x02 => of(any::<u32>(), |value| Property::MessageExpiryInterval(*value)),
        0x03 => of(text(), |value| Property::ContentType(value)),
        0x08 => of(topic_name(), |value| Property::ResponseTopic(value)),
        0x09 => of(binary(), |value| Property::CorrelationData(value)),
        0x0B => of(variable, |value| Property::SubscriptionIdentifier(*value)),
        0x11 => of(any::<u32>(), |value| Property::SessionExpiryInterval(*value)),
        0x12 => of(text(), |value| Property::AssignedClientIdentifier(value)),
        0x13 => of(any::<u16>(), |value| Property::ServerKeepAlive(*value)),
        0x15 => of(text(), |value| Property::AuthenticationMethod(value)),
        0x16 => of(binary(), |value| Property::AuthenticationData(value)),
        0x17 => of(0..2_u8, |value| Property::RequestProblemInformation(*value)),
        0x18 => of(any::<u32>(), |value| Property::WillDelayInterval(*value)),
        0x19 => of(0..2_u8, |value| Property::RequestResponseInformation(*value)),
        0x1A => of(text(), |value| Property::ResponseInformation(value)),
        0x1C => of(text(), |value| Property::ServerReference(value)),
        0x1F => of(text(), |value| Property::ReasonString(value)),
        0x21 => of(1..=u16::MAX, |value| Property::ReceiveMaximum(*value)),
        0x22 => of(any::<u16>(), |value| Property::TopicAliasMaximum(*value)),
        0x23 => of(1..=u16::MAX, |value| Property::TopicAlias(*value)),
        0x24 => of(0..2_u8, |value| Property::MaximumQos(*value)),
        0x25 => of(0..2_u8, |value| Property::RetainAvailable(*value)),
        0x26 => of((text(), text()), |(name, value)| Property::UserProperty(name, value)),
        0x27 => of(1..=u32::MAX, |value| Property::MaximumPacketSize(*value)),
        0x28 => of(0..2_u8, |value| Property::WildcardSubscriptionAvailable(*value)),
        0x29 => of(0..2_u8, |value| Property::SubscriptionIdentifierAvailable(*value)),
        0x2A => of(0..2_u8, |value| Property::SharedSubscriptionAvailable(*value)),
        _ => unreachable!("{id:#04x} has no name"),
    }
}

/// A list that is allowed in a context, in any order: nothing, a few, or all that there are.
fn properties(version: ProtocolVersion, context: Context) -> BoxedStrategy<PropertiesBuf> {
    if !version.is_v5() {
        return Just(PropertiesBuf::new()).boxed();
    }
    let only_from_the_other = match context {
        Context::PublishFromClient => 0x0B,
        Context::DisconnectFromServer => 0x11,
        _ => 0,
    };
    let is_in = |set: u64, id: &u8| set & 1 << *id != 0 && *id != only_from_the_other;
    let allowed: Vec<u8> = (0..64).filter(|id| is_in(context.allowed(), id)).collect();
    let repeated: Vec<u8> = (0..64).filter(|id| is_in(context.repeatable() & context.allowed(), id)).collect();
    let each = || allowed.iter().map(|id| property(*id)).collect::<Vec<_>>();
    let again = vec(select(repeated).prop_flat_map(property), 0..4);
    let some = (each(), vec(prop::bool::weighted(0.3), allowed.len()), again).prop_map(|(each, chosen, again)| {
        let chosen = each.into_iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(property, _)| property);
        chosen.chain(again).collect::<Vec<_>>()
    });
    let list = prop_oneof![1 => Just(Vec::new()), 3 => some, 1 => each()];
    let list = list.prop_map(move |mut list| {
        let has = |list: &[PropertiesBuf], id| list.iter().any(|property| property.as_bytes()[0] == id);
        // Authentication Data without a method are an error, and AUTH with anything has one.
        let needs_method = has(&list, 0x16) || context == Context::Auth && !list.is_empty();
        if needs_method && !has(&list, 0x15) {
            list.push(PropertiesBuf::new().with(Property::AuthenticationMethod("M")));
        }
        list
    });
    list.prop_shuffle().prop_map(|list| from_bytes(&list.concat_bytes())).boxed()
}

/// All bytes of some lists, one after the other.
trait ConcatBytes {
    fn concat_bytes(&self) -> Vec<u8>;
}

impl ConcatBytes for Vec<PropertiesBuf> {
    fn concat_bytes(&self) -> Vec<u8> {
        self.iter().flat_map(|list| list.as_bytes()).copied().collect()
    }
}

fn from_bytes(bytes: &[u8]) -> PropertiesBuf {
    Properties::parse(bytes).expect("each of them is well-formed").into()
}

// Packets.

/// Any packet that a sender may send in a version.
pub(super) fn any_packet(sender: Sender, version: ProtocolVersion) -> BoxedStrategy<Any> {
    let both = prop_oneof![
        3 => publish(sender, version).prop_map(Any::Publish),
        2 => acknowledgement(version),
    ];
    match sender {
        Sender::Client => prop_oneof![
            2 => both,
            2 => connect(version).prop_map(Any::Connect),
            1 => subscribe(version),
            1 => unsubscribe(version),
            1 => Just(Any::Pingreq),
            1 => ending(sender, version),
        ]
        .boxed(),
        Sender::Server => prop_oneof![
            2 => both,
            1 => connack(version),
            1 => answers(version),
            1 => Just(Any::Pingresp),
            1 => if version.is_v5() { ending(sender, version) } else { Just(Any::Pingresp).boxed() },
        ]
        .boxed(),
    }
}

fn connect(version: ProtocolVersion) -> impl Strategy<Value = AnyConnect> {
    let will = (publish(Sender::Client, version), properties(version, Context::Will), binary());
    let will = will.prop_map(|(will, properties, payload)| AnyPublish {
        topic: if will.topic.is_empty() { "w".into() } else { will.topic },
        properties,
        payload,
        ..will
    });
    let credentials = (proptest::option::of(text()), proptest::option::of(binary()));
    let rest = (any::<bool>(), any::<u16>(), credentials, proptest::option::of(will));
    (text(), rest, properties(version, Context::Connect)).prop_map(
        move |(client_id, (clean_start, keep_alive, mut credentials, will), properties)| {
            if !version.is_v5() && credentials.0.is_none() {
                credentials.1 = None;
            }
            let may_be_empty = version.is_v5() || version == V3_1_1 && clean_start;
            let client_id = if client_id.is_empty() && !may_be_empty { "c".into() } else { client_id };
            AnyConnect { version, client_id, clean_start, keep_alive, credentials, will, properties }
        },
    )
}

fn connack(version: ProtocolVersion) -> BoxedStrategy<Any> {
    let codes = if version.is_v5() { connack::REASON_CODES } else { &[0x00, 0x84, 0x85, 0x86, 0x87, 0x88] };
    (any::<bool>(), select(codes), properties(version, Context::Connack))
        .prop_map(move |(session_present, code, properties)| Any::Connack {
            session_present: session_present && code == 0 && version >= V3_1_1,
            reason_code: ReasonCode(code),
            properties,
        })
        .boxed()
}

fn publish(sender: Sender, version: ProtocolVersion) -> impl Strategy<Value = AnyPublish> {
    let context = match sender {
        Sender::Client => Context::PublishFromClient,
        Sender::Server => Context::PublishFromServer,
    };
    let flags = (any::<bool>(), qos(), any::<bool>(), any::<bool>());
    (flags, topic_name(), packet_id(), properties(version, context), binary()).prop_map(
        |((dup, qos, retain, by_alias), topic, packet_id, properties, payload)| {
            let by_alias = by_alias && properties.as_properties().topic_alias().is_some();
            AnyPublish {
                dup: dup && qos != QoS::AtMostOnce,
                qos,
                retain,
                topic: if by_alias { String::new() } else { topic },
                packet_id,
                properties,
                payload,
            }
        },
    )
}

fn acknowledgement(version: ProtocolVersion) -> impl Strategy<Value = Any> {
    let packets = [
        (PacketType::Puback, ack::PUBLISH_REASON_CODES),
        (PacketType::Pubrec, ack::PUBLISH_REASON_CODES),
        (PacketType::Pubrel, ack::RELEASE_REASON_CODES),
        (PacketType::Pubcomp, ack::RELEASE_REASON_CODES),
    ];
    let kind = select(packets.to_vec());
    let kind = kind.prop_flat_map(move |(packet, codes)| (Just(packet), reason_code(version, codes)));
    (kind, packet_id(), properties(version, Context::Acknowledgement)).prop_map(
        |((packet, reason_code), packet_id, properties)| Any::Ack { packet, packet_id, reason_code, properties },
    )
}

fn subscribe(version: ProtocolVersion) -> impl Strategy<Value = Any> {
    let options = (qos(), any::<bool>(), any::<bool>(), 0..3_u8).prop_map(
        move |(qos, no_local, retain_as_published, retain_handling)| {
            let retain_handling = RetainHandling::from_u8(retain_handling).expect("0, 1 or 2");
            let asked = SubscribeOptions { qos, no_local, retain_as_published, retain_handling };
            if version.is_v5() { asked } else { SubscribeOptions::new(qos) }
        },
    );
    let filter = prop_oneof![4 => text(), 1 => text().prop_map(|text| format!("$share/g/{text:.100}"))];
    (packet_id(), properties(version, Context::Subscribe), vec((filter, options), 1..6)).prop_map(
        |(packet_id, properties, list)| {
            let mut filters = Vec::new();
            for (filter, mut options) in list {
                options.no_local &= !filter.starts_with("$share");
                SubscribeFilters::put(&mut filters, &filter, options);
            }
            Any::Subscribe { packet_id, properties, filters }
        },
    )
}

fn unsubscribe(version: ProtocolVersion) -> impl Strategy<Value = Any> {
    (packet_id(), properties(version, Context::Unsubscribe), vec(text(), 1..6)).prop_map(
        |(packet_id, properties, list)| {
            let mut filters = Vec::new();
            list.iter().for_each(|filter| UnsubscribeFilters::put(&mut filters, filter));
            Any::Unsubscribe { packet_id, properties, filters }
        },
    )
}

/// SUBACK and UNSUBACK.
fn answers(version: ProtocolVersion) -> impl Strategy<Value = Any> {
    let codes = if version.is_v5() { suback::SUBACK_REASON_CODES } else { &[0x00, 0x01, 0x02, 0x80] };
    let suback = (packet_id(), properties(version, Context::Acknowledgement), vec(select(codes), 1..200));
    let suback =
        suback.prop_map(|(packet_id, properties, reason_codes)| Any::Suback { packet_id, properties, reason_codes });
    let codes = vec(select(suback::UNSUBACK_REASON_CODES), 1..200);
    let unsuback = (packet_id(), properties(version, Context::Acknowledgement), codes);
    let unsuback = unsuback.prop_map(move |(packet_id, properties, codes)| {
        let reason_codes = if version.is_v5() { codes } else { Vec::new() };
        Any::Unsuback { packet_id, properties, reason_codes }
    });
    prop_oneof![suback, unsuback]
}

/// DISCONNECT, and AUTH where there is one.
fn ending(sender: Sender, version: ProtocolVersion) -> BoxedStrategy<Any> {
    let context = match sender {
        Sender::Client => Context::DisconnectFromClient,
        Sender::Server => Context::DisconnectFromServer,
    };
    let disconnect = (reason_code(version, disconnect::REASON_CODES), properties(version, context));
    let disconnect = disconnect.prop_map(|(reason_code, properties)| Any::Disconnect { reason_code, properties });
    if !version.is_v5() {
        return disconnect.boxed();
    }
    let auth = (reason_code(version, auth::REASON_CODES), properties(version, Context::Auth));
    let auth = auth.prop_map(|(reason_code, properties)| {
        // The one without a method says success, and nothing else.
        let reason_code = if properties.is_empty() { ReasonCode::SUCCESS } else { reason_code };
        Any::Auth { reason_code, properties }
    });
    prop_oneof![disconnect, auth].boxed()
}
