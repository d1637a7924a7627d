//! Messages, and how a session has them.

use std::num::NonZeroU64;

use plugin_api::QoS;

use crate::clock::Millis;
use crate::core::Core;
use crate::core::session::{Origin, Queued, Session};
use crate::message::{Message, MessageParts, Places, Source};
use crate::packed::{Reader, Unreadable, Write};

/// By which subscriptions a session has a message.
const ONE: u8 = 0;
const SEVERAL: u8 = 1;
const SHARED: u8 = 2;
const CHANGED: u8 = 3;
const SENT: u8 = 4;

/// Who has published a message.
const CLIENT: u8 = 0;
const PLUGIN: u8 = 1;
const WILL: u8 = 2;
const SERVER: u8 = 3;

pub(crate) fn write_message(message: &Message, out: &mut Vec<u8>) {
    let parts = message.parts();
    out.put_u8(parts.qos as u8);
    out.put_flag(parts.retain);
    match parts.source {
        Source::Client => out.put_u8(CLIENT),
        Source::Plugin { index, hops } => out.put(&[PLUGIN, index, hops]),
        Source::Will => out.put_u8(WILL),
        Source::Server => out.put_u8(SERVER),
    }
    out.put_u64(parts.expires_at.0);
    out.put_u64(message.token());
    out.put_text(parts.topic);
    out.put_bytes(parts.properties);
    out.put_bytes(parts.payload);
}

/// A message, with the token of the plugin that has sent it or 0. `places` are those that plugins have here.
pub(crate) fn read_message<'a>(
    reader: &mut Reader<'a>,
    places: &Places,
) -> Result<(MessageParts<'a>, u64), Unreadable> {
    let (qos, retain) = (read_qos(reader)?, reader.flag()?);
    let source = match reader.u8()? {
        CLIENT => Source::Client,
        PLUGIN => places.of(Source::Plugin { index: reader.u8()?, hops: reader.u8()? }),
        WILL => Source::Will,
        SERVER => Source::Server,
        other => return Err(Unreadable(format!("the source of a message is {other}: expected 0 to 3"))),
    };
    let (expires_at, token) = (Millis(reader.u64()?), reader.u64()?);
    let (topic, properties, payload) = (reader.text()?, reader.bytes()?, reader.bytes()?);
    if topic.len() > usize::from(u16::MAX) {
        return Err(Unreadable(format!("a Topic Name has {} bytes: expected at most 65535", topic.len())));
    }
    Ok((MessageParts { topic, payload, properties, qos, retain, expires_at, source, as_it_came: None }, token))
}

pub(super) fn read_qos(reader: &mut Reader<'_>) -> Result<QoS, Unreadable> {
    let qos = reader.u8()?;
    QoS::from_u8(qos).ok_or_else(|| Unreadable(format!("a QoS is {qos}: expected 0 to 2")))
}

impl Core {
    pub(super) fn write_queued(&self, session: &Session, queued: &Queued, out: &mut Vec<u8>) {
        self.bodies.write(&queued.message, out);
        out.put_u8(queued.qos as u8);
        out.put_flag(queued.retain);
        let identifiers = queued.origin.identifiers();
        let first = identifiers.first().copied().unwrap_or(0);
        // Groups have other numbers in another process. Of one that the session has left there is nothing to be said.
        let filter = queued.origin.group().and_then(|group| session.shared.as_ref()?.filter_of(group));
        match (&queued.origin, filter) {
            (Origin::Sent, _) => out.put_u8(SENT),
            (Origin::Several(_), _) => {
                out.put_u8(SEVERAL);
                out.put_count(identifiers.len());
                identifiers.iter().for_each(|identifier| out.put_u32(*identifier));
            }
            (Origin::Shared { .. }, Some(filter)) => {
                out.put_u8(SHARED);
                out.put_u32(first);
                out.put_text(filter);
            }
            (Origin::Changed(_), Some(filter)) => {
                out.put_u8(CHANGED);
                out.put_u32(first);
                out.put_text(filter);
                self.bodies.write(&queued.clone().into_published(), out);
            }
            (Origin::One(_) | Origin::Shared { .. } | Origin::Changed(_), _) => {
                out.put_u8(ONE);
                out.put_u32(first);
            }
        }
    }

    pub(super) fn read_queued(
        &self,
        teller: u32,
        session: &Session,
        reader: &mut Reader<'_>,
    ) -> Result<Queued, Unreadable> {
        let read_kept = |reader: &mut Reader<'_>| self.bodies.read(teller, reader, |reader| self.read_inline(reader));
        let message = read_kept(reader)?;
        let (qos, retain) = (read_qos(reader)?, reader.flag()?);
        let group_of = |filter: &str| -> Option<NonZeroU64> { session.shared.as_ref()?.group_of(filter) };
        let origin = match reader.u8()? {
            SENT => Origin::Sent,
            ONE => Origin::new(None, &[reader.u32()?], &self.account),
            SEVERAL => Origin::new(None, &reader.list(Reader::u32)?, &self.account),
            SHARED => {
                let identifier = reader.u32()?;
                Origin::new(group_of(reader.text()?), &[identifier], &self.account)
            }
            CHANGED => {
                let identifier = reader.u32()?;
                let origin = Origin::new(group_of(reader.text()?), &[identifier], &self.account);
                origin.changed(read_kept(reader)?, &self.account)
            }
            other => return Err(Unreadable(format!("the origin of a message is {other}: expected 0 to 4"))),
        };
        Ok(Queued { message, qos, retain, origin })
    }
}
