//! PUBLISH and PUBREL from a client: limits, handlers, acknowledgement, retained messages, routing.

use std::rc::Rc;

use plugin_api::{DisconnectKind, Properties, PropertiesBuf, Property, QoS, ReasonCode, RetainChange};

use super::Core;
use super::acks::{PUBACK, PUBREC};
use super::budget::{Kept, no_room};
use super::connection::Closing;
use super::deferred::{Came, Question};
use super::inbound::{Next, protocol_error};
use super::route::{Outgoing, expiry};
use super::session::Session;
use crate::clock::Millis;
use crate::codec::{self, Ack, DecodeError, Packet, PacketId, ProtocolVersion, Publish};
use crate::limits::RejectedPublish;
use crate::message::{AsItCame, MessageParts, Source};
use crate::plugin::{Cursor, PublishFields, PublishOutcome, PublishRequest};

impl Core {
    /// PUBLISH, the packet that there is most of. Nearly always its topic has been published to before: then it is known
    /// to be valid, and its characters are not looked at again.
    pub(super) fn publish_packet(
        &mut self,
        slot: u32,
        version: ProtocolVersion,
        packet: &[u8],
        header_bytes: usize,
    ) -> Result<Next, DecodeError> {
        let place = &mut self.connections[slot as usize].topic_place;
        let topic = codec::topic_bytes(packet, header_bytes).and_then(|topic| self.router.known_topic(topic, place));
        let publish = codec::decode_publish(version, packet, header_bytes, topic.as_deref())?;
        self.on_publish(slot, &publish, version, packet)
    }

    #[inline]
    fn on_publish(
        &mut self,
        slot: u32,
        publish: &Publish<'_>,
        version: ProtocolVersion,
        packet: &[u8],
    ) -> Result<Next, DecodeError> {
        self.counters().publishes_received.add(1);
        if publish.qos > self.connections[slot as usize].listener.limits.maximum_qos {
            // [MQTT-3.2.2-11]
            return Err(DecodeError::Protocol {
                code: ReasonCode::QOS_NOT_SUPPORTED,
                what: "the QoS is above the Maximum QoS of CONNACK",
            });
        }
        if publish.properties.is_empty() {
            let bytes =
                codec::publish_packet_bytes(version, publish.qos, publish.topic.len(), 0, publish.payload.len());
            let as_it_came = (packet.len() == bytes).then_some(AsItCame { packet, is_v5: version.is_v5() });
            return self.publish_to(slot, publish, publish.topic, as_it_came);
        }
        match publish.properties.topic_alias() {
            None => self.publish_to(slot, publish, publish.topic, None),
            Some(alias) => self.publish_with_alias(slot, publish, alias),
        }
    }

    /// Sets or uses a Topic Alias [MQTT-3.3.2-12].
    fn publish_with_alias(&mut self, slot: u32, publish: &Publish<'_>, alias: u16) -> Result<Next, DecodeError> {
        if alias == 0 || alias > self.connections[slot as usize].listener.limits.topic_alias_max {
            // [MQTT-3.3.2-8] [MQTT-3.3.2-9]
            return Err(DecodeError::Protocol {
                code: ReasonCode::TOPIC_ALIAS_INVALID,
                what: "the Topic Alias is above the Topic Alias Maximum of CONNACK",
            });
        }
        let place = usize::from(alias - 1);
        if !publish.topic.is_empty() {
            self.set_alias(slot, place, publish.topic)?;
            return self.publish_to(slot, publish, publish.topic, None);
        }
        let aliases = &mut self.connections[slot as usize].extra().aliases;
        let Some(topic) = aliases.get_mut(place).and_then(Option::take) else {
            return Err(protocol_error("a Topic Alias that stands for no Topic Name yet"));
        };
        let next = self.publish_to(slot, publish, &topic, None);
        // If the connection has come to its end meanwhile, its aliases have gone.
        let extra = self.connections[slot as usize].extra.as_mut();
        if let Some(alias) = extra.and_then(|extra| extra.aliases.get_mut(place)) {
            *alias = Some(topic);
        }
        next
    }

    fn set_alias(&mut self, slot: u32, place: usize, topic: &str) -> Result<(), DecodeError> {
        if self.is_full() {
            return Err(no_room());
        }
        let extra = self.connections[slot as usize].extra();
        if extra.aliases.len() <= place {
            extra.aliases.resize(place + 1, None);
        }
        let before = extra.aliases[place].replace(topic.into());
        extra.alias_bytes = extra.alias_bytes + topic.len() - before.map_or(0, |before| before.len());
        self.count_extra(slot);
        Ok(())
    }

