//! A session.

use plugin_api::QoS;

use super::message::{read_qos, write_message};
use crate::clock::Millis;
use crate::codec::{PacketId, SubscribeOptions};
use crate::core::Core;
use crate::core::connection::NONE;
use crate::core::delayed_wills::Known;
use crate::core::replay::Replay;
use crate::core::session::{AcceptedWill, Awaiting, DelayedWill, InFlight, Subscription, WillBody};
use crate::core::subscribe::Asked;
use crate::packed::{Reader, Unreadable, Write};
use crate::plugin::LastStates;

impl Core {
    pub(super) fn session_image(&mut self, slot: u32, out: &mut Vec<u8>) {
        let session = &mut self.sessions[slot as usize];
        session.in_flight.spread();
        let session = &self.sessions[slot as usize];
        out.put_text(&session.client_id);
        out.put_u64(session.number);
        out.put_u32(session.expiry_secs);
        out.put_u32(session.expiry_secs_max);
        out.put_u64(session.expires_at.0);
        out.put_u16(session.next_packet_id);
        out.put_flag(session.asks_again);
        out.put_count(session.subscriptions.len());
        for (filter, subscription) in &session.subscriptions {
            out.put_text(filter);
            out.put_u8(subscription.options.to_byte());
            out.put_u32(subscription.identifier);
        }
        out.put_u32(session.to_resend);
        out.put_count(session.in_flight.len());
        for sent in session.in_flight.iter() {
            out.put_u16(sent.packet_id.get());
            out.put_u8(match sent.awaiting {
                Awaiting::Puback => 0,
                Awaiting::Pubrec => 1,
                Awaiting::Pubcomp => 2,
            });
            out.put_option(sent.delivery.as_ref(), |out, queued| self.write_queued(session, queued, out));
        }
        out.put_count(session.queue.len());
        for queued in session.queue.iter() {
            self.write_queued(session, &queued, out);
        }
        out.put_count(session.received.len());
        for (packet_id, message) in session.received.each() {
            out.put_u16(packet_id.get());
            out.put_option(message, |out, kept| write_message(&kept, out));
        }
        let away = session.away.as_ref();
        out.put_option(away.and_then(|away| away.will.as_ref()?.accepted()), |out, (at, will)| {
            out.put_u64(at.0);
            write_message(&will.message, out);
            out.put_option(will.expiry_secs, Vec::put_u32);
        });
        let states = away.and_then(|away| away.last_states.as_ref());
        let known = self.known_in(slot);
        let is_some = (states.is_some() || known.is_some()).then_some(());
        out.put_option(is_some, |out, ()| LastStates::write(states, known, &self.plan, out));
        let parked = away.map(|away| &away.parked_replays);
        out.put_count(parked.map_or(0, std::collections::BTreeMap::len));
        for (filter, replay) in parked.into_iter().flatten() {
            out.put_text(filter);
            replay.write(out);
        }
    }

    /// Makes a session of an image. Returns its slot.
    pub(super) fn inherit_session(&mut self, teller: u32, reader: &mut Reader<'_>) -> Result<u32, Unreadable> {
        let client_id = reader.text()?;
        if self.slot_of_client(client_id).is_some() {
            return Err(Unreadable(format!("there are two sessions of the client {client_id}")));
        }
        let slot = self.new_session(client_id);
        let number = reader.u64()?;
        let session = &mut self.sessions[slot as usize];
        if let Some(keeping) = self.shared.keeping.as_ref().filter(|_| number != 0) {
            // The store knows it by that.
            session.number = number;
            keeping.note_number(number);
            keeping.count_in(self.worker);
        }
        session.expiry_secs = reader.u32()?;
        session.expiry_secs_max = reader.u32()?;
        session.expires_at = Millis(reader.u64()?);
        session.next_packet_id = reader.u16()?.max(1);
        session.asks_again = reader.flag()?;
        for (filter, options, identifier) in reader.list(|reader| {
            let (filter, options) = (reader.text()?, reader.u8()?);
            let options = SubscribeOptions::from_byte(options).map_err(|error| Unreadable(error.to_string()))?;
            Ok((filter, options, reader.u32()?))
        })? {
            self.put_subscription(slot, &Asked::new(filter, options), Subscription { options, identifier });
        }
        self.inherit_messages(teller, slot, reader)?;
        self.inherit_away(slot, reader)?;
        Ok(slot)
    }

