use super::*;
use crate::core::peer::HttpDetails;

const VALID: &str = "GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

fn asked(request: &[u8], settings: &Settings) -> Result<Accepted, Refused> {
    let whole = Upgrade::default().feed(request, settings);
    // Byte by byte it is the same, but that what follows the end stays where it is.
    let mut upgrade = Upgrade::default();
    let steps = request.chunks(1).map(|byte| upgrade.feed(byte, settings));
    let last = steps.into_iter().find(|step| !matches!(step, Step::More));
    match (whole, last.unwrap_or(Step::More)) {
        (Step::Accepted(whole), Step::Accepted(last)) => {
            assert_eq!((&whole.request, &whole.response, 1), (&last.request, &last.response, last.taken));
            assert_eq!(upgrade.held_bytes(), 0);
            Ok(*whole)
        }
        (Step::Refused(whole), Step::Refused(last)) => {
            assert_eq!(whole, last);
            Err(whole)
        }
        (Step::More, Step::More) => panic!("it is not whole"),
        (whole, last) => panic!("whole: {whole:?}, byte by byte: {last:?}"),
    }
}

/// The answer to a request like the valid one, with this in the place of that.
fn answered(that: &str, this: &str, settings: &Settings) -> Result<String, u16> {
    assert!(VALID.contains(that), "{that}");
    let accepted = asked(VALID.replacen(that, this, 1).as_bytes(), settings).map_err(|refused| refused.status)?;
    Ok(String::from_utf8(accepted.response).unwrap())
}

#[test]
fn request_of_a_client_is_accepted() {
    let sent = [VALID.as_bytes(), b"\x82\x80behind"].concat();
    let accepted = asked(&sent, &Settings::default()).unwrap();
    assert_eq!(String::from_utf8(accepted.response).unwrap(), ACCEPTED);
    assert_eq!(accepted.taken, VALID.len());
    let HttpDetails { path, headers } = accepted.request.0;
    assert_eq!((&*path, headers.len()), ("/mqtt", 6));
    assert_eq!((&*headers[0].name, &*headers[0].value), ("Host", &b"h"[..]));
    assert!(!accepted.deflate);
}

#[test]
fn subprotocol_is_mqtt() {
    // [MQTT-6.0.0-4] [MQTT-6.0.0-4@3.1.1], and who does not offer it [MQTT-6.0.0-3] [MQTT-6.0.0-3@3.1.1] is refused.
    let settings = Settings::default();
    for offered in ["mqtt", "chat, mqtt", "mqttv3.1, mqtt", "mqtt,mqttv3.1", "chat\r\nSec-WebSocket-Protocol: mqtt"] {
        assert_eq!(answered(": mqtt", &format!(": {offered}"), &settings).as_deref(), Ok(ACCEPTED), "{offered}");
    }
    for offered in ["chat", "MQTT", "mqtt5", "", ",", "mqtt;q=1"] {
        assert_eq!(answered(": mqtt", &format!(": {offered}"), &settings), Err(400), "{offered}");
    }
    assert_eq!(answered("Sec-WebSocket-Protocol: mqtt\r\n", "", &settings), Err(400));
    // Clients of 3.1 do not know the name of the later versions.
    let older = ACCEPTED.replace(": mqtt", ": mqttv3.1");
    assert_eq!(answered(": mqtt", ": mqttv3.1", &settings), Ok(older));
}