    fn publish_to(
        &mut self,
        slot: u32,
        publish: &Publish<'_>,
        topic: &str,
        as_it_came: Option<AsItCame<'_>>,
    ) -> Result<Next, DecodeError> {
        if publish.qos == QoS::ExactlyOnce
            && let Some(next) = self.check_received(slot, publish, topic)?
        {
            return Ok(next);
        }
        if publish.qos != QoS::AtMostOnce {
            self.check_quota(slot)?;
        }
        if self.connections[slot as usize].listener.checks_publish
            && let Some(next) = self.check_publish(slot, publish)?
        {
            return Ok(next);
        }
        if let Some(reason_code) = self.topic_refusal(topic) {
            self.reject_publish(slot, publish, reason_code, PropertiesBuf::default());
            return Ok(self.next(slot));
        }
        match self.ask_publish(slot, publish, topic) {
            Some(PublishOutcome::Forward) => self.forward(slot, publish, topic, as_it_came),
            Some(outcome) => self.settle_publish(slot, publish, topic, outcome),
            None => {}
        }
        Ok(self.next(slot))
    }

    /// Goes on with a message about which a plugin has answered later, or not in time.
    pub(super) fn resume_publish(&mut self, slot: u32, publish: &Publish<'_>, topic: &str, cursor: Cursor, came: Came) {
        let connection = &mut self.connections[slot as usize];
        let who = self.sessions.get(connection.session as usize).map_or("", |session| &session.client_id);
        let outcome = match (came, connection.handlers.as_mut()) {
            (Came::Answer(answered), Some(handlers)) => {
                let request = request(publish, topic);
                self.shared.chain.resume_publish(handlers, who, &request, &mut self.changed, cursor, *answered)
            }
            (Came::Late, _) => PublishOutcome::Reject {
                reason_code: ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
                properties: PropertiesBuf::default(),
            },
            (_, None) => PublishOutcome::Failed,
        };
        self.settle_publish(slot, publish, topic, outcome);
    }

    /// What only some servers ask of a PUBLISH packet, see `Listener::checks_publish`. Handlers have not been asked yet, and
    /// a Topic Alias has been set, whatever becomes of the message.
    fn check_publish(&mut self, slot: u32, publish: &Publish<'_>) -> Result<Option<Next>, DecodeError> {
        let listener = Rc::clone(&self.connections[slot as usize].listener);
        let limits = &listener.limits;
        if publish.retain && !limits.retain_available {
            // [MQTT-3.2.2-14] is the client's side of it. 3.x clients were not told, but nothing else is true either.
            return Err(DecodeError::Protocol {
                code: ReasonCode::RETAIN_NOT_SUPPORTED,
                what: "RETAIN is set, and messages are not retained here",
            });
        }
        if limits.has_client_rates() {
            let bytes = publish.topic.len() + publish.properties.as_bytes().len() + publish.payload.len();
            let rates = &mut self.connections[slot as usize].extra().rates;
            if !rates.take(bytes, limits, self.now) {
                return Ok(Some(self.refuse_rate(slot, publish)));
            }
        }
        if limits.check_payload_format && !is_payload_as_indicated(publish.properties, publish.payload) {
            if publish.qos == QoS::AtMostOnce {
                // Section 3.3.2.3.2: there is nothing else to tell it with.
                return Err(DecodeError::Protocol {
                    code: ReasonCode::PAYLOAD_FORMAT_INVALID,
                    what: "the payload is not UTF-8, as its Payload Format Indicator says",
                });
            }
            self.reject_publish(slot, publish, ReasonCode::PAYLOAD_FORMAT_INVALID, PropertiesBuf::default());
            return Ok(Some(self.next(slot)));
        }
        Ok(None)
    }

    /// A client sends more in a second than it may. No acknowledgement can say so, but DISCONNECT can.
    fn refuse_rate(&mut self, slot: u32, publish: &Publish<'_>) -> Next {
        if publish.qos == QoS::AtMostOnce {
            self.counters().dropped_rate.add(1);
        } else {
            self.close(slot, Closing::telling(DisconnectKind::LimitExceeded, ReasonCode::MESSAGE_RATE_TOO_HIGH));
        }
        self.next(slot)
    }

