//! The `#[handler]` attribute of `plugin-api`. Use it through that crate, whose documentation describes it.

mod callbacks;
mod config;
mod expand;
mod futures;
#[cfg(test)]
mod tests;

use proc_macro::TokenStream;
use syn::{DeriveInput, Error, ItemImpl};

/// Stands in front of `impl Handler for …` and writes its `CALLBACKS`: the set of callbacks that the block implements.
///
/// The host never calls a callback that is left out. Rust itself cannot see whether a method with a default was
/// overridden, which is why this attribute exists.
///
/// ```
/// use plugin_api::{Callback, ConnectionInfo, Error, Handler, Host, Publish, PublishVerdict, handler};
///
/// struct Deaf;
///
/// #[handler]
/// impl Handler for Deaf {
///     type Connection = ();
///
///     fn init(_: Host, _: &str) -> Result<Self, Error> {
///         Ok(Deaf)
///     }
///     fn new_connection(&self, _: &ConnectionInfo<'_>) {}
///     fn handle_publish(&self, _: &mut (), _: &Publish<'_>) -> Result<PublishVerdict, Error> {
///         Ok(PublishVerdict::Handled)
///     }
/// }
///
/// assert!(Deaf::CALLBACKS.iter().eq([Callback::Publish]));
/// ```
///
/// # Callbacks that block
///
/// `#[blocking]` on a callback, or `#[handler(blocking)]` for all of them, says that it may block: the host calls it on a
/// thread of a pool.
/// ```
/// # use plugin_api::*;
/// # struct Slow;
/// #[handler]
/// impl Handler for Slow {
///     type Connection = ();
/// #     fn init(_: Host, _: &str) -> Result<Self, Error> { Ok(Slow) }
/// #     fn new_connection(&self, _: &ConnectionInfo<'_>) {}
///     #[blocking]
///     fn handle_connect(&self, _: &mut (), _: &Connect<'_>) -> Result<ConnectVerdict, Error> {
///         std::fs::read("allowed")?; // a slow disk
///         Ok(ConnectVerdict::accept())
///     }
/// }
/// assert!(Slow::BLOCKING.contains(Callback::Connect));
/// ```
/// `handle_deliver` cannot block:
/// ```compile_fail
/// # use plugin_api::*;
/// # struct Slow;
/// #[handler]
/// impl Handler for Slow {
///     type Connection = ();
/// #     fn init(_: Host, _: &str) -> Result<Self, Error> { Ok(Slow) }
/// #     fn new_connection(&self, _: &ConnectionInfo<'_>) {}
///     #[blocking]
///     fn handle_deliver(&self, _: &mut (), _: &Deliver<'_>) -> Result<DeliverVerdict, Error> {
///         Ok(DeliverVerdict::Send)
///     }
/// }
/// ```
///
/// # Callbacks that wait
///
/// With the feature `async` of plugin-api, `handle_connect`, `handle_auth`, `handle_publish`, `handle_subscribe` and
/// `handle_unsubscribe` can be `async fn`, with other arguments:
/// ```
/// # use plugin_api::*;
/// # struct Patient;
/// # async fn ask(_: &str) -> Result<bool, Error> { Ok(true) }
/// use std::sync::Arc;
///
/// #[handler]
/// impl Handler for Patient {
///     type Connection = u32;
/// #     fn init(_: Host, _: &str) -> Result<Self, Error> { Ok(Patient) }
/// #     fn new_connection(&self, _: &ConnectionInfo<'_>) -> u32 { 0 }
///     async fn handle_connect(
///         self: Arc<Self>,
///         mut connection: Lent<u32>,
///         connect: owned::Connect,
///     ) -> Result<ConnectVerdict, Error> {
///         *connection += 1;
///         if !ask(connect.client_id()).await? {
///             return Ok(ConnectVerdict::reject(ReasonCode::NOT_AUTHORIZED));
///         }
///         Ok(ConnectVerdict::accept())
///     }
/// }
/// ```
/// It cannot borrow, since it outlives the call:
/// ```compile_fail
/// # use plugin_api::*;
/// # struct Patient;
/// #[handler]
/// impl Handler for Patient {
///     type Connection = ();
/// #     fn init(_: Host, _: &str) -> Result<Self, Error> { Ok(Patient) }
/// #     fn new_connection(&self, _: &ConnectionInfo<'_>) {}
///     async fn handle_connect(&self, _: &mut (), _: &Connect<'_>) -> Result<ConnectVerdict, Error> {
///         Ok(ConnectVerdict::accept())
///     }
/// }
/// ```
/// Its future goes to another thread, so that it has to be `Send`:
/// ```compile_fail
/// # use plugin_api::*;
/// # struct Patient;
/// #[handler]
/// impl Handler for Patient {
///     type Connection = ();
/// #     fn init(_: Host, _: &str) -> Result<Self, Error> { Ok(Patient) }
/// #     fn new_connection(&self, _: &ConnectionInfo<'_>) {}
///     async fn handle_connect(
///         self: std::sync::Arc<Self>,
///         _: Lent<()>,
///         _: owned::Connect,
///     ) -> Result<ConnectVerdict, Error> {
///         let cell = std::rc::Rc::new(1);
///         std::future::ready(()).await;
///         Ok(if *cell == 1 { ConnectVerdict::accept() } else { ConnectVerdict::reject(ReasonCode::NOT_AUTHORIZED) })
///     }
/// }
/// ```
/// Other callbacks cannot be asynchronous:
/// ```compile_fail
/// # use plugin_api::*;
/// # struct Patient;
/// #[handler]
/// impl Handler for Patient {
///     type Connection = ();
/// #     fn init(_: Host, _: &str) -> Result<Self, Error> { Ok(Patient) }
/// #     fn new_connection(&self, _: &ConnectionInfo<'_>) {}
///     async fn handle_puback(&self, _: &mut (), _: &Ack<'_>) {}
/// }
/// ```
///
/// # Mistakes
///
/// A callback's name that does not exist is an error, as is a block without the attribute:
/// ```compile_fail
/// # use plugin_api::*;
/// # struct Deaf;
/// #[handler]
/// impl Handler for Deaf {
///     type Connection = ();
///     fn init(_: Host, _: &str) -> Result<Self, Error> { Ok(Deaf) }
///     fn new_connection(&self, _: &ConnectionInfo<'_>) {}
///     fn handle_published(&self) {} // no callback `handle_published`; did you mean `handle_publish`?
/// }
/// ```
/// ```compile_fail
/// # use plugin_api::*;
/// # struct Deaf;
/// impl Handler for Deaf { // missing: `CALLBACKS`
///     type Connection = ();
///     fn init(_: Host, _: &str) -> Result<Self, Error> { Ok(Deaf) }
///     fn new_connection(&self, _: &ConnectionInfo<'_>) {}
/// }
/// ```
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = syn::parse_macro_input!(arguments as proc_macro2::TokenStream);
    let block = syn::parse_macro_input!(item as ItemImpl);
    let has = expand::Features { asynchronous: cfg!(feature = "async"), config: cfg!(feature = "config") };
    expand::expand(&arguments, block, has).unwrap_or_else(Error::into_compile_error).into()
}

/// Stands in front of a struct or an enum that is a handler's configuration, or a part of it: it can be read from JSON, unknown
/// keys are a mistake, and there is a JSON Schema of it. With the feature `config` of plugin-api, whose module `config` describes
/// it.
///
/// The attributes of serde and schemars work on it and on its fields:
/// ```
/// #[plugin_api::config]
/// struct Config {
///     #[serde(default)]
///     topics: Vec<String>,
/// }
/// let error = plugin_api::config::read::<Config>(r#"{"topcs": []}"#).err().map(|error| error.to_string());
/// assert!(error.is_some_and(|error| error.contains("unknown field `topcs`, expected `topics`")));
/// ```
/// What is flattened has to be a struct with this attribute, so that it is known which keys there may be:
/// ```compile_fail
/// #[plugin_api::config]
/// struct Config {
///     #[serde(flatten)]
///     others: std::collections::BTreeMap<String, String>,
/// }
/// ```
#[proc_macro_attribute]
pub fn config(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = syn::parse_macro_input!(arguments as proc_macro2::TokenStream);
    let item = syn::parse_macro_input!(item as DeriveInput);
    config::expand(&arguments, item).unwrap_or_else(Error::into_compile_error).into()
}
