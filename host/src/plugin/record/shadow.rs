//! A candidate is tried beside the plugin that decides: it gets copies of its calls, and decides nothing.

use std::collections::HashMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use plugin_api::Callback;
use plugin_api::abi::Verdict;
use serde_json::{Value, json};

use super::super::chain::Chain;
use super::super::generation::Busy;
use super::super::handover::Exported;
use super::super::instance::Plugin;
use super::super::request::SwapRequest;
use super::answer::{Asked, answer_json};
use super::candidate::{Candidate, Captured};
use super::notes::{Note, Notes, Taken, What};
use super::report::{Report, Where, named};
use super::trial::{Configs, Recorded, Trial};

/// How often it is looked whether the server ends, somebody else decides, or nobody waits.
const LOOK: Duration = Duration::from_millis(50);

/// How long what was noted is still put to the candidate once the time is over.
const BEHIND: Duration = Duration::from_secs(5);

/// For how long a candidate is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DryRun {
    /// At most for this time.
    pub time: Duration,
    /// At most for so many calls; `None`: as many as there are.
    pub calls: Option<u64>,
}

/// What workers know of a candidate that is tried: who has a connection tells it of that one.
#[derive(Debug)]
pub(in crate::plugin) struct Shadow {
    running: Arc<Plugin>,
    notes: Arc<Notes>,
    /// The candidate takes states of connections that are there.
    imports: bool,
}

impl std::fmt::Debug for Notes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notes")
    }
}

impl Shadow {
    /// Whether it is tried beside this instance.
    pub(in crate::plugin) fn is_of(&self, plugin: &Arc<Plugin>) -> bool {
        Arc::ptr_eq(&self.running, plugin)
    }

    /// Whether both are tried beside the same instance.
    pub(in crate::plugin) fn is_beside_the_same(&self, other: &Self) -> bool {
        self.is_of(&other.running)
    }

    /// Whether states of connections that are there are to be exported for it, as in a swap.
    pub(in crate::plugin) fn imports(&self) -> bool {
        self.imports
    }

    /// A connection is there already, with what the other plugin has exported of it.
    pub(in crate::plugin) fn begin(&self, plugin: &Plugin, request: &SwapRequest<'_>, exported: Option<Exported>) {
        plugin.note_resumed(request, exported, &self.notes);
    }
}

/// Why trying has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Time,
    Calls,
    Left,
    Replaced,
    Stopping,
    Broken,
}

/// Tries an instance beside the one that runs, which it is to replace. Waits until that is over, or `has_left` says that nobody
/// waits for more, and says in what its answers differ. The candidate has been initialised with services that `captured` has
/// captured, and is let go.
///
/// # Errors
/// Another one is tried already in the same place.
pub(crate) fn dry_run(
    chain: &Chain,
    index: usize,
    running: &Arc<Plugin>,
    (candidate, captured): (Arc<Plugin>, Arc<Captured>),
    limits: &DryRun,
    configs: Configs,
    has_left: &dyn Fn() -> bool,
) -> Result<Value, Busy> {
    candidate.join(index, 0);
    let begun = Instant::now();
    let report = Arc::new(Mutex::new(Report::new(named(running), named(&candidate))));
    let notes = Arc::<Notes>::default();
    let imports = candidate.callbacks().contains(Callback::ImportState);
    let shadow = Arc::new(Shadow { running: Arc::clone(running), notes: Arc::clone(&notes), imports });
    // Before workers hear of it, so that nothing is missing behind what they hand over.
    running.add_tap(&notes);
    if let Err(busy) = chain.follow(&shadow) {
        running.remove_tap(&notes);
        candidate.let_go();
        return Err(busy);
    }
    tracing::info!(
        plugin = candidate.name(),
        version = candidate.version(),
        secs = limits.time.as_secs(),
        "a candidate is tried: it is asked what the running plugin is asked, and decides nothing"
    );
    let trial = Trial::new(Candidate::new(candidate, captured), Arc::clone(&report), configs, true);
    let (sender, done) = mpsc::channel();
    let (taken, calls) = (Arc::clone(&notes), limits.calls);
    let thread = std::thread::Builder::new().name("dry-run".to_owned()).spawn(move || {
        Following { trial, begun, calls, asked: HashMap::new() }.run(&taken);
        // Nobody listens if it has taken too long.
        let _ = sender.send(());
    });
    let end = match &thread {
        Ok(_) => wait(chain, &shadow, index, &done, begun + limits.time, has_left),
        Err(error) => {
            tracing::error!(%error, "there is no thread for a dry run");
            End::Broken
        }
    };
    running.remove_tap(&notes);
    notes.close();
    drop(shadow);
    match end {
        End::Time | End::Left | End::Replaced => _ = done.recv_timeout(BEHIND + super::candidate::PATIENCE),
        End::Calls | End::Stopping | End::Broken => {}
    }
    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
    match end {
        End::Time | End::Calls => {}
        End::Left => report.note("it has ended before its time, as it was interrupted".to_owned()),
        End::Replaced => report.note("it has ended before its time, as another instance decides now".to_owned()),
        End::Stopping => report.note("it has ended before its time, as the server stops".to_owned()),
        End::Broken => report.note("it has ended before its time: the log says why".to_owned()),
    }
    let mut report = report.to_json();
    report["seconds"] = json!((begun.elapsed().as_secs_f64() * 1e3).round() / 1e3);
    // Whoever has asked may not be there any more.
    tracing::info!(
        plugin = %report["candidate"]["plugin"],
        version = %report["candidate"]["version"],
        calls = %report["calls"],
        different = %report["different"],
        left_out = %report["left_out"],
        "a candidate is tried no more"
    );
    Ok(report)
}

