//! What happens next: anything that may.

use super::super::ProtocolVersion::V5;
use super::client::Connecting;
use super::model::*;
use super::oracle::SHARED_IDENTIFIERS;
use super::plugin::DENIED;
use super::wire::Body;
use super::world::World;
use crate::plugin::Flip;
use plugin_api::{ConnectionId, Disconnect, InfoTarget, Message, QoS, ReasonCode};
use std::sync::Arc;
use std::time::Duration;

const TOPICS: [&str; 10] = ["a", "a/b", "a/c", "b", "b/cc/dddd", "/", "$x/a", "s/a", "s/beyond", "r/another"];
const FILTERS: [&str; 14] =
    ["a", "a/b", "a/+", "a/#", "+", "+/b", "+/+", "b/#", "b/+/dddd", "/", "$x/#", "r/+", "#", "+/#"];
/// Those that do not match what is shared: 3.x clients cannot tell why they get a message.
const FILTERS_BEFORE_5: usize = 5;
const SHARES: [(&str, &str); 4] = [("g", "s/#"), ("g", "s/a"), ("h", "s/+"), ("h", "s/beyond")];

impl World {
    /// One operation.
    pub(super) fn operate(&mut self) {
        if self.owed.len() > 0 && self.rng.percent(20) {
            let place = self.rng.below(self.owed.len());
            self.give_one(place);
        }
        match self.rng.below(100) {
            0..42 => self.network(),
            42..60 => self.work(),
            60..92 => self.client_operation(),
            92..95 => self.pass_time(),
            95..98 if self.config.crashes => {
                if self.rng.percent(30) {
                    self.crash();
                }
            }
            95..98 => self.plugin_operation(),
            98 => {
                if self.rng.percent(60) {
                    self.count("at rest");
                    self.rest();
                }
            }
            _ => {
                if self.rng.percent(30) {
                    self.upgrade();
                }
            }
        }
    }

    fn network(&mut self) {
        let open: Vec<usize> =
            (0..self.conns.len()).filter(|conn| matches!(self.conns[*conn].place, Place::At(..))).collect();
        if open.is_empty() {
            return;
        }
        let conn = self.rng.pick(&open);
        if self.rng.percent(60) {
            let count = match self.rng.below(3) {
                0 => 1 + self.rng.below(4),
                1 => 1 + self.rng.below(40),
                _ => usize::MAX,
            };
            self.feed(conn, count);
        } else {
            self.read_some(conn);
        }
    }

    fn read_some(&mut self, conn: usize) {
        if !self.conns[conn].stalled {
            let speed = self.conns[conn].speed;
            self.read(conn, speed);
        }
    }

    /// A worker does some of what a turn consists of.
    fn work(&mut self) {
        let worker = self.rng.below(self.cores.len());
        if self.config.crashes {
            if self.rng.percent(30) {
                self.store_works();
            }
            if self.rng.percent(50) {
                self.learn_what_is_safe(worker);
            }
        }
        if self.rng.percent(5) {
            // Nearly all of its turn's work is done.
            self.cores[worker].work_left = self.rng.below(3);
        }
        match self.rng.below(12) {
            0..2 => {
                self.take_handovers(worker);
            }
            2..4 => {
                self.adopt(worker);
            }
            4..6 => {
                let spurious = self.rng.percent(5);
                self.on_mail(worker, spurious);
            }
            6 => {
                self.on_tick(worker);
            }
            7..9 => {
                self.take_dirty(worker);
            }
            9 => {
                self.flush_mail(worker);
            }
            _ => self.turn(worker),
        }
    }

    /// A whole turn, in the order in which the driver does it.
    fn turn(&mut self, worker: usize) {
        self.take_handovers(worker);
        self.adopt(worker);
        self.on_mail(worker, false);
        self.on_tick(worker);
        self.flush_mail(worker);
        self.take_dirty(worker);
        for conn in self.listed() {
            if matches!(self.conns[conn].place, Place::At(at, _) if at == worker) {
                self.read_some(conn);
            }
        }
        self.flush_mail(worker);
    }

    fn pass_time(&mut self) {
        let ms = match self.rng.below(20) {
            0..12 => self.rng.below(2_000),
            12..17 => self.rng.below(15_000),
            17..19 => self.rng.below(200_000),
            _ => self.rng.below(8_000_000),
        };
        self.jump(ms as u64);
    }

