//! Every operation fails, in every way, and the process or the machine stops at every one: nothing that was said to be safe is
//! lost, nothing comes that was not handed over, and what is left can be gone on with.

use super::memory::{Fault, Memory, Plan, random};
use super::*;
use crate::store::writer::{Told, Writer};

const JOURNALS: u64 = 36;

/// Attempts to write something before it is given up, as it is when the machine has stopped.
const ATTEMPTS: usize = 8;

/// What a run has come to.
struct Outcome {
    disk: Memory,
    /// Where the last checkpoint is.
    kept: Mark,
    /// What was said to be safe.
    safe: u64,
}

fn entries(numbers: impl IntoIterator<Item = u64>) -> Vec<Entry> {
    let entry = |number| Entry { number, worker: u32::try_from(number % 2).unwrap(), journal: journal(number) };
    numbers.into_iter().map(entry).collect()
}

/// Hands journals over, some at a time, with checkpoints in between, until the machine stops or all are safe.
fn run(disk: &Memory, fsync: bool, mark: Mark) -> Outcome {
    let told = Arc::new(Told::default());
    let settings = Settings { fsync, workers: 2, segment_bytes: 500 };
    let mut outcome = Outcome { disk: disk.clone(), kept: mark, safe: mark.next - 1 };
    let start = || Writer::new(Arc::new(disk.clone()), settings, mark, Arc::clone(&told));
    let Some(mut files) = (0..ATTEMPTS).find_map(|_| start().ok()) else { return outcome };
    let mut waiting = entries(mark.next..mark.next + JOURNALS);
    let mut failures = 0;
    while !waiting.is_empty() {
        let some = waiting.len().min(1 + waiting.len() % 4);
        match files.write(&waiting[..some]) {
            Ok(count) => {
                outcome.safe = waiting.drain(..count).next_back().unwrap().number;
                failures = 0;
            }
            Err(_) if failures < ATTEMPTS => failures += 1,
            Err(_) => return outcome,
        }
        if let Some(ended) = files.take_ended().filter(|ended| ended.segment % 3 == 0) {
            checkpoint(disk, &mut outcome, ended, fsync, &told);
        }
    }
    outcome
}

/// As the thread for checkpoints does it, but that it is on the disk at once.
fn checkpoint(disk: &Memory, outcome: &mut Outcome, ended: Mark, fsync: bool, told: &Told) {
    let sync = |number| disk.open(&segment::name_of(number)).and_then(|file| file.sync());
    if !fsync && (outcome.kept.segment..ended.segment).all(|number| sync(number).is_ok()) && disk.sync().is_ok() {
        told.synced.store(ended.next - 1, Ordering::Relaxed);
    }
    let (found, reader) = read(&disk_of(disk), outcome.kept, Some(ended));
    assert_eq!((found, reader.unwrap().mark()), (expected(outcome.kept.next..ended.next), ended));
    outcome.kept = ended;
    told.kept_from.store(ended.segment, Ordering::Relaxed);
    let _ = remove_before(disk, ended.segment);
}

fn disk_of(memory: &Memory) -> Arc<dyn Disk> {
    Arc::new(memory.clone())
}

/// Reads what is left, which has everything up to `safe`; goes on with it, and reads all of that.
fn go_on(left: &Memory, kept: Mark, safe: u64, fsync: bool) {
    let (found, reader) = read(&disk_of(left), kept, None);
    let last = kept.next - 1 + found.len() as u64;
    assert_eq!(found, expected(kept.next..=last));
    let reader = reader.unwrap();
    assert!(last >= safe, "up to {safe} was safe, and there is what goes up to {last}: {:?}", reader.tail());
    let mark = reader.cut().unwrap();
    if fsync {
        // What is safe next stands on what was written before, which nobody may have synced.
        let (next, settings) = (left.after_kill(), Settings { fsync, workers: 2, segment_bytes: 500 });
        let mut files = Writer::new(disk_of(&next), settings, mark, Arc::default()).unwrap();
        files.write(&entries([mark.next])).unwrap();
        let (found, reader) = read(&disk_of(&next.after_power_loss(&mut safe.clone())), kept, None);
        assert_eq!((found, reader.unwrap().tail()), (expected(kept.next..=mark.next), None));
    }
    let outcome = run(left, fsync, mark);
    assert_eq!(outcome.safe, last + JOURNALS);
    let from = if outcome.kept == mark { kept } else { outcome.kept };
    let (found, reader) = read(&disk_of(left), from, None);
    assert_eq!(found, expected(from.next..=outcome.safe));
    assert_eq!(reader.unwrap().tail(), None);
}

