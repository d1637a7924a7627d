//! Honest clients: what they write, what they make of what they read, and what they keep when the server dies.

use super::model::*;
use super::world::World;
use crate::mqtt::{Body, Connect, Publish, V3_1, V5, Will, field, packet, properties};

const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;

/// Session Expiry Interval of those that are to outlive everything here, and how long the wills of those wait that come
/// back, in seconds.
const LONG: [u8; 4] = 3600_u32.to_be_bytes();

impl World {
    /// A new connection of a client; with a new session if it wants one, or has to.
    pub(super) fn connect(&mut self, number: usize, clean: bool) {
        self.tick += 1;
        let addr = self.addr;
        let one = &mut self.clients[number];
        let lasts = one.nature != Nature::Transient;
        let clean = clean || one.must_clean || !lasts;
        let mut connect = Connect { clean, ..Connect::new(one.version, one.name.clone()) };
        if one.version == V5 {
            if lasts {
                connect.properties.push(0x11);
                connect.properties.extend(LONG);
            }
            if let Some(maximum) = one.receive_maximum {
                connect.properties.push(0x21);
                connect.properties.extend(maximum.to_be_bytes());
            }
        }
        let ends_with_connection = !lasts || clean && one.version < V5;
        if clean || self.sessions[one.session].ends_with_connection {
            self.begin_session(number, ends_with_connection);
        }
        self.give_will(number, &mut connect);
        self.note(|| format!("client {number} connects, clean: {clean}, will: {:?}", connect.will));
        let one = &mut self.clients[number];
        let mut link = super::link::Link::open(addr);
        link.write(&connect.bytes());
        link.flush();
        one.link = Some(link);
        // Until the server says that it has begun anew, nobody knows.
        one.must_clean = clean;
        one.quota = if one.version == V5 { 65_535 } else { 20 };
        self.count("CONNECT");
    }

    fn begin_session(&mut self, number: usize, ends_with_connection: bool) {
        let session = self.sessions.len();
        let one = &mut self.clients[number];
        self.sessions[one.session].is_over = true;
        self.sessions.push(Session { ends_with_connection, ..Session::default() });
        one.session = session;
        one.out.clear();
        one.received.clear();
    }

    /// Puts a will into CONNECT, of a kind that nobody need wait for to know what is right.
    fn give_will(&mut self, number: usize, connect: &mut Connect) {
        let Client { nature, version, .. } = self.clients[number];
        let delay = match nature {
            Nature::Steady => LONG,
            Nature::Mortal => [0, 0, 0, 1],
            _ if self.random.percent(30) => [0; 4],
            _ => return,
        };
        let topic = if nature == Nature::Mortal { "w/mortal" } else { "w/other" };
        let qos = if nature == Nature::Mortal { 2 } else { self.random.below(3) as u8 };
        let msg = self.new_message(number, topic, qos, false, false);
        self.msgs[msg].is_will = true;
        // That of a steady client is never published, and the oracle does not know of any.
        if nature != Nature::Steady {
            self.msgs[msg].first = Some(self.tick);
        }
        let properties = if version == V5 && delay != [0; 4] { [&[0x18][..], &delay].concat() } else { Vec::new() };
        // Some bytes for each connection, for as long as the test runs.
        let payload = format!("{msg}:").leak();
        connect.will = Some(Will { topic, payload, qos, retain: false, properties });
        self.clients[number].will = Some(msg);
    }

    /// The client goes: with DISCONNECT, or without a word.
    pub(super) fn leave(&mut self, number: usize, says_so: bool) {
        self.note(|| format!("client {number} goes, says so: {says_so}"));
        if says_so {
            self.write(number, &[0xE0, 0]);
        }
        self.flush(number);
        self.clients[number].link = None;
        self.gone(number);
    }

