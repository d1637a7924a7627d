//! Memory stays bounded, whatever peers do: a host with small bounds, peers that do their worst, all at once.
//!
//! None of them ever reads. Together they ask for more than a gigabyte, of a server that may hold 16 MiB a worker.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{Process, eventually, host_command};
use crate::mqtt::{Client, Connect, Publish, V5, field, packet, properties};

const WORKERS: usize = 2;
const MIB: usize = 1 << 20;
/// How often everything is done again.
const ROUNDS: usize = 5;
/// A part of what is asked for in a round, as a payload.
const LARGE: usize = 60_000;

/// What the server may take beyond what it has when nobody is there. For each worker `worker_bytes_max` and a quarter, four
/// full mailboxes and the batches on their way there, buffers that it keeps for later; then what is retained, with its
/// nodes, and half of everything again for the allocator.
const RSS_MAX: usize = (WORKERS * (20 + 8 + 8 + 16) + 16) * 3 / 2 * MIB;

fn bounds() -> Vec<String> {
    let all = [
        ("workers", "2"),
        ("worker-bytes-max", "16MiB"),
        ("mailbox-bytes-max", "2MiB"),
        ("queue-bytes-max", "4MiB"),
        ("outbound-bytes-max", "1MiB"),
        ("retained-bytes-max", "8MiB"),
        ("retained-messages-max", "5000"),
    ];
    all.iter().flat_map(|(name, value)| [format!("--{name}"), (*value).to_owned()]).collect()
}

/// Resident bytes of a process.
fn rss(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("every process has it");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number of KiB") * 1024
}

/// A peer that never reads. Whatever becomes of its connection, it goes on.
struct Peer(TcpStream);

impl Peer {
    fn new(addr: SocketAddr, connect: &Connect) -> Self {
        let socket = TcpStream::connect(addr).expect("the server accepts");
        socket.set_write_timeout(Some(Duration::from_secs(5))).expect("a socket has one");
        let mut peer = Self(socket);
        peer.send(&connect.bytes());
        peer
    }

    fn named(addr: SocketAddr, name: String) -> Self {
        Self::new(addr, &Connect::new(V5, name))
    }

    /// `false` if the server has had enough of it.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    fn subscribe(&mut self, filters: impl IntoIterator<Item = (String, u8)>) {
        let mut body = vec![0, 1];
        body.extend(properties(V5, &[]));
        for (filter, options) in filters {
            body.extend(field(filter));
            body.push(options);
        }
        self.send(&packet(0x82, &body));
    }
}

type Attack = fn(SocketAddr) -> Vec<Peer>;

/// Subscribers that do not read, and who publishes to them as fast as it can.
fn floods(addr: SocketAddr) -> Vec<Peer> {
    let mut peers: Vec<Peer> = (0..24).map(|number| Peer::named(addr, format!("flooded{number}"))).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.subscribe([("flood/#".to_owned(), (number % 3) as u8)]);
    }
    for qos in 0..3 {
        let mut from = Peer::named(addr, format!("flood{qos}"));
        for id in 1..=300 {
            let publish = Publish::new(format!("flood/{qos}"), vec![b'x'; LARGE]).qos(qos, id);
            if !from.send(&publish.bytes(V5)) || qos == 2 && !from.send(&packet(0x62, &id.to_be_bytes())) {
                break;
            }
        }
        peers.push(from);
    }
    peers
}

/// Packets of 16 MiB that are never finished.
fn unfinished(addr: SocketAddr) -> Vec<Peer> {
    let start = [&[0x30, 0xF0, 0xFF, 0xFF, 0x07][..], &field("t"), &vec![b'x'; 4 * MIB]].concat();
    let begin = |number| {
        let mut peer = Peer::named(addr, format!("unfinished{number}"));
        peer.send(&start);
        peer
    };
    (0..60).map(begin).collect()
}

/// QoS 2 messages that are never released.
fn unreleased(addr: SocketAddr) -> Vec<Peer> {
    let publish = |number| {
        let mut peer = Peer::named(addr, format!("unreleased{number}"));
        (1..=100).all(|id| peer.send(&Publish::new("unreleased", vec![b'x'; LARGE]).qos(2, id).bytes(V5)));
        peer
    };
    (0..10).map(publish).collect()
}

/// Sessions whose clients have gone, and what is published for them.
fn absent(addr: SocketAddr) -> Vec<Peer> {
    for number in 0..20 {
        let connect = Connect::new(V5, format!("absent{number}")).persistent();
        Peer::new(addr, &connect).subscribe([(format!("absent/{number}"), 1)]);
    }
    let mut from = Peer::named(addr, "to the absent".to_owned());
    for number in 0..1500_u16 {
        let publish = Publish::new(format!("absent/{}", number % 20), vec![b'x'; LARGE]).qos(1, number % 1000 + 1);
        if !from.send(&publish.bytes(V5)) {
            break;
        }
    }
    vec![from]
}

/// Retained messages, of many levels, and who wants all of them.
fn retained(addr: SocketAddr) -> Vec<Peer> {
    let mut peers: Vec<Peer> = (0..20).map(|number| Peer::named(addr, format!("wants{number}"))).collect();
    let mut from = Peer::named(addr, "retains".to_owned());
    for number in 0..6000 {
        let topic = format!("kept/{number}{}", "/x".repeat(100));
        from.send(&Publish::new(topic, vec![b'x'; 2000]).retained().bytes(V5));
        if number % 300 == 0 {
            peers[number / 300].subscribe([("kept/#".to_owned(), 1)]);
        }
    }
    peers.push(from);
    peers
}

