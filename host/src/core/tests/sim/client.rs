//! Honest clients: what they write, what they make of what they read, and what they keep.

use std::collections::{HashMap, VecDeque};

use super::super::ProtocolVersion::{self, V3_1, V5};
use super::model::*;
use super::wire::{self, Body, FromServer, PUBACK, PUBCOMP, PUBREC, PUBREL};
use super::world::World;
use crate::clock::Millis;

/// What CONNECT says.
pub(super) struct Connecting {
    pub(super) clean: bool,
    pub(super) expiry_secs: u32,
    pub(super) keep_alive_secs: u16,
    pub(super) will: Option<(usize, u32)>,
}

impl World {
    /// A new connection of a client, which gives up the one that it has. `None` if the server does not take it.
    pub(super) fn connect(&mut self, client: usize, connecting: Connecting) -> Option<usize> {
        self.step += 1;
        let (worker, slot) = self.accept()?;
        if let Some(before) = self.clients[client].conn {
            self.forsake(before);
        }
        let one = &mut self.clients[client];
        let clean = connecting.clean || one.must_clean;
        if clean {
            one.forget();
        }
        let limits = &self.config.limits;
        let expiry_secs = match one.version {
            V5 => connecting.expiry_secs.min(limits.session_expiry_secs_max),
            _ if clean => 0,
            _ => limits.persistent_expiry_3x_secs,
        };
        let (version, now) = (one.version, self.now);
        let packet = connect_packet(one, &connecting, clean, connecting.will.map(|(msg, _)| &self.msgs[msg]));
        let conn = self.conns.len();
        one.conn = Some(conn);
        self.conns.push(Conn::new(client, version, now, clean, expiry_secs, &connecting));
        self.write(conn, &packet, Mark::Connect);
        self.enter(conn, worker, slot);
        self.note(|| {
            format!(
                "client {client} opens connection {conn} at worker {worker}, clean: {clean}, will: {:?}",
                connecting.will
            )
        });
        Some(conn)
    }

    /// The client has nothing to do with a connection any more.
    pub(super) fn forsake(&mut self, conn: usize) {
        let one = &mut self.conns[conn];
        one.zombie = true;
        let client = &mut self.clients[one.client];
        if client.conn != Some(conn) {
            return;
        }
        client.conn = None;
        client.owes = Default::default();
        client.asking.clear();
        client.out.iter_mut().for_each(|out| out.sent = false);
        let unknown = one.session.is_none() || one.session != client.session;
        let never_came = one.cut && !one.connect_fed;
        if !one.connack && (one.clean || unknown && !never_came) {
            client.must_clean = true;
        }
    }

    /// The connection over which a client may send.
    pub(super) fn ready(&self, client: usize) -> Option<usize> {
        self.clients[client].conn.filter(|conn| self.conns[*conn].connack)
    }

    /// The client sends a message when its turn has come.
    pub(super) fn publish(&mut self, client: usize, conn: usize, msg: usize) {
        if self.msgs[msg].qos == 0 {
            let packet = self.publish_packet(conn, msg, 0, false);
            return self.write(conn, &packet, Mark::Publish(msg));
        }
        let one = &mut self.clients[client];
        let packet_id = one.packet_id();
        one.out.push_back(Out {
            packet_id,
            msg,
            released: false,
            sent: false,
            sent_ever: false,
            resent_as_pubrel: false,
        });
        self.pump(client);
    }

    /// Sends what is to be sent, again or for the first time, in order and within the server's Receive Maximum.
    pub(super) fn pump(&mut self, client: usize) {
        let Some(conn) = self.clients[client].conn else { return };
        let quota = usize::from(self.conns[conn].quota);
        let on_their_way = |one: &Client| one.out.iter().filter(|out| out.sent && !out.resent_as_pubrel).count();
        for place in 0..self.clients[client].out.len() {
            let in_flight = on_their_way(&self.clients[client]);
            let out = &mut self.clients[client].out[place];
            if out.sent {
                continue;
            }
            let (packet_id, msg, again) = (out.packet_id, out.msg, out.sent_ever);
            if out.released {
                (out.sent, out.resent_as_pubrel) = (true, true);
                let packet = Body::default().two(packet_id).packet(0x62);
                self.write(conn, &packet, Mark::Pubrel(msg));
                self.count("PUBREL again");
                continue;
            }
            if in_flight >= quota {
                return;
            }
            (out.sent, out.sent_ever, out.resent_as_pubrel) = (true, true, false);
            let packet = self.publish_packet(conn, msg, packet_id, again);
            self.write(conn, &packet, Mark::Publish(msg));
            if again {
                self.count("PUBLISH again");
            }
        }
    }

