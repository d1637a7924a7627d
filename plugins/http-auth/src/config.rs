//! The configuration.

use std::time::Duration;

use plugin_api::config::ConfigError;
use plugin_http::Endpoint;
use plugin_support::config::within;

/// What the plugin goes by.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) endpoint: Endpoint,
    pub(crate) threads: usize,
    pub(crate) queue_max: usize,
    pub(crate) cache_for: Duration,
    pub(crate) cache_max: usize,
    pub(crate) publish: Rule,
    pub(crate) subscribe: Rule,
}

/// Who decides.
#[plugin_api::config]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Rule {
    /// The server.
    #[default]
    Ask,
    /// Nobody: it is allowed, unless another plugin refuses.
    Allow,
    /// Nobody: it is refused.
    Deny,
}

/// A server of HTTP that says who may do what.
#[plugin_api::config]
pub struct Config {
    #[serde(flatten)]
    server: plugin_http::Config<2000>,
    /// How many questions are asked at one time: 1 to 256. Left out: 8.
    #[serde(default = "threads")]
    threads: usize,
    /// How many questions may wait: 1 to 1000000. Beyond that, what is asked for is refused. Left out: 1000.
    #[serde(default = "queue_max")]
    queue_max: usize,
    /// How long an answer is remembered, in seconds: 0 (not at all) to 86400. Left out: 60.
    #[serde(default = "cache_secs")]
    cache_secs: u64,
    /// How many answers are remembered: 0 (none) to 10000000. Left out: 10000.
    #[serde(default = "cache_max")]
    cache_max: usize,
    /// Who says whether a message may be published. Left out: `"ask"`.
    #[serde(default)]
    publish: Rule,
    /// Who says whether a Topic Filter may be subscribed to. Left out: `"ask"`.
    #[serde(default)]
    subscribe: Rule,
}

fn threads() -> usize {
    8
}

fn queue_max() -> usize {
    1000
}

fn cache_secs() -> u64 {
    60
}

fn cache_max() -> usize {
    10_000
}

impl Settings {
    /// Checks the configuration. Nothing is asked yet.
    ///
    /// # Errors
    /// Says where the fault is, what was got and what was expected.
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        within("threads", config.threads as u64, 1, 256)?;
        within("queue_max", config.queue_max as u64, 1, 1_000_000)?;
        within("cache_secs", config.cache_secs, 0, 86_400)?;
        within("cache_max", config.cache_max as u64, 0, 10_000_000)?;
        Ok(Self {
            endpoint: Endpoint::new(config.server, config.threads)?,
            threads: config.threads,
            queue_max: config.queue_max,
            cache_for: Duration::from_secs(config.cache_secs),
            cache_max: config.cache_max,
            publish: config.publish,
            subscribe: config.subscribe,
        })
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
        let url = r#""url": "http://127.0.0.1:8080/mqtt""#;
        assert!(read(&format!("{{{url}}}")).is_ok());
        for (json, path, problem) in [
            ("{}".to_owned(), ".", "missing field `url`"),
            (r#"{"url": "ftp://x"}"#.to_owned(), "url", "got `ftp://x`, expected http://"),
            (r#"{"url": "http://"}"#.to_owned(), "url", "expected http://"),
            (format!(r#"{{{url}, "timeout_ms": 0}}"#), "timeout_ms", "got 0, expected 1 to 60000"),
            (format!(r#"{{{url}, "timeout_ms": "2s"}}"#), "timeout_ms", "invalid type: string \"2s\", expected u64"),
            (format!(r#"{{{url}, "headers": {{"authorization": 12345}}}}"#), "headers.authorization", "is not shown"),
            (format!(r#"{{{url}, "headers": {{"a b": "c"}}}}"#), "headers.a b", "expected a header"),
            (format!(r#"{{{url}, "ca_file": "/none"}}"#), "ca_file", "/none: No such file"),
            (format!(r#"{{{url}, "publish": "maybe"}}"#), "publish", "unknown variant `maybe`"),
            (format!(r#"{{{url}, "cache": 1}}"#), "cache", "unknown field `cache`"),
        ] {
            let error = read(&json).expect_err(&json);
            assert_eq!(error.path(), path, "{json}: {error}");
            assert!(error.to_string().contains(problem), "{json}: {error}");
        }
    }
}