/// A run with a plan; and what comes after it, if the process is killed at its end, and if the power goes.
fn check(plan: Option<Plan>, fsync: bool, seed: &mut u64) -> Outcome {
    let outcome = run(&Memory::failing(plan), fsync, Mark::START);
    outcome.disk.set_plan(None);
    let Outcome { disk, kept, safe } = &outcome;
    go_on(&disk.after_kill(), *kept, *safe, fsync);
    for _ in 0..3 {
        go_on(&disk.after_power_loss(seed), *kept, if fsync { *safe } else { 0 }, fsync);
    }
    outcome
}

#[test]
fn nothing_that_is_safe_is_lost_whatever_fails() {
    let mut seed = 7;
    for fsync in [false, true] {
        let whole = check(None, fsync, &mut seed);
        let operations = whole.disk.operations();
        assert!(whole.safe == JOURNALS && operations > 20, "{operations}");
        for from in 0..operations {
            for (fault, times) in [(Fault::Short, 1), (Fault::NoSpace, 1), (Fault::Error, 1), (Fault::Error, 4)] {
                let outcome = check(Some(Plan { fault, from, times }), fsync, &mut seed);
                assert_eq!(outcome.safe, JOURNALS, "{fault:?} of {times} from {from} on");
            }
        }
    }
}

#[test]
fn nothing_that_is_safe_is_lost_wherever_the_machine_stops() {
    let mut seed = 8;
    for fsync in [false, true] {
        let operations = check(None, fsync, &mut seed).disk.operations();
        for from in 0..operations {
            let outcome = check(Some(Plan { fault: Fault::Stop, from, times: 1 }), fsync, &mut seed);
            assert!(outcome.safe <= JOURNALS);
        }
    }
}

/// Several stops, one after the other, with faults in between.
#[test]
fn nothing_that_is_safe_is_lost_over_many_starts() {
    for seed in 0..150 {
        let (mut seed, mut safe, mut kept) = (seed, 0, Mark::START);
        let mut disk = Memory::default();
        for _ in 0..6 {
            let (found, reader) = read(&disk_of(&disk), kept, None);
            assert_eq!(found, expected(kept.next..kept.next + found.len() as u64));
            let reader = reader.unwrap();
            assert!(reader.mark().next > safe, "{:?}", reader.tail());
            let mark = reader.cut().unwrap();
            let fault = [Fault::Stop, Fault::NoSpace, Fault::Error, Fault::Short][random(&mut seed, 4)];
            let (from, times) = (disk.operations() + random(&mut seed, 90), 1 + random(&mut seed, 12));
            disk.set_plan(Some(Plan { fault, from, times }));
            let outcome = run(&disk, true, mark);
            safe = outcome.safe;
            kept = if outcome.kept == mark { kept } else { outcome.kept };
            disk = if random(&mut seed, 2) == 0 { disk.after_kill() } else { disk.after_power_loss(&mut seed) };
        }
        assert!(safe > 0);
    }
}

/// Wherever a byte changes of what was on disk, it is found, and named; and what stands before it can be gone on with.
#[test]
fn damage_is_found_named_and_cut_only_when_asked() {
    let whole = Memory::default();
    let told = Arc::new(Told::default());
    let settings = Settings { fsync: true, workers: 2, segment_bytes: 300 };
    let mut files = Writer::new(disk_of(&whole), settings, Mark::START, told).unwrap();
    for entry in entries(1..=JOURNALS) {
        files.write(&[entry]).unwrap();
    }
    let names = whole.names().unwrap();
    assert!(names.len() > 5);
    let mut tails = 0;
    for name in &names {
        let length = usize::try_from(whole.open(name).unwrap().length().unwrap()).unwrap();
        for at in (0..48).chain(4090..length) {
            let disk = whole.after_kill();
            disk.damage(name, at);
            let (found, outcome) = read(&disk_of(&disk), Mark::START, None);
            assert_eq!(found, expected(1..=found.len() as u64));
            let reader = match outcome {
                Ok(reader) if at < 4144 => {
                    assert_eq!((found.len() as u64, reader.tail()), (JOURNALS, None), "there is another header");
                    continue;
                }
                Ok(reader) => {
                    // Nothing shows that it was on disk: it may have been written when the machine stopped.
                    assert!(found.len() as u64 >= JOURNALS - 1, "{:?}", reader.tail());
                    assert_eq!(reader.tail().unwrap().path, disk.path_of(name));
                    tails += 1;
                    reader
                }
                Err(error) => {
                    let ReadError::Damaged { path, offset, .. } = &error else { panic!("{error}") };
                    assert!(*path == disk.path_of(name) && usize::try_from(*offset).unwrap() <= at, "{error}");
                    let mut reader = Reader::open(disk_of(&disk), Mark::START, None).unwrap();
                    while let Ok(Some(_)) = reader.next() {}
                    reader
                }
            };
            let mark = reader.cut().unwrap();
            assert_eq!(mark.next, found.len() as u64 + 1);
            if at % 16 == 0 {
                go_on(&disk, Mark::START, mark.next - 1, true);
            }
        }
    }
    assert!((1..200).contains(&tails), "{tails}");
}

