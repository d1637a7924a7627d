//! Units, the texts that stand for values, and the types of fields that take them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The unit of a setting, which decides how its value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A plain number.
    Count,
    /// A number of events in a second.
    PerSecond,
    /// Bytes: `65536`, `64KiB`, `16MiB` or `1GiB`.
    Bytes,
    /// Bytes in a second, written like [`Kind::Bytes`].
    BytesPerSecond,
    /// Whole seconds: `90` or `90s`, `5min`, `2h`, `7d`.
    Secs,
    /// The same, or `never`, which the protocol writes as 4,294,967,295.
    SecsOrNever,
    /// A time with its unit: `500ms`, `10s`, `5min`, `2h` or `1d`.
    Time,
    /// `true` or `false`.
    Flag,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// Any text; empty for none.
    Text,
    /// Several texts.
    Texts,
    /// The path of a file.
    Path,
    /// Paths of files.
    Paths,
    /// A text of a form of its own.
    Word(&'static Word),
    /// Several of them.
    Words(&'static Word),
    /// A table, whose value is JSON.
    Table,
    /// Permissions of a file, in octal: `0o660`.
    Mode,
}

/// A form that texts may have.
#[derive(Debug)]
pub struct Word {
    /// Its name, as a unit: `URL`.
    pub unit: &'static str,
    /// How it is called in a usage line.
    pub placeholder: &'static str,
    /// What is expected.
    pub expected: &'static str,
    /// One that is allowed.
    pub example: &'static str,
    /// Whether a text has the form; if not, a sentence that says why.
    pub check: fn(&str) -> Result<(), String>,
}

impl PartialEq for Word {
    fn eq(&self, other: &Self) -> bool {
        self.unit == other.unit
    }
}

impl Eq for Word {}

/// The value of a setting: a number in its smallest unit (a flag is 0 or 1, a choice its place in the list), or texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// All but texts.
    Number(u64),
    /// A [`Kind::Text`], a [`Kind::Path`] or a [`Kind::Word`].
    Text(String),
    /// [`Kind::Paths`] or [`Kind::Words`].
    Texts(Vec<String>),
    /// None, where that is something else than any value.
    Unset,
}

impl Value {
    /// The texts that it has.
    #[must_use]
    pub fn texts(&self) -> &[String] {
        match self {
            Self::Text(text) => std::slice::from_ref(text),
            Self::Texts(texts) => texts,
            Self::Number(_) | Self::Unset => &[],
        }
    }
}

/// The units of sizes and times, largest first.
const SIZES: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)];

/// A Session Expiry Interval that means "never".
const NEVER: u64 = u32::MAX as u64;

/// Reads a time with its unit, such as `500ms`, `10s`, `5min`, `2h` or `1d`.
#[must_use]
pub fn parse_time(text: &str) -> Option<Duration> {
    with_unit(text, &TIMES).map(Duration::from_millis)
}

impl Kind {
    /// How a value is called in a usage line.
    #[must_use]
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Count | Self::PerSecond => "N",
            Self::Bytes | Self::BytesPerSecond => "SIZE",
            Self::Secs | Self::SecsOrNever | Self::Time => "TIME",
            Self::Flag => "true|false",
            Self::Choice(_) => "CHOICE",
            Self::Text | Self::Texts => "TEXT",
            Self::Table => "JSON",
            Self::Mode => "MODE",
            Self::Path => "FILE",
            Self::Paths => "FILES",
            Self::Word(word) | Self::Words(word) => word.placeholder,
        }
    }

    /// Whether a number without a unit is a value.
    pub(super) fn has_plain_numbers(self) -> bool {
        use Kind::{Bytes, BytesPerSecond, Count, Mode, PerSecond, Secs, SecsOrNever};
        matches!(self, Count | PerSecond | Bytes | BytesPerSecond | Secs | SecsOrNever | Mode)
    }

    /// Whether there may be several.
    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::Texts | Self::Paths | Self::Words(_))
    }

    pub(super) fn parse(self, text: &str) -> Option<Value> {
        let number = match self {
            Self::Count | Self::PerSecond => digits(text)?,
            Self::Bytes | Self::BytesPerSecond => digits(text).or_else(|| with_unit(text, &SIZES))?,
            Self::SecsOrNever if text == "never" => NEVER,
            Self::Secs | Self::SecsOrNever => {
                let whole_seconds = |ms: u64| ms.is_multiple_of(1000).then_some(ms / 1000);
                digits(text).or_else(|| with_unit(text, &TIMES).and_then(whole_seconds))?
            }
            Self::Time => with_unit(text, &TIMES)?,
            Self::Mode => u64::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8).ok()?,
            Self::Flag => u64::from(text.parse::<bool>().ok()?),
            Self::Choice(words) => words.iter().position(|word| *word == text)? as u64,
            Self::Text | Self::Path | Self::Word(_) | Self::Table => return Some(Value::Text(text.to_owned())),
            Self::Texts | Self::Paths | Self::Words(_) => {
                return Some(Value::Texts(text.split_whitespace().map(str::to_owned).collect()));
            }
        };
        Some(Value::Number(number))
    }

    /// A value of this kind, as [`Setting::parse`](super::Setting::parse) reads it.
    #[must_use]
    pub fn print(self, value: &Value) -> String {
        let number = match value {
            Value::Number(number) => *number,
            Value::Text(text) => return text.clone(),
            Value::Texts(texts) => return texts.join(" "),
            Value::Unset => return String::new(),
        };
        match self {
            Self::Bytes | Self::BytesPerSecond => in_units(number, &SIZES, ""),
            Self::SecsOrNever if number == NEVER => "never".to_owned(),
            Self::Secs | Self::SecsOrNever => in_units(number.saturating_mul(1000), &TIMES, "s"),
            Self::Time => in_units(number, &TIMES, "s"),
            Self::Mode => format!("0o{number:o}"),
            Self::Flag => (number != 0).to_string(),
            Self::Choice(words) => words.get(number as usize).copied().unwrap_or_default().to_owned(),
            _ => number.to_string(),
        }
    }
}

