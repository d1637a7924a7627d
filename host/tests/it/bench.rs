//! `host bench`: what it sends, what it counts, and what it says when something is wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::certificates::{Authority, tls_listener};
use crate::harness::{Process, TempDir, host_command, host_output, output_within, start};
use crate::mqtt::packet;

/// Runs a benchmark for a moment against a broker, and returns what it says.
#[track_caller]
fn bench(addr: impl Into<Option<SocketAddr>>, args: &str) -> (Value, Output) {
    let mut command = host_command();
    command.arg("bench").args(args.split_whitespace()).arg("--json");
    // Otherwise they say it themselves.
    if let Some(addr) = addr.into() {
        command.args(["--port", &addr.port().to_string()]);
    }
    let output = output_within(&mut command, Duration::from_secs(120));
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args}: {error}: `{text}`, {output:?}"));
    (report, output)
}

/// The same again and again until it has done enough: where the machine is busy, the time may be over before anything has
/// begun, or what was due at its end may not have been sent.
#[track_caller]
fn bench_until(addr: impl Into<Option<SocketAddr>>, args: &str, enough: impl Fn(&Value) -> bool) -> (Value, Output) {
    let addr = addr.into();
    for _ in 0..10 {
        let (report, output) = bench(addr, args);
        if enough(&report) {
            return (report, output);
        }
        println!("not enough: {report:#}");
    }
    panic!("{args}: never enough");
}

/// Once, where everything has to go well.
#[track_caller]
fn bench_ok(addr: impl Into<Option<SocketAddr>>, args: &str) -> Value {
    bench_ok_until(addr, args, |_| true)
}

/// Until it has done enough; everything has to go well each time.
#[track_caller]
fn bench_ok_until(addr: impl Into<Option<SocketAddr>>, args: &str, enough: impl Fn(&Value) -> bool) -> Value {
    let is_ok = |report: &Value| report["ok"] == true;
    let (report, output) = bench_until(addr, args, |report| !is_ok(report) || enough(report));
    assert_eq!((output.status.code(), &report["ok"]), (Some(0), &Value::Bool(true)), "{args}: {report:#}");
    for fault in ["lost", "duplicated", "out_of_order", "foreign", "unacknowledged", "connections_closed"] {
        assert_eq!(report["check"][fault], 0, "{fault}: {report:#}");
    }
    report
}

fn published(report: &Value) -> u64 {
    number(&report["check"]["published"])
}

fn steps_of(report: &Value) -> &[Value] {
    report["steps"].as_array().expect("a list of steps")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a number: {value}"))
}

#[test]
fn messages_of_each_shape_come_once_and_in_order() {
    let (host, addr) = Process::listening(["--workers", "2"]);
    let moment = format!("--secs 0.1 --warm-up 0.05 --pid {}", host.id());
    bench_ok(addr, &format!("pairs --pairs 5 --mqtt 3.1 --qos 2 {moment}"));
    for mqtt in ["3.1.1", "5", "5"] {
        // Who finds a session of the time before says so.
        bench_ok(addr, &format!("fan-in --publishers 3 --qos 1 --keep-sessions --name kept --mqtt {mqtt} {moment}"));
    }
    for mqtt in ["3.1.1", "5"] {
        for qos in 0..=2 {
            let table = [
                ("fan-out --publishers 2 --subscribers 7", 7),
                ("fan-in --publishers 5 --subscribers 1 --payload 300", 1),
                ("pairs --pairs 5 --threads 2 --window 3", 1),
                ("wildcard --filters 100 --subscribers 10 --publishers 3 --threads 2", 1),
                ("shared --members 3 --groups 2 --publishers 3 --threads 2", 2),
            ];
            for (args, receivers) in table {
                let args = format!("{args} --mqtt {mqtt} --qos {qos} {moment}");
                let report = bench_ok_until(addr, &args, |report| published(report) > 0);
                let check = |key: &str| number(&report["check"][key]);
                assert_eq!(check("published") * receivers, check("expected"), "{report:#}");
                assert_eq!(check("expected"), check("delivered"), "{report:#}");
                assert_eq!(check("refused"), 0, "{report:#}");
                let broker = &report["broker"];
                assert!(broker["cores"].is_number() && number(&broker["rss_bytes"]) > 0, "{report:#}");
            }
        }
    }
    host.stop();
}

