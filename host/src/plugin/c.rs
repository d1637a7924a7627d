//! Plugins that are not written in Rust: the symbol `mqtt_handler_plugin`, whose table `plugin-api/include/mqtt_handler.h`
//! describes.
//!
//! The table is that of `plugin-api::abi`, behind a major version and a size in the place of abi_stable's description. It
//! is read once, into a table of our own in which nothing is missing: what is null, or lies behind the end of a smaller
//! table, is a callback that the plugin does not implement. From then on nobody knows the difference, but for two things:
//! such a plugin cannot unwind, so that it does not have to say that it can; and it gets the host's services as a flat
//! table too, whose functions look at each pointer before they follow it (`services.rs`).
#![allow(unsafe_code)] // The table behind a symbol is read.

mod services;

use std::mem::{MaybeUninit, offset_of, size_of};
use std::path::Path;

use abi_stable::prefix_type::WithMetadata;
use abi_stable::std_types::{RSlice, RStr};
use plugin_api::abi::{
    Opaque, PluginVt, PluginVtRef, RawAck, RawAuth, RawConnect, RawConnected, RawConnectionInfo, RawDeliver,
    RawDisconnect, RawHost, RawInfo, RawMessageNotice, RawPublish, RawRetained, RawState, RawSubscribe, RawSwapped,
    RawUnsubscribe, Sink, Verdict,
};
use plugin_api::reading::checked;
use plugin_api::{Callback, Callbacks};

pub(super) use self::services::CHost;
use super::error::LoadError;

/// The name of the symbol.
pub(super) const SYMBOL: &[u8] = b"mqtt_handler_plugin\0";

/// The version of the interface that this host has.
const MAJOR: u32 = 1;
const MINOR: u32 = 0;

/// Bytes that a table may have at most: a larger size is no size.
const SIZE_MAX: usize = 64 * 1024;

/// What both tables begin with. It stays in all versions.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Head {
    abi_major: u32,
    abi_minor: u32,
    size: usize,
}

impl Head {
    /// The head of a table of ours.
    const fn of<T>() -> Self {
        Self { abi_major: MAJOR, abi_minor: MINOR, size: size_of::<T>() }
    }
}

/// `instance_new` of such a plugin: it gets the flat table of services.
pub(super) type InstanceNew = unsafe extern "C" fn(CHost, RStr<'_>, Sink<'_>) -> Opaque;

/// A table that was read.
pub(super) struct CPlugin {
    pub(super) table: PluginVtRef,
    pub(super) instance_new: InstanceNew,
    /// For people: `1.0, for C`.
    pub(super) api_version: String,
}

const POINTER_BYTES: usize = size_of::<usize>();

/// Where functions begin: what stands before them is data.
const FUNCTIONS: usize = offset_of!(PluginVt, instance_new);

// Each function is a pointer of its own, and nothing stands between them.
const _: () = assert!((size_of::<PluginVt>() - FUNCTIONS).is_multiple_of(POINTER_BYTES));

