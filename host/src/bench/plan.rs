//! What is to be measured: the broker, the load, for how long.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::codec::ProtocolVersion;

use super::link::{Tls, WebSocket};
use super::packets::STAMP_BYTES;

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A socket on this machine, by its path.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The broker, and how clients reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it listens.
    pub addr: Address,
    /// How clients speak TLS, if they do.
    pub tls: Option<Tls>,
    /// Where they ask for a WebSocket, if they do; over TLS, if both.
    pub websocket: Option<WebSocket>,
    /// MQTT 3.1.1 or 5.0.
    pub version: ProtocolVersion,
    /// The User Name of all clients.
    pub username: Option<String>,
    /// Their Password; needs a User Name before 5.0.
    pub password: Option<String>,
    /// The addresses that clients connect from, in turns of [`Target::CONNECTIONS_PER_SOURCE`]. Empty: whatever the kernel
    /// takes; but from 127.0.0.2 on where the broker is on this machine and the connections are more than one address has.
    pub sources: Vec<IpAddr>,
    /// What topics begin with, and Client Identifiers too, after a `bench-`.
    pub name: String,
    /// How long connecting, and each answer to a CONNECT or SUBSCRIBE, may take; and for how long nothing may come before the
    /// last messages are given up.
    pub patience: Duration,
}

impl Target {
    /// How many connections each address of [`Target::sources`] gets: fewer than the kernel has ports for.
    pub const CONNECTIONS_PER_SOURCE: usize = 10_000;

    /// The address that a connection comes from; `None`: the kernel chooses.
    pub(super) fn source(&self, connection: usize, connections: usize) -> Option<IpAddr> {
        let turn = connection / Self::CONNECTIONS_PER_SOURCE;
        if !self.sources.is_empty() {
            return Some(self.sources[turn % self.sources.len()]);
        }
        let Address::Tcp(addr) = &self.addr else { return None };
        let many = connections > Self::CONNECTIONS_PER_SOURCE && addr.ip().is_loopback() && addr.is_ipv4();
        many.then(|| Ipv4Addr::new(127, 0, 0, 2 + (turn % 250) as u8).into())
    }

    /// Whether there is something between the socket and MQTT.
    pub(super) fn has_layers(&self) -> bool {
        self.tls.is_some() || self.websocket.is_some()
    }

    /// What clients speak below MQTT, for people: `tcp`, `tls`, `ws`, `wss` or `unix`.
    pub fn transport(&self) -> &'static str {
        match (&self.tls, &self.websocket, &self.addr) {
            (None, None, Address::Tcp(_)) => "tcp",
            (None, None, Address::Unix(_)) => "unix",
            (Some(_), None, _) => "tls",
            (None, Some(_), _) => "ws",
            (Some(_), Some(_), _) => "wss",
        }
    }

    pub(super) fn client_id(&self, connection: usize) -> String {
        format!("bench-{}-{connection}", self.name)
    }
}

/// Who publishes to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// All publishers to one topic, which all subscribers get.
    All,
    /// Each publisher to a topic of its own, which one subscriber gets.
    Pairs,
    /// The subscribers share this many filters with wildcards, as many as there are topics. Each publisher goes through all
    /// topics; each is matched by one filter.
    Wildcard(u32),
    /// All publishers to one topic, to which this many groups have Shared Subscriptions; each message goes to one member of
    /// each. The subscribers are the members, as many in each group.
    Shared(u32),
}

/// When messages are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As soon as there is room: so many messages of each publisher may be on their way (sent, and not yet received by
    /// everybody who gets them). Latency is counted from the moment of sending.
    Window(u32),
    /// So many a second, all publishers together, whatever the broker does. Latency is counted from the moment at which a
    /// message was due, so that a broker that stops for a while does not look better for being asked less.
    Rate(f64),
}

/// A load of messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Traffic {
    /// What the report calls it.
    pub name: &'static str,
    /// Who publishes to whom.
    pub shape: Shape,
    /// How many connections publish.
    pub publishers: u32,
    /// How many connections subscribe; with [`Shape::Pairs`] as many as publish.
    pub subscribers: u32,
    /// The QoS of publishers and subscriptions.
    pub qos: u8,
    /// The size of a payload; at least [`Traffic::PAYLOAD_BYTES_MIN`].
    pub payload_bytes: usize,
    /// The subscribers' sessions outlive their connections, so that a broker that keeps sessions on disk does so. They are ended
    /// when the load is over.
    pub keep_sessions: bool,
    /// When messages are sent.
    pub pace: Pace,
    /// How long the load runs before it is measured.
    pub warm_up: Duration,
    /// How long it is measured.
    pub time: Duration,
}

impl Traffic {
    /// A payload begins with the time, the publisher and a number.
    pub const PAYLOAD_BYTES_MIN: usize = STAMP_BYTES;