fn wait(
    chain: &Chain,
    shadow: &Shadow,
    index: usize,
    done: &mpsc::Receiver<()>,
    deadline: Instant,
    has_left: &dyn Fn() -> bool,
) -> End {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match done.recv_timeout(left.min(LOOK)) {
            Ok(()) => return End::Calls,
            Err(RecvTimeoutError::Disconnected) => return End::Broken,
            Err(RecvTimeoutError::Timeout) if left.is_zero() => return End::Time,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if chain.is_closed() {
            return End::Stopping;
        }
        if has_left() {
            return End::Left;
        }
        if !chain.plugins().get(index).is_some_and(|plugin| shadow.is_of(plugin)) {
            return End::Replaced;
        }
    }
}

/// Puts to the candidate what is noted.
struct Following {
    trial: Trial,
    begun: Instant,
    calls: Option<u64>,
    /// Questions whose answers come later.
    asked: HashMap<u64, Asked>,
}

impl Following {
    fn run(mut self, notes: &Notes) {
        let mut closed_at = None::<Instant>;
        'all: loop {
            let Taken { notes: taken, lost, is_last } = notes.take(Duration::from_secs(1));
            let count = taken.len();
            for (at, note) in taken.into_iter().enumerate() {
                let is_late = closed_at.is_some_and(|at| at.elapsed() > BEHIND);
                if is_late {
                    self.trial.report().lost((count - at) as u64);
                    break 'all;
                }
                if closed_at.is_none() && notes.is_closed() {
                    closed_at = Some(Instant::now());
                }
                self.note(&note);
                if self.calls.is_some_and(|most| self.trial.report().calls() >= most) {
                    break 'all;
                }
            }
            self.trial.report().lost(lost);
            if is_last {
                break;
            }
        }
        self.trial.finish();
    }

    fn note(&mut self, note: &Note) {
        let number = self.trial.report().calls() + 1;
        let at = note.at.saturating_duration_since(self.begun).as_secs_f64();
        let place = |about| Where::new(number, (at * 1e6).round() / 1e6, note.connection, &note.who, about);
        match &note.what {
            What::Loaded { .. } => {}
            What::Begin(info) => info.with(|info| self.trial.begin(info)),
            What::Resume(resumed) => {
                let (swapped, exported) = &**resumed;
                self.trial.resume(&place(String::new()), swapped, exported.as_ref());
            }
            What::Call { request, verdict, answer, effects } => {
                let (input, asked) = (request.to_json(true), Asked::from(request));
                let answer_given = answer_json(&asked, *verdict, answer, true);
                if *verdict == Verdict::DEFERRED {
                    self.asked.insert(answer.ticket, asked);
                }
                let place = place(super::super::owned::Request::subject(&input));
                let answer = &answer_given;
                let age = note.at.elapsed();
                self.trial.call(&Recorded { place, request, input: &input, answer, effects, age });
            }
            What::Later { ticket, answered } => {
                let Some(asked) = self.asked.remove(ticket) else { return };
                let answer = match answered {
                    Some((verdict, answer)) => answer_json(&asked, *verdict, answer, true),
                    None => json!({ "late": true }),
                };
                self.trial.later(*ticket, &answer);
            }
            What::End => self.trial.end(note.connection, &note.who),
        }
    }
}
