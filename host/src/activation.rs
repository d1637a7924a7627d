//! Socket activation: the listening sockets that systemd passes to the program, as descriptors from 3 on (sd_listen_fds(3)).
#![allow(unsafe_code)] // Descriptors that are known by their number are taken over.

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use host::{Error, PassedSocket};

/// The first descriptor that is passed.
const FIRST: RawFd = 3;

/// More would be a mistake.
const COUNT_MAX: RawFd = 128;

/// The sockets that were passed to this process; none if there are none, or if they are for another process.
///
/// # Errors
/// The environment or a descriptor is not as it has to be.
pub(crate) fn take() -> Result<Vec<PassedSocket>, Error> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let names = read(|name| std::env::var(name).ok(), std::process::id())?;
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    (FIRST..).zip(names).map(|(fd, name)| PassedSocket::new(own(fd)?, name)).collect()
}

/// A name or none for each of the sockets, by what the environment says.
fn read(variable: impl Fn(&str) -> Option<String>, process: u32) -> Result<Vec<Option<String>>, Error> {
    let (Some(pid), Some(count)) = (variable("LISTEN_PID"), variable("LISTEN_FDS")) else { return Ok(Vec::new()) };
    // A process that was started by the one that they are for has its environment, and not its sockets.
    if pid != process.to_string() {
        return Ok(Vec::new());
    }
    let expected = || refused(format!("LISTEN_FDS is `{count}`: expected a number from 0 to {COUNT_MAX}"));
    let count = count.parse().ok().filter(|count| (0..=COUNT_MAX).contains(count)).ok_or_else(expected)?;
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(|name| Some(name.to_owned()).filter(|name| !name.is_empty() && name != "unknown"));
    Ok(names.chain(std::iter::repeat(None)).take(usize::try_from(count).unwrap_or(0)).collect())
}

fn refused(what: String) -> Error {
    Error::Listener { name: "the sockets that systemd passes".to_owned(), what }
}

fn own(fd: RawFd) -> Result<OwnedFd, Error> {
    // SAFETY: it is only looked at, by a call that says whether it is open, while nobody else has been told its number.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let open = rustix::io::fcntl_getfd(borrowed);
    open.map_err(|error| refused(format!("the descriptor {fd} that LISTEN_FDS promises is not open: {error}")))?;
    // SAFETY: it is open, and was before this process began: LISTEN_PID says so, whose value only who has started this very
    // process could know. So nothing in here has opened it, and it is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pid: &str, count: &str, names: Option<&str>) -> Result<Vec<Option<String>>, String> {
        let variable = |name: &str| match name {
            "LISTEN_PID" => Some(pid.to_owned()),
            "LISTEN_FDS" => Some(count.to_owned()),
            "LISTEN_FDNAMES" => names.map(str::to_owned),
            _ => None,
        };
        read(variable, 77).map_err(|error| error.to_string())
    }

    #[test]
    fn environment_says_how_many_there_are_and_how_they_are_called() {
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(names("77", "2", None), Ok(vec![None, None]));
        assert_eq!(names("77", "3", Some("a::unknown")), Ok(vec![named("a"), None, None]));
        assert_eq!(names("77", "2", Some("a")), Ok(vec![named("a"), None]));
        assert_eq!(names("77", "1", Some("a:b")), Ok(vec![named("a")]));
        assert_eq!(names("77", "0", None), Ok(Vec::new()));
        assert_eq!(names("78", "2", None), Ok(Vec::new()), "they are for another process");
        assert_eq!(read(|_| None, 77).unwrap(), Vec::new());
        for count in ["", "two", "-1", "129", "99999999999"] {
            let error = names("77", count, None).unwrap_err();
            assert!(error.contains(&format!("LISTEN_FDS is `{count}`: expected a number from 0 to 128")), "{error}");
        }
    }
}
