//! What a client may publish and subscribe to, with names filled in.

use plugin_api::topic;
use serde::{Deserialize, Serialize};

/// What one client may do. Without a rule that allows it, nothing.
///
/// Rules stand in tiers, of which the first one that says something counts; within a tier, what is denied is denied, wherever
/// that stands.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    tiers: Vec<Tier>,
}

/// Rules of one rank.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    /// About publishing.
    pub publish: Access,
    /// About subscribing.
    pub subscribe: Access,
}

/// Topic Filters that are allowed, and that are denied.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// What may be done.
    pub allow: Vec<Box<str>>,
    /// What may not.
    pub deny: Vec<Box<str>>,
}

impl Permissions {
    /// Permissions by these tiers, the first one first. Those without a rule are left out.
    #[must_use]
    pub fn new(tiers: impl IntoIterator<Item = Tier>) -> Self {
        let is_empty = |access: &Access| access.allow.is_empty() && access.deny.is_empty();
        let says_something = |tier: &Tier| !is_empty(&tier.publish) || !is_empty(&tier.subscribe);
        Self { tiers: tiers.into_iter().filter(says_something).collect() }
    }

    /// Whether a message may be published under this Topic Name.
    #[must_use]
    pub fn may_publish(&self, topic: &str) -> bool {
        let matches = |filter: &str| topic::matches(filter, topic);
        self.first(|tier| tier.publish.says(matches, matches))
    }

    /// Whether this Topic Filter (of a Shared Subscription, the one after the share name) may be subscribed to: one
    /// filter that is allowed has to cover all of it, and no filter that is denied may overlap with it.
    #[must_use]
    pub fn may_subscribe(&self, requested: &str) -> bool {
        let covers = |filter: &str| topic::covers(filter, requested);
        let overlaps = |filter: &str| topic::overlaps(filter, requested);
        self.first(|tier| tier.subscribe.says(covers, overlaps))
    }

    fn first(&self, says: impl Fn(&Tier) -> Option<bool>) -> bool {
        self.tiers.iter().find_map(says).unwrap_or(false)
    }
}

impl Access {
    fn says(&self, allows: impl Fn(&str) -> bool, denies: impl Fn(&str) -> bool) -> Option<bool> {
        if self.deny.iter().any(|filter| denies(filter)) {
            return Some(false);
        }
        self.allow.iter().any(|filter| allows(filter)).then_some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(allow: &[&str], deny: &[&str]) -> Tier {
        let boxed = |filters: &[&str]| filters.iter().map(|&filter| filter.into()).collect();
        let access = Access { allow: boxed(allow), deny: boxed(deny) };
        Tier { publish: access.clone(), subscribe: access }
    }

    #[test]
    fn the_first_tier_that_says_something_counts() {
        let permissions =
            Permissions::new([tier(&["a/b"], &["x/#"]), Tier::default(), tier(&["a/#", "x/#", "c"], &["a/b", "c"])]);
        for (topic, expected) in [("a/b", true), ("a/c", true), ("x/y", false), ("c", false), ("d", false)] {
            assert_eq!(permissions.may_publish(topic), expected, "{topic}");
            assert_eq!(permissions.may_subscribe(topic), expected, "{topic}");
        }
        // `a/+` is not all allowed by the first tier, and the second one denies a part of it.
        assert!(!permissions.may_subscribe("a/+") && !permissions.may_subscribe("+/y"));
        assert!(!Permissions::default().may_publish("a"));
    }
}
