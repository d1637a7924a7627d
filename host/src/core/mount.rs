//! A mount point: clients of one listener see the part of the topics that is below a prefix, and nothing of the rest.
//!
//! Everything but these clients goes by the real names. So the prefix is put into their packets as soon as these have come
//! completely, before anything else looks at them, and taken off when a packet is written for them. Both is done for them
//! alone: [`MOUNTED`] keeps them away from what packets have in common with those of others.

use std::fmt;
use std::str::FromStr;

use plugin_api::topic::{self, Share};
use plugin_api::{DropReason, ReasonCode};
use zeroize::Zeroize;

use super::Core;
use super::connection::Connection;
use super::inbound::Next;
use super::templates::{Class, Own, encode};
use crate::clock::Millis;
use crate::codec::{self, DecodeError, Packet, ProtocolVersion};
use crate::message::MessageParts;

/// [`Connection::aliases_max`] of a connection with a mount point: its packets are its own, as are those of who takes Topic
/// Aliases. It is sent none: the room that they would take is for the others'.
pub(super) const MOUNTED: u8 = u8::MAX;

/// Bytes that a mount point may have, so that a packet with many Topic Filters does not become much larger.
const BYTES_MAX: usize = 256;

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const SUBSCRIBE: u8 = 8;
const UNSUBSCRIBE: u8 = 10;

/// The topics below a prefix of whole levels.
///
/// ```
/// let mount: host::core::Mount = "sites/7".parse().expect("two levels");
/// assert_eq!(mount.prefix(), "sites/7/");
/// assert!("sites/#".parse::<host::core::Mount>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount(Box<str>);

/// What is no mount point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountError {
    got: String,
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no mount point: expected the levels of a topic that all its clients are below, such as `sites/7`: \
             up to {BYTES_MAX} bytes, without `+`, `#`, control characters, and `$` at the beginning",
            self.got.escape_debug()
        )
    }
}

impl std::error::Error for MountError {}

impl FromStr for Mount {
    type Err = MountError;

    /// `sites/7` and `sites/7/` are the same.
    fn from_str(text: &str) -> Result<Self, MountError> {
        let levels = text.strip_suffix('/').unwrap_or(text);
        let is_sound = !levels.is_empty()
            && levels.len() < BYTES_MAX
            && !levels.starts_with('$')
            && !levels.contains(|c: char| matches!(c, '+' | '#') || c.is_control());
        if is_sound { Ok(Self(format!("{levels}/").into())) } else { Err(MountError { got: text.to_owned() }) }
    }
}

impl Mount {
    /// What stands before the topics that its clients see, with a slash at the end.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.0
    }

    /// A topic as its clients see it; `None` if they do not.
    fn below<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.strip_prefix(self.prefix()).filter(|rest| !rest.is_empty())
    }

    /// A packet with the real names in the place of those that its client knows. `None` if there are no names in it; or none
    /// that could be found, so that whoever decodes it says what is wrong.
    fn real(
        &self,
        version: ProtocolVersion,
        packet: &[u8],
        header_bytes: usize,
        filters_max: usize,
    ) -> Result<Option<Vec<u8>>, DecodeError> {
        let mut names = Vec::new();
        match packet[0] >> 4 {
            // One without a topic has a Topic Alias, which stands for a real name.
            PUBLISH if codec::topic_bytes(packet, header_bytes).is_some_and(|topic| !topic.is_empty()) => {
                names.push((header_bytes, header_bytes + LENGTH_BYTES));
            }
            CONNECT => {
                let connect = codec::decode_connect(packet, header_bytes).ok();
                let will = connect.and_then(|connect| connect.will).filter(|will| !will.topic.is_empty());
                names.extend(will.map(|will| place(packet, will.topic, will.topic)));
            }
            SUBSCRIBE | UNSUBSCRIBE => match codec::decode(version, packet, header_bytes) {
                Ok(Packet::Subscribe(subscribe)) => {
                    let filters = subscribe.filters.iter().map(|one| one.filter);
                    names.extend(filters.take(filters_max + 1).filter_map(|filter| place_of_filter(packet, filter)));
                }
                Ok(Packet::Unsubscribe(unsubscribe)) => {
                    let filters = unsubscribe.filters.iter();
                    names.extend(filters.take(filters_max + 1).filter_map(|filter| place_of_filter(packet, filter)));
                }
                _ => {}
            },
            _ => {}
        }
        // A packet with too many is refused as it is: it gets no memory for longer ones.
        if names.is_empty() || names.len() > filters_max {
            return Ok(None);
        }
        let code = if packet[0] >> 4 == SUBSCRIBE || packet[0] >> 4 == UNSUBSCRIBE {
            ReasonCode::TOPIC_FILTER_INVALID
        } else {
            ReasonCode::TOPIC_NAME_INVALID
        };
        let what = "with the mount point of its listener before it, a topic is longer than MQTT can express";
        insert(packet, header_bytes, &names, self.prefix()).map(Some).ok_or(DecodeError::Protocol { code, what })
    }
}

/// Bytes of a fixed header.
const HEADER_BYTES_MAX: usize = 5;
/// Bytes of the length of a string.
const LENGTH_BYTES: usize = 2;

/// Where a string has its length, and where `part` of it begins.
fn place(packet: &[u8], string: &str, part: &str) -> (usize, usize) {
    let at = |text: &str| text.as_ptr().addr() - packet.as_ptr().addr();
    (at(string) - LENGTH_BYTES, at(part))
}

