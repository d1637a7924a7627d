//! File systems of their own, for what happens when there is no room on a disk, or no power. Only root may mount them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::TempDir;

/// Takes the power from an ext4 file system, as far as it can be told: nothing that is not on the disk gets there any more,
/// and everything fails (`EXT4_IOC_SHUTDOWN` without flushing its journal).
const SHUT_DOWN: &str = "import fcntl, os, struct, sys\n\
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";

/// Large enough for a store and little else, and mostly holes.
const IMAGE_BYTES: u64 = 256 << 20;

/// A disk, with one file system on it.
pub(crate) struct Disk {
    at: PathBuf,
    /// What is on it, in a file; `None` for one that is in memory.
    image: Option<PathBuf>,
    _dir: TempDir,
}

impl Disk {
    /// One in memory, with room for so many bytes. `None` if none can be mounted here.
    pub(crate) fn with_room_for(bytes: u64) -> Option<Self> {
        let disk = Self::new("room", None)?;
        disk.mount(&["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).then_some(disk)
    }

    /// Has room for so many bytes from now on.
    pub(crate) fn set_room(&self, bytes: u64) {
        assert!(self.mount(&["-o", &format!("remount,size={bytes}")]), "it was mounted before");
    }

    /// One whose power can go. `None` if none can be mounted here.
    pub(crate) fn with_power() -> Option<Self> {
        if !Command::new("python3").args(["-c", ""]).status().is_ok_and(|status| status.success()) {
            eprintln!("left out, as there is no python3 that could take the power from a disk");
            return None;
        }
        let dir = TempDir::new("image");
        // Tests write much to it, and what is on it is of no use when the machine stops.
        let memory = Path::new("/dev/shm");
        let image = if has_room_for_an_image(memory) {
            memory.join(dir.path().file_name()?)
        } else if has_room_for_an_image(dir.path()) {
            dir.path().join("image")
        } else {
            eprintln!("left out, as there is no room for a disk of {IMAGE_BYTES} bytes here");
            return None;
        };
        std::fs::File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES)).expect("room for holes");
        let disk = Self::new("power", Some(image.clone()))?;
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).status();
        (made.is_ok_and(|status| status.success()) && disk.mount_image()).then_some(disk)
    }

    fn new(name: &str, image: Option<PathBuf>) -> Option<Self> {
        let dir = TempDir::new(name);
        let at = dir.path().join("disk");
        std::fs::create_dir(&at).ok()?;
        Some(Self { at, image, _dir: dir })
    }

    /// Where its files are.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// From now on nothing gets onto the disk, and everything fails.
    pub(crate) fn power_off(&self) {
        let status = Command::new("python3").args(["-c", SHUT_DOWN]).arg(&self.at).status();
        assert!(status.is_ok_and(|status| status.success()), "the file system can be shut down");
    }

    /// What is on the disk is there again. Nobody has a file of it open.
    pub(crate) fn power_on(&self) {
        assert!(self.unmount(), "nobody uses it");
        assert!(self.mount_image(), "it was mounted before");
    }

    fn mount_image(&self) -> bool {
        let image = self.image.as_ref().and_then(|image| image.to_str()).expect("it has one, with a simple name");
        self.mount(&["-o", "loop", image])
    }

    fn mount(&self, args: &[&str]) -> bool {
        let output = Command::new("mount").args(args).arg(&self.at).stdin(Stdio::null()).output();
        let is_mounted = output.as_ref().is_ok_and(|output| output.status.success());
        if !is_mounted {
            eprintln!("left out, as nothing can be mounted here: {output:?}");
        }
        is_mounted
    }

    fn unmount(&self) -> bool {
        Command::new("umount").arg(&self.at).status().is_ok_and(|status| status.success())
    }
}

/// Otherwise its holes could not be filled, and whoever writes to it would find it broken.
fn has_room_for_an_image(directory: &Path) -> bool {
    rustix::fs::statvfs(directory).is_ok_and(|room| room.f_bavail.saturating_mul(room.f_frsize) >= IMAGE_BYTES)
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Who had a file open may just have been killed.
        let _ = self.unmount() || Command::new("umount").arg("-l").arg(&self.at).status().is_ok();
        if let Some(image) = &self.image {
            let _ = std::fs::remove_file(image);
        }
    }
}
