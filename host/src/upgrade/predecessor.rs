//! The process that hands over.

use std::io;
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstat;
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};
use zeroize::Zeroize;

use super::channel::{Channel, FDS_MAX, Received, pair};
use super::letters::{self, End, Hello, Keep, Listening, Welcome};
use super::{OLDEST, UpgradeError, UpgradeReport, UpgradeRequest, UpgradeStep, VARIABLE, VERSION};
use crate::io::pause::Told;
use crate::packed::Reader;
use crate::server::ServerHandle;
use crate::store::{Baton, Brake};

/// How long a successor may take to say that it is there. A busy machine takes its time to load a program.
const HELLO_WITHIN: Duration = Duration::from_secs(20);

/// How long it may take to say that it has begun, once it has taken everything in.
const BEGUN_WITHIN: Duration = Duration::from_secs(10);

/// How long the successor may take to end once it is not needed, before it is made to.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Has another process take the place of this one; see [the module](super). Afterwards the server stops by itself, without a
/// word to those who have gone over: [`ServerHandle::wait`] returns.
///
/// It waits for the successor's start, and so for the authors' code. Only one can be under way. `announce` is called with the
/// number of the successor's process as soon as that serves.
///
/// # Errors
/// Which step has failed, and why. The server goes on as before.
pub fn upgrade(
    server: &ServerHandle,
    request: &UpgradeRequest,
    announce: impl FnOnce(u32),
) -> Result<UpgradeReport, UpgradeError> {
    let began = Instant::now();
    let fail = |reason: &str| Err(UpgradeError::new(UpgradeStep::Start, reason));
    if getpid().is_init() {
        return fail(
            "this process is the first of its machine or container, which ends with it: restart the container instead",
        );
    }
    if server.cannot_keep() {
        return fail("what is to be kept cannot be written at the moment, which comes first; the log says why");
    }
    let Some(_one) = server.begin_upgrade() else {
        return fail("another upgrade, or a reload of the configuration, is under way: wait until it is done");
    };
    tracing::info!(binary = %request.binary.display(), "upgrading: starting the process that takes this one's place");
    let mut successor = Started::start(request)?;
    let done = hand_over(server, request, &mut successor, announce, began);
    match &done {
        Ok(report) => tracing::info!("upgraded: {report}"),
        Err(error) => {
            successor.end();
            tracing::error!("{error}. This process goes on serving");
        }
    }
    done
}

/// The process that is to take over.
struct Started {
    child: Child,
    /// Workers speak to it as well.
    channel: Arc<Mutex<Channel>>,
}

impl Started {
    fn start(request: &UpgradeRequest) -> Result<Self, UpgradeError> {
        let failed = |error: io::Error| {
            let reason = format!("{}: {error}. Expected a host that this user may start", request.binary.display());
            UpgradeError::new(UpgradeStep::Start, reason)
        };
        let (channel, theirs) = pair().map_err(failed)?;
        let number = fstat(&theirs).map_err(|error| failed(error.into()))?.st_ino;
        let child = Command::new(&request.binary)
            .args(&request.args)
            .env(VARIABLE, number.to_string())
            .stdin(Stdio::from(theirs))
            .spawn()
            .map_err(failed)?;
        Ok(Self { child, channel: Arc::new(Mutex::new(channel)) })
    }

    fn channel(&self) -> MutexGuard<'_, Channel> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it says next, if that is what is expected.
    fn expect(&mut self, kind: u16, step: UpgradeStep, deadline: Instant) -> Result<Received, UpgradeError> {
        let error = |reason: String| UpgradeError::new(step, reason);
        let received = self.channel().receive(deadline);
        let received = received.map_err(|why| error(self.why_silent(&why)))?;
        match received.kind {
            got if got == kind => Ok(received),
            letters::FAILED => Err(error(why_failed(&received))),
            other => {
                Err(error(format!("the new process has said {other}: expected {kind}. Is it a host of this version?")))
            }
        }
    }

