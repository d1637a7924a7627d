//! What may be delivered, and what must have been.

use std::collections::BTreeSet;

use plugin_api::topic::matches;

use super::model::*;
use super::wire::Delivery;
use super::world::World;

/// Identifiers from here on belong to shared subscriptions, each to one.
pub(super) const SHARED_IDENTIFIERS: u32 = 1000;

impl World {
    /// A client's application gets a message. Returns which.
    pub(super) fn deliver(&mut self, conn: usize, topic: &str, delivery: &Delivery) -> usize {
        let Some(session) = self.conns[conn].session else { panic!("a message without a session") };
        let msg = self.identify(conn, session, topic, delivery);
        self.check_same(conn, msg, topic, delivery);
        self.check_expiry(conn, msg, delivery);
        let one = &self.msgs[msg];
        assert!(one.first.is_some(), "message {msg} was delivered before it can have been routed");
        let way = self.explain(session, msg, delivery);
        let Some(way) = way else { panic!("nothing explains that session {session} got message {msg}: {delivery:?}") };
        self.count(way.name());
        self.check_number(session, msg, delivery);
        match way {
            Way::Live => self.check_order(session, msg, delivery.qos),
            Way::Replay if !delivery.dup => self.check_replay_order(session, msg, delivery.qos),
            _ => {}
        }
        let step = self.step;
        let got = self.sessions[session].got.entry(msg).or_default();
        // What is sent again may have come before, but for QoS 2, where the client knows.
        got.count += u32::from(!delivery.dup || delivery.qos == 2);
        (got.last, got.qos) = (step, delivery.qos);
        msg
    }

    /// The payload begins with the number of the message. One that has no payload is the latest that fits.
    fn identify(&self, conn: usize, session: usize, topic: &str, delivery: &Delivery) -> usize {
        let v5 = self.conns[conn].version.is_v5();
        let digits: String =
            delivery.payload.iter().take_while(|byte| byte.is_ascii_digit()).map(|byte| char::from(*byte)).collect();
        if !digits.is_empty() {
            return digits.parse().ok().filter(|msg| *msg < self.msgs.len()).expect("a message that somebody has sent");
        }
        let fits = |msg: &Msg| {
            let properties = !v5 || msg.properties == delivery.properties;
            msg.first.is_some() && msg.payload.is_empty() && msg.topic == topic && properties && msg.qos >= delivery.qos
        };
        let fits = |msg: &usize| fits(&self.msgs[*msg]) && self.explain(session, *msg, delivery).is_some();
        let latest = (0..self.msgs.len()).rev().find(fits);
        latest.unwrap_or_else(|| panic!("nothing explains an empty message to session {session}: {delivery:?}"))
    }

    /// Topic, payload and properties are those that were published.
    pub(super) fn check_same(&self, conn: usize, msg: usize, topic: &str, delivery: &Delivery) {
        let one = &self.msgs[msg];
        let properties = if self.conns[conn].version.is_v5() { &one.properties[..] } else { &[] };
        assert!(properties == delivery.properties, "the properties of message {msg} were altered: {delivery:02X?}");
        assert_eq!(one.topic, topic, "the topic of message {msg}");
        assert!(one.payload == delivery.payload, "the payload of message {msg} was altered: {:?}", delivery.payload);
        assert!(delivery.qos <= one.qos, "message {msg} was delivered with QoS {}", delivery.qos);
        assert_ne!(one.kind, Kind::Denied, "message {msg} was delivered though it was denied");
    }

    fn check_expiry(&self, conn: usize, msg: usize, delivery: &Delivery) {
        let (one, conn) = (&self.msgs[msg], &self.conns[conn]);
        let Some(secs) = one.expiry_secs else {
            return assert_eq!(delivery.expiry_secs, None, "message {msg} does not expire");
        };
        let (first, last) = one.since.expect("it was routed");
        // It was written to this connection after that had begun, and before now.
        let (least, most) = (conn.began.since(last) / 1000, self.now.since(first) / 1000 + 1);
        assert!(delivery.dup || least < u64::from(secs), "message {msg} had expired before connection began");
        if conn.version.is_v5() {
            let left = u64::from(delivery.expiry_secs.expect("the rest of its lifetime"));
            let range = u64::from(secs).saturating_sub(most)..=u64::from(secs).saturating_sub(least);
            assert!(range.contains(&left), "message {msg} expires in {left} s, and should in {range:?}");
        }
    }

