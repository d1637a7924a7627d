//! What a plugin asks of the host while somebody listens: in callbacks only, as what its own threads ask for belongs to none.

use std::cell::RefCell;
use std::time::Duration;

use plugin_api::abi::{
    RawInfoRequest, RawMessage, RawPublish, RawSubscribeRequest, RawSubscription, RawTarget, Status,
};
use serde_json::{Value, json};

use super::json::{Fields, are_equal, put_bytes, put_properties};

/// By how much delays may differ that mean the same: clocks are looked at a little later, and have seconds only.
const DELAY_MARGIN_MS: u64 = 1500;

thread_local! {
    /// Those of the callback that runs on this thread, if somebody listens to it.
    static NOTED: RefCell<Option<Vec<Value>>> = const { RefCell::new(None) };
}

/// From now on they are noted on this thread.
pub(super) fn begin() {
    NOTED.set(Some(Vec::new()));
}

/// What was noted.
pub(super) fn end() -> Vec<Value> {
    NOTED.take().unwrap_or_default()
}

/// Notes what a plugin has asked for, if it was taken.
pub(in crate::plugin) fn note(status: Status, effect: impl FnOnce() -> Value) -> Status {
    if status == Status::OK {
        NOTED.with_borrow_mut(|noted| {
            if let Some(noted) = noted {
                noted.push(effect());
            }
        });
    }
    status
}

/// Whether two plugins have asked for the same, the first of them so long before.
pub(super) fn are_same(recorded: &[Value], given: &[Value], age: Duration) -> bool {
    recorded.len() == given.len() && recorded.iter().zip(given).all(|(ours, theirs)| is_same(ours, theirs, age))
}

/// A plugin may mean by a delay how long it takes, or when it is over by the clock: the end of a token, for example.
fn is_same(ours: &Value, theirs: &Value, age: Duration) -> bool {
    let delay = |effect: &Value| effect["send_info"]["delay_ms"].as_u64();
    let (Some(before), Some(now)) = (delay(ours), delay(theirs)) else { return are_equal(ours, theirs) };
    let is_about = |expected: u64| now.abs_diff(expected) <= DELAY_MARGIN_MS;
    let passed = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let mut theirs = theirs.clone();
    theirs["send_info"]["delay_ms"] = before.into();
    (is_about(before) || is_about(before.saturating_sub(passed))) && are_equal(ours, &theirs)
}

fn lossy(bytes: &[u8]) -> Value {
    String::from_utf8_lossy(bytes).into()
}

fn put_target(fields: &mut Fields, target: &RawTarget<'_>) {
    match target.kind {
        RawTarget::CONNECTION => fields.insert("connection".to_owned(), target.connection.into()),
        RawTarget::CLIENT => fields.insert("client".to_owned(), lossy(&target.client_id)),
        RawTarget::ALL => fields.insert("to".to_owned(), "all".into()),
        _ => fields.insert("to".to_owned(), "plugin".into()),
    };
}

fn message(message: &RawMessage<'_>) -> Fields {
    let mut fields = Fields::new();
    fields.insert("topic".to_owned(), lossy(&message.topic));
    put_bytes(&mut fields, "payload", &message.payload);
    fields.insert("qos".to_owned(), message.qos.into());
    fields.insert("retain".to_owned(), (message.flags & RawPublish::RETAIN != 0).into());
    if message.token != 0 {
        fields.insert("token".to_owned(), message.token.into());
    }
    put_properties(&mut fields, &message.properties, true);
    fields
}

pub(in crate::plugin) fn publish(raw: &RawMessage<'_>) -> Value {
    json!({ "publish": message(raw) })
}

pub(in crate::plugin) fn send(target: &RawTarget<'_>, raw: &RawMessage<'_>) -> Value {
    let mut fields = message(raw);
    put_target(&mut fields, target);
    json!({ "send": fields })
}

pub(in crate::plugin) fn disconnect(connection: u64, reason_code: u8, properties: &[u8]) -> Value {
    let mut fields = Fields::new();
    fields.insert("connection".to_owned(), connection.into());
    fields.insert("reason_code".to_owned(), reason_code.into());
    put_properties(&mut fields, properties, true);
    json!({ "disconnect": fields })
}

pub(in crate::plugin) fn send_info(request: &RawInfoRequest<'_>, timer: u64) -> Value {
    let mut fields = Fields::new();
    put_target(&mut fields, &request.target);
    fields.insert("kind".to_owned(), lossy(&request.kind));
    put_bytes(&mut fields, "data", &request.data);
    for (key, number) in [("delay_ms", request.delay_ms), ("interval_ms", request.interval_ms), ("timer", timer)] {
        if number != 0 {
            fields.insert(key.to_owned(), number.into());
        }
    }
    json!({ "send_info": fields })
}

pub(in crate::plugin) fn cancel_timer(timer: u64) -> Value {
    json!({"cancel_timer": {"timer": timer}})
}

pub(in crate::plugin) fn subscribe(request: &RawSubscribeRequest<'_>) -> Value {
    let mut fields = subscription(request);
    fields.insert("qos".to_owned(), request.qos.into());
    for (key, bit) in
        [("no_local", RawSubscription::NO_LOCAL), ("retain_as_published", RawSubscription::RETAIN_AS_PUBLISHED)]
    {
        if request.flags & bit != 0 {
            fields.insert(key.to_owned(), true.into());
        }
    }
    if request.identifier != 0 {
        fields.insert("identifier".to_owned(), request.identifier.into());
    }
    json!({ "subscribe": fields })
}

pub(in crate::plugin) fn unsubscribe(request: &RawSubscribeRequest<'_>) -> Value {
    json!({ "unsubscribe": subscription(request) })
}

fn subscription(request: &RawSubscribeRequest<'_>) -> Fields {
    let mut fields = Fields::new();
    put_target(&mut fields, &request.target);
    fields.insert("filter".to_owned(), lossy(&request.filter));
    fields
}

pub(in crate::plugin) fn reauthorise(target: &RawTarget<'_>) -> Value {
    let mut fields = Fields::new();
    put_target(&mut fields, target);
    json!({ "reauthorise": fields })
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    #[test]
    fn delays_are_the_same_that_take_as_long_or_end_at_the_same_time() {
        let sent = |delay_ms: u64, kind: &str| json!({"send_info": {"kind": kind, "delay_ms": delay_ms}});
        let hour = Duration::from_secs(3600);
        let check = |ours: Value, theirs: Value, expected| {
            assert_eq!(are_same(from_ref(&ours), from_ref(&theirs), hour), expected, "{ours} {theirs}");
        };
        check(sent(60_000, "k"), sent(60_000, "k"), true);
        check(sent(60_000, "k"), sent(61_499, "k"), true);
        check(sent(60_000, "k"), sent(30_000, "k"), false);
        check(sent(60_000, "k"), sent(60_000, "l"), false);
        // What ends at a time of the day ends an hour earlier by now.
        check(sent(4_000_000, "k"), sent(400_900, "k"), true);
        check(sent(4_000_000, "k"), sent(380_000, "k"), false);
        check(sent(60_000, "k"), sent(0, "k"), true);
        check(sent(60_000, "k"), json!({"send_info": {"kind": "k"}}), false);
        check(json!({"publish": {}}), json!({"publish": {}}), true);
        assert!(!are_same(&[], &[json!({})], hour));
    }
}
