//! What is told, as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plugin_api::Publish;
use serde::Serialize;

/// An event.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    Connected {
        client_id: &'a str,
        peer: &'a str,
        listener: &'a str,
        session_present: bool,
    },
    Disconnected {
        client_id: &'a str,
        /// How, in words: `Normal`, `Closed`, `KeepAliveTimeout` and so on.
        kind: String,
        reason_code: u8,
        text: &'a str,
    },
    Published {
        client_id: &'a str,
        topic: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload_base64: Option<String>,
        qos: u8,
        retain: bool,
        will: bool,
    },
    SessionExpired {
        client_id: &'a str,
    },
}

/// An event with its name and its time, in milliseconds since 1970.
#[derive(Serialize)]
struct Told<'a> {
    id: &'a str,
    at: u64,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

impl<'a> Event<'a> {
    pub(crate) fn published(client_id: &'a str, publish: &Publish<'a>) -> Self {
        let payload = std::str::from_utf8(publish.payload()).ok();
        Self::Published {
            client_id,
            topic: publish.topic(),
            payload,
            payload_base64: payload.is_none().then(|| STANDARD.encode(publish.payload())),
            qos: publish.qos() as u8,
            retain: publish.retain(),
            will: publish.is_will(),
        }
    }

    pub(crate) fn json(&self, id: &str, at: u64) -> Vec<u8> {
        // Texts and numbers can always be written as JSON.
        serde_json::to_vec(&Told { id, at, event: self }).unwrap_or_default()
    }
}

/// The body of a request with these events.
pub(crate) fn batch(events: &[Vec<u8>]) -> Vec<u8> {
    [&br#"{"events":["#[..], &events.join(&b','), b"]}"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_json() {
        let first = Event::SessionExpired { client_id: "c\"1" }.json("a1", 5);
        let second = Event::Published {
            client_id: "c",
            topic: "t",
            payload: None,
            payload_base64: Some("/w==".into()),
            qos: 1,
            retain: false,
            will: true,
        }
        .json("a2", 6);
        assert_eq!(
            String::from_utf8_lossy(&batch(&[first, second])),
            concat!(
                r#"{"events":[{"id":"a1","at":5,"event":"session_expired","client_id":"c\"1"},"#,
                r#"{"id":"a2","at":6,"event":"published","client_id":"c","topic":"t","payload_base64":"/w==","qos":1,"#,
                r#""retain":false,"will":true}]}"#
            )
        );
    }
}