    /// Whether a client may send one more message with QoS 1 or 2 [MQTT-3.3.4-7]. Those with QoS 1 are acknowledged at once,
    /// so what is unacknowledged has QoS 2.
    pub(super) fn check_quota(&self, slot: u32) -> Result<(), DecodeError> {
        if self.quota_left(slot) == 0 {
            return Err(DecodeError::Protocol {
                code: ReasonCode::RECEIVE_MAXIMUM_EXCEEDED,
                what: "more unacknowledged messages than the Receive Maximum of CONNACK",
            });
        }
        Ok(())
    }

    /// How many messages more with QoS 1 or 2 it may send.
    #[inline]
    pub(super) fn quota_left(&self, slot: u32) -> usize {
        let connection = &self.connections[slot as usize];
        if !connection.is_v5() {
            return usize::MAX; // Only 5.0 has, and was told, a Receive Maximum; before it the number of identifiers is the bound.
        }
        let received = self.session_of(slot).map_or(0, |session| session.received.len());
        let max = usize::from(connection.listener.limits.receive_maximum) + usize::from(connection.received_before);
        max.saturating_sub(received)
    }

    /// Asks the handlers. A changed message is in `changed` afterwards.
    #[inline]
    pub(super) fn ask_publish(&mut self, slot: u32, publish: &Publish<'_>, topic: &str) -> Option<PublishOutcome> {
        let connection = &mut self.connections[slot as usize];
        let who = self.sessions.get(connection.session as usize).map_or("", |session| &session.client_id);
        let handlers = connection.handlers.as_mut()?;
        Some(self.shared.chain.publish(handlers, who, &request(publish, topic), &mut self.changed))
    }

    /// Does with a message what the handlers have decided.
    pub(super) fn settle_publish(&mut self, slot: u32, publish: &Publish<'_>, topic: &str, outcome: PublishOutcome) {
        match outcome {
            PublishOutcome::Forward => self.forward(slot, publish, topic, None),
            PublishOutcome::Changed => self.forward_changed(slot, publish),
            // It is acknowledged, and that is all.
            PublishOutcome::Handled => self.accept_publish(slot, publish, None),
            PublishOutcome::Reject { reason_code, properties } => {
                self.reject_publish(slot, publish, reason_code, properties);
            }
            PublishOutcome::Disconnect { reason_code, properties } => {
                let closing = Closing::telling(DisconnectKind::ServerDisconnect, reason_code);
                self.close(slot, closing.with_properties(properties));
            }
            PublishOutcome::Failed => self.close_failed(slot),
            PublishOutcome::Deferred(cursor) => {
                // The packet does not have it, and its alias may stand for another one later.
                let topic = publish.topic.is_empty().then(|| topic.into());
                self.wait_for(slot, cursor, Question::Publish { topic });
            }
        }
    }

    /// A message goes to the subscribers as it came.
    #[inline]
    fn forward(&mut self, slot: u32, publish: &Publish<'_>, topic: &str, as_it_came: Option<AsItCame<'_>>) {
        let &Publish { payload, qos, retain, .. } = publish;
        let (properties, expires_at) = (&[][..], Millis::NEVER);
        let source = Source::Client;
        let parts = MessageParts { topic, payload, properties, qos, retain, expires_at, source, as_it_came };
        if publish.properties.is_empty() {
            return self.accept_publish(slot, publish, Some(&parts));
        }
        let mut properties = std::mem::take(&mut self.properties);
        let expires_at = forwarded(publish.properties, &mut properties, self.now);
        self.accept_publish(slot, publish, Some(&MessageParts { properties: &properties, expires_at, ..parts }));
        properties.clear();
        self.properties = properties;
    }

    /// A message goes to the subscribers as the handlers have changed it.
    fn forward_changed(&mut self, slot: u32, publish: &Publish<'_>) {
        let changed = std::mem::take(&mut self.changed);
        let mut properties = Vec::new();
        let expires_at = forwarded(Properties::from_trusted(&changed.properties), &mut properties, self.now);
        let parts = MessageParts {
            topic: &changed.topic,
            payload: &changed.payload,
            properties: &properties,
            qos: changed.qos,
            retain: changed.retain,
            expires_at,
            source: Source::Client,
            as_it_came: None,
        };
        self.accept_publish(slot, publish, Some(&parts));
        self.changed = changed;
    }

