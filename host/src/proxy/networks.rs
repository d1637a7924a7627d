//! Networks of addresses, as a configuration names them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Addresses that begin with the same bits, such as `10.0.0.0/8`, `fd00::/8` or the single `192.0.2.7`; or `unix`, which is
/// whoever may connect to a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unix,
    Ip {
        /// With zeros behind the prefix.
        address: IpAddr,
        prefix_bits: u8,
    },
}

impl Network {
    /// Whether the address is one of these. `None` stands for the peer at a Unix socket.
    #[must_use]
    pub fn contains(&self, peer: Option<IpAddr>) -> bool {
        match (self.0, peer.map(|peer| peer.to_canonical())) {
            (Kind::Unix, None) => true,
            (Kind::Ip { address, prefix_bits }, Some(peer)) => {
                peer.is_ipv4() == address.is_ipv4() && masked(peer, prefix_bits) == address
            }
            _ => false,
        }
    }
}

/// The address with zeros behind its first `prefix_bits`.
fn masked(address: IpAddr, prefix_bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() & mask(prefix_bits, 32) as u32).into()),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask(prefix_bits, 128))),
    }
}

/// Ones in the first `ones` of `width` bits.
fn mask(ones: u8, width: u8) -> u128 {
    let zeros = u32::from(width.saturating_sub(ones));
    u128::MAX.checked_shl(zeros).unwrap_or(0)
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unix" {
            return Ok(Self(Kind::Unix));
        }
        let expected = || {
            format!("`{text}`: expected an address or a network, such as 192.0.2.7, 10.0.0.0/8 or fd00::/8, or unix")
        };
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| expected())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => width,
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= width)
                .ok_or_else(|| format!("`{text}`: expected a number of bits from 0 to {width} behind the /"))?,
        };
        if address != address.to_canonical() {
            return Err(format!("`{text}`: write the IPv4 address itself, without ::ffff:"));
        }
        let first = masked(address, prefix_bits);
        if first != address {
            return Err(format!(
                "`{text}` is an address within a network: did you mean {first}/{prefix_bits}, or {address}?"
            ));
        }
        Ok(Self(Kind::Ip { address, prefix_bits }))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Unix => f.write_str("unix"),
            Kind::Ip { address, prefix_bits } => write!(f, "{address}/{prefix_bits}"),
        }
    }
}

/// Several networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<Network>);

impl Networks {
    /// Whether the address is in one of them. `None` stands for the peer at a Unix socket.
    #[must_use]
    pub fn contains(&self, peer: Option<IpAddr>) -> bool {
        self.0.iter().any(|network| network.contains(peer))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_begins_alike() {
        let table: [(&str, &[&str], &[&str]); 9] = [
            ("10.0.0.0/8", &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], &["11.0.0.0", "9.255.255.255", "a00::"]),
            ("192.0.2.7", &["192.0.2.7", "::ffff:192.0.2.7"], &["192.0.2.6", "192.0.2.8"]),
            ("192.0.2.6/31", &["192.0.2.6", "192.0.2.7"], &["192.0.2.5", "192.0.2.8"]),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::", "::1"]),
            ("::/0", &["::", "ff::1"], &["0.0.0.0", "::ffff:10.0.0.1"]),
            ("::1", &["::1"], &["::", "::2", "127.0.0.1"]),
            ("fd00::/8", &["fd00::", "fdff:ffff::1"], &["fc00::", "fe00::"]),
            ("2001:db8:1::/47", &["2001:db8::1", "2001:db8:1::"], &["2001:db8:2::"]),
            ("unix", &[], &["127.0.0.1", "::1"]),
        ];
        for (text, inside, outside) in table {
            let Ok(network) = text.parse::<Network>() else {
                assert_eq!(text, "2001:db8:1::/47");
                continue;
            };
            for address in inside {
                assert!(network.contains(Some(address.parse().unwrap())), "{address} in {text}");
            }
            for address in outside {
                assert!(!network.contains(Some(address.parse().unwrap())), "{address} in {text}");
            }
            assert_eq!(network.contains(None), text == "unix", "{text}");
            assert_eq!(network.to_string().parse(), Ok(network), "{text}");
        }
        let several = Networks(vec!["10.0.0.0/8".parse().unwrap(), "unix".parse().unwrap()]);
        assert!(several.contains(None) && several.contains(Some([10, 0, 0, 1].into())));
        assert!(!several.contains(Some([127, 0, 0, 1].into())) && !several.is_empty());
        assert!(!Networks::default().contains(None) && Networks::default().is_empty());
    }

    #[test]
    fn mistakes_are_explained() {
        let table = [
            ("", "expected an address or a network"),
            ("localhost", "expected an address or a network"),
            ("10.0.0.0/33", "expected a number of bits from 0 to 32"),
            ("::/129", "from 0 to 128"),
            ("10.0.0.0/", "from 0 to 32"),
            ("10.0.0.1/8", "did you mean 10.0.0.0/8, or 10.0.0.1?"),
            ("2001:db8:1::/47", "did you mean 2001:db8::/47"),
            ("::ffff:10.0.0.1", "without ::ffff:"),
            ("[::1]", "expected an address"),
        ];
        for (text, expected) in table {
            let error = text.parse::<Network>().expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
