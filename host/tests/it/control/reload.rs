//! A running host reads its configuration anew.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;
use serde_json::Value;

use super::{ask, command, path, stderr, stdout};
use crate::certificates::{Authority, Issued, tls_open, tls_wire};
use crate::harness::{Process, TempDir, eventually, library};
use crate::mqtt::{Client, Connect, Publish, V5};
use crate::websocket::wire::{SUBPROTOCOL, WebSocketWire};

/// A host with a configuration file.
struct Configured {
    process: Process,
    addr: SocketAddr,
    dir: TempDir,
}

impl Configured {
    #[track_caller]
    fn start(name: &str, text: &str) -> Self {
        let dir = TempDir::new(name);
        let file = dir.file("host.toml", text);
        let control = dir.path().join("s");
        let mut process = Process::start(["--config", path(&file), "--control", path(&control)]);
        let addr = process.wait_listening();
        Self { process, addr, dir }
    }

    #[track_caller]
    fn reload(&self, text: &str) -> std::process::Output {
        self.dir.file("host.toml", text);
        command(&self.dir.path().join("s"), &["reload"])
    }

    /// Reloads another text, and gives what has changed, and what needs a restart.
    #[track_caller]
    fn reloaded(&self, text: &str) -> (Vec<String>, Vec<String>) {
        self.dir.file("host.toml", text);
        let output = command(&self.dir.path().join("s"), &["reload", "--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let keys = |list: &str| {
            let changes = answer["result"][list].as_array().unwrap().iter();
            changes.map(|change| change["key"].as_str().unwrap().to_owned()).collect()
        };
        (keys("changed"), keys("restart"))
    }

    /// What it says of a text with which nothing changes.
    #[track_caller]
    fn refused(&self, text: &str) -> String {
        let output = self.reload(text);
        assert_eq!(output.status.code(), Some(1), "{text}: {}", stdout(&output));
        stderr(&output)
    }
}

/// Whether a SUBSCRIBE for something new is granted.
fn may_subscribe(client: &mut Client) -> bool {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let filter = format!("t/{}", SERIAL.fetch_add(1, Ordering::Relaxed));
    client.subscribe_all(&[(&filter, 0)]) == [0]
}

#[test]
fn what_can_change_changes_and_the_rest_is_told() {
    const LISTENER: &str = "[[listener]]\nurl = \"127.0.0.1:0\"\n";
    for workers in [1, 3] {
        let head = |rest: &str| format!("workers = {workers}\n{rest}{LISTENER}");
        let host = Configured::start("reload", &head(""));
        let mut before = Client::connect(host.addr, V5, "before");
        assert!(may_subscribe(&mut before));
        assert_eq!(host.reloaded(&head("")), (vec![], vec![]));
        assert_eq!(stdout(&host.reload(&head(""))), "nothing has changed\n");

        let text = format!(
            "workers = 7\n[log]\nlevel = \"debug\"\nformat = \"json\"\n\
             [limits]\ntopic_levels_max = 1\nkeep_alive_secs_max = 30\ntickets_max = 3\n{LISTENER}"
        );
        let changed = ["log.level", "limits.keep_alive_secs_max", "limits.topic_levels_max"];
        let restart = ["workers", "log.format", "limits.tickets_max"];
        let report = host.reloaded(&text);
        assert_eq!(report, (changed.map(str::to_owned).to_vec(), restart.map(str::to_owned).to_vec()));
        host.process
            .wait_log("reloaded: changed: log.level, limits.keep_alive_secs_max, limits.topic_levels_max; only");
        // Who is connected sees a bound that counts at once, and who comes what is granted to who comes.
        eventually("no worker grants subscriptions", || !may_subscribe(&mut before));
        eventually("Server Keep Alive is 30, and nothing is granted", || {
            let mut after = Client::open(host.addr, V5);
            after.send(Connect::new(V5, "after").bytes());
            let connack = after.expect_type(2);
            connack.windows(3).any(|bytes| bytes == [0x13, 0, 30]) && !may_subscribe(&mut after)
        });
        // What needs a restart is told as long as it is so, and what is as it was again has changed back.
        let shown = stdout(&host.reload(&head("[limits]\ntickets_max = 3\n")));
        assert!(shown.contains("limits.tickets_max: 3 (was 1024) NOT BEFORE A RESTART\n"), "{shown}");
        assert!(shown.contains("limits.topic_levels_max: 200 (was 1)\n"), "{shown}");
        assert!(shown.contains("limits.keep_alive_secs_max: 0s (was 30s), for new connections\n"), "{shown}");
        eventually("they are granted again", || may_subscribe(&mut before));
        host.process.stop();
    }
}

/// The largest packet is announced to who comes, and what is retained has another bound at once, with all that it has.
#[test]
fn bounds_of_packets_and_of_what_is_retained_change() {
    const HEAD: &str = "workers = 3\n[[listener]]\nurl = \"127.0.0.1:0\"\nbacklog = 64\ntcp_keep_alive = \"1min\"\n";
    let text = |limits: &str| format!("{HEAD}[limits]\n{limits}");
    let host = Configured::start("reload-packets", &text(""));
    let mut before = Client::connect(host.addr, V5, "before");
    let store = |client: &mut Client, topic: &str| {
        let id = client.new_id();
        client.send(Publish::new(topic, "x").qos(1, id).retained().bytes(V5));
        client.expect_ack(4, id)
    };
    assert_eq!(["r/1", "r/2"].map(|topic| store(&mut before, topic)), [0x10; 2]);
    let changed = ["limits.handshakes_max", "limits.packet_bytes_max", "limits.retained_messages_max"];
    let bounded = text("handshakes_max = 7\npacket_bytes_max = 1000\nretained_messages_max = 2\n")
        .replace("backlog = 64", "backlog = 65")
        .replace("1min", "2min");
    let of_listener = ["backlog", "tcp_keep_alive"].map(|key| format!("listener 127.0.0.1:0: {key}"));
    let expected = changed.map(str::to_owned).into_iter().chain(of_listener).collect();
    assert_eq!(host.reloaded(&bounded), (expected, vec![]));
    assert_eq!(["r/1", "r/3"].map(|topic| store(&mut before, topic)), [0x10, 0x97]);
    eventually("the largest packet is announced", || {
        let mut after = Client::open(host.addr, V5);
        after.send(Connect::new(V5, "after").bytes());
        after.expect_type(2).windows(5).any(|bytes| bytes == [0x27, 0, 0, 3, 0xe8])
    });
    let mut after = Client::connect(host.addr, V5, "after");
    after.send(Publish::new("t", [b'x'; 2000]).bytes(V5));
    after.expect_disconnect(0x95);
    assert_eq!(before.publish("t", [b'x'; 2000], 1), 0x10, "what held for it holds");
    host.reloaded(&text(""));
    assert_eq!(store(&mut before, "r/3"), 0x10);
    host.process.stop();
}

/// Bounds of a listener are new for who comes, and what came before counts for them.
#[test]
fn bounds_of_a_listener_change_for_who_comes() {
    let text = |limits: &str| format!("workers = 1\n[[listener]]\nurl = \"127.0.0.1:0\"\nname = \"front\"\n{limits}");
    let host = Configured::start("reload-bounds", &text(""));
    let mut before = Client::connect(host.addr, V5, "before");
    let bounded = text("[listener.limits]\nsubscriptions_max = 0\nconnections_max = 2\n");
    let keys = ["connections_max", "subscriptions_max"].map(|key| format!("listener front: limits.{key}"));
    assert_eq!(host.reloaded(&bounded), (keys.to_vec(), vec![]));
    assert_eq!(host.reloaded(&bounded), (vec![], vec![]));
    let mut after = None;
    eventually("nothing is granted to who comes", || {
        drop(after.take());
        let mut client = Client::open(host.addr, V5);
        let is_in = client.try_send(Connect::new(V5, "after").bytes()) && client.try_read().is_some();
        let is_bounded = is_in && !may_subscribe(&mut client);
        after = Some(client);
        is_bounded
    });
    assert!(may_subscribe(&mut before));
    let mut third = Client::open(host.addr, V5);
    assert!(!third.try_send(Connect::new(V5, "third").bytes()) || third.try_read().is_none(), "the listener has two");
    let shown = stdout(&host.reload(&text("")));
    assert!(
        shown.contains("listener front: limits.connections_max: the server's (was 2), for new connections\n"),
        "{shown}"
    );
    host.process.stop();
}

#[test]
fn listeners_come_and_go_and_clients_stay() {
    for workers in [1, 3] {
        let dir = TempDir::new("reload-sockets");
        let socket = dir.path().join("mqtt.sock");
        let head = format!("workers = {workers}\n");
        let plain = "[[listener]]\nurl = \"127.0.0.1:0\"\n".to_owned();
        let unix = format!("[[listener]]\nurl = \"unix:{}\"\n", socket.display());
        let host = Configured::start("reload-listeners", &format!("{head}{plain}"));
        let mut first = Client::connect(host.addr, V5, "first");
        // Threads for what comes before MQTT were not needed until now.
        let (changed, _) = host.reloaded(&format!("{head}{plain}{unix}"));
        assert_eq!(changed, [format!("listener unix:{}", socket.display())]);
        let mut second = Client::over(UnixStream::connect(&socket).unwrap(), V5).connected("second");
        let name = "name = \"front\"\n";
        assert_eq!(host.reloaded(&format!("{head}{unix}{plain}{name}")).0, ["listener 127.0.0.1:0: name"]);
        Client::connect(host.addr, V5, "third").disconnect();
        // The other way round: the one for TCP goes, and both clients stay.
        assert_eq!(host.reloaded(&format!("{head}{unix}")).0, ["listener front"]);
        eventually("nobody listens any more", || TcpStream::connect(host.addr).is_err());
        first.ping();
        second.ping();
        assert_eq!(host.reloaded(&format!("{head}{plain}")).0.len(), 2);
        eventually("its name has gone", || !socket.exists());
        second.ping();
        first.ping();
        host.process.stop();
    }
}

/// The most usual change of all: from this machine to all, and back.
#[test]
fn listener_goes_from_one_address_to_all_and_back() {
    let text = |url: &str| format!("workers = 2\nallow_anonymous = true\n[[listener]]\nurl = \"{url}\"\n");
    let host = Configured::start("reload-wider", &text("127.0.0.1:0"));
    let (mut first, port) = (Client::connect(host.addr, V5, "first"), host.addr.port());
    let dual_stack = format!("[::]:{port}\"\ndual_stack = true\nname = \"all");
    for (number, url) in [format!("0.0.0.0:{port}"), dual_stack, format!("127.0.0.1:{port}")].iter().enumerate() {
        assert_eq!(host.reloaded(&text(url)).0.len(), 2, "one comes, and one goes");
        eventually("it is the new one that lets clients in", || {
            let mut client = Client::open(host.addr, V5);
            client.try_send(Connect::new(V5, format!("c{number}")).bytes()) && client.try_read().is_some()
        });
        first.ping();
    }
    // Another host cannot have it as well.
    let error = std::net::TcpListener::bind(host.addr).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let said =
        host.refused(&(text(&format!("0.0.0.0:{port}")) + &format!("[[listener]]\nurl = \"127.0.0.1:{port}\"\n")));
    assert!(said.contains("one has the place of the other"), "{said}");
    host.process.stop();
}

/// A listener with this certificate.
fn with_certificate(scheme: &str, issued: &Issued) -> String {
    let [certificate, key] = [&issued.certificate, &issued.private_key].map(|file| path(file).to_owned());
    format!("[[listener]]\nurl = \"{scheme}://127.0.0.1:0\"\ncertificate = {certificate:?}\nprivate_key = {key:?}\n")
}

/// By TLS, and by WebSocket within it: who is connected stays and is sent what those publish who come with the new certificate.
#[test]
fn certificates_are_read_anew_and_nobody_is_dropped() {
    let authorities = ["first", "second", "third"].map(Authority::new);
    let [first, second, third] = &authorities;
    let ours = first.server(&["localhost"]);
    let put = |authority: &Authority| {
        let new = authority.server(&["localhost"]);
        std::fs::copy(&new.certificate, &ours.certificate).unwrap();
        std::fs::copy(&new.private_key, &ours.private_key).unwrap();
    };
    let text = ["tls", "wss"].map(|scheme| with_certificate(scheme, &ours)).concat();
    let host = Configured::start("reload-tls", &text);
    let [tls, wss] = ["tls", "wss"].map(|scheme| host.process.wait_listening_on(&format!("{scheme}://127.0.0.1:")));
    let by_tls = |trusted: &Authority| tls_open(tls, trusted.client(), V5);
    let by_wss = |trusted: &Authority| {
        let wire = tls_wire(TcpStream::connect(wss).unwrap(), trusted.client());
        Client::over(WebSocketWire::upgraded(wire, SUBPROTOCOL), V5)
    };
    let (mut one, mut other) = (by_tls(first).connected("one"), by_wss(first).connected("other"));
    one.subscribe("news", 1);
    other.subscribe("news", 1);
    let mut are_served = |shown: &Authority| {
        let (mut by_tls, mut by_wss) = (by_tls(shown).connected("by-tls"), by_wss(shown).connected("by-wss"));
        by_tls.publish("news", "by TLS", 1);
        by_wss.publish("news", "by WebSocket", 1);
        for text in ["by TLS", "by WebSocket"] {
            assert_eq!([one.receive().text(), other.receive().text()], [text; 2]);
        }
    };
    let changed = ["tls://127.0.0.1:0", "wss://127.0.0.1:0/mqtt"].map(|url| format!("listener {url}: certificate"));
    are_served(first);
    // By a signal: what has changed counts as soon as that is said. Whoever is slow here may find that it was noticed before.
    let reloads = || host.process.log().into_iter().filter(|line| line.contains("reloaded: ")).collect::<Vec<_>>();
    eventually("the signal is heeded", || {
        let before = reloads().len();
        put(second);
        host.process.signal(Signal::HUP);
        eventually("it says so", || reloads().len() > before);
        reloads()[before].contains(&format!("reloaded: changed: {}", changed.join(", ")))
    });
    are_served(second);
    // By a command, which says what has changed. The same again is nothing new.
    let told = changed.each_ref().map(|key| format!("{key}: another one, for new connections\n")).concat();
    eventually("the command says what has changed", || {
        put(first);
        stdout(&host.reload(&text)) == told
    });
    std::fs::write(&ours.certificate, std::fs::read(&ours.certificate).unwrap()).unwrap();
    assert_eq!(stdout(&host.reload(&text)), "nothing has changed\n");
    are_served(first);
    // By themselves.
    put(third);
    let shows_third = |addr| tls_wire(TcpStream::connect(addr).unwrap(), third.client()).flush().is_ok();
    eventually("it is noticed", || shows_third(tls) && shows_third(wss));
    for scheme in ["tls", "wss"] {
        host.process.wait_log_of(&["INFO", &format!("{scheme}://127.0.0.1:"), "its certificates have changed"]);
    }
    are_served(third);
    // What is of no use is not taken: neither by itself, nor when it is asked for.
    std::fs::write(&ours.private_key, "rubbish").unwrap();
    for scheme in ["tls", "wss"] {
        host.process.wait_log_of(&[
            "ERROR",
            &format!("{scheme}://127.0.0.1:"),
            "its certificates have changed, and those from before go on being used: ",
            &format!("there is no private key in {}", path(&ours.private_key)),
        ]);
    }
    let said = host.refused(&text);
    assert!(said.contains("there is no private key in"), "{said}");
    are_served(third);
    host.process.stop();
}

fn plugin(library: &Path, config: &str) -> String {
    format!("[[plugin]]\npath = {library:?}\nconfig = {config}\n")
}

#[test]
fn what_is_wrong_changes_nothing() {
    let [operated, v1] = ["operated", "v1"].map(library);
    let text = |limits: &str, operated_config: &str, rest: &str| {
        let plugins = plugin(&operated, operated_config) + &plugin(&v1, "{}");
        format!("workers = 1\n[limits]\n{limits}\n[[listener]]\nurl = \"127.0.0.1:0\"\n{rest}{plugins}")
    };
    let host = Configured::start("reload-wrong", &text("", "{ answer = \"a\" }", ""));
    let mut client = Client::connect(host.addr, V5, "c");
    client.subscribe("answer", 1);
    let (taken, _guard) = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        (socket.local_addr().unwrap(), socket)
    };
    // Each would forbid subscriptions, and has something wrong with it.
    let none = "topic_levels_max = 1";
    let good = "{ answer = \"b\" }";
    let table = [
        (text(none, good, "") + "[limits", "this is not TOML"),
        (text("topic_levels_max = 1\nidle = 1", good, ""), ":4:1: there is no `idle` in [limits]"),
        (text("topic_levels_max = 1\nidle_max = 1", good, ""), "idle_max is 1: expected a time"),
        (
            text("topic_levels_max = 1\nkeep_alive_secs_min = 2\nkeep_alive_secs_max = 1", good, ""),
            "keep_alive_secs_min is 2s",
        ),
        (
            text(none, good, &format!("[[listener]]\nurl = \"{taken}\"\n")),
            "Another program (or another host) listens there",
        ),
        (text(none, good, "[[listener]]\nurl = \"tls://127.0.0.1:0\"\n"), "TLS needs a certificate"),
        (text(none, good, "[[listener]]\nurl = \"127.0.0.1:0\"\nplugins = [\"x\"]\n"), "its plugin `x` is not loaded"),
        (text(none, "{ refuse = \"not today\" }", ""), "operated: "),
        (text(none, "{ answer = nan }", ""), "JSON has neither inf nor nan"),
        // The first plugin has agreed; the second one cannot take another configuration, nor be loaded again with it.
        (
            text(none, good, "") + "[[plugin]]\npath = \"x.so\"\nconfig_file = \"none.json\"\n",
            "cannot read the config_file",
        ),
    ];
    for (text, expected) in table {
        let said = host.refused(&text);
        assert!(said.contains(expected), "{expected}: {said}");
        assert_eq!(ask(&mut client), "a", "{expected}");
        assert!(may_subscribe(&mut client), "{expected}");
    }
    // Two have agreed before the last one refuses: they get back what they had.
    let other = host.dir.path().join("other.so");
    std::fs::write(&other, "rubbish").unwrap();
    let broken = text(none, good, "").replace(path(&v1), path(&other));
    let said = host.refused(&broken);
    assert!(said.contains(path(&other)), "{said}");
    assert_eq!(ask(&mut client), "a");
    assert!(may_subscribe(&mut client));
    host.process.stop();
}

