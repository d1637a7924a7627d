//! Plugins that misbehave: the one connection is closed, the log says what happened, and everybody else is served.

use crate::harness::{Process, eventually, library};
use crate::mqtt::{Client, Connect, Publish, V3_1_1, V5, field, packet, properties};

fn with_plugin(name: &str, config: &str, workers: &str) -> (Process, std::net::SocketAddr) {
    let library = library(name);
    Process::listening(["--workers", workers, "--plugin", library.to_str().unwrap(), "--plugin-config", config])
}

/// A client that sees everything, and is served throughout.
fn witness(addr: std::net::SocketAddr) -> Client {
    let mut witness = Client::connect(addr, V5, "witness");
    witness.subscribe("#", 1);
    witness
}

/// What a victim does to get into a callback.
fn provoke(callback: &str, addr: std::net::SocketAddr) {
    let connect = Connect::new(V5, "victim");
    let mut victim = match callback {
        "handle_connect" => {
            let (mut victim, connack) = Client::connect_with(addr, &connect);
            assert!(connack.code >= 0x80, "{connack:02x?}");
            return victim.expect_closed();
        }
        "handle_auth" => {
            let connect = Connect { properties: [vec![0x15], field("m")].concat(), ..connect };
            let (mut victim, connack) = Client::connect_with(addr, &connect);
            assert!(connack.code >= 0x80, "{connack:02x?}");
            return victim.expect_closed();
        }
        "handle_session_expired" => {
            let connect = Connect { properties: vec![0x11, 0, 0, 0, 1], ..connect };
            return Client::connect_with(addr, &connect).0.disconnect();
        }
        _ => Client::connect(addr, V5, "victim"),
    };
    match callback {
        "handle_publish" => victim.send(Publish::new("secret", "x").qos(1, 1).bytes(V5)),
        "handle_subscribe" => {
            victim.send(packet(0x82, &[vec![0, 1], properties(V5, &[]), field("t"), vec![0]].concat()));
        }
        "handle_unsubscribe" => victim.send(packet(0xa2, &[vec![0, 1], properties(V5, &[]), field("t")].concat())),
        "handle_puback" => {
            victim.subscribe("mine", 1);
            victim.publish("mine", "x", 1);
            victim.receive();
        }
        "handle_info" => victim.send(Publish::new("info", "x").bytes(V5)),
        "handle_disconnect" | "drop_connection" => return victim.disconnect(),
        _ => panic!("{callback}"),
    }
    victim.expect_disconnect(0x83);
}

#[test]
fn panic_in_a_callback_ends_that_connection_and_nothing_else() {
    let callbacks = [
        "handle_connect",
        "handle_auth",
        "handle_publish",
        "handle_subscribe",
        "handle_unsubscribe",
        "handle_puback",
        "handle_info",
        "handle_disconnect",
        "handle_session_expired",
    ];
    for (number, callback) in callbacks.into_iter().enumerate() {
        let (mut process, addr) =
            with_plugin("unruly", &format!("{{\"panic\": {callback:?}}}"), ["1", "3"][number % 2]);
        let mut witness = witness(addr);
        provoke(callback, addr);
        let line = process.wait_log("a plugin panicked");
        let text = format!("unruly: {callback}");
        for part in ["ERROR", "\"unruly\"", callback, "\"victim\"", text.as_str(), "unruly.rs"] {
            assert!(line.contains(part), "{part} in {line}");
        }
        // Others are served, and nothing of the victim's has passed that had to be decided in the callback.
        let mut other = Client::connect(addr, V3_1_1, "other");
        assert_eq!(other.publish("end", "end", 1), 0);
        loop {
            let message = witness.receive();
            assert_ne!(message.topic, "secret");
            if message.topic == "end" {
                break;
            }
        }
        assert!(process.is_running());
        process.stop();
    }
}

#[test]
fn panic_of_one_connection_is_not_that_of_another() {
    let (process, addr) = with_plugin("unruly", "{\"panic\": \"handle_publish\", \"times\": 1}", "1");
    provoke("handle_publish", addr);
    let mut victim = Client::connect(addr, V5, "victim");
    assert_eq!(victim.publish("t", "x", 1), 0x10);
    process.stop();
}

