//! Tokens of all kinds, and what comes of them.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const FOR_EVER: u64 = 4_102_444_800;

fn read(config: &Value) -> Result<Policy, ConfigError> {
    Policy::new(&plugin_api::config::read(&config.to_string())?).map(|(policy, _)| policy)
}

fn policy(config: Value) -> Policy {
    read(&config).unwrap_or_else(|error| panic!("{error}"))
}

/// With one secret.
fn with(more: Value) -> Policy {
    let mut config = json!({"keys": [{"algorithm": "HS256", "secret": SECRET}]});
    config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    policy(config)
}

fn token_of(header: &Value, claims: &Value, secret: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, message.as_bytes())))
}

fn token(claims: Value) -> String {
    token_of(&json!({"alg": "HS256"}), &claims, SECRET)
}

fn login(token: &str) -> Login<'_> {
    Login { token: Some(token), username: None, client_id: "c1", is_client_id_assigned: false, will_topic: None }
}

/// Why the token is refused; empty if it is not.
fn refusal(policy: &Policy, token: &str) -> String {
    policy.connect(&login(token)).map_or_else(|refusal| refusal.to_string(), |_| String::new())
}

/// What another program has signed: openssl.
fn signed() -> impl Iterator<Item = (&'static str, &'static str)> {
    include_str!("../../tests/fixtures/tokens").lines().filter_map(|line| line.split_once(' '))
}

#[test]
fn tokens_of_every_kind_are_good_with_their_key_and_no_other() {
    let file = |name: &str| format!("{FIXTURES}/{name}.pem");
    let key = |algorithm: &str| {
        let name = match &algorithm[..2] {
            "ES" => "ec",
            "Ed" => "ed",
            _ => "rsa",
        };
        json!({"algorithm": algorithm, "public_key_file": file(name)})
    };
    let set = policy(json!({"jwks_file": format!("{FIXTURES}/jwks.json")}));
    let names: Vec<&str> = signed().map(|(algorithm, _)| algorithm).collect();
    assert_eq!(names, ["RS256", "PS256", "ES256", "EdDSA"]);
    for (algorithm, token) in signed() {
        assert_eq!(refusal(&set, token), "", "{algorithm}");
        for other in &names {
            let expected = if *other == algorithm { "" } else { "this is no token that is known here" };
            assert_eq!(refusal(&policy(json!({"keys": [key(other)]})), token), expected, "{algorithm} with {other}");
        }
        // Another signature, and another message.
        let (message, signature) = token.rsplit_once('.').expect("a signature");
        let changed = format!("{message}.{}", signature.chars().rev().collect::<String>());
        assert_ne!(refusal(&set, &changed), "", "{algorithm}");
        let changed = token.replacen(".eyJzdWIiOiJhbm4i", ".eyJzdWIiOiJib2Ii", 1);
        assert_ne!(changed, token);
        assert_ne!(refusal(&set, &changed), "", "{algorithm}");
    }
}

#[test]
fn public_keys_are_no_secrets_and_nothing_is_no_signature() {
    let pem = std::fs::read_to_string(format!("{FIXTURES}/rsa.pem")).expect("the fixture");
    let set = policy(json!({"jwks_file": format!("{FIXTURES}/jwks.json")}));
    let claims = json!({"sub": "ann", "exp": FOR_EVER});
    assert_ne!(refusal(&set, &token_of(&json!({"alg": "HS256"}), &claims, &pem)), "");
    let none = token_of(&json!({"alg": "none"}), &claims, SECRET);
    let unsigned = format!("{}.", none.rsplit_once('.').expect("a signature").0);
    for token in [none.as_str(), &unsigned, "", ".", "..", "a.b.c", "\u{e9}.x.y"] {
        assert_ne!(refusal(&set, token), "", "{token}");
        assert_ne!(refusal(&with(json!({})), token), "", "{token}");
    }
}