#[test]
fn plugins_get_their_configurations_and_their_new_files() {
    let operated = library("operated");
    let dir = TempDir::new("reload-plugins");
    let versioned = dir.path().join("versioned.so");
    std::fs::copy(library("v1"), &versioned).unwrap();
    let text = |answer: &str| {
        let plugins = plugin(&versioned, "{}") + &plugin(&operated, &format!("{{ answer = {answer:?}, secret = 1 }}"));
        format!("workers = 1\n[[listener]]\nurl = \"127.0.0.1:0\"\n{plugins}")
    };
    let host = Configured::start("reload-plugins", &text("a"));
    let mut client = Client::connect(host.addr, V5, "c");
    client.subscribe("answer", 1);
    let first = ask(&mut client);
    assert_eq!(host.reloaded(&text("b")).0, ["plugin operated: config"]);
    let shown = stdout(&host.reload(&text("c")));
    assert_eq!(shown, "plugin operated: config: another one\n", "its text may be a secret");
    std::fs::copy(library("v2"), &versioned).unwrap();
    assert_eq!(host.reloaded(&text("c")).0, ["plugin versioned: its library"]);
    assert_eq!(host.reloaded(&text("c")).0, [""; 0]);
    assert_ne!(ask(&mut client), first);
    host.process.stop();
}

