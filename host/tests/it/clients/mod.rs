//! Clients that others have written, at every version that they speak: one file for each of them.
//!
//! They all go through the same cases, named in [`CASES`], against `host` processes with a plugin: with one worker and
//! the example handler, and with three workers and the recorder. A client's program or script prints a line for each
//! case. `install.sh` installs the clients; `.ci/run` runs it.

mod browser;
mod mosquitto;
mod mqttjs;
mod paho;
mod rumqttc;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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

/// The cases for a protocol level, in their order.
fn cases(version: u8) -> impl Iterator<Item = &'static str> {
    CASES.into_iter().chain(CASES_V5.into_iter().filter(move |_| version == 5))
}

/// How clients come: the URL of a listener, and the authority of its certificate where it has TLS.
struct Way {
    url: &'static str,
    tls: Option<(Authority, Issued)>,
}

impl Way {
    const TCP: Self = Self { url: "tcp://127.0.0.1:0", tls: None };

    fn plain(url: &'static str) -> Self {
        Self { url, tls: None }
    }

    fn tls(url: &'static str) -> Self {
        let authority = Authority::new("authority");
        let issued = authority.server(&["localhost", "127.0.0.1"]);
        Self { url, tls: Some((authority, issued)) }
    }

    /// The levels that a client which knows all of them comes by: with TLS the newer ones, as it is the same to all of them.
    fn levels(&self) -> &'static [u8] {
        if self.tls.is_some() { &[4, 5] } else { &[3, 4, 5] }
    }

    /// What clients trust, as a file in PEM.
    fn trusted(&self) -> Option<&Path> {
        self.tls.as_ref().map(|(authority, _)| authority.file.as_path())
    }

    /// The arguments of a host that listens so.
    fn args(&self, dir: &TempDir) -> [OsString; 2] {
        let Some((_, Issued { certificate, private_key })) = &self.tls else {
            return ["--listen".into(), self.url.into()];
        };
        let url = self.url;
        let text =
            format!("[[listener]]\nurl = {url:?}\ncertificate = {certificate:?}\nprivate_key = {private_key:?}\n");
        ["--config".into(), dir.file("host.toml", &text).into()]
    }
}

/// Runs `client` at each of these levels with a server of its own, and with one worker and three. All at one time: they
/// wait more than they work.
#[track_caller]
fn matrix(way: &Way, versions: &[u8], client: impl Fn(SocketAddr, u8) + Sync) {
    let dir = TempDir::new(&format!("clients-{:?}", std::thread::current().id()));
    let config = format!("{{\"file\": \"{}\"}}", dir.path().join("record").display());
    let one = ["--workers", "1", "--plugin", &path(package_library("hello-handler"))].map(String::from);
    let three =
        ["--workers", "3", "--plugin", &path(library("recorder")), "--plugin-config", &config].map(String::from);
    let (listen, client) = (&way.args(&dir), &client);
    std::thread::scope(|scope| {
        for args in [&one[..], &three[..]] {
            for version in versions {
                scope.spawn(move || {
                    let mut process = Process::spawn(host_command().args(listen).args(args));
                    let addr = process.wait_listening();
                    client(addr, *version);
                    process.stop();
                });
            }
        }
    });
}

/// Runs a script that prints `<case> ok` for each case.
#[track_caller]
fn expect_all_cases(command: &mut Command, version: u8) {
    let ran = output_within(command, PATIENCE);
    let expected: String = cases(version).map(|case| format!("{case} ok\n")).collect();
    let (got, errors) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && got == expected, "{command:?}: {got}{errors}");
}

/// A client that `install.sh` has put below the target directory. `None` if it is not there: then the test is not run,
/// which is an error where `CI=true`.
fn installed(name: &str) -> Option<PathBuf> {
    let path = target_root().join("clients").join(name);
    have("test", &["-d", path.to_str().expect("it is UTF-8")], INSTALL).then_some(path)
}

fn path(path: PathBuf) -> String {
    path.into_os_string().into_string().expect("it is UTF-8")
}
