//! Peers whose bytes are in order, and whose behaviour is not: too slow, gone, too many, never reading.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Target;
use crate::harness::{PATIENCE, eventually};
use crate::mqtt::{Client, Connect, Publish, V3_1_1, V5, VERSIONS, Will, field, packet, properties};

/// Runs a test with one worker and with three; afterwards the server has let go of everything.
#[track_caller]
fn with_target(limits: &str, test: impl Fn(&Target)) {
    for workers in [1, 3] {
        println!("with {workers} workers");
        let target = Target::start(workers, limits);
        target.serve();
        let mut descriptors = usize::MAX;
        eventually("the first client has gone", || {
            let before = std::mem::replace(&mut descriptors, target.descriptors());
            before == descriptors
        });
        test(&target);
        target.serve();
        eventually("what peers held is free", || target.descriptors() <= descriptors);
        target.process.stop();
    }
}

/// A socket that is reset when it is closed: its end is not waited for, and it leaves nothing behind in the system.
pub(super) fn abrupt(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).expect("the server accepts");
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).expect("an open socket");
    socket.set_nodelay(true).expect("an open socket");
    socket
}

/// Sends a byte now and then until the server has had enough. Returns what it said, and after which time: since `start`,
/// which was before the server began to count, however late this thread is.
fn drip(mut socket: TcpStream, bytes: &[u8], start: Instant) -> (Vec<u8>, Duration) {
    let mut got = Vec::new();
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("an open socket");
    for byte in bytes {
        assert!(start.elapsed() < PATIENCE, "it goes on for ever: {got:02x?}");
        let _ = socket.write_all(&[*byte]);
        let mut buffer = [0; 100];
        match socket.read(&mut buffer) {
            Ok(0) => return (got, start.elapsed()),
            Ok(count) => got.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return (got, start.elapsed()),
        }
    }
    panic!("the server has read all of it");
}

#[test]
fn slow_connect_is_closed_after_its_timeout() {
    // As long as this, because it holds for clients that behave as well, whose thread may have no core for a while.
    with_target("connect_timeout = \"3s\"", |target| {
        let addr = target.addr;
        let connect =
            Connect { username: Some("a name that is long enough"), ..Connect::new(V5, "x".repeat(900)) }.bytes();
        let peers: Vec<_> = [connect, vec![0x10, 0xff, 0xff, 0x10], vec![0x10], vec![]]
            .into_iter()
            .map(|begin| {
                std::thread::spawn(move || {
                    let start = Instant::now();
                    let mut socket = TcpStream::connect(addr).expect("the server accepts");
                    match begin.len() {
                        900.. => drip(socket, &begin, start),
                        _ => {
                            socket.write_all(&begin).expect("the server reads");
                            socket.set_read_timeout(Some(PATIENCE)).expect("an open socket");
                            let mut got = Vec::new();
                            socket.read_to_end(&mut got).expect("the end");
                            (got, start.elapsed())
                        }
                    }
                })
            })
            .collect();
        target.serve();
        for peer in peers {
            let (got, after) = peer.join().expect("it ends");
            assert_eq!(got, [0; 0]);
            assert!(after >= Duration::from_millis(2900), "after {after:?}");
        }
    });
}

#[test]
fn slow_packet_is_no_sign_of_life() {
    // [MQTT-3.1.2-22]
    with_target("", |target| {
        for version in VERSIONS {
            let start = Instant::now();
            let mut socket = TcpStream::connect(target.addr).expect("the server accepts");
            let connect = Connect { keep_alive: 1, ..Connect::new(version, "slow") }.bytes();
            socket.write_all(&connect).expect("the server reads");
            let mut connack = [0; 2];
            socket.read_exact(&mut connack).expect("CONNACK");
            socket.read_exact(&mut vec![0; connack[1].into()]).expect("CONNACK");
            let (got, after) = drip(socket, &Publish::new("t", vec![0; 100_000]).bytes(version), start);
            let expected: &[u8] = if version == V5 { &[0xe0, 1, 0x8d] } else { &[] };
            assert_eq!(got, expected);
            assert!(after >= Duration::from_millis(1400), "after {after:?}");
        }
    });
}

