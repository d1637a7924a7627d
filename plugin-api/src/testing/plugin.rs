//! An instance of a handler, called as the host calls it: through its table of functions.
#![allow(unsafe_code)] // Its functions are called here.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::services::{Scope, Services};
use crate::abi::{
    Opaque, PluginVtRef, RawAck, RawAuth, RawConnect, RawConnected, RawConnectionInfo, RawDeliver, RawDisconnect,
    RawInfo, RawMessageNotice, RawPublish, RawRetained, RawState, RawSubscribe, RawSwapped, RawUnsubscribe, Verdict,
};
use crate::reading::{self, Answer, Faults, Packet, is_fatal, is_later};
use crate::{Callback, Callbacks, Error, Handler, Level, ReasonCode};

/// An instance. Dropping it drops what is left of its states, and it.
pub(super) struct Plugin {
    table: PluginVtRef,
    instance: Opaque,
    callbacks: Callbacks,
    services: &'static Services,
    /// Its states, by the number of the connection. What has panicked, or has ended, is not there.
    states: RefCell<HashMap<u64, Opaque>>,
}

/// A plugin could not answer, which is in the log; what it has said.
#[derive(Debug)]
pub(super) struct Failed(pub(super) String);

/// A callback with a connection's state: how its function is called with a view.
macro_rules! with_state {
    ($($name:ident($view:ty): $callback:ident, $method:ident;)*) => {
        $(
            pub(super) fn $name(&self, connection: u64, view: &$view) -> Result<(Verdict, Answer), Failed> {
                self.ask(Callback::$callback, connection, |table, instance, state, answer| {
                    // SAFETY: the instance made the state, and both are there: `ask` looks them up.
                    unsafe { table.$method()(instance, state, view, answer.sink()) }
                })
            }
        )*
    };
}

/// A callback without one.
macro_rules! without_state {
    ($($name:ident($($argument:ident: $view:ty),*): $callback:ident, $method:ident;)*) => {
        $(
            pub(super) fn $name(&self, $($argument: $view),*) -> (Verdict, Answer) {
                self.call(Callback::$callback, |table, instance, answer| {
                    // SAFETY: the instance lives as long as this value.
                    unsafe { table.$method()(instance, $($argument,)* answer.sink()) }
                })
            }
        )*
    };
}

impl Plugin {
    /// Makes the instance.
    pub(super) fn new<H: Handler>(config: &str, services: &'static Services) -> Result<Rc<Self>, Error> {
        let table = crate::__private::static_plugin::<H>("tested", env!("CARGO_PKG_VERSION"));
        check_config(table, config)?;
        let mut answer = Answer::default();
        // SAFETY: the services are never freed.
        let instance = services
            .inside(Scope::OTHER, || unsafe { table.instance_new()(services.raw(), config.into(), answer.sink()) });
        if instance.is_null() {
            let (number, text) = answer.text().unwrap_or_default();
            let panicked = if number == u64::from(Verdict::PANICKED.0) { "init panicked: " } else { "" };
            return Err(format!("{panicked}{text}").into());
        }
        let callbacks = Callbacks::from_bits(table.callbacks());
        Ok(Rc::new(Self { table, instance, callbacks, services, states: RefCell::default() }))
    }

    pub(super) fn implements(&self, callback: Callback) -> bool {
        self.callbacks.contains(callback)
    }

    pub(super) fn disconnects_on_swap(&self) -> bool {
        self.table.flags() & crate::abi::FLAG_SWAP_DISCONNECTS != 0
    }

    /// Has it look at a configuration.
    pub(super) fn check_config(&self, config: &str) -> Result<(), Error> {
        check_config(self.table, config)
    }

    /// Makes the state of a connection.
    pub(super) fn new_connection(&self, info: &RawConnectionInfo<'_>) -> Result<(), Failed> {
        let mut answer = Answer::default();
        // SAFETY: the instance lives as long as this value.
        let state = self.services.inside(Scope::of(None, info.connection), || unsafe {
            self.table.connection_new()(self.instance, info, answer.sink())
        });
        self.keep(info.connection, state, "new_connection", &answer)
    }

