//! The handler as a whole.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwt::{Jwt, METHOD};
use plugin_api::testing::{Refused, TestClient, TestHost};
use plugin_api::{AuthVerdict, Error, QoS, ReasonCode, SubscribeVerdict};
use ring::hmac;

const SECRET: &str = "of a test: no real secret, 32+ bytes";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn config() -> String {
    let rules = r#"{"subscribe": ["commands/%u"]}"#;
    format!(r#"{{"keys": [{{"algorithm": "HS256", "secret": "{SECRET}"}}], "rules": {rules}}}"#)
}

fn host() -> Result<TestHost, Error> {
    TestHost::new::<Jwt>(&config())
}

/// A token of this bearer for `left` from now on that lets this filter be subscribed to.
fn token(bearer: &str, left: Duration, filter: &str) -> String {
    let expires = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right") + left;
    let claims =
        format!(r#"{{"sub": "{bearer}", "exp": {}, "acl": {{"subscribe": ["{filter}"]}}}}"#, expires.as_secs());
    let [header, claims] = [r#"{"alg": "HS256"}"#, &claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    let signed = format!("{header}.{claims}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
}

/// Signs in with such a token in the place of a password.
fn sign_in(host: &TestHost, left: Duration, filter: &str) -> TestClient {
    let client = host.client("ann").password(token("ann", left, filter));
    let client = client.clean_start(false).session_expiry_interval(60);
    client.connect().unwrap_or_else(|refused| panic!("{refused:?}"))
}

/// Signs in by enhanced authentication.
fn show(host: &TestHost, token: &str) -> Result<TestClient, Refused> {
    host.client("ann").authenticate(METHOD, token, |_| Vec::new()).connect()
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

#[test]
fn a_token_that_is_renewed_counts_from_then_on() -> Result<(), Error> {
    let host = host()?;
    let ann = show(&host, &token("ann", DAY, "news/#"))?;
    let asked = [("news/#", QoS::AtMostOnce), ("commands/ann", QoS::AtMostOnce)];
    assert_eq!(ann.subscribe_all(&asked), SubscribeVerdict::Grant);
    assert_eq!(ann.authenticate_again(token("ann", 2 * DAY, "other"), |_| Vec::new()), AuthVerdict::Ok);
    assert_eq!(ann.subscriptions(), [("commands/ann".to_owned(), QoS::AtMostOnce)]);
    // The timer of the token before says nothing any more: it is not set again, though the time of tokens stands still.
    assert_eq!(host.timers().len(), 2);
    host.advance(DAY + Duration::from_secs(10));
    assert_eq!((host.timers().len(), ann.ended()), (1, None));
    // The next version knows whose token it is.
    host.swap::<Jwt>(&config())?;
    assert_eq!(ann.authenticate_again(token("ann", 3 * DAY, "news/#"), |_| Vec::new()), AuthVerdict::Ok);
    assert_eq!(ann.subscribe("news/#"), SubscribeVerdict::Grant);
    Ok(())
}

#[test]
fn a_token_that_is_not_good_ends_what_it_was_to_renew() -> Result<(), Error> {
    let host = host()?;
    let code = |refused: Result<TestClient, Refused>| refused.err().map(|refused| refused.reason_code);
    assert_eq!(code(show(&host, "none")), Some(ReasonCode::BAD_USER_NAME_OR_PASSWORD));
    let other = host.client("ann").authenticate("SCRAM-SHA-256", "", |_| Vec::new()).connect();
    assert_eq!(code(other), Some(ReasonCode::BAD_USER_NAME_OR_PASSWORD), "that is not known here");
    for (again, problem) in [("none".to_owned(), "no token"), (token("bob", DAY, "news/#"), "another bearer's")] {
        let ann = show(&host, &token("ann", DAY, "news/#"))?;
        let AuthVerdict::Error(reject) = ann.authenticate_again(again, |_| Vec::new()) else { panic!("{problem}") };
        assert_eq!(reject.reason_code, ReasonCode::NOT_AUTHORIZED);
        assert!(ann.ended().is_some());
        assert!(host.take_logs().iter().any(|line| line.text.contains(problem)), "{problem}");
    }
    Ok(())
}

/// A client whose token nobody would look at again when it expires is not let in, or does not stay.
#[test]
fn nobody_stays_without_a_timer() -> Result<(), Error> {
    let host = host()?;
    host.refuse_requests(1);
    let ann = sign_in(&host, DAY, "news/#");
    assert_eq!(ann.ended().map(|ended| ended.reason_code), Some(ReasonCode::SERVER_BUSY));
    let ann = sign_in(&host, 100 * DAY, "news/#");
    host.refuse_requests(1);
    host.advance(100 * DAY);
    assert_eq!(ann.ended().map(|ended| ended.reason_code), Some(ReasonCode::SERVER_BUSY));
    Ok(())
}
