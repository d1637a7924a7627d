//! A recording is put to a candidate, offline.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plugin_api::Callback;
use serde_json::{Value, json};

use super::super::error::LoadError;
use super::super::instance::Plugin;
use super::super::loader::Prepared;
use super::super::owned::Request;
use super::super::services::{NO_CONNECTION, Services};
use super::VERSION;
use super::candidate::Candidate;
use super::json::{Fields, Unreadable, array, number, object, required, text};
use super::peer::Peer;
use super::report::{Report, Where, named};
use super::trial::{Configs, Recorded, Trial};

/// Bytes that a line may have: the largest packet, in base64, and what stands around it.
const LINE_BYTES_MAX: u64 = 512 << 20;

/// What is to be replayed, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The recording.
    pub file: PathBuf,
    /// The library of the candidate.
    pub plugin: PathBuf,
    /// Its configurations, as JSON: the first one whenever a host in the recording begins, the others whenever the plugin got
    /// another one, in order; then it keeps the last one. With none, it gets those that are recorded, or `{}`.
    pub configs: Vec<String>,
    /// Whose calls it is asked; `None` for those of the plugin that has the library's own name.
    pub name: Option<String>,
}

/// Why nothing could be compared.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReplayError {
    /// The file cannot be read.
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of it is none of a recording.
    Line {
        /// The file.
        path: PathBuf,
        /// Its number.
        line: u64,
        /// Why.
        reason: String,
    },
    /// The candidate cannot be loaded.
    Load(LoadError),
    /// The same with `{}`, as the recording has no configuration and none was given.
    NoConfig(LoadError),
    /// There are no calls of this plugin in it.
    NoCalls {
        /// The file.
        path: PathBuf,
        /// The plugin's name.
        name: String,
        /// Whose there are.
        there_are: Vec<String>,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, source } => write!(
                f,
                "cannot read the recording {}: {source}. Expected a file that a host has written which was started with --record",
                path.display()
            ),
            Self::Line { path, line, reason } => {
                write!(f, "{}:{line}: this is no line of a recording: {reason}", path.display())
            }
            Self::Load(error) => error.fmt(f),
            Self::NoConfig(error) => write!(
                f,
                "{error} (the configuration is not in the recording, so that it got {{}}: give it one with --plugin-config)"
            ),
            Self::NoCalls { path, name, there_are } => {
                let path = path.display();
                write!(f, "{path}: there are no calls of a plugin {name:?} in it")?;
                match there_are[..] {
                    [] => f.write_str(", nor of any other"),
                    _ => write!(f, " (there are some of: {}): say with --name whose they are", there_are.join(", ")),
                }
            }
        }
    }
}

impl std::error::Error for ReplayError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            Self::Load(error) | Self::NoConfig(error) => Some(error),
            Self::Line { .. } | Self::NoCalls { .. } => None,
        }
    }
}

/// Asks a candidate what another plugin was asked, and says in what their answers differ, as JSON. What the candidate asks of
/// the host is taken and not done; what it asks the host about is answered with [`NotRunning`](plugin_api::HostError).
///
/// # Errors
/// See [`ReplayError`].
pub fn replay(replay: &Replay) -> Result<Value, ReplayError> {
    let Replay { file: path, plugin, .. } = replay;
    let name = match &replay.name {
        Some(name) => name.clone(),
        None => Prepared::read(plugin).map_err(ReplayError::Load)?.name().to_owned(),
    };
    let file = File::open(path).map_err(|source| ReplayError::File { path: path.clone(), source })?;
    let report = Arc::new(Mutex::new(Report::default()));
    let mut reading = Reading {
        replay,
        name,
        report,
        trial: None,
        has_begun: false,
        config: None,
        started: UNIX_EPOCH,
        secrets: false,
        names: Vec::new(),
        calls: 0,
        cut: None,
    };
    let mut lines = BufReader::with_capacity(1 << 20, file);
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        number += 1;
        let read = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let bytes = read.map_err(|source| ReplayError::File { path: path.clone(), source })?;
        if bytes == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            // The host was killed while it wrote.
            reading.note(format!("line {number}, the last one, is cut off"));
            break;
        }
        reading.line(number, &line)?;
    }
    reading.finish()
}

