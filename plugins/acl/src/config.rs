//! The configuration: what was written, and what it means once it is known to be consistent.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use plugin_api::config::{ConfigError, Secret};
use plugin_api::topic::{self, Share};
use plugin_support::config::each;
use plugin_support::files::{self, Seen};
use plugin_support::pattern::{ClientIds, Pattern, is_plain};

use crate::mosquitto::{self, AclFile};
use crate::password::Password;

/// What a configuration without contradictions says: names refer to what exists, and every filter is valid.
pub(crate) struct Settings {
    pub(crate) users: Vec<User>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) anonymous: bool,
    pub(crate) certificates: bool,
    pub(crate) client_ids: Option<Vec<ClientIds>>,
    pub(crate) acl_file: Option<AclFile>,
    /// The files that it was read from, as they were.
    pub(crate) seen: Seen,
}

pub(crate) struct User {
    pub(crate) username: String,
    /// `None`: another plugin says who it is, by enhanced authentication.
    pub(crate) password: Option<Password>,
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

#[plugin_api::config]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Publish,
    Subscribe,
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

/// Users, and who may do what.
#[plugin_api::config]
pub struct Config {
    /// Who may come in with a password of its own. With `password_file`, those that it has come in too. Left out: none.
    #[serde(default)]
    users: Vec<RawUser>,
    /// Who may do what. What no rule allows is denied, and what one denies is denied, wherever it stands. Left out: none.
    #[serde(default)]
    rules: Vec<RawRule>,
    /// Whether clients without User Name and Password may come in. Left out: `false`.
    #[serde(default)]
    anonymous: bool,
    /// Whether a client needs no password that has shown a certificate with its User Name in it, as the common name or an
    /// alternative name. It need not be among the users then. Left out: `false`.
    #[serde(default)]
    certificates: bool,
    /// The Client Identifiers that clients may choose: `%u` is the User Name, `*` at the end is any ending. Left out: any.
    client_ids: Option<Vec<String>>,
    /// Path of a file of passwords, as `mosquitto_passwd` writes it; read again within seconds after it has changed. Left
    /// out: none.
    password_file: Option<PathBuf>,
    /// Path of a file of Mosquitto's with who may do what; read again within seconds after it has changed. Left out: none.
    acl_file: Option<PathBuf>,
}

#[plugin_api::config]
struct RawUser {
    /// User Name: not empty, each once.
    username: String,
    /// Hash of the password: a PHC string of Argon2 (at most 1 GiB of memory and 100 passes), or what `mosquitto_passwd`
    /// writes behind the name. Left out: the user's line in `password_file`.
    password_hash: Option<Secret>,
    /// Whether the user has no password here, and comes in by an Authentication Method that another plugin knows. Left out:
    /// `false`.
    #[serde(default)]
    enhanced_authentication: bool,
    /// Names of the groups that the user is in; a group exists if a user is in it. Left out: none.
    #[serde(default)]
    groups: Vec<String>,
}

#[plugin_api::config]
struct RawRule {
    /// The rule is about this user, who has to be known. Exactly one of `user`, `group` and `anyone`.
    user: Option<String>,
    /// The rule is about the users in this group, which has to have one.
    group: Option<String>,
    /// `true`: the rule is about every user, and about anonymous clients.
    anyone: Option<bool>,
    /// What may be done. Exactly one of `allow` and `deny`, with at least one entry.
    allow: Option<Vec<Action>>,
    /// What may not be done, whatever other rules say.
    deny: Option<Vec<Action>>,
    /// Topic Filters, at least one: `%u` is the User Name, `%c` the Client Identifier, `%%` a percent sign.
    topics: Vec<String>,
}

impl Settings {
    /// Checks the configuration, and reads the files that it names.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let seen = Seen::now([&config.password_file, &config.acl_file].into_iter().flatten().cloned().collect());
        let in_file: HashMap<String, Password> =
            config.password_file.as_deref().map(read_passwords).transpose()?.unwrap_or_default();
        let mut users = each("users", &config.users, |user, path| user.check(&in_file, path))?;
        let named: HashSet<String> = users.iter().map(|user| user.username.clone()).collect();
        let mut others: Vec<_> = in_file.into_iter().filter(|(name, _)| !named.contains(name)).collect();
        // So that errors and warnings do not depend on the order in a table.
        others.sort_by(|(one, _), (other, _)| one.cmp(other));
        let user = |(username, password)| User { username, password: Some(password), groups: Vec::new() };
        users.extend(others.into_iter().map(user));
        let rules = each("rules", &config.rules, RawRule::check)?;
        let client_ids = config
            .client_ids
            .as_ref()
            .map(|texts| each("client_ids", texts, |text, path| client_ids(text, path)))
            .transpose()?;
        let acl_file = config.acl_file.as_deref().map(read_acl).transpose()?;
        let settings = Self {
            users,
            rules,
            anonymous: config.anonymous,
            certificates: config.certificates,
            client_ids,
            acl_file,
            seen,
        };
        settings.check_user_names()?;
        settings.check_subjects()?;
        settings.check_substitution()?;
        Ok(settings)
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

