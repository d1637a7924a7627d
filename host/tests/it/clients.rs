//! Clients that others have written: mosquitto's programs and the paho library for Python.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::harness::{have, output, with_server};
use crate::mqtt::{Client, V5};

const MOSQUITTO_VERSIONS: [&str; 3] = ["31", "311", "5"];

fn have_mosquitto() -> bool {
    // `--help` of both ends with 1 in some versions, so it is not asked for.
    let install = "apt-get install mosquitto-clients";
    have("sh", &["-c", "command -v mosquitto_pub && command -v mosquitto_sub"], install)
}

fn have_paho() -> bool {
    have("python3", &["-c", "import paho.mqtt.client"], "pip install paho-mqtt")
}

fn mosquitto(program: &str, addr: SocketAddr, version: &str, args: &[&str]) -> Command {
    let (host, port) = (addr.ip().to_string(), addr.port().to_string());
    let mut command = Command::new(program);
    command.args(["-h", &host, "-p", &port, "-V", version]).args(args);
    command
}

/// A subscriber that is there: its SUBACK has come.
fn mosquitto_sub(addr: SocketAddr, version: &str, args: &[&str]) -> Child {
    // Line by line, it says what it does; SUBACK is the last before messages.
    let mut command = Command::new("stdbuf");
    let sub = mosquitto("mosquitto_sub", addr, version, args);
    command.arg("-oL").arg(sub.get_program()).args(sub.get_args()).arg("-d");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("mosquitto_sub can be run")
}

#[test]
fn mosquitto_programs_exchange_messages_at_every_version_and_qos() {
    use std::io::BufRead;
    if !have_mosquitto() {
        return;
    }
    with_server(|server| {
        let addr = server.local_addr();
        for version in MOSQUITTO_VERSIONS {
            for qos in ["0", "1", "2"] {
                let mut sub =
                    mosquitto_sub(addr, version, &["-q", qos, "-t", "m/+", "-C", "3", "-W", "20", "-F", "%t %q %p"]);
                let mut lines = std::io::BufReader::new(sub.stdout.take().unwrap()).lines().map(Result::unwrap);
                assert!(lines.any(|line| line.starts_with("Subscribed ")), "SUBACK at {version}, QoS {qos}");
                for topic in ["m/1", "m/2", "m/3"] {
                    let published = output(&mut mosquitto(
                        "mosquitto_pub",
                        addr,
                        version,
                        &["-q", qos, "-t", topic, "-m", "hello"],
                    ));
                    assert!(published.status.success(), "{published:?}");
                }
                let received: Vec<_> = lines.filter(|line| line.starts_with("m/")).collect();
                assert!(sub.wait().unwrap().success());
                let expected: Vec<_> = (1..=3).map(|number| format!("m/{number} {qos} hello")).collect();
                assert_eq!(received, expected, "{version}");
            }
        }
    });
}

#[test]
fn mosquitto_sees_retained_messages_wills_and_refusals() {
    if !have_mosquitto() {
        return;
    }
    with_server(|server| {
        let addr = server.local_addr();
        for version in MOSQUITTO_VERSIONS {
            let kept = output(&mut mosquitto(
                "mosquitto_pub",
                addr,
                version,
                &["-r", "-q", "1", "-t", "kept", "-m", "retained"],
            ));
            assert!(kept.status.success(), "{kept:?}");
            let read = output(&mut mosquitto(
                "mosquitto_sub",
                addr,
                version,
                &["-t", "kept", "-C", "1", "-W", "20", "-F", "%r %p"],
            ));
            assert_eq!(String::from_utf8_lossy(&read.stdout), "1 retained\n");
            let mut observer = Client::connect(addr, V5, "observer");
            observer.subscribe("will", 1);
            let mut mortal = mosquitto(
                "mosquitto_sub",
                addr,
                version,
                &[
                    "-t",
                    "kept",
                    "-C",
                    "5",
                    "-W",
                    "20",
                    "--will-topic",
                    "will",
                    "--will-payload",
                    "gone",
                    "--will-qos",
                    "1",
                ],
            );
            let mut mortal = mortal.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
            // It has subscribed when its first message, the retained one, is there.
            let mut first = [0; 9];
            std::io::Read::read_exact(mortal.stdout.as_mut().unwrap(), &mut first).unwrap();
            mortal.kill().unwrap();
            mortal.wait().unwrap();
            assert_eq!(observer.receive().text(), "gone");
        }
    });
}

#[test]
fn mosquitto_publishes_what_does_not_fit_into_one_read() {
    if !have_mosquitto() {
        return;
    }
    with_server(|server| {
        let mut observer = Client::connect(server.local_addr(), V5, "observer");
        observer.subscribe("large", 2);
        let dir = crate::harness::TempDir::new("large");
        let content: String = (0..500_000).map(|number| char::from(b'a' + (number % 26) as u8)).collect();
        let file = dir.file("payload", &content);
        let args = ["-q", "2", "-t", "large", "-f", file.to_str().unwrap()];
        let published = output(&mut mosquitto("mosquitto_pub", server.local_addr(), "5", &args));
        assert!(published.status.success(), "{published:?}");
        assert_eq!(observer.receive().text(), content);
    });
}

const PAHO: &str = include_str!("paho.py");

#[test]
fn paho_python_exchanges_messages_at_every_version_and_qos() {
    if !have_paho() {
        return;
    }
    with_server(|server| {
        let port = server.local_addr().port().to_string();
        for version in ["3", "4", "5"] {
            let ran = output(Command::new("python3").args(["-c", PAHO, &port, version]));
            assert!(ran.status.success(), "version {version}: {}", String::from_utf8_lossy(&ran.stderr));
            assert_eq!(String::from_utf8_lossy(&ran.stdout), "ok\n");
        }
    });
}
