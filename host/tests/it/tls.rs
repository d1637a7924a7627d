//! Listeners with TLS.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use host::config::Config;
use host::control::protocol::Refusal;
use host::listener::{CertificateFiles, ClientCertificates, ListenerConfig, TlsVersion, UsernameFrom};
use host::{Server, ServerHandle};
use plugin_api::{Connect as ConnectView, ConnectVerdict, ConnectionInfo, Error, Handler, Host, NameKind, handler};
use rcgen::CertificateParams;
use rustls::{ClientConfig, HandshakeKind, version};

use crate::certificates::{Authority, Issued, TlsWire, tls_listener, tls_open, tls_to};
use crate::harness::{PATIENCE, TempDir, eventually, have, output, start};
use crate::mqtt::{Client, Connect, V5, VERSIONS, Wire};

/// What handlers were told, by Client Identifier.
static TOLD: Mutex<Option<HashMap<String, String>>> = Mutex::new(None);

struct Witness;

#[handler]
impl Handler for Witness {
    type Connection = ();

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    fn handle_connect(&self, (): &mut (), connect: &ConnectView<'_>) -> Result<ConnectVerdict, Error> {
        let transport = connect.transport();
        let mut text = format!("{:?}", transport.kind());
        if let Some(tls) = transport.tls() {
            let alpn = tls.alpn().map(String::from_utf8_lossy);
            text += &format!(" {} {:?} {alpn:?}", tls.version(), tls.server_name());
            assert!(tls.cipher_suite().starts_with("TLS"), "{}", tls.cipher_suite());
        }
        if let Some(certificate) = transport.certificate() {
            text += &format!(" {} {:?}", certificate.subject(), certificate.serial());
            let names: Vec<_> = certificate.alternative_names().collect();
            if !names.is_empty() {
                let (user, fingerprint) = (connect.username(), certificate.sha256());
                text = format!("{:?} {user:?} {names:?} {fingerprint:x?}", connect.listener());
            }
        }
        TOLD.lock().unwrap().get_or_insert_default().insert(connect.client_id().to_owned(), text);
        Ok(ConnectVerdict::accept())
    }
}

/// What handlers were told of a client, once.
fn told(client_id: &str) -> String {
    TOLD.lock().unwrap().get_or_insert_default().remove(client_id).expect("it has come to handlers")
}

/// A server with this TLS listener, and the listener's address.
fn serve(config: ListenerConfig) -> (ServerHandle, SocketAddr) {
    let server = start(2, |builder| builder.handler::<Witness>("witness", "{}").listener(config));
    let addr = server.local_addrs()[1];
    (server, addr)
}

/// What becomes of a client that does not get in.
fn refused(addr: SocketAddr, config: impl Into<Arc<ClientConfig>>) -> String {
    let mut wire = tls_to(TcpStream::connect(addr).unwrap(), config, "localhost");
    let sent = wire.write_all(&Connect::new(V5, "refused").bytes()).and_then(|()| wire.flush());
    let read = sent.and_then(|()| wire.read(&mut [0; 100]));
    read.expect_err("it is refused").to_string()
}

/// A client that has been let in, of which handlers know.
#[track_caller]
fn welcome(addr: SocketAddr, config: impl Into<Arc<ClientConfig>>, client_id: &str) -> Client<TlsWire> {
    tls_open(addr, config, V5).connected(client_id)
}

#[test]
fn clients_come_by_tls() {
    let authority = Authority::new("authority");
    let issued = authority.server(&["localhost"]);
    for workers in [1, 3] {
        let server = start(workers, |builder| builder.listener(tls_listener(&issued)));
        let addr = server.local_addrs()[1];
        for (version, tls) in VERSIONS.into_iter().zip([&version::TLS12, &version::TLS13, &version::TLS13]) {
            let config = Arc::new(authority.client_of(&[tls]));
            let open = || tls_open(addr, Arc::clone(&config), version);
            let mut subscriber = open().connected("subscriber");
            subscriber.subscribe("a/#", 2);
            let mut plain = Client::connect(server.local_addr(), version, "plain");
            plain.subscribe("a/#", 2);
            let mut publisher = open().connected("publisher");
            for qos in 0..3 {
                for bytes in [0, 1, 20_000, 1_000_000] {
                    publisher.publish("a/b", vec![b'x'; bytes], qos);
                    let message = subscriber.receive();
                    assert_eq!((message.topic.as_str(), message.qos, message.payload.len()), ("a/b", qos, bytes));
                    assert_eq!(plain.receive().payload.len(), bytes);
                }
            }
            // Taken over by another one.
            let (taker, _) = open().connecting(&Connect::new(version, "subscriber"));
            subscriber.expect_disconnect(0x8e);
            taker.disconnect();
            publisher.disconnect();
        }
        server.stop().expect("it stops");
    }
}

