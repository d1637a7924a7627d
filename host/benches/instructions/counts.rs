//! What was counted before, and what is different now.

use std::fmt;
use std::fs;

use crate::callgrind::Counted;
use crate::rows::{ROWS, Row};

/// The file, from the root of the repository.
pub(crate) const PATH: &str = "host/benches/instructions/counts.txt";

/// How to count anew.
pub(crate) const UPDATE: &str = "UPDATE_INSTRUCTIONS=1 cargo bench -p host --bench instructions";

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/counts.txt");

/// How much more a row may take. The same sources at another path or on another processor differ by some thousandths: hashes
/// differ from run to run, and with them the way through tables. But when anything in the crate changes, functions are put
/// together in another way, which has moved rows by 3.7 % that nobody had touched.
const MARGIN: f64 = 0.05;

/// The same for rows of a few dozen instructions.
const MARGIN_INSTRUCTIONS: f64 = 4.0;

/// A stored count that differs by less is not changed: it would be noise in the history.
const KEPT: f64 = 0.003;

/// What the file says.
pub(crate) struct Counts {
    pub(crate) compiler: String,
    /// Name, instructions, unit.
    rows: Vec<(String, f64, String)>,
}

impl Counts {
    pub(crate) fn read() -> Result<Self, String> {
        let text = fs::read_to_string(FILE).unwrap_or_default();
        let mut counts = Self { compiler: String::new(), rows: Vec::new() };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(compiler) = line.strip_prefix("compiler ") {
                compiler.clone_into(&mut counts.compiler);
                continue;
            }
            let mut words = line.split_whitespace();
            let row = (words.next(), words.next().and_then(|count| count.parse().ok()), words.last());
            let (Some(name), Some(instructions), Some(unit)) = row else {
                return Err(format!(
                    "{PATH}: `{line}` is not a name, a count and `per` what; make the file anew: {UPDATE}"
                ));
            };
            counts.rows.push((name.to_owned(), instructions, unit.to_owned()));
        }
        Ok(counts)
    }

    fn get(&self, name: &str) -> Option<f64> {
        self.rows.iter().find(|(known, ..)| known == name).map(|(_, instructions, _)| *instructions)
    }

    /// What was counted now, in the order of the rows; what was not counted stays if it is a row still.
    pub(crate) fn updated(&self, counted: &[Counted], compiler: &str) -> Self {
        let rows = ROWS.iter().filter_map(|row| {
            let stored = self.get(row.name);
            let now = counted.iter().find(|counted| counted.row.name == row.name).map(|counted| counted.instructions);
            let instructions = match (stored, now) {
                (Some(stored), Some(now)) if (now - stored).abs() <= stored * KEPT => stored,
                (stored, now) => now.or(stored)?,
            };
            Some((row.name.to_owned(), instructions, row.unit.to_owned()))
        });
        Self { compiler: compiler.to_owned(), rows: rows.collect() }
    }

    pub(crate) fn write(&self) -> Result<(), String> {
        let mut text = format!(
            "# Instructions of the main paths, as callgrind counts them. Made by the bench; do not edit:\n# {UPDATE}\n\
             compiler {}\n",
            self.compiler
        );
        for (name, instructions, unit) in &self.rows {
            text.push_str(&format!("{name:25} {instructions:9.1}  per {unit}\n"));
        }
        fs::write(FILE, text).map_err(|error| format!("{PATH}: {error}"))
    }
}

/// A row now and before.
struct Pair<'a> {
    counted: &'a Counted,
    before: Option<f64>,
}

impl Pair<'_> {
    fn change(&self) -> f64 {
        self.before.map_or(0.0, |before| self.counted.instructions - before)
    }

    fn margin(&self) -> f64 {
        self.before.map_or(0.0, |before| (before * MARGIN).max(MARGIN_INSTRUCTIONS))
    }

    fn note(&self) -> &'static str {
        match self.before {
            None => "new",
            Some(_) if self.change() > self.margin() => "MORE",
            Some(_) if self.change() < -self.margin() => "fewer",
            Some(_) => "",
        }
    }
}

/// All rows that were counted.
pub(crate) struct Compared<'a>(Vec<Pair<'a>>);

impl<'a> Compared<'a> {
    pub(crate) fn new(counted: &'a [Counted], stored: &Counts) -> Self {
        Self(counted.iter().map(|counted| Pair { counted, before: stored.get(counted.row.name) }).collect())
    }

    /// Whether no row takes more than it did, and each is in the file.
    pub(crate) fn is_fine(&self) -> bool {
        self.0.iter().all(|pair| !matches!(pair.note(), "MORE" | "new"))
    }

    /// What the table says, and what to do.
    pub(crate) fn verdict(&self) -> String {
        let rows = |note| {
            let names: Vec<&str> =
                self.0.iter().filter(|pair| pair.note() == note).map(|pair| pair.counted.row.name).collect();
            names.join(", ")
        };
        let (more, new, fewer) = (rows("MORE"), rows("new"), rows("fewer"));
        let mut text = String::new();
        if !more.is_empty() {
            text += &format!(
                "\nMore instructions than {PATH} says: {more}.\nSee in which functions, here and on the tree before the \
                 change: cargo bench -p host --bench instructions -- NAME\nIf they are worth it, say why in the commit, with \
                 the counts of: {UPDATE}\n"
            );
        }
        if !new.is_empty() {
            text += &format!("\nNot in {PATH}: {new}. Add with: {UPDATE}\n");
        }
        if !fewer.is_empty() {
            text += &format!("\nFewer than {PATH} says: {fewer}. No error; so that it stays so: {UPDATE}\n");
        }
        text
    }
}

impl fmt::Display for Compared<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:25} {:>9} {:>9} {:>9}", "instructions", "before", "now", "change")?;
        for pair in &self.0 {
            let Counted { row, instructions, .. } = pair.counted;
            let Row { name, unit, .. } = row;
            match pair.before {
                Some(before) => {
                    let percent = 100.0 * pair.change() / before;
                    writeln!(
                        f,
                        "{name:25} {before:9.1} {instructions:9.1} {percent:+8.1}% per {unit:9} {}",
                        pair.note()
                    )?;
                }
                None => writeln!(f, "{name:25} {:>9} {instructions:9.1} {:>9} per {unit:9} {}", "", "", pair.note())?,
            }
        }
        Ok(())
    }
}
