//! Authorities and certificates for tests, made anew for each; and TLS clients that trust them.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use host::listener::ListenerConfig;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use crate::harness::TempDir;
use crate::mqtt::{Client, Wire};

/// An authority, and a directory for what it issues.
pub(crate) struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
    /// Its own certificate.
    pub(crate) file: PathBuf,
}

/// A certificate with its key, as files in PEM.
#[derive(Debug, Clone)]
pub(crate) struct Issued {
    pub(crate) certificate: PathBuf,
    pub(crate) private_key: PathBuf,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let dir = TempDir::new("authority");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let pem = certificate.pem();
        let file = dir.file("authority.pem", &pem);
        Self { dir, issuer: Issuer::new(params, key), der: certificate.der().clone(), pem, file }
    }

    /// A certificate for a server with these names and addresses.
    pub(crate) fn server(&self, names: &[&str]) -> Issued {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        self.issue(names[0].clone().as_str(), CertificateParams::new(names).expect("names"))
    }

    /// The certificate of these parameters.
    pub(crate) fn issue(&self, file: &str, params: CertificateParams) -> Issued {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let file = format!("{file}-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued {
            certificate: self.dir.file(&format!("{file}.pem"), &certificate.pem()),
            private_key: self.dir.file(&format!("{file}.key"), &key.serialize_pem()),
        }
    }

    /// Its own certificate, as PEM.
    pub(crate) fn pem(&self) -> String {
        self.pem.clone()
    }

    /// A certificate of a client of this name, with its number.
    pub(crate) fn client_certificate(&self, name: &str, serial: u8) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(vec![serial].into());
        self.issue(name, params)
    }

    /// A list with the numbers of certificates that are revoked, which is up to date until this year.
    pub(crate) fn revoked(&self, file: &str, serials: &[u8], until: i32) -> PathBuf {
        let revoked = |serial: &u8| rcgen::RevokedCertParams {
            serial_number: vec![*serial].into(),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2024, 1, 1),
            next_update: rcgen::date_time_ymd(until, 1, 1),
            crl_number: vec![1].into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("a list");
        self.dir.file(file, &list.pem().expect("PEM"))
    }

    /// What a client needs that trusts this authority.
    pub(crate) fn client(&self) -> ClientConfig {
        self.client_builder(rustls::DEFAULT_VERSIONS).with_no_client_auth()
    }

    /// The same, with these versions only.
    pub(crate) fn client_of(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        self.client_builder(versions).with_no_client_auth()
    }

    /// The same for a client that has a certificate, whoever has issued it.
    pub(crate) fn client_with(&self, issued: &Issued, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let chain = CertificateDer::pem_file_iter(&issued.certificate).expect("PEM").map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&issued.private_key).expect("PEM");
        self.client_builder(versions).with_client_auth_cert(chain, key).expect("they belong together")
    }

    fn client_builder(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
        builder.expect("its versions").with_root_certificates(roots)
    }
}

/// A TLS listener at a free port, with this certificate.
pub(crate) fn tls_listener(issued: &Issued) -> ListenerConfig {
    let mut config = ListenerConfig::new("tls://127.0.0.1:0".parse().expect("a URL"));
    config.tls.certificate = Some(issued.certificate.clone());
    config.tls.private_key = Some(issued.private_key.clone());
    config
}

/// A TLS connection from a client's side.
pub(crate) type TlsWire = StreamOwned<ClientConnection, TcpStream>;

impl Wire for TlsWire {
    fn set_patience(&self, patience: Duration) {
        self.sock.set_patience(patience);
    }

    fn finish(&mut self) {
        self.conn.send_close_notify();
        // What was to be told is told by what is written next, or not needed.
        let _ = self.conn.complete_io(&mut self.sock);
        self.sock.finish();
    }
}

/// A client over TLS, its handshake not begun.
pub(crate) fn tls_open(addr: SocketAddr, config: impl Into<Arc<ClientConfig>>, version: u8) -> Client<TlsWire> {
    tls_over(TcpStream::connect(addr).expect("the server accepts"), config, version)
}

/// The same over a connection that there is already.
pub(crate) fn tls_over(socket: TcpStream, config: impl Into<Arc<ClientConfig>>, version: u8) -> Client<TlsWire> {
    Client::over(tls_wire(socket, config), version)
}

/// The same without a client.
pub(crate) fn tls_wire(socket: TcpStream, config: impl Into<Arc<ClientConfig>>) -> TlsWire {
    tls_to(socket, config, "localhost")
}

/// The same to a server of this name.
pub(crate) fn tls_to(socket: TcpStream, config: impl Into<Arc<ClientConfig>>, name: &'static str) -> TlsWire {
    socket.set_nodelay(true).unwrap();
    socket.set_patience(crate::harness::PATIENCE);
    let name = ServerName::try_from(name).expect("a name");
    let connection = ClientConnection::new(config.into(), name).expect("a configuration");
    StreamOwned::new(connection, socket)
}
