//! The server that is asked: on threads of their own, so that nobody waits for it but who is asked about.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use plugin_api::{Error, Host};

use crate::cache::{Cache, Key};
use crate::config::{Rule, Settings};
use crate::question::{Answer, Question};

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Too many questions wait already.
    Busy,
    /// The server does not answer, or not as it should.
    Unavailable,
}

/// Questions that wait for a thread, and what to do with their answers: called once, without an asker if there is no room.
type Job = Box<dyn FnOnce(Option<&Asker>) + Send>;

/// The server of one configuration. What waits when it is dropped is still asked.
pub(crate) struct Server {
    pub(crate) publish: Rule,
    pub(crate) subscribe: Rule,
    asker: Arc<Asker>,
    jobs: SyncSender<Job>,
}

/// What the threads share.
pub(crate) struct Asker {
    host: Host,
    settings: Settings,
    cache: Mutex<Cache>,
    /// Whether the last answer was none: said once, and not for each of thousands of clients.
    is_failing: AtomicBool,
}

impl Server {
    pub(crate) fn start(host: &Host, settings: Settings) -> Result<Arc<Self>, Error> {
        let cache = Cache::new(settings.cache_for, settings.cache_max).ok_or("the system has no random numbers")?;
        let (jobs, waiting) = sync_channel(settings.queue_max);
        let (publish, subscribe, threads) = (settings.publish, settings.subscribe, settings.threads);
        let is_failing = AtomicBool::new(false);
        let asker = Arc::new(Asker { host: host.clone(), settings, cache: Mutex::new(cache), is_failing });
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads {
            let (asker, waiting) = (Arc::clone(&asker), Arc::clone(&waiting));
            std::thread::Builder::new().name("ask-http".into()).spawn(move || work(&asker, &waiting))?;
        }
        Ok(Arc::new(Self { publish, subscribe, asker, jobs }))
    }

    /// The answer, if it is known; else what it will be known by.
    pub(crate) fn known(&self, question: &Question) -> Result<Answer, Key> {
        let cache = self.asker.cache();
        let key = cache.key(question);
        cache.get(&key, Instant::now()).cloned().ok_or(key)
    }

    /// Has questions asked, in order. With the first one that there is no answer to, the others have none either.
    pub(crate) fn ask(
        &self,
        questions: Vec<(Key, Question)>,
        take: impl FnOnce(Result<Vec<Answer>, Failure>) + Send + 'static,
    ) {
        let job: Job = Box::new(move |asker| take(asker.ok_or(Failure::Busy).and_then(|asker| asker.ask(&questions))));
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = self.jobs.try_send(job) {
            job(None);
        }
    }
}

fn work(asker: &Asker, waiting: &Mutex<Receiver<Job>>) {
    loop {
        // One thread waits for a job, and the others for the lock.
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(Some(asker)),
            Err(_) => return,
        }
    }
}

impl Asker {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, questions: &[(Key, Question)]) -> Result<Vec<Answer>, Failure> {
        let start = Instant::now();
        let mut answers = Vec::with_capacity(questions.len());
        for (key, question) in questions {
            if start.elapsed() > self.settings.endpoint.timeout() {
                return Err(Failure::Unavailable);
            }
            // While it waited, the same may have been asked for another client, or by another thread.
            let known = self.cache().get(key, start).cloned();
            answers.push(match known {
                Some(answer) => answer,
                None => self.ask_now(*key, question)?,
            });
        }
        Ok(answers)
    }

    fn ask_now(&self, key: Key, question: &Question) -> Result<Answer, Failure> {
        let answer = self.settings.endpoint.post(question);
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
