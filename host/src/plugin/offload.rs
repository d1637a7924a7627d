//! Calls that are made on a thread of the pool instead of a worker's: how they get there, and how they are made there.
#![allow(unsafe_code)] // Foreign functions are called here.

use std::sync::Arc;

use plugin_api::Callback;
use plugin_api::abi::{Opaque, RawAck, RawState, RawSwapped, Verdict};

use super::enter::ticket_of;
use super::handlers::{Handlers, State};
use super::instance::Plugin;
use super::outcome::Failed;
use super::owned::{OwnedInfo, OwnedSwapped, Request, with_subscribe, with_unsubscribe};
use super::pool::{Call, Cell, Full, Job};
use super::request::{ConnectionInfo, NO_EXTENSION, SwapRequest, text};
use super::services::{self, NO_CONNECTION};
use super::stats::{Detour, Entry};
use super::tickets::{Answered, NO_TICKET};
use plugin_api::reading::Answer;

/// A question that is to be asked on the pool.
pub(super) struct Question<'a> {
    pub(super) entry: Entry,
    pub(super) who: &'a str,
    pub(super) request: Request,
}

impl Handlers {
    /// Asks a plugin on the pool. If it may answer later, its answer has a ticket; otherwise there is none to wait for.
    /// `refuse` answers in its place if it has too much to do.
    #[cold]
    pub(super) fn offload(
        &mut self,
        index: usize,
        question: Question<'_>,
        answer: &mut Answer,
        refuse: impl FnOnce(&mut Answer) -> Verdict,
    ) -> Result<Verdict, Failed> {
        let Question { entry, who, request } = question;
        let connection = self.connection();
        let plugin = Arc::clone(&self.plugins().list[index]);
        let Some(cell) = self.states()[index].pooled(&plugin, connection).filter(|cell| cell.is_sound()) else {
            return Err(Failed); // It was logged when it panicked.
        };
        if !entry.may_defer() {
            if plugin.pool().push(&cell, Job::Tell(Call::new(who, request))) == Err(Full) {
                plugin.count_full(entry);
            }
            return Ok(Verdict::OK);
        }
        let ticket = plugin.tickets().take_queued().unwrap_or(NO_TICKET);
        if ticket != NO_TICKET {
            if plugin.pool().push(&cell, Job::Ask(ticket, Call::new(who, request))).is_ok() {
                answer.ticket = ticket;
                return Ok(Verdict::DEFERRED);
            }
            plugin.tickets().cancel(ticket);
        }
        plugin.count_full(entry);
        Ok(refuse(answer))
    }

    /// Takes a state back from the pool, if nothing is being done with it there. `false`: something is.
    #[cold]
    pub(super) fn settle(&mut self, index: usize) -> bool {
        let state = &mut self.states()[index];
        if let State::Pooled(cell) = state {
            let Ok(taken) = cell.take_idle() else { return false };
            let has_panicked = taken.is_none();
            *state = taken;
            if has_panicked {
                self.plugins().list[index].count_connection(false);
            }
        }
        true
    }
}

impl State {
    /// The cell in which it is from now on. `None`: there is no state.
    fn pooled(&mut self, plugin: &Arc<Plugin>, connection: u64) -> Option<Arc<Cell>> {
        if let Self::Here(_) = self {
            *self = Self::Pooled(Cell::new(plugin, connection, self.take()));
        }
        match self {
            Self::Pooled(cell) => Some(Arc::clone(cell)),
            Self::None | Self::Here(_) => None,
        }
    }
}

impl Plugin {
    /// Makes the state of a connection, or has the pool make it. `None`: it panicked, or has too much to do.
    pub(super) fn begin(self: &Arc<Self>, info: &ConnectionInfo<'_>) -> Option<State> {
        if self.detour(Entry::NEW_CONNECTION) != Some(Detour::Pool) {
            return self.new_state(info);
        }
        self.begin_pooled(OwnedInfo::from(info), info.connection).map(State::Pooled)
    }

    /// Has the pool make the state of a connection that comes from another instance, and tell the plugin of it, if that is
    /// where it makes states.
    pub(super) fn begin_swapped(self: &Arc<Self>, request: &SwapRequest<'_>, raw: &RawSwapped<'_>) -> Option<State> {
        let cell = self.begin_pooled(OwnedInfo::from(&request.info), request.info.connection)?;
        if self.callbacks().contains(Callback::Swapped) {
            let request = Request::Swapped(Box::new(OwnedSwapped::new(&request.info, raw)));
            let call = Call::new(raw.client_id.as_str(), request);
            if self.pool().push(&cell, Job::Tell(call)) == Err(Full) {
                self.count_full(Entry::of(Callback::Swapped));
            }
        }
        Some(State::Pooled(cell))
    }

    fn begin_pooled(self: &Arc<Self>, info: OwnedInfo, connection: u64) -> Option<Arc<Cell>> {
        let cell = Cell::new(self, connection, State::None);
        if self.pool().push(&cell, Job::New(info)) == Err(Full) {
            self.count_full(Entry::NEW_CONNECTION);
            return None;
        }
        Some(cell)
    }

