//! What threads of plugins and workers share, in every order in which they can touch it; see the file of the same name of
//! the core.

use std::sync::Arc;

use loom::thread;
use plugin_api::abi::Verdict;

use super::super::tickets::{Answered, Completed, Tickets};
use crate::sync::interleave;
use plugin_api::reading::Answer;

/// An answer that can be told from another one.
fn answered(verdict: Verdict) -> Box<Answered> {
    Box::new(Answered { verdict, answer: Answer::default() })
}

fn completes(tickets: &Arc<Tickets>, ticket: u64, verdict: Verdict) -> thread::JoinHandle<Completed> {
    let tickets = Arc::clone(tickets);
    thread::spawn(move || tickets.complete(ticket, answered(verdict)))
}

/// Two threads answer while the worker begins to wait: one answer comes, once, and one of the threads hears that it was it.
#[test]
fn one_answer_comes() {
    interleave(3, || {
        let tickets = Arc::new(Tickets::new(1));
        let ticket = tickets.take().expect("there is room");
        let authors = [Verdict::OK, Verdict::HANDLED].map(|verdict| completes(&tickets, ticket, verdict));
        let kept = tickets.wait(ticket, 3, 7);
        let mut came: Vec<Verdict> = kept.iter().map(|kept| kept.verdict).collect();
        let mut taken = Vec::new();
        for (author, verdict) in authors.into_iter().zip([Verdict::OK, Verdict::HANDLED]) {
            match author.join().unwrap() {
                Completed::Post { worker: 3, connection: 7, answered } => {
                    assert_eq!(answered.verdict, verdict);
                    came.push(verdict);
                    taken.push(verdict);
                }
                Completed::Kept => taken.push(verdict),
                Completed::Twice | Completed::Gone => {}
                Completed::Post { .. } | Completed::Unknown => panic!("to the wrong place, or to none"),
            }
        }
        assert_eq!((came.len(), &came), (1, &taken), "what came, and who was told that it was taken");
        assert_eq!(tickets.open(), 0);
    });
}

/// An answer meets the deadline: it comes, or the question has lapsed; never both, and never neither.
#[test]
fn an_answer_comes_or_is_too_late() {
    interleave(3, || {
        let tickets = Arc::new(Tickets::new(1));
        let ticket = tickets.take().expect("there is room");
        let author = completes(&tickets, ticket, Verdict::OK);
        let kept = tickets.wait(ticket, 0, 7).is_some();
        let lapsed = !kept && tickets.cancel(ticket);
        let posted = match author.join().unwrap() {
            Completed::Post { .. } => true,
            Completed::Kept => false,
            Completed::Gone => {
                assert!(lapsed, "nobody has given it up");
                false
            }
            Completed::Twice | Completed::Unknown => panic!("it was the only one"),
        };
        assert_eq!([kept, lapsed, posted].into_iter().filter(|one| *one).count(), 1, "{kept} {lapsed} {posted}");
        assert_eq!(tickets.open(), 0);
    });
}

/// However many threads take tickets, no more are open than may be; and each place can be taken again.
#[test]
fn tickets_are_never_too_many() {
    interleave(3, || {
        let tickets = Arc::new(Tickets::new(1));
        let held = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let takers = [(); 2].map(|()| {
            let (tickets, held) = (Arc::clone(&tickets), Arc::clone(&held));
            thread::spawn(move || {
                let Some(ticket) = tickets.take() else { return };
                assert!(!held.swap(true, loom::sync::atomic::Ordering::Relaxed), "two, and one may be open");
                held.store(false, loom::sync::atomic::Ordering::Relaxed);
                assert!(tickets.cancel(ticket));
            })
        });
        takers.into_iter().for_each(|taker| taker.join().unwrap());
        assert!(tickets.take().is_some(), "none is open");
    });
}