#[test]
fn latency_is_taken_at_a_fixed_rate() {
    let (host, addr) = Process::listening(["--workers", "1"]);
    // 400 are due in that time, and as many more as the machine took to get to the end of it; unless the load has no core
    // then, so that the time is over before it has sent them.
    let args = "latency --rate 1000 --pairs 3 --secs 0.3 --warm-up 0.1 --spin --mqtt 5 --qos 1";
    let report = bench_ok_until(addr, args, |report| published(report) >= 400);
    let latency = |key: &str| report["latency_us"][key].as_f64().unwrap();
    assert!(0.0 < latency("min") && latency("min") <= latency("p50") && latency("p99") <= latency("max"));
    assert_eq!((&report["rate"], &report["window"]), (&Value::from(1000.0), &Value::Null));
    host.stop();
}

#[test]
fn each_step_does_what_it_counts() {
    let (host, addr) = Process::listening(["--workers", "2"]);
    let pid = host.id();
    /// A step, and how many operations it has; 0 for as many as there is time for.
    type Step = (&'static str, u64);
    let table: &[(&str, &[Step], u64)] = &[
        ("connect --secs 0.1 --at-once 3 --threads 2", &[("connect", 0)], 0),
        ("connect --secs 0.1 --spin", &[("connect", 0)], 0),
        ("idle --connections 70 --secs 0.05", &[("connect", 70), ("stay", 70)], 0),
        ("ping --connections 5 --window 3 --secs 0.1 --warm-up 0", &[("ping", 0)], 0),
        // A PINGREQ of each every two seconds: of a quarter of them in this time.
        ("idle --connections 40 --secs 0.5 --keep-alive 4 --spin", &[("connect", 40), ("stay", 40)], 10),
        ("subscribe --connections 3 --filters 50 --per-packet 7 --qos 1", &[("subscribe", 50)], 0),
        ("offline --sessions 5 --messages 30 --threads 2", &[("enqueue", 150), ("drain", 150)], 150),
        ("offline --sessions 5 --messages 30 --one-topic", &[("enqueue", 150), ("drain", 150)], 150),
        ("retained --messages 200 --subscribers 3 --qos 1 --threads 2", &[("store", 200), ("replay", 600)], 600),
    ];
    for mqtt in ["3.1.1", "5"] {
        // Twice: nothing is left behind that would be in the way of the next one.
        for (args, steps, delivered) in table.iter().chain(table) {
            let args = format!("{args} --mqtt {mqtt} --name same --pid {pid}");
            let has_begun = |step: &Value| number(&step["operations"]) > 0;
            let report = bench_ok_until(addr, &args, |report| steps_of(report).iter().all(has_begun));
            let found = steps_of(&report);
            assert_eq!(found.len(), steps.len(), "{report:#}");
            for (found, (step, operations)) in found.iter().zip(*steps) {
                assert_eq!(found["step"], *step, "{report:#}");
                let count = number(&found["operations"]);
                assert!(*operations == 0 || count == *operations, "{report:#}");
                assert!(found["broker"]["cpu_us_per_operation"].is_number(), "{report:#}");
            }
            if *delivered > 0 {
                assert_eq!(number(&report["check"]["delivered"]), *delivered, "{report:#}");
            }
        }
    }
    host.stop();
}

#[test]
fn loads_come_by_whatever_a_broker_listens_with() {
    let authority = Authority::new("authority");
    let issued = authority.server(&["localhost", "127.0.0.1"]);
    let dir = TempDir::new("bench-unix");
    let unix = format!("unix:{}", dir.path().join("mqtt.sock").display());
    let mut wss = tls_listener(&issued);
    wss.url = "wss://127.0.0.1:0/mqtt".parse().expect("a URL");
    let server = start(2, |builder| {
        builder.listen(unix).listener(tls_listener(&issued)).listen("ws://127.0.0.1:0/mqtt").listener(wss)
    });
    let urls: Vec<String> = server.local_urls().iter().map(ToString::to_string).collect();
    let ca = dir.file("ca.pem", &authority.pem());
    for (url, mqtt) in urls.iter().zip(["3.1.1", "3.1", "5", "3.1", "5"]) {
        let trust = if url.starts_with("tls") || url.starts_with("wss") {
            format!("--ca {}", ca.display())
        } else {
            String::new()
        };
        let messages = |report: &Value| published(report) > 0;
        let steps = |report: &Value| steps_of(report).iter().all(|step| number(&step["operations"]) > 0);
        let reach = format!("--url {url} {trust} --mqtt {mqtt}");
        let moment = format!("--secs 0.1 --warm-up 0.05 {reach}");
        for args in ["pairs --pairs 5 --qos 2 --threads 2", "fan-out --subscribers 7 --payload 40000 --window 2"] {
            let report = bench_ok_until(None, &format!("{args} {moment}"), messages);
            assert_eq!(report["transport"], url.split(':').next().unwrap());
        }
        bench_ok_until(None, &format!("ping --spin {moment}"), steps);
        bench_ok_until(None, &format!("connect --at-once 2 --secs 0.3 --spin {reach}"), steps);
        bench_ok_until(None, &format!("idle --connections 30 --secs 0.05 --keep-alive 4 {reach}"), steps);
        bench_ok_until(None, &format!("retained --messages 100 --subscribers 3 {reach}"), steps);
        bench_ok_until(None, &format!("offline --sessions 3 --messages 30 {reach}"), steps);
    }
    for more in ["--resume", "--tls 1.2", "--tls 1.2 --resume"] {
        let args = format!("connect --at-once 2 --secs 0.3 --url {} --insecure {more}", urls[2]);
        bench_ok_until(None, &args, |report| number(&steps_of(report)[0]["operations"]) > 0);
    }
    // A canary beside handshakes, of which each is one more answer.
    let args = format!("handshakes --handshakes 30 --rounds 2 --canary {} --url {} --insecure", urls[0], urls[2]);
    let report = bench_ok_until(None, &format!("{args} --rate 200 --secs 0.2 --warm-up 0.05"), |report| {
        steps_of(report).iter().all(|step| number(&step["operations"]) > 0)
    });
    let names: Vec<&Value> = steps_of(&report).iter().map(|step| &step["step"]).collect();
    assert_eq!(names, ["alone", "spinning", "shaking", "handshakes"]);
    assert_eq!(
        (number(&steps_of(&report)[3]["operations"]), report["p99_ratio"].is_number()),
        (60, true),
        "{report:#}"
    );
    // Whoever is not trusted is not spoken to.
    let args = format!("bench ping --url {} --ca {}", urls[2], issued.certificate.display());
    let output = host_output(args.split(' '));
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("invalid peer certificate"), "{text}");
    server.stop().expect("it stops");
}

