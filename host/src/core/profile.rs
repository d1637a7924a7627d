//! What a listener is to the core: which bounds its connections have, who decides about them, and which part of the topics
//! they see.

use std::rc::Rc;
use std::sync::Arc;

use super::admission::Gate;
use super::mount::Mount;
use super::peer::{ClientCertificate, NameKind};
use crate::limits::Limits;
use crate::plugin::PluginSet;

/// What all connections of one listener have in common. It does not change: a listener that is configured anew gets
/// another one, which holds for the connections that come then.
#[derive(Debug, Clone)]
pub struct ListenerProfile {
    /// As handlers, lists and the log are told it.
    pub name: Box<str>,
    /// Bounds: the server's, with the listener's own in their place. Those of [`OF_LISTENERS`] hold for its connections; for
    /// all others the server's count, whatever stands here.
    pub limits: Limits,
    /// The plugins of the chain that decide about its connections, in the order of the chain.
    pub plugins: PluginSet,
    /// The part of the topics that its clients see.
    pub mount: Option<Mount>,
    /// Accept clients from other machines when no plugin has an opinion about them.
    pub allow_anonymous: bool,
    /// Pages in a browser whose origin has been let in may be those of other machines, also where no plugin has an opinion.
    pub origins_are_named: bool,
    /// Its connections come through a proxy, which may speak for others or for itself: none of them is taken for one of this
    /// machine, whatever its address.
    pub has_proxy: bool,
    /// Its connections have nothing between their sockets and MQTT, so that they can go over to another process.
    pub goes_over: bool,
    /// What of the client's certificate takes the place of its User Name.
    pub username_from: Option<UsernameFrom>,
    /// What has come through it, counted by all workers. A copy of the profile counts on.
    pub(super) gate: Arc<Gate>,
}

/// The bounds that one listener may have others of than the server. `connections_max` and `connect_rate_max` are for what comes through the
/// listener, beside the server's, which are for all.
pub const OF_LISTENERS: [&str; 29] = [
    "connections_max",
    "connections_per_address_max",
    "connect_rate_max",
    "connect_timeout",
    "connect_bytes_max",
    "client_id_bytes_max",
    "keep_alive_secs_min",
    "keep_alive_secs_max",
    "idle_max",
    "server_reference",
    "packet_bytes_max",
    "receive_maximum",
    "topic_alias_max",
    "message_rate_max",
    "byte_rate_max",
    "check_payload_format",
    "rejected_publish",
    "session_expiry_secs_max",
    "persistent_expiry_3x_secs",
    "subscriptions_max",
    "filters_a_packet_max",
    "filter_levels_a_packet_max",
    "in_flight_max",
    "maximum_qos",
    "retain_available",
    "wildcard_subscriptions_available",
    "subscription_identifiers_available",
    "shared_subscriptions_available",
    "outbound_topic_aliases_max",
];

/// What of a client's certificate is its User Name. Who has not shown one, or one without such a name, is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsernameFrom {
    /// The first common name of the subject.
    CommonName,
    /// The subject, as text by RFC 4514.
    Subject,
    /// The first subject alternative name of this kind.
    AlternativeName(NameKind),
}

impl ListenerProfile {
    /// A listener with these bounds, and with the default for all else.
    #[must_use]
    pub fn new(name: impl Into<Box<str>>, limits: Limits) -> Self {
        Self {
            name: name.into(),
            limits,
            plugins: PluginSet::ALL,
            mount: None,
            allow_anonymous: false,
            origins_are_named: false,
            has_proxy: false,
            goes_over: true,
            username_from: None,
            gate: Arc::default(),
        }
    }

    /// It takes the place of another one: what has come through that one counts for its bounds.
    pub(crate) fn count_on(&mut self, before: &Self) {
        self.gate = Arc::clone(&before.gate);
    }
}

impl UsernameFrom {
    /// The User Name, if the certificate has one that could be in a CONNECT.
    #[must_use]
    pub fn find(self, certificate: &ClientCertificate) -> Option<&str> {
        let name = match self {
            Self::CommonName => certificate.common_name.as_deref(),
            Self::Subject => Some(&*certificate.subject),
            Self::AlternativeName(kind) => {
                certificate.alternative_names.iter().find(|name| name.kind == kind).map(|name| &*name.name)
            }
        };
        // [MQTT-1.5.4-2] Handlers may count on it that there is no U+0000 in a User Name.
        name.filter(|name| !name.is_empty() && name.len() <= usize::from(u16::MAX) && !name.contains('\0'))
    }
}

/// A listener as one worker's connections share it: nothing here is written by another worker, so that what is looked at for
/// each message stays in the processor's cache.
pub(super) struct Listener {
    pub(super) profile: Arc<ListenerProfile>,
    pub(super) limits: Limits,
    /// Whether PUBLISH packets are looked at for more than the protocol's own rules.
    pub(super) checks_publish: bool,
}

/// The listeners that a worker's connections have come from.
#[derive(Default)]
pub(super) struct Listeners {
    known: Vec<Rc<Listener>>,
}

impl Listeners {
    /// The one of a profile. Those that no connection has any more are forgotten with the next new one.
    pub(super) fn of(&mut self, profile: &Arc<ListenerProfile>) -> Rc<Listener> {
        if let Some(known) = self.known.iter().find(|known| Arc::ptr_eq(&known.profile, profile)) {
            return Rc::clone(known);
        }
        self.known.retain(|known| Rc::strong_count(known) > 1);
        let limits = profile.limits.clone();
        let checks_publish = limits.has_client_rates() || limits.check_payload_format || !limits.retain_available;
        let known = Rc::new(Listener { profile: Arc::clone(profile), limits, checks_publish });
        self.known.push(Rc::clone(&known));
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Setting;

    #[test]
    fn bounds_of_listeners_are_bounds() {
        for name in OF_LISTENERS {
            assert!(Setting::find(name).is_some(), "{name}");
        }
    }
}
