//! SUBSCRIBE (section 3.8).

use std::fmt;

use plugin_api::{Properties, QoS, topic};

use super::property_rules::Context;
use super::wire::{self, Reader};
use super::{DecodeError, PacketId, PacketType, ProtocolVersion};

/// SUBSCRIBE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscribe<'a> {
    /// The Packet Identifier.
    pub packet_id: PacketId,
    /// Subscription Identifier and User Properties.
    pub properties: Properties<'a>,
    /// What is subscribed to; at least one.
    pub filters: SubscribeFilters<'a>,
}

/// The Topic Filters of a SUBSCRIBE with their options, in order. At least one, and each of them is
/// UTF-8; whether it is a valid Topic Filter is for the core to find out.
#[derive(Clone, Copy)]
pub struct SubscribeFilters<'a> {
    payload: &'a [u8],
    /// The bits of the Subscription Options that mean something in the version of the packet.
    options_mask: u8,
}

/// One Topic Filter and what is asked for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubscribeFilter<'a> {
    /// The Topic Filter as received; a Shared Subscription has its `$share/{ShareName}/` still.
    pub filter: &'a str,
    /// The Subscription Options.
    pub options: SubscribeOptions,
}

/// The Subscription Options (section 3.8.3.1). Before MQTT 5.0 there is only the QoS: everything
/// else is as in [`SubscribeOptions::new`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SubscribeOptions {
    /// The Maximum QoS of the messages that are sent to the subscriber.
    pub qos: QoS,
    /// The subscriber does not get what it publishes itself.
    pub no_local: bool,
    /// The RETAIN flag is forwarded as it was published.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent for a subscription.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum RetainHandling {
    /// With every SUBSCRIBE [MQTT-3.3.1-9].
    #[default]
    SendAtSubscribe = 0,
    /// Only if the subscription did not exist yet [MQTT-3.3.1-10].
    SendIfNew = 1,
    /// Never [MQTT-3.3.1-11].
    DoNotSend = 2,
}

impl RetainHandling {
    /// The Retain Handling with this number; `None` for anything above 2.
    pub const fn from_u8(value: u8) -> Option<RetainHandling> {
        match value {
            0 => Some(RetainHandling::SendAtSubscribe),
            1 => Some(RetainHandling::SendIfNew),
            2 => Some(RetainHandling::DoNotSend),
            _ => None,
        }
    }
}

const QOS: u8 = 0b0000_0011;
const NO_LOCAL: u8 = 0b0000_0100;
const RETAIN_AS_PUBLISHED: u8 = 0b0000_1000;
const RETAIN_HANDLING: u8 = 0b0011_0000;
const RETAIN_HANDLING_SHIFT: u32 = 4;
const RESERVED: u8 = 0b1100_0000;

impl SubscribeOptions {
    /// This QoS, and for the rest what MQTT 3.x does.
    pub const fn new(qos: QoS) -> SubscribeOptions {
        SubscribeOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        }
    }

    /// The options as MQTT 5.0 sends them.
    pub const fn to_byte(self) -> u8 {
        self.qos as u8
            | if self.no_local { NO_LOCAL } else { 0 }
            | if self.retain_as_published { RETAIN_AS_PUBLISHED } else { 0 }
            | (self.retain_handling as u8) << RETAIN_HANDLING_SHIFT
    }

    /// The options that MQTT 5.0 sends as this byte.
    ///
    /// # Errors
    /// Reserved bits that are set [MQTT-3.8.3-5], and the values 3 of QoS and Retain Handling.
    pub fn from_byte(byte: u8) -> Result<SubscribeOptions, DecodeError> {
        if byte & RESERVED != 0 {
            return Err(DecodeError::Malformed("a reserved bit in the Subscription Options is 1, expected 0"));
        }
        let qos =
            QoS::from_u8(byte & QOS).ok_or(DecodeError::protocol("the requested QoS is 3, expected 0, 1 or 2"))?;
        let retain_handling = RetainHandling::from_u8((byte & RETAIN_HANDLING) >> RETAIN_HANDLING_SHIFT)
            .ok_or(DecodeError::protocol("the Retain Handling is 3, expected 0, 1 or 2"))?;
        Ok(SubscribeOptions {
            qos,
            no_local: byte & NO_LOCAL != 0,
            retain_as_published: byte & RETAIN_AS_PUBLISHED != 0,
            retain_handling,
        })
    }
}

