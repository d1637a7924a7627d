//! Both processes have the socket of a listener for QUIC, of which one takes what comes.

use super::*;
use crate::quic::open;

/// A host with a listener for QUIC, and where that is.
fn start(name: &str, authority: &Authority) -> (Host, SocketAddr) {
    let issued = authority.server(&["localhost"]);
    let text = format!(
        "[[listener]]\nurl = \"127.0.0.1:0\"\n[[listener]]\nurl = \"quic://127.0.0.1:0\"\ncertificate = {:?}\nprivate_key = {:?}\n",
        issued.certificate, issued.private_key
    );
    let host = Host::configured(name, &text);
    let addr = host.process.wait_listening_on("quic://127.0.0.1:");
    (host, addr)
}

#[test]
fn clients_are_told_and_connect_to_the_next_process() {
    let authority = Authority::new("authority");
    let (host, addr) = start("upgrade-quic", &authority);
    let mut plain = Client::connect(host.addr, V5, "plain");
    let connect = Connect::new(V5, "by-quic").persistent();
    let (mut client, _) = open(addr, &authority, V5).connecting(&connect);
    client.subscribe("t", 1);
    for round in 0..3 {
        client = std::thread::scope(|scope| {
            // It connects again while the process that it comes from may still be there.
            let again = scope.spawn(|| {
                client.expect_disconnect(0x8B);
                open(addr, &authority, V5).connecting(&connect)
            });
            let result = host.upgrade();
            assert_eq!((result["connections"].as_u64(), result["closed"].as_u64()), (Some(1), Some(1)), "{result}");
            let (again, connack) = again.join().unwrap();
            assert!(connack.session_present);
            again
        });
        let text = format!("message {round}");
        plain.publish("t", &text, 1);
        let message = client.receive();
        assert_eq!(message.text(), text);
        open(addr, &authority, V5).connected("another").disconnect();
    }
    let process = Pid::from_raw(host.pid()).unwrap();
    kill_process(process, Signal::TERM).unwrap();
    client.expect_disconnect(0x8B);
}

#[test]
fn process_that_goes_on_serving_lets_clients_in_again() {
    let authority = Authority::new("authority");
    let (host, addr) = start("upgrade-quic-fails", &authority);
    let connect = Connect::new(V5, "by-quic").persistent();
    let (mut client, _) = open(addr, &authority, V5).connecting(&connect);
    let mut plain = Client::connect(host.addr, V5, "plain");
    let player = Step::Taken.player(&host.dir);
    for _ in 0..2 {
        let (step, why) = host.refuse(&["--binary", player.to_str().unwrap()]);
        assert_eq!(step, "go", "{why}");
        client.expect_disconnect(0x8B);
        let (again, connack) = open(addr, &authority, V5).connecting(&connect);
        assert!(connack.session_present);
        client = again;
        client.ping();
        plain.ping();
    }
    host.upgrade();
    client.expect_disconnect(0x8B);
    assert!(open(addr, &authority, V5).connecting(&connect).1.session_present);
}
