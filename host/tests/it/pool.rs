//! Plugins that block: who says so holds up nobody else, who does not is moved out of the way. A canary pair exchanges
//! messages on the same worker; that it can, while a callback waits for a gate that only the test opens, is the proof.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use host::SwapRequest;

use crate::harness::{Process, TempDir, eventually, library, start};
use crate::mqtt::{Client, Connect, Publish, V5, field, packet, properties};

/// A server with one worker, and the gate at which a callback of its plugin waits.
struct Gated {
    process: Process,
    addr: SocketAddr,
    dir: TempDir,
}

impl Gated {
    fn new(plugin: &str, callback: &str, options: &[&str]) -> Self {
        let dir = TempDir::new(&format!("pool-{plugin}-{callback}"));
        let library = library(plugin);
        let config = format!("{{\"callback\": {callback:?}, \"gate\": {:?}}}", dir.path().join("gate"));
        let args = ["--workers", "1", "--plugin", library.to_str().unwrap(), "--plugin-config", &config];
        // Nothing of this is about deadlines: a busy machine may take its time.
        let patient = ["--connect-answer-max", "60s", "--publish-answer-max", "60s"];
        let patient = patient.iter().chain(&["--subscribe-answer-max", "60s", "--info-answer-max", "60s"]);
        let (process, addr) = Process::listening(args.iter().chain(patient).chain(options));
        Self { process, addr, dir }
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.dir.path().join("gate").with_extension(extension)
    }

    fn count(&self, extension: &str) -> usize {
        fs::read_to_string(self.path(extension)).map_or(0, |text| text.lines().count())
    }

    /// Waits until the callback has been called that often.
    #[track_caller]
    fn wait_entered(&self, times: usize) {
        eventually("the callback is called", || self.count("entered") >= times);
    }

    #[track_caller]
    fn wait_left(&self, times: usize) {
        eventually("the callback returns", || self.count("left") >= times);
    }

    fn open(&self) {
        fs::write(self.path(""), "").unwrap();
    }

    fn close(&self) {
        fs::remove_file(self.path("")).unwrap();
    }
}

/// Two clients that send messages from one to the other.
struct Canary {
    from: Client,
    to: Client,
}

impl Canary {
    fn new(addr: SocketAddr) -> Self {
        let mut to = Client::connect(addr, V5, "canary-to");
        to.subscribe("canary", 1);
        Self { from: Client::connect(addr, V5, "canary-from"), to }
    }

    /// How long each message took, from the shortest.
    #[track_caller]
    fn sing(&mut self, times: usize) -> Vec<Duration> {
        let mut took: Vec<Duration> = (0..times)
            .map(|number| {
                let begin = Instant::now();
                self.from.send(Publish::new("canary", number.to_string()).bytes(V5));
                assert_eq!(self.to.receive().text(), number.to_string());
                begin.elapsed()
            })
            .collect();
        took.sort();
        took
    }
}

/// Brings a client into a callback, and does not wait for what comes of it.
fn provoke(callback: &str, gated: &Gated) -> Client {
    let addr = gated.addr;
    let connect = Connect::new(V5, "victim");
    let connect = match callback {
        "handle_auth" => Connect { properties: [vec![0x15], field("m")].concat(), ..connect },
        "handle_session_expired" => Connect { properties: vec![0x11, 0, 0, 0, 1], ..connect },
        _ => connect,
    };
    if matches!(callback, "new_connection" | "handle_connect" | "handle_auth") {
        fs::write(gated.path("armed"), "").unwrap();
        let mut victim = Client::open(addr, V5);
        victim.send(connect.bytes());
        return victim;
    }
    let mut victim = Client::connect_with(addr, &connect).0;
    match callback {
        "handle_publish" => victim.send(Publish::new("t", "x").qos(1, 1).bytes(V5)),
        "handle_subscribe" => {
            victim.send(packet(0x82, &[vec![0, 1], properties(V5, &[]), field("t"), vec![0]].concat()));
        }
        "handle_unsubscribe" => victim.send(packet(0xa2, &[vec![0, 1], properties(V5, &[]), field("t")].concat())),
        "handle_puback" | "handle_message_acknowledged" => {
            victim.subscribe("mine", 1);
            victim.publish("mine", "x", 1);
            victim.receive();
        }
        "handle_info" => _ = victim.publish("info", "x", 1),
        "handle_retained" => victim.send(Publish::new("victim", "x").retained().bytes(V5)),
        "handle_connected" => {}
        "handle_disconnect" | "drop_connection" | "handle_session_expired" => victim.send([0xe0, 0]),
        _ => panic!("{callback}"),
    }
    victim
}

/// What the client gets when the callback has returned.
#[track_caller]
fn finish(callback: &str, mut victim: Client) {
    match callback {
        "new_connection" | "handle_connect" | "handle_auth" => assert_eq!(victim.connack().code, 0),
        "handle_publish" => assert!(victim.expect_ack(4, 1) < 0x80),
        "handle_subscribe" => _ = victim.expect_type(9),
        "handle_unsubscribe" => _ = victim.expect_type(11),
        "handle_disconnect" | "drop_connection" | "handle_session_expired" => return victim.expect_closed(),
        _ => {}
    }
    victim.ping();
}

