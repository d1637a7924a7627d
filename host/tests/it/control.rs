//! The control socket and its commands, with the real program on both sides.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, Process, TempDir, eventually, have, host_command, host_output, library, output};
use crate::mqtt::{Client, Publish, V5};

/// A host with a control socket of its own.
struct Host {
    process: Process,
    addr: SocketAddr,
    dir: TempDir,
}

impl Host {
    #[track_caller]
    fn start(name: &str, args: &[&str]) -> Self {
        let dir = TempDir::new(name);
        let control = dir.path().join("s");
        let (process, addr) = Process::listening([&["--control", control.to_str().unwrap()], args].concat());
        Self { process, addr, dir }
    }

    fn control(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// Runs a command for this host.
    #[track_caller]
    fn command(&self, args: &[&str]) -> Output {
        command(&self.control(), args)
    }

    /// Runs a command that is carried out, and gives its result.
    #[track_caller]
    fn result(&self, args: &[&str]) -> Value {
        let output = self.command(&[args, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(answer["ok"], true, "{answer}");
        answer["result"].clone()
    }

    /// Runs a command that is refused, and gives the step and the reason, which stands on stderr as well. The output is
    /// not a terminal: the object is there with --json and without.
    #[track_caller]
    fn refusal(&self, args: &[&str]) -> (String, String) {
        let output = self.command(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stderr(&output));
        let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(answer["ok"], false, "{answer}");
        let text = |key: &str| answer["error"][key].as_str().unwrap().to_owned();
        assert!(stderr(&output).contains(&text("reason")), "{}", stderr(&output));
        (text("step"), text("reason"))
    }

    /// The instances of the only plugin: role, generation and connections.
    #[track_caller]
    fn instances(&self) -> Vec<(String, u64, u64)> {
        let plugins = self.result(&["plugins"]);
        let number = |instance: &Value, key: &str| instance[key].as_u64().unwrap();
        let instances = plugins["plugins"][0]["instances"].as_array().unwrap().iter();
        instances
            .map(|one| {
                (one["role"].as_str().unwrap().to_owned(), number(one, "generation"), number(one, "connections"))
            })
            .collect()
    }

    /// A client that gets the answers to what it asks.
    #[track_caller]
    fn asking(&self, client_id: &str) -> Client {
        let mut client = Client::connect(self.addr, V5, client_id);
        client.subscribe("answer", 1);
        client
    }
}

/// The answer of the plugin that decides about this connection; of the others, which it hears as well, no one asks.
#[track_caller]
fn ask(client: &mut Client) -> String {
    assert_eq!(client.publish("ask", "", 1), 0);
    client.receive().text().to_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[track_caller]
fn command(control: &Path, args: &[&str]) -> Output {
    host_output([args, &["--control", control.to_str().unwrap()]].concat())
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn assert_failed(output: &Output, code: i32, parts: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` in {text}");
    }
}

#[test]
fn socket_is_private_and_goes_with_the_host() {
    let host = Host::start("control-private", &[]);
    assert_eq!(std::fs::metadata(host.control()).unwrap().mode() & 0o777, 0o600);
    let path = host.control();
    let Host { process, dir, .. } = host;
    process.stop();
    assert!(!path.exists());
    assert_failed(
        &command(&path, &["plugins"]),
        2,
        &["no host can be reached", "there is no such socket", "--control PATH"],
    );
    drop(dir);
}

#[test]
fn socket_of_a_host_that_was_killed_is_taken_over() {
    let dir = TempDir::new("control-killed");
    let path = dir.path().join("s");
    let args = ["--control", path.to_str().unwrap()];
    let (mut first, _) = Process::listening(args);
    let taken = host_output([&args[..], &["--listen", "127.0.0.1:0"]].concat());
    assert_failed(&taken, 2, &["another host has the control socket", path.to_str().unwrap(), "--control PATH"]);
    assert!(!stderr(&taken).contains("listening on"));
    first.signal(Signal::KILL);
    first.wait();
    assert!(path.exists());
    assert_failed(&command(&path, &["plugins"]), 2, &["nobody listens there any more"]);
    let (second, _) = Process::listening(args);
    assert_eq!(command(&path, &["plugins"]).status.code(), Some(0));
    second.stop();
}

#[test]
fn two_hosts_of_one_user_start_without_arguments_and_the_first_has_the_socket() {
    let runtime = TempDir::new("control-two");
    std::fs::set_permissions(runtime.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let start = || {
        let mut command = host_command();
        let mut process =
            Process::spawn(command.env("XDG_RUNTIME_DIR", runtime.path()).args(["--listen", "127.0.0.1:0"]));
        process.wait_listening();
        process
    };
    let first = start();
    let second = start();
    second.wait_log("this host has no control socket: another host has the control socket");
    let plugins = || output(host_command().env("XDG_RUNTIME_DIR", runtime.path()).args(["plugins", "--json"]));
    assert_eq!(plugins().status.code(), Some(0));
    // The end of the second does not take the first one's socket away.
    second.stop();
    assert_eq!(plugins().status.code(), Some(0));
    first.stop();
    assert_eq!(std::fs::read_dir(runtime.path()).unwrap().count(), 0);
}

#[test]
fn host_without_control_socket_has_none() {
    let runtime = TempDir::new("control-none");
    std::fs::set_permissions(runtime.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let mut command = host_command();
    command.env("XDG_RUNTIME_DIR", runtime.path()).args(["--listen", "127.0.0.1:0", "--control", "none"]);
    let mut process = Process::spawn(&mut command);
    process.wait_listening();
    assert_eq!(std::fs::read_dir(runtime.path()).unwrap().count(), 0);
    process.stop();
    assert_failed(&host_output(["plugins", "--control", "none"]), 2, &["takes no commands"]);
}

#[test]
fn places_that_cannot_be_had_are_explained_and_nothing_is_started() {
    let dir = TempDir::new("control-bad");
    let file = dir.file("precious", "content");
    let long = format!("/tmp/{}", "x".repeat(120));
    let table = [
        (file.to_str().unwrap(), "there is something else, which is left alone"),
        ("/no/such/directory/s", "No such file or directory"),
        (&long, "has 125 bytes, and a socket's may have at most 107"),
        ("", "expected a path, or none"),
    ];
    for (path, expected) in table {
        let output = host_output(["--listen", "127.0.0.1:0", "--control", path]);
        assert_failed(&output, 2, &[expected]);
        assert!(!stderr(&output).contains("listening on"), "{path}");
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), "content");
}

#[test]
fn host_that_hangs_is_not_waited_for() {
    let host = Host::start("control-hangs", &[]);
    host.process.signal(Signal::STOP);
    let output = host.command(&["plugins", "--timeout", "200ms", "--json"]);
    assert_failed(&output, 2, &["has not said who it is"]);
    let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&answer["ok"], &answer["error"]["step"]), (&false.into(), &"reach".into()), "{answer}");
    host.process.signal(Signal::CONT);
    assert_eq!(host.command(&["plugins"]).status.code(), Some(0));
    // Somebody else than a host.
    let path = host.dir.path().join("other");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"220 smtp\r\n").unwrap());
    assert_failed(&command(&path, &["plugins"]), 2, &["does not say that it is a host, but: \"220 smtp"]);
    thread.join().unwrap();
    host.process.stop();
}

#[test]
fn clients_of_the_socket_do_not_disturb_the_broker() {
    let host = Host::start("control-flood", &["--workers", "1"]);
    let mut mqtt = Client::connect(host.addr, V5, "c");
    let connect = || UnixStream::connect(host.control()).unwrap();
    // As many as there may be, and more, that say nothing, half a request, or rubbish.
    let mut idle: Vec<_> = (0..20).map(|_| connect()).collect();
    for (number, stream) in idle.iter_mut().enumerate() {
        let text: &[u8] = [&b"{\"control\":1,"[..], b"\xff\xfe\x00\n\n\n", b""][number % 3];
        let _ = stream.write_all(text);
    }
    let mut huge = connect();
    let _ = huge.write_all(&vec![b'x'; 2 << 20]);
    mqtt.ping();
    assert_failed(&host.command(&["plugins"]), 1, &["16 clients are being served", "try again"]);
    drop((idle, huge));
    eventually("there is room again", || host.command(&["plugins"]).status.code() == Some(0));
    let mut stream = BufReader::new(connect());
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        line
    };
    assert!(line().contains("\"control\":1"));
    mqtt.ping();
    host.process.stop();
}

#[test]
fn swap_changes_the_answers_and_drops_nobody() {
    for workers in ["1", "3"] {
        let host = Host::start("control-swap", &["--workers", workers, "--plugin", path(&library("v1"))]);
        let mut clients: Vec<_> =
            (0..8).map(|number| Client::connect(host.addr, V5, format!("idle{number}"))).collect();
        let mut client = host.asking("c");
        assert_eq!(ask(&mut client), "v1");
        let v2 = library("v2");
        let result = host.result(&["swap", "--plugin", path(&v2)]);
        assert_eq!(
            [&result["plugin"], &result["generation"], &result["share_per_mille"], &result["path"]],
            [&json!("versioned"), &json!(2), &json!(1000), &json!(v2)],
            "{result}"
        );
        assert_eq!(ask(&mut client), "v2");
        assert_eq!(host.instances(), [("active".to_owned(), 2, 9), ("previous".to_owned(), 1, 0)]);
        let back = host.command(&["swap", "--rollback"]);
        assert_eq!(back.status.code(), Some(0), "{}", stderr(&back));
        assert!(stdout(&back).starts_with("plugin versioned: "), "{}", stdout(&back));
        assert_eq!(ask(&mut client), "v1");
        clients.iter_mut().for_each(Client::ping);
        // Without probation, there is nothing to go back to.
        host.result(&["swap", "--plugin", path(&v2), "--probation", "0s"]);
        assert_eq!(ask(&mut client), "v2");
        let (step, reason) = host.refusal(&["swap", "--rollback"]);
        assert_eq!((step.as_str(), reason.as_str()), ("flip", "no plugin has a canary or is on probation"));
        eventually("the old one is gone", || host.instances() == [("active".to_owned(), 3, 9)]);
        let table = stdout(&host.command(&["plugins"]));
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].starts_with("PLUGIN     VERSION  GEN  ROLE"), "{table}");
        assert!(lines[1].starts_with("versioned") && lines[1].contains("100%"), "{table}");
        clients.iter_mut().for_each(Client::ping);
        host.process.stop();
    }
}

#[test]
fn clients_of_others_lose_nothing_while_plugins_are_swapped() {
    let there = "command -v mosquitto_pub && command -v mosquitto_sub";
    if !have("sh", &["-c", there], "host/tests/it/clients/install.sh") {
        return;
    }
    let host = Host::start("control-mosquitto", &["--workers", "2", "--plugin", path(&library("v1"))]);
    let port = host.addr.port().to_string();
    let mosquitto = |program: &str, args: &[&str]| {
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program, "-p", &port, "-V", "5", "-q", "1"]).args(args);
        command
    };
    let mut subscriber = mosquitto("mosquitto_sub", &["-t", "t"]).stdout(Stdio::piped()).spawn().unwrap();
    let (sender, lines) = mpsc::channel();
    let out = BufReader::new(subscriber.stdout.take().unwrap());
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut raw = Client::connect(host.addr, V5, "raw");
    eventually("mosquitto_sub has subscribed", || {
        raw.publish("t", "ready", 1);
        lines.recv_timeout(Duration::from_millis(20)).is_ok()
    });
    let mut publisher = mosquitto("mosquitto_pub", &["-t", "t", "-l"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = publisher.stdin.take().unwrap();
    let mut expected = Vec::new();
    for version in ["v2", "v1", "v2", "v1"] {
        for _ in 0..50 {
            expected.push(expected.len().to_string());
            writeln!(stdin, "{}", expected.len() - 1).unwrap();
        }
        host.result(&["swap", "--plugin", path(&library(version))]);
    }
    drop(stdin);
    assert!(publisher.wait().unwrap().success());
    let mut received = Vec::new();
    while received.len() < expected.len() {
        let line = lines.recv_timeout(PATIENCE).expect("all of them come");
        received.extend(Some(line).filter(|line| line != "ready"));
    }
    assert_eq!(received, expected);
    subscriber.kill().unwrap();
    subscriber.wait().unwrap();
    host.process.stop();
}

#[test]
fn swap_that_fails_changes_nothing_and_says_where() {
    let host = Host::start("control-fails", &["--plugin", path(&library("v1"))]);
    let mut client = host.asking("c");
    let no_library = host.dir.file("no-library.so", "text");
    let empty = host.dir.file("empty.so", "");
    let (v2, unruly) = (library("v2"), library("unruly"));
    let table: &[(&Path, &[&str], &str, &[&str])] = &[
        (Path::new("/no/such.so"), &[], "copy", &["/no/such.so", "there is no such file"]),
        (Path::new("/"), &[], "copy", &["cannot be read"]),
        (&no_library, &[], "load", &["not a shared library"]),
        (&empty, &[], "load", &["not a shared library"]),
        (&library("no_symbol"), &[], "load", &["no entry symbol", "plugin_api::export!"]),
        (&library("other_major"), &[], "abi", &["was built with plugin-api 2.0.0"]),
        (&library("other_layout"), &[], "abi", &["expected", "found"]),
        (&unruly, &[], "name", &["\"unruly\"", "there are: versioned"]),
        (&v2, &["--name", "nobody"], "name", &["\"nobody\"", "there are: versioned"]),
        (&v2, &["--plugin-config", "{"], "config", &["configuration is not JSON"]),
        (&library("refuses_init"), &["--name", "versioned"], "init", &["refuses to start"]),
        (
            &unruly,
            &["--name", "versioned", "--plugin-config", "{\"panic\":\"init\"}"],
            "init",
            &["panicked", "unruly: init"],
        ),
    ];
    for (plugin, args, expected_step, parts) in table {
        let (step, reason) = host.refusal(&[&["swap", "--plugin", path(plugin)], *args].concat());
        assert_eq!(step, *expected_step, "{}: {reason}", plugin.display());
        for part in *parts {
            assert!(reason.contains(part), "{}: `{part}` in {reason}", plugin.display());
        }
        assert_eq!(ask(&mut client), "v1");
    }
    assert_eq!(host.instances(), [("active".to_owned(), 1, 1)]);
    host.process.stop();
    let without = Host::start("control-fails-without", &[]);
    assert!(stdout(&without.command(&["plugins"])).starts_with("no plugins"));
    let (step, reason) = without.refusal(&["swap", "--plugin", path(&v2)]);
    assert!(step == "name" && reason.contains("was started without plugins"), "{step}: {reason}");
    without.process.stop();
}

#[test]
fn plugin_that_does_not_get_ready_holds_up_nobody() {
    let operated = library("operated");
    let host = Host::start("control-ready", &["--plugin", path(&operated), "--plugin-config", "{\"answer\":\"a\"}"]);
    let until = host.dir.path().join("until");
    let config = json!({"answer": "b", "block": "init", "until": until}).to_string();
    let swap = ["swap", "--plugin", path(&operated), "--ready-within", "2s", "--plugin-config", &config];
    let (step, reason) = host.refusal(&swap);
    assert!(step == "init" && reason.contains("has not got ready within 2 s"), "{step}: {reason}");
    let mut client = host.asking("c");
    assert_eq!(ask(&mut client), "a");
    host.result(&["swap", "--plugin", path(&operated), "--plugin-config", "{\"answer\":\"c\"}"]);
    assert_eq!(ask(&mut client), "c");
    std::fs::write(until, "").unwrap();
    host.process.wait_log("a plugin has got ready after its time");
    assert_eq!(ask(&mut client), "c");
    host.process.stop();
}

#[test]
fn swap_that_is_rolled_back_before_it_has_ended_is_a_failure() {
    let host = Host::start("control-at-once", &["--plugin", path(&library("counting_v1"))]);
    let mut client = host.asking("c");
    let new = library("counting_v2");
    let swap = ["swap", "--plugin", path(&new), "--plugin-config", "{\"import\":\"refuse\"}", "--error-budget", "0"];
    let (step, reason) = host.refusal(&swap);
    assert_eq!(step, "probation");
    assert!(reason.contains("has used up its error budget") && reason.contains("decides again"), "{reason}");
    assert!(ask(&mut client).starts_with("v1 "));
    let (step, reason) = host.refusal(&["swap", "--rollback"]);
    assert_eq!((step.as_str(), reason.as_str()), ("flip", "no plugin has a canary or is on probation"));
    host.process.stop();
}

#[test]
fn canary_is_promoted_or_rolled_back() {
    let host = Host::start("control-canary", &["--plugin", path(&library("v1"))]);
    let mut clients: Vec<_> = (0..40).map(|number| Client::connect(host.addr, V5, format!("c{number}"))).collect();
    let v2 = library("v2");
    let shown = host.command(&["swap", "--plugin", path(&v2), "--canary", "50%"]);
    assert!(stdout(&shown).contains("`host swap --promote versioned`"), "{}", stdout(&shown));
    let share = || {
        let instances = host.instances();
        assert_eq!((instances[0].0.as_str(), instances[1].0.as_str()), ("active", "canary"));
        assert_eq!(instances[0].2 + instances[1].2, 40, "{instances:?}");
        instances[1].2
    };
    assert!((1..40).contains(&share()), "{}", share());
    let (step, reason) = host.refusal(&["swap", "--plugin", path(&v2)]);
    assert!(step == "flip" && reason.contains("there is a canary of plugin versioned"), "{step}: {reason}");
    // Its `init` is not called for nothing: this one would panic.
    let unruly = library("unruly");
    let swap = ["swap", "--name", "versioned", "--plugin", path(&unruly), "--plugin-config", "{\"panic\":\"init\"}"];
    assert_eq!(host.refusal(&swap).0, "flip");
    let (step, reason) = host.refusal(&["swap", "--promote", "other"]);
    assert!(step == "flip" && reason.contains("other has no canary"), "{step}: {reason}");
    host.result(&["swap", "--rollback", "versioned"]);
    eventually("the canary is gone", || host.instances() == [("active".to_owned(), 1, 40)]);
    host.result(&["swap", "--plugin", path(&v2), "--canary", "0.1%"]);
    let promoted = host.result(&["swap", "--promote"]);
    assert_eq!(promoted["generation"], 3, "{promoted}");
    assert_eq!(host.instances(), [("active".to_owned(), 3, 40), ("previous".to_owned(), 1, 0)]);
    clients.iter_mut().for_each(Client::ping);
    host.process.stop();
}

#[test]
fn signal_swaps_what_has_changed() {
    let dir = TempDir::new("control-signal-files");
    let plugin = dir.path().join("handler.so");
    std::fs::copy(library("v1"), &plugin).unwrap();
    let host = Host::start("control-signal", &["--plugin", path(&plugin), "--plugin", path(&library("operated"))]);
    let mut client = host.asking("c");
    host.process.signal(Signal::HUP);
    host.process.wait_log("SIGHUP: no plugin's file has changed");
    assert_eq!(ask(&mut client), "v1");
    std::fs::write(&plugin, "rubbish").unwrap();
    host.process.signal(Signal::HUP);
    host.process.wait_log("SIGHUP: nothing was swapped (load)");
    assert_eq!(ask(&mut client), "v1");
    std::fs::copy(library("v2"), &plugin).unwrap();
    host.process.signal(Signal::HUP);
    eventually("the new one answers", || ask(&mut client) == "v2");
    client.ping();
    host.process.stop();
}

#[test]
fn calls_are_counted_and_quarantine_is_ended() {
    let config = "{\"panic\":\"handle_publish\",\"times\":2}";
    let unruly = library("unruly");
    let args = ["--plugin", path(&unruly), "--plugin-config", config, "--quarantine-panics", "2"];
    let host = Host::start("control-quarantine", &args);
    let (step, reason) = host.refusal(&["resume", "unruly"]);
    assert_eq!((step.as_str(), reason.as_str()), ("resume", "it is not in quarantine"));
    for number in 0..2 {
        let mut victim = Client::connect(host.addr, V5, format!("victim{number}"));
        victim.send(Publish::new("t", "").qos(1, 1).bytes(V5));
        victim.expect_disconnect(0x83);
    }
    let shown = stdout(&host.command(&["plugins"]));
    assert!(shown.contains("active, IN QUARANTINE"), "{shown}");
    let status = host.result(&["plugins"]);
    let callbacks = status["plugins"][0]["instances"][0]["callbacks"].as_array().unwrap();
    let publish = callbacks.iter().find(|one| one["name"] == "handle_publish").expect("it was called");
    assert_eq!((&publish["calls"], &publish["panics"]), (&json!(2), &json!(2)), "{publish}");
    let shown = stdout(&host.command(&["resume", "unruly"]));
    assert!(shown.starts_with("plugin unruly: asked again are ") && shown.contains("(generation 1)"), "{shown}");
    let mut victim = Client::connect(host.addr, V5, "victim");
    assert_eq!(victim.publish("t", "", 1), 0x10);
    host.process.stop();
}

#[test]
fn what_plugins_count_and_measure_is_shown_and_outlives_a_swap() {
    let operated = library("operated");
    let host =
        Host::start("control-metrics", &["--plugin", path(&operated), "--plugin-config", "{\"answer\":\"abc\"}"]);
    let mut client = host.asking("c");
    for question in ["", "long", "longer"] {
        assert_eq!(client.publish("ask", question, 1), 0);
        assert_eq!(client.receive().text(), "abc");
    }
    host.result(&["swap", "--plugin", path(&operated), "--plugin-config", "{\"answer\":\"abcdef\"}"]);
    let metrics = host.result(&["metrics"]);
    let find = |name: &str| {
        let found = metrics["metrics"].as_array().unwrap().iter().find(|metric| metric["name"] == name);
        found.unwrap_or_else(|| panic!("{name} in {metrics}"))
    };
    assert_eq!(find("configurations_total")["value"], 2.0);
    assert_eq!((&find("answer_bytes")["value"], &find("answer_bytes")["kind"]), (&json!(6.0), &json!("gauge")));
    let questions = find("question_bytes");
    assert_eq!((&questions["count"], &questions["sum"]), (&json!(3), &json!(10.0)), "{questions}");
    let shown = stdout(&host.command(&["metrics"]));
    assert!(shown.contains("3 values, half up to 4, 99% up to 8"), "{shown}");
    host.process.stop();
}

#[test]
fn two_hosts_are_told_apart_by_their_sockets() {
    let v1 = library("v1");
    let hosts = [0, 1].map(|number| Host::start(&format!("control-host{number}"), &["--plugin", path(&v1)]));
    let mut clients = hosts.each_ref().map(|host| host.asking("c"));
    hosts[1].result(&["swap", "--plugin", path(&library("v2"))]);
    assert_eq!(clients.each_mut().map(ask), ["v1", "v2"]);
    for host in hosts {
        host.process.stop();
    }
}

#[test]
fn configuration_is_given_to_the_plugin_that_runs_and_to_its_successors() {
    let operated = library("operated");
    let v1 = library("v1");
    let args = ["--plugin", path(&operated), "--plugin-config", "{\"answer\":\"a\"}", "--plugin", path(&v1)];
    let host = Host::start("control-configure", &args);
    let mut client = host.asking("c");
    assert_eq!(ask(&mut client), "a");
    let file = host.dir.file("b.json", "{\"answer\": \"b\"}");
    let result = host.result(&["configure", "operated", &format!("@{}", path(&file))]);
    assert_eq!(result["instances"][0]["generation"], 1, "{result}");
    assert_eq!(ask(&mut client), "b");
    let table = [
        (["operated", "{\"refuse\":\"not today\"}"], "config", "not today"),
        (["operated", "{"], "config", "the configuration is not JSON: EOF"),
        (["operated", "{\"panic\":\"handle_config\"}"], "config", "handle_config panicked: operated: handle_config"),
        (["versioned", "{}"], "config", "has no handle_config"),
        (["nobody", "{}"], "name", "no plugin of this server is called \"nobody\" (there are: operated, versioned)"),
    ];
    for (args, expected_step, expected) in table {
        let (step, reason) = host.refusal(&[&["configure"], &args[..]].concat());
        assert_eq!(step, expected_step, "{args:?}: {reason}");
        assert!(reason.contains(expected), "{args:?}: {reason}");
        assert_eq!(ask(&mut client), "b");
    }
    // A swap takes over what was taken last, and the old one hears of what comes while it may return.
    host.result(&["swap", "--plugin", path(&operated)]);
    assert_eq!(ask(&mut client), "b");
    let shown = stdout(&host.command(&["configure", "operated", "{\"answer\":\"c\"}"]));
    assert!(shown.contains("was taken by 1.0.0 (generation 2), 1.0.0 (generation 1)"), "{shown}");
    assert_eq!(ask(&mut client), "c");
    host.result(&["swap", "--rollback"]);
    assert_eq!(ask(&mut client), "c");
    host.process.stop();
}

#[test]
fn health_is_asked_and_a_plugin_that_does_not_return_holds_up_nobody_else() {
    let operated = library("operated");
    let v1 = library("v1");
    let host = Host::start("control-health", &["--plugin", path(&operated), "--plugin", path(&v1)]);
    let configure = |config: &Value| host.result(&["configure", "operated", &config.to_string()]);
    configure(&json!({"answer": "a"}));
    let health = host.result(&["health"]);
    let plugin = |index: usize| {
        [&health["plugins"][index]["plugin"], &health["plugins"][index]["ok"], &health["plugins"][index]["text"]]
    };
    assert_eq!(plugin(0), [&json!("operated"), &json!(true), &json!("answers a")]);
    assert_eq!(plugin(1), [&json!("versioned"), &json!(true), &json!(null)]);
    for (config, expected) in
        [(json!({"sick": "no database"}), "no database"), (json!({"panic": "health"}), "health panicked")]
    {
        configure(&config);
        let output = host.command(&["health"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stdout(&output).contains("NOT WELL") && stdout(&output).contains(expected), "{}", stdout(&output));
    }
    assert_eq!(host.command(&["health", "versioned"]).status.code(), Some(0));
    let until = host.dir.path().join("until");
    configure(&json!({"answer": "a", "block": "health", "until": until}));
    let mut client = host.asking("c");
    let output = host.command(&["health"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("health of generation 1 has not returned within 5 s"), "{}", stdout(&output));
    host.process.wait_log("a plugin does not return");
    assert_eq!(ask(&mut client), "a");
    assert_eq!(host.command(&["health", "versioned"]).status.code(), Some(0));
    let (step, reason) = host.refusal(&["configure", "operated", "{}"]);
    assert!(step == "deadline" && reason.contains("health of generation 1 was called"), "{step}: {reason}");
    std::fs::write(until, "").unwrap();
    eventually("it has returned", || host.command(&["health"]).status.code() == Some(0));
    host.process.stop();
}
