//! The environment as configuration: `HOST_WORKERS=2` is `--workers 2`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::keys::{LOG_KEYS, SERVER_KEYS};
use super::{FROM_FILE, Given, Layer, PluginConfig, nearest, option_of, variable_of};
use crate::limits::{SETTINGS, Setting};
use crate::listener::ListenerConfig;
use crate::upgrade;

/// What variables of ours begin with.
const PREFIX: &str = "HOST_";

/// What is told to have been meant is so much like what is there.
const ALIKE: f64 = 0.92;

/// What other programs call theirs: a shell, a container that is told of its machine, and what starts this program for
/// `host dev`.
const OF_OTHERS: [&str; 5] = ["HOST_IP", "HOST_UID", "HOST_GID", "HOST_NAME", "HOST_DEV_PARENT"];

/// Variables of options that are no keys of the file.
const OTHERS: [&str; 4] = ["HOST_CONFIG", "HOST_LISTEN", "HOST_PLUGIN", "HOST_PLUGIN_CONFIG"];

impl Layer {
    /// Reads variables, such as those of the process ([`std::env::vars_os`]). One that is empty, or has nothing but spaces,
    /// counts as one that is not there. Also returned is a sentence for each variable that begins like ours and is not known, but
    /// for those that Kubernetes makes of a service called host, and a few that other programs have.
    ///
    /// # Errors
    /// The variable with a value that is not allowed, and what was expected.
    pub fn of_environment(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(Self, Vec<String>), String> {
        let ours = |(name, value): (OsString, OsString)| {
            let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX) && is_set(&value))?;
            Some((name, value))
        };
        let mut variables: Vec<_> = variables.into_iter().filter_map(ours).collect();
        variables.sort();
        let mut layer = Self {
            server: take(&mut variables, SERVER_KEYS, "")?,
            log: take(&mut variables, LOG_KEYS, "log")?,
            limits: take(&mut variables, SETTINGS, "limits")?,
            ..Self::default()
        };
        let find = |wanted: &str| variables.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
        if let Some(urls) = find("HOST_LISTEN") {
            layer.listeners = Some(listeners(text("HOST_LISTEN", urls)?)?);
        }
        layer.plugins = plugins(find("HOST_PLUGIN"), find("HOST_PLUGIN_CONFIG"))?;
        let doubts = variables.iter().filter_map(|(name, _)| doubt(name)).collect();
        Ok((layer, doubts))
    }
}

/// Whether a variable with this value counts as one that is there.
#[must_use]
pub fn is_set(value: &OsStr) -> bool {
    !value.as_encoded_bytes().trim_ascii().is_empty()
}

/// Takes the variables of a table out.
fn take<T>(
    variables: &mut Vec<(String, OsString)>,
    settings: &'static [Setting<T>],
    table: &str,
) -> Result<Vec<Given<T>>, String> {
    let mut taken = Vec::new();
    for setting in settings {
        let name = option_of(table, setting.name).map(|option| variable_of(&option)).unwrap_or_default();
        let Some(at) = variables.iter().position(|(found, _)| *found == name) else { continue };
        let (name, value) = variables.remove(at);
        let value = text(&name, &value)?;
        let value = setting.parse(value).map_err(|what| format!("{name} is {value:?}: {what}"))?;
        taken.push(Given { setting, value, place: name });
    }
    Ok(taken)
}

fn text<'a>(name: &str, value: &'a OsStr) -> Result<&'a str, String> {
    value.to_str().ok_or_else(|| format!("{name} is {value:?}: expected UTF-8"))
}

/// URLs with spaces between them, as `--listen` takes them one by one.
fn listeners(urls: &str) -> Result<Vec<ListenerConfig>, String> {
    let parse = |url: &str| Ok(ListenerConfig::new(url.parse().map_err(|error| format!("HOST_LISTEN: {error}"))?));
    urls.split_whitespace().map(parse).collect()
}

/// One library: its name may have any character.
fn plugins(path: Option<&OsString>, config: Option<&OsString>) -> Result<Option<Vec<PluginConfig>>, String> {
    let Some(path) = path else {
        return match config {
            Some(_) => Err("HOST_PLUGIN_CONFIG is given, but no HOST_PLUGIN that it is for".to_owned()),
            None => Ok(None),
        };
    };
    let typed = config.map(|config| text("HOST_PLUGIN_CONFIG", config)).transpose()?;
    let (config, source) = match typed.map(|typed| (typed, typed.strip_prefix('@'))) {
        Some((_, Some(file))) => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                format!(
                    "HOST_PLUGIN_CONFIG: cannot read {file}: {error}. Expected a file with JSON in UTF-8 behind the @"
                )
            })?;
            (text, format!("{FROM_FILE}{file}"))
        }
        Some((json, None)) => (json.to_owned(), "from HOST_PLUGIN_CONFIG".to_owned()),
        None => ("{}".to_owned(), "none given: {}".to_owned()),
    };
    Ok(Some(vec![PluginConfig { path: PathBuf::from(path), config, source }]))
}