const CALLBACKS: [&str; 14] = [
    "new_connection",
    "handle_connect",
    "handle_auth",
    "handle_publish",
    "handle_subscribe",
    "handle_unsubscribe",
    "handle_puback",
    "handle_info",
    "handle_connected",
    "handle_disconnect",
    "drop_connection",
    "handle_session_expired",
    "handle_message_acknowledged",
    "handle_retained",
];

/// Whether a line of the log says that this callback holds up its worker.
fn is_overstay(line: &str, callback: &str) -> bool {
    line.contains("holds up") && line.contains(callback)
}

#[test]
fn plugin_that_says_that_it_blocks_holds_up_nobody_else() {
    for callback in CALLBACKS {
        let gated = Gated::new("sleeper_blocking", callback, &["--callback-budget", "20ms"]);
        let mut canary = Canary::new(gated.addr);
        let victim = provoke(callback, &gated);
        gated.wait_entered(1);
        let took = canary.sing(20);
        assert_eq!(gated.count("left"), 0);
        println!("{callback}: the canary's messages took {:?} to {:?}", took[0], took[took.len() - 1]);
        gated.open();
        gated.wait_left(1);
        finish(callback, victim);
        // Of this callback: another one, which is soon done, may be interrupted for longer than its budget.
        let lines = gated.process.log();
        assert!(!lines.iter().any(|line| is_overstay(line, callback)), "{callback}: {lines:#?}");
        gated.process.stop();
    }
}

#[test]
fn callback_that_does_not_say_so_holds_up_its_worker_until_it_is_moved() {
    for callback in ["handle_connect", "handle_publish", "handle_subscribe", "handle_puback", "handle_disconnect"] {
        let gated = Gated::new("sleeper", callback, &["--callback-budget", "20ms"]);
        let mut canary = Canary::new(gated.addr);
        // The first time, everybody waits.
        let victim = provoke(callback, &gated);
        gated.wait_entered(1);
        let parts = ["holds up all clients of its worker", callback, "\"sleeper\"", "From now on it runs on the pool"];
        gated.process.wait_log_of(&parts);
        gated.open();
        gated.wait_left(1);
        finish(callback, victim);
        canary.sing(5);
        gated.close();
        // The second time, nobody does.
        let victim = provoke(callback, &gated);
        gated.wait_entered(2);
        canary.sing(20);
        assert_eq!(gated.count("left"), 1);
        gated.open();
        gated.wait_left(2);
        finish(callback, victim);
        let lines = gated.process.log();
        assert_eq!(lines.iter().filter(|line| is_overstay(line, callback)).count(), 1, "{callback}: {lines:#?}");
        gated.process.stop();
    }
}

#[test]
fn overstays_are_only_logged_where_the_operator_wants_that() {
    let options = ["--callback-budget", "20ms", "--callback-overstay", "log"];
    let gated = Gated::new("sleeper", "handle_publish", &options);
    for times in 1..=2 {
        let victim = provoke("handle_publish", &gated);
        gated.wait_entered(times);
        // One line for each call, as the worker is held up each time.
        eventually("it is logged", || {
            gated.process.log().iter().filter(|line| is_overstay(line, "handle_publish")).count() == times
        });
        gated.open();
        finish("handle_publish", victim);
        gated.close();
    }
    assert!(!gated.process.log().iter().any(|line| line.contains("the pool")));
    gated.process.stop();
}

#[test]
fn canary_sings_while_callbacks_sleep() {
    const SLEEP: Duration = Duration::from_secs(1);
    let library = library("sleeper_blocking");
    let config = format!("{{\"callback\": \"handle_publish\", \"sleep_ms\": {}}}", SLEEP.as_millis());
    let args = ["--workers", "1", "--plugin", library.to_str().unwrap(), "--plugin-config", &config];
    let (process, addr) = Process::listening(args);
    let mut canary = Canary::new(addr);
    let mut victims: Vec<Client> = (0..8).map(|number| Client::connect(addr, V5, format!("victim-{number}"))).collect();
    for victim in &mut victims {
        for id in 1..=2 {
            victim.send(Publish::new("t", "x").qos(1, id).bytes(V5));
        }
    }
    let took = canary.sing(100);
    println!("the canary's messages took {:?}, {:?}, {:?} (least, median, most)", took[0], took[50], took[99]);
    // Each of 16 messages sleeps: on the worker, every message of the canary would wait for one at least.
    assert!(took[50] < SLEEP / 2, "{took:?}");
    for victim in &mut victims {
        for id in 1..=2 {
            assert!(victim.expect_ack(4, id) < 0x80);
        }
    }
    process.stop();
}

