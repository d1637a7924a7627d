//! What there is besides the handler: connections, sessions, retained messages, the clock; and what the handler has had done.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use super::effects::{Disconnection, LogLine, Sent, Target, Timer};
use crate::abi::{
    AnswerKey, RawInfo, RawQuery, RawSubscribeRequest, RawSubscription, RawTarget, Reply, Status, Verdict,
};
use crate::reading::Answer;
use crate::topic::{self, Share};
use crate::{ConnectionId, Message, QoS, TimerId};

/// Bytes of kind and data together in one message for `handle_info`.
const INFO_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one key, of one value, and of all that a plugin keeps.
const KEY_BYTES_MAX: usize = 1024;
const VALUE_BYTES_MAX: usize = 1 << 20;
const STORE_BYTES_MAX: usize = 64 << 20;

/// What an entry counts for beyond its key and its value.
const ENTRY_BYTES: usize = 128;

/// Rows of a page.
const PAGE_MAX: usize = 1000;

/// What an answer to a request of the handler's consists of.
pub(super) type OwnPieces = Vec<(AnswerKey, u64, Vec<u8>)>;

/// All of it. What is in it is touched by the test, and by all threads of the handler.
#[derive(Default)]
pub(super) struct World {
    pub(super) now_ms: u64,
    pub(super) logs: Vec<LogLine>,
    pub(super) publishes: Vec<Message>,
    /// Those of them that are to be retained, and the handler has not been told of yet.
    pub(super) to_retain: VecDeque<Message>,
    pub(super) sends: Vec<Sent>,
    pub(super) disconnects: Vec<Disconnection>,
    /// Connections that are to be ended.
    pub(super) to_end: VecDeque<Disconnection>,
    pub(super) mail: Vec<Mail>,
    numbers: u64,
    pub(super) tickets: HashMap<u64, Option<(Verdict, Answer)>>,
    pub(super) clients: BTreeMap<u64, Client>,
    pub(super) sessions: BTreeMap<String, Session>,
    pub(super) retained: BTreeMap<String, Message>,
    pub(super) store: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What the handler has asked for inside a callback, or what only the test's thread can do.
    pub(super) requests: VecDeque<(Request, Reply)>,
    /// How many more requests there is no room for.
    pub(super) refused: u32,
    pub(super) is_closed: bool,
}

/// A message of the handler to itself.
#[derive(Debug, Clone)]
pub(super) struct Mail {
    pub(super) at_ms: u64,
    /// In which order those of one time came.
    number: u64,
    /// 0 for one that goes at once.
    pub(super) timer: u64,
    pub(super) interval_ms: u64,
    pub(super) target: Target,
    pub(super) kind: String,
    pub(super) data: Vec<u8>,
    /// The connection whose callback has sent it.
    pub(super) from: u64,
}

impl Mail {
    /// Who has sent it, as the handler is shown it.
    pub(super) fn sender(&self) -> (u8, u64) {
        match (self.timer, self.from) {
            (0, 0) => (RawInfo::SENDER_PLUGIN, 0),
            (0, from) => (RawInfo::SENDER_CONNECTION, from),
            _ => (RawInfo::SENDER_TIMER, 0),
        }
    }
}

/// A connection whose client has been let in.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) client_id: String,
    pub(super) peer: std::net::SocketAddr,
    pub(super) listener: String,
    pub(super) protocol_version: u8,
    pub(super) keep_alive_secs: u16,
    /// What it has been sent.
    pub(super) received: Vec<Message>,
}

/// What outlives a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Session {
    pub(super) connection: Option<u64>,
    pub(super) expiry_secs: u32,
    /// When it ends, once its connection has.
    pub(super) ends_at_ms: Option<u64>,
    pub(super) subscriptions: BTreeMap<String, Granted>,
    /// What the handler has exported of its last connection.
    pub(super) last_state: Option<(u32, Vec<u8>)>,
}

/// A subscription as it was granted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Granted {
    pub(super) qos: QoS,
    pub(super) flags: u8,
    pub(super) retain_handling: u8,
    pub(super) identifier: u32,
}

/// A request of the handler's that is answered.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Query { kind: u8, target: Target, filter: String, limit: u32, after: Vec<u8> },
    Subscribe { target: Target, filter: String, granted: Granted },
    Unsubscribe { target: Target, filter: String },
    Reauthorise { target: Target },
}

impl World {
    /// Whether there is no room for a request that comes now.
    pub(super) fn is_full(&mut self) -> bool {
        let is_full = self.refused > 0;
        self.refused = self.refused.saturating_sub(1);
        is_full
    }

