//! Minor versions of the interface: a plugin of an older one in a newer host, and the other way round.
//!
//! There is a *later minor version* of everything, made from the sources: a callback and a service more, `later`, at the
//! end of the tables, as ABI.md says that they grow. With it, all four combinations are loaded and run. And there is
//! plugin-api as it was released, below `tests/fixtures`: a plugin that is built with it runs in both hosts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use crate::harness::{Process, host_command, library, output, target_dir, target_root};
use crate::mqtt::{Client, V5};

/// The later version's host and plugin.
struct Later {
    host: PathBuf,
    plugin: PathBuf,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("host is in the workspace")
}

/// What is changed in one file.
struct Edit {
    file: &'static str,
    /// Behind the first one of these …
    after: &'static str,
    /// … and before the next one of these …
    before: &'static str,
    /// … this is put.
    new: &'static str,
}

const fn edit(file: &'static str, after: &'static str, before: &'static str, new: &'static str) -> Edit {
    Edit { file, after, before, new }
}

/// How an interface grows. `#` in what is put is the next callback's number.
const EDITS: [Edit; 19] = [
    // plugin-api: the tables, and who calls them.
    edit(
        "plugin-api/src/abi/plugin.rs",
        "pub struct PluginVt {",
        "\n}\n",
        "\n    /// Later.\n    pub later: unsafe extern \"C\" fn(Opaque, Sink<'_>) -> Verdict,",
    ),
    edit(
        "plugin-api/src/abi/host.rs",
        "pub struct HostVt {",
        "\n}\n",
        "\n    /// Later.\n    pub later: unsafe extern \"C\" fn(Opaque, u64) -> u64,",
    ),
    edit(
        "plugin-api/src/abi/host.rs",
        "\nimpl RawHost {",
        "\n}\n",
        "\n    /// Later, if the host is a later one.\n    pub fn later(self, number: u64) -> Option<u64> {\n        \
         let later = self.services.later()?;\n        Some(unsafe { later(self.context, number) })\n    }",
    ),
    edit(
        "plugin-api/src/host.rs",
        "\nimpl Host {",
        "\n}\n",
        "\n    /// Later.\n    pub fn later(&self, number: u64) -> Option<u64> {\n        self.raw.later(number)\n    }",
    ),
    edit("plugin-api/src/callbacks.rs", "pub enum Callback {", "\n}\n", "\n    /// Later.\n    Later = #,"),
    edit("plugin-api/src/callbacks.rs", "pub const ALL: [Self; # ", "]", " + 1"),
    edit("plugin-api/src/callbacks.rs", "pub const ALL:", "\n    ];\n", "\n        Self::Later,"),
    edit(
        "plugin-api/src/callbacks.rs",
        "match self {",
        "\n        }\n",
        "\n            Self::Later => \"handle_later\",",
    ),
    edit("plugin-api/macros/src/callbacks.rs", "const CALLBACKS: [(&str, &str); # ", "]", " + 1"),
    edit("plugin-api/macros/src/callbacks.rs", "const CALLBACKS:", "\n];\n", "\n    (\"handle_later\", \"Later\"),"),
    edit("plugin-api/src/handler.rs", "pub trait Handler:", "\n}\n", "\n    /// Later.\n    fn handle_later(&self) {}"),
    edit(
        "plugin-api/src/export/shims.rs",
        "const fn table(",
        "\n        }\n    }\n",
        "\n            later: Self::later,",
    ),
    edit("plugin-api/src/export/shims.rs", "\nwithout_state! {", "\n}\n", "\n    later(): handle_later();"),
    // The host: it calls the callback when it has made an instance, and its service doubles a number.
    edit("host/src/plugin/services/functions.rs", "const TABLE: HostVt = HostVt {", "\n};\n", "\n    later,"),
    edit(
        "host/src/plugin/services/functions.rs",
        "const TABLE: HostVt = HostVt {",
        "\nunsafe extern",
        "\nunsafe extern \"C\" fn later(_: Opaque, number: u64) -> u64 {\n    2 * number\n}\n",
    ),
    edit("host/src/plugin/c.rs", "const ABSENT: PluginVt", "\n};\n", "\n    later: nothing,"),
    edit(
        "host/src/plugin/c/services.rs",
        "\nstruct CServices {",
        "\n}\n",
        "\n    later: unsafe extern \"C\" fn(Opaque, u64) -> u64,",
    ),
    edit("host/src/plugin/c/services.rs", "static TABLE: CServices", "\n};\n", "\n    later: OURS.later,"),
    edit(
        "host/src/plugin/instance.rs",
        "unsafe fn init(",
        "\n        let plugin = Self {\n",
        "\n        if let Some(later) = table.later() {\n            \
         unsafe { later(instance, Answer::default().sink()) };\n        }",
    ),
];

