//! What the rules come to for one client.

use std::sync::Arc;

use plugin_api::topic;

use crate::config::{Action, Effect, Rule, Subject, User};
use crate::pattern::{Pattern, is_plain};
use crate::policy::Refusal;

/// The rules about one user.
pub(crate) enum Grant {
    /// The same for every client of the user.
    Fixed(Arc<Permissions>),
    /// With the Client Identifier in them.
    PerClient(Vec<Entry>),
}

pub(crate) struct Entry {
    effect: Effect,
    action: Action,
    pattern: Pattern,
}

impl Grant {
    /// The rules about `user`, `None` for anonymous clients. Of the latter, those with `%u` do not speak.
    pub(crate) fn new(rules: &[Rule], user: Option<&User>) -> Self {
        let mut entries = Vec::new();
        for rule in rules {
            let is_about = match user {
                Some(user) => rule.is_about(user),
                None => rule.subject == Subject::Anyone,
            };
            for topic in rule.topics.iter().filter(|_| is_about) {
                let pattern = match user {
                    Some(user) => topic.with_user(&user.username),
                    None if topic.has_user() => continue,
                    None => topic.clone(),
                };
                entries.extend(rule.actions.iter().map(|&action| Entry {
                    effect: rule.effect,
                    action,
                    pattern: pattern.clone(),
                }));
            }
        }
        if entries.iter().any(|entry| entry.pattern.has_client()) {
            Self::PerClient(entries)
        } else {
            Self::Fixed(Arc::new(Permissions::new(&entries, "")))
        }
    }

    pub(crate) fn permissions(&self, client_id: &str) -> Result<Arc<Permissions>, Refusal> {
        match self {
            Self::Fixed(permissions) => Ok(Arc::clone(permissions)),
            Self::PerClient(entries) if is_plain(client_id) => Ok(Arc::new(Permissions::new(entries, client_id))),
            // Leaving the rule out would be right for one that allows, and wrong for one that denies.
            Self::PerClient(_) => Err(Refusal::ClientIdentifier),
        }
    }
}

/// What one client may do. Without a rule that allows it, nothing; and a rule that denies wins, wherever it stands.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    publish: Access,
    subscribe: Access,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Access {
    allow: Vec<Box<str>>,
    deny: Vec<Box<str>>,
}

impl Permissions {
    fn new(entries: &[Entry], client_id: &str) -> Self {
        let mut permissions = Self::default();
        for entry in entries {
            let access = match entry.action {
                Action::Publish => &mut permissions.publish,
                Action::Subscribe => &mut permissions.subscribe,
            };
            let filters = match entry.effect {
                Effect::Allow => &mut access.allow,
                Effect::Deny => &mut access.deny,
            };
            filters.push(entry.pattern.with_client(client_id).into());
        }
        permissions
    }

    /// Whether a message may be published under this Topic Name.
    #[must_use]
    pub fn may_publish(&self, topic: &str) -> bool {
        let Access { allow, deny } = &self.publish;
        let matches = |filter: &str| topic::matches(filter, topic);
        any(allow, matches) && !any(deny, matches)
    }

    /// Whether this Topic Filter (of a Shared Subscription, the one after the share name) may be subscribed to: one
    /// filter that is allowed has to cover all of it, and no filter that is denied may overlap with it.
    #[must_use]
    pub fn may_subscribe(&self, requested: &str) -> bool {
        let Access { allow, deny } = &self.subscribe;
        any(allow, |filter| topic::covers(filter, requested)) && !any(deny, |filter| topic::overlaps(filter, requested))
    }
}

fn any(filters: &[Box<str>], holds: impl Fn(&str) -> bool) -> bool {
    filters.iter().any(|filter| holds(filter))
}
