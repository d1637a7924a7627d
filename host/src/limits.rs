//! Every bound of the broker, in one place.

use std::time::Duration;

use plugin_api::QoS;

/// What one peer, one session or the whole server may use. Each bound says its unit, and what happens to who exceeds it.
///
/// The defaults suit a machine that serves some ten thousand devices.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Largest Control Packet accepted, in bytes including the fixed header; announced as Maximum Packet Size.
    /// A larger one is refused on its declared length: DISCONNECT 0x95, or a close for 3.x. Default 16 MiB.
    pub packet_bytes_max: usize,
    /// The same before CONNACK: nobody who has not been let in gets much memory. Refused as above, before CONNACK with
    /// CONNACK 0x95 or a close. Default 512 KiB, which holds any CONNECT without User Properties.
    pub connect_bytes_max: usize,
    /// Time from accepting a connection to its CONNECT packet (and to the end of an authentication exchange).
    /// After it the Network Connection is closed. Default 10 s.
    pub connect_timeout: Duration,
    /// Largest Keep Alive in seconds; a larger one, or none, is replaced and announced to 5.0 clients as Server Keep Alive.
    /// 0 means that any Keep Alive is taken as it is. Default 0.
    pub keep_alive_secs_max: u16,
    /// Least Keep Alive in seconds that is granted; a smaller one is replaced, and announced to 5.0 clients as Server Keep
    /// Alive. Default 0: none.
    pub keep_alive_secs_min: u16,
    /// Time without any packet from a client after which it gets DISCONNECT 0x8D, or a close for 3.x, whatever its Keep
    /// Alive. Default 0: none.
    pub idle_max: Duration,
    /// Network Connections open at one time, all listeners together. Further ones are closed at once. Default 1,000,000.
    pub connections_max: usize,
    /// Network Connections open at one time from one IP address. Further ones are closed at once. Default 0: no such bound.
    pub connections_per_address_max: usize,
    /// CONNECT packets a second, the whole server, with a second's burst. Those beyond it get CONNACK 0x9F, or return
    /// code 3 for 3.x. Default 0: no such bound.
    pub connect_rate_max: u32,
    /// PUBLISH packets a second from one client, with a second's burst. Beyond it QoS 0 is dropped and counted; QoS 1 and 2
    /// get DISCONNECT 0x96, or a close for 3.x. Default 0: no such bound.
    pub message_rate_max: u32,
    /// Bytes of PUBLISH packets a second from one client, with a second's burst. As above for what exceeds it.
    /// Default 0: no such bound.
    pub byte_rate_max: u64,
    /// Sessions held by one worker, connected or not. CONNECT is refused with 0x97 past it. Default 1,000,000.
    pub sessions_max: usize,
    /// Longest Client Identifier in bytes; a longer one is refused with 0x85. Default 1024.
    pub client_id_bytes_max: usize,
    /// Longest Session Expiry Interval in seconds; a longer one is shortened, and 5.0 clients are told so.
    /// Default 7 days.
    pub session_expiry_secs_max: u32,
    /// Expiry in seconds of persistent sessions of 3.x clients, which cannot name one; 4,294,967,295 means never.
    /// Default 7 days.
    pub persistent_expiry_3x_secs: u32,
    /// QoS 1 and 2 messages to one client that are sent and not yet acknowledged; a smaller Receive Maximum of the
    /// client takes precedence. Further ones wait in the session's queue. Default 1024.
    pub in_flight_max: u16,
    /// QoS 1 and 2 messages from one client that may be unacknowledged; announced as Receive Maximum.
    /// More of them are a Protocol Error: DISCONNECT 0x93. Default 1024.
    pub receive_maximum: u16,
    /// Topic Aliases a 5.0 client may use; announced as Topic Alias Maximum, a larger alias gets DISCONNECT 0x94. Default 64.
    pub topic_alias_max: u16,
    /// QoS 1 and 2 messages waiting in one session. Past it the newest is dropped and counted. Default 10,000.
    pub queue_messages_max: usize,
    /// Bytes (topic, properties and payload) of the messages waiting in one session. Past it the newest is dropped and
    /// counted. Default 64 MiB.
    pub queue_bytes_max: usize,
    /// Which message is dropped, and counted, where one more does not fit into a session's queue. Default: the newest.
    pub queue_full: QueueFull,
    /// Whether QoS 0 messages are queued too for persistent sessions whose client is absent. Default: no.
    pub queue_qos0: bool,
    /// Encoded bytes waiting for one socket. Past it QoS 0 messages are dropped and counted, QoS 1 and 2 stay in the
    /// session's queue, and a peer that goes on asking without reading is closed. Default 8 MiB.
    pub outbound_bytes_max: usize,
    /// Topic Aliases that the server uses towards one 5.0 client; a smaller Topic Alias Maximum of the client takes
    /// precedence. Default 16.
    pub outbound_topic_aliases_max: u16,
    /// Topic Filters in one SUBSCRIBE or UNSUBSCRIBE packet. One with more gets DISCONNECT 0x97, or a close for 3.x.
    /// Default 10,000.
    pub filters_a_packet_max: usize,
    /// Subscriptions of one session. A further one gets 0x97 in its SUBACK. Default 100,000.
    pub subscriptions_max: usize,
    /// Bytes of a Topic Name (a PUBLISH beyond it gets 0x90) or Topic Filter (0x8F in its SUBACK). Default 65,535, the most
    /// that the protocol can express.
    pub topic_bytes_max: usize,
    /// Levels of a Topic Name (a PUBLISH beyond it gets 0x90) or Topic Filter (0x8F in its SUBACK). Default 200.
    pub topic_levels_max: usize,
    /// Retained messages. A further one is not accepted: 0x97 for 5.0 with QoS 1 or 2, a close before the acknowledgement
    /// for 3.x, and QoS 0 is dropped and counted. Default 1,000,000.
    pub retained_messages_max: usize,
    /// Bytes of retained messages (topic, properties and payload). As above for one that does not fit. Default 1 GiB.
    pub retained_bytes_max: usize,
    /// Bytes of messages waiting for one worker. Past it the other workers stop reading, for at most a second; if it has
    /// not caught up then, they drop QoS 0 messages, which are counted, and disconnect with 0x97 who publishes with
    /// QoS 1 or 2. Default 64 MiB.
    pub mailbox_bytes_max: usize,
    /// Bytes that one worker may hold in messages and buffers. Default 1 GiB.
    pub worker_bytes_max: usize,
    /// Highest QoS that the server grants and accepts. Default QoS 2.
    pub maximum_qos: QoS,
    /// Whether messages are retained; if not, 5.0 clients are told so, and one that asks for it gets DISCONNECT 0x9A.
    /// Default: yes.
    pub retain_available: bool,
    /// Whether Topic Filters may contain wildcards; if not, they get 0xA2 in their SUBACK. Default: yes.
    pub wildcard_subscriptions_available: bool,
    /// Whether a SUBSCRIBE may have a Subscription Identifier; if not, it gets DISCONNECT 0xA1. Default: yes.
    pub subscription_identifiers_available: bool,
    /// Whether there are Shared Subscriptions; if not, they get 0x9E in their SUBACK. Default: yes.
    pub shared_subscriptions_available: bool,
    /// Which member of a Shared Subscription gets a message. Default: each in turn.
    pub shared_strategy: SharedStrategy,
    /// Whether a payload that its sender calls UTF-8 (Payload Format Indicator 1) is looked at, and refused with 0x99 if it
    /// is not. Default: no.
    pub check_payload_format: bool,
    /// Another server, as clients that find no room are told with 0x9C and Server Reference. Default: none.
    pub server_reference: Option<String>,
    /// What a 3.x client gets whose QoS 1 or 2 PUBLISH a handler rejected: those versions have no negative acknowledgement.
    pub rejected_publish: RejectedPublish,
}

