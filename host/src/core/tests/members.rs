//! A group of a Shared Subscription whose members come and go at random.

use super::net::{connect_packet, split};
use super::shared::strategy;
use super::*;
use crate::limits::SharedStrategy;
use crate::router::tests::Random;

/// Members come, go, lose their connections, and acknowledge what they like: as long as there is one member, each QoS 1
/// message is acknowledged by one client, once.
#[test]
fn nothing_is_lost_and_nothing_acknowledged_comes_again() {
    for which in
        [SharedStrategy::RoundRobin, SharedStrategy::Random, SharedStrategy::Sticky, SharedStrategy::LeastInFlight]
    {
        for seed in 0..8 {
            for workers in [1, 3] {
                scenario_in(Mode { workers, bytewise: false }, &strategy(which), |net| {
                    Members::new(net, seed).run();
                });
            }
        }
    }
}

/// A member: its client, if it is connected, and what that has got and not acknowledged, as Packet Identifier and message.
type Seen = (Option<usize>, Vec<(u16, u16)>);

/// Some clients of one group, and what they have got.
struct Members<'a> {
    net: &'a mut Net,
    random: Random,
    from: usize,
    members: Vec<Seen>,
    acknowledged: Vec<u16>,
    published: u16,
}

impl<'a> Members<'a> {
    const CONNECT: &'static str = "11 00000E10 21 0003";

    fn new(net: &'a mut Net, seed: u64) -> Self {
        let from = net.v5("from");
        // Who never leaves the group, but for its connection.
        let keeper = net.durable(V5, "keeper", CONNACK);
        net.subscribe(keeper, "$share/g/t", 1);
        net.lose(keeper);
        let members = vec![(None, Vec::new()); 5];
        Self { net, random: Random::new(seed), from, members, acknowledged: Vec::new(), published: 0 }
    }

    fn run(&mut self) {
        for _ in 0..300 {
            let number = self.random.below(5) as usize;
            match self.random.below(12) {
                0..5 => {
                    let message = format!("32: <t> 0001 {{}} {:04X}", self.published);
                    self.published += 1;
                    self.net.send(self.from, &message);
                    self.net.expect(self.from, "40: 0001");
                }
                5 | 6 => self.connect(number),
                7..10 => self.acknowledge_one(number),
                10 => self.unsubscribe(number),
                _ => self.leave(number),
            }
            self.read();
        }
        for number in 0..5 {
            self.connect(number);
            self.read();
            let (client, unacknowledged) = std::mem::take(&mut self.members[number]);
            assert!(unacknowledged.len() <= 3, "more than its Receive Maximum");
            self.net.send(client.expect("connected"), "E0: 00 {11 00000000}");
        }
        let connect = connect_packet(V5, "00", 0, "11 00000E10", "keeper");
        let keeper = self.net.open(V5);
        self.net.send(keeper, &connect);
        self.members.push((Some(keeper), Vec::new()));
        self.read();
        while !self.members[5].1.is_empty() {
            self.acknowledge_one(5);
            self.read();
        }
        self.acknowledged.sort_unstable();
        assert_eq!(self.acknowledged, (0..self.published).collect::<Vec<u16>>());
        assert_eq!(self.net.count(|counters| counters.dropped_no_member.get()), 0);
    }

    /// Connects, with a takeover if it is connected, anew in one of four cases, and subscribes if it has not.
    fn connect(&mut self, number: usize) {
        let flags = if self.random.below(4) == 0 { "02" } else { "00" };
        self.read();
        let client = self.net.open(V5);
        // What was not acknowledged is sent again if the session is resumed.
        self.members[number].1.clear();
        if let Some(before) = self.members[number].0.replace(client) {
            self.net.send(client, &connect_packet(V5, flags, 0, Self::CONNECT, &format!("m{number}")));
            self.net.take(before);
        } else {
            self.net.send(client, &connect_packet(V5, flags, 0, Self::CONNECT, &format!("m{number}")));
        }
        self.net.send(client, "82: 0001 {} <$share/g/t> 01");
    }

    fn acknowledge_one(&mut self, number: usize) {
        let (client, unacknowledged) = &mut self.members[number];
        if let Some(client) = *client
            && !unacknowledged.is_empty()
        {
            let place = self.random.below(unacknowledged.len() as u32) as usize;
            let (packet_id, message) = unacknowledged.remove(place);
            self.acknowledged.push(message);
            self.net.send(client, &format!("40: {packet_id:04X}"));
        }
    }

    fn unsubscribe(&mut self, number: usize) {
        if let Some(client) = self.members[number].0 {
            self.net.send(client, "A2: 0002 {} <$share/g/t>");
        }
    }

    /// The connection is lost, and in one of two cases the session ends.
    fn leave(&mut self, number: usize) {
        let Some(client) = self.members[number].0.take() else { return };
        if self.random.below(2) == 0 {
            self.net.lose(client);
        } else {
            self.net.send(client, "E0: 00 {11 00000000}");
        }
        self.members[number].1.clear();
    }

    /// Takes in what the members have got.
    fn read(&mut self) {
        for (client, unacknowledged) in &mut self.members {
            let Some(client) = *client else { continue };
            for packet in split(&self.net.take(client)) {
                if packet[0] & 0xF7 == 0x32 {
                    let [.., high, low, _, first, second] = *packet else { panic!("{packet:02X?}") };
                    unacknowledged.push((u16::from_be_bytes([high, low]), u16::from_be_bytes([first, second])));
                }
            }
        }
    }
}
