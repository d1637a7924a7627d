//! `host dev`: builds a handler, serves with it, and swaps it whenever one of its sources is saved.
//!
//! The broker is a process of its own, so that a handler that takes it down (a stack overflow, an abort) ends neither the
//! watching nor the terminal: the next save starts it again. It is asked to swap as `host swap` asks it, and clients stay
//! connected. Three threads tell the loop in [`run`] what happens: one looks after the sources, one builds and swaps, one
//! waits for the broker.

mod broker;
mod cargo;
mod sources;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use clap::Args;
use host::control::Place;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use self::broker::{Broker, swap};
use self::cargo::{Built, Cargo};
use self::sources::{Named, Saved, Sources};
use crate::cli::{self, Config, RunConfig, Variables, usage};
use crate::commands::Usage;
use crate::show;

pub(crate) use self::broker::end_with_parent;

/// A save is not told to have been longer ago: a file that was moved here keeps its time.
const AGO_MAX: Duration = Duration::from_secs(60);

/// What was typed.
#[derive(Debug, Args)]
pub(crate) struct LowDev {
    /// Build as for production: takes longer, and is faster then.
    #[arg(long)]
    release: bool,
    /// Features of the crate, as for `cargo build`.
    #[arg(long, value_name = "FEATURES")]
    features: Option<String>,
    /// The folder of the crate.
    #[arg(value_name = "DIR", default_value = ".")]
    path: PathBuf,
    /// Options of the host, such as --plugin-config @my.json --listen 127.0.0.1:1884; all that come behind DIR.
    #[arg(value_name = "OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<OsString>,
}

/// A crate, and the host that is to serve with it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DevConfig {
    cargo: Cargo,
    options: Vec<OsString>,
    /// Where the host is to be reached, if its options say so.
    control: Place,
}

impl LowDev {
    /// What was typed, as far as it can be checked before there is a library.
    pub(crate) fn into_config(self, variables: Variables) -> Result<DevConfig, Usage> {
        let Self { release, features, path, options } = self;
        let folder = path.canonicalize().ok().filter(|folder| folder.join("Cargo.toml").is_file());
        let folder = folder.ok_or_else(|| {
            usage(format!(
                "{}: there is no Cargo.toml. Expected the folder of a crate; `host new` makes one",
                path.display()
            ))
        })?;
        let run = host_config(Path::new("libhandler.so"), &options, variables)?;
        let control = run.config.server.control;
        if control == Place::None {
            return Err(usage("host dev swaps at the control socket: leave --control none away".to_owned()).into());
        }
        Ok(DevConfig { cargo: Cargo { folder, release, features }, options, control })
    }
}

/// What a host is told that is given a library and options.
fn host_config(library: &Path, options: &[OsString], variables: Variables) -> Result<RunConfig, Usage> {
    let typed = ["host".into(), "--plugin".into(), library.into()].into_iter().chain(options.iter().cloned());
    match cli::parse(typed, || variables)? {
        Config::Run(run) => Ok(*run),
        _ => {
            Err(usage("expected options of the host behind the folder, such as --listen 127.0.0.1:1884".to_owned())
                .into())
        }
    }
}

/// What happens.
enum Event {
    Saved(Saved),
    Done(Box<Done>),
    Ended(ExitStatus),
    Signal(&'static str, Signal),
}

/// Builds, serves and swaps until a signal comes.
pub(crate) fn run(config: &DevConfig) -> ExitCode {
    let (sender, events) = mpsc::channel();
    let named = Named::default();
    let prepared = broker::place(&config.control).and_then(|place| {
        watch_signals(&sender).map_err(|error| format!("cannot wait for signals: {error}"))?;
        let sources = Sources::new(&config.cargo.folder, &named);
        let watching = sources.watch(tell(&sender, Event::Saved));
        watching.map_err(|error| format!("no thread can be started that watches the sources: {error}"))?;
        Ok(place)
    });
    match prepared {
        Ok(place) => {
            Loop { config, place, named, sender, broker: None, running: None, is_building: false, saved: None }
                .run(&events)
        }
        Err(reason) => {
            say(&reason);
            ExitCode::from(2)
        }
    }
}

/// A function that tells the loop.
fn tell<T>(sender: &Sender<Event>, event: fn(T) -> Event) -> impl Fn(T) + Send + use<T> {
    let sender = sender.clone();
    move |what| {
        // Where nobody listens the program is ending.
        let _ = sender.send(event(what));
    }
}

fn watch_signals(sender: &Sender<Event>) -> std::io::Result<()> {
    let tell = tell(sender, |(name, signal)| Event::Signal(name, signal));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let wait = async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => tell(("SIGINT", Signal::INT)),
                _ = terminate.recv() => tell(("SIGTERM", Signal::TERM)),
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(wait)).map(drop)
}

/// The state of the loop.
struct Loop<'a> {
    config: &'a DevConfig,
    /// The control socket of the broker.
    place: PathBuf,
    named: Named,
    sender: Sender<Event>,
    broker: Option<Broker>,
    /// The configuration that the plugin has; `None` if it is not what was built last.
    running: Option<String>,
    is_building: bool,
    /// What was saved and is not being built.
    saved: Option<Saved>,
}

