//! What a handler is shown: views over the packet in the host's buffer, valid for the length of one call.

mod connection;
mod message;
mod notice;
mod subscription;
mod swap;
mod transport;

pub use connection::{Auth, AuthStep, Connect, ConnectionId, ConnectionInfo, DisconnectKind, DisconnectReason};
pub use message::{Ack, AckKind, Info, InfoSender, Publish, TimerId};
pub use notice::{Connected, Deliver, DeliverCause, DropReason, MessageNotice, Origin, RetainChange, Retained};
pub use subscription::{RetainHandling, Subscribe, Subscription, Unsubscribe};
pub use swap::{StateView, Swapped};
pub(crate) use transport::path_only;
pub use transport::{Certificate, HttpRequest, NameKind, Tls, Transport, TransportKind, UnixPeer};
