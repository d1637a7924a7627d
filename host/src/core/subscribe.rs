//! SUBSCRIBE and UNSUBSCRIBE: bounds, handlers, the router, retained messages.

use std::num::NonZeroU32;

use plugin_api::topic::{self, Share};
use plugin_api::{DisconnectKind, Properties, QoS, ReasonCode};

use super::Core;
use super::budget::subscription_bytes;
use super::connection::Closing;
use super::deferred::{Came, Question};
use super::inbound::Next;
use super::session::Subscription;
use super::work::levels_in;
use crate::codec::{
    DecodeError, Packet, ProtocolVersion, RetainHandling, Suback, Subscribe, SubscribeOptions, Unsuback, Unsubscribe,
};
use crate::durable::change::Change;
use crate::plugin::{Cursor, SubscribeItem, SubscribeOutcome};
use crate::router::Left;

/// One Topic Filter of a SUBSCRIBE packet.
pub(super) struct Asked<'a> {
    /// As the client wrote it.
    pub(super) written: &'a str,
    /// Without `$share/{ShareName}/`.
    pub(super) filter: &'a str,
    pub(super) share_name: Option<&'a str>,
    pub(super) options: SubscribeOptions,
}

impl<'a> Asked<'a> {
    pub(super) fn new(written: &'a str, options: SubscribeOptions) -> Self {
        let (share_name, filter) = match topic::split_share(written) {
            Share::Group { share_name, filter } => (Some(share_name), filter),
            Share::None | Share::Malformed => (None, written),
        };
        Self { written, filter, share_name, options }
    }

    pub(super) fn item(&self) -> SubscribeItem<'a> {
        SubscribeItem { filter: self.filter, share_name: self.share_name, options: self.options, again: false }
    }
}

impl Core {
    pub(super) fn on_subscribe(&mut self, slot: u32, subscribe: &Subscribe<'_>) -> Result<Next, DecodeError> {
        self.check_count(slot, subscribe.filters.iter().map(|item| item.filter))?;
        let identifier = subscribe.properties.subscription_identifier();
        let limits = &self.connections[slot as usize].listener.limits;
        if identifier.is_some() && !limits.subscription_identifiers_available {
            return Err(not_offered(ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED));
        }
        let is_v5 = self.connections[slot as usize].is_v5();
        let asked = asked(subscribe);
        let mut codes = Vec::new();
        for one in &asked {
            let code = self.check_filter(self.connections[slot as usize].session, one);
            if is_v5 && matches!(code, WILDCARDS_NOT_SUPPORTED | SHARED_NOT_SUPPORTED) {
                return Err(not_offered(code));
            }
            codes.push(code);
        }
        let items: Vec<SubscribeItem<'_>> = asked.iter().map(Asked::item).collect();
        let connection = &mut self.connections[slot as usize];
        let who = self.sessions.get(connection.session as usize).map_or("", |session| &session.client_id);
        let Some(handlers) = connection.handlers.as_mut() else {
            return Ok(Next::Stop);
        };
        let properties = subscribe.properties.as_bytes();
        let outcome = self.shared.chain.subscribe(handlers, who, &items, properties, &mut codes);
        self.settle_subscribe(slot, subscribe, &asked, codes, outcome);
        Ok(self.next(slot))
    }

    /// Goes on with a packet about which a plugin has answered later, or not in time.
    pub(super) fn resume_subscribe(
        &mut self,
        slot: u32,
        subscribe: &Subscribe<'_>,
        mut codes: Vec<ReasonCode>,
        cursor: &Cursor,
        came: Came,
    ) {
        let asked = asked(subscribe);
        let items: Vec<SubscribeItem<'_>> = asked.iter().map(Asked::item).collect();
        let connection = &mut self.connections[slot as usize];
        let who = self.sessions.get(connection.session as usize).map_or("", |session| &session.client_id);
        let (properties, chain) = (subscribe.properties.as_bytes(), &self.shared.chain);
        let outcome = match (came, connection.handlers.as_mut()) {
            (Came::Answer(answered), Some(handlers)) => {
                chain.resume_subscribe(handlers, who, &items, properties, &mut codes, cursor, *answered)
            }
            (Came::Late, _) => fail_all(&mut codes),
            (_, None) => SubscribeOutcome::Failed,
        };
        self.settle_subscribe(slot, subscribe, &asked, codes, outcome);
    }