    /// The next number of whatever needs one.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Posts a message of the handler to itself. Returns its timer, 0 for none.
    pub(super) fn post(
        &mut self,
        (target, from): (Target, u64),
        kind: &str,
        data: &[u8],
        (delay_ms, interval_ms): (u64, u64),
    ) -> Result<u64, Status> {
        if kind.len() + data.len() > INFO_BYTES_MAX {
            return Err(Status::TOO_LARGE);
        }
        let number = self.number();
        let timer = if delay_ms == 0 && interval_ms == 0 { 0 } else { number };
        let at_ms = self.now_ms.saturating_add(if delay_ms == 0 { interval_ms } else { delay_ms });
        let (kind, data) = (kind.to_owned(), data.to_vec());
        self.mail.push(Mail { at_ms, number, timer, interval_ms, target, kind, data, from });
        Ok(timer)
    }

    /// Another version of the handler begins with the messages since the number `since`: timers of an earlier one with the same
    /// kind and data end.
    pub(super) fn begin_with(&mut self, since: u64) {
        let (begun, mut waiting): (Vec<Mail>, Vec<Mail>) = self.mail.drain(..).partition(|mail| mail.number > since);
        let same = |new: &Mail, old: &Mail| (&new.target, &new.kind, &new.data) == (&old.target, &old.kind, &old.data);
        waiting.retain(|old| old.timer == 0 || !begun.iter().any(|new| new.timer != 0 && same(new, old)));
        self.mail.extend(waiting);
        self.mail.extend(begun);
    }

    /// It does not begin.
    pub(super) fn forget_since(&mut self, since: u64) {
        self.mail.retain(|mail| mail.number <= since);
    }

    /// The next one that is due at a time or before. One that comes again is there again.
    pub(super) fn due(&mut self, until_ms: u64) -> Option<Mail> {
        let next = self.mail.iter().enumerate().filter(|(_, mail)| mail.at_ms <= until_ms);
        let (index, _) = next.min_by_key(|(_, mail)| (mail.at_ms, mail.number))?;
        if self.mail[index].interval_ms == 0 {
            return Some(self.mail.remove(index));
        }
        let mail = self.mail[index].clone();
        self.mail[index].number = self.number();
        self.mail[index].at_ms += mail.interval_ms;
        Some(mail)
    }

    pub(super) fn timers(&self) -> Vec<Timer> {
        let mut timers: Vec<&Mail> = self.mail.iter().filter(|mail| mail.timer != 0).collect();
        timers.sort_by_key(|mail| (mail.at_ms, mail.number));
        let timer = |mail: &Mail| Timer {
            id: TimerId(mail.timer),
            target: mail.target.clone(),
            kind: mail.kind.clone(),
            data: mail.data.clone(),
            due_in: Duration::from_millis(mail.at_ms.saturating_sub(self.now_ms)),
            interval: (mail.interval_ms != 0).then(|| Duration::from_millis(mail.interval_ms)),
        };
        timers.into_iter().map(timer).collect()
    }

    /// The connections that a message is for.
    pub(super) fn connections_of(&self, target: &Target) -> Vec<u64> {
        match target {
            Target::All => self.clients.keys().copied().collect(),
            Target::Connection(ConnectionId(number)) => {
                self.clients.contains_key(number).then_some(*number).into_iter().collect()
            }
            Target::Client(client_id) => {
                self.sessions.get(client_id).and_then(|session| session.connection).into_iter().collect()
            }
            Target::Plugin => Vec::new(),
        }
    }

    /// The sessions that a request is about, by their Client Identifiers.
    pub(super) fn sessions_of(&self, target: &Target) -> Result<Vec<String>, Status> {
        let one = |client_id: &str| {
            let is_there = self.sessions.contains_key(client_id);
            if is_there { Ok(vec![client_id.to_owned()]) } else { Err(Status::NOT_FOUND) }
        };
        match target {
            Target::All => Ok(self.sessions.keys().cloned().collect()),
            Target::Client(client_id) => one(client_id),
            Target::Connection(number) => one(&self.clients.get(&number.0).ok_or(Status::NOT_FOUND)?.client_id),
            Target::Plugin => Err(Status::INVALID),
        }
    }

