//! mqtt.js in a page that Chromium shows, by WebSocket, plain and within TLS.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::json;

use super::mqttjs::LIBRARY;
use super::{INSTALL, cases, installed};
use crate::certificates::Authority;
use crate::harness::{Process, TempDir, have, host_command, package_library};

/// The browser, which takes longer to start than all else, has one page go through all cases, by each way and at every version
/// at one time. A page of another origin, which comes then, is not let in.
#[test]
fn page_in_a_browser_does_everything_at_every_version() {
    let have_all = have("node", &["--version"], INSTALL) && have("chromium", &["--version"], INSTALL);
    let Some(mqttjs) = have_all.then(|| installed(LIBRARY)).flatten() else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients/browser.js");
    let mut node = Command::new("node");
    node.arg(script).env("NODE_PATH", mqttjs.join("node_modules"));
    let mut node = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node can be run");
    // It ends by itself, in time.
    let mut said = BufReader::new(node.stdout.take().expect("it is a pipe"));
    let mut port = String::new();
    said.read_line(&mut port).expect("the port of its pages");
    let origin = format!("http://127.0.0.1:{}", port.trim());

    let (authority, dir) = (Authority::new("authority"), TempDir::new("browser"));
    let issued = authority.server(&["localhost"]);
    let text = format!(
        "workers = 3\n[log]\nlevel = \"debug\"\n[[plugin]]\npath = {:?}\n\
         [[listener]]\nurl = \"ws://127.0.0.1:0\"\norigins = [{origin:?}]\n\
         [[listener]]\nurl = \"wss://127.0.0.1:0\"\norigins = [{origin:?}]\ncertificate = {:?}\nprivate_key = {:?}\n",
        package_library("hello-handler"),
        issued.certificate,
        issued.private_key
    );
    let file = dir.file("host.toml", &text);
    let process = Process::spawn(host_command().arg("--config").arg(file).args(["--control", "none"]));
    let ways: Vec<_> = ["ws", "wss"]
        .into_iter()
        .flat_map(|name| {
            let port = process.wait_listening_on(&format!("{name}://127.0.0.1:")).port();
            [3, 4, 5].map(|version| json!({ "name": name, "version": version, "host": "localhost", "port": port }))
        })
        .collect();
    let told = json!({ "ways": ways, "certificate": issued.certificate });
    writeln!(node.stdin.take().expect("it is a pipe"), "{told}").expect("node reads");
    let said: Vec<String> = said.lines().map_while(Result::ok).collect();
    assert!(node.wait().expect("it ends").success(), "{said:#?}");
    for name in ["ws", "wss"] {
        for version in [3, 4, 5] {
            for case in cases(version) {
                let expected = format!("{name} {version} {case} ok");
                assert!(said.contains(&expected), "not {expected}: {said:#?}");
            }
        }
        let expected = format!("{name} from another origin: no connection");
        assert!(said.contains(&expected), "not {expected}: {said:#?}");
        process.wait_log_of(&[&format!("{name}://127.0.0.1:"), "a connection was refused with status 403"]);
    }
    process.stop();
}
