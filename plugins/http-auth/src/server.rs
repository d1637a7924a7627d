//! The server that is asked: on threads of their own, so that nobody waits for it but who is asked about.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SendError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use plugin_api::{Error, Host};

use crate::cache::{Cache, Key, Keys};
use crate::config::{Rule, Settings};
use crate::question::{Answer, Question};

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Too many questions wait already, or this one has waited for too long.
    Busy,
    /// The server does not answer, or not as it should.
    Unavailable,
}

/// What a client waits for: its questions, in order, and what to do with their answers.
struct Job {
    questions: Vec<(Key, Question)>,
    /// What they count for among those that wait.
    counted: usize,
    since: Instant,
    take: Box<dyn FnOnce(Result<Vec<Answer>, Failure>) + Send>,
}

/// The server of one configuration. What waits when it is dropped is still asked.
pub(crate) struct Server {
    pub(crate) publish: Rule,
    pub(crate) subscribe: Rule,
    asker: Arc<Asker>,
    jobs: Sender<Job>,
}

/// What the threads share.
pub(crate) struct Asker {
    host: Host,
    settings: Settings,
    cache: Mutex<Cache>,
    /// Questions of jobs that wait for a thread.
    waiting: AtomicUsize,
    /// Whether the last answer was none: said once, and not for each of thousands of clients.
    is_failing: AtomicBool,
}

impl Server {
    pub(crate) fn start(host: &Host, settings: Settings) -> Result<Arc<Self>, Error> {
        let cache = Cache::new(settings.cache_for, settings.cache_max).ok_or("the system has no random numbers")?;
        let (jobs, waiting) = channel();
        let (publish, subscribe, threads) = (settings.publish, settings.subscribe, settings.threads);
        let is_failing = AtomicBool::new(false);
        let asker = Arc::new(Asker {
            host: host.clone(),
            settings,
            cache: Mutex::new(cache),
            waiting: AtomicUsize::new(0),
            is_failing,
        });
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads {
            let (asker, waiting) = (Arc::clone(&asker), Arc::clone(&waiting));
            std::thread::Builder::new().name("ask-http".into()).spawn(move || work(&asker, &waiting))?;
        }
        Ok(Arc::new(Self { publish, subscribe, asker, jobs }))
    }

    /// What questions that begin with `part` are known by.
    pub(crate) fn keys(&self, part: &[u8]) -> Keys {
        self.asker.cache().keys(part)
    }

    /// The answer, if it is known.
    pub(crate) fn known(&self, key: &Key) -> Option<Answer> {
        self.asker.cache().get(key, Instant::now()).cloned()
    }

    /// Has questions asked, in order. With the first one that there is no answer to, the others have none either.
    ///
    /// However many they are, they count for a tenth of `queue_max` at most: one client's packet leaves room for those of others.
    pub(crate) fn ask(
        &self,
        questions: Vec<(Key, Question)>,
        take: impl FnOnce(Result<Vec<Answer>, Failure>) + Send + 'static,
    ) {
        let (waiting, queue_max) = (&self.asker.waiting, self.asker.settings.queue_max);
        let counted = questions.len().min((queue_max / 10).max(1));
        if waiting.fetch_add(counted, Ordering::Relaxed) + counted > queue_max {
            waiting.fetch_sub(counted, Ordering::Relaxed);
            return take(Err(Failure::Busy));
        }
        let job = Job { questions, counted, since: Instant::now(), take: Box::new(take) };
        // The threads end when there is nobody any more who sends.
        if let Err(SendError(job)) = self.jobs.send(job) {
            (job.take)(Err(Failure::Busy));
        }
    }
}

fn work(asker: &Asker, waiting: &Mutex<Receiver<Job>>) {
    loop {
        // One thread waits for a job, and the others for the lock.
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { questions, counted, since, take }) = job else { return };
        asker.waiting.fetch_sub(counted, Ordering::Relaxed);
        take(asker.ask(&questions, since));
    }
}

