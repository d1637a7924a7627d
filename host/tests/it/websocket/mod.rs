//! Listeners with WebSocket, plain and within TLS.

pub(crate) mod wire;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use host::listener::ListenerConfig;
use host::{Server, ServerHandle};
use plugin_api::{Connect as Request, ConnectVerdict, ConnectionInfo, Error, Handler, Host, handler};

use self::wire::{ACCEPT, BINARY, MORE, PING, PONG, SUBPROTOCOL, TEXT, WebSocketWire, frame, head, request, ws_open};
use crate::certificates::{Authority, tls_listener, tls_wire};
use crate::harness::{PATIENCE, start, with_configured};
use crate::mqtt::{Client, Connect, Publish, V5, VERSIONS, Will, Wire};

/// A server that listens by WebSocket besides.
fn with_websocket(test: impl Fn(&ServerHandle, SocketAddr)) {
    with_configured(|builder| builder.listen("ws://127.0.0.1:0"), |server| test(server, server.local_addrs()[1]));
}

fn listener(configure: impl Fn(&mut ListenerConfig)) -> ListenerConfig {
    let mut config = ListenerConfig::new("ws://127.0.0.1:0".parse().expect("a URL"));
    configure(&mut config);
    config
}

/// Everything at every version, in frames of this size at most.
fn exchange<W: Wire>(server: &ServerHandle, frame_bytes_max: usize, open: impl Fn(u8) -> Client<WebSocketWire<W>>) {
    for version in VERSIONS {
        let open = || {
            let mut client = open(version);
            client.socket_mut().frame_bytes_max = frame_bytes_max;
            client
        };
        let mut subscriber = open().connected("subscriber");
        subscriber.subscribe("a/#", 2);
        let mut plain = Client::connect(server.local_addr(), version, "plain");
        plain.subscribe("a/#", 2);
        let mut publisher = open().connected("publisher");
        for qos in 0..3 {
            for bytes in [0, 1, 200, 20_000, 300_000] {
                publisher.publish("a/b", vec![b'x'; bytes], qos);
                for message in [subscriber.receive(), plain.receive()] {
                    assert_eq!((message.topic.as_str(), message.qos, message.payload.len()), ("a/b", qos, bytes));
                }
            }
        }
        // Taken over by one that comes by TCP.
        let (taker, _) = Client::connect_with(server.local_addr(), &Connect::new(version, "subscriber"));
        subscriber.expect_disconnect(0x8e);
        taker.disconnect();
        publisher.disconnect();
    }
}

#[test]
fn clients_come_by_websocket() {
    // [MQTT-6.0.0-2] [MQTT-6.0.0-2@3.1.1]: packets are in one frame, and in many; and what is sent to clients is one frame a turn.
    with_websocket(|server, addr| {
        exchange(server, 1 << 20, |version| ws_open(addr, version));
        exchange(server, 4_099, |version| ws_open(addr, version));
    });
}

#[test]
fn clients_come_by_websocket_within_tls() {
    let authority = Authority::new("authority");
    let issued = authority.server(&["localhost"]);
    for workers in [1, 3] {
        let mut config = tls_listener(&issued);
        config.url = "wss://127.0.0.1:0".parse().expect("a URL");
        let server = start(workers, |builder| builder.listener(config));
        let addr = server.local_addrs()[1];
        let config = Arc::new(authority.client());
        let open = |version| {
            let wire =
                WebSocketWire::upgraded(tls_wire(TcpStream::connect(addr).unwrap(), Arc::clone(&config)), SUBPROTOCOL);
            Client::over(wire, version)
        };
        exchange(&server, 1 << 20, open);
        // What is no request is answered, too.
        let mut other = tls_wire(TcpStream::connect(addr).unwrap(), Arc::clone(&config));
        other.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert!(head(&mut other).starts_with("HTTP/1.1 404 "));
        server.stop().expect("it stops");
    }
}

/// One socket on which frames are sent.
#[track_caller]
fn raw(addr: SocketAddr) -> WebSocketWire<TcpStream> {
    let socket = TcpStream::connect(addr).unwrap();
    socket.set_nodelay(true).unwrap();
    WebSocketWire::upgraded(socket, SUBPROTOCOL)
}

