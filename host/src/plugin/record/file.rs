//! Writes a recording: a thread of its own, which makes a line of each note.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use plugin_api::Callback;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use super::super::instance::Plugin;
use super::super::services::NO_CONNECTION;
use super::VERSION;
use super::answer::{Asked, answer_json};
use super::json::Fields;
use super::notes::{Note, Notes, Taken, What};
use super::peer::put_peer;
use super::request::config_json;

/// How long what was noted may wait before it is in the file.
const FLUSH: Duration = Duration::from_secs(1);

/// How long nothing is written after that has failed.
const RETRY: Duration = Duration::from_secs(1);

/// Bytes that are written at once, about.
const CHUNK_BYTES: usize = 64 * 1024;

/// How often it is looked whether another process has let the file go.
const LOOK: Duration = Duration::from_millis(100);

/// How long the end of a server waits for what is still to be written.
const FINISH: Duration = Duration::from_secs(3);

/// Where calls are written to, and how much of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The file. A recording that is there already stays, and is gone on with.
    pub path: PathBuf,
    /// Whether passwords, Authentication Data, exported states, configurations, queries of WebSockets' URLs and headers that
    /// may let somebody in are written as well.
    pub secrets: bool,
    /// Bytes that the file may have. At the end of them recording ends, and the log says so.
    pub bytes_max: u64,
}

/// Writes down what the plugins of a server are asked and what they answer, until it is finished or dropped.
pub struct Recorder {
    notes: Arc<Notes>,
    has_ended: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Opens the file and begins. `continues`: the connections are those of another process, which may still be writing:
    /// what is noted waits until it has ended.
    ///
    /// # Errors
    /// The file cannot be opened or read, is no recording, or another host records into it.
    pub fn start(recording: &Recording, continues: bool) -> io::Result<Arc<Self>> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&recording.path)?;
        if !continues {
            flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
                if error == rustix::io::Errno::WOULDBLOCK {
                    io::Error::other("another host records into it: name another file, or end that one")
                } else {
                    error.into()
                }
            })?;
        }
        check_is_recording(&file)?;
        let (notes, has_ended) = (Arc::<Notes>::default(), Arc::new(AtomicBool::new(false)));
        let lines = Lines {
            file,
            path: recording.path.clone(),
            secrets: recording.secrets,
            bytes_max: recording.bytes_max,
            begun: Instant::now(),
            open: HashMap::new(),
            lost: 0,
            bytes: 0,
            chunk: Vec::with_capacity(CHUNK_BYTES),
            in_chunk: 0,
            missing: 0,
            retry_at: None,
        };
        let thread = std::thread::Builder::new().name("recorder".to_owned());
        let (taken, ended) = (Arc::clone(&notes), Arc::clone(&has_ended));
        let thread = thread.spawn(move || {
            lines.run(&taken, continues);
            taken.close();
            ended.store(true, Ordering::Release);
        })?;
        tracing::info!(file = %recording.path.display(), secrets = recording.secrets, "plugins' calls are recorded");
        Ok(Arc::new(Self { notes, has_ended, thread: Mutex::new(Some(thread)) }))
    }

    /// From now on the calls of an instance are written down.
    pub(in crate::plugin) fn attach(&self, plugin: &Plugin) {
        plugin.note_loaded(&self.notes);
        plugin.add_tap(&self.notes);
    }

    /// Writes what there is, for some seconds at most, and ends.
    pub fn finish(&self) {
        self.notes.close();
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let deadline = Instant::now() + FINISH;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            let _ = thread.join();
        } else {
            tracing::warn!("the recording is not complete: its file takes too long to be written");
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.finish();
    }
}

/// What is there already has to be a recording: nothing is added to another file that was named by mistake.
fn check_is_recording(file: &File) -> io::Result<()> {
    /// More than the first line of one has.
    const LINE_BYTES_MAX: u64 = 4096;
    let data = file.metadata()?;
    if !data.is_file() || data.len() == 0 {
        return Ok(()); // Such as a pipe, in which nothing is kept.
    }
    let mut line = Vec::new();
    BufReader::new(file.take(LINE_BYTES_MAX)).read_until(b'\n', &mut line)?;
    let begin: Value = serde_json::from_slice(&line).unwrap_or_default();
    if begin.get("recording").is_some() {
        return Ok(());
    }
    Err(io::Error::other("there is a file that is no recording: name another one, or remove it"))
}