    /// Makes it from one that was exported.
    pub(super) fn import(&self, swapped: &RawSwapped<'_>, state: &RawState<'_>) -> Result<(), Failed> {
        let mut answer = Answer::default();
        let scope = Scope::of(Some(Callback::ImportState), swapped.info.connection);
        // SAFETY: as in `new_connection`.
        let new = self
            .services
            .inside(scope, || unsafe { self.table.import_state()(self.instance, swapped, state, answer.sink()) });
        self.keep(swapped.info.connection, new, Callback::ImportState.name(), &answer)
    }

    fn keep(&self, connection: u64, state: Opaque, callback: &str, answer: &Answer) -> Result<(), Failed> {
        if state.is_null() {
            let (number, text) = answer.text().unwrap_or_default();
            let what = if number == u64::from(Verdict::ERROR.0) { "returned an error" } else { "panicked" };
            let line = format!("{callback} {what}: {text}");
            self.services.say(Level::Error, &line);
            return Err(Failed(line));
        }
        self.states.borrow_mut().insert(connection, state);
        Ok(())
    }

    /// Whether there is a state of a connection that can be used.
    pub(super) fn is_sound(&self, connection: u64) -> bool {
        self.states.borrow().contains_key(&connection)
    }

    /// Drops the state of a connection.
    pub(super) fn drop_state(&self, connection: u64) {
        let state = self.states.borrow_mut().remove(&connection);
        if let Some(state) = state {
            let mut answer = Answer::default();
            // SAFETY: the instance made it, and it is not in the table any more.
            let verdict = self
                .services
                .inside(Scope::of(None, connection), || unsafe { self.table.connection_drop()(state, answer.sink()) });
            if is_fatal(verdict) {
                self.services.say(Level::Error, &panicked("the drop of a connection's state", &answer));
            }
        }
    }

