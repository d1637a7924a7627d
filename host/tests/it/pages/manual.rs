//! The pages that are neither the guide nor of a plugin, each with what has to be there before its blocks are read.

use std::fs;
use std::path::Path;

use super::shell::Shell;
use super::{Block, Reader, blocks, page, root, says};
use crate::c::have_cc;
use crate::certificates::Authority;
use crate::harness::{Process, TempDir, have, host_output, package_library};
use crate::mqtt::{Client, V5};

/// Those pages.
pub(super) const PAGES: [&str; 10] = [
    "README.md",
    "examples/c-handler/README.md",
    "host/ARCHITECTURE.md",
    "host/CONFIG.md",
    "host/LIMITS.md",
    "host/STORE.md",
    "host/fuzz/README.md",
    "host/src/new_command/template/README.md",
    "plugin-api/ABI.md",
    "plugin-api/README.md",
];

/// Blocks that are not run here, and the file that has what they begin with: it takes minutes, and CI runs it.
const ELSEWHERE: [(&str, &str); 3] = [
    ("cargo test --workspace\n", "Cargo.toml"),
    ("host/fuzz/run session ", "host/fuzz/run"),
    ("host/fuzz/choose session\n", "host/fuzz/choose"),
];

/// Has a shell go through a page: `prepare` sees each block before it is read, and returns it as it is to be read, or `None`
/// if it has been.
fn read(
    page_name: &'static str,
    shell: Shell,
    mut prepare: impl for<'a> FnMut(&mut Reader, &Block<'a>) -> Option<String>,
) -> Reader {
    let mut reader = Reader::new(page_name, shell);
    let page = page(page_name);
    let blocks = blocks(&page);
    assert!(!blocks.is_empty(), "{page_name} has no blocks");
    for block in blocks {
        if let Some((_, file)) = ELSEWHERE.iter().find(|(begins, _)| block.text.starts_with(begins)) {
            assert!(root().join(file).exists(), "{page_name}, line {}: there is no {file}", block.line);
        } else if let Some(text) = prepare(&mut reader, &block) {
            reader.read(&Block { text: &text, ..block });
        }
    }
    reader
}

/// As it stands there.
fn as_it_is(_: &mut Reader, block: &Block<'_>) -> Option<String> {
    Some(block.text.to_owned())
}

fn have_clients() -> bool {
    have("sh", &["-c", "command -v mosquitto_pub mosquitto_sub bash"], "apt-get install mosquitto-clients")
}

/// Gives a configuration to `host config check`, with somebody who decides if it names no plugin. What it names is there.
fn check_config(dir: &TempDir, shell: &Shell, block: &Block<'_>) {
    let libraries = [("acl", package_library("acl")), ("audit", package_library("hello-handler"))];
    let lib = dir.path().join("root/usr/lib/host");
    fs::create_dir_all(&lib).unwrap();
    for (name, library) in &libraries {
        let _ = std::os::unix::fs::symlink(library, lib.join(format!("lib{name}.so")));
    }
    let authority = Authority::new("the authority of the page");
    let server = authority.server(&["localhost"]);
    let etc = dir.path().join("root/etc/host");
    let revoked = authority.revoked("revoked", &[], 2100);
    for (file, name) in [
        (&server.certificate, "cert.pem"),
        (&server.private_key, "key.pem"),
        (&authority.file, "clients.pem"),
        (&revoked, "revoked.pem"),
    ] {
        fs::copy(file, etc.join(name)).unwrap();
    }
    fs::write(etc.join("acl.json"), "{}").unwrap();
    let mut text = shell.placed(block.text);
    if !text.contains("[[plugin]]") {
        text += &format!("[[plugin]]\npath = {:?}\n", libraries[0].1);
    }
    let file = etc.join("host.toml");
    fs::write(&file, text).unwrap();
    let checked = host_output(["config".as_ref(), "check".as_ref(), file.as_os_str()]);
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && said.ends_with("\nin order\n"), "line {}: {checked:?}", block.line);
}

