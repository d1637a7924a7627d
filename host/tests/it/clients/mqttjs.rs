//! mqtt.js, with Node.

use std::process::Command;

use super::{INSTALL, Way, expect_all_cases, installed, with_hosts};
use crate::harness::have;

/// What the library is called here, below the target directory.
pub(super) const LIBRARY: &str = "mqttjs-5.16.0";

#[test]
fn mqttjs_does_everything_at_every_version() {
    let Some(library) = have("node", &["--version"], INSTALL).then(|| installed(LIBRARY)).flatten() else {
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients/mqttjs_cases.js");
    with_hosts(|host| {
        let mut node = Command::new("node");
        node.arg(script).env("NODE_PATH", library.join("node_modules"));
        expect_all_cases(&mut node, host, &Way::ALL);
    });
}
