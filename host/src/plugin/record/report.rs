//! In what the answers of a candidate differ, and how often.

use std::collections::HashMap;
use std::time::Instant;

use plugin_api::Callback;
use serde_json::{Value, json};

use super::super::instance::Plugin;
use super::candidate::Given;
use super::json::redacted;

/// Differences that are told apart; of the rest there is the number.
const DIFFERENCES_MAX: usize = 100;

/// Which call it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Where<'a> {
    /// The line of a recording, or the how many-th call it is.
    pub(super) number: u64,
    /// Seconds from the beginning.
    pub(super) at: f64,
    pub(super) connection: u64,
    pub(super) client: &'a str,
    owned_client: String,
    /// A topic, for example.
    pub(super) about: String,
}

impl<'a> Where<'a> {
    pub(super) fn new(number: u64, at: f64, connection: u64, client: &'a str, about: String) -> Self {
        Self { number, at, connection, client, owned_client: String::new(), about }
    }

    /// The same, to be kept.
    pub(super) fn owned(&self) -> Where<'static> {
        let owned_client = self.client().to_owned();
        Where { client: "", owned_client, about: self.about.clone(), ..*self }
    }

    pub(super) fn client(&self) -> &str {
        if self.client.is_empty() { &self.owned_client } else { self.client }
    }

    fn to_json(&self) -> Value {
        json!({
            "number": self.number,
            "at": self.at,
            "connection": self.connection,
            "client": self.client(),
            "about": self.about,
        })
    }
}

/// A call that was answered otherwise.
pub(super) struct Found<'a> {
    pub(super) callback: Callback,
    pub(super) place: &'a Where<'a>,
    pub(super) answer: &'a Value,
    pub(super) effects: &'a [Value],
    pub(super) given: &'a Given,
}

/// The calls of one callback.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    same: u64,
    different: u64,
    left_out: u64,
}

/// Calls that differ in the same way.
#[derive(Debug)]
struct Difference {
    callback: &'static str,
    count: u64,
    first: Value,
    recorded: Value,
    candidate: Value,
}

/// What has been found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    plugin: Value,
    candidate: Value,
    rows: HashMap<&'static str, Row>,
    differences: Vec<Difference>,
    /// By what they are, as text.
    known: HashMap<String, usize>,
    /// Those that are not among them.
    more: u64,
    lost: u64,
    unknown: u64,
    left_out_connections: u64,
    /// Changes of the configuration that the candidate was not given.
    kept_configs: u64,
    outside: u64,
    /// The callback that the candidate is in.
    inside: Option<(Callback, String, Instant)>,
    notes: Vec<String>,
}

/// A plugin, as a report names it.
pub(super) fn named(plugin: &Plugin) -> Value {
    let path = plugin.origin().map(|origin| origin.path().display().to_string());
    json!({"plugin": plugin.name(), "version": plugin.version(), "path": path})
}

impl Report {
    pub(super) fn new(plugin: Value, candidate: Value) -> Self {
        Self { plugin, candidate, ..Self::default() }
    }

    /// How many calls there have been.
    pub(super) fn calls(&self) -> u64 {
        self.rows.values().map(|row| row.same + row.different + row.left_out).sum()
    }

    /// Which plugin it is that has decided, from a line on.
    pub(super) fn recorded(&mut self, line: u64, plugin: Value) {
        if self.plugin.is_null() {
            self.plugin = plugin;
        } else if self.plugin != plugin {
            let (before, after) = (word(&self.plugin["version"]), word(&plugin["version"]));
            self.note(format!(
                "from line {line} on there is version {after} beside {before}, or in its place: what follows is compared with \
                 whichever was asked"
            ));
        }
    }

    /// Which one is tried.
    pub(super) fn candidate(&mut self, candidate: Value) {
        self.candidate = candidate;
    }

    fn row(&mut self, callback: &'static str) -> &mut Row {
        self.rows.entry(callback).or_default()
    }

    /// Something that has to be known to read it.
    pub(super) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    pub(super) fn enters(&mut self, callback: Callback, place: &Where<'_>) {
        self.inside = Some((callback, place.client().to_owned(), Instant::now()));
    }

    pub(super) fn leaves(&mut self) {
        self.inside = None;
    }

    pub(super) fn same(&mut self, callback: Callback) {
        self.row(callback.name()).same += 1;
    }

    pub(super) fn left_out(&mut self, callback: Callback) {
        self.row(callback.name()).left_out += 1;
    }

    pub(super) fn left_out_connection(&mut self) {
        self.left_out_connections += 1;
    }

    /// The other plugin has got a configuration, and the candidate has not.
    pub(super) fn keeps_config(&mut self) {
        self.row(Callback::Config.name()).left_out += 1;
        self.kept_configs += 1;
    }

    pub(super) fn count_unknown(&mut self) {
        self.unknown += 1;
    }

