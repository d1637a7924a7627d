//! Topic Filters, searched by Topic Name.

use super::arena::{Arena, ROOT};

/// What a Topic Filter leads to; a filter whose value is vacant is not in the trie.
pub(super) trait Value: Default {
    fn is_vacant(&self) -> bool;
}

/// A value for each Topic Filter.
///
/// To add: [`insert`](Self::insert), then fill [`value_mut`](Self::value_mut). To remove: [`find`](Self::find), empty
/// the value, then [`prune`](Self::prune).
pub(super) struct Trie<V> {
    arena: Arena<Place<V>>,
}

#[derive(Default)]
struct Place<V> {
    value: V,
    /// The child `+`, or [`ROOT`] for none: it is on the path of every topic, so that it is not looked up.
    plus: u32,
    /// The child `#`, or [`ROOT`] for none.
    hash: u32,
}

impl<V: Value> Trie<V> {
    pub(super) fn new() -> Self {
        Self { arena: Arena::new() }
    }

    /// The place of `filter`, which must be a valid Topic Filter; made if it is new.
    pub(super) fn insert(&mut self, filter: &str) -> u32 {
        levels(filter).fold(ROOT, |parent, level| {
            let (child, is_new) = self.arena.child_or_new(parent, level);
            match level {
                "+" if is_new => self.arena.get_mut(parent).plus = child,
                "#" if is_new => self.arena.get_mut(parent).hash = child,
                _ => {}
            }
            child
        })
    }

    /// The place of `filter` itself (nothing is matched).
    pub(super) fn find(&self, filter: &str) -> Option<u32> {
        levels(filter).try_fold(ROOT, |parent, level| self.arena.child(parent, level))
    }

    pub(super) fn value_mut(&mut self, place: u32) -> &mut V {
        &mut self.arena.get_mut(place).value
    }

    /// Removes `place` if it is vacant and nothing is below it, and then its parents likewise.
    pub(super) fn prune(&mut self, mut place: u32) {
        while place != ROOT && !self.arena.has_children(place) && self.arena.get(place).value.is_vacant() {
            let parent = self.arena.parent(place);
            match self.arena.level(place) {
                b"+" => self.arena.get_mut(parent).plus = ROOT,
                b"#" => self.arena.get_mut(parent).hash = ROOT,
                _ => {}
            }
            self.arena.remove(place);
            place = parent;
        }
    }

    /// Calls `visit` with the value of each filter that matches `topic`; some of them may be vacant. Returns how many
    /// places were searched.
    pub(super) fn for_each_match<'a>(&'a self, topic: &str, mut visit: impl FnMut(&'a V)) -> usize {
        let is_system = topic.starts_with('$');
        // Other paths to search. Empty, and thus without an allocation, until two children match one level.
        let mut branches: Vec<(u32, Option<&str>)> = Vec::new();
        let mut next = Some((ROOT, Some(topic)));
        let mut searched = 0;
        while let Some((place, rest)) = next.or_else(|| branches.pop()) {
            searched += 1;
            let here = self.arena.get(place);
            // [MQTT-4.7.2-1] a filter that starts with a wildcard does not match a topic that starts with `$`.
            let with_wildcards = !(is_system && place == ROOT);
            // Here `rest` may be empty: `a/#` matches `a` as well.
            if with_wildcards && here.hash != ROOT {
                visit(&self.arena.get(here.hash).value);
            }
            let Some(rest) = rest else {
                visit(&here.value);
                next = None;
                continue;
            };
            let (level, rest) = split_level(rest);
            let plus = (with_wildcards && here.plus != ROOT).then_some((here.plus, rest));
            next = match self.arena.child(place, level) {
                Some(child) => {
                    branches.extend(plus);
                    Some((child, rest))
                }
                None => plus,
            };
        }
        searched
    }

    /// Nodes in use.
    pub(super) fn len(&self) -> usize {
        self.arena.len()
    }

    /// Nodes in use and nodes allocated.
    #[cfg(any(test, fuzzing))]
    pub(super) fn nodes(&self) -> (usize, usize) {
        (self.arena.len(), self.arena.allocated())
    }
}

