//! Answers that are remembered for a while.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use ring::hmac;
use ring::rand::SystemRandom;

use crate::question::Answer;

/// What a question is known by: it cannot be told from it what the question was, as there may be a password in it.
pub(crate) type Key = [u8; 32];

/// Makes keys, without going through what is the same in all of them each time.
pub(crate) struct Keys(hmac::Context);

impl Keys {
    pub(crate) fn key(&self, rest: &[u8]) -> Key {
        let (mut begun, mut key) = (self.0.clone(), [0; 32]);
        begun.update(rest);
        key.copy_from_slice(begun.sign().as_ref());
        key
    }
}

/// Answers by their questions: a bounded number, for a bounded time.
pub(crate) struct Cache {
    secret: hmac::Key,
    answers: HashMap<Key, (Answer, Instant)>,
    /// In the order in which they came, which is that in which they go.
    order: VecDeque<(Key, Instant)>,
    keep: Duration,
    entries_max: usize,
}

impl Cache {
    /// `None`: the system has no random numbers.
    pub(crate) fn new(keep: Duration, entries_max: usize) -> Option<Self> {
        let secret = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        Some(Self { secret, answers: HashMap::new(), order: VecDeque::new(), keep, entries_max })
    }

    /// Makes the keys of questions that begin with `part`.
    pub(crate) fn keys(&self, part: &[u8]) -> Keys {
        let mut begun = hmac::Context::with_key(&self.secret);
        begun.update(part);
        Keys(begun)
    }

    pub(crate) fn get(&self, key: &Key, now: Instant) -> Option<&Answer> {
        self.answers.get(key).filter(|(_, until)| now < *until).map(|(answer, _)| answer)
    }

    pub(crate) fn put(&mut self, key: Key, answer: Answer, now: Instant) {
        if self.keep.is_zero() || self.entries_max == 0 {
            return;
        }
        let until = now + self.keep;
        self.answers.insert(key, (answer, until));
        self.order.push_back((key, until));
        // The oldest, and those that are over; one that has come again since has another time.
        while let Some((key, until)) = self.order.front().copied() {
            if self.order.len() <= self.entries_max && now < until {
                break;
            }
            self.order.pop_front();
            if self.answers.get(&key).is_some_and(|(_, current)| *current == until) {
                self.answers.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_for_a_while_and_not_too_many() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut cache = Cache::new(Duration::from_secs(10), 3).expect("random numbers");
        let keys: Vec<Key> =
            ["a", "b", "c", "d"].iter().map(|question| cache.keys(b"q").key(question.as_bytes())).collect();
        for (secs, key) in keys.iter().enumerate() {
            cache.put(*key, Answer::allow(), at(secs as u64));
        }
        let known = |cache: &Cache, secs| keys.iter().map(|key| cache.get(key, at(secs)).is_some()).collect::<Vec<_>>();
        assert_eq!(known(&cache, 4), [false, true, true, true]);
        assert_eq!(known(&cache, 11), [false, false, true, true]);
        // One that comes again stays for longer, though it was in the list before.
        cache.put(keys[2], Answer::deny(), at(11));
        cache.put(keys[0], Answer::allow(), at(13));
        assert_eq!(known(&cache, 13), [true, false, true, false]);
        assert_eq!(cache.get(&keys[2], at(13)), Some(&Answer::deny()));
        assert_eq!((cache.answers.len(), cache.order.len()), (2, 2));
        let mut off = Cache::new(Duration::ZERO, 3).expect("random numbers");
        off.put(keys[0], Answer::allow(), start);
        assert!(off.get(&keys[0], start).is_none());
        assert_eq!(cache.keys(b"").key(b"qa"), keys[0]);
        assert_ne!(off.keys(b"q").key(b"a"), keys[0], "each has a secret of its own");
    }
}
