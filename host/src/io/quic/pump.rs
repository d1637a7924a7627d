//! Moves bytes between the stream of a client and the socket of its worker.

use std::io;
use std::time::Duration;

use quinn::{RecvStream, SendStream};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::io::pause::Pause;

/// Bytes that are taken at once, and that are on their way here.
const PIECE_BYTES: usize = 16 << 10;

/// Time that a client has to acknowledge the last bytes, once its worker has closed.
const LAST_BYTES_TIME: Duration = Duration::from_secs(3);

/// The same while another process takes over: no acknowledgement is taken, and what is sent has this time to leave.
const HANDED_OVER_TIME: Duration = Duration::from_millis(100);

/// Until both have ended, or one has failed. What a worker has said before it closed is with the client then, if that takes it.
pub(super) async fn run(worker: UnixStream, mut to_peer: SendStream, from_peer: RecvStream, pause: &Pause) {
    let (from_worker, to_worker) = worker.into_split();
    let outward = async {
        let moved = out(from_worker, &mut to_peer).await;
        if moved.is_ok() && to_peer.finish().is_ok() {
            let time = if pause.is_shut() { HANDED_OVER_TIME } else { LAST_BYTES_TIME };
            let _ = tokio::time::timeout(time, to_peer.stopped()).await;
        }
    };
    let inward = into(from_peer, to_worker);
    tokio::pin!(outward, inward);
    tokio::select! {
        // The worker has closed: whatever the client may still say, nobody hears it.
        () = &mut outward => {}
        failed = &mut inward => {
            if failed.is_ok() {
                // The client has said all, and hears what it is answered.
                outward.await;
            }
        }
    }
}

/// What the client says. Ends when it has said all; fails when the connection is lost, or nobody listens.
async fn into(mut from_peer: RecvStream, mut to_worker: OwnedWriteHalf) -> io::Result<()> {
    while let Some(chunk) = from_peer.read_chunk(PIECE_BYTES, true).await? {
        to_worker.write_all(&chunk.bytes).await?;
    }
    to_worker.shutdown().await
}

/// What the client is told. Ends when the worker has closed; fails when the connection is lost.
async fn out(from_worker: OwnedReadHalf, to_peer: &mut SendStream) -> io::Result<()> {
    loop {
        from_worker.readable().await?;
        // Only while there is something: an idle client holds no buffer.
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        match from_worker.try_read_buf(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(_) => to_peer.write_all(&piece).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // It was closed with something unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
