//! Many clients that work, while processes, versions of the host and of a plugin alternate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::mqtt::V3_1;

/// Messages that a client has on their way at a time.
const AT_ONCE: usize = 4;

/// What one publisher and one subscriber of it have to say. Each message comes once, and in order; none is lost.
fn publish_and_check(addr: SocketAddr, number: usize, is_kept: bool, until: &AtomicBool, count: &AtomicU64) {
    let (version, qos) = ([V3_1, V3_1_1, V5][number % 3], (number / 3 % 3) as u8);
    let topic = format!("load/{number}");
    let open = |client_id: String| {
        let connect = Connect::new(version, client_id);
        Client::connect_with(addr, &if is_kept { connect.persistent() } else { connect }).0
    };
    let mut to = open(format!("to-{number}"));
    to.subscribe(&topic, qos);
    let mut from = open(format!("from-{number}"));
    let mut expected = 0;
    while !until.load(Ordering::Relaxed) {
        let ids: Vec<_> = (0..AT_ONCE).map(|_| from.new_id().max(1)).collect();
        for (at, id) in ids.iter().enumerate() {
            from.send(Publish::new(&topic, format!("{}", expected + at)).qos(qos, *id).bytes(version));
        }
        if qos > 0 {
            ids.iter().for_each(|id| assert_eq!(from.expect_ack(if qos == 1 { 4 } else { 5 }, *id), 0));
        }
        if qos == 2 {
            ids.iter().for_each(|id| from.send_ack(0x62, *id));
            ids.iter().for_each(|id| assert_eq!(from.expect_ack(7, *id), 0));
        }
        for _ in &ids {
            let message = to.receive();
            assert_eq!((message.text(), message.dup), (expected.to_string().as_str(), false), "{topic}, QoS {qos}");
            expected += 1;
        }
        count.fetch_add(ids.len() as u64, Ordering::Relaxed);
    }
    to.publish("none/of/it", "", 1);
    to.disconnect();
    from.disconnect();
}

/// The program under test, and the same of another version.
fn programs(dir: &TempDir) -> [PathBuf; 2] {
    let mark = b"MQTT host, version ";
    let mut program = std::fs::read(env!("CARGO_BIN_EXE_host")).unwrap();
    let places: Vec<usize> =
        program.windows(mark.len()).enumerate().filter(|(_, at)| at == mark).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the program says which version it is");
    for at in places {
        let version = &mut program[at + mark.len()..][..host::version().len()];
        if version == host::version().as_bytes() {
            version.iter_mut().filter(|byte| byte.is_ascii_digit()).for_each(|byte| *byte = b'9');
        }
    }
    let other = dir.path().join("other");
    std::fs::write(&other, program).unwrap();
    std::fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let same = dir.path().join("same");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_host"), &same).unwrap();
    [same, other]
}

/// Puts a file in the place of another one, as whoever installs something does.
fn install(from: &std::path::Path, to: &std::path::Path) {
    let new = to.with_extension("new");
    let _ = std::fs::remove_file(&new);
    if std::fs::hard_link(std::fs::canonicalize(from).unwrap(), &new).is_err() {
        std::fs::copy(from, &new).unwrap();
    }
    std::fs::rename(new, to).unwrap();
}

/// `UPGRADE_PAIRS` (of clients) and `UPGRADES` make it longer.
fn load(more: &[&str], is_kept: bool) {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let (pairs, upgrades): (usize, usize) = (number("UPGRADE_PAIRS", 12), number("UPGRADES", 3));
    let dir = TempDir::new("upgrade-load");
    let (program, plugin) = (dir.path().join("host"), dir.path().join("handler.so"));
    let programs = programs(&dir);
    let versions = ["9.9.9", host::version()];
    install(&programs[0], &program);
    install(&library("v1"), &plugin);
    let args = ["--workers", "2", "--plugin", plugin.to_str().unwrap(), "--connections-max", "20000"];
    let host = Host::start_as(Command::new(&program), dir, &[&args[..], more].concat());
    let (until, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let work = |pair| {
        let (addr, until, count) = (host.addr, Arc::clone(&until), Arc::clone(&count));
        std::thread::spawn(move || publish_and_check(addr, pair, is_kept, &until, &count))
    };
    let threads: Vec<_> = (0..pairs).map(work).collect();
    let mut pauses = Vec::new();
    for round in 0..upgrades {
        let before = count.load(Ordering::Relaxed);
        eventually("messages go on", || count.load(Ordering::Relaxed) > before + (AT_ONCE * pairs) as u64);
        let (next, handler) = ((round + 1) % 2, if round % 2 == 0 { "v2" } else { "v1" });
        install(&programs[next], &program);
        install(&library(handler), &plugin);
        let result = host.upgrade();
        assert_eq!(result["closed"].as_u64(), Some(0), "{result}");
        assert_eq!(result["host"], versions[round % 2], "{result}");
        pauses.push(Duration::from_millis(result["paused_ms"].as_u64().unwrap()));
        let mut client = Client::connect(host.addr, V5, "asks");
        client.subscribe("answer", 0);
        client.publish("ask", "", 1);
        assert_eq!(client.receive().text(), handler);
        println!("{}", result["summary"]);
    }
    let before = count.load(Ordering::Relaxed);
    eventually("messages go on", || count.load(Ordering::Relaxed) > before + (AT_ONCE * pairs) as u64);
    until.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("a client that has got everything once"));
    pauses.sort_unstable();
    let messages = count.load(Ordering::Relaxed);
    println!("{messages} messages; nothing was read for {:?} to {:?}", pauses.first(), pauses.last());
}

#[test]
fn nothing_is_lost_and_nobody_is_disconnected_under_load() {
    load(&[], false);
}

#[test]
fn the_same_where_it_is_kept() {
    let data = TempDir::new("upgrade-load-data");
    load(&["--data-dir", data.path().to_str().unwrap()], true);
}
