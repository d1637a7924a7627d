//! The boundary as it is written down: a golden file of all layouts and numbers, and a header for C. Both are compared
//! with the sources, with rustc and with a C compiler.
//!
//! `UPDATE_GOLDEN=1 cargo test -p plugin-api --test abi` writes what was appended. See ABI.md.

mod golden;
mod header;
mod source;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use golden::{broken, golden, layouts};
use header::{TABLE_HEAD, TABLES, c_name, constant};
use source::{Source, package};

/// Compares a file of the repository with what it should contain, or writes it.
fn check_file(name: &str, expected: &str) {
    let path = package().join(name);
    let found = fs::read_to_string(&path).unwrap_or_default();
    if found == expected {
        return;
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, expected).expect("a file of the repository can be written");
        return;
    }
    let line = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
    panic!(
        "{name} is not what the sources say, from line {} on. If that is meant: \
         UPDATE_GOLDEN=1 cargo test -p plugin-api --test abi writes it; review the diff.",
        line.unwrap_or_else(|| found.lines().count().min(expected.lines().count())) + 1
    );
}

#[test]
fn what_is_frozen_stays() {
    let (name, new) = ("abi.golden", golden(&Source::read()));
    let old = fs::read_to_string(package().join(name)).unwrap_or_default();
    let broken = broken(&old, &new);
    assert!(
        broken.is_empty(),
        "this change breaks plugins that are built already:\n  {}\n\
         Tables grow at their end, views behind `extension`, numbers by new ones: see plugin-api/ABI.md. If it has to \
         be, it is a new major version: delete plugin-api/{name}, and let UPDATE_GOLDEN=1 write it anew.",
        broken.join("\n  ")
    );
    check_file(name, &new);
}

#[test]
fn only_appending_passes() {
    let whole = golden(&Source::read());
    let change = |from: &str, to: &str| {
        assert_eq!(whole.matches(from).count(), 1, "{from}");
        broken(&whole, &whole.replacen(from, to, 1)).join("; ")
    };
    let fails = |from: &str, to: &str, why: &str| {
        let text = change(from, to);
        assert!(text.contains(why), "{why} in {text:?}");
    };
    assert_eq!(change("\n\nnumbers of no type", "\n  LATER = 200\n\nnumbers of no type"), "");
    assert_eq!(change("  AWAY = 252\n", "  AFTER = 9\n  AWAY = 252\n"), "");
    fails("  DROP = 7\n", "", "`DROP = 7` of `numbers Verdict`");
    fails("  DROP = 7\n", "  DROP = 17\n", "`DROP = 7` of `numbers Verdict`");
    fails("  AWAY = 252\n", "  AFTER = 8\n  AWAY = 252\n", "are both 8");
    let last = |table: &str| {
        let (_, section) = whole.split_once(&format!("\ntable {table} align 8\n")).expect("the table");
        section.split("\n\n").next().unwrap_or_default().lines().last().expect("an entry").to_owned()
    };
    for table in TABLES {
        let last = last(table);
        assert_eq!(change(&last, &format!("{last}\n  999 later: unsafe extern \"C\" fn(Opaque)")), "");
        fails(&last, &last.replace("fn(", "fn(u8, "), "is not there any more, or in another place");
    }
    fails(
        "  16 payload: RSlice<'a, u8>\n  32 properties: RSlice<'a, u8>\n  48 packet_id: u16",
        "",
        "struct RawPublish",
    );
    let last = "  88 serial: RSlice<'a, u8>\n  104 not_after: u64\n";
    assert_eq!(change(last, &format!("{last}  112 later: u64\n")), "");
    fails(last, "  88 not_after: u64\n  96 serial: RSlice<'a, u8>\n", "prefix RawCertificate");
    fails("struct RawPeer size 24 align 4", "struct RawPeer size 28 align 4", "RawPeer");
    fails("  22 family: u8\n", "  22 family: u8\n  23 more: u8\n", "has another field");
}

#[test]
fn header_is_made_from_the_sources() {
    check_file("include/mqtt_handler.h", &header::header(&Source::read()));
}