#[test]
fn pairs_beside_a_storm_and_beside_very_many_get_everything() {
    let (host, addr) = Process::listening(["--workers", "2"]);
    let moment = format!("--rate 500 --pairs 3 --qos 1 --secs 0.3 --warm-up 0.1 --pid {}", host.id());
    for mqtt in ["3.1.1", "5"] {
        let table = [
            ("storm --connections 3 --filters 5", ["alone", "in storm", "storm"], 2 * 3 * 5),
            ("beside --subscribers 200 --fan-out-rate 50", ["alone", "beside", "fan-out"], 200),
        ];
        for (args, steps, at_once) in table {
            // Each of both runs has at least what was due meanwhile, 400 ms of 500 messages a second, unless the load has no
            // core at the end of that time.
            let is_beside = args.starts_with("beside");
            let enough = |report: &Value| {
                let done = |step: usize| number(&steps_of(report)[step]["operations"]);
                let of_others = if is_beside { done(2) } else { 0 };
                (0..3).all(|step| done(step) > 0) && number(&report["check"]["delivered"]) - of_others >= 2 * 200
            };
            let report = bench_ok_until(addr, &format!("{args} --mqtt {mqtt} {moment}"), enough);
            let found = steps_of(&report);
            assert_eq!(found.iter().map(|step| &step["step"]).collect::<Vec<_>>(), steps);
            assert!(found.iter().all(|step| step["latency_us"]["p99"].is_number()), "{report:#}");
            let others = number(&found[2]["operations"]);
            assert!(others.is_multiple_of(at_once), "all or none: {report:#}");
        }
    }
    host.stop();
}

