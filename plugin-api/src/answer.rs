//! How the answers of a handler are written into the host's sink.

use crate::abi::{ACTION_DISCONNECT, ACTION_PUBLISH, ACTION_STOP, AnswerKey, Sink, Verdict};
use crate::{
    Accept, AuthVerdict, ConnectVerdict, DeliverVerdict, Error, InfoAction, Message, PropertiesBuf, PublishVerdict,
    ReasonCode, State, SubscribeVerdict, UnsubscribeVerdict,
};

/// Something that a callback returns.
pub(crate) trait Answer {
    /// Writes the contents and returns the verdict.
    fn put(self, sink: Sink<'_>) -> Verdict;
}

impl<T: Answer> Answer for Result<T, Error> {
    #[inline]
    fn put(self, sink: Sink<'_>) -> Verdict {
        match self {
            Ok(answer) => answer.put(sink),
            Err(error) => put_error(&error, sink),
        }
    }
}

#[cold]
fn put_error(error: &Error, sink: Sink<'_>) -> Verdict {
    text(sink, &error.to_string());
    Verdict::ERROR
}

impl Answer for () {
    fn put(self, _: Sink<'_>) -> Verdict {
        Verdict::OK
    }
}

impl Answer for ConnectVerdict {
    fn put(self, sink: Sink<'_>) -> Verdict {
        match self {
            Self::Accept(Accept { client_id, keep_alive_secs, session_expiry_secs, properties: list }) => {
                if let Some(client_id) = client_id {
                    sink.put(AnswerKey::CLIENT_ID, 0, client_id.as_bytes());
                }
                if let Some(secs) = keep_alive_secs {
                    sink.put(AnswerKey::KEEP_ALIVE, secs.into(), &[]);
                }
                if let Some(secs) = session_expiry_secs {
                    sink.put(AnswerKey::SESSION_EXPIRY, secs.into(), &[]);
                }
                properties(sink, &list);
                Verdict::OK
            }
            Self::Reject(reject) => reason(sink, Verdict::REJECT, reject.reason_code, &reject.properties),
        }
    }
}

impl Answer for AuthVerdict {
    fn put(self, sink: Sink<'_>) -> Verdict {
        match self {
            Self::Ok => Verdict::OK,
            Self::OkWith(data) => {
                sink.put(AnswerKey::AUTH_DATA, 0, &data);
                Verdict::OK
            }
            Self::Continue(data) => {
                sink.put(AnswerKey::AUTH_DATA, 0, &data);
                Verdict::CONTINUE
            }
            Self::Error(reject) => reason(sink, Verdict::REJECT, reject.reason_code, &reject.properties),
        }
    }
}

impl Answer for PublishVerdict {
    #[inline]
    fn put(self, sink: Sink<'_>) -> Verdict {
        match self {
            Self::Forward => Verdict::OK,
            Self::ForwardChanged(message) => {
                put_message(sink, &message);
                Verdict::CHANGED
            }
            Self::Handled => Verdict::HANDLED,
            Self::Reject(reject) => reason(sink, Verdict::REJECT, reject.reason_code, &reject.properties),
            Self::Disconnect(end) => reason(sink, Verdict::DISCONNECT, end.reason_code, &end.properties),
        }
    }
}

impl Answer for SubscribeVerdict {
    fn put(self, sink: Sink<'_>) -> Verdict {
        match self {
            Self::Grant => Verdict::OK,
            Self::Codes(codes) => put_codes(sink, &codes),
            Self::Disconnect(end) => reason(sink, Verdict::DISCONNECT, end.reason_code, &end.properties),
        }
    }
}

impl Answer for UnsubscribeVerdict {
    fn put(self, sink: Sink<'_>) -> Verdict {
        match self {
            Self::Allow => Verdict::OK,
            Self::Codes(codes) => put_codes(sink, &codes),
            Self::Disconnect(end) => reason(sink, Verdict::DISCONNECT, end.reason_code, &end.properties),
        }
    }
}

impl Answer for DeliverVerdict {
    #[inline]
    fn put(self, sink: Sink<'_>) -> Verdict {
        match self {
            Self::Send => Verdict::OK,
            Self::SendChanged(message) => {
                put_message(sink, &message);
                Verdict::CHANGED
            }
            Self::Drop => Verdict::DROP,
        }
    }
}

impl Answer for State {
    fn put(self, sink: Sink<'_>) -> Verdict {
        sink.put(AnswerKey::STATE, self.version.into(), &self.bytes);
        Verdict::OK
    }
}

/// How the plugin is.
impl Answer for String {
    fn put(self, sink: Sink<'_>) -> Verdict {
        text(sink, &self);
        Verdict::OK
    }
}

impl Answer for Vec<InfoAction> {
    fn put(self, sink: Sink<'_>) -> Verdict {
        for action in &self {
            match action {
                InfoAction::Publish(message) => {
                    sink.put(AnswerKey::ACTION, ACTION_PUBLISH, &[]);
                    put_message(sink, message);
                }
                InfoAction::Disconnect(end) => {
                    sink.put(AnswerKey::ACTION, ACTION_DISCONNECT, &[]);
                    reason(sink, Verdict::OK, end.reason_code, &end.properties);
                }
                InfoAction::Stop(why) => {
                    sink.put(AnswerKey::ACTION, ACTION_STOP, &[]);
                    text(sink, why);
                }
            }
        }
        Verdict::OK
    }
}

pub(crate) fn text(sink: Sink<'_>, text: &str) {
    sink.put(AnswerKey::TEXT, 0, text.as_bytes());
}

fn properties(sink: Sink<'_>, list: &PropertiesBuf) {
    if !list.is_empty() {
        sink.put(AnswerKey::PROPERTIES, 0, list.as_bytes());
    }
}

fn reason(sink: Sink<'_>, verdict: Verdict, reason_code: ReasonCode, list: &PropertiesBuf) -> Verdict {
    sink.put(AnswerKey::REASON_CODE, reason_code.0.into(), &[]);
    properties(sink, list);
    verdict
}

fn put_codes(sink: Sink<'_>, codes: &[ReasonCode]) -> Verdict {
    let codes: Vec<u8> = codes.iter().map(|code| code.0).collect();
    sink.put(AnswerKey::CODES, 0, &codes);
    Verdict::CODES
}

fn put_message(sink: Sink<'_>, message: &Message) {
    sink.put(AnswerKey::TOPIC, 0, message.topic.as_bytes());
    sink.put(AnswerKey::PAYLOAD, 0, &message.payload);
    sink.put(AnswerKey::QOS, message.qos as u64, &[]);
    sink.put(AnswerKey::RETAIN, message.retain.into(), &[]);
    if message.token != 0 {
        sink.put(AnswerKey::TOKEN, message.token, &[]);
    }
    properties(sink, &message.properties);
}
