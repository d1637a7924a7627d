//! The `host` program: its command line, its log, and how it ends.

use std::ffi::OsStr;
use std::process::Output;

use rustix::process::Signal;

use crate::harness::{Process, TempDir, host_command, host_output, library};
use crate::mqtt::{Client, V3_1_1, V5};

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_says_what_it_is_with_examples_defaults_and_exit_codes() {
    let output = host_output(["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = stdout(&output);
    for part in
        ["MQTT broker", "Examples:", "--plugin-config", "127.0.0.1:1883", "one per core", "Exit codes:", "host check"]
    {
        assert!(help.contains(part), "`{part}` in {help}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 110), "{help}");
    assert_eq!(stdout(&host_output(["help"])), help);
    assert_eq!(stdout(&host_output(["help", "swap"])), stdout(&host_output(["swap", "--help"])));
}

#[test]
fn version_is_printed() {
    let output = host_output(["--version"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), format!("host {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn mistakes_are_explained_and_nothing_is_started() {
    let table: &[(&[&str], &str)] = &[
        (&["--no-such-option"], "--no-such-option"),
        (&["--listen", "1883"], "expected an address and a port"),
        (&["--workers", "0"], "expected a number from 1 to 64"),
        (&["--log", "loud"], "expected off, error, warn, info, debug or trace"),
        (&["--plugin-config", "{}"], "stands before any plugin"),
        (&["--plugin", "x.so", "--plugin-config", "@/no/such/file"], "/no/such/file"),
        (&["--plugin", "/no/such/plugin.so"], "there is no such file"),
        (&["--listen", "0.0.0.0:0"], "no plugin decides who may connect"),
        (&["--listen", "[::]:0"], "--allow-anonymous"),
        (&["--listen", "192.0.2.1:1883"], "This machine does not have that address"),
        (&["check"], "PLUGIN"),
    ];
    for (args, expected) in table {
        let output = host_output(*args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(expected), "{args:?}: {text}");
        assert!(!text.contains("listening"), "{args:?}: {text}");
    }
}

#[test]
fn address_in_use_is_explained() {
    let (process, addr) = Process::listening::<&str>([]);
    let output = host_output(["--listen", &addr.to_string()]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(&addr.to_string()) && text.contains("take another port"), "{text}");
    process.stop();
}

#[test]
fn first_signal_stops_gracefully() {
    for signal in [Signal::TERM, Signal::INT] {
        for workers in ["1", "3"] {
            let (mut process, addr) = Process::listening(["--workers", workers]);
            let mut clients: Vec<_> = (0..6).map(|number| Client::connect(addr, V5, format!("c{number}"))).collect();
            let mut old = Client::connect(addr, V3_1_1, "old");
            process.signal(signal);
            clients.iter_mut().for_each(|client| client.expect_disconnect(0x8b));
            old.expect_closed();
            assert_eq!(process.wait().code(), Some(0));
        }
    }
}

/// Whatever it is at: loading what was kept, or in a plugin that does not return.
#[test]
fn signal_while_it_starts_ends_it_at_once() {
    let dir = TempDir::new("cli-starting");
    let (plugin, data) = (library("unruly"), dir.path().join("data"));
    let args = ["--plugin-config", r#"{"block":"init"}"#, "--listen", "127.0.0.1:0", "--data-dir"].map(OsStr::new);
    let args = [OsStr::new("--plugin"), plugin.as_os_str()].into_iter().chain(args).chain([data.as_os_str()]);
    let mut process = Process::start(args);
    process.wait_log("unruly is here");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    process.wait_log("SIGTERM: leaving before it has started");
}

#[test]
fn client_that_does_not_read_does_not_keep_it_from_stopping() {
    let (mut process, addr) = Process::listening(["--workers", "1"]);
    let mut client = Client::connect(addr, V5, "silent");
    client.subscribe("t", 0);
    let mut publisher = Client::connect(addr, V5, "p");
    // More than the sockets' buffers take.
    for _ in 0..100 {
        publisher.publish("t", vec![0; 100_000], 1);
    }
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn second_signal_ends_at_once() {
    let (mut process, addr) = Process::listening(["--workers", "1"]);
    let mut client = Client::connect(addr, V5, "silent");
    client.subscribe("t", 0);
    let mut publisher = Client::connect(addr, V5, "p");
    for _ in 0..100 {
        publisher.publish("t", vec![0; 100_000], 1);
    }
    process.signal(Signal::TERM);
    process.wait_log("SIGTERM: stopping");
    process.signal(Signal::INT);
    assert_eq!(process.wait().code(), Some(130));
}

#[test]
fn log_has_levels_and_two_forms() {
    let (process, _) = Process::listening(["--log", "warn,host::server=info", "--log-format", "json"]);
    let line = process.wait_log("listening on");
    assert!(line.starts_with('{') && line.contains("\"workers\":") && line.contains("\"level\":\"INFO\""), "{line}");
    process.stop();
    let mut quiet = Process::start(["--listen", "127.0.0.1:0", "--log", "error"]);
    // Nothing tells that it runs: it is asked to stop until the signal is seen.
    crate::harness::eventually("it stops", || {
        if quiet.is_running() {
            quiet.signal(Signal::TERM);
        }
        !quiet.is_running()
    });
    assert!(quiet.log().is_empty(), "{:?}", quiet.log());
}

#[test]
fn anonymous_clients_of_other_machines_are_let_in_when_asked_for() {
    let mut process = Process::start(["--listen", "0.0.0.0:0", "--allow-anonymous"]);
    let addr = process.wait_listening();
    process.wait_log_of(&["WARN", "everybody whom the network lets through may connect"]);
    let mut client = Client::connect(([127, 0, 0, 1], addr.port()).into(), V5, "c");
    client.ping();
    process.stop();
}

#[test]
fn listeners_are_all_reported() {
    let mut process = Process::start(["--listen", "127.0.0.1:0", "--listen", "[::1]:0"]);
    let first = process.wait_listening();
    process.wait_log("listening on [::1]:");
    Client::connect(first, V5, "c").disconnect();
    process.stop();
}

#[test]
fn without_descriptors_new_connections_wait_and_open_ones_are_served() {
    let mut shell = std::process::Command::new("sh");
    let exe = host_command().get_program().to_owned();
    shell.arg("-c").arg("ulimit -n 40; exec \"$0\" --listen 127.0.0.1:0 --workers 1").arg(exe);
    let mut process = Process::spawn(&mut shell);
    let addr = process.wait_listening();
    let mut first = Client::connect(addr, V5, "first");
    let mut others: Vec<_> = (0..60).map(|_| Client::open(addr, V5)).collect();
    process.wait_log("new connections have to wait");
    first.ping();
    // Room is made: those that have waited are let in.
    let mut last = others.pop().unwrap();
    drop(others);
    last.send(crate::mqtt::Connect::new(V5, "last").bytes());
    assert_eq!(last.connack().code, 0);
    first.ping();
    let warnings = process.log().iter().filter(|line| line.contains("have to wait")).count();
    assert_eq!(warnings, 1);
    process.stop();
}

#[test]
fn configuration_file_is_read() {
    let dir = TempDir::new("config-file");
    let file = dir.file("config.json", "{");
    let typed = format!("@{}", file.display());
    let library = crate::harness::package_library("hello-handler");
    let output = host_output(["check".as_ref(), library.as_os_str(), "--plugin-config".as_ref(), typed.as_ref()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("JSON"), "{}", stderr(&output));
}
