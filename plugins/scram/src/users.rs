//! Who may come in: users, and what proves that they know their password.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plugin_api::config::{ConfigError, Secret};
use ring::{digest, hmac, pbkdf2};

/// Bytes of SHA-256.
pub(crate) const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;

/// The fewest rounds that RFC 7677 allows.
const ROUNDS_MIN: u32 = 4096;

/// Bytes of the salt of a user that does not exist.
const DECOY_SALT_BYTES: usize = 16;

/// What the server keeps of a password. It is enough to check who knows that, and not to pass for somebody who does.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub(crate) rounds: NonZeroU32,
    pub(crate) salt: Vec<u8>,
    pub(crate) stored_key: [u8; KEY_BYTES],
    pub(crate) server_key: [u8; KEY_BYTES],
}

impl Verifier {
    /// Reads `SCRAM-SHA-256$rounds:salt$StoredKey:ServerKey`, the three of them in base64. The error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let expected = || "expected SCRAM-SHA-256$rounds:salt$StoredKey:ServerKey".to_owned();
        let rest = text.strip_prefix("SCRAM-SHA-256$").ok_or_else(expected)?;
        let (first, keys) = rest.split_once('$').ok_or_else(expected)?;
        let (rounds, salt) = first.split_once(':').ok_or_else(expected)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or_else(expected)?;
        let number = rounds.parse::<NonZeroU32>().ok().filter(|rounds| rounds.get() >= ROUNDS_MIN);
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| "a part of it is not base64".to_owned());
        let key = |text: &str| {
            let bytes = decode(text)?;
            bytes.try_into().map_err(|bytes: Vec<u8>| format!("a key has {} bytes, expected {KEY_BYTES}", bytes.len()))
        };
        let verifier = Self {
            rounds: number.ok_or_else(|| format!("got `{rounds}` rounds, expected at least {ROUNDS_MIN}"))?,
            salt: decode(salt)?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        };
        if verifier.salt.is_empty() {
            return Err("the salt is empty".into());
        }
        Ok(verifier)
    }

    /// Makes one of a password, as RFC 5802 has it.
    ///
    /// # Errors
    /// The password is none that SASLprep allows. The text does not repeat it.
    pub fn new(password: &str, salt: &[u8], rounds: NonZeroU32) -> Result<Self, &'static str> {
        let password = prepared(password)?;
        let mut salted = [0; KEY_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.as_bytes(), &mut salted);
        let client_key = sign(&salted, b"Client Key");
        Ok(Self { rounds, salt: salt.into(), stored_key: hash(&client_key), server_key: sign(&salted, b"Server Key") })
    }
}

/// As it is written in the configuration.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|bytes| STANDARD.encode(bytes));
        write!(f, "SCRAM-SHA-256${}:{salt}${stored}:{server}", self.rounds)
    }
}

/// A name or a password by SASLprep (RFC 4013), as it is compared and hashed. The error says why there is none.
pub(crate) fn prepared(text: &str) -> Result<Cow<'_, str>, &'static str> {
    match stringprep::saslprep(text) {
        Ok(prepared) if prepared.is_empty() => Err("expected at least one character that can be seen"),
        Ok(prepared) => Ok(prepared),
        Err(_) => Err("it has characters that SASLprep (RFC 4013) does not allow, or not beside each other"),
    }
}

/// HMAC-SHA-256.
pub(crate) fn sign(key: &[u8], message: &[u8]) -> [u8; KEY_BYTES] {
    array(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref())
}

/// SHA-256.
pub(crate) fn hash(message: &[u8]) -> [u8; KEY_BYTES] {
    array(digest::digest(&digest::SHA256, message).as_ref())
}

fn array(bytes: &[u8]) -> [u8; KEY_BYTES] {
    let mut array = [0; KEY_BYTES];
    array.copy_from_slice(bytes);
    array
}

/// Users by their name.
pub struct Users {
    users: HashMap<String, Verifier>,
    /// The same for the same users, so that an unknown one has the same salt each time.
    decoy_key: [u8; KEY_BYTES],
    decoy_rounds: NonZeroU32,
    pub(crate) others: Others,
}

/// What becomes of clients that name no Authentication Method.
#[plugin_api::config]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Others {
    /// They do not come in.
    #[default]
    Refuse,
    /// Another plugin decides about them.
    Allow,
}

/// Who may come in with SCRAM-SHA-256, and what becomes of others.
#[plugin_api::config]
pub struct Config {
    /// Who may come in.
    users: Vec<RawUser>,
    /// What becomes of clients that name no Authentication Method. Left out: `"refuse"`.
    #[serde(default)]
    others: Others,
}

#[plugin_api::config]
struct RawUser {
    /// The name in the client's first message: not empty, each once.
    username: String,
    /// What shows that somebody knows the password: `SCRAM-SHA-256$rounds:salt$StoredKey:ServerKey`, with 4096 rounds or
    /// more.
    verifier: Secret,
}

