//! What two processes say to each other.

use std::path::PathBuf;

use super::{OLDEST, VERSION};
use crate::clock::Millis;
use crate::listener::ListenerUrl;
use crate::packed::{Reader, Unreadable, Write};
use crate::store::{Baton, Mark};

/// What the successor says first, and nothing else that could be at its standard input.
const MAGIC: &str = "MQTT host upgrade";

/// Kinds of messages. From the successor:
pub(super) const HELLO: u16 = 1;
pub(super) const READY: u16 = 2;
pub(super) const TAKEN: u16 = 3;
pub(super) const FAILED: u16 = 4;
pub(super) const BEGUN: u16 = 5;
/// From the predecessor:
pub(super) const WELCOME: u16 = 16;
pub(super) const VALUES: u16 = 17;
pub(super) const RETAINED: u16 = 18;
pub(super) const PLUGIN: u16 = 19;
pub(super) const CLIENTS: u16 = 20;
pub(super) const TIMERS: u16 = 21;
pub(super) const END: u16 = 22;
pub(super) const GO: u16 = 23;
pub(super) const STORE: u16 = 24;
pub(super) const BODIES: u16 = 27;
pub(super) const GATES: u16 = 26;
/// Behind the end:
pub(super) const CLOSED: u16 = 25;

/// The successor is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hello {
    /// The newest version that it speaks.
    pub(super) version: u16,
    /// Its own.
    pub(super) host: String,
    pub(super) pid: u32,
    /// The oldest version that it speaks.
    pub(super) oldest: u16,
}

impl Hello {
    pub(super) fn of_this_process() -> Self {
        Self { version: VERSION, host: crate::version().to_owned(), pid: std::process::id(), oldest: OLDEST }
    }

    /// The newest version that both speak.
    pub(super) fn spoken(&self) -> Option<u16> {
        let version = self.version.min(VERSION);
        (version >= self.oldest.max(OLDEST)).then_some(version)
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_text(MAGIC);
        out.put_u16(self.version);
        out.put_text(&self.host);
        out.put_u32(self.pid);
        out.put_u16(self.oldest);
        out
    }

    /// What a later version says behind this is not looked at.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(bytes);
        let magic = reader.text()?;
        if magic != MAGIC {
            return Err(Unreadable(format!("it begins with {magic:?}: expected {MAGIC:?}")));
        }
        let (version, host, pid) = (reader.u16()?, reader.text()?.to_owned(), reader.u32()?);
        // The first version said nothing more.
        let oldest = if reader.rest().is_empty() { version } else { reader.u16()? };
        Ok(Self { version, host, pid, oldest })
    }
}

/// What the successor has to know to start. Descriptors come with it: of the listeners in their order, then of the control
/// socket, then the lock of the data directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Welcome {
    /// The version that is spoken from now on.
    pub(super) version: u16,
    /// What the clock shows.
    pub(super) now: Millis,
    /// How many workers there have been at most.
    pub(super) workers_ever: usize,
    /// How many messages follow at once: of each plugin the values that are kept for it.
    pub(super) values: usize,
    /// The plugins' names, in the order of the chain.
    pub(super) plugins: Vec<String>,
    pub(super) listeners: Vec<Listening>,
    pub(super) control: Option<PathBuf>,
    /// Whether there is a data directory.
    pub(super) keeps: bool,
}

/// A listener.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listening {
    pub(super) name: Option<String>,
    /// As it was asked for: port 0 is another one by now.
    pub(super) url: ListenerUrl,
    /// Whether the name of a Unix socket goes with it.
    pub(super) owns_name: bool,
}

impl Welcome {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u16(self.version);
        out.put_u64(self.now.0);
        out.put_count(self.workers_ever);
        out.put_count(self.values);
        out.put_count(self.plugins.len());
        self.plugins.iter().for_each(|name| out.put_text(name));
        out.put_count(self.listeners.len());
        for Listening { name, url, owns_name } in &self.listeners {
            out.put_option(name.as_deref(), Vec::put_text);
            out.put_text(&url.to_string());
            out.put_flag(*owns_name);
        }
        out.put_option(self.control.as_deref(), |out, path| out.put_text(&path.to_string_lossy()));
        out.put_flag(self.keeps);
        out
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(bytes);
        let version = reader.u16()?;
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(Unreadable(format!("it speaks version {version}: expected {OLDEST} to {VERSION}")));
        }
        let (now, workers_ever, values) = (Millis(reader.u64()?), reader.count()?, reader.count()?);
        let plugins = reader.list(|reader| Ok(reader.text()?.to_owned()))?;
        let listeners = reader.list(|reader| {
            let name = reader.option(Reader::text)?.map(str::to_owned);
            let url = reader.text()?;
            let url = url.parse().map_err(|error| Unreadable(format!("the listener {url}: {error}")))?;
            Ok(Listening { name, url, owns_name: reader.flag()? })
        })?;
        let control = reader.option(Reader::text)?.map(PathBuf::from);
        let keeps = reader.flag()?;
        reader.end()?;
        Ok(Self { version, now, workers_ever, values, plugins, listeners, control, keeps })
    }
}

