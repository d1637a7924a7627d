//! `host new`: a crate to start from, which compiles, has a test, and says what to do next.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;

use crate::show;

/// The files of the crate. What stands in double braces is filled in.
const FILES: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("new_command/template/manifest.toml")),
    ("src/lib.rs", include_str!("new_command/template/lib.rs")),
    ("README.md", include_str!("new_command/template/README.md")),
    (".gitignore", include_str!("new_command/template/gitignore")),
    (".github/workflows/ci.yml", include_str!("new_command/template/ci.yml")),
];

/// What the CI file does for a `plugin-api` that is used by path: it has to be there as well.
const CHECKOUT: &str = "\
      # plugin-api is used by path. Say in the settings of the repository where it comes from: HOST_REPOSITORY, as owner/name.
      - uses: actions/checkout@v4
        with:
          repository: ${{ vars.HOST_REPOSITORY }}
          path: {{clone}}
";

/// What cargo reads in the manifest of a crate that is no part of a workspace, and would complain about in one that is.
const PROFILE: &str = "
# Builds and links faster than with all debug information; backtraces still have their lines.
[profile.dev]
debug = \"line-tables-only\"
";

/// For a crate in the folder of a workspace of which it is no part: without it, cargo refuses the crate.
const WORKSPACE: &str = "
# Not a part of the workspace in whose folder it is.
[workspace]
";

/// Where the sources of `plugin-api` were when this program was built.
const PLUGIN_API: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin-api");

/// Its manifest.
const PLUGIN_API_MANIFEST: &str = include_str!("../../plugin-api/Cargo.toml");

/// Characters that the name of a crate may have.
const NAME_MAX: usize = 64;

/// Names that cargo or the compiler has for something else, and that of the crate that it depends on.
const TAKEN: [&str; 8] = ["alloc", "core", "plugin-api", "plugin_api", "proc_macro", "proc-macro", "std", "test"];

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct NewConfig {
    /// The folder, which is made; its name is the crate's, and so the plugin's.
    #[arg(value_name = "DIR")]
    path: PathBuf,
    /// The name of the crate. [default: that of the folder]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where `plugin-api` comes from: a folder, or a version of a registry. [default: the folder from which this host was
    /// built if it is there, else the version of this host]
    #[arg(long, value_name = "PATH|VERSION")]
    plugin_api: Option<String>,
}

/// Where the crate gets `plugin-api` from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// A folder, seen from the crate where the two are beside each other.
    Path(PathBuf),
    /// A registry.
    Version(String),
}

/// Does it, and says what to do next. The exit code is 2 if nothing was made.
pub(crate) fn run(config: &NewConfig) -> ExitCode {
    match make(config) {
        Ok(text) => {
            show::print(&text);
            ExitCode::SUCCESS
        }
        Err(reason) => {
            show::complain(&format!("host: {reason}\n"));
            ExitCode::from(2)
        }
    }
}

fn make(NewConfig { path, name, plugin_api }: &NewConfig) -> Result<String, String> {
    let full = std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let full = without_dots(&full);
    let folder = full.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.as_deref().unwrap_or(folder);
    check_name(name)?;
    let is_free = match fs::read_dir(&full) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if !is_free {
        return Err(format!("{}: it is there already. Expected a folder that is empty, or none", path.display()));
    }
    let source = source(plugin_api.as_deref(), &full)?;
    let mut filling = Filling::new(name, folder, &source, &full);
    for (file, template) in FILES {
        filling.write(&full, file, template)?;
    }
    if filling.place == Place::Member && !is_member(&full) {
        filling.place = Place::Within;
        let (manifest, template) = FILES[0];
        filling.write(&full, manifest, template)?;
    }
    let note = match source {
        Source::Path(_) => String::new(),
        Source::Version(version) => format!(
            "\nplugin-api {version} is expected in a registry. To use a copy of its sources: --plugin-api PATH\n"
        ),
    };
    let shown = path.display();
    Ok(format!(
        "made {shown}, a handler called {name}: {shown}/src/lib.rs\n{note}\nnext:\n  cd {shown}\n  cargo test\n  host dev .    \
         serves with it, and swaps it at each save\n"
    ))
}

