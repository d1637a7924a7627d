//! Plugins that answer later, from threads of their own: who waits, and who does not notice.
//!
//! The library `deferring` answers after as long as clients want it to; its source says how they say so.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use host::ServerHandle;

use crate::harness::{Process, eventually, library, start};
use crate::mqtt::{Client, Connect, Publish, V3_1_1, V5, VERSIONS, Will};

/// Runs a test with the library loaded, with one worker and with three.
#[track_caller]
fn with_deferring(test: impl Fn(&ServerHandle)) {
    for workers in [1, 3] {
        println!("with {workers} workers");
        let server = start(workers, |builder| builder.plugin(library("deferring"), "{}"));
        test(&server);
        server.stop().expect("the server stops");
    }
}

/// A process with the library loaded.
fn process(options: &[&str]) -> (Process, SocketAddr) {
    let library = library("deferring");
    Process::listening(["--plugin", library.to_str().unwrap()].iter().chain(options))
}

/// Acknowledgements come in the order of the packets, however long each answer takes, and messages in the same.
#[test]
fn acknowledgements_keep_their_order() {
    with_deferring(|server| {
        for version in VERSIONS {
            let mut to = Client::connect(server.local_addr(), version, "to");
            // Not to all of `left/`: what the plugin says of the `to` of the round before may come late.
            to.subscribe_all(&[("b", 0), ("e", 0), ("later/#", 0), ("left/30:from", 0)]);
            let mut from = Client::connect(server.local_addr(), version, "30:from");
            let topics = ["later/40/a", "b", "later/5/c", "later/0/d", "e", "later/20/f"];
            let packets: Vec<u8> = topics
                .iter()
                .zip(1..)
                .flat_map(|(topic, id)| Publish::new(*topic, "x").qos(1, id).bytes(version))
                .collect();
            from.send(packets);
            for (topic, id) in topics.iter().zip(1..) {
                from.expect_ack(4, id);
                assert_eq!(to.receive().topic, *topic);
            }
            from.ping();
            from.disconnect();
            assert_eq!(to.receive().topic, "left/30:from");
        }
    });
}

#[test]
fn refused_dropped_and_granted_later() {
    with_deferring(|server| {
        let mut client = Client::connect(server.local_addr(), V5, "c");
        assert_eq!(client.publish("refused/5/t", "x", 1), 0x87);
        assert_eq!(client.publish("dropped/t", "x", 2), 0x80);
        assert_eq!(client.subscribe_all(&[("later/5/t", 1), ("u", 0)]), [1, 0]);
        assert_eq!(client.subscribe_all(&[("refused/5/v", 1), ("w", 0)]), [0x87, 0x87]);
        assert_eq!(client.publish("later/5/t", "x", 2), 0);
        assert_eq!(client.receive().text(), "x");
        assert_eq!(client.publish("w", "x", 1), 0x10);
    });
}

/// A will is asked about when its connection has ended, and published when its answer has come.
#[test]
fn a_will_that_is_decided_later() {
    with_deferring(|server| {
        let mut to = Client::connect(server.local_addr(), V5, "to");
        to.subscribe("#", 0);
        let will = Will { topic: "later/30/w", payload: "gone", ..Will::default() };
        let connect = Connect { will: Some(will), ..Connect::new(V5, "5:from") };
        let (mut from, _) = Client::connect_with(server.local_addr(), &connect);
        from.send(Publish::new("later/30/t", "x").bytes(V5));
        from.finish_sending();
        drop(from);
        assert_eq!(to.receive().topic, "later/30/t");
        // The will is published by the worker of its client, and the other one by the worker that its topic belongs to: they
        // may take ways of different lengths.
        let mut topics = [to.receive().topic, to.receive().topic];
        topics.sort();
        assert_eq!(topics, ["later/30/w", "left/5:from"]);
    });
}

