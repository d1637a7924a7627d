//! The functions that the host calls: pointers in, the author's methods, a verdict out.
#![allow(unsafe_code)] // Opaque pointers become references again here.

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use abi_stable::std_types::RStr;

use super::guard::{answered, guarded, panicked, put_text, report_panics_to, verdict};
use super::states::{Connection, Instance};
use crate::abi::{
    FLAG_SWAP_DISCONNECTS, FLAG_UNWINDS, Opaque, PluginVt, RawAck, RawAuth, RawConnect, RawConnected,
    RawConnectionInfo, RawDeliver, RawDisconnect, RawHost, RawInfo, RawMessageNotice, RawPublish, RawRetained,
    RawState, RawSubscribe, RawSwapped, RawUnsubscribe, Sink, Verdict,
};
use crate::answer::Answer;
use crate::{
    Ack, Auth, Connect, Connected, ConnectionInfo, Deliver, DisconnectReason, Handler, Host, Info, MessageNotice,
    Publish, Retained, StateView, Subscribe, SwapRule, Swapped, Unsubscribe,
};

#[cfg(feature = "async")]
use {
    super::futures,
    crate::{Callback, Deferrable, Error, Lent},
};

/// The foreign functions for one handler. `LIBRARY`: it is in a library of its own, with its own copy of `std`, whose
/// panic hook is ours to set. A handler that is linked into the program shares the program's hook, which stays.
pub(super) struct Shim<H, const LIBRARY: bool>(PhantomData<H>);

