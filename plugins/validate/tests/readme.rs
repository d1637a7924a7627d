//! The example in the README is read, and does what the README says.

use validate::{Finding, OnInvalid, Rules};

#[test]
fn the_example_lets_through_what_it_says() {
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once("```json\n").expect("the README has an example");
    let (json, _) = rest.split_once("```").expect("the example ends");
    let config = plugin_api::config::read(json).unwrap_or_else(|error| panic!("{error}"));
    let (rules, _) = Rules::new(&config).unwrap_or_else(|error| panic!("{error}"));
    // The messages of the example, in order: the first one is valid.
    let payloads: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("mosquitto_pub")?.split_once("-m "))
        .map(|(_, payload)| payload.split("  ").next().unwrap_or_default().trim_matches('\''))
        .collect();
    assert_eq!(payloads, [r#"{"celsius": 21.5}"#, r#"{"celsius": 300}"#, "21.5"]);
    for (payload, expected) in payloads.into_iter().zip([true, false, false]) {
        match rules.find("sensors/1/temperature", payload.as_bytes()) {
            Finding::Valid => assert!(expected, "{payload}"),
            Finding::Invalid(problem, OnInvalid::Reject) => assert!(!expected, "{payload}: {problem}"),
            other => panic!("{payload}: {other:?}"),
        }
    }
    assert_eq!(rules.find("sensors/1/pressure", b"high"), Finding::Valid);
}