    fn inherit_messages(&mut self, teller: u32, slot: u32, reader: &mut Reader<'_>) -> Result<(), Unreadable> {
        let at = slot as usize;
        let to_resend = reader.u32()?;
        for _ in 0..reader.count()? {
            let packet_id = read_packet_id(reader)?;
            let awaiting = match reader.u8()? {
                0 => Awaiting::Puback,
                1 => Awaiting::Pubrec,
                2 => Awaiting::Pubcomp,
                other => return Err(Unreadable(format!("a message in flight waits for {other}: expected 0 to 2"))),
            };
            let delivery = reader.option(|reader| self.read_queued(teller, &self.sessions[at], reader))?;
            let session = &mut self.sessions[at];
            session.count_in_flight(delivery.as_ref().map_or(0, |queued| queued.message.bytes()));
            session.in_flight.push_back(InFlight { packet_id, awaiting, delivery });
        }
        let session = &mut self.sessions[at];
        session.to_resend = to_resend.min(u32::try_from(session.in_flight.len()).unwrap_or(u32::MAX));
        for _ in 0..reader.count()? {
            let queued = self.read_queued(teller, &self.sessions[at], reader)?;
            self.sessions[at].queue.push_back(queued);
        }
        for _ in 0..reader.count()? {
            let packet_id = read_packet_id(reader)?;
            let message = reader.option(|reader| self.read_inline(reader))?;
            if self.sessions[at].received.has(packet_id) {
                return Err(Unreadable(format!("two messages have come with the Packet Identifier {packet_id}")));
            }
            self.sessions[at].received.insert(packet_id, message);
        }
        Ok(())
    }

    fn inherit_away(&mut self, slot: u32, reader: &mut Reader<'_>) -> Result<(), Unreadable> {
        let will = reader.option(|reader| {
            let (at, message) = (Millis(reader.u64()?), self.read_inline(reader)?);
            let expiry_secs = reader.option(Reader::u32)?;
            Ok((at, AcceptedWill { message, expiry_secs, allowed_at: None, known: None }))
        })?;
        let (last_states, known) = reader.option(|reader| LastStates::read(&self.plan, reader))?.unwrap_or_default();
        let parked = reader.list(|reader| Ok((Box::from(reader.text()?), Replay::read(reader)?)))?;
        let session = &mut self.sessions[slot as usize];
        if let Some(states) = last_states {
            self.account.add(states.bytes());
            session.away().last_states = Some(states);
        }
        if let Some((at, mut will)) = will {
            will.known = known.map(|known| Known::new(known, &self.account));
            session.away().will = Some(DelayedWill { at, body: WillBody::Accepted(will) });
        }
        if !parked.is_empty() {
            session.away().parked_replays = parked.into_iter().collect();
        }
        Ok(())
    }

    /// A session without a connection has to be looked at when its time has come.
    pub(super) fn wait_for_client(&mut self, slot: u32) {
        let session = &self.sessions[slot as usize];
        debug_assert_eq!(session.connection, NONE);
        let next = session.will_at().unwrap_or(Millis::NEVER).min(session.expires_at);
        if next != Millis::NEVER {
            self.arm_session(slot, next);
        }
        self.note_presence(slot);
    }
}

fn read_packet_id(reader: &mut Reader<'_>) -> Result<PacketId, Unreadable> {
    PacketId::new(reader.u16()?).ok_or_else(|| Unreadable("a Packet Identifier is 0".to_owned()))
}

impl DelayedWill {
    /// When it is due, and what it is. There is nothing to be said of one that a plugin has not decided about.
    fn accepted(&self) -> Option<(Millis, &AcceptedWill)> {
        match &self.body {
            WillBody::Accepted(will) => Some((self.at, will)),
            WillBody::Undecided(_) => None,
        }
    }
}

impl Replay {
    pub(in crate::core) fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(self.qos as u8);
        out.put_u32(self.identifier);
        out.put_u64(self.mark);
    }

    pub(in crate::core) fn read(reader: &mut Reader<'_>) -> Result<Self, Unreadable> {
        let qos: QoS = read_qos(reader)?;
        Ok(Self { qos, identifier: reader.u32()?, mark: reader.u64()? })
    }
}
