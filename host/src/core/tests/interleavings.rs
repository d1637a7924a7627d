//! What threads share, in every order in which they can touch it: `loom` runs each test once for each of them, with what
//! the memory orderings allow beyond that.
//!
//! `cargo test -p host --lib --features loom interleavings`

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;
use plugin_api::QoS;

use crate::clock::Millis;
use crate::codec::{RetainHandling, SubscribeOptions};
use crate::core::ListenerProfile;
use crate::core::admission::Admission;
use crate::core::mail::{Batch, Destination, Mail};
use crate::core::mailbox::Mailboxes;
use crate::durable::queue::{Queue, Wake};
use crate::durable::store::Store;
use crate::limits::{Limits, SharedStrategy};
use crate::message::{Message, MessageParts, Source};
use crate::router::{Chooser, Interest, Presence, Retained, Router, SessionKey, Standing};
use crate::sync::interleave;

fn parts<'a>(topic: &'a str, payload: &'a [u8]) -> MessageParts<'a> {
    let (qos, retain, expires_at) = (QoS::AtLeastOnce, true, Millis::NEVER);
    MessageParts { topic, payload, properties: &[], qos, retain, expires_at, source: Source::Client, as_it_came: None }
}

fn message(payload: &[u8]) -> Arc<Message> {
    Arc::new(parts("t", payload).to_message())
}

const OPTIONS: SubscribeOptions = SubscribeOptions {
    qos: QoS::AtLeastOnce,
    no_local: false,
    retain_as_published: false,
    retain_handling: RetainHandling::SendAtSubscribe,
};

fn session(slot: u32) -> SessionKey {
    SessionKey { slot, serial: slot }
}

/// A mailbox and its bell, which counts like the one of a worker.
fn mailbox() -> (Mailboxes, Arc<AtomicUsize>) {
    let bell = Arc::new(AtomicUsize::new(0));
    let ring = Arc::clone(&bell);
    let wake = move || {
        ring.fetch_add(1, Ordering::AcqRel);
    };
    (Mailboxes::new(vec![Box::new(wake)]), bell)
}

/// What lies in a mailbox whose bell has been rung.
fn take(mailboxes: &Mailboxes, bell: &AtomicUsize, into: &mut Vec<Vec<u8>>) -> usize {
    let mut batch = Batch::default();
    if bell.swap(0, Ordering::AcqRel) == 0 || !mailboxes.of(0).take(&mut batch) {
        return 0;
    }
    into.extend(batch.messages().map(|(_, parts)| parts.payload.to_vec()));
    batch.take_mails().len()
}

/// Who is woken only when the mailbox was empty finds everything, from each sender in its order.
#[test]
fn no_wake_up_is_lost() {
    interleave(3, || {
        let (mailboxes, bell) = mailbox();
        let sender = |name: &'static [u8]| {
            let mailboxes = mailboxes.clone();
            thread::spawn(move || {
                let mut batch = Batch::default();
                for number in [b'1', b'2'] {
                    batch.push(Destination::Matching, &parts("t", &[name, &[number]].concat()));
                    mailboxes.of(0).put(&mut batch);
                }
                assert!(mailboxes.post(0, Mail::Stop));
            })
        };
        let senders = [sender(b"a"), sender(b"b")];
        let (mut got, mut mails) = (Vec::new(), 0);
        mails += take(&mailboxes, &bell, &mut got);
        for sender in senders {
            sender.join().unwrap();
            mails += take(&mailboxes, &bell, &mut got);
        }
        assert_eq!((got.len(), mails), (4, 2), "something lies in a mailbox whose bell was not rung");
        for name in [b'a', b'b'] {
            let order: Vec<u8> = got.iter().filter(|payload| payload[0] == name).map(|payload| payload[1]).collect();
            assert_eq!(order, b"12");
        }
    });
}

/// Whatever is handed to a worker that ends is taken by it, given back, or dropped with what it leaves behind: who waits for
/// an answer gets one.
#[test]
fn nothing_is_left_with_a_worker_that_has_ended() {
    interleave(3, || {
        let (mailboxes, _bell) = mailbox();
        let held = message(b"x");
        let sender = || {
            let (mailboxes, held) = (mailboxes.clone(), Arc::clone(&held));
            thread::spawn(move || mailboxes.hand_in(0, Mail::Publish(held)).is_ok())
        };
        let senders = [sender(), sender()];
        let mut batch = Batch::default();
        mailboxes.of(0).take(&mut batch);
        let taken = batch.take_mails();
        mailboxes.of(0).close();
        let late = mailboxes.hand_in(0, Mail::Publish(Arc::clone(&held)));
        assert!(late.is_err_and(|refused| refused.closed), "a worker that has ended gets nothing");
        let accepted = senders.map(|sender| sender.join().unwrap());
        assert!(taken.len() <= accepted.into_iter().filter(|accepted| *accepted).count());
        drop(taken);
        assert_eq!(Arc::strong_count(&held), 1, "something lies where nobody looks any more");
    });
}

