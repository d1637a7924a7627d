//! One row of the table of bounds: its name, its unit, and the texts that stand for its values.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Limits;

/// A bound, or a choice, of [`Limits`]: what the command line, the configuration file and the reference know about it.
#[derive(Debug)]
pub struct Setting {
    /// Its field in [`Limits`], and its key in the configuration file.
    pub name: &'static str,
    /// What it belongs to.
    pub heading: &'static str,
    /// What it bounds, in sentences.
    pub about: &'static str,
    /// What happens past it: Reason Code or action.
    pub beyond: &'static str,
    /// Its unit.
    pub kind: Kind,
    /// The least and the most that it may be: milliseconds for a [`Kind::Time`], the place in the list for a choice.
    pub range: RangeInclusive<u64>,
    pub(super) get: fn(&Limits) -> Value,
    pub(super) set: fn(&mut Limits, &Value),
}

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
}

/// The value of a setting: a number in its smallest unit (a flag is 0 or 1, a choice its place in the list), or a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// All but texts.
    Number(u64),
    /// A [`Kind::Text`].
    Text(String),
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

impl Setting {
    /// The setting of a name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Setting> {
        super::SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The name of its option on the command line, without the two hyphens before it.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Its value in `limits`, as [`Setting::parse`] reads it.
    #[must_use]
    pub fn show(&self, limits: &Limits) -> String {
        self.kind.print(&(self.get)(limits))
    }

    /// Reads a value as it stands on the command line, or in quotes in the configuration file.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        self.check(self.kind.parse(text).ok_or_else(|| self.expected())?)
    }

    /// Takes a number without a unit, as the configuration file may have it.
    ///
    /// # Errors
    /// What was expected.
    pub fn from_number(&self, number: i64) -> Result<Value, String> {
        let has_plain_numbers = !matches!(self.kind, Kind::Time | Kind::Flag | Kind::Choice(_) | Kind::Text);
        let number = u64::try_from(number).ok().filter(|_| has_plain_numbers);
        self.check(Value::Number(number.ok_or_else(|| self.expected())?))
    }

    /// Takes `true` or `false`, as the configuration file may have it.
    ///
    /// # Errors
    /// What was expected.
    pub fn from_flag(&self, flag: bool) -> Result<Value, String> {
        if self.kind == Kind::Flag { Ok(Value::Number(flag.into())) } else { Err(self.expected()) }
    }

    /// Puts a value that was read for this setting into `limits`.
    pub fn apply(&self, limits: &mut Limits, value: &Value) {
        (self.set)(limits, value);
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
            Kind::Flag | Kind::Choice(_) | Kind::Text => range,
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
            (Kind::SecsOrNever, least, _) => format!("at least {}", print(*least)),
            (_, least, &u64::MAX) => format!("from {}", print(*least)),
            (_, least, most) => format!("from {} to {}", print(*least), print(*most)),
        }
    }

    /// The value in `limits` if it is out of the range, as text.
    pub(super) fn out_of_range(&self, limits: &Limits) -> Option<String> {
        let value = (self.get)(limits);
        (!self.contains(&value)).then(|| self.kind.print(&value))
    }

    fn check(&self, value: Value) -> Result<Value, String> {
        if self.contains(&value) { Ok(value) } else { Err(self.expected()) }
    }

    fn contains(&self, value: &Value) -> bool {
        match value {
            Value::Number(number) => self.range.contains(number),
            // What fits into a property.
            Value::Text(text) => text.len() <= usize::from(u16::MAX) && !text.contains('\0'),
        }
    }
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
            Self::Text => "TEXT",
        }
    }

    fn parse(self, text: &str) -> Option<Value> {
        let number = match self {
            Self::Count | Self::PerSecond => digits(text)?,
            Self::Bytes | Self::BytesPerSecond => digits(text).or_else(|| with_unit(text, &SIZES))?,
            Self::SecsOrNever if text == "never" => NEVER,
            Self::Secs | Self::SecsOrNever => {
                let whole_seconds = |ms: u64| ms.is_multiple_of(1000).then_some(ms / 1000);
                digits(text).or_else(|| with_unit(text, &TIMES).and_then(whole_seconds))?
            }
            Self::Time => with_unit(text, &TIMES)?,
            Self::Flag => u64::from(text.parse::<bool>().ok()?),
            Self::Choice(words) => words.iter().position(|word| *word == text)? as u64,
            Self::Text => return Some(Value::Text(text.to_owned())),
        };
        Some(Value::Number(number))
    }

    fn print(self, value: &Value) -> String {
        let number = match value {
            Value::Number(number) => *number,
            Value::Text(text) => return text.clone(),
        };
        match self {
            Self::Bytes | Self::BytesPerSecond => in_units(number, &SIZES, ""),
            Self::SecsOrNever if number == NEVER => "never".to_owned(),
            Self::Secs | Self::SecsOrNever => in_units(number.saturating_mul(1000), &TIMES, "s"),
            Self::Time => in_units(number, &TIMES, "s"),
            Self::Flag => (number != 0).to_string(),
            Self::Choice(words) => words.get(number as usize).copied().unwrap_or_default().to_owned(),
            Self::Count | Self::PerSecond | Self::Text => number.to_string(),
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
        })
    }
}

/// The type of a field, which can be made from a value within the range of its setting. What is beyond the type becomes
/// its largest value.
pub(super) trait Field {
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