/// Deadlines refuse, and the server stops with answers that never come; the plugin hears of each end once.
#[test]
fn answers_that_never_come() {
    for workers in ["1", "3"] {
        let deadlines =
            ["--publish-answer-max", "50ms", "--subscribe-answer-max", "50ms", "--connect-answer-max", "2s"];
        let (process, addr) = process(&[&["--workers", workers], &deadlines[..]].concat());
        let mut client = Client::connect(addr, V5, "c");
        assert_eq!(client.publish("never/t", "x", 1), 0x83);
        assert_eq!(client.publish("never/t", "x", 2), 0x83);
        assert_eq!(client.subscribe_all(&[("never/t", 1)]), [0x80]);
        let line = process.wait_log("has not answered in time");
        assert!(["deferring", "handle_publish", "\"c\""].iter().all(|part| line.contains(part)), "{line}");
        client.subscribe("left/#", 0);
        let (_, connack) = Client::connect_with(addr, &Connect::new(V5, "never:1"));
        assert_eq!(connack.code, 0x88);
        assert_eq!(client.receive().topic, "left/never:1");
        let (_, connack) = Client::connect_with(addr, &Connect::new(V3_1_1, "never:2"));
        assert_eq!(connack.code, 3);
        let left = client.receive();
        assert_eq!((left.topic.as_str(), left.text()), ("left/never:2", "1"));
        client.ping();
        let mut waits = Client::open(addr, V5);
        waits.send(Connect::new(V5, "never:3").bytes());
        process.stop();
    }
}

/// Who gives up before it was let in leaves at once, whatever the plugin does.
#[test]
fn who_gives_up_is_not_waited_for() {
    let (process, addr) = process(&["--connections-max", "2", "--connect-answer-max", "1h"]);
    for number in 0..20 {
        let mut waits = Client::open(addr, V5);
        waits.send(Connect::new(V5, format!("never:{number}")).bytes());
        drop(waits);
        eventually("there is room again", || {
            let mut other = Client::open(addr, V5);
            other.try_send(Connect::new(V5, "other").bytes()) && other.try_read().is_some()
        });
    }
    drop(process);
}

/// Round trips of a client that has nothing to do with the plugin's answers.
fn round_trips(canary: &mut Client, count: usize) -> Vec<Duration> {
    let round_trip = |number: usize| {
        let begun = Instant::now();
        assert_eq!(canary.publish("canary", number.to_string(), 1), 0);
        assert_eq!(canary.receive().text(), number.to_string());
        begun.elapsed()
    };
    let mut times: Vec<Duration> = (0..count).map(round_trip).collect();
    times.sort_unstable();
    times
}

/// The processor time that a process has used, in clock ticks.
fn ticks(process: &Process) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).expect("it runs");
    let (_, numbers) = stat.rsplit_once(')').expect("its name stands in brackets");
    numbers.split_whitespace().skip(11).take(2).map(|number| number.parse::<u64>().expect("a number")).sum()
}

/// A thousand connections wait for answers; a client beside them notices nothing, and the server has nothing to do.
#[test]
fn others_do_not_notice_who_waits() {
    const WAITING: usize = 1000;
    for workers in ["1", "2"] {
        let (process, addr) = process(&["--workers", workers, "--publish-answer-max", "1h"]);
        let mut canary = Client::connect(addr, V5, "canary");
        canary.subscribe("canary", 0);
        let alone = round_trips(&mut canary, 200);
        let waiting: Vec<Client> = (0..WAITING)
            .map(|number| {
                let mut client = Client::connect(addr, V5, format!("waits-{number}"));
                client.send([Publish::new("never/t", "x").qos(1, 1).bytes(V5), vec![0xC0, 0]].concat());
                client
            })
            .collect();
        let at = |times: &[Duration], percent: usize| times[(times.len() - 1) * percent / 100];
        // Others on this machine make it look worse now and then, and never better: once is enough.
        eventually("others do not notice", || {
            let beside = round_trips(&mut canary, 200);
            println!(
                "workers {workers}: alone {:.0?}, 99 % {:.0?}; beside {WAITING} that wait {:.0?}, 99 % {:.0?}",
                at(&alone, 50),
                at(&alone, 99),
                at(&beside, 50),
                at(&beside, 99)
            );
            at(&beside, 50) <= (20 * at(&alone, 50)).max(Duration::from_millis(100))
        });
        eventually("the server has nothing to do", || {
            let before = ticks(&process);
            std::thread::sleep(Duration::from_millis(300));
            let used = ticks(&process) - before;
            // A hundred ticks are a second: a worker that spins uses 30 of them, or its share of a busy machine.
            println!("workers {workers}: {used} ticks for doing nothing");
            used <= 5
        });
        drop(waiting);
        process.stop();
    }
}
