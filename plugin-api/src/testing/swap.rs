//! Another version of the handler takes over.

use std::rc::Rc;

use super::connection::Connection;
use super::plugin::{Failed, Plugin, unknown};
use super::{Inner, TestHost, raw_state};
use crate::abi::{RawConnectionInfo, RawSwapped, Verdict};
use crate::reading::Answer;
use crate::{Callback, Error, Handler, State};

/// Bytes that an exported state may have: that of a connection, and that of the handler as a whole.
const STATE_BYTES_MAX: usize = 1 << 20;
const PLUGIN_STATE_BYTES_MAX: usize = 64 << 20;

impl TestHost {
    /// Another version of the handler, or the same again, takes the place of this one, as by `host swap`: it gets what
    /// `export_plugin_state` gives, and each connection what `export_state` gives; or a fresh state, or its end, as
    /// [`Handler::ON_SWAP`] says. Clients stay connected.
    ///
    /// # Errors
    /// `init` or `import_plugin_state` of the new one refuses, or `export_plugin_state` fails: the old one goes on.
    pub fn swap<H: Handler>(&self, config: &str) -> Result<(), Error> {
        self.settle();
        let old = self.inner.plugin();
        let since = self.inner.services.world().number();
        let new = match self.prepare::<H>(&old, config) {
            Ok(new) => new,
            Err(why) => {
                self.inner.services.world().forget_since(since);
                return Err(why);
            }
        };
        self.inner.services.world().begin_with(since);
        let connections: Vec<u64> = self.inner.services.world().clients.keys().copied().collect();
        for number in connections {
            self.inner.go_over(number, &old, &new);
        }
        *self.inner.plugin.borrow_mut() = new;
        if old.implements(Callback::Stop) {
            old.stop();
        }
        drop(old);
        self.settle();
        Ok(())
    }

    /// Makes the new version, which learns what the old one knows.
    fn prepare<H: Handler>(&self, old: &Plugin, config: &str) -> Result<Rc<Plugin>, Error> {
        let new = Plugin::new::<H>(config, self.inner.services)?;
        if old.implements(Callback::ExportPlugin) && new.implements(Callback::ImportPlugin) {
            let (verdict, answer) = old.export_all();
            let state = state_of(Callback::ExportPlugin, verdict, &answer)?;
            let (verdict, answer) = new.import_all(&raw_state(&state));
            if verdict != Verdict::OK {
                let text = answer.text().unwrap_or_default().1;
                return Err(format!("import_plugin_state: {text}").into());
            }
        }
        Ok(new)
    }
}

impl Inner {
    /// A connection goes over to another version, or ends.
    fn go_over(&self, number: u64, old: &Rc<Plugin>, new: &Rc<Plugin>) {
        let connection = self.connection(number);
        connection.with_info(number, false, |info| self.hand_over(number, &connection, info, old, new));
    }

    fn hand_over(
        &self,
        number: u64,
        connection: &Connection,
        info: &RawConnectionInfo<'_>,
        old: &Rc<Plugin>,
        new: &Rc<Plugin>,
    ) {
        let swapped = RawSwapped {
            info: *info,
            client_id: connection.client_id.as_str().into(),
            from_version: env!("CARGO_PKG_VERSION").into(),
            keep_alive: connection.keep_alive_secs,
            protocol_version: connection.protocol_version,
            flags: 0,
            extension: std::ptr::null(),
        };
        if old.implements(Callback::ExportState) && new.implements(Callback::ImportState) {
            let exported = old.export(number).map_err(|Failed(why)| why.into());
            let state = exported.and_then(|(verdict, answer)| state_of(Callback::ExportState, verdict, &answer));
            if state.is_ok_and(|state| new.import(&swapped, &raw_state(&state)).is_ok()) {
                return old.drop_state(number);
            }
        }
        if new.disconnects_on_swap() {
            return self.end_in_swap(number, None);
        }
        let fresh = new.new_connection(info).and_then(|()| match new.implements(Callback::Swapped) {
            true => new.swapped(number, &swapped).map(|_| ()),
            false => Ok(()),
        });
        match fresh {
            Ok(()) => old.drop_state(number),
            Err(why) => {
                new.drop_state(number);
                self.end_in_swap(number, Some(why));
            }
        }
    }
}

/// A state that was exported, checked.
pub(super) fn state_of(callback: Callback, verdict: Verdict, answer: &Answer) -> Result<State, Error> {
    let text = || answer.text().unwrap_or_default().1;
    let max = if callback == Callback::ExportPlugin { PLUGIN_STATE_BYTES_MAX } else { STATE_BYTES_MAX };
    match verdict {
        Verdict::OK => {
            let (version, bytes) = answer.state()?;
            if bytes.len() > max {
                return Err(format!("a state of {} bytes; it may have {max}", bytes.len()).into());
            }
            Ok(State::new(version, bytes))
        }
        Verdict::ERROR => Err(text().into()),
        Verdict::PANICKED => Err(format!("{} panicked: {}", callback.name(), text()).into()),
        other => Err(unknown(callback, other).into()),
    }
}
