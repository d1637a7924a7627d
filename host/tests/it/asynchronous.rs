//! Handlers whose callbacks are `async fn`: the library `async_handler`, whose source says what waits for what.

use std::time::Duration;

use host::{Limits, ServerHandle};

use crate::harness::{Process, TempDir, eventually, host_output, library, start};
use crate::mqtt::{Body, Client, Connect, Publish, V3_1_1, V5, Will, field, packet};

/// Runs a test with one worker and the library's own runtime, then with three and a runtime of the handler's.
#[track_caller]
fn with_handler(limits: &Limits, test: impl Fn(&ServerHandle)) {
    for (workers, config) in [(1, "{}"), (3, r#"{"runtime": 1}"#)] {
        println!("with {workers} workers, {config}");
        let configure =
            |builder: host::Builder| builder.limits(limits.clone()).plugin(library("async_handler"), config);
        let server = start(workers, configure);
        test(&server);
        server.stop().expect("the server stops");
    }
}

/// As [`with_handler`], with deadlines that no test reaches.
#[track_caller]
fn with_patience(test: impl Fn(&ServerHandle)) {
    let long = Duration::from_secs(600);
    let mut limits = Limits::default();
    (limits.connect_timeout, limits.connect_answer_max) = (long, long);
    (limits.publish_answer_max, limits.subscribe_answer_max) = (long, long);
    with_handler(&limits, test);
}

/// Who opens the gate, and hears who is gone.
fn porter(server: &ServerHandle) -> Client {
    let mut porter = Client::connect(server.local_addr(), V5, "porter");
    porter.subscribe("gone/#", 0);
    porter
}

fn open_gate(porter: &mut Client) {
    porter.publish("gate/open", "", 1);
}

#[test]
fn a_connection_waits_for_its_answer_and_others_do_not() {
    with_patience(|server| {
        let mut porter = porter(server);
        let mut slow = Client::open(server.local_addr(), V5);
        slow.send(Connect::new(V5, "slow").bytes());
        let mut bad = Client::open(server.local_addr(), V3_1_1);
        // What comes behind CONNECT waits as well.
        bad.send([Connect::new(V3_1_1, "slow-bad").bytes(), vec![0xc0, 0]].concat());
        for name in ["a", "b", "c"] {
            let mut other = Client::connect(server.local_addr(), V5, name);
            other.publish(&format!("now/{name}"), "", 1);
        }
        open_gate(&mut porter);
        open_gate(&mut porter);
        assert_eq!(slow.connack().code, 0);
        assert_eq!(bad.connack().code, 4);
        bad.expect_closed();
        slow.publish("now/x", "", 1);
    });
}

#[test]
fn messages_keep_their_order_and_their_state() {
    with_patience(|server| {
        let mut porter = porter(server);
        let mut subscriber = Client::connect(server.local_addr(), V5, "subscriber");
        subscriber.subscribe("count/#", 1);
        let mut publisher = Client::connect(server.local_addr(), V5, "publisher");
        let kinds = ["slow", "now", "nap", "yield", "slow", "nap", "yield", "slow", "now", "now"];
        let packets = kinds.iter().zip(1..).map(|(kind, id)| {
            Publish::new(format!("{kind}/{id}"), "").qos(if id % 3 == 0 { 0 } else { 1 }, id).bytes(V5)
        });
        publisher.send(packets.collect::<Vec<_>>().concat());
        for _ in 0..3 {
            open_gate(&mut porter);
        }
        for id in 1..=10 {
            if id % 3 != 0 {
                assert_eq!(publisher.expect_ack(4, id), 0);
            }
            let message = subscriber.receive();
            assert_eq!((message.topic, message.payload), (format!("count/{id}"), id.to_string().into_bytes()));
        }
    });
}

#[test]
fn subscriptions_and_authentication_can_wait_as_well() {
    with_patience(|server| {
        let mut porter = porter(server);
        let mut client = Client::open(server.local_addr(), V5);
        let method = [&[0x15][..], &field("method"), &[0x16], &field("slow")].concat();
        client.send(Connect { properties: method, ..Connect::new(V5, "client") }.bytes());
        open_gate(&mut porter);
        let connack = client.connack();
        assert_eq!(connack.code, 0);
        let data = [&[0x16][..], &field("welcome")].concat();
        assert!(connack.properties.windows(data.len()).any(|part| part == data), "{connack:02x?}");

        client.send(packet(0x82, &[&[0, 1, 0][..], &field("slow/+"), &[1]].concat()));
        open_gate(&mut porter);
        assert_eq!(Body::of(&client.expect_type(9)).0, [0, 1, 0, 0x87]);
        client.send(packet(0xa2, &[&[0, 2, 0][..], &field("slow/+")].concat()));
        open_gate(&mut porter);
        assert_eq!(Body::of(&client.expect_type(11)).0, [0, 2, 0, 0x87]);
        assert_eq!(client.subscribe_all(&[("fast", 1)]), [1]);
    });
}

#[test]
fn at_the_deadline_the_future_is_dropped_and_gives_the_state_back() {
    let short = Duration::from_millis(50);
    let mut limits = Limits::default();
    (limits.connect_answer_max, limits.publish_answer_max) = (short, short);
    with_handler(&limits, |server| {
        let mut porter = porter(server);
        let (mut never, connack) = Client::connect_with(server.local_addr(), &Connect::new(V5, "never"));
        assert_eq!(connack.code, 0x88);
        never.expect_closed();
        assert_eq!(porter.receive().topic, "gone/never");

        let mut client = Client::connect(server.local_addr(), V5, "client");
        client.subscribe("count/#", 0);
        for (id, count) in [(1, "2"), (2, "4")] {
            client.send(Publish::new("never/x", "").qos(1, id).bytes(V5));
            assert_eq!(client.expect_ack(4, id), 0x83);
            // The state is there, with what the future has done to it.
            client.publish("now/x", "", 1);
            assert_eq!(client.receive().text(), count);
        }
        drop(client);
        let gone = porter.receive();
        assert_eq!((gone.topic.as_str(), gone.text()), ("gone/client", "4"));
    });
}

#[test]
fn a_client_that_goes_while_its_answer_is_pending_is_gone_once() {
    with_patience(|server| {
        let mut porter = porter(server);
        porter.subscribe("count/will", 0);
        porter.subscribe("waiting", 0);
        let will = Will { topic: "now/will", payload: "", ..Will::default() };
        let connect = Connect { will: Some(will), ..Connect::new(V5, "client") };
        let (mut client, connack) = Client::connect_with(server.local_addr(), &connect);
        assert_eq!(connack.code, 0);
        client.publish("now/1", "", 1);
        client.send(Publish::new("slow/2", "").qos(1, 9).bytes(V5));
        assert_eq!(porter.receive().topic, "waiting");
        // Another connection takes over: that ends the first one at once, but for what its handler has to say.
        let mut successor = Client::connect(server.local_addr(), V5, "client");
        client.expect_disconnect(0x8e);
        porter.expect_nothing();
        open_gate(&mut porter);
        // The will is asked about with the state that the future has given back, and then the end is told, which counts
        // it. What becomes of both may take ways of different lengths.
        let mut heard =
            [porter.receive(), porter.receive()].map(|message| (message.topic.clone(), message.text().to_owned()));
        heard.sort();
        assert_eq!(heard, [("count/will".to_owned(), "3".to_owned()), ("gone/client".to_owned(), "3".to_owned())]);
        successor.publish("now/x", "", 1);
        porter.expect_nothing();
    });
}

#[test]
fn a_panic_in_a_future_ends_its_connection_and_no_other() {
    with_patience(|server| {
        let mut porter = porter(server);
        let mut client = Client::connect(server.local_addr(), V5, "client");
        client.send(Publish::new("panic/x", "").qos(1, 1).bytes(V5));
        open_gate(&mut porter);
        while client.try_read().is_some() {}
        let instance = server.status().plugins.remove(0).instances.remove(0);
        let publish = instance.stats.callbacks.into_iter().find(|one| one.name == "handle_publish");
        assert_eq!(publish.map(|publish| publish.panics), Some(1), "it is counted, though the callback had returned");
        let mut again = Client::connect(server.local_addr(), V5, "client");
        again.publish("now/x", "", 1);
        porter.expect_nothing(); // A state that has panicked hears of nothing.
    });
}

#[test]
fn the_server_stops_while_futures_wait() {
    with_patience(|server| {
        let mut clients = Vec::new();
        for name in ["slow", "slow-bad", "never"] {
            let mut client = Client::open(server.local_addr(), V5);
            client.send(Connect::new(V5, name).bytes());
            clients.push(client);
        }
        let mut client = Client::connect(server.local_addr(), V5, "client");
        client.send(Publish::new("never/x", "").qos(1, 1).bytes(V5));
        clients.push(client);
        server.stop().expect("the server stops");
    });
}

/// Callbacks on the pool and futures share a state, one at a time and in order.
#[test]
fn blocking_callbacks_and_futures_take_turns() {
    for workers in [1, 3] {
        let server = start(workers, |builder| builder.plugin(library("async_blocking"), "{}"));
        let mut porter = Client::connect(server.local_addr(), V5, "porter");
        porter.subscribe("gone/#", 0);
        let mut client = Client::connect(server.local_addr(), V5, "client");
        client.subscribe("yield/#", 1);
        for id in 1..=20 {
            // Its own message comes back; the acknowledgement is for the pool, and the next message close behind it.
            client.send(Publish::new("yield/x", "").qos(1, id).bytes(V5));
            client.expect_ack(4, id);
            client.receive();
        }
        client.unsubscribe("yield/#");
        drop(client);
        assert_eq!(porter.receive().text(), format!("s{}d", "ap".repeat(20)), "with {workers} workers");
        server.stop().expect("the server stops");
    }
}

/// A connection goes over when its future has come to its end; the old instance's runtime ends with it.
#[test]
fn a_swap_waits_for_futures_and_ends_their_runtime() {
    let dir = TempDir::new("asynchronous-swap");
    let control = dir.path().join("control.sock");
    let (library, control) = (library("async_handler"), control.to_str().expect("UTF-8").to_owned());
    let library = library.to_str().expect("UTF-8");
    // Long enough for what does answer, on a machine that is busy; what does not is waited for once for each swap.
    let options = ["--publish-answer-max", "3s", "--control", &control, "--workers", "2", "--plugin", library];
    let (host, addr) = Process::listening(options);
    let tasks = format!("/proc/{}/task", host.id());
    let threads = || {
        let names = std::fs::read_dir(&tasks).expect("it runs").flatten();
        let names = names.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim() == "plugin-async").count()
    };
    let mut client = Client::connect(addr, V5, "client");
    client.subscribe("count/#", 0);
    for id in 1..=2 {
        assert_eq!(client.publish("yield/x", "", 1), 0);
        assert_eq!(client.receive().text(), "1", "a fresh state");
        let before = threads();
        assert!(before > 0, "they have a name");
        client.send(Publish::new("never/x", "").qos(1, 100 + id).bytes(V5));
        let swap = host_output(["swap", "--plugin", library, "--control", &control, "--probation", "0s"]);
        assert_eq!(swap.status.code(), Some(0), "{swap:?}");
        assert_eq!(client.expect_ack(4, 100 + id), 0x83);
        eventually("the old runtime has ended", || threads() == 0);
    }
    host.stop();
}