    /// Does what the handlers have decided, and says so.
    fn settle_subscribe(
        &mut self,
        slot: u32,
        subscribe: &Subscribe<'_>,
        asked: &[Asked<'_>],
        mut codes: Vec<ReasonCode>,
        outcome: SubscribeOutcome,
    ) {
        if let SubscribeOutcome::Deferred(cursor) = outcome {
            return self.wait_for(slot, cursor, Question::Subscribe { codes });
        }
        if !self.is_done(slot, outcome) {
            return;
        }
        let identifier = subscribe.properties.subscription_identifier().unwrap_or(0);
        for (asked, code) in asked.iter().zip(&mut codes) {
            if !code.is_error() {
                *code = self.subscribe(self.connections[slot as usize].session, asked, *code, identifier);
            }
        }
        // [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-6]
        // MQTT 3.1 has no code for a failure, and has the client told of a subscription all the same.
        let connection = &self.connections[slot as usize];
        let without_failure = connection.version == ProtocolVersion::V3_1;
        let qos_max = connection.listener.limits.maximum_qos;
        let shown = |(asked, code): (&Asked<'_>, &ReasonCode)| {
            if without_failure && code.is_error() { asked.options.qos.min(qos_max) as u8 } else { code.0 }
        };
        let reason_codes: Vec<u8> = asked.iter().zip(&codes).map(shown).collect();
        let suback =
            Suback { packet_id: subscribe.packet_id, properties: Properties::EMPTY, reason_codes: &reason_codes };
        self.leave_lane_if_there_is_room(slot); // So that it comes behind what was published before.
        self.answer(slot, &Packet::Suback(suback));
    }

    /// A packet is handled as a whole, so there is a bound to what it may ask for.
    fn check_count<'a>(&self, slot: u32, filters: impl Iterator<Item = &'a str>) -> Result<(), DecodeError> {
        let counted = filters.fold((0, 0), |(count, levels), filter| (count + 1, levels + levels_in(filter)));
        let what = match (&self.connections[slot as usize].listener.limits, counted) {
            (limits, (count, _)) if count > limits.filters_a_packet_max => {
                "more Topic Filters in one packet than are allowed"
            }
            (limits, (_, levels)) if levels > limits.filter_levels_a_packet_max => {
                "more levels of Topic Filters in one packet than are allowed"
            }
            _ => return Ok(()),
        };
        Err(DecodeError::Protocol { code: ReasonCode::QUOTA_EXCEEDED, what })
    }

    /// What can be granted before handlers are asked.
    pub(super) fn check_filter(&self, session_slot: u32, asked: &Asked<'_>) -> ReasonCode {
        let malformed = matches!(topic::split_share(asked.written), Share::Malformed); // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
        let limits = self.limits_of(session_slot);
        let is_too_long = self.is_too_long(asked.filter) || asked.written.len() > limits.topic_bytes_max;
        if malformed || !topic::is_valid_filter(asked.filter) || is_too_long {
            return ReasonCode::TOPIC_FILTER_INVALID;
        }
        if !limits.wildcard_subscriptions_available && asked.filter.contains(['#', '+']) {
            return WILDCARDS_NOT_SUPPORTED;
        }
        if !limits.shared_subscriptions_available && asked.share_name.is_some() {
            return SHARED_NOT_SUPPORTED;
        }
        let Some(session) = self.sessions.get(session_slot as usize) else {
            return ReasonCode::UNSPECIFIED_ERROR;
        };
        if self.held_acks.is_refused && self.is_kept(session_slot) {
            return ReasonCode::QUOTA_EXCEEDED;
        }
        // One that is there already may be replaced; but that is looked up only if it matters.
        let has_room = !self.is_full() && session.subscriptions.len() < limits.subscriptions_max;
        if !has_room && !session.subscriptions.contains_key(asked.written) {
            return ReasonCode::QUOTA_EXCEEDED;
        }
        // [MQTT-3.2.2-10]
        ReasonCode(asked.options.qos.min(limits.maximum_qos) as u8)
    }

    /// Whether the Reason Codes are decided. If not, the connection has ended.
    pub(super) fn is_done(&mut self, slot: u32, outcome: SubscribeOutcome) -> bool {
        match outcome {
            SubscribeOutcome::Done => true,
            SubscribeOutcome::Disconnect { reason_code, properties } => {
                let closing = Closing::telling(DisconnectKind::ServerDisconnect, reason_code);
                self.close(slot, closing.with_properties(properties));
                false
            }
            SubscribeOutcome::Failed | SubscribeOutcome::Deferred(_) => {
                self.close_failed(slot);
                false
            }
        }
    }