    /// Whether a subscription may have had a message routed to it.
    fn may_match(&self, session: usize, sub: &Sub, msg: usize) -> bool {
        let one = &self.msgs[msg];
        let own = one.kind == Kind::Plain && one.session == Some(session);
        let over = one.last.is_some_and(|last| last <= sub.done_from[one.worker])
            && !self.may_come_again(msg)
            && !self.may_be_inherited(sub, msg);
        matches(&sub.asked.filter, &one.topic)
            && one.first.is_some_and(|first| sub.gone.is_none_or(|gone| first <= gone))
            && !over
            && !(sub.asked.no_local && own)
            && !matches!(one.kind, Kind::Direct(_))
    }

    /// Another member of the group may have had it, and gone.
    fn may_be_inherited(&self, sub: &Sub, msg: usize) -> bool {
        let Some(share) = &sub.asked.share else { return false };
        let group = (share.clone(), sub.asked.filter.clone());
        let earlier = |other: &Sub| self.msgs[msg].last.is_some_and(|last| other.from <= last);
        self.members(&group).iter().any(|(_, other)| !std::ptr::eq(*other, sub) && earlier(other))
    }

    /// A plugin's message is routed at some time after it was posted.
    fn may_come_again(&self, msg: usize) -> bool {
        self.msgs[msg].publisher == PLUGIN && !self.msgs[msg].checked
    }

    /// Whether a subscription certainly had a message routed to it.
    pub(super) fn must_match(&self, session: usize, sub: &Sub, msg: usize) -> bool {
        let one = &self.msgs[msg];
        let own = one.publisher == self.sessions[session].client;
        let (Some(first), Some(last), Some(from)) = (one.first, one.last, sub.definite_from) else { return false };
        matches(&sub.asked.filter, &one.topic)
            && from < first
            && sub.definite_to.as_ref().is_none_or(|done| last <= done[one.worker] && !self.may_come_again(msg))
            && !(sub.asked.no_local && own)
            && !matches!(one.kind, Kind::Direct(_))
    }

    /// Whether the message may be the retained one that a subscription was answered with.
    fn may_replay(&self, sub: &Sub, msg: usize) -> bool {
        let one = &self.msgs[msg];
        let asks = sub.asked.share.is_none() && (sub.asked.retain_handling == 0 || sub.asked.retain_handling == 1);
        one.retain
            && !one.payload.is_empty()
            && asks
            && matches(&sub.asked.filter, &one.topic)
            && !self.msgs.iter().any(|other| {
                // It was replaced before; where another one was perhaps routed twice, by the last time at the latest.
                other.retain
                    && other.topic == one.topic
                    && other.publisher != PLUGIN
                    && one.publisher != PLUGIN
                    && other.definite
                    && other.first > one.last
                    && other.last.is_some_and(|last| last < sub.from)
                    && other.kind != Kind::Denied
            })
    }

