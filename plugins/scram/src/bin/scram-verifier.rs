//! Reads a password from standard input, and writes what the configuration of `scram` has of it.

use std::io::{Read, Write};
use std::num::NonZeroU32;
use std::process::ExitCode;

use ring::rand::{SecureRandom, SystemRandom};
use scram::Verifier;
use zeroize::Zeroizing;

const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

fn main() -> ExitCode {
    match make() {
        Ok(verifier) => match writeln!(std::io::stdout(), "{verifier}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "scram-verifier: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn make() -> Result<Verifier, String> {
    let mut password = Zeroizing::new(String::new());
    std::io::stdin().read_to_string(&mut password).map_err(|error| format!("the password cannot be read: {error}"))?;
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).map_err(|_| "the system has no random numbers")?;
    Verifier::new(&password, &salt, ROUNDS).map_err(|problem| format!("this cannot be a password: {problem}"))
}