impl Limits {
    /// Looks for values with which nobody could be served, or that the protocol cannot express.
    ///
    /// # Errors
    /// The name of the bound, what it is, and what it may be.
    pub fn check(&self) -> Result<(), LimitError> {
        const PACKET_BYTES: std::ops::RangeInclusive<u64> = 128..=268_435_460;
        let rows: [(&'static str, u64, std::ops::RangeInclusive<u64>); 6] = [
            ("packet_bytes_max", self.packet_bytes_max as u64, PACKET_BYTES),
            ("connect_bytes_max", self.connect_bytes_max as u64, PACKET_BYTES),
            ("in_flight_max", self.in_flight_max.into(), 1..=65_535),
            ("receive_maximum", self.receive_maximum.into(), 1..=65_535),
            ("topic_levels_max", self.topic_levels_max as u64, 1..=65_536),
            ("filters_a_packet_max", self.filters_a_packet_max as u64, 1..=u64::MAX),
        ];
        match rows.into_iter().find(|(_, got, allowed)| !allowed.contains(got)) {
            Some((name, got, allowed)) => Err(LimitError { name, got, min: *allowed.start(), max: *allowed.end() }),
            None => Ok(()),
        }
    }
}

/// A bound that is out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitError {
    /// The field of [`Limits`].
    pub name: &'static str,
    /// Its value.
    pub got: u64,
    /// The least that it may be.
    pub min: u64,
    /// The most that it may be.
    pub max: u64,
}