    /// Whether the user has a name that would change the meaning of a filter that it is put into.
    pub(crate) fn changes_filters(&self, user: &User) -> bool {
        let uses_name = |rule: &Rule| rule.is_about(user) && rule.topics.iter().any(Pattern::has_user);
        let in_file = self.acl_file.as_ref().is_some_and(AclFile::uses_names);
        !is_plain(&user.username) && (in_file || self.rules.iter().any(uses_name))
    }

    /// No user may have such a name.
    fn check_substitution(&self) -> Result<(), ConfigError> {
        for (number, user) in self.users.iter().enumerate() {
            if self.changes_filters(user) {
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
    fn check(&self, in_file: &HashMap<String, Password>, path: &str) -> Result<User, ConfigError> {
        if self.username.is_empty() {
            return Err(ConfigError::new(
                format!("{path}.username"),
                "got an empty name, expected at least one character",
            ));
        }
        let password = match (&self.password_hash, in_file.get(&self.username), self.enhanced_authentication) {
            (Some(hash), None, false) => Some(own_password(hash.expose(), path)?),
            (None, Some(password), false) => Some(password.clone()),
            (None, None, true) => None,
            _ => {
                return Err(ConfigError::new(
                    path,
                    "expected exactly one of `password_hash`, a line about the user in `password_file`, and \
                     \"enhanced_authentication\": true",
                ));
            }
        };
        Ok(User { username: self.username.clone(), password, groups: self.groups.clone() })
    }
}

fn own_password(hash: &str, path: &str) -> Result<Password, ConfigError> {
    Password::parse(hash).map_err(|problem| {
        ConfigError::new(
            format!("{path}.password_hash"),
            // The text itself is left out: it may be a password that was put here by mistake.
            format!(
                "{problem}; expected the output of `argon2 … -id -e`, $argon2id$v=19$m=…,t=…,p=…$salt$hash, or of \
                 `mosquitto_passwd` (the README says how to make one)"
            ),
        )
    })
}

fn read_passwords(file: &Path) -> Result<HashMap<String, Password>, ConfigError> {
    let text = files::read(file, "password_file")?;
    let place = |line| format!("password_file, line {line} of {}", file.display());
    let mut users = HashMap::new();
    for (name, password) in mosquitto::passwords(&text, place)? {
        if users.contains_key(&name) {
            let problem = format!("{} has the user `{name}` twice: expected each name once", file.display());
            return Err(ConfigError::new("password_file", problem));
        }
        users.insert(name, password);
    }
    Ok(users)
}

fn read_acl(file: &Path) -> Result<AclFile, ConfigError> {
    let text = files::read(file, "acl_file")?;
    AclFile::parse(&text, |line| format!("acl_file, line {line} of {}", file.display()))
}

impl RawRule {
    fn check(&self, path: &str) -> Result<Rule, ConfigError> {
        let subject = match (&self.user, &self.group, self.anyone) {
            (Some(user), None, None) => Subject::User(user.clone()),
            (None, Some(group), None) => Subject::Group(group.clone()),
            (None, None, Some(true)) => Subject::Anyone,
            _ => {
                return Err(ConfigError::new(
                    path,
                    "expected exactly one of \"user\": name, \"group\": name and \"anyone\": true",
                ));
            }
        };
        let (effect, actions) = match (&self.allow, &self.deny) {
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
        let topics = each(&format!("{path}.topics"), &self.topics, |text, path| topic_pattern(text, path))?;
        Ok(Rule { subject, effect, actions: actions.clone(), topics })
    }
}

fn topic_pattern(text: &str, path: &str) -> Result<Pattern, ConfigError> {
    let pattern = Pattern::parse(text).map_err(|problem| ConfigError::new(path, problem))?;
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

fn client_ids(text: &str, path: &str) -> Result<ClientIds, ConfigError> {
    ClientIds::parse(text).map_err(|problem| ConfigError::new(path, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Settings, ConfigError> {
        Settings::new(&plugin_api::config::read(json)?)
    }

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
            (r#"{"users": [{"username": "ann"}]}"#.into(), "users[0]", "exactly one of `password_hash`"),
            (r#"{"password_file": "/nowhere"}"#.into(), "password_file", "/nowhere: No such file"),
            (r#"{"acl_file": 1}"#.into(), "acl_file", "invalid type: integer `1`"),
            (
                r#"{"users": [{"username": "ann", "password_hash": "", "pasword": ""}]}"#.into(),
                "users[0].pasword",
                "unknown field `pasword`, expected one of `username`, `password_hash`, `enhanced_authentication`",
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
            let error = read(&json).err().unwrap_or_else(|| panic!("accepted: {json}"));
            assert_eq!(error.path(), path, "{json}: {error}");
            assert!(error.to_string().contains(problem), "{json}: {error}");
        }
    }

    #[test]
    fn a_password_put_in_place_of_its_hash_is_not_repeated() {
        let json = r#"{"users": [{"username": "ann", "password_hash": "$tr0ng-Secret"}]}"#;
        let error = read(json).err().expect("not a hash").to_string();
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
        assert!(read(&config("a/%c")).is_ok());
        let error = read(&config("a/%u")).err().expect("it would widen the rule");
        assert_eq!(error.path(), "users[0].username");
    }
}