    /// The connection of a client has ended, one way or another.
    pub(super) fn gone(&mut self, number: usize) {
        self.tick += 1;
        let tick = self.tick;
        let one = &mut self.clients[number];
        one.link = None;
        one.is_connected = false;
        one.owes.clear();
        one.pings = 0;
        one.out.iter_mut().for_each(|out| out.is_sent = false);
        if let Some(asking) = one.asking.take() {
            // What has become of it is not known. Who wants to know asks again.
            self.note(|| format!("client {number} has no answer about {} at {tick}", asking.filter));
        }
        let session = &mut self.sessions[self.clients[number].session];
        session.is_over |= session.ends_with_connection;
    }

    fn write(&mut self, number: usize, packet: &[u8]) {
        self.clients[number].link.as_mut().expect("it is connected").write(packet);
    }

    pub(super) fn flush(&mut self, number: usize) {
        if let Some(link) = &mut self.clients[number].link {
            link.flush();
        }
    }

    pub(super) fn ping(&mut self, number: usize) {
        self.clients[number].pings += 1;
        self.write(number, &[0xC0, 0]);
    }

    pub(super) fn publish(&mut self, number: usize, publish: Publish, msg: usize) {
        if publish.qos > 0 {
            let packet_id = self.clients[number].packet_id();
            let publish = Publish { packet_id, ..publish };
            let out = Out { packet_id, msg, publish, is_released: false, is_sent: false };
            self.clients[number].out.push_back(out);
            return self.pump(number);
        }
        self.tick += 1;
        self.msgs[msg].first = Some(self.tick);
        self.msgs[msg].sent = 1;
        let bytes = publish.bytes(self.clients[number].version);
        self.write(number, &bytes);
    }

    /// Sends what is to be sent, again or for the first time, in its order and as much as the server takes.
    fn pump(&mut self, number: usize) {
        for place in 0..self.clients[number].out.len() {
            let one = &mut self.clients[number];
            let under_way = one.out.iter().filter(|out| out.is_sent).count();
            let (quota, version) = (one.quota, one.version);
            let out = &mut one.out[place];
            if out.is_sent {
                continue;
            }
            if !out.is_released && under_way >= quota {
                return;
            }
            out.is_sent = true;
            let (msg, packet_id, is_released) = (out.msg, out.packet_id, out.is_released);
            let bytes = if is_released { ack(PUBREL, packet_id).to_vec() } else { out.publish.bytes(version) };
            let again = std::mem::replace(&mut out.publish.dup, true);
            self.tick += 1;
            let tick = self.tick;
            let about = &mut self.msgs[msg];
            about.first.get_or_insert(tick);
            about.sent += 1;
            self.write(number, &bytes);
            if again || is_released {
                self.note(|| format!("client {number} sends message {msg} again, released: {is_released}"));
                self.count(if is_released { "PUBREL again" } else { "PUBLISH again" });
            }
        }
    }

    pub(super) fn subscribe(&mut self, number: usize, filter: &str, qos: u8) {
        self.tick += 1;
        let (tick, version) = (self.tick, self.clients[number].version);
        let packet_id = self.clients[number].packet_id();
        self.note(|| format!("client {number} subscribes to {filter} with QoS {qos}"));
        let session = &mut self.sessions[self.clients[number].session];
        session.end_certainty(filter, tick);
        let filter = filter.to_owned();
        let body = [&packet_id.to_be_bytes()[..], &properties(version, &[]), &field(&filter), &[qos]].concat();
        session.subs.push(Sub { filter: filter.clone(), qos, certain_from: None, certain_to: None, to: None });
        self.clients[number].asking = Some(Asking { packet_id, filter, subscribes: true });
        self.write(number, &packet(0x82, &body));
    }

    pub(super) fn unsubscribe(&mut self, number: usize, filter: &str) {
        self.tick += 1;
        let (tick, version) = (self.tick, self.clients[number].version);
        let packet_id = self.clients[number].packet_id();
        self.note(|| format!("client {number} unsubscribes from {filter}"));
        self.sessions[self.clients[number].session].end_certainty(filter, tick);
        let body = [&packet_id.to_be_bytes()[..], &properties(version, &[]), &field(filter)].concat();
        self.clients[number].asking = Some(Asking { packet_id, filter: filter.to_owned(), subscribes: false });
        self.write(number, &packet(0xA2, &body));
    }

