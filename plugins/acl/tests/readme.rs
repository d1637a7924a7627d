//! The example in the README is loaded, and does what the README says.

use std::sync::Arc;

use acl::{Login, Permissions, Policy, Refusal};

fn example() -> Policy {
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once("```json\n").expect("the README has an example");
    let (json, _) = rest.split_once("```").expect("the example ends");
    Policy::from_json(json).unwrap_or_else(|error| panic!("{error}"))
}

fn connect(username: &str, client_id: &str, password: &str) -> Result<Arc<Permissions>, Refusal> {
    example().connect(&Login {
        username: Some(username),
        password: Some(password.as_bytes()),
        client_id,
        is_client_id_assigned: false,
        will_topic: None,
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