/// The chain itself stays as it is, and the plugins that are in it get what is new for them.
#[test]
fn plugins_that_stay_change_where_others_come_go_or_move() {
    let [operated, v1, recorder] = ["operated", "v1", "recorder"].map(library);
    let answering = |answer: &str| plugin(&operated, &format!("{{ answer = {answer:?} }}"));
    let [v1, recorder] = [&v1, &recorder].map(|library| plugin(library, "{}"));
    let text = |plugins: [&str; 3]| format!("workers = 1\n[[listener]]\nurl = \"127.0.0.1:0\"\n{}", plugins.concat());
    let host = Configured::start("reload-chain", &text([&answering("a"), &v1, ""]));
    let mut client = Client::connect(host.addr, V5, "c");
    client.subscribe("answer", 1);
    let table = [
        ("added", [&answering("b"), &*v1, &recorder]),
        ("added in front", [&*recorder, &answering("c"), &v1]),
        ("moved", [&*v1, &answering("d"), ""]),
        ("removed", [&*answering("e"), "", ""]),
        ("in the place of another", [&*recorder, &answering("f"), ""]),
    ];
    for ((what, plugins), answer) in table.into_iter().zip(["b", "c", "d", "e", "f"]) {
        let keys = |list: [&str; 1]| list.map(str::to_owned).to_vec();
        let expected = (keys(["plugin operated: config"]), keys(["plugins"]));
        assert_eq!(host.reloaded(&text(plugins)), expected, "{what}");
        assert_eq!(ask(&mut client), answer, "{what}");
    }
    assert_eq!(host.reloaded(&text([&answering("f"), &v1, ""])), (vec![], vec![]));
    host.process.stop();
}

