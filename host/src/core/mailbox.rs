//! Where what others send to a worker waits for it.
//!
//! A mailbox is locked once per batch, not once per message, and its worker is woken only when it was empty.

use std::sync::{Arc, PoisonError};

use super::mail::{Batch, Mail};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// Requests from plugins that one mailbox holds, in bytes; past it the plugin gets an error.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// One worker's mailbox. Anybody may put something in; only its worker empties it. It has cache lines of its own: others put
/// something into the next one meanwhile.
#[repr(align(128))]
pub struct Mailbox {
    waiting: Mutex<Waiting>,
    /// There is, or was, a [`Mail::Stop`] in it.
    is_last: AtomicBool,
    /// Its worker has ended. Written and read under the lock.
    is_closed: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// What waits in a mailbox. Little is copied while its lock is held, however many put something in: with many workers they
/// would wait for each other.
#[derive(Debug, Default)]
struct Waiting {
    /// What came first.
    first: Batch,
    /// What came behind it, in order, before the worker has looked.
    behind: Vec<Batch>,
    /// Empty batches, whose memory is used for what comes next.
    spare: Vec<Batch>,
    /// Bytes of all these.
    encoded_bytes: usize,
    mail_bytes: usize,
}

/// How many batches wait behind the first one, and how many empty ones are kept.
const BEHIND_MAX: usize = 64;
const SPARE_MAX: usize = 8;
/// Up to so many bytes it is no more work to copy them than to hand their memory over.
const COPIED_BYTES_MAX: usize = 1024;

impl Waiting {
    fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Puts `full` behind what there is, and leaves something empty in its place.
    fn push(&mut self, full: &mut Batch) {
        let (bytes, capacity) = (full.encoded_bytes(), full.capacity());
        self.encoded_bytes += bytes;
        self.mail_bytes += full.mail_bytes();
        // Memory that is hardly used is not to pile up here.
        let is_copied = bytes <= COPIED_BYTES_MAX || bytes < capacity / 4 || self.behind.len() >= BEHIND_MAX;
        if self.first.is_empty() {
            std::mem::swap(&mut self.first, full);
        } else if is_copied {
            self.last().append(full);
        } else {
            self.behind.push(std::mem::replace(full, self.spare.pop().unwrap_or_default()));
        }
    }

    /// The batch that came last.
    fn last(&mut self) -> &mut Batch {
        self.behind.last_mut().unwrap_or(&mut self.first)
    }
}

impl Mailbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that can panic runs under this lock except allocation, so what waits is still whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request in. `false` if the mailbox is full; answers are always taken, there is one for each open ticket.
    #[must_use]
    pub fn post(&self, mail: Mail) -> bool {
        self.hand_in(mail).is_ok()
    }

    /// The same, for a request that somebody waits for.
    ///
    /// # Errors
    /// The mailbox is full, or its worker has ended.
    pub fn hand_in(&self, mail: Mail) -> Result<(), Refused> {
        let mut waiting = self.waiting();
        let (was_empty, bytes) = (waiting.is_empty(), mail.bytes());
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(Refused { mail, closed: true });
        }
        if waiting.mail_bytes + bytes > REQUEST_BYTES_MAX
            && !matches!(mail, Mail::Stop | Mail::Limits(_) | Mail::Answer { .. })
        {
            return Err(Refused { mail, closed: false });
        }
        self.is_last.fetch_or(matches!(mail, Mail::Stop), Ordering::Relaxed);
        waiting.mail_bytes += bytes;
        waiting.last().push_mail(mail);
        drop(waiting);
        if was_empty {
            (self.wake)();
        }
        Ok(())
    }

    /// The worker has ended: requests that wait are dropped, and so answered, and no more are taken.
    pub fn close(&self) {
        let mut waiting = self.waiting();
        self.is_closed.store(true, Ordering::Relaxed);
        let left = std::mem::take(&mut *waiting);
        // Not under the lock: who waits may ask for more.
        drop(waiting);
        drop(left);
    }

    /// Swaps `full` in, behind what waits already. Returns the bytes that wait there.
    pub fn put(&self, full: &mut Batch) -> usize {
        let mut waiting = self.waiting();
        let was_empty = waiting.is_empty();
        waiting.push(full);
        let bytes = waiting.encoded_bytes;
        drop(waiting);
        full.clear();
        if was_empty {
            (self.wake)();
        }
        bytes
    }

    /// Whether nothing waits in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    /// Bytes of messages that wait in it.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting().encoded_bytes
    }

    /// Whether the worker is to stop when it comes to it.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.is_last.load(Ordering::Relaxed)
    }

    /// Swaps everything into `empty`, whose memory is used for what comes next. `false` if there was nothing.
    pub fn take(&self, empty: &mut Batch) -> bool {
        let mut waiting = self.waiting();
        if waiting.is_empty() {
            return false;
        }
        std::mem::swap(&mut waiting.first, empty);
        (waiting.encoded_bytes, waiting.mail_bytes) = (0, 0);
        let mut behind = std::mem::take(&mut waiting.behind);
        drop(waiting);
        if behind.is_empty() {
            return true;
        }
        behind.iter_mut().for_each(|batch| empty.append(batch));
        behind.truncate(SPARE_MAX);
        let mut waiting = self.waiting();
        if waiting.spare.is_empty() {
            std::mem::swap(&mut waiting.spare, &mut behind);
        }
        drop(waiting);
        true
    }
}

