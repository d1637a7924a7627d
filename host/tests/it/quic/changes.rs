//! Listeners for QUIC, and their certificates, change while the server runs.

use std::net::UdpSocket;

use host::Server;
use host::config::Config;
use host::control::protocol::Refusal;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;

use super::*;
use crate::tls::put;

/// The certificate that a server shows.
fn shown(addr: SocketAddr, authority: &Authority) -> Vec<u8> {
    let connection = connect(addr, client_config(authority, &["mqtt"])).expect("a connection");
    let chain = connection.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();
    chain[0].to_vec()
}

#[test]
fn certificates_are_read_anew_and_nobody_is_disconnected() {
    let (authority, dir) = (Authority::new("authority"), TempDir::new("quic-certificates"));
    let issued = ["first", "second", "third"].map(|name| authority.server(&["localhost", name]));
    let place = put(&issued[0], &dir);
    let mut config = listener(&authority);
    (config.tls.certificate, config.tls.private_key) = (Some(place.certificate), Some(place.private_key.clone()));
    let server = start(2, |builder| builder.listener(config));
    let addr = server.local_addrs()[1];
    let mut stays = open(addr, &authority, V5).connected("stays");
    let first = shown(addr, &authority);
    // By themselves, once they have changed.
    put(&issued[1], &dir);
    eventually("the new certificate is shown", || shown(addr, &authority) != first);
    let second = shown(addr, &authority);
    // Something that is of no use: the one from before goes on.
    std::fs::write(&place.private_key, "nothing").unwrap();
    let errors: Vec<_> = server.reload_certificates().into_iter().filter_map(Result::err).collect();
    assert!(errors.len() == 1 && errors[0].to_string().contains("there is no private key in"), "{errors:?}");
    assert_eq!(shown(addr, &authority), second);
    // When it is told to.
    put(&issued[2], &dir);
    assert!(server.reload_certificates().iter().all(Result::is_ok));
    assert!(![first, second].contains(&shown(addr, &authority)));
    stays.ping();
    server.stop().expect("it stops");
}

