//! What was kept comes back, whatever of it is in checkpoints and whatever in the journal.

use super::*;
use crate::durable::model::layout;
use crate::durable::model::tests::{Plain, Writing};
use crate::durable::store::{Piece, Progress};

/// Segments that are full after some journals, so that there are several checkpoints.
const SMALL: Settings = Settings { segment_bytes: 20_000, ..SETTINGS };

/// What is kept from now on, once what was is loaded.
pub(super) fn start(opened: Opened, settings: Settings) -> (StoreThread, Arc<Bell>) {
    let bell = Arc::new(Bell::default());
    let (store, load) = opened.start("test", settings, bell.wakes()).unwrap();
    load.load(2, &mut |_| {}, &mut |_| {}).unwrap();
    (store, bell)
}

pub(super) fn image(opened: &Opened) -> Plain {
    let (mut image, mut told) = (Plain::default(), Progress::default());
    image.apply_piece(&Piece { worker: 0, changes: opened.values().unwrap() });
    opened.give(2, &mut |piece| image.apply_piece(&piece), &mut |progress| told = progress).unwrap();
    assert_eq!(told.sessions, opened.sessions() as u64);
    image
}

#[test]
fn what_was_kept_comes_back() {
    let place = Place::new();
    let mut writing = Writing::new(11);
    for round in 0..5 {
        let opened = Opened::open(&place.0).unwrap();
        assert_eq!(opened.tail(), None);
        image(&opened).compare(&writing.plain, round);
        let (store, bell) = start(opened, SMALL);
        let mut last = 0;
        for _ in 0..100 {
            last = store.queue().hand_over(1, &mut writing.next());
        }
        bell.wait_until_safe(store.queue(), last);
        store.stop().unwrap();
    }
    let opened = Opened::open(&place.0).unwrap();
    image(&opened).compare(&writing.plain, 5);
    drop(opened);
    // It has been stopped, so that all is in the checkpoint, and nothing of the journal is needed.
    let journals = Directory::open(&place.0).unwrap().names().unwrap();
    assert!(journals.iter().filter(|name| name.ends_with(".journal")).count() <= 1, "{journals:?}");
}

#[test]
fn a_process_that_ends_loses_nothing_that_was_safe() {
    let place = Place::new();
    let mut writing = Writing::new(12);
    let settings = Settings { segment_bytes: Settings::SEGMENT_BYTES, ..SETTINGS };
    let (store, bell) = start(Opened::open(&place.0).unwrap(), settings);
    let mut last = 0;
    for _ in 0..60 {
        last = store.queue().hand_over(0, &mut writing.next());
    }
    bell.wait_until_safe(store.queue(), last);
    // As if the process had ended: what is there now is copied away.
    let copy = Place::new();
    std::fs::create_dir_all(&copy.0).unwrap();
    for entry in std::fs::read_dir(&place.0).unwrap().flatten() {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), copy.0.join(entry.file_name())).unwrap();
        }
    }
    store.stop().unwrap();
    image(&Opened::open(&copy.0).unwrap()).compare(&writing.plain, 12);
    image(&Opened::open(&place.0).unwrap()).compare(&writing.plain, 12);
}

#[test]
fn who_was_killed_while_the_first_checkpoint_was_made_starts_again() {
    let place = Place::new();
    let begun = place.0.join("checkpoint.new");
    std::fs::create_dir_all(&begun).unwrap();
    std::fs::write(begun.join("0.jnl"), b"").unwrap();
    for _ in 0..2 {
        assert_eq!(Opened::open(&place.0).unwrap().sessions(), 0);
        assert!(!begun.exists());
    }
}

#[test]
fn what_a_newer_server_has_written_is_refused() {
    let place = Place::new();
    let (store, _) = start(Opened::open(&place.0).unwrap(), SMALL);
    store.queue().hand_over(0, &mut Writing::new(1).next());
    store.stop().unwrap();
    let database = fjall::Database::builder(place.0.join("checkpoint")).open().unwrap();
    let entries = database.keyspace("kept", fjall::KeyspaceCreateOptions::default).unwrap();
    entries.insert(layout::HEAD_KEY, [2, 0, 0, 0, 9, 9]).unwrap();
    drop((entries, database));
    let error = Opened::open(&place.0).unwrap_err().to_string();
    assert!(error.contains("version 2") && error.contains("reads up to version 1"), "{error}");
}

