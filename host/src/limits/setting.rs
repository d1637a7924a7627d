//! One row of a table of settings: its name, its unit, what it may be, and how it changes while the server runs.

use std::ops::RangeInclusive;

use super::Limits;
use super::value::{Kind, Value};

/// A bound, or a choice, that is a field of `T`: what the command line, the environment, the configuration file and the
/// reference know about it.
#[derive(Debug)]
pub struct Setting<T: 'static = Limits> {
    /// Its field in `T`, and its key in the configuration file.
    pub name: &'static str,
    /// What it belongs to.
    pub heading: &'static str,
    /// What it bounds or decides, in sentences.
    pub about: &'static str,
    /// What happens past it: Reason Code or action. Empty for what is no bound.
    pub beyond: &'static str,
    /// Its unit.
    pub kind: Kind,
    /// The least and the most that it may be: milliseconds for a [`Kind::Time`], the place in the list for a choice.
    pub range: RangeInclusive<u64>,
    /// What it means that there is none, where that is a value; empty where it is none.
    pub unset: &'static str,
    /// When another value counts that a server is given while it runs.
    pub reload: Reload,
    pub(crate) get: fn(&T) -> Value,
    pub(crate) set: fn(&mut T, &Value),
}

/// When another value counts that a server is given while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reload {
    /// At once, for everybody.
    AtOnce,
    /// For those who connect from then on; who is connected keeps what he has.
    NewConnections,
    /// When the server is started anew.
    Restart,
}

impl Reload {
    /// As it stands in the reference and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::NewConnections => "for new connections",
            Self::Restart => "restart",
        }
    }
}

impl Setting {
    /// The bound of a name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        super::SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The value in `limits` if it is out of the range, as text.
    pub(super) fn out_of_range(&self, limits: &Limits) -> Option<String> {
        let value = self.get(limits);
        (!self.contains(&value)).then(|| self.kind.print(&value))
    }
}

impl<T> Setting<T> {
    /// Its value in `all`.
    #[must_use]
    pub fn get(&self, all: &T) -> Value {
        (self.get)(all)
    }

    /// Its value in `all`, as [`Setting::parse`] reads it; several are separated by spaces.
    #[must_use]
    pub fn show(&self, all: &T) -> String {
        self.kind.print(&self.get(all))
    }

    /// Reads a value as it stands on the command line, or in quotes in the configuration file.
    ///
    /// # Errors
    /// A clause that says what was expected.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        self.check(self.kind.parse(text).ok_or_else(|| self.expected_instead())?)
    }

    /// Takes a number without a unit, as the configuration file may have it.
    ///
    /// # Errors
    /// A clause that says what was expected.
    pub fn from_number(&self, number: i64) -> Result<Value, String> {
        let number = u64::try_from(number).ok().filter(|_| self.kind.has_plain_numbers());
        self.check(Value::Number(number.ok_or_else(|| self.expected_instead())?))
    }

    /// Takes `true` or `false`, as the configuration file may have it.
    ///
    /// # Errors
    /// A clause that says what was expected.
    pub fn from_flag(&self, flag: bool) -> Result<Value, String> {
        if self.kind == Kind::Flag { Ok(Value::Number(flag.into())) } else { Err(self.expected_instead()) }
    }

    /// Takes several texts, as the configuration file may have them.
    ///
    /// # Errors
    /// A clause that says what was expected.
    pub fn from_texts(&self, texts: Vec<String>) -> Result<Value, String> {
        if self.kind.is_list() { self.check(Value::Texts(texts)) } else { Err(self.expected_instead()) }
    }

    /// Such as `expected a number from 1 to 65535`.
    #[must_use]
    pub fn expected_instead(&self) -> String {
        format!("expected {}", self.expected())
    }

    /// Puts a value that was read for this setting into `all`.
    pub fn apply(&self, all: &mut T, value: &Value) {
        (self.set)(all, value);
    }

    /// What is allowed, such as `a number from 1 to 65535`.
    #[must_use]
    pub fn expected(&self) -> String {
        let range = self.allowed();
        match self.kind {
            Kind::Count | Kind::PerSecond => format!("a number {range}"),
            Kind::Bytes | Kind::BytesPerSecond => format!("a size {range}, such as 65536, 64KiB, 16MiB or 1GiB"),
            Kind::Secs => format!("a number of seconds, or a time such as 90s or 5min, {range}"),
            Kind::SecsOrNever => format!("a number of seconds, or a time such as 90s, 5min or 7d, {range}, or never"),
            Kind::Time => format!("a time {range}, such as 500ms, 10s or 5min"),
            Kind::Mode => format!("permissions {range}, such as 0o660"),
            _ => range,
        }
    }

    /// The values that are allowed, such as `from 1 to 65535`.
    pub(super) fn allowed(&self) -> String {
        let print = |number| self.kind.print(&Value::Number(number));
        match (self.kind, self.range.start(), self.range.end()) {
            (Kind::Flag, ..) => "true or false".to_owned(),
            (Kind::Choice(words), ..) => match words {
                [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
                [] => String::new(),
            },
            (Kind::Text, ..) => "a text of at most 65535 bytes, without U+0000".to_owned(),
            (Kind::Table, ..) => "a table: { key = value, … }".to_owned(),
            (Kind::Path, ..) => "the path of a file, not empty".to_owned(),
            (Kind::Texts, ..) => "texts in brackets, each in quotes: [\"a\", \"b\"]".to_owned(),
            (Kind::Paths, ..) => "paths of files in brackets, each in quotes: [\"a\", \"b\"]".to_owned(),
            (Kind::Word(word), ..) => word.expected.to_owned(),
            (Kind::Words(word), ..) => format!("{}, or several in brackets: [\"…\", \"…\"]", word.expected),
            (Kind::SecsOrNever, least, _) => format!("at least {}", print(*least)),
            (_, least, &u64::MAX) => format!("from {}", print(*least)),
            (_, least, most) => format!("from {} to {}", print(*least), print(*most)),
        }
    }

    fn check(&self, value: Value) -> Result<Value, String> {
        if let (Kind::Word(word) | Kind::Words(word), Value::Text(_) | Value::Texts(_)) = (self.kind, &value) {
            value.texts().iter().try_for_each(|text| (word.check)(text))?;
        }
        if self.contains(&value) { Ok(value) } else { Err(self.expected_instead()) }
    }

    fn contains(&self, value: &Value) -> bool {
        // What fits into a property.
        let is_text = |text: &String| text.len() <= usize::from(u16::MAX) && !text.contains('\0');
        let is_path = matches!(self.kind, Kind::Path | Kind::Paths);
        match value {
            Value::Unset => true,
            Value::Number(number) => self.range.contains(number),
            Value::Text(_) if self.kind == Kind::Table => true,
            Value::Text(_) | Value::Texts(_) => {
                value.texts().iter().all(|text| is_text(text) && !(is_path && text.is_empty()))
            }
        }
    }
}
