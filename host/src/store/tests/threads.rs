//! The threads: what waits becomes one group, who waits is told, and trouble is told and ends.

use super::memory::{Fault, Memory, Plan};
use super::*;
use crate::store::writer::SEGMENTS_MAX;

/// Makes checkpoints of which nothing is kept, when it may.
struct Obedient(Arc<AtomicBool>);

impl Keeper for Obedient {
    fn checkpoint(&mut self, until: Mark) -> Result<Mark, Box<dyn std::error::Error + Send + Sync>> {
        if self.0.load(Ordering::Acquire) { Ok(until) } else { Err("not yet".into()) }
    }
}

struct Running {
    disk: Memory,
    bell: Arc<Bell>,
    store: StoreThread,
    may_keep: Arc<AtomicBool>,
}

fn start(settings: Settings) -> Running {
    let (disk, bell) = (Memory::default(), Arc::new(Bell::default()));
    let may_keep = Arc::new(AtomicBool::new(false));
    let keeper = Box::new(Obedient(Arc::clone(&may_keep)));
    let opened = Arc::new(disk.clone());
    let store = StoreThread::start("test", opened, settings, Mark::START, bell.wakes(), keeper).unwrap();
    Running { disk, bell, store, may_keep }
}

impl Running {
    fn hand_over(&self, number: u64) {
        let worker = usize::try_from(number % 2).unwrap();
        assert_eq!(self.store.queue().hand_over(worker, &mut journal(number)), number);
    }

    fn wait_until_safe(&self, number: u64) {
        self.bell.wait_until_safe(self.store.queue(), number);
    }

    /// Everybody is woken when this changes.
    fn wait_until_failing(&self, is_failing: bool) {
        let held = self.bell.0.lock().unwrap();
        drop(self.bell.1.wait_while(held, |()| self.store.queue().is_failing() != is_failing).unwrap());
    }

    fn read_all(&self) -> Found {
        read(&(Arc::new(self.disk.clone()) as Arc<dyn Disk>), Mark::START, None).0
    }
}

const WHOLE: Settings = Settings { fsync: true, segment_bytes: 1 << 20, ..SETTINGS };

#[test]
fn what_comes_while_the_disk_is_busy_is_on_it_with_one_more_sync() {
    let running = start(WHOLE);
    running.disk.shut_gate(true);
    running.hand_over(1);
    running.disk.wait_for_syncs(1);
    (2..=200).for_each(|number| running.hand_over(number));
    assert_eq!(running.store.queue().safe_up_to(), 0);
    running.disk.shut_gate(false);
    running.wait_until_safe(200);
    assert_eq!(running.disk.syncs(), 2);
    running.store.stop().unwrap();
}

#[test]
fn one_failure_is_mended_without_a_word_and_more_of_them_are_told_until_they_end() {
    for fault in [Fault::NoSpace, Fault::Error] {
        let running = start(WHOLE);
        running.hand_over(1);
        running.wait_until_safe(1);
        let fail = |times| running.disk.set_plan(Some(Plan { fault, from: running.disk.operations(), times }));
        fail(1);
        running.hand_over(2);
        running.wait_until_safe(2);
        assert!(!running.store.queue().is_failing());
        fail(usize::MAX / 2);
        running.hand_over(3);
        running.wait_until_failing(true);
        // Those that nobody could refuse.
        (4..50).for_each(|number| running.hand_over(number));
        assert_eq!(running.store.queue().safe_up_to(), 2);
        running.disk.set_plan(None);
        running.wait_until_failing(false);
        running.wait_until_safe(49);
        assert_eq!(running.read_all(), expected(1..50));
        running.store.stop().unwrap();
    }
}

