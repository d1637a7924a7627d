//! The first door of listeners behind a proxy: what its header says becomes what is known of the peer.

use std::net::SocketAddr;

use crate::core::peer::{ClientCertificate, PeerDetails, TlsDetails};
use crate::io::bind;
use crate::io::tls::valid_certificate;
use crate::proxy::{self, Header, Tls};

/// Reads the header that what was read begins with, takes it off, and notes what it says. `false`: there is more to come.
/// What it says of TLS counts only if that has ended at the proxy: there may be two connections with TLS, and the one that
/// comes here is the one that was verified here.
pub(super) fn read(
    unread: &mut Vec<u8>,
    peer: &mut SocketAddr,
    details: &mut PeerDetails,
    tls_ended: bool,
) -> Result<bool, String> {
    let Some(header) = proxy::parse(unread).map_err(|error| error.to_string())? else { return Ok(false) };
    if let Some(route) = header.route {
        details.proxy = Some(std::mem::replace(peer, bind::canonical(route.source)));
    }
    if tls_ended {
        details.tls = tls(&header)?.map(Box::new);
    }
    let bytes = header.bytes;
    unread.drain(..bytes);
    Ok(true)
}

/// What TLS has agreed on between client and proxy. The error says what is wrong with a certificate.
fn tls(header: &Header<'_>) -> Result<Option<TlsDetails>, String> {
    if header.tls.is_none() && header.authority.is_none() && header.alpn.is_none() {
        return Ok(None);
    }
    let Tls { version, cipher, common_name, certificate, .. } = header.tls.unwrap_or_default();
    let certificate = match certificate {
        Some(der) => Some(valid_certificate(&der.into())?),
        None => common_name.map(named),
    };
    Ok(Some(TlsDetails {
        version: version.unwrap_or_default().into(),
        cipher_suite: cipher.unwrap_or_default().into(),
        server_name: header.authority.map(Into::into),
        alpn: header.alpn.map(Into::into),
        certificate: certificate.map(Box::new),
    }))
}

/// A certificate of which only the common name is known.
fn named(common_name: &str) -> ClientCertificate {
    ClientCertificate {
        subject: format!("CN={}", escape(common_name)).into(),
        common_name: Some(common_name.into()),
        ..ClientCertificate::default()
    }
}

