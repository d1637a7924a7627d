//! Servers of HTTP that plugins ask or tell. It is no interface for others, and may change with the shipped plugins.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plugin_api::config::{ConfigError, Secret};
use plugin_support::config::within;
use plugin_support::files;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// The most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Where to ask. It keeps connections open, and can be used by several threads.
#[derive(Clone)]
pub struct Endpoint {
    agent: Agent,
    url: String,
    headers: BTreeMap<String, Secret>,
    timeout: Duration,
}

/// Leaves the headers and the query out, so that nobody logs a secret by mistake.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("url", &without_query(&self.url)).finish_non_exhaustive()
    }
}

/// What a configuration says about one, to be flattened into it: with this many milliseconds for a request, unless it says otherwise.
#[plugin_api::config]
pub struct Config<const TIMEOUT_MS: u64> {
    /// Where the server is: `http://…` or `https://…`. Redirections are not followed, and a proxy is not used.
    url: String,
    /// Headers of each request, such as `authorization`. Left out: none.
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
    /// Path of a file with the certificates of the authorities for `https`, in PEM. Left out: those that Mozilla trusts.
    ca_file: Option<PathBuf>,
    /// How long a request may take in all, in milliseconds: 1 to 60000.
    #[serde(default = "this::<TIMEOUT_MS>")]
    timeout_ms: u64,
}

fn this<const NUMBER: u64>() -> u64 {
    NUMBER
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// What stands in it.
    pub body: Vec<u8>,
}

impl Endpoint {
    /// Checks the configuration. Nothing is asked yet; so many connections will be kept open.
    ///
    /// # Errors
    /// Names the field.
    pub fn new<const TIMEOUT_MS: u64>(config: Config<TIMEOUT_MS>, connections: usize) -> Result<Self, ConfigError> {
        let Config { url, headers, ca_file, timeout_ms } = config;
        within("timeout_ms", timeout_ms, 1, 60_000)?;
        let timeout = Duration::from_millis(timeout_ms);
        let is_fine = url.split_once("://").is_some_and(|(scheme, rest)| {
            matches!(scheme, "http" | "https") && !rest.is_empty() && url.parse::<ureq::http::Uri>().is_ok()
        });
        if !is_fine {
            let got = match url.contains('@') {
                // What stands there may be a password.
                true => "it is no URL, or there is a user in it".to_owned(),
                false => format!("got `{}`", without_query(&url)),
            };
            return Err(ConfigError::new("url", format!("{got}, expected http://… or https://…")));
        }
        // It stands in the log when the server does not answer.
        if url.split(['/', '?']).nth(2).is_some_and(|authority| authority.contains('@')) {
            return Err(ConfigError::new(
                "url",
                "there is a user in it: expected an `authorization` in `headers` for that",
            ));
        }
        for (name, value) in &headers {
            let name_is_fine = name.parse::<ureq::http::HeaderName>().is_ok();
            if !name_is_fine || value.expose().parse::<ureq::http::HeaderValue>().is_err() {
                // Its value may be a secret.
                return Err(ConfigError::new(format!("headers.{name}"), "expected a header of HTTP"));
            }
        }
        let roots = ca_file.as_deref().map_or(Ok(RootCerts::WebPki), authorities)?;
        let agent = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            // Who answers is who was asked, and what is in a request goes nowhere else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .max_idle_connections(connections)
            .max_idle_connections_per_host(connections)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build()
            .new_agent();
        Ok(Self { agent, url, headers, timeout })
    }

    /// How long a request may take in all.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends JSON, and waits for the answer.
    ///
    /// # Errors
    /// There was no answer in time, or one that is too large. The text says why, for the log.
    pub fn post(&self, json: &[u8]) -> Result<Answer, String> {
        let failed = |error: ureq::Error| format!("{}: {error}", without_query(&self.url));
        let mut request = self.agent.post(&self.url).content_type("application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value.expose());
        }
        let mut response = request.send(json).map_err(failed)?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        Ok(Answer { status, body: body.map_err(failed)? })
    }
}

/// As it may be shown: a key may stand in the query.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

fn authorities(file: &Path) -> Result<RootCerts, ConfigError> {
    let text = files::read(file, "ca_file")?;
    let wrong = |problem: String| ConfigError::new("ca_file", format!("{}: {problem}", file.display()));
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(text.as_bytes()) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(error.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(wrong("it has no certificates, expected at least one in PEM".into()));
    }
    Ok(RootCerts::from(certificates))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str, (name, value): (&str, &str), ca_file: Option<&Path>) -> Result<Endpoint, ConfigError> {
        let ca_file = ca_file.map_or("null".to_owned(), |file| format!("{file:?}"));
        let json = format!(r#"{{"url": {url:?}, "headers": {{{name:?}: {value:?}}}, "ca_file": {ca_file}}}"#);
        Endpoint::new(plugin_api::config::read::<Config<1000>>(&json)?, 1)
    }

    #[test]
    fn faults_are_named_without_secrets() {
        let fine = ("authorization", "Bearer s3cret");
        let url = "https://example.com/x@y?key=s3cret@";
        let debug = format!("{:?}", endpoint(url, fine, None).unwrap_or_else(|error| panic!("{error}")));
        assert!(debug.contains("https://example.com/x@y") && !debug.contains("s3cret"), "{debug}");
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        for (url, header, ca_file, path, problem) in [
            ("example.com", fine, None, "url", "got `example.com`, expected http://"),
            ("https://", fine, None, "url", "expected http://"),
            ("example.com?key=s3cret", fine, None, "url", "got `example.com`, expected http://"),
            ("htps://ann:s3cret@example.com/", fine, None, "url", "there is a user in it, expected http://"),
            ("https://ann:s3c/ret@ex ample.com/", fine, None, "url", "there is a user in it, expected http://"),
            ("https://ann:s3cret@example.com/", fine, None, "url", "there is a user in it"),
            (url, ("a b", "s3cret"), None, "headers.a b", "expected a header"),
            (url, ("a", "s3cret\n"), None, "headers.a", "expected a header"),
            (url, fine, Some(here.as_path()), "ca_file", "it has no certificates"),
        ] {
            let error = endpoint(url, header, ca_file).expect_err(problem);
            assert_eq!(error.path(), path, "{error}");
            let error = error.to_string();
            assert!(error.contains(problem) && !error.contains("s3cret"), "{error}");
        }
    }
}
