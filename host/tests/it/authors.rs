//! What authors of handlers have: `host new` and `host dev`, with the compiler that they have.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Process, TempDir, eventually_within, host_command, host_output, output_within, target_root};
use crate::mqtt::{Client, V5};

/// How long a compiler may take, with all that a handler depends on, on a busy machine.
const COMPILED_WITHIN: Duration = Duration::from_secs(600);

/// A crate as `host new` makes it, that has been built once.
pub(crate) struct Crate {
    pub(crate) folder: PathBuf,
}

impl Crate {
    /// Makes it.
    #[track_caller]
    pub(crate) fn new(dir: &TempDir, name: &str) -> Self {
        let folder = dir.path().join(name);
        let made = host_output(["new".as_ref(), folder.as_os_str()]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // What this workspace depends on is on this machine.
        let locked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        std::fs::copy(locked, folder.join("Cargo.lock")).expect("a file can be copied");
        Self { folder }
    }

    /// Runs cargo in it.
    #[track_caller]
    pub(crate) fn cargo(&self, args: &[&str]) {
        let mut command = Command::new("cargo");
        let output = output_within(in_ours(command.current_dir(&self.folder).args(args)), COMPILED_WITHIN);
        assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Puts `new` in the place of `old` in its source, as an editor does that keeps the old file if it fails.
    #[track_caller]
    fn edit(&self, old: &str, new: &str) {
        let file = self.folder.join("src/lib.rs");
        let text = std::fs::read_to_string(&file).expect("it is there");
        assert!(text.contains(old), "{old:?} in {text}");
        let temporary = self.folder.join("src/.lib.rs.new");
        std::fs::write(&temporary, text.replace(old, new)).expect("a file can be written");
        std::fs::rename(temporary, file).expect("a file can be moved");
    }
}

/// Has cargo build where it has built this workspace, with the same profile, so that all that these crates depend on is there;
/// and fetch nothing.
pub(crate) fn in_ours(command: &mut Command) -> &mut Command {
    let debug = std::env::var("CARGO_PROFILE_DEV_DEBUG").unwrap_or_else(|_| "full".to_owned());
    command
        .env("CARGO_PROFILE_DEV_DEBUG", debug)
        .env("CARGO_TARGET_DIR", target_root())
        .env("CARGO_NET_OFFLINE", "true")
}

#[test]
fn new_crate_passes_what_its_ci_file_says() {
    let dir = TempDir::new("new");
    let new = Crate::new(&dir, "new-handler");
    let ci = std::fs::read_to_string(new.folder.join(".github/workflows/ci.yml")).unwrap();
    let steps: Vec<_> = ci.lines().filter_map(|line| line.trim().strip_prefix("- run: cargo ")).collect();
    assert_eq!(steps, ["fmt --check", "clippy --all-targets -- -D warnings", "test", "build --release"]);
    for step in steps {
        // Without optimisation, which would take a minute for all that it depends on.
        new.cargo(&step.split_whitespace().filter(|word| *word != "--release").collect::<Vec<_>>());
    }
    let library = target_root().join("debug/libnew_handler.so");
    let checked = host_output(["check".as_ref(), library.as_os_str()]);
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(text.starts_with("new-handler 0.1.0\n") && text.contains("decides on connections: yes"), "{text}");
}

#[test]
fn new_crates_are_not_made_where_something_is() {
    let dir = TempDir::new("new-refused");
    dir.file("x", "");
    let table: &[(&[&str], &str)] = &[
        (&["."], "it is there already"),
        (&["1st"], "cannot be the name of a crate"),
        (&["plugin-api"], "is the name of something else"),
        (&["my-handler", "--name", "a b"], "cannot be the name of a crate"),
        (&["my-handler", "--plugin-api", "/no/such"], "there is no crate plugin-api"),
    ];
    for (args, expected) in table {
        let mut command = host_command();
        let output = crate::harness::output(command.current_dir(dir.path()).arg("new").args(*args));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(expected), "{args:?}: {text}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let output = host_output(["dev".as_ref(), dir.path().as_os_str()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no Cargo.toml"));
}

/// A new crate is a part of the workspace in whose folder it is if that names it, and does not break it if not.
#[test]
fn new_crates_fit_into_workspaces() {
    let dir = TempDir::new("new-member");
    let metadata = |folder: &Path| {
        let mut cargo = Command::new("cargo");
        cargo.args(["metadata", "--no-deps", "--offline", "--format-version=1"]).current_dir(folder);
        let output = crate::harness::output(&mut cargo);
        assert!(output.status.success(), "{}: {}", folder.display(), String::from_utf8_lossy(&output.stderr));
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (metadata["packages"].as_array().unwrap().len(), said)
    };
    dir.file("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n");
    for (new, members) in [("crates/one", 1), ("crates/two", 2), ("elsewhere/three", 2)] {
        let folder = dir.path().join(new);
        let made = host_output(["new".as_ref(), folder.as_os_str()]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // What is not named has a workspace of its own. Nor does cargo warn of settings that do not count.
        let own = if new.starts_with("crates") { members } else { 1 };
        assert_eq!(metadata(dir.path()), (members, String::new()));
        assert_eq!(metadata(&folder), (own, String::new()));
    }
}

#[test]
fn what_is_saved_is_built_and_takes_the_place_of_what_serves() {
    let dir = TempDir::new("dev");
    let new = Crate::new(&dir, "dev-handler");
    // All that it depends on may take longer than anything else.
    new.cargo(&["build"]);
    let config = dir.file("my.json", "{}");
    let mut dev = host_command();
    dev.arg("dev").arg(&new.folder).arg("--plugin-config").arg(format!("@{}", config.display()));
    dev.args(["--listen", "127.0.0.1:0", "--control"]).arg(dir.path().join("s"));
    let mut dev = Process::spawn(in_ours(&mut dev));
    // Other tests build as well, and one waits for the other.
    let wait = |dev: &Process, text: &str| drop(dev.wait_log_within(COMPILED_WITHIN, &[text]));
    wait(&dev, "listening on ");
    let addr = dev.wait_listening();
    let mut client = Client::connect(addr, V5, "pump-7");
    let mut codes = || [client.publish("pump-7/pressure", "1", 1), client.publish("pump-8/pressure", "1", 1)];
    // Nobody has subscribed.
    const NOBODY: u8 = 0x10;
    const REFUSED: u8 = 0x87;
    assert_eq!(codes(), [NOBODY, REFUSED]);

    new.edit("if owns", "if !owns");
    dev.wait_log_within(COMPILED_WITHIN, &["dev-handler 0.1.0 (generation 2) decides now", "after the save"]);
    assert_eq!(codes(), [REFUSED, NOBODY], "it knows of the client what the version before has learnt");

    new.edit("if !owns", "if !own");
    wait(&dev, "cannot find function `own` in this scope");
    wait(&dev, "it does not compile; what serves goes on");
    assert_eq!(codes(), [REFUSED, NOBODY]);

    new.edit("if !own", "if owns");
    wait(&dev, "(generation 3) decides now");
    assert_eq!(codes(), [NOBODY, REFUSED]);

    new.edit(
        "Ok(Self { host, config })",
        "return Err(format!(\"not today: {}\", host.log_enabled(plugin_api::Level::Error)).into())",
    );
    wait(&dev, "not swapped:");
    wait(&dev, "not today: true");
    assert_eq!(codes(), [NOBODY, REFUSED]);

    // Its configuration is a source as well.
    new.edit(
        "return Err(format!(\"not today: {}\", host.log_enabled(plugin_api::Level::Error)).into())",
        "Ok(Self { host, config })",
    );
    wait(&dev, "(generation 4) decides now");
    dir.file("my.json", r#"{"share": ["+/pressure"]}"#);
    wait(&dev, "my.json has changed");
    wait(&dev, "wrong at `share`: unknown field `share`, expected `shared`");
    dir.file("my.json", r#"{"shared": ["+/pressure"]}"#);
    wait(&dev, "(generation 5) decides now");
    assert_eq!(codes(), [NOBODY, NOBODY]);

    // What takes the host down does not take the loop down.
    new.edit("if owns", "if true { std::process::abort() } else if owns");
    wait(&dev, "(generation 6) decides now");
    client.publish("pump-7/pressure", "1", 0);
    wait(&dev, "host has ended (signal: 6 (SIGABRT)");
    new.edit("if true { std::process::abort() } else if owns", "if owns");
    eventually_within(COMPILED_WITHIN, "it is started again", || {
        dev.log().iter().filter(|line| line.contains("listening on ")).count() == 2
    });
    dev.signal(Signal::INT);
    assert_eq!(dev.wait().code(), Some(0));
}
