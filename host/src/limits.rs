//! Every bound of the broker, in one place: the table below makes the fields of [`Limits`], the options of the command
//! line, the keys of the configuration file and the rows of `host/LIMITS.md`.

mod setting;
pub(crate) mod value;

use std::time::Duration;

use plugin_api::{Callback, QoS};

pub use self::setting::{Reload, Setting};
use self::value::Field;
pub use self::value::{Kind, Value, Word, parse_time};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const DAY_SECS: u32 = 24 * 3600;
const DAY_MS: u64 = 24 * 3600 * 1000;
const YEAR_MS: u64 = 365 * DAY_MS;

/// No number is too large.
const ANY: u64 = u64::MAX;
const U16: u64 = 65_535;
const U32: u64 = 4_294_967_295;
/// Places are numbered with 32 bits, and the last number stands for none.
const PLACES: u64 = U32 - 1;
/// Less holds hardly any CONNECT, in bytes; Mosquitto has the same bound.
const SMALLEST_PACKETS: u64 = 20;
/// MQTT can express Control Packets of 268,435,460 bytes; this leaves room for what a PUBLISH gets on its way, in bytes.
const LARGEST_PACKET: u64 = 255 << 20;

/// When a bound that is changed counts: as its row says, or, where that says nothing, when the server is started anew.
macro_rules! reload {
    () => {
        Reload::Restart
    };
    ($reload:ident) => {
        Reload::$reload
    };
}

/// Makes [`Limits`], its default and [`SETTINGS`] from one table. A row is what the bound is for, its name, type, default
/// and unit, what it may be, what happens past it, and when another one counts, if not only after a restart.
macro_rules! limits {
    ($($heading:literal { $(
        $(#[doc = $about:literal])+
        $name:ident: $type:ty = $default:expr, $kind:expr, $range:expr, $beyond:literal $(, $reload:ident)?;
    )+ })+) => {
        /// What one peer, one session or the whole server may use.
        ///
        /// The defaults suit a machine that serves some ten thousand devices. Take [`Limits::default`], and change what
        /// is to be different.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Limits {
            $($(
                $(#[doc = $about])+
                #[doc = ""]
                #[doc = concat!("Reason Code or action: ", $beyond, ".")]
                #[doc = ""]
                #[doc = concat!("Default: `", stringify!($default), "`.")]
                pub $name: $type,
            )+)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($($name: $default,)+)+ }
            }
        }

        /// Every field of [`Limits`], in the order of the reference.
        pub static SETTINGS: &[Setting] = &[$($(
            Setting {
                name: stringify!($name),
                heading: $heading,
                about: concat!($($about),+),
                beyond: $beyond,
                kind: $kind,
                range: $range,
                unset: "none",
                reload: reload!($($reload)?),
                get: |limits| limits.$name.get(),
                set: |limits, value| limits.$name.set(value),
            },
        )+)+];
    };
}

