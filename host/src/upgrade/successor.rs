//! The process that takes over.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, fstat};
use zeroize::Zeroize;

use super::VARIABLE;
use super::channel::{Channel, Received};
use super::letters::{self, End, Hello, Keep, Welcome};
use crate::clock::Clock;
use crate::control;
use crate::core::mail::InfoTarget;
use crate::core::{InheritedTimer, owner_of};
use crate::error::Error;
use crate::io::passed::PassedSocket;
use crate::io::worker::Inherited;
use crate::packed::{Reader, Unreadable};
use crate::plugin::{KnownKeys, Services};
use crate::server::{Claim, Heirs, ServerHandle};
use crate::store::Learn;

/// How long a predecessor may take for what it says first.
const WELCOME_WITHIN: Duration = Duration::from_secs(20);

/// How long it may take from one message to the next. It has bounds of its own, which are shorter.
const NEXT_WITHIN: Duration = Duration::from_secs(300);

/// A process that is to take another one's place; see [the module](super). Give it to [`Builder::succeed`](crate::Builder::succeed).
#[derive(Debug)]
pub struct Successor {
    /// Until it serves.
    channel: Option<Channel>,
    welcome: Welcome,
    /// The sockets of the listeners.
    sockets: Vec<PassedSocket>,
    control: Option<control::Inherited>,
    /// The lock of the data directory.
    data_dir_lock: Option<OwnedFd>,
    /// What is kept for plugins, as it was before they began here.
    values: Vec<Vec<u8>>,
    known_keys: KnownKeys,
    timers: BTreeMap<u64, InheritedTimer>,
}

impl Successor {
    /// What this process was started for, if it was started by another one to take its place.
    ///
    /// # Errors
    /// It was, and they do not understand each other.
    pub fn of_this_process() -> Result<Option<Self>, Error> {
        let Some(number) = std::env::var(VARIABLE).ok().and_then(|number| number.parse::<u64>().ok()) else {
            return Ok(None);
        };
        let failed = |error: io::Error| Error::Upgrade(format!("the process that has started this one: {error}"));
        if !fstat(io::stdin())
            .is_ok_and(|stdin| stdin.st_ino == number && FileType::from_raw_mode(stdin.st_mode).is_socket())
        {
            return Ok(None);
        }
        let socket = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        // Nothing else is to read there.
        let nothing = std::fs::File::open("/dev/null").map_err(failed)?;
        rustix::stdio::dup2_stdin(&nothing).map_err(|error| failed(error.into()))?;
        Self::greet(Channel::new(socket)).map(Some)
    }

    fn greet(mut channel: Channel) -> Result<Self, Error> {
        let deadline = Instant::now() + WELCOME_WITHIN;
        let failed =
            |error: io::Error| Error::Upgrade(format!("the process whose place this one takes is silent: {error}"));
        channel.send(letters::HELLO, &Hello::of_this_process().write(), &[], deadline).map_err(failed)?;
        let received = channel.receive(deadline).map_err(failed)?;
        if received.kind != letters::WELCOME {
            return Err(Error::Upgrade(format!("it has said {}: expected {}", received.kind, letters::WELCOME)));
        }
        let unreadable = |error: Unreadable| Error::Upgrade(format!("what the process before says first: {error}"));
        let welcome = Welcome::read(&received.bytes).map_err(unreadable)?;
        let mut fds = received.fds.into_iter();
        let missing = || Error::Upgrade("a socket is missing that the process before has promised".to_owned());
        let socket = |listening: &letters::Listening| {
            let fd: OwnedFd = fds.next().ok_or_else(missing)?;
            PassedSocket::inherited(fd, listening.name.clone(), listening.url.clone(), listening.owns_name)
        };
        let sockets = welcome.listeners.iter().map(socket).collect::<Result<Vec<_>, _>>()?;
        let control = welcome.control.clone().zip(fds.next());
        let control = control.map(|(path, fd)| control::Inherited { fd, path });
        let data_dir_lock = if welcome.keeps { Some(fds.next().ok_or_else(missing)?) } else { None };
        let value = |_| match channel.receive(deadline) {
            Ok(Received { kind: letters::VALUES, bytes, .. }) => Ok(bytes),
            Ok(Received { kind, .. }) => {
                Err(Error::Upgrade(format!("it has said {kind}: expected {}", letters::VALUES)))
            }
            Err(error) => Err(failed(error)),
        };
        let values = (0..welcome.values).map(value).collect::<Result<_, _>>()?;
        let (known_keys, timers) = (KnownKeys::new(), BTreeMap::new());
        let channel = Some(channel);
        Ok(Self { channel, welcome, sockets, control, data_dir_lock, values, known_keys, timers })
    }

