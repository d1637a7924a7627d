//! The paho library for Python, with the API of its versions 1 and with that of its versions 2.

use std::process::Command;

use super::{INSTALL, Way, expect_all_cases, installed, with_hosts};
use crate::harness::have;

fn paho(name: &str, ways: &[Way]) {
    let Some(library) = have("python3", &["--version"], INSTALL).then(|| installed(name)).flatten() else {
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients/paho_cases.py");
    with_hosts(|host| {
        let mut python = Command::new("python3");
        python.arg(script).env("PYTHONPATH", &library).env("PYTHONDONTWRITEBYTECODE", "1");
        expect_all_cases(&mut python, host, ways);
    });
}

/// [MQTT-7.0.0-2@3.1.1]. Its WebSocket is that of its versions 2; it knows no Unix sockets.
#[test]
fn paho_1_does_everything_at_every_version() {
    paho("paho-1.6.1", &[Way::Tcp, Way::Tls]);
}

/// [MQTT-7.0.0-2@3.1.1]
#[test]
fn paho_2_does_everything_at_every_version() {
    paho("paho-2.1.0", &Way::ALL);
}
