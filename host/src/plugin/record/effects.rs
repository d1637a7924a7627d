//! What a plugin asks of the host while somebody listens: in callbacks only, as what its own threads ask for belongs to none.

use std::cell::RefCell;

use plugin_api::abi::{
    RawInfoRequest, RawMessage, RawPublish, RawSubscribeRequest, RawSubscription, RawTarget, Status,
};
use serde_json::{Value, json};

use super::json::{Fields, put_bytes, put_properties};

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
