//! See [`test_plugins::Counting`].

plugin_api::export!(test_plugins::Counting<2>, "counting");
