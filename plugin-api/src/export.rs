//! From the trait to the table of functions: what `export!` makes of a handler.
#![allow(unsafe_code)] // Opaque pointers become references again here, and the symbol of the library is written.

use std::any::Any;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use abi_stable::prefix_type::WithMetadata;
use abi_stable::std_types::RStr;

use crate::abi::{
    AnswerKey, FLAG_SWAP_DISCONNECTS, FLAG_UNWINDS, Opaque, PluginVt, PluginVtRef, RawAck, RawAuth, RawConnect,
    RawConnected, RawConnectionInfo, RawDeliver, RawDisconnect, RawHost, RawInfo, RawMessageNotice, RawPublish,
    RawRetained, RawState, RawSubscribe, RawSwapped, RawUnsubscribe, Sink, Verdict,
};
use crate::answer::Answer;
use crate::{
    Ack, Auth, Connect, Connected, ConnectionInfo, Deliver, DisconnectReason, Handler, Host, Info, MessageNotice,
    Publish, Retained, StateView, Subscribe, SwapRule, Swapped, Unsubscribe,
};

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
            struct Library;

            impl $crate::__private::Library for Library {
                type Handler = $handler;
                const NAME: &'static str = $name;
                const VERSION: &'static str = ::core::env!("CARGO_PKG_VERSION");
                // Asked here as well as in plugin-api: only the last crate may have been built with panic=abort.
                const UNWINDS: bool = ::core::cfg!(panic = "unwind");
            }

            #[allow(unsafe_code)]
            // SAFETY: the name is that of abi_stable's root module (plugin-api checks that), and the value has its type.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            pub static HEADER: $crate::__private::LibHeader = $crate::__private::header::<Library>();
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

/// What an opaque connection pointer points to.
struct Connection<T> {
    /// It panicked: nothing of the author's runs on it any more except its `Drop`.
    poisoned: bool,
    state: T,
}

/// The foreign functions for one handler. `LIBRARY`: it is in a library of its own, with its own copy of `std`, whose
/// panic hook is ours to set. A handler that is linked into the program shares the program's hook, which stays.
struct Shim<H, const LIBRARY: bool>(PhantomData<H>);

impl<H: Handler, const LIBRARY: bool> Shim<H, LIBRARY> {
    const fn table(name: &'static str, version: &'static str, unwinds: bool) -> PluginVt {
        PluginVt {
            name: RStr::from_str(name),
            version: RStr::from_str(version),
            flags: if unwinds && cfg!(panic = "unwind") { FLAG_UNWINDS } else { 0 }
                | match H::ON_SWAP {
                    SwapRule::Fresh => 0,
                    SwapRule::Disconnect => FLAG_SWAP_DISCONNECTS,
                },
            callbacks: H::CALLBACKS.bits(),
            blocking: H::BLOCKING.bits(),
            instance_new: Self::instance_new,
            instance_stop: Self::instance_stop,
            instance_drop: Self::instance_drop,
            connection_new: Self::connection_new,
            connection_drop: Self::connection_drop,
            connect: Self::connect,
            auth: Self::auth,
            publish: Self::publish,
            subscribe: Self::subscribe,
            unsubscribe: Self::unsubscribe,
            puback: Self::puback,
            info: Self::info,
            disconnect: Self::disconnect,
            session_expired: Self::session_expired,
            connected: Self::connected,
            deliver: Self::deliver,
            message_dropped: Self::message_dropped,
            message_acknowledged: Self::message_acknowledged,
            message_expired: Self::message_expired,
            retained: Self::retained,
            event: Self::event,
            config: Self::config,
            health: Self::health,
            swapped: Self::swapped,
            export_state: Self::export_state,
            import_state: Self::import_state,
            export_plugin_state: Self::export_plugin_state,
            import_plugin_state: Self::import_plugin_state,
            cancelled: Self::cancelled,
        }
    }

    unsafe extern "C" fn instance_new(host: RawHost, config: RStr<'_>, sink: Sink<'_>) -> Opaque {
        if LIBRARY {
            report_panics_to(host);
        }
        let refused = std::ptr::null_mut();
        let init = || match H::init(Host::new(host), config.as_str()) {
            Ok(handler) => Box::into_raw(Box::new(handler)).cast(),
            Err(error) => {
                put_text(sink, Verdict::ERROR, &error.to_string());
                refused
            }
        };
        guarded(sink, init).unwrap_or(refused)
    }

