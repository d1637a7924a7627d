//! Clients that others have written, at every version that they speak: one file for each of them.
//!
//! They all go through the same cases, named in [`CASES`], by the ways that they know ([`Way`]), against `host` processes with
//! a plugin, each of which listens for all ways: with one worker and the example handler, and with three workers and the
//! recorder. A client's program or script prints a line for each case. `install.sh` installs the clients; `.ci/run` runs it.

mod browser;
mod mosquitto;
mod mqttjs;
mod paho;
mod rumqttc;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::certificates::{Authority, Issued};
use crate::harness::{Process, TempDir, have, host_command, library, output_within, package_library, target_root};

/// What installs the clients.
const INSTALL: &str = "host/tests/it/clients/install.sh";

/// How long all cases of one client may take. They take some seconds where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(300);

/// What every client does at every version.
const CASES: [&str; 9] = ["qos_0", "qos_1", "qos_2", "retain", "will", "resume", "shared", "request_response", "large"];

/// What every client does at 5.0 besides.
const CASES_V5: [&str; 2] = ["user_properties", "topic_alias"];

/// What scripts do besides where there is TLS.
const CASE_TLS: &str = "verified";

/// The cases for a protocol level, in their order.
fn cases(version: u8) -> impl Iterator<Item = &'static str> {
    CASES.into_iter().chain(CASES_V5.into_iter().filter(move |_| version == 5))
}

/// How clients come. A certificate is good for `localhost` only, and shown to those only who ask for that name (SNI).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Tcp,
    Tls,
    Ws,
    /// Who comes this way has to show a certificate.
    Wss,
    Unix,
}

impl Way {
    const ALL: [Self; 5] = [Self::Tcp, Self::Tls, Self::Ws, Self::Wss, Self::Unix];

    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Unix => "unix",
        }
    }

    /// The levels that a client which knows all of them comes by: with TLS and at a Unix socket the newer ones, as these are the
    /// same to all of them. WebSocket is not: what a client of 3.1 offers may be called otherwise.
    fn levels(self) -> &'static [u8] {
        match self {
            Self::Tcp | Self::Ws => &[3, 4, 5],
            Self::Tls | Self::Wss | Self::Unix => &[4, 5],
        }
    }

    fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }
}

/// A `host` process that listens for clients by each way.
struct Host {
    process: Process,
    /// Whom clients trust, and who has issued what they show.
    authority: Authority,
    client: Issued,
    dir: TempDir,
}

impl Host {
    fn start(settings: &str) -> Self {
        let (authority, dir) = (Authority::new("authority"), TempDir::new("clients"));
        let [ours, others] = [["localhost"], ["elsewhere.example"]].map(|names| authority.server(&names));
        let tls = format!(
            "certificate = {:?}\nprivate_key = {:?}\nmore_certificates = [{:?}]\nmore_private_keys = [{:?}]\n",
            others.certificate, others.private_key, ours.certificate, ours.private_key
        );
        let required = format!("client_certificates = \"required\"\nclient_authorities = [{:?}]\n", authority.file);
        let listener = |way: Way| {
            let url = match way {
                Way::Unix => format!("unix:{}", dir.path().join("mqtt").display()),
                _ => format!("{}://127.0.0.1:0", way.name()),
            };
            let tls = if way.has_tls() { &tls } else { "" };
            let required = if way == Way::Wss { &required } else { "" };
            format!("[[listener]]\nurl = {url:?}\n{tls}{required}")
        };
        let file = dir.file("host.toml", &(settings.to_owned() + &Way::ALL.map(listener).concat()));
        let process = Process::spawn(host_command().arg("--config").arg(file).args(["--control", "none"]));
        let client = authority.client_certificate("client", 7);
        Self { process, authority, client, dir }
    }

    /// Where clients come to by this way, which is not a Unix socket.
    fn addr(&self, way: Way) -> SocketAddr {
        let scheme = if way == Way::Tcp { String::new() } else { format!("{}://", way.name()) };
        self.process.wait_listening_on(&format!("{scheme}127.0.0.1:"))
    }

    /// The Unix socket.
    fn socket(&self) -> PathBuf {
        self.process.wait_log("listening on unix:");
        self.dir.path().join("mqtt")
    }

    /// What a script is told of a way.
    fn told(&self, way: Way, version: u8) -> Value {
        let mut told = json!({ "name": way.name(), "version": version });
        if way == Way::Unix {
            told["path"] = json!(self.socket());
        } else {
            told["host"] = json!("localhost");
            told["port"] = json!(self.addr(way).port());
        }
        if way.has_tls() {
            told["authority"] = json!(self.authority.file);
        }
        if way == Way::Wss {
            told["certificate"] = json!(self.client.certificate);
            told["private_key"] = json!(self.client.private_key);
        }
        told
    }
}

/// Runs `client` with a server that has one worker, and with one that has three. Both at one time: they wait more than they work.
#[track_caller]
fn with_hosts(client: impl Fn(&Host) + Sync) {
    let dir = TempDir::new("clients-record");
    let hello = format!("workers = 1\n[[plugin]]\npath = {:?}\n", package_library("hello-handler"));
    let record = format!("config = {{ file = {:?} }}\n", dir.path().join("record"));
    let recorder = format!("workers = 3\n[[plugin]]\npath = {:?}\n{record}", library("recorder"));
    let client = &client;
    std::thread::scope(|scope| {
        for settings in [hello, recorder] {
            scope.spawn(move || {
                let host = Host::start(&settings);
                client(&host);
                host.process.stop();
            });
        }
    });
}

/// Runs a script that is told of these ways and prints `<way> <level> <case> ok` for each case.
#[track_caller]
fn expect_all_cases(command: &mut Command, host: &Host, ways: &[Way]) {
    let all = || ways.iter().flat_map(|way| way.levels().iter().map(|level| (*way, *level)));
    let told: Value = all().map(|(way, level)| host.told(way, level)).collect();
    let ran = output_within(command.arg(told.to_string()), PATIENCE);
    let expected = all().flat_map(|(way, level)| {
        let cases = cases(level).chain(way.has_tls().then_some(CASE_TLS));
        cases.map(move |case| format!("{} {level} {case} ok", way.name()))
    });
    let (said, errors) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let missing: Vec<_> = expected.filter(|expected| !said.lines().any(|line| line == expected)).collect();
    assert!(ran.status.success() && missing.is_empty(), "{command:?}: not {missing:?}\n{said}{errors}");
}

/// A client that `install.sh` has put below the target directory. `None` if it is not there: then the test is not run,
/// which is an error where `CI=true`.
fn installed(name: &str) -> Option<PathBuf> {
    let path = target_root().join("clients").join(name);
    have("test", &["-d", path.to_str().expect("it is UTF-8")], INSTALL).then_some(path)
}
