//! The socket of a listener, from which nothing is taken while another process is to have it.
//!
//! In an upgrade both processes have the socket. What the old one takes, the new one never sees: a client that was told to
//! connect again would have to ask a second time, after a second. So the old one takes nothing from before its clients are told;
//! what it sends still leaves.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};

use crate::io::worker::Workers;

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    socket: Arc<dyn AsyncUdpSocket>,
    workers: Arc<Workers>,
    /// Who has wanted something while it was shut.
    waits: Mutex<Option<Waker>>,
}

impl Gate {
    pub(super) fn new(socket: UdpSocket, workers: Arc<Workers>) -> io::Result<Arc<Self>> {
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        Ok(Arc::new(Self { socket, workers, waits: Mutex::default() }))
    }

    /// It may be open again.
    pub(super) fn look_again(&self) {
        if let Some(waker) = self.waits.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

impl AsyncUdpSocket for Gate {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.workers.pause().is_shut() {
            *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.socket.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
