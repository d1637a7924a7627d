//! Password hashes: Argon2, and those of Mosquitto.

use std::num::NonZeroU32;

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, pbkdf2};
use subtle::ConstantTimeEq;

/// Most memory that one check may take, in KiB (1 GiB): a mistyped cost must not take the broker's memory away.
const MEMORY_KIB_MAX: u32 = 1 << 20;

/// Most passes over the memory.
const PASSES_MAX: u32 = 100;

/// Most rounds of PBKDF2: about a second.
const ROUNDS_MAX: u32 = 1_000_000;

/// Bytes of SHA-512, which Mosquitto's hashes have.
const SHA512_BYTES: usize = digest::SHA512_OUTPUT_LEN;

/// A hash that was found to be complete and affordable.
#[derive(Clone)]
pub(crate) enum Password {
    Argon2(Box<PasswordHash>),
    /// `$7$` of `mosquitto_passwd`: PBKDF2 with HMAC-SHA-512.
    Pbkdf2 {
        rounds: NonZeroU32,
        salt: Vec<u8>,
        hash: Vec<u8>,
    },
    /// `$6$` of `mosquitto_passwd`, before 2.0: SHA-512 of the password and the salt.
    Sha512 {
        salt: Vec<u8>,
        hash: Vec<u8>,
    },
}

impl Password {
    /// Reads a PHC string of Argon2, `$argon2id$v=19$m=…,t=…,p=…$salt$hash`, or what `mosquitto_passwd` writes behind the
    /// name: `$7$rounds$salt$hash`, `$6$salt$hash`. The error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('$').collect();
        match parts[..] {
            ["", "7", rounds, salt, hash] => {
                let number = rounds.parse::<NonZeroU32>().ok().filter(|rounds| rounds.get() <= ROUNDS_MAX);
                let rounds = number.ok_or_else(|| format!("got {rounds} rounds, expected 1 to {ROUNDS_MAX}"))?;
                Ok(Self::Pbkdf2 { rounds, salt: decode(salt)?, hash: decode_hash(hash)? })
            }
            ["", "6", salt, hash] => Ok(Self::Sha512 { salt: decode(salt)?, hash: decode_hash(hash)? }),
            _ => argon2(text).map(|hash| Self::Argon2(Box::new(hash))),
        }
    }

    /// Whether this is the password. It costs what the hash's parameters say, right or wrong.
    pub(crate) fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Argon2(hash) => Argon2::default().verify_password(password, &**hash).is_ok(),
            Self::Pbkdf2 { rounds, salt, hash } => {
                pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA512, *rounds, salt, password, hash).is_ok()
            }
            Self::Sha512 { salt, hash } => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(salt);
                context.finish().as_ref().ct_eq(hash).into()
            }
        }
    }

    /// A hash of the same cost that no password has (but for one chance in 2^80 or less).
    pub(crate) fn decoy(&self) -> Self {
        let mut decoy = self.clone();
        match &mut decoy {
            Self::Argon2(hash) => {
                let bytes = hash.hash.map_or(Params::DEFAULT_OUTPUT_LEN, |hash| hash.len());
                hash.hash = Output::new(&vec![0; bytes]).ok();
            }
            Self::Pbkdf2 { hash, .. } | Self::Sha512 { hash, .. } => hash.fill(0),
        }
        decoy
    }

    /// What a check costs: equal texts, equal time.
    pub(crate) fn cost(&self) -> String {
        match self {
            Self::Argon2(hash) => {
                let version = hash.version.unwrap_or_default();
                format!("{} v={version} {}", hash.algorithm.as_str(), hash.params.as_str())
            }
            Self::Pbkdf2 { rounds, .. } => format!("pbkdf2-sha512 rounds={rounds}"),
            Self::Sha512 { .. } => "sha512".into(),
        }
    }
}