limits! {
    "Connections" {
        /// Network Connections open at one time, all listeners together.
        connections_max: usize = 1_000_000, Kind::Count, 1..=PLACES,
            "closed at once, and counted", AtOnce;
        /// Network Connections open at one time from one IPv4 address, also in IPv6 form, or one /64 of IPv6. 0: no such bound;
        /// where a reload sets one, those that have come without do not count.
        connections_per_address_max: usize = 0, Kind::Count, 0..=ANY,
            "closed at once, and counted", NewConnections;
        /// CONNECT packets that are looked at in a second, the whole server, with a second's burst. 0: no such bound.
        connect_rate_max: u32 = 0, Kind::PerSecond, 0..=U32,
            "CONNACK 0x9F, return code 3 for 3.x; no handler is asked", AtOnce;
        /// Connections at one time that have something to go through before MQTT begins: TLS, WebSocket; and as
        /// many again for QUIC.
        handshakes_max: usize = 1024, Kind::Count, 1..=1_000_000,
            "they wait, and who has been at it for more than a second is closed for them", AtOnce;
        /// Time from accepting such a connection until it speaks MQTT.
        handshake_timeout: Duration = Duration::from_secs(10), Kind::Time, 1..=DAY_MS,
            "closed", AtOnce;
        /// Time from accepting a connection to its CONNECT packet, and to the end of an authentication exchange; and from the
        /// beginning of a re-authentication to its end.
        connect_timeout: Duration = Duration::from_secs(10), Kind::Time, 1..=DAY_MS,
            "closed; a re-authentication: DISCONNECT 0x87", NewConnections;
        /// Largest Control Packet before CONNACK, fixed header included: nobody who has not been let in gets much memory.
        /// The default holds any CONNECT without User Properties.
        connect_bytes_max: usize = 512 * KIB, Kind::Bytes, SMALLEST_PACKETS..=LARGEST_PACKET,
            "CONNACK 0x95 or a close, on the declared length", NewConnections;
        /// Failures to get in (CONNECT refused as not authorised, or given up before its answer, what is not MQTT, no CONNECT in
        /// time, TLS handshakes) from one IPv4 address or one /64 of IPv6 within failures_period, after which it is turned away
        /// for failures_ban. 0: no such bound.
        failures_per_address_max: u32 = 100, Kind::Count, 0..=U32,
            "closed at once for the time of failures_ban, before anything is read, and counted", AtOnce;
        /// See failures_per_address_max.
        failures_period: Duration = Duration::from_secs(60), Kind::Time, 1..=DAY_MS,
            "failures begin to count anew", AtOnce;
        /// Time for which an address with too many failures is turned away. Its connections that are open stay. 0s: it never
        /// is.
        failures_ban: Duration = Duration::from_secs(60), Kind::Time, 0..=YEAR_MS,
            "connections are let in again, and failures count anew", AtOnce;
        /// Whether addresses of this machine (127.0.0.0/8, ::1, Unix sockets) are counted as well. Behind a proxy on this
        /// machine that does not say whom it speaks for, they are everybody's.
        failures_count_loopback: bool = false, Kind::Flag, 0..=1,
            "if not: they are never turned away", AtOnce;
        /// Longest Client Identifier.
        client_id_bytes_max: usize = 1024, Kind::Bytes, 23..=U16,
            "CONNACK 0x85, return code 2 for 3.x", NewConnections;
        /// Least Keep Alive that is granted; a client without Keep Alive is left as it is. 0: no such bound.
        keep_alive_secs_min: u16 = 0, Kind::Secs, 0..=U16,
            "replaced, which 5.0 clients are told as Server Keep Alive; 3.x clients cannot be told, and keep theirs", NewConnections;
        /// Largest Keep Alive that is granted, also to who asks for none. 0: any is taken as it is.
        keep_alive_secs_max: u16 = 0, Kind::Secs, 0..=U16,
            "replaced, which 5.0 clients are told as Server Keep Alive; 3.x clients cannot be told, and keep theirs", NewConnections;
        /// Time without any packet from a client, whatever its Keep Alive. 0s: no such bound.
        idle_max: Duration = Duration::ZERO, Kind::Time, 0..=YEAR_MS,
            "DISCONNECT 0x8D, a close for 3.x", NewConnections;
        /// Another server, as Server Reference for 5.0 clients that find no room for a session here, or whose server stops.
        server_reference: Option<String> = None, Kind::Text, 0..=0,
            "CONNACK and DISCONNECT 0x9C in place of 0x97 and 0x8B", NewConnections;
    }
    "Messages from clients" {
        /// Largest Control Packet accepted, fixed header included; announced as Maximum Packet Size.
        packet_bytes_max: usize = 16 * MIB, Kind::Bytes, SMALLEST_PACKETS..=LARGEST_PACKET,
            "DISCONNECT 0x95, a close for 3.x, on the declared length", NewConnections;
        /// QoS 1 and 2 messages from one client that may be unacknowledged; announced as Receive Maximum.
        receive_maximum: u16 = 1024, Kind::Count, 1..=U16,
            "DISCONNECT 0x93; 3.x clients have no such bound but that of their Packet Identifiers", NewConnections;
        /// Topic Aliases that a 5.0 client may use; announced as Topic Alias Maximum.
        topic_alias_max: u16 = 64, Kind::Count, 0..=U16,
            "DISCONNECT 0x94", NewConnections;
        /// PUBLISH packets in a second on one Network Connection, with a second's burst. 0: no such bound.
        message_rate_max: u32 = 0, Kind::PerSecond, 0..=U32,
            "QoS 0 is dropped and counted; QoS 1 and 2: DISCONNECT 0x96, a close for 3.x", NewConnections;
        /// Bytes (topic, properties and payload) of PUBLISH packets in a second on one Network Connection, with a second's
        /// burst. What one packet has too much is taken from the time after it. 0: no such bound.
        byte_rate_max: u64 = 0, Kind::BytesPerSecond, 0..=ANY,
            "QoS 0 is dropped and counted; QoS 1 and 2: DISCONNECT 0x96, a close for 3.x", NewConnections;
        /// Length of a Topic Name or Topic Filter.
        topic_bytes_max: usize = 65_535, Kind::Bytes, 1..=U16,
            "PUBACK, PUBREC and, for a will, CONNACK 0x90; SUBACK 0x8F; QoS 0 is dropped; 3.x as rejected_publish says", AtOnce;
        /// Levels of a Topic Name or Topic Filter.
        topic_levels_max: usize = 200, Kind::Count, 1..=65_536,
            "PUBACK, PUBREC and, for a will, CONNACK 0x90; SUBACK 0x8F; QoS 0 is dropped; 3.x as rejected_publish says", AtOnce;
        /// Whether a payload that its sender calls UTF-8 (Payload Format Indicator 1) is looked at, before handlers are
        /// asked.
        check_payload_format: bool = false, Kind::Flag, 0..=1,
            "if it is not: PUBACK, PUBREC and, for a will, CONNACK 0x99; QoS 0: DISCONNECT 0x99", NewConnections;
        /// What a 3.x client gets whose QoS 1 or 2 PUBLISH was refused, as those versions have no negative acknowledgement.
        rejected_publish: RejectedPublish = RejectedPublish::Acknowledge, Kind::Choice(&["acknowledge", "close"]), 0..=1,
            "PUBACK or PUBREC as if it had been accepted, or a close", NewConnections;
        /// Retained messages.
        retained_messages_max: usize = 1_000_000, Kind::Count, 0..=ANY,
            "PUBACK and PUBREC 0x97; a close before the acknowledgement for 3.x; QoS 0 is delivered, not retained, and counted", AtOnce;
        /// Bytes (topic, properties and payload) of retained messages; each level of a topic beyond the second counts for 96
        /// more.
        retained_bytes_max: usize = GIB, Kind::Bytes, 0..=ANY,
            "PUBACK and PUBREC 0x97; a close before the acknowledgement for 3.x; QoS 0 is delivered, not retained, and counted", AtOnce;
    }
    "Sessions" {
        /// Sessions held by one worker, connected or not.
        sessions_max: usize = 1_000_000, Kind::Count, 1..=PLACES,
            "CONNACK 0x97, return code 3 for 3.x", AtOnce;
        /// Longest Session Expiry Interval of 5.0 clients.
        session_expiry_secs_max: u32 = 7 * DAY_SECS, Kind::SecsOrNever, 0..=U32,
            "shortened, which CONNACK says", NewConnections;
        /// Expiry of persistent sessions of 3.x clients, which cannot name one.
        persistent_expiry_3x_secs: u32 = 7 * DAY_SECS, Kind::SecsOrNever, 0..=U32,
            "the session ends", NewConnections;
        /// Subscriptions of one session.
        subscriptions_max: usize = 100_000, Kind::Count, 0..=ANY,
            "SUBACK 0x97, 0x80 for 3.1.1; not granted for 3.1", NewConnections;
        /// Topic Filters in one SUBSCRIBE or UNSUBSCRIBE packet.
        filters_a_packet_max: usize = 10_000, Kind::Count, 1..=ANY,
            "DISCONNECT 0x97, a close for 3.x", NewConnections;
        /// Levels of all Topic Filters in one SUBSCRIBE or UNSUBSCRIBE packet together: what one packet costs at once.
        filter_levels_a_packet_max: usize = 131_072, Kind::Count, 1..=ANY,
            "DISCONNECT 0x97, a close for 3.x", NewConnections;
        /// QoS 1 and 2 messages to one client that are sent and not yet acknowledged; a smaller Receive Maximum of the
        /// client takes precedence.
        in_flight_max: u16 = 1024, Kind::Count, 1..=U16,
            "they wait in the session's queue", NewConnections;
        /// Messages waiting in one session.
        queue_messages_max: usize = 10_000, Kind::Count, 0..=ANY,
            "one is dropped and counted, see queue_full", AtOnce;
        /// Bytes (topic, properties and payload) of the messages waiting in one session.
        queue_bytes_max: usize = 64 * MIB, Kind::Bytes, 0..=ANY,
            "one is dropped and counted, see queue_full", AtOnce;
        /// Which message is dropped where one more does not fit into a session's queue: the one that comes, or those that
        /// have waited longest.
        queue_full: QueueFull = QueueFull::DropNewest, Kind::Choice(&["drop-newest", "drop-oldest"]), 0..=1,
            "what is dropped is counted", AtOnce;
        /// Whether QoS 0 messages wait in the queue too while a persistent session has no connection, and behind what
        /// waited until it has been sent.
        queue_qos0: bool = false, Kind::Flag, 0..=1,
            "if not: QoS 0 messages for the absent are dropped", AtOnce;
    }
    "Memory" {
        /// Encoded bytes waiting for one socket.
        outbound_bytes_max: usize = 8 * MIB, Kind::Bytes, 1024..=ANY,
            "QoS 0 is dropped and counted, QoS 1 and 2 wait in the session's queue, who asks without reading is closed", AtOnce;
        /// Bytes of messages waiting for one worker.
        mailbox_bytes_max: usize = 64 * MIB, Kind::Bytes, 1024..=ANY,
            "the other workers read no publishers for up to a second, then drop QoS 0 for it, counted, and refuse QoS 1 and \
             2 for it: 0x97 for 5.0, a close for 3.x", AtOnce;
        /// Bytes that one worker may hold for its clients: messages that wait, buffers, subscriptions, sessions.
        worker_bytes_max: usize = GIB, Kind::Bytes, 1_048_576..=ANY,
            "QoS 1 and 2, CONNECT of a new session and new subscriptions get 0x97, a close for 3.x PUBLISH; large packets \
             and new Topic Aliases: DISCONNECT 0x97; QoS 0 for who is slow is dropped and counted", AtOnce;
        /// Bytes of one file of the journal in the data directory. Of what is full a checkpoint is made, and behind it the files
        /// are removed: smaller ones make for a faster start, and for more to be written.
        store_segment_bytes: usize = 64 * MIB, Kind::Bytes, 65_536..=GIB as u64,
            "the next file is begun; while 16 of them wait for a checkpoint, no more is kept, as if the disk were full";
    }
    "Plugins" {
        /// Bytes of keys and values that one plugin may keep in the server, where they survive a swap; each entry counts for
        /// 128 more.
        plugin_store_bytes_max: usize = 64 * MIB, Kind::Bytes, 0..=ANY,
            "the plugin gets an error";
        /// Counters, gauges and histograms of one plugin.
        plugin_metrics_max: usize = 1000, Kind::Count, 0..=1_000_000,
            "the plugin gets an error, and the log says so";
        /// Bytes of kind and data of the timers that one plugin may have set; each counts for 512 more.
        plugin_timer_bytes_max: usize = 512 * MIB, Kind::Bytes, 0..=ANY,
            "the plugin gets an error";
        /// Time that a plugin has for an answer that it gives later, from the call of its callback, about CONNECT and AUTH.
        connect_answer_max: Duration = Duration::from_secs(5), Kind::Time, 1..=DAY_MS,
            "CONNACK 0x88, return code 3 for 3.x; a re-authentication: DISCONNECT 0x83", AtOnce;
        /// The same about PUBLISH and wills.
        publish_answer_max: Duration = Duration::from_secs(5), Kind::Time, 1..=DAY_MS,
            "as deadline says: PUBACK and PUBREC 0x83, 3.x as rejected_publish says; QoS 0 and wills are dropped", AtOnce;
        /// The same about SUBSCRIBE and UNSUBSCRIBE.
        subscribe_answer_max: Duration = Duration::from_secs(5), Kind::Time, 1..=DAY_MS,
            "as deadline says: SUBACK and UNSUBACK 0x80 for every Topic Filter", AtOnce;
        /// The same about a message for handle_info.
        info_answer_max: Duration = Duration::from_secs(5), Kind::Time, 1..=DAY_MS,
            "as deadline says: nothing is done", AtOnce;
        /// What becomes of a client about whose packet a plugin has not answered in time: the packet is refused, or the client
        /// is disconnected.
        deadline: Deadline = Deadline::Refuse, Kind::Choice(&["refuse", "disconnect"]), 0..=1,
            "disconnect: DISCONNECT 0x83, a close for 3.x", AtOnce;
        /// What becomes of a PUBLISH or SUBSCRIBE about which no plugin decides, though plugins decide who may connect, and on
        /// the other of the two: they are meant to decide what clients may do, and have left a part out. With
        /// handle_deliver, subscribing is decided on. local: it is allowed at listeners that only this machine reaches, and
        /// refused at others.
        undecided: Undecided = Undecided::Local, Kind::Choice(&["local", "refuse", "allow"]), 0..=2,
            "refuse: PUBACK, PUBREC and SUBACK 0x87, each as its version can say it; QoS 0 and wills are dropped", NewConnections;
        /// Answers that one plugin may owe at one time.
        tickets_max: usize = 1024, Kind::Count, 1..=1_000_000,
            "the callback that asks for one more time is told so, and answers or fails at once";
        /// Time that a callback may take on a worker's thread, where it holds up all clients of that worker. 0s: no such
        /// bound.
        callback_budget: Duration = Duration::from_millis(100), Kind::Time, 0..=DAY_MS,
            "logged while it runs, with plugin, callback and client, and counted";
        /// What becomes of a callback that has taken longer than callback_budget: nothing more, or from then on it runs on
        /// a thread of the pool for callbacks that block, where it holds up nobody but its own connection. Callbacks that
        /// are answered at once (handle_deliver), and other ones of a plugin that has one of those, cannot be moved.
        callback_overstay: Overstay = Overstay::Pool, Kind::Choice(&["log", "pool"]), 0..=1,
            "as chosen, until the plugin is swapped";
        /// Time after which a callback on a worker's thread is taken for one that never returns. 0s: never.
        callback_stuck_after: Duration = Duration::from_secs(30), Kind::Time, 0..=DAY_MS,
            "logged as an error; see callback_stuck";
        /// What becomes of a server with a worker that a callback does not return from: it goes on, though nobody serves
        /// that worker's clients, or the process is aborted, so that whoever watches over it starts it anew.
        callback_stuck: Stuck = Stuck::Log, Kind::Choice(&["log", "abort"]), 0..=1,
            "as chosen; what is only in memory is lost with the process";
        /// What becomes of a plugin that panics again and again: the host refuses in its place everything that it would have
        /// to allow; it is left out, as if it had no opinion; or it is called all the same.
        quarantine: Quarantine = Quarantine::Refuse, Kind::Choice(&["refuse", "skip", "off"]), 0..=2,
            "refuse: CONNACK 0x88, PUBACK, PUBREC, SUBACK and UNSUBACK 0x83, each as its version can say it";
        /// Panics of one plugin within quarantine_period that put it into quarantine.
        quarantine_panics: usize = 100, Kind::Count, 1..=1_000_000,
            "see quarantine";
        /// See quarantine_panics.
        quarantine_period: Duration = Duration::from_secs(60), Kind::Time, 1..=DAY_MS,
            "panics that are longer ago do not count";
        /// Threads for callbacks that may block, all plugins together. They come with the work and go without it.
        pool_threads_max: usize = 64, Kind::Count, 1..=4096,
            "what plugins are asked waits";
        /// The same for one plugin.
        pool_threads_a_plugin_max: usize = 32, Kind::Count, 1..=4096,
            "what it is asked waits";
        /// Callbacks of one plugin that may wait for a thread.
        pool_jobs_max: usize = 10_000, Kind::Count, 1..=ANY,
            "refused as in quarantine; what it would only be told is dropped; both logged. The end of a connection is always told";
        /// Bytes of packets and messages that these may be about. What is larger may wait alone.
        pool_bytes_max: usize = 64 * MIB, Kind::Bytes, 0..=ANY,
            "the same";
    }
    "What is offered" {
        /// Highest QoS that is accepted and granted; announced as Maximum QoS.
        maximum_qos: QoS = QoS::ExactlyOnce, Kind::Count, 0..=2,
            "PUBLISH: DISCONNECT 0x9B, a close for 3.x; will: CONNACK 0x9B; subscriptions are granted less", NewConnections;
        /// Whether messages are retained; announced as Retain Available.
        retain_available: bool = true, Kind::Flag, 0..=1,
            "if not: DISCONNECT 0x9A and, for a will, CONNACK 0x9A; a close for 3.x";
        /// Whether Topic Filters may have wildcards; announced as Wildcard Subscription Available.
        wildcard_subscriptions_available: bool = true, Kind::Flag, 0..=1,
            "if not: DISCONNECT 0xA2, SUBACK 0x80 for 3.1.1, not granted for 3.1", NewConnections;
        /// Whether SUBSCRIBE may have a Subscription Identifier; announced as Subscription Identifiers Available.
        subscription_identifiers_available: bool = true, Kind::Flag, 0..=1,
            "if not: DISCONNECT 0xA1", NewConnections;
        /// Whether there are Shared Subscriptions; announced as Shared Subscription Available.
        shared_subscriptions_available: bool = true, Kind::Flag, 0..=1,
            "if not: DISCONNECT 0x9E, SUBACK 0x80 for 3.1.1, not granted for 3.1", NewConnections;
        /// Which member of a Shared Subscription gets a message: each in turn, any, always the same until it goes offline,
        /// leaves or has no room, or the one with the fewest messages in flight and queued.
        shared_strategy: SharedStrategy = SharedStrategy::RoundRobin,
            Kind::Choice(&["round-robin", "random", "sticky", "least-in-flight"]), 0..=3,
            "members that can send it at once come first, then those that have to wait, then those without a connection", AtOnce;
        /// Topic Aliases that the server uses towards one 5.0 client; a smaller Topic Alias Maximum of the client takes
        /// precedence. Clients that ask for them and hand messages on without their topic (mqtt.js 5.16.0 with QoS 2) need 0.
        outbound_topic_aliases_max: u16 = 16, Kind::Count, 0..=255,
            "the Topic Name is sent", NewConnections;
    }
}

