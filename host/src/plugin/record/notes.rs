//! What is noted of a plugin's calls while somebody listens, and where it waits for who listens.
//!
//! Who is called is never held up: a note is a copy, put into a queue that is locked for as long as that takes. What does not
//! fit there is counted.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use plugin_api::Callbacks;
use plugin_api::abi::Verdict;
use plugin_api::reading::Answer;
use serde_json::Value;

use super::super::handover::Exported;
use super::super::instance::Plugin;
use super::super::owned::{OwnedInfo, OwnedSwapped, Request};
use super::super::request::{ConnectionInfo, SwapRequest};
use super::super::services::NO_CONNECTION;
use super::effects;
use super::json::size_of_value;

/// Bytes of notes that wait for one who listens.
const BYTES_MAX: usize = 16 << 20;

/// Bytes for which he is woken before [`GATHER`] has passed.
const BATCH_BYTES: usize = 1 << 20;

/// For how long what there is waits for more. Waking somebody costs more than a note, and is done once for all of them.
const GATHER: Duration = Duration::from_millis(10);

/// Something that a plugin was asked or told, or that concerns a connection's state with it.
pub(in crate::plugin) struct Note {
    pub(super) at: Instant,
    pub(super) plugin: Arc<str>,
    /// 0 where it is about none.
    pub(super) connection: u64,
    /// Client Identifier; empty where it is not known.
    pub(super) who: Box<str>,
    pub(super) what: What,
}

pub(in crate::plugin) enum What {
    /// The plugin has been loaded.
    Loaded { version: String, api_version: String, callbacks: Callbacks, config: String },
    /// The connection has a state from now on.
    Begin(OwnedInfo),
    /// It had one before, which the plugin had exported; or not.
    Resume(Box<(OwnedSwapped, Option<Exported>)>),
    Call {
        request: Request,
        verdict: Verdict,
        answer: Answer,
        /// What it has asked of the host meanwhile.
        effects: Vec<Value>,
    },
    /// The answer that has come later; `None`: not in time.
    Later { ticket: u64, answered: Option<(Verdict, Answer)> },
    /// The state is dropped.
    End,
}

impl Note {
    /// The memory that it takes, about.
    fn bytes(&self) -> usize {
        let what = match &self.what {
            What::Loaded { config, .. } => config.len(),
            What::End => 0,
            What::Begin(info) => info.bytes(),
            What::Resume(resumed) => resumed.0.bytes() + resumed.1.as_ref().map_or(0, |state| state.bytes.len()),
            What::Call { request, answer, effects, .. } => {
                request.bytes() + answer.bytes() + effects.iter().map(size_of_value).sum::<usize>()
            }
            What::Later { answered, .. } => answered.as_ref().map_or(0, |(_, answer)| answer.bytes()),
        };
        size_of::<Self>() + self.who.len() + what
    }
}

/// Notes that wait for one who listens.
#[derive(Default)]
pub(in crate::plugin) struct Notes {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    list: VecDeque<Arc<Note>>,
    bytes: usize,
    /// How many did not fit, behind those in the list.
    lost: u64,
    is_closed: bool,
}

/// What has waited.
pub(super) struct Taken {
    pub(super) notes: VecDeque<Arc<Note>>,
    /// How many are missing behind them.
    pub(super) lost: u64,
    /// Nothing comes any more.
    pub(super) is_last: bool,
}