#[test]
fn request_is_read_as_http_says() {
    let settings = Settings::default();
    let accepted = [
        ("/mqtt ", "/mqtt?token=secret&x=/y "),
        ("/mqtt ", "http://h/mqtt?a "),
        ("Connection: Upgrade", "connection: keep-alive, upgrade"),
        ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"),
        ("Upgrade: websocket", "UPGRADE: WebSocket"),
        ("Host: h", "Host: h\r\nContent-Length: 0"),
        ("Host: h", "Host: h\r\nOrigin: https://anywhere.example"),
        ("Host: h", "Host: h\r\nX-Not-UTF-8: \u{fc}"),
        ("Host: h", "Host: h\r\nSec-WebSocket-Extensions: permessage-deflate"),
    ];
    for (that, this) in accepted {
        assert_eq!(answered(that, this, &settings).as_deref(), Ok(ACCEPTED), "{this}");
    }
    let request =
        VALID.replace("/mqtt ", "ws://h:1/mqtt?a=b ").replace("Host: h", "Host: h\r\nx-A: 1\r\nX-B:\r\nx-a: 2");
    let request = asked(request.as_bytes(), &settings).unwrap().request;
    assert_eq!((&*request.0.path, request.path()), ("/mqtt?a=b", "/mqtt"));
    assert_eq!(request.values("X-A").collect::<Vec<_>>(), ["1", "2"]);
    let names: Vec<&str> = request.0.headers.iter().map(|header| &*header.name).collect();
    assert_eq!(names[1..4], ["x-A", "X-B", "x-a"]);
    let mut with_latin = VALID.replace("Host: h", "Host: h\r\nX: ?").into_bytes();
    with_latin.iter_mut().filter(|byte| **byte == b'?').for_each(|byte| *byte = 0xfc);
    assert_eq!(*asked(&with_latin, &settings).unwrap().request.0.headers[1].value, [0xfc]);
}

#[test]
fn refusal_says_what_was_expected() {
    let settings = Settings::default();
    let refused = [
        ("GET", "POST", 405),
        ("GET", "HEAD", 405),
        ("HTTP/1.1", "HTTP/1.0", 505),
        ("HTTP/1.1", "HTTP/2.0", 505),
        ("HTTP/1.1", "GTTP/1.1", 505),
        ("/mqtt ", "/ ", 404),
        ("/mqtt ", "/health ", 404),
        ("/mqtt ", "/mqtt/ ", 404),
        ("/mqtt ", "/MQTT ", 404),
        ("/mqtt ", "http://h ", 404),
        ("Host: h\r\n", "", 400),
        ("Host: h", "Host: h\r\nHost: i", 400),
        ("Host: h", "Host : h", 400),
        ("Host: h", "Host: h\r\nContent-Length: 5", 400),
        ("Host: h", "Host: h\r\nTransfer-Encoding: chunked", 400),
        ("Upgrade: websocket\r\n", "", 426),
        ("Upgrade: websocket", "Upgrade: h2c", 426),
        ("Connection: Upgrade\r\n", "", 426),
        ("Connection: Upgrade", "Connection: close", 426),
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", 426),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
        ("Key: dGhlIHNhbXBsZSBub25jZQ==", "Key: dGhl", 400),
        (
            "Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            400,
        ),
    ];
    for (that, this, status) in refused {
        assert_eq!(answered(that, this, &settings), Err(status), "{this}");
    }
    let answers = [
        (
            "/mqtt ",
            "/ ",
            "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
          Content-Length: 63\r\n\r\nthere is nothing at this path, MQTT over WebSocket is at /mqtt\n",
        ),
        (
            "GET",
            "PUT",
            "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nConnection: close\r\n\
          Content-Type: text/plain; charset=utf-8\r\nContent-Length: 24\r\n\r\nexpected the method GET\n",
        ),
        (
            "Version: 13",
            "Version: 0",
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
          Connection: close, Upgrade\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 48\r\n\r\n\
          expected the header `Sec-WebSocket-Version: 13`\n",
        ),
    ];
    for (that, this, expected) in answers {
        let refused = asked(VALID.replacen(that, this, 1).as_bytes(), &settings).unwrap_err();
        assert_eq!(String::from_utf8(refused.response()).unwrap(), expected);
    }
}