/// Another process goes on where this one has stopped: everything is there once, in order, whatever the two promise.
#[test]
fn another_store_goes_on_where_one_has_stopped() {
    for (before, after) in [(false, false), (true, true), (false, true), (true, false)] {
        let running = start(Settings { fsync: before, ..WHOLE });
        (1..=20).for_each(|number| running.hand_over(number));
        let brake = running.store.brake();
        let soon = || Instant::now() + Duration::from_secs(20);
        // Once in vain.
        let first = brake.stop(soon()).expect("the disk is there");
        running.hand_over(21);
        brake.release();
        running.wait_until_safe(21);
        let baton = brake.stop(soon()).expect("the disk is there");
        assert_eq!((first.mark.next, baton.mark.next), (21, 22));
        assert_eq!(baton.synced, if before { 21 } else { 0 });
        running.hand_over(22);
        assert_eq!(brake.waiting(), journal(22));
        let bell = Arc::new(Bell::default());
        let (disk, syncs) = (Arc::new(running.disk.clone()), running.disk.syncs());
        let (asked, checkpoints) = mpsc::channel();
        let keeper = Box::new(Never(asked));
        let settings = Settings { fsync: after, ..WHOLE };
        let next = StoreThread::go_on("next", disk, settings, baton, bell.wakes(), keeper, false).unwrap();
        assert_eq!(running.read_all(), expected(1..22), "nothing is written before there is something");
        (22..=30).for_each(|number| {
            assert_eq!(next.queue().hand_over(usize::try_from(number % 2).unwrap(), &mut journal(number)), number);
            bell.wait_until_safe(next.queue(), number);
        });
        // Otherwise segments would pile up with each of many upgrades.
        assert_eq!(checkpoints.recv(), Ok(baton.mark), "one is made of what the first one has written");
        // What the first one was not asked to have on disk is there before something is promised that stands on it.
        if after {
            assert_eq!(running.disk.syncs() - syncs, 9 + usize::from(!before), "{before}");
        }
        running.store.stop().unwrap();
        next.stop().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(running.disk);
        assert_eq!(read(&disk, Mark::START, None).0, expected(1..31));
    }
}

/// Where the disk fails, it is this one that goes on when it works again.
#[test]
fn store_that_cannot_write_is_not_handed_over() {
    let running = start(WHOLE);
    let (fault, from, times) = (Fault::NoSpace, running.disk.operations(), usize::MAX / 2);
    running.disk.set_plan(Some(Plan { fault, from, times }));
    running.hand_over(1);
    assert_eq!(running.store.brake().stop(Instant::now() + Duration::from_millis(50)), None);
    running.hand_over(2);
    running.disk.set_plan(None);
    running.wait_until_safe(2);
    assert_eq!(running.read_all(), expected(1..3));
    running.store.stop().unwrap();
}

#[test]
fn disk_is_not_filled_when_no_checkpoint_can_be_made() {
    let running = start(Settings { segment_bytes: 1, ..WHOLE });
    (1..=SEGMENTS_MAX).for_each(|number| {
        running.hand_over(number);
        running.wait_until_safe(number);
    });
    running.hand_over(SEGMENTS_MAX + 1);
    running.wait_until_failing(true);
    assert_eq!(running.disk.names().unwrap().len() as u64, SEGMENTS_MAX);
    running.may_keep.store(true, Ordering::Release);
    // It is tried again when the store is stopped, if not before.
    if let Err(error) = running.store.stop() {
        assert!(error.journals == 1 && error.to_string().contains("checkpoint"), "{error}");
    }
    assert_eq!(running.disk.names().unwrap().len(), 0);
}

#[test]
fn store_that_cannot_write_says_what_is_lost_when_it_is_stopped() {
    let running = start(WHOLE);
    running.hand_over(1);
    running.wait_until_safe(1);
    let (fault, from, times) = (Fault::NoSpace, running.disk.operations(), usize::MAX / 2);
    running.disk.set_plan(Some(Plan { fault, from, times }));
    (2..5).for_each(|number| running.hand_over(number));
    let error = running.store.stop().unwrap_err();
    assert_eq!((error.journals, error.source.kind()), (3, io::ErrorKind::StorageFull));
    assert_eq!(read(&(Arc::new(running.disk) as Arc<dyn Disk>), Mark::START, None).0, expected(1..2));
}

#[test]
fn store_that_cannot_write_does_not_start() {
    let disk = Memory::failing(Some(Plan { fault: Fault::NoSpace, from: 0, times: 1 }));
    let keeper = Box::new(Obedient(Arc::default()));
    let bell = Arc::new(Bell::default());
    let error = StoreThread::start("test", Arc::new(disk), WHOLE, Mark::START, bell.wakes(), keeper).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}