/// Whether there is a C compiler. If there is none, the test is not run: an error where `CI=true`, a note elsewhere.
fn have(compiler: &str) -> bool {
    let found = Command::new(compiler).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        let note = format!("NOT RUN: there is no `{compiler}`; to install it: apt-get install gcc g++");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{note}");
        eprintln!("{note}");
    }
    found
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn a_c_compiler_sees_the_same_sizes_offsets_and_numbers() {
    if !have("cc") {
        return;
    }
    let source = Source::read();
    let (mut program, mut expected) = (String::new(), Vec::new());
    let mut check = |expression: String, value: u64| {
        program += &format!("    printf(\"%s %llu\\n\", \"{expression}\", (unsigned long long)({expression}));\n");
        expected.push(format!("{expression} {value}"));
    };
    for slice in ["mqtt_bytes", "mqtt_text", "mqtt_subscription_slice", "mqtt_text_slice"] {
        check(format!("sizeof({slice})"), 16);
        check(format!("offsetof({slice}, data)"), 0);
        check(format!("offsetof({slice}, length)"), 8);
    }
    for layout in layouts(&source) {
        let name = c_name(&layout.name);
        let is_table = TABLES.contains(&layout.name.as_str());
        let head = if is_table { 16 } else { 0 };
        if is_table {
            for ((field, ..), offset) in TABLE_HEAD.iter().zip([0, 4, 8]) {
                check(format!("offsetof({name}, {field})"), offset);
            }
        }
        check(format!("sizeof({name})"), layout.size as u64 + head);
        check(format!("_Alignof({name})"), layout.align as u64);
        for (offset, field, _) in layout.fields {
            check(format!("offsetof({name}, {field})"), offset as u64 + head);
        }
    }
    for group in &source.numbers {
        for number in &group.list {
            check(constant(&group.of, &number.name), number.value);
        }
    }
    for number in ["mqtt_verdict", "mqtt_key", "mqtt_status"] {
        check(format!("sizeof({number})"), 1);
    }
    let file = scratch("layout.c");
    let text =
        format!("#include <stdio.h>\n#include \"mqtt_handler.h\"\n\nint main(void) {{\n{program}    return 0;\n}}\n");
    fs::write(&file, text).expect("a scratch file");
    let binary = scratch("layout");
    let include = package().join("include");
    run(Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(&include)
        .arg(&file)
        .arg("-o")
        .arg(&binary));
    let printed = run(&mut Command::new(&binary));
    for (printed, expected) in printed.lines().zip(&expected) {
        assert_eq!(printed, expected);
    }
    assert_eq!(printed.lines().count(), expected.len());
}

#[test]
fn header_is_accepted_as_c99_and_as_cpp() {
    let header = package().join("include/mqtt_handler.h");
    for (compiler, language, standard) in [("cc", "c", "c99"), ("cc", "c", "c17"), ("c++", "c++", "c++20")] {
        if have(compiler) {
            let standard = format!("-std={standard}");
            let strict = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-x", language];
            run(Command::new(compiler).arg(standard).args(strict).arg(&header));
        }
    }
}

#[test]
fn example_of_the_documentation_compiles() {
    let document = fs::read_to_string(package().join("ABI.md")).expect("ABI.md");
    let (_, rest) = document.split_once("```c\n").expect("an example in C");
    let (example, _) = rest.split_once("```").expect("it ends");
    let include = package().join("include");
    let (c, cpp) = (scratch("example.c"), scratch("example.cpp"));
    fs::write(&c, example).expect("a scratch file");
    // C++ has no compound literals.
    fs::write(&cpp, example.replace("(mqtt_bytes){0}", "mqtt_bytes{}")).expect("a scratch file");
    for (compiler, standard, file) in [("cc", "-std=c11", &c), ("c++", "-std=c++20", &cpp)] {
        if have(compiler) {
            let strict = [standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wno-missing-field-initializers"];
            let mut command = Command::new(compiler);
            command.args(strict).args(["-fPIC", "-shared", "-I"]).arg(&include).arg("-o").arg(scratch("example.so"));
            run(command.arg(file));
        }
    }
}

/// The first two numbers of a version.
fn minor(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|number| number.parse().expect("a number"));
    (numbers.next().expect("major"), numbers.next().expect("minor"))
}

#[test]
fn what_was_released_stays() {
    let new = golden(&Source::read());
    let releases = package().join("../host/tests/fixtures");
    let mut newest = (0, 0);
    for entry in fs::read_dir(&releases).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(version) = name.strip_prefix("plugin-api-").map(minor) else { continue };
        if version.0 != minor(env!("CARGO_PKG_VERSION")).0 {
            continue;
        }
        let old = fs::read_to_string(entry.path().join("plugin-api/abi.golden")).expect("it was kept");
        let broken = broken(&old, &new);
        assert!(broken.is_empty(), "this breaks plugins for {name}:\n  {}", broken.join("\n  "));
        if old != new {
            let now = minor(env!("CARGO_PKG_VERSION"));
            assert!(
                now > version,
                "something was appended since {name}: the second number of the version has to be larger"
            );
        }
        newest = newest.max(version);
    }
    assert!(newest > (0, 0) || !releases.exists(), "{} keeps releases", releases.display());
}
