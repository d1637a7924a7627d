//! What a callback has answered, in a recording: what it means, however the plugin has put it. It is compared, and never read
//! back.

use plugin_api::abi::Verdict;
use plugin_api::reading::{Answer, Place, Unreadable, unknown};
use plugin_api::{Callback, Properties, PropertiesBuf, ReasonCode};
use serde_json::{Value, json};

use super::super::outcome::{ConnackOverrides, InfoAction, OwnedMessage};
use super::super::owned::Request;
use super::json::{Fields, are_equal, put_bytes, put_properties, redacted};

/// An answer, as it is recorded. Authentication Data only with `secrets`. `asked` is what the Reason Codes of SUBSCRIBE were
/// before, as who simply agrees does not name them.
pub(super) fn answer_json(asked: &Asked, verdict: Verdict, answer: &Answer, secrets: bool) -> Value {
    let text = || answer.text().unwrap_or_default().1;
    match verdict {
        Verdict::ERROR => return json!({ "error": text() }),
        Verdict::PANICKED => return json!({ "panic": text() }),
        Verdict::POISONED => return json!({"panic": "in an earlier callback"}),
        Verdict::AWAY => return json!({ "away": true }),
        Verdict::DEFERRED => return json!({ "later": answer.ticket }),
        _ => {}
    }
    read(asked, verdict, answer, secrets).unwrap_or_else(|why| json!({ "unusable": why }))
}

/// What a question was, as far as its answer has to be read with it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) callback: Callback,
    /// For each Topic Filter the Reason Code as it was.
    codes: Vec<u8>,
}

impl From<&Request> for Asked {
    fn from(request: &Request) -> Self {
        let codes = match request {
            Request::Subscribe(items, _) => items.iter().map(|item| item.raw().reason_code).collect(),
            Request::Unsubscribe(filters, _) => vec![0; filters.len()],
            _ => Vec::new(),
        };
        Self { callback: request.callback(), codes }
    }
}

fn read(asked: &Asked, verdict: Verdict, answer: &Answer, secrets: bool) -> Result<Value, Unreadable> {
    let refusal = |place| answer.refusal(place).map(|refusal| json!({"reject": with_code(refusal)}));
    let disconnection = || answer.disconnection().map(|reason| json!({"disconnect": with_code(reason)}));
    // What is larger than a packet may be is found out where it is sent.
    let message = || {
        answer.message(usize::MAX).map(|view| {
            let mut message = OwnedMessage::default();
            view.copy_to(&mut message);
            json!({"change": message_json(&message)})
        })
    };
    let nothing = |what: &str| answer.nothing().map(|()| json!({ what: {} }));
    match (asked.callback, verdict) {
        (Callback::Connect, Verdict::OK) => {
            answer.overrides().map(|overrides| json!({"accept": overrides_json(&overrides)}))
        }
        (Callback::Connect | Callback::Auth, Verdict::REJECT) => refusal(Place::Farewell),
        (Callback::Auth, Verdict::OK) => answer.auth_data().map(|data| json!({"ok": auth_data(data, secrets)})),
        (Callback::Auth, Verdict::CONTINUE) => {
            answer.auth_data().map(|data| json!({"continue": auth_data(data, secrets)}))
        }
        (Callback::Publish, Verdict::OK) => nothing("forward"),
        (Callback::Publish | Callback::Deliver, Verdict::CHANGED) => message(),
        (Callback::Publish, Verdict::HANDLED) => nothing("handled"),
        (Callback::Publish, Verdict::REJECT) => refusal(Place::Acknowledgement),
        (Callback::Publish | Callback::Subscribe | Callback::Unsubscribe, Verdict::DISCONNECT) => disconnection(),
        (Callback::Subscribe | Callback::Unsubscribe, Verdict::OK) => {
            answer.nothing().map(|()| json!({"codes": asked.codes}))
        }
        (Callback::Subscribe | Callback::Unsubscribe, Verdict::CODES) => {
            answer.codes(asked.codes.len()).map(|codes| json!({ "codes": codes }))
        }
        (Callback::Deliver, Verdict::OK) => nothing("send"),
        (Callback::Deliver, Verdict::DROP) => nothing("drop"),
        (Callback::Info, Verdict::OK) => answer
            .actions(usize::MAX)
            .map(|actions| json!({"actions": actions.iter().map(action_json).collect::<Vec<_>>()})),
        // There is nothing to answer.
        (Callback::Connect | Callback::Auth | Callback::Publish | Callback::Subscribe, other)
        | (Callback::Unsubscribe | Callback::Deliver | Callback::Info, other) => Err(unknown(other)),
        _ => Ok(json!({"done": {}})),
    }
}

/// What the answer of a plugin is that has no opinion.
pub(super) fn no_opinion(asked: &Asked) -> Value {
    match asked.callback {
        Callback::Connect | Callback::Auth => json!({"no_opinion": {}}),
        _ => answer_json(asked, Verdict::OK, &Answer::default(), true),
    }
}

/// Whether two answers come to the same. Texts of errors and panics are for people; what was left out of the recorded one
/// is not compared.
pub(super) fn is_same(recorded: &Value, given: &Value) -> bool {
    let both = |key: &str| recorded.get(key).is_some() && given.get(key).is_some();
    both("error") || both("panic") || both("unusable") || are_equal(recorded, given)
}

/// Whether it is a step of an authentication exchange, to which the client has to say something.
pub(super) fn is_challenge(answer: &Value) -> bool {
    answer.get("continue").is_some()
}

fn with_code((code, properties): (ReasonCode, PropertiesBuf)) -> Fields {
    let mut fields = Fields::new();
    fields.insert("reason_code".to_owned(), code.0.into());
    put_properties(&mut fields, properties.as_bytes(), true);
    fields
}

fn auth_data(data: Option<Vec<u8>>, secrets: bool) -> Fields {
    let mut fields = Fields::new();
    match data {
        Some(data) if secrets => put_bytes(&mut fields, "data", &data),
        Some(data) => _ = fields.insert("data".to_owned(), redacted(data.len())),
        None => {}
    }
    fields
}

fn overrides_json(overrides: &ConnackOverrides) -> Fields {
    let ConnackOverrides { client_id, keep_alive, session_expiry, properties } = overrides;
    let mut fields = Fields::new();
    client_id.as_ref().map(|id| fields.insert("client_id".to_owned(), id.as_str().into()));
    keep_alive.map(|secs| fields.insert("keep_alive".to_owned(), secs.into()));
    session_expiry.map(|secs| fields.insert("session_expiry".to_owned(), secs.into()));
    put_properties(&mut fields, properties.as_bytes(), true);
    fields
}

fn message_json(message: &OwnedMessage) -> Fields {
    let mut fields = Fields::new();
    fields.insert("topic".to_owned(), message.topic.as_str().into());
    put_bytes(&mut fields, "payload", &message.payload);
    fields.insert("qos".to_owned(), (message.qos as u8).into());
    fields.insert("retain".to_owned(), message.retain.into());
    if message.token != 0 {
        fields.insert("token".to_owned(), message.token.into());
    }
    put_properties(&mut fields, Properties::from_trusted(&message.properties).as_bytes(), true);
    fields
}

fn action_json(action: &InfoAction) -> Value {
    match action {
        InfoAction::Publish(message) => json!({"publish": message_json(message)}),
        InfoAction::Disconnect { reason_code, properties } => {
            json!({"disconnect": with_code((*reason_code, properties.clone()))})
        }
        InfoAction::Stop { reason } => json!({"stop": {"reason": reason}}),
    }
}
