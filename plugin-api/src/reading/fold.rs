//! One plugin's answer to one question, folded into what there is so far.

use super::answer::{Answer, MessageView, Unreadable, unknown};
use super::outcome::{
    AuthOutcome, ConnackOverrides, ConnectOutcome, InfoAction, InfoOutcome, PublishOutcome, SubscribeOutcome,
};
use super::packets::Packet;
use super::rules::{self, Place};
use crate::abi::{RawMessage, RawPublish, Status, Verdict};
use crate::{Callback, PropertiesBuf, QoS, ReasonCode};

/// Who has answered, and where what is wrong with the answer is told.
pub trait Faults {
    /// Bytes that a message of it may have, as the PUBLISH packet that carries it.
    fn packet_bytes_max(&self) -> usize;

    /// The callback returned an error; its text is in the answer.
    fn error(&self, callback: Callback, who: &str, answer: &Answer);

    /// The answer makes no sense; `why` in a half sentence.
    fn unreadable(&self, callback: Callback, who: &str, why: &str);

    /// It has answered a Reason Code that the packet cannot have; see [`Packet::misfit`].
    fn misfit(&self, callback: Callback, who: &str, packet: Packet, answered: ReasonCode);
}

/// The Reason Code of "any other error".
const ERROR: ReasonCode = ReasonCode::UNSPECIFIED_ERROR;

/// The Reason Code to send where a plugin has answered this one: the same if a server may put it into this packet. Otherwise
/// 0x80: a mistake of the plugin's is told to the log, must not make the packet a Malformed one for the client, and leaves the
/// refusal a refusal.
fn fitting(plugin: &impl Faults, callback: Callback, who: &str, packet: Packet, answered: ReasonCode) -> ReasonCode {
    if packet.may_have(answered) {
        return answered;
    }
    plugin.misfit(callback, who, packet, answered);
    Packet::INSTEAD
}

/// Whether the state that the plugin has of the connection cannot be used any more.
#[must_use]
pub const fn is_fatal(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::PANICKED | Verdict::POISONED)
}

/// Whether a plugin answers later.
#[must_use]
pub fn is_later(verdict: Verdict, answer: &Answer) -> bool {
    verdict == Verdict::DEFERRED && answer.ticket != Answer::NO_TICKET
}

/// `handle_connect`. `Some`: asking ends here.
pub fn fold_connect<L>(
    plugin: &impl Faults,
    who: &str,
    verdict: Verdict,
    answer: &Answer,
    overrides: &mut ConnackOverrides,
) -> Option<ConnectOutcome<L>> {
    let read = match verdict {
        Verdict::OK => answer.overrides().map(|new| *overrides = merged(overrides, new)),
        Verdict::REJECT => match answer.refusal(Place::Farewell) {
            Ok((code, properties)) => {
                let reason_code = fitting(plugin, Callback::Connect, who, Packet::Connack, code);
                return Some(ConnectOutcome::Reject { reason_code, properties });
            }
            Err(why) => Err(why),
        },
        Verdict::ERROR => {
            plugin.error(Callback::Connect, who, answer);
            return Some(ConnectOutcome::Reject { reason_code: ERROR, properties: PropertiesBuf::new() });
        }
        other => Err(unknown(other)),
    };
    read.err().map(|why| {
        plugin.unreadable(Callback::Connect, who, &why);
        ConnectOutcome::Failed
    })
}

fn merged(earlier: &ConnackOverrides, later: ConnackOverrides) -> ConnackOverrides {
    ConnackOverrides {
        client_id: later.client_id.or_else(|| earlier.client_id.clone()),
        keep_alive: later.keep_alive.or(earlier.keep_alive),
        session_expiry: later.session_expiry.or(earlier.session_expiry),
        properties: rules::merge(&earlier.properties, &later.properties),
    }
}

