//! How the answers of a handler are taken apart into pieces: for the host's sink, or for a ticket.

use crate::abi::{ACTION_DISCONNECT, ACTION_PUBLISH, ACTION_STOP, AnswerKey, Sink, Verdict};
use crate::ticket::{self, Later};
use crate::{
    Accept, AuthVerdict, ConnectVerdict, DeliverVerdict, Error, InfoAction, Message, PropertiesBuf, PublishVerdict,
    ReasonCode, State, SubscribeVerdict, UnsubscribeVerdict,
};

/// Something that a callback returns.
pub trait Answer {
    /// Writes the contents and returns the verdict.
    fn put(self, out: &mut impl Pieces) -> Verdict;

    /// Whether it is the usual answer: [`Verdict::OK`] without contents. Looked at first, as most answers are.
    #[inline(always)]
    fn is_plain(&self) -> bool {
        false
    }
}

/// Where the pieces of an answer go.
pub trait Pieces {
    /// Writes one piece.
    fn put(&mut self, key: AnswerKey, number: u64, bytes: &[u8]);

    /// Whether the answer may come later, by this ticket. If not, the text says why.
    fn defers(&mut self, ticket: u64) -> Result<(), &'static str>;
}

impl Pieces for Sink<'_> {
    #[inline]
    fn put(&mut self, key: AnswerKey, number: u64, bytes: &[u8]) {
        Sink::put(*self, key, number, bytes);
    }

    fn defers(&mut self, ticket: u64) -> Result<(), &'static str> {
        ticket::is_of_this_call(ticket)
    }
}

impl<T: Answer> Answer for Result<T, Error> {
    #[inline]
    fn put(self, out: &mut impl Pieces) -> Verdict {
        match self {
            Ok(answer) => answer.put(out),
            Err(error) => put_error(&error.to_string(), out),
        }
    }

    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.as_ref().is_ok_and(Answer::is_plain)
    }
}

#[cold]
fn put_error(error: &str, out: &mut impl Pieces) -> Verdict {
    text(out, error);
    Verdict::ERROR
}

impl Answer for () {
    fn put(self, _: &mut impl Pieces) -> Verdict {
        Verdict::OK
    }
}

impl Answer for ConnectVerdict {
    fn put(self, out: &mut impl Pieces) -> Verdict {
        match self {
            Self::Accept(Accept { client_id, keep_alive_secs, session_expiry_secs, properties: list }) => {
                if let Some(client_id) = client_id {
                    out.put(AnswerKey::CLIENT_ID, 0, client_id.as_bytes());
                }
                if let Some(secs) = keep_alive_secs {
                    out.put(AnswerKey::KEEP_ALIVE, secs.into(), &[]);
                }
                if let Some(secs) = session_expiry_secs {
                    out.put(AnswerKey::SESSION_EXPIRY, secs.into(), &[]);
                }
                properties(out, &list);
                Verdict::OK
            }
            Self::Reject(reject) => reason(out, Verdict::REJECT, reject.reason_code, &reject.properties),
            Self::Later(later) => put_later(&later, out),
        }
    }
}

impl Answer for AuthVerdict {
    fn put(self, out: &mut impl Pieces) -> Verdict {
        match self {
            Self::Ok => Verdict::OK,
            Self::OkWith(data) => {
                out.put(AnswerKey::AUTH_DATA, 0, &data);
                Verdict::OK
            }
            Self::Continue(data) => {
                out.put(AnswerKey::AUTH_DATA, 0, &data);
                Verdict::CONTINUE
            }
            Self::Error(reject) => reason(out, Verdict::REJECT, reject.reason_code, &reject.properties),
            Self::Later(later) => put_later(&later, out),
        }
    }
}

impl Answer for PublishVerdict {
    #[inline]
    fn put(self, out: &mut impl Pieces) -> Verdict {
        match self {
            Self::Forward => Verdict::OK,
            Self::ForwardChanged(message) => {
                put_message(out, &message);
                Verdict::CHANGED
            }
            Self::Handled => Verdict::HANDLED,
            Self::Reject(reject) => reason(out, Verdict::REJECT, reject.reason_code, &reject.properties),
            Self::Disconnect(end) => reason(out, Verdict::DISCONNECT, end.reason_code, &end.properties),
            Self::Later(later) => put_later(&later, out),
        }
    }

    #[inline(always)]
    fn is_plain(&self) -> bool {
        matches!(self, Self::Forward)
    }
}

