//! The handler as a whole.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwt::Jwt;
use plugin_api::testing::{TestClient, TestHost};
use plugin_api::{Error, QoS, SubscribeVerdict};
use ring::hmac;

const SECRET: &str = "of a test: no real secret, 32+ bytes";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn host() -> Result<TestHost, Error> {
    let rules = r#"{"subscribe": ["commands/%u"]}"#;
    TestHost::new::<Jwt>(&format!(r#"{{"keys": [{{"algorithm": "HS256", "secret": "{SECRET}"}}], "rules": {rules}}}"#))
}

/// Signs in with a token for `left` from now on that lets this filter be subscribed to.
fn sign_in(host: &TestHost, left: Duration, filter: &str) -> TestClient {
    let expires = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right") + left;
    let claims = format!(r#"{{"sub": "ann", "exp": {}, "acl": {{"subscribe": ["{filter}"]}}}}"#, expires.as_secs());
    let [header, claims] = [r#"{"alg": "HS256"}"#, &claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    let signed = format!("{header}.{claims}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())));
    let client = host.client("ann").password(token).clean_start(false).session_expiry_interval(60);
    client.connect().unwrap_or_else(|refused| panic!("{refused:?}"))
}

#[test]
fn subscriptions_of_an_earlier_token_go_on_if_the_new_one_allows_them() -> Result<(), Error> {
    let host = host()?;
    let ann = sign_in(&host, DAY, "news/#");
    let asked = [("news/#", QoS::AtMostOnce), ("commands/ann", QoS::AtMostOnce)];
    assert_eq!(ann.subscribe_all(&asked), SubscribeVerdict::Grant);
    ann.disconnect();
    let ann = sign_in(&host, DAY, "news/#");
    assert_eq!(ann.subscriptions().len(), 2);
    ann.disconnect();
    let ann = sign_in(&host, DAY, "other");
    assert_eq!(ann.subscriptions(), [("commands/ann".to_owned(), QoS::AtMostOnce)]);
    Ok(())
}

/// The host's time goes on here, and that of the tokens does not.
#[test]
fn a_timer_that_comes_too_early_is_set_again() -> Result<(), Error> {
    let host = host()?;
    for left in [DAY, 100 * DAY] {
        let ann = sign_in(&host, left, "news/#");
        for _ in 0..3 {
            assert_eq!(host.timers().len(), 1, "{left:?}");
            host.advance(left);
            assert!(ann.ended().is_none(), "{left:?}");
        }
        ann.disconnect();
        host.advance(left);
        assert_eq!(host.timers().len(), 0, "{left:?}");
    }
    Ok(())
}
