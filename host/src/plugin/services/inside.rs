//! What a call into a plugin leaves behind, and what is known on its thread while it lasts.
#![allow(unsafe_code)] // The Client Identifier is borrowed for the length of the call.

use std::cell::{Cell, RefCell};

use plugin_api::abi::Status;

use super::super::stats::Entry;
use super::super::tickets::{NO_TICKET, Tickets};
use super::NO_CONNECTION;
use crate::core::mail::{Mail, Mailboxes};
use crate::message::Source;

/// Whether a callback runs on this thread, as bits: it does,
const RUNS: u8 = 1;
/// there is something in [`LATER`],
const TOUCHED: u8 = 2;
/// it may take a ticket.
pub(super) const MAY_DEFER: u8 = 4;

/// What has to wait for the end of the callback.
pub(super) struct Later {
    pub(super) requests: Vec<(Mailboxes, usize, Mail)>,
    pub(super) settled: Settled,
}

/// What a call into a plugin has left behind besides its answer.
pub(in crate::plugin) struct Settled {
    /// Panics that its hook reported, those that it caught itself included.
    pub(in crate::plugin) panics: Vec<Panic>,
    /// The ticket that it has taken.
    pub(in crate::plugin) ticket: u64,
    /// Whose it is: a callback may have the services of another instance.
    pub(in crate::plugin) taken_from: Option<&'static Tickets>,
}

impl Settled {
    const NOTHING: Self = Self { panics: Vec::new(), ticket: NO_TICKET, taken_from: None };
}

/// A panic in a callback, as the plugin's hook reported it.
#[derive(Debug)]
pub(in crate::plugin) struct Panic {
    pub(in crate::plugin) text: String,
    pub(in crate::plugin) location: String,
}

thread_local! {
    // Two cells without a destructor, as they are set and read around every callback, and the rest apart.
    pub(super) static INSIDE: Cell<u8> = const { Cell::new(0) };
    pub(super) static CONNECTION: Cell<u64> = const { Cell::new(NO_CONNECTION) };
    /// What the callback is about, if one runs.
    static SPAN: Cell<Option<Span>> = const { Cell::new(None) };
    /// How many publishes of plugins have led to the message that a callback is about.
    pub(super) static HOPS: Cell<u8> = const { Cell::new(0) };
    // The ticket that the question has already, and whose it is; see `with_ticket`.
    pub(super) static GIVEN: Cell<Option<(u64, &'static Tickets)>> = const { Cell::new(None) };
    pub(super) static LATER: RefCell<Later> = const { RefCell::new(Later { requests: Vec::new(), settled: Settled::NOTHING }) };
}

/// What a call into a plugin has left behind besides its answer, if there is anything. One word, as almost always there is
/// not.
pub(in crate::plugin) type Left = Option<Box<Settled>>;

/// Runs a call into a plugin, on a thread of the pool, whose question has a ticket: it is the one that the plugin gets if it
/// takes one.
pub(in crate::plugin) fn with_ticket<T>(ticket: u64, of: &'static Tickets, call: impl FnOnce() -> T) -> T {
    GIVEN.set(Some((ticket, of)));
    let outcome = call();
    GIVEN.set(None);
    outcome
}

/// Runs a call into a plugin. What it asks for meanwhile is done when it has returned.
#[inline]
pub(in crate::plugin) fn inside<T>(entry: Entry, connection: u64, who: &str, call: impl FnOnce() -> T) -> (T, Left) {
    INSIDE.set(if entry.may_defer() { RUNS | MAY_DEFER } else { RUNS });
    CONNECTION.set(connection);
    SPAN.set(Some(Span { entry, who }));
    let result = call();
    CONNECTION.set(NO_CONNECTION);
    SPAN.set(None);
    let touched = INSIDE.replace(0) & TOUCHED != 0;
    (result, if touched { settle() } else { None })
}

/// Runs calls about a message: what plugins publish in them is one publish of a plugin further from its origin.
#[inline]
pub(in crate::plugin) fn because_of<T>(source: Source, calls: impl FnOnce() -> T) -> T {
    HOPS.set(source.hops());
    let result = calls();
    HOPS.set(0);
    result
}

/// How far from its origin is what plugins publish on this thread now.
pub(in crate::plugin) fn hops() -> u8 {
    HOPS.get()
}

/// Runs a call that belongs to another thread's, as far as it is from the origin.
pub(in crate::plugin) fn with_hops<T>(hops: u8, call: impl FnOnce() -> T) -> T {
    HOPS.set(hops);
    let result = call();
    HOPS.set(0);
    result
}

/// Notes that there is something in [`LATER`].
pub(super) fn touch() {
    INSIDE.set(INSIDE.get() | TOUCHED);
}

#[cold]
fn settle() -> Left {
    let Later { requests, settled } = LATER.replace(Later { requests: Vec::new(), settled: Settled::NOTHING });
    for (mailboxes, worker, mail) in requests {
        if let Err(mut refused) = mailboxes.hand_in(worker, mail)
            && !refused.closed
            && !refused.mail.unless_answered(Status::FULL)
        {
            tracing::warn!(worker, "a plugin's request was dropped: the worker's mailbox is full");
        }
    }
    (!settled.panics.is_empty() || settled.ticket != NO_TICKET).then(|| Box::new(settled))
}

/// What a callback is about, for the log.
#[derive(Clone, Copy)]
struct Span {
    entry: Entry,
    /// Client Identifier. It outlives the call.
    who: *const str,
}

/// What the callback that runs on this thread is about; nothing of it if none does.
pub(super) struct About<'a> {
    pub(super) connection: Option<u64>,
    pub(super) callback: Option<&'static str>,
    pub(super) client_id: Option<&'a str>,
}

/// Does something with what the callback that runs on this thread is about.
pub(super) fn about(tell: impl FnOnce(About<'_>)) {
    let span = SPAN.get();
    // SAFETY: `inside` has set it on this thread to a text that its caller borrows, and takes it away when the call is over.
    let client_id = span.map(|span| unsafe { &*span.who }).filter(|client_id| !client_id.is_empty());
    let callback = span.map(|span| span.entry.name());
    tell(About { connection: Some(CONNECTION.get()).filter(|number| *number != NO_CONNECTION), callback, client_id });
}