impl Answer for SubscribeVerdict {
    fn put(self, out: &mut impl Pieces) -> Verdict {
        match self {
            Self::Grant => Verdict::OK,
            Self::Codes(codes) => put_codes(out, &codes),
            Self::Disconnect(end) => reason(out, Verdict::DISCONNECT, end.reason_code, &end.properties),
            Self::Later(later) => put_later(&later, out),
        }
    }
}

impl Answer for UnsubscribeVerdict {
    fn put(self, out: &mut impl Pieces) -> Verdict {
        match self {
            Self::Allow => Verdict::OK,
            Self::Codes(codes) => put_codes(out, &codes),
            Self::Disconnect(end) => reason(out, Verdict::DISCONNECT, end.reason_code, &end.properties),
            Self::Later(later) => put_later(&later, out),
        }
    }
}

impl Answer for DeliverVerdict {
    #[inline]
    fn put(self, out: &mut impl Pieces) -> Verdict {
        match self {
            Self::Send => Verdict::OK,
            Self::SendChanged(message) => {
                put_message(out, &message);
                Verdict::CHANGED
            }
            Self::Drop => Verdict::DROP,
        }
    }

    #[inline(always)]
    fn is_plain(&self) -> bool {
        matches!(self, Self::Send)
    }
}

impl Answer for State {
    fn put(self, out: &mut impl Pieces) -> Verdict {
        out.put(AnswerKey::STATE, self.version.into(), &self.bytes);
        Verdict::OK
    }
}

/// How the plugin is.
impl Answer for String {
    fn put(self, out: &mut impl Pieces) -> Verdict {
        text(out, &self);
        Verdict::OK
    }
}

impl Answer for Vec<InfoAction> {
    fn put(self, out: &mut impl Pieces) -> Verdict {
        if let [InfoAction::Later(later)] = &self[..] {
            return put_later(later, out);
        }
        if self.iter().any(|action| matches!(action, InfoAction::Later(_))) {
            return put_error("InfoAction::Later stands alone: all actions come later, or none", out);
        }
        for action in &self {
            match action {
                InfoAction::Later(_) => {} // It was looked for above.
                InfoAction::Publish(message) => {
                    out.put(AnswerKey::ACTION, ACTION_PUBLISH, &[]);
                    put_message(out, message);
                }
                InfoAction::Disconnect(end) => {
                    out.put(AnswerKey::ACTION, ACTION_DISCONNECT, &[]);
                    reason(out, Verdict::OK, end.reason_code, &end.properties);
                }
                InfoAction::Stop(why) => {
                    out.put(AnswerKey::ACTION, ACTION_STOP, &[]);
                    text(out, why);
                }
            }
        }
        Verdict::OK
    }
}

fn put_later<A>(later: &Later<A>, out: &mut impl Pieces) -> Verdict {
    match out.defers(later.number()) {
        Ok(()) => Verdict::DEFERRED,
        Err(why) => put_error(why, out),
    }
}

fn text(out: &mut impl Pieces, text: &str) {
    out.put(AnswerKey::TEXT, 0, text.as_bytes());
}

fn properties(out: &mut impl Pieces, list: &PropertiesBuf) {
    if !list.is_empty() {
        out.put(AnswerKey::PROPERTIES, 0, list.as_bytes());
    }
}

fn reason(out: &mut impl Pieces, verdict: Verdict, reason_code: ReasonCode, list: &PropertiesBuf) -> Verdict {
    out.put(AnswerKey::REASON_CODE, reason_code.0.into(), &[]);
    properties(out, list);
    verdict
}

fn put_codes(out: &mut impl Pieces, codes: &[ReasonCode]) -> Verdict {
    let codes: Vec<u8> = codes.iter().map(|code| code.0).collect();
    out.put(AnswerKey::CODES, 0, &codes);
    Verdict::CODES
}

fn put_message(out: &mut impl Pieces, message: &Message) {
    out.put(AnswerKey::TOPIC, 0, message.topic.as_bytes());
    out.put(AnswerKey::PAYLOAD, 0, &message.payload);
    out.put(AnswerKey::QOS, message.qos as u64, &[]);
    out.put(AnswerKey::RETAIN, message.retain.into(), &[]);
    if message.token != 0 {
        out.put(AnswerKey::TOKEN, message.token, &[]);
    }
    properties(out, &message.properties);
}
