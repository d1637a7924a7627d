//! The names of the callbacks.

/// The methods with a default, by the name of their `plugin_api::Callback`.
pub(crate) const CALLBACKS: [(&str, &str); 24] = [
    ("handle_connect", "Connect"),
    ("handle_auth", "Auth"),
    ("handle_publish", "Publish"),
    ("handle_subscribe", "Subscribe"),
    ("handle_unsubscribe", "Unsubscribe"),
    ("handle_puback", "Puback"),
    ("handle_info", "Info"),
    ("handle_disconnect", "Disconnect"),
    ("handle_session_expired", "SessionExpired"),
    ("stop", "Stop"),
    ("handle_connected", "Connected"),
    ("handle_deliver", "Deliver"),
    ("handle_message_dropped", "Dropped"),
    ("handle_message_acknowledged", "Acknowledged"),
    ("handle_message_expired", "Expired"),
    ("handle_retained", "Retained"),
    ("handle_event", "Event"),
    ("handle_config", "Config"),
    ("health", "Health"),
    ("handle_swapped", "Swapped"),
    ("export_state", "ExportState"),
    ("import_state", "ImportState"),
    ("export_plugin_state", "ExportPlugin"),
    ("import_plugin_state", "ImportPlugin"),
];

/// The methods that every handler has.
pub(crate) const REQUIRED: [&str; 2] = ["init", "new_connection"];

/// Those that can be `async fn`, with the type of their request in `plugin_api::owned` and of their answer.
pub(crate) const ASYNC: [(&str, &str, &str); 5] = [
    ("handle_connect", "Connect", "ConnectVerdict"),
    ("handle_auth", "Auth", "AuthVerdict"),
    ("handle_publish", "Publish", "PublishVerdict"),
    ("handle_subscribe", "Subscribe", "SubscribeVerdict"),
    ("handle_unsubscribe", "Unsubscribe", "UnsubscribeVerdict"),
];

/// The name of a callback's `plugin_api::Callback`.
pub(crate) fn variant(method: &str) -> Option<&'static str> {
    CALLBACKS.iter().find(|(name, _)| *name == method).map(|(_, variant)| *variant)
}

/// What to say of a name that is no callback's.
pub(crate) fn unknown(name: &str) -> String {
    let names = CALLBACKS.map(|(method, _)| method);
    let nearest = names.into_iter().min_by_key(|known| distance(known, name)).unwrap_or_default();
    let known = names.join(", ");
    format!("no callback `{name}`; did you mean `{nearest}`? The callbacks are {known}")
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
