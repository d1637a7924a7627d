//! What the simulation knows: clients and their connections from the outside, sessions and messages for the oracle.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::super::ProtocolVersion;
use crate::clock::Millis;

/// A moment in the order of what happens; time stands still meanwhile.
pub(super) type Step = u64;

/// Publisher of what plugins publish.
pub(super) const PLUGIN: usize = usize::MAX;

/// One client: what it is like, and its own half of the protocol's state.
pub(super) struct Client {
    pub(super) name: String,
    pub(super) version: ProtocolVersion,
    pub(super) receive_maximum: Option<u16>,
    pub(super) packet_bytes_max: Option<u32>,
    pub(super) alias_max: u16,
    /// It answers at once, or when it gets round to it.
    pub(super) eager: bool,
    /// It does not keep to the order of acknowledgements, as many do not.
    pub(super) disorderly: bool,
    pub(super) conn: Option<usize>,
    /// It does not know what the server has kept, so that it has to begin anew.
    pub(super) must_clean: bool,
    /// The session that its state belongs to.
    pub(super) session: Option<usize>,
    /// Its messages on their way, oldest first.
    pub(super) out: VecDeque<Out>,
    pub(super) next_packet_id: u16,
    /// SUBSCRIBE and UNSUBSCRIBE packets that wait for their answer, with the filters.
    pub(super) asking: BTreeMap<u16, Vec<String>>,
    /// QoS 2 messages that it has and that were not released.
    pub(super) received: BTreeMap<u16, usize>,
    /// Packet Identifiers of the server that it has not answered.
    pub(super) unanswered: BTreeMap<u16, usize>,
    /// Answers that it owes, each kind in its order: PUBACK, PUBREC, PUBREL, PUBCOMP.
    pub(super) owes: [VecDeque<u16>; 4],
}

/// A message of a client that was not acknowledged completely.
pub(super) struct Out {
    pub(super) packet_id: u16,
    pub(super) msg: usize,
    /// PUBREC has come.
    pub(super) released: bool,
    /// It was sent on the present connection.
    pub(super) sent: bool,
    /// It was sent on any.
    pub(super) sent_ever: bool,
    /// On the present connection nothing but its PUBREL was sent.
    pub(super) resent_as_pubrel: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    At(usize, u32),
    /// From one worker to another.
    Travelling,
    Gone,
}

/// One Network Connection.
pub(super) struct Conn {
    pub(super) client: usize,
    pub(super) version: ProtocolVersion,
    pub(super) place: Place,
    /// Bytes that the client has written, and how many of them the server has.
    pub(super) to_server: Vec<u8>,
    pub(super) fed: usize,
    /// Where packets end, and what they are.
    pub(super) marks: VecDeque<(usize, Mark)>,
    pub(super) unread: Vec<u8>,
    /// The client has turned to another connection.
    pub(super) zombie: bool,
    /// The network has failed, and the server may not know yet.
    pub(super) cut: bool,
    pub(super) stalled: bool,
    /// The client closes it as soon as it has looked at what it has read.
    pub(super) gives_up: bool,
    /// Bytes that the client reads at a time.
    pub(super) speed: usize,
    pub(super) connack: bool,
    pub(super) told: Option<u8>,
    pub(super) connect_fed: bool,
    /// The session, once the server has joined them, and when.
    pub(super) session: Option<usize>,
    pub(super) attached_at: Step,
    pub(super) attached: Millis,
    pub(super) began: Millis,
    /// The session was there before, or it is not known: another connection of the client came and went in one go.
    pub(super) resumed: bool,
    pub(super) perhaps_resumed: bool,
    pub(super) clean: bool,
    pub(super) expiry_secs: u32,
    pub(super) will: Option<(usize, u32)>,
    pub(super) keep_alive_secs: u16,
    /// When the last whole packet came, or the connection.
    pub(super) heard: Millis,
    /// The server has the client's DISCONNECT.
    pub(super) said_bye: bool,
    /// Its will is not to be published: DISCONNECT with Reason Code 0.
    pub(super) no_will: bool,
    pub(super) kicked: bool,
    /// A later connection of the client has come as far as the server.
    pub(super) overtaken: bool,
    /// The end was noted.
    pub(super) ended: bool,
    /// Server's Receive Maximum and Topic Alias Maximum.
    pub(super) quota: u16,
    pub(super) aliases_max: u16,
    pub(super) aliases_out: HashMap<u16, String>,
    pub(super) aliases_in: HashMap<u16, String>,
    /// Packet Identifiers of the server that came on it and were not answered.
    pub(super) window: BTreeSet<u16>,
}