/// A value as RFC 4514 has it (section 2.4).
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for (at, char) in value.char_indices() {
        let at_an_end = at == 0 || at + char.len_utf8() == value.len();
        match char {
            '\0' => escaped.push_str("\\00"),
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => escaped.extend(['\\', char]),
            ' ' if at_an_end => escaped.push_str("\\ "),
            '#' if at == 0 => escaped.push_str("\\#"),
            _ => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.7:40000";

    fn read_all_of(bytes: &[u8], tls_ended: bool) -> (bool, Vec<u8>, SocketAddr, PeerDetails) {
        let (mut unread, mut peer, mut details) = (bytes.to_vec(), PROXY.parse().unwrap(), PeerDetails::default());
        let through = read(&mut unread, &mut peer, &mut details, tls_ended).unwrap();
        (through, unread, peer, details)
    }

    fn read_all(bytes: &[u8]) -> (bool, Vec<u8>, SocketAddr, PeerDetails) {
        read_all_of(bytes, true)
    }

    #[test]
    fn peer_is_who_the_proxy_says() {
        let (through, unread, peer, details) = read_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 1883\r\nMQTT");
        assert!(through);
        assert_eq!((&unread[..], peer), (&b"MQTT"[..], "192.0.2.1:1000".parse().unwrap()));
        let proxy = Some(PROXY.parse().unwrap());
        assert_eq!(details, PeerDetails { proxy, ..PeerDetails::default() });
        let mapped = b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1000 1883\r\n";
        assert_eq!(read_all(mapped).2, "192.0.2.1:1000".parse().unwrap());
    }

    #[test]
    fn proxy_that_speaks_for_itself_is_the_peer() {
        for own in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"] {
            let (through, unread, peer, details) = read_all(own);
            assert!(through && unread.is_empty());
            assert_eq!((peer, details), (PROXY.parse().unwrap(), PeerDetails::default()));
        }
    }

    #[test]
    fn beginning_of_a_header_stays() {
        let (through, unread, peer, details) = read_all(b"PROXY TCP4 192.0.2.1");
        assert!(!through);
        let expected = (&b"PROXY TCP4 192.0.2.1"[..], PROXY.parse().unwrap(), PeerDetails::default());
        assert_eq!((&unread[..], peer, details), expected);
    }

    #[test]
    fn what_the_proxy_knows_of_tls_is_told() {
        let tlv = |kind: u8, value: &[u8]| [&[kind, 0, u8::try_from(value.len()).unwrap()], value].concat();
        let names = [tlv(0x21, b"TLSv1.2"), tlv(0x22, b"a, b"), tlv(0x23, b"ECDHE-RSA-AES128-GCM-SHA256")].concat();
        let ssl = tlv(0x20, &[&[7, 0, 0, 0, 0][..], &names].concat());
        let tlvs = [tlv(0x01, b"mqtt"), tlv(0x02, b"mqtt.example"), ssl].concat();
        let addresses = [192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2];
        let length = u8::try_from(addresses.len() + tlvs.len()).unwrap();
        let header = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00"[..], &[length], &addresses, &tlvs].concat();
        let (_, _, _, details) = read_all(&header);
        let tls = details.tls.expect("the proxy has said something");
        assert_eq!((&*tls.version, &*tls.cipher_suite), ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256"));
        assert_eq!((tls.server_name.as_deref(), tls.alpn.as_deref()), (Some("mqtt.example"), Some(&b"mqtt"[..])));
        let certificate = tls.certificate.expect("it was verified");
        assert_eq!((&*certificate.subject, certificate.common_name.as_deref()), ("CN=a\\, b", Some("a, b")));
        assert_eq!(read_all_of(&header, false).3.tls, None, "TLS ends here");
    }

    #[test]
    fn certificate_that_the_proxy_sends_is_read() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "sensor-7");
        let der = params.self_signed(&key).unwrap().der().to_vec();
        for (der, makes_sense) in [(&der[..], true), (&der[1..], false)] {
            let length = u16::try_from(der.len()).unwrap().to_be_bytes();
            let certificate = [&[0x28], &length[..], der].concat();
            let value = [&[7, 0, 0, 0, 0][..], &certificate].concat();
            let length = u16::try_from(value.len()).unwrap().to_be_bytes();
            let rest = [&[192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2, 0x20][..], &length, &value].concat();
            let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
            let mut unread = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &length, &rest].concat();
            let mut details = PeerDetails::default();
            let read = read(&mut unread, &mut PROXY.parse().unwrap(), &mut details, true);
            if makes_sense {
                assert_eq!(read, Ok(true));
                let certificate = details.certificate().expect("it was sent");
                assert_eq!(certificate.common_name.as_deref(), Some("sensor-7"));
                assert_eq!(&*certificate.alternative_names[0].name, "a.example");
                assert_ne!(certificate.sha256, [0; 32]);
            } else {
                assert!(read.unwrap_err().contains("makes no sense"));
                assert_eq!(details.tls, None);
            }
        }
    }

    #[test]
    fn names_are_escaped() {
        for (name, expected) in [
            ("sensor-7", "sensor-7"),
            ("", ""),
            ("a b", "a b"),
            (" ", "\\ "),
            (" a ", "\\ a\\ "),
            ("#a#", "\\#a#"),
            ("a\0b", "a\\00b"),
            ("admin,O=Example", "admin\\,O=Example"),
            ("\"<é>\";+\\", "\\\"\\<é\\>\\\"\\;\\+\\\\"),
        ] {
            assert_eq!(escape(name), expected, "{name:?}");
        }
    }
}
