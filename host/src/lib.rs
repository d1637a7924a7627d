//! An MQTT broker (3.1, 3.1.1 and 5.0) whose logic is in handlers: shared libraries, or Rust types that are linked in.
//!
//! [`Server::builder`] says where to listen and which handlers decide; [`Builder::start`] starts the workers and returns
//! a [`ServerHandle`]. The program `host` is a thin shell over it. Handlers are written against the `plugin-api` crate.
//!
//! ```
//! use plugin_api::{ConnectionInfo, Error, Handler, Host, Publish, PublishVerdict, ReasonCode, handler};
//!
//! /// Nobody publishes to `internal/`.
//! struct Guard;
//!
//! #[handler]
//! impl Handler for Guard {
//!     type Connection = ();
//!
//!     fn init(_host: Host, _config: &str) -> Result<Self, Error> {
//!         Ok(Guard)
//!     }
//!
//!     fn new_connection(&self, _info: &ConnectionInfo<'_>) {}
//!
//!     fn handle_publish(&self, _: &mut (), publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
//!         if publish.topic().starts_with("internal/") {
//!             return Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED));
//!         }
//!         Ok(PublishVerdict::Forward)
//!     }
//! }
//!
//! # fn main() -> Result<(), host::Error> {
//! let server = host::Server::builder().listen("127.0.0.1:0").handler::<Guard>("guard", "{}").start()?;
//! println!("clients may connect to {}", server.local_addr());
//! server.stop()
//! # }
//! ```
//!
//! How it is built, and where to change what, is in `host/ARCHITECTURE.md` of the repository.

pub mod bench;
pub mod clock;
pub mod codec;
pub mod config;
pub mod control;
pub mod core;
pub mod data_dir;
pub mod durable;
mod error;
mod io;
pub mod limits;
pub mod listener;
pub mod message;
mod packed;
pub mod plugin;
pub mod privileges;
pub mod proxy;
mod report;
pub mod router;
mod server;
pub mod store;
mod swap;
mod sync;
mod unix_socket;
pub mod upgrade;
pub mod ws;

/// The version of this program.
#[must_use]
pub fn version() -> &'static str {
    const BEFORE: &str = "MQTT host, version ";
    // In one piece with what stands before it, by which tests find it in the program, to make another version of that.
    let whole = std::hint::black_box(concat!("MQTT host, version ", env!("CARGO_PKG_VERSION")));
    &whole[BEFORE.len()..]
}

pub use durable::store::Durability;
pub use error::Error;
pub use io::passed::PassedSocket;
pub use limits::Limits;
pub use listener::{ClientRules, ListenerConfig};
pub use plugin::{MetricSample, MetricValue};
pub use server::{Builder, Change, Door, ReloadReport, Server, ServerHandle};
pub use swap::{InstanceStatus, PluginStatus, Role, Status, SwapError, SwapReport, SwapRequest, SwapStep};

/// The examples of the repository's README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
