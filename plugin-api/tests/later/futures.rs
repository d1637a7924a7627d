//! `async fn`.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use plugin_api::abi::{AnswerKey, Status, Verdict};
use plugin_api::{
    ConnectionInfo, DisconnectReason, Error, FirstPoll, Handler, Host, Info, InfoAction, Lent, Message, PublishVerdict,
    ReasonCode, Task, handler, owned,
};
use tokio::sync::Semaphore;

use crate::fake_host::{Answer, Plugin, State};

/// What a test and its handler share.
struct Control {
    /// A permit lets one future go on.
    gate: Semaphore,
    /// Futures, states and handlers that are there.
    futures: AtomicUsize,
    states: AtomicUsize,
    handlers: AtomicUsize,
    /// A poll that does not end before `release`.
    is_polling: AtomicBool,
    release: (Mutex<bool>, Condvar),
    /// A state that a future has put aside.
    kept: Mutex<Option<Lent<Counter>>>,
    /// Whether the handler's own runtime takes tasks, and those that it has.
    has_runtime: AtomicBool,
    tasks: Mutex<Vec<Task>>,
}

thread_local! {
    /// `init` runs on the thread of the test.
    static CONTROL: RefCell<Option<Arc<Control>>> = const { RefCell::new(None) };
}

/// Counts itself for as long as it is there.
struct Counted(Arc<Control>, fn(&Control) -> &AtomicUsize);

impl Counted {
    fn new(control: &Arc<Control>, of: fn(&Control) -> &AtomicUsize) -> Self {
        of(control).fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(control), of)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::SeqCst);
    }
}

/// How often the connection has published.
struct Counter {
    messages: u32,
    _counted: Counted,
}

/// Does what the topic says.
struct Patient {
    host: Host,
    control: Arc<Control>,
    _counted: Counted,
}

#[handler]
impl Handler for Patient {
    type Connection = Counter;

    fn init(host: Host, _: &str) -> Result<Self, Error> {
        let control = CONTROL.with_borrow(Clone::clone).ok_or("no test")?;
        Ok(Self { host, _counted: Counted::new(&control, |control| &control.handlers), control })
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) -> Counter {
        Counter { messages: 0, _counted: Counted::new(&self.control, |control| &control.states) }
    }

    async fn handle_publish(
        self: Arc<Self>,
        mut connection: Lent<Counter>,
        publish: owned::Publish,
    ) -> Result<PublishVerdict, Error> {
        let _counted = Counted::new(&self.control, |control| &control.futures);
        connection.messages += 1;
        match publish.topic() {
            "ready" => return Ok(PublishVerdict::Forward),
            "error" => return Err("at once".into()),
            "panic at once" => panic!("at once"),
            "later" => return Ok(PublishVerdict::Later(self.host.ticket()?.1)),
            "sleep" => tokio::time::sleep(Duration::from_millis(1)).await,
            "keep" => *self.control.kept.lock().unwrap() = Some(connection),
            "give back" => drop(connection),
            _ => {}
        }
        self.control.gate.acquire().await?.forget();
        match publish.topic() {
            "fail" => Err("later".into()),
            "panic" => panic!("later"),
            "refuse" => Ok(PublishVerdict::reject(ReasonCode::QUOTA_EXCEEDED)),
            "change" => Ok(PublishVerdict::ForwardChanged(Message::from(publish).topic("changed"))),
            "deaf" => {
                self.control.is_polling.store(true, Ordering::SeqCst);
                let (lock, changed) = &self.control.release;
                drop(changed.wait_while(lock.lock().unwrap(), |released| !*released).unwrap());
                pending().await
            }
            _ => Ok(PublishVerdict::Handled),
        }
    }

    /// Says how many messages there were.
    fn handle_info(&self, connection: &mut Counter, _: &Info<'_>) -> Result<Vec<InfoAction>, Error> {
        Ok(vec![InfoAction::Stop(connection.messages.to_string())])
    }