/// What is sent in one write arrives, whatever its records are, and before the peer has read anything of the handshake.
#[test]
fn records_may_come_in_any_pieces() {
    let authority = Authority::new("authority");
    let (server, addr) = serve(tls_listener(&authority.server(&["localhost"])));
    let mut client = tls_open(addr, authority.client(), V5);
    let mut ping = Connect::new(V5, "pieces").bytes();
    ping.extend([0xc0, 0].repeat(5000));
    client.send(&ping);
    assert_eq!(client.connack().code, 0);
    for _ in 0..5000 {
        client.expect(&[0xd0, 0]);
    }
    // Byte by byte, which makes a record of each and a segment of each byte of it.
    let wire = client.wire();
    wire.conn.writer().write_all(&[0xc0, 0, 0xc0, 0]).unwrap();
    let mut records = Vec::new();
    wire.conn.write_tls(&mut records).unwrap();
    for byte in records {
        wire.sock.write_all(&[byte]).unwrap();
    }
    client.expect(&[0xd0, 0]);
    client.expect(&[0xd0, 0]);
    // The end of the stream, said by TLS alone.
    client.wire().conn.send_close_notify();
    client.wire().flush().unwrap();
    client.expect_closed();
    server.stop().unwrap();
}

#[test]
fn only_clients_with_a_good_certificate_are_let_in_where_it_is_required() {
    let (authority, other) = (Authority::new("authority"), Authority::new("other"));
    let server_certificate = authority.server(&["localhost"]);
    let mut old = CertificateParams::default();
    old.not_after = rcgen::date_time_ymd(2024, 1, 2);
    let expired = authority.issue("expired", old);
    let good = authority.client_certificate("good", 1);
    let bad = authority.client_certificate("bad", 2);
    let stranger = other.client_certificate("stranger", 3);
    for (kind, required) in [(ClientCertificates::Required, true), (ClientCertificates::Optional, false)] {
        let mut config = tls_listener(&server_certificate);
        config.tls.client_certificates = kind;
        config.tls.client_authorities = vec![authority.file.clone()];
        config.tls.revocation_lists = vec![authority.revoked("list.pem", &[2], 2090)];
        let (server, addr) = serve(config);
        for tls in [&version::TLS12, &version::TLS13] {
            let versions = &[tls];
            welcome(addr, authority.client_with(&good, versions), "good").disconnect();
            let told_of = told("good");
            assert!(told_of.starts_with("Tls TLSv1.") && told_of.ends_with(" CN=good,O=Example [1]"), "{told_of}");
            for (issued, expected) in
                [(&expired, "CertificateExpired"), (&bad, "CertificateRevoked"), (&stranger, "UnknownCA")]
            {
                let error = refused(addr, authority.client_with(issued, versions));
                assert!(error.contains(expected), "{tls:?}: {error}");
            }
            let without = authority.client_of(versions);
            if required {
                let error = refused(addr, without);
                assert!(
                    error.contains("CertificateRequired") || error.contains("HandshakeFailure"),
                    "{tls:?}: {error}"
                );
            } else {
                welcome(addr, without, "without").disconnect();
                assert!(told("without").ends_with(" Some(\"localhost\") None"));
            }
        }
        server.stop().unwrap();
    }
}