    /// Makes a subscription, and lets its retained messages follow. It is visible to publishers when this returns, so
    /// before its SUBACK and before its retained messages are looked up.
    pub(super) fn subscribe(
        &mut self,
        session_slot: u32,
        asked: &Asked<'_>,
        granted: ReasonCode,
        identifier: u32,
    ) -> ReasonCode {
        self.pay_for(asked.written);
        let subscriptions_max = self.limits_of(session_slot).subscriptions_max;
        let session = &mut self.sessions[session_slot as usize];
        // One filter may stand in the packet twice, so that what was checked before may no longer be so.
        if session.subscriptions.len() >= subscriptions_max && !session.subscriptions.contains_key(asked.written) {
            return ReasonCode::QUOTA_EXCEEDED;
        }
        let qos = QoS::from_u8(granted.0).unwrap_or(QoS::AtMostOnce);
        let options = SubscribeOptions { qos, ..asked.options };
        let existed = self.put_subscription(session_slot, asked, Subscription { options, identifier });
        if asked.share_name.is_some() {
            return granted;
        }
        let send_retained = match options.retain_handling {
            RetainHandling::SendAtSubscribe => true, // [MQTT-3.3.1-9]
            RetainHandling::SendIfNew => !existed,   // [MQTT-3.3.1-10]
            RetainHandling::DoNotSend => false,      // [MQTT-3.3.1-11]
        };
        if send_retained {
            self.start_replay(session_slot, asked.filter, qos, identifier);
        }
        granted
    }

    /// Puts a subscription into its session and into the router. `true` if it has replaced one [MQTT-3.8.4-3].
    pub(super) fn put_subscription(
        &mut self,
        session_slot: u32,
        asked: &Asked<'_>,
        subscription: Subscription,
    ) -> bool {
        let Subscription { options, identifier } = subscription;
        let session = &mut self.sessions[session_slot as usize];
        let existed = session.subscriptions.insert(asked.written.into(), subscription).is_some();
        if !existed {
            self.account.add(subscription_bytes(asked.written));
        }
        let (key, identifier) = (session.key(session_slot), NonZeroU32::new(identifier));
        match asked.share_name {
            Some(share_name) => {
                let filter = (asked.written, share_name, asked.filter);
                self.join_group(session_slot, filter, options, identifier);
            }
            None => {
                self.router.subscribe(key, asked.filter, options, identifier);
            }
        }
        if let Some((journal, session)) = self.journal_of(session_slot) {
            let (session, Subscription { options, identifier }) = (session.number, subscription);
            journal.put(&Change::Subscribed { session, filter: asked.written, options, identifier });
        }
        existed
    }

    pub(super) fn on_unsubscribe(&mut self, slot: u32, unsubscribe: &Unsubscribe<'_>) -> Result<Next, DecodeError> {
        self.check_count(slot, unsubscribe.filters.iter())?;
        let filters: Vec<&str> = unsubscribe.filters.iter().collect();
        let mut codes: Vec<ReasonCode> = filters.iter().map(|filter| self.check_unsubscribe(slot, filter)).collect();
        let connection = &mut self.connections[slot as usize];
        let who = self.sessions.get(connection.session as usize).map_or("", |session| &session.client_id);
        let Some(handlers) = connection.handlers.as_mut() else {
            return Ok(Next::Stop);
        };
        let properties = unsubscribe.properties.as_bytes();
        let outcome = self.shared.chain.unsubscribe(handlers, who, &filters, properties, &mut codes);
        self.settle_unsubscribe(slot, unsubscribe, &filters, codes, outcome);
        Ok(self.next(slot))
    }

    /// See [`Core::resume_subscribe`].
    pub(super) fn resume_unsubscribe(
        &mut self,
        slot: u32,
        unsubscribe: &Unsubscribe<'_>,
        mut codes: Vec<ReasonCode>,
        cursor: &Cursor,
        came: Came,
    ) {
        let filters: Vec<&str> = unsubscribe.filters.iter().collect();
        let connection = &mut self.connections[slot as usize];
        let who = self.sessions.get(connection.session as usize).map_or("", |session| &session.client_id);
        let (properties, chain) = (unsubscribe.properties.as_bytes(), &self.shared.chain);
        let outcome = match (came, connection.handlers.as_mut()) {
            (Came::Answer(answered), Some(handlers)) => {
                chain.resume_unsubscribe(handlers, who, &filters, properties, &mut codes, cursor, *answered)
            }
            (Came::Late, _) => fail_all(&mut codes),
            (_, None) => SubscribeOutcome::Failed,
        };
        self.settle_unsubscribe(slot, unsubscribe, &filters, codes, outcome);
    }