    fn explain(&self, session: usize, msg: usize, delivery: &Delivery) -> Option<Way> {
        let (model, one) = (&self.sessions[session], &self.msgs[msg]);
        if let Kind::Direct(client) = one.kind {
            let plain = delivery.identifiers.is_empty() && !delivery.retain;
            return (plain && client == model.client && delivery.qos == one.qos).then_some(Way::Direct);
        }
        let ids = &delivery.identifiers;
        let live: Vec<&Sub> = model.subs.iter().filter(|sub| self.may_match(session, sub, msg)).collect();
        let shared = live.iter().find(|sub| {
            let v5 = self.clients[model.client].version.is_v5();
            sub.asked.share.is_some()
                && (!v5 || **ids == [sub.asked.identifier])
                && delivery.qos == one.qos.min(sub.asked.qos)
                && delivery.retain == (one.retain && sub.asked.retain_as_published)
        });
        if shared.is_some() {
            return Some(Way::Shared);
        }
        let plain: Vec<&Sub> = live.into_iter().filter(|sub| sub.asked.share.is_none()).collect();
        if self.explains_live(session, msg, delivery, &plain) {
            let replayed = delivery.retain && model.subs.iter().any(|sub| self.may_replay(sub, msg));
            return Some(if replayed { Way::LiveOrReplay } else { Way::Live });
        }
        let replay = model.subs.iter().any(|sub| {
            let own = if sub.asked.identifier == 0 { vec![] } else { vec![sub.asked.identifier] };
            self.may_replay(sub, msg) && *ids == own && delivery.qos == one.qos.min(sub.asked.qos)
        });
        (replay && delivery.retain).then_some(Way::Replay)
    }

    /// QoS, RETAIN and identifiers as the subscriptions ask for: all that certainly match, none that cannot.
    fn explains_live(&self, session: usize, msg: usize, delivery: &Delivery, may: &[&Sub]) -> bool {
        let one = &self.msgs[msg];
        // Sent again, it is as it was when it was routed.
        let must: Vec<&&Sub> =
            may.iter().filter(|sub| !delivery.dup && one.times <= 1 && self.must_match(session, sub, msg)).collect();
        let least = must.iter().map(|sub| sub.asked.qos).max().unwrap_or(0).min(one.qos);
        let qos = may.iter().any(|sub| sub.asked.qos.min(one.qos) == delivery.qos) && delivery.qos >= least;
        let retain = if delivery.retain {
            one.retain && may.iter().any(|sub| sub.asked.retain_as_published)
        } else {
            !one.retain || !must.iter().any(|sub| sub.asked.retain_as_published)
        };
        let has = |identifier: u32| identifier == 0 || delivery.identifiers.contains(&identifier);
        let all = !self.clients[self.sessions[session].client].version.is_v5()
            || must.iter().all(|sub| has(sub.asked.identifier));
        let filters: BTreeSet<&str> = may.iter().map(|sub| sub.asked.written.as_str()).collect();
        let known = delivery.identifiers.iter().all(|id| may.iter().any(|sub| sub.asked.identifier == *id));
        qos && retain && all && known && delivery.identifiers.len() <= filters.len()
    }

    /// Not more often than it was routed, or replayed.
    fn check_number(&self, session: usize, msg: usize, delivery: &Delivery) {
        let (model, one) = (&self.sessions[session], &self.msgs[msg]);
        if one.payload.is_empty() {
            return; // Nobody can tell one from another.
        }
        let live = |sub: &Sub| self.may_match(session, sub, msg);
        let plain = usize::from(model.subs.iter().any(|sub| sub.asked.share.is_none() && live(sub)));
        let direct = usize::from(matches!(one.kind, Kind::Direct(_)));
        let groups = model.filters(|sub| sub.asked.share.is_some() && live(sub)).len();
        let replays = model.subs.iter().filter(|sub| self.may_replay(sub, msg)).count();
        let most = (plain + groups) * one.times as usize + replays + direct;
        // What was sent and not kept is sent once more, without DUP; but for QoS 2, which waits until it is kept.
        if (delivery.dup || self.crashes > 0) && delivery.qos < 2 {
            return;
        }
        let got = model.got.get(&msg).map_or(0, |got| got.count);
        assert!((got as usize) < most, "session {session} got message {msg} {} times, and not {most}", got + 1);
    }