    unsafe extern "C" fn instance_stop(instance: Opaque, sink: Sink<'_>) -> Verdict {
        // SAFETY: `instance_new` made it, and it is dropped after all other calls.
        let handler = unsafe { &*instance.cast::<H>() };
        verdict(guarded(sink, || handler.stop()))
    }

    unsafe extern "C" fn instance_drop(instance: Opaque, sink: Sink<'_>) -> Verdict {
        // SAFETY: `instance_new` made it with `Box::into_raw`, and the host gives it back once.
        verdict(guarded(sink, || drop(unsafe { Box::from_raw(instance.cast::<H>()) })))
    }

    unsafe extern "C" fn connection_new(instance: Opaque, info: &RawConnectionInfo<'_>, sink: Sink<'_>) -> Opaque {
        // SAFETY: see `instance_stop`.
        let handler = unsafe { &*instance.cast::<H>() };
        let new = || {
            let state = handler.new_connection(&ConnectionInfo::new(info));
            Box::into_raw(Box::new(Connection { poisoned: false, state })).cast()
        };
        guarded(sink, new).unwrap_or(std::ptr::null_mut())
    }

    unsafe extern "C" fn connection_drop(connection: Opaque, sink: Sink<'_>) -> Verdict {
        let connection = connection.cast::<Connection<H::Connection>>();
        // SAFETY: `connection_new` made it with `Box::into_raw`, and the host gives it back once.
        verdict(guarded(sink, || drop(unsafe { Box::from_raw(connection) })))
    }

    /// Runs one callback of a connection: nothing unwinds out of it, and a state that panicked is not entered again.
    ///
    /// # Safety
    /// `instance` and `connection` come from `instance_new` and `connection_new` and have not been dropped; nobody else
    /// uses `connection` meanwhile.
    #[inline]
    unsafe fn enter<A: Answer>(
        instance: Opaque,
        connection: Opaque,
        sink: Sink<'_>,
        callback: impl FnOnce(&H, &mut H::Connection) -> A,
    ) -> Verdict {
        // SAFETY: the caller's promise.
        let handler = unsafe { &*instance.cast::<H>() };
        // SAFETY: the caller's promise.
        let connection = unsafe { &mut *connection.cast::<Connection<H::Connection>>() };
        if connection.poisoned {
            return Verdict::POISONED;
        }
        // The answer is written, and dropped, inside: its parts may be the author's, and panic as well.
        match catch_unwind(AssertUnwindSafe(|| callback(handler, &mut connection.state).put(sink))) {
            Ok(verdict) => verdict,
            Err(payload) => {
                connection.poisoned = true;
                panicked(payload, sink)
            }
        }
    }

    unsafe extern "C" fn connect(
        instance: Opaque,
        connection: Opaque,
        raw: &RawConnect<'_>,
        sink: Sink<'_>,
    ) -> Verdict {
        // SAFETY: the host keeps to the rules of `PluginVt`; the same holds for the functions below.
        unsafe {
            Self::enter(instance, connection, sink, |handler, state| handler.handle_connect(state, &Connect::new(raw)))
        }
    }

    unsafe extern "C" fn auth(instance: Opaque, connection: Opaque, raw: &RawAuth<'_>, sink: Sink<'_>) -> Verdict {
        // SAFETY: see `connect`.
        unsafe { Self::enter(instance, connection, sink, |handler, state| handler.handle_auth(state, &Auth::new(raw))) }
    }

    unsafe extern "C" fn publish(
        instance: Opaque,
        connection: Opaque,
        raw: &RawPublish<'_>,
        sink: Sink<'_>,
    ) -> Verdict {
        // SAFETY: see `connect`.
        unsafe {
            Self::enter(instance, connection, sink, |handler, state| handler.handle_publish(state, &Publish::new(raw)))
        }
    }

    unsafe extern "C" fn subscribe(
        instance: Opaque,
        connection: Opaque,
        raw: &RawSubscribe<'_>,
        sink: Sink<'_>,
    ) -> Verdict {
        // SAFETY: see `connect`.
        unsafe {
            Self::enter(instance, connection, sink, |handler, state| {
                handler.handle_subscribe(state, &Subscribe::new(raw))
            })
        }
    }