impl Limits {
    /// Looks for values with which nobody could be served, or that the protocol cannot express.
    ///
    /// # Errors
    /// The name of the bound, what it is, and what it may be.
    pub fn check(&self) -> Result<(), LimitError> {
        for setting in SETTINGS {
            if let Some(got) = setting.out_of_range(self) {
                return Err(LimitError { name: setting.name, got, allowed: setting.allowed() });
            }
        }
        if self.keep_alive_secs_max != 0 && self.keep_alive_secs_min > self.keep_alive_secs_max {
            return Err(LimitError {
                name: "keep_alive_secs_min",
                got: format!("{}s", self.keep_alive_secs_min),
                allowed: format!("at most keep_alive_secs_max, which is {}s", self.keep_alive_secs_max),
            });
        }
        Ok(())
    }
}

impl Limits {
    /// Time that a plugin has for a later answer of a callback, in milliseconds.
    pub(crate) fn answer_deadline_ms(&self, callback: Callback) -> u64 {
        let max = match callback {
            Callback::Connect | Callback::Auth => self.connect_answer_max,
            Callback::Subscribe | Callback::Unsubscribe => self.subscribe_answer_max,
            Callback::Info => self.info_answer_max,
            _ => self.publish_answer_max,
        };
        u64::try_from(max.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether there is a bound on what one client publishes in a second.
    pub(crate) fn has_client_rates(&self) -> bool {
        self.message_rate_max != 0 || self.byte_rate_max != 0
    }
}

/// A bound that is out of its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitError {
    /// The field of [`Limits`].
    pub name: &'static str,
    /// Its value.
    pub got: String,
    /// What it may be.
    pub allowed: String,
}

impl std::fmt::Display for LimitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, got, allowed } = self;
        write!(f, "the limit {name} is {got}, and has to be {allowed}")
    }
}

