//! Answers of a running host, for people.

use std::fmt::Write as _;
use std::io::Write as _;

use host::control::protocol::Request;
use serde_json::Value;

/// Whether all is as it should be, and not only known.
pub(crate) fn is_well(request: &Request, result: &Value) -> bool {
    !matches!(request, Request::Health(_)) || list(result, "plugins").all(|plugin| plugin["ok"] == true)
}

/// What is printed.
pub(crate) fn text(request: &Request, result: &Value) -> String {
    match request {
        Request::Plugins => plugins(result),
        Request::Health(_) => health(result),
        Request::Configure { .. } => configured(result),
        Request::Swap(_) | Request::Promote(_) | Request::Rollback(_) => swapped(request, result),
        Request::Version | Request::Metrics => format!("{result:#}\n"),
    }
}

fn plugins(result: &Value) -> String {
    if list(result, "plugins").next().is_none() {
        return "no plugins: everybody on this machine may connect, publish and subscribe\n".to_owned();
    }
    let mut table = Table::new(&["PLUGIN", "VERSION", ">GEN", "ROLE", ">SHARE", ">CONNECTIONS", "FILE"]);
    for plugin in list(result, "plugins") {
        for instance in list(plugin, "instances") {
            table.row([
                word(&plugin["plugin"]),
                word(&instance["version"]),
                word(&instance["generation"]),
                role(instance),
                share(&instance["share_per_mille"]),
                grouped(&instance["connections"]),
                instance["path"].as_str().unwrap_or("linked in").to_owned(),
            ]);
        }
    }
    let mut text = table.to_string();
    let mib = result["mapped_bytes"].as_f64().unwrap_or_default() / f64::from(1 << 20);
    let _ = writeln!(text, "\nlibraries mapped: {} ({mib:.1} MiB)", word(&result["mapped_libraries"]));
    text
}

/// What an instance is there for, with what is left of its trial.
fn role(instance: &Value) -> String {
    let mut text = word(&instance["role"]);
    let left = instance["probation_left_ms"].as_f64().map(|ms| format!("{:.0} s", (ms / 1e3).ceil()));
    let errors = instance["errors_left"].as_u64().map(|errors| format!("{errors} errors left"));
    let details: Vec<_> = left.into_iter().chain(errors).collect();
    if !details.is_empty() {
        let _ = write!(text, " ({})", details.join(", "));
    }
    text
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
        table.row([
            word(&plugin["plugin"]),
            word(&plugin["version"]),
            word(&plugin["generation"]),
            word(&plugin["role"]),
            health.to_owned(),
            word(&plugin["text"]),
        ]);
    }
    table.to_string()
}

fn configured(result: &Value) -> String {
    let generations: Vec<_> = list(result, "instances")
        .map(|one| format!("{} (generation {})", word(&one["version"]), word(&one["generation"])))
        .collect();
    format!("plugin {}: the configuration was taken by {}\n", word(&result["plugin"]), generations.join(", "))
}

fn swapped(request: &Request, result: &Value) -> String {
    let mut text = format!("{}\n", word(&result["summary"]));
    if let Request::Swap(swap) = request
        && swap.canary_per_mille.is_some()
    {
        let name = word(&result["plugin"]);
        let _ =
            writeln!(text, "`host swap --promote {name}` gives it all connections, `host swap --rollback {name}` none");
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
    use serde_json::json;

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
        let result = json!({
            "plugins": [{"plugin": "acl", "instances": [instance("active", "1.9.0", 975, 1_234_567), canary]}],
            "mapped_libraries": 2, "mapped_bytes": 1_572_864,
        });
        let expected = "\
PLUGIN  VERSION  GEN  ROLE                     SHARE  CONNECTIONS  FILE
acl     1.9.0      1  active                   97.5%    1,234,567  /srv/libacl.so
acl     1.10.0     1  canary (10 errors left)   2.5%           31  linked in

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
        let request = Request::Health(None);
        assert!(!is_well(&request, &result) && is_well(&Request::Plugins, &result));
        assert!(is_well(&request, &json!({"plugins": [plugin(true, json!(null))]})));
    }

    #[test]
    fn thousands_are_apart() {
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(&json!(number)), expected);
        }
    }
}
