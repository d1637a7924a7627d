//! The keys as documentation: the tables of `host/CONFIG.md`, and a file in which all of them stand with their defaults.

use std::fmt::Write as _;

use super::keys::{LOG_KEYS, PLUGIN_KEYS, SERVER_KEYS};
use super::toml_value::quoted;
use super::{default_text, option_of, variable_of};
use crate::core::OF_LISTENERS;
use crate::limits::{Kind, Limits, SETTINGS, Setting, Value};
use crate::listener::{LISTENER_KEYS, ListenerConfig};

/// Characters in a line of the file, at most, where words allow it.
const WIDTH: usize = 100;

/// Before what is not there by default. Who takes the first `#` from each key has the defaults.
const EXAMPLE: &str = "## Example: ";

const ABOUT_THE_FILE: &str = "Configuration of host, for `host --config FILE`: every key with its default, none of which \
    counts as long as it is a comment. What has no default stands behind `## Example:`. What the environment (HOST_WORKERS=2) and the command line (--workers 2) say counts \
    before the file. `host config check FILE` looks for mistakes; `host reload`, or SIGHUP, has a running host read its file \
    anew. Sizes are bytes or have a unit: 64KiB, 16MiB, 1GiB. Times have a unit: 500ms, 10s, 5min, 2h, 7d. Names of files \
    that are relative start from the directory of this file.";

/// A listener of which nothing is said: what its keys' defaults are.
fn plain_listener() -> ListenerConfig {
    ListenerConfig::new(crate::listener::ListenerUrl::tcp(([127, 0, 0, 1], crate::Server::DEFAULT_PORT).into()))
}

/// What `host config default` prints.
#[must_use]
pub fn default_file() -> String {
    let mut file = String::new();
    comment(&mut file, ABOUT_THE_FILE);
    write_keys(&mut file, "", SERVER_KEYS, &Default::default());
    file.push_str("\n#[log]\n");
    write_keys(&mut file, "log", LOG_KEYS, &Default::default());
    file.push_str("\n#[limits]\n");
    write_keys(&mut file, "limits", SETTINGS, &Limits::default());
    file.push('\n');
    comment(&mut file, "Where to listen: a table for each listener. Without any, tcp://127.0.0.1:1883.");
    file.push_str("#[[listener]]\n");
    write_keys(&mut file, "listener", LISTENER_KEYS, &plain_listener());
    file.push('\n');
    comment(&mut file, "Bounds of this listener, which hold for its connections in the place of those of [limits].");
    file.push_str("#[listener.limits]\n");
    let limits = Limits::default();
    for setting in OF_LISTENERS.iter().filter_map(|name| Setting::find(name)) {
        let _ = writeln!(file, "{EXAMPLE}{} = {}", setting.name, written(setting, &limits));
    }
    file.push('\n');
    comment(
        &mut file,
        "The plugins, in the order in which they are asked: a table for each. Without any, there are none.",
    );
    let _ = writeln!(file, "{EXAMPLE}[[plugin]]");
    write_keys(&mut file, "plugin", PLUGIN_KEYS, &Default::default());
    file.push('\n');
    comment(&mut file, "The configuration of the plugin above, in a table of its own, in the place of `config`.");
    let _ = writeln!(file, "{EXAMPLE}[plugin.config]\n{EXAMPLE}key = \"value\"");
    file
}

fn write_keys<T>(file: &mut String, table: &str, settings: &[Setting<T>], defaults: &T) {
    for setting in settings {
        file.push('\n');
        comment(file, &sentences(setting.about));
        let mut facts = vec![format!("Unit: {}", setting.kind)];
        if setting.show(defaults).is_empty() {
            facts.push(format!("default: {}", setting.unset));
        }
        if !setting.beyond.is_empty() {
            facts.push(format!("{}{}", past(setting), setting.beyond));
        }
        facts.push(format!("a change counts: {}", setting.reload.name()));
        comment(file, &format!("{}.", facts.join("; ")));
        // Without a plugin, nothing of it is by default.
        let begin = if table == "plugin" || setting.show(defaults).is_empty() { EXAMPLE } else { "#" };
        let _ = writeln!(file, "{begin}{} = {}", setting.name, written(setting, defaults));
    }
}

fn past<T>(setting: &Setting<T>) -> &'static str {
    if setting.beyond.starts_with("if ") { "" } else { "past it: " }
}

