//! What is asked, and what comes back.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plugin_api::config::{self, ConfigError};
use plugin_api::{Connect, Publish, Subscription};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The most bytes of a reason that a client is told.
const REASON_BYTES_MAX: usize = 300;

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Client {
    pub(crate) client_id: String,
    pub(crate) username: Option<String>,
}

/// A question. What it takes in memory is about what its client has sent: it is written as JSON when it is asked.
pub(crate) enum Question {
    /// One about CONNECT is written already, as there may be a password in it.
    Connect(Zeroizing<Vec<u8>>),
    About(Arc<Client>, Act<'static>),
}

/// What a client is about to do.
#[derive(Serialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub(crate) enum Act<'a> {
    Publish { topic: Cow<'a, str>, qos: u8, retain: bool },
    Subscribe { filter: Cow<'a, str>, share_name: Option<Cow<'a, str>>, qos: u8 },
}

/// CONNECT.
#[derive(Serialize)]
struct Connecting<'a> {
    action: &'a str,
    client_id: &'a str,
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_base64: Option<&'a str>,
    protocol_version: u8,
    listener: &'a str,
    peer: String,
    certificate: Option<&'a str>,
}

#[derive(Serialize)]
struct Acting<'a> {
    #[serde(flatten)]
    act: &'a Act<'static>,
    #[serde(flatten)]
    client: &'a Client,
}

/// Texts and numbers can always be written as JSON.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

impl Question {
    pub(crate) fn connect(connect: &Connect<'_>) -> Zeroizing<Vec<u8>> {
        let password = connect.password();
        let text = password.and_then(|password| std::str::from_utf8(password).ok());
        let base64 = password.filter(|_| text.is_none()).map(|bytes| Zeroizing::new(STANDARD.encode(bytes)));
        let certificate = connect.transport().certificate().and_then(|certificate| certificate.common_name());
        Zeroizing::new(json(&Connecting {
            action: "connect",
            client_id: connect.client_id(),
            username: connect.username(),
            password: text,
            password_base64: base64.as_ref().map(|base64| base64.as_str()),
            protocol_version: connect.protocol_version(),
            listener: connect.listener(),
            // Without its port, which is another one each time.
            peer: connect.peer().ip().to_string(),
            certificate,
        }))
    }

    pub(crate) fn json(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Connect(json) => json.as_slice().into(),
            Self::About(client, act) => json(&Acting { act, client }).into(),
        }
    }
}

impl Client {
    /// What is the same in the keys of all questions about it.
    pub(crate) fn key_part(&self) -> Vec<u8> {
        json(self)
    }
}

impl<'a> Act<'a> {
    pub(crate) fn publish(publish: &Publish<'a>) -> Self {
        Self::Publish { topic: publish.topic().into(), qos: publish.qos() as u8, retain: publish.retain() }
    }

    pub(crate) fn subscribe(subscription: &Subscription<'a>) -> Self {
        Self::Subscribe {
            filter: subscription.filter().into(),
            share_name: subscription.share_name().map(Into::into),
            qos: subscription.qos() as u8,
        }
    }

    /// The rest of its key, behind that of the client.
    pub(crate) fn key_part(&self) -> Vec<u8> {
        json(self)
    }

    pub(crate) fn into_owned(self) -> Act<'static> {
        let owned = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Publish { topic, qos, retain } => Act::Publish { topic: owned(topic), qos, retain },
            Self::Subscribe { filter, share_name, qos } => {
                Act::Subscribe { filter: owned(filter), share_name: share_name.map(owned), qos }
            }
        }
    }
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) is_allowed: bool,
    /// For people.
    pub(crate) reason: Option<String>,
    /// About CONNECT: the client may do everything.
    pub(crate) superuser: bool,
    /// About CONNECT: it is not who it says.
    pub(crate) is_unknown: bool,
}

#[plugin_api::config]
struct RawAnswer {
    result: RawResult,
    reason: Option<String>,
    #[serde(default)]
    superuser: bool,
}

#[plugin_api::config]
#[derive(PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum RawResult {
    Allow,
    Deny,
}

impl Answer {
    pub(crate) const fn allow() -> Self {
        Self { is_allowed: true, reason: None, superuser: false, is_unknown: false }
    }

    pub(crate) const fn deny() -> Self {
        Self { is_allowed: false, reason: None, superuser: false, is_unknown: false }
    }

    /// Reads an answer. The error says why it is none.
    pub(crate) fn read(status: u16, body: &[u8]) -> Result<Self, String> {
        match status {
            204 => return Ok(Self::allow()),
            401 => return Ok(Self { is_unknown: true, ..Self::deny() }),
            403 => return Ok(Self::deny()),
            200 => {}
            _ => return Err(format!("status {status}, expected 200, 204, 401 or 403")),
        }
        let text = std::str::from_utf8(body).map_err(|_| "an answer that is not UTF-8".to_owned())?;
        let raw: RawAnswer = config::read(text).map_err(|error: ConfigError| {
            format!("an answer that is not {{\"result\": \"allow\"}} or {{\"result\": \"deny\"}}: {error}")
        })?;
        let is_allowed = raw.result == RawResult::Allow;
        let reason = raw.reason.map(|mut reason| {
            reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
            reason
        });
        Ok(Self { is_allowed, reason, superuser: raw.superuser && is_allowed, is_unknown: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_json() {
        let client = Arc::new(Client { client_id: "c\"1".into(), username: None });
        for (act, expected) in [
            (
                Act::Publish { topic: "t/1".into(), qos: 1, retain: true },
                r#"{"action":"publish","topic":"t/1","qos":1,"retain":true,"client_id":"c\"1","username":null}"#,
            ),
            (
                Act::Subscribe { filter: "t/#".into(), share_name: Some("g".into()), qos: 2 },
                r#"{"action":"subscribe","filter":"t/#","share_name":"g","qos":2,"client_id":"c\"1","username":null}"#,
            ),
        ] {
            let question = Question::About(Arc::clone(&client), act);
            assert_eq!(String::from_utf8_lossy(&question.json()), expected);
        }
    }

    #[test]
    fn what_is_no_answer_allows_nothing() {
        let no = |reason: &str| Answer { reason: Some(reason.into()), ..Answer::deny() };
        for (status, body, expected) in [
            (204, "", Ok(Answer::allow())),
            (200, r#"{"result": "allow"}"#, Ok(Answer::allow())),
            (200, r#"{"result": "allow", "superuser": true}"#, Ok(Answer { superuser: true, ..Answer::allow() })),
            (200, r#"{"result": "deny", "reason": "unpaid", "superuser": true}"#, Ok(no("unpaid"))),
            (403, "whatever", Ok(Answer::deny())),
            (401, "", Ok(Answer { is_unknown: true, ..Answer::deny() })),
            (200, "", Err("an answer that is not {\"result\": \"allow\"}")),
            (200, "allow", Err("an answer that is not")),
            (200, r#"{"result": "alow"}"#, Err("`alow`")),
            (200, r#"{"allow": true}"#, Err("unknown field `allow`")),
            (500, r#"{"result": "allow"}"#, Err("status 500")),
            (302, "", Err("status 302")),
        ] {
            match (Answer::read(status, body.as_bytes()), expected) {
                (Ok(answer), Ok(expected)) => assert_eq!(answer, expected, "{status} {body}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{status} {body}: {error}"),
                (answer, expected) => panic!("{status} {body}: {answer:?}, expected {expected:?}"),
            }
        }
    }
}
