//! What has come, against what was sent: nothing lost, nothing twice, everything in order.

use std::collections::BTreeSet;

/// How many missing messages of one publisher are remembered, so that one that comes late is told from one that comes twice.
const MISSING_MAX: usize = 1 << 16;

/// What was wrong with what came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Faults {
    pub(super) duplicated: u64,
    pub(super) out_of_order: u64,
    /// Publishes that had no stamp of this load, or one of a publisher that this subscriber does not get.
    pub(super) foreign: u64,
}

impl Faults {
    pub(super) fn add(&mut self, other: Faults) {
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.foreign += other.foreign;
    }
}

/// What one subscriber has got of its publishers, whose messages come in order.
#[derive(Debug)]
pub(super) struct InOrder {
    first_publisher: u32,
    /// The number of the next message of each publisher.
    next: Vec<u32>,
    /// From one message that this subscriber gets to the next one.
    stride: u32,
    /// Publisher and number of messages that have been passed over.
    missing: BTreeSet<(u32, u32)>,
}

impl InOrder {
    /// It gets the messages `start`, `start + stride`, … of each of these publishers.
    pub(super) fn new(publishers: std::ops::Range<u32>, start: u32, stride: u32) -> Self {
        let next = vec![start; publishers.len()];
        Self { first_publisher: publishers.start, next, stride, missing: BTreeSet::new() }
    }

    /// Takes the message that was to come, and says whether it was that one.
    #[inline]
    pub(super) fn is_next(&mut self, publisher: u32, sequence: u32) -> bool {
        let slot = self.next.get_mut(publisher.wrapping_sub(self.first_publisher) as usize);
        match slot {
            Some(next) if *next == sequence => {
                *next = next.wrapping_add(self.stride);
                true
            }
            _ => false,
        }
    }

    /// Takes a message that was not the next one. `true` if it counts as a delivery: it is ours, and came for the first time.
    #[cold]
    pub(super) fn take_other(&mut self, publisher: u32, sequence: u32, faults: &mut Faults) -> bool {
        let Some(next) = self.next.get_mut(publisher.wrapping_sub(self.first_publisher) as usize) else {
            faults.foreign += 1;
            return false;
        };
        // Numbers wrap around; what is less than half of them ahead is ahead.
        let ahead = sequence.wrapping_sub(*next);
        if ahead < 1 << 31 {
            if !ahead.is_multiple_of(self.stride) {
                faults.foreign += 1;
                return false;
            }
            let mut gap = *next;
            while gap != sequence && self.missing.len() < MISSING_MAX {
                self.missing.insert((publisher, gap));
                gap = gap.wrapping_add(self.stride);
            }
            *next = sequence.wrapping_add(self.stride);
            return true;
        }
        if self.missing.remove(&(publisher, sequence)) {
            faults.out_of_order += 1;
            return true;
        }
        faults.duplicated += 1;
        false
    }
}

/// What the members of a group have got of one publisher together, in whatever order.
#[derive(Debug, Default)]
pub(super) struct AnyOrder {
    /// A bit for each message that has come, from `base` on.
    seen: std::collections::VecDeque<u64>,
    base: u32,
}

impl AnyOrder {
    /// Takes a message. `true` if it came for the first time.
    pub(super) fn take(&mut self, sequence: u32, faults: &mut Faults) -> bool {
        let ahead = sequence.wrapping_sub(self.base);
        if ahead >= 1 << 31 {
            faults.duplicated += 1;
            return false;
        }
        let (word, bit) = ((ahead / 64) as usize, 1_u64 << (ahead % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            faults.duplicated += 1;
            return false;
        }
        self.seen[word] |= bit;
        while self.seen.front() == Some(&u64::MAX) {
            self.seen.pop_front();
            self.base = self.base.wrapping_add(64);
        }
        true
    }
}

/// How what one subscriber gets is checked.
#[derive(Debug)]
pub(super) enum Check {
    InOrder(InOrder),
    /// Together with the other subscribers of a group on the same thread, by its number there.
    Group(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deliveries that count, and what was wrong.
    fn ordered(stride: u32, sequences: &[u32]) -> (u64, Faults) {
        let mut check = InOrder::new(5..7, 0, stride);
        let mut faults = Faults::default();
        let mut delivered = 0;
        for sequence in sequences {
            if check.is_next(6, *sequence) || check.take_other(6, *sequence, &mut faults) {
                delivered += 1;
            }
        }
        (delivered, faults)
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        let faults = |duplicated, out_of_order, foreign| Faults { duplicated, out_of_order, foreign };
        assert_eq!(ordered(1, &[0, 1, 2, 3]), (4, faults(0, 0, 0)));
        assert_eq!(ordered(1, &[0, 1, 1, 2]), (3, faults(1, 0, 0)), "twice");
        assert_eq!(ordered(1, &[0, 2, 3]), (3, faults(0, 0, 0)), "what is lost is seen in the number");
        assert_eq!(ordered(1, &[0, 2, 1, 3]), (4, faults(0, 1, 0)), "late");
        assert_eq!(ordered(1, &[0, 3, 1, 1, 2]), (4, faults(1, 2, 0)), "late and twice");
        assert_eq!(ordered(10, &[0, 10, 20, 20, 40]), (4, faults(1, 0, 0)));
        assert_eq!(ordered(10, &[0, 15]), (1, faults(0, 0, 1)), "it is for another subscriber");
        let mut check = InOrder::new(5..7, 0, 1);
        let mut found = Faults::default();
        assert!(!check.is_next(7, 0) && !check.take_other(7, 0, &mut found));
        assert!(!check.is_next(4, 0) && !check.take_other(4, 0, &mut found));
        assert_eq!(found, faults(0, 0, 2));
    }

    #[test]
    fn numbers_wrap_around() {
        let mut check = InOrder::new(0..1, u32::MAX, 1);
        assert!(check.is_next(0, u32::MAX) && check.is_next(0, 0));
    }

    #[test]
    fn members_of_a_group_together_get_each_message_once() {
        let (mut check, mut faults) = (AnyOrder::default(), Faults::default());
        let order = (0..200).rev().chain(200..1000);
        assert!(order.clone().all(|sequence| check.take(sequence, &mut faults)));
        assert!(check.seen.len() < 3, "what is complete is forgotten: {}", check.seen.len());
        assert!(!order.clone().any(|sequence| check.take(sequence, &mut faults)));
        assert_eq!(faults, Faults { duplicated: 1000, ..Faults::default() });
    }
}