/// Where the store goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Keep {
    pub(super) baton: Baton,
    /// A journal that was handed over behind that, and is not written.
    pub(super) late: Vec<u8>,
}

impl Keep {
    pub(super) fn write(&self) -> Vec<u8> {
        let Self { baton: Baton { mark, synced, kept_from }, late } = self;
        let mut out = Vec::new();
        [mark.segment, mark.offset, mark.next, *synced, *kept_from].into_iter().for_each(|number| out.put_u64(number));
        out.put_bytes(late);
        out
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(bytes);
        let mark = Mark { segment: reader.u64()?, offset: reader.u64()?, next: reader.u64()? };
        let baton = Baton { mark, synced: reader.u64()?, kept_from: reader.u64()? };
        if mark.next == 0 || baton.synced >= mark.next || baton.kept_from > mark.segment {
            return Err(Unreadable(format!("the store cannot go on at {baton:?}")));
        }
        let late = reader.bytes()?.to_vec();
        reader.end()?;
        Ok(Self { baton, late })
    }
}

/// That all has been told, and what it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct End {
    /// How many connections.
    pub(super) connections: usize,
    /// The number that the next one would have with each worker.
    pub(super) next_connection: u64,
    /// The number of the next timer.
    pub(super) next_timer: u64,
    /// The number of the next session that is kept, or 0.
    pub(super) next_session: u64,
}

impl End {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_count(self.connections);
        out.put_u64(self.next_connection);
        out.put_u64(self.next_timer);
        out.put_u64(self.next_session);
        out
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(bytes);
        let (connections, next_connection) = (reader.count()?, reader.u64()?);
        let (next_timer, next_session) = (reader.u64()?, reader.u64()?);
        let end = Self { connections, next_connection, next_timer, next_session };
        reader.end()?;
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_come_back_as_they_were() {
        let hello = Hello::of_this_process();
        assert_eq!(Hello::read(&hello.write()), Ok(hello));
        let listening = |url: &str, name: Option<&str>, owns_name| Listening {
            name: name.map(str::to_owned),
            url: url.parse().unwrap(),
            owns_name,
        };
        let welcome = Welcome {
            version: VERSION,
            now: Millis(77),
            workers_ever: 3,
            values: 1,
            plugins: vec!["acl".to_owned()],
            listeners: vec![
                listening("tcp://127.0.0.1:0", Some("a"), false),
                listening("unix:/run/x", None, true),
                listening("wss://[::1]:8883/mqtt", None, false),
            ],
            control: Some("/run/host.sock".into()),
            keeps: true,
        };
        assert_eq!(Welcome::read(&welcome.write()), Ok(welcome));
        let end = End { connections: 7, next_connection: 8, next_timer: 9, next_session: 10 };
        assert_eq!(End::read(&end.write()), Ok(end));
        let mark = Mark { segment: 3, offset: 64, next: 20 };
        let keep = Keep { baton: Baton { mark, synced: 7, kept_from: 2 }, late: b"late".to_vec() };
        assert_eq!(Keep::read(&keep.write()), Ok(keep));
        let wrong = Keep { baton: Baton { mark, synced: 20, kept_from: 2 }, late: Vec::new() };
        assert!(Keep::read(&wrong.write()).unwrap_err().0.contains("cannot go on"));
    }

    #[test]
    fn newest_version_that_both_speak_is_spoken() {
        let hello = |oldest, version| Hello { version, oldest, ..Hello::of_this_process() };
        assert_eq!(hello(OLDEST, VERSION).spoken(), Some(VERSION));
        assert_eq!(hello(OLDEST, VERSION + 3).spoken(), Some(VERSION));
        assert_eq!(hello(VERSION + 1, VERSION + 3).spoken(), None);
        assert_eq!(hello(OLDEST - 1, OLDEST - 1).spoken(), None);
        let mut first = hello(1, 1).write();
        first.truncate(first.len() - 2);
        assert_eq!(Hello::read(&first), Ok(hello(1, 1)), "the first version had no oldest one");
    }

    #[test]
    fn others_are_told_from_hosts_and_other_versions_are_refused() {
        let mut other = Vec::new();
        other.put_text("GET / HTTP/1.1");
        assert!(Hello::read(&other).unwrap_err().0.contains("GET / HTTP/1.1"));
        assert!(Hello::read(b"hello").is_err());
        let error = Welcome::read(&[9, 0]).unwrap_err();
        assert_eq!(error.0, format!("it speaks version 9: expected {OLDEST} to {VERSION}"));
    }
}
