//! What clients do: anything that they may.

use super::model::*;
use super::world::World;
use crate::mqtt::Publish;

pub(super) const TOPICS: [&str; 8] = ["t/0", "t/1", "t/2", "t/3", "r/0", "r/1", "r/2", "r/3"];
/// What a plugin keeps values by. Nobody subscribes to topics with as many levels.
pub(super) const KEYS: [&str; 3] = ["a/0", "a/1", "a/2"];
const FILTERS: [&str; 8] = ["t/0", "t/1", "t/+", "t/#", "+/2", "r/+", "r/0", "+/+"];
/// Messages that a client has under way at most.
const OUT_MAX: usize = 40;

impl World {
    /// One operation of some client.
    pub(super) fn operate(&mut self) {
        let number = self.random.below(self.clients.len());
        let one = &self.clients[number];
        let nature = one.nature;
        if one.link.is_none() {
            let comes = nature != Nature::Mortal && self.random.percent(20);
            let clean = nature == Nature::Persistent && self.random.percent(5);
            if comes {
                self.connect(number, clean);
            }
            return;
        }
        if !one.is_connected {
            return;
        }
        match self.random.below(100) {
            0..62 => self.publish_some(number),
            62..72 => self.subscribe_somehow(number),
            72..92 => drop(self.answer(number)),
            92..96 => self.clients[number].laziness = self.random.pick(&[0, 0, 0, 30, 80, 100]),
            96 | 97 => {
                // Who says so takes its will along.
                let says_so = nature != Nature::Mortal && self.random.percent(50);
                self.leave(number, says_so);
            }
            _ => {}
        }
        self.flush(number);
    }

    fn publish_some(&mut self, number: usize) {
        if self.campaign.plugin && self.random.percent(10) {
            return self.keep_value(number);
        }
        let topic = self.random.pick(&TOPICS);
        let qos = self.random.pick(&[0, 1, 1, 1, 2, 2, 2]);
        let retain = topic.starts_with('r') && self.random.percent(70);
        for _ in 0..self.random.pick(&[1, 1, 1, 2, 5, 20]) {
            if self.clients[number].out.len() < OUT_MAX {
                self.publish_one(number, topic, qos, retain);
            }
        }
    }

    /// Has the plugin keep another value by a key, or none: as with a retained message, it is the last one that counts.
    fn keep_value(&mut self, number: usize) {
        let (key, qos, is_empty) = (self.random.pick(&KEYS), self.random.below(3) as u8, self.random.percent(20));
        if self.clients[number].out.len() < OUT_MAX {
            let topic = format!("keep/{key}");
            let msg = self.new_message(number, &topic, qos, true, is_empty);
            let payload = if is_empty { String::new() } else { format!("{msg}:") };
            self.note(|| format!("client {number} has the value {msg} for {key}, QoS {qos}, empty {is_empty}"));
            self.publish(number, Publish::new(topic, payload).qos(qos, 0), msg);
        }
    }

    /// A message whose acknowledgement proves that everything is safe that has been done before, by all workers: it waits for a
    /// journal, as that of a message does not that nobody is to have.
    pub(super) fn publish_retained(&mut self, number: usize, topic: &str) {
        let msg = self.new_message(number, topic, 1, true, false);
        let publish = Publish { retain: true, ..Publish::new(topic, format!("{msg}:")).qos(1, 0) };
        self.publish(number, publish, msg);
    }

    pub(super) fn publish_one(&mut self, number: usize, topic: &str, qos: u8, retain: bool) {
        let is_empty = retain && self.random.percent(20);
        let msg = self.new_message(number, topic, qos, retain, is_empty);
        let length = self.random.pick(&[0, 10, 10, 100, 3000]);
        let payload = if is_empty { String::new() } else { format!("{msg}:{}", "x".repeat(length)) };
        self.note(|| {
            format!("client {number} has message {msg} for {topic}, QoS {qos}, RETAIN {retain}, empty {is_empty}")
        });
        self.publish(number, Publish { retain, ..Publish::new(topic, payload).qos(qos, 0) }, msg);
    }

    pub(super) fn new_message(
        &mut self,
        publisher: usize,
        topic: &str,
        qos: u8,
        retain: bool,
        is_empty: bool,
    ) -> usize {
        self.msgs.push(Msg {
            topic: topic.to_owned(),
            qos,
            retain,
            is_empty,
            is_will: false,
            publisher,
            first: None,
            last: None,
            is_promised: false,
            sent: 0,
        });
        self.msgs.len() - 1
    }

    fn subscribe_somehow(&mut self, number: usize) {
        let one = &self.clients[number];
        if one.asking.is_some() || one.nature == Nature::Steady || one.nature == Nature::Mortal {
            return;
        }
        let filter = self.random.pick(&FILTERS);
        if self.random.percent(30) {
            self.unsubscribe(number, filter);
        } else {
            let qos = self.random.pick(&[0, 1, 2, 2]);
            self.subscribe(number, filter, qos);
        }
    }
}