impl<H: Handler, const LIBRARY: bool> Shim<H, LIBRARY> {
    pub(super) const fn table(name: &'static str, version: &'static str, unwinds: bool) -> PluginVt {
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
            config_check: Self::config_check,
            config_schema: Self::config_schema,
        }
    }

    /// # Safety
    /// `instance` comes from `instance_new` and has not been dropped.
    #[inline]
    unsafe fn instance<'a>(instance: Opaque) -> &'a Instance<H> {
        // SAFETY: the caller's promise.
        unsafe { &*instance.cast::<Instance<H>>() }
    }

    unsafe extern "C" fn instance_new(host: RawHost, config: RStr<'_>, sink: Sink<'_>) -> Opaque {
        if LIBRARY {
            report_panics_to(host);
        }
        let refused = std::ptr::null_mut();
        let init = || match H::init(Host::new(host), config.as_str()) {
            Ok(handler) => Box::into_raw(Box::new(Instance::new(handler, host))).cast(),
            Err(error) => {
                put_text(sink, Verdict::ERROR, &error.to_string());
                refused
            }
        };
        guarded(sink, init).unwrap_or(refused)
    }

    unsafe extern "C" fn config_check(config: RStr<'_>, sink: Sink<'_>) -> Verdict {
        answered(sink, || H::check_config(config.as_str()))
    }

    unsafe extern "C" fn config_schema(sink: Sink<'_>) -> Verdict {
        answered(sink, || H::config_schema().unwrap_or_default())
    }

    unsafe extern "C" fn instance_stop(instance: Opaque, sink: Sink<'_>) -> Verdict {
        // SAFETY: the host keeps to the rules of `PluginVt`: it drops an instance after all other calls.
        let instance = unsafe { Self::instance(instance) };
        verdict(guarded(sink, || instance.handler.stop()))
    }

    unsafe extern "C" fn instance_drop(instance: Opaque, sink: Sink<'_>) -> Verdict {
        // SAFETY: `instance_new` made it with `Box::into_raw`, and the host gives it back once.
        verdict(guarded(sink, || drop(unsafe { Box::from_raw(instance.cast::<Instance<H>>()) })))
    }

    fn connection(state: H::Connection) -> Opaque {
        Arc::into_raw(Arc::new(Connection::new(state))).cast_mut().cast()
    }

    unsafe extern "C" fn connection_new(instance: Opaque, info: &RawConnectionInfo<'_>, sink: Sink<'_>) -> Opaque {
        // SAFETY: see `instance_stop`.
        let instance = unsafe { Self::instance(instance) };
        let new = || Self::connection(instance.handler.new_connection(&ConnectionInfo::new(info)));
        guarded(sink, new).unwrap_or(std::ptr::null_mut())
    }

    unsafe extern "C" fn connection_drop(connection: Opaque, sink: Sink<'_>) -> Verdict {
        let connection = connection.cast::<Connection<H::Connection>>();
        // SAFETY: `connection` above made it with `Arc::into_raw`, and the host gives it back once.
        verdict(guarded(sink, || drop(unsafe { Arc::from_raw(connection) })))
    }

    /// Runs one callback of a connection: nothing unwinds out of it, and a state that panicked is not entered again.
    ///
    /// # Safety
    /// `instance` and `connection` come from `instance_new` and `connection_new` (or `import_state`) and have not been
    /// dropped; nobody else uses `connection` meanwhile.
    #[inline]
    unsafe fn enter<A: Answer>(
        instance: Opaque,
        connection: Opaque,
        mut sink: Sink<'_>,
        callback: impl FnOnce(&H, &mut H::Connection) -> A,
    ) -> Verdict {
        // SAFETY: the caller's promise.
        let instance = unsafe { Self::instance(instance) };
        // SAFETY: the caller's promise.
        let connection = unsafe { &*connection.cast::<Connection<H::Connection>>() };
        // SAFETY: the caller's promise; the reference ends with this call.
        let state = match unsafe { connection.enter() } {
            Ok(state) => state,
            Err(verdict) => return verdict,
        };
        // The answer is written, and dropped, inside: its parts may be the author's, and panic as well.
        let run = || {
            let answer = callback(&instance.handler, state);
            if answer.is_plain() {
                std::mem::forget(answer); // It owns nothing, which is not seen through its drop.
                return Verdict::OK;
            }
            answer.put(&mut sink)
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(verdict) => verdict,
            Err(payload) => {
                connection.poison();
                panicked(payload, sink)
            }
        }
    }

    /// Runs one asynchronous callback of a connection, up to where it has to wait.
    ///
    /// # Safety
    /// As [`enter`](Self::enter).
    #[cfg(feature = "async")]
    unsafe fn start<A, F>(
        instance: Opaque,
        connection: Opaque,
        sink: Sink<'_>,
        callback: Callback,
        start: impl FnOnce(Arc<H>, Lent<H::Connection>) -> F,
    ) -> Verdict
    where
        A: Deferrable,
        F: Future<Output = Result<A, Error>> + Send + 'static,
    {
        // SAFETY: the caller's promise.
        let instance = unsafe { Self::instance(instance) };
        let connection = connection.cast::<Connection<H::Connection>>();
        // SAFETY: the caller's promise: an `Arc` that was made from it is there, and stays there during this call.
        let connection = unsafe {
            Arc::increment_strong_count(connection);
            Arc::from_raw(connection)
        };
        futures::start(instance, connection, sink, callback, start)
    }

    unsafe extern "C" fn export_state(instance: Opaque, connection: Opaque, sink: Sink<'_>) -> Verdict {
        // SAFETY: the host keeps to the rules of `PluginVt`.
        unsafe { Self::enter(instance, connection, sink, |handler, state| handler.export_state(state)) }
    }

    unsafe extern "C" fn import_state(
        instance: Opaque,
        swapped: &RawSwapped<'_>,
        state: &RawState<'_>,
        sink: Sink<'_>,
    ) -> Opaque {
        // SAFETY: see `instance_stop`.
        let instance = unsafe { Self::instance(instance) };
        let refused = std::ptr::null_mut();
        let import = || match instance.handler.import_state(&Swapped::new(swapped), StateView::new(state)) {
            Ok(state) => Self::connection(state),
            Err(error) => {
                put_text(sink, Verdict::ERROR, &error.to_string());
                refused
            }
        };
        guarded(sink, import).unwrap_or(refused)
    }

    #[cfg(feature = "async")]
    unsafe extern "C" fn cancelled(instance: Opaque, ticket: u64, sink: Sink<'_>) -> Verdict {
        // SAFETY: see `instance_stop`.
        let instance = unsafe { Self::instance(instance) };
        verdict(guarded(sink, || instance.futures.cancel(ticket)))
    }

    /// Whoever has the ticket learns it when it answers.
    #[cfg(not(feature = "async"))]
    unsafe extern "C" fn cancelled(_: Opaque, _: u64, _: Sink<'_>) -> Verdict {
        Verdict::OK
    }
}

