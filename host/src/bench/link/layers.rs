//! What is between a socket and MQTT: TLS, WebSocket, or both.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{self, RecvFlags};

use super::super::plan::Target;
use super::tls::TlsLayer;
use super::websocket::WebSocketLayer;
use crate::codec::ProtocolVersion;

/// The layers of one connection.
#[derive(Debug)]
pub(in super::super) struct Layers {
    tls: Option<TlsLayer>,
    websocket: Option<WebSocketLayer>,
    /// The request for a WebSocket, until TLS is ready for it.
    request: Vec<u8>,
    /// The start of a record that has not come in full.
    part: Vec<u8>,
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Came {
    /// Something, after which there may be more if it filled the room that there was.
    Bytes { is_full: bool },
    /// Nothing yet.
    Nothing,
    /// Nothing, as the call was interrupted.
    Interrupted,
    /// The connection is of no more use; what came before is in `plain`.
    End(String),
}

/// Room for what goes through layers, of one thread.
#[derive(Debug, Default)]
pub(in super::super) struct Room {
    wire: Vec<u8>,
    frames: Vec<u8>,
}

impl Room {
    /// For reads of so many bytes.
    pub(in super::super) fn new(bytes: usize) -> Self {
        Self { wire: vec![0; bytes], frames: Vec::new() }
    }
}

impl Layers {
    /// Those of a connection of that number; `None` where it has none.
    pub(super) fn new(target: &Target, connection: usize) -> Result<Option<Box<Self>>, String> {
        let tls = target.tls.as_ref().map(TlsLayer::new).transpose()?;
        let websocket = target.websocket.as_ref().map(|_| WebSocketLayer::new(connection as u64 + 1));
        if tls.is_none() && websocket.is_none() {
            return Ok(None);
        }
        let protocol = if target.version == ProtocolVersion::V3_1 { "mqttv3.1" } else { "mqtt" };
        let request = target.websocket.as_ref().map(|at| WebSocketLayer::request(at, protocol)).unwrap_or_default();
        Ok(Some(Box::new(Self { tls, websocket, request, part: Vec::new() })))
    }

    /// Whether MQTT may be sent.
    pub(super) fn is_ready(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.is_ready) && self.websocket.as_ref().is_none_or(WebSocketLayer::is_ready)
    }

    /// What is to be sent first of all.
    pub(super) fn begin(&mut self) -> Result<Vec<u8>, String> {
        let mut answer = Vec::new();
        self.take(&mut [], &mut Vec::new(), &mut Vec::new(), &mut answer)?;
        Ok(answer)
    }

    /// Reads once, and appends what MQTT there is to `plain`, and what is to be answered to `answer`.
    pub(in super::super) fn receive(
        &mut self,
        fd: &OwnedFd,
        flags: RecvFlags,
        room: &mut Room,
        plain: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> Came {
        let Room { wire, frames } = room;
        let kept = self.part.len();
        if wire.len() < 2 * kept {
            wire.resize(2 * kept, 0);
        }
        match net::recv(fd, &mut wire[kept..], flags) {
            Ok((0, _)) => Came::End("the broker closed it".to_owned()),
            Ok((bytes, _)) => {
                let whole = kept + bytes;
                wire[..kept].copy_from_slice(&self.part);
                self.part.clear();
                match self.take(&mut wire[..whole], frames, plain, answer) {
                    Ok(used) => {
                        self.part.extend_from_slice(&wire[used..whole]);
                        Came::Bytes { is_full: whole == wire.len() }
                    }
                    Err(why) => Came::End(why),
                }
            }
            Err(Errno::AGAIN) => Came::Nothing,
            Err(Errno::INTR) => Came::Interrupted,
            Err(errno) => Came::End(format!("its socket failed: {errno}")),
        }
    }

    /// Takes what came; returns how much of it was used.
    fn take(
        &mut self,
        wire: &mut [u8],
        frames: &mut Vec<u8>,
        plain: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> Result<usize, String> {
        let used = match (&mut self.tls, &mut self.websocket) {
            (Some(tls), None) => tls.open(wire, plain, answer)?,
            (None, Some(websocket)) => {
                websocket.open(wire, plain, answer)?;
                wire.len()
            }
            (Some(tls), Some(websocket)) => {
                frames.clear();
                let (end, used) = (wire.len(), tls.open(wire, frames, answer));
                let mut answered = Vec::new();
                // What came before TLS ended has come all the same.
                websocket.open(frames, plain, &mut answered)?;
                if !answered.is_empty() {
                    tls.seal(&answered, &mut wire[*used.as_ref().unwrap_or(&end)..], answer)?;
                }
                used?
            }
            (None, None) => unreachable!("there are no layers without a layer"),
        };
        if !self.request.is_empty() {
            let request = std::mem::take(&mut self.request);
            match &mut self.tls {
                None => answer.extend(request),
                Some(tls) if tls.is_ready => tls.seal(&request, &mut wire[used..], answer)?,
                Some(_) => self.request = request,
            }
        }
        Ok(used)
    }

    /// Appends what carries these packets.
    pub(in super::super) fn seal(&mut self, packets: &[u8], wire: &mut Vec<u8>) -> Result<(), String> {
        match (&mut self.tls, &mut self.websocket) {
            (Some(tls), None) => tls.seal(packets, &mut self.part, wire),
            (None, Some(websocket)) => {
                websocket.seal(packets, wire);
                Ok(())
            }
            (Some(tls), Some(websocket)) => {
                let mut frames = Vec::with_capacity(packets.len() + packets.len() / 2 + 16);
                websocket.seal(packets, &mut frames);
                tls.seal(&frames, &mut self.part, wire)
            }
            (None, None) => unreachable!("there are no layers without a layer"),
        }
    }

    /// Appends the end of a WebSocket, where there is one.
    pub(super) fn close(&mut self, wire: &mut Vec<u8>) {
        let Some(websocket) = &mut self.websocket else { return };
        let mut frame = Vec::new();
        websocket.close(&mut frame);
        match &mut self.tls {
            None => wire.extend(frame),
            // Whoever has ended TLS already needs no other end.
            Some(tls) => drop(tls.seal(&frame, &mut self.part, wire)),
        }
    }
}