pub(super) fn decode<'a>(version: ProtocolVersion, reader: &mut Reader<'a>) -> Result<Subscribe<'a>, DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = match version {
        ProtocolVersion::V5 => reader.properties(Context::Subscribe)?,
        ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 => Properties::EMPTY,
    };
    let payload = reader.take_rest();
    if payload.is_empty() {
        // [MQTT-3.8.3-2]
        return Err(DecodeError::protocol("SUBSCRIBE without a Topic Filter"));
    }
    let options_mask = if version.is_v5() { 0xFF } else { QOS };
    let mut filters = Reader::new(PacketType::Subscribe, payload);
    while !filters.is_empty() {
        // [MQTT-3.8.3-1]
        let filter = filters.string("Topic Filter")?;
        let byte = filters.byte("Subscription Options")?;
        // MQTT 3.1 calls the upper bits "not used".
        if version == ProtocolVersion::V3_1_1 && byte & !options_mask != 0 {
            return Err(DecodeError::Malformed("a reserved bit next to the requested QoS is 1, expected 0"));
        }
        let options = SubscribeOptions::from_byte(byte & options_mask)?;
        if options.no_local && matches!(topic::split_share(filter), topic::Share::Group { .. }) {
            // [MQTT-3.8.3-4]
            return Err(DecodeError::protocol("No Local on a Shared Subscription"));
        }
    }
    Ok(Subscribe { packet_id, properties, filters: SubscribeFilters { payload, options_mask } })
}

impl<'a> SubscribeFilters<'a> {
    /// The filters that [`SubscribeFilters::put`] wrote. With other bytes, filters are missing: from
    /// the first one on that cannot be read.
    pub const fn from_trusted(payload: &'a [u8]) -> SubscribeFilters<'a> {
        SubscribeFilters { payload, options_mask: 0xFF }
    }

    /// Appends a filter of at most 65,535 bytes to a payload that is being put together.
    pub fn put(payload: &mut Vec<u8>, filter: &str, options: SubscribeOptions) {
        wire::put_string(payload, filter);
        payload.push(options.to_byte());
    }

    /// The filters in order.
    pub fn iter(self) -> impl Iterator<Item = SubscribeFilter<'a>> + Clone + use<'a> {
        Iter(self)
    }
}

impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscribeFilters<'_> {}

impl fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[derive(Clone)]
struct Iter<'a>(SubscribeFilters<'a>);

impl<'a> Iterator for Iter<'a> {
    type Item = SubscribeFilter<'a>;

    fn next(&mut self) -> Option<SubscribeFilter<'a>> {
        // The payload was checked when it was decoded: an error can only mean its end.
        let mut reader = Reader::new(PacketType::Subscribe, self.0.payload);
        let filter = reader.string("Topic Filter").ok()?;
        let byte = reader.byte("Subscription Options").ok()?;
        let options = SubscribeOptions::from_byte(byte & self.0.options_mask).ok()?;
        self.0.payload = reader.take_rest();
        Some(SubscribeFilter { filter, options })
    }
}

impl Subscribe<'_> {
    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        wire::packet(out, PacketType::Subscribe, |out| {
            out.extend_from_slice(&self.packet_id.get().to_be_bytes());
            if version.is_v5() {
                wire::put_properties(out, self.properties);
            }
            for SubscribeFilter { filter, options } in self.filters.iter() {
                let options = if version.is_v5() { options } else { SubscribeOptions::new(options.qos) };
                SubscribeFilters::put(out, filter, options);
            }
        });
    }
}