    /// Answers a request. `None`: only the test's thread can.
    pub(super) fn answer(&mut self, request: &Request) -> Option<Result<OwnPieces, Status>> {
        Some(match request {
            Request::Query { kind, target, filter, limit, after } => {
                self.query(*kind, target, filter, (*limit as usize).clamp(1, PAGE_MAX), after)
            }
            Request::Subscribe { target, filter, granted } => self.sessions_of(target).map(|sessions| {
                for client_id in sessions {
                    self.sessions.entry(client_id).or_default().subscriptions.insert(filter.clone(), *granted);
                }
                vec![(AnswerKey::QOS, granted.qos as u64, Vec::new())]
            }),
            Request::Unsubscribe { target, filter } => self.sessions_of(target).and_then(|sessions| {
                let mut end = |client_id: &String| self.sessions.get_mut(client_id)?.subscriptions.remove(filter);
                let is_ended = sessions.iter().any(|client_id| end(client_id).is_some());
                if is_ended { Ok(Vec::new()) } else { Err(Status::NOT_FOUND) }
            }),
            Request::Reauthorise { .. } => return None,
        })
    }

    fn query(&self, kind: u8, target: &Target, filter: &str, limit: usize, after: &[u8]) -> Result<OwnPieces, Status> {
        let after = std::str::from_utf8(after).map_err(|_| Status::INVALID)?;
        let rows = match kind {
            RawQuery::CONNECTIONS => self.connection_rows(target),
            RawQuery::SESSIONS => self.session_rows(target)?,
            RawQuery::SUBSCRIPTIONS => self.subscription_rows(target, filter)?,
            RawQuery::RETAINED => self.retained_rows(filter),
            _ => return Err(Status::NOT_SUPPORTED),
        };
        let mut pieces = Vec::new();
        let mut page = rows.into_iter().filter(|(key, _)| key.as_str() > after);
        let mut last = String::new();
        for (key, row) in page.by_ref().take(limit) {
            pieces.push((AnswerKey::ROW, kind.into(), Vec::new()));
            pieces.extend(row);
            last = key;
        }
        if page.next().is_some() {
            pieces.push((AnswerKey::CURSOR, 1, last.into_bytes()));
        }
        Ok(pieces)
    }

    /// Rows, in order of what they are called.
    fn connection_rows(&self, target: &Target) -> BTreeMap<String, OwnPieces> {
        let row = |number: u64| {
            let client = self.clients.get(&number)?;
            let pieces = vec![
                (AnswerKey::CONNECTION, number, Vec::new()),
                text(AnswerKey::CLIENT_ID, &client.client_id),
                text(AnswerKey::PEER, &client.peer.to_string()),
                text(AnswerKey::LISTENER, &client.listener),
                (AnswerKey::PROTOCOL_VERSION, client.protocol_version.into(), Vec::new()),
                (AnswerKey::KEEP_ALIVE, client.keep_alive_secs.into(), Vec::new()),
            ];
            Some((format!("{number:020}"), pieces))
        };
        self.connections_of(target).into_iter().filter_map(row).collect()
    }

    fn session_rows(&self, target: &Target) -> Result<BTreeMap<String, OwnPieces>, Status> {
        let row = |client_id: String| {
            let session = self.sessions.get(&client_id)?;
            let mut pieces = vec![
                text(AnswerKey::CLIENT_ID, &client_id),
                (AnswerKey::SESSION_EXPIRY, session.expiry_secs.into(), Vec::new()),
                (AnswerKey::SUBSCRIPTIONS, session.subscriptions.len() as u64, Vec::new()),
            ];
            pieces.extend(session.connection.map(|number| (AnswerKey::CONNECTION, number, Vec::new())));
            let expires_in = session.ends_at_ms.map(|at| at.saturating_sub(self.now_ms));
            pieces.extend(expires_in.map(|ms| (AnswerKey::MILLISECONDS, ms, Vec::new())));
            Some((client_id, pieces))
        };
        Ok(self.sessions_of(target)?.into_iter().filter_map(row).collect())
    }

