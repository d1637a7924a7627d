//! mqtt.js in a page that Chromium shows, by WebSocket.

use std::process::Command;

use super::mqttjs::LIBRARY;
use super::{INSTALL, PATIENCE, cases, installed};
use crate::harness::{Process, have, output_within, package_library};

/// Versions are tried one after the other by one browser, which takes longer to start than they do.
#[test]
fn page_in_a_browser_does_everything_at_every_version() {
    let have_all = have("node", &["--version"], INSTALL) && have("chromium", &["--version"], INSTALL);
    let Some(mqttjs) = have_all.then(|| installed(LIBRARY)).flatten() else { return };
    let mut args = ["--listen", "ws://127.0.0.1:0", "--workers", "3", "--plugin"].map(String::from).to_vec();
    args.push(package_library("hello-handler").to_str().expect("it is UTF-8").to_owned());
    let mut process = Process::start(args);
    let addr = process.wait_listening();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients/browser.js");
    let mut node = Command::new("node");
    node.arg(script).args([addr.port().to_string(), "5".into(), "4".into(), "3".into()]);
    let ran = output_within(node.env("NODE_PATH", mqttjs.join("node_modules")), PATIENCE);
    let expected: String = [5, 4, 3]
        .map(|version| {
            let cases: String = cases(version).map(|case| format!("{case} ok\n")).collect();
            format!("version {version}\n{cases}")
        })
        .concat();
    let (got, errors) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && got == expected, "{got}{errors}");
    process.stop();
}
