//! A plugin for plugin-api 1.0.0 as somebody may have patched it: `flags` of its table of functions has 32 bits.
#![allow(unsafe_code)] // The library's symbol is written by hand.

use abi_stable::StableAbi;
use abi_stable::library::{CheckTypeLayout, LibHeader, RootModule, RootModuleError, RootModuleResult};
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RResult, RStr};
use plugin_api::abi::{
    Opaque, RawAck, RawAuth, RawConnect, RawConnected, RawConnectionInfo, RawDeliver, RawDisconnect, RawHost, RawInfo,
    RawMessageNotice, RawPublish, RawRetained, RawState, RawSubscribe, RawSwapped, RawUnsubscribe, Sink, Verdict,
};

/// The table of functions, as in plugin-api but for one type.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginVtRef, prefix_fields = PluginVtPrefix)))]
#[sabi(missing_field(option))]
#[allow(missing_docs)] // See plugin-api.
pub struct PluginVt {
    pub name: RStr<'static>,
    pub version: RStr<'static>,
    pub flags: u32,
    pub callbacks: u64,
    pub blocking: u64,
    pub instance_new: unsafe extern "C" fn(RawHost, RStr<'_>, Sink<'_>) -> Opaque,
    pub instance_stop: unsafe extern "C" fn(Opaque, Sink<'_>) -> Verdict,
    pub instance_drop: unsafe extern "C" fn(Opaque, Sink<'_>) -> Verdict,
    pub connection_new: unsafe extern "C" fn(Opaque, &RawConnectionInfo<'_>, Sink<'_>) -> Opaque,
    pub connection_drop: unsafe extern "C" fn(Opaque, Sink<'_>) -> Verdict,
    pub connect: unsafe extern "C" fn(Opaque, Opaque, &RawConnect<'_>, Sink<'_>) -> Verdict,
    pub auth: unsafe extern "C" fn(Opaque, Opaque, &RawAuth<'_>, Sink<'_>) -> Verdict,
    pub publish: unsafe extern "C" fn(Opaque, Opaque, &RawPublish<'_>, Sink<'_>) -> Verdict,
    pub subscribe: unsafe extern "C" fn(Opaque, Opaque, &RawSubscribe<'_>, Sink<'_>) -> Verdict,
    pub unsubscribe: unsafe extern "C" fn(Opaque, Opaque, &RawUnsubscribe<'_>, Sink<'_>) -> Verdict,
    pub puback: unsafe extern "C" fn(Opaque, Opaque, &RawAck, Sink<'_>) -> Verdict,
    pub info: unsafe extern "C" fn(Opaque, Opaque, &RawInfo<'_>, Sink<'_>) -> Verdict,
    pub disconnect: unsafe extern "C" fn(Opaque, Opaque, &RawDisconnect<'_>, Sink<'_>) -> Verdict,
    pub session_expired: unsafe extern "C" fn(Opaque, RStr<'_>, Option<&RawState<'_>>, Sink<'_>) -> Verdict,
    pub connected: unsafe extern "C" fn(Opaque, Opaque, &RawConnected<'_>, Sink<'_>) -> Verdict,
    pub deliver: unsafe extern "C" fn(Opaque, Opaque, &RawDeliver<'_>, Sink<'_>) -> Verdict,
    pub message_dropped: unsafe extern "C" fn(Opaque, &RawMessageNotice<'_>, Sink<'_>) -> Verdict,
    pub message_acknowledged: unsafe extern "C" fn(Opaque, &RawMessageNotice<'_>, Sink<'_>) -> Verdict,
    pub message_expired: unsafe extern "C" fn(Opaque, &RawMessageNotice<'_>, Sink<'_>) -> Verdict,
    pub retained: unsafe extern "C" fn(Opaque, &RawRetained<'_>, Sink<'_>) -> Verdict,
    pub event: unsafe extern "C" fn(Opaque, &RawInfo<'_>, Sink<'_>) -> Verdict,
    pub config: unsafe extern "C" fn(Opaque, RStr<'_>, Sink<'_>) -> Verdict,
    pub health: unsafe extern "C" fn(Opaque, Sink<'_>) -> Verdict,
    pub swapped: unsafe extern "C" fn(Opaque, Opaque, &RawSwapped<'_>, Sink<'_>) -> Verdict,
    pub export_state: unsafe extern "C" fn(Opaque, Opaque, Sink<'_>) -> Verdict,
    pub import_state: unsafe extern "C" fn(Opaque, &RawSwapped<'_>, &RawState<'_>, Sink<'_>) -> Opaque,
    pub export_plugin_state: unsafe extern "C" fn(Opaque, Sink<'_>) -> Verdict,
    pub import_plugin_state: unsafe extern "C" fn(Opaque, &RawState<'_>, Sink<'_>) -> Verdict,
    #[sabi(last_prefix_field)]
    pub cancelled: unsafe extern "C" fn(Opaque, u64, Sink<'_>) -> Verdict,
}

impl RootModule for PluginVtRef {
    abi_stable::declare_root_module_statics! {PluginVtRef}
    const BASE_NAME: &'static str = "mqtt_handler";
    const NAME: &'static str = "mqtt_handler";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}

extern "C" fn root() -> RootModuleResult {
    // The host compares the types first, and comes no further.
    RResult::RErr(RootModuleError::Unwound)
}

/// The library's symbol.
// SAFETY: the name is that of abi_stable's root module, and the value has its type.
#[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
pub static HEADER: LibHeader =
    // SAFETY: `root` returns no table at all.
    unsafe { LibHeader::from_constructor::<PluginVtRef>(root, CheckTypeLayout::Yes) };
