//! A handler that answers later, from a thread of its own. When, stands in what it is asked about:
//!
//! - a Client Identifier `<ms>:…`, a Topic Name or Topic Filter `later/<ms>/…`: after so many milliseconds, as asked;
//! - `refused/<ms>/…`: after so many milliseconds, with 0x87;
//! - a Client Identifier `never:…`, a topic `never/…`: not at all;
//! - `dropped/…`: its ticket is dropped;
//! - everything else: at once.
//!
//! When it hears of the end of a connection, it publishes to `left/<Client Identifier>`: how often it has heard of it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plugin_api::{
    Connect, ConnectVerdict, ConnectionInfo, Deferrable, DisconnectReason, Error, Handler, Host, Later, Message,
    Publish, PublishVerdict, ReasonCode, Subscribe, SubscribeVerdict, Ticket, handler,
};

/// See the top of the file.
pub struct Deferring {
    host: Host,
    queue: Arc<Queue>,
}

/// What is to be done, by its moment; the number keeps those of one moment apart.
#[derive(Default)]
struct Queue {
    due: Mutex<Due>,
    changed: Condvar,
}

type Answer = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Due {
    moments: BinaryHeap<Reverse<(Instant, u64)>>,
    answers: BTreeMap<u64, Answer>,
    next: u64,
    /// Answers that are never given: their tickets are kept.
    never: Vec<Answer>,
}

impl Queue {
    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, delay: Option<Duration>, answer: Answer) {
        let mut due = self.due();
        let Some(delay) = delay else { return due.never.push(answer) };
        let number = due.next;
        due.next += 1;
        due.moments.push(Reverse((Instant::now() + delay, number)));
        due.answers.insert(number, answer);
        self.changed.notify_one();
    }

    fn run(&self) {
        let mut due = self.due();
        loop {
            let wait = match due.moments.peek() {
                Some(Reverse((at, _))) => at.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(3600),
            };
            if wait.is_zero() {
                let answer = due.moments.pop().and_then(|Reverse((_, number))| due.answers.remove(&number));
                drop(due);
                answer.into_iter().for_each(|answer| answer());
                due = self.due();
            } else {
                due = self.changed.wait_timeout(due, wait).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// When and how something is answered.
enum When {
    Now,
    Later { delay: Option<Duration>, refuse: bool },
    Dropped,
}

impl When {
    fn of(text: &str, separator: char) -> Result<Self, Error> {
        let mut words = text.split(separator);
        let delay = |word: Option<&str>| word.unwrap_or_default().parse().map(Duration::from_millis);
        Ok(match words.next() {
            Some("later") => Self::Later { delay: Some(delay(words.next())?), refuse: false },
            Some("refused") => Self::Later { delay: Some(delay(words.next())?), refuse: true },
            Some("never") => Self::Later { delay: None, refuse: false },
            Some("dropped") => Self::Dropped,
            _ => Self::Now,
        })
    }
}

impl Deferring {
    /// Answers as it is asked to: `Ok` with what the callback returns.
    fn answer<A: Deferrable>(&self, when: When, yes: A, no: A, later: fn(Later<A>) -> A) -> Result<A, Error> {
        let (delay, refuse) = match when {
            When::Now => return Ok(yes),
            When::Later { delay, refuse } => (delay, refuse),
            When::Dropped => {
                let (ticket, proof) = self.host.ticket()?;
                std::thread::spawn(move || drop(ticket));
                return Ok(later(proof));
            }
        };
        let (ticket, proof): (Ticket<A>, Later<A>) = self.host.ticket()?;
        let answer = if refuse { no } else { yes };
        self.queue.put(
            delay,
            Box::new(move || {
                // Too late is no error here.
                let _ = ticket.answer(answer);
            }),
        );
        Ok(later(proof))
    }
}

#[handler]
impl Handler for Deferring {
    type Connection = (String, u32);

    fn init(host: Host, _config: &str) -> Result<Self, Error> {
        let queue = Arc::new(Queue::default());
        let runner = Arc::clone(&queue);
        std::thread::Builder::new().name("answers".into()).spawn(move || runner.run())?;
        Ok(Self { host, queue })
    }

    fn new_connection(&self, _: &ConnectionInfo<'_>) -> (String, u32) {
        (String::new(), 0)
    }

    fn handle_connect(&self, state: &mut (String, u32), connect: &Connect<'_>) -> Result<ConnectVerdict, Error> {
        connect.client_id().clone_into(&mut state.0);
        let when = match connect.client_id().split_once(':') {
            Some(("never", _)) => When::Later { delay: None, refuse: false },
            Some((ms, _)) => When::Later { delay: Some(Duration::from_millis(ms.parse()?)), refuse: false },
            None => When::Now,
        };
        let refused = ConnectVerdict::reject(ReasonCode::NOT_AUTHORIZED);
        self.answer(when, ConnectVerdict::accept(), refused, ConnectVerdict::Later)
    }

    fn handle_publish(&self, _: &mut (String, u32), publish: &Publish<'_>) -> Result<PublishVerdict, Error> {
        let refused = PublishVerdict::reject(ReasonCode::NOT_AUTHORIZED);
        self.answer(When::of(publish.topic(), '/')?, PublishVerdict::Forward, refused, PublishVerdict::Later)
    }

    fn handle_subscribe(&self, _: &mut (String, u32), subscribe: &Subscribe<'_>) -> Result<SubscribeVerdict, Error> {
        let mut filters = subscribe.subscriptions();
        let when = When::of(filters.next().map_or("", |subscription| subscription.filter()), '/')?;
        let refused = SubscribeVerdict::Codes(vec![ReasonCode::NOT_AUTHORIZED; 1 + filters.count()]);
        self.answer(when, SubscribeVerdict::Grant, refused, SubscribeVerdict::Later)
    }

    fn handle_disconnect(&self, state: &mut (String, u32), _: &DisconnectReason<'_>) {
        state.1 += 1;
        // The server may be stopping.
        let _ = self.host.publish(&Message::new(format!("left/{}", state.0), state.1.to_string()));
    }
}

plugin_api::export!(Deferring, "deferring");
