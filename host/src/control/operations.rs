//! From requests to what a server does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::protocol::{self, Answer, Refusal, Request};
use super::serve::Asker;
use super::supervised::Call;
use crate::listener::{ListenerConfig, ListenerUrl};
use crate::plugin::{Callback, MetricSample, MetricValue, Plugin, Unable};
use crate::server::ServerHandle;
use crate::swap::{Role, SwapError, SwapReport, SwapRequest};

/// How long plugins may take to say how they are.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a plugin may take for another configuration: as long as with it from the start.
const CONFIG_TIMEOUT: Duration = SwapRequest::READY_WITHIN;

/// Carries out a request, on the thread of whoever asks.
pub(super) fn carry_out(server: &ServerHandle, request: Request, asker: &Asker<'_>) -> Answer {
    match request {
        Request::Version => Ok(json!({
            "host": crate::version(),
            "pid": std::process::id(),
            "listeners": server.local_urls().iter().map(shown).collect::<Vec<_>>(),
        })),
        Request::Swap(swap) => {
            if let Some(dry_run) = swap.dry_run {
                return Ok(server.dry_run(&swap_request(swap), &dry_run, &|| asker.has_left())?);
            }
            let done = server.swap(&swap_request(swap))?;
            if done.is_rolled_back {
                // The old one decides: for whoever asked, that is a failure.
                return Err(Refusal { plugin: Some(done.name.clone()), ..Refusal::new("probation", done.to_string()) });
            }
            Ok(report(&done))
        }
        Request::Promote(name) => Ok(report(&server.promote(name.as_deref())?)),
        Request::Rollback(name) => Ok(report(&server.rollback(name.as_deref())?)),
        Request::Plugins => Ok(server.status().to_json()),
        Request::Configure { plugin, config } => {
            let Configured(taken) = configure(server, &plugin, &config)?;
            let instances: Vec<_> = taken.into_iter().map(|taken| instance(&taken.which)).collect();
            Ok(json!({"plugin": plugin, "instances": instances}))
        }
        Request::Health(name) => health(server, name.as_deref()),
        Request::Resume(name) => resume(server, &name),
        // Whoever serves has carried it out.
        Request::Reload => Err(Refusal::new("config", "there is no configuration to be read")),
        Request::Upgrade { .. } => Err(Refusal::new("start", "there is no program to be started")),
        Request::Metrics => Ok(json!({"metrics": server.metrics().iter().map(metric).collect::<Vec<_>>()})),
    }
}

/// A listener, as the log names it.
fn shown(url: &ListenerUrl) -> String {
    ListenerConfig::new(url.clone()).name()
}

fn metric(sample: &MetricSample) -> Value {
    let MetricSample { plugin, name, help, value } = sample;
    let mut json = json!({"plugin": plugin, "name": name, "help": help});
    match value {
        MetricValue::Counter(value) => {
            json["kind"] = "counter".into();
            json["value"] = json!(value);
        }
        MetricValue::Gauge(value) => {
            json["kind"] = "gauge".into();
            json["value"] = json!(value);
        }
        MetricValue::Histogram { count, sum, buckets } => {
            json["kind"] = "histogram".into();
            json["count"] = json!(count);
            json["sum"] = json!(sum);
            // JSON has no infinity: the last bound is null.
            let buckets = buckets.iter().map(|(bound, count)| json!({"le": bound, "count": count}));
            json["buckets"] = buckets.collect();
        }
    }
    json
}

/// What was done, with a sentence for people.
fn report(done: &SwapReport) -> Value {
    let mut report = done.to_json();
    report["summary"] = json!(done.to_string());
    report
}

impl From<SwapError> for Refusal {
    fn from(error: SwapError) -> Self {
        Self { step: error.step.name().to_owned(), plugin: error.plugin, reason: error.reason }
    }
}

fn swap_request(swap: protocol::Swap) -> SwapRequest {
    let protocol::Swap { plugin, name, config, canary_per_mille, ready_within, probation, error_budget, .. } = swap;
    let defaults = SwapRequest::new(plugin);
    SwapRequest {
        config,
        name,
        // Their ranges have been checked.
        canary_per_mille: canary_per_mille.and_then(|share| u16::try_from(share).ok()),
        ready_within: ready_within.unwrap_or(defaults.ready_within),
        probation: probation.unwrap_or(defaults.probation),
        error_budget: error_budget.and_then(|budget| u32::try_from(budget).ok()).unwrap_or(defaults.error_budget),
        ..defaults
    }
}

/// The instances that a connection can have, or can get back: of one plugin, or of all.
fn instances(server: &ServerHandle, name: Option<&str>) -> Result<Vec<(Role, Arc<Plugin>)>, Refusal> {
    let all = server.instances();
    let chosen: Vec<_> =
        all.iter().filter(|(_, plugin)| name.is_none_or(|name| plugin.name() == name)).cloned().collect();
    match name {
        Some(name) if chosen.is_empty() => {
            let names: Vec<_> =
                all.iter().filter(|(role, _)| *role == Role::Active).map(|(_, plugin)| plugin.name()).collect();
            let there_are = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let reason = format!("no plugin of this server is called {name:?} (there are: {there_are})");
            Err(Refusal { plugin: Some(name.to_owned()), ..Refusal::new("name", reason) })
        }
        _ => Ok(chosen),
    }
}

/// Instances that have taken another configuration, in this order.
pub(crate) struct Configured(Vec<Taken>);

struct Taken {
    which: (Role, Arc<Plugin>),
    /// What it had.
    before: String,
}