#[test]
fn file_that_is_missing_is_named_and_that_of_a_later_version_refused() {
    let whole = run(&Memory::default(), true, Mark::START);
    let names = whole.disk.names().unwrap();
    let kept = whole.kept;
    let missing = whole.disk.after_kill();
    missing.remove(&names[0]).unwrap();
    let (_, outcome) = read(&disk_of(&missing), kept, None);
    let text = outcome.err().unwrap().to_string();
    assert!(text.contains(&names[0]) && text.contains("missing") && text.contains("--repair"), "{text}");
    let later = whole.disk.after_kill();
    let mut header = segment::SegmentHeader { salt: 1, number: kept.segment, first: kept.next, workers: 2 }.encode();
    header[8] = 9;
    let checksum = crc32fast::hash(&header[..40]);
    header[40..44].copy_from_slice(&checksum.to_le_bytes());
    later.open(&names[0]).unwrap().write_at(&[io::IoSlice::new(&header)], 0).unwrap();
    let (_, outcome) = read(&disk_of(&later), kept, None);
    let text = outcome.err().unwrap().to_string();
    assert!(text.contains("version 9") && text.contains("up to version 1"), "{text}");
}

/// Without a header nothing can be told of a file: it is one that was begun when the machine stopped.
#[test]
fn file_without_a_header_is_a_torn_tail_unless_a_later_one_shows_otherwise() {
    let whole = run(&Memory::default(), true, Mark::START);
    let mut names = whole.disk.names().unwrap();
    names.sort_unstable();
    for (name, is_last) in [(&names[0], false), (names.last().unwrap(), true)] {
        let disk = whole.disk.after_kill();
        disk.damage(name, 0);
        disk.damage(name, 4096);
        let (found, outcome) = read(&disk_of(&disk), whole.kept, None);
        assert_eq!((outcome.is_ok(), found.is_empty()), (is_last, !is_last));
        let Ok(reader) = outcome else { continue };
        assert_eq!(reader.tail().unwrap().path, disk.path_of(name));
        assert_eq!(reader.cut().unwrap().next, whole.kept.next + found.len() as u64);
        assert!(!disk.names().unwrap().contains(name));
    }
}

/// What a client sends cannot pass for a group, though it has the form of one.
#[test]
fn group_within_a_journal_is_none() {
    let disk = Memory::default();
    let settings = Settings { fsync: true, workers: 2, segment_bytes: 10_000 };
    let mut files = Writer::new(disk_of(&disk), settings, Mark::START, Arc::default()).unwrap();
    let mut inner = Vec::new();
    let forged = Entry { number: 3, worker: 0, journal: vec![7; 20] };
    segment::encode_group(std::slice::from_ref(&forged), 12345, 99, &mut inner);
    inner.extend_from_slice(&forged.journal);
    files.write(&[Entry { number: 1, worker: 0, journal: b"first".to_vec() }]).unwrap();
    files.write(&[Entry { number: 2, worker: 0, journal: inner.repeat(20) }]).unwrap();
    let name = segment::name_of(1);
    let length = usize::try_from(disk.open(&name).unwrap().length().unwrap()).unwrap();
    disk.damage(&name, length - 1);
    let mut reader = Reader::open(disk_of(&disk), Mark::START, None).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().journals().count(), 1);
    assert!(reader.next().unwrap().is_none());
    assert_eq!(reader.tail().map(|tail| tail.groups), Some(0));
}
