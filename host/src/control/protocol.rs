//! What is said over the control socket: one JSON object a line.
//!
//! ```text
//! host    {"host":"0.1.0","control":1,"pid":4711}
//! client  {"control":1,"command":"swap","plugin":"/srv/libacl.so","canary_per_mille":100}
//! host    {"ok":true,"result":{…}}
//! client  {"control":1,"command":"configure","plugin":"acl","config":"{\"users\":{}}"}
//! host    {"ok":false,"error":{"step":"config","plugin":"acl","reason":"…"}}
//! ```
//!
//! | command | keys | result |
//! | --- | --- | --- |
//! | `version` | | `host`, `pid`, `listeners` |
//! | `swap` | `plugin` (absolute path); optional: `name`, `config` (JSON as a string), `canary_per_mille`, `ready_within_ms`, `probation_ms`, `error_budget` | what was done: [`SwapReport::to_json`](crate::SwapReport::to_json), and `summary`, a sentence |
//! | `swap` with `dry_run_ms`; optional: `dry_run_calls` | as before, but for `canary_per_mille` and what stands behind `ready_within_ms` | nothing is swapped; after that time, or when the client closes its half of the connection: `plugin`, `candidate`, `calls`, `same`, `different`, `left_out`, `lost`, `seconds`, `callbacks`, `differences`, `more_differences`, `notes` |
//! | `promote`, `rollback` | optional: `plugin` (a name) | the same |
//! | `plugins` | | [`Status::to_json`](crate::Status::to_json) |
//! | `configure` | `plugin`, `config` (JSON as a string) | `plugin`, and `instances` that have taken it |
//! | `health` | optional: `plugin` | `plugins`: of each instance `plugin`, `role`, `version`, `generation`, `ok`, `text` (`null`: it does not say), `quarantined` (then it is not `ok`, whatever it says) |
//! | `resume` | `plugin` | `plugin`, and `instances` that are asked again |
//! | `reload` | | `changed` and `restart`: of each `key`, `from`, `to`, `counts`; and `summary`, a sentence |
//! | `upgrade` | optional: `binary` (absolute path) | `pid`, `host`, `connections`, `closed`, `paused_ms`, `took_ms`; and `summary`, a sentence. Another process has taken this one's place then, which ends |
//! | `metrics` | | `metrics`: of each `plugin`, `name`, `kind`, `help`, and `value`, or of a histogram `count`, `sum`, `buckets` (upper bound `le`, null for none, and `count`) |
//!
//! A request that cannot be understood is answered with an error of the step `request`, and the connection stays open; one
//! that is too long or takes too long ends it. Within one version of the protocol, answers only gain keys.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::plugin::DryRun;

/// The version of the protocol.
pub const VERSION: u64 = 1;

/// Bytes that a request may have, its configuration of a plugin included.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;

/// The longest time that can be asked for.
pub const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// The largest error budget that can be asked for.
pub const ERROR_BUDGET_MAX: u64 = 1_000_000_000;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Which host this is.
    Version,
    /// Another library in the place of a plugin.
    Swap(Swap),
    /// The candidate of this plugin, or of the only one that has one, gets all connections.
    Promote(Option<String>),
    /// The plugin, or the only one for which it is possible, becomes again what it was.
    Rollback(Option<String>),
    /// The state of all plugins.
    Plugins,
    /// Another configuration for a plugin, without loading it again.
    Configure {
        /// Its name.
        plugin: String,
        /// The configuration: JSON.
        config: String,
    },
    /// What one plugin, or each, says of its health.
    Health(Option<String>),
    /// A plugin that is in quarantine is asked again.
    Resume(String),
    /// The configuration is read anew, and heeded as far as that is possible without a restart.
    Reload,
    /// Another process takes the place of this one, with its connections.
    Upgrade {
        /// The program: an absolute path. `None`: the one that runs, as it is there now.
        binary: Option<String>,
    },
    /// The counters, gauges and histograms of the plugins.
    Metrics,
}

