//! Configurations with a type: read from JSON, with the place of each mistake, and described by a JSON Schema. Feature `config`.
//!
//! `#[plugin_api::config]` on a struct or an enum makes it one that `init` and `handle_config` can take in the place of the text:
//!
//! ```
//! use plugin_api::{ConnectionInfo, Error, Handler, Host, handler};
//!
//! /// What the handler may be told.
//! #[plugin_api::config]
//! struct Config {
//!     /// Messages that a client may publish in a minute.
//!     limit: u32,
//!     /// Clients that may publish more.
//!     #[serde(default)]
//!     exempt: Vec<String>,
//! }
//!
//! struct Quota { limit: u32 }
//!
//! #[handler]
//! impl Handler for Quota {
//!     type Connection = u32;
//!
//!     fn init(_: Host, config: Config) -> Result<Self, Error> {
//!         Ok(Quota { limit: config.limit })
//!     }
//!     fn new_connection(&self, _: &ConnectionInfo<'_>) -> u32 {
//!         0
//!     }
//! }
//! # assert!(Quota::check_config(r#"{"limit": 5}"#).is_ok());
//! let error = Quota::check_config(r#"{"limit": 5, "exmpt": []}"#).unwrap_err().to_string();
//! assert!(error.starts_with("the configuration is wrong at `exmpt`: unknown field `exmpt`, expected `limit` or `exempt`"));
//! let error = Quota::check_config(r#"{"limit": 5, "exempt": [7]}"#).unwrap_err().to_string();
//! assert!(error.contains("`exempt[0]`: invalid type: integer `7`, expected a string"), "{error}");
//! ```
//!
//! The attributes of serde and schemars work on its fields. A type of your own with `#[derive(Deserialize, JsonSchema)]` will do
//! as well.

use std::fmt;

pub use schemars;
pub use serde;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Parts of names whose values are not repeated in an error: it may be read by others than the configuration.
const SECRETS: [&str; 3] = ["password", "secret", "token"];

/// A mistake in a configuration: where it is, what was got and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    path: String,
    problem: String,
}

impl ConfigError {
    /// A mistake at this place: for what a type cannot say.
    #[must_use]
    pub fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }

    /// The place, such as `rules[1].topics[0]`; `.` for the whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is wrong at `{}`: {}", self.path, self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// Reads a configuration. `init` and `handle_config` of a handler that names its type do this by themselves.
///
/// # Errors
/// A key that the type does not know, a value that it cannot have, or text that is no JSON: the place, what was got and what was
/// expected. Values at places that are called something with `password`, `secret` or `token` are not repeated, nor are those whose
/// place serde does not tell (within `flatten` and a `tag`). There, a key is known if the schema has it: an `alias` is not.
pub fn read<C: DeserializeOwned + JsonSchema>(json: &str) -> Result<C, ConfigError> {
    // serde would take a list for the fields in their order, without their names.
    let schema = schema_of::<C>().to_value();
    if schema.get("type").is_some_and(|its_type| its_type == "object") && !json.trim_start().starts_with('{') {
        return Err(ConfigError::new(".", "expected a JSON object: { … }"));
    }
    let mut text = serde_json::Deserializer::from_str(json);
    let (mut track, mut ignored) = (serde_path_to_error::Track::new(), None::<String>);
    let read = {
        let tracked = serde_path_to_error::Deserializer::new(&mut text, &mut track);
        serde_ignored::deserialize(tracked, |path| {
            ignored.get_or_insert_with(|| place(&path));
        })
    };
    let config = read.map_err(|error| {
        let path = track.path();
        ConfigError::new(path.to_string(), problem(&path, json, &error))
    })?;
    text.end().map_err(|error| ConfigError::new(".", error.to_string()))?;
    let unknown = || Unknown { root: &schema }.find(&[&schema], &serde_json::from_str(json).ok()?, "");
    match ignored.or_else(unknown) {
        None => Ok(config),
        Some(path) => {
            let known = "it is not among the names that are known there";
            Err(ConfigError::new(path, format!("unknown field: {known}")))
        }
    }
}

/// The place of the first key that a schema does not have: beside a field with `flatten`, serde lets everything pass.
struct Unknown<'a> {
    root: &'a Value,
}

