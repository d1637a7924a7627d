//! New names: texts with `$1`, `$2`, … for what the wildcards of a Topic Filter have matched.

use plugin_api::topic;

/// What a wildcard has matched: a level for `+`; for `#` all the levels that were left, `None` if there was none.
pub(crate) type Capture<'a> = Option<&'a str>;

/// A new name, level by level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Vec<Part>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The wildcard with this index, from 0 on.
    Wildcard(usize),
    Client,
}

impl Template {
    /// Takes a text apart, for a filter with so many wildcards. The error says what is wrong with it.
    pub(crate) fn parse(text: &str, wildcards: usize) -> Result<Self, String> {
        topic::levels(text).map(|level| parts(level, wildcards)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether `%c` occurs.
    pub(crate) fn has_client(&self) -> bool {
        self.0.iter().flatten().any(|part| *part == Part::Client)
    }

    /// The new name. A level that stands for what `#` has matched is left out if that is nothing.
    pub(crate) fn fill(&self, captures: &[Capture<'_>], client_id: &str) -> String {
        let level = |parts: &Vec<Part>| match parts[..] {
            [Part::Wildcard(index)] => captures[index].map(str::to_owned),
            _ => Some(parts.iter().map(|part| part.text(captures, client_id)).collect()),
        };
        self.0.iter().filter_map(level).collect::<Vec<String>>().join("/")
    }
}

impl Part {
    fn text<'a>(&'a self, captures: &[Capture<'a>], client_id: &'a str) -> &'a str {
        match self {
            Self::Text(text) => text,
            Self::Wildcard(index) => captures[*index].unwrap_or_default(),
            Self::Client => client_id,
        }
    }
}

fn parts(level: &str, wildcards: usize) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = level;
    while let Some(at) = rest.find(['$', '%', '+', '#']) {
        text.push_str(&rest[..at]);
        let mut behind = rest[at..].chars();
        let part = match (behind.next(), behind.next()) {
            (Some('$'), Some('$')) => None,
            (Some('%'), Some('%')) => None,
            (Some('%'), Some('c')) => Some(Part::Client),
            (Some('$'), Some(digit @ '1'..='9')) => Some(wildcard(digit, wildcards)?),
            (Some(sign), next) => {
                let got: String = [Some(sign), next].into_iter().flatten().collect();
                return Err(format!(
                    "got `{got}`, expected `$1` to `$9` (what a wildcard has matched), `%c` (Client Identifier), `$$`, \
                     `%%`, and no wildcards"
                ));
            }
            (None, _) => None,
        };
        match part {
            None => text.push_str(&rest[at..=at]),
            Some(part) => {
                parts.extend((!text.is_empty()).then(|| Part::Text(std::mem::take(&mut text))));
                parts.push(part);
            }
        }
        rest = behind.as_str();
    }
    text.push_str(rest);
    if !text.is_empty() || parts.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

fn wildcard(digit: char, wildcards: usize) -> Result<Part, String> {
    let number = digit.to_digit(10).unwrap_or_default() as usize;
    if number > wildcards {
        return Err(format!("got `${number}`, and `from` has {wildcards} wildcards"));
    }
    Ok(Part::Wildcard(number - 1))
}

/// What the wildcards of `from` match of a Topic Name, or of a Topic Filter that it covers. `None` if it does not match, or
/// not level by level.
pub(crate) fn captures<'a>(from: &str, topic: &'a str) -> Option<Vec<Capture<'a>>> {
    // For a Topic Name, which has no wildcards, to cover is to match.
    if !topic::covers(from, topic) {
        return None;
    }
    let mut found = Vec::new();
    let mut rest = Some(topic);
    for level in topic::levels(from) {
        if level == "#" {
            found.push(rest);
            return Some(found);
        }
        let (this, behind) = match rest?.split_once('/') {
            Some((this, behind)) => (this, Some(behind)),
            None => (rest?, None),
        };
        rest = behind;
        match level {
            // `+/#` covers `#`, of which there is no first level.
            "+" if this == "#" => return None,
            "+" => found.push(Some(this)),
            _ => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_get_other_names() {
        for (from, to, topic, expected) in [
            ("a/b", "x", "a/b", Some("x")),
            ("a/b", "x", "a/c", None),
            ("old/+/temp", "new/$1/temperature", "old/7/temp", Some("new/7/temperature")),
            ("old/#", "new/$1", "old/x/y", Some("new/x/y")),
            ("old/#", "new/$1", "old/", Some("new/")),
            ("old/#", "new/$1", "old", Some("new")),
            ("+/+/#", "$2/$1/$3/%c", "a/b/c/d", Some("b/a/c/d/me")),
            ("+/x", "dev-$1-%c", "7/x", Some("dev-7-me")),
            ("a/#", "b-$1", "a", Some("b-")),
            ("a/+", "b/$1", "a/", Some("b/")),
            ("a", "100%%/$$", "a", Some("100%/$")),
            ("a", "x//y", "a", Some("x//y")),
            ("#", "all/$1", "$SYS/x", None),
            // Topic Filters.
            ("old/+/temp", "new/$1/temperature", "old/+/temp", Some("new/+/temperature")),
            ("old/#", "new/$1", "old/+/#", Some("new/+/#")),
            ("old/#", "new/$1", "old/#", Some("new/#")),
            ("old/+", "new/$1", "old/#", None),
            ("+/#", "$1/x/$2", "#", None),
            ("#", "all/$1", "#", Some("all/#")),
        ] {
            let wildcards = topic::levels(from).filter(|level| matches!(*level, "+" | "#")).count();
            let template = Template::parse(to, wildcards).unwrap_or_else(|error| panic!("{to}: {error}"));
            let name = captures(from, topic).map(|captures| template.fill(&captures, "me"));
            assert_eq!(name.as_deref(), expected, "{from} → {to}: {topic}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (to, got) in
            [("$2", "got `$2`, and `from` has 1"), ("$0", "got `$0`"), ("a/+", "got `+`"), ("%u", "got `%u`")]
        {
            let error = Template::parse(to, 1).expect_err(to);
            assert!(error.contains(got), "{error}");
        }
    }
}
