#![doc = include_str!("../README.md")]

// `#[handler]` writes paths that begin with `::plugin_api`, in this crate's own tests too.
extern crate self as plugin_api;

pub mod abi;
mod answer;
mod ask;
mod callbacks;
#[cfg(feature = "config")]
pub mod config;
mod export;
#[cfg(any(doc, doctest))]
pub mod guide;
mod handler;
mod host;
mod message;
mod metrics;
mod on_behalf;
pub mod owned;
mod properties;
mod qos;
mod query;
#[doc(hidden)]
pub mod reading;
mod reason_code;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod ticket;
pub mod topic;
mod verdict;
mod view;

pub use ask::{Answer, Asking};
pub use callbacks::{Callback, Callbacks};
#[cfg(feature = "async")]
pub use export::{FirstPoll, Lent, Task};
pub use handler::{Error, Handler, State, SwapRule};
pub use host::{Host, HostError, InfoTarget, Level};
pub use message::Message;
pub use metrics::{Counter, Gauge, Histogram};
pub use on_behalf::{NewSubscription, Reauthorised};
#[cfg(feature = "config")]
pub use plugin_api_macros::config;
pub use plugin_api_macros::handler;
pub use properties::{Properties, PropertiesBuf, Property, PropertyError};
pub use qos::QoS;
pub use query::{ConnectionRow, Cursor, Page, Query, RetainedRow, SessionRow, SubscriptionRow};
pub use reason_code::ReasonCode;
pub use store::Store;
pub use ticket::{Deferrable, Later, Ticket};
pub use verdict::{
    Accept, AuthVerdict, ConnectVerdict, DeliverVerdict, Disconnect, InfoAction, PublishVerdict, Reject,
    SubscribeVerdict, UnsubscribeVerdict,
};
pub use view::{
    Ack, AckKind, Auth, AuthStep, Certificate, Connect, Connected, ConnectionId, ConnectionInfo, Deliver, DeliverCause,
    DisconnectKind, DisconnectReason, DropReason, HttpRequest, Info, InfoSender, MessageNotice, NameKind, Origin,
    Publish, RetainChange, RetainHandling, Retained, StateView, Subscribe, Subscription, Swapped, TimerId, Tls,
    Transport, TransportKind, UnixPeer, Unsubscribe,
};

#[doc(hidden)]
pub use export::private as __private;
