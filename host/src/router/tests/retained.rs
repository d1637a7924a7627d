//! Retained messages.

use std::collections::BTreeMap;

use super::*;
use crate::clock::Millis;
use crate::message::{Message, MessageParts, Source};

fn message(topic: &str, payload: &str, expires_at: Millis) -> Arc<Message> {
    let parts = MessageParts {
        topic,
        payload: payload.as_bytes(),
        properties: &[],
        qos: QoS::AtMostOnce,
        retain: true,
        expires_at,
        source: Source::Client,
        as_it_came: None,
    };
    Arc::new(parts.to_message())
}

fn lasting(topic: &str, payload: &str) -> Arc<Message> {
    message(topic, payload, Millis::NEVER)
}

fn topics(retained: &Retained, filter: &str, now: u64) -> Vec<String> {
    let mut topics: Vec<String> =
        retained.matching(filter, Millis(now)).iter().map(|message| message.topic().to_owned()).collect();
    topics.sort();
    topics
}

#[test]
fn a_retained_message_is_replaced_and_cleared() {
    let retained = Retained::new(10, 1000);
    let (first, second) = (lasting("a/b", "1"), lasting("a/b", "22"));
    assert_eq!(retained.set(Arc::clone(&first)), Ok(()));
    assert_eq!(retained.set(Arc::clone(&second)), Ok(())); // [MQTT-3.3.1-5]
    assert_eq!((retained.len(), retained.bytes()), (1, 5));
    assert!(Arc::ptr_eq(&retained.matching("a/b", Millis(0))[0], &second));
    assert!(!retained.clear("a") && !retained.clear("a/b/c"));
    assert!(retained.clear("a/b")); // [MQTT-3.3.1-6]
    assert!(!retained.clear("a/b"));
    assert!(retained.is_empty() && retained.bytes() == 0);
    // [MQTT-3.3.1-7] an empty payload is not stored.
    assert_eq!(retained.set(lasting("a/b", "x")), Ok(()));
    assert_eq!(retained.set(lasting("a/b", "")), Ok(()));
    assert!(retained.is_empty());
}

#[test]
fn bounds_refuse_a_message_and_keep_the_old_one() {
    let retained = Retained::new(2, 20);
    let old = lasting("a", "123456789");
    assert_eq!(retained.set(Arc::clone(&old)), Ok(()));
    assert_eq!(retained.set(lasting("b", "1234567890")), Err(Full::Bytes { got: 11, max: 20 }));
    assert_eq!(retained.set(lasting("b", "123456789")), Ok(()));
    assert_eq!(retained.set(lasting("c", "1")), Err(Full::Messages { max: 2 }));
    assert_eq!(retained.set(lasting("a", "1234567890")), Err(Full::Bytes { got: 11, max: 20 }));
    assert_eq!(retained.set(lasting("a", "9")), Ok(()), "a replacement needs no room for another message");
    assert_eq!((retained.len(), retained.bytes()), (2, 12));
    assert_eq!(
        Full::Messages { max: 2 }.to_string(),
        "2 messages are retained, and no more may be: clear some, or raise retained_messages_max"
    );
}

/// Whatever happens to the topics meanwhile, and to their places.
#[test]
fn what_was_found_is_there_until_it_is_replaced_cleared_or_expired() {
    let payloads = |retained: &Retained, found: &Found, now| {
        let mut messages = Vec::new();
        retained.get(&found.places, found.mark, Millis(now), &mut messages);
        assert_eq!(messages.len(), found.places.len());
        let mut payloads: Vec<String> =
            messages.iter().flatten().map(|message| String::from_utf8_lossy(message.payload()).into_owned()).collect();
        payloads.sort();
        payloads
    };
    let retained = Retained::new(10, 1000);
    for (topic, at) in [("t/a", u64::MAX), ("t/b", u64::MAX), ("t/c", u64::MAX), ("t/d/e", 10)] {
        retained.set(message(topic, topic, Millis(at))).unwrap();
    }
    let mark = retained.mark();
    let found = retained.find("t/#", None);
    assert_eq!((found.mark, found.places.len()), (mark, 4));
    assert_eq!(payloads(&retained, &found, 9), ["t/a", "t/b", "t/c", "t/d/e"]);
    assert_eq!(payloads(&retained, &found, 10), ["t/a", "t/b", "t/c"]); // [MQTT-3.3.2-5]
    retained.set(lasting("t/a", "later")).unwrap();
    assert_eq!(payloads(&retained, &found, 9), ["t/b", "t/c", "t/d/e"]);
    // Its place is free, and another topic gets it.
    retained.clear("t/b");
    retained.set(lasting("t/f", "later")).unwrap();
    assert_eq!(payloads(&retained, &found, 9), ["t/c", "t/d/e"]);
    assert_eq!(retained.find("t/+", Some(mark)).places.len(), 1, "what is stored later is not found");
    // There is nothing at all any more, nor any place.
    let retained = Retained::new(usize::MAX, usize::MAX);
    let topics: Vec<String> = (0..3000).map(|number| format!("t/{number}")).collect();
    topics.iter().for_each(|topic| retained.set(lasting(topic, "x")).unwrap());
    let found = retained.find("#", None);
    assert_eq!(payloads(&retained, &found, 9).len(), 3000);
    topics.iter().for_each(|topic| assert!(retained.clear(topic)));
    assert!(payloads(&retained, &found, 9).is_empty());
}

