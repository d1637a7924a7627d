//! Listeners at Unix sockets.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use host::Server;

use crate::harness::{TempDir, start};
use crate::mqtt::{Client, Connect, VERSIONS};

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
