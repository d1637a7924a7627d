//! What plugins are asked is recorded, and put to a candidate: offline, and while they decide.

use std::path::Path;
use std::process::{Command, Output};

use host::plugin::{Recording, Replay, replay};
use serde_json::{Value, json};

use crate::disks::Disk;
use crate::harness::{
    Process, TempDir, eventually, have, host_command, host_output, library, output, package_library, start,
};
use crate::mqtt::{Client, Connect, V5};

const NOT_AUTHORIZED: u64 = 0x87;

/// A password that costs little to check.
const CONFIG: &str = r#"{
    "users": [{"username": "sensor1", "password_hash": "HASH", "groups": ["sensors"]}],
    "rules": [
        {"group": "sensors", "allow": ["publish"], "topics": ["sensors/%u/#"]},
        {"anyone": true, "allow": ["publish", "subscribe"], "topics": ["chat/+"]}
    ],
    "anonymous": false,
    "client_ids": ["%u", "%u:*"]
}"#;
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$YzI5dFpYTmhiSFE$gL9CoUY0lHTtyR0t1EjActUsn/bMe3wvFlQj2OTIBS0";

fn config(rule: &str) -> String {
    let config = CONFIG.replace("HASH", HASH);
    let lines = config.lines().filter(|line| rule.is_empty() || !line.contains(rule));
    // The comma before a rule that is left out.
    lines.collect::<String>().replace("},    ]", "}    ]")
}

fn text(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// `host replay` with the plugin `acl`.
fn replayed(recording: &Path, config: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let library = package_library("acl");
    let args =
        ["replay", recording.to_str().unwrap(), "--plugin", library.to_str().unwrap(), "--plugin-config", config];
    let output = host_output([&args, more].concat());
    let (out, error) = text(&output);
    (output.status.code(), out, error)
}

fn report(recording: &Path, config: &str) -> (Option<i32>, Value) {
    let (code, out, error) = replayed(recording, config, &["--json"]);
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}")))
}

fn mosquitto_pub(port: u16, password: &str, topic: &str) -> bool {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-V", "5", "-p", &port.to_string(), "-i", "sensor1:pub", "-u", "sensor1", "-P", password]);
    output(command.args(["-t", topic, "-m", "21.5", "-q", "1"])).status.success()
}

