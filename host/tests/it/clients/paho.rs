//! The paho library for Python, with the API of its versions 1 and with that of its versions 2.

use std::process::Command;

use super::{INSTALL, Way, expect_all_cases, installed, matrix};
use crate::harness::have;

/// The library calls its transports `tcp` and `websockets`.
fn paho(name: &str, transport: &str, way: &Way) {
    let Some(library) = have("python3", &["--version"], INSTALL).then(|| installed(name)).flatten() else {
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients/paho_cases.py");
    matrix(way, way.levels(), |addr, version| {
        let mut python = Command::new("python3");
        python
            .arg(script)
            .args([addr.port().to_string(), version.to_string(), transport.to_owned()])
            .args(way.trusted());
        python.env("PYTHONPATH", &library).env("PYTHONDONTWRITEBYTECODE", "1");
        expect_all_cases(&mut python, version);
    });
}

/// [MQTT-7.0.0-2@3.1.1]
#[test]
fn paho_1_does_everything_at_every_version() {
    paho("paho-1.6.1", "tcp", &Way::TCP);
}

/// [MQTT-7.0.0-2@3.1.1]
#[test]
fn paho_2_does_everything_at_every_version() {
    paho("paho-2.1.0", "tcp", &Way::TCP);
}

#[test]
fn paho_does_everything_by_websocket() {
    paho("paho-2.1.0", "websockets", &Way::plain("ws://127.0.0.1:0/mqtt"));
}

#[test]
fn paho_does_everything_by_tls() {
    paho("paho-2.1.0", "tcp", &Way::tls("tls://127.0.0.1:0"));
}

#[test]
fn paho_does_everything_by_websocket_within_tls() {
    paho("paho-2.1.0", "websockets", &Way::tls("wss://127.0.0.1:0/mqtt"));
}
