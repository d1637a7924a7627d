//! The cryptography of jsonwebtoken: that of ring, which the broker's TLS has as well. Tokens are only verified here.

use jsonwebtoken::crypto::{CryptoProvider, JwkUtils, JwtVerifier};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use ring::{hmac, signature as public};
use signature::Verifier;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(Error::from(ErrorKind::InvalidKeyFormat)),
    verifier_factory: verifier,
    jwk_utils: JwkUtils::new_unimplemented(),
};

/// Has jsonwebtoken use it. To be called before a token is looked at.
pub(crate) fn install() {
    // A second time, it is there already.
    let _ = PROVIDER.install_default();
}

struct WithRing {
    algorithm: Algorithm,
    key: DecodingKey,
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if family(*algorithm) != key.family() {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    Ok(Box::new(WithRing { algorithm: *algorithm, key: key.clone() }))
}

impl JwtVerifier for WithRing {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for WithRing {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        match (self.key.family(), self.key.kind()) {
            (AlgorithmFamily::Hmac, DecodingKeyKind::SecretOrDer(secret)) => {
                hmac::verify(&hmac::Key::new(hash(self.algorithm), secret), message, signature)
            }
            (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                public::RsaPublicKeyComponents { n, e }.verify(rsa(self.algorithm), message, signature)
            }
            (AlgorithmFamily::Rsa, DecodingKeyKind::SecretOrDer(key)) => {
                public::UnparsedPublicKey::new(rsa(self.algorithm), key).verify(message, signature)
            }
            (AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(key)) => {
                public::UnparsedPublicKey::new(ecdsa(self.algorithm), key).verify(message, signature)
            }
            (AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(key)) => {
                public::UnparsedPublicKey::new(&public::ED25519, key).verify(message, signature)
            }
            _ => Err(ring::error::Unspecified),
        }
        .map_err(|_| signature::Error::new())
    }
}

/// The kind of key that an algorithm takes.
pub(crate) fn family(algorithm: Algorithm) -> AlgorithmFamily {
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => AlgorithmFamily::Hmac,
        Algorithm::ES256 | Algorithm::ES384 => AlgorithmFamily::Ec,
        Algorithm::EdDSA => AlgorithmFamily::Ed,
        _ => AlgorithmFamily::Rsa,
    }
}

fn hash(algorithm: Algorithm) -> hmac::Algorithm {
    match algorithm {
        Algorithm::HS384 => hmac::HMAC_SHA384,
        Algorithm::HS512 => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    }
}

fn rsa(algorithm: Algorithm) -> &'static public::RsaParameters {
    match algorithm {
        Algorithm::RS384 => &public::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &public::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &public::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &public::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &public::RSA_PSS_2048_8192_SHA512,
        _ => &public::RSA_PKCS1_2048_8192_SHA256,
    }
}

fn ecdsa(algorithm: Algorithm) -> &'static dyn public::VerificationAlgorithm {
    match algorithm {
        Algorithm::ES384 => &public::ECDSA_P384_SHA384_FIXED,
        _ => &public::ECDSA_P256_SHA256_FIXED,
    }
}
