//! What a worker knows of its clients, as another process is told it: see [`upgrade`](crate::upgrade).
//!
//! One *image* has a session and its Network Connection, or one of the two: a connection before its CONNECT has no session.
//! It is complete: what waits for the socket, the start of a packet that has not come completely, Packet Identifiers, Topic
//! Aliases both ways, what is in flight and what waits, what the plugins know. Times are moments of the server's clock, which
//! goes on in the other process.
//!
//! 1. The driver stops reading and has the core do what is left to do, until it [`Core::is_settled`]. What cannot go over
//!    ends before: [`Core::close_immovable`].
//! 2. For each of [`Core::heirlooms`], [`Core::image`] writes an image. Nothing changes by that: the core can go on. Messages that
//!    several sessions have are told once, by [`Core::take_untold`].
//! 3. In the other process [`Core::inherit_bodies`] takes these in, and [`Core::inherit`] the images. Nothing leaves before [`Core::begin_inherited`].
//! 4. [`Core::let_go`] forgets what has gone over, without a word to peers and plugins.

pub(super) mod bodies;
mod connection;
pub(super) mod message;
mod session;

use std::sync::Arc;

use plugin_api::{DisconnectKind, ReasonCode};

pub(super) use self::connection::{read_addr, read_details, read_tls, write_addr, write_details, write_tls};
use super::connection::{Closing, NONE, Phase};
use super::delayed::{DelayedInfo, DelayedInfos};
use super::mail::{InfoMail, InfoTarget};
use super::{CONNECTION_ID_WORKER_SHIFT, Core, ListenerProfile, slot_of};
use crate::clock::Millis;
use crate::packed::{Reader, Unreadable, Write};

/// A session, a connection, or both, by their slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heirloom {
    session: u32,
    /// The connection's slot, if there is one whose socket goes over as well.
    pub(crate) connection: Option<u32>,
}

/// Where a core finds what its connections have in common, by the name of their listener.
pub(crate) type ProfileOf<'a> = dyn Fn(&str) -> Option<Arc<ListenerProfile>> + 'a;

impl Core {
    /// Whether nothing is under way that an image does not have: questions to plugins, messages for other workers, work that
    /// was left for a later turn.
    pub(crate) fn is_settled(&mut self) -> bool {
        let is_idle = self.held.is_empty()
            && self.farewells.is_empty()
            && self.partings.is_empty()
            && self.handed_on.is_empty()
            && self.queries.is_empty()
            && self.passes.is_empty()
            && self.handovers.is_empty()
            && self.closing_soon.is_empty()
            && !self.has_mail_left()
            && !self.is_sweeping()
            && self.rewritten.is_none()
            && self.outbox.iter().all(super::mail::Batch::is_empty);
        is_idle && self.connections.iter_mut().all(|(_, connection)| connection.may_leave())
    }

    /// Ends the connections that cannot go over, as a server does that stops: those with something between their sockets and
    /// MQTT; and with `finally` those that wait for a plugin, or are being authenticated, as well. Nobody who is only owed something
    /// that is not safe yet. What plugins owe about connections that have ended, their wills above all, is then waited for as long as
    /// a server does that stops. Returns how many.
    pub(crate) fn close_immovable(&mut self, finally: bool, now: Millis) -> usize {
        self.now = now;
        let is_immovable = |connection: &mut super::Connection| match connection.phase {
            Phase::Closing | Phase::Leaving => false,
            _ => !connection.listener.profile.goes_over || finally && !connection.is_owed && !connection.may_leave(),
        };
        let slots: Vec<usize> =
            self.connections.iter_mut().filter_map(|(slot, one)| is_immovable(one).then_some(slot)).collect();
        for slot in &slots {
            self.close(slot_of(*slot), stopping());
        }
        if finally {
            self.hasten_farewells();
        }
        slots.len()
    }

    /// What goes over.
    pub(crate) fn heirlooms(&self) -> Vec<Heirloom> {
        let sessions = self.sessions.iter().map(|(slot, session)| {
            let connection = Some(session.connection).filter(|connection| *connection != NONE);
            Heirloom { session: slot_of(slot), connection }
        });
        let begun = self.connections.iter().filter(|(_, connection)| connection.phase == Phase::AwaitingConnect);
        let begun = begun.map(|(slot, _)| Heirloom { session: NONE, connection: Some(slot_of(slot)) });
        sessions.chain(begun).collect()
    }

