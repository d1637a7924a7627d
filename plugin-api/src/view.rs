//! What a handler is shown: views over the packet in the host's buffer, valid for the length of one call.

mod connection;
mod message;
mod subscription;

pub use connection::{Auth, AuthStep, Connect, ConnectionId, ConnectionInfo, DisconnectKind, DisconnectReason};
pub use message::{Ack, AckKind, Info, InfoSender, Publish};
pub use subscription::{RetainHandling, Subscribe, Subscription, Unsubscribe};
