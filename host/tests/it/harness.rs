//! Starts servers, in this process or as one of their own, and finds the libraries and programs that tests need.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use host::{Builder, Server, ServerHandle};

/// How long anything may take before a test fails. Long, for machines that are busy: with four other programs on two cores
/// 20 seconds were not enough. Nothing waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, condition: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, condition);
}

/// The same with another patience.
#[track_caller]
pub(crate) fn eventually_within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Starts a server in this process, on a free port.
#[track_caller]
pub(crate) fn start(workers: usize, configure: impl FnOnce(Builder) -> Builder) -> ServerHandle {
    configure(Server::builder().listen("127.0.0.1:0").workers(workers)).start().expect("the server starts")
}

/// Runs a test against a server with one worker, then against one with three, so that connections are handed over.
#[track_caller]
pub(crate) fn with_server(test: impl Fn(&ServerHandle)) {
    with_configured(|builder| builder, test);
}

/// The same, with a configuration.
#[track_caller]
pub(crate) fn with_configured(configure: impl Fn(Builder) -> Builder, test: impl Fn(&ServerHandle)) {
    for workers in [1, 3] {
        println!("with {workers} workers");
        let server = start(workers, &configure);
        test(&server);
        server.stop().expect("the server stops");
    }
}

/// The `host` program, running. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Process {
    /// Starts `host` with these arguments.
    pub(crate) fn start<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Self {
        Self::spawn(host_command().args(args))
    }

    /// Starts a prepared command.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self::spawn_with_stdin(command.stdin(Stdio::null()))
    }

    /// The same, with the standard input that the command has.
    pub(crate) fn spawn_with_stdin(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("host can be run");
        let stderr = child.stderr.take().expect("it is a pipe");
        let log = Arc::new(Log::default());
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("host: {line}");
                writer.lines.lock().unwrap().0.push(line);
                writer.changed.notify_all();
            }
            writer.lines.lock().unwrap().1 = true;
            writer.changed.notify_all();
        });
        Self { child, log }
    }

    /// Starts `host` on a free port and waits until it listens.
    #[track_caller]
    pub(crate) fn listening<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> (Self, SocketAddr) {
        let mut process = Self::spawn(host_command().args(["--listen", "127.0.0.1:0"]).args(args));
        let addr = process.wait_listening();
        (process, addr)
    }

    /// Waits for the line that says where it listens.
    #[track_caller]
    pub(crate) fn wait_listening(&mut self) -> SocketAddr {
        let line = self.wait_log("listening on ");
        let (_, rest) = line.split_once("listening on ").expect("it was searched for");
        let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
        // That of a listener which is not plain TCP stands in its URL.
        let (_, addr) = rest[..end].split_once("://").unwrap_or(("tcp", &rest[..end]));
        let addr = addr.split('/').next().unwrap_or_default();
        addr.parse().unwrap_or_else(|_| panic!("an address in {line}"))
    }

    /// The address, once it listens; `None` if it ends instead.
    pub(crate) fn listens(&mut self) -> Option<SocketAddr> {
        let mut has_begun = false;
        eventually("it listens, or ends", || {
            has_begun = self.log().iter().any(|line| line.contains("listening on "));
            has_begun || !self.is_running()
        });
        has_begun.then(|| self.wait_listening())
    }

    /// The same of the listener whose URL begins like this, at a port of this machine.
    #[track_caller]
    pub(crate) fn wait_listening_on(&self, url: &str) -> SocketAddr {
        let line = self.wait_log(&format!("listening on {url}"));
        let (_, rest) = line.split_once(url).expect("it was searched for");
        let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
        ([127, 0, 0, 1], port.parse().unwrap_or_else(|_| panic!("a port in {line}"))).into()
    }

    /// Waits for a line of the log that contains `text`.
    #[track_caller]
    pub(crate) fn wait_log(&self, text: &str) -> String {
        self.wait_log_of(&[text])
    }

    /// Waits for a line of the log that contains all the parts. On a busy machine others may say a part of it before:
    /// whatever has a bound in time may be late, not only what a test holds up.
    #[track_caller]
    pub(crate) fn wait_log_of(&self, parts: &[&str]) -> String {
        self.wait_log_within(PATIENCE, parts)
    }

    /// The same with another patience.
    #[track_caller]
    pub(crate) fn wait_log_within(&self, patience: Duration, parts: &[&str]) -> String {
        let deadline = Instant::now() + patience;
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.0.iter().find(|line| parts.iter().all(|part| line.contains(part))) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!lines.1 && !left.is_zero(), "no {parts:?} in the log: {:#?}", lines.0);
            lines = self.log.changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// All lines so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lines.lock().unwrap().0.clone()
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it still runs");
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its state can be read").is_none()
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("host ends", || {
            status = self.child.try_wait().expect("its state can be read");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Asks it to stop, and checks that it ends with 0.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.signal(rustix::process::Signal::TERM);
        assert_eq!(self.wait().code(), Some(0));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program under test. Its default control socket is not that of whoever runs the tests.
pub(crate) fn host_command() -> Command {
    static RUNTIME_DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir = RUNTIME_DIR.get_or_init(|| {
        let dir = target_dir().join("it-runtime");
        let made = std::fs::DirBuilder::new().mode(0o700).create(&dir);
        assert!(made.is_ok() || dir.is_dir(), "{}: {made:?}", dir.display());
        dir
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
    command.env("XDG_RUNTIME_DIR", dir);
    command
}

/// Runs `host` until it ends by itself.
#[track_caller]
pub(crate) fn host_output<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Output {
    output(host_command().args(args))
}

/// Runs a program until it ends by itself. Its output has to fit into a pipe.
#[track_caller]
pub(crate) fn output(command: &mut Command) -> Output {
    output_within(command, PATIENCE)
}

/// The same with another patience.
#[track_caller]
pub(crate) fn output_within(command: &mut Command, patience: Duration) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let deadline = Instant::now() + patience;
    while child.try_wait().expect("its state can be read").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it has not ended: {command:?}: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().expect("its output can be read")
}

/// A library of `host/tests/plugins` by the name of its example, built for the profile that this test was built for.
pub(crate) fn library(name: &str) -> PathBuf {
    built(&["-p", "test-plugins", "--examples"], "examples", name)
}

/// The packages in `plugins`, which are built at once.
const SHIPPED: [&str; 7] = ["acl", "http-auth", "jwt", "rewrite", "scram", "validate", "webhook"];

/// The library of another package of the workspace, such as `acl`.
pub(crate) fn package_library(package: &str) -> PathBuf {
    let name = package.replace('-', "_");
    if !SHIPPED.contains(&package) {
        return built(&["-p", package, "--lib"], "", &name);
    }
    let packages = SHIPPED.map(|package| ["-p", package]);
    // And the program that `scram` has.
    built(&[packages.as_flattened(), &["--lib", "--bins"]].concat(), "", &name)
}

/// The directory into which cargo builds this profile: `…/target/debug`.
pub(crate) fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("this test has a path");
    let deps = exe.parent().expect("it lies in a directory");
    deps.parent().expect("the tests of a profile lie in its `deps`").to_owned()
}

/// Builds once per run. `cargo test` alone does not build the libraries of other packages reliably.
///
/// With `PLUGIN_LIBRARIES` they have been built already, into that directory: by another compiler, for example.
fn built(what: &[&str], directory: &str, name: &str) -> PathBuf {
    if let Some(libraries) = std::env::var_os("PLUGIN_LIBRARIES") {
        let path = Path::new(&libraries).join(directory).join(format!("lib{name}.so"));
        assert!(path.exists(), "PLUGIN_LIBRARIES has no {}", path.display());
        return path;
    }
    static BUILT: OnceLock<Mutex<Vec<Vec<String>>>> = OnceLock::new();
    let mut done = BUILT.get_or_init(Mutex::default).lock().unwrap();
    let key: Vec<String> = what.iter().map(ToString::to_string).collect();
    if !done.contains(&key) {
        cargo_build(what);
        done.push(key);
    }
    drop(done);
    let path = target_dir().join(directory).join(format!("lib{name}.so"));
    assert!(path.exists(), "cargo build {} makes {}", what.join(" "), path.display());
    path
}

/// Runs `cargo build` for the profile of this test.
fn cargo_build(what: &[&str]) {
    let profile_dir = target_dir();
    let profile = match profile_dir.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    cargo_build_profile(profile, what);
}

/// The target directory, with a directory for each profile in it.
pub(crate) fn target_root() -> PathBuf {
    target_dir().parent().expect("a profile's directory lies in the target directory").to_owned()
}

/// Runs `cargo build` into the target directory of this test.
pub(crate) fn cargo_build_profile(profile: &str, what: &[&str]) {
    let status = Command::new(env!("CARGO"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace"))
        .args(["build", "--quiet", "--profile", profile, "--target-dir"])
        .arg(target_root())
        .args(what)
        .status()
        .expect("cargo can be run");
    assert!(status.success(), "cargo build {}", what.join(" "));
}

/// Whether a program is there. If it is not, the test is not run: an error where `CI=true`, a note elsewhere.
pub(crate) fn have(program: &str, args: &[&str], install: &str) -> bool {
    let found = Command::new(program).args(args).output().is_ok_and(|output| output.status.success());
    if !found {
        let note = format!("NOT RUN: `{program} {}` does not work here; to install it: {install}", args.join(" "));
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{note}");
        eprintln!("{note}");
    }
    found
}

/// A directory for one test, empty; removed when this is dropped.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    /// Two tests may give the same name.
    pub(crate) fn new(name: &str) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("host-it-{}-{serial}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory can be made");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file into it.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("a file can be written");
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
