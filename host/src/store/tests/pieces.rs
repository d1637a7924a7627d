//! A checkpoint in pieces: stopped at whatever operation, it is done later, by the same process or by the next one. And below
//! the store: a disk without room, or a journal that cannot be followed.

use std::path::Path;
use std::process::Command;

use super::load::{image, start};
use super::*;
use crate::durable::change::Change;
use crate::durable::model::tests::{Plain, Writing};
use crate::store::disk::DiskFile;
use crate::store::load::Keeping;

/// A directory whose operations fail from one on.
struct Failing {
    under: Directory,
    left: Arc<AtomicUsize>,
}

struct FailingFile {
    under: Box<dyn DiskFile>,
    left: Arc<AtomicUsize>,
}

fn count_down(left: &AtomicUsize) -> io::Result<()> {
    let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    before.map(|_| ()).map_err(|_| rustix::io::Errno::IO.into())
}

impl Failing {
    fn file(&self, under: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(FailingFile { under, left: Arc::clone(&self.left) })
    }
}

impl Disk for Failing {
    fn names(&self) -> io::Result<Vec<String>> {
        self.under.names()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        count_down(&self.left)?;
        Ok(self.file(self.under.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(self.under.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        count_down(&self.left)?;
        self.under.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        count_down(&self.left)?;
        self.under.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        count_down(&self.left)?;
        self.under.sync()
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.under.path_of(name)
    }
}

impl DiskFile for FailingFile {
    fn write_at(&self, parts: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        count_down(&self.left)?;
        self.under.write_at(parts, offset)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        count_down(&self.left)?;
        self.under.read_at(into, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.under.length()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        count_down(&self.left)?;
        self.under.truncate(length)
    }

    fn sync(&self) -> io::Result<()> {
        count_down(&self.left)?;
        self.under.sync()
    }
}

/// A directory as a killed server leaves it: some is in the checkpoint, and the rest in the journal.
fn killed(writing: &mut Writing) -> Place {
    let (place, copy) = (Place::new(), Place::new());
    let settings = Settings { segment_bytes: Settings::SEGMENT_BYTES, ..SETTINGS };
    for is_last in [false, true] {
        let (store, bell) = start(Opened::open(&place.0).unwrap(), settings);
        let last = (0..40).map(|_| store.queue().hand_over(1, &mut writing.next())).last().unwrap();
        bell.wait_until_safe(store.queue(), last);
        if is_last {
            copy_all(&place.0, &copy.0);
        }
        store.stop().unwrap();
        if !is_last {
            copy_all(&place.0.join("checkpoint"), &copy.0.join("checkpoint"));
        }
    }
    copy
}

/// The files of a directory. Of directories in it, only those that are not there yet.
fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_file() {
            std::fs::copy(entry.path(), target).unwrap();
        } else if !target.exists() {
            copy_all(&entry.path(), &target);
        }
    }
}

/// Makes a checkpoint of all there is, on a disk that fails behind so many operations; then goes on, in the same process if it
/// is to, or in the next one. `false` if nothing has failed.
fn stopped_at(killed: &Place, operation: usize, goes_on: bool, expected: &Plain) -> bool {
    let place = Place::new();
    copy_all(&killed.0, &place.0);
    let left = Arc::new(AtomicUsize::new(usize::MAX));
    let disk = Arc::new(Failing { under: Directory::open(&place.0).unwrap(), left: Arc::clone(&left) });
    let (mut keeping, until) = Keeping::of(Opened::read_on(disk, &place.0, false).unwrap());
    left.store(operation, Ordering::Relaxed);
    let has_failed = keeping.checkpoint(until).is_err();
    left.store(usize::MAX, Ordering::Relaxed);
    if has_failed && goes_on {
        assert_eq!(keeping.checkpoint(until).unwrap(), until);
    }
    drop(keeping);
    for _ in 0..2 {
        image(&Opened::open(&place.0).unwrap()).compare(expected, operation as u64);
    }
    let names = Directory::open(&place.0).unwrap().names().unwrap();
    assert!(!names.iter().any(|name| name.contains(".redo")), "{names:?}");
    has_failed
}

#[test]
fn checkpoint_that_is_stopped_anywhere_is_done_later() {
    let mut writing = Writing::new(31);
    let killed = killed(&mut writing);
    let expected = writing.plain.clone();
    let (mut operation, mut attempts) = (0, 0);
    while stopped_at(&killed, operation, attempts % 2 == 0, &expected) {
        attempts += 1;
        // Few of the many that read the journal.
        operation += 1 + operation / 4;
    }
    assert!(operation > 60, "it was done in pieces, with more than {operation} operations");
}

/// A change that cannot be, which is a bug of ours: what clients were promised is kept as far as it can be, and segments do not
/// pile up.
#[test]
fn checkpoint_leaves_out_what_cannot_be_and_goes_on() {
    let place = Place::new();
    let mut writing = Writing::new(32);
    let (store, _) = start(Opened::open(&place.0).unwrap(), Settings { segment_bytes: 2_000, ..SETTINGS });
    for number in 0..40 {
        let mut journal = writing.next();
        if number % 10 == 3 {
            Change::Ended { session: 99 }.encode(&mut journal);
        }
        store.queue().hand_over(0, &mut journal);
    }
    store.stop().unwrap();
    let journals = Directory::open(&place.0).unwrap().names().unwrap();
    assert!(journals.iter().filter(|name| name.ends_with(".journal")).count() <= 1, "{journals:?}");
    image(&Opened::open(&place.0).unwrap()).compare(&writing.plain, 32);
}

/// A file system in memory with room for so many bytes. `None` where none can be mounted.
struct Small(Place);

impl Small {
    fn new(kilobytes: u64) -> Option<Self> {
        let place = Place::new();
        std::fs::create_dir_all(&place.0).unwrap();
        let small = Self(place);
        small.mount("size", kilobytes).then_some(small)
    }

    fn set_room(&self, kilobytes: u64) {
        assert!(self.mount("remount,size", kilobytes), "it was mounted before");
    }

    fn mount(&self, option: &str, kilobytes: u64) -> bool {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("{option}={kilobytes}k"), "tmpfs"]).arg(&self.0.0);
        command.output().is_ok_and(|output| output.status.success())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0.0).status();
    }
}

