//! Who waits for an answer of the host's: exactly one is given, whatever becomes of the request.
#![allow(unsafe_code)] // The function that takes the answer is the plugin's.

use std::ops::Range;

use plugin_api::abi::{AnswerKey, RawPiece, Reply, Status};

use super::super::stats::Entry;
use super::{NO_CONNECTION, Panic, PluginServices, inside};

/// An answer with contents, as it is made.
#[derive(Debug, Default)]
pub struct Pieces {
    list: Vec<(AnswerKey, u64, Range<usize>)>,
    bytes: Vec<u8>,
}

impl Pieces {
    /// Adds one.
    pub fn put(&mut self, key: AnswerKey, number: u64, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.list.push((key, number, start..self.bytes.len()));
    }

    /// The memory that it takes, about.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len() + size_of::<(AnswerKey, u64, Range<usize>)>() * self.list.len()
    }

    fn raw(&self) -> Vec<RawPiece<'_>> {
        let raw = |(key, number, range): &(AnswerKey, u64, Range<usize>)| RawPiece {
            bytes: self.bytes[range.clone()].into(),
            number: *number,
            key: *key,
        };
        self.list.iter().map(raw).collect()
    }
}

/// One who waits. Dropped without an answer, it says that the server does not run: a request that is lost with the worker
/// that had it is answered as well.
pub struct Asker {
    plugin: &'static PluginServices,
    reply: Option<Reply>,
    otherwise: Status,
}

impl Asker {
    pub(super) fn new(plugin: &'static PluginServices, reply: Reply) -> Self {
        Self { plugin, reply: Some(reply), otherwise: Status::NOT_RUNNING }
    }

    /// Gives the answer.
    pub fn answer(mut self, pieces: &Pieces) {
        self.give(Status::OK, pieces);
    }

    /// Says why there is none.
    pub fn refuse(mut self, why: Status) {
        self.give(why, &Pieces::default());
    }

    /// What it is told if it is dropped without an answer.
    pub fn unless_answered(&mut self, why: Status) {
        self.otherwise = why;
    }

    /// The request was not taken, which its caller hears of at once: there is no answer.
    pub fn forget(&mut self) {
        self.reply = None;
    }

    fn give(&mut self, status: Status, pieces: &Pieces) {
        let Some(Reply { context, done, .. }) = self.reply.take() else { return };
        let raw = pieces.raw();
        // What it asks for meanwhile waits until it has returned, as in a callback. A panic does not leave the plugin.
        let ((), left) = inside(Entry::ANSWER, NO_CONNECTION, "", || {
            // SAFETY: the contract of `Reply`: whoever made it takes one answer, on any thread; this is the first, as it is
            // taken out.
            unsafe { done(context, status, raw.as_slice().into()) }
        });
        for Panic { text, location } in left.into_iter().flat_map(|left| left.panics) {
            tracing::error!(plugin = self.plugin.plugin, text, location, "a plugin panicked when it got an answer");
        }
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.give(self.otherwise, &Pieces::default());
    }
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Asker({})", self.plugin.plugin)
    }
}