/// Another library in the place of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swap {
    /// The library: an absolute path.
    pub plugin: String,
    /// The name of the plugin that it replaces; `None` for the one that has the library's own name.
    pub name: Option<String>,
    /// Its configuration: JSON. `None` for that of the plugin that it replaces.
    pub config: Option<String>,
    /// The share of connections that get it at first, in thousandths; `None` for all, at once.
    pub canary_per_mille: Option<u64>,
    /// How long it may take to get ready; `None` for the default.
    pub ready_within: Option<Duration>,
    /// How long what it does counts against its error budget; `None` for the default.
    pub probation: Option<Duration>,
    /// How many errors are one too many, less one; `None` for the default.
    pub error_budget: Option<u64>,
    /// It is only tried, for so long; `None`: it is swapped.
    pub dry_run: Option<DryRun>,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where it failed: `request`, `busy`, `peer`, or a step of what was asked for.
    pub step: String,
    /// The plugin that it is about, if it is known.
    pub plugin: Option<String>,
    /// What was got, what was expected, and what to do.
    pub reason: String,
}

impl Refusal {
    /// About no plugin.
    pub fn new(step: &str, reason: impl Into<String>) -> Self {
        Self { step: step.to_owned(), plugin: None, reason: reason.into() }
    }

    fn request(reason: impl Into<String>) -> Self {
        Self::new("request", reason)
    }

    /// As it stands in an answer.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({"ok": false, "error": {"step": self.step, "plugin": self.plugin, "reason": self.reason}})
    }
}

/// What the host says.
pub type Answer<T = Value> = Result<T, Refusal>;

const COMMANDS: [&str; 11] = [
    "version",
    "swap",
    "promote",
    "rollback",
    "plugins",
    "configure",
    "health",
    "resume",
    "reload",
    "upgrade",
    "metrics",
];