    fn reject_publish(&mut self, slot: u32, publish: &Publish<'_>, reason_code: ReasonCode, properties: PropertiesBuf) {
        let Some(packet_id) = publish.packet_id else {
            return; // QoS 0 has no answer.
        };
        let connection = &self.connections[slot as usize];
        if connection.is_v5() {
            let reason_code = if reason_code.is_error() { reason_code } else { ReasonCode::UNSPECIFIED_ERROR };
            self.answer_publish(slot, publish.qos, packet_id, reason_code, &properties);
        } else if connection.listener.limits.rejected_publish == RejectedPublish::Close {
            self.close(slot, Closing::silent(DisconnectKind::ServerDisconnect, reason_code));
        } else if publish.qos == QoS::ExactlyOnce {
            // A refusal frees the identifier; the client's PUBREL is answered whether we know it or not.
            self.acknowledge(slot, PUBREC, packet_id);
        } else {
            self.acknowledge(slot, PUBACK, packet_id);
        }
    }

    /// PUBACK or PUBREC [MQTT-3.3.4-1], with what the client asked to be told and has room for.
    fn answer_publish(
        &mut self,
        slot: u32,
        qos: QoS,
        packet_id: PacketId,
        reason_code: ReasonCode,
        properties: &PropertiesBuf,
    ) {
        let first_byte = if qos == QoS::AtLeastOnce { PUBACK } else { PUBREC };
        let connection = &self.connections[slot as usize];
        if reason_code == ReasonCode::SUCCESS && properties.is_empty() || !connection.is_v5() {
            return self.acknowledge(slot, first_byte, packet_id);
        }
        let packet = |properties| {
            let ack = Ack { packet_id, reason_code, properties };
            if qos == QoS::AtLeastOnce { Packet::Puback(ack) } else { Packet::Pubrec(ack) }
        };
        self.answer_with_properties(slot, properties.as_properties(), packet);
    }

    /// Takes ownership of a message: stores, routes and acknowledges it. `None`: a handler has taken it.
    fn accept_publish(&mut self, slot: u32, publish: &Publish<'_>, parts: Option<&MessageParts<'_>>) {
        let Some(packet_id) = publish.packet_id else {
            // Handlers may have made it one that has to be kept where there is no room.
            if parts
                .is_some_and(|parts| self.publish_from(slot, &mut Outgoing::new(*parts)) == ReasonCode::QUOTA_EXCEEDED)
            {
                self.refuse_to_retain(slot, publish);
            }
            return;
        };
        if self.held_acks.is_refused && parts.is_some_and(|parts| self.would_be_kept(slot, publish.qos, parts)) {
            return self.refuse_to_keep(slot, publish);
        }
        if parts.is_some_and(|parts| !self.can_take(slot, publish.qos, parts)) {
            self.counters().publishes_refused.add(1);
            return self.refuse_full(slot, publish);
        }
        if publish.qos == QoS::ExactlyOnce {
            if parts.is_some_and(|parts| !self.has_room_to_retain(parts)) {
                return self.refuse_to_retain(slot, publish);
            }
            return self.receive(slot, packet_id, parts.map(|parts| Kept::new(parts, &self.account)));
        }
        match parts.map_or(ReasonCode::SUCCESS, |parts| self.publish_from(slot, &mut Outgoing::new(*parts))) {
            ReasonCode::SUCCESS => self.acknowledge(slot, PUBACK, packet_id),
            ReasonCode::QUOTA_EXCEEDED => self.refuse_to_retain(slot, publish),
            reason_code => {
                self.answer_publish(slot, QoS::AtLeastOnce, packet_id, reason_code, &PropertiesBuf::default())
            }
        }
    }

    /// Whether a message that is acknowledged can be kept where it would have to be.
    fn can_take(&mut self, slot: u32, qos: QoS, parts: &MessageParts<'_>) -> bool {
        let limits = &self.shared.limits;
        let bytes = parts.topic.len() + parts.properties.len() + parts.payload.len();
        let has_room = |session: &Session| session.received.is_empty() || session.can_receive(bytes, limits);
        let is_too_much = qos == QoS::ExactlyOnce && !self.session_of(slot).is_some_and(has_room);
        if is_too_much || self.said_full && self.is_full() {
            return false;
        }
        !(self.may_be_held_up() && {
            let targets = self.router.targets(parts.topic);
            self.is_held_up(&targets)
        })
    }

