//! Answers of a running host, for people.

mod differences;

use std::fmt::Write as _;
use std::io::Write as _;

use host::SwapRequest;
use host::control::protocol::{Request, Swap};
use serde_json::{Value, json};

pub(crate) use self::differences::{differences, is_same};

/// Whether all is as it should be, and not only known.
pub(crate) fn is_well(request: &Request, result: &Value) -> bool {
    match request {
        Request::Health(_) => list(result, "plugins").all(|plugin| plugin["ok"] == true),
        Request::Swap(swap) if swap.dry_run.is_some() => is_same(result),
        _ => true,
    }
}

/// What is printed.
pub(crate) fn text(request: &Request, result: &Value) -> String {
    match request {
        Request::Plugins => plugins(result),
        Request::Health(_) => health(result),
        Request::Configure { .. } => instances(result, "the configuration was taken by"),
        Request::Resume(_) => instances(result, "asked again are"),
        Request::Swap(swap) if swap.dry_run.is_some() => differences(result),
        Request::Swap(_) | Request::Promote(_) | Request::Rollback(_) => swapped(request, result),
        Request::Metrics => metrics(result),
        Request::Reload => reloaded(result),
        Request::Upgrade { .. } => format!("{}\n", result["summary"].as_str().unwrap_or_default()),
        Request::Version => format!("{result:#}\n"),
    }
}

fn plugins(result: &Value) -> String {
    if list(result, "plugins").next().is_none() {
        return "no plugins: everybody on this machine may connect, publish and subscribe\n".to_owned();
    }
    let headings =
        ["PLUGIN", "VERSION", ">GEN", "ROLE", ">SHARE", ">CONNECTIONS", ">CALLS", ">REFUSED", ">FAILED", "FILE"];
    let mut table = Table::new(&headings);
    let mut calls = Table::new(&CALLS_HEADINGS);
    for plugin in list(result, "plugins") {
        for instance in list(plugin, "instances") {
            let sum = |keys: &[&str]| {
                let numbers = list(instance, "callbacks").flat_map(|one| keys.iter().map(|key| one[*key].as_u64()));
                grouped(&numbers.flatten().sum::<u64>().into())
            };
            table.row([
                word(&plugin["plugin"]),
                word(&instance["version"]),
                word(&instance["generation"]),
                role(instance),
                share(&instance["share_per_mille"]),
                grouped(&instance["connections"]),
                sum(&["calls"]),
                sum(&["refusals", "errors"]),
                sum(&["unusable", "panics", "late"]),
                instance["path"].as_str().unwrap_or("linked in").to_owned(),
            ]);
            for callback in list(instance, "callbacks") {
                calls.row(callback_row(plugin, instance, callback));
            }
        }
    }
    let mut text = table.to_string();
    if !calls.is_empty() {
        let _ = write!(text, "\n{calls}");
    }
    let mib = result["mapped_bytes"].as_f64().unwrap_or_default() / f64::from(1 << 20);
    let _ = writeln!(text, "\nlibraries mapped: {} ({mib:.1} MiB)", word(&result["mapped_libraries"]));
    text
}

/// For each function of an instance that has been called. The times are those of one call in 256.
const CALLS_HEADINGS: [&str; 12] = [
    "PLUGIN",
    ">GEN",
    "CALLBACK",
    ">CALLS",
    ">REFUSED",
    ">ERRORS",
    ">UNUSABLE",
    ">PANICS",
    ">LATE",
    ">SLOW",
    ">HALF BELOW",
    ">99% BELOW",
];

fn callback_row(plugin: &Value, instance: &Value, callback: &Value) -> [String; 12] {
    let number = |key: &str| grouped(&callback[key]);
    [
        word(&plugin["plugin"]),
        word(&instance["generation"]),
        word(&callback["name"]) + if callback["pooled"] == true { " (pool)" } else { "" },
        number("calls"),
        number("refusals"),
        number("errors"),
        number("unusable"),
        number("panics"),
        number("late"),
        number("overstays"),
        below(callback, 0.5),
        below(callback, 0.99),
    ]
}

