//! What is known of a peer besides its address: who is shown it, and what it decides.

use std::sync::Arc;
use std::time::Duration;

use super::net::connect_packet;
use super::*;
use crate::core::UsernameFrom;
use crate::core::peer::{
    AlternativeName, ClientCertificate, HttpDetails, HttpHeader, NameKind, PeerDetails, TlsDetails, TransportKind,
};
use crate::plugin::Flip;

fn certificate() -> ClientCertificate {
    let name = |kind, name: &str| AlternativeName { kind, name: name.into() };
    ClientCertificate {
        subject: "CN=sensor-7,O=Example".into(),
        common_name: Some("sensor-7".into()),
        alternative_names: [
            name(NameKind::Dns, "a.example"),
            name(NameKind::Dns, "b.example"),
            name(NameKind::Uri, "spiffe://x/7"),
        ]
        .into(),
        not_after_secs: 1,
        ..ClientCertificate::default()
    }
}

fn details(certificate: Option<ClientCertificate>) -> PeerDetails {
    let agent = HttpHeader { name: "User-Agent".into(), value: b"browser".to_vec().into() };
    PeerDetails {
        transport: TransportKind::Wss,
        tls: Some(Box::new(TlsDetails {
            version: "TLSv1.3".into(),
            server_name: Some("mqtt.example".into()),
            certificate: certificate.map(Box::new),
            ..TlsDetails::default()
        })),
        http: Some(Box::new(HttpDetails { path: "/mqtt".into(), headers: [agent].into() })),
        proxy: Some(([192, 0, 2, 1], 7).into()),
        ..PeerDetails::default()
    }
}

/// With a connection that goes to another worker they go along, and an instance that takes it over is shown them; but of the
/// request nothing is left once CONNECT has been answered.
#[test]
fn handlers_are_shown_how_a_connection_has_come() {
    let shown = |when: &str, path: &str, agent: &str| {
        let tls = "Tls { version: \"TLSv1.3\", cipher_suite: \"\", server_name: Some(\"mqtt.example\"), \
                   certificate: Some(Certificate { subject: \"CN=sensor-7,O=Example\", .. }), .. }";
        let names = "[(Dns, \"a.example\"), (Dns, \"b.example\"), (Uri, \"spiffe://x/7\")]";
        format!(
            "{when} Transport {{ kind: Wss, tls: Some({tls}), path: {path}, unix: None, proxy: Some(192.0.2.1:7) }} \
             {names} {agent}"
        )
    };
    scenario(|net| {
        net.details = Some(details(Some(certificate())));
        let client = net.open(V5);
        net.send(client, &connect_packet(V5, "02", 0, "", "c"));
        net.expect(client, CONNACK);
        let path = "Some(\"/mqtt\")";
        let calls = std::mem::take(&mut net.script().calls);
        assert_eq!(calls[..2], [shown("new", path, "browser"), shown("asked", path, "browser")]);
        net.flip("2.0.0", &Flip { per_mille: None, probation: Duration::ZERO, budget: 0 }, |_| {});
        net.send(client, "C0:");
        net.expect(client, "D0:");
        assert_eq!(net.script().take("swapped"), [shown("swapped", "None", "")]);
    });
}

