//! The shipped plugin `acl`, with the example of its README.

use std::net::SocketAddr;
use std::process::Command;

use crate::harness::{have, package_library, start};
use crate::mqtt::{Client, Connack, Connect, V3_1_1, V5, Will};

const BAD_USER_NAME_OR_PASSWORD: u8 = 0x86;
const NOT_AUTHORIZED: u8 = 0x87;

/// The JSON block of its README.
fn readme_config() -> String {
    let readme = include_str!("../../../plugins/acl/README.md");
    let json = readme.split("```json\n").nth(1).and_then(|rest| rest.split("```").next());
    json.expect("the README has a JSON block").to_owned()
}

fn with_acl(test: impl Fn(SocketAddr)) {
    let library = package_library("acl");
    let server = start(2, |builder| builder.plugin(&library, readme_config()));
    test(server.local_addr());
    server.stop().unwrap();
}

fn sign_in(addr: SocketAddr, version: u8, user: &'static str, password: &'static str) -> (Client, Connack) {
    let mut connect = Connect::new(version, user);
    connect.username = Some(user);
    connect.password = Some(password);
    Client::connect_with(addr, &connect)
}

#[test]
fn readme_example_lets_in_who_knows_the_password_and_through_what_is_allowed() {
    with_acl(|addr| {
        let (mut operator, connack) = sign_in(addr, V5, "operator", "correct horse");
        assert_eq!(connack.code, 0);
        operator.subscribe("sensors/#", 1);
        assert_eq!(operator.subscribe_all(&[("commands/#", 0), ("chat/+", 0)]), [NOT_AUTHORIZED, 0]);

        let (mut sensor, connack) = sign_in(addr, V5, "sensor1", "correct horse");
        assert_eq!(connack.code, 0);
        assert_eq!(sensor.publish("sensors/sensor2/temperature", "99", 1), NOT_AUTHORIZED);
        assert_eq!(sensor.publish("sensors/sensor1/temperature", "21.5", 1), 0);
        let received = operator.receive();
        assert_eq!((received.topic.as_str(), received.text()), ("sensors/sensor1/temperature", "21.5"));
        // A shared subscription is no way around a rule.
        assert_eq!(sensor.subscribe_all(&[("$share/g/sensors/#", 0), ("commands/sensor1/+", 0)]), [NOT_AUTHORIZED, 0]);
        assert_eq!(operator.publish("commands/sensor1/reboot", "now", 1), 0);
        assert_eq!(sensor.receive().text(), "now");
        operator.expect_nothing();
    });
}

#[test]
fn readme_example_keeps_out_everybody_else() {
    with_acl(|addr| {
        assert_eq!(sign_in(addr, V5, "sensor1", "wrong").1.code, BAD_USER_NAME_OR_PASSWORD);
        assert_eq!(sign_in(addr, V3_1_1, "sensor1", "wrong").1.code, 4);
        assert_eq!(sign_in(addr, V5, "nobody", "correct horse").1.code, BAD_USER_NAME_OR_PASSWORD);
        let (_, anonymous) = Client::connect_with(addr, &Connect::new(V5, "anonymous"));
        assert!(anonymous.code >= 0x80);
        // A will that it may not publish.
        let mut connect = Connect::new(V5, "sensor1");
        connect.username = Some("sensor1");
        connect.password = Some("correct horse");
        connect.will = Some(Will { topic: "sensors/sensor2/state", payload: "gone", ..Will::default() });
        assert_eq!(Client::connect_with(addr, &connect).1.code, NOT_AUTHORIZED);
    });
}

#[test]
fn mosquitto_signs_in() {
    if !have("sh", &["-c", "command -v mosquitto_pub"], "apt-get install mosquitto-clients") {
        return;
    }
    with_acl(|addr| {
        let publish = |password: &str| {
            let mut command = Command::new("mosquitto_pub");
            command.args([
                "-h",
                &addr.ip().to_string(),
                "-p",
                &addr.port().to_string(),
                "-i",
                "sensor1",
                "-u",
                "sensor1",
            ]);
            command.args(["-P", password, "-t", "sensors/sensor1/temperature", "-m", "21.5", "-q", "1"]);
            crate::harness::output(&mut command).status.success()
        };
        assert!(publish("correct horse"));
        assert!(!publish("wrong"));
    });
}
