//! The services of the test's host: the functions that a handler calls, on any thread.
#![allow(unsafe_code)] // They get a pointer that has to become a reference.

use std::cell::Cell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use abi_stable::prefix_type::WithMetadata;
use abi_stable::std_types::RSlice;

use super::effects::{Disconnection, LogLine, Recorded, Sent, Target};
use super::world::{OwnPieces, Request, World, string, subscription_of, target_of};
use crate::abi::{
    AnswerKey, HostVt, HostVtRef, Opaque, RawField, RawHost, RawInfoRequest, RawMessage, RawPiece, RawQuery,
    RawSubscribeRequest, RawTarget, Reply, Sink, Status, Verdict,
};
use crate::reading::{self, Answer, Packet, Place};
use crate::{Callback, ConnectionId, Level, Message, ReasonCode, topic};

/// Tickets that may be open.
const TICKETS_MAX: usize = 1024;

/// Metrics that a handler may have, and bytes of a metric's name.
const METRICS_MAX: usize = 1000;
const METRIC_NAME_BYTES_MAX: usize = 200;

/// What one host of a test has. It is never freed, as a thread of the handler may outlive everything else.
pub(super) struct Services {
    world: Mutex<World>,
    /// An answer by a ticket has come.
    answered: Condvar,
    patience: Mutex<Duration>,
    metrics: Mutex<Vec<&'static Metric>>,
}

/// A counter, gauge or histogram.
struct Metric {
    kind: u8,
    name: String,
    recorded: Mutex<Recorded>,
}

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scope {
    callback: Option<Callback>,
    connection: u64,
}

impl Scope {
    /// A call that is no callback.
    pub(super) const OTHER: Self = Self { callback: None, connection: 0 };

    /// A callback, about a connection unless that is 0.
    pub(super) const fn of(callback: Option<Callback>, connection: u64) -> Self {
        Self { callback, connection }
    }

    const fn may_defer(self) -> bool {
        use Callback as C;
        matches!(self.callback, Some(C::Connect | C::Auth | C::Publish | C::Subscribe | C::Unsubscribe | C::Info))
    }
}

/// A call into the handler that runs on a thread.
#[derive(Clone, Copy)]
struct Running {
    /// Whose, as a number to compare.
    services: usize,
    scope: Scope,
    ticket: Option<u64>,
}

thread_local! {
    static RUNNING: Cell<Option<Running>> = const { Cell::new(None) };
}

