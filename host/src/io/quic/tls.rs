//! The TLS that is part of QUIC: what is offered, and what has been agreed on.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{Connection, ServerConfig, TransportConfig, TransportErrorCode};
use rustls::pki_types::CertificateDer;

use crate::core::peer::TlsDetails;
use crate::io::listener::Listener;
use crate::io::tls::valid_certificate;

/// First packets that are kept of those whose handshake has not begun: of each, and of all.
const INCOMING_BYTES_MAX: (u64, u64) = (16 << 10, 8 << 20);

/// What the code of an error begins at that is an alert of TLS.
const CRYPTO_ERROR: u64 = 0x100;

/// What a listener offers: what its files say now.
pub(super) struct Offer {
    transport: Arc<TransportConfig>,
    /// What it was made of, and what it is.
    made: Mutex<Option<(Arc<rustls::ServerConfig>, Arc<ServerConfig>)>>,
}

impl Offer {
    pub(super) fn new(transport: TransportConfig) -> Self {
        Self { transport: Arc::new(transport), made: Mutex::default() }
    }

    pub(super) fn now(&self, listener: &Listener) -> io::Result<Arc<ServerConfig>> {
        let acceptor = listener.doors().tls.as_ref().ok_or_else(|| io::Error::other("it has no certificate"))?;
        let config = acceptor.config();
        // It is whole after each statement.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, made)) = made.as_ref().filter(|(of, _)| Arc::ptr_eq(of, &config)) {
            return Ok(Arc::clone(made));
        }
        let crypto = QuicServerConfig::try_from(Arc::clone(&config)).map_err(io::Error::other)?;
        let mut offered = ServerConfig::with_crypto(Arc::new(crypto));
        let (of_each, of_all) = INCOMING_BYTES_MAX;
        offered.transport_config(Arc::clone(&self.transport));
        offered.incoming_buffer_size(of_each).incoming_buffer_size_total(of_all);
        let offered = Arc::new(offered);
        *made = Some((config, Arc::clone(&offered)));
        Ok(offered)
    }
}

/// Whether a handshake was refused for the client's certificate, which it shows in its second flight: so it has received what
/// was sent to its address.
pub(super) fn is_about_certificate(code: TransportErrorCode) -> bool {
    // The alerts of TLS from bad_certificate to unknown_ca, without illegal_parameter; and certificate_required.
    matches!(u64::from(code).checked_sub(CRYPTO_ERROR), Some(42..=46 | 48 | 116))
}

/// What a handshake has led to. The error says what is wrong with the client's certificate.
pub(super) fn details(connection: &Connection) -> Result<TlsDetails, String> {
    let agreed = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    let (alpn, server_name) = agreed.map_or((None, None), |agreed| (agreed.protocol, agreed.server_name));
    // It has been verified in the handshake, as for TLS.
    let shown = connection.peer_identity().and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
    let certificate = shown.as_ref().and_then(|chain| chain.first()).map(valid_certificate).transpose()?;
    Ok(TlsDetails {
        version: "TLSv1.3".into(),
        // Which suite it is, is not told.
        cipher_suite: "".into(),
        server_name: server_name.map(Into::into),
        alpn: alpn.map(Into::into),
        certificate: certificate.map(Box::new),
    })
}
