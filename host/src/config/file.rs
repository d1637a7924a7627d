//! The configuration file: what is written in it, with the lines of what is wrong.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::keys::{LOG_KEYS, PLUGIN_KEYS, PluginKeys, SERVER_KEYS};
use super::{FROM_FILE, Given, Layer, PluginConfig, nearest, toml_value};
use crate::core::OF_LISTENERS;
use crate::limits::{Kind, SETTINGS, Setting, Value};
use crate::listener::{LISTENER_KEYS, ListenerConfig, ListenerUrl};

/// Bytes of the largest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Mistakes that are told at once; nobody corrects more of them in one go.
const MISTAKES_MAX: usize = 20;

/// Names that are less alike than this have nothing to do with each other.
const ALIKE: f64 = 0.75;

impl Layer {
    /// Reads a file. Names of files in it that are relative start from its directory.
    ///
    /// # Errors
    /// A line for each mistake: where it is wrong, and what is expected there.
    pub fn read(file: &Path) -> Result<Self, String> {
        let bytes = read_bounded(file).map_err(|error| {
            format!(
                "cannot read the configuration {}: {error}. Expected a file with TOML in UTF-8; a relative name starts \
                 from the directory that host was started in",
                file.display()
            )
        })?;
        read_bytes(&bytes, file).map_err(|mistakes| {
            let line = |Mistake { at, what }: &Mistake| {
                let (line, column) = (line_of(&bytes, *at), column_of(&bytes, *at));
                format!("{}:{line}:{column}: {what}", file.display())
            };
            let mut lines: Vec<_> = mistakes.iter().take(MISTAKES_MAX).map(line).collect();
            if mistakes.len() > MISTAKES_MAX {
                lines.push(format!("{}: and {} more", file.display(), mistakes.len() - MISTAKES_MAX));
            }
            lines.join("\n")
        })
    }
}

/// What is in a file, which may be one that never ends.
fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    Ok(bytes)
}

fn line_of(bytes: &[u8], at: usize) -> usize {
    bytes[..at.min(bytes.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Characters from the beginning of the line on, counted from 1.
fn column_of(bytes: &[u8], at: usize) -> usize {
    let before = &bytes[..at.min(bytes.len())];
    let line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    // All but those that go on with a character.
    line.iter().filter(|byte| **byte & 0xC0 != 0x80).count() + 1
}

fn read_bytes(bytes: &[u8], file: &Path) -> Result<Layer, Vec<Mistake>> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        vec![Mistake { at, what: format!("the byte 0x{:02X} is not UTF-8: save the file as UTF-8", bytes[at]) }]
    })?;
    let root = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        vec![Mistake { at, what: format!("this is not TOML: {}", error.message()) }]
    })?;
    let mut reader = Reader { text, file, mistakes: Vec::new() };
    let layer = reader.root(root.get_ref());
    let mut mistakes = reader.mistakes;
    mistakes.sort_by_key(|mistake| mistake.at);
    if mistakes.is_empty() { Ok(layer) } else { Err(mistakes) }
}

/// What is wrong, and where: a place in bytes.
#[derive(Debug)]
struct Mistake {
    at: usize,
    what: String,
}

type Key<'a> = Spanned<DeString<'a>>;
type Entry<'a> = Spanned<DeValue<'a>>;

/// Reads one file, and notes what is wrong.
struct Reader<'a> {
    text: &'a str,
    file: &'a Path,
    mistakes: Vec<Mistake>,
}

/// Whether a table has a key of a name.
type HasKey = fn(&str) -> bool;

/// The table of the bounds of one listener.
const BOUNDS: &str = "[listener.limits]";

/// The tables of the file, as they are written.
const TABLES: [(&str, HasKey); 5] = [
    ("[limits]", |name| has(SETTINGS, name)),
    ("[log]", |name| has(LOG_KEYS, name)),
    ("[[listener]]", |name| has(LISTENER_KEYS, name)),
    (BOUNDS, |name| OF_LISTENERS.contains(&name)),
    ("[[plugin]]", |name| has(PLUGIN_KEYS, name)),
];

fn has<T>(settings: &'static [Setting<T>], name: &str) -> bool {
    settings.iter().any(|setting| setting.name == name)
}

