//! Listeners for QUIC, with a client that shares no code with them but quinn. Only with the feature `quic`.

mod bounds;
mod changes;
mod streams;

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use host::ServerHandle;
use host::listener::{ClientCertificates, ListenerConfig, UsernameFrom};
use plugin_api::{Connect as Seen, ConnectVerdict, ConnectionInfo, Error, Handler, Host, ReasonCode, handler};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendStream};
use tokio::runtime::{Builder, Handle};

use crate::certificates::{Authority, tls_listener};
use crate::harness::{PATIENCE, Process, TempDir, eventually, start};
use crate::mqtt::{Client, Connect, V5, VERSIONS, Will, Wire};

/// The runtime of all clients, on a thread of its own.
fn runtime() -> &'static Handle {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    })
}

/// A stream of QUIC from a client's side.
pub(crate) struct QuicWire {
    /// With the last one the connection is closed.
    connection: Connection,
    to_server: SendStream,
    from_server: RecvStream,
    patience: Mutex<Duration>,
}

impl Read for QuicWire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let patience = *self.patience.lock().unwrap();
        runtime().block_on(async {
            let read = tokio::time::timeout(patience, self.from_server.read(bytes)).await;
            // Who has been closed without an end of the stream has been closed.
            let read = read.map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
            match read {
                Err(ReadError::ConnectionLost(ConnectionError::ApplicationClosed(_))) => Ok(0),
                read => Ok(read?.unwrap_or(0)),
            }
        })
    }
}

impl Write for QuicWire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        runtime().block_on(async { Ok(self.to_server.write(bytes).await?) })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire for QuicWire {
    fn set_patience(&self, patience: Duration) {
        *self.patience.lock().unwrap() = patience;
    }

    fn finish(&mut self) {
        self.to_server.finish().expect("it was not finished before");
    }
}

fn client_config(authority: &Authority, protocols: &[&str]) -> ClientConfig {
    speaking(authority.client(), protocols)
}

fn speaking(mut config: rustls::ClientConfig, protocols: &[&str]) -> ClientConfig {
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).expect("it speaks TLS 1.3")))
}

fn connect(addr: SocketAddr, config: ClientConfig) -> Result<Connection, ConnectionError> {
    connect_by(&endpoint(), addr, config)
}

fn endpoint() -> Endpoint {
    let _entered = runtime().enter();
    Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket")
}

fn connect_by(endpoint: &Endpoint, addr: SocketAddr, config: ClientConfig) -> Result<Connection, ConnectionError> {
    runtime().block_on(async { endpoint.connect_with(config, addr, "localhost").expect("an address").await })
}

/// A client, with nothing sent on its stream.
pub(crate) fn open(addr: SocketAddr, authority: &Authority, version: u8) -> Client<QuicWire> {
    open_with(addr, client_config(authority, &["mqtt"]), version)
}

fn open_with(addr: SocketAddr, config: ClientConfig, version: u8) -> Client<QuicWire> {
    over(connect(addr, config).expect("a connection"), version)
}

fn over(connection: Connection, version: u8) -> Client<QuicWire> {
    let (to_server, from_server) = runtime().block_on(connection.open_bi()).expect("a stream");
    Client::over(QuicWire { connection, to_server, from_server, patience: Mutex::new(PATIENCE) }, version)
}

fn listener(authority: &Authority) -> ListenerConfig {
    let mut config = tls_listener(&authority.server(&["localhost"]));
    config.url = "quic://127.0.0.1:0".parse().unwrap();
    config
}

fn serve(workers: usize, authority: &Authority) -> (ServerHandle, SocketAddr) {
    let server = start(workers, |builder| builder.listener(listener(authority)));
    let addr = server.local_addrs()[1];
    (server, addr)
}

#[test]
fn clients_come_by_quic() {
    let authority = Authority::new("authority");
    for workers in [1, 3] {
        let (server, addr) = serve(workers, &authority);
        for version in VERSIONS {
            let mut subscriber = open(addr, &authority, version).connected("subscriber");
            subscriber.subscribe("a/#", 2);
            let mut plain = Client::connect(server.local_addr(), version, "plain");
            plain.subscribe("a/#", 2);
            let mut publisher = open(addr, &authority, version).connected("publisher");
            for qos in 0..3 {
                for bytes in [0, 1, 20_000, 1_000_000] {
                    publisher.publish("a/b", vec![b'x'; bytes], qos);
                    let message = subscriber.receive();
                    assert_eq!((message.topic.as_str(), message.qos, message.payload.len()), ("a/b", qos, bytes));
                    assert_eq!(plain.receive().payload.len(), bytes);
                }
            }
            // Taken over by one that comes by TCP.
            let (taker, _) = Client::connect_with(server.local_addr(), &Connect::new(version, "subscriber"));
            subscriber.expect_disconnect(0x8e);
            taker.disconnect();
            publisher.disconnect();
        }
        server.stop().expect("it stops");
    }
}

