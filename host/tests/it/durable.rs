//! What outlives the server: a real process is killed, and another one goes on with the same directory.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disks::Disk;
use crate::harness::{Process, TempDir, have, host_command, host_output, library, output};
use crate::mqtt::{Client, Connect, Publish, V3_1_1, V5, Will};

/// A server that keeps what there is in a directory.
fn serve(data: &Path, workers: &str, more: &[&str]) -> (Process, SocketAddr) {
    let args = ["--data-dir", data.to_str().expect("text"), "--workers", workers];
    Process::listening(args.iter().chain(more))
}

fn resume(addr: SocketAddr, version: u8, client_id: &str) -> Client {
    let (client, connack) = Client::connect_with(addr, &Connect::new(version, client_id).persistent());
    assert_eq!((connack.session_present, connack.code), (true, 0), "{client_id} is not known any more");
    client
}

fn begin(addr: SocketAddr, version: u8, client_id: &str) -> Client {
    let (client, connack) = Client::connect_with(addr, &Connect::new(version, client_id).persistent());
    assert_eq!((connack.session_present, connack.code), (false, 0));
    client
}

/// Sessions, subscriptions, messages that wait, that are in flight and that are not released, and retained ones: after a
/// crash, with other numbers of workers, written through to the disk or not.
#[test]
fn what_was_acknowledged_outlives_a_crash() {
    for (durability, workers) in [("buffered", ["1", "2", "3"]), ("fsync", ["2", "1", "2"])] {
        for version in [V3_1_1, V5] {
            println!("{durability}, version {version}");
            let dir = TempDir::new("durable");
            let data = dir.path().join("made/data");
            let durability = ["--durability", durability];
            let (process, addr) = serve(&data, workers[0], &durability);
            for qos in [1, 2] {
                begin(addr, version, &format!("to{qos}")).subscribe("t/#", qos);
            }
            let mut from = begin(addr, version, "from");
            assert_eq!(from.publish_message(Publish::new("t/r", "retained").qos(1, 0).retained()), 0);
            assert_eq!(from.publish("t/1", "one", 1), 0);
            assert_eq!(from.publish("t/2", "two", 2), 0);
            // Accepted, and not released.
            from.send(Publish::new("t/2", "three").qos(2, 7).bytes(version));
            assert_eq!(from.expect_ack(5, 7), 0);
            drop(process);

            let (process, addr) = serve(&data, workers[1], &durability);
            let mut from = resume(addr, version, "from");
            from.send(Publish { dup: true, ..Publish::new("t/2", "three").qos(2, 7) }.bytes(version));
            assert_eq!(from.expect_ack(5, 7), 0);
            from.send_ack(0x62, 7);
            assert_eq!(from.expect_ack(7, 7), 0);
            let mut in_flight = Vec::new();
            for qos in [1, 2] {
                let mut client = resume(addr, version, &format!("to{qos}"));
                let texts: Vec<_> = (0..4).map(|_| client.read_publish()).collect();
                let expected = [("retained", 1), ("one", 1), ("two", qos), ("three", qos)];
                for (message, (text, qos)) in texts.iter().zip(expected) {
                    assert_eq!((message.text(), message.qos, message.dup), (text, qos, false));
                }
                // The first is done with, the second is not, and with QoS 2 half of the third.
                client.acknowledge(&texts[0]);
                if qos == 2 {
                    client.send_ack(0x50, texts[2].packet_id);
                    assert_eq!(client.expect_ack(6, texts[2].packet_id), 0);
                }
                client.ping();
                in_flight.push(texts);
            }
            // What stands before this in the order of all journals is safe with it.
            assert_eq!(from.publish("t/1", "four", 1), 0);
            drop(process);

            let (process, addr) = serve(&data, workers[2], &durability);
            for (qos, texts) in [1, 2].into_iter().zip(in_flight) {
                let mut client = resume(addr, version, &format!("to{qos}"));
                let one = client.receive();
                assert_eq!((one.text(), one.dup, one.packet_id), ("one", true, texts[1].packet_id));
                if qos == 2 {
                    assert_eq!(client.expect_ack(6, texts[2].packet_id), 0);
                    client.send_ack(0x70, texts[2].packet_id);
                } else {
                    assert_eq!(client.receive().text(), "two");
                }
                let three = client.receive();
                assert_eq!((three.text(), three.dup, three.packet_id), ("three", true, texts[3].packet_id));
                assert_eq!(client.receive().text(), "four");
                client.expect_nothing();
            }
            let mut other = Client::connect(addr, version, "other");
            other.subscribe("t/r", 1);
            let retained = other.receive();
            assert_eq!((retained.text(), retained.retain), ("retained", true));
            process.stop();
        }
    }
}

