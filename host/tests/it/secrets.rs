//! Passwords and configurations of plugins: in no line of the log, in no answer of a command, and no longer in memory than
//! they are needed.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::process::Output;

use crate::harness::{PATIENCE, Process, TempDir, eventually, host_command, host_output, output, package_library};
use crate::mqtt::{Client, Connect, V3_1_1, V5, Wire, field, packet};
use crate::security::ANN;
use crate::websocket::wire::{SUBPROTOCOL, WebSocketWire, frame, head, request};

/// Secrets of one test, each of which is found where it occurs.
const PASSWORD: &str = "pass-9A3fXw-word";
const AUTH_DATA: &str = "auth-7Qm2Zk-data";
const IN_CONFIG: &str = "conf-5Lb8Tn-hash";

/// A CONNECT packet of a 5.0 client with an Authentication Method, Authentication Data, and a password.
fn connect_with_auth_data() -> Vec<u8> {
    let mut properties = vec![0x15];
    properties.extend(field("SCRAM"));
    properties.push(0x16);
    properties.extend(field(AUTH_DATA));
    let mut body = field("MQTT");
    body.extend([5, 0xC2, 0, 0, u8::try_from(properties.len()).unwrap()]);
    body.extend(properties);
    body.extend([field("with-auth"), field("ann"), field(PASSWORD)].concat());
    packet(0x10, &body)
}

/// Clients with secrets: let in and refused, in one piece and in several, well-formed and not.
fn sign_in<W: Wire>(open: impl Fn(u8) -> Client<W>) {
    for version in [V3_1_1, V5] {
        let connect = Connect { username: Some("ann"), password: Some(PASSWORD), ..Connect::new(version, "ann") };
        open(version).connecting(&connect);
        let mut slow = open(version);
        for piece in connect.bytes().chunks(7) {
            slow.send(piece);
            std::thread::yield_now();
        }
        slow.connack();
        let mut malformed = connect.bytes();
        malformed[1] += 1; // There is one byte more than there should be.
        malformed.push(0);
        let mut client = open(version);
        client.send(malformed);
        while client.try_read().is_some() {}
    }
    let mut client = open(V5);
    client.send(connect_with_auth_data());
    client.connack();
}

/// The same by TCP.
fn sign_in_by_tcp(addr: SocketAddr) {
    sign_in(|version| Client::open(addr, version));
}

/// A host with a listener for plain TCP and one for WebSocket, and clients for them. Over TLS as much is cleared of what this
/// program has, but rustls has copies of its own, which it frees as they are.
struct Plain {
    process: Process,
    /// For `tcp://` and `ws://`.
    addrs: [SocketAddr; 2],
}

impl Plain {
    fn start(args: &[&str]) -> Self {
        let listeners = ["--listen", "127.0.0.1:0", "--listen", "ws://127.0.0.1:0"];
        let process = Process::start([&listeners[..], args].concat());
        // Plain TCP is told without a scheme.
        let addrs = ["127.0.0.1:", "ws://127.0.0.1:"].map(|url| process.wait_listening_on(url));
        Self { process, addrs }
    }

    fn sign_in(&self) {
        sign_in_by_tcp(self.addrs[0]);
        let plain = || TcpStream::connect(self.addrs[1]).expect("it listens");
        sign_in(|version| Client::over(WebSocketWire::upgraded(plain(), SUBPROTOCOL), version));
        self.sign_in_with_the_request();
    }

    /// A CONNECT that does not wait for the answer to the request of its WebSocket.
    fn sign_in_with_the_request(&self) {
        let connect = Connect { username: Some("ann"), password: Some(PASSWORD), ..Connect::new(V5, "ann") };
        let both = [request("/mqtt", SUBPROTOCOL).into_bytes(), frame(0x82, &connect.bytes())].concat();
        let mut wire = TcpStream::connect(self.addrs[1]).unwrap();
        wire.set_patience(PATIENCE);
        wire.write_all(&both).unwrap();
        assert!(head(&mut wire).starts_with("HTTP/1.1 101 "));
        // A frame, with CONNACK in it.
        let mut answer = [0; 3];
        wire.read_exact(&mut answer).unwrap();
        assert_eq!((answer[0], answer[2]), (0x82, 0x20));
    }
}

/// Places in the memory of a process where bytes stand: what it has written, not its program.
fn places_in_memory(pid: u32, bytes: &[u8]) -> Vec<String> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("a child of this process can be looked into");
    let mut found = Vec::new();
    for line in maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|may| may.starts_with("rw"))) {
        let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).expect("an address"));
        let mut content = vec![0; usize::try_from(to - from).expect("it fits")];
        if memory.read_exact_at(&mut content, from).is_err() {
            continue; // Given back meanwhile.
        }
        let first = bytes[0];
        let mut rest = &content[..];
        while let Some(at) = rest.iter().position(|byte| *byte == first) {
            if rest[at..].starts_with(bytes) {
                found.push(line.to_owned());
            }
            rest = &rest[at + 1..];
        }
    }
    found
}