impl Configured {
    /// Gives them back what they had.
    ///
    /// # Errors
    /// That of the last one that has not taken it; the others have what they had.
    pub(crate) fn take_back(self, server: &ServerHandle) -> Result<(), Refusal> {
        let give_back = |Taken { which, before }: &Taken| give(server, which, before);
        self.0.iter().rev().map(give_back).fold(Ok(()), Result::and)
    }
}

/// Gives a plugin another configuration: the instance that decides first. If one refuses, those before it get back what they
/// had.
pub(crate) fn configure(server: &ServerHandle, name: &str, config: &str) -> Result<Configured, Refusal> {
    let refuse = |reason| Refusal { plugin: Some(name.to_owned()), ..Refusal::new("config", reason) };
    if let Err(error) = serde_json::from_str::<Value>(config) {
        return Err(refuse(format!("the configuration is not JSON: {error}")));
    }
    let instances = instances(server, Some(name))?;
    if let Some((_, plugin)) = instances.iter().find(|(_, plugin)| !plugin.callbacks().contains(Callback::Config)) {
        return Err(refuse(format!(
            "version {} has no handle_config: it takes its configuration only when it is loaded. Load it again with the new \
             one: host swap --plugin FILE --plugin-config JSON",
            plugin.version()
        )));
    }
    let mut taken = Vec::new();
    for which in instances {
        let before = which.1.config();
        if let Err(mut refusal) = give(server, &which, config) {
            if !taken.is_empty() {
                refusal.reason += &taken_back(server, Configured(taken));
            }
            return Err(refusal);
        }
        tracing::info!(plugin = name, generation = which.1.generation(), "a plugin has another configuration");
        taken.push(Taken { which, before });
    }
    Ok(Configured(taken))
}

/// Gives one instance a configuration.
fn give(server: &ServerHandle, (role, plugin): &(Role, Arc<Plugin>), config: &str) -> Result<(), Refusal> {
    let deadline = Instant::now() + CONFIG_TIMEOUT;
    let (text, decides) = (config.to_owned(), *role == Role::Active);
    let chain = server.chain();
    let call = move |plugin: &Plugin| {
        let done = plugin.configure(&text, decides);
        chain.note_new_permissions();
        done
    };
    let done = server.calls.begin(plugin, Callback::Config, deadline, call)?.wait(deadline, CONFIG_TIMEOUT)?;
    let refuse = |unable: Unable| Refusal {
        plugin: Some(plugin.name().to_owned()),
        ..Refusal::new("config", unable.to_string())
    };
    done.map_err(refuse)
}

/// Gives those that have agreed back what they had, and says so.
fn taken_back(server: &ServerHandle, taken: Configured) -> String {
    let generations = taken.0.iter().map(|taken| format!("generation {}", taken.which.1.generation()));
    let generations = generations.collect::<Vec<_>>().join(", ");
    match taken.take_back(server) {
        Ok(()) => format!(" ({generations} had taken it, and has back what it had)"),
        Err(Refusal { reason, .. }) => {
            format!(" ({generations} has taken it, and could not be given back what it had: {reason})")
        }
    }
}

/// Has the instances of a plugin that are in quarantine asked again.
fn resume(server: &ServerHandle, name: &str) -> Answer {
    let resumed: Vec<_> = instances(server, Some(name))?
        .into_iter()
        .filter(|(_, plugin)| plugin.end_quarantine())
        .map(|which| instance(&which))
        .collect();
    if resumed.is_empty() {
        let reason = "it is not in quarantine".to_owned();
        return Err(Refusal { plugin: Some(name.to_owned()), ..Refusal::new("resume", reason) });
    }
    Ok(json!({"plugin": name, "instances": resumed}))
}

/// Which instance it is.
fn instance((role, plugin): &(Role, Arc<Plugin>)) -> Value {
    json!({"plugin": plugin.name(), "role": role.name(), "version": plugin.version(), "generation": plugin.generation()})
}

/// A call of `health`, or why there is none.
type HealthCall = Result<Call<Result<String, Unable>>, Refusal>;

/// Asks instances how they are, all at the same time.
fn health(server: &ServerHandle, name: Option<&str>) -> Answer {
    let deadline = Instant::now() + HEALTH_TIMEOUT;
    let begin = |plugin: &Arc<Plugin>| {
        let implements = plugin.callbacks().contains(Callback::Health);
        implements.then(|| server.calls.begin(plugin, Callback::Health, deadline, Plugin::health))
    };
    let asked: Vec<_> = instances(server, name)?
        .into_iter()
        .map(|(role, plugin)| {
            let call = begin(&plugin);
            (role, plugin, call)
        })
        .collect();
    let report = |(role, plugin, call): (Role, Arc<Plugin>, Option<HealthCall>)| {
        let (is_ok, text) = match call.map(|call| call?.wait(deadline, HEALTH_TIMEOUT)) {
            None => (true, None),
            Some(Ok(Ok(text))) => (true, Some(text)),
            Some(Ok(Err(unable))) => (false, Some(unable.to_string())),
            Some(Err(refusal)) => (false, Some(refusal.reason)),
        };
        let is_quarantined = plugin.stats().is_quarantined;
        let mut report = instance(&(role, plugin));
        // It may be well otherwise, and say so: what it is there for is not done.
        report["ok"] = json!(is_ok && !is_quarantined);
        report["quarantined"] = json!(is_quarantined);
        report["text"] = json!(text);
        report
    };
    Ok(json!({"plugins": asked.into_iter().map(report).collect::<Vec<_>>()}))
}