#[test]
fn changes_that_do_not_fit_together_are_said_with_their_place() {
    let place = Place::new();
    // What was not loaded is not taken into a checkpoint, which would leave out what cannot be.
    let (store, load) = Opened::open(&place.0).unwrap().start("test", SMALL, Arc::<Bell>::default().wakes()).unwrap();
    drop(load);
    let mut journal = Writing::new(1).next();
    let at = journal.len() as u64;
    crate::durable::change::Change::Ended { session: 99 }.encode(&mut journal);
    store.queue().hand_over(0, &mut journal);
    store.stop().unwrap();
    let error = Opened::open(&place.0).unwrap_err().to_string();
    let offset = HEADER_BYTES + 40 + 12 + at;
    assert!(
        error.contains(&format!("0000000001.journal: damaged at byte {offset}: there is no session 99")),
        "{error}"
    );
    assert!(error.contains("host store check --repair"), "{error}");
    // The group goes as a whole, and is set aside.
    let (opened, damage) = Opened::repair(&place.0).unwrap();
    assert_eq!((opened.sessions(), damage.map(|damage| damage.to_string())), (0, Some(error)));
    drop(opened);
    let names = Directory::open(&place.0).unwrap().names().unwrap();
    assert!(names.iter().any(|name| name.ends_with(".cut")), "{names:?}");
    assert_eq!(Opened::open(&place.0).unwrap().sessions(), 0);
}

/// The next checkpoint has what the process before has kept, even if that could not be read as soon as it was there.
#[test]
fn what_could_not_be_read_of_the_process_before_is_read_for_the_next_checkpoint() {
    let (place, mut writing) = (Place::new(), Writing::new(14));
    let (store, bell) = start(Opened::open(&place.0).unwrap(), SMALL);
    let last = (0..50).map(|_| store.queue().hand_over(0, &mut writing.next())).last().unwrap();
    bell.wait_until_safe(store.queue(), last);
    let baton = store.brake().stop(Instant::now() + Duration::from_secs(20)).expect("the disk is there");
    store.stop().unwrap();

    let (directory, bell) = (Directory::open(&place.0).unwrap(), Arc::<Bell>::default());
    let TakenOver { threads, learn } = TakenOver::start(directory, "next", SMALL, baton, bell.wakes()).unwrap();
    drop(learn);
    threads.brake().release();
    let last = (0..50).map(|_| threads.queue().hand_over(0, &mut writing.next())).last().unwrap();
    bell.wait_until_safe(threads.queue(), last);
    threads.stop().unwrap();
    let journals = Directory::open(&place.0).unwrap().names().unwrap();
    assert!(journals.iter().filter(|name| name.ends_with(".journal")).count() <= 1, "{journals:?}");
    image(&Opened::open(&place.0).unwrap()).compare(&writing.plain, 14);
}

/// All files below a directory.
fn files_in(path: &std::path::Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(path).unwrap().flatten() {
        if entry.path().is_dir() { files_in(&entry.path(), found) } else { found.push(entry.path()) }
    }
}

/// One byte is another one, or all that follows is missing: it is found, or is where nothing depends on it.
#[test]
fn damaged_checkpoint_is_refused() {
    let (place, mut writing) = (Place::new(), Writing::new(3));
    super::export::filled(&place, &mut writing, [30, 0]);
    let (mut files, mut refused) = (Vec::new(), Vec::new());
    files_in(&place.0, &mut files);
    let files: Vec<_> = files.iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    for (path, whole) in files.iter().filter(|(path, whole)| !whole.is_empty() && !path.ends_with("lock")) {
        let last = whole.len() - 1;
        for (at, is_cut) in [(0, false), (last / 3, false), (last, false), (last / 2, true), (0, true)] {
            // Whoever reads the others may have repaired them in his way.
            files.iter().for_each(|(path, whole)| std::fs::write(path, whole).unwrap());
            let mut damaged = whole.clone();
            damaged[at] ^= 0x41;
            damaged.truncate(if is_cut { at } else { last + 1 });
            std::fs::write(path, damaged).unwrap();
            match Opened::open(&place.0) {
                Ok(opened) => image(&opened).compare(&writing.plain, 3),
                Err(error) => {
                    refused.push(path);
                    let error = error.to_string();
                    assert!(error.contains("damaged: ") && error.contains("restore a backup"), "{path:?}: {error}");
                }
            }
        }
    }
    // How many files a checkpoint has, and which, is its own affair.
    let beside = refused.iter().filter(|path| !path.starts_with(place.0.join(CHECKPOINT))).count();
    assert!(beside >= 4 && refused.len() > beside, "{refused:?}");
    files.iter().for_each(|(path, whole)| std::fs::write(path, whole).unwrap());
    std::fs::remove_dir_all(place.0.join(CHECKPOINT)).unwrap();
    let error = Opened::open(&place.0).unwrap_err().to_string();
    assert!(error.contains("it goes up to journal 0, and went up to 30 when it was made"), "{error}");
}