/// Once `subscribe` has returned, the next `targets` of another worker sees the subscription; once `unsubscribe` has, it
/// sees none, whatever it remembers.
#[test]
fn a_subscription_is_seen_by_all_workers() {
    interleave(3, || {
        let interest = Arc::new(Interest::new(2));
        let [made, gone] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let subscriber = {
            let (interest, made, gone) = (Arc::clone(&interest), Arc::clone(&made), Arc::clone(&gone));
            thread::spawn(move || {
                let mut router = Router::new(0, interest);
                router.subscribe(session(1), "t", OPTIONS, None);
                made.store(true, Ordering::Relaxed);
                router.unsubscribe(session(1), "t");
                gone.store(true, Ordering::Release);
            })
        };
        let mut router = Router::new(1, interest);
        for _ in 0..3 {
            let was_gone = gone.load(Ordering::Acquire);
            let seen = router.targets("t").remote;
            assert!(!was_gone || seen == 0, "a subscription that has gone");
        }
        subscriber.join().unwrap();
        assert!(made.load(Ordering::Relaxed));
        assert_eq!(router.targets("t").remote, 0);
    });
    interleave(3, || {
        let interest = Arc::new(Interest::new(2));
        let made = Arc::new(AtomicBool::new(false));
        let subscriber = {
            let (interest, made) = (Arc::clone(&interest), Arc::clone(&made));
            thread::spawn(move || {
                Router::new(0, interest).subscribe(session(1), "t", OPTIONS, None);
                made.store(true, Ordering::Release);
            })
        };
        let mut router = Router::new(1, interest);
        for _ in 0..2 {
            let was_made = made.load(Ordering::Acquire);
            let seen = router.targets("t").remote;
            assert!(!was_made || seen == 1, "a subscription whose SUBACK may have been sent");
        }
        subscriber.join().unwrap();
        assert_eq!(router.targets("t").remote, 1);
    });
}

/// A retained message that is published while somebody subscribes arrives, live or as a retained message; and never does an
/// older one follow a newer one.
#[test]
fn a_retained_message_is_not_missed() {
    interleave(3, || {
        let (interest, retained) = (Arc::new(Interest::new(2)), Arc::new(Retained::new(10, 1000)));
        let (mailboxes, bell) = mailbox();
        retained.set(message(b"old")).unwrap();
        let publisher = {
            let (interest, retained, mailboxes) = (Arc::clone(&interest), Arc::clone(&retained), mailboxes.clone());
            thread::spawn(move || {
                let mut router = Router::new(1, interest);
                // It remembers that nobody has subscribed.
                router.targets("t");
                // As `core::publish` does it.
                retained.set(message(b"new")).unwrap();
                if router.targets("t").remote != 0 {
                    let mut batch = Batch::default();
                    batch.push(Destination::Matching, &parts("t", b"new"));
                    mailboxes.of(0).put(&mut batch);
                }
            })
        };
        let mut router = Router::new(0, interest);
        router.subscribe(session(1), "t", OPTIONS, None);
        let found = retained.find("t", None);
        let mut got = Vec::new();
        take(&mailboxes, &bell, &mut got);
        // As a replay that goes on later does it.
        let is_new = !got.is_empty();
        let mut replayed = Vec::new();
        retained.get(&found.places, found.mark, Millis(0), &mut replayed);
        let replayed: Vec<_> = replayed.into_iter().flatten().collect();
        assert!(
            !is_new || replayed.iter().all(|message| message.payload() == b"new"),
            "an older one after a newer one"
        );
        let replayed_new = replayed.iter().any(|message| message.payload() == b"new");
        publisher.join().unwrap();
        take(&mailboxes, &bell, &mut got);
        assert!(replayed_new || !got.is_empty(), "neither live nor retained");
    });
}

/// While members come and go, each message has one, and not one that had left before.
#[test]
fn groups_choose_who_is_there() {
    for strategy in [SharedStrategy::RoundRobin, SharedStrategy::Sticky, SharedStrategy::LeastInFlight] {
        interleave(2, move || groups_choose(strategy));
    }
}