const CONNACK: (u8, [u8; 5]) = (0x82, [0x20, 3, 0, 0, 0]);

#[test]
fn packets_are_where_they_are_and_not_where_frames_begin() {
    // [MQTT-6.0.0-2] [MQTT-6.0.0-2@3.1.1]
    with_websocket(|_, addr| {
        let mut client = raw(addr);
        let (connect, ping) = (Connect::new(4, "split").bytes(), [0xc0, 0]);
        // CONNECT in three fragments, with a Ping in between, and a frame without anything; then three packets in one.
        let mut sent = frame(BINARY, &connect[..1]);
        sent.extend(frame(0x80 | PING, b"there?"));
        sent.extend(frame(MORE, &connect[1..5]));
        sent.extend(frame(0x80 | MORE, &connect[5..]));
        sent.extend(frame(0x80 | BINARY, b""));
        sent.extend(frame(0x80 | BINARY, &[&ping[..], &ping, &ping[..1]].concat()));
        for byte in &sent {
            client.wire.write_all(&[*byte]).unwrap();
        }
        assert_eq!(client.frame().unwrap(), Some((0x80 | PONG, b"there?".to_vec())));
        let mut packets = Vec::new();
        while packets.len() < 8 {
            let (first, payload) = client.frame().unwrap().expect("it stays open");
            assert_eq!(first, 0x82);
            packets.extend(payload);
        }
        assert_eq!(packets, [0x20, 2, 0, 0, 0xd0, 0, 0xd0, 0]);
        client.wire.write_all(&frame(0x80 | BINARY, &ping[1..])).unwrap();
        assert_eq!(client.frame().unwrap(), Some((0x82, vec![0xd0, 0])));
        // With the request, before it was answered: it waits.
        let mut early = TcpStream::connect(addr).unwrap();
        let sent = [request("/mqtt", SUBPROTOCOL).into_bytes(), frame(0x80 | BINARY, &connect)].concat();
        early.write_all(&sent).unwrap();
        assert!(head(&mut early).starts_with("HTTP/1.1 101 "));
        let mut connack = [0; 6];
        early.read_exact(&mut connack).unwrap();
        assert_eq!(connack, [0x82, 4, 0x20, 2, 0, 0]);
    });
}

#[test]
fn who_sends_what_is_no_binary_frame_is_closed() {
    // [MQTT-6.0.0-1] [MQTT-6.0.0-1@3.1.1]: what came before is handled, and it is not as if the client had said DISCONNECT.
    with_websocket(|server, addr| {
        let mut observer = Client::connect(server.local_addr(), V5, "observer");
        observer.subscribe("#", 0);
        let unmasked = [0x82, 2, 0xc0, 0];
        let sent = [(frame(0x80 | TEXT, b"text"), 1003u16), (frame(TEXT, b""), 1003), (unmasked.to_vec(), 1002)];
        for (wrong, code) in sent {
            let mut client = raw(addr);
            let will = Will { topic: "will", payload: "gone", ..Will::default() };
            let connect = Connect { will: Some(will), ..Connect::new(V5, "c") };
            client.wire.write_all(&frame(0x82, &connect.bytes())).unwrap();
            let before = frame(0x82, &Publish::new("before", "x").bytes(V5));
            let after = frame(0x82, &Publish::new("after", "x").bytes(V5));
            client.wire.write_all(&[before, wrong, after].concat()).unwrap();
            assert_eq!(client.closed()[..2], code.to_be_bytes());
            assert_eq!(observer.receive().topic, "before");
            assert_eq!(observer.receive().topic, "will");
        }
    });
}

