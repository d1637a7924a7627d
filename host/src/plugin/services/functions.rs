//! The functions that plugins call: the log, panics, messages, tickets; and the table of all of them.
#![allow(unsafe_code)] // They get a pointer that has to become a reference.

use std::panic::{AssertUnwindSafe, catch_unwind};

use abi_stable::std_types::RSlice;
use plugin_api::ReasonCode;
use plugin_api::abi::{HostVt, Opaque, RawField, RawMessage, RawPiece, RawTarget, Status, Verdict};
use plugin_api::reading::{self, Answer, Packet, Place};
use tracing::Level;

use super::super::record::effects;
use super::super::tickets::{Answered, NO_TICKET};
use super::inside::{About, LATER, Panic, about, is_inside, touch};
use super::log::Line;
use super::table::{
    cancel_timer, kv_delete, kv_get, kv_list, kv_put, metric, metric_record, query, reauthorise, send_info, subscribe,
    unsubscribe,
};
use super::{LOG_BYTES_MAX, PluginServices};
use crate::core::mail::Mail;

/// Panics of one callback that are remembered: the one that ends it, and those that it caught itself.
const PANICS_MAX: usize = 16;

/// Writes a line for a plugin.
fn write(level: u8, plugin: &str, part: &str, text: String, fields: Vec<(String, String)>) {
    let level = level_of(level);
    about(|About { connection, callback, client_id }| {
        Line { level, plugin, part, connection, client_id, callback, text, fields }.write();
    });
}

fn level_of(level: u8) -> Level {
    match level {
        0 | 1 => Level::ERROR,
        2 => Level::WARN,
        3 => Level::INFO,
        4 => Level::DEBUG,
        _ => Level::TRACE,
    }
}

fn is_enabled(level: u8) -> bool {
    match level {
        0 | 1 => tracing::enabled!(target: "host::plugin", tracing::Level::ERROR),
        2 => tracing::enabled!(target: "host::plugin", tracing::Level::WARN),
        3 => tracing::enabled!(target: "host::plugin", tracing::Level::INFO),
        4 => tracing::enabled!(target: "host::plugin", tracing::Level::DEBUG),
        _ => tracing::enabled!(target: "host::plugin", tracing::Level::TRACE),
    }
}

/// Text from a plugin, cut to what a log line may have.
fn lossy(bytes: RSlice<'_, u8>) -> String {
    let bytes = bytes.as_slice();
    String::from_utf8_lossy(&bytes[..bytes.len().min(LOG_BYTES_MAX)]).into_owned()
}

/// Runs a service: whatever panics in it (a log writer, for example) must not unwind into the plugin.
pub(super) fn service<T>(context: Opaque, otherwise: T, run: impl FnOnce(&'static PluginServices) -> T) -> T {
    // SAFETY: `PluginServices::raw` gave the pointer out, and what it points to is never freed.
    let services = unsafe { &*context.cast::<PluginServices>() };
    catch_unwind(AssertUnwindSafe(|| run(services))).unwrap_or(otherwise)
}

unsafe extern "C" fn log_enabled(context: Opaque, level: u8) -> bool {
    service(context, false, |_| is_enabled(level))
}

unsafe extern "C" fn log(
    context: Opaque,
    level: u8,
    target: RSlice<'_, u8>,
    text: RSlice<'_, u8>,
    fields: RSlice<'_, RawField<'_>>,
) {
    service(context, (), |host| {
        // One that is not written costs no more than this.
        if is_enabled(level) {
            let fields = fields.as_slice().iter().map(|field| (lossy(field.name), lossy(field.value))).collect();
            write(level, &host.plugin, &lossy(target), lossy(text), fields);
        }
    });
}

unsafe extern "C" fn panicked(context: Opaque, text: RSlice<'_, u8>, location: RSlice<'_, u8>, thread: RSlice<'_, u8>) {
    service(context, (), |host| {
        let panic = Panic { text: lossy(text), location: lossy(location) };
        if !is_inside() {
            let Panic { text, location } = panic;
            // Only the plugin's own copy of `std` knows it.
            let thread = lossy(thread);
            let thread = if thread.is_empty() { "unnamed" } else { thread.as_str() };
            tracing::error!(plugin = host.plugin, thread, text, location, "a plugin panicked on a thread of its own");
        } else {
            touch();
            LATER.with_borrow_mut(|later| {
                if later.settled.panics.len() < PANICS_MAX {
                    later.settled.panics.push(panic);
                }
            });
        }
    });
}

unsafe extern "C" fn publish(context: Opaque, message: &RawMessage<'_>) -> Status {
    service(context, Status::FULL, |host| {
        let taken = host.with(|services| services.post_publish(services.message(message, host)?));
        effects::note(taken, || effects::publish(message))
    })
}

unsafe extern "C" fn send(context: Opaque, target: &RawTarget<'_>, message: &RawMessage<'_>) -> Status {
    service(context, Status::FULL, |host| {
        let taken = host.with(|services| services.post_send(target, services.message(message, host)?));
        effects::note(taken, || effects::send(target, message))
    })
}

unsafe extern "C" fn disconnect(
    context: Opaque,
    connection: u64,
    reason_code: u8,
    properties: RSlice<'_, u8>,
) -> Status {
    service(context, Status::FULL, |host| {
        let properties = properties.as_slice();
        let (Ok(reason_code), Ok(_)) =
            (reading::disconnection(reason_code.into()), reading::properties(Place::Farewell, properties))
        else {
            return Status::INVALID;
        };
        let reason_code = fitting(&host.plugin, reason_code);
        let mail = || Mail::Disconnect { connection, reason_code, properties: properties.into() };
        let taken = host.with(|services| services.post(0..services.mailboxes.workers(), &mail));
        effects::note(taken, || effects::disconnect(connection, reason_code.0, properties))
    })
}

/// The Reason Code that is sent in DISCONNECT where a plugin wants this one.
fn fitting(plugin: &str, answered: ReasonCode) -> ReasonCode {
    if Packet::Disconnect.may_have(answered) {
        return answered;
    }
    let (callback, client_id) = ("Host::disconnect", "");
    tracing::warn!(plugin, callback, client_id, "{}", Packet::Disconnect.misfit(answered));
    Packet::INSTEAD
}

/// What plugins get.
pub(in crate::plugin) const TABLE: HostVt = HostVt {
    log_enabled,
    log,
    panicked,
    publish,
    send,
    send_info,
    cancel_timer,
    disconnect,
    ticket,
    complete,
    query,
    subscribe,
    unsubscribe,
    reauthorise,
    kv_get,
    kv_put,
    kv_delete,
    kv_list,
    metric,
    metric_record,
};

unsafe extern "C" fn ticket(context: Opaque, number: &mut u64) -> Status {
    *number = NO_TICKET;
    service(context, Status::FULL, |host| match host.ticket() {
        Ok(ticket) => {
            *number = ticket;
            Status::OK
        }
        Err(status) => status,
    })
}

unsafe extern "C" fn complete(
    context: Opaque,
    ticket: u64,
    verdict: Verdict,
    pieces: RSlice<'_, RawPiece<'_>>,
) -> Status {
    service(context, Status::FULL, |host| {
        let answer = Answer::of(pieces.as_slice());
        host.complete(ticket, Box::new(Answered { verdict, answer }))
    })
}
