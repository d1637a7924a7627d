//! What is kept once for many is what each would be sent by itself, what goes in a train is what would go packet by packet, and
//! acknowledgements that come in a run do what each would do: the same things happen to a worker with a handler that lets nearly
//! all messages pass, and to one with handlers that make each message anew, decide on each delivery, and hear of each
//! acknowledgement. The second has no lanes and no trains, encodes each packet anew, and looks at each acknowledgement by itself.
//! Each client has to get the same bytes from both.

use plugin_api::{Message, PublishVerdict, QoS, ReasonCode};

use super::net::{bytes, connect_packet, split};
use super::sim::rng::Rng;
use super::*;

const TOPICS: [&str; 4] = ["t", "u", "t/x", "longer/topic"];
const FILTERS: [&str; 7] = ["t", "u", "#", "+", "t/#", "longer/+", "+/topic"];
const CLIENTS: usize = 9;
/// Topics that a client has to itself, as no filter that begins with a wildcard matches them.
const OWN: [&str; 3] = ["$own/0", "$own/1", "$own/2"];

/// What happens to a server, so that it can happen to another one.
#[derive(Debug, Clone)]
enum Op {
    Open(ProtocolVersion, Vec<u8>),
    Send(usize, Vec<u8>),
    Stall(usize, bool),
    Read(usize, usize),
    Lose(usize),
    Advance(u64),
}

fn happen(net: &mut Net, op: &Op) {
    let mut with = |client: usize, act: &dyn Fn(&mut Net)| {
        if net.is_connected(client) {
            act(net);
        }
    };
    match op {
        Op::Open(version, connect) => {
            let client = net.open(*version);
            net.send_bytes(client, connect);
        }
        Op::Send(client, packets) => with(*client, &|net| net.send_bytes(*client, packets)),
        Op::Stall(client, stalled) => with(*client, &|net| net.stall(*client, *stalled)),
        Op::Read(client, count) => with(*client, &|net| net.read(*client, *count)),
        Op::Lose(client) => with(*client, &|net| net.lose(*client)),
        Op::Advance(ms) => net.advance(*ms),
    }
}

/// One Network Connection.
#[derive(Default)]
struct Conn {
    name: usize,
    version: Option<ProtocolVersion>,
    stalled: bool,
    /// It was lost with something that it had not read.
    is_cut: bool,
    received: Vec<u8>,
    looked_at: usize,
    acks: Vec<Vec<u8>>,
}

impl Conn {
    /// Notes what there is to acknowledge.
    fn look(&mut self, got: &[u8]) {
        self.received.extend_from_slice(got);
        for packet in split(&self.received[self.looked_at..]) {
            if packet.len() < 2 || packet.len() != usize::from(packet[1]) + 2 {
                return; // It has not come completely.
            }
            self.looked_at += packet.len();
            let topic = || usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            let (first, id_at) = match (packet[0] & 0xF0, packet[0] >> 1 & 3) {
                (0x30, 1) => (0x40, 4 + topic()),
                (0x30, 2) => (0x50, 4 + topic()),
                (0x60, _) => (0x70, 2),
                _ => continue,
            };
            self.acks.push(vec![first, 2, packet[id_at], packet[id_at + 1]]);
        }
    }
}

struct Story {
    rng: Rng,
    ops: Vec<Op>,
    conns: Vec<Conn>,
    number: u32,
}

impl Story {
    fn act(&mut self, net: &mut Net, op: Op) {
        happen(net, &op);
        self.ops.push(op);
        for client in 0..self.conns.len() {
            let got = net.take(client);
            self.conns[client].look(&got);
        }
    }

    fn connect(&mut self, net: &mut Net, name: usize) {
        let version = self.rng.pick(&[V3_1, V3_1_1, V5, V5]);
        let flags = if self.rng.percent(70) { "00" } else { "02" };
        let properties = ["", "21 0003", "21 0028", "22 0002", "27 00000028"];
        let properties = format!("11 00000E10 {}", self.rng.pick(&properties));
        let connect = bytes(version, &connect_packet(version, flags, 0, &properties, &format!("client-{name}")));
        self.conns.push(Conn { name, version: Some(version), ..Conn::default() });
        self.act(net, Op::Open(version, connect));
    }

