//! Version 1 (§2.1): a line for people.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Header, ProxyError, Route};

/// How a header of this version begins.
pub(super) const BEGINNING: &[u8] = b"PROXY ";

/// The longest line with its end: two IPv6 addresses for a proxy that does not know them.
pub(super) const LINE_BYTES_MAX: usize = 107;

/// Reads a line that begins as [`BEGINNING`], or is the beginning of it.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header<'_>>, ProxyError> {
    let within = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(length) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if within.len() < LINE_BYTES_MAX { Ok(None) } else { Err(ProxyError::EndlessLine) };
    };
    let line = &within[..length];
    let route = route(line).map_err(|why| ProxyError::Line { got: String::from_utf8_lossy(line).into_owned(), why })?;
    Ok(Some(Header { bytes: length + 2, route, alpn: None, authority: None, tls: None }))
}

fn route(line: &[u8]) -> Result<Option<Route>, &'static str> {
    let line = str::from_utf8(line).map_err(|_| "it is not ASCII")?;
    let mut words = line.split(' ').skip(1);
    let parse_ip: fn(&str) -> Option<IpAddr> = match words.next() {
        // What follows has to be ignored.
        Some("UNKNOWN") => return Ok(None),
        Some("TCP4") => |word| word.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        Some("TCP6") => |word| word.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => return Err("expected TCP4, TCP6 or UNKNOWN behind PROXY"),
    };
    let mut ip = || words.next().and_then(parse_ip).ok_or("expected two addresses of the family that it names");
    let (source, destination) = (ip()?, ip()?);
    let mut port = || words.next().and_then(port).ok_or("expected two ports from 0 to 65535 behind the addresses");
    let (source, destination) = (SocketAddr::new(source, port()?), SocketAddr::new(destination, port()?));
    match words.next() {
        None => Ok(Some(Route { source, destination })),
        Some(_) => Err("expected nothing behind the ports"),
    }
}

/// A number without sign and leading zeros, so that everybody reads the same.
fn port(word: &str) -> Option<u16> {
    let canonical = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| canonical)
}