impl std::error::Error for LimitError {}

/// What becomes of a client about whose packet a plugin has not answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deadline {
    /// The packet is refused.
    #[default]
    Refuse,
    /// The client is disconnected.
    Disconnect,
}

/// What becomes of a PUBLISH or SUBSCRIBE about which no plugin decides, though plugins decide on the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Undecided {
    /// It is allowed at listeners that only this machine reaches, and refused at others.
    #[default]
    Local,
    /// It is refused.
    Refuse,
    /// It is allowed.
    Allow,
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

/// Which message makes room where a session's queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueFull {
    /// The one that comes: it is not queued.
    #[default]
    DropNewest,
    /// Those that have waited longest.
    DropOldest,
}

/// Which member of a Shared Subscription gets a message, among those that can take it equally well: see
/// [`Group::choose`](crate::router::Group::choose).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SharedStrategy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// Any, by chance.
    Random,
    /// Always the same, until it loses its Network Connection, leaves, or its queue is full.
    Sticky,
    /// The one with the fewest messages in flight and queued.
    LeastInFlight,
}

/// What becomes of a callback that takes too long on a worker's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overstay {
    /// It is logged.
    Log,
    /// From then on it runs on a thread of the pool.
    #[default]
    Pool,
}

/// What becomes of a server that has a worker which a callback does not return from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stuck {
    /// It goes on, and the log says so.
    #[default]
    Log,
    /// The process is aborted.
    Abort,
}

