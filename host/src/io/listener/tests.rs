use std::net::TcpStream;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;

use super::*;
use crate::limits::Limits;
use crate::listener::TcpKeepAlive;

/// One at a free port of this machine.
pub(in crate::io) fn listener() -> Listener {
    listener_with("127.0.0.1:0", &TcpConfig::default())
}

fn listener_with(addr: &str, tcp: &TcpConfig) -> Listener {
    let mut config = ListenerConfig::new(addr.parse().unwrap());
    config.tcp = tcp.clone();
    let bound = Bound::open(&config, None).unwrap();
    let name = bound.url().addr().unwrap().to_string();
    bound.with(ListenerProfile::new(name, Limits::default()))
}

pub(in crate::io) fn connect(listener: &Listener) -> std::io::Result<TcpStream> {
    TcpStream::connect(listener.url().addr().unwrap())
}

#[test]
fn accepted_sockets_do_not_delay_small_segments_and_do_not_block() {
    let listener = listener();
    let addr = listener.url().addr().unwrap();
    let client = TcpStream::connect(addr).unwrap();
    let accepted = listener.accept().unwrap();
    assert_eq!(accepted.peer, client.local_addr().unwrap());
    assert_eq!(accepted.listener.name(), addr.to_string());
    assert!(sockopt::tcp_nodelay(&accepted.fd).unwrap());
    let error = net::recv(&accepted.fd, &mut [0_u8; 1], net::RecvFlags::empty()).unwrap_err();
    assert_eq!(error, Errno::AGAIN);
}

#[test]
fn accepted_sockets_have_the_keep_alive_of_their_listener() {
    let keep_alive = TcpKeepAlive { probes: 3, ..TcpKeepAlive::after(Duration::from_secs(70)) };
    let config = TcpConfig { keep_alive: Some(keep_alive), ..TcpConfig::default() };
    for (config, expected) in [(TcpConfig::default(), false), (config, true)] {
        let listener = listener_with("127.0.0.1:0", &config);
        let _client = connect(&listener).unwrap();
        let fd = listener.accept().unwrap().fd;
        assert_eq!(sockopt::socket_keepalive(&fd).unwrap(), expected);
        if expected {
            assert_eq!(sockopt::tcp_keepidle(&fd).unwrap(), Duration::from_secs(70));
            assert_eq!(sockopt::tcp_keepintvl(&fd).unwrap(), TcpKeepAlive::INTERVAL);
            assert_eq!(sockopt::tcp_keepcnt(&fd).unwrap(), 3);
        }
    }
}

#[test]
fn port_is_shared_only_if_both_want_it() {
    let shared = TcpConfig { reuse_port: true, ..TcpConfig::default() };
    for (first, second, expected) in [
        (&shared, &shared, None),
        (&shared, &TcpConfig::default(), Some(io::ErrorKind::AddrInUse)),
        (&TcpConfig::default(), &shared, Some(io::ErrorKind::AddrInUse)),
    ] {
        let (_first, addr) = bind_tcp("127.0.0.1:0".parse().unwrap(), first).unwrap();
        let second = bind_tcp(addr, second);
        assert_eq!(second.err().map(|error| error.kind()), expected);
    }
}