#[test]
fn listeners_come_and_go_while_clients_stay() {
    let authority = Authority::new("authority");
    let plain = ListenerConfig::new("tcp://127.0.0.1:0".parse().unwrap());
    let with = |listeners: &[&ListenerConfig]| {
        let mut config = Config::default();
        config.listeners = listeners.iter().copied().cloned().collect();
        config
    };
    let mut current = with(&[&plain]);
    let server = Server::builder().workers(2).listener(plain.clone()).start().unwrap();
    let mut reload = |listeners: &[&ListenerConfig]| {
        let (next, report) = server.reload(&current, &with(listeners))?;
        current = next;
        let keys = |changes: &[host::Change]| changes.iter().map(|change| change.key.clone()).collect::<Vec<_>>();
        Ok::<_, Refusal>((keys(&report.changed), keys(&report.restart)))
    };
    let mut witness = Client::connect(server.local_addr(), V5, "witness");
    witness.subscribe("#", 0);
    // The first one for QUIC, for which there is no thread yet.
    let mut quic = listener(&authority);
    quic.name = Some("quic".to_owned());
    assert_eq!(reload(&[&plain, &quic]).unwrap(), (vec!["listener quic".to_owned()], vec![]));
    let addr = server.local_urls()[1].addr().unwrap();
    let mut first = open(addr, &authority, V5).connected("first");
    let before = shown(addr, &authority);
    // What is different about it holds for who connects from then on.
    let issued = authority.server(&["localhost", "second"]);
    (quic.tls.certificate, quic.tls.private_key) = (Some(issued.certificate), Some(issued.private_key));
    quic.rules.mount = Some("by-quic".parse().unwrap());
    quic.tcp.dual_stack = !quic.tcp.dual_stack;
    let (changed, restart) = reload(&[&plain, &quic]).unwrap();
    let key = |key| format!("listener quic: {key}");
    assert_eq!(changed, ["mount", "certificate", "private_key"].map(key));
    assert_eq!(restart, [key("dual_stack")]);
    quic.tcp.dual_stack = !quic.tcp.dual_stack;
    eventually("the new certificate is shown", || shown(addr, &authority) != before);
    let mut second = open(addr, &authority, V5).connected("second");
    first.publish("t", "", 1);
    second.publish("t", "", 1);
    assert_eq!([witness.receive(), witness.receive()].map(|message| message.topic), ["t", "by-quic/t"]);
    // What is wrong changes nothing.
    let mut wrong = quic.clone();
    wrong.tls.certificate = Some("/no/such".into());
    assert!(reload(&[&plain, &wrong]).is_err());
    open(addr, &authority, V5).connected("third").disconnect();
    // Gone: nobody connects there any more, and who is there stays.
    assert_eq!(reload(&[&plain]).unwrap(), (vec!["listener quic".to_owned()], vec![]));
    let mut hasty = quinn::TransportConfig::default();
    hasty.max_idle_timeout(Some(Duration::from_millis(500).try_into().unwrap()));
    let mut config = client_config(&authority, &["mqtt"]);
    config.transport_config(Arc::new(hasty));
    eventually("nobody answers", || matches!(connect(addr, config.clone()), Err(ConnectionError::TimedOut)));
    first.ping();
    let mut elsewhere = quic.clone();
    elsewhere.url = format!("quic://0.0.0.0:{}", addr.port()).parse().unwrap();
    elsewhere.rules.allow_anonymous = Some(true);
    let refusal = reload(&[&plain, &elsewhere]).unwrap_err();
    assert!(refusal.reason.contains("own listener quic is there, whose clients share"), "{}", refusal.reason);
    // There again, by the same socket, as its clients are: with other settings.
    quic.url = format!("quic://{addr}").parse().unwrap();
    quic.rules.mount = Some("again".parse().unwrap());
    let (changed, restart) = reload(&[&plain, &quic]).unwrap();
    assert_eq!((&changed[0], restart), (&"listener quic".to_owned(), vec![]));
    let mut fourth = open(addr, &authority, V5).connected("fourth");
    for (client, topic) in [(&mut first, "t"), (&mut second, "by-quic/t"), (&mut fourth, "again/t")] {
        client.publish("t", "", 1);
        assert_eq!(witness.receive().topic, topic);
    }
    // Its port goes with the last of them.
    assert_eq!(reload(&[&plain]).unwrap(), (vec!["listener quic".to_owned()], vec![]));
    assert!(UdpSocket::bind(addr).is_err());
    [first, second, fourth].into_iter().for_each(Client::disconnect);
    eventually("its port is closed", || UdpSocket::bind(addr).is_ok());
    // And can be had anew.
    reload(&[&quic]).unwrap();
    open(addr, &authority, V5).connected("fifth").ping();
    witness.ping();
    server.stop().expect("it stops");
}

#[test]
fn signal_has_the_file_read_anew() {
    let (authority, dir) = (Authority::new("authority"), TempDir::new("quic-reload"));
    let issued = authority.server(&["localhost"]);
    let plain = "[[listener]]\nurl = \"127.0.0.1:0\"\n";
    let both = format!(
        "{plain}[[listener]]\nurl = \"quic://127.0.0.1:0\"\ncertificate = {:?}\nprivate_key = {:?}\n",
        issued.certificate, issued.private_key
    );
    let file = dir.file("host.toml", plain);
    let process =
        Process::start([OsStr::new("--config"), file.as_os_str(), OsStr::new("--control"), OsStr::new("none")]);
    process.wait_log("listening on 127.0.0.1:");
    dir.file("host.toml", &both);
    process.signal(Signal::HUP);
    let addr = process.wait_listening_on("quic://127.0.0.1:");
    let mut client = open(addr, &authority, V5).connected("c");
    let before = shown(addr, &authority);
    // The same names, and other files.
    let other = authority.server(&["localhost"]);
    std::fs::copy(other.certificate, issued.certificate).unwrap();
    std::fs::copy(other.private_key, issued.private_key).unwrap();
    process.signal(Signal::HUP);
    process.wait_log("reloaded: changed: listener quic://127.0.0.1:0: certificate");
    assert_ne!(shown(addr, &authority), before);
    dir.file("host.toml", plain);
    process.signal(Signal::HUP);
    process.wait_log("no longer listening on quic://127.0.0.1:");
    client.ping();
    process.stop();
}