    /// Each publisher's messages for a topic and of a QoS come in the order in which they were sent.
    fn check_order(&mut self, session: usize, msg: usize, qos: u8) {
        let one = &self.msgs[msg];
        let key = (one.publisher, one.topic.clone(), qos * 3 + one.qos);
        let first_time = !self.sessions[session].got.contains_key(&msg);
        if !first_time || one.times > 1 || one.kind != Kind::Plain || one.payload.is_empty() {
            return;
        }
        let before = self.sessions[session].latest.get(&key).copied();
        if before.is_some_and(|before| one.conn < self.msgs[before].conn) {
            return; // A connection that its client had given up was served after the next one.
        }
        self.sessions[session].latest.insert(key, msg);
        assert!(before < Some(msg), "session {session} got message {msg} after {before:?}");
        if before.is_some() {
            self.count("order checked");
        }
    }

    /// The publisher was told that nobody has subscribed.
    pub(super) fn check_nobody(&mut self, msg: usize) {
        let wants = |session: &usize| {
            let model = &self.sessions[*session];
            self.online(*session).is_some() && model.subs.iter().any(|sub| self.must_match(*session, sub, msg))
        };
        let who = (0..self.sessions.len()).find(wants);
        assert_eq!(who, None, "a session has subscribed to message {msg}, and its publisher was told that nobody has");
        self.count("nobody has subscribed");
    }

    /// No retained message comes after one that has taken its place; but one that had to wait for its turn may come after
    /// one that had not, and one of QoS 2 that had to wait for the store after one that had not.
    fn check_replay_order(&mut self, session: usize, msg: usize, qos: u8) {
        let one = &self.msgs[msg];
        let newer = |(other, got): (&usize, &Got)| {
            let other = &self.msgs[*other];
            // Nobody can tell one that is empty from another.
            other.retain
                && !other.payload.is_empty()
                && other.topic == one.topic
                && other.first > one.last
                && (qos == 0 || got.qos > 0)
                && (qos < 2 || got.qos == 2 || self.store.is_none())
                && one.publisher != PLUGIN
                && other.publisher != PLUGIN
        };
        let newer = self.sessions[session].got.iter().find(|pair| newer(*pair)).map(|(other, _)| *other);
        assert_eq!(newer, None, "session {session} got the retained message {msg} after one that is newer");
        self.count("order of retained messages checked");
    }

    // What must have been delivered, at rest.

    /// Nothing is on its way: whoever is here has got what it has to get.
    pub(super) fn check_owed(&mut self) {
        let dropped = self.dropped();
        self.note(|| format!("check of what is owed; {dropped} were dropped"));
        let fresh: Vec<usize> = (0..self.msgs.len())
            .filter(|msg| !self.msgs[*msg].checked && self.msgs[*msg].definite && self.msgs[*msg].first.is_some())
            .collect();
        for session in 0..self.sessions.len() {
            if self.sessions[session].gone {
                continue;
            }
            for &msg in &fresh {
                if self.is_owed(session, msg) {
                    self.sessions[session].owed.push(msg);
                }
            }
            if self.online(session).is_some() {
                let owed = std::mem::take(&mut self.sessions[session].owed);
                for msg in owed {
                    self.check_one(session, msg);
                }
                self.check_replays(session);
            }
        }
        self.check_groups(&fresh);
        for msg in fresh {
            self.msgs[msg].checked = true;
            if self.msgs[msg].publisher == PLUGIN {
                // It was posted before, and routed at some time until now.
                self.msgs[msg].last = Some(self.step);
            }
        }
    }

    /// The connection of a session.
    pub(super) fn online(&self, session: usize) -> Option<usize> {
        let client = self.sessions[session].client;
        self.ready(client).filter(|conn| self.conns[*conn].session == Some(session) && !self.conns[*conn].ended)
    }

    fn is_owed(&self, session: usize, msg: usize) -> bool {
        let one = &self.msgs[msg];
        let subs = self.sessions[session].subs.iter().filter(|sub| sub.asked.share.is_none());
        let Some(qos) = subs.filter(|sub| self.must_match(session, sub, msg)).map(|sub| sub.asked.qos).max() else {
            return false;
        };
        !one.payload.is_empty() && (qos.min(one.qos) > 0 || self.was_online(session, msg))
    }