/// What a packet of a client is about, for when the server has it.
#[derive(Debug, Clone)]
pub(super) enum Mark {
    Connect,
    Publish(usize),
    Pubrel(usize),
    Subscribe(Vec<Asked>),
    Unsubscribe(Vec<String>),
    Disconnect { expiry_secs: Option<u32>, no_will: bool },
    Other,
}

/// A Topic Filter of SUBSCRIBE.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) written: String,
    pub(super) share: Option<String>,
    pub(super) filter: String,
    pub(super) qos: u8,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    pub(super) retain_handling: u8,
    pub(super) identifier: u32,
}

/// A session as the server has it.
pub(super) struct Session {
    pub(super) client: usize,
    pub(super) serial: u32,
    /// Its number in the store; 0 if it is not kept there.
    pub(super) number: u64,
    pub(super) worker: usize,
    pub(super) expiry_secs: u32,
    pub(super) subs: Vec<Sub>,
    pub(super) got: HashMap<usize, Got>,
    /// The latest message of each publisher, topic and QoS.
    pub(super) latest: HashMap<(usize, String, u8), usize>,
    /// Messages that it has to get when its client comes back.
    pub(super) owed: Vec<usize>,
    /// When it was last seen with a connection, and when its end of it was noticed.
    pub(super) online_at: Millis,
    pub(super) offline_since: Option<Millis>,
    /// Nobody knows when it expires.
    pub(super) unsure: bool,
    /// It was seen to be gone.
    pub(super) gone: bool,
}

/// One version of a subscription.
pub(super) struct Sub {
    pub(super) asked: Asked,
    pub(super) from: Step,
    /// For each worker: what was routed there until then had been handled when the subscription came.
    pub(super) done_from: Vec<Step>,
    /// SUBACK has come.
    pub(super) definite_from: Option<Step>,
    /// The server has UNSUBSCRIBE, or SUBSCRIBE for the same filter; with what had been handled then.
    pub(super) definite_to: Option<Vec<Step>>,
    /// It has been acknowledged that it is no more.
    pub(super) gone: Option<Step>,
    pub(super) conn: usize,
    /// There cannot have been one for this filter before.
    pub(super) is_new: bool,
    pub(super) replay_checked: bool,
}

/// What a session has got of a message.
#[derive(Default)]
pub(super) struct Got {
    /// How often, without what was sent again.
    pub(super) count: u32,
    /// When it came last, and with which QoS.
    pub(super) last: Step,
    pub(super) qos: u8,
}

/// One Application Message.
pub(super) struct Msg {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) properties: Vec<u8>,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) expiry_secs: Option<u32>,
    pub(super) publisher: usize,
    pub(super) session: Option<usize>,
    pub(super) kind: Kind,
    /// The connection on which the server has got it.
    pub(super) conn: usize,
    /// Where it is routed.
    pub(super) worker: usize,
    /// When it was routed first, and when at the latest; how often it can have been.
    pub(super) first: Option<Step>,
    pub(super) last: Option<Step>,
    pub(super) times: u32,
    /// When its lifetime began, the first time and the last.
    pub(super) since: Option<(Millis, Millis)>,
    /// It certainly was accepted.
    pub(super) definite: bool,
    /// It may have expired before it was routed.
    pub(super) doubtful: bool,
    pub(super) checked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Will,
    /// A plugin sends it to one client.
    Direct(usize),
    /// A plugin does not let it pass.
    Denied,
}

/// A message for one group of a shared subscription, which somebody has to get.
pub(super) struct GroupOwed {
    pub(super) group: (String, String),
    pub(super) msg: usize,
}

/// What happened how often.
pub(super) type Coverage = BTreeMap<&'static str, u64>;

impl Client {
    pub(super) fn new(name: String, version: ProtocolVersion) -> Self {
        Self {
            name,
            version,
            receive_maximum: None,
            packet_bytes_max: None,
            alias_max: 0,
            eager: false,
            disorderly: false,
            conn: None,
            must_clean: false,
            session: None,
            out: VecDeque::new(),
            next_packet_id: 1,
            asking: BTreeMap::new(),
            received: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            owes: Default::default(),
        }
    }

    /// A Packet Identifier that it does not use.
    pub(super) fn packet_id(&mut self) -> u16 {
        loop {
            let packet_id = self.next_packet_id;
            self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
            if !self.asking.contains_key(&packet_id) && self.out.iter().all(|out| out.packet_id != packet_id) {
                return packet_id;
            }
        }
    }

    /// Forgets everything, as a session that begins anew demands.
    pub(super) fn forget(&mut self) {
        self.out.clear();
        self.received.clear();
        self.unanswered.clear();
        self.session = None;
    }
}

impl Session {
    pub(super) fn filters(&self, of: impl Fn(&Sub) -> bool) -> BTreeSet<&str> {
        self.subs.iter().filter(|sub| of(sub)).map(|sub| sub.asked.written.as_str()).collect()
    }
}
