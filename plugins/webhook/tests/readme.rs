//! The example in the README is read. What it does is an end-to-end test of the broker's.

use webhook::Config;

#[test]
fn the_example_is_a_configuration() {
    let (_, rest) = include_str!("../README.md").split_once("```json\n").expect("the README has an example");
    let (json, _) = rest.split_once("```").expect("the example ends");
    assert!(plugin_api::config::read::<Config>(json).is_ok());
}