    fn handle_disconnect(&self, _: &mut Counter, _: &DisconnectReason<'_>) {}

    fn spawn(&self, task: Task) {
        if self.control.has_runtime.load(Ordering::SeqCst) {
            self.control.tasks.lock().unwrap().push(task);
        } else {
            task.spawn_on_own_runtime();
        }
    }

    fn first_poll(&self, poll: FirstPoll<'_>) {
        if self.control.has_runtime.load(Ordering::SeqCst) { poll.run() } else { poll.run_in_own_runtime() }
    }
}

fn start() -> (Plugin, State, Arc<Control>) {
    let control = Arc::new(Control {
        gate: Semaphore::new(0),
        futures: AtomicUsize::new(0),
        states: AtomicUsize::new(0),
        handlers: AtomicUsize::new(0),
        is_polling: AtomicBool::new(false),
        release: Default::default(),
        kept: Mutex::new(None),
        has_runtime: AtomicBool::new(false),
        tasks: Mutex::default(),
    });
    CONTROL.set(Some(Arc::clone(&control)));
    let plugin = Plugin::new::<Patient>("{}");
    let state = plugin.connection();
    (plugin, state, control)
}

/// As [`start`], with a runtime of the handler's own: a list of tasks that the test polls.
fn start_by_hand() -> (Plugin, State, Arc<Control>) {
    let started = start();
    started.2.has_runtime.store(true, Ordering::SeqCst);
    started
}

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How many messages the state has counted.
#[track_caller]
fn messages(plugin: &Plugin, state: &mut State) -> String {
    let answer = plugin.info(state, "how many");
    assert_eq!(answer.verdict, Verdict::OK, "{answer:?}");
    answer.text()
}

#[track_caller]
fn is_empty(answer: &Answer, verdict: Verdict) {
    assert_eq!((answer.verdict, &answer.pieces[..]), (verdict, &[][..]));
}

fn count(of: &AtomicUsize) -> usize {
    of.load(Ordering::SeqCst)
}

#[test]
fn what_is_ready_at_once_is_answered_at_once() {
    let (plugin, mut state, control) = start();
    is_empty(&plugin.publish(&mut state, "ready", b""), Verdict::OK);
    let error = plugin.publish(&mut state, "error", b"");
    assert_eq!((error.verdict, error.text().as_str()), (Verdict::ERROR, "at once"));
    assert_eq!((messages(&plugin, &mut state).as_str(), plugin.host.tickets()), ("2", 0));
    assert_eq!(count(&control.futures), 0);
    // It runs inside the call, so that it may take a ticket as well as a callback that is not `async`.
    is_empty(&plugin.publish(&mut state, "later", b""), Verdict::DEFERRED);
    assert_eq!(plugin.host.tickets(), 1);
    plugin.drop_connection(state);
}

#[test]
fn what_has_to_wait_answers_by_a_ticket_and_gives_the_state_back() {
    let (plugin, mut state, control) = start();
    for (ticket, topic, verdict) in [
        (1, "wait", Verdict::HANDLED),
        (2, "sleep", Verdict::HANDLED),
        (3, "refuse", Verdict::REJECT),
        (4, "fail", Verdict::ERROR),
        (5, "give back", Verdict::HANDLED),
    ] {
        is_empty(&plugin.publish(&mut state, topic, b""), Verdict::DEFERRED);
        if topic != "give back" {
            is_empty(&plugin.info(&mut state, "while it is away"), Verdict::AWAY);
            is_empty(&plugin.disconnect(&mut state), Verdict::AWAY);
            is_empty(&plugin.publish(&mut state, "ready", b""), Verdict::AWAY);
        }
        assert_eq!(plugin.host.answered(ticket), None, "before the gate opens");
        control.gate.add_permits(1);
        assert_eq!(plugin.host.wait_answer(ticket).verdict, verdict, "{topic}");
        assert_eq!(messages(&plugin, &mut state), ticket.to_string(), "{topic}");
    }
    plugin.drop_connection(state);
}

#[test]
fn a_request_becomes_the_message_that_is_forwarded() {
    let (plugin, mut state, control) = start();
    is_empty(&plugin.publish(&mut state, "change", b"payload"), Verdict::DEFERRED);
    control.gate.add_permits(1);
    let answer = plugin.host.wait_answer(1);
    assert_eq!(answer.verdict, Verdict::CHANGED);
    let piece = |key| answer.pieces.iter().find(|piece| piece.0 == key).map(|piece| &piece.2[..]);
    assert_eq!(piece(AnswerKey::TOPIC), Some(&b"changed"[..]));
    assert_eq!(piece(AnswerKey::PAYLOAD), Some(&b"payload"[..]));
    // Without the Topic Alias, which belongs to the connection.
    assert_eq!(piece(AnswerKey::PROPERTIES), Some(&b"\x26\x00\x01a\x00\x01b"[..]));
    plugin.drop_connection(state);
}

#[test]
fn a_panic_poisons_the_state_and_refuses() {
    let (plugin, mut state, control) = start();
    let answer = plugin.publish(&mut state, "panic at once", b"");
    assert_eq!((answer.verdict, answer.text().as_str()), (Verdict::PANICKED, "at once"));
    is_empty(&plugin.info(&mut state, "after"), Verdict::POISONED);
    is_empty(&plugin.publish(&mut state, "ready", b""), Verdict::POISONED);
    plugin.drop_connection(state);

    let mut state = plugin.connection();
    is_empty(&plugin.publish(&mut state, "panic", b""), Verdict::DEFERRED);
    control.gate.add_permits(1);
    let answer = plugin.host.wait_answer(1);
    assert_eq!((answer.verdict, answer.text().as_str()), (Verdict::PANICKED, "later"));
    is_empty(&plugin.info(&mut state, "after"), Verdict::POISONED);
    plugin.drop_connection(state);
    eventually("everything is dropped", || count(&control.futures) == 0 && count(&control.states) == 0);
}

#[test]
fn cancelling_drops_the_future_and_gives_the_state_back() {
    let (plugin, mut state, control) = start();
    is_empty(&plugin.publish(&mut state, "wait", b""), Verdict::DEFERRED);
    // One that it does not know: it has been answered, or was not a future's.
    is_empty(&plugin.cancelled(99), Verdict::OK);
    assert_eq!(count(&control.futures), 1);
    is_empty(&plugin.cancelled(1), Verdict::OK);
    // At once, or, if the runtime is polling it, when that ends.
    eventually("the state comes back", || plugin.info(&mut state, "how many").verdict == Verdict::OK);
    assert_eq!((count(&control.futures), messages(&plugin, &mut state).as_str()), (0, "1"));
    control.gate.add_permits(1);
    is_empty(&plugin.publish(&mut state, "wait", b""), Verdict::HANDLED);
    assert_eq!(plugin.host.answered(1), None, "nobody waits");
    plugin.drop_connection(state);
}

#[test]
fn a_future_that_is_being_polled_is_dropped_when_that_ends() {
    let (plugin, mut state, control) = start();
    is_empty(&plugin.publish(&mut state, "deaf", b""), Verdict::DEFERRED);
    control.gate.add_permits(1);
    eventually("it is being polled", || control.is_polling.load(Ordering::SeqCst));
    is_empty(&plugin.cancelled(1), Verdict::OK);
    is_empty(&plugin.disconnect(&mut state), Verdict::AWAY);
    plugin.drop_connection(state);
    assert_eq!((count(&control.futures), count(&control.states)), (1, 1));
    *control.release.0.lock().unwrap() = true;
    control.release.1.notify_all();
    eventually("it is dropped", || count(&control.futures) == 0 && count(&control.states) == 0);
    assert_eq!(plugin.host.answered(1), None, "nobody waits");
}

#[test]
fn a_connection_and_an_instance_can_go_while_futures_run() {
    let (plugin, mut state, control) = start();
    is_empty(&plugin.publish(&mut state, "wait", b""), Verdict::DEFERRED);
    is_empty(&plugin.drop_connection(state), Verdict::OK);
    assert_eq!(count(&control.states), 1, "the future has it");
    control.gate.add_permits(1);
    assert_eq!(plugin.host.wait_answer(1).verdict, Verdict::HANDLED);
    eventually("the state is dropped", || count(&control.states) == 0);

    let mut waits = plugin.connection();
    is_empty(&plugin.publish(&mut waits, "wait", b""), Verdict::DEFERRED);
    plugin.drop_connection(waits);
    let mut is_deaf = plugin.connection();
    is_empty(&plugin.publish(&mut is_deaf, "deaf", b""), Verdict::DEFERRED);
    // Both get on; the one that waits ends.
    control.gate.add_permits(2);
    eventually("it is being polled", || control.is_polling.load(Ordering::SeqCst));
    plugin.drop_connection(is_deaf);
    drop(plugin);
    assert_eq!(count(&control.handlers), 1, "the future has it");
    *control.release.0.lock().unwrap() = true;
    control.release.1.notify_all();
    eventually("everything is dropped", || {
        count(&control.futures) == 0 && count(&control.states) == 0 && count(&control.handlers) == 0
    });
}

#[test]
fn a_state_that_a_future_keeps_stays_away() {
    let (plugin, mut state, control) = start();
    is_empty(&plugin.publish(&mut state, "keep", b""), Verdict::DEFERRED);
    control.gate.add_permits(1);
    assert_eq!(plugin.host.wait_answer(1).verdict, Verdict::HANDLED);
    is_empty(&plugin.publish(&mut state, "ready", b""), Verdict::AWAY);
    let kept = control.kept.lock().unwrap().take().expect("kept");
    assert_eq!(kept.messages, 1);
    drop(kept);
    assert_eq!(messages(&plugin, &mut state), "1");
    plugin.drop_connection(state);
}

#[test]
fn without_a_ticket_the_future_is_dropped() {
    let (plugin, mut state, control) = start();
    plugin.host.refuse_tickets(Status::FULL);
    let answer = plugin.publish(&mut state, "wait", b"");
    assert_eq!(answer.verdict, Verdict::ERROR);
    assert!(answer.text().contains("cannot wait"), "{answer:?}");
    assert_eq!((count(&control.futures), messages(&plugin, &mut state).as_str()), (0, "1"));
    plugin.drop_connection(state);
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn the_runtime_is_the_handlers_own_if_it_says_so() {
    let (plugin, mut state, control) = start_by_hand();
    is_empty(&plugin.publish(&mut state, "wait", b""), Verdict::DEFERRED);
    let mut task = control.tasks.lock().unwrap().pop().expect("spawned");
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let poll = |task: &mut Task| {
        let task = std::pin::Pin::new(task);
        std::future::Future::poll(task, &mut Context::from_waker(&waker))
    };
    assert!(poll(&mut task).is_pending());
    control.gate.add_permits(1);
    assert_eq!(count(&woken.0), 1);
    assert_eq!(poll(&mut task), Poll::Ready(()));
    assert_eq!(plugin.host.answered(1).expect("answered").verdict, Verdict::HANDLED);
    // Polling once more is a mistake of the runtime's, and harmless.
    assert_eq!(poll(&mut task), Poll::Ready(()));

    // One that is cancelled is woken, so that the runtime gets rid of it.
    is_empty(&plugin.publish(&mut state, "wait", b""), Verdict::DEFERRED);
    let mut task = control.tasks.lock().unwrap().pop().expect("spawned");
    assert!(poll(&mut task).is_pending());
    is_empty(&plugin.cancelled(2), Verdict::OK);
    assert_eq!(count(&woken.0), 2);
    assert_eq!(poll(&mut task), Poll::Ready(()));
    assert_eq!(plugin.host.answered(2), None, "nobody waits");
    plugin.drop_connection(state);
}

#[test]
fn a_task_that_the_runtime_drops_refuses_at_once() {
    let (plugin, mut state, control) = start_by_hand();
    is_empty(&plugin.publish(&mut state, "wait", b""), Verdict::DEFERRED);
    control.tasks.lock().unwrap().clear();
    let answer = plugin.host.answered(1).expect("at once");
    assert_eq!(answer.verdict, Verdict::ERROR);
    assert!(answer.text().contains("without an answer"), "{answer:?}");
    assert_eq!((count(&control.futures), messages(&plugin, &mut state).as_str()), (0, "1"));
    plugin.drop_connection(state);
}

/// Answers and cancellations race; every ticket has one end, and every state comes back.
#[test]
fn every_future_ends_once_whoever_is_faster() {
    let (plugin, state, control) = start();
    plugin.drop_connection(state);
    let mut answered = 0;
    // Miri takes seconds for what takes milliseconds, and finds what there is to find with few.
    let rounds = if cfg!(miri) { 4 } else { 300 };
    for round in 0..rounds {
        let mut states: Vec<State> = (0..8).map(|_| plugin.connection()).collect();
        let first = plugin.host.tickets() + 1;
        for state in &mut states {
            is_empty(&plugin.publish(state, "wait", b""), Verdict::DEFERRED);
        }
        control.gate.add_permits(if round % 2 == 0 { states.len() } else { 4 });
        for (ticket, state) in (first..).zip(&mut states) {
            plugin.cancelled(ticket);
            // Either it comes back at once, or it is being polled, which does not last.
            eventually("the state comes back", || plugin.info(state, "how many").verdict == Verdict::OK);
        }
        for state in states {
            plugin.drop_connection(state);
        }
        eventually("all have ended", || count(&control.futures) == 0 && count(&control.states) == 0);
        answered += (first..=plugin.host.tickets()).filter(|ticket| plugin.host.answered(*ticket).is_some()).count();
        // Permits that nobody has taken.
        while control.gate.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_ok() {}
    }
    println!("{answered} of {} were answered before they were cancelled", rounds * 8);
}

/// The state may be used across an `await`, if it is `Sync`.
#[test]
fn a_future_with_the_state_can_go_to_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    async fn hold(mut lent: Lent<u32>) {
        *lent += 1;
        poll_fn(|_| Poll::Ready(())).await;
        *lent += 1;
    }
    #[allow(dead_code, reason = "that it compiles is the test")]
    fn check(lent: Lent<u32>) {
        is_send(&hold(lent));
    }
}
