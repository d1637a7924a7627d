//! Encode once: the encoded forms of the message that is being routed.

use plugin_api::QoS;

use crate::clock::Millis;
use crate::codec::{PacketId, ProtocolVersion, PublishHead, encode_publish, put_variable_byte_integer};
use crate::message::MessageParts;

/// Message Expiry Interval property: identifier and four bytes.
const EXPIRY_ID: u8 = 0x02;
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
        if self.v5 { ProtocolVersion::V5 } else { ProtocolVersion::V3_1_1 }
    }
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
            template.packet_id_at = encode(&mut template.bytes, class, parts, &[], packet_id, false, now);
        }
        template
    }
}

/// Appends a PUBLISH packet for one subscriber. Returns where its Packet Identifier stands, from the packet's start.
pub(super) fn encode(
    out: &mut Vec<u8>,
    class: Class,
    parts: &MessageParts<'_>,
    identifiers: &[u32],
    packet_id: Option<PacketId>,
    dup: bool,
    now: Millis,
) -> usize {
    let head = PublishHead { dup, qos: class.qos, retain: class.retain, packet_id };
    if !class.v5 {
        return encode_publish(class.version(), out, head, parts.topic, &[], parts.payload);
    }
    let (mut expiry, mut expiry_bytes) = ([0; 5], 0);
    if parts.expires_at != Millis::NEVER {
        // [MQTT-3.3.2-6] What is left of it. A message that has not waited keeps the interval it came with.
        let left = u32::try_from(parts.expires_at.since(now).div_ceil(1000)).unwrap_or(u32::MAX);
        expiry[0] = EXPIRY_ID;
        expiry[1..].copy_from_slice(&left.to_be_bytes());
        expiry_bytes = expiry.len();
    }
    let expiry = &expiry[..expiry_bytes];
    if identifiers.is_empty() {
        return encode_publish(class.version(), out, head, parts.topic, &[parts.properties, expiry], parts.payload);
    }
    let mut own = Vec::with_capacity(identifiers.len() * 5);
    for &identifier in identifiers {
        own.push(SUBSCRIPTION_IDENTIFIER_ID);
        put_variable_byte_integer(&mut own, identifier as usize);
    }
    encode_publish(class.version(), out, head, parts.topic, &[parts.properties, expiry, &own], parts.payload)
}
