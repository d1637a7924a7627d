//! Who may do what: each kind of listener, with each way to sign in and each permission, and what could go around a
//! permission: wills, retained messages, Shared Subscriptions, sessions that are resumed, messages that wait, and permissions
//! that change meanwhile. The tables say what is expected; what is not in them is refused.

use std::cell::RefCell;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use host::ServerHandle;
use host::control::{Control, Place};

use crate::certificates::{Authority, tls_listener, tls_wire};
use crate::harness::{TempDir, host_output, package_library, start};
use crate::mqtt::{Client, Connack, Connect, Publish, V3_1_1, V5, Will, Wire};
use crate::websocket::wire::{SUBPROTOCOL, WebSocketWire};

/// All passwords are `secret`. `root` sees everything; `ann` and `bob` have their own topics and share some; who has no name
/// may only look at what is public.
const USERS: [&str; 3] = ["root", "ann", "bob"];
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$QQCd8VPOryZiCF3MtwQnPTK7odKCaPcXJGplgNEuj1A";
const RULES: &[&str] = &[
    r##"{"user": "root", "allow": ["publish", "subscribe"], "topics": ["#"]}"##,
    r##"{"user": "ann", "allow": ["publish", "subscribe"], "topics": ["ann/#"]}"##,
    r##"{"user": "bob", "allow": ["publish", "subscribe"], "topics": ["bob/#"]}"##,
    r##"{"user": "bob", "allow": ["publish"], "topics": ["ann/inbox"]}"##,
    r##"{"anyone": true, "allow": ["subscribe"], "topics": ["public/#"]}"##,
    r##"{"group": "staff", "allow": ["publish"], "topics": ["public/+"]}"##,
    r##"{"group": "people", "deny": ["publish", "subscribe"], "topics": ["public/secret"]}"##,
];