/// The same path without `.` and `..`.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

fn check_name(name: &str) -> Result<(), String> {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let is_name = name.starts_with(is_first) && name.chars().all(is_letter) && name.len() <= NAME_MAX;
    if !is_name {
        return Err(format!(
            "{name:?} cannot be the name of a crate: expected a letter and then letters, digits, - or _, {NAME_MAX} at most, \
             such as my-handler. To give the crate another name than the folder: --name NAME"
        ));
    }
    if TAKEN.contains(&name) {
        return Err(format!("{name:?} is the name of something else: take another one, such as my-handler"));
    }
    Ok(())
}

/// Where `plugin-api` is to come from, for a crate in the folder `full`.
fn source(typed: Option<&str>, full: &Path) -> Result<Source, String> {
    let version = || PLUGIN_API_MANIFEST.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    match typed {
        None => {
            let built_from = without_dots(Path::new(PLUGIN_API));
            if is_plugin_api(&built_from) {
                return Ok(Source::Path(beside(&built_from, full)));
            }
            Ok(Source::Version(version().unwrap_or("1").to_owned()))
        }
        Some(typed) if typed.starts_with(|c: char| c.is_ascii_digit()) && !Path::new(typed).exists() => {
            Ok(Source::Version(typed.to_owned()))
        }
        Some(typed) => {
            let path = std::path::absolute(typed).map_err(|error| format!("--plugin-api {typed}: {error}"))?;
            let path = without_dots(&path);
            if !is_plugin_api(&path) {
                return Err(format!(
                    "--plugin-api {typed}: there is no crate plugin-api. Expected its folder, or a version such as {}",
                    version().unwrap_or("1")
                ));
            }
            Ok(Source::Path(beside(&path, full)))
        }
    }
}

fn is_plugin_api(folder: &Path) -> bool {
    let manifest = fs::read_to_string(folder.join("Cargo.toml"));
    manifest.is_ok_and(|text| text.lines().any(|line| line.trim() == "name = \"plugin-api\""))
}

/// A folder as it is seen from the crate, if both are below one folder: they may be moved together then. Else as it is.
fn beside(folder: &Path, full: &Path) -> PathBuf {
    let Some(parent) = full.parent().filter(|parent| parent.parent().is_some()) else { return folder.into() };
    match folder.strip_prefix(parent) {
        Ok(below) => Path::new("..").join(below),
        Err(_) => folder.into(),
    }
}

/// Whether cargo takes the crate for a part of a workspace above it. Where there is no cargo, it is none.
fn is_member(full: &Path) -> bool {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--no-deps", "--offline", "--format-version=1"]).current_dir(full);
    cargo.output().is_ok_and(|output| output.status.success())
}

/// Where a crate is, for cargo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// There is no crate above it.
    Alone,
    /// It is in the folder of another crate, but no part of its workspace.
    Within,
    /// It is a part of the workspace above it.
    Member,
}

/// What is filled in.
struct Filling<'a> {
    name: &'a str,
    folder: &'a str,
    plugin_api: String,
    /// The folder of the repository with `plugin-api`, where that is beside the crate.
    clone: Option<String>,
    place: Place,
}

impl<'a> Filling<'a> {
    fn new(name: &'a str, folder: &'a str, source: &Source, full: &Path) -> Self {
        let (plugin_api, clone) = match source {
            Source::Version(version) => (format!("version = {version:?}"), None),
            Source::Path(path) => {
                let clone =
                    path.strip_prefix("..").ok().and_then(Path::parent).filter(|path| !path.as_os_str().is_empty());
                (format!("path = {:?}", path.display().to_string()), clone.map(|path| path.display().to_string()))
            }
        };
        let is_below = full.ancestors().skip(1).any(|folder| folder.join("Cargo.toml").exists());
        let place = if is_below { Place::Member } else { Place::Alone };
        Self { name, folder, plugin_api, clone, place }
    }

