//! A will that has waited for its Will Delay Interval, and whose plugins may say something else by now.
//!
//! They have let it pass when its client was lost. If a plugin has been exchanged or configured since, or has asked to
//! [reauthorise](super::reauthorise) the client or all clients, or if the server has been started anew, they are asked once
//! more when it is due, and may only agree or refuse. The connection's states have been dropped by then: what they have
//! exported waits with the will, and others take that in, as in a swap, for this one question.

use plugin_api::{Callback, PropertiesBuf, Property, TransportKind};

use super::Core;
use super::budget::Account;
use super::connection::Will;
use super::farewell::{Fate, LastWill};
use super::image::{read_addr, read_details, read_tls, write_addr, write_details, write_tls};
use super::peer::PeerDetails;
use super::session::{AcceptedWill, WillBody};
use crate::packed::{Reader, Unreadable, Write};
use crate::plugin::{self, Conformed, ConnectionInfo, Handlers, LastStates, Permissions, SwapRequest};

/// With what plugins are asked once more: whose the will is, and what they knew of that connection. Counted.
#[derive(Debug)]
pub(super) struct Known {
    bytes: Box<[u8]>,
    account: Account,
}

impl Known {
    pub(super) fn new(bytes: &[u8], account: &Account) -> Self {
        account.add(bytes.len());
        Self { bytes: bytes.into(), account: account.clone() }
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.account.sub(self.bytes.len());
    }
}

impl WillBody {
    /// With what plugins are asked about it once more.
    pub(super) fn known(&self) -> Option<&[u8]> {
        match self {
            Self::Accepted(will) => will.known.as_ref().map(|known| &*known.bytes),
            Self::Undecided(_) => None,
        }
    }

    /// Plugins may say something else about it than they have.
    pub(super) fn note_to_ask_again(&mut self) {
        if let Self::Accepted(will) = self {
            will.allowed_at = None;
        }
    }
}

impl Core {
    /// Whose a will is that waits from now on; what its plugins know comes behind that, once they have decided. Nothing where
    /// there are none, or where there is no room: then it is not published if they have to be asked once more.
    pub(super) fn describe_peer(&self, slot: u32, details: Option<&PeerDetails>) -> Vec<u8> {
        let mut out = Vec::new();
        if self.plan.plugins().is_empty() || self.is_full() {
            return out;
        }
        let connection = &self.connections[slot as usize];
        write_addr(connection.peer.addr(), &mut out);
        out.put_text(&connection.listener.profile.name);
        out.put_u16(connection.keep_alive_secs);
        out.put_u8(connection.version as u8);
        out.put_option(details, |out, details| {
            out.put_u8(details.transport as u8);
            write_details(details, out);
            out.put_option(details.tls.as_deref(), |out, tls| write_tls(tls, out));
        });
        out
    }

    /// What plugins know of whose will it is that waits in a session is kept, if they know anything.
    pub(super) fn journal_known(&mut self, session_slot: u32) {
        if self.known_in(session_slot).is_some() {
            self.journal_states(session_slot);
        }
    }

    /// What handlers have exported when its client was lost: for the end of the session, and for its Will Message.
    pub(super) fn journal_states(&mut self, session_slot: u32) {
        let away = self.sessions[session_slot as usize].away.as_ref();
        let states = away.and_then(|away| away.last_states.as_ref());
        let encoded = LastStates::encoded(states, self.known_in(session_slot), self.plan.plugins());
        self.journal_last_states(session_slot, &encoded);
    }

    pub(super) fn known_in(&self, session_slot: u32) -> Option<&[u8]> {
        self.sessions[session_slot as usize].away.as_ref()?.will.as_ref()?.body.known()
    }

    /// A will has waited for as long as it was to.
    pub(super) fn will_is_due(&mut self, who: &str, body: WillBody) {
        self.look_at_plan();
        match body {
            WillBody::Accepted(will) if self.is_still_allowed(&will) => self.publish_will(&will),
            WillBody::Accepted(will) => self.ask_once_more(who, &will),
            WillBody::Undecided(_) => self.settle_will(&body, Fate::Now),
        }
    }

    fn is_still_allowed(&self, will: &AcceptedWill) -> bool {
        let is_still_said = |before| self.shared.chain.say_the_same(&self.plan, before);
        will.allowed_at.is_some_and(is_still_said) || will.known.is_none() && !self.plan.implements(Callback::Publish)
    }

    fn ask_once_more(&mut self, who: &str, will: &AcceptedWill) {
        // Not the connection's own: that has ended, and after a start another one may have it.
        let connection = self.next_connection;
        self.next_connection += 1;
        let revived = will.known.as_ref().map(|known| self.revive(connection, who, &known.bytes));
        let why = match revived {
            Some(Ok(Ok(handlers))) => return self.ask_about_will(connection, handlers, who, as_let_pass(will)),
            Some(Ok(Err(_))) => "a plugin makes no state of what was known of the connection".to_owned(),
            Some(Err(error)) => error.to_string(),
            None => "nothing is known of the connection any more".to_owned(),
        };
        tracing::warn!(
            client_id = who,
            topic = will.message.topic(),
            "a will that has waited is not published: plugins have to be asked once more, and {why}"
        );
    }

    /// States like those that the plugins had of a connection that has ended.
    fn revive(&self, connection: u64, who: &str, known: &[u8]) -> Result<Result<Handlers, Conformed>, Unreadable> {
        let mut reader = Reader::new(known);
        let (peer, listener) = (read_addr(&mut reader)?, reader.text()?);
        let (keep_alive, version) = (reader.u16()?, reader.u8()?);
        let details = reader.option(|reader| {
            let transport = kind_of(reader.u8()?);
            let details = read_details(reader)?;
            Ok(PeerDetails { transport, tls: reader.option(read_tls)?.map(Box::new), ..details })
        })?;
        plugin::show(details.as_ref(), |transport| {
            let info = ConnectionInfo { connection, peer, listener, transport };
            let request = SwapRequest { info, client_id: who, keep_alive, version };
            Handlers::revive(&self.plan, &request, &mut reader)
        })
    }
}

fn kind_of(number: u8) -> TransportKind {
    use TransportKind::{Other, Quic, Tcp, Tls, Unix, Ws, Wss};
    [Tcp, Tls, Ws, Wss, Unix, Quic].into_iter().find(|kind| *kind as u8 == number).unwrap_or(Other)
}

/// A will as plugins have let it pass.
fn as_let_pass(will: &AcceptedWill) -> LastWill {
    let parts = will.message.parts();
    let mut properties = PropertiesBuf::default();
    if let Some(secs) = will.expiry_secs {
        properties = properties.with(Property::MessageExpiryInterval(secs));
    }
    let will = Will {
        topic: parts.topic.into(),
        payload: parts.payload.into(),
        properties: [properties.as_bytes(), parts.properties].concat().into(),
        qos: parts.qos,
        retain: parts.retain,
        delay_secs: 0,
    };
    LastWill { will, known: Vec::new(), asked_at: Permissions::default(), again: true }
}
