//! What the tests of the router share: random topics and filters, and a matcher that knows nothing of tries.

mod generated;
mod plain;
mod retained;
mod shared;

use std::num::NonZeroU32;
use std::sync::Arc;

use plugin_api::QoS;

use super::*;
use crate::codec::RetainHandling;

/// xorshift64*: the same numbers in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        ((mixed * u64::from(bound)) >> 32) as u32
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u32) as usize]
    }

    /// Few different levels, so that filters and topics often meet; an empty one and `$` ones among them.
    fn topic(&mut self) -> String {
        let levels = ["", "a", "b", "a level longer than 14 bytes", "$x", "ü"];
        let count = 1 + self.below(4);
        let mut topic: Vec<&str> = (0..count).map(|_| self.pick(&levels)).collect();
        if topic == [""] {
            topic = vec!["a"];
        }
        topic.join("/")
    }

    fn filter(&mut self) -> String {
        let topic = self.topic();
        let mut levels: Vec<&str> = topic.split('/').collect();
        for level in &mut levels {
            if self.below(3) == 0 {
                *level = "+";
            }
        }
        match self.below(4) {
            0 => levels.push("#"),
            1 => *levels.last_mut().expect("a topic has a level") = "#",
            _ => {}
        }
        levels.join("/")
    }
}

/// Section 4.7 word by word, on lists of levels.
fn matches(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) | ([], []) => true,
        (["+", filter @ ..], [_, topic @ ..]) => matches(filter, topic),
        ([level, filter @ ..], [same, topic @ ..]) if level == same => matches(filter, topic),
        _ => false,
    }
}

fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false; // [MQTT-4.7.2-1]
    }
    let levels = |text| str::split(text, '/').collect::<Vec<_>>();
    matches(&levels(filter), &levels(topic))
}

fn session(slot: u32) -> SessionKey {
    SessionKey { slot, serial: 1 }
}

fn options(qos: u8) -> SubscribeOptions {
    SubscribeOptions {
        qos: QoS::from_u8(qos).expect("a QoS"),
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::SendAtSubscribe,
    }
}

fn no_local(qos: u8) -> SubscribeOptions {
    SubscribeOptions { no_local: true, ..options(qos) }
}

fn identifier(number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number)
}

fn routers(workers: usize) -> Vec<Router> {
    let interest = Arc::new(Interest::new(workers));
    (0..workers).map(|worker| Router::new(worker, Arc::clone(&interest))).collect()
}

fn router() -> Router {
    routers(1).remove(0)
}
