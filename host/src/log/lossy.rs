//! Lines that nobody waits for: a worker that logs goes on, whether they are read or not.

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

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
        Self { output, queue: Mutex::default(), changed: Condvar::new() }
    }

    /// Takes a line with its end.
    pub(super) fn put(&self, line: &[u8]) {
        let mut queue = self.lock();
        if queue.is_empty() && line.len() <= AT_ONCE_BYTES_MAX && self.takes_more() {
            return self.write(line);
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

    /// Whether it takes some bytes without waiting, or fails at once.
    fn takes_more(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.output, PollFlags::OUT)], Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// What cannot be written is lost, and nothing else: the reader may have gone, or the disk be full.
    fn write(&self, bytes: &[u8]) {
        let _ = (&self.output).write_all(bytes);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read, pipe};
    use std::sync::Arc;

    use super::*;

    /// A log into a pipe, with its thread, which tells of lost lines in a line.
    fn log() -> (Arc<Lossy<PipeWriter>>, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        let log = Arc::new(Lossy::new(writer));
        let runs = Arc::clone(&log);
        std::thread::spawn(move || runs.run(|lost| runs.put(format!("lost {lost}\n").as_bytes())));
        (log, reader)
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
}