    /// Whether the session has had the same connection since before the message was routed.
    fn was_online(&self, session: usize, msg: usize) -> bool {
        self.online(session).is_some_and(|conn| Some(self.conns[conn].attached_at) < self.msgs[msg].first)
    }

    /// Whether it may have been dropped by rights: it has expired, or its receiver does not take so much.
    fn may_be_dropped(&self, session: usize, msg: usize) -> bool {
        let one = &self.msgs[msg];
        let most = one.topic.len() + one.payload.len() + one.properties.len() + 40;
        let too_large =
            self.clients[self.sessions[session].client].packet_bytes_max.is_some_and(|max| most > max as usize);
        too_large || self.is_expired(msg)
    }

    fn is_expired(&self, msg: usize) -> bool {
        let one = &self.msgs[msg];
        let expires = one.expiry_secs.zip(one.since).map(|(secs, (since, _))| since.plus_secs(secs));
        expires.is_some_and(|at| at <= self.now)
    }

    fn check_one(&mut self, session: usize, msg: usize) {
        let got = self.sessions[session].got.contains_key(&msg);
        if got {
            self.count("owed and got");
        } else if self.may_be_dropped(session, msg) {
            self.count("owed and dropped by rights");
        } else {
            self.unmet.push(format!("session {session} did not get message {msg}"));
        }
    }

    /// Subscriptions that were answered with retained messages.
    fn check_replays(&mut self, session: usize) {
        let conn = self.online(session).expect("the caller has looked");
        for place in 0..self.sessions[session].subs.len() {
            let sub = &mut self.sessions[session].subs[place];
            let sub_is_live = sub.definite_from.is_some() && sub.definite_to.is_none() && sub.conn == conn;
            if !sub_is_live || std::mem::replace(&mut sub.replay_checked, true) || sub.asked.share.is_some() {
                continue;
            }
            let (from, asked, is_new) = (sub.from, sub.asked.clone(), sub.is_new);
            if asked.retain_handling == 2 || asked.retain_handling == 1 && !is_new {
                continue;
            }
            for msg in self.retained_for_certain() {
                let one = &self.msgs[msg];
                if one.last.is_some_and(|last| last < from)
                    && one.publisher != PLUGIN
                    && matches(&asked.filter, &one.topic)
                    && !self.may_be_dropped(session, msg)
                {
                    let got = self.sessions[session].got.get(&msg).is_some_and(|got| got.last >= from);
                    if got {
                        self.count("retained owed and got");
                    } else {
                        let line =
                            format!("session {session} did not get the retained message {msg} for {}", asked.written);
                        self.unmet.push(line);
                    }
                }
            }
        }
    }

    /// The messages of which it is certain that they are the retained ones of their topics.
    pub(super) fn retained_for_certain(&self) -> Vec<usize> {
        self.retained()
            .into_values()
            .filter_map(|candidates| match *candidates {
                [msg] if !self.msgs[msg].payload.is_empty() && self.msgs[msg].definite => Some(msg),
                _ => None,
            })
            .collect()
    }

    /// For each topic the messages that may have been retained last; those without payload stand for none.
    pub(super) fn retained(&self) -> std::collections::BTreeMap<&str, Vec<usize>> {
        let mut by_topic: std::collections::BTreeMap<&str, Vec<usize>> = Default::default();
        for (number, one) in self.msgs.iter().enumerate() {
            if one.retain && one.first.is_some() && !matches!(one.kind, Kind::Denied | Kind::Direct(_)) {
                by_topic.entry(&one.topic).or_default().push(number);
            }
        }
        for candidates in by_topic.values_mut() {
            let all = candidates.clone();
            candidates.retain(|msg| {
                let one = &self.msgs[*msg];
                !all.iter().any(|other| {
                    let other = &self.msgs[*other];
                    other.definite && other.first > one.last && (one.publisher != PLUGIN || one.checked)
                })
            });
        }
        by_topic
    }

