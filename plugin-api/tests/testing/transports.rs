//! How a client comes is shown to the handler as the broker shows it.

use plugin_api::testing::{TestCertificate, TestHost, TestTransport};
use plugin_api::*;

/// Says what it is shown.
struct Witness {
    host: Host,
}

fn shown(transport: &Transport<'_>) -> String {
    let certificate = transport.certificate().map(|certificate| {
        let names: Vec<_> = certificate.alternative_names().collect();
        (certificate.subject().to_owned(), certificate.common_name().map(str::to_owned), format!("{names:?}"))
    });
    let http = transport.http().map(|http| {
        (http.path().to_owned(), http.header("authorization").map(|value| String::from_utf8_lossy(value).into_owned()))
    });
    let sni = transport.tls().and_then(|tls| tls.server_name().map(str::to_owned));
    let uid = transport.unix().map(|unix| unix.uid);
    format!("{:?} {sni:?} {certificate:?} {http:?} {uid:?} {:?}", transport.kind(), transport.proxy())
}

#[handler]
impl Handler for Witness {
    type Connection = ();

    fn init(host: Host, _: &str) -> Result<Self, Error> {
        Ok(Self { host })
    }

    fn new_connection(&self, info: &ConnectionInfo<'_>) {
        self.host.info(shown(&info.transport()));
    }

    fn handle_connect(&self, (): &mut (), connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        self.host.info(shown(&connect.transport()));
        Ok(ConnectVerdict::accept())
    }
}

#[test]
fn handler_sees_certificate_headers_socket_and_proxy() {
    let certificate = TestCertificate::new("O=Example,CN=sensor-7")
        .alternative_name(NameKind::Dns, "a.example")
        .alternative_name(NameKind::Uri, "urn:b");
    let proxy = "10.0.0.1:443".parse().expect("an address");
    let table = [
        (TestTransport::tcp(), "Tcp None None None None None"),
        (TestTransport::tls().server_name("b.example"), "Tls Some(\"b.example\") None None None None"),
        (
            TestTransport::tls().certificate(certificate),
            "Tls None Some((\"O=Example,CN=sensor-7\", Some(\"sensor-7\"), \"[(Dns, \\\"a.example\\\"), (Uri, \\\"urn:b\\\")]\")) \
             None None None",
        ),
        (
            TestTransport::secure_websocket("/mqtt?x=1").header("Authorization", "Bearer t"),
            "Wss None None Some((\"/mqtt?x=1\", Some(\"Bearer t\"))) None None",
        ),
        (TestTransport::unix(1000, 100, 7), "Unix None None None Some(1000) None"),
        (TestTransport::websocket("/").proxy(proxy), "Ws None None Some((\"/\", None)) None Some(10.0.0.1:443)"),
    ];
    for (transport, expected) in table {
        let host = TestHost::new::<Witness>("{}").expect("it starts");
        let client = host.client("c").transport(transport).connect().expect("everybody comes in");
        let seen: Vec<String> = host.take_logs().into_iter().map(|line| line.text).collect();
        assert_eq!(seen, [expected, expected]);
        // The request of a WebSocket is told until CONNECT has been answered.
        host.swap::<Witness>("{}").expect("it takes over");
        let seen: Vec<String> = host.take_logs().into_iter().map(|line| line.text).collect();
        assert_eq!(seen.len(), 1);
        assert!(!seen[0].contains("Some((\"/"), "{seen:?}");
        assert!(client.ended().is_none());
    }
}
