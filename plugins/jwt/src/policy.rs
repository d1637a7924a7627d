//! Which tokens are good, and what their bearers may do.

use std::fmt;
use std::path::PathBuf;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use plugin_api::config::ConfigError;
use plugin_api::{ReasonCode, topic};
use plugin_support::config::each;
use plugin_support::files::Seen;
use plugin_support::pattern::{ClientIds, Pattern, is_plain};
use plugin_support::permissions::{Permissions, Tier};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::crypto;
use crate::keys::{Key, RawKey, key_set};

/// The most Topic Filters of a token.
const FILTERS_MAX: usize = 1000;

/// What the configuration says.
pub struct Policy {
    keys: Vec<Key>,
    validation: Validation,
    pub(crate) token_in: TokenIn,
    username_claim: String,
    check_username: bool,
    acl_claim: String,
    client_ids: Option<Vec<ClientIds>>,
    rules: Vec<Rule>,
}

/// Where in CONNECT the token stands.
#[plugin_api::config]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TokenIn {
    #[default]
    Password,
    Username,
}

struct Rule {
    publish: bool,
    subscribe: bool,
    deny: bool,
    topic: Pattern,
}

/// Who wants to come in, or to stay.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// The token.
    pub token: Option<&'a str>,
    /// User Name, if the token does not stand there.
    pub username: Option<&'a str>,
    /// Client Identifier.
    pub client_id: &'a str,
    /// The server has chosen the Client Identifier, or will.
    pub is_client_id_assigned: bool,
    /// Topic Name of the Will Message.
    pub will_topic: Option<&'a str>,
}

/// What somebody may do who has shown a good token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// What it may publish and subscribe to.
    pub permissions: Permissions,
    /// The claim that says who it is, if there is one.
    pub user: Option<String>,
    /// Until when, in seconds since 1970, the leeway included. `None`: for ever.
    pub expires: Option<u64>,
}

/// Why somebody may not come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is none, or it is not good. The text says why.
    Token(String),
    /// The User Name is not that of the token.
    Username,
    /// The Client Identifier is not among those of the bearer, or cannot be put into a Topic Filter that asks for that.
    ClientIdentifier,
    /// The Will Message may not be published.
    Will,
    /// It is a good token, and not that of the bearer who has connected.
    OtherBearer,
}

impl Refusal {
    /// What CONNACK says.
    #[must_use]
    pub fn reason_code(&self) -> ReasonCode {
        match self {
            Self::Token(_) | Self::Username => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            Self::ClientIdentifier => ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
            Self::Will | Self::OtherBearer => ReasonCode::NOT_AUTHORIZED,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(problem) => f.write_str(problem),
            Self::Username => f.write_str("the User Name is not that of the token"),
            Self::ClientIdentifier => f.write_str(
                "this Client Identifier is not allowed here: it may be reserved for another user, and it must not be \
                 empty, start with `$`, or contain `+`, `#` or `/`",
            ),
            Self::Will => f.write_str("the Will Message's topic may not be published to"),
            Self::OtherBearer => f.write_str("the token is another bearer's than the one who has connected"),
        }
    }
}

/// Which tokens are good, and what their bearers may do.
#[plugin_api::config]
pub struct Config {
    /// Keys that tokens are signed with. There has to be one here or in `jwks_file`. Left out: none.
    #[serde(default)]
    keys: Vec<RawKey>,
    /// Path of a key set (RFC 7517) with 1 to 100 keys for signatures; read again within seconds after it has changed. Left
    /// out: none.
    jwks_file: Option<PathBuf>,
    /// What `iss` of a token has to be. Left out: it is not looked at.
    issuer: Option<String>,
    /// What `aud` of a token has to be, or to contain. Left out: it is not looked at.
    audience: Option<String>,
    /// How far clocks may differ, in seconds: as much later `exp` counts, and as much earlier `nbf`. Left out: 5.
    #[serde(default = "leeway_secs")]
    leeway_secs: u64,
    /// Whether a token without `exp` is refused. Left out: `true`.
    #[serde(default = "yes")]
    require_expiry: bool,
    /// Where in CONNECT the token stands. Left out: `"password"`.
    #[serde(default)]
    token_in: TokenIn,
    /// The claim that `%u` stands for. Left out: `"sub"`.
    #[serde(default = "sub")]
    username_claim: String,
    /// Whether the User Name has to be the same as that claim. Left out: `false`, whatever stands there.
    #[serde(default)]
    check_username: bool,
    /// The claim with what this bearer may do beyond `rules`, of the same form. Left out: `"acl"`.
    #[serde(default = "acl")]
    acl_claim: String,
    /// The Client Identifiers that clients may choose: `%u` is replaced, `*` at the end is any ending. Left out: any.
    client_ids: Option<Vec<String>>,
    /// What every bearer may do. Left out: nothing.
    #[serde(default)]
    rules: RawRules,
}