impl Request {
    /// Its name.
    #[must_use]
    pub fn command(&self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Swap(_) => "swap",
            Self::Promote(_) => "promote",
            Self::Rollback(_) => "rollback",
            Self::Plugins => "plugins",
            Self::Configure { .. } => "configure",
            Self::Health(_) => "health",
            Self::Resume(_) => "resume",
            Self::Reload => "reload",
            Self::Upgrade { .. } => "upgrade",
            Self::Metrics => "metrics",
        }
    }

    /// As one line, without its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = json!({"control": VERSION, "command": self.command()});
        let mut put = |key: &str, value: Value| {
            if !value.is_null() {
                line[key] = value;
            }
        };
        match self {
            Self::Version | Self::Plugins | Self::Reload | Self::Metrics => {}
            Self::Promote(plugin) | Self::Rollback(plugin) | Self::Health(plugin) => put("plugin", json!(plugin)),
            Self::Resume(plugin) => put("plugin", json!(plugin)),
            Self::Upgrade { binary } => put("binary", json!(binary)),
            Self::Configure { plugin, config } => {
                put("plugin", json!(plugin));
                put("config", json!(config));
            }
            Self::Swap(swap) => {
                put("plugin", json!(swap.plugin));
                put("name", json!(swap.name));
                put("config", json!(swap.config));
                put("canary_per_mille", json!(swap.canary_per_mille));
                put("ready_within_ms", json!(swap.ready_within.map(milliseconds)));
                put("probation_ms", json!(swap.probation.map(milliseconds)));
                put("error_budget", json!(swap.error_budget));
                put("dry_run_ms", json!(swap.dry_run.map(|dry_run| milliseconds(dry_run.time))));
                put("dry_run_calls", json!(swap.dry_run.and_then(|dry_run| dry_run.calls)));
            }
        }
        line.to_string()
    }

    /// Reads a line.
    pub(super) fn from_line(line: &[u8]) -> Result<Self, Refusal> {
        const A_NAME: &str = "the name of a plugin";
        const EXAMPLE: &str = r#"{"control":1,"command":"plugins"}"#;
        let value: Value = serde_json::from_slice(line).map_err(|error| {
            Refusal::request(format!(
                "a request is one JSON object on a line, such as {EXAMPLE}, and this is not: {error}"
            ))
        })?;
        let Value::Object(map) = value else {
            return Err(Refusal::request(format!(
                "a request is a JSON object, such as {EXAMPLE}, and this is {}",
                kind(&value)
            )));
        };
        let mut fields = Fields { map, known: vec!["control", "command"] };
        let version = fields.number("control", 0..=u64::MAX)?;
        let version = version.ok_or_else(|| {
            Refusal::request(format!("`control` is missing, which is the version of this protocol: expected {VERSION}"))
        })?;
        if version != VERSION {
            return Err(Refusal::request(format!(
                "`control` is {version}, and this host speaks version {VERSION} of the protocol: use the `host` program of \
                 its version"
            )));
        }
        let command = fields.required("command", &format!("one of {}", COMMANDS.join(", ")))?;
        let request = match &*command {
            "version" => Self::Version,
            "plugins" => Self::Plugins,
            "reload" => Self::Reload,
            "metrics" => Self::Metrics,
            "promote" => Self::Promote(fields.text("plugin")?),
            "rollback" => Self::Rollback(fields.text("plugin")?),
            "health" => Self::Health(fields.text("plugin")?),
            "upgrade" => Self::upgrade(&mut fields)?,
            "resume" => Self::Resume(fields.required("plugin", A_NAME)?),
            "configure" => Self::Configure {
                plugin: fields.required("plugin", A_NAME)?,
                config: fields.required("config", "the configuration: JSON, as a string")?,
            },
            "swap" => Self::Swap(Swap::from_fields(&mut fields)?),
            other => {
                let known = COMMANDS.join(", ");
                return Err(Refusal::request(format!("there is no command {}: expected one of {known}", json!(other))));
            }
        };
        fields.end(request.command())?;
        Ok(request)
    }
}

impl Request {
    fn upgrade(fields: &mut Fields) -> Result<Self, Refusal> {
        let binary = fields.text("binary")?;
        match &binary {
            Some(path) if !path.starts_with('/') => Err(Refusal::request(format!(
                "`binary` is {}: expected an absolute path, as the host has a directory of its own",
                json!(path)
            ))),
            _ => Ok(Self::Upgrade { binary }),
        }
    }
}

impl Swap {
    fn from_fields(fields: &mut Fields) -> Result<Self, Refusal> {
        let swap = Self {
            plugin: fields.required("plugin", "the absolute path of a library")?,
            name: fields.text("name")?,
            config: fields.text("config")?,
            canary_per_mille: fields.number("canary_per_mille", 1..=1000)?,
            ready_within: fields.number("ready_within_ms", 1..=milliseconds(TIME_MAX))?.map(Duration::from_millis),
            probation: fields.number("probation_ms", 0..=milliseconds(TIME_MAX))?.map(Duration::from_millis),
            error_budget: fields.number("error_budget", 0..=ERROR_BUDGET_MAX)?,
            dry_run: DryRun::from_fields(fields)?,
        };
        if !swap.plugin.starts_with('/') {
            let got = json!(swap.plugin);
            return Err(Refusal::request(format!(
                "`plugin` is {got}: expected an absolute path, as the host has a directory of its own"
            )));
        }
        Ok(swap)
    }
}

impl DryRun {
    fn from_fields(fields: &mut Fields) -> Result<Option<Self>, Refusal> {
        let time = fields.number("dry_run_ms", 1..=milliseconds(TIME_MAX))?.map(Duration::from_millis);
        let calls = fields.number("dry_run_calls", 1..=u64::MAX)?;
        if time.is_none() && calls.is_some() {
            return Err(Refusal::request(
                "`dry_run_calls` says something only with `dry_run_ms`: for how long at most",
            ));
        }
        Ok(time.map(|time| Self { time, calls }))
    }
}

