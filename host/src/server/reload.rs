//! Another configuration for a server that runs: all of it is validated first, then what can change is changed, and what
//! cannot is told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::builder::default_addr;
use super::listeners::Open;
use super::{ServerHandle, lock};
use crate::config::{Config, LOG_KEYS, PluginConfig, SERVER_KEYS};
use crate::control::protocol::Refusal;
use crate::control::{Configured, configure};
use crate::core::OF_LISTENERS;
use crate::core::mail::Mail;
use crate::io::listener::{Bound, Listener};
use crate::io::passed::left_over;
use crate::limits::{self, Reload, SETTINGS, Setting};
use crate::listener::{Common, LISTENER_KEYS, ListenerConfig, ListenerUrl};
use crate::plugin::{Callback, Chain, Plugin};
use crate::swap::SwapRequest;

/// What a reload has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReloadReport {
    /// What is different from now on.
    pub changed: Vec<Change>,
    /// What the configuration says differently, and the server does not heed until it is started anew.
    pub restart: Vec<Change>,
}

/// A difference between what a server goes by and what its configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The key, with its table: `limits.idle_max`.
    pub key: String,
    /// What it was, and what it is to be. Empty where that is not told, as it may be a secret.
    pub from: String,
    /// See `from`.
    pub to: String,
    /// When it counts.
    pub counts: Reload,
}

impl ReloadReport {
    fn add(&mut self, key: String, (from, to): (String, String), counts: Reload) {
        let list = if counts == Reload::Restart { &mut self.restart } else { &mut self.changed };
        list.push(Change { key, from, to, counts });
    }

    fn add_listener(&mut self, config: &ListenerConfig, url: &ListenerUrl) {
        self.add(format!("listener {}", config.name()), ("none".to_owned(), url.to_string()), Reload::AtOnce);
    }

    /// Takes over what may change of a table; notes that, and what may not.
    fn take_over<T>(&mut self, table: &str, settings: &[Setting<T>], ours: &mut T, wanted: &T) {
        for setting in settings {
            if setting.get(ours) == setting.get(wanted) {
                continue;
            }
            let text = |all: &T| Some(setting.show(all)).filter(|text| !text.is_empty());
            let text = |all: &T| text(all).unwrap_or_else(|| setting.unset.to_owned());
            self.add(format!("{table}{}", setting.name), (text(ours), text(wanted)), setting.reload);
            if setting.reload != Reload::Restart {
                setting.apply(ours, &setting.get(wanted));
            }
        }
    }

    /// Takes over the bounds that a listener has in the place of the server's.
    fn take_over_bounds(&mut self, table: &str, ours: &mut Bounds, wanted: &Bounds) {
        for name in OF_LISTENERS {
            let value = |bounds: &Bounds| bounds.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
            let (from, to) = (value(ours), value(wanted));
            if from != to {
                let text = |value: Option<_>| match (value, Setting::find(name)) {
                    (Some(value), Some(setting)) => setting.kind.print(&value),
                    _ => "the server's".to_owned(),
                };
                self.add(format!("{table}limits.{name}"), (text(from), text(to)), Reload::NewConnections);
            }
        }
        ours.clone_from(wanted);
    }

    /// Notes which of a listener's files contain something else, though their names are the same.
    fn add_contents(&mut self, config: &ListenerConfig, wanted: &Bound, ours: &Listener) {
        for key in wanted.differs_in(ours) {
            self.add(format!("listener {}: {key}", config.name()), Default::default(), Reload::NewConnections);
        }
    }

    /// The report as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let change = |Change { key, from, to, counts }: &Change| json!({"key": key, "from": from, "to": to, "counts": counts.name()});
        let list = |changes: &[Change]| changes.iter().map(change).collect::<Value>();
        json!({"changed": list(&self.changed), "restart": list(&self.restart), "summary": self.to_string()})
    }
}

impl fmt::Display for ReloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changed.is_empty() && self.restart.is_empty() {
            return f.write_str("nothing has changed");
        }
        let keys = |changes: &[Change]| changes.iter().map(|one| one.key.as_str()).collect::<Vec<_>>().join(", ");
        if !self.changed.is_empty() {
            write!(f, "changed: {}", keys(&self.changed))?;
        }
        if !self.restart.is_empty() {
            let separator = if self.changed.is_empty() { "" } else { "; " };
            write!(f, "{separator}only after a restart: {}", keys(&self.restart))?;
        }
        Ok(())
    }
}

