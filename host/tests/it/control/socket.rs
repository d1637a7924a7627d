//! The socket: whose it is, and what happens around it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::process::Signal;
use serde_json::Value;

use super::*;
use crate::harness::{Process, TempDir, eventually, host_command, host_output, library, output};
use crate::mqtt::{Client, V5};

#[test]
fn socket_is_private_and_goes_with_the_host() {
    let host = Host::start("control-private", &[]);
    assert_eq!(std::fs::metadata(host.control()).unwrap().mode() & 0o777, 0o600);
    let path = host.control();
    let Host { process, dir, .. } = host;
    process.stop();
    assert!(!path.exists());
    assert_failed(
        &command(&path, &["plugins"]),
        2,
        &["no host can be reached", "there is no such socket", "--control PATH"],
    );
    drop(dir);
}

#[test]
fn socket_of_a_host_that_was_killed_is_taken_over() {
    let dir = TempDir::new("control-killed");
    let path = dir.path().join("s");
    let args = ["--control", path.to_str().unwrap()];
    let (mut first, _) = Process::listening(args);
    let taken = host_output([&args[..], &["--listen", "127.0.0.1:0"]].concat());
    assert_failed(&taken, 2, &["another host has the control socket", path.to_str().unwrap(), "--control PATH"]);
    assert!(!stderr(&taken).contains("listening on"));
    first.signal(Signal::KILL);
    first.wait();
    assert!(path.exists());
    assert_failed(&command(&path, &["plugins"]), 2, &["nobody listens there any more"]);
    let (second, _) = Process::listening(args);
    assert_eq!(command(&path, &["plugins"]).status.code(), Some(0));
    second.stop();
}

#[test]
fn two_hosts_of_one_user_start_without_arguments_and_the_first_has_the_socket() {
    let runtime = TempDir::new("control-two");
    std::fs::set_permissions(runtime.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let start = || {
        let mut command = host_command();
        let mut process =
            Process::spawn(command.env("XDG_RUNTIME_DIR", runtime.path()).args(["--listen", "127.0.0.1:0"]));
        process.wait_listening();
        process
    };
    let first = start();
    let second = start();
    second.wait_log("this host has no control socket: another host has the control socket");
    let plugins = || output(host_command().env("XDG_RUNTIME_DIR", runtime.path()).args(["plugins", "--json"]));
    assert_eq!(plugins().status.code(), Some(0));
    // The end of the second does not take the first one's socket away.
    second.stop();
    assert_eq!(plugins().status.code(), Some(0));
    first.stop();
    assert_eq!(std::fs::read_dir(runtime.path()).unwrap().count(), 0);
}

#[test]
fn host_without_control_socket_has_none() {
    let runtime = TempDir::new("control-none");
    std::fs::set_permissions(runtime.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let mut command = host_command();
    command.env("XDG_RUNTIME_DIR", runtime.path()).args(["--listen", "127.0.0.1:0", "--control", "none"]);
    let mut process = Process::spawn(&mut command);
    process.wait_listening();
    assert_eq!(std::fs::read_dir(runtime.path()).unwrap().count(), 0);
    process.stop();
    assert_failed(&host_output(["plugins", "--control", "none"]), 2, &["takes no commands"]);
}

#[test]
fn places_that_cannot_be_had_are_explained_and_nothing_is_started() {
    let dir = TempDir::new("control-bad");
    let file = dir.file("precious", "content");
    let long = format!("/tmp/{}", "x".repeat(120));
    let table = [
        (file.to_str().unwrap(), "there is something else, which is left alone"),
        ("/no/such/directory/s", "No such file or directory"),
        (&long, "has 125 bytes, and a socket's may have at most 107"),
        ("", "expected a path, or none"),
    ];
    for (path, expected) in table {
        let output = host_output(["--listen", "127.0.0.1:0", "--control", path]);
        assert_failed(&output, 2, &[expected]);
        assert!(!stderr(&output).contains("listening on"), "{path}");
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), "content");
}

/// What is wrong before any host is asked is an object as well.
#[test]
fn mistakes_on_the_command_line_are_told_to_scripts() {
    let table: [(&[&str], &str); 4] = [
        (&["swap", "--plugin", "x.so", "--plugin-config", "@/no/such/file", "--json"], "/no/such/file"),
        (&["swap", "--plugin", "x.so", "--plugin-config", "@/no/such/file"], "/no/such/file"),
        (&["configure", "acl", "@/no/such/file", "--json"], "Expected a file with JSON"),
        (&["health", "--control", "none", "--json"], "takes no commands"),
    ];
    for (args, expected) in table {
        let output = host_output(args);
        assert_failed(&output, 2, &[expected]);
        let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!((&answer["ok"], &answer["error"]["step"]), (&false.into(), &"usage".into()), "{answer}");
        assert!(answer["error"]["reason"].as_str().is_some_and(|reason| reason.contains(expected)), "{answer}");
    }
}

#[test]
fn host_that_hangs_is_not_waited_for() {
    let host = Host::start("control-hangs", &[]);
    host.process.signal(Signal::STOP);
    let output = host.command(&["plugins", "--timeout", "200ms", "--json"]);
    assert_failed(&output, 2, &["has not said who it is"]);
    let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&answer["ok"], &answer["error"]["step"]), (&false.into(), &"reach".into()), "{answer}");
    host.process.signal(Signal::CONT);
    assert_eq!(host.command(&["plugins"]).status.code(), Some(0));
    // Somebody else than a host.
    let path = host.dir.path().join("other");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"220 smtp\r\n").unwrap());
    assert_failed(&command(&path, &["plugins"]), 2, &["does not say that it is a host, but: \"220 smtp"]);
    thread.join().unwrap();
    host.process.stop();
}

#[test]
fn clients_of_the_socket_do_not_disturb_the_broker() {
    let host = Host::start("control-flood", &["--workers", "1"]);
    let mut mqtt = Client::connect(host.addr, V5, "c");
    let connect = || UnixStream::connect(host.control()).unwrap();
    // As many as there may be, and more, that say nothing, half a request, or rubbish.
    let mut idle: Vec<_> = (0..20).map(|_| connect()).collect();
    for (number, stream) in idle.iter_mut().enumerate() {
        let text: &[u8] = [&b"{\"control\":1,"[..], b"\xff\xfe\x00\n\n\n", b""][number % 3];
        let _ = stream.write_all(text);
    }
    let mut huge = connect();
    let _ = huge.write_all(&vec![b'x'; 2 << 20]);
    mqtt.ping();
    assert_failed(&host.command(&["plugins"]), 1, &["16 clients are being served", "try again"]);
    drop((idle, huge));
    eventually("there is room again", || host.command(&["plugins"]).status.code() == Some(0));
    let mut stream = BufReader::new(connect());
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        line
    };
    assert!(line().contains("\"control\":1"));
    mqtt.ping();
    host.process.stop();
}

#[test]
fn two_hosts_are_told_apart_by_their_sockets() {
    let v1 = library("v1");
    let hosts = [0, 1].map(|number| Host::start(&format!("control-host{number}"), &["--plugin", path(&v1)]));
    let mut clients = hosts.each_ref().map(|host| host.asking("c"));
    hosts[1].result(&["swap", "--plugin", path(&library("v2"))]);
    assert_eq!(clients.each_mut().map(ask), ["v1", "v2"]);
    for host in hosts {
        host.process.stop();
    }
}
