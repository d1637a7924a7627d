//! A host, made by hand: it gives tickets out, takes answers, and calls a handler as the real one does.
#![allow(unsafe_code)] // Both sides of the boundary are called here.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use abi_stable::prefix_type::WithMetadata;
use abi_stable::std_types::{RSlice, RStr};
use plugin_api::Handler;
use plugin_api::abi::{
    AnswerKey, HostVt, HostVtRef, Opaque, PluginVtRef, RawAuth, RawConnect, RawConnectionInfo, RawDisconnect, RawField,
    RawHost, RawInfo, RawInfoRequest, RawMessage, RawPiece, RawPublish, RawQuery, RawSubscribe, RawSubscribeRequest,
    RawSubscription, RawTarget, RawUnsubscribe, Reply, Sink, Status, Verdict,
};

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer: the verdict, and the pieces as key, number and bytes.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) verdict: Verdict,
    pub(crate) pieces: Vec<(AnswerKey, u64, Vec<u8>)>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        let text = self.pieces.iter().find(|(key, ..)| *key == AnswerKey::TEXT);
        text.map(|(_, _, bytes)| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
    }
}

/// The host. It is never freed.
#[derive(Default)]
pub(crate) struct FakeHost {
    tickets: AtomicU64,
    /// What it answers to whoever wants a ticket.
    refuses_tickets: AtomicU8,
    answers: Mutex<HashMap<u64, Answer>>,
    changed: Condvar,
}

thread_local! {
    /// Whether a callback runs on this thread that has not taken its ticket.
    static MAY_DEFER: Cell<bool> = const { Cell::new(false) };
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl FakeHost {
    pub(crate) fn leak() -> &'static Self {
        Box::leak(Box::default())
    }

    pub(crate) fn refuse_tickets(&self, status: Status) {
        self.refuses_tickets.store(status.0, Ordering::Relaxed);
    }

    /// How many tickets it has given out; they are numbered from 1.
    pub(crate) fn tickets(&self) -> u64 {
        self.tickets.load(Ordering::Relaxed)
    }

    /// The answer by a ticket, if there is one.
    pub(crate) fn answered(&self, ticket: u64) -> Option<Answer> {
        self.answers.lock().unwrap().remove(&ticket)
    }

    /// Waits for the answer by a ticket.
    #[track_caller]
    pub(crate) fn wait_answer(&self, ticket: u64) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        let mut answers = self.answers.lock().unwrap();
        loop {
            if let Some(answer) = answers.remove(&ticket) {
                return answer;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no answer by ticket {ticket}");
            answers = self.changed.wait_timeout(answers, left).unwrap().0;
        }
    }

    fn raw(&'static self) -> RawHost {
        let services = const { &WithMetadata::new(TABLE) };
        // SAFETY: the functions below expect a `FakeHost`, which is `Sync` and never freed.
        unsafe { RawHost::new(std::ptr::from_ref(self).cast_mut().cast(), HostVtRef(services.static_as_prefix())) }
    }
}

fn host(context: Opaque) -> &'static FakeHost {
    // SAFETY: `FakeHost::raw` gave the pointer out.
    unsafe { &*context.cast::<FakeHost>() }
}

unsafe extern "C" fn ticket(context: Opaque, number: &mut u64) -> Status {
    let host = host(context);
    if !INSIDE.get() {
        return Status::NOT_HERE;
    }
    if !MAY_DEFER.replace(false) {
        return Status::INVALID;
    }
    let status = Status(host.refuses_tickets.load(Ordering::Relaxed));
    if status == Status::OK {
        *number = host.tickets.fetch_add(1, Ordering::Relaxed) + 1;
    }
    status
}

unsafe extern "C" fn complete(
    context: Opaque,
    ticket: u64,
    verdict: Verdict,
    pieces: RSlice<'_, RawPiece<'_>>,
) -> Status {
    let host = host(context);
    if ticket == 0 || ticket > host.tickets() {
        return Status::INVALID;
    }
    let owned = |piece: &RawPiece<'_>| (piece.key, piece.number, piece.bytes.to_vec());
    let answer = Answer { verdict, pieces: pieces.iter().map(owned).collect() };
    let before = host.answers.lock().unwrap().insert(ticket, answer);
    assert!(before.is_none(), "ticket {ticket} was answered twice");
    host.changed.notify_all();
    Status::OK
}