impl Reader<'_> {
    fn root(&mut self, root: &DeTable<'_>) -> Layer {
        let mut layer = Layer::default();
        for (key, entry) in root {
            match &**key.get_ref() {
                "limits" => layer.limits = self.table(key, entry, SETTINGS),
                "log" => layer.log = self.table(key, entry, LOG_KEYS),
                "listener" => {
                    let tables = self.tables(key, entry);
                    layer.listeners = Some(tables.into_iter().filter_map(|table| self.listener(table)).collect());
                }
                "plugin" => {
                    let tables = self.tables(key, entry);
                    layer.plugins = Some(tables.into_iter().filter_map(|table| self.plugin(table)).collect());
                }
                _ => layer.server.extend(self.given(key, entry, SERVER_KEYS, "the configuration")),
            }
        }
        for given in &mut layer.server {
            // A path, or a word that is none.
            if let ("control", Value::Text(text)) = (given.setting.name, &mut given.value)
                && text != "none"
            {
                *text = self.full_path(text);
            }
        }
        layer
    }

    /// Reads a table that stands at most once: `[limits]`.
    fn table<T>(&mut self, key: &Key<'_>, entry: &Entry<'_>, settings: &'static [Setting<T>]) -> Vec<Given<T>> {
        let place = format!("[{}]", key.get_ref());
        let entries = self.entries(key, entry, &place).into_iter().flatten();
        entries.filter_map(|(key, entry)| self.given(key, entry, settings, &place)).collect()
    }

    /// What is in a table, if it is one.
    fn entries<'b, 'c>(&mut self, key: &Key<'_>, entry: &'b Entry<'c>, place: &str) -> Option<&'b DeTable<'c>> {
        let table = entry.get_ref().as_table();
        if table.is_none() {
            let got = with_article(entry.get_ref());
            self.wrong(key.span().start, format!("`{}` is {got}, and has to be a table: {place}", key.get_ref()));
        }
        table
    }

    /// The tables of a name that may stand several times, such as `[[listener]]`, each with its place.
    fn tables<'b, 'c>(&mut self, key: &Key<'_>, entry: &'b Entry<'c>) -> Vec<(usize, &'b DeTable<'c>)> {
        let name = key.get_ref();
        let array = entry.get_ref().as_array().map(|array| array.iter().collect::<Vec<_>>()).unwrap_or_default();
        let tables: Vec<_> = array
            .iter()
            .filter_map(|table| table.get_ref().as_table().map(|found| (table.span().start, found)))
            .collect();
        if tables.len() != array.len() || !entry.get_ref().is_array() {
            let got = with_article(entry.get_ref());
            self.wrong(
                key.span().start,
                format!("`{name}` is {got}, and has to be written as [[{name}]], once for each"),
            );
        }
        tables
    }

    fn listener(&mut self, (at, table): (usize, &DeTable<'_>)) -> Option<ListenerConfig> {
        let place = "a [[listener]]";
        let (limits, keys): (Vec<_>, Vec<_>) = table.iter().partition(|(key, _)| key.get_ref() == "limits");
        let given = keys.into_iter().filter_map(|(key, entry)| self.given(key, entry, LISTENER_KEYS, place));
        let mut given: Vec<_> = given.collect();
        let limits: Vec<_> = limits.into_iter().flat_map(|(key, entry)| self.limits_of_listener(key, entry)).collect();
        if !table.iter().any(|(key, _)| key.get_ref() == "url") {
            let what = "this [[listener]] has no url, which says where it listens: url = \"tcp://127.0.0.1:1883\"";
            self.wrong(at, what.to_owned());
        }
        let url = given.iter().find(|given| given.setting.name == "url")?;
        let url: ListenerUrl = url.value.texts().first()?.parse().ok()?;
        let mut listener = ListenerConfig::new(url);
        // In the order of the table: some are parts of what stands before them.
        let order = |given: &Given<_>| LISTENER_KEYS.iter().position(|key| key.name == given.setting.name);
        given.sort_by_key(order);
        super::apply(&given, &mut listener);
        listener.rules.limits = limits;
        let place_of =
            |name: &str| table.iter().find(|(key, _)| key.get_ref() == name).map_or(at, |(key, _)| key.span().start);
        for Given { setting, value, .. } in &given {
            if setting.get(&listener) == Value::Unset && *value != Value::Unset {
                let what = format!("{} of this [[listener]] says nothing without another key", setting.name);
                self.wrong(place_of(setting.name), what);
            }
        }
        for (name, what) in listener.misplaced() {
            self.wrong(place_of(name), what);
        }
        Some(listener)
    }

    /// Reads the bounds that one listener has in the place of the server's.
    fn limits_of_listener(&mut self, key: &Key<'_>, entry: &Entry<'_>) -> Vec<(&'static str, Value)> {
        let mut limits = Vec::new();
        for (key, entry) in self.entries(key, entry, BOUNDS).into_iter().flatten() {
            let name = key.get_ref();
            if has(SETTINGS, name) && !OF_LISTENERS.contains(&&**name) {
                let what = format!("{name} is a bound of the server, not of a listener: it belongs into [limits]");
                self.wrong(key.span().start, what);
            } else if let Some(Given { setting, value, .. }) = self.given(key, entry, SETTINGS, BOUNDS) {
                limits.push((setting.name, value));
            }
        }
        limits
    }

    fn plugin(&mut self, (at, table): (usize, &DeTable<'_>)) -> Option<PluginConfig> {
        let given = table.iter().filter_map(|(key, entry)| self.given(key, entry, PLUGIN_KEYS, "a [[plugin]]"));
        let given: Vec<_> = given.collect();
        if !table.iter().any(|(key, _)| key.get_ref() == "path") {
            self.wrong(
                at,
                "this [[plugin]] has no path, which says where its library is: path = \"libacl.so\"".to_owned(),
            );
        }
        let mut keys = PluginKeys::default();
        super::apply(&given, &mut keys);
        let PluginKeys { path, config, config_file, enabled } = keys;
        let (config, source) = match (config, config_file) {
            (Some(_), Some(_)) => {
                self.wrong(at, "this [[plugin]] has config and config_file: it can have one of them".to_owned());
                return None;
            }
            (Some(json), None) => (json.0, format!("from {}", self.place(at))),
            (None, Some(file)) if file.to_string_lossy().contains('{') => {
                let what =
                    "config_file is no name of a file, but what seems to be JSON: take config = { key = value, … }";
                self.wrong(at, what.to_owned());
                return None;
            }
            (None, Some(file)) => {
                let text = std::fs::read_to_string(&file);
                let text = text.map_err(|error| {
                    let expected = "Expected JSON in UTF-8; a relative name starts from the directory of this file";
                    self.wrong(at, format!("cannot read the config_file {}: {error}. {expected}", file.display()));
                });
                (text.ok()?, format!("{FROM_FILE}{}", file.display()))
            }
            (None, None) => ("{}".to_owned(), "none given: {}".to_owned()),
        };
        if let Err(error) = serde_json::from_str::<serde_json::Value>(&config) {
            self.wrong(at, format!("the configuration {source} is not JSON: {error}"));
        }
        enabled.then_some(PluginConfig { path: path?, config, source })
    }

    /// Reads one key. `None` if it is wrong, which has been noted.
    fn given<T>(
        &mut self,
        key: &Key<'_>,
        entry: &Entry<'_>,
        settings: &'static [Setting<T>],
        table: &str,
    ) -> Option<Given<T>> {
        let Some(setting) = settings.iter().find(|setting| setting.name == key.get_ref()) else {
            let what = unknown(key.get_ref(), table, settings);
            self.wrong(key.span().start, what);
            return None;
        };
        match self.value(setting, entry) {
            Ok(value) => Some(Given { setting, value, place: self.place(key.span().start) }),
            Err(what) => {
                let Range { start, end } = entry.span();
                let got = self.text.get(start..end).filter(|got| got.len() <= 200 && !got.contains('\n'));
                let got = got.filter(|_| may_be_shown(setting.kind, entry.get_ref()));
                let got = got.map_or_else(|| with_article(entry.get_ref()), str::to_owned);
                self.wrong(start, format!("{} is {got}: {what}", setting.name));
                None
            }
        }
    }

    fn value<T>(&self, setting: &Setting<T>, entry: &Entry<'_>) -> Result<Value, String> {
        match (setting.kind, entry.get_ref()) {
            (Kind::Table, value @ DeValue::Table(_)) => Ok(Value::Text(toml_value::to_json(value)?.to_string())),
            (Kind::Table, _) => Err(setting.expected_instead()),
            (Kind::Path, DeValue::String(text)) if !text.is_empty() => setting.parse(&self.full_path(text)),
            (Kind::Texts | Kind::Paths | Kind::Words(_), DeValue::String(text)) => {
                self.texts(setting, [text.to_string()])
            }
            (_, DeValue::String(text)) => setting.parse(text),
            (_, DeValue::Boolean(flag)) => setting.from_flag(*flag),
            (_, DeValue::Integer(number)) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => setting.from_number(number),
                Err(_) => Err(setting.expected_instead()),
            },
            (_, DeValue::Array(values)) => {
                let texts = values.iter().map(|value| value.get_ref().as_str().map(str::to_owned));
                let texts: Option<Vec<_>> = texts.collect();
                self.texts(setting, texts.ok_or_else(|| setting.expected_instead())?)
            }
            _ => Err(setting.expected_instead()),
        }
    }

    fn texts<T>(&self, setting: &Setting<T>, texts: impl IntoIterator<Item = String>) -> Result<Value, String> {
        let is_path = |text: &String| setting.kind == Kind::Paths && !text.is_empty();
        let full = |text: String| if is_path(&text) { self.full_path(&text) } else { text };
        setting.from_texts(texts.into_iter().map(full).collect())
    }

    /// The path of a file that is named in this one.
    fn full_path(&self, path: &str) -> String {
        let here = self.file.parent().map(Path::to_owned).unwrap_or_default();
        here.join(path).to_string_lossy().into_owned()
    }

    fn place(&self, at: usize) -> String {
        format!("{}:{}", self.file.display(), line_of(self.text.as_bytes(), at))
    }

    fn wrong(&mut self, at: usize, what: String) {
        self.mistakes.push(Mistake { at, what });
    }
}