#[test]
fn what_is_no_request_is_refused_at_once() {
    let connect = b"\x10\x0c\0\x04MQTT";
    let client_hello = b"\x16\x03\x01\x02\0";
    for bytes in [
        &connect[..],
        client_hello,
        b"\r\n\r\n",
        b" GET",
        b"GET\t",
        b"G3T / ",
        &[b'A'; 33],
        &[&[b'A'; 33][..], b" / "].concat(),
    ] {
        let refused = asked(bytes, &Settings::default()).unwrap_err();
        assert_eq!(refused.status, 400, "{bytes:?}");
        assert_eq!(refused.reason.contains("CONNECT packet"), bytes == connect, "{refused:?}");
    }
    // Lines that end in another way could mean something else to somebody between us and the client.
    let request = VALID.replacen("\r\n", "\n\n", 1);
    assert_eq!(asked(request.as_bytes(), &Settings::default()).unwrap_err().status, 400);
}

#[test]
fn request_has_bounds() {
    let settings = Settings { request_bytes_max: 4096, ..Settings::default() };
    let padded = |bytes: usize| VALID.replacen("Host: h", &format!("Host: h\r\nX: {}", "x".repeat(bytes - 5)), 1);
    let most = settings.request_bytes_max - VALID.len();
    assert_eq!(padded(most).len(), settings.request_bytes_max);
    assert!(asked(padded(most).as_bytes(), &settings).is_ok());
    assert_eq!(asked(padded(most + 1).as_bytes(), &settings).unwrap_err().status, 431);
    let mut upgrade = Upgrade::default();
    let endless = [b"GET /mqtt HTTP/1.1\r\nX: ", &vec![b'x'; 100_000][..]].concat();
    assert!(matches!(upgrade.feed(&endless, &settings), Step::Refused(Refused { status: 431, .. })));
    assert!(upgrade.held_bytes() <= 2 * settings.request_bytes_max, "{}", upgrade.held_bytes());
    let with_headers = |count: usize| VALID.replacen("Host: h", &format!("Host: h{}", "\r\nX: y".repeat(count)), 1);
    assert!(asked(with_headers(HEADERS_MAX - 6).as_bytes(), &settings).is_ok());
    assert_eq!(asked(with_headers(HEADERS_MAX - 5).as_bytes(), &settings).unwrap_err().status, 431);
}

#[test]
fn pages_of_other_origins_are_refused_where_some_are_named() {
    let origins = vec!["https://example.com".to_owned(), "http://localhost:8080".to_owned()];
    let settings = Settings { origins, path: "/ws".to_owned(), ..Settings::default() };
    let from = |origin: &str| answered("/mqtt HTTP/1.1\r\n", &format!("/ws HTTP/1.1\r\n{origin}"), &settings).map(drop);
    for origin in
        ["", "Origin: https://example.com\r\n", "origin: HTTPS://Example.com\r\n", "Origin: http://localhost:8080\r\n"]
    {
        assert_eq!(from(origin), Ok(()), "{origin}");
    }
    for origin in [
        "http://example.com",
        "https://example.com.evil",
        "https://example.com:444",
        "null",
        "",
        "https://example.com\r\nOrigin: https://evil",
    ] {
        assert_eq!(from(&format!("Origin: {origin}\r\n")), Err(403), "{origin}");
    }
}

#[test]
fn compression_is_agreed_where_it_is_on_and_offered() {
    let settings = Settings { deflate: true, ..Settings::default() };
    let offered =
        |offer: &str| answered("Host: h", &format!("Host: h\r\nSec-WebSocket-Extensions: {offer}"), &settings).unwrap();
    let with = ACCEPTED.replace(
        "mqtt\r\n\r\n",
        "mqtt\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n\r\n",
    );
    for offer in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate;client_max_window_bits=\"10\" ; server_no_context_takeover",
        "x-other, permessage-deflate; server_max_window_bits=10, permessage-deflate; client_no_context_takeover",
    ] {
        assert_eq!(offered(offer), with, "{offer}");
    }
    for offer in [
        "x-webkit-deflate-frame",
        "permessage-deflate; server_max_window_bits=10",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=08",
        "permessage-deflate; client_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; else",
    ] {
        assert_eq!(offered(offer), ACCEPTED, "{offer}");
    }
}
