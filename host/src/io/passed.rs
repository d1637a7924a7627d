//! Listening sockets that somebody else has opened for the server, as systemd does.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType, sockopt};

use crate::error::Error;
use crate::listener::{ListenerConfig, ListenerUrl, Place, Scheme};

/// A listening socket that was opened before the server was there: a restart leaves it open, so that nobody is refused
/// meanwhile, and its port may be one that the server's user could not have.
///
/// It takes the place of the one that a listener would open: of the listener that has its name, else of the one whose URL has
/// its address. Where no listener was asked for, it is one, of `tcp://` or `unix:`.
#[derive(Debug)]
pub struct PassedSocket {
    pub(super) fd: OwnedFd,
    name: Option<String>,
    pub(super) place: Place,
    pub(super) origin: Origin,
}

/// Who has opened a socket that was passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Somebody who goes on having it.
    Elsewhere,
    /// The process whose place this one takes, for a listener with this URL. Whether the name of a Unix socket goes with it.
    Predecessor { asked: ListenerUrl, owns_name: bool },
}

impl PassedSocket {
    /// A socket that listens at an address or a path, and a name for it.
    ///
    /// # Errors
    /// It does not listen, or for something else than streams over IPv4, IPv6 or a path of a Unix socket.
    pub fn new(fd: impl Into<OwnedFd>, name: Option<String>) -> Result<Self, Error> {
        let fd = fd.into();
        let what = || {
            format!("the socket that was passed{}", name.as_ref().map_or(String::new(), |name| format!(" as {name}")))
        };
        let refuse = |why: String| Error::Listener { name: what(), what: why };
        let failed =
            |error: rustix::io::Errno| refuse(format!("it cannot be looked at: {error}. Expected a listening socket"));
        if sockopt::socket_type(&fd).map_err(failed)? != SocketType::STREAM {
            return Err(refuse("it takes datagrams: expected one of streams, ListenStream= for systemd".to_owned()));
        }
        if !sockopt::socket_acceptconn(&fd).map_err(failed)? {
            let why = "it does not listen: expected a listening socket, without Accept=yes for systemd";
            return Err(refuse(why.to_owned()));
        }
        let place = place(&fd).map_err(|error| refuse(error.to_string()))?;
        fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(failed)?;
        let flags = fcntl_getfl(&fd).map_err(failed)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK).map_err(failed)?;
        Ok(Self { fd, name, place, origin: Origin::Elsewhere })
    }

    /// A socket of the process whose place this one takes: of a listener with this name and this URL.
    ///
    /// # Errors
    /// It is not what it is said to be.
    pub(crate) fn inherited(
        fd: OwnedFd,
        name: Option<String>,
        asked: ListenerUrl,
        owns_name: bool,
    ) -> Result<Self, Error> {
        let of_packets = asked.scheme == Scheme::Quic;
        let mut socket = match of_packets {
            true => {
                let refuse = |why: io::Error| Error::Listener { name: asked.to_string(), what: why.to_string() };
                let place = place(&fd).map_err(refuse)?;
                Self { fd, name, place, origin: Origin::Elsewhere }
            }
            false => Self::new(fd, name)?,
        };
        socket.origin = Origin::Predecessor { asked, owns_name };
        Ok(socket)
    }

    /// Whether a listener with these settings had it before.
    fn was_for(&self, config: &ListenerConfig) -> bool {
        let Origin::Predecessor { asked, .. } = &self.origin else { return false };
        let takes_packets = |scheme| scheme == Scheme::Quic;
        let is_there = asked.place == config.url.place || self.place == config.url.place;
        is_there && takes_packets(asked.scheme) == takes_packets(config.url.scheme)
    }

    /// The listener that it is where none was asked for.
    pub(crate) fn listener(&self) -> ListenerConfig {
        if let Origin::Predecessor { asked, .. } = &self.origin {
            return ListenerConfig::new(asked.clone());
        }
        ListenerConfig::new(ListenerUrl::plain(self.place.clone()))
    }
}