#[test]
fn both_sides_say_that_they_close() {
    with_websocket(|server, addr| {
        let mut observer = Client::connect(server.local_addr(), V5, "observer");
        observer.subscribe("will", 0);
        let connect = || {
            let will = Will { topic: "will", payload: "gone", ..Will::default() };
            Connect { will: Some(will), ..Connect::new(V5, "c") }.bytes()
        };
        // Without DISCONNECT, a Close frame is the end of a connection like any other. What came before is answered first.
        let mut client = raw(addr);
        let sent = [frame(0x82, &connect()), frame(0x82, &[0xc0, 0]), frame(0x88, b"\x0f\xa0bye")];
        client.wire.write_all(&sent.concat()).unwrap();
        let (first, packets) = client.frame().unwrap().expect("an answer");
        assert!(first == CONNACK.0 && packets.ends_with(&[0xd0, 0]), "{packets:02x?}");
        assert_eq!(client.closed(), 4000u16.to_be_bytes());
        assert_eq!(observer.receive().text(), "gone");
        // The server closes what the client has said DISCONNECT on.
        let mut client = raw(addr);
        client.wire.write_all(&[frame(0x82, &connect()), frame(0x82, &[0xe0, 0])].concat()).unwrap();
        assert_eq!(client.closed(), 1000u16.to_be_bytes());
        // What is no MQTT is said in MQTT, and then in WebSocket.
        let mut client = raw(addr);
        client.wire.write_all(&[frame(0x82, &connect()), frame(0x82, &[0])].concat()).unwrap();
        assert_eq!(client.closed(), 1000u16.to_be_bytes());
        assert_eq!(observer.receive().text(), "gone");
    });
}

#[test]
fn server_that_stops_says_that_it_goes_away() {
    for workers in [1, 3] {
        let server = start(workers, |builder| builder.listen("ws://127.0.0.1:0"));
        let mut client = raw(server.local_addrs()[1]);
        client.wire.write_all(&frame(0x82, &Connect::new(V5, "c").bytes())).unwrap();
        client.frame().unwrap().expect("CONNACK");
        let waiting = std::thread::spawn(move || {
            let disconnect = client.frame().unwrap().expect("DISCONNECT");
            (disconnect, client.closed())
        });
        server.stop().expect("it stops");
        let (disconnect, close) = waiting.join().unwrap();
        assert_eq!(disconnect, (0x82, vec![0xe0, 1, 0x8b]));
        assert_eq!(close, 1001u16.to_be_bytes());
    }
}

/// The answer to a request, head and body, and then the end.
#[track_caller]
fn answer(addr: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_patience(PATIENCE);
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer, and the end");
    answer
}

#[test]
fn subprotocol_that_is_selected_is_mqtt() {
    // [MQTT-6.0.0-4] [MQTT-6.0.0-4@3.1.1], of those that a client offers [MQTT-6.0.0-3] [MQTT-6.0.0-3@3.1.1].
    with_websocket(|_, addr| {
        for offered in ["mqtt", "chat, mqtt", "mqttv3.1, mqtt"] {
            let mut socket = TcpStream::connect(addr).unwrap();
            socket.set_patience(PATIENCE);
            let headers = format!("Sec-WebSocket-Protocol: {offered}\r\n");
            socket.write_all(request("/mqtt", &headers).as_bytes()).unwrap();
            let expected = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{ACCEPT}\
                 Sec-WebSocket-Protocol: mqtt\r\n\r\n"
            );
            assert_eq!(head(&mut socket), expected, "{offered}");
        }
        for headers in ["", "Sec-WebSocket-Protocol: chat\r\n"] {
            let answer = answer(addr, &request("/mqtt", headers));
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("subprotocol mqtt"), "{answer}");
        }
    });
}

#[test]
fn request_that_is_not_for_mqtt_gets_an_answer_of_http() {
    with_websocket(|_, addr| {
        let cases = [
            ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 404 Not Found\r\n", "is at /mqtt"),
            ("GET /mqtt HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 426 Upgrade Required\r\n", "Upgrade: websocket"),
            ("HEAD /mqtt HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 405 Method Not Allowed\r\n", "Allow: GET"),
            ("\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0", "HTTP/1.1 400 Bad Request\r\n", "CONNECT packet without WebSocket"),
        ];
        for (request, status, says) in cases {
            let answer = answer(addr, request);
            assert!(answer.starts_with(status) && answer.contains(says), "{answer}");
            assert!(answer.contains("Connection: close"), "{answer}");
        }
        let endless = format!("GET /mqtt HTTP/1.1\r\nX: {}", "x".repeat(16 << 10));
        assert!(answer(addr, &endless).starts_with("HTTP/1.1 431 "));
    });
}