/// Where something of the certificate is the User Name, what the client says does not count, and who has no such name is
/// refused before handlers are asked.
#[test]
fn a_certificate_names_the_user() {
    let named = |name: Option<String>| ClientCertificate { common_name: name.map(Into::into), ..certificate() };
    let [nameless, cut_short, too_long] =
        [None, Some("admin\0x".to_owned()), Some("x".repeat(1 << 16))].map(|name| Some(named(name)));
    let rows = [
        (UsernameFrom::CommonName, Some(certificate()), Some("sensor-7")),
        (UsernameFrom::Subject, Some(certificate()), Some("CN=sensor-7,O=Example")),
        (UsernameFrom::AlternativeName(NameKind::Dns), Some(certificate()), Some("a.example")),
        (UsernameFrom::AlternativeName(NameKind::Uri), Some(certificate()), Some("spiffe://x/7")),
        (UsernameFrom::AlternativeName(NameKind::Email), Some(certificate()), None),
        (UsernameFrom::CommonName, nameless, None),
        // [MQTT-1.5.4-2] No CONNECT could have such a User Name.
        (UsernameFrom::CommonName, cut_short, None),
        (UsernameFrom::CommonName, too_long, None),
        (UsernameFrom::CommonName, None, None),
    ];
    for (from, certificate, user) in rows {
        scenario(|net| {
            Arc::make_mut(&mut net.profile).username_from = Some(from);
            net.details = Some(details(certificate.clone()));
            for (version, level, refusal) in [(V3_1_1, "04", "20: 00 04"), (V5, "05", "20: 00 86 {}")] {
                let client = net.open(version);
                net.send(client, &format!("10: <MQTT> {level} C2 0000 [{{}}] <c> <admin> <secret>"));
                let asked = net.script().take("connect");
                if let Some(user) = user {
                    net.expect(client, CONNACK);
                    assert!(asked[0].contains(&format!("user=Some({user:?}) password=Some(\"secret\")")), "{asked:?}");
                } else {
                    net.expect_closed(client, refusal);
                    assert_eq!(asked, [""; 0]);
                }
            }
        });
    }
}

/// A certificate of the authority that the operator has chosen is as good as an opinion: see
/// `without_an_opinion_only_this_machine_is_let_in`.
#[test]
fn who_has_a_certificate_is_not_anonymous() {
    for certificate in [None, Some(certificate())] {
        scenario_with(&Setup { plugin: false, peer: "192.0.2.1:1", ..Setup::default() }, |net| {
            net.details = Some(details(certificate.clone()));
            let client = net.open(V5);
            net.send(client, &connect_packet(V5, "02", 0, "", "c"));
            match certificate {
                Some(_) => net.expect(client, CONNACK),
                None => net.expect_closed(client, "20: 00 87 {}"),
            }
        });
    }
}

/// A page of another machine, which a browser of this one shows, is not of this machine: where no plugin has an opinion, it is
/// not let in unless the operator has named its origin.
#[test]
fn pages_of_other_machines_are_not_of_this_one() {
    for (origin, is_let_in) in [
        ("http://localhost", true),
        ("http://LOCALHOST:8000", true),
        ("https://127.0.0.1:8443", true),
        ("http://[::1]:8000", true),
        ("https://example.com", false),
        ("http://localhost.example.com", false),
        ("http://127.0.0.1.example.com:80", false),
        ("http://[::1", true),
        ("null", false),
        ("", false),
    ] {
        for (plugin, named) in [(false, false), (false, true), (true, false)] {
            scenario_with(&Setup { plugin, peer: "127.0.0.1:1", ..Setup::default() }, |net| {
                let header = HttpHeader { name: "origin".into(), value: origin.as_bytes().into() };
                let http = HttpDetails { path: "/mqtt".into(), headers: [header].into() };
                net.details = Some(PeerDetails { http: Some(Box::new(http)), ..details(None) });
                Arc::make_mut(&mut net.profile).origins_are_named = named;
                let client = net.open(V5);
                net.send(client, &connect_packet(V5, "02", 0, "", "c"));
                if plugin || named || is_let_in {
                    net.expect(client, CONNACK);
                } else {
                    net.expect_closed(client, "20: 00 87 {}");
                }
            });
        }
    }
}

/// A proxy on this machine that speaks for itself, or does not know whose connection it is, may have anybody behind it.
#[test]
fn who_comes_through_a_proxy_is_not_of_this_machine() {
    for (has_proxy, plugin) in [(false, false), (true, false), (true, true)] {
        scenario_with(&Setup { plugin, peer: "127.0.0.1:1", ..Setup::default() }, |net| {
            Arc::make_mut(&mut net.profile).has_proxy = has_proxy;
            let client = net.open(V5);
            net.send(client, &connect_packet(V5, "02", 0, "", "c"));
            if plugin || !has_proxy {
                net.expect(client, CONNACK);
            } else {
                net.expect_closed(client, "20: 00 87 {}");
            }
        });
    }
}
