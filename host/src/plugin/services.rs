//! What plugins may ask of the host.
//!
//! A request becomes mail to the workers. One that a plugin makes inside a callback is kept until the callback has
//! returned, so that nothing that it asks for happens while it runs, on this worker or another.
#![allow(unsafe_code)] // Plugins call these functions with a pointer that has to become a reference.

mod asker;
mod holdings;
mod log;
mod metrics;
mod store;
mod table;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use abi_stable::prefix_type::WithMetadata;
use abi_stable::std_types::RSlice;
use plugin_api::abi::{
    HostVt, HostVtRef, Opaque, RawField, RawHost, RawMessage, RawPiece, RawPublish, RawTarget, Status, Verdict,
};
use plugin_api::{PropertiesBuf, Property, QoS};
use tracing::Level;

pub use self::asker::{Asker, Pieces};
use self::holdings::{AllHoldings, Holdings};
use self::log::Line;
pub use self::metrics::{MetricSample, MetricValue};
use self::table::{
    cancel_timer, kv_delete, kv_get, kv_list, kv_put, metric, metric_record, query, reauthorise, send_info, subscribe,
    unsubscribe,
};
use super::answer::Answer;
use super::pool::Pool;
use super::rules::{self, Place};
use super::stats::Entry;
use super::tickets::{Answered, Completed, NO_TICKET, Tickets};
use super::watch::Watch;
use crate::clock::{Clock, Millis};
use crate::codec::{PACKET_BYTES_MAX, PacketType};
use crate::core::mail::{InfoMail, InfoTarget, Mail, Mailboxes, SendTarget};
use crate::core::{may_exist, owner_of};
use crate::limits::Limits;
use crate::message::{Message, MessageParts, Source};

/// Bytes of kind and data together in one message for `handle_info`.
const INFO_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one line that a plugin logs; the rest is cut off.
pub(super) const LOG_BYTES_MAX: usize = 64 * 1024;

/// Requests that one callback may make.
const REQUESTS_MAX: usize = 4096;

/// Publishes of plugins of which each was made because of the one before, in a callback about its message: the next one is
/// refused, so that plugins which answer each other do not go on for ever.
const HOPS_MAX: u8 = 8;

/// Panics of one callback that are remembered: the one that ends it, and those that it caught itself.
const PANICS_MAX: usize = 16;

/// Tickets that one plugin may have open, if the server does not say otherwise.
const TICKETS_MAX: usize = 1024;

/// The connection number outside of a connection's callback; real ones begin at 1.
pub(super) const NO_CONNECTION: u64 = 0;

/// Where requests of plugins go: the workers' mailboxes.
#[derive(Debug, Clone)]
pub struct Services {
    mailboxes: Mailboxes,
    clock: Clock,
    packet_bytes_max: usize,
    watch: Arc<Watch>,
    pool: Arc<Pool>,
    tickets_max: usize,
    holdings: Arc<AllHoldings>,
    /// The number of the next timer.
    next_timer: Arc<AtomicU64>,
}

impl Services {
    /// Services of a server. `clock` is the one that its workers use; a message from a plugin may make a packet of at most
    /// `packet_bytes_max`.
    #[must_use]
    pub fn new(mailboxes: Mailboxes, clock: Clock, packet_bytes_max: usize) -> Self {
        let (limits, next_timer) = (Limits::default(), Arc::new(AtomicU64::new(1)));
        let (watch, holdings) = (Watch::new(0, &limits), Arc::new(AllHoldings::new(&limits)));
        let pool = Pool::new(&limits, Arc::clone(&watch));
        Self { mailboxes, clock, packet_bytes_max, watch, pool, tickets_max: TICKETS_MAX, holdings, next_timer }
    }

    /// The same, with these bounds of what a plugin may keep in the server.
    #[must_use]
    pub fn bounded_by(self, limits: &Limits) -> Self {
        Self { holdings: Arc::new(AllHoldings::new(limits)), ..self }
    }

    /// The counters, gauges and histograms of all plugins that have some, plugin by plugin in the order of their names.
    #[must_use]
    pub fn metrics(&self) -> Vec<MetricSample> {
        self.holdings.samples()
    }

