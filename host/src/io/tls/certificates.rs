//! Which of its certificates the server shows to a client.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::files::WithKey;

thread_local! {
    /// The name that the client has asked for whose handshake this thread has gone on with last. rustls tells it to whoever
    /// chooses the certificate, and to nobody else.
    static ASKED_FOR: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// Takes the name that was asked for on this thread since the last call.
pub(super) fn take_name_asked_for() -> Option<Box<str>> {
    ASKED_FOR.take()
}

/// The certificates of a listener, with the names that they are for.
pub(super) struct Certificates {
    /// At least one.
    all: Vec<Certificate>,
}

struct Certificate {
    certified: Arc<CertifiedKey>,
    /// Lower-case; one that begins with `*.` is for all names with one label more.
    names: Vec<String>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.iter().map(|certificate| &certificate.names)).finish()
    }
}

impl Certificates {
    pub(super) fn new(read: Vec<WithKey>, provider: &CryptoProvider) -> Result<Self, String> {
        let all: Result<_, String> = read.into_iter().map(|with_key| Certificate::new(with_key, provider)).collect();
        Ok(Self { all: all? })
    }

    /// The best one for a name and for what a client can verify.
    fn choose(&self, name: Option<&str>, usable: impl Fn(&CertifiedKey) -> bool) -> Arc<CertifiedKey> {
        let rank = |certificate: &&Certificate| {
            (usable(&certificate.certified), name.map_or(Match::None, |name| certificate.matches(name)))
        };
        // The first one of the best.
        let best = self.all.iter().rev().max_by_key(rank);
        Arc::clone(&best.unwrap_or(&self.all[0]).certified)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ASKED_FOR.set(hello.server_name().map(Into::into));
        let schemes = hello.signature_schemes();
        Some(self.choose(hello.server_name(), |certified| certified.key.choose_scheme(schemes).is_some()))
    }
}

/// How well a certificate is for a name; the last one is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    None,
    Wildcard,
    Exact,
}

impl Certificate {
    fn new(WithKey { chain, key, file }: WithKey, provider: &CryptoProvider) -> Result<Self, String> {
        let wrong = |what: &dyn fmt::Display| format!("the certificate in {} is of no use: {what}", file.display());
        let key = provider.key_provider.load_private_key(key);
        let key = key.map_err(|error| {
            format!("the private key of the certificate in {} is of no use: {error}", file.display())
        })?;
        let (_, parsed) = X509Certificate::from_der(&chain[0]).map_err(|error| wrong(&error))?;
        let names = names_of(&parsed);
        if !parsed.validity().is_valid() {
            let (from, to) = (parsed.validity().not_before, parsed.validity().not_after);
            tracing::warn!(file = %file.display(), "clients will refuse this certificate: it is valid from {from} to {to}");
        }
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            // Kinds of keys of which that cannot be said are none of ours.
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => {
                return Err(format!(
                    "the certificate in {} and its private key do not belong together",
                    file.display()
                ));
            }
        }
        Ok(Self { certified: Arc::new(certified), names })
    }

    fn matches(&self, name: &str) -> Match {
        let name = name.to_ascii_lowercase();
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let is_below = |pattern: &String| pattern.strip_prefix("*.").is_some_and(|rest| Some(rest) == parent);
        if self.names.contains(&name) {
            Match::Exact
        } else if self.names.iter().any(is_below) {
            Match::Wildcard
        } else {
            Match::None
        }
    }
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    names.map(|found| found.value.general_names.iter().filter_map(dns).collect()).unwrap_or_default()
}