/// Handlers are told by which listener, all names, and the fingerprint; and a name may be the User Name, whatever CONNECT says.
#[test]
fn a_certificate_says_who_the_client_is() {
    let authority = Authority::new("authority");
    let name = |text: &str| rcgen::string::Ia5String::try_from(text.to_owned()).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![
        rcgen::SanType::DnsName(name("sensor-7.example")),
        rcgen::SanType::Rfc822Name(name("seven@example")),
        rcgen::SanType::IpAddress([192, 0, 2, 7].into()),
    ];
    let issued = authority.issue("sensor-7", params);
    let der: rustls::pki_types::CertificateDer<'_> =
        rustls::pki_types::pem::PemObject::from_pem_file(&issued.certificate).unwrap();
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let fingerprint = suite.common.hash_provider.hash(&der);
    for (from, user) in [
        (UsernameFrom::AlternativeName(NameKind::Dns), "sensor-7.example"),
        (UsernameFrom::AlternativeName(NameKind::Email), "seven@example"),
        (UsernameFrom::AlternativeName(NameKind::Ip), "192.0.2.7"),
    ] {
        let mut config = tls_listener(&authority.server(&["localhost"]));
        config.name = Some("front".into());
        config.tls.client_certificates = ClientCertificates::Required;
        config.tls.client_authorities = vec![authority.file.clone()];
        config.rules.username_from = Some(from);
        let (server, addr) = serve(config);
        let config = authority.client_with(&issued, rustls::DEFAULT_VERSIONS);
        let connect = Connect { username: Some("somebody-else"), ..Connect::new(V5, "named") };
        let (client, connack) = tls_open(addr, config, V5).connecting(&connect);
        assert_eq!(connack.code, 0);
        let names = "[(Dns, \"sensor-7.example\"), (Email, \"seven@example\"), (Ip, \"192.0.2.7\")]";
        assert_eq!(told("named"), format!("\"front\" Some({user:?}) {names} {:x?}", fingerprint.as_ref()));
        client.disconnect();
        server.stop().unwrap();
    }
}

/// Where the list is out of date, or there is none of this authority, nobody knows who has been revoked.
#[test]
fn nobody_is_let_in_by_revocation_lists_that_say_nothing() {
    let (authority, other) = (Authority::new("authority"), Authority::new("other"));
    let good = authority.client_certificate("good", 1);
    for list in [authority.revoked("old.pem", &[], 2025), other.revoked("others.pem", &[], 2090)] {
        let mut config = tls_listener(&authority.server(&["localhost"]));
        config.tls.client_certificates = ClientCertificates::Required;
        config.tls.client_authorities = vec![authority.file.clone(), other.file.clone()];
        config.tls.revocation_lists = vec![list];
        let (server, addr) = serve(config);
        let error = refused(addr, authority.client_with(&good, rustls::DEFAULT_VERSIONS));
        assert!(error.contains("fatal alert"), "{error}");
        server.stop().unwrap();
    }
}

#[test]
fn clients_are_shown_the_certificate_that_they_ask_for() {
    let authority = Authority::new("authority");
    let (first, second) = (authority.server(&["localhost"]), authority.server(&["a.example", "*.b.example"]));
    let third = authority.server(&["c.b.example"]);
    let mut config = tls_listener(&first);
    config.tls.more_certificates = [&second, &third].map(files).to_vec();
    let (server, addr) = serve(config);
    let client = Arc::new(authority.client());
    let shown = |name| {
        let mut wire = tls_to(TcpStream::connect(addr).unwrap(), Arc::clone(&client), name);
        // A client that does not find the name in the certificate says so.
        wire.flush().map_err(|error| error.to_string()).map(|()| wire.conn.peer_certificates().unwrap()[0].clone())
    };
    let of = |issued: &Issued| rustls::pki_types::pem::PemObject::from_pem_file(&issued.certificate).unwrap();
    for (name, issued) in [
        ("localhost", &first),
        ("a.example", &second),
        ("A.Example", &second),
        ("x.b.example", &second),
        ("c.b.example", &third),
    ] {
        assert_eq!(shown(name), Ok(of(issued)), "{name}");
    }
    for name in ["b.example", "x.y.b.example", "elsewhere.example"] {
        assert!(shown(name).unwrap_err().contains("not valid for name"), "{name}");
    }
    server.stop().unwrap();
}