/// Reads a table.
///
/// # Safety
/// `head` is the address of the symbol [`SYMBOL`] in a library that is mapped for good, which holds what its type in
/// `mqtt_handler.h` says.
pub(super) unsafe fn read(path: &Path, head: *const Head) -> Result<CPlugin, LoadError> {
    if head.is_null() || !head.is_aligned() {
        return Err(no_table(path, "an address that a table can have", format!("{head:p}")));
    }
    // SAFETY: the caller's promise; the head is the same in all versions.
    let Head { abi_major, abi_minor, size } = unsafe { *head };
    if abi_major != MAJOR {
        return Err(LoadError::OtherVersion {
            path: path.into(),
            found: format!("{abi_major}.{abi_minor} (for C)"),
            expected: format!("{MAJOR}.{MINOR}"),
        });
    }
    let known = size_of::<Head>() + FUNCTIONS..=SIZE_MAX;
    if !known.contains(&size) || !size.is_multiple_of(POINTER_BYTES) {
        let expected = format!("{} to {SIZE_MAX}, in steps of {POINTER_BYTES}", known.start());
        return Err(no_table(path, &format!("a size of {expected} bytes"), format!("{size}")));
    }
    // SAFETY: behind the head the table goes on.
    let words = unsafe { head.add(1) }.cast::<usize>();
    let there = (size - size_of::<Head>()) / POINTER_BYTES;
    // SAFETY: the table has as many words as its size says.
    let word = |index: usize| if index < there { unsafe { words.add(index).read() } } else { 0 };

    let text = |offset: usize, what: &str| {
        let (data, length) = (word(offset / POINTER_BYTES) as *const u8, word(offset / POINTER_BYTES + 1));
        // SAFETY: text in the table belongs to the library, which stays mapped.
        unsafe { owned_text(data, length) }
            .ok_or_else(|| LoadError::BadName { path: path.into(), reason: format!("its {what} is not UTF-8") })
    };
    let (name, version) = (text(offset_of!(PluginVt, name), "name")?, text(offset_of!(PluginVt, version), "version")?);
    let number = |offset: usize| word(offset / POINTER_BYTES) as u64;
    let is_there = |callback| word(entry(callback) / POINTER_BYTES) != 0;
    let asked = number(offset_of!(PluginVt, callbacks));
    let implemented = Callback::ALL.into_iter().filter(|callback| is_there(*callback));
    let implemented = implemented.fold(Callbacks::NONE, Callbacks::with);
    if let Some(missing) = Callbacks::from_bits(asked & !implemented.bits()).iter().next() {
        let place = format!("`{}` of `mqtt_handler_plugin`", missing.name());
        let expected = "a function, as its bit in `callbacks` is set".into();
        return Err(LoadError::OtherLayout { path: path.into(), place, expected, found: "null".into() });
    }
    let callbacks = if asked == 0 { implemented.bits() } else { asked };

    let mut table = MaybeUninit::new(PluginVt {
        name,
        version,
        flags: number(offset_of!(PluginVt, flags)),
        callbacks,
        blocking: number(offset_of!(PluginVt, blocking)),
        ..ABSENT
    });
    for index in FUNCTIONS / POINTER_BYTES..size_of::<PluginVt>() / POINTER_BYTES {
        if word(index) != 0 {
            // SAFETY: the index is below the size, and a function's pointer, which is not null, takes the place of
            // another one of the same type: the header and `PluginVt` are compared by tests of plugin-api.
            unsafe { table.as_mut_ptr().cast::<usize>().add(index).write(word(index)) };
        }
    }
    let new = word(FUNCTIONS / POINTER_BYTES);
    let instance_new: InstanceNew = if new == 0 {
        no_instance
    } else {
        // SAFETY: it is the function of that type, as the header says, and not null.
        unsafe { std::mem::transmute::<usize, InstanceNew>(new) }
    };
    // SAFETY: all of it was there from the start.
    let table = Box::leak(Box::new(WithMetadata::new(unsafe { table.assume_init() })));
    let table = PluginVtRef(table.static_as_prefix());
    Ok(CPlugin { table, instance_new, api_version: format!("{abi_major}.{abi_minor}, for C") })
}

fn no_table(path: &Path, expected: &str, found: String) -> LoadError {
    let place = "the table `mqtt_handler_plugin`".into();
    LoadError::OtherLayout { path: path.into(), place, expected: expected.into(), found }
}

/// Text of a library, if it is some.
///
/// # Safety
/// The bytes are there for good, if `data` is not null.
unsafe fn owned_text(data: *const u8, length: usize) -> Option<RStr<'static>> {
    // SAFETY: the caller's promise; the rest is checked.
    let slice = checked(unsafe { RSlice::<u8>::from_raw_parts(data, length) })?;
    std::str::from_utf8(slice.as_slice()).ok().map(RStr::from_str)
}

/// Where the function of a callback stands.
const fn entry(callback: Callback) -> usize {
    match callback {
        Callback::Connect => offset_of!(PluginVt, connect),
        Callback::Auth => offset_of!(PluginVt, auth),
        Callback::Publish => offset_of!(PluginVt, publish),
        Callback::Subscribe => offset_of!(PluginVt, subscribe),
        Callback::Unsubscribe => offset_of!(PluginVt, unsubscribe),
        Callback::Puback => offset_of!(PluginVt, puback),
        Callback::Info => offset_of!(PluginVt, info),
        Callback::Disconnect => offset_of!(PluginVt, disconnect),
        Callback::SessionExpired => offset_of!(PluginVt, session_expired),
        Callback::Stop => offset_of!(PluginVt, instance_stop),
        Callback::Connected => offset_of!(PluginVt, connected),
        Callback::Deliver => offset_of!(PluginVt, deliver),
        Callback::Dropped => offset_of!(PluginVt, message_dropped),
        Callback::Acknowledged => offset_of!(PluginVt, message_acknowledged),
        Callback::Expired => offset_of!(PluginVt, message_expired),
        Callback::Retained => offset_of!(PluginVt, retained),
        Callback::Event => offset_of!(PluginVt, event),
        Callback::Config => offset_of!(PluginVt, config),
        Callback::Health => offset_of!(PluginVt, health),
        Callback::Swapped => offset_of!(PluginVt, swapped),
        Callback::ExportState => offset_of!(PluginVt, export_state),
        Callback::ImportState => offset_of!(PluginVt, import_state),
        Callback::ExportPlugin => offset_of!(PluginVt, export_plugin_state),
        Callback::ImportPlugin => offset_of!(PluginVt, import_plugin_state),
        // `Callback` may grow, and each is listed here: a test goes through all of them.
        _ => usize::MAX,
    }
}