    pub(super) fn lost(&mut self, count: u64) {
        self.lost += count;
    }

    pub(super) fn outside(&mut self, count: u64) {
        self.outside += count;
    }

    /// A connection has gone over.
    pub(super) fn import(&mut self, place: &Where<'_>, taken: Result<(), &'static str>) {
        match taken {
            Ok(()) => self.row(Callback::ImportState.name()).same += 1,
            Err(why) => {
                self.row(Callback::ImportState.name()).different += 1;
                let (ours, theirs) = (json!({"answer": "exported"}), json!({ "answer": why }));
                self.add(Callback::ImportState.name(), place, ours, theirs);
            }
        }
    }

    pub(super) fn different(&mut self, Found { callback, place, answer, effects, given }: Found<'_>) {
        self.row(callback.name()).different += 1;
        let side = |answer: &Value, effects: &[Value]| {
            let answer = if callback == Callback::Auth { without_data(answer) } else { answer.clone() };
            json!({"answer": answer, "effects": effects})
        };
        self.add(callback.name(), place, side(answer, effects), side(&given.answer, &given.effects));
    }

    fn add(&mut self, callback: &'static str, place: &Where<'_>, recorded: Value, candidate: Value) {
        let key = format!("{callback} {recorded} {candidate}");
        if let Some(at) = self.known.get(&key) {
            self.differences[*at].count += 1;
        } else if self.differences.len() < DIFFERENCES_MAX {
            self.known.insert(key, self.differences.len());
            let first = place.to_json();
            self.differences.push(Difference { callback, count: 1, first, recorded, candidate });
        } else {
            self.more += 1;
        }
    }

    /// The whole of it.
    pub(super) fn to_json(&self) -> Value {
        let sum = |count: fn(&Row) -> u64| self.rows.values().map(count).sum::<u64>();
        let callbacks: Vec<_> = Callback::ALL
            .into_iter()
            .filter_map(|callback| {
                let row = self.rows.get(callback.name())?;
                let calls = row.same + row.different + row.left_out;
                Some(json!({
                    "name": callback.name(),
                    "calls": calls,
                    "same": row.same,
                    "different": row.different,
                    "left_out": row.left_out,
                }))
            })
            .collect();
        let difference = |one: &Difference| {
            json!({
                "callback": one.callback,
                "count": one.count,
                "first": one.first,
                "recorded": one.recorded,
                "candidate": one.candidate,
            })
        };
        let mut differences: Vec<_> = self.differences.iter().collect();
        differences.sort_by_key(|one| std::cmp::Reverse(one.count));
        json!({
            "plugin": self.plugin,
            "candidate": self.candidate,
            "calls": self.calls(),
            "same": sum(|row| row.same),
            "different": sum(|row| row.different),
            "left_out": sum(|row| row.left_out),
            "lost": self.lost,
            "callbacks": callbacks,
            "differences": differences.into_iter().map(difference).collect::<Vec<_>>(),
            "more_differences": self.more,
            "notes": self.all_notes(),
        })
    }

    fn all_notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        if self.calls() == 0 {
            notes.push(
                "nothing was asked meanwhile, so that nothing is known of the candidate but that it starts".to_owned(),
            );
        }
        if self.lost > 0 {
            notes.push(format!(
                "{} calls are missing: there was more to note than there was room for. What differs behind them may come of that",
                self.lost
            ));
        }
        if self.left_out_connections > 0 {
            notes.push(format!(
                "what followed on {} connections is left out: the candidate has answered otherwise about whether they are let \
                 in, or could not be asked, as the recording has no secrets",
                self.left_out_connections
            ));
        }
        if self.kept_configs > 0 {
            notes.push(format!(
                "{} times the plugin got another configuration, and the candidate kept the one that it had",
                self.kept_configs
            ));
        }
        if self.unknown > 0 {
            notes.push(format!(
                "{} calls were about connections that the candidate does not know, and are not counted",
                self.unknown
            ));
        }
        if self.outside > 0 {
            notes.push(format!(
                "the candidate has asked for {} things outside of callbacks, which were not done, and are not compared",
                self.outside
            ));
        }
        if let Some((callback, client, since)) = &self.inside {
            notes.push(format!(
                "the candidate has not returned from {} (client {client:?}) for {} s, and is left to itself",
                callback.name(),
                since.elapsed().as_secs()
            ));
        }
        notes
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// An answer without Authentication Data.
fn without_data(answer: &Value) -> Value {
    let mut answer = answer.clone();
    for fields in answer.as_object_mut().into_iter().flat_map(|fields| fields.values_mut()) {
        for key in ["data", "data_base64"] {
            if let Some(data) = fields.get_mut(key).filter(|data| data.is_string()) {
                *data = redacted(data.as_str().map_or(0, str::len));
            }
        }
    }
    answer
}