fn groups_choose(strategy: SharedStrategy) {
    let interest = Arc::new(Interest::new(2));
    let online = Standing { connected: true, waits: false, slow: false, full: false, load: 0 };
    let stays = Presence::new();
    stays.set(online);
    let mut router = Router::new(1, Arc::clone(&interest));
    router.subscribe_shared(session(1), "g", "t", OPTIONS, None, stays);
    let left = Arc::new(AtomicBool::new(false));
    let comes_and_goes = {
        let left = Arc::clone(&left);
        thread::spawn(move || {
            let mut router = Router::new(0, interest);
            let presence = Presence::new();
            presence.set(online);
            router.subscribe_shared(session(2), "g", "t", OPTIONS, None, Arc::clone(&presence));
            let mut chooser = Chooser::new(strategy, 0);
            let group = Arc::clone(&router.targets("t").groups[0]);
            assert!(group.choose(&mut chooser, QoS::AtLeastOnce).is_some());
            // As a session that ends does it.
            presence.set_gone();
            router.unsubscribe_shared(session(2), "g", "t");
            left.store(true, Ordering::Release);
        })
    };
    let mut chooser = Chooser::new(strategy, 1);
    for _ in 0..2 {
        let has_left = left.load(Ordering::Acquire);
        let targets = router.targets("t");
        let member = targets.groups[0].choose(&mut chooser, QoS::AtLeastOnce).expect("one of them stays");
        assert!(!has_left || member.session == session(1), "a member that had left");
    }
    comes_and_goes.join().unwrap();
    let targets = router.targets("t");
    assert_eq!((targets.groups.len(), targets.groups[0].members().len()), (1, 1));
}

/// However many come at one time, no more get in than may, and each place can be taken again.
#[test]
fn connections_are_never_too_many() {
    let peer = ([127, 0, 0, 1], 1).into();
    for per_address in [0, 1] {
        interleave(3, move || {
            let mut limits = Limits::default();
            (limits.connections_max, limits.connections_per_address_max) = (1, per_address);
            limits.connect_rate_max = 1;
            let (admission, listener) = (Arc::new(Admission::default()), Arc::new(ListenerProfile::new("l", limits)));
            let inside = Arc::new(AtomicBool::new(false));
            let client = || {
                let (admission, listener, inside) =
                    (Arc::clone(&admission), Arc::clone(&listener), Arc::clone(&inside));
                thread::spawn(move || {
                    if !admission.enter(peer, &listener, &listener.limits) {
                        return false;
                    }
                    assert!(!inside.swap(true, Ordering::Relaxed), "two, and one may come in");
                    let may_connect = admission.may_connect(&listener, &listener.limits, Millis(1000));
                    inside.store(false, Ordering::Relaxed);
                    admission.leave(peer, &listener);
                    may_connect
                })
            };
            let clients = [client(), client()];
            let connected = clients.map(|client| client.join().unwrap());
            assert_ne!(connected, [true, true], "two CONNECT in a second, and one may come");
            admission.assert_nothing_left();
            assert!(admission.enter(peer, &listener, &listener.limits), "nobody is there");
        });
    }
}

/// Who asks to be woken when something is safe either hears that it is, or is woken; and the store finds what was handed over.
#[test]
fn nobody_waits_for_what_is_safe() {
    interleave(3, || {
        let bells: Vec<_> = (0..3).map(|_| Arc::new(AtomicUsize::new(0))).collect();
        let wake = |at: usize| -> Wake {
            let bell = Arc::clone(&bells[at]);
            Box::new(move || _ = bell.fetch_add(1, Ordering::AcqRel))
        };
        let queue = Arc::new(Queue::new(0, wake(2), vec![wake(0), wake(1)]));
        let worker = |worker: usize| {
            let (queue, bell) = (Arc::clone(&queue), Arc::clone(&bells[worker]));
            thread::spawn(move || {
                let number = queue.hand_over(worker, &mut vec![1]);
                let is_safe = queue.wake_when_safe(worker, number);
                assert!(!is_safe || queue.safe_up_to() >= number);
                (number, is_safe, bell)
            })
        };
        let workers = [worker(0), worker(1)];
        let mut taken = Vec::new();
        // As the store's thread does it: it looks when it was woken.
        let look = |taken: &mut Vec<_>| {
            if bells[2].swap(0, Ordering::AcqRel) > 0 && queue.take(taken) {
                queue.declare_safe(taken.drain(..));
            }
        };
        look(&mut taken);
        let workers = workers.map(|worker| worker.join().unwrap());
        look(&mut taken);
        assert_eq!(queue.safe_up_to(), 2, "something waits, and the store was not woken");
        for (number, was_safe, bell) in workers {
            let rung = bell.load(Ordering::Acquire);
            assert_eq!(rung, usize::from(!was_safe), "number {number}");
        }
        assert_eq!(queue.unsafe_bytes(), 0);
    });
}
