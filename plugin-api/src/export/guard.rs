//! What catches panics of the author's code, so that nothing unwinds out of the library.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::abi::{AnswerKey, RawHost, Sink, Verdict};
use crate::answer::Answer;

/// Runs a callback that has an answer, and no connection's state.
pub(super) fn answered<A: Answer>(sink: Sink<'_>, run: impl FnOnce() -> A) -> Verdict {
    let mut out = sink;
    guarded(sink, || run().put(&mut out)).unwrap_or(Verdict::PANICKED)
}

/// Runs the author's code where there is no connection's state to poison.
pub(super) fn guarded<T>(sink: Sink<'_>, run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => Some(value),
        Err(payload) => {
            panicked(payload, sink);
            None
        }
    }
}

pub(super) fn verdict(done: Option<()>) -> Verdict {
    done.map_or(Verdict::PANICKED, |()| Verdict::OK)
}

/// Tells the host what the panic said, and gets rid of its payload.
#[cold]
pub(super) fn panicked(payload: Box<dyn Any + Send>, sink: Sink<'_>) -> Verdict {
    put_text(sink, Verdict::PANICKED, payload_text(&*payload));
    discard(payload);
    Verdict::PANICKED
}

/// Drops a value of the author's: the payload of a panic, for example. If its drop panics there is another payload: that
/// one is leaked, or this would never end.
pub(super) fn discard<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        std::mem::forget(payload);
    }
}

pub(super) fn put_text(sink: Sink<'_>, verdict: Verdict, text: &str) {
    sink.put(AnswerKey::TEXT, verdict.0.into(), text.as_bytes());
}

pub(super) fn payload_text(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "(a panic payload that is not text)"
    }
}

/// Lets this library's copy of `std` report panics to the host's log instead of standard error, on all its threads.
pub(super) fn report_panics_to(host: RawHost) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        std::panic::set_hook(Box::new(move |info| {
            let location = info.location().map(ToString::to_string).unwrap_or_default();
            let thread = std::thread::current();
            host.panicked(payload_text(info.payload()), &location, thread.name().unwrap_or_default());
        }));
    });
}
