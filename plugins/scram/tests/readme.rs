//! What the README shows is run.

use std::num::NonZeroU32;
use std::process::Command;

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
    let made = Verifier::new("correct horse", b"salt of the README", rounds).expect("it is allowed");
    assert!(example.contains(&made.to_string()), "{made}");
}

#[test]
fn the_command_makes_a_verifier() {
    let run = |password: &str| {
        let command =
            block("## Making a verifier", "sh").replace("read -rs PASSWORD", &format!("PASSWORD='{password}'"));
        let command = command.replace("target/release/scram-verifier", env!("CARGO_BIN_EXE_scram-verifier"));
        Command::new("sh").args(["-c", &command]).output().expect("sh can be run")
    };
    let made = run("correct horse");
    let verifier = String::from_utf8(made.stdout).expect("text");
    let json = format!(r#"{{"users": [{{"username": "ann", "verifier": "{}"}}]}}"#, verifier.trim());
    assert!(read(&json).is_ok(), "{verifier}");
    let refused = run("with a bell: \u{7}");
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("this cannot be a password: it has characters that"));
}
