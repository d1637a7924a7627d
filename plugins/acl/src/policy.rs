//! Who may come in, and what they may publish and subscribe to.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use plugin_api::ReasonCode;
use plugin_api::config::ConfigError;
use plugin_support::files::Seen;
use plugin_support::permissions::Permissions;

use crate::config::{Config, Settings, User};
use crate::password::Password;
use crate::permissions::Grant;

/// Users, their passwords and their rules.
pub struct Policy {
    users: HashMap<String, Account>,
    /// What the passwords of unknown users are checked against: as expensive as a real check, and never right.
    decoy: Option<Password>,
    /// `None`: a client has to name a user.
    anonymous: Option<Grant>,
    warnings: Vec<String>,
    settings: Settings,
}

struct Account {
    /// `None`: another plugin says who it is, by enhanced authentication.
    password: Option<Password>,
    grant: Grant,
}

/// What somebody who wants to come in says.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// User Name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// Client Identifier; empty if the server has not chosen one yet.
    pub client_id: &'a str,
    /// The server has chosen the Client Identifier, or will.
    pub is_client_id_assigned: bool,
    /// Topic Name of the Will Message.
    pub will_topic: Option<&'a str>,
    /// It names an Authentication Method: before it is in, a plugin that knows the method has to agree.
    pub has_method: bool,
    /// It has shown a certificate with its User Name.
    pub has_certificate: bool,
}

/// Why somebody may not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No User Name was given, and anonymous clients are not allowed.
    Anonymous,
    /// There is no such user, or the Password is wrong or missing. It does not say which.
    Credentials,
    /// The Client Identifier is not among the ones that this client may have, or cannot be put into a Topic Filter
    /// although a rule about this client asks for that.
    ClientIdentifier,
    /// The client may not publish its Will Message.
    Will,
}

impl Refusal {
    /// What CONNACK says.
    #[must_use]
    pub fn reason_code(self) -> ReasonCode {
        match self {
            Self::Anonymous | Self::Will => ReasonCode::NOT_AUTHORIZED,
            Self::Credentials => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            Self::ClientIdentifier => ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "a User Name and a Password are required",
            Self::Credentials => "wrong User Name or Password",
            Self::ClientIdentifier => {
                "this Client Identifier is not allowed here: it may be reserved for another user, and it must not be \
                 empty, start with `$`, or contain `+`, `#` or `/`"
            }
            Self::Will => "the Will Message's topic may not be published to",
        })
    }
}