    /// Waits until it has begun to serve. If it does not say so in time, it is made to end: then it is certain.
    fn has_begun(&mut self) -> Result<(), UpgradeError> {
        let heard = self.expect(letters::BEGUN, UpgradeStep::Go, Instant::now() + BEGUN_WITHIN);
        let Err(error) = heard else { return Ok(()) };
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What it had said by then is there to be read.
        let said = self.channel().receive(Instant::now() + BEGUN_WITHIN);
        match said {
            Ok(Received { kind: letters::BEGUN, .. }) => {
                tracing::error!("the new process had begun to serve, and has died. This one has let go of everything");
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// What it has said of why it fails, if that is there to be read, while nothing else is expected of it.
    fn why_failed(&self) -> Option<String> {
        match self.channel().receive(Instant::now()) {
            Ok(received) if received.kind == letters::FAILED => Some(why_failed(&received)),
            _ => None,
        }
    }

    /// Why nothing comes.
    fn why_silent(&mut self, error: &io::Error) -> String {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                let deadline = Instant::now() + END_WITHIN;
                let status = self.wait(deadline).map_or_else(|| "it runs on".to_owned(), |status| status.to_string());
                format!("the new process has ended ({status}); its log says why")
            }
            io::ErrorKind::TimedOut => "the new process has taken too long".to_owned(),
            _ => format!("the new process cannot be spoken to: {error}"),
        }
    }

    /// Why nothing can be sent.
    fn why_deaf(&mut self, error: &io::Error) -> String {
        self.why_failed().unwrap_or_else(|| self.why_silent(error))
    }

    fn send(&mut self, kind: u16, bytes: &[u8], step: UpgradeStep, deadline: Instant) -> Result<(), UpgradeError> {
        let sent = self.channel().send(kind, bytes, &[], deadline);
        sent.map_err(|error| UpgradeError::new(step, self.why_deaf(&error)))
    }

    /// Waits until it has ended, at the latest until `deadline`.
    fn wait(&mut self, deadline: Instant) -> Option<ExitStatus> {
        if let Ok(process) = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()) {
            let timeout = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
            // If it cannot be waited for, it is looked at once.
            let _ = retry_on_intr(|| poll(&mut [PollFd::new(&process, PollFlags::IN)], timeout.as_ref()));
        }
        self.child.try_wait().ok().flatten()
    }

