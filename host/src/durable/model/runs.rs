//! Messages in a row, and where they are.

use std::collections::{BTreeMap, VecDeque};

use super::{Place, Sense};

/// How many Packet Identifiers there are.
const PACKET_IDS: u32 = 65_535;

/// Where some messages are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::durable) enum Source {
    /// In the journal: packets in the change there.
    Packets(Place),
    /// One message: the body there, which is delivered as the change says.
    Body { change: Place, body: Place },
    /// The same, with the body of what was published in the place of which it is.
    Instead(Box<[Place; 3]>),
    /// In an item of the checkpoint.
    Item(u32),
    /// Nowhere: nothing has to be known of them any more.
    Gone,
}

/// Some messages that stand one behind the other in one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::durable) struct Run {
    pub(in crate::durable) source: Source,
    /// How many of the source come before them.
    pub(in crate::durable) from: u32,
    pub(in crate::durable) count: u32,
}

/// Messages with consecutive Packet Identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbered {
    pub(in crate::durable) first: u16,
    pub(in crate::durable) run: Run,
}

impl Run {
    /// Takes the first `count` off, of which there are more.
    pub(super) fn split_front(&mut self, count: u32) -> Self {
        let front = Self { source: self.source.clone(), from: self.from, count };
        self.from += count;
        self.count -= count;
        front
    }

    /// Whether `next` stands right behind these.
    pub(super) fn goes_on_with(&self, next: &Self) -> bool {
        match (&self.source, &next.source) {
            (Source::Gone, Source::Gone) => true,
            (Source::Packets(_) | Source::Item(_), _) => {
                self.source == next.source && self.from.checked_add(self.count) == Some(next.from)
            }
            _ => false,
        }
    }
}

/// The Packet Identifier so many behind another one.
pub(in crate::durable) fn behind(packet_id: u16, count: u32) -> u16 {
    let number = (u64::from(packet_id.max(1) - 1) + u64::from(count)) % u64::from(PACKET_IDS) + 1;
    u16::try_from(number).unwrap_or(1)
}

/// How many Packet Identifiers there are from one up to another, without that.
pub(in crate::durable) fn distance(from: u16, to: u16) -> u32 {
    let (from, to) = (u32::from(from), u32::from(to));
    if to >= from { to - from } else { to + PACKET_IDS - from }
}

/// Takes the first `count` messages out, and tells `each` of their runs.
pub(super) fn take_front(queue: &mut VecDeque<Run>, mut count: u32, mut each: impl FnMut(Run)) -> Sense {
    while count > 0 {
        let Some(front) = queue.front_mut() else { return Err(format!("{count} messages more than there are")) };
        if front.count > count {
            each(front.split_front(count));
            return Ok(());
        }
        count -= front.count;
        each(queue.pop_front().expect("there is a first one"));
    }
    Ok(())
}

/// Takes `count` messages out that have `place` before them, and tells `each` of their runs.
pub(super) fn take_at(queue: &mut VecDeque<Run>, place: u32, mut count: u32, mut each: impl FnMut(Run)) -> Sense {
    if place == 0 {
        return take_front(queue, count, each);
    }
    let (mut before, mut at) = (place, 0);
    while before > 0 {
        let run = queue.get_mut(at).ok_or_else(|| format!("{before} messages more than there are"))?;
        if run.count > before {
            let front = run.split_front(before);
            queue.insert(at, front);
            before = 0;
        } else {
            before -= run.count;
        }
        at += 1;
    }
    while count > 0 {
        let run = queue.get_mut(at).ok_or_else(|| format!("{count} messages more than there are"))?;
        if run.count > count {
            each(run.split_front(count));
            return Ok(());
        }
        count -= run.count;
        each(queue.remove(at).expect("it was there"));
    }
    Ok(())
}

/// Outbound messages in flight, oldest first. Their Packet Identifiers grow, up to the first one again.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct InFlight(pub(super) VecDeque<Numbered>);

impl InFlight {
    pub(super) fn push(&mut self, first: u16, run: Run) {
        if let Some(last) = self.0.back_mut()
            && behind(last.first, last.run.count) == first
            && last.run.goes_on_with(&run)
            && let Some(count) = last.run.count.checked_add(run.count)
        {
            last.run.count = count;
        } else {
            self.0.push_back(Numbered { first, run });
        }
    }

