//! Topic Names and Topic Filters: their syntax, and which filter matches which name.
//!
//! Levels are compared byte by byte: nothing is normalised [MQTT-4.7.3-4].

/// The most bytes a Topic Name or Topic Filter can have [MQTT-4.7.3-3].
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// The levels of a Topic Name or Topic Filter. Empty levels count: `"/a"` has two.
pub fn levels(topic: &str) -> impl Iterator<Item = &str> {
    topic.split('/')
}

/// True if this can be the Topic Name of a message.
///
/// It has 1 to 65,535 bytes [MQTT-4.7.3-1] [MQTT-4.7.3-3], no U+0000 [MQTT-4.7.3-2] and no
/// wildcard characters [MQTT-4.7.0-1].
pub fn is_valid_name(name: &str) -> bool {
    has_valid_length(name) && !name.bytes().any(|byte| matches!(byte, 0 | b'+' | b'#'))
}

/// True if this can be a Topic Filter (for a Shared Subscription: the filter after the share name).
///
/// It has 1 to 65,535 bytes [MQTT-4.7.3-1] [MQTT-4.7.3-3] and no U+0000 [MQTT-4.7.3-2]; `#` is
/// alone in the last level [MQTT-4.7.1-1], and `+` is alone in its level [MQTT-4.7.1-2].
pub fn is_valid_filter(filter: &str) -> bool {
    if !has_valid_length(filter) || filter.bytes().any(|byte| byte == 0) {
        return false;
    }
    let mut rest = levels(filter).peekable();
    while let Some(level) = rest.next() {
        let valid = match level {
            "#" => rest.peek().is_none(),
            "+" => true,
            _ => !level.bytes().any(|byte| matches!(byte, b'+' | b'#')),
        };
        if !valid {
            return false;
        }
    }
    true
}

/// True if the filter matches the Topic Name. Both are assumed to be valid.
///
/// `#` also matches the level above it, and a filter that starts with a wildcard does not match a
/// name that starts with `$` [MQTT-4.7.2-1].
///
/// ```
/// use plugin_api::topic;
/// assert!(topic::matches("sport/+/player/#", "sport/tennis/player"));
/// assert!(!topic::matches("#", "$SYS/uptime"));
/// ```
pub fn matches(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut name_levels = levels(name);
    for filter_level in levels(filter) {
        if filter_level == "#" {
            return true;
        }
        match name_levels.next() {
            Some(name_level) if filter_level == "+" || filter_level == name_level => {}
            _ => return false,
        }
    }
    name_levels.next().is_none()
}

/// What [`split_share`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Share<'a> {
    /// An ordinary Topic Filter.
    None,
    /// It starts like a Shared Subscription, but its share name or its filter is missing or not
    /// allowed. It is to be refused with [`TOPIC_FILTER_INVALID`].
    ///
    /// [`TOPIC_FILTER_INVALID`]: crate::ReasonCode::TOPIC_FILTER_INVALID
    Malformed,
    /// A Shared Subscription.
    Group {
        /// The name that its members have in common; not empty, without `/`, `+` and `#`.
        share_name: &'a str,
        /// The Topic Filter; not empty. Its wildcards are not checked: see [`is_valid_filter`].
        filter: &'a str,
    },
}

/// Takes `$share/{ShareName}/{filter}` apart [MQTT-4.8.2-1] [MQTT-4.8.2-2].
///
/// ```
/// use plugin_api::topic::{Share, split_share};
/// let share = split_share("$share/workers/jobs/#");
/// assert_eq!(share, Share::Group { share_name: "workers", filter: "jobs/#" });
/// ```
pub fn split_share(filter: &str) -> Share<'_> {
    let Some(rest) = filter.strip_prefix("$share") else {
        return Share::None;
    };
    let Some(rest) = rest.strip_prefix('/') else {
        // "$share" alone names no group, while "$shared/x" is an ordinary filter.
        return if rest.is_empty() {
            Share::Malformed
        } else {
            Share::None
        };
    };
    match rest.split_once('/') {
        Some((share_name, filter))
            if !share_name.is_empty() && !share_name.contains(['+', '#']) && !filter.is_empty() =>
        {
            Share::Group { share_name, filter }
        }
        _ => Share::Malformed,
    }
}