impl Asker {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `since`: who waits has waited since then. The host does so for a time only, and what it does not wait for is not asked.
    fn ask(&self, questions: &[(Key, Question)], since: Instant) -> Result<Vec<Answer>, Failure> {
        let mut answers = Vec::with_capacity(questions.len());
        for (key, question) in questions {
            // While it waited, the same may have been asked for another client, or by another thread.
            let known = self.cache().get(key, Instant::now()).cloned();
            if known.is_none() && since.elapsed() > self.settings.endpoint.timeout() {
                return Err(Failure::Busy);
            }
            answers.push(match known {
                Some(answer) => answer,
                None => self.ask_now(*key, question)?,
            });
        }
        Ok(answers)
    }

    fn ask_now(&self, key: Key, question: &Question) -> Result<Answer, Failure> {
        let answer = self.settings.endpoint.post(&question.json());
        match answer.and_then(|answer| Answer::read(answer.status, &answer.body)) {
            Ok(answer) => {
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    self.host.info("the server answers again");
                }
                self.cache().put(key, answer.clone(), Instant::now());
                Ok(answer)
            }
            Err(problem) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    self.host
                        .error(format_args!("the server does not answer, so what it is asked is refused: {problem}"));
                }
                Err(Failure::Unavailable)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::time::Duration;

    use plugin_api::testing::TestHost;
    use plugin_api::{ConnectionInfo, Handler, handler};

    use super::*;
    use crate::question::{Act, Client};

    thread_local!(static HOST: RefCell<Option<Host>> = const { RefCell::new(None) });

    /// Hands on its host.
    struct Lender;

    #[handler]
    impl Handler for Lender {
        type Connection = ();

        fn init(host: Host, _: &str) -> Result<Self, Error> {
            HOST.set(Some(host));
            Ok(Self)
        }

        fn new_connection(&self, _: &ConnectionInfo<'_>) {}
    }

    fn questions(server: &Server, count: u8) -> Vec<(Key, Question)> {
        let act = Act::Publish { topic: "t".into(), qos: 0, retain: false };
        let question = Question::About(Arc::new(Client::default()), act);
        let mut all = vec![(server.keys(b"0").key(b""), question)];
        all.extend((1..count).map(|number| (server.keys(&[number]).key(b""), Question::Connect(Vec::new().into()))));
        all
    }

    #[test]
    fn what_waits_is_counted_by_questions() -> Result<(), Error> {
        let _host = TestHost::new::<Lender>("{}")?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/", listener.local_addr()?);
        let config = format!(r#"{{"url": "{url}", "timeout_ms": 60000, "threads": 1, "queue_max": 30}}"#);
        let settings = plugin_api::config::read(&config).and_then(Settings::new)?;
        let server = Server::start(&HOST.take().expect("it has been handed on"), settings)?;
        let (told, answers) = mpsc::channel();
        let ask = |count: u8| {
            let told = told.clone();
            server.ask(questions(&server, count), move |answers| {
                // Nobody listens at the end.
                let _ = told.send((count, answers.err()));
            });
        };
        ask(9);
        // Its first question is asked: there is none that waits.
        let asked = listener.accept()?;
        // Many count for three, so that ten packets find room, whatever is in them.
        let waiting = [2, 250, 1, 3, 4, 5, 6, 7, 8, 9, 1, 2];
        waiting.into_iter().chain([1, 250]).for_each(ask);
        assert_eq!(answers.recv_timeout(Duration::from_secs(60))?, (1, Some(Failure::Busy)));
        assert_eq!(answers.recv_timeout(Duration::from_secs(60))?, (250, Some(Failure::Busy)));
        // Without an answer to one, none of the others is asked.
        drop((asked, listener));
        for count in [9].into_iter().chain(waiting) {
            assert_eq!(answers.recv_timeout(Duration::from_secs(60))?, (count, Some(Failure::Unavailable)));
        }
        // Nothing is asked that the host does not wait for any more.
        let long_ago = Instant::now().checked_sub(Duration::from_secs(61)).ok_or("the machine has just begun")?;
        assert_eq!(server.asker.ask(&questions(&server, 2), long_ago), Err(Failure::Busy));
        Ok(())
    }
}