impl std::fmt::Display for LimitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, got, min, max } = self;
        write!(f, "the limit {name} is {got}, and has to be from {min} to {max}")
    }
}

impl std::error::Error for LimitError {}

/// Which message makes room where a session's queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueFull {
    /// The one that comes: it is not queued.
    #[default]
    DropNewest,
    /// The one that has waited longest.
    DropOldest,
}

/// Which member of a Shared Subscription gets a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SharedStrategy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// Any, by chance.
    Random,
    /// Always the same for one publisher, as long as it is there.
    Sticky,
    /// The one with the fewest messages that are sent and not yet acknowledged.
    LeastInFlight,
}

/// The answer to a 3.x PUBLISH that was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RejectedPublish {
    /// It is acknowledged as if it had been delivered, and dropped.
    #[default]
    Acknowledge,
    /// The Network Connection is closed.
    Close,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_bytes_max: 16 << 20,
            connect_bytes_max: 512 << 10,
            connect_timeout: Duration::from_secs(10),
            keep_alive_secs_max: 0,
            keep_alive_secs_min: 0,
            idle_max: Duration::ZERO,
            connections_max: 1_000_000,
            connections_per_address_max: 0,
            connect_rate_max: 0,
            message_rate_max: 0,
            byte_rate_max: 0,
            sessions_max: 1_000_000,
            client_id_bytes_max: 1024,
            session_expiry_secs_max: 7 * 24 * 3600,
            persistent_expiry_3x_secs: 7 * 24 * 3600,
            in_flight_max: 1024,
            receive_maximum: 1024,
            topic_alias_max: 64,
            queue_messages_max: 10_000,
            queue_bytes_max: 64 << 20,
            queue_full: QueueFull::default(),
            queue_qos0: false,
            outbound_bytes_max: 8 << 20,
            outbound_topic_aliases_max: 16,
            filters_a_packet_max: 10_000,
            subscriptions_max: 100_000,
            topic_bytes_max: 65_535,
            topic_levels_max: 200,
            retained_messages_max: 1_000_000,
            retained_bytes_max: 1 << 30,
            mailbox_bytes_max: 64 << 20,
            worker_bytes_max: 1 << 30,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            wildcard_subscriptions_available: true,
            subscription_identifiers_available: true,
            shared_subscriptions_available: true,
            shared_strategy: SharedStrategy::default(),
            check_payload_format: false,
            server_reference: None,
            rejected_publish: RejectedPublish::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_checked() {
        assert_eq!(Limits::default().check(), Ok(()));
        let nothing = Limits { receive_maximum: 0, ..Limits::default() };
        let error = nothing.check().unwrap_err();
        assert_eq!(error.to_string(), "the limit receive_maximum is 0, and has to be from 1 to 65535");
        assert!(Limits { packet_bytes_max: 0, ..Limits::default() }.check().is_err());
    }
}
