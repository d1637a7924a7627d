//! Checks of configurations that a type cannot say.

use plugin_api::config::ConfigError;

/// Checks that a number is in its bounds, which count as well.
///
/// # Errors
/// It is not.
pub fn within(path: &str, got: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&got) {
        return Ok(());
    }
    Err(ConfigError::new(path, format!("got {got}, expected {min} to {max}")))
}

/// Checks each entry of a list, which gets its path.
///
/// # Errors
/// The first fault.
pub fn each<A, B>(
    path: &str,
    entries: impl IntoIterator<Item = A>,
    check: impl Fn(A, &str) -> Result<B, ConfigError>,
) -> Result<Vec<B>, ConfigError> {
    entries.into_iter().enumerate().map(|(number, entry)| check(entry, &format!("{path}[{number}]"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named_with_their_place() {
        let check = |number: u64, path: &str| within(path, number, 1, 5);
        assert_eq!(each("numbers", [1, 5], check), Ok(vec![(), ()]));
        for wrong in [0, 6] {
            let error = each("numbers", [1, wrong], check).expect_err("out of bounds");
            assert_eq!(error, ConfigError::new("numbers[1]", format!("got {wrong}, expected 1 to 5")));
        }
    }
}
