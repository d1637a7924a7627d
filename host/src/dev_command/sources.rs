//! Notices that a source was saved.
//!
//! What counts is what can be seen of the files: names, times and sizes. The kernel (inotify) only says when to look; where it
//! cannot, as on some network file systems, there is a look every now and then. So it does not matter how an editor saves, nor
//! what else happens in the folders.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// Folders that are watched at most: more than that is no crate, but a disk.
const FOLDERS_MAX: usize = 10_000;

/// How long it has to be quiet before there is a look: editors write several files at once.
const QUIET: Duration = Duration::from_millis(10);

/// How often that is waited for.
const QUIET_TIMES_MAX: u32 = 30;

/// How long from one look to the next if nothing is heard.
const PAUSE: Duration = Duration::from_secs(1);

/// The same where not everything can be heard.
const PAUSE_WHERE_DEAF: Duration = Duration::from_millis(250);

/// Files that count besides those in the folder of the crate: what was built from, and its configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Named(Arc<Mutex<BTreeSet<PathBuf>>>);

impl Named {
    pub(super) fn set(&self, files: Vec<PathBuf>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = files.into_iter().collect();
    }

    fn get(&self) -> BTreeSet<PathBuf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Saved {
    /// One of the files, for people.
    name: String,
    files: usize,
    /// When the last of them was written; `None` if one has gone.
    at: Option<SystemTime>,
}

impl Saved {
    /// This, and what was saved before.
    pub(super) fn and(self, before: Option<Self>) -> Self {
        let Some(before) = before else { return self };
        Self { files: self.files.max(before.files), at: self.at.max(before.at), ..self }
    }

    /// How long ago that was.
    pub(super) fn age(&self) -> Option<Duration> {
        SystemTime::now().duration_since(self.at?).ok()
    }
}

impl fmt::Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.files {
            0 | 1 => write!(f, "{} has changed", self.name),
            more => write!(f, "{} and {} more have changed", self.name, more - 1),
        }
    }
}

/// The sources of a crate, as they were at the last look.
#[derive(Debug)]
pub(super) struct Sources {
    folder: PathBuf,
    named: Named,
    look: Look,
}

/// What was seen.
#[derive(Debug, Default)]
struct Look {
    /// When a file was written, and its bytes.
    files: BTreeMap<PathBuf, (Option<SystemTime>, u64)>,
    folders: BTreeSet<PathBuf>,
}

impl Sources {
    /// Looks for the first time: what changes from now on counts.
    pub(super) fn new(folder: &Path, named: &Named) -> Self {
        let look = Look::at(folder, &named.get());
        Self { folder: folder.into(), named: named.clone(), look }
    }

    /// Tells on a thread what is saved, until the program ends.
    pub(super) fn watch(mut self, tell: impl Fn(Saved) + Send + 'static) -> io::Result<()> {
        let mut ears = Ears::new();
        let run = move || {
            loop {
                ears.listen_to(&self.look.folders);
                ears.wait();
                if let Some(saved) = self.look_again() {
                    tell(saved);
                }
            }
        };
        std::thread::Builder::new().name("sources".to_owned()).spawn(run).map(drop)
    }

    fn look_again(&mut self) -> Option<Saved> {
        let look = Look::at(&self.folder, &self.named.get());
        let saved = look.since(&self.look, &self.folder);
        self.look = look;
        saved
    }
}

impl Look {
    fn at(folder: &Path, named: &BTreeSet<PathBuf>) -> Self {
        let mut look = Self::default();
        let mut waiting = vec![folder.to_owned()];
        while let Some(folder) = waiting.pop().filter(|_| look.folders.len() < FOLDERS_MAX) {
            look.list(&folder, Some(&mut waiting));
        }
        for file in named {
            look.see(file);
            // A module that is missing comes into the folder of another one.
            if let Some(folder) = file.parent().filter(|folder| !look.folders.contains(*folder)) {
                look.list(folder, None);
            }
        }
        look
    }

    /// Sees the sources in a folder, and tells which others are in it.
    fn list(&mut self, folder: &Path, mut folders: Option<&mut Vec<PathBuf>>) {
        self.folders.insert(folder.into());
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if entry.file_type().is_ok_and(|found| found.is_dir()) {
                let is_source = (!name.starts_with('.') || name == ".cargo") && name != "target";
                // Build directories of other names have it.
                let is_source = is_source && !path.join("CACHEDIR.TAG").exists();
                if let (true, Some(folders)) = (is_source, &mut folders) {
                    folders.push(path);
                }
            } else if is_source(&name) {
                self.see(&path);
            }
        }
    }

    fn see(&mut self, file: &Path) {
        if let Ok(found) = fs::metadata(file) {
            self.files.insert(file.into(), (found.modified().ok(), found.len()));
        }
    }

    /// What differs from an earlier look. What is seen for the first time because nobody has looked there does not.
    fn since(&self, before: &Self, folder: &Path) -> Option<Saved> {
        let was_looked_at = |file: &Path| file.parent().is_some_and(|parent| before.folders.contains(parent));
        let is_new =
            |file: &Path| file.starts_with(folder) || (was_looked_at(file) && is_source(&file.to_string_lossy()));
        let written = self.files.iter().filter(|(file, seen)| match before.files.get(*file) {
            Some(seen_before) => seen_before != *seen,
            None => is_new(file),
        });
        let written: Vec<_> = written.collect();
        let gone = before.files.keys().filter(|file| !self.files.contains_key(*file) && !file.exists());
        let gone: Vec<_> = gone.collect();
        let last = written.iter().max_by_key(|(_, (at, _))| *at);
        let name = last.map(|(file, _)| *file).or_else(|| gone.first().copied())?;
        Some(Saved {
            name: name.strip_prefix(folder).unwrap_or(name).display().to_string(),
            files: written.len() + gone.len(),
            at: last.and_then(|(_, (at, _))| *at),
        })
    }
}

