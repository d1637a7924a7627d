//! What holds between two calls, and what is left at the end: for tests and fuzz targets.

use super::connection::{Connection, NONE, Phase};
use super::session::Session;
use super::{Core, Shared, slot_of};
use crate::router::SessionKey;

/// More than the core lets answers add to the bound of outbound bytes.
const ANSWERS_BYTES: usize = 2 << 20;

impl Shared {
    /// Asserts that the retained messages are within their bounds.
    ///
    /// # Panics
    /// If they are not.
    pub fn assert_sound(&self) {
        assert!(self.retained.len() <= self.limits.retained_messages_max, "retained messages");
        assert!(self.retained.bytes() <= self.limits.retained_bytes_max, "bytes of retained messages");
        self.admission.assert_sound(&self.limits);
    }

    /// Asserts that no connection and no subscription is left.
    ///
    /// # Panics
    /// If there is one.
    pub fn assert_nothing_left(&self) {
        self.admission.assert_nothing_left();
        assert_eq!(self.interest.nodes().0, 0, "subscriptions");
    }
}

impl Core {
    /// Asserts that connections, sessions and their indexes agree with each other and are within their bounds.
    ///
    /// # Panics
    /// If they do not.
    pub fn assert_sound(&self) {
        assert_eq!(self.by_connection.len(), self.connections.len(), "connection ids");
        for (slot, connection) in &self.connections {
            self.assert_connection(slot_of(slot), connection);
        }
        assert_eq!(self.by_client.len(), self.sessions.len(), "Client Identifiers");
        assert!(self.sessions.len() <= self.shared.limits.sessions_max, "sessions");
        let pool_bytes: usize = self.pool.iter().map(Vec::capacity).sum();
        assert_eq!(self.pool_bytes, pool_bytes, "bytes of the buffers in the pool, counted");
        self.assert_lanes();
        for (slot, session) in &self.sessions {
            self.assert_session(slot_of(slot), session);
        }
    }

    fn assert_connection(&self, slot: u32, connection: &Connection) {
        let (limits, server) = (&connection.listener.limits, &self.shared.limits);
        assert_eq!(self.slot_of_connection(connection.id), Some(slot), "the connection's id");
        assert!(connection.out_sent <= connection.out.len(), "more was sent than there is");
        assert!(!connection.dirty || self.dirty.contains(&slot), "dirty, and not on the list");
        let out_max =
            server.outbound_bytes_max + ANSWERS_BYTES + 2 * server.packet_bytes_max.max(limits.packet_bytes_max);
        assert!(self.waiting_bytes(slot) <= out_max, "outbound bytes");
        let partial_max = match connection.phase {
            _ if connection.is_held => usize::MAX, // What the driver has read once.
            Phase::AwaitingConnect | Phase::Authenticating => limits.packet_bytes_max.min(limits.connect_bytes_max),
            Phase::Connected => limits.packet_bytes_max,
            Phase::Leaving | Phase::Closing => 0,
        };
        assert!(
            connection.is_held || connection.partial.as_ref().map_or(0, |partial| partial.len()) <= partial_max,
            "bytes of a packet that has not come completely"
        );
        assert_eq!(connection.is_owed, self.held_acks.has(slot), "what a connection is owed");
        assert!(connection.is_owed || !connection.is_shut, "shut, and nothing says when it is not any more");
        let waits = connection.extra.as_ref().is_some_and(|extra| extra.waiting.is_some());
        assert_eq!(connection.is_waiting, waits, "an open question");
        assert!(!waits || connection.is_held, "packets overtake an open question");
        if let Some(extra) = &connection.extra {
            assert!(extra.aliases.len() <= usize::from(limits.topic_alias_max), "Topic Aliases");
        }
        if connection.phase == Phase::Connected {
            let session = self.sessions.get(connection.session as usize);
            assert_eq!(session.map(|session| session.connection), Some(slot), "its session is another one's");
        } else {
            assert_eq!(connection.session, NONE, "a session without having been let in");
        }
    }

    fn assert_session(&self, slot: u32, session: &Session) {
        // It may have come through another listener before, that has the server's.
        let (limits, of_listener) = (&self.shared.limits, self.limits_of(slot));
        assert_eq!(self.slot_of_client(&session.client_id), Some(slot), "the session's Client Identifier");
        let connection = self.connections.get(session.connection as usize);
        let has_connection = connection.is_some_and(|connection| connection.session == slot);
        assert_eq!(has_connection, session.connection != NONE, "its connection is another one's");
        assert!(session.queue.len() <= limits.queue_messages_max, "queued messages");
        let queue_bytes: usize = session.queue.iter().map(|queued| queued.message.bytes()).sum();
        assert_eq!(session.queue.bytes(), queue_bytes, "bytes of queued messages, counted");
        assert!(queue_bytes <= limits.queue_bytes_max, "bytes of queued messages");
        assert!(
            session.in_flight.len() <= usize::from(limits.in_flight_max.max(of_listener.in_flight_max)),
            "messages in flight"
        );
        session.in_flight.assert_sound(session.in_flight_bytes as usize);
        assert!(session.to_resend as usize <= session.in_flight.len(), "messages to send again");
        assert_eq!(
            session.received.bytes(),
            session.received.counted_bytes(),
            "bytes of QoS 2 messages received, counted"
        );
        assert!(
            session.subscriptions.len() <= limits.subscriptions_max.max(of_listener.subscriptions_max),
            "subscriptions"
        );
    }

    /// All that waits for the socket of a connection.
    #[must_use]
    pub fn unsent(&self, slot: u32) -> Vec<u8> {
        let connection = &self.connections[slot as usize];
        let (own, run) = (&connection.out[connection.out_sent..], self.lanes.unsent(connection.lane));
        if self.lanes.comes_first(connection) { [&run, own].concat() } else { [own, &run].concat() }
    }

    /// Asserts that no connection, session, timer or anything else is left.
    ///
    /// # Panics
    /// If there is something.
    pub fn assert_nothing_left(&self) {
        assert_eq!(self.connections.len(), 0, "connections");
        assert_eq!(self.sessions.len(), 0, "sessions");
        assert_eq!(self.by_client.len(), 0, "Client Identifiers");
        assert_eq!(self.by_connection.len(), 0, "connection ids");
        assert_eq!(self.replaying(), 0, "replays");
        assert!(self.delayed_infos.is_empty(), "delayed messages for handle_info");
        assert_eq!((self.farewells.len(), self.partings.len()), (0, 0), "connections whose plugins were not told");
        assert_eq!((self.queries.len(), self.passes.len()), (0, 0), "requests of plugins that were not answered");
        assert_eq!(self.early.len(), 0, "requests about connections on their way");
        assert_eq!(self.handovers.len(), 0, "handovers");
        assert_eq!(self.timers.len(), 0, "timers");
        assert!(self.lanes.is_empty(), "lanes");
        self.held_acks.assert_nothing_left();
        let gone = |key: &SessionKey| !self.sessions.contains(key.slot as usize);
        assert!(self.waiting_for_memory.iter().all(gone), "sessions that wait for memory");
        assert_eq!((self.held.len(), self.remains.len()), (0, 0), "work for later turns");
        assert_eq!(self.held_bytes(), 0, "bytes held for peers");
        assert_eq!((self.handed_on.len(), self.handed_on_bytes), (0, 0), "messages of members that have left");
    }
}
