//! Timers: messages for `handle_info` or `handle_event` that wait for their moment. Those for a connection are where it is, and
//! end with it.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;

use super::connection::Phase;
use super::mail::{InfoMail, InfoTarget};
use super::requests::EARLY_MS;
use super::timers::Subject;
use super::{CONNECTION_ID_WORKER_SHIFT, Core};
use crate::clock::Millis;

/// Time between two looks whether the connection that a timer is for has come, in milliseconds.
const ARRIVAL_LOOK_MS: u64 = 10;

/// A message that waits for its moment, once or again and again.
#[derive(Debug)]
pub(super) struct DelayedInfo {
    pub(super) at: Millis,
    pub(super) begun: Millis,
    pub(super) info: Box<InfoMail>,
}

impl DelayedInfo {
    fn connection(&self) -> Option<u64> {
        match self.info.target {
            InfoTarget::Connection(id) => Some(id),
            InfoTarget::Client(_) | InfoTarget::All | InfoTarget::Plugin => None,
        }
    }
}

/// Those of one worker.
#[derive(Default)]
pub(super) struct DelayedInfos {
    by_timer: HashMap<u64, DelayedInfo, RandomState>,
    /// Connections, by id, and the timers for them.
    of_connections: BTreeSet<(u64, u64)>,
}

impl DelayedInfos {
    pub(super) fn values(&self) -> impl ExactSizeIterator<Item = &DelayedInfo> {
        self.by_timer.values()
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn is_empty(&self) -> bool {
        self.by_timer.is_empty() && self.of_connections.is_empty()
    }

    fn insert(&mut self, delayed: DelayedInfo) {
        let timer = delayed.info.timer;
        self.of_connections.extend(delayed.connection().map(|id| (id, timer)));
        self.by_timer.insert(timer, delayed);
    }

    fn take(&mut self, timer: u64) -> Option<DelayedInfo> {
        let delayed = self.by_timer.remove(&timer)?;
        if let Some(id) = delayed.connection() {
            self.of_connections.remove(&(id, timer));
        }
        Some(delayed)
    }

    /// A version of a plugin begins with a timer, and an earlier one has begun with the same.
    fn forget_replaced(&mut self, info: &InfoMail) {
        let replaced: Vec<u64> = self
            .values()
            .map(|waiting| &waiting.info)
            .filter(|waiting| info.replaces(waiting))
            .map(|info| info.timer)
            .collect();
        replaced.into_iter().for_each(|timer| drop(self.take(timer)));
    }

    /// Takes out those for a connection.
    fn take_of(&mut self, id: u64) -> Vec<DelayedInfo> {
        let timers: Vec<u64> = self.of_connections.range((id, 0)..=(id, u64::MAX)).map(|(_, timer)| *timer).collect();
        timers.into_iter().filter_map(|timer| self.take(timer)).collect()
    }
}

impl Core {
    /// Has a message wait. Its plugin has room for it.
    pub(super) fn begin_timer(&mut self, info: Box<InfoMail>) {
        if info.begins != 0 {
            self.delayed_infos.forget_replaced(&info);
        }
        let delayed = DelayedInfo { at: self.now + info.delay_ms, begun: self.now, info };
        if self.is_target_here(&delayed) || self.may_still_come(&delayed) {
            self.wait_for_moment(delayed);
        }
    }

    /// The same for one that has waited in another process. Connections have come over before.
    pub(super) fn go_on_waiting(&mut self, delayed: DelayedInfo) {
        if self.is_target_here(&delayed) {
            self.wait_for_moment(delayed);
        }
    }

    /// Whether the plugin has begun here with one that takes its place.
    pub(super) fn has_replacement(&self, delayed: &DelayedInfo) -> bool {
        self.delayed_infos.values().any(|waiting| waiting.info.replaces(&delayed.info))
    }

    fn wait_for_moment(&mut self, delayed: DelayedInfo) {
        // One for a connection that does not come is not kept until then.
        let until = if self.is_target_here(&delayed) { delayed.at } else { delayed.at.min(delayed.begun + EARLY_MS) };
        self.timers.arm(self.now, until, Subject::Info(delayed.info.timer));
        self.delayed_infos.insert(delayed);
    }

    pub(super) fn info_due(&mut self, timer: u64) {
        let Some(mut delayed) = self.delayed_infos.take(timer) else {
            return;
        };
        if !self.is_target_here(&delayed) {
            if self.may_still_come(&delayed) {
                delayed.at = delayed.at.max(self.now + ARRIVAL_LOOK_MS);
                self.wait_for_moment(delayed);
            }
            return;
        }
        if delayed.at > self.now {
            return self.wait_for_moment(delayed);
        }
        let interval = delayed.info.interval_ms;
        if interval == 0 {
            return self.deliver_info(&delayed.info);
        }
        // In even distances; those that a worker with much to do has missed are left out.
        delayed.at = (delayed.at + interval).max(self.now + 1);
        let info = delayed.info.clone();
        self.wait_for_moment(delayed);
        self.deliver_info(&info);
    }

    /// Whether there can be anybody here that it is for.
    fn is_target_here(&self, delayed: &DelayedInfo) -> bool {
        let phase = |id| Some(self.connections[self.slot_of_connection(id)? as usize].phase);
        delayed
            .connection()
            .is_none_or(|id| phase(id).is_some_and(|phase| !matches!(phase, Phase::Leaving | Phase::Closing)))
    }

    /// Whether the connection that a timer is for may be on its way from the worker that accepted it.
    fn may_still_come(&self, delayed: &DelayedInfo) -> bool {
        delayed.connection().is_some_and(|id| {
            self.slot_of_connection(id).is_none()
                && id >> CONNECTION_ID_WORKER_SHIFT != self.worker as u64
                && self.now < delayed.begun + EARLY_MS
        })
    }

    /// A connection has ended, and what waits for it is not kept.
    pub(super) fn forget_timers_of(&mut self, id: u64) {
        drop(self.delayed_infos.take_of(id));
    }

    /// What waits for a connection goes with it to another worker.
    pub(super) fn take_timers_of(&mut self, id: u64) -> Vec<DelayedInfo> {
        self.delayed_infos.take_of(id)
    }

    /// What has waited for a connection has come with it. `delivered` were due on the way, and are not to come twice: this
    /// worker may have been told of each timer as well.
    pub(super) fn adopt_timers<'a>(
        &mut self,
        delivered: impl Iterator<Item = &'a InfoMail>,
        waiting: Vec<DelayedInfo>,
    ) {
        for info in delivered {
            self.delayed_infos.take(info.timer);
        }
        for delayed in waiting {
            self.wait_for_moment(delayed);
        }
    }

    pub(super) fn cancel_timer(&mut self, plugin: usize, timer: u64) {
        if self.delayed_infos.by_timer.get(&timer).is_some_and(|delayed| delayed.info.plugin == plugin) {
            self.delayed_infos.take(timer);
        }
    }
}