    fn subscription(&mut self, name: usize, version: ProtocolVersion) -> String {
        let filter = if self.rng.percent(20) { OWN[name % OWN.len()] } else { self.rng.pick(&FILTERS) };
        if self.rng.percent(20) {
            return format!("A2: 0011 [{{}}] <{filter}>");
        }
        // Half of all want nothing of what has two steps.
        let qos = self.rng.below(if name.is_multiple_of(2) { 2 } else { 3 });
        let (no_local, as_published) = (self.rng.percent(15), self.rng.percent(20));
        let identifier = if self.rng.percent(15) { "0B 07" } else { "" };
        let share = if self.rng.percent(15) { format!("$share/{name}/") } else { String::new() };
        let options = match version {
            V5 if share.is_empty() => qos | usize::from(no_local) << 2 | usize::from(as_published) << 3,
            V5 => qos | usize::from(as_published) << 3,
            _ => qos,
        };
        format!("82: 0012 [{{{identifier}}}] <{share}{filter}> {options:02X}")
    }

    /// QoS 2 messages whose Packet Identifiers follow each other, then PUBREL for some of them, or for more.
    fn burst(&mut self, client: usize) -> Vec<u8> {
        let version = self.conns[client].version.unwrap_or(V5);
        let (first, count) = (self.rng.pick(&[0x50, 0x52, 0xFFFD]), self.rng.below(6) as u16);
        let id = |number: u16| (u32::from(number) + first - 1) % 65_535 + 1;
        let topic = self.rng.pick(&TOPICS);
        let publishes = (0..count).map(|number| format!("34: <{topic}> {:04X} [{{}}] '{number}'", id(number)));
        let released = self.rng.below(7) as u16;
        let pubrels = (self.rng.below(2) as u16..released).map(|number| format!("62: {:04X}", id(number)));
        publishes.chain(pubrels).flat_map(|text| bytes(version, &text)).collect()
    }

    /// What one read brings.
    fn packets(&mut self, client: usize) -> Vec<u8> {
        if self.rng.percent(15) {
            return self.burst(client);
        }
        let (name, version) = (self.conns[client].name, self.conns[client].version.unwrap_or(V5));
        let mut packets = Vec::new();
        let own = self.rng.percent(40).then(|| (self.rng.pick(&OWN), self.rng.below(3)));
        for _ in 0..=self.rng.below(if own.is_some() { 9 } else { 5 }) {
            if self.rng.percent(8) {
                let text = self.subscription(name, version);
                packets.extend(bytes(version, &text));
                continue;
            }
            self.number += 1;
            let (mut topic, number) = (self.rng.pick(&TOPICS), self.number);
            let mut kind = self.rng.below(5);
            if let Some((own, qos)) = own.filter(|_| self.rng.percent(90)) {
                (topic, kind) = (own, 2 * qos);
            }
            let flags = u8::from(self.rng.percent(10));
            let properties =
                ["", "", "", "01 00", "02 00000003", "26 0001 'k' 0001 'v'", "23 0001", "02 00000003 03 0001 'x'"];
            let properties = if own.is_some() && self.rng.percent(80) { "" } else { self.rng.pick(&properties) };
            let dup = if self.rng.percent(10) { 0x08 } else { 0 };
            let id = 0x40 + self.rng.below(3);
            let text = match kind {
                0 | 1 => format!("{:02X}: <{topic}> [{{{properties}}}] '{number}'", 0x30 | flags),
                2 | 3 => format!("{:02X}: <{topic}> {id:04X} [{{{properties}}}] '{number}'", 0x32 | flags | dup),
                _ => format!(
                    "{:02X}: <{topic}> {id:04X} [{{{properties}}}] '{number}' | 62: {id:04X}",
                    0x34 | flags | dup
                ),
            };
            let mut publish = bytes(version, &text);
            if version != V5 && self.rng.percent(10) {
                // Its Remaining Length takes a byte more than it has to, which 5.0 forbids.
                publish[1] |= 0x80;
                publish.insert(2, 0);
            }
            packets.extend(publish);
        }
        packets
    }

    fn step(&mut self, net: &mut Net) {
        let client = self.rng.below(self.conns.len());
        let is_connected = net.is_connected(client);
        match self.rng.below(100) {
            0..45 if is_connected => {
                let packets = self.packets(client);
                self.act(net, Op::Send(client, packets));
            }
            45..55 if is_connected => {
                let stalled = !self.conns[client].stalled;
                self.conns[client].stalled = stalled;
                self.act(net, Op::Stall(client, stalled));
            }
            55..65 if self.conns[client].stalled => {
                let count = self.rng.below(60);
                self.act(net, Op::Read(client, count));
            }
            65..85 if is_connected => {
                let acks = &mut self.conns[client].acks;
                let mut sent = Vec::new();
                for _ in 0..self.rng.below(12).min(acks.len()) {
                    let place = if self.rng.percent(90) { 0 } else { self.rng.below(acks.len()) };
                    sent.extend(acks.remove(place));
                }
                self.act(net, Op::Send(client, sent));
            }
            85..88 if is_connected => {
                self.conns[client].is_cut = self.conns[client].stalled;
                self.act(net, Op::Lose(client));
            }
            88..93 => {
                // Whether it is there or not.
                let name = self.rng.below(CLIENTS);
                self.connect(net, name);
                let text = "82: 0010 [{}] <t> 01 | 82: 0010 [{}] <longer/topic> 00";
                let (client, version) = (self.conns.len() - 1, self.conns[self.conns.len() - 1].version.unwrap_or(V5));
                self.act(net, Op::Send(client, bytes(version, text)));
            }
            93..95 => self.act(net, Op::Advance(1300)),
            _ => {}
        }
    }
}