/// Whoever reads the memory of the host, or a core dump of it, finds no password of a client that has been answered: not in what the worker has read or opened, not in packets that came in pieces or wait for a plugin, not
/// in copies for the pool.
#[test]
fn passwords_are_not_left_in_memory() {
    let (hello, acl) = (package_library("hello-handler"), package_library("acl"));
    let asked_at_once = vec!["--plugin", hello.to_str().unwrap()];
    let asked_on_the_pool = vec!["--plugin", acl.to_str().unwrap(), "--plugin-config", ANN];
    for plugins in [asked_at_once, asked_on_the_pool] {
        let host = Plain::start(&[&plugins[..], &["--control", "none", "--log", "trace"]].concat());
        let process = &host.process;
        // What is there to be found is found: a Client Identifier is no secret.
        let mut client = Client::open(host.addrs[0], V5);
        client.send(Connect::new(V5, "findable-9A3fXw-name").bytes());
        client.connack();
        assert!(!places_in_memory(process.id(), b"findable-9A3fXw-name").is_empty());
        host.sign_in();
        for secret in [PASSWORD, AUTH_DATA] {
            let mut places = Vec::new();
            eventually(&format!("no {secret} in memory: {places:?}"), || {
                places = places_in_memory(process.id(), secret.as_bytes());
                println!("{plugins:?}: {places:?}");
                places.is_empty()
            });
        }
        host.process.stop();
    }
}

/// Everything that the host prints and answers while it is used, with all that it can log.
#[test]
fn no_secret_is_logged_or_told_by_a_command() {
    let dir = TempDir::new("secrets");
    let control = dir.path().join("s");
    let (acl, control) = (package_library("acl"), control.to_str().unwrap());
    let acl = acl.to_str().unwrap();
    // The hash is the secret here, and a configuration that was meant for another plugin.
    let config = ANN.replace("\"users\"", "\"client_ids\": [\"*\"], \"users\"");
    let hash = "QQCd8VPOryZiCF3MtwQnPTK7odKCaPcXJGplgNEuj1A";
    assert!(config.contains(hash));
    let args = ["--control", control, "--log", "trace", "--plugin", acl, "--plugin-config", &config];
    let (process, addr) = Process::listening(args);
    sign_in_by_tcp(addr);
    let wrong_hash = format!("{{\"users\": [{{\"username\": \"ann\", \"password_hash\": \"{IN_CONFIG}\"}}]}}");
    let not_a_text = "{\"users\": [{\"username\": \"ann\", \"password_hash\": 7071067811865}]}";
    let not_json = format!("{{\"password_hash\": {IN_CONFIG}}}");
    let mut outputs: Vec<Output> = Vec::new();
    let mut command = |args: &[&str]| outputs.push(host_output([args, &["--control", control]].concat()));
    for config in [&*config, &wrong_hash, not_a_text, &not_json] {
        command(&["configure", "acl", config]);
        command(&["swap", "--plugin", acl, "--plugin-config", config]);
        command(&["swap", "--rollback"]);
    }
    for query in [&["plugins"][..], &["plugins", "--json"], &["health", "--json"], &["metrics", "--json"]] {
        command(query);
    }
    sign_in_by_tcp(addr);
    for config in [&*config, &wrong_hash, not_a_text, &not_json] {
        outputs.push(host_output(["check", acl, "--plugin-config", config]));
        outputs.push(host_output(["check", "--plugin-config", config, "--plugin", acl]));
        outputs.push(host_output(["--listen", "127.0.0.1:0", "--plugin-config", config]));
    }
    outputs.push(output(host_command().args(["--plugin", acl, "--plugin-config", &wrong_hash, "--log", "trace"])));
    let log = process.log();
    process.stop();
    let printed = outputs.iter().flat_map(|output| [&output.stdout, &output.stderr]);
    let printed: Vec<String> = printed.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
    assert!(printed.iter().any(|text| text.contains("password_hash")), "the errors name the place: {printed:#?}");
    assert!(log.iter().any(|line| line.contains("TRACE") || line.contains("DEBUG")), "it is a log at level trace");
    for secret in [PASSWORD, AUTH_DATA, IN_CONFIG, hash, "7071067811865"] {
        let told = log.iter().chain(&printed).find(|text| text.contains(secret));
        assert!(told.is_none(), "{secret} is told: {told:?}");
    }
}

/// What of a configuration file is not of the form that it has to have could be the secret of a plugin.
#[test]
fn no_secret_of_a_file_that_is_wrong_is_logged_or_told() {
    const HEAD: &str = "control = \"s\"\n[[listener]]\nurl = \"127.0.0.1:0\"\n";
    let dir = TempDir::new("secrets-file");
    let file = dir.file("host.toml", HEAD);
    let control = dir.path().join("s");
    let (process, _) = Process::listening(["--config".as_ref(), file.as_os_str()]);
    let wrong = [
        format!("[[plugin]]\npath = \"x.so\"\nconfig = '{{\"password\":\"{IN_CONFIG}\"}}'\n"),
        format!("[[plugin]]\npath = \"x.so\"\nconfig = {{ password = \"{IN_CONFIG}\", ttl = inf }}\n"),
        format!("[limits]\nconnections_max = {{ password = \"{IN_CONFIG}\" }}\n"),
    ];
    for text in wrong {
        dir.file("host.toml", &(HEAD.to_owned() + &text));
        let reload = host_output(["reload".as_ref(), "--control".as_ref(), control.as_os_str()]);
        let check = host_output(["config".as_ref(), "check".as_ref(), file.as_os_str()]);
        for (output, code) in [(reload, 1), (check, 2)] {
            let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
            assert_eq!(output.status.code(), Some(code), "{said}");
            assert!(said.contains("host.toml:") && !said.contains(IN_CONFIG), "{said}");
        }
    }
    process.wait_log("connections_max is a table: expected");
    let log = process.log();
    assert!(!log.iter().any(|line| line.contains(IN_CONFIG)), "{log:?}");
    process.stop();
}