/// The lines of a file.
struct Lines {
    file: File,
    path: PathBuf,
    secrets: bool,
    bytes_max: u64,
    begun: Instant,
    /// Questions whose answers come later.
    open: HashMap<u64, Asked>,
    /// Calls that are missing, so far.
    lost: u64,
    /// The bytes of the file, which ends with a line.
    bytes: u64,
    /// Lines that are to be written.
    chunk: Vec<u8>,
    /// How many of them are calls.
    in_chunk: u64,
    /// Calls that are missing, which the next line is to say.
    missing: u64,
    /// When it is tried again, after the file could not be written.
    retry_at: Option<Instant>,
}

/// Why recording ends before the server does.
enum Over {
    Full,
    Failed(io::Error),
}

impl From<io::Error> for Over {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl Lines {
    fn run(mut self, notes: &Notes, continues: bool) {
        if continues && !self.wait_for_file(notes) {
            return;
        }
        let file = self.path.display().to_string();
        match self.write_all(notes, continues) {
            Ok(()) if self.missing > 0 => {
                tracing::warn!(file, lost = self.lost, "the recording ends: its last calls are missing");
            }
            Ok(()) => tracing::info!(file, lost = self.lost, "the recording is complete"),
            Err(Over::Full) => tracing::warn!(file, "the recording has all the bytes that it may have, and ends here"),
            Err(Over::Failed(error)) => tracing::error!(file, %error, "the recording ends: it cannot be written"),
        }
    }

