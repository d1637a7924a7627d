//! The configuration: what was written, and what it means once it is known to be consistent.

use std::collections::HashSet;
use std::fmt;

use plugin_api::topic::{self, Share};
use serde::Deserialize;

use crate::password::Password;
use crate::pattern::{Pattern, is_plain};

/// A fault in the configuration: where it is, what was got and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    path: String,
    problem: String,
}

impl ConfigError {
    fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
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

/// A configuration without contradictions: names refer to what exists, and every filter is valid.
pub(crate) struct Config {
    pub(crate) users: Vec<User>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) anonymous: bool,
    pub(crate) client_ids: Option<Vec<ClientIds>>,
}

pub(crate) struct User {
    pub(crate) username: String,
    pub(crate) password: Password,
    pub(crate) groups: Vec<String>,
}

pub(crate) struct Rule {
    pub(crate) subject: Subject,
    pub(crate) effect: Effect,
    pub(crate) actions: Vec<Action>,
    pub(crate) topics: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    User(String),
    Group(String),
    Anyone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Publish,
    Subscribe,
}

/// Client Identifiers that a client may have.
pub(crate) struct ClientIds {
    pub(crate) pattern: Pattern,
    /// The pattern is only the start of them.
    pub(crate) is_prefix: bool,
}

impl Rule {
    /// Whether it is about this user.
    pub(crate) fn is_about(&self, user: &User) -> bool {
        match &self.subject {
            Subject::User(name) => *name == user.username,
            Subject::Group(group) => user.groups.contains(group),
            Subject::Anyone => true,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    #[serde(default)]
    users: Vec<RawUser>,
    #[serde(default)]
    rules: Vec<RawRule>,
    #[serde(default)]
    anonymous: bool,
    client_ids: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUser {
    username: String,
    password_hash: String,
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    user: Option<String>,
    group: Option<String>,
    anyone: Option<bool>,
    allow: Option<Vec<Action>>,
    deny: Option<Vec<Action>>,
    topics: Vec<String>,
}

impl Config {
    /// Reads and checks the JSON text.
    pub(crate) fn parse(json: &str) -> Result<Self, ConfigError> {
        // Otherwise a list would be taken for the fields in their order, without their names.
        if !json.trim_start().starts_with('{') {
            return Err(ConfigError::new(".", "expected a JSON object, such as {\"users\": […], \"rules\": […]}"));
        }
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let raw: RawConfig = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            // Not what stands there, which may be a password.
            let is_secret = path.ends_with("password_hash") && error.inner().is_data();
            let problem = if is_secret { "expected a text".to_owned() } else { error.inner().to_string() };
            ConfigError::new(path, problem)
        })?;
        deserializer.end().map_err(|error| ConfigError::new(".", error.to_string()))?;
        let users = each("users", raw.users, RawUser::check)?;
        let rules = each("rules", raw.rules, RawRule::check)?;
        let client_ids = raw.client_ids.map(|texts| each("client_ids", texts, client_ids)).transpose()?;
        let config = Self { users, rules, anonymous: raw.anonymous, client_ids };
        config.check_user_names()?;
        config.check_subjects()?;
        config.check_substitution()?;
        Ok(config)
    }

    fn check_user_names(&self) -> Result<(), ConfigError> {
        let mut seen = HashSet::new();
        for (number, user) in self.users.iter().enumerate() {
            if !seen.insert(&user.username) {
                return Err(ConfigError::new(
                    format!("users[{number}].username"),
                    format!("there is already a user `{}`: expected each name once", user.username),
                ));
            }
        }
        Ok(())
    }

    /// A rule about nobody is a slip of the pen, and if it denies, one that lets too much through.
    fn check_subjects(&self) -> Result<(), ConfigError> {
        let users: HashSet<&String> = self.users.iter().map(|user| &user.username).collect();
        let groups: HashSet<&String> = self.users.iter().flat_map(|user| &user.groups).collect();
        for (number, rule) in self.rules.iter().enumerate() {
            let (field, got, known) = match &rule.subject {
                Subject::User(name) => ("user", name, &users),
                Subject::Group(group) => ("group", group, &groups),
                Subject::Anyone => continue,
            };
            if !known.contains(got) {
                return Err(ConfigError::new(
                    format!("rules[{number}].{field}"),
                    format!("got `{got}`, expected the name of a {field} that occurs in `users`"),
                ));
            }
        }
        Ok(())
    }

    /// No user may have a name that would change the meaning of a filter it is put into.
    fn check_substitution(&self) -> Result<(), ConfigError> {
        for (number, user) in self.users.iter().enumerate() {
            let uses_name = |rule: &&Rule| rule.is_about(user) && rule.topics.iter().any(Pattern::has_user);
            if !is_plain(&user.username) && self.rules.iter().any(|rule| uses_name(&rule)) {
                return Err(ConfigError::new(
                    format!("users[{number}].username"),
                    format!(
                        "got `{}`, and a rule about this user has `%u`: expected a name without `+`, `#` and `/` that \
                         does not start with `$`",
                        user.username
                    ),
                ));
            }
        }
        Ok(())
    }
}

impl RawUser {
    fn check(self, path: &str) -> Result<User, ConfigError> {
        if self.username.is_empty() {
            return Err(ConfigError::new(
                format!("{path}.username"),
                "got an empty name, expected at least one character",
            ));
        }
        let password = Password::parse(&self.password_hash).map_err(|problem| {
            ConfigError::new(
                format!("{path}.password_hash"),
                // The text itself is left out: it may be a password that was put here by mistake.
                format!(
                    "{problem}; expected the output of `argon2 … -id -e`, $argon2id$v=19$m=…,t=…,p=…$salt$hash \
                     (the README says how to make one)"
                ),
            )
        })?;
        Ok(User { username: self.username, password, groups: self.groups })
    }
}

impl RawRule {
    fn check(self, path: &str) -> Result<Rule, ConfigError> {
        let subject = match (self.user, self.group, self.anyone) {
            (Some(user), None, None) => Subject::User(user),
            (None, Some(group), None) => Subject::Group(group),
            (None, None, Some(true)) => Subject::Anyone,
            _ => {
                return Err(ConfigError::new(
                    path,
                    "expected exactly one of \"user\": name, \"group\": name and \"anyone\": true",
                ));
            }
        };
        let (effect, actions) = match (self.allow, self.deny) {
            (Some(actions), None) => (Effect::Allow, actions),
            (None, Some(actions)) => (Effect::Deny, actions),
            _ => return Err(ConfigError::new(path, "expected exactly one of `allow` and `deny`")),
        };
        if actions.is_empty() || self.topics.is_empty() {
            return Err(ConfigError::new(
                path,
                "expected at least one of \"publish\" and \"subscribe\", and at least one topic",
            ));
        }
        let topics = each(&format!("{path}.topics"), self.topics, topic_pattern)?;
        Ok(Rule { subject, effect, actions, topics })
    }
}

fn topic_pattern(text: String, path: &str) -> Result<Pattern, ConfigError> {
    let pattern = Pattern::parse(&text).map_err(|problem| ConfigError::new(path, problem))?;
    let example = pattern.with_user("x").with_client("x");
    if topic::split_share(&example) != Share::None {
        return Err(ConfigError::new(
            path,
            format!(
                "got `{text}`, expected a filter without `$share/…`: a Shared Subscription is checked by the filter \
                 after the share name"
            ),
        ));
    }
    if !topic::is_valid_filter(&example) {
        return Err(ConfigError::new(
            path,
            format!(
                "got `{text}`, expected a Topic Filter: 1 to 65,535 bytes, `+` alone in its level, `#` alone in the \
                 last one"
            ),
        ));
    }
    Ok(pattern)
}

fn client_ids(text: String, path: &str) -> Result<ClientIds, ConfigError> {
    let (start, is_prefix) = match text.strip_suffix('*') {
        Some(start) => (start, true),
        None => (text.as_str(), false),
    };
    let pattern = Pattern::parse(start).map_err(|problem| ConfigError::new(path, problem))?;
    if pattern.has_client() || start.contains('*') {
        return Err(ConfigError::new(
            path,
            format!("got `{text}`, expected a Client Identifier in which `%u` may occur, and `*` at the end"),
        ));
    }
    Ok(ClientIds { pattern, is_prefix })
}

/// Checks each entry of a list, which gets its path.
fn each<A, B>(
    path: &str,
    entries: Vec<A>,
    check: impl Fn(A, &str) -> Result<B, ConfigError>,
) -> Result<Vec<B>, ConfigError> {
    entries.into_iter().enumerate().map(|(number, entry)| check(entry, &format!("{path}[{number}]"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = r#"{"username": "ann", "groups": ["staff"],
        "password_hash": "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$QQCd8VPOryZiCF3MtwQnPTK7odKCaPcXJGplgNEuj1A"}"#;

    #[test]
    fn faults_are_named_with_their_place() {
        let rule = |rule: &str| format!(r#"{{"users": [{USER}], "rules": [{rule}]}}"#);
        for (json, path, problem) in [
            ("[]".into(), ".", "expected a JSON object"),
            ("{} {}".into(), ".", "trailing characters"),
            (r#"{"user": []}"#.into(), "user", "unknown field `user`, expected one of `users`, `rules`"),
            (r#"{"anonymous": "yes"}"#.into(), "anonymous", "invalid type: string \"yes\", expected a boolean"),
            (r#"{"users": [{"username": "ann"}]}"#.into(), "users[0]", "missing field `password_hash`"),
            (
                r#"{"users": [{"username": "ann", "password_hash": "", "pasword": ""}]}"#.into(),
                "users[0].pasword",
                "unknown field `pasword`, expected one of `username`, `password_hash`, `groups`",
            ),
            (
                r#"{"users": [{"username": "ann", "password_hash": "secret"}]}"#.into(),
                "users[0].password_hash",
                "expected the output of `argon2 … -id -e`",
            ),
            (r#"{"users": [{"username": "", "password_hash": ""}]}"#.into(), "users[0].username", "got an empty name"),
            (format!(r#"{{"users": [{USER}, {USER}]}}"#), "users[1].username", "already a user `ann`"),
            (rule(r#"{"allow": ["publish"], "topics": ["a"]}"#), "rules[0]", "exactly one of \"user\""),
            (
                rule(r#"{"anyone": false, "allow": ["publish"], "topics": ["a"]}"#),
                "rules[0]",
                "exactly one of \"user\"",
            ),
            (
                rule(r#"{"anyone": true, "user": "ann", "allow": ["publish"], "topics": ["a"]}"#),
                "rules[0]",
                "exactly one of \"user\"",
            ),
            (rule(r#"{"anyone": true, "topics": ["a"]}"#), "rules[0]", "exactly one of `allow` and `deny`"),
            (rule(r#"{"anyone": true, "allow": [], "topics": ["a"]}"#), "rules[0]", "at least one of"),
            (rule(r#"{"anyone": true, "allow": ["publish"], "topics": []}"#), "rules[0]", "at least one topic"),
            (
                rule(r#"{"anyone": true, "allow": ["write"], "topics": ["a"]}"#),
                "rules[0].allow[0]",
                "unknown variant `write`, expected `publish` or `subscribe`",
            ),
            (
                rule(r#"{"user": "bob", "allow": ["publish"], "topics": ["a"]}"#),
                "rules[0].user",
                "got `bob`, expected the name of a user",
            ),
            (
                rule(r#"{"group": "stuff", "deny": ["publish"], "topics": ["a"]}"#),
                "rules[0].group",
                "got `stuff`, expected the name of a group",
            ),
            (
                rule(r#"{"anyone": true, "allow": ["publish"], "topics": ["a", "b/#/c"]}"#),
                "rules[0].topics[1]",
                "got `b/#/c`, expected a Topic Filter",
            ),
            (
                rule(r#"{"anyone": true, "allow": ["publish"], "topics": ["a/%i"]}"#),
                "rules[0].topics[0]",
                "got `%i`, expected `%u`",
            ),
            (
                rule(r#"{"anyone": true, "allow": ["subscribe"], "topics": ["$share/g/a"]}"#),
                "rules[0].topics[0]",
                "without `$share/…`",
            ),
            (r#"{"client_ids": ["%c"]}"#.into(), "client_ids[0]", "got `%c`, expected a Client Identifier"),
            (r#"{"client_ids": ["a*b"]}"#.into(), "client_ids[0]", "`*` at the end"),
        ] {
            let error = Config::parse(&json).err().unwrap_or_else(|| panic!("accepted: {json}"));
            assert_eq!(error.path(), path, "{json}: {error}");
            assert!(error.to_string().contains(problem), "{json}: {error}");
        }
    }

    #[test]
    fn a_password_put_in_place_of_its_hash_is_not_repeated() {
        let json = r#"{"users": [{"username": "ann", "password_hash": "$tr0ng-Secret"}]}"#;
        let error = Config::parse(json).err().expect("not a hash").to_string();
        assert!(!error.contains("Secret"), "{error}");
    }

    #[test]
    fn a_name_that_would_change_a_filter_is_refused_where_it_is_put_into_one() {
        let config = |topic: &str| {
            let user = USER.replace("ann", "plant/+");
            format!(
                r#"{{"users": [{user}], "rules": [{{"group": "staff", "allow": ["publish"], "topics": ["{topic}"]}}]}}"#
            )
        };
        assert!(Config::parse(&config("a/%c")).is_ok());
        let error = Config::parse(&config("a/%u")).err().expect("it would widen the rule");
        assert_eq!(error.path(), "users[0].username");
    }
}