/// Topic Filters, in the configuration and in tokens.
#[plugin_api::config]
#[derive(Default)]
struct RawRules {
    /// Topic Filters of what may be published; in them `%u`, `%c` (Client Identifier) and `%%` are replaced. Left out: none.
    #[serde(default, alias = "pub")]
    publish: Vec<String>,
    /// Topic Filters of what may be subscribed to. Left out: none.
    #[serde(default, alias = "sub")]
    subscribe: Vec<String>,
    /// Topic Filters of what may be published and subscribed to. Left out: none.
    #[serde(default, alias = "all")]
    both: Vec<String>,
    /// Topic Filters of what may be neither published nor subscribed to, whatever else allows it. Left out: none.
    #[serde(default)]
    deny: Vec<String>,
}

fn leeway_secs() -> u64 {
    5
}

fn yes() -> bool {
    true
}

fn sub() -> String {
    "sub".into()
}

fn acl() -> String {
    "acl".into()
}

impl Policy {
    /// Checks the configuration, and reads the files that it names. Their marks are from before.
    ///
    /// # Errors
    /// Says where the fault is, what was got and what was expected.
    pub fn new(config: &Config) -> Result<(Self, Seen), ConfigError> {
        crypto::install();
        let files =
            config.keys.iter().flat_map(|key| [&key.secret_file, &key.public_key_file]).chain([&config.jwks_file]);
        let seen = Seen::now(files.flatten().cloned().collect());
        let mut keys = each("keys", &config.keys, RawKey::check)?;
        if let Some(file) = &config.jwks_file {
            keys.extend(key_set(file)?);
        }
        if keys.is_empty() {
            return Err(ConfigError::new(".", "expected at least one key: in `keys`, or `jwks_file`"));
        }
        let parse = |text: &String, path: &str| ClientIds::parse(text).map_err(|error| ConfigError::new(path, error));
        let policy = Self {
            keys,
            validation: validation(config),
            token_in: config.token_in,
            username_claim: config.username_claim.clone(),
            check_username: config.check_username,
            acl_claim: config.acl_claim.clone(),
            client_ids: config.client_ids.as_ref().map(|texts| each("client_ids", texts, parse)).transpose()?,
            rules: config.rules.check("rules.")?,
        };
        Ok((policy, seen))
    }

    /// Lets somebody in, and says what they may do.
    ///
    /// # Errors
    /// The reason for a refusal.
    pub fn connect(&self, login: &Login<'_>) -> Result<Grant, Refusal> {
        let token = login.token.ok_or_else(|| Refusal::Token("a token is required".into()))?;
        let claims = self.verify(token)?;
        let user = claims.get(&self.username_claim).and_then(Value::as_str);
        if self.check_username && (user.is_none() || user != login.username) {
            return Err(Refusal::Username);
        }
        if let Some(allowed) = &self.client_ids
            && !login.is_client_id_assigned
            && !allowed.iter().any(|ids| ids.allow(user, login.client_id))
        {
            return Err(Refusal::ClientIdentifier);
        }
        let own = match claims.get(&self.acl_claim) {
            None | Some(Value::Null) => Vec::new(),
            Some(claim) => rules_of_token(claim)
                .map_err(|error| Refusal::Token(format!("its claim `{}` is wrong: {error}", self.acl_claim)))?,
        };
        let permissions = permissions(self.rules.iter().chain(&own), user, login.client_id)?;
        if login.will_topic.is_some_and(|topic| !permissions.may_publish(topic)) {
            return Err(Refusal::Will);
        }
        // Whole seconds: it is not valid in the last fraction of one.
        let seconds = |value: &Value| value.as_u64().or_else(|| value.as_f64().map(|seconds| seconds as u64));
        let expires = claims.get("exp").and_then(seconds).map(|exp| exp.saturating_add(self.validation.leeway));
        Ok(Grant { permissions, user: user.map(str::to_owned), expires })
    }