    fn client_operation(&mut self) {
        let client = self.rng.below(self.clients.len());
        let Some(conn) = self.clients[client].conn else {
            return self.connect_somehow(client);
        };
        if !self.conns[conn].connack {
            match self.rng.below(40) {
                0 => self.cut_somewhere(conn),
                1 => self.connect_somehow(client),
                _ => {}
            }
            return;
        }
        match self.rng.below(100) {
            0..45 => self.publish_something(client, conn),
            45..60 => self.subscribe_somehow(client, conn),
            60..66 => self.unsubscribe_somehow(client, conn),
            66..86 => {
                for _ in 0..=self.rng.below(4) {
                    self.answer(client);
                }
            }
            86..89 => {
                self.count("ping");
                self.write(conn, &[0xC0, 0], Mark::Other);
            }
            89..92 => {
                let one = &mut self.conns[conn];
                one.stalled = !one.stalled && self.rng.percent(30);
                one.speed = self.rng.pick(&[1, 7, 100, usize::MAX, usize::MAX]);
            }
            92..95 => self.cut_somewhere(conn),
            95..97 => {
                self.count("takeover");
                self.connect_somehow(client);
            }
            _ => self.disconnect_somehow(conn),
        }
    }

    /// The network fails; what was written before comes as far as some byte.
    fn cut_somewhere(&mut self, conn: usize) {
        self.count("cut");
        let left = self.conns[conn].to_server.len() - self.conns[conn].fed;
        let count = self.rng.below(left + 1);
        self.feed(conn, count);
        self.cut(conn);
    }

    fn connect_somehow(&mut self, client: usize) {
        let v5 = self.clients[client].version == V5;
        let clean = self.rng.percent(30);
        let expiry_secs = if v5 { self.rng.pick(&[0, 5, 60, 60, 3600, 3600, u32::MAX]) } else { 0 };
        let will = self.rng.percent(40).then(|| {
            let msg = self.new_message(client, Kind::Will);
            self.note_message(msg);
            (msg, if v5 { self.rng.pick(&[0, 0, 3, 30]) } else { 0 })
        });
        let keep_alive_secs = self.rng.pick(&[0, 0, 0, 5, 30]);
        let connecting = Connecting { clean, expiry_secs, keep_alive_secs, will };
        let Some(conn) = self.connect(client, connecting) else {
            return self.count("refused: too many connections");
        };
        self.conns[conn].speed = self.rng.pick(&[1, 10, 100, usize::MAX, usize::MAX, usize::MAX]);
        // Who begins anew need not wait for CONNACK.
        if self.conns[conn].clean && self.rng.percent(40) {
            self.count("packets behind CONNECT");
            self.subscribe_somehow(client, conn);
            self.publish_something(client, conn);
            if self.rng.percent(10) {
                self.disconnect_somehow(conn);
            }
        }
    }

    fn disconnect_somehow(&mut self, conn: usize) {
        let v5 = self.conns[conn].version == V5;
        let no_will = !v5 || self.rng.percent(50);
        let keeps = self.conns[conn].expiry_secs > 0;
        let expiry_secs = (v5 && keeps && self.rng.percent(30)).then(|| self.rng.pick(&[0, 10, 1000]));
        self.count(if no_will { "DISCONNECT" } else { "DISCONNECT with will" });
        self.disconnect(conn, no_will, expiry_secs);
        self.forsake(conn);
    }

    fn publish_something(&mut self, client: usize, conn: usize) {
        let denied = self.rng.percent(3);
        let first = self.new_message(client, if denied { Kind::Denied } else { Kind::Plain });
        self.publish_one(client, conn, first);
        // Some more of the same kind, which may be handled together.
        for _ in 0..if self.rng.percent(10) { 2 + self.rng.below(5) } else { 0 } {
            self.count("publish in a train");
            let next = self.new_message(client, self.msgs[first].kind);
            let (topic, qos) = (self.msgs[first].topic.clone(), self.msgs[first].qos);
            let is_plain = !self.msgs[next].payload.is_empty() && self.rng.percent(95);
            let message = &mut self.msgs[next];
            (message.topic, message.qos) = (topic, qos);
            if is_plain {
                (message.retain, message.expiry_secs) = (false, None);
                message.properties.clear();
            }
            self.publish_one(client, conn, next);
        }
    }

