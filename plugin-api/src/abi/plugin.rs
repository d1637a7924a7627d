//! A plugin's table of functions.

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::RStr;

use super::{
    Opaque, RawAck, RawAuth, RawConnect, RawConnected, RawConnectionInfo, RawDeliver, RawDisconnect, RawHost, RawInfo,
    RawMessageNotice, RawPublish, RawRetained, RawState, RawSubscribe, RawSwapped, RawUnsubscribe, Sink, Verdict,
};

/// A plugin. Functions that take a connection's state are called by one thread at a time for each state; all others may
/// be called by several threads at once. An instance outlives the states that it made.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginVtRef, prefix_fields = PluginVtPrefix)))]
#[sabi(missing_field(option))]
pub struct PluginVt {
    /// Name by which logs and commands address it.
    pub name: RStr<'static>,
    /// The plugin's own version.
    pub version: RStr<'static>,
    /// [`FLAG_UNWINDS`] and [`FLAG_SWAP_DISCONNECTS`].
    pub flags: u64,
    /// The callbacks it implements: one bit for each [`Callback`](crate::Callback).
    pub callbacks: u64,
    /// Those of them that may block: the host calls them on threads of a pool.
    pub blocking: u64,
    /// Makes an instance from the host's services and a JSON text. Null: refused, the text in the sink says why; its
    /// piece carries the number of [`Verdict::ERROR`] or [`Verdict::PANICKED`].
    pub instance_new: unsafe extern "C" fn(RawHost, RStr<'_>, Sink<'_>) -> Opaque,
    /// Tells an instance, once, that it is about to be dropped.
    pub instance_stop: unsafe extern "C" fn(Opaque, Sink<'_>) -> Verdict,
    /// Drops an instance.
    pub instance_drop: unsafe extern "C" fn(Opaque, Sink<'_>) -> Verdict,
    /// Makes the state of a connection. Null: it panicked.
    pub connection_new: unsafe extern "C" fn(Opaque, &RawConnectionInfo<'_>, Sink<'_>) -> Opaque,
    /// Drops the state of a connection.
    pub connection_drop: unsafe extern "C" fn(Opaque, Sink<'_>) -> Verdict,
    /// `handle_connect`: instance, state, view, sink; the same order in all that follow.
    pub connect: unsafe extern "C" fn(Opaque, Opaque, &RawConnect<'_>, Sink<'_>) -> Verdict,
    /// `handle_auth`.
    pub auth: unsafe extern "C" fn(Opaque, Opaque, &RawAuth<'_>, Sink<'_>) -> Verdict,
    /// `handle_publish`.
    pub publish: unsafe extern "C" fn(Opaque, Opaque, &RawPublish<'_>, Sink<'_>) -> Verdict,
    /// `handle_subscribe`.
    pub subscribe: unsafe extern "C" fn(Opaque, Opaque, &RawSubscribe<'_>, Sink<'_>) -> Verdict,
    /// `handle_unsubscribe`.
    pub unsubscribe: unsafe extern "C" fn(Opaque, Opaque, &RawUnsubscribe<'_>, Sink<'_>) -> Verdict,
    /// `handle_puback`.
    pub puback: unsafe extern "C" fn(Opaque, Opaque, &RawAck, Sink<'_>) -> Verdict,
    /// `handle_info`.
    pub info: unsafe extern "C" fn(Opaque, Opaque, &RawInfo<'_>, Sink<'_>) -> Verdict,
    /// `handle_disconnect`.
    pub disconnect: unsafe extern "C" fn(Opaque, Opaque, &RawDisconnect<'_>, Sink<'_>) -> Verdict,
    /// `handle_session_expired`: instance, Client Identifier, the last exported state, sink.
    pub session_expired: unsafe extern "C" fn(Opaque, RStr<'_>, Option<&RawState<'_>>, Sink<'_>) -> Verdict,
    /// `handle_connected`.
    pub connected: unsafe extern "C" fn(Opaque, Opaque, &RawConnected<'_>, Sink<'_>) -> Verdict,
    /// `handle_deliver`.
    pub deliver: unsafe extern "C" fn(Opaque, Opaque, &RawDeliver<'_>, Sink<'_>) -> Verdict,
    /// `handle_message_dropped`: instance, view, sink; the same order in the next three.
    pub message_dropped: unsafe extern "C" fn(Opaque, &RawMessageNotice<'_>, Sink<'_>) -> Verdict,
    /// `handle_message_acknowledged`.
    pub message_acknowledged: unsafe extern "C" fn(Opaque, &RawMessageNotice<'_>, Sink<'_>) -> Verdict,
    /// `handle_message_expired`.
    pub message_expired: unsafe extern "C" fn(Opaque, &RawMessageNotice<'_>, Sink<'_>) -> Verdict,
    /// `handle_retained`.
    pub retained: unsafe extern "C" fn(Opaque, &RawRetained<'_>, Sink<'_>) -> Verdict,
    /// `handle_event`.
    pub event: unsafe extern "C" fn(Opaque, &RawInfo<'_>, Sink<'_>) -> Verdict,
    /// `handle_config`: instance, JSON, sink.
    pub config: unsafe extern "C" fn(Opaque, RStr<'_>, Sink<'_>) -> Verdict,
    /// `health`: [`Verdict::OK`] or [`Verdict::ERROR`], with a text in the sink.
    pub health: unsafe extern "C" fn(Opaque, Sink<'_>) -> Verdict,
    /// `handle_swapped`: instance, state, view, sink.
    pub swapped: unsafe extern "C" fn(Opaque, Opaque, &RawSwapped<'_>, Sink<'_>) -> Verdict,
    /// Writes the state of a connection into the sink, as [`AnswerKey::STATE`](super::AnswerKey::STATE): instance, state,
    /// sink.
    pub export_state: unsafe extern "C" fn(Opaque, Opaque, Sink<'_>) -> Verdict,
    /// Makes the state of a connection from one that was exported. Null: the text in the sink says why, with the number of
    /// [`Verdict::ERROR`] or [`Verdict::PANICKED`].
    pub import_state: unsafe extern "C" fn(Opaque, &RawSwapped<'_>, &RawState<'_>, Sink<'_>) -> Opaque,
    /// Writes the plugin's own state into the sink.
    pub export_plugin_state: unsafe extern "C" fn(Opaque, Sink<'_>) -> Verdict,
    /// Takes over the plugin's own state.
    pub import_plugin_state: unsafe extern "C" fn(Opaque, &RawState<'_>, Sink<'_>) -> Verdict,
    /// Says that nobody waits for an answer by this ticket any more: instance, ticket, sink.
    #[sabi(last_prefix_field)]
    pub cancelled: unsafe extern "C" fn(Opaque, u64, Sink<'_>) -> Verdict,
    /// Since 1.2. Looks at a configuration before there is an instance: JSON, sink. [`Verdict::ERROR`]: it cannot be used, and
    /// the text in the sink says where and why.
    pub config_check: unsafe extern "C" fn(RStr<'_>, Sink<'_>) -> Verdict,
    /// Since 1.2. Writes the JSON Schema of the configuration into the sink, as text; nothing if there is none.
    pub config_schema: unsafe extern "C" fn(Sink<'_>) -> Verdict,
}

/// The library was built so that a panic unwinds, and can be caught.
pub const FLAG_UNWINDS: u64 = 1;

/// A connection whose state cannot be handed over to this plugin is disconnected; otherwise it gets a fresh one.
pub const FLAG_SWAP_DISCONNECTS: u64 = 2;

impl RootModule for PluginVtRef {
    abi_stable::declare_root_module_statics! {PluginVtRef}
    const BASE_NAME: &'static str = "mqtt_handler";
    const NAME: &'static str = "mqtt_handler";
    const VERSION_STRINGS: VersionStrings = abi_stable::package_version_strings!();
}