fn has_valid_length(topic: &str) -> bool {
    (1..=TOPIC_BYTES_MAX).contains(&topic.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let longest = "a".repeat(TOPIC_BYTES_MAX);
        let too_long = "a".repeat(TOPIC_BYTES_MAX + 1);
        for (name, valid) in [
            ("a", true),
            ("/", true),
            ("a//b", true),
            ("$SYS/x", true),
            ("\u{FEFF}ü", true),
            (longest.as_str(), true),
            (too_long.as_str(), false), // [MQTT-4.7.3-3]
            ("", false),                // [MQTT-4.7.3-1]
            ("a\0", false),             // [MQTT-4.7.3-2]
            ("a/+", false),             // [MQTT-4.7.0-1]
            ("a#", false),              // [MQTT-4.7.0-1]
        ] {
            assert_eq!(is_valid_name(name), valid, "{name:.20}");
        }
    }

    #[test]
    fn filters() {
        for (filter, valid) in [
            ("#", true),
            ("+", true),
            ("+/#", true),
            ("a/+/b/#", true),
            ("/", true),
            ("/+", true),
            ("", false),      // [MQTT-4.7.3-1]
            ("a\0b", false),  // [MQTT-4.7.3-2]
            ("#/a", false),   // [MQTT-4.7.1-1]
            ("a/#/b", false), // [MQTT-4.7.1-1]
            ("a#", false),    // [MQTT-4.7.1-1]
            ("a/b#", false),  // [MQTT-4.7.1-1]
            ("##", false),    // [MQTT-4.7.1-1]
            ("a+", false),    // [MQTT-4.7.1-2]
            ("+a/b", false),  // [MQTT-4.7.1-2]
            ("a/++", false),  // [MQTT-4.7.1-2]
        ] {
            assert_eq!(is_valid_filter(filter), valid, "{filter}");
        }
    }

    #[test]
    fn matching() {
        for (filter, name, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/B", false),
            ("a", "a/", false),
            ("a/", "a", false),
            ("a/b", "a", false),
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("sport/#", "sport", true),
            ("sport/#", "sports", false),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "a/b/c", true),
            ("#", "/", true),
            ("+/#", "a", true),
            ("#", "$SYS", false), // [MQTT-4.7.2-1]
            ("+/monitor/Clients", "$SYS/monitor/Clients", false), // [MQTT-4.7.2-1]
            ("$SYS/#", "$SYS/monitor", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a/#", "a/$b", true),
        ] {
            assert_eq!(matches(filter, name), expected, "{filter} and {name}");
        }
    }

    #[test]
    fn shares() {
        for (filter, expected) in [
            (
                "$share/g/a/b",
                Share::Group {
                    share_name: "g",
                    filter: "a/b",
                },
            ),
            (
                "$share/g//a",
                Share::Group {
                    share_name: "g",
                    filter: "/a",
                },
            ),
            (
                "$share/g/#",
                Share::Group {
                    share_name: "g",
                    filter: "#",
                },
            ),
            ("$share", Share::Malformed),
            ("$share/", Share::Malformed),
            ("$share/g", Share::Malformed),
            ("$share/g/", Share::Malformed),
            ("$share//a", Share::Malformed),
            ("$share/g+/a", Share::Malformed), // [MQTT-4.8.2-2]
            ("$share/#/a", Share::Malformed),  // [MQTT-4.8.2-2]
            ("$shared/g/a", Share::None),
            ("$SHARE/g/a", Share::None),
            ("a/$share/b", Share::None),
        ] {
            assert_eq!(split_share(filter), expected, "{filter}");
        }
    }
}
