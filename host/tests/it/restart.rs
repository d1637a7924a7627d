//! Another version of a handler: stop, replace the file, start.

use std::net::SocketAddr;
use std::path::Path;

use crate::harness::{Process, TempDir, library};
use crate::mqtt::{Client, V5};

/// Asks the handler for its version.
#[track_caller]
fn ask(addr: SocketAddr) -> String {
    let mut client = Client::connect(addr, V5, "c");
    client.subscribe("answer", 0);
    client.publish("ask", "", 1);
    client.receive().text().to_owned()
}

fn start(plugin: &Path) -> (Process, SocketAddr) {
    Process::listening(["--plugin", plugin.to_str().unwrap()])
}

#[test]
fn replaced_library_answers_after_a_restart_and_not_before() {
    let dir = TempDir::new("restart");
    let plugin = dir.path().join("handler.so");
    std::fs::copy(library("v1"), &plugin).unwrap();
    let (process, addr) = start(&plugin);
    assert_eq!(ask(addr), "v1");
    // In place, while it is loaded: the running host has a copy of its own.
    std::fs::copy(library("v2"), &plugin).unwrap();
    assert_eq!(ask(addr), "v1");
    process.stop();
    let (process, addr) = start(&plugin);
    assert_eq!(ask(addr), "v2");
    // A file that is cut off under the running host does not hurt it either.
    std::fs::write(&plugin, "").unwrap();
    assert_eq!(ask(addr), "v2");
    process.stop();
}

#[test]
fn server_of_this_process_starts_again_with_another_version() {
    let dir = TempDir::new("restart-in-process");
    let plugin = dir.path().join("handler.so");
    for round in 0..6 {
        let version = if round % 2 == 0 { "v1" } else { "v2" };
        std::fs::copy(library(version), &plugin).unwrap();
        let server = crate::harness::start(2, |builder| builder.plugin(&plugin, "{}"));
        assert_eq!(ask(server.local_addr()), version);
        server.stop().unwrap();
    }
}

#[test]
fn port_can_be_taken_again_at_once() {
    let again = || {
        let first = crate::harness::start(1, |builder| builder);
        let addr = first.local_addr();
        let client = Client::connect(addr, V5, "c");
        // The server closes first, so that its side of the connection stays with the kernel for a while.
        drop(first);
        drop(client);
        host::Server::builder().listen(addr.to_string()).start()
    };
    // Another program, or another test, may have taken this very port meanwhile; not each time.
    let second = (0..5).map(|_| again()).find(Result::is_ok).expect("the address is free").expect("it was found");
    Client::connect(second.local_addr(), V5, "c").ping();
}
