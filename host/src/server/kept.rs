//! What outlives the server: brought back before anybody is let in, and put away when the workers have ended.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use crate::clock::WallMillis;
use crate::data_dir::DataDir;
use crate::durable::queue::Wake;
use crate::durable::store::{Durability, Load, Piece, Progress, Store};
use crate::error::Error;
use crate::io::worker::Restoring;
use crate::plugin::Services;
use crate::store::disk::Directory;
use crate::store::{self, Baton, Brake, Learn, Settings, StoreThread, TakenOver};

/// Pieces that wait for one worker while it applies another.
const PIECES_WAITING: usize = 4;

/// Between two lines about how far it has come.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Where what outlives the server is kept, and when it is safe.
#[derive(Debug, Clone)]
pub(super) struct Where {
    pub(super) data_dir: Option<PathBuf>,
    pub(super) durability: Durability,
    /// A segment is full that has so many bytes.
    pub(super) segment_bytes: u64,
}

/// Told how far loading has come.
pub(super) type OnProgress = Box<dyn Fn(&Progress) + Send + Sync>;

/// A store that runs, and what it has kept.
pub(super) type Opened = (Kept, Box<dyn Load>);

/// The store of a server that runs.
pub(super) struct Kept {
    threads: StoreThread,
    /// It has nobody else until the store has ended, unless it was given to another process.
    dir: DataDir,
}

/// A directory that another process has, whose store this one goes on with.
pub(crate) struct Claim {
    dir: DataDir,
    files: Directory,
    name: String,
    settings: Settings,
    wake: Vec<Wake>,
}

impl Where {
    /// Opens the store, if there is to be one. `wake` wakes the workers.
    pub(super) fn open(self, name: &str, wake: Vec<Wake>) -> Result<Option<Opened>, Error> {
        let Some((path, settings)) = self.settle(&wake) else { return Ok(None) };
        let dir = DataDir::take(&path).map_err(|error| Error::Store { what: error.to_string() })?;
        let failed = |error: &dyn std::fmt::Display| Error::Store { what: error.to_string() };
        let opened = store::Opened::open(dir.path()).map_err(|error| failed(&error))?;
        if let Some(migrated) = opened.migrated() {
            tracing::info!("what an older host has kept was migrated {migrated}");
        }
        if let Some(tail) = opened.tail() {
            tracing::warn!(
                "cut off what was being written when the last server ended, and was promised to nobody: {tail}"
            );
        }
        let (threads, load) = opened.start(name, settings, wake).map_err(|error| failed(&error))?;
        Ok(Some((Kept { threads, dir }, load)))
    }

    /// Goes on with the store of another process, if there is to be one: `lock` is that of its directory, if it has one.
    pub(super) fn claim(self, name: &str, wake: Vec<Wake>, lock: Option<OwnedFd>) -> Result<Option<Claim>, Error> {
        let failed = |what: String| Error::Store { what };
        match (self.settle(&wake), lock) {
            (None, None) => Ok(None),
            (Some((path, settings)), Some(lock)) => {
                let dir = DataDir::inherit(&path, lock).map_err(|error| failed(error.to_string()))?;
                let files = Directory::open(path).map_err(|error| failed(error.to_string()))?;
                Ok(Some(Claim { dir, files, name: name.to_owned(), settings, wake }))
            }
            (None, Some(_)) => Err(failed(
                "the process before keeps its sessions in a data directory, and this one would not: expected the same \
                 --data-dir, and a --durability other than none; stop the host and start it again instead"
                    .to_owned(),
            )),
            (Some((path, _)), None) => Err(failed(format!(
                "the process before keeps nothing, and this one would keep its sessions in {}: stop the host and start it \
                 again instead",
                path.display()
            ))),
        }
    }

    /// Where and how something is to be kept, if it is.
    fn settle(self, wake: &[Wake]) -> Option<(PathBuf, Settings)> {
        let path = self.data_dir?;
        if self.durability == Durability::None {
            tracing::info!("nothing is kept in {}: durability is none", path.display());
            return None;
        }
        let workers = u32::try_from(wake.len()).expect("a server has few workers");
        let fsync = self.durability == Durability::Fsync;
        Some((path, Settings { fsync, workers, segment_bytes: self.segment_bytes }))
    }
}

impl Claim {
    /// Goes on where the other process has stopped. Nothing is written before it [begins](Kept::begin).
    pub(super) fn take_over(self, baton: Baton) -> Result<(Kept, Learn), String> {
        let Self { dir, files, name, settings, wake } = self;
        let taken = TakenOver::start(files, &name, settings, baton, wake);
        let TakenOver { threads, learn } = taken.map_err(|error| format!("{}: {error}", dir.path().display()))?;
        Ok((Kept { threads, dir }, learn))
    }
}