/// The time below which a share of the calls was that were timed: the end of a range of times from a power of two to the
/// next.
fn below(callback: &Value, share: f64) -> String {
    let times: Vec<(u64, u64)> =
        list(callback, "times_ns").filter_map(|pair| Some((pair[0].as_u64()?, pair[1].as_u64()?))).collect();
    let all: u64 = times.iter().map(|(_, count)| count).sum();
    let mut seen = 0;
    for (least, count) in times {
        seen += count;
        if seen as f64 >= all as f64 * share {
            return time(least.saturating_mul(2));
        }
    }
    String::new()
}

/// Nanoseconds in a unit in which there are not too many of them.
fn time(ns: u64) -> String {
    match ns as f64 {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.1} ms", ns / 1e6),
        ns => format!("{:.1} s", ns / 1e9),
    }
}

/// What an instance is there for, with what is left of its trial.
fn role(instance: &Value) -> String {
    let mut text = word(&instance["role"]);
    if instance["quarantined"] == true {
        text.push_str(", IN QUARANTINE");
    }
    let left = instance["probation_left_ms"].as_f64().map(|ms| format!("{:.0} s", (ms / 1e3).ceil()));
    let errors = instance["errors_left"]
        .as_u64()
        .map(|errors| format!("{errors} {} left", if errors == 1 { "error" } else { "errors" }));
    let details: Vec<_> = left.into_iter().chain(errors).collect();
    if !details.is_empty() {
        let _ = write!(text, " ({})", details.join(", "));
    }
    text
}

/// What a reload has done, a line for each key.
fn reloaded(result: &Value) -> String {
    let mut text = String::new();
    for change in list(result, "changed").chain(list(result, "restart")) {
        let (key, from, to) = (word(&change["key"]), word(&change["from"]), word(&change["to"]));
        let _ = match (&*from, &*to) {
            ("", "") => write!(text, "{key}: another one"),
            _ => write!(text, "{key}: {to} (was {from})"),
        };
        let _ = match word(&change["counts"]).as_str() {
            "restart" => writeln!(text, " NOT BEFORE A RESTART"),
            "at once" => writeln!(text),
            counts => writeln!(text, ", {counts}"),
        };
    }
    if text.is_empty() { "nothing has changed\n".to_owned() } else { text }
}

fn metrics(result: &Value) -> String {
    if list(result, "metrics").next().is_none() {
        return "no plugin counts or measures anything\n".to_owned();
    }
    let mut table = Table::new(&["PLUGIN", "NAME", "KIND", ">VALUE", "MEANING"]);
    for metric in list(result, "metrics") {
        let value = if metric["kind"] == "histogram" { histogram(metric) } else { amount(&metric["value"]) };
        table.row([
            word(&metric["plugin"]),
            word(&metric["name"]),
            word(&metric["kind"]),
            value,
            word(&metric["help"]),
        ]);
    }
    table.to_string()
}

/// How many values there were, and below which bounds half and nearly all of them are.
fn histogram(metric: &Value) -> String {
    let all = metric["count"].as_u64().unwrap_or(0);
    let up_to = |share: f64| {
        let mut seen = 0;
        let bucket = list(metric, "buckets").find(|bucket| {
            seen += bucket["count"].as_u64().unwrap_or(0);
            seen as f64 >= all as f64 * share
        });
        bucket.map(|bucket| amount(&bucket["le"])).unwrap_or_default()
    };
    match all {
        0 => "no values".to_owned(),
        all => format!("{} values, half up to {}, 99% up to {}", grouped(&all.into()), up_to(0.5), up_to(0.99)),
    }
}

/// A whole number with its thousands apart, anything else as it is.
fn amount(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if number.fract() == 0.0 && (0.0..1e15).contains(&number) => grouped(&json!(number as u64)),
        Some(number) => number.to_string(),
        // JSON has no infinity.
        None => "infinity".to_owned(),
    }
}

