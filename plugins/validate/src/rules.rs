//! Which payloads which topics may have.

use std::path::PathBuf;

use jsonschema::{PatternOptions, Validator};
use plugin_api::config::ConfigError;
use plugin_api::topic::{self, Share};
use plugin_support::config::each;
use plugin_support::files::{self, Seen};
use serde_json::Value;

use crate::unique::UniqueItems;

/// The most bytes of a payload that is looked at, if the configuration does not say: as a tree, it takes some twenty times as
/// much memory while it is looked at.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// The most bytes that a client is told.
const PROBLEM_BYTES_MAX: usize = 300;

/// The rules.
pub struct Rules {
    rules: Vec<Rule>,
    others: Others,
    payload_bytes_max: usize,
}

struct Rule {
    topics: Vec<String>,
    schema: Validator,
    allow_empty: bool,
    on_invalid: OnInvalid,
}

/// What becomes of a message whose payload is not valid.
#[plugin_api::config]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub enum OnInvalid {
    /// It is refused with 0x99.
    #[default]
    Reject,
    /// It is acknowledged, and not delivered.
    Drop,
    /// It is refused, and its client disconnected.
    Disconnect,
    /// It is delivered, and the log says what is wrong with it.
    Log,
}

/// What becomes of messages that no rule is about.
#[plugin_api::config]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
enum Others {
    #[default]
    Allow,
    Refuse,
}

/// What there is to say about a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing.
    Valid,
    /// No rule is about its topic, and such topics are refused.
    Other,
    /// What is wrong with its payload, for people, and what becomes of it.
    Invalid(String, OnInvalid),
}

/// Which payloads which topics may have.
#[plugin_api::config]
pub struct Config {
    /// What messages have to be. All rules about a topic have to agree.
    rules: Vec<RawRule>,
    /// What becomes of messages that no rule is about. Left out: `"allow"`.
    #[serde(default)]
    others: Others,
    /// The most bytes of a payload that a rule is about; a larger one is not valid. Left out: 1048576.
    payload_bytes_max: Option<usize>,
}

#[plugin_api::config]
struct RawRule {
    /// Topic Filters of the messages that it is about, at least one, without `$share/…`.
    topics: Vec<String>,
    /// The JSON Schema of their payloads: of draft 4, 6, 7, 2019-09 or 2020-12. Exactly one of `schema` and `schema_file`.
    schema: Option<Value>,
    /// Path of a file with it; read again within seconds after it has changed.
    schema_file: Option<PathBuf>,
    /// Whether an empty payload may be sent, as it takes to remove a retained message. Left out: `false`.
    #[serde(default)]
    allow_empty: bool,
    /// What becomes of a message that is not valid. Left out: `"reject"`.
    #[serde(default)]
    on_invalid: OnInvalid,
}

impl Rules {
    /// Checks the configuration, and reads the files that it names. Their marks are from before.
    ///
    /// # Errors
    /// Says where the fault is, what was got and what was expected.
    pub fn new(config: &Config) -> Result<(Self, Seen), ConfigError> {
        let seen = Seen::now(config.rules.iter().filter_map(|rule| rule.schema_file.clone()).collect());
        let rules = each("rules", &config.rules, RawRule::check)?;
        let payload_bytes_max = config.payload_bytes_max.unwrap_or(PAYLOAD_BYTES_MAX);
        Ok((Self { rules, others: config.others, payload_bytes_max }, seen))
    }

    /// Looks at a message: at all rules that are about its topic, until one has something to say.
    #[must_use]
    pub fn find(&self, topic: &str, payload: &[u8]) -> Finding {
        let mut about = self.rules.iter().filter(|rule| rule.topics.iter().any(|filter| topic::matches(filter, topic)));
        let Some(first) = about.next() else {
            return match self.others {
                Others::Allow => Finding::Valid,
                Others::Refuse => Finding::Other,
            };
        };
        let value = self.parse(payload);
        let problem = |rule: &Rule| match &value {
            _ if payload.is_empty() && rule.allow_empty => None,
            Ok(value) => rule.problem(value).map(|problem| (problem, rule.on_invalid)),
            Err(problem) => Some((problem.clone(), rule.on_invalid)),
        };
        match std::iter::once(first).chain(about).find_map(problem) {
            None => Finding::Valid,
            Some((problem, on_invalid)) => Finding::Invalid(shortened(problem), on_invalid),
        }
    }