/// `handle_auth`. `is_owner`: the plugin has accepted the method before; `connected`: the client has been let in already, and is
/// told of a refusal with DISCONNECT. `None`: it is not this plugin's method, and the next one is asked.
pub fn fold_auth<L>(
    plugin: &impl Faults,
    who: &str,
    (is_owner, connected): (bool, bool),
    verdict: Verdict,
    answer: &Answer,
) -> Option<AuthOutcome<L>> {
    let outcome = match verdict {
        Verdict::OK => answer.auth_data().map(|data| AuthOutcome::Ok { data }),
        Verdict::CONTINUE => answer.auth_data().map(|data| AuthOutcome::Continue { data: data.unwrap_or_default() }),
        Verdict::REJECT => answer
            .refusal(Place::Farewell)
            .map(|(reason_code, properties)| AuthOutcome::Reject { reason_code, properties }),
        Verdict::ERROR => {
            plugin.error(Callback::Auth, who, answer);
            Ok(AuthOutcome::Reject { reason_code: ERROR, properties: PropertiesBuf::new() })
        }
        other => Err(unknown(other)),
    };
    match outcome {
        Ok(AuthOutcome::Reject { reason_code: ReasonCode::BAD_AUTHENTICATION_METHOD, .. }) if !is_owner => None,
        Ok(mut outcome) => {
            if let AuthOutcome::Reject { reason_code, .. } = &mut outcome {
                let packet = if connected { Packet::Disconnect } else { Packet::Connack };
                *reason_code = fitting(plugin, Callback::Auth, who, packet, *reason_code);
            }
            Some(outcome)
        }
        Err(why) => {
            plugin.unreadable(Callback::Auth, who, &why);
            Some(AuthOutcome::Failed)
        }
    }
}

/// One plugin's answer about a message.
pub enum PublishAnswer<'a, L> {
    Forward,
    Changed(MessageView<'a>),
    /// It answers later, by this ticket.
    Later(u64),
    End(PublishOutcome<L>),
}

/// `handle_publish`.
pub fn read_publish<'a, L>(
    plugin: &impl Faults,
    who: &str,
    verdict: Verdict,
    answer: &'a Answer,
) -> PublishAnswer<'a, L> {
    // PUBREC has the Reason Codes of PUBACK.
    let fitting = |packet, code| fitting(plugin, Callback::Publish, who, packet, code);
    let read = match verdict {
        Verdict::OK => return PublishAnswer::Forward,
        Verdict::CHANGED => answer.message(plugin.packet_bytes_max()).map(PublishAnswer::Changed),
        Verdict::DEFERRED if is_later(verdict, answer) => Ok(PublishAnswer::Later(answer.ticket)),
        Verdict::HANDLED => answer.nothing().map(|()| PublishAnswer::End(PublishOutcome::Handled)),
        Verdict::REJECT => answer
            .refusal(Place::Acknowledgement)
            .map(|(code, properties)| (fitting(Packet::Puback, code), properties))
            .map(|(reason_code, properties)| PublishAnswer::End(PublishOutcome::Reject { reason_code, properties })),
        Verdict::DISCONNECT => {
            answer.disconnection().map(|(code, properties)| (fitting(Packet::Disconnect, code), properties)).map(
                |(reason_code, properties)| PublishAnswer::End(PublishOutcome::Disconnect { reason_code, properties }),
            )
        }
        Verdict::ERROR => {
            plugin.error(Callback::Publish, who, answer);
            Ok(PublishAnswer::End(refused()))
        }
        other => Err(unknown(other)),
    };
    read.unwrap_or_else(|why| {
        plugin.unreadable(Callback::Publish, who, &why);
        // A message that cannot be published is refused; an answer that makes no sense at all ends the connection.
        let unusable_message = verdict == Verdict::CHANGED;
        PublishAnswer::End(if unusable_message { refused() } else { PublishOutcome::Failed })
    })
}

/// A message that is refused with 0x80.
#[must_use]
pub const fn refused<L>() -> PublishOutcome<L> {
    PublishOutcome::Reject { reason_code: ERROR, properties: PropertiesBuf::new() }
}

/// `handle_subscribe` and `handle_unsubscribe`: Reason Codes are folded into those so far. `Some`: asking ends here.
pub fn fold_codes<L>(
    plugin: &impl Faults,
    callback: Callback,
    who: &str,
    verdict: Verdict,
    answer: &Answer,
    codes: &mut [ReasonCode],
) -> Option<SubscribeOutcome<L>> {
    let (packet, fold): (_, fn(_, _) -> _) = match callback {
        Callback::Subscribe => (Packet::Suback, lower_grant),
        _ => (Packet::Unsuback, refuse_only),
    };
    let fitting = |packet, code| fitting(plugin, callback, who, packet, code);
    let read = match verdict {
        Verdict::OK => answer.nothing(),
        Verdict::CODES => answer.codes(codes.len()).and_then(|answers| {
            codes.iter_mut().zip(answers).try_for_each(|(code, answered)| {
                let answered = fold(*code, ReasonCode(*answered))?;
                *code = if answered == *code { answered } else { fitting(packet, answered) };
                Ok(())
            })
        }),
        Verdict::DISCONNECT => match answer.disconnection() {
            Ok((code, properties)) => {
                let reason_code = fitting(Packet::Disconnect, code);
                return Some(SubscribeOutcome::Disconnect { reason_code, properties });
            }
            Err(why) => Err(why),
        },
        Verdict::ERROR => {
            plugin.error(callback, who, answer);
            codes.iter_mut().filter(|code| !code.is_error()).for_each(|code| *code = ERROR);
            Ok(())
        }
        other => Err(unknown(other)),
    };
    read.err().map(|why| {
        plugin.unreadable(callback, who, &why);
        SubscribeOutcome::Failed
    })
}