    /// Each message for a group has gone to one of its members.
    fn check_groups(&mut self, fresh: &[usize]) {
        let mut groups: BTreeSet<(String, String)> = BTreeSet::new();
        for sub in self.sessions.iter().flat_map(|session| &session.subs) {
            if let Some(share) = &sub.asked.share {
                groups.insert((share.clone(), sub.asked.filter.clone()));
            }
        }
        let mut owed = std::mem::take(&mut self.group_owed);
        for group in groups {
            for &msg in fresh {
                let one = &self.msgs[msg];
                let members = self.members(&group);
                let due = members
                    .iter()
                    .any(|(session, sub)| !self.sessions[*session].gone && self.must_match(*session, sub, msg));
                if due && one.qos > 0 && !one.payload.is_empty() && one.times <= 1 {
                    owed.push(GroupOwed { group: group.clone(), msg });
                }
            }
        }
        for owed in owed {
            self.check_group(owed);
        }
    }

    /// The subscriptions of a group, with their sessions.
    fn members(&self, group: &(String, String)) -> Vec<(usize, &Sub)> {
        let in_group = |sub: &Sub| sub.asked.share.as_ref() == Some(&group.0) && sub.asked.filter == group.1;
        let all = self.sessions.iter().enumerate();
        all.flat_map(|(number, session)| session.subs.iter().map(move |sub| (number, sub)))
            .filter(|(_, sub)| in_group(sub))
            .collect()
    }

    fn check_group(&mut self, owed: GroupOwed) {
        let msg = owed.msg;
        let mut once = false;
        let may: Vec<(usize, bool)> = self
            .members(&owed.group)
            .into_iter()
            .filter(|(session, sub)| self.may_match(*session, sub, msg))
            .map(|(session, sub)| {
                once |= sub.asked.qos == 0;
                (session, sub.definite_to.is_none())
            })
            .collect();
        let sessions: BTreeSet<usize> = may.iter().map(|(session, _)| *session).collect();
        let got: Vec<&Got> = sessions.iter().filter_map(|session| self.sessions[*session].got.get(&msg)).collect();
        let fresh: u32 = got.iter().map(|got| got.count).sum();
        let got = got.len();
        let lapsed = may.iter().any(|(session, lasting)| self.sessions[*session].gone || !lasting);
        let lasts = may.iter().any(|(session, lasting)| *lasting && !self.sessions[*session].gone);
        let all_online = may.iter().all(|(session, _)| self.sessions[*session].gone || self.online(*session).is_some());
        let one = &self.msgs[msg];
        if got > 0 {
            let alone = !lapsed
                && self.sessions.iter().flat_map(|session| &session.subs).all(|sub| {
                    let group = (sub.asked.share.clone().unwrap_or_default(), sub.asked.filter.clone());
                    group == owed.group || !matches(&sub.asked.filter, &one.topic)
                });
            assert!(!alone || fresh <= one.times, "{fresh} members of {:?} got message {msg}", owed.group);
            self.count(if alone { "group owed and got, by one" } else { "group owed and got" });
        } else if self.unfollowed.contains(&owed.group) {
            self.count("group owed, perhaps to a member that is not known");
        } else if once {
            self.count("group owed, perhaps with QoS 0");
        } else if !lasts {
            self.count("group owed, and all members have gone");
        } else if may.iter().any(|(session, _)| self.may_be_dropped(*session, msg)) {
            self.count("owed and dropped by rights");
        } else if all_online {
            self.unmet.push(format!("nobody in {:?} got message {msg}", owed.group));
        } else {
            self.group_owed.push(owed);
        }
    }
}

/// How a message came to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Live,
    LiveOrReplay,
    Replay,
    Shared,
    Direct,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Live => "delivered live",
            Self::LiveOrReplay => "delivered live or retained",
            Self::Replay => "delivered retained",
            Self::Shared => "delivered shared",
            Self::Direct => "delivered direct",
        }
    }
}
