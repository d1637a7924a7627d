//! `host/CONFORMANCE.md` against the tests that it names, and the tags in the sources against its statements.

use std::collections::{BTreeSet, HashMap};

use crate::tidy::files;

const DOCUMENT: &str = "host/CONFORMANCE.md";

/// One edition of the protocol, as the document has it.
struct Edition {
    /// Its heading.
    heading: &'static str,
    /// What stands behind the number in a tag.
    suffix: &'static str,
    /// Sections that have normative statements, and how many: in each of them they are numbered from 1.
    sections: &'static [(&'static str, u32)],
    /// Numbers that were not given.
    not_given: &'static [&'static str],
    /// Statements in all.
    statements: usize,
}

const EDITIONS: [Edition; 2] = [
    Edition { heading: "MQTT 5.0", suffix: "", sections: &SECTIONS_5_0, not_given: &["2.2.1-1"], statements: 251 },
    Edition { heading: "MQTT 3.1.1", suffix: "@3.1.1", sections: &SECTIONS_3_1_1, not_given: &[], statements: 141 },
];

/// It has no numbers: its rows are checked for their tests alone.
const UNNUMBERED: &str = "MQTT 3.1";

#[rustfmt::skip]
const SECTIONS_5_0: [(&str, u32); 56] = [
    ("1.5.4", 3), ("1.5.5", 1), ("1.5.7", 1), ("2.1.3", 1), ("2.2.1", 6), ("2.2.2", 1), ("3.1.0", 2), ("3.1.2", 30),
    ("3.1.3", 12), ("3.1.4", 6), ("3.2.0", 2), ("3.2.2", 22), ("3.3.1", 13), ("3.3.2", 20), ("3.3.4", 10),
    ("3.4.2", 3), ("3.5.2", 3), ("3.6.1", 1), ("3.6.2", 3), ("3.7.2", 3), ("3.8.1", 1), ("3.8.3", 5), ("3.8.4", 8),
    ("3.9.2", 2), ("3.9.3", 2), ("3.10.1", 1), ("3.10.3", 2), ("3.10.4", 6), ("3.11.2", 2), ("3.11.3", 2),
    ("3.12.4", 1), ("3.14.0", 1), ("3.14.1", 1), ("3.14.2", 4), ("3.14.4", 3), ("3.15.1", 1), ("3.15.2", 3),
    ("4.1.0", 2), ("4.2", 1), ("4.3.1", 1), ("4.3.2", 5), ("4.3.3", 13), ("4.4.0", 2), ("4.5.0", 2), ("4.6.0", 6),
    ("4.7.0", 1), ("4.7.1", 2), ("4.7.2", 1), ("4.7.3", 4), ("4.8.2", 6), ("4.9.0", 3), ("4.12.0", 7), ("4.12.1", 2),
    ("4.13.1", 1), ("4.13.2", 1), ("6.0.0", 4),
];

#[rustfmt::skip]
const SECTIONS_3_1_1: [(&str, u32); 39] = [
    ("1.5.3", 3), ("2.2.2", 2), ("2.3.1", 7), ("3.1.0", 2), ("3.1.2", 24), ("3.1.3", 11), ("3.1.4", 5), ("3.2.0", 1),
    ("3.2.2", 6), ("3.3.1", 12), ("3.3.2", 3), ("3.3.4", 1), ("3.3.5", 2), ("3.6.1", 1), ("3.8.1", 1), ("3.8.3", 4),
    ("3.8.4", 6), ("3.9.3", 2), ("3.10.1", 1), ("3.10.3", 2), ("3.10.4", 6), ("3.12.4", 1), ("3.14.1", 1),
    ("3.14.4", 3), ("4.1.0", 2), ("4.3.1", 1), ("4.3.2", 2), ("4.3.3", 2), ("4.4.0", 1), ("4.5.0", 2), ("4.6.0", 6),
    ("4.7.1", 3), ("4.7.2", 1), ("4.7.3", 4), ("4.8.0", 2), ("6.0.0", 4), ("7.0.0", 2), ("7.1.1", 1), ("7.1.2", 1),
];

/// A row of a table: what it is about, and the cells behind.
struct Row {
    edition: String,
    table: String,
    first: String,
    cells: Vec<String>,
}

impl Row {
    /// The tests that it names, as file and function.
    fn tests(&self) -> Vec<(&str, &str)> {
        let Some(last) = self.cells.last() else { return Vec::new() };
        let names = last.split('`').skip(1).step_by(2);
        names
            .map(|name| {
                name.split_once("::")
                    .unwrap_or_else(|| panic!("{DOCUMENT}, {}: `{name}` is no `file::test`", self.first))
            })
            .collect()
    }

    fn is_exception(&self) -> bool {
        self.table == "Exceptions"
    }

    /// What a client has to do of itself need not have a test here.
    fn is_about_servers(&self) -> bool {
        self.table != "Statements about clients"
    }
}

/// All rows of all tables but their headings.
fn rows() -> Vec<Row> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("CONFORMANCE.md");
    let text = std::fs::read_to_string(path).expect("the document is there");
    let (mut edition, mut table, mut in_table) = (String::new(), String::new(), false);
    let mut rows = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            (edition, table) = (heading.to_owned(), String::new());
        } else if let Some(heading) = line.strip_prefix("### ") {
            table = heading.to_owned();
        } else if line.starts_with("| ---") {
            in_table = true;
        } else if !line.starts_with('|') {
            in_table = false;
        } else if in_table {
            let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
            let first = cells.next().unwrap_or_default();
            rows.push(Row { edition: edition.clone(), table: table.clone(), first, cells: cells.collect() });
        }
    }
    rows
}

