//! What a call into a plugin leaves behind, and what is known on its thread while it lasts.
#![allow(unsafe_code)] // The Client Identifier is borrowed for the length of the call.

use std::cell::{Cell, RefCell};

use plugin_api::Callback;
use plugin_api::abi::Status;

use super::super::stats::Entry;
use super::super::tickets::{NO_TICKET, Tickets};
use super::NO_CONNECTION;
use crate::core::mail::Mail;
use crate::core::mailbox::Mailboxes;
use crate::message::Source;

/// Bits of [`RUNS`]: which callback runs, as its number and one,
const ENTRY: u8 = 0x7F;
/// and whether there is something in [`LATER`].
const TOUCHED: u8 = 0x80;

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
    // What is written around every callback has no destructor, and is as little as can be; the rest is apart.
    /// What runs on this thread, as bits. 0: nothing.
    static RUNS: Cell<u8> = const { Cell::new(0) };
    /// Whose connection it is about. It is what it was, and means nothing, when nothing runs.
    static CONNECTION: Cell<u64> = const { Cell::new(NO_CONNECTION) };
    /// Whose Client Identifier that is: likewise, and then it may be gone.
    static WHO: Cell<*const str> = const { Cell::new(std::ptr::from_ref("")) };
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
pub(in crate::plugin) fn inside<T>(entry: Entry, connection: u64, who: &str, call: impl FnOnce() -> T) -> (T, Left) {
    let (result, touched) = plainly_inside(entry, connection, who, call);
    (result, if touched { settle() } else { None })
}

/// The same, but for what is done when it has returned: if the answer is `true`, [`settle`] has to be called.
#[inline(always)] // It is what there is of a callback on the way of a message.
pub(in crate::plugin) fn plainly_inside<T>(
    entry: Entry,
    connection: u64,
    who: &str,
    call: impl FnOnce() -> T,
) -> (T, bool) {
    CONNECTION.set(connection);
    WHO.set(who);
    RUNS.set(entry.number() + 1);
    let result = call();
    (result, RUNS.replace(0) & TOUCHED != 0)
}

/// What runs on this thread.
fn entry() -> Option<Entry> {
    (RUNS.get() & ENTRY).checked_sub(1).map(Entry::from_number)
}

/// Whether a callback runs on this thread.
pub(super) fn is_inside() -> bool {
    RUNS.get() != 0
}

/// Whether one runs that may answer later.
pub(super) fn may_defer() -> bool {
    entry().is_some_and(Entry::may_defer)
}

/// The connection that the callback on this thread is about; [`NO_CONNECTION`] if there is none.
pub(super) fn connection() -> u64 {
    if is_inside() { CONNECTION.get() } else { NO_CONNECTION }
}

/// What `of` makes of the Client Identifier of a connection's session, if the callback on this thread is about that connection
/// and it has been let in.
pub(super) fn session_of<T>(connection: u64, of: impl FnOnce(&str) -> T) -> Option<T> {
    let is_let_in = |callback| !matches!(callback, Callback::Connect | Callback::Auth);
    entry().and_then(Entry::callback).filter(|callback| is_let_in(*callback))?;
    let mut made = None;
    about(|about| {
        if about.connection == Some(connection) {
            made = about.client_id.map(of);
        }
    });
    made
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
    RUNS.set(RUNS.get() | TOUCHED);
}

/// Does what a call into a plugin has asked for.
#[cold]
pub(in crate::plugin) fn settle() -> Left {
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

/// What the callback that runs on this thread is about; nothing of it if none does.
pub(super) struct About<'a> {
    pub(super) connection: Option<u64>,
    pub(super) callback: Option<&'static str>,
    pub(super) client_id: Option<&'a str>,
}

/// Does something with what the callback that runs on this thread is about.
pub(super) fn about(tell: impl FnOnce(About<'_>)) {
    let entry = entry();
    // SAFETY: while something runs it is a text that the caller of `plainly_inside` on this thread borrows.
    let client_id = entry.map(|_| unsafe { &*WHO.get() }).filter(|client_id| !client_id.is_empty());
    let connection = Some(connection()).filter(|number| *number != NO_CONNECTION);
    tell(About { connection, callback: entry.map(Entry::name), client_id });
}
