//! A connection and its session come together: takeover, resumption, CONNACK.

use plugin_api::{DisconnectKind, PropertiesBuf, Property, QoS, ReasonCode};

use super::budget::session_bytes;
use super::connection::{Closing, NONE, PendingConnect, Phase};
use super::farewell::Fate;
use super::poll::Reauthorised;
use super::session::Session;
use super::{Core, slot_of};
use crate::clock::Millis;
use crate::codec::{Connack, Packet, ProtocolVersion};
use crate::plugin::Handlers;

impl Core {
    /// Joins a connection and its session, and acknowledges.
    pub(super) fn attach(&mut self, slot: u32, pending: PendingConnect) {
        let Some(connack) = self.connack_properties(slot, &pending) else {
            return self.refuse(slot, &ReasonCode::PACKET_TOO_LARGE.into());
        };
        // What is due is not put off until the next tick: who comes too late is not in time for its will, or its session.
        if let Some(kept) = self.slot_of_client(&pending.client_id) {
            self.settle_session(kept);
        }
        let existing = self.slot_of_client(&pending.client_id);
        let would_be_kept = |core: &Self| {
            pending.expiry_secs != 0
                || existing.is_some_and(|kept| core.is_kept(kept))
                || core.may_leave_something(slot)
        };
        if self.held_acks.is_refused && would_be_kept(self) {
            return self.refuse(slot, &self.no_room(slot, ReasonCode::QUOTA_EXCEEDED));
        }
        let mut took_over = false;
        if let Some(session_slot) = existing {
            let before = self.sessions[session_slot as usize].connection;
            took_over = before != NONE;
            if before != NONE {
                // [MQTT-3.1.4-3]
                self.close(before, Closing::telling(DisconnectKind::TakenOver, ReasonCode::SESSION_TAKEN_OVER));
            }
            if pending.clean_start && self.slot_of_client(&pending.client_id) == Some(session_slot) {
                self.end_session(session_slot); // [MQTT-3.1.2-4]
            }
        }
        let resumed = self.slot_of_client(&pending.client_id);
        let session_slot = match resumed {
            Some(session_slot) => session_slot, // [MQTT-3.1.2-5]
            None if self.is_full() || self.sessions.len() >= self.shared.limits.sessions_max => {
                return self.refuse(slot, &self.no_room(slot, ReasonCode::QUOTA_EXCEEDED));
            }
            None => self.new_session(&pending.client_id),
        };
        let session = &mut self.sessions[session_slot as usize];
        session.connection = slot;
        session.expiry_secs = pending.expiry_secs;
        session.expiry_secs_max = pending.expiry_secs_max;
        session.expires_at = Millis::NEVER;
        let will = session.take_away(|away| &mut away.will); // [MQTT-3.1.3-9]
        session.resend_all();
        if let Some(will) = &will {
            self.journal_will_gone(session_slot);
            self.settle_will(&will.body, Fate::Discarded);
        }
        self.forget_last_states(session_slot, will.as_ref());
        self.journal_attached(session_slot, resumed.is_none());
        self.journal_will_of(slot, session_slot);
        let session = &mut self.sessions[session_slot as usize];
        let connection = &mut self.connections[slot as usize];
        // The plugins that have allowed what is there may be others, or allow this client less than they did.
        if resumed.is_some() && connection.handlers.as_ref().is_some_and(Handlers::decides_on_subscriptions) {
            session.note_to_ask_again();
        }
        connection.session = session_slot;
        connection.phase = Phase::Connected;
        connection.keep_alive_secs = pending.keep_alive_secs;
        connection.asked_no_expiry = pending.expiry_asked == 0;
        connection.received_before = u16::try_from(session.received.len()).unwrap_or(u16::MAX);
        connection.heard_at = self.now;
        let can_be_asked_for = !self.plan.plugins().is_empty();
        connection.forget_details(can_be_asked_for);
        self.count_extra(slot);
        self.connections[slot as usize].drop_empty_extra();
        if let Some(patience) = self.patience(slot) {
            self.arm_connection(slot, self.now + patience);
        }
        // [MQTT-3.1.4-5]
        let properties = connack.as_properties();
        let connack = Connack { session_present: resumed.is_some(), reason_code: ReasonCode::SUCCESS, properties };
        self.write(slot, |out| Packet::Connack(connack).encode(pending.version, out));
        self.shut_if_kept(slot, session_slot);
        if !self.tell_connected(slot, resumed.is_some(), took_over) {
            return self.close_failed(slot);
        }
        if self.sessions[session_slot as usize].asks_again {
            self.ask_again(session_slot, None, &mut Reauthorised::default());
            if self.connections[slot as usize].phase != Phase::Connected {
                return;
            }
        }
        self.pump(session_slot);
        self.resume_replays(slot, session_slot);
    }

