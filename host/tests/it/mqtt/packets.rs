//! Packets as bytes: what clients send is put together, and what has come is taken apart.

/// The protocol versions, by their level.
pub(crate) const V3_1: u8 = 3;
pub(crate) const V3_1_1: u8 = 4;
pub(crate) const V5: u8 = 5;
pub(crate) const VERSIONS: [u8; 3] = [V3_1, V3_1_1, V5];

/// A length-prefixed string or binary data.
pub(crate) fn field(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut out = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

/// A variable byte integer.
pub(crate) fn varint(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let more = number >= 128;
        out.push((number % 128) as u8 | if more { 0x80 } else { 0 });
        number /= 128;
        if !more {
            return out;
        }
    }
}

/// A packet from its first byte and what follows the length.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    out.extend(varint(body.len()));
    out.extend_from_slice(body);
    out
}

/// Properties with their length in 5.0; nothing before.
pub(crate) fn properties(version: u8, properties: &[u8]) -> Vec<u8> {
    if version < V5 {
        return Vec::new();
    }
    [varint(properties.len()), properties.to_vec()].concat()
}

/// A Will Message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Will {
    pub(crate) topic: &'static str,
    pub(crate) payload: &'static str,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: Vec<u8>,
}

/// A CONNECT packet to be.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    pub(crate) version: u8,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) username: Option<&'static str>,
    pub(crate) password: Option<&'static str>,
    pub(crate) will: Option<Will>,
    pub(crate) properties: Vec<u8>,
}

impl Connect {
    pub(crate) fn new(version: u8, client_id: impl Into<String>) -> Self {
        Self {
            version,
            client_id: client_id.into(),
            clean: true,
            keep_alive: 0,
            username: None,
            password: None,
            will: None,
            properties: Vec::new(),
        }
    }

    /// A session that outlives the connection.
    pub(crate) fn persistent(mut self) -> Self {
        self.clean = false;
        if self.version == V5 {
            self.properties.extend([0x11, 0, 0, 0, 100]);
        }
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let name = if self.version == V3_1 { "MQIsdp" } else { "MQTT" };
        let mut flags = u8::from(self.clean) << 1;
        let mut payload = field(&self.client_id);
        if let Some(will) = &self.will {
            flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
            payload.extend(properties(self.version, &will.properties));
            payload.extend(field(will.topic));
            payload.extend(field(will.payload));
        }
        if let Some(username) = self.username {
            flags |= 0x80;
            payload.extend(field(username));
        }
        if let Some(password) = self.password {
            flags |= 0x40;
            payload.extend(field(password));
        }
        let mut body = field(name);
        body.extend([self.version, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        body.extend(properties(self.version, &self.properties));
        body.extend(payload);
        packet(0x10, &body)
    }
}

/// A PUBLISH packet, sent or received.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// 0 for QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) properties: Vec<u8>,
}

impl Publish {
    pub(crate) fn new(topic: impl Into<String>, payload: impl AsRef<[u8]>) -> Self {
        Self { topic: topic.into(), payload: payload.as_ref().to_vec(), ..Self::default() }
    }

    pub(crate) fn qos(mut self, qos: u8, packet_id: u16) -> Self {
        (self.qos, self.packet_id) = (qos, packet_id);
        self
    }

    pub(crate) fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    pub(crate) fn bytes(&self, version: u8) -> Vec<u8> {
        let mut body = field(&self.topic);
        if self.qos > 0 {
            body.extend(self.packet_id.to_be_bytes());
        }
        body.extend(properties(version, &self.properties));
        body.extend_from_slice(&self.payload);
        packet(0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain), &body)
    }

    pub(crate) fn parse(version: u8, packet: &[u8]) -> Self {
        let mut body = Body::of(packet);
        let qos = packet[0] >> 1 & 3;
        Self {
            topic: String::from_utf8(body.field()).unwrap(),
            packet_id: if qos > 0 { body.u16() } else { 0 },
            properties: if version == V5 { body.properties() } else { Vec::new() },
            payload: body.0.to_vec(),
            qos,
            retain: packet[0] & 1 != 0,
            dup: packet[0] & 8 != 0,
        }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }
}

/// The rest of a packet, read from the front.
pub(crate) struct Body<'a>(pub(crate) &'a [u8]);

impl<'a> Body<'a> {
    /// What follows the length.
    pub(crate) fn of(packet: &'a [u8]) -> Self {
        let mut body = Self(&packet[1..]);
        let length = body.varint();
        assert_eq!(length, body.0.len());
        body
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(count);
        self.0 = tail;
        head
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    pub(crate) fn field(&mut self) -> Vec<u8> {
        let length = self.u16();
        self.take(length.into()).to_vec()
    }

    pub(crate) fn varint(&mut self) -> usize {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.u8();
            number |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return number;
            }
        }
    }

    /// Encoded properties, without their length.
    pub(crate) fn properties(&mut self) -> Vec<u8> {
        let length = self.varint();
        self.take(length).to_vec()
    }
}

/// What CONNACK says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connack {
    pub(crate) session_present: bool,
    pub(crate) code: u8,
    pub(crate) properties: Vec<u8>,
}