#[test]
fn every_statement_stands_in_the_document_once() {
    let rows = rows();
    for edition in &EDITIONS {
        let numbers = |(section, last): &(&str, u32)| -> Vec<String> {
            (1..=*last).map(|number| format!("{section}-{number}")).collect()
        };
        let mut missing: BTreeSet<String> = edition.sections.iter().flat_map(numbers).collect();
        missing.retain(|id| !edition.not_given.contains(&id.as_str()));
        assert_eq!(missing.len(), edition.statements, "{}", edition.heading);
        for row in rows.iter().filter(|row| row.edition == edition.heading && !row.is_exception()) {
            let is_new = missing.remove(&row.first);
            assert!(is_new, "{DOCUMENT}, {}: {} is unknown or stands there twice", edition.heading, row.first);
        }
        assert!(missing.is_empty(), "{DOCUMENT}, {}: there is no row for {missing:?}", edition.heading);
    }
}

#[test]
fn every_statement_has_a_test_or_a_reason() {
    let rows = rows();
    for row in rows.iter().filter(|row| !row.is_exception() && row.is_about_servers()) {
        let excepted = rows.iter().any(|other| {
            other.is_exception()
                && other.edition == row.edition
                && other.first == row.first
                && !other.cells.concat().is_empty()
        });
        assert!(
            row.tests().is_empty() == excepted,
            "{DOCUMENT}, {}: {} has {} tests and is {}among the exceptions",
            row.edition,
            row.first,
            row.tests().len(),
            if excepted { "" } else { "not " }
        );
    }
    for row in rows.iter().filter(|row| row.is_exception()) {
        let exists =
            rows.iter().any(|other| !other.is_exception() && other.edition == row.edition && other.first == row.first);
        assert!(exists, "{DOCUMENT}, {}: an exception from {}, which is no statement", row.edition, row.first);
    }
}

#[test]
fn every_test_that_is_named_runs_and_names_its_statement() {
    let sources: HashMap<String, String> = files(&["rs"]).into_iter().collect();
    let mut wrong = Vec::new();
    for row in rows() {
        let suffix = match EDITIONS.iter().find(|edition| edition.heading == row.edition) {
            Some(edition) => Some(edition.suffix),
            None if row.edition == UNNUMBERED => None,
            None => continue,
        };
        for (file, name) in row.tests() {
            let path = match file.strip_prefix("../") {
                Some(path) => path.to_owned(),
                None => format!("host/{file}"),
            };
            let test = sources.get(&path).and_then(|source| test_source(source, name));
            let Some(test) = test else {
                wrong.push(format!("{}: there is no test {file}::{name}", row.first));
                continue;
            };
            let tag = suffix.map_or(String::new(), |suffix| format!("[MQTT-{}{suffix}]", row.first));
            if !test.contains(&tag) {
                wrong.push(format!("{}: {file}::{name} does not say {tag}", row.first));
            }
        }
    }
    assert!(wrong.is_empty(), "{DOCUMENT}:\n{}", wrong.join("\n"));
}

/// A test with its attributes and comments; `None` if it is not there, or not run.
fn test_source(source: &str, name: &str) -> Option<String> {
    let lines: Vec<&str> = source.lines().collect();
    let function = format!("fn {name}(");
    let at = lines.iter().position(|line| line.trim_start().starts_with(&function))?;
    let indent = &lines[at][..lines[at].len() - lines[at].trim_start().len()];
    let is_head = |line: &&&str| line.trim_start().starts_with("#[") || line.trim_start().starts_with("//");
    let head = lines[..at].iter().rev().take_while(is_head).count();
    let body = lines[at..].iter().position(|line| *line == format!("{indent}}}"))?;
    let attributes = &lines[at - head..at];
    let is_test = attributes.iter().any(|line| line.trim() == "#[test]");
    let is_run = !attributes.iter().any(|line| line.trim().starts_with("#[ignore"));
    (is_test && is_run).then(|| lines[at - head..=at + body].join("\n"))
}

#[test]
fn every_tag_in_the_sources_is_a_statement() {
    let known: BTreeSet<String> = rows()
        .iter()
        .filter_map(|row| {
            let edition = EDITIONS.iter().find(|edition| edition.heading == row.edition)?;
            Some(format!("{}{}", row.first, edition.suffix))
        })
        .collect();
    for (name, text) in files(&["rs", "md"]) {
        for (at, _) in text.match_indices("[MQTT-") {
            let tag = text[at + "[MQTT-".len()..].split(']').next().unwrap_or_default();
            // `x.y.z-n` and `…` show what a tag looks like, and `{}` is where one is made.
            let is_shown = tag.contains(['x', '…', '{']) || tag.is_empty() || tag.starts_with('"');
            assert!(is_shown || known.contains(tag), "{name}: [MQTT-{tag}] is no statement of {DOCUMENT}");
        }
    }
}

#[test]
fn tests_are_found_with_their_tags() {
    let source =
        "/// Of it.\n#[test]\nfn a() {\n    x\n}\n\n#[test]\n#[ignore = \"slow\"]\nfn b() {\n}\n\nfn c() {\n}\n";
    assert_eq!(test_source(source, "a").as_deref(), Some("/// Of it.\n#[test]\nfn a() {\n    x\n}"));
    assert_eq!((test_source(source, "b"), test_source(source, "c"), test_source(source, "d")), (None, None, None));
}