#[test]
fn claims_about_time_issuer_and_audience_are_checked() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let plain = with(json!({}));
    let strict = with(json!({"issuer": "https://id", "audience": "mqtt"}));
    let forever = with(json!({"require_expiry": false, "leeway_secs": 1000}));
    for (policy, claims, expected) in [
        (&plain, json!({"exp": now + 1000}), ""),
        (&plain, json!({"exp": now as f64 + 1000.5}), ""),
        (&plain, json!({"exp": now - 1000}), "the token has expired"),
        (&plain, json!({}), "the token has no claim `exp`"),
        (&plain, json!({"exp": "tomorrow"}), "the token has no claim `exp`"),
        (&plain, json!({"exp": FOR_EVER, "nbf": now + 1000}), "the token is not valid yet"),
        (&plain, json!({"exp": FOR_EVER, "aud": "other", "iss": "other"}), ""),
        (&forever, json!({}), ""),
        (&forever, json!({"exp": now - 900, "nbf": now + 900}), ""),
        (&forever, json!({"exp": "tomorrow"}), "this is no token that is known here"),
        (&strict, json!({"exp": FOR_EVER, "iss": "https://id", "aud": ["x", "mqtt"]}), ""),
        (&strict, json!({"exp": FOR_EVER, "iss": "https://id", "aud": "x"}), "the token is for another audience"),
        (&strict, json!({"exp": FOR_EVER, "iss": "x", "aud": "mqtt"}), "the token is of another issuer"),
        (&strict, json!({"exp": FOR_EVER, "aud": "mqtt"}), "the token has no claim `iss`"),
        (&strict, json!({"exp": FOR_EVER, "iss": "https://id"}), "the token has no claim `aud`"),
    ] {
        assert_eq!(refusal(policy, &token(claims.clone())), expected, "{claims}");
    }
    let grant = plain.connect(&login(&token(json!({"exp": now + 1000})))).expect("it is good");
    assert_eq!(grant.expires, Some(now + 1005));
}

#[test]
fn a_key_is_for_tokens_with_its_name() {
    let keys = policy(json!({"keys": [
        {"algorithm": "HS256", "secret": SECRET, "kid": "old"},
        {"algorithm": "HS256", "secret": "another secret that is long enough", "kid": "new"}]}));
    let claims = json!({"exp": FOR_EVER});
    for (kid, secret, expected) in [
        (Some("old"), SECRET, true),
        (Some("new"), "another secret that is long enough", true),
        (Some("new"), SECRET, false),
        (Some("x"), SECRET, false),
        (None, SECRET, true),
    ] {
        let token = token_of(&json!({"alg": "HS256", "kid": kid}), &claims, secret);
        assert_eq!(refusal(&keys, &token).is_empty(), expected, "{kid:?} {secret}");
    }
}

#[test]
fn rules_and_the_token_say_what_is_allowed() {
    let policy = with(json!({"rules": {"publish": ["out/%u/#", "by/%c"], "deny": ["out/%u/secret"]}}));
    let claims = json!({"sub": "ann", "exp": FOR_EVER,
        "acl": {"pub": ["extra"], "subscribe": ["in/%c/+"], "all": ["both"], "deny": ["in/c1/no"]}});
    let may = policy.connect(&login(&token(claims))).expect("it is good").permissions;
    for (topic, publish, subscribe) in [
        ("out/ann/x", true, false),
        ("out/ann/secret", false, false),
        ("out/bob/x", false, false),
        ("by/c1", true, false),
        ("extra", true, false),
        ("both", true, true),
        ("in/c1/x", false, true),
        ("in/c1/no", false, false),
        ("in/c2/x", false, false),
    ] {
        assert_eq!((may.may_publish(topic), may.may_subscribe(topic)), (publish, subscribe), "{topic}");
    }
    // Without a name, a rule with `%u` says nothing.
    let nobody = policy.connect(&login(&token(json!({"exp": FOR_EVER})))).expect("it is good").permissions;
    assert!(nobody.may_publish("by/c1") && !nobody.may_publish("out//x"));
    // Names that would change what a filter means.
    for (name, client_id) in [("+", "c1"), ("a/b", "c1"), ("ann", "#"), ("ann", "")] {
        let token = token(json!({"sub": name, "exp": FOR_EVER}));
        assert!(policy.connect(&Login { client_id, ..login(&token) }).is_err(), "{name} {client_id}");
    }
    for acl in [json!("x"), json!({"publish": ["#/x"]}), json!({"publsh": []}), json!({"publish": vec!["a"; 1001]})] {
        let refusal = refusal(&policy, &token(json!({"sub": "ann", "exp": FOR_EVER, "acl": acl})));
        assert!(refusal.starts_with("its claim `acl` is wrong: "), "{refusal}");
    }
}