/// A plugin that is written for the later version, and gets along with the earlier one.
const PLUGIN: &str = r#"//! Uses what the later version has.
use plugin_api::{ConnectionInfo, Error, Handler, Host, Message, Publish, PublishVerdict, handler};

struct Later(Host);

#[handler]
impl Handler for Later {
    type Connection = ();

    fn init(host: Host, _: &str) -> Result<Self, Error> {
        host.info(format_args!("the service says {:?}", host.later(21)));
        Ok(Self(host))
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    fn handle_publish(&self, _: &mut (), publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        if publish.topic() != "ask" {
            return Ok(PublishVerdict::Forward);
        }
        Ok(PublishVerdict::ForwardChanged(Message::from(publish).topic("answer").payload("later")))
    }

    fn handle_later(&self) {
        self.0.info("the callback was called");
    }
}

plugin_api::export!(Later, "later");
"#;

/// Copies a folder of the repository, files that are the same excepted: cargo goes by their times.
fn copy(from: &Path, to: &Path, change: &dyn Fn(&Path, String) -> String) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder of the repository").flatten() {
        let (path, copy_path) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &copy_path, change);
        } else if let Ok(text) = fs::read_to_string(&path) {
            write(&copy_path, &change(&path, text));
        }
    }
}

fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).ok().as_deref() != Some(text) {
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
        fs::write(path, text).expect("a file can be written");
    }
}

/// One file of the later version.
fn changed(path: &Path, mut text: String) -> String {
    let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
    let callbacks = plugin_api::Callback::ALL.len().to_string();
    for Edit { file, after, before, new } in EDITS.iter().filter(|edit| edit.file == name) {
        let after = after.replace("# ", &callbacks);
        let at = text.find(&after).unwrap_or_else(|| panic!("`{after}` in {file}")) + after.len();
        let end = text[at..].find(before).unwrap_or_else(|| panic!("`{before}` behind `{after}` in {file}"));
        text.insert_str(at + end, &new.replace('#', &callbacks));
    }
    if name.starts_with("plugin-api") && name.ends_with("Cargo.toml") {
        // A minor version more.
        let (major, minor) = version();
        text = text.replace(&format!("\"{major}.{minor}."), &format!("\"{major}.{}.", minor + 1));
        text = text.replace(&format!("\"={major}.{minor}."), &format!("\"={major}.{}.", minor + 1));
    }
    if name == "host/Cargo.toml" {
        // The target directory is that of the other tests, which have a `host` there.
        text = text.replace("[[bin]]\nname = \"host\"", "[[bin]]\nname = \"host-later\"");
        text = text.replace("name = \"host\"\nversion", "name = \"host-later\"\nversion");
    }
    text
}

/// The first two numbers of plugin-api's version.
fn version() -> (u32, u32) {
    let manifest = fs::read_to_string(root().join("plugin-api/Cargo.toml")).expect("a manifest");
    let line = manifest.lines().find_map(|line| line.strip_prefix("version = \"")).expect("a version");
    let mut numbers = line.split('.').map(|number| number.parse().expect("a number"));
    (numbers.next().expect("major"), numbers.next().expect("minor"))
}

/// Makes the later version, once per run.
fn later() -> &'static Later {
    static LATER: OnceLock<Later> = OnceLock::new();
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILDING.lock();
    LATER.get_or_init(|| {
        let workspace = target_root().join("later-version");
        for folder in ["plugin-api/src", "plugin-api/macros", "host/src", "host/benches"] {
            copy(&root().join(folder), &workspace.join(folder), &changed);
        }
        for file in [
            "Cargo.lock",
            "README.md",
            "plugin-api/Cargo.toml",
            "plugin-api/README.md",
            "host/Cargo.toml",
            "host/LIMITS.md",
        ] {
            let text = fs::read_to_string(root().join(file)).expect("a file of the repository");
            // The lock file is cargo's to adapt.
            if file != "Cargo.lock" || !workspace.join(file).exists() {
                write(&workspace.join(file), &changed(&root().join(file), text));
            }
        }
        write(&workspace.join("host/tests/it/main.rs"), "");
        let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the workspace");
        let (before, rest) = manifest.split_once("members = [").expect("members");
        let (_, after) = rest.split_once(']').expect("members end");
        let members = "members = [\"host\", \"plugin-api\", \"plugin-api/macros\", \"plugin\"]";
        write(&workspace.join("Cargo.toml"), &format!("{before}{members}{after}"));
        write(&workspace.join("plugin/src/lib.rs"), PLUGIN);
        let manifest = "[package]\nname = \"later\"\nversion = \"1.0.0\"\nedition.workspace = true\n\n\
                        [lib]\ncrate-type = [\"cdylib\"]\n\n\
                        [dependencies]\nplugin-api = { path = \"../plugin-api\" }\n";
        write(&workspace.join("plugin/Cargo.toml"), manifest);
        build(&workspace, &["-p", "host-later", "-p", "later"]);
        Later { host: target_dir().join("host-later"), plugin: target_dir().join("liblater.so") }
    })
}

