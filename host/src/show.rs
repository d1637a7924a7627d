//! Answers of a running host, for people.

use std::io::Write;

use host::control::protocol::Request;
use serde_json::Value;

/// Whether all is as it should be, and not only known.
pub(crate) fn is_well(request: &Request, result: &Value) -> bool {
    !matches!(request, Request::Health(_)) || list(result, "plugins").all(|plugin| plugin["ok"] == true)
}

/// What is printed.
pub(crate) fn text(_request: &Request, result: &Value) -> String {
    format!("{result:#}\n")
}

/// The entries of a list, none if there is no list.
fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
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
