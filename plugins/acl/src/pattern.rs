//! Texts with `%u` and `%c`: Topic Filters of rules, and Client Identifiers.

/// A text in which `%u` stands for the User Name, `%c` for the Client Identifier and `%%` for a percent sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    User,
    Client,
}

impl Pattern {
    /// Takes a text apart. The error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
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

    pub(crate) fn has_user(&self) -> bool {
        self.0.contains(&Part::User)
    }

    pub(crate) fn has_client(&self) -> bool {
        self.0.contains(&Part::Client)
    }

    /// The pattern with the User Name filled in.
    pub(crate) fn with_user(&self, user: &str) -> Self {
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
    pub(crate) fn with_client(&self, client_id: &str) -> String {
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

/// Whether a name can stand in a Topic Filter without changing what the rest of it means.
///
/// `+` and `#` would widen it, `/` would move it, a leading `$` would make it one of the server's own topics, and an
/// empty name is nobody's.
pub(crate) fn is_plain(name: &str) -> bool {
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
