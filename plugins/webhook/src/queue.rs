//! Events that wait to be told. They are kept in the server, by the plugin's name: so a swap loses none, and with a data directory
//! neither does a restart.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use plugin_api::{Counter, Error, Host, HostError};

use crate::config::Settings;
use crate::event::{self, Event};

/// What the keys of events begin with.
const EVENTS: &[u8] = b"e";

/// The key that says which instance of the plugin tells: two versions of it may run at a time.
const TELLER: &[u8] = b"teller";

/// What tells an instance from others: the number of its process, and when it began.
type Instance = [u8; 12];

/// The shortest and the longest time until a server is told again that did not take a batch.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// How long an instance waits that is not the one that tells.
const ASIDE: Duration = Duration::from_secs(1);

/// How long what waits is still told when the plugin is stopped.
const AT_THE_END: Duration = Duration::from_secs(2);

/// The most bytes of a batch, after which it gets no further event.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// The queue, which all of the plugin's threads share.
pub(crate) struct Queue {
    host: Host,
    settings: RwLock<Arc<Settings>>,
    instance: Instance,
    /// The last event's place in the order.
    last: AtomicU64,
    /// How many events wait, whoever has put them there: counted while this instance puts and tells, and looked at again where
    /// others may have put or told some.
    waiting: AtomicUsize,
    calls: Mutex<Calls>,
    woken: Condvar,
    dropped: Counter,
    told: Counter,
    is_full: AtomicBool,
    is_failing: AtomicBool,
    /// Whether there has been an event that is too large: said once.
    has_large: AtomicBool,
}

/// What the thread that tells is called for.
#[derive(Default)]
struct Calls {
    stop: bool,
    /// There are other settings: perhaps another server, which is told at once.
    is_new: bool,
}

/// Why an event is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unkept {
    /// There is no room for it now.
    Full,
    /// There is never room for as many bytes.
    TooLarge,
}

impl Queue {
    /// With what an instance before has left.
    pub(crate) fn new(host: &Host, settings: Settings) -> Result<Self, Error> {
        let waiting = count(host)?;
        let queue = Self {
            host: host.clone(),
            settings: RwLock::new(Arc::new(settings)),
            instance: instance(),
            last: AtomicU64::new(0),
            waiting: AtomicUsize::new(waiting),
            calls: Mutex::default(),
            woken: Condvar::new(),
            dropped: host
                .counter("dropped_total", "Events that were not told, as too much waited or they were too large.")?,
            told: host.counter("told_total", "Events that the server has taken.")?,
            is_full: AtomicBool::new(false),
            is_failing: AtomicBool::new(false),
            has_large: AtomicBool::new(false),
        };
        host.store().put(TELLER, queue.instance)?;
        Ok(queue)
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_settings(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        // What was said of the server before says nothing of this one.
        self.is_failing.store(false, Ordering::Relaxed);
        self.calls().is_new = true;
        self.woken.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.calls().stop = true;
        self.woken.notify_all();
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Keeps an event until it has been told.
    pub(crate) fn put(&self, event: &Event<'_>) -> Result<(), Unkept> {
        let kept = match self.waiting() < self.settings().queue_max {
            true => self.keep(event),
            false => Err(HostError::Full),
        };
        let kept = kept.map_err(|error| match error {
            HostError::TooLarge => Unkept::TooLarge,
            _ => Unkept::Full,
        });
        if kept.is_err() {
            self.dropped.increment();
        }
        if kept == Err(Unkept::TooLarge) {
            if !self.has_large.swap(true, Ordering::Relaxed) {
                self.host
                    .error("an event of more than 1 MiB is not told; further ones are only counted, in dropped_total");
            }
            return kept;
        }
        let is_full = kept.is_err();
        if self.is_full.swap(is_full, Ordering::Relaxed) != is_full {
            match is_full {
                true => self.host.error("too much waits to be told: there is no room for further events"),
                false => self.host.info("there is room for events again"),
            }
        }
        kept
    }

    fn keep(&self, event: &Event<'_>) -> Result<(), HostError> {
        let now = nanos();
        let next = |last: u64| Some(now.max(last + 1));
        let place =
            self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).map_or(now, |last| now.max(last + 1));
        let key = [EVENTS, &place.to_be_bytes(), &self.instance[4..]].concat();
        let id = key[1..].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        self.host.store().put(&key, event.json(&id, now / 1_000_000))?;
        // The thread waits with the lock for what it has seen to be nothing.
        if self.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            drop(self.calls());
            self.woken.notify_all();
        }
        Ok(())
    }

