//! What becomes of a message, when several plugins have a say.

use plugin_api::abi::{RawPublish, Verdict};
use plugin_api::{Callback, PropertiesBuf};

use super::answer::{Answer, MessageView, unknown};
use super::call::Handlers;
use super::chain::{Chain, ERROR, implementing, log_error, log_unreadable};
use super::outcome::{ChangedMessage, Failed, PublishOutcome};
use super::request::PublishRequest;
use super::rules::Place;
use crate::codec::PacketType;

impl Chain {
    /// What becomes of a message? Each plugin sees the previous one's. If one changes the topic, those before it are asked
    /// once more about the new one, and may only agree or refuse.
    ///
    /// `changed` is filled if the outcome is [`PublishOutcome::Changed`]; otherwise its contents mean nothing.
    #[inline]
    pub fn publish(
        &self,
        handlers: &mut Handlers,
        who: &str,
        request: &PublishRequest<'_>,
        changed: &mut ChangedMessage,
    ) -> PublishOutcome {
        let mut is_changed = false;
        for index in implementing(handlers, Callback::Publish) {
            let mut answer = Answer::default();
            let raw = if is_changed { raw_changed(changed, request, false) } else { request.raw(false) };
            match ask_publish(handlers, index, who, &raw, &mut answer) {
                Asked::Forward => {}
                Asked::Changed(message) => {
                    let topic = if is_changed { &changed.topic } else { request.topic };
                    let topic_changed = topic != message.topic;
                    message.copy_to(changed);
                    is_changed = true;
                    let objection = topic_changed.then(|| ask_again(handlers, index, who, request, changed));
                    if let Some(end) = objection.flatten() {
                        return end;
                    }
                }
                Asked::End(end) => return end,
            }
        }
        if is_changed { PublishOutcome::Changed } else { PublishOutcome::Forward }
    }
}

/// One plugin's answer about a message.
enum Asked<'a> {
    Forward,
    Changed(MessageView<'a>),
    End(PublishOutcome),
}

#[inline]
fn ask_publish<'a>(
    handlers: &mut Handlers,
    index: usize,
    who: &str,
    raw: &RawPublish<'_>,
    answer: &'a mut Answer,
) -> Asked<'a> {
    match handlers.publish(index, who, answer, raw) {
        Ok(Verdict::OK) => Asked::Forward,
        Ok(verdict) => read_publish(handlers, index, who, verdict, answer),
        Err(Failed) => Asked::End(PublishOutcome::Failed),
    }
}

fn read_publish<'a>(handlers: &Handlers, index: usize, who: &str, verdict: Verdict, answer: &'a Answer) -> Asked<'a> {
    let plugin = &handlers.plugins().list[index];
    // PUBREC has the Reason Codes of PUBACK.
    let fitting = |packet, code| plugin.fitting(Callback::Publish, who, packet, code);
    let read = match verdict {
        Verdict::CHANGED => answer.message(plugin.packet_bytes_max()).map(Asked::Changed),
        Verdict::HANDLED => answer.nothing().map(|()| Asked::End(PublishOutcome::Handled)),
        Verdict::REJECT => answer
            .refusal(Place::Acknowledgement)
            .map(|(code, properties)| (fitting(PacketType::Puback, code), properties))
            .map(|(reason_code, properties)| Asked::End(PublishOutcome::Reject { reason_code, properties })),
        Verdict::DISCONNECT => answer
            .disconnection()
            .map(|(code, properties)| (fitting(PacketType::Disconnect, code), properties))
            .map(|(reason_code, properties)| Asked::End(PublishOutcome::Disconnect { reason_code, properties })),
        Verdict::ERROR => {
            log_error(handlers, index, Callback::Publish, who, answer);
            Ok(Asked::End(refused()))
        }
        other => Err(unknown(other)),
    };
    read.unwrap_or_else(|why| {
        log_unreadable(handlers, index, Callback::Publish, who, &why);
        // A message that cannot be published is refused; an answer that makes no sense at all ends the connection.
        let unusable_message = verdict == Verdict::CHANGED;
        Asked::End(if unusable_message { refused() } else { PublishOutcome::Failed })
    })
}

/// Asks the plugins before `changer` about the topic that it has given a message. `Some`: they object.
#[cold]
fn ask_again(
    handlers: &mut Handlers,
    changer: usize,
    who: &str,
    request: &PublishRequest<'_>,
    changed: &ChangedMessage,
) -> Option<PublishOutcome> {
    for index in implementing(handlers, Callback::Publish).take_while(|index| *index < changer) {
        let mut answer = Answer::default();
        let raw = raw_changed(changed, request, true);
        match ask_publish(handlers, index, who, &raw, &mut answer) {
            Asked::Forward => {}
            // A plugin that rewrites whatever it sees in the same way has nothing to add.
            Asked::Changed(message) if message.equals(changed) => {}
            Asked::Changed(_) => {
                let why = "it changes a message again that a later plugin has changed";
                log_unreadable(handlers, index, Callback::Publish, who, why);
                return Some(refused());
            }
            Asked::End(end) => return Some(end),
        }
    }
    None
}

fn refused() -> PublishOutcome {
    PublishOutcome::Reject { reason_code: ERROR, properties: PropertiesBuf::new() }
}

fn raw_changed<'a>(changed: &'a ChangedMessage, request: &PublishRequest<'a>, again: bool) -> RawPublish<'a> {
    PublishRequest {
        topic: &changed.topic,
        payload: &changed.payload,
        properties: &changed.properties,
        qos: changed.qos,
        retain: changed.retain,
        ..*request
    }
    .raw(again)
}