/// Builds packages of another workspace into the target directory of this one.
fn build(workspace: &Path, what: &[&str]) {
    let profile = target_dir().file_name().expect("a profile").to_string_lossy().replace("debug", "dev");
    let status = Command::new(env!("CARGO"))
        .current_dir(workspace)
        .args(["build", "--quiet", "--offline", "--profile", &profile, "--target-dir"])
        .arg(target_root())
        .args(what)
        .status()
        .expect("cargo can be run");
    assert!(status.success(), "cargo build {} in {}", what.join(" "), workspace.display());
}

/// Loads a plugin into a host, and has it decide; returns what the host has logged.
#[track_caller]
fn runs(mut host: Command, plugin: &Path, answer: &str) -> Vec<String> {
    let plugin = plugin.to_str().expect("text");
    let mut process = Process::spawn(host.args(["--listen", "127.0.0.1:0", "--plugin", plugin]));
    let addr = process.wait_listening();
    let mut client = Client::connect(addr, V5, "c");
    client.subscribe("answer", 1);
    assert_eq!(client.publish("ask", "which?", 1), 0);
    assert_eq!(client.receive().text(), answer);
    let log = process.log();
    process.stop();
    log
}

fn says(log: &[String], text: &str) -> bool {
    log.iter().any(|line| line.contains(text))
}

#[test]
fn all_combinations_of_minor_versions_run() {
    let later = later();
    let host_later = || Command::new(&later.host);
    // An earlier plugin in both hosts.
    runs(host_command(), &library("v1"), "v1");
    runs(host_later(), &library("v1"), "v1");
    // A later plugin in a later host gets the callback, and can ask for the service.
    let log = runs(host_later(), &later.plugin, "later");
    assert!(says(&log, "the service says Some(42)") && says(&log, "the callback was called"), "{log:#?}");
    // In an earlier host, it gets neither, and knows it.
    let log = runs(host_command(), &later.plugin, "later");
    assert!(says(&log, "the service says None") && !says(&log, "the callback was called"), "{log:#?}");
}

#[test]
fn check_shows_the_minor_version_of_a_plugin() {
    let later = later();
    let (major, minor) = version();
    for host in [host_command(), Command::new(&later.host)] {
        for (plugin, minor) in [(library("v1"), minor), (later.plugin.clone(), minor + 1)] {
            let mut host = Command::new(host.get_program());
            let output = output(host.arg("check").arg(&plugin));
            let text = String::from_utf8(output.stdout).expect("text");
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(text.contains(&format!("plugin-api  {major}.{minor}.")), "{text}");
        }
    }
}

#[test]
fn plugins_of_released_versions_run() {
    let mut releases = 0;
    for entry in fs::read_dir(root().join("host/tests/fixtures")).expect("the fixtures").flatten() {
        let kept = entry.path();
        let Some(version) = kept.file_name().and_then(|name| name.to_str()?.strip_prefix("plugin-api-")) else {
            continue;
        };
        releases += 1;
        build(&kept, &["-p", "released-plugin"]);
        let plugin = target_dir().join("libreleased_plugin.so");
        let hosts = [host_command(), Command::new(&later().host)];
        for mut host in hosts {
            let plugin = plugin.to_str().expect("text");
            let checked = output(Command::new(host.get_program()).args(["check", plugin]));
            let text = String::from_utf8_lossy(&checked.stdout).into_owned();
            assert!(text.contains(&format!("plugin-api  {version}")), "{text}");
            let mut process = Process::spawn(host.args(["--listen", "127.0.0.1:0", "--plugin", plugin]));
            let addr = process.wait_listening();
            let mut client = Client::connect(addr, V5, "released");
            process.wait_log("hello, released");
            assert_eq!(client.publish("t", "x", 1), 0x10);
            client.disconnect();
            process.stop();
        }
    }
    assert!(releases > 0, "host/tests/fixtures/keep-release keeps what is released");
}