#[test]
fn blocked_call_that_never_returns_is_refused_logged_and_does_not_keep_the_host_from_ending() {
    let dir = TempDir::new("pool-never");
    let library = library("sleeper_blocking");
    let config = format!("{{\"callback\": \"handle_publish\", \"gate\": {:?}}}", dir.path().join("gate"));
    let args = ["--workers", "1", "--plugin", library.to_str().unwrap(), "--plugin-config", &config];
    // It is no worker that hangs, so that there is nothing to abort for. The canary's messages have this deadline, too.
    let options = ["--publish-answer-max", "2s", "--callback-stuck-after", "2s", "--callback-stuck", "abort"];
    let (mut process, addr) = Process::listening(args.iter().chain(&options));
    let mut canary = Canary::new(addr);
    let mut victim = Client::connect(addr, V5, "victim");
    victim.send(Publish::new("t", "x").qos(1, 1).bytes(V5));
    assert!(victim.expect_ack(4, 1) >= 0x80);
    process.wait_log_of(&["does not return", "ERROR", "\"sleeper\"", "handle_publish", "\"victim\""]);
    canary.sing(5);
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.wait().code(), Some(1));
}

#[test]
fn plugin_that_has_too_much_to_do_refuses() {
    let options = ["--pool-threads-a-plugin-max", "1", "--pool-jobs-max", "4"];
    let gated = Gated::new("sleeper_blocking", "handle_publish", &options);
    let mut victims: Vec<Client> =
        (0..8).map(|number| Client::connect(gated.addr, V5, format!("victim-{number}"))).collect();
    let mut orderly = Client::connect(gated.addr, V5, "orderly");
    victims[0].send(Publish::new("t", "x").qos(1, 1).bytes(V5));
    gated.wait_entered(1);
    // One runs, four wait.
    for victim in &mut victims[1..] {
        victim.send(Publish::new("t", "x").qos(1, 1).bytes(V5));
        // The worker has read it when this is answered: so they come in this order.
        orderly.ping();
    }
    let refused = victims[5..].iter_mut().map(|victim| victim.expect_ack(4, 1)).collect::<Vec<_>>();
    assert_eq!(refused, [0x83; 3]);
    gated.process.wait_log("so much to do");
    gated.open();
    for victim in &mut victims[..5] {
        assert!(victim.expect_ack(4, 1) < 0x80);
    }
    gated.process.stop();
}

/// Passwords that nobody waits for any more are not looked at, and who hangs up has failed all the same.
#[test]
fn who_hangs_up_before_it_is_asked_about_has_failed_and_is_not_asked_about() {
    let bounds = ["--failures-per-address-max", "3", "--failures-count-loopback", "true", "--failures-ban", "1ms"];
    let options = ["--pool-threads-a-plugin-max", "1"];
    let options: Vec<_> = options.into_iter().chain(bounds).collect();
    let gated = Gated::new("sleeper_blocking", "handle_connect", &options);
    let mut first = provoke("handle_connect", &gated);
    gated.wait_entered(1);
    for number in 0..3 {
        let mut victim = Client::open(gated.addr, V5);
        victim.send(Connect::new(V5, format!("victim-{number}")).bytes());
    }
    gated.process.wait_log_of(&["turned away", "127.0.0.1"]);
    gated.open();
    assert_eq!(first.connack().code, 0);
    // Behind them on the one thread that there is.
    Client::connect(gated.addr, V5, "orderly");
    assert_eq!(gated.count("entered"), 1);
    gated.process.stop();
}

#[test]
fn panic_on_the_pool_ends_that_connection_and_nothing_else() {
    let (process, addr) = {
        let library = library("sleeper_blocking");
        let args = ["--workers", "1", "--plugin", library.to_str().unwrap(), "--plugin-config"];
        Process::listening(args.iter().chain(&["{\"callback\": \"handle_publish\", \"panic\": 1}"]))
    };
    let mut canary = Canary::new(addr);
    let mut victim = Client::connect(addr, V5, "victim");
    victim.send(Publish::new("t", "x").qos(1, 1).bytes(V5));
    victim.expect_disconnect(0x83);
    let line = process.wait_log("a plugin panicked");
    for part in ["ERROR", "\"sleeper\"", "handle_publish", "\"victim\"", "sleeper.rs"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    canary.sing(5);
    process.stop();
}

#[test]
fn plugins_that_block_are_swapped_for_ones_that_do_not_and_back() {
    let server = start(2, |builder| builder.plugin(library("sleeper_blocking"), "{}"));
    let connect = |number| Client::connect(server.local_addr(), V5, format!("client-{number}"));
    let mut clients: Vec<Client> = (0..8).map(connect).collect();
    for name in ["sleeper", "sleeper_blocking", "sleeper_blocking"] {
        let request = SwapRequest { probation: Duration::ZERO, ..SwapRequest::new(library(name)) };
        server.swap(&request).expect("it fits");
        for client in &mut clients {
            assert_eq!(client.publish("t", "x", 1), 0x10, "{name}");
        }
        eventually("the old one is dropped", || server.status().plugins[0].instances.len() == 1);
    }
    assert_eq!(server.status().plugins[0].instances[0].connections, clients.len());
    server.stop().expect("the server stops");
}
