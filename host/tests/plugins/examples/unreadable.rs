//! A plugin whose answers cannot be read, or not be used. Its table of functions is written by hand: `plugin-api` would not
//! let an author do this.
//!
//! A message to one of these topics gets the answer; everything else is forwarded, subscribed to and let in:
//!
//! | topic | answer |
//! | --- | --- |
//! | `bad/verdict` | the verdict 77 |
//! | `bad/other` | the verdict `CODES`, which is another callback's |
//! | `bad/key` | a refusal with a piece 200 |
//! | `bad/empty` | a refusal without a Reason Code |
//! | `bad/code` | a refusal with Reason Code 0x100 |
//! | `bad/properties` | a refusal with properties that end too early |
//! | `bad/utf8` | a changed message whose topic is not UTF-8 |
//! | `bad/topic` | a changed message with a wildcard in its topic |
//! | `bad/qos` | a changed message with QoS 3 |
//!
//! A SUBSCRIBE whose first filter is `bad/count` gets one Reason Code more than it has filters; `bad/reason` gets 0x03.
#![allow(unsafe_code)] // The library's symbol is written by hand, and so are its functions.

use abi_stable::library::{CheckTypeLayout, LibHeader, RootModuleResult};
use abi_stable::marker_type::ErasedPrefix;
use abi_stable::prefix_type::{PrefixRefTrait, WithMetadata};
use abi_stable::std_types::{RResult, RStr};
use plugin_api::abi::{
    AnswerKey, FLAG_UNWINDS, Opaque, PluginVt, PluginVtRef, RawAck, RawAuth, RawConnect, RawConnected,
    RawConnectionInfo, RawDeliver, RawDisconnect, RawHost, RawInfo, RawMessageNotice, RawPublish, RawRetained,
    RawState, RawSubscribe, RawSwapped, RawUnsubscribe, Sink, Verdict,
};
use plugin_api::{Callback, Callbacks};

static TABLE: WithMetadata<PluginVt> = WithMetadata::new(PluginVt {
    name: RStr::from_str("unreadable"),
    version: RStr::from_str("1.0.0"),
    flags: FLAG_UNWINDS,
    callbacks: Callbacks::NONE.with(Callback::Connect).with(Callback::Publish).with(Callback::Subscribe).bits(),
    blocking: 0,
    instance_new,
    instance_stop: fine_instance,
    instance_drop: fine_instance,
    connection_new,
    connection_drop: fine_instance,
    connect,
    auth,
    publish,
    subscribe,
    unsubscribe,
    puback,
    info,
    disconnect,
    session_expired,
    connected,
    deliver,
    message_dropped: notice,
    message_acknowledged: notice,
    message_expired: notice,
    retained,
    event,
    config,
    health: fine_instance,
    swapped,
    export_state,
    import_state,
    export_plugin_state: fine_instance,
    import_plugin_state,
    cancelled,
    config_check,
    config_schema,
});

/// There is no state: any address that is not null will do.
fn no_state() -> Opaque {
    std::ptr::dangling_mut::<u8>().cast()
}

unsafe extern "C" fn instance_new(_: RawHost, _: RStr<'_>, _: Sink<'_>) -> Opaque {
    no_state()
}

unsafe extern "C" fn fine_instance(_: Opaque, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn connection_new(_: Opaque, _: &RawConnectionInfo<'_>, _: Sink<'_>) -> Opaque {
    no_state()
}

unsafe extern "C" fn connect(_: Opaque, _: Opaque, _: &RawConnect<'_>, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn auth(_: Opaque, _: Opaque, _: &RawAuth<'_>, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn publish(_: Opaque, _: Opaque, raw: &RawPublish<'_>, sink: Sink<'_>) -> Verdict {
    let topic = |name: &[u8]| sink.put(AnswerKey::TOPIC, 0, name);
    let number = |key, number| sink.put(key, number, &[]);
    match raw.topic.as_str() {
        "bad/verdict" => Verdict(77),
        "bad/other" => Verdict::CODES,
        "bad/key" => {
            number(AnswerKey::REASON_CODE, 0x87);
            number(AnswerKey(200), 1);
            Verdict::REJECT
        }
        "bad/empty" => Verdict::REJECT,
        "bad/code" => {
            number(AnswerKey::REASON_CODE, 0x100);
            Verdict::REJECT
        }
        "bad/properties" => {
            number(AnswerKey::REASON_CODE, 0x87);
            sink.put(AnswerKey::PROPERTIES, 0, b"\x1f\x00\x09too");
            Verdict::REJECT
        }
        "bad/utf8" => {
            topic(b"a/\xff");
            Verdict::CHANGED
        }
        "bad/topic" => {
            topic(b"a/#");
            Verdict::CHANGED
        }
        "bad/qos" => {
            topic(b"a");
            number(AnswerKey::QOS, 3);
            Verdict::CHANGED
        }
        _ => Verdict::OK,
    }
}

unsafe extern "C" fn subscribe(_: Opaque, _: Opaque, raw: &RawSubscribe<'_>, sink: Sink<'_>) -> Verdict {
    let count = raw.subscriptions.len();
    let codes = match raw.subscriptions.first().map(|first| first.filter.as_str()) {
        Some("bad/count") => vec![0; count + 1],
        Some("bad/reason") => vec![3; count],
        _ => return Verdict::OK,
    };
    sink.put(AnswerKey::CODES, 0, &codes);
    Verdict::CODES
}

unsafe extern "C" fn unsubscribe(_: Opaque, _: Opaque, _: &RawUnsubscribe<'_>, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn puback(_: Opaque, _: Opaque, _: &RawAck, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn info(_: Opaque, _: Opaque, _: &RawInfo<'_>, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn disconnect(_: Opaque, _: Opaque, _: &RawDisconnect<'_>, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn session_expired(_: Opaque, _: RStr<'_>, _: Option<&RawState<'_>>, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn connected(_: Opaque, _: Opaque, _: &RawConnected<'_>, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn deliver(_: Opaque, _: Opaque, _: &RawDeliver<'_>, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn notice(_: Opaque, _: &RawMessageNotice<'_>, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn retained(_: Opaque, _: &RawRetained<'_>, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn event(_: Opaque, _: &RawInfo<'_>, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn config(_: Opaque, _: RStr<'_>, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn swapped(_: Opaque, _: Opaque, _: &RawSwapped<'_>, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn export_state(_: Opaque, _: Opaque, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn import_state(_: Opaque, _: &RawSwapped<'_>, _: &RawState<'_>, _: Sink<'_>) -> Opaque {
    no_state()
}

unsafe extern "C" fn import_plugin_state(_: Opaque, _: &RawState<'_>, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn cancelled(_: Opaque, _: u64, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn config_check(_: RStr<'_>, _: Sink<'_>) -> Verdict {
    Verdict::OK
}

unsafe extern "C" fn config_schema(_: Sink<'_>) -> Verdict {
    Verdict::OK
}

extern "C" fn root() -> RootModuleResult {
    let table = PluginVtRef(TABLE.static_as_prefix()).to_prefix_ref();
    // SAFETY: `HEADER` says that this is a `PluginVtRef`.
    RResult::ROk(unsafe { table.cast::<ErasedPrefix>() })
}

/// The library's symbol.
// SAFETY: the name is that of abi_stable's root module, and the value has its type.
#[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
pub static HEADER: LibHeader =
    // SAFETY: `root` returns a `PluginVtRef`, erased.
    unsafe { LibHeader::from_constructor::<PluginVtRef>(root, CheckTypeLayout::Yes) };
