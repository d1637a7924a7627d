//! Loading: each fault has its paragraph and exit code 2, and nothing is started. `host check` says what is in order.

use std::path::{Path, PathBuf};

use crate::harness::{TempDir, cargo_build_profile, host_output, library, package_library, target_root};

/// Runs `host` with a plugin that does not load, to serve and to check, and returns what it says.
#[track_caller]
fn refused(plugin: &Path, config: &str) -> String {
    let path = plugin.to_str().unwrap();
    let serve = ["--listen", "127.0.0.1:0", "--plugin", path, "--plugin-config", config];
    let check = ["check", path, "--plugin-config", config];
    let texts = [&serve[..], &check[..]].map(|args| {
        let output = host_output(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(!text.contains("listening"), "{text}");
        text.lines().filter(|line| line.starts_with("host: ")).collect::<Vec<_>>().join("\n")
    });
    let [text, checked] = texts;
    assert_eq!(text, checked);
    assert!(!text.is_empty() && text.len() < 700, "one short paragraph: {text}");
    text
}

#[track_caller]
fn assert_parts(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` in: {text}");
    }
}

#[test]
fn file_that_is_not_there_or_no_library() {
    let dir = TempDir::new("no-library");
    assert_parts(&refused(Path::new("/no/such/plugin.so"), "{}"), &["/no/such/plugin.so", "there is no such file"]);
    assert_parts(&refused(dir.path(), "{}"), &["it is a directory"]);
    let text = dir.file("text.so", "this is no library\n");
    assert_parts(&refused(&text, "{}"), &["text.so", "not a shared library", "cdylib"]);
    let empty = dir.file("empty.so", "");
    assert_parts(&refused(&empty, "{}"), &["empty.so", "not a shared library"]);
    // The start of a library, as a copy that was interrupted leaves it.
    let cut = dir.path().join("cut.so");
    let whole = std::fs::read(library("v1")).unwrap();
    std::fs::write(&cut, &whole[..20_000]).unwrap();
    assert_parts(&refused(&cut, "{}"), &["cut.so", "not a shared library", "cut off"]);
}

#[test]
fn library_that_is_no_plugin() {
    assert_parts(&refused(&library("no_symbol"), "{}"), &["libno_symbol.so", "no entry symbol", "plugin_api::export!"]);
}

#[test]
fn plugin_for_another_major_version() {
    let text = refused(&library("other_major"), "{}");
    assert_parts(&text, &["libother_major.so", "plugin-api 2.0.0", "this host has plugin-api 1."]);
}

#[test]
fn plugin_with_another_layout() {
    let text = refused(&library("other_layout"), "{}");
    assert_parts(&text, &["libother_layout.so", "`flags`", "expected u64, found u32"]);
}

#[test]
fn plugin_built_with_panic_abort() {
    cargo_build_profile("abort", &["-p", "test-plugins", "--example", "v1"]);
    let library: PathBuf = target_root().join("abort/examples/libv1.so");
    assert_parts(&refused(&library, "{}"), &["panic = \"abort\"", "Remove"]);
}

#[test]
fn configuration_that_is_no_json() {
    assert_parts(&refused(&library("recorder"), "{file: 1}"), &["recorder", "not JSON", "line 1"]);
}

#[test]
fn init_that_refuses_or_panics() {
    let text = refused(&library("refuses_init"), "{\"reason\": \"the moon is full\"}");
    assert_parts(&text, &["refuses-init", "it refuses to start", "the moon is full"]);
    let text = refused(&library("unruly"), "{\"panic\": \"init\"}");
    assert_parts(&text, &["unruly", "panicked while it was starting", "unruly: init"]);
}

#[test]
fn two_plugins_of_one_name() {
    let v1 = library("v1");
    let v2 = library("v2");
    let output = host_output(["check".as_ref(), v1.as_os_str(), v2.as_os_str()]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_parts(&text, &["two plugins have the name"]);
}

#[test]
fn check_says_which_callbacks_may_block() {
    let (blocking, hello) = (library("sleeper_blocking"), package_library("hello-handler"));
    let check = |library: &std::path::Path| {
        let output = host_output(["check", "--plugin", library.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_parts(&check(&blocking), &["  may block   handle_connect, "]);
    assert!(!check(&hello).contains("may block"));
}

#[test]
fn check_prints_what_the_plugins_are_and_their_order() {
    let dir = TempDir::new("check");
    let record = dir.path().join("record");
    let config = format!("{{\"file\": \"{}\"}}", record.display());
    let (hello, recorder) = (package_library("hello-handler"), library("recorder"));
    let output =
        host_output(["check", hello.to_str().unwrap(), recorder.to_str().unwrap(), "--plugin-config", &config]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_parts(
        &text,
        &[
            hello.to_str().unwrap(),
            "config      none given: {}\n",
            "config      from the command line\n",
            "plugin-api  1.",
            "callbacks   handle_connect, handle_publish, handle_subscribe\n",
            "recorder 1.0.0",
            "handle_puback, handle_info, handle_disconnect, handle_session_expired, stop",
            "-> recorder\n",
            "decides on connections: yes",
            "decides on publishing: yes",
            "decides on subscriptions: yes",
        ],
    );
    // They were really started, and let go.
    assert_eq!(std::fs::read_to_string(record).unwrap(), "init\nstop\ndrop\n");
}

#[test]
fn check_shows_what_plugins_log() {
    let unruly = library("unruly");
    let log = |args: &[&str]| {
        let output = host_output([&["check", unruly.to_str().unwrap()], args].concat());
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stderr).unwrap()
    };
    assert_parts(&log(&[]), &["WARN", "unruly is here"]);
    assert_eq!(log(&["--log", "error"]), "");
}

#[test]
fn public_listeners_need_a_plugin_that_decides_on_connections() {
    let v1 = library("v1");
    let output = host_output(["--listen", "0.0.0.0:0", "--plugin", v1.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert_parts(&String::from_utf8(output.stderr).unwrap(), &["no plugin decides who may connect"]);
    let hello = package_library("hello-handler");
    let mut process = crate::harness::Process::start(["--listen", "0.0.0.0:0", "--plugin", hello.to_str().unwrap()]);
    process.wait_listening();
    process.stop();
}
