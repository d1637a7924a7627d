//! What the broker is made of: licences, sources, the bill of materials. And `SECURITY.md`: each of its promises names a test
//! that is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{have, output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("host is in the workspace").to_owned()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// What asks cargo about all that is pinned, also for QUIC.
const METADATA: [&str; 6] = ["metadata", "--format-version", "1", "--locked", "--features", "host/quic"];

/// Whether the crates for QUIC are there, which a build without it does not fetch.
fn have_quic() -> bool {
    have(env!("CARGO"), &METADATA, "cargo fetch --locked")
}

/// All packages of the workspace and all that they depend on, also for tests.
fn packages() -> Vec<Value> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).args(if have_quic() { &METADATA[..] } else { &METADATA[..4] });
    // What no build here has fetched is not asked for.
    command.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    // More than a pipe holds.
    let output = command.output().expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    metadata["packages"].as_array().expect("a list").clone()
}

/// Texts in quotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What `deny.toml` allows for all crates, and crates with a licence of their own.
fn allowed() -> (BTreeSet<String>, Vec<Vec<String>>) {
    let deny = read("deny.toml");
    let licences = deny.split("[licenses]").nth(1).and_then(|rest| rest.split("[bans]").next()).expect("the table");
    let (allow, exceptions) = licences.split_once("exceptions = ").expect("both keys");
    let allow = allow.split_once("allow = ").expect("the key").1;
    (quoted(allow).into_iter().collect(), exceptions.split('{').skip(1).map(quoted).collect())
}

/// Name, version and rest of what the lock files pin: of the workspace, of the fuzz targets, of the plugin-api that was
/// released.
fn pinned() -> Vec<(String, String, String)> {
    let mut pinned = Vec::new();
    for lock in ["Cargo.lock", "host/fuzz/Cargo.lock", "host/tests/fixtures/plugin-api-1.0.0/Cargo.lock"] {
        for package in read(lock).split("[[package]]").skip(1) {
            let values = quoted(package);
            pinned.push((values[0].clone(), values[1].clone(), package.to_owned()));
        }
    }
    pinned
}

/// Whether an SPDX expression can be met: one of alternatives, all of what is joined.
fn can_be_met(expression: &str, is_allowed: &dyn Fn(&str) -> bool) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], "");
    // `AND` binds tighter than `OR` where there are no parentheses; those that there are surround alternatives.
    expression.split(" AND ").all(|part| part.split(" OR ").any(|licence| is_allowed(licence.trim())))
}

#[test]
fn licences_are_those_that_are_allowed_and_everything_comes_from_the_registry() {
    let (allowed, exceptions) = allowed();
    assert!(allowed.contains("MIT") && allowed.len() > 5, "{allowed:?}");
    let packages = packages();
    assert!(packages.len() > 100, "{}", packages.len());
    let mut expressions = String::new();
    for package in packages {
        let (name, licence) = (package["name"].as_str().expect("a name"), package["license"].as_str());
        let licence = licence.unwrap_or_else(|| panic!("{name} has no licence"));
        let is_allowed = |one: &str| {
            allowed.contains(one)
                || exceptions.iter().any(|exception| exception[..] == [one.to_owned(), name.to_owned()])
        };
        assert!(can_be_met(licence, &is_allowed), "{name}: {licence} is not among those that deny.toml allows");
        expressions += &format!("{} ", licence.replace(['(', ')', '/'], " "));
    }
    // What nothing needs any more is not allowed either. Of an exception that may be a crate of the fuzz targets.
    for licence in &allowed {
        assert!(
            format!(" {expressions}").contains(&format!(" {licence} ")),
            "deny.toml allows {licence}, which nothing has"
        );
    }
    let pinned = pinned();
    for exception in exceptions {
        assert!(
            pinned.iter().any(|(name, ..)| *name == exception[1]),
            "deny.toml has {exception:?}, and nothing else has"
        );
    }
    for (name, version, rest) in pinned.iter().filter(|(.., rest)| rest.contains("source = ")) {
        let comes_from_there = rest.contains("source = \"registry+https://github.com/rust-lang/crates.io-index\"");
        assert!(comes_from_there && rest.contains("checksum = "), "{name} {version}: {rest}");
    }
    // And the other way round: what is not allowed is found.
    for (expression, expected) in
        [("GPL-3.0", false), ("GPL-3.0 OR MIT", true), ("(MIT OR GPL-3.0) AND GPL-2.0", false), ("MIT AND ISC", true)]
    {
        assert_eq!(can_be_met(expression, &|one| allowed.contains(one)), expected, "{expression}");
    }
}