/// What to say about a key that a table does not have.
fn unknown<T>(name: &str, table: &str, settings: &'static [Setting<T>]) -> String {
    let tables: &[&str] = match table {
        "the configuration" => &["limits", "log", "listener", "plugin"],
        "a [[listener]]" => &["limits"],
        _ => &[],
    };
    let settings = settings.iter().map(|setting| setting.name);
    let settings = settings.filter(|name| table != BOUNDS || OF_LISTENERS.contains(name));
    let known: Vec<&str> = settings.chain(tables.iter().copied()).collect();
    let hint = match TABLES.iter().find(|(other, has)| *other != table && !table.ends_with(other) && has(name)) {
        _ if has(SERVER_KEYS, name) => "it stands at the top of the file, before the first [table]".to_owned(),
        Some((other, _)) => format!("it belongs to {other}: put it below a line {other}"),
        None => match nearest(name, known.iter().copied(), ALIKE) {
            Some(other) => format!("did you mean `{other}`?"),
            None if known.len() <= 16 => format!("expected {}", known.join(", ")),
            None => "`host config default` prints all of them".to_owned(),
        },
    };
    format!("there is no `{name}` in {table}: {hint}")
}

/// Whether a value that is wrong may stand in a message, which the log and the control socket get: not what a plugin's
/// configuration is, or could be if it stands at the wrong key, as there are secrets in it.
fn may_be_shown(kind: Kind, value: &DeValue<'_>) -> bool {
    match value {
        _ if kind == Kind::Table => false,
        DeValue::Table(_) => false,
        DeValue::Array(values) => values.iter().all(|value| may_be_shown(kind, value.get_ref())),
        _ => true,
    }
}