impl fmt::Display for PassedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Address(addr) => addr.fmt(f)?,
            Place::Path(path) => write!(f, "unix:{}", path.display())?,
        }
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

fn place(fd: &OwnedFd) -> io::Result<Place> {
    let addr = net::getsockname(fd)?;
    match addr.address_family() {
        AddressFamily::INET | AddressFamily::INET6 => Ok(Place::Address(SocketAddr::try_from(addr)?)),
        AddressFamily::UNIX => {
            let addr = SocketAddrUnix::try_from(addr)?;
            let path =
                addr.path_bytes().ok_or_else(|| io::Error::other("it has no path, but an abstract name or none"))?;
            Ok(Place::Path(PathBuf::from(OsStr::from_bytes(path))))
        }
        other => Err(io::Error::other(format!("it is of the family {}: expected IPv4, IPv6 or Unix", other.as_raw()))),
    }
}

/// Gives each socket to the listener that it is for. Where no listener was asked for, each is one.
///
/// # Errors
/// A socket is for none of them, or for one that is of another kind.
pub(crate) fn deal_out(
    mut configs: Vec<ListenerConfig>,
    mut sockets: Vec<PassedSocket>,
) -> Result<Vec<(ListenerConfig, Option<PassedSocket>)>, Error> {
    if configs.is_empty() {
        configs = sockets.iter().map(PassedSocket::listener).collect();
    }
    // Names first: the address of one that has a name may be that of another listener.
    let mut find = |of: &dyn Fn(&PassedSocket) -> bool| sockets.iter().position(of).map(|at| sockets.remove(at));
    let mut by_name = |config: &ListenerConfig| find(&|socket| config.name.is_some() && socket.name == config.name);
    let named: Vec<_> = configs.iter().map(&mut by_name).collect();
    // Nothing that was passed takes datagrams.
    let mut by_place =
        |config: &ListenerConfig| find(&|socket| socket.place == config.url.place && config.url.scheme != Scheme::Quic);
    let dealt = configs.iter().zip(named).map(|(config, named)| named.or_else(|| by_place(config)));
    let dealt: Vec<_> = dealt.collect();
    for (config, socket) in configs.iter().zip(&dealt) {
        let Some(socket) = socket else { continue };
        let is_alike = std::mem::discriminant(&config.url.place) == std::mem::discriminant(&socket.place);
        if !is_alike || config.url.scheme == Scheme::Quic {
            let what = format!("it is {}, and the socket that was passed for it is {socket}", config.url);
            return Err(Error::Listener { name: config.name(), what });
        }
    }
    if let Some(socket) = sockets.first() {
        return Err(left_over(socket.to_string(), &configs));
    }
    Ok(configs.into_iter().zip(dealt).collect())
}

/// No listener wants a socket that was passed. Whoever has opened it goes on having it, so that clients would wait there for nobody.
pub(crate) fn left_over(socket: String, configs: &[ListenerConfig]) -> Error {
    let urls: Vec<_> = configs.iter().map(|config| config.url.to_string()).collect();
    let what = format!(
        "this socket was passed, and no listener has its address or its name: expected it at one of {}, or a listener for it",
        urls.join(", ")
    );
    Error::Listener { name: socket, what }
}