    /// The same, for plugins whose calls this watchdog sees, and that have a pool with these limits.
    #[must_use]
    pub fn watched_by(self, watch: Arc<Watch>, limits: &Limits) -> Self {
        let pool = Pool::new(limits, Arc::clone(&watch));
        Self { watch, pool, ..self }
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The same with another bound of the tickets that one plugin may have open.
    #[must_use]
    pub fn with_tickets_max(self, tickets_max: usize) -> Self {
        Self { tickets_max, ..self }
    }

    /// Services where no server runs (`host check`): plugins can log, and everything else is refused.
    #[must_use]
    pub fn detached() -> Self {
        Self::new(Mailboxes::new(Vec::new()), Clock::start(), PACKET_BYTES_MAX)
    }

    /// A message of a plugin, checked. The host keeps it until it is routed or sent.
    fn message(&self, message: &RawMessage<'_>, plugin: &PluginServices) -> Result<Message, Status> {
        let hops = HOPS.get() + 1;
        if hops > HOPS_MAX {
            tracing::warn!(
                plugin = plugin.plugin,
                "a plugin's message was refused: {HOPS_MAX} publishes of plugins have led to it, each to the next"
            );
            return Err(Status::NOT_HERE);
        }
        let (topic, payload) = (message.topic.as_slice(), message.payload.as_slice());
        let properties = message.properties.as_slice();
        let qos = QoS::from_u8(message.qos).ok_or(Status::INVALID)?;
        rules::message_size(topic, payload, properties, qos, self.packet_bytes_max).map_err(|_| Status::TOO_LARGE)?;
        let topic = rules::topic_name(topic).map_err(|_| Status::INVALID)?;
        let properties = rules::properties(Place::Message, properties).map_err(|_| Status::INVALID)?;
        let expires_at =
            properties.message_expiry_interval().map_or(Millis::NEVER, |secs| self.clock.now().plus_secs(secs));
        let kept = properties
            .iter()
            .filter(|property| !matches!(property, Property::MessageExpiryInterval(_)))
            .fold(PropertiesBuf::new(), PropertiesBuf::with);
        let parts = MessageParts {
            topic,
            payload,
            properties: kept.as_bytes(),
            qos,
            retain: message.flags & RawPublish::RETAIN != 0,
            expires_at,
            source: Source::Plugin { index: plugin.place(), hops },
        };
        Ok(parts.to_message_with_token(message.token))
    }

    fn post_publish(&self, message: Message) -> Result<(), Status> {
        let owner = owner_of(message.topic(), self.mailboxes.workers());
        let message = Arc::new(message);
        self.post(owner..owner + 1, &|| Mail::Publish(Arc::clone(&message)))
    }

    fn post_send(&self, target: &RawTarget<'_>, message: Message) -> Result<(), Status> {
        let workers = self.mailboxes.workers();
        let (to, target) = match target.kind {
            RawTarget::CONNECTION => {
                // The number says who accepted it, and no worker has accepted what does not exist.
                if !may_exist(target.connection, workers) {
                    return Err(Status::NOT_FOUND);
                }
                (0..workers, SendTarget::Connection(target.connection))
            }
            RawTarget::CLIENT => {
                let client_id = std::str::from_utf8(target.client_id.as_slice()).map_err(|_| Status::INVALID)?;
                let owner = owner_of(client_id, workers);
                (owner..owner + 1, SendTarget::Client(client_id.into()))
            }
            _ => return Err(Status::INVALID),
        };
        let message = Arc::new(message);
        self.post(to, &|| Mail::Send { target: target.clone(), message: Arc::clone(&message) })
    }

    fn post_info(&self, plugin: &str, info: &InfoMail) -> Result<(), Status> {
        let workers = self.mailboxes.workers();
        let to = match &info.target {
            InfoTarget::Client(client_id) => {
                let owner = owner_of(client_id, workers);
                owner..owner + 1
            }
            InfoTarget::Plugin => {
                let one = owner_of(plugin, workers);
                one..one + 1
            }
            InfoTarget::Connection(_) | InfoTarget::All => 0..workers,
        };
        self.post(to, &|| Mail::Info(Box::new(info.clone())))
    }

    /// The same for one worker and a request that somebody waits for.
    fn post_one(&self, worker: usize, mail: Mail) -> Result<(), Status> {
        if INSIDE.get() == 0 {
            return self.mailboxes.hand_in(worker, mail).map_err(|refused| {
                let mut mail = refused.mail;
                mail.forget_asker();
                if refused.closed { Status::NOT_RUNNING } else { Status::FULL }
            });
        }
        LATER.with_borrow_mut(|later| {
            if later.requests.len() >= REQUESTS_MAX {
                let mut mail = mail;
                mail.forget_asker();
                return Err(Status::FULL);
            }
            touch();
            later.requests.push((self.mailboxes.clone(), worker, mail));
            Ok(())
        })
    }

    /// Puts mail into the mailboxes of some workers; later, if a callback runs on this thread. `FULL` if not all of them
    /// took it: those that did have it, as `HostError::Full` says.
    fn post(&self, to: std::ops::Range<usize>, mail: &dyn Fn() -> Mail) -> Result<(), Status> {
        if INSIDE.get() == 0 {
            let refused = to.filter(|worker| !self.mailboxes.post(*worker, mail())).count();
            return if refused == 0 { Ok(()) } else { Err(Status::FULL) };
        }
        LATER.with_borrow_mut(|later| {
            if later.requests.len() + to.len() > REQUESTS_MAX {
                return Err(Status::FULL);
            }
            touch();
            later.requests.extend(to.map(|worker| (self.mailboxes.clone(), worker, mail())));
            Ok(())
        })
    }
}

/// What one plugin's host pointer points to. It is never freed: a thread of the plugin may outlive its instance.
pub(super) struct PluginServices {
    plugin: String,
    /// Place in the chain; [`NOT_IN_A_CHAIN`] before there is one.
    index: AtomicUsize,
    packet_bytes_max: usize,
    pub(super) tickets: Tickets,
    holdings: Arc<Holdings>,
    /// `None` once the instance is dropped.
    services: RwLock<Option<Services>>,
}

const NOT_IN_A_CHAIN: usize = usize::MAX;

impl PluginServices {
    pub(super) fn leak(plugin: &str, services: &Services) -> &'static Self {
        Box::leak(Box::new(Self {
            plugin: plugin.to_owned(),
            index: AtomicUsize::new(NOT_IN_A_CHAIN),
            packet_bytes_max: services.packet_bytes_max,
            tickets: Tickets::new(services.tickets_max),
            holdings: services.holdings.of(plugin),
            services: RwLock::new(Some(services.clone())),
        }))
    }