    fn publish_one(&mut self, client: usize, conn: usize, msg: usize) {
        self.count(["publish QoS 0", "publish QoS 1", "publish QoS 2"][usize::from(self.msgs[msg].qos)]);
        self.note_message(msg);
        self.publish(client, conn, msg);
    }

    fn note_message(&mut self, msg: usize) {
        let Msg { topic, qos, retain, payload, publisher, expiry_secs, .. } = &self.msgs[msg];
        let line = format!(
            "{publisher} has message {msg} for {topic} q{qos} retain={retain} {} bytes {expiry_secs:?}",
            payload.len()
        );
        self.note(|| line);
    }

    fn new_message(&mut self, publisher: usize, kind: Kind) -> usize {
        let v5 = self.clients.get(publisher).is_some_and(|client| client.version == V5);
        let number = self.msgs.len();
        let retain = self.rng.percent(25);
        let empty = retain && kind == Kind::Plain && self.rng.percent(25);
        let length = self.rng.pick(&[0, 0, 3, 50, 300]);
        let payload = if empty { String::new() } else { format!("{number}:{}", "x".repeat(length)) };
        let mut properties = Body::default();
        if v5 && self.rng.percent(30) {
            properties = properties.byte(0x01).byte(1).byte(0x26).string("n").string(number.to_string());
            properties =
                properties.byte(0x08).string("re/ply").byte(0x09).string([0, 1, 2]).byte(0x26).string("").string("z");
        }
        let topic = if self.config.sharing && self.rng.percent(80) {
            self.rng.pick(&TOPICS[7..9])
        } else {
            TOPICS[(self.config.first_topic + self.rng.below(self.config.topics)) % TOPICS.len()]
        };
        self.msgs.push(Msg {
            topic: if kind == Kind::Denied { format!("{DENIED}{topic}") } else { topic.to_owned() },
            payload: payload.into_bytes(),
            properties: properties.into_bytes(),
            qos: self.rng.below(3) as u8,
            retain,
            expiry_secs: (v5 && !empty && self.rng.percent(15)).then(|| self.rng.pick(&[1, 10, 100])),
            publisher,
            session: None,
            kind,
            conn: 0,
            worker: 0,
            first: None,
            last: None,
            times: 0,
            since: None,
            definite: false,
            doubtful: false,
            checked: false,
        });
        number
    }

    fn subscribe_somehow(&mut self, client: usize, conn: usize) {
        let v5 = self.conns[conn].version == V5;
        let mut asked: Vec<Asked> = Vec::new();
        let shared = self.rng.percent(match (self.config.sharing, self.config.alike) {
            (_, true) => 5,
            (true, _) => 70,
            _ => 25,
        });
        let identifier = match (v5, shared) {
            (true, true) => SHARED_IDENTIFIERS + self.step as u32,
            (true, false) if self.rng.percent(if self.config.alike { 10 } else { 60 }) => 1 + self.rng.below(5) as u32,
            _ => 0,
        };
        for _ in 0..if shared { 1 } else { 1 + self.rng.below(3) } {
            let (share, filter) = if shared {
                let (share, filter) = self.rng.pick(&SHARES);
                (Some(share.to_owned()), filter)
            } else {
                (None, self.rng.pick(if v5 { &FILTERS } else { &FILTERS[..FILTERS_BEFORE_5] }))
            };
            let written = share.as_ref().map_or_else(|| filter.to_owned(), |share| format!("$share/{share}/{filter}"));
            if asked.iter().any(|other| other.written == written) {
                continue;
            }
            asked.push(Asked {
                written,
                filter: filter.to_owned(),
                qos: if shared { self.rng.pick(&[0, 1, 1, 2, 2]) } else { self.rng.below(3) as u8 },
                no_local: v5 && !shared && self.rng.percent(15),
                retain_as_published: v5 && self.rng.percent(30),
                retain_handling: if v5 { self.rng.pick(&[0, 0, 1, 2]) } else { 0 },
                identifier,
                share,
            });
        }
        self.count(if shared { "subscribe shared" } else { "subscribe" });
        self.subscribe(client, conn, asked);
    }