    /// The lock of the directory where the process before keeps what it has, if it has one.
    pub(crate) fn data_dir_lock(&mut self) -> Option<OwnedFd> {
        self.data_dir_lock.take()
    }

    /// The control socket of the process before, for [`Control::inherit`](crate::control::Control::inherit).
    pub fn control(&mut self) -> Option<control::Inherited> {
        self.control.take()
    }

    /// Says why this process cannot take over, so that whoever asked for it hears of it.
    pub fn fail(&self, why: &str) {
        let mut bytes = Vec::new();
        crate::packed::Write::put_text(&mut bytes, why);
        // Who does not listen any more goes on anyway.
        let deadline = Instant::now() + Duration::from_secs(1);
        self.channel.iter().for_each(|channel| drop(channel.send(letters::FAILED, &bytes, &[], deadline)));
    }

    pub(crate) fn sockets(&mut self) -> Vec<PassedSocket> {
        std::mem::take(&mut self.sockets)
    }

    /// The clock of the process before, which goes on.
    pub(crate) fn clock(&self) -> Clock {
        Clock::showing(self.welcome.now)
    }

    /// The plugins of the process before, in the order of their chain.
    pub(crate) fn plugins_before(&self) -> &[String] {
        &self.welcome.plugins
    }

    /// What plugins may ask for as soon as they begin.
    pub(crate) fn furnish(&mut self, services: &Services) -> Result<(), Error> {
        services.skip_numbers(0, self.welcome.workers_ever);
        if self.welcome.keeps {
            services.note_changes();
        }
        for values in std::mem::take(&mut self.values) {
            let taken = services.inherit_values(&values, &mut self.known_keys);
            taken.map_err(|error| Error::Upgrade(format!("values of plugins: {error}")))?;
        }
        if self.welcome.keeps {
            // One that has not kept them numbers plugins by their places.
            services.number_plugins(&self.welcome.plugins);
        }
        Ok(())
    }

    /// Takes everything in, and returns as soon as it is this process that serves.
    ///
    /// # Errors
    /// It is not.
    pub(crate) fn take_over(
        &mut self,
        server: &ServerHandle,
        heirs: &Heirs,
        claim: Option<Claim>,
    ) -> Result<(), Error> {
        self.try_to_take_over(server, heirs, claim).map_err(|why| {
            self.fail(&why);
            Error::Upgrade(why)
        })
    }

    fn try_to_take_over(
        &mut self,
        server: &ServerHandle,
        heirs: &Heirs,
        mut claim: Option<Claim>,
    ) -> Result<(), String> {
        let mut kept = None;
        self.say(letters::READY)?;
        let mut connections = 0;
        loop {
            let received = self.hear()?;
            match received.kind {
                letters::END => {
                    let end = End::read(&received.bytes).map_err(|error| error.to_string())?;
                    self.conclude(server, heirs, &end, connections)?;
                    break;
                }
                letters::STORE => {
                    let Keep { baton, late } = Keep::read(&received.bytes).map_err(|error| error.to_string())?;
                    let claim = claim.take().ok_or("there is a store that nobody has spoken of")?;
                    kept = Some((server.keep_behind(claim, baton)?, late));
                }
                _ => {
                    connections += received.fds.len();
                    self.take_in(server, heirs, received)?;
                }
            }
        }
        if claim.is_some() {
            return Err("the process before has not said where its store goes on".to_owned());
        }
        self.say(letters::TAKEN)?;
        let received = self.hear()?;
        if received.kind != letters::GO {
            return Err(format!("the process before has said {}: expected {}", received.kind, letters::GO));
        }
        // Before anything is done that others could see.
        self.say(letters::BEGUN)?;
        self.begin(server, heirs, kept)
    }