/// Subscriptions of a hundred levels each, of which none is like another.
fn deep_filters(addr: SocketAddr) -> Vec<Peer> {
    let subscribe = |number| {
        let mut peer = Peer::named(addr, format!("deep{number}"));
        for part in 0..10 {
            peer.subscribe((0..50).map(|filter| (format!("{number}.{part}.{filter}{}", "/x".repeat(100)), 0)));
        }
        peer
    };
    (0..10).map(subscribe).collect()
}

/// Subscriptions again and again, with all that is retained.
fn subscribes(addr: SocketAddr) -> Vec<Peer> {
    let subscribe = |number| {
        let mut peer = Peer::named(addr, format!("many{number}"));
        for part in 0..4 {
            peer.subscribe((0..2000).map(|filter| (format!("many/{number}/{}", part * 1000 + filter), 0)));
            peer.subscribe([("#".to_owned(), 0)]);
        }
        peer
    };
    (0..5).map(subscribe).collect()
}

/// Every Topic Alias that may be set, with a long Topic Name.
fn aliases(addr: SocketAddr) -> Vec<Peer> {
    let publish = |number| {
        let mut peer = Peer::named(addr, format!("alias{number}"));
        for alias in 1..=64 {
            let topic = "x".repeat(LARGE);
            let publish = Publish { properties: vec![0x23, 0, alias], ..Publish::new(topic, "") };
            peer.send(&publish.bytes(V5));
        }
        peer
    };
    (0..20).map(publish).collect()
}

/// CONNECT packets as large as they may be: a User Property is the part of a will that is not bounded to 64 KiB.
fn wills(addr: SocketAddr) -> Vec<Peer> {
    let property = [&[0x26][..], &field("k"), &field(vec![b'v'; LARGE])].concat();
    let connect = |number| {
        let will =
            crate::mqtt::Will { topic: "will", payload: "gone", properties: property.repeat(7), ..Default::default() };
        Peer::new(addr, &Connect { will: Some(will), ..Connect::new(V5, format!("will{number}")) })
    };
    (0..100).map(connect).collect()
}

/// Connections that come and go.
fn comings_and_goings(addr: SocketAddr) -> Vec<Peer> {
    for number in 0..600 {
        drop(Peer::named(addr, format!("comes{}", number % 7)));
    }
    Vec::new()
}

const ATTACKS: [Attack; 10] =
    [floods, unfinished, unreleased, absent, retained, deep_filters, subscribes, aliases, wills, comings_and_goings];

/// Tells another thread to end, whatever happens in this one.
struct AtLast<'a>(&'a AtomicBool);

impl Drop for AtLast<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One round of everything at once. Returns the most that the server had resident meanwhile.
fn round(addr: SocketAddr, pid: u32, served: &AtomicUsize) -> usize {
    let (done, peak) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let _done = AtLast(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(rss(pid), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let attacks: Vec<_> = ATTACKS.iter().map(|attack| scope.spawn(move || attack(addr))).collect();
        let peers: Vec<Vec<Peer>> = attacks.into_iter().map(|attack| attack.join().expect("it sends")).collect();
        // With all of them there, the canary is still served.
        let before = served.load(Ordering::Relaxed);
        eventually("the canary is served", || served.load(Ordering::Relaxed) > before + 10);
        drop(peers);
    });
    // Who was absent comes back, and leaves for good: the next round begins where this one did.
    for number in 0..20 {
        drop(Peer::named(addr, format!("absent{number}")));
    }
    peak.into_inner()
}

#[test]
fn memory_stays_bounded_whatever_peers_do() {
    // Large blocks go back to the system when they are freed, whatever the allocator has learned before: then what is
    // resident is what is in use.
    let mut command = host_command();
    command.env("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=131072");
    let mut host = Process::spawn(command.args(["--listen", "127.0.0.1:0"]).args(bounds()));
    let addr = host.wait_listening();
    let (at_rest, served, stop) = (rss(host.id()), AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // A server that is full lets nobody new in.
        let mut canary = Client::connect(addr, V5, "canary");
        canary.subscribe("canary", 0);
        let (served, stop) = (&served, &stop);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                canary.publish("canary", "still there?", 0);
                assert_eq!(canary.receive().text(), "still there?");
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
        let stopping = AtLast(stop);
        let peaks: Vec<usize> = (0..ROUNDS).map(|_| round(addr, host.id(), served)).collect();
        drop(stopping);
        println!("at rest {at_rest}, at most in each round {peaks:?}, bound {RSS_MAX}; {served:?} round trips");
        for peak in &peaks {
            assert!(peak - at_rest < RSS_MAX, "{peak} bytes resident");
        }
        // Even a small part of a gigabyte that stayed each time would be seen. Rounds differ by what comes together.
        let most = |peaks: &[usize]| peaks.iter().copied().max().expect("there are some");
        let (first, last) = peaks.split_at(ROUNDS - 2);
        assert!(most(last) < 2 * most(first), "it grows from round to round: {peaks:?}");
    });
    host.stop();
}