    fn verify(&self, token: &str) -> Result<Map<String, Value>, Refusal> {
        let refusal = |kind: &ErrorKind| {
            Refusal::Token(match kind {
                ErrorKind::ExpiredSignature => "the token has expired".into(),
                ErrorKind::ImmatureSignature => "the token is not valid yet".into(),
                ErrorKind::InvalidIssuer => "the token is of another issuer".into(),
                ErrorKind::InvalidAudience => "the token is for another audience".into(),
                ErrorKind::MissingRequiredClaim(claim) => format!("the token has no claim `{claim}`"),
                _ => "this is no token that is known here".into(),
            })
        };
        let header = decode_header(token).map_err(|error| refusal(error.kind()))?;
        let fits = |key: &&Key| {
            let names = (&key.id, &header.kid);
            key.algorithms.contains(&header.alg) && !matches!(names, (Some(id), Some(kid)) if id != kid)
        };
        let mut found = refusal(&ErrorKind::InvalidSignature);
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        for key in self.keys.iter().filter(fits) {
            match decode::<Map<String, Value>>(token, &key.key, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => {}
                // The signature is right: no other key says more.
                Err(error) => found = refusal(error.kind()),
            }
        }
        Err(found)
    }
}

fn validation(config: &Config) -> Validation {
    let Config { issuer, audience, .. } = config;
    let mut validation = Validation::default();
    validation.leeway = config.leeway_secs;
    validation.validate_nbf = true;
    validation.validate_aud = audience.is_some();
    let required = [("exp", config.require_expiry), ("iss", issuer.is_some()), ("aud", audience.is_some())];
    let required: Vec<&str> = required.into_iter().filter_map(|(claim, is)| is.then_some(claim)).collect();
    validation.set_required_spec_claims(&required);
    issuer.iter().for_each(|issuer| validation.set_issuer(&[issuer]));
    audience.iter().for_each(|audience| validation.set_audience(&[audience]));
    validation
}

impl RawRules {
    /// `at` stands in front of the place of a fault.
    fn check(&self, at: &str) -> Result<Vec<Rule>, ConfigError> {
        let lists = [
            ("publish", &self.publish, (true, false, false)),
            ("subscribe", &self.subscribe, (false, true, false)),
            ("both", &self.both, (true, true, false)),
            ("deny", &self.deny, (true, true, true)),
        ];
        let mut rules = Vec::new();
        for (name, filters, (publish, subscribe, deny)) in lists {
            rules.extend(each(&format!("{at}{name}"), filters, |text, path| {
                let topic = Pattern::parse(text).map_err(|problem| ConfigError::new(path, problem))?;
                let example = topic.with_user("x").with_client("x");
                if topic::is_valid_filter(&example) && topic::split_share(&example) == topic::Share::None {
                    return Ok(Rule { publish, subscribe, deny, topic });
                }
                Err(ConfigError::new(path, format!("got `{text}`, expected a Topic Filter, without `$share/…`")))
            })?);
        }
        Ok(rules)
    }
}

fn rules_of_token(claim: &Value) -> Result<Vec<Rule>, String> {
    let raw = RawRules::deserialize(claim).map_err(|error| error.to_string())?;
    let rules = raw.check("").map_err(|error| error.to_string())?;
    if rules.len() > FILTERS_MAX {
        return Err(format!("{} Topic Filters, expected at most {FILTERS_MAX}", rules.len()));
    }
    Ok(rules)
}

fn permissions<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    user: Option<&str>,
    client_id: &str,
) -> Result<Permissions, Refusal> {
    let mut tier = Tier::default();
    for rule in rules {
        let pattern = match user {
            Some(user) if rule.topic.has_user() && !is_plain(user) => {
                return Err(Refusal::Token(format!("`{user}` cannot be put into a Topic Filter, as a rule asks for")));
            }
            Some(user) => rule.topic.with_user(user),
            // A rule with a name says nothing about those who have none.
            None if rule.topic.has_user() => continue,
            None => rule.topic.clone(),
        };
        if pattern.has_client() && !is_plain(client_id) {
            return Err(Refusal::ClientIdentifier);
        }
        let filter = pattern.with_client(client_id);
        for (counts, access) in [(rule.publish, &mut tier.publish), (rule.subscribe, &mut tier.subscribe)] {
            if counts {
                let filters = if rule.deny { &mut access.deny } else { &mut access.allow };
                filters.push(filter.as_str().into());
            }
        }
    }
    Ok(Permissions::new([tier]))
}

#[cfg(test)]
mod tests;
