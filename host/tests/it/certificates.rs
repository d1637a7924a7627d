//! Authorities and certificates for tests, made anew for each; and TLS clients that trust them.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use host::listener::ListenerConfig;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::harness::TempDir;
use crate::mqtt::{Client, Wire};

/// An authority, and a directory for what it issues.
pub(crate) struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
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
        Self { dir, issuer: Issuer::new(params, key), der: certificate.der().clone(), pem: certificate.pem() }
    }

    /// A certificate for a server with these names and addresses.
    pub(crate) fn server(&self, names: &[&str]) -> Issued {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        self.issue(names[0].clone().as_str(), CertificateParams::new(names).expect("names"))
    }

    /// The certificate of these parameters.
    pub(crate) fn issue(&self, file: &str, params: CertificateParams) -> Issued {
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

    /// What a client needs that trusts this authority.
    pub(crate) fn client(&self) -> ClientConfig {
        self.client_builder().with_no_client_auth()
    }

    fn client_builder(&self) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
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
    socket.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(config.into(), name).expect("a configuration");
    StreamOwned::new(connection, socket)
}