#[test]
fn half_closed_socket_gets_what_was_asked_for() {
    with_target("", |target| {
        for version in VERSIONS {
            let mut observer = Client::connect(target.addr, V5, "observer");
            observer.subscribe("will", 1);
            let will = Will { topic: "will", payload: "gone", ..Will::default() };
            let connect = Connect { will: Some(will), ..Connect::new(version, "half") }.bytes();
            let filter = [properties(version, &[]), field("half"), vec![1]].concat();
            let subscribe = packet(0x82, &[vec![0, 1], filter].concat());
            let mut client = Client::open(target.addr, version);
            let publish = |id| Publish::new("half", "x").qos(1, id).bytes(version);
            client.send([connect, subscribe, publish(2), publish(3), vec![0xc0, 0]].concat());
            client.finish_sending();
            assert_eq!(client.connack().code, 0);
            let mut types: Vec<u8> = std::iter::from_fn(|| client.try_read()).map(|packet| packet[0] >> 4).collect();
            types.sort_unstable();
            // Its own messages, their acknowledgements, SUBACK and PINGRESP.
            assert_eq!(types, [3, 3, 4, 4, 9, 13]);
            assert_eq!(observer.receive().text(), "gone");
            observer.disconnect();
        }
    });
}

#[test]
fn resets_at_any_moment_leave_nothing_behind() {
    with_target("", |target| {
        for round in 0..100 {
            let version = VERSIONS[round % 3];
            let connect = Connect::new(version, format!("reset-{}", round % 7)).persistent().bytes();
            let more = [connect.clone(), Publish::new("t", vec![1; 3000]).qos(2, 1).bytes(version)].concat();
            for bytes in [&[][..], &connect[..5], &connect, &more[..more.len() - 100], &more] {
                abrupt(target.addr).write_all(bytes).expect("the server reads");
            }
            let mut socket = abrupt(target.addr);
            socket.write_all(&more).expect("the server reads");
            socket.read_exact(&mut [0; 4]).expect("CONNACK");
        }
    });
}

#[test]
fn thousands_of_connections_that_never_connect() {
    with_target("connect_timeout = \"3s\"", |target| {
        for _ in 0..5 {
            let silent: Vec<TcpStream> = (0..400).map(|_| abrupt(target.addr)).collect();
            target.serve();
            drop(silent);
        }
        // Nor does it need them to leave.
        let mut silent: Vec<TcpStream> = (0..400).map(|_| abrupt(target.addr)).collect();
        for socket in &mut silent {
            socket.set_read_timeout(Some(PATIENCE)).expect("an open socket");
            assert_eq!(socket.read_to_end(&mut Vec::new()).expect("the end"), 0);
        }
    });
}

#[test]
fn who_asks_and_never_reads_is_closed() {
    with_target("outbound_bytes_max = \"256KiB\"", |target| {
        let before = target.resident_bytes();
        for version in [V3_1_1, V5] {
            let mut client = Client::connect(target.addr, version, "deaf");
            // The system's buffers take some of the answers.
            let pings = [0xc0, 0].repeat(1 << 16);
            let start = Instant::now();
            while client.try_send(&pings) {
                assert!(start.elapsed() < PATIENCE, "it is still served");
            }
        }
        let grown = target.resident_bytes().saturating_sub(before);
        assert!(grown < 64 << 20, "{grown} bytes more");
    });
}

#[test]
fn subscribers_that_never_read_cost_what_the_bounds_say() {
    const LIMITS: &str = "outbound_bytes_max = \"256KiB\"\nqueue_bytes_max = \"1MiB\"\nin_flight_max = 16";
    with_target(LIMITS, |target| {
        let mut deaf: Vec<Client> = (0..8)
            .map(|number: u8| {
                let mut client =
                    Client::connect(target.addr, VERSIONS[usize::from(number % 3)], format!("deaf-{number}"));
                client.subscribe("fire/hose", number % 3);
                client
            })
            .collect();
        let before = target.resident_bytes();
        let mut publisher = Client::connect(target.addr, V5, "publisher");
        let payload = vec![7; 16 << 10];
        for qos in [0, 1, 2, 1].repeat(1000) {
            publisher.publish("fire/hose", &payload, qos);
        }
        let grown = target.resident_bytes().saturating_sub(before);
        // 64 MiB were published, for eight of them. Each may hold 1.25 MiB, and the allocator as much again.
        assert!(grown < 40 << 20, "{grown} bytes more");
        // Who reads after all gets the oldest, in order of the QoS 1 messages.
        assert_eq!(deaf[0].read_publish().payload.len(), payload.len());
    });
}
