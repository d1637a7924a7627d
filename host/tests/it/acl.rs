//! The shipped plugin `acl`, with the example of its README.

use std::net::SocketAddr;
use std::process::Command;

use crate::harness::{Process, TempDir, eventually, have, host_output, package_library, start};
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

/// The example without one of its rules.
fn without(rule: &str) -> String {
    let config = readme_config();
    let shorter = config.lines().filter(|line| !line.contains(rule)).collect::<Vec<_>>().join("\n");
    assert_ne!(shorter, config);
    shorter
}

/// A host with the README's example, and commands for it.
fn with_commands(name: &str, test: impl Fn(SocketAddr, &TempDir, &dyn Fn(&[&str]) -> std::process::Output)) {
    let dir = TempDir::new(name);
    let control = dir.path().join("s");
    let control = control.to_str().unwrap();
    let config = dir.file("acl.json", &readme_config());
    let (library, config) = (package_library("acl"), format!("@{}", config.display()));
    let args = ["--control", control, "--plugin", library.to_str().unwrap(), "--plugin-config", &config];
    let (process, addr) = Process::listening(args);
    test(addr, &dir, &|args| host_output([args, &["--control", control]].concat()));
    process.stop();
}

#[test]
fn new_users_and_rules_count_at_once_and_an_error_keeps_the_old_ones() {
    with_commands("acl-configure", |addr, dir, command| {
        let mut sensor = sign_in(addr, V5, "sensor1", "correct horse").0;
        let mut operator = sign_in(addr, V5, "operator", "correct horse").0;
        sensor.subscribe("chat/+", 0);
        operator.subscribe("chat/+", 1);
        operator.subscribe("sensors/#", 1);
        let configure = |config: &str| {
            let file = dir.file("new.json", config);
            command(&["configure", "acl", &format!("@{}", file.display())])
        };
        // An error: nothing has changed.
        let output = configure(&readme_config().replace("\"allow\"", "\"alow\""));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("rules[0]") && text.contains("alow"), "{text}");
        assert_eq!(sensor.publish("sensors/sensor1/t", "old", 1), 0);
        assert_eq!(operator.receive().text(), "old");
        assert_eq!(operator.publish("chat/x", "all", 1), 0);
        assert_eq!((sensor.receive().text(), operator.receive().text()), ("all", "all"));
        // Nobody may chat any more: existing subscriptions are removed.
        assert_eq!(configure(&without("chat/+")).status.code(), Some(0));
        assert_eq!(sensor.publish("chat/x", "gone", 1), NOT_AUTHORIZED);
        assert_eq!(sensor.subscribe_all(&[("chat/+", 0)]), [NOT_AUTHORIZED]);
        // 0x10: allowed, and nobody has subscribed to it.
        assert_eq!(operator.publish("commands/sensor1/x", "still", 1), 0x10);
        assert_eq!(sensor.publish("sensors/sensor1/t", "still", 1), 0);
        assert_eq!(operator.receive().text(), "still");
        // A user that is gone may do nothing, and does not come in again.
        let renamed = readme_config().replace("\"username\": \"sensor1\"", "\"username\": \"sensor9\"");
        assert_eq!(configure(&renamed).status.code(), Some(0));
        assert_eq!(sensor.publish("sensors/sensor1/t", "no", 1), NOT_AUTHORIZED);
        assert_eq!(sign_in(addr, V5, "sensor1", "correct horse").1.code, BAD_USER_NAME_OR_PASSWORD);
        assert_eq!(sign_in(addr, V5, "sensor9", "correct horse").1.code, 0);
        operator.expect_nothing();
    });
}

#[test]
fn subscription_that_is_no_longer_allowed_gets_nothing_more() {
    with_commands("acl-revoke", |addr, _, command| {
        let mut sensor = sign_in(addr, V5, "sensor1", "correct horse").0;
        let mut operator = sign_in(addr, V5, "operator", "correct horse").0;
        sensor.subscribe("commands/sensor1/+", 1);
        let revoked = without("commands/%c/+");
        assert_eq!(command(&["configure", "acl", &revoked]).status.code(), Some(0));
        // 0x10: nobody has subscribed to it.
        eventually("the subscription is removed", || operator.publish("commands/sensor1/x", "secret", 1) == 0x10);
        sensor.ping();
    });
}

/// As `mosquitto_passwd` has written them, for the passwords `one`, `two` (with `-H sha512`) and `three`.
const MOSQUITTO_ONE: &str = "sensor1:$7$101$CvIxrlE69RS2HmPs$OwrI8uD3RoW8MzYjNoWxRTuYRZ01B7Uy6SpZqwtkUFW+TLDpD3YGRDZVpX\
     B5Nv4jbk8DdmBV3dnY3DK7wW91vg==";
