//! What a handshake has found out about a client.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use rustls::{CommonState, ProtocolVersion};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::core::peer::{AlternativeName, ClientCertificate, NameKind, TlsDetails};

/// What a handshake that is over has led to.
///
/// # Errors
/// The session that was resumed belongs to a certificate that is not valid any more, or the certificate makes no sense.
pub(super) fn details(state: &CommonState, server_name: Option<Box<str>>) -> Result<TlsDetails, String> {
    let version = match state.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "",
    };
    let suite = state.negotiated_cipher_suite();
    let certificate = match state.peer_certificates() {
        Some([first, ..]) => Some(Box::new(valid_certificate(first)?)),
        _ => None,
    };
    Ok(TlsDetails {
        version: version.into(),
        cipher_suite: suite.and_then(|suite| suite.suite().as_str()).unwrap_or_default().into(),
        server_name,
        alpn: state.alpn_protocol().map(Into::into),
        certificate,
    })
}

/// What a certificate says that has been verified, when its session began at the latest.
///
/// # Errors
/// It makes no sense, or is not valid any more: a session may outlive it.
pub(in crate::io) fn valid_certificate(der: &CertificateDer<'_>) -> Result<ClientCertificate, String> {
    let certificate = certificate(der)?;
    if certificate.not_after_secs < now_secs() {
        return Err("the certificate has expired since its session began".to_owned());
    }
    Ok(certificate)
}

fn certificate(der: &CertificateDer<'_>) -> Result<ClientCertificate, String> {
    let (_, parsed) =
        X509Certificate::from_der(der).map_err(|error| format!("its certificate makes no sense: {error}"))?;
    let names =
        parsed.subject_alternative_name().map_err(|error| format!("its alternative names make no sense: {error}"))?;
    let names = names.map(|found| found.value.general_names.iter().filter_map(alternative_name).collect::<Vec<_>>());
    let common_name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    Ok(ClientCertificate {
        subject: subject_text(parsed.subject()).into(),
        common_name: common_name.map(Into::into),
        alternative_names: names.unwrap_or_default().into(),
        sha256: sha256(der),
        serial: parsed.raw_serial().into(),
        not_after_secs: u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0),
    })
}

fn alternative_name(name: &GeneralName<'_>) -> Option<AlternativeName> {
    let (kind, name) = match name {
        GeneralName::DNSName(name) => (NameKind::Dns, (*name).to_owned()),
        GeneralName::RFC822Name(name) => (NameKind::Email, (*name).to_owned()),
        GeneralName::URI(name) => (NameKind::Uri, (*name).to_owned()),
        GeneralName::IPAddress(bytes) => (NameKind::Ip, ip_text(bytes)?),
        _ => return None,
    };
    Some(AlternativeName { kind, name: name.into() })
}

fn ip_text(bytes: &[u8]) -> Option<String> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(bytes).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).to_string())
}

/// A name as text by RFC 4514: the most particular part first.
fn subject_text(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let relative_names: Vec<_> = name.iter_rdn().collect();
    for (place, relative_name) in relative_names.into_iter().rev().enumerate() {
        for (number, attribute) in relative_name.iter().enumerate() {
            match (place, number) {
                (0, 0) => {}
                (_, 0) => text.push(','),
                _ => text.push('+'),
            }
            push_attribute(&mut text, attribute);
        }
    }
    text
}

/// The types that have a short name there.
const SHORT_NAMES: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

fn push_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let oid = attribute.attr_type().to_id_string();
    let short = SHORT_NAMES.iter().find(|(known, _)| *known == oid);
    text.push_str(short.map_or(oid.as_str(), |(_, short)| short));
    text.push('=');
    match attribute.as_str() {
        Ok(value) if short.is_some() => push_escaped(text, value),
        _ => {
            // What has no short name, or is no text, stands there as it is encoded.
            text.push('#');
            let value = attribute.attr_value();
            for byte in der_of(value) {
                let _ = write!(text, "{byte:02x}");
            }
        }
    }
}

/// The encoding of a value: type, length and content.
fn der_of(value: &x509_parser::der_parser::asn1_rs::Any<'_>) -> Vec<u8> {
    use x509_parser::der_parser::asn1_rs::ToDer;
    value.to_der_vec().unwrap_or_else(|_| value.data.to_vec())
}

fn push_escaped(text: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (place, character) in value.chars().enumerate() {
        let is_special = matches!(character, '"' | '+' | ',' | ';' | '<' | '>' | '\\')
            || place == 0 && matches!(character, ' ' | '#')
            || place == last && character == ' ';
        match character {
            '\0' => text.push_str("\\00"),
            _ if is_special => text.extend(['\\', character]),
            _ => text.push(character),
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let hash = TLS13_AES_128_GCM_SHA256.tls13().map(|suite| suite.common.hash_provider.hash(bytes));
    hash.and_then(|hash| hash.as_ref().try_into().ok()).unwrap_or_default()
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    use super::*;

    #[test]
    fn names_of_a_certificate_are_told_as_text() {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in [
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, " Example, \"Ltd\"; "),
            (DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1]), "#7"),
            (DnType::CommonName, "sénsor+7"),
        ] {
            params.distinguished_name.push(kind, DnValue::Utf8String(value.to_owned()));
        }
        params
            .distinguished_name
            .push(DnType::CustomDnType(vec![2, 5, 4, 5]), DnValue::PrintableString("12".try_into().unwrap()));
        let ia5 = |text: &str| Ia5String::try_from(text.to_owned()).unwrap();
        params.subject_alt_names = vec![
            SanType::DnsName(ia5("a.example")),
            SanType::Rfc822Name(ia5("me@a.example")),
            SanType::URI(ia5("urn:x:1")),
            SanType::IpAddress("192.0.2.1".parse().unwrap()),
            SanType::IpAddress("2001:db8::1".parse().unwrap()),
        ];
        params.serial_number = Some(vec![1, 2, 255].into());
        params.not_after = rcgen::date_time_ymd(2040, 1, 2);
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
        let found = certificate(&der).unwrap();
        assert_eq!(&*found.subject, "2.5.4.5=#13023132,CN=sénsor\\+7,UID=\\#7,O=\\ Example\\, \\\"Ltd\\\"\\;\\ ,C=DE");
        assert_eq!(found.common_name.as_deref(), Some("sénsor+7"));
        let names: Vec<_> = found.alternative_names.iter().map(|name| (name.kind, &*name.name)).collect();
        let expected = [
            (NameKind::Dns, "a.example"),
            (NameKind::Email, "me@a.example"),
            (NameKind::Uri, "urn:x:1"),
            (NameKind::Ip, "192.0.2.1"),
            (NameKind::Ip, "2001:db8::1"),
        ];
        assert_eq!(names, expected);
        assert_eq!((&*found.serial, found.not_after_secs), (&[1, 2, 255][..], 2_209_075_200));
        assert_eq!(sha256(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
