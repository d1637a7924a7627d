//! What clients may do with a connection besides opening a stream, and how it may end.

use std::net::UdpSocket;

use quinn::SendDatagramError;

use super::*;
use crate::mqtt::Publish;

#[test]
fn connection_has_one_stream() {
    let authority = Authority::new("authority");
    let (server, addr) = serve(1, &authority);
    let mut client = open(addr, &authority, V5).connected("c");
    let connection = client.wire().connection.clone();
    let more = async {
        let second = tokio::time::timeout(Duration::from_millis(100), connection.open_bi()).await;
        let one_way = tokio::time::timeout(Duration::from_millis(100), connection.open_uni()).await;
        (second.is_ok(), one_way.is_ok())
    };
    assert_eq!(runtime().block_on(more), (false, false));
    assert_eq!(connection.send_datagram(vec![0xc0, 0].into()), Err(SendDatagramError::UnsupportedByPeer));
    client.ping();
    server.stop().expect("it stops");
}

/// Who hears of a will.
struct Heir(Client);

impl Heir {
    fn new(server: &ServerHandle) -> Self {
        let mut heir = Client::connect(server.local_addr(), V5, "heir");
        heir.subscribe("will", 1);
        Self(heir)
    }

    fn testator(client: Client<QuicWire>) -> Client<QuicWire> {
        let will = Will { topic: "will", payload: "gone", qos: 1, ..Will::default() };
        let (client, connack) = client.connecting(&Connect { will: Some(will), ..Connect::new(V5, "testator") });
        assert_eq!(connack.code, 0);
        client
    }

    fn inherits(&mut self) {
        assert_eq!(self.0.receive().text(), "gone");
    }
}

/// How a client ends its connection.
type End = fn(&mut QuicWire);

/// However it ends, and whatever of its connection goes first.
#[test]
fn connection_that_ends_has_its_will_published() {
    let authority = Authority::new("authority");
    let (server, addr) = serve(1, &authority);
    let mut heir = Heir::new(&server);
    let ends: [(&str, End); 4] = [
        ("closed", |wire| wire.connection.close(7u8.into(), b"")),
        ("reset", |wire| wire.to_server.reset(7u8.into()).unwrap()),
        ("finished", |wire| wire.to_server.finish().unwrap()),
        ("not heard", |wire| wire.from_server.stop(7u8.into()).unwrap()),
    ];
    for (what, end) in ends {
        println!("{what}");
        let mut client = Heir::testator(open(addr, &authority, V5));
        let connection = client.wire().connection.clone();
        end(client.wire());
        if what == "not heard" {
            // It is noticed when there is something to be told.
            assert!(client.try_send([0xc0, 0]));
        }
        heir.inherits();
        let closed = runtime().block_on(connection.closed());
        assert!(
            matches!(closed, ConnectionError::ApplicationClosed(_) | ConnectionError::LocallyClosed),
            "{what}: {closed:?}"
        );
    }
    server.stop().expect("it stops");
}

/// What it has sent before is answered.
#[test]
fn client_that_has_said_all_hears_the_answers() {
    let authority = Authority::new("authority");
    let (server, addr) = serve(1, &authority);
    let mut client = open(addr, &authority, V5);
    client.send([Connect::new(V5, "c").bytes(), Publish::new("t", "x").qos(1, 7).bytes(V5)].concat());
    client.finish_sending();
    assert_eq!(client.connack().code, 0);
    client.expect_ack(4, 7);
    client.expect_closed();
    server.stop().expect("it stops");
}

/// Nothing is heard of it any more, not even that it has gone.
#[test]
fn client_that_vanishes_has_its_will_published() {
    let authority = Authority::new("authority");
    let (server, addr) = serve(1, &authority);
    let mut heir = Heir::new(&server);
    // The shorter one of both sides' times counts. Until then it says all the time that it is there.
    let mut transport = quinn::TransportConfig::default();
    transport.max_idle_timeout(Some(Duration::from_secs(3).try_into().unwrap()));
    transport.keep_alive_interval(Some(Duration::from_millis(100)));
    let mut config = client_config(&authority, &["mqtt"]);
    config.transport_config(Arc::new(transport));
    let endpoint = endpoint();
    let client = Heir::testator(over(connect_by(&endpoint, addr, config).expect("a connection"), V5));
    // From now on it speaks from a network that leads nowhere.
    endpoint.rebind_abstract(Arc::new(Nowhere)).expect("another socket");
    heir.inherits();
    drop(client);
    server.stop().expect("it stops");
}

/// A socket that loses all that is sent, and by which nothing comes.
#[derive(Debug)]
struct Nowhere;

impl quinn::AsyncUdpSocket for Nowhere {
    fn create_io_poller(self: Arc<Self>) -> std::pin::Pin<Box<dyn quinn::UdpPoller>> {
        Box::pin(Nowhere)
    }

    fn try_send(&self, _: &quinn::udp::Transmit<'_>) -> io::Result<()> {
        Ok(())
    }

    fn poll_recv(
        &self,
        _: &mut std::task::Context<'_>,
        _: &mut [io::IoSliceMut<'_>],
        _: &mut [quinn::udp::RecvMeta],
    ) -> std::task::Poll<io::Result<usize>> {
        std::task::Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 9).into())
    }
}

impl quinn::UdpPoller for Nowhere {
    fn poll_writable(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

/// The address that it came from is the one that counts, wherever it is by now.
#[test]
fn client_may_change_its_address() {
    let authority = Authority::new("authority");
    let mut limits = host::Limits::default();
    limits.connections_per_address_max = 1;
    let server = start(2, |builder| builder.listener(listener(&authority)).limits(limits));
    let addr = server.local_addrs()[1];
    let endpoint = endpoint();
    let connection = connect_by(&endpoint, addr, client_config(&authority, &["mqtt"])).expect("a connection");
    let mut client = over(connection, V5).connected("moves");
    for last in [2, 3] {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, last), 0)).unwrap();
        runtime().block_on(async { endpoint.rebind(socket) }).expect("another socket");
        client.ping();
        client.subscribe("t", 1);
        client.publish("t", vec![b'x'; 100_000], 1);
        assert_eq!(client.receive().payload.len(), 100_000);
    }
    let mut other = open(addr, &authority, V5);
    let _ = other.try_send(Connect::new(V5, "other").bytes());
    other.expect_closed();
    client.disconnect();
    eventually("there is room again", || {
        let mut other = open(addr, &authority, V5);
        other.try_send(Connect::new(V5, "other").bytes()) && other.try_read().is_some()
    });
    server.stop().expect("it stops");
}