/// [MQTT-3.1.3-9] A will with a delay waits on, from the new start.
#[test]
fn delayed_will_is_published_by_the_next_server() {
    let dir = TempDir::new("durable-will");
    let (process, addr) = serve(dir.path(), "1", &[]);
    begin(addr, V5, "to").subscribe("will", 1);
    let mut connect = Connect::new(V5, "c").persistent();
    let properties = vec![0x18, 0, 0, 0, 1];
    connect.will = Some(Will { topic: "will", payload: "gone", qos: 1, retain: false, properties });
    let (_client, connack) = Client::connect_with(addr, &connect);
    assert_eq!(connack.code, 0);
    drop(process);
    let (process, addr) = serve(dir.path(), "1", &[]);
    assert_eq!(resume(addr, V5, "to").receive().text(), "gone");
    process.stop();
}

/// What plugins keep by keys, through a real library.
#[test]
fn values_of_plugins_are_there_again() {
    let dir = TempDir::new("durable-values");
    let steward = library("steward");
    let plugin = ["--plugin", steward.to_str().expect("text")];
    let does = |addr, command: &str| {
        let mut client = Client::connect(addr, V5, "operator");
        client.subscribe("done", 0);
        client.send(Publish::new("do", command).bytes(V5));
        client.receive().text().to_owned()
    };
    let (process, addr) = serve(dir.path(), "2", &plugin);
    assert_eq!((does(addr, "put a 1"), does(addr, "put b 2")), ("put".to_owned(), "put".to_owned()));
    assert_eq!(does(addr, "delete b"), "deleted true");
    // What stands before this is safe with it.
    drop(begin(addr, V5, "c"));
    drop(process);
    let (process, addr) = serve(dir.path(), "1", &plugin);
    assert_eq!((does(addr, "get a"), does(addr, "keys b")), ("1".to_owned(), String::new()));
    process.stop();
}

/// The clients of Mosquitto, and a server that was asked to stop.
#[test]
fn mosquittos_clients_get_what_waited_over_a_restart() {
    if !have("sh", &["-c", "command -v mosquitto_pub && command -v mosquitto_sub"], "apt-get install mosquitto-clients")
    {
        return;
    }
    let dir = TempDir::new("durable-mosquitto");
    let client = |addr: SocketAddr, program: &str, args: &[&str]| {
        let port = addr.port().to_string();
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &port]).args(args).stdin(Stdio::null());
        let output = output(&mut command);
        assert!(output.status.success(), "{program} {args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let subscriber = ["-c", "-i", "sub", "-q", "2", "-t", "t/#"];
    let (process, addr) = serve(dir.path(), "2", &[]);
    client(addr, "mosquitto_sub", &[&subscriber[..], &["-E"]].concat());
    client(addr, "mosquitto_pub", &["-q", "1", "-t", "t/1", "-m", "one"]);
    client(addr, "mosquitto_pub", &["-q", "2", "-t", "t/2", "-m", "two", "-r"]);
    process.stop();
    let (process, addr) = serve(dir.path(), "1", &[]);
    assert_eq!(client(addr, "mosquitto_sub", &[&subscriber[..], &["-C", "2", "-W", "60"]].concat()), "one\ntwo\n");
    assert_eq!(client(addr, "mosquitto_sub", &["-t", "t/2", "-C", "1", "-W", "60"]), "two\n");
    process.stop();
}

#[test]
fn second_process_is_refused_and_told_who_has_the_directory() {
    let dir = TempDir::new("durable-lock");
    let (process, _) = serve(dir.path(), "1", &[]);
    let second = host_output(["--listen", "127.0.0.1:0", "--data-dir", dir.path().to_str().expect("text")]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("process {} has it", process.id())), "{said}");
    process.stop();
}

#[test]
fn nothing_is_written_where_that_is_not_asked_for() {
    let dir = TempDir::new("durable-none");
    let data = dir.path().join("data");
    for args in [&[][..], &["--durability", "none", "--data-dir", data.to_str().expect("text")]] {
        let mut command = host_command();
        command.current_dir(dir.path()).args(["--listen", "127.0.0.1:0"]).args(args);
        let mut process = Process::spawn(&mut command);
        let addr = process.wait_listening();
        let mut client = begin(addr, V5, "c");
        assert_eq!(client.publish_message(Publish::new("t", "x").qos(1, 0).retained()), 0x10);
        process.stop();
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "files");
}

