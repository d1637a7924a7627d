//! Headers as proxies send them, byte for byte, and random ones.

use proptest::prelude::*;

use super::*;

/// A version 2 header.
fn v2(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([version_command, family]);
    bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    bytes.extend(rest);
    bytes
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
    bytes.extend(value);
    bytes
}

/// 192.0.2.1:1000 to 192.0.2.2:8883.
const INET: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x03, 0xE8, 0x22, 0xB3];

fn inet_with(tlvs: &[Vec<u8>]) -> Vec<u8> {
    v2(0x21, 0x11, &[&INET[..], &tlvs.concat()].concat())
}

fn route(source: &str, destination: &str) -> Option<Route> {
    Some(Route { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
}

/// Reads a header with something behind it, and sees to it that each beginning of it is told to be one.
#[track_caller]
fn read(header: &[u8]) -> Header<'_> {
    for length in 0..header.len() {
        assert_eq!(parse(&header[..length]), Ok(None), "the first {length} bytes");
    }
    let read = parse(header).unwrap().expect("it is whole");
    assert_eq!(read.bytes, header.len());
    let mut longer = header.to_vec();
    longer.extend(b"\x10\x00");
    assert_eq!(parse(&longer), Ok(Some(read)));
    read
}

#[test]
fn lines_of_version_1() {
    let longest = format!("PROXY UNKNOWN {0} {0} 65535 65535\r\n", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    assert_eq!(longest.len(), 107);
    let table = [
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1000 1883\r\n", route("192.0.2.1:1000", "192.0.2.2:1883")),
        ("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n", route("255.255.255.255:65535", "0.0.0.0:0")),
        ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", route("[2001:db8::1]:1", "[::1]:2")),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN whatever it is\r\n", None),
        (&longest, None),
    ];
    for (line, expected) in table {
        let header = read(line.as_bytes());
        assert_eq!((header.route, header.alpn, header.authority, header.tls), (expected, None, None, None), "{line}");
    }
}

#[test]
fn lines_that_are_not_as_they_have_to_be_are_refused() {
    let table = [
        ("PROXY \r\n", "expected TCP4, TCP6 or UNKNOWN"),
        ("PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n", "expected TCP4"),
        ("PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "expected TCP4"),
        ("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", "expected two addresses"),
        ("PROXY TCP4 192.0.2.1\r\n", "expected two addresses"),
        ("PROXY TCP4 192.0.2.1 192.0.2.300 1 2\r\n", "expected two addresses"),
        ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", "expected two addresses"),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", "expected two addresses of the family"),
        ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", "expected two addresses of the family"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "expected two ports"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", "expected two ports"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", "expected two ports"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", "expected two ports"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", "expected nothing behind the ports"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", "expected nothing behind the ports"),
    ];
    for (line, expected) in table {
        let error = parse(line.as_bytes()).expect_err(line).to_string();
        assert!(error.contains(expected) && error.contains(line.trim_end_matches("\r\n")), "{line}: {error}");
    }
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 93]].concat();
    assert_eq!(parse(&endless[..106]), Ok(None));
    assert_eq!(parse(&endless), Err(ProxyError::EndlessLine));
    let late = [&endless[..106], b"\r\n"].concat();
    assert_eq!(parse(&late), Err(ProxyError::EndlessLine));
}

#[test]
fn what_is_no_header_is_refused_at_its_first_wrong_byte() {
    let connect = b"\x10\x0C\x00\x04MQTT\x04\x02\x00\x3C\x00\x00";
    let error = parse(connect).unwrap_err();
    assert_eq!(error, ProxyError::NoHeader { got: connect[..8].to_vec() });
    assert!(
        error.to_string().contains(r"begins with \x10\x0c\x00\x04MQTT, expected a PROXY protocol header"),
        "{error}"
    );
    for wrong in [&b"P\0"[..], b"GET / HTTP/1.1\r\n", b"PROXY\t", b"\r\n\r\n\0\r\nQUIT\r", b"\x16\x03\x01"] {
        assert!(matches!(parse(wrong), Err(ProxyError::NoHeader { .. })), "{wrong:?}");
    }
}

#[test]
fn addresses_of_version_2() {
    let inet6: Vec<u8> = [[0xFD; 16].as_slice(), &[0xFE; 16], &[0, 1, 0, 2]].concat();
    let fd = "[fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd]:1";
    let fe = "[fefe:fefe:fefe:fefe:fefe:fefe:fefe:fefe]:2";
    let table = [
        (v2(0x21, 0x11, &INET), route("192.0.2.1:1000", "192.0.2.2:8883")),
        (v2(0x21, 0x12, &INET), route("192.0.2.1:1000", "192.0.2.2:8883")),
        (v2(0x21, 0x21, &inet6), route(fd, fe)),
        (v2(0x21, 0x31, &[b'/'; 216]), None),
        (v2(0x21, 0x00, &[]), None),
        (v2(0x21, 0x01, b"of a kind without a name"), None),
        // The proxy's own connection: whatever follows is not looked at.
        (v2(0x20, 0x00, &[]), None),
        (v2(0x20, 0x11, &INET), None),
        (v2(0x20, 0xFF, b"anything"), None),
    ];
    for (bytes, expected) in table {
        let header = read(&bytes);
        assert_eq!(
            (header.route, header.alpn, header.authority, header.tls),
            (expected, None, None, None),
            "{bytes:?}"
        );
    }
}

