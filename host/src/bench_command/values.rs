//! What the options of `host bench` take: numbers, times and names, and what is said of others.

use std::time::Duration;

use host::bench::Traffic;
use host::codec::ProtocolVersion;
use host::limits::parse_time;

/// More of each would be a mistake.
const CONNECTIONS_MAX: u32 = 1_000_000;
pub(super) const MESSAGES_MAX: u32 = 100_000_000;
const AT_ONCE_MAX: usize = 10_000;
const PAYLOAD_BYTES_MAX: usize = 16 << 20;
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn connections() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX))
}

pub(super) fn messages() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(MESSAGES_MAX))
}

pub(super) fn at_once(typed: &str) -> Result<usize, String> {
    let number = typed.parse().ok().filter(|number| (1..=AT_ONCE_MAX).contains(number));
    number.ok_or_else(|| format!("expected a number from 1 to {AT_ONCE_MAX}"))
}

pub(super) fn version(typed: &str) -> Result<ProtocolVersion, String> {
    match typed {
        "3.1" | "31" | "3" => Ok(ProtocolVersion::V3_1),
        "3.1.1" | "311" | "4" => Ok(ProtocolVersion::V3_1_1),
        "5" | "5.0" => Ok(ProtocolVersion::V5),
        _ => Err("expected 3.1, 3.1.1 or 5".to_owned()),
    }
}

pub(super) fn payload_bytes(typed: &str) -> Result<usize, String> {
    let range = Traffic::PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX;
    let bytes = typed.parse().ok().filter(|bytes| range.contains(bytes));
    bytes.ok_or_else(|| format!("expected a number of bytes from {} to {}", range.start(), range.end()))
}

pub(super) fn rate(typed: &str) -> Result<f64, String> {
    let rate = typed.parse().ok().filter(|rate| (0.001..=1e9).contains(rate));
    rate.ok_or_else(|| "expected a number of messages a second, such as 5000".to_owned())
}

pub(super) fn name(typed: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if typed.is_empty() || typed.len() > 100 || !typed.bytes().all(is_plain) {
        return Err("expected up to 100 letters, digits, `-`, `_` or `.`".to_owned());
    }
    Ok(typed.to_owned())
}

/// Seconds, with a fraction or without, or with a unit.
pub(super) fn secs_or_none(typed: &str) -> Result<Duration, String> {
    let secs = typed.parse().ok().and_then(|secs| Duration::try_from_secs_f64(secs).ok());
    let time = secs.or_else(|| parse_time(typed)).filter(|time| *time <= TIME_MAX);
    time.ok_or_else(|| "expected a number of seconds, such as 5 or 0.5, or a time such as 2min".to_owned())
}

pub(super) fn secs(typed: &str) -> Result<Duration, String> {
    let time = secs_or_none(typed)?;
    if time < Duration::from_millis(10) { Err("expected at least 0.01".to_owned()) } else { Ok(time) }
}

pub(super) fn positive_time(typed: &str) -> Result<Duration, String> {
    let time = parse_time(typed).filter(|time| !time.is_zero() && *time <= TIME_MAX);
    time.ok_or_else(|| "expected a time from 1ms to 1d, such as 500ms or 10s".to_owned())
}