fn files(issued: &Issued) -> CertificateFiles {
    CertificateFiles::new(&issued.certificate, Some(issued.private_key.clone()))
}

#[test]
fn protocols_and_versions_are_agreed_on_or_refused() {
    let authority = Authority::new("authority");
    let mut listener = tls_listener(&authority.server(&["localhost"]));
    let (server, addr) = serve(listener.clone());
    for (offered, expected) in
        [(vec![], "None"), (vec!["mqtt"], "Some(\"mqtt\")"), (vec!["h2", "mqtt"], "Some(\"mqtt\")")]
    {
        let mut config = authority.client();
        config.alpn_protocols = offered.iter().map(|name: &&str| name.as_bytes().to_vec()).collect();
        welcome(addr, config, "alpn").disconnect();
        assert_eq!(told("alpn"), format!("Tls TLSv1.3 Some(\"localhost\") {expected}"), "{offered:?}");
    }
    let mut config = authority.client();
    config.alpn_protocols = vec![b"h2".to_vec()];
    assert!(refused(addr, config).contains("NoApplicationProtocol"));
    server.stop().unwrap();
    listener.tls.version_min = TlsVersion::V1_3;
    let (server, addr) = serve(listener);
    welcome(addr, authority.client(), "newer").disconnect();
    assert!(refused(addr, authority.client_of(&[&version::TLS12])).contains("ProtocolVersion"));
    server.stop().unwrap();
}

/// How the handshake of a connection went, once it has got as far as CONNACK: before, tickets may not have come.
fn kind_of_handshake(addr: SocketAddr, config: &Arc<ClientConfig>) -> Option<HandshakeKind> {
    let mut client = welcome(addr, Arc::clone(config), "resumed");
    let kind = client.wire().conn.handshake_kind();
    client.disconnect();
    kind
}

#[test]
fn sessions_are_resumed_until_clients_are_verified_otherwise() {
    let authority = Authority::new("authority");
    let issued = authority.client_certificate("resumed", 7);
    let mut listener = tls_listener(&authority.server(&["localhost"]));
    listener.tls.client_certificates = ClientCertificates::Required;
    listener.tls.client_authorities = vec![authority.file.clone()];
    let list = authority.revoked("list.pem", &[], 2090);
    listener.tls.revocation_lists = vec![list];
    let (server, addr) = serve(listener);
    for tls in [&version::TLS12, &version::TLS13] {
        authority.revoked("list.pem", &[], 2090);
        assert!(server.reload_certificates().iter().all(Result::is_ok));
        let config = Arc::new(authority.client_with(&issued, &[tls]));
        assert_eq!(kind_of_handshake(addr, &config), Some(HandshakeKind::Full), "{tls:?}");
        assert_eq!(kind_of_handshake(addr, &config), Some(HandshakeKind::Resumed), "{tls:?}");
        assert!(told("resumed").ends_with(" CN=resumed,O=Example [7]"), "it is still known who it is");
        assert!(server.reload_certificates().iter().all(Result::is_ok));
        assert_eq!(kind_of_handshake(addr, &config), Some(HandshakeKind::Resumed), "nothing has changed");
        // Who has been revoked does not come back with a session from before.
        authority.revoked("list.pem", &[7], 2090);
        assert!(server.reload_certificates().iter().all(Result::is_ok));
        assert!(refused(addr, Arc::clone(&config)).contains("CertificateRevoked"), "{tls:?}");
    }
    server.stop().unwrap();
}

/// Copies a certificate to where a listener looks for it.
pub(crate) fn put(issued: &Issued, dir: &TempDir) -> Issued {
    let copy = |from: &Path, name: &str| -> PathBuf {
        let (to, temporary) = (dir.path().join(name), dir.path().join("temporary"));
        std::fs::copy(from, &temporary).unwrap();
        std::fs::rename(temporary, &to).unwrap();
        to
    };
    let certificate = copy(&issued.certificate, "certificate.pem");
    Issued { certificate, private_key: copy(&issued.private_key, "key.pem") }
}

