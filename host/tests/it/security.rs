//! What `SECURITY.md` promises and no other file shows: who is turned away, whose user it runs as, and what nobody reads in
//! its log.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use host::{Builder, Limits};

use crate::certificates::{Authority, Issued, tls_listener};
use crate::harness::{
    PATIENCE, Process, TempDir, eventually, host_command, host_output, output, package_library, start,
};
use crate::mqtt::{Client, Connect, V5};

/// A configuration of `acl` that lets nobody in but `ann`, whose password is `secret`; its hash costs next to nothing.
pub(crate) const ANN: &str = r#"{"users": [{"username": "ann", "password_hash":
    "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$QQCd8VPOryZiCF3MtwQnPTK7odKCaPcXJGplgNEuj1A"}],
    "rules": [{"user": "ann", "allow": ["publish", "subscribe"], "topics": ["ann/#"]}]}"#;

#[test]
fn who_tries_passwords_is_turned_away_and_who_is_in_stays() {
    let library = package_library("acl");
    let mut args = vec!["--plugin", library.to_str().unwrap(), "--plugin-config", ANN];
    args.extend(["--failures-per-address-max", "3", "--failures-count-loopback", "true", "--failures-ban", "1h"]);
    let (process, addr) = Process::listening(args);
    let sign_in = |password| {
        let connect = Connect { username: Some("ann"), password: Some(password), ..Connect::new(V5, password) };
        Client::connect_with(addr, &connect)
    };
    let (mut inside, connack) = sign_in("secret");
    assert_eq!(connack.code, 0);
    for guess in ["1234", "password", "qwerty"] {
        assert_eq!(sign_in(guess).1.code, 0x86);
    }
    process.wait_log_of(&["turned away", "127.0.0.1"]);
    Client::open(addr, V5).expect_closed();
    inside.ping();
    assert_eq!(inside.publish("ann/x", "y", 1), 0x10);
    process.stop();
}

/// Without a bound of their own, guesses from this machine are not counted: there may be a proxy on it.
#[test]
fn this_machine_is_not_turned_away_unless_told() {
    let library = package_library("acl");
    let args = ["--plugin", library.to_str().unwrap(), "--plugin-config", ANN, "--failures-per-address-max", "1"];
    let (process, addr) = Process::listening(args);
    for _ in 0..3 {
        let (_, connack) = Client::connect_with(addr, &Connect::new(V5, "c"));
        assert_eq!(connack.code, 0x87);
    }
    process.stop();
}