/// The default as it stands in the file; where there is none, an example.
fn written<T>(setting: &Setting<T>, defaults: &T) -> String {
    let value = setting.get(defaults);
    let is_plain = matches!(setting.kind, Kind::Count | Kind::PerSecond | Kind::Flag | Kind::Mode);
    match (setting.kind, &value) {
        (Kind::Count, Value::Unset) => setting.range.start().to_string(),
        (Kind::Time, Value::Unset) => quoted(&setting.kind.print(&Value::Number(*setting.range.start()))),
        (Kind::Word(word), Value::Unset) => quoted(word.example),
        (Kind::Words(word), Value::Texts(texts)) if texts.is_empty() => format!("[{}]", quoted(word.example)),
        (Kind::Flag, Value::Unset) => "true".to_owned(),
        (Kind::Choice(words), Value::Unset) => quoted(words.first().unwrap_or(&"")),
        (Kind::Texts, Value::Unset) => format!("[{}]", quoted(setting.name)),
        (Kind::Path, Value::Unset) => quoted(setting.name),
        (Kind::Text, _) if setting.show(defaults).is_empty() => quoted(setting.name),
        (Kind::Paths, Value::Texts(texts)) if texts.is_empty() => format!("[{}]", quoted(setting.name)),
        (Kind::Table, _) => "{}".to_owned(),
        (_, Value::Texts(texts)) => {
            format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
        }
        _ if is_plain => setting.show(defaults),
        _ => quoted(&setting.show(defaults)),
    }
}

fn comment(file: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            file.push_str(&line);
            file.push('\n');
            line.replace_range(.., "#");
        }
        line.push(' ');
        line.push_str(word);
    }
    file.push_str(&line);
    file.push('\n');
}