/// `cargo deny` calls it a wildcard: any version would do.
#[test]
fn what_is_depended_on_has_a_version() {
    let mut checked = 0;
    for package in packages().iter().filter(|package| package["source"].is_null()) {
        // What is in no registry may name what lies beside it, and tests may, which do not go there.
        let is_private = package["publish"].as_array().is_some_and(Vec::is_empty);
        for need in package["dependencies"].as_array().expect("a list") {
            let may_lie_beside = need["source"].is_null() && (is_private || need["kind"] == "dev");
            let is_any = need["req"] == "*" && !may_lie_beside;
            assert!(!is_any, "{} depends on any version of {}", package["name"], need["name"]);
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked}");
}

/// The bill of materials; none if something is missing that is needed to make it.
fn bill() -> Option<Value> {
    if !have("python3", &["--version"], "apt-get install python3") || !have_quic() {
        return None;
    }
    let bill = Command::new(root().join(".ci/sbom")).env("CARGO", env!("CARGO")).output().expect("it can be run");
    assert!(bill.status.success(), "{}", String::from_utf8_lossy(&bill.stderr));
    let again = Command::new(root().join(".ci/sbom")).env("CARGO", env!("CARGO")).output().expect("it can be run");
    assert_eq!(bill.stdout, again.stdout, "two runs print the same");
    Some(serde_json::from_slice(&bill.stdout).expect("JSON"))
}

#[test]
fn bill_of_materials_has_every_crate_that_is_shipped() {
    let Some(bill) = bill() else { return };
    assert_eq!((bill["bomFormat"].as_str(), bill["specVersion"].as_str()), (Some("CycloneDX"), Some("1.5")));
    let components = bill["components"].as_array().expect("a list");
    let named = |name: &str| components.iter().find(|component| component["name"] == name);
    // What is linked into the program, as cargo tells it.
    let mut tree = Command::new(env!("CARGO"));
    tree.current_dir(root()).args(["tree", "--locked", "-p", "host", "-F", "quic", "-e", "normal", "--prefix", "none"]);
    let tree = output(tree.args(["--format", "{p}"]));
    let tree = String::from_utf8(tree.stdout).expect("text");
    let mut linked: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(linked.contains("rustls") && linked.contains("quinn") && linked.len() > 50, "{linked:?}");
    let plugins: Vec<_> = std::fs::read_dir(root().join("plugins")).expect("plugins").flatten().collect();
    let names: Vec<String> = plugins.iter().map(|plugin| plugin.file_name().to_string_lossy().into_owned()).collect();
    linked.extend(names.iter().map(|name| match &name[..] {
        "http" => "plugin-http",
        "support" => "plugin-support",
        name => name,
    }));
    for name in linked.iter().filter(|name| **name != "host") {
        let component = named(name).unwrap_or_else(|| panic!("{name} is linked in, and not in the bill"));
        // What comes from the registry can be found there, and nothing else: it would be another's crate of that name.
        let purl = component["purl"].as_str().map(|purl| (purl.starts_with("pkg:cargo/"), purl.contains('+')));
        assert_eq!(purl, component["hashes"].is_array().then_some((true, false)), "{component}");
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
    }
    assert!(named("rumqttc").is_none(), "what only tests need is not shipped");
    assert!(named("rustls").is_some_and(|rustls| rustls["hashes"][0]["alg"] == "SHA-256"));
}

/// `.ci/dependencies` looks advisories up. Those of `deny.toml` stay, for what is pinned still, and is shipped only if that
/// is said there.
#[test]
fn advisories_that_stay_say_truly_what_is_shipped() {
    let Some(bill) = bill() else { return };
    let deny = read("deny.toml");
    let stays: Vec<_> = deny.lines().filter(|line| line.contains("id = \"RUSTSEC-")).collect();
    assert!(stays.len() > 1, "{stays:?}");
    let pinned = pinned();
    for line in stays {
        let reason = &quoted(line)[1];
        let (what, why) = reason.split_once(", ").expect("`NAME VERSION, shipped` or `NAME VERSION, only in tests`");
        let is_what = |name: &str, version: &str| format!("{name} {version}") == what;
        assert!(pinned.iter().any(|(name, version, _)| is_what(name, version)), "{line}: not pinned any more");
        let is_shipped = bill["components"].as_array().expect("a list").iter().any(|component| {
            is_what(component["name"].as_str().expect("a name"), component["version"].as_str().expect("a version"))
        });
        assert!(why.starts_with(if is_shipped { "shipped: " } else { "only in tests: " }), "{line}");
    }
}

/// A test is named as `host/tests/it/matrix.rs: only_who_has_the_password_comes_in`.
#[test]
fn promises_of_the_security_page_name_tests_that_are_there() {
    let page = read("SECURITY.md");
    let mut named = 0;
    for text in page.split('`').skip(1).step_by(2) {
        let Some((file, test)) = text.split_once(": ").filter(|(file, _)| file.ends_with(".rs")) else { continue };
        let source = read(file);
        let is_there = source
            .match_indices(&format!("fn {test}("))
            .any(|(at, _)| source[..at].lines().rev().take(4).any(|line| line.trim() == "#[test]"));
        assert!(is_there, "SECURITY.md names {text}, and there is no such test");
        named += 1;
    }
    assert!(named > 25, "only {named} tests are named");
    // Each row of a table says who shows it.
    for line in
        page.lines().filter(|line| line.starts_with("| ") && !line.contains("| --- |") && !line.contains("| shown by"))
    {
        assert!(line.contains(".rs: "), "no test is named for: {line}");
    }
}
