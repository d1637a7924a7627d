//! Sockets that systemd opens: passed by hand, as it passes them, and by its own program; and the units that are shipped.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{Process, TempDir, eventually, have, host_command, host_output, output};
use crate::mqtt::{Client, V5};

const SYSTEMD: &str = "apt-get install systemd";

/// The program with two sockets at 3 and 4, as the file descriptors of standard input and output can be had without `unsafe`.
fn with_sockets(sockets: [&TcpListener; 2], args: &[&str]) -> Command {
    let host = host_command();
    let mut command = Command::new("sh");
    let script = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=first:second; export LISTEN_PID LISTEN_FDS LISTEN_FDNAMES; \
                  exec \"$0\" \"$@\" 3<&0 4<&1 </dev/null >/dev/null";
    command.args(["-c", script]).arg(host.get_program()).args(args);
    command.envs(host.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let fd = |socket: &TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().expect("a descriptor")));
    command.stdin(fd(sockets[0])).stdout(fd(sockets[1])).stderr(Stdio::piped());
    command
}

fn socket() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// Says CONNECT where a connection was made before.
#[track_caller]
fn greet(stream: TcpStream, client_id: &str) {
    Client::over(stream, V5).connected(client_id).ping();
}

#[test]
fn who_comes_while_the_server_restarts_is_not_refused() {
    let ((first, at_first), (second, at_second)) = (socket(), socket());
    for round in 0..2 {
        // They come before there is a server.
        let early = [at_first, at_second].map(|addr| TcpStream::connect(addr).expect("the socket is open"));
        let process = Process::spawn_with_stdin(&mut with_sockets([&first, &second], &[]));
        for (name, addr) in [("first", at_first), ("second", at_second)] {
            process.wait_log(&format!("a listening socket was passed: {addr} ({name})"));
            process.wait_log(&format!("listening on {addr}"));
        }
        for stream in early {
            greet(stream, &format!("early-{round}"));
        }
        Client::connect(at_second, V5, "late").ping();
        process.stop();
    }
}

#[test]
fn listeners_take_the_sockets_of_their_address_and_open_the_others() {
    let ((first, at_first), (second, at_second)) = (socket(), socket());
    let urls = [format!("tcp://{at_second}"), format!("tcp://{at_first}")];
    let args = ["--listen", &urls[0], "--listen", "127.0.0.1:0", "--listen", &urls[1]];
    let process = Process::spawn_with_stdin(&mut with_sockets([&first, &second], &args));
    for addr in [at_first, at_second] {
        process.wait_log(&format!("listening on {addr}"));
        Client::connect(addr, V5, "c").ping();
    }
    let own = |line: &String| {
        let (_, addr) = line.split_once("listening on ")?;
        let addr = addr.split(' ').next()?.parse().ok();
        addr.filter(|addr: &SocketAddr| ![at_first, at_second].contains(addr))
    };
    eventually("the third listens", || process.log().iter().any(|line| own(line).is_some()));
    let own = process.log().iter().find_map(own).unwrap();
    Client::connect(own, V5, "own").ping();
    process.stop();
}

#[test]
fn socket_that_is_for_no_listener_is_an_error() {
    let ((first, at_first), (second, _)) = (socket(), socket());
    let mut process = Process::spawn_with_stdin(&mut with_sockets([&first, &second], &["--listen", "127.0.0.1:0"]));
    process.wait_log_of(&[&format!("cannot listen at {at_first} (first)"), "no listener has its address or its name"]);
    assert_eq!(process.wait().code(), Some(2));
}

/// Whoever has passed a socket goes on having it: clients would wait there for nobody.
#[test]
fn socket_that_was_passed_is_not_given_up_by_a_reload() {
    let ((first, at_first), (second, at_second)) = (socket(), socket());
    let dir = TempDir::new("passed-reload");
    let (file, control) = (dir.file("host.toml", "workers = 1\n"), dir.path().join("s"));
    let [file_name, control_name] = [&file, &control].map(|path| path.to_str().unwrap());
    let args = ["--config", file_name, "--control", control_name];
    let process = Process::spawn_with_stdin(&mut with_sockets([&first, &second], &args));
    process.wait_log(&format!("listening on {at_second}"));
    let reload = |listeners: &[String]| {
        let listeners: String = listeners.iter().map(|url| format!("[[listener]]\nurl = \"{url}\"\n")).collect();
        std::fs::write(&file, format!("workers = 1\n{listeners}")).unwrap();
        let output = host_output(["reload", "--control", control_name]);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let greet = |name: &str| {
        for addr in [at_first, at_second] {
            Client::connect(addr, V5, format!("{name}-{}", addr.port())).ping();
        }
    };
    eventually("it can be told to reload", || control.exists());
    let (code, said) = reload(&["127.0.0.1:0".to_owned(), format!("tcp://{at_first}")]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("{at_second} (second): this socket was passed, and no listener has its")), "{said}");
    greet("refused");
    let (code, said) = reload(&[at_second, at_first].map(|addr| format!("tcp://{addr}")));
    assert_eq!(code, Some(0), "{said}");
    greet("named");
    // Without listeners it has what was passed, as from the start.
    let (code, said) = reload(&[]);
    assert_eq!((code, said.as_str()), (Some(0), "nothing has changed\n"));
    greet("default");
    process.stop();
}

