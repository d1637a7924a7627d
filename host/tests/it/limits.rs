//! Bounds as their operator sets them, and the reference that tells of them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use host::Limits;
use host::limits::SETTINGS;

use crate::harness::{Process, TempDir, host_output};
use crate::mqtt::{Client, V5};

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
            let _ = write!(text, "\n## {heading}\n\n| name | unit | default | what | Reason Code or action |\n");
            text.push_str("| --- | --- | --- | --- | --- |\n");
        }
        let default = setting.show(&Limits::default());
        let default = if default.is_empty() { "none".to_owned() } else { format!("`{default}`") };
        let (name, kind, about, beyond) = (setting.name, setting.kind, setting.about.trim(), setting.beyond);
        let _ = writeln!(text, "| `{name}` | {kind} | {default} | {about} | {beyond} |");
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
            ":2: there is no `packet_bytes` in [limits]: did you mean `packet_bytes_max`?",
        ),
        ("[limits]\n\nidle_max = 10\n", ":3: idle_max is 10: expected a time from 0s to 365d"),
        ("[limits]\nkeep_alive_secs_min = 60\nkeep_alive_secs_max = 30\n", "keep_alive_secs_min is 60s, and has to be"),
    ];
    for (text, expected) in table {
        let file = dir.file("host.toml", text);
        let output = host_output(["--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}
