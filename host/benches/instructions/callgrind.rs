//! Runs the rows under valgrind's callgrind, and reads what it has written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::rows::{ROWS, Row};
use crate::{COUNTED, broker};

/// The C library copies and compares memory with what the processor has for it: with this, with what each one has.
const SAME_EVERYWHERE: &str = "glibc.cpu.hwcaps=-AVX2,-AVX_Fast_Unaligned_Load,-AVX512VL,-AVX512BW,-ERMS,-FSRM,-BMI2,\
    -SSSE3,-SSE4_1,-SSE4_2";

/// What one row takes.
pub(crate) struct Counted {
    pub(crate) row: &'static Row,
    /// For one unit, with all functions that are called.
    pub(crate) instructions: f64,
    /// For one unit, by function, without those that it calls; most first.
    pub(crate) functions: Vec<(String, f64)>,
}

/// What runs under callgrind: one row. Says how many units it was.
pub(crate) fn run_row(name: &str) {
    let row = ROWS.iter().find(|row| row.name == name).expect("it was asked for by its name");
    println!("{}", (row.run)(&mut broker::OFF.clone()));
}

/// Counts the rows whose names have one of these parts, or all of them.
pub(crate) fn count(wanted: &[&str]) -> Result<Vec<Counted>, String> {
    let folder = std::env::temp_dir().join(format!("host-instructions-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let rows = ROWS.iter().filter(|row| wanted.is_empty() || wanted.iter().any(|part| row.name.contains(part)));
    let counted: Result<Vec<_>, String> = rows.map(|row| count_row(&folder, row)).collect();
    let _ = fs::remove_dir_all(&folder);
    match counted {
        Ok(rows) if rows.is_empty() => Err(format!("there is no row with one of {wanted:?} in its name")),
        other => other,
    }
}

/// In a process of its own: what a row takes would otherwise depend on the heap that the rows before it have left.
fn count_row(folder: &Path, row: &'static Row) -> Result<Counted, String> {
    let this = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let written = folder.join(row.name);
    let output = Command::new("valgrind")
        .env("GLIBC_TUNABLES", SAME_EVERYWHERE)
        .args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"])
        .args(["--collect-atstart=no", "--toggle-collect=*broker::measured*"])
        .arg(format!("--callgrind-out-file={}", written.display()))
        .arg(this)
        .args([COUNTED, row.name])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!("{}: {}\n{}", row.name, output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let units = String::from_utf8_lossy(&output.stdout).trim().parse();
    let units = units.map_err(|error| format!("{}: how many times: {error}", row.name))?;
    let dump = fs::read_to_string(&written).map_err(|error| format!("{}: {error}", written.display()))?;
    parse(row, units, &dump).ok_or_else(|| format!("{}: callgrind has counted nothing", row.name))
}

/// Reads a file of callgrind: `fn=` and a name, then lines with a place and the instructions there; those behind `calls=`
/// are the ones of another function, which has its own lines.
fn parse(row: &'static Row, units: f64, dump: &str) -> Option<Counted> {
    let mut functions: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut function, mut of_callee) = ("", false);
    for line in dump.lines() {
        if let Some(next) = line.strip_prefix("fn=") {
            function = next;
        } else if line.starts_with("calls=") {
            of_callee = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            let instructions: u64 = line.split(' ').nth(1)?.parse().ok()?;
            if !std::mem::take(&mut of_callee) {
                *functions.entry(function).or_default() += instructions;
            }
        }
    }
    let instructions: u64 = functions.values().sum();
    let mut functions: Vec<(String, f64)> =
        functions.into_iter().map(|(function, count)| (function.to_owned(), count as f64 / units)).collect();
    functions.sort_by(|one, other| other.1.total_cmp(&one.1));
    (instructions > 0).then_some(Counted { row, instructions: instructions as f64 / units, functions })
}
