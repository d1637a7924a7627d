//! Plugins are swapped while clients are served.

use host::{ServerHandle, SwapRequest};

use crate::harness::{TempDir, eventually, library, with_configured};
use crate::mqtt::{Client, V5};

/// What the plugin says of its version, on a connection that has been there.
fn ask(client: &mut Client) -> String {
    assert_eq!(client.publish("ask", "", 1), 0);
    client.receive().text().to_owned()
}

fn asking(server: &ServerHandle, client_id: &str) -> Client {
    let mut client = Client::connect(server.local_addr(), V5, client_id);
    client.subscribe("answer", 1);
    client
}

fn instances(server: &ServerHandle) -> Vec<(&'static str, u64, usize)> {
    let status = server.status();
    status.plugins[0].instances.iter().map(|one| (one.role.name(), one.generation, one.connections)).collect()
}

#[test]
fn connections_that_are_there_get_the_new_version() {
    with_configured(
        |builder| builder.plugin(library("v1"), "{}"),
        |server| {
            let mut one = asking(server, "one");
            assert_eq!(ask(&mut one), "v1");
            let request = SwapRequest::new(library("v2"));
            let report = server.swap(&request).expect("it fits");
            assert_eq!((report.name.as_str(), report.generation, report.late), ("versioned", 2, 0));
            assert!(report.migration.is_some(), "{report}");
            assert_eq!(instances(server), [("active", 2, 1), ("previous", 1, 0)]);
            assert_eq!(ask(&mut one), "v2");
            let back = server.rollback(None).expect("it is on probation");
            assert_eq!(back.generation, 1);
            assert_eq!(ask(&mut one), "v1");
            eventually("the new one is dropped", || instances(server) == [("active", 1, 1)]);
            let mapped = server.status().mapped_libraries;
            let at_once = SwapRequest { probation: std::time::Duration::ZERO, ..request.clone() };
            server.swap(&at_once).expect("it fits again");
            assert!(server.status().mapped_libraries > mapped);
            assert_eq!(ask(&mut one), "v2");
            eventually("the old one is dropped", || instances(server) == [("active", 3, 1)]);
            one.ping();
        },
    );
}

#[test]
fn file_that_has_changed_is_swapped() {
    let dir = TempDir::new("swap-changed");
    let plugin = dir.path().join("handler.so");
    std::fs::copy(library("v1"), &plugin).unwrap();
    let server = crate::harness::start(2, |builder| builder.plugin(&plugin, "{}"));
    let mut client = asking(&server, "one");
    assert_eq!(server.swap_changed(), []);
    // The same content in another file is no change.
    std::fs::remove_file(&plugin).unwrap();
    std::fs::copy(library("v1"), &plugin).unwrap();
    assert_eq!(server.swap_changed(), []);
    std::fs::copy(library("v2"), &plugin).unwrap();
    assert_eq!(server.swap_changed().into_iter().map(|one| one.unwrap().generation).collect::<Vec<_>>(), [2]);
    assert_eq!(ask(&mut client), "v2");
    server.stop().unwrap();
}
