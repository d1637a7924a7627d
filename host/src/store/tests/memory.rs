//! A disk in memory: it fails when it is told to, and loses what a real one may lose when the power goes.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use rustix::io::Errno;

use crate::store::disk::{Disk, DiskFile};

/// What a disk writes at once.
const BLOCK_BYTES: usize = 64;

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Half of what was to be written is, and it is said that it is half.
    Short,
    /// There is room for half of it only.
    NoSpace,
    /// The disk says no.
    Error,
    /// The machine stops in the middle of it: this one is done by half, and no other one any more.
    Stop,
}

/// Fails these operations, by their number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) fault: Fault,
    pub(super) from: usize,
    pub(super) times: usize,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    /// As the processes see it.
    cached: Vec<u8>,
    /// As the disk has it.
    stored: Vec<u8>,
    /// Which blocks the operating system has still to write.
    dirty: BTreeMap<usize, ()>,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    /// By name, as the processes see it; and how it was after each change since the disk had it.
    names: BTreeMap<String, usize>,
    history: Vec<BTreeMap<String, usize>>,
    operations: usize,
    plan: Option<Plan>,
}

/// See the module. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(Arc<Mutex<State>>, Arc<Gate>);

/// Holds up who syncs a file, while a test wants it to, and counts them.
#[derive(Debug, Default)]
struct Gate {
    passed: Mutex<Passed>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Passed {
    is_shut: bool,
    arrived: usize,
}

/// A number below `bound`, from a seed that goes on.
pub(super) fn random(seed: &mut u64, bound: usize) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*seed >> 33).unwrap() % bound
}

impl Memory {
    pub(super) fn failing(plan: Option<Plan>) -> Self {
        let disk = Self::default();
        disk.state().plan = plan;
        disk
    }

    pub(super) fn set_plan(&self, plan: Option<Plan>) {
        self.state().plan = plan;
    }

    /// How many operations there were that could have failed.
    pub(super) fn operations(&self) -> usize {
        self.state().operations
    }

    /// Another disk, with what processes see of this one. What was not synced is still not.
    pub(super) fn after_kill(&self) -> Self {
        let state = self.state();
        let (inodes, names, history) = (state.inodes.clone(), state.names.clone(), state.history.clone());
        Self(Arc::new(Mutex::new(State { inodes, names, history, ..State::default() })), Arc::default())
    }

    /// Another disk, with what may be left of this one when the power has gone: of what was not synced each block may have
    /// been written or not.
    pub(super) fn after_power_loss(&self, seed: &mut u64) -> Self {
        let state = self.state();
        let mut inodes = state.inodes.clone();
        for inode in &mut inodes {
            let mut left = std::mem::take(&mut inode.stored);
            for (block, ()) in std::mem::take(&mut inode.dirty) {
                let range = block * BLOCK_BYTES..((block + 1) * BLOCK_BYTES).min(inode.cached.len());
                if range.is_empty() || random(seed, 2) == 0 {
                    continue;
                }
                left.resize(left.len().max(range.end), 0);
                left[range.clone()].copy_from_slice(&inode.cached[range]);
            }
            inode.cached.clone_from(&left);
            inode.stored = left;
        }
        // Names are written in the order in which they have changed.
        let at = random(seed, state.history.len() + 1);
        let names = state.history.get(at).unwrap_or(&state.names).clone();
        Self(Arc::new(Mutex::new(State { inodes, names, ..State::default() })), Arc::default())
    }

    /// Has files synced from now on only if it is not shut.
    pub(super) fn shut_gate(&self, is_shut: bool) {
        self.1.passed.lock().unwrap().is_shut = is_shut;
        self.1.changed.notify_all();
    }

    /// How often files were synced, or are about to be.
    pub(super) fn syncs(&self) -> usize {
        self.1.passed.lock().unwrap().arrived
    }

    /// Waits until files have been synced so often, or are about to be.
    pub(super) fn wait_for_syncs(&self, syncs: usize) {
        let passed = self.1.passed.lock().unwrap();
        drop(self.1.changed.wait_while(passed, |passed| passed.arrived < syncs).unwrap());
    }

    fn pass_gate(&self) {
        let mut passed = self.1.passed.lock().unwrap();
        passed.arrived += 1;
        self.1.changed.notify_all();
        drop(self.1.changed.wait_while(passed, |passed| passed.is_shut).unwrap());
    }

