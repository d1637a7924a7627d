//! TLS, by rustls: what a listener offers, and the connections to it.

mod records;

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub(super) use self::records::{Handshake, Records};
use crate::listener::TlsConfig;

/// The protocol that clients may name in their handshake; who names none is taken at its word that it speaks MQTT.
const ALPN: &[u8] = b"mqtt";

/// What a listener offers in a handshake.
#[derive(Debug)]
pub(super) struct Acceptor {
    config: Arc<ServerConfig>,
}

impl Acceptor {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// What was found, what is expected, and what to do.
    pub(super) fn new(settings: &TlsConfig) -> Result<Self, String> {
        let certificate = settings.certificate.as_deref();
        let certificate = certificate.ok_or("it needs a certificate: say in which file it is (certificate, PEM)")?;
        let private_key = settings.private_key.as_deref().unwrap_or(certificate);
        let chain = certificates(certificate)?;
        let key = PrivateKeyDer::from_pem_file(private_key)
            .map_err(|error| format!("cannot read a private key from {}: {error}", private_key.display()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| error.to_string())?.with_no_client_auth();
        let mut config = config.with_single_cert(chain, key).map_err(|error| {
            format!("{} and {} are of no use: {error}", certificate.display(), private_key.display())
        })?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// What is offered now, also for QUIC.
    #[cfg(feature = "quic")]
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// The server's side of a connection that has just been accepted.
    pub(super) fn accept(&self) -> Result<Records, rustls::Error> {
        Records::new(Arc::clone(&self.config))
    }
}

/// The certificates in a file, in its order; at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let refused = |error| format!("cannot read a certificate from {}: {error}", file.display());
    let chain: Vec<_> = CertificateDer::pem_file_iter(file).and_then(Iterator::collect).map_err(refused)?;
    if chain.is_empty() {
        return Err(format!(
            "there is no certificate in {}: expected PEM, -----BEGIN CERTIFICATE-----",
            file.display()
        ));
    }
    Ok(chain)
}