impl Kept {
    pub(super) fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.threads.queue()) as _
    }

    /// Gives plugins back what they keep by keys, before they are loaded.
    pub(super) fn give_values(&self, load: &mut dyn Load, services: &Services, workers: usize) -> Result<(), Error> {
        let values = load.values().map_err(|error| Error::Store { what: error.to_string() })?;
        let workers = u16::try_from(workers).expect("a server has few workers");
        services.keep_in(self.store(), workers, &values).map_err(|error| Error::Store { what: error.to_string() })
    }

    /// How another process comes to go on with it.
    pub(super) fn brake(&self) -> Brake {
        self.threads.brake()
    }

    /// The lock of the directory, for that process.
    pub(super) fn lock(&self) -> io::Result<OwnedFd> {
        self.dir.lock().try_clone_to_owned()
    }

    /// It is this process that has the directory now, and writes.
    pub(super) fn begin(&mut self) {
        self.brake().release();
        self.dir.sign_anew();
    }

    /// Writes what was handed over, and ends. The workers have.
    pub(super) fn close(self) -> Result<(), Error> {
        self.threads.stop().map_err(|error| {
            tracing::error!("{error}");
            Error::NotKept { what: error.to_string() }
        })
    }
}

/// Both ends of what goes to the workers while the server starts.
pub(super) struct Loading {
    pieces: Vec<SyncSender<Vec<u8>>>,
    done: Receiver<Result<Vec<u8>, String>>,
    go_on: Vec<Sender<()>>,
}

impl Loading {
    /// What each worker has to have in order to apply what was kept.
    pub(super) fn new(workers: usize, zero: WallMillis) -> (Self, Vec<Restoring>) {
        let (say, done) = channel();
        let (mut all_pieces, mut all_go_on, mut restoring) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..workers {
            let (pieces, waiting) = sync_channel(PIECES_WAITING);
            let (tell, go_on) = channel();
            restoring.push(Restoring { pieces: waiting, zero, done: say.clone(), go_on });
            all_pieces.push(pieces);
            all_go_on.push(tell);
        }
        (Self { pieces: all_pieces, done, go_on: all_go_on }, restoring)
    }

    /// Gives the workers what was kept, and waits until they have applied it.
    pub(super) fn run(
        self,
        load: Box<dyn Load>,
        store: &dyn Store,
        on_progress: Option<&OnProgress>,
    ) -> Result<(), Error> {
        let Self { pieces, done, go_on } = self;
        let (workers, began) = (pieces.len(), Instant::now());
        let (mut said, mut last) = (began, Progress::default());
        let mut give = |Piece { worker, changes }: Piece| {
            // A worker that has failed says so below.
            let _ = pieces[worker].send(changes);
        };
        let mut progress = |progress: Progress| {
            last = progress;
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                tracing::info!("loading what was kept: {progress} so far");
                on_progress.inspect(|tell| tell(&progress));
            }
        };
        let loaded = load.load(workers, &mut give, &mut progress);
        drop(pieces);
        loaded.map_err(|error| Error::Store { what: error.to_string() })?;
        let wait_for_all = || {
            let each = (0..workers)
                .map(|_| done.recv().map_err(|_| Error::WorkerFailed)?.map_err(|what| Error::Store { what }));
            let all = each.collect::<Result<Vec<_>, _>>()?;
            Ok::<_, Error>(all.concat())
        };
        // One that has failed says so elsewhere.
        let go_on = || go_on.iter().map(|tell| tell.send(())).for_each(|_said| {});
        wait_for_all()?;
        go_on();
        // What was on its way between workers has come to all who get it, or to none.
        let mut arrived = wait_for_all()?;
        if !arrived.is_empty() {
            store.hand_over(0, &mut arrived);
        }
        go_on();
        tracing::info!("loaded what was kept in {} ms: {last}", began.elapsed().as_millis());
        Ok(())
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::core::RestoreError;
    use crate::durable::store::LoadFailed;
    use crate::durable::store::fake::FakeStore;

    /// Gives so many pieces to the first of two workers.
    struct Pieces(usize);

    impl Load for Pieces {
        fn values(&mut self) -> Result<Vec<u8>, LoadFailed> {
            Ok(Vec::new())
        }

        fn load(
            self: Box<Self>,
            workers: usize,
            give: &mut dyn FnMut(Piece),
            _: &mut dyn FnMut(Progress),
        ) -> Result<(), LoadFailed> {
            assert_eq!(workers, 2);
            (0..self.0).for_each(|_| give(Piece { worker: 0, changes: Vec::new() }));
            Ok(())
        }
    }

    /// More pieces wait for it than there is room for.
    #[test]
    fn worker_that_cannot_apply_what_was_kept_ends_the_start() {
        let refuses: fn(&[u8]) -> Result<(), RestoreError> = |_| Err(RestoreError::At { at: 7, what: "no session" });
        for (restore, said) in [(refuses, "at byte 7: no session"), (|_| panic!("on purpose"), "a worker has panicked")]
        {
            let (loading, restoring) = Loading::new(2, WallMillis(0));
            let threads: Vec<_> = restoring
                .into_iter()
                .map(|restoring| std::thread::spawn(move || assert!(restoring.apply(restore).is_none())))
                .collect();
            let store = FakeStore::default();
            let error = loading.run(Box::new(Pieces(10 * PIECES_WAITING)), &store, None).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            // The other one hears that there is no start.
            threads.into_iter().for_each(|thread| drop(thread.join()));
        }
    }
}