    fn publish_packet(&mut self, conn: usize, msg: usize, packet_id: u16, dup: bool) -> Vec<u8> {
        let chance = self.rng.below(100);
        let (one, msg) = (&mut self.conns[conn], &self.msgs[msg]);
        let mut properties = Body::default();
        if let Some(secs) = msg.expiry_secs {
            properties = properties.byte(0x02).four(secs);
        }
        properties = properties.bytes(&msg.properties);
        let mut topic = msg.topic.as_str();
        if one.aliases_max > 0 && !dup && chance < 50 {
            let alias = 1 + (chance as u16) % one.aliases_max.min(3);
            properties = properties.byte(0x23).two(alias);
            if one.aliases_out.get(&alias).is_some_and(|known| known == topic) {
                topic = "";
                *self.cover.entry("Topic Alias to the server").or_default() += 1;
            } else {
                one.aliases_out.insert(alias, topic.to_owned());
            }
        }
        let body = Body::default().string(topic);
        let body = if msg.qos > 0 { body.two(packet_id) } else { body };
        let first = 0x30 | u8::from(dup) << 3 | msg.qos << 1 | u8::from(msg.retain);
        body.properties(one.version, properties).bytes(&msg.payload).packet(first)
    }

    pub(super) fn subscribe(&mut self, client: usize, conn: usize, asked: Vec<Asked>) {
        let packet_id = self.clients[client].packet_id();
        let identifier = asked[0].identifier;
        let version = self.conns[conn].version;
        let properties = match identifier {
            0 => Body::default(),
            _ => Body::default().byte(0x0B).variable(identifier as usize),
        };
        let mut body = Body::default().two(packet_id).properties(version, properties);
        for one in &asked {
            let options = match version {
                V5 => {
                    one.qos
                        | u8::from(one.no_local) << 2
                        | u8::from(one.retain_as_published) << 3
                        | one.retain_handling << 4
                }
                _ => one.qos,
            };
            body = body.string(&one.written).byte(options);
        }
        self.note(|| {
            format!("client {client} subscribes to {:?}", asked.iter().map(|one| &one.written).collect::<Vec<_>>())
        });
        self.clients[client].asking.insert(packet_id, asked.iter().map(|one| one.written.clone()).collect());
        self.write(conn, &body.packet(0x82), Mark::Subscribe(asked));
    }

    pub(super) fn unsubscribe(&mut self, client: usize, conn: usize, filters: Vec<String>) {
        let packet_id = self.clients[client].packet_id();
        let mut body = Body::default().two(packet_id).properties(self.conns[conn].version, Body::default());
        for filter in &filters {
            body = body.string(filter);
        }
        self.note(|| format!("client {client} unsubscribes from {filters:?}"));
        self.clients[client].asking.insert(packet_id, filters.clone());
        self.write(conn, &body.packet(0xA2), Mark::Unsubscribe(filters));
    }

    pub(super) fn disconnect(&mut self, conn: usize, no_will: bool, expiry_secs: Option<u32>) {
        let body = match (self.conns[conn].version, no_will, expiry_secs) {
            (V5, _, Some(secs)) => {
                Body::default().byte(if no_will { 0 } else { 4 }).properties(V5, Body::default().byte(0x11).four(secs))
            }
            (V5, false, None) => Body::default().byte(4),
            _ => Body::default(),
        };
        self.write(conn, &body.packet(0xE0), Mark::Disconnect { expiry_secs, no_will });
    }

    /// Sends an answer that the client owes. `false` if it owes none.
    pub(super) fn answer(&mut self, client: usize) -> bool {
        let Some(conn) = self.clients[client].conn else { return false };
        let one = &mut self.clients[client];
        let kinds: Vec<usize> = (0..4).filter(|kind| !one.owes[*kind].is_empty()).collect();
        if kinds.is_empty() {
            return false;
        }
        let kind = self.rng.pick(&kinds);
        // Its own messages keep their order.
        let place = if one.disorderly && kind != 2 { self.rng.below(one.owes[kind].len()) } else { 0 };
        let packet_id = one.owes[kind].remove(place).expect("it is in range");
        let kind = kind as u8 + PUBACK;
        let mut mark = Mark::Other;
        match kind {
            PUBACK | PUBCOMP => {
                one.unanswered.remove(&packet_id);
                self.conns[conn].window.remove(&packet_id);
            }
            PUBREL => {
                let out = one.out.iter().find(|out| out.packet_id == packet_id);
                mark = Mark::Pubrel(out.expect("it was not completed").msg);
            }
            _ => {}
        }
        let packet = Body::default().two(packet_id).packet(kind << 4 | if kind == PUBREL { 2 } else { 0 });
        self.write(conn, &packet, mark);
        true
    }

