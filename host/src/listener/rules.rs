//! What holds for the clients of one listener, and what becomes of it: the [`ListenerProfile`] that the core goes by.

use super::{ListenerConfig, ListenerUrl, Scheme};
use crate::core::{ListenerProfile, Mount, OF_LISTENERS, UsernameFrom};
use crate::error::Error;
use crate::io;
use crate::limits::{Limits, Setting, Undecided, Value};
use crate::plugin::{Callback, Callbacks, Chain, PluginSet};

/// What holds for the clients of one listener alone. The default is what holds for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientRules {
    /// The names of the plugins that decide about them, in whatever order: they are asked in that of the chain. Default: all.
    pub plugins: Option<Vec<String>>,
    /// Whether clients from other machines get in where none of these plugins decides on connections. Default: as
    /// [`Builder::allow_anonymous`](crate::Builder::allow_anonymous) says.
    pub allow_anonymous: Option<bool>,
    /// The part of the topics that they see: what is below it. Default: all of them.
    pub mount: Option<Mount>,
    /// What of a client's certificate takes the place of its User Name. Default: nothing.
    pub username_from: Option<UsernameFrom>,
    /// Bounds that take the place of the server's, by their names: those of [`OF_LISTENERS`].
    pub limits: Vec<(&'static str, Value)>,
}

/// What holds for all clients, unless their listener has rules of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Common<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) allow_anonymous: bool,
    pub(crate) chain: &'a Chain,
}

impl ListenerConfig {
    /// Looks at what a server of these plugins would need to listen here, but for the place itself: the files that the
    /// settings name, the plugins that they name, and that somebody decides who may connect where other machines could.
    ///
    /// # Errors
    /// As for [`Builder::start`](crate::Builder::start).
    pub fn check(&self, limits: &Limits, allow_anonymous: bool, chain: &Chain) -> Result<(), Error> {
        io::listener::check(self)?;
        self.profile(&self.url, Common { limits, allow_anonymous, chain }).map(drop)
    }

    /// What holds for the clients of this listener, which is open at `url`.
    ///
    /// # Errors
    /// A plugin that is named is not there, or bounds do not fit together. Other machines could connect, and nobody decides
    /// whether they may.
    pub(crate) fn profile(&self, url: &ListenerUrl, common: Common<'_>) -> Result<ListenerProfile, Error> {
        // With the port that it really has.
        let name = Self { url: url.clone(), ..self.clone() }.name();
        let Common { limits, allow_anonymous, chain } = common;
        let own_limits = self.limits(limits).map_err(|what| Error::Listener { name: name.clone(), what })?;
        let mut profile = ListenerProfile::new(name.as_str(), own_limits);
        profile.allow_anonymous = self.rules.allow_anonymous.unwrap_or(allow_anonymous);
        profile.mount.clone_from(&self.rules.mount);
        profile.username_from = self.rules.username_from;
        profile.origins_are_named = !self.websocket.origins.is_empty();
        profile.has_proxy = !self.proxy_from.is_empty();
        profile.goes_over = matches!(self.url.scheme, Scheme::Tcp | Scheme::Unix);
        // A proxy on this machine passes others on.
        let is_local = url.is_local() && !profile.has_proxy;
        let refuses_undecided = match profile.limits.undecided {
            Undecided::Local => !is_local,
            Undecided::Refuse => true,
            Undecided::Allow => false,
        };
        profile.plugins = self.plugins(&name, chain)?.refusing_undecided(refuses_undecided);
        if !is_local && !chain.decides_on_connections(profile.plugins) {
            if !profile.allow_anonymous {
                return Err(Error::NobodyDecides { name, url: url.clone() });
            }
            tracing::warn!(
                listener = name.as_str(),
                "everybody whom the network lets through may connect: other machines can reach it, no plugin decides who may, \
                 and allow_anonymous is true"
            );
        }
        warn_of_undecided(&name, chain, profile.plugins);
        Ok(profile)
    }

    /// Whether a server would listen here that has these plugins, of which only name and callbacks are known.
    ///
    /// # Errors
    /// As for [`ListenerConfig::profile`].
    pub(crate) fn check_rules(
        &self,
        limits: &Limits,
        allow_anonymous: bool,
        plugins: &[(String, Callbacks)],
    ) -> Result<(), Error> {
        let wrong = |what| Error::Listener { name: self.name(), what };
        self.limits(limits).map_err(wrong)?;
        let named = self.rules.plugins.as_deref().unwrap_or_default();
        if let Some(unknown) = named.iter().find(|named| !plugins.iter().any(|(name, _)| name == *named)) {
            return Err(wrong(not_loaded(unknown, plugins.iter().map(|(name, _)| name.as_str()))));
        }
        let is_asked = |name: &String| self.rules.plugins.as_ref().is_none_or(|named| named.contains(name));
        let decides =
            |callbacks: &Callbacks| [Callback::Connect, Callback::Auth].iter().any(|one| callbacks.contains(*one));
        let somebody_decides = plugins.iter().any(|(name, callbacks)| is_asked(name) && decides(callbacks));
        if self.needs_somebody_who_decides(&self.url, allow_anonymous) && !somebody_decides {
            return Err(Error::NobodyDecides { name: self.name(), url: self.url.clone() });
        }
        Ok(())
    }

    /// Whether a plugin has to decide who may connect: other machines could, also through a proxy on this one.
    fn needs_somebody_who_decides(&self, url: &ListenerUrl, allow_anonymous: bool) -> bool {
        let is_local = url.is_local() && self.proxy_from.is_empty();
        !is_local && !self.rules.allow_anonymous.unwrap_or(allow_anonymous)
    }

    /// The server's bounds with those of the listener in their place.
    fn limits(&self, server: &Limits) -> Result<Limits, String> {
        let mut limits = server.clone();
        for (name, value) in &self.rules.limits {
            let setting = Setting::find(name).filter(|setting| OF_LISTENERS.contains(&setting.name));
            let setting =
                setting.ok_or_else(|| format!("the limit {name} is no bound that a listener has of its own"))?;
            setting.apply(&mut limits, value);
        }
        limits.check().map_err(|error| error.to_string())?;
        if limits.retain_available && !server.retain_available {
            return Err(
                "retain_available is true for it, and false for the server, which retains nothing then".to_owned()
            );
        }
        Ok(limits)
    }

    fn plugins(&self, name: &str, chain: &Chain) -> Result<PluginSet, Error> {
        let Some(names) = &self.rules.plugins else { return Ok(PluginSet::ALL) };
        chain.named(names).map_err(|unknown| {
            let plugins = chain.plugins();
            let what = not_loaded(unknown, plugins.iter().map(|plugin| plugin.name()));
            Error::Listener { name: name.to_owned(), what }
        })
    }
}

fn not_loaded<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    format!("its plugin `{unknown}` is not loaded; those that are: {known}")
}

/// Says what follows from what plugins leave out, as it may not be what their author thought of.
fn warn_of_undecided(listener: &str, chain: &Chain, plugins: PluginSet) {
    for (what, callback) in [("PUBLISH", Callback::Publish), ("SUBSCRIBE", Callback::Subscribe)] {
        if chain.refuses_undecided(callback, plugins) {
            tracing::warn!(
                listener,
                "every {what} is refused: plugins decide who may connect and what else clients may do, and none of them \
                 implements {}. Implement it, or allow everything with --undecided allow",
                callback.name()
            );
        }
    }
}
