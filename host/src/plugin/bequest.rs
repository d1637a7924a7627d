//! What the plugins know of a connection goes to another process, where other instances of them take it in.
//!
//! It is what a [swap](super::Handlers::conform) does, with a time between export and import, and with the versions that the
//! instances before had as text. Plugins are known by their names; one that was not there before gets a connection that it
//! has not seen, as one does that is exchanged without a way for its state.

use std::sync::Arc;

use plugin_api::Callback;

use super::generation::Plan;
use super::handlers::{Handlers, PluginSet, Plugins, State};
use super::handover::{Exported, NotExported};
use super::instance::Plugin;
use super::migrate::Conformed;
use super::request::SwapRequest;
use crate::packed::{Reader, Unreadable, Write};

/// What one plugin knew.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bequest<'a> {
    plugin: &'a str,
    /// The plugin's own version.
    version: &'a str,
    state: Option<Exported>,
}

impl Exported {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u32(self.version);
        out.put_bytes(&self.bytes);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Unreadable> {
        Ok(Self { version: reader.u32()?, bytes: reader.bytes()?.to_vec() })
    }
}

impl Handlers {
    /// Whether no state is with the pool or an asynchronous callback, so that all of them can be exported.
    pub(crate) fn are_here(&mut self) -> bool {
        (0..self.states().len()).all(|index| self.settle(index))
    }

    /// Writes what the plugins know. The connection stays theirs.
    pub(crate) fn bequeath(&mut self, who: &str, out: &mut Vec<u8>) {
        let (plugins, connection) = (Arc::clone(self.plugins()), self.connection());
        out.put_count(plugins.deciding().count());
        for (index, plugin) in plugins.deciding() {
            out.put_text(plugin.name());
            out.put_text(plugin.version());
            self.settle(index);
            let state = &self.states()[index];
            let exported =
                if state.is_none() { Err(NotExported::Failed) } else { plugin.export(connection, state, who) };
            out.put_option(exported.ok(), |out, exported| exported.write(out));
        }
    }

    /// The same behind which plugins decide about it, for [`revive`](Self::revive).
    pub(crate) fn leave(&mut self, who: &str, out: &mut Vec<u8>) {
        self.plugins().write_set(out);
        self.bequeath(who, out);
    }

    /// Makes states of what [`leave`](Self::leave) has written.
    ///
    /// # Errors
    /// See [`inherit`](Self::inherit).
    pub(crate) fn revive(
        plan: &Plan,
        request: &SwapRequest<'_>,
        written: &mut Reader<'_>,
    ) -> Result<Result<Self, Conformed>, Unreadable> {
        let set = PluginSet::read(plan, written)?;
        Self::inherit(plan, set, request, written)
    }

    /// Has the plugins of a plan take in what was written.
    ///
    /// # Errors
    /// What was written cannot be read, or how the connection has to end: a plugin cannot make a state for it, or wants it
    /// to end.
    pub(crate) fn inherit(
        plan: &Plan,
        set: PluginSet,
        request: &SwapRequest<'_>,
        written: &mut Reader<'_>,
    ) -> Result<Result<Self, Conformed>, Unreadable> {
        let bequests = written.list(|reader| {
            let (plugin, version) = (reader.text()?, reader.text()?);
            Ok(Bequest { plugin, version, state: reader.option(Exported::read)? })
        })?;
        let mut handlers = Self::empty(plan, set, request.info.connection);
        let plugins = Arc::clone(handlers.plugins());
        for (index, plugin) in plugins.deciding() {
            let bequest = bequests.iter().find(|bequest| bequest.plugin == plugin.name());
            match plugin.take_in(request, bequest) {
                Ok(state) => {
                    handlers.states()[index] = state;
                    plugin.count_connection(true);
                }
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(Ok(handlers))
    }
}

impl Plugins {
    /// Writes which of them do not decide. One that is none of them later does.
    fn write_set(&self, out: &mut Vec<u8>) {
        let others = || self.list.iter().enumerate().filter(|(place, _)| !self.set().contains(*place));
        out.put_flag(self.set().refuses_undecided());
        out.put_count(others().count());
        others().for_each(|(_, plugin)| out.put_text(plugin.name()));
    }
}

impl PluginSet {
    fn read(plan: &Plan, reader: &mut Reader<'_>) -> Result<Self, Unreadable> {
        let (refuses_undecided, others) = (reader.flag()?, reader.list(Reader::text)?);
        let deciding = plan.plugins().iter().enumerate().filter(|(_, plugin)| !others.contains(&plugin.name()));
        Ok(Self::of(deciding.map(|(place, _)| place)).refusing_undecided(refuses_undecided))
    }
}

impl Plugin {
    /// A state for a connection that another process had.
    fn take_in(self: &Arc<Self>, request: &SwapRequest<'_>, bequest: Option<&Bequest<'_>>) -> Result<State, Conformed> {
        let raw = request.raw(bequest.map_or("", |bequest| bequest.version), false);
        if self.callbacks().contains(Callback::ImportState)
            && let Some(exported) = bequest.and_then(|bequest| bequest.state.as_ref())
            && let Some(state) = self.import(&raw, exported)
        {
            self.note_begin(&request.info);
            return Ok(state);
        }
        if self.disconnects_on_swap() {
            return Err(Conformed::Disconnect);
        }
        if self.begins_on_pool() {
            return self.begin_swapped(request, &raw).ok_or(Conformed::Failed);
        }
        let mut state = self.new_state(&request.info).ok_or(Conformed::Failed)?;
        if !self.swapped(&raw, &state) {
            self.drop_state(&mut state, request.client_id);
            return Err(Conformed::Failed);
        }
        Ok(state)
    }
}
