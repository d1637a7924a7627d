//! Another process takes the place of one that runs, with real processes.

mod kept;
mod load;
#[cfg(feature = "quic")]
mod quic;
mod recorded;
mod step;

use std::net::SocketAddr;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use self::step::Step;
use crate::certificates::{Authority, tls_open};
use crate::harness::{PATIENCE, Process, TempDir, eventually, host_command, library, output};
use crate::mqtt::{Client, Connect, Publish, V3_1_1, V5, VERSIONS, Will, packet};
use crate::websocket::wire::ws_open;

/// A host, whichever process it is. The one that serves in the end is ended with it.
pub(crate) struct Host {
    /// The first one.
    process: Process,
    pub(crate) addr: SocketAddr,
    dir: TempDir,
}

impl Host {
    #[track_caller]
    pub(crate) fn start(name: &str, args: &[&str]) -> Self {
        let dir = TempDir::new(name);
        Self::start_as(host_command(), dir, args)
    }

    /// The same of another program, with another environment.
    #[track_caller]
    fn start_as(mut program: Command, dir: TempDir, args: &[&str]) -> Self {
        program.args(["--listen", "127.0.0.1:0", "--control", dir.path().join("s").to_str().unwrap()]).args(args);
        let mut process = Process::spawn(&mut program);
        let addr = process.wait_listening();
        Self { process, addr, dir }
    }

    /// The same with this configuration, whose first listener is one for TCP.
    #[track_caller]
    fn configured(name: &str, text: &str) -> Self {
        let dir = TempDir::new(name);
        let config = dir.file("host.toml", text);
        let control = dir.path().join("s");
        let args = ["--config", config.to_str().unwrap(), "--control", control.to_str().unwrap()];
        let mut process = Process::start(args);
        let addr = process.wait_listening();
        Self { process, addr, dir }
    }

    /// Where it takes commands.
    fn control(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn command(&self, args: &[&str]) -> Output {
        let mut command = host_command();
        output(command.args(args).arg("--control").arg(self.control()).arg("--json"))
    }

    pub(crate) fn answer(&self, args: &[&str]) -> Value {
        let output = self.command(args);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// The number of the process that serves.
    #[track_caller]
    fn pid(&self) -> i32 {
        self.try_pid().expect("somebody serves")
    }

    fn try_pid(&self) -> Option<i32> {
        let stream = UnixStream::connect(self.control()).ok()?;
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stream), &mut line).ok()?;
        let greeting: Value = serde_json::from_str(&line).ok()?;
        i32::try_from(greeting["pid"].as_u64()?).ok()
    }

    /// Has another process take over, and says what the answer was.
    #[track_caller]
    pub(crate) fn upgrade(&self) -> Value {
        let before = self.pid();
        let answer = self.answer(&["upgrade"]);
        assert_eq!(answer["ok"], true, "{answer}");
        assert_eq!(answer["result"]["pid"].as_i64(), Some(self.pid().into()));
        assert_ne!(self.pid(), before);
        answer["result"].clone()
    }