    /// What would have to be kept cannot be. 5.0 clients are told; the others get no acknowledgement, until they are closed and
    /// may send it again.
    fn refuse_to_keep(&mut self, slot: u32, publish: &Publish<'_>) {
        self.counters().publishes_refused.add(1);
        if self.connections[slot as usize].is_v5() {
            self.reject_publish(slot, publish, ReasonCode::QUOTA_EXCEEDED, PropertiesBuf::default());
        } else {
            self.withhold(slot);
        }
    }

    fn refuse_to_retain(&mut self, slot: u32, publish: &Publish<'_>) {
        self.counters().dropped_not_retained.add(1);
        self.refuse_full(slot, publish);
    }

    /// There is no room for a message: nothing is acknowledged that is not kept. A 3.x client cannot be told, and is
    /// closed, so that it still has the message.
    fn refuse_full(&mut self, slot: u32, publish: &Publish<'_>) {
        if publish.packet_id.is_some() && !self.connections[slot as usize].is_v5() {
            self.close(slot, Closing::silent(DisconnectKind::LimitExceeded, ReasonCode::QUOTA_EXCEEDED));
        } else {
            self.reject_publish(slot, publish, ReasonCode::QUOTA_EXCEEDED, PropertiesBuf::default());
        }
    }

    /// Stores and routes what a client has published. Returns the Reason Code of its acknowledgement.
    fn publish_from(&mut self, slot: u32, out: &mut Outgoing<'_>) -> ReasonCode {
        let cannot = out.parts.qos == QoS::AtMostOnce && self.cannot_retain(&out.parts);
        if out.parts.retain && (cannot || !self.retain(out)) {
            if out.parts.qos != QoS::AtMostOnce {
                return ReasonCode::QUOTA_EXCEEDED;
            }
            self.not_retained(out);
        }
        self.route_from(slot, out)
    }

    /// There was no room for a message that cannot be refused: its subscribers get it all the same, but what was retained
    /// before does not outlive it [MQTT-3.3.1-7@3.1.1].
    pub(super) fn not_retained(&mut self, out: &Outgoing<'_>) {
        if self.shared.retained.clear(out.parts.topic) {
            self.journal_retained();
            self.tell_retained(RetainChange::Cleared, &out.parts);
        }
        self.counters().dropped_not_retained.add(1);
        tracing::debug!(topic = out.parts.topic, "a message was not retained: there is no room for more");
    }

    pub(super) fn route_from(&mut self, slot: u32, out: &mut Outgoing<'_>) -> ReasonCode {
        let session_slot = self.connections[slot as usize].session;
        let publisher = self.sessions.get(session_slot as usize).map(|session| session.key(session_slot));
        if self.route(out, publisher) { ReasonCode::SUCCESS } else { ReasonCode::NO_MATCHING_SUBSCRIBERS }
    }
}

/// What handlers are shown of a PUBLISH packet.
#[inline]
fn request<'a>(publish: &Publish<'a>, topic: &'a str) -> PublishRequest<'a> {
    PublishRequest::new(PublishFields {
        topic,
        payload: publish.payload,
        properties: publish.properties.as_bytes(),
        qos: publish.qos,
        retain: publish.retain,
        dup: publish.dup,
        packet_id: publish.packet_id.map(PacketId::get),
        will: false,
    })
}

/// Whether a payload is UTF-8 where its Payload Format Indicator says so, section 3.3.2.3.2.
pub(super) fn is_payload_as_indicated(properties: Properties<'_>, payload: &[u8]) -> bool {
    properties.payload_format_indicator() != Some(1) || std::str::from_utf8(payload).is_ok()
}

/// Copies the properties that go on to subscribers, unaltered and in their order [MQTT-3.3.2-17] [MQTT-3.3.2-18]: all but
/// the Topic Alias, which belongs to one connection, and the Message Expiry Interval, which is returned as a moment.
pub(super) fn forwarded(properties: Properties<'_>, copy: &mut Vec<u8>, now: Millis) -> Millis {
    copy.clear();
    let mut lifetime = None;
    let mut rest = properties.as_bytes();
    while let Ok((property, behind)) = Property::decode(rest) {
        match property {
            Property::TopicAlias(_) => {}
            Property::MessageExpiryInterval(secs) => lifetime = Some(secs),
            _ => copy.extend_from_slice(&rest[..rest.len() - behind.len()]),
        }
        rest = behind;
    }
    expiry(now, lifetime)
}
