//! UNSUBSCRIBE (section 3.10).

use std::fmt;

use plugin_api::Properties;

use super::property_rules::Context;
use super::wire::{self, Reader};
use super::{DecodeError, PacketId, PacketType, ProtocolVersion};

/// UNSUBSCRIBE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsubscribe<'a> {
    /// The Packet Identifier.
    pub packet_id: PacketId,
    /// User Properties.
    pub properties: Properties<'a>,
    /// What is unsubscribed from; at least one.
    pub filters: UnsubscribeFilters<'a>,
}

/// The Topic Filters of an UNSUBSCRIBE, in order. At least one, and each of them is UTF-8; whether it
/// is a valid Topic Filter is for the core to find out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UnsubscribeFilters<'a> {
    payload: &'a [u8],
}

pub(super) fn decode<'a>(version: ProtocolVersion, reader: &mut Reader<'a>) -> Result<Unsubscribe<'a>, DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = match version {
        ProtocolVersion::V5 => reader.properties(Context::Unsubscribe)?,
        ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 => Properties::EMPTY,
    };
    let payload = reader.take_rest();
    if payload.is_empty() {
        // [MQTT-3.10.3-2]
        return Err(DecodeError::protocol("UNSUBSCRIBE without a Topic Filter"));
    }
    let mut filters = Reader::new(PacketType::Unsubscribe, payload);
    while !filters.is_empty() {
        // [MQTT-3.10.3-1]
        filters.string("Topic Filter")?;
    }
    Ok(Unsubscribe { packet_id, properties, filters: UnsubscribeFilters { payload } })
}

impl<'a> UnsubscribeFilters<'a> {
    /// The filters that [`UnsubscribeFilters::put`] wrote. With other bytes, filters are missing:
    /// from the first one on that cannot be read.
    pub const fn from_trusted(payload: &'a [u8]) -> UnsubscribeFilters<'a> {
        UnsubscribeFilters { payload }
    }

    /// Appends a filter of at most 65,535 bytes to a payload that is being put together.
    pub fn put(payload: &mut Vec<u8>, filter: &str) {
        wire::put_string(payload, filter);
    }

    /// The filters in order.
    pub fn iter(self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        Iter(self.payload)
    }
}

impl fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[derive(Clone)]
struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        // The payload was checked when it was decoded: an error can only mean its end.
        let mut reader = Reader::new(PacketType::Unsubscribe, self.0);
        let filter = reader.string("Topic Filter").ok()?;
        self.0 = reader.take_rest();
        Some(filter)
    }
}

impl Unsubscribe<'_> {
    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        wire::packet(out, PacketType::Unsubscribe, |out| {
            out.extend_from_slice(&self.packet_id.get().to_be_bytes());
            if version.is_v5() {
                wire::put_properties(out, self.properties);
            }
            out.extend_from_slice(self.filters.payload);
        });
    }
}