fn with_article(value: &DeValue<'_>) -> String {
    let name = value.type_str();
    let article = if name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, LogFormat};
    use crate::control::Place;
    use crate::limits::{Limits, QueueFull};

    fn read(text: &str) -> Result<Config, Vec<Mistake>> {
        Ok(Config::of(&[read_bytes(text.as_bytes(), Path::new("/etc/host/host.toml"))?]).expect("it fits together"))
    }

    #[test]
    fn values_are_taken_as_they_are_written() {
        let text = "[limits]\npacket_bytes_max = \"1MiB\" # a comment\nreceive_maximum = 1_000\nidle_max = \"10min\"\n\
                    queue_bytes_max = 0x1000\nretain_available = false\nqueue_full = \"drop-oldest\"\n\
                    session_expiry_secs_max = \"never\"\nkeep_alive_secs_max = 90\n";
        let expected = Limits {
            packet_bytes_max: 1 << 20,
            receive_maximum: 1000,
            idle_max: std::time::Duration::from_secs(600),
            queue_bytes_max: 4096,
            retain_available: false,
            queue_full: QueueFull::DropOldest,
            session_expiry_secs_max: u32::MAX,
            keep_alive_secs_max: 90,
            ..Limits::default()
        };
        assert_eq!(read(text).unwrap().limits, expected);
        for nothing in ["", "# nothing\n", "[limits]\n", "[log]\n"] {
            assert_eq!(read(nothing).unwrap(), Config::default());
        }
    }

    #[test]
    fn file_may_say_everything() {
        let text = "workers = 2\ncontrol = \"run/control.sock\"\nallow_anonymous = true\n\
                    [log]\nlevel = \"warn,host::plugin=debug\"\nformat = \"json\"\n\
                    [[listener]]\nurl = \"127.0.0.1:1883\"\n\
                    [[listener]]\nname = \"front\"\nurl = \"tls://[::]:8883\"\ncertificate = \"cert.pem\"\n\
                    private_key = \"/run/key.pem\"\n\
                    [[plugin]]\npath = \"libacl.so\"\n[plugin.config]\nusers = { a = 1 }\n\
                    [[plugin]]\npath = \"/lib/off.so\"\nenabled = false\n\
                    [[plugin]]\npath = \"/lib/b.so\"\n";
        let config = read(text).unwrap();
        assert_eq!(config.server.workers, Some(2));
        assert_eq!(config.server.control, Place::Path("/etc/host/run/control.sock".into()));
        assert!(config.server.allow_anonymous);
        assert_eq!((config.log.level.as_str(), config.log.format), ("warn,host::plugin=debug", LogFormat::Json));
        let [plain, front] = &config.listeners[..] else { panic!("{:?}", config.listeners) };
        assert_eq!(*plain, ListenerConfig::new("tcp://127.0.0.1:1883".parse().unwrap()));
        assert_eq!((front.name(), front.url.to_string()), ("front".to_owned(), "tls://[::]:8883".to_owned()));
        assert_eq!(front.tls.certificate.as_deref(), Some(Path::new("/etc/host/cert.pem")));
        assert_eq!(front.tls.private_key.as_deref(), Some(Path::new("/run/key.pem")));
        let plugins: Vec<_> = config.plugins.iter().map(|one| (one.path.to_str().unwrap(), &*one.config)).collect();
        assert_eq!(plugins, [("/etc/host/libacl.so", "{\"users\":{\"a\":1}}"), ("/lib/b.so", "{}")]);
        let said: Vec<_> = config.said.iter().map(|said| (&*said.key, &*said.value, &*said.place)).collect();
        let place = |line| format!("/etc/host/host.toml:{line}");
        let places: Vec<_> = (0..7).map(place).collect();
        assert_eq!(
            said,
            [
                ("workers", "2", &*places[1]),
                ("control", "/etc/host/run/control.sock", &places[2]),
                ("allow_anonymous", "true", &places[3]),
                ("log.level", "warn,host::plugin=debug", &places[5]),
                ("log.format", "json", &places[6]),
            ]
        );
    }

    #[test]
    fn mistakes_are_explained_with_their_place() {
        let table = [
            ("[limits]\n\nreceive_maximum 7", "this is not TOML"),
            ("[limits]\nidle_max = \"1s\"\nidle_max = \"2s\"", "duplicate key"),
            ("\n\n[limit]", "there is no `limit` in the configuration: did you mean `limits`?"),
            ("\n\n[zzz]", "there is no `zzz` in the configuration: expected workers, control, data_dir, durability"),
            ("\n\nworker = 3", "there is no `worker` in the configuration: did you mean `workers`?"),
            ("\n\nworkers = 65", "workers is 65: expected a number from 1 to 64"),
            ("\n\ncontrol = \"\"", "control is \"\": expected a path, or none"),
            (
                "\n\nidle_max = \"1s\"\n[limits]",
                "there is no `idle_max` in the configuration: it belongs to [limits]: put",
            ),
            ("[limits]\n\nworkers = 3", "there is no `workers` in [limits]: it stands at the top of the file"),
            ("[[listener]]\nurl = \"127.0.0.1:1\"\nworkers = 1", "it stands at the top of the file, before"),
            ("\n\nlimits = 3", "`limits` is an integer, and has to be a table: [limits]"),
            ("\n\n[[limits]]", "`limits` is an array, and has to be a table: [limits]"),
            (
                "[limits]\n\npacket_byte_max = 1",
                "there is no `packet_byte_max` in [limits]: did you mean `packet_bytes_max`?",
            ),
            ("[limits]\n\nxyz = 1", "there is no `xyz` in [limits]: `host config default` prints all of them"),
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
            ("[log]\n\nlevel = \"loud\"", "level is \"loud\": `loud` is not a level: expected off, error, warn, info"),
            ("[log]\n\nformat = \"xml\"", "format is \"xml\": expected human or json"),
            ("\n\n[listener]\nurl = \"127.0.0.1:1\"", "`listener` is a table, and has to be written as [[listener]]"),
            ("\n\nlistener = [1]", "`listener` is an array, and has to be written as [[listener]]"),
            ("\n\n[[listener]]\nname = \"x\"", "this [[listener]] has no url, which says where it listens: url ="),
            ("[[listener]]\n\nurl = \"localhost:1883\"", "for localhost: 127.0.0.1:1883 or [::1]:1883"),
            ("[[listener]]\nurl = \"127.0.0.1:1\"\ncertificat = \"x\"", "did you mean `certificate`?"),
            ("[[listener]]\nurl = \"127.0.0.1:1\"\ncertificate = \"\"", "expected the path of a file, not empty"),
            ("[[listener]]\nurl = \"127.0.0.1:1\"\ncertificate = [\"x\"]", "expected the path of a file"),
            (
                "[[listener]]\nurl = \"127.0.0.1:1\"\ntcp_keep_alive_probes = 2",
                "tcp_keep_alive_probes of this [[listener]] says nothing without another key",
            ),
            (
                "[[listener]]\nurl = \"0.0.0.0:1\"\ncertificate = \"x.pem\"",
                "certificate is for tls://, wss:// and quic://, and says nothing at tcp://0.0.0.0:1: did you mean tls://0.0",
            ),
            (
                "[[listener]]\nurl = \"unix:/x\"\nclient_certificates = \"required\"",
                "says nothing at unix:/x: leave it",
            ),
            ("[[listener]]\nurl = \"ws://127.0.0.1:1\"\nunix_mode = 0o600", "unix_mode is for unix:, and says"),
            ("[[listener]]\nurl = \"tls://127.0.0.1:1\"\nusername_from = \"dns\"", "say `client_certificates`"),
            (
                "[[listener]]\nurl = \"127.0.0.1:1\"\nlimits = 1",
                "`limits` is an integer, and has to be a table: [listener.limits]",
            ),
            (
                "[[listener]]\nurl = \"127.0.0.1:1\"\nlimit = 1",
                "there is no `limit` in a [[listener]]: did you mean `limits`?",
            ),
            (
                "[[listener]]\nurl = \"127.0.0.1:1\"\nlimits.receive_maximun = 1",
                "there is no `receive_maximun` in [listener.limits]: did you mean `receive_maximum`?",
            ),
            (
                "[[listener]]\nurl = \"127.0.0.1:1\"\nlimits.sessions_max = 1",
                "sessions_max is a bound of the server, not of a listener: it belongs into [limits]",
            ),
            (
                "[[listener]]\nurl = \"127.0.0.1:1\"\nlimits.receive_maximum = 0",
                "receive_maximum is 0: expected a number from 1 to 65535",
            ),
            ("\n\n[[plugin]]\nenabled = true", "this [[plugin]] has no path, which says where its library is"),
            ("\n\n[[plugin]]\npath = \"x\"\nconfig = {}\nconfig_file = \"y\"", "it can have one of them"),
            (
                "\n\n[[plugin]]\npath = \"x\"\nconfig_file = \"/no/such\"",
                "cannot read the config_file /no/such: No such",
            ),
            ("[[plugin]]\npath = \"x\"\nconfig = \"{}\"", "config is a string: expected a table: { key = value, … }"),
            ("[[plugin]]\npath = \"x\"\nconfig = { a = nan }", "config is a table: JSON has neither inf nor nan"),
        ];
        for (text, expected) in table {
            let mistakes = read(text).expect_err(text);
            let [Mistake { at, what }] = &mistakes[..] else { panic!("{text}: {mistakes:?}") };
            assert!(what.contains(expected), "{text}: {what}");
            assert_eq!(text[..*at].matches('\n').count(), 2, "{text}: {what}");
        }
    }

    #[test]
    fn secret_in_the_wrong_place_is_not_shown() {
        for text in [
            "[[plugin]]\npath = \"x\"\nconfig = '{\"password\":\"hunter2\"}'",
            "[[plugin]]\npath = \"x\"\nconfig = \"hunter2\"",
            "[[plugin]]\npath = \"x\"\nconfig = [\"hunter2\"]",
            "[[plugin]]\npath = \"x\"\nconfig = { password = \"hunter2\", ttl = inf }",
            "[[plugin]]\npath = \"x\"\nconfig = { pin = 31337313373133731337313373 }",
            "[[plugin]]\npath = \"x\"\nconfig_file = '{\"password\":\"hunter2\"}'",
            "[[plugin]]\npath = { password = \"hunter2\" }",
            "[limits]\nconnections_max = { password = \"hunter2\" }",
            "[limits]\nconnections_max = [{ password = \"hunter2\" }]",
            "limits = [{ password = \"hunter2\" }]",
            "[[plugin]]\npath = \"x\"\npassword = \"hunter2\"",
        ] {
            let mistakes = read(text).expect_err(text);
            assert!(
                mistakes.iter().all(|one| !one.what.contains("hunter2") && !one.what.contains("313")),
                "{mistakes:?}"
            );
        }
    }

    #[test]
    fn mistakes_have_their_line_and_column() {
        let head = "[[listener]]\nurl = \"127.0.0.1:1\"\n";
        for (text, line, column) in [
            ("worker = 1".to_owned(), 1, 1),
            ("log = { \"lével\" = 1, xyz = 2 }".to_owned(), 1, 22),
            ("log = { level = \"loud\", format = \"json\" }".to_owned(), 1, 17),
            ("[limits]\n  idle_max = 1".to_owned(), 2, 14),
            (format!("{head}tcp_keep_alive_probes = 2\n"), 3, 1),
            (format!("{head}[listener.limits]\nreceive_maximum = 1\n  sessions_max = 2\n"), 5, 3),
            (format!("{head}limits = {{ receive_maximum = 1, xyz = 2 }}\n"), 3, 33),
            (format!("{head}certificate = \"x\"\n"), 3, 1),
        ] {
            let mistakes = read(&text).expect_err(&text);
            let at = mistakes.last().expect("there is one").at;
            let found = (line_of(text.as_bytes(), at), column_of(text.as_bytes(), at));
            assert_eq!(found, (line, column), "{text}: {mistakes:?}");
        }
    }

    #[test]
    fn all_mistakes_are_told_in_their_order() {
        let text = "[log]\nlevel = 3\n[limits]\nidle_max = 1\nxyz = 1\n[[listener]]\n";
        let mistakes = read(text).expect_err("four");
        let lines: Vec<_> = mistakes.iter().map(|mistake| line_of(text.as_bytes(), mistake.at)).collect();
        assert_eq!(lines, [2, 4, 5, 6]);
    }

    #[test]
    fn byte_that_is_not_utf8_has_its_place() {
        let bytes = b"[limits]\r\n# caf\xE9\r\n";
        let mistakes = read_bytes(bytes, Path::new("host.toml")).expect_err("it is Latin-1");
        let [Mistake { at: 15, what }] = &mistakes[..] else { panic!("{mistakes:?}") };
        assert_eq!(what, "the byte 0xE9 is not UTF-8: save the file as UTF-8");
        let read = read_bytes(b"\xEF\xBB\xBF[limits]\r\nidle_max = \"1s\"\r\n", Path::new("host.toml"));
        assert!(read.is_ok(), "{read:?}");
    }
}
