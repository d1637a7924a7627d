//! The configuration.

use plugin_api::config::schemars::JsonSchema;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use plugin_http::{Endpoint, Settings};
use plugin_support::config::{self, ConfigError, within};
use serde::Deserialize;

/// What the plugin goes by.
#[derive(Debug)]
pub struct Config {
    pub(crate) endpoint: Endpoint,
    pub(crate) timeout: Duration,
    pub(crate) threads: usize,
    pub(crate) queue_max: usize,
    pub(crate) cache_for: Duration,
    pub(crate) cache_max: usize,
    pub(crate) publish: Rule,
    pub(crate) subscribe: Rule,
}

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[schemars(crate = "plugin_api::config::schemars")]
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

/// The JSON Schema of the configuration.
pub(crate) fn schema() -> String {
    plugin_api::config::schema::<RawConfig>()
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "plugin_api::config::schemars")]
#[serde(deny_unknown_fields)]
struct RawConfig {
    /// Where the server is asked: `http://…` or `https://…`. Redirections are not followed, and a proxy is not used.
    url: String,
    /// Headers of each request. Left out: none.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Path of a file with the certificates of the authorities for `https`, in PEM. Left out: those that Mozilla trusts.
    ca_file: Option<PathBuf>,
    /// How long a request may take in all, in milliseconds: 1 to 60000. Left out: 2000.
    #[serde(default = "timeout_ms")]
    timeout_ms: u64,
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

fn timeout_ms() -> u64 {
    2000
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

impl Config {
    /// Reads and checks the JSON text. Nothing is asked yet.
    ///
    /// # Errors
    /// Says where the fault is, what was got and what was expected.
    pub fn from_json(json: &str) -> Result<Self, ConfigError> {
        let raw: RawConfig = config::read(json, &["headers"])?;
        within("timeout_ms", raw.timeout_ms, 1, 60_000)?;
        within("threads", raw.threads as u64, 1, 256)?;
        within("queue_max", raw.queue_max as u64, 1, 1_000_000)?;
        within("cache_secs", raw.cache_secs, 0, 86_400)?;
        within("cache_max", raw.cache_max as u64, 0, 10_000_000)?;
        let timeout = Duration::from_millis(raw.timeout_ms);
        let endpoint = Endpoint::new(Settings {
            url: &raw.url,
            headers: raw.headers,
            ca_file: raw.ca_file.as_deref(),
            timeout,
            connections: raw.threads,
        })?;
        Ok(Self {
            endpoint,
            timeout,
            threads: raw.threads,
            queue_max: raw.queue_max,
            cache_for: Duration::from_secs(raw.cache_secs),
            cache_max: raw.cache_max,
            publish: raw.publish,
            subscribe: raw.subscribe,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named_with_their_place() {
        let url = r#""url": "http://127.0.0.1:8080/mqtt""#;
        assert!(Config::from_json(&format!("{{{url}}}")).is_ok());
        for (json, path, problem) in [
            ("{}".to_owned(), ".", "missing field `url`"),
            (r#"{"url": "ftp://x"}"#.to_owned(), "url", "got `ftp://x`, expected http://"),
            (r#"{"url": "http://"}"#.to_owned(), "url", "expected http://"),
            (format!(r#"{{{url}, "timeout_ms": 0}}"#), "timeout_ms", "got 0, expected 1 to 60000"),
            (format!(r#"{{{url}, "headers": {{"a b": "c"}}}}"#), "headers.a b", "expected a header"),
            (format!(r#"{{{url}, "ca_file": "/none"}}"#), "ca_file", "/none: No such file"),
            (format!(r#"{{{url}, "publish": "maybe"}}"#), "publish", "unknown variant `maybe`"),
            (format!(r#"{{{url}, "cache": 1}}"#), "cache", "unknown field `cache`"),
        ] {
            let error = Config::from_json(&json).expect_err(&json);
            assert_eq!(error.path(), path, "{json}: {error}");
            assert!(error.to_string().contains(problem), "{json}: {error}");
        }
    }
}
