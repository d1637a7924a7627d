//! Topic Filters and Topic Names: under any sequence of changes, the routers of two workers and the store of retained
//! messages find what `plugin_api::topic::matches` says, one by one.
//!
//! Each byte of an input stands for a piece of text, so that filters often meet names; byte 255 ends a line. The first
//! piece of a line says what is done with the rest of it.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use host::clock::Millis;
use host::codec::SubscribeOptions;
use host::message::{Message, MessageParts, Source};
use host::router::{Interest, Retained, Router, SessionKey};
use libfuzzer_sys::fuzz_target;
use plugin_api::{QoS, topic};

const PIECES: [&str; 16] = [
    "/",
    "a",
    "+",
    "#",
    "b",
    "",
    "$",
    "ü",
    "/+/",
    "/#",
    "$SYS/",
    "a level of more than 14 bytes",
    "//",
    "c",
    "/a",
    "+/",
];

const LINES_MAX: usize = 200;

fuzz_target!(|input: &[u8]| {
    let interest = Arc::new(Interest::new(2));
    let mut routers = [0, 1].map(|worker| Router::new(worker, Arc::clone(&interest)));
    let retained = Retained::new(usize::MAX, usize::MAX);
    let mut model = Model::default();
    for line in input.split(|byte| *byte == 0xFF).take(LINES_MAX) {
        let Some((&what, rest)) = line.split_first() else { continue };
        let text: String = rest.iter().map(|byte| PIECES[usize::from(byte % 16)]).collect();
        check_text(&text);
        let (worker, session) = (usize::from(what >> 7), SessionKey { slot: (what >> 4 & 3).into(), serial: 1 });
        let key = (worker, session.slot, text.clone());
        match what & 7 {
            0 | 1 if topic::is_valid_filter(&text) => {
                let options = SubscribeOptions::new(QoS::AtMostOnce);
                let replaced = routers[worker].subscribe(session, &text, options, None);
                assert_eq!(replaced, !model.subscriptions.insert(key));
            }
            2 if topic::is_valid_filter(&text) => {
                assert_eq!(routers[worker].unsubscribe(session, &text), model.subscriptions.remove(&key));
            }
            3 if topic::is_valid_name(&text) => {
                let payload = [what];
                assert_eq!(retained.set(Arc::new(message(&text, &payload))), Ok(()));
                model.retained.insert(text, what);
            }
            4 if topic::is_valid_name(&text) => {
                assert_eq!(retained.clear(&text), model.retained.remove(&text).is_some());
            }
            5 if topic::is_valid_filter(&text) => model.check_retained(&retained, &text),
            _ if topic::is_valid_name(&text) => model.check_targets(&mut routers, &text),
            _ => {}
        }
    }
    for (worker, slot, filter) in &model.subscriptions {
        assert!(routers[*worker].unsubscribe(SessionKey { slot: *slot, serial: 1 }, filter));
    }
    model.retained.keys().for_each(|name| assert!(retained.clear(name)));
    assert!(retained.is_empty() && retained.bytes() == 0);
    assert!(routers.iter().all(|router| router.nodes() == 0));
});

/// What should be there.
#[derive(Default)]
struct Model {
    subscriptions: BTreeSet<(usize, u32, String)>,
    retained: BTreeMap<String, u8>,
}

impl Model {
    fn check_targets(&self, routers: &mut [Router; 2], name: &str) {
        for (worker, router) in routers.iter_mut().enumerate() {
            let targets = router.targets(name);
            let matching = self.subscriptions.iter().filter(|(.., filter)| topic::matches(filter, name));
            let (own, others): (Vec<_>, Vec<_>) = matching.partition(|(owner, ..)| *owner == worker);
            let expected: BTreeSet<u32> = own.iter().map(|(_, slot, _)| *slot).collect();
            let found: Vec<u32> = targets.local.iter().map(|target| target.session.slot).collect();
            assert_eq!(found.len(), expected.len(), "{name}: {found:?}, expected {expected:?}");
            assert!(found.iter().all(|slot| expected.contains(slot)), "{name}: {found:?}, expected {expected:?}");
            let remote = others.iter().fold(0, |bits, (owner, ..)| bits | 1 << owner);
            assert_eq!(targets.remote, remote, "{name} at worker {worker}");
        }
    }

    fn check_retained(&self, retained: &Retained, filter: &str) {
        let matching = self.retained.iter().filter(|(name, _)| topic::matches(filter, name));
        let expected: BTreeMap<&str, u8> = matching.map(|(name, payload)| (name.as_str(), *payload)).collect();
        let found = retained.matching(filter, Millis(0));
        assert_eq!(found.len(), expected.len(), "{filter}");
        for message in found {
            assert_eq!(expected.get(message.topic()).map(std::slice::from_ref), Some(message.payload()), "{filter}");
        }
    }
}

fn message(topic: &str, payload: &[u8]) -> Message {
    let (qos, retain, expires_at) = (QoS::AtMostOnce, true, Millis::NEVER);
    MessageParts { topic, payload, properties: &[], qos, retain, expires_at, source: Source::Client, as_it_came: None }
        .to_message()
}

/// What holds for a text by itself.
fn check_text(text: &str) {
    if topic::is_valid_name(text) {
        // A name is the filter that matches it alone.
        assert!(topic::is_valid_filter(text) && topic::matches(text, text) && topic::covers(text, text));
        assert_eq!(topic::matches("#", text), !text.starts_with('$'));
    }
    if let topic::Share::Group { share_name, filter } = topic::split_share(text) {
        assert_eq!(format!("$share/{share_name}/{filter}"), text);
    }
    if topic::is_valid_filter(text) {
        assert!(topic::covers(text, text) && topic::overlaps(text, text));
    }
}
