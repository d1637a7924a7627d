//! What one client was sent with QoS 1 as it came, kept as packets until it is acknowledged.
//!
//! A message that goes to one client only is hardly ever looked at again: its acknowledgement comes, in the order of sending. So
//! it costs a copy of its packet behind those that the client was sent before, and where that ends. To make a message of each
//! that counts its references, and to give its memory back, took 340 instructions of some 1,100. Only when something else is
//! done with one is a message made of it.

use std::mem;

use plugin_api::QoS;

use super::budget::{Account, Kept};
use super::session::Queued;
use super::templates::version;
use crate::codec;
use crate::message::MessageParts;

/// Packets are put behind each other until they are so large. So what is acknowledged is given back soon.
const BYTES_MAX: usize = if cfg!(any(test, fuzzing)) { 100 } else { 16 << 10 };

/// What one takes beyond its buffers.
const OWN_BYTES: usize = 128;

/// A PUBLISH packet with QoS 1, without DUP, RETAIN and properties, in its shortest form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    /// Its Packet Identifier may be anybody's.
    pub(super) bytes: &'a [u8],
    /// Of its Topic Name and payload.
    pub(super) message_bytes: usize,
    /// Whether it has a list of properties, which is empty.
    pub(super) is_v5: bool,
}

/// Some packets that were sent one behind the other.
#[derive(Debug)]
pub(super) struct Sent {
    buffers: Buffers,
    is_v5: bool,
    account: Account,
}

/// The memory of it, which is used again: see [`Account::spare_buffers`].
#[derive(Debug, Default)]
pub(super) struct Buffers {
    packets: Vec<u8>,
    ends: Vec<End>,
}

#[derive(Debug, Clone, Copy)]
struct End {
    /// Where a packet ends.
    at: u32,
    message_bytes: u32,
}

impl Buffers {
    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.packets.capacity() + self.ends.capacity() * size_of::<End>()
    }

    fn clear(&mut self) {
        self.packets.clear();
        self.ends.clear();
    }
}

fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a packet is smaller than 256 MiB, and no other is put behind a large one")
}

impl Sent {
    pub(super) fn new(packet: &Packet<'_>, account: &Account) -> Self {
        let buffers = account.spare_buffers();
        account.add(OWN_BYTES + buffers.bytes());
        let mut sent = Self { buffers, is_v5: packet.is_v5, account: account.clone() };
        sent.push(packet);
        sent
    }

    /// How many there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.buffers.ends.len()
    }

    /// Whether another one may be put behind them.
    #[inline]
    pub(super) fn has_room_for(&self, packet: &Packet<'_>) -> bool {
        self.buffers.packets.len() + packet.bytes.len() <= BYTES_MAX && self.is_v5 == packet.is_v5
    }

    #[inline]
    pub(super) fn push(&mut self, packet: &Packet<'_>) {
        let before = self.buffers.bytes();
        self.buffers.packets.extend_from_slice(packet.bytes);
        let end = End { at: narrow(self.buffers.packets.len()), message_bytes: narrow(packet.message_bytes) };
        self.buffers.ends.push(end);
        self.account.change(before, self.buffers.bytes());
    }

    /// Bytes of Topic Names and payloads of some of them.
    #[inline]
    pub(super) fn message_bytes(&self, which: std::ops::Range<usize>) -> usize {
        self.buffers.ends[which].iter().map(|end| end.message_bytes as usize).sum()
    }

    /// The message of one of them.
    pub(super) fn message(&self, number: usize) -> Queued {
        let Buffers { packets, ends } = &self.buffers;
        let start = number.checked_sub(1).map_or(0, |before| ends[before].at);
        let packet = &packets[start as usize..ends[number].at as usize];
        let header_bytes = codec::header_bytes(packet).unwrap_or(0);
        // It was valid when it came.
        let topic = codec::topic_bytes(packet, header_bytes).and_then(|topic| std::str::from_utf8(topic).ok());
        let publish =
            codec::decode_publish(version(self.is_v5), packet, header_bytes, topic).expect("it was sent like that");
        let parts = MessageParts::plain(publish.topic, publish.payload, QoS::AtLeastOnce);
        let message = Kept::new(&parts, &self.account);
        Queued::plain(message, QoS::AtLeastOnce)
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let mut buffers = mem::take(&mut self.buffers);
        self.account.sub(OWN_BYTES + buffers.bytes());
        buffers.clear();
        self.account.keep_spare_buffers(buffers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Source;

    #[test]
    fn a_message_is_what_was_in_its_packet() {
        let account = Account::default();
        for is_v5 in [false, true] {
            let payloads = ["", "1", "a longer one"].map(str::as_bytes);
            let mut all: Option<Sent> = None;
            for payload in payloads {
                let mut bytes = vec![0x32, (5 + usize::from(is_v5) + payload.len()) as u8, 0, 1, b't', 0x12, 0x34];
                bytes.extend(is_v5.then_some(0));
                bytes.extend_from_slice(payload);
                let packet = Packet { bytes: &bytes, message_bytes: 1 + payload.len(), is_v5 };
                match &mut all {
                    Some(sent) => sent.push(&packet),
                    None => all = Some(Sent::new(&packet, &account)),
                }
            }
            let sent = all.expect("there is one");
            assert_eq!((sent.len(), sent.message_bytes(1..3)), (3, 2 + 13));
            for (number, payload) in payloads.into_iter().enumerate() {
                let Queued { message, qos, retain, origin } = sent.message(number);
                assert_eq!((message.topic(), message.payload(), message.properties()), ("t", payload, &[][..]));
                assert_eq!((qos, message.qos(), retain, message.retain()), (QoS::AtLeastOnce, qos, false, false));
                assert_eq!((message.source(), message.expires_at()), (Source::Client, None));
                assert!(origin.identifiers().is_empty() && origin.group().is_none());
            }
            assert!(account.bytes() > 0);
        }
        assert_eq!(account.bytes(), 0);
    }
}
