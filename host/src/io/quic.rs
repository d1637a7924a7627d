//! Listeners for QUIC: the one bidirectional stream of a connection is its Network Connection (ALPN `mqtt`).
//!
//! QUIC needs a clock and packets of its own, so all of it is on one thread, with a runtime that nobody else has. What a
//! client's stream brings goes through a pair of sockets: the worker sees an ordinary descriptor, as of any other connection,
//! and knows nothing of QUIC. Workers are not held up by handshakes; of these there are at most
//! [`handshakes_max`](crate::Limits::handshakes_max), each within [`handshake_timeout`](crate::Limits::handshake_timeout).

mod pump;
mod tls;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use quinn::{Connection, Endpoint, EndpointConfig, Incoming, TokioRuntime, TransportConfig, VarInt};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use self::tls::Offer;
use super::anteroom::{Arrived, Place, Places};
use super::bind::canonical;
use super::listener::Listener;
use super::worker::{Workers, stop_all};
use crate::core::mailbox::Mailboxes;
use crate::core::peer::{PeerDetails, TransportKind};

/// Bytes that a client may have sent and that no worker has taken; and those of ours that it has not acknowledged.
const STREAM_BYTES_MAX: u32 = 256 << 10;

/// A client of which nothing comes for so long is gone. QUIC has no other way to see it.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// So often a client that has nothing to say is asked, as it would have to be for NATs in between, which forget it earlier.
const ASK_EVERY: Duration = Duration::from_secs(20);

/// First packets that are kept of those whose handshake has not begun: of each, and of all.
const INCOMING_BYTES_MAX: (u64, u64) = (16 << 10, 8 << 20);

/// Time that connections have to end after the workers have begun to stop.
const STOP_TIME: Duration = Duration::from_secs(4);

/// The codes with which connections are closed: nothing is wrong, or it is not used as MQTT uses it.
const NO_ERROR: VarInt = VarInt::from_u32(0);
const NO_STREAM: VarInt = VarInt::from_u32(1);

/// What the thread is made of.
pub(crate) struct Seed {
    /// Its name.
    pub(crate) name: String,
    pub(crate) workers: Arc<Workers>,
    /// All of the server's; it takes those for QUIC.
    pub(crate) listeners: Vec<Listener>,
    pub(crate) places: Arc<Places>,
    /// To stop the workers, should the thread fail.
    pub(crate) mailboxes: Mailboxes,
    /// Called on the thread when it has ended.
    pub(crate) on_end: Box<dyn Fn() + Send>,
}

/// Starts the thread. The result says whether it ended with the workers (`true`) or failed.
pub(crate) fn start(seed: Seed) -> io::Result<JoinHandle<bool>> {
    // What can fail is made here, so that it fails before anything has started.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let listeners = seed.listeners.into_iter().filter(Listener::is_quic);
    let doors = listeners.map(|listener| Door::new(listener, &seed.workers, &seed.places));
    let doors: Vec<_> = doors.collect::<io::Result<_>>()?;
    drop(entered);
    let (workers, mailboxes, on_end) = (seed.workers, seed.mailboxes, seed.on_end);
    std::thread::Builder::new().name(seed.name).spawn(move || {
        let run = || runtime.block_on(run(doors, &workers));
        let outcome = catch_unwind(AssertUnwindSafe(run));
        if outcome.is_err() {
            // The panic itself was printed by the panic hook.
            tracing::error!("the thread for QUIC has panicked, which is a bug of the server; the server stops");
            stop_all(&mailboxes);
        }
        on_end();
        outcome.is_ok()
    })
}

/// Takes connections until the workers stop, and then waits for those that there are to end.
async fn run(doors: Vec<Arc<Door>>, workers: &Workers) {
    let mut taking = JoinSet::new();
    for door in &doors {
        taking.spawn(Arc::clone(door).take_all());
    }
    while !workers.is_stopping() {
        workers.quic_bell().notified().await;
    }
    for door in &doors {
        door.endpoint.set_server_config(None);
    }
    let ended = async {
        for door in &doors {
            door.endpoint.wait_idle().await;
        }
    };
    // Workers close what they have; what is left then has not got as far as to one of them.
    let _ = tokio::time::timeout(STOP_TIME, ended).await;
}