/// A number, in which `_` may stand between digits.
fn digits(text: &str) -> Option<u64> {
    let starts_well = text.as_bytes().first().is_some_and(u8::is_ascii_digit);
    starts_well.then(|| text.replace('_', "").parse().ok()).flatten()
}

/// A number and, directly behind it or behind a space, one of the units.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits(number.trim_end())?.checked_mul(*factor)
}

/// In the largest unit of which it is a multiple; a number that is none of any stands alone.
fn in_units(number: u64, units: &[(&str, u64)], zero: &str) -> String {
    if number == 0 {
        return format!("0{zero}");
    }
    match units.iter().find(|(_, factor)| number.is_multiple_of(*factor)) {
        Some((name, factor)) => format!("{}{name}", number / factor),
        None => number.to_string(),
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "count",
            Self::PerSecond => "per second",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "bytes per second",
            Self::Secs | Self::SecsOrNever => "seconds",
            Self::Time => "time",
            Self::Flag => "true, false",
            Self::Choice(words) => return f.write_str(&words.join(", ")),
            Self::Text => "text",
            Self::Texts => "texts",
            Self::Table => "table",
            Self::Mode => "mode",
            Self::Path => "path",
            Self::Paths => "paths",
            Self::Word(word) | Self::Words(word) => word.unit,
        })
    }
}

/// The type of a field, which can be made from a value within the range of its setting. What is beyond the type becomes
/// its largest value.
pub(crate) trait Field {
    fn get(&self) -> Value;
    fn set(&mut self, value: &Value);
}

macro_rules! numbers {
    ($($type:ty),+) => {$(
        impl Field for $type {
            fn get(&self) -> Value {
                Value::Number(*self as u64)
            }
            fn set(&mut self, value: &Value) {
                if let Value::Number(number) = value {
                    *self = <$type>::try_from(*number).unwrap_or(<$type>::MAX);
                }
            }
        }
    )+};
}
numbers!(u16, u32, u64, usize);

impl Field for bool {
    fn get(&self) -> Value {
        Value::Number((*self).into())
    }
    fn set(&mut self, value: &Value) {
        *self = *value != Value::Number(0);
    }
}

impl Field for Duration {
    fn get(&self) -> Value {
        Value::Number(u64::try_from(self.as_millis()).unwrap_or(u64::MAX))
    }
    fn set(&mut self, value: &Value) {
        if let Value::Number(ms) = value {
            *self = Duration::from_millis(*ms);
        }
    }
}

impl Field for Option<String> {
    fn get(&self) -> Value {
        Value::Text(self.clone().unwrap_or_default())
    }
    fn set(&mut self, value: &Value) {
        if let Value::Text(text) = value {
            *self = (!text.is_empty()).then(|| text.clone());
        }
    }
}

/// Texts that are paths.
impl Field for Option<PathBuf> {
    fn get(&self) -> Value {
        self.as_deref().map_or(Value::Unset, |path| Value::Text(path.to_string_lossy().into_owned()))
    }
    fn set(&mut self, value: &Value) {
        *self = match value {
            Value::Text(text) => Some(text.into()),
            _ => None,
        };
    }
}

impl Field for Vec<PathBuf> {
    fn get(&self) -> Value {
        Value::Texts(self.iter().map(|path| path.to_string_lossy().into_owned()).collect())
    }
    fn set(&mut self, value: &Value) {
        *self = match value {
            Value::Texts(texts) => texts.iter().map(PathBuf::from).collect(),
            Value::Text(text) => vec![text.into()],
            _ => Vec::new(),
        };
    }
}

