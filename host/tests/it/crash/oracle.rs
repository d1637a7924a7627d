//! What was promised, and what may come.

use plugin_api::topic::matches;

use super::model::*;
use super::world::World;
use crate::mqtt::Publish;

impl World {
    /// The payload begins with the number of the message.
    pub(super) fn identify(&self, number: usize, publish: &Publish) -> usize {
        if publish.payload.is_empty() {
            return NOBODY_KNOWS;
        }
        let digits = publish.payload.split(|byte| *byte == b':').next().unwrap_or_default();
        let msg: Option<usize> = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
        match msg.filter(|msg| self.msgs.get(*msg).is_some_and(|known| known.topic == publish.topic)) {
            Some(msg) => msg,
            None => self.fault(&format!("client {number} got something that nobody has sent: {publish:?}")),
        }
    }

    /// The application of a client gets a message.
    pub(super) fn deliver(&mut self, number: usize, msg: usize, publish: &Publish) {
        if msg == NOBODY_KNOWS {
            return;
        }
        let session = self.clients[number].session;
        let about = &self.msgs[msg];
        if msg < self.retired && !publish.retain && !about.is_will {
            self.fault(&format!("message {msg} has come back to client {number}, long after it was acknowledged"));
        }
        if !self.explains(session, msg, publish) {
            self.fault(&format!("nothing explains that session {session} got message {msg}: {publish:?}"));
        }
        if publish.retain {
            return self.count("retained to a subscriber");
        }
        let got = self.sessions[session].got.entry(msg).or_default();
        got.times += 1;
        got.qos = got.qos.max(publish.qos);
        got.exactly += u32::from(publish.qos == 2);
        if got.exactly > 1 {
            self.fault(&format!("session {session} got message {msg} twice with QoS 2"));
        }
        // What was sent with more may be routed again after a crash.
        if about.qos == 0 && got.times > about.sent.max(1) {
            self.fault(&format!("session {session} got message {msg} more often with QoS 0 than it was sent"));
        }
        if got.times == 1 && !about.is_will {
            self.check_order(session, msg, publish.qos);
        }
    }

    /// A publisher's messages of one topic and QoS come in the order in which they were sent. What was sent before the
    /// session had subscribed may come when it is sent again.
    fn check_order(&mut self, session: usize, msg: usize, qos: u8) {
        let about = &self.msgs[msg];
        // What was sent again is routed again, and who gets it with QoS 0 may have come amid the first time.
        if qos == 0 && about.sent > u32::from(about.qos).max(1) {
            return;
        }
        let subs = &self.sessions[session].subs;
        // Another subscription may have brought it, which was not there yet when it was sent first.
        let had = |sub: &Sub| {
            matches(&sub.filter, &about.topic)
                && sub.qos.min(about.qos) >= qos
                && sub.certain_from.is_some_and(|from| Some(from) < about.first)
                && sub.certain_to.is_none()
        };
        if !subs.iter().any(had) {
            return;
        }
        let key = (about.publisher, about.topic.clone(), about.qos, qos);
        let before = self.sessions[session].latest.insert(key, msg);
        if before > Some(msg) {
            self.fault(&format!("session {session} got message {msg} after message {before:?}"));
        }
        self.count("order checked");
    }

    fn explains(&self, session: usize, msg: usize, publish: &Publish) -> bool {
        let about = &self.msgs[msg];
        let Some(first) = about.first else { return false };
        let may = |sub: &&Sub| {
            // What was acknowledged may be on its way to another worker, and meet there who has subscribed meanwhile.
            matches(&sub.filter, &about.topic) && sub.to.is_none_or(|to| first <= to)
        };
        let subs = self.sessions[session].subs.iter().filter(may);
        let qos = subs.map(|sub| sub.qos.min(about.qos)).max();
        qos.is_some_and(|most| publish.qos <= most) && (about.retain || !publish.retain)
    }

    /// PUBACK or PUBCOMP: it was accepted, and was routed before.
    pub(super) fn acknowledged(&mut self, msg: usize) {
        let tick = self.tick;
        let about = &mut self.msgs[msg];
        about.is_promised = true;
        about.last = Some(tick);
    }

    /// The QoS with which a session has to get a message. `None` if it need not get it.
    fn owes(&self, session: &Session, msg: &Msg) -> Option<u8> {
        let first = msg.first.filter(|_| msg.is_promised && !msg.is_empty)?;
        // With several workers it may be on its way, and come after UNSUBSCRIBE.
        let last = msg.last.filter(|_| self.campaign.workers == [1]).unwrap_or(Tick::MAX);
        let must = |sub: &&Sub| {
            matches(&sub.filter, &msg.topic)
                && sub.certain_from.is_some_and(|from| from < first)
                && sub.certain_to.is_none_or(|to| to > last)
        };
        let subs = session.subs.iter().filter(must);
        let qos = subs.map(|sub| sub.qos.min(msg.qos)).max()?;
        (qos > 0 && session.is_promised && !session.is_over).then_some(qos)
    }

    /// What sessions have to get and have not got, with the QoS that they have to get it with: session, message, QoS.
    pub(super) fn owed(&self, with_wills: bool) -> Vec<(usize, usize, u8)> {
        let mut owed = Vec::new();
        for (number, session) in self.sessions.iter().enumerate() {
            if session.is_over || !session.is_promised {
                continue;
            }
            let msgs = self.msgs.iter().enumerate().skip(if with_wills { 0 } else { self.retired });
            for (msg, about) in msgs.filter(|(msg, about)| *msg >= self.retired || about.is_will) {
                let qos = self.owes(session, about).filter(|_| with_wills || !about.is_will);
                owed.extend(qos.map(|qos| (number, msg, qos)));
            }
        }
        owed
    }

    /// Whether a session has got a message as it had to.
    pub(super) fn has_got(&self, (session, msg, qos): (usize, usize, u8)) -> bool {
        self.sessions[session].got.get(&msg).is_some_and(|got| got.qos >= qos)
    }

    /// The messages that may be retained for a topic now; `None` stands for no message.
    pub(super) fn retained(&self, topic: &str) -> Vec<Option<usize>> {
        let all: Vec<usize> = (0..self.msgs.len())
            .filter(|msg| self.msgs[*msg].retain && self.msgs[*msg].topic == topic && self.msgs[*msg].first.is_some())
            .collect();
        let newest = all.iter().filter(|msg| self.msgs[**msg].is_promised).map(|msg| self.msgs[*msg].first).max();
        let is_replaced = |msg: &usize| self.msgs[*msg].last.is_some() && newest > Some(self.msgs[*msg].last);
        let mut candidates: Vec<Option<usize>> =
            all.iter().copied().filter(|msg| !is_replaced(msg)).map(Some).collect();
        // In the beginning there was none; and if one of them has no payload, there may be none now.
        if !all.iter().any(|msg| self.msgs[*msg].is_promised) {
            candidates.push(None);
        }
        for one in &mut candidates {
            *one = one.filter(|msg| !self.msgs[*msg].is_empty);
        }
        candidates
    }
}
