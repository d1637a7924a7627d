//! CONNECT (section 3.1): the first packet from a client.

use plugin_api::{Properties, QoS, ReasonCode};

use super::property_rules::Context;
use super::wire::{self, Reader};
use super::{DecodeError, PacketType, ProtocolVersion, frame};

/// CONNECT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connect<'a> {
    /// The version of the protocol that is spoken from here on.
    pub version: ProtocolVersion,
    /// The Client Identifier; may be empty from MQTT 3.1.1 on, and the server has to choose one then
    /// [MQTT-3.1.3-6].
    pub client_id: &'a str,
    /// Clean Start; in MQTT 3.x Clean Session.
    pub clean_start: bool,
    /// Keep Alive in seconds; 0 turns it off.
    pub keep_alive: u16,
    /// The User Name; absent is not the same as empty.
    pub username: Option<&'a str>,
    /// The Password; absent is not the same as empty. Without a User Name only in MQTT 5.0.
    pub password: Option<&'a [u8]>,
    /// The Will Message.
    pub will: Option<Will<'a>>,
    /// The properties of the connection; those of the Will Message are with it.
    pub properties: Properties<'a>,
}

/// The message that the server publishes if the connection is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Will<'a> {
    /// The Topic Name; valid, not empty.
    pub topic: &'a str,
    /// The payload.
    pub payload: &'a [u8],
    /// The QoS.
    pub qos: QoS,
    /// Whether it is published as a retained message.
    pub retain: bool,
    /// The Will Properties.
    pub properties: Properties<'a>,
}

/// The Connect Flags (section 3.1.2.3).
mod flag {
    pub(super) const RESERVED: u8 = 0b0000_0001;
    pub(super) const CLEAN_START: u8 = 0b0000_0010;
    pub(super) const WILL: u8 = 0b0000_0100;
    pub(super) const WILL_QOS: u8 = 0b0001_1000;
    pub(super) const WILL_RETAIN: u8 = 0b0010_0000;
    pub(super) const PASSWORD: u8 = 0b0100_0000;
    pub(super) const USER_NAME: u8 = 0b1000_0000;
    pub(super) const WILL_QOS_SHIFT: u32 = 3;
}

const NAME: &str = "MQTT";
const NAME_3_1: &str = "MQIsdp";

/// Decodes a CONNECT, which says its own version. See [`connect_refusal`] for what to do with an
/// error.
///
/// # Errors
/// [`DecodeError::ProtocolName`] if it is not MQTT at all, [`DecodeError::UnsupportedVersion`] if it
/// is another version of it, and whatever is wrong with the packet itself [MQTT-3.1.4-1].
pub fn decode_connect(packet: &[u8], header_bytes: usize) -> Result<Connect<'_>, DecodeError> {
    let (packet_type, flags, body) = frame::split(packet, header_bytes)?;
    if packet_type != PacketType::Connect {
        // [MQTT-3.1.0-1]
        return Err(DecodeError::protocol("the first packet is not CONNECT"));
    }
    let mut reader = Reader::new(packet_type, body);
    let version = read_version(&mut reader)?;
    frame::check_remaining_length(version, header_bytes, body.len())?;
    // [MQTT-2.1.3-1]
    frame::check_flags(version, packet_type, flags)?;
    let connect = read_after_version(version, &mut reader)?;
    reader.finish()?;
    Ok(connect)
}

/// How to answer a CONNECT that [`decode_connect`] refused: with a CONNACK of this version and with
/// this Reason Code, or (`None`) by closing the Network Connection without a word.
///
/// MQTT 3.x has return codes for a version that is not supported and for a Client Identifier that
/// is not accepted, but none for a Malformed Packet. Something that is not MQTT gets no answer.
pub fn connect_refusal(
    packet: &[u8],
    header_bytes: usize,
    error: &DecodeError,
) -> Option<(ProtocolVersion, ReasonCode)> {
    let code = error.reason_code();
    if let DecodeError::UnsupportedVersion { level } = *error {
        // [MQTT-3.1.2-2] A later version is likely to understand what 5.0 does, an earlier one not.
        // The highest bit is set by bridges of Mosquitto, which speak 3.x and fall back when they are told that. The
        // protocol name of 3.1 has no later versions.
        let is_mqtt = packet.get(header_bytes..).is_some_and(|body| body.starts_with(b"\0\x04MQTT"));
        let later = is_mqtt && level > ProtocolVersion::V5 as u8 && level & 0x80 == 0;
        return Some((if later { ProtocolVersion::V5 } else { ProtocolVersion::V3_1_1 }, code));
    }
    let (PacketType::Connect, _, body) = frame::split(packet, header_bytes).ok()? else {
        return None;
    };
    let version = read_version(&mut Reader::new(PacketType::Connect, body)).ok()?;
    (version.is_v5() || code == ReasonCode::CLIENT_IDENTIFIER_NOT_VALID).then_some((version, code))
}

/// Protocol Name and Protocol Version.
fn read_version(reader: &mut Reader<'_>) -> Result<ProtocolVersion, DecodeError> {
    let name = reader.binary("Protocol Name")?;
    if name != NAME.as_bytes() && name != NAME_3_1.as_bytes() {
        return Err(DecodeError::ProtocolName);
    }
    let level = reader.byte("Protocol Version")?;
    match (name == NAME.as_bytes(), level) {
        (false, 3) => Ok(ProtocolVersion::V3_1),
        (true, 4) => Ok(ProtocolVersion::V3_1_1),
        (true, 5) => Ok(ProtocolVersion::V5),
        _ => Err(DecodeError::UnsupportedVersion { level }),
    }
}