impl<'a> Unknown<'a> {
    fn find(&self, schemas: &[&'a Value], value: &Value, path: &str) -> Option<String> {
        let schemas = self.all(schemas);
        match value {
            Value::Array(items) => {
                let of_items: Vec<_> = schemas.iter().filter_map(|schema| schema.get("items")).collect();
                let mut items = items.iter().enumerate();
                items.find_map(|(index, item)| self.find(&of_items, item, &format!("{path}[{index}]")))
            }
            Value::Object(fields) => {
                let of = |key: &str| schemas.iter().filter_map(|schema| schema.get(key)).collect::<Vec<_>>();
                let (known, others) = (of("properties"), of("additionalProperties"));
                let takes_others = others.iter().any(|others| **others != Value::Bool(false));
                fields.iter().find_map(|(name, value)| {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    let named: Vec<_> = known.iter().filter_map(|known| known.get(name)).collect();
                    match named.is_empty() {
                        true if takes_others || known.is_empty() => self.find(&others, value, &path),
                        true => Some(path),
                        false => self.find(&named, value, &path),
                    }
                })
            }
            _ => None,
        }
    }

    /// What one place may be: schemas with those that they name.
    fn all(&self, schemas: &[&'a Value]) -> Vec<&'a Value> {
        let mut all = schemas.to_vec();
        let mut at = 0;
        while let Some(schema) = all.get(at).copied() {
            let named = schema.get("$ref").and_then(|name| self.root.pointer(name.as_str()?.strip_prefix('#')?));
            let choices = ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|key| schema.get(key)?.as_array());
            all.extend(named.into_iter().chain(choices.flatten()));
            at += 1;
        }
        all
    }
}

/// The JSON Schema of a configuration, as text.
#[must_use]
pub fn schema<C: JsonSchema>() -> String {
    format!("{:#}", schema_of::<C>().as_value())
}

fn schema_of<C: JsonSchema>() -> schemars::Schema {
    schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<C>()
}

/// What is wrong, without what stands there if that may be a secret.
fn problem(path: &serde_path_to_error::Path, json: &str, error: &serde_json::Error) -> String {
    let text = error.to_string();
    // The last one: the secret itself may have these words.
    match text.rsplit_once(", expected ") {
        Some((got, expected)) if error.is_data() && may_be_secret(path, got, json) => {
            format!("got something that is not shown, expected {expected}")
        }
        _ => text,
    }
}

/// By its name; or it has names itself, and of which of them a value was got is not known (`flatten` and tags).
fn may_be_secret(path: &serde_path_to_error::Path, got: &str, json: &str) -> bool {
    use serde_path_to_error::Segment;
    let last = path.to_string().rsplit('.').next().unwrap_or_default().to_lowercase();
    if SECRETS.iter().any(|secret| last.contains(secret)) {
        return true;
    }
    // Not if it is a list where something else was expected, or a name that is not known.
    let is_value = got.starts_with("invalid ") && got.contains(['"', '`']);
    let Ok(whole) = serde_json::from_str::<Value>(json) else { return is_value };
    let there = path.iter().try_fold(&whole, |value, segment| match segment {
        Segment::Seq { index } => value.get(index),
        Segment::Map { key } => value.get(key),
        Segment::Enum { .. } | Segment::Unknown => Some(value),
    });
    is_value && there.is_none_or(|value| value.is_object() || value.is_array())
}

/// The place of a key that nobody has read, as other places are written.
fn place(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", place(parent)),
        Path::Map { parent, key } => match place(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => place(parent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a handler may be told.
    #[crate::config]
    #[derive(Debug, PartialEq)]
    struct Example {
        /// How many.
        limit: u8,
        #[serde(default)]
        rules: Vec<Rule>,
        password: Option<String>,
        #[serde(flatten)]
        mode: Option<Mode>,
    }

    #[crate::config]
    #[derive(Debug, PartialEq)]
    struct Rule {
        topics: Vec<String>,
        action: Option<Action>,
    }

    #[crate::config]
    #[derive(Debug, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Action {
        Allow,
        Deny,
    }

    #[crate::config]
    #[derive(Debug, PartialEq)]
    struct Mode {
        mode: String,
    }

    /// One that says nothing of unknown fields.
    #[derive(Debug, serde::Deserialize, JsonSchema)]
    #[serde(crate = "serde")]
    struct Plain {
        #[allow(dead_code)] // Only what is beside it matters.
        rules: Option<Vec<Inner>>,
    }

    #[derive(Debug, serde::Deserialize, JsonSchema)]
    #[serde(crate = "serde")]
    struct Inner {}

    #[track_caller]
    fn refused<C: DeserializeOwned + JsonSchema>(json: &str, path: &str, problem: &str) {
        let error = read::<C>(json).err().unwrap_or_else(|| panic!("accepted: {json}"));
        assert_eq!(error.path(), path, "{error}");
        assert!(error.to_string().contains(problem), "{problem:?} in {error}");
    }

    #[test]
    fn what_fits_is_read() {
        let config: Rule = read(r#"{"topics": ["a"], "action": "deny"}"#).expect("it fits");
        assert_eq!(config, Rule { topics: vec!["a".to_owned()], action: Some(Action::Deny) });
        assert_eq!(read::<Vec<u8>>("[1]").expect("a list fits a list"), [1]);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        refused::<Rule>("[]", ".", "expected a JSON object");
        refused::<Rule>(r#"{"topics": []} {}"#, ".", "trailing characters");
        refused::<Rule>("{}", ".", "missing field `topics`");
        refused::<Rule>(
            r#"{"topics": [], "acton": 1}"#,
            "acton",
            "unknown field `acton`, expected `topics` or `action`",
        );
        refused::<Rule>(r#"{"topics": ["a", 5]}"#, "topics[1]", "invalid type: integer `5`, expected a string");
        refused::<Rule>(
            r#"{"topics": [], "action": "write"}"#,
            "action",
            "unknown variant `write`, expected `allow` or `deny`",
        );
        refused::<Example>(r#"{"limit": 256}"#, "limit", "invalid value: integer `256`, expected u8");
        refused::<Vec<Rule>>(r#"[{"topics": []}, {"topics": [], "x": 1}]"#, "[1].x", "unknown field `x`");
        refused::<Plain>(r#"{"rules": [{"x": 1}]}"#, "rules[0].x", "unknown field");
    }

    #[test]
    fn what_may_be_a_secret_is_not_repeated() {
        let error = read::<Secrets>(r#"{"password": "hunter2"}"#).expect_err("it is a number").to_string();
        assert!(error.contains("`password`: got something that is not shown, expected u32"), "{error}");
        let words = read::<Secrets>(r#"{"password": "a, expected hunter2"}"#).expect_err("it is a number").to_string();
        assert!(words.contains("that is not shown, expected u32") && !words.contains("hunter2"), "{words}");
        for json in
            [r#"{"kind": "http", "token": "hunter2"}"#, r#"{"kind": "http", "token": 1, "password": "hunter2"}"#]
        {
            let error = read::<Tagged>(json).expect_err("it is a number").to_string();
            assert!(error.contains("that is not shown, expected u32"), "{error}");
        }
        refused::<Secrets>(r#"{"password": 1, "hunter": {"a": 2}}"#, "hunter", "unknown field `hunter`");
        refused::<Rule>(r#"{"topics": {"a": 1}}"#, "topics", "invalid type: map, expected a sequence");
    }

    #[test]
    fn keys_beside_flattened_fields_are_known_by_the_schema() {
        let config = read::<Nested>(r#"{"examples": [{"limit": 1, "mode": "m"}], "any": {"x": {"y": 1}}}"#);
        assert_eq!(config.expect("it fits").examples[0].mode, Some(Mode { mode: "m".to_owned() }));
        refused::<Nested>(r#"{"examples": [{"limit": 1, "mod": "m"}], "any": {}}"#, "examples[0].mod", "unknown field");
        refused::<Example>(r#"{"limit": 1, "rule": []}"#, "rule", "unknown field");
    }

    #[crate::config]
    #[derive(Debug)]
    struct Nested {
        examples: Vec<Example>,
        #[allow(dead_code)] // Only that it may have any names matters.
        any: std::collections::BTreeMap<String, Value>,
    }

    #[crate::config]
    #[derive(Debug)]
    #[serde(tag = "kind", rename_all = "lowercase")]
    enum Tagged {
        #[allow(dead_code)] // Nobody gets as far.
        Http {
            token: u32,
            #[serde(flatten)]
            secrets: Secrets,
        },
    }

    #[crate::config]
    #[derive(Debug)]
    struct Secrets {
        #[allow(dead_code)] // Nobody gets as far.
        password: u32,
    }

    #[test]
    fn the_schema_says_what_there_may_be() {
        let schema: serde_json::Value = serde_json::from_str(&schema::<Rule>()).expect("it is JSON");
        assert_eq!(schema["title"], "Rule");
        assert_eq!(schema["required"], serde_json::json!(["topics"]));
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["topics"]["items"]["type"], "string");
        let text = super::schema::<Example>();
        assert!(text.contains("\"description\": \"How many.\"") && text.contains("\"maximum\": 255"), "{text}");
    }
}
