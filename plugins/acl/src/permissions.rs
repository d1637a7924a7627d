//! What the rules come to for one user.

use std::sync::Arc;

use plugin_support::pattern::{Pattern, is_plain};
use plugin_support::permissions::{Permissions, Tier};

use crate::config::{Action, Effect, Rule, Settings, Subject, User};
use crate::policy::Refusal;

/// The rules about one user.
pub(crate) enum Grant {
    /// The same for every client of the user.
    Fixed(Arc<Permissions>),
    /// With the Client Identifier in them. Of several tiers the first one that says something counts.
    PerClient(Vec<Vec<Entry>>),
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    effect: Effect,
    action: Action,
    pattern: Pattern,
}

impl Grant {
    /// The rules about `user`, `None` for anonymous clients. Of the latter, those with `%u` do not speak.
    ///
    /// What Mosquitto's file says comes behind the configuration's own rules, and there the topics of a user before the
    /// patterns.
    pub(crate) fn new(settings: &Settings, user: Option<&User>) -> Self {
        let mut tiers = vec![Vec::new()];
        let is_about = |rule: &&Rule| match user {
            Some(user) => rule.is_about(user),
            None => rule.subject == Subject::Anyone,
        };
        for rule in settings.rules.iter().filter(is_about) {
            add(&mut tiers[0], rule.effect, &rule.actions, &rule.topics, user);
        }
        if let Some(file) = &settings.acl_file {
            for lines in file.about(user.map(|user| user.username.as_str())) {
                let mut tier = Vec::new();
                for line in lines {
                    add(&mut tier, line.effect, line.actions, std::slice::from_ref(&line.pattern), user);
                }
                tiers.push(tier);
            }
        }
        if tiers.iter().flatten().any(|entry| entry.pattern.has_client()) {
            Self::PerClient(tiers)
        } else {
            Self::Fixed(Arc::new(permissions(&tiers, "")))
        }
    }

    pub(crate) fn permissions(&self, client_id: &str) -> Result<Arc<Permissions>, Refusal> {
        match self {
            Self::Fixed(permissions) => Ok(Arc::clone(permissions)),
            Self::PerClient(tiers) if is_plain(client_id) => Ok(Arc::new(permissions(tiers, client_id))),
            // Leaving the rule out would be right for one that allows, and wrong for one that denies.
            Self::PerClient(_) => Err(Refusal::ClientIdentifier),
        }
    }
}

fn add(to: &mut Vec<Entry>, effect: Effect, actions: &[Action], topics: &[Pattern], user: Option<&User>) {
    for topic in topics {
        let pattern = match user {
            Some(user) => topic.with_user(&user.username),
            None if topic.has_user() => continue,
            None => topic.clone(),
        };
        to.extend(actions.iter().map(|&action| Entry { effect, action, pattern: pattern.clone() }));
    }
}

fn permissions(tiers: &[Vec<Entry>], client_id: &str) -> Permissions {
    Permissions::new(tiers.iter().map(|entries| {
        let mut tier = Tier::default();
        for entry in entries {
            let access = match entry.action {
                Action::Publish => &mut tier.publish,
                Action::Subscribe => &mut tier.subscribe,
            };
            let filters = match entry.effect {
                Effect::Allow => &mut access.allow,
                Effect::Deny => &mut access.deny,
            };
            filters.push(entry.pattern.with_client(client_id).into());
        }
        tier
    }))
}