    /// Tells the server, until it is stopped; and then what is left, for a while.
    pub(crate) fn tell(&self) {
        let mut pause = AGAIN.0;
        while !self.wait_for_events() {
            let settings = self.settings();
            match self.is_teller() {
                true => match self.tell_batch(&settings) {
                    Ok(()) => pause = AGAIN.0,
                    Err(error) => {
                        self.failed(&error);
                        pause = match self.pause(pause) {
                            true => AGAIN.0,
                            false => (pause * 2).min(AGAIN.1),
                        };
                    }
                },
                false => {
                    self.recount();
                    let _ = self.pause(ASIDE);
                }
            }
        }
        let end = Instant::now() + AT_THE_END;
        while self.waiting() > 0 && self.is_teller() && Instant::now() < end {
            if let Err(error) = self.tell_batch(&self.settings()) {
                self.host.warn(format_args!("{} events were not told: {error}", self.waiting()));
                break;
            }
        }
        if self.is_teller() {
            // Another instance may go on. If the host has stopped already, nobody does.
            let _ = self.host.store().delete(TELLER);
        }
    }

    /// Waits for an event, and then a while for more of them. Whether to stop instead.
    fn wait_for_events(&self) -> bool {
        let idle = |calls: &mut Calls| !calls.stop && self.waiting() == 0;
        let calls = loop {
            let calls = self.calls();
            let (calls, _) = self.woken.wait_timeout_while(calls, ASIDE, idle).unwrap_or_else(PoisonError::into_inner);
            if calls.stop || self.waiting() > 0 {
                break calls;
            }
            // Without the lock, which those who put events need.
            drop(calls);
            self.recount();
        };
        let settings = self.settings();
        let alone = |calls: &mut Calls| !calls.stop && self.waiting() < settings.batch_max as usize;
        let waited = self.woken.wait_timeout_while(calls, settings.linger, alone);
        waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }

    /// Waits, unless there is something to do before. Whether there are other settings.
    fn pause(&self, time: Duration) -> bool {
        let uncalled = |calls: &mut Calls| !calls.stop && !calls.is_new;
        let waited = self.woken.wait_timeout_while(self.calls(), time, uncalled);
        std::mem::take(&mut waited.unwrap_or_else(PoisonError::into_inner).0.is_new)
    }

    /// Whether it is this instance that tells: the one of this process that has come last, unless that is gone. After
    /// `host upgrade` there stands one of the process before.
    fn is_teller(&self) -> bool {
        match self.host.store().get(TELLER) {
            Ok(Some(instance)) if instance == self.instance => true,
            Ok(Some(instance)) if instance.starts_with(&self.instance[..4]) => false,
            Ok(_) => self.host.store().put(TELLER, self.instance).is_ok(),
            Err(_) => false,
        }
    }

    fn tell_batch(&self, settings: &Settings) -> Result<(), String> {
        let store = self.host.store();
        let (mut keys, mut events, mut bytes) = (Vec::new(), Vec::new(), 0);
        for key in store.keys(EVENTS, b"", settings.batch_max).map_err(|error| error.to_string())? {
            if bytes >= BATCH_BYTES_MAX {
                break;
            }
            if let Ok(Some(event)) = store.get(&key) {
                bytes += event.len();
                events.push(event);
                keys.push(key);
            }
        }
        if events.is_empty() {
            // Another instance has told what this one has counted.
            self.recount();
            return Ok(());
        }
        let answer = settings.endpoint.post(&event::batch(&events))?;
        if !(200..300).contains(&answer.status) {
            return Err(format!("status {}, expected 200 to 299", answer.status));
        }
        for key in &keys {
            // If it is still there, it is told once more.
            if store.delete(key).unwrap_or(false) {
                self.forget_one();
            }
        }
        self.told.add(keys.len() as f64);
        if self.is_failing.swap(false, Ordering::Relaxed) {
            self.host.info("the server takes events again");
        }
        Ok(())
    }

    /// What is put meanwhile may be counted twice or not at all: until it is counted again.
    fn recount(&self) {
        if let Ok(count) = count(&self.host) {
            self.waiting.store(count, Ordering::Relaxed);
        }
    }

    fn forget_one(&self) {
        let one_less = |waiting: usize| Some(waiting.saturating_sub(1));
        let _ = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }

    fn failed(&self, error: &str) {
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            self.host.error(format_args!("the server does not take events, which wait and are told again: {error}"));
        }
    }
}

