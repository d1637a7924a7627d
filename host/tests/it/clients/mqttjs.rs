//! mqtt.js, with Node.

use std::process::Command;

use super::{INSTALL, expect_all_cases, installed, matrix};
use crate::harness::have;

#[test]
fn mqttjs_does_everything_at_every_version() {
    let Some(library) = have("node", &["--version"], INSTALL).then(|| installed("mqttjs-5.16.0")).flatten() else {
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients/mqttjs_cases.js");
    matrix(&[3, 4, 5], |addr, version| {
        let mut node = Command::new("node");
        node.arg(script).args([addr.port().to_string(), version.to_string()]);
        node.env("NODE_PATH", library.join("node_modules"));
        expect_all_cases(&mut node, version);
    });
}