#[test]
fn candidate_is_tried_with_what_was_recorded_and_with_what_happens() {
    if !have("sh", &["-c", "command -v mosquitto_pub"], "apt-get install mosquitto-clients") {
        return;
    }
    let (dir, library) = (TempDir::new("record"), package_library("acl"));
    let (recording, control) = (dir.path().join("calls.jsonl"), dir.path().join("s"));
    let (all, without_chat) = (config(""), config("chat/+"));
    let paths = [&recording, &control, &library].map(|path| path.to_str().unwrap());
    let [record, control, plugin] = paths;
    let args =
        ["--record", record, "--record-secrets", "--control", control, "--plugin", plugin, "--plugin-config", &all];
    let (process, addr) = Process::listening(args);
    let mut connect = Connect::new(V5, "sensor1");
    (connect.username, connect.password) = (Some("sensor1"), Some("correct horse"));
    let (mut client, connack) = Client::connect_with(addr, &connect);
    assert_eq!((connack.code, client.subscribe_all(&[("chat/+", 1), ("other", 1)])), (0, vec![1, 0x87]));
    assert!(mosquitto_pub(addr.port(), "correct horse", "sensors/sensor1/t"));
    assert!(!mosquitto_pub(addr.port(), "wrong", "sensors/sensor1/t"));

    // With live traffic: the client is there before, and sees nothing of it.
    let dry_run = std::thread::spawn({
        let (control, plugin, config) = (control.to_owned(), plugin.to_owned(), without_chat.clone());
        move || {
            let args = ["swap", "--dry-run", "--for", "10min", "--calls", "3", "--json", "--control", &control];
            host_output([&args[..], &["--plugin", &plugin, "--plugin-config", &config]].concat())
        }
    });
    process.wait_log("a candidate is tried");
    assert_eq!(client.publish("chat/x", "hello", 1), 0);
    assert_eq!(client.receive().text(), "hello");
    assert_eq!(client.publish("sensors/sensor1/t", "1", 1), 0x10);
    let output = dry_run.join().unwrap();
    let (out, error) = text(&output);
    assert_eq!(output.status.code(), Some(1), "{out}{error}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    let tried = &answer["result"];
    assert_eq!((&tried["calls"], &tried["same"], &tried["different"]), (&json!(3), &json!(2), &json!(1)), "{tried:#}");
    assert_eq!(tried["differences"][0]["candidate"]["answer"], json!({"reject": {"reason_code": NOT_AUTHORIZED}}));
    assert_eq!(tried["differences"][0]["first"]["about"], "chat/x");
    client.ping();
    process.stop();

    // Offline, by the same rules and by others.
    let (code, same) = report(&recording, &all);
    assert_eq!((code, &same["different"], &same["left_out"]), (Some(0), &json!(0), &json!(0)), "{same:#}");
    let (code, other) = report(&recording, &without_chat);
    assert_eq!((code, &other["different"]), (Some(1), &json!(2)), "{other:#}");
    let (_, table, _) = replayed(&recording, &without_chat, &[]);
    let parts = [
        "1 × handle_publish",
        "client sensor1, chat/x",
        "plugin     forward",
        "candidate  reject 0x87 (Not authorized)",
    ];
    assert!(parts.iter().all(|part| table.contains(part)), "{table}");
    assert!(table.contains("plugin     codes 0x01") && table.contains("candidate  codes 0x87"), "{table}");

    // Without secrets nobody can be asked who comes in, and what follows says nothing.
    let redacted = std::fs::read_to_string(&recording).unwrap().replace("\"correct horse\"", "{\"redacted\":13}");
    let redacted = dir.file("redacted.jsonl", &redacted);
    let (code, report) = report(&redacted, &without_chat);
    assert_eq!((code, &report["different"]), (Some(0), &json!(0)), "{report:#}");
    assert!(report["left_out"].as_u64() > Some(4) && report["notes"].to_string().contains("left out"), "{report:#}");
}

#[test]
fn dry_run_that_is_interrupted_says_what_it_has_found() {
    let (dir, [v1, v2]) = (TempDir::new("record-interrupted"), ["v1", "v2"].map(library));
    let (control, out) = (dir.path().join("s"), dir.path().join("out"));
    let [control, v1, v2] = [&control, &v1, &v2].map(|path| path.to_str().unwrap());
    let (process, addr) = Process::listening(["--control", control, "--plugin", v1]);
    let mut client = Client::connect(addr, V5, "c");
    let dry_run = ["swap", "--dry-run", "--for", "10min", "--json", "--control", control, "--plugin", v2];
    let stdout = std::fs::File::create(&out).unwrap();
    let mut tried = Process::spawn(host_command().args(dry_run).stdout(stdout));
    process.wait_log("a candidate is tried:");
    let second = host_output(dry_run);
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second).1.contains("another candidate is being tried in its place"), "{}", text(&second).1);
    let several = host_output([&dry_run[..], &["--plugin", v1]].concat());
    assert_eq!(several.status.code(), Some(2));
    assert!(text(&several).1.contains("--plugin: one library at a time"), "{}", text(&several).1);
    for topic in ["a", "ask"] {
        assert_eq!(client.publish(topic, "x", 1), 0x10);
    }
    tried.signal(rustix::process::Signal::INT);
    assert_eq!(tried.wait().code(), Some(1), "{:#?}", tried.log());
    let answer: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    let result = &answer["result"];
    assert_eq!((&result["calls"], &result["different"]), (&json!(2), &json!(1)), "{answer:#}");
    assert!(result["notes"].to_string().contains("it was interrupted"), "{answer:#}");
    // Who is gone altogether is waited for no longer either.
    let mut killed = Process::spawn(host_command().args(dry_run).stdout(std::process::Stdio::null()));
    let has_begun = |line: &&String| line.contains("a candidate is tried:");
    eventually("it has begun", || process.log().iter().filter(has_begun).count() == 2);
    killed.signal(rustix::process::Signal::KILL);
    killed.wait();
    process.wait_log("calls=0");
    process.stop();
}

