//! TLS at the client's side, without a socket: bytes in, bytes out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion};

/// Sessions whose tickets are kept, where they are used again.
const SESSIONS_KEPT: usize = 4096;
/// What a record takes beyond its payload, at most; and its largest payload.
const RECORD_EXTRA_BYTES: usize = 64;
const RECORD_BYTES: usize = 16 * 1024;

/// How clients speak TLS; made by [`TlsOptions::load`].
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
}

/// Two are the same if they were loaded at once.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.server_name == other.server_name
    }
}

impl Eq for Tls {}

/// How clients are to speak TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The name that the broker's certificate has to have, and that clients ask for (SNI); or an address.
    pub server_name: String,
    /// The certificates of the authorities that are trusted, as PEM. `None`: whoever answers is believed.
    pub authorities: Option<PathBuf>,
    /// What clients show of themselves: certificate and private key, as PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// TLS 1.2 only, instead of 1.3 where the broker has it.
    pub only_1_2: bool,
    /// Whether a connection goes on with the session of an earlier one, if the broker lets it.
    pub resumes: bool,
    /// Whether the protocol `mqtt` is offered (ALPN).
    pub offers_mqtt: bool,
}

impl TlsOptions {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with which of them, in words.
    pub fn load(&self) -> Result<Tls, String> {
        let server_name = ServerName::try_from(self.server_name.clone())
            .map_err(|error| format!("`{}` is no name that a certificate can have: {error}", self.server_name))?;
        let provider = Arc::new(ring::default_provider());
        let versions: &[&SupportedProtocolVersion] =
            if self.only_1_2 { &[&rustls::version::TLS12] } else { rustls::ALL_VERSIONS };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
        let builder = builder.map_err(|error| format!("cannot speak TLS: {error}"))?;
        let builder = match &self.authorities {
            Some(path) => builder.with_root_certificates(roots(path)?),
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Believes(provider))),
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let private_key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| format!("no private key in {}: {error}", key.display()))?;
                builder.with_client_auth_cert(chain, private_key).map_err(|error| {
                    format!("{} and {} are no identity: {error}", certificate.display(), key.display())
                })?
            }
        };
        config.resumption =
            if self.resumes { Resumption::in_memory_sessions(SESSIONS_KEPT) } else { Resumption::disabled() };
        config.alpn_protocols = if self.offers_mqtt { vec![b"mqtt".to_vec()] } else { Vec::new() };
        Ok(Tls { config: Arc::new(config), server_name })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| format!("cannot read the certificates in {}: {error}", path.display()))?;
    if read.is_empty() { Err(format!("{} has no certificate (PEM)", path.display())) } else { Ok(read) }
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| format!("{} has no authority: {error}", path.display()))?;
    }
    Ok(roots)
}

/// Believes whoever answers (`--insecure`), and does not spend time on signatures.
#[derive(Debug)]
struct Believes(Arc<CryptoProvider>);

impl ServerCertVerifier for Believes {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// One connection. It keeps no bytes but those of the handshake.
pub(super) struct TlsLayer {
    state: UnbufferedClientConnection,
    /// The handshake is done, as far as it is the client's.
    pub(super) is_ready: bool,
}

impl std::fmt::Debug for TlsLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsLayer").field("is_ready", &self.is_ready).finish_non_exhaustive()
    }
}

impl TlsLayer {
    pub(super) fn new(tls: &Tls) -> Result<Self, String> {
        let state = UnbufferedClientConnection::new(Arc::clone(&tls.config), tls.server_name.clone());
        Ok(Self { state: state.map_err(|error| format!("cannot speak TLS: {error}"))?, is_ready: false })
    }