/// The disk takes nothing more for a time. What was acknowledged before, or is acknowledged at all, is there after a crash.
#[test]
fn what_cannot_be_written_is_refused_until_it_can() {
    let dir = TempDir::new("durable-full");
    let mut command = Command::new("sh");
    // What is over the bound of a file's size is an error, and not the end of the process.
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(host_command().get_program());
    command.args(["--control", "none", "--listen", "127.0.0.1:0", "--workers", "1"]);
    command.args(["--data-dir", dir.path().to_str().expect("text")]);
    let mut process = Process::spawn(&mut command);
    let addr = process.wait_listening();
    let bound_files = |bytes: Option<u64>| {
        let process = rustix::process::Pid::from_raw(i32::try_from(process.id()).expect("a process"));
        let bound = rustix::process::Rlimit { current: bytes, maximum: None };
        rustix::process::prlimit(process, rustix::process::Resource::Fsize, bound).expect("it is a child of ours");
    };
    begin(addr, V5, "to").subscribe("t", 1);
    let (mut from, mut old) = (Client::connect(addr, V5, "from"), Client::connect(addr, V3_1_1, "old"));
    assert_eq!(from.publish("t", "one", 1), 0);
    bound_files(Some(1));
    from.send(Publish::new("t", "two").qos(1, 100).bytes(V5));
    process.wait_log("what is to be kept cannot be written");
    // Who asks is told, and nothing of it is delivered later. On the same connection the answer would stay behind that to "two".
    let mut other = Client::connect(addr, V5, "other");
    assert_eq!(other.publish("t", "refused", 1), 0x97);
    let (_, connack) = Client::connect_with(addr, &Connect::new(V5, "more").persistent());
    assert_eq!(connack.code, 0x97);
    old.send(Publish::new("t", "withheld").qos(1, 100).bytes(V3_1_1));
    old.ping();
    // What is not kept goes on.
    assert_eq!((other.publish("u", "", 1), other.publish("u", "", 2)), (0x10, 0));
    bound_files(None);
    assert_eq!(from.expect_ack(4, 100), 0);
    old.expect_closed();
    assert_eq!(from.publish("t", "three", 1), 0);
    drop(process);
    let (process, addr) = serve(dir.path(), "1", &[]);
    let mut to = resume(addr, V5, "to");
    for expected in ["one", "two", "three"] {
        assert_eq!(to.receive().text(), expected);
    }
    to.expect_nothing();
    process.stop();
}

/// The disk is really full for a time: what was acknowledged before, or is when there is room again, is there after a crash.
#[test]
fn what_was_acknowledged_outlives_a_full_disk() {
    let Some(disk) = Disk::with_room_for(FULL_BYTES) else { return };
    let (process, addr) = serve(disk.path(), "1", &[]);
    begin(addr, V5, "to").subscribe("t", 1);
    let (mut from, mut other) = (Client::connect(addr, V5, "from"), Client::connect(addr, V5, "other"));
    let is_enough = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            // The one that is not safe waits for its acknowledgement, and gets it when there is room.
            (1..1000).find(|number| {
                assert_eq!(from.publish("t", large(*number), 1), 0);
                is_enough.load(Ordering::Relaxed)
            })
        });
        process.wait_log("what is to be kept cannot be written");
        assert!(process.log().iter().any(|line| line.contains("No space left on device")));
        assert_eq!(other.publish("t", "refused", 1), 0x97);
        is_enough.store(true, Ordering::Relaxed);
        disk.set_room(4 * FULL_BYTES);
        publisher.join().expect("it got what it waits for").expect("the disk was full")
    });
    process.wait_log("what is to be kept can be written again");
    drop(process);
    let (process, addr) = serve(disk.path(), "1", &[]);
    let mut to = resume(addr, V5, "to");
    for expected in 1..=sent {
        assert_eq!(to.receive().text(), large(expected));
    }
    to.expect_nothing();
    process.stop();
}

/// Bytes of a disk that is soon full.
const FULL_BYTES: u64 = 2 << 20;

fn large(number: usize) -> String {
    format!("{number} ").repeat(10_000)
}

/// The disk fails, and then the machine: what was acknowledged is on it.
#[test]
fn what_was_acknowledged_outlives_a_disk_that_fails_and_the_machine() {
    let Some(disk) = Disk::with_power() else { return };
    let (process, addr) = serve(disk.path(), "1", &["--durability", "fsync"]);
    begin(addr, V5, "to").subscribe("t", 2);
    let (mut from, mut other) = (Client::connect(addr, V5, "from"), Client::connect(addr, V5, "other"));
    for number in 0..20 {
        assert_eq!(from.publish("t", number.to_string(), 1), 0);
    }
    assert_eq!(from.publish_message(Publish::new("r", "retained").qos(1, 0).retained()), 0x10);
    disk.power_off();
    from.send(Publish::new("t", "never promised").qos(1, 100).bytes(V5));
    process.wait_log("what is to be kept cannot be written");
    assert_eq!(other.publish("t", "refused", 1), 0x97);
    drop(process);
    disk.power_on();
    let (process, addr) = serve(disk.path(), "1", &["--durability", "fsync"]);
    let mut to = resume(addr, V5, "to");
    for number in 0..20 {
        assert_eq!(to.receive().text(), number.to_string());
    }
    to.expect_nothing();
    to.subscribe("r", 1);
    assert_eq!(to.receive().text(), "retained");
    process.stop();
}
