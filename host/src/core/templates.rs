//! Encode once: the encoded forms of the message that is being routed.

use plugin_api::QoS;

use super::aliases::Alias;
use crate::clock::Millis;
use crate::codec::{PacketId, ProtocolVersion, PublishHead, copy_publish, encode_publish, put_variable_byte_integer};
use crate::message::MessageParts;

/// Message Expiry Interval property: identifier and four bytes.
const EXPIRY_ID: u8 = 0x02;
/// Topic Alias property: identifier and two bytes.
const TOPIC_ALIAS_ID: u8 = 0x23;
/// Subscription Identifier property.
const SUBSCRIPTION_IDENTIFIER_ID: u8 = 0x0B;

/// What makes two subscribers' packets the same bytes, but for the Packet Identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) v5: bool,
    pub(super) qos: QoS,
    pub(super) retain: bool,
}

impl Class {
    const COUNT: usize = 12;

    fn index(self) -> usize {
        self.qos as usize * 4 + usize::from(self.v5) * 2 + usize::from(self.retain)
    }

    fn version(self) -> ProtocolVersion {
        version(self.v5)
    }
}

/// The version in which a packet is written, of the two that differ in it: those before 5.0 have the same PUBLISH packets.
pub(super) fn version(v5: bool) -> ProtocolVersion {
    if v5 { ProtocolVersion::V5 } else { ProtocolVersion::V3_1_1 }
}

#[derive(Debug, Default)]
pub(super) struct Template {
    pub(super) bytes: Vec<u8>,
    /// Where the Packet Identifier stands in `bytes`; unused for QoS 0.
    packet_id_at: usize,
    /// The routing in which it was made.
    stamp: u64,
}

impl Template {
    /// Appends the packet with a Packet Identifier of the subscriber's.
    pub(super) fn append_to(&self, out: &mut Vec<u8>, packet_id: Option<PacketId>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        if let Some(packet_id) = packet_id {
            let at = start + self.packet_id_at;
            out[at..at + 2].copy_from_slice(&packet_id.get().to_be_bytes());
        }
    }
}

/// One template for each class, made when the first subscriber of the class is met.
#[derive(Debug, Default)]
pub(super) struct Templates {
    templates: [Template; Class::COUNT],
    stamp: u64,
    receivers: usize,
}

impl Templates {
    /// A new message is being routed to so many receivers: nothing made so far is of use.
    pub(super) fn begin(&mut self, receivers: usize) {
        const KEEP_BYTES: usize = 64 << 10;
        self.stamp += 1;
        self.receivers = receivers;
        if receivers < 2 {
            return;
        }
        for template in &mut self.templates {
            if template.bytes.capacity() > KEEP_BYTES {
                template.bytes = Vec::new();
            }
        }
    }

    /// The next packet is one receiver's own. Give what this returns to [`Templates::together`] behind it.
    pub(super) fn alone(&mut self) -> usize {
        std::mem::replace(&mut self.receivers, 1)
    }

    /// The next packets are those of all again.
    pub(super) fn together(&mut self, receivers: usize) {
        self.receivers = receivers;
    }

    /// Whether a template is worth making: for a single receiver it would only be one more copy.
    pub(super) fn pay_off(&self) -> bool {
        self.receivers > 1
    }

    /// The template of a class.
    pub(super) fn of(&mut self, class: Class, parts: &MessageParts<'_>, now: Millis) -> &Template {
        let stamp = self.stamp;
        let template = &mut self.templates[class.index()];
        if template.stamp != stamp {
            template.stamp = stamp;
            template.bytes.clear();
            // Any identifier will do: each subscriber's own is written over it.
            let packet_id = (class.qos != QoS::AtMostOnce).then_some(PacketId::MIN);
            template.packet_id_at =
                encode(&mut template.bytes, class, parts, &Own { packet_id, ..Own::default() }, now);
        }
        template
    }
}

/// What one subscriber's packet has and others of its class have not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Own<'a> {
    pub(super) packet_id: Option<PacketId>,
    pub(super) dup: bool,
    /// Subscription Identifiers.
    pub(super) identifiers: &'a [u32],
    pub(super) alias: Option<Alias>,
}

/// Appends a PUBLISH packet for one subscriber. Returns where its Packet Identifier stands, from the packet's start.
pub(super) fn encode(out: &mut Vec<u8>, class: Class, parts: &MessageParts<'_>, own: &Own<'_>, now: Millis) -> usize {
    let &Own { packet_id, dup, identifiers, alias } = own;
    let head = PublishHead { dup, qos: class.qos, retain: class.retain, packet_id };
    if let Some(came) = &parts.as_it_came
        && (class.qos, class.v5) == (parts.qos, came.is_v5)
        && (dup, identifiers.is_empty(), alias.is_none()) == (false, true, true)
    {
        // The most frequent case: one copy, of nothing that has to be put together.
        let property_length_bytes = usize::from(class.v5);
        let packet_id_bytes = if class.qos == QoS::AtMostOnce { 0 } else { 2 };
        let packet_id_at = came.packet.len() - parts.payload.len() - property_length_bytes - packet_id_bytes;
        copy_publish(out, came.packet, head, packet_id_at);
        return packet_id_at;
    }
    if !class.v5 {
        return encode_publish(class.version(), out, head, parts.topic, &[], parts.payload);
    }
    // Message Expiry Interval and Topic Alias.
    let (mut short, mut short_bytes) = ([0; 8], 0);
    if let Some(left) = parts.secs_left(now) {
        // [MQTT-3.3.2-6] A message that has not waited keeps the interval it came with.
        short[0] = EXPIRY_ID;
        short[1..5].copy_from_slice(&left.to_be_bytes());
        short_bytes = 5;
    }
    let mut topic = parts.topic;
    if let Some(alias) = alias {
        let [high, low] = alias.number.to_be_bytes();
        short[short_bytes..short_bytes + 3].copy_from_slice(&[TOPIC_ALIAS_ID, high, low]);
        short_bytes += 3;
        if alias.is_known {
            topic = "";
        }
    }
    let short = &short[..short_bytes];
    if identifiers.is_empty() {
        return encode_publish(class.version(), out, head, topic, &[parts.properties, short], parts.payload);
    }
    let mut long = Vec::with_capacity(identifiers.len() * 5);
    for &identifier in identifiers {
        long.push(SUBSCRIPTION_IDENTIFIER_ID);
        put_variable_byte_integer(&mut long, identifier as usize);
    }
    encode_publish(class.version(), out, head, topic, &[parts.properties, short, &long], parts.payload)
}
