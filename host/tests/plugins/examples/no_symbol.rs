//! A shared library that is no plugin: `plugin_api::export!` is missing.