    /// Sends the oldest answer that the client owes. `false` if it owes none.
    pub(super) fn answer(&mut self, number: usize) -> bool {
        let Some((first, packet_id)) = self.clients[number].owes.pop_front() else { return false };
        if first == PUBREL
            && let Some(out) = self.clients[number].out.iter().find(|out| out.packet_id == packet_id)
        {
            let msg = out.msg;
            self.msgs[msg].sent += 1;
        }
        self.write(number, &ack(first, packet_id));
        true
    }

    // What clients read.

    pub(super) fn receive(&mut self, number: usize, packet: &[u8]) {
        self.tick += 1;
        self.events += 1;
        let kind = packet[0] >> 4;
        if self.is_stopping && !self.clients[number].is_connected && packet.get(3) != Some(&0) {
            return; // It is not let in any more.
        }
        if kind == 2 || !self.clients[number].is_connected {
            return self.on_connack(number, packet);
        }
        match kind {
            3 => self.on_publish(number, &Publish::parse(self.clients[number].version, packet)),
            4..=7 => self.on_ack(number, packet),
            9 | 11 => self.on_suback(number, packet),
            13 => self.clients[number].pings -= 1,
            _ if self.is_stopping => {}
            _ => self.fault(&format!("client {number} got {packet:02x?}")),
        }
        let laziness = self.clients[number].laziness;
        while self.clients[number].is_connected && !self.random.percent(laziness) && self.answer(number) {}
    }

    fn on_connack(&mut self, number: usize, packet: &[u8]) {
        if self.clients[number].is_connected || packet[0] != 0x20 || packet[3] != 0 {
            self.fault(&format!(
                "client {number} got {packet:02x?}, and is connected: {}",
                self.clients[number].is_connected
            ));
        }
        let (is_present, one) = (packet[2] == 1, &mut self.clients[number]);
        one.is_connected = true;
        if one.version == V5 {
            one.quota = receive_maximum(packet);
        }
        // A clean start is over once it is confirmed. 3.1 has no such flag.
        let was_clean = std::mem::take(&mut one.must_clean);
        let (version, session) = (one.version, one.session);
        self.note(|| format!("client {number} is connected, session {session} present: {is_present}"));
        let is_promised = self.sessions[session].is_promised;
        if was_clean && is_present {
            self.fault(&format!("client {number} has begun anew, and there is a session"));
        }
        if !was_clean && is_promised && !is_present && version != V3_1 {
            self.fault(&format!("session {session} of client {number} was promised, and is lost"));
        }
        self.count(if is_present { "session resumed" } else { "session begun" });
        self.sessions[session].is_promised = !self.sessions[session].ends_with_connection;
        // Where a plugin decides on what is published, it is kept once that has been asked.
        if let (Nature::Mortal, Some(will), false) =
            (self.clients[number].nature, self.clients[number].will, self.campaign.plugin)
        {
            self.msgs[will].is_promised = true;
        }
        self.pump(number);
    }

    fn on_publish(&mut self, number: usize, publish: &Publish) {
        self.clients[number].publishes += 1;
        let msg = self.identify(number, publish);
        let packet_id = publish.packet_id;
        self.note(|| {
            let Publish { topic, qos, dup, retain, .. } = publish;
            format!("client {number} gets {msg} of {topic}, QoS {qos}, id {packet_id}, DUP {dup}, RETAIN {retain}")
        });
        self.count(if publish.dup { "PUBLISH with DUP" } else { "PUBLISH" });
        let one = &mut self.clients[number];
        if publish.qos > 0 {
            let answer = if publish.qos == 1 { PUBACK } else { PUBREC };
            one.owes.push_back((answer, packet_id));
        }
        if publish.qos == 2 {
            if let Some(known) = one.received.get(&packet_id).copied() {
                if known != msg || !publish.dup {
                    self.fault(&format!(
                        "client {number} got message {msg} as {packet_id}, DUP {}, which stands for message {known} \
                         and was not released",
                        publish.dup
                    ));
                }
                return self.count("QoS 2 received again");
            }
            one.received.insert(packet_id, msg);
        }
        self.deliver(number, msg, publish);
    }

