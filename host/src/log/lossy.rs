//! Lines that nobody waits for: a worker that logs goes on, whether they are read or not.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

/// Bytes of lines that wait for a slow reader. What comes beyond them is lost, and counted.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// What a pipe takes at once if it takes anything (PIPE_BUF of Linux).
const AT_ONCE_BYTES_MAX: usize = 4096;

/// Where lines go.
///
/// A line is written at once where the output takes it without waiting, which is nearly always: so it is there even if the
/// process crashes with the next instruction, as it may in a plugin. What the output does not take waits for a thread
/// ([`Lossy::run`]), up to a bound, and everything behind it too, so that lines keep their order.
pub(super) struct Lossy<W> {
    output: W,
    /// If it is a terminal, the same opened once more for writes that do not wait. A terminal says that it takes something
    /// even if that is less than a line, and its own file is shared with whoever has started us.
    terminal: Option<OwnedFd>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<u8>,
    /// Bytes that the thread is writing.
    writing: usize,
    /// Lines that did not fit since that was last told.
    lost: u64,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.writing == 0
    }
}

impl<W> Lossy<W>
where
    W: AsFd,
    for<'a> &'a W: Write,
{
    pub(super) fn new(output: W) -> Self {
        let terminal = if output.as_fd().is_terminal() { open_again(&output).ok() } else { None };
        Self { output, terminal, queue: Mutex::default(), changed: Condvar::new() }
    }

    /// Takes a line with its end.
    pub(super) fn put(&self, mut line: &[u8]) {
        let mut queue = self.lock();
        if queue.is_empty() && line.len() <= AT_ONCE_BYTES_MAX {
            line = &line[self.write_at_once(line)..];
            if line.is_empty() {
                return;
            }
        }
        if queue.waiting.len() + queue.writing + line.len() > WAITING_BYTES_MAX {
            queue.lost += 1;
            return;
        }
        queue.waiting.extend_from_slice(line);
        self.changed.notify_all();
    }

    /// Writes what waits, and has `tell` say how many lines were lost behind it. Never returns.
    pub(super) fn run(&self, mut tell: impl FnMut(u64)) -> ! {
        loop {
            let mut queue = self.lock();
            while queue.waiting.is_empty() && queue.lost == 0 {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let lines = std::mem::take(&mut queue.waiting);
            queue.writing = lines.len();
            drop(queue);
            self.write(&lines);
            let mut queue = self.lock();
            queue.writing = 0;
            // Those, too, for which there was no room while it was written.
            let lost = std::mem::take(&mut queue.lost);
            drop(queue);
            self.changed.notify_all();
            if lost > 0 {
                tell(lost);
            }
        }
    }

    /// Waits until everything is written, for so long at most.
    pub(super) fn finish(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut queue = self.lock();
        while !queue.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until it takes some bytes, or fails. `false` if that is not so after this time.
    fn takes_more(&self, patience: Option<Timespec>) -> bool {
        poll(&mut [PollFd::new(&self.output, PollFlags::OUT)], patience.as_ref()).is_ok_and(|ready| ready > 0)
    }

    /// Writes what the output takes without waiting. Returns how many bytes that is.
    fn write_at_once(&self, line: &[u8]) -> usize {
        let written = match &self.terminal {
            Some(terminal) => rustix::io::write(terminal, line).map_err(io::Error::from),
            None if self.takes_more(Some(Timespec { tv_sec: 0, tv_nsec: 0 })) => (&self.output).write(line),
            None => Ok(0),
        };
        match written {
            Ok(count) => count,
            Err(error) if is_for_now(&error) => 0,
            Err(_) => line.len(),
        }
    }

    /// What cannot be written is lost, and nothing else: the reader may have gone, or the disk be full.
    fn write(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match (&self.output).write(bytes) {
                Ok(0) => return,
                Ok(count) => bytes = &bytes[count..],
                // Whoever has started us may have made it one that does not wait.
                Err(error) if is_for_now(&error) => drop(self.takes_more(None)),
                Err(_) => return,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a terminal once more, for writes that do not wait.
fn open_again(terminal: &impl AsFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", terminal.as_fd().as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Whether it may be written to later.
fn is_for_now(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{PipeReader, PipeWriter, Read, pipe};
    use std::sync::Arc;

    use rustix::pty::{self, OpenptFlags};

    use super::*;

    /// A log with its thread, which tells of lost lines in a line.
    fn log_to<W>(output: W) -> Arc<Lossy<W>>
    where
        W: AsFd + Send + Sync + 'static,
        for<'a> &'a W: Write,
    {
        let log = Arc::new(Lossy::new(output));
        let runs = Arc::clone(&log);
        std::thread::spawn(move || runs.run(|lost| runs.put(format!("lost {lost}\n").as_bytes())));
        log
    }

    /// A log into a pipe.
    fn log() -> (Arc<Lossy<PipeWriter>>, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        (log_to(writer), reader)
    }

    #[test]
    fn a_line_is_there_at_once_where_somebody_reads() {
        let (log, mut reader) = log();
        for number in 0..100 {
            let line = format!("line {number}\n");
            log.put(line.as_bytes());
            // Of the thread's own accord nothing would be there for sure.
            assert!(log.lock().is_empty());
            let mut got = vec![0; line.len()];
            reader.read_exact(&mut got).unwrap();
            assert_eq!(got, line.as_bytes());
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_and_what_does_not_fit_is_counted() {
        let (log, mut reader) = log();
        let line = |number: usize| format!("{number:0>999}\n");
        // More than there is room for in the pipe and behind it.
        let sent = 2 * WAITING_BYTES_MAX / 1000;
        (0..sent).for_each(|number| log.put(line(number).as_bytes()));
        let begun = Instant::now();
        log.finish(Duration::from_millis(10));
        assert!(begun.elapsed() >= Duration::from_millis(10), "it cannot be empty");
        // Longer than what is written at once.
        let long = format!("{}\n", "x".repeat(2 * AT_ONCE_BYTES_MAX));
        let (mut text, mut buffer) = (String::new(), [0; 5000]);
        while !text.contains("lost ") {
            let count = reader.read(&mut buffer).unwrap();
            text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        log.put(long.as_bytes());
        while !text.ends_with(&long) {
            let count = reader.read(&mut buffer).unwrap();
            text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        log.finish(Duration::from_secs(60));
        let lines: Vec<&str> = text.lines().collect();
        let [kept @ .., told, last] = &lines[..] else { panic!("{} lines", lines.len()) };
        for (number, got) in kept.iter().enumerate() {
            assert_eq!(**got, *line(number).trim_end(), "whole, and in their order");
        }
        assert_eq!(*told, format!("lost {}", sent - kept.len()));
        assert_eq!(*last, long.trim_end());
        assert!((WAITING_BYTES_MAX / 1000..sent).contains(&kept.len()), "{} of {sent}", kept.len());
    }

    #[test]
    fn a_reader_that_has_gone_is_no_reason_to_wait() {
        let (log, reader) = log();
        drop(reader);
        (0..5000).for_each(|_| log.put(&[b'x'; 1000]));
        log.finish(Duration::from_secs(60));
        assert!(log.lock().is_empty());
    }

    /// A terminal has room for less than a line before it has none.
    #[test]
    fn nobody_waits_for_a_terminal_that_stands_still() {
        let screen = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        pty::unlockpt(&screen).unwrap();
        let path = pty::ptsname(&screen, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let log = log_to(File::from(rustix::fs::open(path.as_c_str(), flags, Mode::empty()).unwrap()));
        let line = |number: usize| format!("{number:0>149}\n");
        log.put(line(0).as_bytes());
        assert!(log.lock().is_empty(), "it is there at once");
        (1..2000).for_each(|number| log.put(line(number).as_bytes()));
        assert!(!log.lock().is_empty(), "more than there is room for");
        let (mut screen, mut text, mut buffer) = (File::from(screen), String::new(), [0; 5000]);
        while text.len() < 2000 * 151 {
            let count = screen.read(&mut buffer).unwrap();
            text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        // Terminals begin lines by themselves.
        assert!(text.split_terminator("\r\n").eq((0..2000).map(|number| line(number).trim_end().to_owned())));
    }

    /// Whoever has started us may have made it so.
    #[test]
    fn lines_are_whole_where_the_output_itself_does_not_wait() {
        let (mut reader, writer) = pipe().unwrap();
        rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
        let log = log_to(writer);
        let line = |number: usize| format!("{number:0>999}\n");
        (0..500).for_each(|number| log.put(line(number).as_bytes()));
        let mut got = vec![0; 500 * 1000];
        reader.read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8(got).unwrap(), (0..500).map(line).collect::<String>());
    }
}