impl Notes {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // It is whole after each statement.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, note: &Arc<Note>) {
        let (bytes, mut waiting) = (note.bytes(), self.lock());
        if waiting.is_closed {
            return;
        }
        // Once something is missing all is, until that is known, so that it is known where.
        if waiting.lost > 0 || waiting.bytes + bytes > BYTES_MAX {
            waiting.lost += 1;
            return;
        }
        let before = waiting.bytes;
        waiting.bytes += bytes;
        waiting.list.push_back(Arc::clone(note));
        let wakes = waiting.list.len() == 1 || (before < BATCH_BYTES && waiting.bytes >= BATCH_BYTES);
        drop(waiting);
        if wakes {
            self.changed.notify_all();
        }
    }

    /// Waits until there is something, or for so long, and then a little for more.
    pub(super) fn take(&self, patience: Duration) -> Taken {
        let waiting = self.wait_while(self.lock(), patience, |waiting| waiting.list.is_empty());
        let mut waiting =
            self.wait_while(waiting, GATHER, |waiting| !waiting.list.is_empty() && waiting.bytes < BATCH_BYTES);
        waiting.bytes = 0;
        let (notes, lost) = (std::mem::take(&mut waiting.list), std::mem::take(&mut waiting.lost));
        Taken { notes, lost, is_last: waiting.is_closed }
    }

    /// Waits for so long, or until something is missing or nothing comes any more.
    fn wait_while<'a>(
        &self,
        waiting: MutexGuard<'a, Waiting>,
        patience: Duration,
        wanted: impl Fn(&Waiting) -> bool,
    ) -> MutexGuard<'a, Waiting> {
        let is_wanted = |waiting: &mut Waiting| waiting.lost == 0 && !waiting.is_closed && wanted(waiting);
        let waited = self.changed.wait_timeout_while(waiting, patience, is_wanted);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// What comes from now on is not noted. What waits is still there.
    pub(in crate::plugin) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }
}

/// Who listens to the calls of one instance of a plugin.
pub(in crate::plugin) struct Taps {
    plugin: Arc<str>,
    list: RwLock<Vec<Arc<Notes>>>,
}

impl Taps {
    pub(in crate::plugin) fn new(plugin: &str) -> Self {
        Self { plugin: plugin.into(), list: RwLock::default() }
    }

    fn push(&self, connection: u64, who: &str, what: What) {
        let (plugin, at) = (Arc::clone(&self.plugin), Instant::now());
        let note = Arc::new(Note { at, plugin, connection, who: who.into(), what });
        self.list.read().unwrap_or_else(PoisonError::into_inner).iter().for_each(|notes| notes.push(&note));
    }
}

/// Somebody listens while this call lasts.
pub(in crate::plugin) struct Listening<'a>(&'a Taps);

impl Listening<'_> {
    /// What has come of it.
    pub(in crate::plugin) fn note(
        self,
        connection: u64,
        who: &str,
        request: Request,
        verdict: Verdict,
        answer: &Answer,
        ticket: u64,
    ) {
        let mut answer = answer.clone();
        answer.ticket = ticket;
        self.0.push(connection, who, What::Call { request, verdict, answer, effects: effects::end() });
    }
}

impl Plugin {
    /// Somebody else listens from now on.
    pub(in crate::plugin) fn add_tap(&self, notes: &Arc<Notes>) {
        self.change_taps(|list| list.push(Arc::clone(notes)));
    }

    /// He listens no more.
    pub(in crate::plugin) fn remove_tap(&self, notes: &Arc<Notes>) {
        self.change_taps(|list| list.retain(|other| !Arc::ptr_eq(other, notes)));
    }