    /// Takes what came: appends what it means to `plain`, and what is to be answered to `answer`. Returns how many bytes were
    /// used; the others are the start of a record.
    pub(super) fn open(&mut self, wire: &mut [u8], plain: &mut Vec<u8>, answer: &mut Vec<u8>) -> Result<usize, String> {
        let failed = |error: rustls::Error| format!("TLS: {error}");
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = self.state.process_tls_records(&mut wire[used..]);
            let is_done = match state.map_err(failed)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(failed)?;
                        plain.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                    false
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let (start, mut room) = (answer.len(), RECORD_BYTES);
                    loop {
                        answer.resize(start + room, 0);
                        match data.encode(&mut answer[start..]) {
                            Ok(bytes) => break answer.truncate(start + bytes),
                            Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
                            Err(error) => return Err(format!("TLS: {error}")),
                        }
                    }
                    false
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    false
                }
                ConnectionState::WriteTraffic(_) => {
                    self.is_ready = true;
                    true
                }
                ConnectionState::PeerClosed | ConnectionState::Closed => return Err("the broker ended TLS".to_owned()),
                _ => true,
            };
            used += discard;
            if is_done {
                return Ok(used);
            }
        }
    }

    /// Appends records with these bytes. `unread`: what [`Self::open`] has left of what came, which it knows places in.
    pub(super) fn seal(&mut self, plain: &[u8], unread: &mut [u8], wire: &mut Vec<u8>) -> Result<(), String> {
        let UnbufferedStatus { state, .. } = self.state.process_tls_records(unread);
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = state else {
            return Err("TLS: there is no session, or it has ended".to_owned());
        };
        let start = wire.len();
        wire.resize(start + plain.len() + (plain.len() / RECORD_BYTES + 2) * RECORD_EXTRA_BYTES, 0);
        let sealed = traffic.encrypt(plain, &mut wire[start..]).map_err(|error| format!("TLS: {error}"));
        wire.truncate(start + sealed.as_ref().unwrap_or(&0));
        sealed.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::{ProtocolVersion, ServerConfig, ServerConnection};

    use super::*;
    use crate::control::tests::TempDir;

    /// Somebody who calls himself localhost, and says so himself: his certificate as a file, and the server.
    fn localhost(dir: &TempDir, name: &str) -> (PathBuf, Arc<ServerConfig>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, made.cert.pem()).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        (path, Arc::new(config))
    }

    /// Both ends, when the client has nothing more to say before it hears MQTT.
    fn shake_hands(options: &TlsOptions, server: &Arc<ServerConfig>) -> Result<(TlsLayer, ServerConnection), String> {
        let (mut client, mut server) =
            (TlsLayer::new(&options.load()?)?, ServerConnection::new(Arc::clone(server)).unwrap());
        let (mut to_client, mut to_server, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            // Byte for byte: nothing depends on how much comes at once.
            let mut kept = Vec::new();
            for byte in to_client.drain(..) {
                kept.push(byte);
                let used = client.open(&mut kept, &mut plain, &mut to_server)?;
                kept.drain(..used);
            }
            assert!(kept.is_empty(), "the server sends whole records");
            client.open(&mut [], &mut plain, &mut to_server)?;
            if to_server.is_empty() {
                return Ok((client, server));
            }
            let mut rest = &to_server[..];
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                server.process_new_packets().map_err(|error| error.to_string())?;
            }
            to_server.clear();
            while server.wants_write() {
                server.write_tls(&mut to_client).unwrap();
            }
        }
    }

    #[test]
    fn bytes_come_through_tls_of_both_versions() {
        let dir = TempDir::new("bench-tls");
        let (path, config) = localhost(&dir, "cert.pem");
        for only_1_2 in [false, true] {
            let options = TlsOptions {
                server_name: "localhost".into(),
                authorities: Some(path.clone()),
                only_1_2,
                ..TlsOptions::default()
            };
            let (mut client, mut server) = shake_hands(&options, &config).unwrap();
            let version = if only_1_2 { ProtocolVersion::TLSv1_2 } else { ProtocolVersion::TLSv1_3 };
            assert_eq!((client.is_ready, server.protocol_version()), (true, Some(version)));
            let sent: Vec<u8> = (0..40_000_u32).map(|number| number as u8).collect();
            let mut wire = Vec::new();
            client.seal(&sent, &mut [], &mut wire).unwrap();
            let (mut rest, mut got) = (&wire[..], Vec::new());
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                server.process_new_packets().unwrap();
                let _ = std::io::copy(&mut server.reader(), &mut got);
            }
            assert!(got == sent, "{} bytes", got.len());
            // And back, in pieces.
            std::io::Write::write_all(&mut server.writer(), &sent).unwrap();
            let (mut wire, mut kept, mut plain) = (Vec::new(), Vec::new(), Vec::new());
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            for piece in wire.chunks(1000) {
                kept.extend_from_slice(piece);
                let used = client.open(&mut kept, &mut plain, &mut Vec::new()).unwrap();
                kept.drain(..used);
            }
            assert!(plain == sent && kept.is_empty(), "{} bytes", plain.len());
        }
    }

    #[test]
    fn only_those_are_believed_who_are_trusted() {
        let dir = TempDir::new("bench-trust");
        let (other, _) = localhost(&dir, "other.pem");
        let (path, config) = localhost(&dir, "cert.pem");
        let trust = |authorities: Option<&PathBuf>, name: &str| {
            let options =
                TlsOptions { server_name: name.into(), authorities: authorities.cloned(), ..TlsOptions::default() };
            shake_hands(&options, &config).map(drop)
        };
        assert_eq!(trust(Some(&path), "localhost"), Ok(()));
        assert_eq!(trust(None, "whoever.example"), Ok(()));
        assert!(trust(Some(&other), "localhost").unwrap_err().contains("certificate"), "another authority");
        assert!(trust(Some(&path), "other.example").unwrap_err().contains("certificate"), "another name");
    }

    #[test]
    fn files_that_do_not_do_are_named() {
        let dir = TempDir::new("bench-files");
        let (path, _) = localhost(&dir, "cert.pem");
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let good = TlsOptions { server_name: "localhost".into(), ..TlsOptions::default() };
        let table = [
            (TlsOptions { authorities: Some("/no/such".into()), ..good.clone() }, "/no/such"),
            (TlsOptions { authorities: Some(empty.clone()), ..good.clone() }, "empty.pem has no certificate"),
            (TlsOptions { identity: Some((path, empty)), ..good.clone() }, "no private key in"),
            (TlsOptions { server_name: "no name".into(), ..good }, "`no name` is no name"),
        ];
        for (options, expected) in table {
            let said = options.load().map(drop).unwrap_err();
            assert!(said.contains(expected), "{said}");
        }
    }
}