/// One listener.
struct Door {
    listener: Listener,
    endpoint: Endpoint,
    workers: Arc<Workers>,
    places: Arc<Places>,
    offer: Offer,
}

impl Door {
    fn new(listener: Listener, workers: &Arc<Workers>, places: &Arc<Places>) -> io::Result<Arc<Self>> {
        let socket = rustix::io::fcntl_dupfd_cloexec(&listener, 0)?.into();
        let offer = Offer::new(transport());
        let config = offer.now(&listener)?;
        let endpoint =
            Endpoint::new(EndpointConfig::default(), Some((*config).clone()), socket, Arc::new(TokioRuntime))?;
        let (workers, places) = (Arc::clone(workers), Arc::clone(places));
        Ok(Arc::new(Self { listener, endpoint, workers, places, offer }))
    }

    async fn take_all(self: Arc<Self>) {
        let mut guests = JoinSet::new();
        while let Some(incoming) = self.endpoint.accept().await {
            // What those have led to that have ended is known.
            while guests.try_join_next().is_some() {}
            let peer = incoming.remote_address();
            if self.places.is_full() {
                incoming.refuse();
            } else if self.places.is_half_full() && !incoming.remote_address_validated() && incoming.may_retry() {
                // Whoever gives a false address never answers.
                let _ = incoming.retry();
            } else {
                let (door, place) = (Arc::clone(&self), self.places.take());
                guests.spawn(async move {
                    if let Err(why) = door.serve(incoming, place).await {
                        tracing::debug!(listener = door.listener.name(), %peer, "a connection {why}");
                    }
                });
            }
        }
        // Those that are here go on until they have ended.
        while guests.join_next().await.is_some() {}
    }

    /// Takes a client through its handshake, gives it to a worker, and moves bytes until it ends. The error says what it has
    /// done wrong.
    async fn serve(&self, incoming: Incoming, place: Place) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(self.places.timeout_ms());
        let late = |_| "has not got through its handshake in time".to_owned();
        let config = self.offer.now(&self.listener).map_err(|error| error.to_string())?;
        let connecting = incoming.accept_with(config).map_err(|error| error.to_string())?;
        let connected = tokio::time::timeout_at(deadline, connecting).await.map_err(late)?;
        let connection = connected.map_err(|error| format!("has not got through its handshake: {error}"))?;
        let stream = tokio::time::timeout_at(deadline, connection.accept_bi()).await.map_err(late)?;
        let (to_peer, from_peer) = stream.map_err(|error| format!("has opened no stream: {error}"))?;
        let ours = match self.give_to_worker(&connection, place) {
            Ok(ours) => ours,
            Err(why) => {
                connection.close(NO_STREAM, b"");
                return Err(why);
            }
        };
        pump::run(ours, to_peer, from_peer).await;
        connection.close(NO_ERROR, b"");
        Ok(())
    }

    /// Gives one end of a pair of sockets to a worker, and returns the other one.
    fn give_to_worker(&self, connection: &Connection, place: Place) -> Result<UnixStream, String> {
        let details = PeerDetails {
            transport: TransportKind::Quic,
            tls: Some(Box::new(tls::details(connection)?)),
            ..PeerDetails::default()
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let pair = net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (ours, theirs) = pair.map_err(|error| format!("is closed, as there are no sockets for it: {error}"))?;
        let ours = UnixStream::from_std(ours.into()).map_err(|error| error.to_string())?;
        let peer = canonical(connection.remote_address());
        self.workers.welcome(Arrived::new(theirs, peer, self.listener.clone(), details, place));
        Ok(ours)
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_BYTES_MAX))
        .receive_window(VarInt::from_u32(STREAM_BYTES_MAX))
        .send_window(STREAM_BYTES_MAX.into())
        .max_idle_timeout(Some(IDLE_MAX.try_into().expect("a minute can be expressed")))
        .keep_alive_interval(Some(ASK_EVERY));
    transport
}