impl Users {
    /// Checks the configuration.
    ///
    /// # Errors
    /// Says where the fault is, what was got and what was expected.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let mut users = HashMap::new();
        let mut decoy = (hash(b""), NonZeroU32::MIN.saturating_add(ROUNDS_MIN - 1));
        for (number, RawUser { username, verifier }) in config.users.into_iter().enumerate() {
            let verifier = Verifier::parse(verifier.expose()).map_err(|problem| {
                // What stands there is left out: it may be a password.
                ConfigError::new(
                    format!("users[{number}].verifier"),
                    format!("{problem}; the README says how to make one"),
                )
            })?;
            if number == 0 {
                decoy = (sign(&verifier.server_key, &verifier.salt), verifier.rounds);
            }
            let wrong = |problem| Err(ConfigError::new(format!("users[{number}].username"), problem));
            let username = match prepared(&username) {
                Ok(name) => name.into_owned(),
                Err(problem) => return wrong(format!("got {username:?}: {problem}")),
            };
            if users.contains_key(&username) {
                return wrong(format!("there is already a user `{username}`: expected each name once"));
            }
            users.insert(username, verifier);
        }
        Ok(Self { users, decoy_key: decoy.0, decoy_rounds: decoy.1, others: config.others })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether nobody can come in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// What the user has to know. Of one that does not exist something that looks the same and that nobody knows.
    pub(crate) fn verifier(&self, username: &str) -> Verifier {
        self.users.get(username).cloned().unwrap_or_else(|| {
            let secret = sign(&self.decoy_key, username.as_bytes());
            Verifier {
                rounds: self.decoy_rounds,
                salt: secret[..DECOY_SALT_BYTES].into(),
                stored_key: sign(&secret, b"Stored Key"),
                server_key: sign(&secret, b"Server Key"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the password `pencil`, as PostgreSQL writes it; with the salt of RFC 7677.
    const PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                                     wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn read(json: &str) -> Result<Users, ConfigError> {
        plugin_api::config::read(json).and_then(Users::new)
    }

    #[test]
    fn a_verifier_is_what_a_password_comes_to() {
        let rounds = NonZeroU32::new(4096).expect("not zero");
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let made = |password| Verifier::new(password, &salt, rounds);
        assert_eq!(made("pencil").map(|made| made.to_string()), Ok(PENCIL.to_owned()));
        assert!(Verifier::parse(PENCIL).ok() == made("pencil").ok());
        // Written in another way, by a keyboard that does so: full width, with a soft hyphen.
        assert!(made("ｐｅｎ\u{ad}ｃｉｌ") == made("pencil"));
        assert!(made("a\u{7}b").is_err() && made("").is_err());
    }

    /// The examples of RFC 4013, section 3, and one of each rule besides.
    #[test]
    fn names_are_prepared() {
        for (text, expected) in [
            ("I\u{ad}X", Some("IX")),
            ("user", Some("user")),
            ("USER", Some("USER")),
            ("\u{aa}", Some("a")),
            ("\u{2168}", Some("IX")),
            ("\u{7}", None),
            ("\u{627}1", None),
            ("a\u{a0}b", Some("a b")),
            ("\u{ad}", None),
            ("\u{e000}", None),
        ] {
            assert_eq!(prepared(text).ok().as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn faults_are_named_with_their_place_and_without_what_may_be_a_password() {
        let user = |verifier: &str| format!(r#"{{"users": [{{"username": "ann", "verifier": "{verifier}"}}]}}"#);
        for (json, path, problem) in [
            ("{}".to_owned(), ".", "missing field `users`"),
            (user("s3cret"), "users[0].verifier", "expected SCRAM-SHA-256$rounds"),
            (user(&PENCIL.replace("4096", "400")), "users[0].verifier", "got `400` rounds, expected at least 4096"),
            (user(&PENCIL.replace("W22", "?")), "users[0].verifier", "not base64"),
            (user(&PENCIL.replace("WG5d", "")), "users[0].verifier", "a key has 29 bytes, expected 32"),
            (user(PENCIL).replace("\"ann\"", "\"\""), "users[0].username", "at least one character"),
            (
                user(PENCIL).replace("ann", "\\u0007"),
                "users[0].username",
                "got \"\\u{7}\": it has characters that SASLprep",
            ),
            (user(PENCIL).replace("\"ann\"", "\"ann\", \"password\": 1"), "users[0].password", "unknown field"),
            (
                r#"{"users": [{"username": "ann", "verifier": 123}]}"#.to_owned(),
                "users[0].verifier",
                "expected a string",
            ),
        ] {
            let error = read(&json).err().unwrap_or_else(|| panic!("accepted: {json}"));
            assert_eq!(error.path(), path, "{json}: {error}");
            let error = error.to_string();
            assert!(error.contains(problem) && !error.contains("s3cret"), "{json}: {error}");
        }
    }

    #[test]
    fn who_does_not_exist_looks_the_same_each_time() {
        let json = format!(r#"{{"users": [{{"username": "ann", "verifier": "{PENCIL}"}}]}}"#);
        let users = || read(&json).unwrap_or_else(|error| panic!("{error}"));
        assert!(users().verifier("eve") == users().verifier("eve"));
        assert!(users().verifier("eve") != users().verifier("eva"));
        assert_eq!(users().verifier("eve").rounds, users().verifier("ann").rounds);
    }
}