impl Field for Vec<String> {
    fn get(&self) -> Value {
        Value::Texts(self.clone())
    }
    fn set(&mut self, value: &Value) {
        *self = match value {
            Value::Texts(texts) => texts.clone(),
            Value::Text(text) => vec![text.clone()],
            _ => Vec::new(),
        };
    }
}

impl Field for Option<Vec<String>> {
    fn get(&self) -> Value {
        self.as_ref().map_or(Value::Unset, Field::get)
    }
    fn set(&mut self, value: &Value) {
        *self = (!value.texts().is_empty() || matches!(value, Value::Texts(_))).then(|| value.texts().to_vec());
    }
}

impl Field for Option<bool> {
    fn get(&self) -> Value {
        self.map_or(Value::Unset, |flag| flag.get())
    }
    fn set(&mut self, value: &Value) {
        *self = (*value != Value::Unset).then(|| *value != Value::Number(0));
    }
}

impl Field for Option<usize> {
    fn get(&self) -> Value {
        self.map_or(Value::Unset, |number| Value::Number(number as u64))
    }
    fn set(&mut self, value: &Value) {
        *self = match value {
            Value::Number(number) => usize::try_from(*number).ok(),
            _ => None,
        };
    }
}

/// Makes fields of types with few values, which are written as words, or as numbers from 0 where they have no words.
macro_rules! choices {
    ($($type:ty: $first:ident $(, $other:ident)*;)+) => {$(
        impl Field for $type {
            fn get(&self) -> Value {
                let all = [<$type>::$first $(, <$type>::$other)*];
                Value::Number(all.iter().position(|one| one == self).unwrap_or(0) as u64)
            }
            fn set(&mut self, value: &Value) {
                let all = [<$type>::$first $(, <$type>::$other)*];
                if let Value::Number(place) = value {
                    *self = all.get(*place as usize).copied().unwrap_or(<$type>::$first);
                }
            }
        }
    )+};
}
choices! {
    plugin_api::QoS: AtMostOnce, AtLeastOnce, ExactlyOnce;
    super::Deadline: Refuse, Disconnect;
    super::QueueFull: DropNewest, DropOldest;
    super::RejectedPublish: Acknowledge, Close;
    super::SharedStrategy: RoundRobin, Random, Sticky, LeastInFlight;
    super::Overstay: Log, Pool;
    super::Stuck: Log, Abort;
    super::Quarantine: Refuse, Skip, Off;
    super::Undecided: Local, Refuse, Allow;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_printed() {
        let table = [
            (Kind::Count, "0", "0"),
            (Kind::Count, "1_000_000", "1000000"),
            (Kind::Bytes, "65537", "65537"),
            (Kind::Bytes, "1024", "1KiB"),
            (Kind::Bytes, "1536KiB", "1536KiB"),
            (Kind::Bytes, "3 MiB", "3MiB"),
            (Kind::BytesPerSecond, "2048MiB", "2GiB"),
            (Kind::Bytes, "0KiB", "0"),
            (Kind::Secs, "90", "90s"),
            (Kind::Secs, "300s", "5min"),
            (Kind::Secs, "0", "0s"),
            (Kind::SecsOrNever, "never", "never"),
            (Kind::SecsOrNever, "4294967295", "never"),
            (Kind::SecsOrNever, "168h", "7d"),
            (Kind::Time, "1500ms", "1500ms"),
            (Kind::Time, "60s", "1min"),
            (Kind::Time, "0s", "0s"),
            (Kind::Mode, "0o660", "0o660"),
            (Kind::Mode, "0600", "0o600"),
            (Kind::Flag, "true", "true"),
            (Kind::Choice(&["a", "b"]), "b", "b"),
            (Kind::Text, "a.example:1883 b.example", "a.example:1883 b.example"),
        ];
        for (kind, text, printed) in table {
            let value = kind.parse(text).expect(text);
            assert_eq!(kind.print(&value), printed, "{text}");
            assert_eq!(kind.parse(printed), Some(value), "{printed}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let table = [
            (Kind::Count, vec!["", "-1", "1.5", "many", "_1", "+1", "1KiB", "99999999999999999999"]),
            (Kind::Bytes, vec!["16MB", "16M", "16 mib", "KiB", "99999999999GiB", "1 MiB "]),
            (Kind::Secs, vec!["500ms", "1 week", "s"]),
            (Kind::Secs, vec!["never"]),
            (Kind::Time, vec!["10", "", "10 m", "1,5s"]),
            (Kind::Mode, vec!["rw", "0o8", "8", "-1"]),
            (Kind::Flag, vec!["yes", "1", "TRUE"]),
            (Kind::Choice(&["a", "b"]), vec!["c", "", "0"]),
        ];
        for (kind, texts) in table {
            for text in texts {
                assert_eq!(kind.parse(text), None, "{kind} {text}");
            }
        }
    }
}
