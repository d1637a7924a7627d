//! What has gone wrong with a plugin: it is counted, and it is logged with plugin, callback and client.

use std::time::Instant;

use plugin_api::abi::Verdict;
use plugin_api::reading::{Answer, Faults, Packet};
use plugin_api::{Callback, ReasonCode};

use super::instance::Plugin;
use super::services::{Left, Panic, Settled};
use super::stats::{Entry, Trouble};

impl Faults for Plugin {
    fn packet_bytes_max(&self) -> usize {
        self.services().packet_bytes_max()
    }

    fn error(&self, callback: Callback, who: &str, answer: &Answer) {
        self.log_error(callback, who, answer);
    }

    fn unreadable(&self, callback: Callback, who: &str, why: &str) {
        self.log_unreadable(callback, who, why);
    }

    #[cold]
    fn misfit(&self, callback: Callback, client_id: &str, packet: Packet, answered: ReasonCode) {
        let callback = callback.name();
        tracing::warn!(plugin = self.name, callback, client_id, "{}", packet.misfit(answered));
    }
}

impl Plugin {
    /// Counts a failure: a panic, an error, an answer that cannot be read, a deadline that has passed.
    #[cold]
    pub fn count_failure(&self) {
        self.probation.count_failure(self);
    }

    /// Counts that it has not answered the operator in time.
    pub(crate) fn count_late(&self, callback: Callback) {
        self.monitor.count(Entry::of(callback), Trouble::Late);
        self.count_failure();
    }

    /// Counts an answer that is no simple consent.
    #[cold]
    pub(super) fn count_answer(&self, entry: Entry, verdict: Verdict, answer: &Answer) {
        let trouble = match verdict {
            Verdict::REJECT if entry == Entry::of(Callback::Auth) && answer.is_not_my_method() => return,
            Verdict::REJECT | Verdict::DISCONNECT | Verdict::DROP => Trouble::Refusal,
            Verdict::CODES if answer.refuses_one() => Trouble::Refusal,
            Verdict::ERROR => Trouble::Error,
            _ => return,
        };
        self.monitor.count(entry, trouble);
    }

    /// The plugin has made no state.
    #[cold]
    pub(super) fn log_not_made(&self, callback: Callback, client_id: &str, left: Left, answer: &Answer) {
        match answer.text() {
            Some((number, _)) if number == u64::from(Verdict::ERROR.0) => {
                self.monitor.count(Entry::of(callback), Trouble::Error);
                self.log_error(callback, client_id, answer);
            }
            _ => self.log_panic(Entry::of(callback), client_id, left, answer),
        }
    }

    #[cold]
    pub(super) fn log_panic(&self, entry: Entry, client_id: &str, left: Left, answer: &Answer) {
        let (Panic { text, location }, callback) = (fatal(left, answer), entry.name());
        tracing::error!(plugin = self.name, callback, client_id, text, location, "a plugin panicked");
        self.monitor.count_panic(entry, Instant::now());
        self.count_failure();
    }

    #[inline]
    pub(super) fn log_caught(&self, entry: Entry, client_id: &str, left: Left) {
        if let Some(left) = left {
            self.log_panics(entry, client_id, &left.panics);
        }
    }

    #[cold]
    fn log_panics(&self, entry: Entry, client_id: &str, panics: &[Panic]) {
        for Panic { text, location } in panics {
            let callback = entry.name();
            tracing::warn!(plugin = self.name, callback, client_id, text, location, "a plugin panicked and caught it");
        }
    }

    /// The plugin's answer makes no sense.
    #[cold]
    pub(super) fn log_unreadable(&self, callback: Callback, client_id: &str, why: &str) {
        self.monitor.count(Entry::of(callback), Trouble::Unusable);
        let callback = callback.name();
        tracing::error!(plugin = self.name, callback, client_id, why, "a plugin's answer cannot be used: refused");
        self.count_failure();
    }

    /// It has taken longer for an answer than it may.
    #[cold]
    pub(super) fn log_late(&self, callback: Callback, client_id: &str) {
        self.count_late(callback);
        let callback = callback.name();
        tracing::warn!(plugin = self.name, callback, client_id, "a plugin has not answered in time: refused");
    }

    /// The callback returned an error.
    #[cold]
    pub(super) fn log_error(&self, callback: Callback, client_id: &str, answer: &Answer) {
        let (_, text) = answer.text().unwrap_or_default();
        let callback = callback.name();
        tracing::warn!(plugin = self.name, callback, client_id, text, "a plugin returned an error: refused");
        self.count_failure();
    }

    /// The callback has taken a ticket: it is good for something if the callback says that it answers later.
    #[cold]
    pub(super) fn note_ticket(&self, verdict: Verdict, settled: &Settled, answer: &mut Answer) {
        let &Settled { ticket, taken_from: Some(tickets), .. } = settled else { return };
        // Nobody could wait for an answer to one of another instance: without a ticket it is refused at once.
        let is_own = std::ptr::eq(tickets, self.tickets());
        if verdict == Verdict::DEFERRED && is_own {
            answer.ticket = ticket;
        } else {
            tickets.cancel(ticket);
        }
        if !is_own {
            tracing::warn!(plugin = self.name, "a ticket was taken from the services of another instance: it is void");
        }
    }
}

/// The panic that ended a call: the text is in the answer; among the reported ones it is found by that.
pub(super) fn fatal(left: Left, answer: &Answer) -> Panic {
    let text = answer.text().map(|(_, text)| text).unwrap_or_default();
    let reported = left.into_iter().flat_map(|left| left.panics).find(|panic| panic.text == text);
    reported.unwrap_or(Panic { text, location: String::new() })
}