impl Loop<'_> {
    fn run(mut self, events: &Receiver<Event>) -> ExitCode {
        say(&format!(
            "building {}; from then on it is swapped at each save. Ctrl-C ends",
            self.config.cargo.folder.display()
        ));
        self.build();
        loop {
            match events.recv().expect("the loop has a sender as well") {
                Event::Saved(saved) => self.saved = Some(saved.and(self.saved.take())),
                Event::Done(done) => {
                    self.is_building = false;
                    self.heed(*done);
                }
                Event::Ended(status) => {
                    (self.broker, self.running) = (None, None);
                    say(&format!("host has ended ({status}): it is started again at the next save"));
                }
                Event::Signal(name, signal) => return self.end(name, signal, events),
            }
            if self.saved.is_some() && !self.is_building {
                self.build();
            }
        }
    }

    /// Has the crate built on another thread, and the broker asked to swap, if there is one.
    fn build(&mut self) {
        self.is_building = true;
        let saved = self.saved.take();
        if let Some(saved) = &saved {
            say(&format!("{saved}"));
        }
        let place = self.broker.as_ref().map(|_| self.place.clone());
        let DevConfig { cargo, options, .. } = self.config.clone();
        let job = Job { cargo, options, saved, place, running: self.running.clone() };
        let done = tell(&self.sender, |done| Event::Done(Box::new(done)));
        let started = std::thread::Builder::new().name("build".to_owned()).spawn(move || done(job.run()));
        if let Err(error) = started {
            self.is_building = false;
            say(&format!("cannot build: no thread can be started: {error}"));
        }
    }

    /// Says what came of it, and starts the broker if it is not there.
    fn heed(&mut self, Done { saved, result, build_took, swap_took }: Done) {
        let stays =
            if self.broker.is_some() { "; what serves goes on" } else { "; it is tried again at the next save" };
        let Ready { library, files, config, swapped } = match result {
            Ok(ready) => ready,
            Err(reason) => return say(&format!("{reason}{stays}")),
        };
        self.named.set(files);
        let build_took = seconds(build_took);
        match swapped {
            Swapped::Done(what) => {
                self.running = Some(config);
                let after = saved.and_then(|saved| saved.age()).filter(|age| *age < AGO_MAX);
                let after = after.map(|age| format!(", {} after the save", seconds(age))).unwrap_or_default();
                say(&format!("{what} decides now{after}: built in {build_took}, swapped in {}", seconds(swap_took)));
            }
            Swapped::Same => say("built, and the same as before: nothing is swapped"),
            Swapped::Refused(reason) => {
                self.running = None;
                say(&format!("not swapped: {reason}{stays}"));
            }
            Swapped::Nobody if self.broker.is_some() => self.running = None,
            Swapped::Nobody => {
                match Broker::start(&library, &self.config.options, &self.place, tell(&self.sender, Event::Ended)) {
                    Ok(broker) => {
                        say(&format!(
                            "built in {build_took}; starting host, which takes commands at {}",
                            self.place.display()
                        ));
                        (self.broker, self.running) = (Some(broker), Some(config));
                    }
                    Err(error) => say(&format!("host cannot be started: {error}")),
                }
            }
        }
    }

    /// Has the broker stop, and waits for it.
    fn end(&self, name: &str, signal: Signal, events: &Receiver<Event>) -> ExitCode {
        let Some(broker) = &self.broker else { return ExitCode::SUCCESS };
        say(&format!("{name}: host is stopping; once more to leave at once"));
        broker.signal(signal);
        loop {
            match events.recv().expect("the loop has a sender as well") {
                Event::Signal(_, signal) => broker.signal(signal),
                Event::Ended(status) => {
                    return status
                        .code()
                        .and_then(|code| u8::try_from(code).ok())
                        .map_or(ExitCode::FAILURE, ExitCode::from);
                }
                Event::Saved(_) | Event::Done(_) => {}
            }
        }
    }
}

/// A build, and the swap that follows it.
struct Job {
    cargo: Cargo,
    options: Vec<OsString>,
    saved: Option<Saved>,
    /// The control socket of the broker, if there is one.
    place: Option<PathBuf>,
    /// See [`Loop`].
    running: Option<String>,
}

/// What came of it.
struct Done {
    saved: Option<Saved>,
    result: Result<Ready, String>,
    build_took: Duration,
    swap_took: Duration,
}

/// A library that was built.
struct Ready {
    library: PathBuf,
    /// What it was built from, and where its configuration stands.
    files: Vec<PathBuf>,
    /// Its configuration.
    config: String,
    swapped: Swapped,
}

enum Swapped {
    Done(String),
    Refused(String),
    /// It is what serves.
    Same,
    /// There was no broker to ask.
    Nobody,
}

impl Job {
    fn run(self) -> Done {
        let began = Instant::now();
        let built = self.cargo.build();
        let (build_took, began) = (began.elapsed(), Instant::now());
        let result = built.and_then(|built| self.swap(built));
        Done { saved: self.saved, result, build_took, swap_took: began.elapsed() }
    }

    fn swap(&self, Built { library, is_fresh, mut files }: Built) -> Result<Ready, String> {
        let config = host_config(&library, &self.options, std::env::vars_os().collect());
        let config = config.map_err(|error| error.to_string().trim_end().to_owned())?;
        let plugin = config.config.plugins.into_iter().next().unwrap_or_else(|| unreachable!("it was given one"));
        files.extend(plugin.file().and_then(|file| std::path::absolute(file).ok()));
        let config = plugin.config;
        let swapped = match &self.place {
            None => Swapped::Nobody,
            Some(_) if is_fresh && self.running.as_ref() == Some(&config) => Swapped::Same,
            Some(place) => match swap(place, &library, &config) {
                Ok(summary) => Swapped::Done(summary),
                Err(reason) => Swapped::Refused(reason),
            },
        };
        Ok(Ready { library, files, config, swapped })
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Tells the author, beside the log of the broker and what the compiler says.
fn say(text: &str) {
    show::complain(&format!("host dev: {text}\n"));
}
