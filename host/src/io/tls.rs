//! TLS, by rustls: what a listener offers in handshakes, and the connections to it.

mod certificates;
mod files;
mod identity;
mod records;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use self::certificates::Certificates;
use self::files::{Content, Contents, Files, Stamps};
pub(super) use self::identity::valid_certificate;
pub(super) use self::records::{Handshake, Records};
use crate::listener::{ClientCertificates, TlsConfig, TlsVersion};

/// Sessions of TLS 1.2 clients without tickets that are kept, so that they need not go through a whole handshake again.
const SESSIONS_MAX: usize = 4096;

/// What a listener offers in a handshake. What changes in its files holds for those who come then.
#[derive(Debug)]
pub(super) struct Acceptor {
    settings: TlsConfig,
    /// Protocols that clients may name (ALPN), the best one first. Who names none is taken at its word that it speaks MQTT; who
    /// names others only is refused.
    protocols: Vec<Vec<u8>>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    resumption: Resumption,
    /// The files as they were when they were read.
    read: Stamps,
    contents: Contents,
    /// As they were when they were looked at last, if they had changed.
    changing: Option<Stamps>,
}

/// What makes later handshakes short.
#[derive(Debug, Clone)]
struct Resumption {
    tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
    /// What clients were verified by when they got theirs: who resumes a session is not verified again.
    verified_by: (ClientCertificates, [Content; 2]),
}

impl Acceptor {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// What was found, what is expected, and what to do.
    pub(super) fn new(settings: &TlsConfig, protocols: &[&str]) -> Result<Self, String> {
        let protocols: Vec<_> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let current = load(settings, &protocols, None)?;
        Ok(Self { settings: settings.clone(), protocols, current: Mutex::new(current) })
    }

    /// What is offered now, also for QUIC.
    #[cfg(feature = "quic")]
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current().config)
    }

    /// The server's side of a connection that has just been accepted.
    pub(super) fn accept(&self) -> Result<Records, rustls::Error> {
        Records::new(Arc::clone(&self.current().config))
    }

    /// Reads the files anew. If anything is wrong with them, all stays as it is.
    ///
    /// # Errors
    /// As for [`Acceptor::new`].
    pub(super) fn reload(&self) -> Result<(), String> {
        let before = self.current().resumption.clone();
        // Not under the lock: nobody who comes meanwhile waits for a disk.
        let loaded = load(&self.settings, &self.protocols, Some(before))?;
        *self.current() = loaded;
        Ok(())
    }

    /// The same if they have changed, and have then stayed the same between two calls: who replaces several files does not do so
    /// at once. Once for each change, also where it is of no use.
    pub(super) fn reload_changed(&self) -> Option<Result<(), String>> {
        let found = Stamps::of(&self.settings);
        let mut current = self.current();
        if found == current.read {
            current.changing = None;
            return None;
        }
        if current.changing.as_ref() != Some(&found) {
            current.changing = Some(found);
            return None;
        }
        current.read = found;
        drop(current);
        Some(self.reload())
    }

    /// The keys of the settings whose files contain something else than those of another one with the same settings.
    pub(super) fn differs_in(&self, other: &Self) -> Vec<&'static str> {
        let before = other.current().contents;
        self.current().contents.differs_in(before)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        // It is whole after each statement.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(settings: &TlsConfig, protocols: &[Vec<u8>], before: Option<Resumption>) -> Result<Current, String> {
    // Before they are read: what changes meanwhile is seen later.
    let read = Stamps::of(settings);
    let files = Files::read(settings)?;
    let contents = files.contents();
    let verified_by = (settings.client_certificates, contents.of_clients());
    let resumption = match before.filter(|before| before.verified_by == verified_by) {
        Some(before) => before,
        None => Resumption {
            tickets: rustls::crypto::ring::Ticketer::new()
                .map_err(|error| format!("there are no random numbers for keys of tickets: {error}"))?,
            sessions: ServerSessionMemoryCache::new(SESSIONS_MAX),
            verified_by,
        },
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[&SupportedProtocolVersion] = match settings.version_min {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let certificates = Certificates::new(files.certificates, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = match settings.client_certificates {
        ClientCertificates::None => builder.with_no_client_auth(),
        kind => {
            let mut roots = RootCertStore::empty();
            for authority in files.authorities {
                roots.add(authority).map_err(|error| format!("an authority for clients is of no use: {error}"))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .with_crls(files.revocation_lists)
                .enforce_revocation_expiration();
            let verifier = match kind {
                ClientCertificates::Optional => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let verifier = verifier.build();
            builder.with_client_cert_verifier(verifier.map_err(|error| format!("clients cannot be verified: {error}"))?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = protocols.to_vec();
    config.ticketer = Arc::clone(&resumption.tickets);
    config.session_storage = Arc::clone(&resumption.sessions);
    Ok(Current { config: Arc::new(config), resumption, read, contents, changing: None })
}
