//! The trie, the store of retained messages and `plugin_api::topic` against section 4.7 word by word, for filters and
//! names of all kinds. What fails is made smaller and printed; it becomes a test of its own.

use std::collections::BTreeSet;

use plugin_api::topic;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::Config;

use super::*;
use crate::clock::Millis;
use crate::message::{MessageParts, Source};

fn level() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(vec!["a", "b", "", "$x", "$", "ü"]).prop_map(str::to_owned),
        1 => select(vec![13_usize, 14, 15, 16, 300]).prop_map(|bytes| "l".repeat(bytes)),
    ]
}

fn name() -> impl Strategy<Value = String> {
    vec(level(), 1..6).prop_map(|levels| levels.join("/")).prop_filter("a name is not empty", |name| !name.is_empty())
}

/// Valid ones only: a name in which some levels have become `+`, with `#` behind it or instead of its end.
fn filter() -> impl Strategy<Value = String> {
    (name(), vec(prop::bool::weighted(0.3), 5), 0..4_u8, any::<Index>()).prop_map(|(name, plus, end, cut)| {
        let levels = name.split('/').zip(plus).map(|(level, plus)| if plus { "+" } else { level });
        let mut levels: Vec<&str> = levels.collect();
        match end {
            0 => levels.push("#"),
            1 => {
                levels.truncate(cut.index(levels.len()));
                levels.push("#");
            }
            _ => {}
        }
        levels.join("/")
    })
}

#[derive(Debug, Clone)]
enum Change {
    Subscribe(u32, Index),
    Unsubscribe(u32, Index),
    Retain(Index),
    Clear(Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..4_u32, any::<Index>()).prop_map(|(slot, filter)| Change::Subscribe(slot, filter)),
        2 => (0..4_u32, any::<Index>()).prop_map(|(slot, filter)| Change::Unsubscribe(slot, filter)),
        2 => any::<Index>().prop_map(Change::Retain),
        1 => any::<Index>().prop_map(Change::Clear),
    ]
}

proptest! {
    #![proptest_config(Config { cases: 400, failure_persistence: None, ..Config::default() })]

    #[test]
    fn everything_agrees_after_any_changes(
        filters in vec(filter(), 1..8),
        names in vec(name(), 1..8),
        changes in vec(change(), 1..40),
    ) {
        let mut router = router();
        let retained = Retained::new(usize::MAX, usize::MAX);
        let (mut subscribed, mut kept) = (BTreeSet::new(), BTreeSet::new());
        for change in &changes {
            match change {
                Change::Subscribe(slot, filter) => {
                    let filter = filter.get(&filters);
                    let replaced = router.subscribe(session(*slot), filter, options(0), None);
                    prop_assert_eq!(replaced, !subscribed.insert((*slot, filter)));
                }
                Change::Unsubscribe(slot, filter) => {
                    let filter = filter.get(&filters);
                    prop_assert_eq!(router.unsubscribe(session(*slot), filter), subscribed.remove(&(*slot, filter)));
                }
                Change::Retain(name) => {
                    let (topic, qos, expires_at) = (name.get(&names).as_str(), QoS::AtMostOnce, Millis::NEVER);
                    let parts = MessageParts { topic, payload: b"x", properties: &[], qos, retain: true, expires_at, source: Source::Client, as_it_came: None };
                    prop_assert_eq!(retained.set(Arc::new(parts.to_message())), Ok(()));
                    kept.insert(topic);
                }
                Change::Clear(name) => {
                    let name = name.get(&names).as_str();
                    prop_assert_eq!(retained.clear(name), kept.remove(name));
                }
            }
            for name in &names {
                let expected: BTreeSet<u32> =
                    subscribed.iter().filter(|(_, filter)| filter_matches(filter, name)).map(|(slot, _)| *slot).collect();
                let found = router.targets(name).local.iter().map(|target| target.session.slot).collect::<Vec<_>>();
                prop_assert_eq!(found.len(), expected.len(), "{} finds {:?}", name, found);
                prop_assert!(found.iter().all(|slot| expected.contains(slot)), "{} finds {:?}", name, found);
            }
        }
        for filter in &filters {
            let expected: Vec<&str> = kept.iter().copied().filter(|name| filter_matches(filter, name)).collect();
            let found = retained.matching(filter, Millis(0));
            let mut found: Vec<&str> = found.iter().map(|message| message.topic()).collect();
            found.sort_unstable();
            prop_assert_eq!(found, expected, "{}", filter);
        }
    }

    #[test]
    fn plugins_match_as_the_router_does(filter in filter(), other in filter(), name in name()) {
        prop_assert!(topic::is_valid_filter(&filter) && topic::is_valid_name(&name));
        let matches = filter_matches(&filter, &name);
        prop_assert_eq!(topic::matches(&filter, &name), matches, "{} and {}", &filter, &name);
        if matches && topic::covers(&other, &filter) {
            prop_assert!(filter_matches(&other, &name), "{} covers {}, but not {}", &other, &filter, &name);
        }
        if matches && filter_matches(&other, &name) {
            prop_assert!(topic::overlaps(&filter, &other), "{} and {} meet in {}", &filter, &other, &name);
        }
    }
}