#[test]
fn names_and_wills_are_checked() {
    let policy = with(json!({"check_username": true, "username_claim": "name", "client_ids": ["%u", "%u:*"],
        "rules": {"publish": ["by/%u"]}}));
    let token = token(json!({"name": "ann", "exp": FOR_EVER}));
    let ann = Login { username: Some("ann"), client_id: "ann:1", ..login(&token) };
    for (login, expected) in [
        (ann, Ok(())),
        (Login { will_topic: Some("by/ann"), ..ann }, Ok(())),
        (Login { will_topic: Some("by/bob"), ..ann }, Err(Refusal::Will)),
        (Login { username: Some("bob"), ..ann }, Err(Refusal::Username)),
        (Login { username: None, ..ann }, Err(Refusal::Username)),
        (Login { client_id: "bob", ..ann }, Err(Refusal::ClientIdentifier)),
        (Login { client_id: "x", is_client_id_assigned: true, ..ann }, Ok(())),
        (Login { token: None, ..ann }, Err(Refusal::Token("a token is required".into()))),
    ] {
        assert_eq!(policy.connect(&login).map(drop), expected, "{login:?}");
    }
}

#[test]
fn faults_are_named_with_their_place_and_without_secrets() {
    let key = |key: Value| json!({"keys": [key]});
    let with_rules = |rules: Value| json!({"keys": [{"algorithm": "HS256", "secret": SECRET}], "rules": rules});
    for (config, path, problem) in [
        (json!({}), ".", "at least one key"),
        (key(json!({"algorithm": "HS256"})), "keys[0]", "exactly one of `secret`"),
        (key(json!({"algorithm": "HS256", "secret": ""})), "keys[0].secret", "empty"),
        (key(json!({"algorithm": "RS256", "secret": SECRET})), "keys[0]", "expected `public_key_file`"),
        (key(json!({"algorithm": "RS1", "secret": SECRET})), "keys[0].algorithm", "unknown variant `RS1`"),
        (key(json!({"algorithm": "HS256", "secret": 123456})), "keys[0].secret", "expected a string"),
        (
            key(json!({"algorithm": "RS256", "public_key_file": format!("{FIXTURES}/ec.pem")})),
            "keys[0].public_key_file",
            "expected a public key for RS256 in PEM",
        ),
        (json!({"jwks_file": format!("{FIXTURES}/tokens")}), "jwks_file", "it is no key set"),
        (with_rules(json!({"publish": ["#/x"]})), "rules.publish[0]", "got `#/x`, expected a Topic Filter"),
        (with_rules(json!({"deny": ["%x"]})), "rules.deny[0]", "got `%x`"),
    ] {
        let error = read(&config).err().unwrap_or_else(|| panic!("accepted: {config}"));
        assert_eq!(error.path(), path, "{config}: {error}");
        let error = error.to_string();
        assert!(error.contains(problem) && !error.contains(SECRET) && !error.contains("123456"), "{config}: {error}");
    }
}
