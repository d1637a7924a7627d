//! `host store`, and what a host says of a directory that is damaged, older or newer than itself.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::harness::{Process, TempDir, host_output, library};
use crate::mqtt::{Client, Connect, Publish, V3_1_1, V5};

fn serve(data: &Path, more: &[&str]) -> (Process, SocketAddr) {
    let args = ["--data-dir", text(data), "--workers", "2"];
    Process::listening(args.iter().chain(more))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Runs `host store`, and returns its exit code and what it has said, on both outputs.
fn store(args: &[&str]) -> (Option<i32>, String) {
    let output = host_output(["store"].iter().chain(args));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    println!("host store {args:?}: {said}");
    (output.status.code(), said)
}

/// A server that does not start, and why.
fn refusal(data: &Path) -> String {
    let output = host_output(["--listen", "127.0.0.1:0", "--data-dir", text(data)]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

/// A session that is there already, or is new.
fn client(addr: SocketAddr, version: u8, client_id: &str, is_there: bool) -> Client {
    let (client, connack) = Client::connect_with(addr, &Connect::new(version, client_id).persistent());
    assert_eq!((connack.session_present, connack.code), (is_there, 0), "{client_id}");
    client
}

fn segments(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "journal")).collect();
    segments.sort();
    segments
}

/// Everything that a client could have, on one machine, and then on another one.
#[test]
fn what_is_exported_on_one_machine_and_imported_on_another_is_there_for_its_clients() {
    let dir = TempDir::new("store-export");
    let (data, other, file, again) =
        (dir.path().join("data"), dir.path().join("other"), dir.path().join("a.jsonl"), dir.path().join("b.jsonl"));
    let steward = library("steward");
    let plugin = ["--plugin", text(&steward)];
    let (process, addr) = serve(&data, &plugin);
    let mut operator = Client::connect(addr, V5, "operator");
    operator.subscribe("done", 0);
    operator.send(Publish::new("do", "put colour blue").bytes(V5));
    assert_eq!(operator.receive().text(), "put");
    for (version, name) in [(V5, "new"), (V3_1_1, "old")] {
        let mut to = client(addr, version, &format!("to {name}"), false);
        to.subscribe(&format!("{name}/#"), 2);
        let mut from = client(addr, version, &format!("from {name}"), false);
        assert_eq!(from.publish(&format!("{name}/1"), "first", 1), 0);
        assert_eq!(from.publish(&format!("{name}/2"), [0xFF, 0x00], 2), 0);
        let (first, second) = (to.read_publish(), to.read_publish());
        to.acknowledge(&first);
        to.send_ack(0x50, second.packet_id);
        assert_eq!(to.expect_ack(6, second.packet_id), 0);
        drop(to);
        assert_eq!(from.publish_message(Publish::new(format!("{name}/3"), "third").qos(1, 0).retained()), 0);
        // Accepted, and not released.
        from.send(Publish::new(format!("{name}/4"), "fourth").qos(2, 100).bytes(version));
        assert_eq!(from.expect_ack(5, 100), 0);
    }
    let (code, said) = store(&["export", text(&data), text(&file)]);
    assert!(code == Some(2) && said.contains(&format!("process {} has it", process.id())), "{said}");
    assert!(!file.exists());
    // It is killed, so that part of it is in the journal only.
    drop(process);

    let (code, said) = store(&["export", text(&data), text(&file)]);
    // One of the values is the host's: the names of its plugins.
    let counts = "4 sessions with 2 subscriptions, 6 messages for them, 2 retained messages, 2 values of plugins";
    assert!(code == Some(0) && said.contains(&format!("exported: {counts}")), "{said}");
    let lines = fs::read_to_string(&file).unwrap();
    for part in [
        r#"{"type":"key_value","plugin":"steward","key":"colour","value":"blue"}"#,
        r#"{"type":"key_value","plugin":"","key":"plugins","value":"steward"}"#,
        r#""message":{"topic":"new/3","payload":"third","qos":1,"retain":true"#,
        r#"{"type":"incoming","client_id":"from old","packet_id":100,"message":{"topic":"old/4","payload":"fourth","qos":2}}"#,
    ] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
    let (code, said) = store(&["import", text(&other), text(&file)]);
    assert!(code == Some(0) && said.contains(&format!("imported, and read again: {counts}")), "{said}");
    assert_eq!(store(&["export", text(&other), text(&again)]).0, Some(0));
    assert_eq!(lines, fs::read_to_string(&again).unwrap());
    assert_eq!(store(&["export", text(&other)]), (Some(0), format!("{lines}exported: {counts}\n")));
    let (code, said) = store(&["check", text(&other)]);
    assert!(
        code == Some(0) && said.contains("in order: 4 sessions, 6 messages for them, 2 retained messages"),
        "{said}"
    );

    let (process, addr) = serve(&other, &plugin);
    for (version, name) in [(V5, "new"), (V3_1_1, "old")] {
        let mut from = client(addr, version, &format!("from {name}"), true);
        from.send_ack(0x62, 100);
        assert_eq!(from.expect_ack(7, 100), 0);
        let mut to = client(addr, version, &format!("to {name}"), true);
        // PUBREC has come for the second: PUBREL is sent again.
        let released = to.expect_type(6);
        to.send_ack(0x70, u16::from_be_bytes([released[2], released[3]]));
        for expected in ["third", "fourth"] {
            assert_eq!(to.receive().text(), expected);
        }
        to.expect_nothing();
        let mut other = Client::connect(addr, version, "other");
        other.subscribe(&format!("{name}/3"), 1);
        let retained = other.receive();
        assert_eq!((retained.text(), retained.retain), ("third", true));
    }
    let mut operator = Client::connect(addr, V5, "operator");
    operator.subscribe("done", 0);
    operator.send(Publish::new("do", "get colour").bytes(V5));
    assert_eq!(operator.receive().text(), "blue");
    process.stop();
}

#[test]
fn what_cannot_be_imported_or_exported_is_said_and_leaves_nothing() {
    let dir = TempDir::new("store-refused");
    let (data, file) = (dir.path().join("data"), dir.path().join("a.jsonl"));
    fs::write(&file, "{\"type\":\"export\",\"format\":1,\"host\":\"x\"}\n{\"type\":\"retained\"}\n").unwrap();
    let (code, said) = store(&["import", text(&data), text(&file)]);
    let expected = format!("host: {}: line 2: \"message\" is missing in the line\n", file.display());
    assert_eq!((code, said), (Some(2), expected));
    let left: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
    for command in ["export", "check"] {
        let (code, said) = store(&[command, text(dir.path())]);
        assert!(code == Some(2) && said.contains("nothing is kept there"), "{said}");
        let (code, said) = store(&[command, text(&dir.path().join("none"))]);
        assert!(code == Some(2) && said.contains("there is no such directory"), "{said}");
    }
    let (process, addr) = serve(&data, &[]);
    client(addr, V5, "c", false);
    process.stop();
    let (code, said) = store(&["import", text(&data), text(&file)]);
    assert!(code == Some(2) && said.contains("is not empty: "), "{said}");
    let (code, said) = store(&["export", text(&data), text(&dir.path().join("none/a.jsonl"))]);
    assert!(code == Some(2) && said.contains("none/a.jsonl: No such file"), "{said}");
}

/// A torn tail is cut off, and said. What was on disk and is damaged is refused, with its place, until it is repaired.
#[test]
fn damage_is_told_from_what_was_being_written() {
    let dir = TempDir::new("store-damage");
    let data = dir.path();
    let fsync = ["--durability", "fsync"];
    let (process, addr) = serve(data, &fsync);
    client(addr, V5, "to", false).subscribe("t", 1);
    let mut from = Client::connect(addr, V5, "from");
    for number in 1..=3 {
        assert_eq!(from.publish("t", number.to_string(), 1), 0);
    }
    drop(process);
    let segment = segments(data).remove(0);
    let whole = fs::read(&segment).unwrap();

    fs::write(&segment, [&whole, &b"Grp1 which was begun"[..]].concat()).unwrap();
    let (process, addr) = serve(data, &fsync);
    let said = process.wait_log("cut off what was being written when the last server ended");
    assert!(said.contains("20 bytes from byte") && said.contains(".journal"), "{said}");
    client(addr, V5, "to", true);
    drop(process);
    assert_eq!(fs::read(&segment).unwrap(), whole);

    // Within the session's beginning.
    let mut damaged = whole.clone();
    let place = 4096 + 48 + 60;
    damaged[place] ^= 1;
    fs::write(&segment, &damaged).unwrap();
    let said = refusal(data);
    let place = format!("{}: damaged at byte 4144: the checksum of a group is wrong", segment.display());
    assert!(said.contains(&place) && said.contains("host store check --repair"), "{said}");
    for command in ["check", "export"] {
        let (code, said) = store(&[command, text(data)]);
        assert!(code == Some(2) && said.contains(&place), "{said}");
    }
    assert_eq!(fs::read(&segment).unwrap(), damaged);
    let (code, said) = store(&["check", text(data), "--repair"]);
    assert!(
        code == Some(0) && said.contains("set aside from there on: ") && said.contains("in order: 0 sessions"),
        "{said}"
    );
    assert!(segment.with_extension("journal.cut").exists());
    let (process, addr) = serve(data, &fsync);
    client(addr, V5, "to", false);
    process.stop();
}

/// The version in the header of a segment, and its checksum.
fn set_version(header: &mut [u8], version: u32) {
    header[8..12].copy_from_slice(&version.to_le_bytes());
    let checksum = crc32fast::hash(&header[..40]);
    header[40..44].copy_from_slice(&checksum.to_le_bytes());
}

/// Changes the head of a checkpoint.
fn change_head(data: &Path, change: impl FnOnce(&mut [u8])) {
    let database = fjall::Database::builder(data.join("checkpoint")).open().unwrap();
    let entries = database.keyspace("kept", fjall::KeyspaceCreateOptions::default).unwrap();
    let mut head = entries.get("h").unwrap().unwrap().to_vec();
    change(&mut head);
    entries.insert("h", head).unwrap();
}

/// What a host of version 0 has written is migrated at the start, and what one of version 2 will have written is refused.
#[test]
fn older_versions_are_migrated_and_newer_ones_refused() {
    let dir = TempDir::new("store-versions");
    let data = dir.path();
    let (process, addr) = serve(data, &[]);
    client(addr, V5, "to", false).subscribe("t", 1);
    process.stop();
    let (process, addr) = serve(data, &[]);
    assert_eq!(Client::connect(addr, V5, "from").publish("t", "kept", 1), 0);
    drop(process);
    // The header of a segment stood once.
    let segment = segments(data).remove(0);
    let current = fs::read(&segment).unwrap();
    let mut old = [&current[..48], &current[4144..]].concat();
    set_version(&mut old, 0);
    fs::write(&segment, old).unwrap();
    change_head(data, |head| {
        head[..4].fill(0);
        head[12..20].copy_from_slice(&48_u64.to_le_bytes());
    });
    let (process, addr) = serve(data, &[]);
    process.wait_log("was migrated from version 0 to 1: 1 segments of the journal and the checkpoint");
    assert_eq!(client(addr, V5, "to", true).receive().text(), "kept");
    drop(process);
    let (process, _) = serve(data, &[]);
    assert!(!process.log().iter().any(|line| line.contains("migrated")), "once is enough");
    drop(process);

    let segment = segments(data).pop().unwrap();
    let current = fs::read(&segment).unwrap();
    let mut new = current.clone();
    set_version(&mut new[..48], 2);
    fs::write(&segment, &new).unwrap();
    let said = refusal(data);
    let expected = format!("{}: a newer host has written it, in version 2 of the format", segment.display());
    assert!(said.contains(&expected) && said.contains("use the newer one"), "{said}");
    assert_eq!(fs::read(&segment).unwrap(), new);
    fs::write(&segment, &current).unwrap();
    change_head(data, |head| head[0] = 2);
    let said = refusal(data);
    assert!(said.contains("checkpoint: a newer host has written it, in version 2 of the layout"), "{said}");
    change_head(data, |head| head[0] = 1);
    let (process, _) = serve(data, &[]);
    process.stop();
}