    fn fill(&self, template: &str) -> String {
        let checkout = self.clone.as_ref().map(|clone| CHECKOUT.replace("{{clone}}", clone)).unwrap_or_default();
        let root = match self.place {
            Place::Alone => PROFILE.to_owned(),
            Place::Within => format!("{PROFILE}{WORKSPACE}"),
            Place::Member => String::new(),
        };
        let text = template.replace("{{name}}", self.name).replace("{{lib}}", &self.name.replace('-', "_"));
        let text = text.replace("{{Handler}}", &type_name(self.name)).replace("{{plugin_api}}", &self.plugin_api);
        text.replace("{{folder}}", self.folder).replace("{{checkout}}", &checkout).replace("{{root}}\n", &root)
    }

    fn write(&self, full: &Path, file: &str, template: &str) -> Result<(), String> {
        let file = full.join(file);
        let written = fs::create_dir_all(file.parent().unwrap_or(full));
        let written = written.and_then(|()| fs::write(&file, self.fill(template)));
        written.map_err(|error| format!("{}: {error}", file.display()))
    }
}

/// `my-handler` as a type: `MyHandler`.
fn type_name(name: &str) -> String {
    let mut text = String::new();
    for word in name.split(['-', '_']) {
        let mut chars = word.chars();
        text.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        text.push_str(chars.as_str());
    }
    // A trait of plugin-api, or what is not the beginning of a name.
    let is_free = text.starts_with(|c: char| c.is_ascii_alphabetic()) && !IMPORTED.contains(&text.as_str());
    if is_free { text } else { format!("My{text}") }
}

/// Names that the crate has already: what it imports, and what is there everywhere.
const IMPORTED: [&str; 21] = [
    "Connect",
    "ConnectVerdict",
    "ConnectionInfo",
    "Error",
    "Handler",
    "Host",
    "Publish",
    "PublishVerdict",
    "ReasonCode",
    "State",
    "StateView",
    "Subscribe",
    "SubscribeVerdict",
    "Swapped",
    "String",
    "Result",
    "Ok",
    "Err",
    "Self",
    "Some",
    "None",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_crates_become_types_that_collide_with_nothing() {
        let table = [
            ("my-handler", "MyHandler"),
            ("acl", "Acl"),
            ("a_b-c2", "ABC2"),
            ("handler", "MyHandler"),
            ("_1", "My1"),
            ("error", "MyError"),
        ];
        for (name, expected) in table {
            assert_eq!(type_name(name), expected, "{name}");
            check_name(name).unwrap_or_else(|error| panic!("{error}"));
        }
        let long = "x".repeat(NAME_MAX + 1);
        for name in ["", "1st", "a b", "ä", "-x", "a/b", long.as_str(), "test", "plugin-api"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn nothing_is_left_to_be_filled_in() {
        let sources =
            [Source::Path("../host/plugin-api".into()), Source::Path("/x/api".into()), Source::Version("1.1".into())];
        for source in sources {
            let filling = Filling::new("my-handler", "my-handler", &source, Path::new("/no/such/my-handler"));
            for (file, template) in FILES {
                let text = filling.fill(template);
                // GitHub has such braces as well, with a dollar sign.
                assert!(!text.replace("${{", "").contains("{{"), "{file}: {text}");
            }
            let ci = filling.fill(FILES[4].1);
            assert_eq!(ci.contains("path: host\n"), source == sources_beside(), "{ci}");
        }
    }

    fn sources_beside() -> Source {
        Source::Path("../host/plugin-api".into())
    }

    #[test]
    fn folders_beside_each_other_are_seen_from_there() {
        let beside = |folder: &str, full: &str| beside(Path::new(folder), Path::new(full)).display().to_string();
        assert_eq!(beside("/home/me/host/plugin-api", "/home/me/my-handler"), "../host/plugin-api");
        assert_eq!(beside("/srv/host/plugin-api", "/home/me/my-handler"), "/srv/host/plugin-api");
        assert_eq!(beside("/srv/host/plugin-api", "/my-handler"), "/srv/host/plugin-api");
        assert_eq!(without_dots(Path::new("/a/./b/../c")), Path::new("/a/c"));
    }
}