/// The same for a Topic Filter, whose ShareName stays where it is. One that is none stays as it is.
fn place_of_filter(packet: &[u8], written: &str) -> Option<(usize, usize)> {
    match topic::split_share(written) {
        Share::Group { filter, .. } => Some(place(packet, written, filter)),
        Share::None if !written.is_empty() => Some(place(packet, written, written)),
        Share::None | Share::Malformed => None,
    }
}

/// The packet with a prefix at the places of its names. `None` if one of them, or the packet, becomes too long.
fn insert(packet: &[u8], header_bytes: usize, names: &[(usize, usize)], prefix: &str) -> Option<Vec<u8>> {
    let remaining_bytes = packet.len() - header_bytes + names.len() * prefix.len();
    if remaining_bytes > codec::PACKET_BYTES_MAX - HEADER_BYTES_MAX {
        return None;
    }
    let mut real = Vec::with_capacity(remaining_bytes + HEADER_BYTES_MAX);
    real.push(packet[0]);
    codec::put_variable_byte_integer(&mut real, remaining_bytes);
    let mut done = header_bytes;
    for &(length_at, name_at) in names {
        let bytes = u16::from_be_bytes([packet[length_at], packet[length_at + 1]]);
        let bytes = bytes.checked_add(u16::try_from(prefix.len()).ok()?)?;
        real.extend_from_slice(&packet[done..length_at]);
        real.extend_from_slice(&bytes.to_be_bytes());
        real.extend_from_slice(&packet[length_at + LENGTH_BYTES..name_at]);
        real.extend_from_slice(prefix.as_bytes());
        done = name_at;
    }
    real.extend_from_slice(&packet[done..]);
    Some(real)
}

impl Core {
    /// Handles a packet of a client that sees the topics below a mount point.
    #[cold]
    pub(super) fn packet_below(&mut self, slot: u32, packet: &[u8], header_bytes: usize) -> Next {
        let connection = &self.connections[slot as usize];
        let listener = &connection.listener;
        let Some(mount) = &listener.profile.mount else { return Next::Stop };
        let filters_max = listener.limits.filters_a_packet_max;
        let mut real = match mount.real(connection.version, packet, header_bytes, filters_max) {
            Ok(Some(real)) => real,
            unchanged => {
                let handled = unchanged.and_then(|_| self.packet(slot, packet, header_bytes));
                return self.conclude(slot, packet, header_bytes, handled);
            }
        };
        let header_bytes = codec::header_bytes(&real).unwrap_or(0);
        let handled = self.packet(slot, &real, header_bytes);
        let next = self.conclude(slot, &real, header_bytes, handled);
        if packet[0] >> 4 == CONNECT {
            real.zeroize(); // There may be a password in it.
        }
        next
    }
}

impl Connection {
    /// Appends a PUBLISH packet for a client that sees the topics below a mount point. `Err` if this one is not among them.
    #[cold]
    pub(super) fn append_below(
        &mut self,
        class: Class,
        parts: &MessageParts<'_>,
        own: &Own<'_>,
        now: Millis,
    ) -> Result<(), DropReason> {
        let mount = self.listener.profile.mount.as_ref();
        let topic = mount.and_then(|mount| mount.below(parts.topic)).ok_or(DropReason::OutsideMount)?;
        encode(&mut self.out, class, &MessageParts { topic, as_it_came: None, ..*parts }, own, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_whole_levels() {
        for (text, prefix) in [("a", "a/"), ("a/", "a/"), ("a/b", "a/b/"), ("/", ""), ("/a", "/a/"), ("ä/b//", "ä/b//")]
        {
            let got = text.parse::<Mount>().map(|mount| mount.prefix().to_owned());
            assert_eq!(got.unwrap_or_default(), prefix, "{text}");
        }
        let long = "x".repeat(BYTES_MAX);
        for text in ["", "/", "a/#", "+/a", "$SYS", "$share/g/a", "a\0b", "a\nb", &long] {
            let error = text.parse::<Mount>().unwrap_err().to_string();
            assert!(error.contains("expected the levels of a topic"), "{error}");
        }
        assert!(long[1..].parse::<Mount>().is_ok());
    }

    #[test]
    fn topics_below_are_whole_levels_too() {
        let mount: Mount = "a/b".parse().unwrap();
        for (topic, seen) in [
            ("a/b/c", Some("c")),
            ("a/b//", Some("/")),
            ("a/b/", None),
            ("a/b", None),
            ("a/bc", None),
            ("x/a/b/c", None),
        ] {
            assert_eq!(mount.below(topic), seen, "{topic}");
        }
    }

    /// A name that does not fit any more is an error, and too many filters are left to who refuses them.
    #[test]
    fn what_becomes_too_long_is_refused() {
        let mount: Mount = "mount".parse().unwrap();
        for (bytes, fits) in [(65_529, true), (65_530, false)] {
            let mut packet = vec![0x30];
            codec::put_variable_byte_integer(&mut packet, bytes + 2);
            let header_bytes = packet.len();
            packet.extend_from_slice(&u16::try_from(bytes).unwrap().to_be_bytes());
            packet.resize(packet.len() + bytes, b't');
            let real = mount.real(ProtocolVersion::V3_1_1, &packet, header_bytes, 10);
            assert_eq!(real.is_ok(), fits, "{bytes}");
        }
        let packet = b"\x82\x0A\0\x01\0\x01a\0\0\x01b\0";
        for (filters_max, is_changed) in [(1, false), (2, true)] {
            let real = mount.real(ProtocolVersion::V3_1_1, packet, 2, filters_max).unwrap();
            assert_eq!(real.is_some(), is_changed, "{filters_max}");
        }
    }
}