const MOSQUITTO_TWO: &str = "operator:$6$NUMmT3BkbAVUbOI+$h4fI9ZQ1NySST8SUuEeqz+xZniKevlBYVjRyjayZbXUTd4M3kcAhw/1Y0i/ea\
     lNLYcT3G2gxknTYaBDJ4xHIog==";
const MOSQUITTO_THREE: &str = "sensor1:$7$101$UyJE5vIdQ0Uxk1Me$kEUBvfpzDKAOFS4k/lmaNsuAvkPpc0+X/2LRFBJd5szbZo9CODjIrXYeqE\
     U1eUpeWhGrkB5FOWTGhnz7ojo/Qg==";

#[test]
fn mosquittos_files_count_and_so_do_their_changes() {
    let dir = TempDir::new("acl-files");
    let passwords = dir.file("passwd", &format!("{MOSQUITTO_ONE}\n{MOSQUITTO_TWO}\n"));
    let rules =
        dir.file("acl", "user sensor1\ntopic write a/#\nuser operator\ntopic read a/#\npattern readwrite of/%u\n");
    let config = format!(r#"{{"password_file": "{}", "acl_file": "{}"}}"#, passwords.display(), rules.display());
    let library = package_library("acl");
    let (process, addr) = Process::listening(["--plugin", library.to_str().unwrap(), "--plugin-config", &config]);
    let (mut sensor, connack) = sign_in(addr, V5, "sensor1", "one");
    assert_eq!(connack.code, 0);
    let (mut operator, connack) = sign_in(addr, V5, "operator", "two");
    assert_eq!(connack.code, 0);
    assert_eq!(sign_in(addr, V5, "operator", "one").1.code, BAD_USER_NAME_OR_PASSWORD);
    assert_eq!(operator.subscribe_all(&[("a/#", 0), ("#", 0), ("of/operator", 0)]), [0, NOT_AUTHORIZED, 0]);
    assert_eq!(sensor.publish("a/b", "x", 1), 0);
    assert_eq!(operator.receive().text(), "x");
    assert_eq!(operator.publish("a/b", "x", 1), NOT_AUTHORIZED);
    // A fault keeps what there was; then other rules and another password.
    dir.file("acl", "user sensor1\ntopic wriite a/#\n");
    process.wait_log("the rules stay as they were");
    assert_eq!(sensor.publish("a/b", "x", 1), 0);
    dir.file("passwd", &format!("{MOSQUITTO_THREE}\n{MOSQUITTO_TWO}\n"));
    dir.file("acl", "user sensor1\ntopic write b/#\nuser operator\ntopic read b/#\n");
    eventually("the files are read", || sensor.publish("a/b", "x", 1) == NOT_AUTHORIZED);
    assert_eq!(sign_in(addr, V5, "sensor1", "one").1.code, BAD_USER_NAME_OR_PASSWORD);
    assert_eq!(sign_in(addr, V5, "sensor1", "three").1.code, 0);
    process.stop();
}

#[test]
fn swap_keeps_who_is_connected_and_what_they_may_do() {
    with_commands("acl-swap", |addr, _, command| {
        let mut sensor = sign_in(addr, V5, "sensor1", "correct horse").0;
        let mut operator = sign_in(addr, V5, "operator", "correct horse").0;
        operator.subscribe_all(&[("sensors/#", 1), ("chat/+", 1)]);
        let library = package_library("acl");
        let library = library.to_str().unwrap();
        for config in [readme_config(), without("chat/+")] {
            let output = command(&["swap", "--plugin", library, "--plugin-config", &config, "--probation", "0s"]);
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(sensor.publish("sensors/sensor1/t", "1", 1), 0);
            assert_eq!(operator.receive().text(), "1");
            assert_eq!(sensor.publish("sensors/sensor2/t", "1", 1), NOT_AUTHORIZED);
        }
        assert_eq!(sensor.publish("chat/x", "by the new rules", 1), NOT_AUTHORIZED);
        // And for subscriptions of the old ones. 0x10: nobody has subscribed to it.
        let permissive = readme_config().replace(
            r#""allow": ["publish", "subscribe"], "topics": ["chat/+"]"#,
            r#""allow": ["publish"], "topics": ["chat/+"]"#,
        );
        let output = command(&["swap", "--plugin", library, "--plugin-config", &permissive, "--probation", "0s"]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(sensor.publish("chat/x", "to nobody", 1), 0x10);
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
