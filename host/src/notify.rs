//! What the program tells the service manager that has started it (sd_notify(3)): when clients can come, and that it ends.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Clients can come.
pub(crate) const READY: &str = "READY=1";

/// No more clients can come; those that are here are told.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// The service goes on in another process.
pub(crate) fn main_pid(pid: u32) -> String {
    format!("MAINPID={pid}")
}

/// Tells it, if somebody wants to be told. Nothing depends on it, so that a failure is only logged.
pub(crate) fn tell(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else { return };
    if let Err(error) = send(path.as_bytes(), state) {
        tracing::warn!(%error, "the service manager could not be told {state} at {}", path.display());
    }
}

fn send(path: &[u8], state: &str) -> io::Result<()> {
    let addr = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not keep us waiting.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &addr).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_by_path_or_abstract_name() {
        let name = format!("host-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let _ = std::fs::remove_file(&path);
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(path.as_os_str().as_bytes(), READY).unwrap();
        send(format!("@{name}").as_bytes(), STOPPING).unwrap();
        for (socket, expected) in [(by_path, READY), (by_name, STOPPING)] {
            let mut got = [0; 100];
            let length = socket.recv(&mut got).unwrap();
            assert_eq!(&got[..length], expected.as_bytes());
        }
        std::fs::remove_file(&path).unwrap();
        assert!(send(path.as_os_str().as_bytes(), READY).is_err());
    }
}
