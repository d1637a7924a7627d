//! Messages that are put together anew: from the journal into items of a checkpoint, and from both into journals that a core
//! can apply.

use std::collections::HashMap;
use std::io;

use foldhash::fast::RandomState;

use super::change::{Change, Changes, Delivery, Messages, Origin, Packets, StoredMessage};
use super::model::{Place, Run, Source};

/// Reads the journal.
pub trait ReadJournal {
    /// Appends the change at a place.
    ///
    /// # Errors
    /// What the disk says.
    fn read(&mut self, place: Place, into: &mut Vec<u8>) -> io::Result<()>;
}

/// Where messages go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wrap {
    Queued,
    /// Packet Identifier of the first.
    InFlight(u16),
    Incoming(u16),
}

/// Something that is not what it was when it was written.
pub(super) fn damaged(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Puts messages of one session behind each other, and their bodies before them.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    session: u64,
    /// Bodies that several have, and stand in this journal already.
    known: HashMap<u64, u32, RandomState>,
    bodies: u32,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, session: u64) -> Self {
        Self { out, session, known: HashMap::default(), bodies: 0 }
    }

    /// How many bytes there are.
    pub(super) fn bytes(&self) -> usize {
        self.out.len()
    }

    /// Takes them out. Bodies are numbered anew.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.known.clear();
        self.bodies = 0;
        std::mem::take(self.out)
    }

    /// A change as it was written.
    pub(super) fn put(&mut self, change: &[u8]) {
        self.out.extend_from_slice(change);
    }

    pub(super) fn change(&mut self, change: &Change<'_>) {
        change.encode(self.out);
    }

    /// A body, which is that of several if it has such a number. Returns its number in this journal.
    fn body(&mut self, shared: Option<u64>, message: StoredMessage<'_>) -> u32 {
        if let Some(known) = shared.and_then(|shared| self.known.get(&shared)) {
            return *known;
        }
        let number = self.bodies;
        self.bodies += 1;
        Change::Body { number, message }.encode(self.out);
        if let Some(shared) = shared {
            self.known.insert(shared, number);
        }
        number
    }

    /// Messages of which the first in all has the number `nth` among those of its run.
    fn messages(&mut self, messages: Messages<'_>, wrap: Wrap, nth: u32) {
        let session = self.session;
        match wrap {
            Wrap::Queued => Change::Queued { session, messages },
            Wrap::InFlight(first) => Change::SentNow { session, first: super::model::behind(first, nth), messages },
            Wrap::Incoming(first) => Change::Incoming { session, first: super::model::behind(first, nth), messages },
        }
        .encode(self.out);
    }

    /// One message.
    fn one(&mut self, body: u32, delivery: Delivery<'_>, wrap: Wrap, nth: u32) {
        self.messages(Messages::Bodies { first: body, count: 1, delivery }, wrap, nth);
    }

    /// Messages that are in the journal, or nowhere. `shared` says which bodies several have, and their numbers.
    pub(super) fn journalled(
        &mut self,
        run: &Run,
        wrap: Wrap,
        journal: &mut dyn ReadJournal,
        shared: &HashMap<u64, u64, RandomState>,
    ) -> io::Result<()> {
        let (change_at, body_at, published_at) = match &run.source {
            Source::Gone => {
                self.messages(Messages::Gone { count: run.count }, wrap, 0);
                return Ok(());
            }
            Source::Item(item) => return Err(damaged(format!("item {item} is in the place of a change"))),
            Source::Packets(place) => (*place, None, None),
            Source::Body { change, body } => (*change, Some(*body), None),
            Source::Instead(places) => (places[0], Some(places[1]), Some(places[2])),
        };
        let mut buffer = Vec::new();
        journal.read(change_at, &mut buffer)?;
        let messages = messages_of(&buffer).ok_or_else(|| elsewhere(change_at))?;
        let Some(body_at) = body_at else {
            let Messages::Packets(packets) = messages else { return Err(elsewhere(change_at)) };
            let packets = slice(&packets, run.from, run.count).ok_or_else(|| elsewhere(change_at))?;
            self.messages(Messages::Packets(packets), wrap, 0);
            return Ok(());
        };
        let Messages::Bodies { delivery, .. } = messages else { return Err(elsewhere(change_at)) };
        let mut bytes = Vec::new();
        let mut body = |place: Place, writer: &mut Self| -> io::Result<u32> {
            let shared = shared.get(&place.at).copied();
            bytes.clear();
            journal.read(place, &mut bytes)?;
            match Change::decode(&bytes) {
                Ok((Change::Body { message, .. }, _)) => Ok(writer.body(shared, message)),
                _ => Err(elsewhere(place)),
            }
        };
        let number = body(body_at, self)?;
        let published = published_at.map(|place| body(place, self)).transpose()?;
        self.one(number, with_published(delivery, published), wrap, 0);
        Ok(())
    }
}

fn elsewhere(place: Place) -> io::Error {
    damaged(format!("the journal has another change at {} than the one that was written there", place.at))
}

fn with_published(delivery: Delivery<'_>, published: Option<u32>) -> Delivery<'_> {
    match (delivery.origin, published) {
        (Origin::Instead { group, identifier, .. }, Some(published)) => {
            Delivery { origin: Origin::Instead { group, identifier, published }, ..delivery }
        }
        _ => delivery,
    }
}

fn messages_of(bytes: &[u8]) -> Option<Messages<'_>> {
    match Change::decode(bytes).ok()?.0 {
        Change::Queued { messages, .. } | Change::SentNow { messages, .. } | Change::Incoming { messages, .. } => {
            Some(messages)
        }
        _ => None,
    }
}

