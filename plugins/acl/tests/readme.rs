//! The example in the README is loaded, and does what the README says.

use std::sync::Arc;

use acl::{Login, Permissions, Policy, Refusal};

fn read(json: &str) -> Policy {
    let policy = plugin_api::config::read(json).and_then(|config| Policy::new(&config));
    policy.unwrap_or_else(|error| panic!("{error}"))
}

fn example() -> Policy {
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once("```json\n").expect("the README has an example");
    let (json, _) = rest.split_once("```").expect("the example ends");
    read(json)
}

fn connect(username: &str, client_id: &str, password: &str) -> Result<Arc<Permissions>, Refusal> {
    example().connect(&Login {
        username: Some(username),
        password: Some(password.as_bytes()),
        client_id,
        is_client_id_assigned: false,
        will_topic: None,
        has_method: false,
        has_certificate: false,
    })
}

#[test]
fn the_example_has_no_warnings_and_the_password_of_its_users_is_the_one_given() {
    assert!(example().warnings().is_empty());
    // One hash is from Debian's argon2, the other from Python's argon2-cffi.
    assert!(connect("sensor1", "sensor1", "correct horse").is_ok());
    assert!(connect("operator", "operator", "correct horse").is_ok());
    assert_eq!(connect("sensor1", "sensor1", "wrong"), Err(Refusal::Credentials));
    assert_eq!(connect("sensor2", "sensor2", "correct horse"), Err(Refusal::Credentials));
    assert_eq!(connect("sensor1", "operator", "correct horse"), Err(Refusal::ClientIdentifier));
}

#[test]
fn the_example_lets_sensors_report_and_the_operator_command() {
    let sensor = connect("sensor1", "sensor1:a", "correct horse").expect("the password is right");
    assert!(sensor.may_publish("sensors/sensor1/temperature"));
    assert!(!sensor.may_publish("sensors/sensor2/temperature"));
    assert!(sensor.may_subscribe("commands/sensor1:a/+"));
    assert!(!sensor.may_subscribe("commands/sensor1/+") && !sensor.may_subscribe("commands/#"));
    let operator = connect("operator", "operator", "correct horse").expect("the password is right");
    assert!(operator.may_publish("commands/sensor1:a/reboot"));
    assert!(operator.may_subscribe("sensors/#") && operator.may_subscribe("$SYS/#") && !operator.may_subscribe("#"));
    assert!(operator.may_publish("chat/lunch") && !operator.may_publish("chat/announcements"));
    assert!(operator.may_subscribe("chat/+"));
}

/// The block of this kind behind a heading.
fn block<'a>(heading: &str, kind: &str) -> &'a str {
    let readme = include_str!("../README.md");
    let (_, section) = readme.split_once(&format!("\n## {heading}\n")).expect("the README has the section");
    let (_, rest) = section.split_once(&format!("```{kind}\n")).expect("it has such a block");
    rest.split_once("```").expect("the block ends").0
}

#[test]
fn mosquittos_files_are_read_as_the_readme_says() {
    let dir = std::env::temp_dir().join(format!("acl-readme-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let in_dir = |text: &str| text.replace("/etc/host", dir.to_str().expect("UTF-8"));
    std::fs::write(dir.join("acl"), block("Mosquitto's files", "conf")).expect("written");
    // From `mosquitto_passwd`, which the block of the README runs; it is not everywhere where this runs.
    let passwords = [
        "ann:$7$101$gZXK1BdziP1PFFsS$AyZy8BBYjGyBHXuFl13vqpOxF+PlDk8WVPlkBBWxsgZzDPw7BQsiKGHpOvTKhk75iyPJTKr3OpAvnftXnQ3tIg==",
        "bob:$6$AQEBAQEBAQEBAQEB$0XalJKp3UT/84zDiHbUp7Q6l1q0jx4E0lukUbe8/dVfv/qu78UN7ntUNR2BgjDWctdlmDqqRsH03bJd7GCw6LA==",
    ];
    std::fs::write(dir.join("passwd"), passwords.join("\n")).expect("written");
    let config = in_dir(block("Mosquitto's files", "json")).replace('{', r#"{"anonymous": true, "#);
    let policy = read(&config);
    let login = |username, password| Login {
        username,
        password,
        client_id: "c1",
        is_client_id_assigned: false,
        will_topic: None,
        has_method: false,
        has_certificate: false,
    };
    let ann = policy.connect(&login(Some("ann"), Some(b"secret"))).expect("the password is right");
    assert!(ann.may_publish("home/x") && ann.may_subscribe("home/x") && ann.may_publish("status/ann/c1"));
    assert!(!ann.may_publish("home/safe") && !ann.may_subscribe("home/#") && !ann.may_subscribe("news/x"));
    let bob = policy.connect(&login(Some("bob"), Some(b"secret"))).expect("the password is right");
    assert!(bob.may_publish("status/bob/c1") && !bob.may_publish("home/x") && !bob.may_subscribe("status/bob/c1"));
    let anonymous = policy.connect(&login(None, None)).expect("anonymous clients are allowed");
    assert!(anonymous.may_subscribe("news/#") && !anonymous.may_publish("news/x"));
    assert_eq!(policy.connect(&login(Some("ann"), Some(b"wrong"))), Err(Refusal::Credentials));
    std::fs::remove_dir_all(&dir).expect("removed");
}
