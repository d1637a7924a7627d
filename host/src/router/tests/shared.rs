//! Shared Subscriptions.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::*;
use crate::limits::SharedStrategy;

fn standing() -> Standing {
    Standing { connected: true, waits: false, slow: false, full: false, load: 0 }
}

fn presence(standing: Standing) -> Arc<Presence> {
    let presence = Presence::new();
    presence.set(standing);
    presence
}

fn online() -> Arc<Presence> {
    presence(standing())
}

fn chooser(strategy: SharedStrategy) -> Chooser {
    Chooser::new(strategy, 0)
}

/// The members that are chosen one after the other, by worker and slot.
fn chosen_by(group: &Group, chooser: &mut Chooser, qos: QoS, count: usize) -> Vec<(usize, u32)> {
    (0..count)
        .map(|_| group.choose(chooser, qos).expect("somebody is left"))
        .map(|member| (member.worker, member.session.slot))
        .collect()
}

fn chosen(group: &Group, count: usize) -> Vec<(usize, u32)> {
    chosen_by(group, &mut chooser(SharedStrategy::RoundRobin), QoS::AtLeastOnce, count)
}

#[test]
fn each_group_gets_one_copy_and_takes_turns_across_workers() {
    let mut routers = routers(2);
    for (worker, slot) in [(0, 1), (1, 1), (1, 2)] {
        routers[worker].subscribe_shared(session(slot), "g", "a/#", options(1), None, online());
    }
    routers[0].subscribe_shared(session(1), "other", "a/#", options(1), None, online());
    routers[0].subscribe_shared(session(1), "g", "a/b", options(1), identifier(9), online());
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

/// A group of one worker, whose members have the slots 0, 1, …
fn group_of(members: &[Arc<Presence>]) -> (Router, Arc<Group>) {
    let mut router = router();
    for (slot, presence) in (0..).zip(members) {
        router.subscribe_shared(session(slot), "g", "a", options(1), None, Arc::clone(presence));
    }
    let group = Arc::clone(&router.targets("a").groups[0]);
    (router, group)
}

const STRATEGIES: [SharedStrategy; 4] =
    [SharedStrategy::RoundRobin, SharedStrategy::Random, SharedStrategy::Sticky, SharedStrategy::LeastInFlight];

/// Each row is a member that is worse than all before it.
#[test]
fn members_that_can_take_a_message_come_first_whatever_the_strategy() {
    let rows = [
        standing(),
        Standing { waits: true, load: 1, ..standing() },
        Standing { waits: true, slow: true, ..standing() },
        Standing { connected: false, ..standing() },
        Standing { full: true, waits: true, ..standing() },
        Standing { full: true, connected: false, ..standing() },
    ];
    for strategy in STRATEGIES {
        // The worst stands first and is nobody's choice while another is left.
        let members: Vec<_> = rows.iter().rev().map(|row| presence(*row)).collect();
        let (_router, group) = group_of(&members);
        let mut chooser = chooser(strategy);
        for best in (0..6).rev() {
            assert_eq!(chosen_by(&group, &mut chooser, QoS::AtLeastOnce, 20), [(0, best); 20], "{strategy:?}");
            members[best as usize].set_gone();
        }
        assert!(group.choose(&mut chooser, QoS::AtLeastOnce).is_none());
    }
}

/// QoS 0 waits for nobody's acknowledgement, but for a connection and a socket that keeps up.
#[test]
fn what_a_qos_0_message_needs() {
    let members = [
        presence(Standing { connected: false, ..standing() }),
        presence(Standing { slow: true, waits: true, ..standing() }),
        presence(Standing { waits: true, full: true, load: 9, ..standing() }),
    ];
    let (_router, group) = group_of(&members);
    let mut chooser = chooser(SharedStrategy::RoundRobin);
    assert_eq!(chosen_by(&group, &mut chooser, QoS::AtMostOnce, 9), [(0, 2); 9]);
    members[2].set_gone();
    assert_eq!(chosen_by(&group, &mut chooser, QoS::AtMostOnce, 9), [(0, 1); 9]);
}

/// A member with QoS 0 that is away would lose what one with QoS 1 keeps.
#[test]
fn message_goes_to_an_absent_member_that_keeps_it() {
    let mut router = router();
    let away = Standing { connected: false, ..standing() };
    for (slot, qos) in [(0, 0), (1, 1), (2, 0)] {
        router.subscribe_shared(session(slot), "g", "a", options(qos), None, presence(away));
    }
    let group = Arc::clone(&router.targets("a").groups[0]);
    assert_eq!(chosen(&group, 9), [(0, 1); 9]);
}

/// In a large group a search has a bound, but who is there is found soon, and not lost again.
#[test]
fn one_of_many_is_there() {
    for strategy in STRATEGIES {
        let members: Vec<_> = (0..5000).map(|_| presence(Standing { connected: false, ..standing() })).collect();
        members[4321].set(standing());
        let (_router, group) = group_of(&members);
        let mut chooser = chooser(strategy);
        let mut next = || chosen_by(&group, &mut chooser, QoS::AtLeastOnce, 1)[0].1;
        let tries = (1..100).find(|_| next() == 4321).expect("it is found");
        assert!(tries <= 5 || strategy == SharedStrategy::Random, "{strategy:?}: {tries}");
        for _ in 0..100 {
            assert_eq!(next(), 4321, "{strategy:?}");
        }
        // Members that have ended are no bound.
        members.iter().enumerate().filter(|(slot, _)| *slot != 17).for_each(|(_, member)| member.set_gone());
        assert_eq!(next(), 17);
    }
}

#[test]
fn turns_go_round_those_that_are_there() {
    let members: Vec<_> = (0..5).map(|_| online()).collect();
    let (_router, group) = group_of(&members);
    // Who stands behind members that are passed over does not get their turns.
    for absent in [1, 2] {
        members[absent].set(Standing { connected: false, ..standing() });
    }
    let turns: Vec<u32> = chosen(&group, 30).into_iter().map(|(_, slot)| slot).collect();
    for member in [0, 3, 4] {
        assert_eq!(turns.iter().filter(|slot| **slot == member).count(), 10, "{turns:?}");
    }
    // If nobody is there, those that have to queue it take turns as well.
    members.iter().for_each(|member| member.set(Standing { connected: false, ..standing() }));
    assert_eq!(chosen(&group, 30).into_iter().collect::<BTreeSet<_>>().len(), 5);
}

#[test]
fn chance_is_fair_and_differs_between_workers() {
    let members: Vec<_> = (0..4).map(|_| online()).collect();
    let (_router, group) = group_of(&members);
    let [first, second] = [0, 1].map(|worker| {
        let mut chooser = Chooser::new(SharedStrategy::Random, worker);
        chosen_by(&group, &mut chooser, QoS::AtMostOnce, 4000)
    });
    assert_ne!(first, second);
    for slot in 0..4 {
        let count = first.iter().filter(|chosen| chosen.1 == slot).count();
        assert!((800..1200).contains(&count), "{slot} was chosen {count} times of 4000");
    }
}

#[test]
fn sticky_group_stays_until_its_member_goes_offline_or_leaves() {
    let members: Vec<_> = (0..3).map(|_| online()).collect();
    let (mut router, group) = group_of(&members);
    let mut chooser = chooser(SharedStrategy::Sticky);
    let mut next = |group: &Group| chosen_by(group, &mut chooser, QoS::AtLeastOnce, 5);
    let first = next(&group);
    assert_eq!(first, [(0, 0); 5]);
    // It has to wait, but order is kept only if the others do not get what is newer.
    members[0].set(Standing { waits: true, load: 100, ..standing() });
    assert_eq!(next(&group), first);
    members[0].set(Standing { connected: false, ..standing() });
    let second = next(&group);
    assert_eq!(second, [(0, 1); 5]);
    members[0].set(standing());
    assert_eq!(next(&group), second, "who comes back does not take over");
    // Others join and leave.
    router.subscribe_shared(session(7), "g", "a", options(1), None, online());
    router.unsubscribe_shared(session(0), "g", "a");
    assert_eq!(next(&router.targets("a").groups[0]), second);
    router.unsubscribe_shared(session(1), "g", "a");
    let third = next(&router.targets("a").groups[0]);
    assert_ne!(third[0], (0, 1));
    assert_eq!(third, [third[0]; 5]);
}

#[test]
fn least_in_flight_counts_what_is_on_its_way() {
    let members: Vec<_> = [2, 1, 3].map(|load| presence(Standing { load, ..standing() })).into();
    let (_router, group) = group_of(&members);
    let mut chooser = chooser(SharedStrategy::LeastInFlight);
    assert!(chooser.counts_what_is_on_its_way());
    let mut next = || chosen_by(&group, &mut chooser, QoS::AtLeastOnce, 1)[0].1;
    assert_eq!(next(), 1);
    members[1].expect();
    members[1].expect();
    assert_eq!(next(), 0);
    members[1].arrived();
    members[1].arrived();
    assert_eq!(next(), 1);
    // Idle ones take turns.
    members.iter().for_each(|member| member.set(standing()));
    assert_eq!(BTreeSet::from([next(), next(), next()]).len(), 3);
}

#[test]
fn members_come_change_and_go() {
    let mut routers = routers(2);
    let state = online();
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
    routers[1].subscribe_shared(session(1), "g", "+", options(0), None, Arc::clone(&state));
    assert!(Rc::ptr_eq(&cached, &routers[0].targets("a")), "nothing changed");
    routers[1].subscribe_shared(session(1), "g", "+", options(2), None, Arc::clone(&state));
    assert_eq!(members(&mut routers[0]), [(0, low), (1, high)]);
    assert_eq!(routers[0].unsubscribe_shared(session(1), "h", "+"), None);
    assert_eq!(routers[0].unsubscribe_shared(session(2), "g", "+"), None);
    assert!(!routers[0].unsubscribe(session(1), "+"), "a shared subscription is not a plain one");
    let number = routers[0].targets("a").groups[0].number();
    assert_eq!(routers[0].unsubscribe_shared(session(1), "g", "+"), Some(Left { number, has_others: true }));
    assert_eq!(members(&mut routers[0]), [(1, high)]);
    assert_eq!(routers[1].unsubscribe_shared(session(1), "g", "+"), Some(Left { number, has_others: false }));
    assert!(routers[0].targets("a").is_empty());
    assert_eq!(routers[0].interest.nodes().0, 0);
    let again = routers[0].subscribe_shared(session(1), "g", "+", options(0), None, state);
    assert_ne!(again, number, "what was on its way to the old group is not for the new one");
}

#[test]
fn shared_filters_follow_the_dollar_rule_and_stand_beside_plain_ones() {
    let mut router = router();
    router.subscribe_shared(session(1), "g", "#", options(0), None, online());
    router.subscribe(session(1), "#", options(0), None);
    assert!(router.targets("$SYS/x").is_empty()); // [MQTT-4.7.2-1]
    let targets = router.targets("x");
    assert_eq!((targets.local.len(), targets.groups.len()), (1, 1));
}