    // What the server has.

    /// The server has a packet; it certainly has handled it if `certain`.
    pub(super) fn processed(&mut self, conn: usize, mark: Mark, certain: bool) {
        self.step += 1;
        self.note(|| format!("connection {conn}: the server has handled {mark:?}"));
        // What has waited is handled at the time that the worker was told last.
        let Place::At(worker, _) = self.conns[conn].place else { return };
        let now = self.cores[worker].now;
        self.conns[conn].heard = now;
        match mark {
            Mark::Connect | Mark::Other => {}
            Mark::Publish(msg) => {
                self.published[usize::from(!certain)] += 1;
                let session = self.conns[conn].session;
                let one = &mut self.msgs[msg];
                (one.session, one.worker, one.conn) = (session, worker, conn);
                one.since = Some((one.since.map_or(now, |(first, _)| first), now));
                if one.qos < 2 && one.kind == Kind::Plain {
                    self.routed(msg, certain && self.msgs[msg].qos == 0);
                }
            }
            Mark::Pubrel(msg) => {
                let one = &self.msgs[msg];
                let over = |since: Millis| one.expiry_secs.is_some_and(|secs| since.plus_secs(secs) <= now);
                let (first, last) = one.since.expect("it was published before");
                if one.kind != Kind::Plain || over(last) {
                    return; // [MQTT-4.3.3-13]
                }
                let doubtful = over(first);
                self.routed(msg, false);
                self.msgs[msg].times = 1;
                self.msgs[msg].doubtful |= doubtful;
            }
            Mark::Subscribe(asked) => {
                for asked in asked {
                    self.subscribed(conn, asked);
                }
            }
            Mark::Unsubscribe(filters) => {
                let Some(session) = self.conns[conn].session else { return };
                let done = self.done_at(self.sessions[session].worker);
                for sub in &mut self.sessions[session].subs {
                    if filters.contains(&sub.asked.written) {
                        sub.definite_to.get_or_insert(done.clone());
                    }
                }
            }
            Mark::Disconnect { expiry_secs, no_will } => {
                let one = &mut self.conns[conn];
                (one.said_bye, one.no_will) = (true, no_will);
                if let Some(secs) = expiry_secs {
                    one.expiry_secs = secs.min(self.config.limits.session_expiry_secs_max);
                    if let Some(session) = one.session {
                        self.sessions[session].expiry_secs = one.expiry_secs;
                        // It may have waited, and have come too late.
                        self.sessions[session].unsure |= self.may_have_missed_bye(conn);
                    }
                }
            }
        }
    }

    fn subscribed(&mut self, conn: usize, asked: Asked) {
        let Some(session) = self.conns[conn].session else {
            // It has come and gone in one go, and its session is not known: what that gets, nobody can tell.
            self.unfollowed.extend(asked.share.map(|share| (share, asked.filter)));
            return;
        };
        let (step, done) = (self.step, self.done_at(self.sessions[session].worker));
        let subs = &mut self.sessions[session].subs;
        let mut is_new = true;
        for sub in subs.iter_mut().filter(|sub| sub.asked.written == asked.written) {
            sub.definite_to.get_or_insert(done.clone());
            is_new &= sub.gone.is_some();
        }
        subs.push(Sub {
            asked,
            from: step,
            done_from: done,
            definite_from: None,
            definite_to: None,
            gone: None,
            conn,
            is_new,
            replay_checked: false,
        });
    }

    // What clients read.