    fn settle_unsubscribe(
        &mut self,
        slot: u32,
        unsubscribe: &Unsubscribe<'_>,
        filters: &[&str],
        mut codes: Vec<ReasonCode>,
        outcome: SubscribeOutcome,
    ) {
        if let SubscribeOutcome::Deferred(cursor) = outcome {
            return self.wait_for(slot, cursor, Question::Unsubscribe { codes });
        }
        if !self.is_done(slot, outcome) {
            return;
        }
        let session_slot = self.connections[slot as usize].session;
        let mut left = Vec::new();
        for (filter, code) in filters.iter().zip(&mut codes) {
            // One filter may stand in the packet twice; the second time there is nothing to remove [MQTT-3.10.4-6].
            self.pay_for(filter);
            if *code == ReasonCode::SUCCESS && !self.unsubscribe(session_slot, filter, &mut left) {
                *code = ReasonCode::NO_SUBSCRIPTION_EXISTED;
            }
        }
        if codes.contains(&ReasonCode::NO_SUBSCRIPTION_EXISTED) && self.is_kept(session_slot) {
            self.answer_behind_journals(); // A plugin may have ended it.
        }
        if !left.is_empty() {
            self.hand_on_queued(session_slot, &left);
        }
        // [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.11.3-1]
        let reason_codes: Vec<u8> = codes.iter().map(|code| code.0).collect();
        let unsuback =
            Unsuback { packet_id: unsubscribe.packet_id, properties: Properties::EMPTY, reason_codes: &reason_codes };
        self.leave_lane_if_there_is_room(slot);
        self.answer(slot, &Packet::Unsuback(unsuback));
    }

    fn check_unsubscribe(&self, slot: u32, filter: &str) -> ReasonCode {
        let plain = match topic::split_share(filter) {
            Share::Group { filter, .. } => filter,
            Share::None => filter,
            Share::Malformed => return ReasonCode::TOPIC_FILTER_INVALID,
        };
        if !topic::is_valid_filter(plain) {
            return ReasonCode::TOPIC_FILTER_INVALID;
        }
        match self.session_of(slot) {
            Some(session) if session.subscriptions.contains_key(filter) => ReasonCode::SUCCESS,
            _ => ReasonCode::NO_SUBSCRIPTION_EXISTED,
        }
    }

    /// Removes a subscription by its filter as the client wrote it [MQTT-3.10.4-1]. `false` if there was none. If it was a
    /// shared one, its group is added to `left`.
    pub(super) fn unsubscribe(&mut self, session_slot: u32, written: &str, left: &mut Vec<Left>) -> bool {
        let session = &mut self.sessions[session_slot as usize];
        let key = session.key(session_slot);
        session.subscriptions.remove(written).is_some() && {
            self.account.sub(subscription_bytes(written));
            left.extend(self.remove_from_router(key, written));
            if let Some((journal, session)) = self.journal_of(session_slot) {
                journal.put(&Change::Unsubscribed { session: session.number, filter: written });
            }
            self.cancel_replay(session_slot, written);
            true
        }
    }
}

/// The Topic Filters of a packet.
fn asked<'a>(subscribe: &Subscribe<'a>) -> Vec<Asked<'a>> {
    subscribe.filters.iter().map(|item| Asked::new(item.filter, item.options)).collect()
}

/// Nobody has answered in time: nothing is granted.
pub(super) fn fail_all(codes: &mut [ReasonCode]) -> SubscribeOutcome {
    codes.iter_mut().filter(|code| !code.is_error()).for_each(|code| *code = ReasonCode::UNSPECIFIED_ERROR);
    SubscribeOutcome::Done
}

const WILDCARDS_NOT_SUPPORTED: ReasonCode = ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED;
const SHARED_NOT_SUPPORTED: ReasonCode = ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED;

/// CONNACK has said that there is no such thing, so that it is a Protocol Error, sections 3.2.2.3.11 to 3.2.2.3.13. (3.x
/// clients were told nothing: they get a failure in their SUBACK.)
fn not_offered(code: ReasonCode) -> DecodeError {
    DecodeError::Protocol { code, what: "a subscription with what CONNACK has said not to be available" }
}