const TABLE: HostVt = HostVt {
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

unsafe extern "C" fn log_enabled(_: Opaque, _: u8) -> bool {
    false
}
unsafe extern "C" fn log(_: Opaque, _: u8, _: RSlice<'_, u8>, _: RSlice<'_, u8>, _: RSlice<'_, RawField<'_>>) {}
unsafe extern "C" fn panicked(_: Opaque, _: RSlice<'_, u8>, _: RSlice<'_, u8>, _: RSlice<'_, u8>) {}
unsafe extern "C" fn publish(_: Opaque, _: &RawMessage<'_>) -> Status {
    Status::NOT_SUPPORTED
}
unsafe extern "C" fn send(_: Opaque, _: &RawTarget<'_>, _: &RawMessage<'_>) -> Status {
    Status::NOT_SUPPORTED
}
unsafe extern "C" fn send_info(_: Opaque, _: &RawInfoRequest<'_>, _: &mut u64) -> Status {
    Status::NOT_SUPPORTED
}
unsafe extern "C" fn cancel_timer(_: Opaque, _: u64) -> Status {
    Status::NOT_SUPPORTED
}
unsafe extern "C" fn disconnect(_: Opaque, _: u64, _: u8, _: RSlice<'_, u8>) -> Status {
    Status::NOT_SUPPORTED
}
unsafe extern "C" fn query(_: Opaque, _: &RawQuery<'_>, _: Reply) -> Status {
    Status::NOT_SUPPORTED
}
unsafe extern "C" fn subscribe(_: Opaque, _: &RawSubscribeRequest<'_>, _: Reply) -> Status {
    Status::NOT_SUPPORTED
}
unsafe extern "C" fn unsubscribe(_: Opaque, _: &RawSubscribeRequest<'_>, _: Reply) -> Status {
    Status::NOT_SUPPORTED
}
unsafe extern "C" fn reauthorise(_: Opaque, _: &RawTarget<'_>, _: Reply) -> Status {
    Status::NOT_SUPPORTED
}
unsafe extern "C" fn kv_get(_: Opaque, _: RSlice<'_, u8>, _: Sink<'_>) -> Status {
    Status::NOT_SUPPORTED
}
unsafe extern "C" fn kv_put(_: Opaque, _: RSlice<'_, u8>, _: RSlice<'_, u8>) -> Status {
    Status::NOT_SUPPORTED
}
unsafe extern "C" fn kv_delete(_: Opaque, _: RSlice<'_, u8>) -> Status {
    Status::NOT_SUPPORTED
}
unsafe extern "C" fn kv_list(_: Opaque, _: RSlice<'_, u8>, _: RSlice<'_, u8>, _: u32, _: Sink<'_>) -> Status {
    Status::NOT_SUPPORTED
}
unsafe extern "C" fn metric(_: Opaque, _: u8, _: RSlice<'_, u8>, _: RSlice<'_, u8>) -> Opaque {
    std::ptr::null_mut()
}
unsafe extern "C" fn metric_record(_: Opaque, _: f64) {}

/// An instance of a handler.
pub(crate) struct Plugin {
    table: PluginVtRef,
    instance: Opaque,
    pub(crate) host: &'static FakeHost,
}

/// A connection's state.
pub(crate) struct State(Opaque);

unsafe extern "C" fn put(context: Opaque, key: AnswerKey, number: u64, bytes: RSlice<'_, u8>) {
    // SAFETY: `Plugin::call` made the sink with its list.
    let pieces = unsafe { &mut *context.cast::<Vec<(AnswerKey, u64, Vec<u8>)>>() };
    pieces.push((key, number, bytes.to_vec()));
}

/// Runs a call as the host does: with a sink, and as the callback of this thread.
fn call(call: impl FnOnce(Sink<'_>) -> Verdict) -> Answer {
    let mut pieces = Vec::new();
    // SAFETY: `put` gets the list back, and the sink is not used after the call.
    let sink = unsafe { Sink::new((&raw mut pieces).cast(), put) };
    INSIDE.set(true);
    MAY_DEFER.set(true);
    let verdict = call(sink);
    INSIDE.set(false);
    Answer { verdict, pieces }
}

const NOTHING: *const c_void = std::ptr::null();

impl Plugin {
    pub(crate) fn new<H: Handler>(config: &str) -> Self {
        let (table, host) = (plugin_api::__private::static_plugin::<H>("test", "1.0.0"), FakeHost::leak());
        let mut instance = std::ptr::null_mut();
        call(|sink| {
            // SAFETY: the host is never freed.
            instance = unsafe { table.instance_new()(host.raw(), RStr::from_str(config), sink) };
            Verdict::OK
        });
        assert!(!instance.is_null(), "init succeeds");
        Self { table, instance, host }
    }

    pub(crate) fn connection(&self) -> State {
        let peer = std::net::SocketAddr::from(([192, 0, 2, 7], 1883)).into();
        let info = RawConnectionInfo { listener: RStr::from_str("tcp"), connection: 1, peer, extension: NOTHING };
        let mut state = std::ptr::null_mut();
        call(|sink| {
            // SAFETY: the instance is there; the same holds for the calls below, which take `&self` and a `State`.
            state = unsafe { self.table.connection_new()(self.instance, &info, sink) };
            Verdict::OK
        });
        assert!(!state.is_null(), "new_connection succeeds");
        State(state)
    }

    pub(crate) fn connect(&self, state: &mut State, client_id: &str) -> Answer {
        let will = raw_publish("will/topic", b"gone", RawPublish::WILL | RawPublish::RETAIN, 0);
        let connect = RawConnect {
            client_id: RStr::from_str(client_id),
            username: RStr::from_str("user"),
            password: b"secret"[..].into(),
            properties: RSlice::EMPTY,
            will: Some(&will),
            listener: RStr::from_str("tcp"),
            connection: 7,
            peer: std::net::SocketAddr::from(([192, 0, 2, 7], 1883)).into(),
            keep_alive: 30,
            protocol_version: 5,
            flags: RawConnect::HAS_USERNAME | RawConnect::HAS_PASSWORD | RawConnect::CLEAN_START,
            extension: NOTHING,
        };
        // SAFETY: see `connection`.
        call(|sink| unsafe { self.table.connect()(self.instance, state.0, &connect, sink) })
    }

    pub(crate) fn auth(&self, state: &mut State, method: &str) -> Answer {
        let (method, data) = (RStr::from_str(method), b"data"[..].into());
        let auth =
            RawAuth { method, data, properties: RSlice::EMPTY, step: 2, flags: RawAuth::HAS_DATA, extension: NOTHING };
        // SAFETY: see `connection`.
        call(|sink| unsafe { self.table.auth()(self.instance, state.0, &auth, sink) })
    }

    pub(crate) fn publish(&self, state: &mut State, topic: &str, payload: &[u8]) -> Answer {
        let publish = raw_publish(topic, payload, RawPublish::DUP, 9);
        // SAFETY: see `connection`.
        call(|sink| unsafe { self.table.publish()(self.instance, state.0, &publish, sink) })
    }

    pub(crate) fn subscribe(&self, state: &mut State, filter: &str) -> Answer {
        let subscription = RawSubscription {
            filter: RStr::from_str(filter),
            share_name: RStr::from_str("group"),
            qos: 1,
            retain_handling: 2,
            flags: RawSubscription::SHARED | RawSubscription::AGAIN,
            reason_code: 1,
            extension: NOTHING,
        };
        let subscriptions = [subscription, RawSubscription { flags: RawSubscription::NO_LOCAL, ..subscription }];
        let subscribe =
            RawSubscribe { subscriptions: subscriptions[..].into(), properties: RSlice::EMPTY, extension: NOTHING };
        // SAFETY: see `connection`.
        call(|sink| unsafe { self.table.subscribe()(self.instance, state.0, &subscribe, sink) })
    }

    pub(crate) fn unsubscribe(&self, state: &mut State, filter: &str) -> Answer {
        let filters = [RStr::from_str(filter)];
        let unsubscribe = RawUnsubscribe { filters: filters[..].into(), properties: RSlice::EMPTY, extension: NOTHING };
        // SAFETY: see `connection`.
        call(|sink| unsafe { self.table.unsubscribe()(self.instance, state.0, &unsubscribe, sink) })
    }

    pub(crate) fn info(&self, state: &mut State, kind: &str) -> Answer {
        let kind = RStr::from_str(kind);
        let info = RawInfo { kind, data: RSlice::EMPTY, connection: 0, timer: 0, sender: 0, extension: NOTHING };
        // SAFETY: see `connection`.
        call(|sink| unsafe { self.table.info()(self.instance, state.0, &info, sink) })
    }

    pub(crate) fn disconnect(&self, state: &mut State) -> Answer {
        let reason = RawDisconnect { text: RStr::from_str(""), kind: 3, reason_code: 0, extension: NOTHING };
        // SAFETY: see `connection`.
        call(|sink| unsafe { self.table.disconnect()(self.instance, state.0, &reason, sink) })
    }

    pub(crate) fn cancelled(&self, ticket: u64) -> Answer {
        // SAFETY: see `connection`.
        call(|sink| unsafe { self.table.cancelled()(self.instance, ticket, sink) })
    }

    pub(crate) fn drop_connection(&self, state: State) -> Answer {
        // SAFETY: the state is used up.
        call(|sink| unsafe { self.table.connection_drop()(state.0, sink) })
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        // SAFETY: this is the last call.
        call(|sink| unsafe { self.table.instance_drop()(self.instance, sink) });
    }
}

fn raw_publish<'a>(topic: &'a str, payload: &'a [u8], flags: u8, packet_id: u16) -> RawPublish<'a> {
    RawPublish {
        topic: RStr::from_str(topic),
        payload: payload.into(),
        // A Topic Alias, and a User Property.
        properties: b"\x23\x00\x05\x26\x00\x01a\x00\x01b"[..].into(),
        packet_id,
        qos: 1,
        flags,
        extension: NOTHING,
    }
}