    /// Waits until the process has ended that has written so far. `false`: this one ends before.
    fn wait_for_file(&self, notes: &Notes) -> bool {
        while flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if notes.is_closed() {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    fn write_all(&mut self, notes: &Notes, continues: bool) -> Result<(), Over> {
        self.bytes = self.file.metadata()?.len();
        let is_cut = self.ends_in_half_a_line(self.bytes)?;
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let begin = json!({
            "recording": VERSION,
            "host": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "started": started.as_secs(),
            "secrets": self.secrets,
            "continues": continues,
        });
        // What a host that was killed has left of a line is not to be part of this one.
        let begin = format!("{}{begin}\n", if is_cut { "\n" } else { "" });
        while !self.begin(&begin)? {
            // Nothing can be told of what it does not begin with.
            let Taken { notes: taken, lost, is_last } = notes.take(FLUSH);
            self.lose(taken.len() as u64 + lost);
            if is_last {
                return Ok(());
            }
        }
        loop {
            let Taken { notes: taken, lost, is_last } = notes.take(FLUSH);
            for note in &taken {
                self.note(note)?;
            }
            if lost > 0 {
                if self.lost == 0 {
                    tracing::warn!("calls are missing in the recording: there are more than can be written");
                }
                self.lose(lost);
            }
            if is_last {
                // There is no later.
                self.retry_at = self.retry_at.map(|_| Instant::now());
            }
            self.say_what_is_missing()?;
            self.write();
            if is_last {
                return Ok(());
            }
        }
    }

    /// Writes the first line. `false`: not yet.
    fn begin(&mut self, line: &str) -> Result<bool, Over> {
        if self.is_to_wait() {
            return Ok(false);
        }
        self.put(line.as_bytes())?;
        self.write();
        Ok(self.retry_at.is_none())
    }

    /// Whether the file could not be written a moment ago.
    fn is_to_wait(&self) -> bool {
        self.retry_at.is_some_and(|at| Instant::now() < at)
    }

    fn lose(&mut self, calls: u64) {
        self.lost += calls;
        self.missing += calls;
    }

    fn say_what_is_missing(&mut self) -> Result<(), Over> {
        if self.missing == 0 || self.is_to_wait() {
            return Ok(());
        }
        let line = format!("{}\n", json!({"at": self.seconds(Instant::now()), "lost": self.missing}));
        self.put(line.as_bytes())?;
        // It goes first: what comes behind it is not written without it.
        let missing = std::mem::take(&mut self.missing);
        self.write();
        if self.retry_at.is_some() {
            self.missing += missing;
        }
        Ok(())
    }

    /// Writes what there is. Where that fails, as the disk is full for example, it is missing, and is tried again later.
    fn write(&mut self) {
        if self.chunk.is_empty() {
            return;
        }
        let written = self.file.write_all(&self.chunk);
        let (bytes, calls) = (self.chunk.len() as u64, std::mem::take(&mut self.in_chunk));
        self.chunk.clear();
        match written {
            Ok(()) => {
                self.bytes += bytes;
                if self.retry_at.take().is_some() {
                    let file = self.path.display().to_string();
                    tracing::info!(file, lost = self.lost, "the recording goes on, and says what is missing");
                }
            }
            Err(error) => {
                // Half a line is not to stand before the next one. Where it cannot be taken away, that one is told by replay.
                let _ = self.file.set_len(self.bytes);
                self.lose(calls);
                if self.retry_at.replace(Instant::now() + RETRY).is_none() {
                    let file = self.path.display().to_string();
                    tracing::error!(file, %error, "calls are missing in the recording: it cannot be written, and is tried again");
                }
            }
        }
    }

    fn ends_in_half_a_line(&self, size: u64) -> io::Result<bool> {
        let mut last = [b'\n'];
        if let Some(at) = size.checked_sub(1) {
            self.file.read_at(&mut last, at)?;
        }
        Ok(last != [b'\n'])
    }

    fn seconds(&self, at: Instant) -> f64 {
        (at.saturating_duration_since(self.begun).as_secs_f64() * 1e6).round() / 1e6
    }

    /// Has lines written with the next ones.
    fn put(&mut self, lines: &[u8]) -> Result<(), Over> {
        if self.bytes + (self.chunk.len() + lines.len()) as u64 > self.bytes_max {
            self.write();
            return Err(Over::Full);
        }
        self.chunk.extend_from_slice(lines);
        if self.chunk.len() >= CHUNK_BYTES {
            self.write();
        }
        Ok(())
    }

    fn note(&mut self, note: &Note) -> Result<(), Over> {
        self.say_what_is_missing()?;
        if self.missing > 0 {
            self.lose(1);
            return Ok(());
        }
        let mut fields = Fields::new();
        let mut put = |key: &str, value: Value| _ = fields.insert(key.to_owned(), value);
        put("at", self.seconds(note.at).into());
        put("plugin", (*note.plugin).into());
        if note.connection != NO_CONNECTION {
            put("connection", note.connection.into());
        }
        if !note.who.is_empty() {
            put("client", (*note.who).into());
        }
        match &note.what {
            What::Loaded { version, api_version, callbacks, config } => {
                put("loaded", version.as_str().into());
                put("api_version", api_version.as_str().into());
                put("callbacks", callbacks.iter().map(Callback::name).collect());
                fields.append(&mut config_json(config, self.secrets));
            }
            What::Begin(info) => info.with(|info| {
                put("call", "new_connection".into());
                let mut input = Fields::new();
                put_peer(&mut input, info.peer, info.listener, info.transport, self.secrets);
                put("input", input.into());
            }),
            What::Resume(_) => return Ok(()), // It is for who tries a candidate.
            What::Call { request, verdict, answer, effects } => {
                let asked = Asked::from(request);
                put("call", asked.callback.name().into());
                put("input", request.to_json(self.secrets));
                put("answer", answer_json(&asked, *verdict, answer, self.secrets));
                if !effects.is_empty() {
                    put("effects", effects.as_slice().into());
                }
                if *verdict == plugin_api::abi::Verdict::DEFERRED {
                    self.open.insert(answer.ticket, asked);
                }
            }
            What::Later { ticket, answered } => {
                // What the pool has answered stands with its question.
                let Some(asked) = self.open.remove(ticket) else { return Ok(()) };
                put("later", (*ticket).into());
                put(
                    "answer",
                    match answered {
                        Some((verdict, answer)) => answer_json(&asked, *verdict, answer, self.secrets),
                        None => json!({ "late": true }),
                    },
                );
            }
            What::End => put("call", "end".into()),
        }
        self.in_chunk += 1;
        self.put(format!("{}\n", Value::Object(fields)).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(name: &str, bytes_max: u64) -> Recording {
        let path = std::env::temp_dir().join(format!("host-recording-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Recording { path, secrets: false, bytes_max }
    }

    fn lines(recording: &Recording) -> Vec<Value> {
        let text = std::fs::read_to_string(&recording.path).expect("the file is there");
        text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
    }

    #[test]
    fn file_has_one_writer_and_is_gone_on_with() {
        let recording = recording("one", 1 << 20);
        let first = Recorder::start(&recording, false).expect("nobody else writes");
        let error = Recorder::start(&recording, false).expect_err("somebody does");
        assert!(error.to_string().contains("another host records into it"), "{error}");
        // Who takes another process's place waits until that one has ended.
        let second = Recorder::start(&recording, true).expect("it waits");
        second.notes.put("p", 2, What::End);
        first.notes.put("p", 1, What::End);
        first.finish();
        second.finish_whatever_it_takes();
        let lines = lines(&recording);
        let found: Vec<_> =
            lines.iter().map(|line| (&line["recording"], &line["continues"], &line["connection"])).collect();
        let (null, one) = (Value::Null, json!(1));
        let expected = [
            (&one, &json!(false), &null),
            (&null, &null, &one),
            (&one, &json!(true), &null),
            (&null, &null, &json!(2)),
        ];
        assert_eq!(found, expected, "{lines:#?}");
        std::fs::remove_file(&recording.path).expect("it is there");
    }

    #[test]
    fn what_was_killed_within_a_line_is_gone_on_with_in_the_next_one() {
        let recording = recording("cut", 1 << 20);
        let before = "{\"recording\":1}\n{\"at\":1,\"plug";
        std::fs::write(&recording.path, before).expect("it can be written");
        Recorder::start(&recording, false).expect("nobody else writes").finish_whatever_it_takes();
        let text = std::fs::read_to_string(&recording.path).expect("it is there");
        let begin = text.strip_prefix(before).and_then(|rest| rest.strip_prefix('\n')).expect("it stays");
        let begin: Value = serde_json::from_str(begin).expect("an object");
        assert_eq!(begin["recording"], VERSION);
        std::fs::remove_file(&recording.path).expect("it is there");
    }

    #[test]
    fn what_is_no_recording_is_not_touched() {
        let recording = recording("other", 1 << 20);
        for text in ["{\"recordings\":1}\n", "listen = 1\n", "\n", "{\"recording\":"] {
            std::fs::write(&recording.path, text).expect("it can be written");
            let error = Recorder::start(&recording, false).expect_err("it is none");
            assert!(error.to_string().contains("there is a file that is no recording"), "{error}");
            assert_eq!(std::fs::read_to_string(&recording.path).expect("it is there"), text);
        }
        std::fs::remove_file(&recording.path).expect("it is there");
    }

    #[test]
    fn file_that_cannot_be_written_holds_nobody_up() {
        let recording = Recording { path: "/dev/full".into(), secrets: false, bytes_max: 1 << 20 };
        let recorder = Recorder::start(&recording, false).expect("it can be opened");
        (0..100).for_each(|connection| recorder.notes.put("p", connection, What::End));
        recorder.finish_whatever_it_takes();
        assert!(recorder.has_ended.load(Ordering::Acquire) && recorder.notes.is_closed());
    }

    #[test]
    fn file_has_no_more_bytes_than_it_may() {
        let recording = recording("full", 400);
        let recorder = Recorder::start(&recording, false).expect("nobody else writes");
        (0..100).for_each(|connection| recorder.notes.put("p", connection, What::End));
        recorder.finish_whatever_it_takes();
        let bytes = std::fs::metadata(&recording.path).expect("it is there").len();
        assert!((300..=400).contains(&bytes), "{bytes}");
        assert!(lines(&recording).len() > 2);
        // Nothing is kept for it any more.
        assert!(recorder.notes.is_closed());
        std::fs::remove_file(&recording.path).expect("it is there");
    }

    impl Recorder {
        fn finish_whatever_it_takes(&self) {
            self.notes.close_when_taken();
            while self.thread.lock().expect("no panic").as_ref().is_some_and(|thread| !thread.is_finished()) {
                std::thread::yield_now();
            }
        }
    }
}
