//! DISCONNECT (section 3.14): the last packet on a Network Connection.

use plugin_api::{Properties, ReasonCode};

use super::property_rules::Context;
use super::wire::{self, Reader};
use super::{DecodeError, PacketType, ProtocolVersion, Sender};

/// DISCONNECT. Before MQTT 5.0 only clients send it, and it says nothing but that they leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disconnect<'a> {
    /// Why; MQTT 3.x only knows [`ReasonCode::NORMAL_DISCONNECTION`].
    pub reason_code: ReasonCode,
    /// Session Expiry Interval (client only), Reason String, User Properties, Server Reference.
    pub properties: Properties<'a>,
}

/// The Reason Codes of DISCONNECT, of both ends [MQTT-3.14.2-1]. 0x8C is from section 2.4.
pub(super) const REASON_CODES: &[u8] = plugin_api::reading::Packet::Disconnect.reason_codes();

pub(super) fn decode<'a>(
    sender: Sender,
    version: ProtocolVersion,
    reader: &mut Reader<'a>,
) -> Result<Disconnect<'a>, DecodeError> {
    let mut disconnect = Disconnect { reason_code: ReasonCode::NORMAL_DISCONNECTION, properties: Properties::EMPTY };
    if !version.is_v5() || reader.is_empty() {
        return Ok(disconnect);
    }
    disconnect.reason_code = reader.reason_code(REASON_CODES)?;
    if !reader.is_empty() {
        disconnect.properties = reader.properties(match sender {
            Sender::Client => Context::DisconnectFromClient,
            Sender::Server => Context::DisconnectFromServer,
        })?;
    }
    Ok(disconnect)
}

impl Disconnect<'_> {
    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        wire::packet(out, PacketType::Disconnect, |out| {
            if !version.is_v5() || (self.reason_code.0 == 0 && self.properties.is_empty()) {
                return;
            }
            out.push(self.reason_code.0);
            if !self.properties.is_empty() {
                wire::put_properties(out, self.properties);
            }
        });
    }
}
