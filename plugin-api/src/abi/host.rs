//! The host's table of functions.
#![allow(unsafe_code)] // They are called here, behind safe methods.

use abi_stable::StableAbi;
use abi_stable::std_types::RSlice;

use super::{
    Opaque, RawField, RawInfoRequest, RawMessage, RawPiece, RawQuery, RawSubscribeRequest, RawTarget, Reply, Sink,
    Status, Verdict,
};

/// What the host does for a plugin. Every function may be called on any thread.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostVtRef, prefix_fields = HostVtPrefix)))]
#[sabi(missing_field(option))]
pub struct HostVt {
    /// Whether a line of this level (1 error … 5 trace) would be written.
    pub log_enabled: unsafe extern "C" fn(Opaque, u8) -> bool,
    /// Writes a line: level, target (empty: the plugin), text, fields.
    pub log: unsafe extern "C" fn(Opaque, u8, RSlice<'_, u8>, RSlice<'_, u8>, RSlice<'_, RawField<'_>>),
    /// Reports a panic on the calling thread, from the plugin's panic hook: text, location, name of the thread (empty: it
    /// has none; only the copy of `std` that started a thread knows its name).
    pub panicked: unsafe extern "C" fn(Opaque, RSlice<'_, u8>, RSlice<'_, u8>, RSlice<'_, u8>),
    /// Publishes a message.
    pub publish: unsafe extern "C" fn(Opaque, &RawMessage<'_>) -> Status,
    /// Sends a message to one connection or client, whatever it has subscribed to.
    pub send: unsafe extern "C" fn(Opaque, &RawTarget<'_>, &RawMessage<'_>) -> Status,
    /// Sends a message to `handle_info` or `handle_event`. The number of its timer is written, 0 if it goes at once.
    pub send_info: unsafe extern "C" fn(Opaque, &RawInfoRequest<'_>, &mut u64) -> Status,
    /// Stops a timer, by its number.
    pub cancel_timer: unsafe extern "C" fn(Opaque, u64) -> Status,
    /// Disconnects a Network Connection: its number, Reason Code, encoded properties.
    pub disconnect: unsafe extern "C" fn(Opaque, u64, u8, RSlice<'_, u8>) -> Status,
    /// Takes a ticket for the callback that runs on this thread, and writes its number. The callback has to return
    /// [`Verdict::DEFERRED`] then.
    pub ticket: unsafe extern "C" fn(Opaque, &mut u64) -> Status,
    /// Answers by a ticket, once, on any thread: its number, the verdict, the pieces that would have gone into the sink.
    pub complete: unsafe extern "C" fn(Opaque, u64, Verdict, RSlice<'_, RawPiece<'_>>) -> Status,
    /// Asks what the server holds.
    pub query: unsafe extern "C" fn(Opaque, &RawQuery<'_>, Reply) -> Status,
    /// Subscribes for a client.
    pub subscribe: unsafe extern "C" fn(Opaque, &RawSubscribeRequest<'_>, Reply) -> Status,
    /// Ends a subscription of a client.
    pub unsubscribe: unsafe extern "C" fn(Opaque, &RawSubscribeRequest<'_>, Reply) -> Status,
    /// Has the subscriptions of a connection, a client or all asked about again.
    pub reauthorise: unsafe extern "C" fn(Opaque, &RawTarget<'_>, Reply) -> Status,
    /// Reads the value of a key into the sink.
    pub kv_get: unsafe extern "C" fn(Opaque, RSlice<'_, u8>, Sink<'_>) -> Status,
    /// Sets the value of a key.
    pub kv_put: unsafe extern "C" fn(Opaque, RSlice<'_, u8>, RSlice<'_, u8>) -> Status,
    /// Removes a key.
    pub kv_delete: unsafe extern "C" fn(Opaque, RSlice<'_, u8>) -> Status,
    /// Reads keys in order: those that begin with the first argument, behind the second one (empty: from the start), at
    /// most as many as the third says.
    pub kv_list: unsafe extern "C" fn(Opaque, RSlice<'_, u8>, RSlice<'_, u8>, u32, Sink<'_>) -> Status,
    /// Finds or makes a metric: kind ([`HostVt::COUNTER`] …), name, help. It is never freed. Null: refused.
    pub metric: unsafe extern "C" fn(Opaque, u8, RSlice<'_, u8>, RSlice<'_, u8>) -> Opaque,
    /// Adds to a counter, sets a gauge, or puts a value into a histogram. The first argument is the metric.
    #[sabi(last_prefix_field)]
    pub metric_record: unsafe extern "C" fn(Opaque, f64),
}

impl HostVt {
    /// A metric that only grows.
    pub const COUNTER: u8 = 0;
    /// A metric that is set.
    pub const GAUGE: u8 = 1;
    /// A metric whose values are sorted into buckets.
    pub const HISTOGRAM: u8 = 2;
}

/// The host's services together with the context they need.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawHost {
    context: Opaque,
    services: HostVtRef,
}

// SAFETY: `RawHost::new` demands that the functions may be called with the context on any thread, at any time.
unsafe impl Send for RawHost {}
// SAFETY: as above.
unsafe impl Sync for RawHost {}

impl RawHost {
    /// # Safety
    /// `context` must be what the functions of `services` expect, and both must stay valid, on every thread, until the
    /// process ends: a plugin's thread may outlive its instance.
    #[must_use]
    pub const unsafe fn new(context: Opaque, services: HostVtRef) -> Self {
        Self { context, services }
    }

    /// See [`HostVt::log_enabled`].
    pub fn log_enabled(self, level: u8) -> bool {
        // SAFETY: promised by whoever called `new`; the same holds for the functions below.
        unsafe { (self.services.log_enabled())(self.context, level) }
    }

    /// See [`HostVt::log`].
    pub fn log(self, level: u8, target: &str, text: &str, fields: &[RawField<'_>]) {
        let (target, text) = (target.as_bytes().into(), text.as_bytes().into());
        // SAFETY: see `log_enabled`.
        unsafe { (self.services.log())(self.context, level, target, text, fields.into()) }
    }

    /// See [`HostVt::panicked`].
    pub fn panicked(self, text: &str, location: &str, thread: &str) {
        // SAFETY: see `log_enabled`.
        unsafe {
            let panicked = self.services.panicked();
            panicked(self.context, text.as_bytes().into(), location.as_bytes().into(), thread.as_bytes().into());
        }
    }

    /// See [`HostVt::publish`].
    pub fn publish(self, message: &RawMessage<'_>) -> Status {
        // SAFETY: see `log_enabled`.
        unsafe { (self.services.publish())(self.context, message) }
    }

    /// See [`HostVt::send`].
    pub fn send(self, target: &RawTarget<'_>, message: &RawMessage<'_>) -> Status {
        // SAFETY: see `log_enabled`.
        unsafe { (self.services.send())(self.context, target, message) }
    }

    /// See [`HostVt::send_info`].
    pub fn send_info(self, request: &RawInfoRequest<'_>, timer: &mut u64) -> Status {
        // SAFETY: see `log_enabled`.
        unsafe { (self.services.send_info())(self.context, request, timer) }
    }

    /// See [`HostVt::cancel_timer`].
    pub fn cancel_timer(self, timer: u64) -> Status {
        // SAFETY: see `log_enabled`.
        unsafe { (self.services.cancel_timer())(self.context, timer) }
    }

    /// See [`HostVt::disconnect`].
    pub fn disconnect(self, connection: u64, reason_code: u8, properties: &[u8]) -> Status {
        // SAFETY: see `log_enabled`.
        unsafe { (self.services.disconnect())(self.context, connection, reason_code, properties.into()) }
    }

    /// See [`HostVt::ticket`].
    pub fn ticket(self, number: &mut u64) -> Status {
        // SAFETY: see `log_enabled`.
        unsafe { (self.services.ticket())(self.context, number) }
    }

    /// See [`HostVt::complete`].
    pub fn complete(self, ticket: u64, verdict: Verdict, pieces: &[RawPiece<'_>]) -> Status {
        // SAFETY: see `log_enabled`.
        unsafe { (self.services.complete())(self.context, ticket, verdict, pieces.into()) }
    }

    /// See [`HostVt::query`].
    pub fn query(self, query: &RawQuery<'_>, reply: Reply) -> Status {
        // SAFETY: see `log_enabled`; whoever made the reply answers for it.
        unsafe { (self.services.query())(self.context, query, reply) }
    }

    /// See [`HostVt::subscribe`].
    pub fn subscribe(self, request: &RawSubscribeRequest<'_>, reply: Reply) -> Status {
        // SAFETY: see `query`.
        unsafe { (self.services.subscribe())(self.context, request, reply) }
    }

    /// See [`HostVt::unsubscribe`].
    pub fn unsubscribe(self, request: &RawSubscribeRequest<'_>, reply: Reply) -> Status {
        // SAFETY: see `query`.
        unsafe { (self.services.unsubscribe())(self.context, request, reply) }
    }

    /// See [`HostVt::reauthorise`].
    pub fn reauthorise(self, target: &RawTarget<'_>, reply: Reply) -> Status {
        // SAFETY: see `query`.
        unsafe { (self.services.reauthorise())(self.context, target, reply) }
    }

    /// See [`HostVt::kv_get`].
    pub fn kv_get(self, key: &[u8], sink: Sink<'_>) -> Status {
        // SAFETY: see `log_enabled`.
        unsafe { (self.services.kv_get())(self.context, key.into(), sink) }
    }

    /// See [`HostVt::kv_put`].
    pub fn kv_put(self, key: &[u8], value: &[u8]) -> Status {
        // SAFETY: see `log_enabled`.
        unsafe { (self.services.kv_put())(self.context, key.into(), value.into()) }
    }

    /// See [`HostVt::kv_delete`].
    pub fn kv_delete(self, key: &[u8]) -> Status {
        // SAFETY: see `log_enabled`.
        unsafe { (self.services.kv_delete())(self.context, key.into()) }
    }

    /// See [`HostVt::kv_list`].
    pub fn kv_list(self, prefix: &[u8], after: &[u8], limit: u32, sink: Sink<'_>) -> Status {
        // SAFETY: see `log_enabled`.
        unsafe { (self.services.kv_list())(self.context, prefix.into(), after.into(), limit, sink) }
    }

    /// See [`HostVt::metric`].
    pub fn metric(self, kind: u8, name: &str, help: &str) -> Option<RawMetric> {
        // SAFETY: see `log_enabled`.
        let metric =
            unsafe { (self.services.metric())(self.context, kind, name.as_bytes().into(), help.as_bytes().into()) };
        (!metric.is_null()).then(|| RawMetric { metric, record: self.services.metric_record() })
    }
}

/// A metric that the host keeps.
#[derive(Clone, Copy)]
pub struct RawMetric {
    metric: Opaque,
    record: unsafe extern "C" fn(Opaque, f64),
}

// SAFETY: every function of `HostVt` may be called on any thread, and metrics are never freed.
unsafe impl Send for RawMetric {}
// SAFETY: as above.
unsafe impl Sync for RawMetric {}

impl RawMetric {
    /// See [`HostVt::metric_record`].
    #[inline]
    pub fn record(self, value: f64) {
        // SAFETY: `RawHost::metric` got the metric from the host that the function belongs to.
        unsafe { (self.record)(self.metric, value) }
    }
}
