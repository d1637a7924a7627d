//! Version 2 (§2.2): bytes for programs, with more to say.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{HEADER_BYTES_MAX, Header, ProxyError, Route, Tls};

/// How a header of this version begins.
pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length of the rest.
const FIXED_BYTES: usize = 16;

/// Unspecified, stream, datagram.
const MOST_TRANSPORT: u8 = 2;

// Types of TLVs.
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
const SSL_CLIENT_CERT: u8 = 0x28;

// Bits of the SSL TLV's `client`.
const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERT_CONN: u8 = 0x02;
const CLIENT_CERT_SESS: u8 = 0x04;

/// Reads a header that begins as [`SIGNATURE`], or is the beginning of it.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header<'_>>, ProxyError> {
    let Some((fixed, _)) = bytes.split_first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let (version, command, family) = (fixed[12] >> 4, fixed[12] & 0x0F, fixed[13]);
    if version != 2 {
        return Err(ProxyError::Version { got: version });
    }
    if command > 1 {
        return Err(ProxyError::Command { got: command });
    }
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > HEADER_BYTES_MAX {
        return Err(ProxyError::TooLong { declared: length });
    }
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    let is_local = command == 0;
    let is_unspecified = family >> 4 == 0 && family & 0x0F <= MOST_TRANSPORT;
    if is_local || is_unspecified {
        // The proxy's own connection, or one of a kind without a name: whatever else is said has to be discarded.
        return Ok(Some(Header { bytes: length, route: None, alpn: None, authority: None, tls: None }));
    }
    let mut rest = &header[FIXED_BYTES..];
    let route = route(family, &mut rest)?;
    let mut read = Header { bytes: length, route, alpn: None, authority: None, tls: None };
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let (kind, value) = tlv(&mut rest)?;
        if !matches!(kind, ALPN | AUTHORITY | CRC32C | SSL) {
            continue;
        }
        if seen.contains(&kind) {
            return Err(ProxyError::Tlv { kind, why: "is there twice" });
        }
        seen.push(kind);
        match kind {
            ALPN => read.alpn = Some(value),
            AUTHORITY => read.authority = Some(text(kind, value)?),
            CRC32C => check(header, value)?,
            _ => read.tls = tls(value)?,
        }
    }
    Ok(Some(read))
}

/// Takes the addresses off.
fn route(family: u8, rest: &mut &[u8]) -> Result<Option<Route>, ProxyError> {
    // Streams and datagrams (QUIC) alike: what is passed on to us is a stream.
    match family >> 4 {
        _ if family & 0x0F > MOST_TRANSPORT => Err(ProxyError::Family { got: family }),
        1 => {
            let (a, b, ports) = (take::<4>(rest)?, take::<4>(rest)?, take(rest)?);
            Ok(Some(routed(Ipv4Addr::from(a), Ipv4Addr::from(b), ports)))
        }
        2 => {
            let (a, b, ports) = (take::<16>(rest)?, take::<16>(rest)?, take(rest)?);
            Ok(Some(routed(Ipv6Addr::from(a), Ipv6Addr::from(b), ports)))
        }
        // Two paths of Unix sockets: the client is on the proxy's machine, and has no address.
        3 => take::<216>(rest).map(|_| None),
        _ => Err(ProxyError::Family { got: family }),
    }
}

fn routed<I: Into<std::net::IpAddr>>(source: I, destination: I, [a, b, c, d]: [u8; 4]) -> Route {
    Route {
        source: SocketAddr::new(source.into(), u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination.into(), u16::from_be_bytes([c, d])),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], ProxyError> {
    let (taken, left) = rest.split_first_chunk().ok_or(ProxyError::Short { what: "addresses" })?;
    *rest = left;
    Ok(*taken)
}

/// Takes the next TLV off: its type and its value.
fn tlv<'a>(rest: &mut &'a [u8]) -> Result<(u8, &'a [u8]), ProxyError> {
    let short = || ProxyError::Short { what: "TLVs" };
    let (&[kind, high, low], left) = rest.split_first_chunk().ok_or_else(short)?;
    let (value, left) = left.split_at_checked(u16::from_be_bytes([high, low]).into()).ok_or_else(short)?;
    *rest = left;
    Ok((kind, value))
}

fn text(kind: u8, value: &[u8]) -> Result<&str, ProxyError> {
    str::from_utf8(value).map_err(|_| ProxyError::Tlv { kind, why: "is not UTF-8" })
}

/// The TLV of TLS, and those in it (§2.2.6).
fn tls(value: &[u8]) -> Result<Option<Tls<'_>>, ProxyError> {
    let short = ProxyError::Tlv { kind: SSL, why: "has less than 5 bytes" };
    let (&[client, verify @ ..], mut rest) = value.split_first_chunk::<5>().ok_or(short)?;
    // Zero, if a certificate was presented and verified, on this connection or on the one whose session is resumed.
    let verified = verify == [0; 4] && client & (CLIENT_CERT_CONN | CLIENT_CERT_SESS) != 0;
    let mut tls = Tls { verified, ..Tls::default() };
    while !rest.is_empty() {
        let (kind, value) = tlv(&mut rest)?;
        let twice = match kind {
            SSL_VERSION => tls.version.replace(text(kind, value)?).is_some(),
            SSL_CIPHER => tls.cipher.replace(text(kind, value)?).is_some(),
            SSL_CN => tls.common_name.replace(text(kind, value)?).is_some(),
            SSL_CLIENT_CERT => tls.certificate.replace(value).is_some(),
            _ => false,
        };
        if twice {
            return Err(ProxyError::Tlv { kind, why: "is there twice" });
        }
    }
    if !verified {
        (tls.common_name, tls.certificate) = (None, None);
    }
    Ok(Some(tls).filter(|_| client & CLIENT_SSL != 0))
}

/// Compares the checksum (§2.2.4), which is of all bytes of the header with zeros in its own place.
fn check(header: &[u8], value: &[u8]) -> Result<(), ProxyError> {
    let wrong = ProxyError::Tlv { kind: CRC32C, why: "has not 4 bytes" };
    let got = u32::from_be_bytes(value.try_into().map_err(|_| wrong)?);
    let at = value.as_ptr().addr() - header.as_ptr().addr();
    let own = at..at + 4;
    let bytes = header.iter().enumerate().map(|(place, byte)| if own.contains(&place) { 0 } else { *byte });
    let expected = crc32c(bytes);
    if got == expected { Ok(()) } else { Err(ProxyError::Checksum { got, expected }) }
}

/// CRC-32C (RFC 3720, appendix B.4), bit by bit: one short header for each connection.
pub(super) fn crc32c(bytes: impl IntoIterator<Item = u8>) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
    let byte = |crc: u32, byte: u8| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc));
    !bytes.into_iter().fold(!0, byte)
}