    pub(super) fn receive(&mut self, conn: usize, packet: &[u8]) {
        let version = self.conns[conn].version;
        let read = wire::decode(version, packet);
        self.note(|| format!("connection {conn} reads {}", shown(&read)));
        let one = &mut self.conns[conn];
        let client = one.client;
        assert!(one.told.is_none(), "connection {conn} got {read:?} after DISCONNECT");
        if let Some(max) = self.clients[client].packet_bytes_max {
            assert!(packet.len() <= max as usize, "a packet of {} bytes, and no more than {max} fit", packet.len());
        }
        let is_connack = matches!(read, FromServer::Connack { .. });
        assert_ne!(is_connack, one.connack, "CONNACK comes first, and once: {read:?}");
        if let FromServer::Publish(delivery) = &read {
            self.delivered += 1;
            *self.cover.entry("DUP").or_default() += u64::from(delivery.dup);
            *self.cover.entry("Topic Alias to a client").or_default() += u64::from(delivery.topic.is_empty());
            self.check_publish(conn, delivery);
        }
        if self.conns[conn].zombie {
            match read {
                FromServer::Connack { .. } => self.conns[conn].connack = true,
                FromServer::Disconnect { code } => self.told(conn, code),
                _ => {}
            }
            return;
        }
        match read {
            FromServer::Connack { present, code, properties } => self.on_connack(conn, present, code, &properties),
            FromServer::Publish(delivery) => self.on_publish(conn, &delivery),
            FromServer::Ack { kind, packet_id, code } => self.on_ack(client, kind, packet_id, code),
            FromServer::Suback { packet_id, codes } => self.on_suback(conn, packet_id, Some(&codes)),
            FromServer::Unsuback { packet_id } => self.on_suback(conn, packet_id, None),
            FromServer::Pingresp => {}
            FromServer::Disconnect { code } => self.told(conn, code),
        }
        if self.clients[client].eager {
            while self.answer(client) {}
        }
    }

    fn told(&mut self, conn: usize, code: u8) {
        let one = &mut self.conns[conn];
        one.told = Some(code);
        let holds = match code {
            0x8D => one.keep_alive_secs > 0,
            0x8E => one.overtaken,
            0x98 => one.kicked,
            _ => false,
        };
        assert!(holds, "DISCONNECT with {code:02X} on connection {conn}");
    }

    fn on_connack(&mut self, conn: usize, present: bool, code: u8, properties: &[wire::Property]) {
        let one = &mut self.conns[conn];
        assert_eq!(code, 0, "client {} was refused", one.client);
        one.connack = true;
        one.quota = if one.version == V5 { 65_535 } else { 20 };
        for property in properties {
            match property.id {
                0x13 => one.keep_alive_secs = property.number as u16,
                0x21 => one.quota = property.number as u16,
                0x22 => one.aliases_max = property.number as u16,
                _ => {}
            }
        }
        let client = &mut self.clients[one.client];
        if one.session.is_none() {
            client.must_clean = true;
            return;
        }
        if one.perhaps_resumed {
            client.must_clean = true;
            self.count("a session that nobody has followed");
            self.conns[conn].gives_up = true;
            return self.forsake(conn);
        }
        client.must_clean = false;
        // 3.1 has no such flag, and a client that has no clean session takes it for granted.
        let present = if one.version == V3_1 { one.resumed } else { present };
        assert_eq!(present, one.resumed, "Session Present of connection {conn}");
        if present && client.session != one.session {
            // An earlier CONNECT, of which it has heard nothing, came after this one.
            client.must_clean = true;
            self.count("resumption of the wrong session");
            self.conns[conn].gives_up = true;
            return self.forsake(conn);
        }
        if !present && !one.clean {
            client.forget();
        }
        client.session = one.session;
        let client = one.client;
        self.pump(client);
    }

    /// What holds for every PUBLISH packet, whoever reads it.
    fn check_publish(&mut self, conn: usize, delivery: &wire::Delivery) {
        let one = &mut self.conns[conn];
        let client = &self.clients[one.client];
        if let Some(alias) = delivery.alias {
            assert!(
                (1..=client.alias_max).contains(&alias),
                "the Topic Alias {alias}, and the bound is {}",
                client.alias_max
            );
            if !delivery.topic.is_empty() {
                one.aliases_in.insert(alias, delivery.topic.clone());
            }
            assert!(one.aliases_in.contains_key(&alias), "a Topic Alias that stands for nothing: {alias}");
        } else {
            assert!(!delivery.topic.is_empty(), "no topic, and no Topic Alias");
        }
        assert!(
            !delivery.dup || one.resumed || one.session.is_none(),
            "DUP on connection {conn}, whose session is new"
        );
    }