struct Reading<'a> {
    replay: &'a Replay,
    name: String,
    report: Arc<Mutex<Report>>,
    trial: Option<Trial>,
    has_begun: bool,
    /// The configuration of the plugin, as far as it is recorded.
    config: Option<Value>,
    /// When the host began that has written what comes.
    started: SystemTime,
    secrets: bool,
    /// The plugins that there are calls of.
    names: Vec<String>,
    calls: u64,
    /// What is wrong with a line that may have been cut off: who was killed while he wrote it may have been followed by another
    /// host, which begins.
    cut: Option<ReplayError>,
}

impl Reading<'_> {
    fn note(&self, text: String) {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).note(text);
    }

    fn line(&mut self, number: u64, line: &[u8]) -> Result<(), ReplayError> {
        let wrong = |reason: String| ReplayError::Line { path: self.replay.file.clone(), line: number, reason };
        let value: Value = match serde_json::from_slice(line) {
            Ok(value) => value,
            Err(error) => {
                self.cut.get_or_insert(wrong(error.to_string()));
                return Ok(());
            }
        };
        if let Some(error) = self.cut.take() {
            if value.get("recording").is_none() {
                return Err(error);
            }
            self.note(format!("the end of what was recorded before line {number} is cut off"));
        }
        let Value::Object(fields) = value else { return Err(wrong("it is no JSON object".to_owned())) };
        if fields.contains_key("recording") {
            return self.begin(number, &fields);
        }
        if !self.has_begun {
            let reason = "it stands before the line with \"recording\" that one begins with".to_owned();
            return Err(wrong(reason));
        }
        if self.trial.is_none() && text(&fields, "plugin").is_ok_and(|plugin| plugin == self.name) {
            self.load(&fields)?;
        }
        let path = &self.replay.file;
        self.take(number, &fields).map_err(|reason| ReplayError::Line { path: path.clone(), line: number, reason })
    }

    /// Makes the candidate, at the first line of its plugin.
    fn load(&mut self, fields: &Fields) -> Result<(), ReplayError> {
        let Replay { plugin, configs, .. } = self.replay;
        self.config = fields.get("config").cloned();
        let recorded = self.config.as_ref().and_then(Value::as_str);
        let services = Services::detached();
        // Whatever connection a recording names may have existed.
        services.skip_numbers(0, *crate::server::Server::WORKERS.end());
        let (services, captured) = services.captured();
        let given = configs.split_first();
        let config = given.map(|(first, _)| first.as_str()).or(recorded);
        let plugin = Plugin::load(plugin, config.unwrap_or("{}"), &services).map_err(|error| match config {
            Some(_) => ReplayError::Load(error),
            None => ReplayError::NoConfig(error),
        })?;
        plugin.join(0, 1);
        self.report.lock().unwrap_or_else(PoisonError::into_inner).candidate(named(&plugin));
        let configs = given.map_or(Configs::Same, |(_, more)| Configs::Own(more.to_vec().into()));
        let candidate = Candidate::new(Arc::new(plugin), captured);
        // A recording of a host that did not write them is put to one with `{}`.
        let is_configured = config.is_some() || self.config.is_none();
        if !is_configured {
            self.note(
                "the configuration is not in the recording, so that the candidate has {}, and what it answers otherwise is \
                 left out: give it one with --plugin-config"
                    .to_owned(),
            );
        }
        self.trial = Some(Trial::new(candidate, Arc::clone(&self.report), configs, is_configured));
        Ok(())
    }

    /// A host has begun to write.
    fn begin(&mut self, line: u64, fields: &Fields) -> Result<(), ReplayError> {
        let wrong = |reason| ReplayError::Line { path: self.replay.file.clone(), line, reason };
        let version: u64 = number(fields, "recording").map_err(wrong)?;
        if version != VERSION {
            let reason = format!("it is of version {version} of recordings, and this host reads {VERSION}");
            return Err(wrong(reason));
        }
        self.secrets = fields.get("secrets") == Some(&true.into());
        let continues = fields.get("continues") == Some(&true.into());
        let started = Duration::from_secs(number(fields, "started").map_err(wrong)?);
        self.started = UNIX_EPOCH.checked_add(started).ok_or_else(|| wrong("\"started\" is no time".to_owned()))?;
        if continues && self.has_begun {
            return Ok(()); // The connections are the same.
        }
        self.has_begun = true;
        if let Some(before) = self.trial.take() {
            before.finish();
        }
        Ok(())
    }

    fn take(&mut self, line: u64, fields: &Fields) -> Result<(), Unreadable> {
        if fields.contains_key("lost") {
            self.report.lock().unwrap_or_else(PoisonError::into_inner).lost(number(fields, "lost")?);
            return Ok(());
        }
        let plugin = text(fields, "plugin")?;
        if !self.names.iter().any(|name| name == plugin) {
            self.names.push(plugin.to_owned());
        }
        let Some(trial) = self.trial.as_mut().filter(|_| plugin == self.name) else { return Ok(()) };
        let at = required(fields, "at")?.as_f64().ok_or("\"at\" is no number")?;
        let then = Duration::try_from_secs_f64(at).ok().and_then(|at| self.started.checked_add(at));
        let age = then.and_then(|then| then.elapsed().ok()).unwrap_or_default();
        let (connection, client) = (number(fields, "connection")?, text(fields, "client")?);
        let place = |about| Where::new(line, at, connection, client, about);
        if let Some(version) = fields.get("loaded") {
            trial.report().recorded(line, json!({"plugin": plugin, "version": version, "path": null}));
            // Another version, or another process, may have begun with another configuration.
            if let Some(config) = fields.get("config").filter(|config| self.config.as_ref() != Some(*config)) {
                self.config = Some(config.clone());
                let (input, answer) = (json!({ "config": config }), json!({"done": {}}));
                let request = Request::read(Callback::Config, 0, input.as_object().unwrap_or(fields))?;
                let (place, effects) = (place(String::new()), &[][..]);
                trial.call(&Recorded { place, request: &request, input: &input, answer: &answer, effects, age });
            }
            return Ok(());
        }
        self.calls += 1;
        if fields.contains_key("later") {
            trial.later(number(fields, "later")?, required(fields, "answer")?);
            return Ok(());
        }
        let input = || object(fields, "input").and_then(|input| input.ok_or_else(|| "\"input\" is missing".to_owned()));
        match text(fields, "call")? {
            "new_connection" => Peer::read(input()?)?.with(connection, |info| trial.begin(info)),
            "end" => trial.end(connection, client),
            name => {
                let callback = Callback::ALL.into_iter().find(|callback| callback.name() == name);
                let callback = callback.ok_or_else(|| format!("there is no callback {name:?}"))?;
                let request = Request::read(callback, connection, input()?)?;
                if request.has_state() && connection == NO_CONNECTION {
                    return Err(format!("{name} is about a connection, and none is named"));
                }
                let input = required(fields, "input")?;
                let (answer, effects) = (required(fields, "answer")?, array(fields, "effects")?);
                if callback == Callback::Config && answer.get("done").is_some() {
                    self.config = input.get("config").cloned();
                }
                let place = place(Request::subject(input));
                trial.call(&Recorded { place, request: &request, input, answer, effects, age });
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Value, ReplayError> {
        let Self { replay, name, report, trial, secrets, names, calls, cut, .. } = self;
        if let Some(error) = cut {
            return Err(error);
        }
        if let Some(trial) = trial {
            trial.finish();
        }
        if calls == 0 {
            return Err(ReplayError::NoCalls { path: replay.file.clone(), name, there_are: names });
        }
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        if !secrets {
            report.note(
                "the recording has no secrets: passwords, Authentication Data, configurations and the like are left out of it \
                 (--record-secrets)"
                    .to_owned(),
            );
        }
        Ok(report.to_json())
    }
}