    /// Drops a state that it has made, if it has not been dropped.
    pub(super) fn drop_state(self: &Arc<Self>, state: &mut State, who: &str) {
        match state.take() {
            State::None => {}
            State::Here(raw) if self.detour(Entry::DROP_CONNECTION) != Some(Detour::Pool) => self.drop_raw(raw, who),
            mut state => {
                if let Some(cell) = state.pooled(self, NO_CONNECTION) {
                    // What has to end is never too much.
                    let _ = self.pool().push(&cell, Job::Drop { who: who.into() });
                }
            }
        }
    }

    fn drop_raw(&self, raw: Opaque, who: &str) {
        self.call(Entry::DROP_CONNECTION, who, |table, _, answer| {
            // SAFETY: the state was made by this instance, and whoever had it has forgotten it.
            unsafe { table.connection_drop()(raw, answer.sink()) }
        });
    }

    /// Tells it something that is about no connection's state: on this thread, or on the pool.
    pub(super) fn notify(
        self: &Arc<Self>,
        who: &str,
        callback: Callback,
        request: impl FnOnce() -> Request,
        here: impl FnOnce() -> Verdict,
    ) {
        match self.detour(Entry::of(callback)) {
            None => {
                let listening = self.listen();
                let verdict = here();
                if let Some(listening) = listening {
                    listening.note(NO_CONNECTION, who, request(), verdict, &Answer::default(), NO_TICKET);
                }
            }
            Some(Detour::Pool) => {
                if self.pool().notify(self, Call::new(who, request())) == Err(Full) {
                    self.count_full(Entry::of(callback));
                }
            }
            Some(Detour::Refuse | Detour::Skip) => {} // There is nothing to refuse.
        }
    }

    /// On a thread of the pool: does one job with a connection's state. Returns the answer to a question, with its ticket.
    pub(super) fn work(&self, connection: u64, state: &mut State, job: Job) -> Option<(u64, Answered)> {
        match job {
            Job::New(info) => {
                let made = info.with(|info| self.new_state(info));
                *state = made.unwrap_or(State::None);
            }
            Job::Ask(ticket, call) => {
                // Its deadline may have passed while it waited, or it was taken back.
                if self.tickets().begin(ticket) {
                    let ask = || self.work_on_question(connection, state, ticket, &call);
                    return services::with_hops(call.hops, ask).map(|answered| (ticket, answered));
                }
            }
            Job::Tell(call) => services::with_hops(call.hops, || self.work_on_telling(connection, state, &call)),
            Job::Drop { who } => {
                if let State::Here(raw) = state.take() {
                    self.note_end(connection, &who);
                    self.drop_raw(raw, &who);
                }
            }
        }
        None
    }

    fn work_on_telling(&self, connection: u64, state: &mut State, Call { who, request, .. }: &Call) {
        let (entry, mut answer) = (Entry::of(request.callback()), Answer::default());
        let State::Here(raw) = *state else { return };
        let listening = self.listen();
        let (verdict, left) = self.run(entry, connection, who, || {
            // SAFETY: the state is this instance's, and the cell gives it to one thread at a time.
            unsafe { self.make(raw, request, &mut answer) }
        });
        if let Some(listening) = listening {
            listening.note(connection, who, request.clone(), verdict, &answer, NO_TICKET);
        }
        if matches!(verdict, Verdict::PANICKED | Verdict::POISONED) {
            self.log_panic(entry, who, left, &answer);
            *state = State::None;
            self.drop_raw(raw, who);
        } else {
            self.log_caught(entry, who, left);
        }
    }

    /// `None`: the plugin answers later itself.
    fn work_on_question(
        &self,
        connection: u64,
        state: &mut State,
        ticket: u64,
        Call { who, request, .. }: &Call,
    ) -> Option<Answered> {
        let (entry, mut answer) = (Entry::of(request.callback()), Answer::default());
        let State::Here(raw) = *state else {
            return Some(Answered { verdict: Verdict::POISONED, answer });
        };
        let listening = self.listen();
        let (verdict, left) = services::with_ticket(ticket, self.tickets(), || {
            self.run(entry, connection, who, || {
                // SAFETY: as in `work_on_telling`.
                unsafe { self.make(raw, request, &mut answer) }
            })
        });
        if let Some(listening) = listening {
            listening.note(connection, who, request.clone(), verdict, &answer, ticket_of(&left));
        }
        let takes_longer = verdict == Verdict::DEFERRED && left.as_ref().is_some_and(|left| left.ticket == ticket);
        if matches!(verdict, Verdict::PANICKED | Verdict::POISONED) {
            self.log_panic(entry, who, left, &answer);
            *state = State::None;
            self.drop_raw(raw, who);
            return Some(Answered { verdict: Verdict::POISONED, answer: Answer::default() });
        }
        self.log_caught(entry, who, left);
        (!takes_longer).then_some(Answered { verdict, answer })
    }