/// What is to be said of a variable that is not known.
fn doubt(name: &str) -> Option<String> {
    let is_of_kubernetes = name.contains("_SERVICE_") || name.contains("_PORT");
    if is_of_kubernetes || OTHERS.contains(&name) || OF_OTHERS.contains(&name) || name == upgrade::VARIABLE {
        return None;
    }
    let options = SERVER_KEYS.iter().map(|setting| option_of("", setting.name));
    let options = options.chain(LOG_KEYS.iter().map(|setting| option_of("log", setting.name)));
    let options = options.chain(SETTINGS.iter().map(|setting| option_of("limits", setting.name)));
    let known: Vec<String> = options.flatten().map(|option| variable_of(&option)).collect();
    let known = known.iter().map(String::as_str).chain(OTHERS);
    let known: Vec<&str> = known.map(|known| &known[PREFIX.len()..]).collect();
    // By its place in the file.
    let name_alone = match &name[PREFIX.len()..] {
        "LOG_LEVEL" => "LOG",
        name => name.strip_prefix("LIMITS_").unwrap_or(name),
    };
    let hint = match nearest(name_alone, known, ALIKE) {
        Some(meant) => format!("did you mean {PREFIX}{meant}?"),
        None => {
            "nothing comes of it. Those that there are have the names of options, which `host --help` has".to_owned()
        }
    };
    Some(format!("the variable {name} is not known: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(variables: &[(&str, &str)]) -> Result<(Config, Vec<String>), String> {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let (layer, doubts) = Layer::of_environment(variables)?;
        Ok((Config::of(&[layer])?, doubts))
    }

    #[test]
    fn variables_are_options() {
        let (config, doubts) = read(&[
            ("HOST_WORKERS", "3"),
            ("HOST_ALLOW_ANONYMOUS", "true"),
            ("HOST_CONTROL", "none"),
            ("HOST_LOG", "debug"),
            ("HOST_LOG_FORMAT", "json"),
            ("HOST_PACKET_BYTES_MAX", "64KiB"),
            ("HOST_LISTEN", "127.0.0.1:1 unix:/run/x\n"),
            ("HOST_PLUGIN", "/a b/libx.so"),
            ("HOST_PLUGIN_CONFIG", "[1]"),
            ("HOST_IDLE_MAX", ""),
            ("HOSTNAME", "x"),
            ("HOST_CONFIG", "/x"),
        ])
        .unwrap();
        assert_eq!((config.server.workers, config.server.allow_anonymous), (Some(3), true));
        assert_eq!(config.server.control, crate::control::Place::None);
        assert_eq!((config.log.level.as_str(), config.log.format), ("debug", crate::config::LogFormat::Json));
        assert_eq!(config.limits.packet_bytes_max, 64 << 10);
        let urls: Vec<_> = config.listeners.iter().map(|listener| listener.url.to_string()).collect();
        assert_eq!(urls, ["tcp://127.0.0.1:1", "unix:/run/x"]);
        let [plugin] = &config.plugins[..] else { panic!("{:?}", config.plugins) };
        assert_eq!((plugin.path.to_str(), &*plugin.config), (Some("/a b/libx.so"), "[1]"));
        assert_eq!(doubts, [""; 0]);
        assert!(config.said.iter().all(|said| said.place.starts_with("HOST_")), "{:?}", config.said);
    }

    #[test]
    fn blank_is_not_set() {
        for blank in ["", " ", " \t\n"] {
            let (config, doubts) = read(&[
                ("HOST_LISTEN", blank),
                ("HOST_PLUGIN", blank),
                ("HOST_PLUGIN_CONFIG", blank),
                ("HOST_WORKERS", blank),
            ])
            .unwrap();
            assert_eq!((config, doubts), (Config::default(), vec![]));
            let variables = [("HOST_LISTEN".into(), blank.into()), ("HOST_PLUGIN".into(), blank.into())];
            let (layer, _) = Layer::of_environment(variables).unwrap();
            assert!(layer.listeners.is_none() && layer.plugins.is_none(), "those of the file stay");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        let table = [
            ("HOST_WORKERS", "0", "HOST_WORKERS is \"0\": expected a number from 1 to 64"),
            ("HOST_ALLOW_ANONYMOUS", "1", "HOST_ALLOW_ANONYMOUS is \"1\": expected true or false"),
            ("HOST_LISTEN", "127.0.0.1:1 localhost:1", "HOST_LISTEN: `localhost:1` is not a place to listen at"),
            ("HOST_PLUGIN_CONFIG", "{}", "no HOST_PLUGIN that it is for"),
            ("HOST_RECEIVE_MAXIMUM", "x", "HOST_RECEIVE_MAXIMUM is \"x\": expected a number from 1 to 65535"),
        ];
        for (name, value, expected) in table {
            let error = read(&[(name, value)]).expect_err(name);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_looks_like_ours_is_doubted_and_others_are_not() {
        let (config, doubts) = read(&[
            ("HOST_PACKET_BYTE_MAX", "1"),
            ("HOST_PLUGINS", "x"),
            ("HOST_IP", "10.0.0.1"),
            ("HOST_UID", "0"),
            ("HOST_SERVICE_HOST", "10.0.0.1"),
            ("HOST_PORT_1883_TCP", "tcp://10.0.0.1:1883"),
        ])
        .unwrap();
        assert_eq!(config, Config::default());
        let [first, second] = &doubts[..] else { panic!("{doubts:?}") };
        assert_eq!(first, "the variable HOST_PACKET_BYTE_MAX is not known: did you mean HOST_PACKET_BYTES_MAX?");
        assert_eq!(second, "the variable HOST_PLUGINS is not known: did you mean HOST_PLUGIN?");
        let nothing = "nothing comes of it";
        for (name, hint) in [
            ("HOST_LOG_LEVEL", "did you mean HOST_LOG?"),
            ("HOST_LIMITS_IDLE_MAX", "did you mean HOST_IDLE_MAX?"),
            ("HOST_CONFIG_FILE", ""),
            ("HOST_MAX_PACKET_SIZE", nothing),
            ("HOST_TLS_CERT", nothing),
        ] {
            let (_, doubts) = read(&[(name, "1"), ("HOST_A_SERVICE_PORT_MQTT", "1"), ("HOST_A_PORT", "1")]).unwrap();
            let [told] = &doubts[..] else { panic!("{name}: {doubts:?}") };
            assert!(told.starts_with(&format!("the variable {name} is not known: ")) && told.contains(hint), "{told}");
        }
    }
}
