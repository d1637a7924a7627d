//! Files that a configuration names: read whole and bounded, and watched.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use plugin_api::config::ConfigError;

/// The most bytes that a file may have.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// How often files are looked at. A change counts once it has stood for as long, so that half a file is not read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Reads a file of text.
///
/// # Errors
/// It cannot be read, is too large, or is not UTF-8; `field` is its place in the configuration.
pub fn read(path: &Path, field: &str) -> Result<String, ConfigError> {
    let wrong = |problem: String| ConfigError::new(field, format!("{}: {problem}", path.display()));
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(wrong(format!("it is too large, expected at most {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Looks at files, on a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

/// What tells one version of a file from the next.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Mark {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

/// What a set of files looked like; taken before they are read, so that no change is missed.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Seen {
    files: Vec<PathBuf>,
    marks: Vec<Option<Mark>>,
}

impl Seen {
    /// Looks at the files now.
    #[must_use]
    pub fn now(files: Vec<PathBuf>) -> Self {
        let mark = |metadata: Metadata| Mark {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        let marks = files.iter().map(|file| fs::metadata(file).ok().map(mark)).collect();
        Self { files, marks }
    }
}

impl Watch {
    /// Calls `changed` when one of the files is another one than was seen. `None` if there are no files.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(seen: Seen, changed: impl FnMut() + Send + 'static) -> std::io::Result<Option<Self>> {
        if seen.files.is_empty() {
            return Ok(None);
        }
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::clone(&stop);
        let thread =
            std::thread::Builder::new().name("watch-files".into()).spawn(move || look(seen, &stopped, changed))?;
        Ok(Some(Self { stop, thread: Some(thread) }))
    }
}

fn look(mut seen: Seen, stop: &(Mutex<bool>, Condvar), mut changed: impl FnMut()) {
    let mut before = seen.clone();
    while !wait(stop) {
        let now = Seen::now(seen.files.clone());
        let is_settled = now == before;
        before = now;
        if is_settled && before != seen {
            seen = before.clone();
            changed();
        }
    }
}

/// Waits until it is time to look again; whether to stop instead.
fn wait((stop, woken): &(Mutex<bool>, Condvar)) -> bool {
    let stop = stop.lock().unwrap_or_else(PoisonError::into_inner);
    *woken.wait_timeout_while(stop, LOOK_EVERY, |stop| !*stop).unwrap_or_else(PoisonError::into_inner).0
}

/// Waits for a call of `changed` that runs: nothing is watched any more when this has returned.
impl Drop for Watch {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic in it has been logged by the library's hook.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn dir() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("plugin-support-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        dir
    }

    #[test]
    fn changes_are_told_and_nothing_else() {
        let file = dir().join("watched");
        fs::write(&file, "1").expect("written");
        let seen = Seen::now(vec![file.clone()]);
        let (sender, told) = mpsc::channel();
        let read = file.clone();
        let changed = move || sender.send(fs::read_to_string(&read).unwrap_or_default()).expect("it is waited for");
        let watch = Watch::start(seen, changed).expect("a thread").expect("a file");
        for content in ["22", "333"] {
            // As editors do it, and in place.
            let other = dir().join("other");
            fs::write(&other, content).expect("written");
            fs::rename(&other, &file).expect("renamed");
            assert_eq!(told.recv_timeout(Duration::from_secs(60)).as_deref(), Ok(content));
        }
        fs::write(&file, "4444").expect("written");
        assert_eq!(told.recv_timeout(Duration::from_secs(60)).as_deref(), Ok("4444"));
        drop(watch);
        assert!(told.try_recv().is_err(), "it was told once for each change");
        assert!(Watch::start(Seen::now(Vec::new()), || {}).expect("no thread").is_none());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let file = dir().join("binary");
        fs::write(&file, [0xff, 0xfe]).expect("written");
        for (path, problem) in [(file, "UTF-8"), (dir().join("none"), "No such file"), (dir(), "directory")] {
            let error = read(&path, "acl_file").expect_err("not readable");
            assert_eq!(error.path(), "acl_file");
            let error = error.to_string();
            assert!(error.contains(problem) && error.contains(&path.display().to_string()), "{error}");
        }
    }
}