    /// From now on it is this process that serves, whatever goes wrong.
    fn begin(&mut self, server: &ServerHandle, heirs: &Heirs, kept: Option<(Learn, Vec<u8>)>) -> Result<(), String> {
        let store = server.begin_keeping();
        let (mut learn, workers) = (None, u16::try_from(heirs.workers()).unwrap_or(u16::MAX));
        if let (Some(store), Some((what, mut late))) = (&store, kept) {
            learn = Some(what);
            if !late.is_empty() {
                store.hand_over(0, &mut late);
            }
            server.services().keep_on(Arc::clone(store), workers);
        }
        for worker in 0..heirs.workers() {
            heirs.give(worker, Inherited::Begin(store.clone()))?;
        }
        server.take_names_back();
        server.wake_workers();
        tracing::info!("this process has taken the place of process {}", std::os::unix::process::parent_id());
        if let Some(channel) = self.channel.take() {
            follow(channel, learn);
        }
        Ok(())
    }

    fn say(&self, kind: u16) -> Result<(), String> {
        let channel = self.channel.as_ref().ok_or("it was taken over already")?;
        channel.send(kind, b"", &[], Instant::now() + NEXT_WITHIN).map_err(gone)
    }

    fn hear(&mut self) -> Result<Received, String> {
        let channel = self.channel.as_mut().ok_or("it was taken over already")?;
        channel.receive(Instant::now() + NEXT_WITHIN).map_err(gone)
    }

    fn take_in(&mut self, server: &ServerHandle, heirs: &Heirs, mut received: Received) -> Result<(), String> {
        let unreadable = |what: &str| {
            let what = what.to_owned();
            move |error: Unreadable| format!("{what}: {error}")
        };
        match received.kind {
            letters::VALUES => {
                let taken = server.services().inherit_values(&received.bytes, &mut self.known_keys);
                taken.map_err(unreadable("values of plugins"))?;
            }
            letters::RETAINED => {
                server.inherit_retained(&received.bytes).map_err(unreadable("retained messages"))?;
            }
            letters::PLUGIN => server.inherit_plugin(&received.bytes)?,
            letters::BODIES => {
                let mut reader = Reader::new(&received.bytes);
                let teller = reader.u32().map_err(unreadable("messages of several sessions"))?;
                let bytes: Arc<[u8]> = reader.rest().into();
                for worker in 0..heirs.workers() {
                    heirs.give(worker, Inherited::Bodies { teller, bytes: Arc::clone(&bytes) })?;
                }
            }
            letters::CLIENTS => {
                let mut fds = received.fds.into_iter();
                let given = give_clients(&received.bytes, &mut fds, heirs);
                // There may be the beginning of a CONNECT in it.
                received.bytes.zeroize();
                given?;
            }
            letters::GATES => server.inherit_gates(&received.bytes).map_err(unreadable("who is let in"))?,
            letters::TIMERS => self.take_timers(server, &received.bytes).map_err(unreadable("timers"))?,
            other => return Err(format!("the process before has said {other}, which is not known here")),
        }
        Ok(())
    }