/// Whether the server hangs up on who comes, without a word and at once.
fn is_turned_away(addr: SocketAddr) -> bool {
    let mut socket = TcpStream::connect(addr).expect("the kernel accepts");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    match socket.read(&mut [0]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn failed_handshakes_count_too() {
    let authority = Authority::new("authority");
    let issued = authority.server(&["localhost"]);
    let mut limits = Limits::default();
    (limits.failures_per_address_max, limits.failures_count_loopback) = (3, true);
    limits.failures_ban = Duration::from_secs(3600);
    let listeners: [fn(Builder, &Issued) -> Builder; 2] =
        [|builder, issued| builder.listener(tls_listener(issued)), |builder, _| builder.listen("ws://127.0.0.1:0")];
    for listener in listeners {
        let server = start(1, |builder| listener(builder.limits(limits.clone()), &issued));
        let [plain, other] = server.local_addrs() else { panic!("two listeners") };
        for _ in 0..3 {
            let mut socket = TcpStream::connect(other).expect("it listens");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            socket.write_all(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is sent");
            let _ = socket.read_to_end(&mut Vec::new());
        }
        eventually("who comes from there is turned away", || is_turned_away(*plain) && is_turned_away(*other));
        server.stop().expect("it stops");
    }
}

/// A user that every system has, and that owns nothing.
const NOBODY: &str = "nobody";

/// What `/proc/PID/task/*/status` says of all threads.
fn of_all_threads(pid: u32, field: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
    let statuses = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    let of = |status: String| {
        let line = status.lines().find(|line| line.starts_with(field)).expect("the field is there").to_owned();
        line[field.len()..].split_whitespace().collect::<Vec<_>>().join(" ")
    };
    statuses.map(of).collect()
}

/// As root only: nobody else can become another user.
#[test]
fn all_threads_go_on_as_another_user_and_plugins_are_loaded_as_it() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("NOT RUN: only root can become another user");
    }
    let dir = TempDir::new("user");
    // As that of a service: what is opened in it is opened as that user.
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let [control, mqtt, record] = ["s", "mqtt", "record"].map(|name| dir.path().join(name));
    let (library, listen) = (package_library("acl"), format!("unix:{}", mqtt.display()));
    let mut args = vec!["--user", NOBODY, "--control", control.to_str().unwrap(), "--listen", &listen];
    args.extend(["--plugin", library.to_str().unwrap(), "--plugin-config", ANN, "--record", record.to_str().unwrap()]);
    let (process, addr) = Process::listening(args);
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let nobody = passwd.lines().find(|line| line.starts_with("nobody:")).expect("every system has it");
    let (uid, gid) = (nobody.split(':').nth(2).unwrap(), nobody.split(':').nth(3).unwrap());
    let connect = Connect { username: Some("ann"), password: Some("secret"), ..Connect::new(V5, "ann") };
    assert_eq!(Client::connect_with(addr, &connect).1.code, 0);
    let uids = of_all_threads(process.id(), "Uid:");
    assert!(uids.len() > 3 && uids.iter().all(|all| *all == [uid; 4].join(" ")), "{uids:?}");
    let gids = of_all_threads(process.id(), "Gid:");
    assert!(gids.iter().all(|all| *all == [gid; 4].join(" ")), "{gids:?}");
    let groups = of_all_threads(process.id(), "Groups:");
    assert!(groups.iter().all(|all| *all == gid), "{groups:?}");
    for capabilities in ["CapPrm:", "CapEff:", "CapAmb:"] {
        let sets = of_all_threads(process.id(), capabilities);
        assert!(sets.iter().all(|set| set.bytes().all(|digit| digit == b'0')), "{capabilities} {sets:?}");
    }
    // The thread of the log was there before, and starts no program.
    let gained = of_all_threads(process.id(), "NoNewPrivs:");
    assert!(gained.iter().filter(|set| *set == "0").count() <= 1, "{gained:?}");
    for path in [&control, &mqtt, &record] {
        let found = std::fs::metadata(path).unwrap();
        assert_eq!([found.uid().to_string(), found.gid().to_string()], [uid, gid], "{}", path.display());
    }
    let local = Client::over(UnixStream::connect(&mqtt).unwrap(), V5);
    assert_eq!(local.connecting(&connect).1.code, 0);
    // Root still has its commands, and so has that user.
    for uid in ["0", uid] {
        let mut command = host_command();
        let said = output(command.args(["plugins", "--control"]).arg(&control).uid(uid.parse().unwrap()));
        assert_eq!(said.status.code(), Some(0), "{said:?}");
    }
    process.stop();
    assert!(!control.exists() && !mqtt.exists(), "their names have gone with it");
}

#[test]
fn a_user_that_it_cannot_become_keeps_it_from_starting() {
    for (user, expected) in [("no-such-user-here", "there is no user"), ("root", "is root, which host was to leave")] {
        let output = host_output(["--listen", "127.0.0.1:0", "--control", "none", "--user", user]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

/// What `host config check` says of a listener with a private key of this mode, as this user.
fn checked_with_key(mode: u32, uid: Option<u32>) -> (Option<i32>, String) {
    let (authority, dir) = (Authority::new("authority"), TempDir::new("key-mode"));
    let issued = authority.server(&["localhost"]);
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let (certificate, key) = (read(&issued.certificate), read(&issued.private_key));
    let text = "[[listener]]\nurl = \"tls://127.0.0.1:0\"\ncertificate = \"c.pem\"\nprivate_key = \"k.pem\"\n";
    let [file, certificate, key] =
        [("host.toml", text), ("c.pem", &*certificate), ("k.pem", &*key)].map(|(name, text)| dir.file(name, text));
    for readable in [&file, &certificate] {
        std::fs::set_permissions(readable, PermissionsExt::from_mode(0o644)).unwrap();
    }
    std::fs::set_permissions(&key, PermissionsExt::from_mode(mode)).unwrap();
    let mut command = host_command();
    command.args(["config", "check"]).arg(&file);
    if let Some(uid) = uid {
        command.uid(uid);
    }
    let checked = output(&mut command);
    (checked.status.code(), String::from_utf8(checked.stderr).unwrap())
}

#[test]
fn private_keys_that_everybody_can_read_are_warned_of() {
    for mode in [0o600, 0o640] {
        assert_eq!(checked_with_key(mode, None), (Some(0), String::new()), "{mode:o}");
    }
    let (code, said) = checked_with_key(0o644, None);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("everybody on this machine can read the private key in") && said.contains("chmod o= "),
        "{said}"
    );
}

/// As root only: nobody else has files that another user cannot read.
#[test]
fn private_key_that_cannot_be_read_says_by_whom() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("NOT RUN: only root can be another user");
    }
    let (code, said) = checked_with_key(0o600, Some(65_534));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("cannot read a private key from") && said.contains("for the user with uid 65534"), "{said}");
}
