//! The listeners of a server while it runs: they may be exchanged, and their certificates read anew.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{ServerHandle, lock};
use crate::error::Error;
use crate::io::anteroom;
use crate::io::listener::{Bound, Listener, WeakListener};
#[cfg(feature = "quic")]
use crate::io::quic;
use crate::listener::{Common, ListenerConfig, ListenerUrl};

/// How often it is looked whether certificates have changed. Such a change counts once it has lasted for as long.
const CERTIFICATES_PERIOD: Duration = Duration::from_secs(2);

/// The listeners that a server has now.
pub(super) struct Live {
    list: Mutex<Vec<Open>>,
    /// Those for QUIC that are not there any more: their socket is open until the last who came by it has gone.
    left: Mutex<Vec<Left>>,
}

struct Left {
    config: ListenerConfig,
    listener: WeakListener,
}

/// One of them, with the settings that it has.
#[derive(Clone)]
pub(super) struct Open {
    pub(super) config: ListenerConfig,
    pub(super) listener: Listener,
}

impl Live {
    pub(super) fn new(bound: Vec<(ListenerConfig, Bound)>, common: Common<'_>) -> Result<Self, Error> {
        let open = |(config, bound): (ListenerConfig, Bound)| {
            let profile = config.profile(bound.url(), common)?;
            Ok(Open { config, listener: bound.with(profile) })
        };
        let list = bound.into_iter().map(open).collect::<Result<_, Error>>()?;
        Ok(Self { list: Mutex::new(list), left: Mutex::default() })
    }

    pub(super) fn urls(&self) -> Vec<ListenerUrl> {
        lock(&self.list).iter().map(|open| open.listener.url().clone()).collect()
    }

    /// Where they are, as the log has it: an address, or the URL of what is not plain TCP.
    pub(super) fn places(&self) -> Vec<String> {
        self.urls().into_iter().map(|url| ListenerConfig::new(url).name()).collect()
    }

    pub(super) fn opened(&self) -> Vec<Open> {
        lock(&self.list).clone()
    }

    pub(super) fn replace(&self, opened: Vec<Open>) {
        let mut list = lock(&self.list);
        let before = std::mem::replace(&mut *list, opened);
        let is_gone = |listener: &Listener| !list.iter().any(|open| open.listener.has_socket_of(listener));
        let mut left = lock(&self.left);
        left.retain(|left| left.listener.upgrade().as_ref().is_some_and(is_gone));
        let gone = before.into_iter().filter(|open| open.listener.is_quic() && is_gone(&open.listener));
        left.extend(gone.map(|Open { config, listener }| Left { config, listener: listener.downgrade() }));
    }

    /// Those for QUIC that are not there any more, and whose socket is open still.
    pub(super) fn left(&self) -> Vec<Open> {
        let open = |left: &Left| Some(Open { config: left.config.clone(), listener: left.listener.upgrade()? });
        lock(&self.left).iter().filter_map(open).collect()
    }

    pub(super) fn listeners(&self) -> Vec<Listener> {
        lock(&self.list).iter().map(|open| open.listener.clone()).collect()
    }
}

impl ServerHandle {
    /// Reads the certificates of all listeners anew, and what clients' certificates are verified with, for those who connect
    /// from now on. A line for each listener with TLS: its name, or what is wrong with its files; then it goes on as before.
    #[must_use]
    pub fn reload_certificates(&self) -> Vec<Result<String, Error>> {
        let listeners = self.listeners.listeners();
        let reload = |listener: &Listener| Some(listener.reload(false)?.map(|()| listener.name().to_owned()));
        listeners.iter().filter_map(reload).collect()
    }

    /// Has all threads accept from the listeners that there are now, and starts those that are needed for it.
    pub(super) fn publish_listeners(&self) -> Result<(), Error> {
        let listeners = self.listeners.listeners();
        let wants_anteroom = listeners.iter().any(Listener::has_guests);
        #[cfg(feature = "quic")]
        let wants_quic = listeners.iter().any(Listener::is_quic);
        let wants_watch = listeners.iter().any(|listener| listener.url().scheme.has_tls());
        self.workers.set_listeners(listeners);
        if wants_anteroom {
            self.start_anteroom()?;
        }
        #[cfg(feature = "quic")]
        if wants_quic {
            self.start_quic()?;
        }
        let mut threads = lock(&self.threads);
        if wants_watch && threads.certificates.is_none() {
            let watch = CertificateWatch::start(&self.name, Arc::clone(&self.listeners));
            let system = |source| Error::System { what: "start a thread that looks after certificates", source };
            threads.certificates = Some(watch.map_err(system)?);
        }
        Ok(())
    }

    /// Nobody accepts any more, and nobody connects any more.
    pub(super) fn close_listeners(&self) {
        lock(&self.listeners.list).clear();
        self.workers.set_listeners(Vec::new());
        lock(&self.threads).certificates = None;
    }

    /// Starts the threads for what comes before MQTT, once.
    fn start_anteroom(&self) -> Result<(), Error> {
        let mut threads = lock(&self.threads);
        let Some(shared) = threads.shared.clone().filter(|_| !threads.has_anteroom) else { return Ok(()) };
        threads.has_anteroom = true;
        drop(threads);
        for number in 0..self.workers.anterooms() {
            let ended = Arc::clone(&self.ended);
            let seed = anteroom::Seed {
                number,
                name: format!("{}-tls-{number}", self.name),
                workers: Arc::clone(&self.workers),
                places: Arc::clone(&self.places),
                shared: Arc::clone(&shared),
                clock: self.clock,
                on_end: Box::new(move || ended.add_one()),
            };
            let thread = anteroom::start(seed);
            let thread = thread.map_err(|source| Error::System { what: "start a thread for handshakes", source })?;
            lock(&self.threads).running.push(thread);
        }
        Ok(())
    }

    /// Starts the thread for QUIC, once.
    #[cfg(feature = "quic")]
    fn start_quic(&self) -> Result<(), Error> {
        let mut threads = lock(&self.threads);
        let Some(shared) = threads.shared.clone().filter(|_| !threads.has_quic) else { return Ok(()) };
        let ended = Arc::clone(&self.ended);
        let seed = quic::Seed {
            name: format!("{}-quic", self.name),
            workers: Arc::clone(&self.workers),
            places: Arc::clone(&self.quic_places),
            shared,
            clock: self.clock,
            on_end: Box::new(move || ended.add_one()),
        };
        let thread = quic::start(seed).map_err(|source| Error::System { what: "start a thread for QUIC", source })?;
        threads.running.push(thread);
        threads.has_quic = true;
        Ok(())
    }
}

/// A thread that looks whether certificates have changed, until this is dropped.
pub(super) struct CertificateWatch {
    /// Nothing is ever sent: that it is gone is the end.
    _until: Sender<()>,
}

impl CertificateWatch {
    fn start(name: &str, listeners: Arc<Live>) -> io::Result<Self> {
        let (until, end) = mpsc::channel::<()>();
        let look = move || {
            while end.recv_timeout(CERTIFICATES_PERIOD) == Err(RecvTimeoutError::Timeout) {
                for listener in listeners.listeners() {
                    match listener.reload(true) {
                        None => {}
                        Some(Ok(())) => tracing::info!(listener = listener.name(), "its certificates have changed"),
                        Some(Err(error)) => tracing::error!(
                            listener = listener.name(),
                            "its certificates have changed, and those from before go on being used: {error}"
                        ),
                    }
                }
            }
        };
        std::thread::Builder::new().name(format!("{name}-certs")).spawn(look)?;
        Ok(Self { _until: until })
    }
}
