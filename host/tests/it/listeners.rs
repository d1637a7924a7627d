//! What holds for the clients of one listener alone: which plugins decide about them, and which topics they see. And what
//! handlers are shown of how a client has come.

use std::os::unix::net::UnixStream;

use host::config::Config;
use host::limits::Undecided;
use host::{ClientRules, Limits, ListenerConfig};
use plugin_api::{
    Connect, ConnectVerdict, ConnectionInfo, Error, Handler, Host, Publish, PublishVerdict, ReasonCode, TransportKind,
    handler,
};

use crate::harness::{TempDir, eventually, start, with_configured};
use crate::mqtt::{self, Client, V5};

/// Lets in who comes through a Unix socket as the user that this process is; publishing below `locked` is refused.
struct Doorkeeper;

#[handler]
impl Handler for Doorkeeper {
    type Connection = Option<u64>;

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, info: &ConnectionInfo<'_>) -> Option<u64> {
        info.transport().unix().map(|peer| peer.uid)
    }

    fn handle_connect(&self, uid: &mut Option<u64>, connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        let transport = connect.transport();
        let is_same = transport.unix().map(|peer| peer.uid) == *uid;
        let pid = transport.unix().map(|peer| peer.pid);
        if is_same && transport.kind() == TransportKind::Unix && pid == Some(std::process::id().into()) {
            return Ok(ConnectVerdict::accept());
        }
        Ok(ConnectVerdict::reject(ReasonCode::NOT_AUTHORIZED))
    }

    fn handle_publish(&self, _: &mut Option<u64>, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        if publish.topic().starts_with("sites/7/locked/") {
            return Ok(PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED));
        }
        Ok(PublishVerdict::Forward)
    }
}

fn listener(url: &str, change: impl FnOnce(&mut ClientRules)) -> ListenerConfig {
    let mut config = ListenerConfig::new(url.parse().expect("a URL"));
    change(&mut config.rules);
    config
}

/// Three listeners: a Unix socket whose clients the handler decides about, the same below a mount point, and one that the
/// handler has nothing to do with.
#[test]
fn each_has_its_plugins_and_its_topics() {
    let dir = TempDir::new("listeners");
    let [all, below] = ["all", "below"].map(|name| dir.path().join(name));
    let mount = |rules: &mut ClientRules| rules.mount = Some("sites/7".parse().expect("two levels"));
    with_configured(
        |builder| {
            let url = |path: &std::path::Path| format!("unix:{}", path.display());
            builder
                .handler::<Doorkeeper>("doorkeeper", "{}")
                .listener(listener("tcp://127.0.0.1:0", |rules| rules.plugins = Some(Vec::new())))
                .listener(listener(&url(&all), |_| {}))
                .listener(listener(&url(&below), mount))
        },
        |server| {
            let open = |path: &std::path::Path| Client::over(UnixStream::connect(path).expect("it listens"), V5);
            let mut unasked = Client::connect(server.local_addrs()[1], V5, "unasked");
            let (mut outside, mut inside) = (open(&all).connected("outside"), open(&below).connected("inside"));
            outside.subscribe("sites/#", 1);
            inside.subscribe("#", 1);
            assert_eq!(inside.publish("locked/t", "x", 1), 0x87, "handlers know the real name");
            assert_eq!(outside.publish("sites/7/locked/t", "x", 1), 0x87);
            assert_eq!(unasked.publish("sites/7/locked/t", "x", 1), 0, "nobody is asked");
            assert_eq!(outside.receive().topic, "sites/7/locked/t");
            assert_eq!(inside.receive().topic, "locked/t");
            assert_eq!(inside.publish("t", "y", 1), 0);
            assert_eq!(inside.receive().topic, "t");
            assert_eq!(outside.receive().topic, "sites/7/t");
            assert_eq!(unasked.publish("sites/8/t", "z", 1), 0);
            assert_eq!(outside.receive().topic, "sites/8/t");
            inside.expect_nothing();
        },
    );
}

/// A listener that a plugin decides about is closed to who comes another way; one that other machines can reach is not opened
/// where none of its plugins decides, whatever those of others do.
#[test]
fn a_plugin_of_another_listener_is_of_no_use() {
    let server = start(1, |builder| builder.handler::<Doorkeeper>("doorkeeper", "{}"));
    let (_, connack) = Client::connect_with(server.local_addr(), &mqtt::Connect::new(V5, "c"));
    assert_eq!(connack.code, 0x87);
    server.stop().expect("it stops");
    let public = |change: fn(&mut ClientRules)| {
        let builder = host::Server::builder().handler::<Doorkeeper>("doorkeeper", "{}");
        let error = builder.listener(listener("tcp://0.0.0.0:0", change)).start().err();
        error.map_or_else(String::new, |error| error.to_string())
    };
    assert_eq!(public(|_| {}), "");
    let error = public(|rules| rules.plugins = Some(Vec::new()));
    assert!(error.starts_with("will not listen at 0.0.0.0:") && error.contains("no plugin decides"), "{error}");
    let error = public(|rules| rules.plugins = Some(vec!["doorman".to_owned()]));
    assert!(error.ends_with("its plugin `doorman` is not loaded; those that are: doorkeeper"), "{error}");
}

/// Decides who comes in and who publishes, and says nothing about subscribing.
struct Forgetful;

#[handler]
impl Handler for Forgetful {
    type Connection = ();

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) {}

    fn handle_connect(&self, _: &mut (), _: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        Ok(ConnectVerdict::accept())
    }

    fn handle_publish(&self, _: &mut (), _: &Publish<'_>) -> Result<PublishVerdict, Error> {
        Ok(PublishVerdict::Forward)
    }
}

/// What its plugins leave undecided is allowed at a listener that only this machine reaches, and refused at others, unless one
/// has said what is to be.
#[test]
fn what_plugins_leave_undecided_is_refused_where_other_machines_come() {
    for (undecided, local, public) in
        [(Undecided::Local, 1, 0x87), (Undecided::Refuse, 0x87, 0x87), (Undecided::Allow, 1, 1)]
    {
        let mut limits = Limits::default();
        limits.undecided = undecided;
        let server =
            start(1, |builder| builder.handler::<Forgetful>("forgetful", "{}").limits(limits).listen("0.0.0.0:0"));
        let codes = [0, 1].map(|place: usize| {
            let port = server.local_addrs()[place].port();
            Client::connect(([127, 0, 0, 1], port).into(), V5, "c").subscribe_all(&[("#", 1)])
        });
        let is_local = |place: usize| server.local_addrs()[place].ip().is_loopback();
        let expected = [0, 1].map(|place| vec![if is_local(place) { local } else { public }]);
        assert_eq!((codes, is_local(0)), (expected, !is_local(1)), "{undecided:?}");
        server.stop().expect("it stops");
    }
}

/// What is to become of it may change, for who connects then.
#[test]
fn what_is_left_undecided_may_be_refused_from_a_reload_on() {
    let current = Config::default();
    let server = start(1, |builder| builder.handler::<Forgetful>("forgetful", "{}"));
    let mut before = Client::connect(server.local_addr(), V5, "before");
    let mut wanted = current.clone();
    wanted.limits.undecided = Undecided::Refuse;
    let (_, report) = server.reload(&current, &wanted).expect("it can change");
    assert!(report.restart.is_empty(), "{report}");
    eventually("it is refused to who comes", || {
        Client::connect(server.local_addr(), V5, "after").subscribe_all(&[("#", 1)]) == [0x87]
    });
    assert_eq!(before.subscribe_all(&[("#", 1)]), [1]);
    server.stop().expect("it stops");
}
