//! The files of Mosquitto: passwords (`mosquitto_passwd`) and who may do what (`acl_file`).

use std::collections::HashMap;

use plugin_api::config::ConfigError;
use plugin_api::topic;
use plugin_support::pattern::Pattern;

use crate::config::{Action, Effect};
use crate::password::Password;

/// The lines of an `acl_file`.
#[derive(Default)]
pub(crate) struct AclFile {
    /// Topics before the first `user` line: of clients without a User Name.
    anonymous: Vec<Line>,
    users: HashMap<String, Vec<Line>>,
    /// Of everybody.
    patterns: Vec<Line>,
}

pub(crate) struct Line {
    pub(crate) effect: Effect,
    pub(crate) actions: &'static [Action],
    pub(crate) pattern: Pattern,
}

impl AclFile {
    /// Reads the text of a file; `place` names a line of it.
    pub(crate) fn parse(text: &str, place: impl Fn(usize) -> String) -> Result<Self, ConfigError> {
        let mut file = Self::default();
        let mut user: Option<String> = None;
        for (number, line) in lines(text) {
            let wrong = |problem: String| ConfigError::new(place(number), problem);
            let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
            let rest = rest.trim();
            match word {
                "user" if rest.is_empty() => {
                    return Err(wrong("got `user` without a name, expected `user NAME`".into()));
                }
                "user" => {
                    file.users.entry(rest.to_owned()).or_default();
                    user = Some(rest.to_owned());
                }
                "topic" => {
                    let line = access(rest, Pattern::literal).map_err(wrong)?;
                    match &user {
                        None => file.anonymous.push(line),
                        Some(user) => file.users.entry(user.clone()).or_default().push(line),
                    }
                }
                "pattern" => file.patterns.push(access(rest, Pattern::lenient).map_err(wrong)?),
                _ => {
                    return Err(wrong(format!(
                        "got `{word}`, expected `user`, `topic`, `pattern` or `#` and a comment"
                    )));
                }
            }
        }
        Ok(file)
    }

    /// What it says about a user, or about anonymous clients: the first part counts before the second one.
    pub(crate) fn about(&self, user: Option<&str>) -> [&[Line]; 2] {
        let own = match user {
            None => Some(&self.anonymous),
            Some(user) => self.users.get(user),
        };
        [own.map_or(&[], Vec::as_slice), &self.patterns]
    }

    /// Whether a User Name is put into Topic Filters.
    pub(crate) fn uses_names(&self) -> bool {
        self.patterns.iter().any(|line| line.pattern.has_user())
    }
}

/// `[read|write|readwrite|deny] TOPIC`; without a word, both.
fn access(text: &str, pattern: fn(&str) -> Pattern) -> Result<Line, String> {
    const BOTH: &[Action] = &[Action::Publish, Action::Subscribe];
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or(("", text));
    let (effect, actions) = match word {
        "" | "readwrite" => (Effect::Allow, BOTH),
        "read" => (Effect::Allow, &BOTH[1..]),
        "write" => (Effect::Allow, &BOTH[..1]),
        "deny" => (Effect::Deny, BOTH),
        _ => return Err(format!("got `{word}`, expected `read`, `write`, `readwrite` or `deny` before the topic")),
    };
    let rest = rest.trim();
    let pattern = pattern(rest);
    if !topic::is_valid_filter(&pattern.with_user("x").with_client("x")) {
        return Err(format!(
            "got `{rest}`, expected a Topic Filter: `+` alone in its level, `#` alone in the last one"
        ));
    }
    Ok(Line { effect, actions, pattern })
}

/// Reads the text of a file of passwords: users with their hashes, in order.
pub(crate) fn passwords(text: &str, place: impl Fn(usize) -> String) -> Result<Vec<(String, Password)>, ConfigError> {
    let read = |(number, line): (usize, &str)| {
        // What stands there is left out: it may be a password.
        let wrong = |problem: &str| ConfigError::new(place(number), problem);
        let (user, hash) = line.split_once(':').ok_or_else(|| wrong("expected `USER:HASH`"))?;
        if user.is_empty() {
            return Err(wrong("got an empty name, expected `USER:HASH`"));
        }
        let password = Password::parse(hash.trim()).map_err(|problem| {
            wrong(&format!("{problem}; expected a hash as `mosquitto_passwd` or `argon2 … -e` writes it"))
        })?;
        Ok((user.to_owned(), password))
    };
    lines(text).map(read).collect()
}

/// The lines with something in them, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: usize) -> String {
        format!("line {line}")
    }

    #[test]
    fn an_acl_file_is_taken_apart() {
        let file = AclFile::parse(
            "# everybody who is nobody\ntopic read $SYS/#\n\nuser ann\ntopic readwrite a/b c/#\n\ttopic deny a/x\n\
             pattern write up/%c\nuser bob\ntopic both\n",
            place,
        )
        .unwrap_or_else(|error| panic!("{error}"));
        let about = |user: Option<&str>| {
            file.about(user).map(|lines| {
                let text =
                    |line: &Line| format!("{:?} {:?} {}", line.effect, line.actions, line.pattern.with_client("C"));
                lines.iter().map(text).collect::<Vec<_>>()
            })
        };
        assert_eq!(about(None), [vec!["Allow [Subscribe] $SYS/#"], vec!["Allow [Publish] up/C"]]);
        assert_eq!(
            about(Some("ann"))[0],
            ["Allow [Publish, Subscribe] a/b c/#", "Deny [Publish, Subscribe] a/x"],
            "a topic may have spaces"
        );
        assert_eq!(about(Some("bob"))[0], ["Allow [Publish, Subscribe] both"]);
        assert!(about(Some("eve"))[0].is_empty() && !file.uses_names());
    }

    #[test]
    fn faults_are_named_with_their_line() {
        for (text, line, problem) in [
            ("user\n", "line 1", "expected `user NAME`"),
            ("#\ntopics a", "line 2", "got `topics`, expected `user`, `topic`, `pattern`"),
            ("topic reed a", "line 1", "got `reed`, expected `read`"),
            ("topic read a/#/b", "line 1", "got `a/#/b`, expected a Topic Filter"),
            ("\n\ntopic", "line 3", "expected a Topic Filter"),
        ] {
            let error = AclFile::parse(text, place).err().expect(text);
            assert_eq!(error.path(), line, "{text}");
            assert!(error.to_string().contains(problem), "{text}: {error}");
        }
        for (text, line, problem) in [
            ("ann", "line 1", "expected `USER:HASH`"),
            (":$7$1$AAAA$AAAA", "line 1", "empty name"),
            ("#\nann:s3cret", "line 2", "mosquitto_passwd"),
        ] {
            let error = passwords(text, place).err().expect(text);
            assert_eq!(error.path(), line, "{text}");
            let error = error.to_string();
            assert!(error.contains(problem) && !error.contains("s3cret"), "{text}: {error}");
        }
    }
}