/// The configuration, without the rules that contain a text.
fn config(without: &str) -> String {
    let users = USERS.map(|name| {
        let groups = match name {
            "ann" => r#"["people", "staff"]"#,
            "bob" => r#"["people"]"#,
            _ => "[]",
        };
        format!(r#"{{"username": "{name}", "password_hash": "{HASH}", "groups": {groups}}}"#)
    });
    let rules: Vec<_> = RULES.iter().filter(|rule| without.is_empty() || !rule.contains(without)).copied().collect();
    let (users, rules) = (users.join(","), rules.join(","));
    format!(
        r#"{{"users": [{users}], "rules": [{rules}], "anonymous": true, "client_ids": ["%u", "%u:*", "nobody-*"]}}"#
    )
}

impl Wire for Box<dyn Wire> {
    fn set_patience(&self, patience: Duration) {
        (**self).set_patience(patience);
    }

    fn finish(&mut self) {
        (**self).finish();
    }
}

type AnyClient = Client<Box<dyn Wire>>;

/// A server with one listener of each kind, and `acl` in it.
struct Host {
    server: Arc<ServerHandle>,
    authority: Authority,
    unix: PathBuf,
    dir: TempDir,
    /// Clients whose sessions are spread over the workers: what was asked of the workers before they are answered was done.
    everywhere: RefCell<Vec<AnyClient>>,
}

#[derive(Debug, Clone, Copy)]
enum Listener {
    Tcp,
    Unix,
    Tls,
    Ws,
    Wss,
}

const LISTENERS: [Listener; 5] = [Listener::Tcp, Listener::Unix, Listener::Tls, Listener::Ws, Listener::Wss];

/// A User Name and a Password, or not.
type Credentials = (Option<&'static str>, Option<&'static str>);

const ROOT: Credentials = (Some("root"), Some("secret"));
const ANN: Credentials = (Some("ann"), Some("secret"));
const BOB: Credentials = (Some("bob"), Some("secret"));
const NOBODY: Credentials = (None, None);

impl Host {
    fn start() -> Self {
        let dir = TempDir::new("matrix");
        let (unix, authority) = (dir.path().join("mqtt.sock"), Authority::new("authority"));
        let issued = authority.server(&["localhost"]);
        let library = package_library("acl");
        let server = start(2, |builder| {
            let mut wss = tls_listener(&issued);
            wss.url = "wss://127.0.0.1:0".parse().expect("a URL");
            let listeners = builder.listen(format!("unix:{}", unix.display())).listener(tls_listener(&issued));
            let listeners = listeners.listen("ws://127.0.0.1:0").listener(wss);
            listeners.plugin(&library, config(""))
        });
        let host = Self { server: Arc::new(server), authority, unix, dir, everywhere: RefCell::default() };
        let everywhere = (0..8).map(|number| Connect::new(V5, format!("root:{number}")));
        let everywhere = everywhere.map(|connect| host.sign_in(Listener::Tcp, ROOT, connect)).collect();
        host.everywhere.replace(everywhere);
        host
    }

    /// A connection to one of the listeners that have a port.
    fn tcp(&self, number: usize) -> TcpStream {
        TcpStream::connect(self.server.local_addrs()[number]).expect("it listens")
    }

    fn open(&self, listener: Listener, version: u8) -> AnyClient {
        let wire: Box<dyn Wire> = match listener {
            Listener::Tcp => Box::new(self.tcp(0)),
            Listener::Unix => Box::new(UnixStream::connect(&self.unix).expect("it listens")),
            Listener::Tls => Box::new(tls_wire(self.tcp(1), self.authority.client())),
            Listener::Ws => Box::new(WebSocketWire::upgraded(self.tcp(2), SUBPROTOCOL)),
            Listener::Wss => {
                let tls = tls_wire(self.tcp(3), self.authority.client());
                Box::new(WebSocketWire::upgraded(tls, SUBPROTOCOL))
            }
        };
        Client::over(wire, version)
    }

    fn connect(&self, listener: Listener, (username, password): Credentials, connect: Connect) -> (AnyClient, Connack) {
        let connect = Connect { username, password, ..connect };
        self.open(listener, connect.version).connecting(&connect)
    }

    #[track_caller]
    fn sign_in(&self, listener: Listener, who: Credentials, connect: Connect) -> AnyClient {
        let (client, connack) = self.connect(listener, who, connect);
        assert_eq!(connack.code, 0, "{listener:?} {who:?}");
        client
    }

    /// Changes the permissions, as its operator does.
    fn configure(&self, without: &str) {
        self.command(&["configure", "acl", &config(without)]);
    }

    /// The same by another instance of the plugin.
    fn swap(&self, without: &str) {
        let library = package_library("acl");
        let library = library.to_str().expect("UTF-8");
        self.command(&["swap", "--plugin", library, "--plugin-config", &config(without), "--probation", "0s"]);
    }

    fn command(&self, arguments: &[&str]) {
        let path = self.dir.path().join("control.sock");
        let control = Control::bind(&Place::Path(path.clone())).expect("a place");
        let served = control.serve(&self.server).expect("a thread");
        let output = host_output([arguments, &["--control", path.to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        drop(served);
        self.everywhere.borrow_mut().iter_mut().for_each(Client::ping);
    }

    fn stop(self) {
        self.server.stop().expect("it stops");
    }
}

/// The whole table for each listener and version, with a server that is the same for all.
fn for_each(test: impl Fn(&Host, Listener, u8)) {
    let host = Host::start();
    for listener in LISTENERS {
        for version in [V3_1_1, V5] {
            println!("{listener:?}, version {version}");
            test(&host, listener, version);
        }
    }
    host.stop();
}

/// What a client gets that is refused: the Reason Code of 5.0, or what 3.1.1 has in its place.
fn refusal(version: u8, v5: u8, v3: u8) -> u8 {
    if version == V5 { v5 } else { v3 }
}

#[test]
fn only_who_has_the_password_comes_in() {
    let table: &[(Credentials, &str, u8, u8)] = &[
        (ROOT, "root", 0, 0),
        (ANN, "ann", 0, 0),
        (ANN, "ann:2", 0, 0),
        (NOBODY, "nobody-1", 0, 0),
        ((Some("ann"), Some("wrong")), "ann", 0x86, 4),
        ((Some("ann"), Some("")), "ann", 0x86, 4),
        ((Some("ann"), Some("secret ")), "ann", 0x86, 4),
        ((Some("ann"), None), "ann", 0x86, 4),
        ((Some("Ann"), Some("secret")), "Ann", 0x86, 4),
        ((Some("eve"), Some("secret")), "eve", 0x86, 4),
        ((Some(""), Some("secret")), "ann", 0x86, 4),
        // A Client Identifier that belongs to somebody else.
        (BOB, "ann", 0x85, 2),
        (BOB, "ann:2", 0x85, 2),
        (NOBODY, "ann", 0x85, 2),
    ];
    for_each(|host, listener, version| {
        for &(who, client_id, v5, v3) in table {
            let (mut client, connack) = host.connect(listener, who, Connect::new(version, client_id));
            assert_eq!(connack.code, refusal(version, v5, v3), "{who:?} as {client_id}");
            if connack.code != 0 {
                client.expect_closed();
            }
        }
    });
}

/// Who may publish where.
const PUBLISH: &[(Credentials, &str, bool)] = &[
    (ANN, "ann/x", true),
    (ANN, "public/news", true),
    (ANN, "public/secret", false),
    (ANN, "public/a/b", false),
    (ANN, "bob/x", false),
    (ANN, "annx", false),
    (ANN, "other", false),
    (BOB, "bob/x", true),
    (BOB, "ann/inbox", true),
    (BOB, "ann/x", false),
    (BOB, "public/news", false),
    (NOBODY, "public/news", false),
    (NOBODY, "ann/x", false),
    (NOBODY, "nobody/x", false),
    (ROOT, "$SYS/x", false),
];

fn client_id((username, _): Credentials) -> &'static str {
    username.unwrap_or("nobody-1")
}

/// Topics and payloads of so many messages that a witness gets, and of whatever else it gets; in no order, as those of
/// several publishers have none.
fn take(witness: &mut AnyClient, count: usize) -> Vec<(String, String)> {
    let mut all: Vec<Publish> = (0..count).map(|_| witness.receive()).collect();
    // What other workers have sent before the first one is there with the second.
    for _ in 0..2 {
        witness.publish("end", "", 0);
        loop {
            let message = witness.receive();
            if message.topic == "end" {
                break;
            }
            all.push(message);
        }
    }
    let mut all: Vec<_> = all.into_iter().map(|message| (message.topic.clone(), message.text().to_owned())).collect();
    all.sort_unstable();
    all
}

#[test]
fn nobody_publishes_what_he_may_not_with_any_qos_and_nothing_of_it_is_retained() {
    for_each(|host, listener, version| {
        let mut witness = host.sign_in(listener, ROOT, Connect::new(version, "root"));
        witness.subscribe("#", 0);
        let mut expected = Vec::new();
        for &(who, topic, may) in PUBLISH.iter().filter(|(who, ..)| *who != ROOT) {
            let mut client = host.sign_in(listener, who, Connect::new(version, client_id(who)));
            for qos in 0..3 {
                let text = format!("{qos}");
                let code = client.publish_message(Publish::new(topic, &text).qos(qos, 0).retained());
                let refused = if version == V5 && qos > 0 { 0x87 } else { 0 };
                assert_eq!(code, if may { 0 } else { refused }, "{who:?} {topic} with QoS {qos}");
                if may {
                    expected.push((topic.to_owned(), text));
                }
            }
            client.ping();
        }
        expected.sort_unstable();
        assert_eq!(take(&mut witness, expected.len()), expected);
        // What is retained is what was allowed, and nothing else.
        let mut late = host.sign_in(listener, ROOT, Connect::new(version, "root:late"));
        late.subscribe("#", 0);
        let mut allowed: Vec<&str> = PUBLISH.iter().filter(|(.., may)| *may).map(|(_, topic, _)| *topic).collect();
        allowed.sort_unstable();
        let retained: Vec<String> = take(&mut late, allowed.len()).into_iter().map(|(topic, _)| topic).collect();
        assert_eq!(retained, allowed);
        for topic in allowed {
            witness.publish_message(Publish::new(topic, "").qos(1, 0).retained());
        }
    });
}

#[test]
fn a_will_is_a_message_like_any_other() {
    for_each(|host, listener, version| {
        let mut witness = host.sign_in(listener, ROOT, Connect::new(version, "root"));
        witness.subscribe("#", 0);
        for &(who, topic, may) in PUBLISH.iter().filter(|(who, ..)| *who != ROOT) {
            let will = Will { topic, payload: "gone", ..Will::default() };
            let connect = Connect { will: Some(will), ..Connect::new(version, client_id(who)) };
            let (client, connack) = host.connect(listener, who, connect);
            assert_eq!(connack.code, if may { 0 } else { refusal(version, 0x87, 5) }, "{who:?} {topic}");
            drop(client); // Without DISCONNECT.
            if may {
                assert_eq!(witness.receive().topic, topic, "{who:?}");
            }
        }
        // One that was allowed when its client came, and is not any more when it goes.
        let will = Will { topic: "public/news", payload: "gone", ..Will::default() };
        let connect = Connect { will: Some(will), ..Connect::new(version, "ann") };
        let client = host.sign_in(listener, ANN, connect);
        host.configure("staff");
        drop(client);
        // Until it has gone, another cannot be told that it is there.
        let mut again = host.sign_in(listener, ANN, Connect::new(version, "ann"));
        again.ping();
        assert_eq!(take(&mut witness, 0), []);
        host.configure("");
    });
}

/// One that waits is asked about once more when it is due, if somebody may say something else by then.
#[test]
fn a_will_that_waits_has_to_be_allowed_when_it_is_due() {
    let with_will = |delay_secs| {
        let properties = vec![0x18, 0, 0, 0, delay_secs];
        let will = Will { topic: "public/news", payload: "gone", properties, ..Will::default() };
        Connect { will: Some(will), ..Connect::new(V5, "ann").persistent() }
    };
    let gone = vec![("public/news".to_owned(), "gone".to_owned())];
    for_each(|host, listener, version| {
        if version != V5 {
            return; // There is no delay.
        }
        let mut witness = host.sign_in(listener, ROOT, Connect::new(V5, "root"));
        witness.subscribe("#", 0);
        let changes: &[fn(&Host, &str)] = match listener {
            Listener::Tcp => &[Host::configure, Host::swap],
            _ => &[Host::configure],
        };
        for change in changes {
            // What is left out may have something to do with it or not.
            for (without, may) in [("people", true), ("staff", false)] {
                let mut client = host.sign_in(listener, ANN, with_will(60));
                client.send([0xe0, 1, 4]); // With its Will Message.
                client.expect_closed();
                change(host, without);
                // The old session ends, and so does the time for which its will waits.
                host.sign_in(listener, ANN, Connect::new(V5, "ann")).disconnect();
                assert_eq!(take(&mut witness, usize::from(may)), if may { &gone[..] } else { &[] }, "{without}");
                change(host, "");
            }
        }
        drop(host.sign_in(listener, ANN, with_will(1)));
        assert_eq!(take(&mut witness, 1), gone, "where nothing has changed");
    });
}

/// Who may subscribe to what; a retained message waits at each of the topics.
const SUBSCRIBE: &[(Credentials, &str, bool)] = &[
    (ANN, "ann/#", true),
    (ANN, "ann/+", true),
    (ANN, "public/news", true),
    (ANN, "$share/g/ann/x", true),
    (ANN, "#", false),
    (ANN, "+/x", false),
    (ANN, "bob/#", false),
    (ANN, "bob/x", false),
    (ANN, "$share/g/bob/#", false),
    (ANN, "$share/g/#", false),
    // It would deliver what is denied.
    (ANN, "public/#", false),
    (ANN, "public/+", false),
    (ANN, "public/secret", false),
    (ANN, "$SYS/#", false),
    (NOBODY, "public/news", true),
    (NOBODY, "#", false),
    (NOBODY, "ann/#", false),
    (NOBODY, "$share/g/ann/#", false),
];

#[test]
fn nobody_gets_what_he_may_not_live_retained_or_shared() {
    const TOPICS: [&str; 4] = ["ann/x", "bob/x", "public/news", "public/secret"];
    for_each(|host, listener, version| {
        let mut root = host.sign_in(listener, ROOT, Connect::new(version, "root"));
        for topic in TOPICS {
            root.publish_message(Publish::new(topic, "retained").qos(1, 0).retained());
        }
        for &(who, filter, may) in SUBSCRIBE {
            let mut client = host.sign_in(listener, who, Connect::new(version, client_id(who)));
            let codes = client.subscribe_all(&[(filter, 0)]);
            assert_eq!(codes, [if may { 0 } else { refusal(version, 0x87, 0x80) }], "{who:?} {filter}");
            let plain = filter.trim_start_matches("$share/g/");
            let matched: Vec<&str> =
                TOPICS.into_iter().filter(|topic| plugin_api::topic::matches(plain, topic)).collect();
            let mut expect = |text: &str| {
                for topic in matched.iter().filter(|topic| may && **topic != "public/secret") {
                    let message = client.receive();
                    assert_eq!((message.topic.as_str(), message.text()), (*topic, text), "{who:?} {filter}");
                }
            };
            if !filter.starts_with("$share") {
                expect("retained");
            }
            for topic in TOPICS {
                root.publish(topic, "live", 1);
            }
            expect("live");
            client.expect_nothing();
            client.disconnect();
        }
        for topic in TOPICS {
            root.publish_message(Publish::new(topic, "").qos(1, 0).retained());
        }
    });
}

/// A member whose permission has gone is none any more: its share goes to the others.
#[test]
fn a_shared_subscription_goes_on_without_who_may_not_have_it_any_more() {
    for_each(|host, listener, version| {
        let mut root = host.sign_in(listener, ROOT, Connect::new(version, "root"));
        root.subscribe("$share/g/ann/#", 1);
        let mut ann = host.sign_in(listener, ANN, Connect::new(version, "ann"));
        ann.subscribe("$share/g/ann/#", 1);
        host.configure("ann/#");
        assert!(ann.subscribe_all(&[("$share/g/ann/#", 1)])[0] >= 0x80);
        let mut bob = host.sign_in(listener, ROOT, Connect::new(version, "root:more"));
        for number in 0..4 {
            bob.publish("ann/x", format!("{number}"), 1);
            assert_eq!(root.receive().text(), format!("{number}"));
        }
        ann.expect_nothing();
        host.configure("");
    });
}

#[test]
fn a_resumed_session_has_what_its_client_may_have_now_and_messages_that_wait_too() {
    for_each(|host, listener, version| {
        let session = || Connect::new(version, "ann:session").persistent();
        let mut ann = host.sign_in(listener, ANN, session());
        ann.subscribe("ann/#", 1);
        ann.subscribe("public/news", 1);
        ann.disconnect();
        let mut root = host.sign_in(listener, ROOT, Connect::new(version, "root"));
        for topic in ["ann/x", "public/news"] {
            root.publish(topic, "waits", 1);
        }
        host.configure("ann/#");
        // Nobody else gets the session by its name.
        for who in [BOB, NOBODY] {
            let (_, connack) = host.connect(listener, who, session());
            assert_eq!(connack.code, refusal(version, 0x85, 2), "{who:?}");
        }
        let (_, connack) = host.connect(listener, (Some("ann"), Some("wrong")), session());
        assert_eq!(connack.code, refusal(version, 0x86, 4));
        let (mut ann, connack) = host.connect(listener, ANN, session());
        assert_eq!((connack.code, connack.session_present), (0, true));
        assert_eq!(ann.receive().topic, "public/news");
        for topic in ["ann/x", "public/news"] {
            root.publish(topic, "now", 1);
        }
        let message = ann.receive();
        assert_eq!((message.topic.as_str(), message.text()), ("public/news", "now"));
        ann.expect_nothing();
        ann.disconnect();
        host.configure("");
        host.sign_in(listener, ANN, Connect::new(version, "ann:session")).disconnect();
    });
}

#[test]
fn permissions_that_change_count_at_once() {
    for_each(|host, listener, version| {
        let mut root = host.sign_in(listener, ROOT, Connect::new(version, "root"));
        root.subscribe("ann/#", 1);
        let mut ann = host.sign_in(listener, ANN, Connect::new(version, "ann"));
        ann.subscribe("ann/#", 1);
        ann.publish("ann/x", "before", 1);
        assert_eq!((ann.receive().text(), root.receive().text()), ("before", "before"));
        host.configure("ann/#");
        assert_eq!(ann.publish("ann/x", "after", 1), if version == V5 { 0x87 } else { 0 });
        assert_eq!(ann.subscribe_all(&[("ann/#", 1)]), [refusal(version, 0x87, 0x80)]);
        root.publish("ann/y", "after", 1);
        assert_eq!(root.receive().topic, "ann/y");
        ann.expect_nothing();
        root.expect_nothing();
        host.configure("");
        assert_eq!(ann.publish("ann/x", "again", 1), 0);
        assert_eq!(root.receive().text(), "again");
    });
}
