//! One listener: who comes by its socket, and how far they get.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, Incoming, RecvStream, SendStream, TokioRuntime,
    TransportConfig, VarInt,
};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::gate::Gate;
use super::tls::{self, Offer};
use super::{Hall, NO_ERROR, NO_STREAM, pump};
use crate::core::peer::{PeerDetails, TransportKind};
use crate::io::anteroom::{Arrived, Place};
use crate::io::bind::canonical;
use crate::io::listener::Listener;

/// Bytes that a client may have sent and that no worker has taken; and those of ours that it has not acknowledged.
const STREAM_BYTES_MAX: u32 = 256 << 10;

/// A client of which nothing comes for so long is gone. QUIC has no other way to see it.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// So often a client that has nothing to say is asked, as it would have to be for NATs in between, which forget it earlier.
const ASK_EVERY: Duration = Duration::from_secs(20);

/// Clients of one listener that wait for a place. All but a few of them have shown that their address is theirs.
const WAITING_MAX: usize = 1024;

/// Time until it is looked again whether there is room.
const FULL_TIME: Duration = Duration::from_millis(10);

/// See the module.
pub(super) struct Door {
    /// What holds for those who come now. Its socket stays the same.
    listener: Mutex<Listener>,
    endpoint: Endpoint,
    gate: Arc<Gate>,
    offer: Offer,
    /// Whether somebody may come. If not, those who are here go on until they have ended.
    is_open: AtomicBool,
    changed: Notify,
    hall: Arc<Hall>,
}

impl Door {
    pub(super) fn new(listener: Listener, hall: Arc<Hall>) -> io::Result<Arc<Self>> {
        let socket = rustix::io::fcntl_dupfd_cloexec(&listener, 0)?.into();
        let gate = Gate::new(socket, Arc::clone(&hall.workers))?;
        let offer = Offer::new(transport());
        let config = Some((*offer.now(&listener)?).clone());
        let (settings, socket) = (EndpointConfig::default(), Arc::clone(&gate));
        let endpoint = Endpoint::new_with_abstract_socket(settings, config, socket, Arc::new(TokioRuntime))?;
        let (listener, is_open, changed) = (Mutex::new(listener), AtomicBool::new(true), Notify::new());
        Ok(Arc::new(Self { listener, endpoint, gate, offer, is_open, changed, hall }))
    }

    /// Whether that listener has the same socket.
    pub(super) fn is_of(&self, listener: &Listener) -> bool {
        self.listener().has_socket_of(listener)
    }

    /// What that listener says holds for those who come from now on; and somebody may come.
    pub(super) fn go_on_with(&self, listener: &Listener) -> io::Result<()> {
        // It is whole after each statement.
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = listener.clone();
        if !self.is_open() {
            let config = self.offer.now(listener)?;
            self.endpoint.set_server_config(Some((*config).clone()));
            self.set_open(true);
        }
        Ok(())
    }

    /// Nobody comes any more.
    pub(super) fn close(&self) {
        if self.is_open() {
            self.endpoint.set_server_config(None);
            self.set_open(false);
        }
    }

    /// Something may be taken from its socket again.
    pub(super) fn look_again(&self) {
        self.gate.look_again();
    }

    fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::Relaxed);
        self.changed.notify_one();
    }

    fn listener(&self) -> Listener {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets clients in until the door is closed and the last of them has gone, or the socket has failed.
    pub(super) async fn take_all(self: Arc<Self>) {
        let (mut waiting, mut guests) = (VecDeque::new(), JoinSet::new());
        loop {
            self.let_wait_no_longer(&mut waiting, &mut guests);
            let is_left = guests.is_empty() && !self.is_open();
            tokio::select! {
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.take_in(incoming, &mut waiting),
                    None => break, // Its socket has failed, which quinn has logged.
                },
                Some(_) = guests.join_next() => {}
                () = self.changed.notified() => {}
                // Workers do not say when they have taken one.
                () = sleep(FULL_TIME), if !waiting.is_empty() => {}
                // Who was closed may not have been told yet.
                () = self.endpoint.wait_idle(), if is_left => break,
            }
        }
        self.hall.workers.quic_bell().notify_one();
    }

    fn take_in(&self, incoming: Incoming, waiting: &mut VecDeque<Incoming>) {
        let (hall, peer) = (&self.hall, canonical(incoming.remote_address()));
        if hall.shared.turns_away(peer.ip(), hall.clock.now()) {
            hall.counters().connections_turned_away.add(1);
            incoming.refuse();
        } else if hall.places.is_half_full() && !incoming.remote_address_validated() && incoming.may_retry() {
            // Whoever gives a false address never answers, and nothing is kept of it.
            let _ = incoming.retry();
        } else if waiting.len() < WAITING_MAX {
            waiting.push_back(incoming);
        } else {
            // It asks again, as one whom the kernel had no room for.
            incoming.ignore();
        }
    }

    /// Begins handshakes with those who wait, as far as there are places.
    fn let_wait_no_longer(self: &Arc<Self>, waiting: &mut VecDeque<Incoming>, guests: &mut JoinSet<()>) {
        if self.hall.workers.pause().is_shut() || !self.is_open() {
            // If another process takes over, that one hears them when they ask again.
            waiting.drain(..).for_each(Incoming::ignore);
        }
        while !waiting.is_empty() && !self.hall.places.is_full() {
            let Some(incoming) = waiting.pop_front() else { return };
            let peer = canonical(incoming.remote_address());
            let (place, leave) = self.hall.take_place();
            let door = Arc::clone(self);
            guests.spawn(async move {
                let until = Instant::now() + Duration::from_millis(door.hall.places.timeout_ms());
                if let Err(failed) = door.serve(incoming, place, Patience { until, leave }).await {
                    failed.note(&door.hall, peer);
                    tracing::debug!(listener = door.listener().name(), %peer, "a connection {}", failed.why);
                }
            });
        }
        if !waiting.is_empty() {
            self.hall.turn_out_one();
        }
    }

    /// Takes a client through its handshake, gives it to a worker, and moves bytes until it ends.
    async fn serve(&self, incoming: Incoming, place: Place, patience: Patience) -> Result<(), Failed> {
        let (connection, (to_peer, from_peer)) = self.let_in(incoming, patience).await?;
        let ours = self.give_to_worker(&connection, place).inspect_err(|_| connection.close(NO_STREAM, b""))?;
        pump::run(ours, to_peer, from_peer, self.hall.workers.pause()).await;
        connection.close(NO_ERROR, b"");
        Ok(())
    }

    async fn let_in(
        &self,
        incoming: Incoming,
        mut patience: Patience,
    ) -> Result<(Connection, (SendStream, RecvStream)), Failed> {
        let has_answered = incoming.remote_address_validated();
        let config = self.offer.now(&self.listener()).map_err(|error| Failed::gone(format!("is closed: {error}")))?;
        let refused = |error| Failed::handshake(&error, has_answered);
        let connecting = incoming.accept_with(config).map_err(refused)?;
        let connection = patience.wait(connecting, has_answered).await?.map_err(refused)?;
        // By now it has answered what was sent to its address.
        let stream = patience.wait(connection.accept_bi(), true).await;
        let stream = stream.inspect_err(|_| connection.close(NO_STREAM, b""))?;
        let stream = stream.map_err(|error| Failed::gone(format!("has opened no stream: {error}")))?;
        Ok((connection, stream))
    }

    /// Gives one end of a pair of sockets to a worker, and returns the other one.
    fn give_to_worker(&self, connection: &Connection, place: Place) -> Result<UnixStream, Failed> {
        let details = PeerDetails {
            transport: TransportKind::Quic,
            tls: Some(Box::new(tls::details(connection).map_err(Failed::refused)?)),
            ..PeerDetails::default()
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let pair = net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let none = |error: io::Error| Failed::gone(format!("is closed, as there are no sockets for it: {error}"));
        let (ours, theirs) = pair.map_err(|error| none(error.into()))?;
        let ours = UnixStream::from_std(ours.into()).map_err(none)?;
        let peer = canonical(connection.remote_address());
        self.hall.workers.welcome(Arrived::new(theirs, peer, self.listener(), details, place));
        Ok(ours)
    }
}

/// How long a client has for its handshake.
struct Patience {
    until: Instant,
    /// Told if it has to leave earlier.
    leave: oneshot::Receiver<()>,
}

impl Patience {
    /// Waits for something that the client has to do.
    async fn wait<T>(&mut self, what: impl Future<Output = T>, has_answered: bool) -> Result<T, Failed> {
        let late = |why: &str, counts| Failed { why: why.to_owned(), how: How::Late, counts };
        tokio::select! {
            done = timeout_at(self.until, what) => {
                done.map_err(|_| late("has not got through its handshake in time", has_answered))
            }
            _ = &mut self.leave => Err(late("has not got through its handshake, and others wait", false)),
        }
    }
}

/// Why a client has not got in.
struct Failed {
    why: String,
    how: How,
    /// Whether it is counted against its address. Not where that may be somebody else's: who has only sent something may have
    /// given any.
    counts: bool,
}

enum How {
    /// It is not refused: it has gone, or the server lacks something.
    Gone,
    Refused,
    Late,
}

impl Failed {
    fn gone(why: String) -> Self {
        Self { why, how: How::Gone, counts: false }
    }

    fn refused(why: String) -> Self {
        Self { why, how: How::Refused, counts: true }
    }

    fn handshake(error: &ConnectionError, has_answered: bool) -> Self {
        let why = format!("has not got through its handshake: {error}");
        match error {
            ConnectionError::TransportError(error) => {
                let counts = has_answered || tls::is_about_certificate(error.code);
                Self { why, how: How::Refused, counts }
            }
            _ => Self::gone(why),
        }
    }

    fn note(&self, hall: &Hall, peer: SocketAddr) {
        match self.how {
            How::Gone => {}
            How::Refused => hall.counters().handshakes_failed.add(1),
            How::Late => hall.counters().handshakes_late.add(1),
        }
        if self.counts {
            hall.shared.note_failure(peer.ip(), hall.clock.now());
        }
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