/// The text of a row of a table without the line breaks of the source.
fn sentences(about: &str) -> String {
    about.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The tables of `host/CONFIG.md`.
#[must_use]
pub fn tables() -> String {
    let mut text = String::new();
    section(&mut text, "The server", "Keys at the top of the file, before the first table.");
    rows(&mut text, "", SERVER_KEYS, &Default::default());
    section(&mut text, "`[log]`", "The log, which goes to stderr.");
    rows(&mut text, "log", LOG_KEYS, &Default::default());
    section(
        &mut text,
        "`[limits]`",
        "Each bound has its row in [LIMITS.md](LIMITS.md), with unit, default, and when a change counts. The option of \
         `packet_bytes_max` is `--packet-bytes-max`, and its variable `HOST_PACKET_BYTES_MAX`.",
    );
    section(
        &mut text,
        "`[[listener]]`",
        "One table for each listener; without any, `tcp://127.0.0.1:1883`. `--listen URL`, once for each, and `HOST_LISTEN`, \
         URLs with spaces between them, stand for listeners of which only the URL is said. Where one of them is given, the \
         listeners of the file do not count.",
    );
    rows(&mut text, "listener", LISTENER_KEYS, &plain_listener());
    let bounds: Vec<String> = OF_LISTENERS.iter().map(|name| format!("`{name}`")).collect();
    let _ = write!(
        text,
        "\n### Bounds of a listener\n\nA table `[listener.limits]` behind a `[[listener]]` has bounds that hold for its \
         connections in the place of those of `[limits]`; `connections_max` and `connect_rate_max` are for what comes through \
         the listener, and the server's hold beside them. `retain_available` cannot be true where the server's is not. Another \
         one counts for new connections. A listener can have: {}.\n",
        bounds.join(", ")
    );
    section(
        &mut text,
        "`[[plugin]]`",
        "One table for each plugin; their order is that of the chain. `--plugin PATH` with `--plugin-config JSON` or `@FILE`, \
         and `HOST_PLUGIN` with `HOST_PLUGIN_CONFIG`, stand for plugins as well. Where one of them is given, the plugins of \
         the file do not count.",
    );
    rows(&mut text, "plugin", PLUGIN_KEYS, &Default::default());
    text.push('\n');
    text
}

fn section(text: &mut String, heading: &str, about: &str) {
    let _ = write!(text, "\n## {heading}\n\n{about}\n");
}

fn rows<T>(text: &mut String, table: &str, settings: &[Setting<T>], defaults: &T) {
    let mut heading = "";
    for setting in settings {
        if setting.heading != heading {
            heading = setting.heading;
            let has_sections = settings.iter().any(|other| other.heading != heading);
            if has_sections {
                let _ = write!(text, "\n### {heading}\n");
            }
            let (columns, line) = match option_of(table, setting.name) {
                Some(_) => ("| key | unit | default | what | option, variable | a change counts |", "| --- ".repeat(6)),
                None => ("| key | unit | default | what | a change counts |", "| --- ".repeat(5)),
            };
            let _ = write!(text, "\n{columns}\n{line}|\n");
        }
        let shown = setting.show(defaults);
        let default = if shown.is_empty() { default_text(setting, defaults) } else { format!("`{shown}`") };
        let _ = write!(text, "| `{}` | {} | {default} | {} |", setting.name, setting.kind, sentences(setting.about));
        if let Some(option) = option_of(table, setting.name) {
            let _ = write!(text, " `--{option}`, `{}` |", variable_of(&option));
        }
        let _ = writeln!(text, " {} |", setting.reload.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Layer};

    fn read(name: &str, text: &str) -> Config {
        let file = std::env::temp_dir().join(format!("host-reference-{}-{name}.toml", std::process::id()));
        std::fs::write(&file, text).unwrap();
        let layer = Layer::read(&file);
        std::fs::remove_file(&file).unwrap();
        Config::of(&[layer.unwrap_or_else(|error| panic!("{error}\n{text}"))]).unwrap()
    }

    #[test]
    fn what_is_printed_parses_and_has_the_defaults() {
        let file = default_file();
        assert_eq!(read("commented", &file), Config::default());
        // Comments begin with `# `, keys and tables with `#` alone.
        let uncommented = |line: &str| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|first: char| first == '[' || first.is_ascii_lowercase()) => key.to_owned(),
            _ => line.to_owned(),
        };
        let all: String = file.lines().map(|line| uncommented(line) + "\n").collect();
        // The listener that there is without any.
        let expected = Config { listeners: vec![plain_listener()], ..Config::default() };
        assert_eq!(read("uncommented", &all), expected);
        for line in file.lines() {
            assert!(line.len() <= WIDTH || !line.starts_with("# "), "{line}");
        }
    }

    /// Each on its own, below the table that it stands in.
    #[test]
    fn examples_are_taken() {
        let file = default_file();
        let mut table = String::new();
        let mut examples = 0;
        for line in file.lines() {
            let written = line.strip_prefix(EXAMPLE).or_else(|| line.strip_prefix('#')).unwrap_or(line);
            if written.starts_with('[') {
                table = match written {
                    "[[listener]]" | "[listener.limits]" => "[[listener]]\nurl = \"tls://127.0.0.1:1\"\n".to_owned(),
                    "[[plugin]]" | "[plugin.config]" => "[[plugin]]\npath = \"x.so\"\n".to_owned(),
                    _ => String::new(),
                };
                let own = written.ends_with("limits]") || written.ends_with("config]") || table.is_empty();
                table += if own { written } else { "" };
            }
            let Some(example) = line.strip_prefix(EXAMPLE).filter(|example| !example.starts_with('[')) else {
                continue;
            };
            examples += 1;
            // What needs a file, another URL or another key is looked at by itself, elsewhere.
            let apart = ["config_file", "path", "origins", "tcp_keep_alive_", "username_from", "more_private_keys"];
            if !apart.iter().any(|key| example.starts_with(key)) {
                let config = read("example", &format!("{table}\n{example}\n"));
                assert_ne!(config, Config::default(), "{example}");
            }
        }
        assert!(examples > 20, "{file}");
    }

    #[test]
    fn every_key_is_in_it_with_its_unit() {
        let file = default_file();
        let names = SETTINGS.iter().map(|setting| setting.name).chain(SERVER_KEYS.iter().map(|setting| setting.name));
        let names = names.chain(LOG_KEYS.iter().map(|setting| setting.name));
        for name in names.chain(LISTENER_KEYS.iter().map(|setting| setting.name)) {
            let is_there = ["#", EXAMPLE].iter().any(|begin| file.contains(&format!("\n{begin}{name} = ")));
            assert!(is_there, "{name}");
        }
    }

    #[test]
    fn keys_are_described() {
        fn check<T>(settings: &[Setting<T>], defaults: &T) {
            for setting in settings {
                let (name, about) = (setting.name, sentences(setting.about));
                assert!(about.starts_with(char::is_uppercase) && about.ends_with('.'), "{name}: {about}");
                assert!(!default_text(setting, defaults).is_empty(), "{name} has neither a default nor words for none");
            }
        }
        check(SERVER_KEYS, &Default::default());
        check(LOG_KEYS, &Default::default());
        check(LISTENER_KEYS, &plain_listener());
        check(PLUGIN_KEYS, &Default::default());
    }
}