    /// Has it fail, and says at which step and why. The same process serves.
    #[track_caller]
    fn refuse(&self, args: &[&str]) -> (String, String) {
        let before = self.pid();
        let answer = self.answer(&[&["upgrade"], args].concat());
        assert_eq!(answer["ok"], false, "{answer}");
        assert_eq!(self.pid(), before, "the same process serves");
        let text = |key: &str| answer["error"][key].as_str().unwrap().to_owned();
        (text("step"), text("reason"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(pid) = self.try_pid().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// A program for `--binary`.
fn script(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.file(name, &format!("#!/bin/sh\n{text}\n"));
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

#[test]
fn clients_notice_nothing() {
    let dir = TempDir::new("upgrade-unix");
    let socket = dir.path().join("mqtt");
    let unix = format!("unix:{}", socket.display());
    let host = Host::start("upgrade", &["--workers", "2", "--allow-anonymous", "--listen", &unix]);
    let away = Connect::new(V5, "away").persistent();
    let (mut client, _) = Client::connect_with(host.addr, &away);
    client.subscribe("t", 1);
    client.disconnect();
    let mut receivers: Vec<_> =
        VERSIONS.iter().map(|version| Client::connect(host.addr, *version, format!("to-{version}"))).collect();
    receivers.iter_mut().for_each(|client| client.subscribe("t", 2));
    let mut local = Client::over(UnixStream::connect(&socket).unwrap(), V3_1_1).connected("local");
    let mut from = Client::connect(host.addr, V5, "from");
    let will = Will { topic: "t", payload: "will", ..Will::default() };
    let (testator, _) = Client::connect_with(host.addr, &Connect { will: Some(will), ..Connect::new(V5, "testator") });
    let begun = Publish::new("t", "begun before").qos(1, 7).bytes(V5);
    from.send(&begun[..5]);
    let mut queued = Vec::new();
    for round in 0..3 {
        // Accepted before, and released behind.
        let id = local.new_id();
        let text = format!("local {round}");
        local.send(Publish::new("t", &text).qos(2, id).bytes(V3_1_1));
        local.expect_ack(5, id);
        let result = host.upgrade();
        assert_eq!((result["connections"].as_u64(), result["closed"].as_u64()), (Some(6), Some(0)), "{result}");
        local.send_ack(0x62, id);
        local.expect_ack(7, id);
        receivers.iter_mut().for_each(|client| assert_eq!(client.receive().text(), text));
        queued.push(text);
    }
    from.send(&begun[5..]);
    from.expect_ack(4, 7);
    drop(testator);
    for client in &mut receivers {
        assert_eq!((client.receive().text(), client.receive().text()), ("begun before", "will"));
        client.ping();
    }
    let (mut client, connack) = Client::connect_with(host.addr, &away);
    assert!(connack.session_present);
    queued.extend(["begun before".to_owned(), "will".to_owned()]);
    queued.pop(); // With QoS 0.
    queued.iter().for_each(|text| assert_eq!(client.receive().text(), text));
    assert!(socket.exists(), "its name belongs to the process that serves");
    let pid = host.pid();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    receivers[2].expect_disconnect(0x8B);
    eventually("names go with the last process", || !socket.exists());
}

#[test]
fn who_cannot_go_over_is_told_and_finds_its_session() {
    let authority = Authority::new("upgrade");
    let issued = authority.server(&["localhost"]);
    let config = format!(
        "[[listener]]\nurl = \"127.0.0.1:0\"\n[[listener]]\nurl = \"tls://127.0.0.1:0\"\nallow_anonymous = true\n\
         certificate = {:?}\nprivate_key = {:?}\n[[listener]]\nurl = \"ws://127.0.0.1:0/mqtt\"\n",
        issued.certificate, issued.private_key
    );
    let host = Host::configured("upgrade-tls", &config);
    let [tls, web] = ["tls://127.0.0.1:", "ws://127.0.0.1:"].map(|url| host.process.wait_listening_on(url));
    let secure = Connect::new(V5, "secure").persistent();
    let browser = Connect::new(V5, "browser").persistent();
    let (mut first, _) = tls_open(tls, authority.client(), V5).connecting(&secure);
    first.subscribe("t", 1);
    let (mut second, _) = ws_open(web, V5).connecting(&browser);
    second.subscribe("t", 1);
    let mut plain = Client::connect(host.addr, V5, "plain");
    let result = host.upgrade();
    assert_eq!((result["connections"].as_u64(), result["closed"].as_u64()), (Some(1), Some(2)), "{result}");
    first.expect_disconnect(0x8B);
    second.expect_disconnect(0x8B);
    plain.publish("t", "meanwhile", 1);
    let (mut first, connack) = tls_open(tls, authority.client(), V5).connecting(&secure);
    assert!(connack.session_present);
    assert_eq!(first.receive().text(), "meanwhile");
    let (mut second, connack) = ws_open(web, V5).connecting(&browser);
    assert!(connack.session_present);
    assert_eq!(second.receive().text(), "meanwhile");
}

/// Its connection ends, and a plugin owes an answer about something that it sent before.
#[test]
fn will_that_was_not_asked_about_yet_is_published() {
    let deferring = library("deferring");
    let args = ["--plugin", deferring.to_str().unwrap(), "--publish-answer-max", "1h"];
    let host = Host::start("upgrade-will", &args);
    let mut to = Client::connect(host.addr, V5, "to");
    to.subscribe("w", 1);
    let will = Will { topic: "w", payload: "gone", ..Will::default() };
    let (mut from, _) = Client::connect_with(host.addr, &Connect { will: Some(will), ..Connect::new(V5, "from") });
    from.send(Publish::new("never/t", "x").qos(1, 7).bytes(V5));
    from.finish_sending();
    drop(from);
    host.upgrade();
    assert_eq!(to.receive().text(), "gone");
}

/// While it waits for a plugin nothing is read: who has a short Keep Alive is not taken for gone.
#[test]
fn keep_alive_does_not_run_while_it_waits() {
    let host = Host::start("upgrade-keep-alive", &["--plugin", library("deferring").to_str().unwrap()]);
    let connect = Connect { keep_alive: 1, ..Connect::new(V5, "short") };
    let (mut short, _) = Client::connect_with(host.addr, &connect);
    let mut slow = Client::connect(host.addr, V5, "slow");
    slow.send(Publish::new("never/answered", "").qos(1, 1).bytes(V5));
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (is_done, short) = (&is_done, &mut short);
        scope.spawn(move || {
            let mut pings = 0;
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                short.send([0xC0, 0]);
                pings += 1;
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            (0..pings).for_each(|_| assert_eq!(short.read(), [0xD0, 0]));
        });
        let result = host.upgrade();
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!((result["connections"].as_u64(), result["closed"].as_u64()), (Some(1), Some(1)), "{result}");
    });
    slow.expect_disconnect(0x8B);
    short.ping();
}

/// By a signal, after which nothing but what it is told keeps the service from being over when its first process ends.
#[test]
fn service_manager_is_told_which_process_serves_before_the_other_one_ends() {
    let dir = TempDir::new("upgrade-notify");
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let said = || {
        let mut bytes = [0; 100];
        let length = manager.recv(&mut bytes).expect("it says something");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let mut program = host_command();
    program.env("NOTIFY_SOCKET", &path);
    let mut host = Host::start_as(program, dir, &[]);
    assert_eq!(said(), "READY=1");
    let before = host.pid();
    kill_process(Pid::from_raw(before).unwrap(), Signal::USR2).unwrap();
    // The new one says that it is ready as any other does.
    let mut told = [said(), said()];
    told.sort();
    assert_eq!(host.process.wait().code(), Some(0));
    assert_eq!(told, [format!("MAINPID={}", host.pid()), "READY=1".to_owned()]);
    kill_process(Pid::from_raw(host.pid()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(said(), "STOPPING=1");
}

#[test]
fn whatever_fails_the_running_process_serves() {
    let plugins = TempDir::new("upgrade-fails");
    let plugin = plugins.path().join("handler.so");
    std::fs::copy(library("v1"), &plugin).unwrap();
    let host = Host::start("upgrade-fails", &["--plugin", plugin.to_str().unwrap()]);
    let mut to = Client::connect(host.addr, V5, "to");
    to.subscribe("t", 1);
    let mut from = Client::connect(host.addr, V3_1_1, "from");
    let script = |name: &str, text: &str| script(&plugins, name, text);
    let table = [
        (PathBuf::from("/no/such/host"), "start", "No such file"),
        (script("dies", "kill -9 $$"), "hello", "has ended (signal: 9"),
        (script("leaves", "exit 3"), "hello", "has ended (exit status: 3)"),
        (
            script(
                "newer",
                "printf '\\001\\000\\000\\000\\047\\000\\000\\000\\021\\000\\000\\000MQTT host upgrade\\143\\000\\006\\000\\000\\00099.0.1\\001\\000\\000\\000\\142\\000' >&0; cat <&0 >/dev/null",
            ),
            "hello",
            "host 99.0.1 speaks versions 98 to 99 of upgrades",
        ),
        (script("babbles", "echo HTTP/1.1 >&0; cat <&0 >/dev/null"), "hello", ""),
    ];
    let mut number = 0;
    let mut check = |what: &str| {
        number += 1;
        let text = format!("{what} {number}");
        from.publish("t", &text, 1);
        assert_eq!(to.receive().text(), text);
        Client::connect(host.addr, V5, "new").ping();
    };
    for (binary, step, reason) in table {
        let (got, why) = host.refuse(&["--binary", binary.to_str().unwrap()]);
        assert!(got == step && why.contains(reason), "{binary:?}: {got}: {why}");
        check("binary");
    }
    let good = std::fs::read(&plugin).unwrap();
    std::fs::remove_file(&plugin).unwrap();
    std::fs::write(&plugin, "no library").unwrap();
    let (step, why) = host.refuse(&[]);
    assert!(step == "ready" && why.contains("the new process: ") && why.contains("handler.so"), "{step}: {why}");
    check("plugin");
    std::fs::remove_file(&plugin).unwrap();
    std::fs::write(&plugin, good).unwrap();
    host.upgrade();
    check("in the end");
    // A signal does it as well.
    let before = host.pid();
    kill_process(Pid::from_raw(before).unwrap(), Signal::USR2).unwrap();
    eventually("another process serves", || host.try_pid().is_some_and(|pid| pid != before));
    check("by a signal");
    from.send(packet(0xE0, b""));
}
