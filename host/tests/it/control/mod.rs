//! The control socket and its commands, with the real program on both sides.

mod plugins;
mod reload;
mod socket;
mod swap;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::harness::{Process, TempDir, host_output};
use crate::mqtt::{Client, V5};

/// A host with a control socket of its own.
struct Host {
    process: Process,
    addr: SocketAddr,
    dir: TempDir,
}

impl Host {
    #[track_caller]
    fn start(name: &str, args: &[&str]) -> Self {
        let dir = TempDir::new(name);
        let control = dir.path().join("s");
        let (process, addr) = Process::listening([&["--control", control.to_str().unwrap()], args].concat());
        Self { process, addr, dir }
    }

    fn control(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// Runs a command for this host.
    #[track_caller]
    fn command(&self, args: &[&str]) -> Output {
        command(&self.control(), args)
    }

    /// Runs a command that is carried out, and gives its result.
    #[track_caller]
    fn result(&self, args: &[&str]) -> Value {
        let output = self.command(&[args, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(answer["ok"], true, "{answer}");
        answer["result"].clone()
    }

    /// Runs a command that is refused, and gives the step and the reason, which stands on stderr as well. The output is
    /// not a terminal: the object is there with --json and without.
    #[track_caller]
    fn refusal(&self, args: &[&str]) -> (String, String) {
        let output = self.command(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stderr(&output));
        let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(answer["ok"], false, "{answer}");
        let text = |key: &str| answer["error"][key].as_str().unwrap().to_owned();
        assert!(stderr(&output).contains(&text("reason")), "{}", stderr(&output));
        (text("step"), text("reason"))
    }

    /// The instances of the only plugin: role, generation and connections.
    #[track_caller]
    fn instances(&self) -> Vec<(String, u64, u64)> {
        let plugins = self.result(&["plugins"]);
        let number = |instance: &Value, key: &str| instance[key].as_u64().unwrap();
        let instances = plugins["plugins"][0]["instances"].as_array().unwrap().iter();
        instances
            .map(|one| {
                (one["role"].as_str().unwrap().to_owned(), number(one, "generation"), number(one, "connections"))
            })
            .collect()
    }

    /// A client that gets the answers to what it asks.
    #[track_caller]
    fn asking(&self, client_id: &str) -> Client {
        let mut client = Client::connect(self.addr, V5, client_id);
        client.subscribe("answer", 1);
        client
    }
}

/// The answer of the plugin that decides about this connection; of the others, which it hears as well, no one asks.
#[track_caller]
fn ask(client: &mut Client) -> String {
    assert_eq!(client.publish("ask", "", 1), 0);
    client.receive().text().to_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[track_caller]
fn command(control: &Path, args: &[&str]) -> Output {
    host_output([args, &["--control", control.to_str().unwrap()]].concat())
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn assert_failed(output: &Output, code: i32, parts: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` in {text}");
    }
}