    /// Where the run is in which a Packet Identifier is.
    fn find(&self, packet_id: u16) -> Option<usize> {
        let oldest = self.0.front()?.first;
        let wanted = distance(oldest, packet_id);
        let place = self.0.partition_point(|sent| distance(oldest, sent.first) <= wanted).checked_sub(1)?;
        let sent = &self.0[place];
        (distance(sent.first, packet_id) < sent.run.count).then_some(place)
    }

    /// Takes out `count` messages, from a Packet Identifier on, and tells `each` of their runs. Where they `stay`, nothing
    /// has to be known of them, but that they are there.
    pub(super) fn take(&mut self, first: u16, count: u32, stay: bool, mut each: impl FnMut(Run)) -> Sense {
        let mut done = 0;
        while done < count {
            let packet_id = behind(first, done);
            let place = self.find(packet_id).ok_or_else(|| format!("no message is in flight with {packet_id}"))?;
            let (at, taken) = self.cut(place, packet_id, count - done);
            done += taken.count;
            if stay {
                let gone = Run { source: Source::Gone, from: 0, count: taken.count };
                self.put(at, Numbered { first: packet_id, run: gone });
            }
            each(taken);
        }
        Ok(())
    }

    /// Takes out the messages from a Packet Identifier on that are in the run at a place: `max` at most. Returns where they were.
    fn cut(&mut self, place: usize, packet_id: u16, max: u32) -> (usize, Run) {
        let sent = &mut self.0[place];
        let before = distance(sent.first, packet_id);
        if before > 0 {
            let front = Numbered { first: sent.first, run: sent.run.split_front(before) };
            sent.first = packet_id;
            self.0.insert(place, front);
        }
        let at = place + usize::from(before > 0);
        let sent = &mut self.0[at];
        if sent.run.count > max {
            sent.first = behind(packet_id, max);
            return (at, sent.run.split_front(max));
        }
        (at, self.0.remove(at).expect("it was there").run)
    }

    /// Puts messages in at a place, and together with those before and behind them where they go on.
    fn put(&mut self, at: usize, sent: Numbered) {
        let joins = |before: &Numbered, next: &Numbered| {
            behind(before.first, before.run.count) == next.first && before.run.goes_on_with(&next.run)
        };
        if let Some(before) = at.checked_sub(1).and_then(|before| self.0.get_mut(before))
            && joins(before, &sent)
            && let Some(count) = before.run.count.checked_add(sent.run.count)
        {
            before.run.count = count;
        } else {
            self.0.insert(at, sent);
        }
    }
}

/// QoS 2 messages from the client, accepted and not released. It has given them their Packet Identifiers, in whatever order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Incoming(pub(super) BTreeMap<u16, Run>);

impl Incoming {
    /// Adds messages, whose Packet Identifiers are in use by none.
    pub(super) fn insert(&mut self, first: u16, mut run: Run) -> Sense {
        let up_to_last = distance(first, 1).max(1);
        if first != 1 && run.count > up_to_last {
            self.insert(first, run.split_front(up_to_last))?;
            return self.insert(1, run);
        }
        let last = u64::from(first) + u64::from(run.count);
        let last =
            u16::try_from(last.saturating_sub(1)).map_err(|_| format!("{} messages from one client", run.count))?;
        if let Some((&before, known)) = self.0.range(..=last).next_back()
            && u32::from(before) + known.count > u32::from(first)
        {
            return Err(format!("a message from the client is there with {first} or behind it"));
        }
        if let Some((&before, known)) = self.0.range_mut(..first).next_back()
            && u32::from(before) + known.count == u32::from(first)
            && known.goes_on_with(&run)
        {
            known.count += run.count;
        } else {
            self.0.insert(first, run);
        }
        Ok(())
    }

    /// Takes out `count` messages, from a Packet Identifier on, and tells `each` of their runs.
    pub(super) fn take(&mut self, first: u16, count: u32, mut each: impl FnMut(Run)) -> Sense {
        let mut done = 0;
        while done < count {
            let packet_id = behind(first, done);
            let none = || format!("no message from the client is there with {packet_id}");
            let (&start, run) = self.0.range_mut(..=packet_id).next_back().ok_or_else(none)?;
            let before = u32::from(packet_id - start);
            if before >= run.count {
                return Err(none());
            }
            let mut run = self.0.remove(&start).expect("it was there");
            if before > 0 {
                self.0.insert(start, run.split_front(before));
            }
            if run.count > count - done {
                let taken = run.split_front(count - done);
                self.0.insert(behind(packet_id, taken.count), run);
                run = taken;
            }
            done += run.count;
            each(run);
        }
        Ok(())
    }
}
