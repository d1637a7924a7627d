//! The way from one process to the other: messages with bytes and descriptors, in order, over a pair of Unix sockets.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, SocketFlags, SocketType, recvmsg, sendmsg, shutdown, socketpair,
};

/// Descriptors that one message may have: the kernel takes 253 at once.
pub(super) const FDS_MAX: usize = 200;

/// Bytes that one message may have. The largest is what one session keeps.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// What a message begins with: its kind, how many descriptors come with it, and its length.
const HEAD_BYTES: usize = 8;

/// Bytes that are read at once.
const READ_BYTES: usize = 256 << 10;

/// Between two attempts while the kernel has too many descriptors on their way.
const PAUSE: Duration = Duration::from_millis(1);

/// One end.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
    /// What was read and belongs to no message yet.
    unread: Vec<u8>,
    /// How much of it was taken.
    taken: usize,
    /// Descriptors that have come. They are there before the first byte of their message can be read.
    fds: VecDeque<OwnedFd>,
}

/// A message.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) kind: u16,
    pub(super) bytes: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

/// Both ends. The second one is for the other process.
pub(super) fn pair() -> io::Result<(Channel, OwnedFd)> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    Ok((Channel::new(ours), theirs))
}

impl Channel {
    /// An end, which does not block.
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, unread: Vec::new(), taken: 0, fds: VecDeque::new() }
    }

    /// Ends it for both sides, whoever has it.
    pub(super) fn close(&self) {
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// Sends a message, at the latest at `deadline`.
    ///
    /// # Errors
    /// The other process has gone, or does not read. `InvalidInput`: this is more than one message may have.
    pub(super) fn send(&self, kind: u16, bytes: &[u8], fds: &[BorrowedFd<'_>], deadline: Instant) -> io::Result<()> {
        if fds.len() > FDS_MAX || bytes.len() > MESSAGE_BYTES_MAX {
            let (bytes, fds) = (bytes.len(), fds.len());
            let what = format!(
                "{bytes} bytes and {fds} descriptors are to be told at once: expected at most {MESSAGE_BYTES_MAX} and {FDS_MAX}"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let mut head = [0; HEAD_BYTES];
        head[..2].copy_from_slice(&kind.to_le_bytes());
        head[2..4].copy_from_slice(&narrow::<u16>(fds.len()).to_le_bytes());
        head[4..].copy_from_slice(&narrow::<u32>(bytes.len()).to_le_bytes());
        let mut sent = 0;
        while sent < HEAD_BYTES + bytes.len() {
            let rest = if sent < HEAD_BYTES { bytes } else { &bytes[sent - HEAD_BYTES..] };
            let parts = [IoSlice::new(&head[sent.min(HEAD_BYTES)..]), IoSlice::new(rest)];
            // They go with the first byte, and once.
            sent += match self.send_some(&parts, if sent == 0 { fds } else { &[] }) {
                Ok(sent) => sent,
                Err(Errno::INTR) => 0,
                Err(Errno::AGAIN) => {
                    self.wait(PollFlags::OUT, deadline)?;
                    0
                }
                Err(Errno::TOOMANYREFS) if Instant::now() < deadline => {
                    std::thread::sleep(PAUSE);
                    0
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(())
    }

    fn send_some(&self, parts: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let fits = control.push(SendAncillaryMessage::ScmRights(fds));
            debug_assert!(fits, "there is room for as many as a message may have");
        }
        sendmsg(&self.socket, parts, &mut control, SendFlags::NOSIGNAL)
    }

    /// The next message, at the latest at `deadline`.
    ///
    /// # Errors
    /// `UnexpectedEof`: the other process has gone. `TimedOut`: it says nothing. `InvalidData`: what it says makes no sense.
    pub(super) fn receive(&mut self, deadline: Instant) -> io::Result<Received> {
        let head: [u8; HEAD_BYTES] = loop {
            match self.unread[self.taken..].first_chunk() {
                Some(head) => break *head,
                None => self.read(deadline)?,
            }
        };
        let kind = u16::from_le_bytes([head[0], head[1]]);
        let fds = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if fds > FDS_MAX || length > MESSAGE_BYTES_MAX {
            return Err(invalid(format!("a message of {length} bytes and {fds} descriptors")));
        }
        self.taken += HEAD_BYTES;
        while self.unread.len() - self.taken < length {
            self.read(deadline)?;
        }
        let bytes = self.unread[self.taken..self.taken + length].to_vec();
        self.taken += length;
        if self.fds.len() < fds {
            return Err(invalid(format!(
                "{} descriptors came of {fds}: has this process run out of them?",
                self.fds.len()
            )));
        }
        Ok(Received { kind, bytes, fds: self.fds.drain(..fds).collect() })
    }

    /// Reads more.
    fn read(&mut self, deadline: Instant) -> io::Result<()> {
        self.unread.drain(..self.taken);
        self.taken = 0;
        let have = self.unread.len();
        self.unread.resize(have + READ_BYTES, 0);
        let read = loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut self.unread[have..])];
            match recvmsg(&self.socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => {
                    for message in control.drain() {
                        if let RecvAncillaryMessage::ScmRights(fds) = message {
                            self.fds.extend(fds);
                        }
                    }
                    break Ok(received.bytes);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if let Err(error) = self.wait(PollFlags::IN, deadline) {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error.into()),
            }
        };
        self.unread.truncate(have + *read.as_ref().unwrap_or(&0));
        match read? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn wait(&self, what: PollFlags, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&self.socket, what)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn narrow<T: TryFrom<usize>>(number: usize) -> T {
    T::try_from(number).ok().expect("its bound was checked")
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _, Write as _};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn ends() -> (Channel, Channel) {
        let (ours, theirs) = pair().unwrap();
        (ours, Channel::new(theirs))
    }

    /// A file with a text, for a descriptor that can be told from others.
    fn file(text: &str) -> File {
        let fd = rustix::fs::memfd_create("upgrade", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(fd);
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn text(fd: OwnedFd) -> String {
        let (mut file, mut text) = (File::from(fd), String::new());
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn messages_come_in_order_with_their_descriptors() {
        let (ours, mut theirs) = ends();
        let large: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                ours.send(1, b"one", &[], soon()).unwrap();
                for number in 0..1000 {
                    let (a, b) = (file(&format!("a{number}")), file(&format!("b{number}")));
                    ours.send(2, &[7; 100], &[a.as_fd(), b.as_fd()], soon()).unwrap();
                }
                ours.send(3, &large, &[file("large").as_fd()], soon()).unwrap();
                ours.send(4, b"", &[], soon()).unwrap();
            });
            let one = theirs.receive(soon()).unwrap();
            assert_eq!((one.kind, &one.bytes[..], one.fds.len()), (1, &b"one"[..], 0));
            for number in 0..1000 {
                let Received { kind, bytes, fds } = theirs.receive(soon()).unwrap();
                assert_eq!((kind, bytes.len()), (2, 100));
                let texts: Vec<_> = fds.into_iter().map(text).collect();
                assert_eq!(texts, [format!("a{number}"), format!("b{number}")]);
            }
            let three = theirs.receive(soon()).unwrap();
            assert!(three.kind == 3 && three.bytes == large);
            assert_eq!(three.fds.into_iter().map(text).collect::<Vec<_>>(), ["large"]);
            assert_eq!(theirs.receive(soon()).unwrap().kind, 4);
        });
    }

    #[test]
    fn who_has_gone_or_says_nothing_is_not_waited_for() {
        let (ours, mut theirs) = ends();
        let error = theirs.receive(Instant::now() + Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = ours.send(1, &vec![0; 10 << 20], &[], Instant::now() + Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(ours);
        // The beginning of the large one, and then nothing more.
        let error = theirs.receive(soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let (ours, theirs) = ends();
        drop(theirs);
        assert_eq!(ours.send(1, b"", &[], soon()).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_is_too_much_for_a_message_is_not_sent() {
        let (ours, mut theirs) = ends();
        let file = file("many");
        for (bytes, fds, expected) in [
            (vec![0; MESSAGE_BYTES_MAX + 1], 0, "1073741825 bytes and 0 descriptors"),
            (vec![], FDS_MAX + 1, "0 bytes and 201 descriptors"),
        ] {
            let error = ours.send(1, &bytes, &vec![file.as_fd(); fds], soon()).unwrap_err();
            assert!(error.kind() == io::ErrorKind::InvalidInput && error.to_string().contains(expected), "{error}");
        }
        // Nothing of it is on its way.
        ours.send(2, b"", &[], soon()).unwrap();
        assert_eq!(theirs.receive(soon()).unwrap().kind, 2);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (head, expected) in [
            ([1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], "a message of 4294967295 bytes"),
            ([1, 0, 0xff, 0, 0, 0, 0, 0], "255 descriptors"),
            ([1, 0, 1, 0, 0, 0, 0, 0], "0 descriptors came of 1"),
        ] {
            let (ours, mut theirs) = ends();
            rustix::io::write(&ours.socket, &head).unwrap();
            let error = theirs.receive(soon()).unwrap_err();
            assert!(error.kind() == io::ErrorKind::InvalidData && error.to_string().contains(expected), "{error}");
        }
    }
}
