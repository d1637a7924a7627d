//! What the host does for plugins, through a real library: the library `steward` carries out commands that clients publish.

use std::time::Duration;

use host::{MetricValue, ServerHandle, SwapRequest};

use crate::harness::{Process, host_output, library, with_configured};
use crate::mqtt::{Client, Connect, Publish, V3_1_1, V5};

/// The client that gives commands.
struct Operator(Client);

impl Operator {
    fn new(server: &ServerHandle) -> Self {
        let mut client = Client::connect(server.local_addr(), V5, "operator");
        client.subscribe("done", 0);
        Self(client)
    }

    /// Gives a command, and says what came of it.
    fn does(&mut self, command: &str) -> String {
        self.0.send(Publish::new("do", command).bytes(V5));
        self.0.receive().text().to_owned()
    }
}

#[track_caller]
fn with_steward(test: impl Fn(&ServerHandle)) {
    with_configured(|builder| builder.plugin(library("steward"), "{}"), test);
}

#[test]
fn what_there_is_is_listed() {
    with_steward(|server| {
        let mut operator = Operator::new(server);
        let mut clients: Vec<Client> =
            (0..5).map(|number| Client::connect(server.local_addr(), V3_1_1, format!("c{number}"))).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.subscribe(&format!("t/{number}"), 1);
            assert_eq!(client.publish_message(Publish::new(format!("r/{number}"), "x").qos(1, 0).retained()), 0);
        }
        assert_eq!(operator.does("connections"), "c0 c1 c2 c3 c4 operator");
        assert_eq!(operator.does("sessions"), "c0:0 c1:0 c2:0 c3:0 c4:0 operator:0");
        assert_eq!(operator.does("subscriptions"), "c0:t/0 c1:t/1 c2:t/2 c3:t/3 c4:t/4 operator:done");
        assert_eq!(operator.does("retained"), "r/0 r/1 r/2 r/3 r/4");
    });
}

/// Subscriptions come and go on behalf of clients, and permissions change while they are there or away.
#[test]
fn subscriptions_of_others() {
    with_steward(|server| {
        let mut operator = Operator::new(server);
        let persistent = Connect::new(V3_1_1, "c").persistent();
        let (mut client, _) = Client::connect_with(server.local_addr(), &persistent);
        assert_eq!(operator.does("subscribe c granted/#"), "granted 1");
        assert_eq!(operator.does("subscribe nobody granted/#"), "error: NotFound");
        assert_eq!(operator.does("subscribe c granted/#/x"), "error: Invalid");
        assert_eq!(operator.0.publish("granted/1", "hello", 1), 0);
        assert_eq!(client.receive().text(), "hello");
        assert_eq!(operator.does("unsubscribe c granted/#"), "unsubscribed");
        assert_eq!(operator.does("unsubscribe c granted/#"), "error: NotFound");
        client.subscribe("secret/#", 1);
        client.subscribe("public/#", 1);
        assert_eq!(operator.does("put no/secret/# x"), "put");
        assert_eq!(operator.does("reauthorise c"), "removed 1 dropped 0 later 0");
        operator.0.publish("secret/1", "no", 1);
        operator.0.publish("public/1", "yes", 1);
        assert_eq!(client.receive().text(), "yes");
        client.ping();
        // It subscribes again, as it was refused only for what was there; then it goes away.
        client.subscribe("secret/#", 1);
        client.disconnect();
        operator.0.publish("secret/2", "no", 1);
        operator.0.publish("public/2", "yes", 1);
        assert_eq!(operator.does("reauthorise *"), "removed 0 dropped 0 later 1");
        let (mut client, connack) = Client::connect_with(server.local_addr(), &persistent);
        assert!(connack.session_present);
        assert_eq!(client.receive().text(), "yes");
        client.ping();
        assert_eq!(operator.does("subscriptions"), "c:public/# operator:done");
    });
}

/// Values, counters and timers belong to the plugin's name: after a swap they are still there.
#[test]
fn what_is_kept_survives_a_swap() {
    with_steward(|server| {
        let mut operator = Operator::new(server);
        assert_eq!(operator.does("put a/1 one"), "put");
        assert_eq!(operator.does("put a/2 two"), "put");
        assert_eq!(operator.does("get a/2"), "two");
        let mut timer = operator.does("every 20 beat");
        while timer == "event beat" {
            timer = operator.0.receive().text().to_owned();
        }
        let timer = timer.replace("timer ", "");
        let request = SwapRequest { probation: Duration::ZERO, ..SwapRequest::new(library("steward")) };
        server.swap(&request).expect("it is the same library");
        // Beats of the timer come between the answers.
        let mut beats = 0;
        let mut does = |operator: &mut Operator, command: &str, expected: &str| {
            let mut got = operator.does(command);
            while got == "event beat" {
                beats += 1;
                got = operator.0.receive().text().to_owned();
            }
            assert_eq!(got, expected, "{command}");
        };
        does(&mut operator, "keys a/", "a/1 a/2");
        does(&mut operator, "delete a/1", "deleted true");
        does(&mut operator, "get a/1", "none");
        while operator.0.receive().text() != "event beat" {}
        does(&mut operator, &format!("cancel {timer}"), "cancelled");
        let metrics = server.metrics();
        let [commands] = &metrics[..] else { panic!("{metrics:?}") };
        assert_eq!((&*commands.plugin, &*commands.name), ("steward", "commands_total"));
        assert_eq!(commands.value, MetricValue::Counter(8.0), "those before the swap, too");
    });
}

/// A plugin may begin with a timer: the host starts, `host check` is satisfied, and a swap starts no second one.
#[test]
fn init_may_start_a_timer() {
    let config = "\"every 20 beat\"";
    let steward = library("steward");
    let check = host_output(["check", steward.to_str().unwrap(), "--plugin-config", config]);
    assert!(check.status.success(), "it does not need a server: {check:?}");
    with_configured(
        |builder| builder.plugin(&steward, config),
        |server| {
            let mut operator = Operator::new(server);
            assert_eq!(operator.0.receive().text(), "event beat");
            let request = SwapRequest { probation: Duration::ZERO, ..SwapRequest::new(&steward) };
            server.swap(&request).expect("it is the same library");
            assert_eq!(operator.0.receive().text(), "event beat");
        },
    );
}

/// A line of the log has the plugin's fields, and says what it is about.
#[test]
fn log_lines_have_fields() {
    let steward = library("steward");
    for (format, expected) in [
        ("human", "a command plugin=\"steward\" part=\"commands\" connection="),
        ("json", "\"client_id\":\"c\",\"callback\":\"handle_publish\",\"command\":\"what\",\"bytes\":\"4\""),
    ] {
        let args = ["--plugin", steward.to_str().unwrap(), "--log-format", format, "--log", "host=info"];
        let (process, addr) = Process::listening(args);
        let mut client = Client::connect(addr, V5, "c");
        client.send(Publish::new("do", "what").bytes(V5));
        client.ping();
        let line = process.wait_log("a command");
        assert!(line.contains(expected), "{line}");
        process.stop();
    }
}

/// A library that waits for an answer does not keep the server from stopping, and a question does not get lost.
#[test]
fn server_stops_while_plugins_ask() {
    with_steward(|server| {
        let mut operator = Operator::new(server);
        for _ in 0..50 {
            operator.0.send(Publish::new("do", "sessions").bytes(V5));
        }
        server.stop().expect("the server stops");
    });
}