    unsafe extern "C" fn unsubscribe(
        instance: Opaque,
        connection: Opaque,
        raw: &RawUnsubscribe<'_>,
        sink: Sink<'_>,
    ) -> Verdict {
        // SAFETY: see `connect`.
        unsafe {
            Self::enter(instance, connection, sink, |handler, state| {
                handler.handle_unsubscribe(state, &Unsubscribe::new(raw))
            })
        }
    }

    unsafe extern "C" fn puback(instance: Opaque, connection: Opaque, raw: &RawAck, sink: Sink<'_>) -> Verdict {
        // SAFETY: see `connect`.
        unsafe {
            Self::enter(instance, connection, sink, |handler, state| {
                handler.handle_puback(state, &Ack::new(raw));
            })
        }
    }

    unsafe extern "C" fn info(instance: Opaque, connection: Opaque, raw: &RawInfo<'_>, sink: Sink<'_>) -> Verdict {
        // SAFETY: see `connect`.
        unsafe { Self::enter(instance, connection, sink, |handler, state| handler.handle_info(state, &Info::new(raw))) }
    }

    unsafe extern "C" fn disconnect(
        instance: Opaque,
        connection: Opaque,
        raw: &RawDisconnect<'_>,
        sink: Sink<'_>,
    ) -> Verdict {
        // SAFETY: see `connect`.
        unsafe {
            Self::enter(instance, connection, sink, |handler, state| {
                handler.handle_disconnect(state, &DisconnectReason::new(raw));
            })
        }
    }

    unsafe extern "C" fn session_expired(
        instance: Opaque,
        client_id: RStr<'_>,
        state: Option<&RawState<'_>>,
        sink: Sink<'_>,
    ) -> Verdict {
        // SAFETY: see `instance_stop`.
        let handler = unsafe { &*instance.cast::<H>() };
        verdict(guarded(sink, || handler.handle_session_expired(client_id.as_str(), state.map(StateView::new))))
    }

    unsafe extern "C" fn connected(
        instance: Opaque,
        connection: Opaque,
        raw: &RawConnected<'_>,
        sink: Sink<'_>,
    ) -> Verdict {
        // SAFETY: see `connect`.
        unsafe {
            Self::enter(instance, connection, sink, |handler, state| {
                handler.handle_connected(state, &Connected::new(raw))
            })
        }
    }

    unsafe extern "C" fn deliver(
        instance: Opaque,
        connection: Opaque,
        raw: &RawDeliver<'_>,
        sink: Sink<'_>,
    ) -> Verdict {
        // SAFETY: see `connect`.
        unsafe {
            Self::enter(instance, connection, sink, |handler, state| handler.handle_deliver(state, &Deliver::new(raw)))
        }
    }

    unsafe extern "C" fn message_dropped(instance: Opaque, raw: &RawMessageNotice<'_>, sink: Sink<'_>) -> Verdict {
        // SAFETY: see `instance_stop`.
        let handler = unsafe { &*instance.cast::<H>() };
        verdict(guarded(sink, || handler.handle_message_dropped(&MessageNotice::new(raw))))
    }

    unsafe extern "C" fn message_acknowledged(instance: Opaque, raw: &RawMessageNotice<'_>, sink: Sink<'_>) -> Verdict {
        // SAFETY: see `instance_stop`.
        let handler = unsafe { &*instance.cast::<H>() };
        verdict(guarded(sink, || handler.handle_message_acknowledged(&MessageNotice::new(raw))))
    }

    unsafe extern "C" fn message_expired(instance: Opaque, raw: &RawMessageNotice<'_>, sink: Sink<'_>) -> Verdict {
        // SAFETY: see `instance_stop`.
        let handler = unsafe { &*instance.cast::<H>() };
        verdict(guarded(sink, || handler.handle_message_expired(&MessageNotice::new(raw))))
    }

    unsafe extern "C" fn retained(instance: Opaque, raw: &RawRetained<'_>, sink: Sink<'_>) -> Verdict {
        // SAFETY: see `instance_stop`.
        let handler = unsafe { &*instance.cast::<H>() };
        verdict(guarded(sink, || handler.handle_retained(&Retained::new(raw))))
    }

    unsafe extern "C" fn event(instance: Opaque, raw: &RawInfo<'_>, sink: Sink<'_>) -> Verdict {
        // SAFETY: see `instance_stop`.
        let handler = unsafe { &*instance.cast::<H>() };
        verdict(guarded(sink, || handler.handle_event(&Info::new(raw))))
    }

