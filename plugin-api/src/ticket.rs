//! Answers that come later.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use crate::abi::{AnswerKey, RawHost, RawPiece, Verdict};
use crate::answer::{Answer, Pieces};
use crate::host::result;
use crate::{
    AuthVerdict, ConnectVerdict, Error, HostError, InfoAction, PublishVerdict, SubscribeVerdict, UnsubscribeVerdict,
};

/// An answer that can come later: [`ConnectVerdict`], [`AuthVerdict`], [`PublishVerdict`], [`SubscribeVerdict`],
/// [`UnsubscribeVerdict`], and for `handle_info` a list of [`InfoAction`]s.
pub trait Deferrable: Answer + Send + 'static {}

impl Deferrable for ConnectVerdict {}
impl Deferrable for AuthVerdict {}
impl Deferrable for PublishVerdict {}
impl Deferrable for SubscribeVerdict {}
impl Deferrable for UnsubscribeVerdict {}
impl Deferrable for Vec<InfoAction> {}

/// The right to answer one call of a callback, once, on any thread: [`Host::ticket`](crate::Host::ticket) gives it out.
///
/// Answering uses the ticket up. **One that is dropped without an answer refuses**, at once: whatever becomes of the code
/// that has it, the client does not wait for nothing. If the deadline comes before the answer, the host has refused already.
#[must_use = "a ticket that is dropped refuses"]
pub struct Ticket<A: Deferrable> {
    host: RawHost,
    /// 0 once it has been used; the host begins at 1.
    number: u64,
    _answer: PhantomData<fn(A)>,
}

/// What a callback returns that has taken a [`Ticket`]: proof that there is one.
///
/// It counts in the call that it was made in. A callback that returns it in another one has made a mistake, and refused.
pub struct Later<A> {
    number: u64,
    _answer: PhantomData<fn(A)>,
}

thread_local! {
    /// The last ticket that was taken on this thread: that of the call that runs, if it has taken one. The host knows
    /// whether it has.
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

/// Takes the ticket of the call that runs on this thread.
pub(crate) fn take<A: Deferrable>(host: RawHost) -> Result<(Ticket<A>, Later<A>), HostError> {
    let mut number = 0;
    result(host.ticket(&mut number))?;
    TAKEN.set(number);
    Ok((Ticket { host, number, _answer: PhantomData }, Later { number, _answer: PhantomData }))
}

/// Whether a callback may return the `Later` of this ticket.
pub(crate) fn is_of_this_call(number: u64) -> Result<(), &'static str> {
    if TAKEN.replace(0) == number { Ok(()) } else { Err("it answered with the `Later` of another call's ticket") }
}

impl<A: Deferrable> Ticket<A> {
    /// Answers.
    ///
    /// # Errors
    /// [`HostError::Gone`] if nobody waits any more: the deadline has passed, or the connection has ended. There is
    /// nothing to be done about it then.
    pub fn answer(self, answer: A) -> Result<(), HostError> {
        self.put(Ok(answer))
    }

    /// Refuses, as a callback does that returns an error: the text goes to the host's log.
    ///
    /// # Errors
    /// As [`answer`](Ticket::answer).
    pub fn fail(self, error: impl Into<Error>) -> Result<(), HostError> {
        self.put(Err(error.into()))
    }

    pub(crate) fn put(mut self, answer: Result<A, Error>) -> Result<(), HostError> {
        let mut pieces = Collected::default();
        let verdict = answer.put(&mut pieces);
        self.complete(verdict, &pieces)
    }

    fn complete(&mut self, verdict: Verdict, pieces: &Collected) -> Result<(), HostError> {
        let number = std::mem::take(&mut self.number);
        result(self.host.complete(number, verdict, &pieces.raw()))
    }
}

#[cfg(feature = "async")]
impl<A: Deferrable> Ticket<A> {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// What was to be answered by it panicked.
    pub(crate) fn panicked(mut self, text: &str) {
        // If nobody waits any more, nobody has to hear of it; the panic itself is in the log.
        let _ = self.complete(Verdict::PANICKED, &Collected::text(Verdict::PANICKED, text));
    }

    /// The host does not wait any more.
    pub(crate) fn forget(mut self) {
        self.number = 0;
    }
}

impl<A: Deferrable> Drop for Ticket<A> {
    fn drop(&mut self) {
        if self.number != 0 {
            let pieces = Collected::text(Verdict::ERROR, "a ticket was dropped without an answer");
            // If nobody waits any more, there is nobody to refuse.
            let _ = self.complete(Verdict::ERROR, &pieces);
        }
    }
}

impl<A: Deferrable> fmt::Debug for Ticket<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ticket").field(&self.number).finish()
    }
}

impl<A> Later<A> {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

// By hand: derived ones would ask for the same of `A`, which is not in it.
impl<A> Clone for Later<A> {
    fn clone(&self) -> Self {
        Self { number: self.number, _answer: PhantomData }
    }
}

impl<A> PartialEq for Later<A> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<A> Eq for Later<A> {}

impl<A> fmt::Debug for Later<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Later").field(&self.number).finish()
    }
}

/// The pieces of an answer that is handed over as a whole. An empty one allocates nothing.
#[derive(Default)]
struct Collected {
    pieces: Vec<(AnswerKey, u64, Range<usize>)>,
    bytes: Vec<u8>,
}

impl Collected {
    fn text(verdict: Verdict, text: &str) -> Self {
        let mut pieces = Self::default();
        pieces.put(AnswerKey::TEXT, verdict.0.into(), text.as_bytes());
        pieces
    }

    fn raw(&self) -> Vec<RawPiece<'_>> {
        let raw = |(key, number, bytes): &(AnswerKey, u64, Range<usize>)| RawPiece {
            bytes: self.bytes[bytes.clone()].into(),
            number: *number,
            key: *key,
        };
        self.pieces.iter().map(raw).collect()
    }
}

impl Pieces for Collected {
    fn put(&mut self, key: AnswerKey, number: u64, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.pieces.push((key, number, start..self.bytes.len()));
    }

    fn defers(&mut self, _: u64) -> Result<(), &'static str> {
        Err("an answer that comes by a ticket cannot come later still")
    }
}