    fn change_taps(&self, change: impl FnOnce(&mut Vec<Arc<Notes>>)) {
        let mut list = self.taps().list.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut list);
        self.set_tapped(!list.is_empty());
    }

    /// Says which plugin it is.
    pub(super) fn note_loaded(&self, only: &Arc<Notes>) {
        let (plugin, at) = (Arc::clone(&self.taps().plugin), Instant::now());
        let what = What::Loaded {
            version: self.version().to_owned(),
            api_version: self.api_version().to_owned(),
            callbacks: self.callbacks(),
            config: self.config(),
        };
        only.push(&Arc::new(Note { at, plugin, connection: NO_CONNECTION, who: "".into(), what }));
    }

    /// To be called before each call that is to be noted.
    pub(in crate::plugin) fn listen(&self) -> Option<Listening<'_>> {
        self.is_tapped().then(|| {
            effects::begin();
            Listening(self.taps())
        })
    }

    /// A connection has a state of this instance.
    pub(in crate::plugin) fn note_begin(&self, info: &ConnectionInfo<'_>) {
        if self.is_tapped() {
            self.taps().push(info.connection, "", What::Begin(info.into()));
        }
    }

    /// A connection that was there before has one.
    pub(in crate::plugin) fn note_resumed(
        &self,
        request: &SwapRequest<'_>,
        state: Option<Exported>,
        only: &Arc<Notes>,
    ) {
        let swapped = OwnedSwapped::new(&request.info, &request.raw(self.version(), false));
        let (plugin, at) = (Arc::clone(&self.taps().plugin), Instant::now());
        let what = What::Resume(Box::new((swapped, state)));
        let who = request.client_id.into();
        only.push(&Arc::new(Note { at, plugin, connection: request.info.connection, who, what }));
    }

    /// It has none any more.
    pub(in crate::plugin) fn note_end(&self, connection: u64, who: &str) {
        if self.is_tapped() && connection != NO_CONNECTION {
            self.taps().push(connection, who, What::End);
        }
    }

    /// An answer that has come later than its callback returned, or has not come in time.
    pub(in crate::plugin) fn note_later(
        &self,
        connection: u64,
        who: &str,
        ticket: u64,
        answered: Option<(Verdict, &Answer)>,
    ) {
        if self.is_tapped() {
            let answered = answered.map(|(verdict, answer)| (verdict, answer.clone()));
            self.taps().push(connection, who, What::Later { ticket, answered });
        }
    }
}

#[cfg(test)]
impl Notes {
    /// Notes something about a plugin's connection.
    pub(super) fn put(&self, plugin: &str, connection: u64, what: What) {
        self.push(&Arc::new(Note { at: Instant::now(), plugin: plugin.into(), connection, who: "".into(), what }));
    }

    /// Closes once what waits has been taken.
    pub(super) fn close_when_taken(&self) {
        while !self.is_closed() {
            let mut waiting = self.lock();
            waiting.is_closed |= waiting.list.is_empty();
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::transport::show;
    use super::*;
    use crate::core::peer::{HttpDetails, HttpHeader, PeerDetails};

    fn note(bytes: usize) -> Arc<Note> {
        let request = Request::session_expired(&"x".repeat(bytes), None);
        let what = What::Call { request, verdict: Verdict::OK, answer: Answer::default(), effects: Vec::new() };
        Arc::new(Note { at: Instant::now(), plugin: "p".into(), connection: 1, who: "".into(), what })
    }

    /// A peer decides how much there is to be told of it.
    #[test]
    fn what_is_known_of_a_peer_counts() {
        const HEADER: usize = 16_000;
        let header = HttpHeader { name: "X".into(), value: vec![b'x'; HEADER].into() };
        let http = HttpDetails { path: "/mqtt".into(), headers: [header].into() };
        let details = PeerDetails { http: Some(Box::new(http)), ..PeerDetails::default() };
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        show(Some(&details), |transport| {
            let info = ConnectionInfo { connection: 1, peer, listener: "l", transport };
            let swap = SwapRequest { info, client_id: "me", keep_alive: 60, version: 5 };
            let swapped = OwnedSwapped::new(&swap.info, &swap.raw("1", false));
            let state = Some(Exported { version: 1, bytes: vec![0; HEADER] });
            let bytes = |what| {
                let (plugin, at) = ("p".into(), Instant::now());
                Note { at, plugin, connection: 1, who: "".into(), what }.bytes()
            };
            assert!(bytes(What::Begin((&swap.info).into())) > HEADER);
            assert!(bytes(What::Resume(Box::new((swapped, state)))) > 2 * HEADER);
        });
    }

    #[test]
    fn what_does_not_fit_is_counted_and_so_is_all_that_comes_behind_it() {
        let notes = Notes::default();
        notes.push(&note(BYTES_MAX / 2));
        notes.push(&note(BYTES_MAX / 2));
        notes.push(&note(1));
        let taken = notes.take(Duration::ZERO);
        assert_eq!((taken.notes.len(), taken.lost, taken.is_last), (1, 2, false));
        notes.push(&note(1));
        notes.close();
        notes.push(&note(1));
        let taken = notes.take(Duration::from_secs(3600));
        assert_eq!((taken.notes.len(), taken.lost, taken.is_last), (1, 0, true));
    }
}