#[test]
fn what_cannot_be_replayed_is_told() {
    let dir = TempDir::new("record-not");
    let begin = "{\"recording\":1,\"secrets\":true}\n";
    let table = [
        ("", "there are no calls of a plugin \"acl\" in it, nor of any other"),
        ("{\"at\":1}\n", ":1: this is no line of a recording: it stands before the line with \"recording\""),
        ("nonsense\n{\"at\":1}\n", ":1: this is no line of a recording: expected ident"),
        ("nonsense\n", ":1: this is no line of a recording: expected ident"),
        ("{\"recording\":2}\n", "it is of version 2 of recordings, and this host reads 1"),
        ("{\"at\":0,\"plugin\":\"b\",\"loaded\":\"1\"}\n", "there are some of: b): say with --name whose they are"),
        (
            "{\"at\":0,\"plugin\":\"acl\",\"call\":\"x\"}\n",
            ":2: this is no line of a recording: there is no callback \"x\"",
        ),
        (
            "{\"at\":0,\"plugin\":\"acl\",\"call\":\"handle_publish\",\"input\":{}}\n",
            "about a connection, and none is named",
        ),
    ];
    for (number, (lines, expected)) in table.into_iter().enumerate() {
        let has_own = lines.is_empty() || number < 5;
        let file = dir.file("calls", &if has_own { lines.to_owned() } else { format!("{begin}{lines}") });
        let (code, _, error) = replayed(&file, "{\"users\":[],\"rules\":[]}", &[]);
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    let (code, _, error) = replayed(&dir.path().join("none"), "{}", &[]);
    assert!(code == Some(2) && error.contains("No such file") && error.contains("--record"), "{error}");
    let taken = host_output(["--record", dir.path().to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert_eq!(taken.status.code(), Some(2));
    assert!(text(&taken).1.contains("cannot record into"), "{}", text(&taken).1);
    let other = dir.file("host.toml", "[server]\n");
    let other = host_output(["--record", other.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(text(&other).1.contains("there is a file that is no recording"), "{}", text(&other).1);
}

/// The disk is really full for a time: clients notice nothing, and the recording says how much is missing.
#[test]
fn recording_says_what_is_missing_where_the_disk_was_full() {
    let Some(disk) = Disk::with_room_for(256 << 10) else { return };
    let (file, library) = (disk.path().join("calls.jsonl"), library("v1"));
    let [record, plugin] = [&file, &library].map(|path| path.to_str().unwrap());
    let (process, addr) = Process::listening(["--record", record, "--plugin", plugin]);
    let (mut client, payload) = (Client::connect(addr, V5, "c"), "x".repeat(10_000));
    let has_said = |text: &str| process.log().iter().any(|line| line.contains(text));
    eventually("the disk is full", || {
        assert_eq!(client.publish("a", &payload, 1), 0x10);
        has_said("calls are missing in the recording: it cannot be written")
    });
    disk.set_room(64 << 20);
    eventually("there is room", || {
        assert_eq!(client.publish("a", &payload, 1), 0x10);
        has_said("the recording goes on, and says what is missing")
    });
    process.stop();
    let written = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect();
    let gap = lines.iter().position(|line| line["lost"].as_u64() > Some(0)).expect("it says what is missing");
    let is_call = |line: &Value| line["call"] == "handle_publish";
    assert!(lines[..gap].iter().any(is_call) && lines[gap..].iter().any(|line| line["call"] == "end"), "{written}");
    let replayed = replay(&Replay { file, plugin: library, configs: Vec::new(), name: None }).expect("it can be read");
    assert_eq!((&replayed["lost"], &replayed["different"]), (&lines[gap]["lost"], &json!(0)), "{replayed:#}");
    assert!(replayed["notes"].to_string().contains("calls are missing"), "{replayed:#}");
}

/// Answers that come later are recorded with their questions, and compared when they came.
#[test]
fn answers_that_come_later_are_recorded_and_nobody_finds_a_password_there() {
    let dir = TempDir::new("record-later");
    let path = dir.path().join("calls.jsonl");
    let recording = Recording { path: path.clone(), secrets: false, bytes_max: 1 << 20 };
    let library = library("async_handler");
    let server = start(2, |builder| builder.record(recording).plugin(&library, "{}"));
    let mut porter = Client::connect(server.local_addr(), V5, "porter");
    let mut connect = Connect::new(V5, "slow");
    (connect.username, connect.password) = (Some("u"), Some("correct horse"));
    let mut slow = Client::open(server.local_addr(), V5);
    slow.send(connect.bytes());
    assert_eq!(porter.publish("gate/open", "", 1), 0);
    assert_eq!(slow.connack().code, 0);
    assert_eq!(slow.publish("nap/x", "1", 1), 0x10);
    assert_eq!(slow.publish("now/x", "1", 1), 0x10);
    server.stop().unwrap();
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(!written.contains("correct horse") && written.contains("\"password\":{\"redacted\":13}"), "{written}");
    assert!(written.contains("\"later\":"), "{written}");
    // A host that was killed within a line, and another one that went on.
    let begin = written.lines().next().unwrap().replace("\"continues\":false", "\"continues\":true");
    std::fs::write(&path, format!("{written}{{\"at\":9,\"plug\n{begin}\n")).unwrap();
    let configs = vec!["{}".to_owned()];
    let report = replay(&Replay { file: path, plugin: library, configs, name: None }).expect("it was just written");
    assert_eq!(
        (&report["different"], &report["left_out"], &report["lost"]),
        (&json!(0), &json!(0), &json!(0)),
        "{report:#}"
    );
    assert!(report["same"].as_u64() >= Some(5), "{report:#}");
    assert!(report["notes"].to_string().contains("is cut off"), "{report:#}");
}
