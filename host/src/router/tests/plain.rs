//! Subscriptions that are not shared: matching, merging, No Local, and what other workers and the cache see.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::*;

fn slots(targets: &Targets) -> Vec<u32> {
    let mut slots: Vec<u32> = targets.local.iter().map(|target| target.session.slot).collect();
    slots.sort_unstable();
    slots
}

/// What the model knows of a subscription: worker, slot and filter, and its QoS and identifier.
type Model = BTreeMap<(usize, u32, String), (u8, u32)>;

fn check_against(model: &Model, worker: usize, topic: &str, targets: &Targets) {
    let mut expected: BTreeMap<u32, (u8, Vec<u32>)> = BTreeMap::new();
    let mut remote = 0_u64;
    for ((owner, slot, filter), &(qos, identifier)) in model {
        if !filter_matches(filter, topic) {
            continue;
        }
        if *owner != worker {
            remote |= 1 << owner;
            continue;
        }
        let (highest, identifiers) = expected.entry(*slot).or_default();
        *highest = qos.max(*highest);
        identifiers.extend((identifier > 0).then_some(identifier));
        identifiers.sort_unstable();
    }
    let found: BTreeMap<u32, (u8, Vec<u32>)> = targets
        .local
        .iter()
        .map(|target| (target.session.slot, (target.qos as u8, target.identifiers.to_vec())))
        .collect();
    assert_eq!(found.len(), targets.local.len(), "a session occurs twice for {topic}");
    assert_eq!((found, targets.remote), (expected, remote), "{topic} at worker {worker}");
}

#[test]
fn equals_a_naive_matcher_under_churn_with_three_workers() {
    for seed in 1..=6 {
        let mut random = Random::new(seed);
        let mut routers = routers(3);
        let mut model = Model::new();
        // Few topics, asked for again and again: most answers come from the cache, or should not.
        let topics: Vec<String> = (0..40).map(|_| random.topic()).collect();
        for _ in 0..3000 {
            let worker = random.below(3) as usize;
            let (slot, filter) = (random.below(12), random.filter());
            let key = (worker, slot, filter.clone());
            if random.below(100) < 55 {
                let (qos, number) = (random.below(3) as u8, random.below(4));
                let replaced = routers[worker].subscribe(session(slot), &filter, options(qos), identifier(number));
                assert_eq!(replaced, model.insert(key, (qos, number)).is_some());
            } else {
                // Mostly something that exists: random filters rarely do.
                let key = match model.range(key.clone()..).next() {
                    Some((existing, _)) if random.below(8) > 0 => existing.clone(),
                    _ => key,
                };
                let removed = routers[key.0].unsubscribe(session(key.1), &key.2);
                assert_eq!(removed, model.remove(&key).is_some());
            }
            let topic = &topics[random.below(40) as usize];
            let worker = random.below(3) as usize;
            check_against(&model, worker, topic, &routers[worker].targets(topic));
        }
        for (worker, slot, filter) in model.keys() {
            assert!(routers[*worker].unsubscribe(session(*slot), filter));
        }
        for router in &mut routers {
            assert_eq!(router.subscriptions.nodes().0, 0);
            assert_eq!(router.interest.nodes().0, 0);
            assert!(topics.iter().all(|topic| router.targets(topic).is_empty()));
        }
    }
}

#[test]
fn memory_does_not_grow_under_churn() {
    let mut routers = routers(2);
    let filter = |n: u32| format!("site/{}/a device with a long name {n}/+/temperature", n % 100);
    let mut peak = None;
    for n in 0..60_000 {
        routers[0].subscribe(session(n), &filter(n), options(0), None);
        if n >= 500 {
            assert!(routers[0].unsubscribe(session(n - 500), &filter(n - 500)));
        }
        if n == 10_000 {
            peak = Some((routers[0].subscriptions.nodes().1, routers[0].interest.nodes().1));
        }
    }
    let allocated = (routers[0].subscriptions.nodes().1, routers[0].interest.nodes().1);
    assert_eq!(Some(allocated), peak);
    assert!(allocated.0 < 2500, "{} nodes for 500 filters of 5 levels", allocated.0);
}

