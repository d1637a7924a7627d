//! A client that handlers have let in goes to the worker that owns its session.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use plugin_api::ReasonCode;

use super::connection::{Connection, Extra, PendingConnect, Phase};
use super::delayed::DelayedInfo;
use super::inbound::Next;
use super::mail::InfoMail;
use super::{Core, ListenerProfile, owner_of};
use crate::clock::Millis;
use crate::codec::ProtocolVersion;
use crate::plugin::Handlers;

/// A connection that handlers have let in, on its way to the worker that owns its session.
pub struct Handover {
    id: u64,
    peer: SocketAddr,
    listener: Arc<ListenerProfile>,
    version: ProtocolVersion,
    problem_information: bool,
    aliases_max: u8,
    packet_bytes_max: u32,
    in_flight_max: u16,
    handlers: Option<Handlers>,
    extra: Box<Extra>,
    /// What was read behind its CONNECT packet.
    pub(super) unread: Vec<u8>,
    /// What has not been sent yet.
    unsent: Vec<u8>,
    /// Messages for `handle_info` that have waited for its plugins.
    pub(super) infos: VecDeque<Box<InfoMail>>,
    /// Those that wait for their moment.
    timers: Vec<DelayedInfo>,
}

impl std::fmt::Debug for Handover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handover").field("id", &self.id).field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Core {
    /// Lets a client in.
    pub(super) fn admit(&mut self, slot: u32, pending: Box<PendingConnect>) -> Next {
        let owner = owner_of(&pending.client_id, self.outbox.len());
        if owner == self.worker {
            self.attach(slot, *pending);
            return self.next(slot);
        }
        let connection = &mut self.connections[slot as usize];
        connection.phase = Phase::Leaving;
        connection.extra().pending = Some(pending);
        let out_sent = connection.out_sent;
        let unsent = self.take_out(slot).split_off(out_sent);
        let extra = self.take_extra(slot).expect("it holds what is pending");
        let timers = self.take_timers_of(self.connections[slot as usize].id);
        let connection = &mut self.connections[slot as usize];
        let handover = Handover {
            id: connection.id,
            peer: connection.peer.addr(),
            listener: Arc::clone(&connection.listener.profile),
            version: connection.version,
            problem_information: connection.problem_information,
            aliases_max: connection.aliases_max,
            packet_bytes_max: connection.packet_bytes_max,
            in_flight_max: connection.in_flight_max,
            handlers: connection.handlers.take(),
            extra,
            unread: Vec::new(),
            unsent,
            infos: VecDeque::new(),
            timers,
        };
        self.handovers.push((slot, owner, Box::new(handover)));
        Next::Leave
    }

    /// Messages for `handle_info` that have waited go with a connection to another worker.
    pub(super) fn leave_infos(&mut self, slot: u32, infos: VecDeque<Box<InfoMail>>) {
        if let Some((_, _, handover)) = self.handovers.iter_mut().find(|(leaving, ..)| *leaving == slot) {
            handover.infos = infos;
        }
    }

    /// Takes on a connection from another worker. Register the socket under the slot; bytes that were read already are
    /// handled at once.
    pub fn adopt(&mut self, handover: Handover, now: Millis) -> u32 {
        self.now = now;
        let Handover {
            id,
            peer,
            listener,
            version,
            problem_information,
            aliases_max,
            packet_bytes_max,
            in_flight_max,
            handlers,
            mut extra,
            unread,
            unsent,
            infos,
            timers,
        } = handover;
        let pending = extra.pending.take().expect("a handover comes with what CONNECT asked for");
        let is_behind = self.expect_behind(handlers.as_ref());
        let listener = self.listeners.of(&listener);
        let slot = self.insert_connection(Connection {
            version,
            problem_information,
            aliases_max,
            packet_bytes_max,
            in_flight_max,
            handlers,
            extra: Some(extra),
            ..Connection::new(id, peer, listener, now)
        });
        self.adopt_timers(infos.iter().map(|info| &**info), timers);
        if !unsent.is_empty() {
            self.write(slot, |out| out.extend_from_slice(&unsent));
        }
        if self.stopping {
            // 0x8B is for DISCONNECT alone [MQTT-3.2.2-8].
            self.refuse(slot, &self.no_room(slot, ReasonCode::SERVER_UNAVAILABLE));
            return slot;
        }
        self.attach(slot, *pending);
        if is_behind {
            self.sweep_in(slot);
        }
        self.release_infos(slot, infos);
        self.deliver_early(id);
        self.feed(slot, &unread, now);
        slot
    }
}
