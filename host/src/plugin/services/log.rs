//! Lines that plugins log, with their fields and what they are about.
//!
//! The log's own macros fix the names of fields when the program is compiled. A plugin's are known when it logs: for each set
//! of names a description is made once, and never freed, so there is a bound to them. Fields beyond it stand in the text.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing::callsite::{Callsite, Identifier};
use tracing::dispatcher::get_default;
use tracing::field::{Field, FieldSet, Value};
use tracing::metadata::Kind;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata};

/// The target of all lines of plugins.
const TARGET: &str = "host::plugin";

/// Names of the host's own fields, in the order in which they are given.
const OWN: [&str; 6] = ["message", "plugin", "part", "connection", "client_id", "callback"];

/// Fields of one line that stand as fields; 32 in all is what the log takes.
const FIELDS_MAX: usize = 24;

/// Bytes of the name of a field; the rest is cut off.
const NAME_BYTES_MAX: usize = 64;

/// Sets of names that are remembered.
const SETS_MAX: usize = if cfg!(test) { 8 } else { 1024 };

/// What a line says, and where it comes from.
pub(super) struct Line<'a> {
    pub(super) level: Level,
    pub(super) plugin: &'a str,
    /// The part of the plugin; empty for none.
    pub(super) part: &'a str,
    pub(super) connection: Option<u64>,
    pub(super) client_id: Option<&'a str>,
    pub(super) callback: Option<&'static str>,
    pub(super) text: String,
    /// Names and values.
    pub(super) fields: Vec<(String, String)>,
}

impl Line<'_> {
    /// Writes it.
    pub(super) fn write(mut self) {
        let mut names: Vec<String> = Vec::new();
        self.fields.iter_mut().take(FIELDS_MAX).for_each(|(name, _)| {
            *name = fitting(name, &names);
            names.push(name.clone());
        });
        let kept = match description(self.level, names) {
            Some(metadata) => {
                let left = self.fields.split_off(self.fields.len().min(FIELDS_MAX));
                self.append(&left);
                return self.dispatch(metadata);
            }
            None => std::mem::take(&mut self.fields),
        };
        self.append(&kept);
        if let Some(metadata) = description(self.level, Vec::new()) {
            self.dispatch(metadata);
        }
    }

    /// Puts fields into the text.
    fn append(&mut self, fields: &[(String, String)]) {
        for (name, value) in fields {
            self.text.push_str(&format!(" {name}={value:?}"));
        }
    }

    fn dispatch(&self, metadata: &'static Metadata<'static>) {
        let part = Some(self.part).filter(|part| !part.is_empty());
        let text = format_args!("{}", self.text);
        let own: [Option<&dyn Value>; OWN.len()] = [
            Some(&text),
            Some(&self.plugin),
            part.as_ref().map(|part| part as &dyn Value),
            self.connection.as_ref().map(|connection| connection as &dyn Value),
            self.client_id.as_ref().map(|client_id| client_id as &dyn Value),
            self.callback.as_ref().map(|callback| callback as &dyn Value),
        ];
        let values: Vec<&str> = self.fields.iter().map(|(_, value)| value.as_str()).collect();
        let fields: Vec<Field> = metadata.fields().iter().collect();
        let value = |at: usize| match own.get(at) {
            Some(own) => *own,
            None => values.get(at - OWN.len()).map(|value| value as &dyn Value),
        };
        // What stands behind the last field has no value, and is left out.
        let all: [(&Field, Option<&dyn Value>); 32] =
            std::array::from_fn(|at| (fields.get(at).unwrap_or(&fields[0]), value(at).filter(|_| at < fields.len())));
        get_default(|current| {
            if current.enabled(metadata) {
                current.event(&Event::new(metadata, &metadata.fields().value_set(&all)));
            }
        });
    }
}

