//! What plugins may ask of the host.
//!
//! A request becomes mail to the workers. One that a plugin makes inside a callback is kept until the callback has
//! returned, so that nothing that it asks for happens while it runs, on this worker or another.
#![allow(unsafe_code)] // Plugins call these functions with a pointer that has to become a reference.

mod asker;
mod early;
mod functions;
mod gate;
mod holdings;
mod inside;
mod log;
mod metrics;
mod store;
mod table;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use abi_stable::prefix_type::WithMetadata;
use plugin_api::abi::{HostVtRef, Opaque, RawHost, RawMessage, RawTarget, Status};
use plugin_api::reading::{self, MessageView};
use plugin_api::{PropertiesBuf, Property};

pub use self::asker::{Asker, Pieces};
use self::early::Early;
pub(super) use self::functions::TABLE;
use self::gate::Gate;
pub(crate) use self::gate::State as GateState;
pub(crate) use self::holdings::KnownKeys;
pub use self::holdings::TimerRoom;
use self::holdings::{AllHoldings, Holdings};
use self::inside::{GIVEN, HOPS, LATER, is_inside, may_defer, session_of, touch};
pub(super) use self::inside::{
    Left, Panic, Settled, because_of, hops, inside, plainly_inside, settle, with_hops, with_ticket,
};
pub use self::metrics::{MetricSample, MetricValue};
use super::pool::Pool;
use super::record::{Captured, Recorder};
use super::tickets::{Answered, Completed, NO_TICKET, Tickets};
use super::watch::Watch;
use crate::clock::{Clock, Millis};
use crate::codec::PACKET_BYTES_MAX;
use crate::core::mail::{InfoMail, InfoTarget, Mail, SendTarget};
use crate::core::mailbox::Mailboxes;
use crate::core::{may_exist, owner_of};
use crate::durable::change::ChangeError;
use crate::durable::store::Store;
use crate::limits::Limits;
use crate::message::{Message, MessageParts, Source};
use crate::packed::Unreadable;

/// Bytes of kind and data together in one message for `handle_info`.
const INFO_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one line that a plugin logs; the rest is cut off.
pub(super) const LOG_BYTES_MAX: usize = reading::TEXT_BYTES_MAX;

/// Requests that one callback may make.
const REQUESTS_MAX: usize = 4096;

/// Publishes of plugins of which each was made because of the one before, in a callback about its message: the next one is
/// refused, so that plugins which answer each other do not go on for ever.
const HOPS_MAX: u8 = 8;

/// Tickets that one plugin may have open, if the server does not say otherwise.
const TICKETS_MAX: usize = 1024;

/// The connection number outside of a connection's callback; real ones begin at 1.
pub(super) const NO_CONNECTION: u64 = 0;

/// Where requests of plugins go: the workers' mailboxes.
#[derive(Debug, Clone)]
pub struct Services {
    mailboxes: Mailboxes,
    clock: Clock,
    packet_bytes_max: Arc<AtomicUsize>,
    watch: Arc<Watch>,
    pool: Arc<Pool>,
    tickets_max: usize,
    holdings: Arc<AllHoldings>,
    gate: Arc<Gate>,
    /// The number of the next timer.
    next_timer: Arc<AtomicU64>,
    /// How many workers there have been at most, in processes before this one as well: connections have their numbers.
    workers_ever: Arc<AtomicUsize>,
    /// Writes down what plugins are asked.
    recorder: Option<Arc<Recorder>>,
    /// Nothing is done: they are a candidate's, which is only tried.
    captured: Option<Arc<Captured>>,
}

