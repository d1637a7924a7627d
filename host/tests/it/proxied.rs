//! Listeners behind a proxy: headers by hand, and HAProxy.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use host::Server;
use host::listener::ListenerConfig;
use plugin_api::{
    Connect, ConnectVerdict, ConnectionInfo, Error, Handler, Host, ReasonCode, Transport, TransportKind, handler,
};

use crate::certificates::{Authority, tls_listener, tls_over};
use crate::harness::{Process, TempDir, eventually, have, start};
use crate::mqtt::{Client, Connect as Packet, V3_1_1, V5, Wire};

/// Lets in whoever knows how it looks from here: its Client Identifier is the peer, the proxy and the certificate's name.
struct Mirror;

#[handler]
impl Handler for Mirror {
    type Connection = ();

    fn init(_host: Host, _config: &str) -> Result<Self, Error> {
        Ok(Mirror)
    }

    fn new_connection(&self, _info: &ConnectionInfo<'_>) {}

    fn handle_connect(&self, _: &mut (), connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        let seen = looks(connect.peer(), &connect.transport());
        if connect.client_id() == seen {
            return Ok(ConnectVerdict::accept());
        }
        println!("{} looks like {seen}", connect.client_id());
        Ok(ConnectVerdict::reject(ReasonCode::NOT_AUTHORIZED))
    }
}

fn looks(peer: SocketAddr, transport: &Transport<'_>) -> String {
    // The port of a proxy's connection is as it comes.
    let proxy = transport.proxy().map_or("none".to_owned(), |proxy| proxy.ip().to_string());
    let name = transport.certificate().and_then(|certificate| certificate.common_name());
    let told = transport.tls().filter(|_| transport.kind() == TransportKind::Tcp);
    let server = told.and_then(|tls| tls.server_name());
    format!("{peer} {proxy} {} {}", name.unwrap_or("-"), server.unwrap_or("-"))
}

fn behind_proxy(url: &str, from: &[&str]) -> ListenerConfig {
    let mut config = ListenerConfig::new(url.parse().unwrap());
    config.proxy_from.0 = from.iter().map(|from| from.parse().unwrap()).collect();
    config
}

/// What it says leads to its end, which it may see before it has said all.
#[track_caller]
fn refused<W: Wire>(mut client: Client<W>, bytes: &[u8]) {
    client.try_send(bytes);
    client.expect_closed();
}

const LINE: &str = "PROXY TCP4 192.0.2.1 192.0.2.2 1000 1883\r\n";

/// What a client behind the proxy of this machine looks like.
const FROM_LINE: &str = "192.0.2.1:1000 127.0.0.1 - -";

/// Version 2, from [2001:db8::1]:7 by TLS to `mqtt.example`, with a verified certificate of `gerät-7`.
fn version_2() -> Vec<u8> {
    let tlv = |kind: u8, value: &[u8]| [&[kind, 0, u8::try_from(value.len()).unwrap()], value].concat();
    let ssl = [&[7, 0, 0, 0, 0][..], &tlv(0x21, b"TLSv1.3"), &tlv(0x22, "gerät-7".as_bytes())].concat();
    let tlvs = [tlv(0x02, b"mqtt.example"), tlv(0x20, &ssl)].concat();
    let source = [0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let rest = [&source[..], &source, &[0, 7, 0x22, 0xB3], &tlvs].concat();
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x21", &length[..], &rest].concat()
}

const FROM_VERSION_2: &str = "[2001:db8::1]:7 127.0.0.1 gerät-7 mqtt.example";

#[test]
fn clients_behind_a_proxy_are_who_it_says() {
    for workers in [1, 3] {
        let listener = behind_proxy("tcp://127.0.0.1:0", &["10.0.0.0/8", "127.0.0.1"]);
        let server = start(workers, |builder| builder.listener(listener).handler::<Mirror>("mirror", "{}"));
        let addr = server.local_addrs()[1];
        let open = |header: &[u8]| {
            let mut client = Client::open(addr, V5);
            client.send(header);
            client
        };
        open(LINE.as_bytes()).connected(FROM_LINE).ping();
        open(&version_2()).connected(FROM_VERSION_2).ping();
        // The proxy's own connection, and one of which it knows nothing.
        for own in [&b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"[..], b"PROXY UNKNOWN\r\n"] {
            let socket = TcpStream::connect(addr).unwrap();
            let looks = format!("{} none - -", socket.local_addr().unwrap());
            let mut client = Client::over(socket, V5);
            client.send(own);
            client.connected(&looks).ping();
        }
        // Header and CONNECT in one piece, and byte by byte.
        let connect = Packet::new(V3_1_1, FROM_LINE).bytes();
        let all = [LINE.as_bytes(), &connect].concat();
        let mut at_once = Client::open(addr, V3_1_1);
        at_once.send(&all);
        assert_eq!(at_once.connack().code, 0);
        let mut slowly = Client::open(addr, V3_1_1);
        all.chunks(1).for_each(|byte| slowly.send(byte));
        assert_eq!(slowly.connack().code, 0);
        // The listener beside it believes nobody.
        refused(Client::open(server.local_addr(), V5), LINE.as_bytes());
        server.stop().expect("it stops");
    }
}

#[test]
fn who_is_not_trusted_or_says_nothing_is_closed() {
    let trusted = behind_proxy("tcp://127.0.0.1:0", &["127.0.0.1"]);
    let untrusted = behind_proxy("tcp://127.0.0.1:0", &["10.0.0.0/8", "::1", "unix"]);
    let server = start(1, |builder| builder.listener(trusted).listener(untrusted).handler::<Mirror>("mirror", "{}"));
    let [_, trusted, untrusted] = server.local_addrs() else { panic!("three listeners") };
    let connect = Packet::new(V5, FROM_LINE).bytes();
    let with_header = [LINE.as_bytes(), &connect].concat();
    let cut = b"PROXY TCP4 192.0.2.1 192.0.2.300 1000 1883\r\n";
    for (addr, bytes) in [(untrusted, &with_header[..]), (trusted, &connect), (trusted, cut), (trusted, &[0; 200])] {
        refused(Client::open(*addr, V5), bytes);
    }
    let mut client = Client::open(*trusted, V5);
    client.send(LINE);
    client.connected(FROM_LINE).ping();
    server.stop().expect("it stops");
}

#[test]
fn header_comes_before_tls() {
    let authority = Authority::new("authority");
    let issued = authority.server(&["localhost"]);
    let mut listener = tls_listener(&issued);
    listener.proxy_from = behind_proxy("127.0.0.1:0", &["127.0.0.0/8"]).proxy_from;
    let server = start(1, |builder| builder.listener(listener).handler::<Mirror>("mirror", "{}"));
    let open = |header: &[u8]| {
        let mut socket = TcpStream::connect(server.local_addrs()[1]).unwrap();
        socket.write_all(header).unwrap();
        tls_over(socket, authority.client(), V5)
    };
    // What TLS says here counts, not what the proxy says of its own.
    open(&version_2()).connected("[2001:db8::1]:7 127.0.0.1 - -").ping();
    open(LINE.as_bytes()).connected("192.0.2.1:1000 127.0.0.1 - -").ping();
    server.stop().expect("it stops");
}

#[test]
fn proxy_may_come_by_a_unix_socket() {
    let dir = TempDir::new("proxied");
    let path = dir.path().join("s");
    let url = format!("unix:{}", path.display());
    let server = start(1, |builder| builder.listener(behind_proxy(&url, &["unix"])).handler::<Mirror>("mirror", "{}"));
    let mut client = Client::over(UnixStream::connect(&path).unwrap(), V5);
    client.send(LINE);
    client.connected(FROM_LINE).ping();
    server.stop().expect("it stops");
    // A network of addresses is nobody's who has none.
    let server =
        start(1, |builder| builder.listener(behind_proxy(&url, &["0.0.0.0/0"])).handler::<Mirror>("mirror", "{}"));
    refused(Client::over(UnixStream::connect(&path).unwrap(), V5), LINE.as_bytes());
    server.stop().expect("it stops");
}

/// Loopback is not where its clients are.
#[test]
fn listener_behind_a_proxy_needs_somebody_who_decides() {
    let start = |url: &str| Server::builder().listener(behind_proxy(url, &["127.0.0.1"])).start();
    let error = start("tcp://127.0.0.1:0").map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("reach it through the proxies of its proxy_from, and no plugin decides"), "{error}");
}

/// A free port; it may be taken by another test before it is used, where that matters.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// As an operator sets it up: TLS ends at HAProxy, which verifies the clients' certificates.
#[test]
fn haproxy_tells_who_its_clients_are() {
    if !have("haproxy", &["-v"], "apt-get install haproxy") {
        return;
    }
    let server = start(1, |builder| {
        let listener = || behind_proxy("tcp://127.0.0.1:0", &["127.0.0.1"]);
        builder.listener(listener()).listener(listener()).handler::<Mirror>("mirror", "{}")
    });
    let [_, to_v1, to_v2] = server.local_addrs() else { panic!("three listeners") };
    let (authority, dir) = (Authority::new("authority"), TempDir::new("haproxy"));
    let issued = authority.server(&["localhost"]);
    let pem = [&issued.certificate, &issued.private_key].map(|file| std::fs::read_to_string(file).unwrap()).concat();
    let (pem, authorities) = (dir.file("server.pem", &pem), dir.file("authority.pem", &authority.pem()));
    let (v1, v2) = (free_port(), free_port());
    let config = format!(
        "defaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n\
         listen one\n bind 127.0.0.1:{v1}\n server host {to_v1} send-proxy\n\
         listen two\n bind 127.0.0.1:{v2} ssl crt {} ca-file {} verify required\n \
         server host {to_v2} send-proxy-v2 proxy-v2-options ssl,cert-cn,authority,crc32c\n",
        pem.display(),
        authorities.display()
    );
    let file = dir.file("haproxy.cfg", &config);
    let _haproxy = Process::spawn(Command::new("haproxy").args(["-db", "-f"]).arg(&file));
    let connect = |port| {
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        eventually("HAProxy listens", || TcpStream::connect(addr).is_ok());
        let socket = TcpStream::connect(addr).unwrap();
        let from = socket.local_addr().unwrap();
        (socket, from)
    };
    let (socket, from) = connect(v1);
    Client::over(socket, V5).connected(&format!("{from} 127.0.0.1 - -")).ping();
    let (socket, from) = connect(v2);
    let config = authority.client_with(&authority.client_certificate("sensor-7", 7), rustls::DEFAULT_VERSIONS);
    let mut client = tls_over(socket, config, V5).connected(&format!("{from} 127.0.0.1 sensor-7 localhost"));
    client.ping();
    server.stop().expect("it stops");
}
