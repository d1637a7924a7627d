//! Answers of the host, from its pieces to closures and values of the plugin's.
#![allow(unsafe_code)] // Pointers that the host gives back become boxes again.

use std::panic::{AssertUnwindSafe, catch_unwind};

use abi_stable::std_types::RSlice;

use super::{AnswerKey, Opaque, RawPiece, Reply, Sink, Status};

/// What takes an answer. Boxed twice, as a pointer to it has to be thin.
type Taker = Box<dyn FnOnce(Status, &[RawPiece<'_>]) + Send>;

/// Makes a request whose answer goes to `take`, once, on any thread. If the request is refused, which its status says, `take`
/// is dropped.
pub fn ask(
    waits: bool,
    take: impl FnOnce(Status, &[RawPiece<'_>]) + Send + 'static,
    request: impl FnOnce(Reply) -> Status,
) -> Status {
    let taker: Taker = Box::new(take);
    let context: Opaque = Box::into_raw(Box::new(taker)).cast();
    let status = request(Reply { context, done, flags: if waits { Reply::WAITS } else { 0 } });
    if status != Status::OK {
        // SAFETY: made above, and a request that was not taken is not answered.
        drop(unsafe { Box::from_raw(context.cast::<Taker>()) });
    }
    status
}

unsafe extern "C" fn done(context: Opaque, status: Status, pieces: RSlice<'_, RawPiece<'_>>) {
    // SAFETY: `ask` made it, and the host answers once.
    let taker = unsafe { Box::from_raw(context.cast::<Taker>()) };
    // The panic hook has told the host.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| taker(status, pieces.as_slice())))
        && let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload)))
    {
        std::mem::forget(second);
    }
}

/// A piece that the host has written into a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub key: AnswerKey,
    /// Its number.
    pub number: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Calls a service that writes into a sink. Returns its status and what it has written.
pub fn gather(call: impl FnOnce(Sink<'_>) -> Status) -> (Status, Vec<Piece>) {
    let mut pieces: Vec<Piece> = Vec::new();
    // SAFETY: `put` gets the list back, which lives until the call is over, on this thread.
    let status = call(unsafe { Sink::new((&raw mut pieces).cast(), put) });
    (status, pieces)
}

unsafe extern "C" fn put(context: Opaque, key: AnswerKey, number: u64, bytes: RSlice<'_, u8>) {
    // SAFETY: `gather` made the pointer, and uses the list only after the call.
    let pieces = unsafe { &mut *context.cast::<Vec<Piece>>() };
    pieces.push(Piece { key, number, bytes: bytes.as_slice().to_vec() });
}
