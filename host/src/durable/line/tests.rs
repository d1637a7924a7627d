//! Lines come back as they were written, and what is wrong with one is said.

use super::*;
use crate::codec::RetainHandling;

fn message(topic: &str) -> Message<'_> {
    Message {
        topic: topic.into(),
        payload: b"21 \xC2\xB0C\n".into(),
        properties: Cow::Borrowed(b""),
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at: WallMillis::NEVER,
        source: Source::Client,
        token: 0,
    }
}

const PLAIN: &str = r#"{"topic":"t","payload":"21 °C\n","qos":1}"#;

fn rich() -> Message<'static> {
    Message {
        payload: Cow::Borrowed(b"\xFF\x00"),
        properties: Cow::Borrowed(b"\x01\x01\x03\0\x01c\x08\0\x01r\x09\0\x02\xFE\xFF\x26\0\x01a\0\x01b\x26\0\x01a\0\0"),
        qos: QoS::ExactlyOnce,
        retain: true,
        expires_at: WallMillis(1_700_000_000_123),
        source: Source::Plugin { index: 3, hops: 2 },
        token: u64::MAX,
        ..message("a/ä")
    }
}

const RICH: &str = r#"{"topic":"a/ä","payload_base64":"/wA=","qos":2,"retain":true,"expires_at_ms":1700000000123,"properties":{"payload_format_indicator":1,"content_type":"c","response_topic":"r","correlation_data_base64":"/v8=","user_properties":[["a","b"],["a",""]]},"plugin":{"index":3,"hops":2},"token":18446744073709551615}"#;

