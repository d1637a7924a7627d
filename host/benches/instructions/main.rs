//! How many instructions the main paths take: `cargo bench -p host --bench instructions`.
//!
//! Time depends on what else a machine does, and this does not: so CI compares it with what was counted before, which
//! stands in `counts.txt`. Who has changed a path says so by counting anew:
//!
//! ```sh
//! UPDATE_INSTRUCTIONS=1 cargo bench -p host --bench instructions
//! ```
//!
//! With names of rows, or parts of them, only these are counted, and the functions that the instructions are in are shown:
//! `cargo bench -p host --bench instructions -- pairs_qos1`. Wants valgrind.

#[path = "../broker/mod.rs"]
mod broker;
mod callgrind;
mod counts;
mod rows;

use std::process::{Command, ExitCode};

use counts::{Compared, Counts};

/// The first argument where this program is what is counted; then comes the name of the row.
const COUNTED: &str = "--counted";

/// Functions that are shown of a row.
const FUNCTIONS_SHOWN: usize = 25;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with('-')).collect();
    if let [first, name] = &arguments[..]
        && first == COUNTED
    {
        callgrind::run_row(name);
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("valgrind is not installed: nothing is counted");
        // Where nobody looks, what does not run has to fail.
        return if std::env::var_os("CI").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    match count_and_compare(&wanted) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions could not be counted: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `false` if more instructions are needed than were.
fn count_and_compare(wanted: &[&str]) -> Result<bool, String> {
    let counted = callgrind::count(wanted)?;
    let stored = Counts::read()?;
    let compiler = compiler()?;
    let compared = Compared::new(&counted, &stored);
    print!("{compared}");
    if !wanted.is_empty() {
        for counted in &counted {
            println!("\n{}: instructions per {}, by function", counted.row.name, counted.row.unit);
            for (function, instructions) in counted.functions.iter().take(FUNCTIONS_SHOWN) {
                println!("{instructions:10.1}  {function}");
            }
        }
    }
    if std::env::var_os("UPDATE_INSTRUCTIONS").is_some_and(|value| value != "0") {
        stored.updated(&counted, &compiler).write()?;
        println!("\n{} says so now.", counts::PATH);
        return Ok(true);
    }
    if stored.compiler != compiler {
        println!(
            "\n{} was made with {}, and this is {compiler}: no difference is an error. Count anew for this one, on a tree \
             without other changes:\n    {}",
            counts::PATH,
            stored.compiler,
            counts::UPDATE
        );
        return Ok(true);
    }
    println!("{}", compared.verdict());
    Ok(compared.is_fine())
}

/// What other instructions may come from, though nobody has changed anything: the compiler, and the C library, which
/// allocates.
fn compiler() -> Result<String, String> {
    let says = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        let output = output.map_err(|error| format!("{program} {argument}: {error}"))?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let (rustc, libc) = (says("rustc", "--version")?, says("getconf", "GNU_LIBC_VERSION")?);
    Ok(format!("{rustc} for {}, {libc}", std::env::consts::ARCH))
}
