//! What one instance of a plugin knows, for another one: calls of the functions that export and import it.
#![allow(unsafe_code)] // Foreign functions are called here.

use plugin_api::Callback;
use plugin_api::abi::{FLAG_SWAP_DISCONNECTS, Opaque, RawState, RawSwapped, Verdict};

use super::handlers::State;
use super::instance::Plugin;
use super::request::{NO_EXTENSION, slice};
use super::services::NO_CONNECTION;
use super::stats::Entry;
use crate::packed::{Reader, Write};
use plugin_api::reading::{Answer, unknown};

/// A state that a plugin has exported: the version of its schema, in the plugin's own counting, and its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Exported {
    pub(super) version: u32,
    pub(super) bytes: Vec<u8>,
}

impl Exported {
    pub(super) fn raw(&self) -> RawState<'_> {
        RawState { bytes: slice(&self.bytes), version: self.version, extension: NO_EXTENSION }
    }
}

/// Bytes that an exported state may have: that of a connection, and that of the plugin as a whole.
const STATE_BYTES_MAX: usize = 1 << 20;
const PLUGIN_STATE_BYTES_MAX: usize = 64 << 20;

/// Why there is no exported state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotExported {
    /// The plugin has no function for it.
    NotOffered,
    /// The state is with an asynchronous callback, or with the pool, and comes back later.
    Away,
    /// The plugin failed, which is logged. It is a connection's state that panicked: it cannot be used any more.
    Failed,
}

impl Plugin {
    /// Whether a connection whose state cannot be handed over to it is to be disconnected.
    pub(super) fn disconnects_on_swap(&self) -> bool {
        self.foreign().0.flags() & FLAG_SWAP_DISCONNECTS != 0
    }

    /// Calls `export_state`.
    pub(super) fn export(&self, connection: u64, state: &State, who: &str) -> Result<Exported, NotExported> {
        if !self.callbacks().contains(Callback::ExportState) {
            return Err(NotExported::NotOffered);
        }
        let State::Here(raw) = *state else {
            return Err(NotExported::Away);
        };
        let (table, instance) = self.foreign();
        self.exported(Callback::ExportState, connection, who, |answer| {
            // SAFETY: the caller passes a state of this instance that has not been dropped, and that only it can use.
            unsafe { table.export_state()(instance, raw, answer.sink()) }
        })
    }

    /// Calls `export_plugin_state`. Only for a plugin that implements it.
    fn export_all(&self) -> Result<Exported, NotExported> {
        let (table, instance) = self.foreign();
        self.exported(Callback::ExportPlugin, NO_CONNECTION, "", |answer| {
            // SAFETY: the instance lives as long as the plugin.
            unsafe { table.export_plugin_state()(instance, answer.sink()) }
        })
    }

    fn exported(
        &self,
        callback: Callback,
        connection: u64,
        who: &str,
        call: impl FnOnce(&mut Answer) -> Verdict,
    ) -> Result<Exported, NotExported> {
        let mut answer = Answer::default();
        let entry = Entry::of(callback);
        let (verdict, panics) = self.run(entry, connection, who, || call(&mut answer));
        let read = match verdict {
            Verdict::AWAY => return Err(NotExported::Away),
            Verdict::PANICKED | Verdict::POISONED => {
                self.log_panic(Entry::of(callback), who, panics, &answer);
                return Err(NotExported::Failed);
            }
            Verdict::OK => answer.state(),
            other => Err(unknown(other)),
        };
        self.log_caught(Entry::of(callback), who, panics);
        let max = if callback == Callback::ExportPlugin { PLUGIN_STATE_BYTES_MAX } else { STATE_BYTES_MAX };
        let read = read.and_then(|(version, bytes)| match bytes.len() {
            count if count > max => Err(format!("a state of {count} bytes; it may have {max}")),
            _ => Ok((version, bytes)),
        });
        read.map(|(version, bytes)| Exported { version, bytes: bytes.to_vec() }).map_err(|why| {
            self.log_unreadable(callback, who, &why);
            NotExported::Failed
        })
    }

    /// Calls `import_state`. `None`: it refused or panicked, which is logged and counted. Only for a plugin that
    /// implements it.
    pub(super) fn import(&self, swapped: &RawSwapped<'_>, exported: &Exported) -> Option<State> {
        let (table, instance) = self.foreign();
        let (callback, who) = (Callback::ImportState, swapped.client_id.as_str());
        let mut answer = Answer::default();
        let (new, panics) = self.run(Entry::of(callback), swapped.info.connection, who, || {
            // SAFETY: the instance lives as long as the plugin; the views as long as this call.
            unsafe { table.import_state()(instance, swapped, &exported.raw(), answer.sink()) }
        });
        if !new.is_null() {
            self.log_caught(Entry::of(callback), who, panics);
            return Some(State::from_raw(new));
        }
        self.log_not_made(callback, who, panics, &answer);
        None
    }

