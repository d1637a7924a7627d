//! What clients write and read, written anew from the specification: a mistake of the broker's codec is not shared.

use crate::codec::ProtocolVersion;

pub(super) const PUBACK: u8 = 4;
pub(super) const PUBREC: u8 = 5;
pub(super) const PUBREL: u8 = 6;
pub(super) const PUBCOMP: u8 = 7;

/// A packet from the server.
#[derive(Debug)]
pub(super) enum FromServer {
    Connack {
        present: bool,
        code: u8,
        properties: Vec<Property>,
    },
    Publish(Delivery),
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    Ack {
        kind: u8,
        packet_id: u16,
        code: u8,
    },
    Suback {
        packet_id: u16,
        codes: Vec<u8>,
    },
    Unsuback {
        packet_id: u16,
    },
    Pingresp,
    Disconnect {
        code: u8,
    },
}

/// PUBLISH from the server.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) dup: bool,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) topic: String,
    /// 0 for QoS 0.
    pub(super) packet_id: u16,
    pub(super) alias: Option<u16>,
    pub(super) expiry_secs: Option<u32>,
    pub(super) identifiers: Vec<u32>,
    /// The encoded properties that travel with the message.
    pub(super) properties: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(super) struct Property {
    pub(super) id: u8,
    pub(super) number: u32,
    encoded: Vec<u8>,
}

/// The bytes of the first packet, if it is there completely.
pub(super) fn first_packet(bytes: &[u8]) -> Option<usize> {
    let (mut length, mut shift) = (0usize, 0);
    for (place, byte) in bytes.iter().enumerate().skip(1) {
        assert!(place <= 4, "a Remaining Length of more than four bytes: {bytes:02X?}");
        length |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return Some(place + 1 + length).filter(|total| *total <= bytes.len());
        }
    }
    None
}

/// Reads one packet. Panics on anything that a server must not send.
pub(super) fn decode(version: ProtocolVersion, packet: &[u8]) -> FromServer {
    let v5 = version == ProtocolVersion::V5;
    let header = 1 + packet[1..].iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let (kind, flags) = (packet[0] >> 4, packet[0] & 15);
    let mut rest = Reader(&packet[header..], packet);
    assert!(kind == 3 || flags == if kind == PUBREL { 2 } else { 0 }, "flags of {packet:02X?}");
    let read = match kind {
        2 => {
            let present = rest.byte();
            assert!(present <= 1, "acknowledge flags of {packet:02X?}");
            let code = rest.byte();
            let properties = if v5 { rest.properties(CONNACK_PROPERTIES) } else { Vec::new() };
            assert!(code == 0 || present == 0, "Session Present in a refusal");
            FromServer::Connack { present: present == 1, code, properties }
        }
        3 => FromServer::Publish(publish(v5, flags, &mut rest)),
        PUBACK..=PUBCOMP => {
            let packet_id = rest.packet_id();
            assert!(v5 || rest.0.is_empty(), "a long acknowledgement before 5.0: {packet:02X?}");
            let code = if rest.0.is_empty() { 0 } else { rest.byte() };
            if !rest.0.is_empty() {
                rest.properties(&[0x1F, 0x26]);
            }
            FromServer::Ack { kind, packet_id, code }
        }
        9 | 11 => {
            let packet_id = rest.packet_id();
            if v5 {
                rest.properties(&[0x1F, 0x26]);
            }
            let codes = rest.rest().to_vec();
            assert!(codes.is_empty() == (kind == 11 && !v5), "reason codes of {packet:02X?}");
            if kind == 9 { FromServer::Suback { packet_id, codes } } else { FromServer::Unsuback { packet_id } }
        }
        13 => FromServer::Pingresp,
        14 => {
            assert!(v5, "DISCONNECT from a server before 5.0");
            let code = if rest.0.is_empty() { 0 } else { rest.byte() };
            if !rest.0.is_empty() {
                rest.properties(&[0x1F, 0x26, 0x1C]);
            }
            FromServer::Disconnect { code }
        }
        _ => panic!("a packet that a server does not send: {packet:02X?}"),
    };
    assert!(rest.0.is_empty(), "bytes behind the end of {packet:02X?}");
    read
}

const CONNACK_PROPERTIES: &[u8] =
    &[0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A];
