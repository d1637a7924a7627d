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
/// expected. Values at places that are called something with `password`, `secret` or `token` are not repeated.
pub fn read<C: DeserializeOwned + JsonSchema>(json: &str) -> Result<C, ConfigError> {
    // serde would take a list for the fields in their order, without their names.
    if is_object(&schema_of::<C>()) && !json.trim_start().starts_with('{') {
        return Err(ConfigError::new(".", "expected a JSON object: { … }"));
    }
    let mut json = serde_json::Deserializer::from_str(json);
    let (mut track, mut ignored) = (serde_path_to_error::Track::new(), None::<String>);
    let read = {
        let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
        serde_ignored::deserialize(tracked, |path| {
            ignored.get_or_insert_with(|| place(&path));
        })
    };
    let config = read.map_err(|error| {
        let path = track.path().to_string();
        let problem = problem(&path, &error);
        ConfigError::new(path, problem)
    })?;
    json.end().map_err(|error| ConfigError::new(".", error.to_string()))?;
    match ignored {
        None => Ok(config),
        Some(path) => {
            let known = "it is not among the names that are known there";
            Err(ConfigError::new(path, format!("unknown field: {known}")))
        }
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

fn is_object(schema: &schemars::Schema) -> bool {
    schema.get("type").is_some_and(|its_type| its_type == "object")
}

/// What is wrong, without what stands there if that may be a secret.
fn problem(path: &str, error: &serde_json::Error) -> String {
    let text = error.to_string();
    let last = path.rsplit('.').next().unwrap_or_default().to_lowercase();
    // The last one: the secret itself may have these words.
    match text.rsplit_once(", expected ") {
        Some((_, expected)) if error.is_data() && SECRETS.iter().any(|secret| last.contains(secret)) => {
            format!("got something that is not shown, expected {expected}")
        }
        _ => text,
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
