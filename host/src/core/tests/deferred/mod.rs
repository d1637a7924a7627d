//! Answers that come later: what waits for them and what does not, and what becomes of those that do not come.

mod again;
mod connect;
mod end;
mod late;
mod packets;
mod swap;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use plugin_api::{Deferrable, HostError, PublishVerdict, Ticket};

use super::net::lock;
use super::*;

/// Tickets that callbacks have taken and not used, oldest first.
pub(super) struct Held<A: Deferrable>(Arc<Mutex<VecDeque<Ticket<A>>>>);

impl<A: Deferrable> Clone for Held<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Deferrable> Held<A> {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    pub(super) fn push(&self, ticket: Ticket<A>) {
        lock(&self.0).push_back(ticket);
    }

    fn len(&self) -> usize {
        lock(&self.0).len()
    }

    fn take(&self) -> Ticket<A> {
        lock(&self.0).pop_front().expect("a callback has taken a ticket")
    }

    /// Answers by the oldest one.
    pub(super) fn answer(&self, net: &mut Net, answer: A) -> Result<(), HostError> {
        let result = self.take().answer(answer);
        net.settle();
        result
    }
}

/// Has a callback of the script answer later.
macro_rules! defer {
    ($net:expr, $callback:ident, $verdict:ident) => {{
        let (held, host) = ($crate::core::tests::deferred::Held::<$verdict>::new(), $net.script().host());
        let into = held.clone();
        $net.script().$callback = Some(Box::new(move |_| {
            let (ticket, later) = host.ticket()?;
            into.push(ticket);
            Ok($verdict::Later(later))
        }));
        held
    }};
}
pub(super) use defer;

/// The plugin answers `handle_publish` later.
fn defer_publish(net: &Net) -> Held<PublishVerdict> {
    defer!(net, publish, PublishVerdict)
}

/// Bytes that all workers hold.
fn held_bytes(net: &Net) -> usize {
    net.cores.iter().map(crate::core::Core::held_bytes).sum()
}

/// Connections that have ended and whose plugins have not all been told.
fn farewells(net: &Net) -> usize {
    net.cores.iter().map(crate::core::Core::farewells).sum()
}