    /// Calls `import_plugin_state`. Only for a plugin that implements it.
    fn import_all(&self, exported: &Exported) -> Result<(), String> {
        let (table, instance) = self.foreign();
        let mut answer = Answer::default();
        let entry = Entry::of(Callback::ImportPlugin);
        let (verdict, panics) = self.run(entry, NO_CONNECTION, "", || {
            // SAFETY: the instance lives as long as the plugin; the view as long as this call.
            unsafe { table.import_plugin_state()(instance, &exported.raw(), answer.sink()) }
        });
        let text = || answer.text().unwrap_or_default().1;
        match verdict {
            Verdict::OK => {
                self.log_caught(entry, "", panics);
                Ok(())
            }
            Verdict::ERROR => Err(format!("import_plugin_state returned an error: {}", text())),
            Verdict::PANICKED => {
                self.log_panic(entry, "", panics, &answer);
                Err(format!("import_plugin_state panicked: {}", text()))
            }
            other => Err(format!("import_plugin_state: {}", unknown(other))),
        }
    }

    /// Whether there is a way for what the plugin as a whole knows.
    pub(super) fn hands_over_all(&self, to: &Self) -> bool {
        self.callbacks().contains(Callback::ExportPlugin) && to.callbacks().contains(Callback::ImportPlugin)
    }

    /// Hands over what the plugin as a whole knows, if both sides have a function for it. Not for a worker's thread.
    ///
    /// # Errors
    /// One of them failed; says how.
    pub fn hand_over_all(&self, to: &Self) -> Result<(), String> {
        if !self.hands_over_all(to) {
            return Ok(());
        }
        let failed = |_| format!("export_plugin_state of version {} failed; the log says how", self.version());
        to.import_all(&self.export_all().map_err(failed)?)
    }

    /// What the plugin as a whole knows, for another process: with its name. `None` if it does not say.
    ///
    /// # Errors
    /// It failed; says how.
    pub(crate) fn image(&self) -> Option<Result<Vec<u8>, String>> {
        if !self.callbacks().contains(Callback::ExportPlugin) {
            return None;
        }
        let failed = |_| format!("export_plugin_state of {} {} failed; the log says how", self.name(), self.version());
        Some(self.export_all().map_err(failed).map(|exported| {
            let mut image = Vec::new();
            image.put_text(self.name());
            exported.write(&mut image);
            image
        }))
    }

    /// Takes in what the plugin of this name knew as a whole, from behind the name on, if it has a function for it.
    ///
    /// # Errors
    /// It cannot be read, or the plugin failed; says how.
    pub(crate) fn inherit(&self, image: &mut Reader<'_>) -> Result<(), String> {
        let exported = Exported::read(image).map_err(|error| error.to_string())?;
        if !self.callbacks().contains(Callback::ImportPlugin) {
            return Ok(());
        }
        self.import_all(&exported).map_err(|why| format!("{} {}: {why}", self.name(), self.version()))
    }

    /// The same after a rollback, where nothing depends on it: the one that decides again has what it knew before.
    pub(super) fn hand_back_all(&self, to: &Self) {
        let (plugin, from, version) = (to.name(), self.version(), to.version());
        match self.hand_over_all(to) {
            Ok(()) => tracing::info!(plugin, version, from, "a plugin has been handed back what it knows as a whole"),
            Err(why) => {
                tracing::warn!(
                    plugin,
                    version,
                    from,
                    why,
                    "a plugin goes on with what it knew as a whole before the swap"
                );
            }
        }
    }

    /// Calls `handle_swapped`. `false`: it panicked, and the state cannot be used.
    pub(super) fn swapped(&self, swapped: &RawSwapped<'_>, state: &State) -> bool {
        if !self.callbacks().contains(Callback::Swapped) {
            return true;
        }
        let State::Here(raw) = *state else {
            return false;
        };
        let (table, instance) = self.foreign();
        let (callback, who) = (Callback::Swapped, swapped.client_id.as_str());
        let mut answer = Answer::default();
        let (verdict, panics) = self.run(Entry::of(callback), swapped.info.connection, who, || {
            // SAFETY: the caller passes a state of this instance that has not been dropped, and that only it can use.
            unsafe { table.swapped()(instance, raw, swapped, answer.sink()) }
        });
        if matches!(verdict, Verdict::PANICKED | Verdict::POISONED) {
            self.log_panic(Entry::of(callback), who, panics, &answer);
            return false;
        }
        self.log_caught(Entry::of(callback), who, panics);
        true
    }
}

impl State {
    pub(super) fn from_raw(raw: Opaque) -> Self {
        if raw.is_null() { Self::None } else { Self::Here(raw) }
    }
}