    pub(super) fn new_session(&mut self, client_id: &str) -> u32 {
        let serial = self.next_serial;
        self.next_serial = self.next_serial.wrapping_add(1);
        self.account.add(session_bytes(client_id));
        let slot = slot_of(self.sessions.insert(Session::new(client_id.into(), serial)));
        let sessions = &self.sessions;
        self.by_client.insert(client_id, slot, |slot| &*sessions[slot as usize].client_id);
        slot
    }

    /// The properties of CONNACK: ours, and those that handlers have added if the client has room for them
    /// [MQTT-3.2.2-19] [MQTT-3.2.2-20]. `None` if not even ours fit [MQTT-3.1.2-24].
    fn connack_properties(&self, slot: u32, pending: &PendingConnect) -> Option<PropertiesBuf> {
        let connection = &self.connections[slot as usize];
        if !connection.is_v5() {
            return Some(PropertiesBuf::default());
        }
        let fits = |properties: &PropertiesBuf| {
            // Type, flags and Reason Code, and two lengths of at most four bytes.
            let bytes_max = properties.as_bytes().len() + 11;
            bytes_max <= connection.packet_bytes_max as usize || {
                let mut bytes = Vec::new();
                let properties = properties.as_properties();
                let connack = Connack { session_present: false, reason_code: ReasonCode::SUCCESS, properties };
                Packet::Connack(connack).encode(ProtocolVersion::V5, &mut bytes);
                bytes.len() <= connection.packet_bytes_max as usize
            }
        };
        let own = self.own_connack_properties(slot, pending);
        if pending.connack.is_empty() {
            return Some(own).filter(fits);
        }
        let mut all = own.clone();
        for property in pending.connack.as_properties().iter() {
            // A handler's property is left out where the server has set its own, and where the client did not ask for it
            // [MQTT-3.1.2-28].
            let asked_for = pending.response_information || !matches!(property, Property::ResponseInformation(_));
            if asked_for && properties_allow(&all, &property) {
                let _ = all.push(property);
            }
        }
        [all, own].into_iter().find(fits)
    }

    /// What differs from what the client asked for and from the specification's defaults.
    fn own_connack_properties(&self, slot: u32, pending: &PendingConnect) -> PropertiesBuf {
        let limits = &self.connections[slot as usize].listener.limits;
        let mut properties = PropertiesBuf::default();
        let mut add = |property| properties.push(property).expect("our own values are in range");
        if pending.expiry_secs != pending.expiry_asked {
            add(Property::SessionExpiryInterval(pending.expiry_secs));
        }
        if limits.receive_maximum != u16::MAX {
            add(Property::ReceiveMaximum(limits.receive_maximum));
        }
        if limits.maximum_qos != QoS::ExactlyOnce {
            add(Property::MaximumQos(limits.maximum_qos as u8));
        }
        if !limits.retain_available {
            add(Property::RetainAvailable(0));
        }
        add(Property::MaximumPacketSize(u32::try_from(limits.packet_bytes_max).unwrap_or(u32::MAX)));
        if pending.assigned {
            add(Property::AssignedClientIdentifier(&pending.client_id));
        }
        if limits.topic_alias_max != 0 {
            add(Property::TopicAliasMaximum(limits.topic_alias_max));
        }
        if !limits.wildcard_subscriptions_available {
            add(Property::WildcardSubscriptionAvailable(0));
        }
        if !limits.subscription_identifiers_available {
            add(Property::SubscriptionIdentifierAvailable(0));
        }
        if !limits.shared_subscriptions_available {
            add(Property::SharedSubscriptionAvailable(0));
        }
        if pending.keep_alive_secs != pending.keep_alive_asked {
            add(Property::ServerKeepAlive(pending.keep_alive_secs)); // [MQTT-3.1.2-21]
        }
        if let Some(auth) = self.connections[slot as usize].auth() {
            add(Property::AuthenticationMethod(&auth.method)); // [MQTT-4.12.0-5]
            if let Some(data) = &pending.auth_data {
                add(Property::AuthenticationData(data));
            }
        }
        properties
    }
}

/// Whether CONNACK may have a property besides those that it has.
fn properties_allow(present: &PropertiesBuf, property: &Property<'_>) -> bool {
    matches!(property, Property::UserProperty(..))
        || !present.as_properties().iter().any(|other| other.id() == property.id())
}
