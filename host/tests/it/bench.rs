//! `host bench`: what it sends, what it counts, and what it says when something is wrong.

use std::net::SocketAddr;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Process, host_command, output_within};

/// Runs a benchmark for a moment against a broker, and returns what it says.
#[track_caller]
fn bench(addr: SocketAddr, args: &str) -> (Value, Output) {
    let mut command = host_command();
    command.arg("bench").args(args.split_whitespace()).args(["--json", "--port", &addr.port().to_string()]);
    let output = output_within(&mut command, Duration::from_secs(120));
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args}: {error}: `{text}`, {output:?}"));
    (report, output)
}

/// The same, where everything has to go well.
#[track_caller]
fn bench_ok(addr: SocketAddr, args: &str) -> Value {
    let (report, output) = bench(addr, args);
    assert_eq!((output.status.code(), &report["ok"]), (Some(0), &Value::Bool(true)), "{args}: {report:#}");
    report
}

#[test]
fn messages_of_each_shape_come_once_and_in_order() {
    let (host, addr) = Process::listening(["--workers", "2"]);
    let moment = format!("--secs 0.1 --warm-up 0.05 --pid {}", host.id());
    for mqtt in ["3.1.1", "5"] {
        for qos in 0..=2 {
            let table = [
                ("fan-out --publishers 2 --subscribers 7", 7),
                ("fan-in --publishers 5 --subscribers 1 --payload 300", 1),
                ("pairs --pairs 5 --threads 2 --window 3", 1),
            ];
            for (args, receivers) in table {
                let report = bench_ok(addr, &format!("{args} --mqtt {mqtt} --qos {qos} {moment}"));
                let check = |key: &str| report["check"][key].as_u64().unwrap();
                assert!(check("published") > 0, "{report:#}");
                assert_eq!(check("published") * receivers, check("expected"), "{report:#}");
                assert_eq!(check("expected"), check("delivered"), "{report:#}");
                for fault in ["lost", "duplicated", "out_of_order", "foreign", "refused", "unacknowledged"] {
                    assert_eq!(check(fault), 0, "{fault}: {report:#}");
                }
                assert!(report["broker"]["cores"].is_number() && report["broker"]["rss_bytes"].as_u64() > Some(0));
            }
        }
    }
    host.stop();
}