fn argon2(text: &str) -> Result<PasswordHash, String> {
    let hash = PasswordHash::new(text).map_err(|error| error.to_string())?;
    let name = hash.algorithm.as_str();
    Algorithm::try_from(name).map_err(|_| format!("the algorithm `{name}` is not Argon2"))?;
    if let Some(version) = hash.version {
        Version::try_from(version).map_err(|_| format!("Argon2 has no version {version}, but 16 and 19"))?;
    }
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("salt or hash is missing".into());
    }
    let params = Params::try_from(&hash).map_err(|error| error.to_string())?;
    if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX {
        return Err(format!(
            "m={} KiB and t={} passes: at most {MEMORY_KIB_MAX} and {PASSES_MAX} are allowed, as each CONNECT pays for \
             them",
            params.m_cost(),
            params.t_cost()
        ));
    }
    Ok(hash)
}

fn decode(base64: &str) -> Result<Vec<u8>, String> {
    let bytes = STANDARD.decode(base64).map_err(|_| "a part of it is not base64".to_owned())?;
    if bytes.is_empty() {
        return Err("salt or hash is missing".into());
    }
    Ok(bytes)
}

fn decode_hash(base64: &str) -> Result<Vec<u8>, String> {
    let hash = decode(base64)?;
    if hash.len() != SHA512_BYTES {
        return Err(format!("its hash has {} bytes, expected {SHA512_BYTES}", hash.len()));
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Debian's `argon2`, with so little memory that a debug build checks it at once.
    const SECRET: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$QQCd8VPOryZiCF3MtwQnPTK7odKCaPcXJGplgNEuj1A";

    #[test]
    fn the_right_password_and_no_other() {
        let password = Password::parse(SECRET).expect("a complete hash");
        assert!(password.verify(b"secret"));
        assert!(!password.verify(b"Secret"));
        assert!(!password.verify(b""));
        let decoy = password.decoy();
        assert!(!decoy.verify(b"secret"));
        assert_eq!(decoy.cost(), password.cost());
        assert_eq!(password.cost(), "argon2id v=19 m=8,t=1,p=1");
    }

    /// The second one is from `mosquitto_passwd` 2.0.
    #[test]
    fn hashes_of_mosquitto() {
        for (hash, cost) in [
            (
                "$6$AQEBAQEBAQEBAQEB$0XalJKp3UT/84zDiHbUp7Q6l1q0jx4E0lukUbe8/dVfv/qu78UN7ntUNR2BgjDWctdlmDqqRsH03bJd7\
                 GCw6LA==",
                "sha512",
            ),
            (
                "$7$101$gZXK1BdziP1PFFsS$AyZy8BBYjGyBHXuFl13vqpOxF+PlDk8WVPlkBBWxsgZzDPw7BQsiKGHpOvTKhk75iyPJTKr3OpAvn\
                 ftXnQ3tIg==",
                "pbkdf2-sha512 rounds=101",
            ),
        ] {
            let password = Password::parse(hash).expect("a complete hash");
            assert!(password.verify(b"secret") && !password.verify(b"Secret") && !password.verify(b""));
            let decoy = password.decoy();
            assert!(!decoy.verify(b"secret"));
            assert_eq!((password.cost().as_str(), decoy.cost().as_str()), (cost, cost));
        }
    }

    #[test]
    fn what_is_not_a_usable_hash_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "missing"),
            ("secret", "missing"),
            ("$2b$12$GhvMmNVjRW29ulnudl.LbuAnUtN/LRfe1JsBm1Xu6LE3059z5Tr8m", ""),
            ("$pbkdf2-sha512$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA", "the algorithm `pbkdf2-sha512` is not Argon2"),
            ("$argon2id$v=18$m=8,t=1,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA", "no version 18"),
            ("$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ", "hash is missing"),
            ("$argon2id$v=19$m=4,t=1,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA", ""),
            ("$7$0$AQEB$AQEB", "got 0 rounds, expected 1 to 1000000"),
            ("$7$2000000$AQEB$AQEB", "got 2000000 rounds"),
            ("$7$101$AQEB$AQEB", "its hash has 3 bytes, expected 64"),
            ("$7$101$AQEB", ""),
            ("$6$?$AQEB", "not base64"),
            ("$6$$AQEB", "missing"),
            ("$argon2id$v=19$m=4000000,t=1,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA", "at most 1048576 and 100"),
        ] {
            let error = Password::parse(text).err().expect(text);
            assert!(!error.is_empty() && error.contains(reason), "{text}: {error}");
        }
    }
}
