//! May a client get a message, when several plugins have a say.

use std::sync::Arc;

use plugin_api::abi::RawDeliver;
use plugin_api::reading::{Answer, DeliverAnswer, read_deliver};
use plugin_api::{Callback, QoS};

use super::chain::{Chain, implementing};
use super::handlers::Handlers;
use super::outcome::{ChangedMessage, DeliverOutcome};
use super::request::NO_EXTENSION;
use super::services;
use crate::message::Source;

/// Why a message is delivered now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// It has just been published.
    Published = RawDeliver::CAUSE_PUBLISHED,
    /// It was retained, and the client has subscribed.
    Retained = RawDeliver::CAUSE_RETAINED,
    /// It waited in the session's queue.
    Queued = RawDeliver::CAUSE_QUEUED,
    /// A plugin sent it to this client.
    Sent = RawDeliver::CAUSE_SENT,
}

/// A message on its way to one client.
#[derive(Debug, Clone, Copy)]
pub struct DeliverRequest<'a> {
    /// Topic Name.
    pub topic: &'a str,
    /// Application payload.
    pub payload: &'a [u8],
    /// Encoded properties, without Subscription Identifiers and Topic Alias, with what is left of the Message Expiry
    /// Interval.
    pub properties: &'a [u8],
    /// Subscription Identifiers of the matching subscriptions.
    pub identifiers: &'a [u32],
    /// QoS of this delivery.
    pub qos: QoS,
    /// RETAIN of the packet.
    pub retain: bool,
    /// A Shared Subscription has chosen the client.
    pub shared: bool,
    /// Who published it.
    pub source: Source,
    /// The token that its plugin sent it with; 0 for none.
    pub token: u64,
    /// Why it is delivered now.
    pub cause: Cause,
}

impl Chain {
    /// May this client get this message? Each plugin sees the previous one's; the first that drops it wins. A plugin that
    /// has published the message is not asked.
    ///
    /// `changed` is filled if the outcome is [`DeliverOutcome::Changed`]; otherwise its contents mean nothing.
    pub fn deliver(
        &self,
        handlers: &mut Handlers,
        who: &str,
        request: &DeliverRequest<'_>,
        changed: &mut ChangedMessage,
    ) -> DeliverOutcome {
        services::because_of(request.source, || fold(handlers, who, request, changed))
    }
}

fn fold(
    handlers: &mut Handlers,
    who: &str,
    request: &DeliverRequest<'_>,
    changed: &mut ChangedMessage,
) -> DeliverOutcome {
    // A copy of the list, so that the name in it outlasts calls, which need the handlers mutably.
    let publisher = match request.source {
        Source::Plugin { index, .. } => Some((Arc::clone(handlers.plugins()), usize::from(index))),
        Source::Client | Source::Will | Source::Server => None,
    };
    let name = publisher.as_ref().and_then(|(plugins, index)| plugins.list.get(*index)).map_or("", |one| one.name());
    let mut is_changed = false;
    for index in implementing(handlers, Callback::Deliver) {
        if request.source.is_plugin(index) {
            continue;
        }
        let mut answer = Answer::default();
        let asked = {
            let request = if is_changed { as_changed(request, changed) } else { *request };
            let raw = raw(&request, who, name);
            handlers.ask(index, who, &mut answer, &raw)
        };
        let Ok(verdict) = asked else { return DeliverOutcome::Failed };
        match read_deliver(&*handlers.plugins().list[index], who, verdict, &answer) {
            DeliverAnswer::Send => {}
            DeliverAnswer::Changed(message) => {
                message.copy_to(changed);
                // A delivery is raised to no QoS that the client has not subscribed with.
                changed.qos = changed.qos.min(request.qos);
                is_changed = true;
            }
            DeliverAnswer::Drop => return DeliverOutcome::Drop,
            DeliverAnswer::Later => return DeliverOutcome::Later,
            DeliverAnswer::Failed => return DeliverOutcome::Failed,
        }
    }
    if is_changed { DeliverOutcome::Changed } else { DeliverOutcome::Send }
}

/// The same delivery of what a plugin has made of its message.
fn as_changed<'a>(request: &DeliverRequest<'a>, changed: &'a ChangedMessage) -> DeliverRequest<'a> {
    DeliverRequest {
        topic: &changed.topic,
        payload: &changed.payload,
        properties: &changed.properties,
        qos: changed.qos,
        retain: changed.retain,
        ..*request
    }
}

fn raw<'a>(request: &DeliverRequest<'a>, who: &'a str, plugin: &'a str) -> RawDeliver<'a> {
    let (retain, shared) = (u8::from(request.retain), u8::from(request.shared));
    RawDeliver {
        topic: request.topic.into(),
        payload: request.payload.into(),
        properties: request.properties.into(),
        client_id: who.into(),
        plugin: plugin.into(),
        identifiers: request.identifiers.into(),
        token: request.token,
        qos: request.qos as u8,
        flags: (retain * RawDeliver::RETAIN) | (shared * RawDeliver::SHARED),
        origin: match request.source {
            Source::Client => RawDeliver::ORIGIN_CLIENT,
            Source::Plugin { .. } => RawDeliver::ORIGIN_PLUGIN,
            Source::Will => RawDeliver::ORIGIN_WILL,
            Source::Server => RawDeliver::ORIGIN_SERVER,
        },
        cause: request.cause as u8,
        extension: NO_EXTENSION,
    }
}