    fn on_ack(&mut self, number: usize, packet: &[u8]) {
        let mut body = Body::of(packet);
        let packet_id = body.u16();
        let code = if body.0.is_empty() { 0 } else { body.u8() };
        let (kind, one) = (packet[0], &mut self.clients[number]);
        if kind == PUBREL {
            one.received.remove(&packet_id);
            return one.owes.push_back((PUBCOMP, packet_id));
        }
        let Some(place) = one.out.iter().position(|out| out.packet_id == packet_id) else {
            self.fault(&format!("client {number} got {packet:02x?}, an acknowledgement of nothing"));
        };
        let out = &mut one.out[place];
        let msg = out.msg;
        // PUBCOMP may say that the server knows of nothing: it was released before, and the answer was lost.
        let is_expected = match (kind, out.publish.qos, out.is_released) {
            (PUBACK, 1, _) | (PUBREC, 2, false) => code == 0 || code == 0x10,
            (PUBCOMP, 2, true) => code == 0 || code == 0x92,
            _ => false,
        };
        if !is_expected {
            let released = out.is_released;
            self.fault(&format!("client {number} got {packet:02x?} for message {msg}, released: {released}"));
        }
        if kind == PUBREC {
            out.is_released = true;
            one.owes.push_back((PUBREL, packet_id));
            self.count("PUBREC");
        } else {
            one.out.remove(place);
            self.acknowledged(msg);
            self.count(if kind == PUBACK { "PUBACK" } else { "PUBCOMP" });
        }
        self.pump(number);
    }

    fn on_suback(&mut self, number: usize, packet: &[u8]) {
        let (tick, one) = (self.tick, &mut self.clients[number]);
        let packet_id = u16::from_be_bytes([packet[2], packet[3]]);
        let Some(asking) = one.asking.take().filter(|asking| asking.packet_id == packet_id) else {
            self.fault(&format!("client {number} got {packet:02x?}, and has not asked"));
        };
        let code = *packet.last().expect("it is a packet");
        let session = one.session;
        self.note(|| format!("client {number} is told {code:02x} about {}", asking.filter));
        let subs = &mut self.sessions[session].subs;
        let mut last = subs.len();
        if asking.subscribes {
            last = subs.iter().rposition(|sub| sub.filter == asking.filter).expect("it has asked");
            subs[last].certain_from = Some(tick);
            if code != subs[last].qos {
                self.fault(&format!("client {number} was granted {code:02x} for {}", asking.filter));
            }
        }
        for sub in self.sessions[session].subs[..last].iter_mut().filter(|sub| sub.filter == asking.filter) {
            sub.to.get_or_insert(tick);
        }
        self.count(if asking.subscribes { "SUBACK" } else { "UNSUBACK" });
    }
}

impl Session {
    /// From now on nobody knows whether the session has a subscription to this filter.
    fn end_certainty(&mut self, filter: &str, tick: Tick) {
        for sub in self.subs.iter_mut().filter(|sub| sub.filter == filter) {
            sub.certain_to.get_or_insert(tick);
        }
    }
}

fn ack(first: u8, packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    [first, 2, high, low]
}

/// What CONNACK says of it, or means by saying nothing.
fn receive_maximum(connack: &[u8]) -> usize {
    let mut body = Body::of(connack);
    body.u16();
    let properties = body.properties();
    let mut rest = Body(&properties);
    while !rest.0.is_empty() {
        match rest.u8() {
            0x21 => return rest.u16().into(),
            0x22 | 0x13 => drop(rest.u16()),
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => drop(rest.u8()),
            0x11 | 0x27 => drop((rest.u16(), rest.u16())),
            _ => drop(rest.field()),
        }
    }
    65_535
}
