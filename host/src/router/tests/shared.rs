//! Shared Subscriptions.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::*;

fn online(is_online: bool) -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(is_online))
}

fn chosen(group: &Group, count: usize) -> Vec<(usize, u32)> {
    (0..count)
        .map(|_| group.choose().expect("a group has members"))
        .map(|member| (member.worker, member.session.slot))
        .collect()
}

#[test]
fn each_group_gets_one_copy_and_takes_turns_across_workers() {
    let mut routers = routers(2);
    for (worker, slot) in [(0, 1), (1, 1), (1, 2)] {
        let replaced = routers[worker].subscribe_shared(session(slot), "g", "a/#", options(1), None, online(true));
        assert!(!replaced);
    }
    routers[0].subscribe_shared(session(1), "other", "a/#", options(1), None, online(true));
    routers[0].subscribe_shared(session(1), "g", "a/b", options(1), identifier(9), online(true));
    for router in &mut routers {
        let targets = router.targets("a/b");
        // No plain subscription: nothing is sent to another worker but by a group's choice.
        assert_eq!((targets.local.len(), targets.remote), (0, 0));
        let names: BTreeSet<_> = targets.groups.iter().map(|group| (group.share_name(), group.filter())).collect();
        assert_eq!(names, BTreeSet::from([("g", "a/#"), ("g", "a/b"), ("other", "a/#")]));
    }
    let group = |router: &mut Router| -> Arc<Group> {
        let targets = router.targets("a/x");
        Arc::clone(targets.groups.iter().find(|group| group.share_name() == "g").expect("it was joined"))
    };
    let mut turns = chosen(&group(&mut routers[0]), 3);
    turns.extend(chosen(&group(&mut routers[1]), 3));
    assert_eq!(turns[..3], turns[3..]);
    turns.sort_unstable();
    turns.dedup();
    assert_eq!(turns, [(0, 1), (1, 1), (1, 2)]);
}

#[test]
fn members_that_are_offline_are_chosen_only_if_all_are() {
    let mut router = router();
    let states: Vec<_> = (0..3).map(|_| online(true)).collect();
    for (slot, state) in (0..3).zip(&states) {
        router.subscribe_shared(session(slot), "g", "a", options(1), None, Arc::clone(state));
    }
    let group = Arc::clone(&router.targets("a").groups[0]);
    states[1].store(false, Ordering::Relaxed);
    assert!(chosen(&group, 30).iter().all(|&(_, slot)| slot != 1));
    states[0].store(false, Ordering::Relaxed);
    assert!(chosen(&group, 30).iter().all(|&(_, slot)| slot == 2));
    states[2].store(false, Ordering::Relaxed);
    assert_eq!(chosen(&group, 30).into_iter().collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn members_come_change_and_go() {
    let mut routers = routers(2);
    let state = online(true);
    let members = |router: &mut Router| -> Vec<(usize, QoS)> {
        let targets = router.targets("a");
        let mut members: Vec<_> = targets
            .groups
            .iter()
            .flat_map(|group| group.members())
            .map(|member| (member.worker, member.options.qos))
            .collect();
        members.sort_unstable();
        members
    };
    let (low, high) = (QoS::AtMostOnce, QoS::ExactlyOnce);
    routers[0].subscribe_shared(session(1), "g", "+", options(0), None, Arc::clone(&state));
    routers[1].subscribe_shared(session(1), "g", "+", options(0), None, Arc::clone(&state));
    assert_eq!(members(&mut routers[0]), [(0, low), (1, low)]);
    let cached = routers[0].targets("a");
    assert!(routers[1].subscribe_shared(session(1), "g", "+", options(0), None, Arc::clone(&state)));
    assert!(Rc::ptr_eq(&cached, &routers[0].targets("a")), "nothing changed");
    assert!(routers[1].subscribe_shared(session(1), "g", "+", options(2), None, Arc::clone(&state)));
    assert_eq!(members(&mut routers[0]), [(0, low), (1, high)]);
    assert!(!routers[0].unsubscribe_shared(session(1), "h", "+"));
    assert!(!routers[0].unsubscribe_shared(session(2), "g", "+"));
    assert!(!routers[0].unsubscribe(session(1), "+"), "a shared subscription is not a plain one");
    assert!(routers[0].unsubscribe_shared(session(1), "g", "+"));
    assert_eq!(members(&mut routers[0]), [(1, high)]);
    assert!(routers[1].unsubscribe_shared(session(1), "g", "+"));
    assert!(routers[0].targets("a").is_empty());
    assert_eq!(routers[0].interest.nodes().0, 0);
}

#[test]
fn shared_filters_follow_the_dollar_rule_and_stand_beside_plain_ones() {
    let mut router = router();
    router.subscribe_shared(session(1), "g", "#", options(0), None, online(true));
    router.subscribe(session(1), "#", options(0), None);
    assert!(router.targets("$SYS/x").is_empty()); // [MQTT-4.7.2-1]
    let targets = router.targets("x");
    assert_eq!((targets.local.len(), targets.groups.len()), (1, 1));
}
