//! The store over a directory, and over a disk in memory that fails when it is told to.

mod export;
mod faults;
mod load;
mod memory;
mod migrate;
mod pieces;
mod threads;

use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Condvar, Mutex};

use super::disk::Directory;
use super::load::CHECKPOINT;
use super::segment::HEADER_BYTES;
use super::*;
use crate::durable::store::Store;

/// A directory of its own for a test, which goes with it.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("host-store-{}-{number}", std::process::id())))
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(Directory::open(&self.0).unwrap())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SETTINGS: Settings = Settings { fsync: false, workers: 2, segment_bytes: 1000 };

/// What a store says to who waits for it.
#[derive(Default)]
struct Bell(Mutex<()>, Condvar);

impl Bell {
    fn wakes(self: &Arc<Self>) -> Vec<Wake> {
        let wake = |bell: Arc<Self>| -> Wake {
            Box::new(move || {
                let _held = bell.0.lock().unwrap();
                bell.1.notify_all();
            })
        };
        (0..SETTINGS.workers).map(|_| wake(Arc::clone(self))).collect()
    }

    fn wait_until_safe(&self, queue: &Queue, number: u64) {
        let mut held = self.0.lock().unwrap();
        // Asked under the lock that the bell needs, so that no ring is missed.
        while !queue.wake_when_safe(0, number) {
            held = self.1.wait(held).unwrap();
        }
    }
}

/// Makes no checkpoints, and says what it was asked for.
struct Never(mpsc::Sender<Mark>);

impl Keeper for Never {
    fn checkpoint(&mut self, until: Mark) -> Result<Mark, Box<dyn std::error::Error + Send + Sync>> {
        let _ = self.0.send(until);
        Err("not now".into())
    }
}

/// Journals: number, worker, bytes.
type Found = Vec<(u64, u32, Vec<u8>)>;

/// The journals that can be read from a mark on, with their numbers and workers; and how reading ends.
fn read(disk: &Arc<dyn Disk>, from: Mark, until: Option<Mark>) -> (Found, Result<Reader, ReadError>) {
    let mut reader = Reader::open(Arc::clone(disk), from, until).unwrap();
    let mut found = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(group)) => {
                for written in group.journals() {
                    assert_eq!(written.workers, SETTINGS.workers);
                    let mut bytes = vec![0; written.journal.len()];
                    let file = disk.open(&segment::name_of(written.segment)).unwrap();
                    disk::read_full_at(&*file, &mut bytes, written.offset).unwrap();
                    assert_eq!(bytes, written.journal, "where it is said to be");
                    found.push((written.number, written.worker, bytes));
                }
            }
            Ok(None) => return (found, Ok(reader)),
            Err(error) => return (found, Err(error)),
        }
    }
}

fn journal(number: u64) -> Vec<u8> {
    format!("{number}:").into_bytes().repeat(usize::try_from(number * 7 % 40).unwrap() + 1)
}

fn expected(numbers: impl IntoIterator<Item = u64>) -> Found {
    numbers.into_iter().map(|number| (number, u32::try_from(number % 2).unwrap(), journal(number))).collect()
}

#[test]
fn what_was_handed_over_is_read_again_in_order_after_each_start() {
    for fsync in [false, true] {
        let place = Place::new();
        let disk = place.disk();
        let (ended, segments) = mpsc::channel();
        for round in 0..3 {
            let (found, reader) = read(&disk, Mark::START, None);
            assert_eq!(found, expected(1..1 + round * 100));
            let reader = reader.unwrap();
            assert_eq!(reader.tail(), None);
            let mark = reader.cut().unwrap();
            assert_eq!(mark.next, 1 + round * 100);
            let (settings, bell) = (Settings { fsync, ..SETTINGS }, Arc::new(Bell::default()));
            let keeper = Box::new(Never(ended.clone()));
            let store = StoreThread::start("test", Arc::clone(&disk), settings, mark, bell.wakes(), keeper).unwrap();
            for number in mark.next..mark.next + 100 {
                let worker = usize::try_from(number % 2).unwrap();
                assert_eq!(store.queue().hand_over(worker, &mut journal(number)), number);
                if number % 10 == 0 {
                    bell.wait_until_safe(store.queue(), number);
                    assert!(read(&disk, Mark::START, None).0.len() as u64 >= number);
                }
            }
            store.stop().unwrap();
        }
        let marks: Vec<_> = segments.try_iter().collect();
        let last = *marks.last().unwrap();
        assert_eq!(last.next, 301);
        assert!(last.segment > 6 && marks.iter().all(|mark| mark.offset == HEADER_BYTES), "{marks:?}");
        for mark in marks {
            assert_eq!(read(&disk, mark, None).0, expected(mark.next..301));
            let (found, reader) = read(&disk, Mark::START, Some(mark));
            assert_eq!((found, reader.unwrap().mark()), (expected(1..mark.next), mark));
        }
    }
}