#[test]
fn what_the_proxy_knows_of_tls() {
    let verified = [&[0x07, 0, 0, 0, 0][..], &tlv(0x21, b"TLSv1.3"), &tlv(0x22, "gerät-7".as_bytes())].concat();
    let more =
        [verified.as_slice(), &tlv(0x23, b"TLS_AES_128_GCM_SHA256"), &tlv(0x28, b"DER"), &tlv(0x2F, b"?")].concat();
    let bytes = inet_with(&[
        tlv(0x01, b"mqtt"),
        tlv(0x04, &[0; 3]),
        tlv(0x02, b"a.example"),
        tlv(0x20, &more),
        tlv(0xEA, b"x"),
    ]);
    let header = read(&bytes);
    assert_eq!((header.alpn, header.authority), (Some(&b"mqtt"[..]), Some("a.example")));
    let expected = Tls {
        version: Some("TLSv1.3"),
        cipher: Some("TLS_AES_128_GCM_SHA256"),
        verified: true,
        common_name: Some("gerät-7"),
        certificate: Some(b"DER"),
    };
    assert_eq!(header.tls, Some(expected));
}

#[test]
fn name_in_a_certificate_that_was_not_verified_is_nobodys() {
    let names = [tlv(0x22, b"admin"), tlv(0x28, b"DER")].concat();
    // No certificate; one that did not verify; one whose verification is claimed without a certificate.
    for (client, verify) in [(0x01, 1_u32), (0x03, 1), (0x05, 0x0100_0000), (0x01, 0)] {
        let value = [&[client][..], &verify.to_be_bytes(), &names].concat();
        let bytes = inet_with(&[tlv(0x20, &value)]);
        assert_eq!(read(&bytes).tls, Some(Tls::default()), "client {client:#x}, verify {verify:#x}");
    }
    let without_tls = inet_with(&[tlv(0x20, &[0x06, 0, 0, 0, 0])]);
    assert_eq!(read(&without_tls).tls, None);
}

#[test]
fn headers_that_are_not_as_they_have_to_be_are_refused() {
    let wrong_tlv = |kind, why| ProxyError::Tlv { kind, why };
    let twice = |kind| wrong_tlv(kind, "is there twice");
    let table = [
        (v2(0x11, 0x11, &INET), ProxyError::Version { got: 1 }),
        (v2(0x31, 0x11, &INET), ProxyError::Version { got: 3 }),
        (v2(0x22, 0x11, &INET), ProxyError::Command { got: 2 }),
        (v2(0x21, 0x13, &INET), ProxyError::Family { got: 0x13 }),
        (v2(0x21, 0x41, &INET), ProxyError::Family { got: 0x41 }),
        (v2(0x21, 0x11, &INET[..11]), ProxyError::Short { what: "addresses" }),
        (v2(0x21, 0x21, &INET), ProxyError::Short { what: "addresses" }),
        (v2(0x21, 0x31, &INET), ProxyError::Short { what: "addresses" }),
        (v2(0x21, 0x11, &[0; HEADER_BYTES_MAX - 15]), ProxyError::TooLong { declared: HEADER_BYTES_MAX + 1 }),
        (inet_with(&[vec![0x04, 0]]), ProxyError::Short { what: "TLVs" }),
        (inet_with(&[vec![0x04, 0, 2, 0]]), ProxyError::Short { what: "TLVs" }),
        (inet_with(&[tlv(0x01, b"a"), tlv(0x01, b"a")]), twice(0x01)),
        (inet_with(&[tlv(0x02, b"a"), tlv(0x02, b"b")]), twice(0x02)),
        (inet_with(&[tlv(0x20, &[1, 0, 0, 0, 0]), tlv(0x20, &[7, 0, 0, 0, 0])]), twice(0x20)),
        (inet_with(&[tlv(0x20, &[&[7, 0, 0, 0, 0][..], &tlv(0x22, b"a"), &tlv(0x22, b"b")].concat())]), twice(0x22)),
        (inet_with(&[tlv(0x20, &[1, 0, 0, 0])]), wrong_tlv(0x20, "has less than 5 bytes")),
        (inet_with(&[tlv(0x20, &[1, 0, 0, 0, 0, 0x21])]), ProxyError::Short { what: "TLVs" }),
        (inet_with(&[tlv(0x02, b"\xFF")]), wrong_tlv(0x02, "is not UTF-8")),
        (
            inet_with(&[tlv(0x20, &[&[7, 0, 0, 0, 0][..], &tlv(0x22, b"\xFF")].concat())]),
            wrong_tlv(0x22, "is not UTF-8"),
        ),
        (inet_with(&[tlv(0x03, &[0; 3])]), wrong_tlv(0x03, "has not 4 bytes")),
    ];
    for (bytes, expected) in table {
        assert_eq!(parse(&bytes), Err(expected), "{bytes:?}");
    }
    // What it declares is looked at before it is there: nobody has to be waited for.
    let declared = &v2(0x21, 0x11, &[0; HEADER_BYTES_MAX - 15])[..16];
    assert_eq!(parse(declared), Err(ProxyError::TooLong { declared: HEADER_BYTES_MAX + 1 }));
}

