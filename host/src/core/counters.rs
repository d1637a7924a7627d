//! What a worker counts. Written by its worker only, readable by everybody.

use crate::sync::simple::atomic::{AtomicU64, Ordering};

/// A number that one thread adds to and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. There is one writer, so a load and a store do, and no other core has to be asked.
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// The present value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one worker, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Network Connections accepted.
    pub connections_accepted: Counter,
    /// Network Connections closed at once, because there were too many, of all or of one address.
    pub connections_refused: Counter,
    /// Network Connections closed at once, because nobody from their address gets in.
    pub connections_turned_away: Counter,
    /// Handshakes (TLS, WebSocket, PROXY protocol) that have failed: the peer was refused, or makes no sense.
    pub handshakes_failed: Counter,
    /// Connections closed because their handshake took too long, or because others waited for its place.
    pub handshakes_late: Counter,
    /// CONNECT packets refused, because too many came in a second.
    pub connects_refused: Counter,
    /// Questions that a plugin has not answered before its deadline, and that were refused.
    pub answers_late: Counter,
    /// PUBLISH packets received.
    pub publishes_received: Counter,
    /// PUBLISH packets put on their way to clients.
    pub publishes_sent: Counter,
    /// QoS 0 messages dropped because their receiver, or another worker, did not keep up.
    pub dropped_slow: Counter,
    /// QoS 1 and 2 messages dropped because their session's queue was full.
    pub dropped_queue_full: Counter,
    /// Messages of Shared Subscriptions dropped because the member that had them has gone and there is no other, or because
    /// it had been sent a QoS 2 message, which no other may get.
    pub dropped_no_member: Counter,
    /// QoS 1 and 2 messages refused because this worker, or one that they go to, had no room to keep them.
    pub publishes_refused: Counter,
    /// PUBLISH packets dropped because their sender sent too much in a second.
    pub dropped_rate: Counter,
    /// Messages refused because there was no room to retain them.
    pub dropped_not_retained: Counter,
    /// Messages dropped because they exceed the Maximum Packet Size of their receiver.
    pub dropped_too_large: Counter,
    /// Messages dropped because their topic is not below the mount point of their receiver's listener.
    pub dropped_outside_mount: Counter,
    /// Messages that a plugin's `handle_deliver` has dropped for one receiver.
    pub dropped_by_handler: Counter,
    /// Messages dropped because their receiver may not have them any more.
    pub dropped_unauthorised: Counter,
    /// Messages dropped because their Message Expiry Interval had passed.
    pub dropped_expired: Counter,
}

impl Counters {
    /// Each of them, with its name.
    pub(crate) fn named(&self) -> [(&'static str, &Counter); 20] {
        macro_rules! named {
            ($($name:ident),+ $(,)?) => {{
                // None can be forgotten.
                let Self { $($name),+ } = self;
                [$((stringify!($name), $name)),+]
            }};
        }
        named![
            connections_accepted,
            connections_refused,
            connections_turned_away,
            handshakes_failed,
            handshakes_late,
            connects_refused,
            answers_late,
            publishes_received,
            publishes_sent,
            dropped_slow,
            dropped_queue_full,
            dropped_no_member,
            publishes_refused,
            dropped_rate,
            dropped_not_retained,
            dropped_too_large,
            dropped_outside_mount,
            dropped_by_handler,
            dropped_unauthorised,
            dropped_expired,
        ]
    }
}
