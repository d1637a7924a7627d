//! The configuration.

use std::time::Duration;

use plugin_api::config::ConfigError;
use plugin_api::topic::{self, Share};
use plugin_http::Endpoint;
use plugin_support::config::{each, within};

/// What the plugin goes by.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) endpoint: Endpoint,
    pub(crate) events: Vec<Kind>,
    pub(crate) topics: Vec<String>,
    pub(crate) batch_max: u32,
    pub(crate) linger: Duration,
    pub(crate) queue_max: usize,
    pub(crate) on_full: OnFull,
}

/// What can be told.
#[plugin_api::config]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Connected,
    Disconnected,
    Published,
    SessionExpired,
}

/// What becomes of messages that cannot be told of, as too much waits already.
#[plugin_api::config]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnFull {
    /// They are refused: their clients send them again.
    #[default]
    Refuse,
    /// They are delivered, and not told.
    Drop,
}

/// A server of HTTP that is told what happens.
#[plugin_api::config]
pub struct Config {
    #[serde(flatten)]
    server: plugin_http::Config<5000>,
    /// What is told. Left out: all of it.
    #[serde(default = "events")]
    events: Vec<Kind>,
    /// Topic Filters of the messages that are told, without `$share/…`. Left out: `["#"]`.
    #[serde(default = "topics")]
    topics: Vec<String>,
    /// The most events of a request: 1 to 1000. Left out: 100.
    #[serde(default = "batch_max")]
    batch_max: u32,
    /// How long an event may wait for others to go with it, in milliseconds: 0 to 60000. Left out: 100.
    #[serde(default = "linger_ms")]
    linger_ms: u64,
    /// The most events that wait: 1 to 1000000. Left out: 10000.
    #[serde(default = "queue_max")]
    queue_max: usize,
    /// What becomes of messages for whose events there is no room. Left out: `"refuse"`.
    #[serde(default)]
    on_full: OnFull,
}

fn events() -> Vec<Kind> {
    vec![Kind::Connected, Kind::Disconnected, Kind::Published, Kind::SessionExpired]
}

fn topics() -> Vec<String> {
    vec!["#".into()]
}

fn batch_max() -> u32 {
    100
}

fn linger_ms() -> u64 {
    100
}

fn queue_max() -> usize {
    10_000
}

impl Settings {
    /// Checks the configuration. Nothing is told yet.
    ///
    /// # Errors
    /// Says where the fault is, what was got and what was expected.
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        within("batch_max", config.batch_max.into(), 1, 1000)?;
        within("linger_ms", config.linger_ms, 0, 60_000)?;
        within("queue_max", config.queue_max as u64, 1, 1_000_000)?;
        let topics = each("topics", config.topics, |filter, path| {
            if topic::is_valid_filter(&filter) && topic::split_share(&filter) == Share::None {
                return Ok(filter);
            }
            Err(ConfigError::new(path, format!("got `{filter}`, expected a Topic Filter, without `$share/…`")))
        })?;
        Ok(Self {
            endpoint: Endpoint::new(config.server, 1)?,
            events: config.events,
            topics,
            batch_max: config.batch_max,
            linger: Duration::from_millis(config.linger_ms),
            queue_max: config.queue_max,
            on_full: config.on_full,
        })
    }

    /// Whether this is told.
    pub(crate) fn tells(&self, kind: Kind) -> bool {
        self.events.contains(&kind)
    }

    /// Whether a message under this Topic Name is told.
    pub(crate) fn tells_of(&self, name: &str) -> bool {
        self.tells(Kind::Published) && self.topics.iter().any(|filter| topic::matches(filter, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Settings, ConfigError> {
        plugin_api::config::read(json).and_then(Settings::new)
    }

    #[test]
    fn faults_are_named_with_their_place() {
        let url = r#""url": "http://127.0.0.1:8080/events""#;
        for (json, path, problem) in [
            ("{}".to_owned(), ".", "missing field `url`"),
            (r#"{"url": "localhost"}"#.to_owned(), "url", "got `localhost`, expected http://"),
            (format!(r#"{{{url}, "batch_max": 0}}"#), "batch_max", "got 0, expected 1 to 1000"),
            (format!(r#"{{{url}, "topics": ["a/#/b"]}}"#), "topics[0]", "got `a/#/b`, expected a Topic Filter"),
            (format!(r#"{{{url}, "events": ["subscribed"]}}"#), "events[0]", "unknown variant `subscribed`"),
            (format!(r#"{{{url}, "on_full": "wait"}}"#), "on_full", "unknown variant `wait`"),
        ] {
            let error = read(&json).expect_err(&json);
            assert_eq!(error.path(), path, "{json}: {error}");
            assert!(error.to_string().contains(problem), "{json}: {error}");
        }
    }

    #[test]
    fn only_what_is_asked_for_is_told() {
        let json = r#"{"url": "https://example.com/", "events": ["published"], "topics": ["a/+", "b"]}"#;
        let config = read(json).unwrap_or_else(|error| panic!("{error}"));
        assert!(config.tells_of("a/x") && config.tells_of("b") && !config.tells_of("a/x/y") && !config.tells_of("c"));
        assert!(!config.tells(Kind::Connected));
        let all = read(r#"{"url": "https://example.com/"}"#).unwrap_or_else(|error| panic!("{error}"));
        assert!(all.tells_of("x") && !all.tells_of("$SYS/x") && all.tells(Kind::SessionExpired));
    }
}
