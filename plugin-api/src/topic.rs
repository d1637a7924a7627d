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
    let bytes = filter.as_bytes();
    // One look at each byte: a wildcard has a level of its own, and `#` the last one.
    let is_fine = |at: usize| {
        let begins_level = at == 0 || bytes[at - 1] == b'/';
        match (bytes[at], bytes.get(at + 1)) {
            (0, _) => false,
            (b'+', behind) => begins_level && matches!(behind, None | Some(b'/')),
            (b'#', behind) => begins_level && behind.is_none(),
            _ => true,
        }
    };
    has_valid_length(filter) && (0..bytes.len()).all(is_fine)
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

/// True if `filter` matches every Topic Name that `narrower` matches. Both are valid Topic Filters.
///
/// A rule that allows to subscribe to `filter` allows to subscribe to whatever it covers: that the
/// text of `narrower` matches as if it were a name is not enough, as `a/+` does not cover `a/#`.
///
/// ```
/// use plugin_api::topic;
/// assert!(topic::covers("plant/#", "plant/+/alarm"));
/// assert!(!topic::covers("plant/+", "plant/#"));
/// ```
pub fn covers(filter: &str, narrower: &str) -> bool {
    // [MQTT-4.7.2-1] names that start with `$` are matched by filters that spell them out.
    if narrower.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    // Every name has a first level: at the start, and only there, `+/#` is as wide as `#`.
    if (filter, narrower) == ("+/#", "#") {
        return true;
    }
    let mut narrower_levels = levels(narrower);
    for level in levels(filter) {
        if level == "#" {
            return true;
        }
        match narrower_levels.next() {
            Some("#") | None => return false,
            Some(narrower_level) if level == "+" || level == narrower_level => {}
            Some(_) => return false,
        }
    }
    narrower_levels.next().is_none()
}

/// True if there is a Topic Name that both filters match. Both are valid Topic Filters.
///
/// A rule that denies a filter has to deny a subscription to each filter that overlaps with it.
///
/// ```
/// use plugin_api::topic;
/// assert!(topic::overlaps("plant/+/alarm", "plant/7/#"));
/// assert!(!topic::overlaps("plant/+/alarm", "plant/7"));
/// ```
pub fn overlaps(filter: &str, other: &str) -> bool {
    let is_wild = |filter: &str| filter.starts_with(['+', '#']);
    // [MQTT-4.7.2-1] as above, whichever of them has the wildcard.
    if is_wild(filter) && other.starts_with('$') || filter.starts_with('$') && is_wild(other) {
        return false;
    }
    let (mut filter_levels, mut other_levels) = (levels(filter), levels(other));
    loop {
        match (filter_levels.next(), other_levels.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(level), Some(other)) if level == other || level == "+" || other == "+" => {}
            _ => return false,
        }
    }
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
        return if rest.is_empty() { Share::Malformed } else { Share::None };
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
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
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
            ("#", "$SYS", false),                                 // [MQTT-4.7.2-1]
            ("+/monitor/Clients", "$SYS/monitor/Clients", false), // [MQTT-4.7.2-1]
            ("$SYS/#", "$SYS/monitor", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a/#", "a/$b", true),
        ] {
            assert_eq!(matches(filter, name), expected, "{filter} and {name}");
        }
    }

    /// Every list of up to three of these levels, joined.
    fn all_of(of: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = of.iter().map(|level| (*level).to_owned()).collect();
        let mut longest = all.clone();
        // Miri would take minutes for three.
        for _ in 0..if cfg!(miri) { 1 } else { 2 } {
            longest = longest.iter().flat_map(|start| of.iter().map(move |level| format!("{start}/{level}"))).collect();
            all.extend_from_slice(&longest);
        }
        all
    }

    /// Against the definition: all filters of up to three levels, and names of up to four, which is
    /// one more than it takes to tell such filters apart. (The empty name, which no message has,
    /// counts: so `+` and `/#` overlap. It would take a rule of its own to say that they do not.)
    #[test]
    fn covering_and_overlapping_are_what_matching_says() {
        let filters: Vec<String> =
            all_of(&["a", "", "$s", "+", "#"]).into_iter().filter(|filter| is_valid_filter(filter)).collect();
        // `z` stands for every level that no filter spells out.
        let names = all_of(&["a", "", "$s", "z"]);
        let names: Vec<String> =
            names.iter().chain(&names.iter().map(|name| format!("{name}/z")).collect::<Vec<_>>()).cloned().collect();
        let matched: Vec<Vec<bool>> =
            filters.iter().map(|filter| names.iter().map(|name| matches(filter, name)).collect()).collect();
        for (filter, wide) in filters.iter().zip(&matched) {
            for (other, narrow) in filters.iter().zip(&matched) {
                let both = || wide.iter().zip(narrow);
                let expected = both().all(|(wide, narrow)| *wide || !*narrow);
                assert_eq!(covers(filter, other), expected, "{filter} covers {other}");
                let expected = both().any(|(wide, narrow)| *wide && *narrow);
                assert_eq!(overlaps(filter, other), expected, "{filter} overlaps {other}");
            }
        }
    }

    /// [MQTT-4.8.2-1]
    #[test]
    fn shares() {
        for (filter, expected) in [
            ("$share/g/a/b", Share::Group { share_name: "g", filter: "a/b" }),
            ("$share/g//a", Share::Group { share_name: "g", filter: "/a" }),
            ("$share/g/#", Share::Group { share_name: "g", filter: "#" }),
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