    fn on_publish(&mut self, conn: usize, delivery: &wire::Delivery) {
        let one = &mut self.conns[conn];
        let client_number = one.client;
        let topic = match delivery.alias {
            Some(alias) => one.aliases_in[&alias].clone(),
            None => delivery.topic.clone(),
        };
        if delivery.qos == 0 {
            self.deliver(conn, &topic, delivery);
            return;
        }
        let packet_id = delivery.packet_id;
        let new = one.window.insert(packet_id);
        let client = &mut self.clients[client_number];
        let max = client.receive_maximum.unwrap_or(65_535);
        assert!(one.window.len() <= usize::from(max), "more than the Receive Maximum of {max} on connection {conn}");
        assert!(new, "the Packet Identifier {packet_id} is in use on connection {conn}");
        assert!(
            delivery.dup || !client.unanswered.contains_key(&packet_id),
            "the Packet Identifier {packet_id} was not acknowledged"
        );
        client.owes[if delivery.qos == 1 { 0 } else { 1 }].push_back(packet_id);
        if delivery.qos == 2
            && let Some(msg) = client.received.get(&packet_id).copied()
        {
            assert!(delivery.dup, "the Packet Identifier {packet_id} was not released");
            self.check_same(conn, msg, &topic, delivery);
            self.count("QoS 2 received again");
            return;
        }
        let msg = self.deliver(conn, &topic, delivery);
        let client = &mut self.clients[client_number];
        let before = client.unanswered.insert(packet_id, msg);
        assert!(
            before.is_none_or(|before| before == msg || delivery.payload.is_empty()),
            "the Packet Identifier {packet_id} stands for another message"
        );
        if delivery.qos == 2 {
            client.received.insert(packet_id, msg);
        }
    }

    fn on_ack(&mut self, client: usize, kind: u8, packet_id: u16, code: u8) {
        let one = &mut self.clients[client];
        if kind == PUBREL {
            one.received.remove(&packet_id);
            one.owes[3].push_back(packet_id);
            return;
        }
        let place = one.out.iter().position(|out| out.packet_id == packet_id);
        let Some(place) = place else { panic!("client {client} got an acknowledgement of nothing: {packet_id}") };
        let (msg, qos) = (one.out[place].msg, self.msgs[one.out[place].msg].qos);
        assert_eq!(qos == 1, kind == PUBACK, "client {client} got packet {kind} for QoS {qos}");
        if kind == PUBREC && code < 0x80 {
            assert!(!one.out[place].resent_as_pubrel, "PUBREC for what was released");
            one.out[place].released = true;
            one.owes[2].push_back(packet_id);
        } else {
            assert!(kind != PUBCOMP || one.out[place].released, "PUBCOMP for what was not released");
            one.out.remove(place);
            self.completed(msg, kind, code);
            self.pump(client);
        }
    }

    fn completed(&mut self, msg: usize, kind: u8, code: u8) {
        let one = &mut self.msgs[msg];
        let v5 = self.clients[one.publisher].version == V5;
        match code {
            0 | 0x10 => {}
            0x87 => assert_eq!(one.kind, Kind::Denied, "message {msg} was not denied by anybody"),
            0x92 if kind == PUBCOMP => {}
            _ => panic!("an acknowledgement with {code:02X} of message {msg}"),
        }
        assert!(!v5 || (one.kind == Kind::Denied) == (code == 0x87), "{code:02X} for message {msg}");
        if one.kind == Kind::Plain {
            let may_have_expired = one.expiry_secs.is_some() && kind == PUBCOMP;
            assert!(one.first.is_some() || may_have_expired, "message {msg} was acknowledged before it was sent");
            one.definite = one.first.is_some() && !one.doubtful;
        }
        if code == 0x10 && one.times == 1 {
            self.check_nobody(msg);
        }
        self.count(if kind == PUBACK { "QoS 1 accepted" } else { "QoS 2 accepted" });
    }