    unsafe extern "C" fn config(instance: Opaque, config: RStr<'_>, sink: Sink<'_>) -> Verdict {
        // SAFETY: see `instance_stop`.
        let handler = unsafe { &*instance.cast::<H>() };
        answered(sink, || handler.handle_config(config.as_str()))
    }

    unsafe extern "C" fn health(instance: Opaque, sink: Sink<'_>) -> Verdict {
        // SAFETY: see `instance_stop`.
        let handler = unsafe { &*instance.cast::<H>() };
        answered(sink, || handler.health())
    }

    unsafe extern "C" fn swapped(
        instance: Opaque,
        connection: Opaque,
        raw: &RawSwapped<'_>,
        sink: Sink<'_>,
    ) -> Verdict {
        // SAFETY: see `connect`.
        unsafe {
            Self::enter(instance, connection, sink, |handler, state| handler.handle_swapped(state, &Swapped::new(raw)))
        }
    }

    unsafe extern "C" fn export_state(instance: Opaque, connection: Opaque, sink: Sink<'_>) -> Verdict {
        // SAFETY: see `connect`.
        unsafe { Self::enter(instance, connection, sink, |handler, state| handler.export_state(state)) }
    }

    unsafe extern "C" fn import_state(
        instance: Opaque,
        swapped: &RawSwapped<'_>,
        state: &RawState<'_>,
        sink: Sink<'_>,
    ) -> Opaque {
        // SAFETY: see `instance_stop`.
        let handler = unsafe { &*instance.cast::<H>() };
        let refused = std::ptr::null_mut();
        let import = || match handler.import_state(&Swapped::new(swapped), StateView::new(state)) {
            Ok(state) => Box::into_raw(Box::new(Connection { poisoned: false, state })).cast(),
            Err(error) => {
                put_text(sink, Verdict::ERROR, &error.to_string());
                refused
            }
        };
        guarded(sink, import).unwrap_or(refused)
    }

    unsafe extern "C" fn export_plugin_state(instance: Opaque, sink: Sink<'_>) -> Verdict {
        // SAFETY: see `instance_stop`.
        let handler = unsafe { &*instance.cast::<H>() };
        answered(sink, || handler.export_plugin_state())
    }

    unsafe extern "C" fn import_plugin_state(instance: Opaque, state: &RawState<'_>, sink: Sink<'_>) -> Verdict {
        // SAFETY: see `instance_stop`.
        let handler = unsafe { &*instance.cast::<H>() };
        answered(sink, || handler.import_plugin_state(StateView::new(state)))
    }

    unsafe extern "C" fn cancelled(_instance: Opaque, _ticket: u64, _sink: Sink<'_>) -> Verdict {
        Verdict::OK
    }
}

/// Runs a callback that has an answer, and no connection's state.
fn answered<A: Answer>(sink: Sink<'_>, run: impl FnOnce() -> A) -> Verdict {
    guarded(sink, || run().put(sink)).unwrap_or(Verdict::PANICKED)
}

/// Runs the author's code where there is no connection's state to poison.
fn guarded<T>(sink: Sink<'_>, run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => Some(value),
        Err(payload) => {
            panicked(payload, sink);
            None
        }
    }
}

fn verdict(done: Option<()>) -> Verdict {
    done.map_or(Verdict::PANICKED, |()| Verdict::OK)
}

/// Tells the host what the panic said, and gets rid of its payload.
#[cold]
fn panicked(payload: Box<dyn Any + Send>, sink: Sink<'_>) -> Verdict {
    put_text(sink, Verdict::PANICKED, payload_text(&*payload));
    // The payload may be the author's as well. If its drop panics there is a second payload: that one is leaked, or this
    // would never end.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    Verdict::PANICKED
}

fn put_text(sink: Sink<'_>, verdict: Verdict, text: &str) {
    sink.put(AnswerKey::TEXT, verdict.0.into(), text.as_bytes());
}

fn payload_text(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "(a panic payload that is not text)"
    }
}

/// Lets this library's copy of `std` report panics to the host's log instead of standard error, on all its threads.
fn report_panics_to(host: RawHost) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        std::panic::set_hook(Box::new(move |info| {
            let location = info.location().map(ToString::to_string).unwrap_or_default();
            let thread = std::thread::current();
            host.panicked(payload_text(info.payload()), &location, thread.name().unwrap_or_default());
        }));
    });
}