#[test]
fn checksum_is_compared() {
    // RFC 3720, appendix B.4.
    assert_eq!(v2::crc32c([0; 32]), 0x8A91_36AA);
    assert_eq!(v2::crc32c([0xFF; 32]), 0x62A8_AB43);
    assert_eq!(v2::crc32c(0..32), 0x46DD_794E);
    let mut bytes = inet_with(&[tlv(0x02, b"a.example"), tlv(0x03, &[0; 4]), tlv(0x01, b"mqtt")]);
    let at = bytes.len() - 11;
    let right = v2::crc32c(bytes.iter().copied());
    assert_eq!(parse(&bytes), Err(ProxyError::Checksum { got: 0, expected: right }));
    bytes[at..at + 4].copy_from_slice(&right.to_be_bytes());
    assert_eq!(read(&bytes).authority, Some("a.example"));
    bytes[16] ^= 1;
    assert!(matches!(parse(&bytes), Err(ProxyError::Checksum { got, .. }) if got == right));
}

/// Bytes that are a header, or nearly one.
fn nearly_a_header() -> impl Strategy<Value = Vec<u8>> {
    let lengths = 0..300_usize;
    let rest = lengths.prop_flat_map(|length| proptest::collection::vec(any::<u8>(), length));
    let kinds = prop_oneof![Just(0x11_u8), Just(0x21), Just(0x31), Just(0x00), any::<u8>()];
    let version_2 = (prop_oneof![Just(0x21_u8), Just(0x20), any::<u8>()], kinds, rest)
        .prop_map(|(version, family, rest)| v2(version, family, &rest));
    let tlvs = proptest::collection::vec((0_u8..0x30, proptest::collection::vec(any::<u8>(), 0..40)), 0..5);
    let with_tlvs = tlvs.prop_map(|tlvs| {
        let tlvs: Vec<_> = tlvs.iter().map(|(kind, value)| tlv(*kind, value)).collect();
        inet_with(&tlvs)
    });
    let version_1 = "PROXY (TCP4|TCP6|UNKNOWN)( [0-9a-f:.]{0,40}){0,5}\r\n?".prop_map(String::into_bytes);
    prop_oneof![version_2, with_tlvs, version_1, proptest::collection::vec(any::<u8>(), 0..40)]
}

proptest! {
    #[test]
    fn verdict_does_not_change_with_what_follows(bytes in nearly_a_header(), more in proptest::collection::vec(any::<u8>(), 0..20)) {
        let all = [bytes, more].concat();
        let verdict = parse(&all);
        for length in 0..all.len() {
            match parse(&all[..length]) {
                Ok(None) => {}
                Ok(Some(header)) => {
                    prop_assert!(header.bytes <= length);
                    prop_assert_eq!(&verdict, &Ok(Some(header)));
                }
                // The first bytes are shown, and there may be fewer than later.
                Err(ProxyError::NoHeader { .. }) => {
                    let alike = matches!(verdict, Err(ProxyError::NoHeader { .. }));
                    prop_assert!(alike);
                }
                Err(error) => prop_assert_eq!(&verdict, &Err(error)),
            }
        }
    }

    #[test]
    fn addresses_come_back(a in any::<u32>(), b in any::<u32>(), c in any::<u128>(), d in any::<u128>(), p in any::<u16>(), q in any::<u16>()) {
        let four = |bits: u32, port| SocketAddr::from((std::net::Ipv4Addr::from_bits(bits), port));
        let six = |bits: u128, port| SocketAddr::from((std::net::Ipv6Addr::from_bits(bits), port));
        let ports = [p.to_be_bytes(), q.to_be_bytes()].concat();
        let cases = [
            (four(a, p), four(b, q), [&a.to_be_bytes()[..], &b.to_be_bytes(), &ports].concat(), "TCP4", 0x11),
            (six(c, p), six(d, q), [&c.to_be_bytes()[..], &d.to_be_bytes(), &ports].concat(), "TCP6", 0x21),
        ];
        for (source, destination, binary, word, family) in cases {
            let expected = Some(Route { source, destination });
            let bytes = v2(0x21, family, &binary);
            prop_assert_eq!(parse(&bytes).unwrap().unwrap().route, expected);
            let line = format!("PROXY {word} {} {} {p} {q}\r\n", source.ip(), destination.ip());
            prop_assert_eq!(parse(line.as_bytes()).unwrap().unwrap().route, expected);
        }
    }
}