    /// The Client Identifier of a session, by which its owner is found; empty where there is none yet.
    pub(crate) fn client_id(&self, heirloom: Heirloom) -> &str {
        self.sessions.get(heirloom.session as usize).map_or("", |session| &session.client_id)
    }

    /// Writes an image.
    pub(crate) fn image(&mut self, heirloom: Heirloom, out: &mut Vec<u8>) {
        let Heirloom { session, connection } = heirloom;
        if let Some(slot) = connection {
            // What it has been given by a lane is its own from now on, and in flight.
            self.leave_lane(slot);
        }
        out.put_flag(session != NONE);
        if session != NONE {
            self.session_image(session, out);
        }
        out.put_flag(connection.is_some());
        if let Some(slot) = connection {
            self.connection_image(slot, out);
        }
    }

    /// Takes in what the worker `teller` of another process has written. Returns the slot under which the socket is to be registered, if one has come
    /// with it; one that [is closing](Core::is_closing) could not go over.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn inherit(
        &mut self,
        teller: u32,
        image: &[u8],
        profile_of: &ProfileOf<'_>,
        now: Millis,
    ) -> Result<Option<u32>, Unreadable> {
        self.now = now;
        // The store has all of it already.
        let journal = self.journal.take();
        let taken = self.inherit_image(teller, image, profile_of);
        self.journal = journal;
        taken
    }

    fn inherit_image(
        &mut self,
        teller: u32,
        image: &[u8],
        profile_of: &ProfileOf<'_>,
    ) -> Result<Option<u32>, Unreadable> {
        let mut reader = Reader::new(image);
        let session = if reader.flag()? { self.inherit_session(teller, &mut reader)? } else { NONE };
        let connection = match reader.flag()? {
            true => Some(self.inherit_connection(session, profile_of, &mut reader)?),
            false => None,
        };
        reader.end()?;
        if session != NONE && connection.is_none() {
            self.wait_for_client(session);
        }
        Ok(connection)
    }

    /// Begins to serve what it has taken in.
    pub(crate) fn begin_inherited(&mut self, now: Millis) {
        self.now = now;
        self.bodies.forget();
        self.watch_retained();
        // Those that could not go over: what comes of it may be for any session.
        self.close_late();
        let slots: Vec<usize> = self.connections.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let Some(connection) = self.connections.get(slot).filter(|one| one.phase == Phase::Connected) else {
                continue;
            };
            let session = connection.session;
            self.pump(session);
            if self.connections.contains(slot) {
                self.list_replays(slot_of(slot));
                self.note_presence(session);
            }
        }
    }

    /// What was told stays here.
    pub(crate) fn forget_told(&mut self) {
        self.bodies.forget();
    }

    /// Forgets what has gone over. Returns the slots of the connections, whose sockets are to be forgotten as well. Only those
    /// that are being closed are left.
    pub(crate) fn let_go(&mut self) -> Vec<u32> {
        let has_gone = |connection: &super::Connection| connection.phase != Phase::Closing;
        let gone = self.connections.iter().filter(|(_, one)| has_gone(one)).map(|(slot, _)| slot_of(slot));
        let gone: Vec<u32> = gone.collect();
        for &slot in &gone {
            self.forget_lane(slot);
            drop(self.take_out(slot));
            let connection = self.connections.remove(slot as usize);
            self.by_connection.remove(connection.id, slot);
            self.shared.admission.leave(connection.peer.addr(), &connection.listener.profile);
        }
        self.bodies.forget();
        self.sessions.clear();
        self.by_client = super::SlotIndex::default();
        self.delayed_infos = DelayedInfos::default();
        self.remains.clear();
        self.listed_replays.clear();
        self.waiting_for_memory.clear();
        gone
    }

    /// The number that its next connection would have, without the worker's own part.
    pub(crate) fn next_connection(&self) -> u64 {
        self.next_connection & ((1 << CONNECTION_ID_WORKER_SHIFT) - 1)
    }

    /// Numbers its connections from there on, so that none has the number of one that has come over.
    pub(crate) fn skip_connections(&mut self, next: u64) {
        let begin = (self.worker as u64) << CONNECTION_ID_WORKER_SHIFT;
        self.next_connection = self.next_connection.max(begin | next);
    }

    /// Writes the messages for `handle_info` and `handle_event` that wait for their moment.
    pub(crate) fn timers_image(&self, out: &mut Vec<u8>) {
        out.put_count(self.delayed_infos.values().len());
        for DelayedInfo { at, begun, info } in self.delayed_infos.values() {
            out.put_u64(at.0);
            out.put_u64(begun.0);
            match &info.target {
                InfoTarget::Connection(id) => {
                    out.put_u8(0);
                    out.put_u64(*id);
                }
                InfoTarget::Client(client_id) => {
                    out.put_u8(1);
                    out.put_text(client_id);
                }
                InfoTarget::All => out.put_u8(2),
                InfoTarget::Plugin => out.put_u8(3),
            }
            out.put_u8(u8::try_from(info.plugin).expect("a chain has at most 64"));
            out.put_text(&info.kind);
            out.put_bytes(&info.data);
            for number in [info.delay_ms, info.interval_ms, info.timer, info.from_connection] {
                out.put_u64(number);
            }
        }
    }

    /// Takes in some that another process has written, but those with which the plugin has begun here once more.
    pub(crate) fn inherit_timer(&mut self, timer: InheritedTimer, now: Millis) {
        self.now = now;
        let InheritedTimer { at, begun, info } = timer;
        let delayed = DelayedInfo { at, begun, info };
        if !self.has_replacement(&delayed) {
            self.go_on_waiting(delayed);
        }
    }
}