#[test]
fn panic_whose_payload_panics_is_contained() {
    let (process, addr) = with_plugin("unruly", "{\"panic\": \"handle_publish\", \"bomb\": 1}", "1");
    let mut witness = witness(addr);
    provoke("handle_publish", addr);
    process.wait_log("a plugin panicked");
    witness.ping();
    process.stop();
}

#[test]
fn panic_outside_of_callbacks_is_contained() {
    for (place, logged) in [("new_connection", "new_connection"), ("drop_connection", "drop")] {
        let config = format!("{{\"panic\": {place:?}, \"times\": 1}}");
        let (process, addr) = with_plugin("unruly", &config, "1");
        if place == "new_connection" {
            let (mut victim, connack) = Client::connect_with(addr, &Connect::new(V5, "victim"));
            assert!(connack.code >= 0x80, "{connack:02x?}");
            victim.expect_closed();
        } else {
            provoke(place, addr);
        }
        let line = process.wait_log("a plugin panicked");
        assert!(line.contains(logged) && line.contains(&format!("unruly: {place}")), "{line}");
        Client::connect(addr, V5, "next").ping();
        process.stop();
    }
}

#[test]
fn plugins_before_the_one_that_panics_in_new_connection_hear_of_the_end() {
    let dir = crate::harness::TempDir::new("new-connection");
    let record = dir.path().join("record");
    let file = format!("{{\"file\": \"{}\"}}", record.display());
    let (recorder, unruly) = (library("recorder"), library("unruly"));
    let (process, addr) = Process::listening([
        "--plugin",
        recorder.to_str().unwrap(),
        "--plugin-config",
        &file,
        "--plugin",
        unruly.to_str().unwrap(),
        "--plugin-config",
        "{\"panic\": \"new_connection\", \"times\": 1}",
    ]);
    let (mut victim, connack) = Client::connect_with(addr, &Connect::new(V5, "victim"));
    assert!(connack.code >= 0x80, "{connack:02x?}");
    victim.expect_closed();
    let mut lines = String::new();
    eventually("they hear of it", || {
        lines = std::fs::read_to_string(&record).unwrap();
        lines.lines().count() >= 3
    });
    let lines: Vec<&str> = lines.lines().map(|line| line.split(" text").next().unwrap_or_default()).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[1].starts_with("new_connection"), "{lines:?}");
    assert_eq!(lines[2], "handle_disconnect client=\"\" kind=HandlerFailed reason_code=83");
    process.stop();
}

#[test]
fn panic_while_stopping_does_not_keep_the_host_from_stopping() {
    for place in ["stop", "drop_instance"] {
        let (mut process, addr) = with_plugin("unruly", &format!("{{\"panic\": {place:?}}}"), "2");
        let mut client = Client::connect(addr, V5, "c");
        process.signal(rustix::process::Signal::TERM);
        client.expect_disconnect(0x8b);
        assert_eq!(process.wait().code(), Some(0));
        process.wait_log(&format!("unruly: {place}"));
    }
}

#[test]
fn panic_of_a_thread_of_the_plugin_is_logged() {
    let (process, addr) = with_plugin("unruly", "{\"panic\": \"thread\"}", "1");
    let line = process.wait_log("panicked on a thread of its own");
    for part in ["\"unruly\"", "unruly: thread", "thread=\"helper\""] {
        assert!(line.contains(part), "{part} in {line}");
    }
    Client::connect(addr, V5, "victim").ping();
    process.stop();
}