    with_state! {
        connect(RawConnect<'_>): Connect, connect;
        auth(RawAuth<'_>): Auth, auth;
        publish(RawPublish<'_>): Publish, publish;
        subscribe(RawSubscribe<'_>): Subscribe, subscribe;
        unsubscribe(RawUnsubscribe<'_>): Unsubscribe, unsubscribe;
        puback(RawAck): Puback, puback;
        info(RawInfo<'_>): Info, info;
        disconnect(RawDisconnect<'_>): Disconnect, disconnect;
        connected(RawConnected<'_>): Connected, connected;
        deliver(RawDeliver<'_>): Deliver, deliver;
        swapped(RawSwapped<'_>): Swapped, swapped;
    }

    /// What it exports of a connection.
    pub(super) fn export(&self, connection: u64) -> Result<(Verdict, Answer), Failed> {
        self.ask(Callback::ExportState, connection, |table, instance, state, answer| {
            // SAFETY: as for the others.
            unsafe { table.export_state()(instance, state, answer.sink()) }
        })
    }

    without_state! {
        session_expired(client_id: abi_stable::std_types::RStr<'_>, state: Option<&RawState<'_>>): SessionExpired, session_expired;
        dropped(notice: &RawMessageNotice<'_>): Dropped, message_dropped;
        acknowledged(notice: &RawMessageNotice<'_>): Acknowledged, message_acknowledged;
        expired(notice: &RawMessageNotice<'_>): Expired, message_expired;
        retained(notice: &RawRetained<'_>): Retained, retained;
        event(info: &RawInfo<'_>): Event, event;
        config(config: abi_stable::std_types::RStr<'_>): Config, config;
        health(): Health, health;
        export_all(): ExportPlugin, export_plugin_state;
        import_all(state: &RawState<'_>): ImportPlugin, import_plugin_state;
        stop(): Stop, instance_stop;
    }

    /// Tells it that nobody waits for an answer any more.
    pub(super) fn cancelled(&self, ticket: u64) {
        let mut answer = Answer::default();
        // SAFETY: the instance lives as long as this value.
        self.services.inside(Scope::OTHER, || unsafe { self.table.cancelled()(self.instance, ticket, answer.sink()) });
    }

    /// Asks about a connection: what the plugin answers, at once or later.
    fn ask(
        &self,
        callback: Callback,
        connection: u64,
        call: impl FnOnce(PluginVtRef, Opaque, Opaque, &mut Answer) -> Verdict,
    ) -> Result<(Verdict, Answer), Failed> {
        let Some(state) = self.states.borrow().get(&connection).copied() else {
            return Err(Failed("the handler has panicked on this connection before".to_owned()));
        };
        let mut answer = Answer::default();
        let scope = Scope::of(Some(callback), connection);
        let (mut verdict, ticket) =
            self.services.inside_with_ticket(scope, || call(self.table, self.instance, state, &mut answer));
        if verdict == Verdict::DEFERRED && ticket.is_some() {
            answer.ticket = ticket.unwrap_or_default();
        } else if let Some(ticket) = ticket {
            // It took one, and has answered without it.
            self.services.forget(ticket);
        }
        if is_later(verdict, &answer) {
            (verdict, answer) = self.services.wait(answer.ticket).unwrap_or_else(|| self.late(callback, answer.ticket));
        }
        if is_fatal(verdict) {
            let line = panicked(callback.name(), &answer);
            self.services.say_in(scope, Level::Error, &line);
            self.drop_state(connection);
            return Err(Failed(line));
        }
        Ok((verdict, answer))
    }

    /// It has not answered in time: it is refused in its place, and told.
    fn late(&self, callback: Callback, ticket: u64) -> (Verdict, Answer) {
        let line = format!("{} has not answered in time: refused", callback.name());
        self.services.say(Level::Warn, &line);
        self.cancelled(ticket);
        (LATE, Answer::default())
    }

    /// Runs a call without a connection's state.
    fn call(
        &self,
        callback: Callback,
        call: impl FnOnce(PluginVtRef, Opaque, &mut Answer) -> Verdict,
    ) -> (Verdict, Answer) {
        let mut answer = Answer::default();
        let scope = Scope::of(Some(callback), 0);
        let verdict = self.services.inside(scope, || call(self.table, self.instance, &mut answer));
        if is_fatal(verdict) {
            self.services.say_in(scope, Level::Error, &panicked(callback.name(), &answer));
        }
        (verdict, answer)
    }
}

/// Has a handler look at a configuration, without an instance.
fn check_config(table: PluginVtRef, config: &str) -> Result<(), Error> {
    let Some(check) = table.config_check() else { return Ok(()) };
    let mut answer = Answer::default();
    // SAFETY: the function needs no instance.
    match unsafe { check(config.into(), answer.sink()) } {
        Verdict::OK => Ok(()),
        _ => Err(answer.text().unwrap_or_default().1.into()),
    }
}

/// Stands for an answer that has not come in time; no callback has it.
pub(super) const LATE: Verdict = Verdict(200);

fn panicked(callback: &str, answer: &Answer) -> String {
    format!("{callback} panicked: {}", answer.text().unwrap_or_default().1)
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let connections: Vec<u64> = self.states.borrow().keys().copied().collect();
        connections.into_iter().for_each(|connection| self.drop_state(connection));
        let mut answer = Answer::default();
        // SAFETY: this is the last call, and no state is left.
        self.services.inside(Scope::OTHER, || unsafe { self.table.instance_drop()(self.instance, answer.sink()) });
    }
}

impl Faults for Plugin {
    fn packet_bytes_max(&self) -> usize {
        super::PACKET_BYTES_MAX
    }

    fn error(&self, callback: Callback, _: &str, answer: &Answer) {
        let (_, text) = answer.text().unwrap_or_default();
        self.services.say_in(
            Scope::of(Some(callback), 0),
            Level::Warn,
            &format!("{} returned an error: {text}", callback.name()),
        );
    }

    fn unreadable(&self, callback: Callback, _: &str, why: &str) {
        let line = format!("the answer of {} cannot be used: {why}", callback.name());
        self.services.say_in(Scope::of(Some(callback), 0), Level::Error, &line);
    }

    fn misfit(&self, callback: Callback, _: &str, packet: Packet, answered: ReasonCode) {
        self.services.say_in(Scope::of(Some(callback), 0), Level::Warn, &packet.misfit(answered));
    }
}

/// What there is to say of an answer that is none of the callback's.
pub(super) fn unknown(callback: Callback, verdict: Verdict) -> String {
    format!("the answer of {} cannot be used: {}", callback.name(), reading::unknown(verdict))
}
