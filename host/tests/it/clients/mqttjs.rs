//! mqtt.js, with Node.

use std::process::Command;

use super::{INSTALL, Way, expect_all_cases, installed, matrix};
use crate::harness::have;

/// What the library is called here, below the target directory.
pub(super) const LIBRARY: &str = "mqttjs-5.16.0";

fn mqttjs(transport: &str, way: &Way) {
    let Some(library) = have("node", &["--version"], INSTALL).then(|| installed(LIBRARY)).flatten() else {
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients/mqttjs_cases.js");
    matrix(way, way.levels(), |addr, version| {
        let mut node = Command::new("node");
        node.arg(script).args([addr.port().to_string(), version.to_string(), transport.to_owned()]).args(way.trusted());
        node.env("NODE_PATH", library.join("node_modules"));
        expect_all_cases(&mut node, version);
    });
}

#[test]
fn mqttjs_does_everything_at_every_version() {
    mqttjs("mqtt", &Way::TCP);
}

#[test]
fn mqttjs_does_everything_by_websocket() {
    mqttjs("ws", &Way::plain("ws://127.0.0.1:0"));
}

#[test]
fn mqttjs_does_everything_by_tls() {
    mqttjs("mqtts", &Way::tls("tls://127.0.0.1:0"));
}

#[test]
fn mqttjs_does_everything_by_websocket_within_tls() {
    mqttjs("wss", &Way::tls("wss://127.0.0.1:0"));
}