#[test]
fn program_listens_as_its_file_says() {
    let (authority, dir) = (Authority::new("authority"), TempDir::new("quic"));
    let issued = authority.server(&["localhost"]);
    let text = format!(
        "[[listener]]\nurl = \"quic://127.0.0.1:0\"\ncertificate = {:?}\nprivate_key = {:?}\n",
        issued.certificate, issued.private_key
    );
    let file = dir.file("host.toml", &text);
    let process = Process::start([OsStr::new("--config"), file.as_os_str()]);
    let line = process.wait_log("listening on quic://");
    let (_, addr) = line.split_once("quic://").unwrap();
    let addr = addr.split(' ').next().unwrap().parse().expect("an address");
    open(addr, &authority, V5).connected("c").ping();
    process.stop();
}

#[test]
fn stopping_server_tells_its_clients() {
    let authority = Authority::new("authority");
    let (server, addr) = serve(3, &authority);
    let mut clients: Vec<_> = (0..5).map(|n| open(addr, &authority, V5).connected(&format!("c{n}"))).collect();
    server.stop().expect("it stops");
    for client in &mut clients {
        client.expect_disconnect(0x8b);
    }
}

#[test]
fn protocol_has_to_be_mqtt_and_the_server_the_one_that_was_meant() {
    let authority = Authority::new("authority");
    let (server, addr) = serve(1, &authority);
    for protocols in [&["h3"][..], &[]] {
        let refused = connect(addr, client_config(&authority, protocols));
        // TLS alert 120, no_application_protocol.
        let code = match refused.map(|_| ()) {
            Err(ConnectionError::ConnectionClosed(close)) => u64::from(close.error_code),
            other => panic!("{protocols:?}: {other:?}"),
        };
        assert_eq!(code, 0x100 + 120, "{protocols:?}");
    }
    let refused = connect(addr, client_config(&Authority::new("another"), &["mqtt"]));
    assert!(matches!(refused, Err(ConnectionError::TransportError(_))), "{refused:?}");
    let two = connect(addr, client_config(&authority, &["h3", "mqtt"])).expect("one of them is MQTT");
    two.close(0u8.into(), b"");
    server.stop().expect("it stops");
}

/// Lets in who comes by QUIC with the name of the server that it wants.
struct OnlyQuic;

#[handler]
impl Handler for OnlyQuic {
    type Connection = ();

    fn init(_host: Host, _config: &str) -> Result<Self, Error> {
        Ok(OnlyQuic)
    }

    fn new_connection(&self, _info: &ConnectionInfo<'_>) {}

    fn handle_connect(&self, _: &mut (), connect: &Seen<'_>) -> Result<ConnectVerdict, Error> {
        let transport = connect.transport();
        let tls = transport.tls().map(|tls| (tls.version(), tls.alpn(), tls.server_name()));
        if transport.kind() == plugin_api::TransportKind::Quic
            && tls == Some(("TLSv1.3", Some(b"mqtt"), Some("localhost")))
            && connect.peer().ip().is_loopback()
        {
            return Ok(ConnectVerdict::accept());
        }
        Ok(ConnectVerdict::reject(ReasonCode::NOT_AUTHORIZED))
    }
}

#[test]
fn handlers_see_that_it_is_quic() {
    let authority = Authority::new("authority");
    let server = start(3, |builder| builder.listener(listener(&authority)).handler::<OnlyQuic>("only-quic", "{}"));
    open(server.local_addrs()[1], &authority, V5).connected("c").ping();
    let (_, connack) = Client::connect_with(server.local_addr(), &Connect::new(V5, "c"));
    assert_eq!(connack.code, 0x87);
    server.stop().expect("it stops");
}

/// Lets in who has shown a certificate that calls it `good`, and who has shown none as `nobody`.
struct OnlyGood;

#[handler]
impl Handler for OnlyGood {
    type Connection = ();