/// The certificate that a server shows to who comes for the first time.
fn shown(addr: SocketAddr, config: &Arc<ClientConfig>) -> Vec<u8> {
    let mut config = ClientConfig::clone(config);
    config.resumption = rustls::client::Resumption::disabled();
    let mut wire = tls_to(TcpStream::connect(addr).unwrap(), config, "localhost");
    wire.flush().expect("the certificate is good");
    wire.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn certificates_are_read_anew_and_nobody_is_disconnected() {
    let (authority, dir) = (Authority::new("authority"), TempDir::new("certificates"));
    let (first, second, third) = (
        authority.server(&["localhost"]),
        authority.server(&["localhost", "second"]),
        authority.server(&["localhost", "third"]),
    );
    let place = put(&first, &dir);
    let (server, addr) = serve(tls_listener(&place));
    let config = Arc::new(authority.client());
    let mut stays = welcome(addr, Arc::clone(&config), "stays");
    let before = shown(addr, &config);
    // By themselves, once they have changed.
    put(&second, &dir);
    eventually("the new certificate is shown", || shown(addr, &config) != before);
    let before = shown(addr, &config);
    // Something that is of no use: the old one goes on.
    std::fs::write(&place.private_key, "nothing").unwrap();
    let errors: Vec<_> = server.reload_certificates().into_iter().filter_map(Result::err).collect();
    assert!(errors.len() == 1 && errors[0].to_string().contains("there is no private key in"), "{errors:?}");
    assert_eq!(shown(addr, &config), before);
    // When it is told to.
    put(&third, &dir);
    assert!(server.reload_certificates().iter().all(Result::is_ok));
    assert_ne!(shown(addr, &config), before);
    stays.ping();
    stays.disconnect();
    server.stop().unwrap();
}

#[test]
fn listeners_come_and_go_while_clients_stay() {
    let authority = Authority::new("authority");
    let (first, second) = (authority.server(&["localhost"]), authority.server(&["localhost", "second"]));
    let plain = ListenerConfig::new("tcp://127.0.0.1:0".parse().unwrap());
    let with = |listeners: &[&ListenerConfig]| {
        let mut config = Config::default();
        config.listeners = listeners.iter().copied().cloned().collect();
        config
    };
    let mut current = with(&[&plain]);
    let server = Server::builder().workers(2).listener(plain.clone()).start().unwrap();
    let mut reload = |listeners: &[&ListenerConfig]| {
        let (next, report) = server.reload(&current, &with(listeners))?;
        current = next;
        Ok::<_, Refusal>(report.changed.iter().map(|change| change.key.clone()).collect::<Vec<_>>())
    };
    let mut plain_client = Client::connect(server.local_addr(), V5, "plain");
    // The first one with TLS, for which there are no threads yet.
    let (with_first, with_second) = (tls_listener(&first), tls_listener(&second));
    assert_eq!(reload(&[&plain, &with_first]).unwrap(), ["listener tls://127.0.0.1:0"]);
    let addr = server.local_urls()[1].addr().unwrap();
    let config = Arc::new(authority.client());
    let mut tls_client = tls_open(addr, Arc::clone(&config), V5).connected("tls");
    let before = shown(addr, &config);
    // Another certificate at the same place.
    let changed = reload(&[&plain, &with_second]).unwrap();
    let key = |key| format!("listener tls://127.0.0.1:0: {key}");
    assert_eq!(changed, ["certificate", "private_key"].map(key));
    eventually("the new certificate is shown", || shown(addr, &config) != before);
    // What is wrong changes nothing.
    let mut wrong = tls_listener(&first);
    wrong.tls.certificate = Some("/no/such".into());
    assert!(reload(&[&wrong]).is_err());
    let open_to_all = ListenerConfig::new("tcp://0.0.0.0:0".parse().unwrap());
    let refusal = reload(&[&open_to_all]).unwrap_err();
    assert!(refusal.reason.contains("no plugin decides who may connect"), "{}", refusal.reason);
    assert_eq!(server.local_urls().len(), 2);
    Client::connect(server.local_addr(), V5, "again").disconnect();
    // Gone: nobody connects there any more, and who is there stays.
    assert_eq!(reload(&[&plain]).unwrap(), ["listener tls://127.0.0.1:0"]);
    eventually("its port is closed", || TcpStream::connect(addr).is_err());
    tls_client.ping();
    plain_client.ping();
    tls_client.disconnect();
    plain_client.disconnect();
    server.stop().unwrap();
    assert!(reload(&[&with_first]).is_err(), "it has stopped");
}

#[test]
fn server_does_not_start_with_certificates_that_are_of_no_use() {
    let (authority, dir) = (Authority::new("authority"), TempDir::new("certificates"));
    let (good, other) = (authority.server(&["localhost"]), authority.server(&["other"]));
    let empty = dir.file("empty.pem", "");
    let check = |change: &dyn Fn(&mut ListenerConfig), expected: &str| {
        let mut config = tls_listener(&good);
        change(&mut config);
        let error = Server::builder().listener(config).start().map(|_| ()).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.starts_with("cannot listen at tls://127.0.0.1:0: "), "{error}");
    };
    check(&|config| config.tls.certificate = None, "TLS needs a certificate");
    check(&|config| config.tls.certificate = Some("/no/such".into()), "cannot read a certificate from /no/such");
    check(&|config| config.tls.certificate = Some(empty.clone()), "there is not a certificate in");
    check(&|config| config.tls.private_key = Some(empty.clone()), "there is no private key in");
    check(&|config| config.tls.private_key = None, "there is no private key in");
    // As OpenSSL writes them with a passphrase, now and formerly.
    for text in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIIB\n-----END RSA PRIVATE KEY-----\n",
    ] {
        let encrypted = dir.file("encrypted.pem", text);
        check(
            &|config| config.tls.private_key = Some(encrypted.clone()),
            "encrypted.pem is encrypted, and there is nobody",
        );
    }
    check(&|config| config.tls.private_key = Some(other.private_key.clone()), "do not belong together");
    check(
        &|config| config.tls.client_certificates = ClientCertificates::Required,
        "there is nobody whom they can come from",
    );
    check(&|config| config.tls.client_authorities = vec![authority.file.clone()], "clients are not asked for");
    check(
        &|config| {
            config.tls.client_certificates = ClientCertificates::Optional;
            config.tls.client_authorities = vec![authority.file.clone()];
            config.tls.revocation_lists = vec![authority.file.clone()];
        },
        "there is not a revocation list in",
    );
}