/// Gives the sockets of the process whose place this one takes to the listeners that had them before. Listeners for which there
/// is none are opened; sockets for which there is no listener any more are closed.
pub(crate) fn deal_out_inherited(
    configs: Vec<ListenerConfig>,
    mut sockets: Vec<PassedSocket>,
) -> Vec<(ListenerConfig, Option<PassedSocket>)> {
    let mut find = |config: &ListenerConfig| {
        let named = sockets.iter().position(|socket| socket.was_for(config) && socket.name == config.name);
        let at = named.or_else(|| sockets.iter().position(|socket| socket.was_for(config)));
        at.map(|at| sockets.remove(at))
    };
    let dealt = configs.into_iter().map(|config| {
        let socket = find(&config);
        (config, socket)
    });
    dealt.collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn passed(addr: &str, name: &str) -> PassedSocket {
        PassedSocket::new(TcpListener::bind(addr).unwrap(), Some(name.to_owned())).unwrap()
    }

    fn config(url: &str, name: Option<&str>) -> ListenerConfig {
        let mut config = ListenerConfig::new(url.parse().unwrap());
        config.name = name.map(str::to_owned);
        config
    }

    /// The addresses of the sockets that the listeners have got.
    fn dealt(configs: Vec<ListenerConfig>, sockets: Vec<PassedSocket>) -> Result<Vec<(String, Option<Place>)>, String> {
        let dealt = deal_out(configs, sockets).map_err(|error| error.to_string())?;
        let place = |socket: PassedSocket| place(&socket.fd).unwrap();
        Ok(dealt.into_iter().map(|(config, socket)| (config.url.to_string(), socket.map(place))).collect())
    }

    #[test]
    fn sockets_go_to_the_listener_of_their_name_or_address() {
        let (a, b) = (passed("127.0.0.1:0", "a"), passed("127.0.0.1:0", "b"));
        let (at_a, at_b) = (a.place.clone(), b.place.clone());
        let url = |place: &Place| match place {
            Place::Address(addr) => format!("tcp://{addr}"),
            Place::Path(path) => format!("unix:{}", path.display()),
        };
        let (url_a, url_b) = (url(&at_a), url(&at_b));
        // The second has the name of the one whose address the first has.
        let configs = vec![config(&url_b, None), config("tls://[::1]:7", Some("b")), config(&url_a, Some("x"))];
        let expected = vec![(url_b, None), ("tls://[::1]:7".to_owned(), Some(at_b)), (url_a, Some(at_a))];
        assert_eq!(dealt(configs, vec![a, b]), Ok(expected));
    }

    #[test]
    fn sockets_are_listeners_where_none_was_asked_for() {
        let dir = std::env::temp_dir().join(format!("host-passed-{}", std::process::id()));
        let _ = std::fs::remove_file(&dir);
        let unix = PassedSocket::new(UnixListener::bind(&dir).unwrap(), None).unwrap();
        let tcp = passed("[::1]:0", "host.socket");
        let (at_unix, at_tcp) = (unix.place.clone(), tcp.place.clone());
        let Place::Address(addr) = at_tcp else { panic!("{at_tcp:?}") };
        let expected =
            vec![(format!("unix:{}", dir.display()), Some(at_unix)), (format!("tcp://{addr}"), Some(at_tcp))];
        assert_eq!(dealt(Vec::new(), vec![unix, tcp]), Ok(expected));
        std::fs::remove_file(&dir).unwrap();
        assert_eq!(dealt(Vec::new(), Vec::new()), Ok(Vec::new()));
    }

    #[test]
    fn sockets_of_no_use_are_refused() {
        let lost = passed("127.0.0.1:0", "lost");
        let error = dealt(vec![config("tcp://127.0.0.1:7", None)], vec![lost]).unwrap_err();
        assert!(error.contains("(lost): this socket was passed, and no listener has its address"), "{error}");
        assert!(error.contains("expected it at one of tcp://127.0.0.1:7"), "{error}");
        let error = dealt(vec![config("unix:/run/x", Some("x"))], vec![passed("127.0.0.1:0", "x")]).unwrap_err();
        assert!(error.contains("it is unix:/run/x, and the socket that was passed for it is 127.0.0.1:"), "{error}");
        let unbound = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let table: [(OwnedFd, &str); 3] = [
            (UdpSocket::bind("127.0.0.1:0").unwrap().into(), "passed as x: it takes datagrams"),
            (unbound, "it does not listen"),
            (std::fs::File::open("/dev/null").unwrap().into(), "Expected a listening socket"),
        ];
        for (fd, expected) in table {
            let error = PassedSocket::new(fd, Some("x".to_owned())).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