    /// The pointers that the plugin gets.
    pub(super) fn raw(&'static self) -> RawHost {
        let services = const { &WithMetadata::new(TABLE) };
        // SAFETY: the functions below expect a `PluginServices`, which is `Sync` and lives until the process ends.
        unsafe { RawHost::new(self.context(), HostVtRef(services.static_as_prefix())) }
    }

    /// The first argument of the functions below.
    pub(super) fn context(&'static self) -> Opaque {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// The same as the source of a message.
    fn place(&self) -> u8 {
        u8::try_from(self.index.load(Ordering::Acquire)).unwrap_or(Source::NO_PLACE)
    }

    pub(super) fn set_index(&self, index: usize) {
        self.index.store(index, Ordering::Release);
    }

    pub(super) fn index(&self) -> usize {
        self.index.load(Ordering::Acquire)
    }

    /// Bytes that a message from the plugin may have, as the PUBLISH packet that carries it.
    pub(super) fn packet_bytes_max(&self) -> usize {
        self.packet_bytes_max
    }

    /// The instance is gone: refuse everything but log lines.
    pub(super) fn close(&self) {
        *self.services.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Gives the callback that runs on this thread a ticket for its question. One is enough for it.
    pub(super) fn ticket(&self) -> Result<u64, Status> {
        LATER.with_borrow_mut(|later| {
            if INSIDE.get() & MAY_DEFER == 0 {
                return Err(Status::NOT_HERE);
            }
            if later.settled.ticket != NO_TICKET {
                return Err(Status::INVALID);
            }
            later.settled.ticket = match GIVEN.take() {
                NO_TICKET => self.tickets.take().ok_or(Status::FULL)?,
                given => given,
            };
            touch();
            Ok(later.settled.ticket)
        })
    }

    /// Answers a question that a ticket stands for, on any thread.
    pub(super) fn complete(&self, ticket: u64, answered: Box<Answered>) -> Status {
        match self.tickets.complete(ticket, answered) {
            Completed::Kept => Status::OK,
            Completed::Post { worker, connection, answered } => self.with(|services| {
                let mail = Mail::Answer { connection, ticket, answered };
                // There is room for answers: there are no more of them than open tickets.
                if services.mailboxes.post(worker, mail) { Ok(()) } else { Err(Status::FULL) }
            }),
            Completed::Twice => Status::INVALID,
            Completed::Unknown => Status::NOT_FOUND,
            Completed::Gone => Status::GONE,
        }
    }

    fn with(&self, act: impl FnOnce(&Services) -> Result<(), Status>) -> Status {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let result = match &*services {
            Some(services) if services.mailboxes.workers() > 0 => act(services),
            _ => Err(Status::NOT_RUNNING),
        };
        result.err().unwrap_or(Status::OK)
    }

    /// Does something with what the server keeps for the plugin, whether a server runs or not.
    fn with_holdings(&self, act: impl FnOnce(&Holdings, &AllHoldings) -> Status) -> Status {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        services.as_ref().map_or(Status::NOT_RUNNING, |services| act(&self.holdings, &services.holdings))
    }

    /// The place of the plugin in the chain.
    fn chain_place(&self) -> Result<usize, Status> {
        match self.index() {
            NOT_IN_A_CHAIN => Err(Status::NOT_RUNNING),
            index => Ok(index),
        }
    }
}

/// Whether a callback runs on this thread, as bits: it does,
const RUNS: u8 = 1;
/// there is something in [`LATER`],
const TOUCHED: u8 = 2;
/// it may take a ticket.
const MAY_DEFER: u8 = 4;

/// What has to wait for the end of the callback.
struct Later {
    requests: Vec<(Mailboxes, usize, Mail)>,
    settled: Settled,
}

/// What a call into a plugin has left behind besides its answer.
#[derive(Debug)]
pub(super) struct Settled {
    /// Panics that its hook reported, those that it caught itself included.
    pub(super) panics: Vec<Panic>,
    /// The ticket that it has taken.
    pub(super) ticket: u64,
}

impl Settled {
    const NOTHING: Self = Self { panics: Vec::new(), ticket: NO_TICKET };
}

/// A panic in a callback, as the plugin's hook reported it.
#[derive(Debug)]
pub(super) struct Panic {
    pub(super) text: String,
    pub(super) location: String,
}

thread_local! {
    // Two cells without a destructor, as they are set and read around every callback, and the rest apart.
    static INSIDE: Cell<u8> = const { Cell::new(0) };
    static CONNECTION: Cell<u64> = const { Cell::new(NO_CONNECTION) };
    /// What the callback is about, if one runs.
    static SPAN: Cell<Option<Span>> = const { Cell::new(None) };
    /// How many publishes of plugins have led to the message that a callback is about.
    static HOPS: Cell<u8> = const { Cell::new(0) };
    // The ticket that the question has already; see `with_ticket`.
    static GIVEN: Cell<u64> = const { Cell::new(NO_TICKET) };
    static LATER: RefCell<Later> = const { RefCell::new(Later { requests: Vec::new(), settled: Settled::NOTHING }) };
}

/// What a call into a plugin has left behind besides its answer, if there is anything. One word, as almost always there is
/// not.
pub(super) type Left = Option<Box<Settled>>;

/// Runs a call into a plugin, on a thread of the pool, whose question has a ticket: it is the one that the plugin gets if it
/// takes one.
pub(super) fn with_ticket<T>(ticket: u64, call: impl FnOnce() -> T) -> T {
    GIVEN.set(ticket);
    let outcome = call();
    GIVEN.set(NO_TICKET);
    outcome
}

/// Runs a call into a plugin. What it asks for meanwhile is done when it has returned.
#[inline]
pub(super) fn inside<T>(entry: Entry, connection: u64, who: &str, call: impl FnOnce() -> T) -> (T, Left) {
    INSIDE.set(if entry.may_defer() { RUNS | MAY_DEFER } else { RUNS });
    CONNECTION.set(connection);
    SPAN.set(Some(Span { entry, who }));
    let result = call();
    CONNECTION.set(NO_CONNECTION);
    SPAN.set(None);
    let touched = INSIDE.replace(0) & TOUCHED != 0;
    (result, if touched { settle() } else { None })
}

/// Runs calls about a message: what plugins publish in them is one publish of a plugin further from its origin.
#[inline]
pub(super) fn because_of<T>(source: Source, calls: impl FnOnce() -> T) -> T {
    HOPS.set(source.hops());
    let result = calls();
    HOPS.set(0);
    result
}

/// How far from its origin is what plugins publish on this thread now.
pub(super) fn hops() -> u8 {
    HOPS.get()
}

/// Runs a call that belongs to another thread's, as far as it is from the origin.
pub(super) fn with_hops<T>(hops: u8, call: impl FnOnce() -> T) -> T {
    HOPS.set(hops);
    let result = call();
    HOPS.set(0);
    result
}

/// Notes that there is something in [`LATER`].
fn touch() {
    INSIDE.set(INSIDE.get() | TOUCHED);
}

#[cold]
fn settle() -> Left {
    let Later { requests, settled } = LATER.replace(Later { requests: Vec::new(), settled: Settled::NOTHING });
    for (mailboxes, worker, mail) in requests {
        if let Err(mut refused) = mailboxes.hand_in(worker, mail)
            && !refused.closed
            && !refused.mail.unless_answered(Status::FULL)
        {
            tracing::warn!(worker, "a plugin's request was dropped: the worker's mailbox is full");
        }
    }
    (!settled.panics.is_empty() || settled.ticket != NO_TICKET).then(|| Box::new(settled))
}

/// What a callback is about, for the log.
#[derive(Clone, Copy)]
struct Span {
    entry: Entry,
    /// Client Identifier. It outlives the call.
    who: *const str,
}

/// Writes a line for a plugin.
fn write(level: u8, plugin: &str, part: &str, text: String, fields: Vec<(String, String)>) {
    let connection = Some(CONNECTION.get()).filter(|connection| *connection != NO_CONNECTION);
    let span = SPAN.get();
    // SAFETY: `inside` has set it on this thread to a text that its caller borrows, and takes it away when the call is over.
    let client_id = span.map(|span| unsafe { &*span.who }).filter(|client_id| !client_id.is_empty());
    let callback = span.map(|span| span.entry.name());
    let level = level_of(level);
    Line { level, plugin, part, connection, client_id, callback, text, fields }.write();
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
fn service<T>(context: Opaque, otherwise: T, run: impl FnOnce(&'static PluginServices) -> T) -> T {
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
        if INSIDE.get() == 0 {
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
    service(context, Status::FULL, |host| host.with(|services| services.post_publish(services.message(message, host)?)))
}

unsafe extern "C" fn send(context: Opaque, target: &RawTarget<'_>, message: &RawMessage<'_>) -> Status {
    service(context, Status::FULL, |host| {
        host.with(|services| services.post_send(target, services.message(message, host)?))
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
            (rules::disconnection(reason_code.into()), rules::properties(Place::Farewell, properties))
        else {
            return Status::INVALID;
        };
        let reason_code = rules::fitting(PacketType::Disconnect, reason_code, &host.plugin, "Host::disconnect", "");
        let mail = || Mail::Disconnect { connection, reason_code, properties: properties.into() };
        host.with(|services| services.post(0..services.mailboxes.workers(), &mail))
    })
}

/// What plugins get.
pub(super) const TABLE: HostVt = HostVt {
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