/// A reload does not say that all is well with what comes with a restart where that would fail.
#[test]
fn what_a_restart_would_refuse_a_reload_refuses() {
    let [steward, v1] = ["steward", "v1"].map(library);
    let text = |head: &str, rest: &str| {
        format!("workers = 1\n{head}[[listener]]\nurl = \"127.0.0.1:0\"\nname = \"a\"\n{rest}")
    };
    let ours = plugin(&v1, "{}");
    let host = Configured::start("reload-restart", &text("", &ours));
    let anonymous = "allow_anonymous = true\n";
    let new = plugin(&steward, "{}");
    let table = [
        (text("", &format!("{ours}{}", plugin(Path::new("/nonexistent.so"), "{}"))), "/nonexistent.so"),
        (text("", &format!("{ours}{}", plugin(&host.dir.file("x.so", "rubbish"), "{}"))), "x.so"),
        (text("", &format!("{ours}{ours}")), "two plugins have the name \"versioned\""),
        (text("user = \"no-such-user-here\"\n", &ours), "there is no user `no-such-user-here`"),
        (text("user = \"root\"\n", &ours), "the user `root` is root"),
        (
            text(
                "[limits]\nretain_available = false\n",
                &format!("[listener.limits]\nretain_available = true\n{ours}"),
            ),
            "retain_available is true for it, and false for the server",
        ),
        (text("", "plugins = [\"versioned\"]\n"), "its plugin `versioned` is not loaded; those that are: none"),
    ];
    for (wanted, expected) in table {
        let said = host.refused(&wanted);
        assert!(said.contains("a restart with this configuration would fail: ") && said.contains(expected), "{said}");
    }
    // What a listener needs has to be there already.
    let said = host.refused(&text("", &format!("plugins = [\"steward\"]\n{ours}{new}")));
    assert!(said.contains("its plugin `steward` is not loaded") && said.contains("come with a restart"), "{said}");
    // What a restart would do is told each time, and the library is not mapped again.
    let wanted = text(anonymous, &format!("{ours}{new}"));
    assert_eq!(host.reloaded(&wanted).1, ["plugins"]);
    let mapped = || {
        let output = command(&host.dir.path().join("s"), &["plugins", "--json"]);
        serde_json::from_str::<Value>(&stdout(&output)).unwrap()["result"]["mapped_libraries"].as_u64().unwrap()
    };
    let before = mapped();
    assert_eq!(host.reloaded(&wanted), (vec![], vec!["plugins".to_owned()]));
    assert_eq!(mapped(), before);
    host.process.stop();
    // The plugin that decides is still there, and would not be any more.
    let text = |plugins: &str| format!("workers = 1\n[[listener]]\nurl = \"0.0.0.0:0\"\n{plugins}");
    let config = format!("{{ file = {:?} }}", path(&host.dir.path().join("recorded")));
    let host = Configured::start("reload-nobody", &text(&plugin(&library("recorder"), &config)));
    let said = host.refused(&text(""));
    assert!(said.contains("a restart with") && said.contains("no plugin decides who may connect"), "{said}");
    host.process.stop();
}