#[test]
fn expired_messages_are_left_out_and_removed() {
    let retained = Retained::new(10, 1000);
    for (topic, at) in [("a", 10), ("b", 20), ("c", u64::MAX)] {
        assert_eq!(retained.set(message(topic, "x", Millis(at))), Ok(()));
    }
    assert_eq!(topics(&retained, "#", 9), ["a", "b", "c"]);
    assert_eq!(retained.next_expiry(), Some(Millis(10)));
    assert_eq!(topics(&retained, "#", 10), ["b", "c"]); // [MQTT-3.3.2-5]
    let removed = retained.remove_expired(Millis(10));
    assert_eq!((removed.len(), removed[0].topic(), retained.len()), (1, "a", 2));
    // A replacement has an expiry of its own.
    assert_eq!(retained.set(lasting("b", "y")), Ok(()));
    assert_eq!((retained.next_expiry(), retained.remove_expired(Millis(1 << 40)).len()), (None, 0));
    assert_eq!(retained.set(message("c", "y", Millis(30))), Ok(()));
    assert_eq!(retained.remove_expired(Millis(29)).len(), 0);
    assert_eq!(retained.remove_expired(Millis(30)).len(), 1);
    assert_eq!(topics(&retained, "#", 30), ["b"]);
}

#[test]
fn messages_that_expire_together_are_removed_some_at_a_time() {
    let retained = Retained::new(usize::MAX, usize::MAX);
    for number in 0..EXPIRED_AT_ONCE + 10 {
        retained.set(message(&format!("t/{number}"), "x", Millis(7))).unwrap();
    }
    assert_eq!(retained.remove_expired(Millis(7)).len(), EXPIRED_AT_ONCE);
    assert_eq!((retained.len(), retained.next_expiry()), (10, Some(Millis(7))));
    assert_eq!((retained.remove_expired(Millis(7)).len(), retained.next_expiry()), (10, None));
}

#[test]
fn retained_equals_a_naive_matcher_under_churn() {
    for seed in 1..=4 {
        let mut random = Random::new(seed);
        let retained = Retained::new(usize::MAX, usize::MAX);
        let mut model: BTreeMap<String, u64> = BTreeMap::new();
        for now in 0..3000 {
            model.retain(|_, at| *at > now);
            let topic = random.topic();
            if random.below(3) == 0 {
                // The store may still have one that has expired meanwhile.
                assert!(retained.clear(&topic) || !model.contains_key(&topic));
                model.remove(&topic);
            } else {
                let at = [u64::MAX, now + 1 + u64::from(random.below(50))][random.below(2) as usize];
                assert_eq!(retained.set(message(&topic, "x", Millis(at))), Ok(()));
                model.insert(topic, at);
            }
            let filter = random.filter();
            let expected: Vec<&String> = model.keys().filter(|topic| filter_matches(&filter, topic)).collect();
            assert_eq!(topics(&retained, &filter, now).iter().collect::<Vec<_>>(), expected, "{filter}");
        }
        for topic in model.keys() {
            assert!(retained.clear(topic));
        }
        while !retained.remove_expired(Millis(1 << 40)).is_empty() {}
        assert!(retained.is_empty() && retained.bytes() == 0 && retained.next_expiry().is_none());
    }
}

/// Deep topics take memory for each of their levels, and count for it.
#[test]
fn levels_count() {
    let retained = Retained::new(1000, 100_000);
    let deep = |number: usize| lasting(&format!("{number}{}", "/a".repeat(199)), "x");
    let kept = (0..1000).take_while(|number| retained.set(deep(*number)).is_ok()).count();
    assert!((1..=100_000 / (200 * 64)).contains(&kept), "{kept} messages");
    assert!(retained.set(deep(0)).is_ok(), "what takes the place of another one finds its room");
    for number in 0..kept {
        retained.clear(deep(number).topic());
    }
    assert_eq!((retained.len(), retained.bytes()), (0, 0));
}
