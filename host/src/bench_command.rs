//! `host bench`: what is valid and complete ([`BenchConfig`]), and how it is run and shown.

mod options;
mod url;
mod values;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::process::ExitCode;

use host::bench::{
    Address, Course, Error, Options, Progress, Target, Tls, TlsOptions, Traffic, WebSocket, run_course, run_traffic,
};
use serde_json::Value;

use crate::cli::usage;
use crate::show;

pub(crate) use options::LowBench;
use options::{LowTarget, LowTls, LowTlsVersion};
use url::BrokerUrl;
use values::MESSAGES_MAX;

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
        if let What::Course(Course::Handshakes { .. }) = &what
            && !target.url.as_deref().is_some_and(|url| BrokerUrl::parse(url).is_ok_and(|url| url.is_tls()))
        {
            return Err(usage("handshakes are those of TLS: give --url tls://HOST or wss://HOST".to_owned()));
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
        let url = match &self.url {
            Some(url) => BrokerUrl::parse(url).map_err(|why| usage(format!("--url {why}")))?,
            None => {
                BrokerUrl::tcp(self.host.clone().unwrap_or_else(|| "127.0.0.1".into()), self.port.unwrap_or(url::PORT))
            }
        };
        let (addr, tls, websocket) = match url {
            BrokerUrl::Unix(path) => (Address::Unix(path), None, None),
            BrokerUrl::Net { tls, websocket, host, port } => {
                let tls = if tls { Some(self.tls.load(&host, websocket.is_none()).map_err(usage)?) } else { None };
                let name = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
                (
                    Address::Tcp(resolve(&host, port).map_err(usage)?),
                    tls,
                    websocket.map(|path| WebSocket { host: name, path }),
                )
            }
        };
        if let Some(option) = self.tls.given().filter(|_| tls.is_none()) {
            return Err(usage(format!("{option} is about TLS: give --url tls://HOST or wss://HOST")));
        }
        let reaches = |source: &IpAddr| matches!(addr, Address::Tcp(addr) if addr.is_ipv4() == source.is_ipv4());
        if let Some(source) = self.source.iter().find(|source| !reaches(source)) {
            return Err(usage(format!("--source {source}: a connection from there cannot go to {addr}")));
        }
        Ok(Target {
            addr,
            tls,
            websocket,
            version: self.mqtt,
            username: self.username,
            password: self.password,
            sources: self.source,
            name: self.name.unwrap_or_else(|| format!("{:04x}", std::process::id() & 0xffff)),
            patience: self.patience,
        })
    }
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    let found = (host, port).to_socket_addrs();
    let addr = found.map_err(|error| error.to_string()).and_then(|mut addrs| addrs.next().ok_or_else(String::new));
    addr.map_err(|error| format!("cannot find the broker's machine `{host}`: {error}"))
}

/// Where MQTT is spoken with nothing below it.
fn plain_url(url: &str) -> Result<Address, String> {
    match BrokerUrl::parse(url)? {
        BrokerUrl::Unix(path) => Ok(Address::Unix(path)),
        BrokerUrl::Net { tls: false, websocket: None, host, port } => Ok(Address::Tcp(resolve(&host, port)?)),
        BrokerUrl::Net { .. } => Err("expected mqtt://HOST:PORT or unix:PATH".to_owned()),
    }
}

impl LowTls {
    /// Reads the files that are named.
    fn load(&self, host: &str, offers_mqtt: bool) -> Result<Tls, String> {
        if self.ca.is_none() && !self.insecure {
            return Err(
                "who is trusted? --ca FILE has the certificates of authorities, and --insecure believes whoever \
                        answers"
                    .to_owned(),
            );
        }
        let options = TlsOptions {
            server_name: self.server_name.clone().unwrap_or_else(|| host.to_owned()),
            authorities: self.ca.clone(),
            identity: self.certificate.clone().zip(self.private_key.clone()),
            only_1_2: self.tls == LowTlsVersion::V1_2,
            resumes: self.resume,
            offers_mqtt,
        };
        options.load()
    }

    /// An option of these that was given.
    fn given(&self) -> Option<&'static str> {
        [
            (self.ca.is_some(), "--ca"),
            (self.insecure, "--insecure"),
            (self.server_name.is_some(), "--server-name"),
            (self.certificate.is_some(), "--certificate"),
            (self.resume, "--resume"),
        ]
        .into_iter()
        .find_map(|(is_given, option)| is_given.then_some(option))
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