/// The keys of a request. What is asked for is taken out, so that what remains is not known.
struct Fields {
    map: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.map.remove(key).filter(|value| !value.is_null())
    }

    fn text(&mut self, key: &'static str) -> Result<Option<String>, Refusal> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Refusal::request(format!("`{key}` is {}: expected a string", kind(&other)))),
        }
    }

    fn required(&mut self, key: &'static str, expected: &str) -> Result<String, Refusal> {
        let missing = || Refusal::request(format!("`{key}` is missing: expected {expected}"));
        self.text(key)?.ok_or_else(missing)
    }

    fn number(&mut self, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_u64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let got = if value.is_number() { value.to_string() } else { kind(&value).to_owned() };
                let (least, most) = (range.start(), range.end());
                Err(Refusal::request(format!("`{key}` is {got}: expected a whole number from {least} to {most}")))
            }
        }
    }

    fn end(mut self, command: &str) -> Result<(), Refusal> {
        self.map.retain(|key, _| !self.known.contains(&key.as_str()));
        let Some(key) = self.map.keys().next() else { return Ok(()) };
        let mut known = self.known;
        known.sort_unstable();
        known.dedup();
        Err(Refusal::request(format!(
            "there is no {} in the command {command}: it has {}",
            json!(key),
            known.join(", ")
        )))
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// What a host says first.
pub(super) fn greeting() -> String {
    json!({"host": crate::version(), "control": VERSION, "pid": std::process::id()}).to_string()
}

/// An answer as one line, without its end.
pub(super) fn answer_line(answer: &Answer) -> String {
    answer_json(answer).to_string()
}

/// An answer as it is sent.
#[must_use]
pub fn answer_json(answer: &Answer) -> Value {
    match answer {
        Ok(result) => json!({"ok": true, "result": result}),
        Err(refusal) => refusal.to_json(),
    }
}

/// Reads an answer. `None` if it is none.
pub(super) fn read_answer(line: &[u8]) -> Option<Answer> {
    let mut value: Value = serde_json::from_slice(line).ok()?;
    if value.get("ok")?.as_bool()? {
        return Some(Ok(value.get_mut("result")?.take()));
    }
    let error = value.get("error")?;
    let text = |key| error.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(Err(Refusal { step: text("step")?, plugin: text("plugin"), reason: text("reason")? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back_as_they_were() {
        let swap = Swap {
            plugin: "/srv/lib \"acl\".so".to_owned(),
            name: Some("acl".to_owned()),
            config: Some("{\"big\": 12345678901234567890123, \"a\": 1, \"a\": 2}".to_owned()),
            canary_per_mille: Some(5),
            ready_within: Some(Duration::from_millis(250)),
            probation: Some(Duration::from_millis(1500)),
            error_budget: Some(0),
            dry_run: Some(DryRun { time: Duration::from_secs(5), calls: Some(100) }),
        };
        let plain = Swap { plugin: "/x.so".to_owned(), ..Swap::default() };
        let named = || Some("acl".to_owned());
        for request in [
            Request::Version,
            Request::Plugins,
            Request::Metrics,
            Request::Reload,
            Request::Upgrade { binary: None },
            Request::Upgrade { binary: Some("/usr/local/bin/host".to_owned()) },
            Request::Promote(None),
            Request::Promote(named()),
            Request::Rollback(None),
            Request::Rollback(named()),
            Request::Health(None),
            Request::Health(named()),
            Request::Resume("acl".to_owned()),
            Request::Configure { plugin: "acl".to_owned(), config: "[1,\n2]".to_owned() },
            Request::Swap(swap),
            Request::Swap(plain),
        ] {
            let line = request.to_line();
            assert!(!line.contains('\n'));
            assert!(COMMANDS.contains(&request.command()));
            assert_eq!(Request::from_line(line.as_bytes()), Ok(request), "{line}");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        let table: &[(&[u8], &str)] = &[
            (b"", "one JSON object on a line, such as {"),
            (b"plugins", "this is not: expected value at line 1 column 1"),
            (b"\xff\xfe", "this is not"),
            (b"[]", "this is an array"),
            (b"7", "this is a number"),
            (b"{\"control\":1", "EOF while parsing"),
            (b"{\"control\":1,\"command\":\"plugins\"} x", "trailing characters"),
            (b"{}", "`control` is missing, which is the version of this protocol: expected 1"),
            (b"{\"control\":\"1\"}", "`control` is a string: expected a whole number"),
            (b"{\"control\":2,\"command\":\"plugins\"}", "`control` is 2, and this host speaks version 1"),
            (b"{\"control\":1}", "`command` is missing: expected one of version, swap"),
            (b"{\"control\":1,\"command\":[]}", "`command` is an array: expected a string"),
            (b"{\"control\":1,\"command\":\"swop\"}", "there is no command \"swop\": expected one of"),
            (b"{\"control\":1,\"command\":\"plugins\",\"x\":1}", "there is no \"x\" in the command plugins"),
            (b"{\"control\":1,\"command\":\"swap\"}", "`plugin` is missing: expected the absolute path"),
            (b"{\"control\":1,\"command\":\"swap\",\"plugin\":\"a.so\"}", "`plugin` is \"a.so\": expected an absolute"),
            (
                b"{\"control\":1,\"command\":\"swap\",\"plugin\":\"/a\",\"config\":{}}",
                "`config` is an object: expected",
            ),
            (
                b"{\"control\":1,\"command\":\"swap\",\"plugin\":\"/a\",\"canary_per_mille\":0}",
                "`canary_per_mille` is 0: expected a whole number from 1 to 1000",
            ),
            (
                b"{\"control\":1,\"command\":\"swap\",\"plugin\":\"/a\",\"probation_ms\":-1}",
                "`probation_ms` is -1: expected",
            ),
            (
                b"{\"control\":1,\"command\":\"swap\",\"plugin\":\"/a\",\"dry_run_calls\":5}",
                "`dry_run_calls` says something only with `dry_run_ms`",
            ),
            (
                b"{\"control\":1,\"command\":\"swap\",\"plugin\":\"/a\",\"error_budget\":1.5}",
                "`error_budget` is 1.5: expected",
            ),
            (b"{\"control\":1,\"command\":\"configure\",\"plugin\":\"a\"}", "`config` is missing"),
            (
                b"{\"control\":1,\"command\":\"upgrade\",\"binary\":\"host\"}",
                "`binary` is \"host\": expected an absolute",
            ),
        ];
        for (line, expected) in table {
            let text = String::from_utf8_lossy(line).into_owned();
            let refusal = Request::from_line(line).expect_err(&text);
            assert_eq!(refusal.step, "request", "{text}");
            assert!(refusal.reason.contains(expected), "{text}: {}", refusal.reason);
        }
        let deep = "[".repeat(100_000);
        assert!(Request::from_line(deep.as_bytes()).is_err());
    }

    #[test]
    fn answers_come_back_as_they_were() {
        let refusal =
            Refusal { step: "init".to_owned(), plugin: Some("acl".to_owned()), reason: "\"no\"\n".to_owned() };
        for answer in [Ok(json!({"plugins": []})), Ok(json!(null)), Err(refusal), Err(Refusal::new("abi", "x"))] {
            let line = answer_line(&answer);
            assert!(!line.contains('\n'));
            assert_eq!(read_answer(line.as_bytes()), Some(answer));
        }
        for bad in ["", "{}", "[]", "{\"ok\":1}", "{\"ok\":true}", "{\"ok\":false}", "{\"ok\":false,\"error\":{}}"] {
            assert_eq!(read_answer(bad.as_bytes()), None, "{bad}");
        }
    }
}
