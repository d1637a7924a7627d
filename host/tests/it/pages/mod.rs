//! Every block of every page of this tree is compiled, run, or given to what it is for; one that no test knows is an error.
//!
//! A block of `sh` is sourced, by one shell for all of a page. `sh,background` is what goes on in another terminal: it is
//! started, and the next block comes once there is a broker; `sh,once` is not run, as what it makes is there already. Each line
//! of a block of `text` has to be in what the block before it has printed, in this order, or with `text,background` in the
//! other terminal, in time; `…` stands for anything. `rust` is for rustdoc, where the page is documentation of a crate.

mod guide;
mod manual;
mod plugins;
mod shell;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::harness::{PATIENCE, eventually_within};
use shell::{BLOCK_WITHIN, Shell};

/// A block of a page.
#[derive(Clone, Copy)]
struct Block<'a> {
    /// What stands behind its first three signs: `sh,background`.
    kind: &'a str,
    text: &'a str,
    /// The number of its first line.
    line: usize,
    /// The paragraph before it.
    before: &'a str,
}

/// The blocks of a page.
fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some((before, behind)) = rest.split_once("\n```") {
        let (kind, behind) = behind.split_once('\n').expect("a block has lines");
        let (text, behind) = behind.split_once("```").expect("a block ends");
        let line = page[..page.len() - rest.len() + before.len()].lines().count() + 2;
        let before = before.trim_end().rsplit("\n\n").next().unwrap_or_default();
        found.push(Block { kind, text, line, before });
        rest = behind;
    }
    found
}

/// Whether each line of `expected` is in `found`, in this order.
fn says(found: &str, expected: &str) -> Result<(), String> {
    let mut lines = found.lines();
    for line in expected.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let is_it = |found: &str| {
            let mut rest = Some(found);
            line.split('…').all(|part| {
                rest = rest.and_then(|rest| rest.split_once(part)).map(|(_, rest)| rest);
                rest.is_some()
            })
        };
        if !lines.any(is_it) {
            return Err(format!("no line {line:?} in:\n{found}"));
        }
    }
    Ok(())
}

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("host is in the workspace")
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A shell that goes through a page.
struct Reader {
    page: &'static str,
    shell: Shell,
    /// What the block before has printed, and what goes on in the background since.
    printed: String,
}

impl Reader {
    fn new(page: &'static str, shell: Shell) -> Self {
        Self { page, shell, printed: String::new() }
    }

    /// Does with a block what is done with its kind on every page.
    fn read(&mut self, block: &Block<'_>) {
        let at = format!("{}, line {}", self.page, block.line);
        match block.kind {
            "sh" => self.printed = self.shell.run(block),
            "sh,background" => {
                self.shell.end_background();
                self.printed = self.shell.run(block);
            }
            "sh,once" => {}
            "text" => {
                let deadline = Instant::now() + PATIENCE;
                while let Err(error) = says(&self.printed, block.text) {
                    let line = self.shell.next_line(deadline);
                    writeln!(self.printed, "{}", line.unwrap_or_else(|end| panic!("{at}: {error}\n{end}")))
                        .expect("there is room");
                }
            }
            "text,background" => eventually_within(BLOCK_WITHIN, &format!("{at}: {}", block.text), || {
                self.shell.check_background().unwrap_or_else(|error| panic!("{at}: {error}"));
                says(&self.shell.in_background(), block.text).is_ok()
            }),
            "rust" | "rust,no_run" => assert!(is_documentation(self.page), "{at}: nobody compiles it"),
            kind => panic!("{at}: a block of {kind:?}, which nothing tests"),
        }
    }
}

/// Whether rustdoc compiles the blocks of a page.
fn is_documentation(page: &str) -> bool {
    let callbacks = "plugin-api/guide/callbacks/";
    let (source, included) = match page {
        "README.md" => ("host/src/lib.rs", "../../README.md"),
        "plugin-api/README.md" => ("plugin-api/src/lib.rs", "../README.md"),
        "plugin-api/guide/README.md" => ("plugin-api/src/guide.rs", "../guide/README.md"),
        "plugin-api/guide/hooks.md" => ("plugin-api/src/guide.rs", "../guide/hooks.md"),
        // That each of them is in the list there is what `guide` checks.
        page if page.starts_with(callbacks) => {
            ("plugin-api/src/guide.rs", "\"../guide/callbacks/\", stringify!($name)")
        }
        _ => return false,
    };
    self::page(source).contains(included)
}

/// All pages, by their names from the root of the repository.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if entry.is_dir() {
            // What is built, and a release as it was.
            if !name.starts_with('.') && !["target", "fixtures"].contains(&&*name) {
                pages(&entry, found);
            }
        } else if name.ends_with(".md") {
            found.push(entry.strip_prefix(root()).unwrap().to_owned());
        }
    }
}

#[test]
fn every_page_with_blocks_is_read_by_a_test() {
    let mut found = Vec::new();
    pages(root(), &mut found);
    assert!(found.len() > 40, "{found:?}");
    for file in found {
        let name = file.to_str().unwrap();
        let text = page(name);
        // Otherwise `blocks` would not see it.
        let begins = text.lines().filter(|line| line.trim_start().starts_with("```") || line.starts_with("~~~"));
        let blocks = blocks(&text);
        assert_eq!(begins.count(), 2 * blocks.len(), "{name}: blocks begin and end at the beginning of a line");
        let has_reader = manual::PAGES.contains(&name) || name == guide::PAGE || plugins::is_page(name);
        for block in blocks {
            let is_compiled = ["rust", "rust,no_run"].contains(&block.kind) && is_documentation(name);
            assert!(
                has_reader || is_compiled,
                "{name}, line {}: a block of {:?}, which nothing tests",
                block.line,
                block.kind
            );
        }
    }
}