impl Services {
    pub(super) fn leak(patience: Duration) -> &'static Self {
        Box::leak(Box::new(Self {
            world: Mutex::default(),
            answered: Condvar::new(),
            patience: Mutex::new(patience),
            metrics: Mutex::default(),
        }))
    }

    pub(super) fn raw(&'static self) -> RawHost {
        let table = const { &WithMetadata::new(TABLE) };
        // SAFETY: the functions below expect a `Services`, which is `Sync` and never freed.
        unsafe { RawHost::new(std::ptr::from_ref(self).cast_mut().cast(), HostVtRef(table.static_as_prefix())) }
    }

    /// What there is. Nothing of the handler's runs while it is locked.
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        // What panics under the lock is the test's own thread, and the test with it.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_patience(&self, patience: Duration) {
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner) = patience;
    }

    /// Runs a call into the handler.
    pub(super) fn inside<T>(&self, scope: Scope, call: impl FnOnce() -> T) -> T {
        self.inside_with_ticket(scope, call).0
    }

    /// The same; with the ticket that the callback has taken.
    pub(super) fn inside_with_ticket<T>(&self, scope: Scope, call: impl FnOnce() -> T) -> (T, Option<u64>) {
        let services = std::ptr::from_ref(self).addr();
        let before = RUNNING.replace(Some(Running { services, scope, ticket: None }));
        let result = call();
        let ran = RUNNING.replace(before);
        (result, ran.and_then(|ran| ran.ticket))
    }

    /// The call that runs on this thread, if it is one into this host's handler.
    fn running(&self) -> Option<Running> {
        RUNNING.get().filter(|running| running.services == std::ptr::from_ref(self).addr())
    }

    /// A line of the host's about the handler.
    pub(super) fn say(&self, level: Level, text: &str) {
        self.say_in(Scope::OTHER, level, text);
    }

    pub(super) fn say_in(&self, scope: Scope, level: Level, text: &str) {
        self.log(scope, level, "host".to_owned(), text.to_owned(), Vec::new());
    }

    fn log(&self, scope: Scope, level: Level, target: String, text: String, fields: Vec<(String, String)>) {
        let connection = (scope.connection != 0).then_some(ConnectionId(scope.connection));
        self.world().logs.push(LogLine { level, target, text, fields, callback: scope.callback, connection });
    }

    /// Waits for the answer by a ticket. `None`: it has not come in time, and nobody waits for it any more.
    pub(super) fn wait(&self, ticket: u64) -> Option<(Verdict, Answer)> {
        let deadline = Instant::now() + *self.patience.lock().unwrap_or_else(PoisonError::into_inner);
        let mut world = self.world();
        loop {
            match world.tickets.get_mut(&ticket) {
                Some(answer) if answer.is_some() => return world.tickets.remove(&ticket).flatten(),
                Some(_) => {}
                None => return None,
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                world.tickets.remove(&ticket);
                return None;
            }
            world = self.answered.wait_timeout(world, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nobody waits for a ticket.
    pub(super) fn forget(&self, ticket: u64) {
        self.world().tickets.remove(&ticket);
    }

    /// Answers what the handler has asked for. What only the test's thread can answer is returned.
    pub(super) fn answer_requests(&self) -> Option<(Target, Reply)> {
        loop {
            let mut world = self.world();
            let (request, reply) = world.requests.pop_front()?;
            let answer = world.answer(&request);
            drop(world);
            match (answer, request) {
                (Some(answer), _) => give(reply, answer),
                (None, Request::Reauthorise { target }) => return Some((target, reply)),
                (None, _) => give(reply, Err(Status::NOT_SUPPORTED)),
            }
        }
    }

    /// Nothing is done any more.
    pub(super) fn close(&self) {
        let requests = {
            let mut world = self.world();
            world.is_closed = true;
            std::mem::take(&mut world.requests)
        };
        for (_, reply) in requests {
            give(reply, Err(Status::NOT_RUNNING));
        }
    }

    pub(super) fn recorded(&self, name: &str) -> Option<Recorded> {
        let metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let metric = metrics.iter().find(|metric| metric.name == name)?;
        Some(*metric.recorded.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A request that is answered: at once, unless a callback runs here, or only the test's thread can.
    fn ask(&self, reply: Reply, request: Result<Request, Status>) -> Status {
        let request = match request {
            Ok(request) => request,
            Err(status) => return status,
        };
        let is_inside = self.running().is_some();
        if is_inside && reply.flags & Reply::WAITS != 0 {
            return Status::NOT_HERE;
        }
        let mut world = self.world();
        if world.is_closed {
            return Status::NOT_RUNNING;
        }
        if world.is_full() {
            return Status::FULL;
        }
        let answer = if is_inside { None } else { world.answer(&request) };
        match answer {
            Some(answer) => {
                drop(world);
                give(reply, answer);
            }
            None => world.requests.push_back((request, reply)),
        }
        Status::OK
    }

    /// Does something with what there is, while the host runs.
    fn with(&self, act: impl FnOnce(&mut World) -> Result<(), Status>) -> Status {
        let mut world = self.world();
        if world.is_closed {
            return Status::NOT_RUNNING;
        }
        act(&mut world).err().unwrap_or(Status::OK)
    }

    /// The same with something that takes room in the host.
    fn request(&self, act: impl FnOnce(&mut World) -> Result<(), Status>) -> Status {
        self.with(|world| if world.is_full() { Err(Status::FULL) } else { act(world) })
    }
}

/// Answers a request.
pub(super) fn give(reply: Reply, answer: Result<OwnPieces, Status>) {
    let (status, pieces) = match answer {
        Ok(pieces) => (Status::OK, pieces),
        Err(status) => (status, Vec::new()),
    };
    let mut raw: Vec<RawPiece<'_>> = Vec::new();
    for (key, number, bytes) in &pieces {
        raw.push(RawPiece { bytes: bytes.as_slice().into(), number: *number, key: *key });
    }
    // SAFETY: whoever made the reply promises that it may be called with its context, once, on any thread.
    unsafe { (reply.done)(reply.context, status, raw.as_slice().into()) };
}

/// A message of the handler's, checked as the host does.
fn message(raw: &RawMessage<'_>) -> Result<Message, Status> {
    let view = reading::message_of(raw, super::PACKET_BYTES_MAX)?;
    Ok(Message {
        topic: view.topic.to_owned(),
        payload: view.payload.to_vec(),
        qos: view.qos,
        retain: view.retain,
        properties: view.properties.into(),
        token: view.token,
    })
}

fn of(context: Opaque) -> &'static Services {
    // SAFETY: `Services::raw` gave the pointer out, and what it points to is never freed.
    unsafe { &*context.cast::<Services>() }
}

fn lossy(bytes: RSlice<'_, u8>) -> String {
    let bytes = bytes.as_slice();
    String::from_utf8_lossy(&bytes[..bytes.len().min(reading::TEXT_BYTES_MAX)]).into_owned()
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
    true
}

unsafe extern "C" fn log(
    context: Opaque,
    level: u8,
    target: RSlice<'_, u8>,
    text: RSlice<'_, u8>,
    fields: RSlice<'_, RawField<'_>>,
) {
    let level = match level {
        0 | 1 => Level::Error,
        2 => Level::Warn,
        3 => Level::Info,
        4 => Level::Debug,
        _ => Level::Trace,
    };
    let services = of(context);
    let scope = services.running().map_or(Scope::OTHER, |running| running.scope);
    let fields = fields.as_slice().iter().map(|field| (lossy(field.name), lossy(field.value))).collect();
    services.log(scope, level, lossy(target), lossy(text), fields);
}

unsafe extern "C" fn panicked(context: Opaque, text: RSlice<'_, u8>, _: RSlice<'_, u8>, _: RSlice<'_, u8>) {
    of(context).say(Level::Error, &format!("a thread of the handler panicked: {}", lossy(text)));
}

unsafe extern "C" fn publish(context: Opaque, raw: &RawMessage<'_>) -> Status {
    of(context).request(|world| {
        let message = message(raw)?;
        if message.retain {
            world.to_retain.push_back(message.clone());
        }
        world.publishes.push(message);
        Ok(())
    })
}

unsafe extern "C" fn send(context: Opaque, target: &RawTarget<'_>, raw: &RawMessage<'_>) -> Status {
    of(context).request(|world| {
        let (target, message) = (target_of(target)?, message(raw)?);
        if matches!(target, Target::All | Target::Plugin) {
            return Err(Status::INVALID);
        }
        for number in world.connections_of(&target) {
            if let Some(client) = world.clients.get_mut(&number) {
                client.received.push(message.clone());
            }
        }
        world.sends.push(Sent { target, message });
        Ok(())
    })
}

unsafe extern "C" fn send_info(context: Opaque, request: &RawInfoRequest<'_>, timer: &mut u64) -> Status {
    *timer = 0;
    let services = of(context);
    let from = services.running().map_or(0, |running| running.scope.connection);
    let status = services.request(|world| {
        let (target, kind) = (target_of(&request.target)?, string(request.kind.as_slice())?);
        let times = (request.delay_ms, request.interval_ms);
        *timer = world.post((target, from), &kind, request.data.as_slice(), times)?;
        Ok(())
    });
    services.answered.notify_all();
    status
}

unsafe extern "C" fn cancel_timer(context: Opaque, timer: u64) -> Status {
    of(context).with(|world| {
        world.mail.retain(|mail| timer == 0 || mail.timer != timer);
        Ok(())
    })
}

unsafe extern "C" fn disconnect(
    context: Opaque,
    connection: u64,
    reason_code: u8,
    properties: RSlice<'_, u8>,
) -> Status {
    let services = of(context);
    let (Ok(asked), Ok(properties)) =
        (reading::disconnection(reason_code.into()), reading::properties(Place::Farewell, properties.as_slice()))
    else {
        return Status::INVALID;
    };
    let reason_code = if Packet::Disconnect.may_have(asked) {
        asked
    } else {
        services.say(Level::Warn, &Packet::Disconnect.misfit(asked));
        Packet::INSTEAD
    };
    services.request(|world| {
        let end = Disconnection { connection: ConnectionId(connection), reason_code, properties: properties.into() };
        world.to_end.push_back(end.clone());
        world.disconnects.push(end);
        Ok(())
    })
}

unsafe extern "C" fn ticket(context: Opaque, number: &mut u64) -> Status {
    *number = Answer::NO_TICKET;
    let services = of(context);
    let Some(running) = services.running().filter(|running| running.scope.may_defer()) else {
        return Status::NOT_HERE;
    };
    if running.ticket.is_some() {
        return Status::INVALID;
    }
    let status = services.with(|world| {
        if world.tickets.len() >= TICKETS_MAX {
            return Err(Status::FULL);
        }
        *number = world.number();
        world.tickets.insert(*number, None);
        Ok(())
    });
    if status == Status::OK {
        RUNNING.set(Some(Running { ticket: Some(*number), ..running }));
    }
    status
}

unsafe extern "C" fn complete(
    context: Opaque,
    ticket: u64,
    verdict: Verdict,
    pieces: RSlice<'_, RawPiece<'_>>,
) -> Status {
    let (services, answer) = (of(context), Answer::of(pieces.as_slice()));
    let status = services.with(|world| match world.tickets.get_mut(&ticket) {
        Some(Some(_)) => Err(Status::INVALID),
        Some(open) => {
            *open = Some((verdict, answer));
            Ok(())
        }
        None => Err(Status::GONE),
    });
    services.answered.notify_all();
    status
}

unsafe extern "C" fn query(context: Opaque, query: &RawQuery<'_>, reply: Reply) -> Status {
    let request = || {
        let (target, filter) = (target_of(&query.target)?, string(query.filter.as_slice())?);
        let is_filter = query.kind != RawQuery::RETAINED || filter.is_empty() || topic::is_valid_filter(&filter);
        if target == Target::Plugin || !is_filter {
            return Err(Status::INVALID);
        }
        let after = query.cursor.as_slice().to_vec();
        Ok(Request::Query { kind: query.kind, target, filter, limit: query.limit, after })
    };
    of(context).ask(reply, request())
}

unsafe extern "C" fn subscribe(context: Opaque, raw: &RawSubscribeRequest<'_>, reply: Reply) -> Status {
    let request = subscription_of(raw);
    of(context).ask(reply, request.map(|(target, filter, granted)| Request::Subscribe { target, filter, granted }))
}

unsafe extern "C" fn unsubscribe(context: Opaque, raw: &RawSubscribeRequest<'_>, reply: Reply) -> Status {
    let request = subscription_of(raw);
    of(context).ask(reply, request.map(|(target, filter, _)| Request::Unsubscribe { target, filter }))
}

unsafe extern "C" fn reauthorise(context: Opaque, target: &RawTarget<'_>, reply: Reply) -> Status {
    let request = target_of(target).and_then(|target| match target {
        Target::Plugin => Err(Status::INVALID),
        target => Ok(Request::Reauthorise { target }),
    });
    of(context).ask(reply, request)
}

unsafe extern "C" fn kv_get(context: Opaque, key: RSlice<'_, u8>, sink: Sink<'_>) -> Status {
    let value = of(context).world().store.get(key.as_slice()).cloned();
    value.map_or(Status::NOT_FOUND, |value| {
        sink.put(AnswerKey::VALUE, 0, &value);
        Status::OK
    })
}

unsafe extern "C" fn kv_put(context: Opaque, key: RSlice<'_, u8>, value: RSlice<'_, u8>) -> Status {
    of(context).with(|world| world.put(key.as_slice(), value.as_slice()))
}

unsafe extern "C" fn kv_delete(context: Opaque, key: RSlice<'_, u8>) -> Status {
    of(context).with(|world| world.store.remove(key.as_slice()).map(|_| ()).ok_or(Status::NOT_FOUND))
}

unsafe extern "C" fn kv_list(
    context: Opaque,
    prefix: RSlice<'_, u8>,
    after: RSlice<'_, u8>,
    limit: u32,
    sink: Sink<'_>,
) -> Status {
    let keys = of(context).world().keys(prefix.as_slice(), after.as_slice(), limit as usize);
    keys.iter().for_each(|key| sink.put(AnswerKey::KEY, 0, key));
    Status::OK
}

unsafe extern "C" fn metric(context: Opaque, kind: u8, name: RSlice<'_, u8>, _: RSlice<'_, u8>) -> Opaque {
    let refused = std::ptr::null_mut();
    let (services, name) = (of(context), lossy(name));
    let mut metrics = services.metrics.lock().unwrap_or_else(PoisonError::into_inner);
    let found = match metrics.iter().find(|metric| metric.name == name) {
        Some(metric) if metric.kind == kind => *metric,
        Some(_) => return refused,
        None if metrics.len() >= METRICS_MAX || kind > HostVt::HISTOGRAM || !is_metric_name(&name) => return refused,
        None => {
            let recorded = Mutex::new(Recorded { count: 0, value: 0.0 });
            let metric: &Metric = Box::leak(Box::new(Metric { kind, name, recorded }));
            metrics.push(metric);
            metric
        }
    };
    std::ptr::from_ref(found).cast_mut().cast()
}

/// One that Prometheus takes.
fn is_metric_name(name: &str) -> bool {
    (1..=METRIC_NAME_BYTES_MAX).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

unsafe extern "C" fn metric_record(metric: Opaque, value: f64) {
    // SAFETY: `metric` gave the pointer out, and what it points to is never freed.
    let metric: &Metric = unsafe { &*metric.cast::<Metric>() };
    if metric.kind != HostVt::GAUGE && (value.is_nan() || metric.kind == HostVt::COUNTER && value < 0.0) {
        return;
    }
    let mut recorded = metric.recorded.lock().unwrap_or_else(PoisonError::into_inner);
    recorded.count += 1;
    recorded.value = if metric.kind == HostVt::GAUGE { value } else { recorded.value + value };
}

/// The Reason Code that a message, or each Topic Filter, is refused with if the handler does not answer in time.
pub(super) const LATE_CODE: ReasonCode = ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR;
