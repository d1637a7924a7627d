//! Which topics get which names.

use plugin_api::config::ConfigError;
use plugin_api::topic;
use plugin_support::config::each;
use plugin_support::pattern::is_plain;

use crate::template::{Template, captures};

/// The rules, in the order in which they are looked at.
#[derive(Debug)]
pub struct Rules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    from: String,
    to: Template,
    publish: bool,
    subscribe: bool,
}

/// What a rule makes of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renamed {
    /// No rule is about it.
    Not,
    /// Its new name.
    To(String),
    /// A rule is about it, and what comes of it is no topic that clients may have: the Client Identifier or a wildcard stands
    /// where it cannot, or it would begin with `$`.
    Invalid,
}

/// Which topics get other names.
#[plugin_api::config]
pub struct Config {
    /// The first rule about a topic counts, once: what comes of it is not looked up again.
    rules: Vec<RawRule>,
}

#[plugin_api::config]
struct RawRule {
    /// Topic Filter of the topics that get another name, without `$share/…`.
    from: String,
    /// That name: `$1` to `$9` is what the first to ninth wildcard has matched, `%c` the Client Identifier; `$$` and `%%` are
    /// the signs themselves.
    to: String,
    /// What it is about, at least one of both. Left out: both.
    on: Option<Vec<Action>>,
}

#[plugin_api::config]
#[derive(PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Action {
    Publish,
    Subscribe,
}

impl Rules {
    /// Checks the configuration.
    ///
    /// # Errors
    /// Says where the fault is, what was got and what was expected.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        each("rules", config.rules, RawRule::check).map(Self)
    }

    /// The name under which a message is delivered.
    #[must_use]
    pub fn publish(&self, topic: &str, client_id: &str) -> Renamed {
        self.first(topic, client_id, |rule| rule.publish, topic::is_valid_name)
    }

    /// The Topic Filter (without share name) that is subscribed to as well.
    #[must_use]
    pub fn subscribe(&self, filter: &str, client_id: &str) -> Renamed {
        self.first(filter, client_id, |rule| rule.subscribe, topic::is_valid_filter)
    }

    fn first(
        &self,
        topic: &str,
        client_id: &str,
        counts: impl Fn(&Rule) -> bool,
        is_valid: impl Fn(&str) -> bool,
    ) -> Renamed {
        for rule in self.0.iter().filter(|rule| counts(rule)) {
            let Some(captures) = captures(&rule.from, topic) else { continue };
            let name = rule.to.fill(&captures, client_id);
            // A level that a wildcard has matched may begin with `$`, and the server's own topics are nobody's to lead to.
            let is_safe = (is_plain(client_id) || !rule.to.has_client()) && !name.starts_with('$');
            return if is_safe && is_valid(&name) { Renamed::To(name) } else { Renamed::Invalid };
        }
        Renamed::Not
    }
}

impl RawRule {
    fn check(self, path: &str) -> Result<Rule, ConfigError> {
        let Self { from, to, on } = self;
        if !topic::is_valid_filter(&from) || topic::split_share(&from) != topic::Share::None {
            return Err(ConfigError::new(
                format!("{path}.from"),
                format!("got `{from}`, expected a Topic Filter, without `$share/…`"),
            ));
        }
        let wildcards = topic::levels(&from).filter(|level| matches!(*level, "+" | "#")).count();
        let at = format!("{path}.to");
        let template = Template::parse(&to, wildcards).map_err(|problem| ConfigError::new(&at, problem))?;
        // As if each wildcard had matched a level: there must be something left.
        if !topic::is_valid_name(&template.fill(&vec![Some("x"); wildcards], "x")) || to.starts_with("$$") {
            return Err(ConfigError::new(
                at,
                format!("got `{to}`, expected a Topic Name that does not begin with `$`"),
            ));
        }
        let (publish, subscribe) = match on {
            None => (true, true),
            Some(on) => (on.contains(&Action::Publish), on.contains(&Action::Subscribe)),
        };
        if !publish && !subscribe {
            return Err(ConfigError::new(format!("{path}.on"), "expected \"publish\", \"subscribe\", or both"));
        }
        Ok(Rule { from, to: template, publish, subscribe })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Rules, ConfigError> {
        Rules::new(plugin_api::config::read(json)?)
    }

    #[test]
    fn the_first_rule_about_a_topic_counts() {
        let rules = read(
            r#"{"rules": [
                {"from": "a/b", "to": "first", "on": ["publish"]},
                {"from": "a/#", "to": "of-%c/$1"},
                {"from": "x/+", "to": "y-$1"},
                {"from": "tree/+/#", "to": "$1/$2"}]}"#,
        )
        .unwrap_or_else(|error| panic!("{error}"));
        let to = |name: &str| Renamed::To(name.to_owned());
        assert_eq!(rules.publish("a/b", "me"), to("first"));
        assert_eq!(rules.subscribe("a/b", "me"), to("of-me/b"));
        assert_eq!(rules.publish("a/c", "me"), to("of-me/c"));
        assert_eq!(rules.publish("b", "me"), Renamed::Not);
        // Names and wildcards that would change what the rest means.
        for client_id in ["a/b", "+", "#", "", "$SYS"] {
            assert_eq!(rules.publish("a/c", client_id), Renamed::Invalid, "{client_id}");
        }
        assert_eq!(rules.subscribe("x/+", "me"), Renamed::Invalid);
        assert_eq!(rules.subscribe("x/7", "a/b"), to("y-7"));
        // Nobody gets to the server's own topics, or to a shared subscription, in this way.
        assert_eq!(rules.publish("tree/a/$x", "me"), to("a/$x"));
        for topic in ["tree/$SYS/x", "tree/$SYS", "tree/$share/g/x"] {
            assert_eq!(rules.publish(topic, "me"), Renamed::Invalid, "{topic}");
            assert_eq!(rules.subscribe(topic, "me"), Renamed::Invalid, "{topic}");
        }
    }

    #[test]
    fn faults_are_named_with_their_place() {
        for (json, path, problem) in [
            ("{}", ".", "missing field `rules`"),
            (r#"{"rules": [{"from": "a"}]}"#, "rules[0]", "missing field `to`"),
            (r#"{"rules": [{"from": "a/#/b", "to": "b"}]}"#, "rules[0].from", "got `a/#/b`, expected a Topic Filter"),
            (r#"{"rules": [{"from": "$share/g/a", "to": "b"}]}"#, "rules[0].from", "without `$share/…`"),
            (r#"{"rules": [{"from": "a/+", "to": "$2"}]}"#, "rules[0].to", "got `$2`, and `from` has 1"),
            (r#"{"rules": [{"from": "a", "to": ""}]}"#, "rules[0].to", "expected a Topic Name"),
            (r#"{"rules": [{"from": "a", "to": "$$SYS/x"}]}"#, "rules[0].to", "does not begin with `$`"),
            (r#"{"rules": [{"from": "a", "to": "b", "on": []}]}"#, "rules[0].on", "expected \"publish\""),
            (r#"{"rules": [{"from": "a", "to": "b", "on": ["p"]}]}"#, "rules[0].on[0]", "unknown variant `p`"),
        ] {
            let error = read(json).expect_err(json);
            assert_eq!(error.path(), path, "{json}: {error}");
            assert!(error.to_string().contains(problem), "{json}: {error}");
        }
    }
}