/// How many events wait, of all instances.
fn count(host: &Host) -> Result<usize, HostError> {
    let (mut count, mut after) = (0, Vec::new());
    loop {
        let keys = host.store().keys(EVENTS, &after, 1000)?;
        count += keys.len();
        match keys.into_iter().next_back() {
            Some(last) => after = last,
            None => return Ok(count),
        }
    }
}

fn instance() -> Instance {
    let mut instance = [0; 12];
    instance[..4].copy_from_slice(&std::process::id().to_be_bytes());
    instance[4..].copy_from_slice(&nanos().to_be_bytes());
    instance
}

/// The time since 1970.
fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use plugin_api::testing::TestHost;
    use plugin_api::{ConnectionInfo, Handler, handler};

    use super::*;

    thread_local!(static HOST: RefCell<Option<Host>> = const { RefCell::new(None) });

    /// Hands on its host, so that there can be several instances of the queue.
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

    fn settings() -> Settings {
        let config = r#"{"url": "http://127.0.0.1:1/", "queue_max": 2}"#;
        plugin_api::config::read(config).and_then(Settings::new).unwrap_or_else(|error| panic!("{error}"))
    }

    fn queue(host: &Host) -> Queue {
        Queue::new(host, settings()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn put(queue: &Queue) -> bool {
        queue.put(&Event::SessionExpired { client_id: "a" }).is_ok()
    }

    #[test]
    fn other_settings_end_a_pause() -> Result<(), Error> {
        let _server = TestHost::new::<Lender>("{}")?;
        let queue = queue(&HOST.take().expect("it has been handed on"));
        queue.failed("status 500");
        let start = Instant::now();
        std::thread::scope(|scope| {
            let paused = scope.spawn(|| queue.pause(Duration::from_secs(60)));
            queue.set_settings(settings());
            assert!(paused.join().expect("no panic") && start.elapsed() < Duration::from_secs(50));
        });
        assert!(!queue.is_failing(), "nothing is known of the new server yet");
        assert!(!queue.pause(Duration::ZERO), "it is told once");
        Ok(())
    }

    #[test]
    fn what_is_too_large_is_not_taken_for_a_queue_that_is_full() -> Result<(), Error> {
        let server = TestHost::new::<Lender>("{}")?;
        let host = HOST.take().expect("it has been handed on");
        let queue = queue(&host);
        let large = "x".repeat(1 << 20);
        let put = |client_id| queue.put(&Event::SessionExpired { client_id });
        assert_eq!(
            [put(&large), put(&large), put("a"), put("b")],
            [Err(Unkept::TooLarge), Err(Unkept::TooLarge), Ok(()), Ok(())]
        );
        assert_eq!(put("c"), Err(Unkept::Full));
        let said: Vec<_> = server.take_logs().into_iter().map(|line| line.text).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("more than 1 MiB") && said[1].contains("too much waits"), "{said:?}");
        Ok(())
    }

    #[test]
    fn an_instance_counts_what_others_put_and_tell() -> Result<(), Error> {
        let _server = TestHost::new::<Lender>("{}")?;
        let host = HOST.take().expect("it has been handed on");
        let (older, newer) = (queue(&host), queue(&host));
        assert!(!older.is_teller() && newer.is_teller());
        // As it stands there after `host upgrade`: one that is gone, whenever it began.
        host.store().put(TELLER, [0xff; 12])?;
        assert!(newer.is_teller() && !older.is_teller());
        assert!(put(&older) && put(&older) && !put(&older), "there is room for two");
        assert_eq!((older.waiting(), newer.waiting()), (2, 0));
        // The newer one is idle, and finds them all the same.
        std::thread::scope(|scope| {
            scope.spawn(|| older.tell());
            assert!(!newer.wait_for_events());
            assert_eq!(newer.waiting(), 2);
            for key in host.store().keys(EVENTS, b"", 10)? {
                host.store().delete(&key)?;
            }
            // It has told them: there is room in the older one again, which does not tell.
            let start = Instant::now();
            while older.waiting() > 0 && start.elapsed() < Duration::from_secs(60) {
                std::thread::sleep(Duration::from_millis(10));
            }
            older.stop();
            assert!(put(&older));
            Ok::<_, HostError>(())
        })?;
        // Nothing of what is counted twice is left when there is nothing any more.
        newer.waiting.store(5, Ordering::Relaxed);
        for key in host.store().keys(EVENTS, b"", 10)? {
            host.store().delete(&key)?;
        }
        newer.tell_batch(&newer.settings())?;
        assert_eq!(newer.waiting(), 0);
        Ok(())
    }
}
