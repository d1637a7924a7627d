//! The user that the server goes on as, once it has opened what only root may open.
//!
//! The change is of the whole process, all its threads, and for good: user and group, real, effective and saved, and the
//! groups that the user is in besides. It is checked that there is no way back.

use std::ffi::CString;
use std::fmt;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getresgid, getresuid, initgroups, setresgid, setresuid};
use rustix::thread::set_no_new_privs;

/// Why a server does not go on as another user. It has not started.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrivilegesError {
    /// There is no such user.
    Unknown {
        /// The name.
        name: String,
    },
    /// The user is root.
    IsRoot {
        /// The name.
        name: String,
    },
    /// Only root can become another user.
    NotRoot {
        /// The name.
        name: String,
        /// The user that the process has.
        uid: u32,
    },
    /// The operating system refused a step.
    System {
        /// What was to be done.
        what: &'static str,
        /// What it says.
        reason: String,
    },
    /// Afterwards the process can still become root, or is still in part the user that it was.
    WayBack {
        /// The name.
        name: String,
    },
}

impl fmt::Display for PrivilegesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name } => {
                write!(f, "there is no user `{name}`: make one (`useradd --system {name}`), or name another")
            }
            Self::IsRoot { name } => write!(
                f,
                "the user `{name}` is root, which host was to leave: name a user of its own, or leave --user out"
            ),
            Self::NotRoot { name, uid } => write!(
                f,
                "only root can become `{name}`, and host was started with uid {uid}: start it as root, or as `{name}` \
                 without --user"
            ),
            Self::System { what, reason } => write!(f, "cannot {what}: {reason}"),
            Self::WayBack { name } => write!(
                f,
                "as `{name}`, the process could still become another user: is it started with the capability CAP_SETUID \
                 kept (SECBIT_KEEP_CAPS, SECBIT_NO_SETUID_FIXUP)? Expected that there is no way back"
            ),
        }
    }
}

impl std::error::Error for PrivilegesError {}

/// Whether the process may do everything.
#[must_use]
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Whom files belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Whose the files are to be that this process makes before it becomes that user. `None` where it is not root, and so cannot
/// give anything away.
///
/// # Errors
/// There is no such user, or it is root.
pub(crate) fn owner(name: &str) -> Result<Option<Owner>, PrivilegesError> {
    let user = find(name)?;
    Ok(is_root().then(|| Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
}

/// Looks a user up whom a process could become that is started as root.
///
/// # Errors
/// There is no such user, or it is root.
pub fn check_user(name: &str) -> Result<(), PrivilegesError> {
    find(name).map(drop)
}

fn find(name: &str) -> Result<User, PrivilegesError> {
    let named = |make: fn(String) -> PrivilegesError| make(name.to_owned());
    let user = User::from_name(name).map_err(|errno| failed("look the user up", errno))?;
    let user = user.ok_or_else(|| named(|name| PrivilegesError::Unknown { name }))?;
    if user.uid.is_root() {
        return Err(named(|name| PrivilegesError::IsRoot { name }));
    }
    Ok(user)
}

/// Makes the process, all threads of it, that user's; this thread and those that it begins gain nothing from programs with
/// special rights either ([`gain_nothing`]). Does nothing if it is that user's already.
///
/// # Errors
/// There is no such user, or it is root; the process may not, or could go back.
pub fn become_user(name: &str) -> Result<(), PrivilegesError> {
    let named = |make: fn(String) -> PrivilegesError| make(name.to_owned());
    let user = find(name)?;
    let uids = getresuid().map_err(|errno| failed("find out the user", errno))?;
    if [uids.real, uids.effective, uids.saved] != [user.uid; 3] {
        if !uids.effective.is_root() {
            return Err(PrivilegesError::NotRoot { name: name.to_owned(), uid: uids.effective.as_raw() });
        }
        let text = CString::new(name).map_err(|_| named(|name| PrivilegesError::Unknown { name }))?;
        // Groups first: afterwards it may not change them.
        initgroups(&text, user.gid).map_err(|errno| failed("take the groups of the user", errno))?;
        setresgid(user.gid, user.gid, user.gid).map_err(|errno| failed("take the group of the user", errno))?;
        setresuid(user.uid, user.uid, user.uid).map_err(|errno| failed("become the user", errno))?;
        if has_way_back(&user)? {
            return Err(named(|name| PrivilegesError::WayBack { name }));
        }
    }
    gain_nothing()
}

/// This thread, and those that it begins, gain nothing from programs with special rights from now on. Unlike the user, this is
/// each thread's own affair.
///
/// # Errors
/// The operating system refuses.
pub fn gain_nothing() -> Result<(), PrivilegesError> {
    set_no_new_privs(true).map_err(|errno| PrivilegesError::System {
        what: "give up the rights of programs with special ones (no_new_privs)",
        reason: errno.to_string(),
    })
}

/// Whether something is left of root, or can be had back: that is tried.
fn has_way_back(user: &User) -> Result<bool, PrivilegesError> {
    let (root, roots) = (Uid::from_raw(0), Gid::from_raw(0));
    let regained = setresuid(root, root, root).is_ok() || user.gid != roots && setresgid(roots, roots, roots).is_ok();
    let uids = getresuid().map_err(|errno| failed("find out the user", errno))?;
    let gids = getresgid().map_err(|errno| failed("find out the group", errno))?;
    let uids = [uids.real, uids.effective, uids.saved];
    let gids = [gids.real, gids.effective, gids.saved];
    Ok(regained || uids != [user.uid; 3] || gids != [user.gid; 3])
}

fn failed(what: &'static str, errno: Errno) -> PrivilegesError {
    PrivilegesError::System { what, reason: errno.desc().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What changes nothing can be tested in this process; the rest is in `tests/it/security.rs`.
    #[test]
    fn users_that_are_none_are_refused_and_nothing_changes() {
        for (name, expected) in
            [("no-such-user-here", "no user `no-such-user-here`"), ("root", "is root"), ("a\0b", "")]
        {
            let error = become_user(name).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let me = Uid::effective();
        if !me.is_root() {
            let error = become_user("nobody").unwrap_err();
            assert_eq!(error, PrivilegesError::NotRoot { name: "nobody".to_owned(), uid: me.as_raw() });
        }
        assert_eq!(Uid::effective(), me);
    }
}