    /// How many subscribers get each message.
    pub(super) fn receivers(&self) -> u64 {
        match self.shape {
            Shape::All => u64::from(self.subscribers),
            Shape::Pairs | Shape::Wildcard(_) => 1,
            Shape::Shared(groups) => u64::from(groups),
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.publishers as usize + self.subscribers as usize
    }

    /// Looks whether the numbers fit together.
    ///
    /// # Errors
    /// What does not, in words.
    pub fn check(&self) -> Result<(), String> {
        let subscribers = self.subscribers;
        match self.shape {
            Shape::Wildcard(filters) if filters == 0 || !filters.is_multiple_of(subscribers) => Err(format!(
                "{filters} filters cannot be shared out evenly to {subscribers} subscribers: take a multiple"
            )),
            Shape::Shared(groups) if groups == 0 || !subscribers.is_multiple_of(groups) => Err(format!(
                "{subscribers} subscribers cannot be shared out evenly to {groups} groups: take a multiple"
            )),
            Shape::Pairs if subscribers != self.publishers => {
                Err(format!("{subscribers} subscribers and {} publishers are no pairs", self.publishers))
            }
            _ => Ok(()),
        }
    }

    /// What a publisher sends to, in turn.
    pub(super) fn topics(&self, target: &Target, publisher: u32) -> Vec<String> {
        match self.shape {
            Shape::All | Shape::Shared(_) => vec![format!("bench/{}/all", target.name)],
            Shape::Pairs => vec![format!("bench/{}/{publisher}", target.name)],
            Shape::Wildcard(filters) => (0..filters).map(|number| matched_topic(target, number)).collect(),
        }
    }

    /// What a subscriber subscribes to.
    pub(super) fn filters(&self, target: &Target, subscriber: u32) -> Vec<String> {
        match self.shape {
            Shape::All | Shape::Pairs => self.topics(target, subscriber),
            Shape::Wildcard(filters) => {
                let own = (subscriber..filters).step_by(self.subscribers as usize);
                own.map(|number| wildcard_filter(target, number)).collect()
            }
            Shape::Shared(_) => {
                let group = self.group(subscriber).unwrap_or(0);
                self.topics(target, 0).iter().map(|topic| format!("$share/g{group}/{topic}")).collect()
            }
        }
    }

    /// The group whose member a subscriber is.
    pub(super) fn group(&self, subscriber: u32) -> Option<u32> {
        let Shape::Shared(groups) = self.shape else { return None };
        Some(subscriber % groups)
    }
}

/// A filter with a wildcard, different for each number: half of them in the middle, half at the end.
pub(super) fn wildcard_filter(target: &Target, number: u32) -> String {
    let tail = if number.is_multiple_of(2) { "+/value" } else { "sensor/#" };
    format!("bench/{}/{number}/{tail}", target.name)
}

/// The topic that [`wildcard_filter`] matches, and no other filter.
fn matched_topic(target: &Target, number: u32) -> String {
    format!("bench/{}/{number}/sensor/value", target.name)
}

/// What takes a broker's time beside a load that is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Disturbance {
    /// Clients that subscribe and unsubscribe without a pause.
    Storm {
        /// How many.
        connections: u32,
        /// How many filters each of them has; all in one packet.
        filters: u32,
    },
    /// Messages that go to many, with QoS 0.
    FanOut {
        /// How many get each of them.
        subscribers: u32,
        /// How many are published in a second.
        rate: f64,
        /// The size of a payload; at least [`Traffic::PAYLOAD_BYTES_MIN`].
        payload_bytes: usize,
    },
}

/// How the load is made and watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Threads that make the load.
    pub threads: usize,
    /// Threads ask for events without a pause, instead of sleeping until there are some. A broker that writes to a sleeping
    /// process pays for waking it up.
    pub spin: bool,
    /// The process of the broker, on this machine: its CPU time and memory are reported.
    pub pid: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            addr: Address::Tcp("127.0.0.1:1883".parse().unwrap()),
            tls: None,
            websocket: None,
            version: ProtocolVersion::V5,
            username: None,
            password: None,
            sources: Vec::new(),
            name: "x".to_owned(),
            patience: Duration::from_secs(1),
        }
    }

    #[test]
    fn each_wildcard_filter_matches_the_topic_of_its_number() {
        let traffic = |shape, subscribers| Traffic {
            name: "",
            shape,
            publishers: 2,
            subscribers,
            qos: 0,
            payload_bytes: 16,
            keep_sessions: false,
            pace: Pace::Window(1),
            warm_up: Duration::ZERO,
            time: Duration::ZERO,
        };
        let wildcard = traffic(Shape::Wildcard(4), 2);
        assert_eq!(wildcard.filters(&target(), 0), ["bench/x/0/+/value", "bench/x/2/+/value"]);
        assert_eq!(wildcard.filters(&target(), 1), ["bench/x/1/sensor/#", "bench/x/3/sensor/#"]);
        assert_eq!(wildcard.topics(&target(), 1)[3], "bench/x/3/sensor/value");
        let shared = traffic(Shape::Shared(2), 6);
        assert_eq!(shared.filters(&target(), 3), ["$share/g1/bench/x/all"]);
        assert_eq!((shared.receivers(), shared.check()), (2, Ok(())));
        assert!(traffic(Shape::Shared(4), 6).check().unwrap_err().contains("take a multiple"));
        assert!(traffic(Shape::Wildcard(7), 2).check().unwrap_err().contains("7 filters"));
        assert!(traffic(Shape::Pairs, 3).check().is_err());
    }

    #[test]
    fn many_connections_come_from_several_addresses() {
        let mut target = target();
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert_eq!(target.source(9_999, 10_000), None);
        assert_eq!(target.source(9_999, 20_000), ip("127.0.0.2"));
        assert_eq!(target.source(10_000, 20_000), ip("127.0.0.3"));
        target.sources = vec!["127.0.0.9".parse().unwrap()];
        assert_eq!(target.source(10_000, 20_000), ip("127.0.0.9"));
        (target.sources, target.addr) = (Vec::new(), Address::Tcp("192.0.2.1:1883".parse().unwrap()));
        assert_eq!(target.source(10_000, 20_000), None);
    }
}
