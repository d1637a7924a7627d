//! The configuration file: what is written in it, with the line of what is wrong.

use std::ops::Range;
use std::path::Path;

use host::Limits;
use host::limits::{SETTINGS, Setting, Value};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// What a configuration file says.
#[derive(Debug, Default)]
pub(crate) struct FileConfig {
    limits: Vec<(&'static Setting, Value)>,
}

impl FileConfig {
    /// Puts what the file says in place of what `limits` has.
    pub(crate) fn apply(&self, limits: &mut Limits) {
        for (setting, value) in &self.limits {
            setting.apply(limits, value);
        }
    }
}

/// Reads a file. The error is a paragraph that says where it is wrong, and what is expected there.
pub(crate) fn read(file: &Path) -> Result<FileConfig, String> {
    let bytes = std::fs::read(file).map_err(|error| {
        format!(
            "cannot read the configuration {}: {error}. Expected a file with TOML in UTF-8; a relative name starts from \
             the directory that host was started in",
            file.display()
        )
    })?;
    read_bytes(&bytes).map_err(|Mistake { at, what }| {
        let line = bytes[..at.min(bytes.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{}:{line}: {what}", file.display())
    })
}

fn read_bytes(bytes: &[u8]) -> Result<FileConfig, Mistake> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        Mistake { at, what: format!("the byte 0x{:02X} is not UTF-8: save the file as UTF-8", bytes[at]) }
    })?;
    parse(text)
}

/// What is wrong, and where: a place in bytes.
#[derive(Debug)]
struct Mistake {
    at: usize,
    what: String,
}

type Key<'a> = Spanned<DeString<'a>>;
type Entry<'a> = Spanned<DeValue<'a>>;

fn parse(text: &str) -> Result<FileConfig, Mistake> {
    let root = DeTable::parse(text).map_err(|error| Mistake {
        at: error.span().map_or(0, |span| span.start),
        what: format!("this is not TOML: {}", error.message()),
    })?;
    let mut config = FileConfig::default();
    for (key, entry) in root.get_ref() {
        match &**key.get_ref() {
            "limits" => {
                for (key, entry) in table(key, entry)? {
                    config.limits.push(limit(text, key, entry)?);
                }
            }
            name if Setting::find(name).is_some() => {
                let what = format!("`{name}` is one of the [limits]: put it below a line [limits]");
                return Err(Mistake { at: key.span().start, what });
            }
            _ => return Err(unknown(key, "the configuration", ["limits"])),
        }
    }
    Ok(config)
}

fn table<'a, 'b>(key: &Key<'_>, entry: &'b Entry<'a>) -> Result<&'b DeTable<'a>, Mistake> {
    let what = || format!("`{0}` is {1}, and has to be a table: [{0}]", key.get_ref(), with_article(entry.get_ref()));
    entry.get_ref().as_table().ok_or_else(|| Mistake { at: key.span().start, what: what() })
}

fn limit(text: &str, key: &Key<'_>, entry: &Entry<'_>) -> Result<(&'static Setting, Value), Mistake> {
    let Some(setting) = Setting::find(key.get_ref()) else {
        return Err(unknown(key, "[limits]", SETTINGS.iter().map(|setting| setting.name)));
    };
    let value = match entry.get_ref() {
        DeValue::String(text) => setting.parse(text),
        DeValue::Boolean(flag) => setting.from_flag(*flag),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => setting.from_number(number),
            Err(_) => Err(setting.expected()),
        },
        _ => Err(setting.expected()),
    };
    let value = value.map_err(|expected| {
        let Range { start, end } = entry.span();
        let got = text.get(start..end).unwrap_or_default();
        Mistake { at: start, what: format!("{} is {got}: expected {expected}", setting.name) }
    })?;
    Ok((setting, value))
}

