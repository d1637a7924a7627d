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
//! The attributes of serde and schemars work on its fields; what is `#[serde(flatten)]` has to be a struct with this attribute. A type
//! of your own with `#[derive(Deserialize, JsonSchema)]` will do as well. A password or a key is best a [`Secret`].

use std::fmt;

pub use schemars;
pub use serde;

use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use zeroize::Zeroizing;

/// Parts of names whose values are not repeated in an error: it may be read by others than the configuration.
const SECRETS: [&str; 3] = ["password", "secret", "token"];

/// What an error begins with that knows its place already, as that of a field that is flattened does.
const AT: &str = "at `";

/// What serde says of a field that is not known; where fields are flattened, neither its place nor what is known.
const UNKNOWN: &str = "unknown field `";

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
/// place serde does not tell (within a `tag`). There, a key is known if the schema has it: an `alias` is not.
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
    let config = read.map_err(|error| mistake(&track.path().to_string(), json, &schema, &error))?;
    text.end().map_err(|error| ConfigError::new(".", error.to_string()))?;
    let unknown = || Unknown { root: &schema }.find(&[&schema], &serde_json::from_str(json).ok()?, "");
    match ignored.or_else(unknown) {
        None => Ok(config),
        Some(path) => {
            let (parent, key) = path.rsplit_once('.').unwrap_or((".", &path));
            Err(unknown_field(&schema, parent, key))
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

/// The mistake that was found while what stands at `path` was read.
fn mistake(path: &str, json: &str, schema: &Value, error: &serde_json::Error) -> ConfigError {
    let text = error.to_string();
    let within = text.strip_prefix(AT).and_then(|rest| rest.split_once("`: "));
    let (path, text) = match within {
        Some((inner, text)) => (joined(path, inner), text),
        None => (path.to_owned(), text.as_str()),
    };
    let key = text.strip_prefix(UNKNOWN).and_then(|rest| rest.split_once('`'));
    match key {
        Some((key, rest)) if !rest.starts_with(", expected ") => unknown_field(schema, &path, key),
        // It is a name.
        Some(_) => ConfigError::new(path, text),
        None => {
            let problem = problem(&path, json, text, error.is_data());
            ConfigError::new(path, problem)
        }
    }
}

/// What is wrong, without what stands there if that may be a secret.
fn problem(path: &str, json: &str, text: &str, is_data: bool) -> String {
    // The last one: the secret itself may have these words.
    match text.rsplit_once(", expected ") {
        Some((got, expected)) if is_data && may_be_secret(path, got, json) => {
            format!("got something that is not shown, expected {expected}")
        }
        _ => text.to_owned(),
    }
}

/// By its name; or it has names itself, and of which of them a value was got is not known (tags).
fn may_be_secret(path: &str, got: &str, json: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or_default().to_lowercase();
    if SECRETS.iter().any(|secret| last.contains(secret)) {
        return true;
    }
    // Not if it is a list where something else was expected, or a name that is not known.
    let is_value = got.starts_with("invalid ") && got.contains(['"', '`']);
    let Ok(whole) = serde_json::from_str::<Value>(json) else { return is_value };
    // Where a name has a dot in it, nothing is found.
    let there = path.split(['.', '[']).filter(|part| !part.is_empty()).try_fold(&whole, |value, part| {
        match part.strip_suffix(']').and_then(|index| index.parse::<usize>().ok()) {
            Some(index) => value.get(index),
            None => value.get(part),
        }
    });
    is_value && there.is_none_or(|value| value.is_object() || value.is_array())
}

/// A key that is not known in what stands at `parent`.
fn unknown_field(schema: &Value, parent: &str, key: &str) -> ConfigError {
    let names = schema.get("properties").filter(|_| parent == ".").and_then(Value::as_object);
    let names = names.map(|names| names.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "));
    let problem = match names {
        Some(names) => format!("{UNKNOWN}{key}`, expected one of {names}"),
        None => format!("{UNKNOWN}{key}`: it is not among the names that are known there"),
    };
    ConfigError::new(joined(parent, key), problem)
}

/// The place `inner` in what stands at `outer`.
fn joined(outer: &str, inner: &str) -> String {
    match (outer, inner) {
        (".", inner) => inner.to_owned(),
        (outer, ".") => outer.to_owned(),
        (outer, inner) => format!("{outer}.{inner}"),
    }
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

/// What `#[serde(flatten)]` can stand on in a `#[plugin_api::config]`: a struct with this attribute, whose fields are known.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be flattened into a configuration: it could not be said which keys there may be",
    label = "expected a struct with `#[plugin_api::config]`, named fields and nothing flattened in it"
)]
pub trait Flat {}

/// Reads what is flattened, so that an error has the place in it.
#[doc(hidden)]
pub fn flattened<'de, D: Deserializer<'de>, T: Flat + Deserialize<'de>>(fields: D) -> Result<T, D::Error> {
    let mut track = serde_path_to_error::Track::new();
    let read = T::deserialize(serde_path_to_error::Deserializer::new(fields, &mut track));
    read.map_err(|error| D::Error::custom(format_args!("{AT}{}`: {error}", track.path())))
}

/// A text that is not to be seen: a password, or a key. It is not repeated in an error, not written by `Debug`, and cleared from
/// memory when it is dropped.
///
/// ```
/// use plugin_api::config::{Secret, read};
///
/// #[plugin_api::config]
/// #[derive(Debug)]
/// struct Config {
///     api_key: Secret,
/// }
///
/// let config = read::<Config>(r#"{"api_key": "k-4711"}"#)?;
/// assert_eq!(config.api_key.expose(), "k-4711");
/// assert!(!format!("{config:?}").contains("4711"));
/// let error = read::<Config>(r#"{"api_key": 4711}"#).unwrap_err().to_string();
/// assert!(error.contains("`api_key`: got something that is not shown, expected a string"), "{error}");
/// # Ok::<(), plugin_api::config::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer);
        text.map(|text| Self(Zeroizing::new(text)))
            .map_err(|_| D::Error::custom("got something that is not shown, expected a string"))
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "writeOnly": true })
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
        mode: Mode,
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
        /// How.
        mode: String,
        #[serde(default)]
        tokens: std::collections::BTreeMap<String, u8>,
    }

    /// Has what is flattened in a list.
    #[crate::config]
    #[derive(Debug)]
    struct Outer {
        #[allow(dead_code)] // Nobody gets as far.
        examples: Vec<Example>,
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
    fn mistakes_in_what_is_flattened_have_their_place_as_well() {
        let fits = read::<Example>(r#"{"mode": "x", "limit": 1, "tokens": {"a": 1}}"#).expect("it fits");
        assert_eq!((fits.mode.mode.as_str(), fits.mode.tokens.len()), ("x", 1));
        refused::<Example>(r#"{"limit": 1, "mode": 5}"#, "mode", "invalid type: integer `5`, expected a string");
        refused::<Example>(r#"{"limit": 1}"#, ".", "missing field `mode`");
        refused::<Example>(r#"{"limit": 1, "mode": "x", "tokens": {"a": 256}}"#, "tokens.a", "expected u8");
        refused::<Example>(r#"{"limit": 1, "mode": "x", "mod": 1}"#, "mod", "unknown field `mod`, expected one of `");
        let error = read::<Example>(r#"{"limit": 1, "mode": "x", "mod": 1}"#).expect_err("unknown").to_string();
        let named = |name: &&str| error.contains(&format!("`{name}`"));
        assert!(["limit", "mode", "password", "rules", "tokens"].iter().all(named), "{error}");
        let list = |example: &str| format!(r#"{{"examples": [{{"limit": 1, "mode": "x"}}, {example}]}}"#);
        refused::<Outer>(&list(r#"{"limit": 1, "mode": 5}"#), "examples[1].mode", "expected a string");
        refused::<Outer>(&list(r#"{"limit": 1}"#), "examples[1]", "missing field `mode`");
        refused::<Outer>(
            &list(r#"{"limit": 1, "mode": "x", "y": 1}"#),
            "examples[1].y",
            "unknown field `y`: it is not",
        );
        let schema: serde_json::Value = serde_json::from_str(&schema::<Example>()).expect("it is JSON");
        assert_eq!(schema["properties"]["mode"]["description"], "How.");
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
        refused::<Secrets>(r#"{"passwords": 5}"#, "passwords", "unknown field `passwords`, expected `password`");
        refused::<Secrets>(r#"{"password": 1, "hunter": {"a": 2}}"#, "hunter", "unknown field `hunter`");
        refused::<Rule>(r#"{"topics": {"a": 1}}"#, "topics", "invalid type: map, expected a sequence");
    }

    #[test]
    fn keys_beside_flattened_fields_are_known_by_the_schema() {
        let config = read::<Nested>(r#"{"examples": [{"limit": 1, "mode": "m"}], "any": {"x": {"y": 1}}}"#);
        assert_eq!(config.expect("it fits").examples[0].mode.mode, "m");
        refused::<Nested>(
            r#"{"examples": [{"limit": 1, "mode": "", "mod": "m"}], "any": {}}"#,
            "examples[0].mod",
            "unknown field",
        );
        refused::<Example>(r#"{"limit": 1, "mode": "", "rule": []}"#, "rule", "unknown field");
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
