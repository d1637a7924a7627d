//! What a plugin without Rust's checks can do wrong at the boundary: each row says what the host does about it. The one
//! client is refused or disconnected, the log says why, and everybody else is served.

use std::net::SocketAddr;
use std::path::Path;

use crate::c::{build, have_cc};
use crate::harness::{Process, TempDir};
use crate::mqtt::{Client, Publish, V5};

fn with_unruly(options: &[&str], test: impl Fn(&mut Process, SocketAddr)) {
    if !have_cc() {
        return;
    }
    for workers in ["1", "3"] {
        let dir = TempDir::new(&format!("unruly-c-{workers}-{:?}", std::thread::current().id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugins/c/unruly.c");
        let library = build(&source, &dir, "libunruly_c.so", &["-D_XOPEN_SOURCE=700"]);
        let plugin = ["--workers", workers, "--plugin", library.to_str().expect("text")];
        let (mut process, addr) = Process::listening(plugin.iter().chain(options));
        test(&mut process, addr);
        assert!(process.is_running());
        process.stop();
    }
}

/// A client that hears what the plugin found out, and is served throughout.
fn witness(addr: SocketAddr) -> Client {
    let mut witness = Client::connect(addr, V5, "witness");
    witness.subscribe("#", 1);
    witness
}

/// What becomes of a message.
enum Fate {
    /// PUBACK with this Reason Code; the connection goes on.
    Acknowledged(u8),
    /// DISCONNECT with 0x83.
    Closed,
}

#[test]
fn answers_that_cannot_be_used_harm_nobody_else() {
    use Fate::{Acknowledged, Closed};
    let rows = [
        ("verdict", Closed, "the verdict 77 is not one of this callback"),
        ("deferred", Closed, "handle_publish"),
        ("null", Acknowledged(0x80), "a piece has a length, and no bytes"),
        ("length", Acknowledged(0x80), "a piece has a length, and no bytes"),
        ("huge", Acknowledged(0x80), "more than 65536 pieces or 268435455 bytes"),
        ("pieces", Acknowledged(0x80), "more than 65536 pieces"),
        ("utf8", Acknowledged(0x80), "not UTF-8"),
        ("error", Acknowledged(0x80), "a plugin returned an error"),
        ("novel", Acknowledged(0x80), "a plugin returned an error"),
        ("panicked", Closed, "a plugin panicked"),
        ("poisoned", Closed, "a plugin panicked"),
        ("away", Closed, "handle_publish"),
    ];
    // No budget: an answer of 256 MB takes its time, and a line about that would come before the one that is looked for.
    with_unruly(&["--callback-budget", "0s"], |process, addr| {
        let mut witness = witness(addr);
        for (topic, fate, logged) in &rows {
            let mut victim = Client::connect(addr, V5, format!("victim-{topic}"));
            victim.send(Publish::new(format!("bad/{topic}"), "x").qos(1, 1).bytes(V5));
            match fate {
                Acknowledged(code) => {
                    assert_eq!(victim.expect_ack(4, 1), *code, "{topic}");
                    victim.ping();
                }
                Closed => victim.expect_disconnect(0x83),
            }
            let line = process.wait_log(&format!("\"victim-{topic}\""));
            assert!(line.contains(logged) && line.contains("\"unruly-c\""), "{logged} in {line}");
            assert!(line.len() < 70_000, "{} bytes in a line of the log", line.len());
            witness.ping();
        }
        // None of it was delivered.
        assert_eq!(witness.publish("end", "", 1), 0);
        assert_eq!(witness.receive().topic, "end");
    });
}

#[test]
fn requests_that_nobody_may_make_are_refused() {
    let rows = [
        // All INVALID: null where something has to be.
        ("null", ["1"; 17].join(" ")),
        // A topic, a Client Identifier, a kind: all have to be UTF-8.
        ("utf8", ["1"; 4].join(" ")),
    ];
    with_unruly(&[], |process, addr| {
        let mut witness = witness(addr);
        let mut victim = Client::connect(addr, V5, "victim");
        for (topic, statuses) in &rows {
            assert_eq!(victim.publish(&format!("ask/{topic}"), "", 1), 0, "{topic}");
            let message = witness.receive();
            assert_eq!((message.topic.as_str(), message.text()), ("status", statuses.as_str()), "{topic}");
        }
        victim.publish("ask/numbers", "", 1);
        assert!(witness.receive().text().starts_with("1 1 1 "));
        process.wait_log("level 0");
        // What is not UTF-8 stands in the log all the same, as far as it is.
        process.wait_log("a\u{fffd}\u{fffd}");
    });
}

#[test]
fn mistakes_with_tickets_harm_nobody() {
    // As long as this, because answers from another thread have to come in it, on a machine that is busy.
    with_unruly(&["--publish-answer-max", "3s"], |process, addr| {
        let mut witness = witness(addr);
        let mut status = |expected: &[&str]| {
            let mut got: Vec<String> = expected.iter().map(|_| witness.receive().text().to_owned()).collect();
            got.sort();
            assert_eq!(got, expected);
        };
        let mut victim = Client::connect(addr, V5, "victim");
        // No such ticket: NOT_FOUND, or INVALID.
        assert_eq!(victim.publish("ticket/none", "", 1), 0);
        status(&["5 5"]);
        // The second answer is INVALID, and the first one counts.
        assert_eq!(victim.publish("ticket/twice", "", 1), 0);
        status(&["1", "once"]);
        assert_eq!(victim.publish("ticket/second", "", 1), 0);
        status(&["one ticket"]);
        assert_eq!(victim.publish("ticket/thread", "", 1), 0);
        status(&["from another thread"]);
        // It answered at once: the ticket is void.
        assert_eq!(victim.publish("ticket/unused", "", 1), 0x00);
        status(&[""]);
        assert_eq!(victim.publish("ticket/late", "", 1), 0);
        status(&["6"]);
        // An answer that cannot be used refuses, as it does without a ticket.
        assert_eq!(victim.publish("ticket/utf8", "", 1), 0x80);
        // Nobody answers: the deadline does.
        assert_eq!(victim.publish("ticket/never", "", 1), 0x83);
        process.wait_log("cancelled: the open one");
        assert_eq!(victim.publish("ticket/late", "", 1), 0);
        status(&["6"]);
        // The client is gone before the answer: GONE as well.
        victim.send(Publish::new("ticket/never", "").qos(1, 9).bytes(V5));
        drop(victim);
        let mut other = Client::connect(addr, V5, "other");
        crate::harness::eventually("the ticket is gone", || {
            other.publish("ticket/late", "", 1);
            matches!(witness.receive().text(), "6")
        });
        for topic in ["verdict", "deferred"] {
            let mut victim = Client::connect(addr, V5, format!("victim-{topic}"));
            victim.send(Publish::new(format!("ticket/{topic}"), "").qos(1, 1).bytes(V5));
            victim.expect_disconnect(0x83);
            process.wait_log(&format!("\"victim-{topic}\""));
        }
        witness.ping();
    });
}
