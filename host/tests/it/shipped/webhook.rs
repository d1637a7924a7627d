//! `webhook`, with a server of HTTP that takes events or does not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, mpsc};

use serde_json::Value;

use super::{QUOTA_EXCEEDED, block, example, with_plugins};
use crate::harness::{PATIENCE, Process, TempDir, eventually, package_library};
use crate::mqtt::{Client, Connect, Publish, V3_1_1, V5};
use crate::upgrade::Host;

/// A server of HTTP that takes what it is told with this status, and hands it on.
fn listener_of_events() -> (String, Arc<AtomicU16>, mpsc::Receiver<(u16, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/events", listener.local_addr().expect("it has one"));
    let status = Arc::new(AtomicU16::new(500));
    let (told, events) = mpsc::channel();
    let current = Arc::clone(&status);
    std::thread::spawn(move || {
        // One request for each connection, so that none is kept open.
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(&stream);
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a number");
                }
            }
            let mut body = vec![0; length];
            if reader.read_exact(&mut body).is_err() {
                continue;
            }
            let status = current.load(Ordering::Relaxed);
            let answer = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            if (&stream).write_all(answer.as_bytes()).is_ok() {
                let batch: Value = serde_json::from_slice(&body).expect("JSON");
                for event in batch["events"].as_array().expect("a list") {
                    if told.send((status, event.clone())).is_err() {
                        return;
                    }
                }
            }
        }
    });
    (url, status, events)
}

#[test]
fn webhook_tells_each_event_until_it_is_taken() {
    let (url, status, events) = listener_of_events();
    let config = example("webhook").replace("http://127.0.0.1:8080/events", &url);
    let config = config.replacen('{', r#"{"queue_max": 3,"#, 1);
    with_plugins(&[("webhook", &config)], |addr| {
        let as_sensor = Connect::new(V5, "sensor").persistent();
        let (mut sensor, _) = Client::connect_with(addr, &as_sensor);
        assert_eq!(sensor.publish("other", "not told", 1), 0x10);
        assert_eq!(sensor.publish("sensors/1", "21.5", 1), 0x10);
        assert_eq!(sensor.publish("sensors/1", [0xff], 1), 0x10);
        // Three wait: there is no room for another one, which is not acknowledged.
        let mut kept = Publish::new("sensors/1", "22").qos(1, sensor.new_id());
        sensor.send(kept.bytes(V5));
        sensor.expect_disconnect(QUOTA_EXCEEDED);
        let mut old = Client::connect(addr, V3_1_1, "old");
        old.send(kept.bytes(V3_1_1));
        old.expect_disconnect(QUOTA_EXCEEDED);
        let next = |wanted: u16| {
            loop {
                let (status, event) = events.recv_timeout(PATIENCE).expect("it is told");
                if status == wanted {
                    return event;
                }
            }
        };
        let refused = next(500);
        status.store(204, Ordering::Relaxed);
        let taken = [next(204), next(204), next(204)];
        assert_eq!(refused["id"], taken[0]["id"], "it is told again");
        // The README shows the first two, with these fields.
        let shown: Value = serde_json::from_str(&block("webhook", "json,told")).expect("JSON");
        let fields = |event: &Value| event.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        let shown = shown["events"].as_array().expect("a list").iter();
        assert_eq!(shown.map(fields).collect::<Vec<_>>(), taken[..2].iter().map(fields).collect::<Vec<_>>());
        let kinds = taken.each_ref().map(|event| event["event"].as_str().unwrap_or_default());
        assert_eq!(kinds, ["connected", "published", "published"]);
        assert_eq!((&taken[1]["payload"], &taken[2]["payload_base64"]), (&"21.5".into(), &"/w==".into()));
        assert_eq!((&taken[1]["client_id"], &taken[1]["topic"]), (&"sensor".into(), &"sensors/1".into()));
        // Its client sends it again as soon as there is room.
        kept.dup = true;
        let mut back = None;
        eventually("there is room again", || {
            let (mut sensor, _) = Client::connect_with(addr, &as_sensor);
            sensor.send(kept.bytes(V5));
            let is_acknowledged = sensor.try_read().is_some_and(|packet| packet[0] >> 4 == 4);
            back = Some(sensor);
            is_acknowledged
        });
        let mut all = std::iter::repeat_with(|| next(204));
        let told = all.find(|event| event["event"] == "published").expect("it is told");
        assert_eq!((&told["payload"], &told["client_id"]), (&"22".into(), &"sensor".into()));
        back.expect("it is there").disconnect();
        let is_last = |event: &Value| event["event"] == "disconnected" && event["kind"] == "Normal";
        all.find(is_last).expect("it is told");
    });
}

#[test]
fn webhook_tells_after_a_crash_what_was_not_taken_before() {
    let (url, status, events) = listener_of_events();
    let config = example("webhook").replace("http://127.0.0.1:8080/events", &url);
    let (dir, library) = (TempDir::new("webhook"), package_library("webhook"));
    let (plugin, data) = (library.to_str().expect("UTF-8"), dir.path().to_str().expect("UTF-8"));
    let serve = || Process::listening(["--data-dir", data, "--plugin", plugin, "--plugin-config", &config]);
    let published = |wanted: u16| {
        loop {
            let (status, event) = events.recv_timeout(PATIENCE).expect("it is told");
            if status == wanted && event["event"] == "published" {
                return event;
            }
        }
    };
    let (server, addr) = serve();
    let mut sensor = Client::connect(addr, V5, "sensor");
    assert_eq!([sensor.publish("sensors/1", "1", 1), sensor.publish("sensors/2", "2", 1)], [0x10; 2]);
    let refused = published(500);
    // It is killed.
    drop(server);
    status.store(204, Ordering::Relaxed);
    let (_server, _) = serve();
    let taken = [published(204), published(204)];
    assert_eq!((&taken[0]["id"], &taken[0]["payload"]), (&refused["id"], &"1".into()));
    assert_eq!(taken[1]["payload"], "2");
}

#[test]
fn webhook_tells_after_a_swap_and_an_upgrade_what_was_not_taken_before() {
    let (url, status, events) = listener_of_events();
    let config = example("webhook").replace("http://127.0.0.1:8080/events", &url);
    let library = package_library("webhook");
    let library = library.to_str().expect("UTF-8");
    let host = Host::start("webhook-upgrade", &["--plugin", library, "--plugin-config", &config]);
    let mut sensor = Client::connect(host.addr, V5, "sensor");
    assert_eq!(sensor.publish("sensors/1", "1", 1), 0x10);
    assert_eq!(host.answer(&["swap", "--plugin", library])["ok"], true);
    assert_eq!(sensor.publish("sensors/1", "2", 1), 0x10);
    host.upgrade();
    assert_eq!(sensor.publish("sensors/1", "3", 1), 0x10);
    status.store(204, Ordering::Relaxed);
    let mut taken = Vec::new();
    while taken.len() < 4 {
        let (status, event) = events.recv_timeout(PATIENCE).expect("it is told");
        // Who is replaced may tell what the next one tells as well.
        if status == 204 && taken.iter().all(|before: &Value| before["id"] != event["id"]) {
            taken.push(event);
        }
    }
    let told: Vec<_> = taken.iter().map(|event| (&event["event"], &event["payload"])).collect();
    let published = Value::from("published");
    let payloads = ["1", "2", "3"].map(Value::from);
    assert_eq!(told[0].0, "connected");
    assert_eq!(told[1..], payloads.each_ref().map(|payload| (&published, payload)));
}
