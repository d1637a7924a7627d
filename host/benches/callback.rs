//! What a callback costs on the way of a message: `cargo bench -p host --bench callback`.
//!
//! What a plugin costs is the difference between `one_plugin` and `no_plugin`. The figure to reach is 5 ns.

use host::plugin::{
    Chain, ChangedMessage, ConnectionInfo, Handlers, Plugin, PublishFields, PublishOutcome, PublishRequest, Services,
    Transport, Watch,
};
use plugin_api::{Error, Handler, Host, Publish, PublishVerdict, QoS, handler};

/// Has an opinion on publishing, and none against it.
struct Forward;

#[handler]
impl Handler for Forward {
    type Connection = u64;

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, _: &plugin_api::ConnectionInfo<'_>) -> u64 {
        0
    }

    fn handle_publish(&self, count: &mut u64, publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        *count += publish.payload().len() as u64;
        Ok(PublishVerdict::Forward)
    }
}

/// Has no opinion on publishing.
struct Silent;

#[handler]
impl Handler for Silent {
    type Connection = ();

    fn init(_: Host, _: &str) -> Result<Self, Error> {
        Ok(Self)
    }

    fn new_connection(&self, _: &plugin_api::ConnectionInfo<'_>) {}
}

/// The core puts a request together once, whether plugins want to see it or not.
const REQUEST: PublishRequest<'_> = PublishRequest::new(PublishFields {
    topic: "devices/7/temperature",
    payload: b"21.5",
    properties: &[],
    qos: QoS::AtMostOnce,
    retain: false,
    dup: false,
    packet_id: None,
    will: false,
});

/// A chain, and the states of one connection.
fn chain<const N: usize>(load: impl Fn(&'static str, &Services) -> Plugin) -> (Chain, Handlers) {
    // As on a worker's thread.
    let limits = host::Limits::default();
    let watch = Watch::new(1, &limits);
    watch.sit(0);
    let services = Services::detached().watched_by(watch, &limits);
    let plugins = ["a", "b", "c"][..N].iter().map(|name| load(name, &services)).collect();
    let chain = Chain::new(plugins).expect("a chain");
    let peer = "192.0.2.7:1883".parse().expect("an address");
    let handlers = chain
        .new_connection(&ConnectionInfo { connection: 1, peer, listener: "l", transport: Transport::PLAIN })
        .expect("states");
    (chain, handlers)
}

fn forward(name: &'static str, services: &Services) -> Plugin {
    Plugin::from_static::<Forward>(name, "1.0.0", "{}", services).expect("it loads")
}

fn silent(name: &'static str, services: &Services) -> Plugin {
    Plugin::from_static::<Silent>(name, "1.0.0", "{}", services).expect("it loads")
}

fn publish(bencher: divan::Bencher<'_, '_>, (chain, mut handlers): (Chain, Handlers)) {
    let mut changed = ChangedMessage::default();
    bencher.bench_local(|| {
        let outcome = chain.publish(&mut handlers, "client", divan::black_box(&REQUEST), &mut changed);
        assert_eq!(outcome, PublishOutcome::Forward);
    });
}

#[divan::bench(sample_size = 100_000)]
fn no_plugin(bencher: divan::Bencher<'_, '_>) {
    publish(bencher, chain::<1>(silent));
}

#[divan::bench(sample_size = 100_000)]
fn one_plugin(bencher: divan::Bencher<'_, '_>) {
    publish(bencher, chain::<1>(forward));
}

#[divan::bench(sample_size = 100_000)]
fn three_plugins(bencher: divan::Bencher<'_, '_>) {
    publish(bencher, chain::<3>(forward));
}

fn main() {
    divan::main();
}