    fn on_suback(&mut self, conn: usize, packet_id: u16, codes: Option<&[u8]>) {
        let client = self.conns[conn].client;
        let filters = self.clients[client].asking.remove(&packet_id);
        let filters =
            filters.unwrap_or_else(|| panic!("client {client} got SUBACK or UNSUBACK for nothing: {packet_id}"));
        assert!(codes.is_none_or(|codes| codes.len() == filters.len()), "{codes:?} for {filters:?}");
        // The answers come in the order of the questions, so this one is about the oldest that has none.
        let (step, Some(session)) = (self.step, self.conns[conn].session) else { return };
        for (place, filter) in filters.iter().enumerate() {
            let subs = &mut self.sessions[session].subs;
            let latest = subs.iter().position(|sub| {
                sub.asked.written == *filter && sub.conn == conn && sub.definite_from.is_none() && codes.is_some()
            });
            // A later one, which may have ended as well, has no answer yet.
            let is_older = |sub: &Sub| sub.conn != conn || sub.definite_from.is_some();
            for sub in subs.iter_mut().take(latest.unwrap_or(usize::MAX)).filter(|sub| sub.asked.written == *filter) {
                if sub.definite_to.is_some() && is_older(sub) {
                    sub.gone.get_or_insert(step);
                }
            }
            if let (Some(codes), Some(latest)) = (codes, latest) {
                assert_eq!(codes[place], subs[latest].asked.qos, "the QoS granted for {filter}");
                subs[latest].definite_from = Some(step);
            }
        }
    }
}

fn connect_packet(client: &Client, connecting: &Connecting, clean: bool, will: Option<&Msg>) -> Vec<u8> {
    let version = client.version;
    let mut flags = u8::from(clean) << 1;
    if let Some(will) = will {
        flags |= 4 | will.qos << 3 | u8::from(will.retain) << 5;
    }
    let mut properties = Body::default();
    if connecting.expiry_secs > 0 {
        properties = properties.byte(0x11).four(connecting.expiry_secs);
    }
    if let Some(max) = client.receive_maximum {
        properties = properties.byte(0x21).two(max);
    }
    if let Some(max) = client.packet_bytes_max {
        properties = properties.byte(0x27).four(max);
    }
    if client.alias_max > 0 {
        properties = properties.byte(0x22).two(client.alias_max);
    }
    let name = if version == V3_1 { "MQIsdp" } else { "MQTT" };
    let mut body = Body::default()
        .string(name)
        .byte(version as u8)
        .byte(flags)
        .two(connecting.keep_alive_secs)
        .properties(version, properties)
        .string(&client.name);
    if let (Some(will), Some((_, delay))) = (will, connecting.will) {
        let mut properties = Body::default();
        if delay > 0 {
            properties = properties.byte(0x18).four(delay);
        }
        if let Some(secs) = will.expiry_secs {
            properties = properties.byte(0x02).four(secs);
        }
        body = body.properties(version, properties.bytes(&will.properties)).string(&will.topic).string(&will.payload);
    }
    body.packet(0x10)
}

fn shown(read: &FromServer) -> String {
    match read {
        FromServer::Publish(delivery) => {
            let payload = String::from_utf8_lossy(&delivery.payload[..delivery.payload.len().min(12)]).into_owned();
            let wire::Delivery { dup, qos, retain, topic, packet_id, identifiers, .. } = delivery;
            format!("PUBLISH {topic} {payload} q{qos} id={packet_id} dup={dup} retain={retain} {identifiers:?}")
        }
        other => format!("{other:?}"),
    }
}

impl Conn {
    fn new(
        client: usize,
        version: ProtocolVersion,
        now: Millis,
        clean: bool,
        expiry_secs: u32,
        connecting: &Connecting,
    ) -> Self {
        Self {
            client,
            version,
            place: Place::Travelling,
            to_server: Vec::new(),
            fed: 0,
            marks: VecDeque::new(),
            unread: Vec::new(),
            zombie: false,
            cut: false,
            stalled: false,
            gives_up: false,
            speed: usize::MAX,
            connack: false,
            told: None,
            connect_fed: false,
            session: None,
            attached_at: 0,
            attached: now,
            began: now,
            resumed: false,
            perhaps_resumed: false,
            clean,
            expiry_secs,
            will: connecting.will,
            keep_alive_secs: connecting.keep_alive_secs,
            heard: now,
            said_bye: false,
            no_will: false,
            kicked: false,
            overtaken: false,
            ended: false,
            quota: 1,
            aliases_max: 0,
            aliases_out: HashMap::new(),
            aliases_in: HashMap::new(),
            window: Default::default(),
        }
    }
}

impl Session {
    pub(super) fn new(client: usize, serial: u32, worker: usize, now: Millis) -> Self {
        Self {
            client,
            serial,
            number: 0,
            worker,
            expiry_secs: 0,
            subs: Vec::new(),
            got: HashMap::new(),
            latest: HashMap::new(),
            owed: Vec::new(),
            unsure: false,
            online_at: now,
            offline_since: None,
            gone: false,
        }
    }
}
