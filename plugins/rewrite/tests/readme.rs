//! The example in the README is read, and does what the README says.

use rewrite::{Renamed, Rules};

#[test]
fn the_example_gives_the_names_that_it_says() {
    let (_, rest) = include_str!("../README.md").split_once("```json\n").expect("the README has an example");
    let (json, _) = rest.split_once("```").expect("the example ends");
    let rules = plugin_api::config::read(json).and_then(Rules::new).unwrap_or_else(|error| panic!("{error}"));
    let to = |name: &str| Renamed::To(name.to_owned());
    assert_eq!(rules.publish("old/7/temp", "c1"), to("plant/7/temperature"));
    assert_eq!(rules.subscribe("old/+/temp", "c1"), to("plant/+/temperature"));
    assert_eq!(rules.publish("raw/a/b", "c1"), to("devices/c1/a/b"));
    assert_eq!(rules.subscribe("inbox/#", "c1"), to("devices/c1/in/#"));
    assert_eq!((rules.subscribe("raw/a", "c1"), rules.publish("inbox/a", "c1")), (Renamed::Not, Renamed::Not));
}
