//! The handler as a whole, with the example in the README.

use std::time::Duration;

use acl::Acl;
use plugin_api::testing::{TestCertificate, TestClient, TestHost, TestTransport};
use plugin_api::{DisconnectKind, Error, Message, NameKind, PublishVerdict, QoS, ReasonCode, SubscribeVerdict};

fn example() -> &'static str {
    let (_, rest) = include_str!("../README.md").split_once("```json\n").expect("the README has an example");
    rest.split_once("```").expect("the example ends").0
}

fn sign_in(host: &TestHost, username: &str, client_id: &str) -> TestClient {
    let client = host.client(client_id).username(username).password("correct horse").session_expiry_interval(60);
    client.connect().expect("the password is right")
}

const NO: ReasonCode = ReasonCode::NOT_AUTHORIZED;

#[test]
fn who_is_known_does_what_the_rules_say() -> Result<(), Error> {
    let host = TestHost::new::<Acl>(example())?;
    let sensor = sign_in(&host, "sensor1", "sensor1:a");
    assert_eq!(sensor.publish("sensors/sensor1/temperature", "21"), PublishVerdict::Forward);
    assert_eq!(sensor.publish("sensors/sensor2/temperature", "21"), PublishVerdict::reject(NO));
    let asked = [("commands/sensor1:a/+", QoS::AtLeastOnce), ("commands/#", QoS::AtLeastOnce)];
    assert_eq!(sensor.subscribe_all(&asked), SubscribeVerdict::Codes(vec![ReasonCode::GRANTED_QOS_1, NO]));

    let nobody = host.connect("sensor1").expect_err("it has no password");
    assert_eq!(nobody.reason_code, NO);
    let will = Message::new("sensors/sensor2/state", "gone");
    let refused = host.client("sensor1").username("sensor1").password("correct horse").will(will).connect();
    assert!(refused.is_err(), "its will is another one's topic");
    Ok(())
}

#[test]
fn other_rules_count_at_once_and_for_subscriptions_that_are_there() -> Result<(), Error> {
    let host = TestHost::new::<Acl>(example())?;
    let operator = sign_in(&host, "operator", "operator");
    assert_eq!(
        operator.subscribe_all(&[("sensors/#", QoS::AtMostOnce), ("chat/+", QoS::AtMostOnce)]),
        SubscribeVerdict::Grant
    );
    let error = host.configure(r#"{"rulez": []}"#).expect_err("there is no such key").to_string();
    assert!(error.contains("`rulez`"), "{error}");
    assert_eq!(operator.publish("chat/lunch", ""), PublishVerdict::Forward, "the old rules stay");

    let (before, _) = example().split_once("\"rules\"").expect("it has rules");
    host.configure(&format!(
        r#"{before} "rules": [{{"user": "operator", "allow": ["subscribe"], "topics": ["chat/+"]}}]}}"#
    ))?;
    assert_eq!(operator.publish("chat/lunch", ""), PublishVerdict::reject(NO));
    assert_eq!(operator.subscriptions(), [("chat/+".to_owned(), QoS::AtMostOnce)]);
    assert!(host.take_logs().iter().any(|line| line.text == "new rules: 1 subscriptions were removed"));
    Ok(())
}

#[test]
fn a_certificate_with_the_user_name_takes_the_place_of_a_password() -> Result<(), Error> {
    let rules = r#""rules": [{"anyone": true, "allow": ["publish"], "topics": ["%u/#"]}]"#;
    let host = TestHost::new::<Acl>(&format!(r#"{{"certificates": true, {rules}}}"#))?;
    let certificate = || TestCertificate::new("CN=pump-7,O=Example").alternative_name(NameKind::Dns, "pump-7.example");
    let comes_as = |username: &str| {
        let client = host.client("c").username(username).transport(TestTransport::tls().certificate(certificate()));
        client.connect()
    };
    for username in ["pump-7", "pump-7.example"] {
        let pump = comes_as(username).expect("the certificate says so");
        assert_eq!(pump.publish(&format!("{username}/pressure"), "5.3"), PublishVerdict::Forward);
        assert_eq!(pump.publish("other/pressure", "5.3"), PublishVerdict::reject(NO));
    }
    assert_eq!(comes_as("pump-8").expect_err("another one's name").reason_code, ReasonCode::BAD_USER_NAME_OR_PASSWORD);
    let without = host.client("c").username("pump-7").transport(TestTransport::tls()).connect();
    assert_eq!(without.expect_err("it has shown none").reason_code, ReasonCode::BAD_USER_NAME_OR_PASSWORD);

    let pump = comes_as("pump-7").expect("the certificate says so");
    host.configure(&format!("{{{rules}}}"))?;
    assert_eq!(
        pump.publish("pump-7/pressure", "5.3"),
        PublishVerdict::reject(NO),
        "certificates do not count any more"
    );
    Ok(())
}

/// A host that has no room for the question is asked later.
#[test]
fn subscriptions_end_though_the_host_is_full_when_the_rules_change() -> Result<(), Error> {
    let host = TestHost::new::<Acl>(example())?;
    let operator = sign_in(&host, "operator", "operator");
    assert_eq!(operator.subscribe_all(&[("chat/+", QoS::AtMostOnce)]), SubscribeVerdict::Grant);
    let shorter = example().lines().filter(|line| !line.contains("chat/+")).collect::<Vec<_>>().join("\n");
    host.refuse_requests(1);
    host.configure(&shorter)?;
    assert_eq!(operator.subscriptions().len(), 1);
    // Not this time either.
    host.refuse_requests(1);
    host.advance(Duration::from_secs(1));
    assert_eq!(operator.subscriptions().len(), 1);
    host.advance(Duration::from_secs(1));
    assert_eq!(operator.subscriptions(), []);
    Ok(())
}

#[test]
fn subscriptions_of_the_rules_before_a_swap_end() -> Result<(), Error> {
    let host = TestHost::new::<Acl>(example())?;
    let chatting = |username, client_id| {
        let client = sign_in(&host, username, client_id);
        assert_eq!(client.subscribe_all(&[("chat/+", QoS::AtMostOnce)]), SubscribeVerdict::Grant);
        client
    };
    let operator = chatting("operator", "operator");
    chatting("sensor1", "sensor1").lose();
    let shorter = example().lines().filter(|line| !line.contains("chat/+")).collect::<Vec<_>>().join("\n");
    host.swap::<Acl>(&shorter)?;
    assert_eq!(operator.subscriptions(), []);
    // Who was away is asked about when it is back.
    let back = host.client("sensor1").username("sensor1").password("correct horse").clean_start(false);
    let back = back.session_expiry_interval(60).connect().expect("the password is right");
    assert_eq!(back.subscriptions(), []);
    Ok(())
}

#[test]
fn a_swap_keeps_who_somebody_is() -> Result<(), Error> {
    let host = TestHost::new::<Acl>(example())?;
    let sensor = sign_in(&host, "sensor1", "sensor1");
    host.swap::<Acl>(example())?;
    assert_eq!(sensor.publish("sensors/sensor1/temperature", "21"), PublishVerdict::Forward);
    host.swap::<Acl>("{}")?;
    match sensor.ended() {
        Some(ended) => assert_eq!(ended.kind, DisconnectKind::ServerDisconnect),
        None => assert_eq!(sensor.publish("sensors/sensor1/temperature", "21"), PublishVerdict::reject(NO)),
    }
    Ok(())
}
