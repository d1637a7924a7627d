//! What plugins only hear of: there is nothing to answer, and one plugin's failure does not keep the others from it.
//!
//! Notices about messages have no connection's state, as there may be no connection. While a canary has a share of the
//! connections they go to the instances that decide about the others.

use std::sync::Arc;

use plugin_api::abi::{RawConnected, RawDeliver, RawMessageNotice, RawRetained};
use plugin_api::{Callback, DropReason, QoS, ReasonCode, RetainChange};

use super::chain::{Chain, implementing};
use super::generation::Plan;
use super::handlers::Handlers;
use super::handover::Exported;
use super::instance::Plugin;
use super::outcome::Failed;
use super::request::NO_EXTENSION;
use super::services;
use crate::message::MessageParts;
use crate::packed::{Reader, Unreadable, Write};
use plugin_api::reading::Answer;

/// A client that has been let in.
#[derive(Debug, Clone, Copy)]
pub struct ConnectedNotice {
    /// Number of the connection.
    pub connection: u64,
    /// Session Expiry Interval in force, in seconds.
    pub session_expiry: u32,
    /// Keep Alive in force, in seconds.
    pub keep_alive: u16,
    /// The session was there already.
    pub session_present: bool,
    /// Another connection of the client was ended for this one.
    pub took_over: bool,
}

/// What has become of a message that was meant for one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was not delivered.
    Dropped(DropReason),
    /// The client has it, or has refused it with an error.
    Acknowledged(ReasonCode),
    /// It waited for too long.
    Expired,
}

impl Fate {
    /// The callback that hears of it.
    #[must_use]
    pub const fn callback(self) -> Callback {
        match self {
            Self::Dropped(_) => Callback::Dropped,
            Self::Acknowledged(_) => Callback::Acknowledged,
            Self::Expired => Callback::Expired,
        }
    }
}

/// A message that was meant for one client.
#[derive(Debug, Clone, Copy)]
pub struct MessageNotice<'a> {
    /// Client Identifier; empty where it is not known.
    pub client_id: &'a str,
    /// The message. Its properties are complete, so that it says itself when it expires.
    pub message: MessageParts<'a>,
    /// The token that its plugin sent it with, 0 for none. Other plugins do not see it.
    pub token: u64,
    /// Packet Identifier, if it had one.
    pub packet_id: Option<u16>,
    /// QoS of the delivery.
    pub qos: QoS,
    /// RETAIN of the packet.
    pub retain: bool,
}

/// Bytes of one connection's state that are kept for `handle_session_expired`.
const STATE_BYTES_MAX: usize = 1 << 20;

/// What the plugins that want to hear of the end of a session have exported when its last connection ended.
#[derive(Debug)]
pub struct LastStates(Box<[(usize, Exported)]>);

impl LastStates {
    /// The bytes that they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(_, state)| size_of::<(usize, Exported)>() + state.bytes.len()).sum()
    }

    /// The form in which they outlive the server, for [`decode`](Self::decode), and with them what plugins are asked with about
    /// a will that waits: for each, the length of the plugin's name, the version of the state and its length in four bytes each,
    /// then the name and the state. What belongs to the will has no name.
    #[must_use]
    pub fn encoded(states: Option<&Self>, of_will: Option<&[u8]>, plugins: &[Arc<Plugin>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, version, bytes) in named(states, of_will, plugins) {
            let length =
                |bytes: usize| u32::try_from(bytes).expect("a name, or at most 64 states of a MiB").to_le_bytes();
            for part in [length(name.len()), version.to_le_bytes(), length(bytes.len())] {
                out.extend_from_slice(&part);
            }
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(bytes);
        }
        out
    }

    /// What was encoded, for those of the plugins that there are now. `None` if there is nothing for any of them.
    #[must_use]
    pub fn decode(encoded: &[u8], plugins: &[Arc<Plugin>]) -> Option<Self> {
        Self::of_plugins(&entries(encoded)?, plugins)
    }

    /// What was encoded for the will.
    #[must_use]
    pub fn of_will(encoded: &[u8]) -> Option<&[u8]> {
        of_will(&entries(encoded)?)
    }

    /// Writes the same for another process.
    pub(crate) fn write(states: Option<&Self>, of_will: Option<&[u8]>, plan: &Plan, out: &mut Vec<u8>) {
        let named = named(states, of_will, plan.plugins());
        out.put_count(named.len());
        for (name, version, bytes) in named {
            out.put_text(name);
            out.put_u32(version);
            out.put_bytes(bytes);
        }
    }

    /// Reads what was written, as far as the plan has these plugins, and what belongs to the will.
    pub(crate) fn read<'a>(
        plan: &Plan,
        reader: &mut Reader<'a>,
    ) -> Result<(Option<Self>, Option<&'a [u8]>), Unreadable> {
        let entries = reader.list(|reader| Ok((reader.text()?, reader.u32()?, reader.bytes()?)))?;
        Ok((Self::of_plugins(&entries, plan.plugins()), of_will(&entries)))
    }

    fn of_plugins(entries: &[Entry<'_>], plugins: &[Arc<Plugin>]) -> Option<Self> {
        let place = |name| plugins.iter().position(|plugin| plugin.name() == name);
        let states = entries.iter().filter_map(|(name, version, bytes)| {
            Some((place(*name)?, Exported { version: *version, bytes: bytes.to_vec() }))
        });
        let states: Box<[_]> = states.collect();
        (!states.is_empty()).then_some(Self(states))
    }
}

/// What is written of one plugin: its name, and the version and the bytes of its state.
type Entry<'a> = (&'a str, u32, &'a [u8]);

/// The name of what belongs to a will: no plugin has it.
const OF_WILL: &str = "";