/// A name as the log takes it: letters, digits and some signs, and none that is there already.
fn fitting(name: &str, others: &[String]) -> String {
    let char = |char: char| if char.is_ascii_alphanumeric() || "_.-".contains(char) { char } else { '_' };
    let mut name: String = name.chars().take(NAME_BYTES_MAX).map(char).collect();
    while name.is_empty() || OWN.contains(&name.as_str()) || others.contains(&name) {
        name.push('_');
    }
    name
}

/// What the log has to know of a line before it is written.
struct Description(OnceLock<Metadata<'static>>);

impl Callsite for Description {
    fn set_interest(&self, _: Interest) {
        // It is asked each time.
    }

    fn metadata(&self) -> &Metadata<'_> {
        self.0.get().expect("it is set before anybody sees it")
    }
}

type Descriptions = HashMap<(Level, Vec<String>), &'static Metadata<'static>>;

/// The description of lines with these fields. `None` if there are too many already.
fn description(level: Level, names: Vec<String>) -> Option<&'static Metadata<'static>> {
    static KNOWN: Mutex<Option<Descriptions>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    let is_plain = names.is_empty();
    if let Some(metadata) = known.get(&(level, names.clone())) {
        return Some(metadata);
    }
    if known.len() >= SETS_MAX && !is_plain {
        return None;
    }
    let leaked = names.iter().map(|name| &*Box::leak(name.clone().into_boxed_str()));
    let all: Vec<&'static str> = OWN.into_iter().chain(leaked).collect();
    let description: &'static Description = Box::leak(Box::new(Description(OnceLock::new())));
    let fields = FieldSet::new(Box::leak(all.into_boxed_slice()), Identifier(description));
    let metadata = Metadata::new("event of a plugin", TARGET, level, None, None, None, fields, Kind::EVENT);
    let metadata = description.0.get_or_init(|| metadata);
    known.insert((level, names), metadata);
    Some(metadata)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn line(fields: &[(&str, &str)]) -> Line<'static> {
        Line {
            level: Level::INFO,
            plugin: "quota",
            part: "",
            connection: Some(7),
            client_id: Some("press"),
            callback: Some("handle_publish"),
            text: "used up".into(),
            fields: fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        }
    }

    #[test]
    fn fields_are_fields_in_both_forms_and_text_where_there_are_too_many() {
        let (human, json) = (Sink::default(), Sink::default());
        let subscriber = |sink: &Sink| {
            let sink = sink.clone();
            tracing_subscriber::fmt().with_writer(move || sink.clone()).with_ansi(false)
        };
        let write = || {
            line(&[("tenant", "acme \"inc\""), ("plugin", "x"), ("a b", "1"), ("a b", "2")]).write();
            // More sets of names than are remembered.
            (0..SETS_MAX).for_each(|number| line(&[(&format!("n{number}"), "v")]).write());
            Line { level: Level::DEBUG, ..line(&[]) }.write();
        };
        tracing::subscriber::with_default(subscriber(&human).finish(), write);
        tracing::subscriber::with_default(subscriber(&json).json().flatten_event(true).finish(), write);
        let text = |sink: &Sink| String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let human = text(&human);
        let first = human.lines().next().unwrap();
        let expected = "INFO host::plugin: used up plugin=\"quota\" connection=7 client_id=\"press\" \
                        callback=\"handle_publish\" tenant=\"acme \\\"inc\\\"\" plugin_=\"x\" a_b=\"1\" a_b_=\"2\"";
        assert!(first.ends_with(expected), "{first}");
        let last = human.lines().last().unwrap();
        assert!(last.contains("used up n7=\"v\" plugin=\"quota\""), "{last}");
        assert_eq!(human.lines().count(), 1 + SETS_MAX, "what is not enabled is not written");
        let first: serde_json::Value = serde_json::from_str(text(&json).lines().next().unwrap()).unwrap();
        assert_eq!((&first["message"], &first["tenant"]), (&"used up".into(), &"acme \"inc\"".into()));
        assert_eq!((&first["connection"], &first["client_id"]), (&7.into(), &"press".into()));
        assert_eq!((&first["target"], &first["callback"]), (&TARGET.into(), &"handle_publish".into()));
        assert_eq!(first.get("part"), None);
    }
}