/// Some of the packets. `None` if there are not so many.
fn slice<'a>(packets: &Packets<'a>, from: u32, count: u32) -> Option<Packets<'a>> {
    if from == 0 && count == packets.count {
        return Some(*packets);
    }
    let (mut at, mut start, mut end) = (0, None, None);
    for (number, packet) in (0..).zip(packets.each()) {
        if number == from {
            start = Some(at);
        }
        if number == from.checked_add(count)? {
            end = Some(at);
            break;
        }
        at += packet?.bytes.len();
    }
    if from.checked_add(count)? == packets.count {
        end = Some(at);
    }
    Some(Packets { count, bytes: packets.bytes.get(start?..end?)?, ..*packets })
}

/// Appends the value of an item of a checkpoint: the numbers of the bodies that others have as well, and a journal in which
/// these have the first numbers.
pub(super) fn item(
    session: u64,
    runs: &[Run],
    shared: &[(u64, Place)],
    journal: &mut dyn ReadJournal,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let count = u16::try_from(shared.len()).map_err(|_| damaged("an item with too many bodies"))?;
    out.extend_from_slice(&count.to_le_bytes());
    shared.iter().for_each(|(number, _)| out.extend_from_slice(&number.to_le_bytes()));
    let mut writer = Writer::new(out, session);
    writer.known = shared.iter().zip(0..).map(|((number, _), known)| (*number, known)).collect();
    writer.bodies = u32::from(count);
    let shared = shared.iter().map(|(number, place)| (place.at, *number)).collect();
    runs.iter().try_for_each(|run| writer.journalled(run, Wrap::Queued, journal, &shared))
}

/// Appends the value of a message on its way.
pub(super) fn transit(
    from: u16,
    workers: u16,
    [change, body]: [Place; 2],
    journal: &mut dyn ReadJournal,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    Change::Turn { worker: from, workers }.encode(out);
    let mut bytes = Vec::new();
    journal.read(body, &mut bytes)?;
    let Ok((Change::Body { message, .. }, _)) = Change::decode(&bytes) else { return Err(elsewhere(body)) };
    Change::Body { number: 0, message }.encode(out);
    bytes.clear();
    journal.read(change, &mut bytes)?;
    let Ok((Change::Transit { from, to, group, .. }, _)) = Change::decode(&bytes) else {
        return Err(elsewhere(change));
    };
    Change::Transit { from, to, group, body: 0 }.encode(out);
    Ok(())
}

/// An item of a checkpoint, taken apart.
#[derive(Debug)]
pub(super) struct ItemView<'a> {
    shared: Vec<u64>,
    /// Those that are in it. They have the numbers behind the shared ones.
    bodies: Vec<StoredMessage<'a>>,
    messages: Vec<Messages<'a>>,
}

impl<'a> ItemView<'a> {
    /// `None` if it is no item.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk()?;
        let (shared, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*count)) * size_of::<u64>())?;
        let shared = shared.as_chunks().0.iter().map(|number| u64::from_le_bytes(*number)).collect();
        let mut item = Self { shared, bodies: Vec::new(), messages: Vec::new() };
        for change in Changes::new(rest) {
            match change.ok()?.1 {
                Change::Body { number, message } if number as usize == item.shared.len() + item.bodies.len() => {
                    item.bodies.push(message);
                }
                Change::Queued { messages, .. } => item.messages.push(messages),
                _ => return None,
            }
        }
        Some(item)
    }

    /// Gives some of the messages to a writer. Between two of them, `cut` may take out what it has.
    pub(super) fn write(
        &self,
        run: &Run,
        wrap: Wrap,
        writer: &mut Writer<'_>,
        shared_body: &mut dyn FnMut(u64, &mut Vec<u8>) -> io::Result<()>,
        cut: &mut dyn FnMut(&mut Writer<'_>),
    ) -> io::Result<()> {
        let (mut before, mut nth) = (0, 0);
        for messages in &self.messages {
            let from = run.from.max(before);
            let to = run.from.saturating_add(run.count).min(messages.count().saturating_add(before));
            let start = from.saturating_sub(before);
            before = messages.count().saturating_add(before);
            if from >= to {
                continue;
            }
            cut(writer);
            match messages {
                Messages::Packets(packets) => {
                    let packets = slice(packets, start, to - from).ok_or_else(|| damaged("packets that are none"))?;
                    writer.messages(Messages::Packets(packets), wrap, nth);
                }
                Messages::Bodies { first, delivery, .. } => {
                    for place in start..start + (to - from) {
                        let number = self.body(first.saturating_add(place), writer, shared_body)?;
                        let published = match delivery.origin {
                            Origin::Instead { published, .. } => Some(self.body(published, writer, shared_body)?),
                            _ => None,
                        };
                        writer.one(number, with_published(*delivery, published), wrap, nth + (place - start));
                    }
                }
                Messages::Gone { .. } => return Err(damaged("an item with messages that are gone")),
            }
            nth += to - from;
        }
        if nth == run.count { Ok(()) } else { Err(damaged(format!("an item with {before} messages"))) }
    }

    fn body(
        &self,
        number: u32,
        writer: &mut Writer<'_>,
        shared_body: &mut dyn FnMut(u64, &mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<u32> {
        let number = number as usize;
        let Some(shared) = self.shared.get(number) else {
            let body = self.bodies.get(number - self.shared.len());
            return Ok(writer.body(None, *body.ok_or_else(|| damaged("an item without a body of its"))?));
        };
        if let Some(known) = writer.known.get(shared) {
            return Ok(*known);
        }
        let mut bytes = Vec::new();
        shared_body(*shared, &mut bytes)?;
        match Change::decode(&bytes) {
            Ok((Change::Body { message, .. }, _)) => Ok(writer.body(Some(*shared), message)),
            _ => Err(damaged(format!("no body with the number {shared}"))),
        }
    }
}