/// What systemd listens on is not looked at more mildly: everybody could connect.
#[test]
fn passed_socket_that_other_machines_reach_needs_somebody_who_decides() {
    let open = TcpListener::bind("0.0.0.0:0").unwrap();
    let mut process = Process::spawn_with_stdin(&mut with_sockets([&open, &socket().0], &[]));
    process.wait_log_of(&["will not listen at 0.0.0.0:", "no plugin decides who may connect"]);
    assert_eq!(process.wait().code(), Some(2));
}

#[test]
fn service_manager_is_told_when_clients_can_come_and_that_it_stops() {
    let dir = TempDir::new("notify");
    let path = dir.path().join("socket");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    let said = || {
        let mut bytes = [0; 100];
        let length = manager.recv(&mut bytes).expect("it says something");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let mut process = Process::spawn(host_command().args(["--listen", "127.0.0.1:0"]).env("NOTIFY_SOCKET", &path));
    assert_eq!(said(), "READY=1");
    Client::connect(process.wait_listening(), V5, "c").ping();
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(said(), "STOPPING=1");
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn program_of_systemd_passes_sockets() {
    if !have("systemd-socket-activate", &["--version"], SYSTEMD) {
        return;
    }
    // An address of its own, as it takes no port 0.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let addr = SocketAddr::from(([127, high | 1, middle, low], 18_83));
    let host = host_command();
    let mut command = Command::new("systemd-socket-activate");
    command.args(["--listen", &addr.to_string(), "--fdname", "mqtt"]);
    for (name, value) in host.get_envs() {
        command.arg(format!("--setenv={}={}", name.to_str().unwrap(), value.unwrap().to_str().unwrap()));
    }
    let process = Process::spawn(command.arg(host.get_program()));
    process.wait_log("Listening on");
    // The first one starts it.
    let first = TcpStream::connect(addr).unwrap();
    process.wait_log(&format!("a listening socket was passed: {addr} (mqtt)"));
    greet(first, "first");
    Client::connect(addr, V5, "c").ping();
    process.stop();
}

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

#[test]
fn units_are_as_systemd_wants_them() {
    if !have("systemd-analyze", &["--version"], SYSTEMD) {
        return;
    }
    let dir = TempDir::new("units");
    let socket = std::fs::read_to_string(units().join("host.socket")).unwrap();
    let service = std::fs::read_to_string(units().join("host.service")).unwrap();
    // It has to be there.
    let host = host_command().get_program().to_str().unwrap().to_owned();
    let service = service.replace("/usr/local/bin/host", &host);
    let (socket, service) = (dir.file("host.socket", &socket), dir.file("host.service", &service));
    let said = output(Command::new("systemd-analyze").arg("verify").args([&socket, &service]));
    assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
}

/// The commands of the unit, with its sockets.
#[test]
fn units_start_a_server_at_their_sockets() {
    let socket = std::fs::read_to_string(units().join("host.socket")).unwrap();
    let values = |text: &str, key: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned).collect()
    };
    for stream in values(&socket, "ListenStream") {
        let addr: SocketAddr = stream.parse().expect("an address");
        assert!(addr.ip().is_loopback(), "{addr}: nobody from elsewhere, unless told");
    }
    let service = std::fs::read_to_string(units().join("host.service")).unwrap();
    let dir = TempDir::new("unit");
    let args = |key| -> Vec<String> {
        let command = values(&service, key).concat().replace("/run/host", dir.path().to_str().unwrap());
        let command = command.replace("/var/lib/host", dir.path().to_str().unwrap());
        command.split(' ').skip(1).map(str::to_owned).collect()
    };
    let config = dir.file("host.toml", "[limits]\ntopic_alias_max = 7\n");
    let ((first, at_first), (second, at_second)) = (self::socket(), self::socket());
    let start = args("ExecStart");
    let start: Vec<&str> = start.iter().map(String::as_str).collect();
    let process = Process::spawn_with_stdin(with_sockets([&first, &second], &start).env("HOST_CONFIG", &config));
    for addr in [at_first, at_second] {
        process.wait_log(&format!("listening on {addr}"));
        Client::connect(addr, V5, "c").ping();
    }
    dir.file("host.toml", "[limits]\ntopic_alias_max = 8\n");
    let said = host_output(args("ExecReload"));
    assert!(said.status.success() && String::from_utf8_lossy(&said.stdout).contains("topic_alias_max"), "{said:?}");
    dir.file("host.toml", "[limits]\ntopic_alias_max = -1\n");
    assert_eq!(host_output(args("ExecReload")).status.code(), Some(1));
    process.stop();
}