fn health(result: &Value) -> String {
    if list(result, "plugins").next().is_none() {
        return "no plugins\n".to_owned();
    }
    let mut table = Table::new(&["PLUGIN", "VERSION", ">GEN", "ROLE", "HEALTH", ""]);
    for plugin in list(result, "plugins") {
        let health = match (plugin["ok"].as_bool(), plugin["text"].as_str()) {
            (Some(true), None) => "not said",
            (Some(true), Some(_)) => "ok",
            _ => "NOT WELL",
        };
        let said = plugin["text"].as_str().map(|_| word(&plugin["text"]));
        let quarantine =
            (plugin["quarantined"] == true).then(|| format!("IN QUARANTINE: host resume {}", word(&plugin["plugin"])));
        let text: Vec<_> = quarantine.into_iter().chain(said.filter(|said| !said.is_empty())).collect();
        table.row([
            word(&plugin["plugin"]),
            word(&plugin["version"]),
            word(&plugin["generation"]),
            word(&plugin["role"]),
            health.to_owned(),
            text.join("; "),
        ]);
    }
    table.to_string()
}

fn instances(result: &Value, what: &str) -> String {
    let generations: Vec<_> = list(result, "instances")
        .map(|one| format!("{} (generation {})", word(&one["version"]), word(&one["generation"])))
        .collect();
    format!("plugin {}: {what} {}\n", word(&result["plugin"]), generations.join(", "))
}

fn swapped(request: &Request, result: &Value) -> String {
    let mut text = format!("{}\n", word(&result["summary"]));
    let name = word(&result["plugin"]);
    match request {
        Request::Swap(swap) if swap.canary_per_mille.is_some() => {
            let _ = writeln!(
                text,
                "`host swap --promote {name}` gives it all connections, `host swap --rollback {name}` none"
            );
        }
        Request::Swap(Swap { probation, .. }) => {
            let probation = probation.unwrap_or(SwapRequest::PROBATION);
            if !probation.is_zero() {
                let _ = writeln!(
                    text,
                    "its errors are counted for {probation:?}; until then `host swap --rollback {name}` puts the old one back"
                );
            }
        }
        _ => {}
    }
    text
}

/// The entries of a list, none if there is no list.
fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

/// A text without its quotes, on one line; anything else as JSON; nothing for null. Texts come from plugins, and must not
/// say anything to a terminal.
fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        other => other.to_string(),
    }
}

/// `250` of a thousand as `25%`.
fn share(value: &Value) -> String {
    value.as_u64().map(|share| format!("{}%", share as f64 / 10.0)).unwrap_or_default()
}