/// Makes a function for each type of function that there is in the table.
macro_rules! absent {
    ($($name:ident($($argument:ty),*) -> $result:ty = $value:expr;)*) => {
        $(
            unsafe extern "C" fn $name($(_: $argument),*) -> $result {
                $value
            }
        )*
    };
}

absent! {
    // The address means nothing, and is not null, which would be a refusal.
    no_instance(CHost, RStr<'_>, Sink<'_>) -> Opaque = std::ptr::dangling_mut::<u64>().cast();
    no_state(Opaque, &RawConnectionInfo<'_>, Sink<'_>) -> Opaque = std::ptr::dangling_mut::<u64>().cast();
    never(RawHost, RStr<'_>, Sink<'_>) -> Opaque = std::ptr::null_mut();
    nothing(Opaque, Sink<'_>) -> Verdict = Verdict::OK;
    no_connect(Opaque, Opaque, &RawConnect<'_>, Sink<'_>) -> Verdict = Verdict::OK;
    no_auth(Opaque, Opaque, &RawAuth<'_>, Sink<'_>) -> Verdict = Verdict::OK;
    no_publish(Opaque, Opaque, &RawPublish<'_>, Sink<'_>) -> Verdict = Verdict::OK;
    no_subscribe(Opaque, Opaque, &RawSubscribe<'_>, Sink<'_>) -> Verdict = Verdict::OK;
    no_unsubscribe(Opaque, Opaque, &RawUnsubscribe<'_>, Sink<'_>) -> Verdict = Verdict::OK;
    no_puback(Opaque, Opaque, &RawAck, Sink<'_>) -> Verdict = Verdict::OK;
    no_info(Opaque, Opaque, &RawInfo<'_>, Sink<'_>) -> Verdict = Verdict::OK;
    no_disconnect(Opaque, Opaque, &RawDisconnect<'_>, Sink<'_>) -> Verdict = Verdict::OK;
    no_session_expired(Opaque, RStr<'_>, Option<&RawState<'_>>, Sink<'_>) -> Verdict = Verdict::OK;
    no_connected(Opaque, Opaque, &RawConnected<'_>, Sink<'_>) -> Verdict = Verdict::OK;
    no_deliver(Opaque, Opaque, &RawDeliver<'_>, Sink<'_>) -> Verdict = Verdict::OK;
    no_notice(Opaque, &RawMessageNotice<'_>, Sink<'_>) -> Verdict = Verdict::OK;
    no_retained(Opaque, &RawRetained<'_>, Sink<'_>) -> Verdict = Verdict::OK;
    no_event(Opaque, &RawInfo<'_>, Sink<'_>) -> Verdict = Verdict::OK;
    no_config(Opaque, RStr<'_>, Sink<'_>) -> Verdict = Verdict::OK;
    no_swapped(Opaque, Opaque, &RawSwapped<'_>, Sink<'_>) -> Verdict = Verdict::OK;
    no_export(Opaque, Opaque, Sink<'_>) -> Verdict = Verdict::OK;
    no_import(Opaque, &RawSwapped<'_>, &RawState<'_>, Sink<'_>) -> Opaque = std::ptr::null_mut();
    no_plugin_import(Opaque, &RawState<'_>, Sink<'_>) -> Verdict = Verdict::OK;
    no_cancelled(Opaque, u64, Sink<'_>) -> Verdict = Verdict::OK;
    no_config_check(RStr<'_>, Sink<'_>) -> Verdict = Verdict::OK;
    no_config_schema(Sink<'_>) -> Verdict = Verdict::OK;
}

/// What stands where a plugin has nothing. Callbacks among it are never called.
const ABSENT: PluginVt = PluginVt {
    name: RStr::EMPTY,
    version: RStr::EMPTY,
    flags: 0,
    callbacks: 0,
    blocking: 0,
    instance_new: never, // The one that is called is kept apart: it has another type.
    instance_stop: nothing,
    instance_drop: nothing,
    connection_new: no_state,
    connection_drop: nothing,
    connect: no_connect,
    auth: no_auth,
    publish: no_publish,
    subscribe: no_subscribe,
    unsubscribe: no_unsubscribe,
    puback: no_puback,
    info: no_info,
    disconnect: no_disconnect,
    session_expired: no_session_expired,
    connected: no_connected,
    deliver: no_deliver,
    message_dropped: no_notice,
    message_acknowledged: no_notice,
    message_expired: no_notice,
    retained: no_retained,
    event: no_event,
    config: no_config,
    health: nothing,
    swapped: no_swapped,
    export_state: no_export,
    import_state: no_import,
    export_plugin_state: nothing,
    import_plugin_state: no_plugin_import,
    cancelled: no_cancelled,
    config_check: no_config_check,
    config_schema: no_config_schema,
};

#[cfg(test)]
mod tests {
    use super::*;

    /// A table as a plugin's: the head, and as many words as `there` says.
    fn table(head: (u32, u32, usize), words: &[(usize, usize)]) -> Vec<usize> {
        let mut table = vec![0; (size_of::<Head>() + size_of::<PluginVt>()) / POINTER_BYTES + 1];
        let (abi_major, abi_minor, size) = head;
        table[0] = usize::try_from(u64::from(abi_minor) << 32 | u64::from(abi_major)).expect("64 bits");
        table[1] = size;
        for (offset, word) in words {
            table[(size_of::<Head>() + offset) / POINTER_BYTES] = *word;
        }
        table
    }

    const WHOLE: usize = size_of::<Head>() + size_of::<PluginVt>();

    fn read_table(head: (u32, u32, usize), words: &[(usize, usize)]) -> Result<CPlugin, LoadError> {
        let table = Box::leak(table(head, words).into_boxed_slice());
        // SAFETY: the table is leaked, and has the bytes that the tests say.
        unsafe { read(Path::new("x.so"), table.as_ptr().cast()) }
    }

    #[track_caller]
    fn refused(head: (u32, u32, usize), words: &[(usize, usize)], part: &str) {
        let error = read_table(head, words).map(|_| ()).expect_err(part).to_string();
        assert!(error.contains(part) && error.contains("x.so"), "{part} in {error}");
    }

    #[test]
    fn every_callback_has_its_entry() {
        for callback in Callback::ALL {
            assert!((FUNCTIONS..size_of::<PluginVt>()).contains(&entry(callback)), "{}", callback.name());
        }
    }

    #[test]
    fn what_is_missing_at_the_end_counts_as_absent() {
        let publish = (offset_of!(PluginVt, publish), no_publish as *const () as usize);
        let cancelled = (offset_of!(PluginVt, cancelled), no_cancelled as *const () as usize);
        let connected = (offset_of!(PluginVt, connected), no_connected as *const () as usize);
        let whole = [publish, connected, cancelled];
        let callbacks = |size| Callbacks::from_bits(read_table((1, 0, size), &whole).expect("fits").table.callbacks());
        let both = Callbacks::NONE.with(Callback::Publish).with(Callback::Connected);
        assert_eq!(callbacks(WHOLE), both);
        // A later version's, with an entry that this host does not know.
        assert_eq!(callbacks(WHOLE + POINTER_BYTES), both);
        let short = size_of::<Head>() + offset_of!(PluginVt, connected);
        assert_eq!(callbacks(short), Callbacks::NONE.with(Callback::Publish));
        assert_eq!(callbacks(size_of::<Head>() + FUNCTIONS), Callbacks::NONE);
    }

    #[test]
    fn callbacks_may_be_chosen_and_need_their_functions() {
        let publish = (offset_of!(PluginVt, publish), no_publish as *const () as usize);
        let connect = (offset_of!(PluginVt, connect), no_connect as *const () as usize);
        let bits = |callbacks: Callbacks| {
            (offset_of!(PluginVt, callbacks), usize::try_from(callbacks.bits()).expect("64 bits"))
        };
        let only = Callbacks::NONE.with(Callback::Publish);
        let plugin = read_table((1, 0, WHOLE), &[publish, connect, bits(only)]).expect("fits");
        assert_eq!(plugin.table.callbacks(), only.bits());
        assert_eq!(plugin.api_version, "1.0, for C");
        refused((1, 0, WHOLE), &[connect, bits(only)], "`handle_publish`");
        // A bit of a later version is nobody's here.
        let later = Callbacks::from_bits(only.bits() | 1 << 60);
        assert!(read_table((1, 7, WHOLE), &[publish, bits(later)]).is_ok());
    }

    #[test]
    fn tables_that_cannot_be_are_refused() {
        refused((2, 0, WHOLE), &[], "2.0");
        refused((0, 0, WHOLE), &[], "0.0");
        for size in [0, 15, FUNCTIONS, WHOLE + 1, SIZE_MAX + 8, usize::MAX] {
            refused((1, 0, size), &[], "a size of");
        }
        let name = |data: &'static [u8], length| {
            let offset = offset_of!(PluginVt, name);
            [(offset, data.as_ptr() as usize), (offset + POINTER_BYTES, length)]
        };
        refused((1, 0, WHOLE), &name(b"\xff\xfe", 2), "its name is not UTF-8");
        let offset = offset_of!(PluginVt, version);
        refused((1, 0, WHOLE), &[(offset + POINTER_BYTES, 5)], "its version is not UTF-8");
        // SAFETY: an address that no table can have is not followed.
        let error = unsafe { read(Path::new("x.so"), std::ptr::null()) }.map(|_| ()).expect_err("null");
        assert!(error.to_string().contains("an address"), "{error}");
    }
}