#[test]
fn errors_are_refusals_and_the_connection_stays() {
    let (process, addr) = with_plugin("unruly", "{\"answer\": \"error\"}", "1");
    let (_, connack) = Client::connect_with(addr, &Connect::new(V5, "victim"));
    assert_eq!(connack.code, 0x80);
    let line = process.wait_log("a plugin returned an error");
    for part in ["handle_connect", "\"victim\"", "unruly error"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    process.stop();
}

#[test]
fn errors_that_panic_are_panics() {
    for (answer, text) in [("bad error", "unruly: an error is shown"), ("worse error", "unruly: an error is dropped")] {
        let (process, addr) = with_plugin("unruly", &format!("{{\"answer\": {answer:?}}}"), "1");
        let mut witness = witness(addr);
        let (mut victim, connack) = Client::connect_with(addr, &Connect::new(V5, "victim"));
        assert!(connack.code >= 0x80, "{connack:02x?}");
        victim.expect_closed();
        let line = process.wait_log("a plugin panicked");
        for part in ["handle_connect", "\"victim\"", text] {
            assert!(line.contains(part), "{part} in {line}");
        }
        witness.ping();
        process.stop();
    }
}

#[test]
fn answers_that_cannot_be_used_are_refusals() {
    let topics = ["verdict", "other", "key", "empty", "code", "properties", "utf8", "topic", "qos"];
    let (process, addr) = with_plugin("unreadable", "{}", "2");
    let mut witness = witness(addr);
    for topic in topics {
        let mut client = Client::connect(addr, V5, "client");
        client.send(Publish::new(format!("bad/{topic}"), "x").qos(1, 1).bytes(V5));
        // Refused, or closed: nothing passes.
        if let Some(packet) = client.try_read() {
            match packet[0] >> 4 {
                4 => assert!(packet[4] >= 0x80, "{topic}: {packet:02x?}"),
                14 => client.expect_closed(),
                _ => panic!("{topic}: {packet:02x?}"),
            }
        }
        witness.ping();
    }
    eventually("each is logged", || {
        let is_refused = |line: &String| line.contains("cannot be used") && line.contains("handle_publish");
        process.log().iter().filter(|line| is_refused(line)).count() >= topics.len()
    });
    Client::connect(addr, V5, "client").publish("end", "end", 1);
    assert_eq!(witness.receive().topic, "end");
    process.stop();
}

#[test]
fn reason_codes_that_a_packet_cannot_have_are_sent_as_unspecified_error() {
    // [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.14.2-1]
    let dir = crate::harness::TempDir::new("reason-codes");
    let config = format!("{{\"file\": \"{}\"}}", dir.path().join("record").display());
    let (process, addr) = with_plugin("recorder", &config, "2");
    let mut client = Client::connect(addr, V5, "victim");
    for qos in [1, 2] {
        assert_eq!(client.publish("cmd/reject/96", "x", qos), 0x80);
    }
    let line = process.wait_log("0x96");
    for part in ["WARN", "PUBACK", "\"recorder\"", "handle_publish", "\"victim\"", "0x97 0x99"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    client.send(Publish::new("cmd/kick/86", "").bytes(V5));
    client.expect_disconnect(0x80);
    process.stop();
}

#[test]
fn callback_that_does_not_return_does_not_keep_the_host_from_ending() {
    let (mut process, addr) = with_plugin("unruly", "{\"slow_ms\": 600000}", "1");
    let mut victim = Client::connect(addr, V5, "victim");
    victim.send(Publish::new("t", "x").bytes(V5));
    // It has been called: a server that is told to stop reads no more.
    process.wait_log_of(&["holds up all clients of its worker", "handle_publish"]);
    process.signal(rustix::process::Signal::TERM);
    // It cannot have been graceful, and says so.
    assert_eq!(process.wait().code(), Some(1));
    process.wait_log("a plugin does not return from a callback");
}

#[test]
fn plugin_that_does_not_return_from_stop_or_drop_does_not_keep_the_host_from_ending() {
    for place in ["stop", "drop_instance"] {
        let (mut process, addr) = with_plugin("unruly", &format!("{{\"block\": {place:?}}}"), "2");
        let mut client = Client::connect(addr, V5, "c");
        process.signal(rustix::process::Signal::TERM);
        client.expect_disconnect(0x8b);
        assert_eq!(process.wait().code(), Some(1));
        let line = process.wait_log("does not return from `stop`");
        assert!(line.contains("unruly"), "{line}");
    }
}
