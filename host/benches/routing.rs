//! From a topic to its subscribers: `cargo bench -p host --bench routing`. The arguments are numbers of filters.

use std::sync::Arc;

use divan::{Bencher, black_box};
use host::router::{Interest, Router, SessionKey, SubscribeOptions};
use plugin_api::QoS::AtMostOnce;

const FILTERS: [u32; 3] = [1_000, 10_000, 100_000];

/// Topics that are asked for in turn: more than the cache in front of the tries keeps.
const TOPICS: u32 = 100_000;

/// A quarter of the filters has no wildcard, the others have one each.
fn filter(number: u32) -> String {
    match number % 4 {
        0 => format!("site/{}/+/temperature", number / 4),
        1 => format!("site/{}/room/#", number / 4),
        2 => format!("+/{}/room/temperature", number / 4),
        _ => format!("site/{}/room/temperature", number / 4),
    }
}

fn session(number: u32) -> SessionKey {
    SessionKey { slot: number, serial: 1 }
}

fn router(filters: u32) -> Router {
    let mut router = Router::new(0, Arc::new(Interest::new(1)));
    for number in 0..filters {
        router.subscribe(session(number), &filter(number), SubscribeOptions::new(AtMostOnce), None);
    }
    router
}

/// A topic that was asked for before.
#[divan::bench(args = FILTERS)]
fn cached(bencher: Bencher<'_, '_>, filters: u32) {
    let mut router = router(filters);
    bencher.bench_local(|| router.targets(black_box("site/77/room/temperature")));
}

/// Topics that come for the first time, with four subscribers or none.
#[divan::bench(args = FILTERS, sample_size = 100)]
fn matched(bencher: Bencher<'_, '_>, filters: u32) {
    let mut router = router(filters);
    let topics: Vec<String> = (0..TOPICS).map(|number| format!("site/{number}/room/temperature")).collect();
    let mut topics = topics.iter().cycle();
    bencher.bench_local(|| router.targets(topics.next().expect("they have no end")));
}

/// One filter more, and one less.
#[divan::bench(args = FILTERS)]
fn subscribed_and_unsubscribed(bencher: Bencher<'_, '_>, filters: u32) {
    let mut router = router(filters);
    bencher.bench_local(|| {
        let options = SubscribeOptions::new(AtMostOnce);
        router.subscribe(session(filters), black_box("other/+/temperature"), options, None);
        router.unsubscribe(session(filters), black_box("other/+/temperature"))
    });
}

fn main() {
    divan::main();
}