#[test]
fn blocks_of_the_readme_do_what_it_says() {
    if !have_clients() {
        return;
    }
    package_library("hello-handler");
    let dir = TempDir::new("readme");
    let in_dir = |name: &str| dir.path().join(name);
    let mut shell = Shell::start(&dir, &[("pidof", PIDOF)]);
    shell.enter_clone();
    // A command that has to fail.
    shell.tell("refused() { if \"$@\"; then return 1; fi; }");
    let reader = read("README.md", shell, |reader, block| {
        let shell = &mut reader.shell;
        let mut text = block.text.to_owned();
        match block.text.lines().next().unwrap_or_default() {
            _ if block.kind == "toml" => {
                check_config(&dir, shell, block);
                return None;
            }
            _ if block.before.starts_with("`src/lib.rs`") => {
                fs::write(in_dir("work/by-hand/my-handler/src/lib.rs"), block.text).unwrap();
            }
            line if line.starts_with("host new my-handler ") => shell.tell("cd .."),
            line if line.starts_with("cargo new ") => shell.tell("mkdir by-hand; cd by-hand; ln -s ../host host"),
            line if line.ends_with("# only try it, see below") => {
                shell.tell("cp target/release/libmy_handler.so .");
                for (line, reason) in NOT_BY_THIS_HANDLER {
                    assert!(text.contains(line), "no {line} in {text}");
                    text = text.replace(line, &format!("refused {line} | tee /dev/stderr | grep '{reason}'"));
                }
                text = text.replace("# only try it", "--for 1s | grep 'nothing was asked meanwhile' # only try it");
            }
            line if line.starts_with("host swap --dry-run ") => {
                // SIGHUP in the block before has begun a swap, for which nobody has waited.
                let again = "host swap --dry-run --plugin libmy_handler.so --for 1ms 2>&1";
                shell.tell(&format!("while {again} | grep -q 'another swap is under way'; do sleep 0.05; done"));
                text = text.replace("30s", "1s");
            }
            line if line.starts_with("host replay ") => {
                shell
                    .tell("cp libmy_handler.so libnew.so; echo {} >new.json; mosquitto_pub -V 5 -u ann -t t -q 1 -m x");
            }
            line if line.starts_with("cp host.new ") => shell.tell("cp \"$(command -v host)\" host.new"),
            line if line.starts_with("cp target/release/host ") => shell.tell("cd \"$HOME_OF_TEST\"/work/host"),
            line if line.contains("host bench ") => {
                let at = format!("--url mqtt://127.0.0.1:{} --subscribers 100", shell.port);
                text = text.replace("--subscribers 1000", &at).replace("--secs 10", "--secs 1");
            }
            _ => {}
        }
        Some(text)
    });
    assert!(reader.shell.blocks > 12, "{} blocks", reader.shell.blocks);
}

/// Commands of the README that its handler has nothing for, and what they say then.
const NOT_BY_THIS_HANDLER: [(&str, &str); 2] = [
    ("host configure my-handler '{\"level\": 2}'", "has no handle_config"),
    ("host resume my-handler", "it is not in quarantine"),
];

/// Finds those of this shell only.
const PIDOF: &str = "#!/bin/bash\n\
    for process in /proc/[0-9]*; do\n\
      if [ \"$(cat $process/comm 2>/dev/null)\" = \"$1\" ] && grep -qz \"^HOME_OF_TEST=$HOME_OF_TEST$\" $process/environ; then\n\
        echo \"${process#/proc/}\"\n\
      fi\n\
    done 2>/dev/null\n";

#[test]
fn blocks_of_plugin_api_do_what_they_say() {
    let dir = TempDir::new("plugin-api");
    let shell = Shell::start(&dir, &[]);
    let page = page("plugin-api/README.md");
    let crate_dir = |name: &str| dir.path().join("work").join(name);
    let sh = |text: &'static str| Block { kind: "sh", text, line: 0, before: "" };
    read("plugin-api/README.md", shell, |reader, block| {
        if block.kind == "toml" {
            let _ = fs::remove_dir_all(crate_dir("hello"));
            reader.shell.run(&sh("cd \"$HOME_OF_TEST\"/work; cargo new --lib hello; cd hello"));
            let manifest = fs::read_to_string(crate_dir("hello/Cargo.toml")).unwrap();
            let manifest =
                manifest.replace("[dependencies]\n", "") + &block.text.replace('…', root().to_str().unwrap());
            fs::write(crate_dir("hello/Cargo.toml"), manifest).unwrap();
            // Whether there is such a crate, with such features, that is.
            reader.shell.run(&sh("cargo tree >/dev/null"));
            return None;
        }
        if block.text.starts_with("the configuration is wrong") {
            let asserted = format!("assert_eq!(error.to_string(), {:?});", block.text.trim_end());
            assert!(page.contains(&format!("# {asserted}")), "the example before is to have: {asserted}");
            return None;
        }
        if block.text.starts_with("cargo build --release\nhost check target/release/libhello.so") {
            // Lines that rustdoc does not show are not there.
            let code = blocks(&page).first().expect("it has blocks").text;
            let code: Vec<&str> = code.lines().filter(|line| !line.starts_with("# ")).collect();
            fs::write(crate_dir("hello/src/lib.rs"), code.join("\n")).unwrap();
        }
        Some(block.text.to_owned())
    });
}