/// All levels. They are short: a search that is made for long texts costs more than the look at each byte.
#[inline]
pub(super) fn levels(topic: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(topic);
    std::iter::from_fn(move || {
        let (level, behind) = split_level(rest?);
        rest = behind;
        Some(level)
    })
}

/// The first level, and the rest if there is any; an empty rest is one more (empty) level.
#[inline]
pub(super) fn split_level(topic: &str) -> (&str, Option<&str>) {
    match topic.bytes().position(|byte| byte == b'/') {
        Some(end) => (&topic[..end], Some(&topic[end + 1..])),
        None => (topic, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Value for Vec<String> {
        fn is_vacant(&self) -> bool {
            self.is_empty()
        }
    }

    fn matches(trie: &Trie<Vec<String>>, topic: &str) -> Vec<String> {
        let mut found = Vec::new();
        trie.for_each_match(topic, |filters| found.extend_from_slice(filters));
        found.sort();
        found
    }

    #[test]
    fn examples_of_the_specification() {
        let mut trie: Trie<Vec<String>> = Trie::new();
        for filter in [
            "sport/tennis/player1/#",
            "sport/#",
            "#",
            "sport/tennis/+",
            "sport/+",
            "+",
            "+/+",
            "/+",
            "/",
            "+/tennis/#",
            "$SYS/#",
            "$SYS/monitor/+",
            "+/monitor/Clients",
            "a//b",
        ] {
            let place = trie.insert(filter);
            trie.value_mut(place).push(filter.to_owned());
        }
        let check = |topic: &str, expected: &[&str]| {
            let mut expected: Vec<String> = expected.iter().map(|&f| f.to_owned()).collect();
            expected.sort();
            assert_eq!(matches(&trie, topic), expected, "{topic}");
        };
        check("sport/tennis/player1", &["#", "+/tennis/#", "sport/#", "sport/tennis/+", "sport/tennis/player1/#"]);
        check("sport/tennis/player1/ranking", &["#", "+/tennis/#", "sport/#", "sport/tennis/player1/#"]);
        check("sport", &["#", "+", "sport/#"]);
        check("sport/", &["#", "+/+", "sport/#", "sport/+"]);
        check("/finance", &["#", "+/+", "/+"]);
        check("/", &["#", "+/+", "/", "/+"]);
        check("a//b", &["#", "a//b"]);
        // [MQTT-4.7.2-1]
        check("$SYS/monitor/Clients", &["$SYS/#", "$SYS/monitor/+"]);
        check("$SYS", &["$SYS/#"]);
        check("$other", &[]);
        // [MQTT-4.7.3-4] nothing is normalised
        check("Sport", &["#", "+"]);
    }

    #[test]
    fn a_pruned_filter_leaves_nothing_behind_and_the_others_alone() {
        let mut trie: Trie<Vec<String>> = Trie::new();
        for filter in ["a/+/c", "a/+", "a/#", "a"] {
            let place = trie.insert(filter);
            trie.value_mut(place).push(filter.to_owned());
        }
        for (filter, left) in [
            ("a", vec!["a/#", "a/+", "a/+/c"]),
            ("a/+", vec!["a/#", "a/+/c"]),
            ("a/#", vec!["a/+/c"]),
            ("a/+/c", vec![]),
        ] {
            let place = trie.find(filter).expect("it was inserted");
            trie.value_mut(place).clear();
            trie.prune(place);
            let mut found: Vec<String> = ["a", "a/b", "a/b/c"].iter().flat_map(|topic| matches(&trie, topic)).collect();
            found.sort();
            found.dedup();
            assert_eq!(found, left, "after removing {filter}");
        }
        assert_eq!(trie.nodes().0, 0);
        assert_eq!(trie.find("a"), None);
    }

    #[test]
    fn a_topic_of_65535_bytes_and_levels_needs_no_deep_stack() {
        let mut trie: Trie<Vec<String>> = Trie::new();
        let deep = "/".repeat(65_535);
        let place = trie.insert(&deep);
        trie.value_mut(place).push("deep".to_owned());
        let wild = trie.insert(&format!("{}#", "+/".repeat(30_000)));
        trie.value_mut(wild).push("wild".to_owned());
        assert_eq!(matches(&trie, &deep), ["deep", "wild"]);
    }
}
