//! How many may come by QUIC, and what those cost the server who give a false address.

use std::io::ErrorKind;
use std::net::UdpSocket;

use host::Limits;

use super::*;

fn limits(set: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    set(&mut limits);
    limits
}

/// Who does not get on makes room for one who waits, and has no place of those who do.
#[test]
fn who_opens_no_stream_makes_room() {
    let authority = Authority::new("authority");
    let limits = limits(|limits| (limits.handshakes_max, limits.handshake_timeout) = (4, Duration::from_secs(3600)));
    let server = start(1, |builder| builder.listener(listener(&authority)).limits(limits));
    let addr = server.local_addrs()[1];
    let idle: Vec<_> = (0..4).map(|_| connect(addr, client_config(&authority, &["mqtt"])).expect("a place")).collect();
    open(addr, &authority, V5).connected("c").ping();
    let closed = runtime().block_on(idle[0].closed());
    assert!(matches!(closed, ConnectionError::ApplicationClosed(_)), "{closed:?}");
    server.stop().expect("it stops");
}

#[test]
fn who_opens_no_stream_is_closed_in_time() {
    let authority = Authority::new("authority");
    let limits = limits(|limits| limits.handshake_timeout = Duration::from_millis(500));
    let server = start(1, |builder| builder.listener(listener(&authority)).limits(limits));
    let idle = connect(server.local_addrs()[1], client_config(&authority, &["mqtt"]));
    // Or before it was through, on a slow machine.
    let closed = idle.map_or_else(|error| error, |idle| runtime().block_on(idle.closed()));
    assert!(
        matches!(closed, ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_)),
        "{closed:?}"
    );
    server.stop().expect("it stops");
}

/// More than there are places for: the others wait, and who is there already is served meanwhile.
#[test]
fn all_of_many_handshakes_at_once_come_through() {
    const CLIENTS: usize = 60;
    let authority = Authority::new("authority");
    let limits = limits(|limits| limits.handshakes_max = 8);
    let server = start(2, |builder| builder.limits(limits).listener(listener(&authority)));
    let addr = server.local_addrs()[1];
    let mut canary = Client::connect(server.local_addr(), V5, "canary");
    let config = client_config(&authority, &["mqtt"]);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let config = config.clone();
            std::thread::spawn(move || open_with(addr, config, V5).connected(&format!("many{number}")).disconnect())
        })
        .collect();
    while !clients.iter().all(|client| client.is_finished()) {
        canary.ping();
    }
    assert_eq!(clients.into_iter().filter_map(|client| client.join().ok()).count(), CLIENTS);
    server.stop().expect("it stops");
}

/// The first packet of a client, which anybody may send from any address.
fn first_packet(authority: &Authority) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (config, addr) = (client_config(authority, &["mqtt"]), socket.local_addr().unwrap());
    let endpoint = endpoint();
    let _entered = runtime().enter();
    let _connecting = endpoint.connect_with(config, addr, "localhost").expect("an address");
    let mut packet = vec![0; 2000];
    let bytes = socket.recv(&mut packet).expect("a packet");
    packet.truncate(bytes);
    packet
}

/// Whether a datagram is a Retry packet (RFC 9000, 17.2.5).
fn is_retry(datagram: &[u8]) -> bool {
    datagram[0] & 0xf0 == 0xf0
}

/// Who sends packets from addresses that are not its own takes half of the places at most, and has little sent there.
#[test]
fn who_gives_a_false_address_keeps_nobody_out() {
    let authority = Authority::new("authority");
    let limits = limits(|limits| (limits.handshakes_max, limits.handshake_timeout) = (4, Duration::from_secs(3600)));
    let server = start(1, |builder| builder.listener(listener(&authority)).limits(limits));
    let addr = server.local_addrs()[1];
    let mut retries = Vec::new();
    let mut victims = Vec::new();
    for _ in 0..8 {
        let (packet, victim) = (first_packet(&authority), UdpSocket::bind("127.0.0.1:0").unwrap());
        victim.set_read_timeout(Some(PATIENCE)).unwrap();
        victim.send_to(&packet, addr).unwrap();
        let mut answer = [0; 2000];
        let bytes = victim.recv(&mut answer).expect("an answer");
        retries.push(is_retry(&answer[..bytes]));
        victims.push((victim, packet.len(), bytes));
    }
    assert_eq!(retries, [false, false, true, true, true, true, true, true]);
    open(addr, &authority, V5).connected("c").ping();
    for ((victim, sent, mut received), is_retry) in victims.into_iter().zip(retries) {
        victim.set_nonblocking(true).unwrap();
        let mut answer = [0; 2000];
        let end = loop {
            match victim.recv(&mut answer) {
                Ok(bytes) => received += bytes,
                Err(error) => break error.kind(),
            }
        };
        assert_eq!(end, ErrorKind::WouldBlock);
        let bound = if is_retry { sent } else { 3 * sent };
        assert!(received <= bound, "{received} bytes for {sent}");
    }
    server.stop().expect("it stops");
}

/// Whether a server hangs up on who comes, before a handshake.
fn is_turned_away(addr: SocketAddr, config: ClientConfig) -> bool {
    match connect(addr, config) {
        // CONNECTION_REFUSED
        Err(ConnectionError::ConnectionClosed(close)) => u64::from(close.error_code) == 2,
        _ => false,
    }
}

#[test]
fn who_fails_too_often_is_turned_away() {
    let authority = Authority::new("authority");
    let limits = limits(|limits| {
        (limits.failures_per_address_max, limits.failures_count_loopback) = (3, true);
        limits.failures_ban = Duration::from_secs(3600);
    });
    let config = client_config(&authority, &["mqtt"]);
    // By what it says in CONNECT.
    let server = start(2, |builder| {
        builder.limits(limits.clone()).listener(listener(&authority)).handler::<OnlyGood>("only-good", "{}")
    });
    let addr = server.local_addrs()[1];
    let mut inside = open(addr, &authority, V5).connected("nobody");
    for _ in 0..3 {
        let (_, connack) = open(addr, &authority, V5).connecting(&Connect::new(V5, "good"));
        assert_eq!(connack.code, 0x87);
    }
    assert!(is_turned_away(addr, config.clone()));
    inside.ping();
    server.stop().expect("it stops");
    // By its certificate, which it shows when it has been answered; but not by what may be somebody else's packet.
    let mut required = listener(&authority);
    required.tls.client_certificates = ClientCertificates::Required;
    required.tls.client_authorities = vec![authority.file.clone()];
    let server = start(1, |builder| builder.limits(limits).listener(required));
    let addr = server.local_addrs()[1];
    for _ in 0..5 {
        assert_eq!(alert(addr, client_config(&authority, &["h3"])), 120, "no_application_protocol");
    }
    for _ in 0..3 {
        assert_eq!(alert(addr, config.clone()), 116, "certificate_required");
    }
    assert!(is_turned_away(addr, config));
    server.stop().expect("it stops");
}
