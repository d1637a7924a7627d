//! Password hashes.

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};

/// Most memory that one check may take, in KiB (1 GiB): a mistyped cost must not take the broker's memory away.
const MEMORY_KIB_MAX: u32 = 1 << 20;

/// Most passes over the memory.
const PASSES_MAX: u32 = 100;

/// An Argon2 hash that was found to be complete and affordable.
pub(crate) struct Password(PasswordHash);

impl Password {
    /// Reads a PHC string, `$argon2id$v=19$m=…,t=…,p=…$salt$hash`. The error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
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
                "m={} KiB and t={} passes: at most {MEMORY_KIB_MAX} and {PASSES_MAX} are allowed, as each CONNECT \
                 pays for them",
                params.m_cost(),
                params.t_cost()
            ));
        }
        Ok(Self(hash))
    }

    /// Whether this is the password. It costs what the hash's parameters say, right or wrong.
    pub(crate) fn verify(&self, password: &[u8]) -> bool {
        Argon2::default().verify_password(password, &self.0).is_ok()
    }

    /// A hash of the same cost that no password has (but for one chance in 2^80 or less).
    pub(crate) fn decoy(&self) -> Self {
        let mut hash = self.0.clone();
        let bytes = hash.hash.map_or(Params::DEFAULT_OUTPUT_LEN, |hash| hash.len());
        hash.hash = Output::new(&vec![0; bytes]).ok();
        Self(hash)
    }

    /// What a check costs: equal texts, equal time.
    pub(crate) fn cost(&self) -> String {
        let version = self.0.version.unwrap_or_default();
        format!("{} v={version} {}", self.0.algorithm.as_str(), self.0.params.as_str())
    }
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
            ("$argon2id$v=19$m=4000000,t=1,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA", "at most 1048576 and 100"),
        ] {
            let error = Password::parse(text).err().expect(text);
            assert!(!error.is_empty() && error.contains(reason), "{text}: {error}");
        }
    }
}