/// Nobody waits for the other end of a pipe, or for the end of what has none; and the next reload is as any other.
#[test]
fn what_is_no_file_is_not_read_again() {
    const TEXT: &str = "workers = 1\n[[listener]]\nurl = \"127.0.0.1:0\"\n";
    let host = Configured::start("reload-no-file", TEXT);
    let (file, control) = (host.dir.path().join("host.toml"), host.dir.path().join("s"));
    let refused = |expected: &str| {
        let output = command(&control, &["reload"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(host.reloaded(TEXT), (vec![], vec![]));
        std::fs::remove_file(&file).unwrap();
    };
    std::fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    refused("is no file that can be read again");
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    refused("is no file that can be read again");
    std::fs::File::create(&file).unwrap().set_len((16 << 20) + 1).unwrap();
    refused("it has more than 16 MiB");
    host.process.stop();
}

#[test]
fn what_an_operator_has_configured_outlives_a_refused_reload_and_goes_with_the_next_one() {
    let dir = TempDir::new("reload-configured");
    let versioned = dir.path().join("versioned.so");
    std::fs::copy(library("v1"), &versioned).unwrap();
    let text = |answer: &str| {
        let plugins = plugin(&library("operated"), &format!("{{ answer = {answer:?} }}")) + &plugin(&versioned, "{}");
        format!("workers = 1\n[[listener]]\nurl = \"127.0.0.1:0\"\n{plugins}")
    };
    let host = Configured::start("reload-configured", &text("file"));
    let mut client = Client::connect(host.addr, V5, "c");
    client.subscribe("answer", 1);
    let configure = ["configure", "operated", r#"{"answer":"operator"}"#];
    assert_eq!(command(&host.dir.path().join("s"), &configure).status.code(), Some(0));
    // The first plugin takes what the file has, and the second cannot be loaded.
    std::fs::write(&versioned, "rubbish").unwrap();
    host.refused(&text("other"));
    assert_eq!(ask(&mut client), "operator");
    std::fs::copy(library("v1"), &versioned).unwrap();
    let (changed, _) = host.reloaded(&text("file"));
    assert_eq!(changed[0], "plugin operated: config");
    assert_eq!(ask(&mut client), "file");
    host.process.stop();
}