#[test]
fn a_session_gets_one_copy_with_the_highest_qos_and_all_identifiers() {
    let mut router = router();
    router.subscribe(session(1), "a/b", options(0), identifier(7));
    router.subscribe(session(1), "a/+", options(2), None);
    router.subscribe(session(1), "#", options(1), identifier(3));
    router.subscribe(session(1), "+/b", options(1), identifier(7));
    router.subscribe(session(2), "a/#", options(1), None);
    let targets = router.targets("a/b");
    assert_eq!(slots(&targets), [1, 2]);
    let first = &targets.local[0];
    assert_eq!(first.qos, QoS::ExactlyOnce); // [MQTT-3.3.4-2]
    assert_eq!(*first.identifiers, [3, 7, 7]); // [MQTT-3.3.4-3] [MQTT-3.3.4-4]
    assert_eq!(first.own, Own::Same);
    assert!(targets.local[1].identifiers.is_empty());
}

#[test]
fn retain_as_published_holds_if_any_subscription_asks_for_it() {
    let mut router = router();
    let as_published = SubscribeOptions { retain_as_published: true, ..options(0) };
    router.subscribe(session(1), "a", options(0), None);
    router.subscribe(session(2), "a", as_published, None);
    router.subscribe(session(1), "+", options(0), None);
    let kept = |router: &mut Router| -> Vec<bool> {
        router.targets("a").local.iter().map(|target| target.retain_as_published).collect()
    };
    assert_eq!(kept(&mut router), [false, true]); // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
    router.subscribe(session(1), "+", as_published, None);
    assert_eq!(kept(&mut router), [true, true]);
}

#[test]
fn a_new_subscription_replaces_the_one_with_the_same_filter() {
    let mut router = router();
    assert!(!router.subscribe(session(1), "a", options(2), identifier(1)));
    assert!(router.subscribe(session(1), "a", options(1), None)); // [MQTT-3.8.4-3]
    let targets = router.targets("a");
    assert_eq!((targets.local.len(), targets.local[0].qos), (1, QoS::AtLeastOnce));
    assert!(targets.local[0].identifiers.is_empty());
    // A session that took over the slot is another one.
    let successor = SessionKey { slot: 1, serial: 2 };
    assert!(!router.unsubscribe(successor, "a"));
    assert!(router.unsubscribe(session(1), "a"));
    assert!(!router.unsubscribe(session(1), "a"));
    assert!(router.targets("a").is_empty()); // [MQTT-3.10.4-1]
}

#[test]
fn no_local_leaves_out_those_subscriptions_for_the_publisher_alone() {
    let mut router = router();
    router.subscribe(session(1), "a", no_local(2), identifier(1)); // alone
    router.subscribe(session(2), "a", options(0), None); // none of it
    router.subscribe(session(3), "a", no_local(2), identifier(3)); // mixed
    router.subscribe(session(3), "+", options(1), identifier(4));
    router.subscribe(session(4), "a", no_local(0), None); // twice
    router.subscribe(session(4), "#", no_local(1), None);
    let targets = router.targets("a");
    let [alone, none, mixed, twice] = &*targets.local else {
        panic!("four sessions, not {targets:?}");
    };
    // Section 3.8.3.1.
    assert_eq!(alone.for_publisher(Some(session(1))), None);
    assert_eq!(alone.for_publisher(Some(session(2))), Some(alone));
    assert_eq!(alone.for_publisher(None), Some(alone));
    assert_eq!(none.for_publisher(Some(session(2))), Some(none));
    assert_eq!(twice.for_publisher(Some(session(4))), None);
    assert_eq!((mixed.qos, &*mixed.identifiers), (QoS::ExactlyOnce, &[3, 4][..]));
    let own = mixed.for_publisher(Some(session(3))).expect("one subscription is not No Local");
    assert_eq!((own.qos, &*own.identifiers), (QoS::AtLeastOnce, &[4][..]));
    assert_eq!(own.session, session(3));
}