/// A listener may take the place of another one before that is closed, and nobody else's is taken for it.
#[test]
fn place_that_another_listener_leaves_is_had_while_it_is_there() {
    let dual_stack = TcpConfig { dual_stack: true, ..TcpConfig::default() };
    let table = [
        ("127.0.0.1", "0.0.0.0", TcpConfig::default()),
        ("127.0.0.1", "[::]", dual_stack),
        ("0.0.0.0", "127.0.0.1", TcpConfig::default()),
        ("[::1]", "[::]", TcpConfig::default()),
    ];
    for (from, to, tcp) in table {
        let old = listener_with(&format!("{from}:0"), &TcpConfig::default());
        let port = old.url().addr().unwrap().port();
        let mut config = ListenerConfig::new(format!("{to}:{port}").parse().unwrap());
        config.tcp = tcp;
        let in_use = |opened: Result<Bound, Error>| match opened {
            Err(Error::Listen { source, .. }) => assert_eq!(source.kind(), io::ErrorKind::AddrInUse),
            other => panic!("{other:?}"),
        };
        in_use(Bound::open(&config, None));
        let bound = Bound::open_instead_of(&[&old], &config).unwrap();
        for socket in [&old.0.bound.socket, &bound.socket] {
            assert!(!sockopt::socket_reuseport(&**socket).unwrap(), "{from} {to}: nobody else may have the port");
        }
        in_use(Bound::open(&config, None));
        drop(old);
        let new = bound.with(ListenerProfile::new("new", Limits::default()));
        let at = if from.starts_with('[') { "[::1]" } else { "127.0.0.1" };
        let _client = TcpStream::connect(format!("{at}:{port}")).unwrap();
        new.accept().unwrap();
        // Where somebody else has the place, the one that was to leave stays as it was.
        let (other, elsewhere) = (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), listener());
        config.url = ListenerUrl::tcp(other.local_addr().unwrap());
        config.tcp = TcpConfig::default();
        in_use(Bound::open_instead_of(&[&elsewhere], &config));
        assert!(!sockopt::socket_reuseport(&*elsewhere.0.bound.socket).unwrap());
    }
}

#[test]
fn peers_of_both_families_keep_their_addresses() {
    let dual_stack = TcpConfig { dual_stack: true, ..TcpConfig::default() };
    let listener = listener_with("[::]:0", &dual_stack);
    let addr = listener.url().addr().unwrap();
    for ip in ["127.0.0.1", "::1"] {
        let client = TcpStream::connect((ip, addr.port())).unwrap();
        let peer = listener.accept().unwrap().peer;
        assert_eq!(peer, client.local_addr().unwrap(), "not in IPv6 form");
    }
    let one = listener_with("[::]:0", &TcpConfig::default());
    let addr = one.url().addr().unwrap();
    let refused = TcpStream::connect(("127.0.0.1", addr.port()));
    assert!(refused.is_err(), "[::] without dual_stack is IPv6 only");
}

#[test]
fn quic_takes_what_it_can_keep_to() {
    type Change = fn(&mut ListenerConfig);
    let open = |change: Change| {
        let mut config = ListenerConfig::new("quic://127.0.0.1:0".parse().unwrap());
        change(&mut config);
        Bound::open(&config, None).map(|_| ()).unwrap_err().to_string()
    };
    let table: [(Change, &str); 3] = [
        (
            |config| config.proxy_from.0.push("10.0.0.0/8".parse().unwrap()),
            "proxy_from is for tcp://, tls://, ws://, wss:// and unix:",
        ),
        (|config| config.tcp.reuse_port = true, "reuse_port is for tcp://, tls://, ws:// and wss://"),
        (|_| {}, "needs a certificate"),
    ];
    for (change, expected) in table {
        let error = open(change);
        let expected = if cfg!(feature = "quic") { expected } else { "this host is built without QUIC" };
        assert!(error.contains(expected), "{error}");
    }
}

/// Other settings hold for who connects from then on.
#[test]
fn settings_of_sockets_change() {
    let keep_alive = TcpKeepAlive::after(Duration::from_secs(70));
    let asked = TcpConfig { keep_alive: Some(keep_alive), backlog: 5, ..TcpConfig::default() };
    let listener = listener();
    for (tcp, expected) in [(asked, true), (TcpConfig::default(), false)] {
        let mut config = ListenerConfig::new("127.0.0.1:0".parse().unwrap());
        config.tcp = tcp;
        listener.adjust(&config).unwrap();
        let _client = connect(&listener).unwrap();
        assert_eq!(sockopt::socket_keepalive(&listener.accept().unwrap().fd).unwrap(), expected);
    }
    let dir = crate::control::tests::TempDir::new("adjust");
    let path = dir.path().join("s");
    let mut config = ListenerConfig::new(format!("unix:{}", path.display()).parse().unwrap());
    let listener = Bound::open(&config, None).unwrap().with(ListenerProfile::new("unix", Limits::default()));
    config.unix_mode = 0o600;
    listener.adjust(&config).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}
