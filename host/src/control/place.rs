//! Where a host's control socket is.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::process::geteuid;

use super::error::ControlError;

/// Bytes that the path of a socket may have: the field in the system's address, less the zero at its end.
const PATH_BYTES_MAX: usize = 107;

/// Permissions that somebody else must not have in the directory of a default socket.
const OF_OTHERS: u32 = 0o077;

/// Where the control socket of a server is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Place {
    /// Where a host of this user has it if nothing else was said: `$XDG_RUNTIME_DIR/host.sock`, or
    /// `/tmp/host-<uid>/control.sock` where that variable names no directory of this user's.
    #[default]
    Default,
    /// A path.
    Path(PathBuf),
    /// Nowhere: there is none.
    None,
}

/// A path at which a server may be, and why nobody is to be spoken to there, if that is so.
pub(super) type Candidate = (PathBuf, Result<(), String>);

impl FromStr for Place {
    type Err = String;

    /// Reads `none` or a path.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("expected a path, or none".to_owned()),
            "none" => Ok(Self::None),
            path => Ok(Self::Path(path.into())),
        }
    }
}

impl Place {
    /// The path that a server listens at. Makes the default's directory, for nobody but this user.
    ///
    /// # Errors
    /// The directory cannot be made, or is not this user's alone; the path is too long for a socket.
    pub fn for_server(&self) -> Result<Option<PathBuf>, ControlError> {
        let path = match self {
            Self::None => return Ok(None),
            Self::Path(path) => path.clone(),
            Self::Default => match runtime_dir() {
                Some(dir) => dir.join("host.sock"),
                None => {
                    let dir = temporary_dir();
                    make_private(&dir)?;
                    dir.join("control.sock")
                }
            },
        };
        check_length(&path)?;
        Ok(Some(path))
    }

    /// The paths at which a client looks for a server, in their order. A server that the system has started may not have
    /// the variable that the user's shell has, so that by default there are two.
    pub(super) fn for_client(&self) -> Result<Vec<Candidate>, ControlError> {
        let places = match self {
            Self::None => Vec::new(),
            Self::Path(path) => vec![(path.clone(), Ok(()))],
            Self::Default => {
                let runtime = runtime_dir().map(|dir| (dir.join("host.sock"), Ok(())));
                let temporary = temporary_dir();
                // Somebody else may have made it, to be told what is meant for a host of this user's.
                let check = check_private(&temporary);
                runtime.into_iter().chain([(temporary.join("control.sock"), check)]).collect()
            }
        };
        places.iter().try_for_each(|(path, _)| check_length(path))?;
        Ok(places)
    }
}

/// `$XDG_RUNTIME_DIR`, if it is a directory that only this user can enter. `su` and `sudo` leave that of somebody else there.
fn runtime_dir() -> Option<PathBuf> {
    let dir = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
    let is_private = std::fs::metadata(&dir).is_ok_and(|found| found.is_dir() && is_private(&found));
    (dir.is_absolute() && is_private).then_some(dir)
}

fn temporary_dir() -> PathBuf {
    PathBuf::from(format!("/tmp/host-{}", geteuid().as_raw()))
}

fn is_private(found: &Metadata) -> bool {
    found.uid() == geteuid().as_raw() && found.mode() & OF_OTHERS == 0
}

/// Makes a directory that nobody else can enter. One that is there already has to be such a one, and no link to another:
/// everybody may make names in /tmp.
fn make_private(dir: &Path) -> Result<(), ControlError> {
    let cannot = |reason: String| ControlError::Directory { path: dir.into(), reason };
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_private(dir).map_err(cannot),
        Err(error) => Err(cannot(error.to_string())),
    }
}

/// Checks that nobody else can enter a directory, and has made it. One that is not there will do.
fn check_private(dir: &Path) -> Result<(), String> {
    match std::fs::symlink_metadata(dir) {
        Ok(found) if found.is_dir() && is_private(&found) => Ok(()),
        Ok(found) => Err(format!(
            "{} is there, but is not a directory that only this user (uid {}) can enter: it has uid {} and mode {:o}",
            dir.display(),
            geteuid().as_raw(),
            found.uid(),
            found.mode() & 0o177_777
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn check_length(path: &Path) -> Result<(), ControlError> {
    let bytes = path.as_os_str().len();
    if bytes > PATH_BYTES_MAX {
        return Err(ControlError::TooLong { path: path.into(), bytes, max: PATH_BYTES_MAX });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::control::tests::TempDir;

    #[test]
    fn none_and_paths_are_read() {
        assert_eq!("none".parse(), Ok(Place::None));
        assert_eq!("/run/host.sock".parse(), Ok(Place::Path("/run/host.sock".into())));
        assert_eq!("./none".parse(), Ok(Place::Path("./none".into())));
        assert!("".parse::<Place>().is_err());
    }

    #[test]
    fn directory_is_this_users_alone() {
        let dir = TempDir::new("private");
        let path = dir.path().join("new");
        make_private(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        make_private(&path).unwrap();
        assert_eq!(check_private(&path), Ok(()));
        assert_eq!(check_private(&dir.path().join("missing")), Ok(()));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let error = make_private(&path).unwrap_err().to_string();
        assert!(error.contains("mode 40755") && error.contains("--control PATH"), "{error}");
        // Nor is a command given to whoever listens there.
        assert!(check_private(&path).unwrap_err().contains("mode 40755"));
        // The link's own permissions say nothing about where it leads.
        let link = dir.path().join("link");
        symlink(dir.path(), &link).unwrap();
        assert!(make_private(&link).is_err());
        assert!(check_private(&link).unwrap_err().contains("mode 120777"));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(make_private(&file).is_err());
        if geteuid().is_root() {
            let others = dir.path().join("others");
            DirBuilder::new().mode(0o700).create(&others).unwrap();
            std::os::unix::fs::chown(&others, Some(12_345), None).unwrap();
            assert!(check_private(&others).unwrap_err().contains("it has uid 12345"));
        }
    }

    #[test]
    fn path_that_is_too_long_is_explained() {
        let path = format!("/tmp/{}", "x".repeat(PATH_BYTES_MAX));
        let error = Place::Path(path.into()).for_server().unwrap_err().to_string();
        assert!(error.contains("has 112 bytes") && error.contains("at most 107"), "{error}");
        assert!(Place::Path(format!("/tmp/{}", "x".repeat(PATH_BYTES_MAX - 5)).into()).for_client().is_ok());
    }
}
