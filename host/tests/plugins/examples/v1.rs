//! See [`test_plugins::Versioned`].

plugin_api::export!(test_plugins::Versioned<1>, "versioned");