/// The packets that have their order, and those that may come between them.
fn told_apart(received: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    split(received).into_iter().map(<[u8]>::to_vec).partition(|packet| packet[0] >> 4 == 3)
}

/// What both handlers say about a message, of which there are some in each story. `None`: it may pass.
fn said_about(message: &Message) -> Option<PublishVerdict> {
    let number: u32 = std::str::from_utf8(&message.payload).ok()?.parse().ok()?;
    let mut changed = message.clone();
    match (number + 20) % 23 {
        0 => changed.qos = changed.qos.min(QoS::AtMostOnce),
        1 => changed.qos = changed.qos.min(QoS::AtLeastOnce),
        2 => changed.topic = TOPICS[0].to_owned(),
        3 => return Some(PublishVerdict::Handled),
        4 => return Some(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED)),
        _ => return None,
    }
    Some(PublishVerdict::ForwardChanged(changed))
}

/// Returns how many PUBLISH packets were compared.
fn compare(seed: u64, steps: usize) -> usize {
    let mut compared = 0;
    let mut rng = Rng::new(seed);
    let mode = rng.pick(&[MODES[0], MODES[0], MODES[2]]);
    let (queue_qos0, in_flight_max) = (rng.percent(30), rng.pick(&[4, 30, 1024]));
    let setup = |judges| Setup {
        judges,
        ..Setup::limits(|limits| (limits.queue_qos0, limits.in_flight_max) = (queue_qos0, in_flight_max))
    };
    let mut story = Story { rng, ops: Vec::new(), conns: Vec::new(), number: 0 };
    let mut net = Net::new(mode, &Setup { hears_acknowledgements: false, ..setup(0) });
    net.script().publish = Some(Box::new(|asked| {
        let said = asked.message.as_ref().and_then(said_about);
        Ok(said.unwrap_or(PublishVerdict::Forward))
    }));
    for name in 0..CLIENTS {
        story.connect(&mut net, name);
    }
    for _ in 0..steps {
        story.step(&mut net);
    }
    for client in 0..story.conns.len() {
        story.act(&mut net, Op::Stall(client, false));
    }
    net.end();
    let mut other = Net::new(mode, &setup(1));
    // Nor does a message go on as it came.
    other.script().publish = Some(Box::new(|asked| {
        let message = asked.message.clone().expect("it is asked about one");
        Ok(said_about(&message).unwrap_or(PublishVerdict::ForwardChanged(message)))
    }));
    for op in &story.ops {
        happen(&mut other, op);
    }
    for (client, conn) in story.conns.iter().enumerate() {
        if conn.is_cut {
            continue;
        }
        let got = other.take(client);
        let ((lane, rest), (alone, other_rest)) = (told_apart(&conn.received), told_apart(&got));
        compared += lane.len();
        let differs = lane.iter().zip(&alone).position(|(one, two)| one != two).unwrap_or(lane.len().min(alone.len()));
        assert!(
            lane == alone,
            "seed {seed}: client {client} ({}) got, from packet {differs} of {} and {} on, {:02X?} and alone {:02X?}",
            conn.name,
            lane.len(),
            alone.len(),
            lane.get(differs),
            alone.get(differs)
        );
        assert!(rest == other_rest, "seed {seed}: client {client} got {rest:02X?} and alone {other_rest:02X?}");
    }
    other.end();
    compared
}

#[test]
fn all_get_what_each_would_get_alone() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (first, seeds) = (number("ALIKE_SEED", 1), number("ALIKE_SEEDS", 15));
    // A retained message was sent while as much was in flight, by a lane, as may be.
    compare(901_280, 250);
    let compared: usize = (first..first + seeds).map(|seed| compare(seed, 250)).sum();
    assert!(compared > 100 * seeds as usize, "{compared} messages in {seeds} runs");
}