/// What a peer does with the message of a number: the packets that it sends on.
type Forward = fn(u64, &[u8], &mut Vec<u8>) -> Vec<u8>;

/// A broker of a kind: it lets everybody in, and sends what is published, QoS 0, to whoever subscribed last.
fn peer(forward: Forward) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it has one");
    let subscriber: Arc<Mutex<Option<TcpStream>>> = Arc::default();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let subscriber = Arc::clone(&subscriber);
            std::thread::spawn(move || serve(stream, forward, &subscriber));
        }
    });
    addr
}

/// Serves a client until it leaves. Its packets have to be shorter than 128 bytes.
fn serve(mut stream: TcpStream, forward: Forward, subscriber: &Mutex<Option<TcpStream>>) {
    let (mut count, mut kept) = (0, Vec::new());
    let mut head = [0; 2];
    while stream.read_exact(&mut head).is_ok() {
        let mut body = vec![0; usize::from(head[1])];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let sent = match head[0] >> 4 {
            1 => stream.write_all(&[0x20, 2, 0, 0]),
            8 => {
                *subscriber.lock().unwrap() = stream.try_clone().ok();
                stream.write_all(&[0x90, 3, body[0], body[1], 0])
            }
            3 => {
                let bytes = forward(count, &packet(head[0], &body), &mut kept);
                count += 1;
                subscriber.lock().unwrap().as_mut().map_or(Ok(()), |subscriber| subscriber.write_all(&bytes))
            }
            _ => return,
        };
        if sent.is_err() {
            return;
        }
    }
}