/// A message that waits for its moment, from another process.
#[derive(Debug, Clone)]
pub(crate) struct InheritedTimer {
    at: Millis,
    begun: Millis,
    /// The message.
    pub(crate) info: Box<InfoMail>,
}

impl InheritedTimer {
    /// Reads those that [`Core::timers_image`] has written. `place_of` says where a plugin of that chain is in this one. They
    /// have no room yet.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn read_all(image: &[u8], place_of: impl Fn(usize) -> Option<usize>) -> Result<Vec<Self>, Unreadable> {
        let mut reader = Reader::new(image);
        let timers = reader.list(|reader| {
            let (at, begun) = (Millis(reader.u64()?), Millis(reader.u64()?));
            let target = match reader.u8()? {
                0 => InfoTarget::Connection(reader.u64()?),
                1 => InfoTarget::Client(reader.text()?.into()),
                2 => InfoTarget::All,
                3 => InfoTarget::Plugin,
                other => return Err(Unreadable(format!("the target of a timer is {other}: expected 0 to 3"))),
            };
            let plugin = usize::from(reader.u8()?);
            let (kind, data) = (reader.text()?.into(), reader.bytes()?.into());
            let (delay_ms, interval_ms, timer) = (reader.u64()?, reader.u64()?, reader.u64()?);
            let from_connection = reader.u64()?;
            // Who has begun with it is an earlier version here.
            let (room, begins) = (None, 0);
            let info =
                InfoMail { target, plugin, kind, data, delay_ms, interval_ms, timer, from_connection, room, begins };
            Ok(Self { at, begun, info: Box::new(info) })
        })?;
        reader.end()?;
        let placed = timers.into_iter().filter_map(|mut timer| {
            timer.info.plugin = place_of(timer.info.plugin)?;
            Some(timer)
        });
        Ok(placed.collect())
    }
}

/// What a client is told whose connection cannot go over: that it is welcome again at once.
fn stopping() -> Closing {
    Closing::telling(DisconnectKind::ServerShutdown, ReasonCode::SERVER_SHUTTING_DOWN)
}

impl super::Connection {
    /// Whether nothing is asked about it.
    fn may_leave(&mut self) -> bool {
        match self.phase {
            Phase::AwaitingConnect | Phase::Connected => {
                !self.is_waiting
                    && !self.is_held
                    && !self.is_owed
                    && self.auth().is_none_or(|auth| auth.again_until.is_none())
                    && self.handlers.as_mut().is_none_or(crate::plugin::Handlers::are_here)
            }
            Phase::Authenticating | Phase::Leaving => false,
            Phase::Closing => true,
        }
    }
}