const PUBLISH_PROPERTIES: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26];

fn publish(v5: bool, flags: u8, rest: &mut Reader<'_>) -> Delivery {
    let (dup, qos, retain) = (flags & 8 != 0, flags >> 1 & 3, flags & 1 != 0);
    assert!(qos < 3 && !(dup && qos == 0), "flags of PUBLISH: {flags:X}");
    let topic = String::from_utf8(rest.string().to_vec()).expect("a topic in UTF-8");
    assert!(!topic.contains(['+', '#', '\0']), "the topic {topic:?}");
    let packet_id = if qos > 0 { rest.packet_id() } else { 0 };
    let mut delivery = Delivery {
        dup,
        qos,
        retain,
        topic,
        packet_id,
        alias: None,
        expiry_secs: None,
        identifiers: Vec::new(),
        properties: Vec::new(),
        payload: Vec::new(),
    };
    for property in if v5 { rest.properties(PUBLISH_PROPERTIES) } else { Vec::new() } {
        match property.id {
            0x02 => delivery.expiry_secs = Some(property.number),
            0x0B => delivery.identifiers.push(property.number),
            0x23 => delivery.alias = Some(property.number as u16),
            _ => delivery.properties.extend(property.encoded),
        }
    }
    assert!(!delivery.identifiers.contains(&0), "a Subscription Identifier of 0");
    delivery.payload = rest.rest().to_vec();
    delivery
}

struct Reader<'a>(&'a [u8], &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        assert!(count <= self.0.len(), "the packet ends too early: {:02X?}", self.1);
        let (head, tail) = self.0.split_at(count);
        self.0 = tail;
        head
    }

    fn rest(&mut self) -> &'a [u8] {
        self.take(self.0.len())
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn packet_id(&mut self) -> u16 {
        let packet_id = self.big_endian(2) as u16;
        assert_ne!(packet_id, 0, "a Packet Identifier of 0: {:02X?}", self.1);
        packet_id
    }

    fn big_endian(&mut self, bytes: usize) -> u32 {
        self.take(bytes).iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
    }

    fn string(&mut self) -> &'a [u8] {
        let length = self.big_endian(2) as usize;
        self.take(length)
    }

    fn variable(&mut self) -> u32 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            number |= u32::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return number;
            }
            assert!(shift < 28, "a Variable Byte Integer of more than four bytes");
        }
    }

    fn properties(&mut self, allowed: &[u8]) -> Vec<Property> {
        let length = self.variable() as usize;
        let mut inside = Reader(self.take(length), self.1);
        let mut properties: Vec<Property> = Vec::new();
        while !inside.0.is_empty() {
            let before = inside.0;
            let id = inside.byte();
            assert!(allowed.contains(&id), "the property {id:02X} in {:02X?}", self.1);
            let several = id == 0x26 || id == 0x0B;
            assert!(several || properties.iter().all(|other| other.id != id), "{id:02X} twice in {:02X?}", self.1);
            let number = match id {
                0x01 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => u32::from(inside.byte()),
                0x13 | 0x21 | 0x22 | 0x23 => inside.big_endian(2),
                0x02 | 0x11 | 0x18 | 0x27 => inside.big_endian(4),
                0x0B => inside.variable(),
                0x26 => {
                    inside.string();
                    inside.string();
                    0
                }
                _ => {
                    inside.string();
                    0
                }
            };
            let encoded = before[..before.len() - inside.0.len()].to_vec();
            properties.push(Property { id, number, encoded });
        }
        properties
    }
}

/// A packet of a client, built from the inside out.
#[derive(Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    pub(super) fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    pub(super) fn two(mut self, number: u16) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn four(mut self, number: u32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn string(self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        self.two(text.len() as u16).bytes(text)
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn variable(mut self, mut number: usize) -> Self {
        while number > 0x7F {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
        self
    }

    /// Properties with their length in front, if the version has them.
    pub(super) fn properties(self, version: ProtocolVersion, properties: Body) -> Self {
        if version == ProtocolVersion::V5 { self.variable(properties.0.len()).bytes(&properties.0) } else { self }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The packet with this first byte.
    pub(super) fn packet(self, first: u8) -> Vec<u8> {
        Self::default().byte(first).variable(self.0.len()).bytes(&self.0).0
    }
}