#[test]
fn pages_of_other_origins_are_kept_out_where_some_are_named() {
    let config = listener(|config| {
        config.url = "ws://127.0.0.1:0/broker".parse().expect("a URL");
        config.websocket.origins = vec!["https://example.com".to_owned()];
    });
    let server = start(1, |builder| builder.listener(config));
    let addr = server.local_addrs()[1];
    for (origin, status) in [("https://example.com", 101), ("https://evil.example", 403)] {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.set_patience(PATIENCE);
        let headers = format!("{SUBPROTOCOL}Origin: {origin}\r\n");
        socket.write_all(request("/broker", &headers).as_bytes()).unwrap();
        assert!(head(&mut socket).starts_with(&format!("HTTP/1.1 {status} ")), "{origin}");
    }
    let wrong = listener(|config| config.websocket.origins = vec!["example.com".to_owned()]);
    let error = Server::builder().listener(wrong).start().map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("\"example.com\" is no origin: expected one such as https://example.com"), "{error}");
}

#[test]
fn messages_are_compressed_where_that_is_on_and_offered() {
    const OFFER: &str = "Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let server = start(1, |builder| builder.listener(listener(|config| config.websocket.deflate = true)));
    let addr = server.local_addrs()[1];
    let mut subscriber =
        Client::over(WebSocketWire::upgraded(TcpStream::connect(addr).unwrap(), OFFER), V5).connected("s");
    subscriber.subscribe("t", 0);
    let mut publisher = Client::connect(server.local_addr(), V5, "p");
    publisher.publish("t", "temperature ".repeat(1_000), 1);
    let (first, message) = subscriber.socket_mut().frame().unwrap().expect("a frame");
    assert!(first == 0xc2 && message.len() < 500, "{first:02x}, {} bytes", message.len());
    // What was got is sent back: as a frame of its own, and means the same.
    subscriber.socket_mut().wire.write_all(&frame(0xc2, &message)).unwrap();
    let (_, again) = subscriber.socket_mut().frame().unwrap().expect("a frame");
    assert_eq!(again, message);
    // Nobody else gets it compressed.
    ws_open(addr, V5).connected("plain").subscribe("t", 0);
}

/// Keeps what a request had.
struct Witness;

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[handler]
impl Handler for Witness {
    type Connection = ();

    fn init(_host: Host, _config: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, info: &ConnectionInfo<'_>) {
        let kind = info.transport().kind();
        SEEN.lock().unwrap().push(format!("{kind:?}"));
    }

    fn handle_connect(&self, (): &mut (), connect: &Request<'_>) -> Result<ConnectVerdict, Error> {
        let http = connect.transport().http().expect("it comes by WebSocket");
        let headers = http.headers().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value)));
        SEEN.lock().unwrap().extend([
            http.path().to_owned(),
            headers.collect::<Vec<_>>().join(" "),
            format!("{connect:?} {:?} {http:?}", connect.transport()),
        ]);
        Ok(ConnectVerdict::accept())
    }
}

#[test]
fn handlers_see_the_request() {
    let server = start(3, |builder| builder.listen("ws://127.0.0.1:0").handler::<Witness>("witness", "{}"));
    let mut socket = TcpStream::connect(server.local_addrs()[1]).unwrap();
    let headers = format!("{SUBPROTOCOL}x-Token: secret\r\nX-Forwarded-For: 192.0.2.7\r\nx-token: second\r\n");
    socket.write_all(request("/mqtt?tenant=a", &headers).as_bytes()).unwrap();
    assert!(head(&mut socket).starts_with("HTTP/1.1 101 "));
    socket.write_all(&frame(0x82, &Connect::new(V5, "c").bytes())).unwrap();
    socket.read_exact(&mut [0; 2]).unwrap();
    let seen = SEEN.lock().unwrap();
    assert_eq!(seen[..2], ["Ws", "/mqtt?tenant=a"]);
    assert!(seen[2].starts_with("Host=localhost Connection=Upgrade "), "{seen:?}");
    assert!(seen[2].ends_with(" x-Token=secret X-Forwarded-For=192.0.2.7 x-token=second"), "{seen:?}");
    // Who logs all of it logs no secrets.
    assert!(seen[3].contains("\"/mqtt\"") && !seen[3].contains("tenant") && !seen[3].contains("secret"), "{seen:?}");
}
