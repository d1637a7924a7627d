//! What the README shows is run.

use std::io::Write;
use std::num::NonZeroU32;
use std::process::{Command, Stdio};

use plugin_api::config::ConfigError;
use scram::{Users, Verifier};

fn block<'a>(heading: &str, kind: &str) -> &'a str {
    let readme = include_str!("../README.md");
    let (_, section) = readme.split_once(heading).expect("the README has the section");
    let (_, rest) = section.split_once(&format!("```{kind}\n")).expect("it has such a block");
    rest.split_once("```").expect("the block ends").0
}

fn read(json: &str) -> Result<Users, ConfigError> {
    plugin_api::config::read(json).and_then(Users::new)
}

#[test]
fn the_user_of_the_example_has_the_password_that_it_says() {
    let example = block("`scram.json`", "json");
    let rounds = NonZeroU32::new(4096).expect("not zero");
    assert!(read(example).is_ok());
    let made = Verifier::new(b"correct horse", b"salt of the README", rounds);
    assert!(example.contains(&made.to_string()), "{made}");
}

#[test]
fn the_command_makes_a_verifier() {
    let command = block("## Making a verifier", "sh").replace("read -rs PASSWORD", "PASSWORD='correct horse'");
    let mut shell = match Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() {
        Ok(shell) if Command::new("python3").arg("--version").output().is_ok() => shell,
        _ if std::env::var_os("CI").is_some_and(|ci| ci == "true") => panic!("it needs sh and python3"),
        _ => return eprintln!("not run: it needs sh and python3"),
    };
    shell.stdin.take().expect("a pipe").write_all(command.as_bytes()).expect("it reads");
    let output = shell.wait_with_output().expect("it ends");
    let verifier = String::from_utf8(output.stdout).expect("text");
    let json = format!(r#"{{"users": [{{"username": "ann", "verifier": "{}"}}]}}"#, verifier.trim());
    assert!(read(&json).is_ok(), "{verifier}");
}
