//! Configurations in JSON, whose faults are named with their place.

use std::fmt;

use serde::de::DeserializeOwned;

/// A fault in a configuration: where it is, what was got and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    path: String,
    problem: String,
}

impl ConfigError {
    /// A fault at this place.
    pub fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }

    /// The place, such as `rules[1].topics[0]`; `.` for the whole; `acl_file, line 3 of /etc/acl` in a file.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same fault, of something that stands in `at`.
    #[must_use]
    pub fn within(self, at: &str) -> Self {
        let path = match self.path.as_str() {
            "." => at.to_owned(),
            inner if inner.starts_with('[') => format!("{at}{inner}"),
            inner => format!("{at}.{inner}"),
        };
        Self { path, ..self }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is wrong at `{}`: {}", self.path, self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// Reads a JSON object. What stands where a name of `secrets` ends, or within that, is never repeated in an error: it may be a
/// password.
///
/// # Errors
/// Names the place, what was found there and what was expected.
pub fn read<T: DeserializeOwned>(json: &str, secrets: &[&str]) -> Result<T, ConfigError> {
    // Otherwise a list would be taken for the fields in their order, without their names.
    if !json.trim_start().starts_with('{') {
        return Err(ConfigError::new(".", "expected a JSON object: { … }"));
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let config = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        // A secret may be an object, such as `headers`.
        let hides = |secret: &&str| path.ends_with(*secret) || path.contains(&format!("{secret}."));
        let is_secret = secrets.iter().any(hides) && error.inner().is_data();
        let problem = if is_secret { "expected a text".to_owned() } else { error.inner().to_string() };
        ConfigError::new(path, problem)
    })?;
    deserializer.end().map_err(|error| ConfigError::new(".", error.to_string()))?;
    Ok(config)
}

/// Checks that a number is in its bounds, which count as well.
///
/// # Errors
/// It is not.
pub fn within(path: &str, got: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&got) {
        return Ok(());
    }
    Err(ConfigError::new(path, format!("got {got}, expected {min} to {max}")))
}

/// Checks each entry of a list, which gets its path.
///
/// # Errors
/// The first fault.
pub fn each<A, B>(
    path: &str,
    entries: impl IntoIterator<Item = A>,
    check: impl Fn(A, &str) -> Result<B, ConfigError>,
) -> Result<Vec<B>, ConfigError> {
    entries.into_iter().enumerate().map(|(number, entry)| check(entry, &format!("{path}[{number}]"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        secret: String,
        #[serde(default)]
        numbers: Vec<u8>,
        #[serde(default)]
        headers: std::collections::BTreeMap<String, String>,
    }

    #[test]
    fn faults_are_named_with_their_place() {
        for (json, path, problem) in [
            ("[]", ".", "expected a JSON object"),
            ("{\"secret\": \"a\"} x", ".", "trailing characters"),
            ("{", "?", "EOF"),
            (r#"{"secrets": 1}"#, "secrets", "unknown field `secrets`, expected one of `secret`, `numbers`, `headers`"),
            (r#"{"secret": "a", "numbers": [1, 300]}"#, "numbers[1]", "300"),
        ] {
            let error = read::<Example>(json, &["secret"]).expect_err(json);
            assert_eq!(error.path(), path, "{json}: {error}");
            assert!(error.to_string().contains(problem), "{json}: {error}");
        }
        let error = read::<Example>(r#"{"secret": 12345}"#, &["secret"]).expect_err("a number").to_string();
        assert!(!error.contains("12345") && error.contains("`secret`"), "{error}");
        let within = r#"{"secret": "a", "headers": {"authorization": 12345}}"#;
        let error = read::<Example>(within, &["headers"]).expect_err("a number").to_string();
        assert!(!error.contains("12345") && error.contains("`headers.authorization`"), "{error}");
        assert!(read::<Example>(r#"{"secret": "a"}"#, &[]).is_ok());
    }

    #[test]
    fn places_are_put_together() {
        for (inner, expected) in [(".", "a"), ("b", "a.b"), ("[1]", "a[1]")] {
            assert_eq!(ConfigError::new(inner, "x").within("a").path(), expected);
        }
    }
}
