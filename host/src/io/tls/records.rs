//! One TLS connection: bytes in, bytes out.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};

use super::certificates::take_name_asked_for;
use super::identity;
use crate::core::peer::TlsDetails;
use crate::io::transform::{Broken, Flow};

/// What a record has beyond its content, at most: header, explicit nonce, content type and tag.
const RECORD_OVERHEAD_BYTES: usize = 5 + 8 + 1 + 16;

/// Content of a record, at most.
const RECORD_BYTES_MAX: usize = 16 << 10;

/// The server's side of a TLS connection, from its handshake to its end.
pub(crate) struct Records {
    connection: UnbufferedServerConnection,
    /// The name that the client has asked for, until it was told.
    server_name: Option<Box<str>>,
}

/// How far a handshake has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// It waits for the peer.
    Waits,
    /// It is over.
    Done,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

impl Records {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self { connection, server_name: None })
    }

    /// What the handshake has found out, once it is over.
    ///
    /// # Errors
    /// The client is not to be let in.
    pub(crate) fn details(&mut self) -> Result<TlsDetails, String> {
        identity::details(&self.connection, self.server_name.take())
    }

    /// Goes on with the handshake as far as `wire` goes. `at` counts the bytes that are not needed any more; the rest has to
    /// come again, with what follows. What the peer is to be sent is appended to `reply`, also where it is to be told why the
    /// handshake has failed.
    pub(crate) fn shake_hands(
        &mut self,
        wire: &mut [u8],
        at: &mut usize,
        reply: &mut Vec<u8>,
    ) -> Result<Handshake, Broken> {
        guarded(|| self.go_on(wire, at, reply).map_err(|error| Broken(error.to_string())))
    }

    fn go_on(&mut self, wire: &mut [u8], at: &mut usize, reply: &mut Vec<u8>) -> Result<Handshake, rustls::Error> {
        loop {
            let UnbufferedStatus { discard, state, .. } = self.connection.process_tls_records(&mut wire[*at..]);
            let outcome = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, reply);
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::BlockedHandshake) => Some(Ok(Handshake::Waits)),
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::ReadTraffic(_)) => Some(Ok(Handshake::Done)),
                Ok(_) => Some(Err(rustls::Error::General("the peer has closed the connection".to_owned()))),
                Err(error) => Some(Err(error)),
            };
            *at += discard;
            if let Some(name) = take_name_asked_for() {
                self.server_name = Some(name);
            }
            match outcome {
                Some(Err(error)) => {
                    self.take_alert(&mut wire[*at..], reply);
                    return Err(error);
                }
                Some(outcome) => return outcome,
                None => {}
            }
        }
    }

    /// Appends the content of the complete records in `wire` to `plain`, as [`Records::shake_hands`] does otherwise.
    pub(crate) fn open(
        &mut self,
        wire: &mut [u8],
        at: &mut usize,
        plain: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Flow, Broken> {
        guarded(|| self.open_records(wire, at, plain, reply))
    }

    fn open_records(
        &mut self,
        wire: &mut [u8],
        at: &mut usize,
        plain: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Flow, Broken> {
        let mut flow = Flow::Open;
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.connection.process_tls_records(&mut wire[*at..]);
            let mut is_over = false;
            let mut failed = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                plain.extend_from_slice(record.payload);
                            }
                            Err(error) => failed = Some(error),
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, reply),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => flow = Flow::Ended,
                Ok(ConnectionState::Closed) => (flow, is_over) = (Flow::Ended, true),
                // All that was complete has been opened.
                Ok(_) => is_over = true,
                Err(error) => failed = Some(error),
            }
            *at += discard;
            if let Some(error) = failed {
                self.take_alert(&mut wire[*at..], reply);
                return Err(Broken(error.to_string()));
            }
            if is_over {
                return Ok(flow);
            }
        }
    }

    /// Appends records with `plain` to `wire`. `unread` is what was left of the bytes that were opened last.
    pub(crate) fn seal(&mut self, plain: &[u8], unread: &mut [u8], wire: &mut Vec<u8>) -> Result<(), Broken> {
        let records = plain.len().div_ceil(RECORD_BYTES_MAX);
        let bytes = plain.len() + records * RECORD_OVERHEAD_BYTES;
        guarded(|| self.write(unread, wire, bytes, |traffic, wire| traffic.encrypt(plain, wire)))
    }

    /// Appends to `wire` that nothing more comes from us.
    pub(crate) fn close(&mut self, unread: &mut [u8], wire: &mut Vec<u8>) {
        // Where it cannot be said, the connection has failed, and the peer was told so.
        let _ = guarded(|| self.write(unread, wire, 64, |traffic, wire| traffic.queue_close_notify(wire)));
    }

    /// Has something written to the end of `wire`, which takes so many bytes most probably.
    fn write(
        &mut self,
        unread: &mut [u8],
        wire: &mut Vec<u8>,
        bytes: usize,
        mut write: impl FnMut(&mut Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), Broken> {
        loop {
            // It wants to see what is incomplete, as it knows places in it.
            match self.connection.process_tls_records(unread).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, wire),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => {}
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    return append(wire, bytes, |room| write(&mut traffic, room));
                }
                Ok(other) => return Err(Broken(format!("nothing can be sent any more: {other:?}"))),
                Err(error) => return Err(Broken(error.to_string())),
            }
        }
    }

    /// Appends what the peer is to be told about the error that was found. What else has come is not looked at any more.
    fn take_alert(&mut self, wire: &mut [u8], reply: &mut Vec<u8>) {
        while self.connection.wants_write() {
            match self.connection.process_tls_records(wire).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, reply),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => while traffic.next_record().is_some() {},
                _ => return,
            }
        }
    }
}

type Traffic<'a> = rustls::unbuffered::WriteTraffic<'a, rustls::server::ServerConnectionData>;

/// Should there be a panic in what a peer has brought about, its connection has failed, and no other.
fn guarded<T>(run: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(Broken("TLS has failed, which is a bug".to_owned())))
}

/// Appends `bytes` that `write` fills, or as many as it says that it needs.
fn append(
    wire: &mut Vec<u8>,
    mut bytes: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), Broken> {
    let start = wire.len();
    loop {
        wire.resize(start + bytes, 0);
        match write(&mut wire[start..]) {
            Ok(written) => {
                wire.truncate(start + written);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) if required_size > bytes => {
                bytes = required_size;
            }
            Err(error) => {
                wire.truncate(start);
                return Err(Broken(error.to_string()));
            }
        }
    }
}

/// Appends a record that rustls has made.
fn encode<D>(data: &mut rustls::unbuffered::EncodeTlsData<'_, D>, reply: &mut Vec<u8>) {
    let start = reply.len();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = data.encode(&mut []) {
        reply.resize(start + required_size, 0);
        let written = data.encode(&mut reply[start..]).unwrap_or(0);
        reply.truncate(start + written);
    }
}