fn read_after_version<'a>(version: ProtocolVersion, reader: &mut Reader<'a>) -> Result<Connect<'a>, DecodeError> {
    let flags = reader.byte("Connect Flags")?;
    check_connect_flags(version, flags)?;
    let is_set = |flag| flags & flag != 0;
    let keep_alive = reader.two_bytes("Keep Alive")?;
    let properties = match version {
        ProtocolVersion::V5 => reader.properties(Context::Connect)?,
        ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 => Properties::EMPTY,
    };
    // The order of the rest is fixed [MQTT-3.1.3-1].
    let client_id = reader.string("Client Identifier")?;
    let clean_start = is_set(flag::CLEAN_START);
    check_client_id(version, client_id, clean_start)?;
    // [MQTT-3.1.2-9]
    let will = is_set(flag::WILL).then(|| read_will(version, flags, reader)).transpose()?;
    // MQTT 3.1 says that a User Name or Password may be missing even though its flag is set: the
    // packet's length takes precedence.
    let is_present =
        |flag, reader: &Reader<'_>| is_set(flag) && !(version == ProtocolVersion::V3_1 && reader.is_empty());
    // [MQTT-3.1.2-16] [MQTT-3.1.2-17]
    let username = is_present(flag::USER_NAME, reader).then(|| reader.string("User Name")).transpose()?;
    // [MQTT-3.1.2-18] [MQTT-3.1.2-19]
    let password = is_present(flag::PASSWORD, reader).then(|| reader.binary("Password")).transpose()?;
    Ok(Connect { version, client_id, clean_start, keep_alive, username, password, will, properties })
}

fn check_connect_flags(version: ProtocolVersion, flags: u8) -> Result<(), DecodeError> {
    let is_set = |flag| flags & flag != 0;
    // MQTT 3.1 ignores the reserved bit, and the bits of a Will that is not there.
    let strict = version >= ProtocolVersion::V3_1_1;
    if strict && is_set(flag::RESERVED) {
        // [MQTT-3.1.2-3]
        return Err(DecodeError::Malformed("the reserved bit of the Connect Flags is 1, expected 0"));
    }
    if strict && !is_set(flag::WILL) && is_set(flag::WILL_QOS | flag::WILL_RETAIN) {
        // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
        return Err(DecodeError::Malformed("Will QoS or Will Retain without the Will Flag"));
    }
    if !version.is_v5() && is_set(flag::PASSWORD) && !is_set(flag::USER_NAME) {
        return Err(DecodeError::Malformed("a Password without a User Name, which is allowed from MQTT 5.0 on"));
    }
    Ok(())
}

fn check_client_id(version: ProtocolVersion, client_id: &str, clean_start: bool) -> Result<(), DecodeError> {
    let what = match version {
        _ if !client_id.is_empty() => return Ok(()),
        // [MQTT-3.1.3-6]
        ProtocolVersion::V5 => return Ok(()),
        ProtocolVersion::V3_1_1 if clean_start => return Ok(()),
        ProtocolVersion::V3_1_1 => {
            "an empty Client Identifier without Clean Session: nobody could find that session again"
        }
        ProtocolVersion::V3_1 => "an empty Client Identifier, expected 1 character at least",
    };
    Err(DecodeError::Protocol { code: ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, what })
}

fn read_will<'a>(version: ProtocolVersion, flags: u8, reader: &mut Reader<'a>) -> Result<Will<'a>, DecodeError> {
    let qos = QoS::from_u8((flags & flag::WILL_QOS) >> flag::WILL_QOS_SHIFT)
        .ok_or(DecodeError::Malformed("the Will QoS is 3, expected 0, 1 or 2"))?;
    let properties = match version {
        ProtocolVersion::V5 => reader.properties(Context::Will)?,
        ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 => Properties::EMPTY,
    };
    // [MQTT-3.1.3-11]
    let topic = reader.topic_name("Will Topic")?;
    if topic.is_empty() {
        // [MQTT-4.7.3-1]
        return Err(DecodeError::Protocol {
            code: ReasonCode::TOPIC_NAME_INVALID,
            what: "the Will Topic is empty, expected 1 character at least",
        });
    }
    let payload = reader.binary("Will Payload")?;
    Ok(Will { topic, payload, qos, retain: flags & flag::WILL_RETAIN != 0, properties })
}

impl Connect<'_> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let name = if self.version == ProtocolVersion::V3_1 { NAME_3_1 } else { NAME };
        wire::packet(out, PacketType::Connect, |out| {
            wire::put_string(out, name);
            out.push(self.version as u8);
            out.push(self.connect_flags());
            out.extend_from_slice(&self.keep_alive.to_be_bytes());
            if self.version.is_v5() {
                wire::put_properties(out, self.properties);
            }
            wire::put_string(out, self.client_id);
            if let Some(will) = &self.will {
                if self.version.is_v5() {
                    wire::put_properties(out, will.properties);
                }
                wire::put_string(out, will.topic);
                wire::put_binary(out, will.payload);
            }
            if let Some(username) = self.username {
                wire::put_string(out, username);
            }
            if let Some(password) = self.password {
                wire::put_binary(out, password);
            }
        });
    }

    fn connect_flags(&self) -> u8 {
        let when = |condition, flag| if condition { flag } else { 0 };
        let will = self.will.as_ref().map_or(0, |will| {
            flag::WILL | (will.qos as u8) << flag::WILL_QOS_SHIFT | when(will.retain, flag::WILL_RETAIN)
        });
        will | when(self.clean_start, flag::CLEAN_START)
            | when(self.username.is_some(), flag::USER_NAME)
            | when(self.password.is_some(), flag::PASSWORD)
    }
}
