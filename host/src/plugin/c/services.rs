//! The host's services as a flat table, for plugins that are not written in Rust: each function looks at the pointers that
//! it gets, and refuses with [`Status::INVALID`] what cannot be followed. What they do is in `plugin::services`.
#![allow(unsafe_code)] // Plugins call these functions.

use std::mem::size_of;

use abi_stable::std_types::RSlice;
use plugin_api::abi::{
    AnswerKey, HostVt, Opaque, RawField, RawInfoRequest, RawMessage, RawPiece, RawQuery, RawSubscribeRequest,
    RawTarget, Reply, Sink, Status, Verdict,
};
use plugin_api::reading::checked;

use super::super::services::TABLE as OURS;
use super::Head;

/// `mqtt_host`: the services together with the context they need.
#[repr(C)]
#[derive(Clone, Copy)]
pub(in crate::plugin) struct CHost {
    context: Opaque,
    services: &'static CServices,
}

impl CHost {
    pub(in crate::plugin) const fn new(context: Opaque) -> Self {
        Self { context, services: &TABLE }
    }
}

type Bytes<'a> = RSlice<'a, u8>;
type Done = unsafe extern "C" fn(Opaque, Status, RSlice<'_, RawPiece<'_>>);
type Put = unsafe extern "C" fn(Opaque, AnswerKey, u64, RSlice<'_, u8>);

/// [`Sink`], with a function that may be null.
#[repr(C)]
#[derive(Clone, Copy)]
struct CSink {
    context: Opaque,
    put: Option<Put>,
}

/// [`Reply`], with a function that may be null.
#[repr(C)]
#[derive(Clone, Copy)]
struct CReply {
    context: Opaque,
    done: Option<Done>,
    flags: u64,
}

/// `mqtt_services`: the entries of [`HostVt`], in their order.
#[repr(C)]
struct CServices {
    head: Head,
    log_enabled: unsafe extern "C" fn(Opaque, u8) -> bool,
    log: unsafe extern "C" fn(Opaque, u8, Bytes<'_>, Bytes<'_>, RSlice<'_, RawField<'_>>),
    panicked: unsafe extern "C" fn(Opaque, Bytes<'_>, Bytes<'_>, Bytes<'_>),
    publish: unsafe extern "C" fn(Opaque, Option<&RawMessage<'_>>) -> Status,
    send: unsafe extern "C" fn(Opaque, Option<&RawTarget<'_>>, Option<&RawMessage<'_>>) -> Status,
    send_info: unsafe extern "C" fn(Opaque, Option<&RawInfoRequest<'_>>, Option<&mut u64>) -> Status,
    cancel_timer: unsafe extern "C" fn(Opaque, u64) -> Status,
    disconnect: unsafe extern "C" fn(Opaque, u64, u8, Bytes<'_>) -> Status,
    ticket: unsafe extern "C" fn(Opaque, Option<&mut u64>) -> Status,
    complete: unsafe extern "C" fn(Opaque, u64, Verdict, RSlice<'_, RawPiece<'_>>) -> Status,
    query: unsafe extern "C" fn(Opaque, Option<&RawQuery<'_>>, CReply) -> Status,
    subscribe: unsafe extern "C" fn(Opaque, Option<&RawSubscribeRequest<'_>>, CReply) -> Status,
    unsubscribe: unsafe extern "C" fn(Opaque, Option<&RawSubscribeRequest<'_>>, CReply) -> Status,
    reauthorise: unsafe extern "C" fn(Opaque, Option<&RawTarget<'_>>, CReply) -> Status,
    kv_get: unsafe extern "C" fn(Opaque, Bytes<'_>, CSink) -> Status,
    kv_put: unsafe extern "C" fn(Opaque, Bytes<'_>, Bytes<'_>) -> Status,
    kv_delete: unsafe extern "C" fn(Opaque, Bytes<'_>) -> Status,
    kv_list: unsafe extern "C" fn(Opaque, Bytes<'_>, Bytes<'_>, u32, CSink) -> Status,
    metric: unsafe extern "C" fn(Opaque, u8, Bytes<'_>, Bytes<'_>) -> Opaque,
    metric_record: unsafe extern "C" fn(Opaque, f64),
}

// What is appended to `HostVt` is appended here too.
const _: () = assert!(size_of::<CServices>() == size_of::<Head>() + size_of::<HostVt>());
const _: () = assert!(size_of::<CSink>() == size_of::<Sink<'static>>() && size_of::<CReply>() == size_of::<Reply>());

static TABLE: CServices = CServices {
    head: Head::of::<CServices>(),
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

/// Something with pointers in it.
trait Pointers: Copy {
    /// The same, if its pointers can be followed.
    fn checked(self) -> Option<Self>;
}

impl Pointers for Bytes<'_> {
    fn checked(self) -> Option<Self> {
        checked(self)
    }
}

macro_rules! pointers {
    ($($its_type:ty: $($field:ident),*;)*) => {
        $(
            impl Pointers for $its_type {
                fn checked(self) -> Option<Self> {
                    let mut checked = self;
                    $(checked.$field = self.$field.checked()?;)*
                    Some(checked)
                }
            }
        )*
    };
}

pointers! {
    RawMessage<'_>: topic, payload, properties;
    RawTarget<'_>: client_id;
    RawInfoRequest<'_>: target, kind, data;
    RawQuery<'_>: target, filter, cursor;
    RawSubscribeRequest<'_>: target, filter;
    RawField<'_>: name, value;
    RawPiece<'_>: bytes;
}

/// All items of a slice, each with pointers that can be followed.
fn items<T: Pointers>(slice: RSlice<'_, T>) -> Option<Vec<T>> {
    checked(slice)?.iter().map(|item| item.checked()).collect()
}

impl CSink {
    /// # Safety
    /// As [`Sink::new`], if there is a function.
    unsafe fn checked<'a>(self) -> Option<Sink<'a>> {
        // SAFETY: the caller's promise.
        Some(unsafe { Sink::new(self.context, self.put?) })
    }
}

impl CReply {
    fn checked(self) -> Option<Reply> {
        Some(Reply { context: self.context, done: self.done?, flags: self.flags })
    }
}

/// Runs a service if there is a context and all that it needs.
fn service(context: Opaque, run: impl FnOnce() -> Option<Status>) -> Status {
    if context.is_null() { Status::INVALID } else { run().unwrap_or(Status::INVALID) }
}

// SAFETY of all functions below: the context is the one that the plugin was given (null is refused), and all other pointers
// are looked at before they are followed. What they point to is as the header says: nobody can check that.

unsafe extern "C" fn log_enabled(context: Opaque, level: u8) -> bool {
    // SAFETY: see above.
    !context.is_null() && unsafe { (OURS.log_enabled)(context, level) }
}

unsafe extern "C" fn log(
    context: Opaque,
    level: u8,
    target: Bytes<'_>,
    text: Bytes<'_>,
    fields: RSlice<'_, RawField<'_>>,
) {
    service(context, || {
        let fields = items(fields)?;
        // SAFETY: see above.
        unsafe { (OURS.log)(context, level, target.checked()?, text.checked()?, fields.as_slice().into()) };
        Some(Status::OK)
    });
}

unsafe extern "C" fn panicked(context: Opaque, text: Bytes<'_>, location: Bytes<'_>, thread: Bytes<'_>) {
    service(context, || {
        // SAFETY: see above.
        unsafe { (OURS.panicked)(context, text.checked()?, location.checked()?, thread.checked()?) };
        Some(Status::OK)
    });
}

unsafe extern "C" fn publish(context: Opaque, message: Option<&RawMessage<'_>>) -> Status {
    // SAFETY: see above.
    service(context, || Some(unsafe { (OURS.publish)(context, &message?.checked()?) }))
}

unsafe extern "C" fn send(context: Opaque, target: Option<&RawTarget<'_>>, message: Option<&RawMessage<'_>>) -> Status {
    // SAFETY: see above.
    service(context, || Some(unsafe { (OURS.send)(context, &target?.checked()?, &message?.checked()?) }))
}

/// Nobody has to want the timer's number.
unsafe extern "C" fn send_info(
    context: Opaque,
    request: Option<&RawInfoRequest<'_>>,
    timer: Option<&mut u64>,
) -> Status {
    let mut unwanted = 0;
    let timer = timer.unwrap_or(&mut unwanted);
    // SAFETY: see above.
    service(context, || Some(unsafe { (OURS.send_info)(context, &request?.checked()?, timer) }))
}

unsafe extern "C" fn cancel_timer(context: Opaque, timer: u64) -> Status {
    // SAFETY: see above.
    service(context, || Some(unsafe { (OURS.cancel_timer)(context, timer) }))
}

unsafe extern "C" fn disconnect(context: Opaque, connection: u64, reason_code: u8, properties: Bytes<'_>) -> Status {
    // SAFETY: see above.
    service(context, || Some(unsafe { (OURS.disconnect)(context, connection, reason_code, properties.checked()?) }))
}

unsafe extern "C" fn ticket(context: Opaque, number: Option<&mut u64>) -> Status {
    // SAFETY: see above.
    service(context, || Some(unsafe { (OURS.ticket)(context, number?) }))
}

unsafe extern "C" fn complete(
    context: Opaque,
    ticket: u64,
    verdict: Verdict,
    pieces: RSlice<'_, RawPiece<'_>>,
) -> Status {
    service(context, || {
        let pieces = items(pieces)?;
        // SAFETY: see above.
        Some(unsafe { (OURS.complete)(context, ticket, verdict, pieces.as_slice().into()) })
    })
}

unsafe extern "C" fn query(context: Opaque, query: Option<&RawQuery<'_>>, reply: CReply) -> Status {
    // SAFETY: see above.
    service(context, || Some(unsafe { (OURS.query)(context, &query?.checked()?, reply.checked()?) }))
}

unsafe extern "C" fn subscribe(context: Opaque, request: Option<&RawSubscribeRequest<'_>>, reply: CReply) -> Status {
    // SAFETY: see above.
    service(context, || Some(unsafe { (OURS.subscribe)(context, &request?.checked()?, reply.checked()?) }))
}

unsafe extern "C" fn unsubscribe(context: Opaque, request: Option<&RawSubscribeRequest<'_>>, reply: CReply) -> Status {
    // SAFETY: see above.
    service(context, || Some(unsafe { (OURS.unsubscribe)(context, &request?.checked()?, reply.checked()?) }))
}

unsafe extern "C" fn reauthorise(context: Opaque, target: Option<&RawTarget<'_>>, reply: CReply) -> Status {
    // SAFETY: see above.
    service(context, || Some(unsafe { (OURS.reauthorise)(context, &target?.checked()?, reply.checked()?) }))
}

unsafe extern "C" fn kv_get(context: Opaque, key: Bytes<'_>, sink: CSink) -> Status {
    // SAFETY: see above; the sink is used during this call only.
    service(context, || Some(unsafe { (OURS.kv_get)(context, key.checked()?, sink.checked()?) }))
}

unsafe extern "C" fn kv_put(context: Opaque, key: Bytes<'_>, value: Bytes<'_>) -> Status {
    // SAFETY: see above.
    service(context, || Some(unsafe { (OURS.kv_put)(context, key.checked()?, value.checked()?) }))
}

unsafe extern "C" fn kv_delete(context: Opaque, key: Bytes<'_>) -> Status {
    // SAFETY: see above.
    service(context, || Some(unsafe { (OURS.kv_delete)(context, key.checked()?) }))
}

unsafe extern "C" fn kv_list(context: Opaque, prefix: Bytes<'_>, after: Bytes<'_>, limit: u32, sink: CSink) -> Status {
    service(context, || {
        // SAFETY: see `kv_get`.
        Some(unsafe { (OURS.kv_list)(context, prefix.checked()?, after.checked()?, limit, sink.checked()?) })
    })
}

unsafe extern "C" fn metric(context: Opaque, kind: u8, name: Bytes<'_>, help: Bytes<'_>) -> Opaque {
    let (Some(name), Some(help), false) = (name.checked(), help.checked(), context.is_null()) else {
        return std::ptr::null_mut();
    };
    // SAFETY: see above.
    unsafe { (OURS.metric)(context, kind, name, help) }
}

/// A metric that was refused is recorded nowhere.
unsafe extern "C" fn metric_record(metric: Opaque, value: f64) {
    if !metric.is_null() {
        // SAFETY: the plugin got it from `metric`, and it is never freed.
        unsafe { (OURS.metric_record)(metric, value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As C would write it: a length, and no bytes.
    fn nothing_with_length<T>() -> RSlice<'static, T> {
        // SAFETY: it is only looked at.
        unsafe { RSlice::from_raw_parts(std::ptr::null(), 3) }
    }

    fn nothing<T>() -> RSlice<'static, T> {
        // SAFETY: it is only looked at.
        unsafe { RSlice::from_raw_parts(std::ptr::null(), 0) }
    }

    #[test]
    fn pointers_are_looked_at_before_they_are_followed() {
        assert_eq!(nothing::<u8>().checked().map(|bytes| bytes.len()), Some(0));
        assert!(nothing_with_length::<u8>().checked().is_none());
        // SAFETY: it is only looked at.
        let huge: Bytes<'_> = unsafe { RSlice::from_raw_parts(b"x".as_ptr(), usize::MAX) };
        assert!(huge.checked().is_none());
        let piece = |bytes| RawPiece { bytes, number: 1, key: AnswerKey::CODES };
        assert_eq!(
            items(RSlice::from(&[piece(nothing()), piece(RSlice::from(&b"ab"[..]))][..])).map(|p| p.len()),
            Some(2)
        );
        assert!(items(RSlice::from(&[piece(nothing_with_length())][..])).is_none());
        assert!(items(nothing_with_length::<RawPiece<'_>>()).is_none());
        // SAFETY: one piece is there, at an address that no piece can have.
        let odd: RSlice<'_, RawPiece<'_>> =
            unsafe { RSlice::from_raw_parts(b"0123".as_ptr().wrapping_add(1).cast(), 1) };
        assert!(odd.as_ptr().is_aligned() || items(odd).is_none());
    }

    #[test]
    fn what_is_null_is_invalid() {
        let (none, some) = (std::ptr::null_mut(), std::ptr::dangling_mut::<u64>().cast());
        let reply = CReply { context: none, done: None, flags: 0 };
        let sink = CSink { context: none, put: None };
        // SAFETY: nothing is followed, as something is null in each call.
        let refused = unsafe {
            [
                publish(some, None),
                publish(none, None),
                send(some, None, None),
                send_info(some, None, None),
                ticket(some, None),
                cancel_timer(none, 1),
                disconnect(some, 1, 0, nothing_with_length()),
                complete(some, 1, Verdict::OK, nothing_with_length()),
                query(some, None, reply),
                subscribe(some, None, reply),
                unsubscribe(some, None, reply),
                reauthorise(some, None, reply),
                kv_get(some, nothing(), sink),
                kv_put(some, nothing_with_length(), nothing()),
                kv_delete(some, nothing_with_length()),
                kv_list(some, nothing(), nothing(), 1, sink),
            ]
        };
        assert_eq!(refused, [Status::INVALID; 16]);
        // SAFETY: as above.
        unsafe {
            assert!(metric(none, 0, nothing(), nothing()).is_null());
            metric_record(none, 1.0);
            log(some, 3, nothing(), nothing_with_length(), nothing());
            panicked(some, nothing_with_length(), nothing(), nothing());
            assert!(!log_enabled(none, 1));
        }
    }
}
