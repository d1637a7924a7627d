//! Plugins: loading them, asking them, and what they may ask of the host.
//!
//! The core sees a [`Chain`] and, for each connection, its [`Handlers`]. It asks with requests that borrow from the packet
//! and gets outcomes that are checked: whatever a plugin answers, an outcome can be acted on. How several plugins' answers
//! become one is in `chain.rs`; what an answer may contain, and what comes of one
//! plugin's, is in [`plugin_api::reading`], which the tests of authors read answers with as well.
//!
//! Where `unsafe` is, and why:
//! - `loader.rs` maps a library and trusts its table of functions, after the checks that are described there;
//! - `instance.rs` and `call.rs` call those functions; `enter.rs` calls those that get the state of a connection, and pairs it
//!   with the instance that made it; `handover.rs` calls those that hand state over;
//! - `transport.rs` finds what it has shown again;
//! - `services.rs` and `services/` are called by plugins, and turn the pointers that they get back into references.
//!
//! **A plugin that cannot answer refuses.** A panic, a state that panicked before, an answer that cannot be read: the
//! outcome is `Failed`, the reason is in the log with plugin, callback and client, and the core closes the connection.

mod admit;
mod bequest;
mod c;
mod call;
mod chain;
mod cursor;
mod deliver;
mod enter;
mod error;
mod faults;
mod generation;
mod handlers;
mod handover;
mod info;
mod instance;
mod loader;
mod migrate;
mod notices;
mod offload;
mod outcome;
mod owned;
mod pool;
mod publish;
mod record;
mod request;
mod services;
mod stats;
mod subscriptions;
#[cfg(test)]
mod tests;
mod tickets;
mod transport;
mod watch;

pub(crate) use call::Unable;
pub use chain::Chain;
pub use cursor::Cursor;
pub use deliver::{Cause, DeliverRequest};
pub use error::LoadError;
pub use generation::{Busy, Flip, Permissions, Plan, Trial};
pub use handlers::{Handlers, PluginSet};
pub use instance::Plugin;
pub use loader::{Origin, Prepared, mapped};
pub use migrate::Conformed;
pub use notices::{ConnectedNotice, Fate, LastStates, MessageNotice};
pub use outcome::{
    AuthOutcome, ChangedMessage, ConnackOverrides, ConnectOutcome, DeliverOutcome, Failed, InfoAction, InfoOutcome,
    OwnedMessage, PublishOutcome, SubscribeOutcome,
};
pub use plugin_api::{AckKind, AuthStep, Callback, Callbacks};
pub(crate) use record::{Configs, dry_run};
pub use record::{DryRun, Recorder, Recording, Replay, ReplayError, replay};
pub use request::{
    AuthRequest, ConnectRequest, ConnectionInfo, DisconnectReason, InfoRequest, PublishFields, PublishRequest,
    SubscribeItem, SwapRequest, WillRequest,
};
pub use services::{Asker, MetricSample, MetricValue, Pieces, Services, TimerRoom};
pub(crate) use services::{GateState, KnownKeys};
pub use stats::{CallbackStats, PluginStats};
pub use tickets::Answered;
pub use transport::{Transport, show};
pub use watch::Watch;