    /// It is not needed. What it holds must not be held on.
    fn end(mut self) {
        self.channel().close();
        if self.wait(Instant::now() + END_WITHIN).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn why_failed(received: &Received) -> String {
    format!("the new process: {}", Reader::new(&received.bytes).text().unwrap_or("it does not say why"))
}

fn hand_over(
    server: &ServerHandle,
    request: &UpgradeRequest,
    successor: &mut Started,
    announce: impl FnOnce(u32),
    began: Instant,
) -> Result<UpgradeReport, UpgradeError> {
    let (hello, version) = greet(successor)?;
    welcome(server, successor, version)?;
    successor.expect(letters::READY, UpgradeStep::Ready, Instant::now() + request.ready_within)?;
    let paused = Instant::now();
    let deadline = paused + request.paused_at_most;
    let told = server.settle(deadline).map_err(|reason| UpgradeError::new(UpgradeStep::Settle, reason));
    let told = told.and_then(|closed| {
        let kept = server.stop_keeping(deadline);
        let kept = kept.map_err(|reason| UpgradeError::new(UpgradeStep::Settle, reason))?;
        let connections = tell(server, successor, kept, deadline)?;
        successor.expect(letters::TAKEN, UpgradeStep::Taken, deadline)?;
        Ok((connections, closed))
    });
    let (connections, closed) = match told {
        Ok(told) => told,
        Err(error) => {
            server.go_on();
            return Err(error);
        }
    };
    server.give_up_names();
    let gone = successor.send(letters::GO, b"", UpgradeStep::Go, deadline).and_then(|()| successor.has_begun());
    if let Err(error) = gone {
        // It has done nothing that others could see.
        server.take_names_back();
        server.go_on();
        return Err(error);
    }
    // Before this process may end: whoever has started it would take that for the end of the service.
    announce(hello.pid);
    let (paused, channel) = (paused.elapsed(), Arc::clone(&successor.channel));
    server.let_go(move || {
        let channel = channel.lock().unwrap_or_else(PoisonError::into_inner);
        // If it cannot be told, it finds that this process has ended.
        let _ = channel.send(letters::CLOSED, b"", &[], Instant::now() + END_WITHIN);
    });
    Ok(UpgradeReport { pid: hello.pid, version: hello.host, connections, closed, paused, took: began.elapsed() })
}

fn greet(successor: &mut Started) -> Result<(Hello, u16), UpgradeError> {
    let step = UpgradeStep::Hello;
    let received = successor.expect(letters::HELLO, step, Instant::now() + HELLO_WITHIN)?;
    let hello = Hello::read(&received.bytes);
    let hello =
        hello.map_err(|error| UpgradeError::new(step, format!("what the new process says is no hello: {error}")))?;
    match hello.spoken() {
        Some(version) => Ok((hello, version)),
        None => {
            let Hello { version, host, oldest, .. } = hello;
            let reason = format!(
                "host {host} speaks versions {oldest} to {version} of upgrades, and this one {OLDEST} to {VERSION}: expected one \
                 that both speak. Stop this host and start the other one instead; sessions in a data directory are resumed"
            );
            Err(UpgradeError::new(step, reason))
        }
    }
}

fn welcome(server: &ServerHandle, successor: &mut Started, version: u16) -> Result<(), UpgradeError> {
    let (opened, values) = (server.opened(), server.services().values_images());
    // The control socket and the lock go with them.
    let listeners_max = FDS_MAX - 2;
    if opened.len() > listeners_max {
        let reason = format!(
            "{} listeners are open: expected at most {listeners_max}, as their sockets are given away at once. Restart the host \
             instead",
            opened.len()
        );
        return Err(UpgradeError::new(UpgradeStep::Ready, reason));
    }
    let lock = server.data_dir_lock().map_err(|error| {
        UpgradeError::new(UpgradeStep::Ready, format!("the lock of the data directory cannot be given away: {error}"))
    })?;
    let deadline = Instant::now() + HELLO_WITHIN;
    let sent = server.control().show(|control| {
        let listeners = opened.iter().map(|(config, listener)| Listening {
            name: config.name.clone(),
            url: config.url.clone(),
            owns_name: listener.owns_name(),
        });
        let welcome = Welcome {
            version,
            now: server.now(),
            workers_ever: server.services().numbers().1,
            values: values.len(),
            plugins: server.plugin_names(),
            listeners: listeners.collect(),
            control: control.map(|(_, path)| path.to_owned()),
            keeps: lock.is_some(),
        };
        let fds = opened.iter().map(|(_, listener)| listener.as_fd()).chain(control.map(|(fd, _)| fd));
        let fds: Vec<_> = fds.chain(lock.as_ref().map(AsFd::as_fd)).collect();
        successor.channel().send(letters::WELCOME, &welcome.write(), &fds, deadline)
    });
    sent.map_err(|error| UpgradeError::new(UpgradeStep::Ready, successor.why_deaf(&error)))?;
    // Plugins may look for what they keep as soon as they begin. What they change until then is told once more.
    for values in values {
        successor.send(letters::VALUES, &values, UpgradeStep::Ready, deadline)?;
    }
    Ok(())
}

/// Tells everything. Returns how many connections were told of.
fn tell(
    server: &ServerHandle,
    successor: &mut Started,
    kept: Option<(Baton, Brake)>,
    deadline: Instant,
) -> Result<usize, UpgradeError> {
    let step = UpgradeStep::State;
    for values in server.services().values_images() {
        successor.send(letters::VALUES, &values, step, deadline)?;
    }
    server.retained_images(|retained| successor.send(letters::RETAINED, retained, step, deadline))?;
    for plugin in server.plugin_images().map_err(|reason| UpgradeError::new(step, reason))? {
        successor.send(letters::PLUGIN, &plugin, step, deadline)?;
    }
    let channel = Arc::clone(&successor.channel);
    let outlet = move |told: Told<'_>| {
        let channel = channel.lock().unwrap_or_else(PoisonError::into_inner);
        match told {
            Told::Bodies(teller, bodies) => {
                channel.send(letters::BODIES, &[&teller.to_le_bytes(), bodies].concat(), &[], deadline)
            }
            Told::Clients(teller, clients, fds) => {
                let mut told = [&teller.to_le_bytes(), clients].concat();
                let sent = channel.send(letters::CLIENTS, &told, fds, deadline);
                told.zeroize();
                sent
            }
            Told::Timers(timers) => channel.send(letters::TIMERS, timers, &[], deadline),
        }
    };
    let told = server.tell(Arc::new(outlet), deadline);
    // It may have said why while a worker was about to tell it something.
    let why = |reason| UpgradeError::new(step, successor.why_failed().unwrap_or(reason));
    let (connections, next_connection) = told.map_err(why)?;
    successor.send(letters::GATES, &server.gates_image(), step, deadline)?;
    if let Some((baton, brake)) = kept {
        let keep = Keep { baton, late: brake.waiting() };
        successor.send(letters::STORE, &keep.write(), step, deadline)?;
    }
    let (next_timer, next_session) = (server.services().numbers().0, server.next_session());
    let end = End { connections, next_connection, next_timer, next_session };
    successor.send(letters::END, &end.write(), step, deadline)?;
    Ok(connections)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::Write as _;

    /// What it has said lies there while there is nobody any more who could be told something.
    #[test]
    fn successor_that_fails_while_it_is_told_has_said_why() {
        for (said, expected) in [(Some("no room"), "the new process: no room"), (None, "the new process has ended")] {
            let (ours, theirs) = pair().unwrap();
            let theirs = Channel::new(theirs);
            let child = Command::new("true").spawn().unwrap();
            let mut started = Started { child, channel: Arc::new(Mutex::new(ours)) };
            let soon = || Instant::now() + HELLO_WITHIN;
            started.send(letters::VALUES, b"not read", UpgradeStep::State, soon()).unwrap();
            if let Some(why) = said {
                let mut bytes = Vec::new();
                bytes.put_text(why);
                theirs.send(letters::FAILED, &bytes, &[], soon()).unwrap();
            }
            drop(theirs);
            // A process that is being started by somebody else may have a copy of that end for a moment.
            let error = loop {
                match started.send(letters::VALUES, b"more", UpgradeStep::State, soon()) {
                    Ok(()) => std::thread::sleep(Duration::from_millis(1)),
                    Err(error) => break error,
                }
            };
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