    fn subscription_rows(&self, target: &Target, wanted: &str) -> Result<BTreeMap<String, OwnPieces>, Status> {
        let mut rows = BTreeMap::new();
        for client_id in self.sessions_of(target)? {
            let subscriptions = self.sessions.get(&client_id).map(|session| &session.subscriptions);
            for (filter, granted) in subscriptions.into_iter().flatten() {
                if !wanted.is_empty() && wanted != filter {
                    continue;
                }
                let share = match topic::split_share(filter) {
                    Share::Group { share_name, .. } => Some(share_name),
                    _ => None,
                };
                let shared = if share.is_some() { RawSubscription::SHARED } else { 0 };
                let flags = u64::from(granted.flags | shared) | u64::from(granted.retain_handling) << 8;
                let mut pieces = vec![
                    text(AnswerKey::CLIENT_ID, &client_id),
                    text(AnswerKey::FILTER, filter),
                    (AnswerKey::QOS, granted.qos as u64, Vec::new()),
                    (AnswerKey::FLAGS, flags, Vec::new()),
                ];
                pieces.extend(share.map(|name| text(AnswerKey::SHARE_NAME, name)));
                if granted.identifier != 0 {
                    pieces.push((AnswerKey::IDENTIFIER, granted.identifier.into(), Vec::new()));
                }
                rows.insert(format!("{client_id}\0{filter}"), pieces);
            }
        }
        Ok(rows)
    }

    fn retained_rows(&self, filter: &str) -> BTreeMap<String, OwnPieces> {
        let wanted = |name: &&String| filter.is_empty() || topic::matches(filter, name);
        let row = |name: &String| {
            let message = self.retained.get(name)?;
            let pieces = vec![
                text(AnswerKey::TOPIC, name),
                (AnswerKey::PAYLOAD, 0, message.payload.clone()),
                (AnswerKey::PROPERTIES, 0, message.properties.as_bytes().to_vec()),
                (AnswerKey::QOS, message.qos as u64, Vec::new()),
            ];
            Some((name.clone(), pieces))
        };
        self.retained.keys().filter(wanted).filter_map(row).collect()
    }

    /// Sets the value of a key.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Status> {
        if key.is_empty() {
            return Err(Status::INVALID);
        }
        if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return Err(Status::TOO_LARGE);
        }
        let others = self.store.iter().filter(|(other, _)| *other != key);
        let entry = |key: &[u8], value: &[u8]| ENTRY_BYTES + key.len() + value.len();
        let bytes: usize = others.map(|(key, value)| entry(key, value)).sum();
        if bytes + entry(key, value) > STORE_BYTES_MAX {
            return Err(Status::FULL);
        }
        self.store.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    /// Keys that begin with `prefix`, behind `after`.
    pub(super) fn keys(&self, prefix: &[u8], after: &[u8], limit: usize) -> Vec<Vec<u8>> {
        let from = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        let keys = self.store.range::<[u8], _>((from, Bound::Unbounded)).map(|(key, _)| key);
        keys.take_while(|key| key.starts_with(prefix)).take(limit.min(PAGE_MAX)).cloned().collect()
    }
}

fn text(key: AnswerKey, text: &str) -> (AnswerKey, u64, Vec<u8>) {
    (key, 0, text.as_bytes().to_vec())
}

/// Whom a request is about.
pub(super) fn target_of(raw: &RawTarget<'_>) -> Result<Target, Status> {
    Ok(match raw.kind {
        RawTarget::CONNECTION => Target::Connection(ConnectionId(raw.connection)),
        RawTarget::CLIENT => Target::Client(string(raw.client_id.as_slice())?),
        RawTarget::ALL => Target::All,
        RawTarget::PLUGIN => Target::Plugin,
        _ => return Err(Status::INVALID),
    })
}

pub(super) fn string(bytes: &[u8]) -> Result<String, Status> {
    if bytes.len() > usize::from(u16::MAX) {
        return Err(Status::TOO_LARGE);
    }
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Status::INVALID)
}

/// What a request to subscribe or to unsubscribe is about, checked.
pub(super) fn subscription_of(raw: &RawSubscribeRequest<'_>) -> Result<(Target, String, Granted), Status> {
    let target = target_of(&raw.target)?;
    if matches!(target, Target::All | Target::Plugin) {
        return Err(Status::INVALID);
    }
    let filter = string(raw.filter.as_slice())?;
    let (plain, is_shared) = match topic::split_share(&filter) {
        Share::None => (filter.as_str(), false),
        Share::Group { filter, .. } => (filter, true),
        Share::Malformed => return Err(Status::INVALID),
    };
    let qos = QoS::from_u8(raw.qos).ok_or(Status::INVALID)?;
    // [MQTT-3.8.3-4]
    let no_local = raw.flags & RawSubscription::NO_LOCAL != 0;
    if !topic::is_valid_filter(plain) || raw.retain_handling > 2 || no_local && is_shared {
        return Err(Status::INVALID);
    }
    let granted = Granted { qos, flags: raw.flags, retain_handling: raw.retain_handling, identifier: raw.identifier };
    Ok((target, filter, granted))
}
