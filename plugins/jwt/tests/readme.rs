//! The example in the README does what the README says.

use std::io::Write;
use std::process::{Command, Stdio};

use jwt::{Login, Policy, Refusal};

fn block(start: &str, kind: &str) -> &'static str {
    let (_, section) = include_str!("../README.md").split_once(start).expect("the README has the section");
    let (_, rest) = section.split_once(&format!("```{kind}\n")).expect("it has such a block");
    rest.split_once("```").expect("the block ends").0
}

#[test]
fn the_command_makes_a_token_for_the_example() {
    let config = plugin_api::config::read(block("`jwt.json`", "json")).unwrap_or_else(|error| panic!("{error}"));
    let (policy, _) = Policy::new(&config).unwrap_or_else(|error| panic!("{error}"));
    let (command, _) = block("A token for `ann`", "sh").split_once("mosquitto_pub").expect("it is used then");
    let shell = Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut shell = match shell {
        Ok(shell) if Command::new("python3").arg("--version").output().is_ok() => shell,
        _ if std::env::var_os("CI").is_some_and(|ci| ci == "true") => panic!("it needs sh and python3"),
        _ => return eprintln!("not run: it needs sh and python3"),
    };
    let mut stdin = shell.stdin.take().expect("a pipe");
    stdin.write_all(format!("{command}\nprintf %s \"$TOKEN\"").as_bytes()).expect("it reads");
    drop(stdin);
    let output = shell.wait_with_output().expect("it ends");
    let token = String::from_utf8(output.stdout).expect("text");
    let login = Login {
        token: Some(&token),
        username: Some("ann"),
        client_id: "ann",
        is_client_id_assigned: false,
        will_topic: None,
    };
    let grant = policy.connect(&login).unwrap_or_else(|refusal| panic!("{refusal}: {token}"));
    assert!(grant.expires.is_some());
    let may = grant.permissions;
    assert!(may.may_publish("devices/ann/temperature") && !may.may_publish("devices/bob/temperature"));
    assert!(may.may_subscribe("commands/ann/#") && may.may_subscribe("news/#") && !may.may_subscribe("#"));
    let other = Login { client_id: "bob", ..login };
    assert_eq!(policy.connect(&other), Err(Refusal::ClientIdentifier));
}
