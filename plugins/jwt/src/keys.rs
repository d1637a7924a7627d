//! Keys, from the configuration and from key sets.

use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use plugin_api::config::{ConfigError, Secret};
use plugin_support::files;
use serde::Deserialize;

use crate::crypto::family;

/// The most keys that there may be: a token without the name of a key is tried with each that fits.
const KEYS_MAX: usize = 100;

/// A key, and the tokens that it is for.
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) key: DecodingKey,
}

#[plugin_api::config]
pub(crate) struct RawKey {
    /// What tokens are signed with: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA.
    #[schemars(with = "String")]
    algorithm: Algorithm,
    /// The tokens' `kid` that the key is for. Left out: any.
    kid: Option<String>,
    /// For HS256 to HS512: the secret that the issuer has too, 32 random bytes or more. Exactly one of `secret` and
    /// `secret_file`.
    secret: Option<Secret>,
    /// Path of a file with this secret; a line break at its end does not count. Read again within seconds after it has
    /// changed.
    pub(crate) secret_file: Option<PathBuf>,
    /// For the other algorithms: path of a file with the issuer's public key, in PEM. Read again within seconds after it has
    /// changed.
    pub(crate) public_key_file: Option<PathBuf>,
}

impl RawKey {
    pub(crate) fn check(&self, path: &str) -> Result<Key, ConfigError> {
        let is_secret = family(self.algorithm) == AlgorithmFamily::Hmac;
        let key = match (&self.secret, &self.secret_file, &self.public_key_file) {
            (Some(secret), None, None) if is_secret => shared(secret.expose(), &format!("{path}.secret"))?,
            (None, Some(file), None) if is_secret => {
                let at = format!("{path}.secret_file");
                // What an editor or `echo` puts at the end of a file is no part of it.
                shared(files::read(file, &at)?.trim_end_matches(['\r', '\n']), &at)?
            }
            (None, None, Some(file)) if !is_secret => {
                let at = format!("{path}.public_key_file");
                let pem = files::read(file, &at)?;
                let key = match family(self.algorithm) {
                    AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
                    AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem.as_bytes()),
                    _ => DecodingKey::from_ed_pem(pem.as_bytes()),
                };
                key.map_err(|error| {
                    let problem =
                        format!("{}: {error}; expected a public key for {:?} in PEM", file.display(), self.algorithm);
                    ConfigError::new(at, problem)
                })?
            }
            _ if is_secret => {
                return Err(ConfigError::new(
                    path,
                    "expected exactly one of `secret` and `secret_file` for HS256 to HS512",
                ));
            }
            _ => return Err(ConfigError::new(path, "expected `public_key_file`, and no secret, for this algorithm")),
        };
        Ok(Key { id: self.kid.clone(), algorithms: vec![self.algorithm], key })
    }
}

/// A secret that both sides have.
fn shared(secret: &str, at: &str) -> Result<DecodingKey, ConfigError> {
    if secret.is_empty() {
        return Err(ConfigError::new(at, "the secret is empty, expected 32 random bytes or more"));
    }
    Ok(DecodingKey::from_secret(secret.as_bytes()))
}

/// The keys of a key set (RFC 7517). Those of kinds that are not known are left out, as the RFC has it.
pub(crate) fn key_set(file: &Path) -> Result<Vec<Key>, ConfigError> {
    #[derive(Deserialize)]
    struct KeySet {
        keys: Vec<serde_json::Value>,
    }
    let wrong = |problem: String| ConfigError::new("jwks_file", format!("{}: {problem}", file.display()));
    let text = files::read(file, "jwks_file")?;
    let set: KeySet = serde_json::from_str(&text).map_err(|error| wrong(format!("it is no key set: {error}")))?;
    let keys: Vec<Key> = set.keys.into_iter().filter_map(|key| of_set(&serde_json::from_value(key).ok()?)).collect();
    if keys.is_empty() || keys.len() > KEYS_MAX {
        return Err(wrong(format!("it has {} keys for signatures, expected 1 to {KEYS_MAX}", keys.len())));
    }
    Ok(keys)
}

fn of_set(jwk: &Jwk) -> Option<Key> {
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let named = jwk.common.key_algorithm.and_then(|name| name.to_string().parse::<Algorithm>().ok());
    let algorithms = match (&jwk.algorithm, named) {
        (_, Some(named)) => vec![named],
        // It says that it is for something else.
        _ if jwk.common.key_algorithm.is_some() => return None,
        (AlgorithmParameters::RSA(_), None) => {
            use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
            vec![RS256, RS384, RS512, PS256, PS384, PS512]
        }
        (AlgorithmParameters::EllipticCurve(key), None) => match key.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        (AlgorithmParameters::OctetKeyPair(_), None) => vec![Algorithm::EdDSA],
        // A secret has to say what it is for.
        (AlgorithmParameters::OctetKey(_), None) => return None,
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    // A key that says that it is for an algorithm of another kind is for none.
    let algorithms: Vec<Algorithm> =
        algorithms.into_iter().filter(|algorithm| family(*algorithm) == key.family()).collect();
    (!algorithms.is_empty()).then(|| Key { id: jwk.common.key_id.clone(), algorithms, key })
}
