//! Lines over a socket, bounded in length and in time.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Bytes that are asked for at a time.
const CHUNK_BYTES: usize = 4096;

/// Why there is no line.
#[derive(Debug)]
pub(super) enum NoLine {
    /// The other side has closed the connection before a line was complete. `true` if a part of one had come.
    Ended(bool),
    /// It was not complete at the deadline.
    TimedOut,
    /// It is longer than it may be.
    TooLong,
    /// The socket failed.
    Failed(io::Error),
}

/// A connection on which lines come and go.
#[derive(Debug)]
pub(super) struct Lines {
    stream: UnixStream,
    /// What has come behind the last line.
    unread: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, unread: Vec::new() }
    }

    /// The next line, without its end.
    pub(super) fn read(&mut self, bytes_max: usize, deadline: Instant) -> Result<Vec<u8>, NoLine> {
        let mut looked_at = 0;
        loop {
            if let Some(found) = self.unread[looked_at..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.unread.drain(..=looked_at + found).collect();
                line.pop();
                return if line.len() > bytes_max { Err(NoLine::TooLong) } else { Ok(line) };
            }
            looked_at = self.unread.len();
            if looked_at > bytes_max {
                return Err(NoLine::TooLong);
            }
            let mut chunk = [0; CHUNK_BYTES];
            self.stream.set_read_timeout(Some(left(deadline).ok_or(NoLine::TimedOut)?)).map_err(NoLine::Failed)?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(NoLine::Ended(looked_at > 0)),
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
                Err(error) if is_temporary(&error) => {}
                Err(error) => return Err(NoLine::Failed(error)),
            }
        }
    }

    /// Whether the other side has closed the connection, or its half of it, whatever is still to be read.
    pub(super) fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        let is_told = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|count| count > 0);
        is_told && fds[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
    }

    /// Something that ends this side's half of the connection.
    pub(super) fn interrupt(&self) -> io::Result<Interrupt> {
        Ok(Interrupt(self.stream.try_clone()?))
    }

    /// Sends a line, whose end is added.
    pub(super) fn write(&mut self, line: &str, deadline: Instant) -> io::Result<()> {
        let bytes = format!("{line}\n").into_bytes();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            self.stream.set_write_timeout(Some(left(deadline).ok_or(ErrorKind::TimedOut)?))?;
            match self.stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if is_temporary(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Says that nothing more is to be asked, and that what is waited for need not be complete: see the command `swap` with
/// `dry_run_ms`, which ends then and is answered.
#[derive(Debug)]
pub struct Interrupt(UnixStream);

impl Interrupt {
    /// Says so. If nobody is there any more, nothing happens.
    pub fn now(&self) {
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }
}

/// The time that is left, if any.
fn left(deadline: Instant) -> Option<Duration> {
    Some(deadline.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
}

/// The time-out of one call, or a signal; whether the deadline has passed is looked at next.
fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn lines_come_one_by_one() {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        let mut lines = Lines::new(ours);
        peer.write_all(b"one\n\ntwo\nrest").unwrap();
        for expected in ["one", "", "two"] {
            assert_eq!(lines.read(5, soon()).unwrap(), expected.as_bytes());
        }
        drop(peer);
        assert!(matches!(lines.read(5, soon()), Err(NoLine::Ended(true))));
    }

    #[test]
    fn length_is_bounded_with_and_without_an_end() {
        let table: [(&[u8], bool); 4] =
            [(b"12345\n", true), (b"123456\n", false), (b"123456", false), (b"12345", true)];
        for (sent, fits) in table {
            let (mut peer, ours) = UnixStream::pair().unwrap();
            peer.write_all(sent).unwrap();
            drop(peer);
            let too_long = matches!(Lines::new(ours).read(5, soon()), Err(NoLine::TooLong));
            assert_eq!(too_long, !fits, "{}", String::from_utf8_lossy(sent));
        }
        let (peer, ours) = UnixStream::pair().unwrap();
        drop(peer);
        assert!(matches!(Lines::new(ours).read(5, soon()), Err(NoLine::Ended(false))));
    }

    #[test]
    fn other_side_has_ended_when_it_says_nothing_more() {
        let pair = || {
            let (peer, ours) = UnixStream::pair().unwrap();
            (Lines::new(peer), Lines::new(ours))
        };
        let (mut peer, ours) = pair();
        peer.write("more", soon()).unwrap();
        assert!(!ours.has_ended());
        peer.interrupt().unwrap().now();
        assert!(ours.has_ended());
        let (peer, ours) = pair();
        drop(peer);
        assert!(ours.has_ended());
    }

    #[test]
    fn nothing_takes_longer_than_its_deadline() {
        let (peer, ours) = UnixStream::pair().unwrap();
        let mut lines = Lines::new(ours);
        assert!(matches!(lines.read(5, Instant::now() + Duration::from_millis(10)), Err(NoLine::TimedOut)));
        // More than the buffers of the sockets take, and nobody reads.
        let error = lines.write(&"x".repeat(8 << 20), Instant::now() + Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(peer);
        assert_eq!(lines.write("x", soon()).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
