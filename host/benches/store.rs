//! What the store's thread costs and how much it takes, on a directory of its own below the one that is given (default: the
//! one for temporary files): `cargo bench -p host --bench store -- /var/tmp`.
//!
//! Journals of 32 messages of 100 bytes with `buffered`; of one message each, for as many publishers as wait for one
//! acknowledgement each, with `fsync`; and, to compare, one `write` and one `fdatasync` after the other.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use host::durable::queue::{Queue, Wake};
use host::durable::store::Store;
use host::store::disk::Directory;
use host::store::{Keeper, Mark, Settings, StoreThread};

const LASTS: Duration = Duration::from_secs(3);

/// One message of 100 bytes, as it stands in a journal with its topic and the like.
const MESSAGE_BYTES: usize = 150;

/// Keeps nothing.
struct Forget;

impl Keeper for Forget {
    fn checkpoint(&mut self, until: Mark) -> Result<Mark, Box<dyn std::error::Error + Send + Sync>> {
        Ok(until)
    }
}

/// Waits for what the store says.
#[derive(Default)]
struct Bell(Mutex<()>, Condvar);

impl Bell {
    fn wait(&self, queue: &Queue, number: u64) {
        let mut held = self.0.lock().expect("nobody panics");
        while !queue.wake_when_safe(0, number) {
            held = self.1.wait(held).expect("nobody panics");
        }
    }
}

/// A new directory, which is removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(below: &Path) -> Self {
        let path = below.join(format!("host-bench-store-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Hands over journals of so many bytes, of which so many wait at a time. Returns how many became safe in a second, and the
/// processor's time for each in microseconds, that of who hands over included.
fn journals(below: &Path, fsync: bool, bytes: usize, waiting: u64) -> (f64, f64) {
    let place = Place::new(below);
    let settings = Settings { fsync, workers: 1, segment_bytes: Settings::SEGMENT_BYTES };
    let bell = Arc::new(Bell::default());
    let rung = Arc::clone(&bell);
    let wake: Wake = Box::new(move || {
        let _held = rung.0.lock().expect("nobody panics");
        rung.1.notify_all();
    });
    let disk = Arc::new(Directory::open(place.0.join("journal")).expect("a directory"));
    let store = StoreThread::start("bench", disk, settings, Mark::START, vec![wake], Box::new(Forget));
    let store = store.expect("a store");
    let (began, cpu) = (Instant::now(), cpu_time());
    let (mut journal, mut number) = (Vec::new(), 0);
    while began.elapsed() < LASTS {
        // All that became safe is handed over anew, as a worker does it in a turn.
        let free = waiting - (number - store.queue().safe_up_to());
        for _ in 0..free {
            journal.resize(bytes, 0x55);
            number = store.queue().hand_over(0, &mut journal);
        }
        bell.wait(store.queue(), number + 1 - waiting.min(number));
    }
    bell.wait(store.queue(), number);
    let (secs, cpu) = (began.elapsed().as_secs_f64(), cpu_time() - cpu);
    store.stop().expect("everything can be written");
    (number as f64 / secs, cpu.as_secs_f64() * 1e6 / number as f64)
}

fn one_by_one(below: &Path) -> f64 {
    let place = Place::new(below);
    let mut file = std::fs::File::create(place.0.join("file")).expect("a file");
    let (began, mut written) = (Instant::now(), 0);
    while began.elapsed() < LASTS {
        file.write_all(&[0x55; MESSAGE_BYTES]).expect("room");
        file.sync_data().expect("a disk");
        written += 1;
    }
    f64::from(written) / began.elapsed().as_secs_f64()
}

/// What this process has taken so far.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("it is there on Linux");
    let fields: Vec<_> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    // User and system time, in hundredths of a second.
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn main() {
    // Cargo adds `--bench`.
    let below = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let below = below.map_or_else(std::env::temp_dir, PathBuf::from);
    let (journals_per_s, cpu_us) = journals(&below, false, 32 * MESSAGE_BYTES, 4);
    println!(
        "buffered: {journals_per_s:.0} journals of 32 messages a second, {:.2} million messages a second, {:.0} MB/s, \
         {:.3} µs of processor time a message",
        journals_per_s * 32.0 / 1e6,
        journals_per_s * 32.0 * MESSAGE_BYTES as f64 / 1e6,
        cpu_us / 32.0
    );
    let (unbatched, cpu_us) = journals(&below, false, MESSAGE_BYTES, 1);
    println!("buffered: {unbatched:.0} journals of one message a second one after the other, {cpu_us:.2} µs each");
    let alone = one_by_one(&below);
    println!("fsync: {alone:.0} messages a second with one fdatasync for each");
    for publishers in [1, 10, 100, 1000] {
        let (together, cpu_us) = journals(&below, true, MESSAGE_BYTES, publishers);
        println!(
            "fsync: {together:.0} messages a second for {publishers} publishers, {:.1} times as many, {cpu_us:.2} µs each",
            together / alone
        );
    }
}