/// More than a test writes.
const ROOM_KILOBYTES: u64 = 64 << 10;

/// The disk is full while a checkpoint is made, at one place or another, below the crate that makes it as well; when there is
/// room again, it is made, and nothing is missing.
#[test]
fn checkpoint_on_a_full_disk_is_made_when_there_is_room() {
    let mut writing = Writing::new(33);
    let killed = killed(&mut writing);
    let Some(small) = Small::new(ROOM_KILOBYTES) else {
        println!("left out: no file system can be mounted here");
        return;
    };
    let mut failures = 0;
    for kilobytes in (0..240).step_by(12) {
        let place = small.0.0.join(kilobytes.to_string());
        copy_all(&killed.0, &place);
        let (mut keeping, until) = Keeping::of(Opened::open(&place).unwrap());
        // What there is, and so much more.
        let there = Command::new("du").arg("-sk").arg(&small.0.0).output().unwrap();
        let there = String::from_utf8(there.stdout).unwrap();
        let there: u64 = there.split_whitespace().next().unwrap().parse().unwrap();
        small.set_room(there + kilobytes + 1);
        let mut outcome = keeping.checkpoint(until);
        if outcome.is_err() {
            failures += 1;
            outcome = keeping.checkpoint(until);
        }
        small.set_room(ROOM_KILOBYTES);
        let mut attempts = 0;
        while let Err(error) = outcome {
            attempts += 1;
            assert!(attempts < 3, "{kilobytes} KiB: {error}");
            outcome = keeping.checkpoint(until);
        }
        drop(keeping);
        image(&Opened::open(&place).unwrap()).compare(&writing.plain, kilobytes);
        std::fs::remove_dir_all(&place).unwrap();
    }
    assert!(failures > 3, "{failures}");
}