#[test]
fn other_workers_see_the_first_subscription_come_and_the_last_one_go() {
    let mut routers = routers(3);
    let check = |routers: &mut [Router], expected: [u64; 3]| {
        let remote: Vec<u64> = routers.iter_mut().map(|router| router.targets("a/b").remote).collect();
        assert_eq!(remote, expected);
    };
    check(&mut routers, [0, 0, 0]);
    routers[1].subscribe(session(1), "a/b", options(0), None);
    check(&mut routers, [0b010, 0, 0b010]);
    routers[2].subscribe(session(1), "#", options(0), None);
    check(&mut routers, [0b110, 0b100, 0b010]);
    routers[1].subscribe(session(2), "a/b", options(0), None);
    routers[1].subscribe(session(2), "+/b", options(0), None);
    routers[1].unsubscribe(session(1), "a/b");
    routers[1].unsubscribe(session(2), "a/b");
    check(&mut routers, [0b110, 0b100, 0b010]);
    routers[1].unsubscribe(session(2), "+/b");
    check(&mut routers, [0b100, 0b100, 0]);
    routers[2].unsubscribe(session(1), "#");
    check(&mut routers, [0, 0, 0]);
}

#[test]
fn what_is_cached_is_shared_until_a_filter_that_may_match_changes() {
    let mut routers = routers(2);
    routers[0].subscribe(session(1), "a/b/c", options(0), None);
    let cached = routers[0].targets("a/b/c");
    assert!(Rc::ptr_eq(&cached, &routers[0].targets("a/b/c")));
    // The same subscription once more makes nothing outdated.
    assert!(routers[0].subscribe(session(1), "a/b/c", options(0), None));
    assert!(Rc::ptr_eq(&cached, &routers[0].targets("a/b/c")));
    for filter in ["a/b/c", "a/b/#", "a/+/c", "a/#", "+/b/c", "#"] {
        for worker in [0, 1] {
            let before = routers[0].targets("a/b/c");
            routers[worker].subscribe(session(2), filter, options(1), None);
            let after = routers[0].targets("a/b/c");
            assert!(!Rc::ptr_eq(&before, &after), "{filter} by worker {worker}");
            routers[worker].unsubscribe(session(2), filter);
            assert_eq!(slots(&routers[0].targets("a/b/c")), [1]);
        }
    }
}

/// A worker keeps asking while another one subscribes: what it learns after the other's signal is up to date.
#[test]
fn a_subscription_is_visible_to_another_thread_when_subscribe_returns() {
    let interest = Arc::new(Interest::new(2));
    let (to_reader, signals) = std::sync::mpsc::channel::<bool>();
    let (to_writer, answers) = std::sync::mpsc::channel::<bool>();
    let for_reader = Arc::clone(&interest);
    let reader = std::thread::spawn(move || {
        let mut router = Router::new(0, for_reader);
        loop {
            // Asks all the time, so that it often does so during a change.
            router.targets("a/b");
            match signals.try_recv() {
                Ok(expected) => {
                    let seen = (router.targets("a/b").remote == 0b10) == expected;
                    if to_writer.send(seen).is_err() || !seen {
                        return;
                    }
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
            }
        }
    });
    let mut router = Router::new(1, interest);
    for n in 0..2000 {
        let filter = ["a/b", "a/+", "+/b", "#"][n % 4];
        router.subscribe(session(1), filter, options(0), None);
        to_reader.send(true).expect("the reader lives");
        assert_eq!(answers.recv(), Ok(true), "subscribed to {filter}");
        router.unsubscribe(session(1), filter);
        to_reader.send(false).expect("the reader lives");
        assert_eq!(answers.recv(), Ok(true), "unsubscribed from {filter}");
    }
    drop(to_reader);
    reader.join().expect("the reader does not panic");
}

#[test]
fn a_filter_with_many_subscribers_finds_each_of_them() {
    let mut router = router();
    for slot in 0..20_000 {
        assert!(!router.subscribe(session(slot), "all", options(0), None));
    }
    for slot in (0..20_000).step_by(2) {
        assert!(router.unsubscribe(session(slot), "all"));
    }
    assert_eq!(slots(&router.targets("all")), (1..20_000).step_by(2).collect::<Vec<_>>());
}
