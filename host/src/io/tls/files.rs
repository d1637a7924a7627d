//! The files that the settings of TLS name.

use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::listener::{ClientCertificates, TlsConfig};

/// What was in them.
pub(super) struct Files {
    /// At least one.
    pub(super) certificates: Vec<WithKey>,
    pub(super) authorities: Vec<CertificateDer<'static>>,
    pub(super) revocation_lists: Vec<CertificateRevocationListDer<'static>>,
}

/// A certificate, with those between it and its authority, and its private key.
pub(super) struct WithKey {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// Where it was, for errors.
    pub(super) file: PathBuf,
}

impl Files {
    pub(super) fn read(settings: &TlsConfig) -> Result<Self, String> {
        let Some(first) = &settings.certificate else {
            return Err(
                "TLS needs a certificate: say in which file it is (`certificate`), and its `private_key`, in a [[listener]] \
                 of the configuration file (--config)"
                    .to_owned()
            );
        };
        let mut certificates = vec![with_key(first, settings.private_key.as_deref())?];
        for files in &settings.more_certificates {
            certificates.push(with_key(&files.certificate, files.private_key.as_deref())?);
        }
        let asks = settings.client_certificates != ClientCertificates::None;
        if asks && settings.client_authorities.is_empty() {
            let what = "certificates of clients are asked for, and there is nobody whom they can come from: say in which files \
                        the certificates of authorities are (`client_authorities`)";
            return Err(what.to_owned());
        }
        let has_files = !settings.client_authorities.is_empty() || !settings.revocation_lists.is_empty();
        if !asks && has_files {
            let what = "there are authorities or revocation lists for certificates of clients, and clients are not asked for \
                        one: say `client_certificates`, required or optional";
            return Err(what.to_owned());
        }
        let mut authorities = Vec::new();
        for file in &settings.client_authorities {
            authorities.extend(certificates_in(file)?);
        }
        let mut revocation_lists = Vec::new();
        for file in &settings.revocation_lists {
            revocation_lists.extend(all_of(file, "a revocation list", "X509 CRL")?);
        }
        Ok(Self { certificates, authorities, revocation_lists })
    }

    /// By which it is known later whether there is something else in them.
    pub(super) fn contents(&self) -> Contents {
        let (first, more) = self.certificates.split_at(1);
        // A private key belongs to its certificate.
        let chains = |all: &[WithKey]| hash(all.iter().flat_map(|with_key| &with_key.chain).map(AsRef::as_ref));
        let authorities = hash(self.authorities.iter().map(AsRef::as_ref));
        let lists = hash(self.revocation_lists.iter().map(AsRef::as_ref));
        Contents([
            ("certificate", chains(first)),
            ("more_certificates", chains(more)),
            ("client_authorities", authorities),
            ("revocation_lists", lists),
        ])
    }
}

/// The key of a setting, and a hash of what is in the files that it names.
pub(super) type Content = (&'static str, u64);

/// What was in files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contents([Content; 4]);

impl Contents {
    /// What clients are verified by.
    pub(super) fn of_clients(self) -> [Content; 2] {
        let Self([.., authorities, lists]) = self;
        [authorities, lists]
    }

    /// The keys of what is something else than it was.
    pub(super) fn differs_in(self, before: Self) -> Vec<&'static str> {
        let differs = self.0.iter().zip(before.0).filter(|(now, before)| *now != before);
        differs.map(|((key, _), _)| *key).collect()
    }
}

fn hash<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut hash = DefaultHasher::new();
    for piece in pieces {
        hash.write_usize(piece.len());
        hash.write(piece);
    }
    hash.finish()
}

fn with_key(file: &Path, key_file: Option<&Path>) -> Result<WithKey, String> {
    let chain = certificates_in(file)?;
    let key_file = key_file.unwrap_or(file);
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| match error {
        _ if is_encrypted(key_file) => format!(
            "the private key in {file} is encrypted, and there is nobody to ask for its passphrase: `openssl pkey -in {file} \
             -out FILE` writes it without one, for the eyes of the user alone whom host runs as",
            file = key_file.display()
        ),
        pem::Error::NoItemsFound => {
            format!("there is no private key in {}: expected PEM, -----BEGIN PRIVATE KEY-----", key_file.display())
        }
        error => unreadable("a private key", key_file, &error),
    })?;
    if is_for_everybody(key_file) {
        tracing::warn!(
            "everybody on this machine can read the private key in {file}, and be taken for this host with it: `chmod o= {file}`",
            file = key_file.display()
        );
    }
    Ok(WithKey { chain, key, file: file.to_owned() })
}

fn is_for_everybody(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.mode() & 0o004 != 0)
}

/// Whether there is a private key in a file that needs a passphrase: in a section of its own (PKCS #8), or with a header in that
/// of the key (what OpenSSL wrote before).
fn is_encrypted(file: &Path) -> bool {
    let text = std::fs::read(file).unwrap_or_default();
    let has = |wanted: &str| text.windows(wanted.len()).any(|bytes| bytes == wanted.as_bytes());
    has("-----BEGIN ENCRYPTED PRIVATE KEY-----") || has("\nProc-Type: 4,ENCRYPTED")
}

/// Why a file is of no use; also as whom it was opened, which is another user than the one that started host with --user.
fn unreadable(what: &str, file: &Path, error: &pem::Error) -> String {
    let is_forbidden = matches!(error, pem::Error::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied);
    let who = match is_forbidden {
        true => format!(", for the user with uid {}", rustix::process::geteuid().as_raw()),
        false => String::new(),
    };
    format!("cannot read {what} from {}: {error}{who}", file.display())
}

/// The certificates in a file, in its order; at least one.
fn certificates_in(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    all_of(file, "a certificate", "CERTIFICATE")
}

fn all_of<T: PemObject>(file: &Path, what: &str, label: &str) -> Result<Vec<T>, String> {
    let found: Result<Vec<T>, _> = T::pem_file_iter(file).and_then(Iterator::collect);
    let found = found.map_err(|error| unreadable(what, file, &error))?;
    if found.is_empty() {
        return Err(format!("there is not {what} in {}: expected PEM, -----BEGIN {label}-----", file.display()));
    }
    Ok(found)
}

/// By which it is known whether files have changed: when they were written, which they are, and how long. `None` for one that
/// cannot be looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<Stamp>>);

/// Seconds, nanoseconds, device, number, bytes.
type Stamp = (i64, i64, u64, u64, u64);

impl Stamps {
    pub(super) fn of(settings: &TlsConfig) -> Self {
        let more =
            settings.more_certificates.iter().flat_map(|files| [Some(&files.certificate), files.private_key.as_ref()]);
        let files = [settings.certificate.as_ref(), settings.private_key.as_ref()].into_iter().chain(more).flatten();
        let files = files.chain(&settings.client_authorities).chain(&settings.revocation_lists);
        // Through links: whoever renews certificates often changes where a link leads.
        let stamp = |file: &PathBuf| {
            let found = std::fs::metadata(file).ok()?;
            Some((found.mtime(), found.mtime_nsec(), found.dev(), found.ino(), found.size()))
        };
        Self(files.map(stamp).collect())
    }
}