#[test]
fn what_a_broker_loses_repeats_or_turns_round_is_found() {
    let loses: Forward = |number, packet, _| if number == 5 { Vec::new() } else { packet.to_vec() };
    let repeats: Forward = |number, packet, _| packet.repeat(if number == 5 { 2 } else { 1 });
    let turns_round: Forward = |number, packet, kept| match number {
        5 => {
            kept.extend_from_slice(packet);
            Vec::new()
        }
        6 => [packet, kept].concat(),
        _ => packet.to_vec(),
    };
    for (forward, fault, says) in [
        (loses, "lost", "1 deliveries are missing"),
        (repeats, "duplicated", "1 came twice"),
        (turns_round, "out_of_order", "1 came after a later one"),
    ] {
        let addr = peer(forward);
        let args = "pairs --pairs 1 --secs 0.2 --warm-up 0 --window 20 --patience";
        // What was lost is waited for in vain, and only that.
        let args = format!("{args} {}", if fault == "lost" { "3s" } else { "20s" });
        let (report, output) = bench_until(addr, &args, |report| published(report) > 6);
        assert_eq!((output.status.code(), &report["ok"]), (Some(1), &Value::Bool(false)), "{report:#}");
        for key in ["lost", "duplicated", "out_of_order", "foreign"] {
            assert_eq!(number(&report["check"][key]), u64::from(key == fault), "{fault}, {key}: {report:#}");
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(report["notes"].to_string().contains(says) && stderr.contains(says), "{report:#} {stderr}");
    }
}

#[test]
fn load_goes_on_when_a_broker_loses_everything() {
    let addr = peer(|_, _, _| Vec::new());
    // The load waits for a second before it goes on, and begins late where the machine is busy.
    let has_gone_on = |report: &Value| number(&report["check"]["stalls"]) > 0 && published(report) > 20;
    let args = "pairs --pairs 1 --secs 1.5 --warm-up 0 --window 20 --patience 3s";
    let (report, output) = bench_until(addr, args, has_gone_on);
    assert_eq!(output.status.code(), Some(1));
    let check = |key: &str| number(&report["check"][key]);
    assert_eq!((check("lost"), check("delivered")), (check("published"), 0), "{report:#}");
}

#[test]
fn connection_that_a_broker_ends_is_told_with_the_reason() {
    let ends: Forward = |number, packet, _| match number {
        5 => [packet, &[0xe0, 1, 0x8b]].concat(),
        _ => packet.to_vec(),
    };
    let args = "pairs --pairs 1 --secs 0.2 --warm-up 0 --window 20 --patience 3s";
    let (report, output) = bench_until(peer(ends), args, |report| published(report) > 5);
    assert_eq!((output.status.code(), &report["check"]["connections_closed"]), (Some(1), &Value::from(1)));
    assert_eq!(number(&report["check"]["delivered"]), 6, "what came before it has come: {report:#}");
    assert!(report["notes"].to_string().contains("DISCONNECT with 0x8b"), "{report:#}");
}

#[test]
fn load_that_cannot_keep_up_says_that_it_is_the_bottleneck() {
    // It is enough to read what comes; the broker's process is another one, which has nothing to do.
    let addr = peer_that_only_reads();
    let (host, _) = Process::listening(["--workers", "1"]);
    // How much of the time the load has something to do depends on who else uses this machine.
    for attempt in 1.. {
        let pid = host.id();
        let load = "fan-out --publishers 2 --subscribers 1 --rate 1e9 --secs 0.5 --warm-up 0.1 --patience 3s";
        let (report, output) = bench(addr, &format!("{load} --pid {pid}"));
        assert_eq!(output.status.code(), Some(1), "nothing comes back: {report:#}");
        let is_bottleneck = report["load"]["is_bottleneck"].as_bool().expect("yes or no");
        let says = report["notes"].to_string().contains("I am the bottleneck");
        assert_eq!(is_bottleneck, says, "{report:#}");
        if says {
            break;
        }
        assert!(attempt < 10, "never the bottleneck: {report:#}");
    }
    host.stop();
}

/// Answers what stands at the beginning, and reads whatever follows.
fn peer_that_only_reads() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it has one");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut bytes = vec![0; 1 << 20];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    // CONNECT and SUBSCRIBE come alone, as each is waited for.
                    let answered = match bytes[0] >> 4 {
                        1 => stream.write_all(&[0x20, 2, 0, 0]),
                        8 if count < 128 => stream.write_all(&[0x90, 3, bytes[2], bytes[3], 0]),
                        _ => Ok(()),
                    };
                    if answered.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

#[test]
fn mistakes_are_explained_and_nothing_is_measured() {
    // Its port stays taken, so that no other test listens there, and nobody accepts.
    let bound = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&bound, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let nobody = SocketAddr::try_from(rustix::net::getsockname(&bound).unwrap()).unwrap().port().to_string();
    let table: &[(&[&str], &str)] = &[
        (&["fan-out", "--port", &nobody], "nobody listens there"),
        (&["fan-out", "--url", "http://localhost"], "http is not spoken"),
        (&["fan-out", "--url", "tls://localhost"], "who is trusted?"),
        (&["fan-out", "--broker", "wss://localhost", "--ca", "/no/such/file"], "/no/such/file"),
        (&["fan-out", "--url", "ws://localhost", "--insecure"], "--insecure is about TLS"),
        (&["fan-out", "--url", "tls://localhost", "--insecure", "--certificate", "x"], "--private-key"),
        (&["handshakes", "--canary", "mqtt://127.0.0.1"], "give --url tls://"),
        (
            &["handshakes", "--canary", "ws://127.0.0.1", "--url", "tls://127.0.0.1"],
            "expected mqtt://HOST:PORT or unix:PATH",
        ),
        (&["fan-out", "--url", "unix:/no/such/socket"], "there is no such socket"),
        (&["fan-out", "--url", "unix:/no/such/socket", "--source", "127.0.0.1"], "cannot go to unix:/no/such/socket"),
        (&["fan-out", "--payload", "15"], "expected a number of bytes from 16"),
        (&["fan-out", "--qos", "3"], "3 is not in 0..=2"),
        (&["fan-out", "--mqtt", "3.2"], "expected 3.1, 3.1.1 or 5"),
        (&["fan-out", "--rate", "5", "--window", "5"], "cannot be used with"),
        (&["wildcard", "--filters", "15", "--subscribers", "10"], "take a multiple"),
        (&["pairs", "--pid", "4194305"], "Is it the number of a process that runs?"),
        (&["offline", "--sessions", "1000000", "--messages", "1000000"], "are more than"),
        (&["no-such"], "unrecognized subcommand"),
    ];
    for (args, expected) in table {
        let output = host_output([&["bench"], *args].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{args:?}: {text}");
        assert!(text.contains(expected), "{args:?}: {text}");
    }
}