    /// Several workers may have told of the same one.
    fn take_timers(&mut self, server: &ServerHandle, bytes: &[u8]) -> Result<(), Unreadable> {
        let names = server.plugin_names();
        let place_of = |before: usize| {
            let name = self.welcome.plugins.get(before)?;
            names.iter().position(|here| here == name)
        };
        let timers = InheritedTimer::read_all(bytes, place_of)?;
        self.timers.extend(timers.into_iter().map(|timer| (timer.info.timer, timer)));
        Ok(())
    }

    /// Gives each timer to the workers that it would have come to.
    fn give_timers(&mut self, server: &ServerHandle, heirs: &Heirs) -> Result<(), String> {
        let names = server.plugin_names();
        for mut timer in std::mem::take(&mut self.timers).into_values() {
            timer.info.room =
                names.get(timer.info.plugin).map(|name| server.services().inherited_timer_room(name, &timer.info));
            let owner = match &timer.info.target {
                InfoTarget::Client(client_id) => Some(owner_of(client_id, heirs.workers())),
                InfoTarget::Plugin => names.get(timer.info.plugin).map(|name| owner_of(name, heirs.workers())),
                InfoTarget::Connection(_) | InfoTarget::All => None,
            };
            for worker in owner.map_or(0..heirs.workers(), |owner| owner..owner + 1) {
                heirs.give(worker, Inherited::Timer(timer.clone()))?;
            }
        }
        Ok(())
    }

    fn conclude(&mut self, server: &ServerHandle, heirs: &Heirs, end: &End, connections: usize) -> Result<(), String> {
        if end.connections != connections {
            return Err(format!("{connections} connections have come of {}", end.connections));
        }
        server.services().skip_numbers(end.next_timer, 0);
        server.skip_sessions(end.next_session);
        self.give_timers(server, heirs)?;
        for worker in 0..heirs.workers() {
            heirs.give(worker, Inherited::NextConnection(end.next_connection))?;
        }
        heirs.confirm()
    }
}

fn gone(error: io::Error) -> String {
    format!("the process before has given it up: {error}")
}

/// Waits, on a thread of its own, until the process before has closed what it kept, or has ended; then checkpoints can be made here.
fn follow(mut channel: Channel, learn: Option<Learn>) {
    let Some(learn) = learn else { return };
    let wait = move || {
        loop {
            match channel.receive(Instant::now() + NEXT_WITHIN) {
                Ok(Received { kind: letters::CLOSED, .. }) => break,
                Err(error) if error.kind() != io::ErrorKind::TimedOut => break,
                // It may have much to do for its last checkpoint.
                Ok(_) | Err(_) => {}
            }
        }
        if let Err(error) = learn.run() {
            tracing::error!(
                "no checkpoint can be made yet; it is tried again: what the process before has kept: {error}"
            );
        }
    };
    if let Err(error) = std::thread::Builder::new().name("follow".to_owned()).spawn(wait) {
        tracing::error!(%error, "no checkpoint can be made yet; it is tried again");
    }
}

/// Gives each client to the worker that owns it.
fn give_clients(bytes: &[u8], fds: &mut impl Iterator<Item = OwnedFd>, heirs: &Heirs) -> Result<(), String> {
    let mut reader = Reader::new(bytes);
    let unreadable = |error: Unreadable| format!("clients: {error}");
    let teller = reader.u32().map_err(unreadable)?;
    let mut next = 0;
    while !reader.rest().is_empty() {
        let client_id = reader.text().map_err(unreadable)?;
        let has_socket = reader.flag().map_err(unreadable)?;
        let image = reader.bytes().map_err(unreadable)?.to_vec();
        let fd = if has_socket { Some(fds.next().ok_or("the socket of a client is missing")?) } else { None };
        let worker = match client_id {
            // It has not said who it is.
            "" => next % heirs.workers(),
            _ => owner_of(client_id, heirs.workers()),
        };
        next += 1;
        heirs.give(worker, Inherited::Client { teller, image, fd })?;
    }
    Ok(())
}