fn delivered(reason: Reason<'static>) -> Delivered<'static> {
    Delivered { message: message("t"), qos: QoS::AtLeastOnce, retain: false, reason }
}

fn shared(published: Option<Box<Message<'static>>>) -> Reason<'static> {
    Reason::Shared { share: "$share/g/t".into(), identifier: 4, published }
}

/// Lines, and their text.
fn all() -> Vec<(Line<'static>, String)> {
    let client_id = || Cow::Borrowed("c");
    let terms = Terms { expiry_secs: u32::MAX, expiry_secs_max: 9, ends_at: None, next_packet_id: 65_535 };
    let away = |at| Terms { expiry_secs: 5, ends_at: Some(at), ..terms };
    let options = SubscribeOptions {
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
        ..SubscribeOptions::new(QoS::ExactlyOnce)
    };
    let filter = || Cow::Borrowed("$share/g/+/#");
    let subscription =
        |options, identifier| Line::Subscription { client_id: client_id(), filter: filter(), options, identifier };
    let in_flight = |message| Line::InFlight { client_id: client_id(), packet_id: 7, message };
    let queued = |message| Line::Queued { client_id: client_id(), message };
    let incoming = |message| Line::Incoming { client_id: client_id(), packet_id: 7, message };
    let will = |due, expiry_secs| Line::Will { client_id: client_id(), due, expiry_secs, message: message("t") };
    let odd = Message { properties: Cow::Borrowed(b"\x23\0\x05"), source: Source::Server, ..message("t") };
    let counts = Counts { sessions: 1, subscriptions: 2, messages: 3, retained: 4, key_values: 5 };
    let share = Some(Cow::Borrowed("$share/g/t"));
    let on_its_way = |share| Line::OnItsWay { from: 0, to: 1, workers: 2, share, message: message("t") };
    let text = |text: &str| text.replace("PLAIN", PLAIN).replace("RICH", RICH);
    [
        (Line::Export { format: 1, host: "0.1.0".into() }, r#"{"type":"export","format":1,"host":"0.1.0"}"#),
        (
            Line::KeyValue { plugin: "acl".into(), key: b"k".into(), value: b"\x80".into() },
            r#"{"type":"key_value","plugin":"acl","key":"k","value_base64":"gA=="}"#,
        ),
        (Line::Retained(rich()), r#"{"type":"retained","message":RICH}"#),
        (
            Line::Retained(odd),
            r#"{"type":"retained","message":{"topic":"t","payload":"21 °C\n","qos":1,"properties_base64":"IwAF","source":"server"}}"#,
        ),
        (
            Line::Session { client_id: client_id(), terms },
            r#"{"type":"session","client_id":"c","expiry_secs":"never","expiry_secs_max":9,"connected":true,"next_packet_id":65535}"#,
        ),
        (
            Line::Session { client_id: client_id(), terms: away(WallMillis(12)) },
            r#"{"type":"session","client_id":"c","expiry_secs":5,"expiry_secs_max":9,"ends_at_ms":12,"next_packet_id":65535}"#,
        ),
        (
            Line::Session { client_id: client_id(), terms: away(WallMillis::NEVER) },
            r#"{"type":"session","client_id":"c","expiry_secs":5,"expiry_secs_max":9,"ends_at_ms":"never","next_packet_id":65535}"#,
        ),
        (
            subscription(options, 268_435_455),
            r#"{"type":"subscription","client_id":"c","filter":"$share/g/+/#","qos":2,"no_local":true,"retain_as_published":true,"retain_handling":2,"identifier":268435455}"#,
        ),
        (
            subscription(SubscribeOptions::new(QoS::AtMostOnce), 0),
            r#"{"type":"subscription","client_id":"c","filter":"$share/g/+/#","qos":0}"#,
        ),
        (
            will(Due::AfterSecs(3), Some(0)),
            r#"{"type":"will","client_id":"c","delay_secs":3,"expiry_secs":0,"message":PLAIN}"#,
        ),
        (will(Due::At(WallMillis(5)), None), r#"{"type":"will","client_id":"c","due_at_ms":5,"message":PLAIN}"#),
        (
            Line::LastStates { client_id: client_id(), states: b"\0\xFF".into() },
            r#"{"type":"last_states","client_id":"c","states_base64":"AP8="}"#,
        ),
        (in_flight(None), r#"{"type":"in_flight","client_id":"c","packet_id":7,"received":true}"#),
        (
            in_flight(Some(delivered(Reason::Subscriptions(vec![1, 2])))),
            r#"{"type":"in_flight","client_id":"c","packet_id":7,"qos":1,"identifiers":[1,2],"message":PLAIN}"#,
        ),
        (
            queued(Delivered { retain: true, qos: QoS::ExactlyOnce, ..delivered(Reason::Subscriptions(Vec::new())) }),
            r#"{"type":"queued","client_id":"c","qos":2,"retain":true,"message":PLAIN}"#,
        ),
        (
            queued(delivered(shared(None))),
            r#"{"type":"queued","client_id":"c","qos":1,"share":"$share/g/t","identifier":4,"message":PLAIN}"#,
        ),
        (
            queued(delivered(shared(Some(Box::new(rich()))))),
            r#"{"type":"queued","client_id":"c","qos":1,"share":"$share/g/t","identifier":4,"published":RICH,"message":PLAIN}"#,
        ),
        (
            queued(delivered(Reason::Sent)),
            r#"{"type":"queued","client_id":"c","qos":1,"sent_by_plugin":true,"message":PLAIN}"#,
        ),
        (incoming(None), r#"{"type":"incoming","client_id":"c","packet_id":7,"taken":true}"#),
        (
            incoming(Some(Message { source: Source::Will, ..message("t") })),
            r#"{"type":"incoming","client_id":"c","packet_id":7,"message":{"topic":"t","payload":"21 °C\n","qos":1,"source":"will"}}"#,
        ),
        (on_its_way(None), r#"{"type":"on_its_way","from":0,"to":1,"workers":2,"message":PLAIN}"#),
        (
            on_its_way(share),
            r#"{"type":"on_its_way","from":0,"to":1,"workers":2,"share":"$share/g/t","message":PLAIN}"#,
        ),
        (
            Line::End(counts),
            r#"{"type":"end","sessions":1,"subscriptions":2,"messages":3,"retained":4,"key_values":5}"#,
        ),
    ]
    .map(|(line, shown)| (line, text(shown)))
    .into()
}

/// The form is in people's backups: it stays.
#[test]
fn each_line_is_written_as_it_says_and_comes_back() {
    for (line, text) in all() {
        let mut out = Vec::new();
        line.write(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), format!("{text}\n"));
        assert_eq!(Line::parse(&out).as_ref(), Ok(&line), "{text}");
    }
}

#[test]
fn what_is_wrong_with_a_line_is_said() {
    for (text, said) in [
        ("", "it is no JSON: EOF"),
        ("[1]", "the line is [1], expected an object"),
        ("{}", r#""type" is missing in the line"#),
        (r#"{"type":"sessions"}"#, r#""type" is "sessions", expected export, key_value"#),
        (r#"{"type":"session","client_id":5}"#, r#""client_id" is 5, expected a string"#),
        (r#"{"type":"session","client_id":""}"#, r#""client_id" is "", expected a Client Identifier"#),
        (
            r#"{"type":"session","client_id":"c","expiry_secs":0,"expiry_secs_max":0}"#,
            r#""expiry_secs" is 0, expected 1 or more"#,
        ),
        (
            r#"{"type":"session","client_id":"c","expiry_secs":4294967296,"expiry_secs_max":0}"#,
            r#""expiry_secs" is 4294967296, expected a number from 0 to 4294967295"#,
        ),
        (
            r#"{"type":"subscription","client_id":"c","filter":"a#","qos":1}"#,
            r#""filter" is "a#", expected a Topic Filter"#,
        ),
        (r#"{"type":"subscription","client_id":"c","filter":"a","qos":3}"#, r#""qos" is 3, expected 0, 1 or 2"#),
        (
            r#"{"type":"subscription","client_id":"c","filter":"a","qos":1,"no-local":true}"#,
            r#""no-local" is not known in the line, expected only "type", "client_id", "filter", "qos", "no_local""#,
        ),
        (
            r#"{"type":"retained","message":{"topic":"+","payload":"","qos":0}}"#,
            r#""message.topic" is "+", expected a Topic Name"#,
        ),
        (
            r#"{"type":"retained","message":{"topic":"t","payload_base64":"!","qos":0}}"#,
            r#""message.payload_base64": invalid"#,
        ),
        (r#"{"type":"retained","message":{"topic":"t","qos":0}}"#, r#""message.payload" is missing in "message""#),
        (
            r#"{"type":"retained","message":{"topic":"t","payload":"","qos":0,"properties":{"content_type":"\u0000"}}}"#,
            r#""properties": "#,
        ),
        (
            r#"{"type":"retained","message":{"topic":"t","payload":"","qos":0,"properties":{"user_properties":[["a"]]}}}"#,
            r#""user_properties" has ["a"], expected a name and a value"#,
        ),
        (
            r#"{"type":"queued","client_id":"c","qos":0,"message":{"topic":"t","payload":"","qos":0}}"#,
            r#""qos" is 0, expected 1 or 2"#,
        ),
        (
            r#"{"type":"queued","client_id":"c","qos":1,"share":"a/b","message":{"topic":"t","payload":"","qos":0}}"#,
            r#""share" is "a/b", expected a Topic Filter of the form $share"#,
        ),
        (
            r#"{"type":"in_flight","client_id":"c","packet_id":0}"#,
            r#""packet_id" is 0, expected a Packet Identifier, from 1 to 65535"#,
        ),
        (r#"{"type":"last_states","client_id":"c","states":""}"#, r#""states" is empty"#),
        (
            r#"{"type":"on_its_way","from":0,"to":2,"workers":2,"message":{}}"#,
            "from worker 0 to worker 2 of 2, expected numbers below that",
        ),
    ] {
        let error = Line::parse(text.as_bytes()).expect_err(text);
        assert!(error.contains(said), "{text}: {error}");
    }
}

/// Adds lines until one is refused, and says which, and why.
fn refused(lines: &[&str]) -> Option<(usize, String)> {
    let mut writing = Writing::default();
    for (number, text) in (1..).zip(lines) {
        let line = Line::parse(text.as_bytes()).expect(text);
        if let Err(what) = writing.add(number as u64, &line, &mut |_| {}) {
            return Some((number, what));
        }
    }
    writing.counts().err().map(|what| (lines.len() + 1, what))
}

#[test]
fn lines_that_do_not_fit_together_are_refused() {
    const FIRST: &str = r#"{"type":"export","format":1,"host":"x"}"#;
    const A: &str =
        r#"{"type":"session","client_id":"a","expiry_secs":1,"expiry_secs_max":1,"connected":true,"next_packet_id":1}"#;
    const SUBSCRIBED: &str = r#"{"type":"subscription","client_id":"a","filter":"t","qos":1}"#;
    const RETAINED: &str = r#"{"type":"retained","message":{"topic":"t","payload":"","qos":0}}"#;
    const END: &str = r#"{"type":"end","sessions":1,"subscriptions":0,"messages":0,"retained":0,"key_values":0}"#;
    let b = A.replace("\"a\"", "\"b\"");
    let in_flight = |id: u16| format!(r#"{{"type":"in_flight","client_id":"a","packet_id":{id},"received":true}}"#);
    let incoming = r#"{"type":"incoming","client_id":"a","packet_id":3,"taken":true}"#;
    let states = r#"{"type":"last_states","client_id":"a","states":"x"}"#;
    let will = r#"{"type":"will","client_id":"a","delay_secs":1,"message":{"topic":"t","payload":"","qos":0}}"#;
    let [five, four, six, last, again] = [5, 4, 6, 65_535, 5].map(in_flight);
    assert_eq!(refused(&[FIRST, A, END]), None);
    for (lines, at, said) in [
        (vec![A], 1, "expected a line of the type \"export\" first"),
        (vec![r#"{"type":"export","format":2,"host":"9.0"}"#], 1, "host 9.0 has written it in version 2"),
        (vec![FIRST, FIRST], 2, "comes first"),
        (vec![FIRST, A], 3, "the last line, of the type \"end\", is missing"),
        (vec![FIRST, END], 2, "it says 1 sessions with 0 subscriptions"),
        (vec![FIRST, A, END, A], 4, "behind the last line"),
        (vec![FIRST, A, &b, A], 4, "the same session is there already, in line 2"),
        (vec![FIRST, RETAINED, RETAINED], 3, "retained message of this topic is there already, in line 2"),
        (vec![FIRST, SUBSCRIBED], 2, "of client \"a\", expected behind the line of its session"),
        (vec![FIRST, A, &b, SUBSCRIBED], 4, "stands behind the session of \"b\""),
        (vec![FIRST, A, SUBSCRIBED, SUBSCRIBED], 4, "to \"t\" is there already"),
        (vec![FIRST, A, will, will], 4, "a will of this client is there already"),
        (vec![FIRST, A, states, states], 4, "are there already"),
        (vec![FIRST, A, incoming, incoming], 4, "with Packet Identifier 3 already"),
        (vec![FIRST, A, &five, &six, &last, &four, &again], 7, "Packet Identifier 5 comes behind 4"),
        (vec![FIRST, A, &five, &last, &six], 5, "Packet Identifier 6 comes behind 65535, where 5 was the first"),
    ] {
        let (number, what) = refused(&lines).expect(said);
        assert!(number == at && what.contains(said), "{lines:?}: line {number}: {what}");
    }
}