#[test]
fn plugins_in_c_are_built_and_run_as_their_pages_say() {
    if !have_cc() || !have_clients() {
        return;
    }
    for name in ["examples/c-handler/README.md", "plugin-api/ABI.md"] {
        let dir = TempDir::new("c-page");
        let mut shell = Shell::start(&dir, &[]);
        shell.enter_clone();
        read(name, shell, |reader, block| {
            if block.kind != "c" {
                return as_it_is(reader, block);
            }
            let is_file = block.text.contains("MQTT_PLUGIN_SYMBOL");
            let code = if is_file {
                block.text.to_owned()
            } else {
                format!(
                    "#include \"mqtt_handler.h\"\nvoid use_name(mqtt_text name);\n\
                     void example(const mqtt_connect *connect);\nvoid example(const mqtt_connect *connect) {{\n{}\n}}\n",
                    block.text
                )
            };
            let source = dir.file("work/host/short_topics.c", &code);
            crate::c::build(&source, &dir, "compiled.so", &["-Wno-missing-field-initializers"]);
            None
        });
    }
}

#[test]
fn configurations_on_pages_are_in_order() {
    for name in ["host/CONFIG.md", "host/LIMITS.md"] {
        let dir = TempDir::new("config-page");
        let shell = Shell::start(&dir, &[]);
        read(name, shell, |reader, block| {
            match block.kind {
                "toml" => check_config(&dir, &reader.shell, block),
                "text" => check_logged(block.text),
                _ => return as_it_is(reader, block),
            }
            None
        });
    }
}

/// A line of the log that tells what was refused; here it is something else.
fn check_logged(line: &str) {
    let (process, addr) = Process::listening(["--connections-max", "1", "--workers", "1"]);
    let _first = Client::connect(addr, V5, "first");
    Client::open(addr, V5).expect_closed();
    let logged = process.wait_log("refused or dropped in the last");
    let (line, _) = line.rsplit_once(' ').expect("it has a number at its end");
    says(&logged, &format!("{line} connections_refused=1")).unwrap();
}

#[test]
fn commands_for_the_store_do_what_its_page_says() {
    let dir = TempDir::new("store-page");
    let shell = Shell::start(&dir, &[]);
    let data = dir.path().join("root/var/lib/host");
    let (process, addr) = Process::listening(["--data-dir".as_ref(), data.as_os_str()]);
    Client::connect(addr, V5, "c").ping();
    process.stop();
    read("host/STORE.md", shell, |reader, block| {
        if block.kind == "text,drawing" {
            for file in block.text.lines().filter_map(|line| line.strip_prefix("DIR/")) {
                let name = file.split_whitespace().next().expect("it has a name");
                let is_named = || is_in_sources(&root().join("host/src"), &[&format!("\"{name}\"")]);
                assert!(data.join(name).exists() || is_named(), "there is no {name}");
            }
            check_drawing(block);
            return None;
        }
        as_it_is(reader, block)
    });
}

#[test]
fn new_crates_are_used_as_their_readme_says() {
    let dir = TempDir::new("new-page");
    let mut shell = Shell::start(&dir, &[]);
    shell.run(&Block { kind: "sh", text: "host new my-handler; cd my-handler", line: 0, before: "" });
    read("host/src/new_command/template/README.md", shell, |reader, block| {
        let made = fs::read_to_string(dir.path().join("work/my-handler/README.md")).unwrap();
        let text = block.text.replace("{{lib}}", "my_handler");
        assert!(made.contains(&text), "no {text} in {made}");
        as_it_is(reader, &Block { text: &text, ..*block })
    });
}

#[test]
fn drawings_name_what_is_there() {
    for name in ["host/ARCHITECTURE.md", "host/fuzz/README.md"] {
        let dir = TempDir::new("drawing");
        read(name, Shell::start(&dir, &[]), |reader, block| {
            if block.kind != "text,drawing" {
                return as_it_is(reader, block);
            }
            check_drawing(block);
            None
        });
    }
}

/// Whether there are the files and the functions of the broker that a drawing names.
fn check_drawing(block: &Block<'_>) {
    let words = block.text.split(|c: char| !(c.is_ascii_alphanumeric() || "_:/.".contains(c)));
    for word in words.map(|word| word.trim_matches([':', '.'])) {
        let is_there = match word.split_once("::") {
            _ if word.ends_with(".rs") => root().join("host").join(word).exists(),
            Some((_, name)) => is_in_sources(&root().join("host/src"), &[&format!("fn {name}("), &format!(" {name},")]),
            None => true,
        };
        assert!(is_there, "line {}: there is no {word}", block.line);
    }
}

fn is_in_sources(folder: &Path, texts: &[&str]) -> bool {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| match path.is_dir() {
        true => is_in_sources(&path, texts),
        false => fs::read_to_string(&path).is_ok_and(|source| texts.iter().any(|text| source.contains(text))),
    })
}