/// Who says nothing, or nonsense, is closed, and nobody else notices.
#[test]
fn peers_that_do_not_speak_tls_are_closed() {
    let authority = Authority::new("authority");
    let server = start(1, |builder| {
        let mut limits = host::Limits::default();
        limits.handshakes_max = 4;
        limits.handshake_timeout = std::time::Duration::from_secs(3);
        builder.limits(limits).listener(tls_listener(&authority.server(&["localhost"])))
    });
    let addr = server.local_addrs()[1];
    let config = Arc::new(authority.client());
    let mut inside = welcome(addr, Arc::clone(&config), "inside");
    let mut closed = |bytes: &[u8]| {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.set_patience(PATIENCE);
        // It may have been closed in the middle of it.
        let _ = socket.write_all(bytes);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        inside.ping();
        answer
    };
    for (sent, why) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "no record at all"),
        (&Connect::new(V5, "plain").bytes(), "MQTT without TLS"),
        (&[0x16, 3, 1, 0, 4, 1, 0, 0, 0], "a hello without anything in it"),
        (&[0x17, 3, 3, 0, 1, 0], "data before the handshake"),
    ] {
        let answer = closed(sent);
        assert!(answer.starts_with(&[0x15, 3, 3, 0, 2, 2]) && answer.len() == 7, "{why}: {answer:02x?}");
    }
    // A message that is longer than any, and more bytes than its beginning is worth.
    let mut long = vec![0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    long.resize(5 + 0x4000, 0);
    closed(&long.repeat(8));
    // More of those who say nothing than there is room for: who comes then is let in nevertheless.
    let silent: Vec<_> = (0..16).map(|_| TcpStream::connect(addr).unwrap()).collect();
    welcome(addr, Arc::clone(&config), "patient").disconnect();
    for mut socket in silent {
        socket.set_patience(PATIENCE);
        assert_eq!(socket.read(&mut [0]).unwrap_or(0), 0, "it is closed");
        inside.ping();
    }
    // In the middle of the handshake, and after it.
    let mut wire = tls_to(TcpStream::connect(addr).unwrap(), Arc::clone(&config), "localhost");
    let mut hello = Vec::new();
    wire.conn.write_tls(&mut hello).unwrap();
    wire.sock.write_all(&hello[..hello.len() / 2]).unwrap();
    wire.sock.shutdown(Shutdown::Write).unwrap();
    assert_eq!(wire.sock.read(&mut [0]).unwrap(), 0);
    let mut client = welcome(addr, Arc::clone(&config), "broken");
    client.wire().sock.write_all(&[0x17, 3, 3, 0, 20].repeat(5)).unwrap();
    let error = client.wire().read(&mut [0; 9]).unwrap_err().to_string();
    assert!(error.contains("BadRecordMac"), "{error}");
    inside.ping();
    inside.disconnect();
    server.stop().unwrap();
}

