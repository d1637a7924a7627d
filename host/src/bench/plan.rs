//! What is to be measured: the broker, the load, for how long.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::codec::ProtocolVersion;

use super::packets::STAMP_BYTES;

/// The broker, and how clients reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it listens.
    pub addr: SocketAddr,
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
    /// How long connecting, and each answer to a CONNECT or SUBSCRIBE, may take.
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
        let many = connections > Self::CONNECTIONS_PER_SOURCE && self.addr.ip().is_loopback() && self.addr.is_ipv4();
        many.then(|| Ipv4Addr::new(127, 0, 0, 2 + (turn % 250) as u8).into())
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
            Shape::Pairs => 1,
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.publishers as usize + self.subscribers as usize
    }

    pub(super) fn topic(&self, target: &Target, publisher: u32) -> String {
        match self.shape {
            Shape::All => format!("bench/{}/all", target.name),
            Shape::Pairs => format!("bench/{}/{publisher}", target.name),
        }
    }
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

    #[test]
    fn many_connections_come_from_several_addresses() {
        let mut target = Target {
            addr: "127.0.0.1:1883".parse().unwrap(),
            version: ProtocolVersion::V5,
            username: None,
            password: None,
            sources: Vec::new(),
            name: "x".to_owned(),
            patience: Duration::from_secs(1),
        };
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert_eq!(target.source(9_999, 10_000), None);
        assert_eq!(target.source(9_999, 20_000), ip("127.0.0.2"));
        assert_eq!(target.source(10_000, 20_000), ip("127.0.0.3"));
        target.sources = vec!["127.0.0.9".parse().unwrap()];
        assert_eq!(target.source(10_000, 20_000), ip("127.0.0.9"));
        (target.sources, target.addr) = (Vec::new(), "192.0.2.1:1883".parse().unwrap());
        assert_eq!(target.source(10_000, 20_000), None);
    }
}