/// Bounds of one listener, by their names.
type Bounds = Vec<(&'static str, limits::Value)>;

/// What is to be done with a plugin.
enum PluginStep {
    Configure { name: String, to: String },
    Swap(Box<SwapRequest>),
}

/// What was done with a plugin.
enum Done {
    Configured(Configured),
    Swapped(String),
}

impl ServerHandle {
    /// Goes on with another configuration. `current` is the one that the server goes by; what is returned is the one that it
    /// goes by from then on. What the configuration says of the log is for the caller to heed.
    ///
    /// Listeners that are new are opened, those that are not there any more are closed, and their connections stay. What
    /// holds for new connections holds from then on. Plugins get their configurations, or are swapped where their file has
    /// changed; this waits for their code.
    ///
    /// # Errors
    /// Something is wrong, or a plugin refuses. Nothing has changed then: plugins that had agreed before have been given back
    /// what they had.
    pub fn reload(&self, current: &Config, wanted: &Config) -> Result<(Config, ReloadReport), Refusal> {
        let _one_at_a_time = lock(&self.reloading);
        let (mut next, mut report) = (current.clone(), ReloadReport::default());
        report.take_over("", SERVER_KEYS, &mut next.server, &wanted.server);
        report.take_over("log.", LOG_KEYS, &mut next.log, &wanted.log);
        report.take_over("limits.", SETTINGS, &mut next.limits, &wanted.limits);
        // Bounds that fit together may not fit to one that has to stay.
        next.limits.check().map_err(|error| Refusal::new("config", error.to_string()))?;
        let chain = lock(&self.threads).chain.clone();
        let chain = chain.ok_or_else(|| Refusal::new("host", "the server is ending"))?;
        let opened = self.wanted_listeners(&next, current, wanted, &chain, &mut report).map_err(|mut refusal| {
            let is_there = |path| current.plugins.iter().any(|plugin| &plugin.path == path);
            if !wanted.plugins.iter().all(|plugin| is_there(&plugin.path)) {
                refusal.reason += ". Plugins that are new come with a restart";
            }
            refusal
        })?;
        let steps = plugin_steps(&chain, &mut next.plugins, &wanted.plugins, &mut report);
        if !report.restart.is_empty() {
            self.check_restart(current, wanted, &chain)?;
        }
        self.change_plugins(steps)?;
        let before = self.listeners.places();
        let limits = Arc::new(next.limits.clone());
        self.services.set_packet_bytes_max(limits.packet_bytes_max);
        self.places.set_bounds(&limits);
        #[cfg(feature = "quic")]
        self.quic_places.set_bounds(&limits);
        if let Some(shared) = &lock(&self.threads).shared {
            shared.retained.set_bounds(limits.retained_messages_max, limits.retained_bytes_max);
        }
        for worker in 0..self.mailboxes.workers() {
            // It fails where the worker has ended.
            let _ = self.mailboxes.post(worker, Mail::Limits(Arc::clone(&limits)));
        }
        // Files may have changed whose names have not.
        for error in self.use_listeners(opened).into_iter().filter_map(Result::err) {
            tracing::error!("certificates from before go on being used: {error}");
        }
        self.announce_changes(&before);
        next.listeners.clone_from(&wanted.listeners);
        next.said.clone_from(&wanted.said);
        Ok((next, report))
    }

    /// Has these listeners from now on. Those that are as they were read their certificates anew.
    fn use_listeners(&self, opened: Vec<Open>) -> Vec<Result<(), crate::Error>> {
        let before = self.listeners.listeners();
        for Open { config, listener } in &opened {
            // What is new is as it is wanted already.
            if let Err(error) = listener.adjust(config) {
                tracing::error!(listener = listener.name(), %error, "its socket stays as it was");
            }
        }
        self.listeners.replace(opened);
        let is_old = |listener: &Listener| before.iter().any(|old| old.is_same(listener));
        let listeners = self.listeners.listeners();
        let mut done: Vec<_> =
            listeners.iter().filter(|one| is_old(one)).filter_map(|listener| listener.reload(false)).collect();
        done.push(self.publish_listeners());
        done
    }

    fn announce_changes(&self, before: &[String]) {
        let now = self.listeners.places();
        for name in now.iter().filter(|name| !before.contains(name)) {
            tracing::info!(server = self.name, "listening on {name}");
        }
        for name in before.iter().filter(|name| !now.contains(name)) {
            tracing::info!(server = self.name, "no longer listening on {name}");
        }
    }

    /// The listeners as they are to be, all of which can be had.
    fn wanted_listeners(
        &self,
        next: &Config,
        current: &Config,
        wanted: &Config,
        chain: &Chain,
        report: &mut ReloadReport,
    ) -> Result<Vec<Open>, Refusal> {
        let mut old = self.listeners.opened();
        let wanted = match (current.listeners.is_empty(), wanted.listeners.is_empty()) {
            // Those that it has by default, or that were passed to it.
            (true, true) => old.iter().map(|open| open.config.clone()).collect(),
            (false, true) => by_default(&old),
            (_, false) => wanted.listeners.clone(),
        };
        let allow_anonymous = next.server.allow_anonymous;
        let common = Common { limits: &next.limits, allow_anonymous, chain };
        let is_same_for_all =
            current.limits == next.limits && current.server.allow_anonymous == next.server.allow_anonymous;
        let refused = |error: crate::Error| Refusal::new("listener", error.to_string());
        let mut all = Vec::with_capacity(wanted.len());
        let mut known = |wanted: &ListenerConfig| {
            let same = old.iter().position(|open| open.config.url == wanted.url);
            let known = same.or_else(|| old.iter().position(|open| open.config.url.is_at_place_of(&wanted.url)));
            let is_there =
                |open: &Open| open.listener.passed_as().is_some() && open.listener.url().is_at_place_of(&wanted.url);
            let known = known.or_else(|| old.iter().position(is_there));
            known.map(|at| old.remove(at))
        };
        // What is left of the old ones is closed, and its places may be had; but for those of QUIC that still have clients.
        let known: Vec<_> = wanted.iter().map(&mut known).collect();
        if let Some(socket) = old.iter().find_map(|open| open.listener.passed_as()) {
            return Err(refused(left_over(socket.to_owned(), &wanted)));
        }
        let left = self.listeners.left();
        let leaving: Vec<_> = old.iter().chain(&left).collect();
        for (wanted, known) in wanted.into_iter().zip(known) {
            let is_back = known.is_none();
            let has_its_place = |open: &&Open| open.listener.url().is_at_place_of(&wanted.url);
            let known = known.or_else(|| left.iter().find(has_its_place).cloned());
            let (config, bound) = match known {
                Some(mut open) => {
                    let (before, table) = (open.config.clone(), format!("listener {}: ", open.config.name()));
                    if is_back {
                        report.add_listener(&wanted, open.listener.url());
                    }
                    report.take_over(&table, LISTENER_KEYS, &mut open.config, &wanted);
                    report.take_over_bounds(&table, &mut open.config.rules.limits, &wanted.rules.limits);
                    // Also where nothing is different: what its files contain is validated now.
                    let bound = Bound::again(&open.listener, &open.config).map_err(refused)?;
                    if open.config.tls == before.tls {
                        report.add_contents(&open.config, &bound, &open.listener);
                    }
                    if !is_back && is_same_for_all && open.config == before {
                        all.push(open);
                        continue;
                    }
                    (open.config, bound)
                }
                None => {
                    let bound = open(&wanted, &leaving).map_err(refused)?;
                    report.add_listener(&wanted, bound.url());
                    (wanted, bound)
                }
            };
            let profile = config.profile(bound.url(), common).map_err(refused)?;
            all.push(Open { config, listener: bound.with(profile) });
        }
        for open in old {
            let change = (open.listener.url().to_string(), "none".to_owned());
            report.add(format!("listener {}", open.config.name()), change, Reload::AtOnce);
        }
        Ok(all)
    }

    /// Does one step after the other; what has been done is taken back if one fails.
    fn change_plugins(&self, steps: Vec<PluginStep>) -> Result<(), Refusal> {
        let (mut done, mut left) = (Vec::new(), steps.len());
        for step in steps {
            left -= 1;
            match self.change_plugin(step, left) {
                Ok(step) => done.push(step),
                Err(mut refusal) => {
                    for lost in done.into_iter().rev().filter_map(|step| self.take_back(step).err()) {
                        let plugin = lost.plugin.as_deref().unwrap_or_default();
                        let lost = format!("plugin {plugin} could not be given back what it had: {}", lost.reason);
                        refusal.reason = format!("{}; {lost}", refusal.reason);
                    }
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }

    /// Does a step. If one of the `left` ones behind it fails, there is still time to take it back.
    fn change_plugin(&self, step: PluginStep, left: usize) -> Result<Done, Refusal> {
        /// How long a step takes at most.
        const STEP: Duration = SwapRequest::READY_WITHIN.saturating_add(SwapRequest::WAIT);
        match step {
            PluginStep::Configure { name, to } => configure(self, &name, &to).map(Done::Configured),
            PluginStep::Swap(mut request) => {
                request.probation += STEP.saturating_mul(left.try_into().unwrap_or(u32::MAX));
                let report = self.swap(&request)?;
                if report.is_rolled_back {
                    let refusal = Refusal::new("probation", report.to_string());
                    return Err(Refusal { plugin: Some(report.name), ..refusal });
                }
                Ok(Done::Swapped(report.name))
            }
        }
    }

    fn take_back(&self, step: Done) -> Result<(), Refusal> {
        match step {
            Done::Configured(configured) => configured.take_back(self),
            Done::Swapped(name) => self.rollback(Some(&name)).map(drop).map_err(Refusal::from),
        }
    }
}

/// The listeners of a server that is asked for none: the sockets that were passed to it, or else one for this machine.
fn by_default(open: &[Open]) -> Vec<ListenerConfig> {
    let passed = open.iter().filter(|open| open.listener.passed_as().is_some());
    let at = |open: &Open| ListenerConfig::new(ListenerUrl::plain(open.listener.url().place.clone()));
    let passed: Vec<_> = passed.map(at).collect();
    if passed.is_empty() { vec![ListenerConfig::new(ListenerUrl::tcp(default_addr()))] } else { passed }
}

/// Opens a listener that may be where one that is `leaving` is.
fn open(wanted: &ListenerConfig, leaving: &[&Open]) -> Result<Bound, crate::Error> {
    let there = |open: &Open| ListenerConfig { url: open.listener.url().clone(), ..open.config.clone() };
    let in_the_way = leaving.iter().filter(|open| there(open).is_in_the_way_of(wanted));
    let in_the_way: Vec<_> = in_the_way.map(|open| &open.listener).collect();
    Bound::open_instead_of(&in_the_way, wanted).map_err(|error| {
        let why = |listener: &&&Listener| match (listener.is_quic(), listener.is_of_another_user()) {
            (true, _) => {
                Some("whose clients share its socket, so that its port is free once the last of them has gone")
            }
            (_, true) => Some("which it has opened before it became another user, and cannot give up for another one"),
            _ => None,
        };
        let own = in_the_way.iter().find_map(|listener| Some((listener.name(), why(&listener)?)));
        match own.filter(|_| matches!(error, crate::Error::Listen { .. })) {
            Some((name, why)) => crate::Error::Listener {
                name: wanted.name(),
                what: format!(
                    "this host's own listener {name} is there, {why}: restart the host, or take another port"
                ),
            },
            None => error,
        }
    })
}

/// What is to be done so that the plugins are as they are wanted; `ours` becomes that, but for what needs a restart.
fn plugin_steps(
    chain: &Chain,
    ours: &mut [PluginConfig],
    wanted: &[PluginConfig],
    report: &mut ReloadReport,
) -> Vec<PluginStep> {
    let paths = |plugins: &[PluginConfig]| {
        let paths: Vec<_> = plugins.iter().map(|plugin| plugin.path.display().to_string()).collect();
        if paths.is_empty() { "none".to_owned() } else { paths.join(" ") }
    };
    let running = chain.plugins();
    let has_moved = |(at, plugin): (usize, &PluginConfig)| {
        ours[at].path != plugin.path && ours.iter().any(|one| one.path == plugin.path)
    };
    let is_same_chain = ours.len() == wanted.len() && !wanted.iter().enumerate().any(has_moved);
    if !is_same_chain {
        report.add("plugins".to_owned(), (paths(ours), paths(wanted)), Reload::Restart);
    }
    let mut steps = Vec::new();
    for (at, (plugin, ours)) in running.iter().zip(ours).enumerate() {
        // Where plugins come, go or move, those that stay are known by their files.
        let same = if is_same_chain { wanted.get(at) } else { wanted.iter().find(|one| one.path == ours.path) };
        let Some(wanted) = same else { continue };
        steps.extend(plugin_step(plugin, ours, wanted, report));
        ours.clone_from(wanted);
    }
    steps
}

fn plugin_step(
    plugin: &Plugin,
    ours: &PluginConfig,
    wanted: &PluginConfig,
    report: &mut ReloadReport,
) -> Option<PluginStep> {
    let name = plugin.name().to_owned();
    let origin = plugin.origin()?;
    let is_elsewhere = ours.path != wanted.path;
    // An operator may have given it another one than the file's.
    let has_other_config = !is_same_json(&plugin.config(), &wanted.config);
    if !is_elsewhere && !origin.has_changed() {
        if !has_other_config {
            return None;
        }
        report.add(format!("plugin {name}: config"), Default::default(), Reload::AtOnce);
        if plugin.callbacks().contains(Callback::Config) {
            return Some(PluginStep::Configure { name, to: wanted.config.clone() });
        }
    } else {
        let change = (origin.path().display().to_string(), wanted.path.display().to_string());
        report.add(format!("plugin {name}: its library"), change, Reload::AtOnce);
    }
    // Where an operator has swapped it for another file meanwhile, it is that one which runs, unless another one is asked for.
    let path = if is_elsewhere { &wanted.path } else { origin.path() };
    let config = Some(wanted.config.clone()).filter(|_| has_other_config);
    Some(PluginStep::Swap(Box::new(SwapRequest { name: Some(name), config, ..SwapRequest::new(path) })))
}

fn is_same_json(one: &str, other: &str) -> bool {
    let parse = serde_json::from_str::<Value>;
    matches!((parse(one), parse(other)), (Ok(one), Ok(other)) if one == other) || one == other
}