/// Makes the functions of callbacks that have a connection's state. Those with a second name may be asynchronous, and have
/// that name then.
macro_rules! with_state {
    ($($name:ident($raw:ty): $method:ident($view:ident) $(or $callback:ident $later:ident)?;)*) => {
        impl<H: Handler, const LIBRARY: bool> Shim<H, LIBRARY> {
            $(
                unsafe extern "C" fn $name(
                    instance: Opaque,
                    connection: Opaque,
                    raw: &$raw,
                    sink: Sink<'_>,
                ) -> Verdict {
                    $(
                        #[cfg(feature = "async")]
                        if H::ASYNC.contains(Callback::$callback) {
                            let start = |handler, lent| H::$later(handler, lent, (&$view::new(raw)).into());
                            // SAFETY: the host keeps to the rules of `PluginVt`.
                            return unsafe { Self::start(instance, connection, sink, Callback::$callback, start) };
                        }
                    )?
                    // SAFETY: the host keeps to the rules of `PluginVt`.
                    unsafe {
                        Self::enter(instance, connection, sink, |handler, state| handler.$method(state, &$view::new(raw)))
                    }
                }
            )*
        }
    };
}

with_state! {
    connect(RawConnect<'_>): handle_connect(Connect) or Connect handle_connect_async;
    auth(RawAuth<'_>): handle_auth(Auth) or Auth handle_auth_async;
    publish(RawPublish<'_>): handle_publish(Publish) or Publish handle_publish_async;
    subscribe(RawSubscribe<'_>): handle_subscribe(Subscribe) or Subscribe handle_subscribe_async;
    unsubscribe(RawUnsubscribe<'_>): handle_unsubscribe(Unsubscribe) or Unsubscribe handle_unsubscribe_async;
    puback(RawAck): handle_puback(Ack);
    info(RawInfo<'_>): handle_info(Info);
    disconnect(RawDisconnect<'_>): handle_disconnect(DisconnectReason);
    connected(RawConnected<'_>): handle_connected(Connected);
    deliver(RawDeliver<'_>): handle_deliver(Deliver);
    swapped(RawSwapped<'_>): handle_swapped(Swapped);
}

/// Makes the functions of callbacks that have no connection's state.
macro_rules! without_state {
    ($($name:ident($($argument:ident: $raw:ty),*): $method:ident($($value:expr),*);)*) => {
        impl<H: Handler, const LIBRARY: bool> Shim<H, LIBRARY> {
            $(
                unsafe extern "C" fn $name(instance: Opaque, $($argument: $raw,)* sink: Sink<'_>) -> Verdict {
                    // SAFETY: the host keeps to the rules of `PluginVt`.
                    let instance = unsafe { Self::instance(instance) };
                    answered(sink, || instance.handler.$method($($value),*))
                }
            )*
        }
    };
}

without_state! {
    session_expired(client_id: RStr<'_>, state: Option<&RawState<'_>>):
        handle_session_expired(client_id.as_str(), state.map(StateView::new));
    message_dropped(raw: &RawMessageNotice<'_>): handle_message_dropped(&MessageNotice::new(raw));
    message_acknowledged(raw: &RawMessageNotice<'_>): handle_message_acknowledged(&MessageNotice::new(raw));
    message_expired(raw: &RawMessageNotice<'_>): handle_message_expired(&MessageNotice::new(raw));
    retained(raw: &RawRetained<'_>): handle_retained(&Retained::new(raw));
    event(raw: &RawInfo<'_>): handle_event(&Info::new(raw));
    config(config: RStr<'_>): handle_config(config.as_str());
    health(): health();
    export_plugin_state(): export_plugin_state();
    import_plugin_state(state: &RawState<'_>): import_plugin_state(StateView::new(state));
}