fn of_will<'a>(entries: &[Entry<'a>]) -> Option<&'a [u8]> {
    entries.iter().find_map(|(name, _, bytes)| (*name == OF_WILL).then_some(*bytes))
}

fn named<'a>(states: Option<&'a LastStates>, of_will: Option<&'a [u8]>, plugins: &'a [Arc<Plugin>]) -> Vec<Entry<'a>> {
    let states = states.into_iter().flat_map(|states| &states.0);
    let entry =
        |(index, state): &'a (usize, Exported)| Some((plugins.get(*index)?.name(), state.version, &*state.bytes));
    states.filter_map(entry).chain(of_will.map(|bytes| (OF_WILL, 0, bytes))).collect()
}

fn entries(mut encoded: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut entries = Vec::new();
    while let Some((numbers, rest)) = encoded.split_first_chunk::<12>() {
        let number = |at: usize| numbers[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let (name, rest) = rest.split_at_checked(number(0) as usize)?;
        let (bytes, rest) = rest.split_at_checked(number(8) as usize)?;
        entries.push((std::str::from_utf8(name).ok()?, number(4), bytes));
        encoded = rest;
    }
    Some(entries)
}

impl Chain {
    /// Has the states of a connection that ends exported by those plugins that will hear when its session expires.
    pub fn last_states(&self, handlers: &mut Handlers, who: &str) -> Option<LastStates> {
        let mut states = Vec::new();
        for index in implementing(handlers, Callback::SessionExpired) {
            let plugin = Arc::clone(&handlers.plugins().list[index]);
            let connection = handlers.connection();
            handlers.settle(index);
            let state = &handlers.states()[index];
            if state.is_none() || !plugin.callbacks().contains(Callback::ExportState) {
                continue;
            }
            match plugin.export(connection, state, who) {
                Ok(state) if state.bytes.len() <= STATE_BYTES_MAX => states.push((index, state)),
                Ok(state) => tracing::warn!(
                    plugin = plugin.name(),
                    client_id = who,
                    "a state of {} bytes is not kept for handle_session_expired: it may have {STATE_BYTES_MAX}",
                    state.bytes.len()
                ),
                Err(_) => {} // It is logged where there is something to say.
            }
        }
        (!states.is_empty()).then(|| LastStates(states.into()))
    }

    /// Tells the plugins that a client has been let in. `who` is its Client Identifier.
    ///
    /// # Errors
    /// A plugin panicked; the others have been told all the same.
    pub fn connected(&self, handlers: &mut Handlers, who: &str, notice: &ConnectedNotice) -> Result<(), Failed> {
        let flags =
            [(notice.session_present, RawConnected::SESSION_PRESENT), (notice.took_over, RawConnected::TOOK_OVER)];
        let raw = RawConnected {
            client_id: who.into(),
            connection: notice.connection,
            session_expiry: notice.session_expiry,
            keep_alive: notice.keep_alive,
            flags: flags.iter().filter(|(set, _)| *set).fold(0, |bits, (_, bit)| bits | bit),
            extension: NO_EXTENSION,
        };
        let mut result = Ok(());
        for index in implementing(handlers, Callback::Connected) {
            let mut answer = Answer::default();
            result = handlers.ask(index, who, &mut answer, &raw).map(|_| ()).and(result);
        }
        result
    }
}

impl Plan {
    /// Tells the plugins what has become of a message.
    pub fn tell(&self, fate: Fate, notice: &MessageNotice<'_>) {
        let MessageNotice { client_id, message, token, packet_id, qos, retain } = notice;
        let (reason, reason_code) = match fate {
            Fate::Dropped(reason) => (reason as u8, 0),
            Fate::Acknowledged(code) => (0, code.0),
            Fate::Expired => (0, 0),
        };
        services::because_of(message.source, || {
            for (index, plugin) in self.plugins().iter().enumerate() {
                if !plugin.callbacks().contains(fate.callback()) {
                    continue;
                }
                let raw = RawMessageNotice {
                    client_id: (*client_id).into(),
                    topic: message.topic.into(),
                    payload: message.payload.into(),
                    properties: message.properties.into(),
                    token: if message.source.is_plugin(index) { *token } else { 0 },
                    packet_id: packet_id.unwrap_or(0),
                    qos: *qos as u8,
                    flags: u8::from(*retain) * RawDeliver::RETAIN,
                    reason,
                    reason_code,
                    extension: NO_EXTENSION,
                };
                plugin.message_notice(fate.callback(), &raw);
            }
        });
    }

    /// Tells the plugins what has happened to the retained message of a topic. `properties` are those of `message`,
    /// complete.
    pub fn retained(&self, change: RetainChange, message: &MessageParts<'_>) {
        let raw = RawRetained {
            topic: message.topic.into(),
            payload: message.payload.into(),
            properties: message.properties.into(),
            qos: message.qos as u8,
            change: match change {
                RetainChange::Set => RawRetained::SET,
                RetainChange::Cleared => RawRetained::CLEARED,
                _ => RawRetained::EXPIRED,
            },
            extension: NO_EXTENSION,
        };
        services::because_of(message.source, || {
            for plugin in self.plugins().iter().filter(|plugin| plugin.callbacks().contains(Callback::Retained)) {
                plugin.retained(&raw);
            }
        });
    }

    /// Tells the plugins that a session has expired, each with the state that it has exported.
    pub fn session_expired(&self, client_id: &str, states: Option<&LastStates>) {
        for (index, plugin) in self.plugins().iter().enumerate() {
            if plugin.callbacks().contains(Callback::SessionExpired) {
                let state = states.and_then(|states| states.0.iter().find(|(place, _)| *place == index));
                plugin.session_expired(client_id, state.map(|(_, state)| state.raw()).as_ref());
            }
        }
    }
}
