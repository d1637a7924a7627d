//! What ARCHITECTURE.md promises about the sources, checked.

use std::fs;
use std::path::{Path, PathBuf};

/// The only files that may have `unsafe` code, and why they need it.
const UNSAFE_FILES: &[(&str, &str)] = &[
    ("plugin-api/src/abi.rs", "a sink is called, and a reply crosses threads"),
    ("plugin-api/src/abi/host.rs", "calls of the host's functions"),
    ("plugin-api/src/abi/plugin.rs", "types of a plugin's functions"),
    ("plugin-api/src/abi/reply.rs", "answers of the host, which come back with a pointer"),
    ("plugin-api/src/abi/transport.rs", "what the extension of a view points to"),
    ("plugin-api/src/export.rs", "the symbol of a library"),
    ("plugin-api/src/export/shims.rs", "the functions that the host calls"),
    ("plugin-api/src/export/states.rs", "a connection's state, which futures share"),
    ("plugin-api/src/reading/answer.rs", "the sink that a plugin writes its answer into"),
    ("plugin-api/src/testing/plugin.rs", "calls of a handler's functions, in tests of it"),
    ("plugin-api/src/testing/services.rs", "the functions that such a handler calls"),
    ("plugin-api/tests/abi/", "the word, as it is written in the types of functions"),
    ("plugin-api/tests/later/", "a host made by hand, and an allocator that counts"),
    ("host/src/activation.rs", "descriptors that are known by their number"),
    ("host/src/plugin/c.rs", "the table of a plugin in C is read"),
    ("host/src/plugin/c/", "the functions that such a plugin calls"),
    ("host/src/plugin/call.rs", "calls of a plugin's functions"),
    ("host/src/plugin/enter.rs", "the same, with the state of a connection"),
    ("host/src/plugin/handlers.rs", "a state goes from thread to thread"),
    ("host/src/plugin/instance.rs", "an instance is made and dropped"),
    ("host/src/plugin/offload.rs", "the same on threads of the pool"),
    ("host/src/plugin/handover.rs", "calls of the functions that hand state over"),
    ("host/src/plugin/loader.rs", "dlopen, and trust in a library's header"),
    ("host/src/plugin/transport.rs", "what was shown is found again behind the pointer that plugins got"),
    ("host/src/plugin/services/", "the functions that a plugin calls, and those that take the answers"),
    ("host/src/plugin/services.rs", "the functions that a plugin calls"),
    ("host/tests/memory.rs", "an allocator that counts"),
    ("host/tests/plugins/", "libraries that are wrong on purpose"),
    ("host/tests/fixtures/", "plugin-api as it was released"),
    ("host/tests/it/versions.rs", "what a later version of the interface is made of, as text"),
    ("host/tests/it/tidy.rs", "this list"),
];

/// Modules that run under any driver and under virtual time.
const PURE: [&str; 10] = [
    "host/src/codec",
    "host/src/core",
    "host/src/durable",
    "host/src/router",
    "host/src/limits",
    "host/src/message.rs",
    "host/src/packed.rs",
    "host/src/proxy",
    "host/src/clock.rs",
    "host/src/ws",
];

/// What has no place in them.
const IMPURE_WORDS: [&str; 7] =
    ["tokio::", "rustix::", "libloading", "SystemTime", "TcpStream", "TcpListener", "thread::sleep"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("host is in the workspace").to_owned()
}

/// All files with one of the extensions, by their path from the root of the repository.
pub(crate) fn files(extensions: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with(".git") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted)) {
                let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).expect("text")));
            }
        }
    }
    assert!(found.len() > 5, "found only {} files {extensions:?}: is the root right?", found.len());
    found
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[test]
fn rows_that_are_compared_have_a_place_where_their_bounds_are_written_down() {
    let compare = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/compare");
    match std::process::Command::new("python3").arg(&compare).arg("--list").output() {
        Ok(output) => {
            let rows = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && rows.contains("Memory: an idle connection"), "{output:?}");
        }
        Err(error) => println!("not run: {}: {error}", compare.display()),
    }
}

#[test]
fn unsafe_is_only_in_the_listed_files() {
    for (name, text) in files(&["rs"]) {
        if UNSAFE_FILES.iter().any(|(allowed, _)| name.starts_with(allowed)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let words = code(line).split(|c: char| !c.is_alphanumeric() && c != '_');
            assert!(
                !words.into_iter().any(|word| word == "unsafe"),
                "{name}:{}: `unsafe` outside of the files that tidy.rs lists: {line}",
                number + 1
            );
        }
    }
}

#[test]
fn pure_modules_touch_no_socket_clock_or_runtime() {
    for (name, text) in files(&["rs"]) {
        if !PURE.iter().any(|pure| name.starts_with(pure)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let word = IMPURE_WORDS.iter().find(|word| code(line).contains(**word));
            assert!(word.is_none(), "{name}:{}: {} in a pure module: {line}", number + 1, word.unwrap_or(&""));
            // The one place where time is read: the shell's clock.
            let reads_time = code(line).contains("Instant::now") && name != "host/src/clock.rs";
            assert!(!reads_time, "{name}:{}: a pure module gets the time as an argument: {line}", number + 1);
        }
    }
}

#[test]
fn nothing_is_left_to_be_done() {
    let marks = ["TO\u{44}O", "FIX\u{4d}E", "XX\u{58}"];
    for (name, text) in files(&["rs", "md", "toml"]) {
        for mark in marks {
            assert!(!text.contains(mark), "{name} says {mark}: do it, or write an issue");
        }
    }
}

#[test]
fn each_dependency_has_a_line_of_reason() {
    for (name, text) in files(&["toml"]).into_iter().filter(|(name, _)| name.ends_with("Cargo.toml")) {
        let mut in_dependencies = false;
        let mut before = "";
        for line in text.lines() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies && line.contains('=') && !line.starts_with([' ', '#']) {
                assert!(before.starts_with('#'), "{name}: no reason above `{line}`");
            }
            before = line;
        }
    }
}
