//! Writes a recording: a thread of its own, which makes a line of each note.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
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

/// How long what was noted may wait before it is in the file.
const FLUSH: Duration = Duration::from_secs(1);

/// How often it is looked whether another process has let the file go.
const LOOK: Duration = Duration::from_millis(100);

/// How long the end of a server waits for what is still to be written.
const FINISH: Duration = Duration::from_secs(3);

/// Where calls are written to, and how much of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The file. What is there already stays, and is gone on with.
    pub path: PathBuf,
    /// Whether passwords, Authentication Data, exported states, queries of WebSockets' URLs and headers that may let somebody in
    /// are written as well.
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
    /// The file cannot be opened or written, or another host records into it.
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
        let (notes, has_ended) = (Arc::<Notes>::default(), Arc::new(AtomicBool::new(false)));
        let lines = Lines {
            file: BufWriter::with_capacity(64 * 1024, file),
            path: recording.path.clone(),
            secrets: recording.secrets,
            bytes_left: recording.bytes_max,
            begun: Instant::now(),
            open: HashMap::new(),
            lost: 0,
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

/// The lines of a file.
struct Lines {
    file: BufWriter<File>,
    path: PathBuf,
    secrets: bool,
    bytes_left: u64,
    begun: Instant,
    /// Questions whose answers come later.
    open: HashMap<u64, Asked>,
    lost: u64,
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
            Ok(()) => tracing::info!(file, lost = self.lost, "the recording is complete"),
            Err(Over::Full) => tracing::warn!(file, "the recording has all the bytes that it may have, and ends here"),
            Err(Over::Failed(error)) => tracing::error!(file, %error, "the recording ends: it cannot be written"),
        }
    }

    /// Waits until the process has ended that has written so far. `false`: this one ends before.
    fn wait_for_file(&self, notes: &Notes) -> bool {
        while flock(self.file.get_ref(), FlockOperation::NonBlockingLockExclusive).is_err() {
            if notes.is_closed() {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    fn write_all(&mut self, notes: &Notes, continues: bool) -> Result<(), Over> {
        let size = self.file.get_ref().metadata()?.len();
        self.bytes_left = self.bytes_left.saturating_sub(size);
        let is_cut = self.ends_in_half_a_line(size)?;
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
        self.text(&format!("{}{begin}\n", if is_cut { "\n" } else { "" }))?;
        loop {
            let Taken { notes: taken, lost, is_last } = notes.take(FLUSH);
            for note in &taken {
                self.note(note)?;
            }
            if lost > 0 {
                if self.lost == 0 {
                    tracing::warn!("calls are missing in the recording: there are more than can be written");
                }
                self.lost += lost;
                self.line(&json!({"at": self.seconds(Instant::now()), "lost": lost}))?;
            }
            self.file.flush()?;
            if is_last {
                return Ok(());
            }
        }
    }

    fn ends_in_half_a_line(&self, size: u64) -> io::Result<bool> {
        let mut last = [b'\n'];
        if let Some(at) = size.checked_sub(1) {
            self.file.get_ref().read_at(&mut last, at)?;
        }
        Ok(last != [b'\n'])
    }

    fn seconds(&self, at: Instant) -> f64 {
        (at.saturating_duration_since(self.begun).as_secs_f64() * 1e6).round() / 1e6
    }

    fn line(&mut self, value: &Value) -> Result<(), Over> {
        let mut line = value.to_string();
        line.push('\n');
        self.text(&line)
    }

    fn text(&mut self, text: &str) -> Result<(), Over> {
        let bytes = text.len() as u64;
        if bytes > self.bytes_left {
            self.file.flush()?;
            return Err(Over::Full);
        }
        self.bytes_left -= bytes;
        Ok(self.file.write_all(text.as_bytes())?)
    }

    fn note(&mut self, note: &Note) -> Result<(), Over> {
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
            What::Loaded { version, api_version, callbacks } => {
                put("loaded", version.as_str().into());
                put("api_version", api_version.as_str().into());
                put("callbacks", callbacks.iter().map(Callback::name).collect());
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
        self.line(&Value::Object(fields))
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
