//! A start with much to load. `cargo bench -p host --bench startup` does it with a hundred times as much, and measures.

#[path = "../../benches/startup/fill.rs"]
mod fill;

use self::fill::{End, Size, client_id, fill, topic};
use crate::harness::{Process, TempDir};
use crate::mqtt::{Client, Connect, V3_1_1};

#[test]
fn what_fills_a_directory_is_loaded_and_its_clients_get_it() {
    let size = Size { sessions: 1000, queued: 10, retained: 10_000, payload_bytes: 100 };
    for (end, workers) in [(End::Stopped, "2"), (End::Killed, "1")] {
        let dir = TempDir::new("startup");
        fill(dir.path(), &size, end);
        let args = ["--data-dir", dir.path().to_str().expect("text"), "--workers", workers];
        let (process, addr) = Process::listening(args);
        process.wait_log(": 1000 sessions, 10000 messages for them, 10000 retained messages");
        for session in [1, 2, 999, 1000] {
            let connect = Connect::new(V3_1_1, client_id(session)).persistent();
            let (mut client, connack) = Client::connect_with(addr, &connect);
            assert!(connack.session_present);
            for _ in 0..size.queued {
                let message = client.receive();
                assert_eq!((message.topic.as_str(), message.qos), (&*format!("to/{session}/command"), 1));
                assert_eq!(message.payload, [b'x'; 100]);
            }
            client.expect_nothing();
        }
        let mut client = Client::connect(addr, V3_1_1, "retained");
        for number in [0, 9_999] {
            client.subscribe(&topic(number), 0);
            assert_eq!(client.receive().topic, topic(number));
        }
        process.stop();
    }
}