    fn unsubscribe_somehow(&mut self, client: usize, conn: usize) {
        let Some(session) = self.clients[client].session else { return };
        let live: Vec<String> =
            self.sessions[session].filters(|sub| sub.definite_to.is_none()).into_iter().map(str::to_owned).collect();
        if live.is_empty() {
            return;
        }
        let mut filters = vec![live[self.rng.below(live.len())].clone()];
        if self.rng.percent(20) {
            filters.push("no/such".into());
        }
        self.count("unsubscribe");
        self.unsubscribe(client, conn, filters);
    }

    /// Another instance of the plugin, for all connections or a share of them; or back; or for good. Whatever they are at.
    fn swap(&mut self) {
        let chain = self.shared.chain.clone();
        let on_trial = chain.trials().first().map(|trial| trial.per_mille.is_some());
        let probation = self.rng.pick(&[Duration::ZERO, Duration::from_secs(3600)]);
        let mut how = Flip { per_mille: None, probation, budget: 0 };
        match on_trial {
            Some(_) if self.rng.percent(30) => {
                chain.roll_back(None).expect("something is on trial");
                self.count("swap rolled back");
            }
            Some(true) => {
                chain.promote(None).expect("there is a canary");
                self.count("swap promoted");
            }
            Some(false) if self.rng.percent(30) => {
                chain.settle_all();
                self.count("swap settled");
            }
            _ => {
                if self.rng.percent(30) {
                    how.per_mille = Some(500);
                }
                let plugin = self.scripted.plugin("2.0.0", &self.shared.mailboxes, &self.config.limits);
                chain.flip(0, &Arc::new(plugin), &how).expect("nothing is in the way");
                self.count("swap");
            }
        }
        self.note(|| format!("the plugin is swapped: plan {}", chain.epoch()));
    }

    fn plugin_operation(&mut self) {
        let host = self.scripted.script().host();
        let client = self.rng.below(self.clients.len());
        self.step += 1;
        match self.rng.below(12) {
            10.. => self.swap(),
            0..5 => {
                let msg = self.new_message(PLUGIN, Kind::Plain);
                let one = &self.msgs[msg];
                let qos = QoS::from_u8(one.qos).expect("0 to 2");
                let message = Message::new(one.topic.as_str(), one.payload.as_slice()).qos(qos).retain(one.retain);
                self.msgs[msg].worker = crate::core::owner_of(&message.topic, self.cores.len());
                host.publish(&message).expect("there is room");
                self.note_message(msg);
                self.routed(msg, true);
                self.count("plugin publishes");
            }
            5..8 => {
                let msg = self.new_message(PLUGIN, Kind::Direct(client));
                let one = &mut self.msgs[msg];
                if one.payload.is_empty() {
                    return;
                }
                one.retain = false;
                let kind = format!("{}:{}", one.qos, one.topic);
                let (name, payload) = (self.clients[client].name.clone(), one.payload.clone());
                self.note_message(msg);
                self.routed(msg, false);
                let delay = self.rng.percent(30).then_some(Duration::from_millis(500));
                host.send_info(InfoTarget::Client(&name), &kind, &payload, delay).expect("there is room");
                self.count("plugin sends to a client");
            }
            8 => {
                let Some(conn) = self.clients[client].conn else { return };
                let Place::At(worker, slot) = self.conns[conn].place else { return };
                let id = ConnectionId(self.cores[worker].connections[slot as usize].id);
                self.conns[conn].kicked = true;
                host.disconnect(id, Disconnect::new(ReasonCode::ADMINISTRATIVE_ACTION)).expect("there is room");
                self.count("plugin disconnects");
            }
            _ => {
                let Some(conn) = self.clients[client].conn else { return };
                let Place::At(worker, slot) = self.conns[conn].place else { return };
                let id = ConnectionId(self.cores[worker].connections[slot as usize].id);
                self.conns[conn].kicked = true;
                let kind = self.rng.pick(&["kick", "stop"]);
                host.send_info(InfoTarget::Connection(id), kind, &[], None).expect("there is room");
                self.count("plugin disconnects by info");
            }
        }
    }
}
