//! A plugin for plugin-api 2.0.0.
#![allow(unsafe_code)] // The library's symbol is written by hand.

use abi_stable::StableAbi;
use abi_stable::library::{CheckTypeLayout, LibHeader, RootModule, RootModuleResult};
use abi_stable::marker_type::ErasedPrefix;
use abi_stable::prefix_type::{PrefixRefTrait, WithMetadata};
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RResult, RStr};

/// A table of functions as it may look one day.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginVtRef, prefix_fields = PluginVtPrefix)))]
#[sabi(missing_field(option))]
pub struct PluginVt {
    /// All that is left of it.
    #[sabi(last_prefix_field)]
    pub name: RStr<'static>,
}

impl RootModule for PluginVtRef {
    abi_stable::declare_root_module_statics! {PluginVtRef}
    const BASE_NAME: &'static str = "mqtt_handler";
    const NAME: &'static str = "mqtt_handler";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("2.0.0");
}

static TABLE: WithMetadata<PluginVt> = WithMetadata::new(PluginVt { name: RStr::from_str("other-major") });

extern "C" fn root() -> RootModuleResult {
    let table = PluginVtRef(TABLE.static_as_prefix()).to_prefix_ref();
    // SAFETY: `HEADER` says that this is a `PluginVtRef`.
    RResult::ROk(unsafe { table.cast::<ErasedPrefix>() })
}

/// The library's symbol.
// SAFETY: the name is that of abi_stable's root module, and the value has its type.
#[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
pub static HEADER: LibHeader =
    // SAFETY: `root` returns a `PluginVtRef`, erased.
    unsafe { LibHeader::from_constructor::<PluginVtRef>(root, CheckTypeLayout::Yes) };
