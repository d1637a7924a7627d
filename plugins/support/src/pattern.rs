//! Texts with `%u` and `%c`: Topic Filters of rules, and Client Identifiers.

/// A text in which `%u` stands for the User Name, `%c` for the Client Identifier and `%%` for a percent sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    User,
    Client,
}

impl Pattern {
    /// Takes a text apart.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pattern = Self(Vec::new());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            pattern.push_text(before);
            let mut following = after.chars();
            match following.next() {
                Some('u') => pattern.0.push(Part::User),
                Some('c') => pattern.0.push(Part::Client),
                Some('%') => pattern.push_text("%"),
                other => {
                    let got = other.map_or("at the end".into(), |other| format!("`%{other}`"));
                    return Err(format!(
                        "got {got}, expected `%u` (User Name), `%c` (Client Identifier) or `%%` (a percent sign)"
                    ));
                }
            }
            rest = following.as_str();
        }
        pattern.push_text(rest);
        Ok(pattern)
    }

    /// A text in which nothing is replaced.
    #[must_use]
    pub fn literal(text: &str) -> Self {
        let mut pattern = Self(Vec::new());
        pattern.push_text(text);
        pattern
    }

    /// Takes a text apart as Mosquitto does: `%u` and `%c` are replaced, and any other percent sign is one.
    #[must_use]
    pub fn lenient(text: &str) -> Self {
        let mut pattern = Self(Vec::new());
        let mut rest = text;
        while let Some(at) = rest.find("%u").into_iter().chain(rest.find("%c")).min() {
            pattern.push_text(&rest[..at]);
            pattern.0.push(if rest[at..].starts_with("%u") { Part::User } else { Part::Client });
            rest = &rest[at + 2..];
        }
        pattern.push_text(rest);
        pattern
    }

    /// Whether `%u` occurs.
    #[must_use]
    pub fn has_user(&self) -> bool {
        self.0.contains(&Part::User)
    }

    /// Whether `%c` occurs.
    #[must_use]
    pub fn has_client(&self) -> bool {
        self.0.contains(&Part::Client)
    }

    /// The pattern with the User Name filled in.
    #[must_use]
    pub fn with_user(&self, user: &str) -> Self {
        let mut filled = Self(Vec::new());
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push_text(text),
                Part::User => filled.push_text(user),
                Part::Client => filled.0.push(Part::Client),
            }
        }
        filled
    }

    /// The text with the Client Identifier filled in. The User Name has to be there already, or not to occur.
    #[must_use]
    pub fn with_client(&self, client_id: &str) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::User => "%u".into(),
            Part::Client => client_id.into(),
        };
        self.0.iter().map(text).collect()
    }

    fn push_text(&mut self, more: &str) {
        match self.0.last_mut() {
            _ if more.is_empty() => {}
            Some(Part::Text(text)) => text.push_str(more),
            _ => self.0.push(Part::Text(more.into())),
        }
    }
}

/// Client Identifiers that a client may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIds {
    pattern: Pattern,
    /// The pattern is only the start of them.
    is_prefix: bool,
}

impl ClientIds {
    /// Takes a text apart in which `%u` may occur, and `*` at the end.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (start, is_prefix) = match text.strip_suffix('*') {
            Some(start) => (start, true),
            None => (text, false),
        };
        let pattern = Pattern::parse(start)?;
        if pattern.has_client() || start.contains('*') {
            return Err(format!(
                "got `{text}`, expected a Client Identifier in which `%u` may occur, and `*` at the end"
            ));
        }
        Ok(Self { pattern, is_prefix })
    }

    /// Whether this one is among them. For somebody without a User Name, those with `%u` are not.
    #[must_use]
    pub fn allow(&self, user: Option<&str>, client_id: &str) -> bool {
        let expected = match user {
            Some(user) => self.pattern.with_user(user).with_client(""),
            None if self.pattern.has_user() => return false,
            None => self.pattern.with_client(""),
        };
        if self.is_prefix { client_id.starts_with(&expected) } else { client_id == expected }
    }
}

/// Whether a name can stand in a Topic Filter without changing what the rest of it means.
///
/// `+` and `#` would widen it, `/` would move it, a leading `$` would make it one of the server's own topics, and an
/// empty name is nobody's.
#[must_use]
pub fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('$') && !name.contains(['+', '#', '/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_once() {
        for (text, expected) in [
            ("", ""),
            ("a/b", "a/b"),
            ("%u", "ann"),
            ("%c", "c%u7"),
            ("a/%u/%c/#", "a/ann/c%u7/#"),
            ("dev-%c-%c", "dev-c%u7-c%u7"),
            ("100%%", "100%"),
            ("%%u", "%u"),
        ] {
            let pattern = Pattern::parse(text).expect(text);
            assert_eq!(pattern.with_user("ann").with_client("c%u7"), expected, "{text}");
        }
        // What a name contains is not a placeholder.
        let pattern = Pattern::parse("%u/%c").expect("valid");
        assert_eq!(pattern.with_user("%c").with_client("x"), "%c/x");
    }

    #[test]
    fn of_other_percent_signs_nothing_is_made_where_that_is_asked_for() {
        for (text, expected) in [("%u/%c/%%u", "ann/c1/%ann"), ("100%/%d", "100%/%d"), ("", ""), ("%", "%")] {
            assert_eq!(Pattern::lenient(text).with_user("ann").with_client("c1"), expected, "{text}");
        }
        assert_eq!(Pattern::literal("%u/%c").with_user("ann").with_client("c1"), "%u/%c");
    }

    #[test]
    fn other_letters_are_refused() {
        for (text, got) in [("a/%d", "`%d`"), ("%", "at the end"), ("%U", "`%U`"), ("%ü", "`%ü`")] {
            let error = Pattern::parse(text).expect_err(text);
            assert!(error.starts_with(&format!("got {got}, expected `%u`")), "{error}");
        }
    }

    #[test]
    fn plain_names() {
        for (name, expected) in [
            ("a", true),
            ("a b", true),
            ("a$", true),
            ("%u", true),
            ("", false),
            ("$SYS", false),
            ("a+", false),
            ("#", false),
            ("a/b", false),
            ("a\0", false),
        ] {
            assert_eq!(is_plain(name), expected, "{name}");
        }
    }
}