/// What becomes of a plugin that panics again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quarantine {
    /// It is not called, and what it would have to allow is refused.
    #[default]
    Refuse,
    /// It is not called, as if it had no opinion.
    Skip,
    /// It is called as ever.
    Off,
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
        let small = Limits { packet_bytes_max: 0, ..Limits::default() };
        let error = small.check().unwrap_err().to_string();
        assert_eq!(error, "the limit packet_bytes_max is 0, and has to be from 20 to 255MiB");
        let backwards = Limits { keep_alive_secs_min: 60, keep_alive_secs_max: 30, ..Limits::default() };
        let error = backwards.check().unwrap_err().to_string();
        assert!(error.ends_with("has to be at most keep_alive_secs_max, which is 30s"), "{error}");
        assert_eq!(Limits { keep_alive_secs_min: 60, ..Limits::default() }.check(), Ok(()));
        assert!(Limits { connect_timeout: Duration::MAX, ..Limits::default() }.check().is_err());
    }

    /// Reading back what is printed changes nothing, and what is set is what is shown.
    #[test]
    fn settings_reach_their_fields() {
        for setting in SETTINGS {
            let mut limits = Limits::default();
            let shown = setting.show(&limits);
            setting.apply(&mut limits, &setting.parse(&shown).expect(setting.name));
            assert_eq!(limits, Limits::default(), "{}", setting.name);
            let other = match setting.kind {
                Kind::Text => Value::Text("x".into()),
                _ => Value::Number(if setting.get(&limits) == Value::Number(*setting.range.end()) {
                    *setting.range.start()
                } else {
                    *setting.range.end()
                }),
            };
            setting.apply(&mut limits, &other);
            assert_eq!(setting.get(&limits), other, "{}", setting.name);
            assert_ne!(limits, Limits::default(), "{}", setting.name);
            assert_eq!(limits.check(), Ok(()), "{}", setting.name);
        }
    }

    #[test]
    fn settings_are_described() {
        for setting in SETTINGS {
            assert!(setting.about.trim_start().starts_with(char::is_uppercase), "{}", setting.name);
            assert!(
                setting.about.ends_with('.') && !setting.beyond.is_empty() && !setting.beyond.ends_with('.'),
                "{}",
                setting.name
            );
            assert_eq!(setting.kind == Kind::Flag, setting.beyond.starts_with("if "), "{}", setting.name);
        }
    }
}
