//! `host store`: what is kept in a directory that no host has at the moment.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use host::data_dir::DataDir;
use host::durable::line::Counts;
use host::durable::store::Progress;
use host::store::{ImportError, Opened, export, holds_something, import};

use crate::show;

/// What stands for standard input or output.
const STANDARD: &str = "-";

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum StoreCommand {
    /// Read all that is kept in a directory, and say how much that is. Exits with 2 if it is damaged.
    Check {
        /// The directory, as for --data-dir.
        #[arg(value_name = "DIR")]
        path: PathBuf,
        /// Where the journal is damaged, go on with what stands before that: what follows is set aside, in files whose names
        /// end with .cut, and is lost to who was promised it.
        #[arg(long)]
        repair: bool,
    },
    /// Write all that is kept in a directory as lines of JSON, for backup and inspection: STORE.md describes them.
    Export {
        /// The directory, as for --data-dir.
        #[arg(value_name = "DIR")]
        path: PathBuf,
        /// The file, which only this user may read, and which is there once it is complete; one that there was is replaced.
        /// Standard output without it, or for -
        #[arg(value_name = "FILE", default_value = STANDARD, hide_default_value = true)]
        file: PathBuf,
    },
    /// Read what `host store export` has written, and keep it in a directory in which nothing is kept yet.
    ///
    /// All of it is checked, and read again, before any of it is there. Exits with 2 if something is wrong, and names the line.
    Import {
        /// The directory, as for --data-dir. It is made if there is none.
        #[arg(value_name = "DIR")]
        path: PathBuf,
        /// The file. Standard input without it, or for -
        #[arg(value_name = "FILE", default_value = STANDARD, hide_default_value = true)]
        file: PathBuf,
    },
}

/// Does it, and says how it went: 0 if it was done, 2 if not.
pub(crate) fn run(command: &StoreCommand) -> ExitCode {
    let done = match command {
        StoreCommand::Check { path, repair } => check(path, *repair),
        StoreCommand::Export { path, file } => export_to(path, file),
        StoreCommand::Import { path, file } => import_from(path, file),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            show::complain(&format!("host: {why}\n"));
            ExitCode::from(2)
        }
    }
}

fn failed(error: impl Display) -> String {
    error.to_string()
}

/// A directory in which something is kept, which nobody else has meanwhile.
fn take(path: &Path) -> Result<DataDir, String> {
    if !path.is_dir() {
        return Err(failed(format!("{}: there is no such directory", path.display())));
    }
    // Not for one that was meant to be another: nothing is written there.
    if !holds_something(path).map_err(|error| failed(format!("{}: {error}", path.display())))? {
        return Err(failed(format!("{}: nothing is kept there, expected the --data-dir of a host", path.display())));
    }
    DataDir::take(path).map_err(failed)
}

fn say_what_has_become(opened: &Opened) {
    if let Some(migrated) = opened.migrated() {
        show::complain(&format!("what an older host has kept was migrated {migrated}\n"));
    }
    if let Some(tail) = opened.tail() {
        let text = format!("cut off what was being written last, and was promised to nobody: {tail}\n");
        show::complain(&text);
    }
}

fn check(path: &Path, repair: bool) -> Result<(), String> {
    let dir = take(path)?;
    let opened = if repair {
        let (opened, damage) = Opened::repair(dir.path()).map_err(failed)?;
        if let Some(damage) = damage {
            show::print(&format!("set aside from there on: {damage}\n"));
        }
        opened
    } else {
        Opened::open(dir.path()).map_err(failed)?
    };
    say_what_has_become(&opened);
    let values = opened.values().map_err(failed)?.len();
    let mut last = Progress::default();
    opened.give(1, &mut |_| {}, &mut |progress| last = progress).map_err(failed)?;
    show::print(&format!("in order: {last}, {values} bytes of plugins\n"));
    Ok(())
}

fn export_to(path: &Path, file: &Path) -> Result<(), String> {
    let dir = take(path)?;
    let opened = Opened::open(dir.path()).map_err(failed)?;
    say_what_has_become(&opened);
    let counts = if file == Path::new(STANDARD) {
        export(&opened, &mut BufWriter::new(io::stdout().lock())).map_err(failed)?
    } else {
        export_to_file(&opened, file)?
    };
    say("exported", &counts);
    Ok(())
}

fn export_to_file(opened: &Opened, path: &Path) -> Result<Counts, String> {
    let at = |error: &dyn Display| failed(format!("{}: {error}", path.display()));
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".part");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
    let mut out = BufWriter::new(file.map_err(|error| at(&error))?);
    let written = export(opened, &mut out).map_err(|error| at(&error)).and_then(|counts| {
        let done = out.flush().and_then(|()| out.get_ref().sync_all()).and_then(|()| fs::rename(&unfinished, path));
        done.map(|()| counts).map_err(|error| at(&error))
    });
    if written.is_err() {
        // Why it is of no use is said.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn import_from(path: &Path, file: &Path) -> Result<(), String> {
    let is_standard = file == Path::new(STANDARD);
    let name = if is_standard { "standard input".to_owned() } else { file.display().to_string() };
    let wrong = |error: ImportError| match error {
        ImportError::Line { .. } | ImportError::Read(_) => failed(format!("{name}: {error}")),
        other => failed(other),
    };
    let imported = if is_standard {
        let dir = DataDir::take(path).map_err(failed)?;
        import(dir.path(), &mut io::stdin().lock())
    } else {
        let file = File::open(file).map_err(|error| failed(format!("{name}: {error}")))?;
        let dir = DataDir::take(path).map_err(failed)?;
        import(dir.path(), &mut BufReader::with_capacity(256 << 10, file))
    };
    say("imported, and read again", &imported.map_err(wrong)?);
    Ok(())
}

/// Not among what was exported.
fn say(what: &str, counts: &Counts) {
    show::complain(&format!("{what}: {counts}\n"));
}
