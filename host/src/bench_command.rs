//! `host bench`: what is valid and complete ([`BenchConfig`]), and how it is run and shown.

mod options;
mod values;

use std::net::ToSocketAddrs;
use std::process::ExitCode;

use host::bench::{Course, Error, Options, Progress, Target, Traffic, run_course, run_traffic};
use serde_json::Value;

use crate::cli::usage;
use crate::show;

pub(crate) use options::LowBench;
use options::LowTarget;
use values::MESSAGES_MAX;

/// The port of MQTT.
const PORT: u16 = 1883;

/// A benchmark.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BenchConfig {
    target: Target,
    what: What,
    options: Options,
    json: bool,
    quiet: bool,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq)]
enum What {
    Traffic(Traffic),
    Course(Course),
}

impl LowBench {
    /// What was typed, with the broker's name resolved.
    pub(crate) fn into_config(self) -> Result<BenchConfig, clap::Error> {
        let (what, target) = self.which.into_what();
        if let What::Traffic(traffic) = &what {
            traffic.check().map_err(usage)?;
        }
        if let What::Course(Course::Offline { sessions, messages, .. }) = &what
            && sessions.checked_mul(*messages).is_none_or(|all| all > MESSAGES_MAX)
        {
            return Err(usage(format!(
                "{messages} messages for each of {sessions} sessions are more than {MESSAGES_MAX}"
            )));
        }
        let options = Options { threads: target.threads.into(), spin: target.spin, pid: target.pid };
        let (json, quiet) = (target.json, target.quiet);
        Ok(BenchConfig { target: target.into_target()?, what, options, json, quiet })
    }
}

impl LowTarget {
    fn into_target(self) -> Result<Target, clap::Error> {
        let (host, port) = match &self.url {
            Some(url) => split_url(url).map_err(usage)?,
            None => (self.host.unwrap_or_else(|| "127.0.0.1".to_owned()), self.port.unwrap_or(PORT)),
        };
        let found = (host.as_str(), port).to_socket_addrs();
        let addr = found.map_err(|error| error.to_string()).and_then(|mut addrs| addrs.next().ok_or_else(String::new));
        let addr = addr.map_err(|error| usage(format!("cannot find the broker's machine `{host}`: {error}")))?;
        if let Some(source) = self.source.iter().find(|source| source.is_ipv4() != addr.is_ipv4()) {
            return Err(usage(format!("--source {source}: a connection from there cannot go to {addr}")));
        }
        Ok(Target {
            addr,
            version: self.mqtt,
            username: self.username,
            password: self.password,
            sources: self.source,
            name: self.name.unwrap_or_else(|| format!("{:04x}", std::process::id() & 0xffff)),
            patience: self.patience,
        })
    }
}

/// Runs it and prints what came of it: 0 if everything went well, 1 if something was lost, came twice or out of order, or the
/// broker refused something or closed a connection, 2 if nothing could be measured.
pub(crate) fn run(config: &BenchConfig) -> ExitCode {
    let mut progress = |progress: &Progress| {
        if !config.quiet {
            show::complain(&format!("{progress}\n"));
        }
    };
    let BenchConfig { target, options, .. } = config;
    let report = match &config.what {
        What::Traffic(traffic) => run_traffic(target, traffic, options, &mut progress)
            .map(|report| (report.is_ok(), report.notes(), report.json(), report.to_string())),
        What::Course(course) => run_course(target, course, options, &mut progress)
            .map(|report| (report.is_ok(), report.notes(), report.json(), report.to_string())),
    };
    match report {
        Ok((is_ok, notes, json, text)) => {
            print(config.json.then_some(json), &notes, &text);
            if is_ok { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            show::complain(&format!("host bench: {error}\n"));
            ExitCode::from(if matches!(error, Error::Lost(_)) { 1 } else { 2 })
        }
    }
}

fn print(json: Option<Value>, notes: &[String], text: &str) {
    let Some(json) = json else { return show::print(text) };
    show::print(&format!("{json}\n"));
    // A person looks at stderr, where the notes are worth reading too.
    notes.iter().for_each(|note| show::complain(&format!("note: {note}\n")));
}

/// The machine and the port of `mqtt://HOST:PORT`.
fn split_url(url: &str) -> Result<(String, u16), String> {
    let expected = || format!("--url {url}: expected mqtt://HOST or mqtt://HOST:PORT, such as mqtt://192.0.2.1:1883");
    let place = match url.split_once("://") {
        None => url,
        Some(("mqtt" | "tcp", place)) => place,
        Some((scheme, _)) => {
            return Err(format!("--url {url}: {scheme} is not spoken, only plain TCP: mqtt://HOST:PORT"));
        }
    };
    let place = place.strip_suffix('/').unwrap_or(place);
    // A colon in an IPv6 address stands in brackets.
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| expected())?),
        _ => (place, PORT),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || port == 0 || host.contains(['@', '/']) {
        return Err(expected());
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split() {
        let table = [
            ("mqtt://example.org", Some(("example.org", 1883))),
            ("mqtt://example.org:1884/", Some(("example.org", 1884))),
            ("mqtt://[::1]", Some(("::1", 1883))),
            ("mqtt://[::1]:1884", Some(("::1", 1884))),
            ("127.0.0.1:1", Some(("127.0.0.1", 1))),
            ("mqtts://example.org", None),
            ("mqtt://:1883", None),
            ("mqtt://a:b", None),
            ("mqtt://a:0", None),
            ("mqtt://user@a", None),
        ];
        for (url, expected) in table {
            let expected = expected.map(|(host, port): (&str, u16)| (host.to_owned(), port));
            assert_eq!(split_url(url).ok(), expected, "{url}");
        }
    }
}