impl Policy {
    /// Checks the configuration, and reads the files that it names.
    ///
    /// # Errors
    /// Says where the fault is, what was got and what was expected.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let settings = Settings::new(config)?;
        let mut warnings = Vec::new();
        if settings.users.is_empty() && !settings.anonymous && !settings.certificates {
            warnings.push(
                "no users, no anonymous clients and no certificates: nobody can connect; give a configuration with --plugin-config"
                    .to_owned(),
            );
        }
        let passwords = settings.users.iter().filter_map(|user| user.password.as_ref());
        let mut costs: Vec<String> = passwords.clone().map(Password::cost).collect();
        costs.sort_unstable();
        costs.dedup();
        if costs.len() > 1 {
            warnings.push(format!(
                "password hashes of different costs ({}): the time until a refusal tells which users exist",
                costs.join(", ")
            ));
        }
        let decoy = passwords.clone().next().map(Password::decoy);
        let anonymous = settings.anonymous.then(|| Grant::new(&settings, None));
        let account = |user: &User| {
            let account = Account { password: user.password.clone(), grant: Grant::new(&settings, Some(user)) };
            (user.username.clone(), account)
        };
        let users = settings.users.iter().map(account).collect();
        Ok(Self { users, decoy, anonymous, warnings, settings })
    }

    /// The files that it was read from, as they were.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.settings.seen
    }

    /// What is allowed, but probably not meant.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Lets somebody in, and says what they may do.
    ///
    /// Takes as long as the password hash is expensive, for a user that does not exist as well.
    ///
    /// # Errors
    /// The reason for a refusal.
    pub fn connect(&self, login: &Login<'_>) -> Result<Arc<Permissions>, Refusal> {
        let permissions = match (login.username, login.password) {
            (None, None) => self.granted(self.anonymous.as_ref().ok_or(Refusal::Anonymous)?, login)?,
            (Some(username), _) if self.goes_by_certificate(login) => self.certified(username, login)?,
            (Some(username), Some(password)) => self.granted(self.authenticate(username, password)?, login)?,
            (Some(username), None) if login.has_method => self.granted(self.without_password(username)?, login)?,
            // Nothing is checked, for users that exist and for others, so that nothing is learnt from the time.
            _ => return Err(Refusal::Credentials),
        };
        match login.will_topic {
            Some(topic) if !permissions.may_publish(topic) => Err(Refusal::Will),
            _ => Ok(permissions),
        }
    }

    /// Whether it is the certificate that says who it is.
    pub(crate) fn goes_by_certificate(&self, login: &Login<'_>) -> bool {
        self.settings.certificates && login.has_certificate
    }

    /// What somebody may do who has been let in before.
    ///
    /// # Errors
    /// There is no such user any more, or not with this Client Identifier; or certificates do not count any more.
    pub(crate) fn permissions(&self, login: &Login<'_>) -> Result<Arc<Permissions>, Refusal> {
        match login.username {
            None => self.granted(self.anonymous.as_ref().ok_or(Refusal::Anonymous)?, login),
            Some(username) if self.goes_by_certificate(login) => self.certified(username, login),
            Some(_) if login.has_certificate => Err(Refusal::Credentials),
            Some(username) => self.granted(&self.users.get(username).ok_or(Refusal::Credentials)?.grant, login),
        }
    }

    /// For who has shown that it is this user, who need not be one of ours.
    fn certified(&self, username: &str, login: &Login<'_>) -> Result<Arc<Permissions>, Refusal> {
        if let Some(account) = self.users.get(username) {
            return self.granted(&account.grant, login);
        }
        let user = User { username: username.to_owned(), password: None, groups: Vec::new() };
        if self.settings.changes_filters(&user) {
            return Err(Refusal::Credentials);
        }
        self.granted(&Grant::new(&self.settings, Some(&user)), login)
    }

    fn granted(&self, grant: &Grant, login: &Login<'_>) -> Result<Arc<Permissions>, Refusal> {
        if !self.allows_client_id(login) {
            return Err(Refusal::ClientIdentifier);
        }
        grant.permissions(login.client_id)
    }

    fn authenticate(&self, username: &str, password: &[u8]) -> Result<&Grant, Refusal> {
        let account = self.users.get(username).filter(|account| account.password.is_some());
        let hash = account.and_then(|account| account.password.as_ref()).or(self.decoy.as_ref());
        let is_right = hash.is_some_and(|hash| hash.verify(password));
        account.filter(|_| is_right).map(|account| &account.grant).ok_or(Refusal::Credentials)
    }

    /// For who is to show by enhanced authentication that it is this user.
    fn without_password(&self, username: &str) -> Result<&Grant, Refusal> {
        let account = self.users.get(username).filter(|account| account.password.is_none());
        account.map(|account| &account.grant).ok_or(Refusal::Credentials)
    }

    /// Whoever gets the Client Identifier of another gets its session, with all that it has subscribed to.
    fn allows_client_id(&self, login: &Login<'_>) -> bool {
        let Some(allowed) = &self.settings.client_ids else {
            return true;
        };
        login.is_client_id_assigned || allowed.iter().any(|ids| ids.allow(login.username, login.client_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$QQCd8VPOryZiCF3MtwQnPTK7odKCaPcXJGplgNEuj1A";

    fn read(json: &str) -> Result<Policy, ConfigError> {
        Policy::new(&plugin_api::config::read(json)?)
    }

    /// Users `ann` (group `staff`) and `bob`, both with the password `secret`; the rest is given.
    fn policy(rest: &str) -> Policy {
        let json = format!(
            r#"{{"users": [
                {{"username": "ann", "password_hash": "{HASH}", "groups": ["staff"]}},
                {{"username": "bob", "password_hash": "{HASH}"}}], {rest}}}"#
        );
        read(&json).unwrap_or_else(|error| panic!("{error}: {json}"))
    }

    fn login<'a>(username: &'a str, client_id: &'a str) -> Login<'a> {
        Login {
            username: Some(username),
            password: Some(b"secret"),
            client_id,
            is_client_id_assigned: false,
            will_topic: None,
            has_method: false,
            has_certificate: false,
        }
    }

    fn anonymous(client_id: &str) -> Login<'_> {
        Login { username: None, password: None, ..login("", client_id) }
    }

    #[test]
    fn only_users_with_their_password_come_in() {
        let policy = policy(r#""rules": []"#);
        let check = |username, password, expected: Result<(), Refusal>| {
            let login = Login { username, password, ..login("", "c") };
            assert_eq!(policy.connect(&login).map(drop), expected, "{username:?} {password:?}");
        };
        check(Some("ann"), Some(b"secret"), Ok(()));
        check(Some("bob"), Some(b"secret"), Ok(()));
        check(Some("ann"), Some(b"Secret"), Err(Refusal::Credentials));
        check(Some("ann"), Some(b""), Err(Refusal::Credentials));
        check(Some("ann"), None, Err(Refusal::Credentials));
        check(Some("eve"), Some(b"secret"), Err(Refusal::Credentials));
        check(Some("eve"), None, Err(Refusal::Credentials));
        check(Some(""), Some(b"secret"), Err(Refusal::Credentials));
        check(None, Some(b"secret"), Err(Refusal::Credentials));
        check(None, None, Err(Refusal::Anonymous));
    }

    #[test]
    fn who_has_no_password_here_comes_in_by_enhanced_authentication_only() {
        let json = format!(
            r#"{{"users": [{{"username": "ann", "enhanced_authentication": true}},
                           {{"username": "bob", "password_hash": "{HASH}"}}]}}"#
        );
        let policy = read(&json).expect("valid");
        for (username, password, has_method, expected) in [
            ("ann", None, true, true),
            ("ann", None, false, false),
            ("ann", Some(&b"secret"[..]), true, false),
            ("ann", Some(b""), false, false),
            ("bob", None, true, false),
            ("bob", Some(b"secret"), true, true),
            ("eve", None, true, false),
        ] {
            let login = Login { password, has_method, ..login(username, "c") };
            assert_eq!(policy.connect(&login).is_ok(), expected, "{username} {password:?} {has_method}");
        }
    }

    #[test]
    fn nobody_comes_in_without_a_configuration_and_the_operator_is_told() {
        let policy = read("{}").expect("an empty configuration is valid");
        assert_eq!(policy.connect(&login("ann", "c")), Err(Refusal::Credentials));
        assert_eq!(policy.connect(&anonymous("c")), Err(Refusal::Anonymous));
        assert!(policy.warnings()[0].contains("nobody can connect"));
    }

    #[test]
    fn hashes_of_different_costs_give_a_warning() {
        assert!(policy(r#""rules": []"#).warnings().is_empty());
        let cheaper = HASH.replace("m=8", "m=16");
        let json = format!(
            r#"{{"users": [{{"username": "a", "password_hash": "{HASH}"}},
                           {{"username": "b", "password_hash": "{cheaper}"}}]}}"#
        );
        let policy = read(&json).expect("valid");
        assert!(policy.warnings()[0].contains("m=16,t=1,p=1, argon2id v=19 m=8"), "{:?}", policy.warnings());
    }

    #[test]
    fn an_unknown_user_takes_as_long_as_a_known_one() {
        // A cost that is well above the noise of a loaded machine; no more is claimed than that the check is not skipped.
        let hash = HASH.replace("m=8,t=1", "m=2048,t=4");
        let json = format!(r#"{{"users": [{{"username": "ann", "password_hash": "{hash}"}}]}}"#);
        let policy = read(&json).expect("valid");
        let fastest = |username: &str| {
            (0..5)
                .map(|_| {
                    let start = std::time::Instant::now();
                    assert!(policy.connect(&login(username, "c")).is_err());
                    start.elapsed()
                })
                .min()
                .unwrap_or_default()
        };
        let (known, unknown) = (fastest("ann"), fastest("eve"));
        assert!(unknown * 2 > known, "known {known:?}, unknown {unknown:?}");
    }

    #[test]
    fn rules_apply_to_their_subject_and_deny_wins_wherever_it_stands() {
        let policy = policy(
            r#""anonymous": true, "rules": [
                {"anyone": true, "deny": ["publish"], "topics": ["a/secret"]},
                {"user": "bob", "allow": ["publish", "subscribe"], "topics": ["bob/#"]},
                {"group": "staff", "allow": ["publish"], "topics": ["a/+", "b"]},
                {"anyone": true, "allow": ["publish"], "topics": ["hello"]}]"#,
        );
        let ann = policy.connect(&login("ann", "c")).expect("the password is right");
        let bob = policy.connect(&login("bob", "c")).expect("the password is right");
        let nobody = policy.connect(&anonymous("c")).expect("anonymous clients are allowed");
        for (topic, expected) in [
            ("a/x", [true, false, false]),
            ("a/secret", [false, false, false]),
            ("a/x/y", [false, false, false]),
            ("b", [true, false, false]),
            ("bob", [false, true, false]),
            ("bob/x", [false, true, false]),
            ("hello", [true, true, true]),
            ("$SYS/x", [false, false, false]),
        ] {
            let got = [&ann, &bob, &nobody].map(|permissions| permissions.may_publish(topic));
            assert_eq!(got, expected, "{topic}");
        }
        assert!(bob.may_subscribe("bob/+") && !ann.may_subscribe("a/x"), "publishing is not subscribing");
    }

    #[test]
    fn a_subscription_is_allowed_if_it_is_covered_and_nothing_in_it_is_denied() {
        let policy = policy(
            r#""rules": [
                {"anyone": true, "allow": ["subscribe"], "topics": ["a/+/c", "b/#", "$SYS/broker/#"]},
                {"anyone": true, "deny": ["subscribe"], "topics": ["b/secret/#", "b/+/key"]}]"#,
        );
        let permissions = policy.connect(&login("ann", "c")).expect("the password is right");
        for (filter, expected) in [
            ("a/x/c", true),
            ("a/+/c", true),
            ("a/#", false),
            ("a/+/+", false),
            ("+/x/c", false),
            ("#", false),
            ("b", true),
            ("b/x", true),
            ("b/secret", false),
            ("b/secret/x", false),
            ("b/+", false),
            ("b/#", false),
            ("b/x/key", false),
            ("b/x/y", true),
            ("b/x/+", false),
            ("$SYS/broker/+", true),
            ("$SYS/#", false),
        ] {
            assert_eq!(permissions.may_subscribe(filter), expected, "{filter}");
        }
    }

    #[test]
    fn names_are_put_into_filters_and_cannot_widen_them() {
        let policy = policy(
            r#""anonymous": true, "rules": [
                {"anyone": true, "allow": ["publish"], "topics": ["out/%u/#", "all/x"]},
                {"user": "bob", "allow": ["subscribe"], "topics": ["in/%c", "%c/#"]},
                {"user": "bob", "deny": ["publish"], "topics": ["out/%u/%c"]}]"#,
        );
        let ann = policy.connect(&login("ann", "+/#")).expect("no rule about ann has %c");
        assert!(ann.may_publish("out/ann/x") && !ann.may_publish("out/bob/x"));
        let bob = policy.connect(&login("bob", "b1")).expect("a plain Client Identifier");
        assert!(bob.may_subscribe("in/b1") && bob.may_subscribe("b1/#") && !bob.may_subscribe("in/b2"));
        assert!(bob.may_publish("out/bob/x") && !bob.may_publish("out/bob/b1"));
        for client_id in ["+", "#", "b/#", "a/b", "$SYS", ""] {
            assert_eq!(policy.connect(&login("bob", client_id)), Err(Refusal::ClientIdentifier), "{client_id}");
        }
        // Anonymous clients have no name: a rule with `%u` does not speak of them.
        let nobody = policy.connect(&anonymous("x")).expect("anonymous clients are allowed");
        assert!(nobody.may_publish("all/x") && !nobody.may_publish("out//x") && !nobody.may_publish("out/%u/x"));
    }

    #[test]
    fn client_identifiers_can_be_tied_to_users() {
        let policy = policy(r#""anonymous": true, "client_ids": ["%u", "%u:*", "guest-*"]"#);
        for (username, client_id, expected) in [
            (Some("ann"), "ann", true),
            (Some("ann"), "ann:7", true),
            (Some("ann"), "guest-1", true),
            (Some("ann"), "bob", false),
            (Some("ann"), "annie", false),
            (None, "guest-1", true),
            (None, "ann", false),
            (None, ":7", false),
        ] {
            let login = match username {
                Some(username) => login(username, client_id),
                None => anonymous(client_id),
            };
            assert_eq!(policy.connect(&login).is_ok(), expected, "{username:?} as {client_id}");
        }
        let assigned = Login { is_client_id_assigned: true, ..login("ann", "auto-1234") };
        assert!(policy.connect(&assigned).is_ok());
    }

    #[test]
    fn a_will_has_to_be_allowed_at_connect() {
        let policy = policy(r#""rules": [{"anyone": true, "allow": ["publish"], "topics": ["status/%c"]}]"#);
        for (topic, expected) in [("status/c1", Ok(())), ("status/c2", Err(Refusal::Will))] {
            let login = Login { will_topic: Some(topic), ..login("ann", "c1") };
            assert_eq!(policy.connect(&login).map(drop), expected, "{topic}");
        }
    }

    #[test]
    fn who_has_shown_a_certificate_with_its_name_needs_no_password() {
        let rest = r#""rules": [{"user": "ann", "allow": ["publish"], "topics": ["ann/#"]},
            {"anyone": true, "allow": ["publish"], "topics": ["%u/#"]}], "client_ids": ["%u"]"#;
        let certified =
            |username, client_id| Login { password: None, has_certificate: true, ..login(username, client_id) };
        let off = policy(rest);
        assert_eq!(off.connect(&certified("ann", "ann")).unwrap_err(), Refusal::Credentials);
        let on = policy(&format!(r#""certificates": true, {rest}"#));
        for (username, client_id, expected) in [
            ("ann", "ann", Ok(true)),
            // Nobody's password is asked for, and nobody has to be known.
            ("pump-7", "pump-7", Ok(true)),
            ("pump-7", "ann", Err(Refusal::ClientIdentifier)),
            // It would be another filter.
            ("+", "+", Err(Refusal::Credentials)),
        ] {
            let topic = format!("{username}/t");
            let permissions = on.connect(&certified(username, client_id));
            let may = permissions.map(|permissions| permissions.may_publish(&topic) && !permissions.may_publish("x/t"));
            assert_eq!(may, expected, "{username} {client_id}");
            // Later, by other rules.
            assert_eq!(on.permissions(&certified(username, client_id)).is_ok(), expected.is_ok());
            assert_eq!(off.permissions(&certified(username, client_id)).unwrap_err(), Refusal::Credentials);
        }
        // Who has shown none goes by the password.
        assert!(on.connect(&login("ann", "ann")).is_ok());
        assert_eq!(on.connect(&login("pump-7", "pump-7")).unwrap_err(), Refusal::Credentials);
    }
}