    fn init(_host: Host, _config: &str) -> Result<Self, Error> {
        Ok(OnlyGood)
    }

    fn new_connection(&self, _info: &ConnectionInfo<'_>) {}

    fn handle_connect(&self, _: &mut (), connect: &Seen<'_>) -> Result<ConnectVerdict, Error> {
        let transport = connect.transport();
        let certificate = transport.certificate();
        let tls = transport.tls().map(|tls| (tls.alpn(), tls.server_name()));
        let is_right = match connect.client_id() {
            "good" => {
                tls == Some((Some(b"mqtt"), Some("localhost")))
                    && certificate.is_some_and(|shown| shown.subject() == "CN=good,O=Example" && shown.serial() == [1])
            }
            _ => certificate.is_none(),
        };
        let refused = ConnectVerdict::reject(ReasonCode::NOT_AUTHORIZED);
        Ok(if is_right { ConnectVerdict::accept() } else { refused })
    }
}

/// With which alert of TLS a client is closed.
fn alert(addr: SocketAddr, config: ClientConfig) -> u64 {
    // Its own part of the handshake may be over before the server has looked at its certificate.
    let closed = connect(addr, config).map_or_else(|error| error, |open| runtime().block_on(open.closed()));
    match closed {
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code) - 0x100,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_clients_with_a_good_certificate_are_let_in_where_it_is_required() {
    let (authority, other) = (Authority::new("authority"), Authority::new("other"));
    let good = authority.client_certificate("good", 1);
    let bad = authority.client_certificate("bad", 2);
    let stranger = other.client_certificate("stranger", 3);
    let mut old = rcgen::CertificateParams::default();
    old.not_after = rcgen::date_time_ymd(2024, 1, 2);
    let old = authority.issue("old", old);
    for (kind, required) in [(ClientCertificates::Required, true), (ClientCertificates::Optional, false)] {
        let mut config = listener(&authority);
        config.tls.client_certificates = kind;
        config.tls.client_authorities = vec![authority.file.clone()];
        config.tls.revocation_lists = vec![authority.revoked("list.pem", &[2], 2090)];
        let server = start(2, |builder| builder.listener(config).handler::<OnlyGood>("only-good", "{}"));
        let addr = server.local_addrs()[1];
        let with = |issued| speaking(authority.client_with(issued, &[&rustls::version::TLS13]), &["mqtt"]);
        open_with(addr, with(&good), V5).connected("good").ping();
        // certificate_revoked, certificate_expired, unknown_ca
        assert_eq!([&bad, &old, &stranger].map(|issued| alert(addr, with(issued))), [44, 45, 48]);
        let without = client_config(&authority, &["mqtt"]);
        if required {
            assert_eq!(alert(addr, without), 116, "certificate_required");
        } else {
            open_with(addr, without.clone(), V5).connected("nobody").ping();
            let (_, connack) = open_with(addr, without, V5).connecting(&Connect::new(V5, "good"));
            assert_eq!(connack.code, 0x87);
        }
        server.stop().expect("it stops");
    }
}

/// No password is asked for of who has shown a certificate that says who it is.
#[test]
fn a_certificate_may_say_who_the_user_is() {
    let authority = Authority::new("authority");
    let issued = authority.client_certificate("sensor-7", 7);
    let mut config = listener(&authority);
    config.tls.client_certificates = ClientCertificates::Required;
    config.tls.client_authorities = vec![authority.file.clone()];
    config.rules.username_from = Some(UsernameFrom::CommonName);
    let server = start(1, |builder| builder.listener(config).handler::<OnlySensor>("only-sensor", "{}"));
    let config = speaking(authority.client_with(&issued, &[&rustls::version::TLS13]), &["mqtt"]);
    open_with(server.local_addrs()[1], config, V5).connected("c").ping();
    server.stop().expect("it stops");
}

struct OnlySensor;

#[handler]
impl Handler for OnlySensor {
    type Connection = ();

    fn init(_host: Host, _config: &str) -> Result<Self, Error> {
        Ok(OnlySensor)
    }

    fn new_connection(&self, _info: &ConnectionInfo<'_>) {}

    fn handle_connect(&self, _: &mut (), connect: &Seen<'_>) -> Result<ConnectVerdict, Error> {
        let refused = ConnectVerdict::reject(ReasonCode::NOT_AUTHORIZED);
        Ok(if connect.username() == Some("sensor-7") { ConnectVerdict::accept() } else { refused })
    }
}