fn unknown(key: &Key<'_>, place: &str, known: impl IntoIterator<Item = &'static str>) -> Mistake {
    /// Names that are less alike than this have nothing to do with each other.
    const ALIKE: f64 = 0.75;
    let name = key.get_ref();
    let known: Vec<&str> = known.into_iter().collect();
    let alike = known.iter().map(|other| (strsim::jaro_winkler(name, other), *other));
    let nearest = alike.filter(|(alike, _)| *alike >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match nearest {
        Some((_, other)) => format!("did you mean `{other}`?"),
        None if known.len() <= 10 => format!("expected {}", known.join(", ")),
        None => "`host --help` has all of them, as options".to_owned(),
    };
    Mistake { at: key.span().start, what: format!("there is no `{name}` in {place}: {hint}") }
}

fn with_article(value: &DeValue<'_>) -> String {
    let name = value.type_str();
    let article = if name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_as_they_are_written() {
        let text = "[limits]\npacket_bytes_max = \"1MiB\" # a comment\nreceive_maximum = 1_000\nidle_max = \"10min\"\n\
                    queue_bytes_max = 0x1000\nretain_available = false\nqueue_full = \"drop-oldest\"\n\
                    session_expiry_secs_max = \"never\"\nkeep_alive_secs_max = 90\n";
        let mut limits = Limits::default();
        parse(text).unwrap().apply(&mut limits);
        let mut expected = Limits::default();
        expected.packet_bytes_max = 1 << 20;
        expected.receive_maximum = 1000;
        expected.idle_max = std::time::Duration::from_secs(600);
        expected.queue_bytes_max = 4096;
        expected.retain_available = false;
        expected.queue_full = host::limits::QueueFull::DropOldest;
        expected.session_expiry_secs_max = u32::MAX;
        expected.keep_alive_secs_max = 90;
        assert_eq!(limits, expected);
        for nothing in ["", "# nothing\n", "[limits]\n"] {
            parse(nothing).unwrap().apply(&mut limits);
        }
        assert_eq!(limits, expected);
    }

    #[test]
    fn mistakes_are_explained_with_their_place() {
        let table = [
            ("[limits]\n\nreceive_maximum 7", "this is not TOML"),
            ("[limits]\nidle_max = \"1s\"\nidle_max = \"2s\"", "duplicate key"),
            ("\n\n[limit]", "there is no `limit` in the configuration: did you mean `limits`?"),
            ("\n\nworkers = 3", "there is no `workers` in the configuration: expected limits"),
            ("\n\nidle_max = \"1s\"\n[limits]", "`idle_max` is one of the [limits]: put it below a line [limits]"),
            ("\n\nlimits = 3", "`limits` is an integer, and has to be a table: [limits]"),
            ("\n\n[[limits]]", "`limits` is an array, and has to be a table: [limits]"),
            (
                "[limits]\n\npacket_byte_max = 1",
                "there is no `packet_byte_max` in [limits]: did you mean `packet_bytes_max`?",
            ),
            ("[limits]\n\nxyz = 1", "there is no `xyz` in [limits]: `host --help` has all of them"),
            ("[limits]\n\nreceive_maximum = 0", "receive_maximum is 0: expected a number from 1 to 65535"),
            ("[limits]\n\nreceive_maximum = -1", "receive_maximum is -1: expected a number from 1 to 65535"),
            ("[limits]\n\nreceive_maximum = 1.5", "receive_maximum is 1.5: expected a number from 1 to 65535"),
            ("[limits]\n\nconnections_max = true", "connections_max is true: expected a number from 1 to 4294967294"),
            ("[limits]\n\nsubscriptions_max = \"a\"", "subscriptions_max is \"a\": expected a number from 0"),
            (
                "[limits]\n\nidle_max = 10",
                "idle_max is 10: expected a time from 0s to 365d, such as 500ms, 10s or 5min",
            ),
            ("[limits]\n\nretain_available = 1", "retain_available is 1: expected true or false"),
            ("[limits]\n\nqueue_full = \"newest\"", "queue_full is \"newest\": expected drop-newest or drop-oldest"),
            ("[limits]\n\npacket_bytes_max = [1]", "packet_bytes_max is [1]: expected a size from 20"),
            (
                "[limits]\n\nkeep_alive_secs_max = 99999999999999999999",
                "expected a number of seconds, or a time such as 90s",
            ),
        ];
        for (text, expected) in table {
            let Mistake { at, what } = parse(text).expect_err(text);
            assert!(what.contains(expected), "{text}: {what}");
            assert_eq!(text[..at].matches('\n').count(), 2, "{text}: {what}");
        }
    }

    #[test]
    fn byte_that_is_not_utf8_has_its_place() {
        let bytes = b"[limits]\r\n# caf\xE9\r\n";
        let Mistake { at, what } = read_bytes(bytes).expect_err("it is Latin-1");
        assert_eq!((at, what.as_str()), (15, "the byte 0xE9 is not UTF-8: save the file as UTF-8"));
        assert!(read_bytes(b"\xEF\xBB\xBF[limits]\r\nidle_max = \"1s\"\r\n").is_ok());
    }
}