    /// Makes a call on this thread, for a candidate that is only tried. The answer has its ticket if it comes later; a state
    /// that has panicked is dropped.
    pub(super) fn try_out(
        &self,
        connection: u64,
        who: &str,
        state: &mut State,
        request: &Request,
    ) -> (Verdict, Answer) {
        let (entry, mut answer) = (Entry::of(request.callback()), Answer::default());
        let raw = match *state {
            State::Here(raw) => raw,
            _ if !request.has_state() => std::ptr::null_mut(),
            _ => return (Verdict::POISONED, answer),
        };
        let (verdict, left) = self.run(entry, connection, who, || {
            // SAFETY: the caller has the state from this instance, and no other thread uses it; a request that is about no
            // connection does not use it.
            unsafe { self.make(raw, request, &mut answer) }
        });
        if let Some(left) = &left {
            self.note_ticket(verdict, left, &mut answer);
        }
        if matches!(verdict, Verdict::PANICKED | Verdict::POISONED) {
            self.log_panic(entry, who, left, &answer);
            self.let_state_go(state, who);
        } else {
            self.log_caught(entry, who, left);
        }
        (verdict, answer)
    }

    /// Drops a state that it has made, on this thread.
    pub(super) fn let_state_go(&self, state: &mut State, who: &str) {
        if let State::Here(raw) = state.take() {
            self.drop_raw(raw, who);
        }
    }

    /// Answers a question that was asked on the pool.
    pub(super) fn complete(&self, ticket: u64, answered: Answered) {
        // If nobody waits any more, the answer is of no use.
        let _ = self.services().complete(ticket, Box::new(answered));
    }

    /// On a thread of the pool: tells it something that is about no connection's state.
    pub(super) fn tell(&self, Call { who, request, hops }: &Call) {
        let listening = self.listen();
        let verdict = services::with_hops(*hops, || {
            self.call(Entry::of(request.callback()), who, |_, _, answer| {
                // SAFETY: such a request does not use the state.
                unsafe { self.make(std::ptr::null_mut(), request, answer) }
            })
        });
        if let Some(listening) = listening {
            listening.note(NO_CONNECTION, who, request.clone(), verdict, &Answer::default(), NO_TICKET);
        }
    }

    /// Calls the function that a request is for.
    ///
    /// # Safety
    /// Unless the request is about no connection, `state` has been made by this instance and not been dropped, and nobody
    /// else uses it meanwhile.
    unsafe fn make(&self, state: Opaque, request: &Request, answer: &mut Answer) -> Verdict {
        let (table, instance) = self.foreign();
        let sink = answer.sink();
        // SAFETY: the instance lives as long as this plugin; for the state, the caller's promise.
        unsafe {
            match request {
                Request::Connect(connect) => connect.with(|view| table.connect()(instance, state, view, sink)),
                Request::Auth(auth) => table.auth()(instance, state, &auth.raw(), sink),
                Request::Publish(publish) => table.publish()(instance, state, &publish.raw(), sink),
                Request::Subscribe(items, properties) => {
                    with_subscribe(items, properties, |view| table.subscribe()(instance, state, view, sink))
                }
                Request::Unsubscribe(filters, properties) => {
                    with_unsubscribe(filters, properties, |view| table.unsubscribe()(instance, state, view, sink))
                }
                &Request::Puback { packet_id, kind, reason_code, token } => {
                    let view = RawAck { packet_id, kind, reason_code, token, extension: NO_EXTENSION };
                    table.puback()(instance, state, &view, sink)
                }
                Request::Info(info) => table.info()(instance, state, &info.raw(), sink),
                Request::Disconnect(reason) => table.disconnect()(instance, state, &reason.raw(), sink),
                Request::Connected(connected) => table.connected()(instance, state, &connected.raw(), sink),
                Request::Swapped(swapped) => swapped.with(|_, view| table.swapped()(instance, state, view, sink)),
                Request::SessionExpired { client_id, state } => {
                    let state = state.as_ref().map(|(version, bytes)| RawState {
                        bytes: (&**bytes).into(),
                        version: *version,
                        extension: NO_EXTENSION,
                    });
                    table.session_expired()(instance, text(client_id), state.as_ref(), sink)
                }
                Request::Message(callback, notice) => match callback {
                    Callback::Acknowledged => table.message_acknowledged()(instance, &notice.raw(), sink),
                    Callback::Expired => table.message_expired()(instance, &notice.raw(), sink),
                    _ => table.message_dropped()(instance, &notice.raw(), sink),
                },
                Request::Event(event) => table.event()(instance, &event.raw(), sink),
                Request::Retained(retained) => table.retained()(instance, &retained.raw(), sink),
                Request::Config(config) => table.config()(instance, text(config), sink),
                Request::Deliver(deliver) => table.deliver()(instance, state, &deliver.raw(), sink),
            }
        }
    }
}