impl Services {
    /// Services of a server. `clock` is the one that its workers use; a message from a plugin may make a packet of at most
    /// `packet_bytes_max`.
    #[must_use]
    pub fn new(mailboxes: Mailboxes, clock: Clock, packet_bytes_max: usize) -> Self {
        let (limits, next_timer) = (Limits::default(), Arc::new(AtomicU64::new(1)));
        let (watch, holdings) = (Watch::new(0, &limits), Arc::new(AllHoldings::new(&limits)));
        let pool = Pool::new(&limits, Arc::clone(&watch));
        let packet_bytes_max = Arc::new(AtomicUsize::new(packet_bytes_max));
        let workers_ever = Arc::new(AtomicUsize::new(mailboxes.workers()));
        let tickets_max = TICKETS_MAX;
        Self {
            mailboxes,
            clock,
            packet_bytes_max,
            watch,
            pool,
            tickets_max,
            holdings,
            gate: Arc::default(),
            next_timer,
            workers_ever,
            recorder: None,
            captured: None,
        }
    }

    /// The same, for plugins whose calls are written down.
    #[must_use]
    pub fn recorded_by(self, recorder: Arc<Recorder>) -> Self {
        Self { recorder: Some(recorder), ..self }
    }

    pub(super) fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.recorder.as_ref()
    }

    /// For a candidate that is tried: what it asks for is taken, and not done; what it keeps by keys begins as a copy of what
    /// is kept here.
    pub(crate) fn captured(&self) -> (Self, Arc<Captured>) {
        let captured = Arc::<Captured>::default();
        let mailboxes = Mailboxes::new(vec![Box::new(|| {})]);
        // Whoever waits for an answer of the host's is told that it does not run.
        mailboxes.of(0).close();
        let holdings = Arc::new(self.holdings.copy());
        let watch = Watch::new(0, &Limits::default());
        let pool = Pool::new(&Limits::default(), Arc::clone(&watch));
        let services = Self {
            mailboxes,
            watch,
            pool,
            holdings,
            next_timer: Arc::new(AtomicU64::new(Captured::FIRST_TIMER)),
            recorder: None,
            captured: Some(Arc::clone(&captured)),
            ..self.clone()
        };
        (services, captured)
    }

    /// The number of another timer.
    fn take_timer_number(&self) -> u64 {
        let expected = self.captured.as_ref().and_then(|captured| captured.next_timer());
        expected.unwrap_or_else(|| self.next_timer.fetch_add(1, Ordering::Relaxed))
    }

    /// The same, with these bounds of what a plugin may keep in the server.
    #[must_use]
    pub fn bounded_by(self, limits: &Limits) -> Self {
        Self { holdings: Arc::new(AllHoldings::new(limits)), ..self }
    }

    /// Gives plugins back what was kept of what they keep by keys, and keeps it from now on, for a server with so many workers.
    ///
    /// # Errors
    /// `values` is not a journal.
    pub fn keep_in(&self, store: Arc<dyn Store>, workers: u16, values: &[u8]) -> Result<(), ChangeError> {
        self.holdings.keep_in(store, workers, values)
    }

    /// Names of plugins, by whose places messages that are kept say who has published them: those that there were, and behind
    /// them those of `chain` that are new, which is kept.
    pub(crate) fn number_plugins(&self, chain: &[String]) -> Vec<String> {
        self.holdings.number_plugins(chain)
    }

    /// What plugins keep by keys comes from another process that has kept it: [`Services::keep_on`] follows.
    pub(crate) fn note_changes(&self) {
        self.holdings.note_changes();
    }

    /// Keeps what plugins have put since then, and what they put from now on, for a server with so many workers.
    pub(crate) fn keep_on(&self, store: Arc<dyn Store>, workers: u16) {
        self.holdings.keep_on(store, workers);
    }

    /// Room for a plugin's timer that another process has accepted.
    pub(crate) fn inherited_timer_room(&self, plugin: &str, info: &InfoMail) -> Arc<TimerRoom> {
        self.holdings.inherited_timer_room(plugin, info.data_bytes())
    }

    /// Counts what plugins have put by keys, or removed, and that was handed over to where it is kept.
    pub(crate) fn values(&self) -> Arc<AtomicU64> {
        self.holdings.values()
    }

    /// The counters, gauges and histograms of all plugins that have some, plugin by plugin in the order of their names.
    #[must_use]
    pub fn metrics(&self) -> Vec<MetricSample> {
        self.holdings.samples()
    }

    /// Takes requests from plugins' own threads, or does not.
    pub(crate) fn set_gate(&self, state: GateState) {
        self.gate.set(state);
    }

    /// The number of the next timer, and how many workers there have been.
    pub(crate) fn numbers(&self) -> (u64, usize) {
        (self.next_timer.load(Ordering::Relaxed), self.workers_ever.load(Ordering::Relaxed))
    }

    /// Goes on behind the numbers of another process.
    pub(crate) fn skip_numbers(&self, next_timer: u64, workers_ever: usize) {
        self.next_timer.fetch_max(next_timer, Ordering::Relaxed);
        self.workers_ever.fetch_max(workers_ever, Ordering::Relaxed);
    }

    /// What is kept for plugins, for another process: one piece for each.
    pub(crate) fn values_images(&self) -> Vec<Vec<u8>> {
        self.holdings.images()
    }

    /// Takes in what another process has kept for a plugin, in the place of what it said before: `known` has the keys of that.
    pub(crate) fn inherit_values(&self, image: &[u8], known: &mut KnownKeys) -> Result<(), Unreadable> {
        self.holdings.inherit(image, known)
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

    /// What plugins send may make packets of this size from now on.
    pub fn set_packet_bytes_max(&self, bytes: usize) {
        self.packet_bytes_max.store(bytes, Ordering::Relaxed);
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
        let MessageView { topic, payload, properties, qos, retain, token } =
            reading::message_of(message, plugin.packet_bytes_max())?;
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
            retain,
            expires_at,
            source: Source::Plugin { index: plugin.place(), hops },
            as_it_came: None,
        };
        Ok(parts.to_message_with_token(token))
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
                if !may_exist(target.connection, self.workers_ever.load(Ordering::Relaxed)) {
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
            InfoTarget::Connection(id) => {
                // If the callback is about it: where its session is, it is too.
                let owner = session_of(*id, |client_id| owner_of(client_id, workers));
                owner.map_or(0..workers, |owner| owner..owner + 1)
            }
            InfoTarget::All => 0..workers,
        };
        self.post(to, &|| Mail::Info(Box::new(info.clone())))
    }

    /// The same for one worker and a request that somebody waits for.
    fn post_one(&self, worker: usize, mail: Mail) -> Result<(), Status> {
        if !is_inside() {
            let mut mail = Some(mail);
            let posted = self.gate.pass(|| {
                let Some(mail) = mail.take() else { return Err(Status::INVALID) };
                self.mailboxes.hand_in(worker, mail).map_err(|refused| {
                    let mut mail = refused.mail;
                    mail.forget_asker();
                    if refused.closed { Status::NOT_RUNNING } else { Status::FULL }
                })
            });
            mail.iter_mut().for_each(Mail::forget_asker);
            return posted;
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
        if let Some(captured) = self.captured.as_ref().filter(|_| !is_inside()) {
            captured.count_outside();
            return Ok(());
        }
        if !is_inside() {
            return self.gate.pass(|| {
                let refused = to.filter(|worker| !self.mailboxes.post(*worker, mail())).count();
                if refused == 0 { Ok(()) } else { Err(Status::FULL) }
            });
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
    /// That of the server, which may change.
    packet_bytes_max: Arc<AtomicUsize>,
    pub(super) tickets: Tickets,
    holdings: Arc<Holdings>,
    early: Early,
    /// `None` once the instance is dropped.
    services: RwLock<Option<Services>>,
}

const NOT_IN_A_CHAIN: usize = usize::MAX;

impl PluginServices {
    pub(super) fn leak(plugin: &str, services: &Services) -> &'static Self {
        Box::leak(Box::new(Self {
            plugin: plugin.to_owned(),
            index: AtomicUsize::new(NOT_IN_A_CHAIN),
            packet_bytes_max: Arc::clone(&services.packet_bytes_max),
            tickets: Tickets::new(services.tickets_max),
            holdings: services.holdings.of(plugin),
            early: Early::default(),
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
        self.packet_bytes_max.load(Ordering::Relaxed)
    }

    /// The instance is gone: refuse everything but log lines.
    pub(super) fn close(&self) {
        *self.services.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.early.end();
    }

    /// Gives the callback that runs on this thread a ticket for its question. One is enough for it.
    pub(super) fn ticket(&'static self) -> Result<u64, Status> {
        LATER.with_borrow_mut(|later| {
            if !may_defer() {
                return Err(Status::NOT_HERE);
            }
            if later.settled.ticket != NO_TICKET {
                return Err(Status::INVALID);
            }
            later.settled.ticket = match GIVEN.get() {
                None => self.tickets.take().ok_or(Status::FULL)?,
                Some((given, of)) if std::ptr::eq(of, &raw const self.tickets) => given,
                Some(_) => return Err(Status::NOT_HERE), // The callback is another instance's.
            };
            later.settled.taken_from = Some(&self.tickets);
            touch();
            Ok(later.settled.ticket)
        })
    }

    /// Answers a question that a ticket stands for, on any thread.
    pub(super) fn complete(&self, ticket: u64, answered: Box<Answered>) -> Status {
        match self.tickets.complete(ticket, answered) {
            Completed::Kept => Status::OK,
            Completed::Post { worker, connection, answered } => self.with(|services| {
                if let Some(captured) = &services.captured {
                    captured.answer(ticket, answered);
                    return Ok(());
                }
                let mail = Mail::Answer { connection, ticket, answered };
                // There is room for answers: there are no more of them than open tickets.
                if services.mailboxes.post(worker, mail) { Ok(()) } else { Err(Status::FULL) }
            }),
            Completed::Twice => Status::INVALID,
            Completed::Unknown => Status::NOT_FOUND,
            Completed::Gone => Status::GONE,
        }
    }

    /// Posts a message of the plugin to itself; one that comes before the plugin decides waits until it does. Returns the number
    /// of its timer, 0 if it has none.
    fn take_info(&self, info: InfoMail) -> Result<u64, Status> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let services = services.as_ref().ok_or(Status::NOT_RUNNING)?;
        let is_later = info.delay_ms != 0;
        let room = is_later.then(|| services.holdings.timer_room(&self.holdings, info.data_bytes())).transpose()?;
        let timer = if is_later { services.take_timer_number() } else { 0 };
        let info = InfoMail { timer, room, ..info };
        let info = if self.index() == NOT_IN_A_CHAIN { self.early.keep(info)? } else { Some(info) };
        if let Some(info) = info {
            services.post_info(&self.plugin, &InfoMail { plugin: self.index(), ..info })?;
        }
        Ok(timer)
    }

    /// The plugin decides from now on, as this generation: what it has sent itself before comes to it.
    pub(super) fn decides(&self, generation: u64) {
        for info in self.early.end() {
            let info = InfoMail { plugin: self.index(), begins: generation, ..info };
            if self.with(|services| services.post_info(&self.plugin, &info)) == Status::FULL {
                tracing::warn!(
                    plugin = self.plugin,
                    kind = &*info.kind,
                    "what init has sent was dropped: a queue is full"
                );
            }
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

    /// The same of what changes it: a plugin's own thread waits while everything goes over to another process.
    fn change_holdings(&self, act: impl FnOnce(&Holdings, &AllHoldings) -> Status) -> Status {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let Some(services) = services.as_ref() else { return Status::NOT_RUNNING };
        let act = || act(&self.holdings, &services.holdings);
        if is_inside() { act() } else { services.gate.pass(|| Ok(act())).unwrap_or_else(|refused| refused) }
    }

    /// The place of the plugin in the chain.
    fn chain_place(&self) -> Result<usize, Status> {
        match self.index() {
            NOT_IN_A_CHAIN => Err(Status::NOT_RUNNING),
            index => Ok(index),
        }
    }
}