    /// Changes a byte of a file.
    pub(super) fn damage(&self, name: &str, at: usize) {
        let mut state = self.state();
        let inode = state.names[name];
        state.inodes[inode].cached[at] ^= 0x40;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    /// Counts an operation, and says how it fails.
    fn begin(&mut self) -> Option<Fault> {
        let number = self.operations;
        self.operations += 1;
        let plan = self.plan?;
        let is_now = match plan.fault {
            Fault::Stop if number > plan.from => return Some(Fault::Error),
            Fault::Stop => number == plan.from,
            _ => (plan.from..plan.from + plan.times).contains(&number),
        };
        is_now.then_some(plan.fault)
    }

    /// For what cannot be done by half.
    fn begin_whole(&mut self) -> io::Result<()> {
        match self.begin() {
            None | Some(Fault::Short) => Ok(()),
            Some(Fault::NoSpace) => Err(Errno::NOSPC.into()),
            Some(Fault::Error | Fault::Stop) => Err(Errno::IO.into()),
        }
    }

    fn rename_all(&mut self, change: impl FnOnce(&mut BTreeMap<String, usize>)) {
        self.history.push(self.names.clone());
        change(&mut self.names);
    }
}

impl Inode {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        self.touch(self.cached.len().min(offset), end);
        self.cached.resize(self.cached.len().max(end), 0);
        self.cached[offset..end].copy_from_slice(bytes);
    }

    fn touch(&mut self, from: usize, to: usize) {
        self.dirty.extend((from / BLOCK_BYTES..to.div_ceil(BLOCK_BYTES)).map(|block| (block, ())));
    }
}

impl Disk for Memory {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.begin_whole()?;
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.rename_all(|names| _ = names.insert(name.to_owned(), inode));
        Ok(Box::new(Opened { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let inode = *self.state().names.get(name).ok_or(Errno::NOENT)?;
        Ok(Box::new(Opened { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.begin_whole()?;
        let inode = *state.names.get(from).ok_or(Errno::NOENT)?;
        state.rename_all(|names| {
            names.remove(from);
            names.insert(to.to_owned(), inode);
        });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.begin_whole()?;
        state.names.get(name).ok_or(Errno::NOENT)?;
        state.rename_all(|names| _ = names.remove(name));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.begin_whole()?;
        state.history.clear();
        Ok(())
    }

    fn path_of(&self, name: &str) -> PathBuf {
        PathBuf::from("memory").join(name)
    }
}

struct Opened {
    disk: Memory,
    inode: usize,
}

impl DiskFile for Opened {
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let fault = state.begin();
        let inode = &mut state.inodes[self.inode];
        let written = match fault {
            None => bytes.len(),
            Some(Fault::Error) => 0,
            Some(_) => bytes.len().div_ceil(2),
        };
        inode.write(&bytes[..written], usize::try_from(offset).unwrap());
        match fault {
            None | Some(Fault::Short) => Ok(written),
            Some(Fault::NoSpace) => Err(Errno::NOSPC.into()),
            Some(Fault::Error | Fault::Stop) => Err(Errno::IO.into()),
        }
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let left = state.inodes[self.inode].cached.get(usize::try_from(offset).unwrap()..).unwrap_or(&[]);
        let read = left.len().min(into.len());
        into[..read].copy_from_slice(&left[..read]);
        Ok(read)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].cached.len() as u64)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.begin_whole()?;
        let inode = &mut state.inodes[self.inode];
        inode.cached.truncate(usize::try_from(length).unwrap());
        // That a file has become shorter is noted in order with what is synced later; until then it may come back.
        inode.touch(inode.cached.len(), inode.cached.len() + 1);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.pass_gate();
        let mut state = self.disk.state();
        let is_stopped = state.plan.is_some_and(|plan| plan.fault == Fault::Stop && state.operations >= plan.from);
        let outcome = state.begin_whole();
        if is_stopped {
            // Nobody has tried.
            return outcome;
        }
        let inode = &mut state.inodes[self.inode];
        // As Linux has it: what could not be written is not tried again, and the next call does not tell.
        let dirty = std::mem::take(&mut inode.dirty);
        match outcome {
            Ok(()) if dirty.is_empty() => Ok(()),
            Ok(()) => {
                for (block, ()) in dirty {
                    let range = block * BLOCK_BYTES..((block + 1) * BLOCK_BYTES).min(inode.cached.len());
                    if !range.is_empty() {
                        inode.stored.resize(inode.stored.len().max(range.end), 0);
                        inode.stored[range.clone()].copy_from_slice(&inode.cached[range]);
                    }
                }
                inode.stored.truncate(inode.cached.len());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
