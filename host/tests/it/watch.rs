//! Plugins that take long: the watchdog says so while they do, and a server that hangs can be made to end.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;

use host::core::owner_of;

use crate::harness::{Process, library};
use crate::mqtt::{Client, Publish, V5};

/// A server whose `handle_publish` takes `slow_ms` for a client that is called `victim`.
fn with_slow(slow_ms: u64, options: &[&str]) -> (Process, SocketAddr) {
    let library = library("unruly");
    let config = format!("{{\"slow_ms\": {slow_ms}}}");
    let args = ["--plugin", library.to_str().unwrap(), "--plugin-config", &config];
    Process::listening(args.iter().chain(options))
}

#[test]
fn callback_that_overstays_is_named_while_it_runs() {
    // Longer than anybody waits, so that it does still run.
    let (mut process, addr) = with_slow(600_000, &["--workers", "1", "--callback-budget", "50ms"]);
    let mut victim = Client::connect(addr, V5, "victim");
    victim.send(Publish::new("t", "x").bytes(V5));
    let parts =
        ["holds up all clients of its worker", "WARN", "\"unruly\"", "handle_publish", "\"victim\"", "worker=0"];
    process.wait_log_of(&parts);
    assert!(process.is_running());
}

#[test]
fn callback_that_has_overstayed_and_returns_is_told_of() {
    let (process, addr) = with_slow(300, &["--workers", "2", "--callback-budget", "20ms"]);
    let mut victim = Client::connect(addr, V5, "victim");
    assert_eq!(victim.publish("t", "x", 1), 0x10);
    process.wait_log_of(&["holds up all clients of its worker", "handle_publish"]);
    process.wait_log_of(&["has returned", "WARN", "\"unruly\"", "handle_publish"]);
    process.stop();
}

#[test]
fn callback_that_never_returns_is_logged_and_others_are_served() {
    let (mut process, addr) = with_slow(600_000, &["--workers", "2", "--callback-stuck-after", "100ms"]);
    let mut victim = Client::connect(addr, V5, "victim");
    victim.send(Publish::new("t", "x").bytes(V5));
    let parts = ["does not return", "ERROR", "\"unruly\"", "handle_publish", "\"victim\"", "worker="];
    let line = process.wait_log_of(&parts);
    let hangs = usize::from(line.contains("worker=1"));
    let mut names = (0..).map(|number| format!("other-{number}"));
    let name = names.find(|name| owner_of(name, 2) != hangs).expect("there are enough");
    Client::connect(addr, V5, name).ping();
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.wait().code(), Some(1));
}

#[test]
fn callback_that_never_returns_ends_the_process_where_the_operator_wants_it() {
    // As long as this, because another callback must not seem to be stuck, and end the process, on a machine that is busy.
    let options = ["--workers", "1", "--callback-stuck-after", "2s", "--callback-stuck", "abort"];
    let (mut process, addr) = with_slow(600_000, &options);
    let mut victim = Client::connect(addr, V5, "victim");
    victim.send(Publish::new("t", "x").bytes(V5));
    let status = process.wait();
    assert_eq!(status.signal(), Some(rustix::process::Signal::ABORT.as_raw()), "{status:?}");
    let line = process.wait_log("does not return");
    assert!(line.contains("\"victim\""), "{line}");
    process.wait_log("the process ends");
}

#[test]
fn plugin_that_panics_again_and_again_is_quarantined() {
    let library = library("unruly");
    let args = ["--quarantine-panics", "3", "--plugin", library.to_str().unwrap()];
    let (process, addr) =
        Process::listening(args.iter().chain(&["--plugin-config", "{\"panic\": \"handle_publish\"}"]));
    let mut before = Client::connect(addr, V5, "before");
    for _ in 0..3 {
        let mut victim = Client::connect(addr, V5, "victim");
        victim.send(Publish::new("t", "x").qos(1, 1).bytes(V5));
        victim.expect_disconnect(0x83);
    }
    let line = process.wait_log("quarantine");
    for part in ["ERROR", "\"unruly\"", "3 panics"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    // It is not asked about what others do either, who stay connected.
    assert_eq!(before.publish("t", "x", 1), 0x83);
    before.ping();
    let (_, connack) = Client::connect_with(addr, &crate::mqtt::Connect::new(V5, "after"));
    assert!(connack.code >= 0x80, "{connack:02x?}");
    process.stop();
}