/// A number with its thousands apart.
fn grouped(value: &Value) -> String {
    let Some(number) = value.as_u64() else { return word(value) };
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Columns, each as wide as its widest entry. A heading that begins with `>` is right-aligned, as its column is.
struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let names = headings.iter().map(|heading| heading.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![names], right }
    }

    fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    fn row(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |text: &String| text.chars().count();
        let widths: Vec<usize> = (0..self.right.len())
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(width).max().unwrap_or(0))
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((entry, width), right) in row.iter().zip(&widths).zip(&self.right) {
                let width = *width;
                if *right {
                    let _ = write!(line, "{entry:>width$}  ");
                } else {
                    let _ = write!(line, "{entry:<width$}  ");
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Writes to standard output. A reader that has gone does not matter: the exit code says how it went.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes to standard error.
pub(crate) fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_a_table() {
        let instance = |role: &str, version: &str, share: u64, connections: u64| {
            json!({"role": role, "version": version, "generation": 1, "share_per_mille": share, "connections": connections,
                   "path": "/srv/libacl.so", "errors_left": null, "probation_left_ms": null})
        };
        let mut canary = instance("canary", "1.10.0", 25, 31);
        canary["errors_left"] = json!(10);
        canary["path"] = json!(null);
        canary["quarantined"] = json!(true);
        let callback = |name: &str, times: Value| {
            json!({"name": name, "calls": 5120, "refusals": 3, "errors": 4, "unusable": 5, "panics": 6, "late": 7,
                   "overstays": 8, "times_ns": times})
        };
        canary["callbacks"] = json!([
            callback("handle_connect", json!([])),
            callback("handle_publish", json!([[64, 15], [128, 4], [1_048_576, 1]])),
        ]);
        let result = json!({
            "plugins": [{"plugin": "acl", "instances": [instance("active", "1.9.0", 975, 1_234_567), canary]}],
            "mapped_libraries": 2, "mapped_bytes": 1_572_864,
        });
        let expected = "\
PLUGIN  VERSION  GEN  ROLE                                    SHARE  CONNECTIONS   CALLS  REFUSED  FAILED  FILE
acl     1.9.0      1  active                                  97.5%    1,234,567       0        0       0  /srv/libacl.so
acl     1.10.0     1  canary, IN QUARANTINE (10 errors left)   2.5%           31  10,240       14      36  linked in

PLUGIN  GEN  CALLBACK        CALLS  REFUSED  ERRORS  UNUSABLE  PANICS  LATE  SLOW  HALF BELOW  99% BELOW
acl       1  handle_connect  5,120        3       4         5       6     7     8
acl       1  handle_publish  5,120        3       4         5       6     7     8      128 ns     2.1 ms

libraries mapped: 2 (1.5 MiB)
";
        assert_eq!(plugins(&result), expected);
        assert!(plugins(&json!({"plugins": []})).starts_with("no plugins"));
    }

    #[test]
    fn health_of_a_plugin_is_one_line_and_says_nothing_to_the_terminal() {
        let plugin = |ok: bool, text: Value| json!({"plugin": "p", "version": "1", "generation": 2, "role": "active", "ok": ok, "text": text});
        let result = json!({"plugins": [plugin(true, json!(null)), plugin(true, json!("")), plugin(false, json!("\x1b[2Jno\ndatabase"))]});
        let expected = "\
PLUGIN  VERSION  GEN  ROLE    HEALTH
p       1          2  active  not said
p       1          2  active  ok
p       1          2  active  NOT WELL   [2Jno database
";
        assert_eq!(health(&result), expected);
        let mut quarantined = plugin(false, json!("1 GB free"));
        quarantined["quarantined"] = json!(true);
        let shown = health(&json!({"plugins": [quarantined]}));
        assert!(shown.ends_with("NOT WELL  IN QUARANTINE: host resume p; 1 GB free\n"), "{shown}");
        let request = Request::Health(None);
        assert!(!is_well(&request, &result) && is_well(&Request::Plugins, &result));
        assert!(is_well(&request, &json!({"plugins": [plugin(true, json!(null))]})));
    }

    #[test]
    fn metrics_are_a_table() {
        let metric = |name: &str, kind: &str, value: Value| json!({"plugin": "p", "name": name, "kind": kind, "help": "What.", "value": value});
        let mut histogram = metric("secs", "histogram", json!(null));
        histogram["count"] = json!(1000);
        histogram["buckets"] = json!([{"le": 0.25, "count": 500}, {"le": null, "count": 500}]);
        let mut empty = metric("none", "histogram", json!(null));
        empty["count"] = json!(0);
        let result = json!({"metrics": [
            metric("seen_total", "counter", json!(12345.0)), metric("level", "gauge", json!(-1.5)),
            metric("top", "gauge", json!(null)), histogram, empty,
        ]});
        let expected = "\
PLUGIN  NAME        KIND                                                   VALUE  MEANING
p       seen_total  counter                                               12,345  What.
p       level       gauge                                                   -1.5  What.
p       top         gauge                                               infinity  What.
p       secs        histogram  1,000 values, half up to 0.25, 99% up to infinity  What.
p       none        histogram                                          no values  What.
";
        assert_eq!(metrics(&result), expected);
        assert!(metrics(&json!({"metrics": []})).starts_with("no plugin"));
    }

    #[test]
    fn thousands_are_apart() {
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(&json!(number)), expected);
        }
    }
}
