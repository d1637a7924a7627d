//! What is recorded while another process takes over, and what plugins are configured with changes.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::Host;
use crate::harness::{TempDir, eventually, host_output, package_library};
use crate::mqtt::{Client, V5};

const BEFORE: &str = r#"{"rules":[{"from":"a","to":"b","on":["publish"]}]}"#;
const AFTER: &str = r#"{"rules":[{"from":"a","to":"another","on":["publish"]}]}"#;

#[test]
fn recording_goes_on_in_the_next_process_and_is_replayed_with_each_configuration() {
    let (dir, plugin) = (TempDir::new("upgrade-calls"), package_library("rewrite"));
    let (file, plugin) = (dir.path().join("calls.jsonl"), plugin.to_str().unwrap());
    let record = ["--record", file.to_str().unwrap(), "--record-secrets"];
    let host =
        Host::start("upgrade-recorded", &[&record[..], &["--plugin", plugin, "--plugin-config", BEFORE]].concat());
    let mut client = Client::connect(host.addr, V5, "c");
    let mut publish = |payload| assert_eq!(client.publish("a", payload, 1), 0x10);
    publish("1");
    assert_eq!(host.answer(&["configure", "rewrite", AFTER])["ok"], true);
    publish("2");
    host.upgrade();
    publish("3");
    assert_eq!(host.answer(&["swap", "--plugin", plugin])["ok"], true);
    publish("4");
    kill_process(Pid::from_raw(host.pid()).unwrap(), Signal::TERM).unwrap();
    let mut text = String::new();
    eventually("all is written", || {
        text = std::fs::read_to_string(&file).unwrap();
        text.lines().last().is_some_and(|line| line.contains("\"call\":\"end\""))
    });
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |key: &str, value: Option<&str>| {
        let of_it = lines.iter().filter(move |line| value.map_or(line.get(key).is_some(), |value| line[key] == value));
        of_it.cloned().collect::<Vec<_>>()
    };
    let begun: Vec<_> = of("recording", None).iter().map(|line| line["continues"] == true).collect();
    assert_eq!(begun, [false, true], "{text}");
    let configs: Vec<_> = of("loaded", None).iter().map(|line| line["config"] == BEFORE).collect();
    assert_eq!(configs, [true; 3], "{text}");
    let published = of("call", Some("handle_publish"));
    let topics: Vec<_> = published.iter().map(|line| line["answer"]["change"]["topic"].as_str().unwrap()).collect();
    assert_eq!(topics, ["b", "another", "b", "b"], "{text}");
    assert_eq!(of("call", Some("handle_config"))[0]["input"]["config"], AFTER);

    let replay = |path: &std::path::Path, configs: &[&str]| {
        let configs: Vec<&str> = configs.iter().flat_map(|config| ["--plugin-config", config]).collect();
        let args = ["replay", "--json", path.to_str().unwrap(), "--plugin", plugin];
        let output = host_output([&args[..], &configs].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let counts = ["different", "left_out"].map(|key| report[key].as_u64().unwrap());
        assert_eq!(output.status.code(), Some((counts[0] > 0).into()), "{report:#}");
        assert_eq!(report["lost"], json!(0), "{report:#}");
        (counts, report)
    };
    let (counts, report) = replay(&file, &[]);
    assert_eq!(counts, [0, 0], "{report:#}");
    assert!(report["same"].as_u64() >= Some(5), "{report:#}");
    // A candidate that was given one keeps it: when the operator has changed it, and when the next process began without that.
    let (counts, report) = replay(&file, &[BEFORE]);
    assert_eq!(counts, [1, 2], "{report:#}");
    assert!(report["notes"].to_string().contains("kept the one that it had"), "{report:#}");

    let mut redacted = text.clone();
    for config in [BEFORE, AFTER] {
        let left_out = json!({"redacted": config.len()}).to_string();
        redacted = redacted.replace(&serde_json::to_string(config).unwrap(), &left_out);
    }
    let redacted = dir.file("redacted.jsonl", &redacted);
    let (counts, report) = replay(&redacted, &[BEFORE, AFTER, BEFORE]);
    assert_eq!(counts, [0, 0], "{report:#}");
    let unknown = host_output(["replay", redacted.to_str().unwrap(), "--plugin", plugin]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("give it one with --plugin-config"), "{unknown:?}");
}
