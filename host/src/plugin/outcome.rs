//! What the chain decided. Everything in an outcome is checked: the core can act on it as it is.
//!
//! The types are those that [`plugin_api::reading`] makes of one plugin's answer.

pub use plugin_api::reading::{ChangedMessage, ConnackOverrides, DeliverOutcome, Failed, InfoAction, OwnedMessage};

use super::cursor::Cursor;

/// May a client connect?
pub type ConnectOutcome = plugin_api::reading::ConnectOutcome<Box<Cursor>>;

/// How a step of an authentication exchange ended.
pub type AuthOutcome = plugin_api::reading::AuthOutcome<Box<Cursor>>;

/// What becomes of a message?
pub type PublishOutcome = plugin_api::reading::PublishOutcome<Box<Cursor>>;

/// How asking about SUBSCRIBE or UNSUBSCRIBE ended.
pub type SubscribeOutcome = plugin_api::reading::SubscribeOutcome<Box<Cursor>>;

/// How `handle_info` ended.
pub type InfoOutcome = plugin_api::reading::InfoOutcome<Box<Cursor>>;