fn is_source(name: &str) -> bool {
    let ends = |end| name.strip_suffix(end).is_some_and(|stem| !stem.is_empty());
    ends(".rs") || ends(".toml") || name == "Cargo.lock" || name == "rust-toolchain"
}

/// How the kernel tells that something has happened in a folder.
struct Ears {
    inotify: Option<OwnedFd>,
    is_deaf: bool,
}

impl Ears {
    fn new() -> Self {
        Self { inotify: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok(), is_deaf: false }
    }

    /// For all of them each time: one that was removed and made anew is another one.
    fn listen_to(&mut self, folders: &BTreeSet<PathBuf>) {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO;
        let Some(inotify) = &self.inotify else { return };
        let hears = |folder: &PathBuf| inotify::add_watch(inotify, folder, flags | WatchFlags::ONLYDIR).is_ok();
        self.is_deaf = !folders.iter().all(hears);
    }

    /// Waits until something has happened, and it is quiet again; or for a time.
    fn wait(&self) {
        let Some(inotify) = self.inotify.as_ref().filter(|_| !self.is_deaf) else {
            std::thread::sleep(PAUSE_WHERE_DEAF);
            return;
        };
        if !hears_within(inotify, PAUSE) {
            return;
        }
        let _ = (0..QUIET_TIMES_MAX).find(|_| {
            forget(inotify);
            !hears_within(inotify, QUIET)
        });
    }
}

fn hears_within(inotify: &OwnedFd, time: Duration) -> bool {
    let timeout = Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
    poll(&mut [PollFd::new(inotify, PollFlags::IN)], Some(&timeout)).is_ok_and(|count| count > 0)
}

/// What exactly has happened is seen by looking.
fn forget(inotify: &OwnedFd) {
    let mut bytes = [0; 4096];
    while rustix::io::read(inotify, &mut bytes).is_ok_and(|count| count > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that goes when the test ends.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("host-dev-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("src")).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn sources_that_are_saved_are_seen_and_nothing_else() {
        let crate_ = Folder::new("sources");
        crate_.write("src/lib.rs", "1");
        crate_.write("Cargo.toml", "1");
        let mut sources = Sources::new(&crate_.0, &Named::default());
        let mut seen = |name: &str, text: &str| {
            crate_.write(name, text);
            sources.look_again().map(|saved| saved.to_string())
        };
        assert_eq!(seen("src/lib.rs", "22").as_deref(), Some("src/lib.rs has changed"));
        assert_eq!(seen("src/deep/er.rs", "").as_deref(), Some("src/deep/er.rs has changed"));
        assert_eq!(seen("Cargo.toml", "22").as_deref(), Some("Cargo.toml has changed"));
        for other in ["notes.txt", "src/.lib.rs.swp", "target/debug/build/x/out.rs", ".git/x.rs", "src/.rs"] {
            assert_eq!(seen(other, "22"), None, "{other}");
        }
        crate_.write("build/CACHEDIR.TAG", "");
        assert_eq!(seen("build/out.rs", ""), None);
        fs::remove_file(crate_.0.join("src/lib.rs")).unwrap();
        assert_eq!(seen("src/deep/er.rs", "22").as_deref(), Some("src/deep/er.rs and 1 more have changed"));
        assert_eq!(sources.look_again(), None);
    }

    #[test]
    fn files_that_are_named_count_wherever_they_are_once_they_change() {
        let (crate_, other) = (Folder::new("named"), Folder::new("named-other"));
        other.write("src/lib.rs", "1");
        other.write("my.json", "1");
        let named = Named::default();
        let mut sources = Sources::new(&crate_.0, &named);
        named.set(vec![other.0.join("src/lib.rs"), other.0.join("my.json")]);
        assert_eq!(sources.look_again(), None, "nobody has looked there");
        other.write("my.json", "22");
        other.write("their.json", "1");
        assert!(sources.look_again().is_some_and(|saved| saved.files == 1 && saved.name.ends_with("my.json")));
        // A module that was missing.
        other.write("src/new.rs", "1");
        assert!(sources.look_again().is_some_and(|saved| saved.name.ends_with("src/new.rs")));
        named.set(Vec::new());
        assert_eq!(sources.look_again(), None, "they are not gone, but not named any more");
    }

    #[test]
    fn saves_are_told_by_the_thread_however_they_come_about() {
        let crate_ = Folder::new("thread");
        crate_.write("src/lib.rs", "1");
        let (sender, saved) = std::sync::mpsc::channel();
        Sources::new(&crate_.0, &Named::default()).watch(move |saved| drop(sender.send(saved))).unwrap();
        let next = || saved.recv_timeout(Duration::from_secs(60)).expect("it is told").name;
        crate_.write("src/lib.rs", "22");
        assert_eq!(next(), "src/lib.rs");
        // As many editors do it.
        crate_.write("src/.lib.rs.new", "333");
        fs::rename(crate_.0.join("src/.lib.rs.new"), crate_.0.join("src/lib.rs")).unwrap();
        assert_eq!(next(), "src/lib.rs");
        crate_.write("src/new/folder.rs", "");
        assert_eq!(next(), "src/new/folder.rs");
    }
}
