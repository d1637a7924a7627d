//! What clients know of themselves and of each other: what was sent, what was acknowledged, and what that promises.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::mqtt::Publish;

/// A moment in the order in which clients write and read.
pub(super) type Tick = u64;

/// A message without payload, which nobody can tell from another one.
pub(super) const NOBODY_KNOWS: usize = usize::MAX;

/// What a client is like, for all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// Its session outlives its connections, and is begun anew now and then.
    Persistent,
    /// The same, and it is never begun anew: what it has subscribed to at first it has for ever. It has a will, which
    /// waits for an hour.
    Steady,
    /// Its session ends with its connection.
    Transient,
    /// It connects with a will that waits for a second, goes, and does not come back.
    Mortal,
}

/// An Application Message.
pub(super) struct Msg {
    pub(super) topic: String,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) is_empty: bool,
    pub(super) is_will: bool,
    pub(super) publisher: usize,
    /// When it was written first; with CONNECT, if it is a will.
    pub(super) first: Option<Tick>,
    /// It cannot be routed any more after that.
    pub(super) last: Option<Tick>,
    /// The server has promised that whoever has subscribed gets it.
    pub(super) is_promised: bool,
    /// PUBLISH and PUBREL packets of it.
    pub(super) sent: u32,
}

/// One version of a subscription.
pub(super) struct Sub {
    pub(super) filter: String,
    pub(super) qos: u8,
    /// SUBACK was read.
    pub(super) certain_from: Option<Tick>,
    /// UNSUBSCRIBE, or SUBSCRIBE for the same filter, was written; the answer was read.
    pub(super) certain_to: Option<Tick>,
    pub(super) to: Option<Tick>,
}

/// What a session has got of a message, apart from what is retained.
#[derive(Default)]
pub(super) struct Got {
    pub(super) times: u32,
    /// With QoS 2.
    pub(super) exactly: u32,
    pub(super) qos: u8,
}

/// A Session, as its client knows it.
#[derive(Default)]
pub(super) struct Session {
    pub(super) subs: Vec<Sub>,
    pub(super) got: HashMap<usize, Got>,
    /// The latest message of each publisher, topic, QoS and QoS of delivery.
    pub(super) latest: HashMap<(usize, String, u8, u8), usize>,
    /// CONNACK has come, and it is to last.
    pub(super) is_promised: bool,
    pub(super) ends_with_connection: bool,
    pub(super) is_over: bool,
}

/// A message of a client that is not acknowledged completely.
pub(super) struct Out {
    pub(super) packet_id: u16,
    pub(super) msg: usize,
    pub(super) publish: Publish,
    /// PUBREC has come.
    pub(super) is_released: bool,
    /// It was written on the present connection.
    pub(super) is_sent: bool,
}

/// SUBSCRIBE or UNSUBSCRIBE that was not answered.
pub(super) struct Asking {
    pub(super) packet_id: u16,
    pub(super) filter: String,
    pub(super) subscribes: bool,
}

/// A client with its half of the protocol's state.
pub(super) struct Client {
    pub(super) name: String,
    pub(super) nature: Nature,
    pub(super) version: u8,
    pub(super) receive_maximum: Option<u16>,
    /// In so many of a hundred cases it puts its answers off.
    pub(super) laziness: usize,
    pub(super) link: Option<super::link::Link>,
    /// CONNACK has come.
    pub(super) is_connected: bool,
    /// It does not know what the server has kept.
    pub(super) must_clean: bool,
    pub(super) session: usize,
    pub(super) will: Option<usize>,
    pub(super) out: VecDeque<Out>,
    pub(super) next_packet_id: u16,
    pub(super) asking: Option<Asking>,
    /// QoS 2 messages that it has and that were not released.
    pub(super) received: BTreeMap<u16, usize>,
    /// Answers that it owes, in their order: the first byte of the packet, and what it is about.
    pub(super) owes: VecDeque<(u8, u16)>,
    pub(super) pings: usize,
    /// PUBLISH packets that it has read.
    pub(super) publishes: u64,
    /// How much the server takes at a time.
    pub(super) quota: usize,
}

impl Client {
    pub(super) fn new(name: String, nature: Nature, version: u8) -> Self {
        Self {
            name,
            nature,
            version,
            receive_maximum: None,
            laziness: 0,
            link: None,
            is_connected: false,
            must_clean: false,
            session: 0,
            will: None,
            out: VecDeque::new(),
            next_packet_id: 1,
            asking: None,
            received: BTreeMap::new(),
            owes: VecDeque::new(),
            pings: 0,
            publishes: 0,
            quota: 20,
        }
    }

    /// A Packet Identifier that it does not use. It has few of them, so that each is used again soon.
    pub(super) fn packet_id(&mut self) -> u16 {
        loop {
            self.next_packet_id = self.next_packet_id % 60 + 1;
            let taken = self.asking.as_ref().is_some_and(|asking| asking.packet_id == self.next_packet_id);
            if !taken && self.out.iter().all(|out| out.packet_id != self.next_packet_id) {
                return self.next_packet_id;
            }
        }
    }

    /// Whether there is nothing that it waits for or owes.
    pub(super) fn is_quiet(&self) -> bool {
        self.out.is_empty() && self.asking.is_none() && self.owes.is_empty() && self.received.is_empty()
    }
}