    fn parse(&self, payload: &[u8]) -> Result<Value, String> {
        if payload.len() > self.payload_bytes_max {
            return Err(format!("{} bytes, and at most {} are allowed", payload.len(), self.payload_bytes_max));
        }
        serde_json::from_slice(payload).map_err(|error| format!("it is not JSON: {error}"))
    }
}

impl Rule {
    fn problem(&self, value: &Value) -> Option<String> {
        let error = self.schema.validate(value).err()?;
        let place = error.instance_path().to_string();
        Some(if place.is_empty() { error.to_string() } else { format!("at {place}: {error}") })
    }
}

impl RawRule {
    fn check(&self, path: &str) -> Result<Rule, ConfigError> {
        if self.topics.is_empty() {
            return Err(ConfigError::new(format!("{path}.topics"), "expected at least one Topic Filter"));
        }
        let topics = each(&format!("{path}.topics"), &self.topics, |filter, path| {
            if topic::is_valid_filter(filter) && topic::split_share(filter) == Share::None {
                return Ok(filter.clone());
            }
            Err(ConfigError::new(path, format!("got `{filter}`, expected a Topic Filter, without `$share/…`")))
        })?;
        let (schema, at) = match (&self.schema, &self.schema_file) {
            (Some(schema), None) => (compile(schema), format!("{path}.schema")),
            (None, Some(file)) => {
                let at = format!("{path}.schema_file");
                let text = files::read(file, &at)?;
                let wrong = |error| ConfigError::new(&at, format!("{}: {error}", file.display()));
                (compile(&serde_json::from_str(&text).map_err(wrong)?), at)
            }
            _ => return Err(ConfigError::new(path, "expected exactly one of `schema` and `schema_file`")),
        };
        let schema = schema.map_err(|problem| ConfigError::new(at, problem))?;
        Ok(Rule { topics, schema, allow_empty: self.allow_empty, on_invalid: self.on_invalid })
    }
}

fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .should_validate_formats(true)
        // Patterns are matched in linear time, whatever a client sends; those that cannot be are refused here.
        .with_pattern_options(PatternOptions::regex())
        .with_keyword("uniqueItems", |_, value, _| Ok(Box::new(UniqueItems(value.as_bool().unwrap_or_default()))))
        .build(schema)
        .map_err(|error| {
            let place = error.instance_path().to_string();
            format!("it is no JSON Schema, at `{}`: {error}", if place.is_empty() { "/" } else { &place })
        })
}

