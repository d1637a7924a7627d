//! The same where there is a data directory: one process writes it at a time, and what was promised outlives both.

use super::*;

/// A host with a directory for what it keeps, and a plugin that keeps values.
struct Kept {
    host: Host,
    data: TempDir,
    /// What the number of workers is taken from, by each process anew.
    config: PathBuf,
}

impl Kept {
    fn start(name: &str, durability: &str) -> Self {
        let data = TempDir::new(name);
        let config = data.file("host.toml", "workers = 2\n");
        let steward = library("steward");
        let args = ["--config", config.to_str().unwrap(), "--plugin", steward.to_str().unwrap()];
        let kept = ["--data-dir", data.path().to_str().unwrap(), "--durability", durability];
        let host = Host::start(name, &[&args[..], &kept[..]].concat());
        Self { host, data, config }
    }

    /// Kills whoever serves, starts another one, and returns it with its address.
    fn crash(self) -> (Process, SocketAddr, TempDir) {
        let Self { host, data, .. } = self;
        let pid = Pid::from_raw(host.pid()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        drop(host);
        let (process, addr) = serve(&data);
        (process, addr, data)
    }

    /// Who has the directory, as it says. `None` while that is written anew.
    fn owner(&self) -> Option<i32> {
        std::fs::read_to_string(self.data.path().join("lock")).unwrap().trim().parse().ok()
    }

    /// Whoever serves says so there as soon as it has begun to.
    fn is_owned_by_who_serves(&self) {
        let pid = self.host.pid();
        eventually("the directory says who has it", || self.owner() == Some(pid));
    }
}

/// A host that goes on with the directory, for which there is some time: whoever had it may be about to end.
fn serve(data: &TempDir) -> (Process, SocketAddr) {
    let steward = library("steward");
    let args = ["--data-dir", data.path().to_str().unwrap(), "--plugin", steward.to_str().unwrap()];
    Process::listening(args)
}

fn persistent(addr: SocketAddr, client_id: &str, is_there: bool) -> Client {
    let (client, connack) = Client::connect_with(addr, &Connect::new(V5, client_id).persistent());
    assert_eq!((connack.session_present, connack.code), (is_there, 0), "{client_id}");
    client
}

fn does(addr: SocketAddr, command: &str) -> String {
    let mut client = Client::connect(addr, V5, "operator");
    client.subscribe("done", 0);
    client.send(Publish::new("do", command).bytes(V5));
    client.receive().text().to_owned()
}

#[test]
fn what_was_promised_before_between_and_after_upgrades_outlives_a_crash() {
    for durability in ["buffered", "fsync"] {
        let kept = Kept::start("upgrade-kept", durability);
        let addr = kept.host.addr;
        persistent(addr, "away", false).subscribe("t/#", 2);
        let mut here = persistent(addr, "here", false);
        here.subscribe("t/#", 1);
        let mut from = persistent(addr, "from", false);
        assert_eq!(does(addr, "put a 1"), "put");
        let mut texts = Vec::new();
        for (round, workers) in [3, 1].into_iter().enumerate() {
            let (one, two) = (format!("one {round}"), format!("two {round}"));
            from.publish("t/1", &one, 1);
            assert_eq!(from.publish_message(Publish::new("t/r", &two).qos(2, 0).retained()), 0);
            // Accepted before, released behind.
            let id = from.new_id();
            from.send(Publish::new("t/2", format!("three {round}")).qos(2, id).bytes(V5));
            assert_eq!(from.expect_ack(5, id), 0);
            std::fs::write(&kept.config, format!("workers = {workers}\n")).unwrap();
            let result = kept.host.upgrade();
            assert_eq!((result["connections"].as_u64(), result["closed"].as_u64()), (Some(2), Some(0)), "{result}");
            from.send_ack(0x62, id);
            assert_eq!(from.expect_ack(7, id), 0);
            texts.extend([one, two, format!("three {round}")]);
            kept.is_owned_by_who_serves();
            assert_eq!((does(addr, "get a"), does(addr, &format!("put b {round}"))), ("1".into(), "put".into()));
        }
        // One of these is acknowledged, and the others are not.
        let first = here.read_publish();
        here.acknowledge(&first);
        here.ping();
        from.publish("t/1", "last", 1);
        texts.push("last".to_owned());
        let second =
            crate::harness::host_output(["--data-dir", kept.data.path().to_str().unwrap(), "--listen", "127.0.0.1:0"]);
        let why = String::from_utf8_lossy(&second.stderr);
        assert!(!second.status.success() && why.contains(&format!("process {} has it", kept.host.pid())), "{why}");

        let (process, addr, _data) = kept.crash();
        let mut away = persistent(addr, "away", true);
        // In order for each QoS: what is sent with QoS 2 waits until it is safe under which Packet Identifier.
        let got: Vec<_> = texts.iter().map(|_| away.receive()).collect();
        for (qos, words) in [(1, &["one", "last"][..]), (2, &["two", "three"][..])] {
            let got = got.iter().filter(|message| message.qos == qos).map(|message| message.text());
            let expected = texts.iter().filter(|text| words.iter().any(|word| text.starts_with(word)));
            assert!(got.eq(expected.map(String::as_str)), "QoS {qos}");
        }
        away.expect_nothing();
        let mut here = persistent(addr, "here", true);
        let got: Vec<_> = texts[1..].iter().map(|_| here.receive().text().to_owned()).collect();
        assert_eq!(got, texts[1..]);
        here.expect_nothing();
        let mut other = Client::connect(addr, V5, "other");
        other.subscribe("t/r", 1);
        assert_eq!(other.receive().text(), "two 1");
        assert_eq!((does(addr, "get a"), does(addr, "get b")), ("1".into(), "1".into()));
        process.stop();
    }
}

/// Whoever had to give up has written nothing, and who goes on writes as before.
#[test]
fn who_goes_on_after_a_failed_upgrade_keeps_what_it_promises() {
    let kept = Kept::start("upgrade-kept-fails", "buffered");
    let addr = kept.host.addr;
    let mut to = persistent(addr, "to", false);
    to.subscribe("t", 1);
    let mut from = persistent(addr, "from", false);
    let mut texts = Vec::new();
    for step in Step::ALL {
        let text = format!("before {step:?}");
        from.publish("t", &text, 1);
        let player = step.player(&kept.data);
        let (got, why) = kept.host.refuse(&["--binary", player.to_str().unwrap()]);
        assert!(step.may_fail_at().contains(&got.as_str()), "{step:?}: {got}: {why}");
        from.publish("t", format!("behind {step:?}"), 1);
        assert_eq!(does(addr, &format!("put {step:?} {step:?}")), "put");
        texts.extend([text, format!("behind {step:?}")]);
    }
    // Another directory, and none.
    let elsewhere = TempDir::new("upgrade-elsewhere");
    for (durability, data, expected) in [
        ("none", kept.data.path(), "would not: expected the same --data-dir"),
        ("buffered", elsewhere.path(), "is not the data directory of the process before"),
    ] {
        let host = env!("CARGO_BIN_EXE_host");
        let line = format!("exec {host} \"$@\" --durability {durability} --data-dir {}", data.display());
        let line = line.replace("\"$@\"", &format!("--listen {addr} --control {}", kept.host.control().display()));
        let binary = script(&kept.data, "other", &line);
        let (step, why) = kept.host.refuse(&["--binary", binary.to_str().unwrap()]);
        assert!(step == "ready" && why.contains(expected), "{step}: {why}");
    }
    kept.is_owned_by_who_serves();
    kept.host.upgrade();
    from.publish("t", "last", 1);
    texts.push("last".to_owned());
    for text in &texts {
        assert_eq!(to.read_publish().text(), text);
    }
    let (process, addr, _data) = kept.crash();
    let mut to = persistent(addr, "to", true);
    texts.iter().for_each(|text| assert_eq!(to.receive().text(), text));
    Step::ALL.iter().for_each(|step| assert_eq!(does(addr, &format!("get {step:?}")), format!("{step:?}")));
    process.stop();
}

/// The chain has another order after an upgrade, and after a crash: tokens go to who has given them.
#[test]
fn tokens_come_back_to_their_plugin_whatever_its_place_is() {
    let (data, record) = (TempDir::new("upgrade-places"), TempDir::new("upgrade-places-record"));
    let file = record.path().join("record");
    let (recorder, steward, deferring) = (library("recorder"), library("steward"), library("deferring"));
    let chain = |plugins: &[&PathBuf]| {
        let block = |plugin: &&PathBuf| match **plugin == recorder {
            true => format!("[[plugin]]\npath = {plugin:?}\nconfig = {{ file = {file:?} }}\n"),
            false => format!("[[plugin]]\npath = {plugin:?}\n"),
        };
        data.file("host.toml", &plugins.iter().map(block).collect::<String>())
    };
    let directory = data.path().join("kept");
    let config = chain(&[&recorder, &steward]);
    let args = ["--config", config.to_str().unwrap(), "--data-dir", directory.to_str().unwrap()];
    let host = Host::start("upgrade-places", &args);
    let acknowledged = |token: &str| {
        let has_it = |line: &str| line.starts_with("handle_puback ") && line.contains(token);
        eventually("the plugin hears of it", || std::fs::read_to_string(&file).unwrap().lines().any(has_it));
    };
    let mut to = persistent(host.addr, "to", false);
    let mut from = Client::connect(host.addr, V5, "from");
    for token in 77..80 {
        assert_eq!(from.publish("cmd/send/client/to", format!("1 {token} inbox hello"), 1), 0);
    }
    let [first, _, _] = [to.read_publish(), to.read_publish(), to.read_publish()];
    chain(&[&steward, &recorder]);
    host.upgrade();
    to.acknowledge(&first);
    acknowledged("token=Some(77)");
    // Written by another process than the ones before.
    assert_eq!(from.publish("cmd/send/client/to", "1 80 inbox hello", 1), 0);
    assert_eq!(to.read_publish().text(), "hello");
    // Then it is safe: what is acknowledged now stands behind it.
    to.subscribe("t", 1);
    chain(&[&steward, &deferring, &recorder]);
    kill_process(Pid::from_raw(host.pid()).unwrap(), Signal::KILL).unwrap();
    let (process, addr) = Process::listening(args);
    let mut to = persistent(addr, "to", true);
    for token in 78..=80 {
        let message = to.read_publish();
        to.acknowledge(&message);
        acknowledged(&format!("token=Some({token})"));
    }
    process.stop();
}

/// `UPGRADE_KILLS` makes it longer.
#[test]
fn predecessor_that_dies_in_the_middle_has_lost_nothing() {
    let rounds = std::env::var("UPGRADE_KILLS").map_or(3, |text| text.parse().expect("a number"));
    for round in 0..rounds {
        let kept = Kept::start("upgrade-killed", "buffered");
        let mut to = persistent(kept.host.addr, "to", false);
        to.subscribe("t", 1);
        let mut from = persistent(kept.host.addr, "from", false);
        from.publish("t", "before", 1);
        let millis = round * 41 % 250;
        let line = format!("(sleep 0.{millis:03}; kill -9 $PPID) & exec {} \"$@\"", env!("CARGO_BIN_EXE_host"));
        let binary = script(&kept.data, "killer", &line);
        let first = kept.host.pid();
        drop(kept.host.command(&["upgrade", "--binary", binary.to_str().unwrap()]));
        eventually("the first process has ended", || {
            rustix::process::test_kill_process(Pid::from_raw(first).unwrap()).is_err()
                || std::fs::read_to_string(format!("/proc/{first}/stat")).is_ok_and(|stat| stat.contains(") Z "))
        });
        // Either the other one serves by now, or it does not want to any more.
        let mut process = None;
        let mut addr = kept.host.addr;
        eventually("somebody serves", || {
            if kept.host.try_pid().is_some_and(|pid| kept.owner() == Some(pid)) {
                return true;
            }
            let mut next =
                Process::spawn(host_command().args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(kept.data.path()));
            let is_there = next.listens();
            if let Some(found) = is_there {
                (process, addr) = (Some(next), found);
            }
            is_there.is_some()
        });
        // It is killed at the end, whoever it is.
        println!("round {round}: {millis} ms, {}", if process.is_some() { "started anew" } else { "taken over" });
        let mut to = persistent(addr, "to", true);
        assert_eq!(to.receive().text(), "before");
    }
}