/// A request that a mailbox did not take.
#[derive(Debug)]
pub struct Refused {
    /// The request.
    pub mail: Mail,
    /// The worker has ended; otherwise its mailbox is full.
    pub closed: bool,
}

/// The mailboxes of all workers, by worker.
#[derive(Clone)]
pub struct Mailboxes(Arc<[Mailbox]>);

impl std::fmt::Debug for Mailboxes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mailboxes({})", self.0.len())
    }
}

impl Mailboxes {
    /// One mailbox for each of the wake functions, which are called when it ceases to be empty, on any thread.
    #[must_use]
    pub fn new(wake: Vec<Box<dyn Fn() + Send + Sync>>) -> Self {
        Self(
            wake.into_iter()
                .map(|wake| Mailbox {
                    waiting: Mutex::default(),
                    is_last: AtomicBool::new(false),
                    is_closed: AtomicBool::new(false),
                    wake,
                })
                .collect(),
        )
    }

    /// How many workers there are. Zero where a plugin is only looked at (`host check`).
    #[must_use]
    pub fn workers(&self) -> usize {
        self.0.len()
    }

    /// The mailbox of a worker.
    #[must_use]
    pub fn of(&self, worker: usize) -> &Mailbox {
        &self.0[worker]
    }

    /// See [`Mailbox::hand_in`].
    ///
    /// # Errors
    /// See there.
    pub fn hand_in(&self, worker: usize, mail: Mail) -> Result<(), Refused> {
        self.0[worker].hand_in(mail)
    }

    /// Puts a request into one worker's mailbox. `false` if it is full.
    #[must_use]
    pub fn post(&self, worker: usize, mail: Mail) -> bool {
        self.0[worker].post(mail)
    }
}

#[cfg(test)]
mod tests {
    use super::super::mail::tests::parts;
    use super::super::mail::{Destination, InfoMail, InfoTarget};
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn worker_is_woken_only_when_the_mailbox_was_empty() {
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&woken);
        let boxes = Mailboxes::new(vec![Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        })]);
        let mut batch = Batch::default();
        for _ in 0..3 {
            batch.push(Destination::Matching, &parts("t", b"x"));
            boxes.of(0).put(&mut batch);
            assert!(batch.is_empty());
        }
        assert!(boxes.post(0, Mail::Stop));
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert!(boxes.of(0).take(&mut batch));
        assert_eq!(batch.messages().count(), 3);
        assert_eq!(batch.take_mails().len(), 1);
        assert!(!boxes.of(0).take(&mut Batch::default()));
    }

    /// However long batches are, and whether there is room for them in each other.
    #[test]
    fn batches_that_pile_up_come_in_order() {
        let boxes = Mailboxes::new(vec![Box::new(|| {})]);
        let (mut batch, mut taken) = (Batch::default(), Batch::default());
        for round in 0..3 {
            let payload = [b'x'; 5000];
            let lengths = (0..400_usize).map(|number| [0, 10, 1100, 5000][number * 7 % 4]);
            for (number, length) in lengths.clone().enumerate() {
                batch.push(Destination::Matching, &parts(&format!("{number}"), &payload[..length]));
                boxes.of(0).put(&mut batch);
                assert!(batch.is_empty());
            }
            assert!(boxes.of(0).post(Mail::Stop));
            let (waiting, most) = (boxes.of(0).waiting_bytes(), lengths.clone().sum::<usize>() + 400 * 32);
            assert!(boxes.of(0).take(&mut taken), "round {round}");
            assert_eq!((boxes.of(0).waiting_bytes(), waiting, taken.take_mails().len()), (0, taken.encoded_bytes(), 1));
            assert!(waiting < most, "{waiting} bytes");
            let found: Vec<_> =
                taken.messages().map(|(_, parts)| (parts.topic.to_owned(), parts.payload.len())).collect();
            let expected: Vec<_> = lengths.enumerate().map(|(number, length)| (number.to_string(), length)).collect();
            assert_eq!(found, expected);
            taken.clear();
            let waiting = boxes.of(0).waiting();
            assert!(waiting.spare.len() <= SPARE_MAX && waiting.mail_bytes == 0);
            let kept: usize = waiting.spare.iter().map(|batch| batch.capacity()).sum();
            assert!(kept <= SPARE_MAX << 20, "{kept} bytes");
        }
    }

    #[test]
    fn full_mailbox_refuses_requests_but_takes_stop() {
        let boxes = Mailboxes::new(vec![Box::new(|| {})]);
        let info = |bytes| {
            Mail::Info(Box::new(InfoMail {
                target: InfoTarget::All,
                plugin: 0,
                kind: "k".into(),
                data: vec![0; bytes].into(),
                delay_ms: 0,
                interval_ms: 0,
                timer: 0,
                from_connection: 0,
                room: None,
                begins: 0,
            }))
        };
        assert!(boxes.post(0, info(REQUEST_BYTES_MAX - 200)));
        assert!(!boxes.post(0, info(1000)));
        assert!(boxes.post(0, Mail::Stop));
    }
}