fn shortened(mut problem: String) -> String {
    if problem.len() > PROBLEM_BYTES_MAX {
        problem.truncate(problem.floor_char_boundary(PROBLEM_BYTES_MAX));
        problem.push('…');
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Rules, ConfigError> {
        Rules::new(&plugin_api::config::read(json)?).map(|(rules, _)| rules)
    }

    fn rules(rules: &str) -> Rules {
        read(&format!(r#"{{"rules": [{rules}]}}"#)).unwrap_or_else(|error| panic!("{error}"))
    }

    fn invalid(problem: &str, on_invalid: OnInvalid) -> Finding {
        Finding::Invalid(problem.into(), on_invalid)
    }

    #[test]
    fn payloads_have_to_be_what_all_rules_about_the_topic_say() {
        let rules = rules(
            r#"{"topics": ["t/+", "u"], "schema": {"type": "object", "required": ["value"]}, "on_invalid": "drop"},
               {"topics": ["t/#"], "schema": {"properties": {"value": {"type": "number", "maximum": 100}}}}"#,
        );
        let reject = OnInvalid::Reject;
        for (topic, payload, expected) in [
            ("t/1", r#"{"value": 21.5}"#, Finding::Valid),
            ("t/1", r#"{"value": 300}"#, invalid("at /value: 300 is greater than the maximum of 100", reject)),
            ("t/1", "{}", invalid("\"value\" is a required property", OnInvalid::Drop)),
            ("t/1/x", "{}", Finding::Valid),
            ("u", r#"{"value": "x"}"#, Finding::Valid),
            ("other", "not JSON", Finding::Valid),
        ] {
            assert_eq!(rules.find(topic, payload.as_bytes()), expected, "{topic} {payload}");
        }
        for payload in [&b"21.5 x"[..], b"", &[0xff], "[".repeat(1000).as_bytes()] {
            let Finding::Invalid(problem, OnInvalid::Drop) = rules.find("t/1", payload) else { panic!("{payload:?}") };
            assert!(problem.starts_with("it is not JSON: "), "{problem}");
        }
    }

    #[test]
    fn what_else_can_be_asked_for() {
        let json = r#"{"others": "refuse", "payload_bytes_max": 10, "rules": [
            {"topics": ["a"], "schema": {"type": "string", "format": "date", "pattern": "^2"}, "allow_empty": true,
             "on_invalid": "log"}]}"#;
        let rules = read(json).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(rules.find("b", b"1"), Finding::Other);
        assert_eq!(rules.find("a", b""), Finding::Valid);
        assert_eq!(
            rules.find("a", br#""2026-11-23""#),
            invalid("12 bytes, and at most 10 are allowed", OnInvalid::Log)
        );
        for payload in [r#""1999""#, r#""2x""#, "[1]"] {
            assert!(matches!(rules.find("a", payload.as_bytes()), Finding::Invalid(_, OnInvalid::Log)), "{payload}");
        }
    }

    #[test]
    fn equal_elements_are_found_in_linear_time_in_each_draft() {
        for draft in ["draft-04/schema#", "draft-07/schema#", "draft/2020-12/schema"] {
            let schema = format!(
                r#"{{"$schema": "http{}://json-schema.org/{draft}", "uniqueItems": true,
                     "items": {{"uniqueItems": false}}}}"#,
                if draft.starts_with("draft/") { "s" } else { "" }
            );
            let rules = rules(&format!(r#"{{"topics": ["a"], "schema": {schema}}}"#));
            assert_eq!(rules.find("a", b"[1, [1, 1], 2]"), Finding::Valid, "{draft}");
            // The text tells that it was not the library's own search, which takes quadratic time.
            let expected = invalid("it has equal elements", OnInvalid::Reject);
            assert_eq!(rules.find("a", b"[1, [1, 1], 1]"), expected, "{draft}");
            // Without lists, all of these hash alike there.
            let nested = (0..10_000u32).map(|number| {
                let bits = (0..14).map(|bit| if number >> bit & 1 == 0 { "[]" } else { "[[]]" });
                format!("[{}]", bits.collect::<Vec<_>>().join(","))
            });
            let payload = format!("[{}]", nested.collect::<Vec<_>>().join(","));
            assert_eq!(rules.find("a", payload.as_bytes()), Finding::Valid, "{draft}");
        }
    }

    #[test]
    fn a_client_is_not_told_endless_texts() {
        let rules = rules(r#"{"topics": ["a"], "schema": {"type": "number"}}"#);
        let payload = format!("\"{}\"", "ä".repeat(10_000));
        let Finding::Invalid(problem, _) = rules.find("a", payload.as_bytes()) else { panic!("a text is no number") };
        assert!(problem.len() <= PROBLEM_BYTES_MAX + '…'.len_utf8() && problem.ends_with('…'), "{problem}");
    }

    #[test]
    fn faults_are_named_with_their_place() {
        for (rule, path, problem) in [
            (r#"{"topics": []}"#, "rules[0].topics", "expected at least one Topic Filter"),
            (r##"{"topics": ["a", "#/b"]}"##, "rules[0].topics[1]", "got `#/b`"),
            (r#"{"topics": ["a"]}"#, "rules[0]", "exactly one of `schema` and `schema_file`"),
            (r#"{"topics": ["a"], "schema_file": "/none"}"#, "rules[0].schema_file", "/none: No such file"),
            (
                r#"{"topics": ["a"], "schema": {"type": "nmber"}}"#,
                "rules[0].schema",
                "it is no JSON Schema, at `/type`",
            ),
            (r#"{"topics": ["a"], "schema": {"pattern": "(?=a)"}}"#, "rules[0].schema", "it is no JSON Schema"),
            (
                r#"{"topics": ["a"], "schema": {"$ref": "https://example.com/x"}}"#,
                "rules[0].schema",
                "https://example.com/x",
            ),
            (r#"{"topics": ["a"], "schema": {}, "on_invalid": "shout"}"#, "rules[0].on_invalid", "unknown variant"),
            (r#"{"topic": "a"}"#, "rules[0].topic", "unknown field `topic`"),
        ] {
            let json = format!(r#"{{"rules": [{rule}]}}"#);
            let error = read(&json).err().unwrap_or_else(|| panic!("accepted: {json}"));
            assert_eq!(error.path(), path, "{json}: {error}");
            assert!(error.to_string().contains(problem), "{json}: {error}");
        }
    }
}
