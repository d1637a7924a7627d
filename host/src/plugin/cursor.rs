//! Where a chain stands while one of its plugins has not answered yet.

use std::sync::Arc;

use super::handlers::Handlers;
use super::instance::Plugin;
use super::outcome::{ConnackOverrides, InfoAction, OwnedMessage};

/// What the chain needs to go on when the answer has come: whose it is, and what the plugins before have said.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// The ticket of the question that is open.
    pub(super) ticket: u64,
    /// The place of the plugin that was asked.
    pub(super) index: usize,
    /// The instance that was asked. It is the one that answers and that is told of the deadline, whatever instance the
    /// connection has by then: it may have gone back to the one before, because of a panic in another callback.
    pub(super) asked: Arc<Plugin>,
    pub(super) so_far: SoFar,
}

/// What has been answered so far, by callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SoFar {
    /// `handle_connect`.
    Connect(ConnackOverrides),
    /// `handle_auth`, and the codes of `handle_subscribe` and `handle_unsubscribe`, which the caller keeps.
    Nothing,
    /// `handle_publish`: what the message has been changed to.
    Publish(Option<OwnedMessage>),
    /// The same, and it is asked again because the plugin at `changer` has changed the topic.
    Again { changed: OwnedMessage, changer: usize },
    /// `handle_info`.
    Info(Vec<InfoAction>),
}

impl Cursor {
    /// The plugin at `index` gives its answer later.
    pub(super) fn new(handlers: &Handlers, index: usize, ticket: u64, so_far: SoFar) -> Box<Self> {
        Box::new(Self { ticket, index, asked: Arc::clone(&handlers.plugins().list[index]), so_far })
    }

    /// The ticket of the question that is open. No two are the same.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.ticket
    }

    /// What it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let message = |message: &OwnedMessage| {
            message.topic.capacity() + message.payload.capacity() + message.properties.capacity()
        };
        let so_far = match &self.so_far {
            SoFar::Nothing => 0,
            SoFar::Connect(overrides) => {
                overrides.client_id.as_ref().map_or(0, String::len) + overrides.properties.as_bytes().len()
            }
            SoFar::Publish(changed) => changed.as_ref().map_or(0, message),
            SoFar::Again { changed, .. } => message(changed),
            SoFar::Info(actions) => actions.iter().map(|action| size_of_val(action) + message_of(action)).sum(),
        };
        size_of::<Self>() + so_far
    }
}

impl PartialEq for Cursor {
    /// No two questions have one ticket.
    fn eq(&self, other: &Self) -> bool {
        self.ticket == other.ticket
    }
}

impl Eq for Cursor {}

fn message_of(action: &InfoAction) -> usize {
    match action {
        InfoAction::Publish(message) => message.topic.len() + message.payload.len() + message.properties.len(),
        InfoAction::Disconnect { properties, .. } => properties.as_bytes().len(),
        InfoAction::Stop { reason } => reason.len(),
    }
}
