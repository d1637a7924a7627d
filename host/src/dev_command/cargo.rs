//! Builds the crate, by cargo, as its author would.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What is built, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cargo {
    /// The folder of the crate.
    pub(super) folder: PathBuf,
    pub(super) release: bool,
    pub(super) features: Option<String>,
}

/// A library.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Built {
    pub(super) library: PathBuf,
    /// It was there already, as it is.
    pub(super) is_fresh: bool,
    /// The files that it was built from, those of other crates on this machine among them.
    pub(super) files: Vec<PathBuf>,
}

impl Cargo {
    /// Builds it. What the compiler says goes to stderr, as it would be without us.
    ///
    /// # Errors
    /// There is no library, in a sentence that says why; for errors of the compiler, which stand above it, that it does not
    /// compile.
    pub(super) fn build(&self) -> Result<Built, String> {
        // The cargo that runs us, if one does, is not that of the crate: its folder may ask for another.
        let mut command = Command::new("cargo");
        command.current_dir(&self.folder).args(["build", "--lib", "--message-format=json-render-diagnostics"]);
        if self.release {
            command.arg("--release");
        }
        if let Some(features) = &self.features {
            command.args(["--features", features]);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|error| {
            format!("cargo cannot be run: {error}. Expected a Rust toolchain: https://rustup.rs installs one")
        })?;
        let manifest = self.folder.join("Cargo.toml");
        let mut found = None;
        let mut is_in_workspace = false;
        for line in BufReader::new(child.stdout.take().expect("it is a pipe")).lines().map_while(Result::ok) {
            let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
            if message["reason"] != "compiler-artifact" || !message["target"]["crate_types"].is_array() {
                continue;
            }
            let is_ours = message["manifest_path"].as_str().is_some_and(|path| is_same(Path::new(path), &manifest));
            is_in_workspace |= !is_ours && library(&message).is_some();
            if let (true, Some(library)) = (is_ours, library(&message)) {
                found = Some((library, message["fresh"] == true));
            }
        }
        let status = child.wait().map_err(|error| format!("cargo was lost: {error}"))?;
        if !status.success() {
            return Err("it does not compile".to_owned());
        }
        let Some((library, is_fresh)) = found else {
            let folder = self.folder.display();
            return Err(if is_in_workspace {
                format!("{folder} makes no shared library itself: name the folder of the crate that does")
            } else {
                format!("{folder} makes no shared library: its Cargo.toml needs [lib] with crate-type = [\"cdylib\"]")
            });
        };
        Ok(Built { files: dependencies(&library), library, is_fresh })
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|one| one == other)
}

/// The shared library among what cargo has made of a target.
fn library(message: &Value) -> Option<PathBuf> {
    let kinds = message["target"]["crate_types"].as_array()?;
    let files = message["filenames"].as_array().filter(|_| kinds.iter().any(|kind| kind == "cdylib"))?;
    let mut files = files.iter().filter_map(Value::as_str).map(PathBuf::from);
    files.find(|file| file.extension().is_some_and(|extension| extension == "so"))
}

/// What cargo has noted that the library was built from, but for what was made by the build itself.
fn dependencies(library: &Path) -> Vec<PathBuf> {
    let Ok(text) = std::fs::read_to_string(library.with_extension("d")) else { return Vec::new() };
    let own = library.parent().unwrap_or(library);
    let files = text.lines().filter_map(|line| line.split_once(": ")).flat_map(|(_, files)| split(files));
    files.map(PathBuf::from).filter(|file| !file.starts_with(own)).collect()
}

/// Names with spaces between them; a space in a name has a backslash before it.
fn split(names: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut chars = names.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => all.last_mut().expect("there is one").extend(chars.next()),
            ' ' => all.push(String::new()),
            c => all.last_mut().expect("there is one").push(c),
        }
    }
    all.retain(|name| !name.is_empty());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_are_told_apart() {
        assert_eq!(split(r"/a/b.rs /c\ d/e.rs  /f"), ["/a/b.rs", "/c d/e.rs", "/f"]);
        assert_eq!(split(""), [""; 0]);
    }

    #[test]
    fn the_library_is_found_among_what_cargo_has_made() {
        let message = |kinds: &str, files: &str| {
            let text = format!(r#"{{"target": {{"crate_types": {kinds}}}, "filenames": {files}}}"#);
            library(&serde_json::from_str(&text).unwrap())
        };
        assert_eq!(message(r#"["rlib", "cdylib"]"#, r#"["/t/liba.rlib", "/t/liba.so"]"#), Some("/t/liba.so".into()));
        assert_eq!(message(r#"["proc-macro"]"#, r#"["/t/liba.so"]"#), None);
    }
}