/// The clients of Mosquitto, which have another TLS (OpenSSL), with certificates of their own.
#[test]
fn mosquitto_clients_come_by_tls() {
    if !have("sh", &["-c", "command -v mosquitto_pub && command -v mosquitto_sub"], "apt-get install mosquitto-clients")
    {
        return;
    }
    let authority = Authority::new("authority");
    let mut config = tls_listener(&authority.server(&["localhost"]));
    config.tls.client_certificates = ClientCertificates::Required;
    config.tls.client_authorities = vec![authority.file.clone()];
    let client = authority.client_certificate("mosquitto", 9);
    let (server, addr) = serve(config);
    let run = |program: &str, args: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.args(["-h", "localhost", "-p", &addr.port().to_string(), "--cafile"]).arg(&authority.file);
        command.arg("--cert").arg(&client.certificate).arg("--key").arg(&client.private_key).args(args);
        output(&mut command)
    };
    for (version, tls, alpn) in [("mqttv311", "tlsv1.2", None), ("5", "tlsv1.3", None), ("5", "tlsv1.3", Some("mqtt"))]
    {
        let mut args = vec!["-V", version, "--tls-version", tls, "-t", "a/b", "-q", "1"];
        args.extend(alpn.iter().flat_map(|alpn| ["--tls-alpn", *alpn]));
        let publish = run("mosquitto_pub", &[&args[..], &["-i", "mosquitto-tls", "-m", "hello", "-r"]].concat());
        assert!(publish.status.success(), "{publish:?}");
        let said = told("mosquitto-tls");
        assert!(said.starts_with("Tls TLSv1.") && said.ends_with("CN=mosquitto,O=Example [9]"), "{said}");
        let read = run("mosquitto_sub", &[&args[..], &["-C", "1", "-W", "60"]].concat());
        assert_eq!(String::from_utf8_lossy(&read.stdout), "hello\n", "{read:?}");
    }
    server.stop().unwrap();
}

/// Many handshakes at once: each client gets in, and who is there already is served meanwhile.
#[test]
fn all_of_many_handshakes_at_once_come_through() {
    const CLIENTS: usize = 300;
    let authority = Authority::new("authority");
    let mut limits = host::Limits::default();
    // Fewer than come: the others wait for their turn.
    limits.handshakes_max = 50;
    let server = start(2, |builder| builder.limits(limits).listener(tls_listener(&authority.server(&["localhost"]))));
    let addr = server.local_addrs()[1];
    let mut plain = Client::connect(server.local_addr(), V5, "canary");
    let config = Arc::new(authority.client());
    let sockets: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let clients = std::thread::spawn(move || {
        let threads: Vec<_> = sockets
            .into_iter()
            .enumerate()
            .map(|(number, socket)| {
                let config = Arc::clone(&config);
                std::thread::spawn(move || {
                    crate::certificates::tls_over(socket, config, V5).connected(&format!("many{number}")).disconnect();
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).count()
    });
    let mut pings = 0;
    while !clients.is_finished() {
        plain.ping();
        pings += 1;
    }
    assert!(pings > 0);
    assert_eq!(clients.join().unwrap(), CLIENTS);
    plain.disconnect();
    server.stop().unwrap();
}