/// SUBSCRIBE: the first error stays; a granted QoS is only ever lowered.
fn lower_grant(so_far: ReasonCode, answered: ReasonCode) -> Result<ReasonCode, Unreadable> {
    if !answered.is_error() && QoS::from_u8(answered.0).is_none() {
        return Err(format!("{answered} is neither a granted QoS nor an error"));
    }
    Ok(match (so_far.is_error(), answered.is_error()) {
        (true, _) => so_far,
        (false, true) => answered,
        (false, false) => ReasonCode(so_far.0.min(answered.0)),
    })
}

/// UNSUBSCRIBE: the first error stays; whether there was a subscription is not a plugin's to say.
fn refuse_only(so_far: ReasonCode, answered: ReasonCode) -> Result<ReasonCode, Unreadable> {
    match answered {
        ReasonCode::SUCCESS | ReasonCode::NO_SUBSCRIPTION_EXISTED => Ok(so_far),
        _ if !answered.is_error() => Err(format!("{answered} is neither success nor an error")),
        _ => Ok(if so_far.is_error() { so_far } else { answered }),
    }
}

/// `handle_info`: adds one plugin's actions. `Some`: asking ends here.
pub fn fold_info<L>(
    plugin: &impl Faults,
    who: &str,
    verdict: Verdict,
    answer: &Answer,
    actions: &mut Vec<InfoAction>,
) -> Option<InfoOutcome<L>> {
    let fitted = |mut action| {
        if let InfoAction::Disconnect { reason_code, .. } = &mut action {
            *reason_code = fitting(plugin, Callback::Info, who, Packet::Disconnect, *reason_code);
        }
        action
    };
    let read = match verdict {
        Verdict::OK => {
            answer.actions(plugin.packet_bytes_max()).map(|more| actions.extend(more.into_iter().map(fitted)))
        }
        Verdict::ERROR => {
            plugin.error(Callback::Info, who, answer);
            Ok(())
        }
        other => Err(unknown(other)),
    };
    read.err().map(|why| {
        plugin.unreadable(Callback::Info, who, &why);
        InfoOutcome::Failed
    })
}

/// One plugin's answer about a delivery.
pub enum DeliverAnswer<'a> {
    Send,
    /// To be sent with at most the QoS that the delivery has.
    Changed(MessageView<'a>),
    Drop,
    /// The state is away: nobody can say now.
    Later,
    Failed,
}

/// `handle_deliver`.
pub fn read_deliver<'a>(plugin: &impl Faults, who: &str, verdict: Verdict, answer: &'a Answer) -> DeliverAnswer<'a> {
    let read = match verdict {
        Verdict::OK => return DeliverAnswer::Send,
        Verdict::CHANGED => answer.message(plugin.packet_bytes_max()).map(DeliverAnswer::Changed),
        Verdict::DROP => answer.nothing().map(|()| DeliverAnswer::Drop),
        Verdict::ERROR => {
            plugin.error(Callback::Deliver, who, answer);
            return DeliverAnswer::Drop;
        }
        Verdict::AWAY => return DeliverAnswer::Later,
        other => {
            plugin.unreadable(Callback::Deliver, who, &unknown(other));
            return DeliverAnswer::Failed;
        }
    };
    read.unwrap_or_else(|why| {
        plugin.unreadable(Callback::Deliver, who, &why);
        DeliverAnswer::Drop
    })
}

/// A message that a plugin publishes or sends by a service, checked.
///
/// # Errors
/// What the service answers.
pub fn message_of<'a>(message: &RawMessage<'a>, packet_bytes_max: usize) -> Result<MessageView<'a>, Status> {
    let (topic, payload) = (message.topic.as_slice(), message.payload.as_slice());
    let properties = message.properties.as_slice();
    let qos = QoS::from_u8(message.qos).ok_or(Status::INVALID)?;
    rules::message_size(topic, payload, properties, qos, packet_bytes_max).map_err(|_| Status::TOO_LARGE)?;
    Ok(MessageView {
        topic: rules::topic_name(topic).map_err(|_| Status::INVALID)?,
        payload,
        properties: rules::properties(Place::Message, properties).map_err(|_| Status::INVALID)?,
        qos,
        retain: message.flags & RawPublish::RETAIN != 0,
        token: message.token,
    })
}
