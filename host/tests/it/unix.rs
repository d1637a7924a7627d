//! Listeners at Unix sockets.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use std::process::Command;
use std::sync::Mutex;

use host::Server;
use plugin_api::{Connect as Request, ConnectVerdict, ConnectionInfo, Error, Handler, Host, UnixPeer, handler};

use crate::harness::{Process, TempDir, eventually, host_command, host_output, start};
use crate::mqtt::{Client, Connect, V5, VERSIONS};

#[test]
fn clients_come_by_a_unix_socket() {
    let dir = TempDir::new("unix");
    let path = dir.path().join("mqtt.sock");
    for workers in [1, 3] {
        let server = start(workers, |builder| builder.listen(format!("unix:{}", path.display())));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(server.local_urls()[1].to_string(), format!("unix:{}", path.display()));
        for version in VERSIONS {
            let open = || Client::over(UnixStream::connect(&path).expect("somebody listens"), version);
            let mut subscriber = open().connected("subscriber");
            subscriber.subscribe("a/#", 2);
            let mut plain = Client::connect(server.local_addr(), version, "plain");
            plain.subscribe("a/#", 2);
            let mut publisher = open().connected("publisher");
            for qos in 0..3 {
                publisher.publish("a/b", vec![b'x'; 300_000], qos);
                let message = subscriber.receive();
                assert_eq!((message.topic.as_str(), message.qos, message.payload.len()), ("a/b", qos, 300_000));
                assert_eq!(plain.receive().payload.len(), 300_000);
            }
            // Taken over by one that comes by TCP.
            let (taker, _) = Client::connect_with(server.local_addr(), &Connect::new(version, "subscriber"));
            subscriber.expect_disconnect(0x8e);
            taker.disconnect();
            publisher.disconnect();
        }
        server.stop().expect("it stops");
        assert!(!path.exists(), "its name has gone with it");
    }
}

#[test]
fn place_of_a_socket_is_taken_only_if_nobody_listens_there() {
    let dir = TempDir::new("unix-place");
    let path = dir.path().join("mqtt.sock");
    let start = || Server::builder().listen(format!("unix:{}", path.display())).start();
    let living = UnixListener::bind(&path).unwrap();
    let error = start().map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("another program (or another host) listens there"), "{error}");
    drop(living);
    let server = start().expect("nobody listens at the old one");
    Client::over(UnixStream::connect(&path).unwrap(), 4).connected("c").disconnect();
    server.stop().unwrap();
    std::fs::write(&path, "precious").unwrap();
    let error = start().map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("something else than a socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

/// Keeps who was behind a connection.
struct Witness;

static SEEN: Mutex<Vec<Option<UnixPeer>>> = Mutex::new(Vec::new());

#[handler]
impl Handler for Witness {
    type Connection = ();

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, info: &ConnectionInfo<'_>) {
        SEEN.lock().unwrap().push(info.transport().unix());
    }

    fn handle_connect(&self, (): &mut (), connect: &Request<'_>) -> Result<ConnectVerdict, Error> {
        SEEN.lock().unwrap().push(connect.transport().unix());
        Ok(ConnectVerdict::accept())
    }
}

#[test]
fn handlers_see_who_is_behind_it() {
    let dir = TempDir::new("unix-peer");
    let path = dir.path().join("mqtt.sock");
    let listen = format!("unix:{}", path.display());
    let server = start(1, |builder| builder.listen(listen).handler::<Witness>("witness", "{}"));
    Client::over(UnixStream::connect(&path).unwrap(), V5).connected("c").disconnect();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let ours = UnixPeer { uid: uid.into(), gid: gid.into(), pid: std::process::id().into() };
    assert_eq!(*SEEN.lock().unwrap(), [Some(ours); 2]);
    server.stop().unwrap();
}

/// The kernel says 0 for its process, and who it is all the same. As root only: nobody else can make a namespace everywhere.
#[test]
fn whose_process_cannot_be_seen_is_known_by_its_user() {
    let can = Command::new("unshare").args(["--pid", "--fork", "true"]).status().is_ok_and(|status| status.success());
    if !can {
        return eprintln!("NOT RUN: no namespace of processes can be made here");
    }
    let dir = TempDir::new("unix-namespace");
    let control = dir.path().join("s");
    let host = host_command();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]).arg(host.get_program());
    command.args(["--listen", "127.0.0.1:0", "--control"]).arg(&control);
    let mut process = Process::spawn(&mut command);
    process.wait_listening();
    let mut said = None;
    eventually("it takes commands", || {
        let output = host_output(["plugins".as_ref(), "--control".as_ref(), control.as_os_str()]);
        let is_done = output.status.success();
        said = Some(output);
        is_done || !control.exists()
    });
    let said = said.expect("it was asked");
    assert!(said.status.success(), "{said:?}");
}
