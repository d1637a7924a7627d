//! From the trait to the table of functions: what `export!` makes of a handler.
#![allow(unsafe_code)] // The symbol of the library is written here.

#[cfg(feature = "async")]
mod futures;
mod guard;
#[cfg(feature = "async")]
mod runtime;
mod shims;
mod states;
#[cfg(feature = "async")]
mod task;

use abi_stable::prefix_type::WithMetadata;

use crate::Handler;
use crate::abi::{PluginVt, PluginVtRef};

use self::shims::Shim;
#[cfg(feature = "async")]
pub use self::{runtime::FirstPoll, states::Lent, task::Task};

/// Makes the library a plugin: `plugin_api::export!(MyHandler);`, once, in a crate with `crate-type = ["cdylib"]`.
///
/// The plugin's name is that of the package, unless a second argument gives another one:
/// `plugin_api::export!(MyHandler, "my-name")`. Its version is that of the package.
///
/// The macro writes one symbol and no `unsafe` block; `#![forbid(unsafe_code)]` rejects the symbol all the same, use
/// `deny`. A program that links several handlers in statically has to leave the macro out of them: the symbol would be
/// there more than once.
#[macro_export]
macro_rules! export {
    ($handler:ty $(,)?) => {
        $crate::export!($handler, ::core::env!("CARGO_PKG_NAME"));
    };
    ($handler:ty, $name:expr $(,)?) => {
        const _: () = {
            struct __Exported;

            impl $crate::__private::Library for __Exported {
                type Handler = $handler;
                const NAME: &'static str = $name;
                const VERSION: &'static str = ::core::env!("CARGO_PKG_VERSION");
                // Asked here as well as in plugin-api: only the last crate may have been built with panic=abort.
                const UNWINDS: bool = ::core::cfg!(panic = "unwind");
            }

            #[allow(unsafe_code)]
            // SAFETY: the name is that of abi_stable's root module (plugin-api checks that), and the value has its type.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            pub static HEADER: $crate::__private::LibHeader = $crate::__private::header::<__Exported>();
        };
    };
}

/// What `export!` and the host use; not part of the API.
#[doc(hidden)]
pub mod private {
    use super::{Handler, PluginVt, PluginVtRef, Shim, WithMetadata};
    pub use abi_stable::library::LibHeader;
    use abi_stable::library::{CheckTypeLayout, ROOT_MODULE_LOADER_NAME, RootModuleResult};
    use abi_stable::marker_type::ErasedPrefix;
    use abi_stable::prefix_type::PrefixRefTrait;
    use abi_stable::std_types::RResult;

    /// What `export!` knows.
    pub trait Library {
        /// The author's type.
        type Handler: Handler;
        /// The plugin's name.
        const NAME: &'static str;
        /// The plugin's version.
        const VERSION: &'static str;
        /// Whether the author's crate was built so that panics unwind.
        const UNWINDS: bool;
    }

    /// The value of the library's one symbol.
    #[must_use]
    pub const fn header<L: Library>() -> LibHeader {
        // SAFETY: `root` returns a `PluginVtRef`, erased.
        unsafe { LibHeader::from_constructor::<PluginVtRef>(root::<L>, CheckTypeLayout::Yes) }
    }

    extern "C" fn root<L: Library>() -> RootModuleResult {
        let table: &'static WithMetadata<PluginVt> =
            const { &WithMetadata::new(Shim::<L::Handler, true>::table(L::NAME, L::VERSION, L::UNWINDS)) };
        let table = PluginVtRef(table.static_as_prefix()).to_prefix_ref();
        // SAFETY: `LibHeader` wants the reference erased, and casts it back after the layout has been checked.
        RResult::ROk(unsafe { table.cast::<ErasedPrefix>() })
    }

    /// The table of a handler that is linked into the program. It is never freed.
    #[must_use]
    pub fn static_plugin<H: Handler>(name: &'static str, version: &'static str) -> PluginVtRef {
        let table = Box::leak(Box::new(WithMetadata::new(Shim::<H, false>::table(name, version, true))));
        PluginVtRef(table.static_as_prefix())
    }

    // The literal in `export!` cannot be computed: keep it in step with abi_stable.
    const _: () = {
        let (expected, written) = (ROOT_MODULE_LOADER_NAME.as_bytes(), b"_1as_0lib_1header_0root_bmodule_bloader");
        assert!(expected.len() == written.len());
        let mut index = 0;
        while index < expected.len() {
            assert!(expected[index] == written[index]);
            index += 1;
        }
    };
}
