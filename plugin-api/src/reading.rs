//! What is made of a plugin's answers: from the pieces in its sink to an outcome that can be acted on. The host and the tests of
//! authors (the module `testing`) read them with the same code, so that what an author has tested is what the host does.
//!
//! Not part of the API: it changes with the host.
//!
//! **A plugin that cannot answer refuses.** An error is a refusal with 0x80; an answer that cannot be read is [`Failed`], which
//! closes the connection; a Reason Code that does not fit where it goes is sent as 0x80.
#![allow(missing_docs, reason = "it is the host's; what is not said here is said where it is used")]

mod answer;
mod fold;
mod outcome;
mod packets;
mod rules;

pub use self::answer::{Answer, MessageView, TEXT_BYTES_MAX, Unreadable, checked, unknown};
pub use self::fold::{
    DeliverAnswer, Faults, PublishAnswer, fold_auth, fold_codes, fold_connect, fold_info, is_fatal, is_later,
    message_of, read_deliver, read_publish, refused,
};
pub use self::outcome::{
    AuthOutcome, ChangedMessage, ConnackOverrides, ConnectOutcome, DeliverOutcome, Failed, InfoAction, InfoOutcome,
    OwnedMessage, PublishOutcome, SubscribeOutcome,
};
pub use self::packets::{Packet, publish_remaining_length, variable_byte_integer_bytes};
pub use self::rules::{Place, disconnection, properties};
