//! Bounds as their operator sets them, and the reference that tells of them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use host::Limits;
use host::limits::SETTINGS;

use crate::harness::{Process, TempDir, eventually, host_output, with_configured};
use crate::mqtt::{Client, Publish, V5};

/// The lines of LIMITS.md between which the table stands.
const BEGIN: &str = "--test it reference -->\n";
const END: &str = "<!-- end -->\n";

/// The table of LIMITS.md, as it follows from the code.
fn table() -> String {
    let mut text = String::new();
    let mut heading = "";
    for setting in SETTINGS {
        if setting.heading != heading {
            heading = setting.heading;
            let _ = write!(
                text,
                "\n## {heading}\n\n| name | unit | default | what | Reason Code or action | a change counts |\n"
            );
            text.push_str("| --- | --- | --- | --- | --- | --- |\n");
        }
        let default = setting.show(&Limits::default());
        let default = if default.is_empty() { "none".to_owned() } else { format!("`{default}`") };
        let (name, kind, about, beyond) = (setting.name, setting.kind, setting.about.trim(), setting.beyond);
        let reload = setting.reload.name();
        let _ = writeln!(text, "| `{name}` | {kind} | {default} | {about} | {beyond} | {reload} |");
    }
    text.push('\n');
    text
}

#[test]
fn reference_has_every_bound_as_it_is() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("LIMITS.md");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the comment before the table");
    let (found, behind) = rest.split_once(END).expect("the comment behind the table");
    let expected = table();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&file, format!("{before}{BEGIN}{expected}{END}{behind}")).unwrap();
    } else {
        assert!(found == expected, "LIMITS.md is not up to date: UPDATE_REFERENCE=1 writes\n{expected}");
    }
}

#[test]
fn file_and_command_line_set_bounds_and_the_command_line_wins() {
    let dir = TempDir::new("limits");
    let file = dir.file("host.toml", "[limits]\nreceive_maximum = 7\npacket_bytes_max = \"64KiB\"\n");
    let args = ["--config", file.to_str().unwrap(), "--receive-maximum", "9", "--topic-alias-max", "0"];
    let (process, addr) = Process::listening(args);
    let mut client = Client::open(addr, V5);
    client.send(crate::mqtt::Connect::new(V5, "c").bytes());
    // Receive Maximum 9 of the command line, Maximum Packet Size of the file, no Topic Aliases.
    client.expect(&[0x20, 11, 0, 0, 8, 0x21, 0, 9, 0x27, 0, 1, 0, 0]);
    process.stop();
}

#[test]
fn file_that_is_wrong_keeps_it_from_starting() {
    let dir = TempDir::new("limits-wrong");
    let table = [
        (
            "[limits]\npacket_bytes = 1\n",
            ":2:1: there is no `packet_bytes` in [limits]: did you mean `packet_bytes_max`?",
        ),
        ("[limits]\n\nidle_max = 10\n", ":3:12: idle_max is 10: expected a time from 0s to 365d"),
        (
            "[limits]\nkeep_alive_secs_min = 60\nkeep_alive_secs_max = 30\n",
            "host.toml:2: the limit keep_alive_secs_min is 60s, and has to be",
        ),
    ];
    for (text, expected) in table {
        let file = dir.file("host.toml", text);
        let output = host_output(["--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
        let output = host_output(["check", "--config", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn file_is_checked_without_a_server() {
    let dir = TempDir::new("limits-check");
    let file =
        dir.file("host.toml", "[limits]\npacket_bytes_max = 65536\nserver_reference = \"b\"\nqueue_qos0 = false\n");
    let output = host_output(["check", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    let name = file.display();
    let expected = format!(
        "{name}\n  limits.server_reference = b (default none; {name}:3)\n  limits.packet_bytes_max = 64KiB (default \
         16MiB; {name}:2)\n"
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    let file = dir.file("same.toml", "[limits]\nmaximum_qos = 2\n");
    let output = host_output(["check", "--config", file.to_str().unwrap()]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}\n  changes nothing\n", file.display()));
}

/// An address has its share of connections; what is beyond it is closed at once, and its place is free when one leaves.
#[test]
fn connections_beyond_the_bound_of_an_address_are_closed() {
    with_configured(
        |builder| {
            let mut limits = Limits::default();
            limits.connections_per_address_max = 2;
            builder.listen("127.0.0.1:0").listen("[::1]:0").limits(limits)
        },
        |server| {
            let [.., v4, v6] = server.local_addrs() else { panic!("two listeners") };
            let first = Client::connect(*v4, V5, "first");
            let mut second = Client::connect(*v4, V5, "second");
            for _ in 0..5 {
                Client::open(*v4, V5).expect_closed();
            }
            Client::connect(*v6, V5, "other").ping();
            second.ping();
            first.disconnect();
            eventually("its place is free", || {
                let mut third = Client::open(*v4, V5);
                // What the server closes at once may be gone before anything is sent.
                third.try_send(crate::mqtt::Connect::new(V5, "third").bytes()) && third.try_read().is_some()
            });
        },
    );
}

/// The rate of CONNECT is one for all workers.
#[test]
fn connect_packets_beyond_the_rate_are_refused() {
    with_configured(
        |builder| {
            let mut limits = Limits::default();
            limits.connect_rate_max = 1;
            builder.limits(limits)
        },
        |server| {
            // The bucket holds one; that two of these come a second apart is possible, that all of them do is not.
            let mut codes = Vec::new();
            while codes.len() < 1000 && !codes.contains(&0x9F) {
                let connect = crate::mqtt::Connect::new(V5, format!("c{}", codes.len()));
                codes.push(Client::connect_with(server.local_addr(), &connect).1.code);
            }
            assert_eq!(codes[0], 0);
            assert_eq!(codes.last(), Some(&0x9F));
        },
    );
}

/// Who runs the server learns what was dropped: at the latest when it stops.
#[test]
fn what_was_dropped_stands_in_the_log() {
    let (mut process, addr) = Process::listening(["--message-rate-max", "1", "--workers", "2"]);
    let mut client = Client::connect(addr, V5, "c");
    for _ in 0..5000 {
        client.send(Publish::new("t", "m").bytes(V5));
    }
    client.ping();
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    let line = process.wait_log("refused or dropped since the start");
    let (_, count) = line.split_once("dropped_rate=").unwrap_or_else(|| panic!("{line}"));
    let dropped: u32 = count.trim().parse().expect(&line);
    assert!((1..5000).contains(&dropped), "{line}");
    let line = process.wait_log(": stopped");
    assert!(line.contains("connections=1") && line.contains("publishes_received=5000"), "{line}");
}
